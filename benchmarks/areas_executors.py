"""Executors of areas: ``python -m benchmarks.areas_executors overhead | workers``, JSON on standard output.

``overhead`` runs the four areas of ``ieee123-t5`` under each executor and measures, per round, what ``map`` takes
beyond the solves in it, encoding and decoding included: the wall time of a wave less its longest solve where every area
has a worker, less the sum of its solves where all share one. The latter is what counts where there are fewer cores than
areas: there, side by side, an area also waits for a core, which is neither solve nor executor.

``workers`` makes a root with two equal areas of ``--buses`` buses below it and solves rounds with one worker and with
two, alternating, so that a busy machine is busy for both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import lateral
from lateral.areas.agent import Task
from lateral.areas.algorithms import EnappPriced
from lateral.areas.driver import iterate
from lateral.areas.executors import Executor, get
from lateral.areas.partition import Partition, cut, cut_by_buses
from lateral.areas.plan import Plan
from lateral.areas.solve import area_specs
from lateral.areas.transport import Direct
from lateral.case import Case
from lateral.devices import Source
from lateral.network.feeder import Bus, Line
from lateral.network.schema import Element


class Timed:
    """An executor with a clock on it: wall time of each `map`, and the times of the solves in it."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.waves: list[tuple[float, list[float]]] = []

    def map(self, operation: str, requests: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        begin = time.perf_counter()
        replies = self.executor.map(operation, requests, timeout_s=timeout_s)
        wall = time.perf_counter() - begin
        failed = [r for r in replies.values() if not isinstance(r, dict) or "seconds" not in r]
        if failed:
            message = f"an area did not answer: {failed[0]}"
            raise RuntimeError(message)
        self.waves.append((wall, [float(r["seconds"]) for r in replies.values() if isinstance(r, dict)]))
        return replies

    def restart(self, area: str) -> bool:
        return self.executor.restart(area)


def rounds(partition: Partition, executor: Executor, task: Task, order: str, n: int) -> list[list[Any]]:
    """The waves of each of some rounds."""
    plan = Plan.of(partition, task.objective)
    timed = Timed(executor)
    steps = iterate(plan, EnappPriced(order=order), timed, Direct(plan, run="bench"), tolerance=0.0)  # type: ignore
    out = []
    for _ in range(n):
        timed.waves.clear()
        next(steps)
        out.append(list(timed.waves))
    return out


def overhead(n_rounds: int, names: list[str]) -> list[dict[str, Any]]:
    """Milliseconds of each executor per round, beyond the solves."""
    partition = cut_by_buses(lateral.read("ieee123-t5"))
    task = Task(formulation="nonlinear")
    makers: dict[str, tuple[Callable[[], Executor], bool]] = {
        "serial": (lambda: get("serial"), True),
        "process, one worker": (lambda: get("process", n_workers=1), True),
        "process": (lambda: get("process"), False),
        "dask, one worker": (lambda: get("dask", n_workers=1), True),
        "dask": (lambda: get("dask"), False),
        "helics": (lambda: get("helics"), False),
    }
    rows = []
    for name, (make, shared) in makers.items():
        if name.split(",")[0] not in names:
            continue
        with make() as executor:
            begin = time.perf_counter()
            executor.start(area_specs(partition, task))
            start_s = time.perf_counter() - begin
            for order in ("sweep", "jacobi"):
                found = rounds(partition, executor, task, order, n_rounds)[1:]  # areas are built in the first
                beyond = [sum(wall - (sum(s) if shared else max(s)) for wall, s in waves) for waves in found]
                rows.append(
                    {
                        "executor": name,
                        "order": order,
                        "waves": len(found[0]),
                        "median_ms": round(1e3 * statistics.median(beyond), 2),
                        "min_ms": round(1e3 * min(beyond), 2),
                        "max_ms": round(1e3 * max(beyond), 2),
                        "start_s": round(start_s, 2),
                    }
                )
    return rows


def twins(n_buses: int, n_steps: int) -> Partition:
    """A root bus with two copies of a synthetic feeder below it, cut into a root and two equal areas."""
    tree = lateral.read(f"tree-{n_buses}x{n_steps}")
    source = tree.sources[0]
    (head,) = (b for b in tree.feeder.buses if b.name == source.bus)
    buses: list[Bus] = [dataclasses.replace(head, name="root")]
    lines: list[Line] = []
    devices: list[Element] = [dataclasses.replace(source, bus="root")]
    for side in ("left-", "right-"):
        buses += [dataclasses.replace(b, name=side + b.name) for b in tree.feeder.buses]
        lines += [
            dataclasses.replace(e, name=side + e.name, bus_from=side + e.bus_from, bus_to=side + e.bus_to)
            for e in tree.feeder.lines
        ]
        feed = dataclasses.replace(tree.feeder.lines[0], name=side + "feed", bus_from="root", bus_to=side + head.name)
        lines.append(dataclasses.replace(feed, r_ohm=feed.r_ohm * 1e-3, x_ohm=feed.x_ohm * 1e-3))
        devices += [
            dataclasses.replace(d, name=side + d.name, bus=side + d.bus)  # type: ignore[call-arg, attr-defined]
            for d in tree.devices
            if not isinstance(d, Source)
        ]
    feeder = dataclasses.replace(tree.feeder, buses=tuple(buses), lines=tuple(lines))
    case = Case(
        name=f"twins-{n_buses}x{n_steps}",
        feeder=feeder,
        devices=tuple(devices),
        horizon=tree.horizon,
        profiles=tree.profiles,
        base=tree.base,
    )
    return cut(
        case, ["line.left-feed", "line.right-feed"], names={"line.left-feed": "left", "line.right-feed": "right"}
    )


def workers(n_buses: int, n_steps: int, n_rounds: int, formulation: str) -> dict[str, Any]:
    """Seconds of rounds with one worker and with two."""
    partition = twins(n_buses, n_steps)
    task = Task(formulation=formulation)
    walls: dict[int, list[float]] = {1: [], 2: []}
    solves: dict[int, list[float]] = {1: [], 2: []}
    with get("process", n_workers=1) as one, get("process", n_workers=2) as two:
        for executor in (one, two):
            executor.start(area_specs(partition, task))
        plan = Plan.of(partition)
        timed = {1: Timed(one), 2: Timed(two)}
        steps = {
            n: iterate(plan, EnappPriced(), timed[n], Direct(plan, run="bench"), tolerance=0.0)  # type: ignore
            for n in timed
        }
        for k in range(n_rounds + 1):
            for n in timed:
                timed[n].waves.clear()
                next(steps[n])
                if k:  # areas are built in the first
                    walls[n].append(sum(wall for wall, _ in timed[n].waves))
                    solves[n].append(sum(sum(s) for _, s in timed[n].waves))
    return {
        "n_buses": n_buses,
        "n_steps": n_steps,
        "formulation": formulation,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "one_worker_s": [round(s, 3) for s in walls[1]],
        "two_workers_s": [round(s, 3) for s in walls[2]],
        "ratio": round(statistics.median(walls[1]) / statistics.median(walls[2]), 3),
        "solve_s_one": round(statistics.median(solves[1]), 3),
        "solve_s_two": round(statistics.median(solves[2]), 3),
    }


def main() -> None:
    """``python -m benchmarks.areas_executors``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.areas_executors")
    parser.add_argument("what", choices=("overhead", "workers"))
    parser.add_argument("--rounds", type=int, default=0, help="rounds that are measured; absent: 20, or 4")
    parser.add_argument("--executors", default="serial,process,dask,helics", help="of overhead")
    parser.add_argument("--buses", type=int, default=2500, help="of each of the two equal areas")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--formulation", default="soc", help="of the two equal areas")
    given = parser.parse_args()
    if given.what == "overhead":
        print(json.dumps(overhead((given.rounds or 20) + 1, given.executors.split(",")), indent=1))
    else:
        print(json.dumps(workers(given.buses, given.steps, given.rounds or 4, given.formulation), indent=1))


if __name__ == "__main__":
    main()
