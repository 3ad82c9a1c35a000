"""Inverters whose power follows the voltage, in the power flow: a fixed point around its solution.

With z the p and q of the ports that follow, u(z) the voltages of the power flow in which they give z, and f their
curves, the fixed point ``z = f(u(z))`` is found by Anderson's mixing (Anderson 1965), each step on its own::

    z <- z + r - (dZ + dR) gamma,   r = f(u(z)) - z,   gamma = argmin |r - dR gamma|     over the last few iterations

A step that does not settle is reported as not converged: no other answer is made up for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lateral.devices.base import BoolArray
from lateral.devices.inverter import Inverter
from lateral.devices.pv import PV
from lateral.devices.voltage_law import Points, below_zero, bends, room, var_points, within
from lateral.network.admittance import NodeIndex
from lateral.network.powerflow import PortLoads, PowerFlow
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Bends

#: A port has settled when its power is this near to its curve, per unit of its share of the rating.
SETTLED = 2e-7
#: Power flows until a step is given up, and points remembered.
MOST, DEPTH = 60, 6
#: Ratings below this count as this where a share of them is taken, kVA.
TINY_KVA = 1e-9


@dataclass(frozen=True, eq=False)
class Followers:
    """The ports that follow a curve.

    Attributes:
        rows: rows of these ports among the port loads, shape (m,).
        sensed: the voltages that the curves are read at, as sums of voltages across pairs of nodes: port, first node,
            second node (-1 for ground), each of shape (k,).
        weight: weight of each of these, 1/V, shape (k,).
        var, watt: curves of u, per unit of the rated voltage: q per unit of ``s_kva``, most p per unit of ``p_kw``.
        s_kva: share of the inverter at the port where q follows, else 0, shape (m,).
        p_kw: share of the rated power where p is limited by its curve, else inf, shape (m,).
        offered_kw: active power given without a limit, shape (m, T).
        over_kw: what is added to p where it gives way, see `PV.over_kw`, shape (m, T).
        law: whether p is the lesser of both with a rounded corner, as in a program, shape (m, 1).
        left: whether q is per unit of what p leaves of the rating, shape (m, 1).
        dark: whether q is none, as the sun offers nothing, shape (m, T).
        moves: whether p is decided or follows in a program, which rounds what it leaves, shape (m, 1).
        q_share: most of q, per unit of ``s_kva``, shape (m, 1).
        tangent: q over p where a power factor is held, shape (m, 1).
        q_last, p_last: whether q, or p, gives way where both are more than the rating, shape (m, 1).
    """

    rows: IntArray
    sensed: tuple[IntArray, IntArray, IntArray]
    weight: FloatArray
    var: Bends
    watt: Bends
    s_kva: FloatArray
    p_kw: FloatArray
    offered_kw: FloatArray
    over_kw: FloatArray
    law: BoolArray
    left: BoolArray
    dark: BoolArray
    moves: BoolArray
    q_share: FloatArray
    tangent: FloatArray
    q_last: BoolArray
    p_last: BoolArray

    @classmethod
    def of(
        cls,
        devices: Sequence[Inverter],
        rows: Sequence[IntArray],
        loads: PortLoads,
        sun_kw: Sequence[FloatArray],
        n_phases: int,
        index: NodeIndex,
    ) -> Followers:
        """The ports of some devices.

        Args:
            devices: inverters that follow a curve, in p or q.
            rows: rows of each device's ports among the port loads.
            loads: the port loads, with what the devices would give without a limit (drawn: negative).
            sun_kw: what the sun offers each device before any limit, none of a battery, kW, shape (T,) each.
            n_phases: how many conductors a modelled conductor stands for.
            index: nodes of the network.
        """
        at = np.concatenate([np.asarray(r, dtype=np.int64) for r in rows])
        owner = np.repeat(np.arange(len(devices)), [len(r) for r in rows])
        share = np.array([1.0 / (len(r) * n_phases) for r in rows])[owner]
        s = np.array([d.s_max_kva if follows_q(d) else 0.0 for d in devices])[owner] * share  # type: ignore[attr-defined]
        p = np.array([d.p_rated_kw if isinstance(d, PV) and d.volt_watt else np.inf for d in devices])[owner] * share
        flat: Points = ((1.0, 1.1), (1.0, 1.0))
        watt = [d.watt_points if isinstance(d, PV) and d.volt_watt else flat for d in devices]
        var = [var_points(d) for d in devices]
        own = owner.tolist()

        def each(of: Sequence[Any]) -> Any:
            return np.array(of)[owner].reshape(-1, 1)

        pvs = [d if isinstance(d, PV) else None for d in devices]
        over = [d.over_kw([d], x[None])[0] if d else x for d, x in zip(pvs, sun_kw, strict=True)]
        on = [d.volt_var_on([d], x[None])[0] if d else x + 1.0 for d, x in zip(pvs, sun_kw, strict=True)]
        one = np.ones(len(at))
        places, weight = _sensed(devices, owner, at, loads, index)
        return cls(
            rows=at,
            sensed=places,
            weight=weight,
            var=bends([var[k] for k in own], one),
            watt=bends([watt[k] for k in own], one),
            s_kva=s,
            p_kw=p,
            offered_kw=-loads.p_kw[at],
            over_kw=np.array(over)[owner] * share.reshape(-1, 1),
            law=each([d is not None and d.follows_p for d in pvs]),
            left=each([d.volt_var_reference == "available" for d in devices]),
            dark=np.array(on)[owner] == 0.0,
            moves=each(
                [
                    d is None or d.curtailable or d.follows_p or (d.phases == "free" and len(r) > 1)
                    for d, r in zip(pvs, rows, strict=True)
                ]
            ),
            q_share=each([d.volt_var_q_max_pu for d in devices]),
            tangent=each([0.0 if d is None else d.q_over_p for d in pvs]),
            q_last=each([d is not None and d.gives_way == "q" for d in pvs]),
            p_last=each([d is not None and d.gives_way == "p" for d in pvs]),
        )

    def read(self, v: ComplexArray) -> FloatArray:
        """The voltages that the curves are read at, per unit of the rated ones, shape (m, T)."""
        port, a, b = self.sensed
        padded = np.vstack([v, np.zeros((1, v.shape[1]))])
        out = np.zeros((len(self.rows), v.shape[1]))
        np.add.at(out, port, np.abs(padded[a] - padded[b]) * self.weight[:, None])
        return out

    def given(self, u: FloatArray) -> FloatArray:
        """p in kW, then q in kvar, of the ports at voltages u, shape (2 m, T)."""
        limited = np.isfinite(self.p_kw)[:, None]
        size = np.maximum(np.where(limited, self.p_kw[:, None], 0.0), TINY_KVA)
        most = np.where(limited, self.p_kw[:, None], 0.0) * self.watt.value(u)
        rounded = self.offered_kw + below_zero(size).value(most - self.offered_kw)
        p = np.where(limited, np.where(self.law, rounded, np.minimum(self.offered_kw, most)), self.offered_kw)
        s = self.s_kva[:, None]
        root = np.sqrt(np.maximum(s**2 - p**2, 0.0))
        leaves = np.where(self.moves, room(np.maximum(s, TINY_KVA)).value(p), root)
        q = np.where(self.dark, 0.0, np.where(self.left, leaves, s) * self.var.value(u))
        rating = np.maximum(s, TINY_KVA)
        held = within(np.maximum(s * self.q_share, 1e-3 * TINY_KVA), rating).value(q)
        q = np.where(self.left & (self.q_share < 1.0), held, q)
        q = np.where(self.tangent != 0.0, p * self.tangent, q)
        corner = below_zero(rating)
        q = np.where(self.q_last, q + corner.value(leaves - q) - corner.value(leaves + q), q)
        least = room(rating).value(q)
        offered = p + self.over_kw
        return np.vstack([np.where(self.p_last, offered + corner.value(least - offered), p), q])

    @property
    def size(self) -> FloatArray:
        """What a difference is measured by, kVA, shape (2 m, 1)."""
        gives_way = np.where(self.p_last[:, 0], self.s_kva, np.inf)
        p = np.where(np.isfinite(self.p_kw), self.p_kw, gives_way)
        q = np.where(self.s_kva > 0.0, self.s_kva, np.where(self.tangent[:, 0] != 0.0, p, np.inf))
        return np.asarray(np.maximum(np.concatenate([p, q]), TINY_KVA)).reshape(-1, 1)

    def into(self, loads: PortLoads, z: FloatArray) -> PortLoads:
        """The port loads with the followers' power; a q that follows nothing stays what it is."""
        m = len(self.rows)
        p, q = loads.p_kw.copy(), loads.q_kvar.copy()
        p[self.rows] = -z[:m]
        follows = (self.s_kva > 0.0) | (self.tangent[:, 0] != 0.0)
        q[self.rows[follows]] = -z[m:][follows]
        return replace(loads, p_kw=p, q_kvar=q)


