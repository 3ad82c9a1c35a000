"""Ungrounded islands: buses behind ungrounded windings whose voltage to ground nothing fixes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lateral.checks.codes import fault
from lateral.checks.view import Rule, View, listed
from lateral.devices import PV, Capacitor, Load, Source
from lateral.devices.base import ShuntDevice
from lateral.errors import Fault
from lateral.network.feeder import Line, MultiTerminal, Shunt, Switch, Transformer
from lateral.network.schema import ComplexArray, FloatArray

#: Sums of admittances below this share of what they are made of are rounding (1e-15); antifloat shunts are 1e-8.
_ROUNDING = 1e-12


def _floating(view: View) -> Iterator[Fault]:
    """Every set of buses joined by lines, switches and generic admittances needs one tie to ground: a source, a
    grounded or antifloat winding, an admittance to ground of a shunt, a line or a generic admittance, or a device to
    ground that draws or gives something without control. Else the nodal matrix is singular."""
    if view.feeder.balanced is True:
        return
    part: dict[str, str] = {name: name for name in view.bus_names}

    def root(name: str) -> str:
        while part[name] != name:
            part[name] = part[part[name]]
            name = part[name]
        return name

    wires: tuple[Line | Switch, ...] = (*view.sound(Line), *(s for s in view.sound(Switch) if s.closed))
    for wire in wires:
        if wire.bus_from in part and wire.bus_to in part:
            part[root(wire.bus_from)] = root(wire.bus_to)
    held = []
    for element in view.sound(MultiTerminal):
        buses, to_ground = _through(element)
        buses = [name for name in buses if name in part]
        for name in buses[1:]:
            part[root(buses[0])] = root(name)
        held += buses[:1] if to_ground else []
    tied = {root(name) for name in held}
    tied |= {root(s.bus) for s in view.sound(Source) if s.bus in part}
    tied |= {root(s.bus) for s in view.sound(Shunt) if s.bus in part and _to_ground(s.g_us, s.b_us).all()}
    tied |= {root(name) for name in _charged(wires) if name in part}
    devices = [d for d in view.sound(ShuntDevice) if d.bus in part and 0 in d.terminals]
    tied |= {root(d.bus) for d in devices if _acts(view, d)}
    windings = [(t, w) for t in view.sound(Transformer) for w in t.windings if w.bus in part]
    tied |= {root(w.bus) for t, w in windings if t.antifloat_ppm > 0.0 or w.grounded}
    ends = [(t.label, f"a {w.connection} winding", w.bus) for t, w in windings]
    ends += [(e.label, "an admittance", name) for e in view.sound(MultiTerminal) for name in e.buses if name in part]
    seen: set[str] = set()
    for label, what, bus in ends:
        island = root(bus)
        if island in tied or island in seen:
            continue
        seen.add(island)
        buses = [name for name in part if root(name) == island]
        yield fault(
            "NET-023",
            label,
            f"{what} at bus {bus!r} and {len(buses)} bus(es) that nothing ties to ground: {listed(buses)}",
            "a tie to ground",
            "Ground the neutral or add a shunt, or give the transformer antifloat_ppm above 0 (OpenDSS: 1).",
        )


def _drives(y: ComplexArray, own: Sequence[int] | slice = slice(None)) -> NDArray[np.bool_]:
    """Whether a common voltage to ground of some conductors, or of all, drives a current anywhere in an element.

    Of a matrix, or of each of a stack of them, shape (..., n, n).
    """
    size = np.sqrt(np.abs(y.diagonal(axis1=-2, axis2=-1)))
    least = _ROUNDING * size * size[..., own].max(axis=-1, keepdims=True, initial=0.0)
    return np.asarray((np.abs(y[..., own].sum(axis=-1)) > least).any(axis=-1))


def _to_ground(g: FloatArray, b: FloatArray) -> NDArray[np.bool_]:
    """Whether a matrix of admittances at a bus has any to ground; of one, or of each of a stack.

    Those that are no matrix of numbers, which is another fault, count as if they had.
    """
    if g.ndim < 2 or g.shape != b.shape or g.shape[-2] != g.shape[-1]:
        return np.ones(g.shape[:-2], dtype=bool)
    y = g + 1j * b
    return np.asarray(~np.isfinite(y).all(axis=(-2, -1)) | _drives(y))


def _charged(wires: Iterable[Line | Switch]) -> Iterator[str]:
    """The buses from which lines and switches start whose charging has any admittance to ground."""
    sizes: dict[tuple[int, ...], list[Line | Switch]] = {}
    for wire in wires:
        if wire.b_us is not None and wire.b_us.ndim == 2:  # any other is NET-009
            sizes.setdefault(wire.b_us.shape, []).append(wire)
    for some in sizes.values():
        b = np.array([wire.b_us for wire in some])
        for wire, yes in zip(some, _to_ground(np.zeros_like(b), b).tolist(), strict=True):
            if yes:
                yield wire.bus_from


def _through(element: MultiTerminal) -> tuple[list[str], bool]:
    """The buses that a generic admittance joins, and whether it ties them to ground.

    It joins those whose voltage to ground it feels; windings that isolate a bus do not.
    """
    y, nodes = _matrix(element.g_us, element.b_us), element.nodes
    if y is None or len(y) != len(nodes):
        return list(element.buses), True
    at = {name: [k for k, (bus, _) in enumerate(nodes) if bus == name] for name in element.buses}
    joined = [name for name, own in at.items() if _drives(y, own)]
    return joined, bool(_drives(y, [k for name in joined for k in at[name]]))


def _matrix(g: FloatArray, b: FloatArray) -> ComplexArray | None:
    """A matrix of its real and imaginary part; None where they are no matrix of numbers, which is another fault."""
    if g.ndim != 2 or g.shape != b.shape or g.shape[0] != g.shape[1] or not np.isfinite([g, b]).all():
        return None
    return np.asarray(g + 1j * b)


def _acts(view: View, device: ShuntDevice) -> bool:
    """Whether a device draws or gives something in the day without control, as `lateral.baseline` has it."""
    if isinstance(device, Load):
        return any(view.peak_load(device))
    if isinstance(device, Capacitor):
        return device.q_kvar != 0.0
    if isinstance(device, PV):
        return device.p_rated_kw != 0.0 and device.s_max_kva != 0.0 and view.peak.get(device.profile, 1.0) != 0.0
    return False


RULES: tuple[Rule, ...] = (_floating,)
