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

v is what the formulation says of a voltage (`NetworkModel.voltages`): its squared magnitude; or its real and imaginary
part; or its squared magnitude and its product with the next conductor's, ``V_k conj(V_k')``, which together are the
matrix V V^H. Each is given, priced, or has terms of its own. A matrix is in consensus only: given, and of rank one, it
would leave an area no inside; there the magnitudes alone are given, at the angles without load.

Where no current that crosses returns by ground and nothing ties the upper area's side to ground either (``returns`` of
the tail), V - V' of two conductors is all that any power depends on. Powers of each conductor that are not in agreement
yet would decide the voltage to ground, and throw it about: there the upper area holds the mean of V, and takes what the
currents do not add up to. It is nothing in agreement.

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
from lateral.network.sequence import to_components
from lateral.program import Affine, stack
from lateral.program.ports import ground_pair

COUPLINGS = ("tariff", "prices", "consensus")
#: What crosses a border, with the unit of each: squared or complex voltage, product of two, active and reactive power.
QUANTITIES = {"v": "pu^2", "v_re": "pu", "v_im": "pu", "vv_re": "pu^2", "vv_im": "pu^2", "p": "kW", "q": "kvar"}
#: The slot that a quantity is given in, and the variable that it is where it is free.
SLOTS = {"v": "v_pu_sq", "v_re": "v_re_pu", "v_im": "v_im_pu", "p": "p_kw", "q": "q_kvar"}
SLOTS |= {"vv_re": "vv_re_pu_sq", "vv_im": "vv_im_pu_sq"}
VARIABLES = {"v": "vmag_sq", "v_re": "v_re", "v_im": "v_im", "vv_re": "vv_re", "vv_im": "vv_im"}


def border_rows(group: Sequence[BorderHead] | Sequence[BorderTail]) -> list[str]:
    """Names of the rows of every slot of border devices: ``border.conductor``, device by device."""
    return [f"{d.name}.{c}" for d in group for c in d.crossing]


def next_rows(group: Sequence[BorderHead] | Sequence[BorderTail]) -> IntArray:
    """Row of the next conductor of the same border, of the last one the first, shape (rows,)."""
    sizes = [len(d.crossing) for d in group]
    first = np.cumsum([0, *sizes])
    return np.concatenate([at + np.roll(np.arange(n), -1) for at, n in zip(first[:-1], sizes, strict=True)])


