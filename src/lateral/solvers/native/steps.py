"""A program as it repeats: the patterns of one step, the values of every step, and the rows that link steps.

Variables and rows of a multi-period program come in blocks of (element, step). What one step holds is the same at every
step; only storage rows reach back to the step before. `StepProgram` finds that structure in a `Program`, or declines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from lateral.network.schema import FloatArray, IntArray
from lateral.program import Block, Program
from lateral.program.rows import CurveRows
from lateral.solvers.native import kernels

#: Bounds that exclude each other by more than this are no rounding, in solver scale.
CROSSED = 1e-9
#: Difference of two sides that is none, as of the bounds of a variable (`kernels.settle`).
SAME = 1e-12


class Declined(Exception):
    """The program does not repeat step by step; the text says where."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Where the cells of some blocks are: element within a step, and step.

    Attributes:
        element: shape (cells,), of 32 bits as there are many; -1 for blocks without a time axis.
        step: shape (cells,), of 32 bits.
        n: number of elements of one step.
    """

    element: np.ndarray
    step: np.ndarray
    n: int

    @classmethod
    def of(cls, blocks: Sequence[Block], total: int, n_steps: int, without: Sequence[Block] = ()) -> Cells:
        """The cells of blocks that have ``n_steps`` steps, or cells at some steps only (`Block.at`); of some, none."""
        element, step, n = np.full(total, -1, dtype=np.int32), np.zeros(total, dtype=np.int32), 0
        for block in blocks:
            if block.at is not None:
                which, when = block.at
                _, number = np.unique(which, return_inverse=True)
                element[block.cells], step[block.cells] = n + number, when
                n += int(number.max(initial=-1)) + 1
            elif block.n_steps == n_steps and block not in without:
                k = len(block.elements)
                element[block.cells].reshape(k, n_steps)[:] = np.arange(n, n + k).reshape(-1, 1)
                step[block.cells].reshape(k, n_steps)[:] = np.arange(n_steps)
                n += k
        return cls(element, step, n)

    def those(self, number: IntArray) -> Cells:
        """Of some elements alone, with other numbers: -1 is none of them."""
        of = np.append(number, -1).astype(np.int32)  # an element of -1 finds the last
        return Cells(of[self.element], self.step, int(number.max(initial=-1)) + 1)

    def parts(self, of: IntArray, nth: IntArray, n: int) -> Cells:
        """Cells that are parts of these, ``n`` of each element: of which, and the how many-th of it."""
        return Cells((self.element[of] * n + nth).astype(np.int32), self.step[of], self.n * n)

    def present(self, n_steps: int) -> FloatArray:
        """1 where a cell exists, shape (n, T)."""
        return self.spread(np.ones(len(self.element)), n_steps)

    def spread(self, values: FloatArray, n_steps: int) -> FloatArray:
        """A vector over cells as (n, T)."""
        out = np.zeros((self.n, n_steps))
        kernels.spread(out, self.element, self.step, values)
        return out

    def gather(self, array: FloatArray, size: int) -> FloatArray:
        """(n, T) as a vector over cells; zero where a cell has no time axis."""
        out = np.zeros(size)
        kernels.gather(out, self.element, self.step, np.ascontiguousarray(array))
        return out


@dataclass(slots=True, eq=False)
class Entries:
    """Coefficients of one step: (row, column, value), values (entries, T), or (entries, 1) when the same at every step.

    Attributes:
        source: which nonzeros of the program's matrix these are.
        target: cell of each, entry * T + step.
        by_row, by_col: the entries in the order of their rows, and of their columns.
    """

    row: IntArray
    col: IntArray
    val: FloatArray
    source: IntArray
    target: IntArray
    by_row: IntArray = field(init=False)
    by_col: IntArray = field(init=False)
    _rows: IntArray = field(init=False, repr=False)
    _cols: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.by_row, self.by_col = np.argsort(self.row, kind="stable"), np.argsort(self.col, kind="stable")
        self._rows, self._cols = self.row[self.by_row], self.col[self.by_col]

    def of_rows(self, first: int, last: int) -> tuple[int, int]:
        """Where the entries of some rows are in ``by_row``."""
        return int(np.searchsorted(self._rows, first)), int(np.searchsorted(self._rows, last))

    def of_cols(self, first: int, last: int) -> tuple[int, int]:
        """Where the entries of some columns are in ``by_col``."""
        return int(np.searchsorted(self._cols, first)), int(np.searchsorted(self._cols, last))

    def refill(self, data: FloatArray, n_steps: int, rows: FloatArray, cols: FloatArray) -> None:
        """New values of the same pattern: the nonzeros of the program's matrix times the scales of their rows and
        columns, each (n, T), or (n, 1) when the same at every step."""
        full = np.zeros((len(self.row), n_steps))
        kernels.refill(full.reshape(-1), self.target, self.source, data)
        self.val = np.ascontiguousarray(_shortest(full) * rows[self.row] * cols[self.col])


def entries(
    matrix: sp.csr_array, rows: Cells, cols: Cells, n_steps: int, back: int, what: str, room: np.ndarray
) -> Entries:
    """The entries of a matrix whose column is ``back`` steps before the row; `Entries.refill` gives them values.

    Args:
        matrix: with indices as `short` makes them.
        room: for rows, columns, sources and targets, see `rooms`.

    Raises:
        Declined: an entry that reaches elsewhere than to the same step or the one before.
    """
    row, col, source, target = room
    n, found, fault = kernels.collect(
        matrix.indptr, matrix.indices, rows.element, rows.step, cols.element, cols.step, rows.n, cols.n, n_steps, back,
        row, col, source, target,
    )  # fmt: skip
    if fault == kernels.UNTIMED:
        message = f"{what} with variables that have no time axis"
        raise Declined(message)
    if fault == kernels.FURTHER:
        message = f"{what} that reach further than to the step before"
        raise Declined(message)
    # what is left of the room for the nonzeros was never touched, and takes no memory
    return Entries(row[:n].astype(np.int64), col[:n].astype(np.int64), np.zeros((n, 1)), source[:found], target[:found])


def short(matrices: Sequence[sp.csr_array], n_steps: int) -> list[sp.csr_array]:
    """The matrices with indices of 32 bits, where entry * n_steps + step is one too: no entry of a step is without a
    nonzero."""
    bits = np.int32 if max(matrix.nnz for matrix in matrices) * n_steps < 2**31 else np.int64
    return [
        sp.csr_array((m.data, m.indices.astype(bits, copy=False), m.indptr.astype(bits, copy=False)), shape=m.shape)
        for m in matrices
    ]


def rooms(matrices: Sequence[sp.csr_array]) -> list[np.ndarray]:
    """Room for the entries of some matrices, shape (4, nonzeros) each, of one piece: a system has large pages for that,
    and none for a thread's own arrays, where to touch a page for the first time costs more than what is put there."""
    ends = np.cumsum([0, *(matrix.nnz for matrix in matrices)])
    whole = np.empty((4, int(ends[-1])), dtype=matrices[0].indices.dtype)
    return [whole[:, first:last] for first, last in itertools.pairwise(ends)]


