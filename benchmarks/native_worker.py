"""One measurement of `benchmarks.native`, in the process that is running; prints JSON on its last line.

    python -m benchmarks.native_worker '{"stack": "native", "buses": 128, "steps": 5, "formulation": "nonlinear"}'

A tiny case of the same kind runs first, so that imports and the loading of compiled code are not in the numbers. Every
stack of lateral's own gets the same scaled `Program`; what is measured of it is one cold start and solve of a session.
Peak memory is read right after that solve, before anything else is measured in the process.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

import lateral
from benchmarks.balanced import Balanced
from benchmarks.registry import all_rivals
from benchmarks.worker import Clock
from lateral import solvers
from lateral.case import Case
from lateral.devices import PV, Battery
from lateral.model import Model
from lateral.network.schema import FloatArray
from lateral.program import Program
from lateral.results.residuals import earned_status, recompute
from lateral.solvers import Options, Session, Solution

#: Phase -> methods of the structured solver whose own time (less that of other phases in them) it is.
PHASES = {
    "order, symbolic": ("session:order_of", "steps:StepProgram.of", "kkt:Kkt.__init__"),
    "data": ("steps:StepProgram.load", "method:Method.load", "kkt:Kkt.load"),
    "start": ("start:cold",),
    "factor, maps": ("kkt:Kkt.factor",),
    "preconditioner": ("kkt:Kkt.prepare_links",),
    "tree solves": ("kkt:Kkt.within",),
    "conjugate gradients": ("kkt:Kkt.solve",),
    "residuals": ("rows:Rows.at", "rows:Rows.residuals"),
}
#: Sweeps with the Jacobian that are timed.
SWEEPS = 21
#: Change of all loads before the warm re-solve.
LOAD_CHANGE = 1.02


class Phases:
    """Own time of some functions, and what the method says of its iterations."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.absent: list[str] = []
        self.inner = 0
        self._stack: list[float] = []
        for phase, places in PHASES.items():
            for place in places:
                self._wrap(place, lambda run, phase=phase: self._timed(run, phase))
        self._wrap("method:Method.solve", self._counted)

    def _wrap(self, place: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put a function around another; the solver changes, and what is no longer there is said."""
        module, _, path = place.partition(":")
        owner: Any = importlib.import_module(f"lateral.solvers.native.{module}")
        *outer, name = path.split(".")
        try:
            for part in outer:
                owner = getattr(owner, part)
            bound = owner.__dict__[name]
        except (AttributeError, KeyError):
            self.absent.append(place)
            return
        if isinstance(bound, classmethod):
            setattr(owner, name, classmethod(around(bound.__func__)))
        else:
            setattr(owner, name, around(bound))

    def _timed(self, run: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def inside(*args: Any, **more: Any) -> Any:
            begin = time.perf_counter()
            self._stack.append(0.0)
            try:
                return run(*args, **more)
            finally:
                whole = time.perf_counter() - begin
                self.seconds[phase] += whole - self._stack.pop()
                if self._stack:
                    self._stack[-1] += whole

        return inside

    def _counted(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*args: Any, **more: Any) -> Any:
            out = run(*args, **more)
            self.inner += int(getattr(out[1], "inner", 0))
            return out

        return inside

    def clear(self) -> None:
        """Begin anew."""
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.inner = 0


def case_of(buses: int, steps: int, formulation: str) -> Case:
    """The feeder; for the linear formulation every inverter's limit is a box, so that the program is linear."""
    case = lateral.read(f"tree-{buses}x{steps}")
    if formulation != "lindistflow":
        return case
    devices = [dataclasses.replace(d, limit="box") if isinstance(d, PV | Battery) else d for d in case.devices]
    return case.with_(devices=tuple(devices))


def model_of(case: Case, formulation: str) -> Model:
    """The model; the linear one without its quadratic loss term."""
    return lateral.build(case, formulation, loss_term=False)


def peak_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def options_of(stack: str, tolerance: float | None, threads: int) -> Options:
    """Typed options of a solver."""
    made = solvers.SOLVERS[stack].options()
    changes: dict[str, Any] = {} if tolerance is None else {"tolerance": tolerance}
    if stack == "native":
        changes["threads"] = threads
    return dataclasses.replace(made, **changes)


def cold(program: Program, stack: str, options: Options, clock: Clock, name: str) -> tuple[Session, Solution]:
    """A session and its first solve, timed together under a name."""
    with clock.phase(name):
        session = solvers.get(stack, options).start(program)
        solution = session.solve(program)
    return session, solution


def judged(program: Program, solution: Solution) -> dict[str, Any]:
    """What a solution is worth."""
    residuals = recompute(program, solution)
    return {
        "status": earned_status(program, solution, residuals).word,
        "claim": solution.status.word,
        "objective": program.objective(solution.x),
        "iterations": solution.iterations,
        "residual": max(residuals.max_primal, residuals.max_bound),
        "gap": residuals.duality_gap,
    }


def run_own(job: dict[str, Any]) -> dict[str, Any]:
    """One solver of lateral's on one program."""
    stack, formulation, clock = job["stack"], job["formulation"], Clock()
    options = options_of(stack, job.get("tolerance"), job.get("threads", 1))
    with clock.phase("first call"):
        tiny = model_of(case_of(8, 2, formulation), formulation).program
        solvers.get(stack, options).solve(tiny)
    phases = Phases() if stack == "native" else None
    case = case_of(job["buses"], job["steps"], formulation)
    with clock.phase("build"):
        model = model_of(case, formulation)
    before = peak_mb()
    session, solution = cold(model.program, stack, options, clock, "solve")
    out = {"variables": model.program.n, "peak_mb": peak_mb(), "grown_mb": peak_mb() - before}
    out |= judged(model.program, solution)
    if phases is not None:
        spent = sum(phases.seconds.values())
        out["phases"] = {**phases.seconds, "rest": clock.wall["solve"] - spent}
        out["inner"], out["absent"] = phases.inner, phases.absent
    if job.get("more"):
        out |= again(case, model, session, solution, stack, options, clock, phases)
        matrix = jacobian(model.program, solution.x)
        out["sweep"] = {"seconds": sweep_seconds(matrix), "nonzeros": int(matrix.nnz), "rows": int(matrix.shape[0])}
    return out | {"wall": clock.wall, "cpu": clock.cpu}


def again(
    case: Case,
    model: Model,
    session: Session,
    solution: Solution,
    stack: str,
    options: Options,
    clock: Clock,
    phases: Phases | None,
) -> dict[str, Any]:
    """Two re-solves in the same session, each beside a cold one of the same data: other loads, a shifted horizon."""
    original, out = model.program, {}
    load = np.array([load.p_kw * case.multiplier(load.profile) for load in case.loads])
    sun = np.array([min(pv.p_rated_kw, pv.s_max_kva) * case.multiplier(pv.profile) for pv in case.pvs])
    price = case.series(case.sources[0].price_import)
    energy = original.block("battery.energy")
    stored = solution.x[energy.cells].reshape(-1, energy.n_steps)[:, 0] * np.ravel(energy.to_unit)
    changed = {
        "load": {"loads": LOAD_CHANGE * load},
        "shift": {
            "loads": np.roll(load, -1, axis=1),
            "prices": np.roll(price, -1),
            "pv": np.roll(sun, -1, axis=1),
            "initial": stored,
        },
    }
    for name, data in changed.items():
        model.program = original
        model.update(**data)
        program = model.program
        _, fresh = cold(program, stack, options, clock, f"{name} cold")
        session, _ = cold(original, stack, options, Clock(), "")
        if phases is not None:
            phases.clear()
        with clock.phase(f"{name} warm"):
            if name == "shift":
                session.shift(1)
            warm = session.solve(program, solution)
        out[name] = {"cold": judged(program, fresh), "warm": judged(program, warm)}
        if phases is not None:
            out[name]["warm"]["inner"] = phases.inner
    model.program = original
    return {"again": out}


def jacobian(program: Program, x: FloatArray) -> sp.csr_array:
    """The Jacobian of all rows in solver scale at a point."""
    s, z = program.scaled(), x / program.col_scale
    p = s.products
    parts = [s.a, s.g]
    if p.n_rows:
        a, u, v = p.a @ z + p.a0, p.u @ z + p.u0, p.v @ z + p.v0
        pick = sp.csr_array((2.0 * a, (p.a_row, np.arange(len(a)))), shape=(p.n_rows, len(a)))
        parts.append(pick @ p.a - sp.diags_array(v) @ p.u - sp.diags_array(u) @ p.v)
    return sp.csr_array(sp.vstack(parts))


def sweep_seconds(matrix: sp.csr_array) -> float:
    """Median time of one product with a matrix and one with its transpose."""
    right, left = np.ones(matrix.shape[1]), np.ones(matrix.shape[0])
    transposed, times = matrix.T, []
    for _ in range(SWEEPS):
        begin = time.perf_counter()
        _ = matrix @ right
        _ = transposed @ left
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def run_rival(job: dict[str, Any]) -> dict[str, Any]:
    """Another stack on the same problem, from arrays."""
    rival, clock = all_rivals()[job["stack"]], Clock()
    rival.run(Balanced.of(lateral.read("tree-8x2")))
    data = Balanced.of(case_of(job["buses"], job["steps"], rival.formulation))
    with clock.phase("solve"):
        run = rival.run(data)
    return {
        "objective": run.objective,
        "status": run.status,
        "iterations": run.iterations,
        "parts": dict(run.parts),
        "peak_mb": peak_mb(),
        "wall": clock.wall,
        "cpu": clock.cpu,
    }


def run_first_call(_: dict[str, Any]) -> dict[str, Any]:
    """The first solves of a process whose cache of compiled code is as its environment says: empty, or not."""
    clock = Clock()
    case = lateral.read("tree-8x2")
    with clock.phase("solve"):
        lateral.build(case, "nonlinear").solve("native")
    with clock.phase("second"):
        lateral.build(case, "nonlinear").solve("native")
    return {"wall": clock.wall, "cpu": clock.cpu, "peak_mb": peak_mb()}


def run_end_to_end(_: dict[str, Any]) -> dict[str, Any]:
    """Read, build, solve and summary of `ieee123-t24` in a process that has solved something else before."""

    def whole(name: str) -> lateral.Result:
        result = lateral.solve(lateral.read(name), "nonlinear", solver="native", with_replay=False)
        result.summary()
        return result

    whole("tree-8x2")
    clock = Clock()
    with clock.phase("solve"):
        result = whole("ieee123-t24")
    return {
        "status": result.status.word,
        "objective": result.objective,
        "iterations": result.solution.iterations,
        "seconds": dict(result.seconds),
        "peak_mb": peak_mb(),
        "wall": clock.wall,
        "cpu": clock.cpu,
    }


RUNS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "cvxpy": run_rival,
    "casadi": run_rival,
    "first call": run_first_call,
    "end to end": run_end_to_end,
}


def main() -> None:
    """Measure, and print JSON on the last line."""
    job = json.loads(sys.argv[1])
    print(json.dumps(RUNS.get(job["stack"], run_own)(job)))


if __name__ == "__main__":
    main()
