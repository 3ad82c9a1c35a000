"""What ``auto`` takes: an exact form for every feeder, and what it goes on with where that is not solved."""

from __future__ import annotations

import dataclasses
import time
from functools import cache
from typing import Any

import numpy as np
import pytest

import lateral
from lateral import opf
from lateral.case import Case
from lateral.devices import PV, Battery, Load, Source
from lateral.errors import Fault, OptionError, UnsupportedError
from lateral.io import builtin
from lateral.io.overlay import resample
from lateral.model import Model
from lateral.network.feeder import Bus, Feeder, Line, Switch
from lateral.network.horizon import Horizon
from lateral.opf import build, choose_formulation, solve, worked_out
from lateral.program import Program
from lateral.report.content import conflicts as report_conflicts
from lateral.results import infeasible
from lateral.results.residuals import Residuals
from lateral.results.result import Result
from lateral.solvers import Options, Solution, Status

#: What every built-in case is solved in.
TAKEN = {
    **dict.fromkeys(["ieee123-t5", "ieee123-t10", "ieee123-t24", "ads10", "case33bw", "case33bw-areas"], "nonlinear"),
    **dict.fromkeys(["tree-128x5", "tree-1000x24", "tree-10000x96"], "nonlinear"),
    **dict.fromkeys(["ieee13", "ieee13-rated", "ieee13-controls", "ieee123", "ieee123-rated"], "current-voltage"),
}


@cache
def ieee13(steps: int = 6) -> Case:
    return resample(lateral.read("ieee13"), steps)


def tight() -> Case:
    """The regulator lifts its own bus to 1.05 pu, where 1.03 pu are allowed: nothing that decides can help."""
    case = ieee13()
    buses = tuple(dataclasses.replace(b, v_max_pu=1.03) if b.name == "rg60" else b for b in case.feeder.buses)
    return case.with_(feeder=dataclasses.replace(case.feeder, buses=buses))


