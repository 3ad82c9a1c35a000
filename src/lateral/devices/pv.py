"""Photovoltaic systems behind an inverter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lateral.devices.base import ShuntDevice
from lateral.network.schema import spec


@dataclass(frozen=True, kw_only=True, eq=False)
class PV(ShuntDevice):
    """A PV system. The sun offers ``p_rated_kw * profile``; the inverter may curtail and may give or take reactive power."""

    kind: ClassVar[str] = "pv"
    table: ClassVar[str] = "pvs"

    p_rated_kw: float = spec("Power at full sun, all phases.", unit="kW", minimum=0.0)
    s_max_kva: float = spec("Apparent power limit of the inverter.", unit="kVA", minimum=0.0)
    profile: str = spec(
        "Profile of what the sun offers, per unit of p_rated_kw; empty: constant.", default="", profile=True
    )
    curtailable: bool = spec("Whether active power may be cut.", default=False)
    q_control: str = spec(
        "free: q is a decision; power_factor: q = p tan(acos(pf)); none: q = 0.",
        default="free",
        choices=("free", "power_factor", "none"),
    )
    power_factor: float = spec(
        "Power factor of q_control power_factor; negative: takes reactive power.",
        default=1.0,
        minimum=-1.0,
        maximum=1.0,
    )
    limit: str = spec(
        "disc: p^2 + q^2 <= s_max^2; box: |q| <= sqrt(s_max^2 - p_rated^2) (the published t5 and t10 cases).",
        default="disc",
        choices=("disc", "box"),
    )
    v_rated_kv: float | None = spec(
        "Rated voltage across one port; absent: the bus base.", unit="kV", default=None, above=0.0
    )
