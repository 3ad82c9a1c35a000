"""Peak demand: the largest power taken from the grid."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.devices.base import DeviceContext
from lateral.network.schema import FloatArray
from lateral.objectives.base import Objective
from lateral.program import Affine


@final
class Peak(Objective):
    """``max_t sum over sources of p_import_t``, kW; a demand charge when weighted with $/kW."""

    name: ClassVar[str] = "peak"
    title: ClassVar[str] = "peak demand at the source"
    unit: ClassVar[str] = "kW"
    floor: ClassVar[float] = 1.0

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """One variable above every step's import."""
        total = ctx.builder.find("source.p_total")
        if total is None:
            return
        total = total.sum_elements()
        peak = ctx.builder.variable(
            "system", "peak", ["all"], unit="kW", to_unit=ctx.base.total_kva, n_steps=1, lower=0.0, limit=False
        )
        cells = np.arange(ctx.n_steps)
        spread = Affine(
            1, ctx.n_steps, cells, np.repeat(peak.col, ctx.n_steps), np.full(ctx.n_steps, -1), np.ones(ctx.n_steps),
            np.zeros(ctx.n_steps),
        )  # fmt: skip
        ctx.builder.between(
            "system", "peak", ["all"], 0.0, spread - total, np.inf, unit="kW", to_unit=ctx.base.total_kva, limit=False
        )
        ctx.builder.minimise(peak * (weight * ctx.base.total_kva))

    def loss_price(self, ctx: DeviceContext) -> FloatArray:
        """A hundredth of a kW per kWh lost: enough to choose among the many schedules of one peak."""
        return np.full(ctx.n_steps, 1e-2)
