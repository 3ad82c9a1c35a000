"""Reading OpenDSS: one small model per feature, checked against the engine's own solution."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import lateral
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.devices.load import is_idling
from lateral.errors import CaseError, HostileFileError, OptionError, UnsupportedError
from lateral.io.opendss import ImportReport, map_topology, read
from lateral.io.opendss.engine import read_engine
from lateral.io.opendss.report import CODES, OUTCOMES
from lateral.io.opendss.write import write_opendss

HEAD = """
clear
new circuit.tiny bus1=src basekv=12.47 pu=1.02 angle=10 mvasc3=200 mvasc1=180
new linecode.lc nphases=3 units=km r1=0.3 x1=0.4 r0=0.7 x0=1.4 c1=10 c0=5
new line.main bus1=src bus2=b linecode=lc length=2 units=km normamps=250
"""
TAIL = """
set voltagebases=[12.47 0.48 0.208]
calcvoltagebases
solve
"""


def make(tmp_path: Path, body: str, *, head: str = HEAD, tail: str = TAIL) -> Path:
    master = tmp_path / "master.dss"
    master.write_text(head + body + tail)
    return master


def voltage_error(case: Case, report: ImportReport) -> float:
    """Largest difference to the engine's voltages, pu, with what the inverters did."""
    reference = report.reference
    assert reference is not None
    assert reference.converged
    dispatch = {}
    for kind, units in (("pv", case.pvs), ("battery", case.batteries)):
        if units:
            pq = np.array([reference.dispatch[u.label] for u in units])
            dispatch[kind] = (pq[:, :1], pq[:, 1:])
    flow = power_flow(case, dispatch=dispatch or None)
    assert flow.all_converged
    found = reference.at(flow.index.nodes)
    return float(np.max(np.abs(flow.v[:, 0] - found) / (1e3 * flow.index.v_base_kv)))


def read_checked(tmp_path: Path, body: str, **head_and_tail: str) -> tuple[Case, ImportReport]:
    """Read, and require the engine's voltages and an entry for every object."""
    master = make(tmp_path, body, **head_and_tail)
    case, report = read(master)
    assert voltage_error(case, report) < 1e-6
    assert report.max_primitive_error < 1e-9
    assert report.max_dv_pu == pytest.approx(voltage_error(case, report), abs=1e-9)
    model = read_engine(master)
    every = {f"{cls}.{str(o['name']).lower()}" for cls, objects in model.classes.items() for o in objects}
    assert {e.element for e in report.entries} == every
    for entry in report.entries:
        assert entry.outcome in OUTCOMES
        assert entry.code in CODES
        assert entry.reason or entry.code == "IMP-001"
        assert entry.file or entry.code in ("IMP-035", "IMP-001", "IMP-003")
    assert {n.code for n in report.notes} <= set(CODES)
    return case, report


# ------------------------------------------------------------------------------------------------------- wires


def test_line_and_source(tmp_path: Path) -> None:
    case, report = read_checked(tmp_path, "new load.l bus1=b kv=12.47 kw=900 kvar=300")
    (line,) = case.feeder.lines
    assert line.conductors_from == (1, 2, 3)
    assert line.i_max_a == 250
    assert line.length_km == 2
    r_self = 2 * (2 * 0.3 + 0.7) / 3
    assert line.r_ohm[0, 0] == pytest.approx(r_self)
    assert line.b_us is not None
    assert line.b_us[0, 0] == pytest.approx(2 * np.pi * 60 * 1e-3 * 2 * (2 * 10 + 5) / 3)
    (source,) = case.sources
    assert source.v_pu == pytest.approx(1.02)
    assert source.angle_deg == (10, -110, -230)
    assert source.r_ohm.shape == (3, 3)
    assert case.where["line.main"] == "master.dss:5"
    assert case.where["load.l"] == "master.dss:6"
    assert report.entry["line.main"].became == ("line.main",)
    assert report.entry["vsource.source"].outcome == "mapped"
    assert report.operating_point.startswith("snapshot")
    assert case.horizon.n_steps == 1


@pytest.mark.parametrize(
    "line",
    [
        "new line.x bus1=b bus2=c r1=0.1 x1=0.2 r0=0.3 x0=0.6 c1=3 c0=1 length=1 units=mi",
        "new line.x bus1=b.1 bus2=c.1 phases=1 r1=0.1 x1=0.2 c1=3 length=1",
        "new line.x bus1=b.3.1 bus2=c.3.1 phases=2 rmatrix=(0.2|0.1 0.3) xmatrix=(0.5|0.2 0.6) cmatrix=(9|-2 9)",
        "new line.x bus1=b.1.2.3 bus2=c.2.3.1 linecode=lc length=1 units=km",
        "new line.x bus1=b bus2=c switch=y",
        "new reactor.x bus1=b bus2=c phases=3 r=0.5 x=2",
        "new reactor.x bus1=b.1.2.3 bus2=c.1.2.3 z1=(0.1,0.5) z0=(0.3,1.5)",
        "new capacitor.x bus1=b bus2=c phases=3 kvar=9000 kv=12.47",
        "new fault.x bus1=b bus2=c phases=3 r=1.5",
    ],
)
def test_series_elements(tmp_path: Path, line: str) -> None:
    phase = line.split("bus2=c")[1].split()[0] or ".1"
    case, report = read_checked(tmp_path, f"{line}\nnew load.l phases=1 bus1=c.{phase[1]} kv=7.2 kw=200 kvar=50")
    cls = line.split()[1].split(".")[0]
    assert report.entry[f"{cls}.x"].outcome == "mapped"
    assert len(case.feeder.lines) + len(case.feeder.switches) == 2


@pytest.mark.parametrize("far", ["bus2=c", ""], ids=["series", "to ground"])
def test_a_reactor_of_unequal_sequences_is_a_generic_admittance(tmp_path: Path, far: str) -> None:
    """Z1 and Z2 differ, so that no symmetric matrix is it: solved, replayed and written as the engine has it."""
    size = "z1=(0.1,0.6) z0=(0.3,1.8) z2=(0.2,0.9)" if far else "z1=(10,60) z0=(30,180) z2=(20,90)"
    body = f"""
new line.on bus1=b bus2=c linecode=lc length={0.001 if not far else 9} units=km normamps=400
new reactor.x bus1=b {far} phases=3 {size}
new load.one bus1=c.1 phases=1 kv=7.2 kw=300 kvar=100 model=2
new load.all bus1=c kv=12.47 kw=500 kvar=200"""
    case, report = read_checked(tmp_path, body)
    assert report.entry["reactor.x"].code == "IMP-066"
    assert "Z1 and Z2 differ" in report.entry["reactor.x"].reason
    (made,) = case.feeder.admittances
    assert not made.is_reciprocal
    assert not [f for f in lateral.check(case, radial=False) if f.code == "NET-011"]
    flow = power_flow(case)
    free = case.with_(feeder=dataclasses.replace(case.feeder, buses=tuple(map(without_limits, case.feeder.buses))))
    for formulation in ("current-voltage", "bus-injection", "linearised"):
        result = lateral.solve(free, formulation, "loss")
        assert result.ok, result.status_text
        # the objective is a sum over the matrix, the power flow's losses are a balance of powers
        assert result.objective == pytest.approx(float(flow.losses_kw[0]), rel=1e-7)
        assert result.replay is not None
        assert result.replay.summary()["max_dv_pu"] < 1e-7
        assert abs(result.replay.summary()["dloss_kw"]) < 1e-6 * float(flow.losses_kw[0])
    if far:
        with pytest.raises(UnsupportedError, match=r"NET-041.*reactor_x"):
            lateral.solve(free, "lindist3flow", "loss")
    _, again = read(write_opendss(case, tmp_path / "again"))
    assert again.reference is not None
    assert report.reference is not None
    off = np.abs(again.reference.v_volt - report.reference.at(again.reference.nodes))
    assert off.max() < 1e-7 * 7200


def test_a_source_of_unequal_sequences(tmp_path: Path) -> None:
    head = HEAD.replace("mvasc3=200 mvasc1=180", "z1=[0.3 0.9] z2=[0.5 1.6] z0=[0.4 2]")
    body = "new load.one bus1=b.1 phases=1 kv=7.2 kw=300 kvar=100\nnew load.all bus1=b kv=12.47 kw=500 kvar=200"
    case, report = read_checked(tmp_path, body, head=head)
    assert lateral.check(case) == ()
    result = lateral.solve(case, "current-voltage", "loss")
    assert result.ok
    assert result.replay is not None
    assert result.replay.summary()["max_dv_pu"] < 1e-7
    _, again = read(write_opendss(case, tmp_path / "again"))
    assert again.reference is not None
    assert report.reference is not None
    assert np.abs(again.reference.v_volt - report.reference.at(again.reference.nodes)).max() < 1e-7 * 7200
    (source,) = case.sources
    x = source.x_ohm.copy()
    x[0, 1] += 0.5  # what no source of sequence impedances has
    odd = case.with_(devices=tuple(dataclasses.replace(d, x_ohm=x) if d is source else d for d in case.devices))
    assert {f.code for f in lateral.check(odd)} == {"NET-011 asymmetric matrix"}
    with pytest.raises(UnsupportedError, match="IO-066"):
        write_opendss(odd, tmp_path / "odd")


def without_limits(bus: lateral.Bus) -> lateral.Bus:
    return dataclasses.replace(bus, v_min_pu=0.0, v_max_pu=float("inf"))


