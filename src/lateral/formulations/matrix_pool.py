"""The matrices of the matrix family: their variables, and where each stands in the pool.

Variables are those of `lateral.formulations.matrix_ranges`: v~ of the buses (its diagonal are squared voltages), X~ and
L~ of the branches, X~ and rho of groups of delta ports; a branch without a drop has powers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lateral.formulations.matrix_ranges import NEGLIGIBLE_PU, Core, Ranges, Section
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, ProgramBuilder, stack
from lateral.program.ports import Ports


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Matrices ``[v~ X~; X~^H L~]`` of one shape, b of them; ``V = U v~`` at the sending nodes, ``I = T i~``.

    The last of v~ are common voltages of the receiving side where there are any.

    Attributes:
        members: numbers of the sections (of the blocks, for delta ports), shape (b,).
        names: their names.
        m: dimension of v~; what follows are currents.
        places: where their elements are in the pool, shape (b, h^2).
        scale: typical size of each voltage and current, shape (b, h).
        nodes: sending nodes (nodes of the block), shape (b, p).
        to: receiving nodes (ports), shape (b, s).
        u: shape (b, p, m).
        a: ideal parts, shape (b, s, p); of delta ports the incidence M.
        z: series impedances, shape (b, s, s).
        t: bases of the currents, shape (b, s, h - m).
        n: what common voltages add to the receiving side, shape (b, s, m).
    """

    members: IntArray
    names: tuple[str, ...]
    m: int
    places: IntArray
    scale: FloatArray
    nodes: IntArray
    to: IntArray
    u: ComplexArray
    a: ComplexArray
    z: ComplexArray
    t: ComplexArray
    n: ComplexArray

    @property
    def h(self) -> int:
        """Dimension."""
        return int(self.scale.shape[1])

    def voltage(self, rows: ComplexArray) -> ComplexArray:
        """``rows v~`` over v~ and i~, shape (b, r, h)."""
        return np.concatenate([rows, np.zeros((*rows.shape[:2], self.h - self.m))], axis=2)

    def current(self, rows: ComplexArray) -> ComplexArray:
        """``rows i~`` over v~ and i~, shape (b, r, h)."""
        return np.concatenate([np.zeros((*rows.shape[:2], self.m)), rows], axis=2)

    @property
    def sending(self) -> ComplexArray:
        """V_p."""
        return self.voltage(self.u)

    @property
    def ideal(self) -> ComplexArray:
        """W = A V_p."""
        return self.voltage(self.a @ self.u)

    @property
    def received(self) -> ComplexArray:
        """``V_s = A V_p + n c - Z I``."""
        return self.voltage(self.a @ self.u + self.n) - self.drop

    @property
    def flow(self) -> ComplexArray:
        """I."""
        return self.current(self.t)

    @property
    def taken(self) -> ComplexArray:
        """A' I."""
        return self.current(np.swapaxes(self.a, 1, 2) @ self.t)

    @property
    def drop(self) -> ComplexArray:
        """Z I."""
        return self.current(self.z @ self.t)


@dataclass(frozen=True, slots=True, eq=False)
class Matrices:
    """The matrices of a model.

    Attributes:
        pool: every element, shape (elements, T).
        sections: groups of branches that have a matrix, or a voltage to give on.
        deltas: groups of delta ports, by block.
        cores: groups of matrices of buses; ``members`` are numbers of cores.
        tie_section, tie_leg: section of each leg of a branch without a drop, and its place in it.
        tie_p, tie_q: its powers in the pool.
    """

    pool: Affine
    sections: tuple[Group, ...]
    deltas: tuple[Group, ...]
    cores: tuple[Group, ...]
    tie_section: IntArray
    tie_leg: IntArray
    tie_p: IntArray
    tie_q: IntArray


