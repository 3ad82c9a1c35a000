"""The driver: one loop for every algorithm, executor and transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lateral.areas.agent import Answer
from lateral.areas.algorithms import Algorithm, State
from lateral.areas.algorithms.base import speaks
from lateral.areas.executors.base import Executor
from lateral.areas.message import Message, MessageError
from lateral.areas.plan import Plan, Wave
from lateral.areas.protocol import Failure, answer_of
from lateral.areas.run import Round
from lateral.areas.transport import Transport


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a run waits for whom.

    Attributes:
        solve_s: seconds that an area has for one solve.
        dead_s: seconds after which an area that does not answer is declared dead; the others then go on with what it
            said last.
        age_rounds: how many rounds old a neighbour's value may be; an area whose neighbours are all older waits.
        restart: whether the run itself tries to bring a dead area back.
    """

    solve_s: float = 600.0
    dead_s: float = 5.0
    age_rounds: int = 50
    restart: bool = True


@dataclass(frozen=True, eq=False)
class Progress:
    """The state after a round, and what the round was.

    Attributes:
        state: the algorithm's state.
        round: the round.
        dead: areas declared dead so far.
        finished: whether the areas agree.
    """

    state: State
    round: Round
    dead: tuple[str, ...]
    finished: bool


def iterate(
    plan: Plan,
    algorithm: Algorithm,
    executor: Executor,
    transport: Transport,
    *,
    tolerance: float,
    state: State | None = None,
    patience: Patience | None = None,
    clock: Callable[[], float] = time.monotonic,
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
        clock: seconds, for declaring areas dead.
    """
    wait = patience or Patience()
    now = algorithm.init(plan) if state is None else state
    watch = _Watch(wait, executor, clock)
    last: dict[str, Answer] = {}
    while True:
        seconds: dict[str, float] = {}
        spent: list[tuple[Wave, dict[str, float]]] = []
        failures: dict[str, str] = {}
        sent, size = transport.messages, transport.bytes
        for number, wave in enumerate(algorithm.waves(plan)):
            asked = {a: {"borders": algorithm.inputs(plan, now, a)} for a in wave.areas if watch.may_be_asked(a)}
            answers = _answers(executor.map("solve", asked, timeout_s=wait.solve_s), failures)
            watch.note(asked, answers, failures)
            last.update(answers)
            spent.append((wave, {a: r.seconds for a, r in answers.items()}))
            for a, r in answers.items():
                seconds[a] = seconds.get(a, 0.0) + r.seconds
            messages = said_in(plan, wave, answers, run=transport.run, round_=now.round + 1, number=number)
            now = algorithm.step(plan, now, wave, answers, transport.deliver(messages))
        whole = all(a in last for a in plan.areas)
        done = Round(
            number=now.round,
            residual=now.residual,
            residuals=now.residuals,
            objective=sum(r.objective for r in last.values()) if whole else float("nan"),
            cost=last[plan.areas[0]].cost if plan.areas[0] in last else float("nan"),
            held=now.held,
            seconds=seconds,
            critical=critical_path(plan, spent),
            messages=transport.messages - sent,
            bytes=transport.bytes - size,
            failures=failures,
        )
        finished = algorithm.terminate(plan, now, tolerance) and not (set(failures) - set(watch.dead))
        yield Progress(now, done, tuple(watch.dead), finished)


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


def _answers(replies: Mapping[str, object], failures: dict[str, str]) -> dict[str, Answer]:
    """The proper answers among replies; reasons of the others are added to ``failures``."""
    out: dict[str, Answer] = {}
    for area, reply in replies.items():
        if isinstance(reply, Failure):
            failures[area] = reply.reason
        elif isinstance(reply, dict) and "error" in reply:
            failures[area] = str(reply["error"])
        elif isinstance(reply, dict):
            try:
                found = answer_of(reply)
            except MessageError as error:
                failures[area] = f"area {area!r}: {error}"
                continue
            if found.borders or found.status == "optimal":
                out[area] = found
                if found.status not in ("optimal", "inaccurate"):
                    failures[area] = f"area {area!r}: {found.text}"
            else:
                failures[area] = f"area {area!r}: {found.text}"
    return out


class _Watch:
    """Who is late, who is dead, who came back. The one stateful helper of the loop."""

    def __init__(self, patience: Patience, executor: Executor, clock: Callable[[], float]) -> None:
        self.patience, self.executor, self.clock = patience, executor, clock
        self.silent_since: dict[str, float] = {}
        self.dead: dict[str, str] = {}

    def may_be_asked(self, area: str) -> bool:
        """False for a dead area that does not come back."""
        return area not in self.dead or (self.patience.restart and self._back(area))

    def _back(self, area: str) -> bool:
        if self.executor.restart(area):
            del self.dead[area]
            self.silent_since.pop(area, None)
            return True
        return False

    def note(self, asked: Mapping[str, object], answers: Mapping[str, Answer], failures: Mapping[str, str]) -> None:
        """Who answered, and who did not."""
        for area in asked:
            if area in answers:
                self.silent_since.pop(area, None)
                continue
            since = self.silent_since.setdefault(area, self.clock())
            if self.clock() - since >= self.patience.dead_s:
                self.dead[area] = failures.get(area, "")


__all__ = ["Patience", "Progress", "critical_path", "iterate", "said_in"]
