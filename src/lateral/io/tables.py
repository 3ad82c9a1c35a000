"""A case as a folder: ``case.toml``, one table per element class, and ``profiles``.

::

    mycase/
      case.toml         name, base, horizon
      buses.csv         one row per bus; the columns are the fields of the class, an `area` beside them
      lines.csv         matrices as "r11; r21 r22" (lower triangle) or "r11 r12; r21 r22" (all of it)
      transformers.csv  with their windings in windings.csv
      admittances.csv   with their terminals in admittance_terminals.csv
      loads.csv, batteries.csv, ...
      profiles.csv      a `time` column with an offset, then one column per profile

A table is CSV or Parquet. An empty cell is the field's default; a column may be left out when every row has
the default. Reading is strict (a misspelt column is a fault, not a default), reports every fault at once
with file and line, and never opens a file outside the folder. What `write_folder` writes, `read_folder`
reads back to the same hash.

Codes: TAB-001 to 009 the folder and case.toml, 010 to 029 tables, 030 to 039 profiles, 040 to 049 writing.
"""

from __future__ import annotations

import csv
import io
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tomli_w
from pydantic import Field

from lateral.case import Case
from lateral.devices import BUILT_IN
from lateral.errors import CaseError, Fault, HostileFileError, OptionError, did_you_mean
from lateral.io._toml import Strict, read_toml, validate
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Shunt, Switch, Terminal, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FieldSpec, FloatArray, fields_of
from lateral.units import Base

E = TypeVar("E", bound=Element)

FORMAT = 1
SUFFIXES = (".csv", ".parquet")
#: what one table may cost: bytes of its file, cells, and characters of text (Parquet packs a repetition into nothing)
MAX_BYTES = 2**30
MAX_CELLS = 100_000_000
MAX_TEXT = 2**30
_WIRES: tuple[type[Element], ...] = (Bus, Line, Switch, Transformer, Shunt, MultiTerminal)


@dataclass(frozen=True, slots=True)
class _Nested:
    """A field that holds parts of an element, kept in a table of its own: one row per part, in order."""

    field: str
    table: str
    part: type
    key: str  # the column that names the element


_NESTED: Mapping[type[Element], _Nested] = {
    Transformer: _Nested("windings", "windings", Winding, "transformer"),
    MultiTerminal: _Nested("terminals", "admittance_terminals", Terminal, "admittance"),
}
#: every table that is not one of a device class
_FIXED = frozenset({c.table for c in _WIRES} | {n.table for n in _NESTED.values()} | {"profiles"})
_NONE = "none"


# --- case.toml
# ------------------------------------------------------------------------------------------------------


class HorizonFile(Strict):
    """The time axis of a case."""

    start: datetime = Field(description="Beginning of the first step; local time of `zone` when without offset.")
    zone: str = Field(default="UTC", description="IANA name of the time zone.")
    n_steps: Annotated[int, Field(ge=1, le=2_000_000, description="Number of steps.")]
    step_h: float | list[float] = Field(default=1.0, description="Length of a step, h; or one per step.")
    weight: float | list[float] = Field(default=1.0, description="Weight of a step in the objective; or one each.")
    breaks: list[int] = Field(default=[], description="Steps (from 0) before which stored energy starts afresh.")


class CaseFile(Strict):
    """The file ``case.toml`` of a case folder."""

    format: Literal[1] = Field(default=1, description="Version of the layout of the folder.")
    name: str = Field(description="Short name of the case.")
    notes: str = Field(default="", description="Free text shown in reports.")
    warnings: list[str] = Field(default=[], description="What the files that it was read from hold and it does not.")
    base_kva: Annotated[float, Field(gt=0, description="Power base per conductor, kVA.")] = 1000.0
    n_phases: Annotated[int, Field(ge=1, description="Conductors that one modelled conductor stands for.")] = 1
    balanced: bool = Field(default=False, description="Whether the feeder is a balanced equivalent.")
    frequency_hz: Annotated[float, Field(gt=0, description="Frequency of reactances and susceptances.")] = 60.0
    alpha_usd_per_kwh: Annotated[float, Field(ge=0, description="Price of battery losses, $/kWh lost.")] = 1e-6
    horizon: HorizonFile
    tables: dict[str, str] = Field(default={}, description="File of a table, when not <table>.csv or .parquet.")
    device_order: list[tuple[str, int]] = Field(
        default=[], description="Order of the devices as runs of rows: [table, how many]; the rest follow."
    )


# --- one field, one column
# ------------------------------------------------------------------------------------------


