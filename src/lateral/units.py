"""Bases and conversion: the only per-unit crossing.

Outside, quantities are in engineering units and say so in their names (``p_kw``, ``r_ohm``). Inside, everything
is per unit on one power base for the whole case and on each bus's own line-to-ground voltage base.

    S_base  kVA, per conductor;   V_base  kV, line to ground;   Z_base = 1000 V_base^2 / S_base   ohm
    I_base = S_base / V_base      A

A balanced feeder stands for ``n_phases`` identical conductors: its base is per conductor, so that a total of
``p_kw`` is ``p_kw / (n_phases S_base)`` on the one conductor kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

#: One voltage, or many.
V = TypeVar("V", float, NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class Base:
    """The power base of a case.

    Attributes:
        s_kva: power base per conductor, kVA.
        multiplicity: how many identical conductors one modelled conductor stands for (1, or 3 when balanced).
    """

    s_kva: float = 1000.0
    multiplicity: int = 1

    @property
    def total_kva(self) -> float:
        """kW (or kvar, kVA) that one per-unit of power on a modelled conductor stands for in totals."""
        return self.s_kva * self.multiplicity

    def z_ohm(self, v_base_kv: float) -> float:
        """Impedance base, ohm, at a line-to-ground voltage base in kV."""
        return 1000.0 * v_base_kv**2 / self.s_kva

    def i_a(self, v_base_kv: V) -> V:
        """Current base, A, at a line-to-ground voltage base in kV."""
        return self.s_kva / v_base_kv
