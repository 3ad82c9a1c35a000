"""Transports: how a message gets from one area to another. The coordinator delivers what was said to who is to hear it.

`Direct` loses nothing. `lateral.areas.faults` has one that loses, delays, repeats, reorders and corrupts, to rehearse.

What arrives is checked before it is used: that it is whole (checksum), a message of this run between two neighbours, in
the right direction, with the quantities, shapes and bounds that it must have, and not of a round that is yet to come.
What fails is refused and counted, as good as lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

from lateral.areas.message import Bounds, Message, MessageError, decode, encode
from lateral.areas.plan import Plan

#: Longest reason of a refusal that is kept, characters: a damaged message must not fill the memory.
LONGEST = 200


class Transport(ABC):
    """Base of every transport. Counts what it was given to carry.

    Attributes:
        messages: given to carry so far.
        bytes: of them.
        rejected: why messages were refused, one reason each.
    """

    def __init__(self, plan: Plan, *, run: str, bounds: Bounds | None = None) -> None:
        self.plan, self.run, self.bounds = plan, run, bounds or Bounds()
        self.messages = 0
        self.bytes = 0
        self.rejected: list[str] = []
        self._round = 0
        self._said: dict[tuple[str, str], set[str]] = {}

    def deliver(self, messages: Sequence[Message]) -> list[Message]:
        """What arrives, now, of the messages said now and before."""
        sent = [encode(m) for m in messages]
        self.messages += len(sent)
        self.bytes += sum(len(data) for data in sent)
        for m in messages:
            self._round = max(self._round, m.round)
            self._said[m.sender, m.border] = set(m.values)
        out = []
        for data in self.carry(sent):
            try:
                out.append(self._checked(data))
            except MessageError as error:
                self.rejected.append(str(error)[:LONGEST])
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
        if header.round > self._round:
            problem = f"a message of round {header.round} in round {self._round}"
            raise MessageError(problem)
        if set(header.values) != self._said.get((header.sender, header.border)):
            problem = f"area {header.sender!r} has no say in {', '.join(header.values) or 'nothing'}"
            raise MessageError(problem)
        return decode(data, shape=self.plan.shape(header.border), bounds=self.bounds)


@final
class Direct(Transport):
    """Everything arrives, at once and once."""

    def carry(self, sent: Sequence[bytes]) -> Sequence[bytes]:
        """All of it."""
        return sent


__all__ = ["Direct", "Transport"]
