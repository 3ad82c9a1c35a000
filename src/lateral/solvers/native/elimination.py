"""Kernels of the elimination, compiled by Numba: factor, solve, selected inverse, and the maps between storages.

Steps come in *chunks* of eight, and kernels are written in lanes (`lateral.solvers.native.lanes`). What belongs to the
matrix is stored chunk after chunk, shape (chunks * entries, 8), so that each pass reads memory in one stream; threads
share the chunks. The factor V holds, pivot after pivot, the inverse diagonal (one lane, or three of a pair) and the
columns of L. A chunk is eliminated block by block in a thread's room W (`symbolic.Blocks`), of doubles; V may be of
singles. All indices come from `lateral.solvers.native.symbolic`; unknowns are numbered as they are eliminated.
"""

from __future__ import annotations

from lateral.solvers.native.compiling import compiled, inner
from lateral.solvers.native.lanes import WIDTH, below_zero, lane, piece, prefetch, put, put_piece, splat

#: Lanes that are asked for ahead of their use.
AHEAD = 64


@inner
def take_in(R, place, X, c):  # type: ignore[no-untyped-def]
    """Steps of chunk c of the rows of R, shape (rows, T), into lanes ``place`` of X; zero beyond the last step."""
    n_steps = R.shape[1]
    t0 = WIDTH * c
    if t0 + WIDTH <= n_steps:
        for i in range(len(place)):
            put(X, place[i], piece(R, i * n_steps + t0))
        return
    for i in range(len(place)):
        for t in range(WIDTH):
            X[place[i], t] = R[i, t0 + t] if t0 + t < n_steps else 0.0


@inner
def take_out(X, place, R, c):  # type: ignore[no-untyped-def]
    """Lanes ``place`` of X into the steps of chunk c of the rows of R."""
    n_steps = R.shape[1]
    t0 = WIDTH * c
    if t0 + WIDTH <= n_steps:
        for i in range(len(place)):
            put_piece(R, i * n_steps + t0, lane(X, place[i]))
        return
    for i in range(len(place)):
        for t in range(n_steps - t0):
            R[i, t0 + t] = X[place[i], t]


@compiled
def extract(V, n_entries, at, R, c0, c1):  # type: ignore[no-untyped-def]
    """Some entries of what is stored by chunks, as rows (entries, T)."""
    for c in range(c0, c1):
        take_out(V[c * n_entries : (c + 1) * n_entries], at, R, c)


@compiled
def stage(rows, first, values, c):  # type: ignore[no-untyped-def]
    """Steps of chunk c of rows of shape (n, T) into lanes ``first`` and following; zero beyond the last step."""
    n_steps = rows.shape[1]
    t0 = WIDTH * c
    if t0 + WIDTH <= n_steps:
        for i in range(rows.shape[0]):
            put(values, first + i, piece(rows, i * n_steps + t0))
        return
    for i in range(rows.shape[0]):
        for t in range(WIDTH):
            values[first + i, t] = rows[i, t0 + t] if t0 + t < n_steps else 0.0


@inner
def stage_diagonal(diagonal, extra, absent, slack, least, at, values, c):  # type: ignore[no-untyped-def]
    """The diagonal of chunk c, as `stage` has it: of variables ``diagonal + extra``, of rows ``-least - absent``, less
    the slack of those that have one, the last rows. Steps that are only there to fill the last chunk have a diagonal of
    one and nothing else."""
    n_steps, nv, equal = diagonal.shape[1], len(diagonal), len(absent) - len(slack)
    t0 = WIDTH * c
    if t0 + WIDTH <= n_steps:
        for i in range(nv):
            put(values, at + i, piece(diagonal, i * n_steps + t0) + splat(extra))
        for i in range(len(absent)):
            x = splat(-least) - piece(absent, i * n_steps + t0)
            if i >= equal:
                x = x - piece(slack, (i - equal) * n_steps + t0)
            put(values, at + nv + i, x)
        return
    for i in range(nv + len(absent)):
        put(values, at + i, splat(1.0))
    for t in range(n_steps - t0):
        for i in range(nv):
            values[at + i, t] = diagonal[i, t0 + t] + extra
        for i in range(len(absent)):
            x = -least - absent[i, t0 + t]
            if i >= equal:
                x = x - slack[i - equal, t0 + t]
            values[at + nv + i, t] = x


