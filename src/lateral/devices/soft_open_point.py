"""Soft open points: two converters back to back between two buses, which pass power from one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import (
    LOST_KW,
    PHASES,
    BoolArray,
    DeviceContext,
    DevicePorts,
    ShuntDevice,
    column,
    port_outputs,
)
from lateral.network.schema import FloatArray, IntArray, Terminals, ports_of, spec
from lateral.program import Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftOpenPoint(ShuntDevice):
    """Two converters with a common dc side, one at each of two buses, in the place of a normally open switch."""

    kind: ClassVar[str] = "soft_open_point"
    table: ClassVar[str] = "soft_open_points"
    needs_ports: ClassVar[bool] = True

    other_bus: str = spec("Bus of the second converter.")
    other_terminals: Terminals = spec("Conductors of the second converter, connected as the first one.", default=(1, 0))
    s_max_kva: float = spec("Apparent power limit of each of the two converters.", unit="kVA", above=0.0)
    loss_share: float = spec(
        "Share of the power passed on that is lost, in both converters together.",
        default=0.0,
        minimum=0.0,
        maximum=0.5,
    )
    q_control: str = spec("free: q is a decision at each end; none: q = 0.", default="free", choices=("free", "none"))
    phases: str = spec(
        "balanced: power divides equally over the ports of an end; free: it is decided at each, within its share.",
        default="balanced",
        choices=PHASES,
    )

    @property
    def places(self) -> tuple[tuple[str, tuple[int, int]], ...]:
        """The ports of the first converter, then those of the second."""
        second = ports_of(self.other_terminals, self.connection)
        return (*super().places, *((self.other_bus, port) for port in second))

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Pass power from one end to the other, and give or take kvar at each.

        ::

            p_1 = (1 - k) g - f,     p_2 = (1 - k) f - g,     f, g >= 0        f from 1 to 2, g back; k = loss_share
            p_1^2 + q_1^2 <= s_max^2,     p_2^2 + q_2^2 <= s_max^2             q_1, q_2 free, or 0

        With phases free these are the sums over the ports of an end, and each port is within s_max over their number.
        Without losses f - g is one variable. That f and g are not positive at once is exact as long as a kWh lost costs
        something. Where it does not, an exact form is solved again with each such step held to pass power one way
        (`lateral.results.one_way`); any other result in which energy is burnt says so. What q alone loses is
        left out (Cao et al. 2016).
        """
        ends = _Ends.of(group, ctx.ports(group))
        passed = cls._passed(group, ctx)
        free = np.array([d.phases == "free" for d in group], dtype=bool)
        p_port = ends.spread(passed, ~free[ends.where.owner])
        q_port = Affine.zeros(ends.n_ports, ctx.n_steps)
        decides = np.array([d.q_control == "free" for d in group], dtype=bool)
        s = column(group, "s_max_kva") / ctx.base.total_kva
        # one end is one decision where its ports have equal parts
        own = np.flatnonzero(np.repeat(~free, 2))
        if len(own):
            rating = s[own // 2]
            names = [f"{group[k // 2].name}.{k % 2 + 1}" for k in own.tolist()]
            q = _reactive("soft_open_point", "q_end", names, rating, decides[own // 2], passed.take(own), ctx)
            by_end = q.map_terms(2 * len(group), own, np.arange(len(own)), np.ones(len(own)))
            q_port = q_port + ends.spread(by_end, np.ones(ends.n_ports, dtype=bool))
        at = np.flatnonzero(free[ends.where.owner])
        if len(at):
            every, owner = ends.where.names(group), ends.where.owner[at]
            names = [every[k] for k in at.tolist()]
            rating = s[owner] * ends.share[at].reshape(-1, 1)
            p = ctx.builder.variable(
                "soft_open_point_port",
                "p_decided",
                names,
                unit="kW",
                to_unit=ctx.base.total_kva,
                lower=-rating,
                upper=rating,
                scale=rating,
                limit=False,
            )
            q = _reactive("soft_open_point_port", "q_decided", names, rating, decides[owner], p, ctx)
            place = (ends.n_ports, at, np.arange(len(at)), np.ones(len(at)))
            p_port, q_port = p_port + p.map_terms(*place), q_port + q.map_terms(*place)
            rows = np.flatnonzero(np.repeat(free, 2))
            total = ends.total(p_port).take(rows) - passed.take(rows)
            names = [f"{group[k // 2].name}.{k % 2 + 1}" for k in rows.tolist()]
            size = s[rows // 2]
            ctx.builder.equal(
                "soft_open_point", "p_end", names, total, unit="kW", to_unit=ctx.base.total_kva, scale=size
            )
        where, kva = ends.where, ctx.base.total_kva
        named = [d.name for d in group]
        ctx.builder.output("soft_open_point", "p_injected", named, where.total(p_port), unit="kW", to_unit=kva)
        ctx.builder.output("soft_open_point", "q_injected", named, where.total(q_port), unit="kvar", to_unit=kva)
        port_outputs(ctx, group, where, np.ones(len(group), dtype=bool), p_port, q_port)
        ctx.net.inject(where.ports, p_port, q_port)

    @classmethod
    def _passed(cls, group: Sequence[Self], ctx: DeviceContext) -> Affine:
        """Active power given at the ends, shape (2 n, T): first and second end of each device in turn."""
        builder, kva, n = ctx.builder, ctx.base.total_kva, len(group)
        loss = column(group, "loss_share")
        s = column(group, "s_max_kva") / kva
        out = Affine.zeros(2 * n, ctx.n_steps)

        def variable(quantity: str, own: IntArray, low: FloatArray) -> Affine:
            named = [group[k].name for k in own.tolist()]
            return builder.variable(
                "soft_open_point",
                quantity,
                named,
                unit="kW",
                to_unit=kva,
                lower=low,
                upper=s[own],
                scale=s[own],
                limit=False,
            )

        def at_ends(own: IntArray, power: Affine, first: FloatArray, second: FloatArray) -> Affine:
            each = np.arange(len(own))
            rows = np.concatenate([2 * own, 2 * own + 1])
            return power.map_terms(2 * n, rows, np.concatenate([each, each]), np.concatenate([first, second]))

        own = np.flatnonzero(loss[:, 0] == 0.0)
        if len(own):
            one = np.ones(len(own))
            out = out + at_ends(own, variable("p_passed", own, -s[own]), -one, one)
        own = np.flatnonzero(loss[:, 0] > 0.0)
        if len(own):
            zero, one, k = np.zeros_like(s[own]), np.ones(len(own)), loss[own, 0]
            forward, back = variable("p_forward", own, zero), variable("p_back", own, zero)
            out = out + at_ends(own, forward, -one, 1.0 - k) + at_ends(own, back, 1.0 - k, -one)
            cells = [a.col.reshape(a.shape) for a in (forward, back)]

            def excess(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
                return np.asarray(2.0 * k[:, None] * np.minimum(x[cells[0]], x[cells[1]]))

            most = LOST_KW / (2.0 * k[:, None] * kva)
            builder.oppose(("soft open point", "soft open points"), "to pass power one way", back, forward, most)
            names = [group[j].name for j in own.tolist()]
            builder.derive("soft_open_point", "loss_excess", names, excess, unit="kW", to_unit=kva)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Ends:
    """The ports of a group by end: end 2 k and 2 k + 1 are those of device k."""

    where: DevicePorts
    end: IntArray
    share: FloatArray
    n_ends: int

    @classmethod
    def of(cls, group: Sequence[SoftOpenPoint], where: DevicePorts) -> _Ends:
        first = np.array([len(d.ports) for d in group])
        end = 2 * where.owner + (where.number >= first[where.owner])
        count = np.bincount(end, minlength=2 * len(group))
        return cls(where, end, 1.0 / count[end], 2 * len(group))

    @property
    def n_ports(self) -> int:
        return len(self.end)

    def spread(self, by_end: Affine, which: BoolArray) -> Affine:
        """Power of ends divided over those of their ports that are named, shape (ports, T)."""
        return by_end.map_terms(self.n_ports, np.arange(self.n_ports), self.end, self.share * which)

    def total(self, by_port: Affine) -> Affine:
        """What the ports of each end add up to, shape (2 n, T)."""
        return by_port.map_terms(self.n_ends, self.end, np.arange(self.n_ports), np.ones(self.n_ports))


def _reactive(
    component: str,
    quantity: str,
    names: Sequence[str],
    rating: FloatArray,
    decides: BoolArray,
    p: Affine,
    ctx: DeviceContext,
) -> Affine:
    """Reactive power as a decision within the rating that p leaves, shape (n, T); zero where it is none."""
    builder, kva = ctx.builder, ctx.base.total_kva
    own = np.flatnonzero(decides)
    if not len(own):
        return Affine.zeros(len(names), ctx.n_steps)
    named, size = [names[k] for k in own.tolist()], rating[own]
    given = builder.variable(
        component, quantity, named, unit="kvar", to_unit=kva, lower=-size, upper=size, scale=size, limit=False
    )
    builder.product(
        component,
        "s_limit",
        named,
        [p.take(own), given],
        Affine.constant(np.repeat(size**2, ctx.n_steps, axis=1)),
        Affine.constant(np.ones((len(own), ctx.n_steps))),
        unit="kVA",
        to_unit=kva,
        scale=size**2,
    )
    return given.map_terms(len(names), own, np.arange(len(own)), np.ones(len(own)))
