"""Federation: areas with owners of their own, who run under one agreement, a file that all of them have.

``federation.toml`` holds what a `Plan` needs, how the run goes, and a digest of each area's case, by which an owner and
the coordinator know that they mean the same; nothing of what is inside an area::

    format = 1
    name = "ieee123-t5"
    n_steps = 5
    s_kva = 1000.0
    v_start = [1.0609, ...]        # squared voltage of the source, pu^2, by step
    price_start = [0.1, ...]       # price of active power at the source, objective per kWh
    price_size = 2e-6              # what counts as 1 among prices where that is nothing; absent: 1
    hours = [...]                  # what powers at borders are multiplied by in each step; absent: 1

    [run]
    formulation = "nonlinear"
    objective = "cost"
    algorithm = "enapp-priced"
    tolerance = 1e-6
    [run.options]                  # of the algorithm
    depth = 3

    [areas.1]
    n_nodes = 39
    digest = "0f3c..."

    [borders.15-117]
    parent = "1"
    child = "2"
    branch = ["line.15-117"]
    bus = "117"
    conductors = [1]

Codes: FED-001 the file, 002 a key or value, 003 an area that does not exist, 004 no tree, 005 a series of another
length, 006 a name or option that does not exist, 007 an owner's case that is not the one meant, 008 an area that the
file does not have.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w

from lateral import formulations
from lateral.areas.agent import Task
from lateral.areas.algorithms import BUILT_IN, Algorithm, EnappPriced
from lateral.areas.central import ends_alone
from lateral.areas.checkpoint import Checkpoint, about
from lateral.areas.driver import Patience, Progress, iterate
from lateral.areas.executors import Executor
from lateral.areas.federation_file import (
    FORMAT,
    FederationFile,
    RunTable,
    name_faults,
    order_of,
    series_faults,
    tree_faults,
)
from lateral.areas.partition import Border, Partition
from lateral.areas.plan import Plan
from lateral.areas.point import AtPoint, require_formulation, settle, taken_in, wants_point
from lateral.areas.run import AreasRun, Round
from lateral.areas.successive import Successive
from lateral.areas.transport import Direct
from lateral.areas.verdict import in_the_way, told, verdict
from lateral.areas.whole import built_again
from lateral.case import Case
from lateral.devices import BorderHead, BorderTail
from lateral.errors import CaseError, Fault, OptionError, did_you_mean
from lateral.io._toml import read_toml, validate
from lateral.io.tables import write_folder
from lateral.opf import choose_formulation

#: Name of the file in a folder.
NAME = "federation.toml"


@dataclass(frozen=True, eq=False)
class Federation:
    """What all members know.

    Attributes:
        plan: the tree of areas.
        run: how the areas are solved.
        digests: digest of each area's case (`lateral.Case.hash`).
    """

    plan: Plan
    run: RunTable
    digests: Mapping[str, str]

    @cached_property
    def algorithm(self) -> Algorithm:
        """The algorithm with its options."""
        made: Algorithm = BUILT_IN[self.run.algorithm](**self.run.options)
        return made

    @cached_property
    def identifier(self) -> str:
        """Hash of everything in the file (16 hex digits): members with the same one mean the same."""
        return hashlib.sha256(_text(self).encode()).hexdigest()[:16]

    def task(self, area: str = "") -> Task:
        """What an area solves, apart from its case; without a name, all but its share."""
        run = self.run
        share = self.plan.share(area) if area else 1.0
        return Task(
            formulation=run.formulation,
            objective=run.objective,
            coupling=self.algorithm.coupling,
            solver=run.solver,
            terminal=run.terminal,
            loss_term=run.loss_term,
            limits=run.limits,
            share=share,
        )

    def check_area(self, case: Case, area: str | None = None) -> str:
        """See that a case is the one that the file means.

        Args:
            case: the owner's case.
            area: its name; absent: the area with its digest.

        Returns:
            The name of the area.

        Raises:
            CaseError: no such area, or another case.
        """
        if area is None:
            found = [name for name, digest in self.digests.items() if digest == case.hash]
            if len(found) == 1:
                return found[0]
            several = f"; its digest is that of the areas {', '.join(found)}" if found else ""
            fault = Fault(
                "FED-007 another case",
                f"case.{case.name}",
                f"a case with the digest {case.hash}{several}",
                "the case of one area of the federation",
                "Name the area, or take the case folder and the federation file from the same partition.",
            )
            raise CaseError([fault])
        if area not in self.digests:
            action = did_you_mean(area, list(self.digests))
            fault = Fault("FED-008 unknown area", f"area.{area}", "no such area", "an area of the federation", action)
            raise CaseError([fault])
        faults = []
        if case.hash != self.digests[area]:
            action = "Take the case folder and the federation file from the same partition; any change counts."
            found_digest = f"a case with the digest {case.hash}"
            faults.append(
                Fault("FED-007 another case", f"area.{area}", found_digest, f"digest {self.digests[area]}", action)
            )
        mine = {d.name for d in case.devices if isinstance(d, BorderHead | BorderTail)}
        meant = {b.name for b in self.plan.borders.values() if area in (b.parent, b.child)}
        if mine != meant:
            allowed, action = f"the borders {', '.join(sorted(meant)) or 'none'}", "Take both from the same partition."
            seen = f"the borders {', '.join(sorted(mine)) or 'none'}"
            faults.append(Fault("FED-007 another case", f"area.{area}", seen, allowed, action))
        if faults:
            raise CaseError(faults)
        return area


def federation_of(
    partition: Partition,
    algorithm: Algorithm | None = None,
    *,
    formulation: str = "auto",
    objective: str = "cost",
    tolerance: float = 1e-6,
    max_rounds: int = 300,
    solver: str = "auto",
    terminal: str = "equal",
    loss_term: bool = True,
    limits: str = "all",
) -> Federation:
    """The agreement of a partition.

    Args:
        partition: the areas.
        algorithm: see `lateral.areas.algorithms`; absent: `EnappPriced`, or `Admm` where the formulation asks for it.
        formulation: a name; ``auto`` is decided now, by the whole.
        objective: see `lateral.areas.solve_areas`, as are all others.
        tolerance: see there.
        max_rounds: see there.
        solver: see there.
        terminal: see there.
        loss_term: see there.
        limits: see there.

    Raises:
        CaseError: an option that cannot be.
        OptionError: no such formulation or objective.
        UnsupportedError: a formulation that does not go with the algorithm.
    """
    chosen = choose_formulation(partition.case, formulation)[0]
    asked = algorithm or chosen.consensus_only
    method, _ = taken_in(chosen, algorithm, solver=solver, owned=True) if asked else (EnappPriced(), ())
    require_formulation(chosen, method)
    plan = Plan.of(partition, objective, chosen.voltages)
    run = RunTable.model_construct(
        formulation=chosen.name,
        objective=objective,
        algorithm=method.name,
        options={f.name: getattr(method, f.name) for f in dataclasses.fields(method)},  # type: ignore[arg-type]
        tolerance=tolerance,
        max_rounds=max_rounds,
        solver=solver,
        terminal=terminal,
        loss_term=loss_term,
        limits=limits,
    )
    made = Federation(plan, run, {name: area.case.hash for name, area in partition.areas.items()})
    return _federation(_data(made), _text(made), NAME)  # the same checks as when it is read


def write_federation(
    partition: Partition,
    folder: str | os.PathLike[str],
    algorithm: Algorithm | None = None,
    *,
    tables: Literal["csv", "parquet"] = "csv",
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Path]:
    """Write ``federation.toml`` and one case folder per area; each folder is for its owner, the file for everybody.

    Args:
        partition: the areas.
        folder: made if it does not exist.
        algorithm: see `federation_of`.
        tables: format of the tables.
        overwrite: replace files that are there.
        **options: see `federation_of`.

    Returns:
        The folder of each area.

    Raises:
        OptionError: something is there already, or two areas' folders would be the same.
        CaseError: see `federation_of`.
    """
    made = federation_of(partition, algorithm, **options)
    top = Path(folder)
    file = top / NAME
    if file.exists() and not overwrite:
        message = f"{file} exists; give another folder, or overwrite=True"
        raise OptionError(message)
    names = [NAME, *partition.areas]
    if len({name.casefold() for name in names}) < len(names) or any(Path(n).name != n or n == ".." for n in names):
        message = f"areas {', '.join(map(repr, partition.areas))}: these cannot all be names of folders; rename them"
        raise OptionError(message)
    out = {
        name: write_folder(area.case, top / name, tables=tables, overwrite=overwrite)
        for name, area in partition.areas.items()
    }
    file.write_text(_text(made), encoding="utf-8")
    return out


def read_federation(path: str | os.PathLike[str]) -> Federation:
    """Read a federation file (or a folder with one).

    Raises:
        CaseError: with every fault of the file.
    """
    file = Path(path)
    file = file / NAME if file.is_dir() else file
    data, text = read_toml(file, "FED-001 file")
    return _federation(data, text, file.name)


def solve_federation(
    federation: Federation,
    executor: Executor,
    *,
    patience: Patience | None = None,
    progress: Callable[[Round], None] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> AreasRun:
    """Coordinate areas whose cases are not here: no central solve, no joined result, no replay.

    Args:
        federation: the agreement.
        executor: reaches the owners, such as `lateral.areas.executors.helics_.Owners`; closed at the end.
        patience: how long to wait for whom.
        progress: called after each round.
        checkpoint: see `lateral.areas.solve_areas`.
        resume: see there.

    Raises:
        SolveError: an area did not join.
        CaseError: a checkpoint is of another run.
        OptionError: resume without a checkpoint.
    """
    plan, method, tolerance = federation.plan, federation.algorithm, federation.run.tolerance
    book, state, rounds = None, None, list[Round]()
    if checkpoint is not None:
        identity = about(plan, federation.identifier, method, federation.task())
        if resume:
            book, state, rounds = Checkpoint.resume(checkpoint, identity, plan)
        else:
            book = Checkpoint.begin(checkpoint, identity, secrets.token_hex(8))
    elif resume:
        message = "resume needs the folder of a checkpoint"
        raise OptionError(message)
    carrier = Direct(plan, run=secrets.token_hex(8) if book is None else book.run)
    seconds: dict[str, float] = {}
    last: Progress | None = None
    unsure: tuple[str, ...] = ()
    with executor:
        begin = time.perf_counter()
        executor.start({})
        seconds["start"] = time.perf_counter() - begin
        settled, at, points = None, executor, None
        if wants_point(federation.run.formulation):
            settled = settle(plan, executor, carrier, patience=patience)
            seconds["point"] = settled.seconds
            at = AtPoint(executor, settled)
            moving = Successive.fits(federation.run.formulation, method)
            points = Successive(plan, carrier, at, patience or Patience(), tolerance) if moving else None
            state = state if points is None or state is None else points.resumed(method, state, rounds)
            plan = settled.begun(plan)
        waits = (patience or Patience()).solve_s
        begin = time.perf_counter()

        def look(now: Progress) -> tuple[str, ...]:
            """Each owner's area looks at its own loads; nobody sees the whole."""
            nonlocal unsure
            if points is not None:
                return points.agreed(now) if len(rounds) + 1 < federation.run.max_rounds else ()
            if not formulations.get(federation.run.formulation).lazy or now.dead:
                return ()
            unsure = plan.areas
            if (now.finished and now.round.failures) or len(rounds) + 1 >= federation.run.max_rounds:
                return ()
            built, unsure = built_again(at, {area: {} for area in plan.areas}, timeout_s=waits)
            return built

        wider = None if points is None else points.wider
        for last in iterate(
            plan,
            method,
            at,
            carrier,
            tolerance=tolerance,
            state=state,
            patience=patience,
            look=look,
            otherwise=wider,
        ):
            rounds.append(last.round)
            if book is not None:
                book.save(last.state, last.round, finished=last.finished)
            if progress is not None:
                progress(last.round)
            closer = points is not None and points.goes_on(last)
            ended = last.finished and not closer
            alone = not (points is not None and points.held) and ends_alone(method, rounds)
            if ended or len(rounds) >= federation.run.max_rounds or alone:
                break
        seconds["rounds"] = time.perf_counter() - begin
    finished, dead = (last.finished, last.dead) if last is not None else (False, ())
    unrest = "" if points is None or points.settled else points.at
    status, text = verdict(
        method, rounds, None, None, finished=finished, dead=dead, tolerance=tolerance, unsure=unsure, unrest=unrest
    )
    seconds["total"] = sum(seconds.values())
    return AreasRun(
        plan=plan,
        algorithm=method.name,
        executor=executor.name,
        status=status,
        status_text=text,
        rounds=tuple(rounds),
        result=None,
        central=None,
        degraded=dead,
        rejected=tuple(carrier.rejected),
        seconds=seconds,
        choices=(
            *(settled.choices if settled is not None else ()),
            *(() if points is None else (*points.told, points.at)),
            *told(method, None if last is None else last.state, () if points is not None else rounds),
        ),
        settled=settled,
        swept=(0, 0) if points is None else points.said,
        conflicts=in_the_way(rounds, None, finished=finished),
    )


