"""The matrix family: convex relaxations of the unbalanced branch flow (Gan and Low 2014).

Per branch with sending nodes p, receiving nodes s, ideal part A and series impedance Z of `lateral.network.branches`,
with ``v = V V^H`` at a bus, ``X = V_p I^H`` and ``L = I I^H`` in a branch::

    v_s = A v_p A^H - A X Z^H - Z X^H A^H + Z L Z^H              voltages
    diag(A X - Z L)                                             power delivered to the receiving nodes, V_s I^H
    diag(X conj(A))                                             power taken from the sending nodes, I_p = A' I
    arriving + injected - diag(v Y^H) = taken by what leaves    balance at every node
    [ v_p  X ]
    [ X^H  L ]  psd,  of rank one when exact

Ports across two conductors (delta) have ``X_d = V I_d^H``, ``rho = I_d I_d^H`` (Zhao, Dall'Anese and Low 2017)::

    diag(M X_d) = p + jq at the ports,   diag(X_d M) at the nodes,   [ v X_d ; X_d^H rho ] psd
    rho <= |s|^2 (1/w_low + 1/w_high - w/(w_low w_high))        or |s|^2/w_low:  without it X_d would be free

Voltages between conductors are linear in v, so that impedances are exact. Another power of the voltage lies between the
curve and its chord over the voltages allowed: ``y <= w^(e/2)`` (``y^2 <= w`` for a constant current) and ``y`` above
the chord, the other way round for a convex one. Every row holds at every AC point inside of the limits, so that the
optimum is a lower bound. Matrices are written over what can occur (`lateral.formulations.matrix_ranges`).

A leaf says what of ``psd`` it keeps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from scipy import sparse

from lateral.errors import Fault
from lateral.formulations.base import Formulation, OperatingPoint
from lateral.formulations.matrix_borders import crossing_of, drawn_beyond, elsewhere, fed_by
from lateral.formulations.matrix_chains import Chains, chains_of
from lateral.formulations.matrix_loads import (
    BETWEEN,
    UNLIMITED,
    Band,
    Injection,
    power_between,
    product_between,
    summed,
)
from lateral.formulations.matrix_measures import derive_measures
from lateral.formulations.matrix_pool import Group, MatricesMaker
from lateral.formulations.matrix_ranges import NEGLIGIBLE_PU, Section, blocks_of, merged, ranges_of, sections_of
from lateral.formulations.matrix_rows import LEAST_KVA, Asked, Feed, Rows
from lateral.formulations.point_model import PointModel, port_names
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder, stack
from lateral.program.ports import Crossing, Ports
from lateral.units import Base

#: Voltage that no node without a limit goes beyond, as a share of the operating point: an interior-point method needs
#: some end where nothing costs anything, such as the common voltage behind an ungrounded winding.
UNBOUNDED = 1.5


class MatrixFlowModel(PointModel):
    """Variables and rows that the family shares, written in `close`, when it is known what is drawn where."""

    voltages: ClassVar[tuple[str, ...]] = ("v", "vv_re", "vv_im")

    def __init__(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint,
    ) -> None:
        self.builder, self.net, self.base, self.feeder = builder, network, base, feeder
        self.n_steps = builder.n_steps
        place = {node: k for k, node in enumerate(point.nodes)}
        self._v0 = point.v_pu[[place[node] for node in network.nodes]]
        self._grounded = frozenset(network.grounded)
        #: largest voltage of each neutral at the operating point, pu
        self._neutral = {f"{bus}.{c}": float(np.abs(point.v_pu[place[bus, c]]).max()) for bus, c in network.grounded}
        self._names = tuple(f"{bus}.{c}" for bus, c in network.nodes)
        low = np.array([feeder.bus[bus].v_min_pu for bus, _ in network.nodes], dtype=float)
        high = np.array([feeder.bus[bus].v_max_pu for bus, _ in network.nodes], dtype=float)
        # the voltage of a source is given, whatever the limits of its bus; another area keeps those of the bus it feeds
        given = [k for k in network.roots if network.nodes[k] not in point.kept]
        low[given], high[given] = 0.0, np.inf
        self.band = Band.of(feeder, network, self._v0, low, high, builder.beyond)
        low[network.roots], high[network.roots] = 0.0, np.inf
        start = np.abs(self._v0[:, :1]) ** 2
        self.v = builder.variable(
            "bus",
            "vmag_sq",
            self._names,
            unit="pu^2",
            lower=low.reshape(-1, 1) ** 2,
            upper=np.where(np.isfinite(high), high, UNBOUNDED * np.abs(self._v0).max(axis=1)).reshape(-1, 1) ** 2,
            start=start,
        )
        self._nodal: list[Injection] = []
        self._between: list[Injection] = []
        self._impedances: list[Injection] = []
        self._shunts: list[tuple[Ports, ComplexArray]] = []
        self._squares: list[tuple[str, tuple[str, ...], Ports, Affine]] = []
        self._feeds: list[Feed] = []
        self._asked: list[Asked] = []
        self._loss_weights: list[Affine] = []
        self._unbalance_weights: list[Affine] = []
        self._takes_sides = False
        #: largest current that another area draws, inf where there is none
        self._reach = np.full((network.n_nodes, self.n_steps), np.inf)
        for node, most in point.reach.items():
            self._reach[network.position[node]] = most
        #: what can occur at borders: what other areas said, and what they are to be told
        self._known, self._crossing = point.crossing, dict[str, Crossing]()

    # -- ports ----------------------------------------------------------------------------------------------------

    def node(self, bus: str, conductor: int) -> int:
        """See `NetworkModel.node`."""
        if conductor == 0 or (bus, conductor) in self._grounded:
            return -1
        return self.net.position[bus, conductor]

    def inject(self, ports: Ports, p: Affine, q: Affine) -> None:
        """See `NetworkModel.inject`."""
        i_max = self.band.current(self.builder, ports, p, q)
        one = np.minimum(ports.a, ports.b) < 0
        known = np.where(one[:, None], self._reach[np.maximum(ports.a, ports.b)], np.inf)
        self._inject(Injection(ports, p, q, np.where(np.isfinite(i_max), i_max, known)))

    def _inject(self, what: Injection) -> None:
        pair = (what.ports.a >= 0) & (what.ports.b >= 0)
        for own, into in ((np.flatnonzero(~pair), self._nodal), (np.flatnonzero(pair), self._between)):
            if len(own):
                into.append(what.take(own))

    def inject_at(self, ports: Ports, exponent: float, p: Affine, q: Affine) -> None:
        """See `NetworkModel.inject_at`; what follows ``|U|^2`` is linear in v: ``I = conj(s) U``."""
        i_max = self.band.current(self.builder, ports, p, q, exponent)
        pair = np.flatnonzero((ports.a >= 0) & (ports.b >= 0))
        rest = np.arange(len(ports))
        if exponent == 2.0 and len(pair):
            self._impedances.append(Injection(ports, p, q, i_max).take(pair))
            rest = np.setdiff1d(rest, pair)
        if len(rest):
            own = Ports(ports.a[rest], ports.b[rest])
            v = self.power_of_v(own, np.full(len(rest), exponent))
            p_own, q_own = (v.times_parameter(part.take(rest)) for part in (p, q))
            self._inject(Injection(own, p_own, q_own, i_max[rest]))

    def inject_susceptance(self, ports: Ports, b: Affine, b_0: FloatArray) -> Affine:
        """See `NetworkModel.inject_susceptance`: ``b |V|^2`` between the planes that bound a product."""
        component, names, w = self._squared(ports)
        low, high = self.band.squares(ports)
        q = product_between(self.builder, component, names, b, w, low, high)
        most = self.builder.magnitude(b, unbounded=np.inf) * np.sqrt(high)
        self._inject(Injection(ports, Affine.zeros(*q.shape), q, most))
        return q

    def shunt(self, ports: Ports, g: FloatArray, b: FloatArray) -> None:
        """See `NetworkModel.shunt`: ``s = -diag(v Y^H)``."""
        self._shunts.append((ports, np.asarray(g + 1j * b, dtype=complex).reshape(-1)))

    def _bent_power(
        self, component: str, names: Sequence[str], ports: Ports, w: Affine, exponent: FloatArray
    ) -> Affine:
        """See `PointModel._bent_power`: between the curve and its chord."""
        return power_between(self.builder, component, names, w, exponent, *self.band.squares(ports))

    def _squared(self, ports: Ports) -> tuple[str, tuple[str, ...], Affine]:
        """See `PointModel._squared`: the node's own, or a variable whose row is written in `close`."""
        component, names = self._component(), port_names(self.net, ports)
        pair = np.flatnonzero((ports.a >= 0) & (ports.b >= 0))
        if not len(pair):
            return component, names, self.v.take(np.maximum(ports.a, ports.b))
        some = Ports(ports.a[pair], ports.b[pair])
        start = np.abs(self._u0(some)) ** 2
        own = self.builder.variable(
            component,
            "vmag_sq",
            [names[k] for k in pair],
            unit="pu^2",
            lower=0.0,
            scale=start,
            start=start,
            limit=False,
        )
        self._squares.append((component, tuple(names[k] for k in pair), some, own))
        one = np.setdiff1d(np.arange(len(ports)), pair)
        w = own.map_terms(len(ports), pair, np.arange(len(pair)), np.ones(len(pair)))
        single = self.v.take(np.maximum(ports.a, ports.b)[one])
        return component, names, w + single.map_terms(len(ports), one, np.arange(len(one)), np.ones(len(one)))

    def node_vmag_sq(self) -> tuple[Sequence[str], Affine]:
        """See `NetworkModel.node_vmag_sq`."""
        return self._names, self.v

    def feed(
        self, name: str, nodes: IntArray, e_sq: Affine, angle: FloatArray, z: ComplexArray
    ) -> tuple[Affine, Affine]:
        """See `NetworkModel.feed`: an impedance is one more branch, whose sending side is given."""
        elements = tuple(f"{name}.{self.net.nodes[i][1]}" for i in nodes)
        kw = self.base.total_kva
        p = self.builder.variable("feed", "p", elements, unit="kW", to_unit=kw, limit=False)
        q = self.builder.variable("feed", "q", elements, unit="kvar", to_unit=kw, limit=False)
        self._feeds.append(Feed(name, elements, nodes, nodes, e_sq, angle, z, p, q))
        return p, q

    def feed_at(self, name: str, nodes: IntArray, *given: Affine) -> tuple[Affine, Affine]:
        """See `NetworkModel.feed_at`: a Hermitian matrix of voltages, entry by entry."""
        v, re, im = given
        n = len(nodes)
        p, q = self.feed(name, nodes, v, np.zeros(n), np.zeros((n, n), dtype=complex))
        self._feeds[-1] = replace(self._feeds[-1], beside=(re, im))
        return p, q

    def voltage_products(self, nodes: IntArray, others: IntArray) -> tuple[Affine, Affine]:
        """See `NetworkModel.voltage_products`: variables, tied to the matrices in `close`."""
        names = tuple(self._names[k] for k in nodes)
        start = np.broadcast_to(self._v0[nodes] * self._v0[others].conj(), (len(nodes), self.n_steps))
        re, im = (
            self.builder.variable("node", x, names, unit="pu^2", start=np.asarray(values), limit=False)
            for x, values in (("vv_re", start.real), ("vv_im", start.imag))
        )
        self._asked.append(Asked("node", names, nodes, others, re, im))
        return re, im

    def add_loss_cost(self, weight: Affine) -> None:
        """See `NetworkModel.add_loss_cost`; linear."""
        self._loss_weights.append(weight)

    def add_unbalance_cost(self, weight: Affine) -> None:
        """See `NetworkModel.add_unbalance_cost`; linear in v."""
        self._unbalance_weights.append(weight)

    def assume_v(
        self, ports: Ports, low: FloatArray, high: FloatArray, *, beside: tuple[FloatArray, FloatArray] | None = None
    ) -> None:
        """See `NetworkModel.assume_v`; only whether a side is among the possible voltages matters here."""
        least, most = (np.sqrt(side) for side in self.band.squares(ports))
        self._takes_sides |= bool(np.any(low > least) or np.any(high < most))

    def takes_for_granted(self) -> tuple[str, ...]:
        """See `NetworkModel.takes_for_granted`."""
        out = []
        if self.band.guessed or self._at_weak_sources():
            low, high = (abs(share - 1.0) for share in UNLIMITED)
            out.append(
                f"voltages without a limit are at most {100 * low:.0f} % below and {100 * high:.0f} % above the "
                "operating point"
            )
        if len(self.between.ports):
            out.append(
                f"voltages between conductors are at most {100 * (BETWEEN[1] - 1.0):.0f} % beyond what the limits give "
                "at the angles of the operating point"
            )
        if self._takes_sides:
            out.append("loads and inverters stay on the side of their voltage band on which the operating point is")
        return tuple(out)

    def _at_weak_sources(self) -> bool:
        """Whether something is drawn at the bus of a source with an impedance: its voltage moves, and has no limit."""
        moves = np.concatenate([np.zeros(0, dtype=np.int64), *(f.nodes for f in self._feeds if not f.stiff)])
        drawn = (*self._nodal, *self._between, *self._impedances)
        return any(bool(np.isin(side, moves).any()) for what in drawn for side in (what.ports.a, what.ports.b))

    def crossing(self) -> Mapping[str, Crossing]:
        """See `NetworkModel.crossing`."""
        return self._crossing

    def departs(self) -> tuple[str, ...]:
        """See `NetworkModel.departs`: neutral conductors count as grounded."""
        if not self._neutral:
            return ()
        worst = max(self._neutral, key=lambda name: self._neutral[name])
        size = f"{worst} is at {self._neutral[worst]:.2g} pu at the operating point"
        return (f"neutral conductors count as grounded ({size})",)

    @property
    def neglects_losses(self) -> bool:
        """False: Z L is in the balance."""
        return False

    # -- what a leaf says -----------------------------------------------------------------------------------------

    @abstractmethod
    def _positive(self, component: str, names: Sequence[str], h: int, places: IntArray, scale: FloatArray) -> None:
        """Keep matrices of dimension h psd, or what of it the leaf keeps; places (b, h^2) in the pool, scale (b, h)."""

    #: whether a matrix that is a congruence of another one, and so psd with it, has rows of its own
    _congruent_needs_rows: ClassVar[bool]
    #: whether branches with charging between them are one line, see `lateral.formulations.matrix_chains`
    _joins_charging: ClassVar[bool]

    # -- close ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write matrices, voltages, balances and limits."""
        builder, net, kw = self.builder, self.net, self.base.total_kva
        self._y = self._admittances()
        self.between = between = summed(self._between, self.n_steps)
        scale, at_sources = self._scales()
        most = self._currents()
        total = max(float(scale.max(initial=0.0)), at_sources, 1e-6)
        for name in ("feed.p", "feed.q"):
            builder.rescale(name, total)

        self._feeds = self._placed(total)
        behind = [f for f in self._feeds if not f.stiff]
        names = [*self._names, *(f"{e}~" for f in behind for e in f.elements)]
        v = self._with_sources(behind)
        apart = [
            *(
                Section(
                    f.name,
                    f.nodes[:0],
                    f.at,
                    f.nodes,
                    np.eye(len(f.at), dtype=complex),
                    f.z,
                    *(np.full(len(f.at), total),) * 2,
                )
                for f in behind
            ),
            *sections_of(net, scale, self._judged(most, scale)),
        ]
        block = blocks_of(self._bus_of(behind), apart)
        conductor = np.array([c for _, c in net.nodes], dtype=np.int64)
        self.sections = sections = merged(apart, block, np.concatenate([f.at for f in self._feeds]), conductor)
        fed = [fed_by(builder, net, f, self._known) for f in self._feeds]
        y = sparse.csr_matrix((self._y.data, self._y.indices, self._y.indptr), shape=self._y.shape)
        y.resize(len(names), len(names))
        self.ranges = ranges_of(block, sections, fed, self._drawn(len(names)), y, self._apart())
        self._crossing = crossing_of(net, self._asked, self._feeds, self.ranges)
        maker = MatricesMaker(names, sections, self.ranges)
        maker.add_sections()
        size = between.i_max.max(axis=1, initial=0.0)
        size = np.where(np.isfinite(size), size, total)
        maker.add_deltas(between.ports, np.maximum(size, 1e-3 * total))
        self.m = maker.declare(builder, v, kw)

        chains = chains_of(sections, self.ranges, self._busy())
        self.chains = Chains(self.m, chains, y, names)
        self.chains.write(builder)
        self._write_positive()
        rows = Rows(builder, net, self.base, self._names, self.v, sections, self.ranges, self.m, self._feeds)
        rows.voltages(self.chains.followed)
        rows.tied(self._asked)
        rows.between(self._squares, between, *self.band.squares(between.ports))
        nodal = [(np.maximum(i.ports.a, i.ports.b), i.p, i.q) for i in self._nodal]
        p_row, q_row = rows.power(self._y, [*nodal, *rows.as_nodal(self._impedances)], total)
        node_scale = np.full((net.n_nodes, 1), total)
        node_scale[net.to_node, 0] = scale
        p_block = builder.equal("bus", "p_balance", self._names, p_row, unit="kW", to_unit=kw, scale=node_scale)
        q_block = builder.equal("bus", "q_balance", self._names, q_row, unit="kvar", to_unit=kw, scale=node_scale)
        self.chains.balanced(builder, p_block, q_block, kw)
        rows.flows(self._admittances(wires=True), self._loss_weights, most, self.band.high)
        rows.phases(self.feeder, self._unbalance_weights, says_positive=self._congruent_needs_rows)
        for f in self._feeds:
            if f.beside is not None:
                amp = self.base.s_kva / net.v_base_kv[f.nodes].reshape(-1, 1)
                drawn = Affine.constant(most[f.nodes])
                builder.output("feed", "i_max", f.elements, drawn, unit="A", to_unit=amp)
        derive_measures(builder, net, self.base, sections, self.m)

    def _write_positive(self) -> None:
        """The matrices that are psd: those of branches and delta ports, and of buses that are in none of these.

        That of a branch behind a bus in the middle of a line is a congruence of the one before, and written nowhere;
        where minors are kept, which a congruence does not inherit, those of a line are those of its beginning.
        """
        covered: set[int] = set()
        followers = self.chains.followers
        for component, groups in (("branch", self.m.sections), ("delta", self.m.deltas)):
            for g in groups:
                follows = np.array([component == "branch" and k in followers for k in g.members.tolist()], dtype=bool)
                own = np.flatnonzero(~follows)
                if g.h > g.m and len(own):
                    self._positive(component, [g.names[k] for k in own], g.h, g.places[own], g.scale[own])
                if not self._congruent_needs_rows or g.h > g.m:
                    covered |= self._covered(g, component)
        covered |= elsewhere(self.net, self._asked, self._feeds, self.ranges, congruent=self._congruent_needs_rows)
        for g in self.m.cores:
            own = np.flatnonzero([c not in covered for c in g.members.tolist()])
            if len(own) and g.m > 1:
                self._positive("bus", [g.names[k] for k in own], g.m, g.places[own], g.scale[own])

    def _busy(self) -> IntArray:
        """Nodes where devices are, sources, or borders of areas: what leaves there is not what arrives."""
        injected = [i.ports for i in (*self._nodal, *self._impedances, self.between)]
        given = [at for f in self._feeds for at in (f.nodes, f.at)]
        shunts = [ports for ports, _ in self._shunts]
        ends = [side[side >= 0] for ports in (*injected, *shunts) for side in (ports.a, ports.b)]
        drawing = [] if self._joins_charging else np.flatnonzero(np.diff(self._y.indptr)).tolist()
        return np.unique(np.concatenate([*given, *ends, self._apart(), np.array(drawing, dtype=np.int64)]))

    def _apart(self) -> IntArray:
        """Nodes where areas meet: in the whole, or where another area begins."""
        borders = [k for k, (bus, _) in enumerate(self.net.nodes) if bus in self.builder.borders]
        return np.concatenate([np.array(borders, dtype=np.int64), *(at.nodes for at in self._asked)])

    def _covered(self, g: Group, component: str) -> set[int]:
        """Cores that are psd because a matrix of the group is."""
        out = set()
        for k, member in enumerate(g.members.tolist()):
            core, cols, _ = self.ranges.voltage(g.nodes[k])
            if g.h > g.m and len(cols) == len(self.ranges.cores[core].nodes):
                out.add(core)
            if component == "branch" and not self._congruent_needs_rows:
                core = int(self.ranges.core[self.ranges.block[g.to[k, 0]]])
                if len(self.ranges.own[member]) == len(self.ranges.cores[core].nodes):
                    out.add(core)
        return out

    def _placed(self, total: float) -> list[Feed]:
        """The sources, with nodes of their own behind every impedance that matters."""
        out, n = [], self.net.n_nodes
        for f in self._feeds:
            if float(np.abs(f.z).max()) * total >= NEGLIGIBLE_PU:
                f = replace(f, at=n + np.arange(len(f.nodes)))
                n += len(f.nodes)
            out.append(f)
        return out

    def _scales(self) -> tuple[FloatArray, float]:
        """Typical apparent power of each leg, shape (K,): what is downstream, and may be decided there; and of what is
        at the sources' own buses, on no leg."""
        builder, net = self.builder, self.net
        down = np.asarray(np.abs(self._y).sum(axis=1)).reshape(-1)
        for what in (*self._nodal, *self._between, *self._impedances):
            # what another area draws is a decision, whose start says how much it is about; what an inverter may give
            # counts whole: a scale of the loads alone made nothing of one at a bus without any (and a gap of it, too)
            size = sum(
                np.maximum(
                    builder.magnitude(part, variables=False) + np.abs(builder.at_start(part)), builder.magnitude(part)
                ).max(axis=1, initial=0.0)
                for part in (what.p, what.q)
            )
            # a susceptance that is decided has no bound of its power but what its current can be
            known = what.i_max.max(axis=1, initial=0.0)
            size = np.where((size == 0.0) & np.isfinite(known), known, size)
            ends = [side[side >= 0] for side in (what.ports.a, what.ports.b)]
            for side, nodes in zip((what.ports.a, what.ports.b), ends, strict=True):
                np.add.at(down, nodes, size[side >= 0] / (1.0 + (len(ends[0]) > 0 and len(ends[1]) > 0)))
        at_sources = float(down[net.roots].sum())
        for e, k in self._inwards():
            share = np.abs(net.a_val[e])
            np.add.at(down, net.a_node[e], down[net.to_node[k]] * share / max(float(share.sum()), 1e-12))
        scale = down[net.to_node]
        positive = scale[scale > 0.0]
        floor = 0.05 * float(np.median(positive)) if len(positive) else 1e-3
        return np.asarray(np.maximum(scale, floor)), at_sources

    def _currents(self) -> FloatArray:
        """Largest current drawn behind each node, pu, shape (n, T): ``|I| <= sum |s|/|V| + |y||V|``, then ``|A'| |I|``.

        A valid bound of what any point inside of the possible voltages can have; without one the relaxation could make
        up currents of any size where their losses cost nothing. Elements count by themselves (the charging of a line is
        not set off against the magnetising current of a transformer at its end), so that areas that have one of them
        each come to the same bound as the whole.
        """
        net = self.net
        high = self.band.high
        need = np.repeat((self._admittances(sizes=True) @ high).reshape(-1, 1), self.n_steps, axis=1)
        for what in (*self._nodal, *self._between, *self._impedances):
            for side in (what.ports.a, what.ports.b):
                np.add.at(need, side[side >= 0], what.i_max[side >= 0])
        for e, k in self._inwards():
            np.add.at(need, net.a_node[e], np.abs(net.a_val[e])[:, None] * need[net.to_node[k]])
        return need

    def _judged(self, most: FloatArray, scale: FloatArray) -> FloatArray:
        """Current of each leg by which its drop is judged: the largest one, which areas and the whole agree on, or the
        typical one where there is none."""
        largest = most[self.net.to_node].max(axis=1, initial=0.0)
        largest = np.maximum(largest, LEAST_KVA / self.base.s_kva)
        return np.asarray(np.where(np.isfinite(largest), largest, scale))

    def _inwards(self) -> Iterator[tuple[IntArray, int]]:
        """Legs from the ends to the source, each with its entries in the ideal parts."""
        net = self.net
        order = np.argsort(net.a_leg, kind="stable")
        first = np.searchsorted(net.a_leg[order], np.arange(net.n_legs + 1))
        for k in range(net.n_legs - 1, -1, -1):
            yield order[first[k] : first[k + 1]], k

    def _admittances(self, *, wires: bool = False, sizes: bool = False) -> sparse.csr_matrix:
        """Admittances between nodes, pu: of the wires alone, or with those of devices; or the sum of their sizes."""
        net, n = self.net, self.net.n_nodes
        rows, cols, vals = [net.shunt_i], [net.shunt_j], [net.shunt_y]
        for ports, y in () if wires else self._shunts:
            for one, other in ((ports.a, ports.b), (ports.b, ports.a)):
                at = np.flatnonzero(one >= 0)
                two = np.flatnonzero((one >= 0) & (other >= 0))
                rows += [one[at], one[two]]
                cols += [one[at], other[two]]
                vals += [y[at], -y[two]]
        values = np.concatenate(vals)
        entries = (np.abs(values) if sizes else values, (np.concatenate(rows), np.concatenate(cols)))
        return sparse.coo_matrix(entries, shape=(n, n)).tocsr()

    def _with_sources(self, behind: Sequence[Feed]) -> Affine:
        """Squared voltages of the nodes, and of what is behind sources' impedances; the given ones are tied."""
        parts = [self.v]
        for f in behind:
            start = np.full((len(f.at), 1), 1.0)
            parts.append(self.builder.variable("feed", "e_sq", f.elements, unit="pu^2", start=start, limit=False))
        v = stack(parts)
        for f in self._feeds:
            self.builder.equal("feed", "voltage", f.elements, v.take(f.at), f.e_sq)
        return v

    def _bus_of(self, behind: Sequence[Feed]) -> IntArray:
        """Bus of every node, by number."""
        numbers: dict[str, int] = {}
        out = [numbers.setdefault(bus, len(numbers)) for bus, _ in self.net.nodes]
        for k, f in enumerate(behind):
            out += [len(numbers) + k] * len(f.at)
        return np.array(out, dtype=np.int64)

    def _drawn(self, n: int) -> sparse.csc_matrix:
        """Currents that ports can draw, one column each, shape (n, ports); of other areas what they said."""
        none = np.zeros(0, dtype=np.int64)
        beyond = list(drawn_beyond(self.net, self._known))
        single = np.unique(np.concatenate([none, *(np.maximum(i.ports.a, i.ports.b) for i in self._nodal)]))
        single = np.setdiff1d(single, np.concatenate([none, *(nodes for nodes, _ in beyond)]))
        pairs = [i.ports for i in (self.between, *self._impedances)]
        a, b = (np.concatenate([getattr(at, side) for at in pairs]) for side in ("a", "b"))
        k = np.arange(len(a)) + len(single)
        rows = np.concatenate([single, a, b])
        cols = np.concatenate([np.arange(len(single)), k, k])
        vals = np.concatenate([np.ones(len(single) + len(a)), -np.ones(len(b))])
        parts = [sparse.csc_matrix((vals, (rows, cols)), shape=(n, len(single) + len(a)))]
        for nodes, own in beyond:
            to_nodes = sparse.csc_matrix((np.ones(len(nodes)), (nodes, np.arange(len(nodes)))), shape=(n, len(nodes)))
            parts.append(to_nodes @ sparse.csc_matrix(own))
        return sparse.csc_matrix(sparse.hstack(parts))


class MatrixFormulation(Formulation):
    """What the formulations of the family share; a leaf names itself and its model."""

    balanced_only: ClassVar[bool] = False
    point: ClassVar[str] = "loaded"
    relaxes: ClassVar[bool] = True
    voltages: ClassVar[tuple[str, ...]] = MatrixFlowModel.voltages
    consensus_only: ClassVar[str] = "matrices of voltages, which leave an area no inside where they are given"
    bounds_currents: ClassVar[bool] = True
    #: the model that devices meet
    model: ClassVar[type[MatrixFlowModel]]

    def declines(self, feeder: Feeder, network: RadialNetwork) -> tuple[Fault, ...]:
        """Loops, and admittances that are no branch."""
        return network.faults


__all__ = ["MatrixFlowModel", "MatrixFormulation"]