@inner
def assemble(W, target, ptr, row, coefficient, values, first, last):  # type: ignore[no-untyped-def]
    """``W_e = sum of coefficient * values[row]`` over the terms of some entries: those from the first to before the
    last of ``target``; ``row`` goes on for AHEAD more."""
    u = ptr[first]
    for e in range(first, last):
        x = splat(0.0)
        while u < ptr[e + 1]:
            prefetch(values, row[u + AHEAD])
            x = x + splat(coefficient[u]) * lane(values, row[u])
            u += 1
        put(W, target[e], x)


@inner
def factor(  # type: ignore[no-untyped-def]
    W, begin, size, dpos, lptr, m, uptr, utgt, negative, work, first_pivot, last_pivot, c
):
    """Eliminate the pivots of a block of chunk c in order, in place; ``begin`` is its first entry, which is the first
    of W. The number of negative eigenvalues of each step is added to ``negative``.

    A pivot k of one or two unknowns, with L = A_Sk D^-1 over the unknowns S that come later::

        A_SS -= L A_Sk'
    """
    one = splat(1.0)
    count = lane(negative, c)
    for k in range(first_pivot, last_pivot):
        rows, first, d, u = m[k], lptr[k] - begin, dpos[k] - begin, uptr[k]
        if size[k] == 1:
            a = lane(W, d)
            count = count + below_zero(a)
            a = one / a
            put(W, d, a)
            for i in range(rows):
                x = lane(W, first + i)
                l = x * a
                put(work, i, x)
                put(W, first + i, l)
                for j in range(i + 1):
                    g = utgt[u]
                    u += 1
                    put(W, g, lane(W, g) - l * lane(work, j))
            continue
        a, b, e = lane(W, d), lane(W, d + 1), lane(W, d + 2)
        det = a * e - b * b
        mixed = below_zero(det)
        count = count + mixed + (one - mixed) * (below_zero(a) + below_zero(a))
        det = one / det
        p_a, p_b, p_e = e * det, b * det, a * det
        p_b = splat(0.0) - p_b
        put(W, d, p_a)
        put(W, d + 1, p_b)
        put(W, d + 2, p_e)
        for i in range(rows):
            p = first + 2 * i
            x, y = lane(W, p), lane(W, p + 1)
            put(work, 2 * i, x)
            put(work, 2 * i + 1, y)
            l, h = x * p_a + y * p_b, x * p_b + y * p_e
            put(W, p, l)
            put(W, p + 1, h)
            for j in range(i + 1):
                g = utgt[u]
                u += 1
                put(W, g, lane(W, g) - l * lane(work, 2 * j) - h * lane(work, 2 * j + 1))
    put(negative, c, count)


@inner
def _up(V, v, X, some, size, at, dpos, lptr, m, sptr, srow):  # type: ignore[no-untyped-def]
    """``X <- L^-1 X`` of one chunk, leaves to the root, along some pivots."""
    for k in some:
        rows, first, s, a = m[k], v + lptr[k], sptr[k], at[k]
        x = lane(X, a)
        if size[k] == 1:
            for i in range(rows):
                r = srow[s + i]
                put(X, r, lane(X, r) - lane(V, first + i) * x)
            continue
        y = lane(X, a + 1)
        for i in range(rows):
            p, r = first + 2 * i, srow[s + i]
            put(X, r, lane(X, r) - lane(V, p) * x - lane(V, p + 1) * y)


@inner
def _down(V, v, X, some, size, at, dpos, lptr, m, sptr, srow):  # type: ignore[no-untyped-def]
    """``X <- L'^-1 D^-1 X`` of one chunk, root to the leaves, along some pivots that are closed upwards.

    V is read from the last lane to the first, strictly: where it comes from memory, that is twice as fast as pivots
    backwards with their lanes forwards, and nothing is gained by asking for it ahead.
    """
    for j in range(len(some) - 1, -1, -1):
        k = some[j]
        first, s, d, a = v + lptr[k], sptr[k], v + dpos[k], at[k]
        x = splat(0.0)
        if size[k] == 1:
            for i in range(m[k] - 1, -1, -1):
                x = x - lane(V, first + i) * lane(X, srow[s + i])
            put(X, a, x + lane(V, d) * lane(X, a))
            continue
        y = splat(0.0)
        for i in range(m[k] - 1, -1, -1):
            p, r = first + 2 * i, lane(X, srow[s + i])
            y = y - lane(V, p + 1) * r
            x = x - lane(V, p) * r
        e, b, r_a, r_b = lane(V, d + 2), lane(V, d + 1), lane(X, a), lane(X, a + 1)
        put(X, a + 1, y + b * r_a + e * r_b)
        put(X, a, x + lane(V, d) * r_a + b * r_b)


