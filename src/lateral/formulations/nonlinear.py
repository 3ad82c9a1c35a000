"""The exact branch flow of a balanced radial feeder (Baran and Wu 1989).

    P^2 + Q^2 = w l

Neglects nothing of a balanced radial feeder. Non-convex: a solution is a local optimum, and the status says so.
Constant-current loads are exact here, with ``y^2 = |V|^2``.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.formulations.branch_flow import BranchFlowFormulation, BranchFlowModel
from lateral.formulations.conic_legs import ConicLegs
from lateral.network.schema import FloatArray
from lateral.program import Affine
from lateral.program.ports import Ports


@final
class _Model(ConicLegs):
    @property
    def _exact(self) -> bool:
        return True

    _n_vmag = 0

    def power_of_v(self, ports: Ports, exponent: FloatArray) -> Affine:
        """Exact also for exponent 1: a variable y with ``y^2 = |V|^2``."""
        linear = np.flatnonzero(exponent == 1.0)
        if not len(linear):
            return super().power_of_v(ports, exponent)
        own = Ports(ports.a[linear], ports.b[linear])
        self._n_vmag += 1
        names = [self._names[i] for i in own.a]
        component = "port" if self._n_vmag == 1 else f"port{self._n_vmag}"
        y = self.builder.variable(component, "vmag", names, unit="pu", lower=0.0, start=1.0, limit=False)
        ones = Affine.constant(np.ones(y.shape))
        self.builder.product(component, "vmag", names, [y], self.v.take(own.a), ones, equality=True)
        rest = super().power_of_v(ports, np.where(exponent == 1.0, 0.0, exponent))
        keep = np.ones(len(ports))
        keep[linear] = 0.0
        place = (len(ports), linear, np.arange(len(linear)), np.ones(len(linear)))
        return rest * keep.reshape(-1, 1) + y.map_terms(*place)


@final
class Nonlinear(BranchFlowFormulation):
    """Exact branch flow (balanced, radial)."""

    name: ClassVar[str] = "nonlinear"
    title: ClassVar[str] = "exact branch flow (balanced, radial)"
    balanced_only: ClassVar[bool] = True
    point: ClassVar[str] = "none"
    model: ClassVar[type[BranchFlowModel]] = _Model
