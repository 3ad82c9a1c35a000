"""The admittance of every wire that was read, against the engine's own primitive matrix of the element it came from.

For each line, switch, transformer, shunt, generic admittance and capacitor of the case, over the nodes that the element
touches in the engine (ground left out, a node that occurs twice added up, conductors in our order; what one element of
the files became several of is added up)::

    error = max |Y_ours - Y_engine| / max |Y_engine|

The engine's matrix is that of the solved point, at the frequency of its solution. Conductors that the case does not
have because no source reaches them are eliminated from the engine's matrix (no current flows into them, Kron 1939),
those made up for open ends from ours; made-up conductors of a grounded end are left out of ours, which grounds them.
What the engine leaves at an open conductor so that nothing floats (1e-12 S) is no difference.

Many of our elements are made of the properties of the files (lines, transformers, capacitors), and there the comparison
is between two independent ways to the same matrix. Where the numbers were the engine's matrix to begin with
(`Build.taken`: reactors, faults, generic admittances, lines of another base frequency) it only says that they arrived.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lateral.devices import Capacitor
from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import Build, reduce_to_nodes
from lateral.io.opendss.map_generic import OPEN_S
from lateral.io.opendss.report import AdmittanceCheck, AdmittanceDifference
from lateral.network.admittance import Node, capacitor_admittance, primitives
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, Element

#: Relative difference above which an element is named: far above rounding (1e-15), far below what a voltage shows.
ADMITTANCE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class _Found:
    """One comparison."""

    source: str
    error: float


def cross_check(build: Build, feeder: Feeder) -> AdmittanceCheck:
    """Compare every wire and every capacitor; what differs becomes approximated in the report.

    Args:
        build: the model, mapped, with live elements only.
        feeder: the wires made of it.
    """
    found: list[_Found] = []
    unchecked: Counter[str] = Counter()
    bound: list[str] = []
    several: dict[str, list[tuple[tuple[Node, ...], ComplexArray]]] = {}
    for element, nodes, y in _ours(build, feeder):
        source = build.origin.get(element.label, "")
        data = build.model.elements.get(source)
        if data is None:
            unchecked["a ground made up for an end that the files put on ground"] += 1
        elif data.yprim is None:
            if data.over_bound:
                bound.append(source)
            else:
                unchecked["the engine gives no matrix for it"] += 1
        else:
            several.setdefault(source, []).append((nodes, y))
    for source, parts in several.items():
        found.append(_compare(build, build.model.elements[source], *_sum(parts)))
    if bound:
        said = f"{len(bound)} elements are not compared: their matrices exceed what is fetched; the first is {bound[0]}"
        build.note("IMP-067", said)
        unchecked["no room was left for its matrix"] = len(bound)
    above = []
    for one in found:
        if one.error <= ADMITTANCE_TOLERANCE:
            continue
        reason = f"admittance differs from the engine's by {one.error:.2g}"
        above.append(AdmittanceDifference(one.source, one.error, "IMP-016", reason))
        build.record(one.source, "approximated", "IMP-016", reason)
    errors = {one.source: one.error for one in found}
    worst = max(found, key=lambda one: one.error, default=None)
    return AdmittanceCheck(
        checked=len(found),
        taken=sum(one.source in build.taken for one in found),
        worst=worst.error if worst else 0.0,
        worst_element=worst.source if worst else "",
        tolerance=ADMITTANCE_TOLERANCE,
        above=tuple(above),
        unchecked=dict(unchecked),
        errors=errors,
    )


def _ours(build: Build, feeder: Feeder) -> Iterator[tuple[Element, tuple[Node, ...], ComplexArray]]:
    """Every wire and capacitor with its nodes and its matrix, siemens; an open switch is a matrix of zeros."""
    for primitive in primitives(feeder):
        yield primitive.element, primitive.nodes, primitive.y
    for switch in feeder.switches:
        if not switch.closed:
            ends = [(switch.bus_from, c) for c in switch.conductors_from]
            ends += [(switch.bus_to, c) for c in switch.conductors_to]
            nodes = tuple(dict.fromkeys(ends))
            yield switch, nodes, np.zeros((len(nodes), len(nodes)), dtype=complex)
    for device in build.devices:
        if isinstance(device, Capacitor):
            conductors, y = capacitor_admittance(device, feeder.bus[device.bus].v_base_kv)
            yield device, tuple((device.bus, c) for c in conductors), y


def _sum(parts: list[tuple[tuple[Node, ...], ComplexArray]]) -> tuple[tuple[Node, ...], ComplexArray]:
    """The elements that one element of the files became, side by side, over the nodes of all."""
    if len(parts) == 1:
        return parts[0]
    nodes = tuple(dict.fromkeys(node for ends, _ in parts for node in ends))
    at = {node: k for k, node in enumerate(nodes)}
    whole = np.zeros((len(nodes), len(nodes)), dtype=complex)
    for ends, y in parts:
        where = [at[node] for node in ends]
        whole[np.ix_(where, where)] += y
    return nodes, whole


def _compare(build: Build, data: ElementData, ours: tuple[Node, ...], mine: ComplexArray) -> _Found:
    assert data.yprim is not None
    nodes, y = reduce_to_nodes(data, data.yprim)
    if not build.grounds.isdisjoint(ours):
        live = [k for k, node in enumerate(ours) if node not in build.grounds]
        ours, mine = tuple(ours[k] for k in live), mine[np.ix_(live, live)]
    if not build.dangling.isdisjoint(ours):
        ours, mine = _over(tuple(node for node in ours if node not in build.dangling), ours, mine)
    scale = float(np.abs(y).max(initial=0.0))
    if not math.isfinite(scale) or (nodes != ours and not set(ours) <= set(nodes)):
        return _Found(data.name, float("inf"))
    if nodes != ours:
        nodes, y = _over(ours, nodes, y)
        scale = float(np.abs(y).max(initial=0.0))
    scale = scale or float(np.abs(mine).max(initial=0.0))
    off = np.abs(y - mine)
    if data.is_open:
        off[off <= OPEN_S] = 0.0
    error = float(off.max(initial=0.0)) / scale if scale != 0.0 else 0.0
    return _Found(data.name, error if math.isfinite(error) else float("inf"))  # NaN is above nothing


def _over(ours: tuple[Node, ...], nodes: tuple[Node, ...], y: ComplexArray) -> tuple[tuple[Node, ...], ComplexArray]:
    """A matrix over some of its nodes, the others (open, or without a path to a source) eliminated."""
    at = {node: k for k, node in enumerate(nodes)}
    keep = [at[node] for node in ours]
    gone = [k for k in range(len(nodes)) if k not in set(keep)]
    kept = y[np.ix_(keep, keep)]
    if gone:
        inverse = np.linalg.pinv(y[np.ix_(gone, gone)], rcond=1e-15)
        kept = kept - y[np.ix_(keep, gone)] @ inverse @ y[np.ix_(gone, keep)]
    return ours, kept


__all__ = ["ADMITTANCE_TOLERANCE", "cross_check"]
