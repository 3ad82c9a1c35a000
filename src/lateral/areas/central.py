"""Central: the solve of the whole beside a run over areas, at its end, or earlier where the run may have none.

Areas whose whole has no schedule go on asking each other for the impossible: what each finds is the limits in its own
way at what the others say, and none is the cause. The whole says both at once, and where it is asked for in any case
it costs nothing to ask it at the first doubt. Runs that come to agree are what they were without.

A proof that the whole has no schedule ends a run. That a solver found none nearby does not, until the areas say the
same: one of them for `INSIST` rounds on end, or all by a residual that does not fall.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

from lateral.areas.algorithms import Algorithm
from lateral.areas.driver import NEAR, Progress
from lateral.areas.elastic import NOWHERE
from lateral.areas.run import Round
from lateral.areas.verdict import INFEASIBLE
from lateral.model import Model
from lateral.opf import MOST_ROUNDS
from lateral.results.result import Result
from lateral.solvers import Status
from lateral.successive import settle

#: Rounds after which areas that are further apart than `NEAR` are a doubt.
LATE = 15
#: Rounds on end in which an area says that it has no feasible schedule, until that counts.
INSIST = 6
#: A residual that in so many rounds has not fallen below its lowest before does not fall. Of 217 runs that came to
#: agree two stood so for 40 rounds, none for 60. In three of them an area insisted (for 5, 7 and 12 rounds); their
#: central solve found an optimum.
STALL = 60


class Central:
    """The central solve of a run: made once, when it is asked for first.

    Args:
        model: the built problem of the whole; it stays as it is.
        solver: see `lateral.Model.solve`.
        points: whether areas go from point to point, see `lateral.areas.successive`; so does the whole then.

    Attributes:
        nowhere: whether the whole has no schedule to first order at the first point, by proof: areas never agree there.
        seconds: wall time of the solve; 0 until then.
    """

    def __init__(self, model: Model, solver: str, *, points: bool = False) -> None:
        self._model, self._solver, self._points = copy.copy(model), solver, points
        self._result: Result | None = None
        self.nowhere = False
        self.seconds = 0.0

    @property
    def result(self) -> Result:
        """The result, with the limits in the way where there is no schedule; solved on first use."""
        if self._result is None:
            begin = time.perf_counter()
            model, solver = self._model, self._solver
            first = model.solve(solver, explain_infeasible=not self._points, one_way_only=False)  # as areas have it
            self.nowhere = self._points and first.status is Status.INFEASIBLE
            self._result = settle(model, first, rounds=MOST_ROUNDS, solver=solver) if self._points else first
            self.seconds = time.perf_counter() - begin
        return self._result

    def ends(self, rounds: Sequence[Round], last: Progress, *, moved: bool = False) -> bool:
        """Whether further rounds are of no use, because the whole has no schedule.

        Args:
            rounds: every round so far.
            last: the last one.
            moved: whether areas have gone on to another point.
        """
        silent = set(last.round.failures) - set(last.round.statuses)
        if last.finished or last.dead or silent:  # who waits for an area is not to be kept from it
            return False
        if self._result is None and not (last.round.failures or (len(rounds) >= LATE and last.round.residual > NEAR)):
            return False
        status = self.result.status
        if self.nowhere and not moved:
            return True
        if status is Status.LOCALLY_INFEASIBLE:
            if not self.result.conflicts:  # no least violation was found beside it
                return False
            return bool(insisting(rounds)) or stalled(rounds)
        return status is Status.INFEASIBLE


def ends_alone(algorithm: Algorithm, rounds: Sequence[Round]) -> bool:
    """Whether further rounds are of no use where nobody solves the whole: an area has no schedule whatever it is told,
    by proof. In consensus nothing that it is told keeps it from one."""
    last = rounds[-1]
    return any(
        last.statuses[a] == Status.INFEASIBLE.word
        and (algorithm.coupling == "consensus" or NOWHERE in last.failures[a])
        for a in insisting(rounds)
    )


def insisting(rounds: Sequence[Round]) -> set[str]:
    """Areas that said in each of the last `INSIST` rounds that they have no feasible schedule."""
    if len(rounds) < INSIST:
        return set()
    said = ({a for a in r.failures if r.statuses.get(a) in INFEASIBLE} for r in rounds[-INSIST:])
    return set.intersection(*said)


def stalled(rounds: Sequence[Round]) -> bool:
    """Whether the residual does not fall, see `STALL`; not soon after an area was built again."""
    before, now = rounds[:-STALL], rounds[-STALL:]
    if len(before) < STALL or any(r.built_again for r in now):
        return False
    return min(r.residual for r in now) >= min(r.residual for r in before)


__all__ = ["Central", "ends_alone"]
