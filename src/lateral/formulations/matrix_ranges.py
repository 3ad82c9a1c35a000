"""Which voltages and currents can occur at all: what the matrices of the relaxation are over.

An interior-point method needs a point at which every matrix is positive definite. Where physics leaves no such point
(the voltage of a stiff source is one fixed direction; behind an ungrounded winding voltages have zero mean and currents
no common part), the matrix is written over a basis of what can occur, which is exact (facial
reduction, Borwein and Wolkowicz 1981)::

    V = U v~  at the nodes of a bus,        I = T i~  in a branch
    v = U v~v~^H U^H,   X = U X~ T^H,   L = T L~ T^H

U goes from the source outwards (``range [A U_p, Z T]``), T from the ends back (what ports, shunts and branches that
leave can draw). Behind an ungrounded winding (``Z n = 0, n'A = 0``) no common current flows (``n'I = 0``), and the
common voltage is what the admittances to ground say. Where these are antifloat shunts alone it is zero; where there is
charging it is one more coordinate c of the branch, ``V_s = A V_p + n c - Z I``. A branch whose drop ``|Z I|`` is below
`NEGLIGIBLE_PU` has ``V_s = A V_p``: its receiving bus shares the matrix of the sending one, but where areas meet.

Where areas meet a basis depends on nothing but what it spans (`canonical`). So areas, of which each knows a part of the
feeder, come to the bases of the whole once they said what spans cross their borders (`lateral.areas.occurring`):
downwards the voltages, with whatever current in the branches and with those that flow, upwards the currents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, FloatArray, IntArray

#: A voltage drop that is left out, and what counts as no direction of its own, pu.
NEGLIGIBLE_PU = 1e-9
#: A singular value that is zero, as a share of the largest entry.
_SINGULAR = 1e-9
#: A vector is as long as another one from this share on.
_NEXT_TO = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A branch with dense matrices.

    Attributes:
        name: its name.
        legs: its legs in the network; empty for what stands for a source's impedance.
        p, s: sending and receiving nodes.
        a: ideal part, shape (s, p).
        z: series impedance, shape (s, s).
        scale: typical current of each receiving conductor, pu, shape (s,).
        most: largest current, by which a drop is judged as negligible, pu, shape (s,).
    """

    name: str
    legs: IntArray
    p: IntArray
    s: IntArray
    a: ComplexArray
    z: ComplexArray
    scale: FloatArray
    most: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Fed:
    """Nodes that a source feeds: ``V = U v~``.

    Attributes:
        nodes: the nodes.
        u: shape (nodes, 1), or a diagonal of directions, or a basis that `canonical` made.
        real: whether v~ is real: where the directions are given.
        labels: the node whose squared voltage each diagonal element of v~ is, -1 for none.
        could: U with whatever current in the branches before it, which is not less.
        cut: whether another area is there, in the place of a source.
    """

    nodes: IntArray
    u: ComplexArray
    real: bool
    labels: IntArray
    could: ComplexArray
    cut: bool


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """A Hermitian matrix v~.

    Attributes:
        nodes: the node whose squared voltage is the diagonal element, -1 for none, shape (m,).
        real: whether its entries are real: where only the sizes of the voltages are free.
        first: the node that it is named by, the same where the feeder is cut.
    """

    nodes: IntArray
    real: bool
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """What can occur; see the module's text.

    Attributes:
        block: block of each node, shape (n,): nodes whose voltages stand in one matrix.
        local: place of each node in its block.
        members: nodes of each block.
        core: core of each block.
        u: basis of each block, (nodes, dimension of the core).
        cores: the cores.
        t: basis of the currents of each section, (s, k).
        sub: basis of the receiving voltages of each section, (s, m'); None for every direction.
        own: columns of the receiving block's core that are the section's; empty where it shares the core.
        common: n of each section whose receiving side has a common voltage of its own, (s, 0 or 1...).
        could: basis of each block with whatever current in the branches.
        drawn: what is drawn at the nodes of each source, one current a column, (nodes, ...).
        behind: whether each block is behind an ungrounded winding, shape (blocks,).
    """

    block: IntArray
    local: IntArray
    members: tuple[IntArray, ...]
    core: IntArray
    u: tuple[ComplexArray, ...]
    cores: tuple[Core, ...]
    t: tuple[ComplexArray, ...]
    sub: tuple[ComplexArray | None, ...]
    own: tuple[IntArray, ...]
    common: tuple[ComplexArray, ...]
    could: tuple[ComplexArray, ...]
    drawn: tuple[ComplexArray, ...]
    behind: np.ndarray

    def voltage(self, nodes: IntArray) -> tuple[int, IntArray, ComplexArray]:
        """Core of some nodes of one block, the columns that matter there, and ``V = U v~`` over them."""
        b = int(self.block[nodes[0]])
        rows = self.u[b][self.local[nodes]]
        cols = np.flatnonzero(np.abs(rows).max(axis=0) > 0.0)
        return int(self.core[b]), cols, rows[:, cols]