@pytest.mark.parametrize("rating", ["", " normamps=90"])
def test_conductors_that_end_on_one_node_are_no_line(tmp_path: Path, rating: str) -> None:
    """Two neutrals bonded at the far end: a generic admittance, which the exact form takes."""
    body = f"""
new line.x bus1=b.1.2.3.0.0 bus2=c.1.2.3.4.5 phases=5 length=1 r1=0.2 x1=0.3 r0=0.4 x0=0.9 c1=0 c0=0 normamps=90
new line.y bus1=c.1.2.3.4.5 bus2=d.1.2.3.4.4 phases=5 length=1 r1=0.2 x1=0.3 r0=0.4 x0=0.9 c1=0 c0=0{rating}
new load.l phases=1 bus1=d.1.4 kv=7.2 kw=300 kvar=90"""
    case, report = read_checked(tmp_path, body)
    assert [wire.name for wire in case.feeder.admittances] == ["line_y"]
    entry = report.entry["line.y"]
    assert entry.code == "IMP-066"
    assert entry.outcome == ("approximated" if rating else "mapped")
    assert ("limit is not held" in entry.reason) == bool(rating)
    assert lateral.check(case, radial=False) == ()
    free = case.with_(feeder=dataclasses.replace(case.feeder, buses=tuple(map(without_limits, case.feeder.buses))))
    result = lateral.solve(free, "current-voltage", "loss")
    assert result.ok, result.status_text
    assert result.objective == pytest.approx(float(power_flow(case).losses_kw[0]), rel=1e-7)
    assert result.replay is not None
    assert result.replay.summary()["max_dv_pu"] < 1e-7


def test_geometry(tmp_path: Path) -> None:
    body = """
new wiredata.acsr gmrac=0.0255 gmrunits=ft rac=0.306 runits=mi radius=0.0313 radunits=ft normamps=530
new linegeometry.g nconds=4 nphases=3 reduce=y
~ cond=1 wire=acsr x=-1.2 h=9 units=m
~ cond=2 wire=acsr x=0 h=9 units=m
~ cond=3 wire=acsr x=1.2 h=9 units=m
~ cond=4 wire=acsr x=0 h=7.5 units=m
new line.x bus1=b bus2=c geometry=g length=3 units=mi
new load.l bus1=c kv=12.47 kw=600 kvar=200"""
    case, report = read_checked(tmp_path, body)
    assert case.feeder.lines[1].r_ohm.shape == (3, 3)
    assert report.entry["wiredata.acsr"].code == "IMP-003"
    assert report.entry["linegeometry.g"].code == "IMP-003"


def test_neutral_conductor_and_its_grounding(tmp_path: Path) -> None:
    body = """
new linecode.four nphases=4 units=km rmatrix=(0.4|0.1 0.4|0.1 0.1 0.4|0.1 0.1 0.1 0.6)
~ xmatrix=(0.9|0.4 0.9|0.4 0.4 0.9|0.4 0.4 0.4 1.1)
new line.x bus1=b.1.2.3.0 bus2=c.1.2.3.4 linecode=four length=1 units=km
new line.y bus1=c.1.2.3.4 bus2=d.1.2.3.0 linecode=four length=1 units=km
new line.z bus1=c.1.2.3.0 bus2=e.1.2.3.0 linecode=four length=1 units=km
new reactor.g phases=1 bus1=c.4 bus2=c.0 r=5 x=0.1
new load.l phases=1 bus1=c.1.4 kv=7.2 kw=300 kvar=80
new load.m phases=1 bus1=e.2 kv=7.2 kw=300 kvar=80"""
    case, report = read_checked(tmp_path, body)
    assert case.feeder.bus["c"].conductors == (1, 2, 3, 4)
    assert case.feeder.lines[1].conductors_from == (1, 2, 3, 4)
    assert report.entry["line.x"].code == "IMP-059"
    assert case.feeder.lines[3].conductors_from == (1, 2, 3)  # grounded at both ends: reduced
    assert {s.name for s in case.feeder.shunts} == {"reactor_g", "ground_b_4", "ground_d_4"}


def test_switches(tmp_path: Path) -> None:
    body = """
new line.s1 bus1=b bus2=c switch=y
new line.s2 bus1=c bus2=d switch=y
new line.s3 bus1=c bus2=b switch=y enabled=n
new line.tie bus1=d bus2=b linecode=lc length=1 units=km
new swtcontrol.ctl switchedobj=line.s2 switchedterm=1 action=open
new load.l bus1=c kv=12.47 kw=300
new load.m bus1=d kv=12.47 kw=300
open line.s2 1"""
    case, report = read_checked(tmp_path, body)
    closed = {s.name: s.closed for s in case.feeder.switches}
    assert closed == {"s1": True, "s2": False}
    assert report.entry["line.s3"].code == "IMP-020"
    assert report.entry["swtcontrol.ctl"].code == "IMP-002"


def free(case: Case) -> Case:
    """A case without limits of the voltage."""
    buses = tuple(dataclasses.replace(b, v_min_pu=0.0, v_max_pu=float("inf")) for b in case.feeder.buses)
    return case.with_(feeder=dataclasses.replace(case.feeder, buses=buses))


def solves(case: Case, *formulations: str) -> None:
    """Exact formulations solve it, and the engine has their voltages."""
    for formulation in formulations or ("current-voltage", "bus-injection"):
        result = lateral.solve(case, formulation)
        assert result.replay is not None
        assert result.replay.errors is not None
        assert result.replay.errors.max_dv_pu < 1e-8


def test_one_open_conductor(tmp_path: Path) -> None:
    body = """
new line.x bus1=b bus2=c linecode=lc length=1 units=km
new line.y bus1=b bus2=c linecode=lc length=10 units=km normamps=100
new load.l bus1=c kv=12.47 kw=300
open line.y 1 2"""
    case, report = read_checked(tmp_path, body)
    assert report.entry["line.y"].outcome == "mapped"
    assert report.entry["line.y"].code == "IMP-014"
    assert case.feeder.lines[2].conductors_from == (1, 3)
    assert case.feeder.lines[2].i_max_a == 100
    assert case.feeder.lines[2].b_us is None
    assert [e.name for e in case.feeder.admittances] == ["line_y"]
    solves(free(case))


def test_a_line_that_is_open_at_one_end_is_charged(tmp_path: Path) -> None:
    """Its charging, 10 km of it, was left out: 7e-5 pu."""
    body = """
new line.x bus1=b bus2=c linecode=lc length=10 units=km
new load.l bus1=c kv=12.47 kw=300
open line.x term=2"""
    case, report = read_checked(tmp_path, body)
    assert report.entry["line.x"].became == ("shunt.line_x",)
    assert report.entry["load.l"].code == "IMP-021"
    assert [b.name for b in case.feeder.buses] == ["src", "b"]
    solves(free(case), "current-voltage")


_OPEN = "new line.y {ends} linecode=lc length=10 units=km\n{more}\n{opened}"
#: A charged line with conductors that are open at its far end.
OPEN_FAR = {
    "one": ("bus1=b bus2=c", "new load.l phases=2 bus1=c.1.3 kv=12.47 kw=300", "open line.y 2 2", (5,)),
    "two": ("bus1=b bus2=c", "new load.l phases=1 bus1=c.1 kv=7.2 kw=300", "open line.y 2 2\nopen line.y 2 3", (5, 6)),
    "the other way round": ("bus1=c bus2=b", "new load.l phases=1 bus1=c.1 kv=7.2 kw=300", "open line.y 1 2", (5,)),
    "lines behind": (
        "bus1=b bus2=c",
        "new line.q bus1=c bus2=d linecode=lc length=3 units=km\nnew load.l phases=1 bus1=d.1 kv=7.2 kw=300",
        "open line.y 2 2",
        (5,),
    ),
    "another line beside": (
        "bus1=b bus2=c",
        "new line.x bus1=b bus2=c linecode=lc length=1 units=km\nnew load.l bus1=c kv=12.47 kw=300",
        "open line.y 2 2",
        (5,),
    ),
    "a neutral": (
        "bus1=b bus2=c",
        "new reactor.n phases=1 bus1=c.4 r=2 x=1\nnew load.l bus1=c.1.4 phases=1 kv=7.2 kw=300",
        "open line.y 2 3",
        (5,),
    ),
}


@pytest.mark.parametrize("which", OPEN_FAR)
def test_conductors_that_are_open_at_the_far_end_keep_the_line(tmp_path: Path, which: str) -> None:
    """Its charging was an admittance without a branch form (`NET-041`): radial formulations declined such a feeder."""
    ends, more, opened, made = OPEN_FAR[which]
    case, report = read_checked(tmp_path, _OPEN.format(ends=ends, more=more, opened=opened))
    assert case.feeder.admittances == ()
    line = next(x for x in case.feeder.lines if x.name == "y")
    far = line.conductors_to if line.bus_to == "c" else line.conductors_from
    assert tuple(c for c in far if c > 4) == made
    assert len(far) == 3
    assert "made up for their open ends" in report.entry["line.y"].reason
    assert (report.entry["line.y"].outcome, report.entry["line.y"].code) == ("mapped", "IMP-014")
    assert check(case) == ()
    solves(free(case))
    result = lateral.solve(free(case), "lindist3flow")
    assert result.replay is not None
    assert result.replay.errors is not None
    if which != "a neutral":  # which it takes as grounded
        assert result.replay.errors.max_dv_pu < 1e-5  # linear about its operating point
    for relaxation in ("sdp", "soc3"):
        assert lateral.solve(free(case), relaxation).status_short.startswith("optimal")


@pytest.mark.parametrize(
    ("first", "made"), [(True, {"g": [5], "y": [6], "z": [7]}), (False, {"y": [5], "z": [6], "g": [7]})]
)
def test_open_ends_on_one_bus_have_conductors_of_their_own(
    tmp_path: Path, first: bool, made: dict[str, list[int]]
) -> None:
    """Also beside an end that is on ground, before or after them; 4 is a neutral that the files have."""
    grounded = "new line.g phases=1 bus1=b.1 bus2=c.0 r1=500 x1=100 r0=500 x0=100 c1=0 c0=0 length=1"
    body = f"""
{grounded if first else ""}
new line.y bus1=b bus2=c linecode=lc length=10 units=km
new line.z bus1=b bus2=c linecode=lc length=4 units=km
{"" if first else grounded}
new load.l phases=1 bus1=c.1.4 kv=7.2 kw=300
new reactor.n phases=1 bus1=c.4 bus2=c.0 r=2 x=1
open line.y 2 2
open line.z 2 3"""
    case, _ = read_checked(tmp_path, body)
    assert {x.name: [c for c in x.conductors_to if c > 4] for x in case.feeder.lines if x.bus_to == "c"} == made
    solves(free(case))


