"""ENApp: equivalent network approximation (Sadnan and Dubey 2021; multi-period: Jha, Paul and Dubey 2024).

Each area minimises its own objective, a child as if its head were the grid: it pays the tariff for what it takes. The
child says the P and Q that it draws, the parent the voltage that it offers, until both stand still.

**What it gives.** A feasible schedule of the whole: at a fixed point the borders agree. **What it does not give**: the
optimum. A child does not see the losses that it causes upstream, nor what its voltage is worth; 0.0035 % on the
published case, 10.3 % on `case33bw-areas`. `enapp-priced` mends this.

Relaxation as published mixes what was *said* in the last rounds, not earlier mixtures, from the third exchange on::

    v = 0.95 v^k + 0.05 v^(k-1),      S = 0.70 S^k + 0.25 S^(k-1) + 0.05 S^(k-2)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np

from lateral.areas.algorithms.base import Algorithm, Borders, State
from lateral.areas.plan import Plan, Wave
from lateral.errors import OptionError
from lateral.objectives import Objective, Peak
from lateral.objectives import get as objective_named

#: Weights of the last rounds, the newest first.
WEIGHTS = {"v": (0.95, 0.05), "p": (0.70, 0.25, 0.05), "q": (0.70, 0.25, 0.05)}
WEIGHTS |= dict.fromkeys(("v_re", "v_im"), WEIGHTS["v"])


@final
@dataclass(frozen=True)
class Enapp(Algorithm):
    """Plain ENApp.

    Attributes:
        order: ``jacobi`` as published (all areas from the same data), or ``sweep`` (up to the root, and down again).
        relax: ``published`` weights, or ``none``.
    """

    order: Literal["jacobi", "sweep"] = "jacobi"
    relax: Literal["none", "published"] = "none"
    name: ClassVar[str] = "enapp"
    title: ClassVar[str] = "equivalent network approximation: P, Q up, V down (not the network optimum)"
    coupling: ClassVar[str] = "tariff"

    def require(self, objective: str | Objective) -> None:
        """No peak: every child would lower a peak of its own, as if its head were the grid.

        Raises:
            OptionError: the objective has a peak in it.
            UnsupportedError: see `Algorithm.require`.
        """
        super().require(objective)
        goal = objective_named(objective) if isinstance(objective, str) else objective
        if any(weight and isinstance(part, Peak) for weight, part in goal.terms):
            message = (
                "enapp has no peak of the whole: each area would lower one of its own; use enapp-priced, admm or app"
            )
            raise OptionError(message)

    def waves(self, plan: Plan) -> tuple[Wave, ...]:
        """All at once, or up and down."""
        return plan.all_at_once() if self.order == "jacobi" else plan.up_and_down()

    def first(self, plan: Plan) -> Borders:
        """S = 0 and the voltage of the source."""
        return {name: plan.first(name) for name in plan.borders}

    def measured(self, plan: Plan, state: State) -> State:
        """Residuals as published: the change of what is said, |dS| (complex) and |dv|.

        Where messages were missed, standing still is no agreement: then also what was said against what was used.
        """
        stale = state.missed + state.missed_before > 0
        residuals = {}
        for name, now in state.said.items():
            old = state.before[name]
            ds = np.hypot(now["p"] - old["p"], now["q"] - old["q"]) / plan.s_kva
            dv = max(float(np.abs(now[x] - old[x]).max()) for x in plan.voltages)
            residuals[name] = max(float(ds.max()), dv)
            if stale:
                apart = self.distance(plan, name, now, state.used.get(name, {}), 1.0)
                residuals[name] = max(residuals[name], apart, self.distance(plan, name, now, state.held[name], 1.0))
        return dataclasses.replace(state, residuals=residuals, residual=max(residuals.values(), default=0.0))

    def close(self, plan: Plan, state: State) -> State:
        """Mix, from the third round on."""
        history = (*state.history, state.held)[-3:]
        state = dataclasses.replace(state, history=history)
        if self.relax == "none" or state.round + 1 < 3:
            return state
        held = {
            border: {
                x: sum((w * past[border][x] for w, past in zip(WEIGHTS[x], reversed(history), strict=False)), 0.0 * now)
                for x, now in values.items()
            }
            for border, values in state.held.items()
        }
        return dataclasses.replace(state, held=held)


__all__ = ["WEIGHTS", "Enapp"]
