"""What runs in an area's own process as a HELICS federate, and what it shares with the coordinator's federate.

Requests and replies are HELICS *commands*: texts from one named federate to another that do not wait for a granted
time. Time in a HELICS federation goes on when everybody has asked for it, so that with it one area that dies stops all
others until the broker ends the federation; without it an area that is gone is a reply that does not come. A broker
that is ``--dynamic`` lets an area join again, under a name of its own each time::

    to the coordinator    {"do": "hello", "area": "2", "digest": "..."}        until it is answered
    from the coordinator  {"do": "welcome"}   or   {"do": "refused", "reason": "..."}
    from the coordinator  {"do": "solve", "number": 7, "with": {"borders": {...}}}
    to the coordinator    {"do": "reply", "number": 7, "reply": {...}}
    from the coordinator  {"do": "end"}
    to the coordinator    {"do": "bye"}                                          an owner who leaves

``python -m lateral.areas.federate`` is started by the executor `helics`; an owner starts ``lateral areas serve``.
Needs the extra ``lateral[helics]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lateral.areas.agent import AreaAgent, Task, in_consensus
from lateral.areas.flow import FLOW_DOWN, FLOW_UP, REACH
from lateral.areas.message import Bounds, MessageError, arrays
from lateral.areas.point import wants_point
from lateral.areas.protocol import handle, pack, unpack
from lateral.areas.quantities import head_in, head_may, tail_in, terms
from lateral.areas.worker import MAX_FRAME
from lateral.devices import BorderHead, BorderTail
from lateral.errors import LateralError, OptionError, SolveError
from lateral.io.tables import read_folder
from lateral.solvers import Status

#: What every member of a federation asks of HELICS: a lost broker is noticed after about two seconds.
TIMEOUTS = "--tick=500ms --timeout=2s"
#: How often a member looks for the broker, about 4 s each time.
_RETRIES = "--networkretries=2"
#: Part of what a process says that did not find the broker in that time, as happens to some on a busy machine.
UNREACHED = "cannot be reached; check that it runs"
#: Cores that can be asked for: ``tcpss`` is the one that HELICS can encrypt, where it was built with encryption.
CORES = ("zmq", "tcpss")
#: Seconds that a member waits for HELICS to let it go.
LEAVE_S = 3.0
#: Seconds between two looks for a command, while there is much to do and while there is not.
_BUSY_S, _IDLE_S = 0.0003, 0.005

#: Called with the direction (``sent`` or ``received``) and every text that crosses.
Recorder = Callable[[str, bytes], None]


class FederationLost(SolveError):
    """The broker is gone, or it has ended the federation."""


def load() -> ModuleType:
    """The HELICS library.

    Raises:
        OptionError: it is not installed.
    """
    try:
        import helics
    except ImportError as error:
        message = "the executor 'helics' needs HELICS: pip install 'lateral[helics]'"
        raise OptionError(message) from error
    found: ModuleType = helics
    return found


def require_encryption() -> None:
    """See that HELICS was built with encryption: one that was not joins in the clear, and says so in a log only.

    Raises:
        OptionError: it was not, or its library cannot be looked at.
    """
    places = [Path(str(load().__file__)).parent, *map(Path, filter(None, [os.environ.get("PYHELICS_INSTALL")]))]
    libraries = [f for p in places for f in p.rglob("*helics*") if {".so", ".dylib", ".dll"} & set(f.suffixes)]
    if not libraries or any(b"encryption not enabled" in f.read_bytes() for f in libraries if f.is_file()):
        message = (
            "this build of HELICS has no encryption (the wheel of PyPI has none), and would join in the clear; use a "
            "tunnel, or build HELICS with encryption and name its folder in PYHELICS_INSTALL"
        )
        raise OptionError(message)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How a member reaches the broker.

    Attributes:
        broker: ``host:port``.
        core: ``zmq`` or ``tcpss``.
        key: key that every member and the broker share; empty for none.
        encryption_config: HELICS's JSON file of certificates; empty for none. Needs ``tcpss``.

    Raises:
        OptionError: an address, a core or a key that cannot be.
    """

    broker: str
    core: str = "zmq"
    key: str = field(default="", repr=False)
    encryption_config: str = ""

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"(tcp://)?[A-Za-z0-9_.\-]+:\d{1,5}", self.broker) or not 0 < self.port < 65536:
            problems.append(f"the broker's address is {self.broker!r}; it is host:port, such as 127.0.0.1:23404")
        if self.core not in CORES:
            problems.append(f"the core is {self.core!r}; it is one of {', '.join(CORES)}")
        if self.key and not re.fullmatch(r"[!#-&(-~]+", self.key):
            problems.append("the key holds a space, a quote or what is not ASCII")
        if self.encryption_config and self.core != "tcpss":
            problems.append("only the core 'tcpss' can be encrypted")
        if re.search(r"[\s\"']", self.encryption_config):
            problems.append("the path of the encryption file holds a space or a quote")
        if problems:
            message = "; ".join(problems)
            raise OptionError(message)

    @property
    def host(self) -> str:
        """The broker's host."""
        return self.broker.removeprefix("tcp://").rpartition(":")[0]

    @property
    def port(self) -> int:
        """The broker's port."""
        return int(self.broker.rpartition(":")[2])

    @property
    def security(self) -> str:
        """Options of HELICS for encryption."""
        return f"--encrypted --encryption_config={self.encryption_config}" if self.encryption_config else ""


