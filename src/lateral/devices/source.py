"""The upstream grid: a voltage behind an impedance, with a tariff and limits on what crosses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lateral.devices.base import Device
from lateral.network.schema import FloatArray, Series, Terminals, spec


@dataclass(frozen=True, kw_only=True, eq=False)
class Source(Device):
    """The upstream grid."""

    kind: ClassVar[str] = "source"
    table: ClassVar[str] = "sources"

    conductors: Terminals = spec("Conductors fed, in the order of the impedance matrix.", default=(1,))
    v_pu: Series = spec(
        "Voltage magnitude behind the impedance, on the bus base.", unit="pu", default=1.0, above=0.0, series=True
    )
    angle_deg: tuple[float, ...] = spec("Voltage angle of each conductor.", unit="deg", default=(0.0,))
    r_ohm: FloatArray = spec("Resistance matrix of the source.", unit="ohm", default=((0.0,),), matrix=True)
    x_ohm: FloatArray = spec("Reactance matrix of the source.", unit="ohm", default=((0.0,),), matrix=True)
    price_import: Series = spec("Price of energy taken from the grid.", unit="$/kWh", default=0.0, series=True)
    price_export: Series | None = spec(
        "Price paid for energy given to the grid; absent: the import price.", unit="$/kWh", default=None, series=True
    )
    p_import_max_kw: Series = spec(
        "Most power that may be taken, all conductors; inf for none.", unit="kW", default=float("inf"), series=True
    )
    p_export_max_kw: Series = spec(
        "Most power that may be given back, all conductors; inf for none.", unit="kW", default=float("inf"), series=True
    )
