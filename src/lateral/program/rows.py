"""The nonlinear rows of a `Program`: products, quadratic rows, curves and matrices. Their derivatives have constant
patterns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lateral.network.schema import FloatArray, IntArray
from lateral.program.curves import Curve


@dataclass(frozen=True, slots=True, eq=False)
class ProductRows:
    """Rows ``sum_k a_k(x)^2 {<=, =} u(x) v(x)`` with affine a, u, v.

    Attributes:
        a: coefficients of all a_k below each other, shape (K, n); ``a_row`` names the row of each.
        u, v: coefficients, shape (m, n).
        equality: True where the row is an equality, shape (m,).
    """

    a: sp.csr_array
    a0: FloatArray
    a_row: IntArray
    u: sp.csr_array
    u0: FloatArray
    v: sp.csr_array
    v0: FloatArray
    equality: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of rows m."""
        return len(self.equality)

    def value(self, x: FloatArray) -> FloatArray:
        """``sum a^2 - u v`` per row, shape (m,); feasible at <= 0 or = 0."""
        squares = np.bincount(self.a_row, weights=(self.a @ x + self.a0) ** 2, minlength=self.n_rows)
        return np.asarray(squares - (self.u @ x + self.u0) * (self.v @ x + self.v0))

    def gradient_times(self, x: FloatArray, mu: FloatArray) -> FloatArray:
        """``sum_i mu_i grad h_i(x)``, shape (n,), with h the value above."""
        a = self.a @ x + self.a0
        u, v = self.u @ x + self.u0, self.v @ x + self.v0
        a *= mu[self.a_row]
        out = np.asarray(self.a.T @ a)
        out *= 2.0  # in place: a new array of a million numbers takes longer than to fill one that is there
        out -= self.u.T @ (mu * v)
        out -= self.v.T @ (mu * u)
        return out

    def gradients(self, x: FloatArray) -> sp.csr_array:
        """Gradient of every row, shape (m, n)."""
        a, u, v = self.a @ x + self.a0, self.u @ x + self.u0, self.v @ x + self.v0
        squares = _summed(self.a_row, self.n_rows) @ _times(2.0 * a, self.a)
        return sp.csr_array(squares - _times(v, self.u) - _times(u, self.v))

    @property
    def size(self) -> FloatArray:
        """How large each row is written, shape (m,): the square of its largest coefficient in a, 1 where a has none.

        A dual times the size is the same however large a row is written.
        """
        out = np.zeros(self.n_rows)
        np.maximum.at(out, self.a_row, _largest(self.a) ** 2)
        return np.where(out > 0.0, out, 1.0)

    def scaled(self, rows: FloatArray, d: FloatArray) -> ProductRows:
        """The rows times ``rows`` in variables x / d."""
        half = np.sqrt(rows)
        return ProductRows(
            scale_matrix(self.a, half[self.a_row], d),
            self.a0 * half[self.a_row],
            self.a_row,
            scale_matrix(self.u, rows, d),
            self.u0 * rows,
            scale_matrix(self.v, np.ones(self.n_rows), d),
            self.v0,
            self.equality,
        )


@dataclass(frozen=True, slots=True, eq=False)
class QuadraticRows:
    """Two-sided rows ``l <= sum_k f_k(x) g_k(x) + w(x) <= u`` with affine f, g and linear w; nothing need be convex.

    This is ``d_l <= x'Hx + g'x <= d_u`` with H given by its factors: a power ``Re(U conj(I))`` is two pairs (f, g), a
    squared magnitude two pairs with f = g.

    Attributes:
        f, g: coefficients of all f_k and g_k below each other, shape (K, n); ``row`` names the row of each pair.
        w: coefficients of the linear part, shape (m, n).
        l, u: sides, shape (m,); equal for an equality.
    """

    f: sp.csr_array
    f0: FloatArray
    g: sp.csr_array
    g0: FloatArray
    row: IntArray
    w: sp.csr_array
    l: FloatArray
    u: FloatArray

    @classmethod
    def none(cls, n: int) -> QuadraticRows:
        """No rows over n variables."""
        empty, no = sp.csr_array((0, n)), np.zeros(0)
        return cls(empty, no, empty, no, np.zeros(0, dtype=np.int64), empty, no, no)

    @property
    def n_rows(self) -> int:
        """Number of rows m."""
        return len(self.l)

    def value(self, x: FloatArray) -> FloatArray:
        """``sum f g + w`` per row, shape (m,)."""
        pairs = (self.f @ x + self.f0) * (self.g @ x + self.g0)
        return np.asarray(np.bincount(self.row, weights=pairs, minlength=self.n_rows) + self.w @ x)

    def gradient_times(self, x: FloatArray, nu: FloatArray) -> FloatArray:
        """``sum_i nu_i grad h_i(x)``, shape (n,), with h the value above."""
        by_pair = nu[self.row]
        f, g = self.f @ x + self.f0, self.g @ x + self.g0
        return np.asarray(self.f.T @ (by_pair * g) + self.g.T @ (by_pair * f) + self.w.T @ nu)

    def gradients(self, x: FloatArray) -> sp.csr_array:
        """Gradient of every row, shape (m, n)."""
        f, g = self.f @ x + self.f0, self.g @ x + self.g0
        return sp.csr_array(_summed(self.row, self.n_rows) @ (_times(g, self.f) + _times(f, self.g)) + self.w)

    def scaled(self, rows: FloatArray, d: FloatArray) -> QuadraticRows:
        """The rows times ``rows`` in variables x / d."""
        by_pair = rows[self.row]
        return QuadraticRows(
            scale_matrix(self.f, by_pair, d),
            self.f0 * by_pair,
            scale_matrix(self.g, np.ones(len(by_pair)), d),
            self.g0,
            self.row,
            scale_matrix(self.w, rows, d),
            self.l * rows,
            self.u * rows,
        )


