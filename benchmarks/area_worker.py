"""One row, in the process that is running: ``python -m benchmarks.area_worker FEEDER ALGORITHM`` prints JSON.

The areas are solved one after the other in this process with one thread, and then the whole feeder: the ratio of the
two is within one run. Each solve of an area is timed in CPU seconds, so that the critical path means something on a
machine that is busy with other work. ``central`` and ``largest-area`` in place of an algorithm build and solve the one
or the other alone, for its time and memory.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from typing import Any

import numpy as np

import lateral
from benchmarks.area_cuts import METHODS, MODELS, CutModel
from benchmarks.worker import Clock
from lateral.areas.agent import AreaAgent, Task
from lateral.areas.plan import Plan
from lateral.areas.run import AreasRun
from lateral.areas.solve import area_specs, solve_areas
from lateral.opf import replayed

#: Gaps to central after which the rounds are counted.
GAPS = (1e-4, 1e-5, 1e-6)


def run_areas(model: CutModel, name: str) -> dict[str, Any]:
    """One feeder by one algorithm, and the central solve."""
    _warm_up(model)
    method, partition, clock = METHODS[name], model.cut(), Clock()
    iterations: list[int] = []
    with clock.phase("areas"), _Counted(iterations):
        run = solve_areas(
            partition,
            method.algorithm,
            formulation=model.formulation,
            objective=model.objective,
            tolerance=method.tolerance,
            max_rounds=method.max_rounds,
            limits=model.limits,
            central=False,
            with_replay=False,
        )
    with clock.phase("central build"):
        whole = lateral.build(partition.case, model.formulation, model.objective, limits=model.limits)
    with clock.phase("central"):
        central = whole.solve()
    last = run.rounds[-1]
    best = central.objective
    gaps = [abs(r.objective - best) / max(abs(best), 1e-12) for r in run.rounds]
    out: dict[str, Any] = {
        "status": run.status.word,
        "areas": len(partition.areas),
        "depth": max(run.plan.depth.values()),
        "rounds": len(run.rounds),
        "residual": _number(run.residual),
        "rounds_to_gap": {f"{limit:g}": _settled(gaps, limit) for limit in GAPS},
        "objective": _number(run.result.objective if run.result is not None else last.objective),
        "central_status": central.status.word,
        "central_objective": best,
        "messages": run.messages,
        "bytes": run.bytes,
        "iterations_per_round": _per_round(run, iterations),
        "parallel_cpu": run.seconds_parallel,
        "parallel_cpu_per_round": [r.critical for r in run.rounds],
        "areas_cpu": sum(sum(r.seconds.values()) for r in run.rounds),
        "central_iterations": central.solution.iterations,
    }
    out["gap"] = _number((out["objective"] - best) / max(abs(best), 1e-12)) if out["objective"] is not None else None
    if model.replay and run.result is not None and run.result.has_values:
        with clock.phase("replay"):
            mine, theirs = replayed(run.result).replay, replayed(central).replay
        if mine is not None and theirs is not None and mine.all_converged and theirs.all_converged:
            loss = model.objective == "loss"
            out["replayed"], out["central_replayed"] = (r.losses_kwh if loss else r.cost_usd for r in (mine, theirs))
    return out | {"wall": clock.wall, "cpu": clock.cpu}


def run_alone(model: CutModel, name: str) -> dict[str, Any]:
    """The whole feeder, or its largest area at the start values: build and solve once."""
    _warm_up(model)
    case, clock = model.case(), Clock()
    if name == "central":
        before = _peak_mb()
        with clock.phase("central"):
            built = lateral.build(case, model.formulation, model.objective, limits=model.limits)
            result = built.solve()
        return {
            "status": result.status.word,
            "variables": built.program.n,
            "iterations": result.solution.iterations,
            "grown_mb": _peak_mb() - before,
            "wall": clock.wall,
            "cpu": clock.cpu,
        }
    partition = model.cut()
    method = METHODS["enapp-priced"].algorithm
    plan = Plan.of(partition, model.objective)
    task = Task(formulation=model.formulation, objective=model.objective, coupling=method.coupling, limits=model.limits)
    largest = max(partition.areas.values(), key=lambda a: a.n_nodes).name
    spec = area_specs(partition, task)[largest]
    inputs = method.inputs(plan, method.init(plan), largest)
    del partition, case
    before = _peak_mb()
    with clock.phase("largest-area"):
        agent = AreaAgent(spec.name, spec.case, spec.task)
        answer = agent.solve(inputs)
    return {
        "status": answer.status,
        "variables": agent.model.program.n,
        "iterations": answer.iterations,
        "grown_mb": _peak_mb() - before,
        "wall": clock.wall,
        "cpu": clock.cpu,
    }


class _Counted:
    """While it lasts, solves of areas are timed in CPU seconds, and their iterations noted in order."""

    def __init__(self, into: list[int]) -> None:
        self._into, self._solve = into, AreaAgent.solve

    def __enter__(self) -> None:
        solve, into = self._solve, self._into

        def counted(agent: AreaAgent, inputs: Any, gap: float | None = None) -> Any:
            begin = time.process_time()
            answer = solve(agent, inputs, gap)
            into.append(answer.iterations)
            return dataclasses.replace(answer, seconds=time.process_time() - begin)

        AreaAgent.solve = counted  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        AreaAgent.solve = self._solve  # type: ignore[method-assign]


def _per_round(run: AreasRun, iterations: list[int]) -> list[int]:
    """Solver iterations of all areas together, by round."""
    each = len(iterations) // max(len(run.rounds), 1)
    return [sum(iterations[k * each : (k + 1) * each]) for k in range(len(run.rounds))]


def _settled(gaps: list[float], limit: float) -> int | None:
    """The round from which on the gap stays at or below a limit."""
    above = [k for k, gap in enumerate(gaps) if not gap <= limit]
    first = above[-1] + 2 if above else 1
    return first if first <= len(gaps) else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _peak_mb() -> float:
    """Most memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def _warm_up(model: CutModel) -> None:
    """Imports and libraries, before the clock starts."""
    tiny = lateral.read("ieee13-rated" if model.formulation == "lindist3flow" else "tree-20x4")
    lateral.build(tiny, model.formulation).solve()


def main() -> None:
    """Measure, and print JSON on the last line."""
    model, name = MODELS[sys.argv[1]], sys.argv[2]
    resource.setrlimit(resource.RLIMIT_CPU, (model.cpu_s, model.cpu_s + 5))
    out = run_areas(model, name) if name in METHODS else run_alone(model, name)
    out["peak_mb"] = _peak_mb()
    print(json.dumps(out))


if __name__ == "__main__":
    main()
