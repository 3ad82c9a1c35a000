"""Kernels of the method that go through numbers one by one, compiled by Numba: products, chains in time, barrier.

Arrays are (element, step), step contiguous; ``rows`` are those with a bound, the others stay as they are. Loops over
steps go over all of them: with an index that might count from the end they would not be vectorised. The elimination has
its own: `lateral.solvers.native.elimination`. Where one kernel calls another with a number that is written down, it is
an ``np.int64``: for a literal Numba compiles the other one once more, a quarter of a second each.
"""

from __future__ import annotations

import numpy as np

from lateral.solvers.native.compiling import compiled, inner, inner_of_numbers


@compiled
def spread(out, element, step, values):  # type: ignore[no-untyped-def]
    """Cells into (element, step); an element of -1 is nowhere."""
    for k in range(len(element)):
        if element[k] >= 0:
            out[element[k], step[k]] = values[k]


@compiled
def gather(out, element, step, array):  # type: ignore[no-untyped-def]
    """Cells from (element, step); an element of -1 is nowhere."""
    for k in range(len(element)):
        if element[k] >= 0:
            out[k] = array[element[k], step[k]]


@compiled
def gather_scaled(out, element, step, array, scale, factor, first, last):  # type: ignore[no-untyped-def]
    """Some cells from (element, step), times their scale and a factor; zero at an element of -1."""
    for k in range(first, last):
        out[k] = array[element[k], step[k]] * (scale[k] * factor) if element[k] >= 0 else 0.0


@compiled
def refill(out, target, source, values):  # type: ignore[no-untyped-def]
    """``out[target] = values[source]``."""
    for k in range(len(target)):
        out[target[k]] = values[source[k]]


@compiled
def settle(low, high, there, fixed, value):  # type: ignore[no-untyped-def]
    """Which variables are fixed, 1 or 0, and at what; those that are not there are, at 0, without bounds. Returns how
    far the bounds of one exclude each other at most, relative where they are above 1."""
    most = 0.0
    for i in range(low.shape[0]):
        for t in range(low.shape[1]):
            fixed[i, t], value[i, t] = 1.0, 0.0
            if there[i, t] == 0.0:
                low[i, t], high[i, t] = -np.inf, np.inf
                continue
            size = max(1.0, abs(low[i, t]))
            if size < np.inf and high[i, t] - low[i, t] <= 1e-12 * size:
                value[i, t] = low[i, t]
                most = max(most, (low[i, t] - high[i, t]) / size)
                continue
            fixed[i, t] = 0.0
            if low[i, t] == np.inf:
                most = np.inf
    return most


@compiled
def inside(x, low, high, push, first, last):  # type: ignore[no-untyped-def]
    """Values of some rows pushed inside of their bounds: by a share of ``max(1, |bound|)``, and of the range."""
    for i in range(first, last):
        for t in range(x.shape[1]):
            below, above = low[i, t], high[i, t]
            room = push * (above - below)
            if below > -np.inf:
                x[i, t] = max(x[i, t], below + min(push * max(1.0, abs(below)), room))
            if above < np.inf:
                x[i, t] = min(x[i, t], above - min(push * max(1.0, abs(above)), room))


@compiled
def multipliers(z_low, z_high, x, low, high, mu, first, last):  # type: ignore[no-untyped-def]
    """``mu / distance`` of the bounds of some rows; zero where there is none."""
    for i in range(first, last):
        for t in range(x.shape[1]):
            z_low[i, t] = mu / (x[i, t] - low[i, t]) if low[i, t] > -np.inf else 0.0
            z_high[i, t] = mu / (high[i, t] - x[i, t]) if high[i, t] < np.inf else 0.0


#: Faults of `collect`.
UNTIMED, FURTHER = 1, 2


