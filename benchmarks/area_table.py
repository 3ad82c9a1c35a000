"""Rows of `benchmarks.areas` as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def markdown(rows: Sequence[Row]) -> str:
    """Two tables: agreement and time of every algorithm, and what one area takes of what the whole takes."""
    runs = [r for r in rows if r["algorithm"] not in ("central", "largest-area")]
    parts = []
    if runs:
        parts += [
            "CPU seconds. *one machine*: solves of all areas, one after another; *parallel*: along the critical path.",
            _runs(runs),
        ]
    alone = _alone(rows)
    if alone:
        parts += ["The largest area, built and solved once, against the whole feeder, each in its own process.", alone]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])


def _runs(rows: Sequence[Row]) -> str:
    head = ("feeder", "areas", "algorithm", "rounds", "to 1e-4", "to 1e-6", "residual", "gap", "gap replayed")
    head = (*head, "messages", "kB", "central", "one machine", "parallel", "parallel / central")
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["model"], "", row["algorithm"], row["error"], *[""] * (len(head) - 4)])
            continue
        central, parallel = row["cpu"]["central"], row["parallel_cpu"]
        ended = "" if row["status"] == "optimal" else f" ({row['status'].replace('_', ' ')})"
        lines.append(
            [
                row["model"],
                f"{row['areas']}",
                row["algorithm"],
                f"{row['rounds']}{ended}",
                *(_count(row["rounds_to_gap"][limit]) for limit in ("0.0001", "1e-06")),
                _small(row["residual"]),
                _small(row["gap"], sign="+"),
                _small(_replayed(row), sign="+"),
                f"{row['messages']}",
                f"{row['bytes'] / 1000:.3g}",
                _s(central),
                _s(row["areas_cpu"]),
                _s(parallel),
                f"{parallel / max(central, 1e-9):.1f}",
            ]
        )
    return _table(head, lines)


def _alone(rows: Sequence[Row]) -> str:
    """The largest area against the whole; empty where not both were measured."""
    found = {(r["model"], r["algorithm"]): r for r in rows if "error" not in r}
    lines = []
    for model in dict.fromkeys(r["model"] for r in rows):
        whole, part = found.get((model, "central")), found.get((model, "largest-area"))
        if whole is None or part is None:
            continue
        times = whole["cpu"]["central"], part["cpu"]["largest-area"]
        lines.append(
            [
                model,
                f"{whole['variables']:,}",
                f"{part['variables']:,}",
                f"{part['variables'] / whole['variables']:.0%}",
                *(_s(t) for t in times),
                f"{times[1] / max(times[0], 1e-9):.0%}",
                f"{whole['grown_mb']:.0f}",
                f"{part['grown_mb']:.0f}",
            ]
        )
    head = ("feeder", "variables", "of the area", "share", "CPU s", "of the area", "share", "MB", "of the area")
    return _table(head, lines) if lines else ""


def _replayed(row: Row) -> float | None:
    """Cost (losses, where these are the objective) of the joined schedule in OpenDSS against the central one's."""
    if not row.get("central_replayed"):
        return None
    return float((row["replayed"] - row["central_replayed"]) / abs(row["central_replayed"]))


def _count(value: int | None) -> str:
    return "never" if value is None else str(value)


def _small(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.1e}"


def _s(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10.0 else f"{seconds:.0f}"
