"""Models of generators, PV systems and storage in OpenDSS, at the snapshot: against the engine's own solution.

The engine's tolerance is 1e-8 pu; 1e-7 leaves room for how it ends its fixed point.
"""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lateral
from lateral.case import Case
from lateral.checks import check
from lateral.io.opendss import ImportReport, engine, read
from lateral.io.opendss.map_der import InverterQ

FILES = """
clear
new circuit.c bus1=src basekv=12.47 pu=1.02 angle=10 mvasc3=200 mvasc1=180
new linecode.lc nphases=3 units=km r1=0.3 x1=0.4 r0=0.7 x0=1.4 c1=10 c0=5
new line.main bus1=src bus2=b linecode=lc length=2 units=km
new load.three bus1=b kv=12.47 kw=2000 kvar=900
new load.one bus1=b.1 phases=1 kv=7.2 kw=700 kvar=100
new reactor.n phases=1 bus1=b.4 bus2=b.0 r=5 x=1
{body}
set voltagebases=[12.47]
calcvoltagebases
{option}
solve
"""
TOLERANCE_PU = 1e-7
PV = "pvsystem.g bus1=b kv=12.47 kva=500 pmpp=450"
STORAGE = "storage.g bus1=b kv=12.47 kwrated=500 kwhrated=1000 %stored=50"


def same(tmp_path: Path, body: str, option: str = "") -> tuple[Case, ImportReport]:
    """Read, and require that the case's own power flow has the engine's voltages."""
    master = tmp_path / "master.dss"
    master.write_text(FILES.format(body=body, option=option))
    case, report = read(master)
    assert report.reference is not None
    assert report.reference.converged
    assert report.max_dv_pu is not None
    assert report.max_dv_pu < TOLERANCE_PU
    assert "IMP-063" not in {n.code for n in report.notes}
    return case, report


# ------------------------------------------------------------------------------------------------- generators


@pytest.mark.parametrize(
    ("stated", "kvar"),
    [
        ("kw=500 maxkvar=2000 minkvar=-2000 vpu=1.0", None),  # between its limits
        ("kw=500 maxkvar=50 minkvar=-50 vpu=1.05", 50.0),
        ("kw=500 maxkvar=50 minkvar=-60 vpu=0.9", -60.0),
        ("kw=500 conn=delta maxkvar=2000 minkvar=-2000 vpu=0.999", None),
        ("kw=500 bus1=b.1.2.3.4 maxkvar=2000 minkvar=-2000", None),
        ("kw=500 status=fixed maxkvar=2000 minkvar=-2000\nset genmult=0.5", None),
        ("phases=1 bus1=b.2 kv=7.2 kw=500 maxkvar=800 minkvar=-800", None),
    ],
)
def test_a_generator_that_regulates_the_voltage_has_the_kvar_of_the_solved_point(
    tmp_path: Path, stated: str, kvar: float | None
) -> None:
    """It was constant power at the stated kvar, 4e-3 to 3e-2 pu off."""
    case, report = same(tmp_path, f"new generator.g bus1=b kv=12.47 model=3 {stated}")
    load = next(d for d in case.loads if d.name == "generator_g")
    assert load.p_kw == pytest.approx(-500.0)
    assert load.model == "constant_power_fixed_q"
    if kvar is not None:
        assert load.q_kvar == pytest.approx(-kvar)
    entry = report.entry["generator.g"]
    assert (entry.outcome, entry.code) == ("approximated", "IMP-011")
    assert "held" in entry.reason
    assert f"{-load.q_kvar:.6g} kvar" in entry.reason


def test_the_kvar_of_a_regulating_generator_are_held_over_a_day(tmp_path: Path) -> None:
    shape = "new loadshape.s npts=4 interval=6 mult=(0.2 0.5 1 0.4)"
    body = f"{shape}\nnew generator.g bus1=b kv=12.47 kw=500 model=3 daily=s maxkvar=2000 minkvar=-2000"
    snapshot, _ = same(tmp_path, body)
    day, _ = read(tmp_path / "master.dss", horizon="daily")
    one, every = (next(d for d in c.loads if d.name == "generator_g") for c in (snapshot, day))
    assert every.q_kvar == one.q_kvar
    assert list(every.p_kw * day.multiplier(every.profile)) == pytest.approx([-100, -250, -500, -200])


