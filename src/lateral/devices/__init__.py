"""Devices: one file each holds schema and equations. A user's own class joins a case by being in its ``devices``."""

from __future__ import annotations

from lateral.devices.base import TERMINAL_RULES, Device, DeviceContext, ShuntDevice
from lateral.devices.battery import Battery
from lateral.devices.border import BorderHead, BorderTail
from lateral.devices.capacitor import Capacitor
from lateral.devices.load import Load
from lateral.devices.pv import PV
from lateral.devices.regulator import Regulator
from lateral.devices.soft_open_point import SoftOpenPoint
from lateral.devices.source import Source
from lateral.devices.statcom import Statcom
from lateral.devices.svc import SVC

#: the device classes that come with lateral; a user's own class joins a case simply by being in its ``devices``
BUILT_IN: tuple[type, ...] = (
    Source,
    Load,
    Capacitor,
    PV,
    Battery,
    Regulator,
    Statcom,
    SVC,
    SoftOpenPoint,
    BorderHead,
    BorderTail,
)

__all__ = [
    "BUILT_IN",
    "PV",
    "SVC",
    "TERMINAL_RULES",
    "Battery",
    "BorderHead",
    "BorderTail",
    "Capacitor",
    "Device",
    "DeviceContext",
    "Load",
    "Regulator",
    "ShuntDevice",
    "SoftOpenPoint",
    "Source",
    "Statcom",
]
