"""Rows of the rectangular family where rounding would drown a balance: short branches and ungrounded islands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from lateral.formulations.phasors import Complex, Kept
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder, Line, Shunt, Switch
from lateral.network.kron import ReducedNetwork
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder
from lateral.program.ports import Ports

#: Admittance, pu, from which on a line between used buses is short, see `short_legs`.
STIFF = 1e5
#: A set of nodes whose currents to elsewhere add up to less than this share of its admittances is ungrounded.
FLOATING = 1e-7


def short_legs(net: RadialNetwork, used: set[int]) -> IntArray:
    """Legs of lines and switches so short that their admittance would drown the balance in rounding.

    They stay out of the nodal matrix; their currents are variables, and ``V_p - V_s = Z I`` a row.

    Args:
        net: nodes and branches.
        used: nodes at which something is connected.
    """
    z = np.full(net.n_legs, np.inf)
    np.minimum.at(z, net.z_row[net.z_row == net.z_col], np.abs(net.z_val[net.z_row == net.z_col]))
    tail = np.full(net.n_legs, -1)
    tail[net.a_leg] = net.a_node
    bus = [node[0] for node in net.nodes]
    buses = {bus[k] for k in used}
    short = _plain_legs(net) & (z * STIFF < 1.0)
    branches = {
        int(net.branch[k]) for k in np.flatnonzero(short) if bus[net.to_node[k]] in buses and bus[tail[k]] in buses
    }
    return np.flatnonzero(np.isin(net.branch, list(branches)))


def _plain_legs(net: RadialNetwork) -> NDArray[np.bool_]:
    """Which legs join one node to one other and are of no transformer, shape (K,)."""
    line = np.array([not name.startswith("transformer.") for name in net.branch_names], dtype=bool)[net.branch]
    return np.asarray((np.bincount(net.a_leg, minlength=net.n_legs) == 1) & line)


def without_series(feeder: Feeder, labels: set[str]) -> Feeder:
    """The feeder without the series part of some lines and switches; their charging stays."""
    if not labels:
        return feeder
    wires: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
    return replace(
        feeder,
        lines=tuple(e for e in feeder.lines if e.label not in labels),
        switches=tuple(e for e in feeder.switches if e.label not in labels),
        shunts=(*feeder.shunts, *(s for e in wires if e.label in labels for s in _charging(e))),
    )


def _charging(element: Line | Switch) -> list[Shunt]:
    """Half of the susceptance at each end, as shunts."""
    if element.b_us is None or not np.any(element.b_us):
        return []
    half, none = 0.5 * element.b_us, np.zeros_like(element.b_us)
    ends = ((element.bus_from, element.conductors_from), (element.bus_to, element.conductors_to))
    return [
        Shunt(name=f"{element.name}:{k}", bus=bus, conductors=conductors, g_us=none, b_us=half)
        for k, (bus, conductors) in enumerate(ends)
    ]


def short_currents(
    builder: ProgramBuilder, net: RadialNetwork, own: IntArray, kept: Kept, v0: ComplexArray, total: float
) -> tuple[Complex, Complex]:
    """Currents of the short branches, as variables, with the row of each.

    Args:
        builder: takes variables and rows.
        net: nodes and branches.
        own: the short legs.
        kept: voltages of the kept nodes.
        v0: voltages of all nodes at the operating point, pu.
        total: typical current.

    Returns:
        the currents, and what leaves the sending nodes and enters the receiving ones.
    """
    names = [net.legs[k] for k in own]
    place = np.full(net.n_legs, -1)
    place[own] = np.arange(len(own))

    def variable(quantity: str) -> Affine:
        return builder.variable("branch", quantity, names, unit="pu", scale=total, limit=False)

    current = Complex(variable("i_re"), variable("i_im"))
    tail = np.full(net.n_legs, -1)
    tail[net.a_leg] = net.a_node
    ground = np.full(len(own), -1)
    ends = [Ports(nodes[own], ground) for nodes in (tail, net.to_node)]
    e = np.flatnonzero(place[net.z_row] >= 0)
    drop = current.map(len(own), place[net.z_row[e]], place[net.z_col[e]], net.z_val[e])
    v_p, v_s = (kept.across(at) for at in ends)
    size = np.abs(v0[net.to_node[own]]).max(axis=1).reshape(-1, 1)
    for quantity, row in (("drop_re", (v_p - v_s - drop).re), ("drop_im", (v_p - v_s - drop).im)):
        builder.equal("branch", quantity, names, row, unit="pu", scale=np.maximum(size, 0.05))
    return current, kept.to_nodes(ends[0], current) - kept.to_nodes(ends[1], current)


def short_losses(builder: ProgramBuilder, net: RadialNetwork, own: IntArray, current: Complex, weight: Affine) -> None:
    """Add the losses ``I^H Re(Z) I`` of the short branches to the objective, times a weight of shape (1, T)."""
    place = np.full(net.n_legs, -1)
    place[own] = np.arange(len(own))
    e = np.flatnonzero(place[net.z_row] >= 0)
    for i in (current.re, current.im):
        seen = i.map_terms(i.n, place[net.z_row[e]], place[net.z_col[e]], np.asarray(net.z_val[e].real))
        builder.minimise_products(i, seen, weight.take(np.zeros(i.n, dtype=np.int64)))


def floating(net: RadialNetwork, wires: sparse.csc_matrix, connected: Sequence[Ports], fed: IntArray) -> list[IntArray]:
    """Sets of nodes joined by lines and switches that nothing but antifloat shunts ties to ground.

    Args:
        net: true nodes and branches.
        wires: admittance over the true nodes, then the internal ones of decided taps.
        connected: ports at which something is connected.
        fed: nodes of sources.
    """
    n, n_true = wires.shape[0], len(net.nodes)
    own = _plain_legs(net)[net.a_leg]
    tail, head = net.a_node[own], net.to_node[net.a_leg[own]]
    bus: dict[str, int] = {}
    of_bus = np.array([bus.setdefault(b, len(bus)) for b, _ in net.nodes])
    graph = sparse.coo_matrix((np.ones(len(tail)), (of_bus[tail], of_bus[head])), shape=(len(bus), len(bus)))
    n_parts, part_of_bus = connected_components(graph, directed=False)
    # an internal node of a decided tap is a piece by itself, tied by the leakage to the other windings
    inner = n_parts + np.arange(n - n_true)
    part, n_parts = np.concatenate([part_of_bus[of_bus], inner]), n_parts + len(inner)
    sums = sparse.csr_matrix((np.ones(n), (part, np.arange(n))), shape=(n_parts, n)) @ wires
    diagonal = np.zeros(n_parts)
    np.maximum.at(diagonal, part, np.abs(wires.diagonal()))
    left = np.zeros(n_parts)
    coo = sums.tocoo()
    np.maximum.at(left, coo.row, np.abs(coo.data))
    tied = left > FLOATING * np.maximum(diagonal, 1e-300)
    tied[part[np.concatenate([*(at.a[at.b < 0] for at in connected), fed])]] = True
    tied[inner] = True
    return [np.flatnonzero(part == k) for k in np.flatnonzero(~tied)]


def with_islands(
    balance: Complex,
    islands: Sequence[IntArray],
    wires: sparse.csc_matrix,
    reduced: ReducedNetwork,
    v: Complex,
    scale: FloatArray,
) -> tuple[Complex, list[IntArray]]:
    """The balances with one row of each ungrounded island replaced by the sum over the island.

    What holds the voltage to ground of such an island are the antifloat shunts of its transformers, 1e-8 pu and less:
    drowned in the rounding of any single balance. In the sum all other currents cancel, and the row is scaled by what
    is left.

    Args:
        balance: of the kept nodes.
        islands: nodes of each, see `floating`.
        wires: admittance over all nodes.
        reduced: which nodes are kept, and how the others follow.
        v: voltages of the kept nodes.
        scale: of the rows, shape (kept, 1); changed in place.

    Returns:
        the balances, and the kept nodes of each island with such a row, the row being that of the first one.
    """
    out, n = [], len(reduced.kept)
    for nodes in islands:
        held = np.asarray(wires[nodes].sum(axis=0)).reshape(1, -1) @ reduced.t
        weight = np.asarray(held).reshape(-1)
        members = np.flatnonzero(np.isin(reduced.kept, nodes))
        size = float(np.abs(weight).max(initial=0.0))
        if not len(members) or size == 0.0:
            continue
        first = int(members[0])
        # all but what the sum over a column leaves of rounding: small ones add up (an island is also what is tied to
        # ground by the leakage of many small transformers alone)
        rounding = 8.0 * np.finfo(float).eps * np.abs(wires.diagonal())[reduced.kept]
        has = np.flatnonzero(np.abs(weight) > rounding)
        total = v.map(n, np.full(len(has), first), has, weight[has])
        keep = np.ones((n, 1))
        keep[first] = 0.0
        balance = Complex(balance.re * keep, balance.im * keep) + total
        scale[first] = size
        out.append(members)
    return balance, out


__all__ = ["floating", "short_currents", "short_legs", "short_losses", "with_islands", "without_series"]
