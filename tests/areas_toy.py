"""Areas to test everything but solves with: a chain of three, each one line of arithmetic, failing at will.

Area "1" feeds "2" feeds "3". With L the load, k the elasticity, and what is above as told, each area says::

    p = L - k price + p below,   q = 0.3 p,   price_v = 2 (v - 1)            up, of "2" and "3"
    v = v above - 1e-5 p below,  price_p = price above + 1e-3 p below,  price_q = 1e-4 p below        down

with v = 1 and a price of 0.1 above "1". By hand, for "3" alone below "2" below "1": see `FIXED_POINT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from lateral.areas.executors.base import Executor
from lateral.areas.partition import Border
from lateral.areas.plan import Plan
from lateral.areas.protocol import AreaSpec, Failure

LOAD = {"1": 50.0, "2": 100.0, "3": 80.0}
ELASTICITY = {"2": 200.0, "3": 100.0}
#: Of border "b2" and "b3": p_3 = 80 - 100 (c_2 + 1e-3 p_3), p_2 = 100 - 200 c_2 + p_3, c_2 = 0.1 + 1e-3 p_2.
#: So 1.1 p_3 = 70 - 0.1 p_2 and 1.2 p_2 = 80 + p_3: p_2 = 158 / 1.42, p_3 = 1.2 p_2 - 80.
FIXED_POINT = {"b2": 158.0 / 1.42, "b3": 1.2 * 158.0 / 1.42 - 80.0}


def plan(n_steps: int = 2) -> Plan:
    """The chain."""
    borders = {
        f"b{c}": Border(name=f"b{c}", parent=p, child=c, branch=(f"line.{p}-{c}",), bus=c, conductors=(1,))
        for p, c in (("1", "2"), ("2", "3"))
    }
    return Plan(
        name="toy",
        areas=("1", "2", "3"),
        borders=borders,
        n_steps=n_steps,
        s_kva=1000.0,
        v_start=np.ones(n_steps),
        price_start=np.full(n_steps, 0.1),
        n_nodes={"1": 1, "2": 1, "3": 1},
    )


class Toy(Executor):
    """Solves the chain.

    Attributes:
        gone: areas that do not answer; a restart brings them back where ``restartable``.
        late: areas that do not answer in time.
        infeasible: areas that answer that they cannot.
        altered: what to make of an area's reply.
        restarts: how often a restart was asked for, by area.
        asked: how often each area was asked to solve.
        inputs: what each area was told last.
    """

    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "arithmetic"

    def __init__(self, chain: Plan | None = None, *, restartable: bool = True) -> None:
        self.plan = chain or plan()
        self.restartable = restartable
        self.gone: set[str] = set()
        self.late: set[str] = set()
        self.infeasible: set[str] = set()
        self.altered: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.restarts: dict[str, int] = {}
        self.asked: dict[str, int] = {}
        self.inputs: dict[str, Mapping[str, Any]] = {}
        self.on_map: Callable[[], None] = lambda: None

    def start(self, areas: Mapping[str, AreaSpec]) -> None:
        """Nothing to start."""

    def map(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any] | Failure]:
        assert operation == "solve"
        assert requests, "an executor is not called for nobody"
        self.on_map()
        out: dict[str, dict[str, Any] | Failure] = {}
        for area, request in requests.items():
            self.asked[area] = self.asked.get(area, 0) + 1
            if area in self.gone | self.late:
                out[area] = Failure(area, f"area {area!r} is silent", gone=area in self.gone)
                continue
            self.inputs[area] = request["borders"]
            reply = self._solved(area, request["borders"])
            out[area] = self.altered[area](reply) if area in self.altered else reply
        return out

    def restart(self, area: str) -> bool:
        self.restarts[area] = self.restarts.get(area, 0) + 1
        if self.restartable:
            self.gone.discard(area)
            self.late.discard(area)
        return area not in self.gone | self.late

    def close(self) -> None:
        """Nothing to stop."""

    def _solved(self, area: str, borders: Mapping[str, Any]) -> dict[str, Any]:
        said: dict[str, Any] = {}
        tail = self.plan.tails[area][0].name if self.plan.tails[area] else None
        shape = (1, self.plan.n_steps)
        below = borders[tail]["p"] if tail else np.zeros(shape)
        if area in self.plan.head:
            head = self.plan.head[area].name
            v, price = borders[head]["v"], borders[head].get("price_p", np.full(shape, 0.1))
            w = borders[head].get("w_p", 0.0)  # a proximal term adds w p to the price
            p = (LOAD[area] - ELASTICITY[area] * price + below) / (1.0 + ELASTICITY[area] * w)
            price = price + w * p
            said[head] = {"p": p, "q": 0.3 * p, "price_v": 2.0 * (v - 1.0)}
        else:
            v, price = np.ones(shape), np.full(shape, 0.1)
        if tail:
            said[tail] = {"v": v - 1e-5 * below, "price_p": price + 1e-3 * below, "price_q": 1e-4 * below}
        if not any(x.startswith("price") for values in borders.values() for x in values):  # plain ENApp
            said = {b: {x: a for x, a in values.items() if not x.startswith("price")} for b, values in said.items()}
        bad = area in self.infeasible
        return {
            "area": area,
            "status": "infeasible" if bad else "optimal",
            "text": "infeasible: v_max at bus 7" if bad else "optimal",
            "borders": {} if bad else said,
            "objective": 1.0,
            "cost": 2.0,
            "seconds": 0.01,
            "iterations": 3,
        }


class Clock:
    """Seconds that pass only where somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)
