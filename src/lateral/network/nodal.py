"""The nodal equations of a power flow, whatever solves them: wires, sources, ports, and what a solution must meet.

::

    Y V = I_source - sum over ports of M' i(M V)          M: +1 at the first node, -1 at the second

A source without impedance fixes the voltages of its nodes (its rows leave the unknowns); no tiny impedance stands in
for it. Nodes that no source reaches are at zero volts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from lateral.errors import CaseError, Fault
from lateral.network.admittance import NodeIndex, Triplets, nodal_matrix
from lateral.network.feeder import Feeder
from lateral.network.port_loads import BoolArray, PortLoads
from lateral.network.schema import ComplexArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class TheveninSource:
    """A voltage behind an impedance.

    Attributes:
        name: for messages.
        nodes: positions of its nodes, shape (k,).
        e_volt: voltage behind the impedance, line to ground, V, shape (k, T).
        z_ohm: impedance matrix, ohm, shape (k, k); all zero: the node voltages are held exactly.
    """

    name: str
    nodes: IntArray
    e_volt: ComplexArray
    z_ohm: ComplexArray

    @property
    def ideal(self) -> bool:
        """Whether there is no impedance."""
        return not np.any(self.z_ohm)


@dataclass(frozen=True, eq=False)
class NodalNetwork:
    """The linear part of a feeder.

    Attributes:
        index: the nodes.
        y: admittance of the wires, siemens, csc.
        y_shunt: admittance of constant-impedance devices (capacitors), siemens, csc, or None.
        reciprocal: whether every wire's matrix is symmetric.
        multiplicity: how many conductors a modelled conductor stands for; powers reported are totals.
    """

    index: NodeIndex
    y: sparse.csc_matrix
    y_shunt: sparse.csc_matrix | None = None
    multiplicity: int = 1
    reciprocal: bool = True

    @cached_property
    def pairs(self) -> Pairs:
        """The wires in the form that does not lose digits on short lines."""
        return Pairs(self.y, reciprocal=self.reciprocal)

    @classmethod
    def of(cls, feeder: Feeder, shunts: Triplets | None = None) -> NodalNetwork:
        """The network of a feeder, with the admittance of further shunts."""
        index = NodeIndex.of(feeder)
        extra = None
        if shunts is not None and shunts.values.size:
            extra = shunts.matrix(len(index))
        reciprocal = all(wire.is_reciprocal for wire in feeder.admittances)
        return cls(index, nodal_matrix(feeder, index), extra, feeder.n_phases, reciprocal)


@dataclass(frozen=True, eq=False)
class PowerFlow:
    """A solved power flow, T steps.

    Attributes:
        index: the nodes.
        v: node voltages, V, complex, shape (n, T).
        iterations: iterations used by each step, shape (T,).
        converged: whether each step meets both tolerances, recomputed at ``v``, shape (T,).
        change_pu: largest correction that one more iteration would make, pu of the node base, shape (T,).
        mismatch_kva: largest current residual at a node, beyond what rounding its voltage alone makes, times the
            voltage base, kVA, shape (T,).
        sources_kva: complex power that each source gives at its terminals, total, shape (n_sources, T).
        losses_kw: losses of the wires, total, shape (T,).
        energized: whether a source reaches each node, shape (n,); the others are at zero volts and draw nothing.
        methods: what solved each step (of a step that did not converge: what was tried last), see
            `lateral.network.powerflow.METHODS`, length T.
    """

    index: NodeIndex
    v: ComplexArray
    iterations: IntArray
    converged: BoolArray
    change_pu: FloatArray
    mismatch_kva: FloatArray
    sources_kva: ComplexArray
    losses_kw: FloatArray
    energized: BoolArray
    methods: tuple[str, ...]

    @cached_property
    def v_pu(self) -> ComplexArray:
        """Node voltages, per unit of each bus's base, complex, shape (n, T)."""
        v: ComplexArray = self.v / (1000.0 * self.index.v_base_kv[:, None])
        return v

    @cached_property
    def vmag_pu(self) -> FloatArray:
        """Voltage magnitudes, pu, shape (n, T)."""
        return np.abs(self.v_pu)

    @property
    def source_kva(self) -> ComplexArray:
        """Complex power of all sources together, shape (T,)."""
        total: ComplexArray = self.sources_kva.sum(axis=0)
        return total

    @property
    def all_converged(self) -> bool:
        """Whether every step converged."""
        return bool(np.all(self.converged))