#: What hangs on a line of which one conductor is open, and whether it gives that conductor a voltage.
BEHIND_AN_OPEN_CONDUCTOR = {
    "delta-wye": ("new transformer.t windings=2 buses=(c x) conns=(delta wye) kvs=(12.47 0.48) xhl=5", True),
    "delta-delta": ("new transformer.t windings=2 buses=(c x) conns=(delta delta) kvs=(12.47 0.48) xhl=5", True),
    "wye-delta": ("new transformer.t windings=2 buses=(c x) conns=(wye delta) kvs=(12.47 0.48) xhl=5 %r=1", True),
    "wye-wye": ("new transformer.t windings=2 buses=(c x) conns=(wye wye) kvs=(12.47 0.48) xhl=5", False),
    "a stub": ("new line.q bus1=c bus2=x linecode=lc length=1 units=km", True),
    "a delta load": ("new load.d bus1=c kv=12.47 kw=100 conn=delta", True),
    "a delta load of one phase": ("new load.d bus1=c.1.2 phases=1 kv=12.47 kw=100 conn=delta", True),
    "a capacitor": ("new capacitor.d bus1=c kv=12.47 kvar=100 conn=delta", True),
    "a wye without ground": ("new capacitor.d bus1=c.1.2.3 bus2=c.4.4.4 kv=12.47 kvar=100", True),
    "a generator": ("new generator.d bus1=c kv=12.47 kw=100 conn=delta", True),
    "nothing": ("", False),
}


@pytest.mark.parametrize("what", BEHIND_AN_OPEN_CONDUCTOR)
@pytest.mark.parametrize("charging", ["", "c1=0 c0=0"])
def test_behind_an_open_conductor(tmp_path: Path, what: str, charging: str) -> None:
    """A conductor that no branch feeds has the voltage that what hangs on it gives it; `NET-006` refused it."""
    behind, unfed = BEHIND_AN_OPEN_CONDUCTOR[what]
    load = "new load.l bus1=x kv=0.48 kw=100 kvar=30 model=2" if "transformer" in behind else ""
    body = f"""
new line.s bus1=b bus2=c linecode=lc length=1 units=km {charging}
{behind}
{load}
open line.s term=2 cond=2"""
    case, report = read_checked(tmp_path, body)
    said = [n.text for n in report.notes if n.code == "IMP-071"]
    assert bool(said) == unfed
    if unfed:
        assert said[0].startswith("bus c: conductor 2 fed by no branch")
        assert case.feeder.bus["c"].v_min_pu == 0.0
    assert check(case) == ()
    solves(free(case))


@pytest.mark.parametrize(
    "behind",
    [
        "new capacitor.d bus1=c kv=12.47 kvar=100 r=2",  # a shunt of which a conductor has no path to a source
        "new reactor.d phases=3 bus1=c bus2=d r=1 x=1\nnew load.l phases=1 bus1=d.1 kv=7.2 kw=30",  # a line likewise
        "new line.d bus1=c bus2=d switch=y c1=0 c0=0 r1=1 r0=1 x1=0 x0=0\nnew load.l bus1=d kv=12.47 kw=30",
    ],
)
def test_conductors_that_nothing_couples_to_the_live_ones(tmp_path: Path, behind: str) -> None:
    body = f"new line.s bus1=b bus2=c linecode=lc length=1 units=km\n{behind}\nopen line.s term=2 cond=2"
    case, _ = read_checked(tmp_path, body)
    assert all(2 not in b.conductors for b in case.feeder.buses if b.name in "cd")
    assert check(case) == ()
    solves(free(case))


def test_a_conductor_whose_voltage_nothing_fixes_is_left_out(tmp_path: Path) -> None:
    """Without charging the voltage along a stub is induced, that of its ends is anything: the matrix was singular."""
    body = """
new linecode.z nphases=3 units=km r1=0.3 x1=0.4 r0=0.7 x0=1.4 c1=0 c0=0
new line.s bus1=b bus2=c linecode=z length=1 units=km
new line.q bus1=c bus2=d linecode=z length=1 units=km
new load.l phases=1 bus1=d.1 kv=7.2 kw=100
open line.s term=2 cond=2"""
    case, report = read_checked(tmp_path, body)
    assert case.feeder.bus["d"].conductors == (1, 3)
    assert {n.text for n in report.notes if n.code == "IMP-055"} == {
        f"bus {b}: conductors 2 have no path to a source" for b in "cd"
    }
    assert check(case) == ()
    solves(free(case), "current-voltage")


def test_a_transformer_with_an_open_conductor_says_the_base(tmp_path: Path) -> None:
    body = """
new transformer.t windings=2 buses=(b x) conns=(wye delta) kvs=(12.47 0.48) kvas=(800 800) xhl=3
new load.l bus1=x.2.3 phases=1 kv=0.48 kw=6 model=2
open transformer.t term=2 cond=1"""
    case, _ = read_checked(tmp_path, body)
    assert case.feeder.bus["x"].v_base_kv == pytest.approx(0.48 / 3**0.5)
    assert check(case) == ()


@pytest.mark.parametrize("model", [1, 2, 5])
@pytest.mark.parametrize("conn", ["wye", "delta"])
def test_a_load_with_an_open_conductor(tmp_path: Path, model: int, conn: str) -> None:
    """To the engine it is a constant admittance then, whatever its model; it was taken as closed, 1.7e-3 pu off."""
    body = f"""
new load.l bus1=b kv=12.47 kw=900 kvar=200 model={model} conn={conn}
open load.l term=1 cond=2"""
    case, report = read_checked(tmp_path, body)
    assert report.entry["load.l"].outcome == "approximated"
    assert report.entry["load.l"].code == "IMP-014"
    assert case.loads == ()
    solves(free(case), "current-voltage")


def test_a_load_that_is_open_draws_nothing(tmp_path: Path) -> None:
    case, report = read_checked(tmp_path, "new load.l bus1=b kv=12.47 kw=900\nopen load.l term=1")
    assert report.entry["load.l"].code == "IMP-014"
    assert case.loads == ()
    assert case.feeder.admittances == ()


@pytest.mark.parametrize(
    ("element", "became"),
    [
        (
            "line.q bus1=b bus2=c length=0.5 units=km rmatrix=(0.45 | 0.72 0.34 | 0.77 0.77 0.92) "
            "xmatrix=(0.83 | 0.09 0.4 | 0.97 0.63 0.52) cmatrix=(200 | -9 200 | -9 -9 200)",
            "admittance.line_q",
        ),
        ("line.q phases=1 bus1=b.1 bus2=c.1 r1=-0.1 x1=0.5 c1=3 length=1 normamps=90", "admittance.line_q"),
        ("reactor.q phases=3 bus1=b bus2=c r=-0.1 x=0.5", "admittance.reactor_q"),
        ("vsource.q bus1=b basekv=12.47 pu=1 angle=9 mvasc3=100 mvasc1=400", "source.q"),  # r0 below zero
    ],
)
def test_negative_resistance_is_solved_and_said(tmp_path: Path, element: str, became: str) -> None:
    """The engine takes it, and so do forms that take any admittance; `NET-012` refused it."""
    bus = "b" if "vsource" in element else "c"
    case, report = read_checked(tmp_path, f"new {element}\nnew load.l phases=1 bus1={bus}.1 kv=7.2 kw=30")
    source = element.split()[0]
    assert report.entry[source].became == (became,)
    (note,) = (n for n in report.notes if n.code == "IMP-073")
    assert note.text.startswith(f"{source}: a resistance matrix with the eigenvalue -")
    assert ("limit is not held" in report.entry[source].reason) == ("normamps" in element)
    assert check(case) == ()
    solves(free(case))


def test_buses_that_a_line_joins_have_one_base(tmp_path: Path) -> None:
    """A base set for one of them alone was `NET-014`."""
    body = """
new transformer.t windings=2 buses=(b x) conns=(delta wye) kvs=(12.47 4.16) kvas=(500 500) xhl=5
new line.q bus1=x bus2=y linecode=lc length=1 units=km
new load.l bus1=y kv=4.16 kw=100"""
    tail = "\nset voltagebases=[12.47 4.16]\ncalcvoltagebases\nsetkvbase bus=x kvll=4.8\nsolve\n"
    case, report = read_checked(tmp_path, body, tail=tail)
    assert case.feeder.bus["x"].v_base_kv == case.feeder.bus["y"].v_base_kv == pytest.approx(4.16 / 3**0.5)
    assert next(n.text for n in report.notes if n.code == "IMP-053").endswith("one here: x")
    assert check(case) == ()
    solves(case, "current-voltage")


def test_a_source_beyond_the_usual_limits(tmp_path: Path) -> None:
    """The limits are the reader's, not the files', so that the bus of the source is given some that hold it."""
    head = HEAD.replace("pu=1.02", "pu=1.2")
    case, report = read_checked(tmp_path, "new load.l bus1=b kv=12.47 kw=900 vmaxpu=2", head=head)
    assert next(n.text for n in report.notes if n.code == "IMP-072").startswith("bus src: its source gives 1.2 pu")
    assert (case.feeder.bus["src"].v_min_pu, case.feeder.bus["src"].v_max_pu) == (0.95, pytest.approx(1.25))
    assert case.feeder.bus["b"].v_max_pu == 1.05
    assert check(case) == ()


