"""The closed library of curves: smooth functions of one variable with their derivatives, for many cells at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from lateral.network.schema import FloatArray


class Curve(ABC):
    """A smooth function of one variable out of the closed library, for (n, T) cells at once."""

    @abstractmethod
    def value(self, z: FloatArray) -> FloatArray:
        """phi(z), shape (n, T)."""

    @abstractmethod
    def slope(self, z: FloatArray) -> FloatArray:
        """phi'(z), shape (n, T)."""

    @abstractmethod
    def bend(self, z: FloatArray) -> FloatArray:
        """phi''(z), shape (n, T)."""

    def softened(self, factor: float) -> Curve:
        """The curve with its corners rounded over ``factor`` times the width; itself where it has no corners."""
        return self


@final
@dataclass(frozen=True, slots=True, eq=False)
class Power(Curve):
    """``phi(z) = z^exponent`` for z > 0; below ``LEAST`` it goes on as a parabola, so that any z has a value.

    Attributes:
        exponent: shape (n, 1).
    """

    exponent: FloatArray

    #: where the power ends: far below any voltage that a schedule can have
    LEAST = 1e-4

    def value(self, z: FloatArray) -> FloatArray:
        """See `Curve.value`."""
        e, at = self.exponent, np.maximum(z, self.LEAST)
        step = z - at
        return np.asarray(at**e + step * (e * at ** (e - 1.0) + 0.5 * step * e * (e - 1.0) * at ** (e - 2.0)))

    def slope(self, z: FloatArray) -> FloatArray:
        """See `Curve.slope`."""
        e, at = self.exponent, np.maximum(z, self.LEAST)
        return np.asarray(e * at ** (e - 1.0) + (z - at) * e * (e - 1.0) * at ** (e - 2.0))

    def bend(self, z: FloatArray) -> FloatArray:
        """See `Curve.bend`."""
        e, at = self.exponent, np.maximum(z, self.LEAST)
        return np.asarray(e * (e - 1.0) * at ** (e - 2.0))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Bends(Curve):
    """A piecewise linear curve with rounded corners (volt-var, volt-watt)::

        phi(z) = y_0 + s_0 (z - z_1) + sum_k (s_k - s_(k-1)) h(z - z_k),   h(d) = (d + sqrt(d^2 + w^2)) / 2 - w/2 at far

    ``h`` is a ramp that differs from ``max(d, 0)`` by at most w/2, at the corner itself. The curve passes its points to
    within that times the change of slope.

    Attributes:
        points: where it bends, ascending, shape (n, K).
        values: phi at the bends, shape (n, K); constant before the first and after the last.
        width: rounding w, in units of z, shape (n, 1).
    """

    points: FloatArray
    values: FloatArray
    width: FloatArray

    def softened(self, factor: float) -> Curve:
        """See `Curve.softened`."""
        return replace(self, width=factor * self.width)

    def _turns(self) -> FloatArray:
        """Change of slope at each bend, shape (n, K)."""
        slopes = np.diff(self.values, axis=1) / np.diff(self.points, axis=1)
        flat = np.zeros((len(slopes), 1))
        return np.asarray(np.diff(np.concatenate([flat, slopes, flat], axis=1), axis=1))

    def value(self, z: FloatArray) -> FloatArray:
        """See `Curve.value`."""
        total = np.repeat(self.values[:, :1], z.shape[1], axis=1)
        for k, turn in enumerate(self._turns().T):
            d = z - self.points[:, k : k + 1]
            total = total + turn[:, None] * 0.5 * (d + np.sqrt(d**2 + self.width**2))
        return total

    def slope(self, z: FloatArray) -> FloatArray:
        """See `Curve.slope`."""
        total = np.zeros_like(z)
        for k, turn in enumerate(self._turns().T):
            d = z - self.points[:, k : k + 1]
            total = total + turn[:, None] * 0.5 * (1.0 + d / np.sqrt(d**2 + self.width**2))
        return total

    def bend(self, z: FloatArray) -> FloatArray:
        """See `Curve.bend`."""
        total = np.zeros_like(z)
        for k, turn in enumerate(self._turns().T):
            d = z - self.points[:, k : k + 1]
            total = total + turn[:, None] * 0.5 * self.width**2 / (d**2 + self.width**2) ** 1.5
        return total


