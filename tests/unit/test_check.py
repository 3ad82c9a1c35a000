"""Each bad input gives a coded fault that names the element and the value; nonsense of any kind never raises."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lateral
from lateral.case import Case
from lateral.checks import BUILD_CODES, CODES, check, require
from lateral.devices import (
    PV,
    Battery,
    BorderHead,
    BorderTail,
    Capacitor,
    Load,
    Regulator,
    SoftOpenPoint,
    Source,
    Statcom,
)
from lateral.devices.base import ShuntDevice
from lateral.errors import CaseError, Fault
from lateral.io import builtin
from lateral.network import topology
from lateral.network.admittance import primitive_of
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Shunt, Switch, Terminal, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, spec
from lateral.units import Base

ABC = (1, 2, 3)
NAN, INF = math.nan, math.inf


def matrix(diagonal: float, off: float, n: int = 3) -> np.ndarray:
    return np.where(np.eye(n) == 1, diagonal, off)


def line(name: str, a: str, b: str, conductors: tuple[int, ...] = ABC, **more: Any) -> Line:
    n = len(conductors)
    fields: dict[str, Any] = {"r_ohm": matrix(0.3, 0.1, n), "x_ohm": matrix(0.6, 0.2, n), **more}
    return Line(name=name, bus_from=a, bus_to=b, conductors_from=conductors, conductors_to=conductors, **fields)


def regulator_unit(phase: int) -> Transformer:
    side = {"connection": "wye", "v_rated_kv": 7.2, "s_rated_kva": 1666.0}
    return Transformer(
        name=f"reg{phase}",
        n_phases=1,
        windings=(
            Winding(bus="mid", terminals=(phase, 0), **side),
            Winding(bus="reg", terminals=(phase, 0), tap=1.025, **side),
        ),
        x_percent=(0.01,),
    )


def three_phase() -> Case:
    """sub - mid = (three regulators) = reg - end - low, with a one-phase lateral and an open tie."""
    base = 12.47 / math.sqrt(3.0)
    buses = (
        Bus(name="sub", conductors=ABC, v_base_kv=base, v_max_pu=1.1),
        *(Bus(name=n, conductors=ABC, v_base_kv=base) for n in ("mid", "reg", "end")),
        Bus(name="lat", conductors=(2,), v_base_kv=base),
        Bus(name="low", conductors=ABC, v_base_kv=0.277),
        Bus(name="house", conductors=(1, 2), v_base_kv=0.12),
    )
    tie = Switch(
        name="tie",
        bus_from="mid",
        bus_to="end",
        conductors_from=ABC,
        conductors_to=ABC,
        closed=False,
        r_ohm=matrix(0.001, 0.0),
        x_ohm=matrix(0.001, 0.0),
    )
    main = Transformer(
        name="t1",
        windings=(
            Winding(bus="end", terminals=(1, 2, 3), connection="delta", v_rated_kv=12.47, s_rated_kva=500.0),
            Winding(bus="low", terminals=(1, 2, 3, 0), v_rated_kv=0.48, s_rated_kva=500.0, r_percent=1.0),
        ),
        x_percent=(4.0,),
    )
    split = Transformer(
        name="split",
        n_phases=1,
        windings=(
            Winding(bus="lat", terminals=(2, 0), v_rated_kv=7.2, s_rated_kva=50.0),
            Winding(bus="house", terminals=(1, 0), v_rated_kv=0.12, s_rated_kva=50.0, r_percent=1.2),
            Winding(bus="house", terminals=(0, 2), v_rated_kv=0.12, s_rated_kva=50.0, r_percent=1.2),
        ),
        x_percent=(2.0, 2.0, 1.4),
    )
    devices = (
        Source(
            name="grid",
            bus="sub",
            conductors=ABC,
            v_pu=1.03,
            angle_deg=(0.0, -120.0, 120.0),
            r_ohm=matrix(0.01, 0.0),
            x_ohm=matrix(0.1, 0.0),
            price_import="tariff",
        ),
        Load(name="mill", bus="end", terminals=(1, 2, 3, 0), p_kw=900.0, q_kvar=300.0, profile="day"),
        Load(name="farm", bus="lat", terminals=(2, 0), p_kw=40.0, q_kvar=10.0, v_rated_kv=7.2),
        Load(name="shop", bus="low", terminals=ABC, connection="delta", p_kw=90.0, v_rated_kv=0.48),
        Load(name="home", bus="house", terminals=(1, 2), p_kw=5.0, v_rated_kv=0.24),
        Capacitor(name="cap", bus="mid", terminals=(1, 2, 3, 0), q_kvar=300.0),
        PV(name="roof", bus="low", terminals=(1, 2, 3, 0), p_rated_kw=80.0, s_max_kva=100.0, profile="sun"),
        Battery(
            name="bess",
            bus="end",
            terminals=(1, 2, 3, 0),
            p_charge_max_kw=100.0,
            p_discharge_max_kw=100.0,
            s_max_kva=120.0,
            energy_kwh=400.0,
            soc_min=0.1,
            soc_max=0.9,
            limit="box",
        ),
        *(Regulator(name=f"reg{k}", transformer=f"reg{k}", winding=2) for k in ABC),
    )
    return Case(
        name="tiny",
        feeder=Feeder(
            buses=buses,
            lines=(line("l1", "sub", "mid"), line("l2", "reg", "end"), line("l3", "reg", "lat", (2,))),
            switches=(tie,),
            transformers=(*map(regulator_unit, ABC), main, split),
            shunts=(Shunt(name="reactor", bus="mid", conductors=ABC, g_us=np.zeros((3, 3)), b_us=-np.eye(3)),),
        ),
        devices=devices,
        horizon=Horizon.regular(4),
        profiles={
            "day": np.array([0.5, 0.7, 1.0, 0.8]),
            "sun": np.array([0.0, 0.6, 0.9, 0.2]),
            "tariff": np.array([0.1, 0.1, 0.3, -0.02]),
        },
    )


def balanced() -> Case:
    buses = tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4) for n in ("a", "b", "c"))
    return Case(
        name="one",
        feeder=Feeder(
            buses=buses,
            lines=(line("ab", "a", "b", (1,)), line("bc", "b", "c", (1,))),
            n_phases=3,
            balanced=True,
        ),
        devices=(Source(name="grid", bus="a"), Load(name="x", bus="c", p_kw=300.0)),
        horizon=Horizon.regular(1),
    )


def find(case: Case, label: str) -> Element:
    return next(e for e in (*case.feeder.elements, *case.devices) if e.label == label)


def swap(case: Case, old: Element, new: tuple[Element, ...]) -> Case:
    """The case with an element replaced by others, wherever it stands."""

    def rebuilt(members: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(n for m in members for n in (new if m is old else (m,)))

    f = case.feeder
    names = ("buses", "lines", "switches", "transformers", "shunts")
    feeder = dataclasses.replace(f, **{n: rebuilt(getattr(f, n)) for n in names})
    return case.with_(feeder=feeder, devices=rebuilt(case.devices))


def put(label: str, **fields: Any) -> Callable[[Case], Case]:
    """Fields of one element set as they are, past any conversion."""

    def change(case: Case) -> Case:
        old = find(case, label)
        new = copy.copy(old)
        for name, value in fields.items():
            object.__setattr__(new, name, value)
        return swap(case, old, (new,))

    return change


def winding(label: str, k: int, **fields: Any) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        t = find(case, label)
        assert isinstance(t, Transformer)
        windings = list(t.windings)
        windings[k - 1] = dataclasses.replace(windings[k - 1], **fields)
        return put(label, windings=tuple(windings))(case)

    return change


def drop(label: str) -> Callable[[Case], Case]:
    return lambda case: swap(case, find(case, label), ())


def add(*devices: Element) -> Callable[[Case], Case]:
    return lambda case: case.with_(devices=(*case.devices, *devices))


def add_wires(**members: Element) -> Callable[[Case], Case]:
    """``lines=Line(...)``: append to the lists of the feeder."""
    return lambda case: case.with_(
        feeder=dataclasses.replace(case.feeder, **{n: (*getattr(case.feeder, n), m) for n, m in members.items()})
    )


def profile(name: str, values: Any) -> Callable[[Case], Case]:
    return lambda case: case.with_(profiles={**case.profiles, name: values})


def horizon(**fields: Any) -> Callable[[Case], Case]:
    return lambda case: case.with_(horizon=dataclasses.replace(case.horizon, **fields))


def feeder(**fields: Any) -> Callable[[Case], Case]:
    return lambda case: case.with_(feeder=dataclasses.replace(case.feeder, **fields))


def both(*changes: Callable[[Case], Case]) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        for one in changes:
            case = one(case)
        return case

    return change


LOW = Bus(name="low", conductors=ABC, v_base_kv=0.277)
FAR = Bus(name="far", conductors=(1,), v_base_kv=7.2)
WATTS = {"p_kw": 3.7e6, "q_kvar": 0.0}

# what is done to the case, the code, the element, a text that the message holds
BAD: dict[str, tuple[Callable[[Case], Case], str, str, str]] = {
    # values
    "text for a number": (put("load.mill", p_kw="900 kW"), "VAL-001", "load.mill", "900 kW"),
    "none for a number": (put("load.mill", q_kvar=None), "VAL-001", "load.mill", "None"),
    "flag for a number": (put("battery.bess", energy_kwh=True), "VAL-001", "battery.bess", "True"),
    "list for a bus": (put("load.mill", bus=["end"]), "VAL-001", "load.mill", "['end']"),
    "text for terminals": (put("load.mill", terminals="1.2.3"), "VAL-001", "load.mill", "1.2.3"),
    "text for a flag": (put("switch.tie", closed="no"), "VAL-001", "switch.tie", "no"),
    "two zip shares": (put("load.mill", zip_p=(0.5, 0.5)), "VAL-001", "load.mill", "(0.5, 0.5)"),
    "empty tuple for a number": (put("source.grid", v_pu=()), "VAL-001", "source.grid", "()"),
    "list for a matrix": (put("line.l1", r_ohm=[[1.0]]), "VAL-001", "line.l1", "[[1.0]]"),
    "number for windings": (put("transformer.t1", windings=2), "VAL-001", "transformer.t1", "2"),
    "nan load": (put("load.mill", p_kw=NAN), "VAL-002", "load.mill", "nan"),
    "infinite load": (put("load.mill", p_kw=INF), "VAL-002", "load.mill", "inf"),
    "minus infinite rating": (put("line.l1", i_max_a=-INF), "VAL-002", "line.l1", "-inf"),
    "nan winding": (winding("transformer.t1", 2, r_percent=NAN), "VAL-002", "transformer.t1", "winding 2 r_percent"),
    "nan source voltage": (put("source.grid", v_pu=NAN), "VAL-002", "source.grid", "nan"),
    "negative rating": (put("line.l1", i_max_a=-400.0), "VAL-003", "line.l1", "-400"),
    "negative pv": (put("pv.roof", p_rated_kw=-80.0), "VAL-003", "pv.roof", "-80"),
    "negative inverter": (put("battery.bess", s_max_kva=-1.0), "VAL-003", "battery.bess", "-1"),
    "no capacity": (put("battery.bess", energy_kwh=0.0), "VAL-003", "battery.bess", "energy_kwh = 0"),
    "no efficiency": (put("battery.bess", eta_charge=0.0), "VAL-003", "battery.bess", "eta_charge = 0"),
    "efficiency above one": (put("battery.bess", eta_discharge=1.05), "VAL-003", "battery.bess", "1.05"),
    "efficiency in percent": (put("battery.bess", eta_discharge=95.0), "VAL-003", "battery.bess", "Percent"),
    "charge in percent": (put("battery.bess", soc_initial=50.0), "VAL-003", "battery.bess", "50"),
    "power factor above one": (put("pv.roof", power_factor=1.2), "VAL-003", "pv.roof", "1.2"),
    "no voltage base": (put("bus.end", v_base_kv=0.0), "VAL-003", "bus.end", "v_base_kv = 0"),
    "no winding rating": (winding("transformer.t1", 1, s_rated_kva=0.0), "VAL-003", "transformer.t1", "s_rated_kva"),
    "negative tap": (winding("transformer.t1", 1, tap=-1.0), "VAL-003", "transformer.t1", "tap = -1"),
    "voltage profile at zero": (
        both(profile("v", np.array([1.0, 1.0, 0.0, 1.0])), put("source.grid", v_pu="v")),
        "VAL-003",
        "source.grid",
        "0 in step 2 of profile v",
    ),
    "negative import limit": (put("source.grid", p_import_max_kw=-5.0), "VAL-003", "source.grid", "-5"),
    "power base": (lambda c: c.with_(base=Base(0.0)), "VAL-003", "case.tiny", "base.s_kva = 0"),
    "negative loss price": (lambda c: c.with_(alpha_usd_per_kwh=-1.0), "VAL-003", "case.tiny", "-1"),
    "frequency": (feeder(frequency_hz=0.0), "VAL-003", "case.tiny", "frequency_hz = 0"),
    "four phases": (feeder(n_phases=4), "VAL-003", "case.tiny", "n_phases = 4"),
    "unknown connection": (put("load.mill", connection="star"), "VAL-004", "load.mill", "star"),
    "unknown load model": (put("load.mill", model="constant_powr"), "VAL-004", "load.mill", "'constant_power'"),
    "unknown limit": (put("pv.roof", limit="circle"), "VAL-004", "pv.roof", "circle"),
    "empty name": (put("load.farm", name=""), "VAL-005", "load.", "''"),
    "line break in a name": (put("load.farm", name="a\nb"), "VAL-005", "load.a\nb", "a\\nb"),
    "soc limits crossed": (put("battery.bess", soc_min=0.95), "VAL-006", "battery.bess", "0.95"),
    "tap range crossed": (put("regulator.reg1", tap_min=1.2), "VAL-006", "regulator.reg1", "1.2"),
    "load range crossed": (put("load.farm", v_min_pu=3.0), "VAL-006", "load.farm", "3"),
    "duplicate load": (put("load.farm", name="Mill"), "VAL-007", "load.mill", "2 times"),
    "duplicate bus": (add_wires(buses=LOW), "VAL-007", "bus.low", "2 times"),
    "not a device": (lambda c: c.with_(devices=(*c.devices, "load")), "VAL-001", "case.tiny", "'load'"),
    "no feeder": (lambda c: put_case(c, "feeder", None), "VAL-001", "case.tiny", "feeder = None"),
    # network
    "no source": (drop("source.grid"), "NET-001", "case.tiny", "0 sources"),
    "no buses": (feeder(buses=()), "NET-020", "case.tiny", "0 buses"),
    "load at an unknown bus": (put("load.mill", bus="ende"), "NET-002", "load.mill", "'end'"),
    "line to an unknown bus": (put("line.l1", bus_to="mit"), "NET-002", "line.l1", "'mid'"),
    "winding at an unknown bus": (winding("transformer.t1", 2, bus="lo"), "NET-002", "transformer.t1", "winding 2"),
    "source at an unknown bus": (put("source.grid", bus="supply"), "NET-002", "source.grid", "supply"),
    "lonely bus": (add_wires(buses=FAR), "NET-003", "bus.far", "1 bus(es)"),
    "island with load": (drop("line.l3"), "NET-003", "bus.lat", "45 kW of load unserved"),
    "island behind a switch": (
        both(*(drop(f"transformer.reg{k}") for k in ABC), *(drop(f"regulator.reg{k}") for k in ABC)),
        "NET-003",
        "bus.reg",
        "switch.tie",
    ),
    "conductor not at bus": (put("load.farm", terminals=(1, 0)), "NET-005", "load.farm", "2"),
    "line conductor not at bus": (
        put("line.l3", conductors_from=(1,), conductors_to=(1,)),
        "NET-005",
        "line.l3",
        "conductor 1 at bus 'lat'",
    ),
    "winding conductor not at bus": (
        winding("transformer.split", 1, terminals=(3, 0)),
        "NET-005",
        "transformer.split",
        "conductor 3",
    ),
    "phase that stops": (drop("transformer.reg2"), "NET-006", "bus.reg", "conductor 2"),
    "bus without conductors": (put("bus.mid", conductors=()), "NET-007", "bus.mid", "()"),
    "ground listed": (put("bus.mid", conductors=(0, 1, 2, 3)), "NET-007", "bus.mid", "(0, 1, 2, 3)"),
    "conductors out of order": (put("bus.mid", conductors=(1, 3, 2)), "NET-007", "bus.mid", "(1, 3, 2)"),
    "ends of different size": (put("line.l2", conductors_to=(1, 2)), "NET-007", "line.l2", "(1, 2)"),
    "repeated line conductor": (
        put("line.l2", conductors_from=(1, 2, 2)),
        "NET-007",
        "line.l2",
        "(1, 2, 2)",
    ),
    "zero impedance": (
        put("line.l3", r_ohm=np.zeros((1, 1)), x_ohm=np.zeros((1, 1))),
        "NET-008",
        "line.l3",
        "r = 0 and x = 0",
    ),
    "zero impedance in one row": (
        put("line.l2", r_ohm=np.diag([0.3, 0.0, 0.3]), x_ohm=np.diag([0.3, 0.0, 0.3])),
        "NET-008",
        "line.l2",
        "row 2",
    ),
    "matrix not square": (put("line.l1", r_ohm=np.ones((2, 3))), "NET-009", "line.l1", "2 x 3"),
    "matrix too small": (put("line.l1", x_ohm=np.eye(2)), "NET-009", "line.l1", "3 x 3"),
    "charging too large": (put("line.l3", b_us=np.eye(3)), "NET-009", "line.l3", "1 x 1"),
    "source matrix too small": (put("source.grid", r_ohm=np.eye(1)), "NET-009", "source.grid", "1 x 1"),
    "shunt matrix": (put("shunt.reactor", b_us=np.eye(2)), "NET-009", "shunt.reactor", "2 x 2"),
    "nan in a matrix": (put("line.l1", x_ohm=matrix(NAN, 0.1)), "NET-010", "line.l1", "nan in row 1, column 1"),
    "infinity in a matrix": (put("line.l1", r_ohm=matrix(0.3, INF)), "NET-010", "line.l1", "inf"),
    "asymmetric": (
        put("line.l1", x_ohm=matrix(0.6, 0.2) + np.eye(3, k=1) * 0.1),
        "NET-011",
        "line.l1",
        "0.3 at (1, 2) but 0.2",
    ),
    "negative resistance": (put("line.l3", r_ohm=np.array([[-0.3]])), "NET-012", "line.l3", "-0.3"),
    "resistance that produces": (put("line.l1", r_ohm=matrix(0.1, 0.3)), "NET-012", "line.l1", "-0.2"),
    "bus limits crossed": (put("bus.end", v_min_pu=1.1), "NET-013", "bus.end", "1.1"),
    "bus limits equal": (put("bus.end", v_min_pu=1.05), "NET-013", "bus.end", "1.05"),
    "bases across a line": (put("bus.lat", v_base_kv=2.4), "NET-014", "line.l3", "2.4"),
    "one winding": (
        lambda c: put("transformer.t1", windings=find(c, "transformer.t1").windings[:1])(c),  # type: ignore[attr-defined]
        "NET-015",
        "transformer.t1",
        "1 winding",
    ),
    "leakage count": (put("transformer.split", x_percent=(2.0,)), "NET-015", "transformer.split", "3 value(s)"),
    "wye without neutral": (
        winding("transformer.t1", 2, terminals=(1, 2, 3)),
        "NET-015",
        "transformer.t1",
        "winding 2 terminals = (1, 2, 3)",
    ),
    "delta with ground": (
        winding("transformer.t1", 1, terminals=(1, 2, 0)),
        "NET-015",
        "transformer.t1",
        "(1, 2, 0)",
    ),
    "no leakage": (put("transformer.reg1", x_percent=(0.0,)), "NET-016", "transformer.reg1", "x_percent = 0"),
    "negative leakage": (put("transformer.t1", x_percent=(-4.0,)), "NET-016", "transformer.t1", "-4"),
    "winding in volts": (winding("transformer.t1", 2, v_rated_kv=480.0), "NET-017", "transformer.t1", "480"),
    "winding exchanged": (winding("transformer.t1", 1, v_rated_kv=0.48), "NET-017", "transformer.t1", "winding 1"),
    "self loop": (put("line.l1", bus_from="mid"), "NET-018", "line.l1", "'mid'"),
    "balanced with three conductors": (feeder(balanced=True), "NET-021", "bus.sub", "(1, 2, 3)"),
    "delta without a tie to ground": (
        lambda c: put("pv.roof", terminals=ABC, connection="delta")(
            put("transformer.t1", antifloat_ppm=0.0)(winding("transformer.t1", 2, terminals=ABC, connection="delta")(c))
        ),
        "NET-023",
        "transformer.t1",
        "'low'",
    ),
    "area of an unknown bus": (
        lambda c: c.with_(areas={**dict.fromkeys(c.feeder.bus, "a"), "midd": "a"}),
        "NET-022",
        "case.tiny",
        "'mid'",
    ),
    "bus without area": (lambda c: c.with_(areas={"sub": "a"}), "NET-022", "case.tiny", "mid"),
    # devices
    "delta load with ground": (
        put("load.shop", terminals=(1, 2, 0)),
        "DEV-001",
        "load.shop",
        "(1, 2, 0)",
    ),
    "wye with one terminal": (put("load.mill", terminals=(1,)), "DEV-001", "load.mill", "(1,)"),
    "repeated terminal": (put("load.mill", terminals=(1, 1, 0)), "DEV-001", "load.mill", "(1, 1, 0)"),
    "open delta of two": (
        put("load.shop", terminals=(1, 2), connection="delta-open"),
        "DEV-001",
        "load.shop",
        "three conductors",
    ),
    "box limit of a battery": (put("battery.bess", s_max_kva=90.0), "DEV-002", "battery.bess", "90"),
    "box limit of a pv": (put("pv.roof", limit="box", s_max_kva=70.0), "DEV-002", "pv.roof", "70"),
    "start above limit": (put("battery.bess", soc_initial=0.95), "DEV-003", "battery.bess", "0.95"),
    "start below limit": (put("battery.bess", soc_initial=0.05), "DEV-003", "battery.bess", "0.05"),
    "unknown transformer": (put("regulator.reg1", transformer="rex1"), "DEV-004", "regulator.reg1", "'reg1'"),
    "unknown winding": (put("regulator.reg1", winding=3), "DEV-004", "regulator.reg1", "winding 3"),
    "winding taken": (put("regulator.reg2", transformer="reg1"), "DEV-004", "regulator.reg2", "regulator.reg1"),
    "tap as a step": (winding("transformer.reg1", 2, tap=5.0), "DEV-005", "regulator.reg1", "tap = 5"),
    "one angle": (put("source.grid", angle_deg=(0.0,)), "DEV-006", "source.grid", "1 angle(s)"),
    "source outside limits": (put("source.grid", v_pu=1.2), "DEV-007", "source.grid", "1.2"),
    "source profile outside limits": (
        both(profile("v", np.array([1.0, 1.0, 0.8, 1.0])), put("source.grid", v_pu="v")),
        "DEV-007",
        "source.grid",
        "0.8 in step 2",
    ),
    "no power factor": (
        put("pv.roof", q_control="power_factor", power_factor=0.0),
        "DEV-008",
        "pv.roof",
        "power_factor = 0",
    ),
    "a curve that rises": (
        put("pv.roof", q_control="volt_var", volt_var_q_pu=(-0.44, 0.0, 0.0, 0.44)),
        "DEV-013",
        "pv.roof",
        "volt_var_q_pu",
    ),
    "more on than there is": (
        add(Capacitor(name="bank", bus="end", terminals=(1, 0), q_kvar=200.0, q_total_kvar=100.0)),
        "DEV-014",
        "capacitor.bank",
        "200",
    ),
    "a soft open point to where it is": (
        add(SoftOpenPoint(name="tie", bus="end", terminals=(1, 0), other_bus="end", s_max_kva=100.0)),
        "DEV-015",
        "soft_open_point.tie",
        "both ends",
    ),
    "load rated in volts": (put("load.farm", v_rated_kv=7200.0), "DEV-009", "load.farm", "7200"),
    "load of another level": (put("load.shop", v_rated_kv=12.47), "DEV-009", "load.shop", "12.47"),
    "two stiff sources": (
        both(
            put("source.grid", r_ohm=np.zeros((3, 3)), x_ohm=np.zeros((3, 3))),
            add(Source(name="twin", bus="sub", conductors=(1,))),
        ),
        "DEV-010",
        "source.twin",
        "source.grid",
    ),
    "selling above the price of buying": (
        put("source.grid", price_import=0.1, price_export=0.2),
        "DEV-011",
        "source.grid",
        "0.2",
    ),
    "a head with an impedance": (
        add(BorderHead(name="e", bus="low", v_pu=1.0, r_ohm=[[0.1]])),
        "DEV-012",
        "border_head.e",
        "r_ohm",
    ),
    "a tail in delta": (
        add(BorderTail(name="e", bus="end", terminals=(1, 2, 3), connection="delta", p_kw=1.0)),
        "DEV-012",
        "border_tail.e",
        "delta",
    ),
    "a tail of constant impedance": (
        add(BorderTail(name="e", bus="end", terminals=(1, 2, 3, 0), p_kw=1.0, model="constant_impedance")),
        "DEV-012",
        "border_tail.e",
        "constant_impedance",
    ),
    # profiles
    "unknown profile": (put("load.mill", profile="dy"), "PRO-001", "load.mill", "'day'"),
    "unknown tariff": (put("source.grid", price_import="tarif"), "PRO-001", "source.grid", "'tariff'"),
    "short profile": (profile("day", np.ones(3)), "PRO-002", "profile.day", "3 value(s), too short for 4"),
    "long profile": (profile("day", np.ones(5)), "PRO-002", "profile.day", "too long"),
    "nan in a profile": (profile("day", np.array([1, NAN, NAN, 1])), "PRO-003", "profile.day", "nan in step 1"),
    "infinity in a profile": (profile("sun", np.array([0, INF, 0, 0])), "PRO-003", "profile.sun", "inf"),
    "negative sun": (profile("sun", np.array([-0.1, 0, 0, 0])), "PRO-004", "pv.roof", "-0.1"),
    "sun in kilowatts": (profile("sun", np.array([0.0, 40, 80, 10])), "PRO-004", "pv.roof", "40 in step 1"),
    "words in a profile": (profile("day", ["a", "b", "c", "d"]), "PRO-005", "profile.day", "['a', 'b', 'c', 'd']"),
    "two-dimensional profile": (profile("day", np.ones((4, 2))), "PRO-005", "profile.day", "(4, 2)"),
    # horizon
    "no steps": (horizon(step_h=[], weight=[]), "HOR-001", "horizon", "0 steps"),
    "step of no length": (horizon(step_h=[1, 0, 1, 1]), "HOR-002", "horizon", "step_h = 0 in step 1"),
    "negative step": (horizon(step_h=[1, 1, -1, 1]), "HOR-002", "horizon", "-1"),
    "nan step": (horizon(step_h=[NAN, 1, 1, 1]), "HOR-002", "horizon", "nan"),
    "negative weight": (horizon(weight=[1, 1, 1, -2]), "HOR-003", "horizon", "-2"),
    "missing weight": (horizon(weight=[1, 1]), "HOR-003", "horizon", "4 weight(s)"),
    "break outside": (horizon(breaks=(9,)), "HOR-004", "horizon", "9"),
    "break as text": (horizon(breaks=("2",)), "HOR-004", "horizon", "'2'"),
    "unknown zone": (horizon(zone="America/Chicgo"), "HOR-005", "horizon", "America/Chicago"),
    "no start": (horizon(start=None), "HOR-005", "horizon", "None"),
    # units
    "watts as kilowatts": (put("load.mill", **WATTS), "UNI-001", "source.grid", "3.7 GW on a 12.47 kV feeder"),
    "kilowatt profile": (profile("day", np.full(4, 900.0)), "UNI-001", "source.grid", "load.mill"),
    "megawatts as kilowatts": (
        both(
            *(drop(f"load.{n}") for n in ("mill", "farm", "shop", "home")),
            add(*(Load(name=f"n{k}", bus="end", p_kw=0.3 + 0.1 * k, q_kvar=0.1) for k in range(6))),
        ),
        "UNI-002",
        "load.n0",
        "3.",
    ),
    "pv in watts": (put("pv.roof", p_rated_kw=8e4, s_max_kva=1e5), "UNI-003", "pv.roof", "80000"),
    "capacitor in var": (put("capacitor.cap", q_kvar=3e5), "UNI-003", "capacitor.cap", "300000"),
    "impedance per foot": (put("line.l2", r_ohm=matrix(900.0, 100.0)), "UNI-004", "line.l2", "voltage drop"),
    "tiny transformer": (
        both(winding("transformer.t1", 1, s_rated_kva=0.5), winding("transformer.t1", 2, s_rated_kva=0.5)),
        "UNI-004",
        "transformer.t1",
        "0.5 kVA",
    ),
    "base in volts": (put("bus.end", v_base_kv=7200.0), "UNI-005", "bus.end", "7200"),
    "base in megavolts": (put("bus.end", v_base_kv=0.0072), "UNI-005", "bus.end", "0.0072"),
    "price per megawatt-hour": (put("source.grid", price_import=80.0), "UNI-006", "source.grid", "80"),
    "price profile in cents": (
        profile("tariff", np.array([0, 0, 300.0, 0])),
        "UNI-006",
        "source.grid",
        "300 in step 2",
    ),
    "battery in megawatt-hours": (put("battery.bess", energy_kwh=0.4), "UNI-007", "battery.bess", "0.4"),
    "battery in watt-hours": (put("battery.bess", energy_kwh=4e5), "UNI-007", "battery.bess", "4000 h"),
    "steps in seconds": (horizon(step_h=[3600.0] * 4), "UNI-008", "horizon", "3600"),
    "angles in radians": (put("source.grid", angle_deg=(0.0, -2.094, 2.094)), "UNI-009", "source.grid", "-2.094"),
}

RADIAL: dict[str, tuple[Callable[[Case], Case], str, str, str]] = {
    "tie closed": (put("switch.tie", closed=True), "NET-004", "switch.tie", "line.l2"),
    "second source": (
        add(Source(name="other", bus="end", conductors=(1,), v_pu=1.0)),
        "NET-019",
        "source.other",
        "grid",
    ),
}


def put_case(case: Case, field: str, value: Any) -> Case:
    new = copy.copy(case)
    object.__setattr__(new, field, value)
    return new


def assert_found(faults: tuple[Fault, ...], code: str, element: str, text: str) -> None:
    hits = [f for f in faults if f.code.startswith(code) and f.element == element]
    assert hits, f"no {code} at {element} in {[str(f) for f in faults]}"
    assert any(text in f.message for f in hits), [f.message for f in hits]


@pytest.mark.parametrize("make", [three_phase, balanced])
def test_a_good_case_has_no_faults(make: Callable[[], Case]) -> None:
    assert check(make(), radial=True) == ()
    require(make(), radial=True)


@pytest.mark.parametrize("name", [n for n in builtin.names() if "10000" not in n])
def test_built_in_cases_have_no_faults(name: str) -> None:
    assert check(builtin.load(name), radial=True) == ()


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    change, code, element, text = BAD[name]
    assert_found(check(change(three_phase())), code, element, text)


@pytest.mark.parametrize("name", RADIAL)
def test_bad_for_a_radial_formulation(name: str) -> None:
    change, code, element, text = RADIAL[name]
    case = change(three_phase())
    assert check(case) == ()
    assert_found(check(case, radial=True), code, element, text)


def test_one_mistake_gives_few_faults() -> None:
    """A fault should not drown in its consequences."""
    for name, (change, *_) in BAD.items():
        faults = check(change(three_phase()))
        assert len(faults) <= 14, f"{name}: {[str(f) for f in faults]}"


def test_every_code_is_provoked() -> None:
    used = {code for _, code, _, _ in (*BAD.values(), *RADIAL.values())}
    assert used == {code[:7] for code in CODES}


def test_codes_carry_a_sentence() -> None:
    for code, sentence in CODES.items():
        assert code[:3] in {"VAL", "NET", "DEV", "PRO", "HOR", "UNI"}
        assert sentence.endswith(".")


def test_codes_of_building_are_those_that_the_code_raises() -> None:
    source = Path(lateral.__file__).parent
    files = [p for p in source.rglob("*.py") if p.parent.name != "checks"]
    found = {c for p in files for c in re.findall(r'"((?:NET-04|FOR-)\d+ [^"]+)"', p.read_text(encoding="utf-8"))}
    assert found == set(BUILD_CODES)
    assert all(sentence.endswith(".") for sentence in BUILD_CODES.values())


def test_messages_are_complete() -> None:
    for change, *_ in BAD.values():
        for fault in check(change(three_phase())):
            assert fault.code in CODES
            assert fault.found and fault.allowed and fault.action


def test_all_faults_at_once_with_their_place() -> None:
    case = both(put("load.mill", bus="ende"), put("line.l1", i_max_a=-1.0), profile("day", np.ones(2)))(three_phase())
    case = case.with_(where={"load.mill": "loads.csv:2"})
    with pytest.raises(CaseError) as caught:
        require(case)
    assert {f.code[:7] for f in caught.value.faults} >= {"NET-002", "VAL-003", "PRO-002"}
    assert {f.where for f in caught.value.faults if f.element == "load.mill"} == {"loads.csv:2"}


def test_parallel_branches_between_the_same_buses_are_no_loop() -> None:
    case = add_wires(lines=line("l1b", "sub", "mid"))(three_phase())
    assert check(case, radial=True) == ()


def test_a_one_phase_delta_to_ground_is_a_plain_port() -> None:
    case = put("load.farm", connection="delta", v_rated_kv=12.47)(three_phase())
    assert check(case) == ()


def test_a_source_behind_an_impedance_may_stand_a_little_above_the_limit() -> None:
    case = put("source.grid", v_pu=1.12)(three_phase())
    assert check(case) == ()


def test_a_wide_range_of_honest_cases_passes() -> None:
    """Unusual is not wrong: negative load and price, no load at all, a large solar plant, a battery of ten hours."""
    case = three_phase()
    assert check(put("load.mill", p_kw=-200.0)(case)) == ()
    assert check(both(*(drop(f"load.{n}") for n in ("mill", "farm", "shop", "home")))(case)) == ()
    plant = PV(name="plant", bus="mid", terminals=(1, 2, 3, 0), p_rated_kw=10_000.0, s_max_kva=12_000.0)
    assert check(add(plant)(case)) == ()
    assert check(put("battery.bess", energy_kwh=1000.0)(case)) == ()
    assert check(put("source.grid", price_import=9.0)(case)) == ()
    assert check(put("bus.end", v_max_pu=INF, v_min_pu=0.0)(case)) == ()


def test_a_limit_may_be_infinite_in_some_steps() -> None:
    case = both(profile("cap", np.array([INF, 900, INF, 900])), put("source.grid", p_import_max_kw="cap"))(
        three_phase()
    )
    assert check(case) == ()


def test_balanced_feeder_counts_its_phases() -> None:
    assert_found(check(put("load.x", p_kw=3e6)(balanced())), "UNI-001", "source.grid", "3 GW on a 4.157 kV feeder")


@dataclass(frozen=True, kw_only=True, eq=False)
class Electrolyser(ShuntDevice):
    """A user's own device: the rules made from the schema hold for it."""

    kind: ClassVar[str] = "electrolyser"
    table: ClassVar[str] = "electrolysers"

    p_max_kw: float = spec("Most power.", unit="kW", minimum=0.0)
    p_min_kw: float = spec("Least power.", unit="kW", default=0.0, minimum=0.0)
    price: float | str = spec("Value of hydrogen.", unit="$/kWh", default=0.0, series=True)
    mode: str = spec("How it runs.", choices=("steady", "follow"), default="steady")
    anything: object = spec("A type that the schema does not know.", default=None)


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"p_max_kw": -1.0}, "VAL-003", "-1"),
        ({"p_max_kw": NAN}, "VAL-002", "nan"),
        ({"p_max_kw": "big"}, "VAL-001", "big"),
        ({"p_max_kw": 1.0, "p_min_kw": 2.0}, "VAL-006", "2"),
        ({"p_max_kw": 1.0, "price": "nowhere"}, "PRO-001", "nowhere"),
        ({"p_max_kw": 1.0, "price": 60.0}, "UNI-006", "60"),
        ({"p_max_kw": 1.0, "mode": "folow"}, "VAL-004", "'follow'"),
        ({"p_max_kw": 1.0, "bus": "nowhere"}, "NET-002", "nowhere"),
        ({"p_max_kw": 1.0, "terminals": (4, 0)}, "NET-005", "conductor 4"),
        ({"p_max_kw": 1e9}, "UNI-003", "1e+09"),
    ],
)
def test_a_users_own_device(fields: dict[str, Any], code: str, text: str) -> None:
    device = Electrolyser(**{"name": "h2", "bus": "end", "terminals": (1, 0), **fields})
    assert_found(check(add(device)(three_phase())), code, "electrolyser.h2", text)


