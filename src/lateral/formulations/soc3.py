"""Second-order cone relaxation of the unbalanced branch flow: the 2 x 2 minors of the semidefinite one.

    |M_ij|^2 <= M_ii M_jj           for every pair of rows of M = [ v_p  X ; X^H  L ], and of v at every bus

Convex and weaker than `sdp`: a bound, and a fast one. It is hardly ever exact on unbalanced feeders; on three equal
phases without coupling, and on one conductor, it is as good as `sdp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from lateral.formulations.matrix_flow import MatrixFlowModel, MatrixFormulation
from lateral.formulations.minors import write_minors
from lateral.network.schema import FloatArray, IntArray


@final
class _Model(MatrixFlowModel):
    _congruent_needs_rows: ClassVar[bool] = True
    #: with charging in a line the cones of its one matrix are hard to solve (IEEE 34: 159 iterations, gap 2e-4)
    _joins_charging: ClassVar[bool] = False

    def _positive(self, component: str, names: Sequence[str], h: int, places: IntArray, scale: FloatArray) -> None:
        """Every 2 x 2 minor."""
        write_minors(self.builder, self.m.pool, component, names, h, places, scale)


@final
class SOC3(MatrixFormulation):
    """Second-order cone relaxation of the branch flow (any phases, radial)."""

    name: ClassVar[str] = "soc3"
    title: ClassVar[str] = "second-order cone relaxation of the branch flow (any phases, radial)"
    consensus_penalty: ClassVar[float] = 0.3
    model: ClassVar[type[MatrixFlowModel]] = _Model
