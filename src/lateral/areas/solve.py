"""solve_areas: cut, start, loop, join, compare with the central solve, replay."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from lateral.areas.agent import Task
from lateral.areas.algorithms import Algorithm, State
from lateral.areas.central import Central, ends_alone
from lateral.areas.checkpoint import Checkpoint, about
from lateral.areas.driver import Patience, Progress, iterate
from lateral.areas.executors import Executor, Serial
from lateral.areas.partition import Partition
from lateral.areas.plan import Plan
from lateral.areas.point import AtPoint, require_formulation, settle, taken_in, wants_point
from lateral.areas.protocol import AreaSpec
from lateral.areas.quantities import copies
from lateral.areas.run import AreasRun, Round
from lateral.areas.successive import Successive
from lateral.areas.transport import Direct, Transport
from lateral.areas.ungrounded import look_at_ungrounded
from lateral.areas.verdict import in_the_way, none_found, told, verdict
from lateral.areas.whole import Whole
from lateral.checks import require
from lateral.errors import OptionError
from lateral.opf import ANY_SIDE, build, choose_formulation, one_sided, replayed
from lateral.program import ProblemClass
from lateral.solvers import Status, choose

#: The tolerance at which a run is meant to be certified as a whole.
DEFAULT_TOLERANCE = 1e-6
#: Rounds that are added at most, after the areas agree, until the joined schedule is certified optimal. Prices of
#: matrices of voltages take 20 and more of them (`ieee13`, `sdp`, 3 areas).
CLOSER = 100


def solve_areas(
    partition: Partition,
    algorithm: Algorithm | None = None,
    *,
    formulation: str = "auto",
    objective: str = "cost",
    executor: Executor | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    max_rounds: int = 300,
    terminal: str = "equal",
    loss_term: bool = True,
    point: str = "baseline",
    limits: str = "all",
    solver: str = "auto",
    central: bool = True,
    with_replay: bool = True,
    patience: Patience | None = None,
    transport: Callable[[Plan, str], Transport] | None = None,
    progress: Callable[[Round], None] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> AreasRun:
    """Solve a feeder that is cut into areas.

    Args:
        partition: the areas.
        algorithm: see `lateral.areas.algorithms`; absent: `Auto`.
        formulation: a name, of every area.
        objective: a name, or a weighted sum.
        executor: where areas are solved; absent: in this process.
        tolerance: residual at which the areas agree: P and Q on the power base, v in pu^2, prices relative. At 1e-6 or
            below up to 100 more rounds follow where the joined schedule is not certified optimal by then.
        max_rounds: rounds after which the run ends as a limit.
        terminal: see `lateral.build`.
        loss_term: see `lateral.build`.
        point: see `lateral.build`; the areas find it together, see `lateral.areas.point`.
        limits: see `lateral.build`.
        solver: see `lateral.Model.solve`.
        central: solve the whole feeder too, and say how far the areas are from it. Where it has no schedule the run
            ends before it has gone through all rounds, with the limits in the way, see `lateral.areas.central`.
        with_replay: run the joined schedule in OpenDSS.
        patience: how long to wait for whom.
        transport: makes what carries messages; absent: nothing is lost.
        progress: called after each round.
        checkpoint: folder that the run is written to after each round; absent: none. However the run ends (Ctrl-C, a
            power cut), all but the round it was in is there.
        resume: go on from the checkpoint, for one round at least.

    Raises:
        CaseError: the case has faults; there is no checkpoint to go on from, or it is damaged, or of another run.
        UnsupportedError: the formulation declines it, or the algorithm, or a cut inside an ungrounded part.
        OptionError: resume without a checkpoint.
        SolveError: an area cannot be started.
    """
    require(partition.case, radial=True)
    form = choose_formulation(partition.case, formulation)[0]
    crossing = sum(len(b.conductors) for b in partition.borders.values()) * partition.case.horizon.n_steps
    crossing *= len(copies(form.voltages))
    method, why = taken_in(form, algorithm, solver=solver, crossing=crossing)
    taken = list(why)
    require_formulation(form, method)
    method.require(objective)
    begin = time.perf_counter()
    whole = build(
        partition.case,
        formulation,
        objective,
        terminal=terminal,
        loss_term=loss_term,
        point=point,
        limits=limits,
        borders=frozenset(border.bus for border in partition.borders.values()),
    )
    seconds = {"build": time.perf_counter() - begin}
    plan = Plan.of(partition, objective, whole.formulation.voltages)
    chosen = whole.formulation.name
    task = Task(
        formulation=chosen,
        objective=objective,
        coupling=method.coupling,
        solver=solver,
        terminal=terminal,
        loss_term=loss_term,
        limits=limits,
        point=point,
    )
    specs = area_specs(partition, task)
    book, state, rounds = _opened(checkpoint, partition, plan, method, task, resume=resume)
    run = secrets.token_hex(8) if book is None else book.run
    carrier = Direct(plan, run=run) if transport is None else transport(plan, run)
    last: Progress | None = None
    closest = 0
    seen = Whole(whole, plan, specs)
    moving = Successive.fits(chosen, method)
    beside = Central(whole, solver, points=moving) if central else None
    with executor or Serial() as where:
        # a status is earned: where the borders agree, but the whole is not certified yet, a few more rounds do it
        earning = where.owns_areas and method.coupling != "tariff" and tolerance <= DEFAULT_TOLERANCE
        begin = time.perf_counter()
        where.start(specs)
        seconds["start"] = time.perf_counter() - begin
        settled, at, points = None, where, None
        known: tuple[str, ...] = ()
        if wants_point(chosen):
            settled = settle(plan, where, carrier, patience=patience)
            seconds["point"] = settled.seconds
            at = AtPoint(where, settled)
            points = Successive(plan, carrier, at, patience or Patience(), tolerance) if moving else None
            state = state if points is None or state is None else points.resumed(method, state, rounds)
            known = look_at_ungrounded(partition, settled.closed(plan), form, whole.objective, limits)
            plan = settled.begun(plan)
        begin = time.perf_counter()
        waits = (patience or Patience()).solve_s

        def look(now: Progress) -> tuple[str, ...]:
            """What was built again has rounds to come."""
            if len(rounds) + 1 >= max_rounds:
                return ()
            if points is not None:
                return points.agreed(now)
            return seen.look(at, settled, now, certify=earning, timeout_s=waits)

        wider = None if points is None else points.wider
        for last in iterate(
            plan,
            method,
            at,
            carrier,
            tolerance=tolerance,
            state=state,
            patience=patience,
            look=look,
            otherwise=wider,
        ):
            rounds.append(last.round)
            if book is not None:
                book.save(last.state, last.round, finished=last.finished)
            if progress is not None:
                progress(last.round)
            if len(rounds) >= max_rounds:
                break
            # to first order an area has no schedule near its point, though the whole may have one further away
            held = points is not None and points.held  # a trust region that leaves no schedule grows
            alone = (beside is None or moving) and not held and ends_alone(method, rounds)
            moved = points is not None and points.point > 1
            if alone or (beside is not None and not held and beside.ends(rounds, last, moved=moved)):
                break
            if last.round.built_again:
                closest = 0
            if last.finished:
                closest = closest or len(rounds) + CLOSER
                if points is not None and points.goes_on(last):
                    continue
                unsettled = points is not None and not points.settled
                if not earning or unsettled or last.dead or last.round.failures or len(rounds) >= closest:
                    break
                found = seen.see(at, settled, last)
                if found is None or found.ok or found.cautions:  # what rounds can mend, they have
                    break
        seconds["rounds"] = time.perf_counter() - begin - (0.0 if beside is None else beside.seconds)
        begin = time.perf_counter()
        result = seen.see(at, settled, last) if where.owns_areas else None
        seconds["join"] = time.perf_counter() - begin
        executor_name = where.name
    if result is not None:
        result = dataclasses.replace(result, seconds={**seconds, "total": sum(seconds.values())})
    best = None
    if beside is not None:
        best, seconds["central"] = beside.result, beside.seconds
    finished = last is not None and last.finished
    none = none_found(rounds, best, finished=finished)
    if with_replay and result is not None and result.has_schedule and not none:
        begin = time.perf_counter()
        result = replayed(result)
        seconds["replay"] = time.perf_counter() - begin
    dead = last.dead if last is not None else ()
    unrest = "" if points is None or points.settled else points.at
    status, text = verdict(
        method, rounds, result, best, finished=finished, dead=dead, tolerance=tolerance, unrest=unrest
    )
    if status in (Status.LIMIT_REACHED, Status.INACCURATE) and known:
        text = f"{text}; {'; '.join(known)}"
    exact = whole.program.problem_class is ProblemClass.NLP
    if solver == "auto" and exact and choose(whole.program)[0] == "native":
        taken.append("in areas auto is ipopt: it goes on from where it ended in the round before")
    choices = [*whole.choices, *taken, *known, *(settled.choices if settled is not None else ())]
    choices += [] if points is None else [*points.told, points.at]
    choices += told(method, None if last is None else last.state, () if points is not None else rounds)
    if status is Status.LIMIT_REACHED and beside is None:
        choices.append(
            "whether the whole has a schedule is not known: a central solve, which was not asked for, says so"
        )
    if beside is not None and beside.nowhere and not none and status is not Status.OPTIMAL:
        choices.append(
            "to first order at the power flow without control no schedule of the whole keeps the limits; rounds of the "
            "whole found one further away, which areas do not look for: take current-voltage"
        )
    if none and best is not None and not form.lazy and one_sided(best):
        choices.append(
            f"{chosen} has the law of loads on one side of their band only, and limits of voltages leave room beyond: "
            f"{ANY_SIDE} has both sides, and may have a schedule"
        )
    choices += [f"area {a!r} is gone: its last answer was repeated by the coordinator" for a in seen.repeated]
    seconds["total"] = sum(seconds.values())
    if result is not None:
        result = dataclasses.replace(result, status=status)
    if result is not None and best is not None and none:
        result = dataclasses.replace(result, conflicts=best.conflicts)
    return AreasRun(
        plan=plan,
        algorithm=method.name,
        executor=executor_name,
        status=status,
        status_text=text,
        rounds=tuple(rounds),
        result=result,
        central=best,
        degraded=dead,
        rejected=tuple(carrier.rejected),
        seconds=seconds,
        choices=tuple(choices),
        settled=settled,
        swept=(0, 0) if points is None else points.said,
        conflicts=in_the_way(rounds, best, finished=finished),
    )


def _opened(
    folder: str | Path | None, partition: Partition, plan: Plan, method: Algorithm, task: Task, *, resume: bool
) -> tuple[Checkpoint | None, State | None, list[Round]]:
    """The checkpoint of a run, where it is to have one; what is there to go on from."""
    if folder is None:
        if resume:
            message = "resume needs the folder of a checkpoint"
            raise OptionError(message)
        return None, None, []
    identity = about(plan, partition.case.hash, method, task)
    if resume:
        return Checkpoint.resume(folder, identity, plan)
    return Checkpoint.begin(folder, identity, secrets.token_hex(8)), None, []


def area_specs(partition: Partition, task: Task) -> dict[str, AreaSpec]:
    """What each area's process starts from."""
    plan = Plan.of(partition)
    return {
        name: AreaSpec(name, area.case, dataclasses.replace(task, share=plan.share(name)))
        for name, area in partition.areas.items()
    }


__all__ = ["area_specs", "solve_areas"]
