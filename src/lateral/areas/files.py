"""Files of areas: ``areas.toml``, which says where to cut, and one case folder per area, to be handed to its owner.

``areas.toml`` holds one of three things::

    n = 4                      # cut into so many areas, see `lateral.areas.divide`

    root = "town"              # cuts: the area beyond each branch; root is the area of the source
    [cuts]
    north = "line.15-117"
    south = "line.20-118"

    [buses]                    # or the area of every bus
    "1" = "town"
    "117" = "north"

`write_areas` makes a folder of folders; each is a case as `lateral.io.tables` describes it, is read and solved like any
other, and names nothing of the other areas but its borders: the name, the bus, the conductors that cross, and an
estimate of the power there.

Codes: ARE-001 to 009 the cuts (`lateral.areas.partition`), 010 and 011 the file.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, model_validator

from lateral.areas.divide import divide
from lateral.areas.partition import Partition, cut, cut_by_buses
from lateral.case import Case
from lateral.errors import CaseError, Fault, OptionError
from lateral.io import tables
from lateral.io._toml import Strict, read_toml, validate

FORMAT = 1
#: the file that `write_areas` leaves beside the folders, and the name that `--areas` looks for in a folder
NAME = "areas.toml"


class AreasFile(Strict):
    """``areas.toml``."""

    format: Annotated[int, Field(ge=1, le=FORMAT, description="Version of the layout.")] = FORMAT
    n: Annotated[int | None, Field(ge=1, description="Number of areas; where to cut is then chosen.")] = None
    root: str | None = Field(default=None, description="Name of the area of the source; only with cuts.")
    cuts: dict[str, str] | None = Field(default=None, description="Label of the branch that leads to each area.")
    buses: dict[str, str] | None = Field(default=None, description="Area of each bus.")

    @model_validator(mode="after")
    def _one(self) -> AreasFile:
        given = [name for name in ("n", "cuts", "buses") if getattr(self, name) is not None]
        if len(given) != 1:
            found = "both " + " and ".join(given) if given else "none of n, cuts and buses"
            message = f"one of n, cuts and buses, not {found}"
            raise ValueError(message)
        if self.root is not None and self.cuts is None:
            message = "a root only beside cuts"
            raise ValueError(message)
        return self


def partition_of(case: Case, areas: str | os.PathLike[str] | int | None = None) -> Partition:
    """The partition that ``--areas FILE|N`` means.

    Args:
        case: the case.
        areas: an ``areas.toml`` (or a folder with one), a number of areas, or None for the areas that the case names.

    Raises:
        OptionError: the number is none, or too large; or nothing says where to cut.
        CaseError: the file, or the cuts that it names, have faults: all of them, with file and line.
    """
    if areas is None:
        return cut_by_buses(case)
    if isinstance(areas, int):
        return divide(case, areas)
    if isinstance(areas, str) and re.fullmatch(r"[+-]?\d{1,9}", areas.strip()):
        return divide(case, int(areas))
    path = Path(areas)
    return read_areas(case, path / NAME if path.is_dir() else path)


def read_areas(case: Case, path: str | os.PathLike[str]) -> Partition:
    """Cut a case as an ``areas.toml`` says.

    Raises:
        OptionError: too many areas were asked for.
        CaseError: with every fault of the file, or of its cuts, each with file and line.
    """
    file = Path(path)
    data, text = read_toml(file, "ARE-010 file")
    wanted = validate(AreasFile, data, text, file.name, "ARE-011 key")
    try:
        if wanted.n is not None:
            return divide(case, wanted.n)
        if wanted.cuts is not None:
            return _cut(case, wanted.cuts, wanted.root or "1")
        return cut_by_buses(case, wanted.buses)
    except CaseError as error:
        raise CaseError(_placed(fault, wanted, text, file.name) for fault in error.faults) from None


def write_cuts(partition: Partition, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write where a partition is cut as an ``areas.toml``; `read_areas` makes the same partition of it.

    Raises:
        OptionError: the file exists.
    """
    file = Path(path)
    if file.exists() and not overwrite:
        message = f"{file} exists; give another name, or overwrite=True"
        raise OptionError(message)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_text(partition), encoding="utf-8")
    return file


def write_areas(
    partition: Partition,
    folder: str | os.PathLike[str],
    *,
    kind: Literal["csv", "parquet"] = "csv",
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write every area as a case folder of its own, ``folder/<area>``, and where the whole was cut beside them.

    Args:
        partition: the areas.
        folder: made if it does not exist.
        kind: format of the tables.
        overwrite: replace case folders that are there.

    Returns:
        The folder of each area.

    Raises:
        OptionError: a folder exists, or two areas' names differ in capitals only.
        CaseError: an area holds something that a table cannot.
    """
    top = Path(folder)
    lower: dict[str, str] = {}
    for name in partition.areas:
        other = lower.setdefault(name.casefold(), name)
        if other != name or name.casefold() == NAME:
            message = f"area {name!r} would share its folder with {other if other != name else NAME!r}; rename one"
            raise OptionError(message)
    write_cuts(partition, top / NAME, overwrite=overwrite)
    return {
        name: tables.write_folder(area.case, top / name, tables=kind, overwrite=overwrite)
        for name, area in partition.areas.items()
    }


def _cut(case: Case, cuts: dict[str, str], root: str) -> Partition:
    """Cuts by area; two areas beyond one branch are a fault that names both."""
    names: dict[str, str] = {}
    faults = []
    for area, label in cuts.items():
        if label in names:
            found = f"beyond {label}, as area {names[label]!r} is"
            faults.append(Fault("ARE-004 cut twice", f"area.{area}", found, "a branch of its own", "Remove one."))
        names.setdefault(label, area)
    try:
        partition = cut(case, names, names=names, root=root)
    except CaseError as error:
        raise CaseError([*faults, *error.faults]) from None
    if faults:
        raise CaseError(faults)
    return partition


def _placed(fault: Fault, wanted: AreasFile, text: str, file: str) -> Fault:
    """A fault with the line of the file that names its element."""
    kind, _, name = fault.element.partition(".")
    keys = [name]
    if wanted.cuts is not None and kind != "area":
        keys = [area for area, label in wanted.cuts.items() if label == fault.element]
    for number, line in enumerate(text.splitlines(), start=1):
        left = line.partition("=")[0].strip()
        if any(left in (key, f'"{key}"', f"'{key}'") for key in keys) or (
            kind == "area" and left == "root" and wanted.root == name
        ):
            return dataclasses.replace(fault, where=f"{file}:{number}")
    return dataclasses.replace(fault, where=fault.where or file)


def _text(partition: Partition) -> str:
    root = next(iter(partition.areas))
    data = {"format": FORMAT, "root": root, "cuts": {b.child: b.branch[0] for b in partition.borders.values()}}
    return tomli_w.dumps(data)


__all__ = ["AreasFile", "partition_of", "read_areas", "write_areas", "write_cuts"]
