"""The feeder as a set of branches between nodes, radial or meshed: for formulations that work on the nodal matrix.

The branches are those of `lateral.network.branches`, element by element (``W = A V_p``, ``V_s = W - Z I``), but nothing
is walked: the first end of an element is its sending side. Neutral conductors are nodes like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from lateral.network.admittance import Node, NodeIndex, Primitive, nodal_matrix, primitives
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder, Line, MultiTerminal, Shunt, Switch, Transformer
from lateral.network.schema import ComplexArray
from lateral.units import Base


def wire_network(
    feeder: Feeder,
    roots: Iterable[Node],
    base: Base,
    *,
    neutrals: Collection[Node] = (),
    ports: Iterable[tuple[Node, Node]] = (),
    index: NodeIndex | None = None,
) -> RadialNetwork:
    """Every energised node and every branch between them; of a meshed feeder too.

    Args:
        feeder: the wires.
        roots: nodes that sources feed.
        base: power base.
        neutrals: nodes near zero volts; they stay nodes, ``grounded`` names them for what looks at voltages.
        ports: pairs of nodes between which devices are: a node that no wire reaches and a device does, such as the
            isolated neutral of a load, is energised through it.
        index: the feeder's node index, when at hand.
    """
    index = index or NodeIndex.of(feeder)
    fed = _fed(nodal_matrix(feeder, index), index, roots, ports)
    nodes = tuple(node for node, yes in zip(index.nodes, fed.tolist(), strict=True) if yes)
    position = {node: k for k, node in enumerate(nodes)}
    v_base = index.v_base_kv[fed]
    legs: list[str] = []
    names: list[str] = []
    dead: list[str] = []
    branch: list[int] = []
    to_node: list[int] = []
    i_max: list[float] = []
    s_max: list[float] = []
    a: list[tuple[int, int, complex]] = []
    z: list[tuple[int, int, complex]] = []
    for part in primitives(feeder, antifloat=False, no_load=False):
        element = part.element
        if isinstance(element, Shunt | MultiTerminal):
            continue  # without a limit, a generic admittance needs no branch: the nodal matrix has it
        if any(node not in position for node in part.nodes):
            dead.append(element.label)
            continue
        sending, receiving = _ends(part)
        ideal, series = _ideal_and_series(part, sending, receiving)
        first, number = len(legs), len(names)
        names.append(element.label)
        s_max.append(element.s_max_kva / base.s_kva if isinstance(element, Transformer) else np.inf)
        one_bus = len({bus for bus, _ in receiving}) == 1
        at = [position[node] for node in receiving]
        v_s = [v_base[k] for k in at]
        v_p = [v_base[position[node]] for node in sending]
        for k, node in enumerate(receiving):
            legs.append(f"{element.label}.{node[1]}" if one_bus else f"{element.label}.{node[0]}.{node[1]}")
            branch.append(number)
            to_node.append(at[k])
            limit = element.i_max_a if isinstance(element, Line | Switch) else np.inf
            i_max.append(limit / base.i_a(v_s[k]))
            for m, value in enumerate(ideal[k]):
                if value != 0.0:
                    a.append((first + k, position[sending[m]], value * v_p[m] / v_s[k]))
            for m, value in enumerate(series[k]):
                if value != 0.0:
                    z.append((first + k, first + m, value * base.s_kva / (1000.0 * v_s[k] * v_s[m])))
    return RadialNetwork(
        nodes=nodes,
        v_base_kv=v_base,
        roots=np.array([position[r] for r in dict.fromkeys(roots) if r in position], dtype=np.int64),
        legs=tuple(legs),
        branch=np.array(branch, dtype=np.int64),
        branch_names=tuple(names),
        to_node=np.array(to_node, dtype=np.int64),
        a_leg=np.array([t[0] for t in a], dtype=np.int64),
        a_node=np.array([t[1] for t in a], dtype=np.int64),
        a_val=np.array([t[2] for t in a], dtype=complex),
        z_row=np.array([t[0] for t in z], dtype=np.int64),
        z_col=np.array([t[1] for t in z], dtype=np.int64),
        z_val=np.array([t[2] for t in z], dtype=complex),
        shunt_i=np.zeros(0, dtype=np.int64),
        shunt_j=np.zeros(0, dtype=np.int64),
        shunt_y=np.zeros(0, dtype=complex),
        i_max_pu=np.array(i_max),
        s_max_pu=np.array(s_max),
        grounded=tuple(node for node in nodes if node in set(neutrals)),
        dead=tuple(dead),
        position=position,
    )


def _fed(
    y: sparse.csc_matrix, index: NodeIndex, roots: Iterable[Node], ports: Iterable[tuple[Node, Node]]
) -> np.ndarray:
    """Which nodes are joined to a root by wires and devices, shape (n,)."""
    at = index.position
    ends = np.array([(at[a], at[b]) for a, b in ports], dtype=np.int64).reshape(-1, 2)
    through = sparse.csc_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=y.shape)
    _, part = connected_components(abs(y) + through, directed=False)
    fed: np.ndarray = np.isin(part, [part[index.position[r]] for r in roots if r in index.position])
    return fed


def _ends(part: Primitive) -> tuple[list[Node], list[Node]]:
    """Sending nodes (the first end, or the first winding) and receiving nodes of an element."""
    element = part.element
    if isinstance(element, Transformer):
        first = {(element.windings[0].bus, t) for t in element.windings[0].terminals if t > 0}
    else:
        assert isinstance(element, Line | Switch)
        first = {(element.bus_from, c) for c in element.conductors_from}
    return [n for n in part.nodes if n in first], [n for n in part.nodes if n not in first]


def _ideal_and_series(
    part: Primitive, sending: list[Node], receiving: list[Node]
) -> tuple[list[list[complex]], list[list[complex]]]:
    """A (receiving, sending) and Z (receiving, receiving), in volts and ohms."""
    element = part.element
    if isinstance(element, Line | Switch) and len(sending) == len(receiving) == len(element.conductors_to):
        unit: list[list[complex]] = np.eye(len(sending), dtype=complex).tolist()
        own: list[list[complex]] = (element.r_ohm + 1j * element.x_ohm).tolist()
        return unit, own
    place = {node: k for k, node in enumerate(part.nodes)}
    s, p = [place[n] for n in receiving], [place[n] for n in sending]
    inverse: ComplexArray = np.linalg.pinv(part.y[np.ix_(s, s)], rcond=1e-12).astype(np.complex128)
    return (-inverse @ part.y[np.ix_(s, p)]).tolist(), inverse.tolist()


__all__ = ["wire_network"]
