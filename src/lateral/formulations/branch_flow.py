"""The branch-flow family: one balance and one voltage drop, written once.

Per leg k (one receiving conductor of a branch, from sending nodes i to node j) and step t, with the ideal part A and
the series impedance Z of `lateral.network.branches` (Baran and Wu 1989; Farivar and Low 2013; Gan and Low 2014)::

    w_k = sum_i alpha_ki v_i                                          voltage behind the ideal part
    v_j = w_k - 2 sum_m Re( zeta_km conj(S_m) ) + d_k                 voltage drop
    S_k - L_k + s_j = sum_m mu_mj S_m                                 balance at node j, complex

    S = P + jQ   power into the series impedance      v, w   squared voltage magnitudes
    L            series loss of the leg               d      squared voltage drop |Z I|^2
    s_j          what devices inject at node j

    alpha_ki = Re(A_ki V_i conj(W_k)) / |V_i|^2,   zeta_km = Z_km conj(W_k) / conj(W_m),   mu_ki = V_i conj(A_ki) / W_k

For one conductor per bus these are |A|^2, Z and 1 (a phase shift does not matter), and nothing is neglected but what a
leaf says of L and d. For several conductors the ratios of voltages are taken at an operating point: this is exact
there, and first order in the angles elsewhere.

A leaf says what L and d are: zero (LinDistFlow), r l and |z|^2 l with a row that ties l (SOC, exact), or constants of
the operating point (LinDist3Flow).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from lateral.errors import Fault
from lateral.formulations.base import Formulation, OperatingPoint
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder, TreeHint, stack
from lateral.program.ports import NetworkModel, Ports
from lateral.units import Base

#: A limit is written as a row only when the flow could come this near to it (share of the limit); see `_reachable`.
LIMIT_MARGIN = 0.9


class BranchFlowModel(NetworkModel):
    """Variables and rows that the whole family shares; leaves add what differs."""

    def __init__(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint | None,
    ) -> None:
        self.builder = builder
        self.net = network
        self.base = base
        self.n_steps = builder.n_steps
        self._grounded = frozenset(network.grounded)
        self._injected: list[tuple[IntArray, Affine, Affine]] = []
        self._loss_weights: list[Affine] = []
        self._ports_v = _point_voltage(network, point)
        self._names = tuple(f"{bus}.{c}" for bus, c in network.nodes)
        low, high = self._voltage_limits(feeder)
        self.v = builder.variable(
            "bus", "vmag_sq", self._names, unit="pu^2", lower=low, upper=high, start=np.abs(self._ports_v[:, :1]) ** 2
        )

    def _voltage_limits(self, feeder: Feeder) -> tuple[FloatArray, FloatArray]:
        """Squared limits per node; none at the source's own nodes, whose voltage is given."""
        low = np.array([feeder.bus[bus].v_min_pu for bus, _ in self.net.nodes], dtype=float) ** 2
        high = np.array([feeder.bus[bus].v_max_pu for bus, _ in self.net.nodes], dtype=float) ** 2
        low[self.net.roots], high[self.net.roots] = 0.0, np.inf
        return low.reshape(-1, 1), high.reshape(-1, 1)

    # -- ports ----------------------------------------------------------------------------------------------------

    def node(self, bus: str, conductor: int) -> int:
        """See `NetworkModel.node`."""
        if conductor == 0 or (bus, conductor) in self._grounded:
            return -1
        return self.net.position[bus, conductor]

    def base_kv(self, nodes: IntArray) -> FloatArray:
        """See `NetworkModel.base_kv`."""
        return self.net.v_base_kv[nodes]

    def inject(self, ports: Ports, p: Affine, q: Affine) -> None:
        """See `NetworkModel.inject`. Across two conductors: ``s_a = s V_a / (V_a - V_b)``, ``s_b = s - s_a``."""
        single = np.flatnonzero((ports.b < 0) | (ports.a < 0))
        if len(single) == len(ports):
            self._injected.append((np.maximum(ports.a, ports.b), p, q))
            return
        if len(single):
            self._injected.append((np.maximum(ports.a, ports.b)[single], p.take(single), q.take(single)))
        pair = np.flatnonzero((ports.b >= 0) & (ports.a >= 0))
        a, b = ports.a[pair], ports.b[pair]
        v_a, v_b = self._ports_v[a], self._ports_v[b]
        share = v_a / (v_a - v_b)
        p_ab, q_ab = p.take(pair), q.take(pair)
        for nodes, kappa in ((a, share), (b, 1.0 - share)):
            re, im = self._over_time(kappa.real), self._over_time(kappa.imag)
            self._injected.append((nodes, p_ab * re - q_ab * im, p_ab * im + q_ab * re))

    def shunt(self, ports: Ports, g: FloatArray, b: FloatArray) -> None:
        """See `NetworkModel.shunt`: draws ``g |V|^2`` and gives ``b |V|^2``."""
        v = self.power_of_v(ports, np.full(len(ports), 2.0))
        self.inject(ports, v * (-g.reshape(-1, 1)), v * b.reshape(-1, 1))

    def power_of_v(self, ports: Ports, exponent: FloatArray) -> Affine:
        """See `NetworkModel.power_of_v`: ``|V0|^e + e/2 |V0|^(e-2) (|V|^2 - |V0|^2)`` at the operating point."""
        v_sq = self._port_vmag_sq(ports)
        ref = self._over_time(self.reference_v(ports))
        e = exponent.reshape(-1, 1)
        bent = [value for value in np.unique(exponent).tolist() if value not in (0.0, 2.0)]
        self.builder.first_order.update(f"|V|^{value:g} of loads is taken to first order" for value in bent)
        with np.errstate(divide="ignore"):
            slope = np.where(e == 0.0, 0.0, 0.5 * e * ref ** (e - 2.0))
        return v_sq * slope + (ref**e - slope * ref**2)

    def reference_v(self, ports: Ports) -> FloatArray:
        """See `NetworkModel.reference_v`."""
        return np.abs(self._voltage(ports.a) - self._voltage(ports.b))

    def _voltage(self, nodes: IntArray) -> ComplexArray:
        padded = np.vstack([self._ports_v, np.zeros((1, self._ports_v.shape[1]))])
        return padded[nodes]

    def _port_vmag_sq(self, ports: Ports) -> Affine:
        """|V_a - V_b|^2 at fixed angles: ``sum_i Re(c_i V_i conj(W)) / |V_i|^2 v_i``, c = (1, -1), W = V_a - V_b."""
        if np.all(ports.b < 0):
            return self.v.take(ports.a)
        w = self._voltage(ports.a) - self._voltage(ports.b)
        out, source, weight = [], [], []
        for nodes, sign in ((ports.a, 1.0), (ports.b, -1.0)):
            has = np.flatnonzero(nodes >= 0)
            v = self._ports_v[nodes[has]]
            out.append(has)
            source.append(nodes[has])
            weight.append(sign * (v * np.conj(w[has])).real / np.abs(v) ** 2)
        return self.v.map_terms(
            len(ports), np.concatenate(out), np.concatenate(source), self._weights(np.concatenate(weight))
        )

    def _over_time(self, values: FloatArray) -> FloatArray:
        """Values of shape (n, 1) or (n, T), as they broadcast."""
        return values if values.shape[1] in (1, self.n_steps) else np.repeat(values, self.n_steps, axis=1)

    def _weights(self, values: FloatArray) -> FloatArray:
        """Coefficients of `Affine.map_terms`: (K,) when constant over time, else (K, T)."""
        return values[:, 0] if values.shape[1] == 1 else values

    def node_vmag_sq(self) -> tuple[Sequence[str], Affine]:
        """See `NetworkModel.node_vmag_sq`."""
        return self._names, self.v

    # -- sources --------------------------------------------------------------------------------------------------

    def feed(
        self, name: str, nodes: IntArray, e_sq: Affine, angle: FloatArray, z: ComplexArray
    ) -> tuple[Affine, Affine]:
        """See `NetworkModel.feed`. With E = V + Z I and I from the power given at the nodes::

        |E_k|^2 = v_k + 2 sum_m Re( Z_km conj(s_m) V_k^* / V_m^* ) + |Z I|_k^2
        """
        elements = [f"{name}.{self.net.nodes[i][1]}" for i in nodes]
        p = self.builder.variable("feed", "p", elements, unit="kW", to_unit=self.base.total_kva, limit=False)
        q = self.builder.variable("feed", "q", elements, unit="kvar", to_unit=self.base.total_kva, limit=False)
        self._injected.append((nodes, p, q))
        v = self.v.take(nodes)
        if not np.any(z):
            self.builder.equal("feed", "voltage", elements, v, e_sq)
            return p, q
        v0 = self._ports_v[nodes]
        drop_0 = np.sqrt(self.builder.present(e_sq)) * np.exp(1j * angle.reshape(-1, 1)) - v0
        out, source = np.divmod(np.arange(z.size), len(nodes))
        zeta = z.reshape(-1, 1) * np.conj(v0[out]) / np.conj(v0[source])
        drop = p.map_terms(len(nodes), out, source, self._weights(2.0 * zeta.real)) + q.map_terms(
            len(nodes), out, source, self._weights(2.0 * zeta.imag)
        )
        self.builder.equal(
            "feed", "voltage", elements, v + drop + self._source_drop_sq(elements, nodes, p, q, v, z, drop_0), e_sq
        )
        return p, q

    @abstractmethod
    def _source_drop_sq(
        self,
        elements: Sequence[str],
        nodes: IntArray,
        p: Affine,
        q: Affine,
        v: Affine,
        z: ComplexArray,
        drop_0: ComplexArray,
    ) -> Affine:
        """|Z I|^2 across a source's impedance, shape (nodes, T)."""

    def _offset(self, ideal: ComplexArray) -> ComplexArray:
        """Voltage to add behind the ideal parts, shape (K, 1 or T): none, unless a leaf knows of a common mode."""
        return np.zeros((self.net.n_legs, 1), dtype=complex)

    # -- legs: what a leaf says -----------------------------------------------------------------------------------

    @abstractmethod
    def _series(self, w: Affine) -> tuple[Affine, Affine, Affine]:
        """(L_P, L_Q, d) of every leg, each of shape (K, T), with w the voltage behind the ideal part."""

    @abstractmethod
    def _limit_current(self, legs: IntArray, names: Sequence[str], limit_sq: FloatArray, w: Affine) -> None:
        """Keep |I|^2 of some legs under limit_sq, shape (legs,)."""

    # -- close ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write flows, balances, drops and limits."""
        net, builder, n_steps = self.net, self.builder, self.n_steps
        p_in = _at_nodes(net.n_nodes, [(n, p) for n, p, _ in self._injected], n_steps)
        q_in = _at_nodes(net.n_nodes, [(n, q) for n, _, q in self._injected], n_steps)
        p_in, q_in = self._with_shunts(p_in, q_in)

        self.leg_scale, reach = self._scales(p_in, q_in)
        kw = self.base.total_kva
        scale = self.leg_scale.reshape(-1, 1)
        self.p = builder.variable("branch", "p_from", net.legs, unit="kW", to_unit=kw, scale=scale, limit=False)
        self.q = builder.variable("branch", "q_from", net.legs, unit="kvar", to_unit=kw, scale=scale, limit=False)
        total = max(float(self.leg_scale.max(initial=0.0)), 1e-6)
        for name in ("feed.p", "feed.q"):
            builder.rescale(name, total)

        v_0 = self._ports_v
        ideal = _leg_voltage(net, v_0)
        offset = self._offset(ideal)
        w_0 = ideal + offset
        alpha = (net.a_val[:, None] * v_0[net.a_node] * np.conj(w_0[net.a_leg])).real / np.abs(v_0[net.a_node]) ** 2
        w = self.v.map_terms(net.n_legs, net.a_leg, net.a_node, self._weights(alpha))
        if np.any(offset):
            w = w + self._over_time((offset * np.conj(w_0)).real)
        loss_p, loss_q, drop_sq = self._series(w)

        # voltage drop
        zeta = net.z_val[:, None] * np.conj(w_0[net.z_row]) / np.conj(w_0[net.z_col])
        drop = self.p.map_terms(net.n_legs, net.z_row, net.z_col, self._weights(2.0 * zeta.real)) + self.q.map_terms(
            net.n_legs, net.z_row, net.z_col, self._weights(2.0 * zeta.imag)
        )
        builder.equal("branch", "drop", net.legs, self.v.take(net.to_node) - w + drop - drop_sq, unit="pu^2")

        # balance; the constant side is the load, so a row's dual is the price of one more unit of load
        mu = v_0[net.a_node] * np.conj(net.a_val)[:, None] / w_0[net.a_leg]
        re, im = self._weights(-mu.real), self._weights(mu.imag)
        arrive = (net.n_nodes, net.to_node, np.arange(net.n_legs), np.ones(net.n_legs))
        leave = (net.n_nodes, net.a_node, net.a_leg)
        p_row = (self.p - loss_p).map_terms(*arrive) + self.p.map_terms(*leave, re) + p_in
        q_row = (self.q - loss_q).map_terms(*arrive) + self.q.map_terms(*leave, re) + q_in
        if np.any(np.abs(mu.imag) > 1e-14):
            p_row = p_row + self.q.map_terms(*leave, im)
            q_row = q_row + self.p.map_terms(*leave, -im)
        node_scale = np.full(net.n_nodes, total)
        node_scale[net.to_node] = self.leg_scale
        row_scale = node_scale.reshape(-1, 1)
        builder.equal("bus", "p_balance", self._names, p_row, unit="kW", to_unit=kw, scale=row_scale)
        builder.equal("bus", "q_balance", self._names, q_row, unit="kvar", to_unit=kw, scale=row_scale)

        self._limits(w, w_0, reach)
        self._losses(w_0, self._loss_weights)
        builder.tree = self._tree()

    def add_unbalance_cost(self, weight: Affine) -> None:
        """See `NetworkModel.add_unbalance_cost`; nothing where there is no three-phase bus."""
        if any((bus, 2) in self.net.position and (bus, 3) in self.net.position for bus, c in self.net.nodes if c == 1):
            super().add_unbalance_cost(weight)

    def _with_shunts(self, p_in: Affine, q_in: Affine) -> tuple[Affine, Affine]:
        """Charging, magnetising and other wire admittances: ``s_i = -V_i conj(sum_j y_ij V_j)`` at fixed angles."""
        net = self.net
        if not len(net.shunt_y):
            return p_in, q_in
        i, j = net.shunt_i, net.shunt_j
        v_i, v_j = self._ports_v[i], self._ports_v[j]
        # V_i conj(V_j) = (v_i conj(V_j) / conj(V_i) + v_j V_i / V_j) / 2, first order in the magnitudes
        y = np.conj(net.shunt_y)[:, None]
        half_i, half_j = 0.5 * y * np.conj(v_j) / np.conj(v_i), 0.5 * y * v_i / v_j
        out = np.concatenate([i, i])
        source = np.concatenate([i, j])
        s = np.concatenate([half_i, half_j])
        p = self.v.map_terms(net.n_nodes, out, source, self._weights(-s.real))
        q = self.v.map_terms(net.n_nodes, out, source, self._weights(-s.imag))
        return p_in + p, q_in + q

    def _scales(self, p_in: Affine, q_in: Affine) -> tuple[FloatArray, FloatArray]:
        """Typical and largest possible apparent power of each leg: sums of what is downstream.

        A branch is scaled by its downstream load (floored at 5 % of the median), which decides whether a solver's
        tolerance means anything on small laterals (solver study, section 4).
        """
        builder = self.builder
        typical = (builder.magnitude(p_in, variables=False) + builder.magnitude(q_in, variables=False)).max(axis=1)
        largest = (builder.magnitude(p_in) + builder.magnitude(q_in)).max(axis=1)
        net = self.net
        down = np.column_stack([typical, largest])
        down[net.roots] = 0.0
        down[net.to_node, 1] += self._known_losses()
        for k, entries in _reversed_ideal(net):
            for node, share in entries:
                # all of the largest flow may come from any one sending node
                down[node] += down[net.to_node[k]] * (share, 1.0)
        leg = down[net.to_node]
        scale = leg[:, 0]
        positive = scale[scale > 0]
        floor = 0.05 * float(np.median(positive)) if len(positive) else 1e-3
        return np.maximum(scale, floor), leg[:, 1]

    def _known_losses(self) -> FloatArray:
        """Losses that the balance has as numbers, ``|L_P| + |L_Q|`` at their largest, shape (K,)."""
        return np.zeros(self.net.n_legs)

    def _limits(self, w: Affine, w_0: ComplexArray, reach: FloatArray) -> None:
        """Line and transformer limits that the flow could come near to; the rest cannot bind."""
        net = self.net
        if not self.builder.screen_limits:
            reach = np.full(net.n_legs, np.inf)
        size = np.abs(w_0).min(axis=1) * 0.9
        legs = np.flatnonzero(np.isfinite(net.i_max_pu) & (reach >= LIMIT_MARGIN * net.i_max_pu * size))
        if len(legs):
            names = [net.legs[k] for k in legs]
            self._limit_current(legs, names, net.i_max_pu[legs] ** 2, w.take(legs))
        per_branch = np.bincount(net.branch, weights=reach, minlength=len(net.branch_names))
        # the limit is of all phases; a balanced feeder carries its share per conductor
        s_max = net.s_max_pu / self.base.multiplicity
        limited = np.flatnonzero(np.isfinite(s_max) & (per_branch >= LIMIT_MARGIN * s_max))
        if len(limited):
            place = np.full(len(net.branch_names), -1)
            place[limited] = np.arange(len(limited))
            own = np.flatnonzero(place[net.branch] >= 0)
            total = (len(limited), place[net.branch[own]], own, np.ones(len(own)))
            s_sq = s_max[limited] ** 2
            self.builder.product(
                "branch",
                "s_limit",
                [net.branch_names[k] for k in limited],
                [self.p.map_terms(*total), self.q.map_terms(*total)],
                Affine.constant(np.repeat(s_sq.reshape(-1, 1), self.n_steps, axis=1)),
                Affine.constant(np.ones((len(limited), self.n_steps))),
                unit="kVA",
                to_unit=self.base.total_kva,
                scale=s_sq.reshape(-1, 1),
                limit=True,
            )

    def add_loss_cost(self, weight: Affine) -> None:
        """See `NetworkModel.add_loss_cost`; written in `close`, when the flows exist."""
        self._loss_weights.append(weight)

    @abstractmethod
    def _losses(self, w_0: ComplexArray, weights: Sequence[Affine]) -> None:
        """Declare the output ``system.losses``, shape (1, T), and add the losses' cost at each weight."""

    def _tree(self) -> TreeHint | None:
        """The tree, for one conductor per bus."""
        net = self.net
        if len(net.a_leg) != net.n_legs or len(net.z_row) != net.n_legs or len(net.roots) != 1:
            return None
        leg_of_node = np.full(net.n_nodes, -1)
        leg_of_node[net.to_node] = np.arange(net.n_legs)
        parent = np.empty(net.n_legs, dtype=np.int64)
        parent[net.a_leg] = leg_of_node[net.a_node]
        t = self.n_steps
        starts = np.full((net.n_legs, 4), -1)
        for column, name in enumerate(("branch.p_from", "branch.q_from", "branch.imag_sq")):
            start = self.builder.start_of(name)
            if start is not None:
                starts[:, column] = start + np.arange(net.n_legs) * t
        v_start = self.builder.start_of("bus.vmag_sq")
        starts[:, 3] = (v_start or 0) + net.to_node * t
        return TreeHint(parent, starts)


