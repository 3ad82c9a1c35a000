"""What a device is: a schema (dataclass) plus the equations that it declares through ports.

A device declares its own variables and rows and meets the network only at ports. It never asks which formulation it
is in; a formulation never asks which device it serves. A user's own device is a class derived from `Device` or
`ShuntDevice` with a `declare`; it joins a case by being in ``case.devices``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lateral.network.feeder import Feeder
from lateral.network.horizon import Horizon
from lateral.network.schema import CONNECTIONS, Element, FloatArray, IntArray, Series, Terminals, ports_of, spec
from lateral.program import Affine, ProgramBuilder
from lateral.program.ports import NetworkModel, Ports
from lateral.units import Base

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceContext:
    """What a device is given to declare itself.

    Attributes:
        builder: takes variables, rows, costs and outputs.
        net: the network model; injects power, reads voltages.
        horizon: the time axis.
        base: power base.
        profiles: the case's profiles.
        feeder: the wires.
        terminal: rule for stored energy at the end: equal, at-least, free or priced.
        alpha: price of energy lost in storage, $/kWh.
    """

    builder: ProgramBuilder
    net: NetworkModel
    horizon: Horizon
    base: Base
    profiles: Mapping[str, FloatArray]
    feeder: Feeder
    terminal: str
    alpha: float

    @property
    def notes(self) -> list[str]:
        """What devices do otherwise than their fields ask, because the formulation cannot; goes into ``choices``."""
        return self.builder.notes

    @property
    def n_steps(self) -> int:
        """Number of steps T."""
        return self.horizon.n_steps

    def series(self, value: Series) -> FloatArray:
        """A number or the name of a profile, as an array of shape (T,)."""
        if isinstance(value, str):
            return np.asarray(self.profiles[value], dtype=float)
        return np.full(self.n_steps, float(value))

    def multiplier(self, profile: str) -> FloatArray:
        """A profile as a multiplier, shape (T,); ones for an empty name."""
        return np.asarray(self.profiles[profile], dtype=float) if profile else np.ones(self.n_steps)

    def multipliers(self, profiles: Sequence[str]) -> FloatArray:
        """Profiles as multipliers, shape (n, T); ones for an empty name."""
        of = {name: self.multiplier(name) for name in dict.fromkeys(profiles)}
        return np.array([of[name] for name in profiles], dtype=float).reshape(-1, self.n_steps)

    def base_over_rated(self, group: Sequence[ShuntDevice], where: DevicePorts) -> FloatArray:
        """Voltage base over rated voltage of each port, shape (ports,).

        Without a rated voltage of its own a device is rated at the base, times sqrt(3) in delta.
        """
        base = self.net.base_kv(where.ports.a)
        rated = np.array([getattr(d, "v_rated_kv", None) or np.nan for d in group])[where.owner]
        across = np.array([1.0 if d.connection == "wye" else np.sqrt(3.0) for d in group])[where.owner]
        return np.asarray(base / np.where(np.isnan(rated), base * across, rated))

    def ports(self, group: Sequence[ShuntDevice]) -> DevicePorts:
        """The ports of some devices, flattened."""
        a, b, owner, number = [], [], [], []
        for k, device in enumerate(group):
            for m, (bus, (x, y)) in enumerate(device.places):
                node_a, node_b = self.net.node(bus, x), self.net.node(bus, y)
                if node_a < 0 and node_b < 0:
                    continue  # between grounded conductors: nothing there
                a.append(node_a if node_a >= 0 else node_b)
                b.append(node_b if node_a >= 0 else -1)
                owner.append(k)
                number.append(m)
        owners = np.array(owner, dtype=np.int64)
        count = np.bincount(owners, minlength=len(group))
        return DevicePorts(
            Ports(np.array(a, dtype=np.int64), np.array(b, dtype=np.int64)),
            owners,
            1.0 / count[owners],
            len(group),
            np.array(number, dtype=np.int64),
        )


@dataclass(frozen=True, slots=True, eq=False)
class DevicePorts:
    """Ports of a group of devices.

    Attributes:
        ports: the conductor pairs.
        owner: device of each port, shape (ports,).
        share: share of the device's power at the port, shape (ports,).
        n_devices: number of devices.
        number: which port of its device each one is, counted from 0, shape (ports,).
    """

    ports: Ports
    owner: IntArray
    share: FloatArray
    n_devices: int
    number: IntArray

    def spread(self, total: Affine) -> Affine:
        """A total per device divided over its ports, shape (ports, T)."""
        return total.map_terms(len(self.owner), np.arange(len(self.owner)), self.owner, self.share)

    def total(self, by_port: Affine) -> Affine:
        """What the ports of each device add up to, shape (devices, T)."""
        return by_port.map_terms(self.n_devices, self.owner, np.arange(len(self.owner)), np.ones(len(self.owner)))

    def names(self, group: Sequence[Element]) -> list[str]:
        """``name.k`` of each port, k counted from 1 in the order of `ShuntDevice.places`."""
        return [f"{group[o].name}.{m + 1}" for o, m in zip(self.owner.tolist(), self.number.tolist(), strict=True)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Declared(Element):
    """Base of whatever declares itself in a program; never instantiated."""

    #: name of the output that is a setting of the device rather than a power (the tap of a regulator): power flow,
    #: replay and export take it from there, step by step; empty for none
    setting: ClassVar[str] = ""

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Declare variables and rows of all devices of this class, and connect them.

        A class without equations of its own inherits this and adds nothing.
        """

    @classmethod
    def derived_data(cls, group: Sequence[Self], name: str, values: FloatArray) -> Mapping[str, FloatArray]:
        """Data slots that follow from new values of slot ``name``; empty for none."""
        return {}

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """The devices with new data of their slots, so that replay and report see what was solved.

        Args:
            group: the devices, in order of their slots.
            values: new values by slot name.
            profiles: the case's profiles; new ones may be added.
            n_steps: number of steps.
        """
        return group


