"""The curvature of the exact model in rounds of the linearised form, and what rounds do once they have it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from test_capacitor_share import bank
from test_phases import pv
from test_taps import KV, ROOT3

import lateral
from lateral import second_order, successive
from lateral.case import Case
from lateral.devices import Load, Regulator, Source
from lateral.first_order import At
from lateral.jumps import Crossed
from lateral.network.feeder import Bus, Feeder, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.results.result import Result
from lateral.second_order import Parts, reduced, with_curvature
from lateral.solvers import Status
from lateral.successive import Rounds, settle

WYE = {"terminals": (1, 2, 3, 0)}


def tapped(n_steps: int = 1, **limits: float) -> Case:
    """A stiff source, a transformer from delta to wye whose tap decides, and behind it a load whose reactive power
    follows the voltage, a sun that gives each phase its own power, and a bank that decides."""
    volts = {"v_min_pu": 0.85, "v_max_pu": 1.15} | limits
    none = np.zeros((3, 3))
    first = Winding(
        bus="a", terminals=(1, 2, 3), connection="delta", v_rated_kv=KV * ROOT3, s_rated_kva=500.0, r_percent=0.5
    )
    second = Winding(
        bus="b", terminals=(1, 2, 3, 0), connection="wye", v_rated_kv=0.48 * ROOT3, s_rated_kva=500.0, r_percent=0.5
    )
    return Case(
        name="tapped",
        feeder=Feeder(
            buses=(
                Bus(name="a", conductors=(1, 2, 3), v_base_kv=KV),
                Bus(name="b", conductors=(1, 2, 3), v_base_kv=0.48, **volts),  # type: ignore[arg-type]
            ),
            transformers=(Transformer(name="t", windings=(first, second), x_percent=(4.0,)),),
        ),
        devices=(
            Source(
                name="g", bus="a", conductors=(1, 2, 3), angle_deg=(0.0, -120.0, 120.0), v_pu=1.02, price_import=0.2,
                price_export=0.2, r_ohm=none, x_ohm=none,
            ),
            Load(name="x", bus="b", p_kw=60.0, q_kvar=35.0, model="constant_power_quadratic_q", **WYE),
            Load(name="y", bus="b", terminals=(1, 0), p_kw=25.0, q_kvar=10.0, model="constant_impedance"),
            dataclasses.replace(bank(**WYE), bus="b"),
            dataclasses.replace(pv(phases="free", **WYE), bus="b"),
            Regulator(name="r", transformer="t", winding=2, decision="step"),
        ),
        horizon=Horizon.regular(n_steps),
    )  # fmt: skip


def started(objective: str = "loss") -> tuple[Rounds, Result]:
    """Rounds at the power flow of the first solution, and that."""
    model = build(tapped(2), "linearised", objective)
    r = model.solve()
    assert model.tangent is not None
    state = Rounds.start(model.case, model.tangent, model.network, model.program)
    there = state.reached(r.solution)
    assert there is not None
    state.at = there
    model.program = state.bounded()
    return state, model.solve()


def test_the_curvature_is_that_of_the_exact_model_along_every_decision() -> None:
    """Differences of the Lagrangian over power flows: what the rows bend by, with the network following.

    At rest, where the multipliers are those of the point."""
    case = tapped(2)
    model = build(case, "linearised", "loss")
    at_rest = settle(model, model.solve(), rounds=20)
    assert at_rest.ok
    assert model.tangent is not None
    state, r = Rounds.start(model.case, model.tangent, model.network, model.program), at_rest
    parts = Parts.of(state.tangent, state.at.program, state.decisions)
    assert parts is not None
    assert sorted(parts.size.tolist())[-2:] == [max(parts.size)] * 2  # a part for each step
    begin = state.at.x
    bent = with_curvature(state.tangent, state.at.program, parts, r.solution, begin)
    assert bent is not None
    bare = state.tangent.without_curvature(state.at.program)
    # the program is that of the exact one to first order
    assert bent.objective(begin) == pytest.approx(bare.objective(begin), rel=1e-12)
    np.testing.assert_allclose(bent.c + bent.q @ begin, bare.c + bare.q @ begin, atol=1e-12)
    curvatures = reduced(state.tangent, bare, parts, r.solution, begin)
    assert curvatures is not None
    assert sum(len(decided) for decided, _ in curvatures) == len(state.decisions)
    for decided, curvature in curvatures:
        for k, own in zip(decided, np.diag(curvature), strict=True):
            h = 3e-3 * bent.col_scale[k]
            values = []
            for side in (-1.0, 0.0, 1.0):
                x = begin.copy()
                x[k] += side * h
                at = state.flow_at(x)
                assert at is not None
                held = at.program.g @ at.x - np.where(np.isfinite(at.program.l), at.program.l, at.program.u)
                values.append(bare.objective(at.x) - r.solution.ineq_dual @ held)
            # a flow is solved to 1e-8 pu, and what differences leave out is of the fourth order
            second = (values[0] - 2.0 * values[1] + values[2]) / h**2
            assert own == pytest.approx(second, rel=1e-3, abs=1e-6), (k, own, second)


@pytest.mark.parametrize("most", ["MOST_NUMBERS", "MOST_FOLLOWING"])
def test_a_part_with_too_many_decisions_is_left_alone(most: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state, _ = started()
    monkeypatch.setattr(second_order, most, 10)
    assert Parts.of(state.tangent, state.at.program, state.decisions) is None
    assert not state.bend()
    assert state.program is state.at.program


def test_without_a_decision_there_is_no_curvature_of_decisions() -> None:
    case = tapped()
    case = case.with_(devices=tuple(d for d in case.devices if isinstance(d, Load | Source)))
    model = build(case, "linearised", "loss")
    assert model.tangent is not None
    state = Rounds.start(model.case, model.tangent, model.network, model.program)
    state.known = (model.solve().solution, state.at.x)
    assert not state.bend()
    assert state.program is state.at.program


@pytest.mark.parametrize("objective", ["cost", "loss", "unbalance", "vdev"])
@pytest.mark.parametrize("limits", [{}, {"v_min_pu": 0.985, "v_max_pu": 1.01}], ids=["wide", "narrow"])
def test_rounds_with_a_tap_behind_a_delta_come_to_rest_at_the_exact_optimum(
    objective: str, limits: dict[str, float]
) -> None:
    case = tapped(2, **limits)
    r, exact = (lateral.solve(case, f, objective, with_replay=False) for f in ("linearised", "current-voltage"))
    assert r.status is Status.OPTIMAL, r.status_text
    assert sum(c.startswith("round ") for c in r.choices) <= 8
    floor = exact.program.objective_floor
    assert r.objective == pytest.approx(exact.objective, rel=1e-6, abs=1e-6 * floor)


def test_two_sources_and_a_tap_are_not_unbounded() -> None:
    """Clarabel takes its first iterate for a ray; Ipopt finds the optimum."""
    second = Source(
        name="g2", bus="b", conductors=(1, 2, 3), angle_deg=(30.0, -90.0, 150.0), price_import=0.3, price_export=0.1,
        r_ohm=0.05 * np.eye(3), x_ohm=0.2 * np.eye(3),
    )  # fmt: skip
    case = tapped(2, v_min_pu=0.95, v_max_pu=1.03)
    case = case.with_(devices=(*case.devices, second))
    r, exact = (lateral.solve(case, f, with_replay=False) for f in ("linearised", "current-voltage"))
    assert r.status is Status.OPTIMAL, r.status_text
    assert "fallback to ipopt: clarabel ended unbounded" in r.choices
    assert r.objective == pytest.approx(exact.objective, rel=1e-6)


def test_loads_go_down_through_a_jump_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes down, and up again at the law below, would do so for ever."""
    asked: list[bool] = []

    def there_and_back(_program: Any, _x: Any, beside: Any, *, fall: bool = True) -> Crossed:
        asked.append(fall)
        return Crossed(int(fall), beside)

    monkeypatch.setattr(successive, "crossed", there_and_back)
    model = build(tapped(), "linearised")
    r = settle(model, model.solve(), rounds=20)
    assert r.ok, r.status_text
    assert sum("made again" in c for c in r.choices) == 4
    assert not asked[-1]


