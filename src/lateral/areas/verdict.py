"""Verdict: the status of a run over areas, and the sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lateral.areas.algorithms import Algorithm
from lateral.areas.algorithms.base import State
from lateral.areas.run import Round
from lateral.results.result import Result
from lateral.solvers import Status

#: Status words of an area that has no feasible schedule.
INFEASIBLE = (Status.INFEASIBLE.word, Status.LOCALLY_INFEASIBLE.word)


def verdict(
    algorithm: Algorithm,
    rounds: Sequence[Round],
    result: Result | None,
    central: Result | None,
    *,
    finished: bool,
    dead: Sequence[str],
    tolerance: float,
    unsure: Sequence[str] = (),
    unrest: str = "",
) -> tuple[Status, str]:
    """The status of a run, and the sentence.

    Args:
        algorithm: the algorithm.
        rounds: every round.
        result: the joined result, where there is one.
        central: the central solve, however it ended, where there is one.
        finished: whether the run came to its end, and not only to the last round that it was given.
        dead: areas that are dead.
        tolerance: residual at which the areas agree.
        unsure: areas whose loads are, or may be, on another side of their band than was taken, where nobody sees the
            whole.
        unrest: why areas that agree are not at the optimum of the exact form, where they go from point to point.
    """
    last, known = rounds[-1], central is not None and central.ok
    apart = f"after {len(rounds)} rounds the areas differ by {last.residual:.1e} (tolerance {tolerance:g})"
    if dead:
        ends = f"the others agree within {last.residual:.1e}" if finished else apart
        return Status.DEGRADED, f"degraded: {_absent(dead, last.failures)}; what it said last is held, and {ends}"
    if none_found(rounds, central, finished=finished):
        assert central is not None
        many = f"{len(rounds)} round{'s' * (len(rounds) > 1)}"
        return central.status, f"{central.status_short}; found by the central solve, after {many} of the areas"
    failing = _failing(last)
    if failing:
        words = {last.statuses[a] for a in failing}
        status = Status.ERROR
        if words.intersection(INFEASIBLE):
            # areas that do not come to agree prove nothing: the whole may be known to have a schedule; or a load that
            # was kept above a jump of its law is in the way
            alone = not known and not any(r.built_again for r in rounds)
            none = Status.LOCALLY_INFEASIBLE if unrest else Status.INFEASIBLE
            status = none if alone else Status.LIMIT_REACHED
        elif words == {Status.LIMIT_REACHED.word}:
            status = Status.LIMIT_REACHED
        word = status.word.replace("_", " ")
        counts = INFEASIBLE if status in (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE) else tuple(words)
        said = [text.replace(f": {word}: ", ": ", 1) for a, text in failing.items() if last.statuses[a] in counts]
        if status is Status.LIMIT_REACHED and not known and not words.intersection(INFEASIBLE):
            said += _found_before(rounds)
        if unrest and words.intersection(INFEASIBLE):
            said.append("that is to first order; the exact model may have a schedule further away")
        return status, f"{word}: " + "; ".join(said)
    if not finished:
        why = [apart]
        why += [f"nothing newer than the limit of age is known across border {b!r}" for b in last.stale]
        why += last.failures.values()
        if not known and not last.failures:
            why += _found_before(rounds)
        return Status.LIMIT_REACHED, "limit reached: " + "; ".join(why)
    agree = f"the areas agree within {last.residual:.1e}"
    if unrest:
        return Status.LIMIT_REACHED, f"limit reached: {agree}, but are {unrest}"
    if result is None and unsure:
        names = ", ".join(repr(a) for a in unsure)
        return (
            Status.INACCURATE,
            f"inaccurate: {agree}, but loads may have left the side of their band that {names} took",
        )
    if result is None:
        return Status.OPTIMAL, f"{agree}; the whole was not seen, and so not certified"
    if result.ok:
        return Status.OPTIMAL, result.status_text
    if result.cautions:
        return Status.INACCURATE, f"inaccurate: {agree}, but {'; '.join(result.cautions)}"
    return Status.INACCURATE, f"inaccurate: {agree}, but {_short_of(algorithm, result, central if known else None)}"


def none_found(rounds: Sequence[Round], central: Result | None, *, finished: bool) -> bool:
    """Whether the areas do not agree, and the central solve says why: the whole has no schedule."""
    none = central is not None and central.status in (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE)
    return none and not (finished and not _failing(rounds[-1]))


def in_the_way(rounds: Sequence[Round], central: Result | None, *, finished: bool) -> tuple[str, ...]:
    """The limits in the way of a schedule: those of the whole, one each, where the central solve found none; else what
    areas said that had none at what their neighbours said, one of each area. Nothing where areas agree."""
    if finished and not _failing(rounds[-1]):
        return ()
    if central is not None and (central.ok or central.reasons):
        return central.reasons
    return tuple(_last_infeasible(rounds)[1])


def told(algorithm: Algorithm, state: State | None, rounds: Sequence[Round]) -> list[str]:
    """What a reader must know of how the rounds went: what the algorithm says, and which areas were built again."""
    return [
        *(() if state is None else algorithm.notes(state)),
        *(
            f"areas built again after round {r.number}, where loads left the side of their band: "
            + ", ".join(r.built_again)
            for r in rounds
            if r.built_again
        ),
    ]


def _failing(last: Round) -> dict[str, str]:
    """Areas that answered, but with no solution, and what they said."""
    return {a: text for a, text in last.failures.items() if a in last.statuses}


def _found_before(rounds: Sequence[Round]) -> list[str]:
    """What areas without a feasible schedule said when one last did: where an algorithm goes over to copies, no area
    has to keep to what its neighbours ask for, and none says it any more."""
    number, found = _last_infeasible(rounds)
    return [f"in round {number} {text}" for text in found]


def _last_infeasible(rounds: Sequence[Round]) -> tuple[int, list[str]]:
    """The last round in which an area had no feasible schedule, and what such areas said."""
    for r in reversed(rounds):
        found = [text for a, text in r.failures.items() if r.statuses.get(a) in INFEASIBLE]
        if found:
            return r.number, found
    return 0, []


def _absent(dead: Sequence[str], reasons: Mapping[str, str]) -> str:
    names = ", ".join(repr(a) for a in dead)
    why = "; ".join(reasons[a] for a in dead if reasons.get(a))
    return f"area{'s' * (len(dead) > 1)} {names} did not take part to the end{f' ({why})' if why else ''}"


def _short_of(algorithm: Algorithm, result: Result, central: Result | None) -> str:
    """What the joined schedule lacks."""
    r = result.residuals
    if algorithm.coupling != "tariff":
        return (
            f"the joined schedule is not certified optimal (largest mismatch {r.max_primal:.1e} pu, "
            f"optimality gap {r.duality_gap:.1e}); a smaller tolerance brings it closer"
        )
    blind = f"{algorithm.name} does not see upstream losses, use auto or enapp-priced"
    if central is None:
        return f"the joined schedule is not certified optimal; {blind}"
    above = 100.0 * (result.objective - central.objective) / max(abs(central.objective), 1e-12)
    if above < 0.0:  # no schedule is better than the optimum: what is missing is feasibility
        return (
            f"the joined schedule is {-above:.2g} % below the central optimum, as values still differ by up to "
            f"{r.max_primal:.1e} pu at a border; a smaller tolerance brings them together. {blind}"
        )
    return f"the joined schedule is {above:.3g} % above the central optimum; {blind}"


__all__ = ["INFEASIBLE", "in_the_way", "none_found", "told", "verdict"]
