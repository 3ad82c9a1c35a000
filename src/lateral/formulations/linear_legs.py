"""What the linear leaves of the branch-flow family share: series loss and squared drop are numbers.

Losses that follow the decisions are not in the balance. They enter the objective only, as a convex quadratic of the
flows (`quadratic_loss_terms`), so that reactive power is not left at an arbitrary vertex.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from lateral.formulations.branch_flow import BranchFlowModel, quadratic_loss_terms
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine


class LinearLegs(BranchFlowModel):
    """Linear legs; a leaf says which constants."""

    @abstractmethod
    def _constants(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(L_P, L_Q, d) of every leg, each of shape (K, 1) or (K, T)."""

    def _series(self, w: Affine) -> tuple[Affine, Affine, Affine]:
        shape = (self.net.n_legs, self.n_steps)
        p, q, d = (Affine.constant(np.broadcast_to(c, shape)) for c in self._constants())
        return p, q, d

    def _known_losses(self) -> FloatArray:
        p, q, _ = self._constants()
        return np.asarray((np.abs(p) + np.abs(q)).max(axis=1))

    def _source_drop_sq(
        self,
        elements: Sequence[str],
        nodes: IntArray,
        p: Affine,
        q: Affine,
        v: Affine,
        z: ComplexArray,
        drop_0: ComplexArray,
    ) -> Affine:
        """A number, as for the legs."""
        constant = self._source_drop_constant(drop_0)
        return Affine.constant(np.broadcast_to(constant, (len(nodes), self.n_steps)))

    @abstractmethod
    def _source_drop_constant(self, drop_0: ComplexArray) -> FloatArray:
        """|Z I|^2 across a source's impedance, from the drop at the operating point."""

    def _limit_current(self, legs: IntArray, names: Sequence[str], limit_sq: FloatArray, w: Affine) -> None:
        """``P^2 + Q^2 <= i_max^2 w``, a cone."""
        column = limit_sq.reshape(-1, 1)
        self.builder.product(
            "branch",
            "i_limit",
            names,
            [self.p.take(legs), self.q.take(legs)],
            w * column,
            Affine.constant(np.ones((len(legs), self.n_steps))),
            unit="A",
            to_unit=self.base.s_kva / self.net.v_base_kv[self.net.to_node[legs]],
            scale=column,
            limit=True,
        )

    def _losses(self, w_0: ComplexArray, weights: Sequence[Affine]) -> None:
        """Estimated from the flows: ``sum r (P^2 + Q^2) / |W|^2``."""
        terms = quadratic_loss_terms(self, w_0)
        self.builder.output_squares("system", "losses", terms, unit="kW", to_unit=self.base.total_kva)
        for weight in weights:
            for term in terms:
                self.builder.minimise_squares(term, weight.take(np.zeros(term.n, dtype=np.int64)))

    @property
    def neglects_losses(self) -> bool:
        """True: losses do not follow the decisions here."""
        return True
