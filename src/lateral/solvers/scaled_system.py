"""The linear system of a step along the central path, in the scaled space.

    [ P    A_0'  B' ] [ dx   ]
    [ A_0   0    0  ] [ dy   ]  =  given,          B = W^-T A
    [ B     0   -I  ] [ W dz ]

It is factored with pivots, as a whole: to put what the last rows say into the first ones would square what B's entries
are apart, 1e10 near the optimum.

**A matrix or a second-order cone** is a dense block of B over few columns: 78 rows over 36 for six complex voltages and
currents, whose real matrix holds everything twice. With ``B = Q R`` of each, Q orthogonal, ``R dx - u = Q' rhs`` takes
the place of its rows and ``R' u`` that of ``B' W dz``; ``W dz = Q (u + Q' rhs) - rhs`` follows. Orthogonal, it loses
nothing in rounding. The system of `sdp` on ckt7 (one step) has a third of the entries then, its factors a seventh.

**Steps of time** share nothing but what storages say. The order of elimination is found without those rows and
variables, which come last: with that of all at once a factor took twice as long (`sdp` on ckt7, four steps). It is
found once, the pattern being always the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, splu

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.cones import Cones, Scaling, matrices_of, triangles_of

#: The diagonal is a pivot where it is at least this share of the largest entry of its column. With 1 the factors of
#: `sdp` on ckt7 had five times the entries and took eight times as long; what is left after refinement is the same.
_PIVOT = 0.1
#: Variables of earlier steps at most in a row of which they are eliminated last, and not the row. With rows of storages
#: there, which have one, a factor took four times as long: rows are also pivots of what comes before.
_HANDED_ON = 2
#: How often what a step leaves is solved for again. Once leaves smartds84 (`sdp`) at a gap of 2e-6, this often at 7e-8.
_REFINED = 3
#: What rows that are condensed to are multiplied by, which costs no accuracy; and their corner before it, so that no
#: pivot there is zero.
_SMALL, _CORNER = 1e-60, 1e-14
#: Right-hand sides that are solved for at once.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Cones of one kind and size whose rows have as many columns.

    Attributes:
        kind: number of their size among those of the cones, second-order ones first.
        member: which of that size they are, shape (k,).
        rows: their rows, shape (k, size).
        cols: the variables of these, shape (k, columns).
        entries: of A, transposed, shape (k, columns, size).
    """

    kind: int
    member: IntArray
    rows: IntArray
    cols: IntArray
    entries: FloatArray

    def scaled(self, scaling: Scaling) -> FloatArray:
        """Their blocks of B, shape (k, size, columns)."""
        balls = len(scaling.balls)
        if self.kind < balls:
            return np.asarray(scaling.balls[self.kind][self.member] @ np.swapaxes(self.entries, 1, 2))
        turn = scaling.turns[self.kind - balls][self.member][:, None]
        b = triangles_of(turn @ matrices_of(self.entries, turn.shape[-1]) @ np.swapaxes(turn, 2, 3))
        return np.swapaxes(b, 1, 2)


def _blocks(a: sp.csr_array, rows: IntArray, kind: int) -> Iterator[_Blocks]:
    """The cones of one size, by the number of their columns."""
    k, size = rows.shape
    taken = sp.coo_array(a[rows.reshape(-1)])
    cone, within = np.divmod(taken.row.astype(np.int64), size)
    n = a.shape[1]
    pair, place = np.unique(cone * n + taken.col, return_inverse=True)
    owner, column = np.divmod(pair, n)
    count = np.bincount(owner, minlength=k)
    first = np.cumsum(count) - count
    for width in np.unique(count[count > 0]).tolist():
        member = np.flatnonzero(count == width)
        number = np.full(k, -1)
        number[member] = np.arange(len(member))
        cols = column[first[member][:, None] + np.arange(width)]
        entries = np.zeros((len(member), width, size))
        own = number[cone] >= 0
        at = place[own]
        entries[number[cone[own]], at - first[owner[at]], within[own]] = taken.data[own]
        yield _Blocks(kind, member, rows[member], cols, entries)


