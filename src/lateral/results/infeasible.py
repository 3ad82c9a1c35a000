"""Whether a convex problem has no point, and which limits stand in the way of one.

Both come from the least violation of its limits (`lateral.solvers.elastic`). That a solver ends without a point proves
nothing by itself: matrices that cannot be psd at once are where Clarabel stops in rounding, with any point. What the
least violation cannot be below (`certified_bound`) is a proof, where it is more than zero.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lateral import solvers
from lateral.program import ProblemClass, Program
from lateral.results.residuals import PRIMAL_TOLERANCE, Residuals, certified_bound, recompute
from lateral.results.retry import EARLY, judged
from lateral.solvers import Options, Solution, Solver, Status
from lateral.solvers.clarabel import ClarabelOptions
from lateral.solvers.elastic import Conflict, elastic

#: Weighted sum of violations above which a problem has no point.
LEAST_SUM = 1e-4
#: A sum of which no more than this share is proved tells nothing of the limits.
_UNSURE = 0.5
#: Share of a small sum from which on a slack is named.
_NAMED = 1e-2
#: How far beyond the limits laws of loads are written, one after the other, where a problem that has them within alone
#: has no point even without its limits: share of the voltage.
WIDER = (0.1, 0.5)
#: Longest time that Ipopt looks for the limits that make a program infeasible, s.
EXPLAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class LeastViolation:
    """The least violation of the limits of a convex problem.

    Attributes:
        proved: what its weighted sum is not below.
        conflicts: the limits that give way; none where every limit can be kept.
    """

    proved: float
    conflicts: tuple[Conflict, ...]


def least_violation(
    program: Program,
    wider: Callable[[float], Program] | None = None,
    *,
    ipopt: bool = False,
    until: float = np.inf,
) -> LeastViolation | None:
    """The least violation of the limits of a convex program.

    Args:
        program: the program.
        wider: builds it with the laws of loads written for voltages beyond their limits, by a share: a relaxation
            between a curve and its chord has no point beyond the ends of the chord.
        ipopt: whether to ask Ipopt where Clarabel finds nothing.
        until: time of `time.perf_counter` at which it is to end.

    Returns:
        None where no solver found it.
    """
    for limited in _tries(program, wider):
        soft = elastic(limited)
        # Ipopt takes its time to find that there is no point: wider laws, where there are any, come first
        for solver in _solvers(soft.program, until, ipopt=ipopt and (wider is None or limited is not program)):
            if time.perf_counter() >= until:
                return None
            found = solver.solve(soft.program)
            residuals = judged(soft.program, found)[1]
            bound = certified_bound(soft.program, found, residuals)
            if bound is None or not np.all(np.isfinite(found.x)):
                continue
            # wider laws have points that the program has not: that one keeps the limits says nothing of the program
            if limited is program and _keeps(program, found):
                return LeastViolation(0.0, ())
            total = soft.program.objective(found.x)
            if 0.0 < (1.0 - _UNSURE) * total <= bound:
                conflicts = soft.conflicts(found.x) or soft.conflicts(found.x, _NAMED * bound)
                return LeastViolation(bound, conflicts)
    return None


def _keeps(program: Program, found: Solution) -> bool:
    """Whether a point of the elastic form is one of the program itself. A small sum of slacks does not say so: each is
    a share of its scale, and where a limit is far off at some steps, that of its row is large."""
    n, m = program.n, len(program.l)
    own = dataclasses.replace(found, x=found.x[:n], reduced_cost=found.reduced_cost[:n], ineq_dual=found.ineq_dual[:m])
    off = recompute(program, own)
    return max(off.max_primal, off.max_bound) <= PRIMAL_TOLERANCE


def _tries(program: Program, wider: Callable[[float], Program] | None) -> Iterator[Program]:
    yield program
    if wider is not None:
        yield from map(wider, WIDER)


def _solvers(program: Program, until: float, *, ipopt: bool) -> Iterator[Solver]:
    yield solvers.get("clarabel", ClarabelOptions().within(until))
    if program.problem_class is ProblemClass.SDP:
        yield solvers.get("clarabel", ClarabelOptions(follow_after=EARLY).within(until))
    elif ipopt:
        yield solvers.get("ipopt", Options(time_limit_s=EXPLAIN_S).within(until))


def without_point(status: Status, residuals: Residuals) -> bool:
    """Whether a solver ended with nothing that keeps the rows of its program."""
    kept = max(residuals.max_primal, residuals.max_bound) <= PRIMAL_TOLERANCE
    return status in (Status.INACCURATE, Status.ERROR) and not kept


__all__ = ["EXPLAIN_S", "LEAST_SUM", "WIDER", "LeastViolation", "least_violation", "without_point"]
