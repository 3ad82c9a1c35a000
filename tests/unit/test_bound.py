"""The certified bound of a convex program: below every schedule, whatever the solver made of it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from lateral.case import Case
from lateral.cli import run as cli
from lateral.devices import Battery, Capacitor, Load, Source
from lateral.io import read
from lateral.network.feeder import Bus, Feeder, Line, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.results.residuals import recompute
from lateral.results.result import Result
from lateral.solvers import Options, Status
from lateral.studies import compare

#: case, relaxation, exact form; Ipopt's and Clarabel's answers are compared to their tolerance.
PAIRS = [("case33bw", "soc", "nonlinear"), ("ieee13-rated", "soc3", "current-voltage")]
PAIRS += [("ieee13-rated", "sdp", "current-voltage"), ("ieee123-t5", "soc", "nonlinear")]


def priced(name: str) -> Case:
    case = read(name)
    price = {} if name == "ieee123-t5" else {"price_import": 0.2}
    return case.with_(
        devices=tuple(dataclasses.replace(d, **price) if isinstance(d, Source) else d for d in case.devices)
    )


@pytest.fixture(scope="module")
def optima() -> dict[tuple[str, str], Result]:
    """Results to full accuracy, by case and formulation."""
    every = {(name, f) for name, *forms in PAIRS for f in forms}
    return {(name, f): build(priced(name), f).solve() for name, f in sorted(every)}


@pytest.mark.parametrize(("name", "relaxation", "exact"), PAIRS)
def test_bound_is_below_the_exact_optimum_and_near_its_own(
    name: str, relaxation: str, exact: str, optima: dict[tuple[str, str], Result]
) -> None:
    relaxed, best = optima[name, relaxation], optima[name, exact]
    assert relaxed.ok
    assert best.ok
    assert relaxed.relaxes
    assert relaxed.bound is not None
    assert relaxed.bound <= best.objective
    assert relaxed.objective - 1e-5 * abs(relaxed.objective) <= relaxed.bound <= relaxed.objective
    assert best.bound is None  # a local optimum proves nothing


@pytest.mark.parametrize("limit", [{"tolerance": 1e-2}, {"max_iterations": 3}, {"max_iterations": 6}], ids=str)
@pytest.mark.parametrize(("name", "relaxation", "exact"), PAIRS)
def test_bound_of_a_solve_that_stopped_early_holds_too(
    name: str, relaxation: str, exact: str, limit: dict[str, float], optima: dict[tuple[str, str], Result]
) -> None:
    early = build(priced(name), relaxation).solve("clarabel", Options(**limit))  # type: ignore[arg-type]
    assert early.status in (Status.INACCURATE, Status.LIMIT_REACHED)
    assert early.bound is not None
    assert early.bound <= optima[name, relaxation].bound  # type: ignore[operator]
    assert early.bound < optima[name, exact].objective
    said = next(text for text in early.warnings if "no schedule has an objective below" in text)
    assert float(said.split("below ")[1].split(", ")[0]) == pytest.approx(early.bound, rel=1e-7)
    assert f", given that {early.program.granted[0]}" in said


def test_what_has_no_multipliers_has_no_bound(optima: dict[tuple[str, str], Result]) -> None:
    r = optima["case33bw", "soc"]
    nothing = dataclasses.replace(r.solution, eq_dual=np.full_like(r.solution.eq_dual, np.nan))
    lost = dataclasses.replace(r, solution=nothing, residuals=recompute(r.program, nothing))
    assert lost.bound is None
    assert lost.summary()["bound"] is None
    infeasible = dataclasses.replace(r, status=Status.INFEASIBLE)
    assert infeasible.bound is None


def test_wrong_multipliers_make_a_bound_worse_and_never_wrong(optima: dict[tuple[str, str], Result]) -> None:
    """Multipliers of the balance doubled, or taken away: what they do not explain is counted against the bound."""
    r = optima["case33bw", "soc"]
    for factor in (0.0, 0.5, 0.99, 1.01, 2.0):
        y = factor * r.solution.eq_dual
        # what is left of the objective's gradient
        z = r.solution.reduced_cost + r.program.a.T @ (r.solution.eq_dual - y)
        other = dataclasses.replace(r.solution, eq_dual=y, reduced_cost=z)
        worse = dataclasses.replace(r, solution=other, residuals=recompute(r.program, other))
        assert worse.bound is not None
        assert worse.bound < r.bound  # type: ignore[operator]


def test_linear_forms_have_one_of_their_own() -> None:
    r = build(priced("case33bw"), "lindistflow", loss_term=False).solve()
    assert not r.relaxes
    assert r.bound == pytest.approx(r.objective, rel=1e-6)


def test_it_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli(["solve", "ieee123-t5", "--formulation", "soc", "--no-replay", "--json"]) == 0
    data = json.loads(capfd.readouterr().out)
    assert data["objective"] * (1.0 - 1e-5) <= data["bound"] <= data["objective"]
    assert data["bound_given"] == list(build(priced("ieee123-t5"), "soc").program.granted)
    assert cli(["solve", "ieee123-t5", "--formulation", "soc", "--no-replay"]) == 0
    assert "no schedule has an objective below 576.312" in capfd.readouterr().out
    assert cli(["solve", "ieee123-t5", "--formulation", "nonlinear", "--no-replay"]) == 0
    assert "no schedule has an objective below" not in capfd.readouterr().out


def test_comparisons_have_a_column(optima: dict[tuple[str, str], Result]) -> None:
    table = compare(priced("case33bw"), ["soc", "nonlinear", "lindistflow"]).table
    table = table.set_index("formulation")
    assert table.loc["soc", "bound"] == pytest.approx(optima["case33bw", "soc"].bound, rel=1e-6)
    assert np.isnan(table.loc["nonlinear", "bound"])
    assert np.isnan(table.loc["lindistflow", "bound"])


@pytest.mark.parametrize("name", ["ieee13-rated", "ieee123-rated"])
def test_a_square_is_not_below_zero(name: str) -> None:
    """The minors of `soc3` allow voltages that nothing has, and a squared negative sequence of -0.15 pu^2 h of them."""
    r = build(read(name), "soc3", "unbalance").solve()
    assert r.ok, r.status_text
    # to the gap that is tolerated, of the floor of 1e-4
    assert r.bound >= -1e-10  # type: ignore[operator]
    exact = build(read(name), "current-voltage", "unbalance").solve()
    assert r.bound <= exact.objective  # type: ignore[operator]


@pytest.mark.parametrize("formulation", ["sdp", "soc3"])
@pytest.mark.parametrize("load_kw", [0.0, 0.05])
def test_a_bank_that_is_decided_counts_in_the_scales(formulation: str, load_kw: float) -> None:
    """Next to nothing is drawn, and energy is worth less than nothing: what pays is the losses of a bank switched on.
    Scales knew loads and inverters alone, and a gap that looked certified made a bound of it that is none."""
    abc = (1, 2, 3)
    buses = tuple(Bus(name=name, conductors=abc, v_base_kv=2.4, v_min_pu=0.8, v_max_pu=1.2) for name in "ab")
    z = np.eye(3) + 0.2
    line = Line(name="l", bus_from="a", bus_to="b", conductors_from=abc, conductors_to=abc, r_ohm=0.5 * z, x_ohm=z)
    grid = Source(
        name="grid",
        bus="a",
        conductors=abc,
        angle_deg=(0.0, -120.0, 120.0),
        price_import=-0.2,
        r_ohm=0.01 * np.eye(3),
        x_ohm=0.03 * np.eye(3),
    )
    at_b = {"bus": "b", "terminals": (1, 2, 3, 0)}
    bank = Capacitor(name="c", q_kvar=0.0, q_total_kvar=500.0, decision="step", **at_b)  # type: ignore[arg-type]
    loads = [Load(name="x", p_kw=load_kw, **at_b)] if load_kw else []  # type: ignore[arg-type]
    case = Case(
        name="bank", feeder=Feeder(buses=buses, lines=(line,)), devices=(grid, *loads, bank), horizon=Horizon.regular(1)
    )
    exact = build(case, "current-voltage").solve()
    assert exact.ok
    assert exact.objective < -0.3
    r = build(case, formulation).solve()
    assert r.ok, r.status_text
    assert r.bound <= exact.objective  # type: ignore[operator]


@pytest.mark.parametrize("formulation", ["sdp", "soc3"])
def test_a_bank_alone_behind_a_center_tap(formulation: str) -> None:
    """Likewise, and called optimal at nothing: -4e-9 $ was the bound of what costs -0.013 $."""
    abc = (1, 2, 3)
    wide = {"v_min_pu": 0.85, "v_max_pu": 1.15}
    buses = (
        Bus(name="a", conductors=abc, v_base_kv=2.4, **wide),
        Bus(name="b", conductors=(1, 2), v_base_kv=0.12, **wide),
    )
    ends = (("a", (3, 0), 2.4, 0.6), ("b", (1, 0), 0.12, 1.2), ("b", (0, 2), 0.12, 1.2))
    windings = tuple(
        Winding(bus=bus, terminals=at, v_rated_kv=kv, s_rated_kva=50.0, r_percent=r) for bus, at, kv, r in ends
    )
    unit = Transformer(name="ct", n_phases=1, windings=windings, x_percent=(2.04, 2.04, 1.36))
    grid = Source(
        name="grid",
        bus="a",
        conductors=abc,
        angle_deg=(0.0, -120.0, 120.0),
        price_import=-0.13,
        r_ohm=0.01 * np.eye(3),
        x_ohm=0.04 * np.eye(3),
    )
    bank = Capacitor(name="c", bus="b", terminals=(1, 2, 0), q_kvar=0.0, q_total_kvar=20.0, decision="step")
    case = Case(
        name="bank", feeder=Feeder(buses=buses, transformers=(unit,)), devices=(grid, bank), horizon=Horizon.regular(1)
    )
    exact = build(case, "current-voltage").solve()
    assert exact.ok
    assert exact.objective < -0.01
    r = build(case, formulation).solve()
    assert r.ok, r.status_text
    assert r.bound <= exact.objective  # type: ignore[operator]


def test_what_is_drawn_at_a_weak_source_is_taken_for_granted() -> None:
    """No limit keeps the voltage of a source's own bus. 2.6 ohm on 5.8 of base: demand is least with 0.3 pu there, and
    the law of a load at that bus, between curve and chord within 20 % of the operating point, does not hold so far."""
    buses = tuple(Bus(name=name, conductors=(1,), v_base_kv=2.4, v_min_pu=0.3, v_max_pu=1.6) for name in "ab")
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1,), conductors_to=(1,), r_ohm=[[0.2]], x_ohm=[[0.4]]
    )
    devices = (
        Source(name="grid", bus="a", price_import=-0.2, r_ohm=[[0.75]], x_ohm=[[2.5]]),
        Load(name="far", bus="b", p_kw=40.0, q_kvar=10.0),
        Load(name="near", bus="a", p_kw=100.0, q_kvar=33.0, model="constant_current"),
        Battery(
            name="s", bus="a", p_charge_max_kw=830.0, p_discharge_max_kw=830.0, s_max_kva=1000.0, energy_kwh=50_000.0
        ),
    )
    case = Case(name="weak", feeder=Feeder(buses=buses, lines=(line,)), devices=devices, horizon=Horizon.regular(1))
    exact = build(case, "current-voltage", "demand", terminal="free").solve()
    assert exact.ok
    assert np.sqrt(exact.value("bus.vmag_sq")).max() < 0.5
    r = build(case, "sdp", "demand", terminal="free").solve()
    assert r.ok
    assert r.bound > exact.objective  # type: ignore[operator]
    (said,) = r.summary()["bound_given"]
    assert said == "voltages without a limit are at most 20 % below and 20 % above the operating point"
    # nothing at the source's bus, or a stiff source: the bound rests on limits alone
    behind = case.with_(devices=devices[:2])
    assert build(behind, "sdp").program.granted == ()
    stiff = dataclasses.replace(devices[0], r_ohm=[[0.0]], x_ohm=[[0.0]])
    assert build(case.with_(devices=(stiff, *devices[1:])), "sdp").program.granted == ()
