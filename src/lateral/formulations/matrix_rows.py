"""Rows of the matrix family over its matrices: voltages, ports across two conductors, balances, flows and limits.

The equations are those of `lateral.formulations.matrix_flow`; every entry of a matrix is a sum of elements of the pool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from lateral.formulations.hermitian import LinearMap, diagonal, elements_between, quadratic
from lateral.formulations.matrix_loads import Injection
from lateral.formulations.matrix_pool import Matrices
from lateral.formulations.matrix_ranges import Ranges, Section
from lateral.formulations.point_model import (
    BETWEEN_SQ,
    limits_between,
    phase_nodes,
    port_names,
    three_phase_buses,
)
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder
from lateral.program.ports import Ports
from lateral.units import Base

#: A branch limit is written where the largest flow comes this near to it; see `lateral.formulations.branch_flow`.
LIMIT_MARGIN = 0.9

#: A current is bounded by this many times the largest one that can be drawn behind it (so that the search for what
#: makes a problem infeasible may leave the limits of voltages, which the largest one rests on), and no closer than what
#: this power draws at the voltage base. Neither depends on what is elsewhere: areas and the whole have the same rows.
CURRENT_MARGIN, LEAST_KVA = 1.1, 1.0

#: power that is injected at nodes: nodes, p, q
Nodal = tuple[IntArray, Affine, Affine]


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """A source as it was declared.

    Attributes:
        name: its name.
        elements: names of its conductors.
        nodes: where it feeds.
        at: the nodes behind its impedance; ``nodes`` when there is none.
        e_sq: squared voltage behind the impedance, shape (n, T).
        angle: its angle, rad, shape (n,).
        z: impedance, pu, shape (n, n).
        p, q: power that it gives at ``nodes``, shape (n, T).
        beside: real and imaginary part of ``V_k conj(V_k')`` of each conductor and the next one, where the matrix of
            the voltages is no fixed direction but given entry by entry; else None.
    """

    name: str
    elements: tuple[str, ...]
    nodes: IntArray
    at: IntArray
    e_sq: Affine
    angle: FloatArray
    z: ComplexArray
    p: Affine
    q: Affine
    beside: tuple[Affine, Affine] | None = None

    @property
    def stiff(self) -> bool:
        """Whether there is no impedance."""
        return self.at is self.nodes


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Products ``V_i conj(V_j)`` of pairs of nodes of one bus as variables.

    Attributes:
        component: what their rows belong to.
        names: of the pairs.
        nodes, others: i and j, shape (pairs,).
        re, im: real and imaginary part, shape (pairs, T).
    """

    component: str
    names: tuple[str, ...]
    nodes: IntArray
    others: IntArray
    re: Affine
    im: Affine


@dataclass(frozen=True, eq=False)
class Rows:
    """Writes the rows of a model whose matrices are declared."""

    builder: ProgramBuilder
    net: RadialNetwork
    base: Base
    names: tuple[str, ...]
    v: Affine
    sections: Sequence[Section]
    ranges: Ranges
    m: Matrices
    feeds: Sequence[Feed]

    def voltages(self, followed: Collection[int]) -> None:
        """v_s of every branch, over the basis of its receiving side; and the squared voltages of the other nodes.

        Args:
            followed: sections whose receiving bus is in the middle of a line: nothing but these rows defines what is
                beside the diagonal of its matrix.
        """
        re, im = LinearMap(), LinearMap()
        names: list[str] = []
        follows: list[tuple[IntArray, IntArray, IntArray]] = []
        core_of = {int(c): (g, k) for g in self.m.cores for k, c in enumerate(g.members)}
        for g in self.m.sections:
            cols = [self.ranges.own[member] for member in g.members.tolist()]
            m = len(cols[0])
            if not m:
                continue
            subs = [self.ranges.sub[member] for member in g.members.tolist()]
            left = g.received
            if subs[0] is not None:
                left = np.swapaxes(np.array(subs).conj(), 1, 2) @ left
            i, j = np.triu_indices(m)
            c = quadratic(left, left)[:, :, i, j]
            rows = len(names) + np.arange(len(cols) * len(i)).reshape(len(cols), len(i))
            re.add(rows, g.places, -c.real)
            im.add(rows, g.places, -c.imag)
            for k, own in enumerate(cols):
                core, at = core_of[int(self.ranges.core[self.ranges.block[g.to[k, 0]]])]
                places = core.places[at]
                pick = np.zeros((1, core.m, m), dtype=complex)
                pick[0, own, np.arange(m)] = 1.0
                pick = np.swapaxes(pick, 1, 2)
                own_c = quadratic(pick, pick)[:, :, i, j]
                re.add(rows[k : k + 1], places[None], own_c.real)
                im.add(rows[k : k + 1], places[None], own_c.imag)
                if int(g.members[k]) in followed:
                    beside = np.flatnonzero(i != j)
                    re_at, im_at = elements_between(core.m, own[i[beside]], own[j[beside]])
                    follows.append((rows[k, beside], places[re_at], places[im_at]))
                names += [f"{g.names[k]}.{a}|{b}" for a, b in zip(i.tolist(), j.tolist(), strict=True)]
        if names:
            pool = self.m.pool
            drop = self.builder.equal("branch", "drop", names, re.of(pool, len(names)), unit="pu^2")
            off = np.array([name.rsplit(".", 1)[1].split("|")[0] != name.rsplit("|", 1)[1] for name in names])
            own_rows = np.flatnonzero(off)
            if len(own_rows):
                cross = im.of(pool, len(names)).take(own_rows)
                angle = self.builder.equal("branch", "drop_angle", [names[k] for k in own_rows], cross, unit="pu^2")
                if follows:
                    own_row, re_of, im_of = (np.concatenate(part) for part in zip(*follows, strict=True))
                    self.builder.follow(drop, own_row, pool.take(re_of))
                    self.builder.follow(angle, np.searchsorted(own_rows, own_row), pool.take(im_of))
        given = np.zeros(self.net.n_nodes, dtype=bool)
        for f in self.feeds:
            if f.stiff and f.beside is None:
                given[f.nodes] = True
        for one in self.ranges.cores:
            own_nodes = one.nodes[(one.nodes >= 0) & (one.nodes < self.net.n_nodes)]
            given[own_nodes] = True
        rest = np.flatnonzero(~given)
        if len(rest):
            square = self.products(rest, rest)[0]
            self.builder.equal("bus", "square", [self.names[k] for k in rest], self.v.take(rest) - square, unit="pu^2")

    def tied(self, asked: Sequence[Asked]) -> None:
        """Products of voltages that are given by a neighbour, or that a device asked for."""
        for f in self.feeds:
            if f.beside is not None:
                at = Asked("feed", f.elements, f.nodes, np.roll(f.nodes, -1), *f.beside)
                asked = [*asked, at]
        for at in asked:
            for quantity, own, product in zip(
                ("vv_re", "vv_im"), (at.re, at.im), self.products(at.nodes, at.others), strict=True
            ):
                self.builder.equal(at.component, quantity, at.names, product - own, unit="pu^2")

    def products(self, i: IntArray, j: IntArray) -> tuple[Affine, Affine]:
        """``V_i conj(V_j)`` of pairs of nodes of one block, real and imaginary part, each of shape (pairs, T)."""
        re, im = LinearMap(), LinearMap()
        for own, places, c in self._product_terms(i, j):
            re.add(own[:, None], places, c.real[:, :, None])
            im.add(own[:, None], places, c.imag[:, :, None])
        return re.of(self.m.pool, len(i)), im.of(self.m.pool, len(i))

    def _product_terms(self, i: IntArray, j: IntArray) -> Iterator[tuple[IntArray, IntArray, ComplexArray]]:
        """Pairs, their elements and coefficients."""
        r = self.ranges
        core = r.core[r.block[i]]
        for g in self.m.cores:
            place = np.full(len(r.cores), -1)
            place[g.members] = np.arange(len(g.members))
            own = np.flatnonzero(place[core] >= 0)
            if len(own):
                sides = [np.array([r.u[r.block[n]][r.local[n]] for n in nodes[own].tolist()]) for nodes in (i, j)]
                c = quadratic(sides[0][:, None, :], sides[1][:, None, :])[:, :, 0, 0]
                yield own, g.places[place[core[own]]], c

    def between(
        self,
        squares: Sequence[tuple[str, tuple[str, ...], Ports, Affine]],
        what: Injection,
        low: FloatArray,
        high: FloatArray,
    ) -> None:
        """Power of ports across two conductors, and the bound of their currents; squared voltages that were asked."""
        builder, pool, kw = self.builder, self.m.pool, self.base.total_kva
        for component, names, at, w in squares:
            builder.equal(component, "vmag_sq", names, w - self.across(at), unit="pu^2")
        ports, p, q = what.ports, what.p, what.q
        if not len(ports):
            return
        re, im, rho = LinearMap(), LinearMap(), LinearMap()
        for g in self.m.deltas:
            c = diagonal(g.ideal, g.flow)
            re.add(g.to, g.places, c.real)
            im.add(g.to, g.places, c.imag)
            rho.add(g.to, g.places, diagonal(g.flow, g.flow).real)
        n, names = len(ports), port_names(self.net, ports)
        size = np.maximum(np.maximum(builder.magnitude(p), builder.magnitude(q)).max(axis=1), 1e-9).reshape(-1, 1)
        builder.equal("port", "p", names, re.of(pool, n) - p, unit="kW", to_unit=kw, scale=size)
        builder.equal("port", "q", names, im.of(pool, n) - q, unit="kvar", to_unit=kw, scale=size)
        # the chord of 1/w where the power is a number, else the largest current
        fixed = np.ones((n, 1))
        fixed[np.unique(np.concatenate([part.row[part.col >= 0] // builder.n_steps for part in (p, q)]))] = 0.0
        s_sq = (builder.magnitude(p) ** 2 + builder.magnitude(q) ** 2) * fixed
        most = np.where(fixed > 0.0, s_sq * (1.0 / low + 1.0 / high), what.i_max**2)
        room = rho.of(pool, n) + self.across(ports) * (s_sq / (low * high))
        rows = np.flatnonzero(np.isfinite(most).all(axis=1))
        scale = np.maximum(most[rows], 1e-12)
        own = [names[k] for k in rows]
        builder.between("port", "i_bound", own, -np.inf, room.take(rows), most[rows], scale=scale, limit=False)

    def across(self, ports: Ports) -> Affine:
        """|V_a - V_b|^2 of ports."""
        re, _ = self.products(ports.a, ports.b)
        return self.v.take(ports.a) + self.v.take(ports.b) - re * 2.0

    def power(self, y: sparse.csr_matrix, nodal: Sequence[Nodal], total: float) -> tuple[Affine, Affine]:
        """What arrives at every node and is not taken, (p, q), each of shape (n, T)."""
        net, builder, pool = self.net, self.builder, self.m.pool
        re, im, feed_re, feed_im = (LinearMap() for _ in range(4))
        first: dict[str, int] = {}
        elements: list[str] = []
        for f in self.feeds:
            first[f.name] = len(elements)
            elements += list(f.elements)
        for g in self.m.sections:
            taken = -diagonal(g.sending, g.taken)
            real = np.flatnonzero((g.nodes < net.n_nodes).all(axis=1))
            arrive = diagonal(g.received, g.flow)
            for own, rows, c in ((real, g.nodes, taken), (real, g.to, arrive)):
                re.add(rows[own], g.places[own], c[own].real)
                im.add(rows[own], g.places[own], c[own].imag)
            for k in np.setdiff1d(np.arange(len(g.members)), real).tolist():
                rows = first[g.names[k]] + np.arange(g.to.shape[1])[None]
                feed_re.add(rows, g.places[k : k + 1], arrive[k : k + 1].real)
                feed_im.add(rows, g.places[k : k + 1], arrive[k : k + 1].imag)
        for g in self.m.deltas:
            # what a port injects arrives at its nodes
            c = diagonal(g.sending, g.taken)
            re.add(g.nodes, g.places, c.real)
            im.add(g.nodes, g.places, c.imag)
        self._tie_power(re, self.m.tie_p)
        self._tie_power(im, self.m.tie_q)
        y = y.tocoo()
        for own, places, c in self._product_terms(y.row.astype(np.int64), y.col.astype(np.int64)):
            drawn = -c * np.conj(y.data[own])[:, None]
            re.add(y.row[own][:, None], places, drawn.real[:, :, None])
            im.add(y.row[own][:, None], places, drawn.imag[:, :, None])
        p, q = re.of(pool, net.n_nodes), im.of(pool, net.n_nodes)
        for nodes, p_n, q_n in nodal:
            place = (net.n_nodes, nodes, np.arange(len(nodes)), np.ones(len(nodes)))
            p, q = p + p_n.map_terms(*place), q + q_n.map_terms(*place)
        for f in self.feeds:
            place = (net.n_nodes, f.nodes, np.arange(len(f.nodes)), np.ones(len(f.nodes)))
            p, q = p + f.p.map_terms(*place), q + f.q.map_terms(*place)
        give = {"p": feed_re.of(pool, len(elements)), "q": feed_im.of(pool, len(elements))}
        for f in self.feeds:
            if not f.stiff:
                own = first[f.name] + np.arange(len(f.nodes))
                for what, power in (("p", f.p), ("q", f.q)):
                    builder.equal("feed", f"{what}_power", f.elements, give[what].take(own) - power, scale=total)
        return p, q

    def _tie_power(self, rows: LinearMap, places: IntArray) -> None:
        """Power of branches without a drop: taken from the sending node, delivered to the receiving one."""
        for k, (number, leg) in enumerate(zip(self.m.tie_section.tolist(), self.m.tie_leg.tolist(), strict=True)):
            section = self.sections[number]
            from_node = section.p[int(np.abs(section.a[leg]).argmax())]
            rows.single(np.array([section.s[leg], from_node]), places[[k, k]], np.array([1.0, -1.0]))

    def as_nodal(self, impedances: Sequence[Injection]) -> Iterator[Nodal]:
        """What constant impedances between conductors inject there: ``s (v_aa - v_ab)``, ``s (v_bb - v_ba)``."""
        for what in impedances:
            ports, p, q = what.ports, what.p, what.q
            re, im = self.products(ports.a, ports.b)
            for nodes, sign in ((ports.a, 1.0), (ports.b, -1.0)):
                real, imag = self.v.take(nodes) - re, im * -sign
                yield (
                    nodes,
                    real.times_parameter(p) - imag.times_parameter(q),
                    real.times_parameter(q) + imag.times_parameter(p),
                )

    def flows(self, y: sparse.csr_matrix, loss_weights: Sequence[Affine], most: FloatArray, v_high: FloatArray) -> None:
        """Flows into the series impedances, losses ``Re tr(Z L)`` and of admittances, and limits of branches.

        Args:
            y: admittances of the wires, pu.
            loss_weights: weights of the losses in the objective, each of shape (1, T).
            most: largest current drawn behind each node, pu, shape (n, T).
            v_high: largest voltage of each node, pu, shape (n,).
        """
        net, builder, pool, kw = self.net, self.builder, self.m.pool, self.base.total_kva
        p, q, loss, size = (LinearMap() for _ in range(4))
        for g in self.m.sections:
            real = np.flatnonzero((g.nodes < net.n_nodes).all(axis=1))
            legs = np.array([self.sections[k].legs for k in g.members[real].tolist()], dtype=np.int64)
            if not len(real):
                continue
            through = diagonal(g.ideal, g.flow)[real]
            p.add(legs, g.places[real], through.real)
            q.add(legs, g.places[real], through.imag)
            size.add(legs, g.places[real], diagonal(g.flow, g.flow)[real].real)
            lost = diagonal(g.drop, g.flow)[real].real.sum(axis=2, keepdims=True)
            loss.add(np.zeros((len(real), 1), dtype=np.int64), g.places[real], lost)
        tie = np.array(
            [self.sections[k].legs[leg] for k, leg in zip(self.m.tie_section, self.m.tie_leg, strict=True)],
            dtype=np.int64,
        )
        p.single(tie, self.m.tie_p, np.ones(len(tie)))
        q.single(tie, self.m.tie_q, np.ones(len(tie)))
        wires = y.tocoo()
        for own, places, c in self._product_terms(wires.col.astype(np.int64), wires.row.astype(np.int64)):
            lost = (c * wires.data[own][:, None]).real[:, :, None]
            loss.add(np.zeros((len(own), 1), dtype=np.int64), places, lost)
        p_from, q_from = p.of(pool, net.n_legs), q.of(pool, net.n_legs)
        losses = loss.of(pool, 1)
        builder.output("branch", "p_from", net.legs, p_from, unit="kW", to_unit=kw)
        builder.output("branch", "q_from", net.legs, q_from, unit="kvar", to_unit=kw)
        builder.output("system", "losses", ["all"], losses, unit="kW", to_unit=kw)
        for weight in loss_weights:
            builder.minimise(losses.times_parameter(weight))
        i_sq = size.of(pool, net.n_legs)
        self._bound_currents(i_sq, most, tie)
        self._limits(p_from, q_from, i_sq, tie, most, v_high)

    def _bound_currents(self, i_sq: Affine, most: FloatArray, tie: IntArray) -> None:
        """``|I|^2`` of branches and sources is at most what can be drawn behind them, with a margin."""
        net, builder = self.net, self.builder
        legs = np.setdiff1d(np.arange(net.n_legs), tie)
        allowed = np.maximum(CURRENT_MARGIN * most, LEAST_KVA / self.base.s_kva) ** 2
        bound = allowed[net.to_node][legs]
        own = np.flatnonzero(np.isfinite(bound).all(axis=1))
        if len(own):
            names = [net.legs[k] for k in legs[own]]
            left = i_sq.take(legs[own])
            builder.between("branch", "i_bound", names, -np.inf, left, bound[own], scale=bound[own], limit=False)
        for g in self.m.sections:
            behind = np.flatnonzero((g.nodes >= net.n_nodes).all(axis=1))
            for k in behind.tolist():
                size, n = LinearMap(), g.to.shape[1]
                size.add(np.arange(n)[None], g.places[k : k + 1], diagonal(g.flow, g.flow)[k : k + 1].real)
                bound = allowed[g.to[k]]
                if np.isfinite(bound).all():
                    feed = next(f for f in self.feeds if f.name == g.names[k])
                    left = size.of(self.m.pool, n)
                    builder.between("feed", "i_bound", feed.elements, -np.inf, left, bound, scale=bound, limit=False)

    def _limits(self, p: Affine, q: Affine, i_sq: Affine, tie: IntArray, most: FloatArray, v_high: FloatArray) -> None:
        """``L_kk <= i_max^2`` and ``|sum S| <= s_max``, where the flow could come near to it."""
        net, builder = self.net, self.builder
        current = most[net.to_node].max(axis=1)
        if not builder.screen_limits:
            current = np.full(net.n_legs, np.inf)
        near = np.isfinite(net.i_max_pu) & (current >= LIMIT_MARGIN * net.i_max_pu)
        amp = self.base.s_kva / net.v_base_kv[net.to_node]
        limit = (net.i_max_pu**2).reshape(-1, 1)
        legs = np.setdiff1d(np.flatnonzero(near), tie)
        if len(legs):
            names = [net.legs[k] for k in legs]
            builder.between(
                "branch",
                "i_limit_sq",
                names,
                -np.inf,
                i_sq.take(legs),
                limit[legs],
                unit="A^2",
                to_unit=amp[legs] ** 2,
                scale=limit[legs],
            )
        legs = np.intersect1d(np.flatnonzero(near), tie)
        if len(legs):
            builder.product(
                "branch",
                "i_limit",
                [net.legs[k] for k in legs],
                [p.take(legs), q.take(legs)],
                self.v.take(net.to_node[legs]) * limit[legs],
                Affine.constant(np.ones((len(legs), builder.n_steps))),
                unit="A",
                to_unit=amp[legs],
                scale=limit[legs],
                limit=True,
            )
        # the limit is of all phases; a balanced feeder carries its share per conductor
        s_max = net.s_max_pu / self.base.multiplicity
        power = np.bincount(net.branch, weights=current * v_high[net.to_node], minlength=len(net.branch_names))
        own = np.flatnonzero(np.isfinite(s_max) & (power >= LIMIT_MARGIN * s_max))
        if len(own):
            place = np.full(len(net.branch_names), -1)
            place[own] = np.arange(len(own))
            part = np.flatnonzero(place[net.branch] >= 0)
            whole = (len(own), place[net.branch[part]], part, np.ones(len(part)))
            square = (s_max[own] ** 2).reshape(-1, 1)
            builder.product(
                "branch",
                "s_limit",
                [net.branch_names[k] for k in own],
                [p.map_terms(*whole), q.map_terms(*whole)],
                Affine.constant(np.repeat(square, builder.n_steps, axis=1)),
                Affine.constant(np.ones((len(own), builder.n_steps))),
                unit="kVA",
                to_unit=self.base.total_kva,
                scale=square,
                limit=True,
            )

    def phases(self, feeder: Feeder, weights: Sequence[Affine], *, says_positive: bool) -> None:
        """Limits between phases and of unbalance, and what unbalance costs: all linear in v.

        Where minors stand for a matrix, v may be one that no voltages have, and ``|V_2|^2`` of it below zero, a gain
        where it is minimised: then ``says_positive``.

        ::

            |V_2|^2 = sum_ij conj(t_i) t_j v_ji,   t = (1, a^2, a) / 3,   a = exp(j 120 deg)       (Fortescue 1918)
        """
        builder = self.builder
        for quantity, ports, low, high, names in limits_between(feeder, self.net):
            square = self.v.take(ports.a) if quantity == "vpn_sq" else self.across(ports)  # neutrals count as ground
            low, high = (side.reshape(-1, 1) ** 2 for side in (low, high))
            to_unit = BETWEEN_SQ[quantity]
            builder.between("bus", quantity, names, low, square, high, unit="pu^2", to_unit=to_unit, scale=3.0)
        three = three_phase_buses(feeder, self.net)
        limited = [k for k, bus in enumerate(three) if np.isfinite(bus.unbalance_max)]
        if not (three and (weights or limited)):
            return
        turn = np.exp(2j * np.pi / 3.0) ** np.arange(3)
        nodes = phase_nodes(three, self.net)
        i, j = (side.reshape(-1) for side in np.meshgrid(np.arange(3), np.arange(3), indexing="ij"))
        re, im = self.products(nodes[:, i].reshape(-1), nodes[:, j].reshape(-1))
        out = np.repeat(np.arange(len(three)), 9)
        each = np.arange(9 * len(three))

        def sequence(t: ComplexArray) -> Affine:
            c = np.tile(t[i] * np.conj(t[j]) / 9.0, len(three))
            return re.map_terms(len(three), out, each, c.real) - im.map_terms(len(three), out, each, c.imag)

        minus = sequence(turn.conj())
        if weights and says_positive:
            names = [bus.name for bus in three]
            self.builder.between("bus", "negative_sequence_sq", names, 0.0, minus, np.inf, limit=False)
        for weight in weights:
            share = weight.take(np.zeros(len(three), dtype=np.int64)) * (1.0 / len(three))
            builder.minimise(minus.times_parameter(share))
        if limited:
            own = np.array(limited)
            share_sq = (np.array([three[k].unbalance_max for k in limited]) ** 2).reshape(-1, 1)
            # the square of the limit on both sides: what is beyond it is said as a share, of a voltage of 1 pu
            row = minus.take(own) - sequence(turn).take(own) * share_sq + share_sq
            names, scale = [three[k].name for k in limited], np.maximum(share_sq, 1e-4)
            builder.between("bus", "unbalance", names, -np.inf, row, share_sq, unit="share^2", scale=scale)


__all__ = ["LEAST_KVA", "Asked", "Feed", "Nodal", "Rows"]
