"""Members of a HELICS federation: how one reaches the broker, joins, sends, receives, asks and leaves.

HELICS is a C library whose handles are plain addresses: what is called on one that was freed reads what has become of
it. So a `Member` is the only one that has a handle, lends it to one call at a time, and gives it up once, before it
leaves; whatever is asked of it later is a `FederationLost`. Needs the extra ``lateral[helics]``.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from lateral.areas.protocol import pack
from lateral.errors import OptionError, SolveError

#: What every member of a federation asks of HELICS: a lost broker is noticed after about two seconds.
TIMEOUTS = "--tick=500ms --timeout=2s"
#: How often a member looks for the broker once more, 2 s each time; as long it tries to have its port.
_RETRIES = "--networktimeout=2s --networkretries=5"
#: How often a member tries to join a broker that is there, each time at a port of its own. The broker says which port
#: is next and does not look whether it is free; a connection that was closed a minute ago is enough to have it taken.
TRIES = 3
#: Cores that can be asked for: ``tcpss`` is the one that HELICS can encrypt, where it was built with encryption.
CORES = ("zmq", "tcpss")
#: Seconds that a member waits for HELICS to let it go: more than the 2 s after which HELICS gives a broker up.
LEAVE_S = 10.0

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

    def answers(self) -> bool:
        """Whether anybody listens at the broker's address."""
        try:
            socket.create_connection((self.host, self.port), timeout=2.0).close()
        except OSError:
            return False
        return True

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

    May be used by several threads. It leaves when it is closed, at the latest when the interpreter ends.

    Args:
        name: its name in the federation. A member that is not watched may end up with a longer one, see `TRIES`.
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
        self._h = load()
        if connection.encryption_config:
            require_encryption()
        self._lock = threading.Lock()  # held by whoever uses the handles
        self._federate: Any = None
        self._core: Any = None
        self._asked: set[Query] = set()
        for attempt in range(1, TRIES + 1):
            try:
                self._join(watched=watched)
            except self._h.HelicsException as error:
                self.close()
                if attempt < TRIES and _unreached(str(error)) and connection.answers():
                    # not under the name of a core that failed: HELICS may still have it
                    self.name = name if watched else f"{name}.{attempt}"
                    continue
                raise SolveError(self._why(str(error))) from None
            break
        # registered after HELICS's own, so called before it: HELICS frees what is left when it closes its library
        atexit.register(self._leave_at_exit)

    def _join(self, *, watched: bool) -> None:
        """Make the federate, with a core of its own, and enter the federation."""
        helics, connection = self._h, self.connection
        info = helics.helicsCreateFederateInfo()
        core = f"{self.name}.{secrets.token_hex(6)}" if watched else f"{self.name}.core"
        helics.helicsFederateInfoSetCoreName(info, core)
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
        self._federate = helics.helicsCreateMessageFederate(self.name, info)
        helics.helicsFederateEnterExecutingMode(self._federate)
        self._core = helics.helicsFederateGetCore(self._federate)

    def _why(self, said: str) -> str:
        at = f"the HELICS broker at {self.connection.broker}"
        if "key does not match" in said:
            return f"{at} declines: the key is not the broker's"
        if _unreached(said):
            return f"{at} cannot be reached; check that it runs, and that address, core type and key are its own"
        return f"{at}: {said}"

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Any]:
        """The federate, for one call that does not wait; nobody frees it meanwhile.

        Raises:
            FederationLost: it was given up, or HELICS says no.
        """
        with self._lock:
            if self._federate is None:
                raise FederationLost(self._lost)
            try:
                yield self._federate
            except self._h.HelicsException as error:
                raise FederationLost(self._lost) from error

    @property
    def connected(self) -> bool:
        """Whether the broker is still there."""
        with self._lock:
            return self._federate is not None and bool(self._h.helicsCoreIsConnected(self._core))

    def send(self, to: str, data: Mapping[str, Any]) -> None:
        """Send a text; it is not known whether it arrives.

        Raises:
            FederationLost: there is no federation any more.
        """
        payload = pack(data)
        if self.record is not None:
            self.record("sent", payload)
        with self._lent() as federate:
            self._h.helicsFederateSendCommand(federate, to, payload.decode("ascii"))

    def receive(self) -> tuple[str, bytes] | None:
        """The next text and who sent it; None when there is none.

        Raises:
            FederationLost: there is no federation any more.
        """
        try:
            with self._lent() as federate:
                text = self._h.helicsFederateGetCommand(federate)
                if not text:
                    return None
                source = str(self._h.helicsFederateGetCommandSource(federate))
        except UnicodeDecodeError:  # from whoever it is: no text of ours
            return "", b""
        data = text.encode()
        if self.record is not None:
            self.record("received", data)
        return source, data

    def ask(self, target: str, what: str) -> Query:
        """Begin a query of HELICS's own; a member's core answers it whatever the member is busy with.

        Raises:
            FederationLost: there is no federation any more.
        """
        with self._lent() as federate:
            query = Query(self._h, federate, target, what)
            # kept until we have left: a thread of HELICS reads the query's words, perhaps after the asker gave up
            self._asked = {q for q in self._asked if not q.answered} | {query}
        return query

    def knows(self, member: str, *, wait_s: float = 2.0) -> bool:
        """Whether there is a member of that name."""
        query = self.ask(member, "exists")
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            if (answer := query.answer()) is not None:
                return "true" in answer.lower()
            time.sleep(0.005)
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
        """Let the broker end: where a member is gone that never left, it would not end by itself.

        Raises:
            FederationLost: there is no federation any more.
        """
        with self._lent() as federate:
            self._h.helicsFederateSendCommand(federate, "root", "terminate")

    def close(self) -> None:
        """Leave; safe to call twice, and while another thread uses the member."""
        atexit.unregister(self._leave_at_exit)
        held = self._given_up()
        if not held:
            return
        # HELICS may wait for ever for a federation in which somebody died
        leaving = threading.Thread(target=self._leave, args=(held,), daemon=True)
        leaving.start()
        try:
            leaving.join(LEAVE_S)
        finally:
            if leaving.is_alive():
                atexit.unregister(self._h.helicsCloseLibrary)  # it would free at exit what that thread uses

    def _leave_at_exit(self) -> None:
        if held := self._given_up():  # no threads: an interpreter that ends starts none from Python 3.12 on
            self._leave(held)

    def _given_up(self) -> list[Any]:
        """The handles, which from now on only the caller has; nothing, the second time."""
        with self._lock:
            if self._federate is None:
                return []
            held = [self._federate, self._core, self._asked]
            self._federate, self._core, self._asked = None, None, set()
            return held

    def _leave(self, held: list[Any]) -> None:
        """Disconnect and let the handles go.

        Who drops the last reference frees the handle, in the `helics` package; not `helicsFederateDestroy` before
        that, or it is freed twice, the second time at an address that may be another federate's by then.
        """
        with contextlib.suppress(self._h.HelicsException):
            self._h.helicsFederateDisconnect(held[0])
        held.clear()