def test_a_users_own_good_device() -> None:
    assert check(add(Electrolyser(name="h2", bus="end", p_max_kw=5.0, price="tariff"))(three_phase())) == ()


# --- nonsense ---------------------------------------------------------------------------------------------------------

NONSENSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([10**400, -(10**30), 2**63]),
    st.floats(),
    st.sampled_from(["", "end", "mid", "day", "sun", "wye", "delta", "box", "nan", "a\x00b", "\ud800", "power_factor"]),
    st.lists(st.integers(-2, 9), max_size=4),
    st.lists(st.integers(-2, 9), max_size=5).map(tuple),
    st.lists(st.floats(), max_size=4).map(tuple),
    st.just((("nested",), {})),
    st.just({}),
    st.just(object()),
    st.just(1 + 2j),
    st.sampled_from([np.zeros(0), np.array(3.0), np.ones((2, 2, 2)), np.array([["a"]]), np.full((3, 3), np.nan)]),
    st.sampled_from(
        [np.zeros((3, 3)), np.zeros((1, 1)), np.array([None, 1]), np.float64("nan"), np.int64(7), np.bool_(1)]
    ),
)


def with_admittance() -> Case:
    """The three-phase case with line l2 as a generic admittance."""
    case = three_phase()
    (l2,) = (e for e in case.feeder.lines if e.name == "l2")
    y = 1e6 * primitive_of(l2).y
    ends = tuple(Terminal(bus=bus, conductors=ABC) for bus in (l2.bus_from, l2.bus_to))
    wire = MultiTerminal(name="l2", terminals=ends, g_us=y.real, b_us=y.imag)
    lines = tuple(e for e in case.feeder.lines if e is not l2)
    return case.with_(feeder=dataclasses.replace(case.feeder, lines=lines, admittances=(wire,)))


