"""OpenDSS files while they are written: numbers and names as the engine takes them, and what all writers share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lateral.case import Case
from lateral.io.dispatch import Dispatch
from lateral.network.schema import FloatArray

#: Conductors of one terminal; the engine writes past the end of its list of nodes when there are too many.
MAX_NODES = 40

#: Files that a folder of ours holds, in the order in which the master file reads them.
PARTS = (
    "loadshapes.dss",
    "sources.dss",
    "lines.dss",
    "transformers.dss",
    "shunts.dss",
    "loads.dss",
    "devices.dss",
    "bases.dss",
)

Der = Literal["load", "native"]


def num(value: float) -> str:
    """A number with every digit that it has.

    Raises:
        ValueError: it is not finite.
    """
    value = float(value)
    if not math.isfinite(value):
        message = f"{value} cannot be written"
        raise ValueError(message)
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def array(values: Iterable[float]) -> str:
    """Numbers as a list of OpenDSS."""
    return "[" + " ".join(num(v) for v in values) + "]"


def matrix_of(matrix: FloatArray) -> str:
    """A matrix as OpenDSS takes it, row by row."""
    return "[" + " | ".join(" ".join(num(v) for v in row) for row in matrix) + "]"


class Namer:
    """Hands out names that OpenDSS takes, each once per class."""

    def __init__(self) -> None:
        self.used: dict[str, set[str]] = {}

    def take(self, group: str, wanted: str) -> str:
        """A name like the one wanted that nothing else of its group has."""
        used = self.used.setdefault(group, set())
        base = re.sub(r"[^a-z0-9_\-]", "_", wanted.lower()) or "_"
        if base[0] == "-":
            base = "_" + base
        name, k = base, 2
        while name in used:
            name, k = f"{base}_{k}", k + 1
        used.add(name)
        return name


@dataclass
class Draft:
    """The files as far as they are written: their text by name, and what the writers of elements share."""

    case: Case
    dispatch: Dispatch
    der: Der
    out: dict[str, list[str]] = field(default_factory=lambda: {part: [] for part in PARTS})
    namer: Namer = field(default_factory=Namer)
    bus: dict[str, str] = field(default_factory=dict)
    element: dict[str, str] = field(default_factory=dict)
    source_objects: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    source_lines: list[str] = field(default_factory=list)
    shunt_parts: list[str] = field(default_factory=list)
    vsources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shapes: dict[tuple[str, ...], str] = field(default_factory=dict)
    extra_buses: list[tuple[str, float]] = field(default_factory=list)
    next_conductor: dict[str, int] = field(default_factory=dict)
    limits: dict[tuple[str, int], tuple[float, float, int]] = field(default_factory=dict)
    #: kvar of objects that follow the schedule without a shape, by ``class.name``
    kvar: dict[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.share = 1.0 / self.case.feeder.n_phases if self.case.feeder.balanced else 1.0
        self.circuit = self.namer.take("circuit", self.case.name or "case")

    @property
    def step_s(self) -> float:
        """Length of a step in the load shapes, s; an hour where steps differ."""
        steps = self.case.horizon.step_h
        return float(steps[0]) * 3600.0 if len(set(steps.tolist())) == 1 else 3600.0

    def nodes(self, bus: str, conductors: Sequence[int]) -> str:
        """A bus with its nodes, ``bus.1.2.3``.

        Raises:
            ValueError: there are more than the engine has room for.
        """
        if len(conductors) > MAX_NODES:
            message = f"{len(conductors)} conductors at bus {bus!r}; the engine has room for {MAX_NODES}"
            raise ValueError(message)
        return ".".join([self.bus[bus], *(str(int(c)) for c in conductors)])

    def name(self, label: str, cls: str, wanted: str) -> str:
        """A name for an object of a class; the first of an element is known as its own."""
        name = self.namer.take(cls.lower(), wanted)
        self.element.setdefault(label, f"{cls}.{name}")
        return name

    def shape(self, key: tuple[str, ...], wanted: str, p: FloatArray, q: FloatArray | None, *, actual: bool) -> str:
        """A load shape, made once per key; its name."""
        if key not in self.shapes:
            name = self.namer.take("loadshape", wanted)
            text = f"New LoadShape.{name} npts={len(p)} sinterval={num(round(self.step_s, 9))}"
            if actual:
                text += " useactual=yes"
            text += f" pmult={array(p)}"
            if q is not None:
                text += f" qmult={array(q)}"
            self.out["loadshapes.dss"].append(text)
            self.shapes[key] = name
        return self.shapes[key]
