"""Voltages so low that a load is its nominal impedance (OpenDSS's vlowpu), by hand and in the simulator.

A load of 300 kW and 150 kvar behind 0.5 + j1 ohm at 2.4 kV (``Z_base = 5.76 ohm`` of 1 MVA) at a source of 0.3 pu:
under 0.5 pu any law is the admittance ``0.3 - j0.15``, so that ``|V| = 0.3 / |1 + z (0.3 - j0.15)|``.
"""

from __future__ import annotations

import numpy as np
import pytest

from lateral.case import Case
from lateral.devices import Load, Source
from lateral.devices.load import MODELS
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.opf import build, replayed
from lateral.replay import Replay
from lateral.results.result import Result

Y = 0.3 - 0.15j
Z = (0.5 + 1.0j) / 5.76


def case(v_source: float, *, model: str = "constant_power", v_low_pu: float = 0.5) -> Case:
    law = {"zip_p": (0.4, 0.3, 0.3), "zip_q": (0.2, 0.5, 0.3), "cvr_p": 0.8, "cvr_q": 1.7}
    load = Load(
        name="x", bus="b", p_kw=300.0, q_kvar=150.0, model=model, v_min_pu=0.8, v_max_pu=1.2, v_low_pu=v_low_pu, **law
    )  # type: ignore[arg-type]
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1,), conductors_to=(1,),
        r_ohm=np.full((1, 1), 0.5), x_ohm=np.full((1, 1), 1.0),
    )  # fmt: skip
    grid = Source(name="grid", bus="a", v_pu=v_source, price_import=0.1)
    buses = tuple(Bus(name=b, conductors=(1,), v_base_kv=2.4, v_min_pu=0.0, v_max_pu=1.5) for b in "ab")
    return Case(
        name="low",
        feeder=Feeder(buses=buses, lines=(line,)),
        devices=(grid, load),
        horizon=Horizon.regular(1),
        profiles={},
    )


def v_b(r: Result) -> float:
    return float(np.sqrt(r.value("bus.vmag_sq")[r.elements("bus.vmag_sq").index("b.1"), 0]))


@pytest.mark.parametrize("formulation", ["current-voltage", "bus-injection", "linearised"])
@pytest.mark.parametrize("model", MODELS)
def test_far_below_its_band_a_load_is_its_nominal_impedance(model: str, formulation: str) -> None:
    want = 0.3 / abs(1.0 + Z * Y)
    r = replayed(build(case(0.3, model=model), formulation).solve())
    assert r.ok, r.status_text
    assert v_b(r) == pytest.approx(want, abs=1e-8)
    assert r.p_source_kw[0] == pytest.approx(1000.0 * (want**2 * Y.real + Z.real * abs(want * Y) ** 2), abs=1e-4)
    assert isinstance(r.replay, Replay)
    assert r.replay.errors is not None
    assert r.replay.errors.max_dv_pu < 1e-6


@pytest.mark.parametrize("formulation", ["current-voltage", "bus-injection"])
def test_a_load_that_falls_that_low_after_the_build_is_looked_at(formulation: str) -> None:
    """Built at 0.7 pu, between v_low and v_min; solved at 0.3 and again at 0.7, each as it is built there."""
    model = build(case(0.7), formulation)
    high = v_b(model.solve())
    assert high > 0.5
    assert v_b(model.update_data({"source.v_pu_sq": np.full((1, 1), 0.09)}).solve()) == pytest.approx(
        0.3 / abs(1.0 + Z * Y), abs=1e-8
    )
    assert v_b(model.update_data({"source.v_pu_sq": np.full((1, 1), 0.49)}).solve()) == pytest.approx(high, abs=1e-7)
