"""The rectangular family: exact for any feeder. The network is linear, power is bilinear at the ports only.

Voltages V and currents I in rectangular coordinates, per unit, with the nodal matrix Y of `lateral.network.admittance`
(O'Neill et al. 2012, "The IV formulation and linear approximations of the AC optimal power flow problem"; Geth and
Ergun 2021 for unbalanced feeders with any connection)::

    Y V = sum over ports of M' I + I_source                  current balance at every node (linear)
    U = M V                                                  voltage across a port: wye M = (1), delta M = (1, -1)
    p = Re(U conj(I)) = U_r I_r + U_i I_i                    power at a port (bilinear)
    q = Im(U conj(I)) = U_i I_r - U_r I_i
    v_min^2 <= V_r^2 + V_i^2 <= v_max^2                      limits: phase to ground
    E = V + Z I_source,   |E|^2 = e^2,   E_i cos a = E_r sin a           a source behind an impedance

Constant impedances are part of Y (capacitors) or linear in U (loads); a power that follows ``|U|^e`` is exact, by the
curve ``y = w^(e/2)`` of ``w = |U|^2``. Nodes at which nothing is connected are eliminated first, exactly
(`lateral.network.kron`); their voltages are ``T V``, and a limit there is written where the operating point comes near
to it, or once it was violated. Nothing of the steady state at one frequency is neglected. Non-convex: a solution is a
local optimum, found from the solved power flow of the day without control.

The leaves differ in the current of a port to ground: a variable (current-voltage), or what the nodal matrix says that
it is, ``(Y V)_i`` (bus injection).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy import sparse

from lateral.errors import Fault
from lateral.formulations.base import Formulation, OperatingPoint
from lateral.formulations.phasors import Complex, Kept, LegFlows, Through, entries, incidence
from lateral.formulations.point_model import NEUTRAL, PointModel, port_names, susceptance_power
from lateral.formulations.ratios import Ratios, Tap, declines_ratio
from lateral.formulations.rectangular_limits import Limits
from lateral.formulations.rectangular_short import (
    floating,
    short_currents,
    short_legs,
    short_losses,
    with_islands,
    without_series,
)
from lateral.formulations.rectangular_values import NEUTRAL_PU, Assumed, BalanceRows, Values
from lateral.network.admittance import NodeIndex, nodal_matrix_pu
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.kron import CHAIN, MOST_NEIGHBOURS, ReducedNetwork, reduce_nodal
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, Block, Curve, Power, ProgramBuilder, stack
from lateral.program.ports import Ports, unique_ports
from lateral.units import Base


@dataclass(frozen=True, slots=True, eq=False)
class _Feed:
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


class RectangularModel(PointModel):
    """Variables and rows that the family shares, written in `close`, when it is known which nodes are used."""

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
        low = np.array([feeder.bus[bus].v_min_pu for bus, _ in network.nodes])
        high = np.array([feeder.bus[bus].v_max_pu for bus, _ in network.nodes])
        self._v_low, self._v_high = np.where(neutral, 0.0, low), np.where(neutral, np.inf, high)
        self._powers: list[tuple[Ports, Affine, Affine]] = []
        #: name, place among the powers: what has no return by ground
        self._without_return: list[tuple[str, int]] = []
        #: current of each held voltage to ground
        self._common: list[Complex] = []
        self._linear: list[tuple[Ports, Affine, Affine]] = []
        self._shunts: list[tuple[Ports, ComplexArray]] = []
        self._squares: list[tuple[str, tuple[str, ...], Ports, Affine, tuple[IntArray, IntArray] | None]] = []
        self._feeds: list[_Feed] = []
        self._loss_weights: list[Affine] = []
        self._assumed: list[Assumed] = []
        self._all_squares: Affine | None = None
        self._unbalance_weights: list[Affine] = []
        self._asked: list[tuple[IntArray, Complex]] = []
        self._short = np.zeros(0, dtype=np.int64)
        self._short_current: Complex | None = None
        #: what was written, for leaves that evaluate it: ports with their power, sources with current, voltage, square
        self._port_rows: tuple[Ports, Affine, Affine, Complex] | None = None
        self._feed_rows: list[tuple[_Feed, Complex, Complex | None, Affine | None]] = []
        self._taps: list[Tap] = []
        #: currents of the decided taps, at the terminals and into the internal nodes
        self._ratio_rows: list[Complex] = []
        self._susceptances: list[tuple[Affine, Affine, Affine]] = []
        self._n_true = len(self._names)

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
        """New variables w = |U|^2 that start at v^2, shape (n, 1 or T): component and w; `close` ties them."""
        component, start = self._component(), v**2
        w = self.builder.variable(
            component,
            "vmag_sq",
            names,
            unit="pu^2",
            lower=1e-4 if within is None else np.maximum(within[0] ** 2, 1e-4).reshape(-1, 1),
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
        self._feeds.append(_Feed(name, elements, nodes, p, q, e_sq, angle, z))
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

    # -- close ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write voltages, currents, balances, powers and limits."""
        self._ratios = Ratios.of(self._feeder, self.net, self.base, self._taps)
        self._names = (*self._names, *self._ratios.names)
        self._v0 = self._ratios.start(self._v0)
        ports, p, q = _summed(self._powers, self.n_steps)
        self._reduced = self._reduce(ports)
        kept = self._reduced.kept
        self._v = self._voltages(kept)
        self._kept = Kept(self._v, kept, len(self._names))
        total = self._scale_of_sources(p, q)
        balance = self._v.map(len(kept), *entries(self._reduced.s))
        balance = self._with_linear(balance)
        if len(self._short):
            short = short_currents(self.builder, self.net, self._short, self._kept, self._v0, total)
            self._short_current = short[0]
            balance = balance + short[1]
        for feed in self._feeds:
            balance = balance - self._source(feed, total)
        if len(self._ratios):
            balance = balance + self._ratio_currents(total)
        balance = self._with_common_mode(balance, total)
        self._ports(ports, p, q, balance, total)
        self._read_squares()
        for nodes, own in self._asked:
            apart, names = own - self._node_voltage(nodes), [self._names[k] for k in nodes]
            for quantity, row in (("v_re", apart.re), ("v_im", apart.im)):
                self.builder.equal("node", quantity, names, row, unit="pu")
        n, legs = self._n_true, LegFlows.of(self.net)
        self._limits = Limits(
            builder=self.builder,
            feeder=self._feeder,
            net=self.net,
            base=self.base,
            names=self._names[:n],
            v=self._v,
            reduced=self._reduced,
            v0=self._v0,
            v_low=self._v_low,
            v_high=self._v_high,
            fed=np.concatenate([feed.nodes for feed in self._feeds]),
            legs=legs,
            through=Through.of(self.net, legs).with_other(self._ratios.through),
            short=self._short,
            short_current=self._short_current,
        )
        self._limits.write()
        for weight in self._unbalance_weights:
            self._limits.unbalance_cost(weight)
        self._losses()
        self._derive()

    def _reduce(self, ports: Ports) -> ReducedNetwork:
        """The network over the nodes at which something is connected."""
        n = len(self._names)
        groups = [ports, *(at for at, *_ in self._linear), *(at for _, _, at, *_ in self._squares)]
        used = {int(k) for at in groups for k in (*at.a, *at.b) if k >= 0}
        used |= {int(k) for feed in self._feeds for k in feed.nodes}
        if self.neglects_curvature:  # costs bend with the losses of a stiff branch only where it is joined with another
            used |= {k for k, (bus, _) in enumerate(self.net.nodes) if bus in self.builder.borders}
        self._short = short_legs(self.net, used)
        used |= set(self.net.to_node[self._short].tolist())
        ratios = self._ratios
        used |= {int(k) for k in (*ratios.ports.a, *ratios.ports.b) if k >= 0} | set(range(self._n_true, n))
        y = self._wires = self._matrix_without({self.net.branch_names[b] for b in self.net.branch[self._short]})
        for at, value in self._shunts:
            m = incidence(at, n)
            y = y + m.T @ sparse.diags(value) @ m
        most = CHAIN if self._at_border else MOST_NEIGHBOURS
        return reduce_nodal(y.tocsc(), (*self.net.nodes, *ratios.nodes), used, most=most)

    @property
    def _at_border(self) -> bool:
        """Whether this is an area of a larger feeder: it may eliminate only what the whole surely eliminates too, so
        that it knows the voltage and the dual of every node that the whole keeps."""
        return bool(self._asked) or any(feed.given is not None for feed in self._feeds)

    def _matrix_without(self, labels: set[str]) -> sparse.csc_matrix:
        """The nodal matrix without the series part of some lines and switches; their charging stays."""
        feeder = self._ratios.without(self._feeder)
        out = without_series(feeder, labels)
        own = nodal_matrix_pu(out, self._index, self.base).tocsr()[self._own][:, self._own]
        return self._ratios.widened(own).tocsc()

    def _voltages(self, kept: IntArray) -> Complex:
        names = [self._names[k] for k in kept]
        start = np.broadcast_to(self._v0[kept], (len(kept), self.n_steps))
        scale = np.maximum(np.abs(start), 0.05)

        def part(quantity: str, values: FloatArray) -> Affine:
            return self.builder.variable(
                "bus", quantity, names, unit="pu", start=np.asarray(values), scale=scale, limit=False
            )

        return Complex(part("v_re", start.real), part("v_im", start.imag))

    def _node_voltage(self, nodes: IntArray) -> Complex:
        """Voltages of any nodes, as arrays over the variables."""
        return self._v.map(len(nodes), *entries(self._reduced.t[nodes]))

    def _with_linear(self, balance: Complex) -> Complex:
        """Constant impedances: ``I = (p - jq) U``, with p and q numbers or data."""
        for ports, p, q in self._linear:
            u = self._kept.across(ports)
            re = u.re.times_parameter(p) + u.im.times_parameter(q)
            im = u.im.times_parameter(p) - u.re.times_parameter(q)
            balance = balance - self._kept.to_nodes(ports, Complex(re, im))
        return balance

    def _ratio_currents(self, total: float) -> Complex:
        """Currents of the decided taps, leaving the terminals of their windings and entering the internal nodes."""
        ratios, kept, n = self._ratios, self._reduced.kept, self._n_true
        inner = Ports(np.arange(n, n + len(ratios)), np.full(len(ratios), -1))
        into = self._reduced.s[np.searchsorted(kept, inner.a)] @ self._v0[kept]
        j, i = ratios.couple(self.builder, self._kept.across(ratios.ports), self._kept.across(inner), into, total)
        self._ratio_rows = [j, i]
        return self._kept.to_nodes(ratios.ports, j) - self._kept.to_nodes(inner, i)

    def _with_common_mode(self, balance: Complex, total: float) -> Complex:
        """The balances with the voltage to ground held where `inject_without_return` was asked for, in every island
        that nothing but that ties to ground::

            mean V = mean V_0,     a current i from each of the conductors to ground

        The voltage to ground of an island is one, and so are the rows: what other injections there leave over reaches
        these conductors through the wires. Where all is in agreement i is zero, and so is the dual of the rows, for no
        power depends on what they hold; the currents' having no price makes the duals of the conductors' balances add
        up to zero.
        """
        builder, asked = self.builder, {k for _, k in self._without_return}
        for island in self._islands([at for k, (at, *_) in enumerate(self._powers) if k not in asked]) if asked else ():
            inside = [(x, at) for x, k in self._without_return for at in [self._powers[k][0]] if at.a[0] in island]
            if not inside:
                continue
            name, ports = inside[0]
            first, each = np.zeros(len(ports), dtype=np.int64), np.arange(len(ports))
            mean = self._kept.across(ports).map(1, first, each, np.full(len(ports), 1.0 / len(ports)))
            v_0 = np.broadcast_to(self._v0[ports.a].mean(axis=0, keepdims=True), mean.re.shape)
            for quantity, row, held in (("v_re", mean.re, v_0.real), ("v_im", mean.im, v_0.imag)):
                builder.equal("common", quantity, [name], row, held, unit="pu")
            current = Complex(
                *(builder.variable("common", x, [name], unit="pu", scale=total, limit=False) for x in ("i_re", "i_im"))
            )
            self._common.append(current)
            balance = balance + self._kept.to_nodes(ports, current.take(first))
        return balance

    def _islands(self, powers: Sequence[Ports]) -> list[IntArray]:
        """Sets of nodes that nothing but antifloat shunts ties to ground, where these are the ports with powers."""
        others = [*(p for p, *_ in self._linear), *(p for p, _ in self._shunts)]
        fed = np.concatenate([feed.nodes for feed in self._feeds])
        return floating(self.net, self._wires, [*powers, self._ratios.ports, *others], fed)

    def _scale_of_sources(self, p: Affine, q: Affine) -> float:
        """Typical power of a source's conductor, pu."""
        builder = self.builder
        size = builder.magnitude(p, variables=False) + builder.magnitude(q, variables=False)
        for _, p_z, q_z in self._linear:
            size = np.concatenate([size, builder.magnitude(p_z) + builder.magnitude(q_z)])
        count = max(sum(len(feed.nodes) for feed in self._feeds), 1)
        total = max(float(size.sum(axis=0).max(initial=0.0)) / count, 1e-4)
        for name in ("feed.p", "feed.q"):
            builder.rescale(name, total)
        return total

    def _source(self, feed: _Feed, total: float) -> Complex:
        """Voltage behind the impedance, and the current that a source gives, at the kept nodes."""
        builder, n = self.builder, len(feed.nodes)
        ports = Ports(feed.nodes, np.full(n, -1))
        v = self._kept.across(ports)
        size = np.sqrt(np.maximum(builder.at_start(feed.e_sq), 0.0))
        size = np.where(size > 0.0, size, np.abs(self._v0[feed.nodes]))
        e0 = size * np.exp(1j * feed.angle.reshape(-1, 1))
        stiff = not np.any(feed.z)
        v0 = np.broadcast_to(self._v0[feed.nodes], e0.shape)
        s0 = np.full(e0.shape, total + 0j)
        i0 = np.asarray(np.conj(s0 / v0) if stiff else np.linalg.solve(feed.z, e0 - v0), dtype=complex)

        def variable(quantity: str, values: FloatArray, unit: str, scale: float) -> Affine:
            return builder.variable(
                "feed", quantity, feed.elements, unit=unit, start=np.asarray(values), scale=scale, limit=False
            )

        current = Complex(variable("i_re", i0.real, "pu", total), variable("i_im", i0.imag, "pu", total))
        e = v
        if feed.given is not None:
            apart = v - feed.given
            for quantity, part in (("v_re", apart.re), ("v_im", apart.im)):
                builder.equal("feed", quantity, feed.elements, part, unit="pu")
            self._feed_rows.append((feed, current, None, None))
            self._source_power(feed, v, current, total)
            return self._kept.to_nodes(ports, current)
        if not stiff:
            e = Complex(variable("e_re", e0.real, "pu", 1.0), variable("e_im", e0.imag, "pu", 1.0))
            row, col = np.divmod(np.arange(n * n), n)
            drop = current.map(n, row, col, feed.z.reshape(-1))
            for quantity, left in (("drop_re", e.re - v.re - drop.re), ("drop_im", e.im - v.im - drop.im)):
                builder.equal("feed", quantity, feed.elements, left)
        cos, sin = np.cos(feed.angle).reshape(-1, 1), np.sin(feed.angle).reshape(-1, 1)
        builder.equal("feed", "angle", feed.elements, e.im * cos - e.re * sin)
        square = variable("e_sq", size**2, "pu^2", 1.0)
        self._feed_rows.append((feed, current, None if stiff else e, square))
        builder.equal("feed", "voltage", feed.elements, square, feed.e_sq)
        builder.quadratic("feed", "e_sq", feed.elements, [(e.re, e.re), (e.im, e.im)], -square, 0.0, 0.0, unit="pu^2")
        self._source_power(feed, v, current, total)
        return self._kept.to_nodes(ports, current)

    def _source_power(self, feed: _Feed, v: Complex, current: Complex, total: float) -> None:
        """What a source gives at its nodes."""
        for quantity, pairs, power in (
            ("p_power", [(v.re, current.re), (v.im, current.im)], feed.p),
            ("q_power", [(v.im, current.re), (v.re, -current.im)], feed.q),
        ):
            self.builder.quadratic("feed", quantity, feed.elements, pairs, -power, 0.0, 0.0, unit="kW", scale=total)

    def _ports(self, ports: Ports, p: Affine, q: Affine, balance: Complex, total: float) -> None:
        """Current balance of the nodes, and the power of every port."""
        builder, kept = self.builder, self._reduced.kept
        names = [self._names[k] for k in kept]
        largest = np.maximum(builder.magnitude(p).max(axis=1), builder.magnitude(q).max(axis=1))
        size = np.maximum(largest.reshape(-1, 1), 1e-3 * total)
        u0 = np.broadcast_to(self._u0(ports), p.shape)
        i0 = np.conj((builder.at_start(p) + 1j * builder.at_start(q)) / u0)
        # where a constant impedance follows the data the balance is no factor of a product: the port keeps its current
        with_data = np.unique(
            np.concatenate([np.zeros(0, dtype=np.int64), *(k for at, *_ in self._linear for k in (at.a, at.b))])
        )
        own = np.union1d(self._own_currents(ports), np.flatnonzero(np.isin(ports.a, with_data)))
        u = self._kept.across(ports)
        labels = port_names(self.net, ports)
        if len(own):
            some = Ports(ports.a[own], ports.b[own])

            def variable(quantity: str, values: FloatArray) -> Affine:
                return builder.variable(
                    "port", quantity, [labels[k] for k in own], unit="pu", start=values, scale=size[own], limit=False
                )

            current = Complex(variable("i_re", i0[own].real), variable("i_im", i0[own].imag))
            balance = balance - self._kept.to_nodes(some, current)
            self._port_rows = (some, p.take(own), q.take(own), current)
            self._powers_of([labels[k] for k in own], u.take(own), current, p.take(own), q.take(own), size[own])
        rest = np.setdiff1d(np.arange(len(ports)), own)
        place = np.full(len(self._names), -1)
        place[kept] = np.arange(len(kept))
        at = place[ports.a[rest]]
        powers: list[Block] = []
        if len(rest):
            powers = self._powers_of(
                [labels[k] for k in rest], u.take(rest), balance.take(at), p.take(rest), q.take(rest), size[rest]
            )
        free = np.setdiff1d(np.arange(len(kept)), at)
        scale = np.full((len(kept), 1), total)
        balance, islands = with_islands(balance, self._islands([ports]), self._wires, self._reduced, self._v, scale)
        named = [names[k] for k in free]
        balances = [
            builder.equal("bus", quantity, named, row.take(free), unit="pu", scale=scale[free])
            for quantity, row in (("i_re", balance.re), ("i_im", balance.im))
        ]
        self._balance = BalanceRows(free, at, [*balances, *powers], islands)
        for members in islands:
            for block in balances:
                builder.sum_rows(block, np.searchsorted(free, members))

    def _powers_of(
        self, names: Sequence[str], u: Complex, i: Complex, p: Affine, q: Affine, size: FloatArray
    ) -> list[Block]:
        """``p = Re(U conj(I))`` and ``q = Im(U conj(I))``."""
        return [
            self.builder.quadratic("port", quantity, names, pairs, -power, 0.0, 0.0, unit="kW", scale=size)
            for quantity, pairs, power in (
                ("p", [(u.re, i.re), (u.im, i.im)], p),
                ("q", [(u.im, i.re), (u.re, -i.im)], q),
            )
        ]

    @abstractmethod
    def _own_currents(self, ports: Ports) -> IntArray:
        """The ports whose current is a variable; those of the others are what the nodal matrix says."""

    def _read_squares(self) -> None:
        """``w = |U|^2`` wherever a squared voltage was asked for."""
        for component, names, ports, w, cells in self._squares:
            u = self._kept.across(ports)
            if cells is not None:
                u = Complex(u.re.pick(*cells), u.im.pick(*cells))
            pairs = [(u.re, u.re), (u.im, u.im)]
            self.builder.quadratic(component, "vmag_sq", names, pairs, -w, 0.0, 0.0, unit="pu^2", at=cells)
        if self._all_squares is not None:
            v = self._node_voltage(self._live)
            pairs = [(v.re, v.re), (v.im, v.im)]
            names = tuple(self._names[k] for k in self._live)
            self.builder.quadratic("node", "vmag_sq", names, pairs, -self._all_squares, 0.0, 0.0, unit="pu^2")

    def _losses(self) -> None:
        """The cost of losses ``V_r' G V_r + V_i' G V_i + V_i' (B - B') V_r`` with S = G + jB over the kept nodes."""
        if not self._loss_weights:
            return
        loss = self._loss_matrix()
        row, col, value = entries(sparse.csr_matrix(loss.real))
        odd = self._not_reciprocal(loss)
        for weight in self._loss_weights:
            for v in (self._v.re, self._v.im):
                seen = v.map_terms(loss.shape[0], row, col, np.asarray(value.real))
                self.builder.minimise_products(v, seen, weight.take(np.zeros(v.n, dtype=np.int64)))
            if odd is not None:
                crossed = self._v.re.map_terms(loss.shape[0], *odd)
                self.builder.minimise_products(self._v.im, crossed, weight.take(np.zeros(crossed.n, dtype=np.int64)))
            if self._short_current is not None:
                short_losses(self.builder, self.net, self._short, self._short_current, weight)

    def _loss_matrix(self) -> sparse.csr_matrix:
        """The wires' matrix over the kept nodes: constant admittances of devices take no part in losses."""
        t = self._reduced.t
        return sparse.csr_matrix(t.conj().T @ self._wires @ t)

    def _not_reciprocal(self, loss: sparse.csr_matrix) -> tuple[IntArray, IntArray, FloatArray] | None:
        """``B - B'`` of the wires' matrix as triplets; None where all wires are reciprocal and it is rounding."""
        if all(wire.is_reciprocal for wire in self._feeder.admittances):
            return None
        b = loss.imag
        row, col, value = entries(sparse.csr_matrix(b - b.T))
        return row, col, np.asarray(value.real)

    def _derive(self) -> None:
        """Name what follows from the voltages, see `lateral.formulations.rectangular_values`."""
        Values(
            builder=self.builder,
            net=self.net,
            base=self.base,
            names=self._names[: self._n_true],
            v=self._v,
            reduced=self._reduced,
            ratios=self._ratios,
            wires=self._matrix_without(set()) if len(self._short) else self._wires,
            legs=self._limits.legs,
            three_phase=self._limits.three_phase,
            assumed=self._assumed,
            balance=self._balance,
        ).write()