def quadratic_loss_terms(model: BranchFlowModel, w_0: ComplexArray) -> list[Affine]:
    """Series losses as a sum of squares of affine arrays, at fixed voltages behind the ideal part::

        loss = sum_km Re(conj(I_k) Z_km I_m),   I_k = conj(S_k) / conj(W_k)
             = sum_j |sum_k F_jk I_k|^2,   F' F = R  per branch (R clipped to be positive semidefinite)

    Returns arrays of shape (K, T): the real and the imaginary part of F I.
    """
    net = model.net
    f_row, f_col, f_val = _resistance_factors(net)
    # conj(S)/conj(W) = (P - jQ) W / |W|^2
    unit = w_0 / np.abs(w_0) ** 2
    c = f_val[:, None] * unit[f_col]
    size = net.n_legs
    re = model.p.map_terms(size, f_row, f_col, model._weights(c.real)) + model.q.map_terms(
        size, f_row, f_col, model._weights(c.imag)
    )
    im = model.p.map_terms(size, f_row, f_col, model._weights(c.imag)) - model.q.map_terms(
        size, f_row, f_col, model._weights(c.real)
    )
    return [re, im]


def _resistance_factors(net: RadialNetwork) -> tuple[IntArray, IntArray, FloatArray]:
    """F per branch with F'F = Re Z (symmetric part), as triplets over legs."""
    diagonal = net.z_row == net.z_col
    count = np.bincount(net.branch[net.z_row], minlength=len(net.branch_names))
    legs_of = np.bincount(net.branch, minlength=len(net.branch_names))
    simple = legs_of[net.branch[net.z_row]] == 1
    rows = [net.z_row[simple & diagonal]]
    cols = [net.z_col[simple & diagonal]]
    vals = [np.sqrt(np.maximum(net.z_val[simple & diagonal].real, 0.0))]
    first = np.searchsorted(net.branch, np.arange(len(net.branch_names)))
    order = np.argsort(net.branch[net.z_row], kind="stable")
    at = np.concatenate([[0], np.cumsum(count)])
    for b in np.flatnonzero(legs_of > 1):
        entries = order[at[b] : at[b + 1]]
        n, start = legs_of[b], first[b]
        r = np.zeros((n, n))
        r[net.z_row[entries] - start, net.z_col[entries] - start] = net.z_val[entries].real
        values, vectors = np.linalg.eigh(0.5 * (r + r.T))
        f = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        i, j = np.divmod(np.arange(n * n), n)
        rows.append(i + start)
        cols.append(j + start)
        vals.append(f.reshape(-1))
    return np.concatenate(rows), np.concatenate(cols), np.concatenate(vals)


