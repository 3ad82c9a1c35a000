"""Photovoltaic systems behind an inverter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import BoolArray, DeviceContext, DevicePorts, column, port_outputs
from lateral.devices.inverter import Inverter, at_each_port, by_device, free_phases
from lateral.devices.load import NEAR_EDGE_PU, ROUNDING
from lateral.devices.voltage_law import (
    SPARE_SHARE,
    LawPorts,
    Points,
    below_zero,
    falling,
    limit_by_q,
    with_p_last,
    with_volt_var,
)
from lateral.network.schema import FloatArray, spec
from lateral.program import Affine, Banded
from lateral.program.ports import Ports


@dataclass(frozen=True, kw_only=True, eq=False)
class PV(Inverter):
    """A PV system. The sun offers ``p_rated_kw * profile``; the inverter may curtail, and give or take kvar."""

    kind: ClassVar[str] = "pv"
    table: ClassVar[str] = "pvs"

    p_rated_kw: float = spec("Power at full sun, all phases.", unit="kW", minimum=0.0)
    s_max_kva: float = spec("Apparent power limit of the inverter.", unit="kVA", minimum=0.0)
    profile: str = spec(
        "Profile of what the sun offers, per unit of p_rated_kw; empty: constant.", default="", profile=True
    )
    curtailable: bool = spec("Whether active power may be cut.", default=False)
    q_control: str = spec(
        "free: q is a decision; power_factor: q = p tan(acos(pf)); volt_var: q follows the voltage; none: q = 0.",
        default="free",
        choices=("free", "power_factor", "volt_var", "none"),
    )
    volt_var_priority: str = spec(
        "Where volt_var is of the rating. reserved: p leaves room for its largest q at any voltage; q: p gives way to "
        "the q that it gives; p: q to p.",
        default="reserved",
        choices=("reserved", "q", "p"),
    )
    volt_var_at_night: bool = spec("Whether volt_var gives reactive power where the sun offers nothing.", default=True)
    power_factor: float = spec(
        "Power factor of q_control power_factor; negative: takes reactive power.",
        default=1.0,
        minimum=-1.0,
        maximum=1.0,
    )
    volt_watt: bool = spec(
        "Whether p stays under a curve of the voltage: the limit of what is decided where it is curtailable, else p is "
        "the lesser of it and what the sun offers.",
        default=False,
    )
    volt_watt_v_pu: tuple[float, ...] = spec(
        "Voltages of the points of volt_watt, on v_rated_kv, ascending (IEEE 1547-2018).",
        unit="pu",
        default=(1.06, 1.1),
        above=0.0,
    )
    volt_watt_p_pu: tuple[float, ...] = spec(
        "Most active power at these points, per unit of p_rated_kw; constant beyond the first and the last.",
        unit="pu",
        default=(1.0, 0.2),
        minimum=0.0,
    )
    limit: str = spec(
        "disc: p^2 + q^2 <= s_max^2; box: |q| <= sqrt(s_max^2 - p_rated^2) (the published t5 and t10 cases).",
        default="disc",
        choices=("disc", "box"),
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

    @property
    def q_over_p(self) -> float:
        """q over p where a power factor is held, else 0."""
        f = self.power_factor if self.q_control == "power_factor" else 0.0
        return float(np.sign(f) * np.tan(np.arccos(abs(f)))) if f else 0.0

    @property
    def gives_way(self) -> str:
        """What gives way where p and a q that follows its curve are more than the rating: "p", "q" or neither, ""."""
        if self.q_control != "volt_var" or self.volt_var_reference != "rating":
            return ""
        return {"q": "p", "p": "q"}.get(self.volt_var_priority, "")

    @property
    def follows_p(self) -> bool:
        """Whether p is no decision and stays under a curve of the voltage."""
        return self.volt_watt and not self.curtailable

    @property
    def watt_points(self) -> Points:
        """Points of the volt-watt curve; where p is no decision, in the form in which no p lies on a corner of it."""
        own = self.volt_watt_v_pu, self.volt_watt_p_pu
        return falling(own) if self.follows_p else own

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Inject what the sun offers, or less, with reactive power inside the inverter's limit.

        ::

            p = p_available(t)  (fixed)     or   0 <= p <= p_available(t)  (curtailable)
            q = 0,   q = p tan(acos(pf)),   or free inside
                p^2 + q^2 <= s_max^2            disc
                |q| <= sqrt(s_max^2 - p_rated^2)   box
            q_k = s_max / n f(|U_k| / V_rated)            volt_var, at each of n ports; p <= s_max sqrt(1 - max f^2)
            q_k = sqrt((s_max / n)^2 - p_k^2) f(|U_k| / V_rated)          with volt_var_reference available
                |q_k| <= s_max / n volt_var_q_max_pu      in either
            p_k <= p_rated / n g(|U_k| / V_rated)         volt_watt, beside the above; curtailable
            p_k = min(p_available / n, p_rated / n g)     volt_watt, fixed
            p_k^2 + q_k^2 <= (s_max / n)^2                volt_var_priority q: by less p;  p: by less q

        With volt_var_at_night false q_k is zero where the sun offers nothing.
        With curve_voltage mean f and g are read at the mean voltage of all phases to ground, and ports give the same.
        With phases free p_k >= 0 and q_k are decided at each port, each within its share of the inverter (s_max / n in
        place of s_max); their sums take the place of p and q. f and g are piecewise linear, their corners rounded over
        1e-3 pu, exact beyond that; where the formulation writes no curves, they are the piece on which its operating
        point lies. Where p meets its curve, and q its limit, that corner is rounded over 1e-3 of the rating. Where p is
        decided or follows the voltage, what it leaves at s_max itself is 1e-3 of it.

        With p fixed the disc is the bound ``|q| <= sqrt(s_max^2 - p(t)^2)``. What exceeds s_max is clipped, at the
        power factor where one is held. Where the formulation's operating point lies outside
        ``v_min_pu ... v_max_pu``, a PV system without any decision is the impedance that OpenDSS makes of it there::

            p (|V| / (v_edge V_rated))^2,    q likewise

        Within 0.03 pu of an edge both sides are written where the formulation writes curves, the corner rounded as
        that of a load. One that decides stays constant power in the program, and in the rounds of `linearised`; power
        flow and replay have the impedance, and the status names it where that shows.
        """
        builder, kva = ctx.builder, ctx.base.total_kva
        names = [d.name for d in group]
        offered = np.array([d.p_rated_kw * ctx.multiplier(d.profile) for d in group])
        left = np.sqrt(np.maximum(column(group, "s_max_kva") ** 2 - np.minimum(offered, cls._most(group)) ** 2, 0.0))
        available = builder.data("pv.p_available_kw", names, np.minimum(offered, cls._most(group)), unit="kW") / kva
        q_max = builder.data("pv.q_max_kvar", names, cls._q_max(group, offered), unit="kvar") / kva
        room = builder.data("pv.q_left_kvar", names, left, unit="kvar") / kva
        on = builder.data("pv.q_on", names, cls.volt_var_on(group, offered), unit="1")
        over = builder.data("pv.p_over_kw", names, cls.over_kw(group, offered), unit="kW") / kva
        where = ctx.ports(group)
        alone = free_phases(group, where)
        cut = np.array([d.curtailable for d in group], dtype=bool)
        decides = by_device(group, "q_control", "free")
        p, q = cls._in_equal_parts(group, ctx, available, q_max, alone)
        p_port, q_port = where.spread(p), where.spread(q)
        if np.any(alone):
            p_port, q_port = cls._port_by_port(group, where, ctx, available, alone, p_port, q_port)
        law = np.array([d.follows_p for d in group], dtype=bool)
        before = p_port
        p_port = cls._volt_watt(group, where, ctx, p_port, law)
        q_port = q_port + (p_port - before) * cls._tangent(group)[where.owner].reshape(-1, 1)
        offered_now = where.spread(available)
        last = [d.gives_way for d in group]
        q_port, q_now = with_volt_var(
            "pv",
            group,
            where,
            ctx,
            p_port,
            q_port,
            left=room,
            p_now=offered_now,
            moves=cut | alone | law,
            q_last=np.array([x == "q" for x in last], dtype=bool),
            on=on,
        )
        p_last = np.array([x == "p" for x in last], dtype=bool)
        if np.any(p_last):
            decided = p_last & (cut | alone)
            limit_by_q("pv", group, where, ctx, p_port, q_port, decided)
            p_at, given = builder.present(offered_now), p_last & ~decided
            p_port = with_p_last("pv", group, where, ctx, p_port, q_port, where.spread(over), p_at, q_now, given)
            law = law | given
        total = where.total(p_port)
        builder.output("pv", "p_injected", names, total, unit="kW", to_unit=kva)
        builder.output("pv", "q_injected", names, where.total(q_port), unit="kvar", to_unit=kva)
        builder.output("pv", "curtailed", names, available - total, unit="kW", to_unit=kva)
        follows = by_device(group, "q_control", "volt_var")
        port_outputs(ctx, group, where, alone | follows | law, p_port, q_port)
        factor, near = _impedance_outside(group, where, ctx, cut | decides | alone | follows | law)
        if near.any():
            _at_edges(group, where, ctx, near, p_port, q_port)
            p_port, q_port = (power * (~near).astype(float) for power in (p_port, q_port))
        outside = np.flatnonzero(np.any(factor > 0.0, axis=1))
        if not len(outside):
            ctx.net.inject(where.ports, p_port, q_port)
        else:
            inside = (factor == 0.0).astype(float)
            ctx.net.inject(where.ports, p_port * inside, q_port * inside)
            sub = Ports(where.ports.a[outside], where.ports.b[outside])
            at = factor[outside]
            ctx.net.inject_at(sub, 2.0, p_port.take(outside) * at, q_port.take(outside) * at)

    @classmethod
    def _in_equal_parts(
        cls, group: Sequence[Self], ctx: DeviceContext, available: Affine, q_max: Affine, alone: BoolArray
    ) -> tuple[Affine, Affine]:
        """p and q of the devices whose ports have equal parts, shape (n, T); zero for the others."""
        builder, kva = ctx.builder, ctx.base.total_kva
        names, s = [d.name for d in group], column(group, "s_max_kva")
        scale = np.maximum(s, 1e-9) / kva
        free = np.array([d.curtailable for d in group], dtype=bool) & ~alone
        p = available * (~alone).astype(float).reshape(-1, 1)
        if np.any(free):
            own = np.flatnonzero(free)
            cut = builder.variable(
                "pv",
                "p",
                [names[k] for k in own],
                unit="kW",
                to_unit=kva,
                lower=0.0,
                upper=available.take(own),
                scale=scale[own],
                limit=False,
            )
            place = (len(group), own, np.arange(len(own)), np.ones(len(own)))
            p = available * (~free & ~alone).astype(float).reshape(-1, 1) + cut.map_terms(*place)
        tangent = cls._tangent(group)
        q = p * tangent.reshape(-1, 1)
        decides = by_device(group, "q_control", "free") & ~alone
        if np.any(decides):
            own = np.flatnonzero(decides)
            given = builder.variable(
                "pv",
                "q",
                [names[k] for k in own],
                unit="kvar",
                to_unit=kva,
                lower=-q_max.take(own),
                upper=q_max.take(own),
                scale=scale[own],
                limit=False,
            )
            q = q + given.map_terms(len(group), own, np.arange(len(own)), np.ones(len(own)))
        of_disc = by_device(group, "limit", "disc") & (s > 0.0)[:, 0]  # without a rating p and q are zero by bounds
        disc = np.flatnonzero(free & (decides | (tangent != 0.0)) & of_disc)
        if len(disc):
            s_sq = (s[disc] / kva) ** 2
            builder.product(
                "pv",
                "s_limit",
                [names[k] for k in disc],
                [p.take(disc), q.take(disc)],
                Affine.constant(np.repeat(s_sq, ctx.n_steps, axis=1)),
                Affine.constant(np.ones((len(disc), ctx.n_steps))),
                unit="kVA",
                to_unit=kva,
                scale=np.maximum(s_sq, 1e-18),
            )
        return p, q

    @classmethod
    def _port_by_port(
        cls,
        group: Sequence[Self],
        where: DevicePorts,
        ctx: DeviceContext,
        available: Affine,
        alone: BoolArray,
        p_port: Affine,
        q_port: Affine,
    ) -> tuple[Affine, Affine]:
        """p and q of all ports, with those of the devices that decide at each added."""
        builder, kva = ctx.builder, ctx.base.total_kva
        at = np.flatnonzero(alone[where.owner])
        most = cls._most(group) / kva
        box = by_device(group, "limit", "box").reshape(-1, 1)
        most = np.where(box, np.minimum(most, column(group, "p_rated_kw") / kva), most)
        s = column(group, "s_max_kva") / kva
        decides = by_device(group, "q_control", "free").reshape(-1, 1)
        q_high = np.where(decides, np.where(box, np.sqrt(np.maximum(s**2 - most**2, 0.0)), s), 0.0)
        p, q = at_each_port(
            "pv",
            group,
            where,
            at,
            ctx,
            p_low=np.zeros_like(most),
            p_high=most,
            q_high=q_high,
            tangent=cls._tangent(group),
        )
        place = (len(where.owner), at, np.arange(len(at)), np.ones(len(at)))
        p_port, q_port = p_port + p.map_terms(*place), q_port + q.map_terms(*place)
        own = np.flatnonzero(alone)
        total = where.total(p_port).take(own)
        cut = np.array([d.curtailable for d in group], dtype=bool)[own]
        for may_cut in (True, False):
            rows = np.flatnonzero(cut == may_cut)
            if not len(rows):
                continue
            some = own[rows]
            named, size = [group[k].name for k in some.tolist()], np.maximum(s[some], 1e-9)
            given, sun = total.take(rows), available.take(some)
            if may_cut:
                # what the sun offers is no limit that could give way
                builder.between(
                    "pv", "p_total", named, -np.inf, given, sun, unit="kW", to_unit=kva, scale=size, limit=False
                )
            else:
                builder.equal(
                    "pv", "p_total", named, given, sun, unit="kW", to_unit=kva, scale=size, limit=True, only_less=True
                )
        return p_port, q_port

    @classmethod
    def _volt_watt(
        cls, group: Sequence[Self], where: DevicePorts, ctx: DeviceContext, p_port: Affine, law: BoolArray
    ) -> Affine:
        """Keep p of every port under its curve, where the device has one: a limit of what is decided, a law else.

        Args:
            group: the devices.
            where: their ports.
            ctx: the context.
            p_port: p of all ports.
            law: the devices whose p is the lesser of the two, shape (n,).

        Returns:
            p of all ports.
        """
        at = np.flatnonzero(np.array([d.volt_watt for d in group], dtype=bool)[where.owner])
        if not len(at):
            return p_port
        ports = LawPorts("pv", group, where, at, ctx)
        ports.say_where("volt_watt")
        points = [d.watt_points for d in group]
        curve, curve_now = ports.curve("volt_watt", points)
        kva = ctx.base.total_kva
        rated = column(group, "p_rated_kw")[ports.owner] / kva * where.share[at].reshape(-1, 1)
        spare = p_port.take(at) - curve * rated
        limited, given = np.flatnonzero(~law[ports.owner]), np.flatnonzero(law[ports.owner])
        if len(limited):
            ctx.builder.between(
                "pv_port",
                "volt_watt",
                [ports.names[k] for k in limited.tolist()],
                -np.inf,
                spare.take(limited),
                0.0,
                unit="kW",
                to_unit=kva,
                scale=np.maximum(rated[limited], 1e-9),
            )
        if not len(given):
            return p_port
        own = ports.of(given)
        offered = p_port.take(at[given])
        now = curve_now[given] * rated[given] - ctx.builder.present(offered)
        size = np.maximum(rated[given], 1e-9)
        less = own.bent("volt_watt_cut", -spare.take(given), now, below_zero(size), unit="kW")
        return p_port + less.map_terms(len(where.owner), at[given], np.arange(len(given)), np.ones(len(given)))

    @classmethod
    def _tangent(cls, group: Sequence[Self]) -> FloatArray:
        """q over p, shape (n,); 0 where no power factor is held."""
        return np.array([d.q_over_p for d in group])

    @classmethod
    def _most(cls, group: Sequence[Self]) -> FloatArray:
        """Largest active power, kW, shape (n, 1): what the reactive power that is held leaves of the rating."""
        share = np.array([d.p_share for d in group]).reshape(-1, 1)
        held = np.array([d.p_rated_kw * max(d.volt_watt_p_pu) if d.follows_p else np.inf for d in group])
        return np.asarray(np.minimum(column(group, "s_max_kva") * share, held.reshape(-1, 1)))

    @classmethod
    def volt_var_on(cls, group: Sequence[Self], offered: FloatArray) -> FloatArray:
        """1 where volt_var acts, 0 where the sun offers nothing and it does not, shape (n, T); arguments as below."""
        always = np.array([d.volt_var_at_night for d in group], dtype=bool).reshape(-1, 1)
        return np.where(always | (offered > 0.0), 1.0, 0.0)

    @classmethod
    def over_kw(cls, group: Sequence[Self], offered: FloatArray) -> FloatArray:
        """What is added to the rating of systems whose p gives way to q, where the sun offers all of it, kW, shape
        (n, T): then p is what q leaves, and on no corner.

        Args:
            group: the systems.
            offered: what the sun offers before any limit, kW, shape (n, T).
        """
        s = column(group, "s_max_kva") * np.array([d.gives_way == "p" for d in group]).reshape(-1, 1)
        held = np.array([d.p_rated_kw * max(d.volt_watt_p_pu) if d.follows_p else np.inf for d in group])
        return np.where(np.minimum(offered, held.reshape(-1, 1)) >= s * (1.0 - 1e-12), SPARE_SHARE * s, 0.0)

    @classmethod
    def _q_max(cls, group: Sequence[Self], offered: FloatArray) -> FloatArray:
        """Bound on |q|, kvar, shape (n, T)."""
        s = column(group, "s_max_kva")
        box = np.array([d.limit == "box" for d in group]).reshape(-1, 1)
        curtailable = np.array([d.curtailable for d in group]).reshape(-1, 1)
        fixed = np.where(curtailable, 0.0, np.minimum(offered, cls._most(group)))
        p = np.where(box, np.minimum(column(group, "p_rated_kw"), s), fixed)
        return np.asarray(np.sqrt(np.maximum(s**2 - p**2, 0.0)))

    @classmethod
    def derived_data(cls, group: Sequence[Self], name: str, values: FloatArray) -> Mapping[str, FloatArray]:
        """What the sun offers is clipped as in `declare`, and the reactive limit follows it."""
        if name != "pv.p_available_kw":
            return {}
        p = np.minimum(values, cls._most(group))
        left = np.sqrt(np.maximum(column(group, "s_max_kva") ** 2 - p**2, 0.0))
        return {
            "pv.p_available_kw": p,
            "pv.q_max_kvar": cls._q_max(group, values),
            "pv.q_left_kvar": left,
            "pv.q_on": cls.volt_var_on(group, values),
            "pv.p_over_kw": cls.over_kw(group, values),
        }

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """PV systems whose profile is the new power over the rating."""
        if "pv.p_available_kw" not in values:
            return group
        offered = np.broadcast_to(values["pv.p_available_kw"], (len(group), n_steps))
        out = []
        for pv, power in zip(group, offered, strict=True):
            name = f"pv.p_available_kw:{pv.name}"
            profiles[name] = power / pv.p_rated_kw if pv.p_rated_kw else np.zeros(n_steps)
            out.append(dataclasses.replace(pv, profile=name))
        return out