def test_shunts(tmp_path: Path) -> None:
    body = """
new reactor.w bus1=b phases=3 kvar=300 kv=12.47
new reactor.d bus1=b phases=3 conn=delta kvar=300 kv=12.47
new reactor.n phases=1 bus1=b.2 bus2=b.3 r=300 x=200
new fault.f phases=1 bus1=b.1 r=500"""
    case, report = read_checked(tmp_path, body)
    assert len(case.feeder.shunts) == 4
    assert report.summary["approximated"] == 0


# ------------------------------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("conns", ["delta wye", "wye wye", "wye delta", "delta delta"])
@pytest.mark.parametrize("lead", ["lag", "lead"])
def test_three_phase_transformers(tmp_path: Path, conns: str, lead: str) -> None:
    body = f"""
new transformer.t phases=3 windings=2 buses=(b c) conns=({conns}) kvs=(12.47 0.48) kvas=(500 500) xhl=5
~ %rs=(0.6 0.7) taps=(1.0 1.025) %noloadloss=0.3 %imag=0.8 leadlag={lead}
new load.l bus1=c kv=0.48 kw=240 kvar=80 conn=delta
new load.m phases=1 bus1=c.1.2 kv=0.48 kw=40"""
    case, _ = read_checked(tmp_path, body)
    (t,) = case.feeder.transformers
    assert t.s_max_kva == pytest.approx(550)
    assert t.delta_lead is (lead == "lead")
    assert t.windings[1].tap == 1.025
    assert t.no_load_loss_percent == pytest.approx(0.3)


def test_center_tap(tmp_path: Path) -> None:
    body = """
new transformer.t phases=1 windings=3 buses=(b.1.0 c.1.0 c.0.2) kvs=(7.2 0.12 0.12) kvas=(25 25 25)
~ xhl=2.04 xht=2.04 xlt=1.36 %rs=(0.6 1.2 1.2)
new load.l phases=1 bus1=c.1 kv=0.12 kw=6 pf=0.95
new load.m phases=1 bus1=c.2 kv=0.12 kw=3
new load.n phases=2 bus1=c.1.2 kv=0.208 kw=5"""
    case, _ = read_checked(tmp_path, body)
    (t,) = case.feeder.transformers
    assert [w.terminals for w in t.windings] == [(1, 0), (1, 0), (0, 2)]
    assert case.feeder.bus["c"].conductors == (1, 2)


def test_neutral_terminals(tmp_path: Path) -> None:
    body = """
new transformer.t phases=3 buses=(b c.1.2.3.4) conns=(delta wye) kvs=(12.47 0.48) kvas=(500 500) xhl=5
~ wdg=2 rneut=2 xneut=1
new transformer.u phases=3 buses=(b.1.2.3.5 d.1.2.3.4) conns=(wye wye) kvs=(12.47 0.48) kvas=(500 500) xhl=5
new reactor.g phases=1 bus1=d.4 r=0.5 x=0
new load.l phases=1 bus1=c.1.4 kv=0.277 kw=50
new load.m phases=1 bus1=d.1.4 kv=0.277 kw=50"""
    case, _ = read_checked(tmp_path, body)
    t, u = case.feeder.transformers
    assert t.windings[1].terminals == (1, 2, 3, 4)
    assert t.windings[1].r_neutral_ohm == 2
    assert u.windings[0].terminals == (1, 2, 3, 5)


@pytest.mark.parametrize(
    ("phases", "buses", "conns"),
    [
        (3, "b.1.0 x.1.0", "wye wye"),  # one conductor given: the engine makes it 1, 0, 3 and ground
        (3, "b.1.2.3 x.1.0.0.0", "wye wye"),  # two cores are shorted to ground
        (3, "b.1.2.3 x.1.2.0", "wye delta"),  # a grounded corner
        (3, "b.1.2.3 x.1.0.0", "delta delta"),
        (3, "b.1.2.2 x.1.2.3", "wye wye"),  # two cores on one phase
        (3, "b.1.2.3 x.1.2.3.1", "wye wye"),  # the neutral on a phase
        (2, "b.1.0 x.1.0", "delta delta"),
    ],
)
def test_windings_on_odd_conductors(tmp_path: Path, phases: int, buses: str, conns: str) -> None:
    """They are no windings of a transformer of the case, but the engine's matrix of them is as good as any."""
    kvs = "12.47 0.48"
    body = f"""
new transformer.t windings=2 phases={phases} buses=({buses}) conns=({conns}) kvs=({kvs}) kvas=(100 100) xhl=5
new load.l bus1=x.1 phases=1 kv=0.277 kw=20 kvar=5 vminpu=0.5 vmaxpu=2"""
    case, report = read_checked(tmp_path, body)
    assert report.entry["transformer.t"].code == "IMP-066"
    assert report.entry["transformer.t"].reason.endswith("kVA limit is not held.")
    assert check(case) == ()
    solves(free(case), "current-voltage")


def test_open_delta_regulators(tmp_path: Path) -> None:
    body = """
new transformer.r1 phases=1 windings=2 buses=(b.1.2 c.1.2) conns=(delta delta) kvs=(12.47 12.47) kvas=(2000 2000) xhl=1
new regcontrol.r1 transformer=r1 winding=2 vreg=122 band=2 ptratio=105
new transformer.r2 like=r1 buses=(b.3.2 c.3.2)
new regcontrol.r2 like=r1 transformer=r2
new line.j bus1=b.2 bus2=c.2 phases=1 r1=0.0001 x1=0 c1=0
new load.l bus1=c kv=12.47 kw=900 kvar=400 conn=delta"""
    case, report = read_checked(tmp_path, body)
    assert len(case.regulators) == 2
    assert report.entry["regcontrol.r1"].code == "IMP-002"
    assert set(report.taps) == {"r1:2", "r2:2"}
    assert report.taps["r1:2"] == case.feeder.transformers[0].windings[1].tap


# ------------------------------------------------------------------------------------------------------ devices


@pytest.mark.parametrize("model", range(1, 9))
@pytest.mark.parametrize(
    "where",
    [
        "bus1=b kv=12.47",
        "bus1=b kv=12.47 conn=delta",
        "bus1=b.2 phases=1 kv=7.2",
        "bus1=b.3.1 phases=1 kv=12.47",
        "bus1=b.2.3 phases=1 kv=12.47 conn=delta",
        "bus1=b.1.3 phases=2 kv=12.47",
        "bus1=b.1.2.3 phases=2 kv=12.47 conn=delta",
        "bus1=b kv=16",
        "bus1=b kv=10.5 vminpu=0.8 vmaxpu=1.1",
    ],
)
def test_loads(tmp_path: Path, model: int, where: str) -> None:
    case, report = read_checked(
        tmp_path, f"new load.l {where} model={model} kw=300 kvar=100 zipv=(0.2 0.3 0.5 0.1 0.4 0.5 0.6) cvrwatts=0.8"
    )
    (load,) = case.loads
    assert load.p_kw == pytest.approx(300)
    assert load.q_kvar == pytest.approx(100)
    assert report.entry["load.l"].outcome == "mapped"


def test_load_multiplier_and_status(tmp_path: Path) -> None:
    body = """
new load.v bus1=b kv=12.47 kw=300 pf=0.9
new load.f bus1=b kv=12.47 kw=300 status=fixed
new load.x bus1=b kv=12.47 xfkva=500 allocationfactor=0.4
set loadmult=0.5"""
    case, report = read_checked(tmp_path, body)
    power = {load.name: load.p_kw for load in case.loads}
    assert power == pytest.approx({"v": 150, "f": 300, "x": 0.5 * 0.4 * 500 * 0.88})
    assert "0.5" in report.operating_point


@pytest.mark.parametrize("what", ["load.x model=6", "load.x model=7", "generator.x model=4", "generator.x model=5"])
def test_a_fixed_kvar_is_scaled_by_nothing(tmp_path: Path, what: str) -> None:
    """Neither by the multipliers of the files nor by a shape, also one that holds the kW."""
    multiplier = "loadmult" if what.startswith("load") else "genmult"
    body = f"new {what} bus1=b kv=12.47 kw=300 kvar=100 vminpu=0.8 vmaxpu=1.2\nset {multiplier}=0.5"
    case, _ = read_checked(tmp_path, body)
    assert abs(case.loads[0].p_kw) == pytest.approx(150)
    assert abs(case.loads[0].q_kvar) == pytest.approx(100)
    shape = "new loadshape.s npts=2 interval=1 useactual=yes mult=(40 80) qmult=(30 60)"
    case, _ = read(make(tmp_path, f"{shape}\nnew {what} bus1=b kv=12.47 daily=s"), horizon="daily")
    (load,) = case.loads
    np.testing.assert_allclose(np.abs(load.p_kw * case.multiplier(load.profile)), [40, 80])
    assert abs(load.q_kvar) == 60  # what the engine takes: the largest of the shape, at every step


def test_loads_as_admittances(tmp_path: Path) -> None:
    case, report = read_checked(tmp_path, "new load.l bus1=b kv=12.47 kw=300\nset loadmodel=admittance")
    assert case.loads[0].model == "constant_impedance"
    assert "IMP-054" in {n.code for n in report.notes}


@pytest.mark.parametrize("model", [1, 2])
@pytest.mark.parametrize("conn", ["wye", "delta"])
def test_generators(tmp_path: Path, model: int, conn: str) -> None:
    case, report = read_checked(
        tmp_path,
        f"new generator.g bus1=b kv=12.47 kw=500 kvar=100 model={model} conn={conn}\nnew load.g bus1=b kv=12.47",
    )
    load = next(d for d in case.loads if d.name == "generator_g")
    assert (load.p_kw, load.q_kvar) == (-500, -100)
    assert report.entry["generator.g"].code == "IMP-010"
    assert report.entry["generator.g"].outcome == "approximated"


@pytest.mark.parametrize("multiplier", [0.5, 0.0])
def test_generator_multiplier(tmp_path: Path, multiplier: float) -> None:
    case, _ = read_checked(tmp_path, f"new generator.g bus1=b kv=12.47 kw=500 kvar=100\nset genmult={multiplier}")
    assert case.loads[0].p_kw == -500 * multiplier


