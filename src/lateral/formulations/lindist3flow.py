"""LinDist3Flow: linear branch flow for any phases (Gan and Low 2014; Arnold et al. 2016), made at an operating point.

    |V_j|^2 = |W|^2 - 2 Re( zeta conj(S) ) + |Z I0|^2,      S - L0 + s_j = sum mu S

Voltage ratios (angles), series losses L0 and squared drops |Z I0|^2 are those of a solved power flow, so that the model
is exact there. With ``point="nominal"`` ratios are those of the unloaded feeder and losses are zero: the textbook
model. Transformers of any connection, delta devices and regulators at fixed taps enter through the ideal part of
`lateral.network.branches`.

Neglects: how ratios and losses change with the decisions (first order); neutral conductors are taken as grounded.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.formulations.base import OperatingPoint
from lateral.formulations.branch_flow import BranchFlowFormulation, BranchFlowModel, leg_current
from lateral.formulations.linear_legs import LinearLegs
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray
from lateral.program import ProgramBuilder
from lateral.units import Base


@final
class _Model(LinearLegs):
    def __init__(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint | None,
    ) -> None:
        super().__init__(builder, feeder, network, base, point)
        if point is None:
            message = "the model is made at an operating point"
            raise ValueError(message)
        place = {node: k for k, node in enumerate(point.nodes)}
        kept = [place[node] for node in network.nodes]
        v = self._ports_v
        drawn = -point.injected_pu[kept].astype(complex)
        if not point.loaded:
            drawn = np.zeros_like(drawn)
        elif len(network.shunt_y):
            np.add.at(drawn, network.shunt_i, network.shunt_y[:, None] * v[network.shunt_j])
        self._loaded = point.loaded
        self._current = leg_current(network, drawn)
        self._drop = np.zeros_like(self._current)
        np.add.at(self._drop, network.z_row, network.z_val[:, None] * self._current[network.z_col])

    def _offset(self, ideal: ComplexArray) -> ComplexArray:
        """The common mode of ungrounded sides at the operating point, which no branch current explains.

        Only the antifloat shunts hold it; the pseudo-inverse of the ideal part leaves it out.
        """
        if not self._loaded:
            return np.zeros((self.net.n_legs, 1), dtype=complex)
        offset = self._ports_v[self.net.to_node] + self._drop - ideal
        return np.where(np.abs(offset) > 1e-9, offset, 0.0)

    def _constants(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        loss = self._drop * np.conj(self._current)
        return loss.real, loss.imag, np.abs(self._drop) ** 2

    def _source_drop_constant(self, drop_0: ComplexArray) -> FloatArray:
        return np.abs(drop_0) ** 2 if self._loaded else np.zeros(drop_0.shape)


@final
class LinDist3Flow(BranchFlowFormulation):
    """Any phases, radial, linear, at the operating point of the baseline."""

    name: ClassVar[str] = "lindist3flow"
    title: ClassVar[str] = "linear branch flow at a solved point (any phases, radial)"
    balanced_only: ClassVar[bool] = False
    point: ClassVar[str] = "loaded"
    model: ClassVar[type[BranchFlowModel]] = _Model
