"""Curtailment: energy that the sun offers and that is not taken."""

from __future__ import annotations

from typing import ClassVar, final

from lateral.devices.base import DeviceContext
from lateral.objectives.base import Objective


@final
class Curtailment(Objective):
    """``sum_t dt_t (p_available_t - p_t)``, kWh."""

    name: ClassVar[str] = "curtailment"
    title: ClassVar[str] = "energy curtailed"
    unit: ClassVar[str] = "kWh"
    floor: ClassVar[float] = 1.0

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """The sum of every output named ``curtailed``."""
        for cut in ctx.builder.find_all("curtailed").values():
            ctx.builder.minimise(cut * (ctx.horizon.hours * (weight * ctx.base.total_kva)))