def _shortest(values: FloatArray) -> FloatArray:
    """One column where every step is the same."""
    if values.shape[1] > 1 and np.array_equal(values, np.broadcast_to(values[:, :1], values.shape)):
        return np.ascontiguousarray(values[:, :1])
    return np.ascontiguousarray(values)


@dataclass(slots=True, eq=False)
class StepProgram:
    """A program by steps, in solver scale.

    Rows of one step are, in this order: equalities, ranges (``l <= G x <= u``), products, quadratic rows, curves.
    Storage rows stand apart.

    Attributes:
        variables, equalities, ranges, products: where cells are.
        n_steps: number of steps T.
        alone: equalities of single variables without a time axis, which fix them: (row, column, coefficient).
        bounding: the same of ranges, which bound them.
        row_of: position of each equality of one step among the rows; -1 for storage rows.
        link_of: position of each equality of one step among the storage rows; -1 for others.
        a, g: coefficients of equalities and ranges, by the rows above.
        now, before: coefficients of the storage rows at their own step and at the step before.
        squares, u, v: coefficients of the products; row = product * width + which square.
        width: squares per product.
        q: coefficients of the quadratic objective.
        exact: products that are equalities.
        quadratics, curves: where their cells are.
        pair_f, pair_g: coefficients of the two factors of the quadratic rows; row = quadratic row * pairs + which pair.
        pair_w: coefficients of their linear part.
        pairs: pairs per quadratic row.
        pair_of, pair_step: where each pair of the program is.
        level: quadratic rows that are equalities.
        curve_y, curve_z: variables of each curve.
        curve_rows: the curves themselves, over the cells of the program.
        data: vectors and bounds, (elements, T) each.
        constant: constant of the objective.
        floor: size of objective below which a relative gap means nothing.
        crossed: whether the bounds of a variable exclude each other, so that there is no point.
    """

    variables: Cells
    equalities: Cells
    ranges: Cells
    products: Cells
    n_steps: int
    alone: tuple[IntArray, IntArray, FloatArray]
    bounding: tuple[IntArray, IntArray, FloatArray]
    row_of: IntArray
    link_of: IntArray
    a: Entries
    g: Entries
    now: Entries
    before: Entries
    squares: Entries
    u: Entries
    v: Entries
    width: int
    square_of: IntArray
    q: Entries
    exact: np.ndarray
    quadratics: Cells
    curves: Cells
    pair_f: Entries
    pair_g: Entries
    pair_w: Entries
    pairs: int
    pair_of: IntArray
    pair_step: IntArray
    level: np.ndarray
    curve_y: IntArray
    curve_z: IntArray
    curve_rows: CurveRows
    data: dict[str, FloatArray]
    constant: float = 0.0
    floor: float = 0.0
    crossed: bool = False

    @property
    def level_ranges(self) -> np.ndarray:
        """Ranges whose two sides are the same, shape (n, T): a source that may neither give nor take."""
        low, high = self.data["g_low"], self.data["g_high"]
        with np.errstate(invalid="ignore"):
            return np.asarray(np.isfinite(low) & (np.abs(high - low) <= SAME * np.maximum(1.0, np.abs(low))))

    @classmethod
    def of(cls, program: Program, *, threads: int = 1) -> StepProgram:
        """The steps of a program.

        Args:
            program: in its own units.
            threads: how many look through its matrices.

        Raises:
            Declined: it does not repeat.
        """
        if threads == 1:
            return cls._of(program, map)
        with ThreadPoolExecutor(threads) as pool:
            return cls._of(program, pool.map)

    @classmethod
    def _of(cls, program: Program, of_each: Callable[..., Iterator[Any]]) -> StepProgram:
        """``of_each`` maps a function over arguments, by several threads where there are."""
        n_steps = max((b.n_steps for b in program.variables), default=1)
        variables = Cells.of(program.variables, program.n, n_steps)
        untimed = [b.name for b in program.variables if b.n_steps != n_steps and b.at is None]
        if untimed:
            message = f"the variables {untimed[0]!r} have no time axis"
            raise Declined(message)
        alone = _alone_blocks(program.equalities, program.a, n_steps)
        equalities = Cells.of(program.equalities, len(program.b), n_steps, without=alone)
        ranges = Cells.of(program.inequalities, len(program.l), n_steps)
        p = program.products
        products = Cells.of(program.product_blocks, p.n_rows, n_steps)
        kth, width = _which_square(p.a_row, p.n_rows)
        rows_of_squares = products.parts(p.a_row, kth, width)
        exact = np.zeros(products.n, dtype=bool)
        exact[products.element] = p.equality
        q = program.quadratics
        quadratics = Cells.of(program.quadratic_blocks, q.n_rows, n_steps)
        nth, pairs = _which_square(q.row, q.n_rows)
        rows_of_pairs = quadratics.parts(q.row, nth, pairs)
        level = np.zeros(quadratics.n, dtype=bool)
        level[quadratics.element] = q.l == q.u
        if np.any(level[quadratics.element] != (q.l == q.u)):
            message = "quadratic rows that are equalities at some steps only"
            raise Declined(message)
        curves = Cells.of(program.curve_blocks, program.curves.n_rows, n_steps)
        curve_y, curve_z = np.zeros(curves.n, dtype=np.int64), np.zeros(curves.n, dtype=np.int64)
        curve_y[curves.element], curve_z[curves.element] = (
            variables.element[k] for k in (program.curves.y, program.curves.z)
        )
        for cells, k in ((curve_y, program.curves.y), (curve_z, program.curves.z)):
            if np.any(cells[curves.element] != variables.element[k]) or np.any(variables.step[k] != curves.step):
                message = "curves that are of other variables at other steps"
                raise Declined(message)

        def entries_of(of: tuple[sp.csr_array, np.ndarray, Cells, int, str]) -> Entries:
            matrix, room, rows, back, what = of
            return entries(matrix, rows, variables, n_steps, back, what, room)

        #: of each matrix: its rows by step, how many steps before them its columns are, and what it is
        kinds = (
            (ranges, 0, "ranges"),
            (rows_of_squares, 0, "products"),
            (products, 0, "products"),
            (products, 0, "products"),
            (variables, 0, "quadratic costs"),
            (rows_of_pairs, 0, "quadratic rows"),
            (rows_of_pairs, 0, "quadratic rows"),
            (quadratics, 0, "quadratic rows"),
        )
        *matrices, equal = short((program.g, p.a, p.u, p.v, sp.csr_array(program.q), q.f, q.g, q.w, program.a), n_steps)
        found = zip(matrices, rooms(matrices), kinds, strict=True)
        others = of_each(entries_of, [(matrix, room, *kind) for matrix, room, kind in found])
        # threads begin, while here it goes on
        # storage rows: those that reach back, and blocks of that name where nothing carries (one step)
        own, *three = rooms([equal] * 4)
        back = entries(equal, equalities, variables, n_steps, 1, "equalities", own)
        linked = np.zeros(equalities.n, dtype=bool)
        linked[back.row] = True
        row_of, link_of = np.full(equalities.n, -1), np.full(equalities.n, -1)
        row_of[~linked], link_of[linked] = np.arange(int((~linked).sum())), np.arange(int(linked.sum()))
        within, links = equalities.those(row_of), equalities.those(link_of)
        of_rows = zip(three, ((within, 0), (links, 0), (links, 1)), strict=True)
        a, now, before = of_each(entries_of, [(equal, room, *of, "equalities") for room, of in of_rows])
        g, squares, u, v, quadratic, pair_f, pair_g, pair_w = others
        fixing = _alone(alone, program.a, program.eq_scale, program.col_scale)
        bounds = [b for b in program.inequalities if b.n_steps != n_steps and b.at is None]
        bounding = _alone(bounds, program.g, program.ineq_scale, program.col_scale)
        out = cls(
            variables=variables,
            equalities=equalities,
            ranges=ranges,
            products=products,
            n_steps=n_steps,
            alone=fixing,
            bounding=bounding,
            row_of=row_of,
            link_of=link_of,
            a=a,
            g=g,
            now=now,
            before=before,
            squares=squares,
            u=u,
            v=v,
            width=width,
            square_of=rows_of_squares.element,
            q=quadratic,
            exact=exact,
            quadratics=quadratics,
            curves=curves,
            pair_f=pair_f,
            pair_g=pair_g,
            pair_w=pair_w,
            pairs=pairs,
            pair_of=rows_of_pairs.element,
            pair_step=rows_of_pairs.step,
            level=level,
            curve_y=curve_y,
            curve_z=curve_z,
            curve_rows=program.curves,
            data={},
        )
        for name, e, count in (
            ("ranges", out.g, program.g.nnz - len(bounding[0])),
            ("products", out.squares, p.a.nnz),
            ("products", out.u, p.u.nnz),
            ("products", out.v, p.v.nnz),
            ("quadratic costs", out.q, program.q.nnz),
            ("quadratic rows", out.pair_f, q.f.nnz),
            ("quadratic rows", out.pair_g, q.g.nnz),
            ("quadratic rows", out.pair_w, q.w.nnz),
        ):
            if len(e.source) < count:
                message = f"{name} that reach back in time"
                raise Declined(message)
        out._take(program, of_each)
        return out

    def load(self, program: Program) -> None:
        """The numbers of a program of this pattern."""
        self._take(program, map)

    def _take(self, program: Program, of_each: Callable[..., Iterator[Any]]) -> None:
        """The numbers, scaled as `Program.scaled` does it, but matrices by steps, where they are short."""
        t, p, q, d, f = self.n_steps, program.products, program.quadratics, program.col_scale, program.objective_scale
        of_products, of_quadratics = program.product_scale, program.quadratic_scale
        vectors: tuple[tuple[Cells, Callable[[], FloatArray]], ...] = (
            (self.variables, lambda: program.lb / d),
            (self.variables, lambda: program.ub / d),
            (self.variables, lambda: program.c * d * f),
            (self.variables, lambda: program.start_point / d),
            (self.variables, lambda: d),
            (self.equalities, lambda: program.b * program.eq_scale),
            (self.equalities, lambda: program.eq_scale),
            (self.ranges, lambda: program.l * program.ineq_scale),
            (self.ranges, lambda: program.u * program.ineq_scale),
            (self.ranges, lambda: program.ineq_scale),
            (self.products, lambda: p.u0 * of_products),
            (self.products, lambda: p.v0),
            (self.products, lambda: of_products),
            (self.quadratics, lambda: q.l * of_quadratics),
            (self.quadratics, lambda: q.u * of_quadratics),
            (self.quadratics, lambda: of_quadratics),
            (self.curves, lambda: program.curve_scale),
        )
        (low, high, c, start, col, b, scale, g_low, g_high, g_scale, u0, v0, p_scale, q_low, q_high, q_scale,
         c_scale) = of_each(lambda of: of[0].spread(of[1](), t), vectors)  # fmt: skip
        of_rows, of_links = self.row_of >= 0, self.link_of >= 0
        cols, equal, product, quadratic = (_steady(x) for x in (col, scale, p_scale, q_scale))
        earlier = cols[:, np.maximum(np.arange(cols.shape[1]) - 1, 0)]
        squares, pairs = np.repeat(np.sqrt(product), self.width, axis=0), np.repeat(quadratic, self.pairs, axis=0)
        matrices = (
            (self.a, program.a, equal[of_rows], cols), (self.now, program.a, equal[of_links], cols),
            (self.before, program.a, equal[of_links], earlier), (self.g, program.g, _steady(g_scale), cols),
            (self.squares, p.a, squares, cols), (self.u, p.u, product, cols),
            (self.v, p.v, np.ones_like(product), cols), (self.q, sp.csr_array(program.q), cols * f, cols),
            (self.pair_f, q.f, pairs, cols), (self.pair_g, q.g, np.ones_like(pairs), cols),
            (self.pair_w, q.w, quadratic, cols),
        )  # fmt: skip
        list(of_each(lambda of: of[0].refill(of[1].data, t, *of[2:]), matrices))
        f0, g0 = np.zeros((self.quadratics.n * self.pairs, t)), np.zeros((self.quadratics.n * self.pairs, t))
        f0[self.pair_of, self.pair_step], g0[self.pair_of, self.pair_step] = q.f0 * of_quadratics[q.row], q.g0
        self.curve_rows = program.curves.scaled(program.curve_scale, d)
        rows, of, coefficients = self.bounding
        if len(rows):
            at = self.variables.element[of], self.variables.step[of]
            sides = np.stack([program.l[rows], program.u[rows]]) * program.ineq_scale[rows] / coefficients
            sides.sort(axis=0)
            low[at], high[at] = np.maximum(low[at], sides[0]), np.minimum(high[at], sides[1])
        fixed, value = np.empty_like(low), np.empty_like(low)
        self.crossed = bool(kernels.settle(low, high, col, fixed, value) > CROSSED)
        rows, of, coefficients = self.alone
        at = self.variables.element[of], self.variables.step[of]
        fixed[at], value[at] = 1.0, program.b[rows] * program.eq_scale[rows] / coefficients
        beyond = np.maximum(low[at] - value[at], value[at] - high[at])
        self.crossed |= bool(np.any(beyond > CROSSED * np.maximum(1.0, np.abs(value[at]))))
        a0 = np.zeros((self.products.n * self.width, t))
        if len(p.a0):
            a0[self.square_of, self.products.step[p.a_row]] = p.a0 * np.sqrt(of_products)[p.a_row]
        self.constant, self.floor = program.c0 * f, program.objective_floor * f
        present = self.quadratics.present(t)
        kinds = self.ranges.present(t), self.products.present(t), present, self.curves.present(t)
        there, first = np.ones((int(of_rows.sum()) + sum(map(len, kinds)), t)), int(of_rows.sum())
        for kind in kinds:
            there[first : first + len(kind)] = kind
            first += len(kind)
        self.data = {
            "c": c,
            "low": low,
            "high": high,
            "fixed": fixed,
            "value": value,
            "b": b[of_rows],
            "link_b": b[of_links],
            "g_low": g_low,
            "g_high": g_high,
            "a0": a0,
            "u0": u0,
            "v0": v0,
            "pair_f0": f0,
            "pair_g0": g0,
            "q_low": np.where(present > 0.0, q_low, -np.inf),
            "q_high": np.where(present > 0.0, q_high, np.inf),
            "present": there,
            "start": start,
            "unscale_b": 1.0 / scale[of_rows],
            "unscale_link": 1.0 / scale[of_links],
            "unscale_g": 1.0 / np.maximum(g_scale, 1e-300),
            "unscale_p": 1.0 / np.maximum(p_scale, 1e-300),
            "unscale_q": _inverse(q_scale),
            "unscale_c": _inverse(c_scale),
        }


