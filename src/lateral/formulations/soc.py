"""Second-order cone relaxation of the branch flow (Farivar and Low 2013).

    P^2 + Q^2 <= w l

Convex, so that its optimum is a lower bound. Exact when every row is tight: the result reports the gap
``max r (l - (P^2 + Q^2) / w)``. It is not tight where losses help, for example under reverse flow with a voltage
limit, minimum curtailment, or negative prices; the gap then shows losses that do not exist.
"""

from __future__ import annotations

from typing import ClassVar, final

from lateral.formulations.branch_flow import BranchFlowFormulation, BranchFlowModel
from lateral.formulations.conic_legs import ConicLegs


@final
class _Model(ConicLegs):
    @property
    def _exact(self) -> bool:
        return False


@final
class SOC(BranchFlowFormulation):
    """Second-order cone relaxation of the branch flow (balanced, radial)."""

    name: ClassVar[str] = "soc"
    title: ClassVar[str] = "second-order cone relaxation of the branch flow (balanced, radial)"
    balanced_only: ClassVar[bool] = True
    point: ClassVar[str] = "none"
    relaxes: ClassVar[bool] = True
    model: ClassVar[type[BranchFlowModel]] = _Model
