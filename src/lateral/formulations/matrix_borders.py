"""Borders between areas in the matrix family: what of a matrix of voltages another area says, and which rows are whose.

The areas of a feeder together are to have the rows and variables of the whole, so that what they found is a point of it
and their duals a certificate (`lateral.areas.join`). Voltages and currents of the whole are written over what can occur
(`lateral.formulations.matrix_ranges`), which at a border depends on both sides; so a border is where everything can.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lateral.errors import Fault
from lateral.formulations.matrix_ranges import NEGLIGIBLE_PU, Fed, Ranges
from lateral.formulations.matrix_rows import Asked, Feed
from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, IntArray
from lateral.program import ProgramBuilder


def border_faults(
    net: RadialNetwork, asked: Sequence[Asked], feeds: Sequence[Feed], ranges: Ranges
) -> tuple[Fault, ...]:
    """Borders at which some voltage or current cannot occur: the other area knows no better.

    Args:
        net: the network.
        asked: products of voltages that tails asked for.
        feeds: sources and heads.
        ranges: what can occur.
    """
    out = []

    def fault(bus: str, found: str) -> None:
        action = "Cut at a grounded branch with loads to ground beyond it, or take current-voltage or lindist3flow."
        out.append(Fault("ARE-033 border", f"bus.{bus}", found, "a border where each is free", action))

    for nodes in _by_bus(net, asked):
        _, _, u = ranges.voltage(nodes)
        if np.linalg.matrix_rank(u, tol=NEGLIGIBLE_PU) < len(nodes):
            fault(net.nodes[nodes[0]][0], "voltages to ground that follow from each other")
    for f, partly in zip(feeds, ranges.partly, strict=True):
        if f.beside is not None and partly:
            fault(net.nodes[f.nodes[0]][0], "currents beyond it that follow from each other")
    return tuple(out)


def elsewhere(
    net: RadialNetwork, asked: Sequence[Asked], feeds: Sequence[Feed], ranges: Ranges, *, congruent: bool
) -> set[int]:
    """Cores of a border's bus whose matrix is psd by a row of the other area.

    In the whole the matrix of a bus needs no row where it is a congruence of another one (towards the source, so in the
    upper area); else the branches that leave say whether it does, and those are the lower area's.

    Args:
        net: the network.
        asked: products of voltages that tails asked for.
        feeds: sources and heads.
        ranges: what can occur.
        congruent: whether a congruence of a psd matrix needs rows of its own.
    """
    nodes = _by_bus(net, asked) if congruent else [f.nodes for f in feeds if f.beside is not None]
    return {ranges.voltage(own[:1])[0] for own in nodes}


def _by_bus(net: RadialNetwork, asked: Sequence[Asked]) -> list[IntArray]:
    """Nodes whose products of voltages were asked for, bus by bus."""
    out: dict[str, list[int]] = {}
    for some in asked:
        for node in some.nodes.tolist():
            out.setdefault(net.nodes[node][0], []).append(node)
    return [np.array(nodes, dtype=np.int64) for nodes in out.values()]


def fed_by(builder: ProgramBuilder, feed: Feed) -> Fed:
    """What a source gives of its nodes' voltages: their directions, or all entries of their matrix."""
    if feed.beside is not None:
        return Fed(feed.at, np.eye(len(feed.at), dtype=complex), real=False)
    u = _directions(builder, feed)
    return Fed(feed.at, u, real=u.shape[1] > 1)


def _directions(builder: ProgramBuilder, feed: Feed) -> ComplexArray:
    """U of a source's nodes: one direction where all conductors have the same size, else one of each conductor.

    Sizes of their own (borders of several conductors) leave the products of two conductors' voltages free in size.
    """
    turn = np.exp(1j * feed.angle)
    e = feed.e_sq
    n_terms, rest = divmod(len(e.row), e.n * e.n_steps)
    same = bool(np.all(e.const.reshape(e.shape) == e.const.reshape(e.shape)[:1]))
    if same and not rest:
        order = np.argsort(e.row, kind="stable")
        for values in (e.col, e.par, e.val):
            by_cell = values[order].reshape(e.n, e.n_steps * n_terms)
            same = same and bool(np.all(by_cell == by_cell[:1]))
    if not (same and not rest):
        return np.asarray(np.diag(turn), dtype=complex)
    # relative to the first conductor, whose squared voltage is the element
    return np.asarray(turn / turn[0], dtype=complex).reshape(-1, 1)


__all__ = ["border_faults", "elsewhere", "fed_by"]
