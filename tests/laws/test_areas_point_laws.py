"""Three-phase areas come to the central optimum, wherever a feeder is cut.

The central solve of the same model, at the same operating point, is the reference: relative gap at most 1e-5, borders
agree to 1e-6 (of 1 pu^2, of the power base, of the price of energy).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lateral
from lateral.areas.algorithms import Enapp
from lateral.areas.partition import cut
from lateral.areas.run import AreasRun
from lateral.areas.solve import solve_areas
from lateral.case import Case
from lateral.network.horizon import Horizon

GAP, RESIDUAL = 1e-5, 1e-6
#: Borders of `ieee13`: behind the substation and its regulators, on laterals of one to three phases, behind a
#: transformer, at a switch, before a capacitor.
LINES = [
    *("transformer.sub", "transformer.reg1", "line.632633", "line.632645", "transformer.xfm1", "switch.671692"),
    *("line.645646", "line.671684", "line.692675", "line.684652"),
]


def steps_of(name: str, first: int, n: int) -> Case:
    """Some steps of a built-in case."""
    case = lateral.read(name)
    if case.horizon.n_steps <= n:
        return case
    h, own = case.horizon, slice(first, first + n)
    horizon = Horizon(start=h.start, step_h=h.step_h[own], weight=h.weight[own], zone=h.zone)
    return case.with_(horizon=horizon, profiles={k: v[own] for k, v in case.profiles.items()})


def agrees(run: AreasRun) -> None:
    assert run.ok, run.status_text
    assert run.residual <= RESIDUAL
    assert run.result is not None and run.central is not None
    apart = abs(run.result.objective - run.central.objective)
    assert apart <= GAP * abs(run.central.objective)


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    labels=st.lists(st.sampled_from(LINES), min_size=1, max_size=2, unique=True),
    first=st.integers(0, 20),
    objective=st.sampled_from(["cost", "loss"]),
)
def test_any_cut_of_ieee13_comes_to_the_central_optimum(labels: list[str], first: int, objective: str) -> None:
    case = steps_of("ieee13", first, 1)
    agrees(solve_areas(cut(case, labels), formulation="lindist3flow", objective=objective, with_replay=False))


@pytest.mark.parametrize("name", ["ieee123", "ieee123-rated"])
def test_four_areas_with_replay(name: str) -> None:
    case = steps_of(name, 12, 2)
    partition = cut(case, ["line.l19", "switch.sw3", "line.l67"])
    if case.batteries:  # `ieee123-rated` has nothing to decide: there areas need only agree
        assert sum(len(a.case.batteries) > 0 for a in partition.areas.values()) >= 2
    run = solve_areas(partition, formulation="lindist3flow")
    agrees(run)
    assert run.result is not None and run.result.replay is not None and run.central is not None
    found, best = run.result.value("bus.vmag_sq"), run.central.value("bus.vmag_sq")
    assert np.abs(found - best).max() <= 1e-4  # voltages are flat where the optimum is: sqrt of the gap
    assert run.settled is not None
    assert run.messages == run.settled.messages + sum(r.messages for r in run.rounds)
    assert any("operating point" in choice for choice in run.choices)


def test_nominal_point() -> None:
    partition = cut(steps_of("ieee123", 12, 1), ["line.l19", "line.l67"])
    agrees(solve_areas(partition, formulation="lindist3flow", point="nominal", with_replay=False))


def test_mean_over_nodes_is_shared_as_the_nodes_are() -> None:
    partition = cut(steps_of("ieee13", 12, 1), ["line.632633", "line.671684"])
    agrees(solve_areas(partition, formulation="lindist3flow", objective="vdev", with_replay=False))


def test_enapp_is_feasible_and_not_better_than_the_optimum() -> None:
    partition = cut(steps_of("ieee123", 12, 1), ["line.l19", "line.l67"])
    run = solve_areas(partition, Enapp(), formulation="lindist3flow", with_replay=False)
    assert run.result is not None and run.central is not None
    assert run.residual <= RESIDUAL
    assert run.result.residuals.max_primal <= 1e-5
    assert run.result.objective >= run.central.objective * (1.0 - 1e-7)


def test_a_branch_limit_above_borders_binds_as_it_does_in_the_whole() -> None:
    """The limit is 95 % of the largest current of the trunk without it."""
    case = steps_of("ieee13", 12, 1)
    free = lateral.solve(case, "lindist3flow", with_replay=False)
    rows = [k for k, leg in enumerate(free.network.legs) if leg.startswith("line.650632.")]
    nodes = [list(free.elements("bus.vmag_sq")).index(f"650.{c}") for c in (1, 2, 3)]
    kva = np.hypot(free.value("branch.p_from")[rows], free.value("branch.q_from")[rows])
    amp = kva / (case.feeder.bus["650"].v_base_kv * np.sqrt(free.value("bus.vmag_sq")[nodes]))
    lines = tuple(
        dataclasses.replace(line, i_max_a=0.95 * float(amp.max())) if line.name == "650632" else line
        for line in case.feeder.lines
    )
    tight = case.with_(feeder=dataclasses.replace(case.feeder, lines=lines))
    partition = cut(tight, ["line.632633", "line.632645"])
    run = solve_areas(partition, formulation="lindist3flow", with_replay=False)
    agrees(run)
    assert run.central is not None
    assert run.central.objective > free.objective * (1.0 + 1e-7)  # it binds
