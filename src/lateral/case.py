"""Case: a feeder, its devices and a horizon, in engineering units, frozen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from lateral.devices import PV, Battery, Capacitor, Load, Regulator, Source
from lateral.devices.base import ShuntDevice
from lateral.network.admittance import Node
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FloatArray, Series
from lateral.network.wires import wire_network
from lateral.units import Base

E = TypeVar("E", bound=Element)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Everything that a study starts from. Frozen: change it with `dataclasses.replace` or `Case.with_`.

    Attributes:
        name: short name.
        feeder: the wires.
        devices: every device; any class derived from `lateral.devices.Device`, also a user's own.
        horizon: the time axis.
        profiles: named series on the horizon, each of length T.
        base: power base; results do not depend on it.
        areas: area of each bus, for spatial decomposition; may be empty.
        alpha_usd_per_kwh: price of the battery loss term that keeps charge and discharge apart, $ per kWh lost.
        notes: free text shown in reports (origin, conventions).
        where: ``file:line`` of elements that came from a file, by label.
        warnings: what the files hold and the case does not, or only nearly: one line for each kind of object that was
            left out or replaced when an OpenDSS master was read (`lateral.io.opendss.severity`).
    """

    name: str
    feeder: Feeder
    devices: tuple[Element, ...]
    horizon: Horizon
    profiles: Mapping[str, FloatArray] = field(default_factory=dict)
    base: Base = field(default_factory=Base)
    areas: Mapping[str, str] = field(default_factory=dict)
    alpha_usd_per_kwh: float = 1e-6
    notes: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.base.multiplicity != self.feeder.n_phases:
            object.__setattr__(self, "base", Base(self.base.s_kva, self.feeder.n_phases))

    def of(self, cls: type[E]) -> tuple[E, ...]:
        """The devices of one class, in order."""
        return tuple(d for d in self.devices if type(d) is cls)

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The upstream grids; of an area also its border towards them."""
        return tuple(d for d in self.devices if isinstance(d, Source))

    @cached_property
    def loads(self) -> tuple[Load, ...]:
        """The loads; of an area also what the areas below it draw."""
        return tuple(d for d in self.devices if isinstance(d, Load))

    @cached_property
    def capacitors(self) -> tuple[Capacitor, ...]:
        """The capacitors."""
        return self.of(Capacitor)

    @cached_property
    def pvs(self) -> tuple[PV, ...]:
        """The PV systems."""
        return self.of(PV)

    @cached_property
    def batteries(self) -> tuple[Battery, ...]:
        """The batteries."""
        return self.of(Battery)

    @cached_property
    def regulators(self) -> tuple[Regulator, ...]:
        """The regulators."""
        return self.of(Regulator)

    def series(self, value: Series) -> FloatArray:
        """A field that takes a number or the name of a profile, as an array of shape (T,)."""
        if isinstance(value, str):
            return np.asarray(self.profiles[value], dtype=float)
        return np.full(self.horizon.n_steps, float(value))

    def exchange_cost(self, source: Source, p_kw: FloatArray) -> float:
        """What a source's net power costs over the horizon, $: import at its price, less export at its own.

        Args:
            source: one of the case.
            p_kw: power taken from it, negative where it is given back, shape (T,).
        """
        buy = self.series(source.price_import)
        sell = buy if source.price_export is None else self.series(source.price_export)
        return float((np.where(p_kw >= 0.0, buy, sell) * p_kw) @ self.horizon.hours)

    def multiplier(self, profile: str) -> FloatArray:
        """A profile as a multiplier, shape (T,); ones when the name is empty."""
        if not profile:
            return np.ones(self.horizon.n_steps)
        return np.asarray(self.profiles[profile], dtype=float)

    def with_(self, **changes: Any) -> Case:
        """A copy with some attributes replaced."""
        return dataclasses.replace(self, **changes)

    def wires(self, *, neutrals: Collection[Node] = ()) -> RadialNetwork:
        """Every energised node and every branch between them, radial or meshed; see `lateral.network.wires`.

        Args:
            neutrals: nodes near zero volts.
        """
        roots = [(s.bus, c) for s in self.sources for c in s.conductors]
        ports = [
            ((b, i), (b, j)) for d in self.devices if isinstance(d, ShuntDevice) for b, (i, j) in d.places if i and j
        ]
        return wire_network(self.feeder, roots, self.base, neutrals=neutrals, ports=ports)

    def to_balanced(self) -> Case:
        """The balanced (positive-sequence) equivalent, one conductor per bus; see `lateral.balanced`."""
        from lateral.balanced import to_balanced

        return to_balanced(self)

    @cached_property
    def hash(self) -> str:
        """Hash of everything that decides the result (16 hex digits)."""
        digest = hashlib.sha256()
        for part in (*self.feeder.elements, *self.devices):
            digest.update(type(part).__name__.encode())
            for f in dataclasses.fields(part):
                digest.update(_canonical(getattr(part, f.name)))
        for name in sorted(self.profiles):
            digest.update(name.encode() + np.ascontiguousarray(self.profiles[name], dtype=float).tobytes())
        h = self.horizon
        digest.update("".join(t.isoformat() for t in h.times[:1]).encode() + h.zone.encode())
        digest.update(h.step_h.tobytes() + h.weight.tobytes() + repr(h.breaks).encode())
        digest.update(json.dumps([self.feeder.n_phases, self.feeder.frequency_hz, self.alpha_usd_per_kwh]).encode())
        return digest.hexdigest()[:16]


def _canonical(value: Any) -> bytes:
    """Bytes that are equal for equal field values, whatever their container."""
    if isinstance(value, np.ndarray):
        return str(value.shape).encode() + np.ascontiguousarray(value, dtype=float).tobytes()
    if dataclasses.is_dataclass(value):
        return b"".join(_canonical(getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, tuple):
        return b"(" + b",".join(_canonical(v) for v in value) + b")"
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return repr(float(value)).encode()  # 1, 1.0 and np.float64(1.0) are the same value
    return repr(value).encode()