def read_key(path: str | os.PathLike[str] | None) -> str:
    """The key in the first line of a file; empty without a file.

    Raises:
        OptionError: the file cannot be read, or is empty.
    """
    if path is None:
        return ""
    try:
        lines = Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        message = f"the key file {os.fspath(path)!r} cannot be read: {error}"
        raise OptionError(message) from None
    if len(lines) != 1:
        message = f"the key file {os.fspath(path)!r} holds {len(lines)} words; it holds the key and nothing else"
        raise OptionError(message)
    return lines[0]


class Member:
    """One federate. Nothing here waits longer than HELICS takes to find the broker.

    Args:
        name: its name in the federation.
        connection: the broker.
        watched: whether the broker ends the federation when this member is lost: true of the coordinator only.
        record: see `Recorder`.

    Raises:
        SolveError: the broker is not there, or declines.
        OptionError: encryption is asked for, and HELICS was built without.
    """

    def __init__(
        self, name: str, connection: Connection, *, watched: bool = False, record: Recorder | None = None
    ) -> None:
        self.name, self.connection, self.record = name, connection, record
        self._h = helics = load()
        if connection.encryption_config:
            require_encryption()
        info = helics.helicsCreateFederateInfo()
        helics.helicsFederateInfoSetCoreName(info, f"{name}.{secrets.token_hex(6)}" if watched else f"{name}.core")
        # a coordinator that ends may come again, for another run, under its name
        helics.helicsFederateInfoSetFlagOption(info, helics.HELICS_FLAG_REENTRANT, watched)
        helics.helicsFederateInfoSetCoreTypeFromString(info, connection.core)
        helics.helicsFederateInfoSetIntegerProperty(
            info, helics.HELICS_PROPERTY_INT_LOG_LEVEL, helics.HELICS_LOG_LEVEL_NO_PRINT
        )
        if connection.key:
            helics.helicsFederateInfoSetBrokerKey(info, connection.key)
        start = (
            f"--federates=1 --broker_address=tcp://{connection.host} --brokerport={connection.port} {TIMEOUTS} "
            f"{_RETRIES} --loglevel=no_print {'' if watched else '--slowresponding'} {connection.security}"
        )
        helics.helicsFederateInfoSetCoreInitString(info, start)
        self._federate: Any = None
        try:
            self._federate = helics.helicsCreateMessageFederate(name, info)
            helics.helicsFederateEnterExecutingMode(self._federate)
            self._core = helics.helicsFederateGetCore(self._federate)
        except helics.HelicsException as error:
            self.close()
            raise SolveError(self._why(str(error))) from None

    def _why(self, said: str) -> str:
        at = f"the HELICS broker at {self.connection.broker}"
        if "key does not match" in said:
            return f"{at} declines: the key is not the broker's"
        if "nable to connect" in said or "register" in said:
            return f"{at} {UNREACHED}, and that address, core type and key are its own"
        return f"{at}: {said}"

    @property
    def connected(self) -> bool:
        """Whether the broker is still there."""
        return self._federate is not None and bool(self._h.helicsCoreIsConnected(self._core))

    def send(self, to: str, data: Mapping[str, Any]) -> None:
        """Send a text; it is not known whether it arrives.

        Raises:
            FederationLost: there is no federation any more.
        """
        payload = pack(data)
        if self.record is not None:
            self.record("sent", payload)
        if self._federate is None:
            raise FederationLost(self._lost)
        try:
            self._h.helicsFederateSendCommand(self._federate, to, payload.decode("ascii"))
        except self._h.HelicsException as error:
            raise FederationLost(self._lost) from error

    def receive(self) -> tuple[str, bytes] | None:
        """The next text and who sent it; None when there is none.

        Raises:
            FederationLost: there is no federation any more.
        """
        if self._federate is None:
            raise FederationLost(self._lost)
        try:
            text = self._h.helicsFederateGetCommand(self._federate)
            if not text:
                return None
            source = str(self._h.helicsFederateGetCommandSource(self._federate))
        except UnicodeDecodeError:  # from whoever it is: no text of ours
            return "", b""
        except self._h.HelicsException as error:
            raise FederationLost(self._lost) from error
        data = text.encode()
        if self.record is not None:
            self.record("received", data)
        return source, data

    def ask(self, target: str, what: str) -> Query:
        """Begin a query of HELICS's own; a member's core answers it whatever the member is busy with."""
        return Query(self._h, self._federate, target, what)

    def knows(self, member: str, *, wait_s: float = 2.0) -> bool:
        """Whether there is a member of that name."""
        query = self.ask(member, "exists")
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            if (answer := query.answer()) is not None:
                return "true" in answer.lower()
            time.sleep(_IDLE_S)
        return False

    @property
    def _lost(self) -> str:
        return f"the HELICS broker at {self.connection.broker} is gone, or has ended the federation"

    def check(self) -> None:
        """See that the broker is there.

        Raises:
            FederationLost: it is not.
        """
        if not self.connected:
            raise FederationLost(self._lost)

    def end_federation(self) -> None:
        """Let the broker end: where a member is gone that never left, it would not end by itself."""
        try:
            self._h.helicsFederateSendCommand(self._federate, "root", "terminate")
        except self._h.HelicsException as error:
            raise FederationLost(self._lost) from error

    def close(self) -> None:
        """Leave; safe to call twice."""
        federate, self._federate = self._federate, None
        if federate is not None:
            # HELICS may wait for ever for a federation in which somebody died
            leaving = threading.Thread(target=self._leave, args=(federate,), daemon=True)
            leaving.start()
            leaving.join(LEAVE_S)

    def _leave(self, federate: Any) -> None:
        with contextlib.suppress(self._h.HelicsException):
            self._h.helicsFederateDestroy(federate)


