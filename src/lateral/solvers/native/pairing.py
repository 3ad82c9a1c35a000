"""An order of elimination for any program that repeats: rows paired with the variables that they determine, least fill
first.

In an interior-point system the rows have a zero diagonal. Pairing every equality with a variable makes pivots of two
that need none; a matching of largest product of coefficients makes them large (Duff and Koster 2001; Schenk and
Gaertner 2006). What is left are variables with a barrier and rows with a slack, which stand alone. The pairs are then
ordered by minimum degree, which on a feeder goes from the leaves to the root by itself.
"""

from __future__ import annotations

import heapq

import numpy as np
import scipy.sparse as sp

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.native.compiling import counted
from lateral.solvers.native.order import Order
from lateral.solvers.native.steps import Declined, Entries, StepProgram, step_pattern

#: A variable with bounds counts this much less as the one that a row determines: its barrier stands in the pivot.
BOUNDED = 1e-3
#: Coefficients count as at least this much of the largest of their row.
LEAST = 1e-8


def paired(steps: StepProgram) -> Order:
    """The order of elimination of a program of any structure.

    Raises:
        Declined: an equality that determines no variable.
    """
    nv = steps.variables.n
    rows, cols, values = _jacobian(steps)
    equal = np.unique(rows)
    variable = _matched(steps, rows, cols, values, equal)
    pattern_rows, pattern_cols = step_pattern(steps)
    n_rows = int((steps.row_of >= 0).sum())
    n = nv + n_rows + steps.ranges.n + steps.products.n + steps.quadratics.n + steps.curves.n
    pivot_of = np.arange(n)
    pivot_of[equal] = variable
    used, pivot_of = np.unique(pivot_of, return_inverse=True)
    unknown = np.full((len(used), 2), -1)
    unknown[:, 0] = used
    unknown[pivot_of[equal], 1] = equal
    rank = _least_degree(len(used), pivot_of[pattern_rows], pivot_of[pattern_cols])
    order = np.argsort(rank)
    network = np.zeros(n, dtype=bool)
    network[equal] = network[variable] = True
    linked = np.unique(np.concatenate([steps.now.col, steps.before.col]))
    met = np.zeros(n, dtype=bool)
    off = pattern_rows != pattern_cols
    met[pattern_rows[off]] = met[pattern_cols[off]] = True
    loose = linked[~met[linked]]
    chosen = unknown[order]
    size = np.where(chosen[:, 1] < 0, 1, 2)
    return Order(chosen.astype(np.int64), size.astype(np.int64), None, network, loose)


