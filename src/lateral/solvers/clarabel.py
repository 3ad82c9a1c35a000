"""Clarabel: linear, quadratic, second-order cone and semidefinite programs, by its direct interface.

Clarabel (Goulart and Chen, 2024) solves ``min 1/2 x'Px + q'x, A x + s = b, s in K``. Its rows here are, in this order:

    zero cone          A x = b;  fixed variables;  rows with l = u
    nonnegative cone   ub, lb, u, l: each where finite
    second-order cones one per product row, s = (u + v, 2 a, u - v), which is  sum a^2 <= u v,  u + v >= 0
    psd triangles      one per semidefinite row: the upper triangle column by column, what is beside the diagonal
                       times sqrt(2), so that products of vectors are those of the matrices

**Dual of a product row.** With z the dual of s, stationarity reads grad f = z0 (gu + gv) + 2 za.ga + zl (gu - gv).
Ours reads mu (2 a.ga - v gu - u gv). At the optimum z lies on the ray t (u + v, -2 a, v - u), so mu = -2 t; t is the
projection of z on that ray.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
import scipy.sparse as sp

from lateral.errors import OptionError
from lateral.network.schema import FloatArray, IntArray
from lateral.program import ProblemClass, ProductRows, Program, ScaledProgram
from lateral.solvers.base import (
    Options,
    Session,
    Solution,
    Solver,
    Status,
    check_pattern,
    interrupts,
    no_point,
    pattern_of,
    unscaled_solution,
)
from lateral.solvers.central_path import SMALL_OBJECTIVE, Conic, Followed, Point, follow, inside, slopes
from lateral.solvers.cones import Cones
from lateral.solvers.substitution import Substitution


def _cost_factor(program: Program) -> float:
    """What the costs of a program are multiplied by.

    In solver scale the largest cost is 1, so the multipliers of a large feeder's branches are far below 1; larger
    costs lift them out of the regularisation (measured on 2500 buses by 24 steps: gap 5e-7; with 100, 12e-7).
    """
    return max(100.0, program.n / 100.0)


#: Of a semidefinite program: factor of the costs, regularisation, and longest step as a share of that to the boundary.
MATRIX_COSTS, MATRIX_REGULARISATION, MATRIX_STEP = 10.0, 3e-8, 0.9
#: Gap, relative, to which the central path is followed where Clarabel stops before its tolerance: with matrices, and
#: without.
FOLLOWED_GAP, FOLLOWED_GAP_CONES = 1e-7, 2e-8
#: Steps along the central path at most from the point of the solve before, and the shortest one: where costs have
#: moved too far for that, Clarabel is sooner there.
GO_ON, GO_ON_LEAST = 10, 0.1
#: Gap, relative, that is good enough without matrices.
_GOOD_GAP = 8e-7


_STATUS = {
    "Solved": Status.OPTIMAL,
    "AlmostSolved": Status.INACCURATE,
    # these come with the best point so far; the residuals say what it is worth
    "InsufficientProgress": Status.INACCURATE,
    "NumericalError": Status.INACCURATE,
    "PrimalInfeasible": Status.INFEASIBLE,
    "DualInfeasible": Status.UNBOUNDED,
    "MaxIterations": Status.LIMIT_REACHED,
    "MaxTime": Status.LIMIT_REACHED,
    # "almost" a certificate is none
    "AlmostPrimalInfeasible": Status.ERROR,
    "AlmostDualInfeasible": Status.ERROR,
}
#: Words that come with a point short of the tolerance.
_STOPPED = frozenset(word for word, status in _STATUS.items() if status is Status.INACCURATE)
#: Words of a stop in rounding, however far from the optimum.
_ROUNDING = ("NumericalError", "InsufficientProgress")

DEFAULT_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class ClarabelOptions(Options):
    """Options of Clarabel.

    Attributes:
        centred: end at the point of the central path at `FOLLOWED_GAP` (`FOLLOWED_GAP_CONES`) however accurate Clarabel
            was, and begin at that of the solve before where the rows are the same. What is found is then a smooth
            function of the costs, and does not hold how far Clarabel happened to get (`lateral.areas`).
        gap: another gap, relative, to end at where that is asked for.
        follow_after: follow the central path from where Clarabel is after so many iterations, at least 1, or after
            ``max_iterations`` where that is less; None for where it stops.

    Raises:
        OptionError: a ``follow_after`` below 1.
    """

    tolerance: float | None = DEFAULT_TOLERANCE
    max_iterations: int | None = 200
    centred: bool = False
    gap: float | None = None
    follow_after: int | None = None

    def __post_init__(self) -> None:
        if self.follow_after is not None and self.follow_after < 1:
            message = f"follow_after is {self.follow_after}; allowed: a number of iterations from 1 on, or None"
            raise OptionError(message)


@final
class ClarabelSolver(Solver):
    """Clarabel, in process."""

    name: ClassVar[str] = "clarabel"
    accepts: ClassVar[frozenset[ProblemClass]] = frozenset(
        {ProblemClass.LP, ProblemClass.QP, ProblemClass.SOCP, ProblemClass.SDP}
    )

    def __init__(self, options: ClarabelOptions | None = None) -> None:
        super().__init__(options or ClarabelOptions())

    def _start(self, program: Program) -> Session:
        assert isinstance(self.options, ClarabelOptions)
        return _ClarabelSession(program, self.options)


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """Which bounds are rows, and of which cone; a change of it needs a new solver."""

    fixed: IntArray
    upper: IntArray
    lower: IntArray
    row_fixed: IntArray
    row_upper: IntArray
    row_lower: IntArray

    @classmethod
    def of(cls, s: ScaledProgram) -> _Sides:
        fixed, row_fixed = s.lb == s.ub, s.l == s.u
        return cls(
            np.flatnonzero(fixed),
            np.flatnonzero(np.isfinite(s.ub) & ~fixed),
            np.flatnonzero(np.isfinite(s.lb) & ~fixed),
            np.flatnonzero(row_fixed),
            np.flatnonzero(np.isfinite(s.u) & ~row_fixed),
            np.flatnonzero(np.isfinite(s.l) & ~row_fixed),
        )

    def same(self, other: _Sides) -> bool:
        return all(np.array_equal(getattr(self, f), getattr(other, f)) for f in self.__slots__)


@final
class _ClarabelSession(Session):
    def __init__(self, program: Program, options: ClarabelOptions) -> None:
        import clarabel

        self._lib: Any = clarabel
        self._options, self._centred = options, options.centred
        #: whether no looser tolerance was asked for than the usual one
        self._to_the_end = (options.tolerance or DEFAULT_TOLERANCE) <= DEFAULT_TOLERANCE
        #: the conic program of the last solve, and its point of the central path
        self._before: tuple[Conic, Point] | None = None
        #: the last solve's program, and of what its point is without variables that follow
        self._last: tuple[Program, Substitution | None] | None = None
        self._settings: Any = clarabel.DefaultSettings()
        self._pattern = pattern_of(program)
        self._following: Substitution | None = None
        self._solver: Any = None
        self._sides: _Sides | None = None
        self._data: tuple[sp.csc_array, sp.csc_array] | None = None
        s = self._settings
        s.verbose = options.verbose
        # infinite bounds are left out here; with its own presolve Clarabel would refuse new data
        s.presolve_enable = False
        # the matrices are small and dense already
        s.chordal_decomposition_enable = False
        # A program comes scaled, and refining each step of its factors took 30 to 45 % of the time and brought nothing
        # at the default tolerance (128 to 2500 buses); a second, tighter try has it.
        s.iterative_refinement_enable = (options.tolerance or DEFAULT_TOLERANCE) < DEFAULT_TOLERANCE
        if program.semidefinite.n_rows:
            s.iterative_refinement_enable = True
            s.iterative_refinement_max_iter, s.iterative_refinement_stop_ratio = 50, 1.5
            s.static_regularization_constant, s.max_step_fraction = MATRIX_REGULARISATION, MATRIX_STEP
        if _costs_are_quadratic(program):
            # Nothing but r (P^2 + Q^2): most entries of Q are far below the usual regularisation of 1e-8, and with it
            # `loss` ended at the iteration limit on ieee13 and ieee123 (gap 1e-4; with these two 32 iterations, 1e-8).
            # Under linear costs the smaller one does harm.
            s.iterative_refinement_enable = True
            s.static_regularization_constant = 1e-9
        if not (program.products.n_rows or program.semidefinite.n_rows) and s.iterative_refinement_enable:
            # without cones: prices of an area beside heavy penalties (gap 7e-6 with 1e-8, however tight the tolerance)
            s.static_regularization_constant = 1e-9
        if options.centred and not program.semidefinite.n_rows:
            # Cones beside penalties of borders: an area of ieee13 (`soc3`, a limit of unbalance) ended almost solved,
            # at a gap of 1e-5 to 4e-4, and Ipopt had to follow. With these two it is solved, in 22 iterations, not 60.
            s.iterative_refinement_enable = True
            s.static_regularization_constant = 1e-9
        if options.tolerance is not None:
            s.tol_feas = s.tol_gap_abs = s.tol_gap_rel = options.tolerance
            # below this it says "almost solved": inaccurate until the residuals earn it
            s.reduced_tol_feas = s.reduced_tol_gap_abs = s.reduced_tol_gap_rel = max(1e-6, options.tolerance)
        if options.max_iterations is not None:
            s.max_iter = options.max_iterations
        self._settle_for(options)
        self._early = options.follow_after
        if self._early is not None:
            s.max_iter = min(self._early, s.max_iter)
        self._time_limit = options.time_limit_s
        if options.time_limit_s is not None:
            s.time_limit = options.time_limit_s

    def solve(self, program: Program, warm: Solution | None = None) -> Solution:
        """Solve; new data keeps the ordering of the factors. Clarabel has no warm start, ``warm`` is not used."""
        check_pattern(program, self._pattern)
        start = time.perf_counter()
        whole = program.scaled()
        self._following = following = Substitution.of(program, whole, self._following)
        self._last = (program, following)
        scaled = whole if following is None else following.smaller(whole)
        sides = _Sides.of(scaled)
        factor = MATRIX_COSTS if program.semidefinite.n_rows else _cost_factor(program)
        a, b = _rows(scaled, sides)
        when = _steps(program)
        when = when if following is None else when[following.other_cols]
        conic = _conic(scaled, sides, a, b, program.objective_floor * program.objective_scale, when)
        if self._before is not None:
            gone_on = self._gone_on(scaled, conic, start, self._before)
            if gone_on.reached:
                return self._read(program, following, scaled, sides, "Solved", gone_on.steps, gone_on.point, start)
        p, q = sp.csc_array(sp.triu(scaled.q)) * factor, scaled.c * factor
        if self._solver is not None and self._sides is not None and sides.same(self._sides) and self._fits(p, a):
            self._solver.update(P=sp.csc_matrix(p), q=q, A=sp.csc_matrix(a), b=b)
        else:
            self._solver = self._made(scaled, sides, p, q, a, b)
        self._sides, self._data = sides, (p, a)
        raw = self._run()
        point = Point(np.array(raw.x), np.array(raw.s), np.array(raw.z) / factor)
        # A program comes scaled. Scaled again by Clarabel, rounds of `linearised` on IEEE 34 x 24 stopped in rounding
        # after 2 to 17 iterations, and the central path took 6 to 24 steps from there; as they came they take 16.
        plain = self._settings.equilibrate_enable and not program.semidefinite.n_rows
        if plain and str(raw.status) in _ROUNDING and time.perf_counter() < self._until(start):
            self._settings.equilibrate_enable = False
            if self._time_limit is not None:  # what is left of it
                self._settings.time_limit = self._until(start) - time.perf_counter()
            self._solver = self._made(scaled, sides, p, q, a, b)
            again = self._run()
            other = Point(np.array(again.x), np.array(again.s), np.array(again.z) / factor)
            if str(again.status) == "Solved" or _gap_at(conic, other) < _gap_at(conic, point):
                raw, point = again, other
            else:  # nor do later solves go without
                self._settings.equilibrate_enable, self._solver = True, None
            if self._time_limit is not None:  # later solves have all of it
                self._settings.time_limit, self._solver = self._time_limit, None
        word = str(raw.status)
        if self._early is not None and word == "MaxIterations":  # where it was asked to stop
            word = "AlmostSolved"
        notes: tuple[str, ...] = ()
        # Clarabel's gap is relative to an objective without its constant: of squares of a deviation far too large
        solved = word == "Solved" and (self._centred or (self._to_the_end and program.semidefinite.n_rows))
        if (word in _STOPPED or solved) and np.all(np.isfinite(point.x)):
            point, notes = self._followed(scaled, conic, point, start)
        solution = self._read(program, following, scaled, sides, word, int(raw.iterations), point, start)
        return replace(solution, notes=notes)

    def _made(
        self, s: ScaledProgram, sides: _Sides, p: sp.csc_array, q: FloatArray, a: sp.csc_array, b: FloatArray
    ) -> Any:
        """Clarabel's solver of a program."""
        cones = self._cones(s, sides)
        return self._lib.DefaultSolver(sp.csc_matrix(p), q, sp.csc_matrix(a), b, cones, self._settings)

    def _run(self) -> Any:
        """Solve, until done or Ctrl-C."""
        with interrupts() as interrupt:
            self._solver.set_termination_callback(lambda _info: interrupt.pressed)
            return self._solver.solve()

    def _gone_on(self, s: ScaledProgram, program: Conic, start: float, before: tuple[Conic, Point]) -> Followed:
        """The point of the central path from that of the last solve; not reached where rows are others, or where it is
        too far away."""
        found = Followed(before[1], 0, reached=False)
        if before[0].same_rows(program):
            until = self._until(start)
            found = follow(program, before[1], self._goal(s), iterations=GO_ON, until=until, least=GO_ON_LEAST)
        self._before = (program, found.point) if found.reached else None
        return found

    def _followed(self, s: ScaledProgram, program: Conic, point: Point, start: float) -> tuple[Point, tuple[str, ...]]:
        """The point of the central path at `FOLLOWED_GAP`, or the best on the way there, and a note; where that is not
        asked for and no better, the point as it is."""
        gap, goal = program.gap(point), self._goal(s)
        if not self._centred and gap <= (goal if len(s.semidefinite.dims) else _GOOD_GAP):
            return point, ()
        found = follow(program, point, goal, until=self._until(start))
        if self._centred and not found.reached and gap < goal:
            # it went on to next to the optimum, from where the point of a larger gap may be too far
            found = follow(program, inside(program, point, goal), goal, until=self._until(start))
        if self._centred and found.reached:
            self._before = program, found.point
        elif self._centred or not program.gap(found.point) < gap:
            return point, ()
        steps = f"{found.steps} steps along the central path from there"
        return found.point, (f"clarabel: stopped at a gap of {gap:.1e}; {steps}",)

    def _goal(self, s: ScaledProgram) -> float:
        """The gap to which the central path is followed."""
        return _gap_of(s) if self._options.gap is None else self._options.gap

    def takes(self, options: Options | None) -> bool:
        """See `Session.takes`: another gap."""
        if not isinstance(options, ClarabelOptions) or replace(options, gap=self._options.gap) != self._options:
            return False
        self._options = options
        self._settle_for(options)
        return True

    def _settle_for(self, options: ClarabelOptions) -> None:
        """Let Clarabel stop where the central path is to be followed from."""
        if options.tolerance is None:
            return
        least, s = max(options.tolerance, options.gap or 0.0), self._settings
        s.tol_gap_rel, s.tol_feas = least, max(options.tolerance, min(least, 1e-6))
        self._solver = None

    def slopes(self, columns: sp.csc_array) -> tuple[FloatArray, FloatArray] | None:
        """See `Session.slopes`: of the point of the central path, where the last solve ended at one."""
        if self._before is None or self._last is None:
            return None
        (conic, point), (program, following) = self._before, self._last
        costs = sp.csr_array(sp.diags_array(program.col_scale * program.objective_scale) @ columns)
        if following is not None:
            costs = costs[following.other_cols] - following.through.T @ costs[following.cols]
        try:
            found = slopes(conic, point, sp.csc_array(costs))
        except (np.linalg.LinAlgError, RuntimeError):
            return None
        found = found[0] / program.objective_scale, found[1] / program.objective_scale
        return found if all(np.all(np.isfinite(part)) for part in found) else None

    def _until(self, start: float) -> float:
        """Time of `time.perf_counter` at which a solve that began then is to end."""
        return np.inf if self._time_limit is None else start + self._time_limit

    def _fits(self, p: sp.csc_array, a: sp.csc_array) -> bool:
        """Whether the patterns are those of the solver that exists."""
        if self._data is None:
            return False
        return all(
            np.array_equal(new.indptr, old.indptr) and np.array_equal(new.indices, old.indices)
            for new, old in zip((p, a), self._data, strict=True)
        )

    def _cones(self, s: ScaledProgram, sides: _Sides) -> list[Any]:
        lib = self._lib
        zero = len(s.b) + len(sides.fixed) + len(sides.row_fixed)
        nonneg = len(sides.upper) + len(sides.lower) + len(sides.row_upper) + len(sides.row_lower)
        cones = [lib.ZeroConeT(zero)] if zero else []
        cones += [lib.NonnegativeConeT(nonneg)] if nonneg else []
        sizes = 2 + np.bincount(s.products.a_row, minlength=s.products.n_rows)
        cones += [lib.SecondOrderConeT(int(size)) for size in sizes]
        return cones + [lib.PSDTriangleConeT(int(dim)) for dim in s.semidefinite.dims]

    def _read(
        self,
        program: Program,
        following: Substitution | None,
        s: ScaledProgram,
        sides: _Sides,
        word: str,
        iterations: int,
        point: Point,
        start: float,
    ) -> Solution:
        status = _STATUS.get(word, Status.ERROR)
        x, z = point.x, point.z
        if status in (Status.INFEASIBLE, Status.UNBOUNDED) or not np.all(np.isfinite(x)):
            return no_point(
                program,
                status=status,
                solver="clarabel",
                iterations=iterations,
                seconds=time.perf_counter() - start,
                message=word,
            )
        # d(min)/d(b) is -z in Clarabel's sign; the rows of lower sides are negated, so there it is +z
        groups = (sides.fixed, sides.row_fixed, sides.upper, sides.lower, sides.row_upper, sides.row_lower)
        ends = np.cumsum([len(s.b)] + [len(group) for group in groups])
        y = -z[: ends[0]]
        w = np.zeros(len(s.l))
        w[sides.row_fixed] = -z[ends[1] : ends[2]]
        w[sides.row_upper] -= z[ends[4] : ends[5]]
        w[sides.row_lower] += z[ends[5] : ends[6]]
        solution = unscaled_solution(
            program,
            x=x if following is None else following.point(x),
            y=y if following is None else following.duals(y),
            w=w,
            mu=_product_dual(s.products, x, z[ends[6] :]),
            zeta=z[len(z) - len(s.semidefinite.m0) :] / np.sqrt(s.semidefinite.twice),
            status=status,
            solver="clarabel",
            iterations=iterations,
            seconds=time.perf_counter() - start,
            message=word,
        )
        return solution if following is None else following.completed(program, solution)


