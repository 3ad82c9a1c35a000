"""What goes to the screen: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console


def plain(value: Any) -> Any:
    """The same value in what JSON knows: NaN and infinity are null, numpy scalars are numbers."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return str(value)


def to_json(value: Any) -> str:
    """JSON text without NaN."""
    return json.dumps(plain(value), indent=1, allow_nan=False)


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def console(*, stderr: bool = False) -> Console:
    """A rich console; plain text where the output is no terminal."""
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 160
    return Console(stderr=stderr, highlight=False, width=width, soft_wrap=False)


def printable(text: str) -> str:
    """The text without characters that a terminal takes as commands: names come from files of others."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def note(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"lateral: {printable(text)}\n")


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show on standard error what is being done, while it is done.

    Standard output is turned to standard error meanwhile, down to the file descriptor: solvers written in C print
    there, and a script that reads standard output is to find the result and nothing else.
    """
    with _stdout_to_stderr(), console(stderr=True).status(text, spinner="dots"):
        yield


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # no such descriptor: nothing to protect
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def pairs(rows: Sequence[tuple[str, str]], title: str) -> None:
    """A two-column table on standard output."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title)), show_header=False, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(printable(name)), Text(printable(value)))
    console().print(table)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on standard output; numbers are right-aligned."""
    from rich.table import Table
    from rich.text import Text

    out = Table(title=Text(printable(title)) if title else None, title_justify="left")
    for k, name in enumerate(header):
        numeric = bool(rows) and all(_numeric(row[k]) for row in rows)
        prose = any(" " in row[k] for row in rows)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        out.add_column(name, justify=justify, overflow="fold", no_wrap=not prose)
    for row in rows:
        out.add_row(*(Text(printable(cell)) for cell in row))
    console().print(out)


def _numeric(text: str) -> bool:
    return text == "" or text[0].isdigit() or (text[0] == "-" and text[1:2].isdigit()) or text == "-"


def number(value: Any, unit: str = "", digits: int = 3) -> str:
    """A number with its unit for the screen; a dash where there is none."""
    if not isinstance(value, (int, float)) or value != value:
        return "-"
    small = value != 0 and abs(value) < 10.0**-digits
    text = f"{value:.3g}" if small else f"{value:,.{digits}f}"
    return f"{text} {unit}".strip()


def count(n: int, thing: str) -> str:
    """A number of things for the screen: one of them has no plural."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


__all__ = [
    "console",
    "count",
    "note",
    "number",
    "pairs",
    "plain",
    "print_json",
    "printable",
    "table",
    "to_json",
    "working",
]
