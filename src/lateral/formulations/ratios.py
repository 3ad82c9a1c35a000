"""Decided taps in the rectangular family: windings behind ideal ratios, at internal nodes of the nodal matrix.

See `lateral.network.tapped` for the equations. Per core and step, with the tap a, two complex bilinear rows::

    U = a E            across the winding at its terminals, and at rated turns (voltage of the internal node)
    I = a J            current from the ideal ratio into the internal node, and into the winding at its terminals
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from lateral.formulations.phasors import Complex, Through
from lateral.network.admittance import Node, Triplets
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.network.tapped import declines, series_flow, series_power, tapped_primitive
from lateral.program import Affine, ProgramBuilder, stack
from lateral.program.ports import Ports
from lateral.units import Base


@dataclass(frozen=True, eq=False)
class Tap:
    """A tap that is a decision.

    Attributes:
        transformer: name of the transformer.
        winding: the tapped winding, counted from 0.
        tap: the tap, shape (1, T).
    """

    transformer: str
    winding: int
    tap: Affine


def declines_ratio(feeder: Feeder, net: RadialNetwork, transformer: str, winding: int) -> str:
    """Why the tap of a winding (from 1) cannot be decided; empty when it can."""
    t = next((t for t in feeder.transformers if t.name == transformer), None)
    if t is None or not 1 <= winding <= len(t.windings):
        return "there is no such winding"
    if t.label not in net.branch_names:
        return "no source reaches the transformer"
    return declines(t)


@dataclass(frozen=True, eq=False)
class Ratios:
    """The decided taps of a model: internal nodes, their part of the nodal matrix, and the rows that couple them.

    Attributes:
        feeder: the wires.
        net: true nodes and branches.
        base: power base.
        taps: the taps.
        names: name of each internal node, which also names its rows.
        tap_of: tap of each internal node, as a position in ``taps``, shape (m,).
        ports: the terminals of the winding at each internal node, the first one no ground.
        sign: +1, or -1 where the winding starts at the second node of its port, shape (m,).
        a0: tap at the operating point, shape (m,).
        extra: the constant parts of the transformers over true and internal nodes, per unit, shape (n + m, n + m).
        through: the power through these transformers, over true and internal nodes.
    """

    feeder: Feeder
    net: RadialNetwork
    base: Base
    taps: tuple[Tap, ...]
    names: tuple[str, ...]
    tap_of: IntArray
    ports: Ports
    sign: FloatArray
    a0: FloatArray
    extra: sparse.csr_matrix
    through: Through

    @classmethod
    def of(cls, feeder: Feeder, net: RadialNetwork, base: Base, taps: Sequence[Tap]) -> Ratios:
        """The ratios of some taps; without any they change nothing."""
        own = {t.name: t for t in feeder.transformers}
        n = len(net.nodes)
        names: list[str] = []
        tap_of, a, b, sign, a0 = [], [], [], [], []
        parts: list[Triplets] = []
        flows: list[tuple[int, IntArray, ComplexArray, ComplexArray]] = []
        v_base = [net.v_base_kv]
        for name in dict.fromkeys(tap.transformer for tap in taps):
            t = own[name]
            which = {tap.winding: k for k, tap in enumerate(taps) if tap.transformer == name}
            part = tapped_primitive(t, sorted(which))
            true = [net.position[node] for node in part.nodes]
            inner = n + len(names) + np.arange(len(part.windings))
            at = np.concatenate([true, inner]).astype(np.int64)
            parts.append(Triplets.of_blocks(at[None], part.y[None]))
            flows.append((net.branch_names.index(t.label), at, *series_flow(t, sorted(which))))
            for k, (winding, (start, end)) in enumerate(zip(part.windings, part.ends, strict=True)):
                first, second = (true[e] if e >= 0 else -1 for e in (start, end))
                turned = first < 0
                a.append(second if turned else first)
                b.append(first if turned else second)
                sign.append(-1.0 if turned else 1.0)
                tap_of.append(which[winding])
                a0.append(t.windings[winding].tap)
                core = 1 + sum(w == winding for w in part.windings[:k])
                names.append(f"{name}.{winding + 1}.{core}")
                v_base.append(net.v_base_kv[a[-1:]])
        size = n + len(names)
        kv = np.concatenate(v_base)
        volt = sparse.diags(kv)
        extra = (volt @ Triplets.join(parts).matrix(size) @ volt * (1000.0 / base.s_kva)).tocsr()
        ports = Ports(np.array(a, dtype=np.int64), np.array(b, dtype=np.int64))
        where = np.array(tap_of, dtype=np.int64)
        through = _through(flows, kv, base)
        return cls(
            feeder, net, base, tuple(taps), tuple(names), where, ports, np.array(sign), np.array(a0), extra, through
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> set[str]:
        """Labels of the transformers with a decided tap."""
        return {f"transformer.{tap.transformer}" for tap in self.taps}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The internal nodes, as (bus, conductor) that no feeder has."""
        return tuple((f"ratio {name}", 1) for name in self.names)

    def without(self, feeder: Feeder) -> Feeder:
        """The feeder less the transformers whose constant part is in ``extra``."""
        if not self.taps:
            return feeder
        labels = self.labels
        return replace(feeder, transformers=tuple(t for t in feeder.transformers if t.label not in labels))

    def widened(self, wires: sparse.csr_matrix) -> sparse.csr_matrix:
        """A matrix over the true nodes, with the internal nodes and the transformers' constant parts."""
        if not self.taps:
            return wires
        coo = wires.tocoo()
        return sparse.coo_matrix((coo.data, (coo.row, coo.col)), shape=self.extra.shape).tocsr() + self.extra

    def start(self, v0: ComplexArray) -> ComplexArray:
        """Voltages of true nodes, then those of the internal ones at the taps of the operating point."""
        return self._with_inner(v0, self.a0.reshape(-1, 1)) if self.taps else v0

    def widened_voltages(self, v: ComplexArray, x: FloatArray, theta: FloatArray) -> ComplexArray:
        """Voltages (n, T) of true nodes, then those of the internal ones at the taps of variables and data."""
        return self._with_inner(v, self.tap_values(x, theta)) if self.taps else v

    def _with_inner(self, v: ComplexArray, a: FloatArray) -> ComplexArray:
        padded = np.vstack([v, np.zeros((1, v.shape[1]))])
        across = padded[self.ports.a] - padded[self.ports.b]
        return np.vstack([v, across * self.sign.reshape(-1, 1) / a])

    def tap_values(self, x: FloatArray, theta: FloatArray) -> FloatArray:
        """The tap at each internal node, shape (m, T)."""
        return np.vstack([tap.tap.value(x, theta) for tap in self.taps])[self.tap_of]

    def couple(
        self, builder: ProgramBuilder, u: Complex, e: Complex, into: ComplexArray, scale: float
    ) -> tuple[Complex, Complex]:
        """Write the rows; J at the terminals (leaving the first node of the port) and I into the internal nodes.

        Args:
            builder: takes variables and rows.
            u: voltages across the ports.
            e: voltages of the internal nodes.
            into: currents into the internal nodes at the operating point, shape (m, 1 or T).
            scale: typical current.
        """
        shape = (len(self), builder.n_steps)
        a = stack([tap.tap for tap in self.taps]).take(self.tap_of)
        sign = self.sign.reshape(-1, 1)
        i0 = np.broadcast_to(into, shape)
        j0 = i0 * sign / self.a0.reshape(-1, 1)

        def variable(quantity: str, values: FloatArray) -> Affine:
            return builder.variable(
                "ratio", quantity, self.names, unit="pu", start=np.asarray(values), scale=scale, limit=False
            )

        j = Complex(variable("j_re", j0.real), variable("j_im", j0.imag))
        i = Complex(variable("i_re", i0.real), variable("i_im", i0.imag))
        for quantity, size, f, g in (
            ("u_re", 1.0, e.re * sign, u.re),
            ("u_im", 1.0, e.im * sign, u.im),
            ("i_re", scale, j.re, i.re * sign),
            ("i_im", scale, j.im, i.im * sign),
        ):
            builder.quadratic("ratio", quantity, self.names, [(a, f)], -g, 0.0, 0.0, unit="pu", scale=size)
        return j, i

    def leg_power(self, x: FloatArray, v: ComplexArray) -> tuple[IntArray, ComplexArray]:
        """Legs of these transformers, and the power into their series impedance at the decided taps, pu.

        Args:
            x: the variables.
            v: voltages of the true nodes, pu, shape (n, T).
        """
        legs: list[IntArray] = []
        power: list[ComplexArray] = []
        own = {t.name: t for t in self.feeder.transformers}
        for name in dict.fromkeys(tap.transformer for tap in self.taps):
            taps = [tap for tap in self.taps if tap.transformer == name]
            values = np.vstack([tap.tap.value(x, np.zeros(0)) for tap in taps])
            at = [self.net.position[node] for node in tapped_primitive(own[name], ()).nodes]
            volt = v[at] * (1000.0 * self.net.v_base_kv[at]).reshape(-1, 1)
            s = series_power(own[name], values, [tap.winding for tap in taps], volt)
            legs.append(np.flatnonzero(self.net.branch == self.net.branch_names.index(own[name].label)))
            power.append(s / (1000.0 * self.base.s_kva))
        if not legs:
            return np.zeros(0, dtype=np.int64), np.zeros((0, v.shape[1]), dtype=complex)
        return np.concatenate(legs), np.vstack(power)


