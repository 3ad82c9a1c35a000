"""Nodal admittance: the wires of a feeder as a sparse matrix between conductors.

A *node* is a pair (bus, conductor); ground (conductor 0) is the reference and never a node. Every element is first a
*primitive*: the admittance matrix between the nodes that it touches, in siemens, with ``i = Y v`` the currents that
flow from the nodes into the element. The nodal matrix is the sum of the primitives. Nothing is neglected: the matrix
is exact for the linear elements of a feeder (lines as pi sections, switches, transformers, shunts, admittances).

Line or closed switch, impedance matrix Z and susceptance matrix B (totals)::

    Y = [ Z^-1 + jB/2     -Z^-1       ]
        [   -Z^-1       Z^-1 + jB/2   ]

Transformer of n phases and W windings (Dugan and Santoso 2003, "An example of 3-phase transformer modeling for
distribution system analysis"; the model of the OpenDSS engine). All impedances are per unit of the rating S of
winding 1, per phase S/n, and on a base of one volt::

    Z_B[k,k] = (r_1 + r_(k+1) + j x_(1,k+1)) n / S                               k = 1 ... W-1
    Z_B[k,l] = (Z_B[k,k] + Z_B[l,l] - (r_(k+1) + r_(l+1) + j x_(k+1,l+1)) n / S) / 2
    Y_1      = B Z_B^-1 B'                B' = [-1 I]  (winding currents add up to zero)
    Y_1[2,2] += (g_0 - j b_0) S / n       no-load loss and magnetising current, on winding 2
    Y_T      = A Y_1 A'                   A[2k-1,k] = 1 / (tap_k V_k),  A[2k,k] = -1 / (tap_k V_k)

``Y_T`` stands between the two ends of each winding of one core. V_k is the rated voltage across the winding: line to
line over sqrt(3) for a wye of 2 or 3 phases, as rated otherwise. A wye winding ends on its neutral, a delta winding
on the next corner in the sense of rotation given by the lead or lag rule. On each winding end there is also a small
inductive shunt, ``ppm 1e-6 / 2 S / (n V_k^2)`` (antifloat), which keeps an ungrounded side from floating.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
from scipy import sparse

from lateral.errors import CaseError, Fault
from lateral.network.feeder import Feeder, Line, MultiTerminal, Shunt, Switch, Transformer
from lateral.network.schema import ComplexArray, Element, FloatArray, IntArray
from lateral.units import Base

#: A conductor of a bus, numbered from 1; ground is not a node.
Node = tuple[str, int]

#: The elements that have a primitive.
Wire = Line | Switch | Transformer | Shunt | MultiTerminal

#: Admittance of a neutral that is grounded solidly through ``r_neutral_ohm = x_neutral_ohm = 0``, S.
SOLID_GROUND_S = 1e6


@dataclass(frozen=True, eq=False)
class NodeIndex:
    """The nodes of a feeder in order: bus by bus, conductors ascending.

    Attributes:
        nodes: the nodes, length n.
        v_base_kv: voltage base of each node, line to ground, kV, shape (n,).
    """

    nodes: tuple[Node, ...]
    v_base_kv: FloatArray

    @classmethod
    def of(cls, feeder: Feeder) -> NodeIndex:
        """The index of a feeder, made once."""
        if feeder not in _INDICES:
            nodes = tuple((bus.name, c) for bus in feeder.buses for c in bus.conductors)
            base = np.array([bus.v_base_kv for bus in feeder.buses for _ in bus.conductors], dtype=float)
            base.setflags(write=False)
            _INDICES[feeder] = cls(nodes, base)
        return _INDICES[feeder]

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def position(self) -> dict[Node, int]:
        """Position of each node."""
        return {node: k for k, node in enumerate(self.nodes)}

    def rows(self, bus: str, conductors: Iterable[int]) -> IntArray:
        """Positions of conductors of one bus; -1 for ground.

        Raises:
            KeyError: the bus has no such conductor.
        """
        at = self.position
        return np.array([at[bus, c] if c > 0 else -1 for c in conductors], dtype=np.int64)


#: one index and one nodal matrix per feeder, for as long as the feeder lives; a feeder is frozen, and so are they
_INDICES: WeakKeyDictionary[Feeder, NodeIndex] = WeakKeyDictionary()
_MATRICES: WeakKeyDictionary[Feeder, sparse.csc_matrix] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Primitive:
    """The admittance matrix of one element.

    Attributes:
        element: the line, switch, transformer, shunt or generic admittance.
        nodes: the nodes it touches, in matrix order, each once; ground is left out.
        y: admittance between the nodes, siemens, shape (n, n); ``i = y v`` flows from the nodes into the element.
    """

    element: Wire
    nodes: tuple[Node, ...]
    y: ComplexArray


class CapacitorLike(Protocol):
    """What `capacitor_admittance` reads; `lateral.devices.Capacitor` is one."""

    @property
    def q_kvar(self) -> float:
        """Reactive power at rated voltage, total."""

    @property
    def v_rated_kv(self) -> float | None:
        """Rated voltage across one port."""

    @property
    def connection(self) -> str:
        """Wye, delta or delta-open."""

    @property
    def ports(self) -> tuple[tuple[int, int], ...]:
        """Conductor pairs."""


# ---------------------------------------------------------------------------------------------- lines and switches


def _stack(matrices: Iterable[FloatArray]) -> FloatArray:
    return np.array(list(matrices), dtype=float)


def _series_stack(elements: Sequence[Line | Switch]) -> ComplexArray:
    """Primitive matrices (m, 2n, 2n) of m lines or switches of n conductors each.

    Raises:
        CaseError: an impedance matrix is singular; every such element is named.
    """
    z = _stack(e.r_ohm for e in elements) + 1j * _stack(e.x_ohm for e in elements)
    m, n, _ = z.shape
    if n == 1:
        bad = np.flatnonzero(z[:, 0, 0] == 0.0)
    else:
        scale = np.abs(z).max(axis=(1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            bad = np.flatnonzero((scale == 0.0) | (np.abs(np.linalg.det(z / scale[:, None, None])) < 1e-300))
    if bad.size:
        raise CaseError([_singular(elements[int(k)]) for k in bad])
    ys = 1.0 / z if n == 1 else np.linalg.inv(z)
    y = np.empty((m, 2 * n, 2 * n), dtype=complex)
    y[:, :n, :n] = ys
    y[:, n:, n:] = ys
    y[:, :n, n:] = -ys
    y[:, n:, :n] = -ys
    with_b = [k for k, e in enumerate(elements) if e.b_us is not None]
    if with_b:
        half = 0.5e-6j * _stack(b for k in with_b if (b := elements[k].b_us) is not None)
        y[with_b, :n, :n] += half
        y[with_b, n:, n:] += half
    return y


def _singular(element: Element) -> Fault:
    return Fault(
        "NET-040 singular impedance",
        element.label,
        "an impedance matrix without inverse",
        "a regular impedance matrix",
        "Give it its impedance, or merge its two buses.",
    )


def line_ends(element: Line | Switch) -> tuple[Node, ...]:
    """The conductors at the first end of a line or switch, then those at the second; ground is conductor 0."""
    a, b = element.bus_from, element.bus_to
    return tuple([(a, c) for c in element.conductors_from] + [(b, c) for c in element.conductors_to])


def series_groups(feeder: Feeder) -> Iterator[list[Line | Switch]]:
    """Lines and closed switches by number of conductors."""
    groups: dict[int, list[Line | Switch]] = {}
    closed: tuple[Line | Switch, ...] = (*feeder.lines, *(s for s in feeder.switches if s.closed))
    for e in closed:
        groups.setdefault(len(e.conductors_from), []).append(e)
    yield from groups.values()


# ---------------------------------------------------------------------------------------------------- transformers


def delta_direction(transformer: Transformer) -> int:
    """Sense in which a delta winding goes from corner to corner: +1 to the next one, -1 to the previous one.

    The rule of OpenDSS: with unlike connections of windings 1 and 2, the high side (the larger line-to-line voltage)
    decides: +1 when it is the wye under ANSI or the delta under Euro (``delta_lead``), -1 when it is the delta under
    ANSI or the wye under Euro.
    """
    first, second = transformer.windings[0], transformer.windings[1]
    if first.connection == second.connection:
        return 1
    high = first if first.v_rated_kv >= second.v_rated_kv else second
    return 1 if (high.connection == "delta") == transformer.delta_lead else -1


def winding_volt(transformer: Transformer, k: int) -> float:
    """Rated voltage across winding ``k`` (from 0), V: line to ground for a wye of 2 or 3 phases."""
    winding = transformer.windings[k]
    kv = winding.v_rated_kv
    if winding.connection == "wye" and transformer.n_phases in (2, 3):
        kv /= np.sqrt(3.0)
    return 1000.0 * kv


def n_terminals(n_phases: int, connection: str) -> int:
    """Terminals of a winding of so many cores: phases and neutral of a wye, corners of a delta (an open one has 3)."""
    return n_phases + 1 if connection == "wye" else {1: 2}.get(n_phases, 3)


def _too_few_terminals(transformer: Transformer, k: int) -> Fault:
    winding = transformer.windings[k - 1]
    wanted = n_terminals(transformer.n_phases, winding.connection)
    return Fault(
        "NET-015 windings",
        transformer.label,
        f"winding {k} terminals = {winding.terminals}, {winding.connection}, {transformer.n_phases} phase(s)",
        f"{wanted} terminals",
        "Correct the terminals of the winding, or n_phases.",
    )


def _slots(transformer: Transformer) -> tuple[tuple[int, ...], list[Node]]:
    """Local number of every winding end, and the local nodes.

    Winding ends are ordered core by core, winding by winding, start then end. Local numbers count the nodes in order
    of the windings' terminals; -1 is ground. An isolated neutral is a local node with a conductor number below 0.

    Raises:
        CaseError: a winding has fewer terminals than its cores need.
    """
    n = transformer.n_phases
    short = [k for k, w in enumerate(transformer.windings, 1) if len(w.terminals) < n_terminals(n, w.connection)]
    if short:
        raise CaseError([_too_few_terminals(transformer, k) for k in short])
    direction = delta_direction(transformer)
    nodes: dict[Node, int] = {}
    local: list[list[int]] = []
    for k, w in enumerate(transformer.windings):
        row = []
        for t in w.terminals:
            if t == 0:
                row.append(-1)
            else:
                node = (w.bus, t) if t > 0 else (w.bus, -1 - k)
                row.append(nodes.setdefault(node, len(nodes)))
        local.append(row)
    ends = []
    for phase in range(n):
        for w, row in zip(transformer.windings, local, strict=True):
            if n == 1 or w.connection == "wye":
                end = row[-1]
            elif n == 2:
                end = row[(phase + direction) % 3]
            else:
                end = row[(phase + direction) % n]
            ends += [row[phase], end]
    return tuple(ends), list(nodes)


def cores(transformer: Transformer) -> tuple[tuple[Node, ...], ...]:
    """The nodes that the windings of each core end on, ground left out; an isolated neutral has a number below 0.

    Raises:
        CaseError: a winding has fewer terminals than its cores need.
    """
    ends, local = _slots(transformer)
    width = 2 * len(transformer.windings)
    parts = [ends[k : k + width] for k in range(0, len(ends), width)]
    return tuple(tuple(dict.fromkeys(local[k] for k in part if k >= 0)) for part in parts)


@dataclass(frozen=True)
class _Shape:
    """What transformers must share to be built in one go."""

    n_phases: int
    n_windings: int
    ends: tuple[int, ...]
    neutrals: tuple[int, ...]  # local node of each winding's neutral; -1 for ground, -2 for a delta
    n_local: int
    internal: tuple[int, ...]


def shape_of(transformer: Transformer) -> tuple[_Shape, tuple[Node, ...]]:
    """What decides the pattern of a transformer's primitive, and its true nodes."""
    ends, local = _slots(transformer)
    at = {node: k for k, node in enumerate(local)}
    neutrals = []
    for k, w in enumerate(transformer.windings):
        last = w.terminals[-1]
        if w.connection == "delta":
            neutrals.append(-2)
        else:
            neutrals.append(-1 if last == 0 else at[w.bus, last if last > 0 else -1 - k])
    internal = tuple(k for k, node in enumerate(local) if node[1] < 0)
    shape = _Shape(transformer.n_phases, len(transformer.windings), ends, tuple(neutrals), len(local), internal)
    return shape, tuple(node for node in local if node[1] > 0)


