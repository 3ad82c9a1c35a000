"""Study files and the functions behind them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lateral
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.devices import SVC, SoftOpenPoint, Statcom
from lateral.devices.load import Load, idling_name, is_idling
from lateral.errors import CaseError, HostileFileError, OptionError
from lateral.io import builtin, overlay, read, tables
from lateral.io.rule import DerRule, add_ders, evenly_spaced
from lateral.io.schema_json import study_schema
from lateral.io.study import Study, read_study
from lateral.network.horizon import Horizon
from lateral.studies.sweeps import varied


def study(folder: Path, text: str, **options: Any) -> Study:
    path = folder / "study.toml"
    path.write_text(text)
    return read_study(path, **options)


def faults(folder: Path, text: str) -> tuple[Any, ...]:
    with pytest.raises(CaseError) as caught:
        study(folder, text)
    return caught.value.faults


def without_ders(case: Case) -> Case:
    return case.with_(devices=tuple(d for d in case.devices if d.kind not in ("pv", "battery")))


def test_the_rule_is_the_published_placement() -> None:
    published = builtin.load("ieee123-t24")
    case = add_ders(without_ders(published), DerRule(pv_size=0.35, battery_size=0.35))
    assert [d.bus for d in case.pvs] == [d.bus for d in published.pvs]
    assert [d.bus for d in case.batteries] == [d.bus for d in published.batteries]
    assert sum(d.p_rated_kw for d in case.pvs) == pytest.approx(76.990, abs=5e-4)
    assert sum(d.energy_kwh for d in case.batteries) == pytest.approx(527.27, abs=5e-3)
    assert check(case) == ()


def test_evenly_spaced() -> None:
    assert evenly_spaced(5, 0.0) == ()
    assert evenly_spaced(5, 0.2) == (0,)
    assert evenly_spaced(5, 0.4) == (0, 4)
    assert evenly_spaced(5, 1.0) == (0, 1, 2, 3, 4)
    assert evenly_spaced(0, 0.5) == ()


def test_the_rule_again_takes_other_names_and_says_a_missing_profile() -> None:
    case = add_ders(builtin.load("ads10"))
    assert len({d.label for d in case.devices}) == len(case.devices)
    assert check(case) == ()
    with pytest.raises(CaseError, match="STU-011"):
        add_ders(builtin.load("case33bw"))
    assert add_ders(builtin.load("case33bw"), DerRule(pv_profile="")).pvs


def test_idling_losses_of_a_storage_are_no_customer() -> None:
    case = builtin.load("case33bw")
    idling = Load(name=idling_name("b1"), bus=case.feeder.buses[0].name, p_kw=1.0)
    assert is_idling(idling)
    more = case.with_(devices=(idling, *case.devices))
    rule = DerRule(pv_profile="")
    assert [d.label for d in add_ders(more, rule).devices[1:]] == [d.label for d in add_ders(case, rule).devices]
    found = {d.name: d.p_kw for d in overlay.set_loads(more, scale=2.0).loads}
    assert found == {d.name: d.p_kw if is_idling(d) else 2 * d.p_kw for d in more.loads}
    named = overlay.set_loads(more, scale=2.0, only=[idling.name]).loads
    assert [d.p_kw for d in named] == [2.0, *(d.p_kw for d in case.loads)]


@pytest.mark.parametrize("scale", ["nan", "inf", "-inf"])
def test_a_scale_of_loads_is_a_number(scale: str, tmp_path: Path) -> None:
    case = builtin.load("case33bw")
    with pytest.raises(OptionError, match=f"scale of loads is {scale}; give a finite factor"):
        overlay.set_loads(case, scale=float(scale))
    (tmp_path / "study.toml").write_text(f'case = "case33bw"\n[loads]\nscale = {scale}\n')
    with pytest.raises(CaseError, match=f"STU-003.*scale of loads is {scale}"):
        lateral.read(tmp_path / "study.toml")


def test_generation_is_no_load_to_be_scaled(tmp_path: Path) -> None:
    """A generator of an OpenDSS master is a load of negative power: no load scale or profile acts on it, by any way."""
    case = builtin.load("case33bw").with_(profiles={"half": np.array([0.5])})
    wind = Load(name="generator_wind", bus="18", p_kw=-300.0, q_kvar=50.0)
    more = case.with_(devices=(*case.devices, wind))
    lateral.write_folder(more, tmp_path / "case")
    (tmp_path / "study.toml").write_text('case = "case"\n[loads]\nscale = 2.0\nprofile = "half"\n')
    for scaled in (
        overlay.set_loads(more, scale=2.0, profile="half"),
        varied(overlay.set_loads(more, profile="half"), {"load_scale": 2.0}),
        lateral.read(tmp_path / "study.toml"),
    ):
        found = {d.name: (d.p_kw, d.q_kvar, d.profile) for d in scaled.loads}
        assert found.pop("generator_wind") == (-300.0, 50.0, "")
        assert found == {d.name: (2.0 * d.p_kw, 2.0 * d.q_kvar, "half") for d in case.loads}
    named = overlay.set_loads(more, scale=2.0, only=["generator_wind"]).loads  # who names it means it
    assert [d.p_kw for d in named] == [*(d.p_kw for d in case.loads), -600.0]


def test_only_the_sign_of_its_rated_power_makes_generation_of_a_load() -> None:
    """Neither a load that gives kvar alone nor one that a profile turns round is left out."""
    case = builtin.load("case33bw").with_(profiles={"back": np.array([-1.0])})
    kvar = Load(name="kvar", bus="18", p_kw=0.0, q_kvar=-50.0)
    turned = Load(name="turned", bus="18", p_kw=10.0, profile="back")
    found = overlay.set_loads(case.with_(devices=(*case.devices, kvar, turned)), scale=2.0).loads
    assert {d.name: (d.p_kw, d.q_kvar) for d in found[-2:]} == {"kvar": (0.0, -100.0), "turned": (20.0, 0.0)}
    said = json.dumps(study_schema())
    assert "p_kw not below zero" in said


def test_window() -> None:
    day = builtin.load("ieee123-t24")
    part = overlay.window(day, 9, 5)
    five = builtin.load("ieee123-t5")
    assert part.horizon.times.equals(five.horizon.times)
    assert part.profiles["load"].tolist() == five.profiles["load"].tolist()
    broken = day.with_(horizon=Horizon(start=day.horizon.start, step_h=[1] * 24, weight=[1] * 24, breaks=(3, 12)))  # type: ignore[arg-type]
    assert overlay.window(broken, 3, 10).horizon.breaks == (9,)
    for first, count in ((-1, 2), (0, 0), (20, 5)):
        with pytest.raises(OptionError):
            overlay.window(day, first, count)


def test_resampling_keeps_the_integral() -> None:
    case = builtin.load("ieee123")
    hourly = overlay.resample(case, 24)
    assert hourly.horizon.step_h.tolist() == [1.0] * 24
    assert hourly.profiles["load"] == pytest.approx(case.profiles["load"].reshape(24, 4).mean(axis=1))
    assert overlay.resample(hourly, 96).profiles["pv"] == pytest.approx(np.repeat(hourly.profiles["pv"], 4))
    odd = overlay.resample(case, 7)
    energy = [float((c.profiles["load"] * c.horizon.step_h).sum()) for c in (case, odd)]
    assert energy[0] == pytest.approx(energy[1])
    typical = case.with_(horizon=Horizon(start=case.horizon.start, step_h=[0.25] * 96, weight=range(1, 97)))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="unequal weights"):
        overlay.resample(typical, 24)
    with pytest.raises(CaseError, match="STU-010"):
        overlay.resample(case.with_(profiles={"load": np.ones(3)}), 24)


def test_two_level_is_the_published_tariff() -> None:
    case = builtin.load("ieee123-t24")
    price = overlay.two_level(case.horizon, 0.04820404, 0.3018066, (15, 22))
    assert price.tolist() == case.profiles["price"].tolist()
    night = overlay.two_level(case.horizon, 0.0, 1.0, (22, 6))
    assert np.flatnonzero(night).tolist() == [0, 1, 2, 3, 4, 5, 22, 23]


FULL = """
case = "ieee13-rated"
name = "mine"
notes = "a study"
alpha_usd_per_kwh = 2e-6