class Query:
    """A question to HELICS that may never be answered."""

    def __init__(self, helics: ModuleType, federate: Any, target: str, what: str) -> None:
        self._h = helics
        self.since = time.monotonic()
        self._query = helics.helicsCreateQuery(target, what)
        helics.helicsQueryExecuteAsync(self._query, federate)

    def answer(self) -> str | None:
        """The answer, once; None while there is none."""
        if not self._h.helicsQueryIsCompleted(self._query):
            return None
        return str(self._h.helicsQueryExecuteComplete(self._query))


def coordinator_name(federation: str) -> str:
    """Name of the coordinator's federate."""
    return f"lateral.{federation}.coordinator"


def area_name(federation: str) -> str:
    """A new name for an area's federate; the area says in its greeting which it is."""
    return f"lateral.{federation}.{secrets.token_hex(6)}"


@dataclass(frozen=True, kw_only=True)
class Service:
    """What an area's process does for the coordinator.

    Attributes:
        agent: the area.
        digest: of its case, so that the coordinator sees that it means the same.
        owned: whether the area has an owner of its own: then only border values, a status and seconds leave it, and of
            its schedule nothing.
        say_objective: whether the area's own objective and cost are said.
    """

    agent: AreaAgent
    digest: str = ""
    owned: bool = False
    say_objective: bool = True

    def answer(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what was asked. Whatever goes wrong is a reply ``{"error": text}`` that names the area."""
        name = self.agent.name
        if operation == "collect" and self.owned:
            return {"error": f"area {name!r} keeps its schedule: it belongs to an owner of its own"}
        if operation == "power_flow" and self.owned and not wants_point(self.agent.task.formulation):
            return {"error": f"area {name!r} has no use for a power flow: its formulation is made at no point"}
        try:
            reply = handle(self.agent, operation, checked(self.agent, operation, request))
        except MessageError as error:
            return {"error": f"area {name!r} refuses a request: {error}"}
        except Exception as error:  # a bug in one area is not to be the coordinator's traceback
            reply = {"error": f"area {name!r}: {type(error).__name__}: {error}"}
        return self._reduced(reply) if self.owned else reply

    def _reduced(self, reply: dict[str, Any]) -> dict[str, Any]:
        """A reply without words that could name what is in the area."""
        if "error" in reply:
            sys.stderr.write(f"lateral: {reply['error']}\n")
            said = {"error": f"area {self.agent.name!r} could not do what was asked; its owner's screen says why"}
            return said | {"needs": reply["needs"]} if "needs" in reply else said
        if "status" not in reply:
            return {key: reply[key] for key in ("borders", "settled")}
        if reply["status"] != Status.OPTIMAL.word:
            sys.stderr.write(f"lateral: area {self.agent.name!r}: {reply['text']}\n")
        words = {status.word: str(status.value) for status in Status}
        out = {key: reply[key] for key in ("area", "status", "borders", "seconds", "iterations", "slack")}
        out["text"] = words.get(str(reply["status"]), "")
        for key in ("objective", "cost"):
            out[key] = reply[key] if self.say_objective else float("nan")
        return out


def checked(agent: AreaAgent, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """A request whose border values are of the area's own borders, of the right shape, finite and possible.

    Raises:
        MessageError: it is not.
    """
    raw = request.get("borders", {})
    if not isinstance(raw, Mapping):
        message = "a request whose borders are no table"
        raise MessageError(message)
    coupling, voltages = agent.task.coupling, agent.voltages
    both = terms(voltages)  # what is told in consensus
    sides: dict[str, tuple[BorderHead | BorderTail, tuple[str, ...], tuple[str, ...]]]
    sides = {d.name: (d, head_in(coupling, voltages) + head_may(coupling), FLOW_DOWN) for d in agent.heads}
    for tail in agent.tails:
        sides[tail.name] = tail, tail_in(coupling, voltages), FLOW_UP
    out: dict[str, Any] = {}
    for border, values in raw.items():
        if border not in sides:
            message = f"border {border!r} is none of area {agent.name!r}"
            raise MessageError(message)
        device, told, flowing = sides[border]
        allowed = (*flowing, REACH) if operation == "power_flow" else told or both
        if coupling == "prices" and operation == "solve" and isinstance(values, Mapping) and in_consensus(values):
            allowed = both  # the run has gone over to consensus, see `lateral.areas.algorithms.auto`
        if not isinstance(values, Mapping) or not set(values) <= set(allowed):
            message = f"border {border!r} is told {', '.join(sorted(map(str, values)))}; allowed: {', '.join(allowed)}"
            raise MessageError(message)
        shape = (len(device.crossing), agent.case.horizon.n_steps)
        priced = {x: v for x, v in values.items() if x in both}
        plain = {x: v for x, v in values.items() if x not in both}
        out[border] = {**arrays(plain, shape=shape, bounds=Bounds()), **_terms(priced, shape)}
    steps, n_steps = request.get("steps"), agent.case.horizon.n_steps
    if steps is not None and not (
        isinstance(steps, list) and len(steps) == n_steps and all(type(k) is int and 0 <= k < n_steps for k in steps)
    ):
        message = f"the steps of an operating point are {n_steps} whole numbers below {n_steps}"
        raise MessageError(message)
    return {"borders": out, **({} if steps is None else {"steps": steps})}


def _terms(raw: Mapping[str, Any], shape: tuple[int, int]) -> dict[str, Any]:
    """Linear and quadratic terms: finite, weights not negative."""
    out = {}
    for name, rows in raw.items():
        try:
            array = np.array(rows, dtype=float)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            message = f"{name!r} holds what is no number"
            raise MessageError(message) from error
        if array.shape != shape:
            message = f"{name!r} has shape {array.shape}, not {shape}"
            raise MessageError(message)
        if not np.all(np.isfinite(array)) or (name.startswith("w_") and np.any(array < 0.0)):
            message = f"{name!r} is not finite, or a negative weight"
            raise MessageError(message)
        out[name] = array
    return out


def serve(
    member: Member,
    service: Service,
    federation: str,
    *,
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Answer the coordinator until it ends the run.

    Args:
        member: the area's federate.
        service: what it does.
        federation: identifier of the federation.
        say: told what happens, in sentences.
        clock: seconds.

    Raises:
        FederationLost: the broker is gone.
        SolveError: the coordinator refuses this area.
    """
    boss = coordinator_name(federation)
    greeting = {"do": "hello", "area": service.agent.name, "digest": service.digest}
    welcome, next_hello, next_check, active, waiting = False, 0.0, 0.0, clock(), False
    while True:
        now = clock()
        if now >= next_check:
            member.check()
            next_check = now + 0.2
        if not welcome and now >= next_hello:
            if member.knows(boss):
                member.send(boss, greeting)
            elif not waiting:
                say("waiting for the coordinator")
                waiting = True
            next_hello = now + 0.5
        came = member.receive()
        if came is None:
            time.sleep(_BUSY_S if now - active < 2.0 else _IDLE_S)
            continue
        source, data = came
        if source != boss:
            continue  # nobody else is listened to
        active = now
        try:
            asked = unpack(data, limit=MAX_FRAME)
        except MessageError:
            continue
        match asked.get("do"):
            case "welcome":
                if not welcome:
                    say("joined")
                welcome = True
            case "refused":
                message = f"the coordinator refuses area {service.agent.name!r}: {asked.get('reason')}"
                raise SolveError(message)
            case "end":
                return
            case str(operation):
                request = asked.get("with")
                reply = service.answer(operation, request if isinstance(request, Mapping) else {})
                member.send(boss, {"do": "reply", "number": asked.get("number"), "reply": reply})


def main() -> int:
    """Serve one area of the executor `helics`: the first line of standard input says which; its end ends us."""
    try:
        raw = json.loads(sys.stdin.buffer.readline())
        connection, federation, area = Connection(**raw["connection"]), str(raw["federation"]), str(raw["area"])
        task, folder = Task(**raw["task"]), str(raw["folder"])
    except (ValueError, KeyError, TypeError):
        sys.stderr.write("lateral.areas.federate is started by the executor 'helics'; owners: lateral areas serve\n")
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for who started us; we end with our input
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        agent = AreaAgent(area, read_folder(folder), task)
        member = Member(area_name(federation), connection)
        try:
            serve(member, Service(agent=agent), federation)
        finally:
            member.close()
    except LateralError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())


__all__ = [
    "CORES",
    "TIMEOUTS",
    "UNREACHED",
    "Connection",
    "FederationLost",
    "Member",
    "Query",
    "Recorder",
    "Service",
    "area_name",
    "checked",
    "coordinator_name",
    "load",
    "main",
    "read_key",
    "require_encryption",
    "serve",
]