@inner
def _repeated(indptr, indices, row_step, col_of, col_step, rows, source, target, own, found):  # type: ignore[no-untyped-def]
    """Of rows of one element that repeat the first of them at other steps: ``source`` and ``target`` from ``found`` on,
    by those of the first, which are there from ``own``. Returns where they end; -1 where a row does not repeat it."""
    start, once = indptr[rows[0]], found
    length = indptr[rows[0] + 1] - start
    for r in rows[1:]:
        begin, later = indptr[r], row_step[r] - row_step[rows[0]]
        if indptr[r + 1] - begin != length:
            return -1
        for k in range(length):
            c, of = indices[begin + k], indices[start + k]
            if col_of[c] != col_of[of] or col_step[c] != col_step[of] + later:
                return -1
        for k in range(own, once):
            source[found], target[found] = source[k] + begin - start, target[k] + later
            found += 1
    return found


@compiled
def collect(  # type: ignore[no-untyped-def]
    indptr, indices, row_of, row_step, col_of, col_step, n_rows, n_cols, n_steps, back, row, col, source, target
):
    """The entries of one step of a matrix (CSR) whose column is ``back`` steps before the row, by row and column.

    Args:
        row_of, row_step, col_of, col_step: element within a step, -1 for none, and step, of its rows and columns.
        row, col: of each entry.
        source, target: of each nonzero that belongs to one: its number, and entry * n_steps + step.

    Returns:
        number of entries, number of such nonzeros, and 0 or a fault.
    """
    first = np.zeros(n_rows + 1, dtype=np.int64)
    for r in range(len(row_of)):
        if row_of[r] >= 0:
            first[row_of[r] + 1] += 1
    for e in range(n_rows):
        first[e + 1] += first[e]
    cells = np.empty(first[n_rows], dtype=np.int64)
    at = first[:n_rows].copy()
    for r in range(len(row_of)):
        if row_of[r] >= 0:
            cells[at[row_of[r]]] = r
            at[row_of[r]] += 1
    seen, number = np.full(n_cols, -1), np.zeros(n_cols, dtype=np.int64)
    n, found, mark = np.int64(0), np.int64(0), 0
    for e in range(n_rows):
        begin, own, last = n, found, first[e + 1]
        until = min(first[e] + 1, last)  # its first row alone, which the others mostly repeat; else all of them
        while True:
            n, found, mark = begin, own, mark + 1
            for q in range(first[e], until):
                r = cells[q]
                for k in range(indptr[r], indptr[r + 1]):
                    c = col_of[indices[k]]
                    if c < 0:
                        return n, found, UNTIMED
                    lag = row_step[r] - col_step[indices[k]]
                    if lag != 0 and lag != 1:
                        return n, found, FURTHER
                    if lag != back:
                        continue
                    if seen[c] != mark:
                        seen[c] = mark
                        row[n], col[n] = e, c
                        n += 1
                    source[found], target[found] = k, row_step[r]
                    found += 1
            # by column: insertion, as a row has few, mostly in order; a library's sort compiles for a second
            for k in range(begin + 1, n):
                c, q = col[k], k
                while q > begin and col[q - 1] > c:
                    col[q] = col[q - 1]
                    q -= 1
                col[q] = c
            for k in range(begin, n):
                number[col[k]] = k
            for k in range(own, found):
                target[k] += number[col_of[indices[source[k]]]] * n_steps
            if until == last:
                break
            rows = cells[first[e] : last]
            more = _repeated(indptr, indices, row_step, col_of, col_step, rows, source, target, own, found)
            if more >= 0:
                found = more
                break
            until = last
    return n, found, 0


@compiled
def add_product(out, order, row, col, val, x, first, last):  # type: ignore[no-untyped-def]
    """``out[row] += val x[col]`` of some entries in an order; one column of values stands for every step."""
    for q in range(first, last):
        e = order[q]
        r, c = row[e], col[e]
        if val.shape[1] == 1:
            a = val[e, 0]
            for t in range(out.shape[1]):
                out[r, t] += a * x[c, t]
        else:
            for t in range(out.shape[1]):
                out[r, t] += val[e, t] * x[c, t]


