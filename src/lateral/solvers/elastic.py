"""Why a program is infeasible: the fewest limits, by the least amount, that stand in the way.

Every limit that a block declares as one (``limit=True``) gets nonnegative slacks; what is not a limit (physics) stays
as it is. The weighted sum of the slacks is minimised (an L1 norm, so most of them end at zero), and those that do not
are the reason:

    minimise   sum_i w_i s_i
    subject to lb <= x + s_under - s_over <= ub,   l <= G x + s_under - s_over <= u
               A x + s_under - s_over = b,         sum_k a_k^2 <= (u + s_over) v
               d_l <= sum_k f_k g_k + w + s_under - s_over <= d_u

**Weights.** A slack is counted in the typical size (scale) of its variable or row, so 1 % of a battery's rating counts
as much as 1 % of a branch's load. Voltages are tighter: 0.01 pu of magnitude counts as much as 10 % of a rating
(weight 5 per pu of the squared magnitude). A squared voltage may be relaxed down to a tenth of its limit, not to zero.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lateral.network.schema import FloatArray, IntArray
from lateral.program import Block, ProductRows, Program, QuadraticRows, SemidefiniteRows
from lateral.solvers.base import Solution, Solver, Status

#: Weight of a squared voltage, per unit of its scale; see the module's text.
VOLTAGE_WEIGHT = 5.0
#: Slacks below this share of their scale are not named.
_NOISE = 1e-6
#: How much the weighted sum may grow for the sake of fewer names.
_GROWTH = 1.5
_SQUARED = "pu^2"
#: Units of squares whose root has no unit of that name.
_ROOTS = {"share^2": ""}
#: Tolerance of the elastic form of what is not convex, which ends in a corner where no step gains much, and the sum of
#: weighted slacks above which no point is near.
LOCAL_TOLERANCE, LOCAL_SUM = 1e-6, 1e-4
#: The same of a convex program, a hundred times the gap at which it is found: a limit that is stated far off at some
#: steps makes the scale of its row large, and what is missed at another one a small share of it.
CONVEX_TOLERANCE, CONVEX_SUM = 1e-9, 1e-7


@dataclass(frozen=True, slots=True)
class Conflict:
    """One limit that has to give way.

    Attributes:
        block: name of the variables or rows, e.g. ``bus.vmag_sq``.
        element: the element.
        step: index of the step.
        value: the value that it would have to take, in ``unit``.
        limit: the limit as it stands.
        amount: how far beyond the limit the value is, positive.
        unit: engineering unit; what is squared (a voltage, a current) is shown as its size.
        weight: what the slack counts in the sum that was minimised.
    """

    block: str
    element: str
    step: int
    value: float
    limit: float
    amount: float
    unit: str
    weight: float

    @property
    def sentence(self) -> str:
        """For instance ``bus 611.3 vmag 0.931 < 0.95 pu at step 18 (0.019 pu short)``."""
        component, _, quantity = self.block.partition(".")
        below = self.value < self.limit
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{component} {self.element} {quantity.removesuffix('_sq')} {self.value:.4g} {'<' if below else '>'} "
            f"{self.limit:.4g}{unit} at step {self.step} ({self.amount:.3g}{unit} {'short' if below else 'too much'})"
        )

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True, eq=False)
class _Slacks:
    """Slacks of one block on one side."""

    block: Block
    kind: str  # variable, inequality, equality, product, quadratic
    sign: float  # +1 lifts the value (under the lower limit), -1 lowers it
    cells: IntArray  # index in the vector of variables or of rows of the kind
    start: int  # first slack in the elastic program


@dataclass(frozen=True, slots=True, eq=False)
class ElasticProgram:
    """An elastic program: the original's variables first, then the slacks.

    Attributes:
        program: what to solve; its minimum is zero exactly when the original is feasible.
        original: the program it was made from.
        slacks: where the slacks of each block and side are.
    """

    program: Program
    original: Program
    slacks: tuple[_Slacks, ...]

    def least(self, x: FloatArray) -> float:
        """The weighted sum of the slacks that a point of the original needs, shape (n,); those of quadratic rows are
        not counted, and a slack that is kept at zero is none."""
        p, total = self.original, 0.0
        rows, equal = p.g @ x, p.a @ x
        if p.products.n_rows:
            v = p.products.v @ x + p.products.v0
            cones = p.products.value(x) / np.maximum(v, 1e-12)
        for group in self.slacks:
            match group.kind:
                case "variable":
                    beyond = group.sign * ((p.lb if group.sign > 0 else p.ub) - x)
                case "inequality":
                    beyond = group.sign * ((p.l if group.sign > 0 else p.u) - rows)
                case "equality":
                    beyond = group.sign * (p.b - equal)
                case "product":
                    beyond = cones
                case _:
                    continue
            own = slice(group.start, group.start + len(group.cells))
            free = self.program.ub[own] > 0.0
            total += float((self.program.c[own] * np.maximum(beyond[group.cells], 0.0) * free).sum())
        return total

    def conflicts(self, x: FloatArray, least: float = _NOISE) -> tuple[Conflict, ...]:
        """The limits that give way at a point of the elastic program, by more than a share of their scale, largest
        weight first."""
        found: list[Conflict] = []
        for group in self.slacks:
            values = x[group.start : group.start + len(group.cells)]
            scale = self.program.col_scale[group.start : group.start + len(group.cells)]
            for k in np.flatnonzero(values > least * scale):
                cost = self.program.c[group.start + k] * values[k]
                found.append(self._conflict(group, int(group.cells[k]), float(values[k]), float(cost), x))
        return tuple(sorted(found, key=lambda c: -c.weight))

    def _conflict(self, group: _Slacks, cell: int, slack: float, cost: float, x: FloatArray) -> Conflict:
        original, block = self.original, group.block
        element, step = block.place(cell)
        factor = float(np.broadcast_to(block.to_unit, (len(block.elements), 1))[block.elements.index(element), 0])
        unit = block.unit
        limit = _limit(original, group, cell, x)
        if group.kind == "product":
            p = original.products
            slack *= float((p.v[cell : cell + 1] @ x[: original.n])[0] + p.v0[cell])
        value = limit - group.sign * slack
        # what compares squares is shown by its size; the unit of a product row is that of the size, unless it says so
        if unit.endswith("^2"):
            value, limit = np.sqrt(max(value * factor, 0.0)), np.sqrt(max(limit * factor, 0.0))
            unit = _ROOTS.get(unit, unit[:-2])
        elif group.kind == "product":
            value, limit = np.sqrt(max(value, 0.0)) * factor, np.sqrt(max(limit, 0.0)) * factor
        else:
            value, limit = value * factor, limit * factor
        element = element.removesuffix(f" @{step}")  # of cells at some steps only, which are named by them
        return Conflict(block.name, element, step, float(value), float(limit), abs(value - limit), unit, cost)


def _limit(program: Program, group: _Slacks, cell: int, x: FloatArray) -> float:
    """The limit of a cell as it stands; for a product row u v at the point."""
    low = group.sign > 0
    match group.kind:
        case "variable":
            return float((program.lb if low else program.ub)[cell])
        case "inequality":
            side = float((program.l if low else program.u)[cell])
            return side + (float(program.ineq_offset[cell]) if len(program.ineq_offset) else 0.0)
        case "equality":
            return float(program.b[cell])
        case "quadratic":
            side = float((program.quadratics.l if low else program.quadratics.u)[cell])
            return side + (float(program.quadratic_offset[cell]) if len(program.quadratic_offset) else 0.0)
        case _:
            p, y = program.products, x[: program.n]
            row = slice(cell, cell + 1)
            u = float((p.u[row] @ y)[0] + p.u0[cell])
            return u * float((p.v[row] @ y)[0] + p.v0[cell])


def elastic(program: Program) -> ElasticProgram:
    """The program with a slack on every limit and the weighted sum of slacks as its objective."""
    maker = _Maker(program)
    for block in program.variables:
        if block.limit:
            cells = np.arange(block.start, block.start + block.size)
            lower = cells[np.isfinite(program.lb[cells])]
            upper = cells[np.isfinite(program.ub[cells])]
            cap = 0.9 * program.lb[lower] if block.unit == _SQUARED else np.full(len(lower), np.inf)
            maker.add(block, "variable", 1.0, lower, program.col_scale[lower], cap)
            maker.add(block, "variable", -1.0, upper, program.col_scale[upper])
    for block in program.inequalities:
        if block.limit:
            cells = np.arange(block.start, block.start + block.size)
            lower, upper = cells[np.isfinite(program.l[cells])], cells[np.isfinite(program.u[cells])]
            maker.add(block, "inequality", 1.0, lower, 1.0 / program.ineq_scale[lower])
            maker.add(block, "inequality", -1.0, upper, 1.0 / program.ineq_scale[upper])
    for block in program.equalities:
        if block.limit:
            cells = np.arange(block.start, block.start + block.size)
            for sign in (1.0,) if block.only_less else (1.0, -1.0):
                maker.add(block, "equality", sign, cells, 1.0 / program.eq_scale[cells])
    for block in program.product_blocks:
        if block.limit:
            cells = np.arange(block.start, block.start + block.size)
            maker.add(block, "product", -1.0, cells, 1.0 / program.product_scale[cells])
    q = program.quadratics
    for block in program.quadratic_blocks:
        if block.limit:
            cells = np.arange(block.start, block.start + block.size)
            lower, upper = cells[np.isfinite(q.l[cells])], cells[np.isfinite(q.u[cells])]
            cap = 0.9 * q.l[lower] if block.unit == _SQUARED else np.full(len(lower), np.inf)
            maker.add(block, "quadratic", 1.0, lower, 1.0 / program.quadratic_scale[lower], cap)
            maker.add(block, "quadratic", -1.0, upper, 1.0 / program.quadratic_scale[upper])
    return maker.make()


class _Maker:
    """Collects slacks, then builds the elastic program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.groups: list[_Slacks] = []
        self.blocks: list[Block] = []
        self.weight: list[FloatArray] = []
        self.scale: list[FloatArray] = []
        self.cap: list[FloatArray] = []
        self.n = program.n

    def add(
        self, block: Block, kind: str, sign: float, cells: IntArray, scale: FloatArray, cap: FloatArray | None = None
    ) -> None:
        if not len(cells):
            return
        side = "under" if sign > 0 else "over"
        names = tuple(f"{element} @{step}" for element, step in map(block.place, cells.tolist()))
        self.blocks.append(
            Block(block.component, f"{block.quantity}_{side}", names, 1, self.n, block.unit, np.ones(()), limit=False)
        )
        self.groups.append(_Slacks(block, kind, sign, cells, self.n))
        self.weight.append((VOLTAGE_WEIGHT if block.unit == _SQUARED else 1.0) / scale)
        self.scale.append(scale)
        self.cap.append(np.full(len(cells), np.inf) if cap is None else cap)
        self.n += len(cells)

    def _columns(self, kind: str, n_rows: int) -> sp.csr_array:
        """Coefficients of the slacks in rows of one kind, shape (rows, slacks)."""
        own = [group for group in self.groups if group.kind == kind]
        rows = np.concatenate([group.cells for group in own]) if own else np.zeros(0, dtype=np.int64)
        cols = [np.arange(len(g.cells)) + g.start - self.program.n for g in own]
        values = [np.full(len(g.cells), g.sign) for g in own]
        return sp.csr_array(
            (
                np.concatenate(values) if own else np.zeros(0),
                (rows, np.concatenate(cols) if own else np.zeros(0, dtype=np.int64)),
            ),
            shape=(n_rows, self.n - self.program.n),
        )

    def make(self) -> ElasticProgram:
        p, extra = self.program, self.n - self.program.n
        # elastic bounds of variables become rows
        soft = np.zeros(p.n, dtype=bool)
        for group in self.groups:
            if group.kind == "variable":
                soft[group.cells] = True
        rows = np.flatnonzero(soft)
        pick = sp.csr_array((np.ones(len(rows)), (np.arange(len(rows)), rows)), shape=(len(rows), p.n))
        bound_rows = sp.csr_array(sp.hstack([pick, self._columns("variable", p.n)[rows]]))
        g = sp.csr_array(sp.vstack([sp.hstack([p.g, self._columns("inequality", len(p.l))]), bound_rows]))
        elements = tuple(f"{i}" for i in rows)
        bound_block = Block("elastic", "bounds", elements, 1, len(p.l), "", np.ones(()), limit=False)

        def wide(matrix: sp.csr_array, add: sp.csr_array | None = None) -> sp.csr_array:
            return sp.csr_array(
                sp.hstack([matrix, sp.csr_array((matrix.shape[0], extra)) if add is None else add], format="csr")
            )

        old = p.products
        products = ProductRows(
            wide(old.a),
            old.a0,
            old.a_row,
            wide(old.u, -self._columns("product", old.n_rows)),
            old.u0,
            wide(old.v),
            old.v0,
            old.equality,
        )
        bent = p.quadratics
        quadratics = QuadraticRows(
            wide(bent.f),
            bent.f0,
            wide(bent.g),
            bent.g0,
            bent.row,
            wide(bent.w, self._columns("quadratic", bent.n_rows)),
            bent.l,
            bent.u,
        )
        weight = np.concatenate([np.zeros(p.n), *self.weight])
        program = dataclasses.replace(
            p,
            c=weight,
            c0=0.0,
            q=sp.csc_array((self.n, self.n)),
            a=wide(p.a, self._columns("equality", len(p.b))),
            g=g,
            l=np.concatenate([p.l, p.lb[rows]]),
            u=np.concatenate([p.u, p.ub[rows]]),
            lb=np.concatenate([np.where(soft, -np.inf, p.lb), np.zeros(extra)]),
            ub=np.concatenate([np.where(soft, np.inf, p.ub), *self.cap]),
            products=products,
            quadratics=quadratics,
            semidefinite=SemidefiniteRows(wide(p.semidefinite.m), p.semidefinite.m0, p.semidefinite.dims),
            derived=(),
            assumptions=(),
            col_scale=np.concatenate([p.col_scale, *self.scale]),
            ineq_scale=np.concatenate([p.ineq_scale, 1.0 / p.col_scale[rows]]),
            objective_scale=1.0,
            variables=p.variables + tuple(self.blocks),
            inequalities=p.inequalities + ((bound_block,) if len(rows) else ()),
            outputs=(),
            slots={},
            maps={},
            start_point=np.concatenate([p.start_point, np.zeros(extra)]),
            tree=None,
        )
        return ElasticProgram(program, p, tuple(self.groups))


