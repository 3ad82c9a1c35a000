"""AreaRounds: one area's part of the rounds of a formulation to first order, see `lateral.areas.successive`.

The area is a program like any other, with what neighbours say of its borders kept as decisions are: the voltages of its
head, the powers of its tails. All else follows, by its own exact rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lateral.areas.flow import FLOW_UP
from lateral.areas.message import Values
from lateral.areas.quantities import POWERS
from lateral.devices import BorderHead, BorderTail
from lateral.devices.border import VARIABLES
from lateral.first_order import At, chosen
from lateral.formulations import OperatingPoint
from lateral.model import Model, point_of
from lateral.network.schema import FloatArray, IntArray
from lateral.program import Block, Program
from lateral.program.program import Slot
from lateral.results.result import Result
from lateral.solvers import Solution, Status
from lateral.successive import MOST_MADE, NO_STEP, Rounds

#: What an area says of a step, and of what it brings.
OF_STEP = ("promised", "objective", "floor", "length", "anew", "left")
OF_FLOW = ("gained", "bent", "away")
#: What a head is told and what a tail is told, in the order of `Model` variables.
_TOLD = {"border_head": ("v_re", "v_im"), "border_tail": POWERS}


class AreaRounds:
    """The points at which an area is made, one after the other.

    Args:
        model: the built area, in consensus.
        point: the operating point that it was built at.
        unpriced: a program without what borders cost.
    """

    def __init__(self, model: Model, point: OperatingPoint, unpriced: Callable[[Program], Program]) -> None:
        assert model.tangent is not None
        self.model, self.point, self.unpriced = model, point, unpriced
        self.state = self._started(model)
        self._solution: Solution | None = None
        self._there: At | None = None
        #: how often it was built again for loads that left their band, and whether it was by the last move
        self._made, self._anew = 0, False
        #: whether it could not be brought to its point in a program that was written again
        self._lost = False

    def _started(self, model: Model) -> Rounds:
        assert model.tangent is not None
        program = self.unpriced(model.program)
        x, place = program.start_point.copy(), {node: k for k, node in enumerate(self.point.nodes)}
        for head in model.case.of(BorderHead):
            v = self.point.v_pu[[place[head.bus, c] for c in head.crossing]]
            for name, part in (("v_re", v.real), ("v_im", v.imag)):
                cells, _ = _cells(program, f"border_head.{name}", _rows(head))
                x[cells] = part
        program = model.tangent.moved(program, x)
        return Rounds.start(model.case, model.tangent, model.network, program, told=told_of(program))

    def step(self, result: Result) -> dict[str, float]:
        """The step that a result is, from the present point.

        Returns:
            ``promised``, the decrease of the area's merit that the program promises; ``objective``, its own at the
            step; ``floor``, below which a relative difference of it means nothing; ``length``, of the longest change of
            a decision as a share of its range; ``anew``, 1 where the present point is no power flow of a schedule, or
            loads had another law there; ``left``, 1 where they still have it. NaN where it is no step.
        """
        self.keep_up()
        self._solution, self._there = result.solution, None
        off = result.residuals
        near = result.status is Status.INACCURATE and max(off.max_primal, off.max_bound) <= NO_STEP
        if self._lost or not (result.ok or near):
            return dict.fromkeys(OF_STEP, np.nan)
        self.state.weigh(result.solution)
        x = result.solution.x
        return {
            "promised": self.state.predicted(result.solution),
            "objective": self.state.at.program.objective(x),
            "floor": self.state.at.program.objective_floor,
            "length": self.state.length(x),
            "anew": float(self._anew or self.state.at.strange),
            "left": float(self.state.at.astray),
        }

    def flow(self, result: Result, borders: Mapping[str, Values]) -> dict[str, Any]:
        """The exact rows of the area for the set-points of its last step, between what its neighbours say.

        Args:
            result: the last result, whose set-points these are.
            borders: of a head ``v_re`` and ``v_im``, of a tail ``p`` and ``q``; a border that is not there is as it
                was, at first as in the step.

        Returns:
            ``borders``, the same of the other side (`lateral.areas.flow`); ``settled``, by step, whether the rows are
            solved; and what the step brings by them: ``gained``, the decrease of the merit; ``bent``, what the
            curvature cost that was given by prices of losses; ``away``, how far its voltages are from those of the
            program, pu.
        """
        assert self._solution is not None
        state, tangent, solution = self.state, self.state.tangent, self._solution
        if self._there is None:
            program, x = tangent.reweighed(state.at.program, solution, solution.x, state.factor), solution.x.copy()
        else:
            program, x = self._there.program, self._there.x.copy()
        for kind, device in self._borders():
            for quantity, values in borders.get(device.name, {}).items():
                if quantity in _TOLD[kind]:
                    name = f"{kind}.{VARIABLES.get(quantity, quantity)}"
                    cells, to_unit = _cells(program, name, _rows(device))
                    x[cells] = np.asarray(values, dtype=float) / to_unit
        exact = tangent.solved(program, x, state.fixed)
        solved = not isinstance(exact, str)
        if not isinstance(exact, str):
            x, _ = chosen(tangent, exact, exact.start_point, state.fixed)
            self._there = At.of(tangent.moved(exact, x), state.held)
        out: dict[str, Any] = {"borders": self._said(result, x), "settled": [solved] * self.model.case.horizon.n_steps}
        return out | (self._judged(solution, self._there) if solved and self._there is not None else {})

    def _borders(self) -> list[tuple[str, BorderHead | BorderTail]]:
        """The area's borders, with what they are to it."""
        case = self.model.case
        heads = [("border_head", head) for head in case.of(BorderHead)]
        return [*heads, *(("border_tail", tail) for tail in case.of(BorderTail))]

    def _said(self, result: Result, x: FloatArray) -> dict[str, Values]:
        """What neighbours need of a point, as the power flow of areas says it."""
        at = dataclasses.replace(result, solution=dataclasses.replace(result.solution, x=x))
        out: dict[str, Values] = {}
        for head in self.model.case.of(BorderHead):
            names = _rows(head)
            values = {x: rows_of(at, f"border_head.{x}", names) for x in ("v_re", "v_im")}
            values |= {x: rows_of(at, f"feed.{x}", names) for x in POWERS}
            none = np.zeros_like(values["p"])
            out[head.name] = {x: values.get(x, none) for x in FLOW_UP}
        for tail in self.model.case.of(BorderTail):
            names = [f"{tail.bus}.{c}" for c in tail.crossing]
            out[tail.name] = {x: rows_of(at, f"node.{x}", names) for x in ("v_re", "v_im")}
        return out

    def _judged(self, solution: Solution, there: At) -> dict[str, float]:
        """What a step brings by its exact rows, see `flow`."""
        state = self.state
        off = np.abs(solution.x - there.x)
        voltages = [block.cells for block in there.program.variables if block.name in ("bus.v_re", "bus.v_im")]
        return {
            "gained": state.at.merit(state.weights) - there.merit(state.weights),
            "bent": state.tangent.curvature(state.at.program, solution.x),
            "away": max(float(off[cells].max(initial=0.0)) for cells in voltages),
        }

    def move(self, result: Result, *, accept: bool, radius: float, factor: float) -> OperatingPoint | None:
        """Go to the point of the last step, or stay; with a trust region and a share of the curvature from now on.

        Args:
            result: the last result.
            accept: whether to go.
            radius: of the trust region, as a share of the range of each decision.
            factor: on the curvature of losses.

        Returns:
            the operating point at which the area was built again, where loads left the side of their band that was
            taken.
        """
        state = self.state
        assert self._solution is not None
        at = self._there if accept and self._there is not None else state.at
        program = state.tangent.reweighed(at.program, self._solution, at.x, factor)
        state.at = dataclasses.replace(at, program=state.tangent.moved(program, at.x))
        state.radius, state.factor = radius, factor
        self._anew = False
        point = None
        if accept and at.left and self._made < MOST_MADE:
            there = dataclasses.replace(result.solution, x=at.x)
            v_pu = point_of(dataclasses.replace(result, program=state.at.program, solution=there)).v_pu
            point = dataclasses.replace(self.point, v_pu=v_pu, injected_pu=np.zeros_like(v_pu), loaded=True)
            self._anew = self.model.make_at(point, result)
            self._made += self._anew
            self.keep_up()
        self.model.program = self.state.bounded()
        return point if self._anew else None

    def collect(self, program: Program) -> dict[str, Any]:
        """The point at which a program of the area is made, and what its curvature weighs, by block."""
        slots = self.state.tangent.weight_slots(program).values()
        return {
            "start": by_block(program.variables, program.start_point),
            "curvature": by_block(slots, program.theta),
        }

    def keep_up(self) -> None:
        """Be at the same point of the model's program, where limits that were left out were written since."""
        model, before = self.model, self.state
        if model.tangent is None or model.tangent is before.tangent:
            return
        old = {(b.name, b.elements): before.at.x[b.cells] for b in before.at.program.variables}
        state = self._started(model)
        x = state.at.x.copy()
        for block in state.at.program.variables:
            x[block.cells] = old.get((block.name, block.elements), x[block.cells])
        found = state.tangent.solved(state.at.program, x, state.fixed)
        self._lost = isinstance(found, str)
        if not isinstance(found, str):
            state.at = At.of(found, state.held)
        state.radius, state.factor = before.radius, before.factor
        self.state = state
        model.program = state.bounded()


