"""Semidefinite relaxation of the unbalanced branch flow (Gan and Low 2014).

    [ v_p  X ; X^H  L ] psd

Convex, so that its optimum is a lower bound. Exact when every matrix has rank one: the result reports the second
eigenvalue and the losses that do not exist. It is not where losses help (reverse flow with a voltage limit, minimum
curtailment, negative prices), with loads that follow another power of the voltage than 0 and 2, and often not with
delta loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from lateral.formulations.hermitian import embedding
from lateral.formulations.matrix_flow import MatrixFlowModel, MatrixFormulation
from lateral.formulations.minors import write_minors
from lateral.network.schema import FloatArray, IntArray
from lateral.program import upper_triangle


@final
class _Model(MatrixFlowModel):
    _congruent_needs_rows: ClassVar[bool] = False
    _joins_charging: ClassVar[bool] = True

    def _positive(self, component: str, names: Sequence[str], h: int, places: IntArray, scale: FloatArray) -> None:
        """The real matrix ``[[Re, -Im], [Im, Re]]`` psd; of two rows and columns a cone, which is the same."""
        if h == 2:
            write_minors(self.builder, self.m.pool, component, names, h, places, scale)
            return
        b, (_, per) = len(names), embedding(h).shape
        rows, cols = upper_triangle(2 * h)
        size = np.hstack([scale, scale])
        element, entry = np.nonzero(embedding(h))
        # scaled to about one here, so that a violation means the same in every part of a matrix
        size = (size[:, rows] * size[:, cols])[:, entry]
        weight = (embedding(h)[element, entry] / size).reshape(-1)
        out = (np.arange(b)[:, None] * per + entry).reshape(-1)
        entries = self.m.pool.map_terms(b * per, out, places[:, element].reshape(-1), weight)
        self.builder.psd(component, f"psd_{h}", names, 2 * h, entries, scale=np.ones((b, 2 * h)))


@final
class SDP(MatrixFormulation):
    """Semidefinite relaxation of the branch flow (any phases, radial)."""

    name: ClassVar[str] = "sdp"
    title: ClassVar[str] = "semidefinite relaxation of the branch flow (any phases, radial)"
    consensus_penalty: ClassVar[float] = 0.3
    consensus_ratio: ClassVar[float] = 25.0
    model: ClassVar[type[MatrixFlowModel]] = _Model
