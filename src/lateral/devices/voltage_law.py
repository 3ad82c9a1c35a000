"""The laws by which an inverter follows the voltage (IEEE 1547-2018), as numbers and as rows of a program.

The same functions say what it does in the power flow (`lateral.following`), so that both have one law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lateral.devices.base import BoolArray, DeviceContext, DevicePorts, column
from lateral.devices.inverter import Inverter
from lateral.network.schema import FloatArray, IntArray
from lateral.program import Affine, Bends, Circle, Curve, OfRoot
from lateral.program.ports import Ports

#: Over this much voltage the corners of an inverter's curve are rounded, pu.
ROUNDING_PU = 1e-3
#: Over this share of the rating the corner is rounded where power meets a limit, and what is left for q at p = s_max.
ROUNDING_SHARE = 1e-3
#: How much more than the rating p is taken for where the sun offers it: then what q leaves is on no corner.
SPARE_SHARE = 4e-3
#: How far a limit of p that falls with the voltage is followed above its first value, where it acts on no p.
ABOVE = 0.2

Points = tuple[tuple[float, ...], tuple[float, ...]]


def var_points(d: Inverter) -> Points:
    """Points of the volt-var curve of a device; per unit of s_max_kva no further than its limit of kvar."""
    if d.volt_var_reference == "available":
        return d.volt_var_v_pu, d.volt_var_q_pu
    return _clipped(d.volt_var_v_pu, d.volt_var_q_pu, d.volt_var_q_max_pu)


def _clipped(v: Sequence[float], y: Sequence[float], most: float) -> Points:
    """A piecewise linear curve held within ``-most ... most``: with a point where it meets a limit."""
    at = set(v)
    for (v0, y0), (v1, y1) in zip(zip(v, y, strict=True), zip(v[1:], y[1:], strict=True), strict=False):
        at |= {v0 + (side - y0) / (y1 - y0) * (v1 - v0) for side in (-most, most) if (y0 - side) * (y1 - side) < 0.0}
    points = sorted(at)
    return tuple(points), tuple(np.clip(np.interp(points, v, y), -most, most).tolist())


def falling(points: Points) -> Points:
    """A volt-watt curve that is followed up to `ABOVE` more than its first value, where it holds a p that is no more
    than that: then no such p lies on a corner as long as the voltage is low."""
    v, p = points
    k = next((k for k in range(len(p) - 1) if p[k + 1] < p[k]), None)
    if k is None:
        return v, tuple(y + ABOVE for y in p)
    width = min(ABOVE * (v[k + 1] - v[k]) / (p[k] - p[k + 1]), 0.5 * v[k])
    return (v[k] - width, *v[k + 1 :]), (p[k] + width * (p[k] - p[k + 1]) / (v[k + 1] - v[k]), *p[k + 1 :])


def bends(points: Sequence[Points], ratio: FloatArray) -> Bends:
    """Piecewise linear curves of the voltage on the bus base.

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
    return Bends(at / scale, values, ROUNDING_PU / scale)


def below_zero(size: FloatArray) -> Bends:
    """``min(x, 0)`` with a rounded corner, of quantities of some size, shape (n, 1)."""
    far, none = -1e3 * size, np.zeros_like(size)
    return Bends(np.hstack([far, none]), np.hstack([far, none]), ROUNDING_SHARE * size)


def within(most: FloatArray, size: FloatArray) -> Bends:
    """A quantity held within ``-most ... most``, shape (n, 1), with rounded corners."""
    both = np.hstack([-most, most])
    return Bends(both, both, np.minimum(ROUNDING_SHARE * size, 0.5 * most))


def room(s: FloatArray) -> Circle:
    """What p leaves of ratings for q, shape (n, 1)."""
    return Circle(s, ROUNDING_SHARE)


