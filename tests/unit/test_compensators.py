"""Statcom and SVC: by hand on two buses, exact in OpenDSS, phase by phase at least as good as in equal parts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_devices import FORMULATIONS, HUNGRY, Z, run, two_bus, v_b

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.devices import SVC, Capacitor, Load, Statcom
from lateral.errors import CaseError
from lateral.io.dispatch import Dispatch
from lateral.io.opendss.write import render_opendss
from lateral.network.horizon import Horizon
from lateral.network.schema import Element
from lateral.opf import build, dispatch_of, refined, replayed

EXACT = ("current-voltage", "bus-injection")
#: wye and delta, one to three phases
PLACES = (
    {"terminals": (2, 0)},
    {"terminals": (1, 3, 0)},
    {"terminals": (1, 2, 3, 0)},
    {"terminals": (1, 2), "connection": "delta"},
    {"terminals": (1, 2, 3), "connection": "delta"},
)
UNEVEN = (
    Load(name="one", bus="b", terminals=(1, 0), p_kw=200.0, q_kvar=150.0, profile="day"),
    Load(name="all", bus="b", terminals=(1, 2, 3, 0), p_kw=400.0, q_kvar=200.0, profile="day"),
)


def three(*devices: Element) -> Case:
    return two_bus(
        *UNEVEN,
        *devices,
        conductors=(1, 2, 3),
        horizon=Horizon.regular(2),
        profiles={"day": np.array([1.0, 0.6])},
    )


@pytest.mark.parametrize("formulation", [*FORMULATIONS, *EXACT])
def test_statcom_gives_its_rating_at_any_voltage(formulation: str) -> None:
    """10 kvar beside 50 kvar of load: all of it, at 0.9 pu as at 1.0."""
    for v in (0.9, 1.0):
        case = two_bus(Statcom(name="s", bus="b", q_rated_kvar=10.0), HUNGRY, source={"v_pu": v})
        p, q = run(case, formulation, objective="loss").set_points["statcom.s"]
        assert q[0] == pytest.approx(10.0, abs=1e-3)
        assert p[0] == 0.0


@pytest.mark.parametrize("formulation", [*FORMULATIONS, *EXACT])
def test_statcom_pays_for_its_losses(formulation: str) -> None:
    """What 50 kvar less saves on the line, at 100 kW: r/v (50^2 - 40^2) per step, 0.09 kW; 1 % of 10 kvar costs 0.1 kW.

    With losses of 0.1 % (0.01 kW) all of it pays, with 2 % (0.2 kW) nothing. The last kvar saves 2 r 0.04 / v = 0.7 %.
    """
    for share, q in ((1e-3, 10.0), (2e-2, 0.0)):
        case = two_bus(Statcom(name="s", bus="b", q_rated_kvar=10.0, loss_share=share), HUNGRY)
        r = run(case, formulation)
        p_found, q_found = r.set_points["statcom.s"]
        assert q_found[0] == pytest.approx(q, abs=2e-2)
        assert p_found[0] == pytest.approx(-share * abs(q_found[0]), abs=1e-4)
        assert r.warnings == ()


def test_losses_that_no_statcom_has_are_said() -> None:
    """Who is paid for drawing energy makes it give and take at once: 10 kvar each way, 2 % of 20 kvar drawn."""
    case = two_bus(
        Statcom(name="s", bus="b", q_rated_kvar=10.0, loss_share=0.02), HUNGRY, source={"price_import": -0.1}
    )
    r = build(case, "lindistflow", loss_term=False).solve()
    assert r.set_points["statcom.s"][0][0] == pytest.approx(-0.4, abs=1e-3)
    assert "statcom s loses 0.4 kW more than its law says" in r.status_text


@pytest.mark.parametrize("formulation", [*EXACT, "nonlinear"])
def test_svc_at_its_limit_is_a_capacitor(formulation: str) -> None:
    """500 kvar at rated voltage, the same as the bank; rated at 2.0 kV: b = 0.5 (2.4 / 2.0)^2.

    The load of 800 kvar makes the least losses want all of it.
    """
    load = Load(name="x", bus="b", p_kw=0.0, q_kvar=800.0)
    for more in ({}, {"v_rated_kv": 2.0}):
        svc = two_bus(SVC(name="s", bus="b", q_max_kvar=500.0, **more), load)  # type: ignore[arg-type]
        cap = two_bus(Capacitor(name="c", bus="b", q_kvar=500.0, **more), load)  # type: ignore[arg-type]
        r = run(svc, formulation, objective="loss")
        assert r.settings["svc.s"][0] == pytest.approx(500.0, abs=1e-2)
        assert v_b(r) == pytest.approx(v_b(run(cap, formulation)), abs=1e-6)
        ratio = 2.4 / more.get("v_rated_kv", 2.4)
        assert r.value("svc.q_injected")[0, 0] == pytest.approx(500.0 * v_b(r) * ratio**2, abs=2e-2)


@pytest.mark.parametrize("formulation", [*EXACT, "nonlinear"])
def test_svc_inside_its_limits_gives_what_a_statcom_gives(formulation: str) -> None:
    """Same optimum: q of the one is b |U|^2 of the other. Least loss of 300 kW + 150 kvar on the line: q = 150 kvar."""
    load = Load(name="x", bus="b", p_kw=300.0, q_kvar=150.0)
    a = run(two_bus(Statcom(name="s", bus="b", q_rated_kvar=400.0), load), formulation, objective="loss")
    b = run(two_bus(SVC(name="s", bus="b", q_min_kvar=-50.0, q_max_kvar=400.0), load), formulation, objective="loss")
    assert a.objective == pytest.approx(b.objective, rel=1e-7)
    assert a.set_points["statcom.s"][1][0] == pytest.approx(b.value("svc.q_injected")[0, 0], abs=0.5)
    assert b.settings["svc.s"][0] * v_b(b) == pytest.approx(b.value("svc.q_injected")[0, 0], abs=1e-4)


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("kind", ["balanced", "free", "svc"])
def test_exact_in_opendss(kind: str, place: dict[str, object], formulation: str) -> None:
    device: Element = SVC(name="s", bus="b", q_min_kvar=-100.0, q_max_kvar=250.0, **place)  # type: ignore[arg-type]
    if kind != "svc":
        device = Statcom(name="s", bus="b", q_rated_kvar=300.0, loss_share=0.002, phases=kind, **place)  # type: ignore[arg-type]
    r = replayed(build(three(device), formulation).solve())
    assert r.ok, r.status_text
    assert r.replay.errors.max_dv_pu <= 1e-7  # type: ignore[union-attr]
    assert r.replay.errors.dloss_kw <= 1e-4  # type: ignore[union-attr]
    ports = r.port_points.get(device.label)
    assert (ports is None) == (kind != "free" or len(device.ports) == 1)  # type: ignore[attr-defined]
    # and our own power flow says the same
    d = dispatch_of(r)
    flow = power_flow(
        r.case,
        dispatch={k.partition(".")[0]: (v[None], d.q(k)[None]) for k, v in d.p_kw.items()},
        ports=d.ports,
        settings=d.settings,
        tolerance_pu=1e-10,
    )
    v = np.sqrt(r.value("bus.vmag_sq"))
    rows = [flow.index.nodes.index(node) for node in r.network.nodes]
    np.testing.assert_allclose(flow.vmag_pu[rows], v, atol=1e-7)


@pytest.mark.parametrize("formulation", [*EXACT, "lindist3flow"])
def test_free_phases_are_at_least_as_good(formulation: str) -> None:
    for place in PLACES[1:]:
        values = []
        for phases in ("balanced", "free"):
            s = Statcom(name="s", bus="b", q_rated_kvar=300.0, phases=phases, **place)  # type: ignore[arg-type]
            values.append(run(three(s), formulation, objective="loss").objective)
        assert values[1] <= values[0] * (1 + 1e-7)
    # the uneven load makes it better where there are three ports
    assert values[1] < 0.999 * values[0]


def test_each_phase_has_its_share_of_the_rating() -> None:
    """500 kvar on one phase want all; a third of 300 kvar is there."""
    one = Load(name="x", bus="b", terminals=(1, 0), p_kw=100.0, q_kvar=500.0)
    s = Statcom(name="s", bus="b", terminals=(1, 2, 3, 0), q_rated_kvar=300.0, phases="free")
    r = run(two_bus(one, s, conductors=(1, 2, 3)), "current-voltage", objective="loss")
    np.testing.assert_allclose(r.port_points["statcom.s"][1][:, 0], [100.0, 0.0, 0.0], atol=1e-2)


def test_rounds_bring_the_linear_model_of_an_svc_to_its_schedule() -> None:
    """First order at the operating point: the error of the replay falls with each round."""
    s = SVC(name="s", bus="b", q_max_kvar=250.0, terminals=(1, 2, 3, 0))
    model = build(three(s), "lindist3flow", "loss")
    first = model.solve()
    errors = [replayed(r).replay.errors.max_dv_pu for r in (first, refined(model, first, rounds=3))]  # type: ignore[union-attr]
    assert errors[0] > 5e-4
    assert errors[1] < 1e-5


def test_what_is_written_for_opendss() -> None:
    """A load of one phase per port where ports differ, an impedance for the SVC; nothing without a schedule."""
    case = three(
        Statcom(name="s", bus="b", terminals=(1, 2, 3, 0), q_rated_kvar=300.0, phases="free"),
        SVC(name="v", bus="b", terminals=(1, 2, 3, 0), q_max_kvar=100.0),
    )
    text = render_opendss(case, dispatch=dispatch_of(run(case, "current-voltage"))).files["devices.dss"]
    assert [f"New Load.statcom_s_{k} phases=1 bus1=b.{k}.0" in text for k in (1, 2, 3)] == [True] * 3
    assert "New Load.svc_v phases=3 bus1=b.1.2.3.0 conn=wye" in text
    assert "model=2" in text
    idle = render_opendss(case).files["devices.dss"]
    assert "svc_v" not in idle
    assert "kw=0 kvar=0" in idle


def test_dispatch_that_does_not_fit_is_refused() -> None:
    case = three(
        Statcom(name="s", bus="b", terminals=(1, 2, 3, 0), q_rated_kvar=300.0),
        SVC(name="v", bus="b", terminals=(1, 2, 3, 0), q_max_kvar=100.0),
    )
    good = Dispatch(p_kw={"statcom.s": np.zeros(2)}, q_kvar={"statcom.s": np.full(2, 3.0)})
    good.check(case)
    even = (np.zeros((3, 2)), np.ones((3, 2)))
    dataclasses.replace(good, ports={"statcom.s": even}, settings={"svc.v": np.ones(2)}).check(case)
    for change, code in (
        ({"ports": {"statcom.s": (np.zeros((2, 2)), np.ones((2, 2)))}}, "IO-062"),
        ({"ports": {"statcom.s": (np.zeros((3, 2)), np.zeros((3, 2)))}}, "IO-062"),
        ({"ports": {"svc.v": even}}, "IO-061"),
        ({"settings": {"svc.v": np.ones(3)}}, "IO-062"),
        ({"settings": {"statcom.s": np.ones(2)}}, "IO-061"),
    ):
        with pytest.raises(CaseError, match=code):
            dataclasses.replace(good, **change).check(case)


@pytest.mark.parametrize(
    ("device", "code"),
    [
        (Statcom(name="s", bus="b", q_rated_kvar=0.0), "VAL-003"),
        (Statcom(name="s", bus="b", q_rated_kvar=10.0, phases="both"), "VAL-004"),
        (Statcom(name="s", bus="b", terminals=(4, 0), q_rated_kvar=10.0), "NET-005"),
        (SVC(name="s", bus="b", q_min_kvar=20.0, q_max_kvar=10.0), "VAL-006"),
        (SVC(name="s", bus="b", q_max_kvar=10.0, v_rated_kv=0.2), "DEV-009"),
    ],
)
def test_faults(device: Element, code: str) -> None:
    assert [f.code[:7] for f in check(two_bus(HUNGRY, device))] == [code]


def test_the_line_of_these_tests() -> None:
    """What the hand calculations above use."""
    assert pytest.approx(0.0868, abs=1e-4) == Z.real
