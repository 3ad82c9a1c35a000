"""AreaAgent: one area and its solver. It takes what its neighbours say of the borders and says what it found there."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np

from lateral.areas.area_rounds import AreaRounds, by_block, rows_of
from lateral.areas.elastic import NOWHERE, ElasticTwin
from lateral.areas.flow import REACH, AreaFlow, without_return
from lateral.areas.message import I_MAX, Values
from lateral.areas.occurring import crossings, said
from lateral.areas.quantities import POWERS
from lateral.areas.slopes import Slopes, slopes_of
from lateral.case import Case
from lateral.devices import BorderHead, BorderTail
from lateral.devices.base import DeviceContext
from lateral.devices.border import SLOTS, VARIABLES, border_rows
from lateral.errors import LateralError, SolveError
from lateral.first_order import first_point
from lateral.formulations import Beside, OperatingPoint
from lateral.jumps import SIDE_PU, beyond_sides, crossed
from lateral.model import MOST_FALLS, MOST_JUMPS, MOST_LOOKS, Model, point_of
from lateral.network.admittance import Node
from lateral.network.schema import FloatArray
from lateral.objectives import Objective, VoltageDeviation
from lateral.objectives import get as objective_named
from lateral.opf import build, choose_formulation
from lateral.program import ProblemClass, Program
from lateral.results.result import Result
from lateral.solvers import ClarabelOptions, Options, Status
from lateral.solvers.elastic import Conflict

#: Rows that hold a voltage at what a head is told, and where a tail reads it.
_GIVEN = {"v": "feed.voltage", "v_re": "feed.v_re", "v_im": "feed.v_im"}
_READ = {"v": "bus.vmag_sq", "v_re": "node.v_re", "v_im": "node.v_im", "vv_re": "node.vv_re", "vv_im": "node.vv_im"}
#: Statuses without a point that could be used.
NO_POINT = (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE)
#: Clarabel's tolerance for rows to first order: it is relative to the costs, penalties and all, and prices of voltages
#: are small among those (with 1e-9 the gap of the certificate stays at 6e-4 where the area has no devices).
FIRST_ORDER_TOLERANCE = 1e-12
#: Statuses of a solver that gave up: no point either, where what it left breaks a row by more than `BROKEN`, pu.
GAVE_UP, BROKEN = (Status.LIMIT_REACHED, Status.ERROR), 1e-3


@dataclass(frozen=True, eq=False)
class Answer:
    """What an area says after a solve.

    Attributes:
        area: its name.
        status: earned status, as a word.
        text: the status as a sentence.
        borders: values at each border: of a head ``p, q, price_v``, of a tail ``v, price_p, price_q``; in consensus
            ``v, p, q`` of both. Where voltages are complex ``v_re, v_im`` stand in the place of ``v``, where they are
            matrices ``v, vv_re, vv_im``.
        objective: the area's own objective, without what borders cost.
        cost: energy cost at the source, $; of the root only.
        seconds: wall time of the solve.
        iterations: iterations of the solver.
        slack: how far the area left what it was given at its borders, pu^2 or on the power base, where that left it no
            feasible schedule; its status is then not optimal. See `lateral.areas.elastic`.
        slopes: how what it says moves with what it is told, where it was told a duality gap and its solver knows.
    """

    area: str
    status: str
    text: str
    borders: Mapping[str, Values]
    objective: float
    cost: float
    seconds: float
    iterations: int
    slack: float = 0.0
    slopes: Slopes | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What an area solves, apart from its case; plain data, so that it can be sent."""

    formulation: str = "auto"
    objective: str = "cost"
    coupling: str = "prices"
    solver: str = "auto"
    terminal: str = "equal"
    loss_term: bool = True
    limits: str = "all"
    tolerance: float | None = None
    share: float = 1.0
    point: str = "baseline"


class PointMissingError(LateralError):
    """The area's formulation is made at a power flow that the areas find together, and it was not told."""


@dataclass(frozen=True, slots=True)
class Again:
    """What came of a look at the sides of the bands of an area's loads.

    Attributes:
        built: whether the area was built again.
        left: whether loads are on another side than was taken, and it was not.
    """

    built: bool = False
    left: bool = False


