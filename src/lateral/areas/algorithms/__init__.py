"""Distributed algorithms: one file each."""

from __future__ import annotations

from lateral.areas.algorithms.admm import Admm
from lateral.areas.algorithms.app import App
from lateral.areas.algorithms.auto import Auto
from lateral.areas.algorithms.base import Algorithm, Borders, State
from lateral.areas.algorithms.enapp import Enapp
from lateral.areas.algorithms.enapp_priced import EnappPriced
from lateral.areas.algorithms.newton import Newton
from lateral.errors import OptionError, did_you_mean

BUILT_IN: dict[str, type[Algorithm]] = {a.name: a for a in (Auto, EnappPriced, Enapp, Newton, Admm, App)}


def get(name: str) -> type[Algorithm]:
    """The algorithm of a name; its fields are its options.

    Raises:
        OptionError: there is none of that name; the message says which there are.
    """
    if name not in BUILT_IN:
        message = f"there is no algorithm {name!r}. {did_you_mean(name, list(BUILT_IN))}"
        raise OptionError(message)
    return BUILT_IN[name]


__all__ = ["BUILT_IN", "Admm", "Algorithm", "App", "Auto", "Borders", "Enapp", "EnappPriced", "Newton", "State", "get"]
