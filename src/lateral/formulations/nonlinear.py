"""The exact branch flow of a balanced radial feeder (Baran and Wu 1989).

    P^2 + Q^2 = w l

Neglects nothing of a balanced radial feeder. Non-convex: a solution is a local optimum, and the status says so.
Loads are exact for any exponent: of constant current with ``y^2 = |V|^2``, of others with the curve ``y = v^(e/2)``.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.formulations.branch_flow import BranchFlowFormulation, BranchFlowModel
from lateral.formulations.conic_legs import ConicLegs
from lateral.formulations.point_model import numbered_port, susceptance_power
from lateral.network.schema import FloatArray
from lateral.program import Affine, Curve, Power
from lateral.program.ports import Ports


@final
class _Model(ConicLegs):
    @property
    def _exact(self) -> bool:
        return True

    _n_vmag = 0

    def power_of_v(self, ports: Ports, exponent: FloatArray) -> Affine:
        """Exact also for exponents other than 0 and 2: of 1 by a variable y with ``y^2 = |V|^2``, else by a curve."""
        linear = np.flatnonzero(exponent == 1.0)
        bent = np.flatnonzero((exponent != 0.0) & (exponent != 1.0) & (exponent != 2.0))
        if not len(linear) and not len(bent):
            return super().power_of_v(ports, exponent)
        own = np.concatenate([linear, bent])
        out = super().power_of_v(ports, np.where(np.isin(np.arange(len(ports)), own), 0.0, exponent))
        keep = np.ones(len(ports))
        keep[own] = 0.0
        out = out * keep.reshape(-1, 1)
        if len(linear):
            y = self._roots(Ports(ports.a[linear], ports.b[linear]))
            out = out + y.map_terms(len(ports), linear, np.arange(len(linear)), np.ones(len(linear)))
        if len(bent):
            power = Power(0.5 * exponent[bent].reshape(-1, 1))
            y = self._curve(Ports(ports.a[bent], ports.b[bent]), "v_power", power)
            out = out + y.map_terms(len(ports), bent, np.arange(len(bent)), np.ones(len(bent)))
        return out

    def _roots(self, ports: Ports) -> Affine:
        """|V| of ports: variables y with ``y^2 = |V|^2``."""
        self._n_vmag += 1
        names = [self._names[i] for i in ports.a]
        component = numbered_port(self._n_vmag)
        y = self.builder.variable(component, "vmag", names, unit="pu", lower=0.0, start=1.0, limit=False)
        ones = Affine.constant(np.ones(y.shape))
        self.builder.product(component, "vmag", names, [y], self.v.take(ports.a), ones, equality=True)
        return y

    #: see `NetworkModel.reads_curves`
    reads_curves = True

    def curve_of_v(self, ports: Ports, curve: Curve) -> Affine:
        """See `NetworkModel.curve_of_v`: a variable ``y = phi(v)``, exact."""
        return self._curve(ports, "curve", curve)

    def _curve(self, ports: Ports, quantity: str, curve: Curve) -> Affine:
        """New variables ``y = phi(v)``."""
        component, names, w = self._squares(ports)
        start = curve.value(self.builder.at_start(w))
        y = self.builder.variable(component, quantity, names, unit="pu", start=start, scale=1.0, limit=False)
        self.builder.curve(component, quantity, names, y, w, curve)
        return y

    def inject_susceptance(self, ports: Ports, b: Affine, b_0: FloatArray) -> Affine:
        """See `NetworkModel.inject_susceptance`: the bilinear row ``q = b v``, exact."""
        component, names, w = self._squares(ports)
        q = susceptance_power(self.builder, component, names, b, w, self.base.total_kva)
        self.inject(ports, Affine.zeros(*q.shape), q)
        return q

    def _squares(self, ports: Ports) -> tuple[str, list[str], Affine]:
        """A component of its own, the names of the ports' nodes, and their squared voltages as plain variables."""
        self._n_vmag += 1
        component = numbered_port(self._n_vmag)
        cells = self.v.col.reshape(self.v.shape)[ports.a].reshape(-1)
        each = np.arange(len(cells))
        w = Affine(
            len(ports), self.n_steps, each, cells, np.full(len(cells), -1), np.ones(len(cells)), np.zeros(len(cells))
        )
        return component, [self._names[k] for k in ports.a.tolist()], w


@final
class Nonlinear(BranchFlowFormulation):
    """Exact branch flow (balanced, radial)."""

    name: ClassVar[str] = "nonlinear"
    title: ClassVar[str] = "exact branch flow (balanced, radial)"
    balanced_only: ClassVar[bool] = True
    point: ClassVar[str] = "none"
    convex: ClassVar[bool] = False
    model: ClassVar[type[BranchFlowModel]] = _Model
