"""Capacitors, fixed in the state they are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import DeviceContext, ShuntDevice, column
from lateral.network.schema import spec
from lateral.program import Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class Capacitor(ShuntDevice):
    """A shunt capacitor bank: the total of the steps that are on."""

    kind: ClassVar[str] = "capacitor"
    table: ClassVar[str] = "capacitors"
    dispatched: ClassVar[bool] = False

    q_kvar: float = spec(
        "Reactive power given at rated voltage, all phases, of the steps that are on.", unit="kvar", minimum=0.0
    )
    q_total_kvar: float | None = spec(
        "Reactive power with every step on; absent: q_kvar.", unit="kvar", default=None, minimum=0.0
    )
    v_rated_kv: float | None = spec(
        "Rated voltage across one port; absent: the bus base (times sqrt(3) in delta).",
        unit="kV",
        default=None,
        above=0.0,
    )
    model: str = spec(
        "constant_impedance (q follows V^2, physics) or constant_power (the published balanced cases).",
        default="constant_impedance",
        choices=("constant_impedance", "constant_power"),
    )
    control: str = spec(
        "What the source model says of its control, for information (controls are off in lateral).", default=""
    )

    @property
    def q_full_kvar(self) -> float:
        """Reactive power at rated voltage with every step on."""
        return self.q_kvar if self.q_total_kvar is None else self.q_total_kvar

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Give reactive power: ``q = q_kvar (|V| / V_rated)^2``, or ``q = q_kvar`` for model constant_power."""
        where = ctx.ports(group)
        q = Affine.constant(np.repeat(column(group, "q_kvar") / ctx.base.total_kva, ctx.n_steps, axis=1))
        ports = where.ports
        q_port = (column(group, "q_kvar")[:, 0] / ctx.base.total_kva)[where.owner] * where.share
        fixed = np.array([d.model == "constant_power" for d in group], dtype=bool)[where.owner]
        if np.any(fixed):
            own = np.flatnonzero(fixed)
            given = where.spread(q).take(own)
            ctx.net.inject(type(ports)(ports.a[own], ports.b[own]), Affine.zeros(*given.shape), given)
        if not np.all(fixed):
            own = np.flatnonzero(~fixed)
            sub = type(ports)(ports.a[own], ports.b[own])
            ctx.net.shunt(sub, np.zeros(len(own)), q_port[own] * ctx.base_over_rated(group, where)[own] ** 2)
