"""In which order the unknowns of one step are eliminated: from the leaves of the feeder to its root.

Per node, after everything below it: first what devices have there (a group of single pivots), then the branch that
feeds it, in pairs of a variable with the row that determines it::

    (P, p_balance)   (Q, q_balance)   (l, current)   (v, drop)            l only where the formulation has it

At the root the source's power and voltage take the place of the branch. A node block is this list of pairs: another
formulation on a tree joins by naming its own.

Nodes come in postorder, of the subtrees of a node the one with most storages last. So a node where nothing but one
subtree with storages arrives follows the node below and joins its group: what goes from storage to storage passes a
stretch of line at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lateral.network.schema import IntArray
from lateral.program import Block, Program
from lateral.solvers.native.compiling import counted
from lateral.solvers.native.steps import Cells, Declined, Entries, StepProgram

#: Pairs of a branch: (variable, row); and of the source at the root.
BRANCH = (
    ("branch.p_from", "bus.p_balance"),
    ("branch.q_from", "bus.q_balance"),
    ("branch.imag_sq", "branch.current"),
    ("bus.vmag_sq", "branch.drop"),
)
ROOT = (
    ("feed.p", "bus.p_balance"),
    ("feed.q", "bus.q_balance"),
    ("feed.imag_sq", "feed.current"),
    ("bus.vmag_sq", "feed.voltage"),
)
#: Most nodes of one group: its part of the factor is gone through six times, and is to stay in the cache near by.
MOST_NODES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """The pivots of one step.

    Attributes:
        unknown: unknowns of each pivot, (pivots, 2), the second -1 for single ones. Unknowns: variables, then rows.
        size: 1 or 2 per pivot.
        group: group of each pivot, ascending; None where the order knows no groups.
        network: True for unknowns of the network itself (pairs), shape (unknowns,).
        loose: variables that only storage rows touch.
    """

    unknown: IntArray
    size: IntArray
    group: IntArray | None
    network: np.ndarray
    loose: IntArray


def order_of(program: Program, steps: StepProgram) -> Order:
    """The order of elimination: of a tree of one conductor per bus by its nodes, of anything else by `pairing`.

    Raises:
        Declined: no order was found.
    """
    from lateral.solvers.native.pairing import paired

    if program.tree is None or steps.quadratics.n or steps.curves.n:
        return paired(steps)
    return tree_order(program, steps)


def tree_order(program: Program, steps: StepProgram) -> Order:
    """The order of elimination of a program with a tree.

    Raises:
        Declined: the program has no tree of one conductor per bus.
    """
    hint = program.tree
    if hint is None:
        message = "the formulation attaches no tree of one conductor per bus"
        raise Declined(message)
    nv = steps.variables.n
    n_rows = int((steps.row_of >= 0).sum())
    g_first, p_first = nv + n_rows, nv + n_rows + steps.ranges.n
    n = p_first + steps.products.n
    variables = _spans(program.variables, steps.variables)
    rows = {name: nv + steps.row_of[where] for name, where in _spans(program.equalities, steps.equalities).items()} | {
        name: p_first + where for name, where in _spans(program.product_blocks, steps.products).items()
    }
    for name in ("bus.vmag_sq", "branch.p_from", "feed.p", "bus.p_balance", "branch.drop", "feed.voltage"):
        if name not in variables and name not in rows:
            message = f"there is no {name!r}"
            raise Declined(message)

    t = steps.n_steps
    node_of_leg = (hint.branch_vars[:, 3] - program.block("bus.vmag_sq").start) // t
    n_nodes = len(variables["bus.vmag_sq"])
    is_root = np.ones(n_nodes, dtype=bool)
    is_root[node_of_leg] = False
    roots = np.flatnonzero(is_root)
    if len(roots) != 1:
        message = f"{len(roots)} roots; one is needed"
        raise Declined(message)
    network = np.zeros(n, dtype=bool)
    blocks = []  # of every leg: its pairs, shape (legs, 2) each; the same of the root
    home = np.full(n, -1)
    for pairs, nodes, per_node in ((BRANCH, node_of_leg, "branch"), (ROOT, roots, "feed")):
        columns = []
        for variable, row in pairs:
            if variable not in variables:
                continue
            a, b = variables[variable], rows[row]
            a = a[nodes] if variable.startswith("bus.") else a
            b = b[nodes] if row.startswith("bus.") else b
            if len(a) != len(nodes) or len(b) != len(nodes):
                message = f"{len(a)} of {variable!r} where there are {len(nodes)} of {per_node!r}"
                raise Declined(message)
            network[a] = network[b] = True
            home[a] = home[b] = nodes
            columns.append(np.column_stack([a, b]))
        blocks.append(columns)

    entries = [
        (steps.a, nv, 1),
        (steps.g, g_first, 1),
        (steps.squares, p_first, steps.width),
        (steps.u, p_first, 1),
        (steps.v, p_first, 1),
    ]
    _find_homes(home, network, entries)
    at_root = int(roots[0])
    in_rows = np.zeros(n, dtype=bool)
    for e, first, width in entries:
        in_rows[e.col] = True
        in_rows[first + e.row // width] = True
    loose = np.flatnonzero(~in_rows[:nv] & ~network[:nv])
    home[(home < 0) & in_rows] = at_root

    linked = np.setdiff1d(np.concatenate([steps.now.col, steps.before.col]), loose)
    storages = np.bincount(home[linked], minlength=n_nodes)
    nodes = np.concatenate([node_of_leg, roots])
    weight = storages[nodes]
    order, heavy = _postorder(hint.parent, weight.copy())
    joins = (weight == 0) & (heavy == 1)
    rank = np.empty(n_nodes, dtype=np.int64)  # when each node is eliminated
    rank[nodes] = order
    joined = np.zeros(n_nodes, dtype=bool)
    joined[order] = joins
    count = np.arange(n_nodes)
    joined &= (count - np.maximum.accumulate(np.where(joined, 0, count))) % MOST_NODES != 0
    of_network = 2 * np.cumsum(~joined) + len(loose)  # groups, by rank: what devices have at a node comes before
    of_devices = of_network - ~joined
    # rows about nothing but the network (limits of branches) reach to the parent's voltage: they go with the node
    about_devices = np.zeros(n, dtype=bool)
    for e, first, width in entries:
        about_devices[(first + e.row // width)[~network[e.col]]] = True
    limits = np.flatnonzero(~network & in_rows & ~about_devices)
    limits = limits[limits >= nv]
    devices = np.flatnonzero(~network & in_rows)
    devices = np.setdiff1d(devices, limits)
    devices = devices[np.lexsort((devices, rank[home[devices]]))]  # variables have lower numbers than rows

    unknown = [np.column_stack([loose, np.full(len(loose), -1)])]
    group = [np.arange(len(loose))]
    when = [np.full(len(loose), -1.0)]
    unknown.append(np.column_stack([devices, np.full(len(devices), -1)]))
    group.append(of_devices[rank[home[devices]]])
    when.append(rank[home[devices]].astype(float))
    unknown.append(np.column_stack([limits, np.full(len(limits), -1)]))
    group.append(of_network[rank[home[limits]]])
    when.append(rank[home[limits]] + 0.45)
    for columns, at in ((blocks[0], node_of_leg), (blocks[1], roots)):
        for k, pairs_ in enumerate(columns):
            unknown.append(pairs_)
            group.append(of_network[rank[at]])
            when.append(rank[at] + 0.5 + 0.05 * k)
    everything, groups_, moment = np.concatenate(unknown), np.concatenate(group), np.concatenate(when)
    sorting = np.argsort(moment, kind="stable")
    everything, groups_ = everything[sorting], groups_[sorting]
    _, dense = np.unique(groups_, return_inverse=True)
    size = np.where(everything[:, 1] < 0, 1, 2)
    if int(size.sum()) != n:
        message = f"{n - int(size.sum())} unknowns that belong to no node"
        raise Declined(message)
    return Order(everything.astype(np.int64), size.astype(np.int64), dense.astype(np.int64), network, loose)


@counted
def _postorder(parent, total):  # type: ignore[no-untyped-def]
    """Places of nodes in postorder, the heaviest subtree last, and how many subtrees of each node have a weight.

    Args:
        parent: of each node but the root, which is the last and stands as -1; parents come before their children.
        total: of each node, what makes a subtree heavy, and becomes that of the subtree; without any it is its number
            of nodes.
    """
    n = len(total)
    root = n - 1
    size, heavy = np.ones(n, dtype=np.int64), np.full(n, -1)
    some = np.zeros(n, dtype=np.int64)
    for k in range(n - 2, -1, -1):
        p = parent[k] if parent[k] >= 0 else root
        size[p] += size[k]
        total[p] += total[k]
        some[p] += total[k] > 0
        h = heavy[p]
        if h < 0 or total[k] > total[h] or (total[k] == total[h] and size[k] > size[h]):
            heavy[p] = k
    place, begin = np.empty(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    place[root] = n - 1
    for k in range(n - 1):
        p = parent[k] if parent[k] >= 0 else root
        if heavy[p] == k:
            place[k] = place[p] - 1
        else:
            place[k] = begin[p] + size[k] - 1
            begin[p] += size[k]
        begin[k] = place[k] - size[k] + 1
    return place, some


def _spans(blocks: Sequence[Block], cells: Cells) -> dict[str, IntArray]:
    """Elements of one step by block name."""
    out: dict[str, list[IntArray]] = {}
    for block in blocks:
        if block.size and cells.element[block.start] >= 0:
            first = int(cells.element[block.start])
            out.setdefault(block.name, []).append(np.arange(first, first + len(block.elements)))
    return {name: np.concatenate(parts) for name, parts in out.items()}


def _find_homes(home: IntArray, network: np.ndarray, entries: list[tuple[Entries, int, int]]) -> None:
    """Nodes of the unknowns of devices, in place: of a variable by its balance, of a row by its variables."""
    for _ in range(4):  # device variable -> its row -> another variable of that row
        before = int((home < 0).sum())
        for e, first, width in entries:
            row, col = first + e.row // width, e.col
            to_col = (home[col] < 0) & (home[row] >= 0)
            home[col[to_col]] = home[row[to_col]]
            to_row = (home[row] < 0) & (home[col] >= 0)
            home[row[to_row]] = home[col[to_row]]
        if int((home < 0).sum()) == before:
            break


__all__ = ["BRANCH", "ROOT", "Order", "order_of"]
