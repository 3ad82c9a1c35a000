"""What a replay says of limits other than those of the voltage to ground, against solutions by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.test_cli_powerflow import as_json
from tests.unit.test_one_way import two_bus

import lateral
from lateral.case import Case
from lateral.cli.running import summary_rows
from lateral.devices import PV, Battery, Load, Source
from lateral.io.dispatch import Dispatch
from lateral.network.feeder import Bus, Feeder, Line, Shunt, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.opf import build, replayed
from lateral.replay import Replay, replay
from lateral.report.content import replay_facts
from lateral.studies.comparison import compare

KV = 2.4
ABC = (1, 2, 3)
Z = np.array([[0.5, 0.15, 0.15], [0.15, 0.5, 0.15], [0.15, 0.15, 0.5]]) * (1.0 + 2.0j)


def unbalanced(bus: dict[str, float] | None = None, line: dict[str, Any] | None = None, **source: Any) -> Case:
    """A source without impedance, a line, a load on phase 1 alone at the first of two steps, on all at the second."""
    conductors = (*ABC, 4)
    far = Bus(name="b", conductors=conductors, v_base_kv=KV, **(bus or {}))
    z = np.zeros((4, 4), dtype=complex)
    z[:3, :3], z[3, 3] = Z, 0.6
    wire = Line(
        name="l",
        bus_from="a",
        bus_to="b",
        conductors_from=conductors,
        conductors_to=conductors,
        r_ohm=z.real,
        x_ohm=z.imag,
        b_us=np.diag([40.0, 40.0, 40.0, 0.0]),
        **(line or {}),
    )
    none = np.zeros((3, 3))
    grid = Source(
        name="s",
        bus="a",
        conductors=ABC,
        angle_deg=(0.0, -120.0, 120.0),
        v_pu=1.0,
        r_ohm=none,
        x_ohm=none,
        **source,
    )
    loads = (
        Load(name="one", bus="b", terminals=(1, 4), p_kw=250.0, q_kvar=80.0),
        Load(name="all", bus="b", terminals=(1, 2, 3, 0), p_kw=300.0, q_kvar=0.0, profile="second"),
    )
    near = Bus(name="a", conductors=conductors, v_base_kv=KV)
    earth = Shunt(name="e", bus="a", conductors=(4,), g_us=[[1e8]], b_us=[[0.0]])
    return Case(
        name="unbalanced",
        feeder=Feeder(buses=(near, far), lines=(wire,), shunts=(earth,)),
        devices=(grid, *loads),
        horizon=Horizon.regular(2),
        profiles={"second": np.array([0.0, 1.0])},
    )


def rows(case: Case, quantity: str) -> list[tuple[str, int, float, float, str]]:
    """What is beyond a limit: element, step, value, limit, unit."""
    table = replay(case).other_violations()
    assert set(table["quantity"]) <= {quantity}
    assert table["time"].tolist() == [case.horizon.times[k] for k in table["step"]]
    return [tuple(r) for r in table[["element", "step", "value", "limit", "unit"]].itertuples(index=False)]


def test_voltages_between_phases_and_to_the_neutral() -> None:
    v = replay(unbalanced()).v[4:]
    between = np.abs(v[[0, 1, 2]] - v[[1, 2, 0]]) / math.sqrt(3.0)
    found = rows(unbalanced({"vpp_min_pu": 0.975, "vpp_max_pu": 0.9999}), "vpp")
    assert found == [
        ("b.1-2", 1, pytest.approx(between[0, 1], abs=1e-9), 0.975, "pu"),
        ("b.2-3", 0, pytest.approx(between[1, 0], abs=1e-9), 0.9999, "pu"),
    ]
    neutral = np.abs(v[:3] - v[3])
    found = rows(unbalanced({"vpn_min_pu": 0.93, "vpn_max_pu": 1.02}), "vpn")
    assert found == [
        ("b.1-4", 1, pytest.approx(neutral[0, 1], abs=1e-9), 0.93, "pu"),
        ("b.2-4", 0, pytest.approx(neutral[1, 0], abs=1e-9), 1.02, "pu"),
    ]


def test_voltage_unbalance() -> None:
    v = replay(unbalanced()).v[4:7]
    a = complex(-0.5, math.sqrt(0.75))
    share = np.abs(v[0] + a**2 * v[1] + a * v[2]) / np.abs(v[0] + a * v[1] + a**2 * v[2])
    assert share.min() > 0.01
    limit = float(share.mean())
    step = int(share.argmax())
    found = rows(unbalanced({"unbalance_max": limit}), "unbalance")
    assert found == [("b", step, pytest.approx(share[step], abs=1e-9), limit, "")]


def test_currents_are_those_of_the_series_impedance() -> None:
    """The current of the load between phase and neutral, and what charges the far half of the phase."""
    r = replay(unbalanced())
    v = r.v[4:, 0] * KV  # kV
    load = np.conj(complex(250.0, 80.0) / (v[0] - v[3]))
    phase = abs(load + 0.5e-3j * 40.0 * v[0])  # uS kV = mA
    found = rows(unbalanced(line={"i_max_a": 100.0}), "current")
    assert [(element, step) for element, step, *_ in found] == [
        ("line.l.1", 1),
        ("line.l.4", 1),
        ("line.l.4", 0),
        ("line.l.1", 0),
    ]
    by = {(element, step): value for element, step, value, *_ in found}
    assert by["line.l.1", 0] == pytest.approx(phase, rel=1e-8)
    assert by["line.l.4", 0] == pytest.approx(abs(load), rel=1e-8)
    share = replay(unbalanced(line={"i_max_a": 100.0})).other_violations()["share"]
    assert share.iloc[3] == pytest.approx(phase / 100.0 - 1.0, rel=1e-6)


def test_power_of_sources() -> None:
    r = replay(unbalanced())
    p, q = r.p_source_kw, r.q_source_kvar
    assert rows(unbalanced(p_import_max_kw=300.0), "p_source") == [("source.s", 1, pytest.approx(p[1]), 300.0, "kW")]
    assert rows(unbalanced(q_import_max_kvar=100.0), "q_source") == [
        ("source.s", 1, pytest.approx(q[1]), 100.0, "kvar")
    ]
    most = float(np.hypot(p, q)[1])
    assert rows(unbalanced(s_max_kva=500.0), "s_source") == [("source.s", 1, pytest.approx(most), 500.0, "kVA")]
    given = unbalanced(p_export_max_kw=0.0)
    sun = PV(name="p", bus="b", terminals=(1, 2, 3, 0), p_rated_kw=400.0, s_max_kva=400.0)
    given = given.with_(devices=(*given.devices, sun))
    back = replay(given).p_source_kw
    assert back[0] < -100.0 < 0.0 < back[1]
    assert rows(given, "p_source") == [("source.s", 0, pytest.approx(back[0]), 0.0, "kW")]


@pytest.mark.parametrize("n_phases", [1, 3])
def test_power_of_transformers_and_currents_of_a_balanced_feeder(n_phases: int) -> None:
    """What goes in behind the ideal part: the load and what the impedance takes; totals over all phases."""
    sides = (("a", KV, 0.0), ("b", 0.24, 2.0))
    unit = Transformer(
        name="t",
        n_phases=1,
        windings=tuple(
            Winding(bus=b, terminals=(1, 0), v_rated_kv=kv, s_rated_kva=100.0, r_percent=r) for b, kv, r in sides
        ),
        x_percent=(4.0,),
        antifloat_ppm=0.0,
        s_max_kva=90.0 * n_phases,
    )
    wire = Line(
        name="l",
        bus_from="b",
        bus_to="c",
        conductors_from=(1,),
        conductors_to=(1,),
        r_ohm=[[0.01]],
        x_ohm=[[0.01]],
        i_max_a=400.0,
    )
    buses = tuple(Bus(name=b, conductors=(1,), v_base_kv=kv) for b, kv in (("a", KV), ("b", 0.24), ("c", 0.24)))
    case = Case(
        name="t",
        feeder=Feeder(buses=buses, lines=(wire,), transformers=(unit,), n_phases=n_phases, balanced=True),
        devices=(
            Source(name="s", bus="a"),
            Load(name="d", bus="c", p_kw=90.0 * n_phases, q_kvar=30.0 * n_phases),
        ),
        horizon=Horizon.regular(1),
    )
    r = replay(case)
    v = r.v[list(r.nodes).index(("c", 1)), 0] * 0.24
    current = abs(complex(90.0, 30.0)) / abs(v)
    z = 0.24**2 / 0.1 * complex(0.02, 0.04) + complex(0.01, 0.01)  # ohm, on the second winding
    through = abs(complex(90.0, 30.0) + current**2 * z * 1e-3) * n_phases
    found = r.other_violations()
    assert found[["quantity", "element", "limit", "unit"]].to_numpy().tolist() == [
        ["current", "line.l.1", 400.0, "A"],
        ["power", "transformer.t", 90.0 * n_phases, "kVA"],
    ]
    assert found["value"].tolist() == pytest.approx([current, through], rel=1e-7)
    assert r.summary()["violations"]["power"] == 1


LIMITS = {
    "current": ({}, {"i_max_a": 100.0}, {}, "currents are"),
    "vpp": ({"vpp_min_pu": 0.975}, {}, {}, "1 voltage between phases is"),
    "s_source": ({}, {}, {"s_max_kva": 500.0}, "1 apparent power of a source is"),
}


@pytest.mark.parametrize("quantity", LIMITS)
def test_status_words_report_and_json_say_it(quantity: str) -> None:
    bus, line, source, words = LIMITS[quantity]
    bus = {"v_max_pu": 2.0, "v_min_pu": 0.0} | bus
    plain, limited = unbalanced(bus | {"vpp_min_pu": 0.0}), unbalanced(bus, line, **source)
    r = replayed(build(plain, "current-voltage").solve())
    assert "beyond" not in r.status_text
    assert r.replay.summary()["violations"] == {}  # type: ignore[union-attr]
    run = replay(limited)
    told = dataclasses.replace(r, replay=run)
    w = run.other_violations().iloc[0]
    said = f"{words} beyond limits that the model keeps, worst {w.value:.5g} {w.unit} at {w.element} at "
    assert said in told.status_text
    summary = told.summary()["replay"]
    assert summary["violations"] == {quantity: len(run.other_violations())}
    assert summary["n_violations"] == len(run.other_violations())
    json.dumps(summary, allow_nan=False)
    (value,) = [
        text for name, text in replay_facts(run) if name.endswith("beyond their limits") and "ground" not in name
    ]
    assert str(w.element) in value
    (shown,) = [text for name, text in summary_rows(told.summary()) if name == "OpenDSS replay"]
    assert f"{words.removesuffix(' is').removesuffix(' are')}" in shown


def test_a_linear_form_that_leaves_losses_out_exceeds_a_limit_of_the_source_in_opendss() -> None:
    case = unbalanced({"v_min_pu": 0.8}, p_import_max_kw=450.0)
    battery = Battery(
        name="b",
        bus="b",
        terminals=(1, 2, 3, 0),
        p_charge_max_kw=300.0,
        p_discharge_max_kw=300.0,
        s_max_kva=300.0,
        energy_kwh=600.0,
    )
    case = case.with_(devices=(*case.devices, battery))
    r = replayed(build(case, "lindist3flow", loss_term=False, point="nominal").solve())
    assert r.ok
    assert "1 active power of a source is beyond limits that the model keeps, worst 4" in r.status_text
    exact = replayed(build(case, "current-voltage").solve())
    assert "beyond" not in exact.status_text
    table = compare(case, ["lindist3flow:nominal", "current-voltage"], loss_term=False).table
    assert table["n_violations"].tolist()[1:] == [1, 0]


def test_what_is_idle_is_in_no_window() -> None:
    case = unbalanced()
    odd = {"bus": "b", "terminals": (1, 0), "v_min_pu": 1.2, "v_max_pu": 1.5}
    night = PV(name="night", p_rated_kw=50.0, s_max_kva=50.0, profile="second", **odd)
    store = Battery(name="b", p_charge_max_kw=9.0, p_discharge_max_kw=9.0, s_max_kva=9.0, energy_kwh=9.0, **odd)
    none = Load(name="none", p_kw=5.0, profile="second", **odd)
    case = case.with_(devices=(*case.devices, night, store, none))
    r = replay(case)
    assert r.inverters_outside_window()[["device", "step"]].to_numpy().tolist() == [["pv.night", 1]]
    assert r.loads_outside_window()[["load", "step"]].to_numpy().tolist() == [["none", 1]]
    told = Dispatch(p_kw={"pv.night": np.zeros(2), "battery.b": np.array([0.0, -3.0])}, q_kvar={})
    assert replay(case, told).inverters_outside_window()[["device", "step"]].to_numpy().tolist() == [["battery.b", 1]]


def test_the_command_names_the_nodes_that_its_range_leaves_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neutrals, as `lateral powerflow` does; a bus that nothing feeds is a fault to both (`NET-003`)."""
    lateral.write_folder(unbalanced(), tmp_path / "case")
    code, data = as_json(capfd, "replay", tmp_path / "case")
    assert code == 0
    assert (data["n_dead_nodes"], data["dead_nodes"]) == (0, [])
    assert (data["n_low_nodes"], data["low_nodes"]) == (2, ["a.4", "b.4"])
    assert data["v_min_pu"] == pytest.approx(float(replay(unbalanced()).v_pu[4:7].min()), abs=1e-6)