def transformer_stack(shape: _Shape, members: Sequence[Transformer], *, antifloat: bool, no_load: bool) -> ComplexArray:
    """Primitive matrices of transformers of one shape, over their true nodes, siemens, shape (m, n, n)."""
    m, n, w = len(members), shape.n_phases, shape.n_windings
    s = np.array([t.windings[0].s_rated_kva for t in members]) * 1e3 / n  # VA per core
    r = np.array([[x.r_percent for x in t.windings] for t in members]) * 0.01
    xs = np.array([t.x_percent for t in members]) * 0.01
    z = np.zeros((m, w - 1, w - 1), dtype=complex)
    for k in range(w - 1):
        z[:, k, k] = r[:, 0] + r[:, k + 1] + 1j * xs[:, k]
    pair = w - 1
    for k in range(w - 1):
        for l in range(k + 1, w - 1):
            between = r[:, k + 1] + r[:, l + 1] + 1j * xs[:, pair]
            z[:, k, l] = z[:, l, k] = 0.5 * (z[:, k, k] + z[:, l, l] - between)
            pair += 1
    try:
        inverse = np.linalg.inv(z)
    except np.linalg.LinAlgError:
        bad = [t for t, zt in zip(members, z, strict=True) if np.linalg.matrix_rank(zt) < w - 1]
        raise CaseError([_singular(t) for t in bad]) from None
    b = np.vstack([-np.ones((1, w - 1)), np.eye(w - 1)])
    y_one = (b @ inverse @ b.T) * s[:, None, None]
    if no_load:
        g0 = np.array([t.no_load_loss_percent - 1j * t.magnetizing_percent for t in members]) * 0.01
        y_one[:, 1, 1] += g0 * s

    volt = np.array([[winding_volt(t, k) for k in range(w)] for t in members])
    turns = volt * np.array([[x.tap for x in t.windings] for t in members])
    a = np.zeros((m, 2 * w, w))
    for k in range(w):
        a[:, 2 * k, k] = 1.0 / turns[:, k]
        a[:, 2 * k + 1, k] = -1.0 / turns[:, k]
    y_ends = a @ y_one @ a.transpose(0, 2, 1)
    ppm = np.array([t.antifloat_ppm for t in members]) * 1e-6
    shunt = -0.5j * ppm[:, None] * s[:, None] / volt**2  # per winding end
    if antifloat:
        for k in range(w):
            y_ends[:, 2 * k, 2 * k] += shunt[:, k]
            y_ends[:, 2 * k + 1, 2 * k + 1] += shunt[:, k]

    y = np.zeros((m, shape.n_local, shape.n_local), dtype=complex)
    for core in range(n):
        place = np.zeros((2 * w, shape.n_local))
        for e in range(2 * w):
            at = shape.ends[core * 2 * w + e]
            if at >= 0:
                place[e, at] = 1.0
        y += place.T @ y_ends @ place
    for k, at in enumerate(shape.neutrals):
        if at < 0:
            continue
        r_n = np.array([t.windings[k].r_neutral_ohm for t in members])
        z_n = r_n + 1j * np.array([t.windings[k].x_neutral_ohm for t in members])
        with np.errstate(divide="ignore", invalid="ignore"):
            grounded = np.where(z_n == 0.0, SOLID_GROUND_S, 1.0 / z_n)
        floating = shunt[:, k] if antifloat else np.zeros(m)
        y[:, at, at] += np.where(r_n >= 0.0, grounded, floating)
    return _eliminate(y, shape.internal)


