"""Volt-var and volt-watt: by hand on two buses, in every formulation, in the power flow, in OpenDSS; faults."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from test_compensators import PLACES, three
from test_devices import HUNGRY, Z, two_bus, v_b

from lateral import baseline
from lateral.baseline import following_ports, power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.devices import PV, Battery, Load
from lateral.devices.voltage_law import ROUNDING_PU
from lateral.errors import UnsupportedError
from lateral.io.dispatch import Dispatch
from lateral.network.horizon import Horizon
from lateral.opf import build, linear_power_flow, refined, replayed
from lateral.program import Bends, OfRoot
from lateral.replay import replay
from lateral.results.result import Result

EXACT = ("current-voltage", "bus-injection")


def pv(**more: Any) -> PV:
    return PV(**{"name": "p", "bus": "b", "p_rated_kw": 200.0, "s_max_kva": 300.0, "q_control": "volt_var"} | more)


def battery(**more: Any) -> Battery:
    given = {"p_charge_max_kw": 100.0, "p_discharge_max_kw": 100.0, "s_max_kva": 300.0, "energy_kwh": 200.0}
    return Battery(**{"name": "p", "bus": "b", "q_control": "volt_var"} | given | more)  # type: ignore[arg-type]


def solved(case: Case, formulation: str, objective: str = "cost", **options: Any) -> Result:
    r = build(case, formulation, objective, **options).solve()
    assert r.ok, r.status_text
    return r


def by_hand(v_source: float, p: float = 0.2, points: Any = None) -> tuple[float, float]:
    """|V| and q (pu) of 200 kW behind z with q = 0.3 f(|V|): bisection over v = |V|^2.

    For given p, q the larger root of ``v^2 - (2 (r p + x q) + V_s^2) v + |z|^2 (p^2 + q^2) = 0`` (generation).
    """
    at, q_at = points or ((0.92, 0.98, 1.02, 1.08), (0.44, 0.0, 0.0, -0.44))

    def v_of(q: float) -> float:
        b = 2 * (Z.real * p + Z.imag * q) + v_source**2
        return float(np.sqrt((b + np.sqrt(b**2 - 4 * abs(Z) ** 2 * (p**2 + q**2))) / 2))

    low, high = -0.3, 0.3
    for _ in range(100):
        q = (low + high) / 2
        if 0.3 * np.interp(v_of(q), at, q_at) > q:
            low = q
        else:
            high = q
    return v_of(low), low


#: inside a slope, on the flat, and at the other slope; beyond both ends
SOURCES = (0.93, 0.96, 1.0, 1.03, 1.05, 1.12)


@pytest.mark.parametrize("v", SOURCES)
@pytest.mark.parametrize("formulation", [*EXACT, "nonlinear", "lindist3flow"])
def test_volt_var_by_hand(formulation: str, v: float) -> None:
    """Exact: corners are rounded over 1e-3 pu (`ROUNDING_PU`), and no voltage here is that near to one."""
    case = two_bus(pv(), source={"v_pu": v})
    r = solved(case, formulation)
    u, q = by_hand(v)
    assert min(abs(u - at) for at in (0.92, 0.98, 1.02, 1.08)) > ROUNDING_PU
    assert np.sqrt(v_b(r)) == pytest.approx(u, abs=1e-10)
    p_found, q_found = r.set_points["pv.p"]
    assert q_found[0] == pytest.approx(1000 * q, abs=2e-7)
    assert p_found[0] == 200.0
    flow = power_flow(case)
    assert flow.all_converged
    assert flow.vmag_pu[flow.index.position["b", 1], 0] == pytest.approx(np.sqrt(v_b(r)), abs=1e-6)


def test_points_of_the_user_on_another_rating() -> None:
    """Rated at 2.3 kV on a base of 2.4 kV the same bus voltage is 4.3 % higher on the curve."""
    mine = ((0.95, 1.0, 1.1), (0.3, 0.1, -0.5))
    r = solved(two_bus(pv(volt_var_v_pu=mine[0], volt_var_q_pu=mine[1])), "current-voltage")
    u, q = by_hand(1.0, points=mine)
    assert np.sqrt(v_b(r)) == pytest.approx(u, abs=1e-10)
    scaled = (tuple(v * 2.3 / 2.4 for v in mine[0]), mine[1])
    u, q = by_hand(1.0, points=scaled)
    r = solved(two_bus(pv(volt_var_v_pu=mine[0], volt_var_q_pu=mine[1], v_rated_kv=2.3)), "current-voltage")
    assert r.set_points["pv.p"][1][0] == pytest.approx(1000 * q, abs=1e-7)


@pytest.mark.parametrize("formulation", ["lindistflow", "soc", "lindist3flow"])
def test_other_formulations_take_the_piece_at_their_point_and_say_so(formulation: str) -> None:
    """Those without an operating point are made at nominal voltage: the flat piece, q = 0."""
    r = solved(two_bus(pv(), source={"v_pu": 1.05}), formulation)
    note = [c for c in r.choices if "volt_var of 1 device is the piece of its curve at the operating point" in c]
    assert len(note) == 1
    q = r.set_points["pv.p"][1][0]
    if formulation == "lindist3flow":
        assert q < -10.0
    else:
        assert q == pytest.approx(0.0, abs=1e-9)
        assert "1.0000 to 1.0000 pu" in note[0]


@pytest.mark.parametrize("make", [pv, battery])
@pytest.mark.parametrize("phases", ["balanced", "free"])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_each_port_follows_its_own_voltage(place: dict[str, Any], phases: str, make: Any) -> None:
    """Every port on the curve, and the schedule exact in OpenDSS and in our power flow."""
    case = three(make(phases=phases, **place))
    r = replayed(solved(case, "current-voltage", "loss"))
    assert r.replay.errors.max_dv_pu <= 1e-7  # type: ignore[union-attr]
    device = case.devices[-1]
    _, q = r.port_points[device.label]
    curve = Bends(np.array([device.volt_var_v_pu]), np.array([device.volt_var_q_pu]), np.array([[ROUNDING_PU]]))  # type: ignore[attr-defined]
    v = dict(zip(r.network.nodes, _phasors(r), strict=True))
    for k, (a, b) in enumerate(device.ports):  # type: ignore[attr-defined]
        u = np.abs(v["b", a] - (v["b", b] if b else 0.0)) / (1.0 if device.connection == "wye" else np.sqrt(3.0))  # type: ignore[attr-defined]
        np.testing.assert_allclose(q[k], 300.0 / len(q) * curve.value(u[None])[0], atol=1e-3)
    if phases == "free" and len(device.ports) > 1:  # type: ignore[attr-defined]
        s = 300.0 / len(q)
        assert np.abs(r.port_points[device.label][0]).max() <= s * np.sqrt(1 - 0.44**2) + 1e-4


def _phasors(r: Result) -> np.ndarray:
    """Voltages of all nodes: every node of these cases is kept."""
    re, im = r.value("bus.v_re"), r.value("bus.v_im")
    at = {name: k for k, name in enumerate(r.elements("bus.v_re"))}
    rows = [at[f"{bus}.{c}"] for bus, c in r.network.nodes]
    return (re + 1j * im)[rows]


def test_the_day_without_control_follows_the_curve() -> None:
    """power_flow, Result.baseline and the replay of `Dispatch.baseline` agree, and differ from q = 0."""
    case = three(pv(terminals=(1, 2, 3, 0)), battery(name="s", terminals=(1, 2, 0)))
    flow = power_flow(case, tolerance_pu=1e-10)
    assert flow.all_converged
    dispatch = Dispatch.baseline(case)
    assert set(dispatch.ports) == {"pv.p", "battery.s"}
    run = replay(case, dispatch)
    np.testing.assert_allclose(run.v_pu, flow.vmag_pu, atol=1e-7)
    bare = three(pv(terminals=(1, 2, 3, 0), q_control="none"))
    assert np.abs(power_flow(bare).vmag_pu - flow.vmag_pu).max() > 1e-3
    r = solved(case, "lindist3flow")
    np.testing.assert_allclose(r.baseline.vmag_pu, flow.vmag_pu, atol=1e-7)
    assert linear_power_flow(bare).ok


def test_a_power_flow_that_is_given_q_keeps_it() -> None:
    case = two_bus(pv(), source={"v_pu": 1.05})
    none = power_flow(case, pv_q=np.zeros((1, 1)))
    bare = power_flow(two_bus(pv(q_control="none"), source={"v_pu": 1.05}))
    np.testing.assert_allclose(none.v, bare.v, atol=1e-6)


def test_a_steep_curve_on_a_weak_line_settles() -> None:
    """Gain 20: 3 x the rating per pu of voltage on a reactance of 0.17 pu; plain substitution would swing."""
    steep = pv(s_max_kva=2000.0, volt_var_v_pu=(0.99, 1.01), volt_var_q_pu=(0.3, -0.3))
    flow = power_flow(two_bus(steep, source={"v_pu": 1.02}))
    assert flow.all_converged
    r = solved(two_bus(steep, source={"v_pu": 1.02}), "current-voltage")
    assert np.sqrt(v_b(r)) == pytest.approx(flow.vmag_pu[flow.index.position["b", 1], 0], abs=1e-6)


def test_ports_that_follow_are_known_where_the_day_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that does not settle has no answer."""
    case, settles = two_bus(pv(), source={"v_pu": 1.05}), baseline._followed
    assert following_ports(case)["pv.p"][1][0, 0] < 0.0

    def unsettled(*given: Any) -> Any:
        flow, loads = settles(*given)
        return dataclasses.replace(flow, converged=np.zeros(1, dtype=bool)), loads

    monkeypatch.setattr(baseline, "_followed", unsettled)
    with pytest.raises(UnsupportedError, match=r"FOR-011 .*pv\.p.* first at step 0"):
        following_ports(case)


