"""Three-phase feeders that are built in, and masters with a day and with DERs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import lateral
from benchmarks.registry import BenchModel
from lateral.case import Case
from lateral.io import opendss
from lateral.io.overlay import new_horizon, resample, set_limits, set_loads, set_profiles, set_tariff
from lateral.io.rule import DerRule, add_ders


def day(name: str, n_steps: int) -> Case:
    """A built-in case with its day in so many steps."""
    return resample(lateral.read(name), n_steps)


def with_ders(master: Path, limits: tuple[float, float], n_steps: int = 24) -> Case:
    """A feeder with PV at 20 % and batteries at 10 % of its load buses, voltage limits (pu), and a day of load, sun and
    price; with one step its snapshot, full sun, one price and no batteries."""
    case = opendss.read(master)[0]
    if n_steps > 1:
        source = day("ieee123", n_steps)
        case = set_profiles(new_horizon(case, source.horizon), source.profiles)
        case = set_tariff(set_loads(case, profile="load"), "price")
        rule = DerRule(pv_share=0.2, battery_share=0.1)
    else:
        case = set_tariff(case, 0.2)
        rule = DerRule(pv_share=0.2, battery_share=0.0, pv_profile="")
    return add_ders(set_limits(case, v_min_pu=limits[0], v_max_pu=limits[1]), rule)


def _three_phase(n_steps: int, size: str) -> BenchModel:
    return BenchModel(
        name=f"ieee123-{n_steps}/lindist3flow",
        size=size,
        case=partial(day, "ieee123", n_steps),
        warm_up=partial(day, "ieee13", 2),
        formulation="lindist3flow",
        repeats=5,
    )


MODELS = (_three_phase(24, "small"), _three_phase(96, "medium"))