class _BadCell(ValueError):
    """A cell that is not what its column holds; the text says what is allowed."""


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        allowed = "a number"
        raise _BadCell(allowed) from None


def _int(text: str) -> int:
    value = _float(text)
    if not value.is_integer():
        allowed = "a whole number"
        raise _BadCell(allowed)
    return int(value)


def _bool(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        allowed = "true or false"
        raise _BadCell(allowed)
    return words[text.lower()]


def _even_quotes(text: str) -> bool:
    return len(text) % 2 == 0 and not text.strip('"')


# An empty cell is the default, so the empty text is written as a pair of quotes; a text that is itself nothing but
# pairs of quotes gets one pair more.
def _text(text: str) -> str:
    return text[2:] if _even_quotes(text) else text


def _series(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _numbers(text: str) -> tuple[float, ...]:
    return () if text == _NONE else tuple(_float(part) for part in text.split())


def _three(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if len(values) != 3:
        allowed = "three numbers"
        raise _BadCell(allowed)
    return values


def _whole_numbers(text: str) -> tuple[int, ...]:
    return () if text == _NONE else tuple(_int(part) for part in text.split())


def _words(text: str) -> tuple[str, ...]:
    return () if text == _NONE else tuple(part.strip() for part in text.split(";"))


def _matrix(text: str) -> FloatArray:
    rows = [_numbers(row) for row in text.split(";")]
    n = len(rows)
    if all(len(row) == n for row in rows):
        return np.array(rows)
    if all(len(row) == k + 1 for k, row in enumerate(rows)):
        out = np.zeros((n, n))
        for k, row in enumerate(rows):
            out[k, : k + 1] = row
            out[: k + 1, k] = row
        return out
    allowed = "a matrix as 'a; b c' (lower triangle) or 'a b; c d' (all of it)"
    raise _BadCell(allowed)


def _show_float(value: float) -> str:
    """The shortest text that reads back to the same number."""
    value = float(value)
    if value.is_integer() and abs(value) < 1e15 and not (value == 0 and math.copysign(1.0, value) < 0):
        return str(int(value))
    return repr(value)


def _show_numbers(values: Iterable[float]) -> str:
    return " ".join(_show_float(v) for v in values) or _NONE


def _show_matrix(value: Any) -> str:
    array = np.array(value, dtype=float, ndmin=2)
    # Bit for bit: a symmetric matrix that differs in the sign of a zero is written whole.
    if array.shape[0] == array.shape[1] and array.tobytes() == np.ascontiguousarray(array.T).tobytes():
        return "; ".join(_show_numbers(row[: k + 1]) for k, row in enumerate(array))
    return "; ".join(_show_numbers(row) for row in array)


def _show_text(value: str) -> str:
    return f'{value}""' if _even_quotes(value) else value


def _show_words(value: Iterable[str]) -> str:
    return "; ".join(value) or _NONE


@dataclass(frozen=True, slots=True)
class _Kind:
    """How values of one type are read from a cell and written to it."""

    read: Callable[[str], Any]
    show: Callable[[Any], str]


_FLOAT = _Kind(_float, _show_float)
_KINDS: Mapping[str, _Kind] = {
    "float": _FLOAT,
    "int": _Kind(_int, lambda v: str(int(v))),
    "bool": _Kind(_bool, lambda v: "true" if v else "false"),
    "str": _Kind(_text, _show_text),
    "Series": _Kind(_series, lambda v: v if isinstance(v, str) else _show_float(v)),
    "Terminals": _Kind(_whole_numbers, lambda v: " ".join(str(int(k)) for k in v) or _NONE),
    "tuple[int, ...]": _Kind(_whole_numbers, lambda v: " ".join(str(int(k)) for k in v) or _NONE),
    "tuple[float, ...]": _Kind(_numbers, _show_numbers),
    "tuple[float, float, float]": _Kind(_three, _show_numbers),
    "tuple[str, ...]": _Kind(_words, _show_words),
    "FloatArray": _Kind(_matrix, _show_matrix),
}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    required: bool
    default: Any
    optional: bool
    kind: _Kind

    def read(self, text: str) -> Any:
        if self.optional and text == _NONE:
            return None
        return self.kind.read(text)

    def show(self, value: Any) -> str:
        if value is None:
            return "" if self.default is None and not self.required else _NONE
        if isinstance(value, str) and value == "" and isinstance(self.default, str) and self.default == "":
            return ""
        return self.kind.show(value)


def _column(spec: FieldSpec, owner: type) -> _Column:
    kind = spec.type.removeprefix("<class '").removesuffix("'>")
    optional = kind.endswith("| None")
    kind = kind.removesuffix("| None").strip()
    if kind in ("float | str", "str | float") or spec.series:
        kind = "Series"
    if spec.matrix:
        kind = "FloatArray"
    if kind not in _KINDS:
        message = f"{owner.__name__}.{spec.name}: a field of type {spec.type} has no place in a table"
        raise OptionError(message)
    return _Column(spec.name, spec.required, spec.default, optional, _KINDS[kind])


def _columns(cls: type, *, without: tuple[str, ...] = ()) -> tuple[_Column, ...]:
    return tuple(_column(f, cls) for f in fields_of(cls) if f.name not in without)


def _is_default(value: Any, default: Any) -> bool:
    if value is None or default is None:
        return value is default
    if isinstance(value, np.ndarray) or isinstance(default, np.ndarray):
        return np.array(value, ndmin=2).tobytes() == np.array(default, dtype=float, ndmin=2).tobytes()
    if isinstance(value, float) and isinstance(default, float):
        return repr(value) == repr(default)
    return type(value) is type(default) and repr(value) == repr(default)


# --- reading
# --------------------------------------------------------------------------------------------------------


@dataclass
class _Rows:
    """One table as text: header, rows and where each row stands."""

    file: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]


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

    def table(self, path: Path) -> _Rows | None:
        """The text of a table; None (and a fault) when it cannot be read at all."""
        try:
            _check_file(path)
            rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
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

    def elements(self, rows: _Rows, cls: type, columns: Sequence[_Column], extra: tuple[str, ...] = ()) -> Any:
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
                except _BadCell as error:
                    name = row[at["name"]] if "name" in at else f"row {line}"
                    found = f"{cell[:60]!r} in column {column.name!r}"
                    where = f"{rows.file}:{line}"
                    self.fault("TAB-014 value", f"{kind}.{name}", found, str(error), "Correct the cell.", where)
                    bad = True
            cells = {name: row[at[name]].strip() for name in extra if name in at}
            out.append((values, cells, line))
        return None if bad else out


def _check_file(path: Path) -> None:
    """Refuse what is no file (a pipe would never end, a folder would be read with all that it links to)."""
    if not path.is_file():
        message = "no regular file" if path.exists() else "no such file"
        raise ValueError(message)
    if path.stat().st_size > MAX_BYTES:
        message = f"a file of more than {MAX_BYTES:,} bytes"
        raise ValueError(message)


def _read_csv(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header: list[str] = []
        rows, lines = [], []
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip() and header and len(header) > 1):
                continue
            if not header:
                header = [name.strip() for name in row]
            else:
                rows.append(row)
                lines.append(reader.line_num)
    return _Rows(path.name, header, rows, lines)


def _read_parquet(path: Path) -> _Rows:
    table = _bounded_parquet(path)
    columns = [
        ["" if v is None else _show_float(v) if isinstance(v, float) else _cell(v) for v in column.to_pylist()]
        for column in table.columns
    ]
    rows = [list(row) for row in zip(*columns, strict=True)] if columns else []
    return _Rows(path.name, [str(n) for n in table.column_names], rows, list(range(1, len(rows) + 1)))


def _bounded_parquet(path: Path) -> pa.Table:
    """The table, once it is clear that it unpacks to something that fits; text stays packed until then."""
    with pq.ParquetFile(path) as file:
        leaves = [file.schema.column(k) for k in range(len(file.schema))]
        groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
    cells, text = 0, 0
    for k, leaf in enumerate(leaves):
        count = sum(g.column(k).num_values for g in groups)
        cells += count
        if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
            text += count * leaf.length
        elif leaf.physical_type == "BYTE_ARRAY" and leaf.max_repetition_level:
            message = f"the column {leaf.path!r} holds lists of text"
            raise ValueError(message)
    if cells > MAX_CELLS:
        message = f"{cells:,} cells; at most {MAX_CELLS:,}"
        raise ValueError(message)
    packed = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    if text <= MAX_TEXT:
        with pq.ParquetFile(path, read_dictionary=packed) as file:
            table = file.read()
        for column in table.columns:
            for chunk in column.chunks:
                if isinstance(chunk, pa.DictionaryArray):
                    lengths = pc.take(pc.binary_length(chunk.dictionary), chunk.indices)
                    text += pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0
    if text > MAX_TEXT:
        message = f"more than {MAX_TEXT:,} characters of text"
        raise ValueError(message)
    return table


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(v) for v in value)
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _device_types(device_types: Sequence[type[Element]]) -> tuple[type[Element], ...]:
    classes: list[type[Element]] = list(BUILT_IN)
    taken = {c.table for c in classes} | _FIXED
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
    """The case in a folder; see the module for the layout.

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
    files = _table_files(reader, head, {c.table for c in devices} | _FIXED)

    horizon = _read_horizon(reader, head.horizon)
    found: dict[type[Element], list[Element]] = {}
    areas: dict[str, str] = {}
    for cls in (*_WIRES, *devices):
        found[cls] = []
        nested = _NESTED.get(cls)
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


def _read_class(reader: _Reader, rows: _Rows, cls: type[Element], areas: dict[str, str]) -> list[Element]:
    extra = ("area",) if cls is Bus else ()
    read = reader.elements(rows, cls, _columns(cls), extra)
    out: list[Element] = []
    for values, cells, line in read or ():
        element = cls(**values)
        reader.where[element.label] = f"{rows.file}:{line}"
        if cells.get("area"):
            areas[element.name] = cells["area"]
        out.append(element)
    return out


def _read_nested(reader: _Reader, files: Mapping[str, Path], cls: type[Element], nested: _Nested) -> list[Element]:
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
    key = _Column(nested.key, required=True, default=None, optional=False, kind=_KINDS["str"])
    parts: dict[str, list[Any]] = {}
    lines: dict[str, int] = {}
    read = reader.elements(part_rows, nested.part, (key, *_columns(nested.part)))
    for values, _, line in read or ():
        name = values.pop(nested.key)
        lines.setdefault(name, line)
        parts.setdefault(name, []).append(nested.part(**values))
    out: list[Element] = []
    heads = reader.elements(rows, cls, _columns(cls, without=(nested.field,)))
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


def _check_times(reader: _Reader, rows: _Rows, cells: Sequence[str], horizon: Horizon) -> None:
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


# --- writing
# --------------------------------------------------------------------------------------------------------

_Table = tuple[list[str], list[list[str]]]


def write_folder(
    case: Case, path: str | os.PathLike[str], *, tables: Literal["csv", "parquet"] = "csv", overwrite: bool = False
) -> Path:
    """Write a case as a folder; see the module for the layout.

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
                _write_csv(fresh / f"{name}.csv", header, rows)
            else:
                _write_parquet(fresh / f"{name}.parquet", header, rows)
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
    classes: tuple[type[Element], ...] = (*_WIRES, *BUILT_IN)
    known = {c.table for c in classes} | _FIXED
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
        nested = _NESTED.get(cls)
        sheets[cls.table] = _sheet(_columns(cls, without=(nested.field,) if nested else ()), elements)
        if nested is not None:
            pairs = [(e.name, part) for e in elements for part in getattr(e, nested.field)]
            header, rows = _sheet(_columns(nested.part), [part for _, part in pairs])
            sheets[nested.table] = (
                [nested.key, *header],
                [[_show_text(name), *row] for (name, _), row in zip(pairs, rows, strict=True)],
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
        if not isinstance(_series(name), str) or name != name.strip() or name in ("time", "", _NONE):
            action = "Rename the profile."
            faults.append(Fault("TAB-042 profile", f"profile.{name}", "the name", "a word, no number", action))
    if faults:
        raise CaseError(faults)
    return sheets


def _sheet(columns: Sequence[_Column], elements: Sequence[Any]) -> _Table:
    kept = []
    for column in columns:
        values = [getattr(e, column.name) for e in elements]
        if column.required or not all(_is_default(v, column.default) for v in values):
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
        columns.append([_show_float(v) for v in array])
    return ["time", *case.profiles], [list(row) for row in zip(*columns, strict=True)]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")


def _write_parquet(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    columns = [list(c) for c in zip(*rows, strict=True)] if rows else [[] for _ in header]
    arrays = []
    for cells in columns:
        try:
            # Numbers as numbers, when every cell is the text that the number is written as.
            numbers = [float(c) for c in cells]
            exact = bool(numbers) and all(_show_float(v) == c for v, c in zip(numbers, cells, strict=True))
        except ValueError:
            exact = False
        arrays.append(pa.array(numbers, pa.float64()) if exact else pa.array(cells, pa.string()))
    pq.write_table(pa.table(arrays, names=list(header)), path)


__all__ = ["CaseFile", "HorizonFile", "read_elements", "read_folder", "read_profiles", "write_folder"]
