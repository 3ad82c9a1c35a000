"""Areas that are infeasible in the middle of a run: they leave what they are given, say so, and come back."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

import lateral
from lateral.areas.agent import AreaAgent, Task
from lateral.areas.algorithms import Auto
from lateral.areas.elastic import NOISE, PATIENCE
from lateral.areas.partition import cut_by_buses
from lateral.areas.protocol import answer_of, handle, pack, unpack
from lateral.areas.run import AreasRun
from lateral.areas.solve import solve_areas
from lateral.areas.verdict import verdict
from lateral.case import Case
from lateral.devices import BorderTail
from lateral.solvers import Status


def at_least(v_min_pu: float) -> Case:
    """The 33-bus feeder with areas and a lower voltage limit; without one its least loss has 0.97647 pu at the end."""
    case = lateral.read("case33bw-areas")
    buses = tuple(dataclasses.replace(b, v_min_pu=v_min_pu) for b in case.feeder.buses)
    return case.with_(feeder=dataclasses.replace(case.feeder, buses=buses))


def agent(v_min_pu: float, area: str = "4", coupling: str = "prices") -> AreaAgent:
    task = Task(formulation="nonlinear", objective="loss", coupling=coupling)
    return AreaAgent(area, cut_by_buses(at_least(v_min_pu)).areas[area].case, task)


def told(v_pu: float) -> dict[str, dict[str, np.ndarray]]:
    one = np.ones((1, 1))
    return {"9-10": {"v": v_pu**2 * one, "price_p": 0.03 * one, "price_q": 0.02 * one}}


def run(case: Case, formulation: str = "nonlinear", max_rounds: int = 100, *, central: bool = True) -> AreasRun:
    return solve_areas(
        cut_by_buses(case),
        formulation=formulation,
        objective="loss",
        with_replay=False,
        max_rounds=max_rounds,
        central=central,
    )


# -- one area --------------------------------------------------------------------------------------------------------


def test_an_area_says_how_much_it_leaves() -> None:
    """Head at 0.93 pu, nothing below 0.95: the nearest voltage is above 0.95, and reactive power raises the rest."""
    a = agent(0.95)
    first = a.solve(told(0.93))
    assert first.status == "limit_reached"
    assert "not feasible yet" in first.text
    assert 0.95**2 - 0.93**2 - 0.02 < first.slack <= 0.95**2 - 0.93**2 + 0.01
    # more voltage is worth something: its price is negative, and grows while nobody helps
    prices = [float(first.borders["9-10"]["price_v"][0, 0])]
    answers = [a.solve(told(0.93)) for _ in range(2 * PATIENCE)]
    prices += [float(r.borders["9-10"]["price_v"][0, 0]) for r in answers]
    assert prices[0] < 0.0
    assert all(after <= before + 1e-6 for before, after in itertools.pairwise(prices))
    # at last it is called what it is, with the limits in the way
    assert answers[-1].status == "infeasible"
    assert "vmag" in answers[-1].text
    assert "< 0.95 pu" in answers[-1].text
    # an answer with slack goes through bytes
    reply = unpack(pack(handle(a, "solve", {"borders": told(0.93)})))
    assert answer_of(reply).slack == pytest.approx(answers[-1].slack, rel=1e-3)


def test_an_area_comes_back() -> None:
    """Once what it is told is feasible it says what an area says that never was in trouble."""
    a, b = agent(0.95), agent(0.95)
    for _ in range(3):
        a.solve(told(0.93))
    for _ in range(60):
        back = a.solve(told(0.99))
    never = b.solve(told(0.99))
    assert never.slack == 0.0
    assert (back.status, never.status) == ("optimal", "optimal")
    assert back.slack <= NOISE
    assert back.objective == pytest.approx(never.objective, rel=1e-5)
    for x in ("p", "q"):
        assert back.borders["9-10"][x] == pytest.approx(never.borders["9-10"][x], abs=0.05)
    assert back.borders["9-10"]["price_v"] == pytest.approx(never.borders["9-10"]["price_v"], abs=0.5)


def test_what_a_tail_cannot_give() -> None:
    """An upper area that is asked for more than its branch carries: 100 A, which are 2.19 MVA at 12.66 kV."""
    whole = lateral.read("case33bw-areas")
    part = cut_by_buses(whole).areas["3"].case
    lines = tuple(dataclasses.replace(e, i_max_a=100.0) if e.name == "8-9" else e for e in part.feeder.lines)
    case = part.with_(feeder=dataclasses.replace(part.feeder, lines=lines))
    a = AreaAgent("3", case, Task(formulation="nonlinear", objective="loss", coupling="prices"))
    one = np.ones((1, 1))
    (tail,) = case.of(BorderTail)
    inputs = {
        "5-6": {"v": one, "price_p": 0.05 * one, "price_q": 0.0 * one},
        tail.name: {"p": 3000.0 * one, "q": 0.0 * one, "price_v": 0.0 * one},
    }
    answers = [a.solve(inputs) for _ in range(2 * PATIENCE)]
    # 3 MW are asked for, about 2 MW can be had: the slack is the difference on the power base of 3 MVA
    assert answers[-1].slack == pytest.approx((3000.0 - 2100.0) / 3000.0, abs=0.1)
    assert answers[-1].status == "infeasible"
    assert "8-9" in answers[-1].text
    assert float(answers[-1].borders[tail.name]["price_p"][0, 0]) > 1.0


def test_consensus_needs_no_twin() -> None:
    a = agent(0.95, coupling="consensus")
    answer = a.solve({})
    assert answer.slack == 0.0
    assert answer.status in ("optimal", "inaccurate")


# -- a whole run -----------------------------------------------------------------------------------------------------


def test_a_start_that_is_infeasible_costs_nothing() -> None:
    """0.975 pu does not bind at the optimum, but the first voltage that comes down is too low for area 3."""
    r = run(at_least(0.975))
    assert "3" in r.rounds[0].failures
    assert not r.rounds[-1].failures
    assert r.central is not None
    assert abs(r.gap_to_central or 0.0) <= 1e-5
    assert len(r.rounds) <= 40


def test_a_limit_that_binds() -> None:
    """0.9775 pu binds in area 3; its price is found by what the area leaves."""
    r = run(at_least(0.9775))
    assert sum("3" in x.failures for x in r.rounds) >= 3
    assert not r.rounds[-1].failures
    assert r.gap_to_central is not None
    assert abs(r.gap_to_central) <= 1e-5
    assert r.result is not None
    assert np.sqrt(r.result.value("bus.vmag_sq").min()) == pytest.approx(0.9775, abs=1e-5)


def test_a_run_that_went_over_to_copies_says_which_limits_were_in_the_way() -> None:
    """In consensus no area is infeasible any more; what was found before is still why the copies do not agree."""
    r = run(at_least(0.985), max_rounds=33, central=False)
    assert r.status is Status.LIMIT_REACHED
    assert not r.rounds[-1].failures
    assert "after 33 rounds the areas differ" in r.status_text
    assert "; in round 30 area '3': infeasible: no schedule is feasible at what its neighbours say" in r.status_text
    assert "< 0.985 pu" in r.status_text
    # where the whole is known to have a schedule, what an area said on the way is no reason
    whole = lateral.solve(at_least(0.975), "nonlinear", "loss", with_replay=False)
    known = verdict(Auto(), r.rounds, None, whole, finished=False, dead=(), tolerance=1e-6)
    assert "in round 30" not in known[1]


@pytest.mark.parametrize("formulation", ["nonlinear", "soc"])
def test_what_is_infeasible_is_said_to_be(formulation: str) -> None:
    """0.985 pu cannot be held at the end of the lateral (0.978 is the most)."""
    case = at_least(0.985)
    assert not lateral.solve(case, formulation, "loss", with_replay=False).ok
    r = run(case, formulation, max_rounds=30, central=False)
    assert r.status is Status.INFEASIBLE
    assert "area '3'" in r.status_text
    assert "vmag" in r.status_text
    assert "< 0.985 pu" in r.status_text
