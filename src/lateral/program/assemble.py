"""Affine arrays as vectors, sparse matrices and rows of a `Program`, with the maps by which they follow the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from lateral.network.schema import FloatArray, IntArray
from lateral.program.affine import Affine, stack
from lateral.program.program import Block, DataMap
from lateral.program.rows import ProductRows, QuadraticRows

#: block, squares, u, v, whether with equality, scale
Product = tuple[Block, list[Affine], Affine, Affine, bool, FloatArray]


@dataclass(eq=False)
class Quadratics:
    """Quadratic rows collected so far."""

    blocks: list[Block] = field(default_factory=list)
    pairs: list[list[tuple[Affine, Affine]]] = field(default_factory=list)
    linear: list[Affine] = field(default_factory=list)
    lower: list[Affine] = field(default_factory=list)
    upper: list[Affine] = field(default_factory=list)
    scale: list[FloatArray] = field(default_factory=list)
    size: int = 0


@dataclass(eq=False)
class Rows:
    """Rows collected so far: blocks, left sides, scales and (for inequalities) ranges."""

    blocks: list[Block] = field(default_factory=list)
    exprs: list[Affine] = field(default_factory=list)
    scale: list[FloatArray] = field(default_factory=list)
    lower: list[Affine] = field(default_factory=list)
    upper: list[Affine] = field(default_factory=list)
    size: int = 0


class Assembly:
    """What affine arrays over ``n`` variables come to at the data ``theta``; ``maps`` has how they follow it."""

    def __init__(self, n: int, theta: FloatArray) -> None:
        self.n = n
        self.theta = theta
        self.maps: dict[str, DataMap] = {}

    def vector(self, name: str, parts: list[Affine], sign: float = 1.0) -> FloatArray:
        """A vector of data: constants plus parameter terms."""
        if not parts:
            return np.zeros(0)
        whole = _flat(parts)
        only = (whole.col < 0) & (whole.par >= 0)
        base = sign * whole.const
        if not np.any(only):
            return base
        matrix = sp.csr_array(
            (sign * whole.val[only], (whole.row[only], whole.par[only])), shape=(len(base), len(self.theta))
        )
        self.maps[name] = DataMap(base, matrix)
        return self.maps[name].at(self.theta)

    def matrix(self, name: str, parts: list[Affine]) -> sp.csr_array:
        """Coefficients of the variables, one row per cell."""
        size = sum(p.n * p.n_steps for p in parts)
        if not parts:
            return sp.csr_array((0, self.n))
        whole = _flat(parts)
        return _coefficients(name, whole.row, whole.col, whole.par, whole.val, (size, self.n), self.theta, self.maps)

    def products(self, collected: Sequence[Product]) -> ProductRows:
        """The product rows."""
        squares = [s for _, terms, *_ in collected for s in terms]
        a_row = (
            np.concatenate([np.arange(block.size) + block.start for block, terms, *_ in collected for _ in terms])
            if collected
            else np.zeros(0, dtype=np.int64)
        )
        p_a, p_a0 = self.matrix("pa", squares), self.vector("a0", squares)
        p_u, p_u0 = self.matrix("pu", [p[2] for p in collected]), self.vector("u0", [p[2] for p in collected])
        p_v, p_v0 = self.matrix("pv", [p[3] for p in collected]), self.vector("v0", [p[3] for p in collected])
        equality = (
            np.concatenate([np.full(p[0].size, p[4]) for p in collected]) if collected else np.zeros(0, dtype=bool)
        )
        return ProductRows(p_a, p_a0, a_row, p_u, p_u0, p_v, p_v0, equality)

    def quadratics(self, rows: Quadratics) -> tuple[QuadraticRows, FloatArray, FloatArray]:
        """The quadratic rows, their scale, and constants and data of the linear part, which move to the sides."""
        if not rows.size:
            return QuadraticRows.none(self.n), np.zeros(0), np.zeros(0)
        f, g = ([pair[k] for pairs in rows.pairs for pair in pairs] for k in (0, 1))
        row = np.concatenate(
            [np.arange(b.size) + b.start for b, pairs in zip(rows.blocks, rows.pairs, strict=True) for _ in pairs]
        )
        offset = [data_part(m) for m in rows.linear]
        low = self.vector("ql", [x - o for x, o in zip(rows.lower, offset, strict=True)])
        high = self.vector("qu", [x - o for x, o in zip(rows.upper, offset, strict=True)])
        f_matrix, f0 = self.matrix("qf", f), self.vector("qf0", f)
        g_matrix, g0 = self.matrix("qg", g), self.vector("qg0", g)
        quadratics = QuadraticRows(f_matrix, f0, g_matrix, g0, row, self.matrix("qw", rows.linear), low, high)
        return quadratics, np.concatenate(rows.scale), self.vector("quadratic_offset", offset)

    def objective(
        self, linear: list[Affine], forms: list[tuple[Affine, Affine, Affine]]
    ) -> tuple[FloatArray, float, sp.csc_array]:
        """Linear costs, constant and 1/2 x'Qx of the squares."""
        theta, maps = self.theta, self.maps
        total = stack(linear) if linear else Affine.zeros(1, 1)
        var = total.col >= 0
        c = np.bincount(
            total.col[var],
            weights=total.val[var] * np.where(total.par[var] >= 0, theta[total.par[var]] if len(theta) else 0.0, 1.0),
            minlength=self.n,
        ).astype(float)
        with_par = var & (total.par >= 0)
        if np.any(with_par):
            m = sp.csr_array(
                (total.val[with_par], (total.col[with_par], total.par[with_par])), shape=(self.n, len(theta))
            )
            maps["c"] = DataMap(c - m @ theta, m)
        only = (~var) & (total.par >= 0)
        c0 = float(total.const.sum())
        if np.any(only):
            m0 = sp.csr_array(
                (total.val[only], (np.zeros(int(only.sum()), dtype=int), total.par[only])), shape=(1, len(theta))
            )
            maps["c0"] = DataMap(np.array([c0]), m0)
            c0 = float(maps["c0"].at(theta)[0])
        if not forms:
            return c, c0, sp.csc_array((self.n, self.n))
        q = _coefficients("q", *_quadratic(forms, self.n), (self.n, self.n), theta, maps)
        # symmetric, so that CSR and CSC share their arrays
        return c, c0, sp.csc_array((q.data, q.indices, q.indptr), shape=q.shape)


