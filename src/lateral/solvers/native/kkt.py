"""The linear system of a Newton step: assembled, factored from the leaves to the root, storage by conjugate gradients.

::

    [ H + D    J'    C' ] [dx]         J: rows within a step     C: storage rows, which link steps
    [ J      -D_s^-1    ] [dy]         D: barrier of bounds      D_s: barrier of slacks (0 for equalities)
    [ C                 ] [eta]

Without C it falls apart into one tree per step: K. What is left on the storage rows, ``S = C K^-1 C'``, is applied
without being formed: from storage up to the root and back with small maps per node (`kernels.condense`,
`kernels.through`). It is preconditioned by its part within each storage, a tridiagonal matrix over time whose entries
come from the blocks of K^-1 at the storage's own node (`kernels.inverse_blocks`): the coupling in time is exact, that
between storages through the network is left to the iterations.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.native import kernels
from lateral.solvers.native.order import Order
from lateral.solvers.native.steps import Entries, StepProgram, same_row, step_pattern
from lateral.solvers.native.symbolic import Groups, analyse, group

#: Added to primal and taken from dual diagonals.
REGULARISATION = 1e-11
#: Relative tolerance of the conjugate gradients, in the preconditioned norm, and their limit.
CG_TOLERANCE, CG_LIMIT = 1e-8, 400


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """What the matrix depends on.

    Attributes:
        squares, u, v: values of the affine parts of the products.
        mu: multipliers of the products.
        diagonal: barrier of the variables, shape (nv, T).
        slack: ``1 / D_s`` of the rows after the equalities; 0 for exact ones, shape (rows, T).
        f, g: values of the two factors of every pair of the quadratic rows.
        nu: multipliers of the quadratic rows.
        y_slope, z_slope, bend: derivatives of the curves; the last times its multiplier.
    """

    squares: FloatArray
    u: FloatArray
    v: FloatArray
    mu: FloatArray
    diagonal: FloatArray
    slack: FloatArray
    f: FloatArray
    g: FloatArray
    nu: FloatArray
    y_slope: FloatArray
    z_slope: FloatArray
    bend: FloatArray


class Kkt:
    """The matrix of one program, factored again and again."""

    def __init__(self, steps: StepProgram, order: Order, *, threads: int = 1) -> None:
        self.steps, self.n_steps = steps, steps.n_steps
        # every thread has some of the steps: nothing within a step is shared
        edges = np.linspace(0, self.n_steps, min(threads, self.n_steps) + 1).astype(int).tolist()
        self._parts = list(itertools.pairwise(edges))
        self._pool = ThreadPoolExecutor(len(self._parts)) if len(self._parts) > 1 else None
        s, nv = steps, steps.variables.n
        self.nv = nv
        self.n_rows = int((s.row_of >= 0).sum())
        self.g_first = nv + self.n_rows
        self.p_first = self.g_first + s.ranges.n
        self.q_first = self.p_first + s.products.n
        self.c_first = self.q_first + s.quadratics.n
        self.n = self.c_first + s.curves.n
        self.n_links = int((s.link_of >= 0).sum())
        own = s.squares.row // s.width
        one, two = same_row(s.squares.row, s.squares.row)
        lower = s.squares.col[one] >= s.squares.col[two]
        self._square_pairs = one[lower], two[lower]
        self._uv_pairs = same_row(s.u.row, s.v.row)
        self._fg_pairs = same_row(s.pair_f.row, s.pair_g.row)
        one, two = self._square_pairs
        first, second = self._uv_pairs
        left, right = self._fg_pairs
        f_row, g_row = (e.row // s.pairs + self.q_first for e in (s.pair_f, s.pair_g))
        curve_row = self.c_first + np.arange(s.curves.n)
        rows, cols = step_pattern(s)
        self.symbolic = sy = analyse(self.n, order.unknown, order.size, rows, cols)
        self._at_a = sy.entry(s.a.row + nv, s.a.col)
        self._at_g = sy.entry(s.g.row + self.g_first, s.g.col)
        self._lower_q = np.flatnonzero(s.q.row >= s.q.col)
        self._at_q = sy.entry(s.q.row[self._lower_q], s.q.col[self._lower_q])
        self._at_squares = sy.entry(own + self.p_first, s.squares.col)
        self._at_u = sy.entry(s.u.row + self.p_first, s.u.col)
        self._at_v = sy.entry(s.v.row + self.p_first, s.v.col)
        self._at_square_pairs = sy.entry(s.squares.col[one], s.squares.col[two])
        self._at_uv_pairs = sy.entry(s.u.col[first], s.v.col[second])
        self._at_pair_f, self._at_pair_g = sy.entry(f_row, s.pair_f.col), sy.entry(g_row, s.pair_g.col)
        self._at_pair_w = sy.entry(s.pair_w.row + self.q_first, s.pair_w.col)
        self._at_fg_pairs = sy.entry(s.pair_f.col[left], s.pair_g.col[right])
        self._at_y, self._at_z = sy.entry(curve_row, s.curve_y), sy.entry(curve_row, s.curve_z)
        self._at_bend = sy.entry(s.curve_z, s.curve_z)
        everything = np.arange(self.n)
        self._at_diagonal = sy.entry(everything, everything)
        t = self.n_steps
        self.factors = np.zeros((sy.n_entries, t))
        self._all = np.arange(len(sy.size))
        self._work = np.zeros((2 * sy.widest + 2, t))
        self._loose = order.loose
        self._at_loose = self._at_diagonal[order.loose]
        self.groups: Groups | None = None
        touched = np.setdiff1d(np.unique(np.concatenate([s.now.col, s.before.col])), order.loose)
        if self.n_links and order.group is None:
            self._touched = touched
            self._between = sy.above(touched)
            self._inverse = np.zeros((sy.n_entries, t))
            self._inverse_work = np.zeros((2 * sy.widest + 2, t))
            flat = sy.unknown[self._between].reshape(-1)
            self._reached = flat[flat >= 0]
            self._w, self._x = np.zeros((self.nv, t)), np.zeros((self.n, t))
            self._within = [
                self._entry_terms(a, b) for a, b in ((s.now, s.now), (s.before, s.before), (s.before, s.now))
            ]
        elif self.n_links:
            assert order.group is not None
            self.groups = gr = group(sy, order.group, touched)
            self._maps = np.zeros((int(gr.mptr[-1]), t))
            self._blocks = np.zeros((int(gr.zptr[-1]), t))
            self._map_work = np.zeros((gr.widest + 1, t))
            self._w, self._x = np.zeros((self.nv, t)), np.zeros((self.n, t))
            self._up = np.zeros((self.n, t))
            self._within = [
                self._block_terms(a, b) for a, b in ((s.now, s.now), (s.before, s.before), (s.before, s.now))
            ]
        self.load()
        self.iterations = 0

    def load(self) -> None:
        """New numbers of the steps."""
        s = self.steps
        one, two = self._square_pairs
        first, second = self._uv_pairs
        twice = (s.u.col[first] == s.v.col[second]).astype(float).reshape(-1, 1)
        self._square_terms = 2.0 * s.squares.val[one] * s.squares.val[two]
        self._uv_terms = -s.u.val[first] * s.v.val[second] * (1.0 + twice)
        left, right = self._fg_pairs
        twice = (s.pair_f.col[left] == s.pair_g.col[right]).astype(float).reshape(-1, 1)
        self._fg_terms = s.pair_f.val[left] * s.pair_g.val[right] * (1.0 + twice)
        self._absent = 1.0 - s.data["present"]
        self._two_squares, self._minus_u, self._minus_v = 2.0 * s.squares.val, -s.u.val, -s.v.val

    def _each(self, kernel: Callable[..., Any], *arrays: Any) -> list[Any]:
        """A kernel on all steps, every thread on its own; what it returned by part."""
        if self._pool is None:
            return [kernel(*arrays, 0, self.n_steps)]
        waiting = [self._pool.submit(kernel, *arrays, first, last) for first, last in self._parts]
        return [part.result() for part in waiting]

    # -- the part within steps ----------------------------------------------------------------------------------------

    def factor(self, point: Point, *, extra: float = 0.0) -> bool:
        """Assemble and eliminate; True when every step has as many negative eigenvalues as rows.

        Args:
            point: where.
            extra: added to the diagonal of the variables, against negative curvature.
        """
        s, v, t = self.steps, self.factors, self.n_steps
        v[:] = 0.0
        v[self._at_a] = s.a.val
        v[self._at_g] = s.g.val
        v[self._at_q] += s.q.val[self._lower_q]
        square_row = s.squares.row // s.width
        kernels.add_scaled(v, self._at_squares, s.squares.row, self._two_squares, point.squares, 0, t)
        kernels.add_scaled(v, self._at_u, s.u.row, self._minus_u, point.v, 0, t)
        kernels.add_scaled(v, self._at_v, s.v.row, self._minus_v, point.u, 0, t)
        one, _ = self._square_pairs
        first, _ = self._uv_pairs
        kernels.add_scaled(v, self._at_square_pairs, square_row[one], self._square_terms, point.mu, 0, t)
        kernels.add_scaled(v, self._at_uv_pairs, s.u.row[first], self._uv_terms, point.mu, 0, t)
        left, _ = self._fg_pairs
        kernels.add_scaled(v, self._at_pair_f, s.pair_f.row, s.pair_f.val, point.g, 0, t)
        kernels.add_scaled(v, self._at_pair_g, s.pair_g.row, s.pair_g.val, point.f, 0, t)
        v[self._at_pair_w] += s.pair_w.val
        kernels.add_scaled(v, self._at_fg_pairs, s.pair_f.row[left] // s.pairs, self._fg_terms, point.nu, 0, t)
        v[self._at_y] += point.y_slope
        v[self._at_z] += point.z_slope
        np.add.at(v, self._at_bend, point.bend)
        d = self._at_diagonal
        v[d[: self.nv]] += point.diagonal + (REGULARISATION + extra)
        v[d[self.nv : self.g_first]] -= REGULARISATION
        v[d[self.g_first :]] -= point.slack + REGULARISATION
        v[d[self.nv :]] -= self._absent
        sy = self.symbolic
        negative = np.concatenate(
            self._each(kernels.factor, v, sy.size, sy.dpos, sy.lptr, sy.m, sy.uptr, sy.utgt, self._work)
        )
        return bool(np.all(negative == self.n - self.nv)) and bool(np.isfinite(v[sy.dpos[-1]]).all())

    def within(self, r: FloatArray) -> FloatArray:
        """``K^-1 r`` in place, r of shape (unknowns, T)."""
        return self._solve(r, self._all)

    def _solve(self, r: FloatArray, some: IntArray) -> FloatArray:
        sy = self.symbolic
        self._each(kernels.solve, self.factors, r, some, sy.size, sy.unknown, sy.dpos, sy.lptr, sy.m, sy.sptr, sy.srow)
        return r

    # -- storage ------------------------------------------------------------------------------------------------------

    def links(self, x: FloatArray) -> FloatArray:
        """``C x``, shape (links, T)."""
        s, t = self.steps, self.n_steps
        out = np.zeros((self.n_links, t))
        kernels.add_product(out, s.now.row, s.now.col, s.now.val, x, 0, t)
        earlier = np.zeros_like(out)
        earlier_x = np.empty((self.nv, t))
        earlier_x[:, 1:], earlier_x[:, 0] = x[: self.nv, :-1], 0.0
        kernels.add_product(earlier, s.before.row, s.before.col, s.before.val, earlier_x, 0, t)
        return out + earlier

    def links_transposed(self, y: FloatArray, out: FloatArray) -> FloatArray:
        """``C' y`` added to ``out``, whose first rows are the variables."""
        s, t = self.steps, self.n_steps
        kernels.add_product(out, s.now.col, s.now.row, s.now.val, y, 0, t)
        if t > 1:
            later = np.zeros((self.n_links, t))
            later[:, :-1] = y[:, 1:]
            val = s.before.val
            if val.shape[1] > 1:
                shifted = np.zeros_like(val)
                shifted[:, :-1] = val[:, 1:]
                val = shifted
            kernels.add_product(out, s.before.col, s.before.row, val, later, 0, t)
        return out

    def prepare_links(self) -> bool:
        """Maps and preconditioner of the storage rows; False when the preconditioner is not positive."""
        sy, gr = self.symbolic, self.groups
        if gr is None:
            self._each(
                kernels.selected_inverse, self.factors, self._inverse, self._between, sy.size, sy.dpos, sy.lptr, sy.m,
                sy.uptr, sy.utgt, self._inverse_work,
            )  # fmt: skip
            return self._tridiagonal(self._inverse)
        self._each(
            kernels.condense, self.factors, self._maps, sy.size, sy.dpos, sy.lptr, sy.m, sy.sptr, gr.local, gr.plocal,
            gr.first, gr.last, gr.n_in, gr.n_out, gr.n_own, gr.eptr, gr.elocal, gr.mptr, self._map_work,
        )  # fmt: skip
        self._each(
            kernels.inverse_blocks, self._maps, self._blocks, gr.n_in, gr.n_out, gr.eptr, gr.mptr, gr.zptr, gr.xptr,
            gr.xentry, gr.parent, self._map_work,
        )  # fmt: skip
        return self._tridiagonal(self._blocks)

    def _tridiagonal(self, blocks: FloatArray) -> bool:
        """The preconditioner from entries of K^-1; False when it is not positive."""
        s, t = self.steps, self.n_steps
        diagonal, beside = np.zeros((self.n_links, t)), np.zeros((self.n_links, t))
        for which, (a, b, row, loose, block) in enumerate(self._within):
            x = (s.now, s.before, s.before)[which]
            y = (s.now, s.before, s.now)[which]
            if not len(a):
                continue
            inverse = np.where((loose >= 0)[:, None], self.factors[np.maximum(loose, 0)], blocks[np.maximum(block, 0)])
            full = [np.broadcast_to(e.val[k], (len(k), t)) for e, k in ((x, a), (y, b))]
            if which == 0:
                np.add.at(diagonal, row, full[0] * full[1] * inverse)
            elif which == 1:
                np.add.at(diagonal[:, 1:], row, (full[0] * full[1])[:, 1:] * inverse[:, :-1])
            else:
                np.add.at(beside[:, :-1], row, full[0][:, 1:] * full[1][:, :-1] * inverse[:, :-1])
        self._diagonal, self._beside = diagonal, beside
        return int(kernels.tridiagonal_factor(diagonal, beside)) == 0

    def _block_terms(self, x: Entries, y: Entries) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
        """Pairs of coefficients of one storage row whose variables share an entry of K^-1 that is at hand."""
        a, b = same_row(x.row, y.row)
        loose = np.full(self.nv, -1)
        loose[self._loose] = self._at_loose
        gr = self.groups
        assert gr is not None
        where: dict[int, tuple[int, int]] = {}
        for g in range(len(gr.n_in)):
            for q in range(int(gr.n_in[g])):
                where[int(gr.entry[gr.eptr[g] + q])] = (g, q)
        keep, block = [], []
        for i, j in zip(x.col[a].tolist(), y.col[b].tolist(), strict=True):
            if i == j and loose[i] >= 0:
                keep.append(True)
                block.append(-1)
                continue
            (g, p), (h, q) = where.get(i, (-1, 0)), where.get(j, (-2, 0))
            keep.append(g == h)
            p, q = max(p, q), min(p, q)
            block.append(int(gr.zptr[g]) + p * (p + 1) // 2 + q if g == h else -1)
        kept = np.flatnonzero(keep)
        a, b = a[kept], b[kept]
        at = np.where(x.col[a] == y.col[b], loose[x.col[a]], -1)
        return a, b, x.row[a], at, np.array(block, dtype=np.int64)[kept]

    def _entry_terms(self, x: Entries, y: Entries) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
        """The same where K^-1 is known by entries of the factor's pattern, which has all of these pairs."""
        a, b = same_row(x.row, y.row)
        loose = np.full(self.nv, -1)
        loose[self._loose] = self._at_loose
        at = np.where(x.col[a] == y.col[b], loose[x.col[a]], -1)
        return a, b, x.row[a], at, self.symbolic.entry(x.col[a], y.col[b])

    def _apply(self, p: FloatArray) -> FloatArray:
        """``S p``."""
        gr = self.groups
        if gr is None:
            w, x = self._w, self._x
            w[:] = 0.0
            self.links_transposed(p, w)
            loose = w[self._loose] * self.factors[self._at_loose]
            x[self._reached] = 0.0
            x[self._touched] = w[self._touched]
            self._solve(x, self._between)
            w[self._touched] = x[self._touched]
            w[self._loose] = loose
            return self.links(w)
        w = self._w
        w[:] = 0.0
        self.links_transposed(p, w)
        loose = w[self._loose] * self.factors[self._at_loose]
        self._up[gr.entry] = 0.0
        touched = gr.entry[gr.entry < self.nv]
        self._up[touched] = w[touched]
        self._each(
            kernels.through, self._maps, self._up, self._x, gr.n_in, gr.n_out, gr.eptr, gr.mptr, gr.entry, gr.exit_,
            gr.xptr,
        )  # fmt: skip
        w[touched] = self._x[touched]
        w[self._loose] = loose
        return self.links(w)

    def _precondition(self, r: FloatArray) -> FloatArray:
        out = np.empty_like(r)
        kernels.tridiagonal_solve(self._diagonal, self._beside, r, out)
        return out

    def solve(self, r: FloatArray, links: FloatArray) -> tuple[FloatArray, FloatArray, bool]:
        """The whole system; ``prepare_links`` came first.

        Returns:
            unknowns, multipliers of the storage rows, and False when S was found not positive.
        """
        if not self.n_links:
            return self.within(r.copy()), np.zeros((0, self.n_steps)), True
        x = self.within(r.copy())
        residual = self.links(x) - links
        eta = np.zeros_like(residual)
        z = self._precondition(residual)
        p = z.copy()
        rz = float(np.vdot(residual, z))
        first, positive = abs(rz), True
        for _ in range(CG_LIMIT):
            if not abs(rz) > CG_TOLERANCE**2 * first:
                break
            q = self._apply(p)
            curvature = float(np.vdot(p, q))
            if not curvature > 0.0:
                positive = False
                break
            self.iterations += 1
            step = rz / curvature
            eta += step * p
            residual -= step * q
            z = self._precondition(residual)
            new = float(np.vdot(residual, z))
            p = z + (new / rz) * p
            rz = new
        pull = np.zeros_like(r)
        self.links_transposed(eta, pull)
        return self.within(r - pull), eta, positive


__all__ = ["Kkt", "Point"]
