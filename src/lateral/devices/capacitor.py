"""Capacitors, fixed in the state they are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lateral.devices.base import ShuntDevice
from lateral.network.schema import spec


@dataclass(frozen=True, kw_only=True, eq=False)
class Capacitor(ShuntDevice):
    """A shunt capacitor bank: the total of the steps that are on."""

    kind: ClassVar[str] = "capacitor"
    table: ClassVar[str] = "capacitors"

    q_kvar: float = spec(
        "Reactive power given at rated voltage, all phases, of the steps that are on.", unit="kvar", minimum=0.0
    )
    q_total_kvar: float | None = spec(
        "Reactive power with every step on; absent: q_kvar.", unit="kvar", default=None, minimum=0.0
    )
    v_rated_kv: float | None = spec(
        "Rated voltage across one port; absent: the bus base (times sqrt(3) in delta).",
        unit="kV",
        default=None,
        above=0.0,
    )
    model: str = spec(
        "constant_impedance (q follows V^2, physics) or constant_power (the published balanced cases).",
        default="constant_impedance",
        choices=("constant_impedance", "constant_power"),
    )
    control: str = spec(
        "What the source model says of its control, for information (controls are off in lateral).", default=""
    )
