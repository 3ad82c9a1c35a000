"""The linear system of a step along the central path, in the scaled space.

    [ P    A_0'  B' ] [ dx   ]
    [ A_0   0    0  ] [ dy   ]  =  given,          B = W^-T A
    [ B     0   -I  ] [ W dz ]

It is factored with pivots, as a whole: to put what the last rows say into the first ones would square what B's entries
are apart, 1e10 near the optimum.

**A matrix or a second-order cone** is a dense block of B over few columns: 78 rows over 36 for six complex voltages and
currents, whose real matrix holds everything twice. With ``B = Q R`` of each, Q orthogonal, ``R dx - u = Q' rhs`` takes
the place of its rows and ``R' u`` that of ``B' W dz``; ``W dz = Q (u + Q' rhs) - rhs`` follows. Orthogonal, it loses
nothing in rounding. The system of `sdp` on ckt7 has a third of the entries then, its factors a seventh.

**Steps of time** share nothing but what storages say. The order of elimination is found without those rows and
variables, which come last: that of all at once made as many entries again in the factors (`sdp` on ckt7, four steps).
It is found once, the pattern being always the same.
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
#: Variables of earlier steps at most in a row of which they are eliminated last, and not the row. Rows of storages
#: there, which have one, made four times as many entries in the factors: rows are also pivots of what comes before.
_HANDED_ON = 2
#: How often what a step leaves is solved for again. Once leaves smartds84 (`sdp`) at a gap of 2e-6, this often at 7e-8.
_REFINED = 3


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
        a: rows of the program.
        zeros: number of its equalities.
        blocks: its second-order cones and matrices.
        keep: entries of P, A_0 and the nonnegative rows.
        row, col: rows and columns of the lower triangle of the system, those of ``keep`` first.
        size: number of unknowns.
        first: first unknown of each of the blocks.
        last: unknowns that are eliminated last, in this order.
        order: in which all are, once it is known.
    """

    a: sp.csr_array
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
    order: IntArray | None = None

    @classmethod
    def of(cls, p: sp.csc_array, a: sp.csr_array, cones: Cones, steps: IntArray | None) -> System:
        """Of a program; see `lateral.solvers.central_path.Conic`."""
        n, z0 = a.shape[1], cones.zeros
        sizes = (*cones.second_order, *(rows for _, rows in cones.psd))
        blocks = tuple(b for kind, rows in enumerate(sizes) for b in _blocks(a, rows, kind))
        p, equal, flat = sp.coo_array(p), sp.coo_array(a[:z0]), sp.coo_array(a[cones.flat])
        size = n + z0 + flat.shape[0]
        unit = np.arange(n + z0, size)
        row = [p.row, n + equal.row, equal.col, n + z0 + flat.row, flat.col, unit]
        col = [p.col, equal.col, n + equal.row, flat.col, n + z0 + flat.row, unit]
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
        return cls(a, z0, blocks, p, equal, flat, rows, cols, size, tuple(first), last)

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
        kkt = sp.csc_array((np.concatenate(data), (self.row, self.col)), shape=(self.size, self.size))
        # rows and columns of about the same size, so that pivots are chosen among comparable numbers
        even = 1.0 / np.sqrt(np.maximum(abs(kkt).max(axis=1).toarray().reshape(-1), 1e-300))
        scaled = sp.csc_matrix(kkt * even[:, None] * even)
        if self.order is None:
            self.order = self._ordered(scaled)
        lu = splu(scaled[self.order][:, self.order], permc_spec="NATURAL", diag_pivot_thresh=_PIVOT)
        return Factor(self, scaling, kkt, even, self.order, lu, tuple(q))

    def _ordered(self, scaled: sp.csc_matrix) -> IntArray:
        """The order of elimination: of approximate minimum degree, without what comes last."""
        alone = np.ones(self.size)
        alone[self.last] = 0.0
        apart = sp.csc_matrix(scaled.multiply(alone[:, None]).multiply(alone) + sp.diags(1.0 - alone))
        apart.eliminate_zeros()
        order = np.argsort(splu(apart, diag_pivot_thresh=_PIVOT).perm_c)
        return np.concatenate([order[alone[order] > 0.0], self.last])


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
    """The system at a point, factored."""

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
        step = np.zeros(len(rhs))
        for _ in range(1 + _REFINED):  # once, and what was left of it
            left = self.even * (rhs - self.kkt @ step)
            found = np.empty(len(rhs))
            found[self.order] = self.lu.solve(left[self.order])
            step += self.even * found
        n = len(costs)
        scaled = -rows
        scaled[flat] = step[n + z0 : n + z0 + len(rows[flat])]
        for q, block, part, first in zip(self.q, system.blocks, turned, system.first, strict=True):
            u = step[first : first + part.size].reshape(part.shape)
            scaled[block.rows] += (q @ (u + part))[:, :, 0]
        return step[:n], step[n : n + z0], scaled


__all__ = ["Factor", "System"]
