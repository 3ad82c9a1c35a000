"""Linear elements of an OpenDSS model that have no class of their own, as generic admittances.

What the engine solves with, the primitive admittance matrix of the element at the solved point, is taken as it is. It
stands for the element exactly as long as the element is linear and nothing about it is controlled; classes of which
that is not true (VCCS, UPFC, VSConverter, IndMach012, Isource, ...) are not read.
"""

from __future__ import annotations

import numpy as np

from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import SQRT3, Build, number, numbers, reduce_to_nodes
from lateral.network.feeder import MultiTerminal, Terminal

#: Relative difference of a matrix to its transpose up to which it is taken for rounding.
SYMMETRY = 1e-9


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
    _, y = reduce_to_nodes(element, element.yprim)
    size = float(np.abs(y).max(initial=0.0))
    if not np.isfinite(size):
        build.record(source, "ignored", "IMP-040", "its admittance matrix is not finite")
        return None
    if size == 0.0:
        why = "open: it joins nothing" if element.is_open else "it joins no conductors"
        build.record(source, "ignored", "IMP-014" if element.is_open else "IMP-003", why)
        return None
    if float(np.abs(y - y.T).max()) > SYMMETRY * size:
        build.record(source, "ignored", "IMP-040", "its admittance matrix is not symmetric: no passive element")
        return None
    y = 0.5 * (y + y.T)
    # terminal by terminal, each node where it comes first: that is the order of the matrix
    seen: set[tuple[str, int]] = set()
    terminals = []
    for bus, conductors in zip(element.buses, element.nodes, strict=True):
        fresh = tuple(c for c in dict.fromkeys(conductors) if c > 0 and (bus, c) not in seen)
        seen |= {(bus, c) for c in fresh}
        if fresh:
            terminals.append(Terminal(bus=bus, conductors=fresh))
    made = MultiTerminal(name=name, terminals=tuple(terminals), g_us=1e6 * y.real, b_us=1e6 * y.imag)
    build.admittances.append(made)
    build.taken.add(source)
    build.mapped(source, made, code="IMP-066", reason=f"generic admittance from the engine: {what}")
    return made


__all__ = ["generic", "map_generic"]
