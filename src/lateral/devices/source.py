"""The upstream grid: a voltage behind an impedance, with a tariff and limits on what crosses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import Device, DeviceContext
from lateral.network.schema import FloatArray, Series, Terminals, spec
from lateral.program import Affine, Program


@dataclass(frozen=True, kw_only=True, eq=False)
class Source(Device):
    """The upstream grid."""

    kind: ClassVar[str] = "source"
    table: ClassVar[str] = "sources"

    conductors: Terminals = spec("Conductors fed, in the order of the impedance matrix.", default=(1,))
    v_pu: Series = spec(
        "Voltage magnitude behind the impedance, on the bus base.", unit="pu", default=1.0, above=0.0, series=True
    )
    angle_deg: tuple[float, ...] = spec("Voltage angle of each conductor.", unit="deg", default=(0.0,))
    r_ohm: FloatArray = spec(
        "Resistance matrix of the source; a single 0 is none, of any number of conductors.",
        unit="ohm",
        default=((0.0,),),
        matrix=True,
    )
    x_ohm: FloatArray = spec(
        "Reactance matrix of the source; likewise. Without impedance the bus has the voltage v_pu itself.",
        unit="ohm",
        default=((0.0,),),
        matrix=True,
    )
    price_import: Series = spec("Price of energy taken from the grid.", unit="$/kWh", default=0.0, series=True)
    price_export: Series | None = spec(
        "Price paid for energy given to the grid; absent: the import price.", unit="$/kWh", default=None, series=True
    )
    p_import_max_kw: Series = spec(
        "Most power that may be taken, all conductors; inf for none.", unit="kW", default=float("inf"), series=True
    )
    p_export_max_kw: Series = spec(
        "Most power that may be given back, all conductors; inf for none.", unit="kW", default=float("inf"), series=True
    )

    q_import_max_kvar: Series = spec(
        "Most reactive power that may be taken, all conductors; inf for none.",
        unit="kvar",
        default=float("inf"),
        series=True,
    )
    q_export_max_kvar: Series = spec(
        "Most reactive power that may be given back, all conductors; inf for none.",
        unit="kvar",
        default=float("inf"),
        series=True,
    )
    s_max_kva: Series = spec(
        "Most apparent power at the point of common coupling, all conductors; inf for none.",
        unit="kVA",
        default=float("inf"),
        series=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        conductors: object = self.conductors
        if not isinstance(conductors, tuple):  # VAL-001
            return
        n = len(conductors)
        for name in ("r_ohm", "x_ohm"):
            matrix = getattr(self, name)
            if matrix.shape == (1, 1) and not matrix.any():
                none = np.zeros((n, n))
                none.setflags(write=False)
                object.__setattr__(self, name, none)

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Feed the network and price what crosses.

        ::

            p_total = sum of p over conductors;   -p_export_max <= p_total <= p_import_max,   q likewise
        p_total^2 + q_total^2 <= s_max^2
            energy_cost_t = dt_t price_t p_total_t                               one price
            energy_cost_t = dt_t (price_import_t buy_t - price_export_t sell_t)   two: p_total = buy - sell, both >= 0;
                                                                    sell = 0, buy free at steps where they are equal

        Buying and selling at once does not pay while the export price is not above the import price. Both are variables
        only where the objective has the cost in it: nothing else would keep them from growing together.
        """
        builder, kva = ctx.builder, ctx.base.total_kva
        names = [s.name for s in group]
        v = builder.data("source.v_pu_sq", names, np.array([ctx.series(s.v_pu) ** 2 for s in group]), unit="pu^2")
        price = builder.data(
            "source.price_import", names, np.array([ctx.series(s.price_import) for s in group]), unit="$/kWh"
        )
        for k, source in enumerate(group):
            nodes = np.array([ctx.net.node(source.bus, c) for c in source.conductors], dtype=np.int64)
            n = len(nodes)
            z_base = ctx.base.z_ohm(ctx.net.base_kv(nodes)[0])
            p, q = ctx.net.feed(
                source.name,
                nodes,
                v.take(np.full(n, k)),
                np.deg2rad(np.resize(source.angle_deg, n)),
                np.asarray((source.r_ohm + 1j * source.x_ohm)[:n, :n] / z_base, dtype=complex),
            )
            total, total_q = p.sum_elements(), q.sum_elements()
            builder.output("source", "p_total", [source.name], total, unit="kW", to_unit=kva)
            builder.output("source", "q_total", [source.name], total_q, unit="kvar", to_unit=kva)
            cls._limit(source, "p", total, ctx.series(source.p_export_max_kw), ctx.series(source.p_import_max_kw), ctx)
            cls._limit(
                source, "q", total_q, ctx.series(source.q_export_max_kvar), ctx.series(source.q_import_max_kvar), ctx
            )
            cls._limit_apparent(source, total, total_q, ctx)
            own_price = price.take(np.array([k]))
            if source.price_export is None:
                cost = (total * (ctx.horizon.hours * kva)).times_parameter(own_price)
                builder.output("source", "energy_cost", [source.name], cost, unit="$")
            else:
                name, prices = f"source.price_export.{source.name}", ctx.series(source.price_export)[None]
                sell_price = builder.data(name, [source.name], prices, unit="$/kWh")
                trade = partial(cls._trade, source, total, own_price, sell_price, ctx)
                builder.when_wanted("source.energy_cost", trade)

    @classmethod
    def _trade(cls, source: Self, total: Affine, buy_price: Affine, sell_price: Affine, ctx: DeviceContext) -> None:
        """Buy at one price, sell at another; where they are the same, ``buy`` is the net power, of either sign: both at
        once would cost nothing, and have no limit. A model whose prices meet at other steps is built again
        (`trades_alike`)."""
        builder, kva, hours = ctx.builder, ctx.base.total_kva, ctx.horizon.hours * ctx.base.total_kva
        same = builder.present(buy_price) == builder.present(sell_price)
        low, high = np.where(same, -np.inf, 0.0), np.where(same, 0.0, np.inf)
        name, unit = [source.name], "kW"
        buy = builder.variable("source", "buy", name, unit=unit, to_unit=kva, lower=low, limit=False)
        sell = builder.variable("source", "sell", name, unit=unit, to_unit=kva, lower=0.0, upper=high, limit=False)
        builder.equal("source", "trade", name, total - buy + sell, unit=unit, to_unit=kva)
        cost = (buy * hours).times_parameter(buy_price) - (sell * hours).times_parameter(sell_price)
        builder.output("source", "energy_cost", name, cost, unit="$")

    def trades_alike(self, program: Program, buy: FloatArray, sell: FloatArray) -> bool:
        """Whether two prices, shape (T,), are equal at the steps for which a program was written, and at no others."""
        blocks = [b for b in program.variables if b.name == "source.sell" and self.name in b.elements]
        return all(bool(np.array_equal(program.ub[b.cells] == 0.0, buy == sell)) for b in blocks)

    @classmethod
    def _limit(
        cls, source: Self, what: str, total: Affine, export: FloatArray, bought: FloatArray, ctx: DeviceContext
    ) -> None:
        """``-export <= total <= bought``, kW or kvar, shape (T,)."""
        low, high = -export / ctx.base.total_kva, bought / ctx.base.total_kva
        stated = np.abs(np.concatenate([low, high]))
        stated = stated[np.isfinite(stated)]
        if stated.size:
            ctx.builder.between(
                "source",
                f"{what}_limit",
                [source.name],
                low[None],
                total,
                high[None],
                unit="kW" if what == "p" else "kvar",
                to_unit=ctx.base.total_kva,
                scale=float(stated.max()) or 1.0,
            )

    @classmethod
    def _limit_apparent(cls, source: Self, p: Affine, q: Affine, ctx: DeviceContext) -> None:
        """``p^2 + q^2 <= s_max^2`` at the steps that have a limit."""
        s_max = ctx.series(source.s_max_kva) / ctx.base.total_kva
        steps = np.flatnonzero(np.isfinite(s_max))
        if not len(steps):
            return
        square = s_max[steps][None] ** 2
        ctx.builder.product(
            "source",
            "s_limit",
            [source.name],
            [p.at_steps(steps), q.at_steps(steps)],
            Affine.constant(square),
            Affine.constant(np.ones_like(square)),
            unit="kVA",
            to_unit=ctx.base.total_kva,
            scale=np.maximum(square, 1e-12),
            limit=True,
        )

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """Sources with the new prices and voltage."""
        out = []
        for k, source in enumerate(group):
            fields = {
                "price_import": ("source.price_import", k),
                "price_export": (f"source.price_export.{source.name}", 0),
                "v_pu": ("source.v_pu_sq", k),
            }
            changes: dict[str, str] = {}
            for field, (slot, row) in fields.items():
                if slot in values:
                    rows = np.atleast_2d(np.asarray(values[slot], dtype=float))
                    new = np.broadcast_to(rows, (row + 1 if len(rows) == 1 else len(rows), n_steps))[row]
                    name = f"source.{field}:{source.name}"
                    profiles[name] = np.sqrt(new) if field == "v_pu" else new.copy()
                    changes[field] = name
            out.append(dataclasses.replace(source, **changes) if changes else source)  # type: ignore[arg-type]
        return out
