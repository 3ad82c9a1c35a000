"""Voltage unbalance: the negative sequence that three-phase customers see."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.devices.base import DeviceContext
from lateral.objectives.base import Objective, per_step


@final
class Unbalance(Objective):
    """``sum_t dt_t mean_b |V_2|^2`` over the three-phase buses, pu^2 h, V_2 the negative sequence (Fortescue 1918)."""

    name: ClassVar[str] = "unbalance"
    title: ClassVar[str] = "squared negative-sequence voltage"
    unit: ClassVar[str] = "h"
    floor: ClassVar[float] = 1e-4

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """As the formulation knows it; one without voltage angles declines."""
        ctx.net.add_unbalance_cost(per_step(ctx, np.asarray(ctx.horizon.hours * weight)))
