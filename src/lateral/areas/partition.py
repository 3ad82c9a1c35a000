"""Partition: a feeder cut at branches into a tree of areas, each an ordinary case.

The branch at a cut belongs to the area on the source's side; the loads at its far bus to the area beyond it. What is
left of each area holds nothing of the others but the name of the border, the conductors that cross, and an estimate of
the power there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lateral.baseline import load_power
from lateral.case import Case
from lateral.devices import BorderHead, BorderTail, Load, Regulator, Source
from lateral.devices.base import Device
from lateral.errors import CaseError, Fault, OptionError, did_you_mean
from lateral.network.feeder import Feeder, Line, Switch, Transformer
from lateral.network.schema import Element, FloatArray, fields_of
from lateral.network.topology import Group, Tree, loops, spanning_tree


@dataclass(frozen=True, slots=True)
class Border:
    """One cut.

    Attributes:
        name: the name of the two border devices.
        parent: the area on the source's side, which has the branch.
        child: the area beyond.
        branch: labels of what is cut, e.g. ``line.15-117``; several where units stand side by side.
        bus: the far bus, which both areas know.
        conductors: the conductors that cross.
    """

    name: str
    parent: str
    child: str
    branch: tuple[str, ...]
    bus: str
    conductors: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Area:
    """One area.

    Attributes:
        name: its name.
        case: its case; borders are `BorderHead` and `BorderTail` devices.
        head: the border towards the source, None for the root.
        tails: the borders away from it.
        n_nodes: nodes at its own buses; those at the far ends of its tails belong to the areas below.
    """

    name: str
    case: Case
    head: Border | None
    tails: tuple[Border, ...]
    n_nodes: int


@dataclass(frozen=True, eq=False)
class Partition:
    """A case cut into a tree of areas.

    Attributes:
        case: the whole.
        areas: the areas by name, the root first, every parent before its children.
        borders: the borders by name, in the order of the areas below them.
    """

    case: Case
    areas: Mapping[str, Area]
    borders: Mapping[str, Border]

    @cached_property
    def depth(self) -> Mapping[str, int]:
        """Number of borders between each area and the root."""
        out: dict[str, int] = {}
        for name, area in self.areas.items():
            out[name] = 0 if area.head is None else out[area.head.parent] + 1
        return out

    @property
    def max_depth(self) -> int:
        """Depth of the tree of areas."""
        return max(self.depth.values())

    @cached_property
    def bus_area(self) -> dict[str, str]:
        """Area of each bus: of the two that know a border's bus, the lower one."""
        out: dict[str, str] = {}
        for name, area in self.areas.items():
            out.update(dict.fromkeys((b.name for b in area.case.feeder.buses), name))
        return out


def cut(case: Case, branches: Iterable[str], *, names: Mapping[str, str] | None = None, root: str = "1") -> Partition:
    """Cut a radial case at branches.

    Args:
        case: the case.
        branches: labels (``line.15-117``) of closed branches; of units side by side any one.
        names: name of the area beyond a branch, by its label; absent: numbers in order of the branches.
        root: name of the area of the source.

    Raises:
        OptionError: a branch that does not exist, is open, or is named twice; a name that is taken.
        CaseError: the feeder has a loop, or more than one source.
    """
    _require_tree(case)
    roots = list(dict.fromkeys(s.bus for s in case.sources))
    tree = spanning_tree(case.feeder, roots)
    at: dict[str, str] = {}  # bus beyond each cut
    below = {label: (bus, group) for bus, group in tree.via.items() for label in group.branches}
    given = dict(names or {})
    taken = {root}
    cuts: dict[str, tuple[str, Group]] = {}
    for k, label in enumerate(branches):
        if label not in below:
            message = f"there is no closed branch {label!r} to cut. {did_you_mean(label, list(below))}"
            raise OptionError(message)
        bus, group = below[label]
        if len(group.buses) > 2:
            message = f"{label} joins more than two buses and cannot be a border; cut a branch beside it"
            raise OptionError(message)
        name = given.get(label, str(k + 2))
        if bus in at:
            message = f"{label} is cut twice"
            raise OptionError(message)
        if name in taken:
            message = f"two areas are called {name!r}"
            raise OptionError(message)
        taken.add(name)
        at[bus] = name
        cuts[name] = (bus, group)
    area_of: dict[str, str] = {}
    order = [root]
    for bus in tree.order:
        area_of[bus] = at.get(bus, root if bus not in tree.parent else area_of[tree.parent[bus]])
        if bus in at:
            order.append(at[bus])
    return _assemble(case, tree, area_of, {name: cuts[name] for name in order[1:]}, order)


