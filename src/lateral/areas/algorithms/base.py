"""What every distributed algorithm shares: a frozen state, and ``init / step / terminate`` over it.

One round of any of them: waves of areas are solved with what their neighbours said last; what they say goes to the
neighbours, if it arrives; after the last wave the algorithm makes, from what was said, what will be used in the next
round. The driver (`lateral.areas.driver`) loops, an executor solves, a transport carries: an algorithm is pure.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from lateral.areas.agent import Answer
from lateral.areas.message import Message, Values
from lateral.areas.plan import Plan, Wave
from lateral.areas.quantities import copies, head_in, tail_in
from lateral.errors import Fault, UnsupportedError
from lateral.network.schema import FloatArray
from lateral.objectives import Objective, Unbalance
from lateral.objectives import get as objective_named

#: A place for values, where only the names of quantities matter.
NOTHING = np.zeros((0, 0))
#: Numbers in a state that compare a round with earlier ones: the best residual, the shortest step, those that were
#: looked at, and when the next is.
OF_ONE_MAP = ("best", "low", "low_at", "mark", "before", "look", "window")
#: Values by border.
Borders = Mapping[str, Values]


@dataclass(frozen=True, eq=False)
class State:
    """All that an algorithm remembers between steps; a run can be saved, and resumed, with nothing else.

    Values are keyed by border, then by quantity; a quantity has one sender and one receiver.

    Attributes:
        round: rounds finished.
        wave: waves finished in the present round.
        held: what each receiver uses next.
        start: ``held`` at the beginning of the present round.
        said: what each sender said last, arrived or not.
        before: ``said`` at the beginning of the present round.
        history: what receivers had at the end of earlier rounds, the newest last; of `admm`, at the end of its first.
        points: Anderson's points, each (used, what came of it), scaled, the newest last.
        local: what single areas remember, by ``area/border/quantity``.
        heard: round of the last message to arrive, by ``receiver/border``.
        residual: largest scaled difference between what was used and what came of it; inf before the first round.
        residuals: the same by border.
        price_scale: what prices are divided by in residuals.
        numbers: other numbers an algorithm remembers (penalties, ...).
        used: what each receiver held when it was solved last.
        missed: messages of the present round that did not arrive in their wave, or were never said.
        missed_before: the same of the round before.
    """

    round: int
    wave: int
    held: Borders
    start: Borders
    said: Borders
    before: Borders
    history: tuple[Borders, ...] = ()
    points: tuple[tuple[FloatArray, FloatArray], ...] = ()
    local: Mapping[str, FloatArray] = field(default_factory=dict)
    heard: Mapping[str, int] = field(default_factory=dict)
    residual: float = float("inf")
    residuals: Mapping[str, float] = field(default_factory=dict)
    price_scale: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)
    used: Borders = field(default_factory=dict)
    missed: int = 0
    missed_before: int = 0


class Algorithm(ABC):
    """Base of every algorithm. Leaves are frozen dataclasses: their fields are their options."""

    #: the name that users give
    name: ClassVar[str]
    #: one sentence for tables
    title: ClassVar[str]
    #: how the border devices are coupled, see `lateral.devices.border`
    coupling: ClassVar[str]

    def require(self, objective: str | Objective) -> None:
        """Refuse what the algorithm cannot do, before anything is solved.

        Raises:
            OptionError: an objective that does not exist, or that this algorithm would give a wrong answer for.
            UnsupportedError: unbalance, a mean over buses of which no area knows how many the others have.
        """
        goal = objective_named(objective) if isinstance(objective, str) else objective
        if any(weight and isinstance(part, Unbalance) for weight, part in goal.terms):
            fault = Fault(
                "ARE-031 objective",
                f"objective.{Unbalance.name}",
                "a mean over the three-phase buses of the whole",
                "an objective that is a sum over areas",
                "Take another objective, limit unbalance_max at buses, or solve the feeder as a whole.",
            )
            raise UnsupportedError([fault])

    @abstractmethod
    def waves(self, plan: Plan) -> tuple[Wave, ...]:
        """Who is solved when, in one round."""

    def waves_at(self, plan: Plan, state: State) -> tuple[Wave, ...]:
        """The waves of the round that a state is in; the same in every round, unless an algorithm says otherwise."""
        return self.waves(plan)

    def init(self, plan: Plan) -> State:
        """The state before the first round."""
        first = self.first(plan)
        return State(0, 0, first, first, first, first)

    @abstractmethod
    def first(self, plan: Plan) -> Borders:
        """What receivers use in the first round."""

    def inputs(self, plan: Plan, state: State, area: str) -> dict[str, Values]:
        """What an area is told before a solve, by border: what it holds."""
        out: dict[str, Values] = {}
        if area in plan.head:
            border = plan.head[area].name
            out[border] = {x: state.held[border][x] for x in head_in(self.coupling, plan.voltages)}
        for b in plan.tails[area]:
            out[b.name] = {x: state.held[b.name][x] for x in tail_in(self.coupling, plan.voltages)}
        return out

    def asks(self, plan: Plan, state: State, area: str) -> dict[str, Any]:
        """What an area is told beside what holds at its borders, see `lateral.areas.protocol`; nothing, unless an
        algorithm says otherwise."""
        return {}

    def step(
        self, plan: Plan, state: State, wave: Wave, answers: Mapping[str, Answer], delivered: Sequence[Message]
    ) -> State:
        """The state after a wave: what was said, what arrived; after the last wave, what is used in the next round."""
        said = {border: dict(values) for border, values in state.said.items()}
        for answer in answers.values():
            for border, values in answer.borders.items():
                if speaks(plan, wave, answer.area, border):
                    said[border].update(self.labelled(plan, border, answer.area, values))
        used = {border: dict(state.used.get(border, {})) for border in state.held}
        for area in answers:
            for border, other in neighbours(plan, area):
                received = self.labelled(plan, border, other, dict.fromkeys(self.says(plan, border, other), NOTHING))
                used[border].update({x: state.held[border][x] for x in received})
        held = {border: dict(values) for border, values in state.held.items()}
        heard = dict(state.heard)
        for m in delivered:
            key = f"{m.receiver}/{m.border}"
            # each direction speaks once a round: what is not newer is old, or a repetition
            if m.round > heard.get(key, 0):
                held[m.border].update(self.labelled(plan, m.border, m.sender, m.values))
                heard[key] = m.round
        in_time = {(m.sender, m.border) for m in delivered if (m.round, m.wave) == (state.round + 1, state.wave)}
        due = {(a, b) for a in wave.areas for b, _ in neighbours(plan, a) if speaks(plan, wave, a, b)}
        missed = state.missed + len(due - in_time)
        short = state.numbers.get("short", 0.0) + sum(answer.slack > 0.0 for answer in answers.values())
        state = dataclasses.replace(
            state,
            said=said,
            held=held,
            heard=heard,
            used=used,
            missed=missed,
            wave=state.wave + 1,
            numbers={**state.numbers, "short": short},
        )
        if state.wave < len(self.waves(plan)):
            return state
        closed = self.close(plan, self.measured(plan, state))
        return dataclasses.replace(
            closed,
            round=state.round + 1,
            wave=0,
            start=closed.held,
            before=closed.said,
            missed=0,
            missed_before=missed,
            numbers={**closed.numbers, "short": 0.0},
        )

    def says(self, plan: Plan, border: str, area: str) -> tuple[str, ...]:
        """The quantities that an area says at a border, before they are labelled."""
        if self.coupling == "consensus":
            return copies(plan.voltages)
        return (tail_in if plan.borders[border].child == area else head_in)(self.coupling, plan.voltages)

    def may_say(self, plan: Plan, border: str, area: str) -> tuple[tuple[str, ...], ...]:
        """The sets of quantities of which an answer holds one at a border."""
        return (self.says(plan, border, area),)

    def labelled(self, plan: Plan, border: str, sender: str, values: Values) -> Values:
        """Values as they are keyed in the state; of two areas that say the same quantity, the key names which."""
        return values

    def measured(self, plan: Plan, state: State) -> State:
        """The state with its residuals: what was said against what was used, all through the round.

        Used at the beginning of it (``start``) and in the last solve (``used``): where messages are late or lost these
        may differ from each other, and an agreement on what is stale is none.
        """
        scale = state.price_scale or self._price_scale(state)
        residuals = {
            name: max(self.distance(plan, name, said, used.get(name, {}), scale) for used in (state.start, state.used))
            for name, said in state.said.items()
        }
        return dataclasses.replace(
            state, residuals=residuals, residual=max(residuals.values(), default=0.0), price_scale=scale
        )

    def distance(self, plan: Plan, border: str, a: Values, b: Values, price_scale: float) -> float:
        """Largest difference of two sets of values, each quantity in its own scale (`scale_of`)."""
        sizes = [float(np.abs(a[x] - b[x]).max(initial=0.0)) / scale_of(plan, x, price_scale) for x in a if x in b]
        return max(sizes, default=0.0)

    def _price_scale(self, state: State) -> float:
        prices = [np.abs(v[x]).max(initial=0.0) for v in state.said.values() for x in v if x.startswith("price_p")]
        return float(max(prices, default=0.0)) or 1.0

    @abstractmethod
    def close(self, plan: Plan, state: State) -> State:
        """The end of a round: what receivers use in the next one (``held``)."""

    def renewed(self, state: State) -> State:
        """The state after areas were built again: rounds go on from where they are, but what was seen of the map before
        is no sample of the new one."""
        numbers = {name: x for name, x in state.numbers.items() if name not in OF_ONE_MAP}
        return dataclasses.replace(state, points=(), residuals={}, numbers=numbers)

    def notes(self, state: State) -> tuple[str, ...]:
        """What a reader must know of how the run went; nothing, unless an algorithm says otherwise."""
        return ()

    def terminate(self, plan: Plan, state: State, tolerance: float) -> bool:
        """Whether the areas agree."""
        return state.round > 0 and state.residual <= tolerance


def speaks(plan: Plan, wave: Wave, area: str, border: str) -> bool:
    """Whether an area speaks at a border in a wave."""
    up = plan.borders[border].child == area
    return wave.send == "both" or (wave.send == "up") == up


def neighbours(plan: Plan, area: str) -> list[tuple[str, str]]:
    """The borders of an area, each with the area beyond it."""
    above = [(plan.head[area].name, plan.head[area].parent)] if area in plan.head else []
    return [*above, *((b.name, b.child) for b in plan.tails[area])]


def scale_of(plan: Plan, quantity: str, price_scale: float) -> float:
    """What counts as 1: 1 pu^2 (pu), the power base, the price scale, and for prices of voltage both together."""
    match quantity.split(".")[0]:
        case "p" | "q":
            return plan.s_kva
        case "price_p" | "price_q":
            return price_scale
        case "price_v" | "price_v_re" | "price_v_im" | "price_vv_re" | "price_vv_im":
            return price_scale * plan.s_kva
    return 1.0


__all__ = ["Algorithm", "Borders", "State", "neighbours", "scale_of", "speaks"]
