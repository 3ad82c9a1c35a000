"""LinDistFlow: the branch flow without losses (Baran and Wu 1989, simplified DistFlow).

    v_j = v_i - 2 (r P + x Q),    balances without losses

Neglects: losses in the balance and |z|^2 l in the drop, so that voltage is optimistic and cost is low by the loss
share. Exact: never, but its error is of second order in the loading. A linear program, or a convex quadratic one with
the loss term in the objective.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.errors import Fault
from lateral.formulations.base import Formulation, OperatingPoint
from lateral.formulations.branch_flow import one_conductor_only
from lateral.formulations.linear_legs import LinearLegs
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray
from lateral.program import ProgramBuilder
from lateral.program.ports import NetworkModel
from lateral.units import Base


@final
class _Model(LinearLegs):
    def _constants(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        zero = np.zeros((self.net.n_legs, 1))
        return zero, zero, zero

    def _source_drop_constant(self, drop_0: ComplexArray) -> FloatArray:
        return np.zeros(drop_0.shape)


@final
class LinDistFlow(Formulation):
    """Balanced, radial, linear, without losses."""

    name: ClassVar[str] = "lindistflow"
    title: ClassVar[str] = "linear branch flow without losses (balanced, radial)"
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