def explain(program: Program, solver: Solver, *, reduce: bool = False, max_solves: int = 20) -> tuple[Conflict, ...]:
    """The limits that make a program infeasible, largest first; empty when it is feasible after all.

    Args:
        program: the infeasible program; give a convex one (a relaxation) for a proof, the exact one for a local answer.
        solver: a solver that accepts its class.
        reduce: then forbid the smallest group of conflicts (one block of one element) after another, and keep it
            forbidden when the weighted sum stays below `_GROWTH` times the first. Fewer names, larger amounts.
        max_solves: limit of such attempts.
    """
    soft = elastic(program)
    solution = solver.solve(soft.program)
    found = _found(soft, solution)
    if not reduce or not found:
        return found
    most = _GROWTH * sum(c.weight for c in found)
    kept: set[tuple[str, str]] = set()
    for _ in range(max_solves):
        groups: dict[tuple[str, str], float] = {}
        for c in found:
            groups[c.block, c.element] = groups.get((c.block, c.element), 0.0) + c.weight
        open_groups = [group for group in groups if group not in kept]
        if len(groups) < 2 or not open_groups:
            break
        smallest = min(open_groups, key=lambda group: groups[group])
        tried = _without(soft, smallest)
        again = solver.solve(tried.program)
        fewer = _found(tried, again)
        if fewer and sum(c.weight for c in fewer) <= most:
            soft, found = tried, fewer
        else:
            kept.add(smallest)
    return found