@pytest.mark.parametrize(
    ("stated", "said", "became"),
    [
        ("", "constant power", 1),
        ("vmaxpu=0.9", "constant power", 1),  # it has no upper edge: 7e-4 pu off
        ("vminpu=1.05", "limited current", 1),  # under the lower one the engine's Q changes its sign: 2e-3 pu off
        ("vminpu=1.05 conn=delta", "limited current", 1),
        ("vminpu=1.05 phases=1 bus1=b.1.2 kv=12.47 conn=delta", "limited current", 1),
        ("vminpu=1.05 phases=2 bus1=b.1.2", "limited current", 1),
        ("vminpu=0.99", "either", 3),
        ("vminpu=0.99 bus1=b.1.2.3.4", "either", 3),
        ("vminpu=1.0 conn=delta", "either", 3),
        ("balanced=yes", "balanced currents", 3),
        ("balanced=yes conn=delta", "balanced currents", 3),
    ],
)
def test_a_generator_of_limited_current(tmp_path: Path, stated: str, said: str, became: int) -> None:
    case, report = same(tmp_path, f"new generator.g bus1=b kv=12.47 kw=500 kvar=100 model=7 {stated}")
    entry = report.entry["generator.g"]
    assert (entry.outcome, entry.code) == ("approximated", "IMP-011")
    assert said in entry.reason
    assert len(entry.became) == became
    result = lateral.solve(free(case), "current-voltage")
    assert result.replay is not None
    assert result.replay.errors is not None
    assert result.replay.errors.max_dv_pu < 1e-8


@pytest.mark.parametrize("kind", ["generator.g bus1=b kv=12.47 kw=500 model=6", f"{PV} model=3", f"{STORAGE} model=3"])
def test_a_user_written_model_gives_nothing(tmp_path: Path, kind: str) -> None:
    """It was constant power; the engine says that there is no library and goes on with nothing."""
    case, report = same(tmp_path, f"new {kind} ")
    entry = report.entry[kind.split()[0]]
    assert (entry.outcome, entry.code, entry.became) == ("approximated", "IMP-011", ())
    assert entry.lost_kw >= 450.0
    assert "user-written model" in entry.reason
    assert len(case.loads) == 2
    assert case.pvs == ()
    assert case.batteries == ()
    assert any("IMP-011" in line and "kW left out" in line for line in case.warnings)


@pytest.mark.parametrize("conn", ["wye", "delta"])
def test_a_generator_that_is_open_generates_as_in_the_engine(tmp_path: Path, conn: str) -> None:
    _, report = same(tmp_path, f"new generator.g bus1=b kv=12.47 kw=500 kvar=100 conn={conn}\nopen generator.g 1 2")
    assert "lets it generate all the same" in report.entry["generator.g"].reason
    assert report.entry["generator.g"].outcome == "approximated"


@pytest.mark.parametrize("stated", ["", "conn=delta", "model=4", "phases=1 bus1=b.2.3 conn=delta"])
def test_a_generator_that_a_close_command_names_is_an_admittance(tmp_path: Path, stated: str) -> None:
    """The engine takes no notice of its model from then on: 5e-5 pu."""
    body = f"new generator.g bus1=b kv=12.47 kw=500 kvar=100 {stated}"
    case, report = same(tmp_path, f"{body}\nopen generator.g 1 2\nclose generator.g 1 2")
    assert next(d for d in case.loads if d.name == "generator_g").model == "constant_impedance"
    assert "Close command" in report.entry["generator.g"].reason


# ------------------------------------------------------------------------------------------ PV systems and storage


def free(case: Case) -> Case:
    buses = tuple(dataclasses.replace(b, v_min_pu=0.0, v_max_pu=float("inf")) for b in case.feeder.buses)
    return case.with_(feeder=dataclasses.replace(case.feeder, buses=buses))


@pytest.mark.parametrize(
    "stated",
    ["", "conn=delta", "pf=-0.9 irradiance=0.6", "phases=2 bus1=b.1.2", "bus1=b.1.2.3.4", "phases=1 bus1=b.2 kv=7.2"],
)
def test_a_pv_system_of_constant_impedance(tmp_path: Path, stated: str) -> None:
    """It was constant power, 4e-5 pu off. Exact forms have it, and the engine has their voltages."""
    case, report = same(tmp_path, f"new {PV} model=2 {stated}")
    (pv,) = case.pvs
    assert pv.v_min_pu == pv.v_max_pu == 1.0
    assert report.entry["pvsystem.g"].code in ("IMP-001", "IMP-058")
    for formulation in ("current-voltage", "bus-injection"):
        result = lateral.solve(free(case), formulation)
        assert result.replay is not None
        assert result.replay.errors is not None
        assert result.replay.errors.max_dv_pu < 1e-8


