"""Objectives, each with an optimum that can be checked by hand, and their sums."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lateral
from lateral import objectives
from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Source
from lateral.errors import OptionError
from lateral.io import read
from lateral.network.feeder import Bus, Feeder, Line, Shunt
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.results.residuals import objective_size


@pytest.fixture
def case() -> Case:
    """Load 10 and 30 kW for an hour each, price 0.1 and 0.2; PV of 8 kW that may be cut; a lossless 20 kWh battery."""
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1,), conductors_to=(1,), r_ohm=[[0.1]], x_ohm=[[0.1]]
    )
    battery = Battery(
        name="s",
        bus="b",
        p_charge_max_kw=20.0,
        p_discharge_max_kw=20.0,
        s_max_kva=30.0,
        energy_kwh=20.0,
        eta_charge=1.0,
        eta_discharge=1.0,
        q_control="none",
    )
    return Case(
        name="two",
        feeder=Feeder(buses=tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4) for n in "ab"), lines=(line,)),
        devices=(
            Source(name="grid", bus="a", price_import="price"),
            Load(name="x", bus="b", p_kw=10.0, profile="day"),
            PV(name="p", bus="b", p_rated_kw=8.0, s_max_kva=9.0, q_control="none", curtailable=True),
            battery,
        ),
        horizon=Horizon.regular(2),
        profiles={"price": np.array([0.1, 0.2]), "day": np.array([1.0, 3.0])},
    )


def run(case: Case, objective: object) -> object:
    r = build(case, "lindistflow", objective, loss_term=False).solve()  # type: ignore[arg-type]
    assert r.ok, r.status_text
    return r


def test_cost(case: Case) -> None:
    """Net load 2 and 22; the battery may shift 10 kWh: 12 at 0.1 and 12 at 0.2 = 3.6 $."""
    r = run(case, "cost")
    assert r.cost == pytest.approx(3.6, abs=1e-5)


def test_peak(case: Case) -> None:
    """24 kWh in two hours: at best 12 kW."""
    r = run(case, "peak")
    assert r.objective == pytest.approx(12.0, abs=1e-4)
    assert r.p_source_kw.max() == pytest.approx(12.0, abs=1e-3)


def test_demand_is_net(case: Case) -> None:
    """Loads of 40 kWh, PV of 50 kW in both hours: 60 kWh go out and count as 60 kWh less."""
    devices = tuple(
        dataclasses.replace(d, p_rated_kw=50.0, s_max_kva=60.0) if isinstance(d, PV) else d for d in case.devices
    )
    r = run(case.with_(devices=devices), "demand")
    assert r.objective == pytest.approx(-60.0, abs=1e-3)
    assert (r.energy_import_kwh, r.energy_export_kwh) == pytest.approx((0.0, 60.0), abs=1e-3)


def test_loss(case: Case) -> None:
    """Losses r P^2 are least when P is flat, 12 kW: 2 h of 0.1 ohm (12 / 2.4)^2 A^2 / 1000 = 0.005 kWh."""
    r = run(case, "loss")
    np.testing.assert_allclose(r.p_source_kw, [12, 12], atol=0.05)
    assert r.objective == pytest.approx(0.005, rel=1e-3)


def test_curtailment(case: Case) -> None:
    """Without room for export: load 10 and 30 cut to 1 kW each leave 7 kW to cut in an hour, none of it needed."""
    assert run(case, "curtailment").objective == pytest.approx(0.0, abs=1e-5)
    small = [
        dataclasses.replace(d, p_kw=1.0, profile="")
        if isinstance(d, Load)
        else dataclasses.replace(d, p_export_max_kw=0.0)
        if isinstance(d, Source)
        else d
        for d in case.devices
        if not isinstance(d, Battery)
    ]
    r = run(case.with_(devices=tuple(small)), "curtailment")
    assert r.objective == pytest.approx(14.0, abs=1e-4)


def test_voltage_deviation(case: Case) -> None:
    """v_b = 1 - 2 r P is nearest to 1 at 12 kW in both hours (least squares of a fixed sum), all sun taken.

    The optimum is 1e-7 h, far below what a gap is measured against: 0.5 kW is how flat it is.
    """
    r = run(case, "vdev")
    np.testing.assert_allclose(r.p_source_kw, [12, 12], atol=0.5)
    per_hour = (2 * 0.1 / 5.76 * 0.012) ** 2 / 2  # the mean of two nodes, one of them at 1
    assert r.objective == pytest.approx(2 * per_hour, rel=5e-3)


def test_sum_and_weights(case: Case) -> None:
    """0.3 $/kW on the peak outweighs nothing: both want 12 and 12, so 3.6 + 0.3 * 12."""
    r = run(case, "cost+0.3*peak")
    assert r.objective == pytest.approx(3.6 + 3.6, abs=1e-4)
    total = objectives.get("cost") + 0.3 * objectives.get("peak")
    assert run(case, total).objective == pytest.approx(r.objective, abs=1e-6)
    assert run(case, 2 * objectives.get("cost")).objective == pytest.approx(7.2, abs=1e-4)


def test_losses_alone_of_a_three_phase_day() -> None:
    """All costs are quadratic there, and alpha is next to nothing: not at the iteration limit, and under `cost`'s."""
    day = read("ieee13")
    least, cheapest = (build(day, "lindist3flow", objective).solve() for objective in ("loss", "cost"))
    assert least.ok
    assert least.solution.solver == "clarabel"
    assert least.losses_kwh < 0.9 * cheapest.losses_kwh


