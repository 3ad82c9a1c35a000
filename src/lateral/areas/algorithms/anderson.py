"""Anderson acceleration (Anderson 1965) of a map x -> x + f(x), from the last points and what came of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lateral.network.schema import FloatArray


def anderson(points: Sequence[tuple[FloatArray, FloatArray]], mixing: float) -> FloatArray:
    """``x + b f - (dX + b dF) gamma``, gamma = argmin |f - dF gamma| (type II; Walker and Ni 2011, eq. 2.2).

    Args:
        points: (x, f) of the last rounds, the newest last; two or more.
        mixing: b.
    """
    x, f = points[-1]
    d_x = np.column_stack([x - a for a, _ in points[:-1]])
    d_f = np.column_stack([f - b for _, b in points[:-1]])
    gamma = np.linalg.lstsq(d_f, f, rcond=1e-10)[0]
    return np.asarray(x + mixing * f - (d_x + mixing * d_f) @ gamma)


__all__ = ["anderson"]