@compiled
def reach(V, n_entries, R, place, wanted, out, every, some, size, at, dpos, lptr, m, sptr, srow, X, c0, c1):  # type: ignore[no-untyped-def]
    """Some unknowns of ``K^-1 R``, whose places are wanted, into ``out``, shape (wanted, T); down along the pivots that
    lie above them alone. R, of shape (unknowns, T), may be ``out`` with all of them wanted: one kernel to compile."""
    for c in range(c0, c1):
        take_in(R, place, X, c)
        _up(V, c * n_entries, X, every, size, at, dpos, lptr, m, sptr, srow)
        _down(V, c * n_entries, X, some, size, at, dpos, lptr, m, sptr, srow)
        take_out(X, wanted, out, c)


@compiled
def between(V, n_entries, W, place, reached, some, size, at, dpos, lptr, m, sptr, srow, X, c0, c1):  # type: ignore[no-untyped-def]
    """``W <- e K^-1 e' W`` on some unknowns alone, whose places are given, along the pivots that a solve from them to
    them passes; ``reached`` are the places of these pivots."""
    for c in range(c0, c1):
        for i in reached:
            put(X, i, splat(0.0))
        take_in(W, place, X, c)
        _up(V, c * n_entries, X, some, size, at, dpos, lptr, m, sptr, srow)
        _down(V, c * n_entries, X, some, size, at, dpos, lptr, m, sptr, srow)
        take_out(X, place, W, c)


@compiled
def selected_inverse(  # type: ignore[no-untyped-def]
    V, n_entries, out, wanted, some, size, dpos, lptr, m, uptr, utgt, Z, work, c0, c1
):
    """Entries of ``K^-1`` on the pattern of some pivots, which are closed upwards (Takahashi et al. 1973).

    With L the column of a pivot, D its block and s what it reaches::

        Z_sk = -Z_ss L        Z_kk = D^-1 - L' Z_sk

    The entries that are wanted go to ``out``, shape (wanted, T).
    """
    for c in range(c0, c1):
        v = c * n_entries
        for j in range(len(some) - 1, -1, -1):
            k = some[j]
            rows, first, d, u = m[k], lptr[k], dpos[k], uptr[k]
            w = size[k]
            for q in range(w * rows):
                put(work, q, splat(0.0))
            for i in range(rows):
                for h in range(i + 1):
                    z = lane(Z, utgt[u])
                    u += 1
                    for q in range(w):
                        put(work, w * i + q, lane(work, w * i + q) - z * lane(V, v + first + w * h + q))
                        if h != i:
                            put(work, w * h + q, lane(work, w * h + q) - z * lane(V, v + first + w * i + q))
            if w == 1:
                own = lane(V, v + d)
                for i in range(rows):
                    x = lane(work, i)
                    put(Z, first + i, x)
                    own = own - lane(V, v + first + i) * x
                put(Z, d, own)
                continue
            a, b, e = lane(V, v + d), lane(V, v + d + 1), lane(V, v + d + 2)
            for i in range(rows):
                p = first + 2 * i
                x, y, l, h_ = lane(work, 2 * i), lane(work, 2 * i + 1), lane(V, v + p), lane(V, v + p + 1)
                put(Z, p, x)
                put(Z, p + 1, y)
                a = a - l * x
                b = b - l * y
                e = e - h_ * y
            put(Z, d, a)
            put(Z, d + 1, b)
            put(Z, d + 2, e)
        take_out(Z, wanted, out, c)


