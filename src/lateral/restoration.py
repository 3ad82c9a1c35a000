"""Back within the limits: rounds that lessen their violation, where a first-order program has no point.

That a program made at x_k has no point says nothing of the exact one: a limit that the linear rows miss by a little may
be met a step further. So the violation itself is lessened, by rounds of their own ("restoration phase"; Fletcher and
Sainz de la Maza 1989; Conn, Gould and Toint 2000, section 15.5):

    minimise sum_i w_i s_i   over the first-order program, every limit that follows from the network with a slack s_i

(weights as in `lateral.solvers.elastic`), set-points within a trust region, each step judged by the violation in its
power flow. They end where the limits hold, to `HELD`; or where a step promises to take no more than `NONE` of the
violation away: no schedule nearby keeps the limits, and the slacks say which of them give way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lateral import solvers
from lateral.first_order import At
from lateral.network.schema import FloatArray, IntArray
from lateral.program import Program
from lateral.results.retry import judged, nearer, tighter
from lateral.solvers import Options, Solution, Status
from lateral.solvers.elastic import Conflict, ElasticProgram, elastic

#: Weighted sum of violations that is none: a hundredth of what a result may be off.
HELD = 1e-8
#: Share of the violation below which a promise to lessen it is none.
NONE = 1e-3
#: Share of the promise that a step must bring, and those that make the trust region shrink or grow.
ACCEPT, POOR, GOOD = 0.1, 0.25, 0.75
#: Longest time of Ipopt's, s.
LONGEST_S = 60.0
#: A trust region below this is no step.
SMALLEST = 1e-6


class Steps(Protocol):
    """What is asked of the rounds that want a point to go on from."""

    at: At
    held: IntArray
    follows: tuple[FloatArray, FloatArray]
    radius: float

    def bounded(self) -> Program:
        """The program at the last accepted schedule, with decisions in the trust region."""

    def length(self, x: FloatArray) -> float:
        """Largest change of a decision from the last accepted schedule, as a share of its range."""

    def flow_at(self, x: FloatArray) -> At | None:
        """The set-points in x with their power flow; None where that does not converge."""


@dataclass(frozen=True, slots=True)
class Restored:
    """How the rounds ended.

    Attributes:
        rounds: how many there were.
        told: one sentence for each.
        within: whether the limits hold at the last schedule.
        least: whether no schedule nearby keeps them; by how much each gives way is in ``conflicts``.
        conflicts: limits that give way.
        impossible: whether set-points alone cannot keep their limits.
        left: whether loads have gone where the program does not have their law: it is to be made again.
    """

    rounds: int
    told: tuple[str, ...]
    within: bool = False
    least: bool = False
    conflicts: tuple[Conflict, ...] = ()
    impossible: bool = False
    left: bool = False


def restored(state: Steps, most: int, progress: Callable[[], None], *, leave: bool = False) -> Restored:
    """Bring the state to a schedule that keeps the limits; its trust region is left as it was.

    Args:
        state: of the rounds; ``at`` moves.
        most: at most so many rounds.
        progress: called with each.
        leave: end where loads left their band.
    """
    before, told, k = state.radius, [], 0
    state.radius = np.inf
    out = Restored(0, ())
    try:
        while True:
            soft = softened(state.bounded(), state.held, state.follows)
            now = soft.least(state.at.x)
            flown = state.at.v_pu is not None and not state.at.strange
            if flown and now <= HELD:
                out = dataclasses.replace(out, within=True)
                break
            if k >= most:
                break
            k += 1
            progress()
            found, fallback = solved(soft.program)
            told += [f"restoration: {fallback}"] if fallback else []
            if found.status is Status.INFEASIBLE and not np.isfinite(state.radius):
                out = dataclasses.replace(out, impossible=True)
                break
            if not np.all(np.isfinite(found.x)):
                told.append(f"restoration: the program ended {found.status.word}")
                break
            x = found.x[: state.at.program.n]
            # where equalities do not hold at the point, the duals say what that is worth, see `Rounds.predicted`
            off = soft.program.b - soft.program.a[:, : state.at.program.n] @ state.at.x
            promised = now + float(found.eq_dual @ off) - soft.program.objective(found.x)
            length = state.length(x)
            kept_back = length > 0.99 * state.radius
            if flown and promised <= NONE * now * (min(state.radius, 1.0) if kept_back else 1.0):
                if state.at.left:
                    told.append("restoration: loads are beyond their band, where the program does not have their law")
                    break
                out = dataclasses.replace(out, least=True, conflicts=soft.conflicts(found.x))
                told.append(f"restoration: the least violation nearby is not zero, weighted sum {now:.1e}")
                break
            there = state.flow_at(x)
            says = f"restoration: weighted violation {now:.1e}, predicted decrease {promised:.1e}"
            if there is None:
                if not flown or length < SMALLEST:
                    told.append(f"{says}, no power flow")
                    break
                told.append(f"rejected, {says}, no power flow, step {length:.1e}")
                state.radius = 0.25 * length
                continue
            gained = now - softened(there.program, state.held, state.follows).least(there.x)
            says = f"{says}, true {gained:.1e}, step {length:.1e}"
            if flown:
                if gained < POOR * promised:
                    state.radius = 0.5 * length
                elif gained > GOOD * promised and kept_back:
                    state.radius = 2.0 * state.radius
                if gained < ACCEPT * promised:
                    told.append(f"rejected, {says}")
                    if state.radius < SMALLEST:
                        break
                    continue
            told.append(f"accepted, {says}")
            state.at = there
            if leave and there.left and there.v_pu is not None:
                out = dataclasses.replace(out, left=True)
                break
    finally:
        state.radius = before
    return dataclasses.replace(out, rounds=k, told=tuple(told))


def solved(program: Program) -> tuple[Solution, str]:
    """A solution by Clarabel; where that is not accurate, along the central path, and else by Ipopt, which is noted."""
    found = solvers.get("clarabel", None).solve(program)
    status, residuals = judged(program, found)
    if (again := tighter(program, found, status)) is not None:
        found, (status, residuals) = again, judged(program, again)
    if status in (Status.INACCURATE, Status.ERROR, Status.LIMIT_REACHED):
        other = solvers.get("ipopt", Options(time_limit_s=LONGEST_S)).solve(program)
        word, off = judged(program, other)
        if word is Status.OPTIMAL or (word is Status.INACCURATE and nearer(off, residuals)):
            return other, f"fallback to ipopt: clarabel ended {status.word}"
    return found, ""


def softened(program: Program, held: IntArray, follows: tuple[FloatArray, FloatArray]) -> ElasticProgram:
    """The elastic program, with slacks only on what follows from the network: set-points keep their limits.

    Args:
        program: to first order.
        held: variables that follow from the network and have bounds.
        follows: which two-sided rows and cones follow from it, 1 or 0.
    """
    soft = elastic(program)
    upper = soft.program.ub.copy()
    bounds = np.zeros(program.n)
    bounds[held] = 1.0
    given = {"variable": bounds, "inequality": follows[0], "product": follows[1]}
    for group in soft.slacks:
        if group.kind in given:
            upper[group.start + np.flatnonzero(given[group.kind][group.cells] == 0.0)] = 0.0
    return dataclasses.replace(soft, program=dataclasses.replace(soft.program, ub=upper))


__all__ = ["Restored", "restored", "softened"]