@dataclass(frozen=True, slots=True, eq=False)
class LawPorts:
    """Ports of devices that follow a curve.

    Attributes:
        kind: kind of the devices.
        group: the devices.
        where: all of their ports.
        at: those that follow.
        ctx: the context.
    """

    kind: str
    group: Sequence[Inverter]
    where: DevicePorts
    at: IntArray
    ctx: DeviceContext

    @property
    def owner(self) -> IntArray:
        """Device of each port that follows."""
        return self.where.owner[self.at]

    @property
    def names(self) -> list[str]:
        """Names of the ports."""
        every = self.where.names(self.group)
        return [every[k] for k in self.at.tolist()]

    @property
    def s(self) -> FloatArray:
        """Share of the rating at each port, pu, shape (m, 1)."""
        share = self.where.share[self.at].reshape(-1, 1)
        return np.asarray(column(self.group, "s_max_kva")[self.owner] * share / self.ctx.base.total_kva)

    def of(self, rows: IntArray) -> LawPorts:
        """Some of these ports."""
        return LawPorts(self.kind, self.group, self.where, self.at[rows], self.ctx)

    def say_where(self, what: str) -> None:
        """Note where curves are taken as the piece at the operating point, and at which voltages that is."""
        ctx = self.ctx
        if ctx.net.reads_curves:
            return
        u = self._reference()
        count = len(np.unique(self.owner))
        some = f"{count} device{'' if count == 1 else 's'}"
        ctx.notes.append(
            f"{self.kind}: {what} of {some} is the piece of its curve at the operating point, {u.min():.4f} to "
            f"{u.max():.4f} pu"
        )

    def curve(self, quantity: str, points: Sequence[Points]) -> tuple[Affine, FloatArray]:
        """Curves of the voltage that each port goes by, shape (m, T), and what they are at the operating point.

        Args:
            quantity: what the curve gives.
            points: points of each device's curve.
        """
        mean = np.array([d.senses_mean for d in self.group], dtype=bool)[self.owner]
        ratio = self.ctx.base_over_rated(self.group, self.where)[self.at]
        out, now = Affine.zeros(len(self.at), self.ctx.n_steps), np.zeros((len(self.at), self.ctx.n_steps))
        own = np.flatnonzero(~mean)
        if len(own):
            ports = self._ports(own)
            curve = OfRoot(bends([points[k] for k in self.owner[own].tolist()], ratio[own]))
            y = self.ctx.net.curve_of_v(ports, curve)
            out = out + y.map_terms(len(self.at), own, np.arange(len(own)), np.ones(len(own)))
            now[own] = curve.value(self.ctx.net.reference_v(ports) ** 2)
        sensing = np.unique(self.owner[mean])
        if len(sensing):
            y, at_point = self._of_mean(quantity, sensing, points)
            rows = np.flatnonzero(mean)
            place = np.searchsorted(sensing, self.owner[rows])
            out = out + y.map_terms(len(self.at), rows, place, np.ones(len(rows)))
            now[rows] = at_point[place]
        return out, now

    def _ports(self, rows: IntArray) -> Ports:
        return Ports(self.where.ports.a[self.at[rows]], self.where.ports.b[self.at[rows]])

    def _sensed(self, sensing: IntArray) -> tuple[Ports, IntArray, FloatArray]:
        """Conductors to ground of devices that go by a mean; which device each is of; its weight, base over rated."""
        net, nodes, of = self.ctx.net, [], []
        for k, d in enumerate(sensing.tolist()):
            device = self.group[d]
            nodes += [net.node(device.bus, c) for c in device.sensed]
            of += [k] * len(device.sensed)
        a, owner = np.array(nodes, dtype=np.int64), np.array(of, dtype=np.int64)
        base = net.base_kv(a)
        rated = np.array([self.group[k].sensed_kv or np.nan for k in sensing.tolist()])[owner]
        return Ports(a, np.full(len(a), -1)), owner, base / np.where(np.isnan(rated), base, rated)

    def _of_mean(self, quantity: str, sensing: IntArray, points: Sequence[Points]) -> tuple[Affine, FloatArray]:
        """Curves of mean voltages, shape (devices, T), and what they are at the operating point."""
        ctx, n = self.ctx, len(sensing)
        ports, owner, ratio = self._sensed(sensing)
        weight = ratio / np.bincount(owner)[owner]
        v = ctx.net.reference_v(ports)
        v = np.broadcast_to(v, (len(ports), ctx.n_steps))
        each = np.arange(len(ports))
        mean = np.zeros((n, ctx.n_steps))
        np.add.at(mean, owner, weight.reshape(-1, 1) * v)
        curve = bends([points[k] for k in sensing.tolist()], np.ones(n))
        now = curve.value(mean)
        if ctx.net.reads_curves:
            u = ctx.net.power_of_v(ports, np.ones(len(ports)))
            names = [self.group[k].name for k in sensing.tolist()]
            m = ctx.builder.defined(self.kind, f"{quantity}_v", names, u.map_terms(n, owner, each, weight), unit="pu")
            return _curve(ctx, self.kind, f"{quantity}_pu", names, m, curve), now
        ctx.builder.first_order.add("curves of the voltage are taken to first order")
        w = ctx.net.power_of_v(ports, np.full(len(ports), 2.0))
        moved = (w - v**2) * (0.5 / np.maximum(v, 1e-3))
        return moved.map_terms(n, owner, each, weight) * curve.slope(mean) + now, now

    def _reference(self) -> FloatArray:
        """Voltages at the operating point, pu of the rated one, that the curves are read at."""
        mean = np.array([d.senses_mean for d in self.group], dtype=bool)[self.owner]
        ratio = self.ctx.base_over_rated(self.group, self.where)[self.at]
        rows = np.flatnonzero(~mean)
        u = [self.ctx.net.reference_v(self._ports(rows)) * ratio[rows, None]] if len(rows) else []
        sensing = np.unique(self.owner[mean])
        if len(sensing):
            ports, owner, scale = self._sensed(sensing)
            v = self.ctx.net.reference_v(ports) * scale.reshape(-1, 1)
            total = np.zeros((len(sensing), v.shape[1]))
            np.add.at(total, owner, v)
            u.append(total / np.bincount(owner).reshape(-1, 1))
        return np.concatenate([part.ravel() for part in u])

    def bent(self, quantity: str, z: Affine, now: FloatArray, curve: Curve, *, unit: str) -> Affine:
        """``phi(z)`` of powers of the ports: exact where the formulation writes curves, else first order at ``now``."""
        ctx = self.ctx
        if ctx.net.reads_curves:
            to_unit, size = ctx.base.total_kva, np.maximum(self.s, 1e-9)
            z = ctx.builder.defined(
                f"{self.kind}_port", f"{quantity}_unlimited", self.names, z, unit=unit, to_unit=to_unit, scale=size
            )
            return _curve(ctx, f"{self.kind}_port", quantity, self.names, z, curve, unit=unit, scale=size)
        ctx.builder.bake(z)  # ``now`` is of the present data
        return (z - now) * curve.slope(now) + curve.value(now)


