"""How objective and rows depend on the voltages of all nodes, which the prices of eliminated nodes need.

Rows of a program know the voltages of the kept nodes alone. A current drawn at an eliminated node moves its voltage
beside what those do, so that its price has a part of its own (`lateral.network.kron.ReducedNetwork.own_dual`) wherever
something depends on that voltage: losses, a limit there, a current through a line that ends there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, Block, DualOf, Program

#: From the voltages of all nodes, variables, the program and its duals to the derivative by each voltage, of the real
#: part by the real one and of the imaginary part by the imaginary one, as a complex array, shape (n, T): of a cost, or
#: of rows times their duals, less.
Slope = Callable[[ComplexArray, FloatArray, Program, DualOf], ComplexArray]


def of_squares(at: sparse.csr_matrix, block: Block, share: FloatArray | float = 1.0) -> Slope:
    """Of rows with ``share |u|^2`` in them, ``u = at V``."""

    def slope(v: ComplexArray, _x: FloatArray, _program: Program, dual_of: DualOf) -> ComplexArray:
        return np.asarray(at.conj().T @ (-2.0 * dual_of(block) * share * (at @ v)))

    return slope


def of_cost(at: sparse.csr_matrix, weight: Affine) -> Slope:
    """Of a cost ``sum weight |u|^2``, ``u = at V``; the weight of shape (n, T)."""

    def slope(v: ComplexArray, x: FloatArray, program: Program, _dual_of: DualOf) -> ComplexArray:
        return np.asarray(at.conj().T @ (2.0 * weight.value(x, program.theta) * (at @ v)))

    return slope


def of_losses(wires: sparse.csc_matrix, weight: Affine) -> Slope:
    """Of a cost ``sum weight_t Re(V^H Y V)``; the weight of shape (1, T)."""
    both = (wires + wires.conj().T).tocsr()

    def slope(v: ComplexArray, x: FloatArray, program: Program, _dual_of: DualOf) -> ComplexArray:
        return np.asarray(weight.value(x, program.theta) * (both @ v))

    return slope


def of_power(w: sparse.csr_matrix, i: sparse.csr_matrix, block: Block, row: IntArray, kind: complex) -> Slope:
    """Of rows with ``sum Re(u conj(c))`` in them, or ``sum Im(u conj(c))``, with ``u = w V`` and ``c = i V``.

    Args:
        w, i: the matrices, shape (k, n).
        block: the rows.
        row: row of each product, shape (k,).
        kind: 1 for the real part, j for the imaginary one.
    """

    def slope(v: ComplexArray, _x: FloatArray, _program: Program, dual_of: DualOf) -> ComplexArray:
        dual = -dual_of(block)[row]
        by_u, by_c = dual * kind * (i @ v), dual * np.conj(kind) * (w @ v)
        return np.asarray(w.conj().T @ by_u + i.conj().T @ by_c)

    return slope


__all__ = ["Slope", "of_cost", "of_losses", "of_power", "of_squares"]
