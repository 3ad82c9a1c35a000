"""A comparison swept over feeders, penetrations, sizes of load and horizons, as one long table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from lateral.case import Case
from lateral.checks import require
from lateral.devices import PV, Battery
from lateral.errors import OptionError, did_you_mean
from lateral.formulations import Formulation
from lateral.io import read
from lateral.io.study import DerRule, add_ders, resample, set_loads, window
from lateral.studies.comparison import compare

#: Most steps of a horizon, as in case folders and study files.
MOST_STEPS = 2_000_000


def _ders(case: Case, *, pv_share: float | None = None, battery_share: float | None = None) -> Case:
    """The case with its PV and batteries replaced by the rule's at these shares of the load buses."""
    given = {"pv_share": pv_share, "battery_share": battery_share}
    for name, share in given.items():
        if share is not None and not 0.0 <= share <= 1.0:
            message = f"{name} is a share of the load buses, 0 to 1, not {share:g}"
            raise OptionError(message)
    rule = DerRule.model_validate({k: v for k, v in given.items() if v is not None})
    bare = case.with_(devices=tuple(d for d in case.devices if not isinstance(d, PV | Battery)))
    return add_ders(bare, rule)


def _whole(value: float, name: str) -> int:
    if not (1 <= value <= MOST_STEPS and value == int(value)):
        message = f"{name} is a number of steps, 1 to {MOST_STEPS:,}, not {value:g}"
        raise OptionError(message)
    return int(value)


#: What can be swept over, in the order in which changes are made: horizon, loads, then DER sized on the loads.
AXES: Mapping[str, str] = {
    "steps": "the first so many steps of the horizon",
    "resample": "the whole span in so many equal steps",
    "load_scale": "factor on the rated power of every load; generation (loads of negative p_kw) stays as it is",
    "pv_share": "share of the load buses with PV; PV and batteries of the case give way to the rule's",
    "battery_share": "share of the load buses with a battery, likewise",
}

_CHANGES: Mapping[str, Callable[[Case, float], Case]] = {
    "steps": lambda case, value: window(case, 0, _whole(value, "steps")),
    "resample": lambda case, value: resample(case, _whole(value, "resample")),
    "load_scale": lambda case, value: set_loads(case, scale=value),
}


def varied(case: Case, values: Mapping[str, float]) -> Case:
    """The case with some of `AXES` set.

    Raises:
        OptionError: an axis that does not exist, or a value that does not fit it.
    """
    for name in values:
        if name not in AXES:
            message = f"there is no sweep over {name!r}. {did_you_mean(name, list(AXES))}"
            raise OptionError(message)
    for name, change in _CHANGES.items():
        if name in values:
            case = change(case, values[name])
    shares = {k: values[k] for k in ("pv_share", "battery_share") if k in values}
    return _ders(case, **shares) if shares else case


def sweep(
    cases: Sequence[str | Case],
    formulations: Sequence[str | Formulation] | None = None,
    *,
    over: Mapping[str, Sequence[float]] | None = None,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """`compare` for every case and every combination of values.

    Args:
        cases: cases, or what `lateral.read` takes.
        formulations: see `compare`.
        over: values by axis; see `AXES`.
        progress: called with a line before each comparison.
        options: passed on to `compare`.

    Returns:
        One row per case, combination and formulation: ``case``, one column per axis, then those of `compare`.

    Raises:
        CaseError: a case has faults.
        OptionError: an axis, a value or an option that does not exist.
    """
    axes = dict(over or {})
    tables = []
    for given in cases:
        base = given if isinstance(given, Case) else read(given)
        require(base)  # before its profiles and loads are changed
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            if progress is not None:
                progress(", ".join([base.name, *(f"{k}={v:g}" for k, v in point.items())]))
            table = compare(varied(base, point), formulations, **options).table
            keys = pd.DataFrame({"case": base.name, **point}, index=table.index)
            tables.append(pd.concat([keys, table], axis=1))
    if not tables:
        message = "nothing to sweep: no case, or an axis without values"
        raise OptionError(message)
    return pd.concat(tables, ignore_index=True)


__all__ = ["AXES", "sweep", "varied"]