@dataclass(frozen=True, kw_only=True, eq=False)
class BorderHead(Source):
    """The border towards the source, as the lower area sees it: a stiff voltage, and what power through it costs."""

    kind: ClassVar[str] = "border_head"
    table: ClassVar[str] = "border_heads"

    coupling: str = spec("How the areas are coupled.", choices=COUPLINGS, default="tariff")
    slack_price: float = spec(
        "Price of leaving the voltage given, objective per pu^2 (of a complex one: pu) and h; 0 for never.",
        default=0.0,
        minimum=0.0,
    )

    @property
    def crossing(self) -> tuple[int, ...]:
        """The conductors that cross."""
        return self.conductors

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Feed the area.

        ::

            v = v_given + v_up - v_down, or so each part of V         slack_price > 0, else v = v_given
            energy_cost_t = dt_t price_import_t p_total_t             coupling "tariff"
            cost_t = dt_t sum_c (price_p p + 1/2 w_p p^2 + q likewise) coupling "prices"
            cost_t = sum_c sum_x dt_x (lin_x x + 1/2 w_x x^2), x = v,p,q   coupling "consensus", v free;
                                                              dt_p = dt_q = dt_t, dt_v = 1
        """
        builder, kva, hours = ctx.builder, ctx.base.total_kva, ctx.horizon.hours
        rows = border_rows(group)
        owner = np.array([k for k, d in enumerate(group) for _ in d.crossing], dtype=np.int64)
        nodes = np.array([ctx.net.node(d.bus, c) for d in group for c in d.crossing], dtype=np.int64)
        voltages = cls._voltages(group, ctx, rows, owner)
        p_parts, q_parts = [], []
        at = 0
        for d in group:
            n = len(d.crossing)
            own_rows = np.arange(at, at + n)
            at += n
            given = [v.take(own_rows) for v in voltages.values()]
            if "v_re" in voltages or ("vv_re" in voltages and d.coupling == "consensus"):
                p, q = ctx.net.feed_at(d.name, nodes[own_rows], *given)
            else:
                angle = np.deg2rad(np.resize(d.angle_deg, n))
                p, q = ctx.net.feed(d.name, nodes[own_rows], given[0], angle, np.zeros((n, n), dtype=complex))
            p_parts.append(p)
            q_parts.append(q)
        builder.copied.update(f"{d.bus}.{c}" for d in group for c in d.crossing)
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
        _border_costs(ctx, group, rows, coupling, {**voltages, "p": whole_p, "q": whole_q}, priced=("p", "q"))

    @classmethod
    def _voltages(
        cls, group: Sequence[Self], ctx: DeviceContext, rows: Sequence[str], owner: IntArray
    ) -> dict[str, Affine]:
        """The voltages at the heads, as the formulation says them: data, or variables where they are free."""
        builder, hours = ctx.builder, ctx.horizon.hours
        size = np.array([ctx.series(d.v_pu) for d in group])[owner]
        angle = np.deg2rad(np.concatenate([np.resize(d.angle_deg, len(d.crossing)) for d in group])).reshape(-1, 1)
        starts = {"v": size**2, "v_re": size * np.cos(angle), "v_im": size * np.sin(angle)}
        apart = angle - angle[next_rows(group)]
        starts |= {"vv_re": size**2 * np.cos(apart), "vv_im": size**2 * np.sin(apart)}
        free = np.array([d.coupling == "consensus" for d in group])[owner]
        slack = np.array([d.slack_price for d in group])[owner].reshape(-1, 1)
        out: dict[str, Affine] = {}
        for x in ctx.net.voltages:
            if x.startswith("vv_") and not np.any(free):
                continue  # where a magnitude is given its angle is that without load
            unit, lower = QUANTITIES[x], 0.0 if x == "v" else -np.inf
            v = builder.data(f"border_head.{SLOTS[x]}", rows, starts[x], unit=unit)
            if np.any(free):
                own = builder.variable(
                    "border_head", VARIABLES[x], rows, unit=unit, lower=lower, start=starts[x], limit=False
                )
                held = np.flatnonzero(~free)
                if len(held):
                    names = [rows[int(k)] for k in held]
                    builder.equal("border_head", f"{x}_given", names, own.take(held), v.take(held))
                v = own
            if np.any(slack > 0.0):
                top = np.where(slack > 0.0, np.inf, 0.0)
                up, down = (
                    builder.variable("border_head", f"{x}_{way}", rows, unit=unit, lower=0.0, upper=top, limit=False)
                    for way in ("up", "down")
                )
                v = v + up - down
                builder.minimise((up + down) * (slack * hours))
            out[x] = v
        return out

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """Heads at the new voltage (root of the mean square of the conductors)."""
        shape = (len(border_rows(group)), n_steps)
        if "border_head.v_pu_sq" in values:
            rows = np.broadcast_to(values["border_head.v_pu_sq"], shape)
        elif {"border_head.v_re_pu", "border_head.v_im_pu"} <= set(values):
            parts = (np.broadcast_to(values[f"border_head.v_{x}_pu"], shape) for x in ("re", "im"))
            rows = sum((part**2 for part in parts), np.zeros(shape))
        else:
            return group
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
    returns: bool = spec("Whether current that crosses can return by ground.", default=True)

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
            mean_c V = that of the operating point, and the same current from every conductor to ground
                                                              returns false, V complex, nothing else ties it
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
        ports = ground_pair(nodes)
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
        cls._inject(group, ctx, nodes, owner, -drawn["p"], -drawn["q"])
        coupling = np.array([d.coupling for d in group])[owner]
        if "v_re" in ctx.net.voltages:
            v = dict(zip(("v_re", "v_im"), ctx.net.node_voltage(nodes), strict=True))
        else:
            v = {"v": ctx.net.power_of_v(ports, np.full(len(nodes), 2.0))}
        if "vv_re" in ctx.net.voltages and np.any(free):
            products = ctx.net.voltage_products(nodes, nodes[next_rows(group)])
            v |= dict(zip(("vv_re", "vv_im"), products, strict=True))
        _border_costs(ctx, group, rows, coupling, {**v, **drawn}, priced=tuple(v))

    @classmethod
    def _inject(
        cls, group: Sequence[Self], ctx: DeviceContext, nodes: IntArray, owner: IntArray, p: Affine, q: Affine
    ) -> None:
        """Inject at the nodes of all tails; those without return by ground one by one."""
        returns = np.array([d.returns for d in group])
        own = _where(returns[owner])
        if len(own):
            ctx.net.inject(ground_pair(nodes[own]), p.take(own), q.take(own))
        for k in _where(~returns):
            own = _where(owner == k)
            ctx.net.inject_without_return(group[k].name, ground_pair(nodes[own]), p.take(own), q.take(own))

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
    group: Sequence[BorderHead] | Sequence[BorderTail],
    rows: Sequence[str],
    coupling: np.ndarray,
    crossing: Mapping[str, Affine],
    *,
    priced: Sequence[str],
) -> None:
    """Prices of what the other side decides on, or linear and quadratic terms on everything that crosses."""
    builder, kva, hours, kind = ctx.builder, ctx.base.total_kva, ctx.horizon.hours, group[0].kind
    if "vv_re" in crossing:
        crossing = _in_components(group, crossing)
    to_unit = {x: kva if x in ("p", "q") else 1.0 for x in crossing}
    with_prices = _where(coupling == "prices")
    if len(with_prices):
        names = [rows[k] for k in with_prices]
        for x in priced:
            unit = f"objective/{QUANTITIES[x]}{'h' if x in ('p', 'q') else ''}"
            price = builder.data(f"{kind}.price_{x}", names, np.zeros((len(names), ctx.n_steps)), unit=unit)
            per_step = hours if x in ("p", "q") else 1.0
            what = crossing[x].take(with_prices) * (to_unit[x] * per_step)
            builder.minimise(what.times_parameter(price))
            if x in ("p", "q"):
                near = builder.data(
                    f"{kind}.w_{x}", names, np.zeros((len(names), ctx.n_steps)), unit=f"{unit}/{QUANTITIES[x]}"
                )
                builder.minimise_squares(crossing[x].take(with_prices) * to_unit[x], near * (0.5 * hours))
    in_consensus = _where(coupling == "consensus")
    if len(in_consensus):
        names = [rows[k] for k in in_consensus]
        for x in crossing:
            unit = QUANTITIES[x]
            zeros, ones = np.zeros((len(names), ctx.n_steps)), np.ones((len(names), ctx.n_steps))
            per = f"{unit}h" if x in ("p", "q") else unit
            per_step = ctx.horizon.agreed_hours if x in ("p", "q") else np.ones(ctx.n_steps)
            linear = builder.data(f"{kind}.lin_{x}", names, zeros, unit=f"objective/{per}")
            weight = builder.data(f"{kind}.w_{x}", names, ones, unit=f"objective/{per}/{unit}")
            what = crossing[x].take(in_consensus) * to_unit[x]
            builder.minimise((what * per_step).times_parameter(linear))
            builder.minimise_squares(what, weight * (0.5 * per_step))


def _in_components(
    group: Sequence[BorderHead] | Sequence[BorderTail], crossing: Mapping[str, Affine]
) -> dict[str, Affine]:
    """What crosses, with matrices of voltages in symmetrical components, border by border."""
    kinds = ("v", "vv_re", "vv_im")
    n = crossing["v"].n
    out, source, weight = [], [], []
    first = 0
    for d in group:
        own = len(d.crossing)
        at = (np.arange(3)[:, None] * n + first + np.arange(own)).reshape(-1)
        turn = to_components(tuple(d.crossing))
        row, col = np.nonzero(np.abs(turn) > 1e-14)
        out.append(at[row])
        source.append(at[col])
        weight.append(turn[row, col])
        first += own
    pool = stack([crossing[x] for x in kinds])
    turned = pool.map_terms(3 * n, np.concatenate(out), np.concatenate(source), np.concatenate(weight))
    return {**crossing, **{x: turned.take(np.arange(k * n, (k + 1) * n)) for k, x in enumerate(kinds)}}


def _where(mask: np.ndarray) -> IntArray:
    return np.flatnonzero(mask).astype(np.int64)


def _below(parts: Sequence[Affine]) -> Affine:
    return parts[0] if len(parts) == 1 else stack(list(parts))


__all__ = ["COUPLINGS", "QUANTITIES", "SLOTS", "VARIABLES", "BorderHead", "BorderTail", "border_rows"]
