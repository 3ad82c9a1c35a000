"""A study: a case, and what is laid over it (horizon, profiles, tariff, DER, limits, options), in one TOML
file.

::

    case = "feeder"                    # a built-in case, a case folder or an OpenDSS master, beside this file
    [horizon]                          # a new time axis, or a part (first, count) or another step (resample)
    start = 2024-07-01T00:00:00
    zone = "America/New_York"
    n_steps = 24
    [profiles]
    file = "day.csv"                   # a time column with offset, then one column per profile
    [loads]
    profile = "load"
    [tariff]
    low = 0.10
    high = 0.30
    high_hours = [16, 22]
    [rule]                             # PV on 20 % and batteries on 30 % of the load buses, 0.33 of the
    load, 4 h
    [limits]
    v_min_pu = 0.95
    [[statcom]]                        # also [[pv]], [[battery]], [[svc]], [[soft_open_point]]
    bus = "671"
    [solve]
    formulation = "soc"

The same steps are pure functions for use from Python: `window`, `resample`, `new_horizon`, `set_profiles`,
`set_tariff`, `set_limits`, `add_ders`.

Codes: STU-001 to 009 the file, 010 to 029 what it lays over the case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from lateral.case import Case
from lateral.devices import PV, SVC, Battery, ShuntDevice, SoftOpenPoint, Statcom
from lateral.errors import CaseError, Fault, HostileFileError, OptionError, did_you_mean
from lateral.io import builtin
from lateral.io._toml import Strict, read_toml, validate
from lateral.io.overlay import (
    new_horizon,
    resample,
    set_limits,
    set_loads,
    set_profiles,
    set_tariff,
    two_level,
    window,
)
from lateral.io.rule import DerRule, add_ders
from lateral.io.tables import read_elements, read_folder, read_profiles
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FieldSpec, fields_of

D = TypeVar("D", bound=ShuntDevice)


class HorizonStudy(Strict):
    """The time axis.

    A new one (start, n_steps, step_h), or a part (first, count) or another step (resample) of it.
    """

    start: datetime | None = Field(default=None, description="Beginning of the first step; local without offset.")
    zone: str | None = Field(default=None, description="IANA name of the time zone.")
    n_steps: Annotated[int, Field(ge=1, le=2_000_000)] | None = Field(default=None, description="Number of steps.")
    step_h: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Length of each step, h.")
    first: Annotated[int, Field(ge=0)] | None = Field(default=None, description="First step kept, from 0.")
    count: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Number of steps kept.")
    resample: Annotated[int, Field(ge=1, le=2_000_000)] | None = Field(
        default=None, description="Steps to resample the span to."
    )


class ProfilesStudy(Strict):
    """Profiles that are added to the case."""

    file: str | None = Field(default=None, description="CSV or Parquet: time with offset, one column per profile.")
    values: dict[str, list[float]] = Field(default={}, description="Profiles written out, one value per step.")


class LoadsStudy(Strict):
    """What the loads follow."""

    profile: str | None = Field(default=None, description="Profile that multiplies them.")
    scale: float = Field(default=1.0, description="Factor on their rated power, active and reactive.")
    only: list[str] | None = Field(
        default=None,
        description="Names of the loads meant; absent: all of a p_kw not below zero (below, a load is generation).",
    )


class TariffStudy(Strict):
    """The price of energy at the source: a number, a profile, or two levels."""

    price: float | str | None = Field(default=None, description="$/kWh, or the name of a profile.")
    export: float | str | None = Field(default=None, description="$/kWh paid for export, or a profile; absent: price.")
    low: float | None = Field(default=None, description="Low level, $/kWh.")
    high: float | None = Field(default=None, description="High level, $/kWh.")
    high_hours: tuple[Annotated[float, Field(ge=0, le=24)], Annotated[float, Field(ge=0, le=24)]] | None = Field(
        default=None, description="Local hours of the high level, from and until; over midnight as [22, 6]."
    )


class LimitsStudy(Strict):
    """Limits of every bus and of the source."""

    v_min_pu: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Lowest voltage, every bus.")
    v_max_pu: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Highest voltage, every bus.")
    vpp_min_pu: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Lowest voltage between two phases, every bus that has them."
    )
    vpp_max_pu: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Highest voltage between two phases, every bus that has them."
    )
    vpn_min_pu: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Lowest voltage between a phase and the neutral conductor of its bus, every bus."
    )
    vpn_max_pu: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Highest voltage between a phase and the neutral conductor of its bus, every bus."
    )
    unbalance_max: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Largest negative-sequence share of the voltage, every bus of three phases."
    )
    p_import_max_kw: float | None = Field(default=None, description="Most power taken from the grid, kW.")
    p_export_max_kw: float | None = Field(default=None, description="Most power given to the grid, kW.")
    q_import_max_kvar: float | None = Field(default=None, description="Most reactive power taken from the grid, kvar.")
    q_export_max_kvar: float | None = Field(default=None, description="Most reactive power given to the grid, kvar.")
    s_max_kva: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Most apparent power from or to the grid, kVA."
    )


class DersStudy(Strict):
    """DER from tables in the layout of a case folder."""

    pvs: str | None = Field(default=None, description="Table of PV systems (CSV or Parquet).")
    batteries: str | None = Field(default=None, description="Table of batteries (CSV or Parquet).")


class StudyFile(Strict):
    """A study file."""

    case: str = Field(description="Built-in case, case folder or .dss master, relative to this file.")
    name: str | None = Field(default=None, description="Name of the case in results; absent: the case's own.")
    notes: str | None = Field(default=None, description="Free text shown in reports.")
    alpha_usd_per_kwh: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Price of battery losses."
    )
    horizon: HorizonStudy | None = None
    profiles: ProfilesStudy | None = None
    loads: list[LoadsStudy] | LoadsStudy | None = None
    tariff: TariffStudy | None = None
    limits: LimitsStudy | None = None
    rule: DerRule | None = None
    ders: DersStudy | None = None
    pv: list[dict[str, Any]] = Field(default=[], description="PV systems: fields of PV; `load` takes place of `bus`.")
    battery: list[dict[str, Any]] = Field(default=[], description="Batteries: fields of Battery; `load` as for pv.")
    statcom: list[dict[str, Any]] = Field(default=[], description="Statcoms: fields of Statcom; `load` as for pv.")
    svc: list[dict[str, Any]] = Field(default=[], description="SVCs: fields of SVC; `load` as for pv.")
    soft_open_point: list[dict[str, Any]] = Field(
        default=[], description="Soft open points: fields of SoftOpenPoint; `load` is the first end."
    )
    solve: dict[str, Any] = Field(default={}, description="Options of the solve, passed on as they are.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """A case with everything laid over it, and the options of its solve.

    Attributes:
        case: the case.
        options: the table ``[solve]`` as it was written.
        path: the study file.
        report: what the OpenDSS reader said of the import, when the case is a ``.dss`` master.
    """

    case: Case
    options: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    report: Any = None


#: reads an OpenDSS master: the case, and what the reader has to say about the import
ReadDss = Callable[[Path], tuple[Case, Any]]


def read_study(
    path: str | os.PathLike[str],
    *,
    read_dss: ReadDss | None = None,
    device_types: Sequence[type[Element]] = (),
) -> Study:
    """Read a study file; see the module for its keys.

    Args:
        path: the TOML file.
        read_dss: reader of OpenDSS masters, when not the package's own.
        device_types: device classes of the user that a case folder may hold.

    Raises:
        CaseError: with every fault of the file, or of a step that could not be laid over the case.
        HostileFileError: a path leads out of the study's folder.
    """
    file = Path(path)
    data, text = read_toml(file, "STU-001 file")
    study = validate(StudyFile, data, text, file.name, "STU-002 key")
    case, report = _case(file.resolve().parent, study.case, read_dss, device_types)
    if study.name is not None:
        case = case.with_(name=study.name)
    if study.notes is not None:
        case = case.with_(notes=study.notes)
    if study.alpha_usd_per_kwh is not None:
        case = case.with_(alpha_usd_per_kwh=study.alpha_usd_per_kwh)
    try:
        case = _lay(case, study, file.resolve().parent, file.name)
    except OptionError as error:
        fault = Fault("STU-003 value", file.name, str(error), "a value that fits the case", "Correct it.", file.name)
        raise CaseError([fault]) from error
    return Study(case=case, options=study.solve, path=file, report=report)


def _lay(case: Case, study: StudyFile, folder: Path, file: str) -> Case:
    # The order matters: a profile needs the horizon, everything else may name a profile, and the rule sizes
    # DER on the loads as they are after scaling.
    if study.horizon is not None:
        case = _horizon(case, study.horizon, study.profiles)
    if study.profiles is not None:
        if study.profiles.file is not None:
            case = set_profiles(case, read_profiles(confined(folder, study.profiles.file), case.horizon))
        case = set_profiles(case, study.profiles.values)
    loads = study.loads
    for item in [loads] if isinstance(loads, LoadsStudy) else loads or []:
        case = set_loads(case, profile=item.profile, scale=item.scale, only=item.only)
    if study.tariff is not None:
        case = _tariff(case, study.tariff, file)
    if study.limits is not None:
        case = set_limits(case, **study.limits.model_dump())
    if study.ders is not None:
        added: list[Element] = []
        for cls, table in ((PV, study.ders.pvs), (Battery, study.ders.batteries)):
            if table is not None:
                added += read_elements(confined(folder, table), cls)
        case = _with_new(case, added, file)
    written: tuple[tuple[type[ShuntDevice], list[dict[str, Any]]], ...] = (
        (PV, study.pv),
        (Battery, study.battery),
        (Statcom, study.statcom),
        (SVC, study.svc),
        (SoftOpenPoint, study.soft_open_point),
    )
    case = _with_new(case, [d for cls, rows in written for d in _explicit(case, cls, rows, file)], file)
    return case if study.rule is None else add_ders(case, study.rule)


def confined(folder: Path, relative: str) -> Path:
    """A path inside `folder`, links resolved.

    Raises:
        HostileFileError: it lies outside.
    """
    try:
        path = (folder / relative).resolve()
        inside = path.is_relative_to(folder.resolve())
        path.is_file()  # raises for a name that no file can have
    except (OSError, RuntimeError, ValueError):  # NUL, a loop of links, a name without end
        inside = False
    if not inside:
        found, action = f"the path {relative!r}, outside the study's folder", "Move the file there."
        raise HostileFileError([Fault("STU-004 outside", "study", found, "a file beside the study", action)])
    return path


def _case(folder: Path, name: str, read_dss: ReadDss | None, device_types: Sequence[type[Element]]) -> tuple[Case, Any]:
    if builtin.has(name):
        return builtin.load(name), None
    path = confined(folder, name)
    if path.suffix.lower() == ".dss" and path.is_file():
        if read_dss is None:
            from lateral.io import opendss  # the engine is loaded only when a master is read

            read_dss = opendss.read
        return read_dss(path)
    if (path / "case.toml").is_file():
        return read_folder(path, device_types=device_types), None
    hint = did_you_mean(name, builtin.names())
    allowed = "a built-in case, a case folder or a .dss master beside the study"
    raise CaseError([Fault("STU-005 case", "study.case", repr(name), allowed, hint)])


def _horizon(case: Case, h: HorizonStudy, profiles: ProfilesStudy | None) -> Case:
    if h.first is not None or h.count is not None:
        first = h.first or 0
        case = window(case, first, h.count if h.count is not None else case.horizon.n_steps - first)
    if h.resample is not None:
        case = resample(case, h.resample)
    if h.start is None and h.zone is None and h.n_steps is None and h.step_h is None:
        return case
    old = case.horizon
    zone = h.zone or old.zone
    n_steps = h.n_steps if h.n_steps is not None else old.n_steps
    start = h.start if h.start is not None else old.start
    try:
        if h.step_h is None and n_steps == old.n_steps:
            horizon = Horizon(start=start, step_h=old.step_h, weight=old.weight, breaks=old.breaks, zone=zone)
        else:
            horizon = Horizon.regular(n_steps, h.step_h or float(old.step_h[0]), start=start, zone=zone)
        _ = horizon.times
    except Exception as error:  # the zone and its gaps are pandas's to know, with many exception types
        message = f"no such time or zone: {error}"
        raise OptionError(message) from error
    # A profile that the study gives anew need not fit.
    given = set(profiles.values) if profiles is not None else set()
    return new_horizon(case.with_(profiles={k: v for k, v in case.profiles.items() if k not in given}), horizon)


def _tariff(case: Case, t: TariffStudy, file: str) -> Case:
    levels = (t.low, t.high, t.high_hours)
    if t.price is not None and all(v is None for v in levels):
        return set_tariff(case, t.price, t.export)
    if t.price is None and t.low is not None and t.high is not None and t.high_hours is not None:
        case = set_profiles(case, {"tariff": two_level(case.horizon, t.low, t.high, t.high_hours)})
        return set_tariff(case, "tariff", t.export)
    allowed = "either price, or low, high and high_hours"
    fault = Fault("STU-013 tariff", f"{file}.tariff", "another mix of keys", allowed, "Give one of them.", file)
    raise CaseError([fault])


def _explicit(case: Case, cls: type[D], rows: Sequence[dict[str, Any]], file: str) -> list[D]:
    """Devices written out in the study, at a bus or at a load."""
    known: dict[str, FieldSpec] = {f.name: f for f in fields_of(cls)}
    loads = {d.name: d for d in case.loads}
    out: list[D] = []
    faults: list[Fault] = []
    for k, row in enumerate(rows):
        element = f"{cls.kind}.{row.get('name', row.get('load', k))}"
        values = dict(row)
        load = values.pop("load", None)
        before = len(faults)
        if load is not None:
            at = loads.get(str(load))
            if at is None:
                hint = did_you_mean(str(load), sorted(loads))
                faults.append(Fault("STU-012 load", element, f"no load {load!r}", "a load of the case", hint, file))
            else:
                place = {"name": at.name, "bus": at.bus, "terminals": at.terminals, "connection": at.connection}
                values = {**place, **values}
        for name, value in values.items():
            if name not in known:
                hint = did_you_mean(name, [*known, "load"])
                faults.append(Fault("STU-002 key", element, f"the unknown key {name!r}", "a field", hint, file))
            elif not _fits(known[name].type, value):
                allowed = f"{_words(known[name].type)} ({known[name].doc})"
                faults.append(Fault("STU-003 value", element, f"{name} = {value!r}", allowed, "Correct it.", file))
        for name, spec in known.items():
            if spec.required and name not in values and not (load is not None and name in ("name", "bus")):
                faults.append(Fault("STU-002 key", element, f"no key {name!r}", "it is required", "Add it.", file))
        if len(faults) == before:
            out.append(cls(**{n: _as_float(v) if "float" in known[n].type else v for n, v in values.items()}))
    if faults:
        raise CaseError(faults)
    return out


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_float(value: Any) -> Any:
    """A number, or a list of them, as floats; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return tuple(float(v) for v in value)
    return float(value) if _number(value) else value


