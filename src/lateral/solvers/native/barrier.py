"""The barrier of one kind of unknowns, variables or slacks: what bounds add to an interior-point step.

With ``s`` the distance to a bound and ``z`` its multiplier; only rows that have a bound at some step are gone through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lateral.network.schema import FloatArray
from lateral.solvers.native import kernels
from lateral.solvers.native.threads import Threads

#: Numbers that one thread takes at once.
SHARE = 20_000
#: Of the lower and of the upper bounds, shape (n, T) each.
Pair = tuple[FloatArray, FloatArray]


class Barrier:
    """Bounds ``low <= x <= high``, infinite where there is none, shape (n, T); multipliers are pairs (of low, of high).

    Args:
        low, high: the bounds.
        threads: who shares the work.
    """

    def __init__(self, low: FloatArray, high: FloatArray, threads: Threads) -> None:
        self.low, self.high = low, high
        lower, upper = np.isfinite(low), np.isfinite(high)
        rows = np.flatnonzero((lower | upper).any(axis=1))
        self._parts = np.array_split(rows, 1 + rows.size * low.shape[1] // SHARE)
        self._threads = threads
        #: number of bounds
        self.count = int(lower.sum()) + int(upper.sum())

    def _each(self, kernel: Callable[..., Any], *arrays: Any) -> list[Any]:
        return self._threads.some(kernel, self._parts, *arrays)

    def diagonal(self, x: FloatArray, z: Pair, out: FloatArray) -> float:
        """``sum of z / s`` of each unknown into out; returns the sum of all ``z s``."""
        return float(sum(self._each(kernels.barrier, x, self.low, self.high, *z, out)))

    def centre(self, x: FloatArray, z: Pair, second: Pair, mu: float, out: FloatArray) -> None:
        """What the complementarity target adds to the dual residual, into out: ``(mu - second) / s - z``, signed."""
        self._each(kernels.centre, x, self.low, self.high, *z, *second, mu, out)

    def dual_step(self, x: FloatArray, z: Pair, dx: FloatArray, second: Pair, mu: float, dz: Pair) -> None:
        """Steps of the multipliers that go with dx, into dz, which may be the second-order terms."""
        self._each(kernels.dual_step, x, self.low, self.high, *z, dx, *second, mu, *dz)

    def second_order(self, dx: FloatArray, dz: Pair, omega: float, cap: float) -> None:
        """The predictor's second-order terms ``omega ds dz``, clipped, in the place of its dz."""
        self._each(kernels.second_order, self.low, self.high, dx, *dz, omega, cap)

    def recentre(self, x: FloatArray, z: Pair, least: float) -> None:
        """Products of distance and multiplier below ``least`` become it, by the smaller of the two."""
        self._each(kernels.recentre, x, self.low, self.high, *z, least)

    def largest_steps(self, x: FloatArray, z: Pair, dx: FloatArray, dz: Pair, tau: float) -> tuple[float, float]:
        """Largest primal and dual steps that leave (1 - tau) of every distance and multiplier, at most 1."""
        found = self._each(kernels.largest_steps, x, self.low, self.high, *z, dx, *dz, tau)
        return min(primal for primal, _ in found), min(dual for _, dual in found)

    def after(self, x: FloatArray, z: Pair, dx: FloatArray, dz: Pair, primal: float, dual: float) -> float:
        """Sum of multiplier times distance after a step."""
        parts = self._each(kernels.complementarity_after, x, self.low, self.high, *z, dx, *dz, primal, dual)
        return float(sum(parts))


__all__ = ["Barrier", "Pair"]
