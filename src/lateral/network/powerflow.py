"""Power flow on the nodal matrix, all steps at once.

The wires are linear, devices are currents at ports (pairs of nodes, the second may be ground)::

    Y V = I_source - sum over ports of M' i(M V)          M: +1 at the first node, -1 at the second
    i(U)  = (p f_p(u) - j q f_q(u)) / V_r^2  U            u = |U| / V_r,  V_r the rated voltage of the port

with ``f = 1/u^2`` for constant power, ``1/u`` for constant current, 1 for constant impedance, ``u^(e-2)`` for an
exponent e, and their sum for a ZIP load (`PortLoads`). The fixed point of Stevenson and Grainger's Z-bus method, in
the form that corrects itself (each iteration works on the true residual, so rounding does not build up)::

    V  <-  V + (Y + Y_c)^-1 (I_source - Y V - M' i(M V))

Y_c holds a part of the nominal admittance of each port: ``e/2`` of it for a power that follows ``V^e`` (all of it for
a constant impedance, none for a constant power), which is the part that leaves the smallest slope of the rest. One
sparse factor serves all steps and all iterations. Where that does not settle, it is tried again with the whole
nominal admittance of the step in the matrix (compensation currents), damped. A step that does not settle then is
reported as not converged: no other answer is made up for it.

Exact: nothing of the steady state at one frequency is neglected. A source without impedance fixes the voltages of
its nodes (its rows leave the unknowns); no tiny impedance stands in for it. Nodes that no source reaches are at zero
volts, and ``energized`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from lateral.errors import CaseError, Fault
from lateral.network.admittance import NodeIndex, Triplets, nodal_matrix
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray

BoolArray = NDArray[np.bool_]

#: Load models, with the OpenDSS numbers 1 to 8 in this order.
PORT_MODELS = (
    "constant_power",
    "constant_impedance",
    "constant_power_quadratic_q",
    "cvr",
    "constant_current",
    "constant_power_fixed_q",
    "constant_power_fixed_q_impedance",
    "zip",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class PortLoads:
    """What devices draw at ports, n ports and T steps. Power drawn is positive, per modelled conductor.

    Outside of the band ``v_min ... v_max`` a port turns into an impedance, the way OpenDSS's loads do, with the
    factor f of the module's equation (power part; current part)::

        u <= v_low            1
        v_low < u <= v_min    (v_low + s (u - v_low)) / u,   s = (1/v_min - v_low) / (v_min - v_low)
                              (current part: s = (1 - v_low) / (v_min - v_low))
        u > v_max             1 / v_max^2   (current part: 1 / v_max)

    Models 1, 3, 4 follow the power part there in p and q, model 8 each of its shares; models 6 and 7 hold
    ``1 / v_min^2`` for p and 1 for q instead (and q at its rated value below v_low too, where the engine takes the
    profile's). A ZIP port below its cut-off draws nothing, through the step
    ``(1 + tanh(500 (u - v_cut))) / 2``.

    Attributes:
        node_a: position of the first node, shape (n,).
        node_b: position of the second node, -1 for ground, shape (n,).
        p_kw: active power at rated voltage, shape (n, T).
        q_kvar: reactive power at rated voltage, shape (n, T).
        v_rated_kv: rated voltage across the port, shape (n,).
        model: index into `PORT_MODELS`, shape (n,).
        zip_p: shares of impedance, current, power in p (model zip), shape (n, 3).
        zip_q: the same in q.
        exponent: exponents of V in p and in q (model cvr), shape (n, 2).
        v_min_pu: lower edge of the band, shape (n,).
        v_max_pu: upper edge of the band, shape (n,).
        v_low_pu: where the port becomes its nominal impedance, shape (n,).
        v_cut_pu: cut-off of a zip port; 0 for none, shape (n,).
    """

    node_a: IntArray
    node_b: IntArray
    p_kw: FloatArray
    q_kvar: FloatArray
    v_rated_kv: FloatArray
    model: IntArray
    zip_p: FloatArray
    zip_q: FloatArray
    exponent: FloatArray
    v_min_pu: FloatArray
    v_max_pu: FloatArray
    v_low_pu: FloatArray
    v_cut_pu: FloatArray

    def __len__(self) -> int:
        return len(self.node_a)

    @classmethod
    def constant_power(
        cls,
        node_a: IntArray,
        node_b: IntArray,
        p_kw: FloatArray,
        q_kvar: FloatArray,
        v_rated_kv: FloatArray,
    ) -> PortLoads:
        """Ports that draw constant power at any voltage above zero."""
        n = len(node_a)
        share = np.tile([0.0, 0.0, 1.0], (n, 1))
        return cls(
            node_a=np.asarray(node_a, dtype=np.int64),
            node_b=np.asarray(node_b, dtype=np.int64),
            p_kw=np.asarray(p_kw, dtype=float),
            q_kvar=np.asarray(q_kvar, dtype=float),
            v_rated_kv=np.asarray(v_rated_kv, dtype=float),
            model=np.zeros(n, dtype=np.int64),
            zip_p=share,
            zip_q=share,
            exponent=np.zeros((n, 2)),
            v_min_pu=np.zeros(n),
            v_max_pu=np.full(n, np.inf),
            v_low_pu=np.zeros(n),
            v_cut_pu=np.zeros(n),
        )

    @classmethod
    def join(cls, parts: Sequence[PortLoads]) -> PortLoads:
        """Several sets of ports as one."""
        return cls(**{f: np.concatenate([getattr(p, f) for p in parts]) for f in cls.__dataclass_fields__})

    @cached_property
    def _law(self) -> tuple[_Law, _Law]:
        return _Law.of(self, 0), _Law.of(self, 1)

    def factors(self, u: FloatArray, steps: IntArray | slice = slice(None)) -> ComplexArray:
        """Admittance ``(p f_p(u) - j q f_q(u)) / V_r^2`` in siemens at per-unit port voltages u, shape (n, T)."""
        law_p, law_q = self._law
        scale = 1e-3 / self.v_rated_kv[:, None] ** 2
        y = np.empty(u.shape, dtype=complex)
        u = np.maximum(u, 1e-9)
        y.real = law_p(u, self) * (self.p_kw[:, steps] * scale)
        y.imag = law_q(u, self) * (self.q_kvar[:, steps] * -scale)
        cut = np.flatnonzero((self.v_cut_pu > 0.0) & (self.model == 7))
        if cut.size:
            step = 0.5 * (1.0 + np.tanh(500.0 * (u[cut] - self.v_cut_pu[cut, None])))
            y[cut] *= np.where(u[cut] <= self.v_low_pu[cut, None], 1.0, step)
        return y

    def split(self, steps: IntArray | slice = slice(None), *, whole: bool = False) -> ComplexArray:
        """The part of the nominal admittance that goes into the matrix, mean over the steps, siemens, (n,)."""
        law_p, law_q = self._law
        scale = 1e-3 / self.v_rated_kv**2
        p, q = self.p_kw[:, steps].mean(axis=1) * scale, self.q_kvar[:, steps].mean(axis=1) * scale
        one = np.ones(len(self))
        y = np.empty(len(self), dtype=complex)
        y.real = (one if whole else law_p.weight) * p
        y.imag = (one if whole else law_q.weight) * -q
        return y


@dataclass(frozen=True, eq=False)
class _Law:
    """How p (or q) of every port depends on u; see `PortLoads`."""

    inside: FloatArray  # shares of impedance, current, power within the band, (n, 3)
    outside: FloatArray  # the same outside of it
    powered: IntArray  # ports with an exponent
    exponent: FloatArray  # their exponents
    flat: BoolArray  # ports without interpolation below v_min
    weight: FloatArray  # part of the nominal admittance for the matrix, (n,)
    banded: bool  # whether any port can leave its band

    @classmethod
    def of(cls, ports: PortLoads, which: int) -> _Law:
        """The law of p (``which`` = 0) or of q (1)."""
        z, i, p = np.eye(3)
        inside_of = ((p, z, p, p, i, p, p, p), (p, z, z, p, i, p, z, p))[which]
        outside_of = ((p, z, p, p, i, p, p, p), (p, z, p, p, i, z, z, p))[which]
        inside, outside = np.array(inside_of)[ports.model], np.array(outside_of)[ports.model]
        zips = ports.model == 7
        inside[zips] = outside[zips] = (ports.zip_p, ports.zip_q)[which][zips]
        powered = np.flatnonzero(ports.model == 3)
        inside[powered] = 0.0
        weight = inside @ np.array([1.0, 0.5, 0.0])
        weight[powered] = 0.5 * ports.exponent[powered, which]
        flat = (ports.model == 5) | (ports.model == 6)
        # a v_min of 0 can not be passed (u > 0), an infinite v_max neither
        bends = (inside[:, 0] != 1.0) | (outside[:, 0] != 1.0)
        banded = bool(np.any(bends & ((ports.v_min_pu > 0) | np.isfinite(ports.v_max_pu))))
        return cls(inside, outside, powered, ports.exponent[powered, which], flat, weight, banded)

    def __call__(self, u: FloatArray, ports: PortLoads) -> FloatArray:
        """The factor f, shape (n, T)."""
        z, i, p = (self.inside[:, k, None] for k in range(3))
        inverse = 1.0 / u
        f: FloatArray = z + (i + p * inverse) * inverse
        if self.powered.size:
            f[self.powered] = u[self.powered] ** (self.exponent[:, None] - 2.0)
        if not self.banded:
            return f
        low, least, most = ports.v_low_pu[:, None], ports.v_min_pu[:, None], ports.v_max_pu[:, None]
        n, t = np.nonzero((u <= least) | (u > most) | (u <= low))
        if n.size == 0:
            return f
        uo, low, least, most = u[n, t], ports.v_low_pu[n], ports.v_min_pu[n], ports.v_max_pu[n]
        z, i, p = (self.outside[n, k] for k in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            above = z + np.where(most > 0.0, i / most + p / most**2, i + p)
            width = least - low
            part_p = (low + (1.0 / least - low) * (uo - low) / width) / uo
            part_i = (low + (1.0 - low) * (uo - low) / width) / uo
            part_p = np.where(self.flat[n], 1.0 / least**2, part_p)
            below = z + i * part_i + p * part_p
        f[n, t] = np.where(uo <= low, 1.0, np.where(uo <= least, below, above))
        return f


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
        multiplicity: how many conductors a modelled conductor stands for; powers reported are totals.
    """

    index: NodeIndex
    y: sparse.csc_matrix
    y_shunt: sparse.csc_matrix | None = None
    multiplicity: int = 1

    @classmethod
    def of(cls, feeder: Feeder, shunts: Triplets | None = None) -> NodalNetwork:
        """The network of a feeder, with the admittance of further shunts."""
        index = NodeIndex.of(feeder)
        extra = None
        if shunts is not None and shunts.values.size:
            extra = shunts.matrix(len(index))
        return cls(index, nodal_matrix(feeder, index), extra, feeder.n_phases)


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


class _Factor:
    """A sparse LU factor of the rows and columns of a matrix that no source holds."""

    def __init__(self, matrix: sparse.csc_matrix, free: IntArray | None) -> None:
        self.free = free
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


def solve_power_flow(
    network: NodalNetwork,
    loads: PortLoads,
    sources: Sequence[TheveninSource],
    *,
    n_steps: int,
    tolerance_pu: float = 1e-8,
    mismatch_tolerance: float = 1e-6,
    max_iterations: int = 200,
    start: ComplexArray | None = None,
    injected: ComplexArray | None = None,
) -> PowerFlow:
    """Solve all steps; see the module for equations and method.

    Args:
        network: the wires.
        loads: what is drawn at ports.
        sources: voltages behind impedances, at least one.
        n_steps: number of steps T.
        tolerance_pu: a step is settled when no voltage moves by more than this in an iteration, pu of its base. It
            counts as converged when the correction that would come next, recomputed, is below ten times this: the
            voltage to ground of a floating delta (held by antifloat alone) is known to about 1e-8 in doubles.
        mismatch_tolerance: and no nodal residual is larger than this times the largest power of the step (source or
            loads, at least 1 kVA).
        max_iterations: per step and attempt.
        start: voltages to start from, V, shape (n, T); absent: the solution with the constant-impedance parts only.
        injected: currents put into the nodes beside all others, A, shape (n, T).

    Returns:
        voltages and what is recomputed from them. Look at ``converged``.

    Raises:
        CaseError: the nodal matrix is singular, or a source has a singular impedance matrix that is not zero.
    """
    problem = _Problem(network, loads, sources, n_steps)
    if injected is not None:
        problem.injected += injected
    every = np.arange(n_steps)
    lu = problem.factor(every, whole=False)
    if start is None:
        v = problem.held_at()
        v += lu.correction(problem.linear_residual(v, every))
    else:
        v = np.array(start, dtype=complex)
        v[problem.held] = problem.held_at()[problem.held]
    iterations = np.zeros(n_steps, dtype=np.int64)
    left = problem.iterate(v, lu, every, tolerance_pu, max_iterations, iterations, 1.0)
    for step in left:
        # compensation currents of the whole nominal admittance of this step, damped at last
        alone = np.array([step])
        again = problem.factor(alone, whole=True)
        for damping in (1.0, 0.5, 0.2):
            trial = problem.held_at()
            trial[:, alone] += again.correction(problem.linear_residual(trial[:, alone], alone))
            unsettled = problem.iterate(trial, again, alone, tolerance_pu, max_iterations, iterations, damping)
            if not unsettled.size:
                break
        if np.all(np.isfinite(trial[:, step])):
            v[:, step] = trial[:, step]
    return problem.result(v, lu, iterations, tolerance_pu, mismatch_tolerance)


class _Pairs:
    """A symmetric nodal matrix as admittances between pairs of nodes and from nodes to ground.

    ``(Y V)_i = sum_j -y_ij (V_i - V_j) + g_i V_i``, ``g_i`` the row sum. In this form the currents of a pair cancel
    to the last bit, so that the rounding of a very short line (1e7 S) does not act as a current to ground.
    """

    def __init__(self, y: sparse.csc_matrix) -> None:
        upper = sparse.triu(y, k=1).tocoo()
        m = upper.nnz
        k = np.arange(m)
        signs = np.concatenate([np.ones(m), -np.ones(m)]).astype(complex)
        rows, columns = np.concatenate([k, k]), np.concatenate([upper.row, upper.col])
        self.difference = sparse.csr_matrix((signs, (rows, columns)), shape=(m, y.shape[0]))
        self.back = self.difference.T.tocsr()
        self.between = -upper.data[:, None]
        self.ground = np.asarray(y.sum(axis=1)).reshape(-1, 1)

    def __matmul__(self, v: ComplexArray) -> ComplexArray:
        """Y V."""
        i: ComplexArray = self.back @ (self.between * (self.difference @ v)) + self.ground * v
        return i


class _Mixer:
    """Anderson acceleration of a fixed point (Anderson 1965), each step on its own.

    With the differences of the last few points x and corrections f, that combination is taken whose linear
    prediction of the correction is least::

        x <- x + f - (dX + dF) gamma,   gamma = argmin |f - dF gamma|      over real gamma, voltages per unit

    A step whose correction has more than doubled forgets the past.
    """

    DEPTH = 5

    def __init__(self, volt: FloatArray) -> None:
        self.per_volt = 1.0 / volt
        self.x: ComplexArray | None = None
        self.f = np.zeros((0, 0), dtype=complex)
        self.size = np.zeros(0)
        self.steps = np.zeros(0, dtype=np.int64)
        self.moves: list[ComplexArray] = []  # dX + dF, V
        self.turns: list[ComplexArray] = []  # dF, pu
        self.gram = np.zeros((0, 0, 0))

    def mix(self, x: ComplexArray, f: ComplexArray, steps: IntArray) -> ComplexArray:
        """The next point for the given steps, which are among those of the last call."""
        if self.x is not None and len(steps) != len(self.steps):
            at = np.searchsorted(self.steps, steps)
            self.x, self.f, self.size, self.gram = self.x[:, at], self.f[:, at], self.size[at], self.gram[at]
            self.moves, self.turns = ([a[:, at] for a in past] for past in (self.moves, self.turns))
        g = self.per_volt * f
        size = _dot(g, g)
        plain: ComplexArray = x + f
        if self.x is None:
            self.gram = np.zeros((len(steps), 0, 0))
        else:
            self._push(plain - (self.x + self.f), self.per_volt * (f - self.f), size > 4.0 * self.size)
        self.x, self.f, self.size, self.steps = x, f, size, steps
        if not self.turns:
            return plain
        m = len(self.turns)
        right = np.stack([_dot(t, g) for t in self.turns], axis=1)
        ridge = 1e-14 * np.trace(self.gram, axis1=1, axis2=2)[:, None, None] + 1e-300
        gamma = np.linalg.solve(self.gram + ridge * np.eye(m), right[:, :, None])[:, :, 0]
        gamma[~np.isfinite(gamma).all(axis=1)] = 0.0
        for k, move in enumerate(self.moves):
            plain -= move * gamma[:, k]
        return plain

    def _push(self, move: ComplexArray, turn: ComplexArray, worse: BoolArray) -> None:
        if len(self.turns) == self.DEPTH - 1:
            self.moves, self.turns, self.gram = self.moves[1:], self.turns[1:], self.gram[:, 1:, 1:]
        if worse.any():
            for past in (*self.moves, *self.turns, move, turn):
                past[:, worse] = 0.0
            self.gram[worse] = 0.0
        self.moves, self.turns = [*self.moves, move], [*self.turns, turn]
        m = len(self.turns)
        row = np.stack([_dot(t, turn) for t in self.turns], axis=1)
        gram = np.zeros((len(worse), m, m))
        gram[:, : m - 1, : m - 1] = self.gram
        gram[:, m - 1, :] = gram[:, :, m - 1] = row
        self.gram = gram


def _dot(a: ComplexArray, b: ComplexArray) -> FloatArray:
    """Real inner product of each column."""
    dot: FloatArray = np.einsum("nt,nt->t", a.real, b.real) + np.einsum("nt,nt->t", a.imag, b.imag)
    return dot


class _Problem:
    """The equations in matrix form: ``injected - y V - M' i(M V) = 0`` at the nodes that no source holds."""

    def __init__(
        self, network: NodalNetwork, loads: PortLoads, sources: Sequence[TheveninSource], n_steps: int
    ) -> None:
        self.network, self.loads, self.sources = network, loads, sources
        self.n, self.n_steps = len(network.index), n_steps
        self.volt = 1000.0 * network.index.v_base_kv[:, None]
        self.injected = np.zeros((self.n, n_steps), dtype=complex)
        y = network.y if network.y_shunt is None else network.y + network.y_shunt
        held = []
        self.norton: list[ComplexArray | None] = []
        for source in sources:
            if source.ideal:
                held.append(source.nodes)
                self.norton.append(None)
                continue
            try:
                y_source: ComplexArray = np.linalg.inv(source.z_ohm).astype(complex)
            except np.linalg.LinAlgError:
                raise CaseError([_bad_source(source)]) from None
            self.norton.append(y_source)
            np.add.at(self.injected, source.nodes, y_source @ source.e_volt)
            t = Triplets.of_blocks(source.nodes[None], y_source[None])
            y = y + sparse.coo_matrix((t.values, (t.rows, t.columns)), shape=y.shape)
        self.y = y.tocsc()
        self.pairs = _Pairs(self.y)
        self.rounding = 16.0 * np.finfo(float).eps * np.abs(self.y.diagonal())[:, None] * self.volt
        k = np.arange(len(loads))
        grounded = loads.node_b < 0
        rows = np.concatenate([k, k[~grounded]])
        columns = np.concatenate([loads.node_a, loads.node_b[~grounded]])
        signs = np.concatenate([np.ones(len(k)), -np.ones(int((~grounded).sum()))])
        self.ports = sparse.csr_matrix((signs.astype(complex), (rows, columns)), shape=(len(k), self.n))
        self.ports_t = self.ports.T.tocsr()
        self.energized = self._reached()
        dead = np.flatnonzero(~self.energized)
        self.held = np.unique(np.concatenate([*held, dead])).astype(np.int64)
        self.free = np.setdiff1d(np.arange(self.n), self.held) if self.held.size else None

    def _reached(self) -> BoolArray:
        """Nodes joined to a source by wires or ports."""
        pattern = abs(self.y) + abs(self.ports_t) @ abs(self.ports)
        _, part = connected_components(pattern.real, directed=False)
        fed = np.concatenate([part[s.nodes] for s in self.sources] or [np.zeros(0, dtype=np.int64)])
        reached: BoolArray = np.isin(part, fed)
        return reached

    def factor(self, steps: IntArray, *, whole: bool) -> _Factor:
        """LU of the free part of Y + Y_c; with the whole of Y_c where loads alone hold a node (a floating neutral)."""
        part = self.ports_t @ sparse.diags(self.loads.split(steps, whole=whole)) @ self.ports
        try:
            return _Factor((self.y + part).tocsc(), self.free)
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

    def load_currents(self, v: ComplexArray, steps: IntArray) -> ComplexArray:
        """Currents that the ports draw from the nodes, A."""
        across = self.ports @ v
        u = np.abs(across) / (1000.0 * self.loads.v_rated_kv[:, None])
        drawn: ComplexArray = self.ports_t @ (self.loads.factors(u, steps) * across)
        return drawn

    def linear_residual(self, v: ComplexArray, steps: IntArray) -> ComplexArray:
        """The residual without the ports, A."""
        r: ComplexArray = self.injected[:, steps] - self.pairs @ v
        r[self.held] = 0.0
        return r

    def residual(self, v: ComplexArray, steps: IntArray) -> ComplexArray:
        """What is missing in the current balance of each free node, A."""
        r: ComplexArray = self.injected[:, steps] - self.pairs @ v - self.load_currents(v, steps)
        r[self.held] = 0.0
        return r

    def iterate(
        self,
        v: ComplexArray,
        lu: _Factor,
        steps: IntArray,
        tolerance_pu: float,
        max_iterations: int,
        iterations: IntArray,
        damping: float,
    ) -> IntArray:
        """Run the fixed point in place; returns the steps that did not settle.

        A step leaves when its correction is below the tolerance (that correction is still applied), and is given up
        when it is not finite or has not come down tenfold within 40 iterations. Slow steps are accelerated (`_Mixer`).
        """
        active = steps
        best = np.full(len(steps), np.inf)
        given_up = []
        mixer = _Mixer(self.volt)
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(max_iterations):
                at = v if len(active) == self.n_steps else v[:, active]
                change = lu.correction(self.residual(at, active))
                size = np.max(np.abs(change) / self.volt, axis=0, initial=0.0)
                iterations[active] += 1
                if k % 40 == 0:
                    stuck = size > 0.1 * best
                    best = size.copy()
                else:
                    stuck = np.zeros(len(active), dtype=bool)
                done = size <= tolerance_pu
                lost = (~np.isfinite(size) | stuck) & ~done
                moved = at + damping * change
                keep = ~(lost | done)
                if k >= 5 and keep.any():
                    moved[:, keep] = mixer.mix(at[:, keep], damping * change[:, keep], active[keep])
                v[:, active] = moved
                given_up.append(active[lost])
                active, best = active[keep], best[keep]
                if not active.size:
                    break
        return np.unique(np.concatenate([*given_up, active]))

    def result(
        self,
        v: ComplexArray,
        lu: _Factor,
        iterations: IntArray,
        tolerance_pu: float,
        mismatch_tolerance: float,
    ) -> PowerFlow:
        """What is reported, recomputed from the voltages alone."""
        every = np.arange(self.n_steps)
        drawn = self.load_currents(v, every)
        given: list[ComplexArray] = []
        for source, y_source in zip(self.sources, self.norton, strict=True):
            at = v[source.nodes]
            if y_source is None:
                current = (self.pairs @ v - self.injected + drawn)[source.nodes]
            else:
                current = y_source @ (source.e_volt - at)
            given.append(1e-3 * np.sum(at * current.conj(), axis=0))
        sources_kva = np.array(given).reshape(len(given), self.n_steps)
        residual = self.injected - self.pairs @ v - drawn
        residual[self.held] = 0.0
        excess = np.maximum(np.abs(residual) - self.rounding, 0.0)
        mismatch = np.max(excess * 1e-3 * self.volt, axis=0, initial=0.0)
        change = np.max(np.abs(lu.correction(residual)) / self.volt, axis=0, initial=0.0)
        load_kva = np.hypot(self.loads.p_kw, self.loads.q_kvar).sum(axis=0)
        scale = np.maximum(np.maximum(np.abs(sources_kva).max(axis=0, initial=0.0), load_kva), 1.0)
        settled = (change <= 10.0 * tolerance_pu) & (mismatch <= mismatch_tolerance * scale)
        losses = 1e-3 * np.sum(v.conj() * (_Pairs(self.network.y) @ v), axis=0).real
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
        )


def _bad_source(source: TheveninSource) -> Fault:
    return Fault(
        "PF-002 singular source",
        f"source.{source.name}",
        "an impedance matrix without inverse",
        "a regular impedance matrix, or zero throughout",
        "Give every conductor of the source an impedance, or none of them.",
    )


__all__ = ["PORT_MODELS", "NodalNetwork", "PortLoads", "PowerFlow", "TheveninSource", "solve_power_flow"]