def _unreached(said: str) -> bool:
    """Whether HELICS says that a core did not come to be a broker's."""
    return "nable to connect" in said or "register" in said


class Query:
    """A question to HELICS that may never be answered."""

    def __init__(self, helics: ModuleType, federate: Any, target: str, what: str) -> None:
        self._h = helics
        self.since = time.monotonic()
        self.answered = False
        self._query = helics.helicsCreateQuery(target, what)
        helics.helicsQueryExecuteAsync(self._query, federate)

    def answer(self) -> str | None:
        """The answer, once; None while there is none."""
        if self.answered or not self._h.helicsQueryIsCompleted(self._query):
            return None
        self.answered = True
        return str(self._h.helicsQueryExecuteComplete(self._query))


def coordinator_name(federation: str) -> str:
    """Name of the coordinator's federate."""
    return f"lateral.{federation}.coordinator"


def area_name(federation: str) -> str:
    """A new name for an area's federate; the area says in its greeting which it is."""
    return f"lateral.{federation}.{secrets.token_hex(6)}"


__all__ = [
    "CORES",
    "TIMEOUTS",
    "Connection",
    "FederationLost",
    "Member",
    "Query",
    "Recorder",
    "area_name",
    "coordinator_name",
    "load",
    "read_key",
    "require_encryption",
]