def sections_of(net: RadialNetwork, scale: FloatArray, most: FloatArray) -> list[Section]:
    """The branches of a network, in its order (from the source outwards); typical and largest current by leg, pu."""
    first = np.searchsorted(net.branch, np.arange(len(net.branch_names) + 1))
    a_order, z_order = np.argsort(net.a_leg, kind="stable"), np.argsort(net.z_row, kind="stable")
    a_first = np.searchsorted(net.a_leg[a_order], first)
    z_first = np.searchsorted(net.z_row[z_order], first)
    out = []
    for b, name in enumerate(net.branch_names):
        legs = np.arange(first[b], first[b + 1])
        e, f = a_order[a_first[b] : a_first[b + 1]], z_order[z_first[b] : z_first[b + 1]]
        p, column = np.unique(net.a_node[e], return_inverse=True)
        a = np.zeros((len(legs), len(p)), dtype=complex)
        z = np.zeros((len(legs), len(legs)), dtype=complex)
        a[net.a_leg[e] - legs[0], column] = net.a_val[e]
        z[net.z_row[f] - legs[0], net.z_col[f] - legs[0]] = net.z_val[f]
        out.append(Section(name, legs, p, net.to_node[legs], a, z, scale[legs], most[legs]))
    return out


def blocks_of(bus: IntArray, sections: Sequence[Section]) -> IntArray:
    """Number of the block of each node: of its bus, joined with the others that a branch sends from or receives at."""
    n, n_buses = len(bus), int(bus.max()) + 1
    ties = [(bus, np.arange(n) + n_buses)]
    for nodes in (side for section in sections for side in (section.p, section.s)):
        ties.append((bus[nodes[:1]].repeat(len(nodes)), bus[nodes]))
    ends = [np.concatenate([tie[k] for tie in ties]) for k in (0, 1)]
    graph = sparse.coo_matrix((np.ones(len(ends[0])), ends), shape=(n_buses + n,) * 2)
    _, number = connected_components(graph, directed=False)
    _, block = np.unique(number[n_buses:], return_inverse=True)
    return np.asarray(block, dtype=np.int64)


def merged(sections: Sequence[Section], block: IntArray, roots: IntArray, conductor: IntArray) -> list[Section]:
    """Branches between the same two blocks as one, in order from the sources: single-phase regulators of one bank.

    One by one they would lose the products of voltages of different conductors, and with them all angles. Receiving
    nodes are in the order of their conductors, whatever that of the wires is: so they are where an area begins, too.

    Args:
        sections: branches.
        block: block of each node, shape (n,).
        roots: nodes that sources feed.
        conductor: conductor of each node of the network.
    """
    groups: dict[tuple[int, int], list[Section]] = {}
    for section in sections:
        groups.setdefault((int(block[section.p[0]]), int(block[section.s[0]])), []).append(section)
    waiting = [_sorted(_joined(same), conductor) for same in groups.values()]
    known = np.zeros(len(block), dtype=bool)
    known[roots] = True
    out: list[Section] = []
    while waiting:
        later = []
        for section in waiting:
            if known[section.p].all():
                known[section.s] = True
                out.append(section)
            else:
                later.append(section)
        if len(later) == len(waiting):
            message = "branches that no source reaches"
            raise ValueError(message)
        waiting = later
    return out


def _sorted(section: Section, conductor: IntArray) -> Section:
    order = np.argsort(conductor[section.s], kind="stable")
    if np.array_equal(order, np.arange(len(order))):
        return section
    legs = section.legs[order] if len(section.legs) else section.legs
    z = section.z[np.ix_(order, order)]
    scale, most = section.scale[order], section.most[order]
    return Section(section.name, legs, section.p, section.s[order], section.a[order], z, scale, most)


