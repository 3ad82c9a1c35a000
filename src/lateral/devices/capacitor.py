"""Capacitors, fixed in the state they are in, or with the share that is on as a continuous decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import DeviceContext, ShuntDevice, column
from lateral.network.schema import IntArray, spec
from lateral.program import Affine
from lateral.program.ports import Ports


@dataclass(frozen=True, kw_only=True, eq=False)
class Capacitor(ShuntDevice):
    """A shunt capacitor bank: the total of the steps that are on, or a share of all of them that is decided."""

    kind: ClassVar[str] = "capacitor"
    table: ClassVar[str] = "capacitors"
    dispatched: ClassVar[bool] = False
    setting: ClassVar[str] = "share"

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
    decision: str = spec(
        "fixed: it stays as it is; step: the share of q_total_kvar that is on is decided at every step; day: once.",
        default="fixed",
        choices=("fixed", "step", "day"),
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
        """Give reactive power.

        ::

            q = q_kvar (|V| / V_rated)^2                    constant_impedance,   fixed
            q = q_kvar                                      constant_power,       fixed
            q = share q_total (|V| / V_rated)^2,            0 <= share <= 1, decided per step, or once
            q = share q_total                               likewise, constant_power

        The share is continuous: the steps of a real bank are left out. Its product with the squared voltage is exact
        where the formulation can write it; elsewhere it is first order at the operating point, at which the bank is as
        it is (q_kvar).
        """
        where = ctx.ports(group)
        decided = np.array([d.decision != "fixed" for d in group], dtype=bool)
        power = np.array([d.model == "constant_power" for d in group], dtype=bool)
        kva, every = ctx.base.total_kva, np.ones((1, ctx.n_steps))
        ports, owner = where.ports, where.owner
        at_base = ctx.base_over_rated(group, where) ** 2
        now = column(group, "q_kvar")[owner] / kva * where.share.reshape(-1, 1)

        def of(own: IntArray) -> Ports:
            return Ports(ports.a[own], ports.b[own])

        own = np.flatnonzero((~decided & power)[owner])
        if len(own):
            ctx.net.inject(of(own), Affine.zeros(len(own), ctx.n_steps), Affine.constant(now[own] * every))
        own = np.flatnonzero((~decided & ~power)[owner])
        if len(own):
            ctx.net.shunt(of(own), np.zeros(len(own)), now[own, 0] * at_base[own])
        if not np.any(decided):
            return
        q = cls._shares(group, ctx) * (column(group, "q_full_kvar") / kva)
        given = Affine.zeros(len(owner), ctx.n_steps)
        by_port = where.spread(q)
        own = np.flatnonzero((decided & power)[owner])
        if len(own):
            ctx.net.inject(of(own), Affine.zeros(len(own), ctx.n_steps), by_port.take(own))
            given = given + by_port.take(own).map_terms(len(owner), own, np.arange(len(own)), np.ones(len(own)))
        own = np.flatnonzero((decided & ~power)[owner])
        if len(own):
            scale = at_base[own].reshape(-1, 1)
            q_own = ctx.net.inject_susceptance(of(own), by_port.take(own) * scale, now[own] * scale)
            given = given + q_own.map_terms(len(owner), own, np.arange(len(own)), np.ones(len(own)))
        named = np.flatnonzero(decided)
        names = [group[k].name for k in named.tolist()]
        ctx.builder.output("capacitor", "q_injected", names, where.total(given).take(named), unit="kvar", to_unit=kva)

    @classmethod
    def _shares(cls, group: Sequence[Self], ctx: DeviceContext) -> Affine:
        """The share of each bank that is on, where it is decided, shape (n, T); zero for the others."""
        out = Affine.zeros(len(group), ctx.n_steps)
        for decision in ("step", "day"):
            own = np.flatnonzero([d.decision == decision for d in group])
            if not len(own):
                continue
            some = [group[k] for k in own.tolist()]
            share = ctx.builder.variable(
                "capacitor",
                f"share_{decision}",
                [d.name for d in some],
                unit="pu",
                lower=0.0,
                upper=1.0,
                start=np.array([[d.q_kvar / d.q_full_kvar if d.q_full_kvar else 1.0] for d in some]),
                n_steps=ctx.n_steps if decision == "step" else 1,
                limit=False,
            )
            if decision == "day":
                share = share.repeat_steps(ctx.n_steps)
            ctx.builder.output("capacitor", "share", [d.name for d in some], share, unit="pu")
            out = out + share.map_terms(len(group), own, np.arange(len(own)), np.ones(len(own)))
        return out
