"""Elimination of one step, without numbers: pivots in order, where they fill in, and the groups they come in.

An *unknown* is a variable or a row of one step. Unknowns are eliminated one by one, or in pairs (a variable with the
row that determines it, so that neither needs a diagonal). Pivots come in *groups* (a node of the tree with its branch;
the devices at a node): a group is eliminated before the group that it hangs from, so that what it leaves behind is a
small block on unknowns of that one group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lateral.network.schema import IntArray
from lateral.solvers.native.compiling import counted, inner_counted

#: Stands for the parent of a group that has two.
TWO_PARENTS = -2


@dataclass(frozen=True, slots=True, eq=False)
class Symbolic:
    """Index arrays of the elimination; see the kernels for how they are used.

    Attributes:
        unknown: unknowns of each pivot, shape (pivots, 2).
        size: 1 or 2 per pivot.
        dpos, lptr: first diagonal entry and first entry of L of each pivot.
        m, sptr, srow: later unknowns that each pivot reaches.
        uptr, utgt: entries that each pivot updates, by pairs of what it reaches (lower triangle).
        position: place of each unknown in the order.
        n_entries: number of entries of the factor.
        widest: most unknowns that a pivot reaches.
    """

    unknown: IntArray
    size: IntArray
    dpos: IntArray
    lptr: IntArray
    m: IntArray
    sptr: IntArray
    srow: IntArray
    uptr: IntArray
    utgt: IntArray
    position: IntArray
    pivot_of: IntArray
    n_entries: int
    widest: int

    def entry(self, rows: IntArray, cols: IntArray) -> IntArray:
        """Entry of each (unknown, unknown) of the pattern, in either order."""
        swap = self.position[rows] < self.position[cols]
        later, earlier = np.where(swap, cols, rows), np.where(swap, rows, cols)
        out = _find(
            later.astype(np.int64), earlier.astype(np.int64), self.pivot_of, self.unknown, self.size, self.dpos,
            self.lptr, self.m, self.sptr, self.srow, self.position,
        )  # fmt: skip
        return np.asarray(out)

    def above(self, touched: IntArray) -> IntArray:
        """Pivots that lie between these unknowns and the root, in order: all that a solve from them to them passes."""
        return np.flatnonzero(_above(self.pivot_of[touched], self.m, self.sptr, self.srow, self.pivot_of))


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Stretches of pivots that are eliminated one after the other in a small room, which stays in the cache.

    The room holds the entries of one block, and behind them, one each, what earlier blocks add to entries of later ones
    (*carried*).

    Attributes:
        pivot: first pivot of each block, and the end.
        entry: first entry of each block, and the end.
        place: of each entry in the room while its block is there.
        carried: entries that earlier blocks add to, in order; until their block is there, their places are
            ``at_carried`` and following.
        cptr: first carried entry of each block, and the end.
        utgt: `Symbolic.utgt` as places in the room.
        size: length of the room.
    """

    pivot: IntArray
    entry: IntArray
    place: IntArray
    carried: IntArray
    cptr: IntArray
    at_carried: int
    utgt: IntArray
    size: int


