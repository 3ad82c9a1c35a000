"""Laws of inverters: reactive power of what p leaves, its limit, the mean voltage, volt-watt of a fixed PV system.

By hand on two buses, in every exact formulation and in the power flow; the replay in OpenDSS is given the set-points.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from test_compensators import PLACES, three
from test_devices import HUNGRY, Z, two_bus, v_b
from test_inverter_curves import battery, pv

from lateral.baseline import following_ports, power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.devices.voltage_law import ROUNDING_PU, ROUNDING_SHARE, falling, var_points
from lateral.network.horizon import Horizon
from lateral.opf import build, refined, replayed, solve
from lateral.program import Bends, Circle
from lateral.results.result import Result

EXACT = ("current-voltage", "bus-injection", "nonlinear")
S = 0.3


def solved(case: Case, formulation: str, objective: str = "cost", **options: Any) -> Result:
    r = build(case, formulation, objective, **options).solve()
    assert r.ok, r.status_text
    return r


def available(**more: Any) -> Any:
    return pv(**{"volt_var_reference": "available"} | more)


def voltage(p: float, q: float, v_source: float) -> float:
    """|V| behind z of p, q (pu) given there: the larger root of the biquadratic equation."""
    b = 2 * (Z.real * p + Z.imag * q) + v_source**2
    return float(np.sqrt((b + np.sqrt(b**2 - 4 * abs(Z) ** 2 * (p**2 + q**2))) / 2))


def by_hand(law: Any, v_source: float, p: float = 0.2) -> tuple[float, float]:
    """|V| and q with ``q = law(|V|)``, falling: bisection."""
    low, high = -S, S
    for _ in range(100):
        q = (low + high) / 2
        low, high = (q, high) if law(voltage(p, q, v_source)) > q else (low, q)
    return voltage(p, low, v_source), low


def curve(u: float) -> float:
    return float(np.interp(u, (0.92, 0.98, 1.02, 1.08), (0.44, 0.0, 0.0, -0.44)))


@pytest.mark.parametrize("v", [0.93, 1.0, 1.05, 1.12])
@pytest.mark.parametrize("formulation", [*EXACT, "lindist3flow"])
def test_reactive_power_of_what_p_leaves(formulation: str, v: float) -> None:
    """200 kW of 300 kVA leave 223.6 kvar."""
    case = two_bus(available(), source={"v_pu": v})
    u, q = by_hand(lambda u: np.sqrt(S**2 - 0.2**2) * curve(u), v)
    r = solved(case, formulation)
    assert np.sqrt(v_b(r)) == pytest.approx(u, abs=1e-10)
    assert r.set_points["pv.p"][1][0] == pytest.approx(1000 * q, abs=2e-7)
    flow = power_flow(case)
    assert flow.all_converged
    assert flow.vmag_pu[flow.index.position["b", 1], 0] == pytest.approx(u, abs=1e-7)


@pytest.mark.parametrize("formulation", EXACT)
def test_all_of_the_rating_leaves_nothing(formulation: str) -> None:
    """At full sun p is the rating itself, and q none: by `rating` p would leave room for 132 kvar."""
    case = two_bus(available(p_rated_kw=300.0), source={"v_pu": 1.05})
    p, q = solved(case, formulation).set_points["pv.p"]
    assert p[0] == pytest.approx(300.0, abs=1e-9)
    assert q[0] == pytest.approx(0.0, abs=1e-9)


def test_new_sun_leaves_other_kvar() -> None:
    sun = {"sun": np.array([0.5, 1.0])}
    case = two_bus(available(profile="sun"), source={"v_pu": 1.05}, horizon=Horizon.regular(2), profiles=sun)
    model = build(case, "current-voltage").update(pv={"p": np.array([280.0, 100.0])})
    p, q = model.solve().set_points["pv.p"]
    for k, power in enumerate((0.28, 0.1)):
        _, expected = by_hand(lambda u, p=power: np.sqrt(S**2 - p**2) * curve(u), 1.05, p=power)
        assert (p[k], q[k]) == (pytest.approx(1000 * power, abs=1e-9), pytest.approx(1000 * expected, abs=1e-6))


@pytest.mark.parametrize("more", [{"curtailable": True}, {"volt_var_q_max_pu": 0.1}])
def test_new_sun_leaves_other_kvar_at_the_operating_point(more: dict[str, Any]) -> None:
    """Where no curves are written: what the new sun leaves, and no more than the limit, as if it were built anew."""
    device = available(p_rated_kw=290.0, profile="sun", **more)
    case = two_bus(device, source={"v_pu": 1.05}, horizon=Horizon.regular(2), profiles={"sun": np.array([0.5, 1.0])})
    model = build(case, "lindist3flow", "loss").update(pv={"p": np.array([290.0, 145.0])})
    fresh = build(case.with_(profiles={"sun": np.array([1.0, 0.5])}), "lindist3flow", "loss")
    found, expected = (m.solve().set_points["pv.p"][1] for m in (model, fresh))
    assert expected.max() < -1.0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("more", [{"volt_watt": True, "q_control": "none"}, {"volt_var_priority": "q"}])
@pytest.mark.parametrize("formulation", [*EXACT, "lindist3flow", "linearised"])
def test_no_power_where_new_data_say_night(formulation: str, more: dict[str, Any]) -> None:
    """At full sun p was on its curve; the first-order model went on along that curve, and gave 300 kW in the dark."""
    sun = {"sun": np.array([0.0, 1.0])}
    device = pv(p_rated_kw=300.0, profile="sun", **more)
    case = two_bus(device, source={"v_pu": 1.09}, horizon=Horizon.regular(2), profiles=sun)
    model = build(case, formulation, "loss").update(pv={"p": np.array([150.0, 0.0])})
    p = model.solve().set_points["pv.p"][0]
    assert 50.0 < p[0] <= 150.0 + 1e-6
    assert p[1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("formulation", [*EXACT, "lindist3flow"])
@pytest.mark.parametrize("more", [{}, {"volt_var_reference": "available"}, {"volt_var_priority": "q"}])
def test_no_kvar_at_night_with_new_sun_too(formulation: str, more: dict[str, Any]) -> None:
    sun = {"sun": np.array([0.5, 0.0])}
    device = pv(profile="sun", volt_var_at_night=False, **more)
    case = two_bus(device, source={"v_pu": 1.05}, horizon=Horizon.regular(2), profiles=sun)
    model = build(case, formulation)
    first = model.solve().set_points["pv.p"][1]
    flow = power_flow(case)
    assert first[0] < -10.0
    assert first[1] == pytest.approx(0.0, abs=1e-9)
    assert flow.vmag_pu[flow.index.position["b", 1], 1] == pytest.approx(1.05, abs=1e-9)
    turned = model.update(pv={"p": np.array([0.0, 100.0])}).solve().set_points["pv.p"][1]
    assert turned[0] == pytest.approx(0.0, abs=1e-9)
    assert turned[1] == pytest.approx(first[0], abs=0.05 * abs(first[0]))
    always = dataclasses.replace(device, volt_var_at_night=True)
    assert solved(case.with_(devices=(case.devices[0], always)), formulation).set_points["pv.p"][1][1] < -10.0


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize("reference", ["rating", "available"])
def test_a_limit_of_kvar(formulation: str, reference: str) -> None:
    """A curve to 1 at its ends, cut at 0.3 of the rating: 90 kvar of 300, where the curve asks for more."""
    device = pv(
        volt_var_v_pu=(0.9, 0.98, 1.02, 1.1), volt_var_q_pu=(1.0, 0.0, 0.0, -1.0), volt_var_q_max_pu=0.3,
        volt_var_reference=reference,
    )  # fmt: skip
    size = S if reference == "rating" else np.sqrt(S**2 - 0.2**2)

    def law(u: float) -> float:
        return float(np.clip(size * np.interp(u, device.volt_var_v_pu, device.volt_var_q_pu), -0.09, 0.09))

    for v in (1.02, 1.12):
        u, q = by_hand(law, v)
        case = two_bus(device, source={"v_pu": v})
        r = solved(case, formulation)
        assert r.set_points["pv.p"][1][0] == pytest.approx(1000 * q, abs=1e-5)
        flow = power_flow(case)
        assert flow.vmag_pu[flow.index.position["b", 1], 0] == pytest.approx(u, abs=1e-7)
    assert q == pytest.approx(-0.09, abs=1e-12)


def test_a_clipped_curve_has_a_point_at_its_limit() -> None:
    v, q = var_points(pv(volt_var_v_pu=(0.9, 1.1), volt_var_q_pu=(1.0, -1.0), volt_var_q_max_pu=0.5))
    assert v == pytest.approx((0.9, 0.95, 1.05, 1.1))
    assert q == pytest.approx((0.5, 0.5, -0.5, -0.5))


@pytest.mark.parametrize("formulation", EXACT)
def test_volt_watt_of_a_fixed_system_by_hand(formulation: str) -> None:
    """p is the lesser of sun and curve, whatever it is worth: here buying is paid for, and what it gives costs."""
    watt = pv(q_control="none", volt_watt=True)
    for v in (1.0, 1.055, 1.09):
        case = two_bus(watt, source={"v_pu": v, "price_import": -0.1})
        p = _fixed_point(lambda u: min(0.2, 0.2 * float(np.interp(u, (1.06, 1.1), (1.0, 0.2)))), v)
        r = solved(case, formulation)
        assert r.set_points["pv.p"][0][0] == pytest.approx(1000 * p, abs=1e-4)
        flow = power_flow(case)
        assert flow.all_converged
        assert flow.vmag_pu[flow.index.position["b", 1], 0] == pytest.approx(voltage(p, 0.0, v), abs=1e-6)


def _fixed_point(law: Any, v_source: float) -> float:
    low, high = 0.0, S
    for _ in range(100):
        p = (low + high) / 2
        low, high = (p, high) if law(voltage(p, 0.0, v_source)) > p else (low, p)
    return low


@pytest.mark.parametrize("formulation", EXACT)
def test_both_laws_at_once(formulation: str) -> None:
    """Volt-var per unit of what the p that volt-watt allows leaves; both equations hold at the solution."""
    both = available(volt_watt=True, volt_watt_v_pu=(1.03, 1.08))
    case = two_bus(both, source={"v_pu": 1.05})
    r = solved(case, formulation)
    p, q = (x[0] / 1000.0 for x in r.set_points["pv.p"])
    u = np.sqrt(v_b(r))
    assert p == pytest.approx(0.2 * np.interp(u, (1.03, 1.08), (1.0, 0.2)), abs=1e-6)
    assert 0.05 < p < 0.18
    assert q == pytest.approx(np.sqrt(S**2 - p**2) * curve(u), abs=1e-6)
    assert voltage(p, q, 1.05) == pytest.approx(u, abs=1e-8)
    flow = power_flow(case)
    assert flow.vmag_pu[flow.index.position["b", 1], 0] == pytest.approx(u, abs=1e-6)


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize("sun", [250.0, 290.0, 300.0, 330.0])
@pytest.mark.parametrize("v", [0.98, 1.05, 1.12])
def test_what_gives_way_at_the_rating(formulation: str, sun: float, v: float) -> None:
    """With q first p is what q leaves, with p first q is what p leaves; below the rating neither gives way.

    Within a thousandth of the rating of the corner its rounding shows: none of these is that near.
    """
    found = {}
    for first in ("q", "p"):
        case = two_bus(pv(p_rated_kw=sun, volt_var_priority=first), source={"v_pu": v, "price_import": -0.1})
        p, q = (x[0] / 1000.0 for x in solved(case, formulation).set_points["pv.p"])
        offered, u = min(sun / 1000.0, S), voltage(p, q, v)
        asked = S * curve(u)
        if first == "q":
            expected = min(offered, np.sqrt(S**2 - asked**2)), asked
        else:
            r = np.sqrt(S**2 - offered**2)
            expected = offered, float(np.clip(asked, -r, r))
        assert (p, q) == (pytest.approx(expected[0], abs=1e-7), pytest.approx(expected[1], abs=1e-7))
        flow = power_flow(case)
        assert flow.all_converged
        assert flow.vmag_pu[flow.index.position["b", 1], 0] == pytest.approx(u, abs=1e-7)
        found[first] = p, q
    if sun == 300.0 and v == 0.98:
        assert found["q"] == (pytest.approx(S, abs=1e-9), pytest.approx(0.0, abs=1e-9))
    if sun >= 290.0 and v > 1.05:
        assert found["q"][0] < found["p"][0] - 1e-3
        assert abs(found["p"][1]) < abs(found["q"][1]) - 1e-3


@pytest.mark.parametrize("first", ["q", "p"])
@pytest.mark.parametrize("formulation", EXACT)
def test_what_is_decided_stays_within_the_rating_with_q(formulation: str, first: str) -> None:
    """Selling pays: with q first the disc holds at the q of the curve, with p first all of the sun is sold."""
    device = pv(p_rated_kw=290.0, curtailable=True, volt_var_priority=first)
    r = solved(two_bus(device, source={"v_pu": 1.1}), formulation)
    p, q = (x[0] / 1000.0 for x in r.set_points["pv.p"])
    asked = S * curve(np.sqrt(v_b(r)))
    if first == "q":
        assert (p, q) == (pytest.approx(np.sqrt(S**2 - asked**2), abs=1e-6), pytest.approx(asked, abs=1e-6))
    else:
        assert (p, q) == (pytest.approx(0.29, abs=1e-5), pytest.approx(-np.sqrt(S**2 - p**2), abs=1e-5))


@pytest.mark.parametrize("formulation", EXACT)
def test_curtailed_power_leaves_more_kvar(formulation: str) -> None:
    """What is cut by decision (it costs money to sell) leaves all of the rating for q."""
    case = two_bus(available(curtailable=True), source={"v_pu": 1.05, "price_import": -0.1})
    r = solved(case, formulation)
    p, q = r.set_points["pv.p"]
    assert p[0] == pytest.approx(0.0, abs=1e-3)
    _, expected = by_hand(lambda u: S * curve(u), 1.05, p=0.0)
    assert q[0] == pytest.approx(1000 * expected, abs=1e-3)


@pytest.mark.parametrize("formulation", EXACT)
def test_a_battery_follows_with_what_it_leaves(formulation: str) -> None:
    x = battery(p_discharge_max_kw=250.0, soc_initial=1.0, energy_kwh=600.0, volt_var_reference="available")
    case = two_bus(x, source={"price_import": 0.5, "v_pu": 1.04})
    r = solved(case, formulation, terminal="free")
    p, q = (v[0] / 1000.0 for v in r.set_points["battery.p"])
    assert p == pytest.approx(0.25, abs=1e-5)
    assert q == pytest.approx(np.sqrt(S**2 - p**2) * curve(np.sqrt(v_b(r))), abs=1e-6)


@pytest.mark.parametrize("phases", ["balanced", "free"])
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("formulation", ["current-voltage", "bus-injection"])
def test_the_mean_voltage_to_ground(place: dict[str, Any], formulation: str, phases: str) -> None:
    """Ports of uneven voltages give the same, by the mean of the phases to ground; exact in OpenDSS."""
    device = available(curve_voltage="mean", phases=phases, **place)
    case = three(device)
    r = replayed(solved(case, formulation, "loss"))
    assert r.replay.errors.max_dv_pu <= 1e-7  # type: ignore[union-attr]
    nodes = list(r.network.nodes)
    re, im = r.value("bus.v_re"), r.value("bus.v_im")
    at = {name: k for k, name in enumerate(r.elements("bus.v_re"))}
    size = {n: np.abs(re[at[f"{n[0]}.{n[1]}"]] + 1j * im[at[f"{n[0]}.{n[1]}"]]) for n in nodes}
    mean = np.mean([size["b", c] for c in device.sensed], axis=0)
    p, q = r.port_points["pv.p"]
    s = 300.0 / len(q)
    rounded = Bends(np.array([device.volt_var_v_pu]), np.array([device.volt_var_q_pu]), np.array([[ROUNDING_PU]]))
    expected = np.sqrt(s**2 - p**2) * rounded.value(mean[None])[0]
    # where p is decided it may take all of a port's share, and then a thousandth of it is left
    np.testing.assert_allclose(q, expected, atol=1e-3 if phases == "balanced" else ROUNDING_SHARE * s)
    if phases == "balanced":
        flow = power_flow(case)
        ours = [flow.vmag_pu[flow.index.position["b", c]] for c in (1, 2, 3)]
        np.testing.assert_allclose(ours, [size["b", c] for c in (1, 2, 3)], atol=1e-6)


def laws() -> list[Any]:
    return [
        available(terminals=(1, 2, 3, 0), curve_voltage="mean", volt_watt=True, volt_watt_v_pu=(1.0, 1.06)),
        available(name="limited", terminals=(1, 2), connection="delta", volt_var_q_max_pu=0.2, curve_voltage="mean"),
        available(name="cut", terminals=(2, 0), curtailable=True, s_max_kva=100.0, p_rated_kw=90.0),
        battery(name="s", terminals=(1, 2, 3, 0), volt_var_reference="available", curve_voltage="mean"),
        pv(name="gives", terminals=(3, 0), p_rated_kw=95.0, s_max_kva=90.0, volt_var_priority="q"),
        pv(name="takes", terminals=(1, 3, 0), p_rated_kw=95.0, s_max_kva=100.0, volt_var_priority="p"),
    ]


def test_linearised_in_rounds_meets_the_exact_optimum() -> None:
    case = three(*laws())
    exact = solved(case, "current-voltage", "loss")
    r = solve(case, "linearised", "loss")
    assert r.ok, r.status_text
    assert r.objective == pytest.approx(exact.objective, rel=1e-5)
    assert replayed(r).replay.errors.max_dv_pu <= 1e-6  # type: ignore[union-attr]


@pytest.mark.parametrize("formulation", ["lindist3flow", "soc3", "sdp"])
def test_other_formulations_take_the_laws_at_their_point(formulation: str) -> None:
    case = three(*laws()[:2])
    model = build(case, formulation, "loss")
    r = model.solve()
    assert r.ok, r.status_text
    assert any("volt_var of 2 devices is the piece of its curve" in c for c in r.choices)
    assert any("volt_watt of 1 device is the piece of its curve" in c for c in r.choices)


def test_rounds_of_the_linear_model_come_near() -> None:
    case = three(*laws()[:2])
    model = build(case, "lindist3flow", "loss")
    r = refined(model, model.solve(), rounds=4)
    assert replayed(r).replay.errors.max_dv_pu <= 2e-4  # type: ignore[union-attr]


def test_a_falling_limit_goes_on_above_its_first_value() -> None:
    assert falling(((1.0, 1.06, 1.1), (1.0, 1.0, 0.2))) == (pytest.approx((1.05, 1.1)), pytest.approx((1.2, 0.2)))
    assert falling(((1.0, 1.1), (0.7, 0.7))) == ((1.0, 1.1), pytest.approx((0.9, 0.9)))


def test_the_rest_of_a_circle_and_its_derivatives() -> None:
    c, z = Circle(np.array([[0.3]]), 1e-3), np.linspace(-0.35, 0.35, 61)[None]
    h = 1e-6
    np.testing.assert_allclose(c.slope(z), (c.value(z + h) - c.value(z - h)) / (2 * h), atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(c.bend(z), (c.slope(z + h) - c.slope(z - h)) / (2 * h), atol=1e-3, rtol=1e-3)
    assert c.value(np.array([[0.297]]))[0, 0] == pytest.approx(np.sqrt(0.3**2 - 0.297**2), rel=1e-8)
    assert c.value(np.array([[0.3]]))[0, 0] == pytest.approx(3e-4, rel=1e-9)


def test_a_choice_that_does_not_exist() -> None:
    case = two_bus(HUNGRY, dataclasses.replace(pv(), volt_var_reference="kva", curve_voltage="max"))
    assert [f.code[:7] for f in check(case)] == ["VAL-004", "VAL-004"]


def same_as_its_power_flow(device: Any, **source: Any) -> None:
    """Nothing is decided: the program's only point is the power flow, at every step."""
    sun = {"sun": np.array([0.0, 0.6, 1.0])}
    case = two_bus(device, source=source, horizon=Horizon.regular(3), profiles=sun)
    flow = power_flow(case)
    assert flow.all_converged
    r = solved(case, "nonlinear", "loss")
    np.testing.assert_allclose(
        np.sqrt(r.value("bus.vmag_sq")[r.elements("bus.vmag_sq").index("b.1")]),
        flow.vmag_pu[flow.index.position["b", 1]],
        atol=1e-7,
    )


