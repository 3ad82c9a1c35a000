"""Infeasible cases say which limits are the reason, in words and numbers that can be checked by hand."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.test_replay_limits import rows, unbalanced

import lateral
from lateral import model, solvers
from lateral.case import Case
from lateral.cli import run as cli
from lateral.devices import PV, Battery, Load, Source
from lateral.io import write_folder
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.recover import recovered
from lateral.results.infeasible import least_violation
from lateral.results.result import Result
from lateral.solvers.base import Status
from lateral.solvers.elastic import elastic, explain, settled

BALANCED = ("lindistflow", "soc", "nonlinear")
FORMULATIONS = (*BALANCED, "lindist3flow")


def case(*devices: object, source: dict[str, object] | None = None, **bus: float) -> Case:
    """a - b over 0.5 + j1 ohm at 2.4 kV, three hours from midnight with load of 100, 200 and 100 kW at b."""
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1,), conductors_to=(1,), r_ohm=[[0.5]], x_ohm=[[1.0]]
    )
    limits = {"v_min_pu": 0.9, "v_max_pu": 1.1} | bus
    buses = (
        Bus(name="a", conductors=(1,), v_base_kv=2.4),
        Bus(name="b", conductors=(1,), v_base_kv=2.4, **limits),
    )
    return Case(
        name="two",
        feeder=Feeder(buses=buses, lines=(line,)),
        devices=(
            Source(name="grid", bus="a", price_import=0.1, **(source or {})),  # type: ignore[arg-type]
            Load(name="x", bus="b", p_kw=200.0, q_kvar=100.0, profile="day"),
            *devices,  # type: ignore[arg-type]
        ),
        horizon=Horizon.regular(3),
        profiles={"day": np.array([0.5, 1.0, 0.5])},
    )


def battery(**more: object) -> Battery:
    given = {
        "name": "s",
        "bus": "b",
        "p_charge_max_kw": 1.0,
        "p_discharge_max_kw": 1.0,
        "s_max_kva": 2.0,
        "energy_kwh": 100.0,
        "eta_charge": 1.0,
        "eta_discharge": 1.0,
        "q_control": "none",
    }
    return Battery(**(given | more))  # type: ignore[arg-type]


def refused(c: Case, formulation: str, **options: object) -> Result:
    r = build(c, formulation, **options).solve()  # type: ignore[arg-type]
    assert r.status is Status.INFEASIBLE, r.status_text
    assert not r.ok
    assert r.conflicts
    assert r.reasons[0] in r.status_text
    return r


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_voltage_names_bus_and_time(formulation: str) -> None:
    """At 01:00 LinDistFlow gives v = 1 - 2 (0.5 * 0.2 + 1 * 0.1) / 5.76 = 0.9306, |V| = 0.9647 < 0.975.

    With losses it is 0.9635, from the larger root of v^2 - 0.9306 v + |z|^2 (0.2^2 + 0.1^2) = 0. At the other hours
    0.9825: no reason.
    """
    r = refused(case(v_min_pu=0.975), formulation)
    assert {(c.block, c.element, c.step) for c in r.conflicts} == {("bus.vmag_sq", "b.1", 1)}
    b = -(1 - 2 * 0.2 / 5.76)
    exact = np.sqrt((-b + np.sqrt(b**2 - 4 * (1.25 / 5.76**2) * 0.05)) / 2)
    v = np.sqrt(1 - 2 * 0.2 / 5.76) if formulation == "lindistflow" else exact
    (conflict,) = r.conflicts
    assert conflict.value == pytest.approx(v, abs=2e-5)
    assert conflict.limit == pytest.approx(0.975)
    assert conflict.amount == pytest.approx(0.975 - v, abs=2e-5)
    (reason,) = r.reasons
    assert "bus b.1 vmag" in reason
    assert "at 01:00" in reason
    assert "< 0.975 pu" in reason


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_import_limit_says_how_many_kw(formulation: str) -> None:
    """170 kW may come in and 200 kW are needed, plus losses of r l: l = 0.05 / v."""
    r = refused(case(source={"p_import_max_kw": 170.0}), formulation)
    (conflict,) = r.conflicts
    assert (conflict.block, conflict.element, conflict.step, conflict.unit) == ("source.p_limit", "grid", 1, "kW")
    losses = 0.0 if formulation == "lindistflow" else 0.5 / 5.76 * 0.05 / 0.9635**2 * 1000
    assert conflict.amount == pytest.approx(30.0 + losses, abs=0.05)
    assert conflict.limit == pytest.approx(170.0)
    assert "source grid p_limit" in r.reasons[0]
    assert "170 kW at 01:00" in r.reasons[0]


def test_export_limit() -> None:
    """150 kW of sun that nobody may cut, 100 kW of load, 20 kW may leave: 30 kW too much in two hours."""
    sun = PV(name="p", bus="b", p_rated_kw=150.0, s_max_kva=150.0, q_control="none")
    r = refused(case(sun, source={"p_export_max_kw": 20.0}), "lindistflow")
    assert {(c.block, c.step) for c in r.conflicts} == {("source.p_limit", 0), ("source.p_limit", 2)}
    assert [c.amount for c in r.conflicts] == pytest.approx([30.0, 30.0], abs=1e-3)
    assert r.reasons[0].endswith("and at 1 other step")


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_energy_that_cannot_come_back_names_the_battery(formulation: str) -> None:
    """5 kWh in a battery that keeps at least 10 and has to end at 5: its own limits, and no other battery's."""
    model = build(case(battery(soc_min=0.1), battery(name="fine")), formulation).update(initial={"s": 5.0})
    r = model.solve()
    assert r.status is Status.INFEASIBLE
    assert {c.element for c in r.conflicts} == {"s"}
    assert {c.block for c in r.conflicts} <= {"battery.energy", "battery.terminal"}
    assert all("battery s " in reason for reason in r.reasons)


