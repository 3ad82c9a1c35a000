"""What devices are told to do at a point of a program: power port by port, and settings."""

from __future__ import annotations

import numpy as np

from lateral.case import Case
from lateral.devices.base import Declared, ShuntDevice
from lateral.network.schema import FloatArray
from lateral.program import Program


def port_points(case: Case, program: Program, x: FloatArray) -> dict[str, tuple[FloatArray, FloatArray]]:
    """p in kW and q in kvar of the ports of every device that gives them port by port, shape (ports, T), by label.

    Rows are in the order of `ShuntDevice.places`.
    """
    out: dict[str, tuple[FloatArray, FloatArray]] = {}
    for kind in dict.fromkeys(d.kind for d in case.devices if isinstance(d, ShuntDevice)):
        p, q = (_outputs(program, x, f"{kind}_port.{side}") for side in ("p", "q"))
        for device in case.devices if p else ():
            if not isinstance(device, ShuntDevice) or device.kind != kind:
                continue
            names = [f"{device.name}.{k + 1}" for k in range(len(device.places))]
            if any(name in p for name in names):  # a port between grounded conductors has no row
                none = np.zeros_like(next(iter(p.values())))
                rows = [np.array([side.get(name, none) for name in names]) for side in (p, q)]
                out[device.label] = (rows[0], rows[1])
    return out


def settings(case: Case, program: Program, x: FloatArray) -> dict[str, FloatArray]:
    """The setting of every device that has one in the program, shape (T,), by label: taps, shares, susceptances."""
    out: dict[str, FloatArray] = {}
    named: dict[str, dict[str, FloatArray]] = {}
    for device in case.devices:
        if not isinstance(device, Declared) or not device.setting:
            continue
        name = f"{device.kind}.{device.setting}"
        if name not in named:
            named[name] = _outputs(program, x, name) or _variables(program, x, name)
        if device.name in named[name]:
            out[device.label] = named[name][device.name]
    return out


def decided(program: Program) -> frozenset[str]:
    """Labels of the devices of whose power anything is a variable: such a power is as it is at any voltage, outside of
    the window of an inverter too."""
    out: set[str] = set()
    for output in program.outputs:
        block, expr = output.block, output.affine
        if block.quantity in ("p_injected", "q_injected"):
            rows = np.unique(expr.row[(expr.col >= 0) & (expr.val != 0.0)] // expr.n_steps)
            out.update(f"{block.component}.{block.elements[k]}" for k in rows.tolist())
    return frozenset(out)


def _outputs(program: Program, x: FloatArray, name: str) -> dict[str, FloatArray]:
    """Rows of the outputs of a name, in engineering units, by element."""
    out: dict[str, FloatArray] = {}
    for output in program.outputs:
        if output.block.name == name:
            values = output.value(x, program.theta) * output.block.to_unit
            out |= dict(zip(output.block.elements, values, strict=True))
    return out


def _variables(program: Program, x: FloatArray, name: str) -> dict[str, FloatArray]:
    """The same of variables."""
    out: dict[str, FloatArray] = {}
    for block in program.variables:
        if block.name == name:
            values = x[block.cells].reshape(len(block.elements), block.n_steps) * block.to_unit
            out |= dict(zip(block.elements, values, strict=True))
    return out


__all__ = ["decided", "port_points", "settings"]
