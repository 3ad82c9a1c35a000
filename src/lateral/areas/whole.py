"""Whole: what whoever owns all areas sees of the schedule, and what that shows to be wrong of the areas' problems.

An exact form has the law of a load on one side of an edge of its band (`lateral.devices.load`). Areas that nearly agree
are asked whether their loads left that side; each sees it in its own voltages, and is then built again at these. That a
schedule has a second state, across a jump of a law (`lateral.jumps`), shows in a power flow of the whole alone: where
the joined schedule is optimal it is looked for, and the areas concerned are told beside which voltages loads stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lateral.areas.agent import AreaAgent
from lateral.areas.driver import Progress
from lateral.areas.executors import Executor
from lateral.areas.join import at_points, joined, moved_to, with_limits
from lateral.areas.plan import Plan
from lateral.areas.point import AtPoint, Settled
from lateral.areas.protocol import AreaSpec, Failure, handle
from lateral.formulations import Beside
from lateral.jumps import Crossed, second_state
from lateral.model import MOST_JUMPS, Model, point_of
from lateral.results.result import Result
from lateral.solvers import Status

#: Seconds that areas have for saying what they have.
ANSWER_S = 600.0


def built_again(
    executor: Executor, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Let areas build again what is on another side than was taken.

    Args:
        executor: a started executor.
        requests: by area, see `lateral.areas.protocol`; nothing where an area is to look itself.
        timeout_s: how long an area has.

    Returns:
        areas that did; areas whose loads are, or may be, on another side all the same.
    """
    replies = executor.map("again", requests, timeout_s=timeout_s)
    said: dict[str, Mapping[str, Any]] = {a: {} if isinstance(r, Failure) else r for a, r in replies.items()}
    built = tuple(a for a, r in said.items() if r.get("built") is True)
    return built, tuple(a for a in requests if a not in built and said.get(a, {}).get("left") is not False)


class Whole:
    """The whole that areas are parts of.

    Args:
        model: the built problem of the whole feeder.
        plan: the areas.
        specs: what each area's process starts from.

    Attributes:
        model: the problem that the areas' schedules are put into: at their operating points, with their limits.
        result: the joined result when it was seen last; None when an area had nothing to show.
        repeated: areas that were gone then, and whose last answer was repeated here.
    """

    def __init__(self, model: Model, plan: Plan, specs: Mapping[str, AreaSpec]) -> None:
        self.model, self.plan, self.specs = model, plan, specs
        self.result: Result | None = None
        self.repeated: tuple[str, ...] = ()
        self._round = 0
        self._second = Crossed()
        self._kept = 0

    def look(
        self, executor: Executor, settled: Settled | None, now: Progress, *, certify: bool, timeout_s: float
    ) -> tuple[str, ...]:
        """Areas that were built again, because a load of theirs is on another side than was taken.

        Args:
            executor: a started executor.
            settled: the areas' operating point.
            now: the round.
            certify: whether the schedules may be joined and looked at as a whole.
            timeout_s: how long an area has for building again.
        """
        if not self.model.formulation.lazy or now.dead or (now.finished and now.round.failures):
            return ()
        built, _ = built_again(executor, {area: {} for area in self.plan.areas}, timeout_s=timeout_s)
        if built or not (certify and now.finished):
            return built
        self.see(executor, settled, now)
        if not self._second.count or self._second.stuck or self._kept >= MOST_JUMPS:
            return ()
        self._kept += 1
        return built_again(executor, self._told(self._second.beside), timeout_s=timeout_s)[0]

    def see(self, executor: Executor, settled: Settled | None, last: Progress | None) -> Result | None:
        """The joined result after a round; not collected twice."""
        number = 0 if last is None else last.round.number
        if self.result is not None and number and self._round == number and not self.repeated:
            return self.result
        self._round, self._second, self.result = number, Crossed(), None
        parts, self.repeated = _collected(executor, self.plan, self.specs, last, settled)
        if parts is None:
            return None
        self.model = moved_to(with_limits(at_points(self.model, parts), parts), parts)
        self.result = joined(self.model, parts, iterations=number, seconds={})
        if self.result.ok and self.model.formulation.lazy and self.model.tangent is None:
            self._look_for_a_second_state(self.result)
        return self.result

    def _look_for_a_second_state(self, result: Result) -> None:
        """See that no power flow of the schedule has a load on the other side of a jump; what there is, is said."""
        model = self.model
        v_pu = point_of(result).v_pu
        self._second = second_state(model.case, result.program, result.solution.x, model.network, v_pu, model.beside)
        if self._second.count:
            caution = f"{self._second.count} loads and steps have a second state, across a jump of their law"
            self.result = dataclasses.replace(
                result, status=Status.INACCURATE, cautions=(*result.cautions, f"{caution}, and were not kept from it")
            )
        elif self._second.unknown:
            caution = (
                f"whether loads near a jump of their law have a second state is not known at {self._second.unknown} "
                "steps, whose power flow does not converge; mind the replay"
            )
            self.result = dataclasses.replace(result, cautions=(*result.cautions, caution))

    def _told(self, beside: Beside) -> dict[str, dict[str, Any]]:
        """What areas are told of the voltages beside which loads of theirs stay: of its own ports each, and of news."""
        known, ports = self.model.beside, {*beside.above, *beside.below}
        news = [port for port in ports if not beside.of([port]).same_as(known.of([port]))]
        out: dict[str, dict[str, Any]] = {}
        for area, spec in self.specs.items():
            buses = {load.bus for load in spec.case.loads}
            own = [port for port in news if port.rpartition(".")[0] in buses]
            if own:
                out[area] = {"beside": beside.of(own).data()}
        return out


def _collected(
    executor: Executor,
    plan: Plan,
    specs: Mapping[str, AreaSpec],
    last: Progress | None,
    settled: Settled | None,
) -> tuple[Sequence[Mapping[str, Any]] | None, tuple[str, ...]]:
    """What the areas found, parents before children; and the areas whose last answer was repeated here.

    An area that is gone cannot be asked; but what it is and what it was told before its last answer are known, and the
    same problem has the same answer. None when an area never answered, or has no schedule; or is gone, and had gone on
    to another point before (`lateral.areas.successive`).
    """
    dead = last.dead if last is not None else ()
    asked: dict[str, Mapping[str, Any]] = {a: {} for a in plan.areas if a not in dead}
    replies = executor.map("collect", asked, timeout_s=ANSWER_S)
    parts: list[Mapping[str, Any]] = []
    repeated = []
    for area in plan.areas:
        reply = replies.get(area)
        if reply is None or isinstance(reply, Failure):
            told = last.told.get(area) if last is not None else None
            if told is None or (isinstance(executor, AtPoint) and executor.moved):
                return None, ()  # the point that it went to is gone with it
            repeated.append(area)
            agent = AreaAgent(area, specs[area].case, specs[area].task)
            if settled is not None:
                handle(agent, "power_flow", settled.requests[area])
            handle(agent, "solve", {"borders": told})
            while handle(agent, "again", {}).get("built"):  # to the side on which it was
                handle(agent, "solve", {"borders": told})
            reply = handle(agent, "collect", {})
        if not reply.get("variables"):
            return None, ()
        parts.append(reply)
    return parts, tuple(repeated)


__all__ = ["Whole", "built_again"]
