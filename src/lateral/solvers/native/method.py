"""The method: a primal-dual interior point with Mehrotra's predictor and corrector, and the exact Hessian.

    minimise f(x)   subject to   r(x) = 0  (equalities, ranges with slack, products with slack),   bounds

Each part stands by itself: `start` (where to begin), `Rows` (residuals), `_factored` (curvature),
`_predict_and_correct`, `_direction` (one solve of the linear system), `_advance` (along it), `_damped` (where that goes
in circles), `_is_small` (stopping).
Numbers are in solver scale, but feasibility is judged in per unit.

Mehrotra (1992); second-order corrections of the products are exact, as they are quadratic. No filter, as full steps are
the fastest where they end well; an iterate that circles takes shorter ones (`_damped`). A point that is not a solution
in the end is handed on as what it is, and the caller's residuals decide (`lateral.results.residuals`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from lateral.network.schema import FloatArray
from lateral.solvers.native import kernels, start
from lateral.solvers.native.assembly import Point
from lateral.solvers.native.barrier import Barrier, Kinds, Multipliers
from lateral.solvers.native.iterate import Iterate, Outcome
from lateral.solvers.native.kkt import Kkt
from lateral.solvers.native.order import Order
from lateral.solvers.native.rows import Evaluation, Residuals, Room, Rows, Values
from lateral.solvers.native.steps import StepProgram
from lateral.solvers.native.threads import Share

#: Feasibility, pu; stationarity, in solver scale.
PRIMAL, DUAL = 1e-9, 1e-7
#: Diagonal that holds a fixed variable or slack.
FIXED = 1e12
#: What is added to the diagonal first where curvature is negative, and how often more is.
LIFT, MOST_LIFTS = 1e-8, 8
#: Relative tolerance of the conjugate gradients of the predictor and of the corrector. What the corrector leaves of the
#: storage rows, the next step sees; tighter ones (1e-8) take a half more products and save no step.
PREDICT, CORRECT = 1e-3, 1e-6
#: Complementarity, of the one to be reached, from which a step needs no prediction, and what it then aims at.
NEAR, LAST = 2.0, 0.2
#: A slack whose ``s / w`` is above this is far from its bound, in solver scale.
FAR = 1e4
#: Later solves start from the last iterate whose complementarity, relative to the objective, is above this.
WARM_GAP = 5e-6
#: Products of distance and multiplier at an earlier iterate are brought to so many times their mean where its rows are
#: violated by this much, pu: other bounds may bind now, and small products hold the first steps back.
RECENTRE, MUCH = 3.0, 1e-4
#: An iterate whose complementarity is small circles where its residuals have not fallen below this share of the
#: smallest for so many steps (a voltage near the edge of a load's band: the corner of its law); shares of a step tried.
NEARER, CIRCLING, HALVES = 0.9, 6, 6
#: So many times what residuals may be worth is enough where they do not fall any more: multipliers of what hardly costs
#: anything are rounding, times currents far above their scale. At the tolerance that is the default it is a fifth of
#: what a result allows; at half of that the objective was seen 3e-7 from the optimum.
AT_REST = 2.0
#: What is then added to the diagonal where the gradient is small and rows are not: an objective such as `curtailment`
#: gives most variables no curvature, those of barriers are rounding by then, and steps along them are as long as
#: rounding makes them. The nearest point on the tangent of the rows is taken instead: Newton's method for the rows,
#: quadratic, at a price of this times the step, which the gradient shows (a proximal term, Rockafellar 1976).
NEAR_POINT = 1e-6
#: Rows that one thread sums at once.
ROWS = 1000
#: A run of this many steps shorter than this is no progress.
SHORT_STEPS, SHORT = 8, 1e-3


#: dx, ds, dy, d eta, and the steps of the multipliers of the bounds.
Step = tuple[FloatArray, FloatArray, FloatArray, FloatArray, Multipliers]


class Method:
    """One program's method; holds the factored matrix and the arrays of the present numbers."""

    def __init__(self, steps: StepProgram, order: Order, *, threads: int = 1) -> None:
        self.steps, self.order = steps, order
        self.kkt = Kkt(steps, order, threads=threads)
        self.rows = Rows(steps, self.kkt)
        self._room = Room()
        self._take()

    def load(self) -> None:
        """The numbers of the steps, after `StepProgram.load`."""
        self.kkt.load()
        self.rows.load()
        self._room.clear()  # what is zero where there is no bound: there may be others now
        self._take()

    def _take(self) -> None:
        self.bounds = b = start.Bounds.of(self.steps)
        self.barrier = Barrier((b.low, b.s_low), (b.high, b.s_high), self.kkt.threads)
        self.n_bounds = self.barrier.count
        self._fixed, self._s_fixed = b.fixed, b.s_fixed
        self._s_value = self.steps.data["g_low"][self._s_fixed]

    # -- one iteration ------------------------------------------------------------------------------------------------

    def _right(self, r: Residuals, slack: FloatArray, centre: Kinds, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The right-hand side of a direction, and ``r_s``: what is left of the dual residual of rows with a slack."""
        k = self.kkt
        right, r_s = self._room.empty("right", (k.n, self.steps.n_steps)), self._room.empty("r_s", slack.shape)

        def own(mine: Share) -> None:
            spans = (mine.of(size) for size in (k.nv, k.n_rows, len(rows)))
            kernels.right_side(right, r_s, r.equal, r.dual_x, r.dual_s, *centre, rows, slack, self.rows.sign, *spans)

        k.threads.shares(own)
        return right, r_s

    def _direction(
        self,
        of: tuple[FloatArray, FloatArray],
        r: Residuals,
        slack: FloatArray,
        rows: FloatArray,
        values: Values,
        tolerance: float,
        *,
        first: bool,
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, bool]:
        """dx, ds, dy, d eta of one right-hand side (`_right`).

        With ``D_s = 1 / slack`` and the sign c of a slack in its row::

            ds = (r_s - c dy) / D_s,      J dx - dy / D_s = -rows - c r_s / D_s

        Args:
            first: whether `Kkt.factor` was given it.
        """
        k, (right, r_s) = self.kkt, of
        ds = self._room.empty("ds", slack.shape)
        solution, eta, positive = k.solve(right, -r.links, tolerance=tolerance, first=first)
        dx, dy = solution[: k.nv], solution[k.nv :]
        # what is fixed stays: a diagonal alone lets it go, by the change of its rows' multipliers over the diagonal
        dx[self._fixed] = 0.0

        # where a slack is far from its bound, its multiplier is rounding: there the row says what it becomes
        of_slacks = partial(self.rows.slack_steps, ds, r_s, slack, dy[k.n_rows :], FAR, rows, values, dx)
        k.threads.shares(of_slacks)
        ds[self._s_fixed] = 0.0
        return dx, ds, dy, eta, positive

    def solve(
        self,
        *,
        gap: float,
        max_iterations: int,
        earlier: Iterate | None = None,
        flow: bool = False,
        give_up: Callable[[], bool] = lambda: False,
        verbose: Callable[[str], None] | None = None,
    ) -> tuple[Iterate, Outcome, Iterate | None]:
        """Iterate until the residuals and the complementarity are small.

        Returns:
            the last iterate; how it ended; and the one on the way whose complementarity was about `WARM_GAP`, from
            which a problem with slightly other numbers can start.

        Args:
            gap: complementarity, relative to the objective.
            max_iterations: Newton steps.
            earlier: where to begin, changed in place; absent: the power flow.
            flow: whether an earlier iterate is brought to the power flow, see `start.moved`.
            give_up: asked before each iteration (time, interrupt).
            verbose: takes a line per iteration.
        """
        k = self.kkt
        k.iterations = 0
        if earlier is None:
            it = start.cold(self.rows, self.order, self.bounds, self.n_bounds)
        else:
            it = start.moved(self.rows, self.order, self.bounds, earlier, flow=flow)
            if self.rows.residuals(it, self.rows.at(it.x)).primal > MUCH:
                self._recentre(it)
        log: list[str] = []
        short = 0
        count = max(self.n_bounds, 1)
        diagonal, pull = self._both("diagonal", it, zero=True), self._both("pull", it, zero=True)
        slack = self._room.zeros("slack", it.s.shape)
        now = self.rows.at(it.x)
        word, number = "limit", 0
        extra = 0.0
        nearest, since = np.inf, 0
        way: Iterate | None = None
        for number in range(max_iterations + 1):
            r = self.rows.residuals(it, now)
            mu, value = self.barrier.diagonal(it.primal, it.dual, diagonal, pull) / count, now.objective
            worth = max(abs(value), self.steps.floor, 1e-6)
            target = gap * worth / count
            line = f"{number:3d}  f {value:.10e}  primal {r.primal:.1e}  dual {r.dual:.1e}  mu {mu:.1e}"
            line += f"  inner {k.iterations}"
            log.append(line)
            if verbose is not None:
                verbose(line)
            if way is None or 1.0 < mu * count / (WARM_GAP * worth) < 20.0:  # earlier ones are as good as none
                way = it.empty() if way is None else way
                k.threads.shares(partial(way.take, it))
            if not np.isfinite(value) or not np.isfinite(r.primal) or not np.isfinite(r.dual):
                word = "broken"
                break
            since = since + 1 if r.primal + r.dual > NEARER * nearest else 0
            nearest = min(nearest, r.primal + r.dual)
            enough = gap * worth * (AT_REST if since >= CIRCLING else 1.0)
            if r.primal < PRIMAL and mu <= 1.01 * target and self._is_small(r, it, enough):
                word = "solved"
                break
            if short >= SHORT_STEPS:
                word = "stalled"
                break
            if number == max_iterations or give_up():
                break
            diagonal[0][self._fixed], diagonal[1][self._s_fixed] = FIXED, FIXED
            k.threads.shares(lambda mine: self.rows.slack_diagonal(slack, diagonal[1], mine))
            point = start.newton_point(self.rows, it.x, now.values, it.y, diagonal[0], slack)
            circles = since >= CIRCLING and mu < NEAR * target and (r.primal > PRIMAL or r.dual > DUAL)
            near = NEAR_POINT if circles and r.dual <= DUAL else 0.0
            found, extra = self._newton(it, r, now.values, point, slack, mu, target, extra, near)
            if found is None:
                word = "broken"
                break
            step, primal, dual = found
            if not self.rows.are_numbers(step[0], step[2]):
                word = "broken"
                break
            if circles:
                primal, dual = self._damped(it, step, primal, dual, r.primal + r.dual)
            self._advance(it, step, primal, dual)
            now = self.rows.at(it.x)
            self._reset_slacks(it, now)
            short = short + 1 if max(primal, dual) < SHORT else 0
        return it, Outcome(word, number, k.iterations, self.rows.reduced_cost(it, r), tuple(log)), way

    def _is_small(self, r: Residuals, it: Iterate, worth: float) -> bool:
        """Whether what is left of the gradient is small, and what it and the rows could be worth small against the
        gap."""
        if not r.dual < DUAL:
            return False
        y, others = np.split(it.y, [len(r.equal)])
        # of the gradient, times what it is the gradient of, and of rows, at their prices
        parts = [(r.dual_x, it.x, 1.0), (r.dual_s, it.s, 1.0), (r.equal, y, 0.0), (r.rows, others, 0.0)]
        parts.append((r.links, it.eta, 0.0))
        jobs = [
            (*part, first, min(first + ROWS, len(part[0]))) for part in parts for first in range(0, len(part[0]), ROWS)
        ]
        return bool(sum(self.kkt.threads.some(kernels.at_stake, jobs)) < 10.0 * worth)

    def _damped(self, it: Iterate, found: Step, primal: float, dual: float, size: float) -> tuple[float, float]:
        """Steps of an iterate that circles: the longest of some shares whose residuals are smaller than before, or that
        with the smallest."""
        best = np.inf, primal, dual
        for k in range(HALVES):
            share = 0.5**k
            trial = it.copy()
            self._advance(trial, found, share * primal, share * dual)
            now = self.rows.at(trial.x)
            self._reset_slacks(trial, now)
            r = self.rows.residuals(trial, now)
            best = min(best, (r.primal + r.dual, share * primal, share * dual))
            if best[0] < NEARER * size:
                break
        return best[1:]

    def _advance(self, it: Iterate, found: Step, primal: float, dual: float) -> None:
        """Go along the step."""
        dx, ds, dy, eta, dz = found
        parts = [(it.x, dx, primal), (it.s, ds, primal), (it.y, dy, dual), (it.eta, eta, dual)]

        def own(mine: Share) -> None:
            for part in parts:
                kernels.advance(*part, *mine.of(len(part[0])))
            self.barrier.advance(it.dual, dz, dual, mine)

        self.kkt.threads.shares(own)

    def _both(self, name: str, it: Iterate, *, zero: bool = False) -> Kinds:
        """Room for something of variables and of slacks; what is in it stays, or zeros."""
        if zero:
            return self._room.zeros(name, it.x.shape), self._room.zeros(f"{name} of slacks", it.s.shape)
        return self._room.empty(name, it.x.shape), self._room.empty(f"{name} of slacks", it.s.shape)

    def _recentre(self, it: Iterate) -> None:
        """Bring products of distance and multiplier that are small back to a few times their mean."""
        total = self.barrier.diagonal(it.primal, it.dual, self._both("diagonal", it), self._both("pull", it))
        self.barrier.recentre(it.primal, it.dual, RECENTRE * total / max(self.n_bounds, 1))

    def _reset_slacks(self, it: Iterate, now: Evaluation) -> None:
        """Give every slack what its row really has, where that is further from its bound, or about as far from one that
        does not hold it: it costs nothing, and the row holds (Nocedal and Wright 2006, section 19.3)."""
        b, w = self.bounds, it.dual[1]
        self.kkt.threads.shares(lambda mine: self.rows.reset_slacks(it.s, b.s_low, b.s_high, w, now.rows, mine))
        it.s[self._s_fixed] = self._s_value

    def _newton(
        self,
        it: Iterate,
        r: Residuals,
        values: Values,
        point: Point,
        slack: FloatArray,
        mu: float,
        target: float,
        extra: float,
        least: float,
    ) -> tuple[tuple[Step, float, float] | None, float]:
        """The step of one iteration and how far to go, None where nothing helps, and what was added to the diagonal for
        it, at least ``least``.

        Curvature is seen twice: within a step by the signs of the pivots, across steps by the conjugate gradients.
        """
        for _ in range(MOST_LIFTS):
            sigma = None if mu > NEAR * target else min(1.0, LAST * target / mu) if mu > 0.0 else 1.0
            if sigma is None:
                centre = self._both("pull", it)
            else:
                centre = self._centred(it, it.primal, 0.0, sigma, mu)
            right = self._right(r, slack, centre, r.rows)
            extra = self._factored(point, right[0], extra, least)
            if not np.isfinite(extra):
                break
            found = self._predict_and_correct(it, r, right, values, slack, mu, target, sigma)
            if found is not None:
                return found, extra
            least = max(LIFT, 10.0 * extra)
        return None, extra

    def _factored(self, point: Point, right: FloatArray, extra: float, least: float) -> float:
        """Factor with as much added to the diagonal as curvature asks for, and at least so much.

        Args:
            right: what is solved for first.

        Returns:
            what was added; inf when nothing helps.
        """
        k = self.kkt
        trial = least
        for attempt in range(12):
            fine = k.factor(point, extra=trial, links=True, right=right)
            if fine and k.n_links:
                fine = k.prepare_links()
            if fine:
                return trial
            trial = max(LIFT, extra / 3.0, 10.0 * trial) if attempt == 0 else 10.0 * trial
        return float("inf")

    def _centred(self, it: Iterate, step: Kinds, omega: float, sigma: float, mu: float) -> Kinds:
        """What a complementarity of ``sigma mu`` adds to the dual residual, with the second-order terms of a step."""
        centre = self._both("centre", it)
        self.barrier.centre(it.primal, it.dual, step, omega, 10.0 * mu, sigma * mu, self._dz(it), centre)
        return centre

    def _dz(self, it: Iterate) -> Multipliers:
        """Room for the steps of the multipliers; where there is no bound, they stay zero."""
        low, high = self._both("dz low", it), self._both("dz high", it)
        return (low[0], high[0]), (low[1], high[1])

    def _predict_and_correct(
        self,
        it: Iterate,
        r: Residuals,
        right: tuple[FloatArray, FloatArray],
        values: Values,
        slack: FloatArray,
        mu: float,
        target: float,
        sigma: float | None,
    ) -> tuple[Step, float, float] | None:
        """Mehrotra's two solves with one factorisation, and the largest steps; None where the storage rows have
        negative curvature.

        Args:
            right: of the predictor, or of the corrector where there is none.
            sigma: the part of the complementarity that the corrector aims at; None: a predictor is to say it.
        """
        at, z = it.primal, it.dual
        rows, predicted = r.rows, sigma is None
        if sigma is None:
            dx, ds, dy, eta, positive = self._direction(right, r, slack, rows, values, PREDICT, first=True)
            if not positive:
                return None
            found = self.barrier.affine(at, z, (dx, ds))
            affine = found.after / max(self.n_bounds, 1)
            sigma = min(1.0, max((affine / mu) ** 3, 1e-3, 0.2 * target / mu))
            omega = (1.0 - sigma) ** 2
            # exact of products and quadratic rows; curves are left to first order
            rows = self.rows.with_second_order(rows, dx, omega * found.primal**2)
            right = self._right(r, slack, self._centred(it, (dx, ds), omega, sigma, mu), rows)
        dx, ds, dy, eta, positive = self._direction(right, r, slack, rows, values, CORRECT, first=not predicted)
        if not positive:
            return None
        dz, tau = self._dz(it), min(max(0.95, 1.0 - 10.0 * mu), 0.9995)
        primal, dual = self.barrier.dual_step(at, z, (dx, ds), sigma * mu, tau, dz)
        return (dx, ds, dy, eta, dz), primal, dual


__all__ = ["Method"]
