"""The exact form on real feeders: build and solve, as a user would, and the voltage error of the replay in OpenDSS.

    python -m benchmarks.exact_feeders
    python -m benchmarks.exact_feeders --only ieee8500 --steps 96 --no-replay
    python -m benchmarks.exact_feeders --constant-power

PV on a fifth and batteries on a tenth of the load buses (no batteries where there is one step), energy cost, limits of
0.85 and 1.15 pu. Every row is a process of its own after a tiny solve, so that imports and compilation are not in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import lateral
from benchmarks.models.ieee8500 import FEEDERS
from benchmarks.models.three_phase import day, with_ders
from lateral.case import Case
from lateral.devices import Load
from lateral.opf import replayed

MASTERS = {
    "ieee13": "ieee13/IEEE13Nodeckt.dss",
    "ieee34": "ieee34/ieee34Mod2.dss",
    "ieee37": "ieee37/ieee37.dss",
    "ieee123": "ieee123/IEEE123Master.dss",
    "smartds84": "smartds84/Master.dss",
    "eulv906": "eulv906/Master.dss",
    "ckt5": "epri_ckt5/Master_ckt5.dss",
    "ckt7": "epri_ckt7/Master_ckt7.dss",
    "j1": "epri_j1/Master_withPV.dss",
    "ieee8500": "ieee8500/Master-unbal.dss",
}
#: What is measured without arguments: feeder and steps.
ROWS = (
    *((name, 24) for name in ("ieee13", "ieee34", "ieee37", "ieee123", "smartds84", "eulv906")),
    ("ckt5", 1),
    ("ckt5", 24),
    ("ckt7", 24),
    ("j1", 24),
    ("ieee8500", 1),
    ("ieee8500", 24),
)


def case_of(name: str, steps: int, *, constant_power: bool) -> Case:
    """A feeder with PV, batteries, a day and a tariff."""
    limits = (0.8, 1.25) if name == "smartds84" else (0.85, 1.15)  # the PV of its model lifts it to 1.17 pu
    case = with_ders(FEEDERS / MASTERS[name], limits, steps)
    if constant_power:
        devices = (
            dataclasses.replace(d, v_min_pu=0.1, v_max_pu=2.0, v_low_pu=0.0) if isinstance(d, Load) else d
            for d in case.devices
        )
        case = case.with_(devices=tuple(devices))
    return case


def measure(
    name: str, steps: int, *, constant_power: bool, replay: bool, solver: str, formulation: str
) -> dict[str, object]:
    """One row."""
    lateral.build(day("ieee13", 24), formulation).solve(solver)
    case = case_of(name, steps, constant_power=constant_power)
    begin = time.perf_counter()
    model = lateral.build(case, formulation, limits="voltage")
    built = time.perf_counter()
    result = model.solve(solver)
    done = time.perf_counter()
    error = None
    if replay and result.ok:
        again = replayed(result)
        error = again.replay.summary()["max_dv_pu"] if again.replay is not None else None
    return {
        "feeder": name,
        "steps": steps,
        "variables": result.program.n,
        "status": result.status.word,
        "cost": result.cost if result.has_values else None,
        "build": built - begin,
        "solve": done - built,
        "total": done - begin,
        "iterations": result.solution.iterations,
        "solver": result.solution.solver,
        "again": [c for c in result.choices if "again" in c],
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "max_dv_pu": error,
    }


def main() -> None:
    """Measure the rows and print them as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(MASTERS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--constant-power", action="store_true", help="loads of constant power at any voltage")
    parser.add_argument("--no-replay", action="store_true")
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--formulation", default="current-voltage")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        row = measure(
            a.only, a.steps, constant_power=a.constant_power, replay=not a.no_replay, solver=a.solver,
            formulation=a.formulation,
        )  # fmt: skip
        print(json.dumps(row))
        return
    rows = [(a.only, a.steps or 24)] if a.only else [(n, a.steps or t) for n, t in ROWS]
    found = []
    print("| feeder | steps | variables | build + solve, s | iterations | memory, GB | replay, pu | |")
    print("|---|--:|--:|--:|--:|--:|--:|---|")
    for name, steps in rows:
        passed = ["--constant-power"] * a.constant_power + ["--no-replay"] * a.no_replay
        command = [sys.executable, "-m", "benchmarks.exact_feeders", "--one", "--only", name, "--steps", str(steps)]
        command += ["--solver", a.solver, "--formulation", a.formulation, *passed]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            print(f"| {name} | {steps} | failed: {ended.stderr.strip().splitlines()[-1][:120]} |")
            continue
        r = json.loads(ended.stdout.strip().splitlines()[-1])
        found.append(r)
        error = "" if r["max_dv_pu"] is None else f"{r['max_dv_pu']:.0e}"
        said = "; ".join([r["status"], r["solver"], *(c[:70] for c in r["again"])])
        print(
            f"| {name} | {steps} | {r['variables']:,} | {r['build']:.2f} + {r['solve']:.2f} | {r['iterations']} | "
            f"{r['memory_gb']:.2f} | {error} | {said} |",
            flush=True,
        )
    if a.json:
        a.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
