"""Wires only: buses, lines, switches, transformers, generic shunts and generic admittances.

Conductors are an axis from the first day. A bus has a set of conductors, numbered as in the source model: usually
phases 1, 2, 3, also neutrals (4 and up) and split-phase legs; 0 is ground and never listed. A matrix is cut to the
conductors that exist: a missing phase is a missing row, never a zero.

A balanced feeder is a feeder of the same types with one conductor per bus and ``n_phases`` = how many identical
conductors it stands for.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from lateral.network.schema import CONNECTIONS, Element, FloatArray, Terminals, spec

#: Difference of a matrix to its transpose, relative to its largest entry, up to which it is taken for rounding.
RECIPROCAL = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Bus(Element):
    """A set of conductors at one place."""

    kind: ClassVar[str] = "bus"
    table: ClassVar[str] = "buses"

    conductors: Terminals = spec("Conductor numbers present at the bus, ascending; ground (0) is not listed.")
    v_base_kv: float = spec("Voltage base, line to ground.", unit="kV", above=0.0)
    v_min_pu: float = spec(
        "Lowest voltage allowed, conductor to ground; 0 for none.", unit="pu", default=0.95, minimum=0.0
    )
    v_max_pu: float = spec(
        "Highest voltage allowed, conductor to ground; inf for none.", unit="pu", default=1.05, above=0.0
    )
    vpp_min_pu: float = spec(
        "Lowest voltage allowed between two phases, on sqrt(3) times the base; 0 for none.",
        unit="pu",
        default=0.0,
        minimum=0.0,
    )
    vpp_max_pu: float = spec(
        "Highest voltage allowed between two phases, on sqrt(3) times the base; inf for none.",
        unit="pu",
        default=float("inf"),
        above=0.0,
    )
    vpn_min_pu: float = spec(
        "Lowest voltage allowed between a phase and the neutral conductor (4) of the bus, ground where it has none; 0 "
        "for none.",
        unit="pu",
        default=0.0,
        minimum=0.0,
    )
    vpn_max_pu: float = spec(
        "Highest voltage allowed between a phase and the neutral conductor (4) of the bus, ground where it has none; "
        "inf for none.",
        unit="pu",
        default=float("inf"),
        above=0.0,
    )
    unbalance_max: float = spec(
        "Largest negative-sequence voltage allowed, as a share of the positive-sequence one; inf for none.",
        default=float("inf"),
        above=0.0,
    )
    x: float = spec("Horizontal coordinate of the map; NaN when unknown.", default=float("nan"))
    y: float = spec("Vertical coordinate of the map; NaN when unknown.", default=float("nan"))


class Branch(Element):
    """Base of what joins two buses conductor by conductor; never instantiated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Line(Branch):
    """A line, cable, series reactor or fuse: a pi section of totals (not per length)."""

    kind: ClassVar[str] = "line"
    table: ClassVar[str] = "lines"

    bus_from: str = spec("Bus at the first end.")
    bus_to: str = spec("Bus at the second end.")
    conductors_from: Terminals = spec("Conductors at the first end, in matrix order.")
    conductors_to: Terminals = spec("Conductors at the second end, in matrix order.")
    r_ohm: FloatArray = spec("Series resistance matrix, total.", unit="ohm", matrix=True)
    x_ohm: FloatArray = spec("Series reactance matrix, total.", unit="ohm", matrix=True)
    b_us: FloatArray | None = spec(
        "Shunt susceptance matrix, total of both ends (half at each).", unit="uS", default=None, matrix=False
    )
    i_max_a: float = spec("Current limit per conductor; inf for none.", unit="A", default=float("inf"), above=0.0)
    length_km: float = spec("Length, for information and plots.", unit="km", default=0.0, minimum=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.b_us is not None:
            array = np.array(self.b_us, dtype=float, ndmin=2)
            array.setflags(write=False)
            object.__setattr__(self, "b_us", array)


@dataclass(frozen=True, kw_only=True, eq=False)
class Switch(Branch):
    """A switch: when closed, a short line; when open, nothing."""

    kind: ClassVar[str] = "switch"
    table: ClassVar[str] = "switches"

    bus_from: str = spec("Bus at the first end.")
    bus_to: str = spec("Bus at the second end.")
    conductors_from: Terminals = spec("Conductors at the first end.")
    conductors_to: Terminals = spec("Conductors at the second end, in the same order.")
    closed: bool = spec("Whether the switch is closed.", default=True)
    r_ohm: FloatArray = spec("Series resistance matrix when closed.", unit="ohm", matrix=True)
    x_ohm: FloatArray = spec("Series reactance matrix when closed.", unit="ohm", matrix=True)
    b_us: FloatArray | None = spec("Shunt susceptance matrix, total of both ends.", unit="uS", default=None)
    i_max_a: float = spec("Current limit per conductor; inf for none.", unit="A", default=float("inf"), above=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.b_us is not None:
            array = np.array(self.b_us, dtype=float, ndmin=2)
            array.setflags(write=False)
            object.__setattr__(self, "b_us", array)


@dataclass(frozen=True, kw_only=True, eq=False)
class Winding:
    """One winding of a transformer.

    ``terminals`` lists the conductors of its phases, then for a wye the neutral (0 = grounded solidly, a number >= 4 an
    explicit neutral conductor, -1 = isolated neutral). A delta lists its three corners (or two for one phase).
    """

    bus: str = spec("Bus the winding is connected to.")
    terminals: Terminals = spec("Conductors of the phases, then the neutral for a wye (0 ground, -1 isolated).")
    connection: str = spec("How the winding is connected.", choices=("wye", "delta"), default="wye")
    v_rated_kv: float = spec(
        "Rated voltage: line to line for 2 and 3 phases, across the winding for 1 phase.", unit="kV", above=0.0
    )
    s_rated_kva: float = spec("Rated power, all phases.", unit="kVA", above=0.0)
    r_percent: float = spec(
        "Resistance of this winding on the rating of winding 1, as in OpenDSS.", unit="%", default=0.0, minimum=0.0
    )
    tap: float = spec("Tap: the ratio of actual to rated turns.", unit="pu", default=1.0, above=0.0)
    r_neutral_ohm: float = spec("Neutral-to-ground resistance; negative: isolated neutral.", unit="ohm", default=-1.0)
    x_neutral_ohm: float = spec("Neutral-to-ground reactance.", unit="ohm", default=0.0)

    @property
    def grounded(self) -> bool:
        """Whether it ties its bus to ground."""
        return 0 in self.terminals or (self.connection == "wye" and self.r_neutral_ohm >= 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Transformer(Element):
    """A transformer of any number of windings: one leakage impedance per pair, wye or delta each, off-nominal taps."""

    kind: ClassVar[str] = "transformer"
    table: ClassVar[str] = "transformers"

    n_phases: int = spec("Number of phases (cores).", default=3, minimum=1, maximum=3)
    windings: tuple[Winding, ...] = spec("The windings, the first one is the primary.")
    x_percent: tuple[float, ...] = spec(
        "Leakage reactance of each winding pair (12, 13, 23, ... row by row) on the rating of winding 1.", unit="%"
    )
    no_load_loss_percent: float = spec("No-load loss on the rating of winding 1.", unit="%", default=0.0, minimum=0.0)
    magnetizing_percent: float = spec(
        "Magnetising current on the rating of winding 1.", unit="%", default=0.0, minimum=0.0
    )
    antifloat_ppm: float = spec(
        "Shunt that keeps ungrounded windings from floating, parts per million of the rating.",
        unit="ppm",
        default=1.0,
        minimum=0.0,
    )
    delta_lead: bool = spec(
        "True when the delta leads the wye (Euro convention); False: the low side lags 30 degrees (ANSI).",
        default=False,
    )
    s_max_kva: float = spec("Loading limit, all phases; inf for none.", unit="kVA", default=float("inf"), above=0.0)
    bank: str = spec("Name of the bank of single-phase units it belongs to.", default="")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shunt(Element):
    """A constant admittance between conductors of one bus and ground (a shunt reactor, a grounding impedance)."""

    kind: ClassVar[str] = "shunt"
    table: ClassVar[str] = "shunts"

    bus: str = spec("Bus it is connected to.")
    conductors: Terminals = spec("Conductors, in matrix order.")
    g_us: FloatArray = spec("Conductance matrix.", unit="uS", matrix=True)
    b_us: FloatArray = spec("Susceptance matrix (positive: capacitive).", unit="uS", matrix=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Terminal:
    """One terminal of a generic admittance: some conductors of a bus."""

    bus: str = spec("Bus the terminal is connected to.")
    conductors: Terminals = spec("Conductors of the terminal, in matrix order; ground is not listed.")


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiTerminal(Element):
    """Any linear element between conductors of one bus or several, as its admittance matrix to ground.

    It stands for what has no class of its own: an autotransformer read from OpenDSS, a transformer of more than three
    phases, a reactor whose impedances of positive and negative sequence differ (its matrix is not symmetric). With v
    the voltages to ground of the conductors, terminal by terminal, ``i = (G + jB) v`` are the currents that flow into
    the element. It has no tap, no limit and no switch: it is what it was when it was made.
    """

    kind: ClassVar[str] = "admittance"
    table: ClassVar[str] = "admittances"

    terminals: tuple[Terminal, ...] = spec("The terminals; rows of the matrices follow their conductors in order.")
    g_us: FloatArray = spec("Conductance matrix over all conductors of all terminals.", unit="uS", matrix=True)
    b_us: FloatArray = spec("Susceptance matrix (positive: capacitive).", unit="uS", matrix=True)

    @property
    def nodes(self) -> tuple[tuple[str, int], ...]:
        """(bus, conductor) of every row, in matrix order."""
        return tuple((t.bus, c) for t in self.terminals for c in t.conductors)

    @cached_property
    def is_reciprocal(self) -> bool:
        """Whether the matrix is symmetric, but for rounding."""
        y = self.g_us + 1j * self.b_us
        return bool(np.abs(y - y.T).max(initial=0.0) <= RECIPROCAL * np.abs(y).max(initial=0.0))

    @property
    def buses(self) -> tuple[str, ...]:
        """The buses that it touches, each once."""
        return tuple(dict.fromkeys(t.bus for t in self.terminals))


@dataclass(frozen=True, kw_only=True, eq=False)
class Feeder:
    """The wires of a case, in engineering units.

    Attributes:
        n_phases: how many identical conductors a conductor stands for: 1 in general, 3 (or 1, the published case) for a
            balanced feeder. kW, kvar, kVA of devices are always totals over them.
        frequency_hz: the frequency at which reactances and susceptances hold.
    """

    buses: tuple[Bus, ...]
    lines: tuple[Line, ...] = ()
    switches: tuple[Switch, ...] = ()
    transformers: tuple[Transformer, ...] = ()
    shunts: tuple[Shunt, ...] = ()
    admittances: tuple[MultiTerminal, ...] = ()
    n_phases: int = 1
    balanced: bool = False
    frequency_hz: float = 60.0

    def __post_init__(self) -> None:
        # frozen for good: what is made of a feeder once is kept beside it
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))

    @cached_property
    def bus(self) -> dict[str, Bus]:
        """Buses by name."""
        return {b.name: b for b in self.buses}

    @property
    def elements(self) -> tuple[Element, ...]:
        """Every element, buses first."""
        return (*self.buses, *self.lines, *self.switches, *self.transformers, *self.shunts, *self.admittances)


__all__ = [
    "CONNECTIONS",
    "Branch",
    "Bus",
    "Feeder",
    "Line",
    "MultiTerminal",
    "Shunt",
    "Switch",
    "Terminal",
    "Transformer",
    "Winding",
]
