"""Kernels of the structured solver: everything that touches numbers entry by entry, compiled by Numba.

Arrays are (entry, step), step contiguous, so that one instruction works on several steps. The factor V holds, pivot
after pivot, the inverse diagonal (one number, or three of a pair) and the columns of L. All indices come from
`lateral.solvers.native.symbolic`; every function works on the steps ``t0 <= t < t1``, so that threads can share them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

#: Sums may be reordered and contracted; NaN and infinity keep their meaning.
_compiled: Callable[[Any], Any] = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"contract", "arcp", "nsz", "reassoc"}
)


@_compiled
def factor(V, size, dpos, lptr, m, uptr, utgt, work, t0, t1):  # type: ignore[no-untyped-def]
    """Eliminate the pivots in order, in place; returns the number of negative eigenvalues of each step.

    A pivot k of one or two unknowns, with L = A_Sk D^-1 over the unknowns S that come later::

        A_SS -= L A_Sk'
    """
    negative = np.zeros(t1 - t0, dtype=np.int64)
    for k in range(len(size)):
        rows, first, d, u = m[k], lptr[k], dpos[k], uptr[k]
        if size[k] == 1:
            for t in range(t0, t1):
                if V[d, t] < 0.0:
                    negative[t - t0] += 1
                V[d, t] = 1.0 / V[d, t]
            for i in range(rows):
                for t in range(t0, t1):
                    work[i, t] = V[first + i, t]
                    V[first + i, t] *= V[d, t]
            for i in range(rows):
                for j in range(i + 1):
                    g = utgt[u]
                    u += 1
                    for t in range(t0, t1):
                        V[g, t] -= V[first + i, t] * work[j, t]
            continue
        for t in range(t0, t1):
            a, b, c = V[d, t], V[d + 1, t], V[d + 2, t]
            det = a * c - b * b
            if det < 0.0:
                negative[t - t0] += 1
            elif a < 0.0:
                negative[t - t0] += 2
            V[d, t], V[d + 1, t], V[d + 2, t] = c / det, -b / det, a / det
        for i in range(rows):
            p = first + 2 * i
            for t in range(t0, t1):
                x, y = V[p, t], V[p + 1, t]
                work[2 * i, t] = x
                work[2 * i + 1, t] = y
                V[p, t] = x * V[d, t] + y * V[d + 1, t]
                V[p + 1, t] = x * V[d + 1, t] + y * V[d + 2, t]
        for i in range(rows):
            p = first + 2 * i
            for j in range(i + 1):
                g = utgt[u]
                u += 1
                for t in range(t0, t1):
                    V[g, t] -= V[p, t] * work[2 * j, t] + V[p + 1, t] * work[2 * j + 1, t]
    return negative


@_compiled
def solve(V, R, some, size, unknown, dpos, lptr, m, sptr, srow, t0, t1):  # type: ignore[no-untyped-def]
    """``R <- K^-1 R`` in place: leaves to the root, diagonal, root to the leaves.

    Along some pivots in their order: all of them, or closed upwards; then R is zero elsewhere, and not asked for there.
    """
    width = t1 - t0
    work = np.empty((2, width))
    x, y = work[0], work[1]
    for k in some:
        rows, first, s, a = m[k], lptr[k], sptr[k], unknown[k, 0]
        r_a = R[a, t0:t1]
        for t in range(width):
            x[t] = r_a[t]
        if size[k] == 1:
            for i in range(rows):
                r, v = R[srow[s + i], t0:t1], V[first + i, t0:t1]
                for t in range(width):
                    r[t] -= v[t] * x[t]
        else:
            r_b = R[unknown[k, 1], t0:t1]
            for t in range(width):
                y[t] = r_b[t]
            for i in range(rows):
                p = first + 2 * i
                r, v, z = R[srow[s + i], t0:t1], V[p, t0:t1], V[p + 1, t0:t1]
                for t in range(width):
                    r[t] -= v[t] * x[t] + z[t] * y[t]
    for k in some[::-1]:
        rows, first, s, d, a = m[k], lptr[k], sptr[k], dpos[k], unknown[k, 0]
        r_a, d_a = R[a, t0:t1], V[d, t0:t1]
        if size[k] == 1:
            for t in range(width):
                x[t] = d_a[t] * r_a[t]
            for i in range(rows):
                r, v = R[srow[s + i], t0:t1], V[first + i, t0:t1]
                for t in range(width):
                    x[t] -= v[t] * r[t]
            for t in range(width):
                r_a[t] = x[t]
        else:
            r_b, d_ab, d_b = R[unknown[k, 1], t0:t1], V[d + 1, t0:t1], V[d + 2, t0:t1]
            for t in range(width):
                x[t] = d_a[t] * r_a[t] + d_ab[t] * r_b[t]
                y[t] = d_ab[t] * r_a[t] + d_b[t] * r_b[t]
            for i in range(rows):
                p = first + 2 * i
                r, v, z = R[srow[s + i], t0:t1], V[p, t0:t1], V[p + 1, t0:t1]
                for t in range(width):
                    x[t] -= v[t] * r[t]
                    y[t] -= z[t] * r[t]
            for t in range(width):
                r_a[t] = x[t]
                r_b[t] = y[t]


@_compiled
def selected_inverse(  # type: ignore[no-untyped-def]
    V, Z, some, size, dpos, lptr, m, uptr, utgt, work, t0, t1
):
    """Entries of ``K^-1`` on the pattern of some pivots, which are closed upwards (Takahashi et al. 1973).

    With L the column of a pivot, D its block and s what it reaches::

        Z_sk = -Z_ss L        Z_kk = D^-1 - L' Z_sk
    """
    for j in range(len(some) - 1, -1, -1):
        k = some[j]
        rows, first, d, u0 = m[k], lptr[k], dpos[k], uptr[k]
        w = size[k]
        for q in range(w * rows):
            for t in range(t0, t1):
                work[q, t] = 0.0
        u = u0
        for i in range(rows):
            for h in range(i + 1):
                z = utgt[u]
                u += 1
                for q in range(w):
                    low, high = first + w * h + q, first + w * i + q
                    to_i, to_h = w * i + q, w * h + q
                    for t in range(t0, t1):
                        work[to_i, t] -= Z[z, t] * V[low, t]
                    if h != i:
                        for t in range(t0, t1):
                            work[to_h, t] -= Z[z, t] * V[high, t]
        n_own = 1 if w == 1 else 3
        for q in range(n_own):
            for t in range(t0, t1):
                Z[d + q, t] = V[d + q, t]
        for i in range(rows):
            p = first + w * i
            if w == 1:
                for t in range(t0, t1):
                    Z[p, t] = work[i, t]
                    Z[d, t] -= V[p, t] * work[i, t]
            else:
                for t in range(t0, t1):
                    Z[p, t] = work[2 * i, t]
                    Z[p + 1, t] = work[2 * i + 1, t]
                    Z[d, t] -= V[p, t] * work[2 * i, t]
                    Z[d + 1, t] -= V[p, t] * work[2 * i + 1, t]
                    Z[d + 2, t] -= V[p + 1, t] * work[2 * i + 1, t]


@_compiled
def condense(  # type: ignore[no-untyped-def]
    V,
    M,
    size,
    dpos,
    lptr,
    m,
    sptr,
    local,
    plocal,
    gfirst,
    glast,
    gin,
    gout,
    gunknowns,
    eptr,
    elocal,
    mptr,
    work,
    t0,
    t1,
):
    """The map of every group from its entries to itself and to its exits, given that nothing else is asked of it.

    With e the entries (unknowns where something arrives from below) and o the exits (unknowns of the next group)::

        S = e A^-1 e'       G = -e A^-1 A_Uo        stored as M: S (lower triangle by rows), then G (entry by exit)
    """
    for g in range(len(gfirst)):
        n_in, n_out, n_own = gin[g], gout[g], gunknowns[g]
        e0, m0 = eptr[g], mptr[g]
        at_g = m0 + n_in * (n_in + 1) // 2
        for j in range(n_in):
            for q in range(n_own + n_out):
                for t in range(t0, t1):
                    work[q, t] = 0.0
            for t in range(t0, t1):
                work[elocal[e0 + j], t] = 1.0
            for k in range(gfirst[g], glast[g]):
                rows, first, s, a = m[k], lptr[k], sptr[k], plocal[k, 0]
                if size[k] == 1:
                    for i in range(rows):
                        r = local[s + i]
                        for t in range(t0, t1):
                            work[r, t] -= V[first + i, t] * work[a, t]
                else:
                    b = plocal[k, 1]
                    for i in range(rows):
                        r, p = local[s + i], first + 2 * i
                        for t in range(t0, t1):
                            work[r, t] -= V[p, t] * work[a, t] + V[p + 1, t] * work[b, t]
            for q in range(n_out):
                for t in range(t0, t1):
                    M[at_g + j * n_out + q, t] = work[n_own + q, t]
                    work[n_own + q, t] = 0.0
            for k in range(glast[g] - 1, gfirst[g] - 1, -1):
                rows, first, s, d, a = m[k], lptr[k], sptr[k], dpos[k], plocal[k, 0]
                if size[k] == 1:
                    for t in range(t0, t1):
                        work[a, t] *= V[d, t]
                    for i in range(rows):
                        r = local[s + i]
                        if r < n_own:
                            for t in range(t0, t1):
                                work[a, t] -= V[first + i, t] * work[r, t]
                else:
                    b = plocal[k, 1]
                    for t in range(t0, t1):
                        x, y = work[a, t], work[b, t]
                        work[a, t] = V[d, t] * x + V[d + 1, t] * y
                        work[b, t] = V[d + 1, t] * x + V[d + 2, t] * y
                    for i in range(rows):
                        r, p = local[s + i], first + 2 * i
                        if r < n_own:
                            for t in range(t0, t1):
                                work[a, t] -= V[p, t] * work[r, t]
                                work[b, t] -= V[p + 1, t] * work[r, t]
            for i in range(j, n_in):
                for t in range(t0, t1):
                    M[m0 + i * (i + 1) // 2 + j, t] = work[elocal[e0 + i], t]


@_compiled
def through(M, W, X, gin, gout, eptr, mptr, entry, exit_, xptr, t0, t1):  # type: ignore[no-untyped-def]
    """``X = e K^-1 e' W`` on all entries: up with G', down with S and G. W is overwritten."""
    n, width = len(gin), t1 - t0
    sum_ = np.empty(width)
    for g in range(n):
        n_in, n_out, e0, x0 = gin[g], gout[g], eptr[g], xptr[g]
        at_g = mptr[g] + n_in * (n_in + 1) // 2
        for q in range(n_out):
            out = W[exit_[x0 + q], t0:t1]
            for t in range(width):
                sum_[t] = out[t]
            for j in range(n_in):
                w, c = W[entry[e0 + j], t0:t1], M[at_g + j * n_out + q, t0:t1]
                for t in range(width):
                    sum_[t] += c[t] * w[t]
            for t in range(width):
                out[t] = sum_[t]
    for g in range(n - 1, -1, -1):
        n_in, n_out, e0, x0, m0 = gin[g], gout[g], eptr[g], xptr[g], mptr[g]
        at_g = m0 + n_in * (n_in + 1) // 2
        for i in range(n_in):
            for t in range(width):
                sum_[t] = 0.0
            for j in range(n_in):
                at = m0 + (i * (i + 1) // 2 + j if j <= i else j * (j + 1) // 2 + i)
                w, c = W[entry[e0 + j], t0:t1], M[at, t0:t1]
                for t in range(width):
                    sum_[t] += c[t] * w[t]
            for q in range(n_out):
                o, c = X[exit_[x0 + q], t0:t1], M[at_g + i * n_out + q, t0:t1]
                for t in range(width):
                    sum_[t] += c[t] * o[t]
            x = X[entry[e0 + i], t0:t1]
            for t in range(width):
                x[t] = sum_[t]


@_compiled
def inverse_blocks(M, Z, gin, gout, eptr, mptr, zptr, xptr, xentry, parent, work, t0, t1):  # type: ignore[no-untyped-def]
    """The blocks of the inverse on the entries of each group, lower triangles: ``Z = S + G Z_o G'``, root to leaves."""
    for g in range(len(gin) - 1, -1, -1):
        n_in, n_out, m0, z0, x0 = gin[g], gout[g], mptr[g], zptr[g], xptr[g]
        at_g = m0 + n_in * (n_in + 1) // 2
        for i in range(n_in * (n_in + 1) // 2):
            for t in range(t0, t1):
                Z[z0 + i, t] = M[m0 + i, t]
        if n_out == 0:
            continue
        z_p = zptr[parent[g]]
        for i in range(n_in):  # work = (G Z_o) of entry i
            for q in range(n_out):
                for t in range(t0, t1):
                    work[q, t] = 0.0
                for r in range(n_out):
                    a, b = xentry[x0 + q], xentry[x0 + r]
                    z = z_p + (a * (a + 1) // 2 + b if b <= a else b * (b + 1) // 2 + a)
                    c = at_g + i * n_out + r
                    for t in range(t0, t1):
                        work[q, t] += M[c, t] * Z[z, t]
            for j in range(i + 1):
                z = z0 + i * (i + 1) // 2 + j
                for q in range(n_out):
                    c = at_g + j * n_out + q
                    for t in range(t0, t1):
                        Z[z, t] += work[q, t] * M[c, t]


@_compiled
def add_product(out, row, col, val, x, t0, t1):  # type: ignore[no-untyped-def]
    """``out[row] += val x[col]``; one column of values stands for every step."""
    if val.shape[1] == 1:
        for e in range(len(row)):
            r, c, a = row[e], col[e], val[e, 0]
            for t in range(t0, t1):
                out[r, t] += a * x[c, t]
    else:
        for e in range(len(row)):
            r, c = row[e], col[e]
            for t in range(t0, t1):
                out[r, t] += val[e, t] * x[c, t]


@_compiled
def add_scaled(V, target, row, coefficient, factor_, t0, t1):  # type: ignore[no-untyped-def]
    """``V[target] += coefficient factor[row]``."""
    if coefficient.shape[1] == 1:
        for e in range(len(target)):
            g, r, a = target[e], row[e], coefficient[e, 0]
            for t in range(t0, t1):
                V[g, t] += a * factor_[r, t]
    else:
        for e in range(len(target)):
            g, r = target[e], row[e]
            for t in range(t0, t1):
                V[g, t] += coefficient[e, t] * factor_[r, t]


@_compiled
def tridiagonal_factor(d, e):  # type: ignore[no-untyped-def]
    """``L D L'`` of tridiagonal matrices, one per row, in place; e[t] couples t and t + 1. Number of pivots <= 0."""
    bad = 0
    for i in range(d.shape[0]):
        if not d[i, 0] > 0.0:
            bad += 1
        for t in range(1, d.shape[1]):
            f = e[i, t - 1] / d[i, t - 1]
            d[i, t] -= f * e[i, t - 1]
            e[i, t - 1] = f
            if not d[i, t] > 0.0:
                bad += 1
    return bad


@_compiled
def tridiagonal_solve(d, e, r, x):  # type: ignore[no-untyped-def]
    """``x`` = solution of the factored tridiagonal systems for r."""
    n = d.shape[1]
    for i in range(d.shape[0]):
        x[i, 0] = r[i, 0]
        for t in range(1, n):
            x[i, t] = r[i, t] - e[i, t - 1] * x[i, t - 1]
        for t in range(n):
            x[i, t] /= d[i, t]
        for t in range(n - 2, -1, -1):
            x[i, t] -= e[i, t] * x[i, t + 1]


@_compiled
def barrier(x, low, high, z_low, z_high, diagonal):  # type: ignore[no-untyped-def]
    """``sum of z / slack`` of each variable into ``diagonal``; returns the sum of all z times slack."""
    total = 0.0
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            d = 0.0
            if low[i, t] > -np.inf:
                s = x[i, t] - low[i, t]
                d += z_low[i, t] / s
                total += z_low[i, t] * s
            if high[i, t] < np.inf:
                s = high[i, t] - x[i, t]
                d += z_high[i, t] / s
                total += z_high[i, t] * s
            diagonal[i, t] = d
    return total


@_compiled
def second_order(dx, dz_low, dz_high, omega, cap):  # type: ignore[no-untyped-def]
    """The predictor's second-order terms ``omega ds dz``, clipped, in the place of its dz."""
    for i in range(dx.shape[0]):
        for t in range(dx.shape[1]):
            dz_low[i, t] = omega * min(max(dx[i, t] * dz_low[i, t], -cap), cap)
            dz_high[i, t] = omega * min(max(-dx[i, t] * dz_high[i, t], -cap), cap)


@_compiled
def centre(x, low, high, z_low, z_high, second_low, second_high, mu, out):  # type: ignore[no-untyped-def]
    """What the complementarity target adds to the dual residual: ``(mu - second) / s - z``, signed, into out."""
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            value = 0.0
            if low[i, t] > -np.inf:
                value += (mu - second_low[i, t]) / (x[i, t] - low[i, t]) - z_low[i, t]
            if high[i, t] < np.inf:
                value -= (mu - second_high[i, t]) / (high[i, t] - x[i, t]) - z_high[i, t]
            out[i, t] = value


@_compiled
def dual_step(x, low, high, z_low, z_high, dx, mu, dz_low, dz_high):  # type: ignore[no-untyped-def]
    """Steps of the bound multipliers that go with dx, in the place of the second-order terms."""
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            if low[i, t] > -np.inf:
                s = x[i, t] - low[i, t]
                dz_low[i, t] = (mu - dz_low[i, t] - z_low[i, t] * dx[i, t]) / s - z_low[i, t]
            if high[i, t] < np.inf:
                s = high[i, t] - x[i, t]
                dz_high[i, t] = (mu - dz_high[i, t] + z_high[i, t] * dx[i, t]) / s - z_high[i, t]


@_compiled
def largest_steps(x, low, high, z_low, z_high, dx, dz_low, dz_high, tau):  # type: ignore[no-untyped-def]
    """Largest primal and dual steps that leave (1 - tau) of every slack and multiplier, at most 1."""
    primal = 1.0
    dual = 1.0
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            if low[i, t] > -np.inf:
                s = x[i, t] - low[i, t]
                if dx[i, t] < 0.0:
                    primal = min(primal, -tau * s / dx[i, t])
                if dz_low[i, t] < 0.0:
                    dual = min(dual, -tau * z_low[i, t] / dz_low[i, t])
            if high[i, t] < np.inf:
                s = high[i, t] - x[i, t]
                if dx[i, t] > 0.0:
                    primal = min(primal, tau * s / dx[i, t])
                if dz_high[i, t] < 0.0:
                    dual = min(dual, -tau * z_high[i, t] / dz_high[i, t])
    return primal, dual


@_compiled
def complementarity_after(x, low, high, z_low, z_high, dx, dz_low, dz_high, primal, dual):  # type: ignore[no-untyped-def]
    """Sum of multiplier times slack after a step."""
    total = 0.0
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            if low[i, t] > -np.inf:
                total += (z_low[i, t] + dual * dz_low[i, t]) * (x[i, t] + primal * dx[i, t] - low[i, t])
            if high[i, t] < np.inf:
                total += (z_high[i, t] + dual * dz_high[i, t]) * (high[i, t] - x[i, t] - primal * dx[i, t])
    return total
