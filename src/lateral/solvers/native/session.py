"""From a program to a solution, again and again: analysed once; later solves start from an earlier iterate."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import final

import numpy as np

from lateral.errors import Fault, UnsupportedError
from lateral.network.schema import FloatArray
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
)
from lateral.solvers.elastic import proved, settled
from lateral.solvers.native import kernels
from lateral.solvers.native.iterate import Iterate, Outcome
from lateral.solvers.native.method import Method
from lateral.solvers.native.options import DEFAULT_TOLERANCE, NativeOptions
from lateral.solvers.native.order import order_of
from lateral.solvers.native.steps import Cells, Declined, StepProgram

#: Newton steps of one attempt, where the caller sets no limit.
MOST_ITERATIONS = 100
#: A multiplier of a cone that is above zero by this much, relative to the largest, has the wrong sign.
SIGN = 1e-9
#: Ends of a convex solve that say nothing of whether there is a point.
_NO_WORD = (Status.INACCURATE, Status.LIMIT_REACHED, Status.ERROR)
_WORDS = {
    "solved": (Status.OPTIMAL, "solved"),
    "limit": (Status.LIMIT_REACHED, "iterations or time ran out"),
    "stalled": (Status.INACCURATE, "no step makes progress"),
    "broken": (Status.ERROR, "the linear system could not be solved"),
}


class _Part:
    """A program of one pattern with its method, and where later solves start."""

    def __init__(self, program: Program, options: NativeOptions) -> None:
        self.steps = StepProgram.of(program, threads=options.threads)
        self.method = Method(self.steps, order_of(program, self.steps), threads=options.threads)
        self.way: Iterate | None = None  # an iterate of the last solve on its way
        self._shifted = False
        self._cold = MOST_ITERATIONS  # steps that a solve from nowhere took
        self._holds: Program | None = program

    def load(self, program: Program) -> bool:
        """Take the numbers of a program of this pattern; False where the bounds of a variable exclude each other."""
        if program is self._holds:
            return not self.steps.crossed
        self._holds = None  # until all is loaded
        self.steps.load(program)
        if not self.steps.crossed:
            self.method.load()
            self._holds = program
        return not self.steps.crossed

    def run(
        self, options: NativeOptions, most: int | None, give_up: Callable[[], bool]
    ) -> tuple[Iterate, Outcome, int]:
        """The last iterate, how it ended, and the Newton steps of all attempts, which are no more than ``most``."""
        spent, kkt = 0, self.method.kkt
        attempts = [(None, False)] if self.way is None or not options.warm else [(self.way, False), (None, False)]
        if kkt.single:
            attempts.append((None, True))
        for start, wide in attempts:
            if wide:  # what stopped it may be rounding
                kkt.widen()
            left = MOST_ITERATIONS if most is None else most - spent
            iterate, outcome, way = self.method.solve(
                gap=options.tolerance or DEFAULT_TOLERANCE,
                # an earlier iterate that is no good is left when it costs as much as none
                max_iterations=left if start is None else min(left, self._cold),
                earlier=None if start is None else start.copy(),
                flow=self._shifted and self.steps.quadratics.n > 0,
                give_up=give_up,
                verbose=print if options.verbose else None,
            )
            spent += outcome.iterations
            if outcome.word == "solved":
                self.way, self._shifted = way, False
                if start is None:
                    self._cold = outcome.iterations
                break
            if give_up() or spent == most:  # there is nothing left for another
                break
        return iterate, outcome, spent

    def shift(self, steps: int) -> None:
        """The data of the next run are those of the last one, so many steps later."""
        if self.way is not None:
            self.way, self._shifted = self.way.shifted(steps), True


@final
class NativeSession(Session):
    """One pattern of program."""

    def __init__(self, program: Program, options: NativeOptions) -> None:
        self._pattern = pattern_of(program)
        self._options = options
        self._whole: _Part | None = None
        self._tight: _Part | None = None
        self._held = _may_be_tight(program)
        self._of: tuple[Program, Program] | None = None
        try:
            if self._held.any():
                self._tight = _Part(self._as_tight(program), options)
            else:
                self._whole = _Part(program, options)
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
        """See `Session.solve`. A warm start is the session's own: the iterate of the last solve on its way.

        Cones of currents are tried as equalities first: where no multiplier has the wrong sign, that point satisfies
        the optimality conditions of the cones as well, which are convex, and is their optimum (Farivar and Low 2013).
        """
        check_pattern(program, self._pattern)
        begin = time.perf_counter()
        o = self._options
        most, limit = o.max_iterations, np.inf if o.time_limit_s is None else o.time_limit_s

        def late() -> bool:
            return time.perf_counter() - begin > limit

        first = self._tight or self._whole
        assert first is not None
        if not first.load(program if self._tight is None else self._as_tight(program)):
            return no_point(
                program,
                status=Status.INFEASIBLE,
                solver="native",
                iterations=0,
                seconds=time.perf_counter() - begin,
                message="the bounds of a variable exclude each other",
            )
        spent = 0
        with interrupts() as note, np.errstate(all="ignore"):

            def give_up() -> bool:
                return note.pressed or late()

            if self._tight is not None:
                iterate, outcome, spent = self._tight.run(o, most, give_up)
                if outcome.word == "solved":
                    found = self._solution(
                        program,
                        self._tight,
                        iterate,
                        outcome,
                        Status.OPTIMAL,
                        spent,
                        time.perf_counter() - begin,
                        "solved",
                    )
                    mu = found.product_dual[self._held]
                    if np.all(mu <= SIGN * max(1.0, float(np.abs(mu).max(initial=0.0)))):
                        return found
                    outcome = dataclasses.replace(outcome, word="limit")  # where nothing is left for the cones
            part = self._tight
            if part is None or not (give_up() or spent == most):
                if self._whole is None:
                    self._whole = _Part(program, o)
                if self._tight is not None:
                    self._whole.load(program)
                part = self._whole
                iterate, outcome, more = part.run(o, None if most is None else most - spent, give_up)
                spent += more
        status, message = _WORDS[outcome.word]
        # a limit that the caller set is kept to; other ends are somebody else's turn
        given_up = outcome.word in ("stalled", "broken") or (outcome.word == "limit" and most is None)
        if given_up and not note.pressed and not late() and o.fallback:
            return self._handed_over(program, spent, message, begin)
        if not np.all(np.isfinite(iterate.x)):
            seconds = time.perf_counter() - begin
            return no_point(
                program, status=Status.ERROR, solver="native", iterations=spent, seconds=seconds, message=message
            )
        return self._solution(program, part, iterate, outcome, status, spent, time.perf_counter() - begin, message)

    def _as_tight(self, program: Program) -> Program:
        """The program with its cones of currents as equalities; the same again for the same."""
        if self._of is None or self._of[0] is not program:
            self._of = program, _tightened(program, self._held)
        return self._of[1]

    def shift(self, steps: int) -> None:
        """See `Session.shift`; steps that are new start as the last one that there was."""
        for part in (self._tight, self._whole):
            if part is not None:
                part.shift(steps)

    def _handed_over(self, program: Program, spent: int, message: str, begin: float) -> Solution:
        """The answer of another solver, which says so: Clarabel's for cones and for a proof that there is none, Ipopt's
        for what is not convex. All of them within the time limit."""
        from lateral import solvers

        o = self._options
        asked = o.tolerance if o.tolerance != DEFAULT_TOLERANCE else None  # else each has a default of its own
        plain = Options(tolerance=asked, verbose=o.verbose)
        until = np.inf if o.time_limit_s is None else begin + o.time_limit_s
        found = None
        if program.has_relaxation:
            clarabel = solvers.get("clarabel", plain.within(until))
            found = clarabel.solve(program.relaxed())
            if found.status in _NO_WORD:
                found = proved(program.relaxed(), found, clarabel, until=until)
        exact = program.problem_class is ProblemClass.NLP
        if found is None or (exact and found.status is not Status.INFEASIBLE):
            ipopt = solvers.get("ipopt", plain.within(until))
            found = ipopt.solve(program)
            if found.status in (Status.LIMIT_REACHED, Status.ERROR):
                found = settled(program, found, ipopt, until=until)
        said = f"native: {message}; handed over to {found.solver}: {found.message}"
        seconds = time.perf_counter() - begin
        return dataclasses.replace(found, iterations=spent + found.iterations, seconds=seconds, message=said)

    def _solution(
        self,
        program: Program,
        part: _Part,
        it: Iterate,
        outcome: Outcome,
        status: Status,
        iterations: int,
        seconds: float,
        message: str,
    ) -> Solution:
        """The numbers in program order and in the house's dual sign: the multipliers here have the other one."""
        s, k = part.steps, part.method.kkt
        f, y_of, others = program.objective_scale, it.y[: k.n_rows], it.y[k.n_rows :]

        def of(
            cells: Cells, array: FloatArray, scale: FloatArray, factor: float, out: FloatArray | None = None
        ) -> FloatArray:
            out = np.empty(len(scale)) if out is None else out
            k.threads.rows(kernels.gather_scaled, len(scale), out, cells.element, cells.step, array, scale, factor)
            return out

        equal = np.empty((s.equalities.n, s.n_steps))
        equal[s.row_of >= 0], equal[s.link_of >= 0] = y_of, it.eta
        ranges, products, quadratics, curves = part.method.rows.by_kind(others)
        x = of(s.variables, it.x, program.col_scale, 1.0)
        y = of(s.equalities, equal, program.eq_scale, -1.0 / f)
        w = of(s.ranges, ranges, program.ineq_scale, -1.0 / f)
        mu = of(s.products, products, program.product_scale, -1.0 / f)
        nu = of(s.quadratics, quadratics, program.quadratic_scale, -1.0 / f)
        kappa = of(s.curves, curves, program.curve_scale, -1.0 / f)
        zeta = np.zeros(0)  # there are no matrices in programs that have steps
        z = 1.0 / program.col_scale
        of(s.variables, outcome.reduced_cost, z, 1.0 / f, out=z)  # in place: fresh memory takes longer than the rest
        # a row of one variable takes what is left of that variable's gradient; of a range, where it is what holds
        rows, cols, _ = s.alone
        if len(rows):
            own = program.a[rows]
            y[rows] = z[cols] / own.data
            z -= own.T @ y[rows]
        rows, cols, _ = s.bounding
        if len(rows):
            own = program.g[rows]
            sides = np.sort(np.stack([program.l[rows] / own.data, program.u[rows] / own.data]), axis=0)
            holds = np.where(z[cols] > 0, sides[0] >= program.lb[cols], sides[1] <= program.ub[cols])
            w[rows] = np.where(holds, z[cols] / own.data, 0.0)
            z -= own.T @ w[rows]
        return Solution(x, y, w, mu, z, status, "native", iterations, seconds, message, nu, kappa, zeta)


def _may_be_tight(program: Program) -> np.ndarray:
    """Cones ``sum a^2 <= u v`` whose u and v are both variable: currents of branches."""
    p = program.products
    return np.asarray(~p.equality & (np.diff(p.u.indptr) > 0) & (np.diff(p.v.indptr) > 0))


def _tightened(program: Program, held: np.ndarray) -> Program:
    """The program with some of its cones as equalities."""
    products = dataclasses.replace(program.products, equality=program.products.equality | held)
    return dataclasses.replace(program, products=products)


__all__ = ["NativeSession"]
