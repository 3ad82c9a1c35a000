"""How the rounds of `linearised` come to the exact optimum, as a Markdown table.

A day of load, sun and price in 24 steps on published feeders, PV at a fifth and batteries at a tenth of the loads,
energy cost. For every number of rounds: what the schedule costs by its AC power flow, relative to the schedule of
`current-voltage` (Ipopt). Times are wall times of build and solve, one run each.

    python benchmarks/linearised_rounds.py FEEDERS_FOLDER [--largest]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.models.three_phase import with_ders
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.operating import dispatch_at
from lateral.opf import build, refined
from lateral.results.result import Result

#: name, master, limits in pu, whether the exact form is solved as well
FEEDERS = (
    ("IEEE 13", "ieee13/IEEE13Nodeckt.dss", (0.85, 1.15), True),
    ("IEEE 13, limits bind", "ieee13/IEEE13Nodeckt.dss", (0.97, 1.06), True),
    ("IEEE 34 Mod1", "ieee34/ieee34Mod1.dss", (0.85, 1.15), True),
    ("IEEE 34 Mod1, limits bind", "ieee34/ieee34Mod1.dss", (0.94, 1.13), True),
    ("IEEE 37", "ieee37/ieee37.dss", (0.85, 1.15), True),
    ("IEEE 123", "ieee123/IEEE123Master.dss", (0.85, 1.15), True),
    ("IEEE 123, limits bind", "ieee123/IEEE123Master.dss", (0.985, 1.08), True),
    ("EU LV, 907 buses", "eulv906/Master.dss", (0.85, 1.15), True),
)
LARGEST = ("IEEE 8500", "ieee8500/Master-unbal.dss", (0.85, 1.15), False)


def cost(r: Result) -> float:
    """What the source's power costs by the AC power flow of the schedule, $."""
    flow = power_flow(r.case, dispatch=dispatch_at(r.case, r.program, r.solution.x))
    price = np.array([r.case.series(s.price_import) for s in r.case.sources])
    return float(((price * flow.sources_kva.real) @ r.case.horizon.hours).sum())


def rounds_of(case: Case, most: int, limits: str) -> tuple[list[float], Result, float]:
    """Cost after 1, 2, ... rounds, the last result, and the time of all of them."""
    begin = time.perf_counter()
    model = build(case, "linearised", limits=limits)
    last = refined(model, model.solve(), rounds=most)
    seconds = time.perf_counter() - begin
    n = len([c for c in last.choices if c.startswith("round ")])
    model = build(case, "linearised", limits=limits)
    first = model.solve()
    costs = [cost(first)]
    program = model.program
    for k in range(2, n + 1):
        model.program = program
        costs.append(cost(refined(model, first, rounds=k)))
    return costs, last, seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("feeders", type=Path)
    parser.add_argument("--largest", action="store_true", help="the 8500-node feeder alone, without its exact form")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    print("| feeder | variables | rounds | gap after each round | seconds | exact: seconds, status |")
    print("|---|---|---|---|---|---|")
    for name, master, limits, exact in (LARGEST,) if args.largest else FEEDERS:
        case = with_ders(args.feeders / master, limits)
        # at full load the transformers of the largest are over their rating without any control
        costs, last, seconds = rounds_of(case, args.rounds, "all" if exact else "voltage")
        best, told = costs[-1], "not solved"
        if exact:
            begin = time.perf_counter()
            r = build(case, "current-voltage").solve()
            told = f"{time.perf_counter() - begin:.2f}, {r.status.word}"
            best = cost(r)
        gaps = " ".join(f"{(c - best) / abs(best):+.0e}" for c in costs)
        print(f"| {name} | {last.program.n:,} | {len(costs)} | {gaps} | {seconds:.2f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
