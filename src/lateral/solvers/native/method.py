"""The method: a primal-dual interior point with Mehrotra's predictor and corrector, and the exact Hessian.

    minimise f(x)   subject to   r(x) = 0  (equalities, ranges with slack, products with slack),   bounds

Each part stands by itself: `_start` (where to begin), `_residuals`, `_factored` (curvature), `_predict_and_correct`,
`_direction` (one solve of the linear system), `_steps` (how far), `_is_small` (stopping). Numbers are in solver scale,
but feasibility is judged in per unit.

Mehrotra (1992); second-order corrections of the products are exact, as they are quadratic. No filter: a point that is
not a solution in the end is handed on as what it is, and the caller's residuals decide (`lateral.results.residuals`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.native import kernels
from lateral.solvers.native.assembly import Point
from lateral.solvers.native.barrier import Barrier, Pair
from lateral.solvers.native.kkt import Kkt
from lateral.solvers.native.order import Order
from lateral.solvers.native.pairing import curve_slopes
from lateral.solvers.native.steps import StepProgram

#: Feasibility, pu; stationarity, in solver scale.
PRIMAL, DUAL = 1e-9, 1e-7
#: Diagonal that holds a fixed variable.
FIXED = 1e12
#: Distance from bounds at the start, of max(1, |bound|) and of the range: of what the power flow gives, and of devices,
#: which start further inside, so that the first steps are long (a third less iterations than with the same for both).
PUSH, PUSH_DEVICES = 0.05, 0.4
#: What is added to the diagonal first where curvature is negative, and how often more is.
LIFT, MOST_LIFTS = 1e-8, 8
#: Relative tolerance of the conjugate gradients of the predictor and of the corrector. What the corrector leaves of the
#: storage rows, the next step sees; tighter ones (1e-8) take a half more products and save no step.
PREDICT, CORRECT = 1e-3, 1e-6
#: A slack whose ``s / w`` is above this is far from its bound, in solver scale.
FAR = 1e4
#: Later solves start from the last iterate whose complementarity, relative to the objective, is above this.
WARM_GAP = 2e-5
#: A run of this many steps shorter than this is no progress.
SHORT_STEPS, SHORT = 8, 1e-3


#: dx, ds, dy, d eta, and the steps of the multipliers of the bounds of x and of s.
Step = tuple[FloatArray, FloatArray, FloatArray, FloatArray, Pair, Pair]


@dataclass(slots=True, eq=False)
class Iterate:
    """Primal and dual numbers, all (elements, T).

    Attributes:
        x: variables.
        s: slacks of ranges (the value of the row) and of products (0 for exact ones).
        y: multipliers of equalities, ranges and products, in the order of the rows.
        eta: multipliers of the storage rows.
        z_low, z_high: multipliers of the bounds of x.
        w_low, w_high: multipliers of the bounds of s.
    """

    x: FloatArray
    s: FloatArray
    y: FloatArray
    eta: FloatArray
    z_low: FloatArray
    z_high: FloatArray
    w_low: FloatArray
    w_high: FloatArray

    @property
    def z(self) -> Pair:
        """Multipliers of the bounds of x: of the lower, of the upper ones."""
        return self.z_low, self.z_high

    @property
    def w(self) -> Pair:
        """Multipliers of the bounds of s, likewise."""
        return self.w_low, self.w_high

    def shifted(self, steps: int) -> Iterate:
        """The same so many steps later: each step takes the numbers of the one that far ahead, or of the last."""
        t = self.x.shape[1]
        ahead = np.minimum(np.arange(t) + steps, t - 1)
        return Iterate(*(getattr(self, name)[:, ahead] for name in self.__slots__))

    def copy(self) -> Iterate:
        """A copy of every array."""
        return Iterate(*(getattr(self, name).copy() for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        word: solved, stalled (no step makes progress), limit (iterations or time), broken (a number that is none).
        iterations: Newton steps.
        inner: iterations of the conjugate gradients.
        log: one line per iteration.
    """

    word: str
    iterations: int
    inner: int
    log: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The affine parts of the nonlinear rows at a point: squares a, u, v of products; f, g of quadratic rows."""

    a: FloatArray
    u: FloatArray
    v: FloatArray
    f: FloatArray
    g: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """What is wrong at a point."""

    dual_x: FloatArray
    dual_s: FloatArray
    rows: FloatArray
    links: FloatArray
    primal: float
    dual: float


class Method:
    """One program's method; holds the factored matrix and the arrays of the present numbers."""

    def __init__(self, steps: StepProgram, order: Order, *, threads: int = 1) -> None:
        self.steps, self.order = steps, order
        self.kkt = Kkt(steps, order, threads=threads)
        self.load()

    def load(self) -> None:
        """The numbers of the steps, after `StepProgram.load`."""
        s, d, t = self.steps, self.steps.data, self.steps.n_steps
        self.kkt.load()
        self.fixed = d["fixed"] > 0.0
        self.low = np.where(self.fixed, -np.inf, d["low"])
        self.high = np.where(self.fixed, np.inf, d["high"])
        n_exact = s.products.n
        level, free = s.level.reshape(-1, 1), np.full((s.curves.n, t), np.inf)
        self.s_low = np.vstack(
            [
                d["g_low"],
                np.where(s.exact.reshape(-1, 1), -np.inf, 0.0) * np.ones((n_exact, t)),
                np.where(level, -np.inf, d["q_low"]),
                -free,
            ]
        )
        self.s_high = np.vstack(
            [d["g_high"], np.full((n_exact, t), np.inf), np.where(level, np.inf, d["q_high"]), free]
        )
        #: what a quadratic equality is to be
        self.level = np.where(level & np.isfinite(d["q_low"]), d["q_low"], 0.0)
        #: sign of the slack in its row: ``G x - s = 0``, ``h(x) + s = 0``; 0 for an exact row
        sign = np.concatenate(
            [-np.ones(s.ranges.n), np.where(s.exact, 0.0, 1.0), np.where(s.level, 0.0, -1.0), np.zeros(s.curves.n)]
        )
        self.sign = np.repeat(sign.reshape(-1, 1), t, axis=1)
        self.unscale = np.vstack([d["unscale_b"], d["unscale_g"], d["unscale_p"], d["unscale_q"], d["unscale_c"]])
        self.of_x = Barrier(self.low, self.high, self.kkt.threads)
        self.of_s = Barrier(self.s_low, self.s_high, self.kkt.threads)
        self.n_bounds = self.of_x.count + self.of_s.count

    def _add(self, out: FloatArray, row: IntArray, col: IntArray, val: FloatArray, x: FloatArray) -> None:
        """``out[row] += val x[col]``."""
        self.kkt.threads.steps(kernels.add_product, out, row, col, val, x)

    # -- values -------------------------------------------------------------------------------------------------------

    def _values(self, x: FloatArray, *, constant: bool) -> Values:
        """What the nonlinear rows are made of at x; without constants, of a step."""
        s, d, t = self.steps, self.steps.data, self.steps.n_steps
        out = []
        for e, n, c in (
            (s.squares, s.products.n * s.width, "a0"),
            (s.u, s.products.n, "u0"),
            (s.v, s.products.n, "v0"),
            (s.pair_f, s.quadratics.n * s.pairs, "pair_f0"),
            (s.pair_g, s.quadratics.n * s.pairs, "pair_g0"),
        ):
            value = d[c].copy() if constant else np.zeros((n, t))
            self._add(value, e.row, e.col, e.val, x)
            out.append(value)
        return Values(*out)

    def _quadratic_rows(self, v: Values) -> FloatArray:
        """``sum f g`` of every quadratic row."""
        s = self.steps
        return np.asarray((v.f * v.g).reshape(s.quadratics.n, s.pairs, s.n_steps).sum(axis=1))

    def _nonlinear(self, x: FloatArray, v: Values) -> FloatArray:
        """Left minus right of products, quadratic rows and curves, without slacks."""
        s = self.steps
        quadratic = self._quadratic_rows(v) - self.level
        self._add(quadratic, s.pair_w.row, s.pair_w.col, s.pair_w.val, x)
        quadratic *= s.data["present"][self.kkt.q_first - self.kkt.nv : self.kkt.c_first - self.kkt.nv]
        return np.vstack([self._product(v.a, v.u, v.v), quadratic, self._curve_rows(x)])

    def _slopes_times(self, v: Values, dx: FloatArray) -> FloatArray:
        """J dx of ranges, products, quadratic rows; zero of curves, which have no slack."""
        s, t = self.steps, self.steps.n_steps
        step = self._values(dx, constant=False)
        ranges = np.zeros((s.ranges.n, t))
        self._add(ranges, s.g.row, s.g.col, s.g.val, dx)
        squares = 2.0 * (v.a * step.a).reshape(s.products.n, s.width, t).sum(axis=1)
        pairs = (v.f * step.g + step.f * v.g).reshape(s.quadratics.n, s.pairs, t).sum(axis=1)
        self._add(pairs, s.pair_w.row, s.pair_w.col, s.pair_w.val, dx)
        return np.vstack([ranges, squares - v.u * step.v - step.u * v.v, pairs, np.zeros((s.curves.n, t))])

    def _curve_rows(self, x: FloatArray) -> FloatArray:
        s = self.steps
        if not s.curves.n:
            return np.zeros((0, s.n_steps))
        return s.curves.spread(s.curve_rows.value(s.variables.gather(x, len(s.variables.element))), s.n_steps)

    def _product(self, a: FloatArray, u: FloatArray, v: FloatArray) -> FloatArray:
        """``sum a^2 - u v``."""
        s = self.steps
        return np.asarray((a.reshape(s.products.n, s.width, s.n_steps) ** 2).sum(axis=1) - u * v)

    def _quadratic(self, x: FloatArray) -> FloatArray:
        s = self.steps
        out = np.zeros_like(x)
        self._add(out, s.q.row, s.q.col, s.q.val, x)
        return out

    def objective(self, x: FloatArray) -> float:
        """In solver scale."""
        linear = np.vdot(self.steps.data["c"], x)
        return float(linear + 0.5 * np.vdot(x, self._quadratic(x)) + self.steps.constant)

    def _rows(self, x: FloatArray, s: FloatArray, h: FloatArray) -> FloatArray:
        """Left minus right of every row of one step."""
        p, t = self.steps, self.steps.n_steps
        equal = -p.data["b"]
        self._add(equal, p.a.row, p.a.col, p.a.val, x)
        ranges = np.zeros((p.ranges.n, t))
        self._add(ranges, p.g.row, p.g.col, p.g.val, x)
        return np.vstack([equal, np.vstack([ranges, h]) + self.sign * s])

    def _residuals(self, it: Iterate, values: Values, slopes: tuple[FloatArray, FloatArray]) -> Residuals:
        p, k, t = self.steps, self.kkt, self.steps.n_steps
        n_rows = k.n_rows
        y_g, y_p, y_q, y_c = self._by_kind(it.y)
        a, u, v = values.a, values.u, values.v
        dual = p.data["c"] + self._quadratic(it.x) - it.z_low + it.z_high
        self._add(dual, p.a.col, p.a.row, p.a.val, it.y[:n_rows])
        self._add(dual, p.g.col, p.g.row, p.g.val, y_g)
        weight = (2.0 * a.reshape(p.products.n, p.width, t) * y_p[:, None]).reshape(-1, t)
        self._add(dual, p.squares.col, p.squares.row, p.squares.val, weight)
        self._add(dual, p.u.col, p.u.row, p.u.val, -v * y_p)
        self._add(dual, p.v.col, p.v.row, p.v.val, -u * y_p)
        of_pair = np.repeat(y_q, p.pairs, axis=0)
        self._add(dual, p.pair_f.col, p.pair_f.row, p.pair_f.val, of_pair * values.g)
        self._add(dual, p.pair_g.col, p.pair_g.row, p.pair_g.val, of_pair * values.f)
        self._add(dual, p.pair_w.col, p.pair_w.row, p.pair_w.val, y_q)
        np.add.at(dual, p.curve_y, slopes[0] * y_c)
        np.add.at(dual, p.curve_z, slopes[1] * y_c)
        if k.n_links:
            k.links_transposed(it.eta, dual)
        dual[self.fixed] = 0.0
        dual_s = np.where(self.sign != 0.0, self.sign * it.y[n_rows:] - it.w_low + it.w_high, 0.0)
        rows = self._rows(it.x, it.s, self._nonlinear(it.x, values))
        links = k.links(it.x) - p.data["link_b"] if k.n_links else np.zeros((0, t))
        primal = max(_largest(rows * self.unscale), _largest(links * p.data["unscale_link"]))
        return Residuals(dual, dual_s, rows, links, primal, max(_largest(dual), _largest(dual_s)))

    def _by_kind(self, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Multipliers of ranges, products, quadratic rows and curves."""
        k = self.kkt
        edges = [k.n_rows, k.p_first - k.nv, k.q_first - k.nv, k.c_first - k.nv, len(y)]
        g, p, q, c = (y[a:b] for a, b in itertools.pairwise(edges))
        return g, p, q, c

    # -- start --------------------------------------------------------------------------------------------------------

    def _start(self) -> Iterate:
        """Devices inside of their bounds, the network at its power flow, multipliers of equal products."""
        p, t = self.steps, self.steps.n_steps
        x = p.data["start"].copy()
        x[self.fixed] = p.data["value"][self.fixed]
        x = _inside(x, self.low, self.high, PUSH_DEVICES)
        self._power_flow(x)
        x = _inside(x, self.low, self.high, PUSH)
        values = self._values(x, constant=True)
        h, quadratic, curved = np.split(self._nonlinear(x, values), [p.products.n, p.products.n + p.quadratics.n])
        ranges = np.zeros((p.ranges.n, t))
        self._add(ranges, p.g.row, p.g.col, p.g.val, x)
        size = np.maximum(np.abs(values.u * values.v), 1e-3)
        slack = np.where(p.exact.reshape(-1, 1), 0.0, np.maximum(-h, 0.1 * size))
        level = p.level.reshape(-1, 1)
        s = np.vstack(
            [
                _inside(ranges, p.data["g_low"], p.data["g_high"], PUSH),
                slack,
                np.where(level, 0.0, _inside(quadratic, p.data["q_low"], p.data["q_high"], PUSH)),
                np.zeros_like(curved),
            ]
        )
        mu = max(max(abs(self.objective(x)), p.floor) / max(self.n_bounds, 1), 1e-6)
        zero = np.zeros((self.kkt.n_rows + len(s), t))
        return Iterate(
            x, s, zero, np.zeros((self.kkt.n_links, t)),
            _multiplier(mu, x - self.low), _multiplier(mu, self.high - x),
            _multiplier(mu, s - self.s_low), _multiplier(mu, self.s_high - s),
        )  # fmt: skip

    def _moved(self, it: Iterate) -> Iterate:
        """An earlier iterate for the present numbers: what is fixed is fixed at its new value, what a new bound leaves
        outside is just inside, and a bound that is new has a multiplier like the others'."""
        it.x[self.fixed] = self.steps.data["value"][self.fixed]
        it.x = _within(it.x, self.low, self.high)
        it.s = np.where(self.sign != 0.0, _within(it.s, self.s_low, self.s_high), it.s)
        bounds = (
            (it.z_low, it.x - self.low),
            (it.z_high, self.high - it.x),
            (it.w_low, it.s - self.s_low),
            (it.w_high, self.s_high - it.s),
        )
        known = [(z * room)[np.isfinite(room) & (z > 0.0)] for z, room in bounds]
        mu = float(np.concatenate(known).mean()) if any(len(k) for k in known) else 1e-6
        for z, room in bounds:
            finite = np.isfinite(room)
            new = finite & ~(z > 0.0)
            z[new] = mu / room[new]
            z[~finite] = 0.0
        return it

    def _power_flow(self, x: FloatArray, *, limit: int = 8) -> None:
        """Newton on the network's own rows with every device where it is, in place; gives up in silence."""
        k, t = self.kkt, self.steps.n_steps
        network = self.order.network
        own, rows = network[: k.nv], network[k.nv :]
        diagonal = np.where(own.reshape(-1, 1), 0.0, 1e10) * np.ones((k.nv, t))
        slack = np.where(rows[k.n_rows :].reshape(-1, 1), 0.0, 1e10) * np.ones((len(rows) - k.n_rows, t))
        before = x.copy()
        for _ in range(limit):
            values = self._values(x, constant=True)
            r = self._rows(x, np.zeros_like(self.sign), self._nonlinear(x, values))
            r[~rows] = 0.0
            worst = _largest(r)
            if worst < 1e-8:
                return
            none = np.zeros((k.n - k.nv, t))
            k.factor(self._point(x, values, none, diagonal, slack))
            full = np.zeros((k.n, t))
            full[k.nv :] = -r
            step = k.within(full)[: k.nv]
            step[~own] = 0.0
            if not np.all(np.isfinite(step)):
                x[:] = before
                return
            x += step

    def _reset_slacks(self, it: Iterate) -> None:
        """Give every slack what its row really has, where that is further from its bound, or about as far from one that
        does not hold it: it costs nothing, and the row holds (Nocedal and Wright 2006, section 19.3)."""
        p, t = self.steps, self.steps.n_steps
        ranges = np.zeros((p.ranges.n, t))
        self._add(ranges, p.g.row, p.g.col, p.g.val, it.x)
        rows = np.vstack([ranges, self._nonlinear(it.x, self._values(it.x, constant=True))])
        real = -self.sign * rows
        with np.errstate(invalid="ignore"):
            room_now = np.minimum(it.s - self.s_low, self.s_high - it.s)
            room_then = np.minimum(real - self.s_low, self.s_high - real)
            near = (np.abs(real - it.s) <= 0.1 * room_now) & (room_now > it.w_low + it.w_high)
            better = (self.sign != 0.0) & ((room_then >= room_now) | near)
        it.s = np.where(better, real, it.s)

    def _point(self, x: FloatArray, v: Values, y: FloatArray, diagonal: FloatArray, slack: FloatArray) -> Point:
        _, y_p, y_q, y_c = self._by_kind(y)
        y_slope, z_slope, bend = curve_slopes(self.steps, x)
        return Point(v.a, v.u, v.v, y_p, diagonal, slack, v.f, v.g, y_q, y_slope, z_slope, y_c * bend)

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
        right, r_s, ds = np.empty((k.n, self.steps.n_steps)), np.empty_like(it.s), np.empty_like(it.s)
        np.subtract(centre_x, r.dual_x, out=right[: k.nv])
        right[: k.nv][self.fixed] = 0.0
        np.negative(rows[: k.n_rows], out=right[k.nv : k.g_first])
        k.threads.rows(
            kernels.slack_side, len(ds), right[k.g_first :], rows[k.n_rows :], self.sign, r.dual_s, centre_s, slack, r_s
        )
        solution, eta, positive = k.solve(right, -r.links, tolerance=tolerance)
        dx, dy = solution[: k.nv], solution[k.nv :]
        k.threads.rows(kernels.slack_step, len(ds), ds, r_s, self.sign, dy[k.n_rows :], slack)
        # where a slack is far from its bound, its multiplier is rounding: there the row itself says what it becomes
        far = (self.sign != 0.0) & (slack > FAR)
        if far.any():
            ds = np.where(far, -self.sign * (rows[k.n_rows :] + self._slopes_times(values, dx)), ds)
        return dx, ds, dy, eta, positive

    def solve(
        self,
        *,
        gap: float,
        max_iterations: int,
        start: Iterate | None = None,
        give_up: Callable[[], bool] = lambda: False,
        verbose: Callable[[str], None] | None = None,
    ) -> tuple[Iterate, Outcome, Iterate | None]:
        """Iterate until the residuals and the complementarity are small.

        Returns:
            the last iterate; how it ended; and the iterate on the way whose complementarity was about `WARM_GAP`, from
            which a problem with slightly other numbers can start.

        Args:
            gap: complementarity, relative to the objective.
            max_iterations: Newton steps.
            start: where to begin; absent: the power flow.
            give_up: asked before each iteration (time, interrupt).
            verbose: takes a line per iteration.
        """
        k = self.kkt
        k.iterations = 0
        it = self._start() if start is None else self._moved(start)
        log: list[str] = []
        short = 0
        count = max(self.n_bounds, 1)
        diagonal_x, diagonal_s = np.zeros_like(it.x), np.zeros_like(it.s)
        word, number = "limit", 0
        extra = 0.0
        middle: Iterate | None = None
        for number in range(max_iterations + 1):
            values = self._values(it.x, constant=True)
            r = self._residuals(it, values, curve_slopes(self.steps, it.x)[:2])
            total = self.of_x.diagonal(it.x, it.z, diagonal_x) + self.of_s.diagonal(it.s, it.w, diagonal_s)
            mu, value = total / count, self.objective(it.x)
            worth = max(abs(value), self.steps.floor, 1e-6)
            target = gap * worth / count
            line = f"{number:3d}  f {value:.10e}  primal {r.primal:.1e}  dual {r.dual:.1e}  mu {mu:.1e}"
            line += f"  inner {k.iterations}"
            log.append(line)
            if verbose is not None:
                verbose(line)
            if middle is None or 1.0 < mu * count / (WARM_GAP * worth) < 50.0:  # earlier ones are as good as none
                middle = it.copy()
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
            diagonal_x[self.fixed] = FIXED
            with np.errstate(divide="ignore"):
                slack = np.where(self.sign != 0.0, 1.0 / np.maximum(diagonal_s, 1e-14), 0.0)
            point = self._point(it.x, values, it.y, diagonal_x, slack)
            found, extra = self._newton(it, r, values, point, slack, mu, target, extra)
            if found is None:
                word = "broken"
                break
            dx, ds, dy, eta, dz, dw = found
            if not (np.all(np.isfinite(dx)) and np.all(np.isfinite(dy))):
                word = "broken"
                break
            tau = min(max(0.95, 1.0 - 10.0 * mu), 0.9995)
            primal, dual = self._steps(it, dx, ds, dz, dw, tau)
            for arrays, changes, step in (
                ((it.x, it.s), (dx, ds), primal),
                ((it.y, it.eta, *it.z, *it.w), (dy, eta, *dz, *dw), dual),
            ):
                for array, change in zip(arrays, changes, strict=True):
                    k.threads.rows(kernels.advance, len(array), array, change, step)
            self._reset_slacks(it)
            short = short + 1 if max(primal, dual) < SHORT else 0
        return it, Outcome(word, number, k.iterations, tuple(log)), middle

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
            fine = k.factor(point, extra=trial)
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
        k = self.kkt
        x, s, z, w = it.x, it.s, it.z, it.w
        dz = np.zeros_like(x), np.zeros_like(x)
        dw = np.zeros_like(s), np.zeros_like(s)
        centre_x, centre_s = np.zeros_like(x), np.zeros_like(s)
        self.of_x.centre(x, z, dz, 0.0, centre_x)
        self.of_s.centre(s, w, dw, 0.0, centre_s)
        dx, ds, dy, eta, positive = self._direction(it, r, slack, centre_x, centre_s, r.rows, values, PREDICT)
        if not positive:
            return None
        self.of_x.dual_step(x, z, dx, 0.0, dz)
        self.of_s.dual_step(s, w, ds, 0.0, dw)
        primal, dual = self._steps(it, dx, ds, dz, dw, 1.0)
        after = self.of_x.after(x, z, dx, dz, primal, dual) + self.of_s.after(s, w, ds, dw, primal, dual)
        affine = after / max(self.n_bounds, 1)
        sigma = min(1.0, max((affine / mu) ** 3 if mu > 0 else 0.0, 1e-3, 0.2 * target / mu if mu > 0 else 0.0))
        omega, cap = (1.0 - sigma) ** 2, 10.0 * mu
        self.of_x.second_order(dx, dz, omega, cap)
        self.of_s.second_order(ds, dw, omega, cap)
        rows = r.rows.copy()
        step = self._values(dx, constant=False)  # exact of products and quadratic rows; curves are left to first order
        first = k.p_first - k.nv
        rows[first : first + len(step.u)] += omega * primal**2 * self._product(step.a, step.u, step.v)
        first = k.q_first - k.nv
        rows[first : first + self.steps.quadratics.n] += omega * primal**2 * self._quadratic_rows(step)
        self.of_x.centre(x, z, dz, sigma * mu, centre_x)
        self.of_s.centre(s, w, dw, sigma * mu, centre_s)
        dx, ds, dy, eta, positive = self._direction(it, r, slack, centre_x, centre_s, rows, values, CORRECT)
        if not positive:
            return None
        self.of_x.dual_step(x, z, dx, sigma * mu, dz)
        self.of_s.dual_step(s, w, ds, sigma * mu, dw)
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
    at_stake += np.abs(r.rows * it.y).sum() + np.abs(r.links * it.eta).sum()
    return bool(at_stake < 10.0 * worth)


def _largest(values: FloatArray) -> float:
    """Largest magnitude; NaN stays NaN."""
    return float(np.max(np.abs(values), initial=0.0))


def _inside(x: FloatArray, low: FloatArray, high: FloatArray, push: float) -> FloatArray:
    """Values pushed inside of their bounds."""
    with np.errstate(invalid="ignore"):
        room = push * (high - low)
        above = low + np.minimum(push * np.maximum(1.0, np.abs(low)), room)
        below = high - np.minimum(push * np.maximum(1.0, np.abs(high)), room)
        pushed = np.where(np.isfinite(low), np.maximum(x, above), x)
        return np.where(np.isfinite(high), np.minimum(pushed, below), pushed)


def _within(x: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Values that are at or beyond a bound, a little inside of it; others as they are."""
    with np.errstate(invalid="ignore"):
        room = np.where(np.isfinite(low) & np.isfinite(high), PUSH * (high - low), 1e-4)
        room = np.minimum(room, 1e-4)
        x = np.where(np.isfinite(low) & (x <= low), low + room, x)
        return np.where(np.isfinite(high) & (x >= high), high - room, x)


def _multiplier(mu: float, slack: FloatArray) -> FloatArray:
    """``mu / slack``; zero where there is no bound."""
    finite = np.isfinite(slack)
    return np.where(finite, mu / np.where(finite, slack, 1.0), 0.0)


__all__ = ["Iterate", "Method", "Outcome"]