def _gap_of(s: ScaledProgram) -> float:
    """The gap to which the central path is followed."""
    return FOLLOWED_GAP if len(s.semidefinite.dims) else FOLLOWED_GAP_CONES


def _steps(program: Program) -> IntArray:
    """Step of each variable, -1 of those that have none."""
    out = np.full(program.n, -1)
    for block in program.variables:
        if block.at is not None:
            out[block.cells] = block.at[1]
        elif block.n_steps > 1:
            out[block.cells] = np.tile(np.arange(block.n_steps), len(block.elements))
    return out


def _conic(s: ScaledProgram, sides: _Sides, a: sp.csc_array, b: FloatArray, floor: float, steps: IntArray) -> Conic:
    """The program as it is followed along its central path, with costs as they are, and the floor of its objective."""
    zeros = len(s.b) + len(sides.fixed) + len(sides.row_fixed)
    linear = len(sides.upper) + len(sides.lower) + len(sides.row_upper) + len(sides.row_lower)
    sizes = 2 + np.bincount(s.products.a_row, minlength=s.products.n_rows)
    cones = Cones.of(zeros, linear, sizes.tolist(), s.semidefinite.dims.tolist())
    least = max(floor, SMALL_OBJECTIVE)
    return Conic(sp.csc_array(s.q), s.c, sp.csr_array(a), b, cones, s.c0, least, steps if np.any(steps > 0) else None)


