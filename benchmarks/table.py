"""Measurements as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.registry import PHASES

Row = dict[str, Any]


def markdown(rows: Sequence[Row]) -> str:
    """The tables: phases of every model, what is not the solver, and the rivals."""
    parts = [
        "Each cell is wall time / CPU time in seconds, the median of the runs.",
        _phases([r for r in rows if r["stack"] == "lateral"]),
        "What is not the solver: build, scaling, residuals and the result against the solver's own time.",
        _outside([r for r in rows if r["stack"] == "lateral" and "error" not in r and "engine" in r]),
    ]
    pairs = [(own, r) for r in rows if r["stack"] != "lateral" for own in rows if _same(own, r)]
    if pairs:
        parts += ["The same problem by others, in the same run.", _rivals(pairs)]
    return "\n\n".join(parts) + "\n"


def _same(own: Row, rival: Row) -> bool:
    return bool(own["stack"] == "lateral" and own["model"] == rival["model"])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])


def _pair(row: Row, phase: str) -> str:
    if phase not in row["wall"]:
        return ""
    return f"{_s(row['wall'][phase])} / {_s(row['cpu'][phase])}"


def _s(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 1.0 else f"{seconds:.3g}"


def _phases(rows: Sequence[Row]) -> str:
    head = ("model", "variables", *PHASES, "solver, iterations", "peak MB", "runs")
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["model"], row["error"], *[""] * (len(head) - 2)])
            continue
        ended = "" if row["status"] == "optimal" else f" ({row['status']})"
        lines.append(
            [
                row["model"],
                f"{row['variables']:,}",
                *(_pair(row, phase) for phase in PHASES),
                f"{row['solver']}, {row['iterations']}{ended}",
                f"{row['peak_mb']:.0f}",
                str(row["runs"]),
            ]
        )
    return _table(head, lines)


def outside(row: Row, kind: str) -> float:
    """Seconds outside the solver's library, of build and solve."""
    return float(row[kind]["build"] + row[kind]["solve"] - row["engine"][kind])


def _outside(rows: Sequence[Row]) -> str:
    head = ("model", "solver's library", "build + solve outside it", "share", "with the result", "share (CPU)")
    lines = []
    for row in rows:
        engine = row["engine"]
        more = outside(row, "cpu") + row["cpu"].get("result", 0.0)
        lines.append(
            [
                row["model"],
                f"{_s(engine['wall'])} / {_s(engine['cpu'])}",
                f"{_s(outside(row, 'wall'))} / {_s(outside(row, 'cpu'))}",
                f"{outside(row, 'cpu') / max(engine['cpu'], 1e-9):.0%}",
                f"{_s(outside(row, 'wall') + row['wall'].get('result', 0.0))} / {_s(more)}",
                f"{more / max(engine['cpu'], 1e-9):.0%}",
            ]
        )
    return _table(head, lines)


def _rivals(pairs: Sequence[tuple[Row, Row]]) -> str:
    head = ("model", "stack", "total", "outside the solver", "iterations", "objective", "status", "peak MB")
    lines = []
    for own, rival in pairs:
        if "error" in own:
            continue
        total = [f"{_s(own[k]['build'] + own[k]['solve'])}" for k in ("wall", "cpu")]
        lines.append(
            [
                own["model"],
                "lateral",
                " / ".join(total),
                f"{_s(outside(own, 'wall'))} / {_s(outside(own, 'cpu'))}",
                str(own["iterations"]),
                f"{own['objective']:.6f}",
                own["status"],
                f"{own['peak_mb']:.0f}",
            ]
        )
        if "error" in rival:
            lines.append([rival["model"], rival["stack"], rival["error"], *[""] * 5])
            continue
        apart = "not separable"
        if "engine" in rival:
            wall, cpu = (rival[k]["total"] - rival["engine"][k] for k in ("wall", "cpu"))
            apart = f"{_s(wall)} / {_s(cpu)}"
        gap = (rival["objective"] - own["objective"]) / max(abs(own["objective"]), 1e-9)
        lines.append(
            [
                rival["model"],
                rival["stack"],
                _pair(rival, "total"),
                apart,
                str(rival["iterations"]),
                f"{gap:+.1e} relative",
                rival["status"],
                f"{rival['peak_mb']:.0f}",
            ]
        )
    return _table(head, lines)
