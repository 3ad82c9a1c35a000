"""Buses in the middle of a line: what leaves is what arrives, so that the branch behind needs no matrix of its own.

Where one branch arrives at a bus, one leaves, and no device is connected, voltage and current follow from those at the
sending side of the branch that arrives, with admittances Y of the wires::

    V_s = A V_p - Z I,   J = I - Y V_s          J = A'I of the branch that leaves
    V_s J^H and J J^H                           are the same from either side: rows ``chain``, linear in the elements

The matrix ``[v_s X; X^H L]`` of the branch that leaves is then a congruence of the one before, and psd with it. Its
elements are variables that follow (`Program.follows`): a solver takes them out, and what it sees of a line is one
matrix, with the voltages of its buses and their limits. In the branch flow as it was published (Gan and Low 2014) the
two branches share no more than v_s and the diagonal of ``V_s J^H``, which is the balance; with the
other rows a bound does not depend on the number of pieces that a line is in, and it is tighter.

What is drawn there, s, draws the current ``iota = conj(s / V_s)``, and that stands in all of the rows::

    V_s (J + iota)^H,   J J^H + J iota^H + iota J^H          from the branch that arrives, to first order

so that its price is of the duals of all of them, with ``V_a conj(iota_b) = s v_ab / v_bb`` and
``J_a conj(iota_b) = s conj((V_s J^H)_ba) / v_bb``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from lateral.formulations.hermitian import LinearMap, elements_between, quadratic
from lateral.formulations.matrix_pool import Group, Matrices
from lateral.formulations.matrix_ranges import Ranges, Section
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Block, ProgramBuilder


def chains_of(sections: Sequence[Section], ranges: Ranges, busy: IntArray) -> dict[int, int]:
    """The section that arrives before each one that begins in the middle of a line, by number.

    Args:
        sections: branches.
        ranges: what can occur there.
        busy: nodes where devices are, or where another area begins.
    """
    n = len(ranges.members)
    taken = np.zeros(n, dtype=bool)
    taken[ranges.block[busy]] = True
    before: list[list[int]] = [[] for _ in range(n)]
    behind: list[list[int]] = [[] for _ in range(n)]
    for k, section in enumerate(sections):
        behind[ranges.block[section.p[0]]].append(k)
        before[ranges.block[section.s[0]]].append(k)
    out = {}
    for b in np.flatnonzero(~taken).tolist():
        if len(before[b]) == len(behind[b]) == 1:
            (one,), (other,) = before[b], behind[b]
            if _follows(sections, ranges, one, other):
                out[other] = one
    return out


def _follows(sections: Sequence[Section], ranges: Ranges, one: int, other: int) -> bool:
    """Whether all voltages and currents between two sections are free, and those of the second one follow."""
    n, b = len(sections[one].s), int(ranges.block[sections[one].s[0]])
    sizes = (ranges.members[b], sections[other].p, sections[other].s, ranges.own[one])
    if any(len(size) != n for size in sizes) or len(ranges.cores[ranges.core[b]].nodes) != n:
        return False
    if ranges.sub[one] is not None or ranges.common[other].shape[1]:
        return False
    if any(ranges.t[k].shape != (n, n) for k in (one, other)):
        return False
    # one receiving conductor of each sending one: a line, or a regulator to ground
    once = np.abs(sections[other].a) > 0.0
    if np.abs(sections[other].a.imag).max() > 0.0:
        return False  # else the real and the imaginary part of an element would follow from one another
    return bool(np.all(once.sum(axis=0) == 1) and np.all(once.sum(axis=1) == 1))


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    """Sections of one group, b of them, each with the one that arrives before it, of one group as well.

    Attributes:
        before, behind: the groups.
        first, then: places of the sections in them, shape (b,).
        order: place of each sending node of the second section among the receiving ones of the first, shape (b, n).
        nodes: these nodes, shape (b, n).
        y: admittances of the wires there, pu, shape (b, n, n).
    """

    before: Group
    behind: Group
    first: IntArray
    then: IntArray
    order: IntArray
    nodes: IntArray
    y: ComplexArray

    @property
    def arriving(self) -> tuple[IntArray, ComplexArray, ComplexArray]:
        """Elements of the first section, and V_s and I over its matrix, rows of shape (b, n, h)."""
        each = np.arange(len(self.first))[:, None]
        v, i = (side[self.first][each, self.order] for side in (self.before.received, self.before.flow))
        return self.before.places[self.first], v, i

    @property
    def leaving(self) -> tuple[IntArray, ComplexArray, ComplexArray]:
        """Elements of the second section, and V_s and ``J + Y V_s`` over its matrix, rows of shape (b, n, h)."""
        v = self.behind.sending[self.then]
        return self.behind.places[self.then], v, self.behind.taken[self.then] + self.y @ v

    @property
    def own(self) -> tuple[IntArray, IntArray]:
        """Which row of the second matrix the voltage of each node is, and which the current that it sends: (b, n)."""
        sides = (side[self.then] for side in (self.behind.sending, self.behind.taken))
        v, j = (np.abs(side).argmax(axis=2) for side in sides)
        return v, j

    @property
    def size(self) -> FloatArray:
        """Typical current of each node, shape (b, n)."""
        return np.take_along_axis(self.before.scale[self.first][:, self.before.m :], self.order, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """Rows of one quantity: entries of ``V_s J^H`` or ``J J^H``, real or imaginary part."""

    quantity: str
    square: bool
    real: bool

    def entries(self, n: int) -> tuple[IntArray, IntArray]:
        """All beside the diagonal, which is in the balance; of ``J J^H``, which is Hermitian, a triangle."""
        if self.square:
            return np.triu_indices(n, 0 if self.real else 1)
        i, j = np.nonzero(~np.eye(n, dtype=bool))
        return i, j

    def part(self, c: ComplexArray) -> FloatArray:
        """The real or the imaginary part."""
        return np.asarray(c.real if self.real else c.imag)


_KINDS = (
    _Kind("x_re", square=False, real=True),
    _Kind("x_im", square=False, real=False),
    _Kind("l_re", square=True, real=True),
    _Kind("l_im", square=True, real=False),
)


class Chains:
    """The rows of all chains of a model, and the prices of the buses in them.

    Args:
        m: matrices of the model.
        chains: see `chains_of`.
        y: admittances of the wires, pu, shape (nodes, nodes).
        names: of the nodes.
    """

    def __init__(self, m: Matrices, chains: Mapping[int, int], y: sparse.csr_matrix, names: Sequence[str]) -> None:
        self.m, self.names = m, names
        self.links = _links(m, chains, y)
        self._blocks: dict[str, Block] = {}

    @property
    def followers(self) -> frozenset[int]:
        """Sections whose matrix is a congruence of the one before."""
        return frozenset(k for link in self.links for k in link.behind.members[link.then].tolist())

    @property
    def followed(self) -> frozenset[int]:
        """Sections whose receiving bus is in the middle of a line."""
        return frozenset(k for link in self.links for k in link.before.members[link.first].tolist())

    def write(self, builder: ProgramBuilder) -> None:
        """Write the rows."""
        for kind in _KINDS if self.links else ():
            rows, names = LinearMap(), list[str]()
            sizes, defined = list[FloatArray](), list[IntArray]()
            for link in self.links:
                i, j = kind.entries(link.nodes.shape[1])
                at = len(names) + np.arange(len(link.nodes) * len(i)).reshape(len(link.nodes), len(i))
                for sign, (places, v, current) in ((1.0, link.arriving), (-1.0, link.leaving)):
                    c = quadratic(current if kind.square else v, current)[:, :, i, j]
                    rows.add(at, places, sign * kind.part(c))
                v_at, j_at = link.own
                first = (j_at if kind.square else v_at)[:, i]
                defined.append(_elements(link, first, j_at[:, j], real=kind.real))
                sizes.append((link.size[:, j] * (link.size[:, i] if kind.square else 1.0)).ravel())
                labels = [[self.names[node] for node in nodes] for nodes in link.nodes.tolist()]
                names += [f"{own[a]}|{own[b]}" for own in labels for a, b in zip(i, j, strict=True)]
            if names:
                left, scale = rows.of(self.m.pool, len(names)), np.concatenate(sizes).reshape(-1, 1)
                block = builder.equal("chain", kind.quantity, names, left, unit="pu", scale=scale)
                builder.follow(block, np.arange(len(names)), self.m.pool.take(np.concatenate(defined)))
                self._blocks[kind.quantity] = block

    def balanced(self, builder: ProgramBuilder, p: Block, q: Block, total_kva: float) -> None:
        """Say what the balances at these buses define, the diagonal of ``V_s J^H`` of the branch that leaves; and name
        the prices of all nodes, which are the duals of the balances elsewhere.

        Args:
            builder: has the rows.
            p, q: the balances, a row of every node.
            total_kva: kW per unit of power.
        """
        if not self.links:
            return
        for block, real in ((p, True), (q, False)):
            for link in self.links:
                own = _elements(link, *link.own, real=real)
                builder.follow(block, link.nodes.ravel(), self.m.pool.take(own))
        cells, t = self.m.pool.col.reshape(self.m.pool.shape), builder.n_steps

        def price(x: FloatArray, y: FloatArray, block: Block, s: complex) -> FloatArray:
            """Of drawing s at each node, shape (nodes, T)."""
            out = y[block.cells].reshape(-1, t).copy()
            duals = {name: y[rows.cells].reshape(-1, t) for name, rows in self._blocks.items()}
            first = dict.fromkeys(duals, 0)
            for link in self.links:
                places, v, current = link.leaving
                matrix = x[cells[places]]
                vv, vj = (np.einsum("beij,bet->bijt", quadratic(v, side), matrix) for side in (v, current))
                for kind in _KINDS:
                    n_entries = len(kind.entries(link.nodes.shape[1])[0])
                    size = len(link.nodes) * n_entries
                    if size:
                        at = first[kind.quantity]
                        own = duals[kind.quantity][at : at + size].reshape(len(link.nodes), n_entries, t)
                        first[kind.quantity] += size
                        out[link.nodes] += _beside(kind, own, vv, vj, s)
            return out

        def of_p(x: FloatArray, y: FloatArray, _nu: FloatArray) -> FloatArray:
            return price(x, y, p, 1.0)

        def of_q(x: FloatArray, y: FloatArray, _nu: FloatArray) -> FloatArray:
            return price(x, y, q, 1.0j)

        builder.derive("bus", "p_balance", p.elements, of_p, unit="kW", to_unit=total_kva, dual=True)
        builder.derive("bus", "q_balance", q.elements, of_q, unit="kvar", to_unit=total_kva, dual=True)


def _links(m: Matrices, chains: Mapping[int, int], y: sparse.csr_matrix) -> list[_Link]:
    """Chains by the groups of their two sections; those of a branch without a matrix are none."""
    at = {int(k): (g, place) for g, group in enumerate(m.sections) for place, k in enumerate(group.members)}
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for behind, before in chains.items():
        if behind in at and before in at:
            (g, one), (h, other) = at[before], at[behind]
            if m.sections[g].h == m.sections[g].m or m.sections[h].h == m.sections[h].m:
                continue  # branches without a drop, which have powers and no currents
            pairs.setdefault((g, h), []).append((one, other))
    out = []
    for (g, h), places in pairs.items():
        first, then = np.array(places, dtype=np.int64).T
        nodes, to = m.sections[h].nodes[then], m.sections[g].to[first]
        order = (nodes[:, :, None] == to[:, None, :]).argmax(axis=2)
        b, n = nodes.shape
        shunts = np.asarray(y[nodes.repeat(n, axis=1).ravel(), np.tile(nodes, n).ravel()]).reshape(b, n, n)
        out.append(_Link(m.sections[g], m.sections[h], first, then, order, nodes, shunts))
    return out


def _elements(link: _Link, i: IntArray, j: IntArray, *, real: bool) -> IntArray:
    """Places of the real or imaginary parts of entries (i, j) of the second matrices, (b, entries) as one row."""
    re, im = elements_between(link.behind.h, i, j)
    return np.take_along_axis(link.behind.places[link.then], re if real else im, axis=1).ravel()


def _beside(kind: _Kind, duals: FloatArray, vv: ComplexArray, vj: ComplexArray, s: complex) -> FloatArray:
    """What drawing s at each node costs by rows of one kind, shape (b, n, T); see the module's text.

    Args:
        kind: which entries.
        duals: of their rows, shape (b, entries, T).
        vv, vj: ``V V^H`` and ``V J^H``, shape (b, n, n, T).
        s: power.
    """
    i, j = kind.entries(vv.shape[1])
    each, own = np.arange(len(i)), np.einsum("biit->bit", vv).real
    # the change of entry (i, j) by what is drawn at each node
    change = np.zeros((len(vv), len(i), vv.shape[1], vv.shape[3]), dtype=complex)
    change[:, each, j] += s * (vj[:, j, i].conj() if kind.square else vv[:, i, j]) / own[:, j]
    if kind.square:
        change[:, each, i] += np.conj(s) * vj[:, i, j] / own[:, i]
    return np.asarray(np.einsum("bet,bent->bnt", duals, kind.part(change)))


__all__ = ["Chains", "chains_of"]
