"""Voltage regulators: the control of a transformer winding's tap, held at the tap it is at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lateral.network.schema import Element, spec


@dataclass(frozen=True, kw_only=True, eq=False)
class Regulator(Element):
    """A tap controller on a transformer winding. The tap itself is the winding's; here it is held fixed."""

    kind: ClassVar[str] = "regulator"
    table: ClassVar[str] = "regulators"

    transformer: str = spec("Name of the transformer whose tap it moves.")
    winding: int = spec("Number of the winding that carries the taps (1 = first).", default=2, minimum=1)
    v_set: float = spec("Set point, on the secondary of the voltage transformer.", unit="V", default=120.0, above=0.0)
    band: float = spec("Width of the dead band.", unit="V", default=2.0, above=0.0)
    pt_ratio: float = spec("Ratio of the voltage transformer.", default=60.0, above=0.0)
    ct_primary_a: float = spec("Primary rating of the current transformer.", unit="A", default=300.0, above=0.0)
    ldc_r: float = spec("Line-drop compensation, resistance.", unit="V", default=0.0)
    ldc_x: float = spec("Line-drop compensation, reactance.", unit="V", default=0.0)
    tap_min: float = spec("Lowest tap.", unit="pu", default=0.9, above=0.0)
    tap_max: float = spec("Highest tap.", unit="pu", default=1.1, above=0.0)
    n_steps: int = spec("Number of tap steps between lowest and highest.", default=32, minimum=1)