def cut_by_buses(case: Case, area_of: Mapping[str, str] | None = None) -> Partition:
    """Cut where two neighbouring buses belong to different areas.

    Args:
        case: the case.
        area_of: area of every bus; absent: ``case.areas``.

    Raises:
        OptionError: a bus without an area, or an area that is not connected.
        CaseError: the feeder has a loop, or more than one source.
    """
    mapping = dict(case.areas if area_of is None else area_of)
    if not mapping:
        message = "the case names no areas; say where to cut, or into how many areas"
        raise OptionError(message)
    _require_tree(case)
    tree = spanning_tree(case.feeder, [s.bus for s in case.sources])
    missing = [bus for bus in tree.order if bus not in mapping]
    if missing:
        message = f"{len(missing)} buses have no area, {missing[0]!r} for one"
        raise OptionError(message)
    seen: dict[str, str] = {}
    labels: dict[str, str] = {}
    for bus in tree.order:
        area = mapping[bus]
        if bus in tree.parent and mapping[tree.parent[bus]] == area:
            continue
        if area in seen:
            message = f"area {area!r} is in two pieces: it is entered at bus {seen[area]!r} and at bus {bus!r}"
            raise OptionError(message)
        seen[area] = bus
        if bus in tree.parent:
            labels[tree.via[bus].branches[0]] = area
    return cut(case, labels, names=labels, root=mapping[tree.order[0]])


def _require_tree(case: Case) -> None:
    faults = [
        Fault(
            "ARE-001 loop",
            found[0],
            f"a loop of {len(found)} branches",
            "a radial feeder",
            "Open one of the branches of the loop: " + ", ".join(found[:8]),
        )
        for found in loops(case.feeder, [s.bus for s in case.sources])
    ]
    buses = {s.bus for s in case.sources}
    if len(buses) != 1:
        found = f"sources at {len(buses)} buses"
        faults.append(Fault("ARE-002 source", f"case.{case.name}", found, "one", "Keep one source, or one case each."))
    if faults:
        raise CaseError(faults)


def _assemble(
    case: Case, tree: Tree, area_of: Mapping[str, str], cuts: Mapping[str, tuple[str, Group]], order: Sequence[str]
) -> Partition:
    feeder = case.feeder
    elements = {e.label: e for e in (*feeder.lines, *feeder.switches, *feeder.transformers)}
    borders: dict[str, Border] = {}
    for child, (bus, group) in cuts.items():
        conductors = sorted({c for label in group.branches for c in _conductors(elements[label], bus)})
        name = group.branches[0].split(".", 1)[1]
        if name in borders:
            name = f"{name}-{child}"
        parent = area_of[tree.parent[bus]]
        borders[name] = Border(name, parent, child, group.branches, bus, tuple(conductors))
    head = {b.child: b for b in borders.values()}
    tails: dict[str, list[Border]] = {name: [] for name in order}
    for b in borders.values():
        tails[b.parent].append(b)

    # a branch belongs to the area of its end nearer to the source: to the parent's, where it is cut
    depth = {bus: k for k, bus in enumerate(tree.order)}

    def owner(buses: Iterable[str]) -> str:
        known = [b for b in buses if b in depth]
        return area_of[min(known, key=depth.__getitem__)] if known else order[0]

    lines: dict[str, list[Line]] = {name: [] for name in order}
    switches: dict[str, list[Switch]] = {name: [] for name in order}
    transformers: dict[str, list[Transformer]] = {name: [] for name in order}
    of_transformer: dict[str, str] = {}
    for line in feeder.lines:
        lines[owner((line.bus_from, line.bus_to))].append(line)
    for switch in feeder.switches:
        ends = {area_of.get(switch.bus_from, order[0]), area_of.get(switch.bus_to, order[0])}
        if switch.closed or len(ends) == 1:  # an open switch between areas is nobody's
            switches[owner((switch.bus_from, switch.bus_to))].append(switch)
    for t in feeder.transformers:
        of_transformer[t.name] = owner(w.bus for w in t.windings)
        transformers[of_transformer[t.name]].append(t)
    devices: dict[str, list[Element]] = {name: [] for name in order}
    for d in case.devices:
        if isinstance(d, Device):
            devices[area_of.get(d.bus, order[0])].append(d)
        elif isinstance(d, Regulator):
            devices[of_transformer.get(d.transformer, order[0])].append(d)
        else:
            devices[order[0]].append(d)
    below = _downstream(case, area_of, borders)
    price = _tariff(case)
    source = case.sources[0]
    areas: dict[str, Area] = {}
    for name in order:
        mine = [b for b in feeder.buses if area_of.get(b.name, order[0]) == name]
        far = {b.bus for b in tails[name]}
        buses = tuple(b for b in feeder.buses if b.name in far or area_of.get(b.name, order[0]) == name)
        edge: list[Element] = []
        profiles = dict(case.profiles)
        if name in head:
            b = head[name]
            if isinstance(price, str):
                profiles.setdefault(price, case.profiles[price])
            edge.append(_head(b, source, case, price))
        for b in tails[name]:
            p, q = below[b.name]
            edge.append(
                BorderTail(name=b.name, bus=b.bus, terminals=(*b.conductors, 0), p_kw=float(p), q_kvar=float(q))
            )
        kept = (*(edge[:1] if name in head else ()), *devices[name], *(edge[1:] if name in head else edge))
        area_case = Case(
            name=f"{case.name}.{name}",
            feeder=dataclasses.replace(
                feeder,
                buses=buses,
                lines=tuple(lines[name]),
                switches=tuple(switches[name]),
                transformers=tuple(transformers[name]),
                shunts=tuple(s for s in feeder.shunts if area_of.get(s.bus, order[0]) == name),
            ),
            devices=tuple(kept),
            horizon=case.horizon,
            profiles=_used(kept, profiles),
            base=case.base,
            alpha_usd_per_kwh=case.alpha_usd_per_kwh,
        )
        n_nodes = sum(len(b.conductors) for b in mine)
        areas[name] = Area(name, area_case, head.get(name), tuple(tails[name]), n_nodes)
    return Partition(case, areas, borders)


