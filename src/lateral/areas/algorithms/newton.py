"""Newton: consensus as in `admm`, but the coordinator knows how the areas' answers move, and asks for what agrees.

Both sides of a border have copies x of what crosses; z is their mean, y the multiplier of the child's, and a round of
`admm` is a map of (z, y) with steps ::

    dz = (x_child + x_parent) / 2 - z,     dy = rho (x_child - x_parent) / 2

that are zero where the areas agree on an optimum. `admm` takes them as they are. Here every area also says its slopes
``J = d x / d lin`` (`lateral.areas.slopes`). With lin = +-y - rho z they give the derivative M of minus the steps by
(z, y), and the next point is Newton's::

    (M + lambda I) d = steps                       in units of sqrt(rho) x, in which the map contracts

In these units the map of a convex model is firmly nonexpansive (Eckstein and Bertsekas 1992), M is monotone, and
``|d| <= |steps| / lambda`` however little is known of a direction (regularised semismooth Newton's method, Xiao, Li,
Wen and Zhang 2018). Prices that neither side can do anything about, which `admm` moves by 1e-3 a round, are found at
once.

**The gap.** Where limits begin and end to bind the slopes jump. Areas therefore answer by the point of their central
path at a duality gap that the coordinator says, from `gap` on down to `GAP_END` as the copies come together, with the
derivative by it in the same step: the rounds are those of an interior-point method of the whole, whose areas are
condensed to their borders. (Of the same family: DeMiguel and Nogales 2008, of interior-point steps of several areas.)

**Going back.** A point whose steps are more than `WORSE` times as long as those of the best one is left: the next one
is asked for from the best one, with `LAMBDA_UP` times the lambda.

An area whose solver does not know its slopes (programs that are not convex, a message that was lost) makes the round
one of `admm`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from lateral.areas.agent import Answer
from lateral.areas.algorithms.base import Borders, State
from lateral.areas.algorithms.consensus import Consensus, positive
from lateral.areas.message import Message
from lateral.areas.plan import Plan, Wave
from lateral.areas.quantities import copies, of_conductors
from lateral.areas.slopes import Slopes
from lateral.network.schema import FloatArray, IntArray

#: The last duality gap, relative; and it is let fall to this share of the residual, by this factor in a round at most.
GAP_END, GAP_SHARE, GAP_FALL = 1e-7, 1e-2, 0.1
#: A point is left where its steps are this many times as long as those of the best one, and longer than the gap times
#: so much.
WORSE, NOISE, NOISE_MAX = 3.0, 1000.0, 0.02
#: lambda is this share of the length of the steps, at first; the share is changed by these where a point is left, or not.
LAMBDA, LAMBDA_UP, LAMBDA_DOWN, LAMBDA_MIN, LAMBDA_MAX = 1.0, 3.0, 0.1, 1e-2, 1e2
GAP_RISE = 3.0
GOOD, BAD, LAMBDA_MORE = 0.7, 0.3, 3.0
#: Where a state keeps slopes, and the best point: its (z, y), its steps, the derivative of these, and by the gap.
LIN, GAP = "slopes/", "slopes_gap/"
BEST, STEPS, MOVES, FALLS = "best_point", "best_steps", "best_moves", "best_falls"


@final
@dataclass(frozen=True)
class Newton(Consensus):
    """Consensus by Newton's method.

    Attributes:
        penalty: rho, dimensionless, around 1 (`lateral.areas.algorithms.consensus.UNIT`).
        ratio_v: the penalty of v, as a share of that.
        ratio_unbalance: of a matrix of voltages, see `Consensus`.
        gap: duality gap of the areas' answers in the first round, relative.

    Raises:
        OptionError: one that is not positive and finite.
    """

    penalty: float = 1.0
    ratio_v: float = 1.0
    ratio_unbalance: float = 1.0
    gap: float = 1e-2
    name: ClassVar[str] = "newton"
    title: ClassVar[str] = "consensus on v, P and Q by Newton's method, with the slopes of the areas' answers"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self.name, gap=self.gap)

    def init(self, plan: Plan) -> State:
        """As in `Consensus`, at the first gap."""
        state = super().init(plan)
        return dataclasses.replace(state, numbers={**state.numbers, "gap": max(self.gap, GAP_END), "share": LAMBDA, "fall": GAP_FALL})

    def asks(self, plan: Plan, state: State, area: str) -> dict[str, Any]:
        """The duality gap; an area that is told one says its slopes."""
        return {"gap": state.numbers["gap"]}

    def terms(
        self, own: FloatArray, other: FloatArray, mean: FloatArray, y: FloatArray, penalty: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """``y - rho z`` and ``rho``."""
        return y - penalty * mean, penalty

    def moved(self, own: FloatArray, other: FloatArray, y: FloatArray, penalty: FloatArray) -> FloatArray:
        """``y + rho (x - z)``."""
        return y + penalty * 0.5 * (own - other)

    def step(
        self, plan: Plan, state: State, wave: Wave, answers: Mapping[str, Answer], delivered: Sequence[Message]
    ) -> State:
        """See `Algorithm.step`; slopes are kept, none where an area did not say any."""
        local = dict(state.local)
        for area in wave.areas:
            said = answers[area].slopes if area in answers else None
            fits = said is not None and self._fits(plan, area, said)
            for key, value in ((LIN, said.lin), (GAP, said.gap)) if said is not None and fits else ():
                local[f"{key}{area}"] = value
            if not fits:
                local.pop(f"{LIN}{area}", None)
        return super().step(plan, dataclasses.replace(state, local=local), wave, answers, delivered)

    def _fits(self, plan: Plan, area: str, said: Slopes) -> bool:
        """Whether slopes are of an area's own borders, in order."""
        n = len(self._cells(plan, said.borders))
        return list(said.borders) == _borders_of(plan, area) and said.lin.shape == (n, n) and said.gap.shape == (n, 1)

    def renewed(self, state: State) -> State:
        """See `Algorithm.renewed`."""
        state = super().renewed(state)
        local = {k: v for k, v in state.local.items() if k not in (BEST, STEPS, MOVES, FALLS)}
        return dataclasses.replace(state, local=local)

    def terminate(self, plan: Plan, state: State, tolerance: float) -> bool:
        """Whether the areas agree, at the last gap."""
        return super().terminate(plan, state, tolerance) and state.numbers.get("used_gap", 1.0) <= GAP_END

    def close(self, plan: Plan, state: State) -> State:
        """The next (z, y) and the next gap."""
        came = super().close(plan, state)
        gap = state.numbers["gap"]
        came = dataclasses.replace(came, numbers={**came.numbers, "used_gap": gap})
        if state.missed or not plan.borders:
            return came
        begin = self._packed(plan, state, state.held, state.local)
        steps = self._packed(plan, state, came.held, came.local) - begin
        numbers, local = dict(came.numbers), dict(came.local)
        best = float(np.linalg.norm(local[STEPS])) if STEPS in local else np.inf
        fell, other = gap < 0.9 * numbers.get("best_gap", 0.0), gap != numbers.get("best_gap", 0.0)
        if float(np.linalg.norm(steps)) > (max(WORSE * best, min(NOISE * gap, NOISE_MAX)) if other else best):
            if fell:
                numbers["fall"] = np.sqrt(numbers["fall"])
                gap = max(gap, numbers["fall"] * numbers["best_gap"])
            if not fell or numbers["fall"] > 0.7:
                numbers["share"] = min(numbers["share"] * LAMBDA_UP, LAMBDA_MAX)
                gap = min(max(self.gap, GAP_END), GAP_RISE * numbers["best_gap"])
        elif any(f"{LIN}{area}" not in local for area in plan.areas):
            return came
        else:
            moves, falls = self._derivative(plan, state)
            local |= {BEST: begin, STEPS: steps, MOVES: moves, FALLS: falls}
            gain = (numbers.get("from", 0.0) - float(np.linalg.norm(steps))) / (numbers.get("promised", 0.0) or np.inf)
            change = LAMBDA_DOWN if gain > GOOD else 1.0 if gain > BAD or np.isinf(best) else LAMBDA_MORE
            numbers["share"] = min(max(numbers["share"] * change, LAMBDA_MIN), LAMBDA_MAX)
            numbers["best_gap"] = gap
            if gap < numbers.get("before_gap", np.inf):
                numbers["fall"] = max(numbers["fall"] ** 2, GAP_FALL)
            numbers["before_gap"] = gap
            gap = max(GAP_END, numbers["fall"] * gap, min(gap, GAP_SHARE * came.residual))
        aim = local[STEPS] + local[FALLS] * np.log(gap / numbers["best_gap"])
        damping = min(numbers["share"] * float(np.linalg.norm(aim)), 1.0)
        d = np.linalg.solve(local[MOVES] + damping * np.eye(len(aim)), aim)
        length = float(np.linalg.norm(aim))
        numbers |= {"gap": gap, "from": length, "promised": length - float(np.linalg.norm(aim - local[MOVES] @ d))}
        came = dataclasses.replace(came, local=local, numbers=numbers)
        return self._unpacked(plan, came, local[BEST] + d)

    def _roots(self, plan: Plan, state: State) -> FloatArray:
        """sqrt(rho) of what crosses, border by border, by quantity, conductor and step, so that both z and y, times and
        over it, are in one unit, shape (n,)."""
        size = np.sqrt(state.price_scale * plan.s_kva)
        parts = [
            np.broadcast_to(np.sqrt(self.penalty_of(plan, state, name, x)) / size, plan.shape(name)).reshape(-1)
            for name in plan.borders
            for x in copies(plan.voltages)
        ]
        return np.concatenate(parts)

    def _cells(self, plan: Plan, borders: Sequence[str]) -> IntArray:
        """Places of what crosses some borders, in their order."""
        size = {name: rows * steps * len(copies(plan.voltages)) for name, (rows, steps) in
                ((name, plan.shape(name)) for name in plan.borders)}
        first = dict(zip(size, np.cumsum([0, *size.values()]).tolist(), strict=False))
        parts = [np.arange(first[name], first[name] + size[name]) for name in borders if name in size]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _packed(self, plan: Plan, state: State, held: Borders, local: Mapping[str, FloatArray]) -> FloatArray:
        """(z, y) in one unit, shape (2n,)."""
        z, y = [], []
        for name, border in plan.borders.items():
            mean = self.copy_of(plan, name, held[name], "")
            for x in copies(plan.voltages):
                z.append(mean[x].reshape(-1))
                y.append(local[f"{border.child}/{name}/{x}"].reshape(-1))
        root = self._roots(plan, state)
        unit = state.price_scale * plan.s_kva
        return np.concatenate([root * np.concatenate(z), np.concatenate(y) / (root * unit)])

    def _unpacked(self, plan: Plan, state: State, vector: FloatArray) -> State:
        """The state at (z, y)."""
        held, local = {name: dict(values) for name, values in state.held.items()}, dict(state.local)
        root = self._roots(plan, state)
        unit = state.price_scale * plan.s_kva
        z, y = vector[: len(root)] / root, vector[len(root) :] * root * unit
        at = 0
        for name, border in plan.borders.items():
            shape, mean = plan.shape(name), {}
            for x in copies(plan.voltages):
                own = slice(at, at + shape[0] * shape[1])
                mean[x] = z[own].reshape(shape)
                local[f"{border.child}/{name}/{x}"] = y[own].reshape(shape)
                at = own.stop
            held[name] |= of_conductors(mean, border.conductors)
        return dataclasses.replace(state, held=held, local=local)

    def _derivative(self, plan: Plan, state: State) -> tuple[FloatArray, FloatArray]:
        """M, shape (2n, 2n), and the derivative of the steps by log(gap), shape (2n,)."""
        root, unit = self._roots(plan, state), state.price_scale * plan.s_kva
        n = len(root)
        # of the child's copies and of the parent's
        by = {1.0: np.zeros((n, 2 * n)), -1.0: np.zeros((n, 2 * n))}
        falls = {1.0: np.zeros(n), -1.0: np.zeros(n)}
        for area in plan.areas:
            borders = _borders_of(plan, area)
            at = self._cells(plan, borders)
            sign = np.concatenate(
                [np.full(len(self._cells(plan, [b])), 1.0 if plan.borders[b].child == area else -1.0) for b in borders]
            )
            lin = unit * root[at][:, None] * state.local[f"{LIN}{area}"] * root[at]
            gap = root[at] * state.local[f"{GAP}{area}"].reshape(-1)
            for side in by:
                own = sign == side
                by[side][np.ix_(at[own], at)] = -lin[own]
                by[side][np.ix_(at[own], n + at)] = lin[own] * sign
                falls[side][at[own]] = gap[own]
        z, y = 0.5 * (by[1.0] + by[-1.0]), 0.5 * (by[1.0] - by[-1.0])
        moves = np.eye(2 * n)
        moves[n:, n:] = 0.0
        fall = np.concatenate([falls[1.0] + falls[-1.0], falls[1.0] - falls[-1.0]])
        return moves - np.concatenate([z, y]), 0.5 * fall


def _borders_of(plan: Plan, area: str) -> list[str]:
    """The borders of an area, the one above first."""
    above = [plan.head[area].name] if area in plan.head else []
    return above + [b.name for b in plan.tails[area]]


__all__ = ["Newton"]