@pytest.mark.parametrize("name", ["coost", "cost+pek", "x*cost", ""])
def test_names_that_do_not_exist(name: str) -> None:
    with pytest.raises(OptionError):
        objectives.get(name)


@pytest.mark.parametrize("decision", ["fixed", "day"], ids=["native", "ipopt"])
def test_losses_beside_a_stiff_line_are_an_optimum_to_what_the_status_says(decision: str) -> None:
    """A line of 1 mohm makes entries of a thousand in the quadratic part; neither they nor the price of a day may hide
    what the losses could still fall by. What there is to gain is known from the first-order form in rounds."""

    def line(name: str, a: str, b: str, ohm: float) -> Line:
        own = np.full((3, 3), ohm / 4) + np.eye(3) * 0.75 * ohm
        phases = (1, 2, 3)
        return Line(
            name=name, bus_from=a, bus_to=b, conductors_from=phases, conductors_to=phases, r_ohm=own, x_ohm=2 * own
        )

    wye, none = (1, 2, 3, 0), np.zeros((3, 3))
    sun = {"bus": "c", "p_rated_kw": 200.0, "s_max_kva": 220.0, "curtailable": True}
    bank = Capacitor(name="k", bus="c", terminals=wye, q_kvar=5.0, q_total_kvar=60.0, decision=decision)
    case = Case(
        name="stiff",
        feeder=Feeder(
            buses=tuple(Bus(name=n, conductors=(1, 2, 3), v_base_kv=7.2, v_min_pu=0.9, v_max_pu=1.1) for n in "abc"),
            lines=(line("short", "a", "b", 1e-3), line("long", "b", "c", 0.5)),
        ),
        devices=(
            Source(
                name="g",
                bus="a",
                conductors=(1, 2, 3),
                angle_deg=(0, -120, 120),
                price_import=0.2,
                r_ohm=none,
                x_ohm=none,
            ),
            Load(name="x", bus="c", terminals=wye, p_kw=90.0, q_kvar=30.0),
            Load(name="y", bus="b", terminals=(1, 0), p_kw=20.0, q_kvar=5.0),
            Load(name="z", bus="c", terminals=(2, 0), p_kw=30.0, q_kvar=5.0),
            PV(name="p", terminals=wye, phases="free", **sun),
            PV(name="b", terminals=wye, **sun | {"bus": "b"}),
            bank,
        ),
        horizon=Horizon.regular(2),
    )
    exact = build(case, "current-voltage", "cost+loss").solve()
    other = lateral.solve(case, "linearised", "cost+loss", with_replay=False)
    assert exact.ok
    assert other.ok
    assert ("ipopt" in exact.choices[0]) is (decision == "day")
    assert exact.objective == pytest.approx(other.objective, rel=2e-8)


@pytest.mark.parametrize("name", ["cost", "loss", "vdev", "curtailment", "peak", "demand"])
def test_a_gap_is_relative_to_the_objective_or_to_its_floor(case: Case, name: str) -> None:
    """Whatever the coefficients of the program are."""
    result = build(case, "nonlinear", name).solve()
    floor = objectives.get(name).floor
    assert floor > 0.0
    x = np.zeros_like(result.solution.x)
    assert objective_size(result.program, x) == max(abs(result.program.objective(x)), floor)


@pytest.mark.parametrize("formulation", ["current-voltage", "bus-injection", "linearised"])
def test_a_neutral_conductor_deviates_from_nothing(formulation: str) -> None:
    """Its voltage is zero by purpose; counted, it would be driven up, by 1/4 h a step for 1e-4 h of the phases."""
    own = 0.2 * np.eye(4) + 0.05
    wires = (1, 2, 3, 4)
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=wires, conductors_to=wires, r_ohm=own, x_ohm=2 * own
    )
    ground = np.diag([0.0, 0.0, 0.0, 1e6])
    none = np.zeros((3, 3))
    case = Case(
        name="neutral",
        feeder=Feeder(
            buses=tuple(Bus(name=n, conductors=wires, v_base_kv=0.23, v_min_pu=0.8, v_max_pu=1.2) for n in "ab"),
            lines=(line,),
            shunts=(Shunt(name="g", bus="a", conductors=wires, g_us=ground, b_us=np.zeros((4, 4))),),
        ),
        devices=(
            Source(
                name="g",
                bus="a",
                conductors=(1, 2, 3),
                angle_deg=(0, -120, 120),
                v_pu=1.02,
                r_ohm=none,
                x_ohm=none,
            ),
            Load(name="x", bus="b", terminals=(1, 4), p_kw=4.0, q_kvar=1.0),
            PV(name="p", bus="b", terminals=(2, 4), p_rated_kw=4.0, s_max_kva=5.0, curtailable=True),
        ),
        horizon=Horizon.regular(1),
    )
    result = lateral.solve(case, formulation, "vdev")
    assert result.ok
    v = {node: float(np.abs(v[0])) for node, v in zip(result.replay.nodes, result.replay.v, strict=True)}  # type: ignore[union-attr]
    phases = np.array([size for (_, conductor), size in v.items() if conductor != 4])
    assert len(phases) == 6
    assert result.objective == pytest.approx(np.mean((phases**2 - 1) ** 2), rel=1e-5)
