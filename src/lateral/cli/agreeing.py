"""What ``lateral areas`` does: options of algorithms and executors, the run, its screen and its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from lateral.cli.loading import Loaded
from lateral.cli.options import SolveOptions
from lateral.cli.running import name_unused, note_prices
from lateral.cli.screen import count, note, number, working
from lateral.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    import typer

    from lateral.areas.algorithms import Algorithm
    from lateral.areas.driver import Patience
    from lateral.areas.executors import Executor
    from lateral.areas.faults import Faults
    from lateral.areas.run import AreasRun, Round

#: Options of a study's solve that a run over areas has no use for.
UNUSED = ("rounds", "recover", "verify", "tolerance", "max_iterations", "time_limit_s")
#: Rounds at most, where nothing else is said.
MAX_ROUNDS = 300
#: Options that areas with owners of their own take.
OF_FEDERATION = (
    *("case", "broker", "key_file", "encryption", "checkpoint", "resume", "dead_after", "solve_limit", "out", "json"),
)


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
        faults: what goes wrong with messages; None for nothing.
        patience: how long to wait for whom.
        checkpoint: folder that the run is kept in; None for none.
        resume: whether to go on with what is there.
    """

    algorithm: Algorithm
    executor: Executor
    areas: str | None
    tolerance: float
    max_rounds: int
    central: bool
    faults: Faults | None
    patience: Patience
    checkpoint: str | None
    resume: bool


def tolerance(given: float | None) -> float:
    """The tolerance of the residual.

    Raises:
        OptionError: it is not positive.
    """
    from lateral.areas.solve import DEFAULT_TOLERANCE

    return DEFAULT_TOLERANCE if given is None else _positive("--tol", given)


def _positive(flag: str, value: float) -> float:
    """A number that is positive and finite.

    Raises:
        OptionError: it is not.
    """
    if not 0.0 < value < float("inf"):
        message = f"{flag} takes a positive number, not {value:g}"
        raise OptionError(message)
    return value


def patience(**given: float | None) -> Patience:
    """How long to wait for whom; what was not given is as `lateral.areas.silence.Patience` has it."""
    from lateral.areas.silence import Patience

    known: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    return Patience(**known)


def checkpoint(begin: str | None, resume: str | None) -> tuple[str | None, bool]:
    """The folder of a checkpoint, and whether to go on from it.

    Raises:
        OptionError: two folders.
    """
    if begin is not None and resume is not None and Path(begin) != Path(resume):
        message = "a resumed run stays in its folder; give --resume alone"
        raise OptionError(message)
    return (resume if resume is not None else begin), resume is not None


def faults(loss: float, seed: int) -> Faults | None:
    """What goes wrong with messages.

    Raises:
        OptionError: no probability.
    """
    from lateral.areas.faults import Faults

    if not 0.0 <= loss < 1.0:
        message = f"--loss is a probability from 0 to below 1, not {loss:g}"
        raise OptionError(message)
    return Faults(loss=loss, seed=seed) if loss else None


