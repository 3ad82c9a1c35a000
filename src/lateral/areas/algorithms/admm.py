"""ADMM: consensus by alternating directions (Boyd et al. 2011, section 7.1), with residual balancing.

Each side of a border has copies x of v, P and Q there; z is their mean, y a multiplier of each side::

    x    = argmin  f(x) + y (x - z) + rho/2 (x - z)^2         each area, all at once
    z    = (x_child + x_parent) / 2
    y   += rho (x - z)

y starts at the price of the source for P (minus that for the parent's copy), at zero for Q and v.

**What it gives.** For a convex model residuals fall to zero and the objective to the optimum for every penalty (Boyd et
al. 2011, appendix A), slowly; for the exact model there is no proof. Prices need not be known, nor be unique: it also
settles where an area's problem is a degenerate linear program.

**Balancing** (He, Yang and Wang 2000; Boyd et al. 2011, section 3.4.1), for P and Q at each border, with both residuals
relative (Wohlberg 2017): where one is more than ten times the other the penalty is doubled or halved. It ends after
``balance_rounds``: a penalty that changes for ever can cycle, one that stands still is covered by the proof. The
penalty of v stays: where voltages are worth nothing, its relative residuals mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from lateral.areas.algorithms.base import State
from lateral.areas.algorithms.consensus import Consensus
from lateral.errors import OptionError
from lateral.network.schema import FloatArray

#: A residual that is more than this many times the other moves the penalty.
IMBALANCE = 10.0
#: By this factor.
FACTOR = 2.0


@final
@dataclass(frozen=True)
class Admm(Consensus):
    """Consensus ADMM.

    Attributes:
        penalty: rho to begin with, dimensionless, around 1 (`lateral.areas.algorithms.consensus.UNIT`).
        ratio_v: the penalty of v, as a share of that.
        balance_rounds: rounds in which residuals are balanced; 0 for never.

    Raises:
        OptionError: a penalty that is not positive and finite, or a negative number of rounds.
    """

    penalty: float = 1.0
    ratio_v: float = 1.0
    balance_rounds: int = 30
    name: ClassVar[str] = "admm"
    title: ClassVar[str] = "consensus on v, P and Q by alternating directions, with residual balancing"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balance_rounds < 0:
            message = f"admm: balance_rounds = {self.balance_rounds!r} must be at least 0"
            raise OptionError(message)

    def terms(self, own: FloatArray, other: FloatArray, y: FloatArray, penalty: float) -> tuple[FloatArray, float]:
        """``y - rho z`` and ``rho``."""
        return y - penalty * 0.5 * (own + other), penalty

    def moved(self, own: FloatArray, other: FloatArray, y: FloatArray, penalty: float) -> FloatArray:
        """``y + rho (x - z)``."""
        return y + penalty * 0.5 * (own - other)

    def balance_of(self, state: State, primal: float, dual: float) -> float:
        """Doubled where the copies are far apart, halved where the prices move much."""
        if state.round >= self.balance_rounds:
            return 1.0
        if primal > IMBALANCE * dual:
            return FACTOR
        return 1.0 / FACTOR if dual > IMBALANCE * primal else 1.0


__all__ = ["FACTOR", "IMBALANCE", "Admm"]
