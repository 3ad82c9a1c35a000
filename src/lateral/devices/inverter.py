"""What PV systems and batteries share: an inverter that may act phase by phase, and a reactive power that may follow
the voltage (IEEE 1547-2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lateral.devices.base import PHASES, BoolArray, DeviceContext, DevicePorts, ShuntDevice, column
from lateral.network.schema import FloatArray, IntArray, spec
from lateral.program import Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class Inverter(ShuntDevice):
    """Base of devices behind an inverter of ``s_max_kva``; never instantiated."""

    phases: str = spec(
        "balanced: power divides equally over its ports; free: it is decided at each, within its share of s_max_kva.",
        default="balanced",
        choices=PHASES,
    )
    volt_var_v_pu: tuple[float, ...] = spec(
        "Voltages of the points of q_control volt_var, on v_rated_kv, ascending (IEEE 1547-2018, category B).",
        unit="pu",
        default=(0.92, 0.98, 1.02, 1.08),
        above=0.0,
    )
    volt_var_q_pu: tuple[float, ...] = spec(
        "Reactive power given at these points, per unit of s_max_kva; constant beyond the first and the last.",
        unit="pu",
        default=(0.44, 0.0, 0.0, -0.44),
        minimum=-1.0,
        maximum=1.0,
    )
    volt_var_reference: str = spec(
        "What the values of volt_var are per unit of. rating: s_max_kva; available: what p leaves of it, "
        "sqrt(s_max^2 - p^2).",
        default="rating",
        choices=("rating", "available"),
    )
    volt_var_q_max_pu: float = spec(
        "Most reactive power of volt_var, per unit of s_max_kva.", unit="pu", default=1.0, minimum=0.0, maximum=1.0
    )
    curve_voltage: str = spec(
        "Voltage that curves are read at. port: each its own; mean: of all phases to ground, one for all ports.",
        default="port",
        choices=("port", "mean"),
    )

    @property
    def sensed(self) -> tuple[int, ...]:
        """Conductors whose voltages to ground are averaged with ``curve_voltage = "mean"``."""
        return tuple(self.terminals[:-1] if self.connection == "wye" else self.terminals)

    @property
    def sensed_kv(self) -> float | None:
        """Rated voltage of these to ground, kV; None where it is the bus base."""
        rated: float | None = getattr(self, "v_rated_kv", None)
        return rated if rated is None or self.connection == "wye" else rated / float(np.sqrt(3.0))

    @property
    def senses_mean(self) -> bool:
        """Whether the voltage that its curves are read at is another one than that of its port."""
        return self.curve_voltage == "mean" and self.ports != tuple((c, 0) for c in self.sensed[:1])

    @property
    def p_share(self) -> float:
        """Most active power over s_max: what the largest reactive power of its curve, or its power factor, leaves."""
        q_control = getattr(self, "q_control", "free")
        if q_control == "volt_var":
            if self.volt_var_reference == "available" or getattr(self, "volt_var_priority", "reserved") != "reserved":
                return 1.0
            most = min(max(abs(q) for q in self.volt_var_q_pu), self.volt_var_q_max_pu)
            return float(np.sqrt(max(1.0 - most**2, 0.0)))
        factor = abs(getattr(self, "power_factor", 1.0))
        return factor if q_control == "power_factor" and factor else 1.0


def by_device(group: Sequence[Inverter], name: str, value: str) -> BoolArray:
    """Which devices have a word in a field, shape (n,)."""
    return np.array([getattr(d, name) == value for d in group], dtype=bool)


def free_phases(group: Sequence[Inverter], where: DevicePorts) -> BoolArray:
    """Which devices decide at each of several ports, shape (n,)."""
    return by_device(group, "phases", "free") & (np.bincount(where.owner, minlength=len(group)) > 1)


def at_each_port(
    kind: str,
    group: Sequence[Inverter],
    where: DevicePorts,
    at: IntArray,
    ctx: DeviceContext,
    *,
    p_low: FloatArray,
    p_high: FloatArray,
    q_high: FloatArray,
    tangent: FloatArray,
) -> tuple[Affine, Affine]:
    """p and q of the ports ``at`` as decisions, of shape (len(at), T), each within its share of the rating.

    ::

        p_low <= p_k <= p_high,    q_k = p_k tan(acos(pf)),  0,  or |q_k| <= q_high with  p_k^2 + q_k^2 <= (s_max / n)^2

    Args:
        kind: the kind of the devices.
        group: the devices.
        where: their ports.
        at: the ports that decide.
        ctx: the context.
        p_low, p_high: bounds of a device's p, pu, shape (n, 1); its ports have equal shares.
        q_high: bound of a device's |q|, pu, shape (n, 1); 0 where q is no decision.
        tangent: q over p, shape (n,).
    """
    builder, kva = ctx.builder, ctx.base.total_kva
    owner, share = where.owner[at], where.share[at].reshape(-1, 1)
    every = where.names(group)
    names = [every[k] for k in at.tolist()]
    s = column(group, "s_max_kva")[owner] / kva * share

    def variable(quantity: str, unit: str, named: list[str], low: FloatArray, high: FloatArray) -> Affine:
        scale = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-9)
        return builder.variable(
            f"{kind}_port", quantity, named, unit=unit, to_unit=kva, lower=low, upper=high, scale=scale, limit=False
        )

    p = variable("p_decided", "kW", names, p_low[owner] * share, p_high[owner] * share)
    q = p * tangent[owner].reshape(-1, 1)
    own = np.flatnonzero(q_high[owner, 0] > 0.0)
    if len(own):
        most = (q_high[owner] * share)[own]
        given = variable("q_decided", "kvar", [names[k] for k in own.tolist()], -most, most)
        q = q + given.map_terms(len(at), own, np.arange(len(own)), np.ones(len(own)))
    disc = np.flatnonzero((q_high[owner, 0] > 0.0) & by_device(group, "limit", "disc")[owner])
    if len(disc):
        s_sq = s[disc] ** 2
        builder.product(
            f"{kind}_port",
            "s_limit",
            [names[k] for k in disc.tolist()],
            [p.take(disc), q.take(disc)],
            Affine.constant(np.repeat(s_sq, ctx.n_steps, axis=1)),
            Affine.constant(np.ones((len(disc), ctx.n_steps))),
            unit="kVA",
            to_unit=kva,
            scale=np.maximum(s_sq, 1e-18),
        )
    return p, q


__all__ = [
    "Inverter",
    "at_each_port",
    "by_device",
    "free_phases",
]
