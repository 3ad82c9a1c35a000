"""Devices by hand, on two buses.

Everywhere ``V_base = 2.4 kV`` and ``S_base = 1000 kVA``, so that ``Z_base = 5.76 ohm``; the line is 0.5 + j1 ohm.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Source
from lateral.devices.load import MODELS
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.network.schema import Element
from lateral.opf import build, linear_power_flow
from lateral.results.result import Result

KV = 2.4
Z = (0.5 + 1.0j) / (1000 * KV**2 / 1000)
BALANCED = ("lindistflow", "soc", "nonlinear")
FORMULATIONS = (*BALANCED, "lindist3flow")


def two_bus(
    *devices: Element,
    horizon: Horizon | None = None,
    profiles: dict[str, np.ndarray] | None = None,
    source: dict[str, object] | None = None,
    conductors: tuple[int, ...] = (1,),
    z_ohm: complex = 0.5 + 1.0j,
) -> Case:
    """Bus a with the grid, bus b with everything else; conductors do not couple."""
    n = len(conductors)
    line = Line(
        name="l",
        bus_from="a",
        bus_to="b",
        conductors_from=conductors,
        conductors_to=conductors,
        r_ohm=z_ohm.real * np.eye(n),
        x_ohm=z_ohm.imag * np.eye(n),
    )
    angles = tuple({1: 0.0, 2: -120.0, 3: 120.0}[c] for c in conductors)
    grid = Source(
        name="grid",
        bus="a",
        conductors=conductors,
        angle_deg=angles,
        **{"price_import": 0.1, "r_ohm": np.zeros((n, n)), "x_ohm": np.zeros((n, n))} | (source or {}),  # type: ignore[arg-type]
    )
    buses = tuple(Bus(name=b, conductors=conductors, v_base_kv=KV, v_min_pu=0.5, v_max_pu=1.5) for b in "ab")
    return Case(
        name="two",
        feeder=Feeder(buses=buses, lines=(line,)),
        devices=(grid, *devices),
        horizon=horizon or Horizon.regular(1),
        profiles=profiles or {},
    )


def run(case: Case, formulation: str = "lindistflow", objective: str = "cost", **options: object) -> Result:
    r = build(case, formulation, objective, **options).solve()  # type: ignore[arg-type]
    assert r.ok, r.status_text
    return r


def v_b(r: Result) -> float:
    """|V|^2 at the first conductor of bus b, first step."""
    return float(r.value("bus.vmag_sq")[r.elements("bus.vmag_sq").index("b.1"), 0])


def dispatched(r: Result, label: str) -> tuple[np.ndarray, np.ndarray]:
    return r.set_points[label]


# -- loads ------------------------------------------------------------------------------------------------------------


def load(model: str = "constant_power", **more: object) -> Load:
    """300 kW and 150 kvar, at most 10 % of voltage drop."""
    given = {
        "name": "x",
        "bus": "b",
        "p_kw": 300.0,
        "q_kvar": 150.0,
        "model": model,
        "zip_p": (0.5, 0.3, 0.2),
        "zip_q": (0.2, 0.5, 0.3),
        "cvr_p": 0.8,
        "cvr_q": 1.7,
    }
    return Load(**(given | more))  # type: ignore[arg-type]


#: exponents and coefficients of P and Q as documented for OpenDSS's models 1 to 8
LAWS = {
    "constant_power": ({0: 1.0}, {0: 1.0}),
    "constant_impedance": ({2: 1.0}, {2: 1.0}),
    "constant_power_quadratic_q": ({0: 1.0}, {2: 1.0}),
    "cvr": ({0.8: 1.0}, {1.7: 1.0}),
    "constant_current": ({1: 1.0}, {1: 1.0}),
    "constant_power_fixed_q": ({0: 1.0}, {0: 1.0}),
    "constant_power_fixed_q_impedance": ({0: 1.0}, {2: 1.0}),
    "zip": ({2: 0.5, 1: 0.3, 0: 0.2}, {2: 0.2, 1: 0.5, 0: 0.3}),
}


def by_hand(model: str, formulation: str) -> float:
    """v = |V_b|^2 with v_a = 1.

    P(v) = 0.3 sum a |V|^e and Q(v) = 0.15 sum b |V|^e; the exact ones where the formulation has them, else the tangent
    at |V| = 1, ``1 + e/2 (v - 1)``. Then

        exact, SOC    v = 1 - 2 (r P + x Q) + |z|^2 (P'^2 + Q'^2),   P' = P + r l, Q' = Q + x l   (Baran and Wu)
                      <=> v^2 + (2 (r P + x Q) - 1) v + |z|^2 (P^2 + Q^2) = 0, the larger root
        LinDistFlow   v = 1 - 2 (r P + x Q)
    """
    known = set(LAWS[model][0]) | set(LAWS[model][1]) if formulation == "nonlinear" else (0, 2)
    v = 1.0
    for _ in range(200):
        p, q = (
            size * sum(a * (v ** (e / 2) if e in known else 1 + e / 2 * (v - 1)) for e, a in law.items())
            for size, law in zip((0.3, 0.15), LAWS[model], strict=True)
        )
        b = 2 * (Z.real * p + Z.imag * q) - 1
        v = -b if formulation == "lindistflow" else (-b + np.sqrt(b**2 - 4 * abs(Z) ** 2 * (p**2 + q**2))) / 2
    return v


@pytest.mark.parametrize("formulation", BALANCED)
@pytest.mark.parametrize("model", MODELS)
def test_load_models(model: str, formulation: str) -> None:
    assert set(LAWS) == set(MODELS)
    r = run(two_bus(load(model)), formulation)
    assert v_b(r) == pytest.approx(by_hand(model, formulation), abs=2e-7)
    assert 0.80 < v_b(r) < 0.92  # far from 1: the models differ by more than the tolerance


@pytest.mark.parametrize("model", MODELS)
def test_load_models_at_a_solved_point(model: str) -> None:
    """lindist3flow is the AC power flow at its own point, for every model."""
    case = two_bus(load(model))
    flow = power_flow(case, tolerance_pu=1e-11)
    at_b = flow.index.position["b", 1]
    r = linear_power_flow(case)
    assert np.sqrt(v_b(r)) == pytest.approx(flow.vmag_pu[at_b, 0], abs=2e-8)
    assert r.p_source_kw[0] == pytest.approx(flow.sources_kva.real.sum(), abs=1e-4)


@pytest.mark.parametrize("point_load", [0.7, 1.3])
@pytest.mark.parametrize("model", MODELS)
def test_load_models_away_from_the_point_are_of_first_order(model: str, point_load: float) -> None:
    """Losses and squared drops are frozen at the point: the error is that of their change, second order in the load."""
    case = two_bus(load(model))
    other = two_bus(load(model, p_kw=300 * point_load, q_kvar=150 * point_load))
    exact = power_flow(case).vmag_pu[power_flow(case).index.position["b", 1], 0]
    assert np.sqrt(v_b(linear_power_flow(case, at=other))) == pytest.approx(exact, abs=6e-3)


@pytest.mark.parametrize("v_pu", [0.45, 0.75, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("model", MODELS)
def test_loads_out_of_band_at_a_solved_point(model: str, v_pu: float) -> None:
    """Band 0.95 ... 1.05, v_low 0.5: below, above and far below, the load is what the power flow makes of it."""
    x = load(model, v_min_pu=0.95, v_max_pu=1.05, v_low_pu=0.5, zip_v_cut_pu=0.74)
    case = two_bus(x, source={"v_pu": v_pu})
    flow = power_flow(case, tolerance_pu=1e-11)
    assert flow.converged.all()
    r = linear_power_flow(case)
    assert np.sqrt(v_b(r)) == pytest.approx(flow.vmag_pu[flow.index.position["b", 1], 0], abs=1e-7)
    assert r.p_source_kw[0] == pytest.approx(flow.sources_kva.real.sum(), abs=1e-3)
    assert r.q_source_kvar[0] == pytest.approx(flow.sources_kva.imag.sum(), abs=1e-3)


def test_constant_power_below_its_band_by_hand() -> None:
    """v_min 0.95, v_low 0: the current is held at that of 0.95, so P = 0.3 |V| 1/0.95 / |V| ... = 0.3 (|V| / 0.95).

    The factor of |V|^2 is (1/0.95) (|V| / 0.95) / |V| = 1/0.95^2: an impedance. With z (P - jQ) / 0.95^2 =: w the
    voltage is 0.9 / (1 + z (0.3 - j0.15) / 0.95^2).
    """
    case = two_bus(load(v_min_pu=0.95), source={"v_pu": 0.9})
    expected = abs(0.9 / (1 + Z * (0.3 - 0.15j) / 0.95**2))
    assert np.sqrt(v_b(linear_power_flow(case))) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_rated_voltage(formulation: str) -> None:
    """An impedance rated at 2.0 kV on a base of 2.4 kV draws (2.4 / 2.0)^2 = 1.44 times as much."""
    small = run(two_bus(load("constant_impedance", v_rated_kv=2.0)), formulation)
    large = run(two_bus(load("constant_impedance", p_kw=432.0, q_kvar=216.0)), formulation)
    assert v_b(small) == pytest.approx(v_b(large), abs=1e-7)


def test_reactive_power_that_does_not_follow_the_profile() -> None:
    """Models 6 and 7 hold q at its rating; the others follow profile, or profile_q."""
    profiles = {"half": np.array([0.5]), "tenth": np.array([0.1])}
    for model, more, q in (
        ("constant_power", {}, 75.0),
        ("constant_power", {"profile_q": "tenth"}, 15.0),
        ("constant_power_fixed_q", {}, 150.0),
    ):
        r = run(two_bus(load(model, profile="half", **more), profiles=profiles))
        assert r.p_source_kw[0] == pytest.approx(150.0, abs=1e-4)
        assert r.q_source_kvar[0] == pytest.approx(q, abs=1e-4)


# -- PV ---------------------------------------------------------------------------------------------------------------


def pv(**more: object) -> PV:
    """8 kW behind 10 kVA; with a load of 50 kvar every loss wants all the reactive power there is."""
    given = {"name": "p", "bus": "b", "p_rated_kw": 8.0, "s_max_kva": 10.0}
    return PV(**(given | more))  # type: ignore[arg-type]


HUNGRY = Load(name="x", bus="b", p_kw=100.0, q_kvar=50.0)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(("limit", "q"), [("disc", [6.0, np.sqrt(84.0)]), ("box", [6.0, 6.0])])
def test_pv_reactive_bound(formulation: str, limit: str, q: list[float]) -> None:
    """Sun of 8 and 4 kW: disc sqrt(100 - 64) = 6 and sqrt(100 - 16) = 9.17; box sqrt(100 - 64) = 6 always."""
    case = two_bus(
        pv(profile="sun", limit=limit), HUNGRY, horizon=Horizon.regular(2), profiles={"sun": np.r_[1.0, 0.5]}
    )
    p_found, q_found = dispatched(run(case, formulation), "pv.p")
    np.testing.assert_allclose(p_found, [8.0, 4.0], atol=1e-6)
    np.testing.assert_allclose(q_found, q, atol=1e-3)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_pv_more_sun_than_inverter(formulation: str) -> None:
    """12 kW behind 10 kVA gives 10 kW and no reactive power, fixed or curtailable."""
    for curtailable in (False, True):
        case = two_bus(pv(p_rated_kw=12.0, curtailable=curtailable), HUNGRY, source={"price_import": 0.5})
        p, q = dispatched(run(case, formulation), "pv.p")
        assert p[0] == pytest.approx(10.0, abs=5e-3)
        assert np.hypot(p[0], q[0]) <= 10.0 + 1e-5


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_pv_power_factor(formulation: str) -> None:
    """pf 0.8: q = 0.75 p, given; -0.8: taken. 12 kW of sun behind 10 kVA are clipped at 0.8 * 10 = 8 kW."""
    for curtailable in (False, True):
        for pf, rated, p in ((0.8, 6.0, 6.0), (-0.8, 6.0, 6.0), (0.8, 12.0, 8.0)):
            x = pv(p_rated_kw=rated, q_control="power_factor", power_factor=pf, curtailable=curtailable)
            p_found, q_found = dispatched(run(two_bus(x, HUNGRY), formulation), "pv.p")
            assert p_found[0] == pytest.approx(p, abs=1e-3)
            assert q_found[0] == pytest.approx(0.75 * np.sign(pf) * p_found[0], abs=1e-6)


@pytest.mark.parametrize("formulation", ["lindistflow", "nonlinear", "lindist3flow"])
def test_pv_curtailment(formulation: str) -> None:
    """Who pays for export cuts the sun: price -0.1 and no load leave 0 kW, +0.1 all 8 kW; fixed it stays at 8.

    Not for the relaxation, which invents losses where energy has a negative price.
    """
    for curtailable, price, p in ((True, -0.1, 0.0), (True, 0.1, 8.0), (False, -0.1, 8.0)):
        x = pv(curtailable=curtailable, q_control="none")
        case = two_bus(x, Load(name="x", bus="b", p_kw=0.1), source={"price_import": price})
        r = run(case, formulation)
        p_found, q_found = dispatched(r, "pv.p")
        assert p_found[0] == pytest.approx(p, abs=1e-2)
        assert q_found[0] == 0.0
        assert r.value("pv.curtailed")[0, 0] == pytest.approx(8.0 - p, abs=1e-2)


# -- batteries --------------------------------------------------------------------------------------------------------


def battery(**more: object) -> Battery:
    """10 kW, 10 kWh, half full; 0.9 in and 0.8 out."""
    given = {
        "name": "s",
        "bus": "b",
        "p_charge_max_kw": 10.0,
        "p_discharge_max_kw": 10.0,
        "s_max_kva": 12.0,
        "energy_kwh": 10.0,
        "eta_charge": 0.9,
        "eta_discharge": 0.8,
        "q_control": "none",
    }
    return Battery(**(given | more))  # type: ignore[arg-type]


UNEVEN = Horizon(start=Horizon.regular(1).start, step_h=np.array([0.5, 1.0, 2.0]), weight=np.ones(3))
PRICES = {"price": np.array([0.1, 0.4, 0.2])}


def arbitrage(*batteries: Battery, **options: object) -> Result:
    base = Load(name="x", bus="b", p_kw=50.0)
    case = two_bus(*batteries, base, horizon=UNEVEN, profiles=PRICES, source={"price_import": "price"})
    return run(case, loss_term=False, **options)


def test_battery_by_hand() -> None:
    """Steps of 0.5, 1, 2 h at 0.1, 0.4, 0.2 $/kWh.

    Charge 10 kW for half an hour: 5 + 0.9 * 5 = 9.5 kWh. Give all of it: 9.5 * 0.8 = 7.6 kWh in the dear hour. A kWh
    given there needs 1/0.8 stored, bought back at 0.2 / 0.9: 0.28 < 0.4, so it pays. Back to 5 kWh: 5 / 0.9 in 2 h.
    Cost: 0.1 * 60 * 0.5 + 0.4 * (50 - 7.6) + 0.2 * (100 + 5 / 0.9) = 41.0711 $
    """
    r = arbitrage(battery())
    np.testing.assert_allclose(r.value("battery.p_charge")[0], [10, 0, 2.5 / 0.9], atol=1e-4)
    np.testing.assert_allclose(r.value("battery.p_discharge")[0], [0, 7.6, 0], atol=1e-4)
    np.testing.assert_allclose(r.value("battery.energy")[0], [9.5, 0, 5], atol=1e-4)
    assert r.cost == pytest.approx(3.0 + 16.96 + 20 + 1 / 0.9, abs=1e-4)
    np.testing.assert_allclose(r.value("battery.p_lost")[0], [1, 7.6 * 0.25, 0.1 * 2.5 / 0.9], atol=1e-4)


@pytest.mark.parametrize(
    ("rule", "value", "last"),
    [
        ("equal", 0.0, 5.0),
        ("at-least", 0.0, 5.0),
        ("free", 0.0, 0.0),
        ("priced", 0.2, 0.0),  # worth less than 0.2 / 0.9 = 0.222: not bought back
        ("priced", 0.25, 10.0),  # worth more: filled in the last step, but sold at 0.4 * 0.8 = 0.32 before
    ],
)
def test_terminal_rules(rule: str, value: float, last: float) -> None:
    r = arbitrage(battery(terminal_price=value), terminal=rule)
    np.testing.assert_allclose(r.value("battery.energy")[0], [9.5, 0.0, last], atol=1e-3)


def test_what_is_stored_at_the_end_counts_as_often_as_its_period() -> None:
    """Two typical days, of weight 3 and 1, are four days: in money and in what a battery keeps for its price.

    At 0.25 $/kWh it is worth filling the battery in the last step of each; counted once it would not be worth three
    times the price of the energy.
    """
    horizon = dataclasses.replace(
        UNEVEN, step_h=np.tile(UNEVEN.step_h, 2), weight=np.repeat([3.0, 1.0], 3), breaks=(3,)
    )
    base = Load(name="x", bus="b", p_kw=50.0)
    stored = battery(terminal_price=0.25)

    def days(horizon: Horizon, n: int) -> Result:
        profiles = {k: np.tile(v, n) for k, v in PRICES.items()}
        case = two_bus(stored, base, horizon=horizon, profiles=profiles, source={"price_import": "price"})
        return run(case, loss_term=False, terminal="priced")

    r, one = days(horizon, 2), days(UNEVEN, 1)
    np.testing.assert_allclose(r.value("battery.energy")[0], [9.5, 0.0, 10.0] * 2, atol=1e-3)
    assert r.objective == pytest.approx(4.0 * one.objective, rel=1e-6)


def test_each_battery_has_its_own_beginning() -> None:
    """Empty, half and full: 4.5, 9.5 and 10 kWh after the first half hour, back to their own beginnings at the end."""
    r = arbitrage(*(battery(name=f"s{k}", soc_initial=s) for k, s in enumerate((0.0, 0.5, 1.0))))
    np.testing.assert_allclose(r.value("battery.energy"), [[4.5, 0, 0], [9.5, 0, 5], [10, 0, 10]], atol=1e-3)


def test_limits_of_energy() -> None:
    """Between 20 and 80 %: 5 -> 8 kWh (3 / 0.9 in half an hour), down to 2, back to 5."""
    r = arbitrage(battery(soc_min=0.2, soc_max=0.8))
    np.testing.assert_allclose(r.value("battery.energy")[0], [8, 2, 5], atol=1e-4)
    assert r.value("battery.p_charge")[0, 0] == pytest.approx(3 / 0.9 / 0.5, abs=1e-4)


def test_breaks_begin_anew() -> None:
    """Two periods of two hours, 0.1, 0.4 | 0.4, 0.1: full, back | empty, back; nothing carries over the break.

    Charging 5 / 0.9 = 5.56 kW, discharging 5 * 0.8 = 4 kW.
    """
    horizon = dataclasses.replace(Horizon.regular(4), breaks=(2,))
    case = two_bus(
        battery(),
        Load(name="x", bus="b", p_kw=50.0),
        horizon=horizon,
        profiles={"price": np.array([0.1, 0.4, 0.4, 0.1])},
        source={"price_import": "price"},
    )
    r = run(case, loss_term=False)
    np.testing.assert_allclose(r.value("battery.energy")[0], [10, 5, 0, 5], atol=1e-4)
    np.testing.assert_allclose(r.value("battery.p_charge")[0], [5 / 0.9, 0, 0, 5 / 0.9], atol=1e-4)
    np.testing.assert_allclose(r.value("battery.p_discharge")[0], [0, 4, 4, 0], atol=1e-4)
    free = run(case, loss_term=False, terminal="free")
    # each period ends empty, and the second one begins half full again
    np.testing.assert_allclose(free.value("battery.energy")[0], [10, 0, 0, 0], atol=1e-4)


def test_weights_do_not_change_storage() -> None:
    """A weight counts in the cost, not in the energy."""
    base = Load(name="x", bus="b", p_kw=50.0)
    heavy = dataclasses.replace(UNEVEN, weight=np.full(3, 7.0))
    case = two_bus(battery(), base, horizon=heavy, profiles=PRICES, source={"price_import": "price"})
    r = run(case, loss_term=False)
    np.testing.assert_allclose(r.value("battery.energy")[0], [9.5, 0, 5], atol=1e-4)
    assert r.cost == pytest.approx(7 * (3.0 + 16.96 + 20 + 1 / 0.9), abs=1e-3)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(
    ("limit", "soc", "p", "q"),
    [("disc", 0.0, 0.0, 10.0), ("disc", 1.0, 8.0, 6.0), ("box", 0.0, 0.0, 6.0), ("box", 1.0, 8.0, 6.0)],
)
def test_battery_reactive_power(formulation: str, limit: str, soc: float, p: float, q: float) -> None:
    """8 kW behind 10 kVA beside a hungry load: disc sqrt(100 - p^2), box sqrt(100 - 64); empty it gives no kW."""
    x = battery(
        p_charge_max_kw=8.0, p_discharge_max_kw=8.0, s_max_kva=10.0, soc_initial=soc, q_control="free", limit=limit
    )
    found = dispatched(run(two_bus(x, HUNGRY, source={"price_import": 0.5}), formulation, terminal="free"), "battery.s")
    if soc == 0.0:  # it may charge nothing for nothing
        assert found[0][0] <= 1e-3
    else:
        assert found[0][0] == pytest.approx(p, abs=1e-2)
    assert found[1][0] == pytest.approx(q, abs=1e-2)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_battery_inverter_smaller_than_its_power(formulation: str) -> None:
    """10 kW behind 7 kVA without reactive power: 7 kW."""
    x = battery(s_max_kva=7.0, soc_initial=1.0)
    p, _ = dispatched(run(two_bus(x, HUNGRY, source={"price_import": 0.5}), formulation, terminal="free"), "battery.s")
    assert p[0] == pytest.approx(7.0, abs=1e-3)


# -- the source -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [55.0, "most"])
def test_import_limit(limit: float | str) -> None:
    """A load of 50 kW and at most 55 kW of import: the battery charges with 5 kW, not with 10 (60 in the profile: 10).

    After 0.5 h: 5 + 0.9 * 2.5 = 7.25 kWh with the number; in the profile 60 kW are allowed in the first step only.
    """
    base = Load(name="x", bus="b", p_kw=50.0)
    profiles = PRICES | {"most": np.array([60.0, 55.0, 51.0])}
    case = two_bus(
        battery(),
        base,
        horizon=UNEVEN,
        profiles=profiles,
        source={"price_import": "price", "p_import_max_kw": limit},
    )
    r = run(case, loss_term=False)
    if limit == "most":
        # 1 kW for 2 h brings 1.8 kWh: 6.3 kWh may be given before, 5.04 kWh at the terminals
        np.testing.assert_allclose(r.p_source_kw, [60.0, 50 - 6.3 * 0.8, 51.0], atol=1e-3)
    else:
        np.testing.assert_allclose(r.p_source_kw, [55.0, 50 - 7.25 * 0.8, 50 + 2.5 / 0.9], atol=1e-3)


@pytest.mark.parametrize("limit", [5.0, "most"])
def test_export_limit(limit: float | str) -> None:
    """40 kW of sun, 10 kW of load: 15 kW of sun are used when 5 kW may leave, 30 when 20 may."""
    case = two_bus(
        pv(p_rated_kw=40.0, s_max_kva=50.0, curtailable=True, q_control="none"),
        Load(name="x", bus="b", p_kw=10.0),
        horizon=Horizon.regular(2),
        profiles={"most": np.array([5.0, 20.0])},
        source={"p_export_max_kw": limit},
    )
    p, _ = dispatched(run(case, loss_term=False), "pv.p")
    np.testing.assert_allclose(p, [15.0, 15.0 if limit == 5.0 else 30.0], atol=1e-3)


def test_two_prices() -> None:
    """Buy at 0.3, sell at 0.1: 20 kW of sun in the first hour, 10 kW of load in both.

    Without storage -0.1 * 10 + 0.3 * 10 = 2 $; a lossless battery moves the 10 kWh: 0 $. With one price of 0.3 the
    battery earns nothing, and both cost 0 $.
    """
    sun = pv(p_rated_kw=20.0, s_max_kva=20.0, profile="sun", q_control="none")
    base = Load(name="x", bus="b", p_kw=10.0)
    more = {"horizon": Horizon.regular(2), "profiles": {"sun": np.array([1.0, 0.0])}}
    two = {"price_import": 0.3, "price_export": 0.1}
    r = run(two_bus(sun, base, source=two, **more), loss_term=False)  # type: ignore[arg-type]
    assert r.cost == pytest.approx(2.0, abs=1e-4)
    np.testing.assert_allclose(r.value("source.sell")[0], [10, 0], atol=1e-3)
    np.testing.assert_allclose(r.value("source.buy")[0], [0, 10], atol=1e-3)
    stored = battery(eta_charge=1.0, eta_discharge=1.0, soc_initial=0.0)
    assert run(two_bus(sun, base, stored, source=two, **more), loss_term=False).cost == pytest.approx(0.0, abs=1e-3)  # type: ignore[arg-type]
    one = run(two_bus(sun, base, source={"price_import": 0.3}, **more), loss_term=False)  # type: ignore[arg-type]
    assert one.cost == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("formulation", ["lindistflow", "soc", "nonlinear", "current-voltage", "sdp"])
@pytest.mark.parametrize("objective", ["loss", "peak", "0*cost+loss"])
def test_two_prices_that_the_objective_does_not_ask_for(formulation: str, objective: str) -> None:
    """10 kW sold at 0.1 in the first hour, 10 kW bought at 0.3 in the second: 2 $ whatever is minimised.

    Nothing that only a cost would hold is in the program: to buy and sell at once would be free.
    """
    sun = pv(p_rated_kw=20.0, s_max_kva=20.0, profile="sun", q_control="none", curtailable=False)
    case = two_bus(
        sun,
        Load(name="x", bus="b", p_kw=10.0),
        source={"price_import": 0.3, "price_export": 0.1},
        horizon=Horizon.regular(2),
        profiles={"sun": np.array([1.0, 0.0])},
    )
    r = run(case, formulation, objective=objective)
    want = float(np.sum(np.where(r.p_source_kw >= 0.0, 0.3, 0.1) * r.p_source_kw))
    assert r.cost == pytest.approx(want, abs=1e-12)
    assert r.cost == pytest.approx(2.0, abs=2e-2)  # the losses: at most 0.04 kWh
    assert not r.has("source.buy")
    assert not r.has("source.sell")
    assert r.baseline_cost == pytest.approx(2.0, abs=2e-2)
    both = run(case, formulation, objective="cost+loss")
    assert both.has("source.buy")
    assert both.cost == pytest.approx(2.0, abs=2e-2)


@pytest.mark.parametrize("formulation", ["lindistflow", "sdp"])
def test_two_prices_that_are_the_same(formulation: str) -> None:
    """Buying and selling at once would cost nothing: nothing is sold; at other prices it is built again.

    10 kW at 0.1 to and fro: 0 $. Bought at 0.3 instead: 2 $.
    """
    sun = pv(p_rated_kw=20.0, s_max_kva=20.0, profile="sun", q_control="none", curtailable=False)
    case = two_bus(
        sun,
        Load(name="x", bus="b", p_kw=10.0),
        source={"price_import": 0.1, "price_export": 0.1},
        horizon=Horizon.regular(2),
        profiles={"sun": np.array([1.0, 0.0])},
    )
    model = build(case, formulation)
    r = model.solve()
    assert r.ok
    np.testing.assert_allclose(r.value("source.sell"), 0.0, atol=1e-9)
    np.testing.assert_allclose(r.value("source.buy")[0], [-10, 10], atol=2e-2)
    dearer = model.update(prices=0.3).solve()
    assert dearer.ok
    np.testing.assert_allclose(dearer.value("source.sell")[0], [10, 0], atol=2e-2)
    assert dearer.cost == pytest.approx(2.0, abs=2e-2)


# -- capacitors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formulation", ["soc", "nonlinear", "lindist3flow"])
def test_capacitor(formulation: str) -> None:
    """600 kvar alone on the line.

    As an impedance b = 0.6: |V| = 1 / |1 + j 0.6 z|. As a constant power: v^2 - (2 x 0.6 + 1) v + |z|^2 0.36 = 0.
    Rated at 2.0 kV: b = 0.6 (2.4 / 2.0)^2.
    """
    solid = Load(name="x", bus="b", p_kw=0.0)
    as_b = 1 / abs(1 + 0.6j * Z) ** 2
    b = 2 * Z.imag * 0.6 + 1
    as_power = (b + np.sqrt(b**2 - 4 * abs(Z) ** 2 * 0.36)) / 2
    small = 1 / abs(1 + 0.6j * 1.44 * Z) ** 2
    for more, v in (({}, as_b), ({"model": "constant_power"}, as_power), ({"v_rated_kv": 2.0}, small)):
        c = Capacitor(name="c", bus="b", q_kvar=600.0, **more)  # type: ignore[arg-type]
        assert v_b(run(two_bus(c, solid), formulation, objective="loss")) == pytest.approx(v, abs=1e-6)


def test_delta_capacitor() -> None:
    """600 kvar between three conductors is 200 kvar on each of them when voltages are symmetric.

    Wye and delta give |V| = 1 / |1 + j 0.2 z|, at the rated voltages of 2.4 kV and 2.4 sqrt(3) kV.
    """
    expected = 1 / abs(1 + 0.2j * Z) ** 2
    for place in ({"terminals": (1, 2, 3, 0)}, {"terminals": (1, 2, 3), "connection": "delta"}):
        c = Capacitor(name="c", bus="b", q_kvar=600.0, **place)  # type: ignore[arg-type]
        r = linear_power_flow(two_bus(c, conductors=(1, 2, 3)))
        np.testing.assert_allclose(
            r.value("bus.vmag_sq")[[r.elements("bus.vmag_sq").index(f"b.{k}") for k in (1, 2, 3)], 0],
            expected,
            atol=1e-7,
        )


# -- three phases -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "p", "q"),
    [
        ({"terminals": (1, 2, 3, 0)}, [100, 100, 100], [30, 30, 30]),
        ({"terminals": (2, 0)}, [0, 300, 0], [0, 90, 0]),
        ({"terminals": (1, 3, 0)}, [150, 0, 150], [45, 0, 45]),
        ({"terminals": (1, 2, 3), "connection": "delta"}, [100, 100, 100], [30, 30, 30]),
        # s V_1 / (V_1 - V_2) = (300 + j90) (1/2 - j 0.2887): V_1 / (V_1 - V_2) has size 1/sqrt(3), angle -30 degrees
        ({"terminals": (1, 2), "connection": "delta"}, [175.981, 124.019, 0], [-41.603, 131.603, 0]),
    ],
)
def test_shares_of_a_device(place: dict[str, object], p: list[float], q: list[float]) -> None:
    """300 kW and 90 kvar behind a line of almost nothing: what each conductor carries; the same for PV and battery."""
    x = Load(name="x", bus="b", p_kw=300.0, q_kvar=90.0, **place)  # type: ignore[arg-type]
    r = linear_power_flow(two_bus(x, conductors=(1, 2, 3), z_ohm=1e-4 + 1e-4j))
    np.testing.assert_allclose(r.value("branch.p_from")[:, 0], p, atol=0.05)
    np.testing.assert_allclose(r.value("branch.q_from")[:, 0], q, atol=0.05)
    sun = PV(
        name="p",
        bus="b",
        p_rated_kw=300.0,
        s_max_kva=400.0,
        q_control="power_factor",
        power_factor=float(np.cos(np.arctan(0.3))),
        **place,  # type: ignore[arg-type]
    )
    case = two_bus(sun, conductors=(1, 2, 3), z_ohm=1e-4 + 1e-4j)
    r = run(case, "lindist3flow")
    np.testing.assert_allclose(r.value("branch.p_from")[:, 0], -np.array(p), atol=0.05)
    np.testing.assert_allclose(r.value("branch.q_from")[:, 0], -np.array(q), atol=0.05)