def _gap_at(program: Conic, point: Point) -> float:
    """The gap of a point; infinite where the point is none."""
    gap = program.gap(point)
    return gap if np.isfinite(gap) else np.inf


def _costs_are_quadratic(program: Program) -> bool:
    """Whether the linear costs are next to nothing beside the quadratic ones (scaled, the largest of both is 1)."""
    linear = float(np.max(np.abs(program.c * program.col_scale), initial=0.0)) * program.objective_scale
    return program.q.nnz > 0 and linear < 1e-3


def _rows(s: ScaledProgram, sides: _Sides) -> tuple[sp.csc_array, FloatArray]:
    """Matrix and right-hand side of the rows in the module's order; the pattern depends on patterns only."""
    n, p = len(s.c), s.products
    parts: list[tuple[IntArray, IntArray, FloatArray]] = []
    size = 0

    def add(rows: IntArray, cols: IntArray, values: FloatArray, count: int) -> None:
        nonlocal size
        parts.append((rows + size, cols, values))
        size += count

    def unit(cols: IntArray, sign: float) -> None:
        add(np.arange(len(cols)), cols, np.full(len(cols), sign), len(cols))

    def some(rows: IntArray, sign: float) -> None:
        taken = sp.csr_array(s.g[rows])
        add(_row_of(taken), taken.indices, sign * taken.data, len(rows))

    add(_row_of(s.a), s.a.indices, s.a.data, len(s.b))
    unit(sides.fixed, 1.0)
    some(sides.row_fixed, 1.0)
    unit(sides.upper, 1.0)
    unit(sides.lower, -1.0)
    some(sides.row_upper, 1.0)
    some(sides.row_lower, -1.0)

    head, tail, middle = _cone_places(p)
    cone_rows = len(head) * 2 + len(middle)
    offset = np.zeros(cone_rows)
    offset[head], offset[tail], offset[middle] = p.u0 + p.v0, p.u0 - p.v0, 2.0 * p.a0
    ru, rv, ra = _row_of(p.u), _row_of(p.v), _row_of(p.a)
    add(
        np.concatenate([head[ru], head[rv], tail[ru], tail[rv], middle[ra]]),
        np.concatenate([p.u.indices, p.v.indices, p.u.indices, p.v.indices, p.a.indices]),
        -np.concatenate([p.u.data, p.v.data, p.u.data, -p.v.data, 2.0 * p.a.data]),
        cone_rows,
    )
    # sqrt(2) beside the diagonal
    root = np.sqrt(s.semidefinite.twice)
    entry = _row_of(s.semidefinite.m)
    add(entry, s.semidefinite.m.indices, -s.semidefinite.m.data * root[entry], len(root))
    matrix = sp.coo_array(
        (
            np.concatenate([part[2] for part in parts]),
            (np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])),
        ),
        shape=(size, n),
    ).tocsc()
    matrix.sum_duplicates()
    sides_b = [s.ub[sides.fixed], s.u[sides.row_fixed], s.ub[sides.upper], -s.lb[sides.lower]]
    return matrix, np.concatenate(
        [s.b, *sides_b, s.u[sides.row_upper], -s.l[sides.row_lower], offset, s.semidefinite.m0 * root]
    )