@pytest.mark.parametrize("state", ["discharging", "charging", "idling", "discharging pf=0.9", "idling kvar=90"])
@pytest.mark.parametrize("conn", ["wye", "delta"])
def test_a_storage_of_constant_impedance(tmp_path: Path, state: str, conn: str) -> None:
    same(tmp_path, f"new {STORAGE} model=2 state={state} conn={conn}")


@pytest.mark.parametrize("kind", [PV, f"{STORAGE} state=discharging", f"{STORAGE} state=idling"])
def test_an_impedance_of_one_phase_in_delta_is_a_third(tmp_path: Path, kind: str) -> None:
    """That of any delta is that of three phases: 7e-3 pu."""
    _, report = same(tmp_path, f"new {kind} phases=1 bus1=b.1.2 conn=delta model=2")
    assert "a third of it" in report.entry[kind.split()[0]].reason


@pytest.mark.parametrize("kind", [PV, f"{STORAGE} state=discharging", f"{STORAGE} state=charging"])
@pytest.mark.parametrize("stated", ["", "conn=delta", "bus1=b.1.2.3.4"])
def test_an_inverter_with_an_open_conductor_is_an_admittance(tmp_path: Path, kind: str, stated: str) -> None:
    """It was taken as closed: 8e-3 pu."""
    name = kind.split()[0]
    case, report = same(tmp_path, f"new {kind} {stated}\nopen {name} 1 2")
    assert (report.entry[name].outcome, report.entry[name].code) == ("approximated", "IMP-014")
    assert report.entry[name].became == (f"admittance.{name.replace('.', '_')}",)
    assert case.pvs == ()
    assert case.batteries == ()
    result = lateral.solve(free(case), "current-voltage")
    assert result.replay is not None
    assert result.replay.errors is not None
    assert result.replay.errors.max_dv_pu < 1e-8


@pytest.mark.parametrize("kind", [PV, f"{STORAGE} state=discharging"])
def test_an_inverter_that_is_open_gives_nothing(tmp_path: Path, kind: str) -> None:
    name = kind.split()[0]
    case, report = same(tmp_path, f"new {kind}\nopen {name} 1")
    assert report.entry[name].code == "IMP-014"
    assert case.feeder.admittances == ()


def test_an_inverter_of_limited_current_has_no_upper_edge(tmp_path: Path) -> None:
    """Above it, it was an impedance: 6e-4 pu."""
    same(tmp_path, f"new {PV} limitcurrent=yes vmaxpu=0.9")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (f"{PV} limitcurrent=yes vminpu=1.05", "the engine limits its current; here it is an impedance"),
        (f"{STORAGE} state=discharging limitcurrent=yes vminpu=1.05", "the engine limits its current"),
        (f"{PV} phases=1 bus1=b.1.2 conn=delta limitcurrent=yes", "the engine limits its current"),
        (f"{PV} balanced=yes", "the engine balances its currents"),
        (f"{STORAGE} state=charging balanced=yes", "the engine balances its currents"),
    ],
)
def test_what_an_inverter_does_otherwise_is_said(tmp_path: Path, kind: str, said: str) -> None:
    master = tmp_path / "master.dss"
    master.write_text(FILES.format(body=f"new {kind}", option=""))
    _, report = read(master)
    entry = report.entry[kind.split()[0]]
    assert entry.outcome == "approximated"
    assert said in entry.reason


@pytest.mark.parametrize(
    "kind",
    [
        *(f"generator.g kw=90 kvar=30 model={m}" for m in (1, 4, 5)),
        "pvsystem.g kva=90 pmpp=90 kvar=30",
        *(
            f"storage.g kwrated=90 kwhrated=90 kvar=20 %stored=50 state={s}"
            for s in ("discharging", "charging", "idling")
        ),
    ],
)
@pytest.mark.parametrize("band", ["vminpu=1.1 vmaxpu=1.2", "vminpu=0.8 vmaxpu=0.9"])
def test_one_phase_in_delta_outside_its_band(tmp_path: Path, kind: str, band: str) -> None:
    """The engine takes a third of the impedance there; the case had all of it."""
    _, report = same(tmp_path, f"new {kind.replace(' ', ' phases=1 bus1=b.1.2 kv=12.47 conn=delta ', 1)} {band}")
    assert "where the engine gives a third of it; so does the case" in report.entry[kind.split()[0]].reason