def _summed(parts: list[tuple[Ports, Affine, Affine]], n_steps: int) -> tuple[Ports, Affine, Affine]:
    """Ports, each once, with everything that is injected there; (b, a) is the port (a, b)."""
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Ports(none, none), Affine.zeros(0, n_steps), Affine.zeros(0, n_steps)
    out, place = unique_ports([ports for ports, *_ in parts])
    each = np.arange(len(place))
    p, q = stack([part[1] for part in parts]), stack([part[2] for part in parts])
    ones = np.ones(len(place))
    return out, p.map_terms(len(out), place, each, ones), q.map_terms(len(out), place, each, ones)


class RectangularFormulation(Formulation):
    """What the formulations of the family share; a leaf names itself and its model."""

    balanced_only: ClassVar[bool] = False
    radial_only: ClassVar[bool] = False
    lazy: ClassVar[bool] = True
    point: ClassVar[str] = "loaded"
    voltages: ClassVar[tuple[str, ...]] = RectangularModel.voltages
    #: the model that devices meet
    model: ClassVar[type[RectangularModel]]

    def declines(self, feeder: Feeder, network: RadialNetwork) -> tuple[Fault, ...]:
        """Nothing: any feeder, radial or meshed."""
        return ()


__all__ = ["Complex", "RectangularFormulation", "RectangularModel"]
