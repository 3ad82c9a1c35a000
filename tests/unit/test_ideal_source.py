"""A source without impedance, as documented by default: its bus has the given voltage, whatever is drawn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import lateral
from lateral.case import Case
from lateral.checks import check
from lateral.devices import Load, Source
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.network.powerflow import CHOICES
from lateral.opf import build, replayed

KV, V1 = 2.4, 1.02
ABC = (1, 2, 3)
R, X = (0.8, 1.0, 0.6), (1.1, 0.9, 1.3)
LOADS = ((300.0, 100.0), (150.0, 20.0), (220.0, -60.0))


def case() -> Case:
    """Three phases that nothing couples, each a source, an impedance and a load."""
    wire = Line(
        name="l", bus_from="a", bus_to="b", conductors_from=ABC, conductors_to=ABC, r_ohm=np.diag(R), x_ohm=np.diag(X)
    )
    feeder = Feeder(
        buses=tuple(Bus(name=n, conductors=ABC, v_base_kv=KV, v_min_pu=0.8, v_max_pu=1.1) for n in "ab"), lines=(wire,)
    )
    source = Source(name="s", bus="a", conductors=ABC, angle_deg=(0.0, -120.0, 120.0), v_pu=V1)
    loads = [
        Load(name=f"d{c}", bus="b", terminals=(c, 0), p_kw=p, q_kvar=q) for c, (p, q) in zip(ABC, LOADS, strict=True)
    ]
    return Case(name="ideal", feeder=feeder, devices=(source, *loads), horizon=Horizon.regular(1))


def by_hand() -> tuple[list[float], float]:
    """|V| of each phase at the load, pu, and the losses, kW: roots of the quadratic in |V|^2."""
    volts, losses = [], 0.0
    for r, x, (p, q) in zip(R, X, LOADS, strict=True):
        v1, p_w, q_var = V1 * KV * 1e3, p * 1e3, q * 1e3
        half = v1**2 / 2 - r * p_w - x * q_var
        w = half + math.sqrt(half**2 - (r**2 + x**2) * (p_w**2 + q_var**2))
        volts.append(math.sqrt(w) / (KV * 1e3))
        losses += r * (p_w**2 + q_var**2) / w / 1e3
    return volts, losses


@pytest.mark.parametrize("method", CHOICES)
def test_power_flow_by_every_method(method: str) -> None:
    assert check(case()) == ()
    volts, losses = by_hand()
    flow = lateral.power_flow(case(), method=method)
    at = [flow.index.nodes.index(("b", c)) for c in ABC]
    assert flow.vmag_pu[at, 0] == pytest.approx(volts, abs=1e-9)
    own = [flow.index.nodes.index(("a", c)) for c in ABC]
    assert flow.v_pu[own, 0] == pytest.approx(V1 * np.exp(-2j * np.pi / 3 * np.arange(3)), abs=1e-12)
    assert flow.losses_kw[0] == pytest.approx(losses, rel=1e-7)


#: Largest difference to the solution by hand: what a conic solver's tolerance leaves, a linear form neglects.
FORMS = {
    "current-voltage": 1e-7,
    "bus-injection": 1e-7,
    "linearised": 1e-7,
    "lindist3flow": 1e-6,
    "soc3": 1e-5,
    "sdp": 1e-5,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_formulation(form: str) -> None:
    volts, losses = by_hand()
    r = replayed(build(case(), form, "loss").solve())
    assert r.ok, r.status_text
    at = [r.network.position["b", c] for c in ABC]
    assert np.sqrt(r.value("bus.vmag_sq")[at, 0]) == pytest.approx(volts, abs=FORMS[form])
    total = sum(p for p, _ in LOADS) + losses
    assert r.p_source_kw[0] == pytest.approx(total, rel=10 * FORMS[form])
    assert r.replay is not None
    assert r.replay.summary()["max_dv_pu"] < FORMS[form]


def test_a_table_without_the_columns_says_the_same(tmp_path: Path) -> None:
    first = case()
    lateral.write_folder(first, tmp_path / "case")
    assert lateral.read(tmp_path / "case").hash == first.hash
    source = first.sources[0]
    assert source.r_ohm.shape == source.x_ohm.shape == (3, 3)
    whole = Source(
        name="s", bus="a", conductors=ABC, angle_deg=source.angle_deg, v_pu=V1, r_ohm=np.zeros((3, 3)), x_ohm=[[0.0]]
    )
    assert first.with_(devices=(whole, *first.loads)).hash == first.hash
