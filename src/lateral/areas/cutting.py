"""cut: where areas come from, in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lateral.areas import files, partition
from lateral.areas.partition import Partition
from lateral.case import Case


def cut(case: Case, areas: int | str | os.PathLike[str] | Iterable[str] | None = None) -> Partition:
    """Cut a case into a tree of areas.

    Args:
        case: the case; its feeder is radial and has one source.
        areas: how many; or an ``areas.toml``; or labels of the branches to cut (``["line.15-117"]``); absent: the areas
            that the case names (``case.areas``).

    Raises:
        OptionError: a number that cannot be, or nothing says where to cut.
        CaseError: every fault of the case, the file or the cuts.
    """
    if areas is None or isinstance(areas, int | str | os.PathLike):
        return files.partition_of(case, areas)
    return partition.cut(case, areas)


__all__ = ["cut"]
