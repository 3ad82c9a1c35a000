"""A schedule as the point of a program to first order: where a program is made first, and what is said of a point.

`lateral.successive` goes from one such point to the next.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lateral.baseline import pv_baseline
from lateral.case import Case
from lateral.devices import PV, Battery
from lateral.formulations import OperatingPoint
from lateral.jumps import SIDE_PU, beyond_sides
from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Program
from lateral.program.tangent import Tangent
from lateral.results.points import decided

#: Violation of an equality at a power flow, in solver scale, that is more than corners of loads make: their power is
#: off by 3/16 of a thousandth there, in p and in q, at each load of a bus.
LEFT = 1e-3
#: Violation of an equality at a point, in solver scale, from which on it is no power flow of the program's schedule.
STRANGE = 1e-2
#: Tolerance of what is chosen at a power flow: the usual 1e-7 is 2e-5 $ of power bought on a base of 1 MVA.
CHOSEN = 1e-10


def first_point(program: Program, tangent: Tangent, case: Case, point: OperatingPoint, net: RadialNetwork) -> Program:
    """A program that was just built, made at its operating point: PV as without control, batteries idle."""
    x = program.start_point.copy()
    offered = {pv.label: pv_baseline(case, pv) for pv in case.pvs}
    for output in program.outputs:
        block, expr = output.block, output.affine
        if block.quantity not in ("p_injected", "q_injected"):
            continue
        labels = [f"{block.component}.{element}" for element in block.elements]
        known = np.array([label in offered for label in labels])
        if not np.any(known):
            continue
        side = int(block.quantity == "q_injected")
        cell_known = np.repeat(known, expr.n_steps)
        none = np.zeros(block.n_steps)
        wanted = np.array([offered[label][side] if label in offered else none for label in labels]) / block.to_unit
        has = (expr.col >= 0) & (expr.val != 0.0)
        # the decisions of a cell, one, or one for each of its ports, share what the power asks for
        cells = sp.csr_matrix((expr.val[has], (expr.row[has], expr.col[has])), shape=(expr.n * expr.n_steps, len(x)))
        squares = np.asarray(cells.multiply(cells).sum(axis=1)).reshape(-1)
        missing = (wanted - expr.value(x, program.theta)).reshape(-1)
        x += cells.T @ np.divide(missing, squares, out=np.zeros_like(squares), where=(squares > 0.0) & cell_known)
    x = np.clip(x, program.lb, program.ub)
    if tangent.state is None:
        return program
    v = in_order(net, point.nodes, point.v_pu)
    program = tangent.moved(program, tangent.state(program, x, v, loaded=point.loaded))
    return program.scaled_by_value(case.horizon.n_steps)


def at_any_voltage(case: Case, program: Program) -> Case:
    """The case with inverters as its program has them: where anything of their power is decided, that is their power at
    any voltage. In power flow otherwise, as in OpenDSS, they are impedances outside of their window."""
    own = decided(program)
    windowed = [d for d in case.devices if isinstance(d, PV | Battery) and d.label in own]
    if not windowed:
        return case
    wide = {d.label: dataclasses.replace(d, v_min_pu=0.0, v_max_pu=np.inf) for d in windowed}
    return case.with_(devices=tuple(wide.get(d.label, d) for d in case.devices))


def in_order(net: RadialNetwork, nodes: tuple[tuple[str, int], ...], v_pu: ComplexArray) -> ComplexArray:
    """Voltages in the order of the branches' nodes."""
    place = {node: k for k, node in enumerate(nodes)}
    return v_pu[[place[node] for node in net.nodes]]


