"""Silence: who is late, who is dead, who came back; and how long a run waits for whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lateral.areas.executors.base import Executor
from lateral.areas.protocol import Failure
from lateral.errors import OptionError

#: The first pause between two attempts to reach a silent area, s; each is twice as long as the one before.
FIRST_PAUSE_S = 0.05
#: The longest one, s.
LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a run waits for whom.

    Attributes:
        solve_s: seconds that an area has for one answer; then the others go on with what it said last.
        dead_s: seconds without an answer after which an area is dead: its borders are frozen, the others finish.
        age_rounds: how many rounds old a neighbour's value may be at the end; a run does not end as agreed while
            something older is in use at a border between areas that answer.
        restart: whether the run tries to bring back an area whose process is gone, or that is dead.

    Raises:
        OptionError: a time or an age below zero.
    """

    solve_s: float = 600.0
    dead_s: float = 5.0
    age_rounds: int = 50
    restart: bool = True

    def __post_init__(self) -> None:
        wrong = [
            f"{x} = {getattr(self, x)!r}" for x in ("solve_s", "dead_s", "age_rounds") if not getattr(self, x) >= 0
        ]
        if wrong:
            message = f"patience: {', '.join(wrong)}; none may be below zero"
            raise OptionError(message)


class Watch:
    """Asks areas through an executor, and remembers who did not answer. The one stateful helper of the driver.

    Attributes:
        dead: areas that are dead, with the reason.
    """

    def __init__(
        self, patience: Patience, executor: Executor, clock: Callable[[], float], pause: Callable[[float], None]
    ) -> None:
        self.patience, self.executor, self.clock, self.pause = patience, executor, clock, pause
        self.dead: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._why: dict[str, Failure] = {}
        self._due: dict[str, float] = {}
        self._step: dict[str, float] = {}

    @property
    def silent(self) -> set[str]:
        """Areas that did not answer when they were last asked; the dead are among them."""
        return set(self._since)

    def reasons(self) -> dict[str, str]:
        """Why areas are silent."""
        return {area: failure.reason for area, failure in self._why.items()}

    def may_be_asked(self, area: str) -> bool:
        """Whether to ask an area now: a silent one after a pause only, and where it is gone, when it is back."""
        if area not in self._since:
            return True
        if self.clock() < self._due[area]:
            self._judge(area)
            return False
        gone = self._why[area].gone or area in self.dead
        if gone and self.patience.restart:
            if self.executor.restart(area):
                return True
            self._later(area)
            self._judge(area)
            return False
        return area not in self.dead

    def ask(self, operation: str, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """One operation on some areas, as `Executor.map`; who answers is not silent (any more)."""
        if not requests:
            return {}
        begin = self.clock()
        replies = self.executor.map(operation, requests, timeout_s=self.patience.solve_s)
        for area in requests:
            reply = replies[area]
            if isinstance(reply, Failure):
                self._since.setdefault(area, begin)
                self._why[area] = reply
                self._later(area)
                self._judge(area)
            elif area in self._since:
                for memory in (self._since, self._why, self._due, self._step, self.dead):
                    memory.pop(area, None)
        return dict(replies)

    def wait(self, requests: Mapping[str, Mapping[str, Any]]) -> None:
        """Until a silent area answers again, or all of them are dead: the others have nothing left to do."""
        while True:
            late = [area for area in self._since if area not in self.dead]
            if not late:
                return
            now = self.clock()
            times = [t for a in late for t in (self._due[a], self._since[a] + self.patience.dead_s)]
            self.pause(max(min(times) - now, 1e-3))
            asked = {area: requests[area] for area in late if self.may_be_asked(area)}
            replies = self.ask("solve", asked)
            if any(not isinstance(reply, Failure) for reply in replies.values()):
                return

    def _judge(self, area: str) -> None:
        """Dead, when it was silent for too long."""
        if area not in self.dead and self.clock() - self._since[area] >= self.patience.dead_s:
            self.dead[area] = self._why[area].reason

    def _later(self, area: str) -> None:
        """The next attempt: the first at once, others after a pause that grows."""
        step = self._step.get(area, 0.0)
        self._due[area] = self.clock() + step
        self._step[area] = min(2.0 * step, LONGEST_PAUSE_S) or FIRST_PAUSE_S


__all__ = ["FIRST_PAUSE_S", "LONGEST_PAUSE_S", "Patience", "Watch"]
