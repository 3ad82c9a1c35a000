"""Static var compensators: a susceptance that is decided, so that reactive power follows the squared voltage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import DeviceContext, ShuntDevice, column
from lateral.network.schema import spec


@dataclass(frozen=True, kw_only=True, eq=False)
class SVC(ShuntDevice):
    """A bank of capacitors and reactors with a susceptance that is set continuously, the same across all its ports."""

    kind: ClassVar[str] = "svc"
    table: ClassVar[str] = "svcs"
    setting: ClassVar[str] = "q_at_rated"
    dispatched: ClassVar[bool] = False

    q_min_kvar: float = spec(
        "Least reactive power given at rated voltage, all phases; negative: it takes.", unit="kvar", default=0.0
    )
    q_max_kvar: float = spec("Most reactive power given at rated voltage, all phases.", unit="kvar")
    v_rated_kv: float | None = spec(
        "Rated voltage across one port; absent: the bus base (times sqrt(3) in delta).",
        unit="kV",
        default=None,
        above=0.0,
    )

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Give reactive power by a susceptance that is decided.

        ::

            q = q_at_rated (|U| / V_rated)^2,     q_min <= q_at_rated <= q_max

        ``q_at_rated`` is the susceptance in kvar at rated voltage. The product is exact where the formulation can write
        it; elsewhere it is first order at the operating point, at which the compensator gives nothing.
        """
        builder, kva = ctx.builder, ctx.base.total_kva
        names = [d.name for d in group]
        low, high = column(group, "q_min_kvar") / kva, column(group, "q_max_kvar") / kva
        b = builder.variable(
            "svc",
            "q_at_rated",
            names,
            unit="kvar",
            to_unit=kva,
            lower=low,
            upper=high,
            start=np.clip(0.0, low, high),
            scale=np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-9),
            limit=False,
        )
        where = ctx.ports(group)
        at_base = (ctx.base_over_rated(group, where) ** 2).reshape(-1, 1)
        q = ctx.net.inject_susceptance(where.ports, where.spread(b) * at_base, np.zeros((len(where.owner), 1)))
        builder.output("svc", "q_injected", names, where.total(q), unit="kvar", to_unit=kva)
