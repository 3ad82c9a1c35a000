"""Distributed algorithms: one file each."""

from __future__ import annotations

from lateral.areas.algorithms.base import Algorithm, Borders, State
from lateral.areas.algorithms.enapp import Enapp
from lateral.areas.algorithms.enapp_priced import EnappPriced

BUILT_IN: dict[str, type[Algorithm]] = {a.name: a for a in (Enapp, EnappPriced)}

__all__ = ["BUILT_IN", "Algorithm", "Borders", "Enapp", "EnappPriced", "State"]
