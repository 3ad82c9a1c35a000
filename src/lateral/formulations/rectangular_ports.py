"""Ports of the rectangular family: what devices declare there, and kept until `RectangularModel.close` writes it.

Variables that a device needs at once (squared voltages, powers of a source, curves) are made here; the rows that tie
them to the voltages are written when it is known which nodes are used (`lateral.formulations.rectangular`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lateral.formulations.base import OperatingPoint
from lateral.formulations.phasors import Complex
from lateral.formulations.point_model import NEUTRAL, PointModel, port_names, susceptance_power
from lateral.formulations.ratios import Tap, declines_ratio
from lateral.formulations.rectangular_values import NEUTRAL_PU, Assumed
from lateral.network.admittance import NodeIndex
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import LEAST_SQ, Affine, Curve, Power, ProgramBuilder, stack
from lateral.program.ports import Ports, unique_ports
from lateral.units import Base


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """A source as it was declared."""

    name: str
    elements: tuple[str, ...]
    nodes: IntArray
    p: Affine
    q: Affine
    e_sq: Affine
    angle: FloatArray
    z: ComplexArray
    given: Complex | None = None


class RectangularPorts(PointModel):
    """What is injected, connected, read and fed where; a derived class writes it in `close`."""

    voltages: ClassVar[tuple[str, ...]] = ("v_re", "v_im")

    def __init__(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint,
    ) -> None:
        self.builder = builder
        self.net = network
        self.base = base
        self.n_steps = builder.n_steps
        index = NodeIndex.of(feeder)
        place = {node: k for k, node in enumerate(point.nodes)}
        self._v0 = point.v_pu[[place[node] for node in network.nodes]]
        self._beside = point.beside
        self._feeder, self._index = feeder, index
        self._own = np.array([index.position[node] for node in network.nodes], dtype=np.int64)
        self._names = tuple(f"{bus}.{c}" for bus, c in network.nodes)
        self._neutral = neutral = np.abs(self._v0).max(axis=1) < NEUTRAL_PU
        self._live = np.flatnonzero(~neutral)
        low = np.array([feeder.bus[bus].v_min_pu for bus, _ in network.nodes], dtype=float)
        high = np.array([feeder.bus[bus].v_max_pu for bus, _ in network.nodes], dtype=float)
        self._v_low, self._v_high = np.where(neutral, 0.0, low), np.where(neutral, np.inf, high)
        self._powers: list[tuple[Ports, Affine, Affine]] = []
        #: name, place among the powers: what has no return by ground
        self._without_return: list[tuple[str, int]] = []
        self._linear: list[tuple[Ports, Affine, Affine]] = []
        self._shunts: list[tuple[Ports, ComplexArray]] = []
        self._squares: list[tuple[str, tuple[str, ...], Ports, Affine, tuple[IntArray, IntArray] | None]] = []
        self._feeds: list[Feed] = []
        self._loss_weights: list[Affine] = []
        self._assumed: list[Assumed] = []
        self._all_squares: Affine | None = None
        self._unbalance_weights: list[Affine] = []
        self._asked: list[tuple[IntArray, Complex]] = []
        self._taps: list[Tap] = []
        self._susceptances: list[tuple[Affine, Affine, Affine]] = []

    # -- ports ----------------------------------------------------------------------------------------------------

    def node(self, bus: str, conductor: int) -> int:
        """See `NetworkModel.node`; neutrals are nodes."""
        return -1 if conductor == 0 else self.net.position[bus, conductor]

    def inject(self, ports: Ports, p: Affine, q: Affine) -> None:
        """See `NetworkModel.inject`."""
        self._powers.append((ports, p, q))

    def inject_without_return(self, name: str, ports: Ports, p: Affine, q: Affine) -> None:
        """See `NetworkModel.inject_without_return`; what is held is decided in `close`."""
        self._without_return.append((name, len(self._powers)))
        self.inject(ports, p, q)

    def inject_at(self, ports: Ports, exponent: float, p: Affine, q: Affine) -> None:
        """See `NetworkModel.inject_at`; what follows ``|U|^2`` is a current linear in U: ``I = (p - jq) U``."""
        if exponent == 2.0:
            self._linear.append((ports, p, q))
        else:
            super().inject_at(ports, exponent, p, q)

    def shunt(self, ports: Ports, g: FloatArray, b: FloatArray) -> None:
        """See `NetworkModel.shunt`: part of the nodal matrix."""
        self._shunts.append((ports, np.asarray(g + 1j * b, dtype=complex).reshape(-1)))

    def _bent_power(
        self, component: str, names: Sequence[str], ports: Ports, w: Affine, exponent: FloatArray
    ) -> Affine:
        """See `PointModel._bent_power`: a curve, exact."""
        return self._curve(component, "v_power", names, w, Power(0.5 * exponent.reshape(-1, 1)))

    #: see `NetworkModel.writes_curves` and `NetworkModel.reads_curves`
    writes_curves = reads_curves = True

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
        """See `NetworkModel.inject_curve`."""
        names = port_names(self.net, ports)
        cells = [f"{names[k]} @{t}" for k, t in zip(elements.tolist(), steps.tolist(), strict=True)]
        v = np.broadcast_to(self.reference_v(ports), (len(ports), self.n_steps))
        component, w = self._squares_from(cells, v[elements, steps].reshape(-1, 1), at=(elements, steps), within=within)
        self._squares.append((component, tuple(cells), ports, w, (elements, steps)))
        y = self._curve(component, "law", cells, w, curve, at=(elements, steps))
        place = (len(ports), self.n_steps, elements, steps)
        self.inject(ports, y.times_parameter(p).put(*place), y.times_parameter(q).put(*place))

    def inject_susceptance(self, ports: Ports, b: Affine, b_0: FloatArray) -> Affine:
        """See `NetworkModel.inject_susceptance`: the bilinear row ``q = b w`` with ``w = |U|^2``, exact."""
        component, names, w = self._squared(ports)
        q = susceptance_power(self.builder, component, names, b, w, self.base.total_kva)
        self._susceptances.append((q, b, w))
        self.inject(ports, Affine.zeros(*q.shape), q)
        return q

    def curve_of_v(self, ports: Ports, curve: Curve) -> Affine:
        """See `NetworkModel.curve_of_v`: a variable ``y = phi(w)``, exact."""
        component, names, w = self._squared(ports)
        return self._curve(component, "curve", names, w, curve)

    def _squared(self, ports: Ports) -> tuple[str, tuple[str, ...], Affine]:
        """See `PointModel._squared`: new variables."""
        names = port_names(self.net, ports)
        v = np.array(np.broadcast_to(self.reference_v(ports), (len(ports), self.n_steps)))
        component, w = self._squares_from(names, v)
        self._squares.append((component, names, ports, w, None))
        return component, names, w

    def _squares_from(
        self,
        names: Sequence[str],
        v: FloatArray,
        *,
        at: tuple[IntArray, IntArray] | None = None,
        within: tuple[FloatArray, FloatArray] | None = None,
    ) -> tuple[str, Affine]:
        """New variables w = |U|^2 that start at v^2, shape (n, 1 or T): component and w; `close` ties them.

        A voltage is kept above a hundredth of a pu, as no schedule is there and curves are steep. Between a neutral
        conductor and ground schedules are there: a converter may even the phases out.
        """
        component, start = self._component(), v**2
        least = np.where(start < NEUTRAL_PU**2, np.maximum(1e-6 * start, LEAST_SQ), 1e-4)
        w = self.builder.variable(
            component,
            "vmag_sq",
            names,
            unit="pu^2",
            lower=least if within is None else np.maximum(within[0].reshape(-1, 1) ** 2, least),
            upper=np.inf if within is None else (within[1] ** 2).reshape(-1, 1),
            scale=start,
            start=start,
            n_steps=v.shape[1],
            limit=within is not None,  # so that an infeasibility can name it
            at=at,
        )
        return component, w

    def _curve(
        self,
        component: str,
        quantity: str,
        names: Sequence[str],
        w: Affine,
        curve: Curve,
        *,
        at: tuple[IntArray, IntArray] | None = None,
    ) -> Affine:
        """New variables ``y = phi(w)``."""
        start = curve.value(self.builder.at_start(w))
        y = self.builder.variable(
            component,
            quantity,
            names,
            unit="pu",
            start=start,
            scale=np.maximum(np.abs(start), 0.1),
            n_steps=w.n_steps,
            limit=False,
            at=at,
        )
        self.builder.curve(component, quantity, names, y, w, curve, at=at)
        return y

    def assume_v(
        self, ports: Ports, low: FloatArray, high: FloatArray, *, beside: tuple[FloatArray, FloatArray] | None = None
    ) -> None:
        """See `NetworkModel.assume_v`."""
        shape = (len(ports), self.n_steps)
        known = None if beside is None else (beside[0], np.broadcast_to(beside[1], shape), self._most_across(ports))
        self._assumed.append((ports, np.broadcast_to(low, shape), np.broadcast_to(high, shape), known))

    def _most_across(self, ports: Ports) -> FloatArray:
        """Highest |V| that the limits of buses allow across ports, pu, shape (ports, 1); of limits to ground between
        phases, what they allow at 120 degrees."""
        a, b = self._v_high[ports.a], self._v_high[ports.b]
        between = [np.sqrt(3.0) * self._feeder.bus[self.net.nodes[k][0]].vpp_max_pu for k in ports.a.tolist()]
        between = np.minimum(between, np.sqrt(a**2 + b**2 + a * b))
        buses = [self._feeder.bus[self.net.nodes[k][0]] for k in ports.a.tolist()]
        own = np.array([bus.vpn_max_pu for bus in buses])
        # a limit to the neutral is one to ground where the bus has no neutral conductor
        bare = np.array([NEUTRAL not in bus.conductors for bus in buses], dtype=bool)
        to_ground = np.where(bare, np.minimum(a, own), a)
        to_neutral = np.where(np.isfinite(own), own, a)
        other = [self.net.nodes[k][1] if k >= 0 else 0 for k in ports.b.tolist()]
        neutral = (np.array(other, dtype=np.int64) == NEUTRAL) | ((ports.b >= 0) & self._neutral[ports.b])
        return np.where(ports.b < 0, to_ground, np.where(neutral, to_neutral, between)).reshape(-1, 1)

    def beside_jumps(self, ports: Ports) -> tuple[FloatArray, FloatArray]:
        """See `NetworkModel.beside_jumps`."""
        if not self._beside:
            return super().beside_jumps(ports)
        names, none = port_names(self.net, ports), np.zeros(self.n_steps)
        lowest = np.array([self._beside.above.get(name, none) for name in names])
        return lowest, np.array([self._beside.below.get(name, none + np.inf) for name in names])

    def declines_ratio(self, transformer: str, winding: int) -> str:
        """See `NetworkModel.declines_ratio`."""
        return declines_ratio(self._feeder, self.net, transformer, winding)

    def ratio(self, transformer: str, winding: int, tap: Affine) -> None:
        """See `NetworkModel.ratio`: internal nodes and bilinear rows, see `lateral.formulations.ratios`."""
        self._taps.append(Tap(transformer, winding - 1, tap))

    def node_vmag_sq(self) -> tuple[Sequence[str], Affine]:
        """See `NetworkModel.node_vmag_sq`: variables, tied to the voltages in `close`."""
        nodes = self._live
        names = [self._names[k] for k in nodes]
        if self._all_squares is None:
            start = np.broadcast_to(np.abs(self._v0[nodes]) ** 2, (len(nodes), self.n_steps))
            self._all_squares = self.builder.variable("node", "vmag_sq", names, unit="pu^2", start=start, limit=False)
        return names, self._all_squares

    def feed(
        self, name: str, nodes: IntArray, e_sq: Affine, angle: FloatArray, z: ComplexArray
    ) -> tuple[Affine, Affine]:
        """See `NetworkModel.feed`."""
        elements = tuple(f"{name}.{self.net.nodes[i][1]}" for i in nodes)
        p = self.builder.variable("feed", "p", elements, unit="kW", to_unit=self.base.total_kva, limit=False)
        q = self.builder.variable("feed", "q", elements, unit="kvar", to_unit=self.base.total_kva, limit=False)
        self._feeds.append(Feed(name, elements, nodes, p, q, e_sq, angle, z))
        return p, q

    def feed_at(self, name: str, nodes: IntArray, *given: Affine) -> tuple[Affine, Affine]:
        """See `NetworkModel.feed_at`."""
        v_re, v_im = given
        n = len(nodes)
        nothing = Affine.zeros(n, self.n_steps)
        p, q = self.feed(name, nodes, nothing, np.zeros(n), np.zeros((n, n), dtype=complex))
        self._feeds[-1] = replace(self._feeds[-1], given=Complex(v_re, v_im))
        return p, q

    def node_voltage(self, nodes: IntArray) -> tuple[Affine, Affine]:
        """See `NetworkModel.node_voltage`: variables, tied to the voltages in `close`."""
        names = [self._names[k] for k in nodes]
        start = np.broadcast_to(self._v0[nodes], (len(nodes), self.n_steps))
        own = Complex(
            *(
                self.builder.variable("node", x, names, unit="pu", start=np.asarray(values), limit=False)
                for x, values in (("v_re", start.real), ("v_im", start.imag))
            )
        )
        self._asked.append((nodes, own))
        return own.re, own.im

    def add_loss_cost(self, weight: Affine) -> None:
        """See `NetworkModel.add_loss_cost`: ``weight_t V^H Re(Y) V``, convex."""
        self._loss_weights.append(weight)

    def add_unbalance_cost(self, weight: Affine) -> None:
        """See `NetworkModel.add_unbalance_cost`: ``|V_2|^2``, convex."""
        self._unbalance_weights.append(weight)

    @property
    def neglects_losses(self) -> bool:
        """False: losses are what flows in and does not flow out."""
        return False


def summed(parts: list[tuple[Ports, Affine, Affine]], n_steps: int) -> tuple[Ports, Affine, Affine]:
    """Ports, each once, with everything that is injected there; (b, a) is the port (a, b)."""
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Ports(none, none), Affine.zeros(0, n_steps), Affine.zeros(0, n_steps)
    out, place = unique_ports([ports for ports, *_ in parts])
    each = np.arange(len(place))
    p, q = stack([part[1] for part in parts]), stack([part[2] for part in parts])
    ones = np.ones(len(place))
    return out, p.map_terms(len(out), place, each, ones), q.map_terms(len(out), place, each, ones)


__all__ = ["Feed", "RectangularPorts", "summed"]
