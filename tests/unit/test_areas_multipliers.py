"""Multipliers of least gap: they certify an optimum whose duals are off, and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.unit.test_areas_exact import ieee13

from lateral.areas import multipliers
from lateral.areas.multipliers import of_least_gap
from lateral.opf import build
from lateral.program import Program
from lateral.results.residuals import objective_size, recompute
from lateral.results.result import Result
from lateral.solvers import Solution
from lateral.solvers.base import reduced_cost

FORMS = ("lindist3flow", "linearised", "current-voltage", "bus-injection", "soc3")


def solved(form: str, objective: str = "cost") -> Result:
    result = build(ieee13(2), form, objective).solve()
    assert result.ok
    return result


def with_duals(program: Program, s: Solution, share: float) -> Solution:
    """All duals times a share."""
    duals = {
        "eq_dual": s.eq_dual * share,
        "ineq_dual": s.ineq_dual * share,
        "product_dual": s.product_dual * share,
        "quadratic_dual": s.quadratic_dual * share,
        "curve_dual": s.curve_dual * share,
    }
    y, w, mu, nu, kappa = duals.values()
    z = reduced_cost(program, s.x, y, w, mu, nu, kappa, s.semidefinite_dual)
    return dataclasses.replace(s, **duals, reduced_cost=z)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_rows_are_those_that_reduced_costs_are_made_of(form: str) -> None:
    result = solved(form)
    program, x = result.program, result.solution.x
    rng = np.random.default_rng(7)
    for rows in (program.products, program.quadratics, program.curves):
        dual = rng.normal(size=rows.n_rows)
        sparse, dense = rows.gradients(x).T @ dual, rows.gradient_times(x, dual)
        assert np.allclose(sparse, dense, rtol=1e-12, atol=1e-12 * max(np.abs(dense).max(initial=0.0), 1.0))


@pytest.mark.parametrize("share", [0.99, 1.01])
@pytest.mark.parametrize("form", ["lindist3flow", "linearised", "current-voltage", "bus-injection"])
def test_an_optimum_is_certified_although_its_duals_are_off(form: str, share: float) -> None:
    """The schedule is not touched."""
    result = solved(form)
    off = with_duals(result.program, result.solution, share)
    before = recompute(result.program, off).duality_gap
    found, residuals = of_least_gap(result.program, off)
    assert before >= 1e-4
    assert residuals.duality_gap <= 1e-6
    assert residuals == recompute(result.program, found)
    assert np.array_equal(found.x, result.solution.x)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("form", ["lindist3flow", "linearised"])
def test_what_is_no_optimum_keeps_a_gap_that_bounds_how_far_it_is(form: str, seed: int) -> None:
    """A convex program, and a mean of its optimum and of that for another objective: feasible, and too dear."""
    best, other = solved(form), solved(form, "demand" if seed % 2 else "curtailment")
    program, size = best.program, len(best.solution.x)
    assert len(other.solution.x) == size
    share = 10.0 ** -np.random.default_rng(seed).uniform(1.0, 4.0)
    x = (1.0 - share) * best.solution.x + share * other.solution.x
    moved = dataclasses.replace(best.solution, x=x)
    moved = with_duals(program, moved, 1.0)
    _, residuals = of_least_gap(program, moved)
    over = program.objective(x) - program.objective(best.solution.x)
    assert residuals.max_primal <= 1e-6
    assert residuals.duality_gap * objective_size(program, x) >= over - 1e-8 * abs(program.objective(x))


def test_nothing_is_made_of_a_solution_without_numbers() -> None:
    result = solved("lindist3flow")
    nothing = dataclasses.replace(result.solution, x=np.full_like(result.solution.x, np.nan))
    found, residuals = of_least_gap(result.program, nothing)
    assert found is nothing
    assert np.isnan(residuals.duality_gap)


def test_the_duals_that_come_back_are_never_worse() -> None:
    """Where the areas' own are better than what is found these stay."""
    result = solved("soc3")
    before = recompute(result.program, result.solution)
    _, residuals = of_least_gap(result.program, result.solution)
    assert residuals.duality_gap <= before.duality_gap


def test_a_program_that_is_too_large_keeps_its_duals(monkeypatch: pytest.MonkeyPatch) -> None:
    result = solved("lindist3flow")
    off = with_duals(result.program, result.solution, 0.99)
    monkeypatch.setattr(multipliers, "MOST_VARIABLES", result.program.n - 1)
    assert of_least_gap(result.program, off)[0] is off
    monkeypatch.setattr(multipliers, "MOST_VARIABLES", result.program.n)
    assert of_least_gap(result.program, off)[0] is not off
