"""Areas against published numbers and against the central optimum, as bars.

The published run (Jha, Paul and Dubey 2024): IEEE 123 as four areas, five steps. The 33-bus case is ours; its bars come
from an independent implementation of the same exchange.
"""

from __future__ import annotations

from functools import cache

import pytest

from lateral.areas.algorithms import Algorithm, Enapp, EnappPriced
from lateral.areas.divide import divide
from lateral.areas.partition import cut_by_buses
from lateral.areas.run import AreasRun
from lateral.areas.solve import solve_areas
from lateral.io import read
from lateral.solvers import Status


def run(name: str, algorithm: Algorithm, tolerance: float, objective: str = "cost", **options: object) -> AreasRun:
    partition = cut_by_buses(read(name))
    return solve_areas(
        partition, algorithm, formulation="nonlinear", objective=objective, tolerance=tolerance, **options
    )  # type: ignore[arg-type]


@cache
def priced(name: str, objective: str) -> AreasRun:
    return run(name, EnappPriced(), 1e-6, objective)


def test_enapp_as_published() -> None:
    """Five rounds, and the cost at the source after each."""
    r = run("ieee123-t5", Enapp(relax="published"), 1e-3, with_replay=False)
    assert r.cost_per_round == pytest.approx([121.201, 334.100, 576.243, 564.122, 576.299], abs=0.002)


def test_enapp_unrelaxed() -> None:
    r = run("ieee123-t5", Enapp(), 1e-3, with_replay=False)
    assert r.cost_per_round == pytest.approx([121.201, 334.100, 576.243, 576.290, 576.311], abs=0.002)


def test_enapp_settles_above_the_optimum() -> None:
    """Its fixed point is 576.332 $; the optimum of the network is 576.312 $."""
    r = run("ieee123-t5", Enapp(), 1e-6)
    assert r.cost_per_round[-1] == pytest.approx(576.332, abs=0.001)
    assert r.central is not None
    assert r.central.cost == pytest.approx(576.312, abs=0.001)
    assert r.gap_to_central == pytest.approx(3.5e-5, abs=2e-6)
    assert r.status is not Status.OPTIMAL  # a schedule that is feasible, and not the best


def test_priced_reaches_the_optimum() -> None:
    r = priced("ieee123-t5", "cost")
    assert r.ok, r.status_text
    assert r.gap_per_round is not None
    within = next(k for k, gap in enumerate(r.gap_per_round, start=1) if abs(gap) <= 1e-6)
    assert within <= 10
    assert len(r.rounds) <= 20
    assert r.residual <= 1e-6
    assert r.result is not None
    assert r.result.cost == pytest.approx(576.312, abs=0.001)


@pytest.mark.parametrize(("name", "objective"), [("ieee123-t5", "cost"), ("case33bw-areas", "loss")])
def test_joined_schedule_in_opendss(name: str, objective: str) -> None:
    """The bars of a central solve of the exact model: 1e-6 pu, and 0.01 kW of losses."""
    r = priced(name, objective)
    assert r.result is not None
    assert r.result.replay is not None
    found = r.result.replay.summary()
    assert found["converged"]
    assert found["max_dv_pu"] < 1e-6
    assert found["dloss_kw"] < 0.01
    assert found["n_violations"] == 0


def test_enapp_on_33_buses_ends_10_percent_above() -> None:
    """7 to 8 rounds to 1e-5 and no nearer; what it says of itself is that it is not the optimum."""
    r = run("case33bw-areas", Enapp(), 1e-5, "loss", with_replay=False)
    assert len(r.rounds) in (7, 8)
    assert r.gap_to_central == pytest.approx(0.103, abs=0.001)
    assert r.status is Status.INACCURATE
    assert "above the central optimum" in r.status_text


def test_priced_on_33_buses() -> None:
    r = priced("case33bw-areas", "loss")
    assert r.ok, r.status_text
    assert len(r.rounds) <= 30
    assert r.gap_to_central is not None
    assert abs(r.gap_to_central) <= 1e-5


@pytest.mark.parametrize("n", [0, 2, 3, 5, 8])
def test_priced_on_a_day_of_24_steps(n: int) -> None:
    """The published areas (0), and 2 to 8 of our own: 1e-5 from the optimum within 10 + 2 x depth rounds."""
    case = read("ieee123-t24")
    partition = divide(case, n) if n else cut_by_buses(case)
    most = 10 + 2 * partition.max_depth
    r = solve_areas(
        partition, EnappPriced(), formulation="nonlinear", tolerance=1e-5, max_rounds=most, with_replay=False
    )
    assert r.status in (Status.OPTIMAL, Status.INACCURATE), r.status_text
    assert r.gap_to_central is not None
    assert abs(r.gap_to_central) <= 1e-5
    assert r.result is not None
    assert r.result.residuals.max_primal <= 1e-5