@pytest.mark.parametrize(
    "kind",
    [
        *(f"generator.g bus1=b.2 kv=7.2 phases=1 kw=300 kvar=90 model={m}" for m in (1, 2, 3, 4, 5, 7)),
        *(
            f"storage.g bus1=b.2 kv=7.2 phases=1 kwrated=300 kwhrated=900 %stored=50 state={s}"
            for s in ("discharging", "charging", "idling")
        ),
        "storage.g bus1=b.2 kv=7.2 phases=1 kwrated=300 kwhrated=900 state=discharging model=2",
        "generator.g phases=1 kv=12.47 phases=3 bus1=b kw=300 kvar=90 model=2",
        "pvsystem.g bus1=b.2 kv=7.2 phases=1 kva=300 pmpp=300",
        "pvsystem.g bus1=b.2 kv=7.2 phases=1 kva=300 pmpp=300 model=2",
        "load.g bus1=b.2 kv=7.2 phases=1 kw=300 kvar=90",
        "load.g bus1=b.2 kv=7.2 phases=1 kw=300 kvar=90 model=2",
    ],
)
def test_phases_that_are_stated_after_the_kv(tmp_path: Path, kind: str) -> None:
    """Of generators and storage the engine keeps the kV as that of three phases: up to 0.05 pu."""
    _, report = same(tmp_path, f"new {kind}")
    entry = report.entry[kind.split()[0]]
    moves = kind.startswith(("generator", "storage")) and "model=3" not in kind and "model=7" not in kind
    assert ("state them before" in entry.reason) == moves


@pytest.mark.parametrize("option", ["set loadmodel=admittance", "set mode=direct"])
@pytest.mark.parametrize(
    "kind",
    [
        "load.g bus1=b kv=12.47 kw=500 kvar=90",
        *(f"generator.g bus1=b kv=12.47 kw=500 kvar=90 model={m}" for m in (1, 2, 3, 4, 5, 7)),
        PV,
        f"{PV} conn=delta phases=1 bus1=b.1.2",
        *(f"{STORAGE} state={s}" for s in ("discharging", "charging", "idling")),
    ],
)
def test_a_solution_by_admittances_alone(tmp_path: Path, option: str, kind: str) -> None:
    """Every load, generator and inverter is its nominal admittance there; only loads were, and not with mode=direct."""
    _, report = same(tmp_path, f"new {kind}", option)
    assert "IMP-054" in {n.code for n in report.notes}


# ------------------------------------------------------------------------------------------------ open loads


@pytest.mark.parametrize(("body", "zeroed"), [("", False), ("open load.one", True)])
def test_memory_that_the_engine_never_sets_is_zero_where_something_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, zeroed: bool
) -> None:
    """It takes the currents of open loads from there: in 8 of 25 runs of one file it did not converge."""
    given = []
    start = subprocess.Popen

    def noted(*args: Any, env: dict[str, str], **options: Any) -> Any:
        given.append(env.get("MALLOC_PERTURB_"))
        return start(*args, env=env, **options)

    monkeypatch.setattr(engine.subprocess, "Popen", noted)
    same(tmp_path, body)
    assert given == ["255" if zeroed else None]


# ------------------------------------------------------------------------------------------------ at the edges


@pytest.mark.parametrize("option", ["set loadmodel=admittance", "set mode=direct"])
def test_a_dead_generator_that_regulates(tmp_path: Path, option: str) -> None:
    """Its power was divided by a voltage of zero."""
    body = "new line.y bus1=b bus2=c linecode=lc length=1 units=km\nnew generator.g bus1=c kv=12.47 kw=500 model=3"
    _, report = same(tmp_path, f"{body}\nopen line.y 1", option)
    assert report.entry["generator.g"].outcome != "mapped"


def test_the_last_open_or_close_of_many_generators_is_looked_up_once(tmp_path: Path) -> None:
    body = "".join(f"\nnew generator.g{k} bus1=b kv=12.47 kw=50 kvar=10" for k in range(3))
    switched = "\nopen generator.g0 1 2\nclose generator.g0 1 2\nclose generator.g1 1\nopen generator.g1 1 2"
    case, report = same(tmp_path, body + switched)
    assert [load.model for load in case.loads if load.name.startswith("generator")] == [
        "constant_impedance",
        "constant_power",
        "constant_power",
    ]
    assert "Close command" not in report.entry["generator.g1"].reason


def test_parts_of_a_generator_have_names_of_their_own(tmp_path: Path) -> None:
    """Names that another generator or a load has were taken a second time (`VAL-007`)."""
    body = """
new generator.g bus1=b kv=12.47 kw=500 kvar=100 model=7 vminpu=0.99
new generator.g_2 bus1=b kv=12.47 kw=50
new generator.h bus1=b kv=12.47 kw=50
new load.generator_h bus1=b kv=12.47 kw=50
new load.generator_g_3 bus1=b kv=12.47 kw=50"""
    case, report = same(tmp_path, body)
    names = [load.name for load in case.loads]
    assert len(set(names)) == len(names) == 9
    assert report.entry["generator.g"].became == tuple(f"load.generator_g_{k}" for k in (1, 4, 5))
    assert report.entry["generator.g_2"].became == ("load.generator_g_2",)
    assert report.entry["generator.h"].became == ("load.generator_h_1",)
    assert check(case) == ()


