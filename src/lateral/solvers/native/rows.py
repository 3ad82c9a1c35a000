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
        rows: left minus right of every row without its slack, shape (rows, T).
        quadratic: ``Q x`` of the objective.
        objective: in solver scale.
    """

    values: Values
    rows: FloatArray
    quadratic: FloatArray
    objective: float


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """What is wrong at a point.

    Attributes:
        dual_x, dual_s: what is left of the gradient, of variables and of slacks.
        rows: of the rows with their slacks.
        links: of the storage rows.
        primal: largest of rows and links, in the units of the program.
        dual: largest of dual_x and dual_s.
    """

    dual_x: FloatArray
    dual_s: FloatArray
    rows: FloatArray
    links: FloatArray
    primal: float
    dual: float


class Rows:
    """The rows of a program; its numbers are those of the last `load`."""

    def __init__(self, steps: StepProgram, kkt: Kkt) -> None:
        self.steps, self.kkt = steps, kkt
        #: first row of ranges, products, quadratic rows and curves, and their end
        self.edges = [kkt.n_rows, *(k - kkt.nv for k in (kkt.p_first, kkt.q_first, kkt.c_first, kkt.n))]
        self.load()

    def load(self) -> None:
        """The numbers of the steps, after `StepProgram.load`."""
        s, d, t = self.steps, self.steps.data, self.steps.n_steps
        level = s.level.reshape(-1, 1) & np.isfinite(d["q_low"])
        #: what is taken from each row: right-hand sides of equalities and of quadratic equalities
        self._right = np.zeros((self.edges[-1], t))
        self._right[: self.edges[0]] = d["b"]
        self._right[self.edges[2] : self.edges[3]][level] = d["q_low"][level]
        #: sign of the slack in its row: ``G x - s = 0``, ``h(x) + s = 0``; 0 for an exact row
        sign = np.concatenate(
            [-np.ones(s.ranges.n), np.where(s.exact, 0.0, 1.0), np.where(s.level, 0.0, -1.0), np.zeros(s.curves.n)]
        )
        self.sign = np.repeat(sign.reshape(-1, 1), t, axis=1)
        self._unscale = np.vstack([d["unscale_b"], d["unscale_g"], d["unscale_p"], d["unscale_q"], d["unscale_c"]])
        self._fixed = np.flatnonzero(d["fixed"] > 0.0)

    def by_kind(self, rows: FloatArray) -> list[FloatArray]:
        """Those of ranges, products, quadratic rows and curves."""
        return [rows[a:b] for a, b in itertools.pairwise(self.edges)]

    def _add(self, out: FloatArray, e: Entries, x: FloatArray) -> None:
        """``out += E x``."""
        self.kkt.threads.steps(kernels.add_product, out, e.row, e.col, e.val, x)

    def _add_slopes(
        self, out: FloatArray, e: Entries, left: FloatArray, y: FloatArray, per: int, factor: float
    ) -> None:
        """``out += factor E' (left y)``, where ``per`` rows of left share one of y."""
        self.kkt.threads.steps(kernels.add_slopes, out, e.col, e.row, e.val, left, y, per, factor)

    def _add_pairs(self, out: FloatArray, f: FloatArray, g: FloatArray, per: int, factor: float) -> None:
        """``out += factor sum f g``, over ``per`` rows each."""
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
            value = d[c].copy() if constant else np.zeros((n, t))
            self._add(value, e, x)
            out.append(value)
        return Values(*out)

    def rows(self, x: FloatArray, v: Values) -> FloatArray:
        """Left minus right of every row, without slacks."""
        s = self.steps
        out = np.negative(self._right)
        ranges, _, quadratics, curves = self.by_kind(out)
        self._add(out[: self.edges[0]], s.a, x)
        self._add(ranges, s.g, x)
        self._add(quadratics, s.pair_w, x)
        self.add_second_order(out, v, 1.0)
        if s.quadratics.n:
            quadratics *= s.data["present"][self.edges[2] : self.edges[3]]
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
        quadratic = np.zeros_like(x)
        self._add(quadratic, self.steps.q, x)
        objective = dot(self.steps.data["c"], x) + 0.5 * dot(x, quadratic) + self.steps.constant
        return Evaluation(values, self.rows(x, values), quadratic, float(objective))

    def slopes_times(self, v: Values, dx: FloatArray) -> FloatArray:
        """J dx of the rows that may have a slack; zero of curves, which have none."""
        s = self.steps
        step = self.values(dx, constant=False)
        out = np.zeros((self.edges[-1], s.n_steps))
        ranges, products, quadratics, _ = self.by_kind(out)
        self._add(ranges, s.g, dx)
        self._add_pairs(products, v.a, step.a, s.width, 2.0)
        self._add_pairs(products, v.u, step.v, 1, -1.0)
        self._add_pairs(products, step.u, v.v, 1, -1.0)
        self._add(quadratics, s.pair_w, dx)
        self._add_pairs(quadratics, v.f, step.g, s.pairs, 1.0)
        self._add_pairs(quadratics, step.f, v.g, s.pairs, 1.0)
        return out[self.edges[0] :]

    def residuals(self, it: Iterate, now: Evaluation) -> Residuals:
        """What is wrong at an iterate."""
        p, k, v = self.steps, self.kkt, now.values
        own = k.threads.rows
        y_g, y_p, y_q, y_c = self.by_kind(it.y)
        dual = np.empty_like(it.x)
        own(kernels.gradient, len(dual), dual, p.data["c"], now.quadratic, it.z_low, it.z_high)
        for e, y in ((p.a, it.y[: self.edges[0]]), (p.g, y_g), (p.pair_w, y_q)):
            k.threads.steps(kernels.add_product, dual, e.col, e.row, e.val, y)
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
        dual_s, rows = np.empty_like(it.s), now.rows.copy()
        first = self.edges[0]
        own(kernels.slack_gradient, len(it.s), dual_s, self.sign, it.y[first:], it.w_low, it.w_high)
        own(kernels.add_slack, len(it.s), rows[first:], self.sign, it.s)
        links = k.links(it.x) - p.data["link_b"] if k.n_links else np.zeros((0, p.n_steps))
        parts = own(kernels.largest_product, len(rows), rows, self._unscale)
        primal = max(float(np.max(parts)), float(np.max(np.abs(links * p.data["unscale_link"]), initial=0.0)))
        return Residuals(dual, dual_s, rows, links, primal, max(self._largest(dual), self._largest(dual_s)))


__all__ = ["Evaluation", "Residuals", "Rows", "Values"]
