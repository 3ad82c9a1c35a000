"""The closed library of curves: smooth functions of one variable with their derivatives, for many cells at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from lateral.network.schema import FloatArray

BoolArray = NDArray[np.bool_]

#: A squared voltage far below any that a schedule can have, between a neutral conductor and ground too, pu^2.
LEAST_SQ = 1e-10


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


@final
@dataclass(frozen=True, slots=True, eq=False)
class Power(Curve):
    """``phi(z) = z^exponent`` for z > 0; below ``LEAST`` it goes on as a parabola, so that any z has a value.

    Attributes:
        exponent: shape (n, 1).
    """

    exponent: FloatArray

    #: where the power ends
    LEAST = LEAST_SQ

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

        phi(z) = y_1 + sum_k (s_k - s_(k-1)) h(z - z_k),      h the rounded ramp of `ramp`

    It is the piecewise linear curve itself further than the width from its corners, and differs from it there by at
    most 3/16 of the width times the change of slope.

    Attributes:
        points: where it bends, ascending, shape (n, K).
        values: phi at the bends, shape (n, K); constant before the first and after the last.
        width: rounding, in units of z, shape (n, 1).
    """

    points: FloatArray
    values: FloatArray
    width: FloatArray

    def _turns(self) -> FloatArray:
        """Change of slope at each bend, shape (n, K)."""
        slopes = np.diff(self.values, axis=1) / np.diff(self.points, axis=1)
        flat = np.zeros((len(slopes), 1))
        return np.asarray(np.diff(np.concatenate([flat, slopes, flat], axis=1), axis=1))

    def _sum(self, z: FloatArray, derivative: int) -> FloatArray:
        turns = self._turns()
        parts = (
            turns[:, k : k + 1] * ramp(z - p[:, None], self.width)[derivative] for k, p in enumerate(self.points.T)
        )
        return np.asarray(sum(parts))

    def value(self, z: FloatArray) -> FloatArray:
        """See `Curve.value`."""
        return self.values[:, :1] + self._sum(z, 0)

    def slope(self, z: FloatArray) -> FloatArray:
        """See `Curve.slope`."""
        return self._sum(z, 1)

    def bend(self, z: FloatArray) -> FloatArray:
        """See `Curve.bend`."""
        return self._sum(z, 2)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Banded(Curve):
    """Power of a load as a function of its squared voltage w = u^2, with what it becomes outside of its band::

        phi(w) = f + h(a - f) - h(f - b),      h a rounded max(x, 0)
        f = c_0 + c_1 u + c_2 u^2 + c_e u^e           within v_low ... v_high
        b = b_0 + b_1 u + b_2 u^2                     below; meets f at v_low and is less than f below it
        a = a_0 + a_1 u + a_2 u^2                     above; meets f at v_high and is more than f above it

    This form keeps a rising, convex corner rising and convex, so that it makes no optimum of its own. What it adds is
    at most 3/16 of the width, at the corner, and nothing where the two sides differ by more than the width (`ramp`).
    It does not jump: where a law does, it is that of one side, and the other far away.

    Attributes:
        inside, below, above: coefficients of 1, u, u^2, each of shape (n, 3).
        extra: c_e, shape (n, 1).
        exponent: e, shape (n, 1).
        width: rounding, as a share of the power at rated voltage, shape (n, 1).
    """

    inside: FloatArray
    below: FloatArray
    above: FloatArray
    extra: FloatArray
    exponent: FloatArray
    width: FloatArray

    #: squared voltages below this count as this
    LEAST = LEAST_SQ

    def _in_u(self, w: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """u, phi, d phi / du, d^2 phi / du^2."""
        u = np.sqrt(np.maximum(w, self.LEAST))
        f = self._within(u)
        total = list(f)
        for coefficients, sign in ((self.below, -1.0), (self.above, 1.0)):
            x = [sign * (p - q) for p, q in zip(_parabola(coefficients, u), f, strict=True)]
            for k, rounded in enumerate(self._rounded(x)):
                total[k] = total[k] + sign * rounded
        return u, total[0], total[1], total[2]

    def _within(self, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """f and its derivatives."""
        value, slope, bend = _parabola(self.inside, u)
        e, c = self.exponent, self.extra
        if not np.any(c):  # as of most loads
            return value, slope, bend
        return (
            value + c * u**e,
            slope + c * e * u ** (e - 1.0),
            bend + c * e * (e - 1.0) * u ** (e - 2.0),
        )

    def _rounded(self, x: list[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """h(x) and its derivatives by u."""
        h, h1, h2 = ramp(x[0], self.width)
        return h, h1 * x[1], h1 * x[2] + h2 * x[1] ** 2

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
    LEAST = LEAST_SQ

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


@final
@dataclass(frozen=True, slots=True, eq=False)
class Circle(Curve):
    """What one side of a right triangle leaves for the other one, as p of the rating s for q::

        phi(z) = sqrt((t + sqrt(t^2 + d^2)) / 2),   t = s^2 - z^2,   d = 2 (e s)^2

    It is ``sqrt(s^2 - z^2)`` to 1e-9 of it up to 0.99 s, is e s at s, where the root itself would have no slope, and
    goes on to zero beyond, so that any z has a value.

    Attributes:
        radius: s, shape (n, 1).
        end: e, what is left at s, a share of it.
    """

    radius: FloatArray
    end: float

    def _parts(self, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """phi^2 and its first and second derivative by t."""
        t, d = self.radius**2 - z**2, 2.0 * (self.end * self.radius) ** 2
        root = np.hypot(t, d)
        g = np.where(t > 0.0, 0.5 * (t + root), 0.5 * d**2 / (root - np.minimum(t, 0.0)))  # without cancellation
        return g, g / root, 0.5 * d**2 / root**3

    def value(self, z: FloatArray) -> FloatArray:
        """See `Curve.value`."""
        return np.asarray(np.sqrt(self._parts(z)[0]))

    def slope(self, z: FloatArray) -> FloatArray:
        """See `Curve.slope`."""
        g, g1, _ = self._parts(z)
        return np.asarray(-z * g1 / np.sqrt(g))

    def bend(self, z: FloatArray) -> FloatArray:
        """See `Curve.bend`."""
        g, g1, g2 = self._parts(z)
        y = np.sqrt(g)
        return np.asarray((2.0 * z**2 * g2 - g1) / y - (z * g1) ** 2 / y**3)


def ramp(x: FloatArray, width: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A rounded ``max(x, 0)`` with its first and second derivative, all continuous::

    h(x) = width (3/16 + t/2 + 3 t^2/8 - t^4/16),   t = x / width,   for |x| < width;   else max(x, 0)
    """
    t = np.clip(x / width, -1.0, 1.0)
    h = width * (3.0 / 16.0 + t * (0.5 + t * (0.375 - t**2 / 16.0))) + np.maximum(x - width, 0.0)
    return h, 0.5 + t * (0.75 - 0.25 * t**2), 0.75 * (1.0 - t**2) / width


def _parabola(c: FloatArray, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``c_0 + c_1 u + c_2 u^2`` and its derivatives, coefficients of shape (n, 3)."""
    c0, c1, c2 = (c[:, k : k + 1] for k in range(3))
    return c0 + (c1 + c2 * u) * u, c1 + 2.0 * c2 * u, np.broadcast_to(2.0 * c2, u.shape)


__all__ = ["LEAST_SQ", "Banded", "Bends", "Circle", "Curve", "OfRoot", "Power", "ramp"]
