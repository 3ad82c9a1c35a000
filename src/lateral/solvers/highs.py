"""HiGHS: linear programs (simplex or interior point) and small convex quadratic programs.

HiGHS (Huangfu and Hall, 2018) counts duals as we do: row dual = d(minimum) / d(right-hand side). Its quadratic solver
is an active-set method, right and slow; `auto` gives quadratic programs to Clarabel.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import scipy.sparse as sp

from lateral.network.schema import FloatArray
from lateral.program import ProblemClass, Program, ScaledProgram
from lateral.solvers.base import (
    Options,
    Session,
    Solution,
    Solver,
    Status,
    check_pattern,
    no_point,
    pattern_of,
    unscaled_solution,
)

#: Above this many variables the interior-point method beats the dual simplex method (measured: the simplex is faster
#: at 100 000 variables, half as fast at 250 000).
_IPM_FROM = 150_000


@dataclass(frozen=True, slots=True)
class HighsOptions(Options):
    """Options of HiGHS.

    Attributes:
        method: ``simplex``, ``ipm`` (no crossover), or empty: by size.
    """

    tolerance: float | None = 1e-9
    method: str = ""


@final
class HighsSolver(Solver):
    """HiGHS, in process, for linear programs; its quadratic method was seen not to return, so it is not offered."""

    name: ClassVar[str] = "highs"
    accepts: ClassVar[frozenset[ProblemClass]] = frozenset({ProblemClass.LP})

    def __init__(self, options: HighsOptions | None = None) -> None:
        super().__init__(options or HighsOptions())
        self._highs_options = options or HighsOptions()

    def _start(self, program: Program) -> Session:
        return _HighsSession(program, self._highs_options)


@final
class _HighsSession(Session):
    def __init__(self, program: Program, options: HighsOptions) -> None:
        import highspy

        self._lib: Any = highspy
        self._options = options
        self._pattern = pattern_of(program)
        self._highs: Any = _instance(highspy, verbose=options.verbose)
        #: matrices of the model that HiGHS holds; bounds and costs are changed in place, these are not
        self._held: tuple[FloatArray, ...] = ()
        self._configure(program)

    def _configure(self, program: Program) -> None:
        o, h = self._options, self._highs
        h.setOptionValue("output_flag", o.verbose)
        h.HandleKeyboardInterrupt = True
        if o.tolerance is not None:
            for name in ("primal_feasibility_tolerance", "dual_feasibility_tolerance", "ipm_optimality_tolerance"):
                h.setOptionValue(name, max(o.tolerance, 1e-10))
        if o.max_iterations is not None:
            for name in ("simplex_iteration_limit", "ipm_iteration_limit"):
                h.setOptionValue(name, o.max_iterations)
        method = o.method or ("ipm" if program.n > _IPM_FROM else "simplex")
        h.setOptionValue("solver", method)
        # a restart from a basis computes a steepest-edge weight per row first (2.3 s at 75 000 rows, against .05 s
        # in all with Devex weights and without its own scaling, the program being scaled); a cold solve is as fast
        h.setOptionValue("simplex_dual_edge_weight_strategy", 1)
        h.setOptionValue("simplex_scale_strategy", 0)
        # a vertex is not needed; crossover took 4 times the solve itself
        h.setOptionValue("run_crossover", "off")

    def solve(self, program: Program, warm: Solution | None = None) -> Solution:
        """Solve; an updated program starts from the basis that the session holds."""
        check_pattern(program, self._pattern)
        start = time.perf_counter()
        s = program.scaled()
        held = (program.a.data, program.g.data)
        same = len(self._held) == len(held) and all(
            new is old or np.array_equal(new, old) for new, old in zip(held, self._held, strict=True)
        )
        if same:
            self._change(s)
        else:
            basis = self._highs.getBasis() if self._held else None
            self._pass(s)
            self._held = held
            if basis is not None and basis.valid:
                self._highs.setBasis(basis)
        if self._options.time_limit_s is not None:
            # the limit is per solve, the clock of HiGHS per object
            self._highs.setOptionValue("time_limit", self._highs.getRunTime() + self._options.time_limit_s)
        self._highs.solve()
        return self._read(program, time.perf_counter() - start)

    def _rows(self, s: ScaledProgram) -> tuple[FloatArray, FloatArray]:
        return np.concatenate([s.b, s.l]), np.concatenate([s.b, s.u])

    def _change(self, s: ScaledProgram) -> None:
        n, m = len(s.c), len(s.b) + len(s.l)
        lower, upper = self._rows(s)
        self._highs.changeColsCost(n, np.arange(n, dtype=np.int32), s.c)
        self._highs.changeColsBounds(n, np.arange(n, dtype=np.int32), s.lb, s.ub)
        if m:
            self._highs.changeRowsBounds(m, np.arange(m, dtype=np.int32), lower, upper)
        self._highs.changeObjectiveOffset(s.c0)

    def _pass(self, s: ScaledProgram) -> None:
        n, m = len(s.c), len(s.b) + len(s.l)
        lower, upper = self._rows(s)
        rows = sp.csr_array(sp.vstack([s.a, s.g])) if m else sp.csr_array((0, n))
        lib = self._lib
        self._highs.passModel(
            n,
            m,
            rows.nnz,
            0,
            int(lib.MatrixFormat.kRowwise),
            int(lib.HessianFormat.kTriangular),
            int(lib.ObjSense.kMinimize),
            s.c0,
            s.c,
            s.lb,
            s.ub,
            lower,
            upper,
            rows.indptr.astype(np.int32),
            rows.indices.astype(np.int32),
            rows.data,
            np.zeros(n + 1, dtype=np.int32),
            np.zeros(0, dtype=np.int32),
            np.zeros(0),
            np.zeros(n, dtype=np.int32),
        )

    def _read(self, program: Program, seconds: float) -> Solution:
        h, kind = self._highs, self._lib.HighsModelStatus
        model_status = h.getModelStatus()
        if model_status in (kind.kInterrupt, kind.kHighsInterrupt):
            raise KeyboardInterrupt
        status = {
            kind.kOptimal: Status.OPTIMAL,
            kind.kModelEmpty: Status.OPTIMAL,
            kind.kInfeasible: Status.INFEASIBLE,
            kind.kUnbounded: Status.UNBOUNDED,
            kind.kUnboundedOrInfeasible: Status.ERROR,
            kind.kIterationLimit: Status.LIMIT_REACHED,
            kind.kTimeLimit: Status.LIMIT_REACHED,
            kind.kUnknown: Status.INACCURATE,
        }.get(model_status, Status.ERROR)
        info = h.getInfo()
        counts = (info.simplex_iteration_count, info.ipm_iteration_count)
        iterations = sum(max(0, int(count)) for count in counts)
        message = h.modelStatusToString(model_status)
        solution = h.getSolution()
        if not (solution.value_valid and solution.dual_valid) or status in (Status.INFEASIBLE, Status.UNBOUNDED):
            if status in (Status.OPTIMAL, Status.INACCURATE):
                status = Status.ERROR
            return no_point(
                program, status=status, solver="highs", iterations=iterations, seconds=seconds, message=message
            )
        dual = np.array(solution.row_dual)
        m = len(program.b)
        return unscaled_solution(
            program,
            x=np.array(solution.col_value),
            y=dual[:m],
            w=dual[m:],
            mu=np.zeros(program.products.n_rows),
            status=status,
            solver="highs",
            iterations=iterations,
            seconds=seconds,
            message=message,
        )


def _instance(lib: Any, *, verbose: bool) -> Any:
    """An instance of HiGHS that is silent from the start, unless ``verbose``.

    The constructor of highspy 1.16 enables callbacks, and the first in a process prints two lines there, before
    anybody outside can set an option.
    """

    class Highs(lib.Highs):  # type: ignore[misc]
        def enableCallbacks(self) -> None:
            self.setOptionValue("output_flag", verbose)
            super().enableCallbacks()

    return Highs()
