"""What every solution obeys: energy closes, storage adds up, the relaxation is a bound, duals are derivatives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateral.baseline import load_power, power_flow
from lateral.case import Case
from lateral.devices import Capacitor, Load, Source
from lateral.network.horizon import Horizon
from lateral.opf import build, dispatch_of
from lateral.results.result import Result
from strategies import AFFINE_MODELS, balanced_cases, three_phase_cases

FEW = settings(max_examples=12, deadline=None, derandomize=True)
BALANCED = st.sampled_from(["lindistflow", "soc", "nonlinear"])


def run(case: Case, formulation: str, objective: str = "cost", **options: object) -> Result:
    result = build(case, formulation, objective, **options).solve()  # type: ignore[arg-type]
    assert result.ok, result.status_text
    return result


def drawn(r: Result, load: Load) -> np.ndarray:
    """What a load takes at the voltages of a result, kW, by its own definition."""
    v = np.sqrt(r.value("bus.vmag_sq")[r.elements("bus.vmag_sq").index(f"{load.bus}.1")])
    p, _ = load_power(r.case, load)
    return p * sum(a * v**e for a, e in load.terms[0])


@FEW
@given(balanced_cases(breaks=True, weights=True, models=AFFINE_MODELS), st.sampled_from(["soc", "nonlinear"]))
def test_energy_closes(case: Case, formulation: str) -> None:
    """import + PV + discharge = load + charge + losses at every step, to 1e-6 pu of total power."""
    r = run(case, formulation)
    given_ = r.p_source_kw + sum(p for p, _ in r.set_points.values())
    taken = sum(drawn(r, load) for load in case.loads) + r.losses_kw
    np.testing.assert_allclose(given_, taken, atol=1e-6 * case.base.total_kva)


@FEW
@given(balanced_cases(models=("constant_power", "constant_current", "zip", "constant_impedance")))
def test_exact_model_is_the_power_flow_of_its_schedule(case: Case) -> None:
    """Independent nodal power flow with the set-points: voltages and losses agree, and with them the whole balance."""
    r = run(case, "nonlinear")
    points = dispatch_of(r)
    by_kind = {
        kind: (
            np.array([points.p_kw[d.label] for d in devices]),
            np.array([points.q_kvar[d.label] for d in devices]),
        )
        for kind, devices in (("pv", case.pvs), ("battery", case.batteries))
        if devices
    }
    flow = power_flow(case, dispatch=by_kind)
    assert flow.converged.all()
    place = {node: k for k, node in enumerate(flow.index.nodes)}
    v = flow.vmag_pu[[place[n] for n in r.network.nodes]]
    np.testing.assert_allclose(np.sqrt(r.value("bus.vmag_sq")), v, atol=2e-6)


@FEW
@given(balanced_cases(models=("constant_power",)))
def test_energy_closes_without_losses_in_the_linear_model(case: Case) -> None:
    r = run(case, "lindistflow")
    given_ = r.p_source_kw + sum(p for p, _ in r.set_points.values())
    np.testing.assert_allclose(given_, sum(drawn(r, d) for d in case.loads), atol=1e-6 * case.base.total_kva)


@FEW
@given(
    balanced_cases(breaks=True, weights=True),
    BALANCED,
    st.sampled_from(["equal", "at-least", "free"]),
)
def test_stored_energy_adds_up(case: Case, formulation: str, terminal: str) -> None:
    r = run(case, formulation, terminal=terminal)
    h = case.horizon
    begins = {0, *h.breaks}
    for k, b in enumerate(case.batteries):
        charge, discharge, energy = (r.value(f"battery.{q}")[k] for q in ("p_charge", "p_discharge", "energy"))
        tolerance = 1e-6 * case.base.total_kva
        for t in range(h.n_steps):
            before = b.soc_initial * b.energy_kwh if t in begins else energy[t - 1]
            stored = h.step_h[t] * (b.eta_charge * charge[t] - discharge[t] / b.eta_discharge)
            assert energy[t] == pytest.approx(before + stored, abs=tolerance)
        for t in (*(x - 1 for x in h.breaks), h.n_steps - 1):
            if terminal == "equal":
                assert energy[t] == pytest.approx(b.soc_initial * b.energy_kwh, abs=tolerance)
            elif terminal == "at-least":
                assert energy[t] >= b.soc_initial * b.energy_kwh - tolerance
        assert energy.min() >= b.soc_min * b.energy_kwh - tolerance
        assert energy.max() <= b.soc_max * b.energy_kwh + tolerance
        q = r.value("battery.q_injected")[k]
        assert np.all((discharge - charge) ** 2 + q**2 <= b.s_max_kva**2 + 2 * b.s_max_kva * tolerance)
    assert r.max_simultaneous_kw < 1e-2  # prices are positive


@FEW
@given(balanced_cases(models=AFFINE_MODELS))
def test_relaxation_is_a_bound_and_exact_when_tight(case: Case) -> None:
    cone, exact = run(case, "soc"), run(case, "nonlinear")
    size = max(abs(exact.objective), 0.05)
    assert cone.objective <= exact.objective + 2e-6 * size
    if cone.max_relaxation_gap <= 1e-7:
        assert cone.objective == pytest.approx(exact.objective, abs=2e-6 * size)


def test_relaxation_is_tight_in_most_random_cases() -> None:
    """The law above is not empty: radial, positive prices, no generation but storage, no load that falls with V."""
    tight = []

    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @given(balanced_cases(models=("constant_power",), pvs=False))
    def count(case: Case) -> None:
        tight.append(run(case, "soc").max_relaxation_gap <= 1e-5)

    count()
    assert sum(tight) >= 0.9 * len(tight)


@FEW
@given(three_phase_cases(models=("constant_power", "constant_impedance")))
def test_linear_model_is_exact_at_its_point(case: Case) -> None:
    """Nothing to decide: the linear three-phase model is the AC power flow, voltages to 1e-7 pu."""
    fixed = case.with_(devices=tuple(d for d in case.devices if isinstance(d, Source | Load | Capacitor)))
    r = run(fixed, "lindist3flow")
    flow = power_flow(fixed)
    place = {node: k for k, node in enumerate(flow.index.nodes)}
    v = flow.vmag_pu[[place[n] for n in r.network.nodes]]
    np.testing.assert_allclose(np.sqrt(r.value("bus.vmag_sq")), v, atol=1e-6)
    np.testing.assert_allclose(r.p_source_kw, flow.sources_kva.real.sum(axis=0), atol=1e-3)


# -- duals ----------------------------------------------------------------------------------------------------------


def with_extra(case: Case, bus: str, step: int, p: float, q: float) -> Case:
    """The case with a little more load at a bus in one step."""
    pulse = np.zeros(case.horizon.n_steps)
    pulse[step] = 1.0
    extra = Load(name="extra", bus=bus, p_kw=p, q_kvar=q, profile="pulse")
    return case.with_(devices=(*case.devices, extra), profiles={**case.profiles, "pulse": pulse})


@FEW
@given(balanced_cases(max_buses=5, max_steps=3, weights=True), BALANCED, st.integers(0, 2**16))
def test_prices_are_finite_differences(case: Case, formulation: str, seed: int) -> None:
    """bus.p_balance and bus.q_balance: $ per extra kWh (kvarh) drawn there. h = 0.2 kW, central.

    Tolerance: each objective is known to 1e-7 relative or so, which over 2 h dt is the absolute part; the cost is
    convex and piecewise smooth, so a kink inside of +- h (an inverter at its limit) is caught by bracketing with the
    one-sided differences.
    """
    rng = np.random.default_rng(seed)
    bus = case.feeder.buses[int(rng.integers(0, len(case.feeder.buses)))].name
    t, h = int(rng.integers(0, case.horizon.n_steps)), 0.2
    r = run(case, formulation)
    for quantity, p, q in (("p_balance", h, 0.0), ("q_balance", 0.0, h)):
        price = r.dual(f"bus.{quantity}")[r.elements("bus.vmag_sq").index(f"{bus}.1"), t]
        up = run(with_extra(case, bus, t, p, q), formulation).objective
        down = run(with_extra(case, bus, t, -p, -q), formulation).objective
        per = h * case.horizon.hours[t]
        sides = sorted(((up - r.objective) / per, (r.objective - down) / per))
        slack = 4e-7 * max(abs(r.objective), 0.05) / per + 2e-4
        assert sides[0] - slack <= price <= sides[1] + slack, (quantity, bus, t)


@FEW
@given(balanced_cases(max_buses=5, max_steps=4, weights=True), BALANCED, st.floats(0.0, 1.0))
def test_export_price(case: Case, formulation: str, share: float) -> None:
    """Import is paid at one price, export earns another, never both at once; equal prices are one price."""
    case = case.with_(profiles={**case.profiles, "sell": share * case.profiles["price"]})
    many = [
        dataclasses.replace(d, price_export="sell")
        if isinstance(d, Source)
        else dataclasses.replace(d, p_kw=0.3 * d.p_kw)
        if isinstance(d, Load)
        else d
        for d in case.devices
    ]
    r = run(case.with_(devices=tuple(many)), formulation)
    p = r.p_source_kw
    price, sell, hours = case.profiles["price"], case.profiles["sell"], case.horizon.hours
    want = float(np.sum(hours * np.where(p >= 0, price, sell) * p))
    total = sum(d.p_kw for d in case.loads)
    # where the two prices are nearly equal buying and selling at once costs next to nothing, and that is the tolerance
    assert r.cost == pytest.approx(want, abs=2e-6 * max(abs(r.objective), 0.05) + 1e-7 * total)
    if share == 1.0:
        one = run(case.with_(devices=tuple(dataclasses.replace(d, price_export=None) if isinstance(d, Source) else d
                                           for d in many)), formulation)  # fmt: skip
        assert one.objective == pytest.approx(r.objective, abs=2e-6 * max(abs(r.objective), 0.05))


def test_breaks_and_non_uniform_steps_by_hand(two_buses: Case) -> None:
    """No wires to speak of: a 10 kWh battery, eta 1, price 1 then 3, in each of two periods.

    Within a period it charges to its 10 kWh limit at price 1 (from 5, so 5 kWh) and returns to 5 at price 3: it earns
    5 (3 - 1) = 10 in a period. Steps of 0.5 h and 2 h; load 2 kW costs 2 (0.5 + 3 * 2) = 13 per period.
    """
    h = Horizon(
        start=two_buses.horizon.start,
        step_h=np.array([0.5, 2.0, 0.5, 2.0]),
        weight=np.array([1, 1, 3.0, 3]),
        breaks=(2,),
    )
    case = two_buses.with_(horizon=h, profiles={"price": np.array([1.0, 3.0, 1.0, 3.0])})
    r = run(case, "lindistflow", loss_term=False)
    np.testing.assert_allclose(r.value("battery.energy")[0], [10, 5, 10, 5], atol=1e-5)
    assert r.cost == pytest.approx((13 - 10) * (1 + 3), abs=1e-5)


@pytest.fixture
def two_buses() -> Case:
    from lateral.devices import Battery
    from lateral.network.feeder import Bus, Feeder, Line

    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=(1,), conductors_to=(1,), r_ohm=[[1e-4]], x_ohm=[[1e-4]]
    )
    battery = Battery(
        name="s",
        bus="b",
        p_charge_max_kw=50.0,
        p_discharge_max_kw=50.0,
        s_max_kva=60.0,
        energy_kwh=10.0,
        eta_charge=1.0,
        eta_discharge=1.0,
    )
    return Case(
        name="two",
        feeder=Feeder(buses=tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4) for n in "ab"), lines=(line,)),
        devices=(Source(name="grid", bus="a", price_import="price"), Load(name="d", bus="b", p_kw=2.0), battery),
        horizon=Horizon.regular(4),
    )