def settled(program: Program, found: Solution, solver: Solver, *, until: float = np.inf) -> Solution:
    """A word on a program that is not convex, of which a solver has none: its least violation nearby.

    Where that is nothing, the solver starts again from there: a restoration phase that is a solve of its own.

    Args:
        program: a program that is not convex.
        found: what the solver ended with.
        solver: the solver.
        until: time of `time.perf_counter` at which no further solve is begun, and the last one is to end.

    Returns:
        ``found`` as locally infeasible where some violation is the least nearby, the solution from there where none is;
        else ``found`` as it is. Iterations and seconds are those of all.
    """
    if time.perf_counter() >= until:
        return found
    make, options = type(solver), solver.options
    soft = elastic(program)
    least = make(dataclasses.replace(options, tolerance=LOCAL_TOLERANCE).within(until)).solve(soft.program)
    spent = [found, least]
    if least.status is Status.OPTIMAL:
        amount = soft.program.objective(least.x)
        if amount > LOCAL_SUM:
            said = f"{found.message}; the least violation nearby is not zero (weighted sum {amount:.2g})"
            found = dataclasses.replace(found, status=Status.LOCALLY_INFEASIBLE, message=said)
        elif time.perf_counter() < until:
            found = make(options.within(until)).solve(dataclasses.replace(program, start_point=least.x[: program.n]))
            spent.append(found)
    return dataclasses.replace(
        found, iterations=sum(s.iterations for s in spent), seconds=sum(s.seconds for s in spent)
    )


