"""Program: the one intermediate form between a model and a solver.

    minimise   c'x + 1/2 x'Qx + c0                                        Q positive semidefinite, sparse
    subject to A x = b,   l <= G x <= u,   lb <= x <= ub
               sum_k a_k(x)^2  {<=, =}  u(x) v(x)                         product rows: cone, or exact
               d_l <= sum_k f_k(x) g_k(x) + w(x) <= d_u                   quadratic rows, not convex
               y_i = phi_i(z_i)                                           curves: smooth functions of one variable
               M_k(x) psd                                                 semidefinite rows, entries affine

Everything is per unit except the objective, which is in the objective's own unit ($ for energy cost). Solvers see the
scaled program (`Program.scaled`), everybody else the unscaled one. One dual sign holds everywhere: the dual of a row is
d(minimum) / d(right-hand side), and a reduced cost is d(minimum) / d(the bound that holds the variable).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import scipy.sparse as sp

from lateral.errors import OptionError, did_you_mean
from lateral.network.schema import FloatArray, IntArray
from lateral.program.affine import Affine
from lateral.program.rows import CurveRows, ProductRows, QuadraticRows, SemidefiniteRows, scale_matrix


class ProblemClass(Enum):
    """What kind of problem a program is, read off its rows."""

    LP = "linear program"
    QP = "convex quadratic program"
    SOCP = "second-order cone program"
    SDP = "semidefinite program"
    NLP = "nonlinear program (non-convex)"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A labelled run of variables, rows or outputs: elements by steps, step contiguous.

    Attributes:
        component: what the elements are, e.g. ``battery``, ``branch``, ``bus``.
        quantity: what it is of them, e.g. ``p_charge``, ``vmag_sq``.
        elements: element names, shape (n,); a conductor is part of the name (``632.1``).
        n_steps: number of steps (1 for something that has no time).
        start: index of the first cell in its vector.
        unit: unit of the value in engineering terms.
        to_unit: factor from per unit to that unit, scalar or (n, 1).
        limit: True when rows or bounds of it are limits that may be named as the reason of an infeasibility.
        at: of cells that exist at some steps only (``n_steps`` is 1 then): which thing each cell is, by a number, and
            its step.
        only_less: of rows ``left == right`` that are a limit: it gives way to less on the left side, never to more.
    """

    component: str
    quantity: str
    elements: tuple[str, ...]
    n_steps: int
    start: int
    unit: str
    to_unit: FloatArray
    limit: bool = True
    at: tuple[IntArray, IntArray] | None = None
    only_less: bool = False

    @property
    def name(self) -> str:
        """``component.quantity``."""
        return f"{self.component}.{self.quantity}"

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.elements) * self.n_steps

    @property
    def cells(self) -> slice:
        """Where the cells are in their vector."""
        return slice(self.start, self.start + self.size)

    def place(self, index: int) -> tuple[str, int]:
        """Element and step of a cell, by its index in the vector."""
        i, t = divmod(index - self.start, self.n_steps)
        return self.elements[i], t if self.at is None else int(self.at[1][i])


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Named data of a program that `Program.update` can change."""

    name: str
    elements: tuple[str, ...]
    n_steps: int
    start: int
    unit: str

    @property
    def cells(self) -> slice:
        """Where the values are in the parameter vector."""
        return slice(self.start, self.start + len(self.elements) * self.n_steps)


@dataclass(frozen=True, slots=True, eq=False)
class DataMap:
    """How a vector of the program follows the parameters: ``vector = base + matrix @ theta``."""

    base: FloatArray
    matrix: sp.csr_array

    def at(self, theta: FloatArray) -> FloatArray:
        """The vector at parameters theta."""
        if self.matrix.nnz == 0:
            return self.base
        return np.asarray(self.base + self.matrix @ theta)


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """A labelled derived quantity: an affine array at the solution, plus squares summed over elements."""

    block: Block
    affine: Affine
    squares: tuple[Affine, ...] = ()

    def value(self, x: FloatArray, theta: FloatArray) -> FloatArray:
        """The numbers, per unit, shape (n, T)."""
        total = self.affine.value(x, theta)
        for square in self.squares:
            total = total + (square.value(x, theta) ** 2).sum(axis=0, keepdims=True)
        return total


#: Duals of the rows of a block, per unit, shape (n, T).
DualOf = Callable[[Block], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Derived:
    """A labelled quantity that follows from a solution by a function: voltages of nodes that were eliminated, flows.

    Attributes:
        block: its labels.
        of: from variables x, duals y of ``A x = b`` and nu of the quadratic rows to the numbers, per unit, (n, T).
        dual: True for a derived dual (a price), d(minimum) / d(one more unit), which `Result.dual` reads.
        exact: of a dual, where ``of`` is it but for a part that depends on further duals: from variables, the program
            and the duals of any of its blocks, shape (n, T).
    """

    block: Block
    of: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
    dual: bool = False
    exact: Callable[[FloatArray, Program, DualOf], FloatArray] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Opposed:
    """Two ways of a device, of which it can go one at a time and no row says so: a battery charges or discharges.

    Attributes:
        device: what goes them, in words, one and many, such as ``("battery", "batteries")``.
        ways: what it is held to, in words, such as "to charge or to discharge".
        back, forward: the variables, none of them below zero, shape (n T,).
        most: how much of both at once counts as none, per unit, shape (n T,).
        cell: number of the device and step that each is of, shape (n T,): the ports of a device may share it.
    """

    device: tuple[str, str]
    ways: str
    back: IntArray
    forward: IntArray
    most: FloatArray
    cell: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Jumps:
    """Between which jumps of a device's law the voltage across ports was taken to be.

    Attributes:
        a, b: nodes of each port in the network's order, -1 for ground, shape (n,).
        across: from variables x to |V| across the ports, pu, shape (n, T).
        low, high: the jumps, shape (n, T); -inf and inf for none.
        beside: how far |V| has to stay away from them, shape (n, 1).
        less: below which voltage the side under the lower jump is the better one, shape (n, T).
        most: the highest |V| that the limits of buses allow there, pu, shape (n, 1).
    """

    a: IntArray
    b: IntArray
    across: Callable[[FloatArray], FloatArray]
    low: FloatArray
    high: FloatArray
    beside: FloatArray
    less: FloatArray
    most: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Assumption:
    """Something that was taken for granted when the program was built, and can be looked at in a solution.

    Attributes:
        block: its labels.
        beyond: from variables x to how far beyond it they are, per unit, shape (n, T); zero and less where it holds.
        jumps: where a law jumps at the sides, what is known of them.
    """

    block: Block
    beyond: Callable[[FloatArray], FloatArray]
    jumps: Jumps | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TreeHint:
    """Tree and storage chains, for solvers that can use them.

    Attributes:
        parent: parent node of each non-root node's branch, -1 for children of the root; shape (n,).
        branch_vars: first variable (step 0) of P, Q, l, v of each node's branch, -1 where absent; shape (n, 4).
        chains: block names of storage energies.
    """

    parent: IntArray
    branch_vars: IntArray
    chains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """See the module's text. Made by `lateral.program.builder.ProgramBuilder`; frozen.

    ``objective_floor`` is the size of objective, in its own unit, below which a relative gap means nothing: gaps are
    compared with it where the objective is smaller. ``ineq_offset`` is what of the middle of a row is no variable: it
    stands on the sides ``l`` and ``u``, and a limit as it was stated is the side plus it (``quadratic_offset`` of the
    quadratic rows likewise). ``baked`` names the slots
    whose present data are numbers in some row: after an `update` of one of them the program is to be built again
    (`lateral.model.Model` does). ``sums`` names equalities of which the first was written as the sum over all, an array
    (rows, T) each: see `by_row`. ``follows`` names rows of ``A x = b`` that each define a free variable, pairs
    (row, variable) of shape (k, 2): from the other variables, and from those of further such rows without a circle, so
    that a solver may take them out (`lateral.solvers.substitution`). ``held`` says in words what is otherwise than the
    case asks: decisions that are held, laws that are taken to first order; ``granted`` what a bound of it rests on
    beyond the case itself; ``unlike`` where its feeder is not the case's, so that its optimum bounds no schedule there.
    """

    c: FloatArray
    c0: float
    q: sp.csc_array
    a: sp.csr_array
    b: FloatArray
    g: sp.csr_array
    l: FloatArray
    u: FloatArray
    lb: FloatArray
    ub: FloatArray
    products: ProductRows
    col_scale: FloatArray
    eq_scale: FloatArray
    ineq_scale: FloatArray
    product_scale: FloatArray
    objective_scale: float
    variables: tuple[Block, ...]
    equalities: tuple[Block, ...]
    inequalities: tuple[Block, ...]
    product_blocks: tuple[Block, ...]
    outputs: tuple[Output, ...]
    slots: Mapping[str, Slot]
    theta: FloatArray
    maps: Mapping[str, DataMap]
    start_point: FloatArray
    quadratics: QuadraticRows
    curves: CurveRows
    quadratic_scale: FloatArray
    curve_scale: FloatArray
    semidefinite: SemidefiniteRows
    semidefinite_scale: FloatArray
    quadratic_blocks: tuple[Block, ...] = ()
    curve_blocks: tuple[Block, ...] = ()
    semidefinite_blocks: tuple[Block, ...] = ()
    derived: tuple[Derived, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    opposed: tuple[Opposed, ...] = ()
    ineq_offset: FloatArray = field(default_factory=lambda: np.zeros(0))
    quadratic_offset: FloatArray = field(default_factory=lambda: np.zeros(0))
    objective_floor: float = 0.0
    baked: frozenset[str] = frozenset()
    tree: TreeHint | None = None
    sums: tuple[IntArray, ...] = ()
    follows: IntArray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    held: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()

    def by_row(self, eq_dual: FloatArray) -> FloatArray:
        """Duals of the equalities as if each stood for itself, where the first of some stands for the sum over all."""
        out = np.array(eq_dual, dtype=float)
        for rows in self.sums:
            out[rows[1:]] += out[rows[0]]
        return out

    def with_sums(self, by_row: FloatArray) -> FloatArray:
        """The other way round: the duals of the equalities as they are written."""
        out = np.array(by_row, dtype=float)
        for rows in self.sums:
            out[rows[1:]] -= out[rows[0]]
        return out

    @property
    def n(self) -> int:
        """Number of variables."""
        return len(self.c)

    def matrices_of(self) -> Iterator[tuple[Block, IntArray]]:
        """Each block of semidefinite rows with the places of its entries, shape (elements, T entries)."""
        size = self.semidefinite.dims * (self.semidefinite.dims + 1) // 2
        ends = np.cumsum([0, *size.tolist()])
        for block in self.semidefinite_blocks:
            first, last = ends[block.start], ends[block.start + block.size]
            yield block, np.arange(first, last).reshape(len(block.elements), -1)

    @property
    def problem_class(self) -> ProblemClass:
        """The class, read off the rows."""
        if self.quadratics.n_rows or self.curves.n_rows:
            return ProblemClass.NLP
        if bool(np.any(self.products.equality)):
            return ProblemClass.NLP
        if self.semidefinite.n_rows:
            return ProblemClass.SDP
        if self.products.n_rows:
            return ProblemClass.SOCP
        return ProblemClass.QP if self.q.nnz else ProblemClass.LP

    def objective(self, x: FloatArray) -> float:
        """Objective at x."""
        return float(self.c @ x + 0.5 * x @ (self.q @ x) + self.c0)

    def update(self, values: Mapping[str, FloatArray]) -> Program:
        """The same pattern with new data.

        Args:
            values: new values by slot name, each broadcast to (elements, steps), in the slot's unit.

        Raises:
            OptionError: a slot that does not exist, or a shape that does not fit.
        """
        theta = self.theta.copy()
        for name, new in values.items():
            if name not in self.slots:
                message = f"there is no data slot {name!r}. {did_you_mean(name, list(self.slots))}"
                raise OptionError(message)
            slot = self.slots[name]
            shape = (len(slot.elements), slot.n_steps)
            try:
                array = np.broadcast_to(np.asarray(new, dtype=float), shape)
            except ValueError as error:
                message = f"data for {name!r} has shape {np.shape(new)}; it must broadcast to {shape}"
                raise OptionError(message) from error
            if np.any(np.isnan(array)) or (not np.all(np.isfinite(array)) and slot.unit != "limit"):
                message = f"data for {name!r} holds values that are not finite"
                raise OptionError(message)
            theta[slot.cells] = array.reshape(-1)
        return self._at(theta)

    def _at(self, theta: FloatArray) -> Program:
        changes: dict[str, object] = {"theta": theta}
        products, quadratics, matrices = self.products, self.quadratics, self.semidefinite
        for name, data_map in self.maps.items():
            new = data_map.at(theta)
            match name:
                case "c0":
                    changes["c0"] = float(new[0])
                case "q" | "a" | "g":
                    old = getattr(self, name)
                    changes[name] = type(old)((new, old.indices, old.indptr), shape=old.shape)
                case "a0" | "u0" | "v0" | "pa" | "pu" | "pv":
                    products = dataclasses.replace(products, **_product_part(products, name, new))
                case "qw":
                    old = quadratics.w
                    w = sp.csr_array((new, old.indices, old.indptr), shape=old.shape)
                    quadratics = dataclasses.replace(quadratics, w=w)
                case "ql":
                    quadratics = dataclasses.replace(quadratics, l=new)
                case "qu":
                    quadratics = dataclasses.replace(quadratics, u=new)
                case "sm":
                    old = matrices.m
                    m = sp.csr_array((new, old.indices, old.indptr), shape=old.shape)
                    matrices = dataclasses.replace(matrices, m=m)
                case "s0":
                    matrices = dataclasses.replace(matrices, m0=new)
                case _:
                    changes[name] = new
        changes |= {"products": products, "quadratics": quadratics, "semidefinite": matrices}
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def rescaled(self, n_steps: int) -> Program:
        """The program with its objective scaled by its present data: when they differ much from those of the build.

        By its largest coefficient; of a program that is not convex, where stiff branches make entries of the quadratic
        part far larger than any step has of it, by what its terms come to at the start: a step's share of them is one.
        Not by its value, in which what is paid for a power and for its difference from another may cancel.
        """
        scale = objective_scale(self.c, self.q, self.col_scale)
        if self.q.nnz and self.problem_class is ProblemClass.NLP:
            x = self.start_point
            size = max(float(np.abs(self.c) @ np.abs(x) + 0.5 * x @ (self.q @ x)), self.objective_floor)
            scale = max(scale, n_steps / size) if size > 0.0 else scale
        return dataclasses.replace(self, objective_scale=scale)

    def scaled_by_value(self, n_steps: int) -> Program:
        """The program with its objective scaled by its value at the start: a step's share of it is one.

        Stiff branches make entries of the quadratic part far larger than any step has of it.
        """
        size = max(abs(self.objective(self.start_point)), self.objective_floor)
        return dataclasses.replace(self, objective_scale=n_steps / size) if size > 0.0 else self

    @property
    def has_relaxation(self) -> bool:
        """Whether `relaxed` is convex: product rows can become cones, quadratic rows and curves cannot."""
        return not (self.quadratics.n_rows or self.curves.n_rows)

    def relaxed(self) -> Program:
        """The program with every exact product row as a cone: a convex relaxation, same variables and rows."""
        cones = np.zeros_like(self.products.equality)
        return dataclasses.replace(self, products=dataclasses.replace(self.products, equality=cones))

    def scaled(self) -> ScaledProgram:
        """The program that solvers see; x = col_scale * x_scaled."""
        d = self.col_scale
        return ScaledProgram(
            c=self.c * d * self.objective_scale,
            c0=self.c0 * self.objective_scale,
            q=_scale_columns(self.q, d, self.objective_scale),
            a=scale_matrix(self.a, self.eq_scale, d),
            b=self.b * self.eq_scale,
            g=scale_matrix(self.g, self.ineq_scale, d),
            l=self.l * self.ineq_scale,
            u=self.u * self.ineq_scale,
            lb=self.lb / d,
            ub=self.ub / d,
            products=self.products.scaled(self.product_scale, d),
            quadratics=self.quadratics.scaled(self.quadratic_scale, d),
            curves=self.curves.scaled(self.curve_scale, d),
            semidefinite=self.semidefinite.scaled(self.semidefinite_scale, d),
            x0=self.start_point / d,
        )

    def block(self, name: str) -> Block:
        """The variable block of a name such as ``battery.energy``."""
        for block in self.variables:
            if block.name == name:
                return block
        message = f"there is no variable {name!r}. {did_you_mean(name, [v.name for v in self.variables])}"
        raise OptionError(message)


@dataclass(frozen=True, slots=True, eq=False)
class ScaledProgram:
    """A program in solver scale: the same letters as `Program`."""

    c: FloatArray
    c0: float
    q: sp.csc_array
    a: sp.csr_array
    b: FloatArray
    g: sp.csr_array
    l: FloatArray
    u: FloatArray
    lb: FloatArray
    ub: FloatArray
    products: ProductRows
    quadratics: QuadraticRows
    curves: CurveRows
    semidefinite: SemidefiniteRows
    x0: FloatArray


def objective_scale(c: FloatArray, q: sp.csc_array, col_scale: FloatArray) -> float:
    """What an objective is multiplied by for solvers, so that its largest coefficient is about one.

    Of both parts: a small linear term (alpha) beside a large quadratic one (losses) must not set the scale.
    """
    typical = max(
        float(np.max(np.abs(c * col_scale), initial=0.0)),
        float(np.max(np.abs(q.diagonal() * col_scale**2), initial=0.0)),
    )
    return 1.0 / typical if typical > 0 else 1.0


def _product_part(products: ProductRows, name: str, new: FloatArray) -> dict[str, Any]:
    """One field of product rows with new data."""
    if name in ("a0", "u0", "v0"):
        return {name: new}
    field_name = {"pa": "a", "pu": "u", "pv": "v"}[name]
    old = getattr(products, field_name)
    return {field_name: sp.csr_array((new, old.indices, old.indptr), shape=old.shape)}


def _scale_columns(q: sp.csc_array, d: FloatArray, factor: float) -> sp.csc_array:
    """``factor D Q D`` with the pattern of Q."""
    columns = np.repeat(d, np.diff(q.indptr))
    return sp.csc_array((q.data * columns * d[q.indices] * factor, q.indices, q.indptr), shape=q.shape)
