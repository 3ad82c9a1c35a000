"""The 2 x 2 principal minors of Hermitian matrices, as cones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder


def write_minors(
    builder: ProgramBuilder,
    pool: Affine,
    component: str,
    names: Sequence[str],
    h: int,
    places: IntArray,
    scale: FloatArray,
) -> None:
    """``|M_ij|^2 <= M_ii M_jj`` for every pair of rows, in matrices scaled to about one.

    Args:
        builder: takes the rows.
        pool: elements of all matrices; see `lateral.formulations.hermitian`.
        component: what the rows belong to.
        names: of the matrices, b of them.
        h: their dimension.
        places: their elements, shape (b, h^2).
        scale: typical size of the root of each diagonal entry, shape (b, h).
    """
    i, j = np.triu_indices(h, 1)
    pairs = len(i)
    s_i, s_j = scale[:, i].reshape(-1, 1), scale[:, j].reshape(-1, 1)
    re, im = (pool.take(places[:, h + k * pairs : h + (k + 1) * pairs].reshape(-1)) / (s_i * s_j) for k in (0, 1))
    u, v = (pool.take(places[:, side].reshape(-1)) / s**2 for side, s in ((i, s_i), (j, s_j)))
    labels = [f"{name} {a}{b}" for name in names for a, b in zip(i.tolist(), j.tolist(), strict=True)]
    builder.product(component, f"minors_{h}", labels, [re, im], v, u)


__all__ = ["write_minors"]