def _joined(same: Sequence[Section]) -> Section:
    if len(same) == 1:
        return same[0]
    p = np.unique(np.concatenate([section.p for section in same]))
    a = np.vstack([section.a @ (section.p[:, None] == p[None, :]) for section in same])
    z = np.zeros((len(a), len(a)), dtype=complex)
    at = 0
    for section in same:
        inside = slice(at, at + len(section.s))
        z[inside, inside] = section.z
        at += len(section.s)
    legs, s, scale, most = (
        np.concatenate([getattr(section, name) for section in same]) for name in ("legs", "s", "scale", "most")
    )
    return Section("+".join(section.name for section in same), legs, p, s, a, z, scale, most)


def ranges_of(
    block: IntArray,
    sections: Sequence[Section],
    fed: Sequence[Fed],
    drawn: sparse.csc_matrix,
    shunts: sparse.csr_matrix,
    apart: IntArray,
) -> Ranges:
    """The ranges of a feeder.

    Args:
        block: block of each node, shape (n,).
        sections: branches, from the sources outwards.
        fed: nodes whose voltage is given.
        drawn: currents that ports can draw, one column each, shape (n, ports).
        shunts: admittances between nodes, pu, shape (n, n).
        apart: nodes where areas meet, whose blocks have matrices of their own.
    """
    n = len(block)
    order = np.argsort(block, kind="stable")
    starts = np.searchsorted(block[order], np.arange(block.max() + 2))
    members = tuple(order[starts[b] : starts[b + 1]] for b in range(block.max() + 1))
    local = np.empty(n, dtype=np.int64)
    for nodes in members:
        local[nodes] = np.arange(len(nodes))
    alone = np.zeros(len(members), dtype=bool)
    alone[block[apart]] = True
    work = _Work(block, local, members, sections, fed, alone, len(apart) > 0 or any(f.cut for f in fed))
    t = [np.eye(len(section.s), dtype=complex) for section in sections]
    while True:
        work.outwards(t, [f.could for f in fed])
        could = [work.basis_of(b) for b in range(len(members))]
        t = work.back(drawn, shunts)
        if not work.find_common():
            break
        t = [np.eye(len(section.s), dtype=complex) for section in sections]
    work.outwards(t, [f.u for f in fed])
    return work.done(t, could)