def algorithm(name: str | None, more: Sequence[str] | None, **flags: Any) -> Algorithm:
    """An algorithm with its options.

    Args:
        name: the one that is wanted; absent: `auto`, or `enapp-priced` where options are given.
        more: further options, ``NAME=VALUE``.
        **flags: options that have a flag of their own; None where it was not given.

    Raises:
        OptionError: no such algorithm, an option that it does not have, or a value that the option does not take.
    """
    from lateral.areas.algorithms import BUILT_IN, Auto, EnappPriced

    if name is None:
        asked = {k for k, v in flags.items() if v is not None} | {w.partition("=")[0].strip() for w in more or ()}
        has = {cls: {f.name for f in dataclasses.fields(cls)} for cls in (Auto, EnappPriced)}
        name = EnappPriced.name if asked <= has[EnappPriced] and not asked <= has[Auto] else Auto.name
    if name not in BUILT_IN:
        message = f"there is no algorithm {name!r}. {did_you_mean(name, list(BUILT_IN))}"
        raise OptionError(message)
    cls = BUILT_IN[name]
    types = {f.name: get_type_hints(cls)[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given: dict[str, tuple[str, Any]] = {k: (f"--{k}", v) for k, v in flags.items() if v is not None}
    for word in more or ():
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
        _positive(flag, found)
    return found


#: Flags of executors: which have them, and what each is called there.
_EXECUTOR_FLAGS = {
    "workers": (("process", "dask"), "n_workers"),
    "scheduler": (("dask",), "address"),
    "tls": (("dask",), ""),
    "broker": (("helics",), "broker"),
    "key_file": (("helics",), "key_file"),
    "encryption": (("helics",), "encryption_config"),
}


def executor(name: str, **flags: Any) -> Executor:
    """An executor with its options; see `lateral.areas.executors.get`.

    Raises:
        OptionError: no such executor, an option that it does not have, or a package that it needs is missing.
    """
    from lateral.areas.executors import BUILT_IN, get

    if name not in BUILT_IN:
        message = f"there is no executor {name!r}. {did_you_mean(name, list(BUILT_IN))}"
        raise OptionError(message)
    options: dict[str, Any] = {}
    for flag, value in flags.items():
        fits, parameter = _EXECUTOR_FLAGS[flag]
        if value is None:
            continue
        if name not in fits:
            message = f"the executor {name!r} has no --{flag.replace('_', '-')}; it is for {' and '.join(fits)}"
            raise OptionError(message)
        if flag == "tls":
            options |= {f"{what}_file": Path(value) / f"{what}.pem" for what in ("ca", "cert", "key")}
        else:
            options[parameter] = value
    return get(name, **options)


def say_unused(study: Mapping[str, Any], *more: str) -> None:
    """Name the options of a study that areas do not use.

    Args:
        study: its ``[solve]``.
        *more: options that a command has no use for, beside `UNUSED`.
    """
    name_unused(study, "areas do", *more, *UNUSED)


def agreed(loaded: Loaded, options: SolveOptions, asked: Asked) -> AreasRun:
    """Cut and solve, with a line for each round on standard error."""
    from lateral.areas.files import partition_of
    from lateral.areas.solve import solve_areas
    from lateral.checks import require

    require(loaded.case)  # before it is cut: an area's fault would be one of a case that nobody wrote
    note_prices(loaded, options.objective)
    with working("cutting ..."):
        partition = partition_of(loaded.case, asked.areas)
    n = len(partition.areas)
    with working(f"solving {count(n, 'area')} in rounds ..."), _kept(asked.checkpoint):
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
            point=options.point,
            limits=options.limits,
            solver=options.solver,
            central=asked.central,
            with_replay=options.replay,
            patience=asked.patience,
            transport=asked.faults,
            progress=_say_round,
            checkpoint=asked.checkpoint,
            resume=asked.resume,
        )


def federation_file(case: str) -> Path | None:
    """The federation file that CASE means, when it means one: ``federation.toml``, or a folder with one."""
    path = Path(case)
    if path.is_file() and path.name == "federation.toml":
        return path
    inside = path / "federation.toml"
    return inside if inside.is_file() and not (path / "case.toml").exists() else None


def refuse_fixed(ctx: typer.Context) -> None:
    """Refuse options that the federation file decides, or that need the cases of the areas.

    Raises:
        OptionError: one was given.
    """
    given = [name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    flags = [f"--{name.replace('_', '-')}" for name in given if name not in OF_FEDERATION]
    if ctx.params.get("executor") == "helics":
        flags = [flag for flag in flags if flag != "--executor"]
    if flags:
        message = f"{', '.join(flags)}: the federation file says how its areas are run; `lateral areas cut` writes it"
        raise OptionError(message)


def coordinated(
    file: Path,
    *,
    broker: str | None,
    key_file: str | None,
    encryption: str | None,
    patience: Patience,
    checkpoint: str | None,
    resume: bool,
) -> tuple[AreasRun, float]:
    """Coordinate areas that their owners serve; the run, and the tolerance that was agreed on."""
    from lateral.areas.executors.helics_ import Owners
    from lateral.areas.federation import read_federation, solve_federation

    if broker is None:
        message = "areas with owners of their own meet at a broker; name it with --broker ADDRESS"
        raise OptionError(message)
    with working(f"reading {file} ..."):
        federation = read_federation(file)
    owners = Owners(
        broker,
        federation=federation.identifier,
        digests=federation.digests,
        key_file=key_file,
        encryption_config=encryption,
    )
    with working(f"coordinating {len(federation.plan.areas)} areas ..."), _kept(checkpoint):
        run = solve_federation(
            federation, owners, patience=patience, progress=_say_round, checkpoint=checkpoint, resume=resume
        )
    return run, federation.run.tolerance


@contextmanager
def _kept(checkpoint: str | None) -> Iterator[None]:
    """Say, when a run is interrupted, where it can go on from."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint is not None:
            note(f"the rounds that ended are kept; go on with --resume {checkpoint}")
        raise


def _say_round(done: Round) -> None:
    text = f"round {done.number}: residual {done.residual:.1e}, cost {number(done.cost, '$', 4)}"
    for reason in done.failures.values():
        text += f"; {reason}"
    note(text)


__all__ = [
    "MAX_ROUNDS",
    "Asked",
    "agreed",
    "algorithm",
    "checkpoint",
    "coordinated",
    "executor",
    "faults",
    "federation_file",
    "patience",
    "refuse_fixed",
    "say_unused",
    "tolerance",
]
