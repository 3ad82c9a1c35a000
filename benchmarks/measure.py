"""Measurements: each in a fresh process with one thread, with a time limit; medians over the repeats."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.registry import BenchModel

ROOT = Path(__file__).parents[1]
#: One thread for everything, so that CPU time and ratios mean something on a shared machine.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def measure(model: BenchModel, stack: str) -> dict[str, Any]:
    """One run of a model by ``lateral`` or a rival; ``{"error": ...}`` when it failed or ran out of time."""
    command = [sys.executable, "-m", "benchmarks.worker", model.name, stack]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            timeout=model.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {model.timeout_s:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def run(models: Sequence[BenchModel], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure models and their rivals, alternating, so that a busy machine is busy for both."""
    rows = []
    for model in models:
        stacks = ("lateral", *model.rivals)
        runs: dict[str, list[dict[str, Any]]] = {stack: [] for stack in stacks}
        for _ in range(model.repeats):
            for stack in stacks:
                if runs[stack] and "error" in runs[stack][-1]:
                    continue
                runs[stack].append(measure(model, stack))
                say(f"{model.name:32s} {stack:8s} {brief(runs[stack][-1])}")
        for stack in stacks:
            rows.append({"model": model.name, "size": model.size, "stack": stack, **median(runs[stack])})
    return rows


def median(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of every number, the last of everything else; the error, when one run had one."""
    for one in runs:
        if "error" in one:
            return {"error": one["error"], "runs": len(runs)}
    return {**_median(runs), "runs": len(runs)}


def _median(values: Sequence[Any]) -> Any:
    last = values[-1]
    if isinstance(last, dict):
        return {key: _median([v[key] for v in values if key in v]) for key in last}
    if isinstance(last, float):
        return statistics.median(values)
    return last


def brief(one: dict[str, Any]) -> str:
    """One line on one run."""
    if "error" in one:
        return one["error"]
    times = "  ".join(f"{name} {one['wall'][name]:.3f}/{one['cpu'][name]:.3f}" for name in one["wall"])
    return f"{one.get('status', ''):12s} {times}  (wall/CPU s)  {one['peak_mb']:.0f} MB"