@pytest.mark.parametrize("with_load", [True, False])
def test_a_source_held_to_zero_exceeds_it_by_no_rounding(with_load: bool) -> None:
    """Nothing may be given back and no kvar passed: 1e-5 kvar are left of it, and are all that the source ever has."""
    sun = PV(name="p", bus="b", p_rated_kw=80.0, s_max_kva=100.0, curtailable=True)
    held = dict.fromkeys(("p_export_max_kw", "q_import_max_kvar", "q_export_max_kvar"), 0.0)
    held |= {} if with_load else {"p_import_max_kw": 0.0}
    load = Load(name="x", bus="b", p_kw=50.0, q_kvar=10.0)
    case = two_bus(*[load] * with_load, sun, price_import=0.2, **held)
    r = replayed(build(case, "current-voltage").solve())
    assert r.ok
    assert isinstance(r.replay, Replay)
    assert 0.0 < np.hypot(r.replay.p_source_kw, r.replay.q_source_kvar)[0] < 1e-4
    assert r.replay.n_violations() == {}
    assert "beyond" not in r.status_text
    back = Dispatch(p_kw={"pv.p": np.array([80.0])}, q_kvar={"pv.p": np.zeros(1)})
    kept = replay(case, back).other_violations()
    assert set(kept["quantity"]) == {"p_source", "q_source"}
    limit = kept["limit"].to_numpy(dtype=float)
    assert limit.tolist() == [0.0, 0.0]
    assert not np.signbit(limit).any()  # the status would say "limit -0"


@pytest.mark.parametrize("formulation", ["current-voltage", "linearised", "sdp", "lindist3flow"])
def test_a_limit_at_the_bus_of_a_source_is_said_not_to_be_kept(formulation: str) -> None:
    """1 pu is given behind 0.01 ohm, 0.99 pu allowed: the schedule is optimal, the replay counts six.
    (Without an impedance it is a fault of the case, `DEV-007`.)"""
    case = unbalanced()
    near, far = case.feeder.buses
    case = case.with_(
        feeder=dataclasses.replace(case.feeder, buses=(dataclasses.replace(near, v_max_pu=0.99), far)),
        devices=(dataclasses.replace(case.sources[0], r_ohm=0.01 * np.eye(3)),),
    )
    result = lateral.solve(case, formulation)
    assert result.ok
    assert result.replay.summary()["violations"] == {"v": 6}  # type: ignore[union-attr]
    said = "but the voltage at the bus of a source is given, whatever its limits: worst 1 pu at a."
    assert said in result.status_text
    assert "voltage at the bus of a source" not in lateral.solve(unbalanced(), formulation).status_text