def follows_q(device: object) -> bool:
    """Whether the reactive power of a device follows the voltage."""
    return isinstance(device, Inverter) and getattr(device, "q_control", "") == "volt_var"


def follows(device: object) -> bool:
    """Whether p or q of a device follows the voltage, when nothing is decided."""
    return follows_q(device) or (isinstance(device, PV) and device.volt_watt)


def follow(
    followers: Followers,
    loads: PortLoads,
    solve: Callable[[PortLoads, ComplexArray | None], PowerFlow],
    start: ComplexArray | None,
) -> tuple[PowerFlow, PortLoads]:
    """Solve with the power of the followers on their curves.

    Args:
        followers: the ports.
        loads: all ports.
        solve: the power flow of some port loads, from some voltages (V).
        start: voltages to start from.

    Returns:
        the power flow, its steps converged only where the followers settled too, and the ports with what they give.
    """
    rows = followers.rows
    scale = 1.0 / followers.size
    z = followers.given(np.ones((len(rows), loads.p_kw.shape[1])))
    past: list[tuple[FloatArray, FloatArray]] = []
    for k in range(MOST):
        loads = followers.into(loads, z)
        flow = solve(loads, start)
        start = flow.v
        r = followers.given(followers.read(flow.v)) - z
        r[~np.isfinite(r)] = 0.0
        settled = (np.abs(r) * scale).max(axis=0, initial=0.0) <= SETTLED
        if settled.all() or k == MOST - 1:
            break
        past = [*past, (z, r)][-DEPTH:]
        z = _mixed(past, scale)
    return replace(flow, converged=flow.converged & settled), loads


