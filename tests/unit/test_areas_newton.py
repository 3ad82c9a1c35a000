"""Newton's method for areas: the slopes that areas say, and the rounds that it takes.

Bars are some 20 % above the rounds measured; `admm` took three to twenty times as many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_areas_federation import Elsewhere
from test_areas_matrix import FEEDERS, agents, ieee37, steps_of

import lateral
from lateral.areas.agent import Answer
from lateral.areas.algorithms import Admm, Algorithm, Newton
from lateral.areas.driver import Patience, said_in
from lateral.areas.executors import Serial
from lateral.areas.executors.process import Process
from lateral.areas.faults import Faults
from lateral.areas.federation import federation_of, solve_federation
from lateral.areas.message import MessageError, Values
from lateral.areas.partition import cut
from lateral.areas.plan import Plan
from lateral.areas.point import MOST_CROSSING, taken_in
from lateral.areas.protocol import AreaSpec, Failure, answer_of, handle, pack, unpack
from lateral.areas.quantities import copies, in_components, of_conductors
from lateral.areas.run import AreasRun
from lateral.areas.slopes import Slopes
from lateral.areas.solve import solve_areas
from lateral.areas.transport import Direct
from lateral.case import Case
from lateral.devices import Regulator
from lateral.errors import OptionError, UnsupportedError
from lateral.formulations import get as formulation_named
from lateral.network.schema import FloatArray
from lateral.solvers import Status


def one_ratio(n: int) -> Case:
    """IEEE 13 whose regulators have one ratio for all steps, as decisions."""
    case = steps_of("ieee13", n)
    devices = (dataclasses.replace(d, decision="day") if isinstance(d, Regulator) else d for d in case.devices)
    return case.with_(devices=tuple(devices))


def certified(run: AreasRun, most: int) -> None:
    assert run.status is Status.OPTIMAL, run.status_text
    assert run.algorithm == "newton"
    assert len(run.rounds) <= most
    assert run.central is not None and run.result is not None
    assert abs(run.result.objective - run.central.objective) <= 1e-6 * abs(run.central.objective)


def in_one(plan: Plan, borders: Mapping[str, Values], names: tuple[str, ...]) -> FloatArray:
    """What an area says, in the order of its slopes."""
    parts = []
    for name in names:
        said = in_components(borders[name], plan.borders[name].conductors)
        parts += [np.asarray(said[x]).reshape(-1) for x in copies(plan.voltages)]
    return np.concatenate(parts)


@pytest.mark.parametrize(("form", "name"), [("sdp", "ieee13"), ("soc3", "ieee13"), ("linearised", "ieee13")])
def test_slopes_are_what_differences_say(form: str, name: str) -> None:
    """Of the area in the middle of three, over two steps: ten columns, by central differences of its answers."""
    plan, found = agents(lateral.cut(steps_of(name, 2), 3), form)
    method = Newton()
    state, area, gap = method.init(plan), plan.areas[1], 1e-3
    agent, told = found[area], method.inputs(plan, state, area)
    answer = agent.solve(told, gap)
    slopes = answer.slopes
    assert slopes is not None
    lin = slopes.lin
    assert np.abs(lin - lin.T).max() <= 1e-6 * np.abs(lin).max()
    rng, at = np.random.default_rng(1), 0
    columns = rng.choice(len(lin), size=10, replace=False)
    for border in slopes.borders:
        for x in copies(plan.voltages):
            rows, steps = plan.shape(border)
            for cell in range(rows * steps):
                if at in columns:
                    place = np.unravel_index(cell, (rows, steps))
                    w = float(told[border][f"w_{x}"][place])
                    h = 1e-4 * w * (1.0 if x not in ("p", "q") else plan.s_kva)
                    ends = []
                    for sign in (1.0, -1.0):
                        values = {key: np.array(v) for key, v in told[border].items()}
                        values[f"lin_{x}"][place] += sign * h
                        ends.append(in_one(plan, agent.solve({**told, border: values}, gap).borders, slopes.borders))
                    difference = (ends[0] - ends[1]) / (2.0 * h)
                    # the gap is relative to an objective that moves, so that mu does too, by 1e-4
                    assert np.abs(lin[:, at] - difference).max() <= 2e-2 * np.abs(difference).max() + 1e-6 / w
                at += 1
    assert at == len(lin)


def test_an_area_answers_to_prices_as_much_as_its_penalty_lets_it() -> None:
    """Eigenvalues of sqrt(w) J sqrt(w) lie between -1 and 0."""
    plan, found = agents(lateral.cut(steps_of("ieee13", 2), 3), "sdp")
    method = Newton()
    state = method.init(plan)
    for area in plan.areas:
        told = method.inputs(plan, state, area)
        slopes = found[area].solve(told, 1e-4).slopes
        assert slopes is not None
        w = np.concatenate(
            [np.asarray(told[b][f"w_{x}"]).reshape(-1) for b in slopes.borders for x in copies(plan.voltages)]
        )
        values = np.linalg.eigvalsh(np.sqrt(w)[:, None] * 0.5 * (slopes.lin + slopes.lin.T) * np.sqrt(w))
        assert values.min() >= -1.0 - 1e-6 and values.max() <= 1e-6


def test_areas_without_devices_agree_as_soon_as_the_gap_has_fallen() -> None:
    """12 rounds, of which the gap takes 8 to fall from 1e-2 to 1e-9."""
    case = steps_of("ieee13", 2)
    bare = case.with_(devices=tuple(d for d in case.devices if d.kind in ("source", "load")))
    run = solve_areas(lateral.cut(bare, 3), Newton(), formulation="linearised", limits="none", with_replay=False)
    certified(run, 14)


@pytest.mark.parametrize(
    ("form", "n", "areas", "most"),
    [("sdp", 1, 3, 30), ("sdp", 2, 2, 42), ("soc3", 4, 4, 28), ("lindist3flow", 2, 3, 30)],
)
def test_rounds_on_ieee13(form: str, n: int, areas: int, most: int) -> None:
    certified(
        solve_areas(lateral.cut(steps_of("ieee13", n), areas), Newton(), formulation=form, with_replay=False), most
    )


@pytest.mark.parametrize(("n", "where", "most"), [(4, "3", 56), (4, "line.632670", 66), (4, "transformer.reg1", 52)])
def test_one_ratio_for_all_steps(n: int, where: str, most: int) -> None:
    """`admm` takes 596, 312 and 203 rounds."""
    part = lateral.cut(one_ratio(n), 3) if where == "3" else cut(one_ratio(n), [where])
    certified(solve_areas(part, formulation="linearised", with_replay=False), most)


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
@pytest.mark.parametrize(("form", "most"), [("sdp", 36), ("soc3", 50)])
def test_an_ungrounded_feeder_in_three_areas(form: str, most: int) -> None:
    """IEEE 37: with `sdp` `admm` was a limit after 300 rounds, 4e-4 off."""
    part = cut(ieee37(), ["line.l3", "line.l27"])
    certified(solve_areas(part, formulation=form, limits="none", with_replay=False), most)


def test_auto_is_newton_where_a_solver_knows_slopes() -> None:
    part = lateral.cut(steps_of("ieee13", 1), 2)
    run = solve_areas(part, formulation="soc3", with_replay=False, central=False, max_rounds=1)
    assert run.algorithm == "newton"
    assert any("auto took newton: soc3 has matrices" in choice for choice in run.choices)
    run = solve_areas(part, formulation="soc3", solver="ipopt", with_replay=False, central=False, max_rounds=1)
    assert run.algorithm == "admm"


def test_auto_is_admm_where_too_much_crosses() -> None:
    form = formulation_named("sdp")
    assert taken_in(form, None, crossing=MOST_CROSSING)[0].name == "newton"
    method, (why,) = taken_in(form, None, crossing=MOST_CROSSING + 1)
    assert method.name == "admm"
    assert f"{MOST_CROSSING + 1} numbers cross borders" in why


def test_it_goes_on_as_admm_where_it_does_not_come_nearer() -> None:
    """`linearised`, demand: areas far apart, whose steps of Newton's method lead nowhere for long; little patience."""
    part = lateral.cut(steps_of("ieee13", 2), 2)
    run = solve_areas(part, Newton(patience=2), formulation="linearised", objective="demand", with_replay=False)
    certified(run, 110)
    assert any("newton went over to admm after round" in choice for choice in run.choices)


