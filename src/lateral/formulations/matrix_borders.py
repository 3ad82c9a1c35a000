"""Borders between areas in the matrix family: what of a matrix of voltages another area says, and which rows are whose.

The areas of a feeder together are to have the rows and variables of the whole, so that what they found is a point of it
and their duals a certificate (`lateral.areas.join`). Voltages and currents of the whole are written over what can occur
(`lateral.formulations.matrix_ranges`), which at a border depends on both sides: what can occur there they say. The bus
of a border has a matrix of its own, also where a switch leads to it, whose other end is in one area alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lateral.formulations.matrix_ranges import Fed, Ranges, projector, spanned
from lateral.formulations.matrix_rows import Asked, Feed
from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, IntArray
from lateral.program import ProgramBuilder
from lateral.program.ports import Crossing


def crossing_of(
    net: RadialNetwork, asked: Sequence[Asked], feeds: Sequence[Feed], ranges: Ranges
) -> dict[str, Crossing]:
    """What can occur at each border: at heads the currents, at tails the voltages.

    Args:
        net: the network.
        asked: products of voltages that tails asked for.
        feeds: sources and heads.
        ranges: what can occur.
    """
    out = {}
    for nodes in _by_bus(net, asked):
        bus, b, at = net.nodes[nodes[0]][0], int(ranges.block[nodes[0]]), ranges.local[nodes]
        v, could = (projector(u[b][at]) for u in (ranges.u, ranges.could))
        out[bus] = Crossing(_conductors(net, nodes), v=v, v_could=could, behind=bool(ranges.behind[b]))
    for f, drawn in zip(feeds, ranges.drawn, strict=True):
        if f.beside is not None:
            out[net.nodes[f.nodes[0]][0]] = Crossing(_conductors(net, f.nodes), i=projector(drawn))
    return out


def drawn_beyond(net: RadialNetwork, known: Mapping[str, Crossing]) -> Iterator[tuple[IntArray, ComplexArray]]:
    """Nodes of each border whose lower area said what can be drawn there, and these currents, one a column.

    Args:
        net: the network.
        known: what can occur at borders, by bus.
    """
    for bus, at in known.items():
        if at.i is not None:
            yield np.array([net.position[bus, c] for c in at.conductors], dtype=np.int64), spanned(at.i)


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


def _conductors(net: RadialNetwork, nodes: IntArray) -> tuple[int, ...]:
    return tuple(net.nodes[node][1] for node in nodes.tolist())


def _by_bus(net: RadialNetwork, asked: Sequence[Asked]) -> list[IntArray]:
    """Nodes whose products of voltages were asked for, bus by bus."""
    out: dict[str, list[int]] = {}
    for some in asked:
        for node in some.nodes.tolist():
            out.setdefault(net.nodes[node][0], []).append(node)
    return [np.array(nodes, dtype=np.int64) for nodes in out.values()]


def fed_by(builder: ProgramBuilder, net: RadialNetwork, feed: Feed, known: Mapping[str, Crossing]) -> Fed:
    """What a source gives of its nodes' voltages: their directions, or all entries of their matrix.

    Args:
        builder: of the program.
        net: the network.
        feed: the source.
        known: what can occur at borders, by bus.
    """
    if feed.beside is None:
        u = _directions(builder, feed)
        return Fed(feed.at, u, real=u.shape[1] > 1, labels=feed.at[: u.shape[1]], could=u, cut=False)
    n, at = len(feed.at), known.get(net.nodes[feed.at[0]][0])
    spans = (None, None) if at is None else (at.v, at.v_could)
    u, could = (np.eye(n, dtype=complex) if span is None else spanned(span) for span in spans)
    labels = feed.at if u.shape[1] == n else np.full(u.shape[1], -1)
    return Fed(feed.at, u, real=False, labels=labels, could=could, cut=True)


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


__all__ = ["crossing_of", "drawn_beyond", "elsewhere", "fed_by"]
