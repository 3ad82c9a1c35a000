"""Devices that decide per phase, by a susceptance or a curve, in rounds of the linearised form: the exact optimum."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_capacitor_share import bank
from test_compensators import three
from test_inverter_curves import pv as follower
from test_phases import battery, pv
from test_soft_open_point import forked, uneven
from test_taps import case_of

import lateral
from lateral.case import Case
from lateral.devices import SVC, Statcom

WYE = {"terminals": (1, 2, 3, 0)}
CASES: dict[str, Callable[[], Case]] = {
    "statcom": lambda: three(Statcom(name="s", bus="b", q_rated_kvar=300.0, phases="free", **WYE)),  # type: ignore[arg-type]
    "svc": lambda: three(SVC(name="s", bus="b", q_max_kvar=250.0, **WYE)),  # type: ignore[arg-type]
    "bank": lambda: three(bank(**WYE)),
    "volt-var": lambda: three(follower(**WYE), battery(name="s", **WYE)),
    "phases": lambda: three(pv(phases="free", **WYE), battery(phases="free", **WYE)),
    "soft open point": lambda: forked(*uneven(), conductors=(1, 2, 3), tie={"loss_share": 0.005}),
}


@pytest.mark.parametrize("kind", CASES)
def test_rounds_end_at_the_exact_optimum(kind: str) -> None:
    r, exact = (lateral.solve(CASES[kind](), f, "loss") for f in ("linearised", "current-voltage"))
    assert r.ok
    # the objective is the losses; 2e-9 was measured, of the bank, and 3e-9 pu in the replay
    assert r.objective == pytest.approx(exact.objective, rel=1e-8)
    assert r.replay.errors.max_dv_pu <= 1e-8  # type: ignore[union-attr]


def test_taps_are_held_and_that_is_said() -> None:
    r = lateral.solve(case_of("wye wye"), "linearised", "loss")
    assert any("tap held at 1, because the formulation holds taps" in c for c in r.choices)
    assert r.replay.errors.max_dv_pu <= 1e-8  # type: ignore[union-attr]