@compiled
def add_slopes(out, order, row, col, val, left, y, per, factor, first, last):  # type: ignore[no-untyped-def]
    """``out[row] += factor val left[col] y[col // per]`` of some entries in an order; one column of values stands for
    every step."""
    for q in range(first, last):
        e = order[q]
        r, c, of = row[e], col[e], col[e] // per
        if val.shape[1] == 1:
            a = factor * val[e, 0]
            for t in range(out.shape[1]):
                out[r, t] += a * left[c, t] * y[of, t]
        else:
            for t in range(out.shape[1]):
                out[r, t] += factor * val[e, t] * left[c, t] * y[of, t]


@compiled
def add_earlier(out, row, col, val, x):  # type: ignore[no-untyped-def]
    """``out[row, t] += val x[col, t - 1]``."""
    last = val.shape[1] - 1
    for e in range(len(row)):
        r, c = row[e], col[e]
        for t in range(1, out.shape[1]):
            out[r, t] += val[e, min(t, last)] * x[c, t - 1]


@compiled
def add_later(out, row, col, val, y):  # type: ignore[no-untyped-def]
    """The transpose of `add_earlier`: ``out[row, t - 1] += val y[col, t]``."""
    last = val.shape[1] - 1
    for e in range(len(row)):
        r, c = row[e], col[e]
        for t in range(1, out.shape[1]):
            out[r, t - 1] += val[e, min(t, last)] * y[c, t]


@compiled
def add_pairs(out, f, g, per, factor, first, last):  # type: ignore[no-untyped-def]
    """``out += factor sum f g`` over ``per`` rows of f and g for each row of out."""
    for i in range(first, last):
        for k in range(i * per, (i + 1) * per):
            for t in range(out.shape[1]):
                out[i, t] += factor * f[k, t] * g[k, t]


@compiled
def add_terms(out, row, x, a, y, b, inverse, at, back, before):  # type: ignore[no-untyped-def]
    """``out[row, t - before] += x[a, t] y[b, t - before] inverse[at, t - back]`` of some pairs of coefficients; one
    column of values stands for every step."""
    last_x, last_y = x.shape[1] - 1, y.shape[1] - 1
    for k in range(len(row)):
        if last_x == last_y == 0:
            both = x[a[k], 0] * y[b[k], 0]
            for t in range(out.shape[1] - back):
                out[row[k], t + back - before] += both * inverse[at[k], t]
            continue
        for t in range(back, out.shape[1]):
            term = x[a[k], min(t, last_x)] * y[b[k], min(t - before, last_y)] * inverse[at[k], t - back]
            out[row[k], t - before] += term


#: Rounding of a pivot, as a share of its entry.
ROUNDING = 1e-13


@compiled
def tridiagonal_factor(d, e, first, last):  # type: ignore[no-untyped-def]
    """``L D L'`` of tridiagonal matrices, one per row, in place; e[t] couples t and t + 1. Number of pivots below zero;
    one that is no more than the rounding of its entry is what that rounding is: of rows that depend on one another."""
    bad = 0
    for i in range(first, last):
        if not d[i, 0] > 0.0:
            bad += 1
        for t in range(1, d.shape[1]):
            f, least = e[i, t - 1] / d[i, t - 1], ROUNDING * d[i, t]
            d[i, t] -= f * e[i, t - 1]
            e[i, t - 1] = f
            if not abs(d[i, t]) > least:
                d[i, t] = least
            if not d[i, t] > 0.0:
                bad += 1
    return bad


#: So many chains in time are solved side by side: one of them waits for its last product at every step.
BESIDE = 8


@compiled
def descend(first, last, eta, r, p, q, step, d, e, z):  # type: ignore[no-untyped-def]
    """A step of the conjugate gradients along p, q being the product with it, into eta and the residual r; z is what
    the preconditioner, tridiagonal in time and factored, makes of r. Returns ``r z``."""
    n = r.shape[1]
    total = 0.0
    for low in range(first, last, BESIDE):
        high = min(low + BESIDE, last)
        for i in range(low, high):
            for t in range(n):
                eta[i, t] += step * p[i, t]
                r[i, t] -= step * q[i, t]
            z[i, 0] = r[i, 0]
        for t in range(1, n):
            for i in range(low, high):
                z[i, t] = r[i, t] - e[i, t - 1] * z[i, t - 1]
        for i in range(low, high):
            for t in range(n):
                z[i, t] /= d[i, t]
        for t in range(n - 2, -1, -1):
            for i in range(low, high):
                z[i, t] -= e[i, t] * z[i, t + 1]
        for i in range(low, high):
            for t in range(n):
                total += r[i, t] * z[i, t]
    return total