def _curve(
    ctx: DeviceContext,
    component: str,
    quantity: str,
    names: list[str],
    z: Affine,
    curve: Curve,
    *,
    unit: str = "pu",
    scale: float | FloatArray = 1.0,
) -> Affine:
    """New variables ``y = phi(z)``."""
    start = curve.value(ctx.builder.at_start(z))
    to_unit = 1.0 if unit == "pu" else ctx.base.total_kva
    y = ctx.builder.variable(
        component, quantity, names, unit=unit, to_unit=to_unit, start=start, scale=scale, limit=False
    )
    ctx.builder.curve(component, quantity, names, y, z, curve)
    return y


def with_volt_var(
    kind: str,
    group: Sequence[Inverter],
    where: DevicePorts,
    ctx: DeviceContext,
    p_port: Affine,
    q_port: Affine,
    *,
    left: Affine,
    p_now: Affine,
    moves: BoolArray,
    q_last: BoolArray | None = None,
    on: Affine | None = None,
) -> tuple[Affine, FloatArray]:
    """The reactive power of the ports, with that of the devices that follow a curve added::

        q = s f(u)                       of the rating
        q = sqrt(s^2 - p^2) f(u)         of what p leaves of it, no more than volt_var_q_max_pu

    Args:
        kind: kind of the devices.
        group: the devices.
        where: their ports.
        ctx: the context.
        p_port, q_port: power of all ports, shape (ports, T).
        left: what p leaves of each device's rating where it is no decision, data, pu, shape (devices, T).
        p_now: p of each port at the operating point, data, pu, shape (ports, T).
        moves: whether p of a device is decided, or follows the voltage, shape (devices,).
        q_last: whether a q of the rating gives way to p, shape (devices,); absent: none does.
        on: 1 where a device follows its curve, 0 where its q is none, data, shape (devices, T); absent: always.

    Returns:
        q of all ports, and what curves give of it at the operating point, shape (ports, T) each.
    """
    every = np.zeros((len(where.owner), ctx.n_steps))
    follows = np.array([getattr(d, "q_control", "") == "volt_var" for d in group], dtype=bool)
    at = np.flatnonzero(follows[where.owner])
    if not len(at):
        return q_port, every
    law = LawPorts(kind, group, where, at, ctx)
    law.say_where("volt_var")
    y, y_now = law.curve("volt_var", [var_points(d) for d in group])
    available = np.array([d.volt_var_reference == "available" for d in group], dtype=bool)[law.owner]
    gives_way = np.zeros(len(at), dtype=bool) if q_last is None else q_last[law.owner]
    size = law.s * (~available).reshape(-1, 1)
    q, now = y * size, y_now * size
    by_day = np.array([not getattr(d, "volt_var_at_night", True) for d in group], dtype=bool)[law.owner]
    acts = on.take(law.owner) if on is not None and np.any(by_day) else None
    if acts is not None:
        q, now = q.times_parameter(acts), now * ctx.builder.present(acts)
    for rows in (np.flatnonzero(available), np.flatnonzero(gives_way)):
        if not len(rows):
            continue
        some = law.of(rows)
        leaves, leaves_now = _left(some, p_port, p_now, left, moves)
        if available[rows[0]]:
            given, given_now = _product(some, y.take(rows), leaves, y_now[rows], leaves_now, moves)
            given, given_now = _limited(some, given, given_now)
            if acts is not None and np.any(by_day[rows]):
                given, given_now = _only_where(some, given, given_now, acts.take(rows))
        else:
            given = _cut_to(some, q.take(rows), leaves, now[rows], leaves_now)
            given_now = np.clip(now[rows], -leaves_now, leaves_now) - now[rows]
        q = q + given.map_terms(len(at), rows, np.arange(len(rows)), np.ones(len(rows)))
        now[rows] += given_now
    every[at] = now
    return q_port + q.map_terms(len(where.owner), at, np.arange(len(at)), np.ones(len(at))), every