@pytest.mark.parametrize(("n", "areas", "goal", "most"), [(4, 4, "cost", 41), (2, 2, "demand", 117)])
def test_with_care_it_comes_nearer(n: int, areas: int, goal: str, most: int) -> None:
    """Steps that lead from one side of a limit to the other and back: 100 rounds, and 104 the last 36 of them of
    `admm`; bars are half as much again as measured."""
    part = lateral.cut(steps_of("ieee13", n), areas)
    run = solve_areas(part, formulation="linearised", objective=goal, with_replay=False)
    certified(run, most)
    assert not any("went over" in choice for choice in run.choices)


@pytest.mark.parametrize("form", ["current-voltage", "bus-injection"])
def test_forms_that_are_not_convex_are_declined(form: str) -> None:
    with pytest.raises(UnsupportedError, match=r"ARE-032.*newton, and a form that is not convex"):
        solve_areas(lateral.cut(steps_of("ieee13", 1), 2), Newton(), formulation=form)


@pytest.mark.parametrize("gap", [0.0, -1.0, 1.0, float("nan")])
def test_a_gap_that_is_none(gap: float) -> None:
    with pytest.raises(OptionError, match="gap"):
        Newton(gap=gap)


def test_messages_that_are_lost_make_it_slower_not_wrong() -> None:
    """One in ten does not arrive; a border that waits is no sample of the map."""
    part = lateral.cut(steps_of("ieee13", 1), 3)
    run = solve_areas(
        part,
        Newton(),
        formulation="lindist3flow",
        with_replay=False,
        transport=Faults(loss=0.1, seed=4),
    )
    certified(run, 120)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    part = lateral.cut(steps_of("ieee13", 1), 3)

    def run(name: str, rounds: int, *, resume: bool = False) -> AreasRun:
        return solve_areas(
            part,
            Newton(),
            formulation="lindist3flow",
            with_replay=False,
            checkpoint=tmp_path / name,
            max_rounds=rounds,
            resume=resume,
        )

    whole = run("whole", 100)
    run("parts", 4)
    parts = run("parts", 100, resume=True)
    certified(parts, 30)
    assert len(parts.rounds) == len(whole.rounds)
    assert [r.residual for r in parts.rounds] == pytest.approx([r.residual for r in whole.rounds], rel=1e-3, abs=1e-10)


