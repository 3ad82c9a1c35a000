"""What network models share that have a node per conductor and are made at an operating point.

The rectangular and the matrix family read voltages of ports in the same way; they differ in what a squared voltage is
(a quadratic row, or an entry of a matrix) and in how another power of it is bound to it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Bus, Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder
from lateral.program.ports import NetworkModel, Ports
from lateral.units import Base

_ROOT3 = np.sqrt(3.0)
#: Squared voltages between phases in the unit of their limits, which are on sqrt(3) times the base.
BETWEEN_PHASES_SQ = 1.0 / 3.0


class PointModel(NetworkModel):
    """Ports of a network at an operating point; a derived class sets ``net``, ``base``, ``n_steps`` and ``_v0``."""

    net: RadialNetwork
    base: Base
    n_steps: int
    #: voltages of the nodes at the operating point, pu, shape (n, 1 or T)
    _v0: ComplexArray
    _n_read: int = 0

    def base_kv(self, nodes: IntArray) -> FloatArray:
        """See `NetworkModel.base_kv`."""
        return self.net.v_base_kv[nodes]

    def reference_v(self, ports: Ports) -> FloatArray:
        """See `NetworkModel.reference_v`."""
        return np.abs(self._u0(ports))

    def _u0(self, ports: Ports) -> ComplexArray:
        """Voltage across ports at the operating point; ground, -1, is an extra row of zeros."""
        padded = np.vstack([self._v0, np.zeros((1, self._v0.shape[1]))])
        return padded[ports.a] - padded[ports.b]

    def _component(self) -> str:
        """A component of its own for what is read of some ports."""
        self._n_read += 1
        return numbered_port(self._n_read)

    def power_of_v(self, ports: Ports, exponent: FloatArray) -> Affine:
        """See `NetworkModel.power_of_v`: one for 0, the squared voltage for 2, else what the family makes of it."""
        out = Affine.constant(np.ones((len(ports), self.n_steps)) * (exponent == 0.0).reshape(-1, 1))
        asked = np.flatnonzero(exponent != 0.0)
        if not len(asked):
            return out
        own = Ports(ports.a[asked], ports.b[asked])
        component, names, w = self._squared(own)
        e = exponent[asked]
        square, bent = np.flatnonzero(e == 2.0), np.flatnonzero(e != 2.0)
        out = out + _put(w.take(square), len(ports), asked[square])
        if len(bent):
            some = Ports(own.a[bent], own.b[bent])
            y = self._bent_power(component, [names[k] for k in bent], some, w.take(bent), e[bent])
            out = out + _put(y, len(ports), asked[bent])
        return out

    @abstractmethod
    def _squared(self, ports: Ports) -> tuple[str, tuple[str, ...], Affine]:
        """|U|^2 of ports at every step: a component for what follows from it, names of the ports, w."""

    @abstractmethod
    def _bent_power(
        self, component: str, names: Sequence[str], ports: Ports, w: Affine, exponent: FloatArray
    ) -> Affine:
        """``w^(e/2)`` of ports, for exponents e that are neither 0 nor 2, shape (ports,)."""


def _put(values: Affine, n: int, at: IntArray) -> Affine:
    """Values at some of n elements, zero elsewhere."""
    return values.map_terms(n, at, np.arange(len(at)), np.ones(len(at)))


def numbered_port(number: int) -> str:
    """Name of the component of the ports that are read as the first, second, ... group."""
    return "port" if number == 1 else f"port{number}"


def port_names(net: RadialNetwork, ports: Ports) -> tuple[str, ...]:
    """Names of ports: the node's, or both conductors."""
    names = [f"{bus}.{c}" for bus, c in net.nodes]
    return tuple(
        names[max(a, b)] if min(a, b) < 0 else f"{names[a]}-{net.nodes[b][1]}"
        for a, b in zip(ports.a.tolist(), ports.b.tolist(), strict=True)
    )


def susceptance_power(
    builder: ProgramBuilder, component: str, names: Sequence[str], b: Affine, w: Affine, total_kva: float
) -> Affine:
    """Reactive power of decided susceptances: a variable q with the bilinear row ``q = b w``, exact.

    Args:
        builder: takes the variables and rows.
        component: what they belong to.
        names: of the ports.
        b: susceptances, shape (ports, T).
        w: squared voltages as variables, shape (ports, T).
        total_kva: power base of all phases.
    """
    size = np.maximum(builder.magnitude(b), 1e-6)
    start = builder.at_start(b) * builder.at_start(w)
    q = builder.variable(component, "q", names, unit="kvar", to_unit=total_kva, start=start, scale=size, limit=False)
    builder.quadratic(component, "q", names, [(b, w)], -q, 0.0, 0.0, unit="kvar", scale=size)
    return q


def phase_limits(feeder: Feeder, net: RadialNetwork) -> list[tuple[Bus, int, int]]:
    """Buses with a limit of the voltage between phases, and each pair of their phases."""
    return [
        (bus, i, j)
        for bus in feeder.buses
        if bus.vpp_min_pu > 0.0 or np.isfinite(bus.vpp_max_pu)
        for i, j in ((1, 2), (2, 3), (3, 1))
        if (bus.name, i) in net.position and (bus.name, j) in net.position
    ]


def phase_range(
    pairs: Sequence[tuple[Bus, int, int]], net: RadialNetwork
) -> tuple[Ports, FloatArray, FloatArray, list[str]]:
    """Ports of pairs of phases, their lowest and highest voltage, pu of the nodes' base, and their names."""
    ends = np.array([[net.position[bus.name, i], net.position[bus.name, j]] for bus, i, j in pairs])
    low, high = (_ROOT3 * np.array([getattr(bus, name) for bus, *_ in pairs]) for name in ("vpp_min_pu", "vpp_max_pu"))
    return Ports(ends[:, 0], ends[:, 1]), low, high, [f"{bus.name}.{i}-{j}" for bus, i, j in pairs]


def three_phase_buses(feeder: Feeder, net: RadialNetwork) -> tuple[Bus, ...]:
    """Buses with phases 1, 2 and 3."""
    return tuple(bus for bus in feeder.buses if all((bus.name, c) in net.position for c in (1, 2, 3)))


def phase_nodes(buses: Sequence[Bus], net: RadialNetwork) -> IntArray:
    """Nodes of phases 1, 2 and 3 of three-phase buses, shape (buses, 3)."""
    return np.array([[net.position[bus.name, c] for c in (1, 2, 3)] for bus in buses], dtype=np.int64).reshape(-1, 3)


__all__ = [
    "BETWEEN_PHASES_SQ",
    "PointModel",
    "numbered_port",
    "phase_limits",
    "phase_nodes",
    "phase_range",
    "port_names",
    "susceptance_power",
    "three_phase_buses",
]