def _eliminate(y: ComplexArray, internal: tuple[int, ...]) -> ComplexArray:
    """Kron reduction of inner nodes that carry no outside current; exact."""
    if not internal:
        return y
    inner = np.array(internal)
    outer = np.array([k for k in range(y.shape[1]) if k not in internal])
    y_oi = y[:, outer[:, None], inner]
    # Two isolated neutrals without antifloat float together: the pseudo-inverse is then the right answer.
    solve = np.linalg.pinv(y[:, inner[:, None], inner]) @ y_oi.transpose(0, 2, 1)
    reduced: ComplexArray = y[:, outer[:, None], outer] - y_oi @ solve
    return reduced


def transformer_groups(
    transformers: Iterable[Transformer], *, antifloat: bool, no_load: bool
) -> Iterator[tuple[list[Transformer], list[tuple[Node, ...]], ComplexArray]]:
    """Transformers of one shape, with their true nodes and primitive matrices (m, n, n); see `primitives`.

    Nodes are in order of the windings' terminals, each once.
    """
    groups: dict[_Shape, tuple[list[Transformer], list[tuple[Node, ...]]]] = {}
    for t in transformers:
        shape, nodes = shape_of(t)
        members, all_nodes = groups.setdefault(shape, ([], []))
        members.append(t)
        all_nodes.append(nodes)
    for shape, (members, all_nodes) in groups.items():
        yield members, all_nodes, transformer_stack(shape, members, antifloat=antifloat, no_load=no_load)


