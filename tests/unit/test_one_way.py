"""No battery of an exact model charges and discharges at once, nor does a converter go both ways, by hand on two buses.

A battery of 10 kW, 0.9 in and 0.8 out, can burn 10 - 10 x 0.9 x 0.8 = 2.8 kW by doing both; one at whose end there is
as much energy as at its beginning can, over one step, do nothing else. Everything else draws 50 kW over a line of 0.5
ohm at 2.4 kV: 0.22 kW of losses without what the battery adds.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lateral
from lateral import solvers
from lateral.case import Case
from lateral.devices import PV, Battery, Load, SoftOpenPoint, Source, Statcom
from lateral.devices.base import LOST_KW
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.network.schema import Element
from lateral.opf import build, refined
from lateral.results.one_way import most_at_once_kw, one_way, told
from lateral.solvers import Options
from lateral.solvers.ipopt import IpoptOptions
from lateral.solvers.native import NativeOptions

LOSS_KW = 0.5 * (50.0 / 2.4) ** 2 * 1e-3
BURNT_KW = 10.0 * (1.0 - 0.9 * 0.8)
EXACT = ["nonlinear", "current-voltage", "bus-injection"]
BATTERY = Battery(
    name="s", bus="b", p_charge_max_kw=10.0, p_discharge_max_kw=10.0, s_max_kva=12.0, energy_kwh=20.0,
    eta_charge=0.9, eta_discharge=0.8, q_control="none",
)  # fmt: skip


def two_bus(*devices: Element, steps: int = 1, **source: object) -> Case:
    """Bus a with the grid, which pays 1 $ for a kWh taken, bus b with everything else."""
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1,), conductors_to=(1,),
        r_ohm=np.full((1, 1), 0.5), x_ohm=np.full((1, 1), 1.0),
    )  # fmt: skip
    grid = Source(name="grid", bus="a", **{"price_import": -1.0} | source)  # type: ignore[arg-type]
    buses = tuple(Bus(name=b, conductors=(1,), v_base_kv=2.4, v_min_pu=0.9, v_max_pu=1.1) for b in "ab")
    feeder = Feeder(buses=buses, lines=(line,))
    return Case(name="two", feeder=feeder, devices=(grid, *devices), horizon=Horizon.regular(steps), profiles={})


@pytest.mark.parametrize("formulation", EXACT)
def test_no_exact_model_burns_energy_in_both_ways_at_once(formulation: str) -> None:
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY)
    r = build(case, formulation).solve()
    assert r.ok, r.status_text
    assert r.max_simultaneous_kw <= most_at_once_kw(case)
    assert r.cost == pytest.approx(-(50.0 + LOSS_KW), abs=2e-2)  # losses at 0.99 pu: 2 % more than at 1
    assert r.value("system.losses")[0, 0] == pytest.approx(LOSS_KW, rel=0.05)
    assert any("held to charge or to discharge" in choice for choice in r.choices)
    assert "1 step of a battery held to charge or to discharge alone" in r.status_text
    # what the relaxation proves is of the problem without the sides: it can still burn
    bounds = [c for c in r.choices if "proves that no schedule is better" in c]
    assert len(bounds) == (formulation == "nonlinear")  # the others have no relaxation
    for bound in bounds:
        assert float(bound.split("more than ")[1].split()[0]) >= 0.9 * BURNT_KW / 50.0


def test_rounds_of_linearised_do_not_either() -> None:
    """They rest where the exact form ends, and the model is left without what was held."""
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY)
    model = build(case, "linearised")
    upper = model.program.ub.copy()
    r = refined(model, model.solve(), rounds=10)
    exact = build(case, "current-voltage").solve()
    assert r.ok, r.status_text
    assert r.max_simultaneous_kw <= most_at_once_kw(case)
    assert r.objective == pytest.approx(exact.objective, rel=1e-7)
    assert any("held to charge or to discharge" in choice for choice in r.choices)
    assert "1 step of a battery held to charge or to discharge alone" in r.status_text
    np.testing.assert_array_equal(model.program.ub, upper)


def test_the_schedule_recovered_from_a_relaxation_does_not_either() -> None:
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY)
    r = lateral.solve(case, "soc", recover=True)
    assert r.ok, r.status_text
    assert r.max_simultaneous_kw <= most_at_once_kw(case)
    assert r.cost == pytest.approx(-(50.0 + LOSS_KW), abs=2e-2)
    assert r.replay is not None
    assert r.replay.summary()["dloss_kw"] == pytest.approx(0.0, abs=1e-4)


def test_a_relaxed_schedule_that_leads_nowhere_is_no_reason_to_find_none() -> None:
    """Down to 0.5 pu a relaxation that earns by losses has so many that no exact point is near its schedule."""
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY)
    buses = tuple(dataclasses.replace(b, v_min_pu=0.5, v_max_pu=1.5) for b in case.feeder.buses)
    wide = dataclasses.replace(case, feeder=dataclasses.replace(case.feeder, buses=buses))
    r = lateral.solve(wide, "soc", recover=True, with_replay=False)
    assert r.ok, r.status_text
    assert r.cost == pytest.approx(-(50.0 + LOSS_KW), abs=2e-2)
    assert any("no point was found; begun without it" in choice for choice in r.choices)


@pytest.mark.parametrize("formulation", [*EXACT, "linearised"])
@pytest.mark.parametrize("phases", ["balanced", "free"])
@pytest.mark.parametrize("objective", ["cost", "curtailment"])
def test_no_exact_model_burns_energy_in_a_statcom(formulation: str, phases: str, objective: str) -> None:
    """100 kvar at 0.1 lose 10 kW. Giving and taking 50 each lose as much, and not the current."""
    st = Statcom(name="c", bus="b", q_rated_kvar=100.0, loss_share=0.1, phases=phases)
    sun = PV(name="p", bus="b", p_rated_kw=12.0, s_max_kva=12.0, q_control="none", curtailable=True)
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), sun, st)
    r = lateral.solve(case, formulation, objective, with_replay=False)
    assert r.ok, r.status_text
    (p,), (q,) = r.value("statcom.p_injected"), r.value("statcom.q_injected")
    assert -p[0] == pytest.approx(0.1 * abs(q[0]), abs=LOST_KW)
    assert "more than its law says" not in r.status_text
    if objective == "cost":  # losses earn: all that it may give or take
        assert abs(q[0]) == pytest.approx(100.0, abs=1e-3)
    else:  # nothing was curtailed before and nothing is now: nothing to say
        assert "may be better" not in r.status_text


@pytest.mark.parametrize("formulation", [*EXACT, "linearised"])
@pytest.mark.parametrize("objective", ["cost", "curtailment"])
def test_no_exact_model_burns_energy_in_a_soft_open_point(formulation: str, objective: str) -> None:
    """From b to c, a bus behind a second line: 40 kVA at 0.1 burn 4 kW by passing power in a circle."""
    point = SoftOpenPoint(name="o", bus="b", other_bus="c", s_max_kva=40.0, loss_share=0.1, q_control="none")
    sun = PV(name="p", bus="b", p_rated_kw=12.0, s_max_kva=12.0, q_control="none", curtailable=True)
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), sun, point)
    (line,) = case.feeder.lines
    buses = (*case.feeder.buses, dataclasses.replace(case.feeder.buses[0], name="c"))
    lines = (line, dataclasses.replace(line, name="m", bus_to="c"))
    case = dataclasses.replace(case, feeder=Feeder(buses=buses, lines=lines))
    r = lateral.solve(case, formulation, objective, with_replay=False)
    assert r.ok, r.status_text
    first, second = r.port_points["soft_open_point.o"][0][:, 0]
    passed = max(-first, -second, 0.0)
    assert -(first + second) == pytest.approx(0.1 * passed, abs=LOST_KW)
    assert "more than its law says" not in r.status_text


def test_what_is_held_is_said_kind_by_kind() -> None:
    """A statcom and two batteries, all of which burn."""
    st = Statcom(name="c", bus="b", q_rated_kvar=100.0, loss_share=0.1)
    other = dataclasses.replace(BATTERY, name="t")
    r = build(two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY, other, st), "current-voltage").solve()
    assert r.ok, r.status_text
    held = "2 steps of batteries held to charge or to discharge and 1 step of a statcom held to give or to take kvar"
    assert f"{held} alone; other sides may be better" in r.status_text


def test_the_ports_of_a_free_device_are_one_device() -> None:
    """A statcom of three ports whose kvar are free, over two steps: it burns at all of them."""
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1, 2, 3), conductors_to=(1, 2, 3),
        r_ohm=0.5 * np.eye(3), x_ohm=np.eye(3),
    )  # fmt: skip
    grid = Source(name="grid", bus="a", conductors=(1, 2, 3), angle_deg=(0.0, -120.0, 120.0), price_import=-1.0)
    buses = tuple(Bus(name=b, conductors=(1, 2, 3), v_base_kv=2.4, v_min_pu=0.9, v_max_pu=1.1) for b in "ab")
    ports = {"bus": "b", "terminals": (1, 2, 3, 0)}
    free = Statcom(name="c", q_rated_kvar=90.0, loss_share=0.1, phases="free", **ports)
    devices = (grid, Load(name="x", p_kw=50.0, **ports), free)
    horizon = Horizon.regular(2)
    case = Case(name="one", feeder=Feeder(buses=buses, lines=(line,)), devices=devices, horizon=horizon, profiles={})
    r = build(case, "current-voltage").solve()
    assert r.ok, r.status_text
    assert "held to give or to take kvar alone; other sides may be better" in r.status_text
    assert "solved again with 2 steps of statcoms held" in " ".join(r.choices)
    # and beside one whose ports are alike, which is another device
    alike = dataclasses.replace(free, name="d", phases="balanced")
    r = build(case.with_(devices=(*devices, alike)), "current-voltage").solve()
    assert r.ok, r.status_text
    assert "solved again with 4 steps of statcoms held" in " ".join(r.choices)


def test_linear_forms_keep_it_and_say_so() -> None:
    r = build(two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY), "lindistflow", loss_term=False).solve()
    assert r.cost == pytest.approx(-(50.0 + BURNT_KW), abs=1e-3)
    assert "charges and discharges" in r.status_text


def test_positive_prices_ask_for_nothing() -> None:
    r = build(two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY, price_import=0.2), "nonlinear").solve()
    assert r.ok
    assert not any("held" in choice for choice in r.choices)
    assert "held" not in r.status_text


def test_steps_that_begin_later_to_do_both_are_held_too() -> None:
    """Six steps of one price: both at once pays at all of them, and none is left in the end."""
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY, steps=6)
    r = build(case, "nonlinear").solve()
    assert r.ok, r.status_text
    assert r.max_simultaneous_kw <= most_at_once_kw(case)
    assert r.cost <= -6 * 50.0


@pytest.mark.parametrize("formulation", EXACT)
def test_where_only_both_at_once_keeps_the_limits_the_schedule_stays_with_its_warning(formulation: str) -> None:
    """2 kW of sun that nobody may take: without both ways at once there is no schedule."""
    sun = PV(name="p", bus="b", p_rated_kw=12.0, s_max_kva=12.0, q_control="none", curtailable=False)
    case = two_bus(Load(name="x", bus="b", p_kw=10.0), sun, BATTERY, p_export_max_kw=0.0)
    r = build(case, formulation).solve()
    assert r.ok
    assert r.max_simultaneous_kw > 1.0
    assert "holding each battery to charge or to discharge, by net power, ended" in r.status_text
    assert "charges and discharges" in r.status_text


def test_options_are_those_of_the_solver_that_is_asked() -> None:
    """What another solver answered for the one whose options were given is no reason to hand it these options."""
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), BATTERY)
    program = build(case, "current-voltage").program
    both = solvers.get("ipopt").solve(program)
    for options in (NativeOptions(max_iterations=90), Options(time_limit_s=60.0), IpoptOptions()):
        found = one_way(program, both, options)
        assert found is not None
        assert found.choice
    avoided = one_way(program, dataclasses.replace(both, solver="native"), None, avoid="ipopt")
    assert avoided is not None
    assert avoided.solution.solver == "native"


def test_both_at_once_that_pays_nothing_is_no_reason_to_doubt() -> None:
    """Without losses and without a price of them any split of the net power is as good."""
    lossless = dataclasses.replace(BATTERY, eta_charge=1.0, eta_discharge=1.0, name="t")
    case = two_bus(Load(name="x", bus="b", p_kw=50.0), lossless, price_import=0.2)
    case = dataclasses.replace(case, alpha_usd_per_kwh=0.0)
    r = build(case, "current-voltage").solve()
    assert r.ok, r.status_text
    assert "other sides may be better" not in r.status_text
    assert told("1 step of a battery held to charge or to discharge", 40.0, 40.0, 1.0) == (
        "solved again with 1 step of a battery held to charge or to discharge, by net power: both at once paid nothing",
        "",
    )


def test_prices_that_meet_after_an_update_build_the_model_again() -> None:
    """Buying and selling at once at one price would have no limit, and cost nothing."""
    model = build(two_bus(Load(name="x", bus="b", p_kw=50.0), price_import=0.3, price_export=0.1), "nonlinear")
    first = model.solve()
    assert first.value("source.sell")[0, 0] == pytest.approx(0.0, abs=1e-6)
    session = model._session
    again = model.update(prices=0.25).solve()
    assert model._session is session  # prices that stay apart change numbers alone
    assert again.cost == pytest.approx(first.cost * 0.25 / 0.3, rel=1e-6)
    met = model.update(prices=0.1).solve()
    assert met.ok, met.status_text
    assert met.value("source.buy")[0, 0] == pytest.approx(met.value("source.p_total")[0, 0], rel=1e-6)
    assert met.value("source.sell")[0, 0] == pytest.approx(0.0, abs=1e-6)
    assert met.cost == pytest.approx(first.cost / 3.0, rel=1e-6)
    apart = model.update(prices=0.3).solve()
    assert apart.cost == pytest.approx(first.cost, rel=1e-6)