class AreaAgent:
    """An area with its built problem and its solver, solved again and again with new border values."""

    def __init__(self, name: str, case: Case, task: Task) -> None:
        self.name, self.task = name, task
        self.case = with_coupling(case, task.coupling)
        self.heads = self.case.of(BorderHead)
        self.tails = self.case.of(BorderTail)
        #: the operating point that the model is made at, where its formulation wants one
        self.point: OperatingPoint | None = None
        #: what the areas below draw there, by border
        self._drawn: dict[str, Values] = {}
        #: tails whose currents add up to nothing at the point
        self._closed: frozenset[str] = frozenset()
        self._rows = {
            kind: {row: k for k, row in enumerate(border_rows(group))}
            for kind, group in (("border_head", self.heads), ("border_tail", self.tails))
        }
        self._options = None if task.tolerance is None else Options(tolerance=task.tolerance)
        self.result: Result | None = None
        #: whether the last solve was of the area in consensus
        self._went_over = False
        #: duality gap that its answers are to have, in consensus
        self._gap: float | None = None
        self._objective = own_objective(task.objective, task.share)
        self._explained: tuple[str, ...] = ()
        self._conflicts: tuple[Conflict, ...] | None = None
        #: how often it was built again, and how often of these because of jumps in the laws of loads
        self.built_again, self._for_jumps = 0, 0
        self._scaled: list[tuple[Model, frozenset[str]]] = []
        #: its part of the rounds, once it was asked for one
        self._rounds: AreaRounds | None = None
        self._flow = AreaFlow(self.case, loaded=task.point == "baseline")

    @cached_property
    def model(self) -> Model:
        """The built problem; built on first use."""
        return self._built(self.case)

    @cached_property
    def voltages(self) -> tuple[str, ...]:
        """What its formulation says of a voltage at a border."""
        return choose_formulation(self.case, self.task.formulation)[0].voltages

    @cached_property
    def _twin(self) -> ElasticTwin:
        return ElasticTwin(self.case, self._objective, self.voltages)

    @cached_property
    def _in_consensus(self) -> AreaAgent:
        """The same area with its borders in consensus; built where a run goes over to it."""
        other = AreaAgent(self.name, self.case, dataclasses.replace(self.task, coupling="consensus"))
        other.point, other._drawn, other._closed = self.point, self._drawn, self._closed
        other.built_again, other._for_jumps = self.built_again, self._for_jumps
        return other

    def _built(self, case: Case) -> Model:
        task = self.task
        if self.point is None and choose_formulation(case, task.formulation)[0].point != "none":
            message = "no operating point yet: the areas find it together, see lateral.areas.point"
            raise PointMissingError(message)
        model = build(
            self._with_returns(case),
            task.formulation,
            self._objective,
            terminal=task.terminal,
            loss_term=task.loss_term,
            limits=task.limits,
            point="baseline" if self.point is None else self.point,
        )
        if model.tangent is not None and self.point is not None and self.tails:
            plain, point = model.rebuild, self.point
            assert plain is not None

            def rebuild(
                case: Case, *, at: OperatingPoint | None, screen: bool, enforce: frozenset[str], beyond: float = 0.0
            ) -> Model:
                """For limits that were left out: it would be to first order at other powers than those drawn."""
                fresh = plain(case, at=at, screen=screen, enforce=enforce, beyond=beyond)
                self._pass_through(fresh, point)
                return fresh

            self._pass_through(model, point)
            model.rebuild = rebuild
        return model

    def _with_returns(self, case: Case) -> Case:
        """The case, its tails with what is known of currents that return by ground."""
        if not self._closed:
            return case
        devices = (
            dataclasses.replace(d, returns=False) if isinstance(d, BorderTail) and d.name in self._closed else d
            for d in case.devices
        )
        return case.with_(devices=tuple(devices))

    def _pass_through(self, model: Model, point: OperatingPoint) -> None:
        """Let a model that is to first order begin with what the areas below draw at the point, in place."""
        program = model.program
        start = program.start_point.copy()
        for x in POWERS:
            drawn = np.concatenate([np.asarray(self._drawn[tail.name][x], dtype=float) for tail in self.tails])
            slot = f"border_tail.{SLOTS[x]}"
            if slot in program.slots:
                program = program.update({slot: drawn})
            for block in program.variables:
                if block.name == f"border_tail.{x}":
                    start[block.cells] = (drawn / block.to_unit).reshape(-1)
        program = dataclasses.replace(program, start_point=start)
        assert model.tangent is not None
        model.program = first_point(program, model.tangent, model.case, point, model.network)

    def power_flow(self, borders: Mapping[str, Values], steps: Sequence[int] | None = None) -> dict[str, Any]:
        """The area's own power flow between given borders, without control, or unloaded where the task says nominal.

        Args:
            borders: see `AreaFlow.solve`.
            steps: given in the last request: the step whose voltages each step takes (its own, where all converge);
                models are made at this point from then on.

        Returns:
            ``borders``, what the neighbours need (with ``steps`` and a formulation that bounds currents, of the head
            also the largest current drawn behind it, and of both sides what can occur there), and ``settled``, which
            steps converge; and then ``free``, whether everything can.
        """
        out, settled = self._flow.solve(borders)
        free = True
        if steps is not None:
            kept = frozenset((head.bus, c) for head in self.heads for c in head.crossing)
            reach, crossing = self._reach(borders), crossings(borders, (*self.heads, *self.tails))
            self.point = dataclasses.replace(self._flow.point(steps), reach=reach, kept=kept, crossing=crossing)
            at = list(steps)  # power and voltage of the same step
            self._drawn = {
                tail.name: {x: np.asarray(borders[tail.name][x])[:, at] for x in POWERS} for tail in self.tails
            }
            self._closed = frozenset(tail.name for tail in self.tails if without_return(borders[tail.name], at))
            self._rounds = self.result = None
            for built in ("model", "_in_consensus"):
                self.__dict__.pop(built, None)
            self._conflicts = None
            if choose_formulation(self.case, self.task.formulation)[0].bounds_currents:
                most = _constants(self.model.program, f"feed.{REACH}")
                for head in self.heads:
                    rows = np.array([most[f"{head.name}.{c}"] for c in head.crossing])
                    out[head.name] = {**out[head.name], REACH: np.minimum(rows, I_MAX)}
                for device in (*self.heads, *self.tails):
                    occurs = self.model.crossing[device.bus]
                    free = free and occurs.free
                    out[device.name] = {**out[device.name], **said(occurs, self.case.horizon.n_steps)}
        return {"borders": out, "settled": settled, "free": free}

    def _reach(self, borders: Mapping[str, Values]) -> dict[Node, FloatArray]:
        """The largest current beyond each tail, pu by node, where it was said."""
        out: dict[Node, FloatArray] = {}
        for tail in self.tails:
            said = borders.get(tail.name, {})
            if REACH in said:
                amp = self.case.base.i_a(self.case.feeder.bus[tail.bus].v_base_kv)
                rows = np.asarray(said[REACH], dtype=float)
                rows = np.where(rows < I_MAX, rows / amp, np.inf)
                out |= {(tail.bus, c): row for c, row in zip(tail.crossing, rows, strict=True)}
        return out

    def solve(self, inputs: Mapping[str, Values], gap: float | None = None) -> Answer:
        """Solve with what the neighbours said last.

        Args:
            inputs: by border, the quantities of `head_in` and `tail_in`, or ``lin_x`` and ``w_x`` in consensus.
            gap: relative duality gap that the answer is to have, in consensus, where the problem is convex; it then
                also says its slopes. None: as small as it gets.
        """
        self._gap = gap
        self._went_over = self.task.coupling == "prices" and any(in_consensus(values) for values in inputs.values())
        if self._went_over:
            answer = self._in_consensus.solve(inputs, gap)
            self.result = self._in_consensus.result
            return answer
        begin = time.perf_counter()
        result = self._solved(inputs)
        self.result = result
        borders: dict[str, Values] = {}
        if result.has_values and has_point(result):
            for group in (self.heads, self.tails):
                for device in group:
                    borders[device.name] = self._said(device, result)
        status, text = self._verdict(result)
        centred = self._gap is not None and result.has_values
        slopes = slopes_of(self.model, self.heads, self.tails, self.voltages) if centred else None
        return Answer(
            self.name,
            status.word,
            text,
            borders,
            self._own_objective(result) if result.has_values else np.nan,
            result.cost if result.has_values else np.nan,
            time.perf_counter() - begin,
            result.solution.iterations,
            self._twin.slack if self._twin.in_use else 0.0,
            slopes,
        )

    def _solved(self, inputs: Mapping[str, Values]) -> Result:
        """The result at what the neighbours say; of the elastic twin, once the area itself had none."""
        twin = self._twin
        if not twin.in_use:
            result = self._run(self.model, inputs)
            if has_point(result):
                return result
            if self.task.coupling == "consensus":
                return self._with_reasons(result, inputs)
        model = twin.model(self._built, self.point)
        result = self._run(model, twin.inputs(inputs))
        twin.judge(result, inputs)
        # what its neighbours say stands in the way of nothing where the twin has no schedule either
        given = (model, twin.inputs(inputs)) if result.status in NO_POINT else (self.model, inputs)
        self._explained = twin.reasons(lambda: self._run(*given, explain=True))
        return result

    def _with_reasons(self, result: Result, inputs: Mapping[str, Values]) -> Result:
        """A result in consensus without a point, with the limits in the way: looked for once, as nothing that the area
        is told moves them."""
        if result.status not in NO_POINT:
            return result
        if self._conflicts is None:
            self._conflicts = self._run(self.model, inputs, explain=True).conflicts
        return dataclasses.replace(result, conflicts=self._conflicts)

    def _run(self, model: Model, inputs: Mapping[str, Values], *, explain: bool = False) -> Result:
        rounds = self._rounds if self._rounds is not None and model is self._rounds.model else None
        if rounds is not None:
            rounds.keep_up()
        model.program = model.program.update(self._data(model.program, inputs))
        if rounds is not None:  # bounds that are data, such as the sun, are back where they were
            model.program = rounds.state.within(model.program)
        if not any(model is other and model.enforced == limits for other, limits in self._scaled):
            # what borders cost may be all that an area pays, and is zero when it is built (also: built again, for more
            # limits)
            model.program = model.program.rescaled(self.case.horizon.n_steps)
            self._scaled = [*(pair for pair in self._scaled if pair[0] is not model), (model, model.enforced)][-2:]
        # sides of load bands are looked at when the areas agree, see `build_again`
        # Ipopt starts exactly where it ended before; the structured solver starts anew or from half way, which lets a
        # form that is not convex jump between optima from round to round
        options = self._options
        convex = model.program.problem_class is not ProblemClass.NLP
        asked = "vv_re" in self.voltages or (self._gap is not None and convex)
        if asked and self.task.solver in ("auto", "clarabel"):
            # how far Clarabel happens to get is 1e-6 of a voltage, times a heavy penalty, in every round's prices
            plain = options or ClarabelOptions()
            options = ClarabelOptions(centred=True, tolerance=plain.tolerance, gap=self._gap)
            # by its name: an answer that is a little unsure serves the next round as well, and for Ipopt, which would
            # try again, these cones are no problem that ends soon (IEEE 37, 2 steps: 31 s and more, half a second here)
            return model.solve("clarabel", options, explain_infeasible=explain, sides=False, one_way_only=False)
        if options is None and model.formulation.first_order and self.task.coupling == "consensus":
            tight = Options(tolerance=FIRST_ORDER_TOLERANCE)
            result = model.solve(
                self.task.solver, tight, explain_infeasible=False, sides=False, one_way_only=False, avoid="ipopt"
            )
            if result.ok:  # else as everywhere, with the other solver where Clarabel ends unsure
                return result
        return model.solve(
            self.task.solver, options, explain_infeasible=explain, sides=False, one_way_only=False, avoid="native"
        )

    def _verdict(self, result: Result) -> tuple[Status, str]:
        """The status of the area, and the sentence; where it leaves what it is given it is not optimal."""
        twin = self._twin
        if not twin.short:
            return result.status, result.status_text
        why = f": {'; '.join(self._explained[:5])}" if self._explained else ""
        if twin.stuck:
            found = f"the nearest is {twin.slack:.1e} pu away" if result.has_values else "nor at anything else"
            found = NOWHERE if result.status is Status.INFEASIBLE else found
            text = f"infeasible: no schedule is feasible at what its neighbours say, {found}{why}"
            return Status.INFEASIBLE, text
        text = f"limit reached: what its neighbours say was not feasible yet, by {twin.slack:.1e} pu{why}"
        return Status.LIMIT_REACHED, text

    def build_again(self, beside: Beside | None = None) -> Again:
        """Build the area again where loads left the side of their band that was taken, at its last schedule's voltages.

        What borders say stays, and the next solve begins at the schedule. See `Model.solve`, which does the same with a
        whole; a program that is not exact is left as it is.

        Args:
            beside: voltages that loads are to be kept from, because a power flow of the whole has them on the other
                side of a jump of their law.

        Returns:
            whether it was built again, and whether loads are on another side all the same.
        """
        if self._went_over:
            other = self._in_consensus
            again = other.build_again(beside)
            self.point, self.built_again = other.point, other.built_again
            return again
        result = self.result
        if result is None or self.point is None or result.status not in (Status.OPTIMAL, Status.INACCURATE):
            return Again()
        if not self.model.formulation.lazy or self.model.tangent is not None:
            return Again()
        program, x = result.program, result.solution.x
        kept, jumped = self.point.beside, beside is not None
        if beside is not None:
            ports = {port for a in program.assumptions if a.jumps is not None for port in a.block.elements}
            kept = kept.within(beside.of(ports))
            if kept.same_as(self.point.beside):
                return Again()
        elif beyond_sides(program, x) > SIDE_PU:
            across = crossed(program, x, kept, fall=self._for_jumps < MOST_FALLS)
            jumped, kept = across.count > 0, across.beside
        else:
            return Again()
        if self._for_jumps >= MOST_JUMPS if jumped else self.built_again - self._for_jumps >= MOST_LOOKS:
            return Again(left=True)
        self.built_again += 1
        self._for_jumps += jumped
        v_pu = point_of(result).v_pu
        still = np.zeros_like(v_pu)
        self.point = dataclasses.replace(self.point, v_pu=v_pu, injected_pu=still, loaded=True, beside=kept)
        self._scaled = [pair for pair in self._scaled if pair[0] is not self.model]
        self.__dict__.pop("_twin", None)  # what was infeasible before need not be now
        self._conflicts = None
        self.model.make_at(self.point, result)
        # at the new point the program's own voltages are those of the schedule
        self.model.start_from(result, voltages=False)
        return Again(built=True)

    def step(self) -> dict[str, float]:
        """The step from the point at which the area is made to its last schedule; see `AreaRounds.step`."""
        if self.task.coupling != "consensus" or not self.model.formulation.first_order:
            message = f"{self.model.formulation.name} with coupling {self.task.coupling!r} goes to no other point"
            raise SolveError(message)
        if self._rounds is None and self.result is not None and self.point is not None:
            self._rounds = AreaRounds(self.model, self.point, self._unpriced)
        rounds, result = self._stepping()
        return rounds.step(result)

    def schedule_flow(self, borders: Mapping[str, Values]) -> dict[str, Any]:
        """The exact rows of the last schedule between given borders; see `AreaRounds.flow`."""
        rounds, result = self._stepping()
        return rounds.flow(result, borders)

    def move(self, *, accept: bool, radius: float, factor: float) -> dict[str, Any]:
        """Go on from the last schedule, or with another trust region from where it is; see `AreaRounds.move`."""
        rounds, result = self._stepping()
        point = rounds.move(result, accept=accept, radius=radius, factor=factor)
        self._conflicts = None
        if point is not None:
            self.point, self.built_again = point, self.built_again + 1
            self._scaled = [pair for pair in self._scaled if pair[0] is not self.model]
        return {"moved": accept}

    def _stepping(self) -> tuple[AreaRounds, Result]:
        """Its part of the rounds, and its last result.

        Raises:
            PointMissingError: it was started again since.
        """
        if self._rounds is None or self.result is None:
            message = "no schedule yet from which to go on"
            raise PointMissingError(message)
        return self._rounds, self.result

    def collect(self) -> dict[str, Any]:
        """Every variable and every dual of the last solve, per unit, by block: for whoever owns the whole feeder.

        Beside them the operating point, and how often the area was built again at another one; to first order, once it
        has gone on from there, ``start``, the point that it is made at, and what its ``curvature`` weighs.
        """
        result = self.result
        if result is None or not result.has_values:
            kinds = ("variables", "equalities", "inequalities", "products", "quadratics", "curves", "semidefinite")
            return {kind: {} for kind in kinds}
        program, solution = result.program, result.solution
        # what the voltage at a head counts is the upper area's to say
        copied = {"node.vmag_sq": frozenset(f"{head.bus}.{c}" for head in self.heads for c in head.crossing)}
        return {
            "variables": by_block(program.variables, solution.x),
            "equalities": by_block(program.equalities, program.by_row(solution.eq_dual), copied),
            "inequalities": by_block(program.inequalities, solution.ineq_dual),
            # rows may be written in another size in the whole
            "products": by_block(program.product_blocks, solution.product_dual * program.products.size),
            "quadratics": by_block(program.quadratic_blocks, solution.quadratic_dual, copied),
            "curves": by_block(program.curve_blocks, solution.curve_dual),
            "semidefinite": _by_matrix(program, solution.semidefinite_dual * program.semidefinite.size),
            "point": {} if self.point is None else _point_data(self.point),
            **({} if self._rounds is None else self._rounds.collect(program)),
            "built_again": self.built_again,
        }

    def _data(self, program: Program, inputs: Mapping[str, Values]) -> dict[str, FloatArray]:
        values: dict[str, FloatArray] = {}
        for kind, group in (("border_head", self.heads), ("border_tail", self.tails)):
            for device in group:
                for quantity, new in inputs.get(device.name, {}).items():
                    name = f"{kind}.{SLOTS.get(quantity, quantity)}"
                    if name not in values:
                        slot = program.slots[name]
                        values[name] = program.theta[slot.cells].reshape(len(slot.elements), slot.n_steps).copy()
                    rows = [self._rows[kind][f"{device.name}.{c}"] for c in device.crossing]
                    values[name][rows] = new
        return values

    def _said(self, device: BorderHead | BorderTail, result: Result) -> Values:
        elements = [f"{device.name}.{c}" for c in device.crossing]
        if isinstance(device, BorderHead):
            p, q = rows_of(result, "feed.p", elements), rows_of(result, "feed.q", elements)
            if self.task.coupling == "consensus":
                own = {x: rows_of(result, f"border_head.{VARIABLES[x]}", elements) for x in self.voltages}
                return {**own, "p": p, "q": q}
            said = {"p": p, "q": q}
            if self.task.coupling == "prices":
                twin = self._twin
                for x in self.voltages:
                    said[f"price_{x}"] = (
                        twin.price(device.name, x) if twin.in_use else _duals_of(result, _GIVEN[x], elements)
                    )
            return said
        nodes = [f"{device.bus}.{c}" for c in device.crossing]
        v = {x: rows_of(result, _READ[x], nodes) for x in self.voltages}
        if self.task.coupling == "consensus":
            p, q = rows_of(result, "border_tail.p", elements), rows_of(result, "border_tail.q", elements)
            return {**v, "p": p, "q": q}
        if self.task.coupling == "prices":
            prices = {f"price_{x}": _duals_of(result, f"bus.{x}_balance", nodes) for x in ("p", "q")}
            return {**v, **prices}
        return v

    def _own_objective(self, result: Result) -> float:
        """The objective with nothing paid at the borders."""
        return self._unpriced(result.program).objective(result.solution.x)

    @staticmethod
    def _unpriced(program: Program) -> Program:
        """A program with nothing paid at the borders."""
        paid = [
            name
            for name in program.slots
            if name.split(".")[0] in ("border_head", "border_tail")
            and name.split(".")[1].startswith(("price_", "lin_", "w_"))
        ]
        return program.update({name: np.zeros((1, 1)) for name in paid}) if paid else program


