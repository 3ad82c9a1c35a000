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

import numpy as np

from lateral.devices.inverter import Inverter, curve_of
from lateral.devices.pv import PV
from lateral.network.powerflow import PortLoads, PowerFlow
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import OfRoot

#: A port has settled when its power is this near to its curve, per unit of its share of the rating.
SETTLED = 2e-7
#: Power flows until a step is given up, and points remembered.
MOST, DEPTH = 60, 6


@dataclass(frozen=True, eq=False)
class Followers:
    """The ports that follow a curve.

    Attributes:
        rows: rows of these ports among the port loads, shape (m,).
        var, watt: curves of ``u^2`` (on the rated voltage): q per unit of ``s_kva``, most p per unit of ``p_kw``.
        s_kva: share of the inverter at the port where q follows, else 0, shape (m,).
        p_kw: share of the rated power where p is limited by its curve, else inf, shape (m,).
        offered_kw: active power given without a limit, shape (m, T).
    """

    rows: IntArray
    var: OfRoot
    watt: OfRoot
    s_kva: FloatArray
    p_kw: FloatArray
    offered_kw: FloatArray

    @classmethod
    def of(cls, devices: Sequence[Inverter], rows: Sequence[IntArray], loads: PortLoads, n_phases: int) -> Followers:
        """The ports of some devices.

        Args:
            devices: inverters that follow a curve, in p or q.
            rows: rows of each device's ports among the port loads.
            loads: the port loads, with what the devices would give without a limit (drawn: negative).
            n_phases: how many conductors a modelled conductor stands for.
        """
        at = np.concatenate([np.asarray(r, dtype=np.int64) for r in rows])
        owner = np.repeat(np.arange(len(devices)), [len(r) for r in rows])
        share = np.array([1.0 / (len(r) * n_phases) for r in rows])[owner]
        s = np.array([d.s_max_kva if follows_q(d) else 0.0 for d in devices])[owner] * share  # type: ignore[attr-defined]
        p = np.array([d.p_rated_kw if isinstance(d, PV) and d.volt_watt else np.inf for d in devices])[owner] * share
        var = [(devices[k].volt_var_v_pu, devices[k].volt_var_q_pu) for k in owner.tolist()]
        flat: tuple[tuple[float, ...], tuple[float, ...]] = ((1.0, 1.1), (1.0, 1.0))
        watt = [_watt_of(devices[k]) or flat for k in owner.tolist()]
        one = np.ones(len(at))
        return cls(at, curve_of(var, one), curve_of(watt, one), s, p, -loads.p_kw[at])

    def given(self, w: FloatArray) -> FloatArray:
        """p in kW, then q in kvar, of the ports at squared voltages w, shape (2 m, T)."""
        most = np.where(np.isfinite(self.p_kw), self.p_kw, 0.0)[:, None] * self.watt.value(w)
        p = np.where(np.isfinite(self.p_kw)[:, None], np.minimum(self.offered_kw, most), self.offered_kw)
        return np.vstack([p, self.s_kva[:, None] * self.var.value(w)])

    @property
    def size(self) -> FloatArray:
        """What a difference is measured by, kVA, shape (2 m, 1)."""
        p = np.where(np.isfinite(self.p_kw), self.p_kw, np.inf)
        q = np.where(self.s_kva > 0.0, self.s_kva, np.inf)
        return np.concatenate([p, q]).reshape(-1, 1)

    def into(self, loads: PortLoads, z: FloatArray) -> PortLoads:
        """The port loads with the followers' power; a q that follows nothing stays what it is."""
        m = len(self.rows)
        p, q = loads.p_kw.copy(), loads.q_kvar.copy()
        p[self.rows] = -z[:m]
        follows = self.s_kva > 0.0
        q[self.rows[follows]] = -z[m:][follows]
        return replace(loads, p_kw=p, q_kvar=q)


def follows_q(device: object) -> bool:
    """Whether the reactive power of a device follows the voltage."""
    return isinstance(device, Inverter) and getattr(device, "q_control", "") == "volt_var"


def follows(device: object) -> bool:
    """Whether p or q of a device follows the voltage, when nothing is decided."""
    return follows_q(device) or (isinstance(device, PV) and device.volt_watt)


def _watt_of(device: Inverter) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if isinstance(device, PV) and device.volt_watt:
        return device.volt_watt_v_pu, device.volt_watt_p_pu
    return None


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
    scale = 1.0 / np.where(np.isfinite(followers.size), followers.size, np.inf)
    z = followers.given(np.ones((len(rows), loads.p_kw.shape[1])))
    past: list[tuple[FloatArray, FloatArray]] = []
    for k in range(MOST):
        loads = followers.into(loads, z)
        flow = solve(loads, start)
        start = flow.v
        across = _across(loads, rows, flow.v)
        r = followers.given(across**2) - z
        r[~np.isfinite(r)] = 0.0
        settled = (np.abs(r) * scale).max(axis=0, initial=0.0) <= SETTLED
        if settled.all() or k == MOST - 1:
            break
        past = [*past, (z, r)][-DEPTH:]
        z = _mixed(past, scale)
    return replace(flow, converged=flow.converged & settled), loads


def _across(loads: PortLoads, rows: IntArray, v: ComplexArray) -> FloatArray:
    """|U| across some ports, per unit of their rated voltage, shape (m, T)."""
    padded = np.vstack([v, np.zeros((1, v.shape[1]))])
    u = padded[loads.node_a[rows]] - padded[loads.node_b[rows]]
    size: FloatArray = np.abs(u) / (1000.0 * loads.v_rated_kv[rows, None])
    return size


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
