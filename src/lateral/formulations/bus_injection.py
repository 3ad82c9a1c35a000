"""Bus injection in rectangular coordinates: exact for any feeder, with voltages as the only network variables.

    p_i = Re(V_i conj((Y V)_i - other currents)),   q_i = Im(...)           at a node with a port to ground

The current of a port to ground is what the nodal matrix says; delta ports keep a current of their own. Neglects
nothing.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from lateral.formulations.rectangular import RectangularFormulation, RectangularModel
from lateral.network.schema import IntArray
from lateral.program.ports import Ports


@final
class _Model(RectangularModel):
    def _own_currents(self, ports: Ports) -> IntArray:
        return np.flatnonzero(ports.b >= 0)


@final
class BusInjection(RectangularFormulation):
    """Exact bus injection form (any phases, radial or meshed)."""

    name: ClassVar[str] = "bus-injection"
    title: ClassVar[str] = "exact bus injection form (any phases, radial or meshed)"
    model: ClassVar[type[RectangularModel]] = _Model
