"""What runs in an area's own process as a HELICS federate (`lateral.areas.member`).

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

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lateral.areas.agent import AreaAgent, Task, in_consensus
from lateral.areas.area_rounds import OF_FLOW, OF_STEP
from lateral.areas.flow import FLOW_DOWN, FLOW_UP, REACH
from lateral.areas.member import Connection, Member, area_name, coordinator_name
from lateral.areas.message import Bounds, MessageError, arrays
from lateral.areas.occurring import SPANS_DOWN, SPANS_UP, names_of
from lateral.areas.point import wants_point
from lateral.areas.protocol import handle, unpack
from lateral.areas.quantities import head_in, head_may, tail_in, terms
from lateral.areas.worker import MAX_FRAME
from lateral.devices import BorderHead, BorderTail
from lateral.errors import LateralError, SolveError
from lateral.io.tables import read_folder
from lateral.solvers import Status
from lateral.successive import FACTOR_RANGE, SMALLEST

#: Seconds between two looks for a command, while there is much to do and while there is not.
_BUSY_S, _IDLE_S = 0.0003, 0.005


@dataclass(frozen=True, kw_only=True)
class Service:
    """What an area's process does for the coordinator.

    Attributes:
        agent: the area.
        digest: of its case, so that the coordinator sees that it means the same.
        owned: whether the area has an owner of its own: then only border values, a status and seconds leave it, and of
            its schedule nothing; but with ``newton`` the slopes, and with ``linearised`` what a step is worth.
        say_objective: whether the area's own objective and cost are said, and what a step is worth.
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
        if operation == "again" and self.owned and request.get("beside") is not None:
            return {"error": f"area {name!r} looks at its own loads: it belongs to an owner of its own"}
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
        if "built" in reply:
            return {key: reply[key] for key in ("built", "left")}
        if "status" not in reply:
            out = {key: reply[key] for key in REDUCED if key in reply}
            worth = {key: float("nan") for key in (*OF_STEP, *OF_FLOW) if key in out}
            return out if self.say_objective else out | worth
        if reply["status"] != Status.OPTIMAL.word:
            sys.stderr.write(f"lateral: area {self.agent.name!r}: {reply['text']}\n")
        words = {status.word: str(status.value) for status in Status}
        out = {key: reply[key] for key in ("area", "status", "borders", "seconds", "iterations", "slack")}
        out["text"] = words.get(str(reply["status"]), "")
        if reply.get("slopes") is not None:
            out["slopes"] = reply["slopes"]
        for key in ("objective", "cost"):
            out[key] = reply[key] if self.say_objective else float("nan")
        return out


#: What the owner's area says beside answers to solves; what a step is worth only if its objective may be known.
REDUCED = ("borders", "settled", "free", *OF_STEP, *OF_FLOW, "moved")


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
        allowed = told or both
        if operation == "schedule":
            allowed = flowing
        if operation == "power_flow":
            spans = SPANS_DOWN if device in agent.heads else SPANS_UP
            allowed = (*flowing, REACH, *names_of(spans.values(), len(device.crossing)))
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
    more: dict[str, Any] = {} if steps is None else {"steps": steps}
    if (beside := request.get("beside")) is not None:
        tables = beside.values() if isinstance(beside, Mapping) and set(beside) <= {"above", "below"} else [None]
        if not all(isinstance(table, Mapping) for table in tables):
            message = "voltages beside which loads stay that are no tables"
            raise MessageError(message)
        more["beside"] = {
            side: {str(port): _kept(row, n_steps) for port, row in table.items()} for side, table in beside.items()
        }
    if operation == "move":
        more |= _moves(request)
    if (gap := request.get("gap")) is not None:
        if not isinstance(gap, float) or not 0.0 < gap < 1.0:
            message = f"a duality gap of {gap!r}; allowed: a number between 0 and 1"
            raise MessageError(message)
        more["gap"] = gap
    return {"borders": out, **more}


def _moves(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a step is accepted, the trust region and the factor on the curvature of losses."""
    accept, radius, factor = (raw.get(x) for x in ("accept", "radius", "factor"))
    ranges = (radius, SMALLEST, np.inf), (factor, *FACTOR_RANGE)
    if not isinstance(accept, bool) or not all(isinstance(x, float) and low <= x <= high for x, low, high in ranges):
        message = f"a move with accept={accept!r}, radius={radius!r}, factor={factor!r}"
        raise MessageError(message)
    return {"accept": accept, "radius": radius, "factor": factor}


def _kept(raw: Any, n_steps: int) -> Any:
    """Voltages beside which a load stays, pu, one a step; zero for none."""
    row = _terms({"w_v": [raw]}, (1, n_steps))["w_v"][0]
    if np.any(row > Bounds().v_max_pu):
        message = f"a load that is to stay at {row.max():g} pu"
        raise MessageError(message)
    return row


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


__all__ = ["Service", "checked", "main", "serve"]
