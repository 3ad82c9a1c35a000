"""First-order rows: what a builder writes instead of quadratic rows and curves, and how they move to another point.

Around a point x0, with ``f0 = f(x0)`` and so on::

    sum_k f_k g_k + w       ->   sum_k (f0_k g_k + g0_k f_k - f0_k g0_k) + w
    y = phi(z)              ->   y = phi(z0) + phi'(z0) (z - z0)
    sum_k a_k^2 <= c        ->   stays: it is a cone

The coefficients are data slots of the program, so that another x0 is an update of data and never a new program: a
solver that was built on it goes on. `Program.start_point` is the point at which a program was made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program.affine import Affine
from lateral.program.curves import Curve
from lateral.program.program import Block, Program, Slot

if TYPE_CHECKING:
    from lateral.program.builder import Number, ProgramBuilder


class Solution(Protocol):
    """What is read of a solution."""

    @property
    def x(self) -> FloatArray:
        """Variables."""

    @property
    def eq_dual(self) -> FloatArray:
        """Duals of equalities."""

    @property
    def ineq_dual(self) -> FloatArray:
        """Duals of two-sided rows."""

    @property
    def quadratic_dual(self) -> FloatArray:
        """Duals of quadratic rows."""


#: Least reach over which the second derivative of a curve is taken.
LEAST_REACH = 1e-4

#: Newton's steps at a point, how often one is halved, and the violation in solver scale that counts as none; where no
#: step lessens it any more so is this share of a row's terms, which cancel in rows of stiff branches.
MOST_STEPS, MOST_HALVED, HOLDS, ROUNDING = 30, 8, 1e-9, 1e-13

#: What the names of data slots begin with that only a tangent writes.
OWN_SLOTS = "tangent."


class State(Protocol):
    """Fills in what follows from decisions and voltages."""

    def __call__(self, program: Program, x: FloatArray, v_pu: ComplexArray, *, loaded: bool) -> FloatArray:
        """Variables with everything of the network as it is at voltages of its nodes (n, T) and decisions in x.

        Without ``loaded`` currents are zero: the point of the unloaded feeder.
        """


@dataclass(frozen=True, slots=True, eq=False)
class _Products:
    """Factors of one block of rows; a square has one factor."""

    slot: str
    pairs: tuple[tuple[Affine, Affine | None], ...]

    def values(self, x: FloatArray, theta: FloatArray) -> FloatArray:
        """Factors f, then g, then the sum of their products, shape (slot elements, T)."""
        f = [pair[0].value(x, theta) for pair in self.pairs]
        g = [first if pair[1] is None else pair[1].value(x, theta) for pair, first in zip(self.pairs, f, strict=True)]
        others = [second for pair, second in zip(self.pairs, g, strict=True) if pair[1] is not None]
        return np.vstack([*f, *others, sum(a * b for a, b in zip(f, g, strict=True))])


@dataclass(frozen=True, slots=True, eq=False)
class _Bent:
    """A block of curves: slope and offset."""

    slot: str
    y: Affine
    z: Affine
    curve: Curve
    block: Block | None = None

    def values(self, x: FloatArray, theta: FloatArray) -> FloatArray:
        """Slopes, then ``phi(z0) - phi'(z0) z0``."""
        z = self.z.value(x, theta)
        slope = self.curve.slope(z)
        return np.vstack([slope, self.curve.value(z) - slope * z])


@dataclass(frozen=True, slots=True, eq=False)
class _Defined:
    """Variables y that are ``linear + sum f g``."""

    y: Affine
    linear: Affine
    pairs: tuple[tuple[Affine, Affine], ...]

    def value(self, x: FloatArray, theta: FloatArray) -> FloatArray:
        """What y is, shape (n, T)."""
        given = self.linear.value(x, theta)
        return np.asarray(given + sum(f.value(x, theta) * g.value(x, theta) for f, g in self.pairs))


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """A quadratic cost of the distance from the point: linear part and constant; ``shared``: weighed by shares."""

    slot: str
    f: Affine
    g: Affine
    weight: Affine
    shared: bool = False

    def values(self, x: FloatArray, theta: FloatArray) -> FloatArray:
        """``-2 w g0`` of every element, then ``w f0 g0`` summed over them."""
        w, g = self.weight.value(x, theta), self.g.value(x, theta)
        return np.vstack([-2.0 * w * g, (w * self.f.value(x, theta) * g).sum(axis=0, keepdims=True)])


