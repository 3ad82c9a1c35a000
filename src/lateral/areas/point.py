"""Operating point of areas: a power flow of the whole, solved by areas that each see only their own part.

Formulations that are made at a solved power flow (`lindist3flow`) need one before anything can be built. The areas find
it themselves, by sweeps: from the leaves up to the root each area solves its own power flow and says the power that it
draws at its head, and from the root down it says the voltages at its tails (`lateral.areas.flow`)::

    up      P, Q of each conductor, the V at which they were drawn, and what the wires below take to ground
    down    V of each conductor, complex

With S linear in V about the solution the error falls in each sweep by about the voltage drop over the areas above times
how much the load follows the voltage (0.05 is much), until nothing differs by more than `TOLERANCE` between what a
receiver used and what was said: then the pieces are the power flow of the whole. What areas say goes over the same
transport as everything else, and counts.

A relaxation that bounds currents (`sdp`, `soc3`) must know the largest one that is drawn behind a border: the bounds
are among what makes it tight. From the leaves up each area builds its problem at the point and says it, once. It is
also written over the voltages and currents that can occur. Where not all do at some border, areas say which do
(`lateral.areas.occurring`), from the root down, from the leaves up, and down again, until nobody hears anything new.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from lateral import formulations
from lateral.areas.algorithms import Admm, Algorithm, Auto, Newton
from lateral.areas.executors.base import Executor
from lateral.areas.flow import REACH, without_return
from lateral.areas.message import Message, Values
from lateral.areas.occurring import OTHER, heard, is_span, nothing_drawn, same_spans
from lateral.areas.plan import Plan
from lateral.areas.protocol import AreaSpec, Failure
from lateral.areas.quantities import POWERS, said_of
from lateral.areas.silence import Patience
from lateral.areas.sweeps import NOISE, SWEEPS, TOLERANCE, Sweeps
from lateral.areas.transport import Transport
from lateral.errors import Fault, SolveError, UnsupportedError
from lateral.formulations import Formulation

#: Numbers that cross borders in one direction at most for `Newton`, whose coordinator solves a dense system of twice as
#: many: two such matrices are 0.6 GB.
MOST_CROSSING = 3000


@dataclass(frozen=True, eq=False)
class Settled:
    """What came of it.

    Attributes:
        requests: the last request of each area: whoever has the area comes to the same point with it.
        sweeps: how often areas swept.
        residual: largest difference left between what was said and what was used, pu.
        messages: said in all.
        bytes: of them.
        seconds: wall time.
        notes: steps that do not converge.
    """

    requests: Mapping[str, Mapping[str, Any]]
    sweeps: int
    residual: float
    messages: int
    bytes: int
    seconds: float
    notes: tuple[str, ...] = ()

    def closed(self, plan: Plan) -> frozenset[str]:
        """The borders whose currents add up to nothing."""
        out = set()
        for name, border in plan.borders.items():
            down, up = (self.requests[area]["borders"][name] for area in (border.child, border.parent))
            if without_return({**up, "v_re": down["v_re"], "v_im": down["v_im"]}):
                out.add(name)
        return frozenset(out)

    def begun(self, plan: Plan) -> Plan:
        """The plan that begins where the areas' power flow ended, where borders say more than magnitudes.

        A relaxation knows where no current can return by ground at all, as where no line has charging.
        """
        if plan.voltages == ("v",):
            return plan
        start, none = {}, set()
        for name, border in plan.borders.items():
            down, up = (self.requests[area]["borders"][name] for area in (border.child, border.parent))
            occurs = heard(up, border.conductors)
            if occurs is not None and occurs.i is not None and float(np.abs(occurs.i.sum(axis=0)).max()) < OTHER:
                none.add(name)
            v = np.asarray(down["v_re"]) + 1j * np.asarray(down["v_im"])
            start[name] = {**said_of(plan.voltages, v), **{x: np.asarray(up[x]) for x in POWERS}}
        closed = frozenset(name for name in self.closed(plan) if plan.borders[name].conductors == (1, 2, 3))
        return dataclasses.replace(plan, start=start, without_return=closed, without_charging=closed & none)

    @property
    def choices(self) -> tuple[str, ...]:
        """What was done, in sentences."""
        found = (
            f"operating point: found by the areas in {self.sweeps} sweeps ({self.messages} messages, {self.bytes} "
            f"bytes), to {self.residual:.0e} pu; the formulation is made there"
        )
        return (found, *self.notes)


def wants_point(formulation: str) -> bool:
    """Whether a formulation is made at a solved power flow."""
    return formulations.get(formulation).point != "none"


def require_formulation(formulation: Formulation, algorithm: Algorithm) -> None:
    """Refuse an algorithm that tells areas voltages, where a formulation cannot be told any; and one that asks how the
    answers of areas move, where these are not convex.

    Raises:
        UnsupportedError: it is one.
    """
    found, allowed, action = "", "", ""
    if formulation.consensus_only and algorithm.coupling != "consensus":
        found = formulation.consensus_only
        allowed = "an algorithm in which both sides of a border decide on its voltages"
        action = "Take auto, newton, admm or app."
    elif isinstance(algorithm, Newton) and not formulation.convex:
        found, allowed = "a form that is not convex", "a convex one"
        action = "Take auto, enapp-priced or admm, or a linear or relaxed formulation."
    if found:
        name = f"formulation.{formulation.name}"
        raise UnsupportedError([Fault("ARE-032 algorithm", name, f"{algorithm.name}, and {found}", allowed, action)])


def taken_in(
    formulation: Formulation,
    algorithm: Algorithm | None,
    *,
    solver: str = "auto",
    owned: bool = False,
    crossing: int = 0,
) -> tuple[Algorithm, tuple[str, ...]]:
    """The algorithm that ``auto`` (or none at all) stands for in a formulation, and why where it is not `Auto`.

    Args:
        formulation: of every area.
        algorithm: what was asked for.
        solver: of every area; only Clarabel's central path has slopes.
        owned: whether areas have owners of their own, who say no more than values at borders unless they are asked to.
        crossing: how many numbers cross borders in one direction; more than `MOST_CROSSING` are too many for `Newton`.
    """
    if algorithm is not None and not isinstance(algorithm, Auto):
        return algorithm, ()
    if formulation.consensus_only:
        why = f"has {formulation.consensus_only}"
    elif formulation.first_order:
        # prices of rows to first order do not lead to one optimum in all cuts; copies that are to agree do
        why = "has rows to first order"
    else:
        slopes = formulation.convex and solver in ("auto", "clarabel") and not owned and crossing <= MOST_CROSSING
        plain = algorithm or Auto()
        return dataclasses.replace(plain, then="newton") if slopes and plain.then == "auto" else plain, ()
    if crossing > MOST_CROSSING:
        why += f", and {crossing} numbers cross borders, of which newton takes {MOST_CROSSING}"
    elif solver in ("auto", "clarabel") and not owned:
        return Newton(), (f"auto took newton: {formulation.name} {why}",)
    admm = Admm(penalty=formulation.consensus_penalty, ratio_unbalance=formulation.consensus_ratio)
    if formulation.first_order:
        # a convex program has one optimum: its areas wander nowhere, and only seem to for some rounds
        admm = dataclasses.replace(admm, wander_rounds=0)
    return admm, (f"auto took admm: {formulation.name} {why}",)


def settle(
    plan: Plan,
    executor: Executor,
    transport: Transport,
    *,
    patience: Patience | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Settled:
    """Let the areas find the power flow of the whole, and take it as their operating point.

    Args:
        plan: the areas.
        executor: a started executor.
        transport: carries what areas say.
        patience: how long to wait for whom.
        clock: seconds, for declaring areas dead.
        pause: waits some seconds.

    Raises:
        UnsupportedError: an area's power flow converges at no step, or the areas do not come to rest.
        SolveError: an area is gone, or could not do what was asked.
    """
    begin = clock()
    sent, size = transport.messages, transport.bytes
    swept = Sweeps(plan, executor, transport, patience or Patience(), clock, pause)
    found = swept.settle()
    if found is None:
        fault = Fault(
            "ARE-030 no operating point",
            f"case.{plan.name}",
            f"areas whose power flows still differ by {swept.residual():.1e} pu at their borders after {SWEEPS} sweeps",
            f"{TOLERANCE:g} pu",
            "Cut elsewhere (nearer to the source, away from weak ends), lower the load, or take point='nominal'.",
        )
        raise UnsupportedError([fault])
    taking = _Taking(swept)
    steps, notes = taking.steps()
    requests = taking.rest(steps)
    return Settled(requests, *found, transport.messages - sent, transport.bytes - size, clock() - begin, notes)


class _Taking:
    """Areas take the point that they swept to."""

    def __init__(self, sweeps: Sweeps) -> None:
        self.sweeps, self.plan = sweeps, sweeps.plan
        #: whether everything can occur at an area's borders, where the formulation bounds currents
        self.free: dict[str, bool] = {}

    def ask(self, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Values]]:
        """As `Sweeps.ask`."""
        out = self.sweeps.ask(requests)
        self.free |= {a: self.sweeps.replies[a].get("free", True) is True for a in out}
        return out

    def rest(self, steps: list[int]) -> dict[str, dict[str, Any]]:
        """Let every area take its point, from the leaves up: where the formulation bounds currents each says the
        largest one behind its head, with what those below it said. Returns the requests."""
        out: dict[str, dict[str, Any]] = {}
        height = self.plan.height
        for h in range(height[self.plan.areas[0]] + 1):
            requests = {a: {"borders": self.sweeps.told(a), "steps": steps} for a in self.plan.areas if height[a] == h}
            out |= requests
            self._tell(self.ask(requests), lambda x: x == REACH)
        return out if all(self.free.values()) else self._occurring(steps, out)

    def _occurring(self, steps: list[int], asked: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Let the areas say what can occur at their borders, which begins with nothing drawn; returns the requests."""
        for name, border in self.plan.borders.items():
            number, known = self.sweeps.beside.get((border.parent, name), (0, {}))
            self.sweeps.beside[border.parent, name] = number, {**known, **nothing_drawn(*self.plan.shape(name))}
        out: dict[str, dict[str, Any]] = {}
        for sweep in range(SWEEPS):
            level = self.plan.height if sweep % 2 else self.plan.depth
            new = False
            for k in range(max(level.values()) + 1):
                told = {a: self.sweeps.told(a) for a in self.plan.areas if level[a] == k}
                requests = {
                    a: {"borders": borders, "steps": steps}
                    for a, borders in told.items()
                    if a not in out or not all(same_spans(v, out[a]["borders"][b]) for b, v in borders.items())
                }
                new |= bool(requests)
                out |= requests
                self._tell(self.ask(requests), is_span)
            if not new:
                return asked | out
        message = f"areas that still say other voltages and currents can occur at their borders after {SWEEPS} sweeps"
        raise SolveError(message)

    def _tell(self, said: Mapping[str, Mapping[str, Values]], which: Callable[[str], bool]) -> None:
        """Say some quantities to the neighbours, again where messages are lost."""
        self.sweeps.number += 1
        messages = []
        for area, borders in said.items():
            for name, values in borders.items():
                border = self.plan.borders[name]
                to = border.parent if border.child == area else border.child
                own = {x: v for x, v in values.items() if which(x)}
                if own:
                    messages.append(Message(self.sweeps.transport.run, area, to, name, 0, self.sweeps.number, own))
        for _ in range(SWEEPS):
            if not messages:
                return
            for m in self.sweeps.transport.deliver(messages):
                number, known = self.sweeps.beside.get((m.receiver, m.border), (0, {}))
                if number <= m.wave and all(x == REACH or is_span(x) for x in m.values):  # not a late one of the sweeps
                    self.sweeps.beside[m.receiver, m.border] = m.wave, {**known, **m.values}
            messages = [
                m for m in messages if self.sweeps.beside.get((m.receiver, m.border), (0, {}))[0] < self.sweeps.number
            ]
        if messages:
            message = f"nothing arrives across border {messages[0].border!r}"
            raise SolveError(message)

    def steps(self) -> tuple[list[int], tuple[str, ...]]:
        """For each step the one whose voltages it takes: its own, or the nearest that converges in every area."""
        live = self.sweeps.live()
        ok = np.flatnonzero(live)
        if not len(ok):
            fault = Fault(
                "FOR-010 no-operating-point",
                f"case.{self.plan.name}",
                "no step at which the power flow of every area converges",
                "a power flow that converges",
                "Lower the load, check impedances and taps, or take point='nominal'.",
            )
            raise UnsupportedError([fault])
        nearest = ok[np.abs(np.arange(len(live))[:, None] - ok[None]).argmin(axis=1)]
        missing = len(live) - len(ok)
        note = f"operating point: {missing} steps do not converge; the nearest step is used"
        return [int(k) for k in nearest], (note,) if missing else ()


