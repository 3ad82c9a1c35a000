"""Which parts of an OpenDSS model are live, and the buses of the case."""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TypeVar

import numpy as np

from lateral.devices import Source
from lateral.devices.base import ShuntDevice
from lateral.io.opendss.map_build import FIRST_NEUTRAL, SQRT3, Build, number
from lateral.io.opendss.map_wires import winding_base_kv
from lateral.network.admittance import primitive_of
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Shunt, Switch, Terminal, Transformer
from lateral.network.schema import Element, Terminals
from lateral.network.topology import energised, floating, joined, reached

Node = tuple[str, int]
Branch = TypeVar("Branch", Line, Switch)

#: Ratio of a bus base to that of its transformer from which it is taken for misjudged.
MISJUDGED = 2.0
#: How far a source may be from the limits of its bus, and the room that limits of its own leave it, pu.
SOURCE_PU = 0.05
#: Below this voltage at the solved point a conductor is taken for a neutral, pu.
NEUTRAL_PU = 0.3


def bus_bases(build: Build) -> dict[str, float]:
    """Line-to-ground base of every bus, kV: as the files set it, else carried on from sources and transformers.

    ``CalcVoltageBases`` gives a bus the base next to its voltage to ground without load, which of an ungrounded winding
    may be anything. Where that is no base of its transformer, and the files name one that is, it is taken.
    """
    base = {name: bus.kv_base for name, bus in build.model.buses.items() if bus.kv_base > 0}
    missing = [name for name in build.model.buses if name not in base]
    near = _neighbours(build)
    moved = _misjudged(build, base, near)
    base |= moved
    levelled = _levelled(build, base, near)
    base |= levelled
    if moved:
        some = ", ".join(list(moved)[:5]) + (", ..." if len(moved) > 5 else "")
        said = f"{len(moved)} buses were given a voltage base that their transformer does not have; it is the other one"
        build.note("IMP-053", f"{said} of those that the files name: {some}")
    if levelled:
        some = ", ".join(list(levelled)[:5]) + (", ..." if len(levelled) > 5 else "")
        said = f"{len(levelled)} buses have another voltage base in the files than those that lines join them to"
        build.note("IMP-053", f"{said}; they have one here: {some}")
    if not missing:
        return base
    for properties in build.model.objects("vsource"):
        element = build.model.elements.get(f"vsource.{str(properties['name']).lower()}")
        if element is not None and element.nodes:
            kv = number(properties, "basekv")
            base.setdefault(element.buses[0], kv if element.phases == 1 else kv / SQRT3)
    _carry(base, near)
    for name in missing:
        if name not in base:
            volts = [abs(build.voltage(name, n)) for n in build.model.buses[name].nodes]
            base[name] = max(volts, default=0.0) / 1e3 or 1.0
    build.note("IMP-053", f"{len(missing)} buses have no voltage base in the files; it is that of their transformer")
    return base


def _neighbours(build: Build) -> dict[str, list[tuple[str, float]]]:
    """The buses beside every bus, with the base that a transformer between them gives each; 0 where it is the same."""
    near: dict[str, list[tuple[str, float]]] = {}
    branches: list[Line | Switch] = [*build.lines, *build.switches]
    for wire in branches:
        near.setdefault(wire.bus_from, []).append((wire.bus_to, 0.0))
        near.setdefault(wire.bus_to, []).append((wire.bus_from, 0.0))
    for t in build.transformers:
        for k, winding in enumerate(t.windings):
            for other in t.windings:
                near.setdefault(other.bus, []).append((winding.bus, winding_base_kv(t, k)))
    for rated in build.rated:
        for end in rated:
            near.setdefault(end, []).extend(rated.items())
    return near


def _carry(base: dict[str, float], near: Mapping[str, list[tuple[str, float]]]) -> None:
    """Carry bases on from the buses that have one, in place."""
    queue = deque(base)
    while queue:
        name = queue.popleft()
        for bus, kv in near.get(name, ()):
            if bus not in base:
                base[bus] = kv or base[name]
                queue.append(bus)


