"""Hermitian matrices over the variables of a program, many of one shape at once.

A Hermitian matrix H of dimension h has h^2 real elements: the diagonal, then the real and then the imaginary parts of
the entries above it, row by row. Each element is one row of a *pool* (an `Affine` of all of them); a matrix is its
places in the pool. Every entry of ``G H K^H`` with numbers G and K is a sum of elements, with real and imaginary part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, upper_triangle

#: Coefficients below this are rounding.
_ZERO = 1e-14


@cache
def basis(h: int) -> ComplexArray:
    """The matrix of each element, shape (h^2, h, h)."""
    out = np.zeros((h * h, h, h), dtype=complex)
    each = np.arange(h)
    out[each, each, each] = 1.0
    rows, cols = np.triu_indices(h, 1)
    re = h + np.arange(len(rows))
    im = re + len(rows)
    out[re, rows, cols] = out[re, cols, rows] = 1.0
    out[im, rows, cols], out[im, cols, rows] = 1j, -1j
    out.setflags(write=False)
    return out


@cache
def embedding(h: int) -> FloatArray:
    """Upper triangle of ``[[Re H, -Im H], [Im H, Re H]]``, which is psd as H is: shape (h^2, h (2 h + 1))."""
    b = basis(h)
    whole = np.block([[b.real, -b.imag], [b.imag, b.real]])
    rows, cols = upper_triangle(2 * h)
    return np.asarray(whole[:, rows, cols])


def values(h: int, elements: FloatArray) -> ComplexArray:
    """The matrices of elements (..., h^2), shape (..., h, h)."""
    return np.asarray(np.tensordot(elements, basis(h), axes=([-1], [0])))


def quadratic(g: ComplexArray, k: ComplexArray) -> ComplexArray:
    """Coefficients of the entries of ``G H K^H``, shape (b, h^2, r, s), for G (b, r, h) and K (b, s, h)."""
    h = g.shape[-1]
    return np.asarray(np.einsum("bra,eac,bsc->bers", g, basis(h), k.conj(), optimize=True))


def diagonal(g: ComplexArray, k: ComplexArray) -> ComplexArray:
    """Coefficients of the diagonal of ``G H K^H``, shape (b, h^2, r)."""
    h = g.shape[-1]
    return np.asarray(np.einsum("bra,eac,brc->ber", g, basis(h), k.conj(), optimize=True))


def elements_between(h: int, i: IntArray | int, j: IntArray | int) -> tuple[IntArray, IntArray]:
    """Numbers of the elements that are the real and the imaginary part (or its negative) of entries (i, j)."""
    i, j = np.minimum(i, j), np.maximum(i, j)
    real = h + i * h - i * (i + 1) // 2 + j - i - 1
    return np.where(i == j, i, real), np.where(i == j, i, real + h * (h - 1) // 2)


@dataclass(eq=False)
class LinearMap:
    """A linear map from the pool to some rows, collected piece by piece."""

    out: list[IntArray] = field(default_factory=list)
    source: list[IntArray] = field(default_factory=list)
    weight: list[FloatArray] = field(default_factory=list)

    def add(self, rows: IntArray, places: IntArray, weights: FloatArray) -> None:
        """Row ``rows[b, r]`` gets ``weights[b, e, r]`` times element ``places[b, e]`` of the pool."""
        b, e, r = weights.shape
        keep = np.abs(weights) > _ZERO
        self.out.append(np.broadcast_to(rows[:, None, :], (b, e, r))[keep])
        self.source.append(np.broadcast_to(places[:, :, None], (b, e, r))[keep])
        self.weight.append(weights[keep])

    def single(self, rows: IntArray, places: IntArray, weights: FloatArray) -> None:
        """Row ``rows[k]`` gets ``weights[k]`` times element ``places[k]``."""
        self.add(rows[:, None], places[:, None], np.asarray(weights, dtype=float)[:, None, None])

    def of(self, pool: Affine, n_rows: int) -> Affine:
        """The rows, shape (n_rows, T)."""
        none = np.zeros(0, dtype=np.int64)
        return pool.map_terms(
            n_rows,
            np.concatenate([none, *self.out]),
            np.concatenate([none, *self.source]),
            np.concatenate([np.zeros(0), *self.weight]),
        )


__all__ = ["LinearMap", "basis", "diagonal", "elements_between", "embedding", "quadratic", "values"]