def _reversed_ideal(net: RadialNetwork) -> list[tuple[int, list[tuple[int, float]]]]:
    """Legs from the leaves to the root, each with its sending nodes and their shares (by size of the ideal part)."""
    entries: list[list[tuple[int, float]]] = [[] for _ in range(net.n_legs)]
    for k, node, value in zip(net.a_leg.tolist(), net.a_node.tolist(), np.abs(net.a_val).tolist(), strict=True):
        entries[k].append((node, value))
    out = []
    for k in range(net.n_legs - 1, -1, -1):
        total = sum(value for _, value in entries[k])
        out.append((k, [(node, value / total) for node, value in entries[k]]))
    return out


def _at_nodes(n: int, parts: list[tuple[IntArray, Affine]], n_steps: int) -> Affine:
    """Injections summed at their nodes, shape (n, T)."""
    if not parts:
        return Affine.zeros(n, n_steps)
    whole = stack([a for _, a in parts])
    nodes = np.concatenate([k for k, _ in parts])
    return whole.map_terms(n, nodes, np.arange(whole.n), np.ones(whole.n))


def _point_voltage(network: RadialNetwork, point: OperatingPoint | None) -> ComplexArray:
    """Complex voltage of every kept node, shape (n, T or 1); ones without an operating point."""
    if point is None:
        return np.ones((network.n_nodes, 1), dtype=complex)
    place = {node: k for k, node in enumerate(point.nodes)}
    return point.v_pu[[place[node] for node in network.nodes]]