def changed(**changes: object) -> Case:
    """The case with an admittance, that one changed."""
    case = with_admittance()
    (wire,) = case.feeder.admittances
    made = dataclasses.replace(wire, **changes)  # type: ignore[arg-type]
    return case.with_(feeder=dataclasses.replace(case.feeder, admittances=(made,)))


def test_an_admittance_in_place_of_a_line_is_sound() -> None:
    case = with_admittance()
    assert check(case, radial=True) == ()
    assert topology.loops(case.feeder, ["sub"]) == ()
    tree = topology.spanning_tree(case.feeder, ["sub"])
    assert tree.via["end"].branches == ("admittance.l2",)


ENDS = (Terminal(bus="reg", conductors=ABC), Terminal(bus="end", conductors=ABC))
ODD = np.eye(6)
ODD[0, 1] = 0.5
#: As a reactor whose Z1 and Z2 differ, but of a positive sequence that gives power.
TURNED = 1e6 * np.kron([[1.0, -1.0], [-1.0, 1.0]], [[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("NET-002", {"terminals": (ENDS[0], Terminal(bus="no", conductors=ABC))}),
        ("NET-005", {"terminals": (ENDS[0], Terminal(bus="end", conductors=(1, 2, 4)))}),
        ("NET-007", {"terminals": (ENDS[0], ENDS[0])}),
        ("NET-007", {"terminals": (ENDS[0], Terminal(bus="end", conductors=(0, 2, 3)))}),
        ("NET-007", {"terminals": ()}),
        ("NET-009", {"g_us": np.zeros((5, 5))}),
        ("NET-010", {"b_us": np.full((6, 6), np.nan)}),
        ("NET-011", {"g_us": ODD}),
        ("NET-011", {"b_us": TURNED}),
        ("VAL-001", {"terminals": ("reg", "end")}),
        ("VAL-001", {"terminals": (Terminal(bus="reg", conductors=("a",)), ENDS[1])}),  # type: ignore[arg-type]
        ("VAL-005", {"name": "a'b"}),
    ],
)
def test_faults_of_an_admittance(code: str, changes: dict[str, object]) -> None:
    found = check(changed(**changes))
    assert code in {f.code.split()[0] for f in found}, [str(f) for f in found]
    assert any(f.element.startswith("admittance.") for f in found)


def floating() -> Case:
    """The three-phase case with nothing but delta devices behind a delta winding without antifloat shunts."""
    case = winding("transformer.t1", 2, terminals=ABC, connection="delta")(three_phase())
    case = put("transformer.t1", antifloat_ppm=0.0)(case)
    return put("pv.roof", terminals=ABC, connection="delta")(case)


#: Between three conductors and nothing else; the second one to ground as well, a ten-thousandth of that.
RING = 3.0 * np.eye(3) - np.ones((3, 3))
AGAINST_GROUND = RING + 1e-4 * np.eye(3)
LOW = Terminal(bus="low", conductors=ABC)


@pytest.mark.parametrize(
    ("what", "tie"),
    [
        (Shunt(name="s", bus="low", conductors=ABC, g_us=RING, b_us=RING), False),
        (Shunt(name="s", bus="low", conductors=ABC, g_us=RING, b_us=AGAINST_GROUND), True),
        (MultiTerminal(name="s", terminals=(LOW,), g_us=RING, b_us=RING), False),
        (MultiTerminal(name="s", terminals=(LOW,), g_us=AGAINST_GROUND, b_us=RING), True),
        (Load(name="s", bus="low", terminals=(1, 2, 3, 0), p_kw=0.0), False),
        (Load(name="s", bus="low", terminals=(1, 2, 3, 0), p_kw=1.0), True),
        (Load(name="s", bus="low", terminals=(1, 2, 3), connection="wye", p_kw=1.0), False),
        (Capacitor(name="s", bus="low", terminals=(1, 2, 3, 0), q_kvar=0.0), False),
        (Capacitor(name="s", bus="low", terminals=(1, 2, 3, 0), q_kvar=5.0), True),
        (PV(name="s", bus="low", terminals=(1, 2, 3, 0), p_rated_kw=0.0, s_max_kva=5.0), False),
        (PV(name="s", bus="low", terminals=(1, 2, 3, 0), p_rated_kw=5.0, s_max_kva=5.0), True),
        (Statcom(name="s", bus="low", terminals=(1, 2, 3, 0), q_rated_kvar=5.0), False),
    ],
)
def test_what_ties_an_island_to_ground(what: Element, tie: bool) -> None:
    """An admittance to ground, or a device that draws or gives something without control; no idle one."""
    case = floating()
    if isinstance(what, Shunt):
        case = case.with_(feeder=dataclasses.replace(case.feeder, shunts=(*case.feeder.shunts, what)))
    elif isinstance(what, MultiTerminal):
        case = case.with_(feeder=dataclasses.replace(case.feeder, admittances=(what,)))
    else:
        case = add(what)(case)
    assert any(f.code.startswith("NET-023") for f in check(case)) is not tie


@pytest.mark.parametrize(("second", "ppm"), [("delta", 0.0), ("delta", 1.0), ("wye", 0.0)])
def test_an_admittance_joins_the_buses_that_feel_each_other(second: str, ppm: float) -> None:
    """A transformer as a matrix isolates what its windings isolate, and ties to ground what they tie."""
    more = {} if second == "delta" else {"connection": "wye", "terminals": (1, 2, 3, 0)}
    case = winding("transformer.t1", 2, **more)(floating()) if more else floating()
    case = put("transformer.t1", antifloat_ppm=ppm)(case)
    (t1,) = (t for t in case.feeder.transformers if t.name == "t1")
    others = tuple(t for t in case.feeder.transformers if t is not t1)
    y = 1e6 * primitive_of(t1).y
    ends = (Terminal(bus="end", conductors=ABC), LOW)
    made = MultiTerminal(name="t1", terminals=ends, g_us=y.real, b_us=y.imag)
    feeder = dataclasses.replace(case.feeder, transformers=others, admittances=(made,))
    found = [f for f in check(case.with_(feeder=feeder)) if f.code.startswith("NET-023")]
    assert [f.element for f in found] == (["admittance.t1"] if second == "delta" and not ppm else [])
    # a line as a matrix joins its buses: what is behind it floats with what is before it
    part = 1e6 * primitive_of(line("l9", "low", "far", x_ohm=matrix(0.6, 0.2))).y
    wire = MultiTerminal(
        name="l9", terminals=(LOW, Terminal(bus="far", conductors=ABC)), g_us=part.real, b_us=part.imag
    )
    buses = (*case.feeder.buses, dataclasses.replace(find(case, "bus.low"), name="far"))
    found = [
        f
        for f in check(case.with_(feeder=dataclasses.replace(case.feeder, buses=buses, admittances=(wire,))))
        if f.code.startswith("NET-023")
    ]
    assert [f.element for f in found] == (["transformer.t1"] if second == "delta" and not ppm else [])
    assert all("2 bus(es)" in f.message and "far" in f.message for f in found)


def test_a_transformer_of_a_balanced_feeder_has_one_core() -> None:
    """Three cores on one conductor have no matrix: it was an IndexError of the power flow."""
    case = balanced()
    side = {"terminals": (1, 0), "v_rated_kv": 2.4, "s_rated_kva": 500.0}
    t = Transformer(name="t", windings=(Winding(bus="b", **side), Winding(bus="c", **side)), x_percent=(4.0,))
    feeder = dataclasses.replace(case.feeder, lines=case.feeder.lines[:1], transformers=(t,))
    assert [(f.code.split()[0], f.found) for f in check(case.with_(feeder=feeder))] == [("NET-015", "n_phases = 3")]
    with pytest.raises(CaseError, match=r"NET-015.*winding 1 terminals = \(1, 0\)") as raised:
        primitive_of(t)
    assert len(raised.value.faults) == 2
    one = dataclasses.replace(t, n_phases=1)
    assert check(case.with_(feeder=dataclasses.replace(feeder, transformers=(one,)))) == ()
    primitive_of(one)


def test_an_open_delta_has_three_corners() -> None:
    case = winding("transformer.t1", 1, terminals=(1, 2))(three_phase())
    case = winding("transformer.t1", 2, terminals=(1, 2, 0))(put("transformer.t1", n_phases=2)(case))
    (found,) = (f for f in check(case) if f.code.startswith("NET-015"))
    assert "winding 1 terminals = (1, 2), delta, 2 phase(s)" in found.found
    assert "3 phase conductor(s)" in found.allowed


def test_a_phase_that_an_admittance_does_not_couple_is_dead() -> None:
    case = with_admittance()
    (wire,) = case.feeder.admittances
    cut = np.ones((6, 6))
    cut[2, :] = cut[:, 2] = cut[5, :] = cut[:, 5] = 0.0
    found = check(changed(g_us=wire.g_us * cut, b_us=wire.b_us * cut))
    dead = [f for f in found if f.code.startswith("NET-006")]
    assert {f.element for f in dead} == {"bus.end"}
    assert "conductor 3" in dead[0].found


def test_a_phase_that_no_branch_feeds_has_no_lower_limit() -> None:
    """Without its regulator a phase is fed backwards by the delta of t1: an error if it is to be kept at 0.95 pu."""
    case = drop("regulator.reg2")(drop("transformer.reg2")(three_phase()))
    unfed = {f.element for f in check(case) if f.code.startswith("NET-006")}
    assert unfed == {"bus.reg", "bus.end", "bus.lat", "bus.house"}
    for label in unfed:
        case = put(label, v_min_pu=0.0)(case)
    assert check(case) == ()


def test_zero_sequence_resistance_of_a_source_may_be_negative() -> None:
    """It is a difference of fault levels: 3 / I_1 - 2 Z_1. Of one phase it is a mistake all the same."""
    assert check(put("source.grid", r_ohm=matrix(0.1, -0.06))(three_phase())) == ()
    found = check(put("source.grid", r_ohm=matrix(-0.1, 0.0))(three_phase()))
    assert [f.code.split()[0] for f in found] == ["NET-012"]


def test_what_lines_alone_join_floats() -> None:
    feeder = balanced().feeder
    alone = frozenset((bus, 1) for bus in "abc")
    assert topology.floating(feeder, []) == alone
    assert topology.floating(feeder, [("a", 1)]) == frozenset()
    charged = dataclasses.replace(feeder.lines[1], b_us=np.array([[3.0]]))
    assert topology.floating(dataclasses.replace(feeder, lines=(feeder.lines[0], charged)), []) == frozenset()


def test_a_phase_that_nothing_joins_to_a_source_is_dead() -> None:
    """Its bus may have no lower limit: no voltage follows from anything."""
    case = put("bus.lat", conductors=(2, 3), v_min_pu=0.0)(three_phase())
    assert [(f.code.split()[0], f.element) for f in check(case)] == [("NET-006", "bus.lat")]


@st.composite
def spoilt(draw: st.DrawFn) -> Case:
    case = draw(st.sampled_from([three_phase, balanced, with_admittance]))()
    for _ in range(draw(st.integers(1, 6))):
        elements = (*case.feeder.elements, *case.devices)
        windings = tuple(
            w
            for t in case.feeder.transformers
            if isinstance(t.windings, tuple)
            for w in t.windings
            if isinstance(w, Winding)
        )
        terminals = tuple(
            t
            for e in case.feeder.admittances
            if isinstance(e.terminals, tuple)
            for t in e.terminals
            if isinstance(t, Terminal)
        )
        victims = (*elements, *windings, *terminals, case.horizon, case.feeder, case.base)
        victim = draw(st.sampled_from(victims))
        names = [f.name for f in dataclasses.fields(victim) if victim is not case.feeder or f.type not in WIRES]
        object.__setattr__(victim, draw(st.sampled_from(names)), draw(NONSENSE))
    if draw(st.booleans()):
        field = draw(
            st.sampled_from(["profiles", "areas", "where", "alpha_usd_per_kwh", "devices", "feeder", "horizon"])
        )
        object.__setattr__(case, field, draw(NONSENSE))
    if draw(st.booleans()):
        keys = st.one_of(st.sampled_from(["day", "sun", "tariff", "mid", "load.mill"]), st.none(), st.integers())
        field = draw(st.sampled_from(["profiles", "areas", "where"]))
        object.__setattr__(case, field, draw(st.dictionaries(keys, NONSENSE, max_size=4)))
    return case


WIRES = {
    f.type
    for f in dataclasses.fields(Feeder)
    if f.name in ("buses", "lines", "switches", "transformers", "shunts", "admittances")
}


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spoilt())
def test_nonsense_never_raises(case: Case) -> None:
    for radial in (False, True):
        faults = check(case, radial=radial)
        assert all(isinstance(f, Fault) and f.code in CODES and str(f) for f in faults)


