"""A first-order program with the curvature of the exact one, where that is known to matter.

A program at a schedule x_k has no more than a part of how the exact rows bend: that of the losses, squares and laws of
loads, each where it is convex by itself. A decided ratio ``U = a E`` has none, and where a limit binds whose price
turns the losses over, or losses are worth something, what it has is wrong: steps are as long as the trust region lets
them be, and each is a little shorter than the one before. The Hessian H of the Lagrangian of the exact program has all
of it, with the multipliers of the program that was solved last; but it is not convex. What is asked of it is how it
bends along the steps that keep the rows, and there are no more of those than decisions d: the network follows by
``dx = J dd``, and a part that hangs together (a step of the horizon, as a rule) has::

    R = Z' H Z,     Z = [J; 1],     R = W diag(r) W'   ->   R+ = W diag(max(r, 0)) W'

R+ is the curvature of the program that is solved next, in the decisions alone: a convex one, and to second order exact
where the optimum is one that a convex program can find (successive quadratic programming; Nocedal and Wright 2006,
chapter 18; Conn, Gould and Toint 2000, section 15.3, with the trust region). The rounds then come nearer by the square
of the distance.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from lateral.network.schema import FloatArray, IntArray
from lateral.program import Program
from lateral.program.tangent import Tangent
from lateral.solvers import Solution

#: Numbers in all R together from which on the program becomes slower than it gains.
MOST_NUMBERS = 1_000_000
#: Numbers in J, which is dense, from which on it takes too much memory (240 MB, and a copy of it).
MOST_FOLLOWING = 30_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What decisions give, in parts that hang together by nothing else.

    Attributes:
        decisions: variables that are decided, shape (d,).
        given: variables that follow, shape (g,), by as many equalities ``rows``.
        part: of each variable that follows, and of each row, shape (g,).
        touched: parts and the decisions in them (positions), in order of the parts, shape (2, k).
    """

    decisions: IntArray
    given: IntArray
    rows: IntArray
    part: tuple[IntArray, IntArray]
    touched: IntArray

    @classmethod
    def of(cls, tangent: Tangent, program: Program, decisions: IntArray) -> Parts | None:
        """The parts of a program; None where the network follows no decision, decisions do not give it, or there are
        too many of them."""
        given, rows = tangent.given, tangent.rows(program, decisions)
        if not len(given) or len(rows) != len(given):
            return None
        square = abs(program.a[rows][:, given])
        graph = sp.block_array([[None, square], [square.T, None]], format="csr")
        label = connected_components(graph, directed=False)[1]
        right = sp.coo_array(program.a[rows][:, decisions])
        touched = np.unique(np.stack([label[: len(rows)][right.row], right.col]), axis=1)
        sizes = np.bincount(touched[0])
        if not touched.size or int((sizes**2).sum()) > MOST_NUMBERS or len(rows) * int(sizes.max()) > MOST_FOLLOWING:
            return None
        return cls(decisions, given, rows, (label[len(rows) :], label[: len(rows)]), touched)

    @property
    def size(self) -> IntArray:
        """Number of decisions of each part, shape (parts,)."""
        return np.bincount(self.touched[0], minlength=int(self.part[0].max()) + 1)

    def follows(self, program: Program) -> FloatArray | None:
        """J of every part: rows as ``given``, columns as the decisions of the row's part; None where there is none.

        Decisions of different parts are solved for at once.
        """
        scale = sp.diags_array(program.eq_scale[self.rows])
        square = sp.csc_array(scale @ program.a[self.rows][:, self.given])
        right = sp.coo_array(scale @ program.a[self.rows][:, self.decisions])
        size = self.size
        place = np.arange(self.touched.shape[1]) - (np.cumsum(size) - size)[self.touched[0]]
        number = sp.csr_array((place + 1, tuple(self.touched)), shape=(len(size), len(self.decisions)))
        at = np.asarray(number[self.part[1][right.row], right.col]).reshape(-1) - 1
        dense = np.zeros((len(self.rows), int(size.max(initial=0))))
        np.add.at(dense, (right.row, at), -right.data)
        try:
            return np.asarray(splu(square).solve(dense))
        except RuntimeError:  # of scipy: the factor is exactly singular
            return None


def with_curvature(
    tangent: Tangent, program: Program, parts: Parts, solution: Solution, begin: FloatArray
) -> Program | None:
    """The program at its point with the curvature of the exact one, as far as it is convex.

    Args:
        tangent: of the program.
        program: made at a schedule.
        parts: of the program.
        solution: multipliers, and where the step that they are of led to.
        begin: where that step began.

    Returns:
        None where the decisions do not give the network there.
    """
    bare = tangent.without_curvature(program)
    x, n = bare.start_point, bare.n
    curvatures = reduced(tangent, bare, parts, solution, begin)
    if curvatures is None:
        return None
    inside = np.zeros(n, dtype=bool)
    inside[parts.given] = True
    # costs of decisions alone stay as they are
    own = sp.coo_array(bare.q)
    alone = ~(inside[own.row] | inside[own.col])
    entries = [(own.row[alone], own.col[alone], own.data[alone])]
    for decided, bent in curvatures:
        values, vectors = np.linalg.eigh(bent)
        convex = (vectors * np.maximum(values, 0.0)) @ vectors.T
        entries.append((np.repeat(decided, len(decided)), np.tile(decided, len(decided)), convex.reshape(-1)))
    row, col, value = (np.concatenate([part[k] for part in entries]) for k in range(3))
    q = sp.csc_array((value, (row, col)), shape=(n, n))
    c = bare.c + bare.q @ x - q @ x
    c0 = bare.objective(x) - float(c @ x) - 0.5 * float(x @ (q @ x))
    return dataclasses.replace(bare, q=q, c=c, c0=c0)


def reduced(
    tangent: Tangent, program: Program, parts: Parts, solution: Solution, begin: FloatArray
) -> list[tuple[IntArray, FloatArray]] | None:
    """R of every part, with the variables that are its decisions; arguments as in `with_curvature`, of a program
    without curvature of its own."""
    follows = parts.follows(program)
    if follows is None:
        return None
    inside = np.zeros(program.n, dtype=bool)
    inside[parts.given] = True
    hessian = sp.coo_array(program.q + tangent.hessian(program, solution, begin))
    there = inside[hessian.row] | inside[hessian.col]
    hessian = sp.csr_array((hessian.data[there], (hessian.row[there], hessian.col[there])), shape=hessian.shape)
    size = parts.size
    order = np.argsort(parts.part[0], kind="stable")
    ends = np.cumsum(np.bincount(parts.part[0], minlength=len(size)))
    out = []
    for k in np.flatnonzero(size).tolist():
        given = order[ends[k - 1] if k else 0 : ends[k]]
        decided = parts.decisions[parts.touched[1][parts.touched[0] == k]]
        z = np.vstack([follows[given, : size[k]], np.eye(size[k])])
        index = np.concatenate([parts.given[given], decided])
        bent = z.T @ (hessian[index][:, index] @ z)
        out.append((decided, 0.5 * (bent + bent.T)))
    return out


__all__ = ["Parts", "reduced", "with_curvature"]
