"""Algorithms by themselves: the map of one border by hand, options, the registry, what they refuse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lateral
from lateral.areas.agent import Answer
from lateral.areas.algorithms import BUILT_IN, Admm, App, Auto, Enapp, EnappPriced, Newton, State, get
from lateral.areas.driver import said_in
from lateral.areas.partition import Border, cut, cut_by_buses
from lateral.areas.plan import Plan
from lateral.areas.solve import solve_areas
from lateral.errors import OptionError

ONE = np.ones((1, 1))
#: parent: cost 1/2 L S^2 + a S, so lambda = a + L S; child: cost 1/2 m S^2 - c S; optimum S = (c - a) / (m + L)
A, C, M = 1.0, 9.0, 0.5
BEST = 8.0


def plan(s_kva: float = 1.0) -> Plan:
    border = Border("b", "1", "2", ("line.b",), "x", (1,))
    return Plan("toy", ("1", "2"), {"b": border}, 1, s_kva, np.ones(1), np.ones(1), {"1": 1, "2": 1})


def answer(area: str, values: dict[str, np.ndarray]) -> Answer:
    return Answer(area, "optimal", "", {"b": values}, 0.0, 0.0, 0.0, 1)


def toy(algorithm: EnappPriced | Admm | App, big_l: float, rounds: int) -> list[float]:
    """Errors of the child's S (where P has a price, Q and v have none) after each round of two quadratic areas."""
    p = plan()
    state = algorithm.init(p)
    errors = []
    best = (C - A) / (M + big_l)
    for _ in range(rounds):
        for number, wave in enumerate(algorithm.waves(p)):
            answers = {}
            for area in wave.areas:
                told = algorithm.inputs(p, state, area)["b"]
                if algorithm.coupling == "consensus":
                    # min f(x) + lin x + w/2 x^2, f the area's own cost; v is stiff at the parent, free at the child
                    own, slope = (big_l, A) if area == "1" else (M, -C)
                    x = -(told["lin_p"] + slope) / (own + told["w_p"])
                    q = -told["lin_q"] / (1.0 + told["w_q"])
                    v = ONE if area == "1" else -told["lin_v"] / told["w_v"]
                    answers[area] = answer(area, {"v": v, "p": x, "q": q})
                elif area == "2":
                    s = (C - told["price_p"]) / (M + told.get("w_p", 0.0))
                    answers[area] = answer(area, {"p": s, "q": 0.0 * ONE, "price_v": 0.0 * ONE})
                else:
                    answers[area] = answer(area, {"v": ONE, "price_p": A + big_l * told["p"], "price_q": 0.0 * ONE})
            messages = said_in(p, wave, answers, run="r", round_=state.round + 1, number=number)
            state = algorithm.step(p, state, wave, answers, messages)
        said = state.said["b"]
        errors.append(float(abs(said.get("p.up", said["p"]) - best).max()))
    return errors


@pytest.mark.parametrize("ratio", [0.5, 4.0, 20.0])
def test_mixing_below_the_bound_converges_and_above_it_diverges(ratio: float) -> None:
    bound = 2.0 / (1.0 + ratio)
    if bound < 1.0:
        above = toy(EnappPriced(mixing=1.05 * bound, depth=0, proximal_max=0.0), ratio * M, 60)
        assert above[-1] > 10.0 * above[0]
    below = toy(EnappPriced(mixing=min(0.9 * bound, 1.0), depth=0, proximal_max=0.0), ratio * M, 120)
    assert below[-1] < 1e-8 * max(below[0], 1.0)
    # the error shrinks by |1 - mixing (1 + L/m)| a round, exactly
    rate = abs(1.0 - min(0.9 * bound, 1.0) * (1.0 + ratio))
    assert below[5] / below[4] == pytest.approx(rate, rel=1e-6)


def test_proximal_term_settles_what_mixing_cannot() -> None:
    big_l = 40.0 * M
    alone = toy(EnappPriced(mixing=0.7, depth=0, proximal_max=0.0), big_l, 40)
    assert alone[-1] > 1e3 * alone[0]
    with_term = toy(EnappPriced(mixing=0.7, depth=0, proximal_max=10.0), big_l, 120)
    assert with_term[-1] < 1e-6