def _row_of(matrix: sp.csr_array) -> IntArray:
    """Row of every stored entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _cone_places(p: ProductRows) -> tuple[IntArray, IntArray, IntArray]:
    """Places of ``u + v`` and ``u - v`` of each product row, and of each ``2 a_k``, among the cone rows."""
    counts = np.bincount(p.a_row, minlength=p.n_rows)
    ends = np.cumsum(2 + counts)
    head = ends - (2 + counts)
    order = np.argsort(p.a_row, kind="stable")
    before = np.cumsum(counts) - counts
    middle = np.empty(len(p.a_row), dtype=np.int64)
    middle[order] = head[p.a_row[order]] + 1 + np.arange(len(order)) - before[p.a_row[order]]
    return head, ends - 1, middle


def _product_dual(p: ProductRows, x: FloatArray, z: FloatArray) -> FloatArray:
    """mu of each product row: see the module's text."""
    if not p.n_rows:
        return np.zeros(0)
    head, tail, middle = _cone_places(p)
    a, u, v = p.a @ x + p.a0, p.u @ x + p.u0, p.v @ x + p.v0
    dot = z[head] * (u + v) + z[tail] * (v - u)
    dot -= np.bincount(p.a_row, weights=2.0 * a * z[middle], minlength=p.n_rows)
    norm = (u + v) ** 2 + (v - u) ** 2 + np.bincount(p.a_row, weights=4.0 * a**2, minlength=p.n_rows)
    # at the tip of the cone (all zero) no multiplier of the product exists
    return np.asarray(-2.0 * dot / np.where(norm > 0.0, norm, np.inf))