@dataclass(frozen=True, slots=True, eq=False)
class CurveRows:
    """Rows ``y_i = phi_i(z_i)``: one variable as a smooth function of another.

    Attributes:
        y, z: variable of each row, shape (m,).
        curves: functions with their shapes (n, T), in order of the rows; their cells add up to m.
        row_scale, y_scale, z_scale: factors of the row and of the two variables, shape (m,); ones when unscaled.
    """

    y: IntArray
    z: IntArray
    curves: tuple[tuple[Curve, tuple[int, int]], ...]
    row_scale: FloatArray
    y_scale: FloatArray
    z_scale: FloatArray

    @classmethod
    def none(cls) -> CurveRows:
        """No rows."""
        no = np.zeros(0)
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), (), no, no, no)

    @property
    def n_rows(self) -> int:
        """Number of rows m."""
        return len(self.y)

    def _each(self, x: FloatArray, what: str) -> FloatArray:
        z = x[self.z] * self.z_scale
        out = np.empty(len(z))
        start = 0
        for curve, shape in self.curves:
            cells = slice(start, start + shape[0] * shape[1])
            out[cells] = getattr(curve, what)(z[cells].reshape(shape)).reshape(-1)
            start = cells.stop
        return out

    def value(self, x: FloatArray) -> FloatArray:
        """``y - phi(z)`` per row, shape (m,); feasible at 0."""
        return np.asarray(self.row_scale * (self.y_scale * x[self.y] - self._each(x, "value")))

    @property
    def y_slope(self) -> FloatArray:
        """d row / d y, shape (m,)."""
        return np.asarray(self.row_scale * self.y_scale)

    def z_slope(self, x: FloatArray) -> FloatArray:
        """d row / d z, shape (m,)."""
        return np.asarray(-self.row_scale * self.z_scale * self._each(x, "slope"))

    def z_bend(self, x: FloatArray) -> FloatArray:
        """d^2 row / d z^2, shape (m,)."""
        return np.asarray(-self.row_scale * self.z_scale**2 * self._each(x, "bend"))

    def gradient_times(self, x: FloatArray, kappa: FloatArray) -> FloatArray:
        """``sum_i kappa_i grad row_i(x)``, shape (n,)."""
        out = np.bincount(self.y, weights=kappa * self.y_slope, minlength=len(x))
        return np.asarray(out + np.bincount(self.z, weights=kappa * self.z_slope(x), minlength=len(x)))

    def gradients(self, x: FloatArray) -> sp.csr_array:
        """Gradient of every row, shape (m, n)."""
        row, values = np.arange(self.n_rows), np.concatenate([self.y_slope, self.z_slope(x)])
        places = (np.concatenate([row, row]), np.concatenate([self.y, self.z]))
        return sp.csr_array((values, places), shape=(self.n_rows, len(x)))

    def scaled(self, rows: FloatArray, d: FloatArray) -> CurveRows:
        """The rows times ``rows`` in variables x / d."""
        return CurveRows(
            self.y, self.z, self.curves, self.row_scale * rows, self.y_scale * d[self.y], self.z_scale * d[self.z]
        )