# ------------------------------------------------------------------------------------------------------ primitives


def _merge(ends: tuple[Node, ...], y: ComplexArray) -> tuple[tuple[Node, ...], ComplexArray]:
    """Leave out ground, add up rows and columns of a node that occurs more than once."""
    nodes = tuple(dict.fromkeys(node for node in ends if node[1] > 0))
    if nodes == ends:
        return nodes, y
    at = {node: k for k, node in enumerate(nodes)}
    place = np.zeros((len(ends), len(nodes)))
    for k, node in enumerate(ends):
        if node[1] > 0:
            place[k, at[node]] = 1.0
    return nodes, place.T @ y @ place


def primitives(feeder: Feeder, *, antifloat: bool = True, no_load: bool = True) -> tuple[Primitive, ...]:
    """The primitives of every line, closed switch, transformer, shunt and admittance, in the order of the feeder.

    An open switch has none. Elements of one shape are built together: 10 000 lines take about 0.1 s.

    Args:
        feeder: the wires.
        antifloat: with the small shunts that keep ungrounded windings from floating.
        no_load: with the no-load losses and magnetising currents of transformers.

    Raises:
        CaseError: an impedance matrix is singular.
    """
    made: dict[int, Primitive] = {}
    for members in series_groups(feeder):
        for element, y in zip(members, _series_stack(members), strict=True):
            made[id(element)] = Primitive(element, *_merge(line_ends(element), y))
    for units, all_nodes, stack in transformer_groups(feeder.transformers, antifloat=antifloat, no_load=no_load):
        for unit, nodes, y in zip(units, all_nodes, stack, strict=True):
            made[id(unit)] = Primitive(unit, nodes, y)
    for constant in _constants(feeder):
        made[id(constant)] = _constant_primitive(constant)
    wires = (*feeder.lines, *feeder.switches, *feeder.transformers, *feeder.shunts, *feeder.admittances)
    return tuple(made[id(e)] for e in wires if id(e) in made)


