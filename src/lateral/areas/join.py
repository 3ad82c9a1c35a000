"""Join: the areas' schedules as one Result of the whole feeder.

The program of the whole is built, and every variable and dual is taken from the area that has it, by block and element.
So the residuals and the duality gap are those of the whole: where areas do not agree at a border, it shows as a
violation; where prices do not, as a gap, which for a convex model bounds the distance to the optimum without solving
it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu, spsolve

from lateral.areas.multipliers import of_least_gap
from lateral.formulations import Beside, OperatingPoint
from lateral.jumps import SIDE_PU, beyond_sides
from lateral.model import LEFT_SIDE, Model, objective_name
from lateral.network.admittance import NodeIndex
from lateral.network.schema import FloatArray
from lateral.program import Block, Program
from lateral.program.program import Slot
from lateral.results.residuals import earned_status, recompute
from lateral.results.result import Result
from lateral.solvers import Solution, Status
from lateral.solvers.base import reduced_cost

#: Limits that may be left out, and the dual from which one matters, in solver scale.
_LEFT_OUT = ("bus.vmag_sq", "branch.i_limit", "branch.s_limit")
COSTS = 1e-10
#: What schedules are moved by at most when they are joined, pu, and prices relative to the largest; what ties the
#: variables that no row does; and how far from its only bound a variable is free.
NEAR, TIE, FAR = 1e-4, 1e-14, 0.1
#: Rows that both areas of a border have, each with its part of the dual.
SHARED = ("bus.square",)
#: A component that is numbered as it comes.
_NUMBER = re.compile(r"(port)(\d*)")


def joined(
    whole: Model, parts: Sequence[Mapping[str, Any]], *, iterations: int, seconds: Mapping[str, float]
) -> Result:
    """The result of the whole from what the areas collected.

    Args:
        whole: the built problem of the whole feeder.
        parts: `AreaAgent.collect` of every area; where two have the same element the later one counts, so give
            parents before children.
        iterations: rounds.
        seconds: wall time by phase.
    """
    program = whole.program
    x = _to_ground(program, _vector(program.variables, parts, "variables", program.start_point))
    y = program.with_sums(_vector(program.equalities, parts, "equalities", np.zeros(len(program.b))))
    w = _vector(program.inequalities, parts, "inequalities", np.zeros(len(program.l)))
    mu = _vector(program.product_blocks, parts, "products", np.zeros(program.products.n_rows)) / program.products.size
    nu = _vector(program.quadratic_blocks, parts, "quadratics", np.zeros(program.quadratics.n_rows))
    kappa = _vector(program.curve_blocks, parts, "curves", np.zeros(program.curves.n_rows))
    zeta = _matrices(program, parts) / program.semidefinite.size
    if whole.tangent is not None:
        x, y = _met(program, x, y, lambda x: reduced_cost(program, x, y, w, mu, nu, kappa, zeta))
    z = reduced_cost(program, x, y, w, mu, nu, kappa, zeta)
    solution = Solution(x, y, w, mu, z, Status.OPTIMAL, "areas", iterations, 0.0, "joined from areas", nu, kappa, zeta)
    residuals = recompute(program, solution)
    status = earned_status(program, solution, residuals)
    if status is not Status.OPTIMAL:
        solution, residuals = of_least_gap(program, solution)
        status = earned_status(program, solution, residuals)
    over = beyond_sides(program, x)
    if over > SIDE_PU and status is Status.OPTIMAL:
        status = Status.INACCURATE
    return Result(
        case=whole.case,
        formulation=whole.formulation.name,
        objective_name=objective_name(whole.objective),
        status=status,
        program=program,
        solution=solution,
        residuals=residuals,
        network=whole.network,
        seconds={**seconds, "total": sum(v for k, v in seconds.items() if k != "total")},
        choices=whole.choices,
        cautions=(f"{LEFT_SIDE.format(over)}, and building areas again did not mend it",) if over > SIDE_PU else (),
    )


def with_limits(whole: Model, parts: Sequence[Mapping[str, Any]]) -> Model:
    """The whole, built again with the limits that cost something in an area and that it left out itself.

    An exact form leaves out limits that seem far from binding, and looks at them after its own solve (`Model.solve`).
    Areas write more of them, and their duals belong to the optimality conditions of the whole.
    """
    program = whole.program
    blocks = (*program.inequalities, *program.quadratic_blocks, *program.product_blocks)  # to first order: inequalities
    known = {(b.name, e) for b in blocks for e in b.elements}
    missing = set()
    for part in parts:
        for name, rows in (*part["inequalities"].items(), *part["quadratics"].items(), *part["products"].items()):
            if name not in _LEFT_OUT:
                continue
            for row in rows:
                for element, values in zip(row["elements"], row["values"], strict=True):
                    size = float(np.abs(np.asarray(values, dtype=float)).max(initial=0.0))
                    if (name, element) not in known and size * program.objective_scale > COSTS:
                        missing.add(element)
    if whole.rebuild is None or not whole.formulation.lazy or not missing:
        return whole
    enforce = whole.enforced | missing
    return _made(whole, whole.point, enforce)


def at_points(whole: Model, parts: Sequence[Mapping[str, Any]]) -> Model:
    """The whole at the operating points of the areas, once an area was built again at another one: loads have the law
    of the same side in both.

    Args:
        whole: the built problem of the whole feeder.
        parts: see `joined`.
    """
    never = whole.point is None and not any(part.get("built_again") for part in parts)
    if whole.rebuild is None or never:
        return whole
    index = NodeIndex.of(whole.case.feeder)
    v_pu = np.zeros((len(index), whole.case.horizon.n_steps), dtype=complex)
    beside = Beside()
    for part in parts:
        point = part["point"]
        rows = [index.position[str(bus), int(c)] for bus, c in point["nodes"]]
        v_pu[rows] = np.asarray(point["v_re"], dtype=float) + 1j * np.asarray(point["v_im"], dtype=float)
        beside = beside.within(Beside.of_data(point["beside"]))
    known = whole.point
    if known is not None and np.array_equal(known.v_pu, v_pu) and known.beside.same_as(beside):
        return whole
    at = OperatingPoint(index.nodes, v_pu, np.zeros_like(v_pu), loaded=True, beside=beside)
    return _made(whole, at, whole.enforced)


def moved_to(whole: Model, parts: Sequence[Mapping[str, Any]]) -> Model:
    """The whole to first order at the points to which the areas went, with their curvature, if they did; see
    `lateral.areas.successive`."""
    if whole.tangent is None or not all("start" in part for part in parts):
        return whole
    program = whole.program
    slots = whole.tangent.weight_slots(program)
    weights = _vector(slots.values(), parts, "curvature", program.theta)
    program = program.update({name: weights[slot.cells].reshape(-1, slot.n_steps) for name, slot in slots.items()})
    x = _vector(program.variables, parts, "start", program.start_point)
    return dataclasses.replace(whole, program=whole.tangent.moved(program, x))


def _made(whole: Model, at: OperatingPoint | None, enforce: frozenset[str]) -> Model:
    """The whole, built anew at a point and with further limits."""
    assert whole.rebuild is not None
    fresh = whole.rebuild(whole.case, at=at, screen=whole.screened, enforce=enforce)
    fresh.point = at
    return fresh


def _vector(
    blocks: Iterable[Block | Slot], parts: Sequence[Mapping[str, Any]], kind: str, missing: FloatArray
) -> FloatArray:
    """One vector of the whole; what no area has keeps its value in ``missing``.

    Components that are numbered as they come (``port``, ``port2``: voltages that were read at ports) have other numbers
    in an area than in the whole. Of one element they come in the same order, and that is how they are known.
    """
    known: dict[tuple[str, str, int], FloatArray] = {}
    for part in parts:
        seen: Counter[tuple[str, str]] = Counter()
        for name, rows in sorted(part[kind].items(), key=lambda item: _numbered(item[0])):
            for row in rows:
                values = np.asarray(row["values"], dtype=float)
                for element, own in zip(row["elements"], values, strict=True):
                    at = _plain(name), element
                    before = known.get((*at, seen[at])) if name in SHARED else None
                    known[*at, seen[at]] = own if before is None else before + own
                    seen[at] += 1
    out = np.array(missing, dtype=float)
    met: Counter[tuple[str, str]] = Counter()
    for block in sorted(blocks, key=lambda b: _numbered(b.name)):
        for k, element in enumerate(block.elements):
            at = _plain(block.name), element
            found = known.get((*at, met[at]))
            met[at] += 1
            if found is not None and len(found) == block.n_steps:
                first = block.start + k * block.n_steps
                out[first : first + block.n_steps] = found
    return out


def _to_ground(program: Program, x: FloatArray) -> FloatArray:
    """Voltages of ungrounded islands, each island's all moved alike to where the sum of its balances has them.

    Areas hold the voltage to ground of an island at that of their operating point
    (`NetworkModel.inject_without_return`). No power depends on it, and only in the sum over the whole island is it seen
    what decides it: charging, or antifloat shunts. Where squares of voltages to ground are variables (objective
    `vdev`) something does depend on it, and nothing is moved.
    """
    blocks = {block.name: block for block in program.variables}
    if not program.sums or "node.vmag_sq" in blocks:
        return x
    balance = next(block for block in program.equalities if block.name == "bus.i_re")
    place = {element: k for k, element in enumerate(blocks["bus.v_re"].elements)}
    out = x.copy()
    for real, imaginary in zip(program.sums[::2], program.sums[1::2], strict=True):
        rows, n_steps = np.concatenate([real[0], imaginary[0]]), real.shape[1]
        members = np.array([place[balance.elements[k]] for k in (real[:, 0] - balance.start) // n_steps])
        step = np.arange(n_steps)
        own = [(blocks[f"bus.v_{part}"].start + members[:, None] * n_steps + step).ravel() for part in ("re", "im")]
        each = np.tile(step, len(members))
        at, of = np.concatenate(own), np.concatenate([each, n_steps + each])
        alike = sparse.csr_matrix((np.ones(len(at)), (at, of)), shape=(len(x), 2 * n_steps))
        a = program.a[rows]
        out[at] += spsolve((a @ alike).tocsc(), program.b[rows] - a @ x)[of]
    return out


def _met(
    program: Program, x: FloatArray, y: FloatArray, costs: Callable[[FloatArray], FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Free variables moved by as little as meets the equalities, and duals so that these cost nothing.

    Areas agree within a tolerance, and a stiff branch makes much of what is left: of 1e-7 of a voltage, beside a switch
    of a milliohm, 1e-4 of a current; likewise of prices. Rows to first order are linear, so that one step meets them,
    as small as what the areas differ by; where it is not, or is not found, all stays as it is. ``costs`` are the
    reduced costs at a point (those of losses grow with it).
    """
    inside = (x - program.lb > FAR) & ~np.isfinite(program.ub)  # squared voltages, which are above zero
    free = np.flatnonzero(~np.isfinite(program.ub) & (inside | ~np.isfinite(program.lb)))
    a = sparse.csc_matrix(program.a)[:, free]
    rows = np.unique(a.indices)
    a, n, m = a[rows], len(rows), len(free)
    if not m:
        return x, y
    eye = sparse.identity(n)
    # least changes of duals and, by the same matrix, of variables where they can meet every row, else nearly
    matrix = sparse.bmat([[eye, -a], [a.T, TIE * sparse.identity(m)]], format="csc")
    try:
        solve = splu(matrix).solve
    except RuntimeError:  # singular
        return x, y
    away = program.b[rows] - (program.a @ x)[rows]
    variable = solve(np.concatenate([-away, np.zeros(m)]))[n:]
    out_x, out_y = x.copy(), y.copy()
    if np.isfinite(variable).all() and np.abs(variable).max() <= NEAR:
        out_x[free] += variable
    dual = solve(np.concatenate([np.zeros(n), costs(out_x)[free]]))[:n]
    if np.isfinite(dual).all() and np.abs(dual).max() <= NEAR * np.abs(y).max(initial=0.0):
        out_y[rows] += dual
    return out_x, out_y


def _matrices(program: Program, parts: Sequence[Mapping[str, Any]]) -> FloatArray:
    """Duals of semidefinite rows, which are known by block and element alone."""
    known = {
        (name, element): np.asarray(own, dtype=float)
        for part in parts
        for name, rows in part["semidefinite"].items()
        for row in rows
        for element, own in zip(row["elements"], row["values"], strict=True)
    }
    out = np.zeros(len(program.semidefinite.m0))
    for block, cells in program.matrices_of():
        for element, places in zip(block.elements, cells, strict=True):
            own = known.get((block.name, element))
            if own is not None and len(own) == len(places):
                out[places] = own
    return out


def _numbered(name: str) -> tuple[str, int, str]:
    """A block's name as component, its number, quantity."""
    component, _, quantity = name.partition(".")
    found = _NUMBER.fullmatch(component)
    return (found[1], int(found[2] or 1), quantity) if found else (component, 1, quantity)


def _plain(name: str) -> str:
    """A block's name without the number of its component."""
    component, _, quantity = _numbered(name)
    return f"{component}.{quantity}"


__all__ = ["at_points", "joined", "with_limits"]
