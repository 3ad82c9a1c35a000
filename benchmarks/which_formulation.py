"""Every formulation on every feeder, as a Markdown table: status, cost as modelled and as replayed, voltage error.

A day of load, sun and price in a few steps, PV at a fifth and batteries at a tenth of the load buses, energy cost,
voltage limits. This is `lateral compare`, a process and a time limit for each row. Its processor time is that of the
whole row: build, solve, the day without control and two replays; beside other work it says more than the wall time.

    python -m benchmarks.which_formulation FEEDERS_FOLDER [--steps 4] [--limit 120]
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import lateral
from benchmarks.models.three_phase import with_ders

#: name, master, voltage limits
FEEDERS = (
    ("IEEE 13", "ieee13/IEEE13Nodeckt.dss", (0.85, 1.15)),
    ("IEEE 34", "ieee34/ieee34Mod2.dss", (0.85, 1.15)),
    ("IEEE 37", "ieee37/ieee37.dss", (0.85, 1.15)),
    ("IEEE 123", "ieee123/IEEE123Master.dss", (0.85, 1.15)),
    ("4 buses, Dy", "ieee4bus/4Bus-DY-Bal.DSS", (0.70, 1.15)),
    ("4 buses, open delta", "ieee4bus/4bus-OYOD-UnBal.dss", (0.60, 1.15)),
    ("smartds84", "smartds84/Master.dss", (0.80, 1.25)),
    ("EU LV", "eulv906/Master.dss", (0.85, 1.15)),
    ("EPRI ckt5", "epri_ckt5/Master_ckt5.dss", (0.85, 1.15)),
    ("EPRI ckt7", "epri_ckt7/Master_ckt7.dss", (0.85, 1.15)),
    ("EPRI J1", "epri_j1/Master_withPV.dss", (0.85, 1.15)),
    ("IEEE 8500", "ieee8500/Master-unbal.dss", (0.80, 1.20)),
)
FORMULATIONS = ("lindist3flow", "linearised", "current-voltage", "bus-injection", "soc3", "sdp")


def _run(master: Path, limits: tuple[float, float], steps: int, formulation: str, out: Connection) -> None:
    case = with_ders(master, limits, steps)
    begin = time.process_time()
    table = lateral.compare(case, [formulation], limits="voltage").table
    out.send({**table.iloc[-1].to_dict(), "processor_s": time.process_time() - begin})


def row(master: Path, limits: tuple[float, float], steps: int, formulation: str, limit_s: float) -> dict[str, object]:
    """One row of a comparison, or why there is none."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_run, args=(master, limits, steps, formulation, there))
    process.start()
    there.close()
    try:
        if not here.poll(limit_s):
            return {"status": f"not within {limit_s:.0f} s"}
        return dict(here.recv())
    except EOFError:
        return {"status": "no answer"}
    finally:
        process.kill()
        process.join()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("feeders", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for each row")
    parser.add_argument("--only", nargs="*", default=[], help="names of feeders")
    args = parser.parse_args()
    heads = ("feeder", "formulation", "status", "cost, $", "in OpenDSS, $", "voltage error, pu", "build + solve, s")
    print("| " + " | ".join((*heads, "processor, s")) + " |")
    print("|---" * (1 + len(heads)) + "|")
    for name, master, limits in FEEDERS:
        if args.only and name not in args.only:
            continue
        for formulation in FORMULATIONS:
            r = row(args.feeders / master, limits, args.steps, formulation, args.limit)
            status = str(r["status"])
            cells = [name, f"`{formulation}`", status]
            if "cost" in r and status not in ("declined", "infeasible"):
                cells += [f"{r['cost']:.3f}", f"{r['cost_replay']:.3f}", f"{r['max_dv_pu']:.1e}"]
                cells.append(f"{float(str(r['build_s'])) + float(str(r['solve_s'])):.2f}")
                cells.append(f"{r['processor_s']:.2f}")
            else:
                cells += [""] * 5
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
