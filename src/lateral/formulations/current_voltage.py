"""The current-voltage form: exact for any feeder, with the current of every port as a variable (O'Neill et al. 2012).

    Y V = M' I + I_source,   p = Re(U conj(I)),   q = Im(U conj(I)),   U = M V

Current balance is linear; each port has two bilinear rows of four variables. Neglects nothing.
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
        return np.arange(len(ports))


@final
class CurrentVoltage(RectangularFormulation):
    """Exact current-voltage form (any phases, radial or meshed)."""

    name: ClassVar[str] = "current-voltage"
    title: ClassVar[str] = "exact current-voltage form (any phases, radial or meshed)"
    model: ClassVar[type[RectangularModel]] = _Model
