"""Loads of the matrix family: the voltages that ports can have, and powers of them between a curve and its chord."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder, stack
from lateral.program.ports import Ports, unique_ports

#: Voltages that count as possible at a node without a limit, as a share of the operating point.
UNLIMITED = (0.8, 1.2)
#: How far beyond the limits of its conductors a voltage between two of them counts as possible.
BETWEEN = (0.9, 1.1)
#: Where tangents of a curve are taken, between the lowest and the highest voltage.
TANGENTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Injection:
    """Power injected at ports.

    Attributes:
        ports: the ports.
        p, q: power, or what multiplies ``|U|^2``, shape (ports, T).
        i_max: largest current that this can be at possible voltages, pu, shape (ports, T).
    """

    ports: Ports
    p: Affine
    q: Affine
    i_max: FloatArray

    def take(self, own: IntArray) -> Injection:
        """Some of the ports."""
        ports = Ports(self.ports.a[own], self.ports.b[own])
        return Injection(ports, self.p.take(own), self.q.take(own), self.i_max[own])


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Which voltage magnitudes are possible.

    Attributes:
        low, high: of each node to ground, pu, shape (n,).
        v0: voltages at the operating point, shape (n, 1 or T).
        pairs: limits between two conductors where the bus has them, pu of the nodes' base, by the two nodes.
        guessed: whether a node that no source holds has no limit on a side, so that `UNLIMITED` stands for it.
    """

    low: FloatArray
    high: FloatArray
    v0: ComplexArray
    pairs: dict[tuple[int, int], tuple[float, float]]
    guessed: bool

    @classmethod
    def of(
        cls,
        feeder: Feeder,
        network: RadialNetwork,
        v0: ComplexArray,
        low: FloatArray,
        high: FloatArray,
        beyond: float = 0.0,
    ) -> Band:
        """From the limits of a feeder; 0 and inf are none. ``beyond``: by what share of a limit voltages may be beyond
        it, where limits are to give way."""
        size = np.abs(v0)
        free = (low <= 0.0) | ~np.isfinite(high)
        free[network.roots] = False
        less, more = 1.0 - beyond, 1.0 + beyond
        pairs: dict[tuple[int, int], tuple[float, float]] = {}
        for bus in feeder.buses:
            limits = np.sqrt(3.0) * np.array([bus.vpp_min_pu, bus.vpp_max_pu])
            if limits[0] > 0.0 or np.isfinite(limits[1]):
                at = [network.position[bus.name, c] for c in (1, 2, 3) if (bus.name, c) in network.position]
                pairs |= {(i, j): (less * float(limits[0]), more * float(limits[1])) for i in at for j in at if i != j}
        return cls(
            less * np.where(low > 0.0, low, UNLIMITED[0] * size.min(axis=1)),
            more * np.where(np.isfinite(high), high, UNLIMITED[1] * size.max(axis=1)),
            v0,
            pairs,
            bool(free.any()),
        )

    def current(self, builder: ProgramBuilder, ports: Ports, p: Affine, q: Affine, exponent: float = 0.0) -> FloatArray:
        """Largest ``|s| |U|^(e - 1)`` at the present data, pu, shape (ports, T); the data are numbers then."""
        low, high = (np.sqrt(side) for side in self.squares(ports))
        size = np.hypot(*(builder.magnitude(part, unbounded=np.inf) for part in (p, q)))
        builder.bake(p)
        builder.bake(q)
        return np.asarray(size * np.maximum(low ** (exponent - 1.0), high ** (exponent - 1.0)))

    def squares(self, ports: Ports) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest |U|^2 of ports, shape (ports, 1).

        Between two conductors: what the limits give at the angles of the operating point, with the margin `BETWEEN`.
        """
        a, b = np.maximum(ports.a, ports.b), np.minimum(ports.a, ports.b)
        low, high = self.low[a].copy(), self.high[a].copy()
        for k in np.flatnonzero(b >= 0).tolist():
            i, j = int(ports.a[k]), int(ports.b[k])
            u = self.v0[[i, j]]
            apart = np.abs(u[0] / np.abs(u[0]) - u[1] / np.abs(u[1]))
            low[k] = BETWEEN[0] * min(self.low[i], self.low[j]) * float(apart.min())
            high[k] = BETWEEN[1] * max(self.high[i], self.high[j]) * float(apart.max())
            stated = self.pairs.get((i, j))
            if stated is not None:
                low[k], high[k] = max(low[k], stated[0]), min(high[k], stated[1])
        return low.reshape(-1, 1) ** 2, high.reshape(-1, 1) ** 2


def power_between(
    builder: ProgramBuilder,
    component: str,
    names: Sequence[str],
    w: Affine,
    exponent: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> Affine:
    """A variable y for ``w^(e/2)``, between the curve and its chord over low <= w <= high.

    ::

        0 < e < 2 (concave):   chord(w) <= y <= w^(e/2)         e = 1: the cone y^2 <= w, else tangents
        otherwise (convex):    tangents(w) <= y <= chord(w)

    Args:
        builder: takes the rows.
        component: what the rows belong to.
        names: of the ports.
        w: squared voltage, shape (ports, T).
        exponent: e of each port, shape (ports,).
        low, high: squared voltages that are possible, shape (ports, 1).
    """
    half = 0.5 * exponent.reshape(-1, 1)
    at_low, at_high = low**half, high**half
    y = builder.variable(
        component,
        "v_power",
        names,
        unit="pu",
        lower=np.minimum(at_low, at_high),
        upper=np.maximum(at_low, at_high),
        start=np.minimum(at_low, at_high),
        limit=False,
    )
    slope = (at_high - at_low) / np.maximum(high - low, 1e-12)
    above = y - w * slope - (at_low - slope * low)
    concave = (half[:, 0] > 0.0) & (half[:, 0] < 1.0)
    side = np.where(concave, 1.0, -1.0).reshape(-1, 1)
    builder.between(component, "v_chord", names, 0.0, above * side, np.inf, limit=False)
    root = np.flatnonzero(exponent == 1.0)
    if len(root):
        ones = Affine.constant(np.ones((len(root), w.n_steps)))
        own = [names[k] for k in root.tolist()]
        builder.product(component, "v_power", own, [y.take(root)], w.take(root), ones)
    bent = np.flatnonzero(exponent != 1.0)
    for share in TANGENTS if len(bent) else ():
        at = (np.sqrt(low) + share * (np.sqrt(high) - np.sqrt(low)))[bent] ** 2
        tangent = half[bent] * at ** (half[bent] - 1.0)
        below = y.take(bent) - w.take(bent) * tangent - (at ** half[bent] - tangent * at)
        own = [names[k] for k in bent.tolist()]
        builder.between(component, "v_tangent", own, -np.inf, below * side[bent], 0.0, limit=False)

    def law_gap(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
        none = np.zeros(0)
        return np.asarray(np.abs(y.value(x, none) - np.maximum(w.value(x, none), 1e-9) ** half))

    builder.derive(component, "law_gap", names, law_gap, unit="pu")
    return y


def product_between(
    builder: ProgramBuilder,
    component: str,
    names: Sequence[str],
    b: Affine,
    w: Affine,
    low: FloatArray,
    high: FloatArray,
) -> Affine:
    """A variable q for ``b w`` with ``b_min <= b <= b_max`` and low <= w <= high (McCormick 1976)::

        b_min w + low (b - b_min)  <= q <= b_min w + high (b - b_min)
        b_max w + high (b - b_max) <= q <= b_max w + low (b - b_max)

    with ``b_min = 0`` where no susceptance is negative.

    Args:
        builder: takes the rows.
        component: what the rows belong to.
        names: of the ports.
        b: susceptances that are variables, shape (ports, T).
        w: squared voltage, shape (ports, T).
        low, high: squared voltages that are possible, shape (ports, 1).
    """
    most, least = -builder.least(-b), np.minimum(builder.least(b), 0.0)
    scale = np.maximum(builder.magnitude(b), 1e-9)
    q = builder.variable(component, "q_shunt", names, unit="pu", lower=least * high, scale=scale, limit=False)
    at_low, at_high = b * low, b * high
    if np.any(least):
        at_low, at_high = (w * least + (b - least) * side for side in (low, high))
    for quantity, row in (
        ("q_low", q - at_low),
        ("q_high", at_high - q),
        ("q_below", q - w * most - (b - most) * high),
        ("q_above", w * most + (b - most) * low - q),
    ):
        builder.between(component, quantity, names, 0.0, row, np.inf, scale=scale, limit=False)

    def law_gap(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
        none = np.zeros(0)
        return np.asarray(np.abs(q.value(x, none) - b.value(x, none) * w.value(x, none)) / scale)

    builder.derive(component, "law_gap", names, law_gap, unit="pu")
    return q


def summed(parts: Sequence[Injection], n_steps: int) -> Injection:
    """Ports across two conductors, each once, with everything that is injected there; (b, a) is the port (a, b)."""
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        zero = Affine.zeros(0, n_steps)
        return Injection(Ports(none, none), zero, zero, np.zeros((0, n_steps)))
    ports, place = unique_ports([i.ports for i in parts])
    each, ones = np.arange(len(place)), np.ones(len(place))
    p, q = (stack([getattr(i, side) for i in parts]).map_terms(len(ports), place, each, ones) for side in ("p", "q"))
    i_max = np.zeros((len(ports), n_steps))
    np.add.at(i_max, place, np.vstack([i.i_max for i in parts]))
    return Injection(ports, p, q, i_max)


__all__ = ["Band", "Injection", "power_between", "product_between", "summed"]
