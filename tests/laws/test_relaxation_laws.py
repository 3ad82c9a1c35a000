"""What the matrix family promises for every radial feeder: its rows hold at AC points, its optimum is a lower bound."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ac_points import ac_point
from lateral.case import Case
from lateral.devices import PV, Capacitor, Load, Source
from lateral.opf import build
from lateral.solvers import Status
from strategies import three_phase_cases

FEW = settings(max_examples=12, deadline=None, derandomize=True)
#: loads whose rows are equalities; other powers lie between a curve and its chord
SQUARES = ("constant_power", "constant_impedance", "constant_power_quadratic_q")


@FEW
@given(three_phase_cases(models=SQUARES))
def test_every_row_holds_at_the_power_flow(case: Case) -> None:
    """Matrices made of AC voltages and currents, any phases, delta and wye: every row to 1e-8."""
    fixed = case.with_(devices=tuple(d for d in case.devices if isinstance(d, Source | Load | Capacitor)))
    point = ac_point(fixed)
    assert max(point.worst.values()) < 1e-8, point.worst


@FEW
@given(three_phase_cases(max_buses=4, max_steps=2))
def test_the_relaxations_are_bounds_in_order(case: Case) -> None:
    """soc3 <= sdp <= exact, with batteries, PV and every load model; each as far as its own gap says."""
    exact = build(case, "current-voltage").solve()
    assert exact.ok, exact.status_text
    size = max(abs(exact.objective), 0.05)
    found = {}
    for formulation in ("soc3", "sdp"):
        r = build(case, formulation).solve()
        # a point that is not accurate enough for a certificate bounds by what its gap leaves
        assert r.status in (Status.OPTIMAL, Status.INACCURATE), r.status_text
        assert r.residuals.duality_gap < 1e-4
        assert r.residuals.max_primal < 1e-6
        found[formulation] = r.objective
        assert r.objective <= exact.objective + (r.residuals.duality_gap + 5e-6) * size
        assert np.isfinite(r.max_relaxation_gap)
    assert found["soc3"] <= found["sdp"] + 1e-4 * size


@FEW
@given(
    three_phase_cases(max_buses=5, max_steps=1, models=("constant_power", "constant_impedance")),
    st.sampled_from([1e-3, 0.05, 1.0]),
    st.sampled_from([1.0, 20.0]),
)
def test_bounds_hold_whatever_is_drawn_beside_what_is_given(case: Case, drawn: float, given: float) -> None:
    """Next to no load beside large inverters, and the reverse: the certificate of a gap knows sizes from the scales."""
    devices = []
    for d in case.devices:
        if isinstance(d, Load):
            d = dataclasses.replace(d, p_kw=drawn * d.p_kw, q_kvar=drawn * d.q_kvar)
        if isinstance(d, PV):
            size = {"p_rated_kw": given * d.p_rated_kw, "s_max_kva": given * d.s_max_kva}
            d = dataclasses.replace(d, curtailable=True, **size)  # type: ignore[arg-type]
        if isinstance(d, Source):
            d = dataclasses.replace(d, price_import=0.2, price_export=0.1)
        devices.append(d)
    buses = tuple(dataclasses.replace(b, v_min_pu=0.7, v_max_pu=1.3) for b in case.feeder.buses)
    case = case.with_(devices=tuple(devices), feeder=dataclasses.replace(case.feeder, buses=buses))
    exact = build(case, "current-voltage", check=False).solve()
    assert exact.ok, exact.status_text
    for formulation in ("sdp", "soc3"):
        r = build(case, formulation, check=False).solve()
        assert r.ok, r.status_text
        assert r.objective <= exact.objective + 5e-6 * max(abs(exact.objective), 0.05)