@inner
def condense(  # type: ignore[no-untyped-def]
    W, begin, M, n_maps, size, dpos, lptr, m, sptr, local, plocal, gfirst, glast, gin, gout, gown, eptr, elocal,
    epivot, mptr, work, first_group, last_group, c
):  # fmt: skip
    """The maps of the groups of a block of chunk c, whose first entry ``begin`` is the first of W: of each from its
    entries to itself and to its exits, given that nothing else is asked of it.

    With e the entries (unknowns where something arrives from below), o the exits (unknowns of the next group) and
    Y = L^-1 e', which is zero before the pivot of an entry::

        S = e A^-1 e' = Y' D^-1 Y       G = -e A^-1 A_Uo        stored as M: S (lower triangle by rows), then G (entry
                                                                by exit)
    """
    base = c * n_maps
    for g in range(first_group, last_group):
        n_in, n_out, n_own = gin[g], gout[g], gown[g]
        e0, m0, width, last = eptr[g], base + mptr[g], n_own + n_out, glast[g]
        at_g = m0 + n_in * (n_in + 1) // 2
        for j in range(n_in):
            y = j * width
            for q in range(y, y + width):
                put(work, q, splat(0.0))
            put(work, y + elocal[e0 + j], splat(1.0))
            for k in range(epivot[e0 + j], last):
                rows, first, s, x = m[k], lptr[k] - begin, sptr[k], lane(work, y + plocal[k, 0])
                if size[k] == 1:
                    for i in range(rows):
                        r = y + local[s + i]
                        put(work, r, lane(work, r) - lane(W, first + i) * x)
                    continue
                x2 = lane(work, y + plocal[k, 1])
                for i in range(rows):
                    r, p = y + local[s + i], first + 2 * i
                    put(work, r, lane(work, r) - lane(W, p) * x - lane(W, p + 1) * x2)
            for q in range(n_out):
                put(M, at_g + j * n_out + q, lane(work, y + n_own + q))
            for i in range(j + 1):  # entries come in the order of their pivots
                h, total = i * width, splat(0.0)
                for k in range(epivot[e0 + j], last):
                    d, a = dpos[k] - begin, plocal[k, 0]
                    if size[k] == 1:
                        total = total + lane(work, h + a) * lane(W, d) * lane(work, y + a)
                        continue
                    b = plocal[k, 1]
                    r_a, r_b = lane(work, y + a), lane(work, y + b)
                    total = total + lane(work, h + a) * (lane(W, d) * r_a + lane(W, d + 1) * r_b)
                    total = total + lane(work, h + b) * (lane(W, d + 1) * r_a + lane(W, d + 2) * r_b)
                put(M, m0 + j * (j + 1) // 2 + i, total)


@compiled
def make(  # type: ignore[no-untyped-def]
    V, W, M, n_maps, blocks, pivots, updates, negative, work, groups_at, condensing, map_work, assembly, values, c
):  # fmt: skip
    """The factor of chunk c and its maps, block by block, each gone through again while it is in the cache; all of it
    in one call, as threads that come back to Python a thousand times for a matrix wait for one another.

    Args:
        V: the factors of all chunks; rounded where they are kept as singles.
        W: room for a block, of doubles.
        blocks: of `symbolic.Blocks`: pivot, entry, carried, cptr, at_carried; ``groups_at`` is the first group of each
            block, and the end, all the same where there are none.
        pivots: size, first place, dpos, lptr, m, sptr, srow of each pivot.
        updates: uptr, and utgt in the room.
        condensing: of `condense`, from ``local`` to ``mptr``.
        assembly: of `lateral.solvers.native.assembly`: rows of the point and where they are staged, what is on the
            diagonal and where, the terms of every entry, and which entries are of which block.
        values: room for what is staged.
    """
    point, first, on_diagonal, at_diagonal, target, ptr, row, coefficient, parts = assembly
    size, _, dpos, lptr, m, sptr, _ = pivots
    stage_diagonal(*on_diagonal, at_diagonal, values, c)
    for i in range(len(point)):
        stage(point[i], first[i], values, c)
    assemble(W, target, ptr, row, coefficient, values, parts[0], parts[1])
    pivot, entry, carried, cptr, at_carried = blocks
    v = c * entry[-1]
    for b in range(len(pivot) - 1):
        begin = entry[b]
        assemble(W, target, ptr, row, coefficient, values, parts[b + 1], parts[b + 2])
        for i in range(cptr[b], cptr[b + 1]):
            put(W, carried[i] - begin, lane(W, at_carried + i))
        factor(W, begin, size, dpos, lptr, m, *updates, negative, work, pivot[b], pivot[b + 1], c)
        condense(
            W, begin, M, n_maps, size, dpos, lptr, m, sptr, *condensing, map_work, groups_at[b], groups_at[b + 1], c
        )
        for e in range(entry[b + 1] - begin):
            put(V, v + begin + e, lane(W, e))


@compiled
def through(M, n_maps, P, place, gin, gout, eptr, mptr, exit_, xptr, W, X, c0, c1):  # type: ignore[no-untyped-def]
    """``P <- e K^-1 e' P`` on some entries, whose places are given: up with G', down with S and G. Shape (some, T)."""
    n = len(gin)
    for c in range(c0, c1):
        base = c * n_maps
        for e in range(len(W)):
            put(W, e, splat(0.0))
        take_in(P, place, W, c)
        for g in range(n):
            n_in, n_out, e0, x0 = gin[g], gout[g], eptr[g], xptr[g]
            at_g = base + mptr[g] + n_in * (n_in + 1) // 2
            for q in range(n_out):
                o = exit_[x0 + q]
                x = lane(W, o)
                for j in range(n_in):
                    prefetch(M, at_g + j * n_out + q + AHEAD)
                    x = x + lane(M, at_g + j * n_out + q) * lane(W, e0 + j)
                put(W, o, x)
        for g in range(n - 1, -1, -1):
            n_in, n_out, e0, x0, m0 = gin[g], gout[g], eptr[g], xptr[g], base + mptr[g]
            at_g = m0 + n_in * (n_in + 1) // 2
            for q in range(m0, at_g + n_in * n_out):
                prefetch(M, q - AHEAD)
            for i in range(n_in):
                x = splat(0.0)
                for j in range(n_in):
                    s = i * (i + 1) // 2 + j if j <= i else j * (j + 1) // 2 + i
                    x = x + lane(M, m0 + s) * lane(W, e0 + j)
                for q in range(n_out):
                    x = x + lane(M, at_g + i * n_out + q) * lane(X, exit_[x0 + q])
                put(X, e0 + i, x)
        take_out(X, place, P, c)


@compiled
def inverse_blocks(  # type: ignore[no-untyped-def]
    M, n_maps, out, wanted, gin, gout, eptr, mptr, zptr, xptr, xentry, parent, Z, work, c0, c1
):
    """The blocks of the inverse on the entries of each group, lower triangles: ``Z = S + G Z_o G'``, root to leaves.

    The entries that are wanted go to ``out``, shape (wanted, T).
    """
    for c in range(c0, c1):
        base = c * n_maps
        for g in range(len(gin) - 1, -1, -1):
            n_in, n_out, m0, z0, x0 = gin[g], gout[g], base + mptr[g], zptr[g], xptr[g]
            at_g = m0 + n_in * (n_in + 1) // 2
            for i in range(n_in * (n_in + 1) // 2):
                put(Z, z0 + i, lane(M, m0 + i))
            if n_out == 0:
                continue
            z_p = zptr[parent[g]]
            for i in range(n_in):  # work = (G Z_o) of entry i
                for q in range(n_out):
                    x = splat(0.0)
                    for r in range(n_out):
                        a, b = xentry[x0 + q], xentry[x0 + r]
                        z = z_p + (a * (a + 1) // 2 + b if b <= a else b * (b + 1) // 2 + a)
                        x = x + lane(M, at_g + i * n_out + r) * lane(Z, z)
                    put(work, q, x)
                for j in range(i + 1):
                    z = z0 + i * (i + 1) // 2 + j
                    x = lane(Z, z)
                    for q in range(n_out):
                        x = x + lane(work, q) * lane(M, at_g + j * n_out + q)
                    put(Z, z, x)
        take_out(Z, wanted, out, c)


__all__ = [
    "assemble",
    "between",
    "condense",
    "extract",
    "factor",
    "inverse_blocks",
    "make",
    "reach",
    "selected_inverse",
    "stage",
    "stage_diagonal",
    "through",
]
