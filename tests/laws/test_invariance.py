"""What must not change a result: base, order, names, phase rotation, three identical phases, splitting, repetition.

Tolerances: solvers stop at a relative gap of 1e-8 (recomputed, at most 1e-6), so objectives agree to 2e-6 relative, of
at least one dollar-scale cost. A schedule is flat near its optimum (a gap g moves it by about sqrt(g)), so powers agree
to 0.5 % of the load and voltages to 2e-4 pu.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lateral.case import Case
from lateral.devices import Battery, Capacitor, Source
from lateral.network.feeder import Bus
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.results.result import Result
from strategies import (
    balanced_cases,
    on_base,
    one_step,
    rotated,
    shuffled,
    three_phase_cases,
    three_phases_of,
)

FEW = settings(max_examples=12, deadline=None, derandomize=True)
SEED = st.integers(0, 2**16)
BALANCED = st.sampled_from(["lindistflow", "soc", "nonlinear"])


def run(case: Case, formulation: str, **options: object) -> Result:
    result = build(case, formulation, **options).solve()  # type: ignore[arg-type]
    assert result.ok, result.status_text
    return result


def voltages(r: Result) -> dict[str, np.ndarray]:
    return dict(zip(r.elements("bus.vmag_sq"), np.sqrt(r.value("bus.vmag_sq")), strict=True))


def assert_same(a: Result, b: Result, names: dict[str, str] | None = None) -> None:
    """Same objective, source power, device powers by name, voltages by node."""
    size = max(abs(a.objective), 0.05)
    assert abs(a.objective - b.objective) <= 2e-6 * size
    load = sum(abs(d.p_kw) for d in a.case.loads)
    np.testing.assert_allclose(a.p_source_kw, b.p_source_kw, atol=5e-3 * load)
    assert a.set_points.keys() == b.set_points.keys()
    va, vb = voltages(a), voltages(b)
    for node, v in va.items():
        bus, conductor = node.rsplit(".", 1)
        np.testing.assert_allclose(v, vb[f"{(names or {}).get(bus, bus)}.{conductor}"], atol=2e-4)


@FEW
@given(balanced_cases(breaks=True, weights=True), BALANCED, st.sampled_from([1.0, 37.0, 1e4, 1e5]))
def test_base_power_balanced(case: Case, formulation: str, s_kva: float) -> None:
    assert_same(run(case, formulation), run(on_base(case, s_kva), formulation))


@FEW
@given(three_phase_cases(), st.sampled_from(["baseline", "nominal"]), st.sampled_from([10.0, 1e5]))
def test_base_power_three_phase(case: Case, point: str, s_kva: float) -> None:
    a, b = (run(c, "lindist3flow", point=point) for c in (case, on_base(case, s_kva)))
    assert_same(a, b)


@FEW
@given(balanced_cases(breaks=True), BALANCED, SEED)
def test_order_and_names_balanced(case: Case, formulation: str, seed: int) -> None:
    other, names = shuffled(case, seed)
    assert_same(run(case, formulation), run(other, formulation), names)


@FEW
@given(three_phase_cases(), SEED)
def test_order_and_names_three_phase(case: Case, seed: int) -> None:
    other, names = shuffled(case, seed)
    assert_same(run(case, "lindist3flow"), run(other, "lindist3flow"), names)


@FEW
@given(three_phase_cases(), st.sampled_from(["baseline", "nominal"]))
def test_phase_rotation(case: Case, point: str) -> None:
    """Conductors 1 -> 2 -> 3 -> 1; voltages move with them."""
    a, b = run(case, "lindist3flow", point=point), run(rotated(case), "lindist3flow", point=point)
    assert abs(a.objective - b.objective) <= 2e-6 * max(abs(a.objective), 0.05)
    va, vb = voltages(a), voltages(b)
    for node, v in va.items():
        bus, c = node.rsplit(".", 1)
        np.testing.assert_allclose(v, vb[f"{bus}.{int(c) % 3 + 1}"], atol=2e-4)


def on_voltage_base(case: Case, share: float) -> Case:
    """Every voltage base this share of what it was; limits and sources mean what they meant, ratings are stated."""
    bus = case.feeder.bus
    buses = tuple(
        dataclasses.replace(b, v_base_kv=share * b.v_base_kv, v_min_pu=b.v_min_pu / share, v_max_pu=b.v_max_pu / share)
        for b in case.feeder.buses
    )
    devices = []
    for d in case.devices:
        if isinstance(d, Source):
            devices.append(dataclasses.replace(d, v_pu=float(d.v_pu) / share))
        else:
            across = 1.0 if d.connection == "wye" else np.sqrt(3.0)
            devices.append(dataclasses.replace(d, v_rated_kv=across * bus[d.bus].v_base_kv))
    return case.with_(feeder=dataclasses.replace(case.feeder, buses=buses), devices=tuple(devices))


def in_pieces(case: Case, share: float) -> Case:
    """Every line without charging in two, the second turned round; every load in two beside each other."""
    buses, lines = list(case.feeder.buses), []
    for e in case.feeder.lines:
        if e.b_us is not None:
            lines.append(e)
            continue
        end = case.feeder.bus[e.bus_from]
        middle = Bus(
            name=f"{e.name}m", conductors=e.conductors_from, v_base_kv=end.v_base_kv, v_min_pu=0, v_max_pu=np.inf
        )
        buses.append(middle)
        lines += [
            dataclasses.replace(
                e, bus_to=middle.name, conductors_to=e.conductors_from, r_ohm=share * e.r_ohm, x_ohm=share * e.x_ohm
            ),
            dataclasses.replace(
                e,
                name=f"{e.name}b",
                bus_from=e.bus_to,
                bus_to=middle.name,
                conductors_from=e.conductors_to,
                conductors_to=e.conductors_from,
                r_ohm=(1.0 - share) * e.r_ohm,
                x_ohm=(1.0 - share) * e.x_ohm,
            ),
        ]
    halves = [
        dataclasses.replace(d, name=f"{d.name}{k}", p_kw=part * d.p_kw, q_kvar=part * d.q_kvar)
        for d in case.loads
        for k, part in enumerate((share, 1.0 - share))
    ]
    others = tuple(d for d in case.devices if d not in case.loads)
    feeder = dataclasses.replace(case.feeder, buses=tuple(buses), lines=tuple(lines))
    return case.with_(feeder=feeder, devices=(*others, *halves))


def dearer(case: Case, times: float) -> Case:
    """Every price so many times as high, that of battery losses too."""
    profiles = {**case.profiles, "price": times * case.profiles["price"]}
    return case.with_(profiles=profiles, alpha_usd_per_kwh=times * case.alpha_usd_per_kwh)


@FEW
@given(three_phase_cases(), st.floats(0.9, 1.1), st.floats(0.2, 0.8), SEED)
def test_the_exact_optimum_knows_no_bases_pieces_directions_order_or_currency(
    case: Case, base: float, share: float, seed: int
) -> None:
    """Of any load law, in any connection; the form of several conductors takes all of it as it is."""
    a = run(case, "current-voltage").objective
    others = {
        "base": on_voltage_base(case, base),
        "pieces": in_pieces(case, share),
        "order": shuffled(case, seed)[0],
        "phases": rotated(case),
    }
    for what, other in others.items():
        assert abs(run(other, "current-voltage").objective - a) <= 2e-6 * max(abs(a), 0.05), what
    assert abs(run(dearer(case, 7.0), "current-voltage").objective / 7.0 - a) <= 2e-6 * max(abs(a), 0.05)


@FEW
@given(balanced_cases(), st.sampled_from(["baseline", "nominal"]))
def test_three_identical_phases_are_the_balanced_feeder(case: Case, point: str) -> None:
    """With coupling between phases; energies, cost and each conductor's voltage."""
    case = case.with_(feeder=dataclasses.replace(case.feeder, n_phases=3, balanced=True))
    a = run(case, "lindist3flow", point=point)
    b = run(three_phases_of(case), "lindist3flow", point=point)
    # charging has zero-sequence parts that a balanced feeder does not see: equal to 1e-6 all the same
    assert abs(a.objective - b.objective) <= 2e-6 * max(abs(a.objective), 0.05)
    assert abs(a.losses_kwh - b.losses_kwh) <= 2e-3 * max(a.losses_kwh, 0.01)
    va, vb = voltages(a), voltages(b)
    for node, v in vb.items():
        np.testing.assert_allclose(v, va[f"{node.rsplit('.', 1)[0]}.1"], atol=2e-4)