@compiled
def to_linked(w, p, z, factor, order, row, col, val, row_b, col_b, val_b, inverse):  # type: ignore[no-untyped-def]
    """The next direction ``p = z + factor p``, and ``C' p`` of the linked variables into w; of the last ones, which
    nothing but storage rows touch, times their part of the inverse."""
    for i in range(p.shape[0]):
        for t in range(p.shape[1]):
            p[i, t] = z[i, t] + factor * p[i, t]
    for i in range(w.shape[0]):
        for t in range(w.shape[1]):
            w[i, t] = 0.0
    add_product(w, order, col, row, val, p, np.int64(0), len(order))
    add_later(w, col_b, row_b, val_b, p)
    first = w.shape[0] - inverse.shape[0]
    for i in range(inverse.shape[0]):
        for t in range(w.shape[1]):
            w[first + i, t] *= inverse[i, t]


@compiled
def from_linked(q, w, p, order, row, col, val, row_b, col_b, val_b):  # type: ignore[no-untyped-def]
    """``q = C w``; returns ``p q``."""
    total = 0.0
    for i in range(q.shape[0]):
        for t in range(q.shape[1]):
            q[i, t] = 0.0
    add_product(q, order, row, col, val, w, np.int64(0), len(order))
    add_earlier(q, row_b, col_b, val_b, w)
    for i in range(q.shape[0]):
        for t in range(q.shape[1]):
            total += p[i, t] * q[i, t]
    return total


@compiled
def barrier(rows, low, high, x, z_low, z_high, diagonal, pull):  # type: ignore[no-untyped-def]
    """Of each variable the sum of z / slack into ``diagonal`` and ``z_high - z_low`` into ``pull``; returns the sum of
    all z times slack."""
    total = 0.0
    for i in rows:
        for t in range(x.shape[1]):
            d, p = 0.0, 0.0
            if low[i, t] > -np.inf:
                s = x[i, t] - low[i, t]
                d += z_low[i, t] / s
                p -= z_low[i, t]
                total += z_low[i, t] * s
            if high[i, t] < np.inf:
                s = high[i, t] - x[i, t]
                d += z_high[i, t] / s
                p += z_high[i, t]
                total += z_high[i, t] * s
            diagonal[i, t], pull[i, t] = d, p
    return total


@compiled
def affine(rows, low, high, x, z_low, z_high, dx):  # type: ignore[no-untyped-def]
    """Of a step dx that aims at no complementarity, with the multipliers' steps ``dz = -z (1 + q)``, ``q = ds / s``:
    the largest q and -q, where 1 / (1 + q) and 1 / -q are the largest dual and primal steps, and the sums of ``z s``,
    ``z ds`` and ``z ds q``."""
    up, down = 0.0, 0.0
    z_s, z_ds, z_dsq = 0.0, 0.0, 0.0
    for i in rows:
        for t in range(x.shape[1]):
            if low[i, t] > -np.inf:
                s, ds, z = x[i, t] - low[i, t], dx[i, t], z_low[i, t]
                q = ds / s
                up, down = max(up, q), max(down, -q)
                z_s += z * s
                z_ds += z * ds
                z_dsq += z * ds * q
            if high[i, t] < np.inf:
                s, ds, z = high[i, t] - x[i, t], -dx[i, t], z_high[i, t]
                q = ds / s
                up, down = max(up, q), max(down, -q)
                z_s += z * s
                z_ds += z * ds
                z_dsq += z * ds * q
    return up, down, z_s, z_ds, z_dsq


