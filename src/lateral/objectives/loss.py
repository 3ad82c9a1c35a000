"""Losses: energy lost in lines and transformers."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.devices.base import DeviceContext
from lateral.network.schema import FloatArray
from lateral.objectives.base import Objective, per_step


@final
class Loss(Objective):
    """``sum_t dt_t losses_t``, kWh: ``r l`` where the formulation has l, else ``r (P^2 + Q^2) / |W|^2``."""

    name: ClassVar[str] = "loss"
    title: ClassVar[str] = "energy lost in the wires"
    unit: ClassVar[str] = "kWh"
    floor: ClassVar[float] = 1.0

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """Losses as the formulation knows them."""
        ctx.net.add_loss_cost(per_step(ctx, ctx.horizon.hours * (weight * ctx.base.total_kva)))

    @property
    def contains_losses(self) -> bool:
        """True."""
        return True

    def loss_price(self, ctx: DeviceContext) -> FloatArray:
        """None: losses are the objective."""
        return np.zeros(ctx.n_steps)
