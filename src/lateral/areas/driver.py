"""The driver: one loop for every algorithm, executor and transport, and what it does when areas or messages fail.

Who does not answer is *silent*: the others go on with what it said last. Silent for ``dead_s``, it is *dead*: its
borders are frozen, and the others finish without it. Who answers that it cannot (infeasible, an error) is neither: it
is asked again in the next round, with what its neighbours say then. See ``docs/areas/failures.md``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lateral.areas.agent import Answer
from lateral.areas.algorithms import Algorithm, State
from lateral.areas.algorithms.base import neighbours, speaks
from lateral.areas.executors.base import Executor
from lateral.areas.message import Message, MessageError, Values
from lateral.areas.plan import Plan, Wave
from lateral.areas.protocol import Failure, answer_of
from lateral.areas.run import Round
from lateral.areas.silence import Patience, Watch
from lateral.areas.transport import Transport
from lateral.solvers import Status

#: Residual at which loads that left the side of their band are looked for the first time: voltages are settled enough
#: to see most of them, and the rounds that follow are of the right problem.
NEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Progress:
    """The state after a round, and what the round was.

    Attributes:
        state: the algorithm's state.
        round: the round.
        dead: areas that are dead.
        finished: whether there is nothing more to be had: the living areas agree, and none of them is only late.
        told: what each area was told before its last answer, by border: whoever has the area can repeat that answer.
    """

    state: State
    round: Round
    dead: tuple[str, ...]
    finished: bool
    told: Mapping[str, Mapping[str, Values]] = field(default_factory=dict)


def iterate(
    plan: Plan,
    algorithm: Algorithm,
    executor: Executor,
    transport: Transport,
    *,
    tolerance: float,
    state: State | None = None,
    patience: Patience | None = None,
    look: Callable[[Progress], Sequence[str]] | None = None,
    otherwise: Callable[[Progress], Sequence[str]] | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """Rounds without end; whoever asks stops at the one that is ``finished``, or when there were enough.

    Args:
        plan: the areas.
        algorithm: the algorithm.
        executor: a started executor.
        transport: carries what areas say.
        tolerance: residual at which the areas agree.
        state: to go on from; absent: from the beginning.
        patience: how long to wait for whom.
        look: called where the areas agree, and once before, where they nearly do (`NEAR`): says which areas were built
            again, so that rounds go on.
        otherwise: called after any other round, likewise.
        clock: seconds, for declaring areas dead.
        pause: waits some seconds, for an area that everybody else has finished without.
    """
    wait = patience or Patience()
    now = algorithm.init(plan) if state is None else state
    watch = Watch(wait, executor, clock, pause)
    last: dict[str, Answer] = {}
    told: dict[str, Mapping[str, Values]] = {}
    stuck: set[str] = set()
    first_look = True
    while True:
        seconds: dict[str, float] = {}
        spent: list[tuple[Wave, dict[str, float]]] = []
        replies = Replies(plan, algorithm)
        sent, size = transport.messages, transport.bytes
        for number, wave in enumerate(algorithm.waves_at(plan, now)):
            asked = {a: algorithm.inputs(plan, now, a) for a in wave.areas if watch.may_be_asked(a)}
            requests = {a: {"borders": borders, **algorithm.asks(plan, now, a)} for a, borders in asked.items()}
            answers = replies.take(watch.ask("solve", requests))
            last.update(answers)
            told.update({a: asked[a] for a in answers})
            spent.append((wave, {a: r.seconds for a, r in answers.items()}))
            for a, r in answers.items():
                seconds[a] = seconds.get(a, 0.0) + r.seconds
            messages = said_in(plan, wave, answers, run=transport.run, round_=now.round + 1, number=number)
            now = algorithm.step(plan, now, wave, answers, transport.deliver(messages))
        silent = watch.silent
        counted = among_living(plan, now, silent)
        stale = stale_borders(plan, now, silent, wait.age_rounds)
        failures = {**watch.reasons(), **replies.problems}
        whole = all(a in last for a in plan.areas)
        done = Round(
            number=now.round,
            residual=counted.residual,
            residuals=now.residuals,
            objective=sum(r.objective for r in last.values()) if whole else float("nan"),
            cost=last[plan.areas[0]].cost if plan.areas[0] in last else float("nan"),
            held=now.held,
            seconds=seconds,
            critical=critical_path(plan, spent),
            messages=transport.messages - sent,
            bytes=transport.bytes - size,
            failures=failures,
            statuses={a: r.status for a, r in last.items() if a not in silent} | replies.statuses,
            frozen=tuple(n for n, b in plan.borders.items() if {b.parent, b.child} & silent),
            stale=stale,
        )
        agreed = algorithm.terminate(plan, counted, tolerance) and not stale
        failing = set(replies.problems) - silent
        waiting = agreed and bool(silent - set(watch.dead))
        # an area that fails may find a way with what the others say next; where nothing moves any more it will not,
        # unless it says itself that it is still on its way
        on_its_way = any(replies.statuses[a] == Status.LIMIT_REACHED.word for a in failing)
        finished = agreed and not waiting and (not failing or (failing == stuck and not on_its_way))
        stuck = failing if agreed else set()
        made = Progress(now, done, tuple(a for a in plan.areas if a in watch.dead), finished, dict(told))
        still = {replies.statuses[a] for a in failing} <= {Status.LIMIT_REACHED.word}  # on their way, no worse
        near = first_look and not silent and still and counted.residual <= NEAR
        first_look = first_look and not near
        judge = look if finished or near else otherwise
        if judge is not None and (built := tuple(judge(made))):
            now = algorithm.renewed(now)
            made = dataclasses.replace(
                made, state=now, round=dataclasses.replace(done, built_again=built), finished=False
            )
        yield made
        if waiting:
            watch.wait({a: {"borders": algorithm.inputs(plan, now, a)} for a in silent})


def among_living(plan: Plan, state: State, silent: set[str]) -> State:
    """The state as it is judged: a border with a silent side is frozen, and its residual does not count."""
    if not silent:
        return state
    counted = {
        name: r
        for name, r in state.residuals.items()
        if not {plan.borders[name].parent, plan.borders[name].child} & silent
    }
    return dataclasses.replace(state, residuals=counted, residual=max(counted.values(), default=0.0))


def stale_borders(plan: Plan, state: State, silent: set[str], age_rounds: int) -> tuple[str, ...]:
    """Borders between answering areas at which one side heard nothing for more than ``age_rounds`` rounds."""
    out = []
    for name, border in plan.borders.items():
        sides = (border.parent, border.child)
        if not silent.intersection(sides):
            oldest = min(state.heard.get(f"{side}/{name}", 0) for side in sides)
            if state.round - oldest > age_rounds:
                out.append(name)
    return tuple(out)


def said_in(
    plan: Plan, wave: Wave, answers: Mapping[str, Answer], *, run: str, round_: int, number: int
) -> list[Message]:
    """The messages that areas send after a wave."""
    out = []
    for area, answer in answers.items():
        for name, values in answer.borders.items():
            border = plan.borders[name]
            if speaks(plan, wave, area, name):
                to = border.parent if border.child == area else border.child
                out.append(Message(run, area, to, name, round_, number, values))
    return out


def critical_path(plan: Plan, spent: list[tuple[Wave, dict[str, float]]]) -> float:
    """Seconds of a round in which every area has its own machine: it waits for its neighbours only.

    Up: an area begins when all below it are done; down: when the one above it is. All at once: the slowest area.
    """
    done: dict[str, float] = {}
    for wave, seconds in spent:
        ends = {}
        for area, own in seconds.items():
            if wave.send == "both":
                begin = 0.0
            elif wave.send == "up" or area not in plan.head:
                begin = max((done.get(b.child, 0.0) for b in plan.tails[area]), default=0.0)
            else:
                begin = max(done.get(plan.head[area].parent, 0.0), done.get(area, 0.0))
            ends[area] = begin + own
        done.update(ends)
    return max(done.values(), default=0.0)


class Replies:
    """The replies of one round: proper answers are handed on, of the others the reason is kept.

    Attributes:
        problems: areas that answered, but with no solution, with the reason.
        statuses: status words of these.
    """

    def __init__(self, plan: Plan, algorithm: Algorithm) -> None:
        self.plan, self.algorithm = plan, algorithm
        self.problems: dict[str, str] = {}
        self.statuses: dict[str, str] = {}

    def take(self, replies: Mapping[str, Any]) -> dict[str, Answer]:
        """The proper answers among replies."""
        out: dict[str, Answer] = {}
        for area, reply in replies.items():
            if isinstance(reply, Failure):
                continue
            self.problems.pop(area, None)
            self.statuses.pop(area, None)
            if "error" in reply:
                self._note(area, "error", str(reply["error"]))
                continue
            try:
                found = answer_of(reply)
                if found.borders or found.status == "optimal":
                    self._check(area, found)
                    out[area] = found
            except MessageError as error:
                self._note(area, "error", f"area {area!r}: {error}")
                continue
            if found.status not in ("optimal", "inaccurate"):
                self._note(area, found.status, f"area {area!r}: {found.text}")
        return out

    def _note(self, area: str, status: str, problem: str) -> None:
        self.problems[area], self.statuses[area] = problem, status

    def _check(self, area: str, answer: Answer) -> None:
        """That an area speaks of its own borders, all of them, and in the right shapes."""
        own = dict(neighbours(self.plan, area))
        if answer.area != area or set(answer.borders) != set(own):
            message = f"an answer of area {answer.area!r} at {', '.join(answer.borders) or 'no border'}"
            raise MessageError(message)
        for name, values in answer.borders.items():
            sets = self.algorithm.may_say(self.plan, name, area)
            fits = all(array.shape == self.plan.shape(name) for array in values.values())
            if not fits or all(set(values) != set(wanted) for wanted in sets):
                wanted = " or ".join(", ".join(one) for one in sets)
                message = f"at border {name!r} it says {', '.join(values)}, not {wanted} of one shape"
                raise MessageError(message)


__all__ = ["Patience", "Progress", "among_living", "critical_path", "iterate", "said_in", "stale_borders"]
