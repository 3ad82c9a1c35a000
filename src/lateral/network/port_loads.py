"""What devices draw at ports: the load laws, their currents and the exact derivatives of these.

A port is a pair of nodes, the second may be ground. With U the voltage across it, V_r its rated voltage and
``u = |U| / V_r``::

    i(U) = y(u) U,    y(u) = (p f_p(u) - j q f_q(u)) / V_r^2

with ``f = 1/u^2`` for constant power, ``1/u`` for constant current, 1 for constant impedance, ``u^(e-2)`` for an
exponent e, and their sum for a ZIP load. Outside of its band a port becomes an impedance the way OpenDSS's loads do
(`PortLoads`). Of a change dU, to first order and with ``g(u) = u y'(u)``::

    di = a dU + b conj(dU),    a = y + g/2,   b = (g/2) U^2 / |U|^2

which is not complex-differentiable unless g = 0 (an impedance): Newton's method works with real and imaginary parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lateral.network.schema import ComplexArray, FloatArray, IntArray

BoolArray = NDArray[np.bool_]

#: Voltages below this are taken as this, pu: the laws divide by them.
U_LEAST = 1e-9

#: Load models, with the OpenDSS numbers 1 to 8 in this order.
PORT_MODELS = (
    "constant_power",
    "constant_impedance",
    "constant_power_quadratic_q",
    "cvr",
    "constant_current",
    "constant_power_fixed_q",
    "constant_power_fixed_q_impedance",
    "zip",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class PortLoads:
    """What devices draw at ports, n ports and T steps. Power drawn is positive, per modelled conductor.

    Outside of the band ``v_min ... v_max`` a port turns into an impedance, the way OpenDSS's loads do, with the
    factor f of the module's equation (power part; current part)::

        u <= v_low            1
        v_low < u <= v_min    (v_low + s (u - v_low)) / u,   s = (1/v_min - v_low) / (v_min - v_low)
                              (current part: s = (1 - v_low) / (v_min - v_low))
        u > v_max             1 / v_max^2   (current part: 1 / v_max)

    Models 1, 3, 4 follow the power part there in p and q, model 8 each of its shares; models 6 and 7 hold
    ``1 / v_min^2`` for p and 1 for q instead (and q at its rated value below v_low too, where the engine takes the
    profile's). A ZIP port below its cut-off draws nothing, through the step
    ``(1 + tanh(500 (u - v_cut))) / 2``.

    Attributes:
        node_a: position of the first node, shape (n,).
        node_b: position of the second node, -1 for ground, shape (n,).
        p_kw: active power at rated voltage, shape (n, T).
        q_kvar: reactive power at rated voltage, shape (n, T).
        v_rated_kv: rated voltage across the port, shape (n,).
        model: index into `PORT_MODELS`, shape (n,).
        zip_p: shares of impedance, current, power in p (model zip), shape (n, 3).
        zip_q: the same in q.
        exponent: exponents of V in p and in q (model cvr), shape (n, 2).
        v_min_pu: lower edge of the band, shape (n,).
        v_max_pu: upper edge of the band, shape (n,).
        v_low_pu: where the port becomes its nominal impedance, shape (n,).
        v_cut_pu: cut-off of a zip port; 0 for none, shape (n,).
    """

    node_a: IntArray
    node_b: IntArray
    p_kw: FloatArray
    q_kvar: FloatArray
    v_rated_kv: FloatArray
    model: IntArray
    zip_p: FloatArray
    zip_q: FloatArray
    exponent: FloatArray
    v_min_pu: FloatArray
    v_max_pu: FloatArray
    v_low_pu: FloatArray
    v_cut_pu: FloatArray

    def __len__(self) -> int:
        return len(self.node_a)

    @classmethod
    def constant_power(
        cls,
        node_a: IntArray,
        node_b: IntArray,
        p_kw: FloatArray,
        q_kvar: FloatArray,
        v_rated_kv: FloatArray,
    ) -> PortLoads:
        """Ports that draw constant power at any voltage above zero."""
        n = len(node_a)
        share = np.tile([0.0, 0.0, 1.0], (n, 1))
        return cls(
            node_a=np.asarray(node_a, dtype=np.int64),
            node_b=np.asarray(node_b, dtype=np.int64),
            p_kw=np.asarray(p_kw, dtype=float),
            q_kvar=np.asarray(q_kvar, dtype=float),
            v_rated_kv=np.asarray(v_rated_kv, dtype=float),
            model=np.zeros(n, dtype=np.int64),
            zip_p=share,
            zip_q=share,
            exponent=np.zeros((n, 2)),
            v_min_pu=np.zeros(n),
            v_max_pu=np.full(n, np.inf),
            v_low_pu=np.zeros(n),
            v_cut_pu=np.zeros(n),
        )

    @classmethod
    def join(cls, parts: Sequence[PortLoads]) -> PortLoads:
        """Several sets of ports as one."""
        return cls(**{f: np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__})

    @cached_property
    def _laws(self) -> tuple[_Law, _Law]:
        p = _Law.of(self, 0)
        q = _Law.of(self, 1)
        return p, p if p.same_as(q) else q

    @cached_property
    def _cut(self) -> IntArray:
        return np.flatnonzero((self.v_cut_pu > 0.0) & (self.model == 7))

    def nominal(self, steps: IntArray | slice = slice(None)) -> ComplexArray:
        """Admittance at rated voltage, ``(p - j q) / V_r^2``, siemens, shape (n, T)."""
        scale = 1e-3 / self.v_rated_kv[:, None] ** 2
        y = np.empty((len(self), self.p_kw[:, steps].shape[1]), dtype=complex)
        y.real = self.p_kw[:, steps] * scale
        y.imag = self.q_kvar[:, steps] * -scale
        return y

    def factors(
        self, u: FloatArray, steps: IntArray | slice = slice(None), *, nominal: ComplexArray | None = None
    ) -> ComplexArray:
        """Admittance ``(p f_p(u) - j q f_q(u)) / V_r^2`` in siemens at per-unit port voltages u, shape (n, T).

        Args:
            u: voltages across the ports, pu of their rated voltages, shape (n, T).
            steps: which steps these are.
            nominal: `nominal` of the same steps, where it is at hand.
        """
        law_p, law_q = self._laws
        y = self.nominal(steps) if nominal is None else nominal
        u = np.maximum(u, U_LEAST)
        f_p = law_p.value(u, self)
        y = _times(y, f_p, f_p if law_q is law_p else law_q.value(u, self))
        if self._cut.size:
            y[self._cut] *= self._cut_off(u)[0]
        return y

    def slopes(self, u: FloatArray, steps: IntArray | slice = slice(None)) -> ComplexArray:
        """``g = u y'(u)`` in siemens: how the admittance follows the voltage, exactly; shape (n, T).

        At an edge of the band the slope of one of the two sides is taken (the law has a kink there).
        """
        law_p, law_q = self._laws
        low = u < U_LEAST
        u = np.maximum(u, U_LEAST)
        y = self.nominal(steps)
        g = _times(y, law_p.slope(u, self), law_q.slope(u, self))
        if self._cut.size:
            step, rise = self._cut_off(u)
            own = _times(y, law_p.value(u, self), law_q.value(u, self))[self._cut]
            g[self._cut] = g[self._cut] * step + own * rise
        g[low] = 0.0
        return g

    def _cut_off(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The factor of the cut-off of the ports that have one, and ``u`` times its slope."""
        own = u[self._cut]
        tanh = np.tanh(500.0 * (own - self.v_cut_pu[self._cut, None]))
        impedance = own <= self.v_low_pu[self._cut, None]
        step = np.where(impedance, 1.0, 0.5 * (1.0 + tanh))
        return step, np.where(impedance, 0.0, 250.0 * (1.0 - tanh**2) * own)

    def split(self, steps: IntArray | slice = slice(None), *, whole: bool = False) -> ComplexArray:
        """The part of the nominal admittance that goes into the matrix, mean over the steps, siemens, (n,)."""
        law_p, law_q = self._laws
        scale = 1e-3 / self.v_rated_kv**2
        p, q = self.p_kw[:, steps].mean(axis=1) * scale, self.q_kvar[:, steps].mean(axis=1) * scale
        one = np.ones(len(self))
        y = np.empty(len(self), dtype=complex)
        y.real = (one if whole else law_p.weight) * p
        y.imag = (one if whole else law_q.weight) * -q
        return y


def _times(y: ComplexArray, f_p: FloatArray, f_q: FloatArray) -> ComplexArray:
    """Real part times one factor, imaginary part times the other."""
    if f_p is f_q:
        return y * f_p
    out = np.empty(np.broadcast_shapes(y.shape, f_p.shape), dtype=complex)
    np.multiply(y.real, f_p, out=out.real)
    np.multiply(y.imag, f_q, out=out.imag)
    return out


@dataclass(frozen=True, eq=False)
class _Law:
    """How p (or q) of every port depends on u; see `PortLoads`."""

    inside: FloatArray  # shares of impedance, current, power within the band, (n, 3)
    outside: FloatArray  # the same outside of it
    powered: IntArray  # ports with an exponent
    exponent: FloatArray  # their exponents
    flat: BoolArray  # ports without interpolation below v_min
    weight: FloatArray  # part of the nominal admittance for the matrix, (n,)
    banded: bool  # whether any port can leave its band
    pure_power: bool  # whether every port is constant power within its band

    @classmethod
    def of(cls, ports: PortLoads, which: int) -> _Law:
        """The law of p (``which`` = 0) or of q (1)."""
        z, i, p = np.eye(3)
        inside_of = ((p, z, p, p, i, p, p, p), (p, z, z, p, i, p, z, p))[which]
        outside_of = ((p, z, p, p, i, p, p, p), (p, z, p, p, i, z, z, p))[which]
        inside, outside = np.array(inside_of)[ports.model], np.array(outside_of)[ports.model]
        zips = ports.model == 7
        inside[zips] = outside[zips] = (ports.zip_p, ports.zip_q)[which][zips]
        powered = np.flatnonzero(ports.model == 3)
        inside[powered] = 0.0
        weight = inside @ np.array([1.0, 0.5, 0.0])
        weight[powered] = 0.5 * ports.exponent[powered, which]
        flat = (ports.model == 5) | (ports.model == 6)
        # a v_min of 0 can not be passed (u > 0), an infinite v_max neither
        bends = (inside[:, 0] != 1.0) | (outside[:, 0] != 1.0)
        banded = bool(np.any(bends & ((ports.v_min_pu > 0) | np.isfinite(ports.v_max_pu))))
        pure = bool(np.all(inside == p))
        return cls(inside, outside, powered, ports.exponent[powered, which], flat, weight, banded, pure)

    def same_as(self, other: _Law) -> bool:
        """Whether q follows the voltage as p does, so that it need not be computed twice."""
        names = ("inside", "outside", "powered", "exponent", "flat")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    def value(self, u: FloatArray, ports: PortLoads) -> FloatArray:
        """The factor f, shape (n, T)."""
        inverse = 1.0 / u
        f: FloatArray
        if self.pure_power:
            f = inverse * inverse
        else:
            z, i, p = (self.inside[:, k, None] for k in range(3))
            f = z + (i + p * inverse) * inverse
        if self.powered.size:
            f[self.powered] = u[self.powered] ** (self.exponent[:, None] - 2.0)
        n, t = self._out_of_band(u, ports)
        if n.size == 0:
            return f
        uo, low, least, most = u[n, t], ports.v_low_pu[n], ports.v_min_pu[n], ports.v_max_pu[n]
        z, i, p = (self.outside[n, k] for k in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            above = z + np.where(most > 0.0, i / most + p / most**2, i + p)
            width = least - low
            part_p = (low + (1.0 / least - low) * (uo - low) / width) / uo
            part_i = (low + (1.0 - low) * (uo - low) / width) / uo
            part_p = np.where(self.flat[n], 1.0 / least**2, part_p)
            below = z + i * part_i + p * part_p
        f[n, t] = np.where(uo <= low, 1.0, np.where(uo <= least, below, above))
        return f

    def slope(self, u: FloatArray, ports: PortLoads) -> FloatArray:
        """``u f'(u)``, shape (n, T)."""
        i, p = self.inside[:, 1, None], self.inside[:, 2, None]
        inverse = 1.0 / u
        g: FloatArray = -(i + 2.0 * p * inverse) * inverse
        if self.powered.size:
            e = self.exponent[:, None] - 2.0
            g[self.powered] = e * u[self.powered] ** e
        n, t = self._out_of_band(u, ports)
        if n.size == 0:
            return g
        uo, low, least = u[n, t], ports.v_low_pu[n], ports.v_min_pu[n]
        i, p = self.outside[n, 1], self.outside[n, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            # f = (low + s (u - low)) / u = s + low (1 - s) / u
            width = least - low
            part_p = -low * (1.0 - (1.0 / least - low) / width) / uo
            part_i = -low * (1.0 - (1.0 - low) / width) / uo
            below = i * part_i + p * np.where(self.flat[n], 0.0, part_p)
        g[n, t] = np.where((uo > low) & (uo <= least), below, 0.0)
        return g

    def _out_of_band(self, u: FloatArray, ports: PortLoads) -> tuple[IntArray, IntArray]:
        """Port and step of every voltage outside of its band."""
        if not self.banded:
            none = np.zeros(0, dtype=np.int64)
            return none, none
        low, least, most = ports.v_low_pu[:, None], ports.v_min_pu[:, None], ports.v_max_pu[:, None]
        out = (u <= np.maximum(least, low)) | (u > most)
        # most of the time none is: `any` is a tenth of `nonzero`
        n, t = np.nonzero(out) if out.any() else (np.zeros(0, dtype=np.int64),) * 2
        return n, t


__all__ = ["PORT_MODELS", "BoolArray", "PortLoads"]
