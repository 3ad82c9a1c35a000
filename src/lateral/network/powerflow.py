"""Power flow on the nodal matrix, all steps at once.

The wires are linear, devices are currents at ports (pairs of nodes, the second may be ground)::

    Y V = I_source - sum over ports of M' i(M V)          M: +1 at the first node, -1 at the second
    i(U)  = (p f_p(u) - j q f_q(u)) / V_r^2  U            u = |U| / V_r,  V_r the rated voltage of the port

(`lateral.network.port_loads`: the load laws; `lateral.network.nodal`: the equations and what a solution must meet).
Three ways to solve them:

``fixed-point``
    The Z-bus method of Stevenson and Grainger on one sparse factor of Y + Y_c, which serves all steps and all
    iterations (`lateral.network.fixed_point`)::

        V  <-  V + (Y + Y_c)^-1 (I_source - Y V - M' i(M V))

    Y_c holds a part of the nominal admittance of each port: ``e/2`` of it for a power that follows ``V^e`` (all of it
    for a constant impedance, none for a constant power), which is the part that leaves the smallest slope of the rest.
    Where that does not settle, ``compensation``: again with the whole nominal admittance of the step in the matrix,
    damped.
``newton``
    Newton's method with the exact derivative of every load law, a step at a time (`lateral.network.newton`).
``sweep``
    The forward-backward sweep over the branches of a radial feeder (`lateral.network.sweep`).

``plain compensation``
    The Z-bus method with the whole nominal admittance, neither damped nor accelerated, from the voltages with all loads
    as impedances: what OpenDSS does. Loads on conductors whose voltage to ground (or to a neutral) the wires do not
    hold, such as wye loads of constant power behind a delta, have several solutions, 0.1 pu apart and more; this is the
    way to the one that OpenDSS finds. Newton's method ends it.

``auto`` takes the fixed point, Newton's method for the steps that do not settle, and compensation for what is left;
where loads are on such conductors (`_unheld`) plain compensation goes first.
`PowerFlow.methods` says which of them solved each step. A step that none of them settles is reported as not
converged: no other answer is made up for it.

Exact: nothing of the steady state at one frequency is neglected. A source without impedance fixes the voltages of
its nodes (its rows leave the unknowns); no tiny impedance stands in for it. Nodes that no source reaches are at zero
volts, and ``energized`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lateral.errors import OptionError, did_you_mean
from lateral.network.branches import RadialNetwork
from lateral.network.fixed_point import settle
from lateral.network.newton import Newton
from lateral.network.nodal import Equations, Factor, NodalNetwork, PowerFlow, TheveninSource
from lateral.network.port_loads import PORT_MODELS, PortLoads
from lateral.network.schema import ComplexArray, IntArray
from lateral.network.sweep import sweep
from lateral.units import Base

#: What a caller may ask for.
CHOICES = ("auto", "fixed-point", "newton", "sweep")
#: What `PowerFlow.methods` says of a step.
METHODS = ("fixed-point", "compensation", "newton", "sweep")
#: Change of the voltage across a port by the nominal currents of all, of its rated one, from which no wire holds it.
UNHELD = 2.0
#: Iterations of plain compensation, at most: it takes 20 to 150 where it settles.
PLAIN_ITERATIONS = 1000
#: Newton's method ends an iteration when it stays this near, pu; further off it has gone to another solution.
NEAR_PU = 1e-3


def solve_power_flow(
    network: NodalNetwork,
    loads: PortLoads,
    sources: Sequence[TheveninSource],
    *,
    n_steps: int,
    method: str = "auto",
    tolerance_pu: float = 1e-8,
    mismatch_tolerance: float = 1e-6,
    max_iterations: int = 200,
    start: ComplexArray | None = None,
    injected: ComplexArray | None = None,
    radial: tuple[RadialNetwork, Base] | None = None,
) -> PowerFlow:
    """Solve all steps; see the module for equations and methods.

    Args:
        network: the wires.
        loads: what is drawn at ports.
        sources: voltages behind impedances, at least one.
        n_steps: number of steps T.
        method: one of `CHOICES`.
        tolerance_pu: a step is settled when no voltage moves by more than this in an iteration, pu of its base. It
            counts as converged when the correction that would come next, recomputed, is below ten times this: the
            voltage to ground of a floating delta (held by antifloat alone) is known to about 1e-8 in doubles.
        mismatch_tolerance: and no nodal residual is larger than this times the largest power of the step (source or
            loads, at least 1 kVA).
        max_iterations: per step and attempt (Newton's method has its own limit).
        start: voltages to start from, V, shape (n, T); absent: the solution with the constant-impedance parts only.
        injected: currents put into the nodes beside all others, A, shape (n, T).
        radial: the branches of the same wires and the base that they are per unit of; the sweep needs them.

    Returns:
        voltages and what is recomputed from them. Look at ``converged``.

    Raises:
        CaseError: the nodal matrix is singular, or a source has a singular impedance matrix that is not zero.
        OptionError: there is no such method, or a sweep without ``radial``.
        UnsupportedError: a sweep over a feeder that is not radial.
    """
    if method not in CHOICES:
        message = f"there is no power flow method {method!r}. {did_you_mean(method, CHOICES)}"
        raise OptionError(message)
    equations = Equations(network, loads, sources, n_steps, injected)
    every = np.arange(n_steps)
    factor = equations.factor(every, whole=False)
    if start is None:
        v = equations.unloaded(factor, every)
    else:
        v = np.array(start, dtype=complex)
        v[equations.held] = equations.held_at()[equations.held]
    run = _Run(equations, factor, v, tolerance_pu, max_iterations)
    begin = v.copy()
    if method == "sweep":
        if radial is None:
            message = "a sweep needs the branches of the feeder (`radial`)"
            raise OptionError(message)
        run.label(every, "sweep")
        sweep(
            equations,
            *radial,
            v=v,
            tolerance_pu=tolerance_pu,
            max_iterations=max_iterations,
            iterations=run.iterations,
        )
    elif method == "newton":
        run.newton(every, begin)
    else:
        todo = every
        if method == "auto" and start is None and _unheld(equations, factor):
            todo = run.plain(every, mismatch_tolerance)
        left = run.fixed_point(todo, started=start is not None)
        found = run.result(mismatch_tolerance)
        # acceleration may settle where the fixed point itself does not hold
        left = np.union1d(left, np.flatnonzero(~found.converged))
        if not left.size:
            return found
        if method == "auto":
            left = run.newton(left, begin)
        run.compensation(left)
    return run.result(mismatch_tolerance)


def _unheld(equations: Equations, factor: Factor) -> bool:
    """Whether loads draw on conductors whose voltage the wires do not hold.

    Looked at with the nominal currents of all ports, each turned by another angle so that they do not cancel: the wires
    of a feeder that can be operated change by far less than `UNHELD` of the rated voltages.
    """
    loads, every = equations.loads, np.arange(equations.n_steps)
    if not len(loads):
        return False
    if np.any(factor.split != loads.split(every)):  # singular without the admittances of the loads
        return True
    turned = np.exp(2.4j * np.arange(len(loads)))  # the golden angle, nearly
    rated = 1e3 * loads.v_rated_kv
    largest = np.abs(loads.nominal()).max(axis=1, initial=0.0)
    moved = factor.correction(equations.ports_t @ (largest * rated * turned)[:, None])
    across = np.abs(equations.ports @ moved)[:, 0]
    return bool(np.any((across > UNHELD * rated) & (largest > 0.0)))


class _Run:
    """The methods on one set of voltages, with the account of what solved which step."""

    def __init__(
        self, equations: Equations, factor: Factor, v: ComplexArray, tolerance_pu: float, max_iterations: int
    ) -> None:
        self.equations, self.factor, self.v = equations, factor, v
        self.tolerance_pu, self.max_iterations = tolerance_pu, max_iterations
        self.iterations = np.zeros(equations.n_steps, dtype=np.int64)
        self.newton_change = np.full(equations.n_steps, np.nan)
        self.methods = ["fixed-point"] * equations.n_steps

    def result(self, mismatch_tolerance: float) -> PowerFlow:
        """What has been found, checked."""
        return self.equations.result(
            self.v,
            self.factor,
            iterations=self.iterations,
            methods=self.methods,
            newton_change=self.newton_change,
            tolerance_pu=self.tolerance_pu,
            mismatch_tolerance=mismatch_tolerance,
        )

    def label(self, steps: IntArray, method: str) -> None:
        """Say what solved some steps."""
        for k in steps:
            self.methods[k] = method

    def fixed_point(self, steps: IntArray, *, started: bool) -> IntArray:
        """The steps that do not settle."""
        return settle(
            self.equations,
            self.v,
            self.factor,
            steps,
            started=started,
            tolerance_pu=self.tolerance_pu,
            max_iterations=self.max_iterations,
            iterations=self.iterations,
        )

    def newton(self, steps: IntArray, begin: ComplexArray) -> IntArray:
        """Newton's method from given voltages, and where that fails from those with all loads as impedances."""
        method = Newton(self.equations, self.tolerance_pu)
        left = []
        for step in steps:
            alone = np.array([step])
            self.label(alone, "newton")
            found = method.solve(begin[:, step], int(step))
            self.iterations[step] += found.iterations
            if not found.settled:
                whole = self.equations.factor(alone, whole=True)
                found = method.solve(self.equations.unloaded(whole, alone)[:, 0], int(step))
                self.iterations[step] += found.iterations
            if found.settled:
                self.v[:, step] = found.v
                self.newton_change[step] = found.change_pu
            else:
                left.append(step)
        return np.array(left, dtype=np.int64)

    def plain(self, steps: IntArray, mismatch_tolerance: float) -> IntArray:
        """Compensation as OpenDSS has it, from all loads as impedances; what does not settle keeps its voltages."""
        factor, begin, left = self.equations.factor(steps, whole=True), self.v.copy(), steps
        self.v[:, steps] = self.equations.unloaded(factor, steps)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(PLAIN_ITERATIONS):
                change = factor.correction(self.equations.residual(self.v[:, left], left))
                self.v[:, left] += change
                self.iterations[left] += 1
                size = np.max(np.abs(change) / self.equations.volt, axis=0, initial=0.0)
                left = left[(size > self.tolerance_pu) & np.isfinite(size)]
                if not left.size:
                    break
        self.label(steps, "compensation")
        near = self.v.copy()
        with np.errstate(over="ignore", invalid="ignore"):
            rough = np.flatnonzero(~self.result(mismatch_tolerance).converged)
        newton, unsettled, lost = Newton(self.equations, self.tolerance_pu), set(left.tolist()), []
        for step in rough.tolist():
            tried = step not in unsettled and bool(np.all(np.isfinite(near[:, step])))
            found = newton.solve(near[:, step], step) if tried else None
            if found is None or not found.settled or self._apart(found.v, near[:, step]) > NEAR_PU:
                lost.append(step)
                continue
            self.v[:, step], self.newton_change[step] = found.v, found.change_pu
        self.v[:, lost] = begin[:, lost]
        self.label(np.array(lost, dtype=np.int64), "fixed-point")
        return np.array(lost, dtype=np.int64)

    def _apart(self, a: ComplexArray, b: ComplexArray) -> float:
        return float(self.equations.sizes((a - b)[:, None])[0])

    def compensation(self, steps: IntArray) -> None:
        """Compensation currents of the whole nominal admittance of a step, damped at last."""
        for step in steps:
            alone = np.array([step])
            self.label(alone, "compensation")
            factor = self.equations.factor(alone, whole=True)
            for damping in (1.0, 0.5, 0.2):
                trial = np.zeros_like(self.v)
                trial[:, alone] = self.equations.unloaded(factor, alone)
                unsettled = settle(
                    self.equations,
                    trial,
                    factor,
                    alone,
                    started=False,
                    tolerance_pu=self.tolerance_pu,
                    max_iterations=self.max_iterations,
                    iterations=self.iterations,
                    damping=damping,
                )
                if not unsettled.size:
                    break
            if np.all(np.isfinite(trial[:, step])):
                self.v[:, step] = trial[:, step]


__all__ = [
    "CHOICES",
    "METHODS",
    "PORT_MODELS",
    "NodalNetwork",
    "PortLoads",
    "PowerFlow",
    "TheveninSource",
    "solve_power_flow",
]
