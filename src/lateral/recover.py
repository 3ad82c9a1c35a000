"""Recovery: an exact schedule from a relaxed one, and what the relaxation proves of it.

A relaxation bounds the optimum and may hold losses that do not exist. Its set-points are a good start all the same: the
exact form is made at their power flow, its device variables start at the relaxed values (by labels), and it is solved.
What comes back is exact; the distance to the bound says how much better any schedule could be.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from lateral.errors import OptionError, UnsupportedError
from lateral.formulations import Formulation, OperatingPoint
from lateral.model import Model
from lateral.results.residuals import GAP_TOLERANCE, PRIMAL_TOLERANCE
from lateral.results.result import Result
from lateral.solvers import SOLVERS, Options, Status


def require_relaxation(formulation: Formulation) -> None:
    """Only a relaxation has something to recover.

    Raises:
        OptionError: the formulation is none.
    """
    if not formulation.relaxes:
        message = f"formulation {formulation.name!r} is no relaxation, so there is nothing to recover"
        raise OptionError(message)


def exact_form(result: Result) -> str:
    """Name of the exact form of a case: ``nonlinear`` for one conductor per bus, ``current-voltage`` otherwise."""
    one = all(len(bus.conductors) == 1 for bus in result.case.feeder.buses)
    return "nonlinear" if one else "current-voltage"


def recovered(
    relaxed: Result,
    make: Callable[[str, OperatingPoint | None], Model],
    flow: Callable[[Result], tuple[OperatingPoint, list[str]]],
    *,
    solver: str = "auto",
    options: Options | None = None,
) -> Result:
    """The exact result from a relaxed one.

    Args:
        relaxed: the result of a relaxation; returned as it is when it has no schedule and the exact form finds none
            (an infeasible relaxation proves that none exists, but for what it holds or takes for granted).
        make: builds the exact form of a name, at an operating point or at the day without control.
        flow: power flow of a relaxed schedule, and notes on it.
        solver: for the exact form; one that does not take it counts as ``auto``, and the result says so.
        options: plain options for it.
    """
    if not relaxed.has_values:
        return _without_start(relaxed, make, solver, options)
    begin = time.perf_counter()
    notes: list[str] = []
    name = exact_form(relaxed)
    point: OperatingPoint | None = None
    if name != "nonlinear":
        try:
            point, said = flow(relaxed)
            notes += said
        except UnsupportedError:
            notes.append(
                "recovery: the power flow of the relaxed schedule does not converge; made at the day before it"
            )
    model = make(name, point)
    model.start_from(relaxed)
    made = time.perf_counter() - begin
    solver, said = _solver_for(model, solver)
    notes += said
    limit = float("inf") if options is None or options.time_limit_s is None else options.time_limit_s
    until = time.perf_counter() + limit
    exact, lost = model.solve(solver, options, explain_infeasible=False), 0.0
    if exact.status in (Status.LOCALLY_INFEASIBLE, Status.INFEASIBLE):  # it may be that this start leads nowhere
        left = None if options is None else options.within(until)
        lost = time.perf_counter() - begin - made
        exact = make(name, None).solve(solver, left)
        notes.append("recovery: from the schedule of the relaxation no point was found; begun without it")
    # what the relaxation alone does otherwise is not what happened to this schedule
    program, own = relaxed.program, exact.program.held
    other = (*(note for note in program.held if note not in own), *program.unlike)
    both = tuple(note for note in program.held if note in own)
    notes = [*(choice for choice in relaxed.choices if choice not in other), *notes]
    notes.append(_bound(relaxed, exact, other, (*both, *program.granted)))
    notes += [f"recovered by {name} from the schedule of {relaxed.formulation}"]
    notes += [choice for choice in exact.choices if choice not in notes]
    seconds = {k: relaxed.seconds.get(k, 0.0) + exact.seconds.get(k, 0.0) for k in ("build", "solve")}
    seconds["build"] = relaxed.seconds.get("build", 0.0) + made
    seconds["solve"] += lost
    return dataclasses.replace(exact, choices=tuple(notes), seconds={**seconds, "total": sum(seconds.values())})


def _without_start(
    relaxed: Result, make: Callable[[str, OperatingPoint | None], Model], solver: str, options: Options | None
) -> Result:
    """The exact result where a relaxation has no schedule to begin with, and that is no proof that there is none; else
    the relaxation's."""
    program = relaxed.program
    rests = (*program.held, *program.unlike, *program.granted)
    if relaxed.status is Status.INFEASIBLE and not rests:
        return relaxed
    name = exact_form(relaxed)
    model = make(name, None)
    solver, notes = _solver_for(model, solver)
    if options is not None and options.time_limit_s is not None:  # what the relaxation left of it
        options = options.within(time.perf_counter() + options.time_limit_s - relaxed.seconds.get("solve", 0.0))
    exact = model.solve(solver, options, explain_infeasible=False)
    if not exact.ok:
        return relaxed
    proves = (
        f"which proves nothing here: {'; '.join(rests)}" if relaxed.status is Status.INFEASIBLE else "without a bound"
    )
    ended = f"{relaxed.formulation} ended {relaxed.status.word}, {proves}"
    own = [choice for choice in exact.choices if choice not in notes]
    notes += [ended, f"solved by {name} from the day without control", *own]
    seconds = {k: relaxed.seconds.get(k, 0.0) + exact.seconds.get(k, 0.0) for k in ("build", "solve")}
    return dataclasses.replace(exact, choices=tuple(notes), seconds={**seconds, "total": sum(seconds.values())})


