"""One table as a file of CSV or Parquet: its cells as text, within what a table may cost."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lateral.io.tables.cells import show_float

#: what one table may cost: bytes of its file, cells, and characters of text (Parquet packs a repetition into nothing)
MAX_BYTES = 2**30
MAX_CELLS = 100_000_000
MAX_TEXT = 2**30


@dataclass
class Rows:
    """One table as text: header, rows and where each row stands."""

    file: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]


def check_file(path: Path) -> None:
    """Refuse what is no file (a pipe would never end, a folder would be read with all that it links to)."""
    if not path.is_file():
        message = "no regular file" if path.exists() else "no such file"
        raise ValueError(message)
    if path.stat().st_size > MAX_BYTES:
        message = f"a file of more than {MAX_BYTES:,} bytes"
        raise ValueError(message)


def read_csv(path: Path) -> Rows:
    """The text of a CSV file."""
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
    return Rows(path.name, header, rows, lines)


def read_parquet(path: Path) -> Rows:
    """The text of a Parquet file, as a CSV file would have it."""
    table = _bounded_parquet(path)
    columns = [
        ["" if v is None else show_float(v) if isinstance(v, float) else _cell(v) for v in column.to_pylist()]
        for column in table.columns
    ]
    rows = [list(row) for row in zip(*columns, strict=True)] if columns else []
    return Rows(path.name, [str(n) for n in table.column_names], rows, list(range(1, len(rows) + 1)))


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


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")


def write_parquet(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table as Parquet."""
    columns = [list(c) for c in zip(*rows, strict=True)] if rows else [[] for _ in header]
    arrays = []
    for cells in columns:
        try:
            # Numbers as numbers, when every cell is the text that the number is written as.
            numbers = [float(c) for c in cells]
            exact = bool(numbers) and all(show_float(v) == c for v, c in zip(numbers, cells, strict=True))
        except ValueError:
            exact = False
        arrays.append(pa.array(numbers, pa.float64()) if exact else pa.array(cells, pa.string()))
    pq.write_table(pa.table(arrays, names=list(header)), path)
