"""A second try where the first answer of a solver did not pass the residual test."""

from __future__ import annotations

from lateral import solvers
from lateral.program import Program
from lateral.results.residuals import Residuals, earned_status, recompute
from lateral.solvers import Options, Solution, Status

#: Tolerance of the second try: Clarabel and Ipopt stop on residuals of their own scaling.
RETRY_TOLERANCE = 1e-11


def judged(program: Program, solution: Solution) -> tuple[Status, Residuals]:
    """The earned status of a solution, and the residuals that it rests on."""
    residuals = recompute(program, solution)
    return earned_status(program, solution, residuals), residuals


def tighter(program: Program, solution: Solution, status: Status) -> Solution | None:
    """The optimum at a tighter tolerance where the answer of Clarabel or Ipopt was not accurate enough.

    Returns:
        None where that does not help, or nothing is to be helped.
    """
    name = solution.solver
    if status is not Status.INACCURATE or name not in ("clarabel", "ipopt"):
        return None
    if program.problem_class not in solvers.SOLVERS[name].solver.accepts:
        return None
    if program.semidefinite.n_rows and solution.status is not Status.OPTIMAL:
        return None  # with matrices Clarabel stopped in rounding, and stops at the same place again
    again = solvers.get(name, Options(tolerance=RETRY_TOLERANCE)).solve(program, solution if name == "ipopt" else None)
    return again if judged(program, again)[0] is Status.OPTIMAL else None


__all__ = ["RETRY_TOLERANCE", "judged", "tighter"]
