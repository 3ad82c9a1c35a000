"""The numbers of a balanced radial problem, for rivals: arrays only, no modelling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lateral.case import Case
from lateral.devices import PV, Battery, Load
from lateral.devices.base import column
from lateral.network.branches import radial_network
from lateral.network.schema import FloatArray, IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Balanced:
    """A balanced radial feeder over T steps, per unit; branch k feeds bus k + 1, bus 0 is the source.

    Attributes:
        parent: sending bus of each branch, shape (K,).
        r, x: series impedance, shape (K, 1).
        v_min, v_max: squared voltage limits of the fed buses, shape (K, 1).
        v_source: squared voltage of the source, shape (T,).
        p, q: fixed power drawn at the fed buses, less what PV gives, shape (K, T).
        scale: typical apparent power of each branch, shape (K, 1).
        pv_bus, battery_bus: branch that feeds each device.
        pv_q_max: bound of the reactive power of PV, shape (n, T).
        pv_scale: its size, shape (n, 1).
        battery: numbers of the batteries, each of shape (n, 1): power, s (rating), capacity, low, high, initial, eta_c,
            eta_d.
        price: cost of one unit of import in each step, $, shape (T,).
        alpha: cost of one unit of battery loss in each step, $, shape (T,).
        hours: length of the steps, shape (T,).
        p_export_max: most that flows back, pu.
    """

    parent: IntArray
    r: FloatArray
    x: FloatArray
    v_min: FloatArray
    v_max: FloatArray
    v_source: FloatArray
    p: FloatArray
    q: FloatArray
    scale: FloatArray
    pv_bus: IntArray
    pv_q_max: FloatArray
    pv_scale: FloatArray
    battery_bus: IntArray
    battery: dict[str, FloatArray]
    price: FloatArray
    alpha: FloatArray
    hours: FloatArray
    p_export_max: float

    @property
    def shape(self) -> tuple[int, int]:
        """(branches, steps)."""
        return self.p.shape  # type: ignore[return-value]

    @property
    def below(self) -> sp.csr_array:
        """(K, K): 1 where branch j leaves the bus that branch k feeds."""
        inner = np.flatnonzero(self.parent > 0)
        return sp.csr_array((np.ones(len(inner)), (self.parent[inner] - 1, inner)), shape=(self.shape[0],) * 2)

    @property
    def objective_scale(self) -> float:
        """What costs are divided by: the largest cost of a scaled variable."""
        return float(np.max(self.price) * self.scale.max())

    @classmethod
    def of(cls, case: Case) -> Balanced:
        """The numbers of a case of one source, constant-power loads, fixed PV, disc limits; no current limits."""
        (source,) = case.sources
        net = radial_network(case.feeder, [(source.bus, 1)], case.base)
        k, t = net.n_legs, case.horizon.n_steps
        kva, hours = case.base.total_kva, case.horizon.hours
        assert np.array_equal(net.to_node, np.arange(1, k + 1)), "branch k feeds bus k + 1"
        place = {bus: i - 1 for i, (bus, _) in enumerate(net.nodes)}

        def series(name: str | float) -> FloatArray:
            return np.asarray(case.profiles[name] if isinstance(name, str) and name else np.ones(t) * (name or 1.0))

        p, q = np.zeros((k, t)), np.zeros((k, t))
        for d in case.devices:
            if isinstance(d, Load):
                p[place[d.bus]] += d.p_kw / kva * series(d.profile)
                q[place[d.bus]] += d.q_kvar / kva * series(d.profile)
        scale = _downstream(net.a_node, (np.abs(p) + np.abs(q)).max(axis=1))
        scale = np.maximum(scale, 0.05 * np.median(scale[scale > 0]))
        pvs = [d for d in case.devices if isinstance(d, PV)]
        batteries = [d for d in case.devices if isinstance(d, Battery)]
        q_max = np.zeros((len(pvs), t))
        for i, d in enumerate(pvs):
            given = np.minimum(d.p_rated_kw * series(d.profile), d.s_max_kva)
            p[place[d.bus]] -= given / kva
            q_max[i] = np.sqrt(d.s_max_kva**2 - given**2) / kva
        capacity = column(batteries, "energy_kwh") / kva
        feeder = case.feeder
        z = np.zeros(k, dtype=complex)
        z[net.z_row] = net.z_val
        buses = [feeder.bus[bus] for bus, _ in net.nodes[1:]]
        return cls(
            parent=net.a_node,
            r=z.real.reshape(-1, 1),
            x=z.imag.reshape(-1, 1),
            v_min=np.array([[b.v_min_pu**2] for b in buses]),
            v_max=np.array([[b.v_max_pu**2] for b in buses]),
            v_source=series(source.v_pu) ** 2,
            p=p,
            q=q,
            scale=scale.reshape(-1, 1),
            pv_bus=np.array([place[d.bus] for d in pvs]),
            pv_q_max=q_max,
            pv_scale=column(pvs, "s_max_kva") / kva,
            battery_bus=np.array([place[d.bus] for d in batteries]),
            battery={
                "power": column(batteries, "p_charge_max_kw") / kva,
                "s": column(batteries, "s_max_kva") / kva,
                "capacity": capacity,
                "low": column(batteries, "soc_min") * capacity,
                "high": column(batteries, "soc_max") * capacity,
                "initial": column(batteries, "soc_initial") * capacity,
                "eta_c": column(batteries, "eta_charge"),
                "eta_d": column(batteries, "eta_discharge"),
            },
            price=series(source.price_import) * hours * kva,
            alpha=case.alpha_usd_per_kwh * kva * hours,
            hours=np.asarray(case.horizon.step_h, dtype=float),
            p_export_max=float(np.min(series(source.p_export_max_kw))) / kva if source.p_export_max_kw else 0.0,
        )


def at_buses(where: IntArray, n: int) -> sp.csr_array:
    """(n, devices): 1 where a device is."""
    return sp.csr_array((np.ones(len(where)), (where, np.arange(len(where)))), shape=(n, len(where)))


def _downstream(parent: IntArray, own: FloatArray) -> FloatArray:
    total = own.copy()
    for k in range(len(own) - 1, -1, -1):
        if parent[k] > 0:
            total[parent[k] - 1] += total[k]
    return total
