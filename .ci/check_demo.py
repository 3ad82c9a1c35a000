"""Check what ``make demo`` wrote: status, keys, replay errors and files. Usage: check_demo.py DIR."""

from __future__ import annotations

import json
import sys
from pathlib import Path

KEYS = (
    *("status", "status_text", "formulation", "problem_class", "solver", "objective", "cost", "energy_import_kwh"),
    *("losses_kwh", "n_buses", "n_steps", "seconds", "residuals", "replay", "case_hash", "versions"),
)
NESTED = {
    "seconds": ("read", "build", "solve", "replay", "total"),
    "residuals": ("max_primal", "max_bound", "max_relaxation_gap", "max_simultaneous_kw", "duality_gap"),
    "replay": ("max_dv_pu", "mean_dv_pu", "dloss_kw", "dp_source_kw", "dq_source_kvar"),
}
FILES = ("summary.json", "schedule.csv", "result.nc", "report.html", "tables/totals.csv", "solved/master.dss")
#: Largest replay errors, about ten times what they are today: the model is exact, so they are what the solver and the
#: engine's tolerance leave.
BOUNDS = {"max_dv_pu": 4e-8, "dloss_kw": 4e-4, "dp_source_kw": 3e-4, "dq_source_kvar": 1e-4}


def faults(folder: Path) -> list[str]:
    """What is wrong with the output of the demo."""
    found = [f"{name} is missing" for name in FILES if not (folder / name).is_file()]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    found += [f"summary.json has no {key}" for key in KEYS if key not in summary]
    for key, inner in NESTED.items():
        found += [f"summary.json has no number {key}.{k}" for k in inner if summary[key].get(k) is None]
    if summary["status"] != "optimal":
        found.append(f"status {summary['status_text']}")
    if not summary["replay"]["converged"]:
        found.append("the replay did not converge at every step")
    for key, bound in BOUNDS.items():
        if not abs(summary["replay"][key]) <= bound:
            found.append(f"replay.{key} is {summary['replay'][key]}, more than {bound}")
    if not summary["residuals"]["max_primal"] <= 1e-6 or not summary["residuals"]["duality_gap"] <= 1e-6:
        found.append(f"residuals {summary['residuals']}")
    return found


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]))
    sys.stdout.write("\n".join(wrong) + "\n" if wrong else "demo: as it should be\n")
    sys.exit(1 if wrong else 0)
