"""Demand: energy taken from the grid less what is given back, whatever it costs (conservation voltage reduction)."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.devices.base import DeviceContext
from lateral.network.schema import FloatArray
from lateral.objectives.base import Objective


@final
class Demand(Objective):
    """``sum_t dt_t (p_import_t - p_export_t)``, kWh.

    With loads that follow the voltage this is conservation voltage reduction. Net of all sources: a kWh that is
    exported, at whatever time and from whatever source, makes up for one taken.
    """

    name: ClassVar[str] = "demand"
    title: ClassVar[str] = "net energy taken from the grid (conservation voltage reduction)"
    unit: ClassVar[str] = "kWh"
    floor: ClassVar[float] = 1.0

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """The sum of every output named ``p_total``."""
        for total in ctx.builder.find_all("p_total").values():
            ctx.builder.minimise(total * (ctx.horizon.hours * (weight * ctx.base.total_kva)))

    def loss_price(self, ctx: DeviceContext) -> FloatArray:
        """A lost kWh is a kWh taken."""
        return np.ones(ctx.n_steps)
