"""What a device is: a schema (dataclass) plus the equations that it declares through ports.

A device declares its own variables and rows and meets the network only at ports. It never asks which formulation it
is in; a formulation never asks which device it serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lateral.network.schema import CONNECTIONS, Element, Terminals, ports_of, spec


@dataclass(frozen=True, kw_only=True, eq=False)
class Device(Element):
    """Base of every device; never instantiated."""

    bus: str = spec("Bus it is connected to.")


@dataclass(frozen=True, kw_only=True, eq=False)
class ShuntDevice(Device):
    """Base of devices between conductors of one bus; never instantiated.

    Power is a total over the phases and divides equally over the ports, unless a device says otherwise.
    """

    terminals: Terminals = spec("Conductors; for a wye the last one is the common point (0 = ground).", default=(1, 0))
    connection: str = spec("How it is connected.", choices=CONNECTIONS, default="wye")

    @property
    def ports(self) -> tuple[tuple[int, int], ...]:
        """The conductor pairs it is connected across."""
        return ports_of(self.terminals, self.connection)


__all__ = ["Device", "ShuntDevice"]