#: The list of voltage bases of a ``set`` statement, and a number in it.
_BASES = re.compile(r"voltagebases=[\[({\"']*([^\])}\"']*)")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?")


def _misjudged(
    build: Build, base: Mapping[str, float], near: Mapping[str, list[tuple[str, float]]]
) -> dict[str, float]:
    """Buses whose base is off their transformer's by more than `MISJUDGED`, with another base that the files name."""
    statements = build.model.scanned.statements
    if any(s.verb == "setkvbase" for s in statements):
        return {}  # said bus by bus
    said = [found.group(1) for s in statements if s.verb == "set" for found in _BASES.finditer(s.text.lower())]
    if not said:
        return {}
    named = [float(x) / SQRT3 for x in _NUMBER.findall(said[-1])]
    roots = {e.buses[0] for n, e in build.model.elements.items() if n.startswith("vsource.") and e.nodes}
    carried = {bus: base[bus] for bus in roots if bus in base}
    _carry(carried, near)
    out = {}
    for bus, kv in carried.items():
        best = min(named, key=lambda x: abs(x - kv), default=0.0)
        own = base.get(bus, kv)
        if not 1.0 / MISJUDGED < own / kv < MISJUDGED and abs(best - kv) <= 0.1 * kv:
            out[bus] = best
    return out


def _levelled(build: Build, base: Mapping[str, float], near: Mapping[str, list[tuple[str, float]]]) -> dict[str, float]:
    """Buses that lines or switches join to one of another base, with the base of these that fits the sources best."""
    branches: list[Line | Switch] = [*build.lines, *build.switches]
    uneven = {
        bus
        for wire in branches
        if wire.bus_from in base and wire.bus_to in base and not _alike(base[wire.bus_from], base[wire.bus_to])
        for bus in (wire.bus_from, wire.bus_to)
    }
    if not uneven:
        return {}
    roots = {e.buses[0] for n, e in build.model.elements.items() if n.startswith("vsource.") and e.nodes}
    carried = {bus: base[bus] for bus in roots if bus in base}
    _carry(carried, near)
    out: dict[str, float] = {}
    seen: set[str] = set()
    for start in base:
        if start not in uneven or start in seen:
            continue
        part, queue = {start}, deque([start])
        while queue:
            for bus, kv in near.get(queue.popleft(), ()):
                if kv == 0.0 and bus not in part:
                    part.add(bus)
                    queue.append(bus)
        seen |= part
        members = [bus for bus in base if bus in part]
        want = next((carried[bus] for bus in members if bus in carried), base[members[0]])
        best = min((base[bus] for bus in members), key=lambda kv: abs(np.log(kv / want)))
        out |= {bus: best for bus in members if not _alike(base[bus], best)}
    return out


def _alike(a: float, b: float) -> bool:
    """Whether two bases are one but for rounding: 12.47 / sqrt(3) is often written 7.2."""
    return abs(a - b) <= 1e-3 * max(a, b)


def keep_live(build: Build) -> dict[str, Terminals]:
    """Leave out everything without a path to a source; conductors of every bus that stays."""
    alive = _live_nodes(build)
    conductors: dict[str, list[int]] = {}
    for bus, node in alive:
        if node < 0:
            continue  # an isolated neutral is inside its transformer
        conductors.setdefault(bus, []).append(node)
    build.lines = [w for x in build.lines if (w := _live_branch(build, x, alive)) is not None]
    build.shunts = [s for x in build.shunts if (s := _live_shunt(build, x, alive)) is not None]
    build.transformers = [x for x in build.transformers if _live_transformer(build, x, alive)]
    build.admittances = [e for x in build.admittances if (e := _live_admittance(build, x, alive)) is not None]
    build.switches = [b for x in build.switches if (b := _live_branch(build, x, alive)) is not None]
    build.devices = [d for x in build.devices if (d := _live_device(build, x, alive)) is not None]
    dead = [b for b in build.model.buses if b not in conductors]
    if dead:
        some = ", ".join(dead[:5]) + (", ..." if len(dead) > 5 else "")
        gone = sum(e.code == "IMP-021" for e in build.entries.values())
        said = f"{len(dead)} buses without a path to a source are left out, with {gone} elements: {some}"
        build.note("IMP-021", said)
    for name, data in build.model.buses.items():
        lost = [n for n in data.nodes if n > 0 and name in conductors and n not in conductors[name]]
        if lost:
            build.note("IMP-055", f"bus {name}: conductors {', '.join(map(str, lost))} have no path to a source")
    return {bus: tuple(sorted(nodes)) for bus, nodes in conductors.items()}