def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program is larger than what Ipopt takes over."""
    monkeypatch.setattr(opf, "IPOPT_UP_TO", 0)


def forms(r: Result) -> list[str]:
    return [c.split(":")[0].removeprefix("formulation ") for c in r.choices if c.startswith("formulation ")]


@pytest.mark.parametrize("name", builtin.names())
def test_built_in_cases(name: str) -> None:
    chosen, why = choose_formulation(builtin.load(name), "auto")
    assert chosen.name == TAKEN[name]
    assert why[0].startswith(f"formulation {chosen.name}: exact")


def test_one_conductor_with_a_loop() -> None:
    """A closed tie of the 33-bus feeder makes a loop, which the branch flow declines."""
    case = lateral.read("case33bw")
    ties = tuple(dataclasses.replace(s, closed=True) if k == 0 else s for k, s in enumerate(case.feeder.switches))
    assert isinstance(ties[0], Switch)
    chosen, why = choose_formulation(case.with_(feeder=dataclasses.replace(case.feeder, switches=ties)), "auto")
    assert chosen.name == "current-voltage"
    assert why == ["formulation current-voltage: exact for any feeder, here with loops or several sources"]


def test_a_name_is_kept_to() -> None:
    assert choose_formulation(ieee13(), "lindist3flow")[0].name == "lindist3flow"
    assert choose_formulation(ieee13(), "lindist3flow")[1] == []


def test_three_phases_are_exact() -> None:
    """The replay differs by what solver and engine leave (2e-9 pu), in one round; the linear form is 2e-3 pu off."""
    r = solve(ieee13())
    assert r.ok
    assert (r.formulation, r.solution.solver) == ("current-voltage", "native")
    assert r.choices[0] == "formulation current-voltage: exact for any feeder, here with several conductors per bus"
    assert not [c for c in r.choices if c.startswith("round ")]
    assert r.replay is not None
    assert r.replay.summary()["max_dv_pu"] < 1e-8
    assert r.cost == pytest.approx(solve(ieee13(), "bus-injection", solver="ipopt", with_replay=False).cost, rel=1e-7)


def test_limits_that_cannot_be_kept_are_named() -> None:
    """As of the linear form, element for element; an exact form does not prove that there is no point."""
    r, linear = solve(tight()), solve(tight(), "lindist3flow")
    assert r.status is Status.LOCALLY_INFEASIBLE
    assert linear.status is Status.INFEASIBLE
    assert {(c.block, c.element, c.step) for c in r.conflicts} == {
        (c.block, c.element, c.step) for c in linear.conflicts
    }
    # where Ipopt ended is no schedule: nothing to replay, to price or to hand on
    assert not r.has_values
    assert r.replay is None
    assert r.summary()["cost"] is None
    most = max(r.conflicts, key=lambda c: c.amount)
    assert most.amount == pytest.approx(max(c.amount for c in linear.conflicts), rel=0.01)
    assert r.reasons[0] in r.status_text
    # sentence and table of the report say the same time, of rows with curvature too
    table = report_conflicts(r)
    assert table.head[2] == "worst step"
    times = [f"{r.time_of(c):%Y-%m-%d %H:%M}" for c in r.conflicts]
    assert {row[2] for row in table.rows} <= set(times)
    assert all(f"at {row[2][-5:]}" in reason for row, reason in zip(table.rows, r.reasons, strict=True))


def test_cells_at_some_steps_know_their_step() -> None:
    """Squared voltages of ports near an edge of a band exist where they are near it: at their own steps."""
    block = next(b for b in build(ieee13()).program.variables if b.at is not None)
    places = [block.place(block.start + k) for k in range(block.size)]
    assert [step for _, step in places] == block.at[1].tolist()
    assert all(element.endswith(f" @{step}") for element, step in places)
    assert len({step for _, step in places}) > 1


def test_loads_that_leave_their_band_are_taken_on_either_side() -> None:
    """The least demand lies below the band of loads, 2.5 % under what the exact branch flow has for an optimum."""
    case = lateral.read("case33bw")
    loads = (dataclasses.replace(d, v_min_pu=0.95) if isinstance(d, Load) else d for d in case.devices)
    case = case.with_(devices=tuple(loads))
    r = solve(case, objective="demand", with_replay=False)
    assert (r.formulation, r.status, r.warnings) == ("current-voltage", Status.OPTIMAL, ())
    assert r.choices[0].startswith("formulation current-voltage: loads left the side of their band that was taken, by")
    assert r.objective == pytest.approx(solve(case, "current-voltage", "demand", with_replay=False).objective, rel=1e-9)
    kept = solve(case, "nonlinear", "demand", with_replay=False)
    assert kept.formulation == "nonlinear" and kept.objective > 1.02 * r.objective


@pytest.mark.parametrize(("limits", "taken"), [("none", "current-voltage"), ("all", "nonlinear")])
def test_no_point_on_one_side_of_a_band_is_no_word_on_the_other(limits: str, taken: str) -> None:
    """Four times the load has no power flow, but below its band it draws less. With limits within the band there is
    no other side."""
    case = lateral.read("case33bw")
    devices = (
        dataclasses.replace(d, p_kw=4.0 * d.p_kw, q_kvar=4.0 * d.q_kvar, v_min_pu=0.9) if isinstance(d, Load) else d
        for d in case.devices
    )
    case = case.with_(devices=tuple(devices))
    assert solve(case, "nonlinear", "demand", limits=limits, with_replay=False).status is Status.INFEASIBLE
    r = solve(case, objective="demand", limits=limits, with_replay=False)
    assert r.formulation == taken
    if taken == "nonlinear":
        assert r.status is Status.INFEASIBLE
        return
    assert r.status is Status.OPTIMAL
    assert r.choices[0].startswith("formulation current-voltage: infeasible in nonlinear")
    exact = solve(case, "current-voltage", "demand", limits=limits, with_replay=False)
    assert r.objective == pytest.approx(exact.objective, rel=1e-9)


def test_the_other_side_of_a_band_has_what_is_left_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    case = lateral.read("case33bw")
    loads = (dataclasses.replace(d, v_min_pu=0.95) if isinstance(d, Load) else d for d in case.devices)
    asked: list[tuple[str, float]] = []
    plain = Model.solve

    def slow(self: Model, solver: str = "auto", options: Options | None = None, **more: Any) -> Result:
        assert options is not None
        assert options.time_limit_s is not None
        asked.append((self.formulation.name, options.time_limit_s))
        time.sleep(0.2)
        return plain(self, solver, options, **more)

    monkeypatch.setattr(Model, "solve", slow)
    limit = Options(time_limit_s=100.0)
    assert solve(case.with_(devices=tuple(loads)), objective="demand", options=limit, with_replay=False).ok
    (first, whole), (second, left) = asked
    assert (first, whole, second) == ("nonlinear", 100.0, "current-voltage")
    assert 0.0 < left <= 99.8


def test_the_other_side_of_a_band_is_not_for_ipopt_where_it_takes_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    case = lateral.read("case33bw")
    loads = (dataclasses.replace(d, v_min_pu=0.95) if isinstance(d, Load) else d for d in case.devices)
    asked: list[tuple[str, str]] = []
    plain = Model.solve

    def without(self: Model, *given: Any, avoid: str = "", **more: Any) -> Result:
        asked.append((self.formulation.name, avoid))
        if avoid:
            raise UnsupportedError([Fault("SOL-000", "program", "another program", "one that it takes", "")])
        return plain(self, *given, **more)

    monkeypatch.setattr(Model, "solve", without)
    monkeypatch.setattr(opf, "IPOPT_UP_TO", 10)
    r = solve(case.with_(devices=tuple(loads)), objective="demand", with_replay=False)
    assert asked == [("nonlinear", ""), ("current-voltage", "ipopt")]
    assert r.formulation == "nonlinear"
    assert "loads left the side of their band" in r.status_text


def test_a_day_without_a_power_flow_keeps_what_was_found_on_one_side_of_a_band() -> None:
    """Only the battery carries the load at the end, so that `current-voltage` has no point to be made at."""
    grid = Source(
        name="grid", bus="a", conductors=(1,), angle_deg=(0.0,), r_ohm=np.zeros((1, 1)), x_ohm=np.zeros((1, 1))
    )
    devices = (
        Load(name="near", bus="b", terminals=(1, 0), p_kw=50.0, q_kvar=10.0, v_max_pu=1.02),
        Load(name="far", bus="c", terminals=(1, 0), p_kw=1500.0, v_min_pu=0.05),
        Battery(
            name="s", bus="c", terminals=(1, 0), p_charge_max_kw=4000.0, p_discharge_max_kw=4000.0, s_max_kva=4000.0,
            energy_kwh=9000.0,
        ),
    )  # fmt: skip
    buses = tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4, v_min_pu=0.8, v_max_pu=1.2) for n in "abc")
    one, z = {"conductors_from": (1,), "conductors_to": (1,)}, {"r_ohm": [[0.4]], "x_ohm": [[0.9]]}
    lines = tuple(Line(name=f"{i}{j}", bus_from=i, bus_to=j, **one, **z) for i, j in ("ab", "bc"))
    feeder = Feeder(buses=buses, lines=lines)
    case = Case(name="far", feeder=feeder, devices=(grid, *devices), horizon=Horizon.regular(1))
    with pytest.raises(UnsupportedError, match="FOR-010"):
        build(case, "current-voltage", "demand", terminal="free")
    r = solve(case, objective="demand", terminal="free", with_replay=False)
    assert (r.formulation, r.status) == ("nonlinear", Status.OPTIMAL)
    assert "loads left the side of their band" in r.status_text
    assert "current-voltage, which has the law of loads on either side of their band, gave no optimum" in r.choices


def test_a_small_program_is_handed_to_ipopt() -> None:
    """A variable of the whole horizon is nothing for the structured solver."""
    r = solve(ieee13(), objective="peak", with_replay=False)
    assert r.ok
    assert (r.formulation, r.solution.solver) == ("current-voltage", "ipopt")


def test_a_large_program_that_does_not_repeat_goes_on_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounds end at the optimum of the exact form: 1e-6 of the peak is what their rest allows."""
    exact = solve(ieee13(), objective="peak", with_replay=False)
    nothing_is_small(monkeypatch)
    seen: list[int] = []
    r = worked_out(build(ieee13(), objective="peak"), progress=seen.append)
    assert r.ok
    assert r.formulation == "linearised"
    assert forms(r) == ["current-voltage", "linearised"]
    assert "does not take it (" in r.choices[1]
    assert "Ipopt takes minutes beyond 0 variables" in r.choices[1]
    assert seen
    assert r.objective == pytest.approx(exact.objective, rel=1e-6)
    assert r.seconds["total"] == pytest.approx(sum(v for k, v in r.seconds.items() if k != "total"), rel=1e-9)


