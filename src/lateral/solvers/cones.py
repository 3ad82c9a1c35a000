"""The cones of a conic program's rows, and the scaling of Nesterov and Todd in them.

Zeros, nonnegative numbers, second-order cones and psd triangles, in this order; a triangle is the upper one column by
column, what is beside the diagonal times sqrt(2). Source: Vandenberghe, *The CVXOPT linear and quadratic cone program
solvers*, 2010, section 4; Nesterov and Todd 1997.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.program import upper_triangle


@dataclass(frozen=True, slots=True, eq=False)
class Cones:
    """The cones of a program's rows.

    Attributes:
        zeros: number of rows that are equalities.
        linear: number of nonnegative rows after them.
        second_order: rows of the second-order cones of one size, shape (cones, size), for each size.
        psd: rows of the psd triangles of one dimension, shape (matrices, dim (dim + 1) / 2), by dimension.
    """

    zeros: int
    linear: int
    second_order: tuple[IntArray, ...]
    psd: tuple[tuple[int, IntArray], ...]

    @classmethod
    def of(cls, zeros: int, linear: int, second_order: Sequence[int], psd: Sequence[int]) -> Cones:
        """From the sizes of the cones and the dimensions of the matrices, in the order of their rows."""
        sizes = np.array([*second_order, *(d * (d + 1) // 2 for d in psd)], dtype=np.int64)
        first = zeros + linear + np.cumsum(sizes) - sizes
        n = len(second_order)

        def rows(kind: IntArray, start: IntArray, key: int, size: int) -> IntArray:
            return np.asarray(start[kind == key][:, None] + np.arange(size))

        balls, dims = np.array(second_order, dtype=np.int64), np.array(psd, dtype=np.int64)
        return cls(
            zeros,
            linear,
            tuple(rows(balls, first[:n], k, k) for k in np.unique(balls).tolist()),
            tuple((d, rows(dims, first[n:], d, d * (d + 1) // 2)) for d in np.unique(dims).tolist()),
        )

    @property
    def degree(self) -> int:
        """Gap at a point of the path, over mu."""
        return self.linear + sum(len(k) for k in self.second_order) + sum(d * len(k) for d, k in self.psd)

    @property
    def flat(self) -> slice:
        """The nonnegative rows."""
        return slice(self.zeros, self.zeros + self.linear)

    def inside(self, v: FloatArray) -> bool:
        """Whether a vector is in the interior of all cones; one that holds a NaN is not."""
        if not np.all(np.isfinite(v)) or np.any(v[self.flat] <= 0.0):
            return False
        for rows in self.second_order:
            if np.any(v[rows[:, 0]] <= np.linalg.norm(v[rows[:, 1:]], axis=1)):
                return False
        try:
            for dim, rows in self.psd:
                np.linalg.cholesky(matrices_of(v[rows], dim))
        except np.linalg.LinAlgError:
            return False
        return True

    def product(self, v: FloatArray, w: FloatArray) -> FloatArray:
        """``v o w``; zero at equalities."""
        out = np.zeros(len(v))
        out[self.flat] = v[self.flat] * w[self.flat]
        for rows in self.second_order:
            a, b = v[rows], w[rows]
            both = a[:, :1] * b + b[:, :1] * a
            both[:, 0] = (a * b).sum(axis=1)
            out[rows] = both
        for dim, rows in self.psd:
            half = matrices_of(v[rows], dim) @ matrices_of(w[rows], dim)
            out[rows] = triangles_of(0.5 * (half + np.swapaxes(half, 1, 2)))
        return out

    def quotient(self, value: FloatArray, w: FloatArray) -> FloatArray:
        """v of ``value o v = w``, with a value inside of the cones whose matrices are diagonal; zero at equalities.

        At the tip of a cone, where rounding may bring a value, it is not finite, and no step is made of it.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._quotient(value, w)

    def _quotient(self, value: FloatArray, w: FloatArray) -> FloatArray:
        out = np.zeros(len(w))
        out[self.flat] = w[self.flat] / value[self.flat]
        for rows in self.second_order:
            a, b = value[rows], w[rows]
            first = (a[:, 0] * b[:, 0] - (a[:, 1:] * b[:, 1:]).sum(axis=1)) / (
                a[:, 0] ** 2 - (a[:, 1:] ** 2).sum(axis=1)
            )
            rest = (b - first[:, None] * a) / a[:, :1]
            rest[:, 0] = first
            out[rows] = rest
        for dim, rows in self.psd:
            diagonal = np.diagonal(matrices_of(value[rows], dim), axis1=1, axis2=2)
            out[rows] = triangles_of(2.0 * matrices_of(w[rows], dim) / (diagonal[:, :, None] + diagonal[:, None, :]))
        return out

    def moved_in(self, v: FloatArray, least: float = 0.0) -> FloatArray:
        """The vector with as much of the cones' identity as brings it inside, and at least so much."""
        unit, size = np.zeros(len(v)), 1e-14
        unit[self.flat] = 1.0
        for rows in self.second_order:
            unit[rows[:, 0]] = 1.0
        for dim, rows in self.psd:
            unit[rows] = triangles_of(np.eye(dim))
        out = v + least * unit
        while not self.inside(out):
            out, size = v + (least + size) * unit, 10.0 * size
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Nesterov and Todd's scaling of a point.

    Attributes:
        cones: of the point.
        flat: W^-T of the nonnegative rows, their factors.
        balls: W^-T of the second-order cones of each size, shape (cones, size, size).
        turns: of the matrices of each dimension T with ``W^-T v = T V T'``, shape (matrices, dim, dim).
        value: lambda.
        inverse: lambda^-1 in the algebra of each cone.
    """

    cones: Cones
    flat: FloatArray
    balls: tuple[FloatArray, ...]
    turns: tuple[FloatArray, ...]
    value: FloatArray
    inverse: FloatArray

    @classmethod
    def of(cls, cones: Cones, s: FloatArray, z: FloatArray) -> Scaling:
        """At s and z inside the cones."""
        value, inverse = np.zeros(len(s)), np.zeros(len(s))
        flat, balls, turns = cones.flat, [], []
        value[flat] = np.sqrt(s[flat] * z[flat])
        inverse[flat] = 1.0 / value[flat]
        for rows in cones.second_order:
            value[rows], inverse[rows], ball = _ball(s[rows], z[rows])
            balls.append(ball)
        for dim, rows in cones.psd:
            value[rows], inverse[rows], turn = _matrices(matrices_of(s[rows], dim), matrices_of(z[rows], dim))
            turns.append(turn)
        return cls(cones, np.sqrt(z[flat] / s[flat]), tuple(balls), tuple(turns), value, inverse)

    def inward(self, v: FloatArray) -> FloatArray:
        """``W^-T v``, zero at equalities."""
        return self._by(v, [np.swapaxes(turn, 1, 2) for turn in self.turns], self.turns)

    def back(self, v: FloatArray) -> FloatArray:
        """``W^-1 v``, zero at equalities; W of balls is symmetric."""
        return self._by(v, self.turns, [np.swapaxes(turn, 1, 2) for turn in self.turns])

    def _by(self, v: FloatArray, right: Sequence[FloatArray], left: Sequence[FloatArray]) -> FloatArray:
        out = np.zeros(len(v))
        out[self.cones.flat] = self.flat * v[self.cones.flat]
        for rows, ball in zip(self.cones.second_order, self.balls, strict=True):
            out[rows] = (ball @ v[rows][:, :, None])[:, :, 0]
        for (dim, rows), a, b in zip(self.cones.psd, left, right, strict=True):
            out[rows] = triangles_of(a @ matrices_of(v[rows], dim) @ b)
        return out


def _ball(s: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """lambda, its inverse and W^-T of second-order cones, shape (cones, size) and (cones, size, size)."""
    j = np.ones(s.shape[1])
    j[1:] = -1.0

    def root(v: FloatArray) -> FloatArray:
        size = np.linalg.norm(v[:, 1:], axis=1)
        inside = (v[:, 0] - size) * (v[:, 0] + size)
        if not np.all(inside > 0.0):
            message = "a point on the edge of its cone"
            raise np.linalg.LinAlgError(message)
        return np.asarray(np.sqrt(inside))[:, None]

    root_s, root_z = root(s), root(z)
    s, z = s / root_s, z / root_z
    middle = (s + j * z) / np.sqrt(2.0 + 2.0 * (s * z).sum(axis=1, keepdims=True))
    v = middle.copy()
    v[:, 0] += 1.0
    v /= np.sqrt(2.0 * (middle[:, :1] + 1.0))
    by = np.sqrt(root_s / root_z)[:, :, None]
    outward = by * (2.0 * v[:, :, None] * v[:, None, :] - np.diag(j))
    inward = (2.0 * (j * v)[:, :, None] * (j * v)[:, None, :] - np.diag(j)) / by
    value = np.einsum("kij,kj->ki", outward, z * root_z)
    return value, j * value / (root_s * root_z), inward


def _matrices(s: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """lambda and its inverse as triangles, shape (b, k), and T of ``W^-T v = T V T'``, shape (b, dim, dim)."""
    low = np.linalg.cholesky(s)
    _, value, v_t = np.linalg.svd(np.swapaxes(np.linalg.cholesky(z), 1, 2) @ low)
    turn = np.sqrt(value)[:, :, None] * (v_t @ np.linalg.inv(low))
    eye = np.eye(s.shape[-1])
    return triangles_of(value[:, :, None] * eye), triangles_of(eye / value[:, :, None]), turn


@cache
def _places(dim: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Row and column of each entry of a triangle, and what it is multiplied by there."""
    rows, cols = upper_triangle(dim)
    return rows, cols, np.where(rows == cols, 1.0, np.sqrt(2.0))


def matrices_of(triangle: FloatArray, dim: int) -> FloatArray:
    """Symmetric matrices of their triangles, shape (..., dim, dim)."""
    rows, cols, size = _places(dim)
    out = np.zeros((*triangle.shape[:-1], dim, dim))
    out[..., rows, cols] = out[..., cols, rows] = triangle / size
    return out


def triangles_of(matrix: FloatArray) -> FloatArray:
    """Triangles of symmetric matrices, shape (..., dim (dim + 1) / 2)."""
    rows, cols, size = _places(matrix.shape[-1])
    return np.asarray(matrix[..., rows, cols] * size)


__all__ = ["Cones", "Scaling", "matrices_of", "triangles_of"]
