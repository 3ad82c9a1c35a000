"""Verification: the same program solved a second time by another solver, and what the two answers have in common.

Residuals prove that a point is feasible, and the duality gap of a convex program that it is optimal. What they cannot
show is a mistake that both the solver and the recomputation share, a local optimum that is not the best one, or an
infeasibility that is claimed too early. A second solver with another method is the cheap test of all of these.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lateral import solvers
from lateral.errors import OptionError, UnsupportedError
from lateral.network.schema import FloatArray
from lateral.program import ProblemClass, Program
from lateral.results.residuals import objective_size
from lateral.results.retry import judged, tighter
from lateral.solvers import Options, Solution, Status
from lateral.solvers.native import NativeOptions

if TYPE_CHECKING:
    from lateral.results.result import Result

#: Largest difference of two objectives that are the same, relative.
SAME_OBJECTIVE = 1e-6
#: Solvers in the order in which they are asked. Where something is to be proved infeasible `native` comes last: by
#: itself it proves nothing.
ORDER = ("highs", "clarabel", "native", "ipopt")
ORDER_INFEASIBLE = ("highs", "clarabel", "ipopt", "native")
_INFEASIBLE = (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE)
_SETTLED = (Status.OPTIMAL, *_INFEASIBLE, Status.UNBOUNDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a second solver said.

    Attributes:
        verdict: ``agrees``, ``differs``, or ``open`` where one of the two is no solution or nobody could be asked.
        text: one sentence.
        solver: who was asked last; empty where no other solver takes the program.
        status: its earned status, as one word; empty likewise.
        objective: what it found, and of the first: None where there is none.
        objective_first: see ``objective``.
        relative: difference of the objectives, second less first, relative.
        max_dv_pu: largest difference of the voltages; None where the program has none.
        max_dp_kw: largest difference of the set-points.
        max_dq_kvar: likewise. Set-points need not be unique, so that a difference of them is no disagreement.
        seconds: wall time.
    """

    verdict: str
    text: str
    solver: str = ""
    status: str = ""
    objective: float | None = None
    objective_first: float | None = None
    relative: float | None = None
    max_dv_pu: float | None = None
    max_dp_kw: float | None = None
    max_dq_kvar: float | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def verified(result: Result, *, solver: str = "auto", options: Options | None = None) -> Result:
    """The result with its verification: in ``verification`` and ``choices``, and a caution unless the two agree.

    Args:
        result: what was found; its program is solved again from scratch.
        solver: who is to solve it; ``auto``: the first of `ORDER` that takes it and is not the one that solved it.
        options: plain options of that solver.

    Raises:
        OptionError: no such solver, or the one that solved it already.
    """
    begin = time.perf_counter()
    found = _asked(result, solver, options)
    found = dataclasses.replace(found, seconds=time.perf_counter() - begin)
    seconds = {**result.seconds, "verify": found.seconds}
    seconds["total"] = sum(v for k, v in seconds.items() if k != "total")
    cautions = result.cautions
    if found.verdict != "agrees":
        cautions = (*cautions, f"but {found.text}")
    return dataclasses.replace(
        result, verification=found, choices=(*result.choices, found.text), cautions=cautions, seconds=seconds
    )


def _asked(result: Result, solver: str, options: Options | None) -> Verification:
    """The first answer that settles something; else the last one."""
    program, first = result.program, result.solution.solver
    if solver == "auto":
        order = ORDER_INFEASIBLE if result.status in _INFEASIBLE else ORDER
        names = [*order, *(n for n in solvers.SOLVERS if n not in order)]
        names = [n for n in names if n != first and program.problem_class in solvers.SOLVERS[n].solver.accepts]
    elif solver == first:
        message = f"the solver {solver!r} found the result; choose another one to verify it"
        raise OptionError(message)
    else:
        names = [solver]
    last: Verification | None = None
    for name in names:
        try:
            solution, status = _solved(program, name, options)
        except UnsupportedError:  # a structured solver declines what has not its structure
            if solver != "auto":
                raise
            continue
        last = _compared(result, solution, status, name)
        if status in _SETTLED:
            break
    if last is None:
        text = f"not verified: no solver but {first} takes this {program.problem_class.value}"
        return Verification(verdict="open", text=text)
    return last


