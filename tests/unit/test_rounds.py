"""Rounds: a formulation made at an operating point, made again at the power flow of its own schedule."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import NoReturn

import numpy as np
import pytest

import lateral
from lateral import opf
from lateral.case import Case
from lateral.errors import Fault, UnsupportedError
from lateral.io import builtin
from lateral.network.horizon import Horizon
from lateral.opf import build, refined
from lateral.results.result import Result


@cache
def ieee13() -> Case:
    """The built-in feeder at every fourth hour."""
    case = lateral.read("ieee13") if hasattr(lateral, "read") else builtin.load("ieee13")
    keep = np.arange(0, case.horizon.n_steps, max(case.horizon.n_steps // 6, 1))[:6]
    horizon = Horizon(
        start=case.horizon.start, step_h=np.full(len(keep), 4.0), weight=np.ones(len(keep)), zone=case.horizon.zone
    )
    return case.with_(horizon=horizon, profiles={k: v[keep] for k, v in case.profiles.items()})


@cache
def solved(rounds: int | None, formulation: str = "lindist3flow") -> Result:
    r = lateral.solve(ieee13(), formulation, rounds=rounds)
    assert r.ok, r.status_text
    return r


def replayed_cost(r: Result) -> float:
    """What the source's power in the replay costs, $."""
    case = r.case
    price = sum(case.series(s.price_import) for s in case.sources)
    assert r.replay is not None
    return float((price * r.replay.p_source_kw) @ case.horizon.hours)  # type: ignore[attr-defined]


def test_three_rounds_are_exact_at_the_schedule() -> None:
    """Voltages of the replay to 1e-4 pu, and the modelled cost is the replayed cost to 1e-5."""
    one, three = solved(1), solved(3)
    assert one.replay is not None
    assert three.replay is not None
    assert three.replay.summary()["max_dv_pu"] < 1e-4
    assert three.replay.summary()["max_dv_pu"] < one.replay.summary()["max_dv_pu"]
    assert three.cost == pytest.approx(replayed_cost(three), rel=1e-5)


def test_rounds_are_told() -> None:
    notes = [c for c in solved(3).choices if c.startswith("round ")]
    assert [n.split(":")[0] for n in notes] == ["round 2", "round 3"]
    assert not [c for c in solved(1).choices if c.startswith("round ")]
    assert solved(3).seconds["total"] == pytest.approx(
        sum(v for k, v in solved(3).seconds.items() if k != "total"), rel=1e-9
    )


def test_one_round_where_nobody_asks_for_more() -> None:
    once = solved(None)
    assert not [c for c in once.choices if c.startswith("round ")]
    assert once.cost == pytest.approx(solved(1).cost, rel=1e-9)


def test_rounds_of_an_exact_form_change_nothing() -> None:
    model = build(ieee13(), "current-voltage")
    r = model.solve()
    assert refined(model, r, rounds=3) is r


def test_rounds_of_a_balanced_formulation_change_nothing() -> None:
    model = build(lateral.read("ieee123-t5"), "soc")
    r = model.solve()
    assert refined(model, r, rounds=5) is r


def test_no_rounds_after_a_failure() -> None:
    """An infeasible first round is returned as it is, with its reasons."""
    sources = {s.label for s in ieee13().sources}
    tight = tuple(dataclasses.replace(d, p_import_max_kw=1.0) if d.label in sources else d for d in ieee13().devices)
    model = build(ieee13().with_(devices=tight), "lindist3flow")
    r = model.solve()
    assert not r.ok
    assert r.conflicts
    assert refined(model, r, rounds=3) is r


def test_progress_and_new_data_stay() -> None:
    """Rounds tell of themselves, and keep data that were updated."""
    model = build(ieee13(), "lindist3flow").update(prices=np.linspace(0.1, 0.3, ieee13().horizon.n_steps))
    seen: list[int] = []
    r = refined(model, model.solve(), rounds=3, progress=seen.append)
    assert seen == [2, 3]
    assert r.ok
    source = r.case.sources[0]
    np.testing.assert_allclose(r.case.series(source.price_import), np.linspace(0.1, 0.3, 6))
    assert r.cost == pytest.approx(
        float((r.case.series(source.price_import) * r.p_source_kw) @ r.case.horizon.hours), rel=1e-9
    )


def test_notes_of_a_power_flow_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = opf.schedule_point
    monkeypatch.setattr(opf, "schedule_point", lambda *args: (plain(*args)[0], ["2 steps do not converge"]))
    model = build(ieee13(), "lindist3flow")
    r = refined(model, model.solve(), rounds=3)
    assert r.choices.count("2 steps do not converge") == 1


def test_a_power_flow_that_fails_costs_no_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise UnsupportedError([Fault("FOR-010 no-operating-point", "case.x", "none", "one", "Lower the load.")])

    monkeypatch.setattr(opf, "schedule_point", fail)
    model = build(ieee13(), "lindist3flow")
    first = model.solve()
    r = refined(model, first, rounds=3)
    assert r.ok
    assert r.cost == first.cost
    assert "round 2 was not made" in r.status_text
