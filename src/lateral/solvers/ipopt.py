"""Ipopt out of the CasADi wheel, by its C interface: every class, and the exact (non-convex) model.

Ipopt (Waechter and Biegler, 2006) asks for functions and derivatives at a point. A `Program` needs no automatic
differentiation for that: rows ``A x``, ``G x``, ``sum a^2 - u v`` and ``sum f g + w`` have constant patterns, their
Jacobian is linear in x, and the Hessian of the Lagrangian is linear in the multipliers:

    H = sigma Q + sum_i lambda_i (2 sum_k a_k a_k' - u_i v_i' - v_i u_i')
                + sum_i lambda_i sum_k (f_k g_k' + g_k f_k') - sum_i lambda_i phi_i''(z_i) e_z e_z'    (lower triangle)

so it is one precomputed sparse matrix times the vector of multipliers (those of curves times their second
derivative). The CasADi package is only where the shared library lies; none of its modelling is used.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import scipy.sparse as sp

from lateral.errors import Fault, UnsupportedError
from lateral.network.schema import FloatArray, IntArray
from lateral.program import ProblemClass, Program, ScaledProgram
from lateral.solvers.base import (
    Interrupt,
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

_STATUS = {
    0: (Status.OPTIMAL, "solve succeeded"),
    1: (Status.INACCURATE, "solved to acceptable level"),
    2: (Status.LOCALLY_INFEASIBLE, "converged to a point of local infeasibility"),
    3: (Status.INACCURATE, "search direction becomes too small"),
    4: (Status.UNBOUNDED, "diverging iterates"),
    5: (Status.LIMIT_REACHED, "stopped by the user"),
    6: (Status.INACCURATE, "feasible point found"),
    -1: (Status.LIMIT_REACHED, "maximum iterations exceeded"),
    -2: (Status.INACCURATE, "restoration failed"),
    -3: (Status.INACCURATE, "error in step computation"),
    -4: (Status.LIMIT_REACHED, "maximum CPU time exceeded"),
    -5: (Status.LIMIT_REACHED, "maximum wall time exceeded"),
    -10: (Status.ERROR, "not enough degrees of freedom"),
    -11: (Status.ERROR, "invalid problem definition"),
    -12: (Status.ERROR, "invalid option"),
    -13: (Status.ERROR, "invalid number detected"),
    -102: (Status.ERROR, "insufficient memory"),
}

#: Ipopt's words for a point whose violation cannot be made smaller nearby, and for one that has none.
_NO_SMALLER_VIOLATION, _FEASIBLE = 2, 6
#: Violation, in solver scale, below which a point has none where no tolerance is given: Ipopt's own tolerance.
_NO_VIOLATION = 1e-8
_INF = 1e20
_DOUBLES = ctypes.POINTER(ctypes.c_double)
_INTS = ctypes.POINTER(ctypes.c_int)
_I, _B, _D, _P = ctypes.c_int, ctypes.c_bool, ctypes.c_double, ctypes.c_void_p
_EVAL_F = ctypes.CFUNCTYPE(_B, _I, _DOUBLES, _B, _DOUBLES, _P)
_EVAL_GRAD = ctypes.CFUNCTYPE(_B, _I, _DOUBLES, _B, _DOUBLES, _P)
_EVAL_G = ctypes.CFUNCTYPE(_B, _I, _DOUBLES, _B, _I, _DOUBLES, _P)
_EVAL_JAC = ctypes.CFUNCTYPE(_B, _I, _DOUBLES, _B, _I, _I, _INTS, _INTS, _DOUBLES, _P)
_EVAL_H = ctypes.CFUNCTYPE(_B, _I, _DOUBLES, _B, _D, _I, _DOUBLES, _B, _I, _INTS, _INTS, _DOUBLES, _P)
_STEP = ctypes.CFUNCTYPE(_B, _I, _I, _D, _D, _D, _D, _D, _D, _D, _D, _I, _P)

#: A warm start that has not converged after as many iterations as a cold one takes is given up for a cold one.
_WARM_ITERATIONS = 25

#: MUMPS keeps state of the process; two solves at once in one process would share it.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class IpoptOptions(Options):
    """Options of Ipopt.

    Attributes:
        linear_solver: ``mumps`` comes with the wheel; ``ma27``, ``ma57`` and others need the user's own library.
    """

    tolerance: float | None = 1e-9
    max_iterations: int | None = 500
    linear_solver: str = "mumps"


@final
class IpoptSolver(Solver):
    """Ipopt, in process."""

    name: ClassVar[str] = "ipopt"
    accepts: ClassVar[frozenset[ProblemClass]] = frozenset(
        {ProblemClass.LP, ProblemClass.QP, ProblemClass.SOCP, ProblemClass.NLP}
    )

    def __init__(self, options: IpoptOptions | None = None) -> None:
        super().__init__(options or IpoptOptions())
        self._ipopt_options = options or IpoptOptions()

    def _start(self, program: Program) -> Session:
        return _IpoptSession(program, self._ipopt_options)


@final
class _IpoptSession(Session):
    def __init__(self, program: Program, options: IpoptOptions) -> None:
        self._lib = _library()
        self._options = options
        self._pattern = pattern_of(program)
        self._structure: _Structure | None = None

    def solve(self, program: Program, warm: Solution | None = None) -> Solution:
        """Solve; patterns are kept between programs, ``warm`` starts primal and dual.

        A warm start is fast near the old solution (5 iterations for 25) and slow far from it (115 for 24), so it gets
        a limit of its own, after which the solve starts cold. Iterations are those of both.
        """
        check_pattern(program, self._pattern)
        start = time.perf_counter()
        s = program.scaled()
        if self._structure is None or not self._structure.fits(program):
            self._structure = _Structure(program, s)
        code, x, lam, iterations = self._attempts(program, s, warm)
        status, message = _STATUS.get(code, (Status.ERROR, f"code {code}"))
        seconds = time.perf_counter() - start
        if not (np.all(np.isfinite(x)) and np.all(np.isfinite(lam))):
            return no_point(
                program,
                status=Status.ERROR,
                solver="ipopt",
                iterations=iterations,
                seconds=seconds,
                message=message,
            )
        y, w, mu, nu, kappa = np.split(-lam, np.cumsum(_counts(s)[:-1]))
        return unscaled_solution(
            program,
            x=x,
            y=y,
            w=w,
            mu=mu,
            nu=nu,
            kappa=kappa,
            status=status,
            solver="ipopt",
            iterations=iterations,
            seconds=seconds,
            message=message,
        )

    def _attempts(
        self, program: Program, s: ScaledProgram, warm: Solution | None
    ) -> tuple[int, FloatArray, FloatArray, int]:
        """A warm attempt where there is something to start from, and a cold one where that did not converge."""
        limit, time_limit = self._options.max_iterations, self._options.time_limit_s
        if warm is None or not np.all(np.isfinite(warm.x)):
            return self._cold(program, s, max_iterations=limit, time_limit_s=time_limit)
        start = time.perf_counter()
        first = _WARM_ITERATIONS if limit is None else min(_WARM_ITERATIONS, limit)
        code, x, lam, used = self._run(program, s, warm, max_iterations=first, time_limit_s=time_limit)
        left = None if limit is None else limit - used
        time_left = None if time_limit is None else time_limit - (time.perf_counter() - start)
        spent = (left is not None and left <= 0) or (time_left is not None and time_left <= 0.0)
        if code == 0 or spent:
            return code, x, lam, used
        code, x, lam, more = self._cold(program, s, max_iterations=left, time_limit_s=time_left)
        return code, x, lam, used + more

    def _cold(
        self, program: Program, s: ScaledProgram, *, max_iterations: int | None, time_limit_s: float | None
    ) -> tuple[int, FloatArray, FloatArray, int]:
        """An attempt from the start point; and one from where its restoration phase ended, where that is feasible.

        An objective without curvature, such as `curtailment`, leaves steps as long as rounding makes them near the
        optimum, until the line search gives up. The restoration phase then finds no smaller violation because there
        is none, and Ipopt calls that local infeasibility.
        """
        start = time.perf_counter()
        code, x, lam, used = self._run(program, s, None, max_iterations=max_iterations, time_limit_s=time_limit_s)
        left = None if max_iterations is None else max_iterations - used
        time_left = None if time_limit_s is None else time_limit_s - (time.perf_counter() - start)
        spent = (left is not None and left <= 0) or (time_left is not None and time_left <= 0.0)
        if code != _FEASIBLE or spent:
            return code, x, lam, used
        there = replace(s, x0=x)
        code, x, lam, more = self._run(program, there, None, max_iterations=left, time_limit_s=time_left)
        return code, x, lam, used + more

    def _run(
        self,
        program: Program,
        s: ScaledProgram,
        warm: Solution | None,
        *,
        max_iterations: int | None,
        time_limit_s: float | None,
    ) -> tuple[int, FloatArray, FloatArray, int]:
        """Hand the model to the library: code, x, multipliers of rows in Ipopt's sign, iterations.

        A point of local infeasibility that violates nothing is a feasible point.
        """
        n, structure = len(s.c), self._structure
        assert structure is not None
        model = _Model(s, structure)
        none = np.zeros(s.curves.n_rows)
        low = np.concatenate([s.b, s.l, np.where(s.products.equality, 0.0, -_INF), s.quadratics.l, none])
        high = np.concatenate([s.b, s.u, np.zeros(s.products.n_rows), s.quadratics.u, none])
        x_low, x_high = np.maximum(s.lb, -_INF), np.minimum(s.ub, _INF)
        low, high = np.maximum(low, -_INF), np.minimum(high, _INF)
        callbacks = model.callbacks()
        problem = self._lib.CreateIpoptProblem(
            n,
            _doubles(x_low),
            _doubles(x_high),
            len(low),
            _doubles(low),
            _doubles(high),
            len(structure.jac_row),
            len(structure.hess_row),
            0,
            *callbacks[:5],
        )
        if not problem:
            message = "Ipopt refused the problem's dimensions or bounds"
            raise RuntimeError(message)
        try:
            self._set_options(problem, s, max_iterations, time_limit_s, warm=warm is not None)
            self._lib.SetIntermediateCallback(problem, callbacks[5])
            x, lam = s.x0.copy(), np.zeros(len(low))
            z_low, z_high = np.zeros(n), np.zeros(n)
            if warm is not None:
                f = program.objective_scale
                x = warm.x / program.col_scale
                lam = -f * np.concatenate(
                    [
                        warm.eq_dual / program.eq_scale,
                        warm.ineq_dual / program.ineq_scale,
                        warm.product_dual / program.product_scale,
                        warm.quadratic_dual / program.quadratic_scale,
                        warm.curve_dual / program.curve_scale,
                    ]
                )
                z = warm.reduced_cost * program.col_scale * f
                z_low, z_high = np.maximum(z, 0.0), np.maximum(-z, 0.0)
            value = ctypes.c_double()
            with _ONE_AT_A_TIME, interrupts() as model.interrupt:
                code = self._lib.IpoptSolve(
                    problem,
                    _doubles(x),
                    None,
                    ctypes.byref(value),
                    _doubles(lam),
                    _doubles(z_low),
                    _doubles(z_high),
                    None,
                )
        finally:
            self._lib.FreeIpoptProblem(problem)
        if model.stopped is not None:
            raise model.stopped
        if code == _NO_SMALLER_VIOLATION:
            rows = model.rows(x)
            over = np.concatenate([low - rows, rows - high, x_low - x, x - x_high])
            code = _FEASIBLE if over.max(initial=0.0) <= (self._options.tolerance or _NO_VIOLATION) else code
        return int(code), x, lam, model.iterations

    def _set_options(
        self, problem: Any, s: ScaledProgram, max_iterations: int | None, time_limit_s: float | None, *, warm: bool
    ) -> None:
        o = self._options
        words = {"sb": "yes", "linear_solver": o.linear_solver, "nlp_scaling_method": "none", "mu_strategy": "adaptive"}
        numbers = {
            # hold the bounds: relaxed by 1e-9 of a scaled unit, far below the tolerance of a violation
            "bound_relax_factor": 1e-9,
            "nlp_lower_bound_inf": -0.99 * _INF,
            "nlp_upper_bound_inf": 0.99 * _INF,
        }
        integers = {"print_level": 5 if o.verbose else 0}
        if o.tolerance is not None:
            numbers |= {"tol": o.tolerance, "constr_viol_tol": o.tolerance, "compl_inf_tol": max(o.tolerance, 1e-9)}
            numbers |= {"dual_inf_tol": 1e-6, "acceptable_tol": max(1e-7, o.tolerance)}
        if max_iterations is not None:
            integers["max_iter"] = max_iterations
        if time_limit_s is not None:
            numbers["max_wall_time"] = time_limit_s
        if not (s.products.n_rows or s.quadratics.n_rows or s.curves.n_rows):
            words |= {"jac_c_constant": "yes", "jac_d_constant": "yes", "hessian_constant": "yes"}
        if warm:
            # the adaptive rule finds the barrier parameter that fits the point: 5 iterations against 25 cold after a
            # load change of 2 %; with a fixed small parameter it took 29
            words["warm_start_init_point"] = "yes"
            for name in ("bound_push", "bound_frac", "slack_bound_push", "slack_bound_frac", "mult_bound_push"):
                numbers[f"warm_start_{name}"] = 1e-8
        for name, word in words.items():
            self._accepted(self._lib.AddIpoptStrOption(problem, name.encode(), word.encode()), name)
        for name, number in numbers.items():
            self._accepted(self._lib.AddIpoptNumOption(problem, name.encode(), number), name)
        for name, integer in integers.items():
            self._accepted(self._lib.AddIpoptIntOption(problem, name.encode(), integer), name)

    @staticmethod
    def _accepted(ok: bool, name: str) -> None:  # noqa: FBT001
        if not ok:
            message = f"Ipopt does not take this value of its option {name!r}"
            raise ValueError(message)


@final
class _Structure:
    """Patterns of Jacobian and Hessian, and the map from multipliers to Hessian values.

    Attributes:
        jac_row, jac_col: Jacobian entries, in the order: A, G, w, y of curves; a (all squares), u, v; f, g; z of
            curves. Repeated places add up.
        hess_row, hess_col: lower triangle of the Hessian, each place once.
        hess_q: values of the objective's part, shape (nnz,).
        hess_map: values of the rows' part = hess_map @ lambda, shape (nnz, m).
    """

    def __init__(self, program: Program, s: ScaledProgram) -> None:
        p, q, c = s.products, s.quadratics, s.curves
        self._source = _matrices(program)
        self._key = program.objective_scale
        m, k, kq, kc, _ = np.cumsum(_counts(s))
        self.a_entry, self.u_entry, self.v_entry = _row_of(p.a), _row_of(p.u), _row_of(p.v)
        self.f_entry, self.g_entry = _row_of(q.f), _row_of(q.g)
        curves = np.arange(c.n_rows) + kc
        places = [
            (_row_of(s.a), s.a.indices),
            (_row_of(s.g) + m, s.g.indices),
            (_row_of(q.w) + kq, q.w.indices),
            (curves, c.y),
            (p.a_row[self.a_entry] + k, p.a.indices),
            (self.u_entry + k, p.u.indices),
            (self.v_entry + k, p.v.indices),
            (q.row[self.f_entry] + kq, q.f.indices),
            (q.row[self.g_entry] + kq, q.g.indices),
            (curves, c.z),
        ]
        self.jac_row = np.concatenate([row for row, _ in places]).astype(np.int32)
        self.jac_col = np.concatenate([col for _, col in places]).astype(np.int32)
        self.n_linear = s.a.nnz + s.g.nnz + q.w.nnz + c.n_rows
        self.hess_row, self.hess_col, self.hess_q, self.hess_map = _hessian(s)
        self.a_t, self.u_t, self.v_t = p.a.T, p.u.T, p.v.T

    def fits(self, program: Program) -> bool:
        """Whether coefficients are those this was made from (right-hand sides, bounds and costs may differ)."""
        new = _matrices(program)
        return program.objective_scale == self._key and all(
            x is y or np.array_equal(x, y) for x, y in zip(new, self._source, strict=True)
        )


def _matrices(program: Program) -> tuple[FloatArray, ...]:
    p, q = program.products, program.quadratics
    return program.q.data, p.a.data, p.u.data, p.v.data, q.f.data, q.g.data


def _hessian(s: ScaledProgram) -> tuple[IntArray, IntArray, FloatArray, sp.csr_array]:
    """Lower triangle of the Hessian of the Lagrangian: places, objective values, map from multipliers."""
    n, p = len(s.c), s.products
    q = sp.coo_array(sp.tril(s.q))
    q_row, q_col = q.coords

    # 2 a a': every ordered pair of entries within a row of a, lower half kept
    left, right = _pairs(p.a.indptr, p.a.indptr)
    i, j = p.a.indices[left], p.a.indices[right]
    keep = i >= j
    left, right = left[keep], right[keep]
    aa = (p.a.indices[left], p.a.indices[right], p.a_row[_row_of(p.a)[left]], 2.0 * p.a.data[left] * p.a.data[right])

    # -(u v' + v u'): a pair lands on both sides of the diagonal, on the diagonal twice
    left, right = _pairs(p.u.indptr, p.v.indptr)
    i, j = p.u.indices[left], p.v.indices[right]
    value = -p.u.data[left] * p.v.data[right] * np.where(i == j, 2.0, 1.0)
    uv = (np.maximum(i, j), np.minimum(i, j), _row_of(p.u)[left], value)

    # f g' + g f': the same with the other sign
    b, c = s.quadratics, s.curves
    left, right = _pairs(b.f.indptr, b.g.indptr)
    i, j = b.f.indices[left], b.g.indices[right]
    value = b.f.data[left] * b.g.data[right] * np.where(i == j, 2.0, 1.0)
    fg = (np.maximum(i, j), np.minimum(i, j), b.row[_row_of(b.f)[left]] + p.n_rows, value)

    zz = (c.z, c.z, np.arange(c.n_rows) + p.n_rows + b.n_rows, np.ones(c.n_rows))
    parts = (aa, uv, fg, zz)
    row = np.concatenate([q_row, *(part[0] for part in parts)]).astype(np.int64)
    col = np.concatenate([q_col, *(part[1] for part in parts)]).astype(np.int64)
    keys, place = np.unique(row * n + col, return_inverse=True)
    of_q = q.nnz
    values_q = np.bincount(place[:of_q], weights=q.data, minlength=len(keys)).astype(float)
    rows_map = sp.csr_array(
        (np.concatenate([part[3] for part in parts]), (place[of_q:], np.concatenate([part[2] for part in parts]))),
        shape=(len(keys), p.n_rows + b.n_rows + c.n_rows),
    )
    return (keys // n).astype(np.int32), (keys % n).astype(np.int32), values_q, rows_map


def _pairs(left_ptr: IntArray, right_ptr: IntArray) -> tuple[IntArray, IntArray]:
    """Every pair (entry of the left matrix, entry of the right matrix) that share a row."""
    n_left, n_right = np.diff(left_ptr), np.diff(right_ptr)
    reps = np.repeat(n_right, n_left)
    left = np.repeat(np.arange(len(reps)), reps)
    total = int(reps.sum())
    within = np.arange(total) - np.repeat(np.cumsum(reps) - reps, reps)
    right = np.repeat(np.repeat(right_ptr[:-1], n_left), reps) + within
    return left, right


def _counts(s: ScaledProgram) -> tuple[int, int, int, int, int]:
    """Numbers of rows: equalities, inequalities, products, quadratic rows, curves; this is their order for Ipopt."""
    return len(s.b), len(s.l), s.products.n_rows, s.quadratics.n_rows, s.curves.n_rows


def _row_of(matrix: sp.csr_array) -> IntArray:
    """Row of every stored entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


