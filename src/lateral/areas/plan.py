"""Plan: all that the coordinator of a run knows of the areas: names, borders, sizes; and no more.

It is made from a `Partition`, or read from a federation file where every area has an owner of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from lateral.areas.message import Values
from lateral.areas.partition import Border, Partition
from lateral.case import Case
from lateral.network.schema import FloatArray
from lateral.objectives import EnergyCost, Objective, VoltageDeviation
from lateral.objectives import get as objective_named

#: Which way a wave's messages go: up towards the source, down away from it, or both.
Direction = Literal["up", "down", "both"]
#: What a kWh is worth in `vdev`, over the power base, h/kWh kVA; see `size_without_price`.
VDEV_PER_KVA = 0.01


@dataclass(frozen=True, slots=True)
class Wave:
    """Areas that are solved side by side, and which way they speak afterwards."""

    areas: tuple[str, ...]
    send: Direction


@dataclass(frozen=True, eq=False)
class Plan:
    """The tree of areas.

    Attributes:
        name: name of the case.
        areas: names, the root first, every parent before its children.
        borders: the borders by name.
        n_steps: number of steps.
        s_kva: power that counts as 1 in residuals, kVA.
        v_start: squared voltage to start from, pu^2, shape (T,): that of the source.
        price_start: price of active power to start from, objective per kWh, shape (T,): nothing in steps of weight 0,
            in which nothing is paid.
        price_size: what counts as 1 among prices where that is nothing, see `size_without_price`.
        hours: what terms for powers at borders are multiplied by, h, shape (T,), see `Horizon.agreed_hours`; empty
            where it is not known, and every step counts as one hour.
        n_nodes: own nodes of each area.
        voltages: what is said of a voltage at a border, see `NetworkModel.voltages`.
        start: what receivers use first, where more is known than the voltage of the source, by border: complex
            voltages and powers of the day without control.
        without_return: borders of conductors 1, 2 and 3 whose currents add up to nothing then.
        without_charging: those of them whose currents cannot do otherwise.
    """

    name: str
    areas: tuple[str, ...]
    borders: Mapping[str, Border]
    n_steps: int
    s_kva: float
    v_start: FloatArray
    price_start: FloatArray
    n_nodes: Mapping[str, int]
    voltages: tuple[str, ...] = ("v",)
    price_size: float = 1.0
    hours: FloatArray = field(default_factory=lambda: np.zeros(0))
    start: Mapping[str, Values] = field(default_factory=dict)
    without_return: frozenset[str] = frozenset()
    without_charging: frozenset[str] = frozenset()

    @classmethod
    def of(cls, partition: Partition, objective: str = "cost", voltages: tuple[str, ...] = ("v",)) -> Plan:
        """The plan of a partition, for a formulation with these voltages at borders."""
        case = partition.case
        source = case.sources[0]
        terms = objective_named(objective).terms
        weight = sum(w for w, part in terms if isinstance(part, EnergyCost))
        return cls(
            name=case.name,
            areas=tuple(partition.areas),
            borders=dict(partition.borders),
            n_steps=case.horizon.n_steps,
            s_kva=case.base.total_kva,
            v_start=case.series(source.v_pu) ** 2,
            price_start=weight * case.series(source.price_import) * (case.horizon.weight > 0.0),
            n_nodes={name: area.n_nodes for name, area in partition.areas.items()},
            voltages=voltages,
            price_size=size_without_price(case, terms),
            hours=case.horizon.agreed_hours,
        )

    @cached_property
    def head(self) -> Mapping[str, Border]:
        """The border above each area but the root."""
        return {b.child: b for b in self.borders.values()}

    @cached_property
    def tails(self) -> Mapping[str, tuple[Border, ...]]:
        """The borders below each area."""
        return {a: tuple(b for b in self.borders.values() if b.parent == a) for a in self.areas}

    @cached_property
    def height(self) -> Mapping[str, int]:
        """Number of areas on the longest way down from each area."""
        out: dict[str, int] = {}
        for area in reversed(self.areas):
            out[area] = max((out[b.child] + 1 for b in self.tails[area]), default=0)
        return out

    @cached_property
    def depth(self) -> Mapping[str, int]:
        """Number of borders between each area and the root."""
        out: dict[str, int] = {}
        for area in self.areas:
            out[area] = out[self.head[area].parent] + 1 if area in self.head else 0
        return out

    @cached_property
    def counts(self) -> FloatArray:
        """`hours`, or ones where they are not known, h, shape (T,)."""
        return self.hours if len(self.hours) else np.ones(self.n_steps)

    def shape(self, border: str) -> tuple[int, int]:
        """Conductors and steps of a border's arrays."""
        return len(self.borders[border].conductors), self.n_steps

    def all_at_once(self) -> tuple[Wave, ...]:
        """Jacobi: every area from the same data."""
        return (Wave(self.areas, "both"),)

    def up_and_down(self) -> tuple[Wave, ...]:
        """Gauss-Seidel: leaves to the root, then back down to the last areas that have others below.

        An area of height h goes up when all below it have; one of depth d comes down when the one above it has.
        """
        root = self.areas[0]
        waves = []
        for h in range(self.height[root]):
            waves.append(Wave(tuple(a for a in self.areas if self.height[a] == h and a != root), "up"))
        waves.append(Wave((root,), "down"))
        inner = [a for a in self.areas if self.tails[a] and a != root]
        for d in range(1, max((self.depth[a] for a in inner), default=0) + 1):
            waves.append(Wave(tuple(a for a in inner if self.depth[a] == d), "down"))
        return tuple(w for w in waves if w.areas)

    def share(self, area: str) -> float:
        """The area's part of a mean over nodes: a border's voltages are the upper area's to decide, and count there."""
        above = len(self.head[area].conductors) if area in self.head else 0
        below = sum(len(b.conductors) for b in self.tails[area])
        return (self.n_nodes[area] - above + below) / max(sum(self.n_nodes.values()), 1)

    def first(self, border: str) -> dict[str, FloatArray]:
        """What is known of voltages and powers at a border before anybody spoke: `start`, or the source and nothing."""
        one = self.ones(border)
        begin = self.start.get(border, {})
        guess = {"v": one * self.v_start, "v_re": one * np.sqrt(self.v_start), "v_im": 0.0 * one}
        return {x: np.asarray(begin.get(x, guess.get(x, 0.0 * one))) for x in (*self.voltages, "p", "q")}

    def ones(self, border: str) -> FloatArray:
        """An array of ones of a border's shape."""
        return np.ones(self.shape(border))