@pytest.mark.parametrize("algorithm", [EnappPriced(), Admm(), App()])
def test_optimum_of_two_quadratic_areas(algorithm: EnappPriced | Admm | App) -> None:
    # S = (9 - 1) / (0.5 + 0.5) = 8 by hand
    assert (C - A) / (M + 0.5) == BEST
    assert toy(algorithm, 0.5, 200)[-1] < 1e-6


def test_app_at_its_usual_weights_is_admm_without_balancing() -> None:
    assert toy(Admm(penalty=3.0, balance_rounds=0, depth=0), 2.0, 25) == pytest.approx(
        toy(App(penalty=3.0), 2.0, 25), rel=1e-12
    )
    assert toy(App(penalty=3.0, alpha=0.25), 2.0, 25) != pytest.approx(toy(App(penalty=3.0), 2.0, 25), rel=1e-3)


def test_residual_balancing_moves_the_penalty_and_then_stops() -> None:
    p, algorithm = plan(), Admm(penalty=1e-4, balance_rounds=5)
    state = algorithm.init(p)
    first = state.numbers["b/p"]
    wave = algorithm.waves(p)[0]
    seen = []
    for k in range(8):  # copies that stay apart: the penalty doubles while it may
        answers = {a: answer(a, {"v": ONE, "p": x * ONE, "q": ONE}) for a, x in (("1", 1.0), ("2", 2.0))}
        state = algorithm.step(p, state, wave, answers, said_in(p, wave, answers, run="r", round_=k + 1, number=0))
        seen.append(state.numbers["b/p"] / first)
    assert seen == [2.0 ** min(k + 1, 5) for k in range(8)] or seen[-1] == seen[4]
    assert seen[-1] > 1.0
    assert state.numbers["b/v"] == algorithm.init(p).numbers["b/v"]


def test_a_border_that_missed_a_message_waits() -> None:
    p, algorithm = plan(), Admm()
    state = algorithm.init(p)
    wave = algorithm.waves(p)[0]
    answers = {a: answer(a, {"v": ONE, "p": x * ONE, "q": ONE}) for a, x in (("1", 1.0), ("2", 2.0))}
    messages = said_in(p, wave, answers, run="r", round_=1, number=0)
    lost = algorithm.step(p, state, wave, answers, messages[:1])
    assert lost.residual == np.inf
    assert np.array_equal(lost.local["2/b/p"], state.local["2/b/p"])
    whole = algorithm.step(p, state, wave, answers, messages)
    assert not np.array_equal(whole.local["2/b/p"], state.local["2/b/p"])


def test_states_are_plain_data() -> None:
    for algorithm in (cls() for cls in BUILT_IN.values()):
        state = algorithm.init(plan())
        with pytest.raises(dataclasses.FrozenInstanceError):
            state.round = 3  # type: ignore[misc]
        for f in dataclasses.fields(State):
            assert _plain(getattr(state, f.name)), f.name


def _plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    if isinstance(value, tuple):
        return all(_plain(v) for v in value)
    return isinstance(value, int | float | str | np.ndarray)


def test_registry_names_what_was_meant() -> None:
    assert [get(name) for name in BUILT_IN] == [Auto, EnappPriced, Enapp, Newton, Admm, App]
    with pytest.raises(OptionError, match="enapp-priced"):
        get("enapp-prices")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Admm(penalty=0.0),
        lambda: Admm(ratio_v=-1.0),
        lambda: Admm(balance_rounds=-1),
        lambda: Admm(depth=-1),
        lambda: App(alpha=float("nan")),
        lambda: App(gamma=0.0),
        lambda: EnappPriced(mixing=1.5),
        lambda: EnappPriced(depth=-1),
        lambda: EnappPriced(proximal_max=-0.1),
    ],
)
def test_options_that_cannot_be_are_refused(make) -> None:
    with pytest.raises(OptionError):
        make()


def test_enapp_refuses_a_peak_before_anything_is_solved() -> None:
    part = cut(lateral.read("case33bw-areas"), ["line.2-3"])
    with pytest.raises(OptionError, match="peak"):
        solve_areas(part, Enapp(), objective="cost+0.1*peak")
    Enapp().require("cost+0*peak")


