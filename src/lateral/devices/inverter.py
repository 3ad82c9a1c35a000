"""What PV systems and batteries share: an inverter that may act phase by phase, and a reactive power that may follow
the voltage (IEEE 1547-2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lateral.devices.base import PHASES, BoolArray, DeviceContext, DevicePorts, ShuntDevice, column
from lateral.network.schema import FloatArray, IntArray, spec
from lateral.program import Affine, Bends, OfRoot
from lateral.program.ports import Ports

#: Over this much voltage the corners of an inverter's curve are rounded, pu.
ROUNDING_PU = 1e-3


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

    @property
    def p_share(self) -> float:
        """Most active power over s_max: what the largest reactive power of its curve, or its power factor, leaves."""
        q_control = getattr(self, "q_control", "free")
        if q_control == "volt_var":
            return float(np.sqrt(max(1.0 - max(abs(q) for q in self.volt_var_q_pu) ** 2, 0.0)))
        factor = abs(getattr(self, "power_factor", 1.0))
        return factor if q_control == "power_factor" and factor else 1.0


def by_device(group: Sequence[Inverter], name: str, value: str) -> BoolArray:
    """Which devices have a word in a field, shape (n,)."""
    return np.array([getattr(d, name) == value for d in group], dtype=bool)


def free_phases(group: Sequence[Inverter], where: DevicePorts) -> BoolArray:
    """Which devices decide at each of several ports, shape (n,)."""
    return by_device(group, "phases", "free") & (np.bincount(where.owner, minlength=len(group)) > 1)


def curve_of(points: Sequence[tuple[Sequence[float], Sequence[float]]], ratio: FloatArray) -> OfRoot:
    """Piecewise linear curves of the voltage as functions of ``|U|^2`` on the bus base.

    Args:
        points: voltages, pu of the rated voltage, and values of each curve.
        ratio: bus base over rated voltage, shape (n,).
    """
    most = max(len(v) for v, _ in points)
    at, values = np.zeros((len(points), most)), np.zeros((len(points), most))
    for k, (v, y) in enumerate(points):
        more = np.arange(1, most - len(v) + 1)  # beyond the last point the curve stays where it is
        at[k] = np.concatenate([v, v[-1] + more])
        values[k] = np.concatenate([y, np.full(len(more), y[-1])])
    scale = ratio.reshape(-1, 1)
    return OfRoot(Bends(at / scale, values, ROUNDING_PU / scale))


def say_where(group: Sequence[Inverter], where: DevicePorts, at: IntArray, what: str, ctx: DeviceContext) -> None:
    """Note where curves are taken as the piece at the operating point, and at which voltages that is."""
    if ctx.net.reads_curves:
        return
    u = ctx.net.reference_v(Ports(where.ports.a[at], where.ports.b[at])) * ctx.base_over_rated(group, where)[at, None]
    count = len(np.unique(where.owner[at]))
    some = f"{count} device{'' if count == 1 else 's'}"
    ctx.notes.append(
        f"{group[0].kind}: {what} of {some} is the piece of its curve at the operating point, {u.min():.4f} to "
        f"{u.max():.4f} pu"
    )


def volt_var(group: Sequence[Inverter], where: DevicePorts, at: IntArray, ctx: DeviceContext) -> Affine:
    """Reactive power of the ports ``at`` by the curve of their device, pu, shape (len(at), T)."""
    owner = where.owner[at]
    ratio = ctx.base_over_rated(group, where)[at]
    curve = curve_of([(group[k].volt_var_v_pu, group[k].volt_var_q_pu) for k in owner.tolist()], ratio)
    rating = column(group, "s_max_kva")[owner] / ctx.base.total_kva * where.share[at].reshape(-1, 1)
    return ctx.net.curve_of_v(Ports(where.ports.a[at], where.ports.b[at]), curve) * rating


def with_volt_var(
    group: Sequence[Inverter],
    where: DevicePorts,
    q_port: Affine,
    ctx: DeviceContext,
) -> Affine:
    """The reactive power of the ports, with that of the devices that follow a curve added."""
    following = by_device(group, "q_control", "volt_var")
    at = np.flatnonzero(following[where.owner])
    if not len(at):
        return q_port
    say_where(group, where, at, "volt_var", ctx)
    given = volt_var(group, where, at, ctx)
    return q_port + given.map_terms(len(where.owner), at, np.arange(len(at)), np.ones(len(at)))


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
    "curve_of",
    "free_phases",
    "volt_var",
    "with_volt_var",
]
