"""Newton: consensus as in `admm`, but the coordinator knows how the areas' answers move, and asks for what agrees.

Both sides of a border have copies x of what crosses; z is their mean, y the multiplier of the child's, and a round of
`admm` is a map of (z, y) with steps ::

    dz = (x_child + x_parent) / 2 - z,     dy = rho (x_child - x_parent) / 2

that are zero where the areas agree on an optimum. `admm` takes them as they are. Here every area also says its slopes
``J = d x / d lin`` (`lateral.areas.slopes`). With ``lin = y - rho z`` of the child and ``-y - rho z`` of the parent
these give M, minus the derivative of the steps by (z, y), and the next point is Newton's::

    (M + lambda I) d = steps                       with z sqrt(rho) and y / sqrt(rho), in which the map contracts

In these units the map of a convex model is firmly nonexpansive (Eckstein and Bertsekas 1992), M is monotone, and
``|d| <= |steps| / lambda`` however little is known of a direction (a regularised semismooth Newton's method: Xiao, Li,
Wen and Zhang 2018). Prices that neither side can do anything about, which `admm` moves by 1e-3 a round, are found at
once. lambda is a share of the steps' length; the share follows how much of what it promised a step brought (Levenberg
1944, Marquardt 1963).

**The gap.** Where limits begin and end to bind, slopes jump. Areas therefore answer by the point of their central path
at a duality gap that the coordinator says, from `gap` down to `GAP_END` as the copies come together, and say their
derivative by it too, so that one step does both. The rounds are those of an interior-point method of the whole whose
areas are condensed to their borders (of this family: DeMiguel and Nogales 2008).

**The first round** is one of `admm`, without a gap: where areas agree as they are (`curtailment`, of which there need
be none) nothing is left to do, and what they say is nearer to prices than the beginning.

**Going back.** A point whose steps are longer than those of the best one before is left, and the next one is asked for
from there: with a gap that falls less, or with more lambda and a larger gap. Where the gap is another one than the best
point's, steps may be `WORSE` times as long for each tenth of it, or as long as the gap explains.

**With care.** Newton's method is sure of its steps where what they leave, which goes with the square of their length,
is small beside the gap (Nesterov and Nemirovskii 1994: the decrement of a barrier). Far from there limits seem not to
bind, or to bind for ever, and a step may lead from one side to the other and back. Where the residual was not halved in
`STILL` rounds the gap is therefore let be `GAP_NEAR` times the square of the residual, steps at another gap `INSIDE`
times its root, and it rises only while the residual falls. From the beginning that makes most runs a few rounds longer
(`ieee13`, 4 steps, 3 areas, `soc3`: 23 for 20; `sdp`, 1 step: 33 for 24); of random feeders (`soc3`) that wandered for
300 rounds it lets most end certified after 40 to 90.

**Going over.** Where the residual was not halved in `patience` rounds the run goes on as `admm`, from the best point;
and where messages were missing in `MISSED` rounds in a row (an area is gone) from where it is. A point at which an area
has no answer is left as well.

An area that does not say its slopes (its solver did not reach the path, a message was lost) makes the round one of
`admm` without acceleration. Measured: `docs/areas/algorithms.md`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from lateral.areas.agent import Answer
from lateral.areas.algorithms.admm import FAR, Admm
from lateral.areas.algorithms.base import Borders, State
from lateral.areas.algorithms.consensus import Consensus, positive
from lateral.areas.message import Message
from lateral.areas.plan import Plan, Wave
from lateral.areas.quantities import copies, of_conductors
from lateral.areas.slopes import Slopes
from lateral.errors import OptionError
from lateral.network.schema import FloatArray, IntArray

#: The last duality gap, relative; of matrices, whose path is lost in rounding sooner, another one. It falls with the
#: residual, to this share of it, in a round to this share of what it was, at first; it rises by so much at once.
GAP_END, GAP_END_MATRIX, GAP_SHARE, GAP_FALL, GAP_RISE = 1e-8, 1e-7, 1e-2, 0.1, 3.0
#: Where rounds go on although copies are no further apart than this there, it falls to this. It is relative to what an
#: area pays with penalties, which of `loss` and `curtailment` is far more than the objective (1e4 times: `soc3`).
AGREED, GAP_LEAST = 1e-6, 1e-12
#: At another gap than the best point's, steps may be this many times as long as its for each tenth of it; or as long as
#: the gap times so much, but no longer than this (pu) where it fell, and than that where it rose.
WORSE, NOISE, FELL_MAX, ROSE_MAX = 3.0, 1e3, 0.02, 1e-4
#: Rounds without a residual half as large after which it is careful; and then, after which the gap does not rise.
STILL = 10
#: With care: the gap is so many times the square of the residual, at least; at another one than the best point's steps
#: may be so many times the root of the gap, and where they are more than so many times that, it goes on falling as
#: slowly as it did.
GAP_NEAR, INSIDE, WELL_INSIDE = 30.0, 2.0, 0.5
#: Rounds in a row with messages missing after which it goes over; in the first so many, where an area has no answer,
#: the point is left.
MISSED, NO_ANSWER = 10, 3
#: A slope in units in which it lies between -1 and 0, at most.
STEEPEST = 2.0
#: Steps of this length, and a lambda of this size, are rounding.
ROUNDING = 1e-10
#: lambda as a share of the steps' length: at first, at least and at most.
SHARE, SHARE_MIN, SHARE_MAX = 1.0, 1e-2, 1e2
#: What the share is multiplied by after a step that brought more than `GOOD` of what it promised, or less than `BAD`,
#: or nothing.
GOOD, BAD, LESS, MORE = 0.7, 0.3, 0.1, 3.0
#: Numbers of a state that say nothing of other problems, after areas were built again.
OF_ONE_PROBLEM = ("best_gap", "from", "promised", "near", "near_at", "careful", "over", "missed")
#: Where a state keeps slopes that were said in this round, those at the best point, that point's (z, y), and its steps.
NEW, LIN, FALL, BEST, STEPS = "new/", "lin/", "fall/", "best_point", "best_steps"


@final
@dataclass(frozen=True)
class Newton(Consensus):
    """Consensus by Newton's method.

    Attributes:
        penalty: rho, dimensionless, around 1 (`lateral.areas.algorithms.consensus.UNIT`).
        ratio_v: the penalty of v, as a share of that.
        ratio_unbalance: of a matrix of voltages, see `Consensus`.
        gap: duality gap of the areas' answers in the second round, relative, below 1.
        patience: rounds without a residual half as large after which it goes on as `admm`; 0 for never.

    Raises:
        OptionError: one that is not positive and finite, a gap of 1 and more, or a patience below 0.
    """

    penalty: float = 1.0
    ratio_v: float = 1.0
    ratio_unbalance: float = 1.0
    gap: float = 1e-2
    patience: int = 40
    name: ClassVar[str] = "newton"
    title: ClassVar[str] = "consensus on v, P and Q by Newton's method, from how the areas' answers move"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self.name, gap=self.gap)
        if self.gap >= 1.0:
            message = f"newton: gap = {self.gap!r} must be below 1"
            raise OptionError(message)
        if self.patience < 0:
            message = f"newton: patience = {self.patience!r} must be at least 0"
            raise OptionError(message)

    @property
    def _admm(self) -> Admm:
        """What it goes over to; a convex whole does not wander."""
        own = {x: getattr(self, x) for x in ("penalty", "ratio_v", "ratio_unbalance")}
        return Admm(**own, wander_rounds=0)

    def init(self, plan: Plan) -> State:
        """As in `Consensus`, at the first gap."""
        state = super().init(plan)
        first = {"gap": max(self.gap, _end(plan)), "share": SHARE, "fall": GAP_FALL}
        return dataclasses.replace(state, numbers={**state.numbers, **first})

    def asks(self, plan: Plan, state: State, area: str) -> dict[str, Any]:
        """The duality gap; an area that is told one says its slopes. None in the first round."""
        if "over" in state.numbers or not state.round:
            return {}
        return {"gap": state.numbers["gap"]}

    def step(
        self, plan: Plan, state: State, wave: Wave, answers: Mapping[str, Answer], delivered: Sequence[Message]
    ) -> State:
        """See `Algorithm.step`; the slopes that were said are kept until the round is closed."""
        if "over" in state.numbers:
            return self._admm.step(plan, state, wave, answers, delivered)
        local = dict(state.local)
        for area, answer in answers.items():
            said = answer.slopes
            if said is not None and self._fits(plan, state, area, said):
                local |= {f"{NEW}{LIN}{area}": said.lin, f"{NEW}{FALL}{area}": said.gap}
        numbers = {**state.numbers, "answers": float(len(answers))}
        return super().step(plan, dataclasses.replace(state, local=local, numbers=numbers), wave, answers, delivered)

    def renewed(self, state: State) -> State:
        """See `Algorithm.renewed`; by Newton's method again where it had gone over."""
        state = super().renewed(state)
        numbers = {key: x for key, x in state.numbers.items() if key not in OF_ONE_PROBLEM}
        local = {key: x for key, x in state.local.items() if key not in (BEST, STEPS)}
        first = {"gap": state.numbers.get("gap", self.gap), "share": SHARE, "fall": GAP_FALL}
        if "over" in state.numbers:
            first["went_over"] = state.numbers["over"]
        return dataclasses.replace(state, local=local, numbers={**numbers, **first})

    def terminate(self, plan: Plan, state: State, tolerance: float) -> bool:
        """Whether the areas agree, at the last gap."""
        if "over" in state.numbers:
            return super().terminate(plan, state, tolerance)
        return super().terminate(plan, state, tolerance) and state.numbers.get("used_gap", 1.0) <= _end(plan)

    def close(self, plan: Plan, state: State) -> State:
        """The next (z, y) and the next gap."""
        said = {key.removeprefix(NEW): x for key, x in state.local.items() if key.startswith(NEW)}
        state = dataclasses.replace(state, local={k: x for k, x in state.local.items() if not k.startswith(NEW)})
        came, gap = super().close(plan, state), state.numbers["gap"]
        came = dataclasses.replace(came, numbers={**came.numbers, "used_gap": gap if state.round else 0.0})
        if not plan.borders or not state.round:
            return came
        if state.missed:
            return self._missed(plan, came)
        came = dataclasses.replace(came, numbers={key: x for key, x in came.numbers.items() if key != "missed"})
        if came.residual <= 0.5 * came.numbers.get("near", np.inf):
            near = {"near": came.residual, "near_at": float(state.round)}
            came = dataclasses.replace(came, numbers={**came.numbers, **near})
        elif self.patience and state.round - came.numbers["near_at"] >= self.patience and came.residual > AGREED:
            return self._over(plan, came, anew=came.residual > FAR)
        begin = self._packed(plan, state, state.held, state.local)
        steps = self._packed(plan, state, came.held, came.local) - begin
        length, numbers, local = float(np.linalg.norm(steps)), dict(came.numbers), dict(came.local)
        best_gap = numbers.get("best_gap", gap)
        best = float(np.linalg.norm(local[STEPS])) if STEPS in local else np.inf
        inside, careful = float(np.sqrt(gap)), "careful" in numbers
        most = best
        if gap != best_gap:
            most = max(best, INSIDE * inside) if careful else _most(best, best_gap, gap)
        if length > max(most, ROUNDING):
            if gap < 0.9 * best_gap:  # it fell too far at once
                numbers["fall"] = float(np.sqrt(numbers["fall"]))
                gap = max(gap, numbers["fall"] * best_gap)
            if gap >= 0.7 * best_gap:
                numbers["share"] = min(numbers["share"] * MORE, SHARE_MAX)
                nearer = not careful or state.round - numbers["near_at"] < STILL
                gap = min(max(self.gap, _end(plan)), GAP_RISE * best_gap) if nearer else best_gap
        elif any(f"{LIN}{area}" not in said for area in plan.areas):
            # one that does not know its slopes at this gap may know them at another, and must come to the last
            numbers["gap"] = max(min(gap, _end(plan)), numbers["fall"] * gap, min(gap, self._goal(came)))
            return dataclasses.replace(came, numbers=numbers)
        else:
            if np.isfinite(best):
                numbers["share"] = self._share(numbers, length)
            if gap < best_gap and (not careful or length <= WELL_INSIDE * inside):
                numbers["fall"] = max(numbers["fall"] ** 2, GAP_FALL)
            local |= {**said, BEST: begin, STEPS: steps}
            best_gap = gap
            # areas that agree at the last gap, and go on, are not certified there
            last = _end(plan)
            on = gap < last or (gap <= last and came.residual <= AGREED)
            end = GAP_LEAST if on else last
            gap = max(end, numbers["fall"] * gap, min(gap, self._goal(came)))
        if not careful and state.round - numbers["near_at"] >= STILL and came.residual > AGREED and BEST in local:
            numbers |= {"careful": 1.0, "near_at": float(state.round), "fall": GAP_FALL}
            gap = min(max(self.gap, _end(plan)), max(gap, GAP_NEAR * numbers["near"] ** 2))
        return self._next(plan, dataclasses.replace(came, local=local, numbers=numbers), gap, best_gap)

    def _next(self, plan: Plan, state: State, gap: float, best_gap: float) -> State:
        """The state that asks for the next point, from the best one, at a gap."""
        local, numbers = state.local, dict(state.numbers)
        moves, falls = self._derivative(plan, state, local)
        aim = local[STEPS] + falls * np.log(gap / best_gap)
        far = float(np.linalg.norm(aim))
        damping = float(np.clip(numbers["share"] * far, ROUNDING, 1.0))
        try:
            d = np.linalg.solve(moves + damping * np.eye(len(aim)), aim)
        except np.linalg.LinAlgError:  # no slopes of areas that are convex
            return state
        if not np.all(np.isfinite(d)):
            return state
        promised = far - float(np.linalg.norm(aim - moves @ d))
        numbers |= {"gap": gap, "best_gap": best_gap, "from": far, "promised": promised}
        return self._unpacked(plan, dataclasses.replace(state, numbers=numbers), local[BEST] + d)

    @staticmethod
    def _goal(state: State) -> float:
        """The gap that goes with a residual."""
        share = GAP_NEAR * state.residual if "careful" in state.numbers else GAP_SHARE
        return share * state.residual

    def _missed(self, plan: Plan, state: State) -> State:
        """After a round in which messages were missing: on as `admm` where they are for long; from the best point with
        more lambda where an area has no answer; else as the round left it."""
        missed = state.numbers.get("missed", 0.0) + 1.0
        state = dataclasses.replace(state, numbers={**state.numbers, "missed": missed})
        if missed >= MISSED:
            over = self._over(plan, state, anew=False, back=False)
            return dataclasses.replace(over, numbers={**over.numbers, "over_missed": 1.0})
        if state.numbers["answers"] < len(plan.areas) and missed <= NO_ANSWER and BEST in state.local:
            numbers = {**state.numbers, "share": min(state.numbers["share"] * MORE**2, SHARE_MAX)}
            best_gap = numbers["best_gap"]
            return self._next(plan, dataclasses.replace(state, numbers=numbers), best_gap, best_gap)
        return state

    def _over(self, plan: Plan, state: State, *, anew: bool, back: bool = True) -> State:
        """The state in which `admm` goes on, without what only this one remembers: anew, or at the best point (back),
        or as it is."""
        if anew:  # where nothing fits prices are worth nothing
            begin = self._admm.init(plan)
            own = {"round", "wave", "heard", "residual", "residuals", "price_scale", "missed"}
            same = {name: getattr(state, name) for name in own}
            return dataclasses.replace(begin, **same, numbers={**begin.numbers, "over": state.round + 1.0})
        if back and BEST in state.local:
            state = self._unpacked(plan, state, state.local[BEST])
        kept = ("/", "short", "consensus", "since")
        numbers = {key: x for key, x in state.numbers.items() if any(word in key for word in kept)}
        local = {
            key: x for key, x in state.local.items() if not key.startswith((LIN, FALL)) and key not in (BEST, STEPS)
        }
        return dataclasses.replace(state, numbers={**numbers, "over": state.round + 1.0}, local=local, points=())

    def notes(self, state: State) -> tuple[str, ...]:
        """When the run went over."""
        over = state.numbers.get("over", state.numbers.get("went_over"))
        if over is None:
            return ()
        why = "messages were missing" if "over_missed" in state.numbers else "the residual did not come down"
        return (f"newton went over to admm after round {over:.0f}: {why}",)

    @staticmethod
    def _share(numbers: Mapping[str, float], length: float) -> float:
        """The share of lambda after a step, by how much of what it promised it brought."""
        gain = (numbers["from"] - length) / max(numbers["promised"], np.finfo(float).tiny)
        change = LESS if gain > GOOD else 1.0 if gain > BAD else MORE
        return float(np.clip(numbers["share"] * change, SHARE_MIN, SHARE_MAX))

    def _fits(self, plan: Plan, state: State, area: str, said: Slopes) -> bool:
        """Whether slopes are of an area's own borders, in order, and of a size that a convex area's can have."""
        at = self._cells(plan, said.borders)
        n = len(at)
        if list(said.borders) != _borders_of(plan, area) or said.lin.shape != (n, n) or said.gap.shape != (n, 1):
            return False
        root, counts = self._roots(plan, state)[at], self._counted(plan)[at]
        return bool(np.all(np.abs(root[:, None] * said.lin * (root / counts)) <= STEEPEST))

    def _cells(self, plan: Plan, borders: Sequence[str]) -> IntArray:
        """Places of what crosses some borders, in their order."""
        first, size = {}, 0
        for name in plan.borders:
            rows, steps = plan.shape(name)
            first[name] = np.arange(size, size + rows * steps * len(copies(plan.voltages)))
            size = first[name][-1] + 1
        found = [first[name] for name in borders if name in first]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def _roots(self, plan: Plan, state: State) -> FloatArray:
        """sqrt(rho) of what crosses, border by border, by quantity, conductor and step, shape (n,); rho as it stands in
        the areas' objectives, over the mean hours of a step."""
        parts = [
            np.broadcast_to(self.penalty_of(plan, state, name, x) * self.counts(plan, x), plan.shape(name)).reshape(-1)
            for name in plan.borders
            for x in copies(plan.voltages)
        ]
        return np.sqrt(np.concatenate(parts))

    def _counted(self, plan: Plan) -> FloatArray:
        """`Consensus.counts` of what crosses, in the order of `_roots`, shape (n,)."""
        parts = [
            np.broadcast_to(self.counts(plan, x), plan.shape(name)).reshape(-1)
            for name in plan.borders
            for x in copies(plan.voltages)
        ]
        return np.concatenate(parts)

    def _packed(self, plan: Plan, state: State, held: Borders, local: Mapping[str, FloatArray]) -> FloatArray:
        """z sqrt(rho) and y / sqrt(rho), y and rho as they count in the areas' objectives, both over the size of their
        product's unit, shape (2n,)."""
        z, y = [], []
        for name, border in plan.borders.items():
            mean = self.copy_of(plan, name, held[name], "")
            for x in copies(plan.voltages):
                z.append(mean[x].reshape(-1))
                y.append(local[f"{border.child}/{name}/{x}"].reshape(-1))
        root = self._roots(plan, state)
        y_root = self._counted(plan) / root
        return np.concatenate([np.concatenate(z) * root, np.concatenate(y) * y_root]) / self._unit(plan, state)

    def _unpacked(self, plan: Plan, state: State, vector: FloatArray) -> State:
        """The state at (z, y)."""
        held, local = {name: dict(values) for name, values in state.held.items()}, dict(state.local)
        root = self._roots(plan, state)
        z, y = np.split(vector * self._unit(plan, state), 2)
        z, y, at = z / root, y * root / self._counted(plan), 0
        for name, border in plan.borders.items():
            shape, mean = plan.shape(name), {}
            for x in copies(plan.voltages):
                own = slice(at, at + shape[0] * shape[1])
                mean[x] = z[own].reshape(shape)
                local[f"{border.child}/{name}/{x}"] = y[own].reshape(shape)
                at = own.stop
            held[name] |= of_conductors(mean, border.conductors)
        return dataclasses.replace(state, held=held, local=local)

    def _unit(self, plan: Plan, state: State) -> float:
        """Root of a price times the power base, which is what x times y of every quantity is in."""
        return float(np.sqrt(state.price_scale * plan.s_kva))

    def _derivative(self, plan: Plan, state: State, slopes: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """M, shape (2n, 2n), and the derivative of the steps by log(gap), shape (2n,)."""
        root, counts, unit = self._roots(plan, state), self._counted(plan), self._unit(plan, state)
        n = len(root)
        # of the child's copies, and of the parent's
        by, falls = {1.0: np.zeros((n, 2 * n)), -1.0: np.zeros((n, 2 * n))}, {1.0: np.zeros(n), -1.0: np.zeros(n)}
        for area in plan.areas:
            borders = _borders_of(plan, area)
            at = self._cells(plan, borders)
            signs = [1.0 if plan.borders[b].child == area else -1.0 for b in borders]
            sign = np.repeat(signs, [len(self._cells(plan, [b])) for b in borders])
            lin = root[at][:, None] * slopes[f"{LIN}{area}"] * (root[at] / counts[at])
            fall = root[at] * slopes[f"{FALL}{area}"].reshape(-1) / unit
            for side in by:
                own = sign == side
                by[side][np.ix_(at[own], at)] = -lin[own]
                by[side][np.ix_(at[own], n + at)] = lin[own] * sign
                falls[side][at[own]] = fall[own]
        moves = -0.5 * np.concatenate([by[1.0] + by[-1.0], by[1.0] - by[-1.0]])
        moves[np.arange(n), np.arange(n)] += 1.0
        return moves, 0.5 * np.concatenate([falls[1.0] + falls[-1.0], falls[1.0] - falls[-1.0]])


def _most(best: float, best_gap: float, gap: float) -> float:
    """Length up to which steps at another gap than the best point's are none that lead away."""
    explained = min(NOISE * gap, FELL_MAX if gap < best_gap else ROSE_MAX)
    tenths = abs(float(np.log10(gap / best_gap)))
    return float(max(best * WORSE**tenths, explained))


def _end(plan: Plan) -> float:
    """The last gap."""
    return GAP_END_MATRIX if "vv_re" in plan.voltages else GAP_END


def _borders_of(plan: Plan, area: str) -> list[str]:
    """The borders of an area, the one above first."""
    above = [plan.head[area].name] if area in plan.head else []
    return above + [b.name for b in plan.tails[area]]


__all__ = ["Newton"]
