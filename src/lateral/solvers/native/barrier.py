"""The barrier of variables and slacks: what their bounds add to an interior-point step.

With ``s`` the distance to a bound and ``z`` its multiplier; only rows that have a bound at some step are gone through.
Unknowns are of two kinds, variables and slacks, and so everything here is a pair of arrays, shape (n, T) each; what is
of the lower and of the upper bounds is a pair of such pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lateral.network.schema import FloatArray
from lateral.solvers.native import kernels
from lateral.solvers.native.threads import Share, Threads

#: Numbers that one thread takes at once.
SHARE = 20_000
#: Of the lower and of the upper bounds, shape (n, T) each.
Pair = tuple[FloatArray, FloatArray]
#: Of variables and of slacks.
Kinds = tuple[FloatArray, FloatArray]
#: Of the bounds of variables and of slacks.
Multipliers = tuple[Pair, Pair]


@dataclass(frozen=True, slots=True)
class Affine:
    """A step that aims at no complementarity, with ``dz = -z (1 + ds / s)``.

    Attributes:
        primal, dual: the largest steps, at most 1.
        z_s, z_ds, z_dsq: sums of z times s, ds and ds^2 / s over the bounds.
    """

    primal: float
    dual: float
    z_s: float
    z_ds: float
    z_dsq: float

    @property
    def after(self) -> float:
        """Sum of multiplier times distance after these steps."""
        s_dz, ds_dz = -(self.z_s + self.z_ds), -(self.z_ds + self.z_dsq)
        return float(self.z_s + self.primal * self.z_ds + self.dual * s_dz + self.primal * self.dual * ds_dz)


class Barrier:
    """Bounds ``low <= x <= high``, infinite where there is none, of variables and of slacks.

    Args:
        low, high: the bounds.
        threads: who shares the work.
    """

    def __init__(self, low: Kinds, high: Kinds, threads: Threads) -> None:
        self._low, self._high, self._threads = low, high, threads
        there = [(np.isfinite(a), np.isfinite(b)) for a, b in zip(low, high, strict=True)]
        self._rows = [np.flatnonzero((a | b).any(axis=1)) for a, b in there]
        steps = low[0].shape[1]
        self._parts = [np.array_split(rows, 1 + rows.size * steps // SHARE) for rows in self._rows]
        #: number of bounds
        self.count = sum(int(a.sum()) + int(b.sum()) for a, b in there)

    def _each(self, kernel: Callable[..., Any], arrays: Callable[[int], tuple[Any, ...]]) -> list[Any]:
        """A kernel on the rows of both kinds, with the arrays of each after its bounds."""
        jobs = [
            (rows, self._low[kind], self._high[kind], *arrays(kind))
            for kind, parts in enumerate(self._parts)
            for rows in parts
        ]
        return self._threads.some(kernel, jobs)

    def diagonal(self, x: Kinds, z: Multipliers, out: Kinds, pull: Kinds) -> float:
        """``sum of z / s`` of each unknown into out, and what its multipliers add to the gradient, signed, into pull:
        what aims at no complementarity; returns the sum of all ``z s``."""
        return float(sum(self._each(kernels.barrier, lambda k: (x[k], *z[k], out[k], pull[k]))))

    def affine(self, x: Kinds, z: Multipliers, dx: Kinds) -> Affine:
        """What a step dx that aims at no complementarity comes to."""
        found = np.array(self._each(kernels.affine, lambda k: (x[k], *z[k], dx[k])))
        up, down = found[:, :2].max(axis=0)
        return Affine(min(1.0, 1.0 / down) if down > 0.0 else 1.0, 1.0 / (1.0 + up), *found[:, 2:].sum(axis=0))

    def centre(
        self, x: Kinds, z: Multipliers, dx: Kinds, omega: float, cap: float, mu: float, second: Multipliers, out: Kinds
    ) -> None:
        """What the complementarity target adds to the dual residual, into out: ``(mu - second) / s - z``, signed; with
        the second-order terms ``omega ds dz`` of the step dx that aimed at none, clipped, into second."""
        self._each(kernels.centre, lambda k: (x[k], *z[k], dx[k], omega, cap, mu, *second[k], out[k]))

    def dual_step(
        self, x: Kinds, z: Multipliers, dx: Kinds, mu: float, tau: float, dz: Multipliers
    ) -> tuple[float, float]:
        """Steps of the multipliers that go with dx, into dz, which holds the second-order terms; returns the largest
        primal and dual steps that leave (1 - tau) of every distance and multiplier, at most 1."""
        found = self._each(kernels.dual_step, lambda k: (x[k], *z[k], dx[k], mu, tau, *dz[k]))
        return min(primal for primal, _ in found), min(dual for _, dual in found)

    def advance(self, z: Multipliers, dz: Multipliers, step: float, mine: Share) -> None:
        """A thread's share of going along a step of the multipliers."""
        for rows, at, along in zip(self._rows, z, dz, strict=True):
            first, last = mine.of(len(rows))
            kernels.advance_rows(rows[first:last], *at, *along, step)

    def recentre(self, x: Kinds, z: Multipliers, least: float) -> None:
        """Products of distance and multiplier below ``least`` become it, by the smaller of the two."""
        self._each(kernels.recentre, lambda k: (x[k], *z[k], least))


__all__ = ["Affine", "Barrier", "Kinds", "Multipliers", "Pair"]