@dataclass(frozen=True, slots=True, eq=False)
class At:
    """A schedule with its power flow.

    Attributes:
        program: the program made there; its start point is the point.
        violation: by how much each row is violated: equalities (in solver scale), two-sided rows, cones, and bounds of
            what follows from the voltages.
        v_pu: voltages of all nodes in the order of `NodeIndex`, shape (n, T); None at a first point.
    """

    program: Program
    violation: tuple[FloatArray, FloatArray, FloatArray, FloatArray]
    v_pu: ComplexArray | None = None

    @property
    def x(self) -> FloatArray:
        """The variables."""
        return self.program.start_point

    @property
    def left(self) -> bool:
        """Whether loads have gone where the program does not have their law: beyond the side of an edge of their band
        that was taken, or its equalities do not hold."""
        return self.astray or bool(np.max(self.violation[0], initial=0.0) > LEFT)

    @property
    def astray(self) -> bool:
        """Whether a voltage is beyond the side of an edge that was taken."""
        return beyond_sides(self.program, self.x) > SIDE_PU

    @property
    def strange(self) -> bool:
        """Whether the point is no power flow of its schedule, by the program's equalities."""
        return bool(np.max(self.violation[0], initial=0.0) > STRANGE)

    @classmethod
    def of(cls, program: Program, held: IntArray, v_pu: ComplexArray | None = None) -> At:
        """The exact violations at the point of a program; ``held`` are variables whose bounds are limits."""
        x = program.start_point
        off = np.abs(program.a @ x - program.b) * program.eq_scale
        return cls(program, (off, *beyond(program, held, x)), v_pu)

    def merit(self, weights: Weights) -> float:
        """Objective and weighted violation of the rows."""
        return self.program.objective(self.x) + weighed(weights, self.violation[1:])


#: Weight of the violation of each two-sided row, cone and bound.
Weights = tuple[FloatArray, FloatArray, FloatArray]


def weighed(weights: Weights, violation: Weights) -> float:
    """Violations times their weights, summed."""
    return float(sum(w @ v for w, v in zip(weights, violation, strict=True)))


def beyond(program: Program, held: IntArray, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """By how much two-sided rows, cones and bounds are violated."""
    middle = program.g @ x
    rows = np.maximum(np.maximum(program.l - middle, middle - program.u), 0.0)
    cones = np.maximum(program.products.value(x), 0.0) if program.products.n_rows else np.zeros(0)
    bounds = np.maximum(np.maximum(program.lb[held] - x[held], x[held] - program.ub[held]), 0.0)
    return rows, cones, bounds


def chosen(tangent: Tangent, program: Program, x: FloatArray, decisions: IntArray) -> tuple[FloatArray, str]:
    """x with what is neither decided nor network at its best: variables that share a row with the network.

    Args:
        tangent: of the program.
        program: the program.
        x: its variables.
        decisions: those that are kept, beside the network.

    Returns:
        x, and why it stays as it was; empty where it does not.
    """
    known = np.zeros(program.n, dtype=bool)
    known[np.concatenate([*tangent.network, *tangent.followers, decisions])] = True
    seen = np.zeros(program.n, dtype=bool)
    seen[np.concatenate([np.zeros(0, dtype=np.int64), *tangent.network])] = True
    free = np.zeros(program.n, dtype=bool)
    for matrix in (program.a, program.g):
        touched = np.asarray(abs(matrix) @ seen.astype(float)) > 0.0
        free |= np.asarray(abs(matrix[np.flatnonzero(touched)]).sum(axis=0)).reshape(-1) > 0.0
    at = np.flatnonzero(free & ~known)
    if not len(at):
        return x, ""
    left = x.copy()
    left[at] = 0.0
    sides = []
    for matrix, low, high in ((program.a, program.b, program.b), (program.g, program.l, program.u)):
        own = sp.csr_array(matrix[:, at])
        rows = np.flatnonzero(np.diff(own.indptr))
        rest = (matrix @ left)[rows]
        sides.append((own[rows], low[rows] - rest, high[rows] - rest))
    from scipy.optimize import linprog  # only where something is left to choose

    (a, b, _), (g, low, high) = sides
    upper, lower = np.isfinite(high), np.isfinite(low)
    found = linprog(
        program.c[at] * program.objective_scale,
        A_ub=sp.vstack([g[upper], -g[lower]]) if g.shape[0] else None,
        b_ub=np.concatenate([high[upper], -low[lower]]) if g.shape[0] else None,
        A_eq=a if a.shape[0] else None,
        b_eq=b if a.shape[0] else None,
        bounds=np.stack([program.lb[at], program.ub[at]], axis=1),
        options={"primal_feasibility_tolerance": CHOSEN, "dual_feasibility_tolerance": CHOSEN},
    )
    if found.status != 0:
        why = "no choice keeps every row there" if found.status == 2 else found.message
        return x, f"what is left to choose at a power flow stays as predicted: {why}"
    out = x.copy()
    out[at] = found.x
    return out, ""


__all__ = ["At", "Weights", "at_any_voltage", "beyond", "chosen", "first_point", "in_order", "weighed"]
