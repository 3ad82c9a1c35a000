"""What a study lays over a case, step by step: pure functions from a case to a case.

`add_ders` is beside them in `lateral.io.rule`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lateral.case import Case
from lateral.devices import Load, Source
from lateral.devices.load import is_generation, is_idling
from lateral.errors import CaseError, Fault, OptionError, did_you_mean
from lateral.network.feeder import Bus, Feeder, Line, Switch
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FloatArray


def window(case: Case, first: int, count: int) -> Case:
    """The part of the horizon that begins at step `first` (from 0) and has `count` steps."""
    h = case.horizon
    if first < 0 or count < 1 or first + count > h.n_steps:
        message = f"steps {first} to {first + count - 1} are not within the horizon of {h.n_steps} steps"
        raise OptionError(message)
    _check_lengths(case)
    part = slice(first, first + count)
    horizon = Horizon(
        start=h.times[first].to_pydatetime(),
        step_h=h.step_h[part],
        weight=h.weight[part],
        breaks=tuple(b - first for b in h.breaks if first < b < first + count),
        zone=h.zone,
    )
    profiles = {name: np.asarray(values, dtype=float)[part] for name, values in case.profiles.items()}
    return case.with_(horizon=horizon, profiles=profiles)


def resample(case: Case, n_steps: int) -> Case:
    """The same span in `n_steps` equal steps; each profile keeps its integral (a mean over each new step).

    Finer steps repeat a value, coarser ones average; between, the share of each old step counts.

    Raises:
        OptionError: the horizon has breaks or unequal weights, which equal steps cannot keep.
    """
    h = case.horizon
    if n_steps < 1:
        message = f"n_steps is {n_steps}; it must be 1 or more"
        raise OptionError(message)
    if h.breaks or len(set(h.weight.tolist())) > 1:
        message = "a horizon with breaks or unequal weights cannot be resampled; take a window of one period first"
        raise OptionError(message)
    _check_lengths(case)
    edges = np.concatenate([[0.0], np.cumsum(h.step_h)])
    new_edges = np.linspace(0.0, edges[-1], n_steps + 1)
    step_h = float(edges[-1]) / n_steps

    def mean(values: FloatArray) -> FloatArray:
        integral = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=float) * h.step_h)])
        out: FloatArray = np.diff(np.interp(new_edges, edges, integral)) / step_h
        return out

    horizon = Horizon(start=h.start, step_h=np.full(n_steps, step_h), weight=np.full(n_steps, h.weight[0]), zone=h.zone)
    profiles = {name: mean(values) for name, values in case.profiles.items()}
    return case.with_(horizon=horizon, profiles=profiles)


def new_horizon(case: Case, horizon: Horizon) -> Case:
    """The case on another time axis; profiles stay where their length fits, and those of one step are
    repeated.

    Raises:
        CaseError: a profile does not fit; `resample` or `window` the case, or give the profile anew.
    """
    profiles, faults = {}, []
    for name, values in case.profiles.items():
        array = np.asarray(values, dtype=float)
        if len(array) == 1:
            array = np.full(horizon.n_steps, array[0])
        if len(array) != horizon.n_steps:
            found, allowed = f"{len(array)} values", f"n_steps = {horizon.n_steps}"
            action = "Resample or take a window of the case, or give the profile anew."
            faults.append(Fault("STU-010 length", f"profile.{name}", found, allowed, action))
        profiles[name] = array
    if faults:
        raise CaseError(faults)
    return case.with_(horizon=horizon, profiles=profiles)


def set_profiles(case: Case, profiles: Mapping[str, Sequence[float] | FloatArray]) -> Case:
    """The case with profiles added or replaced."""
    arrays = {name: np.array(values, dtype=float, ndmin=1) for name, values in profiles.items()}
    faults = [
        Fault("STU-010 length", f"profile.{name}", f"{len(a)} values", f"{case.horizon.n_steps}", "One per step.")
        for name, a in arrays.items()
        if a.shape != (case.horizon.n_steps,)
    ]
    if faults:
        raise CaseError(faults)
    return case.with_(profiles={**case.profiles, **arrays})


def two_level(horizon: Horizon, low: float, high: float, high_hours: tuple[float, float]) -> FloatArray:
    """A price of two levels, shape (T,): `high` in steps that begin from ``high_hours[0]`` until before
    ``high_hours[1]``.

    Hours are local, 0 to 24; a window over midnight is written (22, 6).
    """
    times = horizon.times
    hour = np.asarray(times.hour, dtype=float) + np.asarray(times.minute, dtype=float) / 60.0
    begin, end = high_hours
    inside = (hour >= begin) & (hour < end) if begin <= end else (hour >= begin) | (hour < end)
    return np.where(inside, high, low)


def set_tariff(case: Case, price_import: float | str, price_export: float | str | None = None) -> Case:
    """The case with other prices, numbers in $/kWh or names of profiles; no export price.

    The import price.
    """
    for name in (price_import, price_export):
        if isinstance(name, str):
            _known_profile(case, name, "tariff")
    return _sources(case, price_import=price_import, price_export=price_export)


def _split_phase(feeder: Feeder) -> frozenset[str]:
    """Buses with the two legs of a single phase: behind a transformer of one phase with two windings at the bus, end to
    end, or one of twice its base across two conductors; and whatever lines and switches reach from there."""
    found: set[str] = set()
    for t in feeder.transformers:
        if t.n_phases != 1:
            continue
        ends = {(w.bus, w.terminals[0], w.terminals[-1]) for w in t.windings}
        for bus, a, b in ends:
            if any(other == bus and first == b and last != a for other, first, last in ends):
                found.add(bus)
        across = [w for w in t.windings if min(w.terminals) > 0]
        found |= {w.bus for w in across if w.v_rated_kv > 1.9 * feeder.bus[w.bus].v_base_kv}
    branches: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
    wires = [(e.bus_from, e.bus_to) for e in branches]
    more = set(found)
    while more:
        reached = {y for a, b in wires for x, y in ((a, b), (b, a)) if x in more}
        more = reached - found
        found |= more
    return frozenset(found)


def set_limits(
    case: Case,
    *,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    vpp_min_pu: float | None = None,
    vpp_max_pu: float | None = None,
    vpn_min_pu: float | None = None,
    vpn_max_pu: float | None = None,
    unbalance_max: float | None = None,
    p_import_max_kw: float | None = None,
    p_export_max_kw: float | None = None,
    q_import_max_kvar: float | None = None,
    q_export_max_kvar: float | None = None,
    s_max_kva: float | None = None,
) -> Case:
    """The case with other limits; None leaves a limit as it is.

    Args:
        case: the case.
        v_min_pu, v_max_pu: voltages to ground, of every bus.
        vpp_min_pu, vpp_max_pu: voltages between phases, of every bus with two of them or three. The legs of a split
            phase are no phases: they are twice the base apart, beyond any such limit.
        vpn_min_pu, vpn_max_pu: voltages between phases and the neutral conductor, of every bus with a phase.
        unbalance_max: share of negative sequence, of every bus with three phases.
        p_import_max_kw, p_export_max_kw, q_import_max_kvar, q_export_max_kvar, s_max_kva: of every source.
    """
    # limits, and how many phases a bus needs for them
    volts = (
        ({"v_min_pu": v_min_pu, "v_max_pu": v_max_pu}, 0),
        ({"vpn_min_pu": vpn_min_pu, "vpn_max_pu": vpn_max_pu}, 1),
        ({"vpp_min_pu": vpp_min_pu, "vpp_max_pu": vpp_max_pu}, 2),
        ({"unbalance_max": unbalance_max}, 3),
    )

    legs = _split_phase(case.feeder) if vpp_min_pu is not None or vpp_max_pu is not None else frozenset()

    def limited(bus: Bus) -> Bus:
        n = 1 if bus.name in legs else len({1, 2, 3} & set(bus.conductors))
        changes: dict[str, Any] = {k: v for group, least in volts if n >= least for k, v in _given(group).items()}
        return dataclasses.replace(bus, **changes) if changes else bus

    if any(_given(group) for group, _ in volts):
        buses = tuple(limited(b) for b in case.feeder.buses)
        case = case.with_(feeder=dataclasses.replace(case.feeder, buses=buses))
    powers = _given(
        {
            "p_import_max_kw": p_import_max_kw,
            "p_export_max_kw": p_export_max_kw,
            "q_import_max_kvar": q_import_max_kvar,
            "q_export_max_kvar": q_export_max_kvar,
            "s_max_kva": s_max_kva,
        }
    )
    return _sources(case, **powers) if powers else case


def _given(values: Mapping[str, float | None]) -> dict[str, float]:
    return {k: v for k, v in values.items() if v is not None}


def set_loads(case: Case, *, profile: str | None = None, scale: float = 1.0, only: Sequence[str] | None = None) -> Case:
    """The case with another profile or size of its loads.

    Args:
        case: the case.
        profile: the profile that multiplies them; absent: as it is.
        scale: factor on their rated power, active and reactive.
        only: names of the loads meant, whatever they are. Absent: all whose rated power ``p_kw`` is not below zero.
            Loads of negative ``p_kw`` are generation, such as OpenDSS generators, and stay as they are; so do the
            idling losses of storages.

    Raises:
        OptionError: the scale is not finite.
        CaseError: a profile or a load that the case does not have.
    """
    if not math.isfinite(scale):
        message = f"the scale of loads is {scale:g}; give a finite factor"
        raise OptionError(message)
    if profile:
        _known_profile(case, profile, "loads")
    names = {d.name for d in case.loads}
    faults = [
        Fault("STU-012 load", f"load.{n}", "no such load", "a load of the case", did_you_mean(n, sorted(names)))
        for n in only or ()
        if n not in names
    ]
    if faults:
        raise CaseError(faults)
    chosen = {d.name for d in case.loads if not (is_idling(d) or is_generation(d))} if only is None else set(only)

    def change(d: Element) -> Element:
        if not isinstance(d, Load) or d.name not in chosen:
            return d
        new = dataclasses.replace(d, p_kw=d.p_kw * scale, q_kvar=d.q_kvar * scale) if scale != 1.0 else d
        return new if profile is None else dataclasses.replace(new, profile=profile)

    return case.with_(devices=tuple(change(d) for d in case.devices))


def _sources(case: Case, **changes: Any) -> Case:
    return case.with_(
        devices=tuple(dataclasses.replace(d, **changes) if isinstance(d, Source) else d for d in case.devices)
    )


def _known_profile(case: Case, name: str, element: str) -> None:
    if name not in case.profiles:
        hint = did_you_mean(name, sorted(case.profiles))
        fault = Fault("STU-011 profile", element, f"the profile {name!r}", "a profile of the case", hint)
        raise CaseError([fault])


def _check_lengths(case: Case) -> None:
    for name, values in case.profiles.items():
        if len(np.asarray(values)) != case.horizon.n_steps:
            found, allowed = f"{len(np.asarray(values))} values", f"{case.horizon.n_steps}"
            raise CaseError([Fault("STU-010 length", f"profile.{name}", found, allowed, "Give one per step.")])


__all__ = [
    "new_horizon",
    "resample",
    "set_limits",
    "set_loads",
    "set_profiles",
    "set_tariff",
    "two_level",
    "window",
]