def _words(kind: str) -> str:
    return "a list of numbers" if kind.startswith("tuple[float") else kind


def _fits(kind: str, value: Any) -> bool:
    if kind.startswith("tuple[float"):
        return isinstance(value, (list, tuple)) and all(_number(v) for v in value)
    if "float" in kind:
        return _number(value)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "Terminals":
        return isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value)
    return isinstance(value, str)


def _with_new(case: Case, added: Iterable[Element], file: str) -> Case:
    there = {d.label for d in case.devices}
    buses = case.feeder.bus
    faults = []
    new = list(added)
    for d in new:
        if d.label in there:
            action = "Give it another name."
            faults.append(Fault("STU-014 name", d.label, "the name twice", "a name used once", action, file))
        for bus in (getattr(d, key) for key in ("bus", "other_bus") if hasattr(d, key)):
            if bus not in buses:
                hint = did_you_mean(bus, sorted(buses))
                faults.append(Fault("STU-015 bus", d.label, f"no bus {bus!r}", "a bus of the case", hint, file))
        there.add(d.label)
    if faults:
        raise CaseError(faults)
    return case.with_(devices=(*case.devices, *new)) if new else case


__all__ = [
    "DerRule",
    "ReadDss",
    "Study",
    "StudyFile",
    "add_ders",
    "confined",
    "new_horizon",
    "read_study",
    "resample",
    "set_limits",
    "set_loads",
    "set_profiles",
    "set_tariff",
    "two_level",
    "window",
]