@final
class AtPoint(Executor):
    """An executor whose areas come back to their operating point when they were started again: it is said anew.

    Attributes:
        moved: whether areas have gone on to other points since, see `lateral.areas.successive`. One that was started
            again cannot: then all of them are told the first one.
        fell_back: how often they were.
    """

    name = "at point"
    title = "another executor, and the operating point that its areas agreed on"

    def __init__(self, inner: Executor, settled: Settled) -> None:
        self.inner, self.settled = inner, settled
        self.moved, self.fell_back = False, 0

    def start(self, areas: Mapping[str, AreaSpec]) -> None:
        """See `Executor.start`."""
        self.inner.start(areas)

    def map(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any] | Failure]:
        """See `Executor.map`; areas that say that they have no operating point are told, and asked again."""
        replies = self.inner.map(operation, requests, timeout_s=timeout_s)
        new = [a for a, r in replies.items() if not isinstance(r, Failure) and r.get("needs") == "power_flow"]
        if new:
            told = list(self.settled.requests) if self.moved else new
            self.fell_back += self.moved
            self.moved = False
            self.inner.map("power_flow", {a: self.settled.requests[a] for a in told}, timeout_s=timeout_s)
            replies.update(self.inner.map(operation, {a: requests[a] for a in new}, timeout_s=timeout_s))
        return replies

    def restart(self, area: str) -> bool:
        """See `Executor.restart`."""
        return self.inner.restart(area)

    def close(self) -> None:
        """See `Executor.close`."""
        self.inner.close()

    @property
    def owns_areas(self) -> bool:
        """See `Executor.owns_areas`."""
        return self.inner.owns_areas


__all__ = ["NOISE", "TOLERANCE", "AtPoint", "Settled", "require_formulation", "settle", "taken_in", "wants_point"]