def test_rounds_bring_the_linear_model_to_the_curve() -> None:
    """Another load moves the voltage along a slope; rounds meet the curve where the schedule is."""
    case = three(pv(terminals=(1, 2, 3, 0)), battery(name="s", terminals=(1, 2, 3, 0), q_control="free"))
    model = build(case, "lindist3flow", "loss")
    first = model.solve()
    errors = [replayed(r).replay.errors.max_dv_pu for r in (first, refined(model, first, rounds=4))]  # type: ignore[union-attr]
    assert errors[1] < 0.1 * errors[0]
    assert errors[1] < 2e-4


@pytest.mark.parametrize("formulation", [*EXACT, "nonlinear"])
def test_volt_watt_by_hand(formulation: str) -> None:
    """p <= 200 W(u), W from 1 at 1.06 to 0.2 at 1.10: what sells at a good price stops on the curve."""
    watt = pv(q_control="none", curtailable=True, volt_watt=True)
    case = two_bus(watt, source={"v_pu": 1.06})
    r = solved(case, formulation)
    p = r.set_points["pv.p"][0][0]
    u = np.sqrt(v_b(r))
    assert 1.06 < u < 1.10
    assert p == pytest.approx(200.0 * (1.0 - 0.8 * (u - 1.06) / 0.04), abs=0.2)
    # without control it gives what the curve allows, too
    flow = power_flow(case)
    assert flow.all_converged
    assert flow.vmag_pu[flow.index.position["b", 1], 0] == pytest.approx(u, abs=2e-5)
    low = solved(two_bus(watt, source={"v_pu": 1.0}), formulation)
    assert low.set_points["pv.p"][0][0] == pytest.approx(200.0, abs=1e-2)