def _live_nodes(build: Build) -> set[Node]:
    """Nodes with a path to a source: over wires, and between conductors over what is connected across them."""
    devices = [d for d in build.devices if isinstance(d, ShuntDevice)]
    ports = [((d.bus, a), (d.bus, b)) for d in devices for a, b in d.ports]
    wires, fed = _wires(build), _fed(build)
    # what is reached without induction is not floating either: where that is all, no more has to be looked at
    direct = reached(joined(wires, ports, induced=False), fed)
    if all(node in direct for node in _ends(wires, ports)):
        return set(direct)
    free = floating(wires, [*fed, *(node for port in ports for node in port)])
    return set(reached(joined(wires, ports), fed) - free)


def _wires(build: Build) -> Feeder:
    """The wires so far, without buses."""
    return Feeder(
        buses=(),
        lines=tuple(build.lines),
        switches=tuple(build.switches),
        transformers=tuple(build.transformers),
        shunts=tuple(build.shunts),
        admittances=tuple(build.admittances),
    )


def _ends(wires: Feeder, ports: list[tuple[Node, Node]]) -> Iterator[Node]:
    """Every conductor that wires and devices end on, ground left out; some more than once."""
    yield from (node for port in ports for node in port if node[1] != 0)
    branches: tuple[Line | Switch, ...] = (*wires.lines, *wires.switches)
    for branch in branches:
        yield from ((branch.bus_from, c) for c in branch.conductors_from)
        yield from ((branch.bus_to, c) for c in branch.conductors_to)
    yield from ((w.bus, c) for t in wires.transformers for w in t.windings for c in w.terminals if c != 0)
    yield from ((s.bus, c) for s in wires.shunts for c in s.conductors)
    yield from (node for e in wires.admittances for node in e.nodes)


def _fed(build: Build) -> list[Node]:
    """The conductors of the sources."""
    return [(d.bus, c) for d in build.devices if isinstance(d, Source) for c in d.conductors]


def _live_transformer(build: Build, transformer: Transformer, alive: set[Node]) -> bool:
    """Whether it stays as it is: with a core that no source reaches it is the matrix of its other cores."""
    nodes = {(w.bus, c) for w in transformer.windings for c in w.terminals if c > 0}
    if nodes <= alive:
        return True
    if nodes.isdisjoint(alive):
        _isolated(build, transformer)
        return False
    own = primitive_of(transformer)
    keep = [k for k, node in enumerate(own.nodes) if node in alive]
    y = 1e6 * own.y[np.ix_(keep, keep)]
    ends = groupby((own.nodes[k] for k in keep), key=lambda node: node[0])
    made = MultiTerminal(
        name=f"transformer_{transformer.name}",
        terminals=tuple(Terminal(bus=bus, conductors=tuple(c for _, c in some)) for bus, some in ends),
        g_us=y.real,
        b_us=y.imag,
    )
    build.admittances.append(made)
    source = build.origin[transformer.label]
    said = "cores without a path to a source are left out, the others are a generic admittance at this tap, no limit"
    build.origin[made.label] = source
    build.entries.pop(source, None)
    build.record(source, "approximated", "IMP-015", said, (made.label,))
    return False


