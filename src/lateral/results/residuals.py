"""Residuals and the duality gap, recomputed from the Program: what a solver's claim is worth.

**The gap is a certificate.** Write grad f = A'y + G'w + sum mu_i grad h_i + z (the definition of z). f is convex, and
for x on a cone -grad h_i(x) lies in that (self-dual) cone, so for every feasible x*

    f(x*) >= f(x) - y'(Ax - b) - w'(Gx - side) - sum 2 mu_i h_i - z'(x - bound) - sum |z_j| |x_j - x*_j|

where side and bound are the ones that the sign of the multiplier names, and the last sum runs over multipliers whose
side is infinite: a pure dual error, taken with the variable's typical size. The terms are added by absolute value, so
error of one sign cannot hide error of the other. A matrix row adds ``|<Z, M>|`` and what of Z is not psd times the
largest eigenvalue of M. Quadratic rows count as two-sided rows. A non-convex model has no such
bound; there the same number measures how far the point is from a local optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lateral.network.schema import FloatArray
from lateral.program import ProblemClass, Program
from lateral.solvers.base import Solution, Status

#: Largest violation of a solution, per unit.
PRIMAL_TOLERANCE = 1e-6
#: Largest duality gap of a solution, relative.
GAP_TOLERANCE = 1e-6
#: Objectives of convex programs, and those without a floor, that are smaller than this, in scaled units, are compared
#: as if they were this large.
_SMALL_OBJECTIVE = 1e-2


@dataclass(frozen=True, slots=True)
class Residuals:
    """How far a point is from feasible and optimal.

    Attributes:
        max_primal: largest violation of a row, pu (product rows: of ``sum a^2 - u v``).
        max_bound: largest violation of a bound of a variable, pu.
        duality_gap: upper bound of the distance to the optimum, as a share of the objective (of the objective's floor,
            where it is smaller).
        max_dual: largest reduced cost that no bound explains, in solver scale.
        complementarity: largest product of a multiplier and its slack, in solver scale.
    """

    max_primal: float
    max_bound: float
    duality_gap: float
    max_dual: float
    complementarity: float


def recompute(program: Program, solution: Solution) -> Residuals:
    """The residuals of a solution; NaN where the solution has no numbers."""
    x, y, w, mu, z = (
        solution.x,
        solution.eq_dual,
        solution.ineq_dual,
        solution.product_dual,
        solution.reduced_cost,
    )
    nu, kappa, zeta = solution.quadratic_dual, solution.curve_dual, solution.semidefinite_dual
    if not all(np.all(np.isfinite(values)) for values in (x, y, w, mu, z, nu, kappa, zeta)):
        return Residuals(np.nan, np.nan, np.nan, np.nan, np.nan)
    p = program.products
    equal = program.a @ x - program.b
    middle = program.g @ x
    h = p.value(x) if p.n_rows else np.zeros(0)
    u, v = p.u @ x + p.u0, p.v @ x + p.v0
    cone = ~p.equality.astype(bool)
    q = program.quadratics
    bilinear = q.value(x) if q.n_rows else np.zeros(0)
    curved = program.curves.value(x) if program.curves.n_rows else np.zeros(0)
    cone_side = np.maximum(np.where(cone, np.maximum(-u, -v), 0.0), 0.0)
    max_primal = max(
        _largest(np.abs(equal)),
        _largest(program.l - middle),
        _largest(middle - program.u),
        _largest(np.where(cone, h, np.abs(h))),
        _largest(cone_side),
        _largest(q.l - bilinear),
        _largest(bilinear - q.u),
        _largest(np.abs(curved)),
        *(_largest(-values) for values in program.semidefinite.eigenvalues(program.semidefinite.value(x))),
    )
    max_bound = max(_largest(program.lb - x), _largest(x - program.ub))

    size = np.maximum(np.abs(x), program.col_scale)
    z_slack, z_lost = _sides(z, x, program.lb, program.ub, size)
    w_slack, w_lost = _sides(w, middle, program.l, program.u, np.maximum(np.abs(middle), 1.0 / program.ineq_scale))
    # a positive multiplier of a cone row would push the point out of the cone: all of it is error
    wrong = cone & (mu > 0.0)
    mu_slack = 2.0 * np.abs(mu * h)
    mu_lost = np.where(wrong, mu * (np.abs(u * v) + 1.0 / np.maximum(program.product_scale, 1e-300)), 0.0)
    nu_slack, nu_lost = _sides(
        nu, bilinear, q.l, q.u, np.maximum(np.abs(bilinear), 1.0 / np.maximum(program.quadratic_scale, 1e-300))
    )
    psd_slack, psd_lost = _matrix_terms(program, x, zeta)
    scale = program.objective_scale
    held = (np.abs(y * equal), np.abs(kappa * curved))
    terms = (*held, z_slack, z_lost, w_slack, w_lost, mu_slack, mu_lost, nu_slack, nu_lost, psd_slack, psd_lost)
    gap = sum(float(np.sum(term)) for term in terms)
    objective = objective_size(program, x)
    return Residuals(
        max_primal=max_primal,
        max_bound=max_bound,
        duality_gap=gap / objective,
        max_dual=scale
        * max(_largest(z_lost / size * program.col_scale), *map(_largest, (w_lost, mu_lost, nu_lost, psd_lost))),
        complementarity=scale * max(map(_largest, (z_slack, w_slack, mu_slack, nu_slack, psd_slack))),
    )


def objective_size(program: Program, x: FloatArray) -> float:
    """What a relative gap is relative to: the objective, or its floor where it is smaller.

    Convex solvers stop at a gap in solver scale, which an objective of next to nothing does not follow. Of a program
    that is not convex nothing but the floor counts: its coefficients may be any size (`Program.scaled_by_value`).
    """
    floor = program.objective_floor
    if not floor or program.problem_class is not ProblemClass.NLP:
        floor = max(floor, _SMALL_OBJECTIVE / program.objective_scale)
    return max(abs(program.objective(x)), floor)


def certified_bound(program: Program, solution: Solution, residuals: Residuals) -> float | None:
    """What no feasible point of a convex program is below, whatever the status of the solution.

    Of dual errors at variables without a bound it takes, as `Residuals.duality_gap` does, that these are no further
    from an optimum than their typical size; at a point of any accuracy they hardly count.

    Returns:
        the objective less the gap, in the objective's unit; None of a program that is not convex, or where the solution
        has no finite point or multipliers.
    """
    if program.problem_class is ProblemClass.NLP:
        return None
    if not np.isfinite(residuals.duality_gap) or not np.isfinite(residuals.max_primal):
        return None
    gap = residuals.duality_gap * objective_size(program, solution.x)
    return program.objective(solution.x) - gap


def earned_status(program: Program, solution: Solution, residuals: Residuals) -> Status:
    """What the solver's claim is worth.

    A claim of `OPTIMAL` or `INACCURATE` is decided by the residuals alone; a limit stays a limit and a failure a
    failure, whatever the numbers say.
    """
    claim = solution.status
    if claim not in (Status.OPTIMAL, Status.INACCURATE):
        return claim
    values = (residuals.max_primal, residuals.max_bound, residuals.duality_gap)
    if not all(np.isfinite(value) for value in values):
        return Status.ERROR
    feasible = max(residuals.max_primal, residuals.max_bound) <= PRIMAL_TOLERANCE
    return Status.OPTIMAL if feasible and residuals.duality_gap <= GAP_TOLERANCE else Status.INACCURATE


def _matrix_terms(program: Program, x: FloatArray, zeta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gap of each semidefinite row: ``|<Z, M>|``, and what of Z is not psd times the largest eigenvalue of M.

    Both in solver scale (a congruence, which changes neither), in which M is about one.
    """
    rows = program.semidefinite
    if not rows.n_rows:
        return np.zeros(0), np.zeros(0)
    dual = zeta / program.semidefinite_scale
    value = rows.value(x)
    inner = np.concatenate([np.abs((rows.twice * zeta * value)[cells].sum(axis=1)) for _, cells in rows.by_dim()])
    negative = [np.maximum(-e, 0.0).sum(axis=1) for e in rows.eigenvalues(dual)]
    largest = [np.maximum(e[:, -1], 1.0) for e in rows.eigenvalues(value * program.semidefinite_scale)]
    return inner, np.concatenate([n * m for n, m in zip(negative, largest, strict=True)])


def _largest(values: FloatArray) -> float:
    """Largest value, at least zero; -inf (an infinite side) does not count."""
    return float(np.max(values, initial=0.0))


def _sides(
    dual: FloatArray, value: FloatArray, lower: FloatArray, upper: FloatArray, size: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gap of each two-sided limit: (multiplier times slack, multiplier times size where the side is infinite)."""
    side = np.where(dual >= 0.0, lower, upper)
    finite = np.isfinite(side)
    slack = np.abs(dual) * np.abs(value - np.where(finite, side, 0.0))
    return np.where(finite, slack, 0.0), np.where(finite, 0.0, np.abs(dual) * size)
