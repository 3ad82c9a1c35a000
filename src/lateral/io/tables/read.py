"""A case out of a folder, with every fault in it at once; see the package for the layout."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from lateral.case import Case
from lateral.devices import BUILT_IN
from lateral.errors import CaseError, Fault, HostileFileError, OptionError, did_you_mean
from lateral.io._toml import read_toml, validate
from lateral.io.tables.cells import KINDS, BadCell, Column, columns_of
from lateral.io.tables.files import Rows, check_file, read_csv, read_parquet
from lateral.io.tables.layout import FIXED, NESTED, SUFFIXES, WIRES, CaseFile, HorizonFile, Nested
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Shunt, Switch, Transformer
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FloatArray
from lateral.units import Base

E = TypeVar("E", bound=Element)


@dataclass
class _Reader:
    """What one reading of a folder collects; faults are gathered, not raised one by one."""

    folder: Path
    faults: list[Fault] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)

    def fault(self, code: str, element: str, found: str, allowed: str, action: str, where: str = "") -> None:
        self.faults.append(Fault(code, element, found, allowed, action, where))

    # A path is resolved (links too) before it is opened; anything that ends outside the folder is refused.
    def confined(self, relative: str, table: str) -> Path | None:
        path = self.folder / relative
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError, ValueError):
            resolved = None
        if resolved is None or not resolved.is_relative_to(self.folder):
            found = f"the file {relative!r}, outside the case folder"
            raise HostileFileError(
                [Fault("TAB-005 outside", f"table.{table}", found, "a file in the folder", "Move it there.")]
            )
        if resolved.suffix.lower() not in SUFFIXES:
            allowed = "a .csv or .parquet file"
            self.fault("TAB-006 table file", f"table.{table}", repr(relative), allowed, "Correct [tables].")
            return None
        return resolved

    def table(self, path: Path) -> Rows | None:
        """The text of a table; None (and a fault) when it cannot be read at all."""
        try:
            check_file(path)
            rows = read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path)
        except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException, ValueError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            text = text.replace(str(path), path.name)
            self.fault(
                "TAB-006 table file", f"table.{path.stem}", text, "a readable table", "Write it anew.", path.name
            )
            return None
        seen: set[str] = set()
        for name in rows.header:
            if name in seen:
                found = f"the column {name!r} twice"
                self.fault("TAB-010 header", f"table.{path.stem}", found, "each once", "Rename one.", f"{path.name}:1")
            seen.add(name)
        if len(seen) != len(rows.header):
            return None
        for line, row in zip(rows.lines, rows.rows, strict=True):
            if len(row) != len(rows.header):
                found, allowed = f"{len(row)} cells", f"{len(rows.header)}, as in the header"
                where = f"{path.name}:{line}"
                action = "Add or remove commas; quote a cell that holds one."
                self.fault("TAB-015 cells", f"table.{path.stem}", found, allowed, action, where)
        return rows

    def elements(self, rows: Rows, cls: type, columns: Sequence[Column], extra: tuple[str, ...] = ()) -> Any:
        """Field values per row, as far as they can be read: a list of (values, extra cells, line)."""
        stem = Path(rows.file).stem
        known = [c.name for c in columns]
        header = rows.header
        bad = False
        for name in header:
            if name not in known and name not in extra:
                hint = did_you_mean(name, [*known, *extra])
                found = f"the unknown column {name!r}"
                self.fault("TAB-011 column", f"table.{stem}", found, "a field", hint, f"{rows.file}:1")
                bad = True
        for column in columns:
            if column.required and column.name not in header:
                found = f"no column {column.name!r}"
                self.fault("TAB-012 missing", f"table.{stem}", found, "it is required", "Add it.", f"{rows.file}:1")
                bad = True
        out: list[tuple[dict[str, Any], dict[str, str], int]] = []
        at = {name: k for k, name in enumerate(header)}
        used = [(c, at[c.name]) for c in columns if c.name in at]
        kind = getattr(cls, "kind", "") or stem
        for line, row in zip(rows.lines, rows.rows, strict=True):
            if len(row) != len(header):
                bad = True
                continue
            values: dict[str, Any] = {}
            for column, k in used:
                cell = row[k].strip()
                if cell == "":
                    if column.required:
                        name = row[at["name"]] if "name" in at and row[at["name"]] else f"row {line}"
                        found = f"an empty cell in column {column.name!r}"
                        where = f"{rows.file}:{line}"
                        self.fault("TAB-013 empty", f"{kind}.{name}", found, "a value", "Fill it in.", where)
                        bad = True
                    continue
                try:
                    values[column.name] = column.read(cell)
                except BadCell as error:
                    name = row[at["name"]] if "name" in at else f"row {line}"
                    found = f"{cell[:60]!r} in column {column.name!r}"
                    where = f"{rows.file}:{line}"
                    self.fault("TAB-014 value", f"{kind}.{name}", found, str(error), "Correct the cell.", where)
                    bad = True
            cells = {name: row[at[name]].strip() for name in extra if name in at}
            out.append((values, cells, line))
        return None if bad else out


def _device_types(device_types: Sequence[type[Element]]) -> tuple[type[Element], ...]:
    classes: list[type[Element]] = list(BUILT_IN)
    taken = {c.table for c in classes} | FIXED
    for cls in device_types:
        if cls in classes:
            continue
        if not cls.table or cls.table in taken:
            message = f"{cls.__name__}: the table {cls.table!r} is taken or empty; give the class a table of its own"
            raise OptionError(message)
        taken.add(cls.table)
        classes.append(cls)
    return tuple(classes)


def read_folder(path: str | os.PathLike[str], *, device_types: Sequence[type[Element]] = ()) -> Case:
    """The case in a folder; see `lateral.io.tables` for the layout.

    Args:
        path: the folder, or its ``case.toml``.
        device_types: device classes of the user, each with a `table` of its own.

    Raises:
        CaseError: with every fault found in the folder, each with file and line.
        HostileFileError: a table lies outside the folder.
        OptionError: a class in `device_types` cannot be kept in a table.
    """
    given = Path(path)
    folder = (given.parent if given.name == "case.toml" else given).resolve()
    if not (folder / "case.toml").is_file():
        fault = Fault(
            "TAB-001 no case", f"folder.{folder.name}", "no file 'case.toml'", "a case folder", "Check the path."
        )
        raise CaseError([fault])
    reader = _Reader(folder)
    if not (folder / "case.toml").resolve().is_relative_to(folder):
        fault = Fault("TAB-005 outside", "file.case.toml", "a link out of the folder", "a file", "Copy it there.")
        raise HostileFileError([fault])
    data, text = read_toml(folder / "case.toml", "TAB-002 case.toml")
    head = validate(CaseFile, data, text, "case.toml", "TAB-003 key")
    devices = _device_types(device_types)
    files = _table_files(reader, head, {c.table for c in devices} | FIXED)

    horizon = _read_horizon(reader, head.horizon)
    found: dict[type[Element], list[Element]] = {}
    areas: dict[str, str] = {}
    for cls in (*WIRES, *devices):
        found[cls] = []
        nested = NESTED.get(cls)
        if nested is not None:
            if cls.table in files or nested.table in files:
                found[cls] = _read_nested(reader, files, cls, nested)
            continue
        if cls.table not in files:
            continue
        rows = reader.table(files[cls.table])
        if rows is not None:
            found[cls] = _read_class(reader, rows, cls, areas)
    if "buses" not in files:
        reader.fault("TAB-006 table file", "table.buses", "no such table", "at least one bus", "Add buses.csv.")
    profiles = _read_profiles(reader, files.get("profiles"), horizon)
    if reader.faults or horizon is None:
        raise CaseError(reader.faults)

    feeder = Feeder(
        buses=tuple(b for b in found[Bus] if isinstance(b, Bus)),
        lines=tuple(b for b in found[Line] if isinstance(b, Line)),
        switches=tuple(b for b in found[Switch] if isinstance(b, Switch)),
        transformers=tuple(b for b in found[Transformer] if isinstance(b, Transformer)),
        shunts=tuple(b for b in found[Shunt] if isinstance(b, Shunt)),
        admittances=tuple(b for b in found[MultiTerminal] if isinstance(b, MultiTerminal)),
        n_phases=head.n_phases,
        balanced=head.balanced,
        frequency_hz=head.frequency_hz,
    )
    return Case(
        name=head.name,
        feeder=feeder,
        devices=_ordered(head.device_order, {c.table: found[c] for c in devices}),
        horizon=horizon,
        profiles=profiles,
        base=Base(head.base_kva, head.n_phases),
        areas=areas,
        alpha_usd_per_kwh=head.alpha_usd_per_kwh,
        notes=head.notes,
        warnings=tuple(head.warnings),
        where=reader.where,
    )


def read_elements(path: Path, cls: type[E]) -> list[E]:
    """The elements of one table, outside of any folder.

    Args:
        path: CSV or Parquet file.
        cls: class of the elements.

    Raises:
        CaseError: with every fault of the table.
    """
    reader = _Reader(path.parent)
    rows = reader.table(path)
    out = [] if rows is None else _read_class(reader, rows, cls, {})
    if reader.faults:
        raise CaseError(reader.faults)
    return [e for e in out if isinstance(e, cls)]


def read_profiles(path: Path, horizon: Horizon) -> dict[str, FloatArray]:
    """The profiles of one table whose time column fits the horizon.

    Args:
        path: CSV or Parquet file: a `time` column with offset, then one column per profile.
        horizon: the horizon.

    Raises:
        CaseError: with every fault of the table.
    """
    reader = _Reader(path.parent)
    out = _read_profiles(reader, path, horizon)
    if reader.faults:
        raise CaseError(reader.faults)
    return out


def _table_files(reader: _Reader, head: CaseFile, known: set[str]) -> dict[str, Path]:
    """Which file holds each table; unknown tables are faults."""
    files: dict[str, Path] = {}
    for table, relative in head.tables.items():
        if table not in known:
            hint = did_you_mean(table, sorted(known))
            where = "case.toml"
            reader.fault("TAB-004 table", f"table.{table}", "an unknown table", "a known one", hint, where)
            continue
        path = reader.confined(relative, table)
        if path is not None and not path.is_file():
            reader.fault("TAB-006 table file", f"table.{table}", repr(relative), "a file", "Check [tables].")
        elif path is not None:
            files[table] = path
    named = set(files.values())
    for path in sorted(reader.folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        resolved = reader.confined(path.name, path.stem)
        if resolved is None or resolved in named:
            continue
        if path.stem not in known:
            hint = did_you_mean(path.stem, sorted(known))
            reader.fault("TAB-004 table", f"table.{path.stem}", "an unknown table", "a known one", hint, path.name)
        elif path.stem in files:
            found = f"{path.name} beside {files[path.stem].name}"
            reader.fault("TAB-004 table", f"table.{path.stem}", found, "one file", "Remove one.", path.name)
        else:
            files[path.stem] = resolved
    return files


def _read_class(reader: _Reader, rows: Rows, cls: type[Element], areas: dict[str, str]) -> list[Element]:
    extra = ("area",) if cls is Bus else ()
    read = reader.elements(rows, cls, columns_of(cls), extra)
    out: list[Element] = []
    for values, cells, line in read or ():
        element = cls(**values)
        reader.where[element.label] = f"{rows.file}:{line}"
        if cells.get("area"):
            areas[element.name] = cells["area"]
        out.append(element)
    return out


def _read_nested(reader: _Reader, files: Mapping[str, Path], cls: type[Element], nested: Nested) -> list[Element]:
    """Elements with parts in a table of their own: transformers and windings, admittances and terminals."""
    for table in (cls.table, nested.table):
        if table not in files:
            action = f"Add {table}.csv, or leave both out."
            reader.fault("TAB-006 table file", f"table.{table}", "no such table", "both tables", action)
    if not {cls.table, nested.table} <= files.keys():
        return []
    rows, part_rows = reader.table(files[cls.table]), reader.table(files[nested.table])
    if rows is None or part_rows is None:
        return []
    code, kind = f"TAB-017 {nested.field}", cls.kind
    key = Column(nested.key, required=True, default=None, optional=False, kind=KINDS["str"])
    parts: dict[str, list[Any]] = {}
    lines: dict[str, int] = {}
    read = reader.elements(part_rows, nested.part, (key, *columns_of(nested.part)))
    for values, _, line in read or ():
        name = values.pop(nested.key)
        lines.setdefault(name, line)
        parts.setdefault(name, []).append(nested.part(**values))
    out: list[Element] = []
    heads = reader.elements(rows, cls, columns_of(cls, without=(nested.field,)))
    for values, _, line in heads or ():
        where = f"{rows.file}:{line}"
        own = parts.pop(values["name"], [])
        if not own and read is not None:
            label, action = f"{kind}.{values['name']}", f"Add its rows to the table '{nested.table}'."
            reader.fault(code, label, f"no {nested.field}", "one or more", action, where)
        element = cls(**{**values, nested.field: tuple(own)})
        reader.where[element.label] = where
        out.append(element)
    for name in parts if heads is not None else ():
        known = [e.name for e in out]
        where = f"{part_rows.file}:{lines[name]}"
        hint = did_you_mean(name, known)
        reader.fault(code, f"{kind}.{name}", f"no such {kind}", "a known name", hint, where)
    return out


def _ordered(order: Sequence[tuple[str, int]], tables: Mapping[str, Sequence[Element]]) -> tuple[Element, ...]:
    """Devices in the order written; rows that were added since come last, by table."""
    taken = dict.fromkeys(tables, 0)
    out: list[Element] = []
    for table, count in (*order, *((t, len(rows)) for t, rows in tables.items())):
        if table in tables:
            chunk = tables[table][taken[table] : taken[table] + count]
            taken[table] += len(chunk)
            out += chunk
    return tuple(out)


def _read_horizon(reader: _Reader, head: HorizonFile) -> Horizon | None:
    arrays: dict[str, FloatArray] = {}
    for name, value in (("step_h", head.step_h), ("weight", head.weight)):
        array = np.full(head.n_steps, value) if isinstance(value, (int, float)) else np.array(value, dtype=float)
        if len(array) != head.n_steps:
            found, allowed = f"{len(array)} values", f"one, or n_steps = {head.n_steps}"
            reader.fault("TAB-008 horizon", f"horizon.{name}", found, allowed, "Correct it.", "case.toml")
            return None
        arrays[name] = array
    try:
        horizon = Horizon(start=head.start, breaks=tuple(head.breaks), zone=head.zone, **arrays)
        _ = horizon.times
    except Exception as error:  # the zone and its gaps are pandas's to know, with many exception types
        text = str(error) or type(error).__name__
        allowed = "a time that exists in a known zone"
        reader.fault("TAB-008 horizon", "horizon.start", text, allowed, "Correct start or zone.", "case.toml")
        return None
    return horizon


def _read_profiles(reader: _Reader, path: Path | None, horizon: Horizon | None) -> dict[str, FloatArray]:
    if path is None or horizon is None:
        return {}
    rows = reader.table(path)
    if rows is None:
        return {}
    where = f"{rows.file}:1"
    if "time" not in rows.header:
        action = "Add the beginning of each step, with offset: 2024-07-01T00:00-04:00."
        reader.fault("TAB-030 time", "profiles.time", "no column 'time'", "it is required", action, where)
        return {}
    if len(rows.rows) != horizon.n_steps:
        found, allowed = f"{len(rows.rows)} rows", f"n_steps = {horizon.n_steps}"
        action = "Give one row per step, or correct the horizon in case.toml."
        reader.fault("TAB-031 length", "profiles", found, allowed, action, rows.file)
    if any(len(row) != len(rows.header) for row in rows.rows):
        return {}
    k_time = rows.header.index("time")
    _check_times(reader, rows, [row[k_time].strip() for row in rows.rows], horizon)
    out: dict[str, FloatArray] = {}
    for k, name in enumerate(rows.header):
        if k == k_time:
            continue
        if not name:
            reader.fault("TAB-010 header", "table.profiles", "a column without a name", "a name", "Name it.", where)
            continue
        values = np.full(len(rows.rows), np.nan)
        for t, row in enumerate(rows.rows):
            cell = row[k].strip()
            if not cell:
                continue
            try:
                values[t] = float(cell)
            except ValueError:
                found = f"{cell[:60]!r} in column {name!r}"
                at = f"{rows.file}:{rows.lines[t]}"
                reader.fault("TAB-014 value", f"profile.{name}", found, "a number", "Correct the cell.", at)
        out[name] = values
    return out


def _timestamp(cell: str) -> pd.Timestamp | None:
    try:
        stamp = pd.Timestamp(cell)
    except ValueError:
        return None
    return stamp if isinstance(stamp, pd.Timestamp) else None  # the empty cell and "nan" are NaT


def _check_times(reader: _Reader, rows: Rows, cells: Sequence[str], horizon: Horizon) -> None:
    """The time column is the beginning of each step, with offset; the first deviation is reported."""
    expected = horizon.times
    for t, cell in enumerate(cells[: horizon.n_steps]):
        where = f"{rows.file}:{rows.lines[t]}"
        stamp = _timestamp(cell)
        if stamp is None:
            allowed = "a time such as 2024-07-01T00:00-04:00"
            reader.fault("TAB-030 time", "profiles.time", repr(cell), allowed, "Correct the cell.", where)
            return
        if stamp.tzinfo is None:
            allowed = "a time with offset, such as 2024-07-01T00:00-04:00"
            reader.fault("TAB-032 zone", "profiles.time", repr(cell), allowed, "Add the offset.", where)
            return
        if abs((stamp - expected[t]).total_seconds()) > 1e-3:
            allowed = f"{expected[t].isoformat()}, the beginning of step {t + 1}"
            action = "Make the time column and the horizon in case.toml agree."
            reader.fault("TAB-033 step", "profiles.time", repr(cell), allowed, action, where)
            return
