"""Multipliers of least gap: the duals of a joined schedule that show best how near it is to an optimum.

Areas agree within a tolerance, and a stiff branch between them makes much of what is left: of 1e-8 of a price of
voltage, beside a switch of a milliohm, 1e-3 of the gap. But a certificate holds with whichever multipliers it is
computed; those of the areas are one choice. Here they are changed so that the terms of the gap
(`lateral.results.residuals`) are least in the sum of squares, the schedule as it is::

    min_d  | s_x (z - J'd) |^2 + | s_r (y + d) |^2 + WEAK | d |^2

z are the reduced costs and J the gradients of all rows at the schedule, y their duals, s_x and s_r how far each
variable and each row is from its nearer bound (zero for an equality). It is a linear least squares problem in sparse
form, as multipliers are estimated at a point that is given (Nocedal and Wright 2006, section 18.3). Where duals are not
determined, the last term keeps those of the areas. One that comes out with the sign of the farther side counts with the
distance to that one from then on.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from lateral.network.schema import FloatArray
from lateral.program import Program
from lateral.results.residuals import GAP_TOLERANCE, Residuals, objective_size, recompute
from lateral.solvers import Solution
from lateral.solvers.base import reduced_cost

#: What a change of a dual counts, as a share of the objective for a row in solver scale, beside a gap of one.
WEAK = 1e-12
#: Duals that come out with the sign of the farther side count with the distance to that one, and it is solved again; so
#: often at most.
LOOKS = 10
#: Variables of a program at most: of 27,000 a look takes 0.1 s, of 300,000 (24 steps of 13,000) minutes, every round.
MOST_VARIABLES = 60_000


def of_least_gap(program: Program, solution: Solution) -> tuple[Solution, Residuals]:
    """The solution with the duals that have the smallest gap of those found, and its residuals; no further ones are
    looked for once it is within the tolerance of a solution.

    Duals of matrices stay as they are. Where nothing better is found, or the program is larger than `MOST_VARIABLES`,
    the solution comes back as it is.
    """
    p, x = program, solution.x
    best = solution, recompute(p, solution)
    if not np.isfinite(best[1].duality_gap) or not 0 < p.n <= MOST_VARIABLES:
        return best
    size = objective_size(p, x)
    old = _Sides.of_variables(p, x), _Sides.of_rows(p, x)
    duals = _duals(solution)
    gradients = (p.a, p.g, p.products.gradients(x), p.quadratics.gradients(x), p.curves.gradients(x))
    unit = size * np.concatenate([p.eq_scale, p.ineq_scale, p.product_scale, p.quadratic_scale, p.curve_scale])
    rows = sp.diags_array(unit) @ sp.vstack(gradients, format="csr")
    counts = [own.near / size for own in old]
    for _ in range(LOOKS):
        by_variable, by_row = counts
        a, held = rows @ sp.diags_array(by_variable), by_row * unit
        # with d = unit t: what is left of the first term, and t; quasi-definite, so that no pivots need be looked for
        matrix = sp.block_array([[sp.eye_array(p.n), a.T], [a, -sp.diags_array(WEAK + held**2)]], format="csc")
        sides = np.concatenate([by_variable * solution.reduced_cost, held * by_row * duals])
        try:
            factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
            t = factor.solve(sides)[p.n :]
        except RuntimeError:  # singular
            break
        if not np.all(np.isfinite(t)):
            break
        found = _with_duals(p, solution, duals + unit * t)
        residuals = recompute(p, found)
        if residuals.duality_gap < best[1].duality_gap:
            best = found, residuals
        if residuals.duality_gap <= GAP_TOLERANCE:
            break
        named = [own.named(dual) / size for own, dual in zip(old, (found.reduced_cost, duals + unit * t), strict=True)]
        if all(np.all(far <= count) for far, count in zip(named, counts, strict=True)):
            break
        counts = [np.maximum(far, count) for far, count in zip(named, counts, strict=True)]
    return best


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """Where variables or rows are between their sides.

    Attributes:
        low, high: distance to the lower and to the upper one, at least zero; where there is none the size that a dual
            which names it counts with.
        near: distance to the nearer one, at most that size.
    """

    low: FloatArray
    high: FloatArray
    near: FloatArray

    @classmethod
    def of(cls, value: FloatArray, low: FloatArray, high: FloatArray, size: FloatArray) -> _Sides:
        to_low, to_high = np.maximum(value - low, 0.0), np.maximum(high - value, 0.0)
        near = np.minimum(np.minimum(to_low, to_high), size)
        return cls(np.where(np.isfinite(low), to_low, size), np.where(np.isfinite(high), to_high, size), near)

    @classmethod
    def of_variables(cls, p: Program, x: FloatArray) -> _Sides:
        return cls.of(x, p.lb, p.ub, np.maximum(np.abs(x), p.col_scale))

    @classmethod
    def of_rows(cls, p: Program, x: FloatArray) -> _Sides:
        """In the order of `_duals`."""
        middle, product, value, c = p.g @ x, p.products.value(x), p.quadratics.value(x), p.curves.n_rows
        exact = p.products.equality.astype(bool)
        of_product = np.abs((p.products.u @ x + p.products.u0) * (p.products.v @ x + p.products.v0))
        parts = [
            cls.of(np.zeros_like(p.b), np.zeros_like(p.b), np.zeros_like(p.b), np.zeros_like(p.b)),
            cls.of(middle, p.l, p.u, _largest(np.abs(middle), p.ineq_scale)),
            cls.of(
                product,
                np.where(exact, product, -np.inf),
                np.where(exact, product, 0.0),
                of_product + _unit(p.product_scale),
            ),
            cls.of(value, p.quadratics.l, p.quadratics.u, _largest(np.abs(value), p.quadratic_scale)),
            cls.of(np.zeros(c), np.zeros(c), np.zeros(c), np.zeros(c)),
        ]
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(cls)))

    def named(self, dual: FloatArray) -> FloatArray:
        """Distance to the side that the sign of a dual names."""
        return np.where(dual > 0.0, self.low, np.where(dual < 0.0, self.high, 0.0))


def _duals(s: Solution) -> FloatArray:
    return np.concatenate([s.eq_dual, s.ineq_dual, s.product_dual, s.quadratic_dual, s.curve_dual])


def _with_duals(p: Program, s: Solution, duals: FloatArray) -> Solution:
    sizes = [len(s.eq_dual), len(s.ineq_dual), len(s.product_dual), len(s.quadratic_dual)]
    y, w, mu, nu, kappa = np.split(duals, np.cumsum(sizes))
    z = reduced_cost(p, s.x, y, w, mu, nu, kappa, s.semidefinite_dual)
    return dataclasses.replace(
        s, eq_dual=y, ineq_dual=w, product_dual=mu, quadratic_dual=nu, curve_dual=kappa, reduced_cost=z
    )


def _unit(scale: FloatArray) -> FloatArray:
    return 1.0 / np.maximum(scale, 1e-300)


def _largest(value: FloatArray, scale: FloatArray) -> FloatArray:
    return np.maximum(value, _unit(scale))


__all__ = ["of_least_gap"]