@pytest.mark.parametrize(
    ("stated", "on"),
    [
        ("dispmode=loadlevel dispvalue=2", 0),
        ("dispmode=loadlevel dispvalue=2 forceon=yes", 1),
        ("dispmode=loadlevel dispvalue=2\nset loadmult=2.5", 1),
        ("dispmode=loadlevel", 1),
        ("dispmode=price dispvalue=25", 1),  # the engine's price
        ("dispmode=price dispvalue=26", 0),
        ("dispmode=price dispvalue=26\nset pricesignal=30", 1),
    ],
)
def test_generators_by_load_level_or_price(tmp_path: Path, stated: str, on: int) -> None:
    master = make(tmp_path, f"new generator.g bus1=b kv=12.47 kw=900 kvar=300 {stated}")
    case, report = read(master)
    assert voltage_error(case, report) < 1e-6  # one that is off keeps an admittance of next to nothing in the engine
    assert case.loads[0].p_kw == -900 * on
    assert ("off, so it gives nothing" in report.entry["generator.g"].reason) == (not on)


def test_a_delta_generator_of_one_phase_and_constant_impedance(tmp_path: Path) -> None:
    """The engine divides the admittance of any delta by three."""
    case, _ = read_checked(tmp_path, "new generator.g bus1=b.1.2 phases=1 kv=12.47 kw=60 kvar=15 model=2 conn=delta")
    assert (case.loads[0].p_kw, case.loads[0].q_kvar) == (-20, -5)


def test_a_delta_generator_of_one_phase_and_fixed_reactance(tmp_path: Path) -> None:
    """The engine gives a third of its kvar: a delta's reactance over three phases."""
    case, report = read_checked(
        tmp_path, "new generator.g phases=1 bus1=b.1.2 kv=12.47 kw=90 kvar=30 model=5 conn=delta"
    )
    assert case.loads[0].q_kvar == pytest.approx(-10)
    assert report.entry["generator.g"].code == "IMP-010"


@pytest.mark.parametrize(
    "element", ["generator.g kw=90", "pvsystem.g kva=90 pmpp=90", "storage.g kwrated=90 kwhrated=90"]
)
def test_one_phase_in_delta_outside_its_band_is_said(tmp_path: Path, element: str) -> None:
    """The engine gives a third there of what it gives between any other conductors."""
    body = f"new {element} phases=1 bus1=b.1.2 kv=12.47 conn=delta vminpu=1.1 vmaxpu=1.2"
    _, report = read(make(tmp_path, body))
    assert "where the engine gives a third of it" in report.entry[element.split()[0]].reason
    assert report.entry[element.split()[0]].outcome == "approximated"
    _, report = read(make(tmp_path, body.replace("conn=delta", "")))
    assert "a third" not in report.entry[element.split()[0]].reason


def test_generator_of_another_model_is_reported(tmp_path: Path) -> None:
    _, report = read(make(tmp_path, "new generator.g bus1=b kv=12.47 kw=500 model=3 maxkvar=300 minkvar=-300"))
    assert report.entry["generator.g"].code == "IMP-011"


def test_capacitors(tmp_path: Path) -> None:
    body = """
new capacitor.w bus1=b kvar=300 kv=12.47
new capacitor.d bus1=b kvar=300 kv=12.47 conn=delta
new capacitor.one bus1=b.2 phases=1 kvar=100 kv=7.2
new capacitor.pair bus1=b.2 bus2=b.3 phases=1 kvar=100 kv=12.47
new capacitor.steps bus1=b kv=12.47 numsteps=3 kvar=(100 200 300) states=(1 0 1)
new capacitor.off bus1=b kv=12.47 kvar=100 states=(0)
new capacitor.tuned bus1=b kv=12.47 kvar=300 r=1 xl=5
new capcontrol.c capacitor=steps element=line.main terminal=1 type=kvar onsetting=9000 offsetting=-9000
new load.l bus1=b kv=12.47 kw=100"""
    case, report = read_checked(tmp_path, body)
    by_name = {c.name: c for c in case.capacitors}
    assert report.entry["capacitor.steps"].code == "IMP-061"  # every step of the engine has the size of the first
    assert by_name["steps"].q_kvar == pytest.approx(200)
    assert by_name["steps"].q_total_kvar == pytest.approx(600)
    assert by_name["steps"].control == "kvar"
    assert by_name["off"].q_kvar == 0
    assert by_name["d"].connection == "delta"
    assert by_name["pair"].terminals == (2, 3)
    assert "tuned" not in by_name
    assert report.entry["capacitor.tuned"].outcome == "approximated"
    assert report.entry["capcontrol.c"].code == "IMP-002"
    assert set(report.capacitor_steps) == {"steps"}


PV = """
new xycurve.eff npts=4 xarray=(0.1 0.2 0.4 1.0) yarray=(0.86 0.9 0.93 0.97)
new xycurve.pt npts=4 xarray=(0 25 75 100) yarray=(1.2 1 0.8 0.6)
new pvsystem.curves bus1=b kv=12.47 kva=600 pmpp=500 irradiance=0.8 temperature=40 effcurve=eff p-tcurve=pt pf=0.95
new pvsystem.kvar bus1=b.1 phases=1 kv=7.2 kva=100 pmpp=80 kvar=30
new pvsystem.clip bus1=b.2 phases=1 kv=7.2 kva=100 pmpp=200 pf=-0.95
new pvsystem.watts bus1=b.2 phases=1 kv=7.2 kva=100 pmpp=95 kvar=-50 wattpriority=yes
new pvsystem.prio bus1=b.2 phases=1 kv=7.2 kva=100 pmpp=200 pf=0.9 pfpriority=yes
new pvsystem.band bus1=b.3 phases=1 kv=6 kva=100 pmpp=100 pf=1
new invcontrol.vv mode=voltvar derlist=[pvsystem.kvar] vvc_curve1=eff
set controlmode=off"""


def test_pv(tmp_path: Path) -> None:
    case, report = read_checked(tmp_path, PV)
    by_name = {p.name: p for p in case.pvs}
    assert by_name["curves"].p_rated_kw == 500
    assert by_name["kvar"].q_control == "power_factor"
    assert by_name["kvar"].power_factor == pytest.approx(80 / np.hypot(80, 30))
    assert not by_name["kvar"].curtailable
    codes = {e.element: e.code for e in report.entries if e.cls in ("pvsystem", "invcontrol")}
    assert codes == {
        "pvsystem.curves": "IMP-013",
        "pvsystem.kvar": "IMP-001",
        "pvsystem.clip": "IMP-058",
        "pvsystem.watts": "IMP-001",
        "pvsystem.prio": "IMP-001",
        "pvsystem.band": "IMP-001",
        "invcontrol.vv": "IMP-030",
    }


@pytest.mark.parametrize("size", ["kva=120", "kva=100", "kva=110 wattpriority=yes", "kva=100 pfpriority=yes"])
@pytest.mark.parametrize(
    ("stated", "lasts"), [("kvar=30 pf=0.9", "pf=0.9"), ("pf=0.9 kvar=30", "kvar=30"), ("pf=0.9 kvar=0", "kvar=0")]
)
def test_of_a_power_factor_and_a_kvar_the_last_holds(tmp_path: Path, size: str, stated: str, lasts: str) -> None:
    """As in the engine, whose solution `read_checked` compares with ours."""
    system = "new pvsystem.{} bus1=b.{} phases=1 kv=7.2 pmpp=100 irradiance=1 {} {}"
    body = "\n".join((system.format("both", 1, size, stated), system.format("last", 2, size, lasts)))
    case, report = read_checked(tmp_path, body)
    both, last = case.pvs
    assert (both.q_control, both.power_factor) == (last.q_control, pytest.approx(last.power_factor, abs=1e-9))
    assert report.reference is not None
    given = report.reference.dispatch
    assert given["pv.both"] == pytest.approx(given["pv.last"], abs=1e-6)


def test_a_kvar_after_a_power_factor_is_held_over_the_day(tmp_path: Path) -> None:
    """In silence it was read by the power factor, 24.2 kvar at half sun; what is not at one factor is said."""
    body = """
new loadshape.sun npts=2 interval=12 mult=(1 0.5)
new pvsystem.p bus1=b.1 phases=1 kv=7.2 kva=120 pmpp=100 pf=0.9 kvar=30 daily=sun"""
    case, report = read(make(tmp_path, body), horizon="daily")
    assert case.pvs[0].power_factor == pytest.approx(100 / np.hypot(100, 30))
    assert report.entry["pvsystem.p"].code == "IMP-069"
    assert report.entry["pvsystem.p"].reason.endswith("gives 50 kW and 30 kvar, the case 50 kW and 15 kvar")


def test_kvar_that_have_no_room_at_the_solved_point_are_said_to_be_unknown(tmp_path: Path) -> None:
    """The engine then forgets what the files state: 30 kvar at half sun."""
    body = """
new loadshape.sun npts=2 interval=12 mult=(1 0.5)
new pvsystem.p bus1=b.1 phases=1 kv=7.2 kva=100 pmpp=100 {} wattpriority=yes daily=sun"""
    _, report = read(make(tmp_path, body.format("kvar=30")), horizon="daily")
    assert report.entry["pvsystem.p"].code == "IMP-069"
    assert "no room for kvar" in report.entry["pvsystem.p"].reason
    _, report = read(make(tmp_path, body.format("kvar=30")))
    assert report.entry["pvsystem.p"].code == "IMP-001"


