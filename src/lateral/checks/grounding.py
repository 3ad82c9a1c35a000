"""Ungrounded islands: buses behind ungrounded windings whose voltage to ground nothing fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lateral.checks.codes import fault
from lateral.checks.view import Rule, View, listed
from lateral.devices import PV, Capacitor, Load, Source
from lateral.devices.base import ShuntDevice
from lateral.errors import Fault
from lateral.network.feeder import Line, MultiTerminal, Shunt, Switch, Transformer, Winding
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
    tied |= {root(s.bus) for s in view.sound(Shunt) if s.bus in part and _to_ground(s.g_us, s.b_us)}
    charged = ((w.bus_from, w.b_us) for w in wires if w.bus_from in part and w.b_us is not None)
    tied |= {root(name) for name, b in charged if _to_ground(np.zeros_like(b), b)}
    devices = [d for d in view.sound(ShuntDevice) if d.bus in part and 0 in d.terminals]
    tied |= {root(d.bus) for d in devices if _acts(view, d)}
    windings = [(t, w) for t in view.sound(Transformer) for w in t.windings if w.bus in part]
    tied |= {root(w.bus) for t, w in windings if t.antifloat_ppm > 0.0 or _grounded(w)}
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


def _drives(y: ComplexArray, own: Sequence[int]) -> bool:
    """Whether a common voltage to ground of some conductors drives a current anywhere in an element."""
    size = np.sqrt(np.abs(y.diagonal()))
    least = _ROUNDING * size * size[own].max(initial=0.0)
    return bool((np.abs(y[:, own].sum(axis=1)) > least).any())


def _to_ground(g: FloatArray, b: FloatArray) -> bool:
    """Whether a matrix of admittances at a bus has any to ground."""
    y = _matrix(g, b)
    return y is None or _drives(y, range(len(y)))


def _through(element: MultiTerminal) -> tuple[list[str], bool]:
    """The buses that a generic admittance joins, and whether it ties them to ground.

    It joins those whose voltage to ground it feels; windings that isolate a bus do not.
    """
    y, nodes = _matrix(element.g_us, element.b_us), element.nodes
    if y is None or len(y) != len(nodes):
        return list(element.buses), True
    at = {name: [k for k, (bus, _) in enumerate(nodes) if bus == name] for name in element.buses}
    joined = [name for name, own in at.items() if _drives(y, own)]
    return joined, _drives(y, [k for name in joined for k in at[name]])


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


def _grounded(winding: Winding) -> bool:
    """Whether a winding ties its bus to ground."""
    return 0 in winding.terminals or (winding.connection == "wye" and winding.r_neutral_ohm >= 0.0)


RULES: tuple[Rule, ...] = (_floating,)
