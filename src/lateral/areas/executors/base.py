"""What every executor does: start areas, map one operation over some of them, stop them. Nothing else.

An executor knows nothing of algorithms or rounds. Whatever it is, the numbers are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from lateral.areas.protocol import AreaSpec, Failure


class Executor(ABC):
    """Base of every executor; a context manager."""

    #: the name that users give
    name: ClassVar[str]
    #: one sentence for tables
    title: ClassVar[str]

    @abstractmethod
    def start(self, areas: Mapping[str, AreaSpec]) -> None:
        """Start every area.

        Raises:
            SolveError: an area does not start; the message names it.
        """

    @abstractmethod
    def map(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any] | Failure]:
        """One operation on some areas, side by side where the executor can; plain data in and out.

        Never raises for an area that fails or is late: that is a `Failure` with the area's name.
        """

    @abstractmethod
    def restart(self, area: str) -> bool:
        """Bring an area back that is gone, from what it was started with; whether it is there again."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything; safe to call twice."""

    @property
    def owns_areas(self) -> bool:
        """Whether the areas are ours, so that their whole schedules may be collected."""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["Executor"]
