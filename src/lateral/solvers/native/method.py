"""The method: a primal-dual interior point with Mehrotra's predictor and corrector, and the exact Hessian.

    minimise f(x)   subject to   r(x) = 0  (equalities, ranges with slack, products with slack),   bounds

Each part stands by itself: `start` (where to begin), `Rows` (residuals), `_factored` (curvature),
`_predict_and_correct`, `_direction` (one solve of the linear system), `_steps` (how far), `_is_small` (stopping).
Numbers are in solver scale, but feasibility is judged in per unit.

Mehrotra (1992); second-order corrections of the products are exact, as they are quadratic. No filter: a point that is
not a solution in the end is handed on as what it is, and the caller's residuals decide (`lateral.results.residuals`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lateral.network.schema import FloatArray
from lateral.solvers.native import kernels, start
from lateral.solvers.native.assembly import Point
from lateral.solvers.native.barrier import Barrier, Pair
from lateral.solvers.native.iterate import Iterate, Outcome
from lateral.solvers.native.kkt import Kkt
from lateral.solvers.native.order import Order
from lateral.solvers.native.rows import Evaluation, Residuals, Room, Rows, Values
from lateral.solvers.native.steps import StepProgram
from lateral.solvers.native.threads import Share

#: Feasibility, pu; stationarity, in solver scale.
PRIMAL, DUAL = 1e-9, 1e-7
#: Diagonal that holds a fixed variable.
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
#: A run of this many steps shorter than this is no progress.
SHORT_STEPS, SHORT = 8, 1e-3


#: dx, ds, dy, d eta, and the steps of the multipliers of the bounds of x and of s.
Step = tuple[FloatArray, FloatArray, FloatArray, FloatArray, Pair, Pair]


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
        self.of_x = Barrier(b.low, b.high, self.kkt.threads)
        self.of_s = Barrier(b.s_low, b.s_high, self.kkt.threads)
        self.n_bounds = self.of_x.count + self.of_s.count
        self._fixed = np.flatnonzero(b.fixed)

    # -- one iteration ------------------------------------------------------------------------------------------------

    def _direction(
        self,
        it: Iterate,
        r: Residuals,
        slack: FloatArray,
        centre_x: FloatArray,
        centre_s: FloatArray,
        rows: FloatArray,
        values: Values,
        tolerance: float,
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, bool]:
        """dx, ds, dy, d eta of one right-hand side.

        With ``D_s = 1 / slack`` and the sign c of a slack in its row::

            ds = (r_s - c dy) / D_s,      J dx - dy / D_s = -rows - c r_s / D_s
        """
        k = self.kkt
        right = self._room.empty("right", (k.n, self.steps.n_steps))
        r_s, ds = (self._room.empty(name, it.s.shape) for name in ("r_s", "ds"))
        sign = self.rows.sign

        def before(mine: Share) -> None:
            kernels.right_side(right[: k.nv], centre_x, r.dual_x, *mine.of(k.nv))
            kernels.times(right[k.nv : k.g_first], r.equal, -1.0, *mine.of(k.n_rows))
            kernels.slack_side(right[k.g_first :], rows, sign, r.dual_s, centre_s, slack, r_s, *mine.of(len(ds)))

        k.threads.shares(before)
        solution, eta, positive = k.solve(right, -r.links, tolerance=tolerance)
        dx, dy = solution[: k.nv], solution[k.nv :]
        most = k.threads.rows(kernels.slack_step, len(ds), ds, r_s, sign, dy[k.n_rows :], slack)
        # where a slack is far from its bound, its multiplier is rounding: there the row itself says what it becomes
        if max(most) > FAR:
            self.rows.far_steps(ds, FAR, slack, rows, values, dx)
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
        diagonal_x, diagonal_s, slack = (
            self._room.zeros(name, like.shape)
            for name, like in (("diagonal", it.x), ("diagonal of slacks", it.s), ("slack", it.s))
        )
        now = self.rows.at(it.x)
        word, number = "limit", 0
        extra = 0.0
        way: Iterate | None = None
        for number in range(max_iterations + 1):
            r = self.rows.residuals(it, now)
            total = self.of_x.diagonal(it.x, it.z, diagonal_x) + self.of_s.diagonal(it.s, it.w, diagonal_s)
            mu, value = total / count, now.objective
            worth = max(abs(value), self.steps.floor, 1e-6)
            target = gap * worth / count
            line = f"{number:3d}  f {value:.10e}  primal {r.primal:.1e}  dual {r.dual:.1e}  mu {mu:.1e}"
            line += f"  inner {k.iterations}"
            log.append(line)
            if verbose is not None:
                verbose(line)
            if way is None or 1.0 < mu * count / (WARM_GAP * worth) < 20.0:  # earlier ones are as good as none
                way = it.copy() if way is None else way.take(it)
            if not np.isfinite(value) or not np.isfinite(r.primal) or not np.isfinite(r.dual):
                word = "broken"
                break
            if r.primal < PRIMAL and mu <= 1.01 * target and _is_small(r, it, gap * worth):
                word = "solved"
                break
            if short >= SHORT_STEPS:
                word = "stalled"
                break
            if number == max_iterations or give_up():
                break
            diagonal_x.reshape(-1)[self._fixed] = FIXED
            k.threads.rows(kernels.slack_diagonal, len(slack), slack, self.rows.sign, diagonal_s)
            point = start.newton_point(self.rows, it.x, now.values, it.y, diagonal_x, slack)
            found, extra = self._newton(it, r, now.values, point, slack, mu, target, extra)
            if found is None:
                word = "broken"
                break
            dx, ds, dy, _, dz, dw = found
            if not self.rows.are_numbers(dx, dy):
                word = "broken"
                break
            tau = min(max(0.95, 1.0 - 10.0 * mu), 0.9995)
            primal, dual = self._steps(it, dx, ds, dz, dw, tau)
            self._advance(it, found, primal, dual)
            now = self.rows.at(it.x)
            self._reset_slacks(it, now)
            short = short + 1 if max(primal, dual) < SHORT else 0
        return it, Outcome(word, number, k.iterations, tuple(log)), way

    def _advance(self, it: Iterate, found: Step, primal: float, dual: float) -> None:
        """Go along the step."""
        dx, ds, dy, eta, dz, dw = found
        parts = [(it.x, dx, primal), (it.s, ds, primal)]
        parts += [(a, b, dual) for a, b in zip((it.y, it.eta, *it.z, *it.w), (dy, eta, *dz, *dw), strict=True)]
        self.kkt.threads.shares(lambda mine: [kernels.advance(*part, *mine.of(len(part[0]))) for part in parts])

    def _recentre(self, it: Iterate) -> None:
        """Bring products of distance and multiplier that are small back to a few times their mean."""
        room = self._room.empty("diagonal", it.x.shape), self._room.empty("diagonal of slacks", it.s.shape)
        total = self.of_x.diagonal(it.x, it.z, room[0]) + self.of_s.diagonal(it.s, it.w, room[1])
        least = RECENTRE * total / max(self.n_bounds, 1)
        self.of_x.recentre(it.x, it.z, least)
        self.of_s.recentre(it.s, it.w, least)

    def _reset_slacks(self, it: Iterate, now: Evaluation) -> None:
        """Give every slack what its row really has, where that is further from its bound, or about as far from one that
        does not hold it: it costs nothing, and the row holds (Nocedal and Wright 2006, section 19.3)."""
        b, w = self.bounds, it.w
        self.kkt.threads.rows(kernels.reset_slacks, len(it.s), it.s, b.s_low, b.s_high, *w, self.rows.sign, now.rows)

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
    ) -> tuple[Step | None, float]:
        """The step of one iteration, None where nothing helps, and what was added to the diagonal for it.

        Curvature is seen twice: within a step by the signs of the pivots, across steps by the conjugate gradients.
        """
        least = 0.0
        for _ in range(MOST_LIFTS):
            extra = self._factored(point, extra, least)
            if not np.isfinite(extra):
                break
            found = self._predict_and_correct(it, r, values, slack, mu, target)
            if found is not None:
                return found, extra
            least = max(LIFT, 10.0 * extra)
        return None, extra

    def _factored(self, point: Point, extra: float, least: float) -> float:
        """Factor with as much added to the diagonal as curvature asks for, and at least so much.

        Returns:
            what was added; inf when nothing helps.
        """
        k = self.kkt
        trial = least
        for attempt in range(12):
            fine = k.factor(point, extra=trial, links=True)
            if fine and k.n_links:
                fine = k.prepare_links()
            if fine:
                return trial
            trial = max(LIFT, extra / 3.0, 10.0 * trial) if attempt == 0 else 10.0 * trial
        return float("inf")

    def _predict_and_correct(
        self, it: Iterate, r: Residuals, values: Values, slack: FloatArray, mu: float, target: float
    ) -> Step | None:
        """Mehrotra's two solves with one factorisation; None where the storage rows have negative curvature."""
        x, s, z, w = it.x, it.s, it.z, it.w
        new = self._room
        # where there is no bound, these stay zero
        dz, none_x = (
            (new.empty(f"{name} low", x.shape), new.empty(f"{name} high", x.shape)) for name in ("dz", "no dz")
        )
        dw, none_s = (
            (new.empty(f"{name} low", s.shape), new.empty(f"{name} high", s.shape)) for name in ("dw", "no dw")
        )
        centre_x, centre_s = new.empty("centre", x.shape), new.empty("centre of slacks", s.shape)
        rows, second_x, second_s = r.rows, none_x, none_s
        sigma = min(1.0, LAST * target / mu) if mu > 0.0 else 1.0
        if mu > NEAR * target:
            self.of_x.centre(x, z, none_x, 0.0, centre_x)
            self.of_s.centre(s, w, none_s, 0.0, centre_s)
            dx, ds, dy, eta, positive = self._direction(it, r, slack, centre_x, centre_s, rows, values, PREDICT)
            if not positive:
                return None
            self.of_x.dual_step(x, z, dx, none_x, 0.0, dz)
            self.of_s.dual_step(s, w, ds, none_s, 0.0, dw)
            primal, dual = self._steps(it, dx, ds, dz, dw, 1.0)
            after = self.of_x.after(x, z, dx, dz, primal, dual) + self.of_s.after(s, w, ds, dw, primal, dual)
            affine = after / max(self.n_bounds, 1)
            sigma = min(1.0, max((affine / mu) ** 3, 1e-3, 0.2 * target / mu))
            omega, cap = (1.0 - sigma) ** 2, 10.0 * mu
            self.of_x.second_order(dx, dz, omega, cap)
            self.of_s.second_order(ds, dw, omega, cap)
            second_x, second_s = dz, dw
            # exact of products and quadratic rows; curves are left to first order
            rows = self.rows.with_second_order(rows, dx, omega * primal**2)
        self.of_x.centre(x, z, second_x, sigma * mu, centre_x)
        self.of_s.centre(s, w, second_s, sigma * mu, centre_s)
        dx, ds, dy, eta, positive = self._direction(it, r, slack, centre_x, centre_s, rows, values, CORRECT)
        if not positive:
            return None
        self.of_x.dual_step(x, z, dx, second_x, sigma * mu, dz)
        self.of_s.dual_step(s, w, ds, second_s, sigma * mu, dw)
        return dx, ds, dy, eta, dz, dw

    def _steps(
        self, it: Iterate, dx: FloatArray, ds: FloatArray, dz: Pair, dw: Pair, tau: float
    ) -> tuple[float, float]:
        """Largest primal and dual steps of variables and slacks together."""
        primal_x, dual_x = self.of_x.largest_steps(it.x, it.z, dx, dz, tau)
        primal_s, dual_s = self.of_s.largest_steps(it.s, it.w, ds, dw, tau)
        return min(primal_x, primal_s), min(dual_x, dual_s)


def _is_small(r: Residuals, it: Iterate, worth: float) -> bool:
    """Whether what is left of the gradient is small, and what it and the rows could be worth small against the gap."""
    if not r.dual < DUAL:
        return False
    at_stake = (
        np.abs(r.dual_x * np.maximum(np.abs(it.x), 1.0)).sum() + np.abs(r.dual_s * np.maximum(np.abs(it.s), 1.0)).sum()
    )
    # and so what is left of rows, at their prices
    y, others = np.split(it.y, [len(r.equal)])
    at_stake += np.abs(r.equal * y).sum() + np.abs(r.rows * others).sum() + np.abs(r.links * it.eta).sum()
    return bool(at_stake < 10.0 * worth)


__all__ = ["Method"]
