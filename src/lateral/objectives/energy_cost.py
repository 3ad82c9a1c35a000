"""Energy cost: what is paid to, and earned from, the grid and every device that has an energy cost."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.devices.base import DeviceContext
from lateral.network.schema import FloatArray
from lateral.objectives.base import Objective


@final
class EnergyCost(Objective):
    """``sum_t dt_t price_t p_import_t``, $ (Jha, Paul, Dubey 2024, objective of paper 1 without the alpha term)."""

    name: ClassVar[str] = "cost"
    title: ClassVar[str] = "energy cost at the source (import and export prices)"
    unit: ClassVar[str] = "$"
    floor: ClassVar[float] = 1e-2

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """The sum of every output named ``energy_cost``."""
        for cost in ctx.builder.find_all("energy_cost").values():
            ctx.builder.minimise(cost * weight)

    def loss_price(self, ctx: DeviceContext) -> FloatArray:
        """The highest import price of the step; a hundredth of its mean where it is not positive."""
        prices = list(ctx.builder.find_all("price_import").values())
        if not prices:
            return np.full(ctx.n_steps, 1e-3)
        return loss_price_of(np.vstack([ctx.builder.present(price) for price in prices]))


def loss_price_of(price: FloatArray) -> FloatArray:
    """Price of losses from import prices of shape (sources, T); positive, so that the loss term stays convex."""
    highest = np.max(price, axis=0)
    floor = max(0.01 * float(np.mean(np.abs(highest))), 1e-6)
    return np.asarray(np.maximum(highest, floor))


__all__ = ["EnergyCost", "loss_price_of"]