[horizon]
start = 2024-07-01T00:00:00
zone = "America/Chicago"
n_steps = 4
step_h = 6

[profiles]
file = "day.csv"
values = { flat = [1, 1, 1, 1] }

[[loads]]
profile = "load"
scale = 0.5

[[loads]]
profile = "flat"
only = ["671"]

[tariff]
low = 0.1
high = 0.3
high_hours = [12, 18]
export = 0.05

[limits]
v_min_pu = 0.94
p_export_max_kw = 0

[rule]
pv_share = 0.5
curtailable = true

[[pv]]
name = "roof"
load = "634a"
p_rated_kw = 10
s_max_kva = 12
profile = "pv"

[solve]
formulation = "soc"
objective = ["energy_cost"]
"""
DAY = """time,load,pv
2024-07-01T00:00-05:00,0.5,0
2024-07-01T06:00-05:00,0.8,0.6
2024-07-01T12:00-05:00,0.9,1
2024-07-01T18:00-05:00,1,0.1
"""


def test_everything_that_a_study_lays_over_a_case(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text(DAY)
    got = study(tmp_path, FULL)
    case = got.case
    assert (case.name, case.notes, case.alpha_usd_per_kwh) == ("mine", "a study", 2e-6)
    assert got.options == {"formulation": "soc", "objective": ["energy_cost"]}
    assert case.horizon.times[1].isoformat() == "2024-07-01T06:00:00-05:00"
    assert sum(d.p_kw for d in case.loads) == pytest.approx(1733.0)
    assert {d.name: d.profile for d in case.loads}["671"] == "flat"
    assert {d.profile for d in case.loads if d.name != "671"} == {"load"}
    source = case.sources[0]
    assert case.series(source.price_import).tolist() == [0.1, 0.1, 0.3, 0.1]
    assert (source.price_export, source.p_export_max_kw) == (0.05, 0.0)
    assert {b.v_min_pu for b in case.feeder.buses} == {0.94}
    roof = case.pvs[0]
    assert (roof.name, roof.bus, roof.terminals, roof.p_rated_kw) == ("roof", "634", (1, 0), 10.0)
    assert isinstance(roof.p_rated_kw, float)
    assert len({d.bus for d in case.pvs[1:]}) == 5
    assert all(d.curtailable for d in case.pvs[1:])
    assert check(case) == ()
    assert read(tmp_path / "study.toml").hash == case.hash


def test_the_points_of_an_inverter_curve(tmp_path: Path) -> None:
    text = """
