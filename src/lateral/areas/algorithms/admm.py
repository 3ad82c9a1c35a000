"""ADMM: consensus by alternating directions (Boyd et al. 2011, section 7.1), with residual balancing.

Each side of a border has copies x of v, P and Q there; z is their mean, y a multiplier of each side::

    x    = argmin  f(x) + y (x - z) + rho/2 (x - z)^2         each area, all at once
    z    = (x_child + x_parent) / 2
    y   += rho (x - z)

y starts at the price of the source for P (minus that for the parent's copy), at zero for Q and v.

**What it gives.** For a convex model residuals fall to zero and the objective to the optimum for every penalty (Boyd et
al. 2011, appendix A), slowly; for the exact model there is no proof. Prices need not be known, nor be unique: it also
settles where an area's problem is a degenerate linear program.

**Balancing** (He, Yang and Wang 2000; Boyd et al. 2011, section 3.4.1), for P and Q at each border, with both residuals
relative (Wohlberg 2017): where one is more than ten times the other the penalty is doubled or halved. It ends after
``balance_rounds``: a penalty that changes for ever can cycle, one that stands still is covered by the proof. The
penalty of v stays: where voltages are worth nothing, its relative residuals mean nothing. Where borders say complex
voltages nothing is balanced: lighter penalties let the areas of a non-convex model wander (`ieee13`: to a residual of
4e-2 after 120 rounds, where 43 unbalanced ones end at 5e-8).

**Wandering.** Where borders say complex voltages the model may not be convex, and a penalty that is too light for it
lets the areas wander: where no limit keeps voltages, to half the nominal one and further. Every ``wander_rounds``
rounds the smallest residual since then is looked at. Where it is more than `FAR`, and more than `NEARER` of what it was
then, the penalty is made `HEAVIER` times as heavy and the run begins anew where it began; at most `MOST_HEAVIER` times,
so that in the end the penalty stands still. Much heavier ones than needed are slow, and by the last residual, which
goes up and down, what does not wander seems to (`ieee13` with decided taps, 2 steps: 8e-4 after 200 rounds at 1000
times the penalty; certified after 75).

**Drift.** Where an area is stiff in what the other one is indifferent to (a regulator at a border whose ratio holds for
the whole horizon ties the voltages of all steps), each keeps its copy, and the price between them grows by the penalty
times what they are apart, the same in every round; no mixture of such steps is shorter than one of them, so that the
acceleration finds nothing. Where borders say complex voltages and `DRIFT_ROUNDS` steps are next to the same, the
penalty of each quantity that is part of them, and of which only the prices move, is made `STIFFER` times as heavy, at
most `MOST_STIFFER` times: balancing (above) for what is seen to need it, and to one side only. Measured on `ieee13`,
`linearised`, one ratio for 2 and 4 steps: at `transformer.reg1` 136 and 203 rounds (383, and not in 600, without it),
in 3 areas 307 and 596 (438, and not in 600), at `line.632670` 137 and 312 (137, and not in 600).

**Acceleration** (Anderson 1965) of z and y of all borders together, in rounds in which every message arrived and no
penalty moved; it begins anew where the map's own residual doubles. Where it leads nowhere, and nothing else looks at
that, the run goes back to where it was nearest, and looks at fewer rounds (a random feeder, `linearised`, with a limit
that binds at a price of 2e4: for 200 rounds at a residual of 0.1, and 93 % off; certified after 53 without it). It
halves the rounds and more (168 to 26 to a gap of
1e-4 on `case33bw-areas`, 52 to 24 on `ieee123-t5`), and has no proof: ``depth=0`` is the method of the books. A border
of three conductors has 12 copies and as many multipliers a step, 15 where it has matrices: for them 10 rounds are few
(`ieee13`, 4 steps, 3 areas, no limits: a gap of 2e-5 after 200 rounds, certified after 149 with 30 and 128 with 40).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from lateral.areas.algorithms.anderson import anderson
from lateral.areas.algorithms.base import Borders, State, scale_of
from lateral.areas.algorithms.consensus import Consensus
from lateral.areas.plan import Plan
from lateral.areas.quantities import copies, of_conductors
from lateral.errors import OptionError
from lateral.network.schema import FloatArray

#: A residual that is more than this many times the other moves the penalty.
IMBALANCE = 10.0
#: By this factor.
FACTOR = 2.0
#: Acceleration begins anew where the map moves this many times as far as at best.
SAFEGUARD = 2.0
#: An accelerated step may be this many times as long as the plain one. Where prices drift (`sdp`) it has far to go: at
#: 1e3 IEEE 34 was not certified in 300 rounds, at 1e5 after 152.
LONGEST = 1e5
#: Where copies are far apart (`FAR`), and in so many rounds no step was down to this share of the shortest one before,
#: the run goes back to that one, and the acceleration looks at fewer rounds: at the next of these depths, in the end at
#: none.
STILL, NEARER_STEP, SHALLOWER = 40, 0.5, (5, 0)
#: Prices drift where so many steps in a row are within this share of their mean; the penalties of what moves in prices
#: alone (by this many times as much as in copies), and is this share of the step, squared, are multiplied by so much,
#: each at most so many times.
DRIFT_ROUNDS, SAME_STEP, ONE_SIDED, PART, STIFFER, MOST_STIFFER = 10, 0.3, 5.0, 0.2, 3.0, 3
#: Copies wander where the residual is more than this (pu, or on the power base), and never was down to this share of
#: what it was when it was looked at last.
FAR, NEARER = 0.02, 0.2
#: Then the penalty is multiplied by this, at most so many times.
HEAVIER, MOST_HEAVIER = 10.0, 3
#: Where a state keeps the multipliers that the run began with.
BEGIN = "begin/"
#: Where it keeps what came of the shortest step so far, as one vector.
LOWEST = "lowest"


@final
@dataclass(frozen=True)
class Admm(Consensus):
    """Consensus ADMM.

    Attributes:
        penalty: rho to begin with, dimensionless, around 1 (`lateral.areas.algorithms.consensus.UNIT`).
        ratio_v: the penalty of v, as a share of that.
        ratio_unbalance: of a matrix of voltages, see `Consensus`; 25 where it is of rank one.
        balance_rounds: rounds in which residuals are balanced; 0 for never.
        depth: number of earlier rounds that the acceleration looks at; 0 for none.
        wander_rounds: with complex voltages, rounds after which copies that do not come nearer begin anew at a heavier
            penalty; 0 for never.

    Raises:
        OptionError: a penalty that is not positive and finite, or a negative number.
    """

    penalty: float = 1.0
    ratio_v: float = 1.0
    ratio_unbalance: float = 1.0
    balance_rounds: int = 10
    depth: int = 30
    wander_rounds: int = 10
    name: ClassVar[str] = "admm"
    title: ClassVar[str] = "consensus on v, P and Q by alternating directions, with residual balancing"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("balance_rounds", "depth", "wander_rounds"):
            if getattr(self, name) < 0:
                message = f"admm: {name} = {getattr(self, name)!r} must be at least 0"
                raise OptionError(message)

    def close(self, plan: Plan, state: State) -> State:
        """Means and multipliers, accelerated where the round is a sample of the map; or the run anew."""
        if not self._wanders(plan):
            return self._closed(plan, state)
        if not state.history:  # the first round of this run
            local = {**state.local, **{BEGIN + key: y for key, y in state.local.items()}}
            numbers = {**state.numbers, "look": float(state.round + self.wander_rounds)}
            state = dataclasses.replace(state, history=(state.held,), local=local, numbers=numbers)
        came = self._closed(plan, state)
        nearest = min(came.numbers.get("nearest", came.residual), came.residual)
        numbers = {**came.numbers, "mark": came.numbers.get("mark", came.residual), "nearest": nearest}
        numbers.setdefault("look", float(state.round + self.wander_rounds))  # areas were built again
        if state.round < numbers["look"]:
            return dataclasses.replace(came, numbers=numbers)
        wander = nearest > max(FAR, NEARER * numbers["mark"])
        numbers |= {"look": numbers["look"] + self.wander_rounds, "mark": nearest}
        del numbers["nearest"]
        heard = [state.heard.get(f"{a}/{name}", 0) for name, b in plan.borders.items() for a in (b.parent, b.child)]
        lately = all(number > state.round - self.wander_rounds for number in heard)
        if wander and lately and numbers.get("heavier", 0.0) < MOST_HEAVIER:
            return self._anew(plan, dataclasses.replace(came, numbers=numbers))
        return dataclasses.replace(came, numbers=numbers)

    def _wanders(self, plan: Plan) -> bool:
        """Whether it is looked at whether copies wander."""
        return bool(self.wander_rounds) and plan.voltages == ("v_re", "v_im")

    def _anew(self, plan: Plan, state: State) -> State:
        """The state in which the run began, with heavier penalties."""
        numbers = {k: v for k, v in state.numbers.items() if k not in ("best", "mark", "nearest")}
        for name in plan.borders:
            for x in copies(plan.voltages):
                numbers[f"{name}/{x}"] *= HEAVIER
        numbers |= {"heavier": numbers.get("heavier", 0.0) + 1.0, "anew": state.round + 1.0}
        local = {k: state.local.get(BEGIN + k, y) for k, y in state.local.items()}
        held = state.history[0]
        return dataclasses.replace(state, held=held, said=held, local=local, points=(), numbers=numbers)

    def notes(self, state: State) -> tuple[str, ...]:
        """That the penalty was made heavier."""
        times = int(state.numbers.get("heavier", 0.0))
        if not times:
            return ()
        found = (
            f"admm began anew after round {state.numbers['anew']:.0f} with penalties {HEAVIER**times:.0f} times as "
            "heavy: the copies did not come nearer"
        )
        return (found,)

    def _closed(self, plan: Plan, state: State) -> State:
        """The round as it is."""
        came = super().close(plan, state)
        still = all(
            came.numbers[f"{b}/{x}"] == state.numbers[f"{b}/{x}"] for b in plan.borders for x in copies(plan.voltages)
        )
        depth = int(came.numbers.get("depth", self.depth))
        if not depth:
            return came
        if state.missed or not still:
            # a step that was lost is no sample; other penalties are another map, and another norm
            old = ("best",) if still else ("best", "low", "low_at")
            numbers = {k: v for k, v in came.numbers.items() if k not in old}
            return dataclasses.replace(came, points=(), numbers=numbers)
        begin = self._packed(plan, state, state.held, state.local)
        step = self._packed(plan, state, came.held, came.local) - begin
        size = float(np.linalg.norm(step))
        best = came.numbers.get("best", np.inf)
        points = (*state.points, (begin, step))[-(depth + 1) :]
        if size > SAFEGUARD * best:
            points, best = points[-1:], size
        numbers, local = {**came.numbers, "best": min(best, size)}, came.local
        if size < NEARER_STEP * numbers.get("low", np.inf):
            numbers |= {"low": size, "low_at": float(state.round)}
            local = {**local, LOWEST: begin + step}
        elif state.round - numbers["low_at"] >= STILL and came.residual > FAR and not self._wanders(plan):
            # an acceleration that leads nowhere; without it the map of a convex program comes nearer in every round
            shallower = next((d for d in SHALLOWER if d < depth), 0)
            numbers |= {"low_at": float(state.round), "depth": float(shallower)}
            del numbers["best"]
            back = dataclasses.replace(came, points=(), numbers=numbers)
            return self._unpacked(plan, back, local[LOWEST])
        drifting = self._drifting(plan, points, numbers)
        if drifting:
            for key in drifting:
                numbers |= {key: STIFFER * numbers[key], f"{key}/stiffer": numbers.get(f"{key}/stiffer", 0.0) + 1.0}
            numbers = {k: v for k, v in numbers.items() if k not in ("best", "low", "low_at")}
            return dataclasses.replace(came, points=(), numbers=numbers, local=local)
        came = dataclasses.replace(came, points=points, numbers=numbers, local=local)
        if len(points) < 2:
            return came
        mixed = anderson(points, 1.0)
        if not float(np.linalg.norm(mixed - begin)) <= LONGEST * size:
            return came
        return self._unpacked(plan, came, mixed)

    def _drifting(
        self, plan: Plan, points: Sequence[tuple[FloatArray, FloatArray]], numbers: Mapping[str, float]
    ) -> list[str]:
        """The penalties, as ``border/x``, of what drifts: see the module's text."""
        if plan.voltages != ("v_re", "v_im"):  # of matrices it makes more rounds (`sdp`, IEEE 37: 247 for 139)
            return []
        steps = np.array([step for _, step in points[-DRIFT_ROUNDS:]])
        mean = steps.mean(axis=0)
        size = float(np.linalg.norm(mean))
        if len(steps) < DRIFT_ROUNDS or np.linalg.norm(steps - mean, axis=1).max() > SAME_STEP * size:
            return []
        found, at = [], 0
        for name in plan.borders:
            rows, columns = plan.shape(name)
            n = rows * columns
            for x in copies(plan.voltages):
                copy, price = (float(np.linalg.norm(part)) for part in (mean[at : at + n], mean[at + n : at + 2 * n]))
                at += 2 * n
                often = numbers.get(f"{name}/{x}/stiffer", 0.0)
                if price > ONE_SIDED * copy and price**2 > PART * size**2 and often < MOST_STIFFER:
                    found.append(f"{name}/{x}")
        return found

    def _weights(self, plan: Plan, state: State, border: str, x: str) -> tuple[FloatArray, FloatArray]:
        """What z and y are multiplied by, so that both count in the norm in which the method contracts."""
        root, counts = np.sqrt(self.penalty_of(plan, state, border, x)), np.sqrt(self.counts(plan, x))
        size = float(np.sqrt(scale_of(plan, x, state.price_scale) * scale_of(plan, f"price_{x}", state.price_scale)))
        return root * counts / size, counts / (root * size)

    def _packed(self, plan: Plan, state: State, held: Borders, local: Mapping[str, FloatArray]) -> FloatArray:
        parts = []
        for name, border in plan.borders.items():
            mean = self.copy_of(plan, name, held[name], "")
            for x in copies(plan.voltages):
                z, y = self._weights(plan, state, name, x)
                parts += [(z * mean[x]).reshape(-1), (y * local[f"{border.child}/{name}/{x}"]).reshape(-1)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _unpacked(self, plan: Plan, state: State, vector: FloatArray) -> State:
        held, local = {name: dict(values) for name, values in state.held.items()}, dict(state.local)
        at = 0
        for name, border in plan.borders.items():
            shape = plan.shape(name)
            size = shape[0] * shape[1]
            mean = {}
            for x in copies(plan.voltages):
                z, y = self._weights(plan, state, name, x)
                mean[x] = vector[at : at + size].reshape(shape) / z
                local[f"{border.child}/{name}/{x}"] = vector[at + size : at + 2 * size].reshape(shape) / y
                at += 2 * size
            held[name] |= of_conductors(mean, border.conductors)
        return dataclasses.replace(state, held=held, local=local)

    def balance_of(self, state: State, primal: float, dual: float) -> float:
        """Doubled where the copies are far apart, halved where the prices move much."""
        if state.round >= self.balance_rounds:
            return 1.0
        if primal > IMBALANCE * dual:
            return FACTOR
        return 1.0 / FACTOR if dual > IMBALANCE * primal else 1.0


__all__ = ["FACTOR", "IMBALANCE", "Admm"]
