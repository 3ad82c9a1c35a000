"""What the matrix family promises for every radial feeder: its rows hold at AC points, its optimum is a lower bound."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from ac_points import ac_point
from lateral.case import Case
from lateral.devices import Capacitor, Load, Source
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
