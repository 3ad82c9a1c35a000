"""`auto`: prices first, consensus where they do not settle; and the acceleration of consensus."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lateral
from lateral.areas.agent import Task
from lateral.areas.algorithms import Admm, Auto, EnappPriced
from lateral.areas.driver import iterate
from lateral.areas.executors import Serial, get
from lateral.areas.partition import Partition, cut_by_buses
from lateral.areas.plan import Plan
from lateral.areas.point import MOST_CROSSING, taken_in
from lateral.areas.run import AreasRun
from lateral.areas.solve import area_specs, solve_areas
from lateral.areas.transport import Direct
from lateral.case import Case
from lateral.errors import OptionError
from lateral.formulations import get as formulation_named
from lateral.solvers import Status


def tight() -> Case:
    """The published case with a voltage limit that binds in two areas in a row beyond a border."""
    case = lateral.read("ieee123-t5")
    buses = tuple(
        dataclasses.replace(b, v_max_pu=1.02) if case.areas[b.name] in ("3", "4") else b for b in case.feeder.buses
    )
    return case.with_(feeder=dataclasses.replace(case.feeder, buses=buses))


def run_of(case: Case, algorithm: Auto | Admm | EnappPriced, **options: object) -> AreasRun:
    chosen: dict[str, object] = {"formulation": "lindistflow", "with_replay": False, **options}
    return solve_areas(cut_by_buses(case), algorithm, **chosen)  # type: ignore[arg-type]


def test_where_prices_settle_it_is_enapp_priced() -> None:
    """Number for number, and never anything else."""
    case = lateral.read("case33bw-areas")
    a = run_of(case, Auto(), objective="loss", formulation="nonlinear")
    b = run_of(case, EnappPriced(), objective="loss", formulation="nonlinear")
    assert a.ok
    assert [r.residual for r in a.rounds] == [r.residual for r in b.rounds]
    assert a.algorithm == "auto"


def test_a_limit_that_binds_beyond_a_border() -> None:
    """Prices alone end as a limit or uncertified within 60 rounds; with consensus the run ends certified optimal."""
    alone = run_of(tight(), EnappPriced(), max_rounds=40)
    assert not alone.ok
    found = run_of(tight(), Auto(), max_rounds=200)
    assert found.ok, found.status_text
    assert abs(found.gap_to_central or 1.0) <= 1e-6
    limit = np.sqrt(found.result.value("bus.vmag_sq").max()) if found.result is not None else 0.0
    assert limit <= 1.05 + 1e-6


@pytest.fixture(scope="module")
def settled() -> tuple[Partition, Plan, object]:
    """Where the prices of the published case settle."""
    partition = cut_by_buses(lateral.read("ieee123-t5"))
    plan = Plan.of(partition)
    state = None
    with Serial() as where:
        where.start(area_specs(partition, Task(formulation="lindistflow", coupling="prices")))
        for progress in iterate(plan, EnappPriced(), where, Direct(plan, run="r"), tolerance=1e-9):
            state = progress.state
            if progress.finished or progress.round.number == 40:
                break
    return partition, plan, state


def test_handed_over_where_prices_settled_nothing_moves(settled: tuple[Partition, Plan, object]) -> None:
    """The fixed point of the one is that of the other: means, and multipliers with their signs."""
    partition, plan, state = settled
    algorithm = Auto()
    begin = algorithm.handed_over(plan, state)  # type: ignore[arg-type]
    with Serial() as where:
        where.start(area_specs(partition, Task(formulation="lindistflow", coupling="prices")))
        first = next(iterate(plan, algorithm, where, Direct(plan, run="r"), tolerance=1e-9, state=begin))
    assert first.round.residual <= 2e-5  # P and Q on the power base; the prices' scale is 0.1 of the tariff's
    wrong = dataclasses.replace(begin, local={k: -v for k, v in begin.local.items()})
    with Serial() as where:
        where.start(area_specs(partition, Task(formulation="lindistflow", coupling="prices")))
        other = next(iterate(plan, algorithm, where, Direct(plan, run="r"), tolerance=1e-9, state=wrong))
    assert other.round.residual > 1e-2


def test_it_goes_over_once_and_stays() -> None:
    """After ``window`` rounds without progress, and in one process as in several."""
    eager = Auto(window=2, progress=0.01)
    here = run_of(lateral.read("case33bw-areas"), eager, objective="loss", max_rounds=6, central=False)
    there = run_of(
        lateral.read("case33bw-areas"), eager, objective="loss", max_rounds=6, central=False, executor=get("process")
    )
    assert [r.messages for r in here.rounds] == [6] * 6
    assert set(here.rounds[-1].held["2-3"]) == {k for x in "vpq" for k in (x, f"{x}.up", f"{x}.down")}
    assert [r.residual for r in there.rounds] == pytest.approx([r.residual for r in here.rounds], rel=1e-9)


def test_acceleration_halves_the_rounds_of_admm() -> None:
    case = lateral.read("case33bw-areas")

    def rounds(depth: int) -> int:
        gaps = run_of(case, Admm(depth=depth), objective="loss", max_rounds=60).gap_per_round or []
        last = max((k for k, gap in enumerate(gaps) if abs(gap) > 1e-4), default=-1)
        return last + 2

    assert rounds(10) <= 35
    assert rounds(0) > 60


def test_options_that_cannot_be() -> None:
    for wrong in (
        lambda: Auto(window=1),
        lambda: Auto(progress=1.0),
        lambda: Auto(penalty=-1.0),
        lambda: Auto(then="app"),
    ):
        with pytest.raises(OptionError):
            wrong()


def test_convex_areas_go_over_to_newton() -> None:
    """The price of the peak step jumps: 63 rounds, where `admm` has the areas 3e-5 apart after 150."""
    case = lateral.read("ieee123-t5")
    run = run_of(case, Auto(), objective="cost+10*loss+0.1*peak", max_rounds=80)
    assert run.status is Status.OPTIMAL, run.status_text
    assert run.gap_to_central is not None and abs(run.gap_to_central) <= 1e-6
    assert any("from enapp-priced to newton after round " in choice for choice in run.choices)
    run = run_of(case, Auto(then="admm"), objective="cost+10*loss+0.1*peak", max_rounds=60, central=False)
    assert run.status is Status.LIMIT_REACHED
    assert any("from enapp-priced to admm after round " in choice for choice in run.choices)


def test_what_auto_goes_over_to_where_nobody_says() -> None:
    """`newton` needs convex areas, a solver with slopes, an owner who lets them be known, and not too many numbers."""
    form = formulation_named("lindistflow")
    assert taken_in(form, None) == (Auto(then="newton"), ())
    assert taken_in(form, Auto(window=9)) == (Auto(window=9, then="newton"), ())
    assert taken_in(form, Auto(then="admm")) == (Auto(then="admm"), ())
    for other in ({"solver": "ipopt"}, {"owned": True}, {"crossing": MOST_CROSSING + 1}):
        assert taken_in(form, None, **other) == (Auto(), ())  # type: ignore[arg-type]
    assert taken_in(formulation_named("nonlinear"), None) == (Auto(), ())
    begun = Auto().init(Plan.of(cut_by_buses(lateral.read("case33bw-areas"))))
    assert Auto().at(dataclasses.replace(begun, numbers={"consensus": 1.0})).name == "admm"