@compiled
def recentre(rows, low, high, x, z_low, z_high, least):  # type: ignore[no-untyped-def]
    """Products of slack and multiplier below ``least`` become it: by the slack where that is the smaller of the two and
    stays in its half of the range, by the multiplier where that is."""
    for i in rows:
        for t in range(x.shape[1]):
            half = 0.5 * (high[i, t] - low[i, t])
            if low[i, t] > -np.inf:
                s, z = x[i, t] - low[i, t], z_low[i, t]
                if s * z < least and s >= z:
                    z_low[i, t] = least / s
                elif s * z < least and least < half * z:
                    x[i, t] = low[i, t] + least / z
            if high[i, t] < np.inf:
                s, z = high[i, t] - x[i, t], z_high[i, t]
                if s * z < least and s >= z:
                    z_high[i, t] = least / s
                elif s * z < least and least < half * z:
                    x[i, t] = high[i, t] - least / z


@compiled
def centre(rows, low, high, x, z_low, z_high, dx, omega, cap, mu, second_low, second_high, out):  # type: ignore[no-untyped-def]
    """What the complementarity target adds to the dual residual: ``(mu - second) / s - z``, signed, into out; with the
    second-order terms ``second = omega ds dz`` of a step dx that aimed at none (`affine`), clipped."""
    for i in rows:
        for t in range(x.shape[1]):
            value = 0.0
            if low[i, t] > -np.inf:
                r = 1.0 / (x[i, t] - low[i, t])
                ds, z = dx[i, t], z_low[i, t]
                second = omega * min(max(-z * ds * (1.0 + ds * r), -cap), cap)
                second_low[i, t] = second
                value += (mu - second) * r - z
            if high[i, t] < np.inf:
                r = 1.0 / (high[i, t] - x[i, t])
                ds, z = -dx[i, t], z_high[i, t]
                second = omega * min(max(-z * ds * (1.0 + ds * r), -cap), cap)
                second_high[i, t] = second
                value -= (mu - second) * r - z
            out[i, t] = value


@compiled
def dual_step(rows, low, high, x, z_low, z_high, dx, mu, tau, dz_low, dz_high):  # type: ignore[no-untyped-def]
    """Steps of the bound multipliers that go with dx, in the place of the second-order terms; the largest primal and
    dual steps that leave (1 - tau) of every slack and multiplier, at most 1."""
    primal = 1.0
    dual = 1.0
    for i in rows:
        for t in range(x.shape[1]):
            if low[i, t] > -np.inf:
                s, ds, z = x[i, t] - low[i, t], dx[i, t], z_low[i, t]
                dz = (mu - dz_low[i, t] - z * ds) / s - z
                dz_low[i, t] = dz
                if ds < 0.0:
                    primal = min(primal, -tau * s / ds)
                if dz < 0.0:
                    dual = min(dual, -tau * z / dz)
            if high[i, t] < np.inf:
                s, ds, z = high[i, t] - x[i, t], -dx[i, t], z_high[i, t]
                dz = (mu - dz_high[i, t] - z * ds) / s - z
                dz_high[i, t] = dz
                if ds < 0.0:
                    primal = min(primal, -tau * s / ds)
                if dz < 0.0:
                    dual = min(dual, -tau * z / dz)
    return primal, dual


@compiled
def advance_rows(rows, z_low, z_high, dz_low, dz_high, step):  # type: ignore[no-untyped-def]
    """``z += step dz``."""
    for i in rows:
        for t in range(z_low.shape[1]):
            z_low[i, t] += step * dz_low[i, t]
            z_high[i, t] += step * dz_high[i, t]


@compiled
def gradient(out, c, quadratic, z_low, z_high, first, last):  # type: ignore[no-untyped-def]
    """``c + Q x - z_low + z_high``."""
    for i in range(first, last):
        for t in range(out.shape[1]):
            out[i, t] = c[i, t] + quadratic[i, t] - z_low[i, t] + z_high[i, t]