#: kinds of variables: component, quantity, unit
_KINDS = (
    ("bus", "vmag_sq", "pu^2"),
    ("basis", "v_sq", "pu^2"),
    ("pair", "v_re", "pu^2"),
    ("pair", "v_im", "pu^2"),
    ("cross", "x_re", "pu"),
    ("cross", "x_im", "pu"),
    ("current", "i_sq", "pu"),
    ("mutual", "l_re", "pu"),
    ("mutual", "l_im", "pu"),
    ("tie", "p", "kW"),
    ("tie", "q", "kvar"),
)
_NODE, _BASIS, _PAIR, _CROSS, _SQUARE, _MUTUAL, _TIE = 0, 1, 2, 4, 6, 7, 9
#: a variable is ``kind * _STRIDE + number`` until it is known how many there are of each kind
_STRIDE = 1 << 40


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """One matrix before it is stacked with those of its shape; see `Group`."""

    key: tuple[int, ...]
    member: int
    name: str
    m: int
    codes: IntArray
    scale: FloatArray
    nodes: IntArray
    to: IntArray
    u: ComplexArray
    a: ComplexArray
    z: ComplexArray
    t: ComplexArray
    n: ComplexArray


class MatricesMaker:
    """Declares the variables of all matrices, and stacks matrices of one shape."""

    def __init__(self, names: Sequence[str], sections: Sequence[Section], ranges: Ranges) -> None:
        self.names, self.all_sections, self.ranges = names, sections, ranges
        self.labels: list[list[str]] = [[] for _ in _KINDS]
        self.scales: list[list[float]] = [[] for _ in _KINDS]
        self.fixed: list[bool] = []
        self.made: dict[str, list[_Made]] = {kind: [] for kind in ("core", "section", "delta")}
        self.ties: list[tuple[int, int]] = []
        self.core_labels: list[list[str]] = []
        self.core_codes: list[tuple[IntArray, IntArray, IntArray]] = []
        for number, core in enumerate(ranges.cores):
            self._core(number, core)

    def _new(self, kind: int, label: str, scale: float) -> int:
        self.labels[kind].append(label)
        self.scales[kind].append(scale)
        return kind * _STRIDE + len(self.labels[kind]) - 1

    def _both(self, kind: int, label: str, scale: float) -> tuple[int, int]:
        """A complex variable."""
        return self._new(kind, label, scale), self._new(kind + 1, label, scale)

    def _core(self, number: int, core: Core) -> None:
        m = len(core.nodes)
        first = self.names[core.first]
        labels = [self.names[node] if node >= 0 else f"{first}~{k}" for k, node in enumerate(core.nodes.tolist())]
        diagonal = np.array(
            [
                _NODE * _STRIDE + node if node >= 0 else self._new(_BASIS, labels[k], 1.0)
                for k, node in enumerate(core.nodes.tolist())
            ],
            dtype=np.int64,
        )
        re, im = np.zeros((m, m), dtype=np.int64), np.zeros((m, m), dtype=np.int64)
        i, j = np.triu_indices(m, 1)
        for a, b in zip(i.tolist(), j.tolist(), strict=True):
            re[a, b], im[a, b] = self._both(_PAIR, f"{labels[a]}|{labels[b]}", 1.0)
            self.fixed.append(core.real)
        self.core_labels.append(labels)
        self.core_codes.append((diagonal, re, im))
        codes = np.concatenate([diagonal, re[i, j], im[i, j]])
        none = np.zeros((0, 0), dtype=complex)
        u, no_rows = np.eye(m, dtype=complex), np.zeros((0, m), dtype=complex)
        name = labels[0] if m == 1 else f"{labels[0]}..{labels[-1]}"
        made = _Made(
            (m,), number, name, m, codes, np.ones(m), core.nodes, core.nodes[:0], u, no_rows, none, none, no_rows
        )
        self.made["core"].append(made)

    def _with_currents(
        self,
        core: int,
        cols: IntArray,
        names: Sequence[str],
        scale: FloatArray,
        at: tuple[IntArray, ComplexArray],
        n_common: int = 0,
    ) -> IntArray:
        """Elements of ``[v~ X~; X~^H L~]`` with new X~ and L~; the first of the names are common voltages.

        ``at`` are the nodes there and U over them: where each element of v~ is the voltage of one, that is its name (it
        may be shared by several buses, of which a border can be between two).
        """
        m, k = len(cols), len(names)
        h = m + k
        diagonal, core_re, core_im = self.core_codes[core]
        re, im = np.zeros((h, h), dtype=np.int64), np.zeros((h, h), dtype=np.int64)
        inside = np.ix_(np.arange(m), np.arange(m))
        re[inside], im[inside] = core_re[np.ix_(cols, cols)], core_im[np.ix_(cols, cols)]
        nodes, u = at
        used = np.abs(u) > 0.0
        if used.shape[0] == m and bool(np.all(used.sum(axis=0) == 1) and np.all(used.sum(axis=1) == 1)):
            labels = [self.names[nodes[k]] for k in used.argmax(axis=0).tolist()]
        else:
            labels = [self.core_labels[core][c] for c in cols.tolist()]
        squares = [
            self._new(_BASIS if number < n_common else _SQUARE, name, s * s)
            for number, (name, s) in enumerate(zip(names, scale.tolist(), strict=True))
        ]
        for b in range(k):
            for a in range(m):
                re[a, m + b], im[a, m + b] = self._both(_CROSS, f"{labels[a]}|{names[b]}", float(scale[b]))
            for a in range(b):
                size = float(scale[a] * scale[b])
                re[m + a, m + b], im[m + a, m + b] = self._both(_MUTUAL, f"{names[a]}|{names[b]}", size)
        i, j = np.triu_indices(h, 1)
        return np.concatenate([diagonal[cols], np.array(squares, dtype=np.int64), re[i, j], im[i, j]])

    def add_sections(self) -> None:
        """Every branch: a matrix, powers only, or nothing but a voltage to give on."""
        for number, section in enumerate(self.all_sections):
            t = self.ranges.t[number]
            core, cols, u = self.ranges.voltage(section.p)
            size = np.abs(section.z * section.most) @ np.abs(t) if t.size else np.zeros((1, 1))
            once = np.abs(section.a) > 0.0
            plain = bool(np.all(once.sum(axis=0) <= 1) and np.all(once.sum(axis=1) <= 1))
            tie = plain and t.shape[1] > 0 and float(size.max()) < NEGLIGIBLE_PU
            if tie:
                for leg in range(len(section.s)):
                    label = f"{section.name}.{self.names[section.s[leg]]}"
                    self._both(_TIE, label, float(section.scale[leg]))
                    self.ties.append((number, leg))
                t = t[:, :0]
            if not t.shape[1] and not len(self.ranges.own[number]):
                continue
            scale = np.sqrt((np.abs(t) ** 2 * section.scale[:, None] ** 2).sum(axis=0)) if t.size else np.zeros(0)
            natural = t.shape[1] > 0 and np.array_equal(np.abs(t).sum(axis=0), np.ones(t.shape[1]))
            at = [
                self.names[section.s[int(np.abs(t[:, k]).argmax())]] if natural else str(k) for k in range(t.shape[1])
            ]
            common = self.ranges.common[number]
            c = common.shape[1]
            labels = [*(f"{section.name}.common {k}" for k in range(c)), *(f"{section.name}.{name}" for name in at)]
            sizes = np.concatenate([np.ones(c), scale])
            codes = self._with_currents(core, cols, labels, sizes, (section.p, u), c)
            m, (s, p) = len(cols) + c, section.a.shape
            u = np.hstack([u, np.zeros((p, c))])
            n = np.hstack([np.zeros((s, m - c)), common])
            key = (m, t.shape[1], s, p, len(self.ranges.own[number]))
            sizes = np.concatenate([np.ones(len(cols)), sizes])
            made = _Made(
                key, number, section.name, m, codes, sizes, section.p, section.s, u, section.a, section.z, t, n
            )
            self.made["section"].append(made)

    def add_deltas(self, ports: Ports, scale: FloatArray) -> None:
        """Ports across two conductors, block by block."""
        if not len(ports):
            return
        block = self.ranges.block[ports.a]
        for b in np.unique(block).tolist():
            own = np.flatnonzero(block == b)
            nodes = self.ranges.members[b]
            core, cols, u = self.ranges.voltage(nodes)
            m_ports = np.zeros((len(own), len(nodes)), dtype=complex)
            m_ports[np.arange(len(own)), self.ranges.local[ports.a[own]]] = 1.0
            m_ports[np.arange(len(own)), self.ranges.local[ports.b[own]]] = -1.0
            names = [f"{self.names[ports.a[k]]}-{self.names[ports.b[k]]}" for k in own.tolist()]
            codes = self._with_currents(core, cols, names, scale[own], (nodes, u))
            key = (len(cols), len(own), len(nodes))
            sizes = np.concatenate([np.ones(len(cols)), scale[own]])
            none = np.zeros((len(own), len(own)), dtype=complex)
            eye = np.eye(len(own), dtype=complex)
            made = _Made(key, b, names[0], len(cols), codes, sizes, nodes, own, u, m_ports, none, eye, m_ports[:, :0])
            self.made["delta"].append(made)

    def declare(self, builder: ProgramBuilder, v: Affine, total_kva: float) -> Matrices:
        """The variables of everything that was added.

        Args:
            builder: takes them.
            v: squared voltage of every node, shape (nodes, T).
            total_kva: kW per unit of power.
        """
        offset, parts = np.zeros(len(_KINDS), dtype=np.int64), [v]
        size = v.n
        for kind, (component, quantity, unit) in enumerate(_KINDS):
            labels = self.labels[kind]
            if kind == _NODE or not labels:
                continue
            offset[kind] = size
            size += len(labels)
            bound = np.full(len(labels), np.inf)
            if kind == _PAIR + 1:
                # only the sizes are free where the directions of voltages are given
                bound[self.fixed] = 0.0
            parts.append(
                builder.variable(
                    component,
                    quantity,
                    labels,
                    unit=unit,
                    to_unit=total_kva if kind >= _TIE else 1.0,
                    lower=-bound.reshape(-1, 1),
                    upper=bound.reshape(-1, 1),
                    scale=np.array(self.scales[kind]).reshape(-1, 1),
                    start=1.0 if kind == _BASIS else 0.0,
                    limit=False,
                )
            )
        groups = {kind: _grouped(made, offset) for kind, made in self.made.items()}
        ties = np.array(self.ties, dtype=np.int64).reshape(-1, 2)
        each = np.arange(len(ties))
        return Matrices(
            stack(parts),
            groups["section"],
            groups["delta"],
            groups["core"],
            ties[:, 0],
            ties[:, 1],
            offset[_TIE] + each,
            offset[_TIE + 1] + each,
        )


def _grouped(made: Sequence[_Made], offset: IntArray) -> tuple[Group, ...]:
    """Matrices of one shape stacked."""
    keys: dict[tuple[int, ...], list[_Made]] = {}
    for one in made:
        keys.setdefault(one.key, []).append(one)
    out = []
    for same in keys.values():
        kind, number = np.divmod(np.array([one.codes for one in same]), _STRIDE)
        stacked = [
            np.array([getattr(one, name) for one in same]) for name in ("scale", "nodes", "to", "u", "a", "z", "t", "n")
        ]
        members = np.array([one.member for one in same], dtype=np.int64)
        out.append(Group(members, tuple(one.name for one in same), same[0].m, offset[kind] + number, *stacked))
    return tuple(out)


__all__ = ["Group", "Matrices", "MatricesMaker"]
