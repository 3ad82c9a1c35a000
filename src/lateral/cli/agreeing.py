"""What ``lateral areas`` does: options of algorithms and executors, the run, its screen and its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from lateral.cli.loading import Loaded
from lateral.cli.options import SolveOptions
from lateral.cli.running import note_prices, summary_rows
from lateral.cli.screen import note, number, working
from lateral.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from lateral.areas.algorithms import Algorithm
    from lateral.areas.driver import Patience
    from lateral.areas.executors import Executor
    from lateral.areas.partition import Partition
    from lateral.areas.run import AreasRun, Round

#: Options of a study's solve that a run over areas has no use for.
UNUSED = ("point", "rounds", "tolerance", "max_iterations", "time_limit_s")
#: A run with more rounds than this is shown with its first and last ones.
ROUNDS_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a run over areas is asked for, beside what every solve is.

    Attributes:
        algorithm: the algorithm.
        executor: the executor, not started.
        areas: as ``--areas`` says it.
        tolerance: residual at which the areas agree.
        max_rounds: rounds at most.
        central: whether the whole is solved too.
        loss: probability that a message is lost.
        seed: of what is lost.
        patience: how long to wait for whom.
    """

    algorithm: Algorithm
    executor: Executor
    areas: str | None
    tolerance: float
    max_rounds: int
    central: bool
    loss: float
    seed: int
    patience: Patience


def positive(flag: str, value: float) -> float:
    """A number that is positive and finite.

    Raises:
        OptionError: it is not.
    """
    if not 0.0 < value < float("inf"):
        message = f"{flag} takes a positive number, not {value:g}"
        raise OptionError(message)
    return value