def size_without_price(case: Case, terms: Sequence[tuple[float, Objective]]) -> float:
    """What counts as 1 among prices where a kWh from the source costs nothing, objective per kWh.

    Penalties are multiples of it, and while areas come to agree prices are as large as penalties make them: where they
    are far beyond what a kWh is worth in the objective, areas agree on something that is not the optimum, and what is
    left of them costs more than a relative gap is measured with.

    * `cost` alone: what the source pays for a kWh, and if that is nothing too, what makes the power base over the whole
      horizon worth the objective's floor (IEEE 13 without a price: at 1 a gap of 2e-5, 3e-2 in `soc3`, after 100 rounds
      in which nothing moved).
    * `vdev`: the power base moves squared voltages by about 0.1, and their squared deviation, where they are 0.05
      off, by `VDEV_PER_KVA` (`ieee13`, `current-voltage`, `admm`, 2 areas: certified after 79 rounds; at 1 a third off
      after 100).
    * any other, which is in kWh or kW: 1.
    """
    weights = {type(part): 0.0 for _, part in terms}
    for w, part in terms:
        weights[type(part)] += abs(w)
    kva = case.base.total_kva
    if any(w for kind, w in weights.items() if kind not in (EnergyCost, VoltageDeviation)):
        return 1.0
    cost, vdev = (weights.get(kind, 0.0) for kind in (EnergyCost, VoltageDeviation))
    export = case.sources[0].price_export
    paid = 0.0 if export is None else cost * float(np.abs(case.series(export)).mean())
    hours = float(case.horizon.hours.sum()) or 1.0  # every step of weight 0: nothing costs anything
    floor = cost * EnergyCost.floor / (kva * hours)
    return paid or max(vdev * VDEV_PER_KVA / kva, floor) or 1.0


__all__ = ["Direction", "Plan", "Wave"]