class Factor:
    """A sparse LU factor of the rows and columns of a matrix that no source holds.

    Attributes:
        free: the rows and columns; None for all of them.
        split: the part of each port's nominal admittance that is in the matrix, siemens, shape (n_ports,).
    """

    def __init__(self, matrix: sparse.csc_matrix, free: IntArray | None, split: ComplexArray) -> None:
        self.free, self.split = free, split
        if free is not None:
            matrix = matrix[free][:, free].tocsc()
        self.empty = matrix.shape[0] == 0
        if not self.empty:
            self.lu = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.01, options={"SymmetricMode": True})

    def correction(self, residual: ComplexArray) -> ComplexArray:
        """``(Y + Y_c)^-1 r`` on the free nodes, zero on the others."""
        if self.empty:
            return np.zeros_like(residual)
        if self.free is None:
            x: ComplexArray = self.lu.solve(residual)
            return x
        out = np.zeros_like(residual)
        out[self.free] = self.lu.solve(residual[self.free])
        return out


def _floating(index: NodeIndex) -> CaseError:
    return CaseError(
        [
            Fault(
                "PF-001 singular network",
                f"feeder of {len(index)} nodes",
                "a nodal matrix without inverse",
                "every node held by wires or loads",
                "Look for an ungrounded winding without antifloat.",
            )
        ]
    )


class Pairs:
    """A nodal matrix as admittances between pairs of nodes and from nodes to ground.

    ``(Y V)_i = sum_j -y_ij (V_i - V_j) + g_i V_i``, ``g_i`` the row sum. In this form the currents of a pair cancel
    to the last bit, so that the rounding of a very short line (1e7 S) does not act as a current to ground. Where the
    two admittances of a pair differ (an element that is not reciprocal), what y_ji has more than y_ij is added apart.
    """

    def __init__(self, y: sparse.csc_matrix, *, reciprocal: bool = True) -> None:
        upper = sparse.triu(y, k=1).tocoo()
        self.difference = _differences(upper, y.shape[0])
        self.back = self.difference.T.tocsr()
        self.between = -upper.data[:, None]
        self.ground = _row_sums(y).reshape(-1, 1)
        self.more = None if reciprocal else _OneWay(y)

    def __matmul__(self, v: ComplexArray) -> ComplexArray:
        """Y V."""
        i: ComplexArray = self.back @ (self.between * (self.difference @ v)) + self.ground * v
        return i if self.more is None else i + self.more @ v


class _OneWay:
    """What y_ji has more than y_ij, for all i < j: currents into j alone."""

    def __init__(self, y: sparse.csc_matrix) -> None:
        more = (sparse.tril(y, k=-1).T - sparse.triu(y, k=1)).tocoo()
        n = y.shape[0]
        self.difference = _differences(more, n)
        self.into = sparse.csr_matrix((more.data, (more.col, np.arange(more.nnz))), shape=(n, more.nnz))

    def __matmul__(self, v: ComplexArray) -> ComplexArray:
        i: ComplexArray = self.into @ (self.difference @ v)
        return i


def _differences(pairs: sparse.coo_matrix, n: int) -> sparse.csr_matrix:
    """D with ``D V = V_i - V_j`` for every pair, shape (pairs, n)."""
    k = np.arange(pairs.nnz)
    signs = np.concatenate([np.ones(len(k)), -np.ones(len(k))]).astype(complex)
    rows, columns = np.concatenate([k, k]), np.concatenate([pairs.row, pairs.col])
    return sparse.csr_matrix((signs, (rows, columns)), shape=(len(k), n))


def _row_sums(y: sparse.csc_matrix) -> ComplexArray:
    """Row sums in extended precision, so that they do not depend on the order of the nodes: a floating delta is held by
    1e-12 of the admittances that cancel here.
    """
    rows = y.tocsr()
    out = np.zeros(rows.shape[0], dtype=complex)
    live = np.flatnonzero(np.diff(rows.indptr))
    if live.size:
        for part, data in ((out.real, rows.data.real), (out.imag, rows.data.imag)):
            part[live] = np.add.reduceat(data.astype(np.longdouble), rows.indptr[live])
    return out