def algorithm(known: Mapping[str, type[Algorithm]], name: str, more: Sequence[str], **flags: Any) -> Algorithm:
    """An algorithm with its options.

    Args:
        known: the algorithms by name.
        name: the one that is wanted.
        more: further options, ``NAME=VALUE``.
        **flags: options that have a flag of their own; None where it was not given.

    Raises:
        OptionError: no such algorithm, an option that it does not have, or a value that the option does not take.
    """
    if name not in known:
        message = f"there is no algorithm {name!r}. {did_you_mean(name, list(known))}"
        raise OptionError(message)
    cls = known[name]
    types = {f.name: get_type_hints(cls)[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given: dict[str, tuple[str, Any]] = {k: (f"--{k}", v) for k, v in flags.items() if v is not None}
    for word in more:
        key, equals, value = word.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            message = f"--option takes NAME=VALUE, not {word!r}"
            raise OptionError(message)
        given[key] = (f"--option {key}", value.strip())
    values = {}
    for key, (flag, value) in given.items():
        if key not in types:
            own = ", ".join(f"--{k}" if k in flags else f"--option {k}=.." for k in types) or "none"
            message = f"the algorithm {name!r} has no {flag}; its options: {own}"
            raise OptionError(message)
        values[key] = _value(flag, value, types[key])
    return cls(**values)


def _value(flag: str, value: Any, kind: Any) -> Any:
    """A value of the type that an option has."""
    if get_origin(kind) is Literal:
        choices = [str(c) for c in get_args(kind)]
        if value not in choices:
            message = f"{flag} is {' or '.join(choices)}, not {value!r}"
            raise OptionError(message)
        return value
    if kind is bool:
        if value not in ("true", "false"):
            message = f"{flag} is true or false, not {value!r}"
            raise OptionError(message)
        return value == "true"
    try:
        found = kind(value)
    except ValueError:
        message = f"{flag} takes {'a whole number' if kind is int else 'a number'}, not {value!r}"
        raise OptionError(message) from None
    if isinstance(found, float):
        positive(flag, found)
    return found


#: Flags of executors: what each is called there.
_EXECUTOR_FLAGS = {"workers": "n_workers", "scheduler": "address", "tls": "ca_file", "broker": "broker"}


def executor(name: str, **flags: Any) -> Executor:
    """An executor with its options; see `lateral.areas.executors.get`.

    Raises:
        OptionError: no such executor, an option that it does not have, or a package that it needs is missing.
    """
    import inspect

    from lateral.areas.executors import BUILT_IN, executor_class, get

    given = {k: v for k, v in flags.items() if v is not None}
    has = inspect.signature(executor_class(name)).parameters
    for flag in given:
        if _EXECUTOR_FLAGS[flag] not in has:
            fits = [n for n in BUILT_IN if _EXECUTOR_FLAGS[flag] in _parameters_of(n)]
            message = f"the executor {name!r} has no --{flag}; it is for {' and '.join(fits)}"
            raise OptionError(message)
    options: dict[str, Any] = {_EXECUTOR_FLAGS[k]: v for k, v in given.items() if k != "tls"}
    if "tls" in given:
        folder = Path(given["tls"])
        options |= {f"{what}_file": folder / f"{what}.pem" for what in ("ca", "cert", "key")}
    return get(name, **options)


def _parameters_of(name: str) -> Sequence[str]:
    import inspect

    from lateral.areas.executors import executor_class

    try:
        return list(inspect.signature(executor_class(name)).parameters)
    except ImportError:
        return ()


def say_unused(study: Mapping[str, Any]) -> None:
    """Name the options of a study that areas do not use: they say nothing of borders."""
    found = [key for key in UNUSED if key in study]
    if found:
        note(f"areas do not use {', '.join(found)} of the study's [solve]")


def agreed(loaded: Loaded, options: SolveOptions, asked: Asked) -> AreasRun:
    """Cut and solve, with a line for each round on standard error."""
    from lateral.areas.faults import Faults
    from lateral.areas.files import partition_of
    from lateral.areas.solve import solve_areas

    note_prices(loaded, options.objective)
    faults = Faults(loss=asked.loss, seed=asked.seed)
    with working("cutting ..."):
        partition = partition_of(loaded.case, asked.areas)
    n = len(partition.areas)
    with working(f"solving {n} area{'s' * (n > 1)} in rounds ..."):
        return solve_areas(
            partition,
            asked.algorithm,
            formulation=options.formulation,
            objective=options.objective,
            executor=asked.executor,
            tolerance=asked.tolerance,
            max_rounds=asked.max_rounds,
            terminal=options.terminal,
            loss_term=options.loss_term,
            limits=options.limits,
            solver=options.solver,
            central=asked.central,
            with_replay=options.replay,
            patience=asked.patience,
            transport=faults if asked.loss else None,
            progress=_say_round,
        )


def _say_round(done: Round) -> None:
    text = f"round {done.number}: residual {done.residual:.1e}, cost {number(done.cost, '$', 4)}"
    for reason in done.failures.values():
        text += f"; {reason}"
    note(text)


def summary_of(run: AreasRun, loaded: Loaded) -> dict[str, Any]:
    """What ``--json`` prints: the keys of ``solve``, null where nothing is known of the whole, and those of areas."""
    nothing = dict.fromkeys(
        (
            *("formulation", "problem_class", "solver", "objective_name", "objective", "energy_import_kwh"),
            *("losses_kwh", "n_buses", "n_nodes", "n_variables", "iterations", "residuals", "replay", "versions"),
        )
    )
    known = {
        "case": loaded.case.name,
        "case_hash": loaded.case.hash,
        "n_steps": loaded.case.horizon.n_steps,
        "cost": run.rounds[-1].cost if run.rounds else None,
    }
    summary = {**nothing, **known, **run.summary()}
    seconds = {"read": loaded.seconds, **{k: v for k, v in summary["seconds"].items() if k != "total"}}
    summary["seconds"] = {**seconds, "total": sum(seconds.values())}
    if loaded.report is not None:
        summary["import"] = loaded.report.summary
    return summary


def gap_text(gap: float | None) -> str:
    """A gap as a number, and where it is large enough to matter as a percentage too."""
    if gap is None or gap != gap:
        return "-"
    return f"{gap:.2e}" + (f" ({100 * gap:.2f} %)" if abs(gap) >= 1e-4 else "")


def rounds_table(run: AreasRun) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows: round, residual, cost, gap, seconds of the slowest path."""
    gaps = run.gap_per_round or [float("nan")] * len(run.rounds)
    rows: list[tuple[str, ...]] = [
        (
            str(r.number),
            f"{r.residual:.1e}",
            number(r.cost, digits=4),
            f"{gap:.1e}" if gap == gap else "-",
            f"{r.critical:.3f}",
        )
        for r, gap in zip(run.rounds, gaps, strict=True)
    ]
    if len(rows) > ROUNDS_SHOWN:
        half = ROUNDS_SHOWN // 2
        rows = [*rows[:half], ("...", "", "", "", ""), *rows[-half:]]
    return ("round", "residual", "cost $", "gap", "critical path s"), rows


def screen_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The summary of a run over areas for the screen."""
    s = summary
    own = [
        ("status", s["status_text"]),
        ("areas", f"{len(s['areas'])}, {s['algorithm']}, executor {s['executor']}, {s['rounds']} rounds"),
        ("residual", number(s["residual"], digits=1)),
        ("gap to central", gap_text(s["gap_to_central"])),
        ("messages", f"{s['messages']:,}, {s['bytes']:,} bytes; {s['messages_rejected']} refused"),
        ("critical path", f"{s['seconds_parallel']:.2f} s with a machine per area"),
    ]
    if s["degraded"]:
        own.append(("degraded", ", ".join(s["degraded"])))
    if s["residuals"] is None:
        own.append(("seconds", ", ".join(f"{k} {v:.2f}" for k, v in s["seconds"].items())))
        return own
    return [*own, *(row for row in summary_rows(dict(s)) if row[0] != "status")]


def rounds_frame(run: AreasRun) -> pd.DataFrame:
    """Every round as a table."""
    import pandas as pd

    gaps = run.gap_per_round or [float("nan")] * len(run.rounds)
    return pd.DataFrame(
        [
            {
                "round": r.number,
                "residual": r.residual,
                "objective": r.objective,
                "cost": r.cost,
                "gap": gap,
                "seconds_critical": r.critical,
                "messages": r.messages,
                "bytes": r.bytes,
                "failures": "; ".join(r.failures.values()),
            }
            for r, gap in zip(run.rounds, gaps, strict=True)
        ]
    )


def borders_frame(run: AreasRun, times: Sequence[str]) -> pd.DataFrame:
    """What crossed each border after each round: a row per round, border, quantity, conductor and step."""
    import numpy as np
    import pandas as pd

    frames = []
    for r in run.rounds:
        for name, values in r.held.items():
            conductors = run.plan.borders[name].conductors
            for quantity, array in values.items():
                frames.append(
                    pd.DataFrame(
                        {
                            "round": r.number,
                            "border": name,
                            "quantity": quantity,
                            "conductor": np.repeat(conductors, len(times)),
                            "time": list(times) * len(conductors),
                            "value": np.asarray(array).reshape(-1),
                        }
                    )
                )
    columns = ["round", "border", "quantity", "conductor", "time", "value"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def write_run(run: AreasRun, loaded: Loaded, asked: Asked, target: Path, summary: Mapping[str, Any]) -> None:
    """Write a run as a folder, whole or not at all: what ``lateral solve --out`` writes, and

    ::

        rounds.csv         residual, cost, gap, time, messages and bytes of each round
        borders.parquet    what crossed each border after each round

    The report has pages about the areas. Without a schedule of the whole (an area that never answered) it is there too.
    """
    from lateral.cli.writing import write_result
    from lateral.report.areas import write_areas_report

    times = [t.isoformat() for t in loaded.case.horizon.times]

    def also(folder: Path) -> None:
        rounds_frame(run).to_csv(folder / "rounds.csv", index=False)
        borders_frame(run, times).to_parquet(folder / "borders.parquet", index=False)

    def page(path: Path) -> object:
        return write_areas_report(run, path, case=loaded.case, tolerance=asked.tolerance, import_report=loaded.report)

    write_result(run.result, target, summary, report=loaded.report, page=page, also=also)


def cut_table(partition: Partition) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows: each area with its size and the border above it."""
    rows: list[tuple[str, ...]] = []
    for name, area in partition.areas.items():
        head = area.head
        rows.append(
            (
                name,
                "-" if head is None else head.parent,
                f"{area.n_nodes:,}",
                str(len(area.case.batteries)),
                "-" if head is None else head.name,
                "-" if head is None else ".".join(map(str, head.conductors)),
                "-" if head is None else ", ".join(head.branch),
            )
        )
    return ("area", "above", "nodes", "batteries", "border", "conductors", "branch"), rows


def cut_data(partition: Partition, out: str) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "status": "ok",
        "out": out,
        "case": partition.case.name,
        "case_hash": partition.case.hash,
        "depth": partition.max_depth,
        "areas": {
            name: {
                "above": None if area.head is None else area.head.parent,
                "n_nodes": area.n_nodes,
                "n_batteries": len(area.case.batteries),
                "border": None if area.head is None else area.head.name,
                "branch": [] if area.head is None else list(area.head.branch),
                "bus": None if area.head is None else area.head.bus,
                "conductors": [] if area.head is None else list(area.head.conductors),
            }
            for name, area in partition.areas.items()
        },
    }


__all__ = [
    "Asked",
    "agreed",
    "algorithm",
    "cut_data",
    "cut_table",
    "executor",
    "gap_text",
    "positive",
    "rounds_table",
    "say_unused",
    "screen_rows",
    "summary_of",
    "write_run",
]