def test_slopes_go_through_a_message() -> None:
    plan, found = agents(lateral.cut(steps_of("ieee13", 1), 2), "soc3")
    method = Newton()
    told = method.inputs(plan, method.init(plan), plan.areas[1])
    reply = unpack(pack(handle(found[plan.areas[1]], "solve", {"borders": told, "gap": 1e-3})))
    answer = answer_of(reply)
    slopes = found[plan.areas[1]].solve(told, 1e-3).slopes
    assert answer.slopes is not None and slopes is not None
    assert answer.slopes.borders == slopes.borders
    assert answer.slopes.lin == pytest.approx(slopes.lin, rel=1e-6, abs=1e-9)
    without = unpack(pack(handle(found[plan.areas[1]], "solve", {"borders": told})))
    assert answer_of(without).slopes is None
    reply["slopes"]["lin"][0][0] = float("nan")
    with pytest.raises(MessageError, match="slopes"):
        answer_of(reply)


def test_slopes_of_another_shape_are_not_used() -> None:
    """The round is one of `admm` then."""
    plan, found = agents(lateral.cut(steps_of("ieee13", 1), 2), "soc3")
    method = Newton()
    state = dataclasses.replace(method.init(plan), round=1)  # the first is one of `admm` anyhow
    answers = {a: found[a].solve(method.inputs(plan, state, a), 1e-2) for a in plan.areas}
    slopes = answers[plan.areas[0]].slopes
    assert slopes is not None
    cut_short = dataclasses.replace(slopes, lin=slopes.lin[:-1, :-1])
    odd = {**answers, plan.areas[0]: dataclasses.replace(answers[plan.areas[0]], slopes=cut_short)}
    carrier = Direct(plan, run="r")
    wave = method.waves(plan)[0]
    messages = carrier.deliver(said_in(plan, wave, answers, run="r", round_=2, number=0))
    plain = Admm(depth=0).step(plan, dataclasses.replace(Admm(depth=0).init(plan), round=1), wave, answers, messages)
    new = method.step(plan, state, wave, odd, messages)
    for key, value in plain.local.items():
        assert new.local[key] == pytest.approx(value)
    with_slopes = method.step(plan, state, wave, answers, messages)
    assert any(np.abs(with_slopes.local[key] - value).max() > 0.0 for key, value in plain.local.items())