@dataclass(eq=False)
class _Work:
    block: IntArray
    local: IntArray
    members: tuple[IntArray, ...]
    sections: Sequence[Section]
    fed: Sequence[Fed]
    alone: np.ndarray
    cut: bool

    def __post_init__(self) -> None:
        self.null = [_common_mode(section) for section in self.sections]
        self.common = [null[:, :0] for null in self.null]

    def find_common(self) -> bool:
        """Mark the sections whose receiving side draws a common current; returns whether there are new ones."""
        new = False
        for k, (null, needs) in enumerate(zip(self.null, self.needs, strict=True)):
            if (
                null.shape[1]
                and not self.common[k].shape[1]
                and np.abs(null.T @ needs).max(initial=0.0) > NEGLIGIBLE_PU
            ):
                self.common[k] = null
                new = True
        return new

    def outwards(self, t: Sequence[ComplexArray], given: Sequence[ComplexArray]) -> None:
        """Bases of the voltages, with currents in the range of t, from those of the sources."""
        #: core, rows by node, and size of the core, by block
        self.core = np.full(len(self.members), -1)
        self.cores: list[list[IntArray]] = []
        self.real: list[bool] = []
        self.first: list[int] = []
        rows: list[dict[int, tuple[IntArray, ComplexArray]]] = [{} for _ in self.members]
        self.sub: list[ComplexArray | None] = []
        self.own: list[IntArray] = []

        def place(b: int, nodes: IntArray, basis: ComplexArray, labels: IntArray, *, real: bool) -> IntArray:
            """Put a basis of its own behind what the block has; returns its columns."""
            if self.core[b] < 0:
                self.core[b] = len(self.cores)
                self.cores.append([])
                self.real.append(real)
                self.first.append(int(nodes[0]))
            own = self.cores[self.core[b]]
            self.real[self.core[b]] &= real
            cols = sum(len(part) for part in own) + np.arange(basis.shape[1])
            own.append(labels)
            for k, node in enumerate(nodes.tolist()):
                rows[b][node] = (cols, basis[k])
            return cols

        for f, u in zip(self.fed, given, strict=True):
            labels = f.labels if u is f.u else np.full(u.shape[1], -1)
            place(int(self.block[f.nodes[0]]), f.nodes, u, labels, real=f.real)
        for section, basis, common in zip(self.sections, t, self.common, strict=True):
            pb, sb = int(self.block[section.p[0]]), int(self.block[section.s[0]])
            size = max(int(cols.max()) for cols, _ in (rows[pb][k] for k in section.p.tolist())) + 1
            u = np.zeros((len(section.p), size), dtype=complex)
            for k, node in enumerate(section.p.tolist()):
                cols, values = rows[pb][node]
                u[k, cols] = values
            ideal = section.a @ u
            short = float(np.abs((section.z * section.most) @ basis).max(initial=0.0)) < NEGLIGIBLE_PU
            # by one size, or it would span something else
            drop = section.z @ basis * section.most.max()
            if short and len(section.s) == len(self.members[sb]) and not self.alone[sb]:
                self.core[sb] = self.core[pb]
                for k, node in enumerate(section.s.tolist()):
                    rows[sb][node] = (np.arange(size), ideal[k])
                self.sub.append(None)
                self.own.append(np.zeros(0, dtype=np.int64))
                continue
            reach = _range(np.hstack([ideal, common] if short else [ideal, common, drop]))
            reach = canonical(reach) if reach is not None and self.cut else reach
            sub = np.eye(len(section.s), dtype=complex) if reach is None else reach
            labels = section.s if reach is None else np.full(sub.shape[1], -1)
            self.sub.append(reach)
            self.own.append(place(sb, section.s, sub, labels, real=False))
        self.rows = rows

    def basis_of(self, b: int) -> ComplexArray:
        """U of a block over its core."""
        size = sum(len(part) for part in self.cores[self.core[b]])
        u = np.zeros((len(self.members[b]), size), dtype=complex)
        for node, (cols, values) in self.rows[b].items():
            u[self.local[node], cols] = values
        return u

    def back(self, drawn: sparse.csc_matrix, shunts: sparse.csr_matrix) -> list[ComplexArray]:
        """Bases of the currents."""
        needs: list[list[ComplexArray]] = []
        by_row = drawn.tocsr()
        for b, nodes in enumerate(self.members):
            parts = []
            ports = by_row[nodes]
            used = np.unique(ports.indices)
            if len(used):
                parts.append(ports[:, used].toarray().astype(complex))
            y = shunts[nodes]
            if y.nnz:
                inside = y[:, nodes].toarray() @ self.basis_of(b)
                reach = _range(inside / np.abs(inside).max(initial=1e-300))
                parts.append(np.eye(len(nodes), dtype=complex) if reach is None else reach)
            needs.append(parts)
        out: list[ComplexArray] = [np.zeros((0, 0), dtype=complex)] * len(self.sections)
        #: what is drawn behind each section, before what cannot flow is left out
        self.needs = list(out)
        for k in range(len(self.sections) - 1, -1, -1):
            section = self.sections[k]
            at = self.local[section.s]
            parts = [part[at] for part in needs[int(self.block[section.s[0]])]]
            whole = np.hstack(parts) if parts else np.zeros((len(at), 0), dtype=complex)
            self.needs[k], unused = _current_basis(whole)
            flows = _without(self.needs[k], self.null[k])
            # a conductor that feeds nothing has a current all the same: what one more kW costs there is a dual
            out[k] = _without(np.hstack([flows, unused]), self.null[k])
            if out[k].shape[1] == len(at):
                out[k] = np.eye(len(at), dtype=complex)
            elif self.cut:
                out[k] = canonical(out[k])
            pb = int(self.block[section.p[0]])
            taken = np.zeros((len(self.members[pb]), flows.shape[1]), dtype=complex)
            taken[self.local[section.p]] = section.a.T @ flows
            needs[pb].append(taken)
        none = [np.zeros((len(f.nodes), 0), dtype=complex) for f in self.fed]
        self.drawn = [
            np.hstack([empty, *(part[self.local[f.nodes]] for part in needs[int(self.block[f.nodes[0]])])])
            for f, empty in zip(self.fed, none, strict=True)
        ]
        return out

    def done(self, t: Sequence[ComplexArray], could: Sequence[ComplexArray]) -> Ranges:
        """Everything, frozen."""
        # nodes that nothing reaches keep no row: a radial network has none
        known = zip(self.cores, self.real, self.first, strict=True)
        behind = np.zeros(len(self.members), dtype=bool)
        for section, null in zip(self.sections, self.null, strict=True):
            behind[self.block[section.s[0]]] |= behind[self.block[section.p[0]]] or null.shape[1] > 0
        cores = tuple(Core(np.concatenate(parts), real, first) for parts, real, first in known)
        return Ranges(
            self.block,
            self.local,
            self.members,
            self.core,
            tuple(self.basis_of(b) for b in range(len(self.members))),
            cores,
            tuple(t),
            tuple(self.sub),
            tuple(self.own),
            tuple(self.common),
            tuple(could),
            tuple(self.drawn),
            behind,
        )


