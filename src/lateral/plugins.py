"""What other installed packages add: formulations, objectives and devices, by entry points.

A package makes its parts known in its ``pyproject.toml``; lateral finds them by name, also on the command line::

    [project.entry-points."lateral.formulations"]
    copperplate = "my_package:CopperPlate"        # a class without arguments, or an instance

The groups are ``lateral.formulations``, ``lateral.objectives`` and ``lateral.devices``. Nothing is imported before its
name is asked for (devices: before a case folder is read).
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

GROUPS = ("lateral.formulations", "lateral.objectives", "lateral.devices")


def names(group: str) -> tuple[str, ...]:
    """Names that installed packages add to a group."""
    return tuple(sorted(entry.name for entry in entry_points(group=group)))


def find(group: str, name: str) -> Any | None:
    """The object that an installed package gives under a name, None if there is none; a class is called first.

    Raises:
        ImportError: the package that names it cannot be imported.
    """
    for entry in entry_points(group=group, name=name):
        found = entry.load()
        return found() if isinstance(found, type) else found
    return None


def classes(group: str) -> tuple[type, ...]:
    """The classes that installed packages add to a group, as they are."""
    return tuple(entry.load() for entry in entry_points(group=group))


__all__ = ["GROUPS", "classes", "find", "names"]
