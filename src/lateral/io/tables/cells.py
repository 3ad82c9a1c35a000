"""One field, one column: the text of a cell, and the value that it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lateral.errors import OptionError
from lateral.network.schema import FieldSpec, FloatArray, fields_of

NONE = "none"


class BadCell(ValueError):
    """A cell that is not what its column holds; the text says what is allowed."""


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        allowed = "a number"
        raise BadCell(allowed) from None


def _int(text: str) -> int:
    value = _float(text)
    if not value.is_integer():
        allowed = "a whole number"
        raise BadCell(allowed)
    return int(value)


def _bool(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        allowed = "true or false"
        raise BadCell(allowed)
    return words[text.lower()]


def _even_quotes(text: str) -> bool:
    return len(text) % 2 == 0 and not text.strip('"')


# An empty cell is the default, so the empty text is written as a pair of quotes; a text that is itself nothing but
# pairs of quotes gets one pair more.
def _text(text: str) -> str:
    return text[2:] if _even_quotes(text) else text


def series(text: str) -> float | str:
    """A number, or the name of a profile."""
    try:
        return float(text)
    except ValueError:
        return text


def _numbers(text: str) -> tuple[float, ...]:
    return () if text == NONE else tuple(_float(part) for part in text.split())


def _three(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if len(values) != 3:
        allowed = "three numbers"
        raise BadCell(allowed)
    return values


def _whole_numbers(text: str) -> tuple[int, ...]:
    return () if text == NONE else tuple(_int(part) for part in text.split())


def _words(text: str) -> tuple[str, ...]:
    return () if text == NONE else tuple(part.strip() for part in text.split(";"))


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
    raise BadCell(allowed)


def show_float(value: float) -> str:
    """The shortest text that reads back to the same number."""
    value = float(value)
    if value.is_integer() and abs(value) < 1e15 and not (value == 0 and math.copysign(1.0, value) < 0):
        return str(int(value))
    return repr(value)


def _show_numbers(values: Iterable[float]) -> str:
    return " ".join(show_float(v) for v in values) or NONE


def _show_matrix(value: Any) -> str:
    array = np.array(value, dtype=float, ndmin=2)
    # Bit for bit: a symmetric matrix that differs in the sign of a zero is written whole.
    if array.shape[0] == array.shape[1] and array.tobytes() == np.ascontiguousarray(array.T).tobytes():
        return "; ".join(_show_numbers(row[: k + 1]) for k, row in enumerate(array))
    return "; ".join(_show_numbers(row) for row in array)


def show_text(value: str) -> str:
    """A text as a cell, so that the empty text is no empty cell."""
    return f'{value}""' if _even_quotes(value) else value


def _show_words(value: Iterable[str]) -> str:
    return "; ".join(value) or NONE


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one type are read from a cell and written to it."""

    read: Callable[[str], Any]
    show: Callable[[Any], str]


_FLOAT = Kind(_float, show_float)
KINDS: Mapping[str, Kind] = {
    "float": _FLOAT,
    "int": Kind(_int, lambda v: str(int(v))),
    "bool": Kind(_bool, lambda v: "true" if v else "false"),
    "str": Kind(_text, show_text),
    "Series": Kind(series, lambda v: v if isinstance(v, str) else show_float(v)),
    "Terminals": Kind(_whole_numbers, lambda v: " ".join(str(int(k)) for k in v) or NONE),
    "tuple[int, ...]": Kind(_whole_numbers, lambda v: " ".join(str(int(k)) for k in v) or NONE),
    "tuple[float, ...]": Kind(_numbers, _show_numbers),
    "tuple[float, float, float]": Kind(_three, _show_numbers),
    "tuple[str, ...]": Kind(_words, _show_words),
    "FloatArray": Kind(_matrix, _show_matrix),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A field as a column of its table."""

    name: str
    required: bool
    default: Any
    optional: bool
    kind: Kind

    def read(self, text: str) -> Any:
        """The value of a cell that is not empty.

        Raises:
            BadCell: the cell is not what the column holds.
        """
        if self.optional and text == NONE:
            return None
        return self.kind.read(text)

    def show(self, value: Any) -> str:
        """The cell of a value; empty where an empty cell means it."""
        if value is None:
            return "" if self.default is None and not self.required else NONE
        if isinstance(value, str) and value == "" and isinstance(self.default, str) and self.default == "":
            return ""
        return self.kind.show(value)


def _column(spec: FieldSpec, owner: type) -> Column:
    kind = spec.type.removeprefix("<class '").removesuffix("'>")
    optional = kind.endswith("| None")
    kind = kind.removesuffix("| None").strip()
    if kind in ("float | str", "str | float") or spec.series:
        kind = "Series"
    if spec.matrix:
        kind = "FloatArray"
    if kind not in KINDS:
        message = f"{owner.__name__}.{spec.name}: a field of type {spec.type} has no place in a table"
        raise OptionError(message)
    return Column(spec.name, spec.required, spec.default, optional, KINDS[kind])


def columns_of(cls: type, *, without: tuple[str, ...] = ()) -> tuple[Column, ...]:
    """The columns of a class.

    Raises:
        OptionError: a field has no place in a table.
    """
    return tuple(_column(f, cls) for f in fields_of(cls) if f.name not in without)


def is_default(value: Any, default: Any) -> bool:
    """Whether a value is the default of its field, bit for bit."""
    if value is None or default is None:
        return value is default
    if isinstance(value, np.ndarray) or isinstance(default, np.ndarray):
        return np.array(value, ndmin=2).tobytes() == np.array(default, dtype=float, ndmin=2).tobytes()
    if isinstance(value, float) and isinstance(default, float):
        return repr(value) == repr(default)
    return type(value) is type(default) and repr(value) == repr(default)
