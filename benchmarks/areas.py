"""Feeders cut into areas, by every algorithm: ``python -m benchmarks.areas``.

    python -m benchmarks.areas --list
    python -m benchmarks.areas --size small --json out.jsonl --markdown out.md
    python -m benchmarks.areas --only ieee123-t5 --algorithm enapp-priced

Each row runs in a fresh process with one thread and a limit of CPU time; a row that fails says why, and the next one
runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.area_cuts import ALONE, METHODS, MODELS, CutModel
from benchmarks.area_table import markdown
from benchmarks.measure import ONE_THREAD, ROOT
from benchmarks.registry import SIZES

Row = dict[str, Any]
#: Wall time limit over the limit of CPU time: others may be at work on the machine.
PATIENCE = 6


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.areas", description="Areas against the whole.")
    parser.add_argument("--list", action="store_true", help="the feeders and their algorithms")
    parser.add_argument("--size", choices=SIZES, default="small", help="largest feeders to run")
    parser.add_argument("--only", default="", help="run the feeders whose name contains this, of any size")
    parser.add_argument("--algorithm", choices=[*METHODS, *ALONE], help="this one alone, on every feeder chosen")
    parser.add_argument("--json", type=Path, help="append one JSON line per row here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--table", type=Path, help="run nothing: tables of the JSON lines of an earlier run")
    given = parser.parse_args(argv)
    if given.table:
        print(markdown([json.loads(line) for line in given.table.read_text(encoding="utf-8").splitlines()]))
        return
    models = chosen(given.only, given.size)
    if given.list:
        for model in models if given.only else MODELS.values():
            absent = "" if model.available() else "  (absent)"
            print(f"{model.size:8s} {model.name:32s} {', '.join(model.methods)}{absent}")
        return
    rows = []
    for model, name in pairs(models, given.algorithm):
        row = measure(model, name) if model.available() else {"error": "the feeder is not here"}
        row = {"model": model.name, "algorithm": name, **row}
        rows.append(row)
        print(brief(row), file=sys.stderr, flush=True)
        if given.json:
            with given.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    text = markdown(rows)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    print(text)


def chosen(only: str, size: str) -> list[CutModel]:
    """The feeders whose name contains ``only``; where that is empty those up to a size."""
    if only:
        return [m for m in MODELS.values() if only in m.name]
    return [m for m in MODELS.values() if SIZES.index(m.size) <= SIZES.index(size)]


def pairs(models: Iterable[CutModel], algorithm: str | None) -> list[tuple[CutModel, str]]:
    """What is run on what."""
    return [(m, a) for m in models for a in ((algorithm,) if algorithm else (*m.methods, *m.alone))]


def measure(model: CutModel, name: str) -> Row:
    """One row; ``{"error": ...}`` when it failed or ran out of time."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.area_worker", model.name, name],
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            timeout=model.cpu_s * PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {model.cpu_s * PATIENCE} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode < 0:
        return {"error": f"no result within {model.cpu_s} s of CPU time (signal {-done.returncode})"}
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    found: Row = json.loads(lines[-1])
    return found


def brief(row: Row) -> str:
    """One line on one row."""
    head = f"{row['model']:32s} {row['algorithm']:20s}"
    if "error" in row:
        return f"{head} {row['error']}"
    cpu = "  ".join(f"{name} {seconds:.2f}" for name, seconds in row["cpu"].items())
    rounds = f"{row['rounds']:3d} rounds  gap {row['gap']:+.1e}  " if row.get("gap") is not None else ""
    return f"{head} {row['status']:10s} {rounds}CPU s: {cpu}"


if __name__ == "__main__":
    main()
