"""What is connected between a neutral conductor and ground, where voltages are a hundredth of a phase's and less."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

from lateral.case import Case
from lateral.devices import Battery, Load, Source
from lateral.devices.base import ShuntDevice
from lateral.network.feeder import Bus, Feeder, Line, Shunt
from lateral.network.horizon import Horizon
from lateral.opf import solve
from lateral.plots.data import View
from lateral.plots.schedule import bus_prices
from lateral.results.result import Result

EXACT = ("current-voltage", "bus-injection", "linearised")
Z4 = 0.04 * np.eye(4) + 0.02 * np.ones((4, 4))


def four_wire(*devices: ShuntDevice) -> Case:
    """A line of four conductors, its neutral grounded at both ends, an uneven wye of loads to the neutral."""
    ends = {"conductors_from": (1, 2, 3, 4), "conductors_to": (1, 2, 3, 4)}
    feeder = Feeder(
        buses=tuple(Bus(name=n, conductors=(1, 2, 3, 4), v_base_kv=0.23, v_min_pu=0.0, v_max_pu=2.0) for n in "ab"),
        lines=(Line(name="l", bus_from="a", bus_to="b", r_ohm=Z4, x_ohm=0.5 * Z4, **ends),),  # type: ignore[arg-type]
        shunts=tuple(
            Shunt(name=n, bus=n, conductors=(4,), g_us=np.array([[5e5]]), b_us=np.zeros((1, 1))) for n in "ab"
        ),
    )
    source = Source(
        name="grid", bus="a", conductors=(1, 2, 3), angle_deg=(0.0, -120.0, 120.0), price_import=0.1,
        r_ohm=np.zeros((3, 3)), x_ohm=np.zeros((3, 3)),
    )  # fmt: skip
    loads = tuple(Load(name=f"d{k}", bus="b", terminals=(k, 4), p_kw=4.0 * k, q_kvar=1.0) for k in (1, 2, 3))
    return Case(name="four", feeder=feeder, devices=(source, *loads, *devices), horizon=Horizon.regular(1))


BATTERY = Battery(
    name="s", bus="b", terminals=(1, 2, 3, 4), phases="free", p_charge_max_kw=20.0, p_discharge_max_kw=20.0,
    s_max_kva=20.0, energy_kwh=10.0,
)  # fmt: skip
NONE = Load(name="none", bus="b", terminals=(4, 0), p_kw=0.0)


def solved(case: Case, formulation: str, objective: str = "loss") -> Result:
    result = solve(case, formulation, objective, with_replay=False)
    assert result.ok, result.status_text
    return result


@pytest.mark.parametrize("formulation", EXACT)
def test_a_load_of_nothing_to_the_neutral_changes_nothing(formulation: str) -> None:
    """A converter that evens out the phases takes the neutral to less than a hundredth of a pu, far below where it is
    without: nothing may keep it up, but the law of a load there is read."""
    plain, with_load = (solved(four_wire(BATTERY, *more), formulation) for more in ((), (NONE,)))
    neutral = plain.elements("bus.vmag_sq").index("b.4")
    assert np.sqrt(plain.value("bus.vmag_sq")[neutral, 0]) < 5e-3
    assert solved(four_wire(), formulation).value("bus.vmag_sq")[neutral, 0] > 1e-4
    assert with_load.objective == pytest.approx(plain.objective, rel=1e-6)


@pytest.mark.parametrize("formulation", EXACT)
def test_a_price_between_phase_and_neutral_is_a_finite_difference(formulation: str) -> None:
    """The price of a kilowatt from a phase to the neutral is that of its current at both, see `docs/symbols.md`."""
    base = four_wire()
    r = solved(base, formulation, "cost")
    at = {name: k for k, name in enumerate(r.elements("bus.vmag_sq"))}
    v = np.sqrt(r.value("bus.vmag_sq")[:, 0]) * np.exp(1j * np.deg2rad(r.value("bus.vang")[:, 0]))
    i, j = at["b.1"], at["b.4"]
    p, q = r.dual("bus.p_balance")[:, 0], r.dual("bus.q_balance")[:, 0]
    u = v[i] - v[j]
    for s, what in ((1.0, {"p_kw": 0.01}), (1.0j, {"p_kw": 0.0, "q_kvar": 0.01})):
        a, b = v[i] * s / u, v[j] * s / u
        price = p[i] * a.real + q[i] * a.imag - p[j] * b.real - q[j] * b.imag
        costs = []
        for sign in (1.0, -1.0):
            more = Load(name="more", bus="b", terminals=(1, 4), **{k: sign * kw for k, kw in what.items()})
            costs.append(solved(four_wire(more), formulation, "cost").cost)
        # a linear program's duals are those of its last round, whose point is 1e-5 off
        tolerance = {"rel": 1e-3, "abs": 1e-4} if formulation == "linearised" else {"rel": 1e-5, "abs": 1e-7}
        assert price == pytest.approx((costs[0] - costs[1]) / 0.02, **tolerance)
    assert abs(p[j]) > 0.02


def test_a_neutral_at_ground_has_no_price() -> None:
    """NaN, and no warning of the division."""
    case = four_wire()
    shunts = tuple(dataclasses.replace(s, g_us=np.array([[1e9]])) for s in case.feeder.shunts)
    r = solved(case.with_(feeder=dataclasses.replace(case.feeder, shunts=shunts)), "current-voltage", "cost")
    grounded = r.value("bus.vmag_sq") < 1e-8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(np.isnan(r.dual("bus.p_balance")), grounded)
        np.testing.assert_array_equal(np.isnan(r.dual("bus.q_balance")), grounded)
    assert [e for e, one in zip(r.elements("bus.vmag_sq"), grounded[:, 0], strict=True) if one] == ["a.4", "b.4"]


def test_a_bus_with_a_neutral_has_the_price_of_its_phases() -> None:
    """The map of prices has the mean of the phases: with the neutral's it was a quarter less at every such bus."""
    r = solved(four_wire(), "current-voltage", "cost")
    price = dict(zip(r.elements("bus.vmag_sq"), r.dual("bus.p_balance")[:, 0], strict=True))
    names, mean, _ = bus_prices(View(r))
    for bus in "ab":
        assert mean[names.index(bus), 0] == pytest.approx(np.mean([price[f"{bus}.{k}"] for k in (1, 2, 3)]), rel=1e-9)