def _live_shunt(build: Build, shunt: Shunt, alive: set[Node]) -> Shunt | None:
    """A shunt over its live conductors; it couples them to no others, so that cutting is exact."""
    keep = [k for k, c in enumerate(shunt.conductors) if (shunt.bus, c) in alive]
    if not keep:
        _isolated(build, shunt)
        return None
    if len(keep) == len(shunt.conductors):
        return shunt
    cut = np.ix_(keep, keep)
    conductors = tuple(shunt.conductors[k] for k in keep)
    return dataclasses.replace(shunt, conductors=conductors, g_us=shunt.g_us[cut], b_us=shunt.b_us[cut])


def _isolated(build: Build, element: Element) -> None:
    source = build.origin.get(element.label, element.label)
    old = build.entries.pop(source, None)
    others = tuple(label for label in old.became if label != element.label) if old is not None else ()
    if old is not None and others:  # the charging of a line that is open at its other end
        build.entries[source] = dataclasses.replace(old, became=others)
        return
    build.record(source, "ignored", "IMP-021", "no path to a source", lost_kw=_kw(element))
    build.dispatch.pop(element.label, None)


def _kw(element: Element) -> float:
    """Rated active power of a device, kW: what is lost with it."""
    rated = (getattr(element, key, None) for key in ("p_kw", "p_rated_kw", "p_discharge_max_kw"))
    return next((abs(float(p)) for p in rated if p is not None), 0.0)


def _live_admittance(build: Build, wire: MultiTerminal, alive: set[Node]) -> MultiTerminal | None:
    """A generic admittance over its live conductors; it couples them to no others, so that cutting is exact."""
    keep = [k for k, node in enumerate(wire.nodes) if node in alive]
    if not keep:
        _isolated(build, wire)
        return None
    if len(keep) == len(wire.nodes):
        return wire
    cut = np.ix_(keep, keep)
    ends = [
        dataclasses.replace(t, conductors=tuple(c for c in t.conductors if (t.bus, c) in alive)) for t in wire.terminals
    ]
    said = "conductors without a path to a source, which it does not couple to the others, are left out"
    build.record(build.origin[wire.label], "mapped", "IMP-066", said)
    return dataclasses.replace(
        wire, terminals=tuple(t for t in ends if t.conductors), g_us=wire.g_us[cut], b_us=wire.b_us[cut]
    )


def _live_branch(build: Build, branch: Branch, alive: set[Node]) -> Branch | None:
    """A line or switch over its live conductors; no current flows in the others, so that cutting is exact."""
    pairs = list(zip(branch.conductors_from, branch.conductors_to, strict=True))
    keep = [k for k, (a, b) in enumerate(pairs) if (branch.bus_from, a) in alive and (branch.bus_to, b) in alive]
    if len(keep) == len(pairs):
        return branch
    if not keep:
        _isolated(build, branch)
        return None
    cut = np.ix_(keep, keep)
    if isinstance(branch, Switch) and not branch.closed:
        build.record(
            build.origin[branch.label], "approximated", "IMP-015", "conductors without a path to a source are left out"
        )
    return dataclasses.replace(
        branch,
        conductors_from=tuple(pairs[k][0] for k in keep),
        conductors_to=tuple(pairs[k][1] for k in keep),
        r_ohm=branch.r_ohm[cut],
        x_ohm=branch.x_ohm[cut],
        b_us=None if branch.b_us is None else branch.b_us[cut],
    )


