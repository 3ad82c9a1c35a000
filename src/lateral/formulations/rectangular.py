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
from typing import ClassVar

import numpy as np
from scipy import sparse

from lateral.errors import Fault
from lateral.formulations.base import Formulation, OperatingPoint
from lateral.formulations.phasors import Complex, Kept, LegFlows, Through, entries, incidence
from lateral.formulations.point_model import port_names
from lateral.formulations.ratios import Ratios
from lateral.formulations.rectangular_limits import Limits
from lateral.formulations.rectangular_ports import Feed, RectangularPorts, summed
from lateral.formulations.rectangular_short import (
    floating,
    short_currents,
    short_legs,
    short_losses,
    with_islands,
    without_series,
)
from lateral.formulations.rectangular_slopes import Slope, of_losses, of_squares
from lateral.formulations.rectangular_values import BalanceRows, Values
from lateral.network.admittance import nodal_matrix_pu
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.kron import CHAIN, MOST_NEIGHBOURS, ReducedNetwork, reduce_nodal
from lateral.network.schema import FloatArray, IntArray
from lateral.program import Affine, Block, ProgramBuilder
from lateral.program.ports import Ports
from lateral.units import Base


class RectangularModel(RectangularPorts):
    """Variables and rows that the family shares, written in `close`, when it is known which nodes are used."""

    def __init__(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint,
    ) -> None:
        super().__init__(builder, feeder, network, base, point)
        self._n_true = len(self._names)
        self._short = np.zeros(0, dtype=np.int64)
        self._short_current: Complex | None = None
        #: what was written, for leaves that evaluate it: ports with their power, sources with current, voltage, square
        self._port_rows: tuple[Ports, Affine, Affine, Complex] | None = None
        self._feed_rows: list[tuple[Feed, Complex, Complex | None, Affine | None]] = []
        #: currents of the decided taps, at the terminals and into the internal nodes
        self._ratio_rows: list[Complex] = []
        #: current of each held voltage to ground
        self._common: list[Complex] = []
        self._slopes: list[Slope] = []

    # -- close ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write voltages, currents, balances, powers and limits."""
        self._ratios = Ratios.of(self._feeder, self.net, self.base, self._taps)
        self._names = (*self._names, *self._ratios.names)
        self._v0 = self._ratios.start(self._v0)
        ports, p, q = summed(self._powers, self.n_steps)
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
            slopes=self._slopes,
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

    def _source(self, feed: Feed, total: float) -> Complex:
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

    def _source_power(self, feed: Feed, v: Complex, current: Complex, total: float) -> None:
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
            block = self.builder.quadratic("node", "vmag_sq", names, pairs, -self._all_squares, 0.0, 0.0, unit="pu^2")
            ports = Ports(self._live, np.full(len(self._live), -1))
            self._slopes.append(of_squares(incidence(ports, len(self._names)), block))

    def _losses(self) -> None:
        """The cost of losses ``V_r' G V_r + V_i' G V_i + V_i' (B - B') V_r`` with S = G + jB over the kept nodes."""
        self._slopes += [of_losses(self._wires, weight) for weight in self._loss_weights]
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
            slopes=self._slopes,
        ).write()


class RectangularFormulation(Formulation):
    """What the formulations of the family share; a leaf names itself and its model."""

    balanced_only: ClassVar[bool] = False
    radial_only: ClassVar[bool] = False
    lazy: ClassVar[bool] = True
    convex: ClassVar[bool] = False
    point: ClassVar[str] = "loaded"
    voltages: ClassVar[tuple[str, ...]] = RectangularModel.voltages
    #: the model that devices meet
    model: ClassVar[type[RectangularModel]]

    def declines(self, feeder: Feeder, network: RadialNetwork) -> tuple[Fault, ...]:
        """Nothing: any feeder, radial or meshed."""
        return ()


__all__ = ["Complex", "RectangularFormulation", "RectangularModel"]
