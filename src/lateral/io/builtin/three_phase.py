"""The IEEE 13- and 123-bus feeders, three-phase, from tables of numbers in the layout of a case folder.

The tables hold the feeders at rated load, with the regulators at the taps of a solved point and with every matrix,
load model and connection of the published data. The day cases add a load profile, PV, batteries and a tariff, and
put the taps where the regulators go at the day's typical load: taps are held fixed, and the peak's taps would leave
the light hours above any usual limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lateral.case import Case
from lateral.io.builtin import published
from lateral.io.overlay import new_horizon, set_limits, set_loads, set_profiles, set_tariff
from lateral.io.rule import DerRule, add_ders
from lateral.io.tables import read_folder
from lateral.network.feeder import Transformer
from lateral.network.horizon import Horizon
from lateral.network.schema import FloatArray

#: taps (winding 2) at 0.70 (123) and 0.75 (13) of rated load, regulators active
_TAPS_13 = {"reg1": 1.05, "reg2": 1.0375, "reg3": 1.05}
_TAPS_123 = {
    "reg1a": 1.01875,
    "reg2a": 1.00625,
    "reg3a": 1.0125,
    "reg3c": 1.00625,
    "reg4a": 1.05,
    "reg4b": 1.025,
    "reg4c": 1.0375,
}
#: local hour from which a price holds, $/kWh: night, day, evening peak, night
_TARIFF = ((0.0, 0.09), (7.0, 0.14), (16.0, 0.28), (21.0, 0.09))


def rated(name: str) -> Case:
    """A feeder at rated load: one step, no PV, no batteries; its voltages are those of OpenDSS."""
    case = read_folder(Path(__file__).parent / "data" / name)
    return case.with_(name=f"{name}-rated")


def _with_taps(case: Case, taps: Mapping[str, float]) -> Case:
    def change(t: Transformer) -> Transformer:
        if t.name not in taps:
            return t
        first, second = t.windings
        return dataclasses.replace(t, windings=(first, dataclasses.replace(second, tap=taps[t.name])))

    transformers = tuple(change(t) for t in case.feeder.transformers)
    return case.with_(feeder=dataclasses.replace(case.feeder, transformers=transformers))


def day_profiles(horizon: Horizon) -> dict[str, FloatArray]:
    """Load (peak 1), sun (peak 1) and price of one day, on a horizon of equal steps from midnight, each shape (T,)."""
    middle = np.cumsum(horizon.step_h) - horizon.step_h / 2
    centre = np.arange(24) + 0.5
    load = np.interp(middle, centre, published.day24("load"), period=24.0)
    sun = np.interp(middle, centre, published.day24("pv"), period=24.0)
    since, level = np.array(_TARIFF).T
    price = level[np.searchsorted(since, middle, side="right") - 1]
    return {"load": load / load.max(), "pv": sun, "price": price}


def _day(name: str, n_steps: int, taps: Mapping[str, float], v_max_pu: float, notes: str) -> Case:
    case = _with_taps(rated(name), taps).with_(name=name, notes=notes)
    case = new_horizon(
        case, Horizon.regular(n_steps, 24.0 / n_steps, start=f"{published.DAY}T00:00", zone=published.ZONE)
    )
    case = set_profiles(case, day_profiles(case.horizon))
    case = set_tariff(set_loads(case, profile="load"), "price")
    return add_ders(set_limits(case, v_min_pu=0.95, v_max_pu=v_max_pu), DerRule())


def ieee13(n_steps: int = 24) -> Case:
    """The 13-bus feeder over a day, in 24 hours or another number of equal steps."""
    # The regulator holds its outlet at 1.0500 pu of a source at 1.0001, which nothing on the feeder can lower.
    return _day(
        "ieee13",
        n_steps,
        _TAPS_13,
        1.06,
        "IEEE 13-bus feeder, three-phase, one day by hours. PV on 20 % and batteries on 30 % of the load buses, 0.33 "
        "of the load, 4 h. Taps fixed where they are at 0.75 of rated load; voltage limits 0.95 to 1.06. Profiles and "
        "tariff are ours.",
    )


def ieee123() -> Case:
    """The 123-bus feeder over a day of 96 quarters of an hour."""
    return _day(
        "ieee123",
        96,
        _TAPS_123,
        1.05,
        "IEEE 123-bus feeder, three-phase, one day by quarters of an hour. PV on 20 % and batteries on 30 % of the "
        "load buses, 0.33 of the load, 4 h. Taps fixed where they are at 0.70 of rated load; voltage limits 0.95 to "
        "1.05. Profiles and tariff are ours.",
    )
