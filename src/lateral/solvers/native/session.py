"""From a program to a solution, again and again: analysed once; later solves start from an earlier iterate."""

from __future__ import annotations

import dataclasses
import time
from typing import final

import numpy as np

from lateral.errors import Fault, UnsupportedError
from lateral.program import ProblemClass, Program
from lateral.solvers.base import (
    Options,
    Session,
    Solution,
    Status,
    check_pattern,
    interrupts,
    no_point,
    pattern_of,
    reduced_cost,
    unscaled_solution,
)
from lateral.solvers.native.method import Iterate, Method
from lateral.solvers.native.order import order_of
from lateral.solvers.native.steps import Declined, StepProgram

#: Newton steps, where the caller sets no limit.
MOST_ITERATIONS = 100
_WORDS = {
    "solved": (Status.OPTIMAL, "solved"),
    "limit": (Status.LIMIT_REACHED, "iterations or time ran out"),
    "stalled": (Status.INACCURATE, "no step makes progress"),
    "broken": (Status.ERROR, "the linear system could not be solved"),
}


@final
class NativeSession(Session):
    """One pattern of program."""

    def __init__(self, program: Program, options: Options) -> None:
        self._pattern = pattern_of(program)
        self._options = options
        self._middle: Iterate | None = None
        try:
            self._steps = StepProgram.of(program)
            threads = getattr(options, "threads", 1)
            self._method = Method(self._steps, order_of(program, self._steps), threads=threads)
        except Declined as why:
            fault = Fault(
                code="SOL-010 no-structure",
                element="solver.native",
                found=str(why),
                allowed="variables and rows of one step each, the same at every step, and storage rows",
                action="Choose solver 'auto'.",
            )
            raise UnsupportedError([fault]) from why

    def solve(self, program: Program, warm: Solution | None = None) -> Solution:
        """See `Session.solve`. A warm start is the session's own: the iterate of the last solve on its way."""
        check_pattern(program, self._pattern)
        begin = time.perf_counter()
        o = self._options
        self._steps.load(program)
        if self._steps.crossed:
            return no_point(
                program,
                status=Status.INFEASIBLE,
                solver="native",
                iterations=0,
                seconds=time.perf_counter() - begin,
                message="the bounds of a variable exclude each other",
            )
        self._method.load()
        limit = np.inf if o.time_limit_s is None else o.time_limit_s

        def late() -> bool:
            return time.perf_counter() - begin > limit

        with interrupts() as note, np.errstate(all="ignore"):
            starts = [None] if self._middle is None or not getattr(o, "warm", True) else [self._middle, None]
            spent = 0
            for start in starts:
                iterate, outcome, middle = self._method.solve(
                    gap=o.tolerance or 1e-8,
                    max_iterations=o.max_iterations or MOST_ITERATIONS,
                    start=None if start is None else start.copy(),
                    give_up=lambda: note.pressed or late(),
                    verbose=print if o.verbose else None,
                )
                spent += outcome.iterations
                if outcome.word == "solved":
                    self._middle = middle
                    break
        status, message = _WORDS[outcome.word]
        # a limit that the caller set is kept to; other ends are somebody else's turn
        most = o.max_iterations or MOST_ITERATIONS
        given_up = outcome.word in ("stalled", "broken") or (outcome.word == "limit" and most >= MOST_ITERATIONS)
        if given_up and not note.pressed and not late() and getattr(o, "fallback", True):
            return self._handed_over(program, spent, message, time.perf_counter() - begin)
        if not np.all(np.isfinite(iterate.x)):
            seconds = time.perf_counter() - begin
            return no_point(
                program, status=Status.ERROR, solver="native", iterations=spent, seconds=seconds, message=message
            )
        return self._solution(program, iterate, status, spent, time.perf_counter() - begin, message)

    def _handed_over(self, program: Program, spent: int, message: str, seconds: float) -> Solution:
        """The answer of another solver, which says so: Clarabel's for cones and for a proof that there is none, Ipopt's
        for what is not convex."""
        from lateral import solvers

        o = self._options
        left = None if o.time_limit_s is None else max(o.time_limit_s - seconds, 0.1)
        options = Options(time_limit_s=left, verbose=o.verbose)
        found = None
        if program.has_relaxation:
            found = solvers.get("clarabel", options).solve(program.relaxed())
        if found is None or (program.problem_class is ProblemClass.NLP and found.status is not Status.INFEASIBLE):
            found = solvers.get("ipopt", options).solve(program)
        said = f"native: {message}; handed over to {found.solver}: {found.message}"
        return dataclasses.replace(
            found, iterations=spent + found.iterations, seconds=seconds + found.seconds, message=said
        )

    def _solution(
        self, program: Program, it: Iterate, status: Status, iterations: int, seconds: float, message: str
    ) -> Solution:
        """The numbers in program order and in the house's dual sign: the multipliers here have the other one."""
        s, k = self._steps, self._method.kkt
        x = s.variables.gather(it.x, program.n)
        n_rows, n_ranges = k.n_rows, s.ranges.n
        equal = np.zeros((s.equalities.n, s.n_steps))
        equal[s.row_of >= 0] = it.y[:n_rows]
        equal[s.link_of >= 0] = it.eta
        y = -s.equalities.gather(equal, len(program.b))
        w = -s.ranges.gather(it.y[n_rows : n_rows + n_ranges], len(program.l))
        mu = -s.products.gather(it.y[k.p_first - k.nv : k.q_first - k.nv], program.products.n_rows)
        nu = -s.quadratics.gather(it.y[k.q_first - k.nv : k.c_first - k.nv], program.quadratics.n_rows)
        kappa = -s.curves.gather(it.y[k.c_first - k.nv :], program.curves.n_rows)
        found = unscaled_solution(
            program, x=x, y=y, w=w, mu=mu, status=status, solver="native", iterations=iterations, seconds=seconds,
            message=message, nu=nu, kappa=kappa,
        )  # fmt: skip
        y, w = found.eq_dual.copy(), found.ineq_dual.copy()
        # a row of one variable takes what is left of that variable's gradient; of a range, where it is what holds
        rows, cols, _ = s.alone
        y[rows] = found.reduced_cost[cols] / program.a[rows].data if len(rows) else 0.0
        rows, cols, _ = s.bounding
        if len(rows):
            coefficient = program.g[rows].data
            sides = np.sort(np.stack([program.l[rows] / coefficient, program.u[rows] / coefficient]), axis=0)
            z = found.reduced_cost[cols]
            own = np.where(z > 0, sides[0] >= program.lb[cols], sides[1] <= program.ub[cols])
            w[rows] = np.where(own, z / coefficient, 0.0)
        return dataclasses.replace(
            found,
            eq_dual=y,
            ineq_dual=w,
            reduced_cost=reduced_cost(
                program, found.x, y, w, found.product_dual, found.quadratic_dual, found.curve_dual
            ),
        )


__all__ = ["NativeSession"]
