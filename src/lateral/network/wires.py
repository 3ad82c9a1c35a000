"""The feeder as a set of branches between nodes, radial or meshed: for formulations that work on the nodal matrix.

The branches are those of `lateral.network.branches`, element by element (``W = A V_p``, ``V_s = W - Z I``), but nothing
is walked: the first end of an element is its sending side. Neutral conductors are nodes like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from lateral.network.admittance import (
    Node,
    NodeIndex,
    line_ends,
    nodal_matrix,
    positions,
    primitive_of,
    series_groups,
    transformer_groups,
)
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder, Line, Switch, Transformer
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.units import Base

#: What becomes a branch: without a limit, a generic admittance needs none, the nodal matrix has it.
Branch = Line | Switch | Transformer


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

    place = np.where(fed, np.cumsum(fed) - 1, -1)
    alike = [some.energised(place) for some in _alike(feeder, index)]
    ends = {id(e): row for some in alike for e, row in zip(some.elements, some.receiving.tolist(), strict=True)}
    names: list[str] = []
    legs: list[str] = []
    dead: list[str] = []
    s_max: list[float] = []
    begin: dict[int, tuple[int, int]] = {}  # number of each branch and of its first leg
    for e in _branches(feeder):
        label = e.label
        if id(e) not in ends:
            dead.append(label)
            continue
        begin[id(e)] = len(names), len(legs)
        names.append(label)
        s_max.append(e.s_max_kva / base.s_kva if isinstance(e, Transformer) else np.inf)
        at = [nodes[k] for k in ends[id(e)]]
        one_bus = len({bus for bus, _ in at}) == 1
        legs += [f"{label}.{c}" if one_bus else f"{label}.{bus}.{c}" for bus, c in at]
    flat = [some.flat([begin[id(e)] for e in some.elements], v_base, base) for some in alike]
    _, branch, to_node, i_max = _in_order([f[0] for f in flat], 4)
    a_leg, a_node, a_val = _in_order([f[1] for f in flat], 3)
    z_row, z_col, z_val = _in_order([f[2] for f in flat], 3)
    none = np.zeros(0, dtype=np.int64)
    neutral = set(neutrals)
    return RadialNetwork(
        nodes=nodes,
        v_base_kv=v_base,
        roots=np.array([position[r] for r in dict.fromkeys(roots) if r in position], dtype=np.int64),
        legs=tuple(legs),
        branch=branch.astype(np.int64),
        branch_names=tuple(names),
        to_node=to_node.astype(np.int64),
        a_leg=a_leg.astype(np.int64),
        a_node=a_node.astype(np.int64),
        a_val=a_val.astype(complex),
        z_row=z_row.astype(np.int64),
        z_col=z_col.astype(np.int64),
        z_val=z_val.astype(complex),
        shunt_i=none,
        shunt_j=none,
        shunt_y=np.zeros(0, dtype=complex),
        i_max_pu=i_max.astype(float),
        s_max_pu=np.array(s_max),
        grounded=tuple(node for node in nodes if node in neutral),
        dead=tuple(dead),
        position=position,
    )


def _fed(
    y: sparse.csc_matrix, index: NodeIndex, roots: Iterable[Node], ports: Iterable[tuple[Node, Node]]
) -> NDArray[np.bool_]:
    """Which nodes are joined to a root by wires and devices, shape (n,)."""
    at = index.position
    ends = np.array([(at[a], at[b]) for a, b in ports], dtype=np.int64).reshape(-1, 2)
    through = sparse.csc_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=y.shape)
    _, part = connected_components(abs(y) + through, directed=False)
    fed: NDArray[np.bool_] = np.isin(part, [part[index.position[r]] for r in roots if r in index.position])
    return fed


def _branches(feeder: Feeder) -> Iterator[Branch]:
    """Lines, closed switches and transformers, in the order of the feeder."""
    yield from feeder.lines
    yield from (s for s in feeder.switches if s.closed)
    yield from feeder.transformers


#: columns of a table, the first one is a leg
Table = Sequence[NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class _Alike:
    """Branches of one shape: m of them, each from p sending to k receiving nodes.

    Attributes:
        elements: lines, switches or transformers, length m.
        sending: positions of the nodes of the first end, or of the first winding, shape (m, p).
        receiving: of the others, shape (m, k).
        ideal: A, volts per volt, shape (m, k, p).
        series: Z, ohm, shape (m, k, k).
    """

    elements: Sequence[Branch]
    sending: IntArray
    receiving: IntArray
    ideal: ComplexArray
    series: ComplexArray

    @classmethod
    def of(cls, elements: Sequence[Branch], at: IntArray, p: int, y: ComplexArray) -> _Alike:
        """Of primitives y (m, n, n) over nodes ``at`` (m, n), the first p of which are sending."""
        inverse = np.linalg.pinv(y[:, p:, p:], rcond=1e-12).astype(np.complex128)
        return cls(elements, at[:, :p], at[:, p:], -inverse @ y[:, p:, :p], inverse)

    def energised(self, place: IntArray) -> _Alike:
        """Those between energised nodes, by the place of each node among these; -1 for none."""
        sending, receiving = place[self.sending], place[self.receiving]
        live = np.flatnonzero((sending >= 0).all(axis=1) & (receiving >= 0).all(axis=1))
        elements = [self.elements[k] for k in live.tolist()]
        return _Alike(elements, sending[live], receiving[live], self.ideal[live], self.series[live])

    def flat(self, begin: Sequence[tuple[int, int]], v_base: FloatArray, base: Base) -> tuple[Table, Table, Table]:
        """Leg by leg, per unit: branch, receiving node, current limit; entries of A; entries of Z.

        Args:
            begin: number of each branch and of its first leg.
            v_base: of the energised nodes, kV.
            base: power base.
        """
        m, k = self.receiving.shape
        number, first = np.array(begin, dtype=np.int64).reshape(m, 2).T
        leg = first[:, None] + np.arange(k)
        v_p, v_s = v_base[self.sending], v_base[self.receiving]
        limit = np.array([np.inf if isinstance(e, Transformer) else e.i_max_a for e in self.elements])
        i_max = limit[:, None] / base.i_a(v_s)
        a_val = self.ideal * v_p[:, None, :] / v_s[:, :, None]
        z_val = self.series * base.s_kva / (1000.0 * v_s[:, :, None] * v_s[:, None, :])
        a, z = np.nonzero(self.ideal), np.nonzero(self.series)
        return (
            (leg.ravel(), np.repeat(number, k), self.receiving.ravel(), i_max.ravel()),
            (leg[a[0], a[1]], self.sending[a[0], a[2]], a_val[a]),
            (leg[z[0], z[1]], leg[z[0], z[2]], z_val[z]),
        )


def _in_order(tables: Sequence[Table], n_columns: int) -> Table:
    """Tables one below the other, in the order of their first column."""
    columns = [np.concatenate([np.zeros(0), *(table[c] for table in tables)]) for c in range(n_columns)]
    order = np.argsort(columns[0], kind="stable")
    return [column[order] for column in columns]


def _alike(feeder: Feeder, index: NodeIndex) -> Iterator[_Alike]:
    """The branches by shape."""
    for lines in series_groups(feeder):
        at = positions(index, map(line_ends, lines))
        n = at.shape[1] // 2
        ordered = np.sort(at, axis=1)
        apart = (ordered[:, 0] >= 0) & (ordered[:, 1:] > ordered[:, :-1]).all(axis=1)
        plain = [lines[k] for k in np.flatnonzero(apart).tolist()]
        ideal = np.broadcast_to(np.eye(n, dtype=complex), (len(plain), n, n))
        series = (np.array([e.r_ohm for e in plain]) + 1j * np.array([e.x_ohm for e in plain])).reshape(-1, n, n)
        yield _Alike(plain, at[apart, :n], at[apart, n:], ideal, series)
        for k in np.flatnonzero(~apart).tolist():  # an end on ground, or two on one conductor
            part = primitive_of(lines[k])
            p = len({c for c in lines[k].conductors_from if c > 0})
            yield _Alike.of([lines[k]], positions(index, [part.nodes]), p, part.y[None])
    for units, nodes, y in transformer_groups(feeder.transformers, antifloat=False, no_load=False):
        at = positions(index, nodes)
        # nodes are in order of the windings, so that those of the first one come first
        first = np.array([len({t for t in unit.windings[0].terminals if t > 0}) for unit in units])
        for p in np.unique(first).tolist():
            own = np.flatnonzero(first == p)
            yield _Alike.of([units[k] for k in own.tolist()], at[own], p, y[own])


__all__ = ["wire_network"]