@dataclass(eq=False)
class System:
    """What stays the same from step to step.

    Attributes:
        zeros: number of the program's equalities.
        blocks: its second-order cones and matrices.
        p, equal, flat: P, A_0 and the nonnegative rows of A.
        row, col: of every entry of the system, in the order in which `factored` has them.
        size: number of unknowns.
        first: first unknown of each of the blocks.
        last: unknowns that are eliminated last, in this order.
        pattern: of the system in the order of elimination, once that is known.
    """

    zeros: int
    blocks: tuple[_Blocks, ...]
    p: sp.coo_array
    equal: sp.coo_array
    flat: sp.coo_array
    row: IntArray
    col: IntArray
    size: int
    first: tuple[int, ...]
    last: IntArray
    pattern: _Pattern | None = None

    @classmethod
    def of(cls, p: sp.csc_array, a: sp.csr_array, cones: Cones, steps: IntArray | None) -> System:
        """Of a program; see `lateral.solvers.central_path.Conic`."""
        n, z0 = a.shape[1], cones.zeros
        sizes = (*cones.second_order, *(rows for _, rows in cones.psd))
        blocks = tuple(b for kind, rows in enumerate(sizes) for b in _blocks(a, rows, kind))
        whole, equal, flat = sp.coo_array(p), sp.coo_array(a[:z0]), sp.coo_array(a[cones.flat])
        for part in (whole, equal, flat):  # every entry once
            part.sum_duplicates()
        size = n + z0 + flat.shape[0]
        unit = np.arange(n + z0, size)
        row = [whole.row, n + equal.row, equal.col, n + z0 + flat.row, flat.col, unit]
        col = [whole.col, equal.col, n + equal.row, flat.col, n + z0 + flat.row, unit]
        first = []
        for block in blocks:
            k, width, height = block.entries.shape
            first.append(size)
            own = size + np.arange(k * min(width, height)).reshape(k, -1)
            i, j = np.triu_indices(own.shape[1], 0, width)
            u, x = own[:, i].reshape(-1), block.cols[:, j].reshape(-1)
            row += [u, x, own.reshape(-1)]
            col += [x, u, own.reshape(-1)]
            size += own.size
        rows, cols = np.concatenate(row), np.concatenate(col)
        last = _last(n, size, rows, cols, steps)
        return cls(z0, blocks, whole, equal, flat, rows, cols, size, tuple(first), last)

    def factored(self, scaling: Scaling) -> Factor:
        """Factors at a point.

        Raises:
            RuntimeError: they are exactly singular.
        """
        flat = scaling.flat[self.flat.row] * self.flat.data
        minus = -np.ones(self.flat.shape[0])
        data = [self.p.data, self.equal.data, self.equal.data, flat, flat, minus]
        q = []
        for block in self.blocks:
            own, r = np.linalg.qr(block.scaled(scaling))
            i, j = np.triu_indices(r.shape[1], 0, r.shape[2])
            upper = r[:, i, j].reshape(-1)
            data += [upper, upper, -np.ones(r.shape[0] * r.shape[1])]
            q.append(own)
        entries = np.concatenate(data)
        if self.pattern is None:
            self.pattern = _Pattern.of(self.row, self.col, self._order(entries))
        kkt, even = self.pattern.filled(entries)
        scaled = _evened(kkt, even)
        lu = splu(scaled, permc_spec="NATURAL", diag_pivot_thresh=_PIVOT)
        return Factor(self, scaling, kkt, even, self.pattern.order, lu, tuple(q))

    def _order(self, entries: FloatArray) -> IntArray:
        """The order of elimination: of approximate minimum degree, without what comes last."""
        kkt, even = _Pattern.of(self.row, self.col, np.arange(self.size)).filled(entries)
        scaled, alone = _evened(kkt, even), np.ones(self.size)
        alone[self.last] = 0.0
        apart = sp.csc_matrix(scaled.multiply(alone[:, None]).multiply(alone) + sp.diags(1.0 - alone))
        apart.eliminate_zeros()
        try:
            order = np.argsort(splu(apart, diag_pivot_thresh=_PIVOT).perm_c)
        except RuntimeError:  # something that stands in nothing else than rows that come last
            return np.asarray(np.argsort(splu(scaled, diag_pivot_thresh=_PIVOT).perm_c))
        return np.concatenate([order[alone[order] > 0.0], self.last])


@dataclass(frozen=True, slots=True, eq=False)
class _Pattern:
    """Where the entries of a symmetric matrix stand in an order of its rows and columns.

    Attributes:
        order: the order.
        source: number of each stored entry among those that come, column by column.
        rows: row of each stored entry.
        starts: first stored entry of each column, and their number.
    """

    order: IntArray
    source: IntArray
    rows: IntArray
    starts: IntArray

    @classmethod
    def of(cls, row: IntArray, col: IntArray, order: IntArray) -> _Pattern:
        """Of the rows and columns of the entries."""
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        number = np.arange(len(row), dtype=float)
        placed = sp.csc_array((number, (place[row], place[col])), shape=(len(order), len(order)))
        return cls(order, placed.data.astype(np.int64), placed.indices, placed.indptr)

    def filled(self, entries: FloatArray) -> tuple[sp.csc_array, FloatArray]:
        """The matrix, and factors that make its rows and columns about the same size, so that pivots are chosen among
        comparable numbers."""
        size = len(self.order)
        kkt = sp.csc_array((entries[self.source], self.rows, self.starts), shape=(size, size))
        largest = abs(kkt).max(axis=0).toarray().reshape(-1)
        return kkt, 1.0 / np.sqrt(np.maximum(largest, 1e-300))


def _evened(kkt: sp.csc_array, even: FloatArray) -> sp.csc_matrix:
    """The matrix with its rows and columns times these factors."""
    columns = np.repeat(even, np.diff(kkt.indptr))
    return sp.csc_matrix((kkt.data * even[kkt.indices] * columns, kkt.indices, kkt.indptr), shape=kkt.shape)


