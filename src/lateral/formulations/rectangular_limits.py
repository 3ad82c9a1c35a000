"""Limits of the rectangular family, and what is said of unbalance.

Written from the start where the operating point comes near to a limit, or at a kept node; the rest is looked at after
the solve and written in a second one where it was exceeded (`ProgramBuilder.enforced`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from lateral.formulations.phasors import Complex, LegFlows, Through, entries, incidence
from lateral.formulations.point_model import BETWEEN_SQ, limits_between, phase_nodes, three_phase_buses
from lateral.formulations.rectangular_slopes import Slope, of_cost, of_power, of_squares
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.kron import ReducedNetwork
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder
from lateral.program.ports import Ports
from lateral.units import Base

#: A voltage limit at an eliminated node is written from the start where the operating point is this near to it, pu.
NEAR_PU = 0.01
#: A current or power limit is written from the start where the operating point reaches this share of it.
LIMIT_MARGIN = 0.8


@dataclass(frozen=True, eq=False)
class Limits:
    """Limits over the voltages of a rectangular model.

    Attributes:
        builder: takes the rows.
        feeder: the wires, with their limits.
        net: nodes and branches.
        base: power base.
        names: name of each node.
        v: voltages of the kept nodes.
        reduced: which nodes are kept, and how the others follow.
        v0: voltages of all nodes at the operating point, pu; internal nodes of decided taps are the last ones, shape
            (n + m, 1 or T).
        v_low, v_high: limits of each node, pu; 0 and inf for none, shape (n,).
        fed: nodes of sources, whose voltage is given.
        legs: flows of the branches.
        through: power through the branches.
        short: legs whose current is a variable.
        short_current: that variable.
        slopes: takes how the rows depend on the voltages, for the prices of eliminated nodes.
    """

    builder: ProgramBuilder
    feeder: Feeder
    net: RadialNetwork
    base: Base
    names: tuple[str, ...]
    v: Complex
    reduced: ReducedNetwork
    v0: ComplexArray
    v_low: FloatArray
    v_high: FloatArray
    fed: IntArray
    legs: LegFlows
    through: Through
    short: IntArray
    short_current: Complex | None
    slopes: list[Slope]

    def write(self) -> None:
        """Every limit that is wanted."""
        self._voltage_limits()
        self._phase_limits()
        self._branch_limits()

    def node_voltage(self, nodes: IntArray) -> Complex:
        """Voltages of any nodes, over those of the kept ones."""
        return self.v.map(len(nodes), *entries(self.reduced.t[nodes]))

    def _voltage_limits(self) -> None:
        """Limits of kept nodes, and of eliminated ones where the operating point is near to them or asked for."""
        low, high = self.v_low, self.v_high
        limited = (low > 0.0) | np.isfinite(high)
        limited[self.fed] = False
        size = np.abs(self.v0[: len(self.names)])
        near = (size.min(axis=1) < low + NEAR_PU) | (size.max(axis=1) > high - NEAR_PU)
        asked = np.array([name in self.builder.enforced for name in self.names])
        written = limited & (near | asked)
        kept = self.reduced.kept[self.reduced.kept < len(self.names)]
        written[kept] = limited[kept]
        nodes = np.flatnonzero(written)
        if not len(nodes):
            return
        at = incidence(Ports(nodes, np.full(len(nodes), -1)), self.reduced.t.shape[0])
        self._limit_square("vmag_sq", [self.names[k] for k in nodes], at, low[nodes], high[nodes])

    def _limit_square(
        self,
        quantity: str,
        names: Sequence[str],
        at: sparse.csr_matrix,
        low: FloatArray,
        high: FloatArray,
        to_unit: float = 1.0,
    ) -> None:
        """``low^2 <= |v|^2 <= high^2`` of ``v = at V``; ``to_unit`` as everywhere, of squares."""
        v = self.v.map(len(names), *entries(at @ self.reduced.t))
        pairs = [(v.re, v.re), (v.im, v.im)]
        sides = (side.reshape(-1, 1) ** 2 for side in (low, high))
        block = self.builder.quadratic(
            "bus", quantity, names, pairs, None, *sides, unit="pu^2", to_unit=to_unit, limit=True
        )
        self.slopes.append(of_squares(at, block))

    def _phase_limits(self) -> None:
        """Voltages between conductors, and the negative sequence as a share of the positive one, quadratic rows::

        V_1 = (V_a + a V_b + a^2 V_c) / 3,   V_2 = (V_a + a^2 V_b + a V_c) / 3,   a = exp(j 120 deg)
        |V_2|^2 <= unbalance_max^2 |V_1|^2                                    (Fortescue 1918; IEC 61000-3-13)
        """
        t = self.reduced.t
        for quantity, ports, low, high, names in limits_between(self.feeder, self.net, self.builder.copied):
            at = incidence(ports, t.shape[0])
            self._limit_square(quantity, names, at, low, high, BETWEEN_SQ[quantity])
        limited = [
            k
            for k, bus in enumerate(self.three_phase)
            if np.isfinite(self.feeder.bus[bus].unbalance_max) and not self._copied(bus, 1, 2, 3)
        ]
        if limited:
            positive, negative = self.sequences()
            own = np.array(limited)
            share = np.array([self.feeder.bus[self.three_phase[k]].unbalance_max for k in limited]).reshape(-1, 1)
            plus, minus = positive.take(own), negative.take(own)
            rows = [(minus.re, minus.re), (minus.im, minus.im)]
            rows += [(plus.re, plus.re * -(share**2)), (plus.im, plus.im * -(share**2))]
            names = [self.three_phase[k] for k in limited]
            scale = np.maximum(share**2, 1e-4)
            # the square of the limit on both sides: what is beyond it is said as a share, of a voltage of 1 pu
            square = Affine.constant(np.broadcast_to(share**2, (len(own), self.builder.n_steps)))
            block = self.builder.quadratic(
                "bus", "unbalance", names, rows, square, -np.inf, square, unit="share^2", scale=scale, limit=True
            )
            one, two = (m[own] for m in self._of_sequences())
            self.slopes.extend((of_squares(two, block), of_squares(one, block, -(share**2))))

    def _copied(self, bus: str, *conductors: int) -> bool:
        """Whether another area decides on these voltages, and looks after what they may be."""
        return all(f"{bus}.{c}" in self.builder.copied for c in conductors)

    @cached_property
    def three_phase(self) -> tuple[str, ...]:
        """Buses with phases 1, 2 and 3."""
        return tuple(bus.name for bus in three_phase_buses(self.feeder, self.net))

    def sequences(self) -> tuple[Complex, Complex]:
        """Positive- and negative-sequence voltages of the three-phase buses, each of shape (buses, T)."""
        positive, negative = (self.v.map(m.shape[0], *entries(m @ self.reduced.t)) for m in self._of_sequences())
        return positive, negative

    def _of_sequences(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Matrices from the voltages of all nodes to `sequences`."""
        n = len(self.three_phase)
        nodes = phase_nodes([self.feeder.bus[bus] for bus in self.three_phase], self.net).reshape(-1)
        at, shape = (np.repeat(np.arange(n), 3), nodes), (n, self.reduced.t.shape[0])
        turn = np.tile(np.asarray(np.exp(2j * np.pi / 3.0) ** np.array([0, 1, 2]) / 3.0, dtype=complex), n)
        return sparse.csr_matrix((turn, at), shape=shape), sparse.csr_matrix((turn.conj(), at), shape=shape)

    def unbalance_cost(self, weight: Affine) -> None:
        """``weight_t`` times the mean of ``|V_2|^2`` over the three-phase buses: convex."""
        if not self.three_phase:
            return
        _, negative = self.sequences()
        share = weight.take(np.zeros(negative.re.n, dtype=np.int64)) * (1.0 / negative.re.n)
        for part in (negative.re, negative.im):
            self.builder.minimise_squares(part, share)
        self.slopes.append(of_cost(self._of_sequences()[1], share))

    def _branch_limits(self) -> None:
        """Currents of lines and switches, and the power of transformers, where the operating point comes near to the
        limit or it was exceeded; the rest is looked at after the solve."""
        net, builder = self.net, self.builder
        legs = self.legs
        limited = np.flatnonzero(np.isfinite(net.i_max_pu))
        bounded = np.flatnonzero(np.isfinite(net.s_max_pu))
        if not (len(limited) or len(bounded)):
            return
        v0 = self.v0[: len(self.names)]
        i0 = legs.admittance @ (legs.ideal @ v0 - v0[legs.pick])
        near = np.abs(i0).max(axis=1) >= LIMIT_MARGIN * net.i_max_pu
        own = np.array([k for k in limited if self._wanted(net.legs[k], bool(near[k]))], dtype=np.int64)
        if len(own):
            current = self._leg_currents(own)
            limit = (net.i_max_pu[own] ** 2).reshape(-1, 1)
            shape = (len(own), self.builder.n_steps)
            block = builder.product(
                "branch",
                "i_limit",
                [net.legs[k] for k in own],
                [current.re, current.im],
                Affine.constant(np.broadcast_to(limit, shape)),
                Affine.constant(np.ones(shape)),
                unit="A",
                to_unit=self.base.s_kva / net.v_base_kv[net.to_node[own]],
                scale=limit,
                limit=True,
            )
            # both ends of a short leg are kept, and its current is a variable
            long = ~np.isin(own, self.short).reshape(-1, 1)
            self.slopes.append(of_squares(self._of_currents(own), block, long.astype(float)))
        s0 = self.through.at(self.v0, len(net.branch_names))
        s_max = net.s_max_pu / self.base.multiplicity
        near = np.abs(s0).max(axis=1) >= LIMIT_MARGIN * s_max
        own = np.array([b for b in bounded if self._wanted(net.branch_names[b], bool(near[b]))], dtype=np.int64)
        if len(own):
            self._power_limits(own, s_max[own].reshape(-1, 1), s0[own])

    def _wanted(self, name: str, near: bool) -> bool:  # noqa: FBT001
        """Whether a limit is written."""
        return near or not self.builder.screen_limits or name in self.builder.enforced

    def _power_limits(self, own: IntArray, s_max: FloatArray, s0: ComplexArray) -> None:
        """``|sum of W conj(I)| <= s_max`` with variables for P and Q; taps of no matter (`Through`)."""
        net, builder, through = self.net, self.builder, self.through
        place = np.full(len(net.branch_names), -1)
        place[own] = np.arange(len(own))
        rows = np.flatnonzero(place[through.branch] >= 0)
        names = [net.branch_names[b] for b in own]
        # no row is of a short branch: those are lines and switches
        w, i = (self.v.map(len(rows), *entries(m[rows] @ self.reduced.t)) for m in (through.w, through.i))
        start = np.broadcast_to(s0, (len(own), self.builder.n_steps))
        parts = []
        of_row = place[through.branch[rows]]
        widest = int(np.bincount(of_row).max())
        order = np.argsort(of_row, kind="stable")
        row = of_row[order]
        nth = np.arange(len(order)) - np.searchsorted(row, np.arange(len(own)))[row]
        for quantity, sides, values in (
            ("p_through", ((w.re, i.re, 1.0), (w.im, i.im, 1.0)), start.real),
            ("q_through", ((w.im, i.re, 1.0), (w.re, i.im, -1.0)), start.imag),
        ):
            power = builder.variable(
                "branch",
                quantity,
                names,
                unit="kVA",
                to_unit=self.base.total_kva,
                start=values,
                scale=s_max,
                limit=False,
            )
            pairs = []
            for k in range(widest):
                take = (len(own), row[nth == k], order[nth == k], np.ones(int((nth == k).sum())))
                pairs += [(f.map_terms(*take), g.map_terms(*take) * sign) for f, g, sign in sides]
            rows_of = builder.quadratic("branch", quantity, names, pairs, -power, 0.0, 0.0, unit="kW", scale=s_max)
            kind = 1.0 if quantity == "p_through" else 1.0j
            self.slopes.append(of_power(through.w[rows], through.i[rows], rows_of, of_row, kind))
            parts.append(power)
        shape = (len(own), self.builder.n_steps)
        builder.product(
            "branch",
            "s_limit",
            names,
            parts,
            Affine.constant(np.broadcast_to(s_max**2, shape)),
            Affine.constant(np.ones(shape)),
            unit="kVA",
            to_unit=self.base.total_kva,
            scale=s_max**2,
            limit=True,
        )

    def _leg_currents(self, own: IntArray) -> Complex:
        """``I = Z^+ (A V_p - V_s)`` of legs; of short ones their variable."""
        current = self.v.map(len(own), *entries(self._of_currents(own) @ self.reduced.t))
        short = np.flatnonzero(np.isin(own, self.short))
        if self.short_current is None or not len(short):
            return current
        keep = np.ones((len(own), 1))
        keep[short] = 0.0
        place = np.searchsorted(self.short, own[short])
        one = np.ones(len(short))
        given = self.short_current.map(len(own), short, place, one.astype(complex))
        return Complex(current.re * keep, current.im * keep) + given

    def _of_currents(self, own: IntArray) -> sparse.csr_matrix:
        """Matrix from the voltages of all nodes to the currents of legs, shape (legs, n + m)."""
        legs = self.legs
        k = np.arange(len(legs.pick))
        ends = sparse.csr_matrix((np.ones(len(k)), (k, legs.pick)), shape=legs.ideal.shape)
        rows = (legs.admittance[own] @ (legs.ideal - ends)).tocsr()
        shape = (len(own), self.reduced.t.shape[0])  # internal nodes of decided taps are the last ones
        return sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=shape)


__all__ = ["LIMIT_MARGIN", "NEAR_PU", "Limits"]