def test_a_shunt_of_more_than_a_matrix_is_a_fault() -> None:
    """A stack of matrices, which is not one to ground: found among the nonsense of above, once."""
    case = three_phase()
    stacked = np.ones((2, 2, 2))
    shunt = Shunt(name="odd", bus="mid", conductors=(1, 2, 3), g_us=stacked, b_us=np.eye(3))
    faults = check(case.with_(feeder=dataclasses.replace(case.feeder, shunts=(shunt,))))
    assert any(f.element == "shunt.odd" for f in faults)


# --- topology ---------------------------------------------------------------------------------------------------------


def ring(n: int) -> Feeder:
    names = [f"b{k}" for k in range(n)]
    return Feeder(
        buses=tuple(Bus(name=b, conductors=(1,), v_base_kv=7.2) for b in names),
        lines=tuple(line(f"l{k}", names[k], names[(k + 1) % n], (1,)) for k in range(n)),
    )


def test_a_ring_is_one_loop_of_all_branches() -> None:
    (loop,) = topology.loops(ring(6))
    assert sorted(loop) == [f"line.l{k}" for k in range(6)]


def test_spanning_tree_goes_from_the_root() -> None:
    tree = topology.spanning_tree(three_phase().feeder, ["sub"])
    assert tree.order[0] == "sub"
    assert set(tree.order) == {"sub", "mid", "reg", "end", "lat", "low", "house"}
    assert tree.parent["reg"] == "mid"
    assert tree.via["reg"].branches == ("transformer.reg1", "transformer.reg2", "transformer.reg3")
    assert "sub" not in tree.parent