def test_a_day_that_begins_in_the_dark_keeps_the_operating_point(tmp_path: Path) -> None:
    """The files' operating point is in full sun, whatever the first step of the shape is."""
    body = """
new loadshape.sun npts=4 interval=6 mult=(0 0.5 1 0)
new pvsystem.kvar bus1=b.1 phases=1 kv=7.2 kva=100 pmpp=80 kvar=30 daily=sun
set controlmode=off"""
    case, report = read(make(tmp_path, body), horizon="daily")
    (pv,) = case.pvs
    assert (pv.q_control, pv.power_factor) == ("power_factor", pytest.approx(80 / np.hypot(80, 30)))
    np.testing.assert_allclose(case.series(pv.profile), [0, 0.5, 1, 0])
    assert report.reference is not None
    assert report.reference.dispatch["pv.kvar"] == pytest.approx((80, 30))


def test_a_stated_kvar_is_given_in_the_dark(tmp_path: Path) -> None:
    body = "new pvsystem.{} bus1=b.1 phases=1 kv=7.2 kva=100 pmpp=80 irradiance=0 kvar=30{}"
    both = "\n".join((body.format("stays", ""), body.format("follows", " varfollowinverter=yes")))
    _, report = read_checked(tmp_path, both)
    assert report.reference is not None
    assert report.reference.dispatch == {"pv.stays": (0.0, 30.0), "pv.follows": (0.0, 0.0)}
    assert report.entry["pvsystem.stays"].code == "IMP-069"
    assert report.entry["pvsystem.stays"].reason.endswith("gives 0 kW and 30 kvar, the case 0 kW and 0 kvar")
    assert report.entry["pvsystem.follows"].code == "IMP-001"


def test_reactive_power_that_a_power_factor_does_not_follow_is_said(tmp_path: Path) -> None:
    """A stated kvar, a limit of kvar, and curves of the voltage: over a day none is at one power factor."""
    body = """
new loadshape.sun npts=4 interval=6 mult=(0.3 0.5 1 0)
new xycurve.vv npts=4 xarray=(0.5 0.95 1.05 1.5) yarray=(1 0 0 -1)
new pvsystem.kvar bus1=b.1 phases=1 kv=7.2 kva=100 pmpp=80 kvar=30 daily=sun
new pvsystem.limit bus1=b.2 phases=1 kv=7.2 kva=100 pmpp=80 pf=0.8 kvarmax=20 daily=sun
new pvsystem.pf bus1=b.3 phases=1 kv=7.2 kva=100 pmpp=80 pf=0.9 daily=sun
new invcontrol.vv mode=voltvar derlist=[pvsystem.pf] vvc_curve1=vv"""
    expected = {"pvsystem.kvar": "IMP-069", "pvsystem.limit": "IMP-069", "pvsystem.pf": "IMP-001"}
    case, report = read(make(tmp_path, body.replace("new invcontrol", "! new invcontrol")), horizon="daily")
    assert {e.element: e.code for e in report.entries if e.cls == "pvsystem"} == expected
    assert len(case.warnings) == 1
    assert "2 pvsystems: pvsystem.kvar, pvsystem.limit" in case.warnings[0]
    assert (
        "at step 3 the engine gives 0 kW and 30 kvar, the case 0 kW and 0 kvar" in report.entry["pvsystem.kvar"].reason
    )
    small = "new pvsystem.small bus1=b.1 phases=1 kv=7.2 kva=60 pmpp=80 kvar=-30 daily=sun"
    _, report = read(make(tmp_path, body.replace("new invcontrol", f"{small}\n! new invcontrol")), horizon="daily")
    first, second = report.entry["pvsystem.small"].reason.split("; ")  # two words on one object
    assert first.endswith("not its power factor")
    assert second.endswith("the case 0 kW and 0 kvar")
    held = f"{body} hysteresis_offset=-0.01"  # without it the curve is a law of the case
    case, report = read(make(tmp_path, held), horizon="daily")
    assert report.entry["invcontrol.vv"].code == "IMP-069"
    assert "invcontrol.vv" in case.warnings[0]
    _, report = read(make(tmp_path, held))
    assert report.entry["invcontrol.vv"].code == "IMP-030"
    _, report = read(make(tmp_path, body), horizon="daily")
    assert report.entry["invcontrol.vv"].code == "IMP-070"


def test_stated_ratings_that_equal_the_default(tmp_path: Path) -> None:
    body = """
new linecode.said nphases=3 units=km r1=0.3 x1=0.4 normamps=400
new wiredata.w gmrac=0.03 gmrunits=ft rac=0.3 runits=mi radius=0.03 radunits=ft normamps=400 emergamps=600
new linegeometry.g nconds=3 nphases=3
~ cond=1 wire=w x=-1 h=9 units=m
~ cond=2 wire=w x=0 h=9 units=m
~ cond=3 wire=w x=1 h=9 units=m
new linespacing.s nconds=3 nphases=3 units=m x=[-1 0 1] h=[9 9 9]
new line.plain bus1=b bus2=c linecode=lc length=1 units=km
new line.own bus1=b bus2=d linecode=lc length=1 units=km normamps=400
new line.code bus1=b bus2=e linecode=SAID length=1 units=km
new line.geometry bus1=b bus2=f geometry=g length=1 units=km
new line.spacing bus1=b bus2=g spacing=s wires=[w w w] length=1 units=km
new line.alike like=own bus1=b bus2=h
new line.later bus1=b bus2=i linecode=lc length=1 units=km
line.later.emerg=600
new line.batch_1 bus1=b bus2=j linecode=lc length=1 units=km
batchedit line.batch_.* normamps=400"""
    case, report = read_checked(tmp_path, body)
    limits = {line.name: line.i_max_a for line in case.feeder.lines}
    assert limits.pop("main") == 250
    assert limits.pop("plain") == float("inf")
    assert set(limits) == {"own", "code", "geometry", "spacing", "alike", "later", "batch_1"}
    assert set(limits.values()) == {400}
    assert [n.text.split(" the ")[0] for n in report.notes if n.code == "IMP-064"] == ["1 line carries"]


def test_ratings_the_engine_makes_of_its_defaults_are_no_limits(tmp_path: Path) -> None:
    """100 kvar stand for a reactor given by R and X, 1000 kVA for a transformer without any."""
    body = """
new reactor.plain bus1=b bus2=c r=0.1 x=0.6
new reactor.own bus1=b bus2=c r=0.1 x=0.6 normamps=77
new reactor.power bus1=b bus2=c kvar=900 kv=12.47
new reactor.alike like=own bus1=b bus2=c
new capacitor.plain bus1=b bus2=c cuf=900
new capacitor.own bus1=b bus2=c cuf=900 normamps=88
new xfmrcode.x kvas=(300 300)
new transformer.plain windings=2 buses=(b d) kvs=(12.47 0.48)
new transformer.own windings=2 buses=(b d) kvs=(12.47 0.48) kvas=(500 500)
new transformer.normal windings=2 buses=(b d) kvs=(12.47 0.48) normhkva=777
new transformer.code xfmrcode=x buses=(b d) kvs=(12.47 0.48)
new load.l bus1=c kv=12.47 kw=900 kvar=300"""
    case, report = read_checked(tmp_path, body)
    amperes = {line.name: line.i_max_a for line in case.feeder.lines}
    at_rated = 900 / (np.sqrt(3) * 12.47)  # 41.7 A
    assert amperes == {
        "main": 250,
        "reactor_plain": np.inf,
        "reactor_own": 77,
        "reactor_power": pytest.approx(at_rated),
        "reactor_alike": 77,
        "capacitor_plain": np.inf,
        "capacitor_own": 88,
    }
    kva = {t.name: t.s_max_kva for t in case.feeder.transformers}
    assert kva == {"plain": np.inf, "own": pytest.approx(550), "normal": 777, "code": pytest.approx(330)}  # 110 %
    assert [n.text.split(" the ")[0] for n in report.notes if n.code == "IMP-064"] == [
        "1 reactor carries",
        "1 transformer carries",
        "1 capacitor carries",
    ]


def test_a_panel_without_a_rating_is_that_of_its_inverter(tmp_path: Path) -> None:
    """The engine takes 500 kW for a panel of unstated size; no more than the inverter's kVA ever comes out of it."""
    body = "new pvsystem.x bus1=b.1 phases=1 kv=7.2 kva=25 pf=1\nnew load.l bus1=b.1 phases=1 kv=7.2 kw=1"
    case, _ = read_checked(tmp_path, body)
    (pv,) = case.pvs
    assert (pv.p_rated_kw, pv.s_max_kva, pv.profile) == (25, 25, "")
    assert lateral.check(case) == ()


FLOATING = """
new transformer.t1 phases=1 windings=2 xhl=6
~ wdg=1 bus=b.1.0 conn=wye kv=7.2 kva=2000 %r=0.5
~ wdg=2 bus=c.1.2 conn=delta kv=4.16 kva=2000 %r=0.5
new transformer.t2 phases=1 windings=2 xhl=6
~ wdg=1 bus=b.2.0 conn=wye kv=7.2 kva=2000 %r=0.5
~ wdg=2 bus=c.2.3 conn=delta kv=4.16 kva=2000 %r=0.5
new line.far bus1=c bus2=d linecode=lc length=0.1 units=km normamps=900
new load.l bus1=d conn=delta kv=4.16 kw=900 kvar=300
new capacitor.hold bus1=d kv=4.16 kvar=1"""
NAMED = "set voltagebases=[12.47, 4.16]\ncalcvoltagebases"