def primitive_of(element: Wire, *, antifloat: bool = True, no_load: bool = True) -> Primitive:
    """The primitive of one element; a switch as if it were closed.

    Args:
        element: a line, switch, transformer, shunt or generic admittance.
        antifloat: with the small shunts that keep ungrounded windings from floating.
        no_load: with the no-load loss and magnetising current of a transformer.

    Raises:
        CaseError: the impedance matrix is singular.
    """
    if isinstance(element, Transformer):
        ((_, nodes, y),) = transformer_groups([element], antifloat=antifloat, no_load=no_load)
        return Primitive(element, nodes[0], y[0])
    if isinstance(element, Shunt | MultiTerminal):
        return _constant_primitive(element)
    return Primitive(element, *_merge(line_ends(element), _series_stack([element])[0]))


def _constants(feeder: Feeder) -> tuple[Shunt | MultiTerminal, ...]:
    return (*feeder.shunts, *feeder.admittances)


def _constant_primitive(element: Shunt | MultiTerminal) -> Primitive:
    y: ComplexArray = (1e-6 * (element.g_us + 1j * element.b_us)).astype(complex)
    ends = element.nodes if isinstance(element, MultiTerminal) else tuple((element.bus, c) for c in element.conductors)
    return Primitive(element, *_merge(ends, y))