class Equations:
    """The equations in matrix form: what is missing in the current balance of the nodes that no source holds.

    Attributes:
        n: number of nodes.
        n_steps: number of steps T.
        volt: voltage base of each node, V, shape (n, 1).
        y: wires, shunts and source impedances together, siemens, csc.
        ports: incidence M of the ports, csr, shape (n_ports, n); ``ports_t`` its transpose.
        energized: whether a source reaches each node, shape (n,).
        held: positions of the nodes that are no unknowns (of ideal sources, and dead ones).
        free: the others; None when that is all of them.
    """

    def __init__(
        self,
        network: NodalNetwork,
        loads: PortLoads,
        sources: Sequence[TheveninSource],
        n_steps: int,
        injected: ComplexArray | None = None,
    ) -> None:
        self.network, self.loads, self.sources, self.injected = network, loads, tuple(sources), injected
        self.n, self.n_steps = len(network.index), n_steps
        self.volt = 1000.0 * network.index.v_base_kv[:, None]
        y = network.y if network.y_shunt is None else network.y + network.y_shunt
        held = []
        self.norton: list[ComplexArray | None] = []
        blocks = []
        for source in self.sources:
            if source.ideal:
                held.append(source.nodes)
                self.norton.append(None)
                continue
            try:
                y_source: ComplexArray = np.linalg.inv(source.z_ohm).astype(complex)
            except np.linalg.LinAlgError:
                raise CaseError([_bad_source(source)]) from None
            self.norton.append(y_source)
            blocks.append(Triplets.of_blocks(source.nodes[None], y_source[None]))
        if blocks:
            y = y + Triplets.join(blocks).matrix(self.n)
        self.y = y.tocsc()
        self.rounding = 16.0 * np.finfo(float).eps * np.abs(self.y.diagonal())[:, None] * self.volt
        k = np.arange(len(loads))
        pairs = np.flatnonzero(loads.node_b >= 0)
        rows = np.concatenate([k, pairs])
        columns = np.concatenate([loads.node_a, loads.node_b[pairs]])
        signs = np.concatenate([np.ones(len(k)), -np.ones(len(pairs))])
        self.ports = sparse.csr_matrix((signs.astype(complex), (rows, columns)), shape=(len(k), self.n))
        self.ports_t = self.ports.T.tocsr()
        self.energized = self._reached(pairs)
        dead = np.flatnonzero(~self.energized)
        self.held = np.unique(np.concatenate([*held, dead])).astype(np.int64)
        self.free = np.setdiff1d(np.arange(self.n), self.held) if self.held.size else None

    def _reached(self, pairs: IntArray) -> BoolArray:
        """Nodes joined to a source by wires or ports."""
        y = self.y.tocoo()
        live = y.data != 0.0
        a = np.concatenate([y.row[live], self.loads.node_a[pairs]])
        b = np.concatenate([y.col[live], self.loads.node_b[pairs]])
        pattern = sparse.csr_matrix((np.ones(len(a)), (a, b)), shape=(self.n, self.n))
        _, part = connected_components(pattern, directed=False)
        fed = np.concatenate([part[s.nodes] for s in self.sources] or [np.zeros(0, dtype=np.int64)])
        reached: BoolArray = np.isin(part, fed)
        return reached

    def factor(self, steps: IntArray, *, whole: bool) -> Factor:
        """LU of the free part of Y + Y_c; with the whole of Y_c where loads alone hold a node (a floating neutral)."""
        split = self.loads.split(steps, whole=whole)
        matrix = self.y
        if split.any():
            matrix = matrix + self.ports_t @ sparse.diags(split) @ self.ports
        try:
            return Factor(matrix.tocsc(), self.free, split)
        except RuntimeError:
            if whole:
                raise _floating(self.network.index) from None
            return self.factor(steps, whole=True)

    def held_at(self) -> ComplexArray:
        """Zero volts, but the voltage of the sources at the nodes that they hold."""
        v = np.zeros((self.n, self.n_steps), dtype=complex)
        for source in self.sources:
            if source.ideal:
                v[source.nodes] = source.e_volt
        return v

    def unloaded(self, factor: Factor, steps: IntArray) -> ComplexArray:
        """The voltages with the constant-admittance parts in the factor alone, V, shape (n, len(steps))."""
        v = self.held_at()[:, steps]
        v += factor.correction(self.linear_residual(v, steps))
        return v

    def load_currents(self, v: ComplexArray, steps: IntArray) -> ComplexArray:
        """Currents that the ports draw from the nodes, A."""
        across = self.ports @ v
        u = np.abs(across) / (1000.0 * self.loads.v_rated_kv[:, None])
        drawn: ComplexArray = self.ports_t @ (self.loads.factors(u, steps) * across)
        return drawn

    def linear_residual(self, v: ComplexArray, steps: IntArray, wires: ComplexArray | None = None) -> ComplexArray:
        """The residual without the ports, A; ``wires``: what the wires take at v, where it is known."""
        r: ComplexArray = -(self.network.pairs @ v if wires is None else wires)
        if self.network.y_shunt is not None:
            r -= self.network.y_shunt @ v
        for source, y_source in zip(self.sources, self.norton, strict=True):
            if y_source is not None:
                # the difference first: a stiff source is 1e7 S
                np.add.at(r, source.nodes, y_source @ (source.e_volt[:, steps] - v[source.nodes]))
        if self.injected is not None:
            r += self.injected[:, steps]
        r[self.held] = 0.0
        return r

    def residual(self, v: ComplexArray, steps: IntArray) -> ComplexArray:
        """What is missing in the current balance of each free node, A."""
        r = self.linear_residual(v, steps) - self.load_currents(v, steps)
        r[self.held] = 0.0
        return r

    def sizes(self, change: ComplexArray) -> FloatArray:
        """The largest of some voltages, pu of the node bases, shape (T,)."""
        square = np.square(change.real) + np.square(change.imag)
        biggest: FloatArray = np.sqrt(np.max(square / self.volt**2, axis=0, initial=0.0))
        return biggest

    def result(
        self,
        v: ComplexArray,
        factor: Factor,
        *,
        iterations: IntArray,
        methods: Sequence[str],
        newton_change: FloatArray,
        tolerance_pu: float,
        mismatch_tolerance: float,
    ) -> PowerFlow:
        """What is reported, recomputed from the voltages alone; ``v`` is refined where rounding has added up.

        Args:
            v: voltages, V, shape (n, T).
            factor: of the fixed point.
            iterations: of each step, shape (T,).
            methods: what solved each step, length T.
            newton_change: correction that Newton's method would make next, pu; NaN: not its step, shape (T,).
            tolerance_pu, mismatch_tolerance: see `solve_power_flow`.
        """
        by_newton = np.isfinite(newton_change)
        with np.errstate(over="ignore", invalid="ignore"):
            wires, drawn, residual, correction = self._balance(v, factor)
            change = np.where(by_newton, newton_change, self.sizes(correction))
            rough = (change > 0.5 * tolerance_pu) & (change < 1e4 * tolerance_pu) & ~by_newton
            for _ in range(2):
                if not rough.any():
                    break
                before, last = v[:, rough], change
                v[:, rough] += correction[:, rough]
                wires, drawn, residual, correction = self._balance(v, factor)
                change = np.where(by_newton, newton_change, self.sizes(correction))
                # acceleration can settle where the plain fixed point leads away
                worse = rough & ~(change < last)
                if worse.any():
                    v[:, worse] = before[:, worse[rough]]
                    wires, drawn, residual, correction = self._balance(v, factor)
                    change = np.where(by_newton, newton_change, self.sizes(correction))
                rough &= ~worse & (change > 0.5 * tolerance_pu)
            given: list[ComplexArray] = []
            for source, y_source in zip(self.sources, self.norton, strict=True):
                at = v[source.nodes]
                if y_source is None:
                    current = self._taken(v, wires, drawn)[source.nodes]
                else:
                    current = y_source @ (source.e_volt - at)
                given.append(1e-3 * np.sum(at * current.conj(), axis=0))
            sources_kva = np.array(given, dtype=complex).reshape(len(given), self.n_steps)
            excess = np.maximum(np.abs(residual) - self.rounding, 0.0)
            mismatch = np.max(excess * 1e-3 * self.volt, axis=0, initial=0.0)
            load_kva = np.hypot(self.loads.p_kw, self.loads.q_kvar).sum(axis=0)
            scale = np.maximum(np.maximum(np.abs(sources_kva).max(axis=0, initial=0.0), load_kva), 1.0)
            settled = (change <= 10.0 * tolerance_pu) & (mismatch <= mismatch_tolerance * scale)
            losses = 1e-3 * np.sum(v.conj() * wires, axis=0).real
        times = self.network.multiplicity
        return PowerFlow(
            self.network.index,
            v,
            iterations,
            settled & np.all(np.isfinite(v), axis=0),
            change,
            mismatch,
            sources_kva * times,
            losses * times,
            self.energized,
            tuple(methods),
        )

    def _balance(
        self, v: ComplexArray, factor: Factor
    ) -> tuple[ComplexArray, ComplexArray, ComplexArray, ComplexArray]:
        """What the wires and what the ports take, what is missing, A; and the correction for it, V."""
        every = np.arange(self.n_steps)
        wires = self.network.pairs @ v
        drawn = self.load_currents(v, every)
        residual = self.linear_residual(v, every, wires) - drawn
        residual[self.held] = 0.0
        return wires, drawn, residual, factor.correction(residual)

    def _taken(self, v: ComplexArray, wires: ComplexArray, drawn: ComplexArray) -> ComplexArray:
        """What wires, shunts and ports take from the nodes, A."""
        taken: ComplexArray = wires + drawn
        if self.network.y_shunt is not None:
            taken = taken + self.network.y_shunt @ v
        if self.injected is not None:
            taken = taken - self.injected
        for source, y_source in zip(self.sources, self.norton, strict=True):
            if y_source is not None:  # another source at the same node
                np.add.at(taken, source.nodes, y_source @ (v[source.nodes] - source.e_volt))
        return taken


def _bad_source(source: TheveninSource) -> Fault:
    return Fault(
        "PF-002 singular source",
        f"source.{source.name}",
        "an impedance matrix without inverse",
        "a regular impedance matrix, or zero throughout",
        "Give every conductor of the source an impedance, or none of them.",
    )


__all__ = ["Equations", "Factor", "NodalNetwork", "PowerFlow", "TheveninSource"]