def _by_matrix(program: Program, vector: FloatArray) -> dict[str, Any]:
    """Duals of semidefinite rows as `_by_block` has them, with the entries of an element's matrices after each other:
    (n, T entries)."""
    out: dict[str, Any] = {}
    for block, cells in program.matrices_of():
        out.setdefault(block.name, []).append({"elements": list(block.elements), "values": vector[cells]})
    return out


def _point_data(point: OperatingPoint) -> dict[str, Any]:
    """An operating point as plain data: nodes as ``bus, conductor``, voltages in pu, and what is kept beside jumps."""
    return {
        "nodes": [list(node) for node in point.nodes],
        "v_re": point.v_pu.real,
        "v_im": point.v_pu.imag,
        "beside": point.beside.data(),
    }


def with_coupling(case: Case, coupling: str) -> Case:
    """The case with all of its borders coupled one way."""
    return case.with_(
        devices=tuple(
            dataclasses.replace(d, coupling=coupling) if isinstance(d, BorderHead | BorderTail) else d
            for d in case.devices
        )
    )


@final
@dataclass(frozen=True)
class ShareOfMean(Objective):
    """An area's part of a mean over nodes; what a lost kWh is worth beside it stays that of the whole.

    Attributes:
        part: the objective.
        share: the area's part of the nodes.
    """

    part: VoltageDeviation
    share: float
    name: ClassVar[str] = VoltageDeviation.name
    title: ClassVar[str] = VoltageDeviation.title
    unit: ClassVar[str] = VoltageDeviation.unit
    floor: ClassVar[float] = VoltageDeviation.floor

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """The part, with the share of its weight."""
        self.part.declare(ctx, weight * self.share)

    def loss_price(self, ctx: DeviceContext) -> FloatArray:
        """That of the whole."""
        return self.part.loss_price(ctx)


