"""The one place where network, devices, formulation, objective and solver meet."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from lateral import formulations, objectives
from lateral.case import Case
from lateral.checks import require
from lateral.devices import PV, TERMINAL_RULES, Battery
from lateral.devices.base import DeviceContext, ShuntDevice
from lateral.errors import OptionError, SolveError, UnsupportedError, did_you_mean
from lateral.first_order import first_point
from lateral.formulations import Formulation, OperatingPoint
from lateral.io.dispatch import Dispatch
from lateral.jumps import SIDE_PU, beyond_sides
from lateral.model import LEFT_SIDE, Model, groups
from lateral.network.admittance import Node
from lateral.network.branches import radial_network
from lateral.network.schema import IntArray
from lateral.network.topology import loops
from lateral.objectives import Objective
from lateral.objectives.base import per_step
from lateral.operating import NEUTRAL_PU, fits, operating_point, schedule_point
from lateral.program import ProblemClass, ProgramBuilder
from lateral.recover import recovered, require_relaxation
from lateral.replay import Prediction, replay
from lateral.results.one_way import Sides, held_at_zero, told
from lateral.results.result import Result
from lateral.results.verification import verified
from lateral.solvers import Options, Status
from lateral.successive import settle

#: Rounds of a first-order formulation, at most: it ends when the schedule rests.
MOST_ROUNDS = 20
#: What ``auto`` goes on with where the structured solver does not solve the exact form of a larger program than this:
#: Ipopt, which takes its turn up to here, needs minutes beyond.
NEXT_FORMULATION, IPOPT_UP_TO = "linearised", 25_000
#: What it goes on with where loads left the side of their band on which the exact branch flow has their law.
ANY_SIDE = "current-voltage"
#: What the square of a voltage without a limit counts as, pu^2.
NO_LIMIT_SQ = 100.0
#: Which limits of a feeder enter a problem.
LIMITS = ("all", "voltage", "none")


def build(
    case: Case,
    formulation: str | Formulation = "auto",
    objective: str | Objective = "cost",
    *,
    terminal: str = "equal",
    loss_term: bool = True,
    point: str | OperatingPoint = "baseline",
    limits: str = "all",
    screen_limits: bool = True,
    check: bool = True,
    enforce: frozenset[str] = frozenset(),
    borders: frozenset[str] = frozenset(),
    beyond: float = 0.0,
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
        limits: ``all`` the feeder has, ``voltage`` only, or ``none``; a replay is held against those that are kept.
        screen_limits: leave out branch limits that no flow of the present data comes near to; a result that exceeds
            one all the same is built again with every limit.
        check: look for faults first.
        enforce: nodes and branches whose limits are to be written although nothing of the present data comes near.
        borders: buses at which areas meet: no formulation joins the branches there into one line.
        beyond: how far beyond the limits of voltages a relaxation has its laws of loads, a share: where limits are to
            give way (`lateral.results.infeasible`).

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
    case = limited(case, limits)
    chosen, choices = choose_formulation(case, formulation)
    goal = objectives.get(objective) if isinstance(objective, str) else objective
    if check:
        require(case, radial=chosen.radial_only)

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
    if chosen.radial_only:
        roots = [(s.bus, c) for s in case.sources for c in s.conductors]
        used = {(bus, c) for d in case.devices if isinstance(d, ShuntDevice) for bus, port in d.places for c in port}
        network = radial_network(case.feeder, roots, case.base, neutrals=neutrals, used=used)
    else:
        network = case.wires(neutrals=neutrals)
    faults = chosen.declines(case.feeder, network)
    if faults:
        raise UnsupportedError(faults)

    builder = ProgramBuilder(case.horizon.n_steps, screen_limits=screen_limits)
    builder.enforced, builder.borders, builder.beyond = enforce, borders, beyond
    model = chosen.network(builder, case.feeder, network, case.base, operating)
    ctx = DeviceContext(
        builder,
        model,
        case.horizon,
        case.base,
        case.profiles,
        case.feeder,
        terminal=terminal,
        alpha=case.alpha_usd_per_kwh,
    )
    for cls, group in groups(case):
        cls.declare(group, ctx)
    choices += ctx.notes
    goal.declare(ctx, 1.0)
    builder.objective_floor = sum(abs(weight) * part.floor for weight, part in goal.terms)
    neglects = model.neglects_curvature or (model.neglects_losses and not goal.contains_losses)
    if neglects and loss_term:
        price = builder.data("system.loss_price", ["all"], goal.loss_price(ctx)[None], unit="objective/kWh")
        weight = price * per_step(ctx, case.horizon.hours * case.base.total_kva).const.reshape(1, -1)
        (model.add_loss_curvature if model.neglects_curvature else model.add_loss_cost)(weight)
    model.close()
    builder.granted, builder.unlike = model.takes_for_granted(), model.departs()
    program = builder.freeze()
    if builder.tangent is not None and operating is not None:
        program = first_point(program, builder.tangent, case, operating, network)
    elif program.q.nnz and program.problem_class is ProblemClass.NLP:
        program = program.scaled_by_value(case.horizon.n_steps)
    seconds = {"build": time.perf_counter() - begin}

    why = tuple(choices[:1]) if formulation == "auto" else ()

    def rebuild(
        case: Case, *, at: OperatingPoint | None, screen: bool, enforce: frozenset[str], beyond: float = 0.0
    ) -> Model:
        fresh = build(
            case,
            chosen,
            goal,
            terminal=terminal,
            loss_term=loss_term,
            point=point if at is None else at,
            screen_limits=screen,
            check=False,
            enforce=enforce,
            borders=borders,
            beyond=beyond,
        )
        fresh.choices = (*why, *fresh.choices)
        return fresh

    def otherwise(case: Case) -> Model:
        return build(
            case,
            NEXT_FORMULATION if chosen.lazy else ANY_SIDE,
            goal,
            terminal=terminal,
            loss_term=loss_term,
            point=point,
            screen_limits=screen_limits,
            limits=limits,
            check=False,
            enforce=enforce,
            borders=borders,
        )

    return Model(
        case,
        chosen,
        goal,
        program,
        network,
        tuple(choices),
        seconds,
        rebuild,
        screened=screen_limits,
        enforced=enforce,
        tangent=builder.tangent,
        otherwise=otherwise if formulation == "auto" else None,
        crossing=model.crossing(),
    )


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
    rounds: int | None = None,
    recover: bool = False,
    verify: bool = False,
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
        rounds: how often a formulation that is made at an operating point is solved, see `refined`; absent: of
            ``linearised`` until the schedule rests, at most 20; else 1.
        recover: make an exact schedule of a relaxed one, see `made_exact`.
        verify: solve the problem a second time with another solver, see `lateral.results.verification.verified`.
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
    if recover:
        require_relaxation(model.formulation)
    result = worked_out(model, rounds=rounds, solver=solver, options=options)
    if recover:
        result = made_exact(model, result, terminal=terminal, limits=limits, solver=solver, options=options)
    if verify:
        result = verified(result)
    if not (with_replay and result.has_schedule):
        return result
    try:
        return replayed(result)
    except UnsupportedError as error:  # a device that OpenDSS has no word for must not cost the schedule
        return dataclasses.replace(result, choices=(*result.choices, f"not replayed: {error}"))


def worked_out(
    model: Model,
    *,
    rounds: int | None = None,
    solver: str = "auto",
    options: Options | None = None,
    explain_infeasible: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """The result of a model that was just built: its solve, what ``auto`` goes on with, and further rounds.

    The exact form that ``auto`` took is solved by the structured solver. Where that does not take the program or does
    not end at an optimum, Ipopt solves the same program up to `IPOPT_UP_TO` variables. A larger one is solved in
    `NEXT_FORMULATION` instead: convex programs in rounds that end at the same kind of optimum, or say in seconds which
    limits stand in the way. Where loads left the side of their band on which the exact branch flow has their law, or it
    has no point although the limits of voltages leave room beyond that side, the feeder is solved in `ANY_SIDE`, which
    takes the other side too; if that ends at no optimum, or has no power flow to be made at, the result stays as it is.
    ``choices`` says so.

    Args:
        model: the model.
        rounds: see `solve`.
        solver: see `solve`; what was asked for by name is kept to.
        options: see `solve`.
        explain_infeasible: see `Model.solve`.
        progress: called with the number of each further round.
    """
    notes: tuple[str, ...] = ()
    lost: dict[str, float] = {}
    result = None
    begin = time.perf_counter()
    goes_on = model.otherwise if solver == "auto" else None
    if goes_on is not None and model.formulation.lazy and model.program.n > IPOPT_UP_TO:
        result, why = _without_ipopt(model, options)
        if result is None:
            lost = {"build": model.seconds["build"], "solve": time.perf_counter() - begin}
            before, model = model, goes_on(model.case)
            options = None if options is None else options.plain()
            notes = (
                *before.choices[:1],
                f"formulation {model.formulation.name}: the structured solver {why} in {before.formulation.name}, and "
                f"Ipopt takes minutes beyond {IPOPT_UP_TO:,} variables",
            )
    if result is None:
        result = model.solve(solver, options, explain_infeasible=explain_infeasible)
        why = "" if goes_on is None or model.formulation.lazy else one_sided(result)
        if goes_on is not None and why:
            plain = None if options is None else options.plain()
            left = None if plain is None else plain.within(begin + (plain.time_limit_s or np.inf))
            again = _either_side(goes_on, model.case, left)
            if again is None:
                tried = f"{ANY_SIDE}, which has the law of loads on either side of their band, gave no optimum"
                result = dataclasses.replace(result, choices=(*result.choices, tried))
            else:
                lost = {name: result.seconds[name] for name in ("build", "solve")}
                which = f"{model.formulation.name}, which has the law of loads on one side of their band only"
                notes = (f"formulation {ANY_SIDE}: {why} in {which}",)
                model, result = again
    most = default_rounds(model) if rounds is None else rounds
    result = refined(model, result, rounds=most, solver=solver, options=options, progress=progress)
    if not lost:
        return result
    seconds = {name: spent + lost.get(name, 0.0) for name, spent in result.seconds.items() if name != "total"}
    seconds["total"] = sum(seconds.values())
    return dataclasses.replace(result, seconds=seconds, choices=(*notes, *result.choices))


def one_sided(result: Result) -> str:
    """What came of having the law of loads on one side of their band only; empty where it made no difference."""
    program = result.program
    if result.ok:
        over = beyond_sides(program, result.solution.x)
        return LEFT_SIDE.format(over) if over > SIDE_PU else ""
    if result.status not in (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE):
        return ""
    # whether limits of voltages leave room beyond that side
    low, high = (np.where(np.isfinite(x), x, end) for x, end in ((program.lb, 0.0), (program.ub, NO_LIMIT_SQ)))
    room = max(beyond_sides(program, low), beyond_sides(program, high)) > SIDE_PU
    return result.status.word.replace("_", " ") if room else ""


def _either_side(goes_on: Callable[[Case], Model], case: Case, options: Options | None) -> tuple[Model, Result] | None:
    """The model that takes either side of the bands of loads, and its optimum; None where there is none."""
    try:
        model = goes_on(case)
    except UnsupportedError:  # it is made at the day without control, whose power flow may not converge
        return None
    if model.program.n > IPOPT_UP_TO:
        result = _without_ipopt(model, options)[0]
    else:
        result = model.solve(options=options, explain_infeasible=False)
    return None if result is None or not result.ok else (model, result)


def _without_ipopt(model: Model, options: Options | None) -> tuple[Result | None, str]:
    """The result of the structured solver; or none, and why."""
    try:
        result = model.solve("auto", options, explain_infeasible=False, avoid="ipopt")
    except UnsupportedError as error:
        return None, f"does not take it ({error.faults[0].found})"
    asked = None if options is None else options.plain()
    limited = asked is not None and (asked.time_limit_s is not None or asked.max_iterations is not None)
    if result.ok or (limited and result.status is Status.LIMIT_REACHED):  # a limit that was asked for is kept to
        return result, ""
    return None, f"ended {result.status.word.replace('_', ' ')}"


def default_rounds(model: Model) -> int:
    """How many rounds are solved where nobody says: of a formulation to first order as many as it takes, at most
    `MOST_ROUNDS`; else one."""
    return MOST_ROUNDS if model.tangent is not None else 1


def _one_way(
    model: Model,
    result: Result,
    rested: Callable[[Result, IntArray], Result],
    solver: str,
    options: Options | None,
) -> Result:
    """The schedule at which rounds rest, with no device that goes two ways at once: where one does, its steps
    are held to the side of their net power, and further rounds are solved from there (`lateral.results.one_way`)."""
    sides, first = Sides(), result
    while result.ok and (zero := sides.zero(result.program, result.solution.x)) is not None:
        free = model.program
        held = model.program = held_at_zero(free, zero)
        found = model.solve(solver, options, explain_infeasible=False)
        if model.program is held:  # else it was built again, with a limit that had been left out
            model.program = free
        again = rested(found, zero)
        if not again.ok:
            return dataclasses.replace(first, cautions=(*first.cautions, sides.in_vain(again.status)))
        spent = {"solve": result.seconds["solve"] + again.seconds["solve"]}
        seconds = {**again.seconds, **spent}
        seconds["total"] = sum(value for name, value in seconds.items() if name != "total")
        choices = (*result.choices, *(c for c in again.choices if c not in result.choices))
        result = dataclasses.replace(again, seconds=seconds, choices=choices)
    if result is first:
        return result
    choice, caution = told(sides.text, result.objective, first.objective, result.program.objective_floor)
    cautions = (*result.cautions, caution) if caution else result.cautions
    return dataclasses.replace(result, choices=(*result.choices, choice), cautions=cautions)


def refined(
    model: Model,
    result: Result,
    *,
    rounds: int,
    solver: str = "auto",
    options: Options | None = None,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """The result of further rounds of a formulation that is made at an operating point.

    Each round is made at the power flow of the schedule before, so that the model is exact where the schedule is; on
    IEEE 13 and 123 three rounds bring the voltage error of the replay from 2e-3 to 1e-5 pu. There is no trust region
    and no promise of convergence: the replay shows what the rounds brought. A formulation to first order
    (``linearised``) has both, see `lateral.successive.settle`; an exact form is exact in its first round.

    Args:
        model: the model of the first round.
        result: its result; returned as it is when it is not optimal, or the formulation is exact or needs no operating
            point.
        rounds: number of rounds in all, the first one included; of ``linearised`` at most so many (`settle`).
        solver: see `solve`.
        options: see `solve`.
        progress: called with the number of each further round.
    """
    if model.tangent is not None:

        def rested(found: Result, zero: IntArray | None = None) -> Result:
            return settle(model, found, rounds=rounds, solver=solver, options=options, progress=progress, zero=zero)

        return _one_way(model, rested(result), rested, solver, options)
    rebuild = model.rebuild
    for k in range(2, rounds + 1):
        if rebuild is None or model.formulation.point == "none" or model.formulation.lazy or not result.ok:
            break
        if progress is not None:
            progress(k)
        begin = time.perf_counter()
        try:
            where, said = schedule_point(result.case, result.program, result.solution.x)
            fresh = rebuild(result.case, at=where, screen=model.screened, enforce=model.enforced)
        except UnsupportedError as error:
            caution = f"but round {k} was not made, the schedule is that of round {k - 1}: {error}"
            return dataclasses.replace(result, cautions=(*result.cautions, caution))
        spent = {**result.seconds, "build": result.seconds["build"] + time.perf_counter() - begin}
        again = fresh.solve(solver, options)
        seconds = {name: spent.get(name, 0.0) + again.seconds[name] for name in again.seconds if name != "total"}
        note = f"round {k}: made again at the power flow of the schedule before"
        new = dict.fromkeys([*said, *again.choices])
        choices = (*result.choices, note, *(c for c in new if c not in result.choices))
        result = dataclasses.replace(again, seconds={**seconds, "total": sum(seconds.values())}, choices=choices)
    return result


def made_exact(
    model: Model,
    result: Result,
    *,
    terminal: str = "equal",
    limits: str = "all",
    solver: str = "auto",
    options: Options | None = None,
) -> Result:
    """The exact schedule that a relaxed one leads to, see `lateral.recover`; its choices say what is proved of it.

    Args:
        model: the model of the relaxation.
        result: its result.
        terminal: see `build`.
        limits: see `build`.
        solver: see `solve`.
        options: see `solve`; of those of another solver what every solver has.

    Raises:
        OptionError: the formulation is no relaxation.
    """
    require_relaxation(model.formulation)

    def make(name: str, at: OperatingPoint | None) -> Model:
        point = "baseline" if at is None else at
        case, goal = result.case, model.objective
        return build(case, name, goal, terminal=terminal, point=point, limits=limits, check=False)

    def flow(relaxed: Result) -> tuple[OperatingPoint, list[str]]:
        return schedule_point(relaxed.case, relaxed.program, relaxed.solution.x)

    # the exact form has another solver, unless it is the same by name
    own = options if options is None or solver == "ipopt" else options.plain()
    try:
        return recovered(result, make, flow, solver=solver, options=own)
    except UnsupportedError as error:
        caution = f"but no exact schedule was made of it: {error}"
        return dataclasses.replace(result, cautions=(*result.cautions, caution))


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
    return Dispatch(
        p_kw={k: p for k, (p, _) in points.items()},
        q_kvar={k: q for k, (_, q) in points.items()},
        ports=result.port_points,
        settings=result.settings,
    )


def prediction_of(result: Result) -> Prediction:
    """What the model says that the replay will find."""
    return Prediction(
        nodes=result.network.nodes,
        v_pu=np.sqrt(np.maximum(result.value("bus.vmag_sq"), 0.0)),
        p_source_kw=result.p_source_kw,
        q_source_kvar=result.q_source_kvar,
        losses_kw=result.losses_kw,
    )


def choose_formulation(case: Case, formulation: str | Formulation) -> tuple[Formulation, list[str]]:
    """The formulation that a name means for a case, and why.

    This is the one place that says what ``auto`` takes: an exact form, always. The branch flow where that is exact
    (its relaxation bounds it); else the current-voltage form, which takes every feeder, device and objective.
    """
    if isinstance(formulation, Formulation):
        return formulation, []
    if formulation != "auto":
        return formulations.get(formulation), []
    meshed = len(case.sources) > 1 or loops(case.feeder, [s.bus for s in case.sources])
    single = all(len(b.conductors) == 1 for b in case.feeder.buses)
    if single and not meshed:
        return formulations.get("nonlinear"), ["formulation nonlinear: exact; radial, with one conductor per bus"]
    why = "loops or several sources" if meshed else "several conductors per bus"
    return formulations.get("current-voltage"), [f"formulation current-voltage: exact for any feeder, here with {why}"]


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


def limited(case: Case, limits: str) -> Case:
    """The case with only the limits asked for, one of `LIMITS`; those of sources and devices stay.

    Raises:
        OptionError: a set of limits that does not exist.
    """
    if limits not in LIMITS:
        message = f"there is no set of limits {limits!r}. {did_you_mean(limits, LIMITS)}"
        raise OptionError(message)
    if limits == "all":
        return case
    feeder = case.feeder
    replace = dataclasses.replace
    buses = feeder.buses
    if limits == "none":
        free = dict.fromkeys(("v_min_pu", "vpp_min_pu", "vpn_min_pu"), 0.0)
        free |= dict.fromkeys(("v_max_pu", "vpp_max_pu", "vpn_max_pu", "unbalance_max"), np.inf)
        buses = tuple(replace(b, **free) for b in buses)
    return case.with_(
        feeder=replace(
            feeder,
            buses=buses,
            # most have none on a real feeder, and to copy and check five thousand takes 0.05 s
            lines=tuple(e if e.i_max_a == np.inf else replace(e, i_max_a=np.inf) for e in feeder.lines),
            switches=tuple(e if e.i_max_a == np.inf else replace(e, i_max_a=np.inf) for e in feeder.switches),
            transformers=tuple(
                e if e.s_max_kva == np.inf else replace(e, s_max_kva=np.inf) for e in feeder.transformers
            ),
        )
    )


__all__ = [
    "ANY_SIDE",
    "default_rounds",
    "refined",
    "Model",
    "build",
    "choose_formulation",
    "dispatch_of",
    "limited",
    "linear_power_flow",
    "made_exact",
    "one_sided",
    "prediction_of",
    "replayed",
    "solve",
    "worked_out",
]
