"""The fixed point of the nodal equations on one sparse factor, all steps at once.

The Z-bus method (Stevenson; Grainger and Stevenson 1994) with a part Y_c of the loads' nominal admittances y_c in the
matrix, in the space of the ports. ``h(U) = y_c U - i(U)`` are the currents that the matrix does not know::

    V  =  V_0 + (Y + Y_c)^-1 M' (h - h_0)         V_0: solves the network for the currents h_0
    h <- h + (h(M V) - h)

Between two iterations only voltages across ports and currents at ports change, so that neither the wires nor nodes
without a port are looked at until the end, when the voltages of all nodes follow from one more solve. Corrections are
computed from differences of currents, and the result is checked (and where rounding has added up refined) on the
residual of the whole network (`lateral.network.nodal.Equations.result`).
"""

from __future__ import annotations

import numpy as np

from lateral.network.nodal import Equations, Factor
from lateral.network.port_loads import BoolArray
from lateral.network.schema import ComplexArray, FloatArray, IntArray

#: Iterations before acceleration begins: quick steps are over by then.
PLAIN = 5


class _Mixer:
    """Anderson acceleration of a fixed point (Anderson 1965), each step on its own.

    With the differences of the last few points x and corrections f, that combination is taken whose linear
    prediction of the correction is least::

        x <- x + f - (dX + dF) gamma,   gamma = argmin |f - dF gamma|      over real gamma, voltages per unit

    A step whose correction has more than doubled forgets the past. The points hold voltages of ports and, below them,
    currents of ports, which are combined in the same way, so that they stay solutions of the network.
    """

    DEPTH = 5

    def __init__(self, volt: FloatArray) -> None:
        self.per_volt = 1.0 / volt
        self.measured = slice(0, len(volt))
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
        g = self.per_volt * f[self.measured]
        size = _dot(g, g)
        plain: ComplexArray = x + f
        if self.x is None:
            self.gram = np.zeros((len(steps), 0, 0))
        else:
            self._push(
                plain - (self.x + self.f),
                self.per_volt * (f - self.f)[self.measured],
                size > 4.0 * self.size,
            )
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


class _Between:
    """From currents at ports to voltages across ports, through a factor."""

    def __init__(self, equations: Equations, factor: Factor) -> None:
        loads, free = equations.loads, factor.free
        place = np.arange(equations.n) if free is None else np.full(equations.n, -1)
        if free is not None:
            place[free] = np.arange(len(free))
        self.factor = factor
        self.out = equations.ports_t if free is None else equations.ports_t[free]
        first, second = place[loads.node_a], np.where(loads.node_b >= 0, place[loads.node_b], -1)
        self.n_ports = len(loads)
        self.whole = bool(np.all(first >= 0))
        self.a, self.b = np.flatnonzero(first >= 0), np.flatnonzero(second >= 0)
        self.at_a, self.at_b = first[self.a], second[self.b]

    def __call__(self, currents: ComplexArray) -> ComplexArray:
        """``M (Y + Y_c)^-1 M' i``, V, shape (n_ports, T)."""
        if self.factor.empty:
            return np.zeros_like(currents)
        x = self.factor.lu.solve(self.out @ currents)
        across: ComplexArray
        if self.whole:
            across = x[self.at_a]
        else:
            across = np.zeros((self.n_ports, x.shape[1]), dtype=complex)
            across[self.a] = x[self.at_a]
        if self.b.size:
            across[self.b] -= x[self.at_b]
        return across


def settle(
    equations: Equations,
    v: ComplexArray,
    factor: Factor,
    steps: IntArray,
    *,
    started: bool,
    tolerance_pu: float,
    max_iterations: int,
    iterations: IntArray,
    damping: float = 1.0,
) -> IntArray:
    """Run the fixed point from ``v`` and write there where it ends; returns the steps that did not settle.

    A step leaves when its correction is below the tolerance (that correction is still applied), and is given up when
    it is not finite or has not come down tenfold within 40 iterations. Slow steps are accelerated (`_Mixer`).

    Args:
        equations: the network.
        v: voltages of all steps, V, shape (n, T); those of ``steps`` are changed.
        factor: of Y + Y_c.
        steps: the steps to be solved, ascending.
        started: whether ``v`` is a guess; False: the network solved by this factor without the currents h.
        tolerance_pu: see `lateral.network.powerflow.solve_power_flow`.
        max_iterations: at most so many.
        iterations: counted up in place, shape (T,).
        damping: share of a correction that is taken.
    """
    loads = equations.loads
    between = _Between(equations, factor)
    split = factor.split[:, None]
    per_rated = 1e-3 / loads.v_rated_kv[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        if started:  # a guess need not solve the network for any currents; after one correction it does
            at = v[:, steps]
            held = equations.ports @ at
            base = split * held - loads.factors(_magnitude(held) * per_rated, steps) * held
            v[:, steps] = at + factor.correction(equations.residual(at, steps))
            iterations[steps] += 1
        else:
            base = np.zeros((len(loads), len(steps)), dtype=complex)
        across, current = equations.ports @ v[:, steps], base.copy()
        end = np.zeros_like(base)
        nominal = loads.nominal(steps)
        where = np.arange(len(steps))
        volt = equations.volt[loads.node_a]
        mixer = _Mixer(volt)
        best = np.full(len(steps), np.inf)
        given_up = []
        for k in range(max_iterations):
            if not where.size:
                break
            drawn = loads.factors(_magnitude(across) * per_rated, steps[where], nominal=nominal) * across
            push = split * across - drawn - current
            move = between(push)
            size = np.max(_magnitude(move) / volt, axis=0, initial=0.0)
            iterations[steps[where]] += 1
            done = size <= tolerance_pu
            lost = ~np.isfinite(size)
            if k % 40 == 0:
                lost |= (size > 0.1 * best) & ~done
                best = size.copy()
            if damping != 1.0:
                push, move = damping * push, damping * move
            keep = ~(lost | done)
            if not keep.all():
                end[:, where[done]] = current[:, done] + push[:, done]
                end[:, where[lost]] = current[:, lost]
                given_up.append(where[lost])
                where, best = where[keep], best[keep]
                across, current, nominal = across[:, keep], current[:, keep], nominal[:, keep]
                push, move = push[:, keep], move[:, keep]
            if k >= PLAIN and where.size:
                mixed = mixer.mix(np.concatenate([across, current]), np.concatenate([move, push]), where)
                across, current = mixed[: len(loads)], mixed[len(loads) :]
            else:
                across, current = across + move, current + push
        end[:, where] = current
        change = equations.ports_t @ (end - base)
        change[equations.held] = 0.0
        v[:, steps] += factor.correction(change)
    return steps[np.unique(np.concatenate([*given_up, where]).astype(np.int64))]


def _magnitude(x: ComplexArray) -> FloatArray:
    """``|x|`` without the care of `numpy.abs` for overflow, which takes three times as long."""
    size: FloatArray = np.sqrt(np.square(x.real) + np.square(x.imag))
    return size


__all__ = ["settle"]