def _conductors(element: Element, bus: str) -> tuple[int, ...]:
    if isinstance(element, Line | Switch):
        return element.conductors_to if element.bus_to == bus else element.conductors_from
    if isinstance(element, Transformer):
        return tuple(c for w in element.windings if w.bus == bus for c in w.terminals if c > 0)
    return ()


def _tariff(case: Case) -> float | str:
    """The import price, which every area is told: what the published algorithm lets a child minimise."""
    return case.sources[0].price_import


def _head(border: Border, source: Source, case: Case, price: float | str) -> BorderHead:
    angle = dict(zip(source.conductors, np.resize(source.angle_deg, len(source.conductors)), strict=True))
    return BorderHead(
        name=border.name,
        bus=border.bus,
        conductors=border.conductors,
        v_pu=source.v_pu if isinstance(source.v_pu, str) else float(source.v_pu),
        angle_deg=tuple(float(angle.get(c, 0.0)) for c in border.conductors),
        r_ohm=np.zeros((len(border.conductors),) * 2),
        x_ohm=np.zeros((len(border.conductors),) * 2),
        price_import=price,
    )


def _downstream(
    case: Case, area_of: Mapping[str, str], borders: Mapping[str, Border]
) -> dict[str, tuple[float, float]]:
    """Largest load beyond each border, kW and kvar: what its tail draws until the first message."""
    own: dict[str, FloatArray] = {}
    zero = np.zeros((2, case.horizon.n_steps))
    for d in case.devices:
        if isinstance(d, Load):
            area = area_of.get(d.bus, "")
            own[area] = own.get(area, zero) + np.array(load_power(case, d))
    total: dict[str, FloatArray] = {}
    for b in reversed(list(borders.values())):
        total[b.child] = total.get(b.child, zero) + own.get(b.child, zero)
        total[b.parent] = total.get(b.parent, zero) + total[b.child]
    return {name: (float(total[b.child][0].max()), float(total[b.child][1].max())) for name, b in borders.items()}


def _used(devices: Sequence[Element], profiles: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The profiles that some devices name."""
    names = set()
    for d in devices:
        for f in fields_of(type(d)):
            value = getattr(d, f.name)
            if isinstance(value, str) and value and (f.series or f.profile):
                names.add(value)
    return {name: values for name, values in profiles.items() if name in names}


__all__ = ["Area", "Border", "Feeder", "Partition", "cut", "cut_by_buses"]
