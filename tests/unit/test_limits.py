"""Limits of lines and transformers: they bind where a hand calculation says, and are left out where they cannot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateral.case import Case
from lateral.devices import Battery, Load, Source
from lateral.formulations import branch_flow
from lateral.network.feeder import Bus, Feeder, Line, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import Element
from lateral.opf import build
from lateral.program import ProblemClass
from lateral.results.result import Result
from lateral.solvers.base import Status
from strategies import balanced_cases

#: the line in pu: 0.5 + j1 ohm at 2.4 kV and 1000 kVA
R, X = 0.5 / 5.76, 1.0 / 5.76


def line(i_max_a: float = np.inf, n_phases: int = 1) -> Line:
    return Line(
        name="l",
        bus_from="a",
        bus_to="b",
        conductors_from=(1,),
        conductors_to=(1,),
        r_ohm=[[0.5 * n_phases]],
        x_ohm=[[1.0 * n_phases]],
        i_max_a=i_max_a,
    )


def transformer(s_max_kva: float = np.inf) -> Transformer:
    """2.4 / 2.4 kV, 1 % + j4 % on 1000 kVA."""
    side = {"terminals": (1, 0), "v_rated_kv": 2.4, "s_rated_kva": 1000.0, "r_percent": 0.5}
    return Transformer(
        name="t",
        n_phases=1,
        windings=(Winding(bus="a", **side), Winding(bus="b", **side)),  # type: ignore[arg-type]
        x_percent=(4.0,),
        s_max_kva=s_max_kva,
        antifloat_ppm=0.0,
    )


def case(*wires: Element, load_kw: float = 200.0) -> Case:
    """A load at b, and a battery whose energy is worth so much that it gives only what a limit asks for."""
    battery = Battery(
        name="s",
        bus="b",
        p_charge_max_kw=0.0,
        p_discharge_max_kw=100.0,
        s_max_kva=100.0,
        energy_kwh=500.0,
        eta_charge=1.0,
        eta_discharge=1.0,
        q_control="none",
        terminal_price=10.0,
    )
    return Case(
        name="two",
        feeder=Feeder(
            buses=tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4, v_min_pu=0.8, v_max_pu=1.2) for n in "ab"),
            lines=tuple(w for w in wires if isinstance(w, Line)),
            transformers=tuple(w for w in wires if isinstance(w, Transformer)),
        ),
        devices=(
            Source(name="grid", bus="a", price_import=0.1),
            Load(name="x", bus="b", p_kw=load_kw),
            battery,
        ),
        horizon=Horizon.regular(1),
    )


def run(c: Case, formulation: str) -> Result:
    r = build(c, formulation, terminal="priced", loss_term=False).solve()
    assert r.ok, r.status_text
    return r


def rows(r: Result) -> list[str]:
    return [b.name for b in r.program.product_blocks if b.quantity in ("i_limit", "s_limit")]


def squared_current(p: float, r: float, x: float) -> float:
    """l = p^2 / v of a line that feeds p (pu, no q) from 1 pu: v^2 + (2 r p - 1) v + |z|^2 p^2 = 0."""
    b = 2 * r * p - 1
    return p**2 / ((-b + np.sqrt(b**2 - 4 * (r**2 + x**2) * p**2)) / 2)


@pytest.mark.parametrize("formulation", ["lindistflow", "soc", "nonlinear", "lindist3flow"])
def test_line_current(formulation: str) -> None:
    """80 A at 2.4 kV: 0.192 pu. The battery gives what is missing of 200 kW.

    LinDistFlow: P <= 0.192, so 8 kW.
    Exact: l = 0.192^2, P = sqrt(l - (x l)^2), and r l of it is lost: 0.2 - (P - r l) = 11.3 kW.
    LinDist3Flow: losses are those of the point, l0 of 0.2 pu: P = sqrt(0.192^2 - (x l0)^2), 0.2 - (P - r l0).
    """
    l = 0.192**2
    l0 = squared_current(0.2, R, X)
    expected = {
        "lindistflow": 0.008,
        "soc": 0.2 - (np.sqrt(l - (X * l) ** 2) - R * l),
        "nonlinear": 0.2 - (np.sqrt(l - (X * l) ** 2) - R * l),
        "lindist3flow": 0.2 - (np.sqrt(l - (X * l0) ** 2) - R * l0),
    }[formulation]
    r = run(case(line(80.0)), formulation)
    assert r.value("battery.p_discharge")[0, 0] == pytest.approx(1000 * expected, abs=2e-3)
    top = r.loading.iloc[0]
    assert (top["element"], top["unit"], top["limit"]) == ("line.l.1", "A", pytest.approx(80.0))
    assert top["value"] == pytest.approx(80.0, abs=1e-2)


@pytest.mark.parametrize("formulation", ["lindistflow", "soc", "nonlinear", "lindist3flow"])
def test_transformer_power(formulation: str) -> None:
    """150 kVA into a transformer of 1 % + j4 %, 200 kW behind it.

    LinDistFlow: 50 kW. Exact: P^2 + Q^2 = 0.15^2 = l, Q = x l: P = sqrt(l - (x l)^2), 0.2 - (P - r l) = 50.2 kW.
    LinDist3Flow: losses of the point, l0 of 0.2 pu.
    """
    r_t, x_t = 0.01, 0.04
    l, l0 = 0.15**2, squared_current(0.2, r_t, x_t)
    expected = {
        "lindistflow": 0.05,
        "soc": 0.2 - (np.sqrt(l - (x_t * l) ** 2) - r_t * l),
        "nonlinear": 0.2 - (np.sqrt(l - (x_t * l) ** 2) - r_t * l),
        "lindist3flow": 0.2 - (np.sqrt(l - (x_t * l0) ** 2) - r_t * l0),
    }[formulation]
    r = run(case(transformer(150.0)), formulation)
    assert rows(r) == ["branch.s_limit"]
    assert r.value("battery.p_discharge")[0, 0] == pytest.approx(1000 * expected, abs=2e-3)
    top = r.loading.iloc[0]
    assert (top["element"], top["unit"]) == ("transformer.t", "kVA")
    assert top["value"] == pytest.approx(150.0, abs=1e-2)


def test_balanced_feeder_of_three() -> None:
    """A conductor that stands for three carries a third: 30 A * 2.4 kV * 3 = 216 kVA of 220 kW in total: 4 kW."""
    c = case(line(30.0), load_kw=220.0)
    c = c.with_(feeder=dataclasses.replace(c.feeder, n_phases=3, balanced=True))
    r = run(c, "lindistflow")
    assert r.value("battery.p_discharge")[0, 0] == pytest.approx(4.0, abs=2e-3)
    assert r.loading.iloc[0]["value"] == pytest.approx(30.0, abs=1e-2)


def test_three_phase_transformer_is_limited_in_total() -> None:
    """Three phases of 150 kVA in all: 50 kW of 200 are missing."""
    c = case(transformer(150.0))
    c = c.with_(feeder=dataclasses.replace(c.feeder, n_phases=3, balanced=True))
    r = run(c, "lindistflow")
    assert r.value("battery.p_discharge")[0, 0] == pytest.approx(50.0, abs=2e-3)


def test_parallel_lines_share_their_limit() -> None:
    """Two equal lines of 40 A are one of 80 A: 8 kW as above."""
    both = (line(40.0), dataclasses.replace(line(40.0), name="m"))
    r = run(case(*both), "lindistflow")
    assert r.network.branch_names == ("line.l+line.m",)
    assert r.value("battery.p_discharge")[0, 0] == pytest.approx(8.0, abs=2e-3)


@pytest.mark.parametrize("wire", [line(500.0), transformer(900.0)])
def test_limits_that_cannot_bind_are_left_out(wire: Element) -> None:
    """200 kW of load and 100 kW of battery cannot reach 1.2 MVA or 900 kVA: no rows, and the problem stays linear."""
    r = run(case(wire), "lindistflow")
    assert rows(r) == []
    assert r.program.problem_class in (ProblemClass.LP, ProblemClass.QP)
    assert len(r.loading) == 1
    assert r.loading.iloc[0]["share"] < 1.0


def test_losses_count_when_a_limit_is_left_out() -> None:
    """600 kW over 1 ohm lose 80 kW: r = 0.1736 pu, v^2 - 0.7917 v + 0.0108 = 0, l = 0.36 / 0.7777.

    A transformer of 670 kVA before the line is too small for 680 kW, though the load alone would be far below it.
    """
    lossy = dataclasses.replace(line(), bus_from="b", bus_to="c", r_ohm=[[1.0]], x_ohm=[[0.0]])
    stiff = dataclasses.replace(transformer(670.0), x_percent=(1e-3,))
    stiff = dataclasses.replace(stiff, windings=tuple(dataclasses.replace(w, r_percent=0.0) for w in stiff.windings))
    c = case(stiff, lossy)
    c = c.with_(
        feeder=dataclasses.replace(
            c.feeder, buses=(*c.feeder.buses, Bus(name="c", conductors=(1,), v_base_kv=2.4, v_min_pu=0.8, v_max_pu=1.2))
        ),
        devices=(c.sources[0], Load(name="x", bus="c", p_kw=600.0)),
    )
    r = build(c, "lindist3flow", loss_term=False).solve()
    assert rows(r) == ["branch.s_limit"]
    assert r.status is Status.INFEASIBLE
    (conflict,) = r.conflicts
    assert conflict.value == pytest.approx(600 + 1000 * squared_current(0.6, 1 / 5.76, 0.0) / 5.76, abs=0.5)


@pytest.mark.parametrize("limits", ["voltage", "none"])
def test_limits_that_are_not_asked_for(limits: str) -> None:
    model = build(case(line(80.0), load_kw=200.0), "lindistflow", terminal="priced", loss_term=False, limits=limits)
    r = model.solve()
    assert rows(r) == []
    assert r.value("battery.p_discharge")[0, 0] == pytest.approx(0.0, abs=1e-3)


def limited(c: Case, seed: int) -> Case:
    """The case with limits between what cannot and what must bind."""
    rng = np.random.default_rng(seed)
    size = sum(d.p_kw + d.q_kvar for d in c.loads) / (c.base.multiplicity * 2.4)
    lines = tuple(dataclasses.replace(e, i_max_a=float(size * rng.uniform(0.2, 2.5))) for e in c.feeder.lines)
    return c.with_(feeder=dataclasses.replace(c.feeder, lines=lines))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(balanced_cases(max_buses=6, max_steps=3), st.integers(0, 2**16))
def test_screening_changes_nothing(c: Case, seed: int) -> None:
    """With every limit written the optimum is the same; and so is the verdict."""
    c = limited(c, seed)
    model = build(c, "lindistflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch_flow, "LIMIT_MARGIN", 1e-12)
        full = build(c, "lindistflow")
    finite = sum(np.isfinite(e.i_max_a) for e in c.feeder.lines)
    written = {b.name: len(b.elements) for b in full.program.product_blocks}
    assert written.get("branch.i_limit", 0) == finite
    a, b = model.solve(explain_infeasible=False), full.solve(explain_infeasible=False)
    assert a.status is b.status
    if a.ok:
        assert a.objective == pytest.approx(b.objective, rel=1e-5, abs=1e-5)
        if finite:
            assert a.loading["share"].max() <= 1.0 + 1e-4


def test_update_that_reaches_a_limit_builds_again_and_says_so() -> None:
    """100 kW cannot reach 500 kVA (208.3 A); after an update to 520 kW the battery gives 20 kW, as if built anew."""
    c = case(line(500 / 2.4), load_kw=100.0)
    model = build(c, "lindistflow", terminal="priced", loss_term=False)
    assert rows(model.solve()) == []
    r = model.update(loads={"x": np.array([520.0])}).solve()
    assert r.ok
    assert rows(r) == ["branch.i_limit"]
    assert any("built and solved again" in choice for choice in r.choices)
    assert r.value("battery.p_discharge")[0, 0] == pytest.approx(20.0, abs=2e-3)
    # and from there on it needs no further building
    again = model.update(loads={"x": np.array([510.0])}).solve()
    assert again.value("battery.p_discharge")[0, 0] == pytest.approx(10.0, abs=2e-3)
    assert again.ok
    assert not any("built and solved again" in choice for choice in again.choices)


def test_update_that_nothing_can_carry_is_infeasible_and_names_the_line() -> None:
    """700 kW against 500 kVA and 100 kW of battery: 100 kVA short."""
    model = build(case(line(500 / 2.4), load_kw=100.0), "lindistflow", terminal="priced", loss_term=False)
    assert model.solve().ok
    r = model.update(loads={"x": np.array([700.0])}).solve()
    assert r.status is Status.INFEASIBLE
    (conflict,) = r.conflicts
    assert conflict.element == "line.l.1"
    assert conflict.value - conflict.limit == pytest.approx(100 / 2.4, rel=1e-3)


@pytest.mark.parametrize("formulation", ["lindist3flow", "nonlinear", "soc3", "sdp", "current-voltage"])
def test_limits_of_voltage_may_be_whole_numbers(formulation: str) -> None:
    """No limit at the source was an infinity among integers (`OverflowError`)."""
    c = case(line())
    buses = tuple(dataclasses.replace(b, v_min_pu=0, v_max_pu=9) for b in c.feeder.buses)
    assert build(c.with_(feeder=dataclasses.replace(c.feeder, buses=buses)), formulation).solve().ok