def blocks(symbolic: Symbolic, group_of: IntArray | None, most: int) -> Blocks:
    """Blocks with about so many entries, each of whole groups."""
    sy, n = symbolic, len(symbolic.size)
    starts = np.arange(n) if group_of is None else np.searchsorted(group_of, np.unique(group_of))
    begins = np.diff(sy.dpos[starts] // most, prepend=-1) > 0
    pivot = np.concatenate([starts[begins], [n]])
    entry = np.concatenate([sy.dpos[pivot[:-1]], [sy.n_entries]])
    lengths = np.diff(entry)
    at_carried = int(lengths.max(initial=0))
    place = np.arange(sy.n_entries) - np.repeat(entry[:-1], lengths)
    block = np.repeat(np.arange(len(lengths)), lengths)
    updates = sy.m * (sy.m + 1) // 2
    of_update = np.repeat(np.searchsorted(pivot, np.arange(n), side="right") - 1, updates)
    later = block[sy.utgt] > of_update
    carried = np.unique(sy.utgt[later])
    utgt = place[sy.utgt]
    utgt[later] = at_carried + np.searchsorted(carried, sy.utgt[later])
    cptr = np.searchsorted(carried, entry)
    return Blocks(pivot, entry, place, carried, cptr, at_carried, utgt, at_carried + len(carried))


@counted
def _above(first, m, sptr, srow, pivot_of):  # type: ignore[no-untyped-def]
    """Marks the pivots and everything that they reach."""
    marked = np.zeros(len(m), dtype=np.bool_)
    for k in first:
        marked[k] = True
    for k in range(len(m)):
        if marked[k] and m[k]:
            marked[pivot_of[srow[sptr[k]]]] = True  # what else it reaches lies above that one
    return marked


def analyse(n: int, unknown: IntArray, size: IntArray, rows: IntArray, cols: IntArray) -> Symbolic:
    """The elimination of a symmetric pattern.

    Args:
        n: number of unknowns.
        unknown: unknowns of each pivot in order, shape (pivots, 2); the second is -1 for a single one.
        size: 1 or 2 per pivot.
        rows, cols: the pattern, either triangle.
    """
    pivot_of, position = np.full(n, -1), np.full(n, -1)
    flat = unknown.reshape(-1)
    flat = flat[flat >= 0]
    position[flat] = np.arange(len(flat))
    for k in (0, 1):
        own = unknown[:, k] >= 0
        pivot_of[unknown[own, k]] = np.flatnonzero(own)
    a, b = pivot_of[rows], pivot_of[cols]
    off = a != b
    low = np.where(a < b, a, b)[off]
    reach = np.where(a < b, cols, rows)[off]
    order = np.argsort(low, kind="stable")
    ptr = np.searchsorted(low[order], np.arange(len(size) + 1))
    m, srow = _reach(len(size), ptr, reach[order].astype(np.int64), pivot_of, position)
    sptr = np.concatenate([[0], np.cumsum(m)]).astype(np.int64)
    srow = srow[: sptr[-1]].copy()
    diagonal = np.where(size == 1, 1, 3)
    total = diagonal + m * size
    start = np.concatenate([[0], np.cumsum(total)]).astype(np.int64)
    dpos = start[:-1]
    lptr = dpos + diagonal
    uptr = np.concatenate([[0], np.cumsum(m * (m + 1) // 2)]).astype(np.int64)
    i_of, j_of = _pairs(m, sptr, srow, uptr)
    utgt = _find(i_of, j_of, pivot_of, unknown, size, dpos, lptr, m, sptr, srow, position)
    return Symbolic(
        unknown, size, dpos, lptr, m, sptr, srow, uptr, utgt, position, pivot_of, int(start[-1]),
        int(m.max(initial=0)),
    )  # fmt: skip


@inner_counted
def _put_in_order(values, first, last, position):  # type: ignore[no-untyped-def]
    """Some values by their position, in place: by insertion, as there are few, and a library's sort compiles for a
    second."""
    for k in range(first + 1, last):
        value, q = values[k], k
        while q > first and position[values[q - 1]] > position[value]:
            values[q] = values[q - 1]
            q -= 1
        values[q] = value


@counted
def _reach(n, ptr, reach, pivot_of, position):  # type: ignore[no-untyped-def]
    """Later unknowns of each pivot, one after the other, with room behind them: its own, and those of the pivots whose
    first later unknown it holds."""
    seen = np.full(len(pivot_of), -1)
    head, next_ = np.full(n, -1), np.full(n, -1)
    m = np.zeros(n, dtype=np.int64)
    start = np.zeros(n + 1, dtype=np.int64)
    rows = np.empty(max(16, 4 * len(reach) + 16), dtype=np.int64)
    at = np.int64(0)  # a literal would be a type of its own, and compile what it is given to once more
    for k in range(n):
        start[k] = at
        need = at + ptr[k + 1] - ptr[k]
        c = head[k]
        while c >= 0:
            need += m[c]
            c = next_[c]
        if need > len(rows):
            bigger = np.empty(2 * need, dtype=np.int64)
            for e in range(at):
                bigger[e] = rows[e]
            rows = bigger
        for e in range(ptr[k], ptr[k + 1]):
            r = reach[e]
            if seen[r] != k:
                seen[r] = k
                rows[at] = r
                at += 1
        c = head[k]
        while c >= 0:
            for e in range(start[c], start[c] + m[c]):
                r = rows[e]
                if pivot_of[r] != k and seen[r] != k:
                    seen[r] = k
                    rows[at] = r
                    at += 1
            c = next_[c]
        m[k] = at - start[k]
        _put_in_order(rows, start[k], at, position)
        if m[k]:
            parent = pivot_of[rows[start[k]]]
            next_[k] = head[parent]
            head[parent] = k
    return m, rows


@counted
def _pairs(m, sptr, srow, uptr):  # type: ignore[no-untyped-def]
    """(later, earlier) unknowns of every pair that a pivot updates."""
    later, earlier = np.empty(uptr[-1], dtype=np.int64), np.empty(uptr[-1], dtype=np.int64)
    u = 0
    for k in range(len(m)):
        for i in range(m[k]):
            for j in range(i + 1):
                later[u], earlier[u] = srow[sptr[k] + i], srow[sptr[k] + j]
                u += 1
    return later, earlier


@counted
def _find(later, earlier, pivot_of, unknown, size, dpos, lptr, m, sptr, srow, position):  # type: ignore[no-untyped-def]
    """Entry of each pair; -1 where the pattern has none."""
    out = np.full(len(later), -1)
    for e in range(len(later)):
        i, j = later[e], earlier[e]
        k = pivot_of[j]
        second = 1 if size[k] == 2 and unknown[k, 1] == j else 0
        if pivot_of[i] == k:
            if i == j:
                out[e] = dpos[k] + 2 * second
            else:
                out[e] = dpos[k] + 1
            continue
        low, high = sptr[k], sptr[k] + m[k]
        while low < high:
            middle = (low + high) // 2
            if position[srow[middle]] < position[i]:
                low = middle + 1
            else:
                high = middle
        if low < sptr[k] + m[k] and srow[low] == i:
            out[e] = lptr[k] + size[k] * (low - sptr[k]) + second
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Groups of pivots that something passes through on its way from storage to storage, leaves first.

    Attributes:
        first, last: pivots of each group.
        n_own: unknowns of each group.
        local, plocal: unknowns within the group's own numbering: of ``Symbolic.srow``, and of each pivot.
        n_in, eptr, entry, elocal, epivot: entries (unknowns where something arrives) in the order of elimination,
            flattened; their number within the group, and their pivot.
        n_out, xptr, exit_, xentry: exits, flattened, and which entry of the parent each is.
        parent: the group that the exits belong to; -1 for the last.
        mptr: where each group's map begins; its length at the end.
        zptr: where each group's block of the inverse begins.
        widest: most lanes that a condensation takes: one column on own unknowns and exits for each entry.
    """

    first: IntArray
    last: IntArray
    n_own: IntArray
    local: IntArray
    plocal: IntArray
    n_in: IntArray
    eptr: IntArray
    entry: IntArray
    elocal: IntArray
    epivot: IntArray
    n_out: IntArray
    xptr: IntArray
    exit_: IntArray
    xentry: IntArray
    parent: IntArray
    mptr: IntArray
    zptr: IntArray
    widest: int


def group(symbolic: Symbolic, group_of: IntArray, touched: IntArray) -> Groups:
    """The groups that lie between storages.

    Args:
        symbolic: the elimination.
        group_of: group of each pivot; pivots of one group are neighbours, groups ascend.
        touched: unknowns that storage rows touch.

    Raises:
        ValueError: a group that leaves something to more than one other group.
    """
    sy = symbolic
    n_groups = int(group_of.max(initial=-1)) + 1
    bounds = np.searchsorted(group_of, np.arange(n_groups + 1)).astype(np.int64)
    arrives = np.zeros(len(sy.position), dtype=np.bool_)
    arrives[touched] = True
    parent, n_out, exits, local = _paths(
        bounds, arrives, group_of, sy.pivot_of, sy.position, sy.unknown, sy.size, sy.sptr, sy.srow
    )
    exits = exits[: n_out.sum()]
    if np.any(parent == TWO_PARENTS):
        message = "a group that leaves something to more than one other group"
        raise ValueError(message)
    entry = np.flatnonzero(arrives)
    entry = entry[np.argsort(sy.position[entry])]
    of = group_of[sy.pivot_of[entry]]
    chosen = np.unique(of)  # groups that something arrives in
    number = np.full(n_groups + 1, -1)
    number[chosen] = np.arange(len(chosen))
    n_in = np.bincount(number[of], minlength=len(chosen)).astype(np.int64)
    eptr = _offsets(n_in)
    nth = np.zeros(len(sy.position), dtype=np.int64)
    nth[entry] = np.arange(len(entry)) - np.repeat(eptr[:-1], n_in)
    first, last = bounds[chosen], bounds[chosen + 1]
    base = sy.position[sy.unknown[:, 0]][bounds[:-1]]
    n_own = np.concatenate([base[1:], [len(sy.position)]])[chosen] - base[chosen]
    plocal = np.where(sy.unknown >= 0, sy.position[np.maximum(sy.unknown, 0)] - base[group_of][:, None], -1)
    n_out = n_out[chosen]
    triangle = n_in * (n_in + 1) // 2
    return Groups(
        first=first,
        last=last,
        n_own=n_own,
        local=local,
        plocal=plocal,
        n_in=n_in,
        eptr=eptr,
        entry=entry,
        elocal=sy.position[entry] - np.repeat(base[chosen], n_in),
        epivot=sy.pivot_of[entry],
        n_out=n_out,
        xptr=_offsets(n_out),
        exit_=exits,
        xentry=nth[exits],
        parent=number[parent[chosen]],
        mptr=_offsets(triangle + n_in * n_out),
        zptr=_offsets(triangle),
        widest=int((n_in * (n_own + n_out)).max(initial=0)),
    )


def _offsets(counts: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@counted
def _paths(bounds, arrives, group_of, pivot_of, position, unknown, size, sptr, srow):  # type: ignore[no-untyped-def]
    """Where what arrives in each group goes, leaves first; marks the unknowns where it arrives.

    Returns:
        parent of each group, or -1, or `TWO_PARENTS`; number of its exits; the exits, in the order of elimination; and
        each of ``srow`` in the numbering of its group.
    """
    n = len(bounds) - 1
    parent, n_out = np.full(n, -1), np.zeros(n, dtype=np.int64)
    exits, at = np.empty(len(srow), dtype=np.int64), np.int64(0)  # likewise
    local, place = np.full(len(srow), -1), np.full(len(position), -1)
    for g in range(n):
        passed = False
        for k in range(bounds[g], bounds[g + 1]):
            for q in range(size[k]):
                passed = passed or arrives[unknown[k, q]]
        if not passed:
            continue
        base, start = position[unknown[bounds[g], 0]], at
        n_own = 0
        for k in range(bounds[g], bounds[g + 1]):
            n_own += size[k]
        for e in range(sptr[bounds[g]], sptr[bounds[g + 1]]):
            r = srow[e]
            of = group_of[pivot_of[r]]
            if of == g:
                local[e] = position[r] - base
            elif place[r] < 0:
                place[r] = 0
                exits[at] = r
                at += 1
                if parent[g] >= 0 and parent[g] != of:
                    parent[g] = TWO_PARENTS
                elif parent[g] == -1:
                    parent[g] = of
        _put_in_order(exits, start, at, position)
        n_out[g] = at - start
        for q in range(start, at):
            place[exits[q]] = n_own + q - start
            arrives[exits[q]] = True
        for e in range(sptr[bounds[g]], sptr[bounds[g + 1]]):
            if local[e] < 0:
                local[e] = place[srow[e]]
        for q in range(start, at):
            place[exits[q]] = -1
    return parent, n_out, exits, local


__all__ = ["Blocks", "Groups", "Symbolic", "analyse", "blocks", "group"]
