"""Variables that follow from others, taken out of a program before a solve and put back after it.

A formulation may say that rows D of ``A x = b`` define free variables x_D, each by the row of its own, none by itself
through others (`Program.follows`). With the columns apart, ``A_DD x_D + A_DR x_R = b_D`` and every other affine part
of the program is over x_R alone::

    M_D x_D + M_R x_R  =  (M_R - M_D A_DD^-1 A_DR) x_R  +  M_D A_DD^-1 b_D

The point and its duals are those of the whole: x_D of the rows D, and y_D of the columns D, where no reduced cost may
be left, ``A_DD' y_D = z_D`` with z the reduced cost at ``y_D = 0``.

A_DD is a permutation of a triangular matrix with few levels, ``A_DD = E (I + N)`` with E diagonal and N nilpotent, so
that ``M A_DD^-1 = (M - M N + M N^2 - ...) E^-1`` ends after as many terms as there are levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, splu

from lateral.network.schema import FloatArray, IntArray
from lateral.program import Program, ScaledProgram
from lateral.solvers.base import Solution


@dataclass(frozen=True, slots=True, eq=False)
class Substitution:
    """What follows in a scaled program, and the program of the rest.

    Attributes:
        rows, cols: D, of rows and of columns.
        other_rows, other_cols: the rest.
        factor: of ``A_DD``.
        given: ``A_DR``.
        b: ``b_D``.
        smaller: the program without them.
    """

    rows: IntArray
    cols: IntArray
    other_rows: IntArray
    other_cols: IntArray
    factor: SuperLU
    given: sp.csr_array
    b: FloatArray
    smaller: ScaledProgram

    @classmethod
    def of(cls, program: Program, s: ScaledProgram) -> Substitution | None:
        """The substitution that a program names; None where it names none."""
        if not len(program.follows):
            return None
        rows, cols = program.follows.T
        other_rows = np.setdiff1d(np.arange(len(s.b)), rows)
        other_cols = np.setdiff1d(np.arange(len(s.c)), cols)
        defining = sp.csr_array(s.a[rows])
        own, given = sp.csr_array(defining[:, cols]), sp.csr_array(defining[:, other_cols])
        size = own.diagonal()
        levels = sp.csr_array(sp.diags_array(1.0 / size) @ own - sp.eye_array(len(rows)))
        levels.eliminate_zeros()
        without = _Without(cols, other_cols, levels, size, given, s.b[rows])
        q_cols = sp.csr_array(s.q)[cols]
        if q_cols.nnz:
            message = "a variable that follows may have no quadratic cost"
            raise ValueError(message)
        a, b = without(sp.csr_array(s.a[other_rows]), s.b[other_rows], right=True)
        g, moved = without(s.g, np.zeros(len(s.l)))
        c, c0 = without(sp.csr_array(s.c[None]), np.array([s.c0]))
        p, m = s.products, s.semidefinite
        pa, pa0 = without(p.a, p.a0)
        pu, pu0 = without(p.u, p.u0)
        pv, pv0 = without(p.v, p.v0)
        sm, sm0 = without(m.m, m.m0)
        smaller = replace(
            s,
            c=c.toarray().reshape(-1),
            c0=float(c0[0]),
            q=sp.csc_array(s.q[other_cols][:, other_cols]),
            a=a,
            b=b,
            g=g,
            l=s.l - moved,
            u=s.u - moved,
            lb=s.lb[other_cols],
            ub=s.ub[other_cols],
            products=replace(p, a=pa, a0=pa0, u=pu, u0=pu0, v=pv, v0=pv0),
            semidefinite=replace(m, m=sm, m0=sm0),
            x0=s.x0[other_cols],
        )
        return cls(rows, cols, other_rows, other_cols, splu(sp.csc_matrix(own)), given, s.b[rows], smaller)

    def point(self, x: FloatArray) -> FloatArray:
        """All variables, of the rest."""
        out = np.empty(len(self.rows) + len(self.other_cols))
        out[self.other_cols] = x
        out[self.cols] = self.factor.solve(self.b - self.given @ x)
        return out

    def duals(self, y: FloatArray) -> FloatArray:
        """Duals of all rows, those of the defining ones 0."""
        out = np.zeros(len(self.rows) + len(self.other_rows))
        out[self.other_rows] = y
        return out

    def completed(self, program: Program, solution: Solution) -> Solution:
        """The solution with the duals of the defining rows: those with which no reduced cost is left."""
        d, rows = program.col_scale[self.cols], program.eq_scale[self.rows]
        z = solution.reduced_cost
        own = self.factor.solve(z[self.cols] * d, trans="T") * rows
        y = solution.eq_dual.copy()
        y[self.rows] = own
        more = np.zeros(len(y))
        more[self.rows] = own
        return replace(solution, eq_dual=y, reduced_cost=z - program.a.T @ more)


@dataclass(frozen=True, slots=True, eq=False)
class _Without:
    """Affine parts of a program without the variables that follow."""

    cols: IntArray
    other_cols: IntArray
    levels: sp.csr_array
    size: FloatArray
    given: sp.csr_array
    b: FloatArray

    def __call__(self, m: sp.csr_array, m0: FloatArray, *, right: bool = False) -> tuple[sp.csr_array, FloatArray]:
        """``m x + m0`` over the rest, coefficients and constants; or ``m x = m0`` with the constants on the right."""
        own = sp.csr_array(m[:, self.cols])
        rest = sp.csr_array(m[:, self.other_cols])
        if not own.nnz:
            return rest, m0
        term = total = own
        while term.nnz:
            term = sp.csr_array(-(term @ self.levels))
            total = total + term
        through = sp.csr_array(total @ sp.diags_array(1.0 / self.size))
        out = sp.csr_array(rest - through @ self.given)
        out.sum_duplicates()
        moved = through @ self.b
        return out, np.asarray(m0 - moved if right else m0 + moved)


__all__ = ["Substitution"]