def timed(n: int, step_h: Sequence[float], weight: Sequence[float]) -> Case:
    """IEEE 13 with steps of these lengths and weights."""
    case = steps_of("ieee13", n)
    horizon = dataclasses.replace(case.horizon, step_h=np.array(step_h), weight=np.array(weight))
    return case.with_(horizon=horizon)


@pytest.mark.parametrize(
    ("form", "step_h", "weight", "areas", "most"),
    [
        ("linearised", [0.25, 1, 3, 6], [1, 1, 1, 1], 3, 29),  # 133 with a norm and penalties without hours
        ("linearised", [1, 1, 1, 1], [5, 30, 200, 120], 2, 33),  # nothing agreed in 300
        ("linearised", [1, 1, 1, 1], [5, 30, 200, 120], 3, 35),  # likewise
        ("linearised", [1, 1, 1, 1], [0, 1, 1, 1], 2, 44),  # 104 where prices begin at that of the source
        ("lindist3flow", [0.25, 1, 3, 6], [1, 1, 1, 1], 3, 41),  # 103
        ("lindist3flow", [1, 1, 1, 1], [5, 30, 200, 120], 2, 27),  # 45
        ("lindist3flow", [0.25, 1, 3, 6], [0, 1, 0, 1], 2, 36),  # 127
        ("soc3", [1, 1, 1, 1], [5, 30, 200, 120], 2, 36),
        ("soc3", [1, 1, 1, 1], [0, 1, 1, 1], 2, 30),
    ],
)
def test_steps_of_any_length_and_weight(
    form: str, step_h: Sequence[float], weight: Sequence[float], areas: int, most: int
) -> None:
    """As many rounds as equal steps take (17 to 26); bars are half as much again as measured."""
    part = lateral.cut(timed(4, step_h, weight), areas)
    certified(solve_areas(part, Newton(), formulation=form, with_replay=False), most)


@pytest.mark.parametrize("method", [Newton(), Admm(wander_rounds=0)])
def test_a_weight_of_all_steps_changes_nothing(method: Algorithm) -> None:
    """The same problem with an objective that is 365 times as large: the same rounds, up to rounding."""

    def residuals(weight: float) -> list[float]:
        part = lateral.cut(timed(2, [1.0, 0.5], [weight, weight]), 2)
        run = solve_areas(
            part, method, formulation="lindist3flow", with_replay=False, central=False, max_rounds=8, tolerance=1e-3
        )
        return [r.residual for r in run.rounds]

    assert residuals(365.0) == pytest.approx(residuals(1.0), rel=1e-3, abs=1e-7)


def test_the_map_is_monotone_where_steps_differ() -> None:
    """In the norm of the areas' own penalties M + M' is positive semidefinite, and at most 2 (firmly nonexpansive)."""
    part = lateral.cut(timed(2, [6.0, 0.25], [1.0, 2.0]), 3)
    plan, found = agents(part, "lindist3flow")
    method = Newton()
    state, slopes = method.init(plan), {}
    assert list(plan.counts) == [6.0, 0.5]
    for area in plan.areas:
        said = found[area].solve(method.inputs(plan, state, area), 1e-3).slopes
        assert said is not None
        slopes |= {f"lin/{area}": said.lin, f"fall/{area}": said.gap}
    moves, _ = method._derivative(plan, state, slopes)
    values = np.linalg.eigvalsh(moves + moves.T)
    assert values.min() >= -1e-6 and values.max() <= 2.0 + 1e-6