def _through(flows: Sequence[tuple[int, IntArray, ComplexArray, ComplexArray]], kv: FloatArray, base: Base) -> Through:
    """Power through transformers from `lateral.network.tapped.series_flow`, per unit.

    Args:
        flows: branch, nodes, and W and I over these nodes, of each transformer.
        kv: voltage base of every node.
        base: power base.
    """
    none = np.zeros(0, dtype=np.int64)
    branch, row, col = [none], [none], [none]
    w_val, i_val = [np.zeros(0, dtype=complex)], [np.zeros(0, dtype=complex)]
    first = 0
    for number, at, w, i in flows:
        n = len(w)
        branch.append(np.full(n, number))
        row.append(first + np.repeat(np.arange(n), len(at)))
        col.append(np.tile(at, n))
        # a base of its own for a row cancels in W conj(I)
        w_val.append((w * kv[at]).ravel())
        i_val.append((i * kv[at]).ravel() * (1000.0 / base.s_kva))
        first += n
    place = (np.concatenate(row), np.concatenate(col))
    wide, current = (
        sparse.csr_matrix((np.concatenate(values), place), shape=(first, len(kv))) for values in (w_val, i_val)
    )
    for matrix in (wide, current):
        matrix.eliminate_zeros()
    return Through(np.concatenate(branch), wide, current)


__all__ = ["Ratios", "Tap", "declines_ratio"]