def test_a_three_winding_transformer_is_a_star() -> None:
    w = {"terminals": (1, 2, 3, 0), "v_rated_kv": 12.47, "s_rated_kva": 100.0}
    star = Transformer(name="t", windings=tuple(Winding(bus=b, **w) for b in "abc"), x_percent=(1.0, 1.0, 1.0))
    buses = tuple(Bus(name=b, conductors=ABC, v_base_kv=7.2) for b in "abc")
    radial = Feeder(buses=buses, transformers=(star,))
    assert topology.loops(radial) == ()
    assert topology.components(radial) == (("a", "b", "c"),)
    tree = topology.spanning_tree(radial, ["b"])
    assert tree.parent == {"a": "b", "c": "b"}
    meshed = dataclasses.replace(radial, lines=(line("bc", "b", "c"),))
    (loop,) = topology.loops(meshed)
    assert set(loop) == {"line.bc", "transformer.t"}


def test_components_and_parallel_groups() -> None:
    feeder_ = three_phase().feeder
    assert len(topology.components(feeder_)) == 1
    (group,) = topology.parallel_groups(feeder_)
    assert group.buses == ("mid", "reg")


def test_number_of_loops_does_not_depend_on_the_root() -> None:
    extra = (line("x", "b0", "b3", (1,)), line("y", "b1", "b4", (1,)))
    meshed = dataclasses.replace(ring(6), lines=(*ring(6).lines, *extra))
    assert {len(topology.loops(meshed, [f"b{k}"])) for k in range(6)} == {3}


def test_large_case_has_no_fault() -> None:
    assert check(builtin.load("tree-5000x24"), radial=True) == ()
