"""The structured solver beside Ipopt, Clarabel, HiGHS, cvxpy and CasADi, as JSON and as a page of the documentation.

    python -m benchmarks.native --sizes 128x5,128x24,1000x5 --json native.json
    python -m benchmarks.native --sizes 10000x24 --stacks native,ipopt --timeout 1800 --json native.json
    python -m benchmarks.native --json native.json --page

Measurements are added to the file, one by one as they are made; one of the same kind is replaced, so that sizes can be
run at different times, but compare within a run. Every measurement is in a process of its own with one thread (native
also with two), after as much memory has been touched. `--page` measures nothing: it writes ``docs/solver_native.md``
and its pictures from the file.

At equal accuracy means: each solver at the loosest tolerance of its grid at which the objective is within 1e-7 of the
reference (native at 1e-10) and no row is violated by more than 1e-6 pu.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cli import environment
from benchmarks.measure import ONE_THREAD, ROOT, median

Row = dict[str, Any]
#: Largest error of an objective at equal accuracy, relative, and the largest violation, pu.
ACCURACY, VIOLATION = 1e-7, 1e-6
#: Tolerances, loosest first, where the search for the loosest one begins, and what is the default of the method.
GRIDS = {"native": (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9), "ipopt": (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11)}
#: Ipopt's own default; lateral asks for 1e-9.
DEFAULTS = {"native": 1e-8, "ipopt": 1e-8}
REFERENCE = 1e-10
STACKS = ("native", "threads", "ipopt", "clarabel", "highs", "cvxpy", "casadi", "once")


class Runner:
    """Measures jobs, and keeps the file."""

    def __init__(self, path: Path, *, timeout_s: float, repeats: int) -> None:
        self.path, self.timeout_s, self.repeats = path, timeout_s, repeats
        self.rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []

    def find(self, key: Row) -> Row | None:
        """The measurement of a key, when it was made."""
        return next((r for r in self.rows if all(r.get(k) == v for k, v in key.items())), None)

    def run(self, what: str, job: Row, env: dict[str, str] | None = None) -> Row:
        """Measure, or median of the repeats; keep it."""
        runs: list[Row] = []
        for _ in range(self.repeats):
            runs.append(one(job, self.timeout_s, env or {}))
            if "error" in runs[-1]:
                break
        job = {k: v for k, v in job.items() if k != "more"}
        row = {"what": what, **job, **median(runs)}
        self.keep(row)
        print(brief(row), file=sys.stderr, flush=True)
        return row

    def keep(self, row: Row) -> None:
        """Put a row in the file, in the place of one of the same kind."""
        same = ("what", "stack", "buses", "steps", "formulation", "threads")
        self.rows = [r for r in self.rows if any(r.get(k) != row.get(k) for k in same)] + [row]
        text = json.dumps({"environment": environment(), "rows": self.rows}, indent=1)
        self.path.write_text(text + "\n", encoding="utf-8")


def one(job: Row, timeout_s: float, env: dict[str, str]) -> Row:
    """One run in its own process."""
    threads = {**ONE_THREAD, "NUMBA_NUM_THREADS": str(job.get("threads", 1))}
    command = [sys.executable, "-m", "benchmarks.native_worker", json.dumps(job)]
    touch_memory(job.get("buses", 0) * job.get("steps", 0))
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **threads, **env}, capture_output=True, text=True, timeout=timeout_s,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {timeout_s:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    found: Row = json.loads(lines[-1])
    return found


def touch_memory(points: int) -> None:
    """Use as much memory as a run of so many buses times steps may want, in a process that ends before it begins.

    A virtual machine may be given its memory by the host when it is first touched: 8 us instead of 0.3 us per 4 kB were
    measured, which is a second for 500 MB and would belong to whichever run comes first.
    """
    words = (300_000_000 + 5_000 * points) // 8
    script = f"import numpy; numpy.zeros({words})[::512] = 1.0"
    subprocess.run([sys.executable, "-c", script], check=False)


def brief(row: Row) -> str:
    """One line on a measurement."""
    size = f"{row['buses']}x{row['steps']}" if "buses" in row else ""
    head = f"{size:10s} {row['stack']:11s} {row.get('formulation', ''):12s} {row['what']:10s}"
    if "error" in row:
        return f"{head} {row['error']}"
    tolerance = f" tol {row['tolerance']:.0e}" if row.get("tolerance") else ""
    ended = f"{row.get('status', '')}{tolerance}, {row.get('iterations', 0)} it"
    return (
        f"{head} {row['wall']['solve']:8.3f} s wall {row['cpu']['solve']:8.3f} s CPU  {ended}, {row['peak_mb']:.0f} MB"
    )


def error_of(row: Row, reference: Row | None) -> float | None:
    """Difference of the objective to the reference, relative; None where one is missing."""
    if reference is None or "error" in row or "error" in reference:
        return None
    best = reference["objective"]
    return float((row["objective"] - best) / max(abs(best), 1e-12))


def accurate(row: Row, reference: Row | None) -> bool:
    """Whether a row is as accurate as is asked for."""
    off = error_of(row, reference)
    return off is not None and abs(off) <= ACCURACY and row.get("residual", 0.0) <= VIOLATION


def loosest(run: Callable[[float], Row], first: Row, grid: Sequence[float], reference: Row | None) -> Row | None:
    """The run at the loosest tolerance of a grid that is accurate; the search begins at a run that was made."""
    k, best = grid.index(first["tolerance"]), None
    if accurate(first, reference):
        best = first
        while k > 0:
            k -= 1
            tried = run(grid[k])
            if not accurate(tried, reference):
                break
            best = tried
        return best
    while k + 1 < len(grid) and "error" not in first:
        k += 1
        first = run(grid[k])
        if accurate(first, reference):
            return first
    return best


def measure(runner: Runner, buses: int, steps: int, stacks: Sequence[str]) -> None:
    """Everything of one size."""
    size: Row = {"buses": buses, "steps": steps}

    def job(stack: str, formulation: str, **more: Any) -> Row:
        return {"stack": stack, **size, "formulation": formulation, **more}

    def search(stack: str, first: Row) -> None:
        def run(tolerance: float) -> Row:
            return runner.run("search", job(stack, "nonlinear", tolerance=tolerance))

        reference = runner.find({"what": "reference", **size, "formulation": "nonlinear"})
        found = loosest(run, first, GRIDS[stack], reference)
        runner.rows = [r for r in runner.rows if r["what"] != "search"]
        if found is not None:
            runner.keep({**found, "what": "accurate"})

    if "native" in stacks:
        for formulation in ("nonlinear", "soc", "lindistflow"):
            runner.run("reference", job("native", formulation, tolerance=REFERENCE))
            more = formulation == "nonlinear"
            first = runner.run("default", job("native", formulation, tolerance=DEFAULTS["native"], more=more))
            if more:
                search("native", first)
    if "threads" in stacks:
        runner.run("default", job("native", "nonlinear", tolerance=DEFAULTS["native"], threads=2))
    if "ipopt" in stacks:
        first = runner.run("default", job("ipopt", "nonlinear", tolerance=DEFAULTS["ipopt"]))
        if "error" not in first:
            search("ipopt", first)
    if "clarabel" in stacks:
        runner.run("default", job("clarabel", "soc"))
    if "highs" in stacks:
        runner.run("default", job("highs", "lindistflow"))
    if "cvxpy" in stacks:
        runner.run("default", job("cvxpy", "soc"))
    if "casadi" in stacks:
        runner.run("default", job("casadi", "nonlinear"))


def once(runner: Runner) -> None:
    """What has no size: the first call with and without compiled code, and a whole solve."""
    with tempfile.TemporaryDirectory() as folder:
        runner.run("empty cache", {"stack": "first call"}, {"NUMBA_CACHE_DIR": folder})
    runner.run("cached", {"stack": "first call"})
    runner.run("whole", {"stack": "end to end"})


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="128x5,128x24", help="BUSESxSTEPS, separated by commas")
    parser.add_argument("--stacks", default=",".join(STACKS), help=f"which of {', '.join(STACKS)}")
    parser.add_argument("--json", type=Path, required=True, help="file of the measurements")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; the median is kept")
    parser.add_argument("--timeout", type=float, default=900.0, help="wall time limit of one run, s")
    parser.add_argument("--page", action="store_true", help="write the page from the file")
    given = parser.parse_args(argv)
    if given.page:
        from benchmarks.native_page import write

        print(write(json.loads(given.json.read_text(encoding="utf-8")), ROOT / "docs"))
        return
    stacks = given.stacks.split(",")
    if unknown := set(stacks) - set(STACKS):
        parser.error(f"there are no stacks {sorted(unknown)}; there are {', '.join(STACKS)}")
    runner = Runner(given.json, timeout_s=given.timeout, repeats=given.repeats)
    for text in given.sizes.split(","):
        buses, steps = (int(part) for part in text.split("x"))
        measure(runner, buses, steps, stacks)
    if "once" in stacks:
        once(runner)


if __name__ == "__main__":
    main()
