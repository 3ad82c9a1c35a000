"""Who is joined to whom: components, a spanning tree from the sources, loops, parallel branches.

All of it is at bus level and over closed branches. A transformer of two windings is an edge; one whose windings sit at
three buses or more is a star with a centre of its own; likewise a generic admittance by its buses. Branches that join
exactly the same buses are one edge (a *parallel group*): three single-phase regulators side by side are not a loop.

Names of buses that do not exist are passed over here; `lateral.checks` reports them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from lateral.errors import CaseError
from lateral.network.admittance import cores
from lateral.network.feeder import Feeder, Line, MultiTerminal, Switch
from lateral.network.schema import IntArray

#: A conductor of a bus.
Node = tuple[str, int]

#: Entries of a generic admittance below this part of its largest join nothing: they are what is left of a difference.
COUPLED = 1e-12


@dataclass(frozen=True, slots=True)
class Group:
    """Branches that join exactly the same buses.

    Attributes:
        buses: the distinct buses, in the order of the first branch; two, or more around a transformer.
        branches: labels (``line.l1``) of the branches.
    """

    buses: tuple[str, ...]
    branches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A spanning tree (breadth first) of everything that the roots reach.

    Attributes:
        order: the buses reached, roots first, every parent before its children.
        parent: the bus towards the root; a root has none and is not a key.
        via: the group that leads to the parent.
    """

    order: tuple[str, ...]
    parent: dict[str, str]
    via: dict[str, Group]


def groups(feeder: Feeder) -> tuple[Group, ...]:
    """Every edge of the feeder: the closed branches, those between the same buses taken together."""
    return _graph(feeder).groups


def _find_groups(feeder: Feeder) -> tuple[Group, ...]:
    known = {bus.name for bus in feeder.buses if isinstance(bus.name, str)}
    found: dict[frozenset[str], tuple[tuple[str, ...], list[str]]] = {}
    for label, buses in _closed(feeder):
        # dict.fromkeys: distinct, in order; a name may be of any type here, but only text is looked up
        ends = tuple(dict.fromkeys([b for b in buses if isinstance(b, str) and b in known]))
        if len(ends) > 1:
            found.setdefault(frozenset(ends), (ends, []))[1].append(label)
    return tuple(Group(ends, tuple(labels)) for ends, labels in found.values())


def parallel_groups(feeder: Feeder) -> tuple[Group, ...]:
    """The groups of two branches or more: single-phase units side by side, double circuits."""
    return tuple(g for g in groups(feeder) if len(g.branches) > 1)


def components(feeder: Feeder) -> tuple[tuple[str, ...], ...]:
    """The buses of each connected part, in the order of the feeder."""
    graph = _graph(feeder)
    _, part = connected_components(graph.matrix, directed=False)
    out: dict[int, list[str]] = {}
    for name, k in zip(graph.names, part.tolist(), strict=False):
        out.setdefault(k, []).append(name)
    return tuple(tuple(names) for names in out.values())


def spanning_tree(feeder: Feeder, roots: Sequence[str]) -> Tree:
    """The tree that reaches every bus from its nearest root (fewest branches)."""
    return _graph(feeder).tree(roots)[0]


