"""InvControl of OpenDSS as laws of PV systems: against the engine's own solution with the control active.

The engine's control stops within tolerances; here they are so tight that it comes to the point of its curves. Corners
of curves are rounded over 1e-3 pu in lateral: sources are chosen so that no voltage is that near to one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lateral.balanced import to_balanced
from lateral.baseline import following_ports, power_flow
from lateral.case import Case
from lateral.io.opendss import ImportReport, read
from lateral.io.tables import read_folder, write_folder
from lateral.opf import replayed, solve

HEAD = """
clear
new circuit.c basekv=12.47 pu={pu} r1=0.0001 x1=0.0001 r0=0.0001 x0=0.0001
new loadshape.sun npts=6 interval=4 mult=(0 0.2 0.7 1.0 0.5 0.1)
new loadshape.dem npts=6 interval=4 mult=(0.5 0.6 0.7 0.8 1.0 0.6)
new line.l bus1=sourcebus bus2=b r1=1.5 x1=3 r0=3 x0=7 c1=0 c0=0 length=1
new line.m bus1=b bus2=m r1=1.0 x1=2 r0=2 x0=5 c1=0 c0=0 length=1
new load.l1 bus1=b.1 phases=1 kv=7.2 kw=700 kvar=200 daily=dem vminpu=0.1 vmaxpu=3
new load.l2 bus1=m.2 phases=1 kv=7.2 kw=300 kvar=100 daily=dem vminpu=0.1 vmaxpu=3
new load.l3 bus1=m phases=3 kv=12.47 kw=600 kvar=200 daily=dem vminpu=0.1 vmaxpu=3
new xycurve.vv npts=6 xarray=(0.5 0.92 0.98 1.02 1.08 1.5) yarray=(1 1 0 0 -1 -1)
new xycurve.bare npts=4 xarray=(0.95 0.99 1.01 1.05) yarray=(0.4 0 0 -0.4)
new xycurve.vw npts=4 xarray=(0.5 1.0 1.01 1.10) yarray=(1 1 1 0.1)
new xycurve.up npts=2 xarray=(0.9 1.1) yarray=(-1 1)
new xycurve.step npts=3 xarray=(0.9 1.0 1.0) yarray=(1 1 -1)
"""
TAIL = """
set voltagebases=[12.47]
calcvoltagebases
set maxcontroliter=2000
set maxiterations=1000
set tolerance=1e-10
"""
TIGHT = (
    "VoltageChangeTolerance=1e-10 VarChangeTolerance=1e-8 ActivePChangeTolerance=1e-8 deltaQ_factor=0.3 "
    "deltaP_factor=0.3"
)
COMMON = "pmpp=2000 irradiance=1 daily=sun vmaxpu=3"
THREE = f"bus1=m phases=3 kv=12.47 {COMMON}"
ONE = "bus1=m.2 phases=1 kv=7.2 pmpp=900 kva=1000 irradiance=1 daily=sun %cutin=0 %cutout=0 vmaxpu=3"
VOLTS = 12470.0 / np.sqrt(3.0)


def body(pv: str, control: str, pu: float, more: str = "") -> str:
    return HEAD.format(pu=pu) + f"new pvsystem.a {pv}\nnew invcontrol.v {control} {TIGHT}\n{more}" + TAIL


def read_body(tmp_path: Path, text: str, horizon: str = "snapshot") -> tuple[Case, ImportReport]:
    (tmp_path / "master.dss").write_text(text + "solve\n")
    day: dict[str, Any] = {} if horizon == "snapshot" else {"n_steps": 6, "step_h": 4.0}
    return read(tmp_path / "master.dss", horizon=horizon, **day)  # type: ignore[arg-type]


def engine(text: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Nodes, |V| (V) and kW, kvar of the PV system: at the snapshot, then at the six steps of the day."""
    from dss import dss

    context = dss.NewContext()
    for line in text.strip().splitlines():
        context.Text.Command = line
    circuit = context.ActiveCircuit
    v, power = [], []
    for mode in ["snapshot", *["daily"] * 6]:
        if len(v) < 2:
            context.Text.Command = f"set mode={mode} stepsize=4h number=1 hour=0"
        circuit.Solution.Solve()
        assert circuit.Solution.Converged
        assert circuit.Solution.ControlActionsDone
        v.append(np.abs(np.asarray(circuit.AllBusVolts).view(complex)))
        assert circuit.PVSystems.First
        power.append((circuit.PVSystems.kW, circuit.PVSystems.kvar))
    return [n.lower() for n in circuit.AllNodeNames], np.array(v).T, np.array(power).T


