"""Random balanced feeders for the structured solver, judged by Ipopt and Clarabel at a tolerance of 1e-10.

    python -m benchmarks.native_random --count 300
    python -m benchmarks.native_random --first 17 --count 1 --verbose

Every seed is one small radial case of one kind (`KINDS`): what is hard about it. It is solved by `native` alone, and by
the referee: Clarabel for `soc` and `lindistflow` (Ipopt where Clarabel does not settle it), for `nonlinear` Ipopt, cold
and from the convex relaxation, with Clarabel's proof where the relaxation is infeasible. What native says is then

    solved       optimal, residuals <= 1e-9 pu, and the referee's objective to 1e-6 relative
    infeasible   said of what the referee proves to be so
    other        optimal, at another local optimum of the exact model that is worse than the referee's
    WRONG        optimal and not so; or infeasible where the referee has a point
    missed       an infeasible one (by proof, or locally to Ipopt) of which it says something else: a limit, inaccurate
    unsolved     a feasible one of which it says honestly that it has no solution
    crashed      an exception, or it declines
    no verdict   the referee itself has none
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.random_feeders import KINDS, Problem, problem
from lateral import solvers
from lateral.program import ProblemClass, Program
from lateral.results.residuals import PRIMAL_TOLERANCE, Residuals, earned_status, objective_size, recompute
from lateral.solvers import Options, Solution, Status

#: Largest residual of a solution, pu, and largest relative difference to the referee's objective.
RESIDUAL, OBJECTIVE = 1e-9, 1e-6
REFEREE = Options(tolerance=1e-10)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What native made of a seed.

    Attributes:
        word: see the module's text.
        status: native's earned status.
        truth: the referee's.
        reason: why it is not ``solved`` or ``infeasible``; empty where it is.
        relative: objective less the referee's, relative; NaN where one is missing.
        residual: largest violation, pu.
        alone: whether no other solver helped.
        iterations: Newton steps.
        seconds: of native.
    """

    seed: int
    kind: str
    formulation: str
    objective: str
    terminal: str
    buses: int
    steps: int
    word: str
    status: str
    truth: str
    reason: str
    relative: float
    residual: float
    alone: bool
    iterations: int
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What the referee says: ``optimal`` with the best objective that it found, ``infeasible`` by proof, ``locally
    infeasible`` (so says Ipopt from every start), or ``unknown``; of the exact model also the bound that is proved."""

    word: str
    objective: float = np.nan
    bound: float = -np.inf


def judged(program: Program, solution: Solution) -> tuple[Status, Residuals]:
    """Earned status and residuals."""
    residuals = recompute(program, solution)
    return earned_status(program, solution, residuals), residuals


def referee(program: Program) -> Truth:
    """The truth about a program."""
    exact = program.problem_class is ProblemClass.NLP
    cones = program.relaxed() if exact else program
    first = solvers.get("clarabel", REFEREE).solve(cones)
    status, residuals = judged(cones, first)
    if status is not Status.OPTIMAL and status is not Status.INFEASIBLE:
        again = solvers.get("clarabel").solve(cones)
        word, found = judged(cones, again)
        if word in (Status.OPTIMAL, Status.INFEASIBLE):
            first, status, residuals = again, word, found
    if status is Status.INFEASIBLE:
        return Truth(word="infeasible")
    bound = -np.inf
    if status is Status.OPTIMAL:
        value = cones.objective(first.x)
        bound = value - residuals.duality_gap * objective_size(cones, first.x)
        if not exact:
            return Truth(word="optimal", objective=value, bound=bound)
    best, ended = np.inf, []
    warm = first if status is Status.OPTIMAL else None
    for start in (None, warm) if warm is not None else (None,):
        found_ = solvers.get("ipopt", REFEREE).solve(program, start)
        ended.append(judged(program, found_)[0])
        if ended[-1] is Status.OPTIMAL:
            best = min(best, program.objective(found_.x))
    if np.isfinite(best):
        return Truth(word="optimal", objective=best, bound=bound)
    locally = all(status is Status.LOCALLY_INFEASIBLE for status in ended)
    return Truth(word="locally infeasible" if locally else "unknown", bound=bound)


def outcome(one: Problem, *, verbose: bool = False) -> Outcome:
    """Native's answer to a problem, judged."""
    program = one.build().program
    common: dict[str, Any] = {
        "seed": one.seed,
        "kind": one.kind,
        "formulation": one.formulation,
        "objective": one.objective,
        "terminal": one.terminal,
        "buses": len(one.case.feeder.buses),
        "steps": one.case.horizon.n_steps,
    }
    truth = referee(program)
    begin = time.perf_counter()
    try:
        solution = solvers.get("native", Options(verbose=True) if verbose else None).solve(program)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Outcome(
            **common, word="crashed", status="", truth=truth.word, reason=reason, relative=np.nan, residual=np.nan,
            alone=False, iterations=0, seconds=time.perf_counter() - begin,
        )  # fmt: skip
    seconds = time.perf_counter() - begin
    status, residuals = judged(program, solution)
    residual = max(residuals.max_primal, residuals.max_bound)
    relative = np.nan
    if np.all(np.isfinite(solution.x)):
        size = objective_size(program, solution.x)
        value = program.objective(solution.x)
        relative = (value - truth.objective) / size
        below = (truth.bound - value) / size
    else:
        below = -np.inf
    alone = solution.solver == "native"
    # what another solver gave is held to the house's own tolerance
    bar = RESIDUAL if alone else PRIMAL_TOLERANCE
    word, reason = _verdict(program, status, truth, residual, relative, below, bar)
    if reason:
        reason = f"{reason} ({solution.message})"
    return Outcome(
        **common, word=word, status=status.word, truth=truth.word, reason=reason, relative=float(relative),
        residual=float(residual), alone=alone, iterations=solution.iterations, seconds=seconds,
    )  # fmt: skip