def test_terminal_energy_alone() -> None:
    """Empty at the end is not allowed and a load of 200 kW in the last hour takes what 100 kW of import do not give.

    The battery gives 100 kWh at 01:00 and gets back at most 3 kWh in the hour after: 97 kWh short of its beginning,
    unless the import limit gives way.
    """
    strong = battery(p_discharge_max_kw=150.0, s_max_kva=150.0, energy_kwh=200.0, p_charge_max_kw=3.0)
    c = case(strong, source={"p_import_max_kw": 103.0})
    assert build(c, "lindistflow", terminal="free").solve().ok
    r = refused(c, "lindistflow")
    assert {x.element for x in r.conflicts} <= {"s", "grid"}
    # 97 kWh given at 01:00; 3 kWh may come back before (held at most 200) and 3 after: 91 kWh, kW for an hour
    assert sum(x.amount for x in r.conflicts) == pytest.approx(91.0, abs=0.1)


def test_terminal_energy_by_update_names_the_battery() -> None:
    """What has to come back follows the beginning: 5 kWh in a battery that keeps at least 10 kWh is 5 + 1 kWh short."""
    model = build(case(battery(soc_min=0.1)), "lindistflow", terminal="free").update(initial={"s": 5.0})
    r = model.solve()
    assert r.status is Status.INFEASIBLE
    assert {c.element for c in r.conflicts} == {"s"}
    # 1 kW for 1, 2, 3 h: 6, 7, 8 kWh
    found = sorted((c.step, round(c.value, 3)) for c in r.conflicts)
    assert found == [(0, 6.0), (1, 7.0), (2, 8.0)]


def test_exact_model_is_refused_by_proof() -> None:
    """Ipopt alone can only fail locally; its convex relaxation is the proof, and the result says so."""
    c = case(v_min_pu=0.975)
    r = refused(c, "nonlinear")
    assert any("convex relaxation" in choice for choice in r.choices)
    local = build(c, "nonlinear").solve("ipopt")
    assert local.status is Status.LOCALLY_INFEASIBLE
    assert ("bus.vmag_sq", "b.1", 1) in {(x.block, x.element, x.step) for x in local.conflicts}


@pytest.mark.parametrize("held", [False, True])
def test_a_solve_without_a_word_gets_one(held: bool) -> None:
    """Where Ipopt ends at its limit the least violation decides: above zero nothing is near; else it starts there."""
    program = build(case(v_min_pu=0.975 if held else 0.9), "nonlinear").program
    ipopt = solvers.get("ipopt")
    cut = solvers.get("ipopt", solvers.Options(max_iterations=1)).solve(program)
    assert cut.status is Status.LIMIT_REACHED
    found = settled(program, cut, ipopt)
    assert found.iterations > cut.iterations
    if held:
        assert found.status is Status.LOCALLY_INFEASIBLE
        assert "least violation" in found.message
    else:
        assert found.status is Status.OPTIMAL
        assert program.objective(found.x) == pytest.approx(program.objective(ipopt.solve(program).x), rel=1e-9)


def test_a_word_is_looked_for_while_there_is_time() -> None:
    program = build(case(v_min_pu=0.975), "nonlinear").program
    cut = solvers.get("ipopt", solvers.Options(max_iterations=1)).solve(program)
    assert settled(program, cut, solvers.get("ipopt"), until=time.perf_counter()) is cut


