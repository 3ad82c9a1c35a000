"""Formulations: one file each holds only what differs within its family. A user's own is passed as an
instance, or found by name in an installed package (`lateral.plugins`).
"""

from __future__ import annotations

from lateral import plugins
from lateral.errors import OptionError, did_you_mean
from lateral.formulations.base import Beside, Formulation, OperatingPoint
from lateral.formulations.bus_injection import BusInjection
from lateral.formulations.current_voltage import CurrentVoltage
from lateral.formulations.lindist3flow import LinDist3Flow
from lateral.formulations.lindistflow import LinDistFlow
from lateral.formulations.linearised import Linearised
from lateral.formulations.nonlinear import Nonlinear
from lateral.formulations.sdp import SDP
from lateral.formulations.soc import SOC
from lateral.formulations.soc3 import SOC3

BUILT_IN: dict[str, Formulation] = {
    f.name: f
    for f in (
        LinDistFlow(),
        SOC(),
        Nonlinear(),
        LinDist3Flow(),
        CurrentVoltage(),
        BusInjection(),
        Linearised(),
        SOC3(),
        SDP(),
    )
}


def get(name: str) -> Formulation:
    """The formulation of a name.

    Raises:
        OptionError: there is none; the message says which there are.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = plugins.find("lateral.formulations", name)
    if not isinstance(found, Formulation):
        known = (*BUILT_IN, *plugins.names("lateral.formulations"))
        message = f"there is no formulation {name!r}. {did_you_mean(name, known)}"
        raise OptionError(message)
    return found


def is_relaxation(name: str) -> bool:
    """Whether a name is that of a relaxation; a user's own that was handed over is known by no name, and is none."""
    try:
        return get(name).relaxes
    except OptionError:
        return False


__all__ = [
    "BUILT_IN",
    "Beside",
    "SDP",
    "SOC",
    "SOC3",
    "BusInjection",
    "CurrentVoltage",
    "Formulation",
    "LinDist3Flow",
    "LinDistFlow",
    "Linearised",
    "Nonlinear",
    "OperatingPoint",
    "get",
    "is_relaxation",
]