def _common_mode(section: Section) -> ComplexArray:
    """n with ``Z n = 0`` and ``n'A = 0``: the common mode of an ungrounded side, orthonormal, (s, 0 or more)."""
    size = float(np.abs(section.z).max(initial=0.0))
    if size == 0.0:
        return np.zeros((len(section.s), 0), dtype=complex)
    tall = np.vstack([section.z / size, section.a.T / max(float(np.abs(section.a).max(initial=0.0)), 1e-12)])
    _, values, vectors = np.linalg.svd(tall)
    return np.asarray(vectors[values < _SINGULAR].conj().T, dtype=complex)


def _without(basis: ComplexArray, null: ComplexArray) -> ComplexArray:
    """What of a range has ``n'I = 0``."""
    if not (null.shape[1] and basis.shape[1]):
        return basis
    _, values, vectors = np.linalg.svd(null.T @ basis)
    rank = int((values > NEGLIGIBLE_PU).sum())
    return basis if rank == 0 else np.asarray(basis @ vectors[rank:].conj().T, dtype=complex)


def _range(matrix: ComplexArray) -> ComplexArray | None:
    """An orthonormal basis of the range; None when it is everything."""
    u, size, _ = np.linalg.svd(matrix, full_matrices=False)
    rank = int((size > NEGLIGIBLE_PU).sum())
    return None if rank == len(matrix) else np.asarray(u[:, :rank], dtype=complex)


def canonical(orthonormal: ComplexArray) -> ComplexArray:
    """An orthonormal basis of the same span that depends on the span alone, unit vectors where that is one.

    Unit vectors are projected onto the span one after the other (Gram and Schmidt), each time the first one of which
    next to the most is left.
    """
    left = orthonormal @ orthonormal.conj().T
    out = np.zeros_like(orthonormal)
    for k in range(orthonormal.shape[1]):
        size = np.linalg.norm(left, axis=0)
        one = left[:, int(np.argmax(size > _NEXT_TO * size.max()))]
        out[:, k] = one / np.linalg.norm(one)
        left = left - np.outer(out[:, k], out[:, k].conj() @ left)
    return out


def projector(columns: ComplexArray) -> ComplexArray:
    """The projector onto what some columns, some of which may be zero, span."""
    size = np.linalg.norm(columns, axis=0)
    u, values, _ = np.linalg.svd(columns[:, size > NEGLIGIBLE_PU] / size[size > NEGLIGIBLE_PU], full_matrices=False)
    u = u[:, values > NEGLIGIBLE_PU]
    return np.asarray(u @ u.conj().T, dtype=complex)


def spanned(projector: ComplexArray) -> ComplexArray:
    """The basis of what a projector projects onto; see `canonical`."""
    values, vectors = np.linalg.eigh(projector)
    return canonical(np.asarray(vectors[:, values > 0.5], dtype=complex))


def _current_basis(whole: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
    """A basis of the currents that can be drawn, unit vectors where that is one; and of conductors that draw none."""
    n = len(whole)
    size = np.linalg.norm(whole, axis=0)
    whole = whole[:, size > 0.0] / size[size > 0.0]
    used = np.flatnonzero(np.abs(whole).max(axis=1, initial=0.0) > NEGLIGIBLE_PU)
    reach = _range(whole[used]) if len(used) else np.zeros((0, 0))
    units, rest = np.eye(n, dtype=complex)[:, used], np.delete(np.eye(n, dtype=complex), used, axis=1)
    return units if reach is None else np.asarray(units @ reach, dtype=complex), rest


__all__ = [
    "NEGLIGIBLE_PU",
    "Core",
    "Fed",
    "Ranges",
    "Section",
    "blocks_of",
    "canonical",
    "merged",
    "projector",
    "ranges_of",
    "sections_of",
    "spanned",
]