def _inverse(values: FloatArray) -> FloatArray:
    """1 / values; 0 where there is no row."""
    return np.where(values > 0.0, 1.0 / np.where(values > 0.0, values, 1.0), 0.0)


def _steady(scale: FloatArray) -> FloatArray:
    """One column where the scales of what exists are the same at every step; those of what does not are any."""
    most = scale.max(axis=1, keepdims=True, initial=0.0)
    return most if np.all((scale == most) | (scale == 0.0)) else scale


def _alone_blocks(blocks: Sequence[Block], matrix: sp.csr_array, n_steps: int) -> list[Block]:
    """Blocks of equalities without a time axis; of a single step, where every block looks alike, limits of one variable
    each: the energy of batteries at the end."""
    count = np.diff(matrix.indptr)
    return [
        b
        for b in blocks
        if b.at is None and (b.n_steps != n_steps or (n_steps == 1 and b.limit and np.all(count[b.cells] == 1)))
    ]


def _alone(
    untimed: Sequence[Block], matrix: sp.csr_array, row_scale: FloatArray, col_scale: FloatArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Rows without a time axis, each of one variable: row, variable, coefficient in solver scale."""
    if not untimed:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros(0)
    which = np.concatenate([np.arange(b.start, b.start + b.size) for b in untimed])
    first, count = matrix.indptr[which], np.diff(matrix.indptr)[which]
    if np.any(count != 1):
        message = f"the rows {untimed[0].name!r} have no time axis, and more than one variable each"
        raise Declined(message)
    of = matrix.indices[first].astype(np.int64)
    return which, of, matrix.data[first] * row_scale[which] * col_scale[of]


def _which_square(a_row: IntArray, n_rows: int) -> tuple[IntArray, int]:
    """Number of each square within its row, and the largest count."""
    if not n_rows:
        return np.zeros(0, dtype=np.int32), 1
    counts = np.bincount(a_row, minlength=n_rows)
    kth = np.arange(len(a_row)) - np.repeat(np.cumsum(counts) - counts, counts)
    if np.any(a_row[1:] < a_row[:-1]):  # else they are in order as they are
        in_order, kth = kth, np.empty_like(kth)
        kth[np.argsort(a_row, kind="stable")] = in_order
    return kth, int(counts.max(initial=1))


def step_pattern(s: StepProgram) -> tuple[IntArray, IntArray]:
    """Which unknowns of one step meet in the linear system: (row, column), either triangle, some of them twice.

    Unknowns are the variables, then the rows in the order of `StepProgram`.
    """
    nv = s.variables.n
    g_first = nv + int((s.row_of >= 0).sum())
    p_first = g_first + s.ranges.n
    q_first = p_first + s.products.n
    curve_row = q_first + s.quadratics.n + np.arange(s.curves.n)
    one, two = same_row(s.squares.row, s.squares.row)
    first, second = same_row(s.u.row, s.v.row)
    left, right = same_row(s.pair_f.row, s.pair_g.row)
    # the preconditioner of the storage rows needs the entries of the inverse at pairs of one storage row
    now, beside = same_row(s.now.row, s.now.row)
    before, earlier = same_row(s.before.row, s.before.row)
    a, b = same_row(s.before.row, s.now.row)
    pairs = [
        (s.a.row + nv, s.a.col),
        (s.g.row + g_first, s.g.col),
        (s.q.row, s.q.col),
        (s.squares.row // s.width + p_first, s.squares.col),
        (s.u.row + p_first, s.u.col),
        (s.v.row + p_first, s.v.col),
        (s.squares.col[one], s.squares.col[two]),
        (s.u.col[first], s.v.col[second]),
        (s.pair_f.row // s.pairs + q_first, s.pair_f.col),
        (s.pair_g.row // s.pairs + q_first, s.pair_g.col),
        (s.pair_w.row + q_first, s.pair_w.col),
        (s.pair_f.col[left], s.pair_g.col[right]),
        (curve_row, s.curve_y),
        (curve_row, s.curve_z),
        (s.now.col[now], s.now.col[beside]),
        (s.before.col[before], s.before.col[earlier]),
        (s.before.col[a], s.now.col[b]),
    ]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def same_row(x: IntArray, y: IntArray) -> tuple[IntArray, IntArray]:
    """All pairs (entry of x, entry of y) of the same row."""
    order = np.argsort(y, kind="stable")
    low, high = np.searchsorted(y[order], x, "left"), np.searchsorted(y[order], x, "right")
    count = high - low
    first = np.repeat(np.arange(len(x)), count)
    offset = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    return first, order[np.repeat(low, count) + offset]


__all__ = ["Cells", "Declined", "Entries", "StepProgram", "entries", "rooms", "same_row", "short", "step_pattern"]