def told_of(program: Program) -> IntArray:
    """Variables that neighbours say."""
    names = {f"{kind}.{VARIABLES.get(x, x)}" for kind, own in _TOLD.items() for x in own}
    cells = [np.arange(program.n)[block.cells] for block in program.variables if block.name in names]
    return np.concatenate([np.zeros(0, dtype=np.int64), *cells])


def _cells(program: Program, name: str, elements: Sequence[str]) -> tuple[IntArray, Any]:
    """Variables of some elements, shape (elements, T), and their unit."""
    block = next(block for block in program.variables if block.name == name)
    place = {element: k for k, element in enumerate(block.elements)}
    own = [place[element] for element in elements]
    return np.arange(program.n)[block.cells].reshape(len(block.elements), -1)[own], block.to_unit


def _rows(device: BorderHead | BorderTail) -> list[str]:
    """Names of a border's rows."""
    return [f"{device.name}.{c}" for c in device.crossing]


def rows_of(result: Result, name: str, elements: Sequence[str]) -> FloatArray:
    """Rows of a variable by element, shape (n, T)."""
    place = {e: k for k, e in enumerate(result.elements(name))}
    return result.value(name)[[place[e] for e in elements]]


def by_block(
    blocks: Iterable[Block | Slot], vector: FloatArray, without: Mapping[str, Collection[str]] | None = None
) -> dict[str, Any]:
    """A vector as ``{block: [{"elements": names, "values": (n, T)}, ...]}``, without some elements of some blocks."""
    out: dict[str, Any] = {}
    for block in blocks:
        values = vector[block.cells].reshape(len(block.elements), block.n_steps)
        gone = (without or {}).get(block.name, ())
        own = [k for k, element in enumerate(block.elements) if element not in gone]
        elements = [block.elements[k] for k in own]
        out.setdefault(block.name, []).append({"elements": elements, "values": values[own]})
    return out


__all__ = ["OF_FLOW", "OF_STEP", "AreaRounds", "by_block", "rows_of"]
