"""One schema per element: the dataclass is the schema.

Every field of an element is declared with `spec`, which stores unit, bounds and a sentence. Validation
(`lateral.case`), tables (`lateral.io`) and the documentation tables are all made from it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
IntArray = NDArray[np.int64]

#: A number, or the name of a profile of the case (then the value is the profile, in the field's unit).
Series = float | str


def spec(
    doc: str,
    *,
    unit: str = "",
    default: Any = MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    series: bool = False,
    profile: bool = False,
    matrix: bool = False,
) -> Any:
    """Declare one field of an element.

    Args:
        doc: one sentence on what the field means.
        unit: engineering unit, empty for none.
        default: value when absent; without one the field is required.
        minimum: smallest value allowed.
        maximum: largest value allowed.
        above: the value must be greater than this.
        choices: the words allowed.
        series: the field takes a number or the name of a profile that holds it over time.
        profile: the field is the name of a profile (a multiplier over time), or empty.
        matrix: the field is a square matrix over the element's conductors.
    """
    metadata = {
        "doc": doc,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "choices": choices,
        "series": series,
        "profile": profile,
        "matrix": matrix,
    }
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """What the schema says of one field; see `spec`."""

    name: str
    type: str
    unit: str
    default: Any
    required: bool
    doc: str
    minimum: float | None
    maximum: float | None
    above: float | None
    choices: tuple[str, ...]
    series: bool
    profile: bool
    matrix: bool


def fields_of(cls: type) -> tuple[FieldSpec, ...]:
    """The schema of an element class, field by field, in order of declaration."""
    out = []
    for f in dataclasses.fields(cls):
        m: Mapping[str, Any] = f.metadata
        required = f.default is MISSING and f.default_factory is MISSING
        out.append(
            FieldSpec(
                name=f.name,
                type=str(f.type),
                unit=m.get("unit", ""),
                default=None if required else f.default,
                required=required,
                doc=m.get("doc", ""),
                minimum=m.get("minimum"),
                maximum=m.get("maximum"),
                above=m.get("above"),
                choices=m.get("choices", ()),
                series=m.get("series", False),
                profile=m.get("profile", False),
                matrix=m.get("matrix", False),
            )
        )
    return tuple(out)


@dataclass(frozen=True, kw_only=True, eq=False)
class Element:
    """Base of everything that a case holds. ``kind`` names the class in tables, labels and messages."""

    kind: ClassVar[str] = ""
    #: name of the table (file) that holds elements of this class
    table: ClassVar[str] = ""

    name: str = spec("Name, unique within its kind, lower case.")

    @property
    def label(self) -> str:
        """``kind.name``, the way messages name the element."""
        return f"{self.kind}.{self.name}"

    def __post_init__(self) -> None:
        own: type = type(self)
        for name, matrix in _frozen_how(own):
            value = getattr(self, name)
            if matrix:
                array = np.array(value, dtype=float, ndmin=2)
                array.setflags(write=False)
                object.__setattr__(self, name, array)
            elif isinstance(value, list):
                object.__setattr__(self, name, tuple(value))


@cache
def _frozen_how(cls: type) -> tuple[tuple[str, bool], ...]:
    """Every field of an element class that may hold more than one value, and whether it is a matrix."""
    return tuple(
        (f.name, bool(f.metadata.get("matrix"))) for f in dataclasses.fields(cls) if str(f.type) not in _SCALARS
    )


_SCALARS = frozenset({"str", "bool", "int", "float", "float | None"})


Terminals = tuple[int, ...]


def ports_of(terminals: Terminals, connection: str) -> tuple[tuple[int, int], ...]:
    """The conductor pairs across which a shunt device is connected; conductor 0 is ground.

    * ``wye``: the last terminal is the common point: ``(1, 2, 3, 0)`` gives (1, 0), (2, 0), (3, 0); a one-phase
      device between two conductors is a wye ``(1, 2)``.
    * ``delta``: a ring over three terminals: ``(1, 2, 3)`` gives (1, 2), (2, 3), (3, 1). Two terminals are one
      pair. An open delta over three terminals is written ``delta-open`` and gives (1, 2), (2, 3).
    """
    if connection == "wye":
        return tuple([(t, terminals[-1]) for t in terminals[:-1]])
    if connection == "delta-open" or len(terminals) == 2:
        return tuple(itertools.pairwise(terminals))
    return tuple((t, terminals[(k + 1) % len(terminals)]) for k, t in enumerate(terminals))


CONNECTIONS = ("wye", "delta", "delta-open")
