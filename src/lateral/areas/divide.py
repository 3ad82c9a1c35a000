"""Divide: a feeder cut into a given number of areas without being told where.

**What is wanted**: areas of equal size, few borders, and those where little crosses. In a tree N areas have N - 1
borders, whatever they are; so the choice is only which branches.

**Size** is what an area costs to solve: its share of all nodes, and its share of all batteries (each ties the steps of
a horizon together). Batteries count for up to `BATTERY_SHARE`, less where there are so few that they cannot be shared
out.

**Heuristic** (no optimum is claimed): a piece of k areas is split in two of j and k - j areas, again and again. Of all
branches of the piece that can be borders, and all j that leave enough of them on both sides, the split takes the least

    |size below - j/k of the piece|  +  cost of the branch,            both in sizes of one area

    cost = POWER_COST x (peak load below / peak load of all)  +  CONDUCTOR_COST x (conductors - 1)
           - SWITCH_GAIN, where the branch is a switch

so a switch is preferred to a better balance of up to a quarter of an area. Then, of up to `MOVED_UP_TO` areas, borders
are moved to a branch beside theirs as long as that lowers the sum of squared sizes and of the same costs. It takes the
time of log N walks over the feeder, and gives the same areas each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lateral.areas.partition import Partition, border_problem, branches_of, cut, tree_faults
from lateral.baseline import load_power
from lateral.case import Case
from lateral.devices import Battery, Load
from lateral.errors import CaseError, OptionError
from lateral.network.feeder import Switch
from lateral.network.schema import FloatArray, IntArray
from lateral.network.topology import spanning_tree

#: Share of batteries in what counts as the size of an area; the rest is nodes.
BATTERY_SHARE = 0.3
#: Cost of a border where all of the load crosses, of each conductor beyond the first, and gain of a switch.
POWER_COST, CONDUCTOR_COST, SWITCH_GAIN = 0.1, 0.05, 0.25
#: Up to this many areas borders are moved after the splits; it takes the square of their number.
MOVED_UP_TO = 16


@dataclass(frozen=True, eq=False)
class _Graph:
    """The fed part of a feeder as arrays over its buses, parents before children.

    Attributes:
        label: a label of the branch above each bus; empty for the root.
        parent: position of the bus above; -1 for the root.
        size: what each bus adds to the size of its area; the sum is 1.
        cost: cost of a border above each bus, in sizes of one area; infinite where there can be none.
    """

    label: tuple[str, ...]
    parent: IntArray
    size: FloatArray
    cost: FloatArray

    @property
    def n_borders(self) -> int:
        """Number of branches that can be borders."""
        return int(np.isfinite(self.cost).sum())


def divide(case: Case, n: int) -> Partition:
    """Cut a radial case into n areas of about equal size.

    Args:
        case: the case.
        n: number of areas, at least 1.

    Returns:
        The partition; areas are called ``1`` (with the source), ``2``, ..., upper ones first.

    Raises:
        OptionError: n is no number of areas, or more than the feeder can be cut into; says how many it can.
        CaseError: the feeder has a loop, or more than one source.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        message = f"the number of areas must be a whole number of at least 1, not {n!r}"
        raise OptionError(message)
    if n == 1:
        return cut(case, ())
    faults = tree_faults(case)
    if faults:
        raise CaseError(faults)
    graph = _measured(case, n)
    if n > graph.n_borders + 1:
        message = (
            f"the feeder cannot be cut into {n} areas: it has {graph.n_borders} branches that can be borders, "
            f"so {graph.n_borders + 1} areas at most"
        )
        raise OptionError(message)
    chosen = _split(graph, n)
    if n <= MOVED_UP_TO:
        chosen = _moved(graph, chosen, n)
    return cut(case, [graph.label[k] for k in sorted(chosen)])


