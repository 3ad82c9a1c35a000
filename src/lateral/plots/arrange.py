"""Where to draw the buses: their coordinates, or a tree when there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lateral.case import Case
from lateral.network.feeder import Feeder
from lateral.network.schema import FloatArray, IntArray
from lateral.network.topology import Tree, spanning_tree

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
#: Lowest or highest line of a subtree at every depth, deepest first, by its root.
Outlines = dict[int, list[float]]

#: With fewer known coordinates than this share, all buses are placed as a tree.
KNOWN_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Places:
    """A position for every bus.

    Attributes:
        x: horizontal positions, shape (n,), in the order of the feeder's buses.
        y: vertical positions, shape (n,).
        drawn: True when it is a drawing of the tree, and not the coordinates of the case.
        n_filled: how many buses got the place of a neighbour, since they have no coordinates of their own.
    """

    x: FloatArray
    y: FloatArray
    drawn: bool
    n_filled: int


def tree_of(case: Case) -> Tree:
    """The spanning tree from the buses of the sources."""
    return spanning_tree(case.feeder, list(dict.fromkeys(s.bus for s in case.sources)))


def distances(case: Case, tree: Tree) -> tuple[FloatArray, str]:
    """Distance of every bus from its source along the tree, shape (n,), and what it is measured in.

    Lengths of lines in km where the case knows them, else the number of branches. NaN for a bus that nothing reaches.
    """
    length = {line.label: line.length_km for line in case.feeder.lines}
    far: dict[str, float] = {}
    hops: dict[str, float] = {}
    for bus in tree.order:
        up = tree.parent.get(bus)
        if up is None:
            far[bus] = hops[bus] = 0.0
            continue
        own = [length[label] for label in tree.via[bus].branches if label in length]
        far[bus] = far[up] + (max(own) if own else 0.0)
        hops[bus] = hops[up] + 1.0
    known = any(far.values())
    chosen = far if known else hops
    return np.array([chosen.get(b.name, np.nan) for b in case.feeder.buses]), "km" if known else "branches"


def places(case: Case, tree: Tree) -> Places:
    """A position for every bus: its own, or near its neighbours, or as a tree when hardly any is known."""
    buses = case.feeder.buses
    x, y = np.array([b.x for b in buses], dtype=float), np.array([b.y for b in buses], dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    if not buses or known.mean() < KNOWN_SHARE or not (np.ptp(x[known]) or np.ptp(y[known])):
        x, y = tidy_tree([b.name for b in buses], tree)
        return Places(x, y, drawn=True, n_filled=0)
    _fill(case.feeder, tree, x, y, known)
    return Places(x, y, drawn=False, n_filled=int((~known).sum()))


def _fill(feeder: Feeder, tree: Tree, x: FloatArray, y: FloatArray, known: BoolArray) -> None:
    """Give buses without coordinates those of the nearest bus towards the source, else of one further out."""
    at = {b.name: k for k, b in enumerate(feeder.buses)}
    have = known.copy()
    for order, towards_source in ((tree.order, True), (tree.order[::-1], False), (tree.order, True)):
        for bus in order:
            up = tree.parent.get(bus)
            if up is None:
                continue
            to, source = (at[bus], at[up]) if towards_source else (at[up], at[bus])
            if have[source] and not have[to]:
                x[to], y[to], have[to] = x[source], y[source], True
    # what no source reaches goes to the lower left corner, where it can be seen
    x[~have], y[~have] = float(np.min(x[known])), float(np.min(y[known]))


def tidy_tree(names: Sequence[str], tree: Tree) -> tuple[FloatArray, FloatArray]:
    """A compact drawing: depth to the right, the longest path straight, laterals packed above or below it.

    Each subtree has an outline (its highest and lowest line at every depth), and is put as near to its parent's line
    as the outlines allow (after Reingold and Tilford, 1981). The outline of the longest child becomes that of its
    parent, so that the work is proportional to the number of buses.

    Returns:
        x and y, each of shape (n,), in the order of ``names``; buses that the tree does not reach are in a row below.
    """
    at = {name: k for k, name in enumerate(names)}
    order = [at[name] for name in tree.order]
    parent = np.full(len(names), -1, dtype=np.int64)
    for name, up in tree.parent.items():
        parent[at[name]] = at[up]
    children: dict[int, list[int]] = {}
    for k in order:
        if parent[k] >= 0:
            children.setdefault(int(parent[k]), []).append(k)
    height = np.zeros(len(names), dtype=np.int64)
    offset = np.zeros(len(names))
    top: Outlines = {}  # relative to the root of each subtree
    low: Outlines = {}
    for k in reversed(order):
        below = sorted(children.get(k, []), key=lambda c: -int(height[c]))
        if not below:
            top[k], low[k] = [0.0], [0.0]
            continue
        first = below[0]
        height[k] = height[first] + 1
        up_line, low_line = top.pop(first), low.pop(first)
        for child in below[1:]:
            offset[child] = _attach(up_line, low_line, top.pop(child), low.pop(child))
        up_line.append(0.0)
        low_line.append(0.0)
        top[k], low[k] = up_line, low_line
    return _positions(order, parent, offset, top, low, len(names))


def _attach(up: list[float], low: list[float], child_up: list[float], child_low: list[float]) -> float:
    """Put a child beside its siblings, where it is nearer, and widen their outline; returns the child's offset."""
    n = len(child_up)
    inner_up, inner_low = up[len(up) - n :], low[len(low) - n :]
    above = 1.0 + max(a - b for a, b in zip(inner_up, child_low, strict=True))
    below = 1.0 + max(a - b for a, b in zip(child_up, inner_low, strict=True))
    if above <= below:
        up[len(up) - n :] = [value + above for value in child_up]
        return above
    low[len(low) - n :] = [value - below for value in child_low]
    return -below


def _positions(
    order: list[int], parent: IntArray, offset: FloatArray, top: Outlines, low: Outlines, n: int
) -> tuple[FloatArray, FloatArray]:
    x, y = np.full(n, np.nan), np.full(n, np.nan)
    floor = 0.0
    for k in order:
        if parent[k] < 0:  # a root: its tree goes below the trees before it
            x[k], y[k] = 0.0, floor - max(top[k])
            floor = y[k] + min(low[k]) - 2.0
        else:
            x[k], y[k] = x[parent[k]] + 1.0, y[parent[k]] + offset[k]
    lost = np.flatnonzero(np.isnan(x))
    x[lost], y[lost] = np.arange(len(lost), dtype=float), floor
    return x, y


__all__ = ["Places", "distances", "places", "tidy_tree", "tree_of"]
