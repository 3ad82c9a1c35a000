"""What ``lateral areas`` shows and writes: the summary, tables for the screen, the folder of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateral.cli.loading import Loaded
from lateral.cli.running import summary_rows
from lateral.cli.screen import count, number

if TYPE_CHECKING:
    import pandas as pd

    from lateral.areas.partition import Partition
    from lateral.areas.run import AreasRun

#: A run with more rounds than this is shown with its first and last ones.
ROUNDS_SHOWN = 40


def summary_of(run: AreasRun, loaded: Loaded | None) -> dict[str, Any]:
    """What ``--json`` prints: the keys of ``solve``, null where nothing is known of the whole, and those of areas."""
    nothing = dict.fromkeys(
        (
            *("formulation", "problem_class", "solver", "objective_name", "objective", "bound", "bound_given"),
            *(
                "energy_import_kwh",
                "energy_export_kwh",
                "losses_kwh",
                "n_buses",
                "n_nodes",
                "n_variables",
                "iterations",
                "residuals",
            ),
            *("replay", "versions"),
        )
    )
    known = {
        "case": run.plan.name,
        "case_hash": None if loaded is None else loaded.case.hash,
        "n_steps": run.plan.n_steps,
        "cost": run.rounds[-1].cost if run.rounds else None,
    }
    summary = {**nothing, **known, **run.summary()}
    read = {} if loaded is None else {"read": loaded.seconds}
    seconds = {**read, **{k: v for k, v in summary["seconds"].items() if k != "total"}}
    summary["seconds"] = {**seconds, "total": sum(seconds.values())}
    summary["import_warnings"] = [] if loaded is None else list(loaded.case.warnings)
    if loaded is not None and loaded.report is not None:
        summary["import"] = loaded.report.summary
    return summary


def gap_text(gap: float | None) -> str:
    """A gap as a number, and where it is large enough to matter as a percentage too."""
    if gap is None or gap != gap:
        return "-"
    return f"{gap:.2e}" + (f" ({100 * gap:.2f} %)" if abs(gap) >= 1e-4 else "")


def rounds_table(run: AreasRun) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows: round, residual, cost, objective, gap, seconds of the slowest path."""
    gaps = run.gap_per_round or [float("nan")] * len(run.rounds)
    rows: list[tuple[str, ...]] = [
        (
            str(r.number),
            f"{r.residual:.1e}",
            number(r.cost, digits=4),
            number(r.objective, digits=4),
            f"{gap:.1e}" if gap == gap else "-",
            f"{r.critical:.3f}",
        )
        for r, gap in zip(run.rounds, gaps, strict=True)
    ]
    if len(rows) > ROUNDS_SHOWN:
        half = ROUNDS_SHOWN // 2
        rows = [*rows[:half], ("...", *[""] * 5), *rows[-half:]]
    return ("round", "residual", "cost $", "objective", "gap", "critical path s"), rows


def screen_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The summary of a run over areas for the screen."""
    s = summary
    own = [
        ("status", s["status_text"]),
        ("areas", f"{len(s['areas'])}, {s['algorithm']}, executor {s['executor']}, {count(s['rounds'], 'round')}"),
        ("residual", number(s["residual"], digits=1)),
        ("gap to central", gap_text(s["gap_to_central"])),
        ("messages", f"{s['messages']:,}, {s['bytes']:,} bytes; {s['messages_rejected']} refused"),
        ("critical path", f"{s['seconds_parallel']:.2f} s with a machine per area"),
    ]
    if s["degraded"]:
        own.append(("degraded", ", ".join(s["degraded"])))
    if s["residuals"] is None:
        own.append(("seconds", ", ".join(f"{k} {v:.2f}" for k, v in s["seconds"].items())))
        return own
    return [*own, *(row for row in summary_rows(dict(s)) if row[0] != "status")]


def rounds_frame(run: AreasRun) -> pd.DataFrame:
    """Every round as a table."""
    import pandas as pd

    gaps = run.gap_per_round or [float("nan")] * len(run.rounds)
    return pd.DataFrame(
        [
            {
                "round": r.number,
                "residual": r.residual,
                "objective": r.objective,
                "cost": r.cost,
                "gap": gap,
                "seconds_critical": r.critical,
                "messages": r.messages,
                "bytes": r.bytes,
                "failures": "; ".join(r.failures.values()),
            }
            for r, gap in zip(run.rounds, gaps, strict=True)
        ]
    )


def borders_frame(run: AreasRun, times: Sequence[Any]) -> pd.DataFrame:
    """What crossed each border after each round: a row per round, border, quantity, conductor and step."""
    import numpy as np
    import pandas as pd

    frames = []
    for r in run.rounds:
        for name, values in r.held.items():
            conductors = run.plan.borders[name].conductors
            for quantity, array in values.items():
                frames.append(
                    pd.DataFrame(
                        {
                            "round": r.number,
                            "border": name,
                            "quantity": quantity,
                            "conductor": np.repeat(conductors, len(times)),
                            "time": list(times) * len(conductors),
                            "value": np.asarray(array).reshape(-1),
                        }
                    )
                )
    columns = ["round", "border", "quantity", "conductor", "time", "value"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def write_run(run: AreasRun, loaded: Loaded | None, tolerance: float, target: Path, summary: Mapping[str, Any]) -> None:
    """Write a run as a folder, whole or not at all: what ``lateral solve --out`` writes, and

    ::

        rounds.csv         residual, cost, gap, time, messages and bytes of each round
        borders.parquet    what crossed each border after each round

    The report has pages about the areas. Without a schedule of the whole (an area that never answered) it is there too.
    """
    from lateral.cli.writing import write_result
    from lateral.report.areas import write_areas_report

    case = None if loaded is None else loaded.case
    imported = None if loaded is None else loaded.report
    times = list(range(run.plan.n_steps)) if case is None else [t.isoformat() for t in case.horizon.times]

    def also(folder: Path) -> None:
        rounds_frame(run).to_csv(folder / "rounds.csv", index=False)
        borders_frame(run, times).to_parquet(folder / "borders.parquet", index=False)

    def page(path: Path) -> object:
        return write_areas_report(run, path, case=case, tolerance=tolerance, import_report=imported)

    write_result(run.result, target, summary, report=imported, page=page, also=also)


def cut_table(partition: Partition) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows: each area with its size and the border above it."""
    rows: list[tuple[str, ...]] = []
    for name, area in partition.areas.items():
        head = area.head
        rows.append(
            (
                name,
                "-" if head is None else head.parent,
                f"{area.n_nodes:,}",
                str(len(area.case.batteries)),
                "-" if head is None else head.name,
                "-" if head is None else ".".join(map(str, head.conductors)),
                "-" if head is None else ", ".join(head.branch),
            )
        )
    return ("area", "above", "nodes", "batteries", "border", "conductors", "branch"), rows


def cut_data(partition: Partition, out: str) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "status": "ok",
        "out": out,
        "case": partition.case.name,
        "case_hash": partition.case.hash,
        "import_warnings": list(partition.case.warnings),
        "depth": partition.max_depth,
        "areas": {
            name: {
                "above": None if area.head is None else area.head.parent,
                "n_nodes": area.n_nodes,
                "n_batteries": len(area.case.batteries),
                "border": None if area.head is None else area.head.name,
                "branch": [] if area.head is None else list(area.head.branch),
                "bus": None if area.head is None else area.head.bus,
                "conductors": [] if area.head is None else list(area.head.conductors),
            }
            for name, area in partition.areas.items()
        },
    }


__all__ = ["cut_data", "cut_table", "rounds_table", "screen_rows", "summary_of", "write_run"]
