"""Random balanced radial feeders, each of one kind: what is hard about it. A seed is always the same case."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

import lateral
from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Source
from lateral.model import Model
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.network.schema import Element
from lateral.opf import build

KINDS = (
    *("plain", "voltage", "reverse", "negative prices", "tiny impedances", "huge impedances", "zero loads"),
    *("batteries at limits", "limits of lines", "infeasible"),
)
#: Why a case of the last kind has no schedule, or nearly none.
REASONS = ("import", "export", "voltage", "collapse")
FORMULATIONS = ("nonlinear", "soc", "lindistflow")
KV = 7.2


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One seed.

    Attributes:
        seed: its number.
        kind: of `KINDS`.
        case: the case.
        formulation: name of the formulation.
        objective: name of the objective.
        terminal: terminal rule.
    """

    seed: int
    kind: str
    case: Case
    formulation: str
    objective: str
    terminal: str

    def build(self) -> Model:
        """Its model."""
        # what is to be infeasible may be a fault to the checks
        return build(self.case, self.formulation, self.objective, terminal=self.terminal, check=False)


def problem(seed: int) -> Problem:
    """The problem of a seed; kinds take turns, everything else is drawn."""
    rng = np.random.default_rng([0x5EED, seed])
    kind = KINDS[seed % len(KINDS)]
    case = _case(rng, kind if kind != "infeasible" else f"infeasible: {rng.choice(REASONS)}")
    return Problem(
        seed=seed,
        kind=kind,
        case=case,
        formulation=str(rng.choice(FORMULATIONS)),
        objective=str(rng.choice(["cost", "loss", "cost+0.1*loss"], p=[0.8, 0.1, 0.1])),
        terminal=str(rng.choice(["equal", "at-least", "free"], p=[0.6, 0.2, 0.2])),
    )


def _case(rng: np.random.Generator, kind: str) -> Case:
    n = int(np.exp(rng.uniform(np.log(5), np.log(61))))
    t = int(rng.choice([1, 2, 3, 6, 12, 24]))
    # a trunk with laterals, a star, or anything between
    reach = int(rng.choice([1, 3, n]))
    parent = np.array([-1] + [int(rng.integers(max(0, k - reach), k)) for k in range(1, n)])
    p = rng.uniform(5.0, 60.0, n) * (rng.random(n) < (0.25 if kind == "zero loads" else 0.8))
    p[0] = 0.0
    if not np.any(p):
        p[-1] = 20.0
    if kind == "zero loads" and rng.random() < 0.2:
        p[:] = 0.0
    q = p * rng.uniform(0.0, 0.6, n)
    z = _impedances(rng, kind, parent, p, q)
    profiles = _profiles(rng, kind, t)
    ample = np.where(p > 0.0, p, 20.0)
    devices: list[Element] = [
        Load(
            name=f"load{k}",
            bus=f"b{k}",
            p_kw=float(p[k]),
            q_kvar=float(q[k]),
            profile=str(rng.choice(["load", ""], p=[0.9, 0.1])),
            model=str(rng.choice(["constant_power", "constant_impedance"], p=[0.85, 0.15])),
        )
        for k in range(1, n)
        if p[k] > 0.0 or rng.random() < 0.5
    ]
    more_sun = kind in ("reverse", "infeasible: export")
    for k in np.flatnonzero(rng.random(n) < (0.6 if more_sun else 0.25)):
        if k:
            rated = float(ample[k] * (rng.uniform(1.5, 4.0) if more_sun else rng.uniform(0.2, 1.0)))
            devices.append(_pv(rng, f"pv{k}", f"b{k}", rated))
    for k in np.flatnonzero(rng.random(n) < (0.5 if kind == "batteries at limits" else 0.25)):
        if k:
            devices.append(_battery(rng, kind, f"bat{k}", f"b{k}", float(ample[k] * rng.uniform(0.2, 1.0))))
    if rng.random() < 0.2:
        devices.append(Capacitor(name="cap", bus=f"b{n - 1}", q_kvar=float(rng.uniform(5.0, 50.0))))
    total = float(p.sum() * profiles["load"].max())
    lines = tuple(
        Line(
            name=f"line{k}",
            bus_from=f"b{parent[k]}",
            bus_to=f"b{k}",
            conductors_from=(1,),
            conductors_to=(1,),
            r_ohm=[[float(z[k].real)]],
            x_ohm=[[float(z[k].imag)]],
        )
        for k in range(1, n)
    )
    source = Source(
        name="grid",
        bus="b0",
        v_pu=float(rng.choice([1.0, 1.02, 1.05])),
        price_import="price",
        price_export=None if rng.random() < 0.7 or kind == "negative prices" else "export",
        p_export_max_kw=0.0 if kind == "infeasible: export" or (rng.random() < 0.1 and not more_sun) else np.inf,
        p_import_max_kw=_import_limit(rng, kind, total),
    )
    wide = kind in ("huge impedances", "infeasible: collapse", "reverse")
    buses = tuple(
        Bus(
            name=f"b{k}",
            conductors=(1,),
            v_base_kv=KV,
            v_min_pu=0.6 if wide else 0.88,
            v_max_pu=1.3 if wide else 1.12,
        )
        for k in range(n)
    )
    case = Case(
        name=f"random-{n}x{t}",
        feeder=Feeder(buses=buses, lines=lines, n_phases=3, balanced=True),
        devices=(source, *devices),
        horizon=Horizon.regular(t, float(rng.choice([0.25, 1.0]))),
        profiles=profiles,
        alpha_usd_per_kwh=float(rng.choice([1e-6, 1e-3])),
    )
    return _limited(rng, kind, case)


