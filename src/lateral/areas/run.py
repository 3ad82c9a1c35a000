"""AreasRun: what a run over areas found, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lateral.areas.message import Values
from lateral.areas.plan import Plan
from lateral.areas.point import Settled
from lateral.results.result import Result
from lateral.solvers import Status

#: The keys of `Result.summary`, which a run without a joined result has too.
OF_SOLVE = (
    *("case", "status", "status_text", "status_short", "warnings"),
    *("formulation", "problem_class", "solver", "objective_name", "objective"),
    *(
        "bound",
        "bound_given",
        "cost",
        "energy_import_kwh",
        "energy_export_kwh",
        "losses_kwh",
        "n_buses",
        "n_nodes",
        "n_steps",
    ),
    *("n_variables", "iterations", "seconds"),
    *("residuals", "replay", "verification", "choices", "conflicts", "case_hash", "versions"),
    "import_warnings",
)


@dataclass(frozen=True, eq=False)
class Round:
    """One round.

    Attributes:
        number: from 1.
        residual: largest scaled difference at any border whose sides both answer.
        residuals: by border.
        objective: sum of the areas' own objectives.
        cost: energy cost at the source, $.
        held: what receivers use next, by border: the trajectories.
        seconds: time of each area's solves in this round.
        critical: the critical path: what the round takes when every area has its own machine, s.
        messages: sent in this round.
        bytes: of them.
        failures: areas that did not answer, or answered that they cannot, with the reason.
        statuses: status of each area's last solve, as a word; of those that answered.
        frozen: borders with a side that does not answer; they do not count in ``residual``.
        stale: borders at which something older than the limit of age is in use.
        built_again: areas that were built again after this round, because loads left the side of their band, or to go
            on from another point (`lateral.areas.successive`).
    """

    number: int
    residual: float
    residuals: Mapping[str, float]
    objective: float
    cost: float
    held: Mapping[str, Values]
    seconds: Mapping[str, float]
    critical: float
    messages: int
    bytes: int
    failures: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    built_again: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class AreasRun:
    """A finished run.

    Attributes:
        plan: the areas.
        algorithm: name.
        executor: name.
        status: earned status of the whole.
        status_text: as a sentence.
        rounds: every round.
        result: the joined result; None when the areas are not ours, or one has no schedule. Of an area that is gone it
            holds the last answer.
        central: the central solve, when it was asked for, however it ended; `optimum` is that of an optimum alone.
        degraded: areas that were gone at the end.
        rejected: messages that were refused, with the reason.
        seconds: wall time by phase: build, start, point, rounds, join, central, replay, total.
        settled: how the areas found their operating point, where the formulation wants one.
        swept: messages and bytes about further points, see `lateral.areas.successive`.
        conflicts: the limits in the way of a schedule, where the areas did not come to agree: of the whole, where the
            central solve has none either; else what areas say that have none.
    """

    plan: Plan
    algorithm: str
    executor: str
    status: Status
    status_text: str
    rounds: tuple[Round, ...]
    result: Result | None
    central: Result | None
    degraded: tuple[str, ...]
    rejected: tuple[str, ...]
    seconds: Mapping[str, float]
    choices: tuple[str, ...] = ()
    settled: Settled | None = None
    swept: tuple[int, int] = (0, 0)
    conflicts: tuple[str, ...] = ()

    @property
    def optimum(self) -> Result | None:
        """The central solve where it ended optimal: what gaps are to."""
        return self.central if self.central is not None and self.central.ok else None

    @property
    def ok(self) -> bool:
        """True when the status is optimal."""
        return self.status is Status.OPTIMAL

    @property
    def residual(self) -> float:
        """Residual of the last round."""
        return self.rounds[-1].residual if self.rounds else float("inf")

    @property
    def messages(self) -> int:
        """Messages sent, those about operating points included."""
        return sum(r.messages for r in self.rounds) + (self.settled.messages if self.settled else 0) + self.swept[0]

    @property
    def bytes(self) -> int:
        """Bytes of them."""
        return sum(r.bytes for r in self.rounds) + (self.settled.bytes if self.settled else 0) + self.swept[1]

    @property
    def seconds_parallel(self) -> float:
        """What the solves take when every area has its own machine, s: the sum of the critical paths."""
        return sum(r.critical for r in self.rounds)

    @property
    def cost_per_round(self) -> list[float]:
        """Energy cost at the source after each round, $."""
        return [r.cost for r in self.rounds]

    @property
    def gap_per_round(self) -> list[float] | None:
        """(Sum of the areas' objectives - central) / central, after each round; None without a central optimum.

        Before the areas agree the sum is of what each believes, and may lie below the optimum. NaN until all answered.
        """
        return None if self.optimum is None else [self._gap(r.objective) for r in self.rounds]

    @property
    def gap_to_central(self) -> float | None:
        """The gap of the joined schedule (of the last round where nothing is joined); None without a central optimum,
        and where what is joined is no schedule."""
        if self.optimum is None:
            return None
        if self.result is not None and self.result.has_values:
            return self._gap(self.result.objective) if self.result.has_schedule else None
        return self._gap(self.rounds[-1].objective)

    def _gap(self, value: float) -> float:
        best = float("nan") if self.optimum is None else self.optimum.objective
        return (value - best) / max(abs(best), 1e-12)

    def summary(self) -> dict[str, Any]:
        """The numbers of a run as plain data (``lateral areas run --json``): those of ``solve``, and its own.

        What is not known is None; so are those of ``solve`` where there is no joined result.
        """
        last = self.rounds[-1]
        gaps = self.gap_per_round
        # certified, the run says what its joined result says
        certified = self.result if self.result is not None and self.status_text == self.result.status_text else None
        own = {
            "case": self.plan.name,
            "status": self.status.word,
            "status_text": self.status_text,
            "status_short": self.status_text if certified is None else certified.status_short,
            "warnings": [] if certified is None else list(certified.points),
            "algorithm": self.algorithm,
            "executor": self.executor,
            "rounds": len(self.rounds),
            "residual": _number(self.residual),
            "residual_per_round": [_number(r.residual) for r in self.rounds],
            "residual_per_border": {name: _number(r) for name, r in last.residuals.items()},
            "cost_per_round": [_number(r.cost) for r in self.rounds],
            "objective_per_round": [_number(r.objective) for r in self.rounds],
            "gap_to_central": _number(self.gap_to_central),
            "gap_per_round": None if gaps is None else [_number(g) for g in gaps],
            "areas": {
                name: {
                    "n_nodes": self.plan.n_nodes.get(name),
                    "above": self.plan.head[name].parent if name in self.plan.head else None,
                    "seconds": round(sum(r.seconds.get(name, 0.0) for r in self.rounds), 6),
                    "status": last.statuses.get(name),
                    "problem": last.failures.get(name),
                }
                for name in self.plan.areas
            },
            "messages": self.messages,
            "bytes": self.bytes,
            "messages_rejected": len(self.rejected),
            "seconds_parallel": round(self.seconds_parallel, 6),
            "degraded": list(self.degraded),
            "seconds": {k: round(float(v), 6) for k, v in self.seconds.items()},
            "choices": list(self.choices),
            "conflicts": list(self.conflicts),
        }
        base = dict.fromkeys(OF_SOLVE) if self.result is None else self.result.summary()
        return {**base, "n_steps": self.plan.n_steps, **own}


def _number(value: float | None) -> float | None:
    """A number as JSON has it."""
    return None if value is None or not np.isfinite(value) else float(value)


__all__ = ["OF_SOLVE", "AreasRun", "Round"]
