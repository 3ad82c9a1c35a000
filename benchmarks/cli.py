"""The command line: list and run."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.measure import run
from benchmarks.registry import SIZES, BenchModel, all_models, all_rivals, up_to
from benchmarks.table import markdown

_PACKAGES = ("lateral", "numpy", "scipy", "clarabel", "casadi", "highspy", "cvxpy")


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m benchmarks list | run``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time and memory, by model and phase.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the models and their rivals")
    runner = commands.add_parser("run", help="measure")
    runner.add_argument("--size", choices=SIZES, default="small", help="largest models to run")
    runner.add_argument("--only", default="", help="run the models whose name contains this, of any size")
    runner.add_argument("--repeats", type=int, help="runs of each model; absent: what the model says")
    runner.add_argument("--json", type=Path, help="write the measurements here")
    runner.add_argument("--markdown", type=Path, help="write the tables here")
    runner.add_argument("--no-rivals", action="store_true", help="lateral alone")
    given = parser.parse_args(argv)
    if given.command == "list":
        for model in all_models().values():
            print(
                f"{model.size:8s} {model.name:32s} {', '.join(model.rivals)}{'' if model.available() else '  (absent)'}"
            )
        return
    models = [m for m in all_models().values() if given.only in m.name] if given.only else up_to(given.size)
    chosen = [_runnable(m, rivals=not given.no_rivals) for m in models if m.available()]
    if given.repeats:
        chosen = [dataclasses.replace(m, repeats=given.repeats) for m in chosen]
    rows = run(chosen, _say)
    report = {"environment": environment(), "rows": rows}
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(rows)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    print(text)


def environment() -> dict[str, Any]:
    """Versions, and nothing that names the machine."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES if find_spec(name)}
    return {"python": platform.python_version(), "system": platform.system(), "threads": 1, "versions": versions}


def _runnable(model: BenchModel, *, rivals: bool) -> BenchModel:
    """The model with only the rivals that are wanted and installed."""
    known = all_rivals()
    kept = tuple(r for r in model.rivals if rivals and all(find_spec(p) for p in known[r].needs))
    return dataclasses.replace(model, rivals=kept)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