@compiled
def slack_residuals(dual_s, left, sign, y, w_low, w_high, rows, s, first, last):  # type: ignore[no-untyped-def]
    """``dual_s = sign y - w_low + w_high``, 0 where the row has no slack, and ``left = rows + sign s``."""
    for i in range(first, last):
        for t in range(dual_s.shape[1]):
            dual_s[i, t] = sign[i, t] * y[i, t] - w_low[i, t] + w_high[i, t]
            left[i, t] = rows[i, t] + sign[i, t] * s[i, t]


@compiled
def right_side(right, r_s, equal, dual_x, dual_s, centre_x, centre_s, rows, slack, sign, of_x, of_equal, of_rows):  # type: ignore[no-untyped-def]
    """Right-hand side of a Newton step, of some variables, equalities and other rows (first, and one after the last),
    and what is left of the dual residual of rows with a slack::

        right = centre - dual_x,   -equal,   -rows - sign r_s slack        r_s = centre - dual_s
    """
    n, steps = dual_x.shape[0], right.shape[1]
    for i in range(*of_x):
        for t in range(steps):
            right[i, t] = centre_x[i, t] - dual_x[i, t]
    for i in range(*of_equal):
        for t in range(steps):
            right[n + i, t] = -equal[i, t]
    n += equal.shape[0]
    for i in range(*of_rows):
        if sign[i, 0] == 0.0:
            for t in range(steps):
                right[n + i, t] = -rows[i, t]
            continue
        for t in range(steps):
            r_s[i, t] = centre_s[i, t] - dual_s[i, t]
            right[n + i, t] = -rows[i, t] - sign[i, t] * r_s[i, t] * slack[i, t]


@compiled
def slack_steps(ds, r_s, dy, slack, sign, slopes, rows, far, first, last):  # type: ignore[no-untyped-def]
    """Of some rows with a slack, what that becomes: ``(r_s - sign dy) slack``, and where ``slack`` is above ``far``
    ``-sign (rows + slopes)``, what the row itself says."""
    for i in range(first, last):
        for t in range(ds.shape[1]):
            near = (r_s[i, t] - sign[i, t] * dy[i, t]) * slack[i, t]
            ds[i, t] = -sign[i, t] * (rows[i, t] + slopes[i, t]) if slack[i, t] > far else near


@compiled
def not_numbers(values, first, last):  # type: ignore[no-untyped-def]
    """0, or NaN when there is a number that is none, or infinite."""
    total = 0.0
    for i in range(first, last):
        for t in range(values.shape[1]):
            total += values[i, t] * 0.0
    return total


@inner_of_numbers
def _most(values, by, i):  # type: ignore[no-untyped-def]
    most = 0.0
    for t in range(values.shape[1]):
        most = max(most, abs(values[i, t] * by[min(i, len(by) - 1), t]))
    return most


@compiled
def largest_product(values, by, first, last):  # type: ignore[no-untyped-def]
    """Largest magnitude of products; NaN when there is a number that is none among the values. One row of ``by`` is for
    all."""
    most, none = 0.0, 0.0
    for i in range(first, last):
        most = max(most, _most(values, by, i))
        none += not_numbers(values, i, i + 1)
    return most + none


@compiled
def at_stake(values, by, least, first, last):  # type: ignore[no-untyped-def]
    """Sum of magnitudes times those of ``by``, or ``least`` where that is more, of some rows."""
    total = 0.0
    for i in range(first, last):
        for t in range(values.shape[1]):
            total += abs(values[i, t]) * max(abs(by[i, t]), least)
    return total


@compiled
def value(out, c, quadratic, x, first, last):  # type: ignore[no-untyped-def]
    """``(c + quadratic / 2) x`` of each row, summed over steps."""
    for i in range(first, last):
        total = 0.0
        for t in range(x.shape[1]):
            total += (c[i, t] + 0.5 * quadratic[i, t]) * x[i, t]
        out[i] = total


@compiled
def advance(x, dx, step, first, last):  # type: ignore[no-untyped-def]
    """``x += step dx`` of some rows."""
    for i in range(first, last):
        for t in range(x.shape[1]):
            x[i, t] += step * dx[i, t]