def test_powers_of_a_step_without_weight_are_agreed_on() -> None:
    """Nothing is paid for them, and once neither for copies that differ: they never came together."""
    case = steps_of("ieee13", 2)
    horizon = dataclasses.replace(case.horizon, weight=np.array([0.0, 1.0]))
    part = lateral.cut(case.with_(horizon=horizon), 3)
    certified(solve_areas(part, Newton(), formulation="lindist3flow", with_replay=False), 41)


def test_areas_that_agree_to_the_last_digit_go_on_to_a_certificate() -> None:
    """Where nothing is curtailed the optimum is zero and what penalties cost is not: the gap, relative to the latter,
    falls far, and steps are rounding by then."""
    part = lateral.cut(steps_of("ieee13", 1), 2)
    run = solve_areas(part, Newton(), formulation="sdp", objective="curtailment", with_replay=False)
    assert run.status is Status.OPTIMAL, run.status_text
    assert run.result is not None and run.central is not None
    assert len(run.rounds) <= 40 and abs(run.result.objective - run.central.objective) <= 1e-7


def test_a_step_where_prices_are_undetermined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Areas that go along with anything, and agree: an M that no lambda of the steps' length makes regular. Once a
    traceback of numpy (`sdp`, `curtailment`, where nothing is curtailed)."""
    plan, _ = agents(lateral.cut(steps_of("ieee13", 1), 2), "soc3")
    method = Newton()
    state = method.init(plan)
    n = len(method._roots(plan, state))
    monkeypatch.setattr(Newton, "_roots", lambda *_: np.full(n, 0.5))  # a power of two: exactly singular
    free = Slopes(tuple(plan.borders), -4.0 * np.eye(n), np.zeros((n, 1)))
    said = {b: method.copy_of(plan, b, state.held[b], "") for b in plan.borders}
    answers = {}
    for a in plan.areas:
        own = {b: of_conductors(said[b], plan.borders[b].conductors) for b in plan.borders}
        answers[a] = Answer(a, "optimal", "", own, 0.0, 0.0, 0.0, 1, slopes=free)
    wave = method.waves(plan)[0]
    messages = Direct(plan, run="r").deliver(said_in(plan, wave, answers, run="r", round_=1, number=0))
    new = method.step(plan, state, wave, answers, messages)
    moved = method._packed(plan, new, new.held, new.local) - method._packed(plan, state, state.held, state.local)
    assert np.abs(moved).max() <= 1e-5  # rounding is no reason to go anywhere


def test_a_session_is_as_accurate_as_ever_where_no_gap_is_said_any_more() -> None:
    """When the run goes over to `admm` the same session goes on."""
    plan, found = agents(lateral.cut(steps_of("ieee13", 1), 2), "soc3")
    method = Newton()
    agent, told = found[plan.areas[1]], method.inputs(plan, method.init(plan), plan.areas[1])
    agent.solve(told, 1e-2)
    session = agent.model._session
    assert session is not None
    settings = session[-1]._settings  # type: ignore[attr-defined]
    assert settings.tol_gap_rel == 1e-2
    agent.solve(told)
    again = agent.model._session
    assert again is not None and again[-1] is session[-1]
    assert settings.tol_gap_rel == settings.tol_feas == 1e-9


def test_an_area_that_is_gone_leaves_the_others_an_end() -> None:
    """A round with a message missing was one of `admm` at the gap of the last whole one: the areas agreed, and never
    ended."""
    part = lateral.cut(steps_of("ieee13", 1), 3)

    class Leaves(Serial):
        rounds = 0

        def map(
            self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
        ) -> dict[str, dict[str, Any] | Failure]:
            self.rounds += operation == "solve"
            out = super().map(operation, requests, timeout_s=timeout_s)
            if operation == "solve" and self.rounds > 5 and "3" in requests:
                out["3"] = Failure("3", "it is gone")
            return out

        def restart(self, area: str) -> bool:
            return False

    run = solve_areas(
        part,
        Newton(),
        formulation="lindist3flow",
        with_replay=False,
        central=False,
        executor=Leaves(),
        patience=Patience(solve_s=1.0, dead_s=0.0),
        max_rounds=120,
    )
    assert run.status is Status.DEGRADED, run.status_text
    assert run.degraded == ("3",) and len(run.rounds) < 120
    assert any("newton went over to admm" in choice and "messages were missing" in choice for choice in run.choices)


def test_slopes_that_no_convex_area_has_are_not_used() -> None:
    """What an owner says is no reason for a traceback: too steep, or such that nothing can be solved for."""
    plan, found = agents(lateral.cut(steps_of("ieee13", 1), 2), "soc3")
    method = Newton()
    state = dataclasses.replace(method.init(plan), round=1)
    answers = {a: found[a].solve(method.inputs(plan, state, a), 1e-2) for a in plan.areas}
    wave = method.waves(plan)[0]
    messages = Direct(plan, run="r").deliver(said_in(plan, wave, answers, run="r", round_=2, number=0))
    plain = Admm(depth=0).step(plan, dataclasses.replace(Admm(depth=0).init(plan), round=1), wave, answers, messages)
    slopes = answers[plan.areas[0]].slopes
    assert slopes is not None
    for lin, gap in ((slopes.lin * 1e200, slopes.gap), (slopes.lin, slopes.gap + 1e308)):
        odd = {
            **answers,
            plan.areas[0]: dataclasses.replace(answers[plan.areas[0]], slopes=Slopes(slopes.borders, lin, gap)),
        }
        with np.errstate(over="ignore", invalid="ignore"):
            new = method.step(plan, state, wave, odd, messages)
        for key, value in plain.local.items():
            assert np.all(np.isfinite(new.local[key]))
            if lin is not slopes.lin:
                assert new.local[key] == pytest.approx(value)


def test_a_run_may_be_interrupted_on_either_side_of_going_over(tmp_path: Path) -> None:
    """Interrupted before and after it goes over to `admm`, a run goes on as if nothing had happened."""
    part = lateral.cut(steps_of("ieee13", 2), 2)

    def run(name: str, rounds: int, *, resume: bool = False) -> AreasRun:
        return solve_areas(
            part,
            Newton(patience=2),
            formulation="linearised",
            objective="demand",
            with_replay=False,
            checkpoint=tmp_path / name,
            max_rounds=rounds,
            resume=resume,
        )

    whole = run("whole", 300)
    (over,) = (choice for choice in whole.choices if "went over" in choice)
    when = int(over.split("round ")[1].split(":")[0])
    run("parts", when - 2)
    run("parts", when + 5, resume=True)
    parts = run("parts", 300, resume=True)
    assert whole.status is parts.status is Status.OPTIMAL
    assert over in parts.choices
    first, again = ([r.residual for r in one.rounds[: when + 5]] for one in (whole, parts))
    assert again == pytest.approx(first, rel=1e-3, abs=1e-7)


def test_areas_in_processes_and_owners_who_agreed_on_it_find_the_same() -> None:
    """Slopes go over pipes, and are said by an owner where the federation file names the method."""
    part = lateral.cut(steps_of("ieee13", 1), 3)
    here, apart = (
        solve_areas(part, Newton(), formulation="linearised", with_replay=False, central=False, executor=where)
        for where in (Serial(), Process(n_workers=2))
    )
    assert here.status is apart.status is Status.OPTIMAL
    assert [r.residual for r in apart.rounds] == [r.residual for r in here.rounds]
    agreed = federation_of(part, Newton(), formulation="linearised")
    specs = {a: AreaSpec(a, part.areas[a].case, agreed.task(a)) for a in part.areas}
    owned = solve_federation(agreed, Elsewhere(specs))  # type: ignore[arg-type]
    assert owned.algorithm == "newton" and owned.status is Status.OPTIMAL
    assert len(owned.rounds) <= len(here.rounds)
    assert owned.rounds[-1].objective == pytest.approx(here.rounds[len(owned.rounds) - 1].objective, rel=1e-6)


@pytest.mark.parametrize("faults", [{"delay": 0.2}, {"corruption": 0.1}, {"duplication": 0.2}])
def test_messages_that_are_late_spoilt_or_doubled_make_it_slower_not_wrong(faults: dict[str, float]) -> None:
    part = lateral.cut(steps_of("ieee13", 1), 3)
    run = solve_areas(part, Newton(), formulation="linearised", with_replay=False, transport=Faults(**faults, seed=3))
    certified(run, 120)
