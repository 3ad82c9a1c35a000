"""Kernels of the method that go through numbers one by one, compiled by Numba: products, chains in time, barrier.

Arrays are (element, step), step contiguous; ``rows`` are those with a bound, the others stay as they are. Loops over
steps go over all of them: with an index that might count from the end they would not be vectorised. The elimination has
its own: `lateral.solvers.native.elimination`.
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
def spread(out, element, step, values):  # type: ignore[no-untyped-def]
    """Cells into (element, step); an element of -1 is nowhere."""
    for k in range(len(element)):
        if element[k] >= 0:
            out[element[k], step[k]] = values[k]


@_compiled
def gather(out, element, step, array):  # type: ignore[no-untyped-def]
    """Cells from (element, step); an element of -1 is nowhere."""
    for k in range(len(element)):
        if element[k] >= 0:
            out[k] = array[element[k], step[k]]


@_compiled
def refill(out, target, source, values):  # type: ignore[no-untyped-def]
    """``out[target] = values[source]``."""
    for k in range(len(target)):
        out[target[k]] = values[source[k]]


#: The same where a NaN is seen elsewhere: only so a largest number is looked for in lanes.
_of_numbers: Callable[[Any], Any] = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz", "reassoc"}
)
#: Faults of `collect`.
UNTIMED, FURTHER = 1, 2


@_compiled
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
    n, found = 0, 0
    for e in range(n_rows):
        begin, own = n, found
        for q in range(first[e], first[e + 1]):
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
                if seen[c] != e:
                    seen[c] = e
                    row[n], col[n] = e, c
                    n += 1
                source[found], target[found] = k, row_step[r]
                found += 1
        # by column: insertion, as a row has few and they mostly are in order; a library's sort compiles for a second
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
    return n, found, 0


@_compiled
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


@_compiled
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


@_compiled
def add_earlier(out, row, col, val, x):  # type: ignore[no-untyped-def]
    """``out[row, t] += val x[col, t - 1]``."""
    last = val.shape[1] - 1
    for e in range(len(row)):
        r, c = row[e], col[e]
        for t in range(1, out.shape[1]):
            out[r, t] += val[e, min(t, last)] * x[c, t - 1]


@_compiled
def add_later(out, row, col, val, y):  # type: ignore[no-untyped-def]
    """The transpose of `add_earlier`: ``out[row, t - 1] += val y[col, t]``."""
    last = val.shape[1] - 1
    for e in range(len(row)):
        r, c = row[e], col[e]
        for t in range(1, out.shape[1]):
            out[r, t - 1] += val[e, min(t, last)] * y[c, t]


@_compiled
def add_pairs(out, f, g, per, factor, first, last):  # type: ignore[no-untyped-def]
    """``out += factor sum f g`` over ``per`` rows of f and g for each row of out."""
    for i in range(first, last):
        for k in range(i * per, (i + 1) * per):
            for t in range(out.shape[1]):
                out[i, t] += factor * f[k, t] * g[k, t]


@_compiled
def tridiagonal_factor(d, e, first, last):  # type: ignore[no-untyped-def]
    """``L D L'`` of tridiagonal matrices, one per row, in place; e[t] couples t and t + 1. Number of pivots <= 0."""
    bad = 0
    for i in range(first, last):
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
def tridiagonal_solve(d, e, r, x, first, last):  # type: ignore[no-untyped-def]
    """``x`` = solution of the factored tridiagonal systems for r."""
    n = d.shape[1]
    for i in range(first, last):
        x[i, 0] = r[i, 0]
        for t in range(1, n):
            x[i, t] = r[i, t] - e[i, t - 1] * x[i, t - 1]
        for t in range(n):
            x[i, t] /= d[i, t]
        for t in range(n - 2, -1, -1):
            x[i, t] -= e[i, t] * x[i, t + 1]