@final
@dataclass(frozen=True, slots=True, eq=False)
class Banded(Curve):
    """Power of a load as a function of its squared voltage w = u^2, with what it becomes outside of its band::

        phi(w) = f + h(a - f) - h(f - b),      h(x) = (x + sqrt(x^2 + width^2)) / 2, a rounded max(x, 0)
        f = c_0 + c_1 u + c_2 u^2 + c_e u^e           within v_low ... v_high
        b = b_0 + b_1 u + b_2 u^2                     below; meets f at v_low and is less than f below it
        a = a_0 + a_1 u + a_2 u^2                     above; meets f at v_high and is more than f above it

    This form keeps a rising, convex corner rising and convex, so that it makes no optimum of its own. What it adds is
    width/2 at the corner and ``width^2 / (4 |a - f|)`` away from it. Where a law jumps at an edge (some load models of
    OpenDSS do), the side is switched over about ``width`` instead::

        phi = f + s (a - f),      s = (1 + tanh(d / (SHARPER width))) / 2,   d = u - v_high         (b likewise)

    Attributes:
        inside, below, above: coefficients of 1, u, u^2, each of shape (n, 3).
        extra: c_e, shape (n, 1).
        exponent: e, shape (n, 1).
        v_low, v_high: the band, shape (n, 1).
        width: rounding, shape (n, 1).
    """

    inside: FloatArray
    below: FloatArray
    above: FloatArray
    extra: FloatArray
    exponent: FloatArray
    v_low: FloatArray
    v_high: FloatArray
    width: FloatArray

    #: squared voltages below this count as this
    LEAST = 1e-4
    #: a jump is rounded over this much less: a schedule that rests against one is then at its inner side
    SHARPER = 0.1
    #: a difference between two sides at their edge that is no jump
    NO_JUMP = 1e-9

    def softened(self, factor: float) -> Curve:
        """See `Curve.softened`."""
        return replace(self, width=factor * self.width)

    def _in_u(self, w: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """u, phi, d phi / du, d^2 phi / du^2."""
        u = np.sqrt(np.maximum(w, self.LEAST))
        f = self._within(u)
        total = list(f)
        for coefficients, edge, sign in ((self.below, self.v_low, -1.0), (self.above, self.v_high, 1.0)):
            with np.errstate(invalid="ignore"):
                at_edge = _parabola(coefficients, edge)[0] - self._within(edge)[0]
            jumps = np.abs(at_edge) > self.NO_JUMP
            x = [sign * (p - q) for p, q in zip(_parabola(coefficients, u), f, strict=True)]
            for into, rounded, switched in zip(
                range(3), self._rounded(x), self._switched(x, sign * (u - edge), sign), strict=True
            ):
                total[into] = total[into] + sign * np.where(jumps, switched, rounded)
        return u, total[0], total[1], total[2]

    def _within(self, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """f and its derivatives."""
        value, slope, bend = _parabola(self.inside, u)
        e, c = self.exponent, self.extra
        return (
            value + c * u**e,
            slope + c * e * u ** (e - 1.0),
            bend + c * e * (e - 1.0) * u ** (e - 2.0),
        )

    def _rounded(self, x: list[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """h(x) and its derivatives by u."""
        root = np.sqrt(x[0] ** 2 + self.width**2)
        h1, h2 = 0.5 * (1.0 + x[0] / root), 0.5 * self.width**2 / root**3
        return 0.5 * (x[0] + root), h1 * x[1], h1 * x[2] + h2 * x[1] ** 2

    def _switched(self, x: list[FloatArray], d: FloatArray, sign: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """s x and its derivatives by u."""
        width = self.SHARPER * self.width
        t = np.tanh(d / width)
        s0 = 0.5 * (1.0 + t)
        s1 = 0.5 * sign * (1.0 - t**2) / width
        s2 = -(1.0 - t**2) * t / width**2
        return s0 * x[0], s0 * x[1] + s1 * x[0], s0 * x[2] + 2.0 * s1 * x[1] + s2 * x[0]

    def value(self, z: FloatArray) -> FloatArray:
        """See `Curve.value`."""
        return self._in_u(z)[1]

    def slope(self, z: FloatArray) -> FloatArray:
        """See `Curve.slope`."""
        u, _, slope, _ = self._in_u(z)
        return np.asarray(np.where(z > self.LEAST, 0.5 * slope / u, 0.0))

    def bend(self, z: FloatArray) -> FloatArray:
        """See `Curve.bend`."""
        u, _, slope, bend = self._in_u(z)
        return np.asarray(np.where(z > self.LEAST, 0.25 * (bend - slope / u) / u**2, 0.0))


@final
@dataclass(frozen=True, slots=True, eq=False)
class OfRoot(Curve):
    """A curve of the voltage as a function of its square: ``phi(w) = inner(sqrt(w))``.

    Attributes:
        inner: the curve of u.
    """

    inner: Curve

    #: squared voltages below this count as this
    LEAST = 1e-4

    def softened(self, factor: float) -> Curve:
        """See `Curve.softened`."""
        wider = self.inner.softened(factor)
        return self if wider is self.inner else OfRoot(wider)

    def value(self, z: FloatArray) -> FloatArray:
        """See `Curve.value`."""
        return self.inner.value(np.sqrt(np.maximum(z, self.LEAST)))

    def slope(self, z: FloatArray) -> FloatArray:
        """See `Curve.slope`."""
        u = np.sqrt(np.maximum(z, self.LEAST))
        return np.asarray(np.where(z > self.LEAST, 0.5 * self.inner.slope(u) / u, 0.0))

    def bend(self, z: FloatArray) -> FloatArray:
        """See `Curve.bend`."""
        u = np.sqrt(np.maximum(z, self.LEAST))
        return np.asarray(np.where(z > self.LEAST, 0.25 * (self.inner.bend(u) - self.inner.slope(u) / u) / u**2, 0.0))


def _parabola(c: FloatArray, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``c_0 + c_1 u + c_2 u^2`` and its derivatives, coefficients of shape (n, 3)."""
    c0, c1, c2 = (c[:, k : k + 1] for k in range(3))
    return c0 + (c1 + c2 * u) * u, c1 + 2.0 * c2 * u, np.broadcast_to(2.0 * c2, u.shape)


__all__ = ["Banded", "Bends", "Curve", "OfRoot", "Power"]