KINDS = {
    "available": (f"{THREE} kva=2200", "mode=voltvar vvc_curve1=vv", (0.97, 1.03)),
    "beyond its points": (ONE, "mode=voltvar vvc_curve1=bare", (1.03,)),
    "kvarmax": (f"{THREE} kva=2200 kvarmax=400 kvarmaxabs=400", "mode=voltvar vvc_curve1=vv", (0.97, 1.03)),
    "p gives way": (
        f"{THREE} kva=2000 kvarmax=880 kvarmaxabs=880",
        "mode=voltvar vvc_curve1=vv refreactivepower=varmax",
        (0.97, 1.03),
    ),
    "q gives way": (
        f"{THREE} kva=2050 kvarmax=880 kvarmaxabs=700 wattpriority=yes",
        "mode=voltvar vvc_curve1=vv refreactivepower=varmax",
        (0.97, 1.03),
    ),
    "by day": (
        f"{THREE} kva=2200 varfollowinverter=yes kvarmax=400 kvarmaxabs=400",
        "mode=voltvar vvc_curve1=vv",
        (0.97,),
    ),
    "on all night": (
        f"{THREE} kva=2200 varfollowinverter=yes %cutin=0 %cutout=0",
        "mode=voltvar vvc_curve1=vv",
        (0.97,),
    ),
    "by day, of kvarmax": (
        f"{THREE} kva=2050 kvarmax=880 kvarmaxabs=700 wattpriority=yes varfollowinverter=yes",
        "mode=voltvar vvc_curve1=vv refreactivepower=varmax",
        (0.97,),
    ),
    "by day, both": (
        f"{THREE} kva=2200 varfollowinverter=yes",
        "combimode=VV_VW vvc_curve1=bare voltwatt_curve=vw",
        (0.97,),
    ),
    "delta": (f"{THREE} kva=2200 conn=delta", "mode=voltvar vvc_curve1=vv", (0.97, 1.03)),
    "two phases": (
        "bus1=m.1.3 phases=2 kv=12.47 kva=1500 pmpp=1400 irradiance=1 daily=sun vmaxpu=3",
        "mode=voltvar vvc_curve1=vv",
        (1.03,),
    ),
    "volt-watt": (f"{THREE} kva=2200 pf=0.98", "mode=voltwatt voltwatt_curve=vw", (0.97, 1.0, 1.03)),
    "both": (f"{THREE} kva=2200", "combimode=VV_VW vvc_curve1=bare voltwatt_curve=vw", (0.97, 1.0)),
    "both of kva": (
        f"{THREE} kva=2200 wattpriority=yes",
        "combimode=VV_VW vvc_curve1=bare voltwatt_curve=vw voltwattyaxis=kvaratingpu refreactivepower=varmax",
        (0.97, 1.0),
    ),
}


