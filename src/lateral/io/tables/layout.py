"""What a case folder holds: ``case.toml``, its tables, and which of them belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from lateral.io._toml import Strict
from lateral.network.feeder import Bus, Line, MultiTerminal, Shunt, Switch, Terminal, Transformer, Winding
from lateral.network.schema import Element

FORMAT = 1
SUFFIXES = (".csv", ".parquet")
WIRES: tuple[type[Element], ...] = (Bus, Line, Switch, Transformer, Shunt, MultiTerminal)


@dataclass(frozen=True, slots=True)
class Nested:
    """A field that holds parts of an element, kept in a table of its own: one row per part, in order."""

    field: str
    table: str
    part: type
    key: str  # the column that names the element


NESTED: Mapping[type[Element], Nested] = {
    Transformer: Nested("windings", "windings", Winding, "transformer"),
    MultiTerminal: Nested("terminals", "admittance_terminals", Terminal, "admittance"),
}
#: every table that is not one of a device class
FIXED = frozenset({c.table for c in WIRES} | {n.table for n in NESTED.values()} | {"profiles"})


class HorizonFile(Strict):
    """The time axis of a case."""

    start: datetime = Field(description="Beginning of the first step; local time of `zone` when without offset.")
    zone: str = Field(default="UTC", description="IANA name of the time zone.")
    n_steps: Annotated[int, Field(ge=1, le=2_000_000, description="Number of steps.")]
    step_h: float | list[float] = Field(default=1.0, description="Length of a step, h; or one per step.")
    weight: float | list[float] = Field(default=1.0, description="Weight of a step in the objective; or one each.")
    breaks: list[int] = Field(default=[], description="Steps (from 0) before which stored energy starts afresh.")


class CaseFile(Strict):
    """The file ``case.toml`` of a case folder."""

    format: Literal[1] = Field(default=1, description="Version of the layout of the folder.")
    name: str = Field(description="Short name of the case.")
    notes: str = Field(default="", description="Free text shown in reports.")
    warnings: list[str] = Field(default=[], description="What the files that it was read from hold and it does not.")
    base_kva: Annotated[float, Field(gt=0, description="Power base per conductor, kVA.")] = 1000.0
    n_phases: Annotated[int, Field(ge=1, description="Conductors that one modelled conductor stands for.")] = 1
    balanced: bool = Field(default=False, description="Whether the feeder is a balanced equivalent.")
    frequency_hz: Annotated[float, Field(gt=0, description="Frequency of reactances and susceptances.")] = 60.0
    alpha_usd_per_kwh: Annotated[float, Field(ge=0, description="Price of battery losses, $/kWh lost.")] = 1e-6
    horizon: HorizonFile
    tables: dict[str, str] = Field(default={}, description="File of a table, when not <table>.csv or .parquet.")
    device_order: list[tuple[str, int]] = Field(
        default=[], description="Order of the devices as runs of rows: [table, how many]; the rest follow."
    )