def _flat(parts: list[Affine]) -> Affine:
    """Arrays of any shapes below each other, as one column of cells: shape (cells, 1)."""
    return stack([Affine(p.n * p.n_steps, 1, p.row, p.col, p.par, p.val, p.const) for p in parts])


def _quadratic(forms: list[tuple[Affine, Affine, Affine]], n: int) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Entries of Q in ``x'Q x = sum_c w_c f_c(x) g_c(x)`` as (row, column, parameter or -1, value).

    With F and G of one row per cell and weight term, Q = F' G: G has a column of its own for each pair of a variable
    and the parameter that its weight follows. Both carry the root of the weight, so that the Q of a square is symmetric
    to the last digit. Entries that cancel to zero are left out.
    """
    left: list[tuple[IntArray, IntArray, FloatArray]] = []
    right: list[tuple[IntArray, IntArray, IntArray, FloatArray]] = []
    cells = 0
    for f, g, weight in forms:
        for index, par, value in _weight_terms(weight):
            for expr, first in ((f, True), (g, False)):
                var = expr.col >= 0
                term = index[expr.row[var]]
                keep = term >= 0
                size = value[term[keep]]
                row, col = expr.row[var][keep] + cells, expr.col[var][keep]
                root = expr.val[var][keep] * np.sqrt(np.abs(size))
                if first:
                    left.append((row, col, root))
                else:
                    right.append((row, col, par[term[keep]], root * np.sign(size)))
            cells += len(f.const)
    if not left:
        none = np.zeros(0, dtype=np.int64)
        return none, none, none, np.zeros(0)
    f_row, f_col, f_val = (np.concatenate(part) for part in zip(*left, strict=True))
    g_row, g_col, g_par, g_val = (np.concatenate(part) for part in zip(*right, strict=True))
    stride = int(g_par.max(initial=-1)) + 2
    pairs, place = np.unique(g_col * stride + g_par + 1, return_inverse=True)
    by_cell = sp.csr_array((f_val, (f_col, f_row)), shape=(n, cells))
    by_pair = sp.csr_array((g_val, (g_row, place)), shape=(cells, len(pairs)))
    product = sp.coo_array(by_cell @ by_pair)
    at, pair = (np.asarray(axis, dtype=np.int64) for axis in product.coords)
    return at, pairs[pair] // stride, pairs[pair] % stride - 1, product.data


def _weight_terms(weight: Affine) -> list[tuple[IntArray, IntArray, FloatArray]]:
    """The weight of each cell as (index of the term by cell or -1, parameter, value): constants, then parameters."""
    cells = len(weight.const)
    out: list[tuple[IntArray, IntArray, FloatArray]] = []
    if np.any(weight.const):
        out.append((np.arange(cells), np.full(cells, -1), weight.const))
    if len(weight.row):
        index = np.full(cells, -1)
        index[weight.row] = np.arange(len(weight.row))
        if len(np.unique(weight.row)) != len(weight.row):
            message = "a weight may depend on one parameter per cell"
            raise ValueError(message)
        out.append((index, weight.par, weight.val))
    return out


def data_part(expr: Affine) -> Affine:
    """The constants and parameter terms of an expression, without its variables."""
    keep = expr.col < 0
    return Affine(expr.n, expr.n_steps, expr.row[keep], expr.col[keep], expr.par[keep], expr.val[keep], expr.const)


def _coefficients(
    name: str,
    row: IntArray,
    col: IntArray,
    par: IntArray,
    val: FloatArray,
    shape: tuple[int, int],
    theta: FloatArray,
    maps: dict[str, DataMap],
) -> sp.csr_array:
    """CSR of the variable terms; where a coefficient follows the data, a `DataMap` of its values is kept."""
    var = col >= 0
    row, col, par, val = row[var], col[var], par[var], val[var]
    with_par = par >= 0
    current = val.copy()
    if np.any(with_par):
        current[with_par] *= theta[par[with_par]]
    out = sp.csr_array((current, (row, col)), shape=shape)
    out.sum_duplicates()
    if np.any(with_par):
        keys = np.repeat(np.arange(shape[0], dtype=np.int64), np.diff(out.indptr)) * shape[1] + out.indices
        place = np.searchsorted(keys, row[with_par].astype(np.int64) * shape[1] + col[with_par])
        matrix = sp.csr_array((val[with_par], (place, par[with_par])), shape=(out.nnz, len(theta)))
        maps[name] = DataMap(out.data - matrix @ theta, matrix)
    return out
