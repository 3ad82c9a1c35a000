"""Transports: how a message gets from one area to another. The coordinator delivers what was said to who is to hear it.

`Direct` loses nothing. Tests have transports that lose, delay, repeat, reorder and corrupt (`lateral.areas.faults`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

from lateral.areas.message import Bounds, Message, MessageError, decode, encode
from lateral.areas.plan import Plan


class Transport(ABC):
    """Base of every transport. Counts what it was given to carry."""

    def __init__(self, plan: Plan, *, run: str, bounds: Bounds | None = None) -> None:
        self.plan, self.run, self.bounds = plan, run, bounds or Bounds()
        self.messages = 0
        self.bytes = 0
        self.rejected: list[str] = []

    def deliver(self, messages: Sequence[Message]) -> list[Message]:
        """What arrives, now, of the messages said now and before."""
        sent = [encode(m) for m in messages]
        self.messages += len(sent)
        self.bytes += sum(len(data) for data in sent)
        out = []
        for data in self.carry(sent):
            try:
                out.append(self._checked(data))
            except MessageError as error:
                self.rejected.append(str(error))
        return out

    @abstractmethod
    def carry(self, sent: Sequence[bytes]) -> Sequence[bytes]:
        """The bytes that arrive."""

    def _checked(self, data: bytes) -> Message:
        """A message of this run, between neighbours, of the right shape, with values that can be."""
        header = decode(data)
        border = self.plan.borders.get(header.border)
        if border is None or {header.sender, header.receiver} != {border.parent, border.child}:
            problem = f"border {header.border!r} is not between {header.sender!r} and {header.receiver!r}"
            raise MessageError(problem)
        if header.run != self.run:
            problem = f"a message of run {header.run!r}"
            raise MessageError(problem)
        return decode(data, shape=self.plan.shape(header.border), bounds=self.bounds)


@final
class Direct(Transport):
    """Everything arrives, at once and once."""

    def carry(self, sent: Sequence[bytes]) -> Sequence[bytes]:
        """All of it."""
        return sent


__all__ = ["Direct", "Transport"]
