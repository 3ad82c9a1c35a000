"""Second-order cone relaxation of the branch flow (Farivar and Low 2013).

    P^2 + Q^2 <= w l

Convex, so that its optimum is a lower bound. Exact when every row is tight: the result reports the gap
``max r (l - (P^2 + Q^2) / w)``. It is not tight where losses help, for example under reverse flow with a voltage
limit, minimum curtailment, or negative prices; the gap then shows losses that do not exist.
"""

from __future__ import annotations

from typing import ClassVar, final

from lateral.errors import Fault
from lateral.formulations.base import Formulation, OperatingPoint
from lateral.formulations.branch_flow import one_conductor_only
from lateral.formulations.conic_legs import ConicLegs
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.program import ProgramBuilder
from lateral.program.ports import NetworkModel
from lateral.units import Base


@final
class _Model(ConicLegs):
    @property
    def _exact(self) -> bool:
        return False


@final
class SOC(Formulation):
    """Second-order cone relaxation of the branch flow (balanced, radial)."""

    name: ClassVar[str] = "soc"
    title: ClassVar[str] = "second-order cone relaxation of the branch flow (balanced, radial)"
    balanced_only: ClassVar[bool] = True
    point: ClassVar[str] = "none"

    def declines(self, feeder: Feeder, network: RadialNetwork) -> tuple[Fault, ...]:
        """Loops, and more than one conductor per bus."""
        return one_conductor_only(feeder, network, self.name)

    def network(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint | None,
    ) -> NetworkModel:
        """See `Formulation.network`."""
        return _Model(builder, feeder, network, base, point)
