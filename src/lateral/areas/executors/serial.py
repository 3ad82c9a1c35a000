"""Serial: every area in this process, one after the other; deterministic, for tests, notebooks and small cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from lateral.areas.agent import AreaAgent
from lateral.areas.executors.base import Executor
from lateral.areas.protocol import AreaSpec, Failure, handle


@final
class Serial(Executor):
    """Areas in this process."""

    name: ClassVar[str] = "serial"
    title: ClassVar[str] = "in this process, one after the other"

    def __init__(self) -> None:
        self._specs: Mapping[str, AreaSpec] = {}
        self._agents: dict[str, AreaAgent] = {}

    def start(self, areas: Mapping[str, AreaSpec]) -> None:
        """See `Executor.start`."""
        self._specs = dict(areas)
        self._agents = {name: AreaAgent(name, spec.case, spec.task) for name, spec in areas.items()}

    def map(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any] | Failure]:
        """See `Executor.map`; nothing here can be late."""
        out: dict[str, dict[str, Any] | Failure] = {}
        for area, request in requests.items():
            agent = self._agents.get(area)
            out[area] = Failure(area, f"area {area!r} is gone") if agent is None else handle(agent, operation, request)
        return out

    def restart(self, area: str) -> bool:
        """See `Executor.restart`."""
        spec = self._specs[area]
        self._agents[area] = AreaAgent(area, spec.case, spec.task)
        return True

    def stop(self, area: str) -> None:
        """Let an area be gone, as if its process had died (for tests of what then happens)."""
        self._agents.pop(area, None)

    def close(self) -> None:
        """See `Executor.close`."""
        self._agents = {}


__all__ = ["Serial"]
