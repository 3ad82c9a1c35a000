"""A second try where the first answer of a solver did not pass the residual test."""

from __future__ import annotations

from collections.abc import Sequence

from lateral import solvers
from lateral.program import ProblemClass, Program
from lateral.results.residuals import PRIMAL_TOLERANCE, Residuals, earned_status, recompute
from lateral.solvers import Options, Solution, Status
from lateral.solvers.clarabel import ClarabelOptions

#: Tolerance of the second try: Clarabel and Ipopt stop on residuals of their own scaling.
RETRY_TOLERANCE = 1e-11
#: Where Clarabel stops at cones before the central path is followed: near the optimum, then well inside of them.
FAR_FROM_EDGE = (1e-5, 1e-3)
#: Of a program with matrices: the number of its iterations after which that is done. From where it ends by itself, at
#: the edge of the cones, the path is not always reached.
EARLY = 3


def judged(program: Program, solution: Solution) -> tuple[Status, Residuals]:
    """The earned status of a solution, and the residuals that it rests on."""
    residuals = recompute(program, solution)
    return earned_status(program, solution, residuals), residuals


def tighter(program: Program, solution: Solution, status: Status, *, path: bool = True) -> Solution | None:
    """The optimum at a tighter tolerance, or from the central path, where an answer was not accurate enough.

    Args:
        program: the program.
        solution: the answer.
        status: what it earned.
        path: whether the central path of a program of cones is tried at once, see `along_path`.

    Returns:
        None where that does not help, or nothing is to be helped.
    """
    name = solution.solver
    if status is not Status.INACCURATE or name not in ("clarabel", "ipopt"):
        return None
    if program.problem_class not in solvers.SOLVERS[name].solver.accepts:
        return None
    tries: list[Options] = []
    if not program.semidefinite.n_rows or solution.status is Status.OPTIMAL:
        # else Clarabel stopped in rounding, as it does with matrices, and stops at the same place again
        tries.append(Options(tolerance=RETRY_TOLERANCE))
    # a point of the central path has multipliers to the last digits where those of an optimum are many; it is reached
    # from a point that is not yet at the edge of the cones
    if name == "clarabel" and program.problem_class is ProblemClass.SDP:
        tries.append(ClarabelOptions(follow_after=EARLY))
    found = _first_optimum(program, solution, tries)
    return along_path(program, solution, status) if found is None and path else found


def along_path(program: Program, solution: Solution, status: Status) -> Solution | None:
    """The optimum from the central path of a program of cones, where Clarabel's answer was not accurate enough.

    Where Ipopt may be asked it comes before: on IEEE 123 over four steps (`soc3`) a delta's cones end at their tip,
    where a product has no multiplier, and to go along the path to there took four times as long as Ipopt does.

    Returns:
        None where that does not help, or nothing is to be helped.
    """
    cones = solution.solver == "clarabel" and program.problem_class is ProblemClass.SOCP
    if status is not Status.INACCURATE or not cones or solution.notes:
        return None
    return _first_optimum(program, solution, [ClarabelOptions(tolerance=far, centred=True) for far in FAR_FROM_EDGE])


def _first_optimum(program: Program, solution: Solution, tries: Sequence[Options]) -> Solution | None:
    """The first answer of the same solver that is accurate enough."""
    name = solution.solver
    for options in tries:
        again = solvers.get(name, options).solve(program, solution if name == "ipopt" else None)
        if judged(program, again)[0] is Status.OPTIMAL:
            return again
    return None


def nearer(found: Residuals, before: Residuals) -> bool:
    """Whether a point is nearer to the optimum than the one before: at a smaller gap, and within tolerance or no
    further beyond it."""
    beyond, allowed = (max(r.max_primal, r.max_bound) for r in (found, before))
    return beyond <= max(PRIMAL_TOLERANCE, allowed) and not found.duality_gap >= before.duality_gap


__all__ = ["RETRY_TOLERANCE", "along_path", "judged", "nearer", "tighter"]
