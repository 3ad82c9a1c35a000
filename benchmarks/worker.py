"""One measurement, in the process that is running: ``python -m benchmarks.worker MODEL STACK`` prints JSON.

The stack is ``lateral`` or the name of a rival. A tiny case of the same kind runs first, so that imports are not in the
numbers. Wall and CPU time of each phase; CPU time counts child processes too (OpenDSS is read in one). The time inside
the solver's own library is measured at its door, in the same way for every stack.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import lateral
from benchmarks.balanced import Balanced
from benchmarks.registry import BenchModel, all_models, all_rivals


def cpu_seconds() -> float:
    """CPU time of this process and its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Clock:
    """Wall and CPU time by name, added up."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        try:
            yield
        finally:
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
            self.cpu[name] = self.cpu.get(name, 0.0) + cpu_seconds() - cpu


class _TimedClarabel:
    """Clarabel's solver, its set-up and solve on a clock."""

    def __init__(self, clock: Clock, make: Callable[..., Any], *args: Any) -> None:
        self._clock = clock
        with clock.phase("engine"):
            self._solver = make(*args)

    def solve(self) -> Any:
        with self._clock.phase("engine"):
            return self._solver.solve()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._solver, name)


def _time_clarabel(clock: Clock) -> None:
    import clarabel

    make = clarabel.DefaultSolver
    clarabel.DefaultSolver = lambda *args: _TimedClarabel(clock, make, *args)


def _time_ipopt(clock: Clock) -> None:
    """Ipopt's solve with its callbacks, as lateral calls it."""
    from lateral.solvers.ipopt import _library

    library = _library()
    solve = library.IpoptSolve

    def timed(*args: Any) -> Any:
        with clock.phase("engine"):
            return solve(*args)

    library.IpoptSolve = timed  # type: ignore[method-assign]


def _time_highs(clock: Clock) -> None:
    import highspy

    run = highspy.Highs.run

    def timed(self: Any) -> Any:
        with clock.phase("engine"):
            return run(self)

    highspy.Highs.run = timed


def run_lateral(model: BenchModel) -> dict[str, Any]:
    """Every phase of one model."""
    tiny = lateral.build(model.warm_up(), model.formulation, limits=model.limits).solve(model.solver)
    assert tiny.has_values, tiny.status_text
    _result(tiny)
    if "replay" in model.phases:
        lateral.opf.replayed(tiny)
    clock, engine = Clock(), Clock()
    _time_clarabel(engine)
    _time_ipopt(engine)
    _time_highs(engine)
    with clock.phase("read"):
        case = model.case()
    with clock.phase("build"):
        built = lateral.build(case, model.formulation, limits=model.limits)
    out: dict[str, Any] = {"variables": built.program.n, "rows": len(built.program.b) + built.program.products.n_rows}
    if "solve" in model.phases:
        with clock.phase("solve"):
            result = built.solve(model.solver)
        out |= _outcome(result)
        out["engine"] = {"wall": engine.wall.get("engine", 0.0), "cpu": engine.cpu.get("engine", 0.0)}
    if "result" in model.phases:
        with clock.phase("result"):
            _result(result)
    if "resolve" in model.phases:
        loads = np.array(
            [
                1.02 * load.p_kw * case.profiles.get(load.profile, 1.0) * np.ones(case.horizon.n_steps)
                for load in case.loads
            ]
        )
        with clock.phase("resolve"):
            again = built.update(loads=loads).solve(model.solver)
        out["resolve_status"], out["resolve_iterations"] = again.status.word, again.solution.iterations
    if "replay" in model.phases:
        with clock.phase("replay"):
            replayed = lateral.opf.replayed(result)
        assert replayed.replay is not None
        out["replay"] = {k: v for k, v in replayed.replay.summary().items() if isinstance(v, int | float | str)}
    return out | {"wall": clock.wall, "cpu": clock.cpu}


def _result(result: lateral.Result) -> None:
    """What a user reads: the summary and the whole dataset with the baseline."""
    result.summary()
    assert len(result.dataset) > 0


def _outcome(result: lateral.Result) -> dict[str, Any]:
    return {
        "status": result.status.word,
        "solver": result.solution.solver,
        "iterations": result.solution.iterations,
        "objective": result.objective,
    }


def run_rival(model: BenchModel, name: str) -> dict[str, Any]:
    """Build and solve of one rival."""
    rival = all_rivals()[name]
    rival.run(Balanced.of(model.warm_up()))
    data = Balanced.of(model.case())
    clock, engine = Clock(), Clock()
    if rival.engine == "clarabel":
        _time_clarabel(engine)
    with clock.phase("total"):
        run = rival.run(data)
    out = {"objective": run.objective, "status": run.status, "iterations": run.iterations, "parts": dict(run.parts)}
    if engine.wall:
        out["engine"] = {"wall": engine.wall["engine"], "cpu": engine.cpu["engine"]}
    return out | {"wall": clock.wall, "cpu": clock.cpu}


def main() -> None:
    """Measure, and print JSON on the last line."""
    model, stack = all_models()[sys.argv[1]], sys.argv[2]
    out = run_lateral(model) if stack == "lateral" else run_rival(model, stack)
    out["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    print(json.dumps(out))


if __name__ == "__main__":
    main()