def test_admm_and_app_reach_the_optimum_of_case33bw_areas() -> None:
    part = cut(lateral.read("case33bw-areas"), ["line.2-3", "line.5-6", "line.9-10"])
    for algorithm in (Admm(penalty=0.1), App()):
        run = solve_areas(
            part,
            algorithm,
            formulation="lindistflow",
            objective="loss",
            tolerance=1e-5,
            max_rounds=250,
            with_replay=False,
        )
        assert run.residual <= 1e-5
        assert abs(run.gap_to_central) <= 1e-4


def test_admm_reaches_the_optimum_of_the_published_case() -> None:
    part = cut_by_buses(lateral.read("ieee123-t5"))
    run = solve_areas(part, Admm(), formulation="nonlinear", max_rounds=60, with_replay=False)
    assert all(abs(g) <= 1e-4 for g in run.gap_per_round[-5:])


def test_undamped_jacobi_cycles_and_damped_settles() -> None:
    part = cut_by_buses(lateral.read("ieee123-t5"))
    plain = EnappPriced(order="jacobi", mixing=1.0, depth=0)
    run = solve_areas(part, plain, formulation="nonlinear", max_rounds=40, with_replay=False, central=False)
    assert not run.ok
    assert 1e-4 < run.residual < 1e-2
    damped = EnappPriced(order="jacobi", mixing=0.5, depth=0)
    run = solve_areas(part, damped, formulation="nonlinear", max_rounds=60, with_replay=False, central=False)
    assert run.ok
    assert 35 <= len(run.rounds) <= 49


@pytest.mark.parametrize(("voltages", "depths"), [(("v",), {5.0, 0.0}), (("v_re", "v_im"), set())])
def test_an_acceleration_that_leads_nowhere_looks_at_fewer_rounds(
    voltages: tuple[str, ...], depths: set[float]
) -> None:
    """Copies that are never nearer than 0.1: after 40 rounds, and after 40 more, back to where they were nearest. Where
    it is looked at whether copies wander, that begins anew at a heavier penalty instead."""
    p, rng = dataclasses.replace(plan(), voltages=voltages), np.random.default_rng(1)
    method = Admm(balance_rounds=0)
    state, seen = method.init(p), set()
    nearest, shortest = np.zeros(0), np.inf
    for _ in range(90):
        (wave,) = method.waves(p)
        answers = {
            area: answer(area, {x: sign * (1.0 + rng.random((1, 1))) for x in (*voltages, "p", "q")})
            for area, sign in (("1", 1.0), ("2", -1.0))
        }
        messages = said_in(p, wave, answers, run="r", round_=state.round + 1, number=0)
        before, state = state, method.step(p, state, wave, answers, messages)
        if state.numbers.get("depth") != before.numbers.get("depth"):
            seen.add(state.numbers["depth"])
            np.testing.assert_allclose(method._packed(p, state, state.held, state.local), nearest)
        books = dataclasses.replace(before, numbers={k: x for k, x in before.numbers.items() if k != "depth"})
        plain = Admm(balance_rounds=0, depth=0, wander_rounds=0).step(p, books, wave, answers, messages)
        begin, came = (method._packed(p, before, at.held, at.local) for at in (before, plain))
        if np.linalg.norm(came - begin) < 0.5 * shortest:
            nearest, shortest = came, float(np.linalg.norm(came - begin))
    assert seen == depths


def test_where_copies_were_nearest_is_forgotten_where_penalties_move() -> None:
    """It is kept in the norm of the penalties, and of the map: with others it would be another point."""
    p, rng = plan(), np.random.default_rng(1)
    method = Admm(balance_rounds=10)
    state, moved = method.init(p), 0
    for round_ in range(12):
        (wave,) = method.waves(p)
        apart = 1.0 if round_ < 4 else 1e-3  # then penalties are halved
        answers = {
            area: answer(area, {x: sign * (1.0 + apart * rng.random((1, 1))) for x in ("v", "p", "q")})
            for area, sign in (("1", 1.0), ("2", -1.0 if round_ < 4 else 1.0))
        }
        messages = said_in(p, wave, answers, run="r", round_=round_ + 1, number=0)
        before, state = state, method.step(p, state, wave, answers, messages)
        if any(state.numbers[f"{b}/{x}"] != before.numbers[f"{b}/{x}"] for b in p.borders for x in ("p", "q")):
            moved += 1
            assert "low" not in state.numbers
    assert moved and "low" in state.numbers
    assert "low" not in method.renewed(state).numbers
