"""Reading and writing: built-in cases, case folders, studies and OpenDSS masters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lateral import plugins
from lateral.case import Case
from lateral.errors import CaseError, Fault, did_you_mean
from lateral.io import builtin
from lateral.io.study import read_study
from lateral.io.tables import read_folder, write_folder
from lateral.network.schema import Element


def read(source: str | os.PathLike[str], *, device_types: Sequence[type[Element]] = ()) -> Case:
    """A case from whatever holds it.

    Args:
        source: name of a built-in case, a case folder (or its ``case.toml``), a study file (``.toml``), or an OpenDSS
            master (``.dss``).
        device_types: device classes of the user that a case folder may hold, beside those of installed packages
            (`lateral.plugins`).

    Raises:
        CaseError: it is none of these, or it has faults.
    """
    path = Path(source)
    device_types = (*device_types, *(c for c in plugins.classes("lateral.devices") if c not in device_types))
    if isinstance(source, str) and builtin.has(source):
        return builtin.load(source)
    if path.name == "case.toml" or (path / "case.toml").is_file():
        return read_folder(path, device_types=device_types)
    if path.is_file() and path.suffix.lower() == ".toml":
        return read_study(path, device_types=device_types).case
    if path.is_file() and path.suffix.lower() == ".dss":
        from lateral.io import opendss  # the engine is loaded only when a master is read

        case: Case = opendss.read(path)[0]
        return case
    if path.is_dir():
        found, action = "a folder without case.toml", "Name the .dss master or the study file in it."
    elif path.exists():
        found, action = f"a file of another kind ({path.suffix or 'no suffix'})", "Give one of those."
    else:
        found, action = "no such file and no such built-in case", did_you_mean(str(source), builtin.names())
    allowed = "a built-in case, a case folder, a study .toml or a .dss master"
    raise CaseError([Fault("TAB-001 no case", str(source), found, allowed, action)])


__all__ = ["builtin", "read", "read_folder", "read_study", "write_folder"]
