"""Capacitors with a decided share: by hand, exact in OpenDSS, at least as good as fixed, rounds of the linear model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from test_compensators import PLACES, three
from test_devices import FORMULATIONS, two_bus, v_b

from lateral.baseline import power_flow
from lateral.checks import check
from lateral.devices import Capacitor, Load, Statcom
from lateral.io.opendss.write import render_opendss
from lateral.opf import build, dispatch_of, refined, replayed
from lateral.results.result import Result

EXACT = ("current-voltage", "bus-injection")
LOAD = Load(name="x", bus="b", p_kw=300.0, q_kvar=150.0)


def bank(**more: Any) -> Capacitor:
    given = {"name": "c", "bus": "b", "q_kvar": 100.0, "q_total_kvar": 400.0, "decision": "step"}
    return Capacitor(**(given | more))  # type: ignore[arg-type]


def solved(case: Any, formulation: str, objective: str = "loss") -> Result:
    r = build(case, formulation, objective).solve()
    assert r.ok, r.status_text
    return r


@pytest.mark.parametrize("model", ["constant_impedance", "constant_power"])
@pytest.mark.parametrize("formulation", [*EXACT, "nonlinear"])
def test_inside_its_limits_a_bank_gives_what_a_statcom_gives(formulation: str, model: str) -> None:
    """Same optimum, with q = share 400 |U|^2, or share 400."""
    a = solved(two_bus(Statcom(name="s", bus="b", q_rated_kvar=400.0), LOAD), formulation)
    b = solved(two_bus(bank(model=model), LOAD), formulation)
    assert a.objective == pytest.approx(b.objective, rel=1e-7)
    times = v_b(b) if model == "constant_impedance" else 1.0
    share = b.settings["capacitor.c"][0]
    assert share * 400.0 * times == pytest.approx(b.value("capacitor.q_injected")[0, 0], abs=1e-3)
    assert share * 400.0 * times == pytest.approx(a.set_points["statcom.s"][1][0], abs=0.5)


@pytest.mark.parametrize("formulation", [*EXACT, "nonlinear"])
def test_all_of_it_is_the_whole_bank(formulation: str) -> None:
    """800 kvar of load want all of 400: the same as a fixed bank of 400."""
    load = Load(name="x", bus="b", p_kw=0.0, q_kvar=800.0)
    r = solved(two_bus(bank(), load), formulation)
    assert r.settings["capacitor.c"][0] == pytest.approx(1.0, abs=1e-5)
    fixed = solved(two_bus(bank(decision="fixed", q_kvar=400.0), load), formulation)
    assert v_b(r) == pytest.approx(v_b(fixed), abs=1e-7)


@pytest.mark.parametrize("formulation", [*FORMULATIONS, *EXACT])
def test_every_formulation_takes_it(formulation: str) -> None:
    r = solved(two_bus(bank(), LOAD), formulation, "cost")
    assert 0.0 <= r.settings["capacitor.c"][0] <= 1.0 + 1e-9


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize("model", ["constant_impedance", "constant_power"])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_exact_in_opendss_and_at_least_as_good_as_fixed(place: dict[str, Any], model: str, formulation: str) -> None:
    step, day, fixed = (
        solved(three(bank(decision=d, model=model, **place)), formulation) for d in ("step", "day", "fixed")
    )
    assert step.objective <= day.objective * (1 + 1e-7)
    assert day.objective <= fixed.objective * (1 + 1e-7)
    assert np.ptp(day.settings["capacitor.c"]) == 0.0
    r = replayed(step)
    assert r.replay.errors.max_dv_pu <= 1e-7  # type: ignore[union-attr]
    flow = power_flow(r.case, settings=r.settings, tolerance_pu=1e-10)
    rows = [flow.index.nodes.index(node) for node in r.network.nodes]
    np.testing.assert_allclose(flow.vmag_pu[rows], np.sqrt(r.value("bus.vmag_sq")), atol=1e-7)


def test_rounds_bring_the_linear_model_to_its_schedule() -> None:
    """q = share q_total |V_0|^2 with the V_0 of the round before: what is neglected vanishes where it settles."""
    model = build(three(bank(terminals=(1, 2, 3, 0))), "lindist3flow", "loss")
    first = model.solve()
    errors = [replayed(r).replay.errors.max_dv_pu for r in (first, refined(model, first, rounds=4))]  # type: ignore[union-attr]
    assert errors[1] < 1e-5 < errors[0]


def test_without_a_schedule_the_bank_is_as_it_is() -> None:
    """100 of 400 kvar are on: a Capacitor in the files and in the power flow; with one, a load that follows it."""
    case = three(bank(terminals=(1, 2, 3, 0)))
    text = render_opendss(case).files["shunts.dss"]
    assert "New Capacitor.c phases=3" in text
    assert "kvar=100" in text
    fixed = power_flow(three(bank(terminals=(1, 2, 3, 0), decision="fixed")))
    np.testing.assert_allclose(power_flow(case).v, fixed.v, atol=1e-9)
    follows = render_opendss(case, dispatch=dispatch_of(solved(case, "current-voltage"))).files["shunts.dss"]
    assert "New Load.cap_c phases=3" in follows
    assert "model=2" in follows


def test_faults() -> None:
    assert [f.code[:7] for f in check(two_bus(LOAD, bank(decision="hour")))] == ["VAL-004"]
    more_on = dataclasses.replace(bank(), q_kvar=500.0)
    assert [f.code[:7] for f in check(two_bus(LOAD, more_on))] == ["DEV-014"]