def port_matrix(ports: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], FloatArray]:
    """Conductors of some ports (ground left out), and the matrix M with ``v_port = M v``, shape (ports, conductors)."""
    conductors = tuple(dict.fromkeys(c for port in ports for c in port if c > 0))
    at = {c: k for k, c in enumerate(conductors)}
    m = np.zeros((len(ports), len(conductors)))
    for k, (a, b) in enumerate(ports):
        if a > 0:
            m[k, at[a]] += 1.0
        if b > 0:
            m[k, at[b]] -= 1.0
    return conductors, m


def capacitor_admittance(
    capacitor: CapacitorLike, v_base_kv: float, multiplicity: int = 1
) -> tuple[tuple[int, ...], ComplexArray]:
    """A capacitor as an admittance matrix between conductors of its bus.

    ::

        Y = M' diag(jb) M,   b = 1e-3 q / (ports V^2)      S, with q in kvar over all ports and V in kV across a port

    Args:
        capacitor: q, rated voltage, connection and ports.
        v_base_kv: base of its bus, line to ground; used (times sqrt(3) in delta) when it has no rated voltage.
        multiplicity: how many conductors a modelled conductor stands for (3 in a balanced feeder).

    Returns:
        the conductors, and Y in siemens.
    """
    ports = capacitor.ports
    v = capacitor.v_rated_kv or v_base_kv * (1.0 if capacitor.connection == "wye" else np.sqrt(3.0))
    b = 1e-3 * capacitor.q_kvar / (len(ports) * multiplicity * v**2)
    conductors, m = port_matrix(ports)
    y: ComplexArray = (1j * b * (m.T @ m)).astype(complex)
    return conductors, y


# ---------------------------------------------------------------------------------------------------- nodal matrix


