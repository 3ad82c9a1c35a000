"""Objectives: one file each; they add up with ``+`` and take a weight with ``*``."""

from __future__ import annotations

import math

from lateral import plugins
from lateral.errors import OptionError, did_you_mean
from lateral.objectives.base import Objective
from lateral.objectives.curtailment import Curtailment
from lateral.objectives.demand import Demand
from lateral.objectives.energy_cost import EnergyCost
from lateral.objectives.loss import Loss
from lateral.objectives.peak import Peak
from lateral.objectives.unbalance import Unbalance
from lateral.objectives.voltage_deviation import VoltageDeviation

BUILT_IN: dict[str, Objective] = {
    o.name: o for o in (EnergyCost(), Loss(), VoltageDeviation(), Curtailment(), Peak(), Demand(), Unbalance())
}


def get(name: str) -> Objective:
    """The objective of a name, or a weighted sum such as ``cost+0.1*peak``.

    Raises:
        OptionError: a part does not exist; the message says which do.
    """
    parts = []
    for text in name.split("+"):
        weight, star, word = text.strip().rpartition("*")
        part = BUILT_IN.get(word) or plugins.find("lateral.objectives", word)
        if not isinstance(part, Objective):
            known = (*BUILT_IN, *plugins.names("lateral.objectives"))
            message = f"there is no objective {word!r}. {did_you_mean(word, known)}"
            raise OptionError(message)
        try:
            factor = float(weight) if star else 1.0
        except ValueError:
            message = f"the weight {weight!r} of objective {word!r} is not a number"
            raise OptionError(message) from None
        if not (math.isfinite(factor) and factor >= 0.0):
            message = f"the weight {weight!r} of objective {word!r} must be a finite number of at least 0"
            raise OptionError(message)
        parts.append(part * factor if star else part)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


__all__ = [
    "BUILT_IN",
    "Curtailment",
    "Demand",
    "EnergyCost",
    "Loss",
    "Objective",
    "Peak",
    "Unbalance",
    "VoltageDeviation",
    "get",
]