@pytest.mark.parametrize(("kind", "pu"), [(kind, pu) for kind, (*_, pus) in KINDS.items() for pu in pus])
def test_the_power_flow_is_the_engines_with_its_control(tmp_path: Path, kind: str, pu: float) -> None:
    """At the snapshot and over a day, within what is left of the control's tolerances."""
    pv, control, _ = KINDS[kind]
    text = body(pv, control, pu)
    nodes, v, power = engine(text)
    for horizon, steps in (("snapshot", slice(0, 1)), ("daily", slice(1, 7))):
        case, report = read_body(tmp_path, text, horizon)
        assert report.entry["invcontrol.v"].outcome == "mapped"
        assert report.entry["invcontrol.v"].code == "IMP-070"
        assert case.warnings == ()
        flow = power_flow(case, tolerance_pu=1e-10)
        assert flow.all_converged
        at = [flow.index.position[bus, int(c)] for bus, c in (n.split(".") for n in nodes)]
        assert np.abs(np.abs(flow.v[at]) - v[:, steps]).max() / VOLTS <= 5e-8
        given = np.array([x.sum(axis=0) for x in following_ports(case)["pv.a"]])
        np.testing.assert_allclose(given, power[:, steps], atol=5e-3)  # a tolerance of 1e-8 divides by the step taken
    case, report = read_body(tmp_path, text)
    assert report.max_dv_pu is not None
    assert report.max_dv_pu <= 1e-8
    assert report.reference is not None
    assert report.reference.dispatch["pv.a"] == pytest.approx(tuple(power[:, 0]), abs=1e-3)


@pytest.mark.parametrize("kind", ["available", "p gives way", "both", "by day", "by day, both"])
@pytest.mark.parametrize("formulation", ["current-voltage", "bus-injection", "linearised"])
def test_a_schedule_has_the_law_and_is_proved(tmp_path: Path, formulation: str, kind: str) -> None:
    """What the engine's inverters do is what those of the schedule do; the replay is given it as set-points."""
    pv, control, _ = KINDS[kind]
    text = body(pv, control, 0.97)
    _, v, power = engine(text)
    case, _ = read_body(tmp_path, text, "daily")
    wide = tuple(dataclasses.replace(bus, v_min_pu=0.8, v_max_pu=1.2) for bus in case.feeder.buses)
    case = case.with_(feeder=dataclasses.replace(case.feeder, buses=wide))
    r = replayed(solve(case, formulation, "cost"))
    assert r.ok, r.status_text
    np.testing.assert_allclose(np.array(r.set_points["pv.a"]), power[:, 1:], atol=2e-2)
    assert r.replay.errors.max_dv_pu <= 1e-6  # type: ignore[union-attr]
    assert np.nanmax(r.replay.v_pu) == pytest.approx(v[:, 1:].max() / VOLTS, abs=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["kvarmax", "p gives way", "q gives way", "delta", "both of kva", "by day"])
def test_the_balanced_equivalent_of_even_phases_has_the_same_law(tmp_path: Path, kind: str) -> None:
    """With the load of three phases alone: power flow, the exact branch flow, its replay, and a folder of tables."""
    text = body(*KINDS[kind][:2], 0.97).replace("kw=600 kvar=200", "kw=1600 kvar=500")
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("new load.l1", "new load.l2"))) + "\n"
    case, _ = read_body(tmp_path, text, "daily")
    three, one = power_flow(case, tolerance_pu=1e-10), power_flow(to_balanced(case), tolerance_pu=1e-10)
    ours, even = (flow.vmag_pu[flow.index.position["m", 1]] for flow in (three, one))
    np.testing.assert_allclose(even, ours, atol=1e-10)
    r = replayed(solve(to_balanced(case), "nonlinear", "loss", limits="none"))
    assert r.ok, r.status_text
    assert r.replay.errors.max_dv_pu <= 1e-6  # type: ignore[union-attr]
    write_folder(case, tmp_path / "case")
    assert dataclasses.asdict(read_folder(tmp_path / "case").pvs[0]) == dataclasses.asdict(case.pvs[0])


