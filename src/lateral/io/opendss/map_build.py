"""What the mapping of an OpenDSS model builds up, shared by its parts."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, pairwise
from typing import Any

import numpy as np

from lateral.io.opendss.engine import ElementData, EngineModel
from lateral.io.opendss.report import ImportEntry, ImportNote
from lateral.network.admittance import SOLID_GROUND_S
from lateral.network.feeder import Line, MultiTerminal, Shunt, Switch, Transformer
from lateral.network.schema import ComplexArray, Element, Terminals

Properties = Mapping[str, Any]

SQRT3 = float(np.sqrt(3.0))

#: First conductor number that is not a phase.
FIRST_NEUTRAL = 4

_ADMITTANCE_MODEL, _DIRECT_MODE = 2, "direct"


@dataclass
class Build:
    """A model on its way to a case. Mutable while it is built; nothing of it leaves the reader.

    Attributes:
        model: the raw data.
        lines, switches, transformers, shunts, admittances, devices: what came of it.
        entries: the report, by ``class.name``.
        notes: warnings.
        origin: label of an element to the ``class.name`` it came from.
        grounds: conductors made up for ends that the files put on ground.
        dangling: conductors made up for open ends of lines.
        charging: names of generic admittances that are no more than the charging of a line with open conductors.
        taken: ``class.name`` of elements whose numbers are those of the engine's own admittance matrix.
        rated: line-to-ground voltages that a generic admittance suggests for its buses, kV.
        stated: names of the elements that the files rate, by class, as far as they were looked for.
        unrated: names of the elements whose rating is the engine's and was not taken, by class.
        dispatch: kW and kvar given by PV systems and batteries at the operating point, by label.
    """

    model: EngineModel
    lines: list[Line] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    transformers: list[Transformer] = field(default_factory=list)
    shunts: list[Shunt] = field(default_factory=list)
    admittances: list[MultiTerminal] = field(default_factory=list)
    devices: list[Element] = field(default_factory=list)
    entries: dict[str, ImportEntry] = field(default_factory=dict)
    notes: list[ImportNote] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)
    dispatch: dict[str, tuple[float, float]] = field(default_factory=dict)
    grounds: set[tuple[str, int]] = field(default_factory=set)
    dangling: set[tuple[str, int]] = field(default_factory=set)
    charging: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    rated: list[dict[str, float]] = field(default_factory=list)
    stated: dict[str, frozenset[str]] = field(default_factory=dict)
    unrated: dict[str, list[str]] = field(default_factory=dict)

    def record(
        self,
        element: str,
        outcome: str,
        code: str,
        reason: str = "",
        became: tuple[str, ...] = (),
        *,
        lost_kw: float = 0.0,
    ) -> None:
        """Say what became of an object; a second word on it joins the first, the weaker outcome wins."""
        old = self.entries.get(element)
        if old is not None:
            rank = ("mapped", "approximated", "ignored")
            if rank.index(old.outcome) > rank.index(outcome):
                outcome, code = old.outcome, old.code
            elif old.code != "IMP-001" and old.outcome == outcome:
                code = old.code
            reason = "; ".join(part for part in (old.reason, reason) if part)
            became = tuple(dict.fromkeys((*old.became, *became)))
            lost_kw += old.lost_kw
            file, line = old.file, old.line
        else:
            file, line = self.model.scanned.objects.get(element, ("", 0))
        self.entries[element] = ImportEntry(element, outcome, code, reason, became, file, line, lost_kw)

    def mapped(self, source: str, *made: Element, code: str = "IMP-001", reason: str = "") -> None:
        """An object became these elements, exactly."""
        labels = tuple(e.label for e in made)
        for label in labels:
            self.origin[label] = source
        self.record(source, "mapped", code, reason, labels)

    def note(self, code: str, text: str, where: str = "") -> None:
        """Warn about the model as a whole."""
        self.notes.append(ImportNote(code, text, where))

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: k for k, name in enumerate(self.model.node_names)}

    def voltage(self, bus: str, node: int) -> complex:
        """The engine's voltage of a node at the solved point, V; 0 for ground and for nodes it does not have."""
        k = self._position.get(f"{bus}.{node}")
        if k is None or self.model.reference is None:
            return 0j
        return complex(self.model.reference.voltages[k])

    @cached_property
    def as_admittances(self) -> bool:
        """Whether the engine solved the whole circuit as admittances: LoadModel=Admittance, or mode Direct."""
        stated = self.model.stated
        return int(stated["load_model"]) == _ADMITTANCE_MODEL or str(stated["mode"]).lower() == _DIRECT_MODE

    def drawn(self, element: ElementData, ports: Sequence[tuple[int, int]]) -> ComplexArray | None:
        """What an element of one terminal draws at its ports at the solved point, kW + j kvar; None where unknown.

        The currents of the conductors are those of the engine. What circulates in a closed delta is left out: no other
        element sees it.
        """
        currents = self.model.currents.get(element.name)
        if currents is None or self.model.reference is None:
            return None
        conductors = list(dict.fromkeys(c for port in ports for c in port))
        into = np.zeros(len(conductors), dtype=complex)
        for node, current in zip(element.nodes[0], currents, strict=False):
            if node in conductors:  # the fourth conductor of a delta carries nothing
                into[conductors.index(node)] += current
        place = np.zeros((len(conductors), len(ports)))
        for k, (a, b) in enumerate(ports):
            place[conductors.index(a), k] += 1.0
            place[conductors.index(b), k] -= 1.0
        through = np.linalg.pinv(place) @ into
        across = np.array([self.voltage(element.buses[0], a) - self.voltage(element.buses[0], b) for a, b in ports])
        return np.asarray(1e-3 * across * through.conj(), dtype=np.complex128)

    def off_ground(self, bus: str, nodes: Terminals) -> Terminals:
        """Conductors of one end of a branch, with a conductor of its own for each that ends on ground.

        Ground is no conductor of a bus. The end gets the next free number (4 and up), which `ground_shunts` ties to
        ground, so that every branch joins conductors of buses.
        """
        taken = {*nodes, *self.model.buses[bus].nodes, *(c for at, c in self.dangling if at == bus)}
        free = (c for c in count(FIRST_NEUTRAL) if c not in taken)
        ends = tuple(n if n > 0 else next(free) for n in nodes)
        self.grounds |= {(bus, end) for end, n in zip(ends, nodes, strict=True) if n <= 0}
        return ends

    def open_ends(self, bus: str, nodes: Terminals, opened: Container[int]) -> Terminals:
        """Conductors of one end of a line, with a conductor of its own, that nothing else is on, for each open one.

        Args:
            bus: the bus of the end.
            nodes: its conductors.
            opened: positions in ``nodes`` that are open.
        """
        made = {c for at, c in (*self.grounds, *self.dangling) if at == bus}
        taken = {*nodes, *self.model.buses[bus].nodes, *made}
        free = (c for c in count(FIRST_NEUTRAL + 1) if c not in taken)  # 4 would be taken for the neutral of the bus
        ends = tuple(next(free) if k in opened else c for k, c in enumerate(nodes))
        self.dangling |= {(bus, c) for k, c in enumerate(ends) if k in opened}
        return ends

    @cached_property
    def hops(self) -> dict[str, int]:
        """How many elements each bus is from a source, whatever is open in them."""
        beside: dict[str, list[str]] = {}
        for element in self.model.elements.values():
            if element.enabled and element.nodes:
                for a, b in pairwise(dict.fromkeys(element.buses)):
                    beside.setdefault(a, []).append(b)
                    beside.setdefault(b, []).append(a)
        roots = [e.buses[0] for e in self.model.elements.values() if e.cls == "vsource" and e.enabled and e.nodes]
        out, queue = dict.fromkeys(roots, 0), deque(dict.fromkeys(roots))
        while queue:
            here = queue.popleft()
            for bus in beside.get(here, ()):
                if bus not in out:
                    out[bus] = out[here] + 1
                    queue.append(bus)
        return out

    def ground_shunts(self) -> None:
        """A solid ground on each conductor that `off_ground` made up."""
        for bus, conductor in sorted(self.grounds):
            g = np.array([[1e6 * SOLID_GROUND_S]])
            name = f"ground_{bus}_{conductor}"
            self.shunts.append(Shunt(name=name, bus=bus, conductors=(conductor,), g_us=g, b_us=np.zeros((1, 1))))

    def setting(self, *names: str) -> float | None:
        """Number that the files last gave an option with ``Set``; None when they do not, or in another form."""
        for statement in reversed(self.model.scanned.statements):
            if statement.verb == "set":
                for name in names:
                    found = re.search(rf"\b{name}=\s*([-+.\deE]+)\s*$", statement.text, flags=re.IGNORECASE)
                    if found:
                        return float(found.group(1))
        return None

    @cached_property
    def last_switched(self) -> dict[str, str]:
        """Whether the last Open or Close command for an object is ``open`` or ``close``, by ``class.name``."""
        statements = self.model.scanned.statements
        return {f"{s.cls}.{s.name}": s.verb for s in statements if s.verb in ("open", "close")}

    @cached_property
    def generators(self) -> frozenset[str]:
        """Names of the generators, whatever becomes of them."""
        return frozenset(str(properties["name"]).lower() for properties in self.model.objects("generator"))

    def live(self, cls: str) -> Iterator[tuple[str, Properties, ElementData]]:
        """Enabled circuit elements of a class: name, properties, terminals. Disabled ones are recorded."""
        for properties in self.model.objects(cls):
            name = str(properties["name"]).lower()
            element = self.model.elements.get(f"{cls}.{name}")
            if element is None or not element.enabled or not element.nodes:
                self.record(f"{cls}.{name}", "ignored", "IMP-020", "disabled in the files")
                continue
            yield name, properties, element


