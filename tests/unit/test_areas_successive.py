"""Points of areas to first order: the exact optimum, what a step is judged by, and areas that are started again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_areas_federation import Elsewhere
from test_areas_matrix import agents, steps_of

import lateral
from lateral.areas.agent import AreaAgent
from lateral.areas.algorithms import Admm, Enapp, Newton
from lateral.areas.area_rounds import OF_FLOW, OF_STEP
from lateral.areas.driver import Patience, Progress
from lateral.areas.executors import Serial
from lateral.areas.federate import Service, checked
from lateral.areas.federation import federation_of, solve_federation
from lateral.areas.message import MessageError
from lateral.areas.partition import cut
from lateral.areas.plan import Plan
from lateral.areas.point import AtPoint, Settled
from lateral.areas.protocol import AreaSpec, Failure
from lateral.areas.run import AreasRun, Round
from lateral.areas.solve import solve_areas
from lateral.areas.successive import MOST_FAILED, MOST_POINTS, MOST_WAITED, NOWHERE, STUCK, Successive
from lateral.areas.sweeps import Sweeps
from lateral.areas.transport import Direct
from lateral.devices import Regulator
from lateral.errors import SolveError
from lateral.operating import schedule_flow
from lateral.solvers import Status


class Short(Serial):
    """Areas whose first step is taken back, to try one of a hundredth."""

    forced = False

    def map(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any] | Failure]:
        out = super().map(operation, requests, timeout_s=timeout_s)
        for reply in out.values():
            if operation == "step" and not self.forced and isinstance(reply, dict):
                reply["length"] = 0.02
            if operation == "schedule" and not self.forced and isinstance(reply, dict):
                reply["gained"] = -1e6
        self.forced |= operation == "move"
        return out


def run(n: int, areas: int, goal: str = "cost", **options: Any) -> AreasRun:
    part = lateral.cut(steps_of("ieee13", n), areas)
    return solve_areas(part, formulation="linearised", objective=goal, **options)


# -- the optimum -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "areas", "goal"), [(4, 3, "cost"), (2, 2, "loss"), (2, 3, "demand")])
def test_areas_end_at_the_optimum_of_the_exact_form(n: int, areas: int, goal: str) -> None:
    """That of `current-voltage`, by Ipopt; one point is 2e-5 off (cost, demand) or 4e-3 (loss). Predictions below 1e-7
    of the objective are none, which is as near as points come; the schedule replays within what solver and engine
    leave, where one point leaves 1e-4."""
    found = run(n, areas, goal, central=False)
    assert found.status is Status.OPTIMAL, found.status_text
    assert found.result is not None and found.result.replay is not None
    exact = lateral.solve(steps_of("ieee13", n), "current-voltage", goal).objective
    assert found.result.objective == pytest.approx(exact, rel=1e-6)
    assert found.result.replay.errors.max_dv_pu <= 1e-6
    said = [choice for choice in found.choices if choice.startswith(("point ", "at rest at point "))]
    assert 3 <= len(said) <= 7
    assert said[-1].endswith("a local optimum of the exact model")


def test_areas_begin_at_the_unloaded_feeder_too() -> None:
    """Which is no power flow of any schedule: nothing to compare the first step with."""
    found = run(2, 2, point="nominal", with_replay=False)
    assert found.status is Status.OPTIMAL, found.status_text
    assert found.gap_to_central is not None and abs(found.gap_to_central) <= 1e-7


def test_areas_leave_a_trust_region_in_which_the_whole_has_no_schedule() -> None:
    """Voltages below the limit without control, and a first step that is forced to be a hundredth of the ranges."""
    case = steps_of("ieee13", 2)
    buses = tuple(dataclasses.replace(b, v_min_pu=0.99) if b.v_min_pu else b for b in case.feeder.buses)
    part = lateral.cut(case.with_(feeder=dataclasses.replace(case.feeder, buses=buses)), 2)
    executor = Short()
    found = solve_areas(part, formulation="linearised", with_replay=False, executor=executor)
    assert found.status is Status.OPTIMAL, found.status_text
    assert found.gap_to_central is not None and abs(found.gap_to_central) <= 1e-7
    assert executor.forced
    assert any("no schedule within the trust region" in choice for choice in found.choices)


def test_the_whole_beside_areas_goes_from_point_to_point_too() -> None:
    found = run(2, 2, with_replay=False)
    assert found.central is not None
    assert any("at rest after" in choice for choice in found.central.choices)
    assert found.gap_to_central is not None and abs(found.gap_to_central) <= 1e-7


def test_the_exact_rows_of_areas_meet_in_the_power_flow_of_their_schedules() -> None:
    """Of the whole's nodal power flow with every area's set-points: another code, which knows no borders."""
    case = steps_of("ieee13", 2)
    part = lateral.cut(case, 3)
    plan, found = agents(part, "linearised")
    executor, method = Serial(), Newton()
    executor._agents = found
    state = method.init(plan)
    for area, agent in found.items():
        assert agent.solve(method.inputs(plan, state, area)).status in ("optimal", "inaccurate")
        agent.step()
    swept = Sweeps(plan, executor, Direct(plan, run="r"), Patience(), lambda: 0.0, lambda s: None, operation="schedule")
    assert swept.settle() is not None
    whole = lateral.build(case, "linearised")
    program = whole.program
    x = program.start_point.copy()
    places = {(b.name, e): (b, k) for b in program.variables for k, e in enumerate(b.elements)}
    for agent in found.values():
        assert agent.result is not None
        for block in agent.result.program.variables:
            for k, element in enumerate(block.elements):
                if (block.name, element) in places and not block.name.startswith(("bus.", "node.")):
                    at, row = places[block.name, element]
                    own = agent.result.solution.x[block.cells].reshape(-1, block.n_steps)[k]
                    x[at.cells].reshape(-1, at.n_steps)[row] = own
    flow = schedule_flow(case, program, x, tolerance_pu=1e-11)
    v = dict(zip(flow.index.nodes, flow.v_pu, strict=True))
    compared = 0
    for (area, name), values in swept.said.items():
        border = plan.borders[name]
        if border.parent == area:
            said = np.asarray(values["v_re"]) + 1j * np.asarray(values["v_im"])
            truth = np.array([v[border.bus, c] for c in border.conductors])
            # corners of loads are rounded in the rows, sharp in the power flow
            assert np.abs(said - truth).max() <= 1e-8
            compared += 1
    assert compared == len(plan.borders) == 2


def test_loads_that_leave_their_band_have_their_law_at_the_next_point() -> None:
    """Decided taps and no limits take loads out of their band. Without building again areas agree on an optimum of
    other laws, and say so."""
    case = steps_of("ieee13", 2)
    devices = (dataclasses.replace(d, decision="step") if isinstance(d, Regulator) else d for d in case.devices)
    part = cut(case.with_(devices=tuple(devices)), ["line.632670"])
    found = solve_areas(part, formulation="linearised", limits="none", with_replay=False)
    assert found.status is Status.OPTIMAL, found.status_text
    assert found.gap_to_central is not None and abs(found.gap_to_central) <= 1e-7
    assert any("the point before was another power flow" in choice for choice in found.choices)


# -- one area --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stepped() -> tuple[Plan, dict[str, AreaAgent], Mapping[str, Any]]:
    """Areas after a first answer, and what they were told."""
    plan, found = agents(lateral.cut(steps_of("ieee13", 2), 2), "linearised")
    method = Newton()
    told = {area: method.inputs(plan, method.init(plan), area) for area in plan.areas}
    for area, agent in found.items():
        agent.solve(told[area])
        agent.step()
    return plan, found, told


def test_an_area_keeps_its_decisions_in_the_trust_region(
    stepped: tuple[Plan, dict[str, AreaAgent], Mapping[str, Any]],
) -> None:
    """After what it is told has changed too: bounds of what the sun offers are data, and come back with it."""
    plan, found, told = stepped
    area = plan.areas[-1]
    agent = found[area]
    free = agent.step()["length"]
    assert free > 0.1
    agent.move(accept=False, radius=0.01, factor=1.0)
    agent.solve(told[area])
    assert agent.step()["length"] <= 0.01 * (1.0 + 1e-6)
    agent.move(accept=False, radius=float("inf"), factor=1.0)
    agent.solve(told[area])
    assert agent.step()["length"] > 0.5 * free  # with another curvature


def test_an_area_stays_at_its_point_when_limits_are_written(
    stepped: tuple[Plan, dict[str, AreaAgent], Mapping[str, Any]],
) -> None:
    """A limit that was left out makes another program, of other numbers, at the same point and in the same trust
    region."""
    plan, found, told = stepped
    area = plan.areas[0]
    agent = found[area]
    agent.schedule_flow({})
    agent.move(accept=True, radius=0.01, factor=1.0)
    rounds = agent._rounds
    assert rounds is not None and agent.model.rebuild is not None and agent.result is not None
    before, tangent, model = rounds.state.at, rounds.state.tangent, agent.model
    fresh = model.rebuild(model.case, at=model.point, screen=model.screened, enforce=model.enforced)
    model._take_over(fresh, agent.result)
    agent.solve(told[area])
    after = rounds.state.at
    assert rounds.state.tangent is model.tangent is not tangent
    for block in before.program.variables:
        if block.name in ("bus.v_re", "bus.v_im"):
            same = next(b for b in after.program.variables if (b.name, b.elements) == (block.name, block.elements))
            assert np.abs(after.x[same.cells] - before.x[block.cells]).max() <= 1e-9
    assert agent.step()["length"] <= 0.01 * (1.0 + 1e-6)


def test_an_area_with_no_schedule_yet_says_so() -> None:
    plan, found = agents(lateral.cut(steps_of("ieee13", 1), 2), "linearised")
    with pytest.raises(lateral.LateralError, match="no schedule yet"):
        found[plan.areas[0]].step()
    plan, found = agents(lateral.cut(steps_of("ieee13", 1), 2), "lindist3flow")
    with pytest.raises(SolveError, match=r"lindist3flow .* goes to no other point"):
        found[plan.areas[0]].step()


# -- what a step is judged by ----------------------------------------------------------------------------------------


class Said(AtPoint):
    """Areas that say what a script has, step by step; sweeps come to rest at once."""

    def __init__(self, plan: Plan, steps: list[dict[str, float]]) -> None:
        super().__init__(Serial(), Settled({}, 1, 0.0, 0, 0, 0.0))
        self.plan, self.steps = plan, steps
        self.moves: list[Mapping[str, Any]] = []
        self.flows = True

    def map(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any]]:  # type: ignore[override]
        out: dict[str, dict[str, Any]] = {}
        now = self.steps[len(self.moves)]
        for area in requests:
            if operation == "step":
                none = {"promised": 0.0, "objective": 0.0, "floor": 1e-2, "length": 0.1, "anew": 0.0, "left": 0.0}
                alike = {key: now[key] for key in ("length", "floor", "anew", "left") if key in now}
                own = {"promised": now["promised"], "objective": now.get("objective", 100.0)} if area == "1" else {}
                out[area] = {**none, **alike, **own}
            elif operation == "schedule":
                gained = now.get("gained", 0.0) if area == "1" else 0.0
                out[area] = {"borders": self.borders(area), "settled": [self.flows] * self.plan.n_steps}
                out[area] |= {
                    "gained": gained,
                    "bent": now.get("bent", 0.0) if area == "1" else 0.0,
                    "away": now.get("away", 1e-3),
                }
            else:
                out[area] = {"moved": True}
        if operation == "move":
            self.moves.append(requests["1"])
        return out

    def borders(self, area: str) -> dict[str, dict[str, np.ndarray]]:
        out = {}
        for name, border in self.plan.borders.items():
            shape = self.plan.shape(name)
            one, none = np.ones(shape), np.zeros(shape)
            if border.child == area:
                out[name] = {"p": one, "q": none, "v_re": one, "v_im": none, "y_re": none, "y_im": none}
            elif border.parent == area:
                out[name] = {"v_re": one, "v_im": none}
        return out


def judged(*steps: dict[str, float], flows: bool = True) -> tuple[Successive, Said]:
    plan = dataclasses.replace(Plan.of(lateral.cut(steps_of("ieee13", 1), 2)), voltages=("v_re", "v_im"))
    executor = Said(plan, [*steps, steps[-1]])
    executor.flows = flows
    points = Successive(plan, Direct(plan, run="r"), executor)
    while points.look():
        executor.flows = True
    return points, executor


def test_a_step_that_keeps_its_promise_is_accepted_and_nothing_promised_is_rest() -> None:
    points, executor = judged({"promised": 1.0, "gained": 0.9}, {"promised": 1e-7, "length": 1e-6})
    assert [m["accept"] for m in executor.moves] == [True]
    assert executor.moves[0]["radius"] == np.inf and executor.moved
    assert points.rests and points.at == "at rest at point 2: a local optimum of the exact model"


def test_a_step_that_brings_less_than_a_tenth_is_rejected_and_the_next_one_half_as_long() -> None:
    """And what then rests within a trust region is seen without it."""
    points, executor = judged(
        {"promised": 1.0, "gained": 0.05, "length": 0.4},
        {"promised": 0.1, "gained": 0.099, "length": 0.2},
        {"promised": 1e-7, "length": 1e-6},
        {"promised": 1e-7, "length": 1e-6},
    )
    assert [m["accept"] for m in executor.moves] == [False, True, False]
    # held back and as good as promised: twice as long
    assert [m["radius"] for m in executor.moves] == [0.2, 0.4, np.inf]
    assert points.rests


def test_a_step_without_a_power_flow_is_a_quarter_as_long() -> None:
    points, executor = judged({"promised": 1.0, "length": 0.4}, {"promised": 0.0, "length": 0.0}, flows=False)
    assert [(m["accept"], m["radius"]) for m in executor.moves] == [(False, 0.1), (False, np.inf)]
    assert "its power flow does not converge" in points.told[0]


def test_the_curvature_is_scaled_by_what_it_cost_along_the_step() -> None:
    """Promised 1, gained 0.4, of which the curvature had cost 0.5: 1 + 0.6 / 0.5 times as much was right."""
    _, executor = judged({"promised": 1.0, "gained": 0.4, "bent": 0.5}, {"promised": 0.0, "length": 0.0})
    assert executor.moves[0]["factor"] == pytest.approx(2.2)


def test_where_nothing_is_promised_a_long_step_rests_when_it_is_its_power_flow() -> None:
    near, executor = judged({"promised": 1e-7, "length": 0.5, "away": 1e-7})
    assert near.rests and not executor.moves
    far, executor = judged({"promised": 1e-7, "length": 0.5, "away": 1e-3}, {"promised": 0.0, "length": 0.0})
    assert far.rests and [m["accept"] for m in executor.moves] == [True]


def test_a_point_at_which_loads_had_another_law_is_no_measure() -> None:
    """What follows is accepted whatever it brings, and no rest."""
    points, executor = judged(
        {"promised": 0.0, "gained": -1.0, "length": 0.0, "anew": 1.0}, {"promised": 0.0, "length": 0.0}
    )
    assert points.rests and [m["accept"] for m in executor.moves] == [True]


def test_a_step_that_promises_a_loss_waits_for_areas_to_agree_more_closely() -> None:
    """No optimum of a convex program is worse than a point of it; after enough rounds it is judged all the same."""
    plan = dataclasses.replace(Plan.of(lateral.cut(steps_of("ieee13", 1), 2)), voltages=("v_re", "v_im"))
    executor = Said(plan, [{"promised": -1e-3, "gained": -1e-3}] * 2)
    points = Successive(plan, Direct(plan, run="r"), executor)
    for _ in range(MOST_WAITED):
        assert points.look() == () and points.waits and not points.rests and not points.ended
    assert points.look() == plan.areas and not points.waits
    assert [m["accept"] for m in executor.moves] == [False]


def test_a_step_of_nothing_that_brings_nothing_is_rest_whatever_it_promises() -> None:
    """What areas differ by is worth more than it would be."""
    points, executor = judged({"promised": 3e-4, "gained": 1e-7, "length": 5e-7, "away": 1e-8})
    assert points.rests and not executor.moves


def test_an_area_that_does_not_say_what_it_is_asked_is_asked_again_and_that_is_said() -> None:
    """Three times, a round between them; then the run has no further point."""
    plan = dataclasses.replace(Plan.of(lateral.cut(steps_of("ieee13", 1), 2)), voltages=("v_re", "v_im"))
    points = Successive(plan, Direct(plan, run="r"), Said(plan, [{"promised": "much"}]))  # type: ignore[dict-item]
    for _ in range(MOST_FAILED - 1):
        assert points.look() == plan.areas and not points.ended
    assert points.look() == () and "does not say what its step is worth" in points.ended
    assert len([text for text in points.told if "not judged: area '1'" in text]) == MOST_FAILED


def test_what_nobody_says_ends_it() -> None:
    points, executor = judged({"promised": float("nan")})
    assert not points.rests and not executor.moves
    assert "keeps its objective to itself" in points.at


@pytest.mark.parametrize("what", ["gained", "bent", "away", "length"])
def test_what_is_no_number_is_no_rest(what: str) -> None:
    points, executor = judged({"promised": 1.0, "gained": 1.0, what: float("nan")})
    assert not points.rests and not executor.moves and points.ended


def test_an_objective_of_nothing_is_no_division_by_zero() -> None:
    points, _ = judged({"promised": 0.0, "length": 0.0, "objective": 0.0, "floor": 0.0})
    assert points.rests


def test_loads_that_stay_beyond_their_band_are_no_optimum() -> None:
    points, _ = judged({"promised": 0.0, "length": 0.0, "left": 1.0})
    assert not points.settled and "loads are beyond the side of their band" in points.at


def in_round(points: Successive, word: str) -> Progress:
    """A round in which an area of the two ends like that."""
    nothing = {"objective": 1.0, "cost": 1.0, "held": {}, "seconds": {}, "critical": 0.0, "messages": 0, "bytes": 0}
    said = {"1": "optimal", "2": word}
    found = Round(number=1, residual=1.0, residuals={}, statuses=said, **nothing)  # type: ignore[arg-type]
    return Progress(Newton().init(points.plan), found, (), finished=False)


@pytest.mark.parametrize(("word", "rounds"), [("infeasible", NOWHERE), ("optimal", STUCK)])
def test_a_trust_region_without_a_schedule_grows(word: str, rounds: int) -> None:
    """Four times as large; without one nothing happens."""
    plan = dataclasses.replace(Plan.of(lateral.cut(steps_of("ieee13", 1), 2)), voltages=("v_re", "v_im"))
    executor = Said(plan, [{"promised": 1.0, "gained": -1.0, "length": 0.1}] * 4)
    points = Successive(plan, Direct(plan, run="r"), executor)
    assert points.look() and points.radius == 0.05 and points.held
    for radius in (0.2, 0.8):
        for _ in range(rounds - 1):
            assert points.wider(in_round(points, word)) == ()
        assert points.wider(in_round(points, word)) == plan.areas
        assert points.radius == radius and executor.moves[-1]["accept"] is False
    points.radius = np.inf
    assert all(points.wider(in_round(points, word)) == () for _ in range(2 * rounds))


def test_points_without_end_end() -> None:
    points, executor = judged(*({"promised": 1.0, "gained": 1.0} for _ in range(MOST_POINTS)))
    assert len(executor.moves) == MOST_POINTS - 1
    assert points.at == f"not at rest at point {MOST_POINTS}: {MOST_POINTS} points were not enough"


def test_a_trust_region_that_is_too_small_ends_it() -> None:
    points, _ = judged({"promised": 1.0, "gained": -1.0, "length": 1e-6})
    assert "the trust region has become too small" in points.at


# -- runs in which something fails -----------------------------------------------------------------------------------


def test_an_area_that_is_started_again_brings_all_back_to_their_first_point() -> None:
    executor = Serial()

    def stop(done: Round) -> None:
        if done.built_again and not lost:
            lost.append(done.number)
            executor.stop("2")

    lost: list[int] = []
    patience = Patience(dead_s=60.0, restart=True)
    found = run(2, 2, executor=executor, progress=stop, patience=patience, with_replay=False)
    assert lost and found.status is Status.OPTIMAL, found.status_text
    assert any("all of them are at their first point again" in choice for choice in found.choices)
    assert found.gap_to_central is not None and abs(found.gap_to_central) <= 1e-7


def test_an_area_that_is_gone_takes_its_point_with_it() -> None:
    """What it would answer again is not what it answered: no joined schedule, and the run says who is gone."""
    executor = Serial()

    def stop(done: Round) -> None:
        if done.built_again:
            executor.stop("2")

    patience = Patience(dead_s=0.0, restart=False)
    found = run(2, 2, executor=executor, progress=stop, patience=patience, with_replay=False, central=False)
    assert found.status is Status.DEGRADED and found.degraded == ("2",)
    assert found.result is None


def test_a_run_goes_on_from_a_checkpoint_after_another_point(tmp_path: Path) -> None:
    """Its areas begin at their first point again, with the prices that the run had."""
    whole = run(2, 2, with_replay=False)
    first = next(r.number for r in whole.rounds if r.built_again)
    run(2, 2, checkpoint=tmp_path, max_rounds=first + 1, with_replay=False, central=False)
    found = run(2, 2, checkpoint=tmp_path, resume=True, with_replay=False)
    assert found.status is Status.OPTIMAL, found.status_text
    assert found.gap_to_central is not None and abs(found.gap_to_central) <= 1e-7


def test_a_run_with_no_rounds_left_is_a_limit_though_its_areas_agree() -> None:
    whole = run(2, 2, with_replay=False, central=False)
    first = next(r.number for r in whole.rounds if r.built_again)
    found = run(2, 2, with_replay=False, central=False, max_rounds=first)
    assert found.status is Status.LIMIT_REACHED
    assert found.status_text.endswith("but are not at rest at point 1: there were no further rounds")


def test_areas_that_tell_each_other_voltages_are_of_one_point() -> None:
    assert not Successive.fits("linearised", Enapp())
    assert Successive.fits("linearised", Newton()) and Successive.fits("linearised", Admm())
    assert not Successive.fits("lindist3flow", Newton()) and not Successive.fits("current-voltage", Admm())


# -- owners ----------------------------------------------------------------------------------------------------------


class Owners(Elsewhere):
    """Owners who say no more than they must."""

    def __init__(self, specs: dict[str, AreaSpec], *, say: bool) -> None:
        super().__init__(specs)
        self.say = say
        self.map = self.served  # type: ignore[assignment]

    def served(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any]]:
        services = {a: Service(agent=self.inner._agents[a], owned=True, say_objective=self.say) for a in requests}
        return {a: services[a].answer(operation, request) for a, request in requests.items()}


@pytest.mark.parametrize("say", [True, False])
def test_owners_find_the_same_points_if_they_say_what_a_step_is_worth(say: bool) -> None:
    part = lateral.cut(steps_of("ieee13", 2), 2)
    here = solve_areas(part, Newton(), formulation="linearised", with_replay=False, central=False)
    agreed = federation_of(part, Newton(), formulation="linearised")
    specs = {a: AreaSpec(a, part.areas[a].case, agreed.task(a)) for a in part.areas}
    found = solve_federation(agreed, Owners(specs, say=say))  # type: ignore[arg-type]
    if say:
        assert found.status is Status.OPTIMAL
        points = [c for c in here.choices if c.startswith(("point ", "at rest"))]
        assert points == [c for c in found.choices if c.startswith(("point ", "at rest"))]
        assert found.rounds[-1].objective == pytest.approx(here.rounds[len(found.rounds) - 1].objective, rel=1e-9)
    else:
        assert found.status is Status.LIMIT_REACHED
        assert "keeps its objective to itself" in found.status_text


@pytest.mark.parametrize(
    "request_",
    [
        {"accept": 1, "radius": 0.1, "factor": 1.0},
        {"accept": True, "radius": -0.1, "factor": 1.0},
        {"accept": True, "radius": 0.1, "factor": "1"},
        {"accept": True, "radius": float("nan"), "factor": 1.0},
        {"accept": True},
        {"accept": True, "radius": 1e-12, "factor": 1.0},
        {"accept": True, "radius": 0.1, "factor": 1e300},
        {"accept": True, "radius": 0.1, "factor": float("inf")},
    ],
)
def test_moves_that_are_none_are_refused(request_: dict[str, Any]) -> None:
    part = cut(steps_of("ieee13", 1), ["line.632670"])
    _, found = agents(part, "linearised")
    with pytest.raises(MessageError, match="a move with accept="):
        checked(found["2"], "move", request_)
    asked = {"accept": True, "radius": float("inf"), "factor": 1.0}
    assert checked(found["2"], "move", asked) == {"borders": {}, **asked}


@pytest.mark.parametrize("say", [True, False])
def test_what_a_step_is_worth_leaves_an_area_only_if_its_owner_lets_it(
    stepped: tuple[Plan, dict[str, AreaAgent], Mapping[str, Any]], say: bool
) -> None:
    plan, found, _ = stepped
    service = Service(agent=found[plan.areas[-1]], owned=True, say_objective=say)
    step, flow = service.answer("step", {}), service.answer("schedule", {"borders": {}})
    assert set(step) == set(OF_STEP) and set(flow) == {"borders", "settled", *OF_FLOW}
    worth = [step[x] for x in OF_STEP] + [flow[x] for x in OF_FLOW]
    assert np.isfinite(worth).all() if say else np.isnan(worth).all()


def test_the_rows_of_a_schedule_are_asked_between_voltages_and_powers_alone() -> None:
    _, found = agents(cut(steps_of("ieee13", 1), ["line.632670"]), "linearised")
    one = np.ones((3, 1))
    assert set(checked(found["2"], "schedule", {"borders": {"632670": {"v_re": one, "v_im": one}}})["borders"])
    with pytest.raises(MessageError, match="is told i_max"):
        checked(found["2"], "schedule", {"borders": {"632670": {"i_max": one}}})
