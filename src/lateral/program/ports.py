"""Ports: where devices and the network meet.

A *port* is a pair of nodes of one bus; the second may be ground (a wye device) or another conductor (delta). A
formulation is a `NetworkModel`: it offers at a port to inject power, to connect an admittance and to read the voltage,
and it lets a source feed nodes. A device declares its own variables and rows and uses these. No device tests which
formulation it is in, no formulation which device.

Injection into the network is positive. Powers are per unit on the base per conductor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lateral.errors import Fault, UnsupportedError
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program.affine import Affine
from lateral.program.builder import ProgramBuilder
from lateral.program.curves import Curve


@dataclass(frozen=True, slots=True, eq=False)
class Ports:
    """Pairs of nodes; -1 is ground.

    Attributes:
        a: first node of each port, shape (n,).
        b: second node, -1 for ground, shape (n,).
    """

    a: IntArray
    b: IntArray

    def __len__(self) -> int:
        return len(self.a)


def unique_ports(parts: Sequence[Ports]) -> tuple[Ports, IntArray]:
    """The different ports of several sets, and which of them each port is, shape (all ports,).

    (b, a) is the port (a, b): voltage and current change their sign together, power does not.
    """
    a, b = (np.concatenate([np.zeros(0, dtype=np.int64), *(getattr(ports, k) for ports in parts)]) for k in ("a", "b"))
    a, b = np.maximum(a, b), np.minimum(a, b)
    stride = int(a.max(initial=0)) + 2
    pairs, place = np.unique(a * stride + b + 1, return_inverse=True)
    return Ports(pairs // stride, pairs % stride - 1), place


@dataclass(frozen=True, slots=True, eq=False)
class Crossing:
    """What can occur at a bus where areas meet, as far as it is known: spans of the voltages and currents there.

    A span is said as the projector onto it, Hermitian, shape (conductors, conductors).

    Attributes:
        conductors: conductors that cross.
        v: voltages; the upper area knows them.
        v_could: voltages with whatever current in the branches towards the source, which span no less.
        i: currents that are drawn there; the lower area knows them.
        behind: whether a winding towards the source, in the same area, leaves the voltage to ground open.
    """

    conductors: tuple[int, ...]
    v: ComplexArray | None = None
    v_could: ComplexArray | None = None
    i: ComplexArray | None = None
    behind: bool = False

    @property
    def free(self) -> bool:
        """Whether every voltage can occur, and every current in conductors that draw any, whatever is beyond."""
        n = len(self.conductors)
        idle = 0 if self.i is None else int((np.diag(self.i).real < 0.5 / n).sum())
        known = ((self.v, 0), (self.v_could, 0), (self.i, idle))
        full = all(float(np.trace(span).real) + more > n - 0.5 for span, more in known if span is not None)
        return full and not self.behind


class NetworkModel(ABC):
    """What a formulation offers to devices and objectives, while a program is being built."""

    builder: ProgramBuilder
    #: what a border between areas says of the voltage of a conductor: its square ``("v",)``, or ``("v_re", "v_im")``,
    #: or ``("v", "vv_re", "vv_im")``, the square and ``V_k conj(V_k')`` with k' the conductor after it (after the last
    #: one the first): of up to three conductors these are all entries of V V^H
    voltages: ClassVar[tuple[str, ...]] = ("v",)

    @abstractmethod
    def node(self, bus: str, conductor: int) -> int:
        """Position of a node; -1 for ground and for a neutral that the formulation takes as grounded.

        Raises:
            KeyError: the node is not energised, or does not exist.
        """

    @abstractmethod
    def base_kv(self, nodes: IntArray) -> FloatArray:
        """Voltage base of nodes, line to ground, kV."""

    @abstractmethod
    def inject(self, ports: Ports, p: Affine, q: Affine) -> None:
        """Inject power at ports, arrays of shape (ports, T), per unit."""

    def inject_without_return(self, name: str, ports: Ports, p: Affine, q: Affine) -> None:
        """Inject power at ports of one bus to ground whose currents add up to nothing where all is in agreement: beyond
        them nothing is tied to ground.

        Where nothing else ties the nodes to ground either, no power depends on their voltage to ground, and a power of
        each conductor that is not in agreement yet would decide it. A formulation with complex voltages holds it there.
        Here as `inject`: magnitudes know no voltage to ground that floats, and matrices of voltages have penalties for
        it (`lateral.areas.algorithms.consensus`).
        """
        self.inject(ports, p, q)

    @abstractmethod
    def shunt(self, ports: Ports, g: FloatArray, b: FloatArray) -> None:
        """Connect constant admittances g + jb across ports, shape (ports,), per unit of the ports' node bases."""

    @abstractmethod
    def power_of_v(self, ports: Ports, exponent: FloatArray) -> Affine:
        """|V|^exponent across each port, shape (ports, T), per unit of the first node's base.

        Exact for exponents 0 and 2; 1 is exact where the formulation can (an extra variable), else first order at the
        formulation's operating point, as are all others.
        """

    def inject_at(self, ports: Ports, exponent: float, p: Affine, q: Affine) -> None:
        """Inject ``p |V|^exponent`` and ``q |V|^exponent`` at ports; p and q are numbers or data, shape (ports, T)."""
        v = self.power_of_v(ports, np.full(len(ports), exponent))
        self.inject(ports, v.times_parameter(p), v.times_parameter(q))

    def inject_susceptance(self, ports: Ports, b: Affine, b_0: FloatArray) -> Affine:
        """Inject the reactive power ``b |V|^2`` of susceptances that are variables, shape (ports, T); returns it.

        Exact where a formulation can write the product; here first order at the operating point V_0, b_0::

            q = b |V_0|^2 + b_0 (|V|^2 - |V_0|^2)

        Args:
            ports: the ports.
            b: susceptances, per unit of the ports' node bases, without data.
            b_0: susceptances at the operating point, shape (ports, 1) or (ports, T).
        """
        self.builder.first_order.add("susceptances that are decided are taken to first order")
        at = self.reference_v(ports) ** 2
        q = b * at + (self.power_of_v(ports, np.full(len(ports), 2.0)) - at) * b_0
        self.inject(ports, Affine.zeros(*q.shape), q)
        return q

    #: whether `curve_of_v` is exact
    reads_curves: bool = False

    def curve_of_v(self, ports: Ports, curve: Curve) -> Affine:
        """phi(|V|^2) across each port, shape (ports, T).

        Exact where ``reads_curves`` is true; here first order at the operating point, which for a piecewise linear
        curve is the piece that the point is on.
        """
        self.builder.first_order.add("curves of the voltage are taken to first order")
        at = self.reference_v(ports) ** 2
        # a curve has as many rows as ports; where the point is the same at every step, so is what it is there
        w = self.power_of_v(ports, np.full(len(ports), 2.0))
        return (w - at) * curve.slope(at) + curve.value(at)

    def assume_v(  # noqa: B027
        self, ports: Ports, low: FloatArray, high: FloatArray, *, beside: tuple[FloatArray, FloatArray] | None = None
    ) -> None:
        """Say that what was injected holds while |V| across the ports is within these sides, shape (ports, T), per unit
        of the first node's base. A formulation that is exact looks at it after the solve; to the others it says nothing
        new: they take all of a device's law at their operating point.

        Args:
            ports: the ports.
            low, high: the sides.
            beside: where the law jumps at them: how far |V| has to stay away, shape (ports, 1), and below which voltage
                the side under the lower one is the better one, shape (ports, T).
        """

    def beside_jumps(self, ports: Ports) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest |V| across ports, so that they stay away from a jump of a law, shape (ports, 1 or T), per
        unit of the first node's base; zero and infinity where nothing was found to need that."""
        return np.zeros((len(ports), 1)), np.full((len(ports), 1), np.inf)

    #: whether `inject_curve` can be called
    writes_curves: bool = False

    def inject_curve(
        self,
        ports: Ports,
        elements: IntArray,
        steps: IntArray,
        curve: Curve,
        p: Affine,
        q: Affine,
        *,
        within: tuple[FloatArray, FloatArray] | None = None,
    ) -> None:
        """Inject ``p phi(|V|^2)`` and ``q phi(|V|^2)`` at single ports and steps.

        Args:
            ports: the ports, shape (n,).
            elements, steps: port and step of each cell, shape (k,).
            curve: phi with one row per cell.
            p, q: numbers or data, shape (k, 1).
            within: lowest and highest |V| of each cell, shape (k,); 0 and inf for none.

        Only where ``writes_curves`` is true: formulations that are made at an operating point take a device's law
        there instead.
        """
        message = "this formulation writes no curves"
        raise TypeError(message)

    def takes_for_granted(self) -> tuple[str, ...]:
        """What a bound that the formulation gives rests on, beyond the case itself; asked after `close`."""
        return ()

    def crossing(self) -> Mapping[str, Crossing]:
        """What can occur at buses where other areas begin, by bus, as far as is known here; asked after `close`."""
        return {}

    def departs(self) -> tuple[str, ...]:
        """Where the feeder of the formulation is not the case's, in words; a bound of it is none of the case's then."""
        return ()

    @abstractmethod
    def reference_v(self, ports: Ports) -> FloatArray:
        """|V| across each port at the formulation's operating point, shape (ports, T); nominal when it has none."""

    def declines_ratio(self, transformer: str, winding: int) -> str:
        """Why the tap of a winding (from 1) cannot be a decision in this formulation; empty when it can."""
        return "the formulation holds taps"

    def ratio(self, transformer: str, winding: int, tap: Affine) -> None:
        """Make the tap of a winding (from 1) a decision, shape (1, T); only where `declines_ratio` has no reason."""
        message = "this formulation holds taps"
        raise TypeError(message)

    @abstractmethod
    def feed(
        self, name: str, nodes: IntArray, e_sq: Affine, angle: FloatArray, z: ComplexArray
    ) -> tuple[Affine, Affine]:
        """A source behind an impedance at nodes: power (p, q) it gives at the nodes, shape (nodes, T).

        Args:
            name: name of the source.
            nodes: positions, shape (n,).
            e_sq: squared voltage behind the impedance, shape (n, T).
            angle: its angle, rad, shape (n,).
            z: impedance matrix, pu, shape (n, n); zeros for a stiff source.
        """

    def feed_at(self, name: str, nodes: IntArray, *given: Affine) -> tuple[Affine, Affine]:
        """A stiff source of more than a magnitude at nodes: power (p, q) it gives, shape (nodes, T).

        With complex voltages the duals of the rows ``feed.v_re`` and ``feed.v_im`` are d(minimum) / d(that part of the
        voltage), per pu.

        Args:
            name: name of the source.
            nodes: positions, shape (n,).
            given: each of ``voltages``, pu or pu^2: numbers, data or variables, shape (n, T).

        Raises:
            TypeError: the formulation knows magnitudes only, see ``voltages``.
        """
        message = "this formulation has no complex voltages"
        raise TypeError(message)

    def node_voltage(self, nodes: IntArray) -> tuple[Affine, Affine]:
        """Real and imaginary part of the voltages of nodes, pu, shape (nodes, T); each node is asked for once.

        Raises:
            TypeError: the formulation has no complex voltages, see ``voltages``.
        """
        message = "this formulation has no complex voltages"
        raise TypeError(message)

    def voltage_products(self, nodes: IntArray, others: IntArray) -> tuple[Affine, Affine]:
        """Real and imaginary part of ``V_i conj(V_j)`` of pairs of nodes of one bus, pu^2, shape (nodes, T); each first
        node is asked for once.

        Raises:
            TypeError: the formulation has no products of voltages, see ``voltages``.
        """
        message = "this formulation has no products of voltages"
        raise TypeError(message)

    def assume_current(self, ports: Ports, most: FloatArray) -> None:  # noqa: B027
        """Say that what is injected at the ports next is at most this current, pu, shape (ports, T); inf for nothing
        known. To a formulation that bounds no currents it says nothing.
        """

    @abstractmethod
    def node_vmag_sq(self) -> tuple[Sequence[str], Affine]:
        """Names of the nodes with a voltage, neutral conductors aside, and their squared magnitudes, shape (n, T)."""

    @abstractmethod
    def add_loss_cost(self, weight: Affine) -> None:
        """Add ``weight_t * losses_t`` to the objective, weight of shape (1, T) per unit of power: linear where the
        formulation knows losses, else the quadratic estimate from its flows."""

    def add_unbalance_cost(self, weight: Affine) -> None:
        """Add ``weight_t`` times the mean squared negative-sequence voltage of the three-phase buses, pu^2.

        Raises:
            UnsupportedError: the formulation knows no voltage angles.
        """
        fault = Fault(
            "FOR-020 no-angles",
            "objective.unbalance",
            "a formulation without voltage angles",
            "a formulation with complex voltages",
            "Use formulation 'current-voltage'.",
        )
        raise UnsupportedError([fault])

    @property
    @abstractmethod
    def neglects_losses(self) -> bool:
        """True when the balance does not contain losses that follow the decisions."""

    #: True when the balance has losses to first order only, so that `add_loss_curvature` can be called
    neglects_curvature: bool = False

    def add_loss_curvature(self, weight: Affine) -> None:
        """Add what losses have beyond first order to the objective, times a weight as in `add_loss_cost`.

        Only where ``neglects_curvature`` is true.
        """
        message = "this formulation has no first-order losses"
        raise TypeError(message)

    @abstractmethod
    def close(self) -> None:
        """Write the network's rows, after every device has declared."""


def ground_pair(nodes: IntArray) -> Ports:
    """Ports from nodes to ground."""
    return Ports(np.asarray(nodes, dtype=np.int64), np.full(len(nodes), -1))


__all__ = ["Crossing", "NetworkModel", "Ports", "ground_pair"]