@_compiled
def barrier(rows, x, low, high, z_low, z_high, diagonal):  # type: ignore[no-untyped-def]
    """``sum of z / slack`` of each variable into ``diagonal``; returns the sum of all z times slack."""
    total = 0.0
    for i in rows:
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
def second_order(rows, low, high, dx, dz_low, dz_high, omega, cap):  # type: ignore[no-untyped-def]
    """The predictor's second-order terms ``omega ds dz``, clipped, in the place of its dz."""
    for i in rows:
        for t in range(dx.shape[1]):
            if low[i, t] > -np.inf:
                dz_low[i, t] = omega * min(max(dx[i, t] * dz_low[i, t], -cap), cap)
            if high[i, t] < np.inf:
                dz_high[i, t] = omega * min(max(-dx[i, t] * dz_high[i, t], -cap), cap)


@_compiled
def recentre(rows, x, low, high, z_low, z_high, least):  # type: ignore[no-untyped-def]
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


@_compiled
def centre(rows, x, low, high, z_low, z_high, second_low, second_high, mu, out):  # type: ignore[no-untyped-def]
    """What the complementarity target adds to the dual residual: ``(mu - second) / s - z``, signed, into out."""
    for i in rows:
        for t in range(x.shape[1]):
            value = 0.0
            if low[i, t] > -np.inf:
                value += (mu - second_low[i, t]) / (x[i, t] - low[i, t]) - z_low[i, t]
            if high[i, t] < np.inf:
                value -= (mu - second_high[i, t]) / (high[i, t] - x[i, t]) - z_high[i, t]
            out[i, t] = value


@_compiled
def dual_step(  # type: ignore[no-untyped-def]
    rows, x, low, high, z_low, z_high, dx, second_low, second_high, mu, dz_low, dz_high
):
    """Steps of the bound multipliers that go with dx, which may take the place of the second-order terms."""
    for i in rows:
        for t in range(x.shape[1]):
            if low[i, t] > -np.inf:
                s = x[i, t] - low[i, t]
                dz_low[i, t] = (mu - second_low[i, t] - z_low[i, t] * dx[i, t]) / s - z_low[i, t]
            if high[i, t] < np.inf:
                s = high[i, t] - x[i, t]
                dz_high[i, t] = (mu - second_high[i, t] + z_high[i, t] * dx[i, t]) / s - z_high[i, t]


@_compiled
def largest_steps(rows, x, low, high, z_low, z_high, dx, dz_low, dz_high, tau):  # type: ignore[no-untyped-def]
    """Largest primal and dual steps that leave (1 - tau) of every slack and multiplier, at most 1."""
    primal = 1.0
    dual = 1.0
    for i in rows:
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
def complementarity_after(rows, x, low, high, z_low, z_high, dx, dz_low, dz_high, primal, dual):  # type: ignore[no-untyped-def]
    """Sum of multiplier times slack after a step."""
    total = 0.0
    for i in rows:
        for t in range(x.shape[1]):
            if low[i, t] > -np.inf:
                total += (z_low[i, t] + dual * dz_low[i, t]) * (x[i, t] + primal * dx[i, t] - low[i, t])
            if high[i, t] < np.inf:
                total += (z_high[i, t] + dual * dz_high[i, t]) * (high[i, t] - x[i, t] - primal * dx[i, t])
    return total


@_compiled
def slack_side(right, rows, sign, dual_s, centre_s, slack, r_s, first, last):  # type: ignore[no-untyped-def]
    """Right-hand side of the rows with a slack, and what is left of the dual residual of the slack, r_s::

    r_s = -dual_s + centre_s      right = -rows - sign r_s slack         0 and -rows where the row has no slack
    """
    for i in range(first, last):
        for t in range(right.shape[1]):
            r_s[i, t] = centre_s[i, t] - dual_s[i, t]
            right[i, t] = -rows[i, t] - sign[i, t] * r_s[i, t] * slack[i, t]


@_compiled
def slack_step(ds, r_s, sign, dy, slack, first, last):  # type: ignore[no-untyped-def]
    """``ds = (r_s - sign dy) slack``; the largest ``slack``."""
    most = 0.0
    for i in range(first, last):
        for t in range(ds.shape[1]):
            ds[i, t] = (r_s[i, t] - sign[i, t] * dy[i, t]) * slack[i, t]
            most = max(most, slack[i, t])
    return most