def loops(feeder: Feeder, roots: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """The independent loops, each as the labels of its branches; empty when the feeder is radial.

    Opening one edge of each loop makes the feeder radial. Which loops come out depends on the spanning tree, and so on
    ``roots``; their number does not. Parts that no root reaches are searched from their first bus.
    """
    graph = _graph(feeder)
    starts = [r for r in roots if r in graph.index]
    _, part = connected_components(graph.matrix, directed=False)
    seen = {int(part[graph.index[r]]) for r in starts}
    for name, k in zip(graph.names, part.tolist(), strict=False):
        if k not in seen:
            seen.add(k)
            starts.append(name)
    _, parent, edge_up = graph.tree(starts)
    used = set(edge_up.tolist())
    out = []
    for e, (i, j) in enumerate(zip(graph.tail.tolist(), graph.head.tolist(), strict=True)):
        if e not in used:
            around = [e, *_path(i, j, parent, edge_up)]
            labels = (label for k in around for label in graph.groups[graph.group_of[k]].branches)
            out.append(tuple(dict.fromkeys(labels)))
    return tuple(out)


def energised(feeder: Feeder, fed: Iterable[Node]) -> frozenset[Node]:
    """The conductors that the conductors ``fed`` reach.

    Lines and switches join conductor to conductor, both ways. A transformer feeds every conductor of a winding from any
    conductor of a winding that is nearer to the source, never back, and never one conductor from another of the same
    winding: a delta far out does not count as feeding a phase that is missing upstream. So does a generic admittance,
    between the conductors that its matrix couples.
    """
    starts = list(fed)
    near = {bus: k for k, bus in enumerate(spanning_tree(feeder, [bus for bus, _ in starts]).order)}
    index: dict[Node, int] = {}
    tail: list[int] = []
    head: list[int] = []

    def join(a: Node, b: Node) -> None:
        tail.append(index.setdefault(a, len(index)))
        head.append(index.setdefault(b, len(index)))

    branches: tuple[Line | Switch, ...] = (*feeder.lines, *(s for s in feeder.switches if s.closed))
    for branch in branches:
        for i, j in zip(branch.conductors_from, branch.conductors_to, strict=False):
            join((branch.bus_from, i), (branch.bus_to, j))
    tail, head = tail + head, head + tail  # both ways
    for transformer in feeder.transformers:
        known = [w for w in transformer.windings if w.bus in near]
        for v, w in itertools.product(known, known):
            if near[v.bus] < near[w.bus]:
                for i, j in itertools.product(v.terminals, w.terminals):
                    if i > 0 and j > 0:
                        join((v.bus, i), (w.bus, j))
    for wire in feeder.admittances:
        ends = wire.nodes
        depth = np.array([near.get(bus, -1) for bus, _ in ends])
        outwards = (depth[:, None] >= 0) & (depth[:, None] < depth[None, :])
        for k, m in np.argwhere(coupled(wire) & outwards).tolist():
            join(ends[k], ends[m])
    top: Node = ("", 0)  # feeds all starts, so that one search covers them; no bus has a conductor 0
    for node in starts:
        join(top, node)
    if not starts:
        return frozenset()
    n = len(index)
    matrix = coo_matrix((np.ones(len(tail)), (tail, head)), shape=(n, n)).tocsr()
    reached = breadth_first_order(matrix, index[top], directed=True, return_predecessors=False)
    nodes = list(index)
    return frozenset(nodes[k] for k in reached.tolist()) - {top}


def joined(
    feeder: Feeder, ports: Iterable[tuple[Node, Node]] = (), *, induced: bool = True
) -> Iterator[tuple[Node, ...]]:
    """Sets of conductors between which something couples, in whichever direction; ground is left out.

    Lines and closed switches join the two ends of a conductor, and conductors with mutual impedance or charging;
    transformers what their cores have windings on; shunts and generic admittances what their matrix couples.

    Args:
        feeder: the wires.
        ports: pairs of conductors that devices connect.
        induced: whether conductors of a line that only mutual impedance or charging couples are joined.
    """
    branches: tuple[Line | Switch, ...] = (*feeder.lines, *(s for s in feeder.switches if s.closed))
    for wire in branches:
        a = [(wire.bus_from, c) for c in wire.conductors_from]
        b = [(wire.bus_to, c) for c in wire.conductors_to]
        yield from (ends for ends in zip(a, b, strict=False))
        n = len(a) if induced else 0
        matrices = [m for m in (wire.r_ohm, wire.x_ohm, wire.b_us) if m is not None]
        if n > 1 and all(m.shape == (n, n) for m in matrices):
            mutual = np.any([m != 0.0 for m in matrices], axis=0)
            yield from ((a[i], a[j]) for i, j in np.argwhere(mutual).tolist() if i < j)
        elif n > 1:  # no matrix that fits joins all
            yield tuple(a)
    for transformer in feeder.transformers:
        try:
            yield from cores(transformer)
        except CaseError:  # terminals that do not fit, which is a fault of its own
            yield tuple((w.bus, c) for w in transformer.windings for c in w.terminals if c > 0)
    for shunt in feeder.shunts:
        n = len(shunt.conductors)
        if shunt.g_us.shape == shunt.b_us.shape == (n, n):
            some = np.argwhere((shunt.g_us != 0.0) | (shunt.b_us != 0.0)).tolist()
            yield from (((shunt.bus, shunt.conductors[i]), (shunt.bus, shunt.conductors[j])) for i, j in some)
        else:
            yield tuple((shunt.bus, c) for c in shunt.conductors)
    for element in feeder.admittances:
        ends_of = element.nodes
        yield from ((ends_of[k], ends_of[m]) for k, m in np.argwhere(coupled(element)).tolist())
    yield from ports


def floating(feeder: Feeder, tied: Iterable[Node]) -> frozenset[Node]:
    """Conductors whose voltage nothing fixes: sets joined by lines and switches alone that have nothing but these.

    A voltage induced along a line says how far its ends are apart, not what they are. Charging, a transformer, a shunt,
    a generic admittance or whatever is in ``tied`` gives a set its voltage.

    Args:
        feeder: the wires.
        tied: conductors of sources, and those that devices connect to anything.
    """
    branches: tuple[Line | Switch, ...] = (*feeder.lines, *(s for s in feeder.switches if s.closed))
    fixed = list(tied)
    pairs: list[tuple[Node, Node]] = []
    for wire in branches:
        charged = wire.b_us is not None and wire.b_us.any(axis=-1)
        for k, (i, j) in enumerate(zip(wire.conductors_from, wire.conductors_to, strict=False)):
            pairs.append(((wire.bus_from, i), (wire.bus_to, j)))
            if np.ndim(charged) == 1 and k < np.size(charged) and np.ravel(charged)[k]:
                fixed.append(pairs[-1][0])
    fixed += [(w.bus, c) for t in feeder.transformers for w in t.windings for c in w.terminals]
    fixed += [(s.bus, c) for s in feeder.shunts for c in s.conductors]
    fixed += [node for e in feeder.admittances for node in e.nodes]
    held = reached(pairs, [node for node in fixed if node[1] > 0])
    return frozenset(node for pair in pairs for node in pair) - held


def reached(groups: Iterable[Iterable[Node]], fed: Iterable[Node]) -> frozenset[Node]:
    """The conductors that some conductors reach through sets of conductors that are joined; ground joins nothing."""
    index: dict[Node, int] = {}
    tail: list[int] = []
    head: list[int] = []
    top = index.setdefault(("", 0), 0)
    for group in groups:
        at = [index.setdefault(node, len(index)) for node in group if node[1] != 0]
        tail += at[:-1]
        head += at[1:]
    for node in fed:
        tail.append(top)
        head.append(index.setdefault(node, len(index)))
    n = len(index)
    found = breadth_first_order(_adjacency_of(tail, head, n), top, directed=False, return_predecessors=False)
    nodes = list(index)
    return frozenset(nodes[k] for k in found.tolist() if k != top)


def _adjacency_of(tail: list[int], head: list[int], n: int) -> csr_matrix:
    return coo_matrix((np.ones(len(tail)), (tail, head)), shape=(n, n)).tocsr()


def coupled(wire: MultiTerminal) -> NDArray[np.bool_]:
    """Which conductors of a generic admittance are joined by it, shape (n, n); no matrix that fits joins all."""
    n = len(wire.nodes)
    if wire.g_us.shape != (n, n) or wire.b_us.shape != (n, n):
        return np.ones((n, n), dtype=bool)
    size = np.abs(wire.g_us) + np.abs(wire.b_us)
    return np.asarray(size > COUPLED * size.max(initial=0.0))


def _closed(feeder: Feeder) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Label and buses of every closed branch, lines first."""
    for line in feeder.lines:
        yield line.label, (line.bus_from, line.bus_to)
    for switch in feeder.switches:
        if switch.closed:
            yield switch.label, (switch.bus_from, switch.bus_to)
    for transformer in feeder.transformers:
        yield transformer.label, tuple(w.bus for w in transformer.windings)
    for wire in feeder.admittances:
        yield wire.label, wire.buses


#: one graph per feeder, for as long as the feeder lives; a feeder is frozen
_GRAPHS: WeakKeyDictionary[Feeder, _Graph] = WeakKeyDictionary()


def _graph(feeder: Feeder) -> _Graph:
    if feeder not in _GRAPHS:
        _GRAPHS[feeder] = _Graph(feeder)
    return _GRAPHS[feeder]


class _Graph:
    """Buses, then one centre for each group of three buses or more, as nodes 0, 1, ...; edges as index arrays."""

    def __init__(self, feeder: Feeder) -> None:
        self.names = tuple(dict.fromkeys(b.name for b in feeder.buses if isinstance(b.name, str)))
        self.index = {name: k for k, name in enumerate(self.names)}
        self.groups = _find_groups(feeder)
        edges: list[tuple[int, int, int]] = []
        self.n = len(self.names)
        for g, group in enumerate(self.groups):
            ends = [self.index[b] for b in group.buses]
            if len(ends) == 2:
                edges.append((ends[0], ends[1], g))
            else:
                edges.extend((end, self.n, g) for end in ends)
                self.n += 1
        table = np.array(edges, dtype=np.int64).reshape(-1, 3)
        self.tail, self.head, self.group_of = table[:, 0], table[:, 1], table[:, 2]
        self.matrix = _adjacency(self.tail, self.head, self.n)

    def tree(self, roots: Sequence[str]) -> tuple[Tree, IntArray, IntArray]:
        """The tree, and for each node its parent node and the edge to it (-1 for none)."""
        top = self.n  # a node above all roots, so that one search covers them all
        starts = np.array([self.index[r] for r in dict.fromkeys(roots) if r in self.index], dtype=np.int64)
        matrix = _adjacency(
            np.concatenate([self.tail, np.full(len(starts), top)]), np.concatenate([self.head, starts]), top + 1
        )
        order, before = breadth_first_order(matrix, top, directed=False)
        parent = np.where((before < 0) | (before == top), -1, before).astype(np.int64)[:top]

        edge_up = np.full(self.n, -1, dtype=np.int64)  # an edge of the tree is one whose one end is the other's parent
        for low, high in ((self.tail, self.head), (self.head, self.tail)):
            up = np.flatnonzero(parent[low] == high)
            edge_up[low[up]] = up
        n_buses = len(self.names)
        reached: list[str] = []
        parents: dict[str, str] = {}
        via: dict[str, Group] = {}
        up, group_up = parent.tolist(), self.group_of[edge_up].tolist() if len(self.group_of) else []
        for k in order.tolist():
            if k >= n_buses:
                continue
            name = self.names[k]
            reached.append(name)
            above = up[k]
            if above >= n_buses:  # the centre of a star: the parent is the bus on its far side
                above = up[above]
            if above >= 0:
                parents[name] = self.names[above]
                via[name] = self.groups[group_up[k]]
        return Tree(tuple(reached), parents, via), parent, edge_up


def _adjacency(tail: IntArray, head: IntArray, n: int) -> csr_matrix:
    return coo_matrix((np.ones(len(tail)), (tail, head)), shape=(n, n)).tocsr()


def _path(i: int, j: int, parent: IntArray, edge_up: IntArray) -> list[int]:
    """The tree edges between two nodes of one tree, in order from ``j`` to ``i``."""
    above: dict[int, int] = {}
    climbed: list[int] = []
    while i >= 0:
        above[i] = len(climbed)
        climbed.append(int(edge_up[i]))
        i = int(parent[i])
    out = []
    while j >= 0 and j not in above:
        out.append(int(edge_up[j]))
        j = int(parent[j])
    return out + climbed[: above.get(j, 0)][::-1]


__all__ = [
    "Group",
    "Node",
    "Tree",
    "components",
    "coupled",
    "energised",
    "floating",
    "groups",
    "joined",
    "loops",
    "parallel_groups",
    "reached",
    "spanning_tree",
]