def _sensed(
    devices: Sequence[Inverter], owner: IntArray, rows: IntArray, loads: PortLoads, index: NodeIndex
) -> tuple[tuple[IntArray, IntArray, IntArray], FloatArray]:
    """Voltages that the curves of ports are read at; see `Followers.sensed`."""
    port, a, b, weight = [], [], [], []
    for k, (d, row) in enumerate(zip(owner.tolist(), rows.tolist(), strict=True)):
        device, rated = devices[d], float(loads.v_rated_kv[row])
        pairs = [(int(loads.node_a[row]), int(loads.node_b[row]))]
        if device.senses_mean:
            pairs = [(index.position[device.bus, c], -1) for c in device.sensed]
            rated /= 1.0 if device.connection == "wye" else float(np.sqrt(3.0))
        port += [k] * len(pairs)
        a += [first for first, _ in pairs]
        b += [second for _, second in pairs]
        weight += [1.0 / (1000.0 * rated * len(pairs))] * len(pairs)
    return (np.array(port), np.array(a), np.array(b)), np.array(weight)


def _mixed(past: Sequence[tuple[FloatArray, FloatArray]], scale: FloatArray) -> FloatArray:
    """The next point of Anderson's mixing, each step on its own, shape (2 m, T)."""
    z, r = past[-1]
    out: FloatArray = z + r
    if len(past) == 1:
        return out
    dz = np.stack([b[0] - a[0] for a, b in itertools.pairwise(past)])
    dr = np.stack([b[1] - a[1] for a, b in itertools.pairwise(past)])
    for step in range(z.shape[1]):
        turn = (dr[:, :, step] * scale[:, 0]).T
        gamma, *_ = np.linalg.lstsq(turn, r[:, step] * scale[:, 0], rcond=1e-10)
        out[:, step] -= gamma @ (dz[:, :, step] + dr[:, :, step])
    return out


__all__ = ["Followers", "follow", "follows", "follows_q"]