def _measured(case: Case, n: int) -> _Graph:
    """Sizes of the buses and costs of the borders above them."""
    feeder = case.feeder
    tree = spanning_tree(feeder, [s.bus for s in case.sources])
    at = {bus: k for k, bus in enumerate(tree.order)}
    elements = branches_of(feeder)
    parent = np.array([at[tree.parent[b]] if b in tree.parent else -1 for b in tree.order], dtype=np.int64)
    nodes = np.array([len(feeder.bus[b].conductors) for b in tree.order], dtype=float)
    batteries, load = np.zeros(len(at)), np.zeros(len(at))
    for d in case.devices:
        if isinstance(d, Battery) and d.bus in at:
            batteries[at[d.bus]] += 1.0
        elif isinstance(d, Load) and d.bus in at:
            p, q = load_power(case, d)
            load[at[d.bus]] += float(np.hypot(p, q).max())
    share = BATTERY_SHARE * min(1.0, batteries.sum() / (2.0 * n))
    size = (1.0 - share) * nodes / nodes.sum() + (share * batteries / batteries.sum() if share else 0.0)
    power = _below(parent, load) / max(load.sum(), 1e-12)
    cost = np.full(len(at), np.inf)
    for bus, group in tree.via.items():
        if border_problem(feeder, elements, group, bus):
            continue
        k = at[bus]
        switch = all(isinstance(elements[label], Switch) for label in group.branches)
        conductors = len(feeder.bus[bus].conductors)
        cost[k] = POWER_COST * power[k] + CONDUCTOR_COST * (conductors - 1) - (SWITCH_GAIN if switch else 0.0)
    label = tuple(tree.via[b].branches[0] if b in tree.via else "" for b in tree.order)
    return _Graph(label, parent, size, cost)


def _below(parent: IntArray, values: FloatArray) -> FloatArray:
    """Sum of values over each bus and all below it; children come after parents."""
    out = values.tolist()
    for k, up in zip(range(len(out) - 1, 0, -1), parent[:0:-1].tolist(), strict=True):
        if up >= 0:
            out[up] += out[k]
    return np.array(out)


def _split(graph: _Graph, n: int) -> set[int]:
    """Buses above which to cut: pieces are split in two until each is one area."""
    chosen: set[int] = set()
    work = [(np.arange(len(graph.parent)), n)]
    while work:
        piece, k = work.pop()
        if k == 1:
            continue
        inside = np.full(len(graph.parent), -1, dtype=np.int64)
        inside[piece] = np.arange(len(piece))
        up = graph.parent[piece]
        parent = np.where(up >= 0, inside[up], -1)
        size = _below(parent, graph.size[piece])
        can = np.isfinite(graph.cost[piece])
        can[0] = False  # the border above the piece is made already, or is the source
        borders = _below(parent, can.astype(float)) - can
        spare = can.sum() - 1 - borders
        whole = size[0]
        fewest = np.maximum(1, k - 1 - spare)
        most = np.minimum(k - 1, borders + 1)
        j = np.clip(np.round(size / whole * k), fewest, most)
        score = np.where(can, np.abs(size - j / k * whole) * n + graph.cost[piece], np.inf)
        top = int(np.argmin(score))
        chosen.add(int(piece[top]))
        below = np.zeros(len(piece), dtype=bool)
        below[top] = True
        for q, above in enumerate(parent.tolist()):
            if above >= 0 and below[above]:
                below[q] = True
        work += [(piece[below], int(j[top])), (piece[~below], k - int(j[top]))]
    return chosen


def _moved(graph: _Graph, chosen: set[int], n: int) -> set[int]:
    """The borders, each moved to a branch beside it as long as that helps."""
    children: dict[int, list[int]] = {}
    for k, up in enumerate(graph.parent.tolist()):
        children.setdefault(up, []).append(k)
    below = _below(graph.parent, graph.size)
    best = _value(graph, below, chosen, n)
    for _ in range(8 * n):
        better = None
        for border in sorted(chosen):
            up = int(graph.parent[border])
            for other in (up, *children.get(border, ()), *children.get(up, ())):
                if other in chosen or not np.isfinite(graph.cost[other]):
                    continue
                tried = (chosen - {border}) | {other}
                value = _value(graph, below, tried, n)
                if value < best - 1e-9:
                    best, better = value, tried
        if better is None:
            break
        chosen = better
    return chosen


def _value(graph: _Graph, below: FloatArray, chosen: set[int], n: int) -> float:
    """Sum of squared sizes, in sizes of one area, and of the costs of the borders."""
    order = sorted(chosen)
    size = {k: float(below[k]) for k in order}
    rest = float(below[0])
    for k in order:
        up = int(graph.parent[k])
        while up >= 0 and up not in size:
            up = int(graph.parent[up])
        if up >= 0:
            size[up] -= float(below[k])
        else:
            rest -= float(below[k])
    sizes: Sequence[float] = (rest, *size.values())
    return sum((n * s) ** 2 for s in sizes) + float(graph.cost[order].sum())


__all__ = ["BATTERY_SHARE", "CONDUCTOR_COST", "POWER_COST", "SWITCH_GAIN", "divide"]