@final
class _Model:
    """The callbacks of one solve.

    An exception cannot cross the library, so it is kept in ``stopped``, the library is told to
    stop at its next iteration, and the session raises it.
    """

    def __init__(self, s: ScaledProgram, structure: _Structure) -> None:
        self._s, self._structure = s, structure
        self.iterations = 0
        self.stopped: Exception | None = None
        self.interrupt = Interrupt()
        self._linear = sp.csr_array(sp.vstack([s.a, s.g]))
        self._jac_linear = np.concatenate([s.a.data, s.g.data, s.quadratics.w.data, s.curves.y_slope])

    def rows(self, x: FloatArray) -> FloatArray:
        """Values of all rows at a point, in the order of their bounds."""
        s = self._s
        return np.concatenate([self._linear @ x, s.products.value(x), s.quadratics.value(x), s.curves.value(x)])

    def callbacks(self) -> tuple[Any, ...]:
        """C functions, in the order of ``CreateIpoptProblem``, then the one called at each iteration."""
        s, st, p, q, c = self._s, self._structure, self._s.products, self._s.quadratics, self._s.curves
        n, k, m, mq, mc = len(s.c), self._linear.shape[0], p.n_rows, q.n_rows, c.n_rows
        total = k + m + mq + mc
        n_jac, n_hess, n_lin = len(st.jac_row), len(st.hess_row), st.n_linear
        has_q = s.q.nnz > 0
        array = np.ctypeslib.as_array

        def f(_n: int, x: Any, _new: bool, out: Any, _u: Any) -> None:  # noqa: FBT001
            point = array(x, (n,))
            value = s.c @ point + s.c0
            out[0] = value + 0.5 * point @ (s.q @ point) if has_q else value

        def grad(_n: int, x: Any, _new: bool, out: Any, _u: Any) -> None:  # noqa: FBT001
            point = array(x, (n,))
            array(out, (n,))[:] = s.c + s.q @ point if has_q else s.c

        def g(_n: int, x: Any, _new: bool, _m: int, out: Any, _u: Any) -> None:  # noqa: FBT001
            if total:
                array(out, (total,))[:] = self.rows(array(x, (n,)))

        def jac(_n: int, x: Any, _new: bool, _m: int, _nz: int, row: Any, col: Any, out: Any, _u: Any) -> None:  # noqa: FBT001
            if n_jac == 0:
                return
            if not out:
                array(row, (n_jac,))[:] = st.jac_row
                array(col, (n_jac,))[:] = st.jac_col
                return
            values = array(out, (n_jac,))
            values[:n_lin] = self._jac_linear
            point = array(x, (n,))
            of_f = n_lin + p.a.nnz + p.u.nnz + p.v.nnz
            if mq:
                of_g = of_f + q.f.nnz
                values[of_f:of_g] = (q.g @ point + q.g0)[st.f_entry] * q.f.data
                values[of_g : of_g + q.g.nnz] = (q.f @ point + q.f0)[st.g_entry] * q.g.data
            if mc:
                values[n_jac - mc :] = c.z_slope(point)
            if m:
                a, u, v = p.a @ point + p.a0, p.u @ point + p.u0, p.v @ point + p.v0
                of_u = n_lin + p.a.nnz
                of_v = of_u + p.u.nnz
                values[n_lin:of_u] = 2.0 * a[st.a_entry] * p.a.data
                values[of_u:of_v] = -v[st.u_entry] * p.u.data
                values[of_v:of_f] = -u[st.v_entry] * p.v.data

        def hess(
            _n: int,
            x: Any,
            _new: bool,  # noqa: FBT001
            sigma: float,
            _m: int,
            lam: Any,
            _new_lam: bool,  # noqa: FBT001
            _nz: int,
            row: Any,
            col: Any,
            out: Any,
            _u: Any,
        ) -> None:
            if n_hess == 0:
                return
            if not out:
                array(row, (n_hess,))[:] = st.hess_row
                array(col, (n_hess,))[:] = st.hess_col
                return
            values = array(out, (n_hess,))
            values[:] = sigma * st.hess_q
            if m or mq or mc:
                weight = array(lam, (total,))[k:]
                if mc:
                    weight = weight.copy()
                    weight[m + mq :] *= c.z_bend(array(x, (n,)))
                values += st.hess_map @ weight

        def step(_mode: int, count: int, *_: Any) -> None:
            self.iterations = count

        functions = ((_EVAL_F, f), (_EVAL_G, g), (_EVAL_GRAD, grad), (_EVAL_JAC, jac), (_EVAL_H, hess), (_STEP, step))
        return tuple(kind(self._guard(function)) for kind, function in functions)

    def _guard(self, function: Callable[..., None]) -> Callable[..., bool]:
        def guarded(*args: Any) -> bool:
            if self.stopped is not None or self.interrupt.pressed:
                return False
            try:
                function(*args)
            except Exception as error:
                self.stopped = error
                return False
            return True

        return guarded


