"""The feeder as a radial set of branches between nodes: what every branch-flow formulation starts from.

A branch has sending nodes p (towards the source), receiving nodes s, an ideal part A and a series impedance Z::

    W = A V_p          ideal part: identity for a line, turns ratios and connection for a transformer
    V_s = W - Z I      I flows out of the branch into the receiving nodes
    I_p = A' I         what the ideal part takes from the sending nodes (reciprocity)

What a grounded wye takes that circulates in a delta behind it, ``(Y_pp + Y_ps A) V_p``, is an admittance at the sending
nodes. This is exact for every series element. With the series primitive ``[Y_pp Y_ps; Y_sp Y_ss]`` of a transformer

    Z = pinv(Y_ss),   A = -pinv(Y_ss) Y_sp

where the pseudo-inverse leaves out the common mode of an ungrounded side (it carries no current, and its voltage to
ground is that of the antifloat shunts: zero mean). Charging, no-load and magnetising terms and antifloat shunts are
admittances at the nodes (`RadialNetwork.shunt_*`).

A generic admittance (`lateral.network.feeder.MultiTerminal`) takes the same form where it has it, exactly (see
`lateral.network.branch_form`); one that has it not is a fault, NET-041.

Elements between the same buses that share receiving nodes (parallel lines, open-delta regulators with their jumper)
become one branch. Neutral conductors are taken as grounded at every bus in these formulations (their rows are left
out), which is what the squared-voltage variables can express; `RadialNetwork.grounded` names them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from lateral.errors import Fault
from lateral.network.admittance import Node, NodeIndex, Primitive, primitives
from lateral.network.branch_form import BranchForm, branch_form
from lateral.network.feeder import Feeder, Line, MultiTerminal, Shunt, Switch, Transformer
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.units import Base

#: Share of a transformer's admittance below which what its sending side takes beside the branch is rounding.
_NO_REST = 1e-9


@dataclass(frozen=True, eq=False)
class RadialNetwork:
    """Branches in order from the source outwards, flattened over conductors; per unit.

    A *leg* is one receiving conductor of one branch; every energised node that is not a root has exactly one.

    Attributes:
        nodes: the energised nodes kept, in order; positions below refer to it.
        v_base_kv: voltage base per node, shape (n,).
        roots: positions of the source nodes.
        legs: name of each leg, ``kind.name.conductor``, length K.
        branch: number of the branch of each leg, shape (K,).
        branch_names: ``kind.name`` of each branch (merged elements joined by ``+``).
        to_node: receiving node of each leg, shape (K,).
        a_leg, a_node, a_val: the ideal parts as triplets (leg, sending node, complex).
        z_row, z_col, z_val: the series impedances as triplets (leg, leg, complex pu).
        shunt_i, shunt_j, shunt_y: admittances between nodes as triplets (complex pu).
        i_max_pu: current limit of each leg, pu (inf for none).
        s_max_pu: apparent power limit of each branch, total over legs, pu (inf for none); indexed by branch.
        grounded: nodes left out because they are neutrals.
        dead: elements left out because no source reaches them.
        faults: loops and other reasons why the feeder is not radial.
    """

    nodes: tuple[Node, ...]
    v_base_kv: FloatArray
    roots: IntArray
    legs: tuple[str, ...]
    branch: IntArray
    branch_names: tuple[str, ...]
    to_node: IntArray
    a_leg: IntArray
    a_node: IntArray
    a_val: ComplexArray
    z_row: IntArray
    z_col: IntArray
    z_val: ComplexArray
    shunt_i: IntArray
    shunt_j: IntArray
    shunt_y: ComplexArray
    i_max_pu: FloatArray
    s_max_pu: FloatArray
    grounded: tuple[Node, ...] = ()
    dead: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    position: dict[Node, int] = field(default_factory=dict)

    @property
    def n_nodes(self) -> int:
        """Number of nodes kept."""
        return len(self.nodes)

    @property
    def n_legs(self) -> int:
        """Number of legs K."""
        return len(self.legs)


@dataclass(slots=True, eq=False)
class _Group:
    """One or more elements that become one branch."""

    names: list[str]
    parts: list[Primitive]
    nodes: tuple[Node, ...]
    i_max: dict[Node, float]
    s_max: float

    @property
    def generic(self) -> bool:
        """Whether a generic admittance is in it."""
        return any(isinstance(part.element, MultiTerminal) for part in self.parts)


def radial_network(
    feeder: Feeder,
    roots: Iterable[Node],
    base: Base,
    *,
    neutrals: Collection[Node] = (),
    used: Collection[Node] = (),
    index: NodeIndex | None = None,
) -> RadialNetwork:
    """Walk from the roots outwards and collect branches.

    Args:
        feeder: the wires.
        roots: nodes whose voltage a source fixes.
        base: power base.
        neutrals: nodes to take as grounded; one that a single element touches, and no device, floats instead (exact).
        used: nodes that devices are connected to.
        index: the feeder's node index, when at hand.

    Returns:
        the network; loops are in its ``faults``, pieces that no root reaches in ``dead``.
    """
    index = index or NodeIndex.of(feeder)
    grounded = frozenset(neutrals)
    if not grounded:
        plain = _plain_tree(feeder, tuple(dict.fromkeys(roots)), base, index)
        if plain is not None:
            return plain
    series, shunts = _series_and_shunts(feeder)
    series = _without_floating(series, shunts, grounded - frozenset(used))
    root_list = [r for r in dict.fromkeys(roots) if r not in grounded]
    groups = _grouped(series, grounded, _depths(series, {bus for bus, _ in root_list}))
    v_base = dict(zip(index.nodes, index.v_base_kv.tolist(), strict=True))
    by_node: dict[Node, list[int]] = {}
    for g, group in enumerate(groups):
        for node in group.nodes:
            by_node.setdefault(node, []).append(g)

    known: dict[Node, int] = {}
    order: list[Node] = []

    def learn(node: Node) -> None:
        known[node] = len(order)
        order.append(node)

    queue: deque[int] = deque()
    for node in root_list:
        learn(node)
        queue.extend(by_node.get(node, ()))
    done = np.zeros(len(groups), dtype=bool)
    out = _Legs()
    faults: list[Fault] = []
    while queue:
        g = queue.popleft()
        if done[g]:
            continue
        group = groups[g]
        fresh = [node for node in group.nodes if node not in known]
        sending_buses = {node[0] for node in group.nodes if node in known}
        if not fresh or any(node[0] in sending_buses for node in fresh):
            continue  # a loop, or not all of its sending side is energised yet
        done[g] = True
        sending = [node for node in group.nodes if node in known]
        at = [known[node] for node in sending]
        form = None
        if group.generic:
            form = _branch_form(group, sending, fresh, v_base)
            if form is None:
                faults.append(_no_branch(group, "an admittance matrix without an ideal part and a series impedance"))
                continue
            shunts.append(Primitive(group.parts[0].element, (*sending, *fresh), form.rest))
        else:
            rest = _rest(group, sending, fresh)
            if rest is not None:
                shunts.append(Primitive(group.parts[0].element, tuple(sending), rest))
        for node in fresh:
            learn(node)
        _add_branch(out, group, sending, at, fresh, known, v_base, base, form)
        for node in fresh:
            queue.extend(by_node[node])

    dead: list[str] = []
    for g, group in enumerate(groups):
        if done[g]:
            continue
        if group.generic and any(n in known for n in group.nodes) and any(n not in known for n in group.nodes):
            faults.append(_no_branch(group, "conductors of its sending side that nothing else feeds"))
            continue
        if any(node in known for node in group.nodes):
            faults.append(
                Fault(
                    "NET-004 loop",
                    group.names[0],
                    "a branch that closes a loop" if all(n in known for n in group.nodes) else "a second way in",
                    "a radial feeder: one way from the source to every conductor",
                    "Open a switch in the loop, or use a formulation for meshed feeders.",
                )
            )
        else:
            dead.extend(group.names)
    shunt_i, shunt_j, shunt_y = _shunt_triplets(shunts, known, v_base, base)
    s_max = np.array(out.s_max) / base.s_kva
    return RadialNetwork(
        nodes=tuple(order),
        v_base_kv=np.array([v_base[node] for node in order]),
        roots=np.array([known[r] for r in root_list], dtype=np.int64),
        legs=tuple(out.legs),
        branch=np.array(out.branch, dtype=np.int64),
        branch_names=tuple(out.names),
        to_node=np.array(out.to_node, dtype=np.int64),
        a_leg=np.array(out.a_leg, dtype=np.int64),
        a_node=np.array(out.a_node, dtype=np.int64),
        a_val=np.array(out.a_val, dtype=complex),
        z_row=np.array(out.z_row, dtype=np.int64),
        z_col=np.array(out.z_col, dtype=np.int64),
        z_val=np.array(out.z_val, dtype=complex),
        shunt_i=shunt_i,
        shunt_j=shunt_j,
        shunt_y=shunt_y,
        i_max_pu=np.array(out.i_max),
        s_max_pu=s_max,
        grounded=tuple(n for n in index.nodes if n in grounded),
        dead=tuple(dead),
        faults=tuple(faults),
        position=known,
    )


def _plain_tree(feeder: Feeder, roots: tuple[Node, ...], base: Base, index: NodeIndex) -> RadialNetwork | None:
    """The walk for a tree of one-conductor lines without charging, all at once; None for any other feeder.

    The published balanced cases and the generated ones are such trees; here the walk would take half of the build.
    """
    wires: list[Line | Switch] = [*feeder.lines, *(s for s in feeder.switches if s.closed)]
    plain = (
        len(roots) == 1
        and len(wires) == len(index) - 1
        and not (feeder.transformers or feeder.shunts or feeder.admittances)
    )
    if not plain or any(e.r_ohm.size != 1 or e.b_us is not None for e in wires):
        return None
    at = index.position
    tail = np.array([at.get((e.bus_from, e.conductors_from[0]), -1) for e in wires], dtype=np.int64)
    head = np.array([at.get((e.bus_to, e.conductors_to[0]), -1) for e in wires], dtype=np.int64)
    root = at.get(roots[0], -1)
    if root < 0 or tail.min(initial=0) < 0 or head.min(initial=0) < 0:
        return None
    graph = csr_array((np.ones(len(wires)), (tail, head)), shape=(len(index), len(index)))
    order, parent = breadth_first_order(graph, root, directed=False)
    if len(order) < len(index):
        return None
    # a connected graph of n nodes and n - 1 wires is a tree, so that each wire leads to one node
    wire_to = np.empty(len(index), dtype=np.int64)
    wire_to[np.where(parent[head] == tail, head, tail)] = np.arange(len(wires))
    legs = wire_to[order[1:]]
    place = np.empty(len(index), dtype=np.int64)
    place[order] = np.arange(len(index))
    v = index.v_base_kv
    v_p, v_s = v[parent[order[1:]]], v[order[1:]]
    z = np.array([complex(e.r_ohm.item(), e.x_ohm.item()) for e in wires])[legs]
    i_max = np.array([e.i_max_a for e in wires])[legs]
    nodes = tuple(index.nodes[k] for k in order.tolist())
    names = tuple(wires[k].label for k in legs.tolist())
    each = np.arange(len(legs))
    none = np.zeros(0, dtype=np.int64)
    return RadialNetwork(
        nodes=nodes,
        v_base_kv=v[order],
        roots=np.array([0]),
        legs=tuple(f"{name}.{node[1]}" for name, node in zip(names, nodes[1:], strict=True)),
        branch=each,
        branch_names=names,
        to_node=each + 1,
        a_leg=each,
        a_node=place[parent[order[1:]]],
        a_val=(v_p / v_s).astype(complex),
        z_row=each,
        z_col=each,
        z_val=z * base.s_kva / (1000.0 * v_s**2),
        shunt_i=none,
        shunt_j=none,
        shunt_y=np.zeros(0, dtype=complex),
        i_max_pu=i_max * v_s / base.s_kva,
        s_max_pu=np.full(len(legs), np.inf),
        position={node: k for k, node in enumerate(nodes)},
    )


@dataclass(slots=True, eq=False)
class _Legs:
    legs: list[str] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    to_node: list[int] = field(default_factory=list)
    a_leg: list[int] = field(default_factory=list)
    a_node: list[int] = field(default_factory=list)
    a_val: list[complex] = field(default_factory=list)
    z_row: list[int] = field(default_factory=list)
    z_col: list[int] = field(default_factory=list)
    z_val: list[complex] = field(default_factory=list)
    i_max: list[float] = field(default_factory=list)
    s_max: list[float] = field(default_factory=list)


def _add_branch(
    out: _Legs,
    group: _Group,
    sending: list[Node],
    at: list[int],
    fresh: list[Node],
    known: dict[Node, int],
    v_base: Mapping[Node, float],
    base: Base,
    form: BranchForm | None = None,
) -> None:
    """Append the legs of one branch; of one with a generic admittance by its form."""
    # plain numbers: reading them one by one out of arrays takes ten times as long
    ideal, series = (form.a, form.z) if form is not None else _ideal_and_series(group, sending, fresh)
    a, z = ideal.tolist(), series.tolist()
    v_p, v_s = [v_base[n] for n in sending], [v_base[n] for n in fresh]
    number, first = len(out.names), len(out.legs)
    name = "+".join(group.names)
    out.names.append(name)
    out.s_max.append(group.s_max)
    one_bus = len({bus for bus, _ in fresh}) == 1
    for k, node in enumerate(fresh):
        out.legs.append(f"{name}.{node[1]}" if one_bus else f"{name}.{node[0]}.{node[1]}")
        out.branch.append(number)
        out.to_node.append(known[node])
        out.i_max.append(group.i_max.get(node, np.inf) / base.i_a(v_s[k]))
        for m, value in enumerate(a[k]):
            if value != 0.0:
                out.a_leg.append(first + k)
                out.a_node.append(at[m])
                out.a_val.append(value * v_p[m] / v_s[k])
        for m, value in enumerate(z[k]):
            if value != 0.0:
                out.z_row.append(first + k)
                out.z_col.append(first + m)
                # I_m in pu of leg m, voltage in pu of leg k
                out.z_val.append(value * base.s_kva / (1000.0 * v_s[k] * v_s[m]))


@cache
def _identity(n: int) -> ComplexArray:
    """The ideal part of a line of n conductors; not to be written to."""
    out = np.eye(n, dtype=complex)
    out.setflags(write=False)
    return out


def _ideal_and_series(group: _Group, sending: list[Node], fresh: list[Node]) -> tuple[ComplexArray, ComplexArray]:
    """A (fresh, sending) and Z (fresh, fresh) of a group, in volts and ohms."""
    if len(group.parts) == 1 and isinstance(group.parts[0].element, Line | Switch):
        element = group.parts[0].element
        own: ComplexArray = (element.r_ohm + 1j * element.x_ohm).astype(np.complex128)
        ends_from = [(element.bus_from, c) for c in element.conductors_from]
        ends_to = [(element.bus_to, c) for c in element.conductors_to]
        near, far = (ends_from, ends_to) if sending[0][0] == element.bus_from else (ends_to, ends_from)
        if far == fresh and near == sending:
            return _identity(len(fresh)), own
        if len(far) == len(fresh) and len(near) == len(sending):
            rows = [far.index(n) for n in fresh]
            a = np.zeros((len(fresh), len(sending)), dtype=complex)
            for k, r in enumerate(rows):
                a[k, sending.index(near[r])] = 1.0
            return a, own[np.ix_(rows, rows)]
    y = _matrix_of(group, (*sending, *fresh))
    p = len(sending)
    z: ComplexArray = np.linalg.pinv(y[p:, p:], rcond=1e-12).astype(np.complex128)
    return -z @ y[p:, :p], z


def _rest(group: _Group, sending: list[Node], fresh: list[Node]) -> ComplexArray | None:
    """What the sending side takes beside ``A' I``: ``Y_pp + Y_ps A``, siemens; None where there is nothing.

    A grounded wye before a delta takes zero-sequence current that circulates in the delta.
    """
    if not any(isinstance(part.element, Transformer) for part in group.parts):
        return None
    a, _ = _ideal_and_series(group, sending, fresh)
    y, p = _matrix_of(group, (*sending, *fresh)), len(sending)
    rest = y[:p, :p] + y[:p, p:] @ a
    return rest if np.abs(rest).max() > _NO_REST * np.abs(y[:p, :p]).max() else None


def _matrix_of(group: _Group, nodes: tuple[Node, ...]) -> ComplexArray:
    """The admittance of a group over its nodes in some order, siemens."""
    y = np.zeros((len(nodes),) * 2, dtype=complex)
    place = {node: k for k, node in enumerate(nodes)}
    for part in group.parts:
        keep = [k for k, node in enumerate(part.nodes) if node in place]
        rows = [place[part.nodes[k]] for k in keep]
        y[np.ix_(rows, rows)] += part.y[np.ix_(keep, keep)]
    return y


def _branch_form(
    group: _Group, sending: list[Node], fresh: list[Node], v_base: Mapping[Node, float]
) -> BranchForm | None:
    """The branch form of a group with a generic admittance in it; None where one is not reciprocal."""
    if not all(part.element.is_reciprocal for part in group.parts if isinstance(part.element, MultiTerminal)):
        return None
    nodes = (*sending, *fresh)
    return branch_form(_matrix_of(group, nodes), len(sending), np.array([v_base[n] for n in nodes]))


def _no_branch(group: _Group, found: str) -> Fault:
    label = next(part.element.label for part in group.parts if isinstance(part.element, MultiTerminal))
    return Fault(
        "NET-041 no branch",
        label,
        found,
        "a generic admittance that is a branch: a real ideal part and a series impedance",
        "Use a formulation that works on the nodal matrix, or replace it by lines and transformers.",
    )


def _series_and_shunts(feeder: Feeder) -> tuple[list[Primitive], list[Primitive]]:
    """Series parts (no charging, no-load or antifloat terms) and what is left of each element, as shunts."""
    series: list[Primitive] = []
    shunts: list[Primitive] = []
    # with antifloat and no-load terms; only transformers have them
    alone = replace(feeder, lines=(), switches=(), shunts=(), admittances=())
    full = {id(p.element): p.y for p in primitives(alone)} if feeder.transformers else {}
    for part in primitives(feeder, antifloat=False, no_load=False):
        element = part.element
        if isinstance(element, Shunt) or (isinstance(element, MultiTerminal) and len(element.buses) < 2):
            shunts.append(part)
            continue
        series.append(part)
        if isinstance(element, MultiTerminal):
            continue  # what of it is no series part shows when its sending side is known
        if isinstance(element, Transformer):
            shunts.append(Primitive(element, part.nodes, (full[id(element)] - part.y).astype(np.complex128)))
        elif element.b_us is not None and np.any(element.b_us):
            half: ComplexArray = (0.5e-6j * element.b_us).astype(np.complex128)
            for bus, conductors in (
                (element.bus_from, element.conductors_from),
                (element.bus_to, element.conductors_to),
            ):
                shunts.append(Primitive(element, tuple((bus, c) for c in conductors), half))
    return series, shunts


def _without_floating(series: list[Primitive], shunts: list[Primitive], neutrals: frozenset[Node]) -> list[Primitive]:
    """Neutrals that one element alone touches carry no current: they are eliminated from it, which is exact."""
    if not neutrals:
        return series
    touched: dict[Node, int] = {}
    for part in (*series, *(s for s in shunts if isinstance(s.element, Shunt | MultiTerminal))):
        for node in part.nodes:
            touched[node] = touched.get(node, 0) + 1
    out = []
    for part in series:
        free = [k for k, node in enumerate(part.nodes) if node in neutrals and touched[node] == 1]
        if free:
            keep = [k for k in range(len(part.nodes)) if k not in free]
            coupling = part.y[np.ix_(keep, free)]
            y = part.y[np.ix_(keep, keep)] - coupling @ np.linalg.pinv(part.y[np.ix_(free, free)]) @ coupling.T
            part = Primitive(part.element, tuple(part.nodes[k] for k in keep), y)
        out.append(part)
    return out


def _depths(series: list[Primitive], roots: set[str]) -> dict[str, int]:
    """How many elements each bus is away from the sources."""
    near: dict[str, set[str]] = {}
    for part in series:
        buses = {bus for bus, _ in part.nodes}
        for bus in buses:
            near.setdefault(bus, set()).update(buses)
    depth = dict.fromkeys(roots, 0)
    queue = deque(roots)
    while queue:
        bus = queue.popleft()
        for other in near.get(bus, ()):
            if other not in depth:
                depth[other] = depth[bus] + 1
                queue.append(other)
    return depth


def _grouped(series: list[Primitive], grounded: frozenset[Node], depth: Mapping[str, int]) -> list[_Group]:
    """Elements that join the same buses and share nodes on the receiving one, or on several, become one group."""
    by_buses: dict[frozenset[str], list[Primitive]] = {}
    for part in series:
        by_buses.setdefault(frozenset(node[0] for node in part.nodes), []).append(part)
    groups: list[_Group] = []
    for parts in by_buses.values():
        while parts:
            members = [parts.pop(0)]
            nodes = dict.fromkeys(members[0].nodes)
            ends = {depth.get(bus, 0) for bus, _ in nodes}
            receiving = max(ends) if len(ends) > 1 else -1
            grew = bool(parts)
            while grew:
                grew = False
                for other in list(parts):
                    shared = {node[0] for node in other.nodes if node in nodes and node not in grounded}
                    if len(shared) > 1 or any(depth.get(bus, 0) == receiving for bus in shared):
                        members.append(other)
                        parts.remove(other)
                        nodes.update(dict.fromkeys(other.nodes))
                        grew = True
            groups.append(_group(members, tuple(n for n in nodes if n not in grounded)))
    return groups


def _group(members: list[Primitive], nodes: tuple[Node, ...]) -> _Group:
    i_max: dict[Node, float] = {}
    s_max = np.inf
    for part in members:
        e = part.element
        if isinstance(e, Line | Switch):
            for node in part.nodes:
                i_max[node] = i_max.get(node, 0.0) + e.i_max_a
        elif isinstance(e, Transformer):
            s_max = e.s_max_kva if np.isinf(s_max) else s_max + e.s_max_kva
    return _Group([part.element.label for part in members], members, nodes, i_max, float(s_max))


def _shunt_triplets(
    shunts: list[Primitive], known: dict[Node, int], v_base: Mapping[Node, float], base: Base
) -> tuple[IntArray, IntArray, ComplexArray]:
    rows: list[int] = []
    cols: list[int] = []
    vals: list[complex] = []
    for part in shunts:
        at = [(k, known[node], v_base[node]) for k, node in enumerate(part.nodes) if node in known]
        y = part.y.tolist()
        for k, i, v_i in at:
            for m, j, v_j in at:
                if y[k][m] != 0.0:
                    rows.append(i)
                    cols.append(j)
                    vals.append(y[k][m] * v_i * v_j * 1000.0 / base.s_kva)
    return np.array(rows, dtype=np.int64), np.array(cols, dtype=np.int64), np.array(vals, dtype=complex)


__all__ = ["RadialNetwork", "radial_network"]