def _impedances(rng: np.random.Generator, kind: str, parent: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Impedances in ohm that drop the voltage to first order by a share that is drawn."""
    n = len(parent)
    z = rng.uniform(0.2, 1.0, n) + 1j * rng.uniform(0.2, 1.0, n)
    if kind == "tiny impedances":
        z = np.where(rng.random(n) < 0.5, z * 10.0 ** rng.uniform(-7.0, -3.0, n), z)
        z = np.where(rng.random(n) < 0.1, 1j * z.imag, z)
    below_p, below_q = p.copy(), q.copy()
    for k in range(n - 1, 0, -1):
        below_p[parent[k]] += below_p[k]
        below_q[parent[k]] += below_q[k]
    drop = np.zeros(n)
    for k in range(1, n):
        drop[k] = drop[parent[k]] + (z[k].real * below_p[k] + z[k].imag * below_q[k]) / (3000.0 * KV**2)
    wanted = rng.uniform(0.2, 0.35) if kind == "huge impedances" else rng.uniform(0.02, 0.09)
    wanted = rng.uniform(0.3, 1.5) if kind == "infeasible: collapse" else wanted
    return np.asarray(z * (wanted / drop.max() if drop.max() > 0.0 else 1.0))


def _profiles(rng: np.random.Generator, kind: str, t: int) -> dict[str, np.ndarray]:
    price = rng.uniform(0.05, 0.4, t)
    if kind == "negative prices":
        price = rng.uniform(-0.3, 0.3, t)
    load = rng.uniform(0.1 if kind == "reverse" else 0.4, 1.0, t)
    if kind == "zero loads" and t > 1:
        load[int(rng.integers(t))] = 0.0
    return {"load": load, "sun": rng.uniform(0.0, 1.0, t), "price": price, "export": 0.6 * price}


def _pv(rng: np.random.Generator, name: str, bus: str, rated: float) -> PV:
    return PV(
        name=name,
        bus=bus,
        p_rated_kw=rated,
        s_max_kva=rated * float(rng.choice([1.0, 1.2])),
        profile="sun",
        curtailable=bool(rng.random() < 0.4),
        q_control=str(rng.choice(["free", "none", "power_factor"], p=[0.7, 0.2, 0.1])),
        power_factor=0.95,
        limit=str(rng.choice(["disc", "box"])),
    )


def _battery(rng: np.random.Generator, kind: str, name: str, bus: str, power: float) -> Battery:
    low, high, first = 0.1, 0.9, float(rng.uniform(0.2, 0.8))
    energy, give = power * float(rng.uniform(0.5, 4.0)), power
    if kind == "batteries at limits":
        first = float(rng.choice([low, high, first]))
        energy *= float(rng.choice([1.0, 1e-3]))
        give *= float(rng.choice([1.0, 0.0]))
        if rng.random() < 0.1:
            low = high = first
    return Battery(
        name=name,
        bus=bus,
        p_charge_max_kw=power,
        p_discharge_max_kw=give,
        s_max_kva=power * float(rng.choice([1.0, 1.2])),
        energy_kwh=energy,
        soc_min=low,
        soc_max=high,
        soc_initial=first,
        eta_charge=float(rng.choice([0.9, 1.0], p=[0.8, 0.2])),
        eta_discharge=0.95,
        q_control=str(rng.choice(["free", "none"], p=[0.8, 0.2])),
        limit=str(rng.choice(["disc", "box"])),
    )


def _import_limit(rng: np.random.Generator, kind: str, total: float) -> float:
    if kind == "infeasible: import":
        return float(total * rng.uniform(0.1, 0.8))
    if kind == "batteries at limits" and rng.random() < 0.3:
        return float(total * rng.uniform(0.95, 1.1))
    return float("inf")


def _limited(rng: np.random.Generator, kind: str, case: Case) -> Case:
    """The case with limits that bind, by its power flow without control; some of them cannot be met."""
    if kind not in ("voltage", "reverse", "limits of lines", "infeasible: voltage"):
        return case
    flow = lateral.power_flow(case)
    feeder = case.feeder
    if kind == "limits of lines":
        s = np.array([np.hypot(load.p_kw, load.q_kvar) for load in case.loads])
        below = dict.fromkeys((b.name for b in feeder.buses), 0.0)
        for load, own in zip(case.loads, s, strict=True):
            below[load.bus] += float(own)
        for line in reversed(feeder.lines):
            below[line.bus_from] += below[line.bus_to]
        share = np.where(rng.random(len(feeder.lines)) < 0.3, rng.uniform(0.95, 1.2, len(feeder.lines)), 2.0)
        lines = tuple(
            dataclasses.replace(e, i_max_a=max(below[e.bus_to] / (3.0 * KV) * float(s), 0.5))
            for e, s in zip(feeder.lines, share, strict=True)
        )
        return case.with_(feeder=dataclasses.replace(feeder, lines=lines))
    low, high = float(flow.vmag_pu.min()), float(flow.vmag_pu.max())
    source = float(case.series(case.sources[0].v_pu).max())
    share = rng.uniform(0.5, 1.2) if kind == "infeasible: voltage" else rng.uniform(0.0, 0.4)
    limits = {
        "v_min_pu": low + float(share) * (source - low),
        "v_max_pu": max(high - float(rng.uniform(0.0, 0.4)) * (high - source), source) + 1e-4,
    }
    if kind == "reverse" or rng.random() < 0.2:
        limits["v_min_pu"] = min(limits["v_min_pu"], 0.9)
    limits["v_max_pu"] = max(limits["v_max_pu"], limits["v_min_pu"] + 0.002)
    buses = tuple(dataclasses.replace(b, **limits) for b in feeder.buses)
    return case.with_(feeder=dataclasses.replace(feeder, buses=buses))
