"""The rows of all steps at a point, and how far an iterate is from the optimality conditions.

    r(x) = A x - b,   G x,   sum a^2 - u v,   sum f g + w x - d,   y - phi(z)

without slacks, in this order. What depends on x alone is found once per point (`Rows.at`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from lateral.network.schema import FloatArray
from lateral.solvers.native import kernels
from lateral.solvers.native.iterate import Iterate
from lateral.solvers.native.kkt import Kkt, dot
from lateral.solvers.native.pairing import curve_slopes
from lateral.solvers.native.steps import Entries, StepProgram


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The affine parts of the nonlinear rows at a point: squares a, u, v of products; f, g of quadratic rows."""

    a: FloatArray
    u: FloatArray
    v: FloatArray
    f: FloatArray
    g: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What depends on x alone.

    Attributes:
        values: parts of the nonlinear rows.
        equal: left minus right of the equalities, shape (rows, T).
        rows: the same of the other rows, without their slacks.
        quadratic: ``Q x`` of the objective.
        objective: in solver scale.
    """

    values: Values
    equal: FloatArray
    rows: FloatArray
    quadratic: FloatArray
    objective: float


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """What is wrong at a point.

    Attributes:
        dual_x, dual_s: what is left of the gradient, of variables and of slacks.
        equal: of the equalities.
        rows: of the other rows, with their slacks.
        links: of the storage rows.
        primal: largest of rows and links, in the units of the program.
        dual: largest of dual_x and dual_s.
    """

    dual_x: FloatArray
    dual_s: FloatArray
    equal: FloatArray
    rows: FloatArray
    links: FloatArray
    primal: float
    dual: float


class Room:
    """Arrays that are used again and again: fresh pages of large ones cost more than what is computed in them."""

    def __init__(self) -> None:
        self._arrays: dict[str, FloatArray] = {}

    def empty(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """The array of a name, with what was last in it."""
        if name not in self._arrays or self._arrays[name].shape != shape:
            self._arrays[name] = np.zeros(shape)
        return self._arrays[name]

    def clear(self) -> None:
        """Zero in all of them."""
        for values in self._arrays.values():
            values.fill(0.0)

    def zeros(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """The array of a name, filled with zeros."""
        out = self.empty(name, shape)
        out.fill(0.0)
        return out


class Rows:
    """The rows of a program; its numbers are those of the last `load`.

    What it hands out is its own: an evaluation is good until the next one, and so are values of a step and residuals.
    """

    def __init__(self, steps: StepProgram, kkt: Kkt) -> None:
        self.steps, self.kkt, self._room = steps, kkt, Room()
        #: first of products, quadratic rows and curves among the rows that are not equalities, and the end
        self._edges = [0, *(k - kkt.g_first for k in (kkt.p_first, kkt.q_first, kkt.c_first, kkt.n))]
        self.load()

    def load(self) -> None:
        """The numbers of the steps, after `StepProgram.load`."""
        s, d, t = self.steps, self.steps.data, self.steps.n_steps
        level = s.level.reshape(-1, 1) & np.isfinite(d["q_low"])
        #: what is taken from each row that is no equality of its own kind: right-hand sides of quadratic ones
        self._right = np.zeros((self._edges[-1], t))
        self.by_kind(self._right)[2][level] = d["q_low"][level]
        #: sign of the slack in its row: ``G x - s = 0``, ``h(x) + s = 0``; 0 for an exact row
        sign = np.concatenate(
            [-np.ones(s.ranges.n), np.where(s.exact, 0.0, 1.0), np.where(s.level, 0.0, -1.0), np.zeros(s.curves.n)]
        )
        self.sign = np.repeat(sign.reshape(-1, 1), t, axis=1)
        self._unscale = np.vstack([d["unscale_g"], d["unscale_p"], d["unscale_q"], d["unscale_c"]])
        self._fixed = np.flatnonzero(d["fixed"] > 0.0)

    def by_kind(self, rows: FloatArray) -> list[FloatArray]:
        """Of the rows that are not equalities: those of ranges, products, quadratic rows and curves."""
        return [rows[a:b] for a, b in itertools.pairwise(self._edges)]

    def _fill(self, name: str, shape: tuple[int, ...], values: FloatArray | None, factor: float) -> FloatArray:
        """The array of a name with ``factor values``, or zero."""
        out = self._room.empty(name, shape)
        if values is None:
            self.kkt.threads.rows(kernels.zero, len(out), out)
        else:
            self.kkt.threads.rows(kernels.times, len(out), out, values, factor)
        return out

    def _add(self, out: FloatArray, e: Entries, x: FloatArray) -> None:
        """``out += E x``."""
        if len(e.row):
            self.kkt.threads.steps(kernels.add_product, out, e.row, e.col, e.val, x)

    def _add_slopes(
        self, out: FloatArray, e: Entries, left: FloatArray, y: FloatArray, per: int, factor: float
    ) -> None:
        """``out += factor E' (left y)``, where ``per`` rows of left share one of y."""
        if len(e.row):
            self.kkt.threads.steps(kernels.add_slopes, out, e.col, e.row, e.val, left, y, per, factor)

    def _add_pairs(self, out: FloatArray, f: FloatArray, g: FloatArray, per: int, factor: float) -> None:
        """``out += factor sum f g``, over ``per`` rows each."""
        if len(out):
            self.kkt.threads.rows(kernels.add_pairs, len(out), out, f, g, per, factor)

    def _largest(self, values: FloatArray) -> float:
        """Largest magnitude; NaN stays NaN."""
        return float(np.max(self.kkt.threads.rows(kernels.largest, len(values), values)))

    def are_numbers(self, *arrays: FloatArray) -> bool:
        """Whether all are finite."""
        return all(np.isfinite(self._largest(a)) for a in arrays)

    # -- at a point ---------------------------------------------------------------------------------------------------

    def values(self, x: FloatArray, *, constant: bool) -> Values:
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
            value = self._fill(c, (n, t), d[c], 1.0) if constant else self._fill(f"step {c}", (n, t), None, 0.0)
            self._add(value, e, x)
            out.append(value)
        return Values(*out)

    def equal(self, x: FloatArray) -> FloatArray:
        """``A x - b`` of the equalities."""
        b = self.steps.data["b"]
        out = self._fill("equal", b.shape, b, -1.0)
        self._add(out, self.steps.a, x)
        return out

    def rows(self, x: FloatArray, v: Values) -> FloatArray:
        """Left minus right of every other row, without slacks."""
        s = self.steps
        out = self._fill("rows", self._right.shape, self._right, -1.0)
        ranges, _, quadratics, curves = self.by_kind(out)
        self._add(ranges, s.g, x)
        self._add(quadratics, s.pair_w, x)
        self.add_second_order(out, v, 1.0)
        if s.quadratics.n:
            quadratics *= s.data["present"][len(s.data["b"]) :][self._edges[2] : self._edges[3]]
        if s.curves.n:
            flat = s.variables.gather(x, len(s.variables.element))
            curves += s.curves.spread(s.curve_rows.value(flat), s.n_steps)
        return out

    def add_second_order(self, rows: FloatArray, v: Values, factor: float) -> None:
        """``rows += factor (sum a^2 - u v)`` of products and ``factor sum f g`` of quadratic rows."""
        _, products, quadratics, _ = self.by_kind(rows)
        self._add_pairs(products, v.a, v.a, self.steps.width, factor)
        self._add_pairs(products, v.u, v.v, 1, -factor)
        self._add_pairs(quadratics, v.f, v.g, self.steps.pairs, factor)

    def at(self, x: FloatArray) -> Evaluation:
        """Everything that depends on x alone."""
        values = self.values(x, constant=True)
        quadratic = self._fill("quadratic", x.shape, None, 0.0)
        self._add(quadratic, self.steps.q, x)
        objective = dot(self.steps.data["c"], x) + 0.5 * dot(x, quadratic) + self.steps.constant
        return Evaluation(values, self.equal(x), self.rows(x, values), quadratic, float(objective))

    def slopes_times(self, v: Values, dx: FloatArray) -> FloatArray:
        """J dx of the rows that may have a slack; zero of curves, which have none."""
        s = self.steps
        step = self.values(dx, constant=False)
        out = self._fill("slopes", self._right.shape, None, 0.0)
        ranges, products, quadratics, _ = self.by_kind(out)
        self._add(ranges, s.g, dx)
        self._add_pairs(products, v.a, step.a, s.width, 2.0)
        self._add_pairs(products, v.u, step.v, 1, -1.0)
        self._add_pairs(products, step.u, v.v, 1, -1.0)
        self._add(quadratics, s.pair_w, dx)
        self._add_pairs(quadratics, v.f, step.g, s.pairs, 1.0)
        self._add_pairs(quadratics, step.f, v.g, s.pairs, 1.0)
        return out

    def residuals(self, it: Iterate, now: Evaluation) -> Residuals:
        """What is wrong at an iterate."""
        p, k, v = self.steps, self.kkt, now.values
        own = k.threads.rows
        y, others = it.y[: k.n_rows], it.y[k.n_rows :]
        y_g, y_p, y_q, y_c = self.by_kind(others)
        dual = self._room.empty("dual", it.x.shape)
        own(kernels.gradient, len(dual), dual, p.data["c"], now.quadratic, it.z_low, it.z_high)
        for e, of in ((p.a, y), (p.g, y_g), (p.pair_w, y_q)):
            if len(e.row):
                k.threads.steps(kernels.add_product, dual, e.col, e.row, e.val, of)
        self._add_slopes(dual, p.squares, v.a, y_p, p.width, 2.0)
        self._add_slopes(dual, p.u, v.v, y_p, 1, -1.0)
        self._add_slopes(dual, p.v, v.u, y_p, 1, -1.0)
        self._add_slopes(dual, p.pair_f, v.g, y_q, p.pairs, 1.0)
        self._add_slopes(dual, p.pair_g, v.f, y_q, p.pairs, 1.0)
        if p.curves.n:
            y_slope, z_slope, _ = curve_slopes(p, it.x)
            np.add.at(dual, p.curve_y, y_slope * y_c)
            np.add.at(dual, p.curve_z, z_slope * y_c)
        if k.n_links:
            k.links_transposed(it.eta, dual)
        dual.reshape(-1)[self._fixed] = 0.0
        dual_s, rows = (self._room.empty(name, it.s.shape) for name in ("dual of slacks", "residual"))
        own(kernels.slack_residuals, len(it.s), dual_s, rows, self.sign, others, it.w_low, it.w_high, now.rows, it.s)
        links = k.links(it.x) - p.data["link_b"] if k.n_links else np.zeros((0, p.n_steps))
        primal = [
            *own(kernels.largest_product, len(now.equal), now.equal, p.data["unscale_b"]),
            *own(kernels.largest_product, len(rows), rows, self._unscale),
            np.max(np.abs(links * p.data["unscale_link"]), initial=0.0),
        ]
        dual_size = max(self._largest(dual), self._largest(dual_s))
        return Residuals(dual, dual_s, now.equal, rows, links, float(np.max(primal)), dual_size)


__all__ = ["Evaluation", "Residuals", "Room", "Rows", "Values"]
