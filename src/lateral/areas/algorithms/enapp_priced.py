"""ENApp with border prices: a fixed point satisfies the optimality conditions of the whole feeder.

Beside V, P and Q each border carries three prices per conductor and step:

    lambda_P, lambda_Q   duals of the parent's balance at the border bus, going down: what one more kWh there costs
    mu_V                 dual of the child's head voltage, going up: what one more pu^2 of voltage costs it

The child pays ``lambda_P P + lambda_Q Q`` instead of the tariff, the parent ``mu_V v``.

**Fixed point.** Write the whole as ``min f(x) + g(y)`` with x the parent, y the child, coupled by ``S(x) = S(y)`` and
``v(y) = v(x)``. With multipliers lambda and mu, its stationarity in x is that of the parent's own problem (S given: its
multiplier is lambda; plus mu v(x)), in y that of the child's (v given: its multiplier is mu; plus lambda S(y)). So a
point that both areas return unchanged satisfies the KKT conditions of the whole: the optimum of a convex model, a local
one of the exact model; and the optimum of the whole, put in, does not move where each area's solution is unique.

**Convergence.** Proved where voltage coupling is negligible (mu = 0): with phi the parent's optimal cost as a function
of S, L-smooth, and the child's own cost m-strongly convex in S, the round is ``lambda -> grad phi(S(lambda))``, whose
derivative is ``-H_phi H_psi^-1``: its eigenvalues are real and in [-L/m, 0], so that mixing converges near the solution
for any ``0 < mixing < 2 / (1 + L/m)``, without any mixing for L < m. In general none is proved: the acceleration is
restarted where the residual grows, and a run that does not settle ends as a limit, never as a solution.

**Acceleration** (Anderson 1965; Walker and Ni 2011, type II) acts on what goes down, of all borders together, and only
in rounds in which every message arrived in its wave: what is stale is no sample of the map. A round that missed one is
mixed by `CAREFUL` at most, and the samples of the whole rounds before it stay.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np

from lateral.areas.algorithms.base import Algorithm, Borders, State, scale_of
from lateral.areas.message import Values
from lateral.areas.plan import Plan, Wave
from lateral.network.schema import FloatArray

#: What goes down a border.
DOWN = ("v", "price_p", "price_q")
#: Acceleration restarts where a residual is this many times the best one.
SAFEGUARD = 20.0
#: Largest mixing in a round that missed a message: without acceleration 0.7 cycles on the published case, 0.5 settles.
CAREFUL = 0.5


@final
@dataclass(frozen=True)
class EnappPriced(Algorithm):
    """ENApp with three prices per border.

    Attributes:
        order: ``sweep`` (up to the root, and down again) or ``jacobi``.
        mixing: share of the new value in what is used next; without acceleration 0.5 is safer.
        depth: number of earlier rounds that the acceleration looks at; 0 for none.
    """

    order: Literal["jacobi", "sweep"] = "sweep"
    mixing: float = 0.7
    depth: int = 3
    proximal: float = 1.0
    name: ClassVar[str] = "enapp-priced"
    title: ClassVar[str] = "ENApp with three prices per border: its fixed point is the network optimum"
    coupling: ClassVar[str] = "prices"

    def waves(self, plan: Plan) -> tuple[Wave, ...]:
        """Up and down, or all at once."""
        return plan.all_at_once() if self.order == "jacobi" else plan.up_and_down()

    def first(self, plan: Plan) -> Borders:
        """S = 0, the voltage of the source, its price."""
        out: dict[str, Values] = {}
        for name in plan.borders:
            one = plan.ones(name)
            zero = 0.0 * one
            out[name] = {
                "v": one * plan.v_start,
                "price_p": one * plan.price_start,
                "price_q": zero,
                "p": zero,
                "q": zero,
                "price_v": zero,
            }
        return out

    def inputs(self, plan: Plan, state: State, area: str) -> dict[str, Values]:
        """What is held; prices with the proximal term."""
        out = {border: dict(values) for border, values in super().inputs(plan, state, area).items()}
        if area in plan.head and self.proximal:
            border = plan.head[area].name
            for x in ("p", "q"):
                w = self._w(plan, state, border, x)
                said = state.said[border][x]
                out[border][f"price_{x}"] = out[border][f"price_{x}"] - w * said
                out[border][f"w_{x}"] = np.full_like(said, w)
        return out

    def _w(self, plan, state, border, x):
        return self.proximal * state.price_scale / plan.s_kva

    @property
    def _mixed(self) -> tuple[str, ...]:
        """What is mixed: in sweeps what goes down; what goes up follows from it in the same round."""
        return DOWN if self.order == "sweep" else (*DOWN, "p", "q", "price_v")

    def close(self, plan: Plan, state: State) -> State:
        """Mix what was used with what came of it, by Anderson's method where every message arrived."""
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
            mixed = _anderson(points, self.mixing)
            if not self._sane(plan, mixed):
                points, mixed = points[-1:], used + 0.5 * mixing * (came - used)
        return dataclasses.replace(
            state,
            held=self._unpacked(plan, state, mixed),
            points=points,
            numbers={**state.numbers, "best": best},
        )

    def _packed(self, plan: Plan, state: State, borders: Borders, said: Borders) -> FloatArray:
        parts = []
        for b in plan.borders:
            for x in self._mixed:
                value = borders[b][x]
                if x in ("price_p", "price_q"):
                    value = value - self._w(plan, state, b, x[-1]) * said[b][x[-1]]
                parts.append((value / scale_of(plan, x, state.price_scale)).reshape(-1))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _unpacked(self, plan: Plan, state: State, vector: FloatArray) -> Borders:
        out = {border: dict(values) for border, values in state.held.items()}
        at = 0
        for border in plan.borders:
            shape = plan.shape(border)
            for x in self._mixed:
                cells = vector[at : at + shape[0] * shape[1]]
                out[border][x] = cells.reshape(shape) * scale_of(plan, x, state.price_scale)
                if x in ("price_p", "price_q"):
                    out[border][x] = out[border][x] + self._w(plan, state, border, x[-1]) * state.said[border][x[-1]]
                at += cells.size
        return out

    def _sane(self, plan: Plan, vector: FloatArray) -> bool:
        """Whether every squared voltage is one, and nothing is beyond reason."""
        at = 0
        for border in plan.borders:
            size = int(np.prod(plan.shape(border)))
            v = vector[at : at + size]
            if np.any(v < 0.25) or np.any(v > 4.0):
                return False
            at += size * len(self._mixed)
        return bool(np.all(np.abs(vector) < 1e4))


def _anderson(points: tuple[tuple[FloatArray, FloatArray], ...], mixing: float) -> FloatArray:
    """``x + b f - (dX + b dF) gamma``, gamma = argmin |f - dF gamma| (type II; Walker and Ni 2011, eq. 2.2)."""
    x, f = points[-1]
    d_x = np.column_stack([x - a for a, _ in points[:-1]])
    d_f = np.column_stack([f - b for _, b in points[:-1]])
    gamma = np.linalg.lstsq(d_f, f, rcond=1e-10)[0]
    return np.asarray(x + mixing * f - (d_x + mixing * d_f) @ gamma)


__all__ = ["DOWN", "EnappPriced"]
