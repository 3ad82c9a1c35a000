"""Borders of an area: where a feeder is cut, each side sees the other as a device.

The branch at the cut belongs to the area on the source's side. Its far bus is in both areas: there the upper area has a
`BorderTail` (what the lower area draws) and the lower area a `BorderHead` (the voltage that the upper area offers).
What the two devices mean depends on how the areas are coupled:

========== ==================================== ====================================================================
coupling   head (lower area)                    tail (upper area)
========== ==================================== ====================================================================
tariff     v given; pays the tariff on P         P, Q given                      ENApp (Sadnan and Dubey 2021)
prices     v given; pays lambda_P P + lambda_Q Q P, Q given; pays mu v           ENApp with the three border prices
           (and w/2 P^2, w/2 Q^2 where asked)
consensus  v, P, Q free; linear and quadratic terms on each, both sides          ADMM, auxiliary problem principle
========== ==================================== ====================================================================

Everything that crosses is a data slot, per conductor and step, so that an area is solved again and again without being
rebuilt. Powers are positive towards the lower area.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import DeviceContext
from lateral.devices.load import Load
from lateral.devices.source import Source
from lateral.network.schema import FloatArray, IntArray, spec
from lateral.program import Affine, stack
from lateral.program.ports import Ports

COUPLINGS = ("tariff", "prices", "consensus")
#: What crosses a border, with the unit of each: squared voltage, active and reactive power.
QUANTITIES = {"v": "pu^2", "p": "kW", "q": "kvar"}


def border_rows(group: Sequence[BorderHead] | Sequence[BorderTail]) -> list[str]:
    """Names of the rows of every slot of border devices: ``border.conductor``, device by device."""
    return [f"{d.name}.{c}" for d in group for c in d.crossing]


@dataclass(frozen=True, kw_only=True, eq=False)
class BorderHead(Source):
    """The border towards the source, as the lower area sees it: a stiff voltage, and what power through it costs."""

    kind: ClassVar[str] = "border_head"
    table: ClassVar[str] = "border_heads"

    coupling: str = spec("How the areas are coupled.", choices=COUPLINGS, default="tariff")
    slack_price: float = spec(
        "Price of leaving the voltage given, objective per pu^2 and h; 0 for never.", default=0.0, minimum=0.0
    )

    @property
    def crossing(self) -> tuple[int, ...]:
        """The conductors that cross."""
        return self.conductors

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Feed the area.

        ::

            v = v_given + v_up - v_down                               slack_price > 0, else v = v_given
            energy_cost_t = dt_t price_import_t p_total_t             coupling "tariff"
            cost_t = dt_t sum_c (price_p p + 1/2 w_p p^2 + q likewise) coupling "prices"
            cost_t = sum_c sum_x dt_x (lin_x x + 1/2 w_x x^2), x = v,p,q   coupling "consensus", v free;
                                                              dt_p = dt_q = dt_t, dt_v = 1
        """
        builder, kva, hours = ctx.builder, ctx.base.total_kva, ctx.horizon.hours
        rows = border_rows(group)
        owner = np.array([k for k, d in enumerate(group) for _ in d.crossing], dtype=np.int64)
        nodes = np.array([ctx.net.node(d.bus, c) for d in group for c in d.crossing], dtype=np.int64)
        given = np.array([ctx.series(d.v_pu) ** 2 for d in group])[owner]
        v = builder.data("border_head.v_pu_sq", rows, given, unit="pu^2")
        free = np.array([d.coupling == "consensus" for d in group])[owner]
        if np.any(free):
            own = builder.variable("border_head", "vmag_sq", rows, unit="pu^2", lower=0.0, start=given, limit=False)
            e_sq = own
            held = np.flatnonzero(~free)
            if len(held):
                builder.equal("border_head", "v_given", [rows[k] for k in held], own.take(held), v.take(held))
        else:
            e_sq = v
        slack = np.array([d.slack_price for d in group])[owner]
        if np.any(slack > 0.0):
            soft = (slack > 0.0).reshape(-1, 1)
            up, down = (
                builder.variable(
                    "border_head", name, rows, unit="pu^2", lower=0.0, upper=np.where(soft, np.inf, 0.0), limit=False
                )
                for name in ("v_up", "v_down")
            )
            e_sq = e_sq + up - down
            builder.minimise((up + down) * (slack.reshape(-1, 1) * hours))
        p_parts, q_parts = [], []
        at = 0
        for d in group:
            n = len(d.crossing)
            own_rows = np.arange(at, at + n)
            at += n
            p, q = ctx.net.feed(
                d.name,
                nodes[own_rows],
                e_sq.take(own_rows),
                np.deg2rad(np.resize(d.angle_deg, n)),
                np.zeros((n, n), dtype=complex),
            )
            p_parts.append(p)
            q_parts.append(q)
        names, _ = ctx.net.node_vmag_sq()
        builder.copied.update(names[k] for k in nodes)
        tariff = np.array([ctx.series(d.price_import) for d in group])
        prices = builder.data("border_head.price_import", [d.name for d in group], tariff, unit="$/kWh")
        for k, (d, p, q) in enumerate(zip(group, p_parts, q_parts, strict=True)):
            if d.coupling == "tariff":
                total = p.sum_elements()
                builder.output("source", "p_total", [d.name], total, unit="kW", to_unit=kva)
                builder.output("source", "q_total", [d.name], q.sum_elements(), unit="kvar", to_unit=kva)
                cost = (total * (hours * kva)).times_parameter(prices.take(np.array([k])))
                builder.output("source", "energy_cost", [d.name], cost, unit="$")
        whole_p, whole_q = _below(p_parts), _below(q_parts)
        coupling = np.array([d.coupling for d in group])[owner]
        _border_costs(ctx, "border_head", rows, coupling, {"v": e_sq, "p": whole_p, "q": whole_q}, priced=("p", "q"))

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """Heads at the new voltage (root of the mean square of the conductors)."""
        if "border_head.v_pu_sq" not in values:
            return group
        rows = np.broadcast_to(values["border_head.v_pu_sq"], (len(border_rows(group)), n_steps))
        out = []
        at = 0
        for d in group:
            name = f"border_head.v_pu:{d.name}"
            profiles[name] = np.sqrt(rows[at : at + len(d.crossing)].mean(axis=0))
            at += len(d.crossing)
            out.append(dataclasses.replace(d, v_pu=name))
        return out