def _live_device(build: Build, device: Element, alive: set[Node]) -> Element | None:
    if device.kind == "regulator":
        names = {t.name for t in build.transformers}
        if device.transformer in names:  # type: ignore[attr-defined]
            return device
        inside = f"admittance.transformer_{device.transformer}"  # type: ignore[attr-defined]
        if any(e.label == inside for e in build.admittances):
            source = build.origin[device.label]
            build.entries.pop(source, None)
            said = f"the tap is inside {inside} as at the solved point, held; no regulator of the case"
            build.record(source, "mapped", "IMP-002", said, (inside,))
            return None
        _isolated(build, device)
        return None
    if not isinstance(device, ShuntDevice):
        return device
    good = [p for p in device.ports if all((device.bus, c) in alive for c in p if c > 0)]
    if len(good) == len(device.ports):
        return device
    if not good or device.connection != "wye":
        _isolated(build, device)
        return None
    share = len(good) / len(device.ports)
    changes: dict[str, object] = {"terminals": (*(a for a, _ in good), device.terminals[-1])}
    for key in ("p_kw", "q_kvar", "q_total_kvar", "p_rated_kw", "s_max_kva", "p_charge_max_kw", "p_discharge_max_kw"):
        value = getattr(device, key, None)
        if value is not None:
            changes[key] = value * share
    source = build.origin[device.label]
    lost = len(device.ports) - len(good)
    said = f"{lost} of its {len(device.ports)} phases have no path to a source; their share of the power is left out"
    build.record(source, "approximated", "IMP-015", said, lost_kw=(1.0 - share) * _kw(device))
    return dataclasses.replace(device, **changes)  # type: ignore[arg-type]


def make_buses(build: Build, conductors: dict[str, Terminals], base: dict[str, float]) -> tuple[Bus, ...]:
    """The buses of the case, in the engine's order."""
    buses = []
    for name, data in build.model.buses.items():
        if name not in conductors:
            continue
        phases = [c for c in conductors[name] if c < FIRST_NEUTRAL]
        if build.model.reference is not None:
            phases = [c for c in phases if abs(build.voltage(name, c)) >= NEUTRAL_PU * 1e3 * base[name]]
        limits = (0.95, 1.05) if phases else (0.0, float("inf"))
        buses.append(
            Bus(
                name=name,
                conductors=conductors[name],
                v_base_kv=base[name],
                v_min_pu=limits[0],
                v_max_pu=limits[1],
                x=data.x if data.has_xy else float("nan"),
                y=data.y if data.has_xy else float("nan"),
            )
        )
    feeding = tuple(e for e in build.admittances if e.name not in build.charging)
    fed = energised(dataclasses.replace(_wires(build), buses=tuple(buses), admittances=feeding), _fed(build))
    unfed = {b.name: [c for c in b.conductors if c < FIRST_NEUTRAL and (b.name, c) not in fed] for b in buses}
    for name, some in unfed.items():
        if some:
            which = f"conductor{'s' if len(some) > 1 else ''} {', '.join(map(str, some))}"
            said = "fed by no branch (backwards through a winding, over a device or induced); no lower voltage limit"
            build.note("IMP-071", f"bus {name}: {which} {said}")
    out = [dataclasses.replace(b, v_min_pu=0.0) if unfed[b.name] else b for b in buses]
    given: dict[str, list[float]] = {}
    for device in build.devices:
        if isinstance(device, Source):
            given.setdefault(device.bus, []).append(float(device.v_pu))
    return tuple(_holding(build, b, given[b.name]) if b.name in given else b for b in out)


def _holding(build: Build, bus: Bus, given: list[float]) -> Bus:
    """A bus with limits that the sources at it, of so many pu, keep: the default ones are not of the files."""
    if min(given) >= bus.v_min_pu - SOURCE_PU and max(given) <= bus.v_max_pu + SOURCE_PU:
        return bus
    low = min(bus.v_min_pu, max(min(given) - SOURCE_PU, 0.0))
    high = max(bus.v_max_pu, max(given) + SOURCE_PU)
    values = " and ".join(f"{v:.4g}" for v in given)
    said = f"bus {bus.name}: its source gives {values} pu, so that its limits are {low:.4g} to {high:.4g} pu"
    build.note("IMP-072", said)
    return dataclasses.replace(bus, v_min_pu=low, v_max_pu=high)


__all__ = ["bus_bases", "keep_live", "make_buses"]