def _doubles(values: FloatArray) -> Any:
    return values.ctypes.data_as(_DOUBLES)


@cache
def _library() -> ctypes.CDLL:
    """The Ipopt library of the CasADi package.

    Raises:
        UnsupportedError: there is none.
    """
    spec = importlib.util.find_spec("casadi")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    found = sorted(folder.glob("libipopt.so*")) if folder is not None else []
    if not found:
        raise UnsupportedError(
            [
                Fault(
                    code="SOL-002 solver-missing",
                    element="solver.ipopt",
                    found="no Ipopt library in the casadi package" if folder else "no casadi package",
                    allowed="the Linux wheel of casadi, which carries Ipopt",
                    action="pip install casadi, or choose another solver.",
                )
            ]
        )
    lib = ctypes.CDLL(str(found[-1]))
    lib.CreateIpoptProblem.restype = _P
    lib.CreateIpoptProblem.argtypes = [
        *(_I, _DOUBLES, _DOUBLES, _I, _DOUBLES, _DOUBLES, _I, _I, _I),
        *(_EVAL_F, _EVAL_G, _EVAL_GRAD, _EVAL_JAC, _EVAL_H),
    ]
    lib.FreeIpoptProblem.argtypes, lib.FreeIpoptProblem.restype = [_P], None
    text = ctypes.c_char_p
    lib.AddIpoptStrOption.argtypes, lib.AddIpoptStrOption.restype = [_P, text, text], _B
    lib.AddIpoptNumOption.argtypes, lib.AddIpoptNumOption.restype = [_P, text, _D], _B
    lib.AddIpoptIntOption.argtypes, lib.AddIpoptIntOption.restype = [_P, text, _I], _B
    lib.SetIntermediateCallback.argtypes, lib.SetIntermediateCallback.restype = [_P, _STEP], _B
    lib.IpoptSolve.argtypes = [_P, _DOUBLES, _P, _P, _DOUBLES, _DOUBLES, _DOUBLES, _P]
    lib.IpoptSolve.restype = _I
    return lib