@FEW
@given(balanced_cases(models=("constant_power", "constant_impedance")))
def test_nominal_three_phase_model_is_lindistflow(case: Case) -> None:
    """On one conductor per bus, made at the unloaded point, nothing differs but the voltages in the loss term."""
    case = case.with_(devices=tuple(d for d in case.devices if not isinstance(d, Capacitor)))
    a = run(case, "lindistflow", loss_term=False)
    b = run(case, "lindist3flow", point="nominal", loss_term=False)
    assert abs(a.cost - b.cost) <= 2e-6 * max(abs(a.cost), 0.05)


@FEW
@given(balanced_cases(batteries=False, weights=True), BALANCED)
def test_uncoupled_steps_are_single_solves(case: Case, formulation: str) -> None:
    whole = run(case, formulation)
    parts = [run(one_step(case, t), formulation) for t in range(case.horizon.n_steps)]
    assert abs(whole.objective - sum(p.objective for p in parts)) <= 2e-6 * max(abs(whole.objective), 0.05)
    load = sum(d.p_kw for d in case.loads)
    for t, part in enumerate(parts):
        assert abs(whole.p_source_kw[t] - part.p_source_kw[0]) <= 5e-3 * load


@FEW
@given(balanced_cases(), BALANCED)
def test_a_break_before_every_step_uncouples_batteries(case: Case, formulation: str) -> None:
    h = case.horizon
    broken = case.with_(horizon=dataclasses.replace(h, breaks=tuple(range(1, h.n_steps))))
    whole = run(broken, formulation)
    parts = [run(one_step(case, t), formulation).objective for t in range(h.n_steps)]
    assert abs(whole.objective - sum(parts)) <= 2e-6 * max(abs(whole.objective), 0.05)
    for b in case.batteries:  # every period ends where it began
        k = whole.elements("battery.energy").index(b.name)
        np.testing.assert_allclose(whole.value("battery.energy")[k], b.soc_initial * b.energy_kwh, atol=1e-4)