def test_power_leaves_room_for_the_largest_q() -> None:
    """300 kW of sun behind 300 kVA: 300 sqrt(1 - 0.44^2) = 269.4 kW, in the program and without control."""
    case = two_bus(pv(p_rated_kw=300.0))
    most = 300.0 * np.sqrt(1 - 0.44**2)
    assert solved(case, "current-voltage").set_points["pv.p"][0][0] == pytest.approx(most, abs=1e-6)
    assert Dispatch.baseline(case).p("pv.p")[0] == pytest.approx(most, abs=1e-6)
    x = battery(p_discharge_max_kw=300.0, soc_initial=1.0, energy_kwh=600.0)
    r = solved(two_bus(x, HUNGRY, source={"price_import": 0.5}), "current-voltage", terminal="free")
    assert r.set_points["battery.p"][0][0] == pytest.approx(most, abs=1e-2)


def test_new_data_keep_the_curve() -> None:
    """Updated sun is clipped as in a build."""
    case = two_bus(pv(profile="sun"), horizon=Horizon.regular(2), profiles={"sun": np.array([0.5, 1.0])})
    model = build(case, "current-voltage").update(pv={"p": np.array([400.0, 100.0])})
    np.testing.assert_allclose(model.solve().set_points["pv.p"][0], [300.0 * np.sqrt(1 - 0.44**2), 100.0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"volt_var_v_pu": (0.9, 1.1)}, "DEV-013"),
        ({"volt_var_v_pu": (1.0,), "volt_var_q_pu": (0.1,)}, "DEV-013"),
        ({"volt_var_v_pu": (0.92, 1.02, 0.98, 1.08)}, "DEV-013"),
        ({"volt_var_q_pu": (-0.44, 0.0, 0.0, 0.44)}, "DEV-013"),
        ({"volt_var_q_pu": (1.44, 0.0, 0.0, -0.44)}, "VAL-003"),
        ({"volt_watt": True, "phases": "free"}, "DEV-013"),
        ({"volt_watt": True, "curtailable": True, "volt_watt_p_pu": (0.2, 1.0)}, "DEV-013"),
        ({"q_control": "watt_var"}, "VAL-004"),
    ],
)
def test_faults(change: dict[str, Any], code: str) -> None:
    case = two_bus(HUNGRY, dataclasses.replace(pv(), **change))
    assert [f.code[:7] for f in check(case)] == [code]
    unused = dataclasses.replace(
        pv(), **{k: v for k, v in change.items() if k.startswith("volt_var")}, q_control="none"
    )
    if code == "DEV-013" and "volt_watt" not in change:
        assert check(two_bus(HUNGRY, unused)) == ()


