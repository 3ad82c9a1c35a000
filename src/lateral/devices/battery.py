"""Batteries behind an inverter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import AT_ONCE_KW, AT_ONCE_SHARE, BoolArray, DeviceContext, DevicePorts, column, port_outputs
from lateral.devices.inverter import Inverter, at_each_port, by_device, free_phases
from lateral.devices.voltage_law import with_volt_var
from lateral.network.schema import FloatArray, spec
from lateral.program import Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class Battery(Inverter):
    """A battery.

    No binary keeps charge and discharge apart: a loss term in the objective does, and the result certifies it.
    """

    kind: ClassVar[str] = "battery"
    table: ClassVar[str] = "batteries"

    p_charge_max_kw: float = spec("Most power it takes, at the terminals.", unit="kW", minimum=0.0)
    p_discharge_max_kw: float = spec("Most power it gives, at the terminals.", unit="kW", minimum=0.0)
    s_max_kva: float = spec("Apparent power limit of the inverter.", unit="kVA", minimum=0.0)
    energy_kwh: float = spec("Capacity.", unit="kWh", above=0.0)
    soc_min: float = spec("Lowest state of charge allowed.", unit="pu", default=0.0, minimum=0.0, maximum=1.0)
    soc_max: float = spec("Highest state of charge allowed.", unit="pu", default=1.0, minimum=0.0, maximum=1.0)
    soc_initial: float = spec("State of charge at the beginning.", unit="pu", default=0.5, minimum=0.0, maximum=1.0)
    eta_charge: float = spec("Efficiency of charging.", unit="pu", default=0.95, above=0.0, maximum=1.0)
    eta_discharge: float = spec("Efficiency of discharging.", unit="pu", default=0.95, above=0.0, maximum=1.0)
    q_control: str = spec(
        "free: q is a decision; volt_var: q follows the voltage; none: q = 0.",
        default="free",
        choices=("free", "volt_var", "none"),
    )
    limit: str = spec(
        "disc: p^2 + q^2 <= s_max^2; box: |q| <= sqrt(s_max^2 - p_max^2) (the published t5 and t10 cases).",
        default="disc",
        choices=("disc", "box"),
    )
    terminal_price: float = spec(
        "Value of stored energy at the end, used by the terminal rule 'priced'.", unit="$/kWh", default=0.0
    )
    v_rated_kv: float | None = spec(
        "Rated voltage across one port; absent: the bus base.", unit="kV", default=None, above=0.0
    )
    v_min_pu: float = spec(
        "Below this voltage (on v_rated_kv) the inverter is an impedance, in power flow and replay.",
        unit="pu",
        default=0.1,
        minimum=0.0,
    )
    v_max_pu: float = spec(
        "Above this voltage the inverter is an impedance, in power flow and replay.",
        unit="pu",
        default=2.0,
        above=0.0,
    )

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Charge, discharge and store.

        ::

            E_t = E_(t-1) + dt_t (eta_c p_charge - p_discharge / eta_d),     E_min <= E_t <= E_max
            E_T = E_0   (equal),   E_T >= E_0   (at-least),   free,   or priced at terminal_price
            (p_discharge - p_charge)^2 + q^2 <= s_max^2   disc,      |q| <= sqrt(s_max^2 - p_max^2)   box
            q_k = s_max / n f(|U_k| / V_rated)   volt_var, at each of n ports;  |p| <= s_max sqrt(1 - max f^2)
            q_k = sqrt((s_max / n)^2 - p_k^2) f(|U_k| / V_rated)     with volt_var_reference available
            alpha sum dt ((1 - eta_c) p_charge + (1 / eta_d - 1) p_discharge)   in the objective

        With phases free p_k and q_k are decided at each port, each within its share of the inverter (s_max / n in place
        of s_max): ``sum p_k = p_discharge - p_charge``, so that the battery may move power from one phase to another
        through its dc side, and energy and losses are those of the sum.

        The alpha term takes the place of a binary (Jha, Paul, Dubey 2024): it makes charging and discharging at once
        cost something. It is no proof; the result certifies each step. Energy starts anew at each break of the horizon,
        and what is stored before it is worth its price as often as the step counts (its weight).
        """
        builder, kva, t_count = ctx.builder, ctx.base.total_kva, ctx.n_steps
        names = [d.name for d in group]
        charge_max, discharge_max = column(group, "p_charge_max_kw") / kva, column(group, "p_discharge_max_kw") / kva
        # without a rating there is no power: bounds say so, a disc around a single point has no inside
        runs = by_device(group, "limit", "box").reshape(-1, 1) | (cls._rating(group) > 0.0)
        charge_max, discharge_max = charge_max * runs, discharge_max * runs
        size = np.maximum(np.maximum(charge_max, discharge_max), 1e-9)
        capacity = column(group, "energy_kwh") / kva
        eta_c, eta_d = column(group, "eta_charge"), column(group, "eta_discharge")

        charge = builder.variable(
            "battery", "p_charge", names, unit="kW", to_unit=kva, lower=0.0, upper=charge_max, scale=size, limit=False
        )
        discharge = builder.variable(
            "battery",
            "p_discharge",
            names,
            unit="kW",
            to_unit=kva,
            lower=0.0,
            upper=discharge_max,
            scale=size,
            limit=False,
        )
        initial = (
            builder.data(
                "battery.energy_initial_kwh",
                names,
                column(group, "soc_initial") * column(group, "energy_kwh"),
                unit="kWh",
            )
            / kva
        )
        energy = builder.variable(
            "battery",
            "energy",
            names,
            unit="kWh",
            to_unit=kva,
            lower=column(group, "soc_min") * capacity,
            upper=column(group, "soc_max") * capacity,
            scale=np.maximum(capacity, 1e-9),
            start=column(group, "soc_initial") * capacity,
        )
        begins = np.array([0, *ctx.horizon.breaks], dtype=np.int64)
        carries = np.setdiff1d(np.arange(t_count), begins)
        before = energy.at_steps(carries - 1).spread_steps(t_count, carries)
        for k in begins:
            before = before + initial.spread_steps(t_count, np.array([k]))
        stored = (charge * eta_c - discharge * (1.0 / eta_d)) * ctx.horizon.step_h
        builder.equal(
            "battery",
            "storage",
            names,
            energy - before - stored,
            unit="kWh",
            to_unit=kva,
            scale=np.maximum(capacity, 1e-9),
        )
        ends = np.array([*(b - 1 for b in ctx.horizon.breaks), t_count - 1], dtype=np.int64)
        for end in ends:
            last = energy.at_steps(np.array([end]))
            if ctx.terminal == "equal":
                builder.equal(
                    "battery", "terminal", names, last, initial, unit="kWh", to_unit=kva, scale=capacity, limit=True
                )
            elif ctx.terminal == "at-least":
                builder.between(
                    "battery", "terminal", names, initial, last, np.inf, unit="kWh", to_unit=kva, scale=capacity
                )
            elif ctx.terminal == "priced":
                counts = ctx.horizon.weight[end]  # as often as its period does
                builder.minimise(last * (-column(group, "terminal_price") * kva * counts))

        lost = charge * (1.0 - eta_c) + discharge * (1.0 / eta_d - 1.0)
        builder.minimise(lost * (ctx.alpha * kva * ctx.horizon.hours))
        most = max(AT_ONCE_SHARE * float(column(group, "p_discharge_max_kw").max()), AT_ONCE_KW) / kva
        builder.oppose(("battery", "batteries"), "to charge or to discharge", charge, discharge, most)
        net = discharge - charge
        where = ctx.ports(group)
        alone = free_phases(group, where)
        q = cls._in_equal_parts(group, ctx, net, alone)
        equal = (~alone).astype(float).reshape(-1, 1)
        p_port, q_port = where.spread(net * equal), where.spread(q)
        if np.any(alone):
            p_port, q_port = cls._port_by_port(group, where, ctx, net, alone, p_port, q_port)
        q_port, _ = with_volt_var(
            "battery",
            group,
            where,
            ctx,
            p_port,
            q_port,
            left=Affine.zeros(len(group), ctx.n_steps),  # p is always decided
            p_now=Affine.zeros(p_port.n, ctx.n_steps),
            moves=np.ones(len(group), dtype=bool),
        )
        builder.output("battery", "p_injected", names, where.total(p_port), unit="kW", to_unit=kva)
        builder.output("battery", "q_injected", names, where.total(q_port), unit="kvar", to_unit=kva)
        builder.output("battery", "p_lost", names, lost, unit="kW", to_unit=kva)
        port_outputs(ctx, group, where, alone | by_device(group, "q_control", "volt_var"), p_port, q_port)
        ctx.net.inject(where.ports, p_port, q_port)

    @classmethod
    def _rating(cls, group: Sequence[Self]) -> FloatArray:
        """Apparent power that a curve of the voltage leaves for p, kVA, shape (n, 1)."""
        return np.asarray(column(group, "s_max_kva") * np.array([d.p_share for d in group]).reshape(-1, 1))

    @classmethod
    def _most(cls, group: Sequence[Self]) -> FloatArray:
        """Larger of what it takes and gives, kW, shape (n, 1)."""
        return np.maximum(column(group, "p_charge_max_kw"), column(group, "p_discharge_max_kw"))

    @classmethod
    def _q_high(cls, group: Sequence[Self]) -> FloatArray:
        """Bound on |q|, kvar, shape (n, 1); 0 where q is no decision."""
        s = column(group, "s_max_kva")
        box = by_device(group, "limit", "box").reshape(-1, 1)
        decides = by_device(group, "q_control", "free").reshape(-1, 1)
        return np.where(decides, np.where(box, np.sqrt(np.maximum(s**2 - cls._most(group) ** 2, 0.0)), s), 0.0)

    @classmethod
    def _in_equal_parts(cls, group: Sequence[Self], ctx: DeviceContext, net: Affine, alone: BoolArray) -> Affine:
        """q of the batteries whose ports have equal parts, shape (n, T), and their limits; zero for the others."""
        builder, kva, n = ctx.builder, ctx.base.total_kva, len(group)
        names = [d.name for d in group]
        s, q_max = column(group, "s_max_kva") / kva, cls._q_high(group) / kva
        decides = by_device(group, "q_control", "free") & ~alone
        q = Affine.zeros(n, ctx.n_steps)
        if np.any(decides):
            own = np.flatnonzero(decides)
            given = builder.variable(
                "battery",
                "q",
                [names[k] for k in own],
                unit="kvar",
                to_unit=kva,
                lower=-q_max[own],
                upper=q_max[own],
                scale=np.maximum(s[own], 1e-9),
                limit=False,
            )
            q = given.map_terms(n, own, np.arange(len(own)), np.ones(len(own)))
        rating = cls._rating(group) / kva
        small = (cls._most(group) / kva > rating)[:, 0]
        disc = np.flatnonzero(~by_device(group, "limit", "box") & ~alone & (decides | small) & (rating > 0.0)[:, 0])
        if len(disc):
            s_sq = rating[disc] ** 2
            builder.product(
                "battery",
                "s_limit",
                [names[k] for k in disc],
                [net.take(disc), q.take(disc)],
                Affine.constant(np.repeat(s_sq, ctx.n_steps, axis=1)),
                Affine.constant(np.ones((len(disc), ctx.n_steps))),
                unit="kVA",
                to_unit=kva,
                scale=np.maximum(s_sq, 1e-18),
            )
        return q

    @classmethod
    def _port_by_port(
        cls,
        group: Sequence[Self],
        where: DevicePorts,
        ctx: DeviceContext,
        net: Affine,
        alone: BoolArray,
        p_port: Affine,
        q_port: Affine,
    ) -> tuple[Affine, Affine]:
        """p and q of all ports, with those of the batteries that decide at each added."""
        kva = ctx.base.total_kva
        at = np.flatnonzero(alone[where.owner])
        rating = cls._rating(group)
        box = by_device(group, "limit", "box").reshape(-1, 1)
        most = np.where(box, np.minimum(rating, cls._most(group)), rating) / kva
        p, q = at_each_port(
            "battery",
            group,
            where,
            at,
            ctx,
            p_low=-most,
            p_high=most,
            q_high=cls._q_high(group) / kva,
            tangent=np.zeros(len(group)),
        )
        place = (len(where.owner), at, np.arange(len(at)), np.ones(len(at)))
        p_port, q_port = p_port + p.map_terms(*place), q_port + q.map_terms(*place)
        own = np.flatnonzero(alone)
        total = where.total(p_port).take(own)
        names = [group[k].name for k in own.tolist()]
        size = np.maximum(column(group, "s_max_kva")[own] / kva, 1e-9)
        ctx.builder.equal("battery", "p_total", names, total - net.take(own), unit="kW", to_unit=kva, scale=size)
        return p_port, q_port

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """Batteries with the new initial energy."""
        if "battery.energy_initial_kwh" not in values:
            return group
        energy = np.broadcast_to(values["battery.energy_initial_kwh"], (len(group), 1))[:, 0]
        return [dataclasses.replace(b, soc_initial=float(e / b.energy_kwh)) for b, e in zip(group, energy, strict=True)]
