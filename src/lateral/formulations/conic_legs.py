"""What the leaves with a current variable share: losses r l and x l, squared drop |z|^2 l.

    L_P = r l,   L_Q = x l,   d = |z|^2 l,   P^2 + Q^2  {<=, =}  w l

The bound l >= 0 is not written: the row implies it, and interior-point methods crawl along it (128 against 22
iterations, solver study section 4). Each l is scaled by the square of its branch's power scale.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from lateral.formulations.branch_flow import BranchFlowModel
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine
from lateral.program.ports import Ports


class ConicLegs(BranchFlowModel):
    """Legs with a squared current; a leaf says whether its row is an equality."""

    #: whether a device took the side of its band at nominal voltage
    _sides = False

    @property
    @abstractmethod
    def _exact(self) -> bool:
        """True when ``P^2 + Q^2 = w l``."""

    def _series(self, w: Affine) -> tuple[Affine, Affine, Affine]:
        net = self.net
        scale = (self.leg_scale**2).reshape(-1, 1)
        i_base = self.base.i_a(1.0) / net.v_base_kv[net.to_node]
        self.l = self.builder.variable(
            "branch", "imag_sq", net.legs, unit="A^2", to_unit=i_base**2, scale=scale, upper=self._l_max(), start=0.0
        )
        self.builder.product(
            "branch", "current", net.legs, [self.p, self.q], self.l, w, equality=self._exact, scale=scale
        )
        # balanced feeders have one leg per branch, so Z is one number per leg
        self._z = np.zeros(net.n_legs, dtype=complex)
        self._z[net.z_row] = net.z_val
        r, x, z_sq = (a.reshape(-1, 1) for a in (self._z.real, self._z.imag, np.abs(self._z) ** 2))
        return self.l * r, self.l * x, self.l * z_sq

    def _l_max(self) -> FloatArray:
        return (self.net.i_max_pu**2).reshape(-1, 1)

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
        """|z|^2 l with the source's own current, ``p^2 + q^2 {<=, =} v l``."""
        current = self.builder.variable("feed", "imag_sq", elements, unit="pu", limit=False)
        self.builder.product("feed", "current", elements, [p, q], current, v, equality=self._exact)
        return current * (np.abs(np.diag(z)) ** 2).reshape(-1, 1)

    def assume_v(
        self, ports: Ports, low: FloatArray, high: FloatArray, *, beside: tuple[FloatArray, FloatArray] | None = None
    ) -> None:
        """See `NetworkModel.assume_v`; laws were taken at nominal voltage."""
        own = np.flatnonzero(np.any((low > 0.0) | np.isfinite(high), axis=-1) & (ports.a >= 0))
        if not len(own):
            return
        shape = (len(ports), self.n_steps)
        cells = self.v.take(ports.a[own]).col.reshape(len(own), self.n_steps)
        least, most = (np.broadcast_to(side, shape)[own] for side in (low, high))

        def beyond(x: FloatArray) -> FloatArray:
            u = np.sqrt(np.maximum(x[cells], 0.0))
            return np.asarray(np.maximum(least - u, u - most))

        self._sides = True
        self.builder.assume("port", "v_side", [self._names[k] for k in ports.a[own]], beyond)

    def takes_for_granted(self) -> tuple[str, ...]:
        """See `NetworkModel.takes_for_granted`."""
        side = "loads and inverters stay on the side of their voltage band on which nominal voltage is"
        return (side,) if self._sides else ()

    def _limit_current(self, legs: IntArray, names: Sequence[str], limit_sq: FloatArray, w: Affine) -> None:
        """The limit is the upper bound of l, written with the variable."""

    def _losses(self, w_0: ComplexArray, weights: Sequence[Affine]) -> None:
        """``sum r l``."""
        losses = (self.l * self._z.real.reshape(-1, 1)).sum_elements()
        self.builder.output("system", "losses", ["all"], losses, unit="kW", to_unit=self.base.total_kva)
        for weight in weights:
            self.builder.minimise(losses.times_parameter(weight))

    @property
    def neglects_losses(self) -> bool:
        """False: r l is in the balance."""
        return False
