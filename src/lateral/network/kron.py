"""Exact elimination of nodes at which nothing is connected (Kron 1939): a smaller nodal matrix, and the way back.

With kept nodes k and eliminated nodes e, at which no current is injected::

    Y_ee V_e + Y_ek V_k = 0       V_e = T V_k,   T = -Y_ee^-1 Y_ek
    S = Y_kk + Y_ke T             S V_k = injected currents at k

Nothing is neglected. Buses are eliminated one by one as long as no more than `MOST_NEIGHBOURS` of their neighbours are
left, so that chains of lines (and transformers in them) become one branch and dead ends vanish, without the matrix
filling up: a bus between two others leaves one block where two were.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from lateral.network.admittance import Node
from lateral.network.schema import ComplexArray, IntArray

#: A bus with more neighbours than this is kept.
MOST_NEIGHBOURS = 3
#: Dead ends and links of chains have at most so many. Eliminating them gives no other bus a neighbour more, so that all
#: of them go in any order; and a part of a feeder that keeps its borders keeps every bus that the whole keeps.
CHAIN = 2


@dataclass(frozen=True, eq=False)
class ReducedNetwork:
    """A nodal matrix over the nodes kept, and the voltages of all nodes from theirs.

    Attributes:
        kept: positions of the nodes kept, ascending, shape (k,).
        s: nodal matrix over them, csr, shape (k, k).
        t: ``V = t V_kept`` over all nodes, csr, shape (n, k); the rows of kept nodes are unit rows.
        y_ee: nodal matrix over the eliminated nodes, csc, shape (n - k, n - k).
    """

    kept: IntArray
    s: sparse.csr_matrix
    t: sparse.csr_matrix
    y_ee: sparse.csc_matrix

    @cached_property
    def gone(self) -> IntArray:
        """Positions of the nodes eliminated, ascending, shape (n - k,)."""
        return np.setdiff1d(np.arange(self.t.shape[0]), self.kept)

    def voltages(self, v_kept: ComplexArray) -> ComplexArray:
        """Voltages of all nodes, shape (n, T)."""
        v: ComplexArray = self.t @ v_kept
        return v

    def own_dual(self, slope: ComplexArray) -> ComplexArray:
        """What the duals of the balances at eliminated nodes are beside those that the kept nodes give them,
        ``Y_ee^-H g_e``.

        Args:
            slope: g, derivative by the voltage of each node (real part by the real part, ...) of the objective less
                the duals times the rows that depend on it, shape (n, T).

        Returns:
            shape (n, T), zero at kept nodes.
        """
        out = np.zeros_like(slope)
        if len(self.gone):
            out[self.gone] = splu(self.y_ee).solve(np.ascontiguousarray(slope[self.gone]), trans="H")
        return out


def reduce_nodal(
    y: sparse.csc_matrix, nodes: Sequence[Node], keep: Collection[int], *, most: int = MOST_NEIGHBOURS
) -> ReducedNetwork:
    """Eliminate buses at which nothing is connected.

    Args:
        y: nodal matrix, shape (n, n).
        nodes: (bus, conductor) of each row.
        keep: positions at which something is connected; all nodes of their buses are kept.
        most: a bus with more neighbours than this is kept; `MOST_NEIGHBOURS` or `CHAIN`.
    """
    n = len(nodes)
    bus_of: dict[str, int] = {}
    bus = np.array([bus_of.setdefault(b, len(bus_of)) for b, _ in nodes], dtype=np.int64)
    out = _eliminated(y, bus, len(bus_of), {int(bus[k]) for k in keep}, most)
    gone = np.flatnonzero(out[bus])
    kept = np.flatnonzero(~out[bus])
    unit = sparse.csr_matrix((np.ones(len(kept)), (kept, np.arange(len(kept)))), shape=(n, len(kept)))
    if not len(gone):
        return ReducedNetwork(kept, y.tocsr(), unit.astype(complex), sparse.csc_matrix((0, 0), dtype=complex))
    rows = y.tocsr()
    y_ee = rows[gone][:, gone].tocsc()
    y_ek = rows[gone][:, kept].tocsr()
    way = _way_back(y_ee, y_ek)
    s = rows[kept][:, kept] + rows[kept][:, gone] @ way
    spread = sparse.csr_matrix((np.ones(len(gone)), (gone, np.arange(len(gone)))), shape=(n, len(gone)))
    return ReducedNetwork(kept, s.tocsr(), (unit + spread @ way).tocsr(), y_ee)


def _eliminated(y: sparse.csc_matrix, bus: IntArray, n_buses: int, fixed: Collection[int], most: int) -> np.ndarray:
    """Which buses go, shape (n_buses,): fewest neighbours first."""
    coo = y.tocoo()
    near: list[set[int]] = [set() for _ in range(n_buses)]
    ends = np.sort(np.stack([bus[coo.row], bus[coo.col]]), axis=0)
    pairs = np.unique(ends[0] * n_buses + ends[1])
    for a, b in zip((pairs // n_buses).tolist(), (pairs % n_buses).tolist(), strict=True):
        if a != b:
            near[a].add(b)
            near[b].add(a)
    gone = np.zeros(n_buses, dtype=bool)
    held = set(fixed)
    queues: list[list[int]] = [[] for _ in range(most + 1)]
    for b in range(n_buses - 1, -1, -1):
        if b not in held and len(near[b]) <= most:
            queues[len(near[b])].append(b)
    while True:
        queue = next((q for q in queues if q), None)
        if queue is None:
            return gone
        b = queue.pop()
        degree = len(near[b])
        if gone[b] or degree > most:
            continue
        if queue is not queues[degree]:  # its neighbours have changed since it was put here
            queues[degree].append(b)
            continue
        gone[b] = True
        around = near[b]
        for a in around:
            near[a].discard(b)
            near[a] |= around
            near[a].discard(a)
        for a in around:
            if a not in held and len(near[a]) <= most:
                queues[len(near[a])].append(a)


def _way_back(y_ee: sparse.csc_matrix, y_ek: sparse.csr_matrix) -> sparse.csr_matrix:
    """``-Y_ee^-1 Y_ek``, sparse.

    Each connected piece of eliminated nodes touches few kept ones. Their columns are numbered within the piece, so that
    one solve with as many right-hand sides as the largest such number gives all of them.
    """
    n_pieces, piece = connected_components(abs(y_ee), directed=False)
    coo = y_ek.tocoo()
    n_kept = y_ek.shape[1]
    pairs, place = np.unique(piece[coo.row].astype(np.int64) * n_kept + coo.col, return_inverse=True)
    of_piece, column = pairs // n_kept, pairs % n_kept
    first = np.searchsorted(of_piece, np.arange(n_pieces + 1))
    number = np.arange(len(pairs)) - first[of_piece]
    width = int(number.max(initial=-1)) + 1
    right = np.zeros((y_ee.shape[0], width), dtype=complex)
    np.add.at(right, (coo.row, number[place]), coo.data)
    found = -splu(y_ee, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(right)
    count = np.diff(first)[piece]
    row = np.repeat(np.arange(y_ee.shape[0]), count)
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return sparse.csr_matrix((found[row, within], (row, column[first[piece[row]] + within])), shape=y_ek.shape)


__all__ = ["CHAIN", "MOST_NEIGHBOURS", "ReducedNetwork", "reduce_nodal"]
