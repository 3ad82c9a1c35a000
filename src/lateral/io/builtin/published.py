"""Published balanced cases, made from small tables of numbers (one row per bus, with the branch that feeds
it).

The IEEE 123 equivalent and its conventions: Jha, Paul and Dubey (2024), multi-period OPF by spatial
decomposition (t5, t10), and the linear-against-nonlinear study of the same authors (t24). The 33-bus feeder:
Baran and Wu (1989).
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Source
from lateral.network.feeder import Bus, Feeder, Line, Switch
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FloatArray

ZONE = "America/New_York"
DAY = "2024-07-01"
#: the two levels of the published tariff, $/kWh
PRICE_LOW, PRICE_HIGH = 0.04820404, 0.3018066


@dataclass(frozen=True, slots=True)
class _Row:
    bus: str
    parent: str
    r_ohm: float
    x_ohm: float
    area: str
    p_kw: float
    q_kvar: float
    cap_kvar: float
    pv_kw: float
    battery_kw: float


def _rows(table: str) -> list[_Row]:
    text = (files("lateral.io.builtin") / "data" / f"{table}.csv").read_text(encoding="utf-8")
    return [
        _Row(
            bus=r["bus"],
            parent=r["parent"],
            r_ohm=float(r["r_ohm"] or 0.0),
            x_ohm=float(r["x_ohm"] or 0.0),
            area=r["area"],
            p_kw=float(r["p_kw"]),
            q_kvar=float(r["q_kvar"]),
            cap_kvar=float(r["cap_kvar"]),
            pv_kw=float(r["pv_kw"]),
            battery_kw=float(r["battery_kw"]),
        )
        for r in csv.DictReader(text.splitlines())
    ]


def day24(column: str) -> FloatArray:
    """One of the published hourly curves.

    ``load``, ``pv`` or ``lmp_usd_per_kwh``, shape (24,), hour 1 first.
    """
    text = (files("lateral.io.builtin") / "data" / "day24.csv").read_text(encoding="utf-8")
    return np.array([float(r[column]) for r in csv.DictReader(text.splitlines())])


def _wires(
    rows: list[_Row], *, v_base_kv: float, v_min_pu: float, v_max_pu: float
) -> tuple[tuple[Bus, ...], tuple[Line, ...]]:
    buses = tuple(
        Bus(name=r.bus, conductors=(1,), v_base_kv=v_base_kv, v_min_pu=v_min_pu, v_max_pu=v_max_pu) for r in rows
    )
    lines = tuple(
        Line(
            name=f"{r.parent}-{r.bus}",
            bus_from=r.parent,
            bus_to=r.bus,
            conductors_from=(1,),
            conductors_to=(1,),
            r_ohm=np.array([[r.r_ohm]]),
            x_ohm=np.array([[r.x_ohm]]),
        )
        for r in rows
        if r.parent
    )
    return buses, lines


def _devices(rows: list[_Row], *, limit: str, capacitors: bool) -> list[Element]:
    out: list[Element] = [
        Load(name=r.bus, bus=r.bus, p_kw=r.p_kw, q_kvar=r.q_kvar, profile="load") for r in rows if r.p_kw or r.q_kvar
    ]
    if capacitors:
        out += [Capacitor(name=r.bus, bus=r.bus, q_kvar=r.cap_kvar, model="constant_power") for r in rows if r.cap_kvar]
    # DER ratings are 0.35 of a load (the papers print 0.33, their numbers need 0.35). The products are
    # rounded so that they are the decimals of the published tables.
    for r in rows:
        if r.pv_kw:
            p = r.pv_kw
            out.append(
                PV(
                    name=r.bus,
                    bus=r.bus,
                    p_rated_kw=p,
                    s_max_kva=round(1.2 * p, 6),
                    profile="pv",
                    limit=limit,
                )
            )
    for r in rows:
        if r.battery_kw:
            p = r.battery_kw
            out.append(
                Battery(
                    name=r.bus,
                    bus=r.bus,
                    p_charge_max_kw=p,
                    p_discharge_max_kw=p,
                    s_max_kva=round(1.2 * p, 6),
                    energy_kwh=round(4.0 * p, 6),
                    soc_min=0.30,
                    soc_max=0.95,
                    soc_initial=0.625,
                    eta_charge=0.95,
                    eta_discharge=0.95,
                    limit=limit,
                )
            )
    return out


def _window(first_hour: int, n_steps: int) -> tuple[Horizon, slice]:
    """Hours are named by their end: hour 1 is the step that begins at 00:00."""
    start = f"{DAY}T{first_hour - 1:02d}:00"
    return Horizon.regular(n_steps, 1.0, start=start, zone=ZONE), slice(first_hour - 1, first_hour - 1 + n_steps)


def _tariff(first_hour: int, n_steps: int, load: FloatArray) -> FloatArray:
    """The published two-level price: hours 16 to 22 of the whole day.

    Of a window, the 40 % of highest load.
    """
    hours = np.arange(first_hour, first_hour + n_steps)
    if n_steps == 24:
        high = (hours >= 16) & (hours <= 22)
    else:
        high = np.zeros(n_steps, dtype=bool)
        high[np.argsort(-load, kind="stable")[: round(0.4 * n_steps)]] = True
    return np.where(high, PRICE_HIGH, PRICE_LOW)


def _published(
    name: str, table: str, *, first_hour: int, n_steps: int, limit: str, capacitors: bool, notes: str
) -> Case:
    rows = _rows(table)
    horizon, window = _window(first_hour, n_steps)
    load, sun = day24("load")[window], day24("pv")[window]
    buses, lines = _wires(rows, v_base_kv=4.16 / math.sqrt(3.0), v_min_pu=0.95, v_max_pu=1.05)
    source = Source(name="source", bus=rows[0].bus, v_pu=1.03, price_import="price", p_export_max_kw=0.0)
    return Case(
        name=name,
        feeder=Feeder(buses=buses, lines=lines, n_phases=1, balanced=True),
        devices=(source, *_devices(rows, limit=limit, capacitors=capacitors)),
        horizon=horizon,
        profiles={"load": load, "pv": sun, "price": _tariff(first_hour, n_steps, load)},
        areas={r.bus: r.area for r in rows if r.area},
        notes=notes,
    )


def ieee123(n_steps: int) -> Case:
    """The published IEEE 123 equivalent over 5, 10 or 24 hours.

    One phase of three: powers are thirds of the feeder's totals, and costs are of that third.
    """
    notes = (
        "IEEE 123, balanced single-phase equivalent, 4.16/sqrt(3) kV, 1000 kVA (Jha, Paul and Dubey 2024). "
        "Powers are one third of the feeder's. PV on 20 %, batteries on 30 % of the load buses, rated "
        "0.35 of the load. "
    )
    if n_steps == 24:
        extra = "Second study: no capacitors, inverter discs, price high in hours 16 to 22."
        return _published(
            "ieee123-t24",
            "ieee123_balanced",
            first_hour=1,
            n_steps=24,
            limit="disc",
            capacitors=False,
            notes=notes + extra,
        )
    extra = "First study: 350 kvar of constant-power capacitors, inverter boxes, high price in 40 % of hours."
    return _published(
        f"ieee123-t{n_steps}",
        "ieee123_balanced",
        first_hour={5: 10, 10: 8}[n_steps],
        n_steps=n_steps,
        limit="box",
        capacitors=True,
        notes=notes + extra,
    )


def ads10() -> Case:
    """The ten-bus feeder of the same authors, one day."""
    return _published(
        "ads10",
        "ads10",
        first_hour=1,
        n_steps=24,
        limit="disc",
        capacitors=False,
        notes="Ten-bus balanced feeder, one phase, of the authors of ieee123-t5. No capacitors.",
    )


#: the tie switches of the 33-bus feeder, open: (from, to, r, x) in ohm
_TIES_33 = (
    ("8", "21", 2.0, 2.0),
    ("9", "15", 2.0, 2.0),
    ("12", "22", 2.0, 2.0),
    ("18", "33", 0.5, 0.5),
    ("25", "29", 0.5, 0.5),
)


def case33bw() -> Case:
    """The 33-bus feeder of Baran and Wu (1989), 12.66 kV, at rated load; its known loss is 202.677 kW."""
    rows = _rows("case33bw")
    buses, lines = _wires(rows, v_base_kv=12.66 / math.sqrt(3.0), v_min_pu=0.9, v_max_pu=1.1)
    ties = tuple(
        Switch(
            name=f"{a}-{b}",
            bus_from=a,
            bus_to=b,
            conductors_from=(1,),
            conductors_to=(1,),
            closed=False,
            r_ohm=np.array([[r]]),
            x_ohm=np.array([[x]]),
        )
        for a, b, r, x in _TIES_33
    )
    loads = [Load(name=r.bus, bus=r.bus, p_kw=r.p_kw, q_kvar=r.q_kvar) for r in rows if r.p_kw or r.q_kvar]
    return Case(
        name="case33bw",
        feeder=Feeder(buses=buses, lines=lines, switches=ties, n_phases=3, balanced=True),
        devices=(Source(name="source", bus="1", v_pu=1.0, price_import=0.1), *loads),
        horizon=Horizon.regular(1, 1.0, start=f"{DAY}T12:00", zone=ZONE),
        notes="Baran and Wu 1989, 33 buses, 12.66 kV, 3715 kW + 2300 kvar; five ties open. Price: ours.",
    )


#: PV buses of the 33-bus feeder with areas, and the first bus of each area
_PV_33 = ("8", "14", "18", "22", "25", "30", "33")
_AREAS_33 = {"1": "1", "3": "2", "6": "3", "10": "4"}


def case33bw_areas() -> Case:
    """The 33-bus feeder as a chain of four areas with much sun: where areas that do not see each other lose most.

    PV of 0.4 MVA at 0.3 MW, not curtailable, reactive power free within the disc; loss is to be minimised. Plain ENApp
    ends 10.3 % above the network's least loss here.
    """
    case = case33bw()
    sun = tuple(PV(name=bus, bus=bus, p_rated_kw=300.0, s_max_kva=400.0, profile="", limit="disc") for bus in _PV_33)
    areas: dict[str, str] = {}
    above = {line.bus_to: line.bus_from for line in case.feeder.lines}
    for bus in case.feeder.buses:  # every bus comes after the one that feeds it
        areas[bus.name] = _AREAS_33[bus.name] if bus.name in _AREAS_33 else areas[above[bus.name]]
    return case.with_(
        name="case33bw-areas",
        devices=(*case.devices, *sun),
        areas=areas,
        notes="Baran and Wu 1989, 33 buses, 12.66 kV, rated load; PV of 0.4 MVA at 0.3 MW on seven buses, four areas "
        "in a row, cut at 2-3, 5-6 and 9-10: ours. Minimise loss. Price: ours.",
    )
