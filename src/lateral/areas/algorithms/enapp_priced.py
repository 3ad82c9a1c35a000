"""ENApp with border prices: a fixed point satisfies the optimality conditions of the whole feeder.

Beside V, P and Q each border carries three prices per conductor and step:

    lambda_P, lambda_Q   duals of the parent's balance at the border bus, going down: what one more kWh there costs
    mu_V                 dual of the child's head voltage, going up: what one more pu^2 of voltage costs it

The child pays ``lambda_P P + lambda_Q Q`` instead of the tariff, the parent ``mu_V v``. Where the formulation says
voltages as complex numbers, V_re and V_im go down and each has its own mu: four prices, and all that follows holds.

**Fixed point.** Write the whole as ``min f(x) + g(y)`` with x the parent, y the child, coupled by ``S(x) = S(y)`` and
``v(y) = v(x)``. With multipliers lambda and mu, its stationarity in x is that of the parent's own problem (S given: its
multiplier is lambda; plus mu v(x)), in y that of the child's (v given: its multiplier is mu; plus lambda S(y)). So a
point that both areas return unchanged satisfies the KKT conditions of the whole: the optimum of a convex model, a local
one of the exact model; and the optimum of the whole, put in, does not move where each area's solution is unique.

**Convergence.** Proved where voltage coupling is negligible (mu = 0): with phi the parent's optimal cost as a function
of S, L-smooth, and the child's own cost m-strongly convex in S, the round is ``lambda -> grad phi(S(lambda))``, whose
derivative is ``-H_phi H_psi^-1``: its eigenvalues are real and in [-L/m, 0], so that mixing converges near the solution
for any ``0 < mixing < 2 / (1 + L/m)``, without any mixing for L < m. A child that can give or take power at no cost of
its own (reactive power of inverters, batteries) has a small m: then no practical mixing is safe.

**Proximal term.** Where the residual does not come down, children pay ``w/2 (S - S')^2`` besides, S' what they said
last. That moves no fixed point (its gradient at S = S' is zero), and makes the round, unmixed and again with mu = 0,

    S = argmin psi(S) + grad phi(S') S + w/2 |S - S'|^2

the proximal gradient method, which converges from anywhere for ``w > L/2`` and convex phi and psi, whatever m is (Beck
and Teboulle 2009, Combettes and Wajs 2005). The weight begins at zero, and grows while that helps.

In general nothing is proved: the acceleration is restarted where the residual grows, and a run that does not settle
ends as a limit, never as a solution.

**Acceleration** (Anderson 1965; Walker and Ni 2011, type II) acts on what goes down, of all borders together, and only
in rounds in which every message arrived in its wave: what is stale is no sample of the map. A round that missed one is
mixed by `CAREFUL` at most, and the samples of the whole rounds before it stay.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np

from lateral.areas.algorithms.anderson import anderson
from lateral.areas.algorithms.base import Algorithm, Borders, State, scale_of
from lateral.areas.message import Values
from lateral.areas.plan import Plan, Wave
from lateral.areas.quantities import copies, head_in, magnitude_sq, tail_in
from lateral.errors import OptionError
from lateral.network.schema import FloatArray

PRICES = ("price_p", "price_q")
#: Acceleration restarts where a residual is this many times the best one.
SAFEGUARD = 20.0
#: Largest mixing in a round that missed a message: without acceleration 0.7 cycles on the published case, 0.5 settles.
CAREFUL = 0.5
#: Every so many rounds of sweeps the residual is looked at. If it has not come down to this share without, and to that
#: share with a proximal term, the term gets heavier.
PATIENCE, ENOUGH, ENOUGH_WITH = 3, 0.3, 0.9
#: The first weight of the proximal term, and by what it gets heavier.
LIGHTEST, HEAVIER = 0.03, 3.0


@final
@dataclass(frozen=True)
class EnappPriced(Algorithm):
    """ENApp with three prices per border.

    Attributes:
        order: ``sweep`` (up to the root, and down again) or ``jacobi``.
        mixing: share of the new value in what is used next; without acceleration 0.5 is safer.
        depth: number of earlier rounds that the acceleration looks at; 0 for none.
        proximal_max: heaviest proximal term, as a share of the price scale over the power base; 0 for none.

    Raises:
        OptionError: a mixing that is not in (0, 1], a negative depth or weight.
    """

    order: Literal["jacobi", "sweep"] = "sweep"
    mixing: float = 0.7
    depth: int = 3
    proximal_max: float = 1.0
    name: ClassVar[str] = "enapp-priced"
    title: ClassVar[str] = "ENApp with three prices per border: its fixed point is the network optimum"
    coupling: ClassVar[str] = "prices"

    def __post_init__(self) -> None:
        wrong = []
        if not 0.0 < self.mixing <= 1.0:
            wrong.append(f"mixing = {self.mixing!r} must be in (0, 1]")
        if self.depth < 0:
            wrong.append(f"depth = {self.depth!r} must be at least 0")
        if not 0.0 <= self.proximal_max < np.inf:
            wrong.append(f"proximal_max = {self.proximal_max!r} must be finite and at least 0")
        if wrong:
            message = f"{self.name}: {'; '.join(wrong)}"
            raise OptionError(message)

    def waves(self, plan: Plan) -> tuple[Wave, ...]:
        """Up and down, or all at once."""
        return plan.all_at_once() if self.order == "jacobi" else plan.up_and_down()

    def first(self, plan: Plan) -> Borders:
        """S = 0, the voltage of the source, its price."""
        out: dict[str, Values] = {}
        for name in plan.borders:
            one = plan.ones(name)
            prices = {f"price_{x}": 0.0 * one for x in copies(plan.voltages)}
            out[name] = {**plan.first(name), **prices, "price_p": one * plan.price_start}
        return out

    def inputs(self, plan: Plan, state: State, area: str) -> dict[str, Values]:
        """What an area holds; for a child with the proximal term ``w/2 (S - S')^2``, S' what it said last."""
        out = super().inputs(plan, state, area)
        weight = self._weight(plan, state)
        if weight and area in plan.head:
            border = plan.head[area].name
            held, said = dict(out[border]), state.said[border]
            for x in ("p", "q"):
                held[f"price_{x}"] = held[f"price_{x}"] - weight * said[x]
                held[f"w_{x}"] = np.full_like(said[x], weight)
            out[border] = held
        return out

    def _weight(self, plan: Plan, state: State) -> float:
        """Weight of the proximal term, objective per kWh and kW (kvarh and kvar)."""
        return state.numbers.get("proximal", 0.0) * state.price_scale / plan.s_kva

    def _mixed(self, plan: Plan) -> tuple[str, ...]:
        """What is mixed: in sweeps what goes down; what goes up follows from it in the same round."""
        down = head_in(self.coupling, plan.voltages)
        return down if self.order == "sweep" else (*down, *tail_in(self.coupling, plan.voltages))

    def close(self, plan: Plan, state: State) -> State:
        """Mix what was used with what came of it, by Anderson's method where every message arrived."""
        state = self._steadied(state)
        used = self._packed(plan, state, state.start, state.before)
        came = self._packed(plan, state, state.held, state.said)
        short = state.numbers.get("short", 0.0) > 0.0  # an area's own prices move yet: its answers are no map
        whole = state.missed == 0 and not short
        points = () if short else state.points
        if self.depth and whole:
            points = (*points, (used, came - used))[-(self.depth + 1) :]
        best = min(state.numbers.get("best", np.inf), state.residual)
        if state.residual > SAFEGUARD * best:
            points, best = points[-1:], state.residual
        mixing = min(self.mixing, CAREFUL) if state.missed else self.mixing
        mixed = used + mixing * (came - used)
        if len(points) > 1 and whole:
            mixed = anderson(points, self.mixing)
            if not self._sane(plan, mixed):
                points, mixed = points[-1:], used + 0.5 * mixing * (came - used)
        return dataclasses.replace(
            state,
            held=self._unpacked(plan, state, mixed),
            points=points,
            numbers={**state.numbers, "best": best},
        )

    def _steadied(self, state: State) -> State:
        """The state with a heavier proximal term where the residual has not come down since it was looked at last."""
        look, mark = state.numbers.get("look", float(PATIENCE)), state.numbers.get("mark", np.inf)
        if self.order == "jacobi" or not self.proximal_max or state.missed or state.round < look:
            return state
        numbers, points = {**state.numbers, "look": state.round + float(PATIENCE), "mark": state.residual}, state.points
        weight = state.numbers.get("proximal", 0.0)
        if state.residual > (ENOUGH_WITH if weight else ENOUGH) * mark:
            numbers["proximal"] = min(HEAVIER * weight or LIGHTEST, self.proximal_max)
            if numbers["proximal"] != weight:  # another map: what was seen of the old one is no sample of it
                points, numbers["best"] = (), state.residual
        return dataclasses.replace(state, numbers=numbers, points=points)

    def _packed(self, plan: Plan, state: State, borders: Borders, said: Borders) -> FloatArray:
        """What is mixed as one vector, scaled; of prices what a child sees of them, lambda - w S'."""
        weight = self._weight(plan, state)
        parts = [
            ((borders[b][x] - (weight * said[b][x[-1]] if x in PRICES else 0.0)) / scale_of(plan, x, state.price_scale))
            for b in plan.borders
            for x in self._mixed(plan)
        ]
        return np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0)

    def _unpacked(self, plan: Plan, state: State, vector: FloatArray) -> Borders:
        weight = self._weight(plan, state)
        out = {border: dict(values) for border, values in state.held.items()}
        at = 0
        for border in plan.borders:
            shape = plan.shape(border)
            for x in self._mixed(plan):
                cells = vector[at : at + shape[0] * shape[1]]
                value = cells.reshape(shape) * scale_of(plan, x, state.price_scale)
                out[border][x] = value + weight * state.said[border][x[-1]] if x in PRICES else value
                at += cells.size
        return out

    def _sane(self, plan: Plan, vector: FloatArray) -> bool:
        """Whether every squared voltage is one, and nothing is beyond reason."""
        at = 0
        for border in plan.borders:
            size, n = int(np.prod(plan.shape(border))), len(plan.voltages)
            v_sq = magnitude_sq([vector[at + k * size : at + (k + 1) * size] for k in range(n)])
            if np.any(v_sq < 0.25) or np.any(v_sq > 4.0):
                return False
            at += size * len(self._mixed(plan))
        return bool(np.all(np.abs(vector) < 1e4))


__all__ = ["EnappPriced"]
