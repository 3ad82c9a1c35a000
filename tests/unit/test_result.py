"""Result: dual dimensions, phantom losses that are said, tables with units."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lateral.case import Case
from lateral.devices import Battery, Load, Source
from lateral.errors import OptionError
from lateral.io import read
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.opf import build, dispatch_of, prediction_of, replayed, solve
from lateral.replay import replay
from lateral.results.result import Result
from lateral.solvers.base import Status


@pytest.fixture
def case() -> Case:
    """Price 0.1 for half an hour, then 0.4 for two hours; a lossless 10 kWh battery that is half full."""
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1,), conductors_to=(1,), r_ohm=[[1e-3]], x_ohm=[[1e-3]]
    )
    battery = Battery(
        name="s",
        bus="b",
        p_charge_max_kw=4.0,
        p_discharge_max_kw=50.0,
        s_max_kva=60.0,
        energy_kwh=10.0,
        eta_charge=1.0,
        eta_discharge=1.0,
    )
    return Case(
        name="two",
        feeder=Feeder(buses=tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4) for n in "ab"), lines=(line,)),
        devices=(Source(name="grid", bus="a", price_import="price"), Load(name="x", bus="b", p_kw=20.0), battery),
        horizon=dataclasses.replace(Horizon.regular(2), step_h=np.array([0.5, 2.0])),
        profiles={"price": np.array([0.1, 0.4])},
    )


def test_prices_are_per_kwh_whatever_the_step(case: Case) -> None:
    """A kWh drawn costs the price of its step; one more kWh stored saves 0.4 (it charges at its limit)."""
    r = build(case, "lindistflow", loss_term=False).solve()
    np.testing.assert_allclose(r.dual("bus.p_balance")[1], [0.1, 0.4], atol=1e-6)
    np.testing.assert_allclose(np.abs(r.dual("battery.storage")[0]), [0.4, 0.4], atol=1e-5)
    # 2 kWh stored at 0.1 and given back at 0.4
    assert r.cost == pytest.approx(0.1 * 12 + 0.4 * 38, abs=1e-6)
    assert r.energy_import_kwh == pytest.approx(50.0, abs=1e-5)


@pytest.mark.parametrize(("objective", "money"), [("cost", "$"), ("loss", "objective")])
def test_units_of_prices(case: Case, objective: str, money: str) -> None:
    data = build(case, "lindistflow", objective).solve().dataset
    assert data["bus.p_price"].attrs["units"] == f"{money}/kWh"
    assert data["bus.q_price"].attrs["units"] == f"{money}/kvarh"


@pytest.mark.filterwarnings("error")
def test_a_step_that_counts_nothing_has_no_price(case: Case) -> None:
    """The second step of weight 0 costs nothing: a price per kWh of it does not exist, and is not infinite."""
    r = build(case.with_(horizon=dataclasses.replace(case.horizon, weight=np.array([1.0, 0.0])))).solve()
    prices = r.dataset["bus.p_price"].to_numpy()
    np.testing.assert_allclose(prices[:, 0], 0.1, atol=1e-3)
    assert np.all(np.isnan(prices[:, 1]))


def test_export_earns_its_own_price(case: Case) -> None:
    """30 kW of fixed generation: 20 at night is bought at 0.1, 10 over the load is sold at half of the price."""
    devices = [
        dataclasses.replace(d, price_export="sell") if isinstance(d, Source) else dataclasses.replace(d, profile="net")
        for d in case.devices
        if not isinstance(d, Battery)
    ]
    profiles = {**case.profiles, "sell": 0.5 * case.profiles["price"], "net": np.array([1.0, -0.5])}
    r = build(case.with_(devices=tuple(devices), profiles=profiles), "lindistflow", loss_term=False).solve()
    assert r.cost == pytest.approx(0.1 * 20 * 0.5 - 0.2 * 10 * 2.0, abs=1e-6)


def test_phantom_drop_behind_a_source_is_counted_and_said(case: Case) -> None:
    """Impedance loads draw less at less voltage; in a cone the source's current grows for nothing: the gap says so."""
    devices = [
        dataclasses.replace(d, x_ohm=[[0.2]])
        if isinstance(d, Source)
        else dataclasses.replace(d, model="constant_impedance")
        for d in case.devices
        if not isinstance(d, Battery)
    ]
    odd = case.with_(devices=tuple(devices))
    r = build(odd, "soc").solve()
    exact = build(odd, "nonlinear").solve()
    assert r.ok
    assert r.objective < 0.99 * exact.objective
    assert r.max_relaxation_gap > 1e-2
    assert "not tight" in r.status_text
    assert exact.max_relaxation_gap < 1e-6
    # a bound is what was solved to the end and is convex, and nothing else is called one
    assert r.is_bound
    assert "it is a bound, --recover" in r.status_text
    assert r.status_short.startswith("optimal in a relaxation that is not tight: it bounds schedules and is none; ")
    # what the screen shows below it, each said once
    assert r.points[0].startswith("the relaxation is not tight: ")
    assert not any("--recover" in point or point.startswith("but ") for point in r.points)
    assert exact.status_short == exact.status_text
    assert exact.points == ()
    # ... and of what is held or approximate it is one only there
    some = dataclasses.replace(r, program=dataclasses.replace(r.program, held=("the tap of r is held", "so is s", "t")))
    assert "it is a bound only for what it holds (the tap of r is held, and 2 more), --recover" in some.status_text
    unfinished = dataclasses.replace(r, status=Status.INACCURATE)
    assert not unfinished.is_bound
    assert "not tight" in unfinished.status_text
    assert "bound, --recover" not in unfinished.status_text
    assert not exact.is_bound
    # what an exact model violates is a violation and no relaxation
    more = exact.solution.x.copy()
    more[next(b for b in exact.program.variables if b.name == "branch.imag_sq").cells] += 1.0
    off = dataclasses.replace(exact, status=Status.INACCURATE, solution=dataclasses.replace(exact.solution, x=more))
    assert off.warnings == ()


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.638, "63.8 % of its losses do not exist (gap"),
        (-2.881, "its losses are 100 kWh, too little for its currents, which would lose 388.1 kWh (gap"),
        (1e-5, "its squares of currents and voltages do not fit together, though its losses in sum do (gap"),
    ],
)
def test_losses_of_a_loose_relaxation_are_too_many_or_too_few(
    case: Case, share: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """388.1 = 100 (1 + 2.881): what the relaxation counts less the losses that do not exist, which are negative."""
    r = build(case, "soc").solve()
    monkeypatch.setattr(Result, "relaxation_gap_share", property(lambda _: share))
    monkeypatch.setattr(Result, "max_relaxation_gap", 0.62)
    monkeypatch.setattr(Result, "max_law_gap", 0.02)
    monkeypatch.setattr(Result, "losses_kwh", 100.0)
    text = r.status_text
    assert f"the relaxation is not tight: {said} 6.2e-01 pu)" in text
    assert "loads that follow the voltage are up to 2 % off their law, which the relaxation allows" in text
    assert text.count("--recover makes an exact schedule of it") == 1


def test_losses_of_currents_are_what_the_currents_lose(case: Case) -> None:
    """Half of a current's square taken away: the cone's gap is minus half of its losses, and they are 2 x as many."""
    r = build(case, "soc").solve()
    x = r.solution.x.copy()
    x[next(b for b in r.program.variables if b.name == "branch.imag_sq").cells] *= 0.5
    off = dataclasses.replace(r, solution=dataclasses.replace(r.solution, x=x))
    assert off.losses_kwh * (1.0 - off.relaxation_gap_share) == pytest.approx(r.losses_kwh, rel=1e-3)


@dataclasses.dataclass(frozen=True)
class Played:
    """A replay that says what it is told to."""

    max_dv_pu: float | None
    n_not_converged: int = 0
    seconds: float = 0.0
    beyond: tuple[tuple[object, ...], ...] = ()

    def summary(self) -> dict[str, object]:
        return {"max_dv_pu": self.max_dv_pu, "worst_node": "b.1", "n_not_converged": self.n_not_converged}

    def violations(self, tolerance_pu: float) -> pd.DataFrame:
        columns = ["bus", "conductor", "step", "time", "v_pu", "limit_pu"]
        frame = pd.DataFrame(list(self.beyond), columns=columns)
        return frame[(frame["v_pu"] - frame["limit_pu"]).abs() > tolerance_pu]

    def other_violations(self, tolerance_pu: float, tolerance_share: float) -> pd.DataFrame:
        return pd.DataFrame(columns=["quantity", "element", "step", "time", "value", "limit", "unit"])

    def inverters_outside_window(self) -> pd.DataFrame:
        return pd.DataFrame(columns=["device", "step", "time", "v_pu", "limit_pu"])


def test_a_replay_that_an_exact_model_is_away_from_is_said(case: Case) -> None:
    exact = build(case, "nonlinear").solve()
    assert exact.ok
    away = dataclasses.replace(exact, replay=Played(0.251))
    assert "OpenDSS has other voltages, by up to 0.25 pu at b.1" in away.status_text
    assert "OpenDSS has other voltages" in away.summary()["status_text"]
    assert dataclasses.replace(exact, replay=Played(9e-5)).warnings == exact.warnings
    assert dataclasses.replace(exact, replay=Played(None)).warnings == exact.warnings
    lost = dataclasses.replace(exact, replay=Played(1e-9, n_not_converged=2))
    assert "OpenDSS does not converge at 2 steps" in lost.status_text


def test_a_replay_that_no_linear_model_or_relaxation_should_be_away_from_is_said(case: Case) -> None:
    """What a linear model neglects is no fault of its schedule, up to what is usual."""
    linear, relaxed = build(case, "lindistflow").solve(), build(case, "soc").solve()
    for r in (linear, relaxed):
        assert dataclasses.replace(r, replay=Played(9e-3)).warnings == r.warnings
    text = dataclasses.replace(linear, replay=Played(0.251)).status_text
    assert "OpenDSS has other voltages, by up to 0.25 pu at b.1, more than the 0.01 pu usual" in text
    text = dataclasses.replace(relaxed, replay=Played(0.251, n_not_converged=1)).status_text
    assert "by up to 0.25 pu at b.1: those of the relaxation are no schedule's" in text
    assert "OpenDSS does not converge at 1 step" in text


@pytest.mark.parametrize("formulation", ["lindistflow", "soc", "nonlinear"])
def test_a_limit_that_is_violated_in_the_replay_is_said(case: Case, formulation: str) -> None:
    r = build(case, formulation).solve()
    bus, conductor = r.network.nodes[-1]
    high, time = case.feeder.bus[bus].v_max_pu, case.horizon.times[1]

    def played(*rows: tuple[object, ...]) -> tuple[str, ...]:
        return dataclasses.replace(r, replay=Played(1e-5, beyond=rows)).warnings

    mine = played((bus, conductor, 1, time, high + 2e-3, high), (bus, conductor, 0, time, high + 1e-3, high))
    assert mine == (
        *r.warnings,
        f"but in OpenDSS 2 voltages are beyond limits that the model keeps, worst {high + 2e-3:.5g} pu at "
        f"{bus}.{conductor} at {time:%H:%M}, limit {high:g}",
    )
    assert played((bus, conductor, 1, time, high + 9e-5, high)) == r.warnings  # rounding of two models
    assert played(("elsewhere", 2, 1, time, 0.0, 0.9)) == r.warnings  # a neutral, which the model leaves out
    # what the model says itself is no news: the voltage of a source is given
    v = float(np.sqrt(r.value("bus.vmag_sq")[-1, 1]))
    assert played((bus, conductor, 1, time, v, v - 2e-3)) == r.warnings


def test_a_relaxation_whose_schedule_violates_limits_says_so() -> None:
    """Of `soc3` on the 13 nodes OpenDSS confirms neither voltages nor limits; of a linear form it does."""
    loose = solve(read("ieee13"), "soc3")
    assert loose.replay is not None
    own = loose.violations
    assert loose.ok
    assert own[own["which"] == "optimum"].empty
    n = loose.replay.summary()["n_violations"]
    assert n > 0
    assert f"in OpenDSS {n} voltages are beyond limits that the model keeps, worst" in loose.status_text
    assert "OpenDSS has other voltages, by up to 0.051 pu at" in loose.status_text
    linear = solve(read("ieee13"), "lindist3flow")
    assert linear.warnings == ()


def test_a_real_replay_names_the_node_that_is_furthest_away(case: Case) -> None:
    """The replay of the schedule with a prediction of 0.01 pu more at bus b."""
    exact = build(case, "nonlinear").solve()
    said = prediction_of(exact)
    v_pu = said.v_pu + np.array([[0.0], [0.01]])
    run = replay(exact.case, dispatch_of(exact), predicted=dataclasses.replace(said, v_pu=v_pu))
    assert "by up to 0.01 pu at b.1" in dataclasses.replace(exact, replay=run).status_text
    assert "OpenDSS" not in replayed(exact).status_text


def test_tables_carry_units(case: Case) -> None:
    r = build(case, "soc").solve()
    assert r.dataset["battery.energy"].attrs["units"] == "kWh"
    table = r.to_pandas()
    assert set(table.columns) == {"component", "quantity", "element", "time", "value", "unit"}
    rows = table[(table.component == "battery") & (table.quantity == "energy")]
    np.testing.assert_allclose(rows.value, r.value("battery.energy")[0])
    assert (rows.unit == "kWh").all()


def test_saved_and_read_again(case: Case, tmp_path: Path) -> None:
    r = build(case, "lindistflow").solve()
    for suffix in (".nc", ".parquet", ".csv"):
        assert r.save(tmp_path / f"day{suffix}").stat().st_size > 0
    with xr.open_dataset(tmp_path / "day.nc", engine="h5netcdf") as back:
        np.testing.assert_array_equal(back["battery.energy"].values, r.dataset["battery.energy"].values)
    assert len(pd.read_parquet(tmp_path / "day.parquet")) == len(r.to_pandas())
    with pytest.raises(OptionError, match=r"not '\.xlsx'"):
        r.save(tmp_path / "day.xlsx")
