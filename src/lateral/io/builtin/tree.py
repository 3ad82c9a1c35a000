"""Synthetic balanced feeders of any size: the same tree for the same number of buses, whatever the horizon.

A trunk with random laterals, about as deep as real feeders of that size are (25 branches at 128 buses, 134
at 1,000, 532 at 10,000). Impedances are scaled so that without any control the lowest voltage at rated load
is 0.953 pu: inside the limits, with little to spare.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from lateral.case import Case
from lateral.devices import PV, Battery, Load, Source
from lateral.io.builtin import published
from lateral.io.rule import evenly_spaced
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FloatArray, IntArray

V_BASE_KV = 12.47 / math.sqrt(3.0)
#: rated load, all phases: 1 per unit of the default base per conductor
TOTAL_KW = 3000.0
V_SOURCE_PU = 1.0
#: lowest voltage at rated load, without PV and batteries, that impedances are scaled for
V_LOWEST_PU = 0.953
_SIZE = re.compile(r"tree-([1-9]\d{0,5})x([1-9]\d{0,4})")
#: (buses, depth): interpolated on a log-log scale, extrapolated at its end slopes
_DEPTHS = ((2, 1), (128, 25), (1000, 134), (10000, 532))


def name_of(n_buses: int, n_steps: int) -> str:
    """Name of the feeder of that size."""
    return f"tree-{n_buses}x{n_steps}"


def size_of(name: str) -> tuple[int, int] | None:
    """Buses and steps that a name asks for, or None when it is no such name."""
    match = _SIZE.fullmatch(name)
    if match is None or int(match[1]) < 2:
        return None
    return int(match[1]), int(match[2])


def _depth(n_buses: int) -> int:
    n, d = np.log(np.array(_DEPTHS, dtype=float)).T
    x = math.log(n_buses)
    k = min(max(int(np.searchsorted(n, x)) - 1, 0), len(n) - 2)
    y = d[k] + (x - n[k]) * (d[k + 1] - d[k]) / (n[k + 1] - n[k])
    return max(1, min(n_buses - 1, round(math.exp(y))))


def _parents(n_buses: int, rng: np.random.Generator) -> IntArray:
    """Parent of each bus; a parent always comes before its children, bus 0 is the root (its parent is -1)."""
    limit = _depth(n_buses)
    parent = np.full(n_buses, -1, dtype=np.int64)
    depth = np.zeros(n_buses, dtype=np.int64)
    parent[1 : limit + 1] = np.arange(limit)
    depth[1 : limit + 1] = np.arange(1, limit + 1)
    k = limit + 1
    mean_length = max(2.0, 0.08 * limit)
    first = 1 if limit > 1 else 0  # a lateral must have room below where it leaves
    while k < n_buses:
        # Laterals leave the trunk, or an earlier lateral, and end before the feeder's depth.
        start = int(rng.integers(first, limit + 1)) if rng.random() < 0.5 else int(rng.integers(first, k))
        if depth[start] >= limit:
            continue
        length = min(int(rng.geometric(1.0 / mean_length)), limit - int(depth[start]), n_buses - k)
        parent[k] = start
        parent[k + 1 : k + length] = np.arange(k, k + length - 1)
        depth[k : k + length] = depth[start] + 1 + np.arange(length)
        k += length
    return parent


class _Sweep:
    """Backward/forward sweep of a balanced tree, per unit.

    Each pass is one triangular solve, no loop over buses.
    """

    def __init__(self, parent: IntArray) -> None:
        n = len(parent) - 1
        child = np.arange(1, n + 1)
        inner = parent[1:] > 0
        rows = np.concatenate([child - 1, child[inner] - 1])
        cols = np.concatenate([child - 1, parent[1:][inner] - 1])
        data = np.concatenate([np.ones(n), -np.ones(int(inner.sum()))]).astype(complex)
        # Row k: v_child - v_parent = -z i. Lower triangular, since parents come first: factors without fill.
        matrix = sparse.csc_matrix((data, (rows, cols)), shape=(n, n))
        self._lu: Any = splu(matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0)
        self._root = (parent[1:] == 0).astype(float)

    def voltages(self, z: Any, s: Any, v_source: float) -> Any:
        """Complex voltages of the buses below the root, for branch impedances z and loads s."""
        v = np.full(len(z), v_source, dtype=complex)
        for _ in range(100):
            current = self._lu.solve(np.conj(s / v), trans="T")
            new = self._lu.solve(self._root * v_source - z * current)
            if not np.all(np.isfinite(new)) or np.abs(new).min() < 0.3:
                return np.zeros_like(new)
            if np.abs(new - v).max() < 1e-12:
                return new
            v = new
        return v


def _scale(parent: IntArray, z: Any, s: Any) -> float:
    """Factor on the impedances that puts the lowest voltage at `V_LOWEST_PU`."""
    sweep = _Sweep(parent)

    def lowest(factor: float) -> float:
        return float(np.abs(sweep.voltages(factor * z, s, V_SOURCE_PU)).min())

    # The linear drop is a good first guess; then regula falsi on a factor that is bracketed by it.
    drop = V_SOURCE_PU - lowest(1e-3)
    low, high = 1e-3, 1e-3 * (V_SOURCE_PU - V_LOWEST_PU) / drop * 1.05
    for _ in range(60):
        f_low, f_high = lowest(low) - V_LOWEST_PU, lowest(high) - V_LOWEST_PU
        guess = low + (high - low) * f_low / (f_low - f_high)
        f = lowest(guess) - V_LOWEST_PU
        if abs(f) < 1e-9:
            return guess
        low, high = (guess, high) if f > 0 else (low, guess)
    return low


def _profiles(n_steps: int) -> tuple[Horizon, dict[str, FloatArray]]:
    """A day of the published hourly curves in `n_steps` steps.

    Fewer than 24 steps are hours around midday.
    """
    if n_steps < 24:
        first = max(0, 12 - (n_steps + 1) // 2)
        step_h, start_h = 1.0, float(first)
    else:
        step_h, start_h = 24.0 / n_steps, 0.0
    middle = start_h + step_h * (np.arange(n_steps) + 0.5)
    centre = np.arange(24) + 0.5
    load = np.interp(middle, centre, published.day24("load"), period=24.0)
    load = load / load.max()  # the rated load, which impedances are scaled for, is met at every horizon
    sun = np.interp(middle, centre, published.day24("pv"), period=24.0)
    if n_steps < 24:
        high = np.zeros(n_steps, dtype=bool)
        high[np.argsort(-load, kind="stable")[: round(0.4 * n_steps)]] = True
    else:
        high = (middle >= 15.0) & (middle < 22.0)
    price = np.where(high, published.PRICE_HIGH, published.PRICE_LOW)
    minutes = round(60 * start_h)
    start = f"{published.DAY}T{minutes // 60:02d}:{minutes % 60:02d}"
    horizon = Horizon.regular(n_steps, step_h, start=start, zone=published.ZONE)
    return horizon, {"load": load, "pv": sun, "price": price}


def _network(n_buses: int) -> tuple[Feeder, tuple[Element, ...]]:
    """The wires and devices, which do not depend on the horizon."""
    rng = np.random.default_rng([0x1A7E, n_buses])
    parent = _parents(n_buses, rng)
    leaf = np.ones(n_buses, dtype=bool)
    leaf[parent[1:]] = False
    loaded = leaf | (rng.random(n_buses) < 0.5)
    loaded[0] = False
    sizes = rng.choice(np.array([10.0, 20.0, 35.0, 50.0, 75.0]), size=n_buses, p=[0.35, 0.35, 0.15, 0.10, 0.05])
    p = np.where(loaded, sizes, 0.0)
    p *= TOTAL_KW / p.sum()
    q = p * np.tan(np.arccos(rng.uniform(0.85, 0.98, size=n_buses)))
    length = rng.uniform(0.05, 0.4, size=n_buses)
    r_per_km = np.where(np.arange(n_buses) <= _depth(n_buses), 0.30, 0.60)  # trunk, laterals
    x_per_km = np.where(np.arange(n_buses) <= _depth(n_buses), 0.40, 0.45)
    r, x = r_per_km * length, x_per_km * length
    z_base = 1000.0 * V_BASE_KV**2 / 1000.0
    z_pu = (r + 1j * x)[1:] / z_base
    factor = _scale(parent, z_pu, ((p + 1j * q) / TOTAL_KW)[1:])
    r, x, length = factor * r, factor * x, factor * length

    names = [f"b{k}" for k in range(n_buses)]
    buses = tuple(Bus(name=b, conductors=(1,), v_base_kv=V_BASE_KV, v_min_pu=0.95, v_max_pu=1.05) for b in names)
    lines = tuple(
        Line(
            name=f"l{k}",
            bus_from=names[parent[k]],
            bus_to=names[k],
            conductors_from=(1,),
            conductors_to=(1,),
            r_ohm=np.array([[r[k]]]),
            x_ohm=np.array([[x[k]]]),
            length_km=float(length[k]),
        )
        for k in range(1, n_buses)
    )
    at = np.flatnonzero(loaded)
    devices: list[Element] = [
        Source(name="source", bus=names[0], v_pu=V_SOURCE_PU, price_import="price", p_export_max_kw=0.0)
    ]
    devices += [Load(name=names[k], bus=names[k], p_kw=float(p[k]), q_kvar=float(q[k]), profile="load") for k in at]
    for k in at[list(evenly_spaced(len(at), 0.20))]:
        rated = 0.33 * float(p[k])
        devices.append(
            PV(
                name=names[k],
                bus=names[k],
                p_rated_kw=rated,
                s_max_kva=1.2 * rated,
                profile="pv",
                limit="disc",
            )
        )
    for k in at[list(evenly_spaced(len(at), 0.30))]:
        rated = 0.33 * float(p[k])
        devices.append(
            Battery(
                name=names[k],
                bus=names[k],
                p_charge_max_kw=rated,
                p_discharge_max_kw=rated,
                s_max_kva=1.2 * rated,
                energy_kwh=4.0 * rated,
                soc_min=0.30,
                soc_max=0.95,
                soc_initial=0.625,
                eta_charge=0.95,
                eta_discharge=0.95,
                limit="disc",
            )
        )
    return Feeder(buses=buses, lines=lines, n_phases=3, balanced=True), tuple(devices)


def build(n_buses: int, n_steps: int) -> Case:
    """The synthetic feeder of that many buses over that many steps.

    Args:
        n_buses: at least 2.
        n_steps: steps of one day (24 and more), or hours around midday (fewer).
    """
    feeder, devices = _network(n_buses)
    horizon, profiles = _profiles(n_steps)
    return Case(
        name=name_of(n_buses, n_steps),
        feeder=feeder,
        devices=devices,
        horizon=horizon,
        profiles=profiles,
        notes=(
            f"Synthetic balanced feeder, {n_buses} buses, 12.47 kV, {TOTAL_KW:g} kW rated. PV on 20 % and "
            "batteries on 30 % of the load buses, 0.33 of the load, 4 h. "
            f"Lowest voltage at rated load: {V_LOWEST_PU} pu."
        ),
    )