def _verdict(
    program: Program, status: Status, truth: Truth, residual: float, relative: float, below: float, bar: float
) -> tuple[str, str]:
    """The word of an outcome, and why."""
    exact = program.problem_class is ProblemClass.NLP
    empty = truth.word in ("infeasible", "locally infeasible")
    if status in (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE):
        if empty:
            return "infeasible", ""
        if truth.word == "unknown":
            return "no verdict", f"native says {status.word}, the referee has no point and no proof"
        if status is Status.LOCALLY_INFEASIBLE:
            return "unsolved", "locally infeasible, and the referee has a point"
        return "WRONG", f"infeasible, and the referee has a point of objective {truth.objective:.9g}"
    if status is not Status.OPTIMAL:
        if empty:
            return "missed", f"{status.word}, and it is {truth.word}"
        if truth.word == "unknown":
            return "no verdict", f"native ends {status.word}, the referee has no verdict either"
        return "unsolved", f"{status.word}: residual {residual:.1e} pu, objective {relative:+.1e} relative"
    if truth.word == "infeasible":
        return "WRONG", f"optimal, and it is infeasible; residual {residual:.1e} pu"
    if not residual <= bar:
        return "WRONG", f"optimal with a residual of {residual:.1e} pu"
    if below > OBJECTIVE:
        return "WRONG", f"objective {below:.1e} relative below a proved bound"
    if not np.isfinite(truth.objective):
        return "solved", ""  # certified by its own residuals, where the referee has nothing
    if relative > OBJECTIVE:
        return ("other", f"a worse local optimum, {relative:+.1e}") if exact else ("WRONG", f"worse by {relative:.1e}")
    if relative < -OBJECTIVE and not exact:
        return "WRONG", f"better than the referee by {-relative:.1e}"
    return "solved", ""


def table(found: Sequence[Outcome]) -> str:
    """Counts by kind, the share that needed no help, and the seeds that failed, as Markdown."""
    words = ("solved", "infeasible", "other", "WRONG", "missed", "unsolved", "crashed", "no verdict")
    lines = [f"| kind | {' | '.join(words)} |", "|---" * (len(words) + 1) + "|"]
    for kind in (*KINDS, "all"):
        own = [o for o in found if kind in (o.kind, "all")]
        if own:
            counts = collections.Counter(o.word for o in own)
            lines.append(f"| {kind} | {' | '.join(str(counts[w] or '') for w in words)} |")
    feasible = [o for o in found if o.truth == "optimal" or o.word == "solved"]
    good = [o for o in feasible if o.word in ("solved", "other") and o.alone]
    empty = [o for o in found if o.truth in ("infeasible", "locally infeasible") and o.word != "solved"]
    said = [o for o in empty if o.word == "infeasible"]
    lines += [
        "",
        f"{len(good)} of {len(feasible)} feasible ones solved without help "
        f"({100.0 * len(good) / max(len(feasible), 1):.1f} %); "
        f"{len(said)} of {len(empty)} infeasible ones said to be so; {sum(o.word == 'WRONG' for o in found)} wrong.",
    ]
    bad = [o for o in found if o.reason or not o.alone]
    if bad:
        lines += ["", "| seed | kind | problem | size | word | why |", "|---|---|---|---|---|---|"]
        for o in bad:
            what = f"{o.formulation}, {o.objective}, {o.terminal}"
            why = o.reason or "with the help of another solver"
            lines.append(f"| {o.seed} | {o.kind} | {what} | {o.buses} x {o.steps} | {o.word} | {why} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Solve, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--json", type=Path, help="write every outcome here")
    parser.add_argument("--verbose", action="store_true", help="native's log, and every seed as it comes")
    given = parser.parse_args(argv)
    found = []
    for seed in range(given.first, given.first + given.count):
        one = problem(seed)
        found.append(outcome(one, verbose=given.verbose))
        if given.verbose:
            print(found[-1], flush=True)
    print(table(found))
    if given.json is not None:
        given.json.write_text(json.dumps([dataclasses.asdict(o) for o in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
