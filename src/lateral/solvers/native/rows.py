"""The rows of all steps at a point, and how far an iterate is from the optimality conditions.

    r(x) = A x - b,   G x,   sum a^2 - u v,   sum f g + w x - d,   y - phi(z)

without slacks, in this order. What depends on x alone is found once per point (`Rows.at`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lateral.network.schema import FloatArray
from lateral.solvers.native import kernels
from lateral.solvers.native.barrier import Pair
from lateral.solvers.native.iterate import Iterate
from lateral.solvers.native.kkt import Kkt
from lateral.solvers.native.pairing import curve_slopes
from lateral.solvers.native.steps import Entries, StepProgram
from lateral.solvers.native.threads import Share

#: Least barrier of a slack.
LEAST = 1e-14
#: Numbers of a block of arrays, at most, and of a line of the cache.
BLOCK, LINE = 2**22, 8


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The affine parts of the nonlinear rows at a point: squares a, u, v of products; f, g of quadratic rows."""

    a: FloatArray
    u: FloatArray
    v: FloatArray
    f: FloatArray
    g: FloatArray

    @property
    def all(self) -> tuple[FloatArray, ...]:
        """In this order."""
        return self.a, self.u, self.v, self.f, self.g


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
        dual_x, dual_s: what is left of the gradient, of variables and of slacks; 0 of a variable that is fixed.
        of_fixed: the gradient of these.
        equal: of the equalities.
        rows: of the other rows, with their slacks.
        links: of the storage rows.
        primal: largest of rows and links, in the units of the program.
        dual: largest of dual_x and dual_s.
    """

    dual_x: FloatArray
    dual_s: FloatArray
    of_fixed: FloatArray
    equal: FloatArray
    rows: FloatArray
    links: FloatArray
    primal: float
    dual: float


class Room:
    """Arrays that are used again and again: fresh pages of large ones cost more than what is computed in them. They are
    cut from blocks, as a system has large pages for large blocks only."""

    def __init__(self) -> None:
        self._arrays: dict[str, FloatArray] = {}
        self._block, self._used = np.zeros(0), 0

    def empty(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """The array of a name, with what was last in it."""
        if name not in self._arrays or self._arrays[name].shape != shape:
            self._arrays[name] = self._cut(shape)
        return self._arrays[name]

    def _cut(self, shape: tuple[int, ...]) -> FloatArray:
        """Zeros, from where the block is free on; they begin at multiples of a line of the cache."""
        size = math.prod(shape)
        if self._used + size > len(self._block):
            self._block, self._used = np.zeros(max(size, min(BLOCK, 16 * size))), 0
        out = self._block[self._used : self._used + size].reshape(shape)
        self._used += -(-size // LINE) * LINE
        return out

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
        self._fixed, self._s_fixed = np.nonzero(d["fixed"] > 0.0), np.nonzero(s.level_ranges)
        #: the same kinds of rows: from the first to before the last that has a slack
        self._with_slack = [_span(part[:, 0] != 0.0) for part in self.by_kind(self.sign)]

    def by_kind(self, rows: FloatArray) -> list[FloatArray]:
        """Of the rows that are not equalities: those of ranges, products, quadratic rows and curves."""
        return [rows[a:b] for a, b in itertools.pairwise(self._edges)]

    def largest(self, *arrays: FloatArray) -> float:
        """Largest magnitude; NaN stays NaN."""
        one = np.ones((1, self.steps.n_steps))
        found = self.kkt.threads.shares(lambda m: [kernels.largest_product(a, one, *m.of(len(a))) for a in arrays])
        return float(np.max(found))

    def are_numbers(self, *arrays: FloatArray) -> bool:
        """Whether all are finite."""
        found = self.kkt.threads.shares(lambda m: [kernels.not_numbers(a, *m.of(len(a))) for a in arrays])
        return bool(np.all(np.isfinite(found)))

    # -- at a point ---------------------------------------------------------------------------------------------------

    def _parts(self) -> list[tuple[Entries, str, int]]:
        """Coefficients, constants and number of the parts of the nonlinear rows, in the order of `Values`."""
        s = self.steps
        return [
            (s.squares, "a0", s.products.n * s.width),
            (s.u, "u0", s.products.n),
            (s.v, "v0", s.products.n),
            (s.pair_f, "pair_f0", s.quadratics.n * s.pairs),
            (s.pair_g, "pair_g0", s.quadratics.n * s.pairs),
        ]

    def _room_for(self, of: str) -> Values:
        t = self.steps.n_steps
        return Values(*(self._room.empty(f"{of} {name}", (n, t)) for _, name, n in self._parts()))

    def _put_values(self, out: Values, x: FloatArray, mine: Share, *, constant: bool, slack: bool = False) -> None:
        """What the nonlinear rows are made of at x; without constants, of a step; of all, or of those with a slack."""
        p, q = self.steps.products.n, self.steps.quadratics.n
        product, quadratic = self._with_slack[1:3] if slack else ((0, p), (0, q))
        # a thread has the parts of its own rows
        spans = (product, product, product, quadratic, quadratic)
        for (e, name, size), n, span, values in zip(self._parts(), (p, p, p, q, q), spans, out.all, strict=True):
            per = size // max(n, 1)
            first, last = (per * k for k in mine.between(*span))
            if first == last:
                continue
            values[first:last] = self.steps.data[name][first:last] if constant else 0.0
            _add(values, e, x, first, last)

    def _put_rows(self, out: FloatArray, x: FloatArray, v: Values, mine: Share) -> None:
        """Left minus right of the rows that are not equalities, without slacks; of curves, nothing."""
        for part, right in zip(self.by_kind(out), self.by_kind(self._right), strict=True):
            if len(part):
                own = slice(*mine.of(len(part)))
                np.negative(right[own], out=part[own])
        ranges, _, quadratics, _ = self.by_kind(out)
        _add(ranges, self.steps.g, x, *mine.of(len(ranges)))
        _add(quadratics, self.steps.pair_w, x, *mine.of(len(quadratics)))
        self._add_second_order(out, v, 1.0, mine)

    def _add_second_order(self, rows: FloatArray, v: Values, factor: float, mine: Share) -> None:
        _, products, quadratics, _ = self.by_kind(rows)
        if len(products):
            kernels.add_pairs(products, v.a, v.a, self.steps.width, factor, *mine.of(len(products)))
            kernels.add_pairs(products, v.u, v.v, 1, -factor, *mine.of(len(products)))
        if len(quadratics):
            kernels.add_pairs(quadratics, v.f, v.g, self.steps.pairs, factor, *mine.of(len(quadratics)))

    def with_second_order(self, rows: FloatArray, dx: FloatArray, factor: float) -> FloatArray:
        """Rows plus ``factor (sum a^2 - u v)`` of products and ``factor sum f g`` of quadratic rows, of a step dx."""
        out, step = self._room.empty("second order", rows.shape), self._room_for("step")

        def own(mine: Share) -> None:
            self._put_values(step, dx, mine, constant=False)
            for part, given in zip(self.by_kind(out), self.by_kind(rows), strict=True):
                if len(part):
                    share = slice(*mine.of(len(part)))
                    part[share] = given[share]
            self._add_second_order(out, step, factor, mine)

        self.kkt.threads.shares(own)
        return out

    def at(self, x: FloatArray) -> Evaluation:
        """Everything that depends on x alone."""
        s = self.steps
        values, rows = self._room_for("value"), self._room.empty("rows", self._right.shape)
        equal, quadratic = self._room.empty("equal", s.data["b"].shape), self._room.empty("quadratic", x.shape)
        worth = np.empty(len(x))  # of each variable, as sums by threads would depend on how many there are

        def own(mine: Share) -> None:
            self._put_values(values, x, mine, constant=True)
            share = slice(*mine.of(len(equal)))
            np.negative(s.data["b"][share], out=equal[share])
            _add(equal, s.a, x, *mine.of(len(equal)))
            self._put_rows(rows, x, values, mine)
            if len(s.q.row):  # else it is zero and stays so
                quadratic[slice(*mine.of(len(x)))] = 0.0
                _add(quadratic, s.q, x, *mine.of(len(x)))
            kernels.value(worth, s.data["c"], quadratic, x, *mine.of(len(x)))

        self.kkt.threads.shares(own)
        _, _, quadratics, curves = self.by_kind(rows)
        if s.quadratics.n:
            quadratics *= s.data["present"][len(equal) :][self._edges[2] : self._edges[3]]
        if s.curves.n:
            flat = s.variables.gather(x, len(s.variables.element))
            curves += s.curves.spread(s.curve_rows.value(flat), s.n_steps)
        return Evaluation(values, equal, rows, quadratic, float(worth.sum()) + s.constant)

    # -- slacks --------------------------------------------------------------------------------------------------------

    def _shares(self, mine: Share) -> Iterator[slice]:
        """A thread's share of the rows with a slack, kind by kind; others between them come along."""
        for edge, span in zip(self._edges, self._with_slack, strict=False):
            first, last = mine.between(*span)
            if first < last:
                yield slice(edge + first, edge + last)

    def slack_diagonal(self, out: FloatArray, diagonal: FloatArray, mine: Share) -> None:
        """``1 / diagonal`` of the rows with a slack; 0 where a row has none."""
        for at in self._shares(mine):
            np.maximum(diagonal[at], LEAST, out=out[at])
            np.divide(np.abs(self.sign[at]), out[at], out=out[at])

    def slack_steps(
        self,
        ds: FloatArray,
        r_s: FloatArray,
        slack: FloatArray,
        dy: FloatArray,
        far: float,
        rows: FloatArray,
        v: Values,
        dx: FloatArray,
        mine: Share,
    ) -> None:
        """``ds = (r_s - sign dy) slack`` of the rows with a slack, and where ``slack`` is above ``far``, what the row
        itself says that its slack becomes: its slopes J dx, zero of curves, which have no slack. A thread's share."""
        s, slopes, step = self.steps, self._room.empty("slopes", ds.shape), self._room_for("step")
        if not any(last > first for first, last in self._with_slack):
            return
        ranges, products, quadratics, _ = self.by_kind(slopes)
        of_range, of_product, of_quadratic, _ = (mine.between(*span) for span in self._with_slack)
        self._put_values(step, dx, mine, constant=False, slack=True)
        for at in self._shares(mine):
            slopes[at] = 0.0
        _add(ranges, s.g, dx, *of_range)
        if of_product[0] < of_product[1]:
            for f, g, per, factor in ((v.a, step.a, s.width, 2.0), (v.u, step.v, 1, -1.0), (step.u, v.v, 1, -1.0)):
                kernels.add_pairs(products, f, g, per, factor, *of_product)
        _add(quadratics, s.pair_w, dx, *of_quadratic)
        if of_quadratic[0] < of_quadratic[1]:
            for f, g in ((v.f, step.g), (step.f, v.g)):
                kernels.add_pairs(quadratics, f, g, s.pairs, 1.0, *of_quadratic)
        for at in self._shares(mine):
            kernels.slack_steps(ds, r_s, dy, slack, self.sign, slopes, rows, far, at.start, at.stop)

    def reset_slacks(
        self, s: FloatArray, low: FloatArray, high: FloatArray, w: Pair, rows: FloatArray, mine: Share
    ) -> None:
        """Give slacks what their row really has, where that is further from the bound, or near and the bound does not
        hold it; a thread's share."""
        for at in self._shares(mine):
            real = -self.sign[at] * rows[at]
            now = np.minimum(s[at] - low[at], high[at] - s[at])
            then = np.minimum(real - low[at], high[at] - real)
            near = (np.abs(real - s[at]) <= 0.1 * now) & (now > w[0][at] + w[1][at])
            np.copyto(s[at], real, where=(self.sign[at] != 0.0) & ((then >= now) | near))

    def residuals(self, it: Iterate, now: Evaluation) -> Residuals:
        """What is wrong at an iterate."""
        p, k, v = self.steps, self.kkt, now.values
        y, others = it.y[: k.n_rows], it.y[k.n_rows :]
        y_g, y_p, y_q, y_c = self.by_kind(others)
        dual = self._room.empty("dual", it.x.shape)
        dual_s, rows = (self._room.empty(name, it.s.shape) for name in ("dual of slacks", "residual"))

        def own(mine: Share) -> float:
            mine_x, mine_s = mine.of(len(dual)), mine.of(len(rows))
            kernels.gradient(dual, p.data["c"], now.quadratic, it.z_low, it.z_high, *mine_x)
            for e, of in ((p.a, y), (p.g, y_g), (p.pair_w, y_q)):
                if len(e.row):
                    kernels.add_product(dual, e.by_col, e.col, e.row, e.val, of, *e.of_cols(*mine_x))
            for e, left, of, per, factor in (
                (p.squares, v.a, y_p, p.width, 2.0),
                (p.u, v.v, y_p, 1, -1.0),
                (p.v, v.u, y_p, 1, -1.0),
                (p.pair_f, v.g, y_q, p.pairs, 1.0),
                (p.pair_g, v.f, y_q, p.pairs, 1.0),
            ):
                if len(e.row):
                    kernels.add_slopes(dual, e.by_col, e.col, e.row, e.val, left, of, per, factor, *e.of_cols(*mine_x))
            kernels.slack_residuals(dual_s, rows, self.sign, others, it.w_low, it.w_high, now.rows, it.s, *mine_s)
            equal = kernels.largest_product(now.equal, p.data["unscale_b"], *mine.of(len(now.equal)))
            return float(np.max([equal, kernels.largest_product(rows, self._unscale, *mine_s)]))

        primal = k.threads.shares(own)
        if p.curves.n:
            y_slope, z_slope, _ = curve_slopes(p, it.x)
            np.add.at(dual, p.curve_y, y_slope * y_c)
            np.add.at(dual, p.curve_z, z_slope * y_c)
        links = np.zeros((0, p.n_steps))
        if k.n_links:
            k.links_transposed(it.eta, dual)
            links = k.links(it.x) - p.data["link_b"]
        of_fixed = dual[self._fixed]
        dual[self._fixed] = 0.0
        dual_s[self._s_fixed] = 0.0
        primal.append(np.max(np.abs(links * p.data["unscale_link"]), initial=0.0))
        return Residuals(
            dual, dual_s, of_fixed, now.equal, rows, links, float(np.max(primal)), self.largest(dual, dual_s)
        )

    def reduced_cost(self, it: Iterate, r: Residuals) -> FloatArray:
        """The gradient less what rows make of it, which bounds take, in the place of ``r.dual_x``."""
        out = r.dual_x

        def own(mine: Share) -> None:
            at = slice(*mine.of(len(out)))
            out[at] += it.z_low[at]
            out[at] -= it.z_high[at]

        self.kkt.threads.shares(own)
        out[self._fixed] = r.of_fixed
        return out


def _span(there: np.ndarray) -> tuple[int, int]:
    """The first, and one after the last."""
    at = np.flatnonzero(there)
    return (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)


def _add(out: FloatArray, e: Entries, x: FloatArray, first: int, last: int) -> None:
    """``out += E x`` at some rows."""
    if len(e.row):  # to call for nothing takes its time too, and threads wait for one another there
        kernels.add_product(out, e.by_row, e.row, e.col, e.val, x, *e.of_rows(first, last))


__all__ = ["Evaluation", "Residuals", "Room", "Rows", "Values"]