USE_ACTUAL = "new loadshape.s npts=4 interval=6 useactual=yes mult=(100 250 500 200)"


def test_the_rated_voltage_is_that_of_the_solved_point_over_a_day(tmp_path: Path) -> None:
    """Phases stated after the kV were seen by the 1 kW that a shape of kW multiplies, that is not at all."""
    body = f"{USE_ACTUAL}\nnew generator.g bus1=b.2 kv=7.2 phases=1 kw=300 kvar=90 model=2 daily=s"
    snapshot, _ = same(tmp_path, body)
    day, report = read(tmp_path / "master.dss", horizon="daily")
    one, every = (next(d for d in c.loads if d.name == "generator_g") for c in (snapshot, day))
    assert every.v_rated_kv == one.v_rated_kv == pytest.approx(7.2 / 3**0.5)
    assert "state them before" in report.entry["generator.g"].reason


@pytest.mark.parametrize("vminpu", [0.9, 1.1])
@pytest.mark.parametrize("actual", [False, True])
def test_balanced_currents_follow_their_shape(tmp_path: Path, vminpu: float, actual: bool) -> None:
    """What each phase gives at the solved point was held at every step."""
    shape = USE_ACTUAL if actual else "new loadshape.s npts=4 interval=6 mult=(0.2 0.5 1 0.4)"
    stated = f"kw=500 model=7 balanced=yes vminpu={vminpu} daily=s"
    snapshot, _ = same(tmp_path, f"{shape}\nnew generator.g bus1=b kv=12.47 {stated}")
    day, _ = read(tmp_path / "master.dss", horizon="daily")
    for k in (1, 2, 3):
        one, every = (next(d for d in c.loads if d.name == f"generator_g_{k}") for c in (snapshot, day))
        assert every.p_kw * day.multiplier(every.profile) == pytest.approx(one.p_kw * np.array([0.2, 0.5, 1.0, 0.4]))


@pytest.mark.parametrize(
    "stated",
    [
        "load.g bus1=b.0.0 phases=1 kv=7.2 kw=90",
        "generator.g bus1=b.0.0 phases=1 kv=7.2 kw=90",
        "generator.g bus1=b.0 phases=1 kv=7.2 kw=90 model=3",
        "pvsystem.g bus1=b.0 phases=1 kv=7.2 kva=90 pmpp=90",
        "storage.g bus1=b.0 phases=1 kv=7.2 kwrated=90 kwhrated=90 state=discharging",
    ],
)
def test_what_has_both_ends_on_ground_is_left_out(tmp_path: Path, stated: str) -> None:
    """It was a traceback, for want of a node 0."""
    case, report = same(tmp_path, f"new {stated}")
    entry = report.entry[stated.split()[0]]
    assert (entry.outcome, entry.code) == ("ignored", "IMP-059")
    assert len(case.loads) == 2


def test_phases_with_both_ends_on_ground_leave_all_of_a_load_out(tmp_path: Path) -> None:
    master = tmp_path / "master.dss"
    master.write_text(FILES.format(body="new load.g bus1=b.1.0.2.0 kv=12.47 kw=90", option=""))
    case, report = read(master)
    entry = report.entry["load.g"]
    assert (entry.outcome, entry.code, entry.lost_kw) == ("ignored", "IMP-040", 90.0)
    assert "1 of its 3 phases" in entry.reason
    assert len(case.loads) == 2


@pytest.mark.parametrize(
    ("stated", "inverter_q", "said"),
    [("", "as_filed", False), ("pf=0.9", "as_filed", False), ("", "free", True)],
)
def test_a_pv_system_of_constant_impedance_that_decides_is_said(
    tmp_path: Path, stated: str, inverter_q: InverterQ, said: bool
) -> None:
    """Where something of it is decided programs have its power, and power flow and replay the impedance."""
    master = tmp_path / "master.dss"
    master.write_text(FILES.format(body=f"new {PV} model=2 {stated}", option=""))
    _, report = read(master, inverter_q=inverter_q)
    entry = report.entry["pvsystem.g"]
    assert ("where it is scheduled it is constant power" in entry.reason) == said
