"""auto: `enapp-priced`, and consensus from where it is, where it does not settle.

Prices settle in a handful of rounds as long as what an area answers moves smoothly with what it is told. Where a
voltage limit beyond a border binds they jump, and the areas circle around the optimum. Consensus does not mind: both
sides have copies of v, P and Q, and a quadratic term between them. It begins where the prices ended::

    z = what the receivers hold,     y = lambda_P, lambda_Q and -mu_V   (of the child's copies)

at which, had the prices settled, nothing would move. Where areas are convex, and their solver says how their answers
move, consensus is `newton`, else `admm`. Where borders say complex voltages, the model may not be convex,
and copies that begin far from anything that fits may stay there: where the prices left the areas more than `FAR` apart,
it begins where `admm` alone does. Measured on `ieee13-rated` with decided taps and a PV: limits after 200 rounds from
the prices (residuals 3e-2 and 9e-1), certified after 88 and 108 from the beginning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from lateral.areas.agent import Answer
from lateral.areas.algorithms.admm import FAR, Admm
from lateral.areas.algorithms.base import Algorithm, Borders, State
from lateral.areas.algorithms.consensus import Consensus
from lateral.areas.algorithms.enapp_priced import EnappPriced
from lateral.areas.algorithms.newton import Newton
from lateral.areas.message import Message, Values
from lateral.areas.plan import Plan, Wave
from lateral.areas.quantities import POWERS, copies
from lateral.errors import OptionError


@final
@dataclass(frozen=True)
class Auto(Algorithm):
    """Prices first, consensus where they do not settle.

    Attributes:
        window: rounds after which the residual is looked at, again and again.
        progress: share to which it must have come down since it was looked at last.
        penalty: of consensus.
        then: what it goes over to, ``newton`` or ``admm``; ``auto``: `lateral.areas.point.taken_in` says which, and
            where nobody did it is ``admm``.

    Raises:
        OptionError: a window below 2, a share that is not in (0, 1), or nothing to go over to.
    """

    window: int = 15
    progress: float = 0.2
    penalty: float = 1.0
    then: str = "auto"
    name: ClassVar[str] = "auto"
    title: ClassVar[str] = "enapp-priced; where it does not settle, newton or admm from where it is"
    coupling: ClassVar[str] = "prices"

    def __post_init__(self) -> None:
        if self.window < 2 or not 0.0 < self.progress < 1.0:
            message = f"auto: window = {self.window!r} must be 2 or more, progress = {self.progress!r} in (0, 1)"
            raise OptionError(message)
        if self.then not in ("auto", "admm", "newton"):
            message = f"auto: then = {self.then!r} must be auto, admm or newton"
            raise OptionError(message)
        self._consensus()

    def _consensus(self) -> Consensus:
        """What it goes over to."""
        return Newton(penalty=self.penalty) if self.then == "newton" else Admm(penalty=self.penalty)

    def at(self, state: State) -> Algorithm:
        """The algorithm that a state belongs to."""
        return self._consensus() if state.numbers.get("consensus") else EnappPriced()

    def waves(self, plan: Plan) -> tuple[Wave, ...]:
        """Those of the first part."""
        return EnappPriced().waves(plan)

    def waves_at(self, plan: Plan, state: State) -> tuple[Wave, ...]:
        """See `Algorithm.waves_at`."""
        return self.at(state).waves(plan)

    def first(self, plan: Plan) -> Borders:
        """As `EnappPriced`."""
        return EnappPriced().first(plan)

    def inputs(self, plan: Plan, state: State, area: str) -> dict[str, Values]:
        """See `Algorithm.inputs`."""
        return self.at(state).inputs(plan, state, area)

    def asks(self, plan: Plan, state: State, area: str) -> dict[str, Any]:
        """See `Algorithm.asks`."""
        return self.at(state).asks(plan, state, area)

    def renewed(self, state: State) -> State:
        """See `Algorithm.renewed`."""
        return self.at(state).renewed(state) if state.numbers.get("consensus") else super().renewed(state)

    def terminate(self, plan: Plan, state: State, tolerance: float) -> bool:
        """See `Algorithm.terminate`."""
        return self.at(state).terminate(plan, state, tolerance)

    def may_say(self, plan: Plan, border: str, area: str) -> tuple[tuple[str, ...], ...]:
        """What either says."""
        return (EnappPriced().says(plan, border, area), Admm().says(plan, border, area))

    def labelled(self, plan: Plan, border: str, sender: str, values: Values) -> Values:
        """Never asked: `step` is the parts'."""
        return EnappPriced().labelled(plan, border, sender, values)

    def step(
        self, plan: Plan, state: State, wave: Wave, answers: Mapping[str, Answer], delivered: Sequence[Message]
    ) -> State:
        """That of the part; between rounds, whether to go over to the other."""
        new = self.at(state).step(plan, state, wave, answers, delivered)
        if new.wave or new.numbers.get("consensus"):
            return new
        look, mark = new.numbers.get("window", float(self.window)), new.numbers.get("before", float("inf"))
        if new.missed_before:  # slow because messages are lost, which consensus would not mend
            return dataclasses.replace(new, numbers={**new.numbers, "window": look + 1.0})
        if new.round < look:
            return new
        if new.residual > self.progress * mark:
            return self.handed_over(plan, new)
        numbers = {**new.numbers, "window": new.round + float(self.window), "before": new.residual}
        return dataclasses.replace(new, numbers=numbers)

    def handed_over(self, plan: Plan, state: State) -> State:
        """The state of `Admm` that goes on from one of `EnappPriced`; its first one where that is worth nothing."""
        begin = self._consensus().init(plan)
        numbers = {**begin.numbers, "consensus": 1.0, "since": float(state.round)}
        begin = dataclasses.replace(
            begin,
            round=state.round,
            heard=state.heard,
            residual=state.residual,
            residuals=state.residuals,
            numbers=numbers,
        )
        if plan.voltages == ("v_re", "v_im") and state.residual > FAR:
            return begin
        held, local = {}, dict(begin.local)
        for name, border in plan.borders.items():
            own = state.held[name]
            both = copies(plan.voltages)
            held[name] = {key: own[x] for x in both for key in (x, f"{x}.up", f"{x}.down")}
            for x in both:  # what becomes the multiplier of a child's copy
                local[f"{border.child}/{name}/{x}"] = (1.0 if x in POWERS else -1.0) * own[f"price_{x}"]
        return dataclasses.replace(begin, held=held, start=held, said=held, before=held, local=local)

    def notes(self, state: State) -> tuple[str, ...]:
        """When the run went over."""
        since = state.numbers.get("since")
        if since is None:
            return ()
        to = self._consensus().name
        over = f"auto went over from enapp-priced to {to} after round {since:.0f}: the residual did not come down"
        return (over, *self.at(state).notes(state))

    def close(self, plan: Plan, state: State) -> State:
        """That of the part."""
        return self.at(state).close(plan, state)


__all__ = ["Auto"]
