"""A generic admittance as a branch between sending and receiving nodes, where it has that form.

With the admittance matrix of an element over its sending nodes p and receiving nodes s, symmetric (reciprocal)::

    Y = [ Y_pp  Y_ps ]  =  [  A'Y_s A   -A'Y_s ]  +  [ D_p   0  ]        A real, Y_s symmetric
        [ Y_sp  Y_ss ]     [ -Y_s A       Y_s  ]     [  0   D_s ]

The first part is an ideal part A behind a series impedance ``Z = pinv(Y_s)``, the form of `lateral.network.branches`;
the second one are admittances at the nodes of either side (magnetising and charging terms, antifloat shunts). Nothing
is neglected. A is real because an ideal part neither takes nor gives power. It is the matrix nearest to the real part
of ``-pinv(Y_ss) Y_sp``, with the rows that Y_sp has, for which ``A' Y_sp`` is symmetric (else there is no Y_s; the
condition is linear in A). Y_s is Y_ss with a small symmetric change for which ``Y_s A = -Y_sp``::

    E = -Y_sp - Y_ss A        Y_s = Y_ss + E A+ + (E A+)' - (A+)'(A' E) A+        A+ = pinv(A)

(the symmetric solution of ``D A = E``; Don 1987, "On the symmetric solutions of a linear matrix equation"). Modes of
Y_ss below `FLOATING` of its largest, per unit, are those of an ungrounded side, which nothing but antifloat shunts
holds: they carry no current and belong to D_s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lateral.network.schema import ComplexArray, FloatArray

#: Singular values below this part of the largest are of a side that floats. A leakage impedance gives 1e-3 and more,
#: a magnetising branch 1e-5, the antifloat shunts of one part per million 1e-7.
FLOATING = 1e-6

#: Part of the largest entry that may be left between the two sides.
COUPLING = 1e-9

#: Nodes of an element that is looked at: the condition on A is a matrix of the fourth power of their number.
MOST_NODES = 40


@dataclass(frozen=True, eq=False)
class BranchForm:
    """An admittance matrix as ideal part, series impedance and what is left at the nodes.

    Attributes:
        a: ideal part, real, shape (s, p).
        z: series impedance, ohm, shape (s, s).
        rest: what is left at the nodes, siemens, sending nodes first, shape (p + s, p + s); zero between the sides.
    """

    a: ComplexArray
    z: ComplexArray
    rest: ComplexArray


def branch_form(y: ComplexArray, n_sending: int, v_base: FloatArray) -> BranchForm | None:
    """The branch form of an admittance matrix; None where it has none.

    Args:
        y: admittance, siemens, symmetric, sending nodes first, shape (n, n).
        n_sending: how many of the nodes are sending ones.
        v_base: voltage base of each node, to any common unit, shape (n,): it makes modes of both sides comparable.
    """
    n, p = len(y), n_sending
    if not 0 < p < n or n > MOST_NODES or not np.isfinite(y).all():
        return None
    scaled = y * np.outer(v_base, v_base)  # per unit of an arbitrary power
    size = float(np.abs(scaled).max())
    if size == 0.0:
        return None
    y_sp, y_ss = scaled[p:, :p], scaled[p:, p:]
    z_first, _ = _inverse(y_ss)
    a = _reciprocal(np.real(-z_first @ y_sp), y_sp)
    # an entry below this is what is left of a difference, and would only make the matrix fuller
    a[np.abs(a) < 1e-11 * np.abs(a).max(initial=0.0)] = 0.0
    if (np.abs(a).max(axis=1) < 1e-6).any():
        return None  # a receiving node that the sending side does not feed
    back = np.linalg.pinv(a, rcond=1e-9)
    missing = -y_sp - y_ss @ a
    change = missing @ back
    change = change + change.T - back.T @ (a.T @ missing) @ back
    z, y_s = _inverse(y_ss + 0.5 * (change + change.T))
    coupling = y_sp + y_s @ a
    if np.abs(coupling).max() > COUPLING * size:
        return None
    rest = np.zeros_like(scaled)
    rest[:p, :p] = scaled[:p, :p] - a.T @ y_s @ a
    rest[p:, p:] = y_ss - y_s
    volt_p, volt_s = v_base[:p], v_base[p:]
    return BranchForm(
        a=(a * volt_s[:, None] / volt_p[None, :]).astype(complex),
        z=z * np.outer(volt_s, volt_s),
        rest=0.5 * (rest + rest.T) / np.outer(v_base, v_base),
    )


def _reciprocal(a: FloatArray, y_sp: ComplexArray) -> FloatArray:
    """The matrix nearest to a, in the row space of Y_sp, for which ``A' Y_sp`` is symmetric."""
    _, size, rows = np.linalg.svd(np.vstack([y_sp.real, y_sp.imag]))
    rank = int(np.count_nonzero(size > 1e-9 * size.max(initial=0.0)))
    basis = rows[:rank].T  # A = X basis'; what Y_sp does not see is no part of A
    seen = y_sp @ basis
    x = a @ basis
    j, k = np.triu_indices(rank, 1)
    if len(j):
        # (X' seen)_jk - (X' seen)_kj = 0, one row per pair; X row by row
        condition = np.zeros((len(j), len(x), rank), dtype=complex)
        at = np.arange(len(j))
        condition[at, :, j] += seen[:, k].T
        condition[at, :, k] -= seen[:, j].T
        flat = condition.reshape(len(j), -1)
        flat = np.vstack([flat.real, flat.imag])
        x = x - (np.linalg.pinv(flat, rcond=1e-12) @ (flat @ x.ravel())).reshape(x.shape)
    out: FloatArray = x @ basis.T
    return out


def _inverse(y: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
    """Pseudo-inverse of a symmetric matrix without its floating modes, and the matrix without them."""
    left, size, right = np.linalg.svd(y)
    keep = size > FLOATING * size.max(initial=0.0)
    left, size, right = left[:, keep], size[keep], right[keep]
    z: ComplexArray = right.conj().T @ (left.conj().T / size[:, None])
    own: ComplexArray = (left * size) @ right
    return 0.5 * (z + z.T), 0.5 * (own + own.T)


__all__ = ["COUPLING", "FLOATING", "BranchForm", "branch_form"]
