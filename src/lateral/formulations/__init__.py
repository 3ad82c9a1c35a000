"""Formulations: one file each holds only what differs within its family. Users add theirs with `register`."""

from __future__ import annotations

from lateral.errors import OptionError, did_you_mean
from lateral.formulations.base import Formulation, OperatingPoint
from lateral.formulations.lindist3flow import LinDist3Flow
from lateral.formulations.lindistflow import LinDistFlow
from lateral.formulations.nonlinear import Nonlinear
from lateral.formulations.soc import SOC

BUILT_IN: dict[str, Formulation] = {f.name: f for f in (LinDistFlow(), SOC(), Nonlinear(), LinDist3Flow())}


def get(name: str) -> Formulation:
    """The formulation of a name.

    Raises:
        OptionError: there is none; the message says which there are.
    """
    if name not in BUILT_IN:
        message = f"there is no formulation {name!r}. {did_you_mean(name, list(BUILT_IN))}"
        raise OptionError(message)
    return BUILT_IN[name]


__all__ = ["BUILT_IN", "SOC", "Formulation", "LinDist3Flow", "LinDistFlow", "Nonlinear", "OperatingPoint", "get"]
