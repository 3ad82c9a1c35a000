"""solve_areas: cut, start, loop, join, compare with the central solve, replay."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from lateral.areas.agent import Task
from lateral.areas.algorithms import Algorithm, EnappPriced
from lateral.areas.driver import Patience, Progress, iterate
from lateral.areas.executors import Executor, Serial
from lateral.areas.join import joined
from lateral.areas.partition import Partition
from lateral.areas.plan import Plan
from lateral.areas.protocol import AreaSpec, Failure
from lateral.areas.run import AreasRun, Round
from lateral.areas.transport import Direct, Transport
from lateral.checks import require
from lateral.opf import build, replayed
from lateral.results.result import Result
from lateral.solvers import Status


def solve_areas(
    partition: Partition,
    algorithm: Algorithm | None = None,
    *,
    formulation: str = "auto",
    objective: str = "cost",
    executor: Executor | None = None,
    tolerance: float = 1e-6,
    max_rounds: int = 100,
    terminal: str = "equal",
    loss_term: bool = True,
    limits: str = "all",
    solver: str = "auto",
    central: bool = True,
    with_replay: bool = True,
    patience: Patience | None = None,
    transport: Callable[[Plan, str], Transport] | None = None,
    progress: Callable[[Round], None] | None = None,
) -> AreasRun:
    """Solve a feeder that is cut into areas.

    Args:
        partition: the areas.
        algorithm: see `lateral.areas.algorithms`; absent: `EnappPriced`.
        formulation: a name, of every area.
        objective: a name, or a weighted sum.
        executor: where areas are solved; absent: in this process.
        tolerance: residual at which the areas agree: P and Q on the power base, v in pu^2, prices relative.
        max_rounds: rounds after which the run ends as a limit.
        terminal: see `lateral.build`.
        loss_term: see `lateral.build`.
        limits: see `lateral.build`.
        solver: see `lateral.Model.solve`.
        central: solve the whole feeder too, and say how far the areas are from it.
        with_replay: run the joined schedule in OpenDSS.
        patience: how long to wait for whom.
        transport: makes what carries messages; absent: nothing is lost.
        progress: called after each round.

    Raises:
        CaseError: the case has faults.
        UnsupportedError: the formulation declines it.
        SolveError: an area cannot be started.
    """
    require(partition.case, radial=True)
    method = algorithm or EnappPriced()
    plan = Plan.of(partition, objective)
    begin = time.perf_counter()
    whole = build(partition.case, formulation, objective, terminal=terminal, loss_term=loss_term, limits=limits)
    seconds = {"build": time.perf_counter() - begin}
    chosen = whole.formulation.name
    specs = area_specs(
        partition,
        Task(
            formulation=chosen,
            objective=objective,
            coupling=method.coupling,
            solver=solver,
            terminal=terminal,
            loss_term=loss_term,
            limits=limits,
        ),
    )
    run = secrets.token_hex(8)
    carrier = Direct(plan, run=run) if transport is None else transport(plan, run)
    rounds: list[Round] = []
    last: Progress | None = None
    with executor or Serial() as where:
        begin = time.perf_counter()
        where.start(specs)
        seconds["start"] = time.perf_counter() - begin
        begin = time.perf_counter()
        for last in iterate(plan, method, where, carrier, tolerance=tolerance, patience=patience):
            rounds.append(last.round)
            if progress is not None:
                progress(last.round)
            if last.finished or len(rounds) >= max_rounds:
                break
        seconds["rounds"] = time.perf_counter() - begin
        parts = _collected(where, plan) if where.owns_areas else None
        executor_name = where.name
    result = None
    if parts is not None:
        begin = time.perf_counter()
        result = joined(whole, parts, iterations=len(rounds), seconds=seconds)
        seconds["join"] = time.perf_counter() - begin
    best = None
    if central:
        begin = time.perf_counter()
        best = whole.solve(solver, explain_infeasible=False)
        seconds["central"] = time.perf_counter() - begin
        best = best if best.ok else None
    if with_replay and result is not None and result.has_values:
        begin = time.perf_counter()
        result = replayed(result)
        seconds["replay"] = time.perf_counter() - begin
    finished = last is not None and last.finished
    dead = last.dead if last is not None else ()
    status, text = verdict(plan, rounds, result, finished=finished, dead=dead, tolerance=tolerance)
    seconds["total"] = sum(seconds.values())
    if result is not None:
        result = dataclasses.replace(result, status=status)
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
        choices=whole.choices,
    )


def area_specs(partition: Partition, task: Task) -> dict[str, AreaSpec]:
    """What each area's process starts from."""
    total = sum(a.n_nodes for a in partition.areas.values())
    return {
        name: AreaSpec(name, area.case, dataclasses.replace(task, share=area.n_nodes / total))
        for name, area in partition.areas.items()
    }


def _collected(executor: Executor, plan: Plan) -> list[Mapping[str, object]] | None:
    """What the areas found, parents before children; None when one does not answer."""
    replies = executor.map("collect", {a: {} for a in plan.areas}, timeout_s=600.0)
    parts: list[Mapping[str, object]] = []
    for area in plan.areas:
        reply = replies[area]
        if isinstance(reply, Failure) or "error" in reply:
            return None
        parts.append(reply)
    return parts


def verdict(
    plan: Plan,
    rounds: Sequence[Round],
    result: Result | None,
    *,
    finished: bool,
    dead: Sequence[str],
    tolerance: float,
) -> tuple[Status, str]:
    """The status of a run, and the sentence."""
    residual = rounds[-1].residual if rounds else float("inf")
    if dead:
        names = ", ".join(repr(a) for a in dead)
        return (
            Status.DEGRADED,
            f"degraded: area {names} did not take part to the end; the others hold what it said last",
        )
    failing = dict(rounds[-1].failures) if rounds else {}
    if failing:
        return Status.INFEASIBLE if any("infeasible" in t for t in failing.values()) else Status.ERROR, "; ".join(
            failing.values()
        )
    if not finished:
        return (
            Status.LIMIT_REACHED,
            f"limit reached: after {len(rounds)} rounds the areas differ by {residual:.1e} (tolerance {tolerance:g})",
        )
    if result is None:
        return Status.OPTIMAL, f"the areas agree within {residual:.1e}; the whole was not seen, and so not certified"
    if result.ok:
        return Status.OPTIMAL, result.status_text
    return (
        Status.INACCURATE,
        f"inaccurate: the areas agree within {residual:.1e}, but the joined schedule is not certified optimal "
        f"(largest mismatch {result.residuals.max_primal:.1e} pu, optimality gap {result.residuals.duality_gap:.1e})",
    )


__all__ = ["area_specs", "solve_areas", "verdict"]
