"""Model.update: names, shapes, and the state that must not stay behind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lateral.case import Case
from lateral.devices import PV, Battery, Load, Source
from lateral.errors import OptionError
from lateral.io import read
from lateral.model import Model
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.opf import build, replayed


@pytest.fixture
def case() -> Case:
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1,), conductors_to=(1,), r_ohm=[[0.1]], x_ohm=[[0.2]]
    )
    battery = Battery(name="s", bus="b", p_charge_max_kw=10.0, p_discharge_max_kw=10.0, s_max_kva=12.0, energy_kwh=20.0)
    return Case(
        name="two",
        feeder=Feeder(buses=tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4) for n in "ab"), lines=(line,)),
        devices=(
            Source(name="grid", bus="a", price_import="price"),
            Load(name="x", bus="b", p_kw=20.0, q_kvar=10.0),
            Load(name="y", bus="b", p_kw=5.0, q_kvar=1.0),
            PV(name="p", bus="b", p_rated_kw=8.0, s_max_kva=9.0, q_control="none"),
            battery,
        ),
        horizon=Horizon.regular(3),
        profiles={"price": np.array([0.1, 0.3, 0.2])},
    )


def theta(model: Model, name: str) -> np.ndarray:
    slot = model.program.slots[name]
    return model.program.theta[slot.cells].reshape(len(slot.elements), slot.n_steps)


def test_loads_by_name_and_their_reactive_power_in_proportion(case: Case) -> None:
    model = build(case, "lindistflow").update(loads={"x": np.array([10.0, 20.0, 40.0])})
    np.testing.assert_allclose(theta(model, "load.p_kw"), [[10, 20, 40], [5, 5, 5]])
    np.testing.assert_allclose(theta(model, "load.q_kvar"), [[5, 10, 20], [1, 1, 1]])


def test_a_fixed_reactive_power_stays(case: Case) -> None:
    """In the program and in the case, which the replay runs."""
    changed = [dataclasses.replace(d, model="constant_power_fixed_q") if d.name == "x" else d for d in case.devices]
    model = build(dataclasses.replace(case, devices=tuple(changed)), "lindistflow")
    model.update(loads={"x": np.array([10.0, 20.0, 40.0])})
    np.testing.assert_allclose(theta(model, "load.q_kvar"), [[10, 10, 10], [1, 1, 1]])
    assert model.case.loads[0].q_kvar == 10.0
    model.update(loads_q={"x": np.full(3, 4.0)})
    np.testing.assert_allclose(theta(model, "load.q_kvar")[0], 4.0)
    assert model.case.loads[0].q_kvar == 4.0
    with pytest.raises(OptionError, match="the same at every step"):
        model.update(loads_q={"x": np.array([1.0, 2.0, 3.0])})
    np.testing.assert_allclose(theta(model, "load.q_kvar")[0], 4.0)  # nothing of it was taken


def test_a_load_that_was_zero_gets_its_reactive_power_back(case: Case) -> None:
    model = build(case, "lindistflow").update(loads={"x": np.zeros(3)})
    np.testing.assert_allclose(theta(model, "load.q_kvar")[0], 0.0)
    model.update(loads={"x": np.full(3, 20.0)})
    np.testing.assert_allclose(theta(model, "load.q_kvar")[0], 10.0)
    model.update(loads={"x": np.full(3, 20.0)}, loads_q={"x": np.full(3, 4.0)}).update(loads={"x": np.zeros(3)})
    model.update(loads={"x": np.full(3, 10.0)})
    np.testing.assert_allclose(theta(model, "load.q_kvar")[0], 2.0)  # the last proportion given


def test_prices_alone_need_no_loads(case: Case) -> None:
    bare = case.with_(devices=tuple(d for d in case.devices if not isinstance(d, Load)))
    model = build(bare, "lindistflow").update(prices=0.5)
    np.testing.assert_allclose(theta(model, "source.price_import"), 0.5)


def test_more_sun_than_inverter_is_clipped_as_in_a_build(case: Case) -> None:
    model = build(case, "lindistflow").update(pv={"p": np.array([4.0, 9.0, 30.0])})
    np.testing.assert_allclose(theta(model, "pv.p_available_kw"), [[4, 9, 9]])


def test_initial_energy_by_name_reaches_case_and_schedule(case: Case) -> None:
    model = build(case, "lindistflow").update(initial={"s": 4.0})
    assert model.case.batteries[0].soc_initial == pytest.approx(0.2)
    r = model.solve()
    assert r.value("battery.energy")[0, -1] == pytest.approx(4.0, abs=1e-4)


def test_voltage_and_export_price_reach_the_case(case: Case) -> None:
    sells = case.with_(
        devices=tuple(dataclasses.replace(d, price_export=0.01) if isinstance(d, Source) else d for d in case.devices)
    )
    model = build(sells, "lindistflow").update_data(
        {"source.v_pu_sq": np.full((1, 3), 1.02**2), "source.price_export.grid": np.full((1, 3), 0.05)}
    )
    source = model.case.sources[0]
    np.testing.assert_allclose(model.case.series(source.v_pu), 1.02)
    np.testing.assert_allclose(model.case.series(source.price_export), 0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"loads": {"z": np.zeros(3)}}, "no load 'z'"),
        ({"loads": np.zeros((3, 3))}, r"\(3, 3\).*\(2, 3\)"),
        ({"initial": {"t": 1.0}}, "no battery 't'"),
        ({"pv": {"q": np.zeros(3)}}, "no pv 'q'"),
        ({"prices": np.nan}, "not finite"),
        ({"prices": [0.1, 0.2]}, r"price_import.*\(2,\).*\(1, 3\)"),
        ({"prices": "cheap"}, "must be numbers, not 'cheap'"),
        ({"loads": {"x": [1.0, 2.0]}}, r"'x' of 'load.p_kw'.*\(2,\).*\(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(case: Case, given: dict[str, object], match: str) -> None:
    model = build(case, "lindistflow")
    before = model.program
    with pytest.raises(OptionError, match=match):
        model.update(**given)  # type: ignore[arg-type]
    assert model.program is before
    assert model.case is case or model.case.hash == case.hash


def test_update_of_data_that_the_case_lacks(case: Case) -> None:
    bare = case.with_(devices=tuple(d for d in case.devices if not isinstance(d, Battery)))
    with pytest.raises(OptionError, match="battery"):
        build(bare, "lindistflow").update(initial={"s": 1.0})


def test_replay_sees_the_new_data() -> None:
    """The published case with 20 % more load: solved by update, replayed with the new load, equal to a fresh solve."""
    case = read("ieee123-t5")
    model = build(case, "soc")
    slot = model.program.slots["load.p_kw"]
    more = 1.2 * model.program.theta[slot.cells].reshape(len(slot.elements), -1)
    r = replayed(model.update(loads=more, prices=np.array([0.1, 0.2, 0.1, 0.3, 0.1])).solve())
    assert r.ok
    assert r.replay is not None
    assert r.replay.summary()["max_dv_pu"] < 1e-5
    fresh = build(r.case, "soc").solve()
    assert r.objective == pytest.approx(fresh.objective, rel=1e-6)
