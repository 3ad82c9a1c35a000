"""Reading what CASE stands for, with what else comes along: options of a study, the report of an import."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lateral.cli.screen import note
from lateral.errors import CaseError, Fault, OptionError, did_you_mean

if TYPE_CHECKING:
    from lateral.case import Case
    from lateral.io.opendss import ImportReport


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A case that was read.

    Attributes:
        case: the case.
        options: the table ``[solve]`` of a study file; empty otherwise.
        report: what became of every object of an OpenDSS master; None for other cases.
        seconds: wall time of the reading, without the loading of Python modules.
    """

    case: Case
    options: Mapping[str, Any] = field(default_factory=dict)
    report: ImportReport | None = None
    seconds: float = 0.0


def load(
    name: str,
    *,
    horizon: str | None = None,
    steps: int | None = None,
    step_h: float | None = None,
    first: int = 0,
    root: str | None = None,
    balanced: bool = False,
) -> Loaded:
    """Read a case, and say on standard error what its files hold and it does not.

    Args:
        name: a built-in case, a case folder, a study file or an OpenDSS master.
        horizon, steps, step_h, first, root: of an OpenDSS master; refused for anything else.
        balanced: take the balanced equivalent of the case, which balanced formulations need.

    Raises:
        CaseError: there is no such case, or it has faults.
        OptionError: an option that does not exist, or that this kind of case does not take.
    """
    loaded = _read(name, horizon, steps, step_h, first, root)
    _say_warnings(loaded)
    if not balanced:
        return loaded
    faults_of(loaded)  # what is odd has no equivalent
    begin = time.perf_counter()
    case = loaded.case.to_balanced()
    return replace(loaded, case=case, seconds=loaded.seconds + time.perf_counter() - begin)


def faults_of(loaded: Loaded) -> tuple[Fault, ...]:
    """What is odd in a case, for commands that solve no optimisation: of a master not refused, because the engine has
    solved it as it stands.

    Raises:
        CaseError: faults of any other case, or of devices that a study adds to a master.
    """
    from lateral.checks import check

    faults = check(loaded.case)
    case = loaded.case
    added = {d.label for d in case.devices if d.label not in case.where}  # what comes from files has a place in them
    refused = faults if loaded.report is None else tuple(f for f in faults if f.element in added)
    if refused:
        raise CaseError(refused)
    return faults


def _say_warnings(loaded: Loaded) -> None:
    warnings = loaded.case.warnings
    if warnings:
        many = "this is" if len(warnings) == 1 else "these are"
        details = "; `lateral import` lists every object" if loaded.report is not None else ""
        note(f"{many} not in the case as in the OpenDSS files{details}")
    for line in warnings:
        note(line)


def _read(
    name: str, horizon: str | None, steps: int | None, step_h: float | None, first: int, root: str | None
) -> Loaded:
    from lateral import io

    path = Path(name)
    is_file = not io.builtin.has(name) and path.is_file()
    suffix = path.suffix.lower() if is_file else ""
    given = {"--horizon": horizon, "--steps": steps, "--step-h": step_h, "--first": first or None, "--root": root}
    unfit = [flag for flag, value in given.items() if value is not None]
    if suffix != ".dss" and unfit:
        message = f"{unfit[0]} is for OpenDSS masters; {name} is none. A study file sets the horizon of other cases"
        raise OptionError(message)
    if suffix == ".dss":
        return _load_dss(path, horizon or "snapshot", steps, step_h, first, root)
    begin = time.perf_counter()
    if suffix == ".toml" and path.name != "case.toml":
        study = io.read_study(path)
        spent = time.perf_counter() - begin
        return Loaded(case=study.case, options=study.options, report=study.report, seconds=spent)
    case = io.read(name)
    return Loaded(case=case, seconds=time.perf_counter() - begin)


def _load_dss(
    path: Path, horizon: str, steps: int | None, step_h: float | None, first: int, root: str | None
) -> Loaded:
    from lateral.io import opendss
    from lateral.io.opendss.map_shapes import HorizonKind

    kinds: dict[str, HorizonKind] = {kind: kind for kind in get_args(HorizonKind)}
    if horizon not in kinds:
        message = f"there is no horizon {horizon!r}. {did_you_mean(horizon, list(kinds))}"
        raise OptionError(message)
    begin = time.perf_counter()
    case, report = opendss.read(path, root=root, horizon=kinds[horizon], n_steps=steps, step_h=step_h, first=first)
    return Loaded(case=case, report=report, seconds=time.perf_counter() - begin)


__all__ = ["Loaded", "load"]
