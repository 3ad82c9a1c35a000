"""Loads: power that depends on the voltage across the port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lateral.devices.base import ShuntDevice
from lateral.network.schema import spec

#: OpenDSS load model number -> the word used here.
MODELS = (
    "constant_power",  # 1
    "constant_impedance",  # 2
    "constant_power_quadratic_q",  # 3: constant P, Q as an impedance (motor)
    "cvr",  # 4: P ~ V^cvr_p, Q ~ V^cvr_q
    "constant_current",  # 5
    "constant_power_fixed_q",  # 6: P follows the profile, Q fixed at rated
    "constant_power_fixed_q_impedance",  # 7: P follows the profile, Q a fixed impedance
    "zip",  # 8
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Load(ShuntDevice):
    """A load. Power is the total over its phases; negative power is generation that cannot be controlled."""

    kind: ClassVar[str] = "load"
    table: ClassVar[str] = "loads"

    p_kw: float = spec("Rated active power, multiplied by the profile.", unit="kW")
    q_kvar: float = spec("Rated reactive power, multiplied by the profile.", unit="kvar", default=0.0)
    profile: str = spec(
        "Profile that multiplies p (and q unless profile_q is given); empty: constant.", default="", profile=True
    )
    profile_q: str = spec("Profile that multiplies q; empty: the same as p.", default="", profile=True)
    v_rated_kv: float | None = spec(
        "Voltage across one port at which the power is the rated one; absent: the bus base (times sqrt(3) in delta).",
        unit="kV",
        default=None,
        above=0.0,
    )
    model: str = spec("How the power depends on the voltage.", default="constant_power", choices=MODELS)
    zip_p: tuple[float, float, float] = spec(
        "Shares of constant impedance, current, power in P (model zip).", default=(0.0, 0.0, 1.0)
    )
    zip_q: tuple[float, float, float] = spec(
        "Shares of constant impedance, current, power in Q (model zip).", default=(0.0, 0.0, 1.0)
    )
    zip_v_cut_pu: float = spec(
        "Voltage under which a zip load draws nothing (OpenDSS's seventh number).", unit="pu", default=0.0
    )
    cvr_p: float = spec("Exponent of V in P (model cvr).", default=1.0)
    cvr_q: float = spec("Exponent of V in Q (model cvr).", default=2.0)
    v_min_pu: float = spec(
        "Below this voltage (on v_rated_kv) the load is an impedance, in power flow.",
        unit="pu",
        default=0.1,
        minimum=0.0,
    )
    v_max_pu: float = spec(
        "Above this voltage the load is an impedance, in power flow.", unit="pu", default=2.0, above=0.0
    )
    v_low_pu: float = spec(
        "OpenDSS's vlowpu: below it the current falls to zero linearly.", unit="pu", default=0.0, minimum=0.0
    )


__all__ = ["MODELS", "Load"]
