"""What a coordinator asks of an area, and what it gets back: the same for every executor.

Requests and replies are plain data (words, numbers, arrays). `handle` is all that runs on the area's side; `pack` and
`unpack` make bytes of it, JSON, never pickle.

=========== ========================================= ============================================================
operation   request                                   reply
=========== ========================================= ============================================================
solve       ``borders``: values by border;            `Answer`: values by border, status, seconds, objective; where
            ``gap``: duality gap, or none             a gap was said also `Slopes`
power_flow  ``borders``: v_re, v_im; or p, q, and     the same, of the other side, and ``settled`` by step: for
            v_re, v_im where drawn; last: ``steps``   formulations that are made at a power flow; last, of relaxations:
            (and ``i_max``, ``span_*``)               ``i_max`` of the head, ``span_*`` of both sides, and ``free``
again       ``beside``: above, below by port; or none ``built``: whether the area was built again, where its loads left
                                                      the side of their band that was taken; ``left``: whether they
                                                      did, and it was not
step                                                  to first order: what the step to the last schedule promises, the
                                                      area's objective there, and how far decisions move
schedule    ``borders``: v_re, v_im; or p, q          as ``power_flow``, of the set-points of that step; what it gains
move        ``accept``, ``radius``, ``factor``        ``moved``: whether the area is made at the point of that step now
collect                                               every variable and dual; only asked where one owner has it all
=========== ========================================= ============================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lateral.areas.agent import Answer, AreaAgent, PointMissingError, Task
from lateral.areas.message import MAX_BYTES, Bounds, MessageError, Values, arrays
from lateral.areas.slopes import Slopes
from lateral.case import Case
from lateral.errors import LateralError
from lateral.formulations import Beside

#: Operations that an area serves.
OPERATIONS = ("solve", "power_flow", "again", "step", "schedule", "move", "collect")


@dataclass(frozen=True, eq=False)
class AreaSpec:
    """What an area's process starts from.

    Attributes:
        name: its name.
        case: its case.
        task: what it solves.
    """

    name: str
    case: Case
    task: Task


@dataclass(frozen=True, slots=True)
class Failure:
    """An area that did not answer.

    Attributes:
        area: its name.
        reason: a sentence.
        gone: whether its process is gone, so that only a restart helps; False when it was only late.
    """

    area: str
    reason: str
    gone: bool = True


def handle(agent: AreaAgent, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Do what was asked; an area's own error comes back as ``{"error": text}``, never as a traceback."""
    try:
        match operation:
            case "solve":
                answer = agent.solve(request.get("borders", {}), request.get("gap"))
                return asdict(answer)
            case "power_flow":
                return agent.power_flow(request.get("borders", {}), request.get("steps"))
            case "again":
                beside = request.get("beside")
                return asdict(agent.build_again(None if beside is None else Beside.of_data(beside)))
            case "step":
                return agent.step()
            case "schedule":
                return agent.schedule_flow(request.get("borders", {}))
            case "move":
                return agent.move(accept=request["accept"], radius=request["radius"], factor=request["factor"])
            case "collect":
                return agent.collect()
    except PointMissingError as error:
        return {"error": f"area {agent.name!r}: {error}", "needs": "power_flow"}
    except LateralError as error:
        return {"error": f"area {agent.name!r}: {error}"}
    return {"error": f"area {agent.name!r} does not know the operation {operation!r}"}


def answer_of(reply: Mapping[str, Any]) -> Answer:
    """The answer in a reply to ``solve``; values are checked to be finite numbers of a sound size.

    Raises:
        MessageError: the reply holds something else.
    """
    try:
        return Answer(
            area=str(reply["area"]),
            status=str(reply["status"]),
            text=str(reply["text"]),
            borders={str(b): _values(v) for b, v in reply["borders"].items()},
            objective=float(reply["objective"]),
            cost=float(reply["cost"]),
            seconds=float(reply["seconds"]),
            iterations=int(reply["iterations"]),
            slack=float(reply.get("slack", 0.0)),
            slopes=None if reply.get("slopes") is None else _slopes(reply["slopes"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        message = f"not an answer: {error}"
        raise MessageError(message) from error


def _slopes(raw: Any) -> Slopes:
    lin, gap = (np.array(raw[key], dtype=float) for key in ("lin", "gap"))
    if not (np.all(np.isfinite(lin)) and np.all(np.isfinite(gap))):
        message = "slopes that are not finite"
        raise MessageError(message)
    return Slopes(tuple(str(b) for b in raw["borders"]), lin, gap)


def _values(raw: Any) -> Values:
    return arrays(raw, bounds=Bounds())


def pack(data: Mapping[str, Any]) -> bytes:
    """Plain data with arrays as JSON text; numbers keep every bit, NaN and infinity are words of their own."""
    return json.dumps(data, default=_plain, separators=(",", ":")).encode()


def unpack(data: bytes, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The plain data of some bytes; arrays stay nested lists.

    Args:
        data: the bytes.
        limit: how many are read at most.

    Raises:
        MessageError: no JSON object, or too large.
    """
    if len(data) > limit:
        message = f"{len(data)} bytes; at most {limit} are read"
        raise MessageError(message)
    try:
        out = json.loads(data)
    except (ValueError, RecursionError) as error:
        message = "no JSON"
        raise MessageError(message) from error
    if not isinstance(out, dict):
        message = "no JSON object"
        raise MessageError(message)
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    message = f"{type(value).__name__} cannot be sent"
    raise TypeError(message)


__all__ = ["OPERATIONS", "AreaSpec", "Failure", "answer_of", "handle", "pack", "unpack"]
