"""The admittance of every wire that was read, against the engine's own primitive matrix of the element it came from.

For each line, switch, transformer, shunt, generic admittance and capacitor of the case, over the nodes that the element
touches in the engine (ground left out, a node that occurs twice added up, conductors in our order)::

    error = max |Y_ours - Y_engine| / max |Y_engine|

The engine's matrix is that of the solved point, at the frequency of its solution. Conductors that the case does not
have because no source reaches them are eliminated from the engine's matrix (no current flows into them, Kron 1939);
made-up conductors of a grounded end are left out of ours, which grounds them.

Many of our elements are made of the properties of the files (lines, transformers, capacitors), and there the comparison
is between two independent ways to the same matrix. Where the numbers were the engine's matrix to begin with
(`Build.taken`: reactors, faults, generic admittances, lines of another base frequency) it only says that they arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lateral.devices import Capacitor
from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import Build, reduce_to_nodes
from lateral.io.opendss.report import AdmittanceCheck, AdmittanceDifference
from lateral.network.admittance import Node, capacitor_admittance, primitives
from lateral.network.feeder import Feeder, Line, Switch
from lateral.network.schema import ComplexArray, Element

#: Relative difference above which an element is named: far above rounding (1e-15), far below what a voltage shows.
ADMITTANCE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class _Found:
    """One comparison."""

    source: str
    error: float
    why: str


def cross_check(build: Build, feeder: Feeder) -> AdmittanceCheck:
    """Compare every wire and every capacitor; what differs for no stated reason becomes approximated in the report.

    Args:
        build: the model, mapped, with live elements only.
        feeder: the wires made of it.
    """
    found: list[_Found] = []
    unchecked: Counter[str] = Counter()
    bound: list[str] = []
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
            found.append(_compare(build, element, data, nodes, y))
    if bound:
        said = f"{len(bound)} elements are not compared: their matrices exceed what is fetched; the first is {bound[0]}"
        build.note("IMP-067", said)
        unchecked["no room was left for its matrix"] = len(bound)
    above = []
    for one in found:
        if one.error <= ADMITTANCE_TOLERANCE:
            continue
        code = "IMP-065" if one.why else "IMP-016"
        reason = one.why or f"admittance differs from the engine's by {one.error:.2g}"
        above.append(AdmittanceDifference(one.source, one.error, code, reason))
        if not one.why:
            build.record(one.source, "approximated", "IMP-016", reason)
    errors: dict[str, float] = {}
    for one in found:  # one element of the files may have become several
        errors[one.source] = max(one.error, errors.get(one.source, 0.0))
    worst = max(found, key=lambda one: one.error, default=None)
    unexplained = [one for one in found if not one.why]
    return AdmittanceCheck(
        checked=len(found),
        taken=sum(one.source in build.taken for one in found),
        worst=worst.error if worst else 0.0,
        worst_element=worst.source if worst else "",
        worst_unexplained=max((one.error for one in unexplained), default=0.0),
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


def _compare(build: Build, element: Element, data: ElementData, ours: tuple[Node, ...], mine: ComplexArray) -> _Found:
    assert data.yprim is not None
    nodes, y = reduce_to_nodes(data, data.yprim)
    if not build.grounds.isdisjoint(ours):
        live = [k for k, node in enumerate(ours) if node not in build.grounds]
        ours, mine = tuple(ours[k] for k in live), mine[np.ix_(live, live)]
    if not (set(ours) <= set(nodes) and np.isfinite(y).all() and np.isfinite(mine).all()):  # NaN is above nothing
        return _Found(data.name, float("inf"), "")
    if nodes != ours:
        nodes, y = _over(ours, nodes, y)
    scale = float(np.abs(y).max(initial=0.0)) or float(np.abs(mine).max(initial=0.0))
    error = float(np.abs(y - mine).max(initial=0.0)) / scale if scale > 0.0 else 0.0
    return _Found(data.name, error, _reason(element, data, y, mine) if error > 0.1 * ADMITTANCE_TOLERANCE else "")


def _over(ours: tuple[Node, ...], nodes: tuple[Node, ...], y: ComplexArray) -> tuple[tuple[Node, ...], ComplexArray]:
    """The engine's matrix over our nodes, the others (open, or without a path to a source) eliminated."""
    at = {node: k for k, node in enumerate(nodes)}
    keep = [at[node] for node in ours]
    gone = [k for k in range(len(nodes)) if k not in set(keep)]
    kept = y[np.ix_(keep, keep)]
    if gone:
        inverse = np.linalg.pinv(y[np.ix_(gone, gone)], rcond=1e-15)
        kept = kept - y[np.ix_(keep, gone)] @ inverse @ y[np.ix_(gone, keep)]
    return ours, kept


def _reason(element: Element, data: ElementData, y: ComplexArray, mine: ComplexArray) -> str:
    """Why an element may differ from the engine's; empty where nothing explains it."""
    if isinstance(element, Switch) and not element.closed:
        return (
            f"an open switch is nothing here; the engine keeps {1e6 * np.abs(y).max():.3g} uS of charging at its ends"
        )
    if isinstance(element, Line | Switch) and data.is_open and _only_charging(element, y, mine):
        return "open conductors are cut out; the engine keeps their charging at the closed end"
    return ""


def _only_charging(element: Line | Switch, y: ComplexArray, mine: ComplexArray) -> bool:
    """Whether a partly open line differs by no more than a few times its own charging."""
    own = 0.0 if element.b_us is None else 1e-6 * float(np.abs(element.b_us).max())
    return bool(np.abs(y - mine).max() <= 4.0 * own)


__all__ = ["ADMITTANCE_TOLERANCE", "cross_check"]