def _value(properties: Properties, key: str) -> Any:
    """A property, however the engine layer spells the percent sign."""
    value = properties.get(key)
    return properties.get(key.replace("%", "pct")) if value is None and "%" in key else value


def number(properties: Properties, key: str, default: float = 0.0) -> float:
    """A number among the properties; the default when absent or empty."""
    value = _value(properties, key)
    if value is None or value == "":
        return default
    if isinstance(value, list):
        return float(value[0]) if value else default
    return float(value)


def text(properties: Properties, key: str) -> str:
    """A word among the properties, lower case; empty when absent."""
    value = properties.get(key)
    return "" if value is None else str(value).lower()


def numbers(properties: Properties, key: str) -> list[float]:
    """A list of numbers among the properties."""
    value = _value(properties, key)
    if value is None:
        return []
    if isinstance(value, list):
        return [float(v) for v in value]
    return [float(value)]


def reduce_to_nodes(element: ElementData, yprim: ComplexArray) -> tuple[tuple[tuple[str, int], ...], ComplexArray]:
    """Nodes of an element without ground, each once, and the engine's admittance between them."""
    ends = element.ends
    nodes = tuple(dict.fromkeys(end for end in ends if end[1] > 0))
    if len(nodes) == len(ends):
        return nodes, yprim
    at = {node: k for k, node in enumerate(nodes)}
    place = np.zeros((len(ends), len(nodes)))
    for k, end in enumerate(ends):
        if end[1] > 0:
            place[k, at[end]] = 1.0
    return nodes, place.T @ yprim @ place


def across_kv(kv: float, phases: int, *, delta: bool) -> float:
    """Rated voltage across one port: line to line over sqrt(3) for a wye of 2 or 3 phases, as rated otherwise."""
    return kv / SQRT3 if not delta and phases in (2, 3) else kv


__all__ = ["FIRST_NEUTRAL", "SQRT3", "Build", "Properties", "across_kv", "number", "numbers", "reduce_to_nodes", "text"]
