"""Executors: where areas are solved. One file each; what they need beyond lateral is imported on use."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from lateral.areas.executors.base import Executor
from lateral.areas.executors.serial import Serial
from lateral.errors import OptionError, did_you_mean

#: Module and class by the name that users give.
BUILT_IN: dict[str, str] = {
    "serial": "lateral.areas.executors.serial:Serial",
    "process": "lateral.areas.executors.process:Process",
    "dask": "lateral.areas.executors.dask_:Dask",
    "helics": "lateral.areas.executors.helics_:Helics",
}


def executor_class(name: str) -> type[Executor]:
    """The class of a name.

    Raises:
        OptionError: there is none; the message says which there are.
    """
    if name not in BUILT_IN:
        message = f"there is no executor {name!r}. {did_you_mean(name, list(BUILT_IN))}"
        raise OptionError(message)
    module, _, attribute = BUILT_IN[name].partition(":")
    found: type[Executor] = getattr(importlib.import_module(module), attribute)
    return found


def get(name: str, **options: Any) -> Executor:
    """An executor by name, not started.

    Args:
        name: ``serial``, ``process``, ``dask`` or ``helics``.
        **options: what its class takes.

    Raises:
        OptionError: no such executor or option, or an option out of range; a package that it needs is not installed.
    """
    cls = executor_class(name)
    known = [p for p in inspect.signature(cls).parameters if p != "self"]
    for option in options:
        if option not in known:
            message = f"the executor {name!r} has no option {option!r}. {did_you_mean(option, known)}"
            raise OptionError(message)
    return cls(**options)


__all__ = ["BUILT_IN", "Executor", "Serial", "executor_class", "get"]