case = "ads10"
[[pv]]
name = "roof"
bus = "9"
p_rated_kw = 10
s_max_kva = 12
q_control = "volt_var"
volt_var_v_pu = [0.9, 0.95, 1, 1.1]
volt_var_q_pu = [0.3, 0, 0, -0.3]
"""
    (roof,) = (d for d in study(tmp_path, text).case.pvs if d.name == "roof")
    assert (roof.volt_var_v_pu, roof.volt_var_q_pu) == ((0.9, 0.95, 1.0, 1.1), (0.3, 0.0, 0.0, -0.3))
    (fault,) = faults(tmp_path, text.replace("0.95", '"low"'))
    assert fault.code.startswith("STU-003")
    assert fault.allowed.startswith("a list of numbers")


LIMITED = """
case = "ieee13-rated"
[limits]
vpp_min_pu = 0.9
vpn_max_pu = 1.2
vpp_max_pu = 1.1
unbalance_max = 0.03
q_import_max_kvar = 3000
q_export_max_kvar = 500
s_max_kva = 6000
[rule]
pv_profile = ""
phases = "free"
[[statcom]]
name = "s"
bus = "671"
terminals = [1, 2, 3, 0]
q_rated_kvar = 300
phases = "free"
[[svc]]
name = "v"
bus = "675"
terminals = [1, 2, 3, 0]
q_max_kvar = 200
[[soft_open_point]]
name = "p"
load = "671"
other_bus = "675"
other_terminals = [1, 2, 3]
s_max_kva = 100
"""


@pytest.mark.parametrize(
    ("windings", "kvs"),
    [("buses=[a.1.0 low.1.0 low.0.2]", "7.2 0.12 0.12"), ("buses=[a.1.0 low.1.2]", "7.2 0.24")],
    ids=["center tap", "two legs"],
)
def test_legs_of_a_split_phase_are_no_phases(tmp_path: Path, windings: str, kvs: str) -> None:
    """240 V between legs of 120 V is 1.155 times sqrt(3) * 120 V: a limit of 1.05 between phases is none of theirs."""
    (tmp_path / "master.dss").write_text(f"""
