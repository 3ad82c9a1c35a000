"""Newton's method on the current balance of the nodes, in rectangular coordinates, a step at a time.

With the residual ``r = I_source - Y V - M' i(M V)`` of the free nodes and the derivative ``di = a dU + b conj(dU)`` of
every load law (`lateral.network.port_loads`)::

    A dV + B conj(dV) = r,     A = Y + M' diag(a) M,   B = M' diag(b) M

    [ Re A + Re B   -Im A + Im B ] [ Re dV ]   [ Re r ]
    [ Im A + Im B    Re A - Re B ] [ Im dV ] = [ Im r ]

The real matrix is sparse, node by node in 2 x 2 blocks, its pattern the same for all steps; rows and columns are on
the voltage bases, so that residuals are powers (VA) and corrections per unit. This is the current-injection method
of da Costa, Martins and Pereira (1999) with any load law. Far from the solution a correction dx is halved until the
correction that the same matrix J gives there is shorter (the natural monotonicity test of Deuflhard 2004, which does
not depend on how the equations are scaled)::

    |J(x)^-1 r(x + s dx)| <= (1 - s/4) |dx|          s = 1, 1/2, 1/4, ...

Across a kink of a law (an edge of its voltage band) none may be, so that a few are taken all the same.

Each iteration factors the matrix anew: some 20 times the work of an iteration of the fixed point, and it converges
where that does not, up to the nose of the voltage curve, where the matrix becomes singular.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from lateral.network.nodal import Equations
from lateral.network.schema import ComplexArray, FloatArray, IntArray

#: Iterations at most, and corrections at most that are taken without coming closer.
MAX_ITERATIONS, MAX_BLIND = 40, 4
#: The smallest share of a correction that is tried.
SHORTEST = 1.0 / 64.0


@dataclass(frozen=True, eq=False)
class NewtonEnd:
    """Where Newton's method ended.

    Attributes:
        v: voltages, V, complex, shape (n,).
        settled: whether the last correction was below the tolerance.
        change_pu: the correction that would come next, from the residual at ``v``, pu; NaN when it did not settle.
        iterations: corrections computed.
    """

    v: ComplexArray
    settled: bool
    change_pu: float
    iterations: int


class Newton:
    """Newton's method on one network; the pattern of its matrix is made once."""

    def __init__(self, equations: Equations, tolerance_pu: float) -> None:
        self.equations, self.tolerance_pu = equations, tolerance_pu
        loads = equations.loads
        place = np.full(equations.n + 1, -1)
        free = np.arange(equations.n) if equations.free is None else equations.free
        place[free] = np.arange(len(free))
        self.free, self.size = free, 2 * len(free)
        self.volt = equations.volt[free, 0]
        self.per_rated = 1e-3 / loads.v_rated_kv

        y = equations.y[free][:, free].tocoo()
        scaled = y.data * self.volt[y.row] * self.volt[y.col]
        # every pair of ends of every port, with the sign that M' . M gives it
        a, b = place[loads.node_a], place[np.where(loads.node_b < 0, equations.n, loads.node_b)]
        k = np.arange(len(loads))
        ends = [(a, a, 1.0), (a, b, -1.0), (b, a, -1.0), (b, b, 1.0)]
        live = [(r >= 0) & (c >= 0) for r, c, _ in ends]
        rows = np.concatenate([r[m] for (r, _, _), m in zip(ends, live, strict=True)])
        columns = np.concatenate([c[m] for (_, c, _), m in zip(ends, live, strict=True)])
        self.port = np.concatenate([k[m] for m in live])
        sign = np.concatenate([np.full(int(m.sum()), s) for (_, _, s), m in zip(ends, live, strict=True)])
        self.weight = sign * self.volt[rows] * self.volt[columns]
        self._pattern(y.row, y.col, scaled, rows, columns)

    def _pattern(self, y_row: IntArray, y_col: IntArray, y: ComplexArray, p_row: IntArray, p_col: IntArray) -> None:
        """Places of all 2 x 2 blocks in the csc matrix, and the part of the wires."""
        n = self.size // 2
        block = np.concatenate([y_col, p_col]) * n + np.concatenate([y_row, p_row])
        known, which = np.unique(block, return_inverse=True)
        column, row = known // n, known % n
        # entries of one block: (row part, column part), parts 0 real and 1 imaginary
        rows = np.concatenate([2 * row + r for r in (0, 1) for _ in (0, 1)])
        columns = np.concatenate([2 * column + c for _ in (0, 1) for c in (0, 1)])
        order = np.lexsort((rows, columns))
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self.places = place.reshape(4, len(known))
        self.indices = rows[order]
        self.indptr = np.searchsorted(columns[order], np.arange(self.size + 1))
        m = len(y_row)
        self.at_ports = self.places[:, which[m:]]
        at_wires = self.places[:, which[:m]]
        values = np.concatenate([y.real, -y.imag, y.imag, y.real])
        self.wires = np.bincount(at_wires.ravel(), weights=values, minlength=len(order))

    def matrix(self, v: ComplexArray, step: int) -> sparse.csc_matrix:
        """The derivative of ``Y V + M' i(M V)`` at v, VA per pu, real, shape (2 free, 2 free)."""
        loads, steps = self.equations.loads, np.array([step])
        across = self.equations.ports @ v
        size = np.abs(across)
        u = (size * self.per_rated)[:, None]
        y, g = loads.factors(u, steps)[:, 0], 0.5 * loads.slopes(u, steps)[:, 0]
        direction = across / np.maximum(size, 1e-300)
        a, b = (self.weight * x[self.port] for x in (y + g, g * direction**2))
        values = np.concatenate([a.real + b.real, b.imag - a.imag, a.imag + b.imag, a.real - b.real])
        data = self.wires + np.bincount(self.at_ports.ravel(), weights=values, minlength=len(self.wires))
        return sparse.csc_matrix((data, self.indices, self.indptr), shape=(self.size, self.size))

    def solve(self, start: ComplexArray, step: int) -> NewtonEnd:
        """Solve one step from given voltages, V, shape (n,)."""
        v, steps, blind = start.copy(), np.array([step]), 0
        if self.size == 0:
            return NewtonEnd(start, settled=True, change_pu=0.0, iterations=0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            residual = self._residual(v, steps)
            for k in range(1, MAX_ITERATIONS + 1):
                try:
                    lu = splu(self.matrix(v, step), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.1)
                    change = lu.solve(residual)
                except RuntimeError:  # singular: the nose itself
                    return _unsettled(v, k)
                length = float(np.linalg.norm(change))
                if not np.isfinite(length):
                    return _unsettled(v, k)
                share, closer = 1.0, False
                while share >= SHORTEST:
                    trial = self._moved(v, share * change)
                    there = self._residual(trial, steps)
                    # what the same matrix would still do from there
                    more = lu.solve(there)
                    left = float(np.linalg.norm(more))
                    if _largest(more) <= self.tolerance_pu:
                        trial = self._moved(trial, more)
                        last = _largest(lu.solve(self._residual(trial, steps)))
                        return NewtonEnd(trial, settled=True, change_pu=last, iterations=k)
                    closer = bool(np.isfinite(left)) and left <= (1.0 - 0.25 * share) * length
                    if closer:
                        break
                    share *= 0.5
                if not closer:
                    blind += 1
                    if blind > MAX_BLIND or not np.isfinite(left):
                        return _unsettled(v, k)
                v, residual = trial, there
        return _unsettled(v, MAX_ITERATIONS)

    def _residual(self, v: ComplexArray, steps: IntArray) -> FloatArray:
        """The residual as powers, VA, real and imaginary part of each free node in turn."""
        r = self.equations.residual(v[:, None], steps)[self.free, 0] * self.volt
        return np.column_stack([r.real, r.imag]).ravel()

    def _moved(self, v: ComplexArray, change: FloatArray) -> ComplexArray:
        out = v.copy()
        out[self.free] += self.volt * (change[0::2] + 1j * change[1::2])
        return out


def _unsettled(v: ComplexArray, iterations: int) -> NewtonEnd:
    return NewtonEnd(v, settled=False, change_pu=float("nan"), iterations=iterations)


def _largest(change: FloatArray) -> float:
    """The largest correction, pu."""
    return float(np.max(np.hypot(change[0::2], change[1::2]), initial=0.0))


__all__ = ["Newton", "NewtonEnd"]