@_compiled
def far_step(ds, sign, slack, far, rows, slopes, first, last):  # type: ignore[no-untyped-def]
    """``ds = -sign (rows + slopes)`` where ``slack`` is above ``far``."""
    for i in range(first, last):
        for t in range(ds.shape[1]):
            if sign[i, t] != 0.0 and slack[i, t] > far:
                ds[i, t] = -sign[i, t] * (rows[i, t] + slopes[i, t])


@_compiled
def slack_diagonal(out, sign, diagonal, first, last):  # type: ignore[no-untyped-def]
    """``1 / diagonal``; 0 where the row has no slack."""
    for i in range(first, last):
        for t in range(out.shape[1]):
            out[i, t] = abs(sign[i, t]) / max(diagonal[i, t], 1e-14)


@_compiled
def reset_slacks(s, low, high, w_low, w_high, sign, rows, first, last):  # type: ignore[no-untyped-def]
    """Give slacks what their row really has, where that is further from the bound, or near and the bound does not hold
    it."""
    for i in range(first, last):
        for t in range(s.shape[1]):
            real = -sign[i, t] * rows[i, t]
            now = min(s[i, t] - low[i, t], high[i, t] - s[i, t])
            then = min(real - low[i, t], high[i, t] - real)
            near = (abs(real - s[i, t]) <= 0.1 * now) & (now > w_low[i, t] + w_high[i, t])
            s[i, t] = real if (sign[i, t] != 0.0) & ((then >= now) | near) else s[i, t]


@_compiled
def gradient(out, c, quadratic, z_low, z_high, first, last):  # type: ignore[no-untyped-def]
    """``c + Q x - z_low + z_high``."""
    for i in range(first, last):
        for t in range(out.shape[1]):
            out[i, t] = c[i, t] + quadratic[i, t] - z_low[i, t] + z_high[i, t]


@_compiled
def slack_residuals(dual_s, left, sign, y, w_low, w_high, rows, s, first, last):  # type: ignore[no-untyped-def]
    """``dual_s = sign y - w_low + w_high``, 0 where the row has no slack, and ``left = rows + sign s``."""
    for i in range(first, last):
        for t in range(dual_s.shape[1]):
            dual_s[i, t] = sign[i, t] * y[i, t] - w_low[i, t] + w_high[i, t]
            left[i, t] = rows[i, t] + sign[i, t] * s[i, t]


@_compiled
def zero(out, first, last):  # type: ignore[no-untyped-def]
    """``out = 0``."""
    for i in range(first, last):
        for t in range(out.shape[1]):
            out[i, t] = 0.0


@_compiled
def times(out, a, factor, first, last):  # type: ignore[no-untyped-def]
    """``out = factor a``."""
    for i in range(first, last):
        for t in range(out.shape[1]):
            out[i, t] = factor * a[i, t]


@_compiled
def right_side(out, a, b, first, last):  # type: ignore[no-untyped-def]
    """``out = a - b``."""
    for i in range(first, last):
        for t in range(out.shape[1]):
            out[i, t] = a[i, t] - b[i, t]


@_compiled
def not_numbers(values, first, last):  # type: ignore[no-untyped-def]
    """0, or NaN when there is a number that is none, or infinite."""
    total = 0.0
    for i in range(first, last):
        for t in range(values.shape[1]):
            total += values[i, t] * 0.0
    return total


@_of_numbers
def _most(values, by, first, last):  # type: ignore[no-untyped-def]
    most = 0.0
    for i in range(first, last):
        for t in range(values.shape[1]):
            most = max(most, abs(values[i, t] * by[min(i, len(by) - 1), t]))
    return most


@_compiled
def largest(values, first, last):  # type: ignore[no-untyped-def]
    """Largest magnitude; NaN when there is a number that is none."""
    return _most(values, np.ones((1, values.shape[1])), first, last) + not_numbers(values, first, last)


@_compiled
def largest_product(values, by, first, last):  # type: ignore[no-untyped-def]
    """Largest magnitude of products; NaN when there is a number that is none among the values."""
    return _most(values, by, first, last) + not_numbers(values, first, last)


@_compiled
def advance(x, dx, step, first, last):  # type: ignore[no-untyped-def]
    """``x += step dx`` of some rows."""
    for i in range(first, last):
        for t in range(x.shape[1]):
            x[i, t] += step * dx[i, t]