@pytest.mark.parametrize(
    ("bases", "kv"),
    [
        (NAMED, 4.16),  # without load the floating side is at 7 kV to ground
        ("set voltagebases=[12.47]\ncalcvoltagebases", 12.47),  # no other one is named
        (f"{NAMED}\nsetkvbase bus=c kvll=12.47\nsetkvbase bus=d kvll=12.47", 12.47),  # said, bus by bus
    ],
)
def test_a_base_that_the_engine_misjudged(tmp_path: Path, bases: str, kv: float) -> None:
    case, report = read_checked(tmp_path, FLOATING, tail=f"\n{bases}\nsolve\n")
    found = {b.name: b.v_base_kv for b in case.feeder.buses}
    assert found["c"] == found["d"] == pytest.approx(kv / np.sqrt(3.0))
    moved = [n.text for n in report.notes if "transformer does not have" in n.text]
    assert len(moved) == (kv == 4.16)
    assert all(text.endswith(": c, d") for text in moved)
    if kv == 4.16:
        assert lateral.check(case, radial=False) == ()
        free = case.with_(feeder=dataclasses.replace(case.feeder, buses=tuple(map(without_limits, case.feeder.buses))))
        for formulation in ("current-voltage", "bus-injection"):
            result = lateral.solve(free, formulation, "loss")
            assert result.ok, result.status_text
            assert result.replay is not None
            assert result.replay.summary()["max_dv_pu"] < 1e-6


def test_free_inverters(tmp_path: Path) -> None:
    case, _ = read(make(tmp_path, PV), inverter_q="free")
    assert {p.q_control for p in case.pvs} == {"free"}
    assert all(p.curtailable for p in case.pvs)


def test_a_transformer_that_is_stated_at_another_frequency(tmp_path: Path) -> None:
    body = """
new transformer.t windings=2 buses=[b x.1.2.3.4] conns=[delta wye] kvs=[12.47 0.48] kvas=[500 500] xhl=5 %imag=2
~ %noloadloss=1 basefreq=50 wdg=2 rneut=0.01 xneut=0.02
new load.x bus1=x.1 phases=1 kv=0.277 kw=90"""
    case, report = read_checked(tmp_path, body)
    assert report.entry["transformer.t"].code == "IMP-001"
    assert report.max_primitive_error < 1e-12
    assert case.feeder.transformers[0].x_percent == pytest.approx((6.0,))


def test_storage(tmp_path: Path) -> None:
    body = """
new xycurve.eff npts=2 xarray=(0.1 1.0) yarray=(0.9 0.97)
new storage.idle bus1=b kv=12.47 kwrated=100 kwhrated=300 %reserve=20 %stored=60 %effcharge=91 %effdischarge=93
new storage.in bus1=b.3 phases=1 kv=7.2 kwrated=100 kwhrated=300 state=charging %charge=60 %stored=50
new storage.out bus1=b.3 phases=1 kv=7.2 kwrated=100 kwhrated=300 state=discharging %discharge=60 pf=0.9 kva=120
new storage.ring bus1=b.3.1 phases=1 conn=delta kv=12.47 kwrated=100 kwhrated=300 state=discharging effcurve=eff"""
    case, report = read_checked(tmp_path, body)
    by_name = {b.name: b for b in case.batteries}
    idle = by_name["idle"]
    assert (idle.energy_kwh, idle.soc_min, idle.soc_initial) == (300, 0.2, 0.6)
    assert (idle.eta_charge, idle.eta_discharge) == (0.91, 0.93)
    assert by_name["out"].s_max_kva == 120
    assert report.entry["storage.idle"].code == "IMP-012"
    assert [d.name for d in case.loads] == ["storage_idle_idling"]
    assert is_idling(case.loads[0])
    assert report.reference is not None
    assert report.reference.dispatch["battery.in"] == pytest.approx((-60, 0))
    assert report.reference.dispatch["battery.out"][0] == pytest.approx(60)
    assert {report.entry[f"storage.{name}"].code for name in ("in", "out", "ring")} == {"IMP-068"}
    assert "charges 60 kW at the engine's solution" in report.entry["storage.in"].reason
    (said,) = [line for line in case.warnings if "IMP-068" in line]
    assert "3 storages: " in said


@pytest.mark.parametrize(
    ("stated", "kvar"), [("pf=0.9", -((0.9**-2 - 1) ** 0.5)), ("kvar=20", 20), ("kvar=-30", -25), ("%idlingkvar=5", 0)]
)
def test_an_idle_storage_has_the_kvar_that_the_engine_gives_it(tmp_path: Path, stated: str, kvar: float) -> None:
    # the losses (1 kW of 100) at the power factor, or the stated kvar as far as the inverter has them
    body = f"\nnew storage.idle bus1=b kv=12.47 kwrated=100 kwhrated=300 kvarmax=25 {stated}"
    case, report = read_checked(tmp_path, body)  # its power flow is the engine's
    assert report.reference is not None
    assert report.reference.dispatch["battery.idle"] == pytest.approx((0, kvar), rel=1e-9)
    assert [(d.p_kw, d.q_kvar) for d in case.loads] == [(1.0, 0.0)]
    assert ("kvar while idle" in report.entry["storage.idle"].reason) == (kvar != 0)


def test_limits_of_a_storage_beside_its_rating(tmp_path: Path) -> None:
    body = "\nnew storage.s bus1=b kv=12.47 kwrated=100 kwhrated=300 state=discharging "
    case, _ = read(make(tmp_path, body + "%kwrated=50"))
    assert (case.batteries[0].p_charge_max_kw, case.batteries[0].p_discharge_max_kw) == (50, 50)
    _, report = read(make(tmp_path, body + "kvarmax=10 model=2"))
    assert "limits of 10 and 10 kvar are left out" in report.entry["storage.s"].reason
    assert "where it is scheduled it is constant power" in report.entry["storage.s"].reason


def test_two_sources(tmp_path: Path) -> None:
    body = """
new line.x bus1=b bus2=c linecode=lc length=5 units=km
new vsource.far bus1=c basekv=12.47 pu=1.01 angle=9 mvasc3=100 mvasc1=90
new load.l bus1=b kv=12.47 kw=800"""
    case, _ = read_checked(tmp_path, body)
    assert [s.name for s in case.sources] == ["source", "far"]


# --------------------------------------------------------------------------------------------- report and traps


def test_what_is_lost_is_counted_with_its_power(tmp_path: Path) -> None:
    body = """
new line.two bus1=b.1.2 bus2=c.1.2 phases=2 r1=0.3 x1=0.5 length=1 normamps=100
new line.alone bus1=e bus2=d linecode=lc length=1 units=km normamps=100
new load.away bus1=d kv=12.47 kw=300 kvar=100
new generator.away bus1=d kv=12.47 kw=50 kvar=0
new load.dead bus1=c.3 phases=1 kv=7.2 kw=20 kvar=3
new load.third bus1=c kv=12.47 kw=90 kvar=30
new load.law bus1=b kv=12.47 kw=9 kvar=3 cvrcurve=shape
new load.off bus1=b kv=12.47 kw=9 kvar=3 enabled=no
"""
    shape = HEAD + "new loadshape.shape npts=2 interval=1 mult=(1 0.5)\n"
    case, report = read_checked(tmp_path, body, head=shape)
    assert report.entry["load.third"].lost_kw == pytest.approx(30)  # a third of 90: one of its three phases
    assert case.warnings == (
        "[IMP-021] left out, isolated: no path to a source: 2 loads (320 kW), 1 generator (50 kW), 1 line: load.away, "
        "generator.away, load.dead, line.alone",
        "[IMP-015] approximated, partly-dead: some conductors have no path to a source; their share is left out: "
        "1 load (30 kW left out): load.third",
        "[IMP-018] approximated, load-detail: a detail of the load has no counterpart: 1 load: load.law",
        "[IMP-055] bus c: conductors 3 have no path to a source",
    )


def test_what_changes_no_result_is_no_warning(tmp_path: Path) -> None:
    body = """
new line.x bus1=b bus2=c r1=0.1 x1=0.2 length=1
new load.l bus1=c kv=12.47 kw=90 kvar=30
new load.off bus1=b kv=12.47 kw=9 kvar=3 enabled=no
new energymeter.m element=line.main
"""
    case, report = read_checked(tmp_path, body)
    assert {n.code for n in report.notes} == {"IMP-064"}
    assert case.warnings == ()


def test_isolated_parts_are_reported(tmp_path: Path) -> None:
    body = """
new load.ok bus1=b kv=12.47 kw=300
new line.gone bus1=p bus2=q linecode=lc length=1 units=km
new load.gone bus1=q kv=12.47 kw=300
new transformer.gone phases=3 buses=(q r) kvs=(12.47 0.48) kvas=(100 100) xhl=4
new regcontrol.gone transformer=gone winding=2
new capacitor.gone bus1=q kvar=10 kv=12.47
new line.off bus1=b bus2=z linecode=lc length=1 units=km enabled=n
new load.half bus1=z kv=12.47 kw=10"""
    case, report = read_checked(tmp_path, body)
    assert {b.name for b in case.feeder.buses} == {"src", "b"}
    gone = {e.element for e in report.isolated}
    assert gone == {"line.gone", "load.gone", "transformer.gone", "regcontrol.gone", "capacitor.gone", "load.half"}
    assert report.summary["isolated"] == 6
    note = next(n for n in report.notes if n.code == "IMP-021")
    assert "4 buses" in note.text
    assert "6 elements" in note.text


def test_dead_conductor(tmp_path: Path) -> None:
    body = """
new line.x bus1=b.1 bus2=c.1 phases=1 r1=0.1 x1=0.2
new load.l bus1=c kv=12.47 kw=300"""
    case, report = read_checked(tmp_path, body)
    assert case.feeder.bus["c"].conductors == (1,)
    assert case.loads[0].p_kw == pytest.approx(100)
    assert report.entry["load.l"].code == "IMP-015"
    assert "IMP-055" in {n.code for n in report.notes}


def test_without_voltage_bases(tmp_path: Path) -> None:
    body = """
new transformer.t phases=3 windings=2 buses=(b c) conns=(delta wye) kvs=(12.47 0.48) kvas=(500 500) xhl=5
new transformer.s phases=1 windings=2 buses=(b.1 d.1) kvs=(7.2 0.24) kvas=(50 50) xhl=3
new line.x bus1=c bus2=e linecode=lc length=0.01 units=km
new load.l bus1=e kv=0.48 kw=100"""
    case, report = read_checked(tmp_path, body, tail="\nsolve\n")
    base = {b.name: b.v_base_kv for b in case.feeder.buses}
    assert base["src"] == pytest.approx(12.47 / 3**0.5)
    assert base["e"] == pytest.approx(0.48 / 3**0.5)
    assert base["d"] == pytest.approx(0.24)
    assert "IMP-053" in {n.code for n in report.notes}


