"""How large or small an affine array can be, by the bounds of its variables at given data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lateral.network.schema import FloatArray
from lateral.program.affine import Affine
from lateral.program.program import Block

_NOTHING = np.zeros(0)
#: unbounded quantities that are about one: voltages, and what follows them
_NEAR_ONE = ("vmag_sq", "vmag", "v_power", "law")

#: variables with their lower and upper bounds, as arrays of data
Bounds = Sequence[tuple[Block, Affine, Affine]]


def magnitude(
    expr: Affine, bounds: Bounds, n: int, theta: FloatArray, *, variables: bool = True, unbounded: float = 0.0
) -> FloatArray:
    """An upper bound of |expr| at the present data, shape (n, T): variables at their largest bound, or left out.

    ``unbounded`` is what a variable without a bound counts as, unless it is a voltage.
    """
    size = np.abs(expr.val)
    with_par = expr.par >= 0
    size[with_par] *= np.abs(theta[expr.par[with_par]])
    with_var = expr.col >= 0
    if variables:
        reach = _reach(bounds, n, theta, unbounded)
        size[with_var] *= reach[expr.col[with_var]]
    else:
        # a voltage-dependent term counts at nominal voltage, a device's decision not at all
        nominal = np.zeros(n)
        for block, _, _ in bounds:
            if block.quantity in _NEAR_ONE:
                nominal[block.cells] = 1.0
        size[with_var] *= nominal[expr.col[with_var]]
    total = np.abs(expr.const) + np.bincount(expr.row, weights=size, minlength=len(expr.const))
    return np.asarray(total.reshape(expr.shape))


def least(expr: Affine, bounds: Bounds, n: int, theta: FloatArray) -> FloatArray:
    """A lower bound of an array of numbers and variables, shape (n, T): variables at their worse bound."""
    low, high = np.full(n, -np.inf), np.full(n, np.inf)
    for block, lower, upper in bounds:
        low[block.cells], high[block.cells] = (s.value(_NOTHING, theta).reshape(-1) for s in (lower, upper))
    has = (expr.col >= 0) & (expr.val != 0.0)
    val, col = expr.val[has], expr.col[has]
    part = np.where(val > 0.0, val * low[col], val * high[col])
    total = expr.const + np.bincount(expr.row[has], weights=part, minlength=len(expr.const))
    return np.asarray(total.reshape(expr.shape))


def _reach(bounds: Bounds, n: int, theta: FloatArray, unbounded: float) -> FloatArray:
    """Largest magnitude that each variable's bounds allow; unbounded, voltages count as 1.2 and others as said."""
    out = np.zeros(n)
    for block, lower, upper in bounds:
        low, high = (np.abs(side.value(_NOTHING, theta)).reshape(-1) for side in (lower, upper))
        reach = np.maximum(low, high)
        fallback = 1.2 if block.quantity in _NEAR_ONE else unbounded
        out[block.cells] = np.where(np.isfinite(reach), reach, fallback)
    return out