def _impedance_outside(
    group: Sequence[PV], where: DevicePorts, ctx: DeviceContext, decides: BoolArray
) -> tuple[FloatArray, BoolArray]:
    """What multiplies |V|^2 at ports outside of the window, shape (ports, T); 0 inside and where something is decided.
    And where a port is so near an edge that both sides are to be written, likewise, if the formulation can."""
    ratio, low, high = _window(group, where, ctx)
    u = ctx.net.reference_v(where.ports) * ratio
    held = ~decides[where.owner].reshape(-1, 1)
    always = low >= high  # no window: an impedance at any voltage, without a corner
    near = held & ~always & (np.minimum(np.abs(u - low), np.abs(u - high)) < NEAR_EDGE_PU) & ctx.net.writes_curves
    one_side = held & ~near
    sided = one_side & ~always
    sides = np.where(sided & (u > high), high, np.where(sided & (u >= low), low, 0.0))
    tops = np.where(sided & (u < low), low, np.where(sided & (u <= high), high, np.inf))
    ctx.net.assume_v(where.ports, sides / ratio, tops / ratio)
    edge = np.where(u < low, low, np.where((u > high) | always, high, np.inf))
    return np.asarray((ratio / np.where(one_side, edge, np.inf)) ** 2), near


def _window(group: Sequence[PV], where: DevicePorts, ctx: DeviceContext) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Base over rated voltage of each port, and the edges of its window on the rated voltage, shape (ports, 1) each."""
    owner = where.owner
    base = ctx.net.base_kv(where.ports.a)
    rated = np.array([d.v_rated_kv or np.nan for d in group])[owner]
    delta = np.array([d.connection != "wye" for d in group])[owner]
    rated = np.where(np.isnan(rated), base * np.where(delta, np.sqrt(3.0), 1.0), rated)
    low, high = column(group, "v_min_pu")[owner], column(group, "v_max_pu")[owner]
    return (base / rated).reshape(-1, 1), low, high


def _at_edges(
    group: Sequence[PV], where: DevicePorts, ctx: DeviceContext, near: BoolArray, p: Affine, q: Affine
) -> None:
    """Inject p and q, of shape (ports, T), at the cells near an edge of the window by the law of both of its sides."""
    ratio, low, high = _window(group, where, ctx)
    at, step = np.nonzero(near)
    used, port = np.unique(at, return_inverse=True)
    one, none = np.ones((len(at), 1)), np.zeros((len(at), 1))
    below, above = ((ratio[at] / np.maximum(edge[at], 1e-9)) ** 2 for edge in (low, high))
    curve = Banded(
        np.hstack([one, none, none]),
        np.hstack([none, none, below]),
        np.hstack([none, none, above]),
        none,
        one,
        np.full((len(at), 1), ROUNDING),
    )
    ports = Ports(where.ports.a[used], where.ports.b[used])
    ctx.net.inject_curve(ports, port, step, curve, p.pick(at, step), q.pick(at, step))
