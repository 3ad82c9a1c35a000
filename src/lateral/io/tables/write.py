"""A case into a folder that appears whole or not at all; see the package for the layout."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w

from lateral.case import Case
from lateral.devices import BUILT_IN
from lateral.errors import CaseError, Fault, OptionError, did_you_mean
from lateral.io.tables.cells import NONE, Column, columns_of, is_default, series, show_float, show_text
from lateral.io.tables.files import write_csv, write_parquet
from lateral.io.tables.layout import FIXED, FORMAT, NESTED, SUFFIXES, WIRES
from lateral.network.schema import Element, FloatArray

_Table = tuple[list[str], list[list[str]]]


def write_folder(
    case: Case, path: str | os.PathLike[str], *, tables: Literal["csv", "parquet"] = "csv", overwrite: bool = False
) -> Path:
    """Write a case as a folder; see `lateral.io.tables` for the layout.

    The folder appears whole or not at all: it is written beside its place and then renamed.

    Args:
        case: the case.
        path: the folder to make.
        tables: the format of the tables.
        overwrite: replace a case folder that is there (one that holds nothing else).

    Returns:
        The folder.

    Raises:
        OptionError: the folder exists, or holds files that are not a case's.
        CaseError: the case holds something that a table cannot (a profile named like a number, ...).
    """
    target = Path(path)
    if tables not in ("csv", "parquet"):
        message = f"Unknown table format {tables!r}. {did_you_mean(tables, ('csv', 'parquet'))}"
        raise OptionError(message)
    sheets = _sheets(case)
    head = _head(case)
    _check_target(target, {f"{name}{suffix}" for name in sheets for suffix in SUFFIXES}, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    fresh = target.parent / f".{target.name}.{token}.new"
    old = target.parent / f".{target.name}.{token}.old"
    try:
        fresh.mkdir()
        (fresh / "case.toml").write_text(tomli_w.dumps(head), encoding="utf-8")
        for name, (header, rows) in sheets.items():
            if tables == "csv":
                write_csv(fresh / f"{name}.csv", header, rows)
            else:
                write_parquet(fresh / f"{name}.parquet", header, rows)
        moved = target.exists() and any(target.iterdir())
        if moved:
            target.replace(old)
        try:
            fresh.replace(target)
        except OSError:
            if moved:
                old.replace(target)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _check_target(target: Path, own: set[str], *, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        message = f"{target} is a file, not a folder"
        raise OptionError(message)
    there = sorted(p.name for p in target.iterdir())
    if there and not overwrite:
        message = f"{target} exists and is not empty; give another folder, or overwrite=True"
        raise OptionError(message)
    classes: tuple[type[Element], ...] = (*WIRES, *BUILT_IN)
    known = {c.table for c in classes} | FIXED
    known_files = own | {"case.toml"} | {f"{t}{s}" for t in known for s in SUFFIXES}
    foreign = [name for name in there if name not in known_files]
    if foreign:
        message = f"{target} holds files that are not a case's ({', '.join(foreign[:5])}); nothing was overwritten"
        raise OptionError(message)


def _head(case: Case) -> dict[str, Any]:
    h = case.horizon

    def one_or_all(values: FloatArray) -> float | list[float]:
        numbers = [float(v) for v in values]
        return numbers[0] if len({repr(v) for v in numbers}) == 1 else numbers

    head: dict[str, Any] = {"format": FORMAT, "name": case.name}
    if case.notes:
        head["notes"] = case.notes
    if case.warnings:
        head["warnings"] = list(case.warnings)
    head |= {
        "base_kva": float(case.base.s_kva),
        "n_phases": int(case.feeder.n_phases),
        "balanced": bool(case.feeder.balanced),
        "frequency_hz": float(case.feeder.frequency_hz),
        "alpha_usd_per_kwh": float(case.alpha_usd_per_kwh),
    }
    order: list[list[Any]] = []
    for device in case.devices:
        if order and order[-1][0] == device.table:
            order[-1][1] += 1
        else:
            order.append([device.table, 1])
    built_in: tuple[type[Element], ...] = BUILT_IN
    usual = [cls.table for cls in built_in if any(table == cls.table for table, _ in order)]
    if [table for table, _ in order] != usual:
        head["device_order"] = order
    head["horizon"] = {
        "start": h.start.isoformat(),
        "zone": h.zone,
        "n_steps": h.n_steps,
        "step_h": one_or_all(h.step_h),
        "weight": one_or_all(h.weight),
    }
    if h.breaks:
        head["horizon"]["breaks"] = [int(k) for k in h.breaks]
    return head


def _sheets(case: Case) -> dict[str, _Table]:
    """Every table of the case as text."""
    faults: list[Fault] = []
    feeder = case.feeder
    groups: dict[type[Element], list[Element]] = {}
    for element in (*feeder.elements, *case.devices):
        groups.setdefault(type(element), []).append(element)
    names = [c.table for c in groups]
    for cls in groups:
        if not cls.table or names.count(cls.table) > 1:
            found = f"the table {cls.table!r}"
            action = "Give each class a table of its own."
            faults.append(Fault("TAB-040 table", cls.__name__, found, "a name used once", action))
    sheets: dict[str, _Table] = {}
    for cls, elements in groups.items():
        nested = NESTED.get(cls)
        sheets[cls.table] = _sheet(columns_of(cls, without=(nested.field,) if nested else ()), elements)
        if nested is not None:
            pairs = [(e.name, part) for e in elements for part in getattr(e, nested.field)]
            header, rows = _sheet(columns_of(nested.part), [part for _, part in pairs])
            sheets[nested.table] = (
                [nested.key, *header],
                [[show_text(name), *row] for (name, _), row in zip(pairs, rows, strict=True)],
            )
    if case.areas:
        strangers = sorted(set(case.areas) - {b.name for b in feeder.buses})
        for name in strangers[:10]:
            faults.append(Fault("TAB-041 area", f"bus.{name}", "an area", "buses of the case", "Remove it."))
        header, rows = sheets["buses"]
        areas = [case.areas.get(b.name, "") for b in feeder.buses]
        sheets["buses"] = ([*header, "area"], [[*row, a] for row, a in zip(rows, areas, strict=True)])
    if case.profiles:
        sheets["profiles"] = _profile_sheet(case, faults)
    for name in case.profiles:
        if not isinstance(series(name), str) or name != name.strip() or name in ("time", "", NONE):
            action = "Rename the profile."
            faults.append(Fault("TAB-042 profile", f"profile.{name}", "the name", "a word, no number", action))
    if faults:
        raise CaseError(faults)
    return sheets


def _sheet(columns: Sequence[Column], elements: Sequence[Any]) -> _Table:
    kept = []
    for column in columns:
        values = [getattr(e, column.name) for e in elements]
        if column.required or not all(is_default(v, column.default) for v in values):
            kept.append((column.name, [column.show(v) for v in values]))
    return [name for name, _ in kept], [list(row) for row in zip(*(cells for _, cells in kept), strict=True)]


def _profile_sheet(case: Case, faults: list[Fault]) -> _Table:
    times = case.horizon.times
    columns = [[t.isoformat() for t in times]]
    for name, values in case.profiles.items():
        array = np.asarray(values, dtype=float)
        if array.shape != (case.horizon.n_steps,):
            found, allowed = f"shape {array.shape}", f"({case.horizon.n_steps},)"
            action = "Make it as long as the horizon."
            faults.append(Fault("TAB-043 length", f"profile.{name}", found, allowed, action))
            return ["time"], []
        columns.append([show_float(v) for v in array])
    return ["time", *case.profiles], [list(row) for row in zip(*columns, strict=True)]
