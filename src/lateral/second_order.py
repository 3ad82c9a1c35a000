"""A first-order program with the curvature of the exact one, where that is known to matter.

A program at a schedule x_k has no more than a part of how the exact rows bend: that of the losses, squares and laws of
loads, each where it is convex by itself. A decided ratio ``U = a E`` has none, and where a limit binds whose price turns
the losses over, or losses are worth something, what it has is wrong: steps are as long as the trust region lets them
be, and each is a little shorter than the one before. The Hessian H of the Lagrangian of the exact program has all of
it, with the multipliers of the program that was solved last; but it is not convex. What is asked of it is how it bends
along the steps that keep the rows, and there are no more of those than decisions d: the network follows by
``dx = J dd``, and a part that hangs together (a step of the horizon, as a rule) has::

    R = Z' H Z,     Z = [J; 1],     R = W diag(r) W'   ->   R+ = W diag(max(r, 0)) W'

R+ is the curvature of the program that is solved next, in the decisions alone: a convex one, and to second order exact
where the optimum is one that a convex program can find (successive quadratic programming; Nocedal and Wright 2006,
chapter 18; Conn, Gould and Toint 2000, section 15.3, with the trust region). The rounds then come nearer by the square
of the distance.
"""

from __future__ import annotations

import dataclasses

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


def with_curvature(
    tangent: Tangent, program: Program, solution: Solution, begin: FloatArray, decisions: IntArray
) -> Program | None:
    """The program at its point with the curvature of the exact one.

    Args:
        tangent: of the program.
        program: made at a schedule.
        solution: multipliers, and where the step that they are of led to.
        begin: where that step began.
        decisions: variables that give all of the network.

    Returns:
        None where the decisions do not give the network, or there are too many in one part of it.
    """
    bare = tangent.without_curvature(program)
    x, n = bare.start_point, bare.n
    given = tangent.given
    rows = tangent.rows(bare, decisions)
    if not len(given) or len(rows) != len(given):
        return None
    scale = sp.diags_array(bare.eq_scale[rows])
    square = sp.csc_array(scale @ bare.a[rows][:, given])
    right = sp.csc_array(scale @ bare.a[rows][:, decisions])
    part_of, of_row = _parts(square)
    touched = sp.coo_array(right)
    pairs = np.unique(np.stack([of_row[touched.row], touched.col]), axis=1)  # parts and the decisions in them
    size = np.bincount(pairs[0], minlength=part_of.max() + 1)
    if int((size**2).sum()) > MOST_NUMBERS:
        return None
    # decisions of different parts are solved for at once
    place = np.arange(pairs.shape[1]) - np.concatenate([[0], np.cumsum(size)])[pairs[0]]
    number = sp.csr_array((place + 1, (pairs[0], pairs[1])), shape=(len(size), len(decisions)))
    at = np.asarray(number[of_row[touched.row], touched.col]).reshape(-1) - 1
    dense = np.zeros((len(rows), int(size.max(initial=0))))
    np.add.at(dense, (touched.row, at), touched.data)
    try:
        follows = -splu(square).solve(dense)
    except RuntimeError:  # of scipy: the factor is exactly singular
        return None

    hessian = sp.csr_array(bare.q + tangent.hessian(bare, solution, begin))
    left = sp.coo_array(bare.q)
    inside = np.zeros(n, dtype=bool)
    inside[given] = True
    keep = ~(inside[left.row] | inside[left.col])
    entries = [(left.row[keep], left.col[keep], left.data[keep])]
    taken = sp.coo_array(hessian)
    apart = ~(inside[taken.row] | inside[taken.col])
    hessian = sp.csr_array(
        (taken.data[~apart], (taken.row[~apart], taken.col[~apart])), shape=hessian.shape
    )
    order = np.argsort(part_of, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(part_of, minlength=len(size)))])
    first = np.concatenate([[0], np.cumsum(size)])
    for k in range(len(size)):
        if not size[k]:
            continue
        own, dec = order[ends[k] : ends[k + 1]], decisions[pairs[1, first[k] : first[k + 1]]]
        z = np.vstack([follows[own, : size[k]], np.eye(size[k])])
        index = np.concatenate([given[own], dec])
        bent = z.T @ (hessian[index][:, index] @ z)
        values, vectors = np.linalg.eigh(0.5 * (bent + bent.T))
        bent = (vectors * np.maximum(values, 0.0)) @ vectors.T
        entries.append((np.repeat(dec, size[k]), np.tile(dec, size[k]), bent.reshape(-1)))
    row, col, value = (np.concatenate([e[k] for e in entries]) for k in range(3))
    q = sp.csc_array(sp.coo_array((value, (row, col)), shape=(n, n)))
    slope = bare.c + bare.q @ x
    c = slope - q @ x
    c0 = bare.objective(x) - float(c @ x) - 0.5 * float(x @ (q @ x))
    return dataclasses.replace(bare, q=q, c=c, c0=c0)


def _parts(square: sp.csc_array) -> tuple[IntArray, IntArray]:
    """Which part each column of a square matrix is of, and each row."""
    n = square.shape[0]
    graph = sp.block_array([[None, abs(square)], [abs(square).T, None]], format="csr")
    label = connected_components(graph, directed=False)[1]
    return label[n:], label[:n]


__all__ = ["with_curvature"]
