"""Runs whose whole has no schedule: they end early, name the limits in the way, and show no numbers of what is none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_areas_elastic import at_least
from test_areas_federation import Elsewhere

import lateral
from lateral.areas.algorithms import Admm, Auto, EnappPriced
from lateral.areas.central import INSIST, LATE, STALL, Central, ends_alone, insisting, stalled
from lateral.areas.driver import Progress
from lateral.areas.elastic import NOWHERE
from lateral.areas.federation import federation_of, solve_federation
from lateral.areas.partition import cut_by_buses
from lateral.areas.plan import Plan
from lateral.areas.protocol import AreaSpec
from lateral.areas.run import AreasRun, Round
from lateral.areas.solve import solve_areas
from lateral.areas.verdict import in_the_way, none_found, verdict
from lateral.case import Case
from lateral.cli import run as command
from lateral.io.tables import write_folder
from lateral.results.result import Result
from lateral.solvers import Status


def run(case: Case, formulation: str = "nonlinear", *, max_rounds: int = 100, central: bool = True) -> AreasRun:
    return solve_areas(
        cut_by_buses(case),
        formulation=formulation,
        objective="loss",
        max_rounds=max_rounds,
        central=central,
    )


def rounds_of(*residuals: float, said: str = "", text: str = "", built: tuple[int, ...] = ()) -> list[Round]:
    """Rounds with these residuals, in the last of which area '3' says a word."""
    nothing = {"objective": 1.0, "cost": 1.0, "held": {}, "seconds": {}, "critical": 0.0, "messages": 0, "bytes": 0}
    found = {"failures": {"3": f"area '3': {text or said}"}, "statuses": {"3": said}} if said else {}
    return [
        Round(
            number=k,
            residual=r,
            residuals={},
            built_again=("3",) if k in built else (),
            **nothing,  # type: ignore[arg-type]
            **(found if said and k > len(residuals) - INSIST else {}),  # type: ignore[arg-type]
        )
        for k, r in enumerate(residuals, 1)
    ]


# -- with a central solve --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formulation", ["nonlinear", "soc", "lindistflow", "lindist3flow", "soc3", "linearised"])
def test_a_whole_that_is_infeasible_by_proof_ends_the_run(formulation: str) -> None:
    """At the first area without a schedule; where all have one in consensus, once they are late in agreeing. To first
    order the proof is of the first point, and the status what rounds of the whole find."""
    case = at_least(0.985)
    alone = lateral.solve(case, formulation, "loss")
    r = run(case, formulation)
    assert r.status is (Status.LOCALLY_INFEASIBLE if formulation == "linearised" else Status.INFEASIBLE)
    assert len(r.rounds) <= LATE
    assert r.conflicts and r.conflicts == alone.reasons
    assert r.conflicts[0] in r.status_text and "found by the central solve" in r.status_text
    # what is shown is what a solve of the whole shows
    summary = r.summary()
    assert summary["conflicts"] == list(alone.reasons) == alone.summary()["conflicts"]
    for key in ("objective", "cost", "losses_kwh", "energy_import_kwh", "gap_to_central", "gap_per_round", "replay"):
        assert summary[key] is None, key
    assert r.central is not None and r.optimum is None
    assert r.result is None or (not r.result.has_schedule and r.result.reasons == alone.reasons)


def test_a_whole_without_a_schedule_nearby_ends_the_run_once_areas_insist() -> None:
    """What a solver does not find is no proof: areas go on until one of them says the same for some rounds."""
    case = at_least(0.985)
    r = run(case, "current-voltage")
    assert r.status is Status.LOCALLY_INFEASIBLE
    assert r.status_text.startswith("locally infeasible: ")
    assert INSIST <= len(r.rounds) <= 30
    assert insisting(r.rounds) and not insisting(r.rounds[:-1])
    assert r.conflicts == lateral.solve(case, "current-voltage", "loss").reasons
    assert r.result is not None and r.result.replay is None


def test_a_run_that_comes_to_agree_is_what_it_was() -> None:
    """The first rounds have areas without a schedule: the central solve is asked then, and changes nothing."""
    case = at_least(0.9775)
    with_, without = run(case), run(case, central=False)
    assert any(r.failures for r in with_.rounds)
    assert with_.status is without.status is Status.OPTIMAL
    assert [r.residual for r in with_.rounds] == [r.residual for r in without.rounds]
    assert with_.conflicts == ()
    assert with_.optimum is with_.central is not None
    assert abs(with_.gap_to_central or 1.0) <= 1e-5
    # the time of the central solve is its own
    assert set(with_.seconds) == set(without.seconds) | {"central"}
    phases = sum(v for k, v in with_.seconds.items() if k != "total")
    assert with_.seconds["total"] == pytest.approx(phases, rel=1e-12)
    assert min(with_.seconds.values()) >= 0.0


def test_a_form_that_has_loads_on_one_side_only_says_so() -> None:
    """Loads have constant power from 0.95 pu on: limits of 0.9 pu leave room below, those of 0.985 pu none."""
    says = "current-voltage has both sides, and may have a schedule"

    def banded(case: Case) -> Case:
        loads = {d.label: dataclasses.replace(d, v_min_pu=0.95) for d in case.loads}
        return case.with_(devices=tuple(loads.get(d.label, d) for d in case.devices))

    room, none = run(banded(cannot()), "nonlinear"), run(banded(at_least(0.985)), "nonlinear")
    assert room.status is none.status is Status.INFEASIBLE
    assert any(says in text for text in room.choices)
    assert not any(says in text for text in none.choices)


class Ended(Central):
    """A central solve that ended in some way."""

    def __init__(self, result: Result) -> None:
        self._result, self.seconds, self.nowhere = result, 1.0, False


def progress(rounds: list[Round], *, finished: bool = False, dead: tuple[str, ...] = ()) -> Progress:
    plan = Plan.of(cut_by_buses(lateral.read("case33bw-areas")), "loss")
    return Progress(EnappPriced().init(plan), rounds[-1], dead, finished)


@pytest.fixture(scope="module")
def proved() -> Result:
    return lateral.solve(at_least(0.985), "lindistflow", "loss", with_replay=False)


def test_when_further_rounds_are_of_no_use(proved: Result) -> None:
    nearby = dataclasses.replace(proved, status=Status.LOCALLY_INFEASIBLE)
    limit = dataclasses.replace(proved, status=Status.LIMIT_REACHED)
    plain, said = rounds_of(*[1.0] * (INSIST + 2)), rounds_of(*[1.0] * (INSIST + 2), said="infeasible")
    assert Ended(proved).ends(plain, progress(plain))
    assert not Ended(proved).ends(plain, progress(plain, finished=True))
    assert not Ended(proved).ends(plain, progress(plain, dead=("3",)))
    silent = [*plain[:-1], dataclasses.replace(plain[-1], failures={"2": "area '2' did not answer within 5 s"})]
    assert not Ended(proved).ends(silent, progress(silent))
    assert not Ended(nearby).ends(plain, progress(plain))
    assert Ended(nearby).ends(said, progress(said))
    unexplained = dataclasses.replace(nearby, conflicts=())
    assert not Ended(unexplained).ends(said, progress(said))
    still = rounds_of(*[1.0] * 2 * STALL)
    assert Ended(nearby).ends(still, progress(still))
    assert not Ended(limit).ends(said, progress(said))
    assert not Ended(limit).ends(still, progress(still))


def test_the_central_solve_is_not_asked_without_a_doubt() -> None:
    central = Central(lateral.build(at_least(0.985), "lindistflow", "loss"), "auto")
    early, late = rounds_of(*[1.0] * (LATE - 1)), rounds_of(*[1.0] * LATE)
    assert not central.ends(early, progress(early)) and central.seconds == 0.0
    near = rounds_of(*[1e-4] * LATE)
    assert not central.ends(near, progress(near)) and central.seconds == 0.0
    assert central.ends(late, progress(late)) and central.seconds > 0.0
    assert central.result is central.result


def test_a_residual_that_does_not_fall() -> None:
    assert not stalled(rounds_of(*[0.999**k for k in range(3 * STALL)]))
    assert not stalled(rounds_of(*[5.0] * STALL, *[1.0] * STALL))  # far off at first, and better since
    still = [1.0 + 0.1 * (k % 7) for k in range(3 * STALL)]
    assert stalled(rounds_of(*still))
    assert not stalled(rounds_of(*still[: 2 * STALL - 1]))
    assert not stalled(rounds_of(*still, built=(3 * STALL - 5,)))
    assert not stalled(rounds_of(*still[:-1], 0.99))


# -- the verdict -----------------------------------------------------------------------------------------------------


def test_areas_that_agree_are_not_overruled(proved: Result) -> None:
    """A solver that finds no schedule nearby is wrong where there is one."""
    best = lateral.solve(at_least(0.95), "lindistflow", "loss", with_replay=False)
    agree = rounds_of(1.0, 1e-8)
    nearby = dataclasses.replace(proved, status=Status.LOCALLY_INFEASIBLE)
    assert not none_found(agree, nearby, finished=True)
    found = verdict(Auto(), agree, best, nearby, finished=True, dead=(), tolerance=1e-6)
    assert found == (Status.OPTIMAL, best.status_text)
    assert in_the_way(agree, nearby, finished=True) == ()
    # else the word is that of the central solve, also where areas stand still without a schedule
    for rounds, finished in ((rounds_of(1.0, 1.0), False), (rounds_of(1.0, 1e-8, said="infeasible"), True)):
        status, text = verdict(Auto(), rounds, None, nearby, finished=finished, dead=(), tolerance=1e-6)
        assert status is Status.LOCALLY_INFEASIBLE
        assert text == f"{nearby.status_short}; found by the central solve, after 2 rounds of the areas"
        assert in_the_way(rounds, nearby, finished=finished) == proved.reasons


def test_a_central_solve_that_failed_says_nothing(proved: Result) -> None:
    failed = dataclasses.replace(proved, status=Status.ERROR, conflicts=())
    rounds = rounds_of(1.0, 1.0, 1.0, said="infeasible", text="infeasible: bus 31.1 vmag 0.97 < 0.98 pu")
    status, text = verdict(Auto(), rounds, None, failed, finished=False, dead=(), tolerance=1e-6)
    assert status is Status.INFEASIBLE  # as without one
    assert in_the_way(rounds, failed, finished=False) == ("area '3': infeasible: bus 31.1 vmag 0.97 < 0.98 pu",)
    assert "bus 31.1" in text


def test_what_was_in_the_way_is_said_where_areas_end_as_a_limit() -> None:
    before = rounds_of(1.0, 1.0, 1.0, said="infeasible", text="infeasible: bus 31.1 vmag 0.97 < 0.98 pu")
    last = dataclasses.replace(
        before[-1], number=4, failures={"2": "area '2': limit reached: ran out"}, statuses={"2": "limit_reached"}
    )
    found = verdict(Auto(), [*before, last], None, None, finished=False, dead=(), tolerance=1e-6)
    said = "limit reached: area '2': ran out; in round 3 area '3': infeasible: bus 31.1 vmag 0.97 < 0.98 pu"
    assert found == (Status.LIMIT_REACHED, said)


# -- without a central solve -----------------------------------------------------------------------------------------


def cannot() -> Case:
    """The 33-bus feeder with 1.04 pu at least and 0.95 pu at most at the two ends of a line in area 4."""
    case = at_least(0.9)
    at = {"11": (1.04, 1.05), "12": (0.9, 0.95)}
    buses = tuple(
        dataclasses.replace(b, v_min_pu=at[b.name][0], v_max_pu=at[b.name][1]) if b.name in at else b
        for b in case.feeder.buses
    )
    return case.with_(feeder=dataclasses.replace(case.feeder, buses=buses))


@pytest.mark.parametrize("formulation", ["linearised", "soc3", "lindistflow", "lindist3flow"])
def test_an_area_that_can_never_have_a_schedule_ends_the_run(formulation: str) -> None:
    """Whatever its neighbours say: by proof, and the limits are those of the area by itself."""
    r = run(cannot(), formulation, central=False)
    assert r.status is (Status.LOCALLY_INFEASIBLE if formulation == "linearised" else Status.INFEASIBLE)
    assert len(r.rounds) == INSIST
    assert "area '4'" in r.status_text
    (said,) = r.conflicts
    assert said.startswith("area '4': infeasible: ")
    assert "bus 11.1 vmag" in said or "bus 12.1 vmag" in said
    assert r.summary()["conflicts"] == list(r.conflicts)


def test_areas_of_owners_end_too() -> None:
    """The coordinator sees what the owner of area 4 says, and no case."""
    partition = cut_by_buses(cannot())
    agreed = federation_of(partition, formulation="lindistflow", objective="loss")
    specs = {a: AreaSpec(a, partition.areas[a].case, agreed.task(a)) for a in partition.areas}
    r = solve_federation(agreed, Elsewhere(specs))  # type: ignore[arg-type]
    assert (r.status, len(r.rounds)) == (Status.INFEASIBLE, INSIST)
    assert r.result is r.central is None
    (said,) = r.conflicts
    assert said.startswith("area '4': infeasible: ") and said == r.rounds[-1].failures["4"]


def test_who_may_end_a_run_alone() -> None:
    said = rounds_of(*[1.0] * (INSIST + 2), said="infeasible")
    assert ends_alone(Admm(), said)
    assert not ends_alone(Auto(), said)  # what its neighbours say next may be feasible
    assert ends_alone(Auto(), rounds_of(*[1.0] * (INSIST + 2), said="infeasible", text=f"infeasible: {NOWHERE}"))
    assert not ends_alone(Admm(), rounds_of(*[1.0] * (INSIST + 2), said="locally_infeasible"))
    assert not ends_alone(Admm(), [*rounds_of(1.0, 1.0), *said[-INSIST + 1 :]])


def test_a_limit_says_that_a_central_solve_was_not_asked_for() -> None:
    says = "a central solve, which was not asked for, says so"
    short = run(at_least(0.9775), max_rounds=2, central=False)
    assert short.status is Status.LIMIT_REACHED and any(says in text for text in short.choices)
    short = run(at_least(0.9775), max_rounds=2)
    assert short.status is Status.LIMIT_REACHED and not any(says in text for text in short.choices)
    assert short.conflicts == ()  # the whole has a schedule


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_command_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = tmp_path / "case"
    write_folder(at_least(0.985), case)
    asked = ["areas", "run", str(case), "--formulation", "nonlinear", "--objective", "loss"]
    assert command([*asked, "--json", "--out", str(tmp_path / "out")]) == 3
    summary = json.loads(capsys.readouterr().out)
    assert summary["status"] == "infeasible"
    assert any("bus 31.1 vmag" in text for text in summary["conflicts"])
    assert summary["cost"] is summary["losses_kwh"] is None
    assert not (tmp_path / "out" / "schedule.csv").exists()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = page[: page.index('<script type="application/json"')]
    assert "Limits that stand in the way" in page and "bus 31.1" in page
    assert "There is no schedule." in page
    assert "schedule, by the model" not in page and "energy cost</div>" not in page
    assert command(asked) == 3
    screen = capsys.readouterr().out
    assert "bus 31.1 vmag" in screen
    assert not any(line.startswith(("cost", "losses", "energy import")) for line in screen.splitlines())