def _federation(data: dict[str, Any], text: str, file: str) -> Federation:
    """The federation of some data.

    Raises:
        CaseError: with every fault.
    """
    raw = validate(FederationFile, data, text, file, "FED-002 key")
    faults = [*tree_faults(raw, file), *series_faults(raw, file), *name_faults(raw.run, file)]
    if faults:
        raise CaseError(faults)
    borders = {
        name: Border(name, b.parent, b.child, tuple(b.branch), b.bus, tuple(b.conductors))
        for name, b in raw.borders.items()
    }
    order = order_of(raw)
    heads = {b.child: b for b in borders.values()}
    plan = Plan(
        name=raw.name,
        areas=order,
        borders={heads[a].name: heads[a] for a in order if a in heads},
        n_steps=raw.n_steps,
        s_kva=raw.s_kva,
        v_start=np.array(raw.v_start),
        price_start=np.array(raw.price_start),
        n_nodes={a: raw.areas[a].n_nodes for a in order},
        voltages=formulations.get(raw.run.formulation).voltages,
        price_size=raw.price_size,
        hours=np.array(raw.hours),
    )
    return Federation(plan, raw.run, {a: raw.areas[a].digest for a in order})


def _data(federation: Federation) -> dict[str, Any]:
    plan, run = federation.plan, federation.run
    table = {key: getattr(run, key) for key in RunTable.model_fields if key != "options"}
    options = {key: value for key, value in run.options.items() if value is not None}
    return {
        "format": FORMAT,
        "name": plan.name,
        "n_steps": plan.n_steps,
        "s_kva": float(plan.s_kva),
        "v_start": [float(v) for v in np.broadcast_to(plan.v_start, plan.n_steps)],
        "price_start": [float(v) for v in np.broadcast_to(plan.price_start, plan.n_steps)],
        "price_size": float(plan.price_size),
        "hours": [float(h) for h in plan.counts],
        "run": {**table, "options": options} if options else table,
        "areas": {a: {"n_nodes": int(plan.n_nodes[a]), "digest": federation.digests[a]} for a in plan.areas},
        "borders": {
            b.name: {
                "parent": b.parent,
                "child": b.child,
                "branch": list(b.branch),
                "bus": b.bus,
                "conductors": [int(c) for c in b.conductors],
            }
            for b in plan.borders.values()
        },
    }


def _text(federation: Federation) -> str:
    return tomli_w.dumps(_data(federation))


__all__ = [
    "NAME",
    "Federation",
    "federation_of",
    "read_federation",
    "solve_federation",
    "write_federation",
]
