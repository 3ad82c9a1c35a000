"""Batteries behind an inverter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lateral.devices.base import ShuntDevice
from lateral.network.schema import spec


@dataclass(frozen=True, kw_only=True, eq=False)
class Battery(ShuntDevice):
    """A battery. No binary keeps charge and discharge apart: a loss term in the objective does, and the result certifies it."""

    kind: ClassVar[str] = "battery"
    table: ClassVar[str] = "batteries"

    p_charge_max_kw: float = spec("Most power it takes, at the terminals.", unit="kW", minimum=0.0)
    p_discharge_max_kw: float = spec("Most power it gives, at the terminals.", unit="kW", minimum=0.0)
    s_max_kva: float = spec("Apparent power limit of the inverter.", unit="kVA", minimum=0.0)
    energy_kwh: float = spec("Capacity.", unit="kWh", above=0.0)
    soc_min: float = spec("Lowest state of charge allowed.", unit="pu", default=0.0, minimum=0.0, maximum=1.0)
    soc_max: float = spec("Highest state of charge allowed.", unit="pu", default=1.0, minimum=0.0, maximum=1.0)
    soc_initial: float = spec("State of charge at the beginning.", unit="pu", default=0.5, minimum=0.0, maximum=1.0)
    eta_charge: float = spec("Efficiency of charging.", unit="pu", default=0.95, above=0.0, maximum=1.0)
    eta_discharge: float = spec("Efficiency of discharging.", unit="pu", default=0.95, above=0.0, maximum=1.0)
    q_control: str = spec("free: q is a decision; none: q = 0.", default="free", choices=("free", "none"))
    limit: str = spec(
        "disc: p^2 + q^2 <= s_max^2; box: |q| <= sqrt(s_max^2 - p_max^2) (the published t5 and t10 cases).",
        default="disc",
        choices=("disc", "box"),
    )
    terminal_price: float = spec(
        "Value of stored energy at the end, used by the terminal rule 'priced'.", unit="$/kWh", default=0.0
    )
    v_rated_kv: float | None = spec(
        "Rated voltage across one port; absent: the bus base.", unit="kV", default=None, above=0.0
    )