def _leg_voltage(net: RadialNetwork, v: ComplexArray) -> ComplexArray:
    """W = A V, shape (K, T)."""
    w = np.zeros((net.n_legs, v.shape[1]), dtype=complex)
    np.add.at(w, net.a_leg, net.a_val[:, None] * v[net.a_node])
    return w


def leg_current(net: RadialNetwork, drawn: ComplexArray) -> ComplexArray:
    """Current of every leg from what the nodes draw, shape (K, T): a sweep from the leaves to the root.

    ``I_k = drawn_j + sum of A' I of the legs that leave node j``; exact.
    """
    need = drawn.copy()
    order = np.argsort(net.a_leg, kind="stable")
    starts = np.searchsorted(net.a_leg[order], np.arange(net.n_legs + 1))
    current = np.zeros((net.n_legs, drawn.shape[1]), dtype=complex)
    # legs of one branch share no receiving node, and every branch comes after those that feed it
    for k in range(net.n_legs - 1, -1, -1):
        current[k] = need[net.to_node[k]]
        for e in order[starts[k] : starts[k + 1]]:
            need[net.a_node[e]] += net.a_val[e] * current[k]
    return current


class BranchFlowFormulation(Formulation):
    """What the formulations of the family share; a leaf names itself and its model."""

    #: the model that devices meet
    model: ClassVar[type[BranchFlowModel]]

    def declines(self, feeder: Feeder, network: RadialNetwork) -> tuple[Fault, ...]:
        """Loops; and more than one conductor per bus, for a balanced formulation."""
        faults = list(network.faults)
        several = [b for b in feeder.buses if len(b.conductors) > 1]
        if several and self.balanced_only:
            faults.append(
                Fault(
                    "FOR-001 not-balanced",
                    several[0].label,
                    f"{len(several)} buses with more than one conductor",
                    f"one conductor per bus in formulation {self.name!r}",
                    "Use a three-phase formulation such as 'lindist3flow', or a balanced copy (case.to_balanced()).",
                )
            )
        return (*faults, *_beyond_magnitudes(feeder, self.name))


def _beyond_magnitudes(feeder: Feeder, name: str) -> list[Fault]:
    """Limits that need voltage angles, which squared magnitudes do not have; the first of each kind is named."""
    rows = (
        ("limits between phases", [b for b in feeder.buses if b.vpp_min_pu > 0.0 or np.isfinite(b.vpp_max_pu)]),
        ("limits to a neutral", [b for b in feeder.buses if b.vpn_min_pu > 0.0 or np.isfinite(b.vpn_max_pu)]),
        ("limits of unbalance", [b for b in feeder.buses if np.isfinite(b.unbalance_max)]),
    )
    return [
        Fault(
            "FOR-021 limit-needs-angles",
            buses[0].label,
            f"{what} at {len(buses)} buses, with formulation {name!r}",
            "limits of the voltage to ground",
            "Use formulation 'current-voltage', or take these limits out.",
        )
        for what, buses in rows
        if buses
    ]


__all__ = ["BranchFlowFormulation", "BranchFlowModel", "leg_current", "quadratic_loss_terms"]
