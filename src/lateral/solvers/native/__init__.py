"""native: a structured interior-point solver for multi-period programs on a tree.

A radial feeder is a tree in space, a horizon a chain in time. General solvers find that out by ordering one large
sparse matrix; this one knows it. One step's linear system is eliminated from the leaves to the root in small dense
pivots, all steps side by side; storage, which links the steps, is left to conjugate gradients with a preconditioner
that is exact in time.

    options    what can be asked for
    steps      what a program looks like in one step, and what links steps
    order      from the leaves to the root of a tree of one conductor per bus
    pairing    the order of any other network: pairs of large coefficients, least fill first
    symbolic   where elimination fills in
    kernels    the loops, compiled by Numba
    kkt        the linear system of one Newton step
    method     predictor, corrector, steps, stopping
    session    from a program to a solution, again and again

It takes what repeats step by step (all balanced and three-phase models but those with matrices), and says why it
declines the rest. Its answer is judged like any other solver's, by recomputed residuals.
"""

from __future__ import annotations

from typing import ClassVar, final

from lateral.program import ProblemClass, Program
from lateral.solvers.base import Session, Solver
from lateral.solvers.native.options import NativeOptions


@final
class NativeSolver(Solver):
    """The structured solver."""

    name: ClassVar[str] = "native"
    accepts: ClassVar[frozenset[ProblemClass]] = frozenset(ProblemClass) - {ProblemClass.SDP}

    def __init__(self, options: NativeOptions | None = None) -> None:
        self._own = options or NativeOptions()
        super().__init__(self._own)

    def _start(self, program: Program) -> Session:
        from lateral.solvers.native.session import NativeSession

        return NativeSession(program, self._own)


__all__ = ["NativeOptions", "NativeSolver"]
