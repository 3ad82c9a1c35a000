"""Loads in areas that leave the side of their band that was taken: areas are built again, as a central solve is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lateral.areas.partition import Partition, cut
from lateral.areas.run import AreasRun
from lateral.areas.solve import solve_areas
from lateral.case import Case
from lateral.devices import PV, Battery, Load, Source
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.solvers import Status

FORMS = ("current-voltage", "bus-injection")
ABC = (1, 2, 3)
RELATIVE = 1e-7
REPLAY_PU = 1e-6


def feeder() -> Feeder:
    """a - b - c - d - e, each line of 0.3 + 0.7j ohm."""
    coupling = 0.7 * np.eye(3) + 0.3 * np.ones((3, 3))
    buses = tuple(Bus(name=n, conductors=ABC, v_base_kv=2.4, v_min_pu=0.8, v_max_pu=1.2) for n in "abcde")
    lines = tuple(
        Line(
            name=one + other,
            bus_from=one,
            bus_to=other,
            conductors_from=ABC,
            conductors_to=ABC,
            r_ohm=0.3 * coupling,
            x_ohm=0.7 * coupling,
        )
        for one, other in ("ab", "bc", "cd", "de")
    )
    return Feeder(buses=buses, lines=lines)


def loads(at: str, scale: float, **law: object) -> tuple[Load, ...]:
    """One load on each phase, all different."""
    return tuple(
        Load(name=f"{at}{k}", bus=at, terminals=(k, 0), p_kw=scale * 20.0 * k, q_kvar=scale * 7.0 * k, **law)
        for k in ABC
    )


def case(*devices: object, v_pu: float = 1.0, price: tuple[float, ...] = (0.1,)) -> Case:
    n = len(price)
    grid = Source(
        name="grid",
        bus="a",
        conductors=ABC,
        angle_deg=(0.0, -120.0, 120.0),
        v_pu=v_pu,
        r_ohm=np.zeros((3, 3)),
        x_ohm=np.zeros((3, 3)),
        price_import="price",
    )
    return Case(
        name="sides",
        feeder=feeder(),
        devices=(grid, *devices),
        horizon=Horizon.regular(n),
        profiles={"price": np.array(price)},
    )


def charging() -> Case:
    """A battery at the end charges while energy is cheap. Without it loads are 0.04 pu above the lower edge of their
    band; charging brings those at the end below it."""
    law = {"v_min_pu": 0.93, "v_low_pu": 0.5}
    battery = Battery(
        name="b",
        bus="d",
        terminals=(*ABC, 0),
        p_charge_max_kw=900.0,
        p_discharge_max_kw=900.0,
        s_max_kva=900.0,
        energy_kwh=2000.0,
    )
    return case(*loads("c", 1.0, **law), *loads("e", 1.0, **law), battery, price=(0.05, 0.5))