@dataclass(frozen=True, eq=False)
class Triplets:
    """A sparse matrix as row, column, value; entries at one place add up.

    Attributes:
        rows: row positions, int64.
        columns: column positions, int64.
        values: admittance, siemens.
    """

    rows: IntArray
    columns: IntArray
    values: ComplexArray

    @classmethod
    def join(cls, parts: Sequence[Triplets]) -> Triplets:
        """Several sets of triplets as one."""
        if not parts:
            none = np.zeros(0, dtype=np.int64)
            return cls(none, none, np.zeros(0, dtype=complex))
        return cls(
            np.concatenate([p.rows for p in parts]),
            np.concatenate([p.columns for p in parts]),
            np.concatenate([p.values for p in parts]),
        )

    def matrix(self, n: int) -> sparse.csc_matrix:
        """The matrix of n rows and columns, csc."""
        return sparse.coo_matrix((self.values, (self.rows, self.columns)), shape=(n, n)).tocsc()

    @classmethod
    def of_blocks(cls, at: IntArray, blocks: ComplexArray) -> Triplets:
        """Square blocks (m, n, n) on positions ``at`` (m, n); -1 (ground) is left out."""
        n = at.shape[1]
        rows = np.repeat(at, n, axis=1).ravel()
        columns = np.tile(at, (1, n)).ravel()
        values = blocks.reshape(-1)
        if at.size and at.min() < 0:
            keep = (rows >= 0) & (columns >= 0)
            return cls(rows[keep], columns[keep], values[keep])
        return cls(rows, columns, values)


def positions(index: NodeIndex, ends: Iterable[Sequence[Node]]) -> IntArray:
    """Positions of as many nodes of each element; -1 for ground, shape (m, n)."""
    at = index.position
    return np.array([[at[node] if node[1] > 0 else -1 for node in row] for row in ends], dtype=np.int64)


def triplets(feeder: Feeder, index: NodeIndex, *, antifloat: bool = True, no_load: bool = True) -> Triplets:
    """Every element of the feeder as triplets of the nodal matrix, in siemens, built shape by shape."""
    parts = []
    for members in series_groups(feeder):
        parts.append(Triplets.of_blocks(positions(index, map(line_ends, members)), _series_stack(members)))
    for _, all_nodes, stack in transformer_groups(feeder.transformers, antifloat=antifloat, no_load=no_load):
        parts.append(Triplets.of_blocks(positions(index, all_nodes), stack))
    for constant in _constants(feeder):
        p = _constant_primitive(constant)
        parts.append(Triplets.of_blocks(positions(index, [p.nodes]), p.y[None]))
    return Triplets.join(parts)


def nodal_matrix(
    feeder: Feeder, index: NodeIndex, *, antifloat: bool = True, no_load: bool = True
) -> sparse.csc_matrix:
    """The nodal admittance matrix: the sum of the primitives, siemens, csc, shape (n, n).

    ``i = Y v`` are the currents that devices put into the nodes. The whole matrix over a feeder's own index is made
    once, so that nobody may write into it.
    """
    whole = antifloat and no_load and index is NodeIndex.of(feeder)
    if whole and feeder in _MATRICES:
        return _MATRICES[feeder]
    y = triplets(feeder, index, antifloat=antifloat, no_load=no_load).matrix(len(index))
    if whole:
        for part in (y.data, y.indices, y.indptr):
            part.setflags(write=False)
        _MATRICES[feeder] = y
    return y


def per_unit(y: sparse.csc_matrix, index: NodeIndex, base: Base) -> sparse.csc_matrix:
    """A nodal matrix in siemens, per unit: ``y_ij V_i V_j / S`` with V line to ground and S per conductor."""
    volt = sparse.diags(index.v_base_kv)
    return (volt @ y @ volt * (1000.0 / base.s_kva)).tocsc()


def nodal_matrix_pu(feeder: Feeder, index: NodeIndex, base: Base) -> sparse.csc_matrix:
    """The nodal admittance matrix per unit; see `nodal_matrix` and `per_unit`."""
    return per_unit(nodal_matrix(feeder, index), index, base)


__all__ = [
    "CapacitorLike",
    "Node",
    "NodeIndex",
    "Primitive",
    "Triplets",
    "Wire",
    "capacitor_admittance",
    "cores",
    "delta_direction",
    "line_ends",
    "n_terminals",
    "nodal_matrix",
    "nodal_matrix_pu",
    "per_unit",
    "port_matrix",
    "positions",
    "primitive_of",
    "primitives",
    "series_groups",
    "shape_of",
    "transformer_groups",
    "transformer_stack",
    "triplets",
    "winding_volt",
]