def proved(program: Program, found: Solution, solver: Solver, *, until: float = np.inf) -> Solution:
    """A word on a convex program, of which a solver has none: infeasible where its limits cannot be met by any amount.

    A ray that proves infeasibility grows without limit, and where limits are missed by little it is not found to the
    last digits. The least violation is a program that always has an optimum.

    Args:
        program: a convex program.
        found: what the solver ended with.
        solver: the solver.
        until: see `settled`.

    Returns:
        ``found`` as infeasible where the least violation is above zero; else as it is. Iterations and seconds are those
        of both.
    """
    if time.perf_counter() >= until:
        return found
    soft = elastic(program)
    options = dataclasses.replace(solver.options, tolerance=CONVEX_TOLERANCE)
    least = type(solver)(options.within(until)).solve(soft.program)
    seconds, iterations = found.seconds + least.seconds, found.iterations + least.iterations
    found = dataclasses.replace(found, seconds=seconds, iterations=iterations)
    amount = soft.program.objective(least.x) if least.status is Status.OPTIMAL else 0.0
    if not amount > CONVEX_SUM:
        return found
    said = f"{found.message}; the least violation of the limits is not zero (weighted sum {amount:.2g})"
    return dataclasses.replace(found, status=Status.INFEASIBLE, message=said)


def _found(soft: ElasticProgram, solution: Solution) -> tuple[Conflict, ...]:
    if solution.status not in (Status.OPTIMAL, Status.INACCURATE) or not np.all(np.isfinite(solution.x)):
        return ()
    return soft.conflicts(solution.x)


def _without(soft: ElasticProgram, group: tuple[str, str]) -> ElasticProgram:
    """The elastic program with the slacks of one element of one block at zero."""
    name, element = group
    upper = soft.program.ub.copy()
    for slacks in soft.slacks:
        if slacks.block.name == name:
            block = slacks.block
            inside = block.elements.index(element)
            own = (slacks.cells - block.start) // block.n_steps == inside
            upper[slacks.start + np.flatnonzero(own)] = 0.0
    return dataclasses.replace(soft, program=dataclasses.replace(soft.program, ub=upper))
