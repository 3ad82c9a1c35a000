"""Points of a formulation to first order in areas: where they agree they find the power flow of their schedules, and go
on from there, until the schedules rest.

What `lateral.successive` does with a whole, areas do with their own parts. They agree on a step from the present point
x_k. Then they sweep (`lateral.areas.sweeps`) between the exact rows of their schedules, until these meet at every
border at some x. The merit of a whole is a sum over its elements, so that each area says of its own part how much its
program promised, how much of that its exact rows gained, and what its objective is, which a decrease is relative to::

    promised = sum_a (merit_a(x_k) - m_a(x)),     gained = sum_a (merit_a(x_k) - merit_a(x))

From the sums a step is accepted or rejected, and the trust region and the share of the losses' curvature set, as there;
the curvature is that of losses and of each area's rows alone. Beside what crosses borders an area says these numbers,
and how far its decisions moved. Rounds of agreement go on from the prices that the areas had.

Points end where nothing is promised any more: the schedules are then a local optimum of the exact form.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from lateral import formulations
from lateral.areas.algorithms import Algorithm, State
from lateral.areas.area_rounds import OF_FLOW, OF_STEP
from lateral.areas.driver import Progress
from lateral.areas.plan import Plan
from lateral.areas.point import AtPoint
from lateral.areas.protocol import Failure
from lateral.areas.run import Round
from lateral.areas.silence import Patience, Watch
from lateral.areas.sweeps import Sweeps
from lateral.areas.transport import Transport
from lateral.areas.verdict import INFEASIBLE
from lateral.errors import SolveError, UnsupportedError
from lateral.successive import (
    ACCEPT,
    FACTOR_RANGE,
    FACTOR_STEP,
    GOOD,
    MOST_FREED,
    POOR,
    REST,
    SMALLEST,
    TINY,
    TRUSTED,
)  # fmt: skip

#: Points at most, the first one included.
MOST_POINTS = 20
#: Voltages of a step, which promises nothing, are those of its power flow when they are no further from it, pu.
AWAY = 1e-6
#: Messages of sweeps are numbered from here on; late ones about the first point are below.
LATER = 100_000
#: How many rounds areas may take at one point to agree more closely.
MOST_WAITED = 20
#: The smallest size of an objective.
TINIEST = 1e-12
#: How often an area may fail to say what it is asked.
MOST_FAILED = 3
#: A step this short rests although this much is promised, relative to the objective: what areas agree within is worth
#: that much.
AGREED = 1e-6
#: Rounds within a trust region after which it grows where an area has no schedule in it, or where they do not agree.
NOWHERE, STUCK = 6, 60


@final
@dataclass(eq=False)
class Successive:
    """The points of areas, one after the other.

    Attributes:
        plan: the areas.
        transport: carries what they say.
        executor: a started executor, whose areas are at their first point.
        patience: how long to wait for whom.
        tolerance: residual at which the areas agree.
        point: the number of the present point.
        told: what was done, in sentences.
        rests: whether nothing is left to gain.
        ended: why there is no further point, where it does not rest.
        waits: whether areas are to agree more closely before their step is judged.
    """

    plan: Plan
    transport: Transport
    executor: AtPoint
    patience: Patience = field(default_factory=Patience)
    tolerance: float = AGREED
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    point: int = 1
    told: list[str] = field(default_factory=list)
    rests: bool = False
    ended: str = ""
    waits: bool = False
    #: messages and bytes of the sweeps
    said: tuple[int, int] = (0, 0)
    #: trust region, and the factor on the curvature of losses; see `lateral.successive.Rounds`
    radius: float = np.inf
    factor: float = 1.0
    _fell_back: int = 0
    _failed: int = 0
    _freed: int = 0
    _waited: int = 0
    _here: int = 0
    _left: bool = False
    _number: int = LATER

    @staticmethod
    def fits(formulation: str, algorithm: Algorithm) -> bool:
        """Whether a run goes from point to point: to first order, unless areas tell each other voltages, or prices."""
        return formulations.get(formulation).first_order and algorithm.coupling == "consensus"

    @property
    def held(self) -> bool:
        """Whether decisions are held to a trust region."""
        return bool(np.isfinite(self.radius))

    @property
    def settled(self) -> bool:
        """Whether areas are at rest, and where they came to it."""
        return self.rests and self.executor.fell_back == self._fell_back

    @property
    def at(self) -> str:
        """Where it is, as a sentence."""
        if self.settled:
            return f"at rest at point {self.point}: a local optimum of the exact model"
        return f"not at rest at point {self.point}: {self.ended or 'there were no further rounds'}"

    @staticmethod
    def resumed(algorithm: Algorithm, state: State, rounds: Sequence[Round]) -> State:
        """The state of a run that is resumed, whose areas begin at their first point again; where it had gone on from
        there, what was seen of other points is nothing."""
        return algorithm.renewed(state) if any(r.built_again for r in rounds) else state

    def agreed(self, now: Progress) -> tuple[str, ...]:
        """`look`, after a round in which all areas have a schedule and agree; nothing after any other."""
        return self.look() if now.finished and not now.dead and not now.round.failures else ()

    def goes_on(self, last: Progress) -> bool:
        """Whether areas that agree are to do so more closely."""
        return self.waits and not last.dead and not last.round.failures

    def look(self) -> tuple[str, ...]:
        """Where areas agree: let them go on from another point, or from the same one with less of a step.

        Returns:
            the areas, all of them; none where they rest, or there is no way on.
        """
        found: tuple[str, ...] = ()
        self.waits = False
        if self.executor.fell_back == self._fell_back and not self.rests and not self.ended:
            try:
                found = self._judged()
            except SolveError as error:  # it may answer again after a round
                self._failed += 1
                self._say(f"not judged: {error}")
                self.ended = str(error) if self._failed >= MOST_FAILED else ""
                found = () if self.ended else self.plan.areas
        if self.executor.fell_back != self._fell_back:
            self._fell_back, self.radius, self.factor = self.executor.fell_back, np.inf, 1.0
            self.rests, self.ended, self._waited, self._failed = False, "", 0, 0
            self._say("an area was started again, and all of them are at their first point again")
            return self.plan.areas
        return found

    def _judged(self) -> tuple[str, ...]:
        """The verdict on the step that the areas agree on, as `lateral.successive.Rounds.judge` has it of a whole."""
        said = self._ask("step", {})
        steps = [_numbers(area, reply, OF_STEP) for area, reply in said.items()]
        promised, objective = (sum(step[x] for step in steps) for x in ("promised", "objective"))
        size = max(abs(objective), *(step["floor"] for step in steps), TINIEST)
        length = float(np.max([step["length"] for step in steps]))
        if not np.isfinite(promised + size + length):
            self.ended = "an area has no schedule to go on from, or keeps its objective to itself"
            return ()
        relative = promised / size
        says = f"predicted decrease {relative:.1e} relative, step {length:.1e}"
        rest = max(REST, 0.1 * self.tolerance)
        anew = any(step["anew"] > 0.0 for step in steps)
        self._left = any(step["left"] > 0.0 for step in steps)
        if length <= TINY and abs(relative) <= max(AGREED, self.tolerance) and not anew:
            return self._rested(says)
        # of a convex program no optimum is worse than the point itself: what areas differ by is in the way
        if relative < -rest and not anew and self._waited < MOST_WAITED:
            self._waited, self.waits = self._waited + 1, True
            return ()
        swept = Sweeps(
            self.plan, self.executor, self.transport, self.patience, self.clock, self.pause,
            operation="schedule", number=self._number,
        )  # fmt: skip
        sent, size_sent = self.transport.messages, self.transport.bytes
        try:
            found = swept.settle()
        except UnsupportedError:  # an area's rows have no solution
            found = None
        finally:
            self._number = swept.number
            new = self.transport.messages - sent, self.transport.bytes - size_sent
            self.said = self.said[0] + new[0], self.said[1] + new[1]
        if found is None or not np.all(swept.live()):
            return self._rejected(f"rejected, its power flow does not converge; {says}", 0.25 * length)
        if anew:  # nothing to compare with
            return self._move(f"accepted, the point before was another power flow; step {length:.1e}", accept=True)
        flows = [_numbers(area, reply, OF_FLOW) for area, reply in swept.replies.items()]
        gained, bent = (sum(flow[x] for flow in flows) for x in ("gained", "bent"))
        away = float(np.max([flow["away"] for flow in flows]))
        if not np.isfinite(gained + bent + away):
            self.ended = "an area does not say what its step brings"
            return ()
        says = f"predicted decrease {relative:.1e} relative, true {gained / size:.1e}, step {length:.1e}"
        held = length > 0.99 * self.radius
        nothing = abs(gained) <= rest * size
        flat = abs(relative) <= (max(AGREED, self.tolerance) if nothing else rest) or (nothing and length <= TINY)
        if flat and not held:
            if gained < -rest * size:
                return self._rejected(f"rejected, {says}", 0.25 * length)
            if away <= AWAY:
                return self._rested(says)
            return self._move(f"accepted, {says}", accept=True)
        low, high = TRUSTED
        if bent > 0.0 and not (self.factor == 1.0 and low * promised <= gained <= high * promised):
            change = np.clip(1.0 + (promised - gained) / bent, 1.0 / FACTOR_STEP, FACTOR_STEP)
            self.factor = float(np.clip(self.factor * change, *FACTOR_RANGE))
        if promised <= 0.0:
            return self._rejected(f"rejected, {says}", 0.5 * length)
        share = gained / promised
        if share < ACCEPT:
            return self._rejected(f"rejected, {says}", 0.5 * length)
        if share < POOR:
            self.radius = 0.5 * length
        elif share > GOOD and held:
            self.radius = 2.0 * self.radius
        return self._move(f"accepted, {says}", accept=True)

    def _say(self, what: str) -> tuple[str, ...]:
        self.told.append(f"point {self.point}: {what}")
        return ()

    def wider(self, now: Progress) -> tuple[str, ...]:
        """After a round in which areas do not agree: let the trust region grow where it leaves them no schedule, which
        the limits do at a point that does not keep them.

        Returns:
            the areas, all of them; none where it stays.
        """
        if not np.isfinite(self.radius) or self.rests or self.ended or now.dead:
            return ()
        self._here += 1
        none = any(word in INFEASIBLE for word in now.round.statuses.values())
        if self._here < (NOWHERE if none else STUCK):
            return ()
        self.radius = 4.0 * self.radius if self.radius < 0.25 else np.inf
        try:
            return self._move(f"no schedule within the trust region, which grows to {self.radius:.1e}", accept=False)
        except SolveError as error:
            self.ended = str(error)
            return ()

    def _rested(self, why: str) -> tuple[str, ...]:
        """At rest; within a trust region it is to be seen without."""
        if np.isfinite(self.radius) and self._freed < MOST_FREED:
            self._freed, self.radius = self._freed + 1, np.inf
            return self._move(f"{why}, to be seen without a trust region", accept=False)
        if self._left:
            self.ended = "loads are beyond the side of their band that was taken, and building again did not mend it"
            return self._say(why)
        self.rests = True
        return self._say(why)

    def _rejected(self, why: str, radius: float) -> tuple[str, ...]:
        self.radius = radius
        if radius < SMALLEST:
            self.ended = "the trust region has become too small"
            return self._say(why)
        return self._move(why, accept=False)

    def _move(self, why: str, *, accept: bool) -> tuple[str, ...]:
        """Let every area go to the point of its step, or stay."""
        self._say(why)
        if self.point >= MOST_POINTS:
            self.ended = f"{MOST_POINTS} points were not enough"
            return ()
        self.point, self._waited, self._here = self.point + 1, 0, 0
        self.executor.moved = True
        self._ask("move", {"accept": accept, "radius": self.radius, "factor": self.factor})
        return self.plan.areas

    def _ask(self, operation: str, request: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """What all areas answer.

        Raises:
            SolveError: one did not, or says that it cannot.
        """
        watch = Watch(self.patience, self.executor, self.clock, self.pause)
        replies = watch.ask(operation, dict.fromkeys(self.plan.areas, request))
        for reply in replies.values():
            if isinstance(reply, Failure):
                raise SolveError(reply.reason)
            if "error" in reply:
                raise SolveError(str(reply["error"]))
        return replies


def _numbers(area: str, reply: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    """Some numbers of a reply.

    Raises:
        SolveError: they are not there, or no numbers.
    """
    try:
        return {name: float(reply[name]) for name in names}
    except (KeyError, TypeError, ValueError, OverflowError):
        message = f"area {area!r} does not say what its step is worth ({', '.join(names)})"
        raise SolveError(message) from None


__all__ = ["MOST_POINTS", "Successive"]