def test_a_large_program_that_repeats_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    small = solve(ieee13(), with_replay=False)
    nothing_is_small(monkeypatch)
    r = solve(ieee13(), with_replay=False)
    assert (r.formulation, r.solution.solver) == ("current-voltage", "native")
    assert r.cost == pytest.approx(small.cost, rel=1e-12)


def test_limits_of_a_large_program_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_small(monkeypatch)
    r = solve(tight())
    # a program to first order is no proof that the exact one has no point
    assert r.status is Status.LOCALLY_INFEASIBLE
    assert forms(r) == ["current-voltage", "linearised"]
    assert "the structured solver ended" in r.choices[1]
    assert r.reasons[0] in r.status_text
    assert {c.block for c in r.conflicts} == {c.block for c in solve(tight(), "lindist3flow").conflicts}


def test_ipopt_explains_where_clarabel_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clarabel may end at its limit of iterations in the elastic program (ckt7 over four steps)."""
    named = {(c.element, c.step) for c in solve(tight(), "lindist3flow").conflicts}
    plain, asked = infeasible.certified_bound, []

    def only_ipopt(program: Program, solution: Solution, residuals: Residuals) -> float | None:
        asked.append(solution.solver)
        return None if solution.solver == "clarabel" else plain(program, solution, residuals)

    monkeypatch.setattr(infeasible, "certified_bound", only_ipopt)
    r = solve(tight(), "lindist3flow")
    assert asked == ["clarabel", "ipopt"]
    assert {(c.element, c.step) for c in r.conflicts} == named


def test_data_that_were_updated_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_small(monkeypatch)
    price = np.linspace(0.1, 0.3, 6)
    r = worked_out(build(ieee13(), objective="cost+0.1*peak").update(prices=price))
    assert r.formulation == "linearised"
    np.testing.assert_allclose(r.case.series(r.case.sources[0].price_import), price)


def test_a_solver_that_was_named_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_small(monkeypatch)
    r = solve(ieee13(), objective="peak", solver="ipopt", with_replay=False)
    assert (r.formulation, r.solution.solver) == ("current-voltage", "ipopt")


def test_a_formulation_that_was_named_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_small(monkeypatch)
    r = solve(ieee13(), "current-voltage", objective="peak", with_replay=False)
    assert (r.formulation, r.solution.solver) == ("current-voltage", "ipopt")


def test_a_limit_that_was_asked_for_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_small(monkeypatch)
    r = solve(ieee13(), options=Options(max_iterations=2), with_replay=False)
    assert r.status is Status.LIMIT_REACHED
    assert r.formulation == "current-voltage"
    assert r.solution.iterations == 2


def test_options_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every solver takes the plain options; those of the structured solver are its own."""
    nothing_is_small(monkeypatch)
    own = lateral.solvers.NativeOptions(threads=2)
    assert solve(ieee13(), objective="peak", options=own, with_replay=False).formulation == "linearised"


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (None, False),
        (lateral.solvers.NativeOptions(threads=2), False),
        (lateral.solvers.NativeOptions(max_iterations=7), True),
        (Options(time_limit_s=9.0), True),
    ],
)
def test_own_defaults_are_no_limit(options: Options | None, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of the structured solver hold a number of iterations that nobody asked for."""
    at_limit = dataclasses.replace(solve(ieee13(), with_replay=False), status=Status.LIMIT_REACHED)
    stands = build(ieee13())
    monkeypatch.setattr(stands, "solve", lambda *_, **__: at_limit)
    result, why = opf._without_ipopt(stands, options)
    assert (result is not None) == kept
    assert kept or why == "ended limit reached"


def test_options_of_another_solver_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are where the program is small."""
    own = lateral.solvers.IpoptOptions(time_limit_s=5.0)
    for _ in range(2):
        with pytest.raises(OptionError, match="NativeOptions, not IpoptOptions"):
            solve(ieee13(), options=own, with_replay=False)
        nothing_is_small(monkeypatch)


def test_what_was_avoided_once_is_there_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`worked_out` keeps Ipopt away from a large program; the five-minute loop after it hands over to Ipopt."""
    nothing_is_small(monkeypatch)
    rolling = build(ieee13())
    worked_out(rolling)
    assert rolling._session is not None
    assert not rolling._session[-1]._options.fallback
    rolling.solve()
    assert rolling._session[-1]._options.fallback


def test_the_next_form_has_the_same_limits() -> None:
    whole = build(ieee13(), screen_limits=False)
    assert whole.otherwise is not None
    assert not whole.otherwise(whole.case).screened


def test_what_both_decline_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the way of the exact form before anything is solved is no reason to go on."""
    fault = Fault("FOR-010 no-operating-point", "case.x", "none", "one", "Lower the load.")

    def fail(*_: object, **__: object) -> None:
        raise UnsupportedError([fault])

    monkeypatch.setattr(opf, "operating_point", fail)
    with pytest.raises(UnsupportedError, match="FOR-010"):
        solve(ieee13())


def test_a_rolling_horizon() -> None:
    """The model of ``auto`` goes on from the solve before, with data an hour later, and ends where a new one does."""
    rolling = build(ieee13(24))
    assert rolling.solve().ok
    day = rolling.case
    later = {
        "loads": np.roll([d.p_kw * day.multiplier(d.profile) for d in day.loads], -1, axis=1),
        "prices": np.roll(day.series(day.sources[0].price_import), -1),
    }
    again = rolling.shift().update(**later).solve()
    assert again.ok
    assert again.solution.solver == "native"
    cold = build(rolling.case).solve()
    assert again.cost == pytest.approx(cold.cost, rel=1e-7)


def test_comparison_takes_it_too() -> None:
    table = lateral.compare(ieee13(), ["auto", "lindist3flow"]).table.set_index("formulation")
    assert table.loc["auto", "max_dv_pu"] < 1e-8 < table.loc["lindist3flow", "max_dv_pu"]


def test_areas_take_the_same_form() -> None:
    run = lateral.solve_areas(lateral.cut(ieee13(4), ["line.632670"]), with_replay=False)
    assert run.result is not None
    assert run.result.formulation == "current-voltage"
    assert run.choices[0] == "formulation current-voltage: exact for any feeder, here with several conductors per bus"
    assert run.central is not None
    assert run.central.formulation == "current-voltage"
    assert abs(run.gap_to_central) < 1e-6


def test_devices_of_every_kind_are_decided() -> None:
    """`ieee13-controls` has every device that decides something; the linear form holds its taps and says so."""
    case = lateral.read("ieee13-controls")
    r = solve(case)
    assert r.ok
    assert (r.formulation, r.solution.solver) == ("current-voltage", "ipopt")
    assert not [c for c in r.choices if "held" in c]
    assert [c for c in solve(case, "lindist3flow", with_replay=False).choices if "held" in c]
    assert {type(d) for d in case.devices} >= {PV, Battery}