def test_the_limits_in_the_way_are_looked_for_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a time limit the explanation has what the solve has left."""
    program = build(case(v_min_pu=0.975), "lindistflow").program
    assert least_violation(program) is not None
    assert least_violation(program, until=time.perf_counter()) is None
    asked: list[float] = []
    monkeypatch.setattr(model, "least_violation", lambda *_, until, **__: asked.append(until))
    now = time.perf_counter()
    r = build(case(v_min_pu=0.975), "lindistflow").solve(options=solvers.Options(time_limit_s=50.0))
    assert r.status is Status.INFEASIBLE
    assert now + 50.0 <= asked[0] <= time.perf_counter() + 50.0


def test_a_recovery_without_a_start_has_what_the_relaxation_left_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    relaxed = build(case(v_min_pu=0.9), "soc").solve()
    lost = dataclasses.replace(relaxed, status=Status.ERROR, seconds={"solve": 8.0})
    nowhere = np.full_like(lost.solution.x, np.nan)
    lost = dataclasses.replace(lost, solution=dataclasses.replace(lost.solution, x=nowhere))
    asked: list[solvers.Options] = []
    plain = model.Model.solve

    def solve(self: model.Model, solver: str, options: solvers.Options, **more: Any) -> Result:
        asked.append(options)
        return plain(self, solver, options, **more)

    monkeypatch.setattr(model.Model, "solve", solve)
    make = lambda name, _: build(lost.case, name)  # noqa: E731
    r = recovered(lost, make, lambda _: pytest.fail("no schedule, no flow"), options=solvers.Options(time_limit_s=10.0))
    assert r.ok
    assert asked[0].time_limit_s == pytest.approx(2.0, abs=0.5)


def test_options_within_a_time() -> None:
    """What is left, or what was asked for where that is less; never nothing, which no solver takes."""
    asked, now = solvers.Options(time_limit_s=5.0, tolerance=1e-7), time.perf_counter()
    assert asked.within(np.inf) is asked
    assert asked.within(now + 100.0) == asked
    assert asked.within(now + 2.0).time_limit_s == pytest.approx(2.0, abs=0.5)
    assert asked.within(now + 2.0).tolerance == 1e-7
    assert solvers.IpoptOptions().within(now - 1.0).time_limit_s == pytest.approx(0.05)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_two_conflicts_are_both_named(formulation: str) -> None:
    r = refused(case(v_min_pu=0.975, source={"p_import_max_kw": 170.0}), formulation)
    assert {(c.block, c.step) for c in r.conflicts} == {("bus.vmag_sq", 1), ("source.p_limit", 1)}
    assert len(r.reasons) == 2


def test_reduce_never_names_more() -> None:
    """`reduce` gives up small conflicts for larger ones of fewer elements; here both are needed and both stay."""
    program = build(case(v_min_pu=0.975, source={"p_import_max_kw": 170.0}), "lindistflow").program
    solver = solvers.get("clarabel", None)
    plain, fewer = explain(program, solver), explain(program, solver, reduce=True)
    assert {c.block for c in fewer} == {c.block for c in plain} == {"bus.vmag_sq", "source.p_limit"}


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_feasible_case_has_no_conflict(formulation: str) -> None:
    program = build(case(battery()), formulation).program
    convex = program.relaxed()
    assert explain(convex, solvers.get("clarabel", None)) == ()
    soft = elastic(convex)
    found = solvers.get("clarabel", None).solve(soft.program)
    assert soft.program.objective(found.x) == pytest.approx(0.0, abs=1e-6)


def test_line_limit_in_conflict() -> None:
    """200 kW and 100 kvar at 2.4 kV need 0.2236 MVA / 2.4 kV = 93.2 A and more with the drop; 80 A are allowed."""
    c = case()
    lines = (dataclasses.replace(c.feeder.lines[0], i_max_a=80.0),)
    c = c.with_(feeder=dataclasses.replace(c.feeder, lines=lines))
    for formulation, amp in (("lindistflow", 93.17), ("soc", 93.17 / 0.9635), ("lindist3flow", None)):
        r = refused(c, formulation)
        (conflict,) = r.conflicts
        assert conflict.element == "line.l.1"
        assert conflict.step == 1
        if amp is not None and conflict.unit == "A":
            assert conflict.value == pytest.approx(amp, rel=2e-3)
            assert conflict.limit == pytest.approx(80.0, rel=1e-3)


def test_exit_code_and_reasons_of_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_folder(case(source={"p_import_max_kw": 170.0}), tmp_path / "two")
    code = cli(["solve", str(tmp_path / "two"), "--json"])
    data = json.loads(capfd.readouterr().out)
    assert code == 3
    assert data["status"] == "infeasible"
    assert len(data["conflicts"]) == 1
    assert "source grid p_limit" in data["conflicts"][0]
    assert "170 kW at 01:00" in data["conflicts"][0]
    assert data["conflicts"][0] in data["status_text"]


def test_bound_of_the_relaxation_is_below_the_optimum_however_small() -> None:
    """Nothing to curtail: the objective is zero, and the bound is the gap of the floor below it, not of zero."""
    result = lateral.build(lateral.read("ads10"), "nonlinear", "curtailment").solve()
    assert result.ok
    (said,) = (c for c in result.choices if "no schedule is better" in c)
    assert float(said.split("more than ")[1].split()[0]) <= 1e-6


@pytest.mark.parametrize("formulation", ["current-voltage", "bus-injection", "linearised", "sdp", "soc3"])
def test_a_limit_between_phases_is_named_as_it_was_given(formulation: str) -> None:
    """No load at all: 1 pu at b to ground, and 1 pu of sqrt(3) times the base between phases; 0.97 are allowed.

    1 pu is the value to the last digit of the elastic solve, which shares what is missing between three rows.
    """
    three = {"conductors_from": (1, 2, 3), "conductors_to": (1, 2, 3)}
    line = Line(name="l", bus_from="a", bus_to="b", r_ohm=0.5 * np.eye(3), x_ohm=np.eye(3), **three)  # type: ignore[arg-type]
    wide = {"conductors": (1, 2, 3), "v_base_kv": 2.4, "v_min_pu": 0.5, "v_max_pu": 1.5}
    buses = (Bus(name="a", **wide), Bus(name="b", vpp_max_pu=0.97, **wide))  # type: ignore[arg-type]
    nothing = np.zeros((3, 3))
    grid = Source(
        name="grid", bus="a", conductors=(1, 2, 3), angle_deg=(0.0, -120.0, 120.0), r_ohm=nothing, x_ohm=nothing
    )
    load = Load(name="x", bus="b", terminals=(1, 2, 3, 0), p_kw=0.0)
    feeder = Feeder(buses=buses, lines=(line,))
    idle = Case(name="idle", feeder=feeder, devices=(grid, load), horizon=Horizon.regular(1), profiles={})
    r = build(idle, formulation).solve()
    if r.ok:  # a relaxation may lose what nobody draws
        assert formulation in ("sdp", "soc3")
        return
    named = [c for c in r.conflicts if c.block == "bus.vpp_sq"]
    assert {c.element for c in named} == {"b.1-2", "b.2-3", "b.3-1"}
    for conflict in named:
        assert (conflict.limit, conflict.unit) == (pytest.approx(0.97, abs=1e-12), "pu")
        assert conflict.value == pytest.approx(1.0, abs=1e-4)
        assert "vpp 1 > 0.97 pu" in conflict.sentence


@pytest.mark.parametrize("formulation", ["current-voltage", "bus-injection", "linearised", "soc3"])
def test_a_limit_of_unbalance_is_named_with_what_it_is(formulation: str) -> None:
    """The row compares squares of sequence voltages; what is said is the share and the limit as it was stated."""
    r = build(unbalanced({"unbalance_max": 0.005}), formulation).solve()
    assert not r.has_values
    worst = r.conflicts[0]
    assert worst.block == "bus.unbalance"
    assert worst.limit == pytest.approx(0.005, rel=1e-9)
    measured = rows(unbalanced({"unbalance_max": 0.005}), "unbalance")
    share = {step: value for _, step, value, _, _ in measured}[worst.step]
    assert worst.value == pytest.approx(share, rel=0.1)
    assert "unbalance 0.01" in r.reasons[0] and "> 0.005 at" in r.reasons[0]


@pytest.mark.parametrize("formulation", ["current-voltage", "bus-injection"])
def test_bounds_that_exclude_each_other_need_no_relaxation(formulation: str) -> None:
    """`native` proves that there is no point; Clarabel, which has no word on such rows, was asked for the reasons."""
    model = build(lateral.read("ads10"), formulation)
    program = model.program
    cells, low = program.block("battery.energy").cells, program.lb.copy()
    low[cells] = program.ub[cells] + 1e-3
    model.program = dataclasses.replace(program, lb=low)
    r = model.solve("native")
    assert r.status is Status.INFEASIBLE, r.status_text
    assert not any("relaxation" in choice for choice in r.choices)
