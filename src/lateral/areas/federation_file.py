"""The layout of ``federation.toml`` (`lateral.areas.federation`), and what can be wrong with one."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal

from pydantic import Field

from lateral import formulations, objectives
from lateral.areas.algorithms import BUILT_IN, EnappPriced
from lateral.errors import Fault, OptionError, did_you_mean
from lateral.io._toml import Strict
from lateral.solvers import SOLVERS

#: Version of the layout.
FORMAT = 1

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class RunTable(Strict):
    """``[run]``: how the areas are solved, and until when."""

    formulation: str
    objective: str = "cost"
    algorithm: str = EnappPriced.name
    options: dict[str, str | bool | int | float] = Field(default_factory=dict, description="Of the algorithm.")
    tolerance: Positive = 1e-6
    max_rounds: Count = 100
    solver: str = "auto"
    terminal: Literal["equal", "at-least", "free", "priced"] = "equal"
    loss_term: bool = True
    limits: Literal["all", "voltage", "none"] = "all"


class AreaTable(Strict):
    """``[areas.NAME]``."""

    n_nodes: Annotated[int, Field(ge=0)]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class BorderTable(Strict):
    """``[borders.NAME]``."""

    parent: str
    child: str
    branch: Annotated[list[str], Field(min_length=1)]
    bus: str
    conductors: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class FederationFile(Strict):
    """``federation.toml``."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    name: str
    n_steps: Count
    s_kva: Positive
    v_start: list[Positive]
    price_start: list[Annotated[float, Field(allow_inf_nan=False)]]
    price_size: Positive = 1.0
    hours: list[Positive] = Field(default_factory=list)
    run: RunTable
    areas: Annotated[dict[str, AreaTable], Field(min_length=1)]
    borders: dict[str, BorderTable] = Field(default_factory=dict)


def tree_faults(raw: FederationFile, file: str) -> list[Fault]:
    """Areas that do not exist, and what is no tree."""
    faults = []
    heads: dict[str, str] = {}
    for name, b in raw.borders.items():
        element = f"border.{name}"
        for side in ("parent", "child"):
            area = getattr(b, side)
            if area not in raw.areas:
                action = did_you_mean(area, list(raw.areas))
                faults.append(
                    Fault("FED-003 unknown area", element, f"{side} {area!r}", "an area of the file", action, file)
                )
        if b.child in heads:
            found = f"the area {b.child!r}, which lies beyond {heads[b.child]!r} already"
            faults.append(Fault("FED-004 no tree", element, found, "one border above each area", "Remove one.", file))
        heads.setdefault(b.child, name)
        if len(set(b.conductors)) < len(b.conductors):
            found = f"conductors {b.conductors}"
            faults.append(Fault("FED-002 key", element, found, "each conductor once", "Remove the repeated one.", file))
    if faults:
        return faults
    roots = [a for a in raw.areas if a not in heads]
    if len(roots) != 1 or len(order_of(raw)) < len(raw.areas):
        missing = sorted(set(raw.areas) - set(order_of(raw)))
        found = f"{len(roots)} areas without a border above them ({', '.join(roots) or 'none'})"
        found += f"; not below the source: {', '.join(missing)}" if missing else ""
        action = "Every area but that of the source is the child of one border."
        faults.append(Fault("FED-004 no tree", "borders", found, "one, the area of the source", action, file))
    return faults


def order_of(raw: FederationFile) -> tuple[str, ...]:
    """Areas below the first root, every parent before its children, else in the order of the file."""
    heads = {b.child: b.parent for b in raw.borders.values()}
    place = {a: k for k, a in enumerate(raw.areas)}
    below: dict[str, list[str]] = {}
    for child, parent in heads.items():
        if child in place:
            below.setdefault(parent, []).append(child)
    level = [a for a in raw.areas if a not in heads][:1]
    out: list[str] = []
    while level:
        out += level
        level = sorted((c for a in level for c in below.pop(a, [])), key=place.__getitem__)
    return tuple(out)


def series_faults(raw: FederationFile, file: str) -> list[Fault]:
    """Series that have not one value for each step."""
    return [
        Fault(
            "FED-005 length",
            f"{file}.{key}",
            f"{len(getattr(raw, key))} values",
            f"n_steps = {raw.n_steps}",
            "Give one value for each step.",
            file,
        )
        for key in ("v_start", "price_start", "hours")
        if len(getattr(raw, key)) != raw.n_steps and not (key == "hours" and not raw.hours)
    ]


def name_faults(run: RunTable, file: str) -> list[Fault]:
    """Formulations, objectives, solvers, algorithms and options that do not exist."""
    faults = []

    def note(key: str, found: str, allowed: str, action: str) -> None:
        faults.append(Fault("FED-006 name", f"run.{key}", found, allowed, action, file))

    for key, make in (("formulation", formulations.get), ("objective", objectives.get)):
        try:
            make(getattr(run, key))
        except OptionError as error:
            note(key, repr(getattr(run, key)), f"a known {key}", str(error))
    if run.solver != "auto" and run.solver not in SOLVERS:
        note("solver", repr(run.solver), "auto, or a known solver", did_you_mean(run.solver, ["auto", *SOLVERS]))
    if run.algorithm not in BUILT_IN:
        note("algorithm", repr(run.algorithm), "a known algorithm", did_you_mean(run.algorithm, list(BUILT_IN)))
        return faults
    cls: Any = BUILT_IN[run.algorithm]
    known = {f.name: f.default for f in dataclasses.fields(cls)}
    for option, value in run.options.items():
        if option not in known:
            note(f"options.{option}", repr(value), "an option of the algorithm", did_you_mean(option, list(known)))
        elif not _same_kind(value, known[option]):
            kind = type(known[option]).__name__
            note(f"options.{option}", repr(value), f"a value like {known[option]!r} ({kind})", "Correct the value.")
    if not faults:
        try:
            cls(**run.options)
        except OptionError as error:
            note("options", ", ".join(f"{k} = {v!r}" for k, v in run.options.items()), "what it takes", str(error))
    return faults


def _same_kind(value: object, default: object) -> bool:
    """Whether a value is of the kind of an option's default; a whole number is a number."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return default is None or isinstance(value, type(default))


__all__ = ["FORMAT", "FederationFile", "RunTable", "name_faults", "order_of", "series_faults", "tree_faults"]
