"""Voltage deviation: how far squared voltages are from their nominal value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from lateral.devices.base import DeviceContext
from lateral.objectives.base import Objective


@final
@dataclass(frozen=True)
class VoltageDeviation(Objective):
    """``sum_t dt_t mean_i (v_i / v_ref^2 - 1)^2``, h: about four times the mean squared deviation of the magnitude.

    The mean is over the nodes with a voltage: neutral conductors, below 0.3 pu on the day without control, have none.

    Attributes:
        v_ref_pu: voltage magnitude wanted.
    """

    v_ref_pu: float = 1.0
    name: ClassVar[str] = "vdev"
    title: ClassVar[str] = "voltage deviation from nominal"
    unit: ClassVar[str] = "h"
    floor: ClassVar[float] = 1e-3

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """A convex quadratic of the squared magnitudes."""
        names, v = ctx.net.node_vmag_sq()
        own = np.array([k for k, name in enumerate(names) if name not in ctx.builder.copied], dtype=np.int64)
        if not len(own):
            return
        per_cell = ctx.horizon.hours * (weight / len(own))
        ctx.builder.minimise_squares(v.take(own) * self.v_ref_pu**-2 - 1.0, per_cell.reshape(1, -1))
