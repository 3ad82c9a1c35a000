"""Partition: a feeder cut at branches into a tree of areas, each an ordinary case.

The branch at a cut belongs to the area on the source's side; the loads at its far bus to the area beyond it. What is
left of each area holds nothing of the others but the name of the border, the conductors that cross, and an estimate of
the power there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lateral.baseline import load_power
from lateral.case import Case
from lateral.devices import BorderHead, BorderTail, Load, Regulator
from lateral.devices.base import Device, ShuntDevice
from lateral.errors import CaseError, Fault, LateralError, OptionError, did_you_mean
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Shunt, Switch, Transformer
from lateral.network.schema import Element, FloatArray, fields_of
from lateral.network.topology import Group, Tree, loops, spanning_tree
from lateral.operating import NEUTRAL_PU, operating_point

#: What may join two areas.
BranchElement = Line | Switch | Transformer | MultiTerminal
#: Conductors up to this one are phases, or legs; above are neutrals.
MAX_PHASE = 3
#: Names of areas are names of folders.
NAME = re.compile(r"[^\W_](?:[\w .()-]{0,62}[\w)])?")


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
        CaseError: the feeder has a loop, or more than one source; a branch that does not exist, is open, is named
            twice or cannot be a border; a name that is taken or cannot be one. All of them at once.
    """
    faults = tree_faults(case)
    if faults:
        raise CaseError(faults)
    tree = spanning_tree(case.feeder, [s.bus for s in case.sources])
    below = {label: (bus, group) for bus, group in tree.via.items() for label in group.branches}
    elements = branches_of(case.feeder)
    given = dict(names or {})
    faults = [*_name_faults([root])]
    at: dict[str, str] = {}  # area beyond each bus where it is cut
    owner: dict[str, str] = {root: "the source"}
    cuts: dict[str, tuple[str, Group]] = {}
    for k, label in enumerate(branches):
        if label not in below:
            faults.append(_no_branch(label, elements, list(below)))
            continue
        bus, group = below[label]
        problem = border_problem(case.feeder, elements, group, bus)
        name = given.get(label, str(k + 2))
        if problem:
            action = "Cut a branch beside it."
            faults.append(Fault("ARE-006 no border", label, problem, "what can be a border", action))
        if bus in at:
            action = "Name each cut once; units side by side are one cut."
            faults.append(Fault("ARE-004 cut twice", label, f"a cut before bus {bus!r}, made already", "once", action))
            continue
        if name in owner:
            found = f"the area {name!r}, which is that of {owner[name]} too"
            faults.append(Fault("ARE-005 area name", label, found, "a name of its own", "Rename one of the two."))
        faults += _name_faults([name])
        owner.setdefault(name, label)
        at[bus] = name
        cuts[name] = (bus, group)
    faults += [_no_branch(label, elements, list(below)) for label in given if label not in elements]
    if faults:
        raise CaseError(dict.fromkeys(faults))
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
        OptionError: nothing says where to cut.
        CaseError: a bus without an area, an area for a bus that does not exist, an area in two pieces, and what `cut`
            finds. All of them at once.
    """
    mapping = dict(case.areas if area_of is None else area_of)
    if not mapping:
        message = "the case names no areas; say where to cut, or into how many areas"
        raise OptionError(message)
    faults = tree_faults(case)
    if faults:
        raise CaseError(faults)
    tree = spanning_tree(case.feeder, [s.bus for s in case.sources])
    known = case.feeder.bus
    for bus in mapping.keys() - known.keys():
        action = did_you_mean(bus, list(known))
        faults.append(Fault("ARE-007 bus", f"bus.{bus}", "an area for a bus that does not exist", "a bus", action))
    missing = [bus for bus in tree.order if bus not in mapping]
    if missing:
        found = f"no area, as {len(missing) - 1} others" if len(missing) > 1 else "no area"
        faults.append(Fault("ARE-007 bus", f"bus.{missing[0]}", found, "an area for every bus", "Name its area."))
    seen: dict[str, str] = {}
    labels: dict[str, str] = {}
    for bus in tree.order:
        area = mapping.get(bus)
        if area is None or (bus in tree.parent and mapping.get(tree.parent[bus]) == area):
            continue
        if area in seen:
            if not missing:
                found = f"pieces: it is entered at bus {seen[area]!r} and at bus {bus!r}"
                action = "Give one of the pieces a name of its own."
                faults.append(Fault("ARE-008 pieces", f"area.{area}", found, "one piece", action))
            continue
        seen[area] = bus
        if bus in tree.parent:
            labels[tree.via[bus].branches[0]] = area
    if faults:
        raise CaseError(faults)
    return cut(case, labels, names=labels, root=mapping[tree.order[0]])


def branches_of(feeder: Feeder) -> dict[str, BranchElement]:
    """Every line, switch, transformer and generic admittance by label."""
    every: tuple[BranchElement, ...] = (
        *feeder.lines,
        *feeder.switches,
        *feeder.transformers,
        *feeder.admittances,
    )
    return {e.label: e for e in every}


def border_problem(feeder: Feeder, elements: Mapping[str, BranchElement], group: Group, bus: str) -> str:
    """Why a group of branches cannot be cut before a bus; empty when it can.

    What crosses a border is a voltage to ground and a power for each conductor. So a neutral cannot cross (its voltage
    is next to nothing, and divides nothing), nor an open end (it has a voltage, but is no phase), nor what comes from a
    delta winding: its voltages to ground are decided on the far side, by what is connected there.
    """
    if len(group.buses) > 2:
        return f"a transformer between {len(group.buses)} buses"
    if len(feeder.bus[bus].conductors) == 1 and not any(label.startswith("admittance.") for label in group.branches):
        return ""
    for label in group.branches:
        element = elements[label]
        if isinstance(element, MultiTerminal):
            return "a generic admittance: what holds its far side is not known"
        neutral = [c for c in _conductors(element, bus) if c > MAX_PHASE]
        if neutral:
            return f"conductor {neutral[0]} crosses, a neutral or an open end"
        if isinstance(element, Transformer):
            far = [w for w in element.windings if w.bus == bus]
            if any(w.connection == "delta" for w in far):
                return "a delta winding on its far side"
            if any(w.terminals[-1] != 0 for w in far):
                return "a winding on its far side that is not grounded solidly"
    return ""


def _no_branch(label: str, elements: Mapping[str, Element], below: Sequence[str]) -> Fault:
    """The fault of a label that cannot be cut because it carries nothing."""
    element = elements.get(label)
    if isinstance(element, Switch) and not element.closed:
        return Fault("ARE-003 branch", label, "an open switch", "a closed branch", "Nothing crosses it; leave it out.")
    if element is not None:
        action = "Nothing crosses it; leave it out."
        return Fault("ARE-003 branch", label, "a branch that no source reaches", "a branch that is fed", action)
    action = did_you_mean(label, below)
    return Fault("ARE-003 branch", label, "no such branch", "the label of a branch, as line.l1", action)


def _name_faults(names: Iterable[str]) -> list[Fault]:
    return [
        Fault(
            "ARE-005 area name",
            f"area.{name}",
            f"the name {name!r}",
            "up to 64 letters, digits, blanks and . _ - ( ), a letter or digit first, no blank or dot last",
            "Rename the area: it names a folder and messages.",
        )
        for name in names
        if not NAME.fullmatch(name)
    ]


def tree_faults(case: Case) -> list[Fault]:
    """Why a case cannot be cut at all: loops, or not one source."""
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
        found = f"sources at {len(buses)} buses" if buses else "no source"
        faults.append(Fault("ARE-002 source", f"case.{case.name}", found, "one", "Keep one source, or one case each."))
    elif not buses <= case.feeder.bus.keys():
        (bus,) = buses
        action = did_you_mean(bus, list(case.feeder.bus))
        faults.append(Fault("ARE-002 source", f"case.{case.name}", f"a source at {bus!r}", "a bus", action))
    return faults


def _assemble(
    case: Case, tree: Tree, area_of: Mapping[str, str], cuts: Mapping[str, tuple[str, Group]], order: Sequence[str]
) -> Partition:
    feeder = case.feeder
    elements = branches_of(feeder)
    borders: dict[str, Border] = {}
    for child, (bus, group) in cuts.items():
        conductors = sorted({c for label in group.branches for c in _conductors(elements[label], bus)})
        name = group.branches[0].split(".", 1)[1]
        while name in borders:
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
    admittances: dict[str, list[MultiTerminal]] = {name: [] for name in order}
    for e in feeder.admittances:
        admittances[owner(e.buses)].append(e)
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
    across = [d for d in case.devices if isinstance(d, ShuntDevice) and len({area_of.get(b) for b, _ in d.places}) > 1]
    if across:
        action = "Cut elsewhere, so that both of its buses are in one area."
        raise CaseError(
            [Fault("ARE-009 between areas", d.label, "ends in two areas", "both ends in one", action) for d in across]
        )
    for d in case.devices:
        if isinstance(d, Device):
            devices[area_of.get(d.bus, order[0])].append(d)
        elif isinstance(d, Regulator):
            devices[of_transformer.get(d.transformer, order[0])].append(d)
        else:
            devices[order[0]].append(d)
    below = _downstream(case, area_of, borders)
    unloaded = _unloaded(case)
    dead = [_dead(b, unloaded) for b in borders.values()]
    if any(dead):
        raise CaseError([fault for fault in dead if fault])
    heads = _heads(case, borders.values(), unloaded)
    position = {b.name: k for k, b in enumerate(feeder.buses)}
    buses: dict[str, list[Bus]] = {name: [] for name in order}
    for bus_ in feeder.buses:
        buses[area_of.get(bus_.name, order[0])].append(bus_)
    shunts: dict[str, list[Shunt]] = {name: [] for name in order}
    for shunt in feeder.shunts:
        shunts[area_of.get(shunt.bus, order[0])].append(shunt)
    areas: dict[str, Area] = {}
    for name in order:
        # of a bus beyond a tail only what crosses is known here
        far = [dataclasses.replace(feeder.bus[b.bus], conductors=b.conductors) for b in tails[name]]
        profiles = dict(case.profiles)
        edge: list[Element] = []
        if name in head:
            edge.append(heads[head[name].name])
            profiles.update(_own_voltage(case, head[name]))
        for b in tails[name]:
            p, q = below[b.name]
            devices[name].append(
                BorderTail(name=b.name, bus=b.bus, terminals=(*b.conductors, 0), p_kw=float(p), q_kvar=float(q))
            )
        kept = (*edge, *devices[name])
        wires = dataclasses.replace(
            feeder,
            buses=tuple(sorted((*buses[name], *far), key=lambda b: position[b.name])),
            lines=tuple(lines[name]),
            switches=tuple(switches[name]),
            transformers=tuple(transformers[name]),
            shunts=tuple(shunts[name]),
            admittances=tuple(admittances[name]),
        )
        own = [e.label for e in (*wires.elements, *kept)]
        area_case = Case(
            name=f"{case.name}.{name}",
            feeder=wires,
            devices=kept,
            horizon=case.horizon,
            profiles=_used(kept, profiles),
            base=case.base,
            alpha_usd_per_kwh=case.alpha_usd_per_kwh,
            where={label: case.where[label] for label in own if label in case.where},
        )
        # as the mean over nodes counts them: without neutrals and what no source reaches
        n_nodes = sum(abs(unloaded.get((b.name, c), 1.0)) >= NEUTRAL_PU for b in buses[name] for c in b.conductors)
        areas[name] = Area(name, area_case, head.get(name), tuple(tails[name]), n_nodes)
    return Partition(case, areas, borders)


def _conductors(element: Element, bus: str) -> tuple[int, ...]:
    if isinstance(element, Line | Switch):
        return element.conductors_to if element.bus_to == bus else element.conductors_from
    if isinstance(element, Transformer):
        return tuple(c for w in element.windings if w.bus == bus for c in w.terminals if c > 0)
    if isinstance(element, MultiTerminal):
        return tuple(c for name, c in element.nodes if name == bus)
    return ()


def _dead(border: Border, unloaded: Mapping[tuple[str, int], complex]) -> Fault | None:
    """The fault of a border with a conductor that has no voltage: a neutral, or one that nothing feeds."""
    for c in border.conductors:
        if abs(unloaded.get((border.bus, c), 1.0)) < NEUTRAL_PU:
            found = f"conductor {c} crosses at bus {border.bus!r}, which has no voltage there"
            action = "Cut a branch nearer to the source, where every conductor that crosses is fed."
            return Fault("ARE-006 no border", border.branch[0], found, "conductors with a voltage", action)
    return None


def _heads(case: Case, borders: Iterable[Border], unloaded: Mapping[tuple[str, int], complex]) -> dict[str, BorderHead]:
    """The head of each border: until a neighbour speaks, the source's voltage and tariff, at the unloaded angles.

    Every area is told the import price: it is what the published algorithm lets a child minimise.
    """
    source = case.sources[0]
    out = {}
    for b in borders:
        v = _own_voltage(case, b)
        n = len(b.conductors)
        out[b.name] = BorderHead(
            name=b.name,
            bus=b.bus,
            conductors=b.conductors,
            v_pu=next(iter(v), source.v_pu if isinstance(source.v_pu, str) else float(_clipped(case, b, source.v_pu))),
            angle_deg=tuple(_degrees(unloaded.get((b.bus, c), 1.0)) for c in b.conductors),
            r_ohm=np.zeros((n, n)),
            x_ohm=np.zeros((n, n)),
            price_import=source.price_import,
        )
    return out


def _degrees(v: complex) -> float:
    return float(np.round(np.rad2deg(np.angle(v)), 9))


def _unloaded(case: Case) -> dict[tuple[str, int], complex]:
    """Voltage of every conductor of the unloaded feeder, of size one or next to none; none are named where every bus
    has one conductor, or where the feeder has faults of its own, which `check` names.
    """
    if all(len(b.conductors) == 1 for b in case.feeder.buses):
        return {}
    try:
        point, _ = operating_point(case, loaded=False)
    except LateralError:
        source = case.sources[0]
        phasor = np.exp(1j * np.deg2rad(np.asarray(source.angle_deg, dtype=float))).tolist()
        given = dict(zip(source.conductors, phasor, strict=False))
        return {(b.name, c): given.get(c, 1.0) for b in case.feeder.buses for c in b.conductors}
    return dict(zip(point.nodes, point.v_pu[:, 0].tolist(), strict=True))


def _clipped(case: Case, border: Border, v: FloatArray | float) -> FloatArray:
    """A voltage inside the limits of a border's bus: outside of them the area alone would be infeasible."""
    bus = case.feeder.bus[border.bus]
    return np.asarray(np.clip(v, bus.v_min_pu, bus.v_max_pu), dtype=float)


def _own_voltage(case: Case, border: Border) -> dict[str, FloatArray]:
    """A profile of the head's voltage, where the source's own leaves the limits of the border's bus; else none."""
    v = case.sources[0].v_pu
    if not isinstance(v, str) or v not in case.profiles:
        return {}
    clipped = _clipped(case, border, case.series(v))
    return {} if np.array_equal(clipped, case.series(v)) else {f"v_pu of {border.name}": clipped}


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


__all__ = ["Area", "Border", "Partition", "border_problem", "branches_of", "cut", "cut_by_buses", "tree_faults"]
