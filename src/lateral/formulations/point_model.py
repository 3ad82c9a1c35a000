"""What network models share that have a node per conductor and are made at an operating point.

The rectangular and the matrix family read voltages of ports in the same way; they differ in what a squared voltage is
(a quadratic row, or an entry of a matrix) and in how another power of it is bound to it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Bus, Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder
from lateral.program.ports import NetworkModel, Ports
from lateral.units import Base

#: The neutral conductor of a bus.
NEUTRAL = 4
#: Squared voltages between conductors in the unit of their limits: those between phases are on sqrt(3) times the base.
BETWEEN_SQ = {"vpp_sq": 1.0 / 3.0, "vpn_sq": 1.0}


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
    """Names of ports, each once: the node's, or both conductors, and a number from the second port there on."""
    seen: Counter[str] = Counter()
    names = []
    for a, b in zip(ports.a.tolist(), ports.b.tolist(), strict=True):
        bus, c = net.nodes[max(a, b) if min(a, b) < 0 else a]
        name = f"{bus}.{c}" if min(a, b) < 0 else f"{bus}.{c}-{net.nodes[b][1]}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(names)


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


def limits_between(
    feeder: Feeder, net: RadialNetwork, copied: Collection[str] = ()
) -> Iterator[tuple[str, Ports, FloatArray, FloatArray, list[str]]]:
    """Limits of the voltage between conductors: of each pair of phases, and of each phase with the neutral conductor of
    its bus (4), or with ground where it has none or that counts as ground.

    Args:
        feeder: buses with their limits.
        net: nodes.
        copied: nodes that another area decides on; a limit between two of them is left to it.

    Yields:
        quantity; ports; lowest and highest |V|, pu of the nodes' base; names such as ``680.1-2``.
    """
    place = net.position

    def pairs(bus: Bus, kind: str) -> list[tuple[int, int]]:
        if kind == "vpp":
            return [(1, 2), (2, 3), (3, 1)]
        neutral = NEUTRAL if NEUTRAL in bus.conductors else 0
        return [(i, neutral) for i in (1, 2, 3)]

    for kind, size in (("vpp", np.sqrt(3.0)), ("vpn", 1.0)):
        rows, of_low, of_high = [], f"{kind}_min_pu", f"{kind}_max_pu"
        for bus in feeder.buses:
            low, high = getattr(bus, of_low), getattr(bus, of_high)
            if low <= 0.0 and high == np.inf:
                continue
            for i, j in pairs(bus, kind):
                a, b = place.get((bus.name, i), -1), place.get((bus.name, j), -1)
                theirs = all(f"{bus.name}.{c}" in copied for c in (i, j) if c > 0)
                if a >= 0 and (b >= 0 or kind == "vpn") and not theirs:
                    rows.append((f"{bus.name}.{i}-{j}", a, b, size * low, size * high))
        if rows:
            names = [row[0] for row in rows]
            ends, sides = np.array([row[1:3] for row in rows]), np.array([row[3:] for row in rows])
            yield f"{kind}_sq", Ports(ends[:, 0], ends[:, 1]), sides[:, 0], sides[:, 1], names


def three_phase_buses(feeder: Feeder, net: RadialNetwork) -> tuple[Bus, ...]:
    """Buses with phases 1, 2 and 3."""
    return tuple(bus for bus in feeder.buses if all((bus.name, c) in net.position for c in (1, 2, 3)))


def phase_nodes(buses: Sequence[Bus], net: RadialNetwork) -> IntArray:
    """Nodes of phases 1, 2 and 3 of three-phase buses, shape (buses, 3)."""
    return np.array([[net.position[bus.name, c] for c in (1, 2, 3)] for bus in buses], dtype=np.int64).reshape(-1, 3)


__all__ = [
    "BETWEEN_SQ",
    "PointModel",
    "limits_between",
    "numbered_port",
    "phase_nodes",
    "port_names",
    "susceptance_power",
    "three_phase_buses",
]