def test_a_curve_of_the_root_and_its_derivatives() -> None:
    """By central differences, away from and at a corner."""
    curve = OfRoot(Bends(np.array([[0.9, 1.0, 1.1]]), np.array([[0.4, 0.0, -0.5]]), np.array([[0.01]])))
    w = np.linspace(0.7, 1.4, 57)[None]
    h = 1e-6
    np.testing.assert_allclose(curve.slope(w), (curve.value(w + h) - curve.value(w - h)) / (2 * h), atol=1e-6)
    np.testing.assert_allclose(curve.bend(w), (curve.slope(w + h) - curve.slope(w - h)) / (2 * h), atol=1e-4)
    np.testing.assert_allclose(curve.value(np.array([[0.5]])), 0.4, atol=1e-3)


def test_loads_beside_followers_are_as_they_were() -> None:
    """The mixing touches the ports that follow, no other."""
    case = three(pv(terminals=(1, 2, 3, 0)))
    flow = power_flow(case)
    alone = power_flow(case, ports=Dispatch.baseline(case).ports)
    np.testing.assert_allclose(flow.v, alone.v, atol=1e-3)
    assert isinstance(case.devices[1], Load)


@pytest.mark.parametrize("formulation", [*EXACT, "nonlinear", "lindist3flow", "soc3", "sdp"])
def test_an_impedance_at_any_voltage_has_no_side(formulation: str) -> None:
    """Where the point is just at its rated voltage it was constant power, 5e-4 pu off, on a side that is none."""
    case = two_bus(pv(curtailable=False, q_control="none", v_min_pu=1.0, v_max_pu=1.0))
    m = build(case, formulation)
    assert m.program.granted == ()
    r = m.solve()
    flow = power_flow(case)
    there = abs(flow.v_pu[flow.index.position["b", 1], 0]) ** 2
    assert v_b(r) == pytest.approx(there, abs=2e-6)  # what the solvers of relaxations leave
    assert r.warnings == ()