def test_multipliers_of_a_rejected_step_are_no_rest() -> None:
    """They bend the rows as these are elsewhere: one more look with those of the step that promised nothing."""
    state, r = started()
    assert state.bend()
    state.known, state.short = (r.solution, state.at.x), state.at
    still = dataclasses.replace(r, solution=dataclasses.replace(r.solution, x=state.at.x))
    first = state.judge(still)
    assert not first.rests
    assert "multipliers of this step" in first.text
    assert state.judge(still).rests


def test_multipliers_of_a_flat_step_that_is_rejected_are_no_rest_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where those before it were of a step that was accepted."""
    state, r = started()
    assert state.bend()
    state.known, state.sure = (r.solution, state.at.x), True
    worse = dataclasses.replace(state.at)
    monkeypatch.setattr(Rounds, "predicted", lambda *_: 0.0)
    monkeypatch.setattr(Rounds, "reached", lambda *_: worse)
    monkeypatch.setattr(At, "merit", lambda at, _weights: 1e3 * float(at is worse))
    assert state.judge(r).text.startswith("rejected")
    assert state.at is state.short
    still = dataclasses.replace(r, solution=dataclasses.replace(r.solution, x=state.at.x))
    assert not state.judge(still).rests
    assert state.judge(still).rests


def test_a_solver_that_fails_is_asked_again_with_the_curvature_of_decisions() -> None:
    state, r = started()
    failed = dataclasses.replace(r, status=Status.UNBOUNDED)
    assert state.judge(failed).stuck  # without any multiplier there is none
    state.known = (r.solution, state.at.x)
    assert not state.judge(failed).stuck
    assert state.second
    assert state.judge(failed).stuck