def _jacobian(s: StepProgram) -> tuple[IntArray, IntArray, FloatArray]:
    """The equalities of one step at the start point: unknown of the row, variable, smallest size over the steps."""
    nv, t = s.variables.n, s.n_steps
    x = s.data["start"]
    first = nv + int((s.row_of >= 0).sum()) + s.ranges.n

    def value(e: Entries, constant: FloatArray) -> FloatArray:
        out = constant.copy()
        np.add.at(out, e.row, e.val * x[e.col])
        return out

    a, u, v = value(s.squares, s.data["a0"]), value(s.u, s.data["u0"]), value(s.v, s.data["v0"])
    f, g = value(s.pair_f, s.data["pair_f0"]), value(s.pair_g, s.data["pair_g0"])
    exact = first + np.arange(s.products.n)
    level = first + s.products.n + np.arange(s.quadratics.n)
    curve = first + s.products.n + s.quadratics.n + np.arange(s.curves.n)
    y_slope, z_slope, _ = curve_slopes(s, x)
    of_f, of_g = s.pair_f.row // s.pairs, s.pair_g.row // s.pairs
    parts = [
        (s.a.row + nv, s.a.col, s.a.val, np.ones(len(s.a.row), dtype=bool)),
        (exact[s.squares.row // s.width], s.squares.col, 2.0 * s.squares.val * a[s.squares.row],
         s.exact[s.squares.row // s.width]),
        (exact[s.u.row], s.u.col, s.u.val * v[s.u.row], s.exact[s.u.row]),
        (exact[s.v.row], s.v.col, s.v.val * u[s.v.row], s.exact[s.v.row]),
        (level[of_f], s.pair_f.col, s.pair_f.val * g[s.pair_f.row], s.level[of_f]),
        (level[of_g], s.pair_g.col, s.pair_g.val * f[s.pair_g.row], s.level[of_g]),
        (level[s.pair_w.row], s.pair_w.col, s.pair_w.val, s.level[s.pair_w.row]),
        (curve, s.curve_y, y_slope, np.ones(s.curves.n, dtype=bool)),
        (curve, s.curve_z, z_slope, np.ones(s.curves.n, dtype=bool)),
    ]  # fmt: skip
    kept = [(r[own], c[own], np.broadcast_to(val, (len(r), t))[own]) for r, c, val, own in parts]
    rows, cols = (np.concatenate([k[i] for k in kept]) for i in (0, 1))
    values = np.concatenate([k[2] for k in kept])
    key, inverse = np.unique(rows.astype(np.int64) * nv + cols, return_inverse=True)
    total = np.zeros((len(key), t))
    np.add.at(total, inverse, values)
    present = s.data["present"][key // nv - nv] > 0.0
    smallest = np.where(present, np.abs(total), np.inf).min(axis=1)
    return key // nv, key % nv, smallest


def curve_slopes(s: StepProgram, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """d row / d y, d row / d z and d^2 row / d z^2 of the curves, shape (curves, T)."""
    if not s.curves.n:
        none = np.zeros((0, s.n_steps))
        return none, none, none
    flat = s.variables.gather(x, len(s.variables.element))
    c, t = s.curve_rows, s.n_steps
    return s.curves.spread(c.y_slope, t), s.curves.spread(c.z_slope(flat), t), s.curves.spread(c.z_bend(flat), t)


def _matched(steps: StepProgram, rows: IntArray, cols: IntArray, values: FloatArray, equal: IntArray) -> IntArray:
    """The variable of each equality, by the largest product of coefficients."""
    d = steps.data
    there = steps.variables.present(steps.n_steps) > 0.0
    fixed = np.any((d["fixed"] > 0.0) & there, axis=1)
    bounded = np.any(np.isfinite(d["low"]) | np.isfinite(d["high"]), axis=1)
    values = np.where(bounded[cols], BOUNDED, 1.0) * values
    place = np.searchsorted(equal, rows)
    largest = np.zeros(len(equal))
    np.maximum.at(largest, place, values)
    share = values / np.maximum(largest[place], 1e-300)
    usable = ~fixed[cols] & (values > 0.0)
    cost = 1.0 - np.log(np.maximum(share[usable], LEAST))
    graph = sp.csr_array((cost, (place[usable], cols[usable])), shape=(len(equal), steps.variables.n))
    out = cheapest_matching(
        graph.indptr.astype(np.int64), graph.indices.astype(np.int64), graph.data, steps.variables.n
    )
    if np.any(out < 0):
        message = "equalities that determine no variable"
        raise Declined(message)
    return np.asarray(out)


@counted
def cheapest_matching(indptr, indices, cost, n_cols):  # type: ignore[no-untyped-def]
    """The column of every row so that no column is taken twice and the sum of costs is least; -1 where none is left.

    Shortest augmenting paths, one row after another (Jonker and Volgenant 1987). SciPy's own does not always return.
    """
    n = len(indptr) - 1
    u, v = np.zeros(n), np.zeros(n_cols)
    row_of, col_of = np.full(n_cols, -1), np.full(n, -1)
    for i in range(n):  # whatever is cheapest, where it is free
        u[i] = np.inf
        best = -1
        for e in range(indptr[i], indptr[i + 1]):
            if cost[e] < u[i]:
                u[i], best = cost[e], indices[e]
        if best >= 0 and row_of[best] < 0:
            row_of[best], col_of[i] = i, best
    distance, before = np.full(n_cols, np.inf), np.full(n_cols, -1)
    done = np.zeros(n_cols, dtype=np.bool_)
    for start in range(n):
        if col_of[start] >= 0 or indptr[start] == indptr[start + 1]:
            continue
        seen = [0]
        seen.pop()
        heap = [(0.0, 0)]
        heap.pop()
        i, at, end = start, 0.0, -1
        while True:
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                far = at + max(cost[e] - u[i] - v[j], 0.0)
                if not done[j] and far < distance[j]:
                    if distance[j] == np.inf:
                        seen.append(j)
                    distance[j], before[j] = far, i
                    heapq.heappush(heap, (far, j))
            found = -1
            while len(heap):
                at, j = heapq.heappop(heap)
                if not done[j]:
                    found = j
                    break
            if found < 0:
                break
            done[found] = True
            if row_of[found] < 0:
                end = found
                break
            i = row_of[found]
        if end >= 0:
            u[start] += at
            for j in seen:
                if done[j] and j != end:
                    v[j] -= at - distance[j]
                    u[row_of[j]] += at - distance[j]
            j = end
            while True:
                i = before[j]
                row_of[j] = i
                col_of[i], j = j, col_of[i]
                if i == start:
                    break
        for j in seen:
            distance[j], before[j], done[j] = np.inf, -1, False
    return col_of


def _least_degree(n: int, rows: IntArray, cols: IntArray) -> IntArray:
    """Position of each pivot in an order of multiple minimum degree, by SuperLU's."""
    off = rows != cols
    rows, cols = rows[off], cols[off]
    pattern = sp.coo_array((np.ones(2 * len(rows)), (np.r_[rows, cols], np.r_[cols, rows])), shape=(n, n)).tocsc()
    pattern.data[:] = 1.0
    dominant = pattern + sp.diags_array(np.asarray(pattern.sum(axis=1)).reshape(-1) + 1.0)
    from scipy.sparse.linalg import splu

    lu = splu(
        sp.csc_matrix(dominant), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return np.asarray(lu.perm_c)


__all__ = ["curve_slopes", "paired"]
