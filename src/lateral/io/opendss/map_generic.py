"""Linear elements of an OpenDSS model that have no class of their own, as generic admittances.

Among them is a reactor whose impedances of positive and negative sequence differ: it is no line, whose matrix is
symmetric.

What the engine solves with, the primitive admittance matrix of the element at the solved point, is taken as it is. It
stands for the element exactly as long as the element is linear and nothing about it is controlled; classes of which
that is not true (VCCS, UPFC, VSConverter, IndMach012, Isource, ...) are not read.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np

from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import SQRT3, Build, number, numbers, reduce_to_nodes
from lateral.network.admittance import Node
from lateral.network.feeder import RECIPROCAL, MultiTerminal, Terminal
from lateral.network.schema import ComplexArray
from lateral.network.topology import COUPLED

#: Power that a matrix gives, relative to its largest entry, up to which it is taken for rounding.
ACTIVE = 1e-9

#: Admittance to ground that stands for an open conductor, S: the engine leaves 1e-12 there so that nothing floats.
OPEN_S = 1e-11


def map_generic(build: Build) -> None:
    """Autotransformers, and the transformers and lines of geomagnetic studies."""
    for name, properties, element in build.live("autotrans"):
        made = generic(build, f"autotrans.{name}", f"autotrans_{name}", element, "tap as at the solved point, no limit")
        if made is not None:
            kvs = numbers(properties, "kvs")
            share = SQRT3 if element.phases > 1 else 1.0
            build.rated.append({bus: kv / share for bus, kv in zip(element.buses, kvs, strict=False) if kv > 0.0})
    for name, _, element in build.live("gictransformer"):
        generic(build, f"gictransformer.{name}", f"gictransformer_{name}", element, "its resistances")
    for name, properties, element in build.live("gicline"):
        # at its own frequency it is a voltage source; at any other the engine takes it for a plain branch
        if number(properties, "frequency") == build.model.base_frequency_hz:
            why = "a geomagnetic line at its own frequency is a voltage source between two buses"
            build.record(f"gicline.{name}", "ignored", "IMP-040", why)
            continue
        generic(build, f"gicline.{name}", f"gicline_{name}", element, "its impedance; no voltage at this frequency")


def generic(build: Build, source: str, name: str, element: ElementData, what: str) -> MultiTerminal | None:
    """An element as a generic admittance, recorded as such; None, with the reason in the report, where it is none.

    Args:
        build: the model on its way.
        source: ``class.name`` of the element.
        name: name of the admittance.
        element: its terminals and its matrix.
        what: a few words on what is in the matrix, for the report.
    """
    if element.yprim is None:
        lost = (
            "no room was left for its admittance matrix" if element.over_bound else "the engine gives no matrix for it"
        )
        build.record(source, "ignored", "IMP-040", lost)
        return None
    nodes, y = reduce_to_nodes(element, element.yprim)
    size = float(np.abs(y).max(initial=0.0))
    if not np.isfinite(size):
        build.record(source, "ignored", "IMP-040", "its admittance matrix is not finite")
        return None
    if reciprocal(y):
        y = 0.5 * (y + y.T)
    elif float(np.linalg.eigvalsh(y + y.conj().T)[0]) < -ACTIVE * size:
        build.record(source, "ignored", "IMP-040", "its admittance matrix gives power: no passive element")
        return None
    keep = _touched(y)
    if not keep:
        why = "open: it joins nothing" if element.is_open else "it joins no conductors"
        build.record(source, "ignored", "IMP-014" if element.is_open else "IMP-003", why)
        return None
    nodes, y = tuple(nodes[k] for k in keep), y[np.ix_(keep, keep)]
    made = multi_terminal(name, nodes, y)
    build.admittances.append(made)
    build.taken.add(source)
    build.mapped(source, made, code="IMP-066", reason=f"generic admittance from the engine: {what}")
    return made


def reciprocal(y: ComplexArray) -> bool:
    """Whether an admittance matrix is symmetric, but for rounding."""
    return bool(np.abs(y - y.T).max(initial=0.0) <= RECIPROCAL * np.abs(y).max(initial=0.0))


def _touched(y: ComplexArray) -> list[int]:
    """Nodes that the matrix joins to others or to ground: at an open conductor the engine leaves next to nothing."""
    if not y.size:
        return []
    off = np.abs(y - np.diag(np.diag(y)))
    alone = off.max(axis=1) <= COUPLED * np.abs(y).max()
    return np.flatnonzero(~(alone & (np.abs(np.diag(y)) <= OPEN_S))).tolist()


def multi_terminal(name: str, nodes: tuple[Node, ...], y: ComplexArray) -> MultiTerminal:
    """The generic admittance of a matrix over nodes, those of a bus after each other, S."""
    terminals = tuple(
        Terminal(bus=bus, conductors=tuple(c for _, c in part))
        for bus, part in groupby(nodes, key=lambda node: node[0])
    )
    return MultiTerminal(name=name, terminals=terminals, g_us=1e6 * y.real, b_us=1e6 * y.imag)


__all__ = ["generic", "map_generic", "multi_terminal", "reciprocal"]
