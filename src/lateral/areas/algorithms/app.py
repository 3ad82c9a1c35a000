"""APP: auxiliary problem principle (Cohen 1980; for optimal power flow: Kim and Baldick 1997).

Each side of a border has copies x of v, P and Q there; the coupling of the two in the augmented Lagrangian is
linearised at the last round, and a quadratic term keeps x near to where it was::

    x_own    = argmin  f(x) + x (y_own + gamma (x_own' - x_other')) + beta/2 (x - x_own')^2      ' = of the last round
    y_own   += alpha (x_own - x_other)                                                           y_other = -y_own

With ``beta = 2 gamma = 2 alpha`` (Kim and Baldick's choice, and ours) a round is one of `admm` at the penalty ``beta``
without residual balancing, number for number (Kim and Baldick 2000 find the two alike).

**What it gives.** For a convex model it converges where ``beta >= 2 gamma`` and ``alpha <= gamma`` (Cohen 1980 with the
coupling's largest eigenvalue, 2); for the exact model there is no proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from lateral.areas.algorithms.consensus import Consensus, positive
from lateral.network.schema import FloatArray


@final
@dataclass(frozen=True)
class App(Consensus):
    """Auxiliary problem principle.

    Attributes:
        penalty: beta, dimensionless, around 1 (`lateral.areas.algorithms.consensus.UNIT`).
        ratio_v: the penalty of v, as a share of that.
        ratio_unbalance: of a matrix of voltages, see `Consensus`; 25 where it is of rank one.
        alpha: step of the multipliers, as a share of beta.
        gamma: weight of the linearised coupling, as a share of beta.

    Raises:
        OptionError: one that is not positive and finite.
    """

    penalty: float = 1.0
    ratio_v: float = 1.0
    ratio_unbalance: float = 1.0
    alpha: float = 0.5
    gamma: float = 0.5
    name: ClassVar[str] = "app"
    title: ClassVar[str] = "consensus on v, P and Q by the auxiliary problem principle"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self.name, alpha=self.alpha, gamma=self.gamma)

    def terms(
        self, own: FloatArray, other: FloatArray, mean: FloatArray, y: FloatArray, penalty: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """``y + gamma (x_own - x_other) - beta x_own`` and ``beta``."""
        return y + penalty * (self.gamma * (own - other) - own), penalty

    def moved(self, own: FloatArray, other: FloatArray, y: FloatArray, penalty: FloatArray) -> FloatArray:
        """``y + alpha (x_own - x_other)``."""
        return y + penalty * self.alpha * (own - other)


__all__ = ["App"]
