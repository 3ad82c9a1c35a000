"""PV and batteries that decide phase by phase: by hand, exact in OpenDSS, at least as good as in equal parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_compensators import PLACES, three
from test_devices import two_bus

from lateral.case import Case
from lateral.cli.schedules import read_schedule
from lateral.cli.writing import schedule
from lateral.devices import PV, Battery, Load
from lateral.io import builtin
from lateral.io.opendss.write import render_opendss
from lateral.opf import build, dispatch_of, replayed
from lateral.results.result import Result

EXACT = ("current-voltage", "bus-injection")


def pv(**more: Any) -> PV:
    return PV(**{"name": "s", "bus": "b", "p_rated_kw": 200.0, "s_max_kva": 330.0} | more)


def battery(**more: Any) -> Battery:
    given = {"p_charge_max_kw": 200.0, "p_discharge_max_kw": 200.0, "s_max_kva": 330.0, "energy_kwh": 400.0}
    return Battery(**{"name": "s", "bus": "b"} | given | more)  # type: ignore[arg-type]


KINDS = {
    "fixed": lambda **m: pv(**m),
    "curtailable": lambda **m: pv(p_rated_kw=300.0, curtailable=True, **m),
    "power factor": lambda **m: pv(p_rated_kw=300.0, curtailable=True, q_control="power_factor", power_factor=0.9, **m),
    "box": lambda **m: pv(limit="box", **m),
    "battery": lambda **m: battery(**m),
    "battery box": lambda **m: battery(limit="box", **m),
    "battery without q": lambda **m: battery(q_control="none", **m),
}


def solved(case: Case, formulation: str, objective: str = "loss", **options: Any) -> Result:
    r = build(case, formulation, objective, **options).solve()
    assert r.ok, r.status_text
    return r


def on_one(p_kw: float) -> Load:
    return Load(name="x", bus="b", terminals=(1, 0), p_kw=p_kw)


@pytest.mark.parametrize("formulation", [*EXACT, "lindist3flow"])
def test_where_the_sun_goes_by_hand(formulation: str) -> None:
    """60 kW for two phases, 100 kW of load on the first: (100 - x)^2 + (60 - x)^2 is least at 80; none is drawn: 60."""
    x = pv(p_rated_kw=60.0, terminals=(1, 2, 0), phases="free", q_control="none")
    r = solved(two_bus(on_one(100.0), x, conductors=(1, 2, 3)), formulation)
    np.testing.assert_allclose(r.port_points["pv.s"][0][:, 0], [60.0, 0.0], atol=0.05)
    assert r.set_points["pv.s"][0][0] == pytest.approx(60.0, abs=1e-3)


@pytest.mark.parametrize("formulation", [*EXACT, "lindist3flow", "linearised", "sdp"])
def test_what_may_not_be_cut_is_not(formulation: str) -> None:
    """A kWh taken earns 1 $: sun that may be cut is, all of it; other sun goes in, all of it."""
    place = {"p_rated_kw": 60.0, "terminals": (1, 2, 0), "phases": "free", "q_control": "none"}
    for curtailable, want in ((True, 0.0), (False, 60.0)):
        case = two_bus(
            on_one(100.0), pv(curtailable=curtailable, **place), conductors=(1, 2, 3), source={"price_import": -1.0}
        )
        r = solved(case, formulation, "cost")
        assert r.set_points["pv.s"][0][0] == pytest.approx(want, abs=1e-3)


def test_sun_that_may_not_be_cut_and_stands_in_the_way_is_named() -> None:
    """50 kW over a border of 40 kW: 10 kW of sun are too much."""
    place = {"p_rated_kw": 50.0, "terminals": (1, 2, 3, 0), "phases": "free", "q_control": "none"}
    case = two_bus(pv(curtailable=False, **place), conductors=(1, 2, 3), source={"p_export_max_kw": 40.0})
    r = build(case, "lindist3flow", point="nominal").solve()
    assert not r.ok
    named = next(c for c in r.conflicts if c.block == "pv.p_total")
    assert named.limit == pytest.approx(50.0, abs=1e-6)
    assert named.value == pytest.approx(40.0, abs=0.05)


@pytest.mark.parametrize("curtailable", [True, False])
@pytest.mark.parametrize("phases", ["free", "balanced"])
def test_more_sun_than_there_is_is_no_way_out(phases: str, curtailable: bool) -> None:
    """140 kW to be fed by a border of 50 kW and 50 kW of sun: the border is in the way, not the sky."""
    place = {"p_rated_kw": 50.0, "terminals": (1, 2, 3, 0), "phases": phases, "q_control": "none"}
    load = Load(name="x", bus="b", terminals=(1, 2, 3, 0), p_kw=140.0)
    case = two_bus(pv(curtailable=curtailable, **place), load, conductors=(1, 2, 3), source={"p_import_max_kw": 50.0})
    r = build(case, "lindist3flow", point="nominal").solve()
    assert not r.ok
    assert {c.block for c in r.conflicts} == {"source.p_limit"}
    assert r.conflicts[0].amount == pytest.approx(40.0, abs=0.05)


@pytest.mark.parametrize("formulation", EXACT)
def test_a_battery_moves_power_between_phases(formulation: str) -> None:
    """Empty, with 100 kW on the first of two phases: (100 - x)^2 + x^2 is least at x = 50, taken from the second.

    Voltages differ by a few percent, and with them the losses of a kW.
    """
    x = battery(terminals=(1, 2, 0), phases="free", q_control="none", soc_initial=0.0)
    r = solved(two_bus(on_one(100.0), x, conductors=(1, 2, 3)), formulation)
    p = r.port_points["battery.s"][0][:, 0]
    np.testing.assert_allclose(p, [50.0, -50.0], atol=1.0)
    assert p.sum() == pytest.approx(0.0, abs=1e-3)
    assert r.value("battery.energy")[0, 0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("formulation", EXACT)
def test_each_phase_has_its_share_of_the_inverter(formulation: str) -> None:
    """45 kVA over three phases: 15 kVA each, whatever the load asks for."""
    x = pv(p_rated_kw=9.0, s_max_kva=45.0, terminals=(1, 2, 3, 0), phases="free")
    load = Load(name="x", bus="b", terminals=(1, 0), p_kw=100.0, q_kvar=100.0)
    r = solved(two_bus(load, x, conductors=(1, 2, 3)), formulation)
    p, q = r.port_points["pv.s"]
    assert np.hypot(p, q).max() <= 15.0 + 1e-6
    assert np.hypot(p, q)[0, 0] == pytest.approx(15.0, abs=1e-4)


def test_energy_is_that_of_the_sum() -> None:
    """E = E_0 + eta_c charge - discharge / eta_d with the totals, and they are what the ports add up to."""
    case = three(battery(terminals=(1, 2, 3, 0), phases="free", eta_charge=0.9, eta_discharge=0.8))
    r = solved(case, "current-voltage", terminal="free")
    p, q = r.port_points["battery.s"]
    charge, discharge = r.value("battery.p_charge")[0], r.value("battery.p_discharge")[0]
    np.testing.assert_allclose(p.sum(axis=0), discharge - charge, atol=1e-3)
    np.testing.assert_allclose(q.sum(axis=0), r.set_points["battery.s"][1], atol=1e-9)
    np.testing.assert_allclose(
        r.value("battery.energy")[0], 200.0 + np.cumsum(0.9 * charge - discharge / 0.8), atol=1e-3
    )


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_in_opendss_and_as_good_as_in_equal_parts(kind: str, place: dict[str, Any], formulation: str) -> None:
    equal, free = (solved(three(KINDS[kind](phases=p, **place)), formulation) for p in ("balanced", "free"))
    assert free.objective <= equal.objective * (1 + 1e-7)
    r = replayed(free)
    assert r.replay.errors.max_dv_pu <= 1e-7  # type: ignore[union-attr]
    assert r.replay.errors.dp_source_kw <= 1e-3  # type: ignore[union-attr]
    device = KINDS[kind](phases="free", **place)
    assert (device.label in r.port_points) == (len(device.ports) > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_linear_model_too(kind: str) -> None:
    """The same decisions in a linear model; its replay differs by what the model neglects."""
    place = {"terminals": (1, 2, 3, 0)}
    equal, free = (solved(three(KINDS[kind](phases=p, **place)), "lindist3flow") for p in ("balanced", "free"))
    assert free.objective <= equal.objective * (1 + 1e-6)
    assert replayed(free).replay.errors.max_dv_pu < 5e-3  # type: ignore[union-attr]


def test_on_one_conductor_there_is_nothing_to_divide() -> None:
    """A balanced feeder has one port: free is balanced."""
    a, b = (solved(two_bus(on_one(100.0), pv(phases=p)), "nonlinear") for p in ("balanced", "free"))
    assert a.objective == b.objective
    assert b.port_points == {}


def test_a_schedule_carries_the_ports(tmp_path: Any) -> None:
    """schedule.csv and the files for OpenDSS have every port; reading brings the same replay."""
    case = builtin.load("ieee13-controls")
    r = solved(case, "current-voltage", "cost")
    schedule(r).to_csv(tmp_path / "schedule.csv", index=False)
    again, d = read_schedule(tmp_path / "schedule.csv", case), dispatch_of(r)
    assert (
        set(again.ports)
        == set(d.ports)
        == {
            "pv.field",
            "pv.roofs",
            "battery.yard",
            "statcom.s671",
            "soft_open_point.tie",
        }
    )
    for label, rows in d.ports.items():
        np.testing.assert_allclose(again.ports[label], rows, atol=1e-9)
    for label, values in d.settings.items():
        np.testing.assert_allclose(again.settings[label], values, atol=1e-9)
    for der in ("load", "native"):
        text = render_opendss(case, dispatch=again, der=der).files["devices.dss"]  # type: ignore[arg-type]
        assert [text.count(f"New Load.pv_field_{k} phases=1 bus1=680.{k}.0") for k in (1, 2, 3)] == [1, 1, 1]
