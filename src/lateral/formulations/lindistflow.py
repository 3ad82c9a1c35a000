"""LinDistFlow: the branch flow without losses (Baran and Wu 1989, simplified DistFlow).

    v_j = v_i - 2 (r P + x Q),    balances without losses

Neglects: losses in the balance and |z|^2 l in the drop, so that voltage is optimistic and cost is low by the loss
share. Exact: never, but its error is of second order in the loading. A linear program, or a convex quadratic one with
the loss term in the objective.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.formulations.branch_flow import BranchFlowFormulation, BranchFlowModel
from lateral.formulations.linear_legs import LinearLegs
from lateral.network.schema import ComplexArray, FloatArray


@final
class _Model(LinearLegs):
    def _constants(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        zero = np.zeros((self.net.n_legs, 1))
        return zero, zero, zero

    def _source_drop_constant(self, drop_0: ComplexArray) -> FloatArray:
        return np.zeros(drop_0.shape)


@final
class LinDistFlow(BranchFlowFormulation):
    """Balanced, radial, linear, without losses."""

    name: ClassVar[str] = "lindistflow"
    title: ClassVar[str] = "linear branch flow without losses (balanced, radial)"
    balanced_only: ClassVar[bool] = True
    point: ClassVar[str] = "none"
    model: ClassVar[type[BranchFlowModel]] = _Model
