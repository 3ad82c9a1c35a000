"""Rules of the time axis and of the profiles on it."""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Iterator
from datetime import datetime

import numpy as np

from lateral.checks.codes import fault
from lateral.checks.view import (
    Rule,
    View,
    as_array,
    is_int,
    show,
)
from lateral.devices import PV
from lateral.errors import Fault, did_you_mean

_MAX_STEP_H = 24.0
_PV_PROFILE_MAX = 1.5


def _profiles(view: View) -> Iterator[Fault]:
    limits = _profiles_of_limits(view)
    n = view.n_steps
    for name, value in view.case.profiles.items():
        label = f"profile.{name}"
        array = as_array(value)
        if array is None or array.ndim != 1:
            found = show(value) if array is None else f"an array of shape {array.shape}"
            yield fault("PRO-005", label, found, "a row of numbers, one per step", "Correct the profile.")
            continue
        if n and len(array) != n:
            word = "short" if len(array) < n else "long"
            found = f"{len(array)} value(s), too {word} for {n} step(s)"
            yield fault(
                "PRO-002", label, found, f"{n} value(s), one per step", "Cut or extend the profile, or the horizon."
            )
        bad = ~np.isfinite(array)
        if name in limits:
            bad &= array != math.inf
        if bad.any():
            t = int(np.flatnonzero(bad)[0])
            found = f"{array[t]} in step {t}" + (f" and {int(bad.sum()) - 1} more" if bad.sum() > 1 else "")
            yield fault("PRO-003", label, found, "finite numbers", "Fill the gap in the data.")


def _profiles_of_limits(view: View) -> set[object]:
    """Profiles used only where infinity means no limit."""
    may: set[object] = set()
    must_not: set[object] = set()
    for part in view.parts:
        for f in part.fields:
            if f.spec.profile or f.type in ("Series", "float | str"):
                (may if f.infinite else must_not).update(v for v in part.column(f.name) if isinstance(v, str))
    return may - must_not


def _pv_profiles(view: View) -> Iterator[Fault]:
    for pv in view.sound(PV):
        series = view.profiles.get(pv.profile)
        if series is None:
            continue
        for t in np.flatnonzero((series < 0.0) | (series > _PV_PROFILE_MAX))[:1]:
            found = f"{series[t]:.6g} in step {t} of profile {pv.profile}"
            action = (
                "Night is 0: cut meter offsets off."
                if series[t] < 0.0
                else "kW given as a share? Divide by p_rated_kw."
            )
            yield fault("PRO-004", pv.label, found, f"0 to {_PV_PROFILE_MAX} of p_rated_kw", action)


def _horizon(view: View) -> Iterator[Fault]:
    h, label = view.case.horizon, "horizon"
    step_h, weight = as_array(h.step_h), as_array(h.weight)
    if step_h is None or step_h.ndim != 1:
        yield fault("HOR-002", label, f"step_h = {show(h.step_h)}", "a row of lengths in hours", "Correct the steps.")
        return
    n = len(step_h)
    if not n:
        yield fault("HOR-001", label, "0 steps", "one step or more", "One period is a horizon of one step.")
        return
    for t in np.flatnonzero(~(np.isfinite(step_h) & (step_h > 0.0)))[:1]:
        yield fault(
            "HOR-002", label, f"step_h = {show(step_h[t])} in step {t}", "above 0 h", "Correct the step length."
        )
    for t in np.flatnonzero(np.isfinite(step_h) & (step_h > _MAX_STEP_H))[:1]:
        found = f"step_h = {show(step_h[t])} in step {t}"
        yield fault("UNI-008", label, found, f"at most {_MAX_STEP_H:g} h", "Seconds or minutes given as hours?")
    if weight is None or weight.shape != (n,):
        found = f"weight = {show(h.weight)}"
        yield fault("HOR-003", label, found, f"{n} weight(s), one per step", "Give one weight per step, 1 for all.")
    else:
        for t in np.flatnonzero(~(np.isfinite(weight) & (weight >= 0.0)))[:1]:
            yield fault(
                "HOR-003", label, f"weight = {show(weight[t])} in step {t}", "at least 0", "Correct the weight."
            )
    breaks = h.breaks if isinstance(h.breaks, tuple | list) else (h.breaks,)
    for b in breaks:
        if not is_int(b) or not 0 <= b < n or breaks.count(b) > 1:
            yield fault("HOR-004", label, f"break {show(b)}", f"steps 0 to {n - 1}, none twice", "Correct breaks.")
            break
    if not isinstance(h.start, datetime) or h.start != h.start:  # pandas' NaT is a datetime unequal to itself
        yield fault("HOR-005", label, f"start = {show(h.start)}", "a date and time", "Give e.g. 2024-07-01T00:00.")
    if not _zone_exists(h.zone):
        known = sorted(zoneinfo.available_timezones()) if isinstance(h.zone, str) else []
        action = did_you_mean(h.zone, known) if known else "Give e.g. America/Chicago."
        yield fault("HOR-005", label, f"zone = {show(h.zone)}", "an IANA time zone", action)


def _zone_exists(zone: object) -> bool:
    if not isinstance(zone, str) or not zone:
        return False
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


RULES: tuple[Rule, ...] = (
    _profiles,
    _pv_profiles,
    _horizon,
)
