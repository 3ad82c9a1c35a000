"""The same program by another solver: agreement, disagreement, and nobody to ask."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import lateral
from lateral.cli import run
from lateral.errors import OptionError
from lateral.results.result import Result
from lateral.results.verification import SAME_OBJECTIVE, verified
from lateral.solvers import Options, Status


def solved(
    formulation: str = "nonlinear", solver: str = "auto", name: str = "ads10", objective: str = "cost"
) -> Result:
    return lateral.build(lateral.read(name), formulation, objective).solve(solver)


def infeasible(formulation: str = "soc") -> Result:
    """Voltage limits that no schedule meets."""
    case = lateral.read("ads10")
    buses = tuple(dataclasses.replace(b, v_min_pu=1.02, v_max_pu=1.03) for b in case.feeder.buses)
    source = dataclasses.replace(case.sources[0], v_pu=1.0)
    devices = tuple(source if d is case.sources[0] else d for d in case.devices)
    case = case.with_(feeder=dataclasses.replace(case.feeder, buses=buses), devices=devices)
    return lateral.build(case, formulation, check=False).solve()


@pytest.mark.parametrize(
    ("formulation", "first", "second"),
    [
        ("nonlinear", "ipopt", "native"),
        ("nonlinear", "native", "ipopt"),
        ("soc", "clarabel", "native"),
        ("soc", "native", "clarabel"),
        ("lindistflow", "clarabel", "native"),
    ],
)
def test_another_solver_finds_the_same(formulation: str, first: str, second: str) -> None:
    found = verified(solved(formulation, first))
    v = found.verification
    assert v is not None
    assert (v.verdict, v.solver, v.status) == ("agrees", second, "optimal")
    assert v.relative is not None
    assert abs(v.relative) <= SAME_OBJECTIVE
    assert v.max_dv_pu is not None
    assert v.max_dv_pu <= 1e-4
    assert found.choices[-1] == v.text
    assert found.cautions == ()
    assert found.seconds["verify"] > 0.0
    assert found.summary()["verification"]["verdict"] == "agrees"


def test_linear_programs_go_to_highs() -> None:
    model = lateral.build(lateral.read("case33bw"), "lindistflow", loss_term=False)
    found = verified(model.solve("clarabel"))
    assert found.verification is not None
    assert (found.verification.solver, found.verification.verdict) == ("highs", "agrees")


def test_a_disagreement_names_both_objectives() -> None:
    """A result that claims to be optimal and is the answer to other prices and loads."""
    model = lateral.build(lateral.read("ads10"), "nonlinear")
    right = model.solve()
    p = np.array([load.p_kw * model.case.multiplier(load.profile) for load in model.case.loads])
    other = model.update(loads=0.9 * p).solve()
    wrong = dataclasses.replace(right, solution=other.solution)
    found = verified(wrong)
    v = found.verification
    assert v is not None
    assert v.verdict == "differs"
    assert v.objective == pytest.approx(right.objective, rel=1e-6)
    assert v.objective_first == pytest.approx(other.objective, rel=1e-6)
    for value in (v.objective, v.objective_first):
        assert f"{value:.10g}" in found.status_text
    assert "the second solve disagrees" in found.status_text
    assert found.status is Status.OPTIMAL  # what residuals earned is not taken back; the sentence says it


def test_an_infeasibility_that_is_none_is_found_out() -> None:
    right = solved("soc")
    nan = dataclasses.replace(right.solution, x=np.full_like(right.solution.x, np.nan))
    found = verified(dataclasses.replace(right, solution=nan, status=Status.INFEASIBLE))
    v = found.verification
    assert v is not None
    assert (v.verdict, v.objective_first) == ("differs", None)
    assert v.objective == pytest.approx(right.objective, rel=1e-6)
    assert "clarabel ended infeasible; " in v.text
    assert "clarabel ended infeasible; " in found.status_text


@pytest.mark.parametrize(("formulation", "verdict"), [("nonlinear", "open"), ("lindistflow", "agrees")])
def test_infeasible_twice(formulation: str, verdict: str) -> None:
    """What is convex is proved; that Ipopt finds nothing near its start either is no proof."""
    found = verified(infeasible(formulation))
    v = found.verification
    assert v is not None
    assert v.verdict == verdict, v.text
    assert v.objective is None
    assert found.reasons
    assert ("which proves nothing" in found.status_text) == (verdict == "open")


def test_the_second_opinion_is_not_the_first_solver_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """native alone: what it would hand over comes back as it is, and the next solver is asked."""
    monkeypatch.setattr("lateral.solvers.native.session.MOST_ITERATIONS", 3)
    found = verified(solved("nonlinear", "ipopt"), solver="native", options=Options(max_iterations=3))
    v = found.verification
    assert v is not None
    assert (v.verdict, v.solver, v.status) == ("open", "native", "limit_reached")


def test_a_second_solve_that_does_not_end_proves_nothing() -> None:
    found = verified(solved("nonlinear", "native"), solver="ipopt", options=Options(max_iterations=2))
    v = found.verification
    assert v is not None
    assert (v.verdict, v.status) == ("open", "limit_reached")
    assert "but not verified" in found.status_text


def test_nobody_else_takes_it() -> None:
    found = lateral.solve(lateral.read("ieee13"), "sdp", verify=True, with_replay=False)
    v = found.verification
    assert v is not None
    assert (v.verdict, v.solver, v.objective) == ("open", "", None)
    assert "no solver but clarabel takes this semidefinite program" in found.status_text


def test_the_same_solver_is_no_second_one() -> None:
    result = solved("soc", "clarabel")
    with pytest.raises(OptionError, match="choose another one"):
        verified(result, solver="clarabel")
    with pytest.raises(OptionError, match="no solver"):
        verified(result, solver="gurobi")


def test_on_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["solve", "ads10", "--verify", "--no-replay", "--json"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["verification"]["verdict"] == "agrees"
    assert summary["verification"]["text"] in summary["choices"]
    assert summary["seconds"]["verify"] > 0.0
    assert run(["solve", "ads10", "--no-replay", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["verification"] is None