@dataclass(frozen=True, kw_only=True, eq=False)
class Device(Declared):
    """Base of every device at a bus; never instantiated."""

    bus: str = spec("Bus it is connected to.")


@dataclass(frozen=True, kw_only=True, eq=False)
class ShuntDevice(Device):
    """Base of devices between conductors of one bus; never instantiated.

    Power is a total over the phases and divides equally over the ports, unless a device says otherwise: then it has
    outputs ``p`` and ``q`` of the component ``<kind>_port`` too, see `port_outputs`.
    """

    #: whether power flow, replay and export take its power from the schedule
    dispatched: ClassVar[bool] = True
    #: whether a total says nothing of what its ports give, as of a device at two buses
    needs_ports: ClassVar[bool] = False

    terminals: Terminals = spec("Conductors; for a wye the last one is the common point (0 = ground).", default=(1, 0))
    connection: str = spec("How it is connected.", choices=CONNECTIONS, default="wye")

    @property
    def ports(self) -> tuple[tuple[int, int], ...]:
        """The conductor pairs it is connected across."""
        return ports_of(self.terminals, self.connection)

    @property
    def places(self) -> tuple[tuple[str, tuple[int, int]], ...]:
        """Bus and conductor pair of every port."""
        return tuple([(self.bus, port) for port in self.ports])


def column(group: Sequence[Element], name: str) -> FloatArray:
    """One number field of a group of devices, shape (n, 1)."""
    return np.array([getattr(d, name) for d in group], dtype=float).reshape(-1, 1)


def port_outputs(
    ctx: DeviceContext,
    group: Sequence[Element],
    where: DevicePorts,
    which: BoolArray,
    p: Affine,
    q: Affine,
) -> None:
    """Name the power of the ports of some devices, so that power flow, replay and export give it port by port.

    Args:
        ctx: the context.
        group: devices of one kind.
        where: their ports.
        which: the devices whose ports differ, shape (devices,).
        p, q: power of all ports, shape (ports, T).
    """
    at = np.flatnonzero(which[where.owner])
    if not len(at):
        return
    component, every, kva = f"{group[0].kind}_port", where.names(group), ctx.base.total_kva
    names = [every[k] for k in at.tolist()]
    ctx.builder.output(component, "p", names, p.take(at), unit="kW", to_unit=kva)
    ctx.builder.output(component, "q", names, q.take(at), unit="kvar", to_unit=kva)


#: Power at once in both ways of a device that counts as none: this share of its rating, and no less than this, kW.
AT_ONCE_SHARE, AT_ONCE_KW = 1e-4, 1e-4
#: What a device with two ways loses more than its law says that counts as nothing, kW.
LOST_KW = 1e-2
#: whether the power of a device divides equally over its phases, or is decided at each
PHASES = ("balanced", "free")

TERMINAL_RULES: tuple[str, ...] = ("equal", "at-least", "free", "priced")

__all__ = [
    "PHASES",
    "BoolArray",
    "TERMINAL_RULES",
    "Declared",
    "Device",
    "DeviceContext",
    "DevicePorts",
    "ShuntDevice",
    "column",
    "port_outputs",
]
