"""What follows from the voltages of a rectangular model: magnitudes, flows, losses, prices, what was assumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from lateral.formulations.phasors import Complex, LegFlows
from lateral.formulations.point_model import port_names
from lateral.formulations.ratios import Ratios
from lateral.formulations.rectangular_slopes import Slope
from lateral.network.branches import RadialNetwork
from lateral.network.kron import ReducedNetwork
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Block, DualOf, Jumps, Program, ProgramBuilder
from lateral.program.ports import Ports
from lateral.units import Base

#: A conductor below this voltage at the operating point is a neutral: no limit holds there, pu.
NEUTRAL_PU = 0.3
#: A conductor below this voltage, as a grounded neutral, has no price of power.
LEAST_PRICED_PU = 1e-4
#: Ports, between which voltages their law was taken, and what is known of jumps there; see `NetworkModel.assume_v`.
Assumed = tuple[Ports, FloatArray, FloatArray, tuple[FloatArray, FloatArray, FloatArray] | None]


@dataclass(frozen=True, slots=True, eq=False)
class BalanceRows:
    """How the balances of the kept nodes were written; every attribute is in positions among them.

    Attributes:
        free: nodes with a balance of current.
        powered: nodes whose balance is a power.
        rows: balances of current, real and imaginary, then of p and q.
        islands: nodes of each ungrounded island; the row of the first one stands for the sum over all.
    """

    free: IntArray
    powered: IntArray
    rows: Sequence[Block]
    islands: Sequence[IntArray]


@dataclass(frozen=True, eq=False)
class Values:
    """Names what follows from the voltages, as `Derived` of the program.

    Attributes:
        builder: takes them.
        net: nodes and branches.
        base: power base.
        names: name of each true node.
        v: voltages of the kept nodes.
        reduced: which nodes are kept, and how the others follow.
        ratios: decided taps.
        wires: admittance of the wires over all nodes, pu.
        legs: flows of the branches.
        three_phase: buses with phases 1, 2 and 3.
        assumed: ports with the lowest and highest voltage that a device took for granted.
        balance: how the balances were written.
        slopes: how objective and rows depend on the voltages.
    """

    builder: ProgramBuilder
    net: RadialNetwork
    base: Base
    names: tuple[str, ...]
    v: Complex
    reduced: ReducedNetwork
    ratios: Ratios
    wires: sparse.csc_matrix
    legs: LegFlows
    three_phase: tuple[str, ...]
    assumed: Sequence[Assumed]
    balance: BalanceRows
    slopes: Sequence[Slope]

    def write(self) -> None:
        """Name magnitudes of all nodes, flows, losses and prices."""
        builder, net, kw = self.builder, self.net, self.base.total_kva
        cells_re, cells_im = self.v.re.col, self.v.im.col
        shape = (len(self.reduced.kept), builder.n_steps)
        t, n, ratios, wires = self.reduced.t, len(self.names), self.ratios, self.wires
        legs, three_phase, names = self.legs, self.three_phase, self.names

        def with_inner(x: FloatArray) -> ComplexArray:
            return np.asarray(t @ (x[cells_re] + 1j * x[cells_im]).reshape(shape))

        def voltage(x: FloatArray) -> ComplexArray:
            return with_inner(x)[:n]

        def power(x: FloatArray) -> ComplexArray:
            v = voltage(x)
            s = legs.power(v)
            at, own = ratios.leg_power(x, v)
            s[at] = own
            return s

        def vmag_sq(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
            return np.abs(voltage(x)) ** 2

        def p_from(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
            return np.asarray(power(x).real)

        def q_from(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
            return np.asarray(power(x).imag)

        def losses(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
            v = with_inner(x)
            return np.asarray((v.conj() * (wires @ v)).real.sum(axis=0, keepdims=True))

        def unbalance(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
            v = voltage(x)[phases].reshape(-1, 3, shape[1])
            turn = np.exp(2j * np.pi / 3.0) ** np.arange(3)
            plus, minus = (np.abs(np.einsum("bct,c->bt", v, w)) for w in (turn, turn.conj()))
            return np.asarray(minus / np.maximum(plus, 1e-9))

        def vang(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
            return np.angle(voltage(x), deg=True)

        builder.derive("bus", "vmag_sq", names, vmag_sq, unit="pu^2")
        builder.derive("bus", "vang", names, vang, unit="deg")
        self._assumptions(voltage)
        if three_phase:
            phases = np.array([net.position[bus, c] for bus in three_phase for c in (1, 2, 3)])
            builder.derive("three_phase_bus", "unbalance", three_phase, unbalance, unit="pu")
        builder.derive("branch", "p_from", net.legs, p_from, unit="kW", to_unit=kw)
        builder.derive("branch", "q_from", net.legs, q_from, unit="kvar", to_unit=kw)
        builder.derive("system", "losses", ["all"], losses, unit="kW", to_unit=kw)
        self._prices(with_inner, shape)

    def _assumptions(self, voltage: Callable[[FloatArray], ComplexArray]) -> None:
        """Name how far a port's voltage is beyond the side of its band that a device took."""
        for ports, low, high, beside in self.assumed:
            # ground is an extra row of zeros, reached by -1
            def across(x: FloatArray, ports: Ports = ports) -> FloatArray:
                v = voltage(x)
                v = np.vstack([v, np.zeros((1, v.shape[1]))])
                return np.asarray(np.abs(v[ports.a] - v[ports.b]))

            def beyond(
                x: FloatArray,
                across: Callable[[FloatArray], FloatArray] = across,
                low: FloatArray = low,
                high: FloatArray = high,
                away: FloatArray | float = 0.0 if beside is None else beside[0],
            ) -> FloatArray:
                u = across(x)
                return np.asarray(np.maximum(low - u, u - high) + away)

            jumps = None if beside is None else Jumps(ports.a, ports.b, across, low, high, *beside)
            self.builder.assume("port", "v_side", port_names(self.net, ports), beyond, jumps=jumps)

    def _prices(self, voltage: Callable[[FloatArray], ComplexArray], shape: tuple[int, int]) -> None:
        """Name what one more kW or kvar drawn at each node costs.

        Drawing p + jq draws the current ``(p - jq) V / |V|^2``. With the complex dual Y of the current balance (the
        value of one more unit drawn is -Y; at an eliminated node ``Y_e = conj(T) Y`` and a part of its own, see
        `lateral.formulations.rectangular_slopes`)::

            price of p = -Re(conj(V) Y) / |V|^2,   price of q = Im(conj(V) Y) / |V|^2

        A node whose balance is written as power has ``Y = (nu_p - j nu_q) V`` of the duals of those rows. What is made
        of prices inside of a formulation knows those of the kept nodes alone, and has neutral conductors' small.

        Args:
            voltage: of all nodes, from the variables.
            shape: number of kept nodes, and of steps.
        """
        builder, kw, names = self.builder, self.base.total_kva, self.names
        kept, t_conj = self.reduced.kept, self.reduced.t.conj()
        free, at, rows, islands = self.balance.free, self.balance.powered, self.balance.rows, self.balance.islands

        def duals(v: ComplexArray, dual_of: DualOf) -> ComplexArray:
            dual = np.zeros(shape, dtype=complex)
            parts = [dual_of(block) for block in rows[:2]]
            dual[free] = parts[0] + 1j * parts[1]
            for members in islands:  # the first row stood for the sum over all
                dual[members[1:]] += dual[members[0]]
            if len(at):
                parts = [dual_of(block) for block in rows[2:]]
                dual[at] = (parts[0] - 1j * parts[1]) * v[kept[at]]
            return np.asarray(t_conj @ dual)

        def per_power(v: ComplexArray, dual: ComplexArray, size: FloatArray) -> ComplexArray:
            c, size = (v.conj() * dual)[: len(names)], size[: len(names)]
            # numpy warns of complex numbers over NaN
            return np.asarray(-c.real / size + 1j * (c.imag / size))

        def prices(x: FloatArray, y: FloatArray, nu: FloatArray) -> ComplexArray:
            def dual_of(block: Block) -> FloatArray:
                values = y if any(block is own for own in rows[:2]) else nu
                return values[block.cells].reshape(len(block.elements), shape[1])

            v = voltage(x)
            return per_power(v, duals(v, dual_of), np.maximum(np.abs(v) ** 2, NEUTRAL_PU**2))

        def exact(x: FloatArray, program: Program, dual_of: DualOf) -> ComplexArray:
            v = voltage(x)
            slope = sum((of(v, x, program, dual_of) for of in self.slopes), np.zeros_like(v))
            size = np.where(np.abs(v) < LEAST_PRICED_PU, np.nan, np.abs(v) ** 2)
            return per_power(v, duals(v, dual_of) + self.reduced.own_dual(slope), size)

        def part(quantity: str, unit: str, of: Callable[[ComplexArray], FloatArray]) -> None:
            builder.derive(
                "bus", quantity, names, lambda x, y, nu: of(prices(x, y, nu)), unit=unit, to_unit=kw, dual=True,
                exact=lambda x, program, dual_of: of(exact(x, program, dual_of)),
            )  # fmt: skip

        part("p_balance", "kW", np.real)
        part("q_balance", "kvar", np.imag)


__all__ = ["NEUTRAL_PU", "BalanceRows", "Values"]