def _last(n: int, size: int, rows: IntArray, cols: IntArray, steps: IntArray | None) -> IntArray:
    """Unknowns that several steps share, by their step, those of none at the end.

    These are variables of an earlier step than that of a row they are in, of which there is one in a row of a storage,
    variables of no step, and rows over many steps.

    Args:
        n: number of variables.
        size: number of unknowns, the variables first.
        rows, cols: of the entries of the system.
        steps: of the variables.
    """
    if steps is None:
        return np.zeros(0, dtype=np.int64)
    of_row = (rows >= n) & (cols < n)
    rows, cols = rows[of_row], cols[of_row]
    step = np.full(size, -1)
    step[:n] = steps
    np.maximum.at(step, rows, steps[cols])
    earlier = step[cols] < step[rows]
    many = np.bincount(rows[earlier], minlength=size) > _HANDED_ON
    shared = many | (step < 0)
    shared[cols[earlier & ~many[rows]]] = True
    last = np.flatnonzero(shared)
    when = np.where(step[last] < 0, np.iinfo(np.int64).max, step[last])
    return last[np.argsort(when, kind="stable")]


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """The system at a point, factored: all of it in the order of elimination but the blocks' Q."""

    system: System
    scaling: Scaling
    kkt: sp.csc_array
    even: FloatArray
    order: IntArray
    lu: SuperLU
    q: tuple[FloatArray, ...]

    def solve(
        self, costs: FloatArray, equal: FloatArray, rows: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """dx, dy and ``W dz``.

        Args:
            costs: right-hand side of the first rows.
            equal: that of A_0.
            rows: that of B, zero at equalities, shape (rows of the program,).
        """
        system, z0 = self.system, self.system.zeros
        flat = self.scaling.cones.flat
        turned = [
            np.swapaxes(q, 1, 2) @ rows[block.rows][:, :, None] for q, block in zip(self.q, system.blocks, strict=True)
        ]
        rhs = np.concatenate([costs, equal, rows[flat], *(part.reshape(-1) for part in turned)])
        rhs, found = rhs[self.order], np.zeros(len(rhs))
        for _ in range(1 + _REFINED):  # once, and what was left of it
            found += self.even * self.lu.solve(self.even * (rhs - self.kkt @ found))
        step = np.empty(len(rhs))
        step[self.order] = found
        n = len(costs)
        scaled = -rows
        scaled[flat] = step[n + z0 : n + z0 + len(rows[flat])]
        for q, block, part, first in zip(self.q, system.blocks, turned, system.first, strict=True):
            u = step[first : first + part.size].reshape(part.shape)
            scaled[block.rows] += (q @ (u + part))[:, :, 0]
        return step[:n], step[n : n + z0], scaled

    def condensed(self, columns: sp.csc_array) -> FloatArray:
        """``C' dx`` where the costs' rows have C on the right-hand side and all others nothing, shape (k, k).

        With C and C' beside it as last columns and rows, what elimination leaves of their corner is ``-C' K^-1 C``: one
        factorisation, where k solutions take ten times as long (360 of `soc3` on ieee13 over 24 steps). Rows of C' are
        made so small that none is taken as a pivot for another. Where what is left has a column of zeros (an area that
        decides on nothing holds most of what it says), the solutions are found after all.

        Args:
            columns: C, shape (n, k).
        """
        size, own = len(self.order), sp.csc_array(columns)
        largest = abs(own).max(axis=0).toarray().reshape(-1)
        out = np.zeros((own.shape[1], own.shape[1]))
        some = np.flatnonzero(largest)
        if not len(some):
            return out
        own = sp.csr_array(own[:, some] / largest[some])
        below = sp.csr_array((size - own.shape[0], len(some)))
        beside = sp.diags_array(self.even) @ sp.csr_array(sp.vstack([own, below]))[self.order]
        corner = -_CORNER * _SMALL * sp.eye_array(len(some))
        whole = sp.block_array([[_evened(self.kkt, self.even), beside], [_SMALL * beside.T, corner]])
        try:
            lu = splu(sp.csc_matrix(whole), permc_spec="NATURAL", diag_pivot_thresh=_PIVOT)
        except RuntimeError:  # of scipy: exactly singular
            return self._by_columns(columns)
        if np.any(lu.perm_r[size:] < size):
            return self._by_columns(columns)
        left = lu.L.tocsc()[size:, size:].toarray() @ lu.U.tocsc()[size:, size:].toarray()
        found = -left[lu.perm_r[size:] - size] / _SMALL - _CORNER * np.eye(len(some))
        out[np.ix_(some, some)] = found * largest[some][:, None] * largest[some]
        return out

    def _by_columns(self, columns: sp.csc_array) -> FloatArray:
        """What `condensed` finds, solution by solution."""
        size, n = len(self.order), columns.shape[0]
        own = sp.csr_array(sp.vstack([columns, sp.csr_array((size - n, columns.shape[1]))]))[self.order]
        even, parts = self.even[:, None], []
        for first in range(0, columns.shape[1], _AT_ONCE):
            rhs = own[:, first : first + _AT_ONCE].toarray()
            found = np.zeros_like(rhs)
            for _ in range(1 + _REFINED):
                found += even * self.lu.solve(even * (rhs - self.kkt @ found))
            parts.append(own.T @ found)
        return np.hstack(parts)


__all__ = ["Factor", "System"]