new circuit.c basekv=12.47 phases=3 bus1=a
new transformer.t phases=1 windings={len(kvs.split())} {windings} kvs=[{kvs}] kvas=[50 50 50]
new line.service phases=2 bus1=low.1.2 bus2=house.1.2 r1=0.1 x1=0.05 length=0.05
new line.l phases=2 bus1=a.2.3 bus2=b.2.3 r1=0.1 x1=0.2 length=1
new load.x phases=1 bus1=house.1.2 kv=0.24 kw=8
new load.y phases=1 bus1=b.2.3 kv=12.47 kw=80
new load.z phases=1 bus1=house.1 kv=0.12 kw=1
new load.w phases=1 bus1=house.2 kv=0.12 kw=1
set voltagebases=[12.47 0.208]
calcvoltagebases
""")
    case = study(tmp_path, 'case = "master.dss"\n[limits]\nvpp_min_pu = 0.95\nvpp_max_pu = 1.05\n').case
    limits = {b.name: (b.vpp_min_pu, b.vpp_max_pu) for b in case.feeder.buses}
    phases, none = (0.95, 1.05), (0.0, np.inf)
    assert limits == {"a": phases, "b": phases, "low": none, "house": none}


def test_limits_between_phases_and_of_the_source_and_devices_without_energy(tmp_path: Path) -> None:
    case = study(tmp_path, LIMITED).case
    phases = {b.name: len({1, 2, 3} & set(b.conductors)) for b in case.feeder.buses}
    assert {1, 2, 3} <= set(phases.values())
    for bus in case.feeder.buses:  # only where there is something to limit
        assert (bus.vpn_min_pu, bus.vpn_max_pu) == (0.0, 1.2)
        assert (bus.vpp_min_pu, bus.vpp_max_pu) == ((0.9, 1.1) if phases[bus.name] > 1 else (0.0, np.inf))
        assert bus.unbalance_max == (0.03 if phases[bus.name] == 3 else np.inf)
    (source,) = case.sources
    assert (source.q_import_max_kvar, source.q_export_max_kvar, source.s_max_kva) == (3000, 500, 6000)
    (statcom,), (svc,), (point,) = case.of(Statcom), case.of(SVC), case.of(SoftOpenPoint)
    assert (statcom.bus, statcom.q_rated_kvar, statcom.phases) == ("671", 300.0, "free")
    assert (svc.terminals, svc.q_max_kvar) == ((1, 2, 3, 0), 200.0)
    assert (point.bus, point.terminals, point.connection) == ("671", (1, 2, 3), "delta")
    assert (point.other_bus, point.s_max_kva) == ("675", 100.0)
    assert case.pvs
    assert {d.phases for d in (*case.pvs, *case.batteries)} == {"free"}
    assert check(case, radial=False) == ()


def test_a_folder_a_window_and_a_table_of_batteries(tmp_path: Path) -> None:
    tables.write_folder(without_ders(builtin.load("ieee123-t24")), tmp_path / "feeder")
    (tmp_path / "b.csv").write_text(
        "name,bus,p_charge_max_kw,p_discharge_max_kw,s_max_kva,energy_kwh\nbig,51,100,100,120,400\n"
    )
    got = study(
        tmp_path,
        'case = "feeder"\n[horizon]\nfirst = 9\ncount = 6\nresample = 3\n[ders]\nbatteries = "b.csv"\n'
        '[tariff]\nprice = "price"\n',
    )
    assert [d.name for d in got.case.batteries] == ["big"]
    assert got.case.horizon.step_h.tolist() == [2.0, 2.0, 2.0]
    assert got.case.profiles["load"][0] == pytest.approx((0.75 + 0.777) / 2)


def test_an_opendss_master_goes_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "Master.dss").write_text("clear")
    seen = []

    def reader(path: Path) -> tuple[Case, str]:
        seen.append(path.name)
        return builtin.load("ieee13-rated"), "a report"

    got = study(tmp_path, 'case = "Master.dss"', read_dss=reader)
    assert (seen, got.report) == (["Master.dss"], "a report")


FEEDERS = Path(os.environ.get("LATERAL_SHARED", Path(__file__).parents[2].parent / "shared")) / "feeders"


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="OpenDSS feeders not at hand")
def test_a_master_read_and_the_builtin_agree() -> None:
    case, own = read(FEEDERS / "ieee13" / "IEEE13Nodeckt.dss"), builtin.load("ieee13-rated")
    assert {b.name for b in case.feeder.buses} == {b.name for b in own.feeder.buses}
    ours = {b.name: b for b in own.feeder.lines}
    for line in case.feeder.lines:
        np.testing.assert_allclose(ours[line.name].x_ohm, line.x_ohm, rtol=1e-8)
    assert power_flow(case).losses_kw == pytest.approx(power_flow(own).losses_kw, rel=1e-6)


def test_misspelt_keys_are_all_reported_with_their_line(tmp_path: Path) -> None:
    found = faults(tmp_path, 'case = "ads10"\ntarif = 3\n[limits]\nv_mim_pu = 0.9\nv_max_pu = "high"\n')
    assert [f.code for f in found] == ["STU-002 key"] * 3
    by_where = {f.where: f for f in found}
    assert "Did you mean 'tariff'" in by_where["study.toml:2"].action
    assert "Did you mean 'v_min_pu'" in by_where["study.toml:4"].action
    assert "number" in by_where["study.toml:5"].allowed


def test_a_fault_inside_a_choice_of_forms_is_said_once(tmp_path: Path) -> None:
    text = 'case = "ads10"\n[[loads]]\nscal-e = 2\n[horizon]\nn_steps = "many"\n[tariff]\nprice = [1]\n'
    found = {f.element.removeprefix("study.toml."): f for f in faults(tmp_path, text)}
    assert set(found) == {"loads.0.scal-e", "horizon.n_steps", "tariff.price"}
    assert "'scale'" in found["loads.0.scal-e"].action
    assert found["loads.0.scal-e"].where == "study.toml:3"
    assert found["horizon.n_steps"].where == "study.toml:5"
    assert "number or" in found["tariff.price"].allowed
    assert [f.code for f in faults(tmp_path, "case = " + "[" * 100000)] == ["STU-001 file"]


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ('case = "ads11"', "STU-005", "'ads10'"),
        ('case = "ads10"\n[tariff]\nprice = "prize"', "STU-011", "'price'"),
        ('case = "ads10"\n[tariff]\nlow = 0.1', "STU-013", ""),
        ('case = "ads10"\n[[loads]]\nonly = ["22"]', "STU-012", "'2'"),
        ('case = "ads10"\n[horizon]\nfirst = 20\ncount = 9', "STU-003", ""),
        ('case = "ads10"\n[horizon]\nn_steps = 7', "STU-010", ""),
        ('case = "ads10"\n[horizon]\nzone = "Moon/Base"', "STU-003", ""),
        ('case = "ads10"\n[profiles]\nvalues = { load = [1, 2] }', "STU-010", ""),
        ('case = "ads10"\n[[battery]]\nload = "9"\nenergy_kwh = 5', "STU-002", "Add it"),
        ('case = "ads10"\n[[soft_open_point]]\nload = "9"\nother_bus = "x"\ns_max_kva = 5', "STU-015", ""),
        ('case = "ads10"\n[[svc]]\nname = "s"\nbus = "9"\nq_min_kvar = 5', "STU-002", "Add it"),
        ('case = "ads10"\n[[pv]]\nname = "x"\nbus = "99"\np_rated_kw = 1\ns_max_kva = 1', "STU-015", ""),
        ('case = "ads10"\n[[pv]]\nload = "6"\np_rated_kw = 1\ns_max_kva = 1', "STU-014", "another name"),
        ('case = "ads10"\n[[pv]]\nload = "5"\np_rated_kv = 1\np_rated_kw=1\ns_max_kva = 1', "STU-002", "'p_rated_kw'"),
        ('case = "ads10"\n[[pv]]\nload = "5"\np_rated_kw = "one"\ns_max_kva = 1', "STU-003", ""),
        ('case = "ads10"\n[rule]\npv_profile = "pvs"', "STU-011", "'pv'"),
        ("case = ", "STU-001", ""),
    ],
)
def test_what_does_not_fit_is_a_coded_fault(tmp_path: Path, text: str, code: str, hint: str) -> None:
    found = faults(tmp_path, text)
    assert found[0].code.startswith(code)
    assert hint in found[0].action


@pytest.mark.parametrize("where", ['case = "../other"', 'case = "ads10"\n[profiles]\nfile = "/etc/passwd"'])
def test_no_file_outside_the_study_folder(tmp_path: Path, where: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(HostileFileError):
        study(inner, where)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="STU-001"):
        read_study(tmp_path / "none.toml")


def test_schema_is_published() -> None:
    schema = study_schema()
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["case"]
    assert "rule" in schema["properties"]
