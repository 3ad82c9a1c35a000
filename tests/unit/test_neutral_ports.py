"""What is connected between a neutral conductor and ground, where voltages are a hundredth of a phase's and less."""

from __future__ import annotations

import numpy as np
import pytest

from lateral.case import Case
from lateral.devices import Battery, Load, Source
from lateral.devices.base import ShuntDevice
from lateral.network.feeder import Bus, Feeder, Line, Shunt
from lateral.network.horizon import Horizon
from lateral.opf import solve
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