def own_objective(objective: str | Objective, share: float) -> Objective:
    """An objective as an area's part of it: a mean over nodes counts with the area's share of the nodes."""
    goal = objective_named(objective) if isinstance(objective, str) else objective
    parts = [
        (ShareOfMean(part, share) if isinstance(part, VoltageDeviation) else part) * weight
        for weight, part in goal.terms
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def has_point(result: Result) -> bool:
    """Whether a result is a schedule that others may be told of."""
    broken = not result.residuals.max_primal <= BROKEN
    return result.status not in NO_POINT and not (result.status in GAVE_UP and broken)


def in_consensus(values: Values) -> bool:
    """Whether what an area is told at a border are linear and quadratic terms; see `lateral.areas.algorithms.auto`."""
    return any(x.startswith("lin_") for x in values)


def _constants(program: Program, name: str) -> dict[str, FloatArray]:
    """An output that does not depend on decisions, by element, shape (T,)."""
    out: dict[str, FloatArray] = {}
    for o in program.outputs:
        if o.block.name == name:
            values = o.value(program.start_point, program.theta) * o.block.to_unit
            out.update(zip(o.block.elements, values, strict=True))
    return out


def _duals_of(result: Result, name: str, elements: list[str]) -> FloatArray:
    """Duals of equalities by element, objective per kWh (or per pu^2), shape (n, T)."""
    out: dict[str, FloatArray] = {}
    hours = result.case.horizon.hours
    for block in result.program.equalities:
        if block.name == name:
            cells = result.solution.eq_dual[block.cells].reshape(len(block.elements), block.n_steps)
            per = hours if block.unit in ("kW", "kvar") else 1.0
            out.update(zip(block.elements, cells / block.to_unit / per, strict=True))
    for derived in result.program.derived:  # a price can be of the duals of other rows as well, see `Result.dual`
        if derived.dual and derived.block.name == name:
            s, counted = result.solution, np.where(hours > 0.0, hours, np.nan)
            cells = derived.of(s.x, s.eq_dual, s.quadratic_dual) / derived.block.to_unit / counted
            out.update(zip(derived.block.elements, cells, strict=True))
    return np.array([out[e] for e in elements])


__all__ = [
    "Again",
    "Answer",
    "AreaAgent",
    "PointMissingError",
    "Task",
    "in_consensus",
    "own_objective",
    "with_coupling",
]