@dataclass(frozen=True, slots=True, eq=False)
class _Scaled:
    """Weights that are a share, per element, of a weight per step."""

    slot: str
    weight: Affine
    share: Affine

    def values(self, x: FloatArray, theta: FloatArray) -> FloatArray:
        """Share times weight, shape (n, T)."""
        return np.asarray(self.share.value(x, theta) * self.weight.value(x, theta))


@dataclass(frozen=True, slots=True, eq=False)
class _Squares:
    """Rows of squares, whose multiplier weighs their curvature."""

    block: Block
    equality: bool
    factors: tuple[Affine, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows of products, whose multipliers weigh how they bend."""

    block: Block
    equality: bool
    pairs: tuple[tuple[Affine, Affine], ...]


@dataclass(eq=False)
class Tangent:
    """Writes first-order rows for a builder, and moves a program to another point.

    Attributes:
        state: see `State`; set by the network model.
        network: variables that `state` fills in.
        weights_of: from a solution to the shares that `weights` was given, by slot; set by the network model.
    """

    state: State | None = None
    weights_of: Callable[[Program, Solution], dict[str, FloatArray]] | None = None
    network: list[IntArray] = field(default_factory=list)
    _parts: list[_Products | _Bent | _Form | _Scaled] = field(default_factory=list)
    _squares: list[_Squares] = field(default_factory=list)
    _order: list[_Bent | _Defined] = field(default_factory=list)
    _bent: list[str] = field(default_factory=list)
    _rows: list[_Rows] = field(default_factory=list)
    _shares: list[str] = field(default_factory=list)

    @property
    def followers(self) -> list[IntArray]:
        """Variables that are curves of others, or defined by them."""
        return [part.y.col for part in self._order]

    def quadratic(
        self,
        builder: ProgramBuilder,
        component: str,
        quantity: str,
        elements: Sequence[str],
        pairs: Sequence[tuple[Affine, Affine]],
        linear: Affine | None,
        lower: Affine | Number,
        upper: Affine | Number,
        *,
        unit: str,
        to_unit: Number,
        scale: Number,
        limit: bool,
    ) -> Block:
        """`ProgramBuilder.quadratic` to first order; sums of squares with an upper side alone stay a cone."""
        n, t_count = pairs[0][0].shape
        squares = [f is g for f, g in pairs]
        if all(squares) and linear is None and not isinstance(lower, Affine) and not isinstance(upper, Affine):
            low, high = (np.broadcast_to(np.asarray(side, dtype=float), (n, t_count)) for side in (lower, upper))
            if np.all(low <= 0.0) and np.all(np.isfinite(high)):
                one = Affine.constant(np.ones((n, t_count)))
                return builder.product(
                    component, quantity, elements, [f for f, _ in pairs], Affine.constant(high), one,
                    unit=unit, to_unit=to_unit, scale=scale, limit=limit,
                )  # fmt: skip
        part = _Products(self._name(), tuple((f, None if f is g else g) for f, g in pairs))
        at = self._slot(builder, part, elements)
        row = Affine.zeros(n, t_count) if linear is None else linear
        second = len(pairs) * n
        for k, (f, g) in enumerate(part.pairs):
            f0 = at.take(np.arange(k * n, (k + 1) * n))
            if g is None:
                row = row + (f * 2.0).times_parameter(f0)
                continue
            row = row + g.times_parameter(f0) + f.times_parameter(at.take(np.arange(second, second + n)))
            second += n
        row = row - at.take(np.arange(second, second + n))
        numbers = not isinstance(lower, Affine) and not isinstance(upper, Affine)
        equality = numbers and np.array_equal(np.asarray(lower), np.asarray(upper))
        if equality:
            right = np.broadcast_to(np.asarray(lower, dtype=float), (n, t_count))
            block = builder.equal(
                component, quantity, elements, row, right, unit=unit, to_unit=to_unit, scale=scale, limit=limit
            )
        else:
            block = builder.between(
                component, quantity, elements, lower, row, upper, unit=unit, to_unit=to_unit, scale=scale, limit=limit
            )
        self._rows.append(_Rows(block, equality, tuple(pairs)))
        if all(squares):
            self._squares.append(_Squares(block, equality, tuple(f for f, _ in pairs)))
        return block

    def curve(
        self,
        builder: ProgramBuilder,
        component: str,
        quantity: str,
        elements: Sequence[str],
        y: Affine,
        z: Affine,
        curve: Curve,
    ) -> None:
        """`ProgramBuilder.curve` by value and slope."""
        part = _Bent(self._name(), y, z, curve)
        at = self._slot(builder, part, elements)
        slope, offset = at.take(np.arange(y.n)), at.take(np.arange(y.n, 2 * y.n))
        steep = np.maximum(np.abs(part.values(*builder.start())[: y.n]), 1.0)
        block = builder.equal(component, quantity, elements, y - z.times_parameter(slope) - offset, scale=steep)
        part = dataclasses.replace(part, block=block)
        self._parts[-1] = part
        self._order.append(part)

    def defined(self, y: Affine, linear: Affine, pairs: Sequence[tuple[Affine, Affine]]) -> None:
        """Say that variables are ``linear + sum f g`` of what was declared before; see `ProgramBuilder.defined`."""
        self._order.append(_Defined(y, linear, tuple(pairs)))

    def distance(
        self,
        builder: ProgramBuilder,
        f: Affine,
        g: Affine,
        weight: Affine,
        elements: Sequence[str],
        *,
        shared: bool = False,
    ) -> None:
        """Add ``sum weight (f - f0) (g - g0)`` to the objective, with g a symmetric linear map of the variables f.

        ``weight`` has shape (n, T) and is nonnegative numbers or data; with ``shared`` it is one of `weights`, and
        `curvature` counts the cost.
        """
        part = _Form(self._name(), f, g, weight, shared)
        at = self._slot(builder, part, elements)
        builder.minimise_products(f, g, weight)
        builder.minimise(f.times_parameter(at.take(np.arange(f.n))))
        builder.minimise(at.take(np.array([f.n])))

    def weights(self, builder: ProgramBuilder, name: str, elements: Sequence[str], start: float, of: Affine) -> Affine:
        """Weights of elements by step, as data: shares, slot ``name``, of a weight of shape (1, T)."""
        n, t_count = len(elements), of.n_steps
        self._shares.append(name)
        share = builder.data(name, elements, np.full((n, t_count), start), unit="1")
        part = _Scaled(f"{name}.weight", of.take(np.zeros(n, dtype=np.int64)), share)
        values = part.values(*builder.start())
        self._parts.append(part)
        return builder.data(part.slot, elements, values, unit="objective")

    def bend(self, builder: ProgramBuilder) -> None:
        """Give every row of squares and every curve a curvature, of weight zero until multipliers are known."""
        rows = [(row.block, row.factors) for row in self._squares]
        rows += [(b.block, (b.z,)) for b in self._parts if isinstance(b, _Bent) and b.block is not None]
        self._bent = [f"{OWN_SLOTS}curvature.{k}" for k in range(len(rows))]
        for slot, (block, factors) in zip(self._bent, rows, strict=True):
            none = np.zeros((len(block.elements), block.n_steps))
            weight = builder.data(slot, block.elements, none, unit="objective")
            for f in factors:
                self.distance(builder, f, f, weight, block.elements)

    def reweighed(self, program: Program, solution: Solution, at: FloatArray, factor: float = 1.0) -> Program:
        """The program with the curvature that the multipliers of a solution give its rows, as far as it is convex.

        A row ``sum f^2 + w`` with multiplier y adds ``-y (f - f0)^2`` to the Lagrangian, a curve adds
        ``y phi'' / 2 (z - z0)^2``, with the second derivative as a difference over the step just made: a rounded corner
        acts before it is met.

        Args:
            program: the program that was solved.
            solution: its solution.
            at: variables at which the program is to be used next.
            factor: on the shares that `weights` was given.
        """
        slots = {} if self.weights_of is None else self.weights_of(program, solution)
        slots = {name: factor * share for name, share in slots.items()}
        weights = []
        for part in self._squares:
            y = (solution.eq_dual if part.equality else solution.ineq_dual)[part.block.cells]
            weights.append(-y.reshape(len(part.block.elements), -1))
        for bent in self._parts:
            if isinstance(bent, _Bent) and bent.block is not None:
                second = self._bend(bent, program.theta, at, solution.x - program.start_point)
                weights.append(0.5 * solution.eq_dual[bent.block.cells].reshape(second.shape) * second)
        slots |= {name: np.maximum(weight, 0.0) for name, weight in zip(self._bent, weights, strict=False)}
        return program.update(slots)

    @staticmethod
    def _bend(bent: _Bent, theta: FloatArray, x: FloatArray, step: FloatArray) -> FloatArray:
        """Second derivative of curves at x, as a difference over a step: a corner acts before it is met."""
        z = bent.z.value(x, theta)
        reach = np.maximum(np.abs(bent.z.value(x + step, theta) - z), LEAST_REACH)
        return np.asarray((bent.curve.slope(z + reach) - bent.curve.slope(z - reach)) / (2.0 * reach))

    def weight_slots(self, program: Program) -> dict[str, Slot]:
        """The data slots of what curvature weighs, by their names: as they are, or named after the rows that they are
        of (an area has other numbers than the whole)."""
        rows = [part.block for part in self._squares]
        rows += [part.block for part in self._parts if isinstance(part, _Bent) and part.block is not None]
        out = {name: program.slots[name] for name in self._shares}
        for name, block in zip(self._bent, rows, strict=False):
            out[name] = dataclasses.replace(program.slots[name], name=block.name)
        return out

    def without_curvature(self, program: Program) -> Program:
        """The program, at its point, with no cost of distance: what is left bends as the objective itself does."""
        return self.moved(
            program.update(dict.fromkeys([*self._shares, *self._bent], np.zeros(()))), program.start_point
        )

    def hessian(self, program: Program, solution: Solution, begin: FloatArray) -> sp.csr_array:
        """How the rows that are to first order bend at the point of a program, weighed by multipliers: their part of
        the Hessian of the Lagrangian.

        Args:
            program: the program.
            solution: its multipliers; curves bend as over the step that led to it.
            begin: variables where that step began.

        Returns:
            symmetric, shape (n, n).
        """
        theta, total = program.theta, sp.csr_array((program.n, program.n))
        for part in self._rows:
            y = (solution.eq_dual if part.equality else solution.ineq_dual)[part.block.cells]
            for f, g in part.pairs:
                one = _coefficients(f, theta, program.n).T @ sp.diags_array(y) @ _coefficients(g, theta, program.n)
                total = total - one - one.T
        for bent in self._parts:
            if isinstance(bent, _Bent) and bent.block is not None:
                z = _coefficients(bent.z, theta, program.n)
                second = self._bend(bent, theta, program.start_point, solution.x - begin).reshape(-1)
                total = total + z.T @ sp.diags_array(solution.eq_dual[bent.block.cells] * second) @ z
        return sp.csr_array(total)

    def curvature(self, program: Program, x: FloatArray) -> float:
        """What the costs of distance whose weights are shares say of a step from the point of the program to x."""
        theta, total = program.theta, 0.0
        for part in self._parts:
            if isinstance(part, _Form) and part.shared:
                f, g = (a.value(x, theta) - a.value(program.start_point, theta) for a in (part.f, part.g))
                total += float((part.weight.value(x, theta) * f * g).sum())
        return total

    @property
    def given(self) -> IntArray:
        """Variables that decisions give: the network's, and those that follow a curve."""
        return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *self.network, *self.followers]))

    def curves(self, x: FloatArray, theta: FloatArray) -> None:
        """Set every ``y = phi(z)``, and what is defined beside them, in place and in the order of their declaration."""
        for part in self._order:
            new = part.value(x, theta) if isinstance(part, _Defined) else part.curve.value(part.z.value(x, theta))
            x[part.y.col] = new.reshape(-1)

    def moved(self, program: Program, x: FloatArray) -> Program:
        """The program made at another point, same pattern."""
        first = {part.slot: part.values(x, program.theta) for part in self._parts if isinstance(part, _Scaled)}
        program = program.update(first) if first else program
        slots = {part.slot: part.values(x, program.theta) for part in self._parts if not isinstance(part, _Scaled)}
        return dataclasses.replace(program.update(slots), start_point=x)

    def rows(self, program: Program, decisions: IntArray) -> IntArray:
        """Equalities by which what is network or follows a curve is given by the decisions."""
        given = self.given
        free = np.ones(program.n, dtype=bool)
        free[given] = free[decisions] = False
        follows = np.zeros(program.n, dtype=bool)
        follows[given] = True
        some = abs(program.a)
        return np.flatnonzero((some @ follows.astype(float) > 0.0) & (some @ free.astype(float) == 0.0))

    def solved(self, program: Program, x: FloatArray, decisions: IntArray) -> Program | str:
        """The program made where its exact equalities hold for the decisions in x: Newton's method from x.

        Args:
            program: the program.
            x: its variables; the network as a power flow has it.
            decisions: variables that are kept.

        Returns:
            why there is none where the method does not get there, or the decisions do not give the network.
        """
        program = self.moved(program, x)
        rows, given = self.rows(program, decisions), self.given
        if len(rows) != len(given):
            return f"{len(rows)} of them for {len(given)} unknowns"
        scale = program.eq_scale[rows]

        def off(at: Program) -> FloatArray:
            return np.asarray((at.b - at.a @ at.start_point)[rows] * scale)

        left = off(program)
        for _ in range(MOST_STEPS):
            if np.max(np.abs(left), initial=0.0) <= HOLDS:
                return program
            matrix = sp.csc_array(program.a[rows][:, given].multiply(scale.reshape(-1, 1)))
            try:
                step = splu(matrix).solve(left)
            except RuntimeError:  # of scipy: the factor is exactly singular
                return "their matrix is singular"
            for k in range(MOST_HALVED):
                x = program.start_point.copy()
                x[given] += 0.5**k * step
                there = self.moved(program, x)
                beyond = off(there)
                if np.linalg.norm(beyond) < (1.0 - 0.1 * 0.5**k) * np.linalg.norm(left):
                    break
            else:
                terms = abs(program.a[rows]) @ np.abs(program.start_point) + np.abs(program.b[rows])
                if np.all(np.abs(left) <= np.maximum(HOLDS, ROUNDING * terms * scale)):
                    return program
                return f"no step of Newton's method lessens what they are off by, {np.max(np.abs(left)):.1e}"
            program, left = there, beyond
        return f"{MOST_STEPS} steps of Newton's method leave them off by {np.max(np.abs(left)):.1e}"

    def _name(self) -> str:
        return f"{OWN_SLOTS}{len(self._parts)}"

    def _slot(self, builder: ProgramBuilder, part: _Products | _Bent | _Form, elements: Sequence[str]) -> Affine:
        """A data slot for the values of a part at the builder's start point."""
        values = part.values(*builder.start())
        names = [f"{elements[k % len(elements)]}:{k // len(elements)}" for k in range(len(values))]
        self._parts.append(part)
        return builder.data(part.slot, names, values, unit="pu")


def _coefficients(expr: Affine, theta: FloatArray, n: int) -> sp.csr_array:
    """Coefficients of the variables in every cell, shape (cells, n)."""
    has = expr.col >= 0
    value = expr.val[has] * np.where(expr.par[has] >= 0, theta[expr.par[has]], 1.0)
    return sp.csr_array((value, (expr.row[has], expr.col[has])), shape=(expr.n * expr.n_steps, n))


__all__ = ["State", "Tangent"]