def _left(law: LawPorts, p_port: Affine, p_now: Affine, left: Affine, moves: BoolArray) -> tuple[Affine, FloatArray]:
    """What p leaves of the rating of ports, and what it is at the operating point, shape (m, T) each: data where p is
    no decision, else a curve of it where the formulation writes curves, else what it is at the operating point."""
    ctx, n = law.ctx, len(law.at)
    out, now = Affine.zeros(n, ctx.n_steps), np.zeros((n, ctx.n_steps))
    still, moved = np.flatnonzero(~moves[law.owner]), np.flatnonzero(moves[law.owner])
    if len(still):
        data = law.where.spread(left).take(law.at[still])
        out = out + data.map_terms(n, still, np.arange(len(still)), np.ones(len(still)))
        now[still] = ctx.builder.present(data)
    if len(moved):
        some = law.of(moved)
        size = np.maximum(some.s, 1e-9)
        p_at = ctx.builder.present(p_now.take(some.at))
        now[moved] = room(size).value(p_at)
        given = Affine.constant(now[moved])
        if ctx.net.reads_curves:
            given = some.bent("q_room", p_port.take(some.at), p_at, room(size), unit="kvar")
        else:
            ctx.builder.bake(p_now.take(some.at))
            ctx.builder.first_order.add("what active power leaves for kvar is that of the operating point")
        out = out + given.map_terms(n, moved, np.arange(len(moved)), np.ones(len(moved)))
    return out, now


def _product(
    law: LawPorts, y: Affine, leaves: Affine, y_now: FloatArray, leaves_now: FloatArray, moves: BoolArray
) -> tuple[Affine, FloatArray]:
    """``y r`` of ports, r what p leaves, and what it is at the operating point."""
    ctx, n, now = law.ctx, len(law.at), y_now * leaves_now
    variable = moves[law.owner] & ctx.net.reads_curves
    still, moved = np.flatnonzero(~variable), np.flatnonzero(variable)
    q = Affine.zeros(n, ctx.n_steps)
    if len(still):
        given = y.take(still).times_parameter(leaves.take(still))
        q = q + given.map_terms(n, still, np.arange(len(still)), np.ones(len(still)))
    if len(moved):
        some = law.of(moved)
        given = ctx.builder.defined(
            f"{law.kind}_port",
            "volt_var_q",
            some.names,
            Affine.zeros(len(moved), ctx.n_steps),
            [(y.take(moved), leaves.take(moved))],
            unit="kvar",
            to_unit=ctx.base.total_kva,
            scale=np.maximum(some.s, 1e-9),
        )
        q = q + given.map_terms(n, moved, np.arange(len(moved)), np.ones(len(moved)))
    return q, now


def _only_where(law: LawPorts, q: Affine, now: FloatArray, acts: Affine) -> tuple[Affine, FloatArray]:
    """q of ports where they act, else none; and likewise at the operating point."""
    size = np.maximum(law.s, 1e-9)
    if law.ctx.net.reads_curves:
        to_unit = law.ctx.base.total_kva
        q = law.ctx.builder.defined(
            f"{law.kind}_port", "volt_var_by_day", law.names, q, unit="kvar", to_unit=to_unit, scale=size
        )
        return q.times_parameter(acts), now * law.ctx.builder.present(acts)
    law.ctx.builder.bake(acts)
    held = law.ctx.builder.present(acts)
    return q * held, now * held


