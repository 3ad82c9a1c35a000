"""Ungrounded islands: buses behind ungrounded windings whose voltage to ground nothing fixes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lateral.checks.codes import fault
from lateral.checks.view import Rule, View, listed
from lateral.devices import Source
from lateral.devices.base import ShuntDevice
from lateral.errors import Fault
from lateral.network.feeder import Line, MultiTerminal, Shunt, Switch, Transformer, Winding


def _floating(view: View) -> Iterator[Fault]:
    """Every set of buses joined by lines and switches needs one tie to ground: a source, a grounded or antifloat
    winding, a shunt, the charging of a line, or a device to ground. Else the nodal matrix is singular."""
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
    tied = {root(s.bus) for s in view.sound(Source) if s.bus in part}
    tied |= {root(s.bus) for s in view.sound(Shunt) if s.bus in part}
    tied |= {root(t.bus) for m in view.sound(MultiTerminal) for t in m.terminals if t.bus in part}
    tied |= {root(w.bus_from) for w in wires if w.bus_from in part and w.b_us is not None and np.any(w.b_us)}
    tied |= {root(d.bus) for d in view.sound(ShuntDevice) if d.bus in part and 0 in d.terminals}
    windings = [(t, w) for t in view.sound(Transformer) for w in t.windings if w.bus in part]
    tied |= {root(w.bus) for t, w in windings if t.antifloat_ppm > 0.0 or _grounded(w)}
    seen: set[str] = set()
    for t, w in windings:
        island = root(w.bus)
        if island in tied or island in seen:
            continue
        seen.add(island)
        buses = [name for name in part if root(name) == island]
        yield fault(
            "NET-023",
            t.label,
            f"a {w.connection} winding at bus {w.bus!r} and {len(buses)} bus(es) that nothing ties to ground: "
            f"{listed(buses)}",
            "a tie to ground",
            "Ground the neutral, or give the transformer antifloat_ppm above 0 (the OpenDSS default is 1).",
        )


def _grounded(winding: Winding) -> bool:
    """Whether a winding ties its bus to ground."""
    return 0 in winding.terminals or (winding.connection == "wye" and winding.r_neutral_ohm >= 0.0)


RULES: tuple[Rule, ...] = (_floating,)