def _solver_for(model: Model, solver: str) -> tuple[str, list[str]]:
    """The solver for an exact form, and a note where the one that was asked for does not take it."""
    if solver == "auto" or model.program.problem_class in SOLVERS[solver].solver.accepts:
        return solver, []
    return "auto", [f"recovery: {solver} does not take the exact form; solved by auto"]


def _bound(relaxed: Result, exact: Result, other: Sequence[str], granted: Sequence[str]) -> str:
    """What the relaxation proves, as a sentence.

    Args:
        relaxed: its result.
        exact: the exact schedule.
        other: what the relaxation does otherwise than the exact form: its optimum is that of another problem then.
        granted: what the bound rests on, what both forms hold among it.
    """
    how = f"relaxation gap {relaxed.max_relaxation_gap:.1e} pu"
    if relaxed.max_rank_ratio is not None:
        how += f", second eigenvalue {relaxed.max_rank_ratio:.1e} of the first"
    if other:
        return f"{relaxed.formulation} proves no bound, because it is not of the same problem: {'; '.join(other)}"
    bound = relaxed.bound
    if bound is None:
        return f"{relaxed.formulation} ended {relaxed.status.word} and proves no bound ({how})"
    text = f"{relaxed.formulation} proves that no schedule is below {bound:.8g} ({how})"
    if granted:
        text += f", given that {', '.join(granted)}"
    if not exact.has_values:
        return text
    off = max(exact.residuals.max_primal, exact.residuals.max_bound)
    if not off <= PRIMAL_TOLERANCE:
        return f"{text}; what the exact form ended at breaks its rows by {off:.1e} pu and is not compared with it"
    gap = (exact.objective - bound) / max(abs(exact.objective), exact.program.objective_floor, 1e-12)
    if gap < -GAP_TOLERANCE:
        return (
            f"{relaxed.formulation} gives {bound:.8g} ({how}), but this bound does not hold: the exact schedule is "
            f"{exact.objective:.8g}, {-gap:.1e} relative below it"
        )
    return f"{text}; the exact schedule is {exact.objective:.8g}, {_within(gap)} the best"


def _within(gap: float) -> str:
    """How far a schedule is above the best; a bound that it is below by rounding is met."""
    return f"at most {gap:.1e} relative above" if gap >= 0.0 else f"within {GAP_TOLERANCE:.0e} relative of"


__all__ = ["exact_form", "recovered", "require_relaxation"]
