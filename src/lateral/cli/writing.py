"""What ``lateral solve --out DIR`` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lateral.cli.folder import fresh_folder
from lateral.cli.screen import note, to_json
from lateral.devices import Battery
from lateral.io.opendss import ImportReport
from lateral.io.opendss.write import write_opendss
from lateral.opf import dispatch_of
from lateral.report import write_report
from lateral.results.store import save

if TYPE_CHECKING:
    from lateral.results.result import Result

#: Tables with more numbers than this are written as Parquet only.
CSV_CELLS = 500_000


def write_result(
    result: Result | None,
    target: Path,
    summary: Mapping[str, Any],
    *,
    report: ImportReport | None = None,
    page: Callable[[Path], object] | None = None,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Write a solved case as a folder, whole or not at all.

    ::

        summary.json          what --json prints
        schedule.csv          p, q, stored energy and settings of every device and step
        report.html           one offline page
        result.nc             everything, NetCDF 4 (xarray)
        tables/               one table per quantity, and violations, loading, totals: Parquet and CSV
        solved/master.dss     the feeder with the set-points as load shapes, for OpenDSS
        import_report.json    what became of every object, when the case is a .dss master

    A result without a schedule (infeasible, failed, stopped far from one) has none of what follows the report; the
    report says why.

    Args:
        result: what was solved; None where nothing is known of the whole (areas that did not answer).
        target: the folder.
        summary: what ``--json`` prints.
        report: what became of an OpenDSS master.
        page: writes the report; absent: `lateral.write_report`.
        also: writes more into the folder.
    """
    with fresh_folder(target) as folder:
        (folder / "summary.json").write_text(to_json(summary) + "\n", encoding="utf-8")
        if report is not None:
            (folder / "import_report.json").write_text(report.to_json(), encoding="utf-8")
        if page is not None:
            page(folder / "report.html")
        elif result is not None:
            write_report(result, folder / "report.html", import_report=report)
        if also is not None:
            also(folder)
        if result is None or not result.has_schedule:
            return
        schedule(result).to_csv(folder / "schedule.csv", index=False)
        save(result, folder / "result.nc")
        _write_tables(result, folder / "tables")
        write_opendss(result.case, folder / "solved", dispatch=dispatch_of(result))


def schedule(result: Result) -> pd.DataFrame:
    """Set-points as a long table: time, element, bus, p_kw, q_kvar, energy_kwh (batteries, at the end of the step).

    Where a device gives its power port by port there are rows of its ports after those of its total, with a ``port``;
    what is a setting (a tap, a share) stands in ``setting``. Both columns are left out where nothing has them.
    """
    times = [t.isoformat() for t in result.case.horizon.times]
    at = {d.label: d for d in result.case.devices}
    energy: dict[str, Any] = {}
    if result.has("battery.energy"):
        names = result.elements("battery.energy")
        energy = dict(zip((f"{Battery.kind}.{n}" for n in names), result.value("battery.energy"), strict=True))
    frames = []
    for label, (p, q) in result.set_points.items():
        frame = {"time": times, "element": label, "bus": getattr(at[label], "bus", ""), "p_kw": p, "q_kvar": q}
        frames.append(pd.DataFrame({**frame, "energy_kwh": energy.get(label, np.nan)}))
        for k, (p_k, q_k) in enumerate(zip(*result.port_points.get(label, ((), ())), strict=True), start=1):
            where = {"bus": at[label].places[k - 1][0], "port": float(k)}  # type: ignore[attr-defined]
            frames.append(pd.DataFrame({**frame, **where, "p_kw": p_k, "q_kvar": q_k}))
    for label, values in result.settings.items():
        bus = getattr(at[label], "bus", "")
        frames.append(pd.DataFrame({"time": times, "element": label, "bus": bus, "setting": values}))
    columns = ["time", "element", "bus", "p_kw", "q_kvar", "energy_kwh"]
    if not frames:
        return pd.DataFrame(columns=columns)
    whole = pd.concat(frames, ignore_index=True)
    return whole.reindex(columns=[*columns, *(c for c in whole.columns if c not in columns)])


def totals(result: Result) -> pd.DataFrame:
    """Totals of every step: source power and losses, as modelled, without control, and as replayed."""
    columns: dict[str, Any] = {
        "step_h": result.case.horizon.step_h,
        "p_source_kw": result.p_source_kw,
        "q_source_kvar": result.q_source_kvar,
        "losses_kw": result.losses_kw,
        "p_source_baseline_kw": result.baseline.source_kva.real,
        "q_source_baseline_kvar": result.baseline.source_kva.imag,
    }
    for source in result.case.sources:
        columns[f"price_import_{source.name}"] = result.case.series(source.price_import)
    run = result.replay
    for name in ("p_source_kw", "q_source_kvar", "losses_kw"):
        values = getattr(run, name, None)
        if values is not None:
            columns[name.replace("_k", "_replay_k")] = values
    return pd.DataFrame(columns, index=pd.Index([t.isoformat() for t in result.case.horizon.times], name="time"))


def _write_tables(result: Result, folder: Path) -> None:
    folder.mkdir()
    tables: dict[str, pd.DataFrame] = {"totals": totals(result).reset_index()}
    tables["violations"] = result.violations
    tables["loading"] = result.loading
    for name in ("violations", "other_violations", "loads_outside_window"):
        found = getattr(result.replay, name, None)
        if found is not None:
            tables[f"replay_{name}"] = found()
    times = [t.isoformat() for t in result.case.horizon.times]
    for quantity, array in result.dataset.data_vars.items():
        if array.ndim == 2:
            (component,) = (d for d in array.dims if d != "time")
            frame = pd.DataFrame(
                array.transpose("time", component).values, columns=[str(e) for e in array[component].values]
            )
            frame.insert(0, "time", times, allow_duplicates=True)
            tables[str(quantity)] = frame
    write_frames(tables, folder)


def write_frames(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Tables as Parquet, and as CSV where they are not too large."""
    large = []
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
        if table.size <= CSV_CELLS:
            table.to_csv(folder / f"{name}.csv", index=False)
        else:
            large.append(name)
    if large:
        note(f"as Parquet only, more than {CSV_CELLS:,} numbers: {', '.join(large)}")


__all__ = ["schedule", "totals", "write_frames", "write_result"]
