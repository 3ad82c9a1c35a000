"""The one place where network, devices, formulation, objective and solver meet."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lateral import formulations, objectives, solvers
from lateral.case import Case
from lateral.checks import require
from lateral.devices import PV, TERMINAL_RULES, Battery
from lateral.devices.base import Device, DeviceContext, ShuntDevice
from lateral.errors import OptionError, SolveError, UnsupportedError, did_you_mean
from lateral.formulations import Formulation, OperatingPoint
from lateral.io.dispatch import Dispatch
from lateral.network.admittance import Node
from lateral.network.branches import RadialNetwork, radial_network
from lateral.network.schema import FloatArray
from lateral.objectives import Objective
from lateral.objectives.base import per_step
from lateral.objectives.energy_cost import loss_price_of
from lateral.operating import NEUTRAL_PU, fits, operating_point
from lateral.program import ProblemClass, Program, ProgramBuilder
from lateral.replay import Prediction, replay
from lateral.results.residuals import earned_status, recompute
from lateral.results.result import Result
from lateral.solvers import Options, Session, Solution, Status
from lateral.solvers.elastic import explain

#: Exact programs up to this many variables are solved from their convex relaxation, which also bounds the optimum.
RELAX_UP_TO = 400_000
#: Which limits of a feeder enter a problem.
LIMITS = ("all", "voltage", "none")


@dataclass(eq=False)
class Model:
    """A built problem: solve it, update its data, solve it again without rebuilding.

    This is the one stateful object: it keeps the solver that was built and the last solution to start from.

    Attributes:
        case: the case it was built from, with updated data.
        formulation: the formulation.
        objective: the objective.
        program: the program with its present data.
        network: the branches.
        choices: what ``auto`` picked and why.
        seconds: wall time of the phases so far.
    """

    case: Case
    formulation: Formulation
    objective: Objective
    program: Program
    network: RadialNetwork
    choices: tuple[str, ...]
    seconds: dict[str, float]
    _session: tuple[str, Options | None, Session] | None = field(default=None, repr=False)
    _last: Solution | None = field(default=None, repr=False)

    def update(
        self,
        *,
        loads: Mapping[str, FloatArray] | FloatArray | None = None,
        loads_q: Mapping[str, FloatArray] | FloatArray | None = None,
        prices: FloatArray | float | None = None,
        initial: Mapping[str, float] | FloatArray | None = None,
        pv: Mapping[str, FloatArray] | FloatArray | None = None,
    ) -> Model:
        """New data for the next solve, in place; nothing is rebuilt. Returns the model.

        Args:
            loads: active power at rated voltage, kW: by load name (T,), or (n_loads, T). Reactive power follows in
                proportion unless ``loads_q`` is given.
            loads_q: reactive power at rated voltage, kvar.
            prices: import price, $/kWh, shape (T,) or one number; a single export price that follows it changes too.
            initial: stored energy at the beginning, kWh: by battery name, or (n_batteries,).
            pv: what the sun offers, kW: by PV name (T,), or (n_pv, T).

        Raises:
            OptionError: a name that does not exist, a shape that does not fit, or values that are not finite.
        """
        values: dict[str, FloatArray] = {}
        old_p = self._slot("load.p_kw")
        if loads is not None:
            values["load.p_kw"] = self._rows("load.p_kw", loads)
            if loads_q is None:
                ratio = np.divide(values["load.p_kw"], old_p, out=np.ones_like(old_p), where=old_p != 0)
                values["load.q_kvar"] = self._slot("load.q_kvar") * ratio
        if loads_q is not None:
            values["load.q_kvar"] = self._rows("load.q_kvar", loads_q)
        if prices is not None:
            shape = self._slot("source.price_import").shape
            values["source.price_import"] = np.broadcast_to(np.asarray(prices, dtype=float), shape)
        if initial is not None:
            as_rows = (
                {k: np.array([v], dtype=float) for k, v in initial.items()}
                if isinstance(initial, Mapping)
                else np.asarray(initial, dtype=float).reshape(-1, 1)
            )
            values["battery.energy_initial_kwh"] = self._rows("battery.energy_initial_kwh", as_rows)
        if pv is not None:
            values["pv.p_available_kw"] = self._rows("pv.p_available_kw", pv)
        return self.update_data(values)

    def update_data(self, values: Mapping[str, FloatArray]) -> Model:
        """New values of data slots by their names (`Program.slots`), in place.

        Raises:
            OptionError: no such slot, or values that do not fit.
        """
        full = dict(values)
        if "source.price_import" in full and "system.loss_price" in self.program.slots:
            price = np.atleast_2d(np.asarray(full["source.price_import"], dtype=float))
            full["system.loss_price"] = loss_price_of(price)[None]
        for cls, group in _groups(self.case):
            for name, new in values.items():
                full.update(cls.derived_data(group, name, np.asarray(new, dtype=float)))
        self.program = self.program.update(full)
        self.case = _with_data(self.case, full)
        return self

    @property
    def _wants_relaxation(self) -> bool:
        """Whether an exact model is solved from its convex relaxation: where that is cheap."""
        return self.program.problem_class is ProblemClass.NLP and self.program.n <= RELAX_UP_TO

    def _slot(self, name: str) -> FloatArray:
        if name not in self.program.slots:
            message = f"the case has no data {name!r}. {did_you_mean(name, list(self.program.slots))}"
            raise OptionError(message)
        slot = self.program.slots[name]
        return self.program.theta[slot.cells].reshape(len(slot.elements), slot.n_steps)

    def _rows(self, name: str, given: Mapping[str, FloatArray] | FloatArray) -> FloatArray:
        """Present values of a slot with the rows given replaced."""
        present = self._slot(name).copy()
        if not isinstance(given, Mapping):
            try:
                return np.broadcast_to(np.asarray(given, dtype=float), present.shape)
            except ValueError as error:
                message = f"data for {name!r} has shape {np.shape(given)}; it must broadcast to {present.shape}"
                raise OptionError(message) from error
        place = {e: k for k, e in enumerate(self.program.slots[name].elements)}
        for element, row in given.items():
            if element not in place:
                message = f"there is no {name.split('.')[0]} {element!r}. {did_you_mean(element, list(place))}"
                raise OptionError(message)
            present[place[element]] = row
        return present

    def solve(self, solver: str = "auto", options: Options | None = None, *, explain_infeasible: bool = True) -> Result:
        """Solve with the present data; starts from the last solution where the solver can.

        Args:
            solver: ``auto`` or a name.
            options: typed options of the solver.
            explain_infeasible: re-solve an infeasible problem elastically and name the limits that cause it.
        """
        begin = time.perf_counter()
        choices = list(self.choices)
        name = solver
        if solver == "auto":
            name, why = solvers.choose(self.program)
            choices.append(f"solver {name}: {why}")
        if self._session is None or self._session[:2] != (name, options):
            self._session = (name, options, solvers.get(name, options).start(self.program))
            self._last = None
        relaxation = None
        if solver == "auto" and self._last is None and self._wants_relaxation:
            relaxation = _Relaxation.solve(self.program)
        start = self._last if relaxation is None or relaxation.solution is None else relaxation.solution
        if relaxation is not None and relaxation.infeasible:
            solution, status = relaxation.proof, Status.INFEASIBLE
            choices.append("infeasible by proof: the convex relaxation of the exact model is infeasible")
        else:
            solution = self._session[2].solve(self.program, start)
            status = earned_status(self.program, solution, recompute(self.program, solution))
        if status in (Status.INACCURATE, Status.ERROR) and solver == "auto" and name != "ipopt":
            again = solvers.get("ipopt", None).solve(self.program, None)
            if earned_status(self.program, again, recompute(self.program, again)) is Status.OPTIMAL:
                choices.append(f"fallback to ipopt: {name} ended {status.word}")
                solution, status = again, Status.OPTIMAL
        residuals = recompute(self.program, solution)
        if relaxation is not None and relaxation.bound is not None and status is Status.OPTIMAL:
            found = self.program.objective(solution.x)
            gap = (found - relaxation.bound) / max(abs(found), 1e-9)
            choices.append(
                f"the convex relaxation proves that no schedule is better by more than {max(gap, 0.0):.1e} relative"
            )
        conflicts: tuple[Any, ...] = ()
        if status in (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE) and explain_infeasible:
            convex = self.program.problem_class is not ProblemClass.NLP
            proved = self.program if convex else self.program.relaxed()
            if status is Status.INFEASIBLE or convex:
                conflicts = explain(proved, solvers.get("clarabel", None))
            else:
                conflicts = explain(self.program, solvers.get("ipopt", None))
        if status is Status.OPTIMAL:
            self._last = solution
        seconds = {**self.seconds, "solve": time.perf_counter() - begin}
        return Result(
            case=self.case,
            formulation=self.formulation.name,
            objective_name=objective_name(self.objective),
            status=status,
            program=self.program,
            solution=solution,
            residuals=residuals,
            network=self.network,
            seconds={**seconds, "total": sum(v for k, v in seconds.items() if k != "total")},
            choices=tuple(choices),
            conflicts=conflicts,
        )


@dataclass(frozen=True, eq=False)
class _Relaxation:
    """What the convex relaxation of an exact program says.

    Attributes:
        solution: a point to start from, when it was solved.
        bound: a lower bound of the objective, when it was solved.
        infeasible: True when it is proved that no schedule exists.
        proof: the solver's answer.
    """

    solution: Solution | None
    bound: float | None
    infeasible: bool
    proof: Solution

    @classmethod
    def solve(cls, program: Program) -> _Relaxation:
        """Solve the relaxation with the solver that `auto` means for it."""
        cones = program.relaxed()
        found = solvers.get(solvers.choose(cones)[0], None).solve(cones)
        residuals = recompute(cones, found)
        status = earned_status(cones, found, residuals)
        if status is Status.OPTIMAL:
            value = cones.objective(found.x)
            return cls(found, value - residuals.duality_gap * abs(value), infeasible=False, proof=found)
        return cls(None, None, infeasible=status is Status.INFEASIBLE, proof=found)


def build(
    case: Case,
    formulation: str | Formulation = "auto",
    objective: str | Objective = "cost",
    *,
    terminal: str = "equal",
    loss_term: bool = True,
    point: str | OperatingPoint = "baseline",
    limits: str = "all",
    check: bool = True,
) -> Model:
    """Build the problem of a case once; `Model.solve` and `Model.update` are the five-minute loop.

    Args:
        case: the case.
        formulation: ``auto``, a name, or your own `Formulation`.
        objective: a name, a weighted sum such as ``cost+0.1*peak``, or your own `Objective`.
        terminal: stored energy at the end: ``equal`` to the beginning, ``at-least``, ``free`` or ``priced``.
        loss_term: in linear formulations, add the price-weighted quadratic losses to the objective (never to ``cost``).
        point: operating point of ``lindist3flow``: ``baseline`` (the day without control, step by step) or ``nominal``
            (the unloaded feeder: nominal angles, no losses); or one that `operating_point` made, of the same wires.
        limits: ``all`` the feeder has, ``voltage`` only, or ``none``.
        check: look for faults first.

    Raises:
        CaseError: the case has faults; all of them are named.
        UnsupportedError: the formulation declines the feeder.
        OptionError: a name or an option that does not exist.
    """
    begin = time.perf_counter()
    if terminal not in TERMINAL_RULES:
        message = f"there is no terminal rule {terminal!r}. {did_you_mean(terminal, list(TERMINAL_RULES))}"
        raise OptionError(message)
    if isinstance(point, str) and point not in ("baseline", "nominal"):
        message = f"there is no operating point {point!r}. {did_you_mean(point, ['baseline', 'nominal'])}"
        raise OptionError(message)
    if limits not in LIMITS:
        message = f"there is no set of limits {limits!r}. {did_you_mean(limits, LIMITS)}"
        raise OptionError(message)
    case = _limited(case, limits)
    chosen, choices = choose_formulation(case, formulation)
    goal = objectives.get(objective) if isinstance(objective, str) else objective
    if check:
        require(case, radial=True)

    operating = None
    neutrals: list[Node] = []
    if chosen.point != "none":
        if isinstance(point, str):
            operating, notes = operating_point(case, loaded=point == "baseline")
            choices += notes
        else:
            operating = fits(point, case)
        size = np.abs(operating.v_pu).max(axis=1)
        neutrals = [node for node, v in zip(operating.nodes, size, strict=True) if v < NEUTRAL_PU]
    used = {(d.bus, c) for d in case.devices if isinstance(d, ShuntDevice) for c in d.terminals}
    roots = [(s.bus, c) for s in case.sources for c in s.conductors]
    network = radial_network(case.feeder, roots, case.base, neutrals=neutrals, used=used)
    faults = chosen.declines(case.feeder, network)
    if faults:
        raise UnsupportedError(faults)

    builder = ProgramBuilder(case.horizon.n_steps)
    model = chosen.network(builder, case.feeder, network, case.base, operating)
    ctx = DeviceContext(
        builder, model, case.horizon, case.base, case.profiles, terminal=terminal, alpha=case.alpha_usd_per_kwh
    )
    for cls, group in _groups(case):
        cls.declare(group, ctx)
    goal.declare(ctx, 1.0)
    if model.neglects_losses and loss_term and not goal.contains_losses:
        price = builder.data("system.loss_price", ["all"], goal.loss_price(ctx)[None], unit="objective/kWh")
        model.add_loss_cost(price * per_step(ctx, case.horizon.hours * case.base.total_kva).const.reshape(1, -1))
    model.close()
    program = builder.freeze()
    seconds = {"build": time.perf_counter() - begin}
    return Model(case, chosen, goal, program, network, tuple(choices), seconds)


def solve(
    case: Case,
    formulation: str | Formulation = "auto",
    objective: str | Objective = "cost",
    *,
    solver: str = "auto",
    options: Options | None = None,
    terminal: str = "equal",
    loss_term: bool = True,
    point: str = "baseline",
    limits: str = "all",
    rounds: int = 1,
    with_replay: bool = True,
    check: bool = True,
) -> Result:
    """Build, solve, and replay in OpenDSS.

    See `build` for the arguments.

    Args:
        case: the case.
        formulation: see `build`.
        objective: see `build`.
        solver: ``auto`` or a name.
        options: that solver's typed options.
        terminal: see `build`.
        loss_term: see `build`.
        point: see `build`.
        limits: see `build`.
        rounds: how often a formulation that is made at an operating point is solved: each further round is made at the
            power flow of the schedule before. No convergence is promised; the replay shows what it brought.
        with_replay: run every step of the schedule in OpenDSS.
        check: look for faults first.
    """
    model = build(
        case,
        formulation,
        objective,
        terminal=terminal,
        loss_term=loss_term,
        point=point,
        limits=limits,
        check=check,
    )
    result = model.solve(solver, options)
    for k in range(2, rounds + 1):
        if model.formulation.point == "none" or not result.ok:
            break
        where, _ = operating_point(model.case, loaded=True, dispatch=_by_kind(result))
        spent = result.seconds
        model = build(
            case,
            formulation,
            objective,
            terminal=terminal,
            loss_term=loss_term,
            point=where,
            limits=limits,
            check=False,
        )
        result = model.solve(solver, options)
        seconds = {name: spent.get(name, 0.0) + result.seconds[name] for name in result.seconds}
        note = f"round {k}: made again at the power flow of the schedule before"
        result = dataclasses.replace(result, seconds=seconds, choices=(*result.choices, note))
    return replayed(result) if with_replay and result.has_values else result


def replayed(result: Result) -> Result:
    """The result with its replay in OpenDSS: every step, controls off, taps fixed."""
    begin = time.perf_counter()
    run = replay(result.case, dispatch_of(result), predicted=prediction_of(result))
    seconds = {**result.seconds, "replay": time.perf_counter() - begin}
    seconds["total"] = sum(v for k, v in seconds.items() if k != "total")
    return dataclasses.replace(result, replay=run, seconds=seconds)


def dispatch_of(result: Result) -> Dispatch:
    """The set-points of a result."""
    if not result.has_values:
        message = f"the result has no schedule: {result.status_text}"
        raise SolveError(message)
    points = result.set_points
    return Dispatch(p_kw={k: p for k, (p, _) in points.items()}, q_kvar={k: q for k, (_, q) in points.items()})


def _by_kind(result: Result) -> dict[str, tuple[FloatArray, FloatArray]]:
    """The set-points of a result by kind of device, in the order of the case, for `lateral.baseline.power_flow`."""
    rows: dict[str, list[tuple[FloatArray, FloatArray]]] = {}
    for device in result.case.devices:
        if device.label in result.set_points:
            rows.setdefault(device.kind, []).append(result.set_points[device.label])
    return {kind: (np.array([p for p, _ in own]), np.array([q for _, q in own])) for kind, own in rows.items()}


def prediction_of(result: Result) -> Prediction:
    """What the model says that the replay will find."""
    return Prediction(
        nodes=result.network.nodes,
        v_pu=np.sqrt(np.maximum(result.value("bus.vmag_sq"), 0.0)),
        p_source_kw=result.p_source_kw,
        q_source_kvar=result.q_source_kvar,
        losses_kw=result.losses_kw,
    )


def objective_name(objective: Objective) -> str:
    """Name of an objective, or of its weighted parts."""
    terms = objective.terms
    if len(terms) == 1 and terms[0][0] == 1.0:
        return terms[0][1].name
    return "+".join(f"{w:g}*{o.name}" for w, o in terms)


def choose_formulation(case: Case, formulation: str | Formulation) -> tuple[Formulation, list[str]]:
    """The formulation that a name means for a case, and why."""
    if isinstance(formulation, Formulation):
        return formulation, []
    if formulation != "auto":
        return formulations.get(formulation), []
    if all(len(b.conductors) == 1 for b in case.feeder.buses):
        return formulations.get("nonlinear"), [
            "formulation nonlinear: one conductor per bus, so that the exact branch flow applies"
        ]
    return formulations.get("lindist3flow"), [
        "formulation lindist3flow: several conductors per bus; linear at the power flow of the day without control"
    ]


def linear_power_flow(case: Case, *, point: str = "baseline", at: Case | None = None) -> Result:
    """`lindist3flow` as a power flow: no limits, nothing to decide but what physics decides; for comparison with AC.

    Args:
        case: the case; its PV and batteries are left out.
        point: see `build`.
        at: a case of the same wires whose power flow is the operating point, for example the same feeder at another
            load; of one step, or of as many as ``case``. Absent: the case's own.

    Raises:
        UnsupportedError: the power flow at the operating point does not converge.
    """

    def bare(full: Case) -> Case:
        return full.with_(devices=tuple(d for d in full.devices if not isinstance(d, PV | Battery)))

    where: str | OperatingPoint = point
    if at is not None:
        where = operating_point(bare(at), loaded=point == "baseline")[0]
    return build(bare(case), "lindist3flow", point=where, limits="none", loss_term=False).solve()


def _limited(case: Case, limits: str) -> Case:
    """The case with only the limits asked for."""
    if limits == "all":
        return case
    feeder = case.feeder
    replace = dataclasses.replace
    buses = feeder.buses
    if limits == "none":
        buses = tuple(replace(b, v_min_pu=0.0, v_max_pu=np.inf) for b in buses)
    return case.with_(
        feeder=replace(
            feeder,
            buses=buses,
            lines=tuple(replace(e, i_max_a=np.inf) for e in feeder.lines),
            switches=tuple(replace(e, i_max_a=np.inf) for e in feeder.switches),
            transformers=tuple(replace(e, s_max_kva=np.inf) for e in feeder.transformers),
        )
    )


def _groups(case: Case) -> list[tuple[type[Device], Sequence[Any]]]:
    """Devices by class, in order of first appearance."""
    groups: dict[type[Device], list[Any]] = {}
    for device in case.devices:
        if isinstance(device, Device):
            groups.setdefault(type(device), []).append(device)
    return list(groups.items())


def _with_data(case: Case, values: Mapping[str, FloatArray]) -> Case:
    """The case with new data, each class taking what it knows."""
    profiles = dict(case.profiles)
    replaced: dict[int, Any] = {}
    for cls, group in _groups(case):
        for old, new in zip(group, cls.with_data(group, values, profiles, case.horizon.n_steps), strict=True):
            replaced[id(old)] = new
    return case.with_(devices=tuple(replaced.get(id(d), d) for d in case.devices), profiles=profiles)


__all__ = [
    "Model",
    "build",
    "choose_formulation",
    "dispatch_of",
    "linear_power_flow",
    "objective_name",
    "prediction_of",
    "replayed",
    "solve",
]
