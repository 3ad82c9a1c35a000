"""How long a power flow takes, beside OpenDSS's own solve of the same circuit in the same run, as a Markdown table.

    python -m benchmarks.powerflow --repeats 7
    python -m benchmarks.powerflow --only ieee8500-unbalanced-24 --json out.json

Each feeder in a fresh process with one thread, lateral and the engine in turn; medians over the repeats. The engine's
time is that of its ``Solve`` calls alone, at the tolerance, taps and warm start (the step before) of the replay;
compiling the circuit and reading voltages are not in it. lateral's ``solve`` is `solve_power_flow`: matrix, factor,
iterations and the check on the whole network; ``whole`` is `lateral.power_flow`, which also turns the case into ports
and primitives. Neither counts the reading of the case.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ONE_THREAD, ROOT
from benchmarks.models.ieee8500 import FEEDERS
from benchmarks.models.three_phase import day
from lateral.baseline import nodal_problem, power_flow
from lateral.case import Case
from lateral.io import opendss
from lateral.io.dispatch import Dispatch
from lateral.io.opendss.write import render_opendss
from lateral.io.overlay import new_horizon, set_loads, set_profiles
from lateral.network.nodal import NodalNetwork
from lateral.network.powerflow import solve_power_flow

#: Name -> master file and number of steps of the day of load (1: the snapshot).
RUNS = {
    "ieee123-1": ("ieee123/IEEE123Master.dss", 1),
    "ieee123-24": ("ieee123/IEEE123Master.dss", 24),
    "eulv906-24": ("eulv906/Master.dss", 24),
    "epri_ckt5-24": ("epri_ckt5/Master_ckt5.dss", 24),
    "ieee8500-balanced-1": ("ieee8500/Master.dss", 1),
    "ieee8500-balanced-24": ("ieee8500/Master.dss", 24),
    "ieee8500-unbalanced-1": ("ieee8500/Master-unbal.dss", 1),
    "ieee8500-unbalanced-24": ("ieee8500/Master-unbal.dss", 24),
    "ieee8500-unbalanced-96": ("ieee8500/Master-unbal.dss", 96),
}


def case_of(master: str, n_steps: int) -> Case:
    """A feeder at its snapshot, or with its loads following a day."""
    case = opendss.read(FEEDERS / master)[0]
    if n_steps == 1:
        return case
    source = day("ieee123", n_steps)
    return set_loads(set_profiles(new_horizon(case, source.horizon), source.profiles), profile="load")


def engine_of(case: Case) -> Any:
    """An OpenDSS engine with the circuit of the replay compiled, its matrix built."""
    import dss

    engine = dss.DSS.NewContext()
    engine.AllowForms = False
    engine.AllowChangeDir = False
    engine.Text.Commands(render_opendss(case, dispatch=Dispatch.baseline(case), stamp=False).commands)
    engine.ActiveCircuit.Solution.BuildYMatrix(1, 1)
    return engine


def engine_seconds(case: Case) -> tuple[float, bool]:
    """Seconds of the engine's solves of all steps, and whether all converged."""
    engine = engine_of(case)
    solution = engine.ActiveCircuit.Solution
    spent, good = 0.0, True
    for _ in range(case.horizon.n_steps):
        begin = time.perf_counter()
        solution.Solve()
        spent += time.perf_counter() - begin
        good = good and bool(solution.Converged)
    engine.Text.Command = "ClearAll"
    return spent, good


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def measure(name: str, repeats: int) -> dict[str, Any]:
    """One feeder: seconds of everything, the median of the repeats."""
    master, n_steps = RUNS[name]
    case = case_of(master, n_steps)
    power_flow(day("ieee13", 2), method="newton")  # imports and first calls are not measured
    times: dict[str, list[float]] = {k: [] for k in ("whole", "solve", "newton", "opendss")}
    good, flow = True, None
    for _ in range(repeats):
        seconds, flow = timed(lambda: power_flow(case))
        times["whole"].append(seconds)
        problem = nodal_problem(case)
        # without what an earlier solve has kept
        network = NodalNetwork(
            problem.network.index, problem.network.y, problem.network.y_shunt, problem.network.multiplicity
        )
        seconds, _ = timed(
            lambda network=network, problem=problem: solve_power_flow(
                network, problem.loads, problem.sources, n_steps=n_steps
            )
        )
        times["solve"].append(seconds)
        seconds, good = engine_seconds(case)
        times["opendss"].append(seconds)
    times["newton"].append(timed(lambda: power_flow(case, method="newton"))[0])
    assert flow is not None
    return {
        "run": name,
        "nodes": len(flow.index),
        "steps": n_steps,
        "converged": flow.all_converged and good,
        "iterations": int(np.max(flow.iterations)),
        **{k: statistics.median(v) for k, v in times.items()},
    }


def row(r: dict[str, Any]) -> str:
    """A row of the table."""
    cells = [r["run"], f"{r['nodes']:,}", str(r["steps"]), str(r["iterations"])]
    cells += [f"{1e3 * r[k]:.1f}" for k in ("whole", "solve", "opendss")]
    cells += [f"{r['solve'] / r['opendss']:.2f}", f"{r['whole'] / r['opendss']:.2f}", f"{1e3 * r['newton']:.0f}"]
    return "| " + " | ".join(cells) + (" |" if r["converged"] else " | not converged |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=RUNS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=RUNS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(measure(given.worker, given.repeats)))
        return
    print(
        "| run | nodes | steps | iterations | power flow, ms | its solve, ms | OpenDSS solve, ms | solve / OpenDSS | "
        "power flow / OpenDSS | Newton, ms |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    found = []
    for name in given.only or RUNS:
        if not (FEEDERS / RUNS[name][0]).is_file():
            continue
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.powerflow", "--worker", name, "--repeats", str(given.repeats)],
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(row(found[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
