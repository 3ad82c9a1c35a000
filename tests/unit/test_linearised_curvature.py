"""Rounds of the linearised form scale the curvature of losses where steps show that another is right."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import lateral
from lateral.case import Case
from lateral.devices import PV, Load, Source
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.results.result import Result
from lateral.successive import FACTOR_STEP, Rounds


def ieee13(source: dict[str, Any], sun: dict[str, Any], **limits: float) -> Case:
    """IEEE 13 with a sun at 675 that gives each phase its own power."""
    case = lateral.read("ieee13-rated")
    buses = tuple(dataclasses.replace(b, v_min_pu=0.9, v_max_pu=1.1, **limits) for b in case.feeder.buses)
    given = {"price_import": 0.2, "price_export": 0.1} | source
    devices = tuple(dataclasses.replace(d, **given) if isinstance(d, Source) else d for d in case.devices)
    pv = PV(name="sun", bus="675", terminals=(1, 2, 3, 0), p_rated_kw=600.0, phases="free", curtailable=True, **sun)
    return case.with_(feeder=dataclasses.replace(case.feeder, buses=buses), devices=(*devices, pv))


def rounds_of(r: Result) -> int:
    return sum(c.startswith("round ") for c in r.choices)


@pytest.mark.parametrize(
    ("case", "objective", "most"),
    [
        # a limit of the power at the source turns the prices of phases over: 9 rounds at the curvature of prices
        (lambda: ieee13({"s_max_kva": 3050.0}, {"s_max_kva": 1400.0}), "cost", 7),
        # no kWh has a price: at the curvature of prices each round brings twice its promise and ten are not enough
        (lambda: ieee13({}, {"s_max_kva": 800.0}), "unbalance", 7),
        (lambda: ieee13({}, {"s_max_kva": 800.0}, unbalance_max=0.006), "cost", 7),
    ],
    ids=["power at the source", "unbalance as objective", "limit of unbalance"],
)
def test_rounds_come_to_rest_at_the_exact_optimum(case: Any, objective: str, most: int) -> None:
    r, exact = (lateral.solve(case(), f, objective, with_replay=False) for f in ("linearised", "current-voltage"))
    assert r.ok, r.status_text
    assert rounds_of(r) <= most
    # what rest promises is 1e-7 of the objective; 1e-9 was measured
    assert r.objective == pytest.approx(exact.objective, rel=1e-7)


def started() -> tuple[Rounds, Result]:
    model = build(ieee13({"s_max_kva": 3050.0}, {"s_max_kva": 1400.0}), "linearised")
    r = model.solve()
    assert model.tangent is not None
    return Rounds.start(model.case, model.tangent, model.network, model.program), r


def test_the_curvature_is_the_quadratic_part_of_the_losses() -> None:
    """Before any multiplier is known nothing else is quadratic here: ``1/2 d' Q d``."""
    state, r = started()
    program, d = state.at.program, r.solution.x - state.at.x
    cost = state.tangent.curvature(program, r.solution.x)
    assert cost > 0.0
    assert cost == pytest.approx(0.5 * d @ (program.q @ d), rel=1e-9)


@pytest.mark.parametrize(("share", "change"), [(0.8, 1.0), (0.0, 1.6), (1.6, 0.64), (-9.0, FACTOR_STEP), (9.0, 0.25)])
def test_the_factor_is_what_would_have_been_right(share: float, change: float) -> None:
    """``1 + (promised - gained) / q`` of a step whose curvature cost 0.6^-1 of its promise, within bounds."""
    state, r = started()
    promised = 0.6 * state.tangent.curvature(state.at.program, r.solution.x)
    assert state._learned(r.solution.x, promised, share * promised) == (change != 1.0)
    assert state.factor == pytest.approx(change)
    before = state.at.program.slots
    known = state._reweighed(state.at, r.solution)
    plain = state.tangent.reweighed(state.at.program, r.solution, state.at.x)
    for name in before:
        slot = before[name].cells
        times = change if name.startswith("branch.price_") and not name.endswith(".weight") else 1.0
        if not name.startswith("tangent.") and not name.endswith(".weight"):
            np.testing.assert_allclose(known.program.theta[slot], times * plain.theta[slot], rtol=1e-12)


@pytest.mark.parametrize("objective", ["peak", "curtailment"])
def test_a_schedule_that_gains_nothing_is_its_power_flow_too(objective: str) -> None:
    """Any reactive power is as good, so that the first solve may go far; its voltages are of the first order, and what
    they keep need not be kept."""
    phases, wye = (1, 2, 3), (1, 2, 3, 0)
    own = 0.75 * np.eye(3) * 3.0 + 0.75
    line = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=phases, conductors_to=phases, r_ohm=own, x_ohm=2 * own
    )
    none = np.zeros((3, 3))
    case = Case(
        name="flat",
        feeder=Feeder(
            buses=tuple(Bus(name=n, conductors=phases, v_base_kv=7.2, v_min_pu=0.9, v_max_pu=1.2) for n in "ab"),
            lines=(line,),
        ),
        devices=(
            Source(name="g", bus="a", conductors=phases, angle_deg=(0, -120, 120), r_ohm=none, x_ohm=none),
            Load(name="x", bus="b", terminals=wye, p_kw=900.0, q_kvar=700.0),
            PV(name="p", bus="b", terminals=wye, p_rated_kw=2000.0, s_max_kva=3200.0, curtailable=True),
        ),
        horizon=Horizon.regular(1),
    )
    r = lateral.solve(case, "linearised", objective, loss_term=False)
    assert r.ok
    assert rounds_of(r) <= 3
    assert r.replay.errors.max_dv_pu <= 1e-6  # type: ignore[union-attr]
