"""Variables that follow from others, taken out of a program before a solve and put back after it.

A formulation may say that rows D of ``A x = b`` define free variables x_D, each by the row of its own, none by itself
through others (`Program.follows`). With the columns apart, ``A_DD x_D + A_DR x_R = b_D`` and every other affine part
of the program is over x_R alone::

    M_D x_D + M_R x_R  =  (M_R - M_D A_DD^-1 A_DR) x_R  +  M_D A_DD^-1 b_D

The point and its duals are those of the whole: x_D of the rows D, and y_D of the columns D, where no reduced cost may
be left, ``A_DD' y_D = z_D`` with z the reduced cost at ``y_D = 0``.

A_DD is a permutation of a triangular matrix with few levels, ``A_DD = E (I + N)`` with E diagonal and N nilpotent, so
that ``W = A_DD^-1 A_DR = (I - N + N^2 - ...) E^-1 A_DR`` ends after as many terms as there are levels.
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
    """What follows in a scaled program.

    Attributes:
        rows, cols: D, of rows and of columns.
        other_rows, other_cols: the rest.
        defining: rows D of A.
        b: ``b_D``.
        factor: of ``A_DD``.
        through: W.
        fixed: ``A_DD^-1 b_D``.
    """

    rows: IntArray
    cols: IntArray
    other_rows: IntArray
    other_cols: IntArray
    defining: sp.csr_array
    b: FloatArray
    factor: SuperLU
    through: sp.csr_array
    fixed: FloatArray

    @classmethod
    def of(cls, program: Program, s: ScaledProgram, known: Substitution | None = None) -> Substitution | None:
        """The substitution that a program names; None where it names none.

        Args:
            program: the program.
            s: the same, scaled.
            known: one of the program with other data: the same again where these are none of the defining rows'.

        Raises:
            ValueError: a variable that follows has a bound or a quadratic cost, or follows from itself.
        """
        if not len(program.follows):
            return None
        rows, cols = program.follows.T
        defining, b = sp.csr_array(s.a[rows]), s.b[rows]
        if known is not None and np.array_equal(known.defining.data, defining.data) and np.array_equal(known.b, b):
            return known
        if np.any(np.isfinite(s.lb[cols])) or np.any(np.isfinite(s.ub[cols])) or sp.csr_array(s.q)[cols].nnz:
            message = "a variable that follows may have no bound and no quadratic cost"
            raise ValueError(message)
        other_rows = np.setdiff1d(np.arange(len(s.b)), rows)
        other_cols = np.setdiff1d(np.arange(len(s.c)), cols)
        own, given = sp.csr_array(defining[:, cols]), sp.csr_array(defining[:, other_cols])
        through = _solved(own, given)
        factor = splu(sp.csc_matrix(own))
        return cls(rows, cols, other_rows, other_cols, defining, b, factor, through, factor.solve(b))

    def smaller(self, s: ScaledProgram) -> ScaledProgram:
        """The program without them."""
        a, b = self._without(sp.csr_array(s.a[self.other_rows]))
        g, moved = self._without(s.g)
        c, c0 = self._without(sp.csr_array(s.c[None]))
        p, m = s.products, s.semidefinite
        (pa, pa0), (pu, pu0), (pv, pv0) = (self._without(part) for part in (p.a, p.u, p.v))
        sm, sm0 = self._without(m.m)
        return replace(
            s,
            c=c.toarray().reshape(-1),
            c0=s.c0 + float(c0[0]),
            q=sp.csc_array(s.q[self.other_cols][:, self.other_cols]),
            a=a,
            b=s.b[self.other_rows] - b,
            g=g,
            l=s.l - moved,
            u=s.u - moved,
            lb=s.lb[self.other_cols],
            ub=s.ub[self.other_cols],
            products=replace(p, a=pa, a0=p.a0 + pa0, u=pu, u0=p.u0 + pu0, v=pv, v0=p.v0 + pv0),
            semidefinite=replace(m, m=sm, m0=m.m0 + sm0),
            x0=s.x0[self.other_cols],
        )

    def point(self, x: FloatArray) -> FloatArray:
        """All variables, of the rest."""
        out = np.empty(len(self.cols) + len(self.other_cols))
        out[self.other_cols] = x
        out[self.cols] = self.fixed - self.through @ x
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
        own = np.zeros(len(solution.eq_dual))
        own[self.rows] = self.factor.solve(z[self.cols] * d, trans="T") * rows
        return replace(solution, eq_dual=solution.eq_dual + own, reduced_cost=z - program.a.T @ own)

    def _without(self, m: sp.csr_array) -> tuple[sp.csr_array, FloatArray]:
        """``m x`` over the rest: coefficients, and constants."""
        own, rest = sp.csr_array(m[:, self.cols]), sp.csr_array(m[:, self.other_cols])
        if not own.nnz:
            return rest, np.zeros(m.shape[0])
        out = sp.csr_array(rest - own @ self.through)
        out.sum_duplicates()
        return out, np.asarray(own @ self.fixed)


def _solved(own: sp.csr_array, given: sp.csr_array) -> sp.csr_array:
    """``A_DD^-1 A_DR``; see the module's text.

    Raises:
        ValueError: a variable follows from itself.
    """
    size = own.diagonal()
    if np.all(size != 0.0):
        first = sp.diags_array(1.0 / size)
        levels = sp.csr_array(first @ own)
        levels.setdiag(0.0)
        levels.eliminate_zeros()
        term = total = sp.csr_array(first @ given)
        for _ in range(len(size)):
            term = sp.csr_array(-(levels @ term))
            if not term.nnz:
                return sp.csr_array(total)
            total = total + term
    message = "a variable that follows from itself"
    raise ValueError(message)


__all__ = ["Substitution"]