def _solved(program: Program, name: str, options: Options | None) -> tuple[Solution, Status]:
    """A solve from scratch by this solver alone, once more at a tighter tolerance where that may help, as `Model.solve`
    does."""
    own = solvers.get(name, options)
    if isinstance(own.options, NativeOptions):  # what it hands over would be the first solver's answer again
        own = solvers.get(name, dataclasses.replace(own.options, fallback=False))
    solution = own.solve(program)
    status = judged(program, solution)[0]
    if options is None and (again := tighter(program, solution, status)) is not None:
        return again, Status.OPTIMAL
    return solution, status


def _compared(result: Result, solution: Solution, status: Status, name: str) -> Verification:
    """What the two answers have in common."""
    program, first = result.program, result.solution.solver
    twin = dataclasses.replace(result, solution=solution, status=status, cautions=(), conflicts=())
    known = (r.has_values and r.status not in _INFEASIBLE for r in (result, twin))
    mine, theirs = (r.objective if k else None for r, k in zip((result, twin), known, strict=True))
    numbers: dict[str, Any] = {"solver": name, "status": status.word, "objective": theirs, "objective_first": mine}
    if mine is None or theirs is None:
        # of a convex program a point of least violation has the least there is
        proofs = {Status.INFEASIBLE}
        if program.problem_class is not ProblemClass.NLP:
            proofs.add(Status.LOCALLY_INFEASIBLE)
        unbounded = result.status is status is Status.UNBOUNDED
        if unbounded or (result.status in _INFEASIBLE and status in proofs):
            return Verification(verdict="agrees", text=f"verified: {name} ends {status.word} too", **numbers)
        if result.status in _INFEASIBLE and status is Status.LOCALLY_INFEASIBLE:
            text = f"not verified: {name} found no feasible point near its start either, which proves nothing"
            return Verification(verdict="open", text=text, **numbers)
        said = f"{_ending(first, result.status, mine)}; {_ending(name, status, theirs)}"
        # that no feasible point was found near a start is no proof against one that was found
        proves = result.status in _SETTLED and status in _SETTLED and status is not Status.LOCALLY_INFEASIBLE
        if proves:
            return Verification(verdict="differs", text=f"the second solve disagrees: {said}", **numbers)
        return Verification(verdict="open", text=f"not verified: {said}", **numbers)
    relative = (theirs - mine) / objective_size(program, result.solution.x)
    dv, dp, dq = _apart(result, twin)
    numbers |= {"relative": relative, "max_dv_pu": dv, "max_dp_kw": dp, "max_dq_kvar": dq}
    values = f"{mine:.10g} by {first}, {theirs:.10g} by {name} ({relative:+.1e} relative)"
    if not (result.ok and status is Status.OPTIMAL):
        text = f"not verified: {first} ended {result.status.word}, {name} {status.word}; objective {values}"
        return Verification(verdict="open", text=text, **numbers)
    if abs(relative) <= SAME_OBJECTIVE:
        how = f"set-points within {dp:.1e} kW and {dq:.1e} kvar"
        how = how if dv is None else f"voltages within {dv:.1e} pu, {how}"
        return Verification(verdict="agrees", text=f"verified: objective {values}; {how}", **numbers)
    return Verification(verdict="differs", text=f"the second solve disagrees: objective {values}", **numbers)


def _ending(solver: str, status: Status, objective: float | None) -> str:
    """How a solver ended, as words."""
    return f"{solver} ended {status.word}" + ("" if objective is None else f" with objective {objective:.10g}")


def _apart(one: Result, other: Result) -> tuple[float | None, float, float]:
    """Largest differences of voltages (pu), active (kW) and reactive (kvar) set-points."""
    dv = None
    if one.has("bus.vmag_sq"):
        sizes = [np.sqrt(np.maximum(r.value("bus.vmag_sq"), 0.0)) for r in (one, other)]
        dv = _largest(sizes[0] - sizes[1])
    theirs = other.set_points
    pairs = [(mine, theirs[label]) for label, mine in one.set_points.items()]
    dp, dq = (max((_largest(a[k] - b[k]) for a, b in pairs), default=0.0) for k in (0, 1))
    return dv, dp, dq


def _largest(values: FloatArray) -> float:
    return float(np.abs(values).max(initial=0.0))


__all__ = ["ORDER", "SAME_OBJECTIVE", "Verification", "verified"]