@FEW
@given(balanced_cases(max_steps=3), BALANCED, st.integers(2, 4))
def test_a_weight_is_a_repetition(case: Case, formulation: str, times: int) -> None:
    """A period of weight w costs as much as w such periods, one after the other with breaks between."""
    h = case.horizon
    n = h.n_steps
    weighted = case.with_(horizon=dataclasses.replace(h, weight=np.full(n, float(times))))
    repeated = case.with_(
        horizon=Horizon(
            start=h.start,
            step_h=np.tile(h.step_h, times),
            weight=np.ones(n * times),
            breaks=tuple(n * k for k in range(1, times)),
        ),
        profiles={k: np.tile(v, times) for k, v in case.profiles.items()},
    )
    a, b = run(weighted, formulation), run(repeated, formulation)
    assert abs(a.objective - b.objective) <= 2e-6 * max(abs(a.objective), 0.05)
    assert abs(a.energy_import_kwh - b.energy_import_kwh) <= 5e-3 * max(abs(a.energy_import_kwh), 1.0)


@FEW
@given(balanced_cases(max_buses=5, max_steps=4), BALANCED, st.integers(2, 3))
def test_splitting_a_step_without_storage_changes_nothing(case: Case, formulation: str, parts: int) -> None:
    """A step of length dt is k steps of dt / k: power is a mean over the step."""
    case = case.with_(devices=tuple(d for d in case.devices if not isinstance(d, Battery)))
    h = case.horizon
    split = case.with_(
        horizon=dataclasses.replace(
            h, step_h=np.repeat(h.step_h / parts, parts), weight=np.repeat(h.weight, parts), breaks=()
        ),
        profiles={k: np.repeat(v, parts) for k, v in case.profiles.items()},
    )
    a, b = run(case, formulation), run(split, formulation)
    assert abs(a.objective - b.objective) <= 2e-6 * max(abs(a.objective), 0.05)
