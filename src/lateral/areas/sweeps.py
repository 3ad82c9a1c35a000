"""Sweeps: areas find the power flow of the whole between them, from the leaves up and from the root down.

Each area solves its own part, in the way that the operation says: the day without control (``power_flow``, see
`lateral.areas.point`), or the exact rows of its last schedule (``schedule``, see `lateral.areas.successive`)::

    up      P, Q of each conductor, the V at which they were drawn, and what the wires below take to ground
    down    V of each conductor, complex

until nothing differs by more than `TOLERANCE` between what a receiver used and what was said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lateral.areas.algorithms.base import neighbours, speaks
from lateral.areas.executors.base import Executor
from lateral.areas.flow import FLOW_DOWN, FLOW_UP, REACH
from lateral.areas.message import Bounds, Message, MessageError, Values, arrays
from lateral.areas.occurring import is_span
from lateral.areas.plan import Plan
from lateral.areas.protocol import Failure
from lateral.areas.silence import Patience, Watch
from lateral.areas.transport import Transport
from lateral.errors import Fault, LateralError, SolveError, UnsupportedError

#: Difference at which the areas' power flows are one, pu of voltage or of power.
TOLERANCE = 1e-10
#: Where rounding leaves more than that (the voltage to ground of an ungrounded feeder), it may stand still here.
NOISE = 3e-8
#: Sweeps without progress after which it stands still, and sweeps at most.
STILL, SWEEPS = 8, 200


class Sweeps:
    """What areas said and heard so far.

    Args:
        plan: the areas.
        executor: a started executor.
        transport: carries what areas say.
        patience: how long to wait for whom.
        clock: seconds, for declaring areas dead.
        pause: waits some seconds.
        operation: what areas are asked, ``power_flow`` or ``schedule``.
        number: messages before this one are late ones of other sweeps.

    Attributes:
        replies: the last one of each area.
        good: by area, which steps converge.
    """

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        transport: Transport,
        patience: Patience,
        clock: Callable[[], float],
        pause: Callable[[float], None],
        *,
        operation: str = "power_flow",
        number: int = 0,
    ) -> None:
        self.plan, self.transport, self.pause = plan, transport, pause
        self.watch = Watch(patience, executor, clock, pause)
        self.number = self._first = number
        self.operation = operation
        self.said: dict[tuple[str, str], Values] = {}  # (sender, border)
        self.heard: dict[tuple[str, str], tuple[int, Values]] = {}  # (receiver, border), when it was said
        self.used: dict[tuple[str, str], Values] = {}
        self.replies: dict[str, Mapping[str, Any]] = {}
        self.good: dict[str, list[bool]] = {}
        #: beside that, what is said of a border once, with when: see `lateral.areas.point`
        self.beside: dict[tuple[str, str], tuple[int, Values]] = {}

    def settle(self) -> tuple[int, float] | None:
        """Sweep until the areas' power flows are one; how many sweeps it took, and what is left, pu. None where they do
        not come to rest."""
        best, since = np.inf, 0
        for k in range(1, SWEEPS + 1):
            self.sweep()
            residual = self.residual()
            best, since = (residual, 0) if residual < 0.5 * best else (best, since + 1)
            if residual <= TOLERANCE or (since >= STILL and residual <= NOISE):
                return k, residual
        return None

    def sweep(self) -> None:
        """Up and down once."""
        for wave in self.plan.up_and_down():
            requests = {a: {"borders": self.told(a)} for a in wave.areas}
            self.number += 1
            messages = []
            for area, borders in self.ask(requests).items():
                for name, values in borders.items():
                    if speaks(self.plan, wave, area, name):
                        border = self.plan.borders[name]
                        to = border.parent if border.child == area else border.child
                        self.said[area, name] = values
                        messages.append(Message(self.transport.run, area, to, name, 0, self.number, values))
            for m in self.transport.deliver(messages):
                known = self.heard.get((m.receiver, m.border))
                if m.round == 0 and m.wave > (self._first if known is None else known[0]):
                    self.heard[m.receiver, m.border] = m.wave, m.values

    def told(self, area: str) -> dict[str, Values]:
        """What an area knows of its borders."""
        return {
            name: {**self.heard[area, name][1], **self.beside.get((area, name), (0, {}))[1]}
            for name, _ in neighbours(self.plan, area)
            if (area, name) in self.heard
        }

    def ask(self, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Values]]:
        """What areas answer, all of them: here nobody can do without another."""
        out: dict[str, dict[str, Values]] = {}
        while len(out) < len(requests):
            left = {a: r for a, r in requests.items() if a not in out and self.watch.may_be_asked(a)}
            for area, reply in self.watch.ask(self.operation, left).items():
                if isinstance(reply, Failure):
                    continue
                out[area], self.good[area] = self._checked(area, reply)
                self.replies[area] = reply
                for name, values in requests[area]["borders"].items():
                    self.used[area, name] = values
            if self.watch.dead:
                area, why = next(iter(self.watch.dead.items()))
                message = f"area {area!r} is gone while the areas look for a power flow: {why}"
                raise SolveError(message)
            if len(out) < len(requests) and not left:
                self.pause(0.02)
        return out

    def _checked(self, area: str, reply: Mapping[str, Any]) -> tuple[dict[str, Values], list[bool]]:
        """What an area says of its borders, and which steps converge.

        Raises:
            SolveError: it says something else.
        """
        if "error" in reply:
            raise SolveError(str(reply["error"]))
        try:
            raw = dict(reply["borders"])
            borders: dict[str, Values] = {}
            for name, _ in neighbours(self.plan, area):
                values = arrays(raw[name], shape=self.plan.shape(name), bounds=Bounds())
                expected = FLOW_UP if self.plan.borders[name].child == area else FLOW_DOWN
                if {x for x in values if x != REACH and not is_span(x)} != set(expected):
                    message = f"at border {name!r} it says {', '.join(values)}, not {', '.join(expected)}"
                    raise MessageError(message)
                borders[name] = values
            good = list(reply["settled"])
            if len(good) != self.plan.n_steps or not all(isinstance(x, bool | np.bool_) for x in good):
                message = f"of {self.plan.n_steps} steps it does not say which converge"
                raise MessageError(message)
        except (KeyError, TypeError, ValueError, LateralError) as error:
            message = f"area {area!r}: not an answer to a power flow: {error}"
            raise SolveError(message) from None
        if not any(good):
            of = "without control" if self.operation == "power_flow" else "of the schedule"
            fault = Fault(
                "FOR-010 no-operating-point",
                f"area.{area}",
                f"a power flow {of} that does not converge at any step",
                "a power flow that converges",
                "Lower the load, check impedances and taps, or take point='nominal'.",
            )
            raise UnsupportedError([fault])
        return borders, good

    def live(self) -> np.ndarray:
        """Steps at which every area converges, shape (T,)."""
        live: np.ndarray = np.all([self.good[a] for a in self.plan.areas], axis=0)
        return live

    def residual(self) -> float:
        """Largest difference between what was said last and what its receiver used last, pu; of converging steps."""
        live = self.live()
        out = 0.0
        for (sender, name), values in self.said.items():
            border = self.plan.borders[name]
            receiver = border.parent if border.child == sender else border.child
            used = self.used.get((receiver, name))
            if used is None:
                return np.inf
            for x, now in values.items():
                if x in ("y_re", "y_im"):  # does not count where voltages agree
                    continue
                size = self.plan.s_kva if x in ("p", "q") else 1.0
                out = max(out, float(np.abs(now - used[x])[:, live].max(initial=0.0)) / size)
        return out


__all__ = ["NOISE", "SWEEPS", "TOLERANCE", "Sweeps"]