PER_SUN = "mode=voltwatt voltwatt_curve=vw voltwattyaxis=PAVAILABLEPU"
ACROSS = "bus1=m.1.2 phases=1 conn=delta kv=12.47 kva=1000 pmpp=900 daily=sun"
HELD = {
    "a hysteresis": (f"{THREE} kva=2200", "mode=voltvar vvc_curve1=vv hysteresis_offset=-0.01"),
    "the voltage of other buses": (f"{THREE} kva=2200", "mode=voltvar vvc_curve1=vv monbus=[b.1] monbusesvbase=[7200]"),
    "looks at the max of its phases": (f"{THREE} kva=2200", "mode=voltvar vvc_curve1=vv monvoltagecalc=max"),
    "relative to the one before": (f"{THREE} kva=2200", "mode=voltvar vvc_curve1=vv voltage_curvex_ref=avg"),
    "with a delay": (f"{THREE} kva=2200", "mode=voltvar vvc_curve1=vv rateofchangemode=LPF lpftau=10"),
    "mode avr has no counterpart": (f"{THREE} kva=2200", "mode=avr vsetpoint=1"),
    "its limits of kvar differ": (f"{THREE} kva=2200 kvarmax=400 kvarmaxabs=500", "mode=voltvar vvc_curve1=vv"),
    "depend on a least active power": (f"{THREE} kva=2200 %pminnovars=5", "mode=voltvar vvc_curve1=vv"),
    "rises with the voltage": (f"{THREE} kva=2200", "mode=voltvar vvc_curve1=up"),
    "not 0.001 pu apart": (f"{THREE} kva=2200", "mode=voltvar vvc_curve1=step"),
    "per unit of what the sun offers": (f"{THREE} kva=2200", PER_SUN),
    "between two phases": (ACROSS, "mode=voltvar vvc_curve1=vv"),
    "kvar that the files state": (f"{THREE} kva=2200 kvar=100", "mode=voltwatt voltwatt_curve=vw"),
}


@pytest.mark.parametrize("why", HELD)
def test_what_has_no_counterpart_is_held_and_said(tmp_path: Path, why: str) -> None:
    pv, control = HELD[why]
    case, report = read_body(tmp_path, body(pv, control, 1.03), "daily")
    entry = report.entry["invcontrol.v"]
    assert (entry.outcome, entry.code) == ("approximated", "IMP-069")
    assert why in entry.reason
    assert "invcontrol.v" in " ".join(case.warnings)
    assert case.pvs[0].q_control in ("power_factor", "none")
    assert not case.pvs[0].volt_watt


def test_a_priority_of_the_power_factor(tmp_path: Path) -> None:
    """The engine forgets it when a control is made; stated after that, it holds."""
    text = body(f"{THREE} kva=2200 pfpriority=yes", "mode=voltvar vvc_curve1=vv", 1.03)
    _, report = read_body(tmp_path, text)
    assert report.entry["invcontrol.v"].code == "IMP-070"
    _, report = read_body(tmp_path, text + "pvsystem.a.pfpriority=yes\n", "daily")
    assert "keeps a power factor at its rating" in report.entry["invcontrol.v"].reason


def test_a_limit_of_kvar_beside_volt_watt_is_said(tmp_path: Path) -> None:
    """400 kvar by its power factor at full sun, of which the engine gives 300."""
    pv = f"{THREE} kva=2200 pf=0.98 kvarmax=300 kvarmaxabs=300"
    case, report = read_body(tmp_path, body(pv, "mode=voltwatt voltwatt_curve=vw", 1.03), "daily")
    assert case.pvs[0].volt_watt
    assert report.entry["pvsystem.a"].code == "IMP-069"
    assert "the engine gives 2000 kW and 300 kvar" in report.entry["pvsystem.a"].reason


def test_a_curve_that_goes_beyond_its_limit_has_a_point_there(tmp_path: Path) -> None:
    """From 1.001 at 0.95 pu to 0.5 at 0.97: it is 1 at 0.95004, not at 0.95."""
    more = "new xycurve.over npts=4 xarray=(0.95 0.97 1.02 1.08) yarray=(1.001 0.5 0 -0.2)\n"
    pv = f"{THREE} kva=2200\n{more}"
    case, _ = read_body(tmp_path, body(pv, "mode=voltvar vvc_curve1=over", 1.03))
    v, q = case.pvs[0].volt_var_v_pu, case.pvs[0].volt_var_q_pu
    assert v[:2] == pytest.approx((0.95 + 0.02 * 0.001 / 0.501, 0.97), abs=1e-12)
    assert q[:2] == pytest.approx((1.0, 0.5), abs=1e-9)
    more = more.replace("0.97 1.02", "0.9502 1.02")
    _, report = read_body(tmp_path, body(f"{THREE} kva=2200\n{more}", "mode=voltvar vvc_curve1=over", 1.03), "daily")
    assert "is held" in report.entry["invcontrol.v"].reason