@dataclass(frozen=True, slots=True, eq=False)
class SemidefiniteRows:
    """Rows ``M_k(x) psd``: real symmetric matrices whose entries are affine.

    Entries are those of the upper triangle, column by column (00, 01, 11, 02, 12, 22, ...), matrix after matrix.

    Attributes:
        m: coefficients of all entries below each other, shape (N, n).
        m0: their constants, shape (N,).
        dims: dimension of each matrix, shape (K,).
    """

    m: sp.csr_array
    m0: FloatArray
    dims: IntArray

    @classmethod
    def none(cls, n: int) -> SemidefiniteRows:
        """No rows over n variables."""
        return cls(sp.csr_array((0, n)), np.zeros(0), np.zeros(0, dtype=np.int64))

    @property
    def n_rows(self) -> int:
        """Number of matrices K."""
        return len(self.dims)

    @property
    def twice(self) -> FloatArray:
        """How often each entry stands in its matrix, shape (N,): 1 on the diagonal, 2 beside it."""
        out = np.full(len(self.m0), 2.0)
        for dim, cells in self.by_dim():
            rows, cols = upper_triangle(dim)
            out[cells[:, rows == cols]] = 1.0
        return out

    @property
    def size(self) -> FloatArray:
        """How large each entry is written, shape (N,), as `ProductRows.size`: ``D_i D_j`` of a matrix ``D M D``, with D
        from the largest coefficients of its diagonal."""
        out = np.ones(len(self.m0))
        largest = _largest(self.m)
        for dim, cells in self.by_dim():
            rows, cols = upper_triangle(dim)
            d = np.sqrt(largest[cells[:, rows == cols]])
            out[cells] = d[:, rows] * d[:, cols]
        return np.where(out > 0.0, out, 1.0)

    def by_dim(self) -> list[tuple[int, IntArray]]:
        """Each dimension with the entries of its matrices, shape (matrices, dim (dim + 1) / 2)."""
        size = self.dims * (self.dims + 1) // 2
        first = np.cumsum(size) - size
        return [(int(d), first[self.dims == d][:, None] + np.arange(d * (d + 1) // 2)) for d in np.unique(self.dims)]

    def value(self, x: FloatArray) -> FloatArray:
        """Every entry, shape (N,)."""
        return np.asarray(self.m @ x + self.m0)

    def eigenvalues(self, entries: FloatArray) -> list[FloatArray]:
        """Eigenvalues of matrices given by their entries, ascending, (matrices, dim) for each dimension of `by_dim`."""
        return [np.asarray(np.linalg.eigvalsh(_full(dim, entries[cells])), dtype=float) for dim, cells in self.by_dim()]

    def gradient_times(self, x: FloatArray, z: FloatArray) -> FloatArray:
        """``sum_k grad <Z_k, M_k(x)>``, shape (n,), for Z given by its entries."""
        return np.asarray(self.m.T @ (z * self.twice))

    def scaled(self, entries: FloatArray, d: FloatArray) -> SemidefiniteRows:
        """The matrices ``D M D`` in variables x / d; ``entries`` holds ``D_i D_j``, so that a psd one stays psd."""
        return SemidefiniteRows(scale_matrix(self.m, entries, d), self.m0 * entries, self.dims)


def upper_triangle(dim: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of the entries of a symmetric matrix, column by column."""
    cols, rows = np.tril_indices(dim)
    return rows.astype(np.int64), cols.astype(np.int64)


def _full(dim: int, entries: FloatArray) -> FloatArray:
    """Symmetric matrices of entries (matrices, dim (dim + 1) / 2)."""
    rows, cols = upper_triangle(dim)
    out = np.zeros((len(entries), dim, dim))
    out[:, rows, cols] = entries
    out[:, cols, rows] = entries
    return out


def _summed(row: IntArray, n_rows: int) -> sp.csr_array:
    """The matrix that adds what belongs to each row, shape (m, K)."""
    return sp.csr_array((np.ones(len(row)), (row, np.arange(len(row)))), shape=(n_rows, len(row)))


def _times(factor: FloatArray, matrix: sp.csr_array) -> sp.csr_array:
    """A matrix with each row times a factor."""
    return sp.csr_array(sp.diags_array(factor) @ matrix)


def _largest(matrix: sp.csr_array) -> FloatArray:
    """Size of the largest coefficient of each row, 0 where there is none, shape (rows,)."""
    out = np.zeros(matrix.shape[0])
    np.maximum.at(out, np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), np.abs(matrix.data))
    return out


def scale_matrix(matrix: sp.csr_array, rows: FloatArray, cols: FloatArray) -> sp.csr_array:
    """Rows and columns of a CSR array multiplied, without products of sparse matrices."""
    counts = np.diff(matrix.indptr)
    data = np.repeat(rows, counts)
    data *= matrix.data
    data *= cols[matrix.indices]
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
