"""Products of the voltages of up to three conductors in symmetrical components (Fortescue 1918).

With T = diag(a^(c-1)) F, a = exp(-2j pi/3), c the numbers of the conductors and F the unitary Fourier matrix, the
matrix W = V V^H becomes ``H = T^H W T``: nearly all of it is H_00 (of the positive sequence, where conductors are 1, 2,
3 in this order), H_0k is of the size of the unbalance, and every other entry of the size of its square.

A matrix is written as borders between areas have it (`NetworkModel.voltages`): the diagonal, then the real and then the
imaginary part of each entry beside it, with that after the last conductor the first.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lateral.network.schema import FloatArray


@cache
def to_components(conductors: tuple[int, ...]) -> FloatArray:
    """The matrix that makes H of W, shape (3 n, 3 n); one conductor has no other components than itself."""
    n = len(conductors)
    if n == 1:
        return np.eye(3)
    each = np.arange(n)
    turn = np.exp(-2j * np.pi / 3.0 * (np.array(conductors) - 1.0))
    t = turn[:, None] * np.exp(-2j * np.pi / n * np.outer(each, each)) / np.sqrt(n)
    after = np.roll(each, -1)
    out = np.zeros((3 * n, 3 * n))
    for element in range(3 * n):
        x = np.zeros(3 * n)
        x[element] = 1.0
        w = np.zeros((n, n), dtype=complex)
        np.add.at(w, (each, after), x[n : 2 * n] + 1j * x[2 * n :])
        w = (w + w.conj().T) / (2.0 if n == 2 else 1.0)  # of two conductors each entry is said twice
        h = t.conj().T @ (w + np.diag(x[:n])) @ t
        beside = h[each, after]
        out[:, element] = np.concatenate([np.diag(h).real, beside.real, beside.imag])
    out.setflags(write=False)
    return out


@cache
def from_components(conductors: tuple[int, ...]) -> FloatArray:
    """The inverse of `to_components` on matrices that are Hermitian, shape (3 n, 3 n)."""
    out: FloatArray = np.asarray(np.linalg.pinv(to_components(conductors)), dtype=float)
    out.setflags(write=False)
    return out


__all__ = ["from_components", "to_components"]