def _cut_to(law: LawPorts, q: Affine, leaves: Affine, q_now: FloatArray, leaves_now: FloatArray) -> Affine:
    """What q has to change to be within ``-r ... r``, r what p leaves, with rounded corners::

    min(r - q, 0) - min(r + q, 0)
    """
    corner = below_zero(np.maximum(law.s, 1e-9))
    above = law.bent("q_above", leaves - q, leaves_now - q_now, corner, unit="kvar")
    return above - law.bent("q_below", leaves + q, leaves_now + q_now, corner, unit="kvar")


def limit_by_q(
    kind: str,
    group: Sequence[Inverter],
    where: DevicePorts,
    ctx: DeviceContext,
    p_port: Affine,
    q_port: Affine,
    which: BoolArray,
) -> None:
    """Rows ``p_k^2 + q_k^2 <= s_k^2`` of the ports of some devices, whose p is decided; arguments as below."""
    at = np.flatnonzero(which[where.owner])
    if not len(at):
        return
    law = LawPorts(kind, group, where, at, ctx)
    ones = np.ones((len(at), ctx.n_steps))
    ctx.builder.product(
        f"{kind}_port",
        "s_of_q",
        law.names,
        [p_port.take(at), q_port.take(at)],
        Affine.constant(law.s**2 * ones),
        Affine.constant(ones),
        unit="kVA",
        to_unit=ctx.base.total_kva,
        scale=np.maximum(law.s**2, 1e-18),
    )


def with_p_last(
    kind: str,
    group: Sequence[Inverter],
    where: DevicePorts,
    ctx: DeviceContext,
    p_port: Affine,
    q_port: Affine,
    over: Affine,
    p_now: FloatArray,
    q_now: FloatArray,
    which: BoolArray,
) -> Affine:
    """p of the ports where it gives way to a q that follows its curve, ``min(p, sqrt(s^2 - q^2))``.

    Args:
        kind: kind of the devices.
        group: the devices.
        where: their ports.
        ctx: the context.
        p_port, q_port: power of all ports, shape (ports, T).
        over: what is added to p at each port, see `PV.over_kw`, data, pu, shape (ports, T).
        p_now, q_now: p and q of each port at the operating point, pu, shape (ports, T).
        which: the devices, shape (devices,).
    """
    at = np.flatnonzero(which[where.owner])
    if not len(at):
        return p_port
    law = LawPorts(kind, group, where, at, ctx)
    size = np.maximum(law.s, 1e-9)
    offered = p_port.take(at) + over.take(at)
    leaves = law.bent("p_room", q_port.take(at), q_now[at], room(size), unit="kW")
    now = room(size).value(q_now[at]) - p_now[at] - ctx.builder.present(over.take(at))
    p = over.take(at) + law.bent("p_beyond", leaves - offered, now, below_zero(size), unit="kW")
    return p_port + p.map_terms(len(where.owner), at, np.arange(len(at)), np.ones(len(at)))


def _limited(law: LawPorts, q: Affine, now: FloatArray) -> tuple[Affine, FloatArray]:
    """q within the limit of kvar of its device, where that is less than the rating, and likewise at the point."""
    share = np.array([d.volt_var_q_max_pu for d in law.group])[law.owner]
    held = np.flatnonzero(share < 1.0)
    if not len(held):
        return q, now
    some = law.of(held)
    most = np.maximum(some.s * share[held].reshape(-1, 1), 1e-12)
    limit = within(most, np.maximum(some.s, 1e-9))
    given = some.bent("volt_var_limited", q.take(held), now[held], limit, unit="kvar")
    free = q * (share >= 1.0).astype(float).reshape(-1, 1)
    now = now.copy()
    now[held] = limit.value(now[held])
    return free + given.map_terms(len(law.at), held, np.arange(len(held)), np.ones(len(held))), now


__all__ = [
    "ABOVE",
    "ROUNDING_PU",
    "ROUNDING_SHARE",
    "SPARE_SHARE",
    "LawPorts",
    "Points",
    "below_zero",
    "bends",
    "falling",
    "limit_by_q",
    "room",
    "var_points",
    "with_p_last",
    "with_volt_var",
    "within",
]
