"""IEEE 13 with regulator control, as PowerModelsDistribution tests it: 405.235 kW, taps 1.01875, 1.03125, 1.03125.

The controls set these taps; what decides them here has no dead band, so that it is at least as good.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import lateral
from lateral.devices import Regulator
from lateral.opf import build, replayed

FEEDERS = Path(__file__).parents[3] / "shared" / "feeders"
pytestmark = pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")


def test_ieee13_with_the_published_taps_and_with_free_ones() -> None:
    case = lateral.read(FEEDERS / "pmd_cases" / "opendss" / "IEEE13_RegControl.dss")
    published = {"reg1a": 1.01875, "reg1b": 1.03125, "reg1c": 1.03125}
    assert {t.name: t.windings[1].tap for t in case.feeder.transformers if t.name != "sub"} == pytest.approx(published)
    held = build(case, "current-voltage", "loss").solve()
    assert held.ok
    assert held.p_source_kw[0] == pytest.approx(405.235, abs=1.5e-4)  # 5e-5 off what is published to 1e-3
    free = case.with_(
        devices=tuple(dataclasses.replace(d, decision="step") if isinstance(d, Regulator) else d for d in case.devices)
    )
    r = replayed(build(free, "current-voltage", "loss").solve())
    assert r.ok
    assert held.objective - r.objective == pytest.approx(0.19105, abs=1e-4)  # kW of losses
    assert r.replay.errors.max_dv_pu <= 1e-9  # type: ignore[union-attr]
    # the optimum is flat in the taps: with creg1a at 0.9506 or 0.9537 the losses above are the same to 1e-4 kW
    best = {"regulator.creg1a": 0.9537, "regulator.creg1b": 1.0499, "regulator.creg1c": 1.0499}
    assert {name: tap[0] for name, tap in r.settings.items()} == pytest.approx(best, abs=5e-3)