def test_a_power_factor_stays_beside_volt_watt_that_never_allows_all() -> None:
    """At most 0.4 of the rated power at any voltage; the power flow gave all of it below the curve's first point."""
    points = {"volt_watt_v_pu": (1.0, 1.06), "volt_watt_p_pu": (0.4, 0.1)}
    device = pv(q_control="power_factor", power_factor=0.9, profile="sun", volt_watt=True, **points)
    same_as_its_power_flow(device, v_pu=0.96)


@pytest.mark.parametrize("more", [{"volt_watt": True}, {"volt_var_priority": "q"}])
@pytest.mark.parametrize("none", ["p_rated_kw", "s_max_kva"])
def test_no_rating_gives_nothing_and_settles(none: str, more: dict[str, Any]) -> None:
    same_as_its_power_flow(pv(profile="sun", **{none: 0.0}, **more), v_pu=1.05)


def test_night_is_where_the_sun_offers_nothing() -> None:
    """Not where no p is left: this curve keeps all of the rating for q, by day."""
    points = {"volt_var_v_pu": (0.9, 1.1), "volt_var_q_pu": (1.0, -1.0)}
    same_as_its_power_flow(pv(profile="sun", volt_var_at_night=False, **points), v_pu=1.05)


def test_one_port_that_may_decide_decides_nothing() -> None:
    """With all of the rating as p there is no q, of one port with its phases free as of any."""
    device = available(p_rated_kw=300.0, profile="sun", phases="free", volt_var_q_pu=(1.0, 0.0, 0.0, -1.0))
    case = two_bus(device, source={"v_pu": 1.05}, horizon=Horizon.regular(1), profiles={"sun": np.ones(1)})
    p, q = following_ports(case)["pv.p"]
    assert (p[0, 0], q[0, 0]) == (pytest.approx(300.0), pytest.approx(0.0, abs=1e-9))


def test_points_as_near_as_is_allowed() -> None:
    """1.001 - 1.0 is less than 0.001 in floating point."""
    assert not check(two_bus(pv(volt_var_v_pu=(1.0, 1.001), volt_var_q_pu=(0.1, -0.1))))
    assert [f.code[:7] for f in check(two_bus(pv(volt_var_v_pu=(1.0, 1.00099), volt_var_q_pu=(0.1, -0.1))))] == [
        "DEV-013"
    ]