def test_base_frequency_after_the_circuit(tmp_path: Path) -> None:
    case, report = read_checked(tmp_path, "new load.l bus1=b kv=12.47 kw=500\nset defaultbasefrequency=50")
    assert case.feeder.frequency_hz == 50
    assert "IMP-056" in {n.code for n in report.notes}


def test_what_is_not_followed_shows_in_the_voltages(tmp_path: Path) -> None:
    _, report = read(make(tmp_path, "new load.l bus1=b kv=12.47 kw=500\nset year=9"))
    assert {"IMP-062", "IMP-063"} <= {n.code for n in report.notes}
    assert report.max_dv_pu is not None
    assert report.max_dv_pu > 1e-5
    _, report = read(make(tmp_path, "new load.l bus1=b kv=12.47 kw=500"), verify=False)
    assert report.max_dv_pu is None


def test_meters_protection_and_unsupported(tmp_path: Path) -> None:
    body = """
new load.l bus1=b kv=12.47 kw=500
new monitor.m element=line.main terminal=1 mode=1
new energymeter.e element=line.main terminal=1
new fuse.f monitoredobj=line.main
new isource.i bus1=b amps=5
new growthshape.g npts=2 year=(1 20) mult=(1.02 1.02)
new linecode.spare nphases=3 r1=1"""
    _, report = read(make(tmp_path, body))
    codes = {e.element: e.code for e in report.entries if e.file}
    assert codes["monitor.m"] == "IMP-032"
    assert codes["energymeter.e"] == "IMP-032"
    assert codes["fuse.f"] == "IMP-031"
    assert codes["isource.i"] == "IMP-040"
    assert codes["growthshape.g"] == "IMP-033"
    assert codes["linecode.spare"] == "IMP-034"
    assert report.summary["unsupported"] == 1
    assert [e.element for e in report.deviations] == ["isource.i"]


def test_report_prints_and_is_json(tmp_path: Path) -> None:
    body = "new load.l bus1=b kv=12.47 kw=500\nnew generator.g bus1=b kv=12.47 kw=5\nshow voltages"
    _, report = read(make(tmp_path, body))
    data = json.loads(report.to_json())
    assert data["summary"]["approximated"] == 1
    assert data["entries"][0]["outcome"] in OUTCOMES
    assert any("show" in s["text"].lower() for s in data["skipped"])
    text = report.to_text()
    assert "generator.g" in text
    assert "operating point" in text
    assert report.table().row_count == len(report.counts) + 1


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(HostileFileError):
        read(make(tmp_path, "cd .."))
    with pytest.raises(CaseError, match=r"master\.dss"):
        read(make(tmp_path, "new load.l bus1=b linecode=nothing"))
    with pytest.raises(CaseError, match="IMP-060"):
        read(make(tmp_path, "edit vsource.source enabled=n"))


def test_what_the_engine_refused_is_said_before_it_can_crash_on_it(tmp_path: Path) -> None:
    """It takes a control without its transformer, complains, and ends with a signal when it computes the voltages."""
    body = """
new autotrans.at phases=3 windings=2 buses=[b low] kvs=[12.47 0.48] kvas=[200 200] xhx=5
new regcontrol.r transformer=autotrans.at winding=2 vreg=122 band=2 ptratio=2
new load.x bus1=low kv=0.48 kw=80"""
    with pytest.raises(CaseError, match=r"Transformer Element is not set.*\(master\.dss:8\)"):
        read(make(tmp_path, body))


# -------------------------------------------------------------------------------------------------------- shapes

SHAPES = """
new loadshape.day npts=24 interval=1 mult=(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24)
new loadshape.pq npts=4 interval=6 pmult=(0.1 0.2 0.3 0.4) qmult=(1 0 1 0)
new loadshape.kw npts=2 interval=12 mult=(40 80) useactual=yes
new load.a bus1=b kv=12.47 kw=10 kvar=5 daily=day
new load.b bus1=b kv=12.47 kw=10 kvar=5 daily=day status=fixed
new load.c bus1=b kv=12.47 kw=10 kvar=5 daily=pq
new load.d bus1=b kv=12.47 kw=10 kvar=5 daily=kw
new load.e bus1=b kv=12.47 kw=10 kvar=5
new pvsystem.p bus1=b kv=12.47 pmpp=100 kva=30 irradiance=0.5 %cutin=0 %cutout=0 daily=pq"""


def test_daily_horizon(tmp_path: Path) -> None:
    case, report = read(make(tmp_path, SHAPES), horizon="daily")
    assert case.horizon.n_steps == 24
    assert case.horizon.step_h[0] == 1
    loads = {d.name: d for d in case.loads}
    np.testing.assert_allclose(case.profiles["day"], np.arange(1, 25))
    assert loads["a"].profile == "day"
    assert loads["b"].profile == ""
    np.testing.assert_allclose(case.multiplier(loads["c"].profile_q), np.repeat([1, 0, 1, 0], 6))
    assert loads["d"].p_kw == 1
    assert loads["d"].q_kvar == 0
    np.testing.assert_allclose(case.multiplier("kw"), np.repeat([40, 80], 12))
    given = case.multiplier(case.pvs[0].profile) * case.pvs[0].p_rated_kw
    np.testing.assert_allclose(given, np.repeat([5, 10, 15, 20], 6))
    assert report.entry["loadshape.day"].code == "IMP-003"
    assert report.entry["loadshape.default"].code == "IMP-035"


def test_aggregated_and_shifted_steps(tmp_path: Path) -> None:
    master = make(tmp_path, SHAPES)
    case, _ = read(master, horizon="daily", step_h=3, n_steps=4, first=6)
    assert case.horizon.n_steps == 4
    np.testing.assert_allclose(case.profiles["day"], [20, 23, 2, 5])  # the shape repeats after its end
    fine, _ = read(master, horizon="daily", step_h=0.5, n_steps=3)
    np.testing.assert_allclose(fine.profiles["day"], [1, 1, 2])


@pytest.mark.parametrize(
    ("hours", "mult", "day"),
    [
        ("0 8 16 24", "0.2 1 1 0.2", np.interp(np.arange(24) + 0.5, [0, 8, 16, 24], [0.2, 1, 1, 0.2])),
        ("0 6 12 18", "0.4 0.4 1 1", [0.4] * 6 + [0.45, 0.55, 0.65, 0.75, 0.85, 0.95] + [1.0] * 12),
        (" ".join(map(str, range(24))), " ".join(["0.5"] * 23 + ["1"]), [0.5] * 22 + [0.75, 1.0]),
        ("0 12 20", "1 1 0", [1.0] * 12 + [1.0 - (k + 0.5) / 8.0 for k in range(8)] + [0.0] * 4),
    ],
    ids=["closed", "four points", "hour by hour", "uneven"],
)  # fmt: skip
def test_a_shape_with_hours_of_its_own_covers_a_day(tmp_path: Path, hours: str, mult: str, day: list[float]) -> None:
    """Its points say hours, not how many steps there are; and it repeats, as any shape does."""
    body = f"""
new loadshape.s npts={len(hours.split())} interval=0 hour=({hours}) mult=({mult})
new load.x bus1=b kv=12.47 kw=1000 daily=s
"""
    case, _ = read(make(tmp_path, body), horizon="daily")
    np.testing.assert_allclose(case.profiles["s"], day, atol=1e-12)
    case, _ = read(make(tmp_path, body), horizon="daily", n_steps=96, step_h=0.5)
    np.testing.assert_allclose(case.profiles["s"].reshape(2, 24, 2).mean(axis=2), [day, day], atol=1e-12)


def test_snapshot_takes_no_shape(tmp_path: Path) -> None:
    case, report = read_checked(tmp_path, SHAPES)
    assert all(d.profile == "" for d in case.loads)
    assert report.entry["loadshape.day"].code == "IMP-036"


def test_padded_shape_is_noticed(tmp_path: Path) -> None:
    body = "new loadshape.short npts=24 interval=1 mult=(1 2)\nnew load.a bus1=b kv=12.47 kw=10 daily=short"
    _, report = read(make(tmp_path, body))
    (note,) = [n for n in report.notes if n.code == "IMP-050"]
    assert "short" in note.text
    assert note.where == "master.dss:6"


def test_padded_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("1\n2\n")
    body = "new loadshape.short npts=24 interval=1 mult=(file=short.csv)\nnew load.a bus1=b kv=12.47 kw=10 daily=short"
    _, report = read(make(tmp_path, body))
    assert any(n.code == "IMP-050" and "short" in n.text for n in report.notes)


def test_options_that_do_not_exist(tmp_path: Path) -> None:
    master = make(tmp_path, "new load.a bus1=b kv=12.47 kw=10")
    with pytest.raises(OptionError, match="horizon"):
        read(master, horizon="weekly")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="daily"):
        read(master, horizon="daily")
    with pytest.raises(OptionError, match="snapshot"):
        read(master, n_steps=3)


@pytest.mark.parametrize(
    ("text", "bases"),
    [
        ("set voltagebases=[115, 4.16, 0.48]", [115.0, 4.16, 0.48]),
        ("set maxiterations=100 voltagebases=(12.47 .208)", [12.47, 0.208]),
        ("set voltagebases=[12.47] datapath=./x controlmode=off", [12.47]),
        ('set voltagebases="7.2 2.4e-1"', [7.2, 0.24]),
    ],
)
def test_voltage_bases_are_those_of_their_list(text: str, bases: list[float]) -> None:
    found = map_topology._BASES.search(text)
    assert found is not None
    assert [float(x) for x in map_topology._NUMBER.findall(found.group(1))] == bases