def test_a_held_limit_of_p_is_that_of_the_snapshot(tmp_path: Path) -> None:
    text = body(*HELD["per unit of what the sun offers"], 1.03)
    _, _, power = engine(text)
    case, report = read_body(tmp_path, text)
    assert power[0, 0] < 1999.0
    assert case.pvs[0].p_rated_kw * case.multiplier(case.pvs[0].profile)[0] == pytest.approx(power[0, 0], abs=1e-3)
    assert report.max_dv_pu is not None
    assert report.max_dv_pu <= 1e-8


def test_which_systems_a_control_has(tmp_path: Path) -> None:
    """Without a list all that come before it; with both words for one; two controls of one system hold it."""
    more = "new storage.s bus1=b phases=3 kv=12.47\n"
    pv = f"{THREE} kva=2200\nnew pvsystem.other bus1=b phases=3 kv=12.47 kva=1000 pmpp=500 vmaxpu=3"
    case, report = read_body(tmp_path, body(pv, "mode=voltvar vvc_curve1=vv", 1.03, more))
    assert [p.q_control for p in case.pvs] == ["volt_var", "volt_var"]
    assert report.entry["invcontrol.v"].reason == "the law of pv.a, pv.other"
    for listed in ("derlist=[pvsystem.a]", "pvsystemlist=[a]"):
        case, report = read_body(tmp_path, body(pv, f"mode=voltvar vvc_curve1=vv {listed}", 1.03, more))
        assert [p.q_control for p in case.pvs] == ["volt_var", "none"]
    second = more + "new invcontrol.w mode=voltwatt voltwatt_curve=vw derlist=[pvsystem.a]\n"
    case, report = read_body(tmp_path, body(pv, "mode=voltvar vvc_curve1=vv", 1.03, second), "daily")
    assert [p.q_control for p in case.pvs] == ["power_factor", "volt_var"]
    assert "pvsystem.a is held: it has more than one control" in report.entry["invcontrol.v"].reason
    assert "pvsystem.a is held: it has more than one control" in report.entry["invcontrol.w"].reason


def test_controls_that_the_files_switch_off_or_disable(tmp_path: Path) -> None:
    text = body(f"{THREE} kva=2200 kvar=100", "mode=voltvar vvc_curve1=vv", 1.03)
    for off in (text + "set controlmode=off\n", text.replace("new invcontrol.v", "new invcontrol.v enabled=no")):
        case, report = read_body(tmp_path, off)
        assert case.pvs[0].q_control == "power_factor"
        assert report.entry["invcontrol.v"].outcome == "ignored"


def test_free_inverters_decide(tmp_path: Path) -> None:
    (tmp_path / "master.dss").write_text(body(f"{THREE} kva=2200", "mode=voltvar vvc_curve1=vv", 1.03) + "solve\n")
    case, report = read(tmp_path / "master.dss", inverter_q="free")
    assert case.pvs[0].q_control == "free"
    assert report.entry["invcontrol.v"].code == "IMP-030"


def test_a_rating_that_the_sun_fills_is_said(tmp_path: Path) -> None:
    """The engine's kvar are per unit of what is left, then of kvarMax where nothing is: it goes to and fro."""
    text = body(f"{THREE} kva=1900", "mode=voltvar vvc_curve1=vv", 0.97).replace(
        "maxcontroliter=2000", "maxcontroliter=30"
    )
    case, report = read_body(tmp_path, text, "daily")
    entry = report.entry["invcontrol.v"]
    assert (entry.outcome, entry.code) == ("approximated", "IMP-070")
    assert "has no rest" in entry.reason
    p, q = following_ports(case)["pv.a"]
    assert (p.sum(axis=0)[3], q.sum(axis=0)[3]) == (pytest.approx(1900.0, abs=1e-6), pytest.approx(0.0, abs=1e-6))