@dataclass(frozen=True, kw_only=True, eq=False)
class BorderTail(Load):
    """The border away from the source, as the upper area sees it: what the lower area draws, and what v is worth to it.

    ``p_kw`` and ``q_kvar`` are totals, equally from each conductor, until a neighbour says better.
    """

    kind: ClassVar[str] = "border_tail"
    table: ClassVar[str] = "border_tails"

    coupling: str = spec("How the areas are coupled.", choices=COUPLINGS, default="tariff")
    slack_price: float = spec(
        "Price of not giving the power asked for, objective per kWh; 0 for never.", default=0.0, minimum=0.0
    )

    @property
    def crossing(self) -> tuple[int, ...]:
        """The conductors that cross."""
        return self.terminals[:-1]

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Draw what the lower area draws.

        ::

            p = p_given - p_less + p_more, q likewise                 slack_price > 0, else p = p_given
            cost_t = sum_c price_v v                                  coupling "prices"
            cost_t = sum_c sum_x dt_x (lin_x x + 1/2 w_x x^2), x = v,p,q   coupling "consensus", p and q free;
                                                              dt_p = dt_q = dt_t, dt_v = 1
        """
        builder, kva = ctx.builder, ctx.base.total_kva
        rows = border_rows(group)
        owner = np.array([k for k, d in enumerate(group) for _ in d.crossing], dtype=np.int64)
        share = np.array([1.0 / len(d.crossing) for d in group]).reshape(-1, 1)
        start = {
            "p": np.array([d.p_kw * ctx.multiplier(d.profile) for d in group]) * share,
            "q": np.array([d.q_kvar * ctx.multiplier(d.profile_q or d.profile) for d in group]) * share,
        }
        nodes = np.array([ctx.net.node(d.bus, c) for d in group for c in d.crossing], dtype=np.int64)
        ports = Ports(nodes, np.full(len(nodes), -1))
        free = np.array([d.coupling == "consensus" for d in group])[owner]
        slack = np.array([d.slack_price for d in group])[owner].reshape(-1, 1)
        drawn: dict[str, Affine] = {}
        for x in ("p", "q"):
            unit = QUANTITIES[x]
            given = builder.data(f"border_tail.{x}_{unit.lower()}", rows, start[x][owner], unit=unit) / kva
            size = np.maximum(np.abs(start[x][owner]).max(axis=1, keepdims=True), 1.0) / kva
            drawn[x] = given
            if np.any(free):
                variable = builder.variable(
                    "border_tail", x, rows, unit=unit, to_unit=kva, scale=size, start=start[x][owner] / kva, limit=False
                )
                held = np.flatnonzero(~free)
                if len(held):
                    names = [rows[k] for k in held]
                    builder.equal("border_tail", f"{x}_given", names, variable.take(held), given.take(held))
                drawn[x] = variable
            if np.any(slack > 0.0):
                less, more = (
                    builder.variable(
                        "border_tail",
                        f"{x}_{name}",
                        rows,
                        unit=unit,
                        to_unit=kva,
                        lower=0.0,
                        upper=np.where(slack > 0.0, np.inf, 0.0),
                        scale=size,
                        limit=False,
                    )
                    for name in ("less", "more")
                )
                drawn[x] = drawn[x] - less + more
                builder.minimise((less + more) * (slack * ctx.horizon.hours * kva))
        ctx.net.inject(ports, -drawn["p"], -drawn["q"])
        coupling = np.array([d.coupling for d in group])[owner]
        v = ctx.net.power_of_v(ports, np.full(len(nodes), 2.0))
        _border_costs(ctx, "border_tail", rows, coupling, {"v": v, **drawn}, priced=("v",))

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """Tails that draw the new powers (sums over the conductors)."""
        slots = {"p": "border_tail.p_kw", "q": "border_tail.q_kvar"}
        if not any(slot in values for slot in slots.values()):
            return group
        n_rows = len(border_rows(group))
        out = []
        at = 0
        for d in group:
            changes: dict[str, str | float] = {}
            for x, slot in slots.items():
                old = d.profile if x == "p" else d.profile_q or d.profile
                changes["profile" if x == "p" else "profile_q"] = old
                if slot in values:
                    name = f"{slot}:{d.name}"
                    rows = np.broadcast_to(values[slot], (n_rows, n_steps))
                    profiles[name] = rows[at : at + len(d.crossing)].sum(axis=0)
                    changes |= {"p_kw" if x == "p" else "q_kvar": 1.0, "profile" if x == "p" else "profile_q": name}
            at += len(d.crossing)
            out.append(dataclasses.replace(d, **changes))  # type: ignore[arg-type]
        return out


def _border_costs(
    ctx: DeviceContext,
    kind: str,
    rows: Sequence[str],
    coupling: np.ndarray,
    crossing: Mapping[str, Affine],
    *,
    priced: Sequence[str],
) -> None:
    """Prices of what the other side decides on, or linear and quadratic terms on everything that crosses."""
    builder, kva, hours = ctx.builder, ctx.base.total_kva, ctx.horizon.hours
    to_unit = {"v": 1.0, "p": kva, "q": kva}
    with_prices = _where(coupling == "prices")
    if len(with_prices):
        names = [rows[k] for k in with_prices]
        for x in priced:
            unit = {"v": "objective/pu^2", "p": "objective/kWh", "q": "objective/kvarh"}[x]
            price = builder.data(f"{kind}.price_{x}", names, np.zeros((len(names), ctx.n_steps)), unit=unit)
            per_step = 1.0 if x == "v" else hours
            what = crossing[x].take(with_prices) * (to_unit[x] * per_step)
            builder.minimise(what.times_parameter(price))
            if x != "v":
                near = builder.data(
                    f"{kind}.w_{x}", names, np.zeros((len(names), ctx.n_steps)), unit=f"{unit}/{QUANTITIES[x]}"
                )
                builder.minimise_squares(crossing[x].take(with_prices) * to_unit[x], near * (0.5 * hours))
    in_consensus = _where(coupling == "consensus")
    if len(in_consensus):
        names = [rows[k] for k in in_consensus]
        for x, unit in QUANTITIES.items():
            zeros, ones = np.zeros((len(names), ctx.n_steps)), np.ones((len(names), ctx.n_steps))
            per = unit if x == "v" else f"{unit}h"
            per_step = np.ones(ctx.n_steps) if x == "v" else hours
            linear = builder.data(f"{kind}.lin_{x}", names, zeros, unit=f"objective/{per}")
            weight = builder.data(f"{kind}.w_{x}", names, ones, unit=f"objective/{per}/{unit}")
            what = crossing[x].take(in_consensus) * to_unit[x]
            builder.minimise((what * per_step).times_parameter(linear))
            builder.minimise_squares(what, weight * (0.5 * per_step))


def _where(mask: np.ndarray) -> IntArray:
    return np.flatnonzero(mask).astype(np.int64)


def _below(parts: Sequence[Affine]) -> Affine:
    return parts[0] if len(parts) == 1 else stack(list(parts))


__all__ = ["COUPLINGS", "QUANTITIES", "BorderHead", "BorderTail", "border_rows"]
