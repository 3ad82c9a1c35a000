"""The matrix family by hand, and recovery: what is exact, what is a bound, what is said of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import lateral
from ac_points import ac_point
from lateral import model as model_module
from lateral import opf, solvers
from lateral.case import Case
from lateral.devices import PV, SVC, Capacitor, Load, Source
from lateral.errors import Fault, OptionError, UnsupportedError
from lateral.io import builtin
from lateral.network.feeder import Bus, Feeder, Line, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import Element
from lateral.opf import Model, build, made_exact
from lateral.program import ProblemClass, Program
from lateral.recover import _bound
from lateral.results import retry
from lateral.results.residuals import Residuals, recompute
from lateral.results.result import Result
from lateral.results.retry import judged
from lateral.solvers import Options, Solution, Status
from lateral.solvers.clarabel import ClarabelOptions
from strategies import three_phases_of

KV = 2.4
ABC = (1, 2, 3)


def line(name: str, a: str, b: str, conductors: tuple[int, ...] = ABC, z: complex = 0.3 + 0.6j) -> Line:
    m = len(conductors)
    mutual = 0.25 * (np.ones((m, m)) - np.eye(m)) + np.eye(m)
    return Line(
        name=name,
        bus_from=a,
        bus_to=b,
        conductors_from=conductors,
        conductors_to=conductors,
        r_ohm=z.real * mutual,
        x_ohm=z.imag * mutual,
    )


def case(*elements: Element, on: dict[str, tuple[int, ...]] | None = None, kv: dict[str, float] | None = None) -> Case:
    """The grid at bus a; buses of three conductors unless said otherwise."""
    names = sorted({b for e in elements for b in _buses(e)} | {"a"})
    buses = tuple(
        Bus(
            name=b,
            conductors=(on or {}).get(b, ABC),
            v_base_kv=(kv or {}).get(b, KV),
            v_min_pu=0.9,
            v_max_pu=1.1,
        )
        for b in names
    )
    grid = Source(
        name="grid",
        bus="a",
        conductors=buses[0].conductors,
        angle_deg=tuple({1: 0.0, 2: -120.0, 3: 120.0}[c] for c in buses[0].conductors),
        r_ohm=0.02 * np.eye(len(buses[0].conductors)),
        x_ohm=0.1 * np.eye(len(buses[0].conductors)),
        price_import=0.1,
    )
    return Case(
        name="case",
        feeder=Feeder(
            buses=buses,
            lines=tuple(e for e in elements if isinstance(e, Line)),
            transformers=tuple(e for e in elements if isinstance(e, Transformer)),
        ),
        devices=(grid, *(e for e in elements if isinstance(e, Load | PV))),
        horizon=Horizon.regular(1),
    )


def _buses(e: Element) -> list[str]:
    if isinstance(e, Line):
        return [e.bus_from, e.bus_to]
    return [w.bus for w in e.windings] if isinstance(e, Transformer) else [e.bus]  # type: ignore[attr-defined]


def load(bus: str, p_kw: float, terminals: tuple[int, ...], connection: str = "wye", **more: object) -> Load:
    name = f"x{bus}{''.join(map(str, terminals))}{connection[0]}{more.get('model', '')}"
    return Load(
        name=name,
        bus=bus,
        p_kw=p_kw,
        q_kvar=0.4 * p_kw,
        terminals=terminals,
        connection=connection,
        **more,  # type: ignore[arg-type]
    )


def run(c: Case, formulation: str, objective: str = "cost") -> Result:
    r = build(c, formulation, objective).solve()
    assert r.ok, r.status_text
    return r


UNBALANCED = (load("c", 90.0, (1, 0)), load("c", 40.0, (2, 0)), load("b", 60.0, (3, 0)))
WYE = case(line("ab", "a", "b"), line("bc", "b", "c"), *UNBALANCED)


# -- rows --------------------------------------------------------------------------------------------------------------


def bank(connection: str, tap: float = 1.0) -> tuple[Transformer, ...]:
    """A three-phase transformer b-c, or (``single``) three single-phase ones of different taps."""
    low = {"v_rated_kv": 0.48, "s_rated_kva": 200.0, "r_percent": 0.5}
    high = {"v_rated_kv": KV, "s_rated_kva": 200.0, "r_percent": 0.5}
    if connection == "single":
        return tuple(
            Transformer(
                name=f"t{k}",
                n_phases=1,
                windings=(
                    Winding(bus="b", terminals=(k, 0), **high),  # type: ignore[arg-type]
                    Winding(bus="c", terminals=(k, 0), tap=tap + 0.01 * k, **low),  # type: ignore[arg-type]
                ),
                x_percent=(4.0,),
            )
            for k in ABC
        )
    from_delta, to_delta = connection[0] == "D", connection[1] == "d"
    root3 = np.sqrt(3.0)
    winding = [
        Winding(
            bus=bus,
            terminals=ABC if delta else (*ABC, 0),
            connection="delta" if delta else "wye",
            v_rated_kv=side["v_rated_kv"] * root3,
            s_rated_kva=600.0,
            r_percent=0.5,
            tap=t,
        )
        for bus, delta, side, t in (("b", from_delta, high, 1.0), ("c", to_delta, low, tap))
    ]
    return (Transformer(name="t", windings=tuple(winding), x_percent=(4.0,)),)


def behind(connection: str) -> Case:
    """Loads behind a transformer; of a delta side between its conductors."""
    loads = [load("b", 20.0, (1, 0)), load("d", 50.0, (1, 2), "delta"), load("d", 60.0, ABC, "delta")]
    if connection[1:] != "d":
        loads.append(load("d", 45.0, (2, 0)))
    low = line("cd", "c", "d", z=0.01 + 0.02j)
    low = dataclasses.replace(low, b_us=50.0 * np.eye(3) + 5.0)
    return case(line("ab", "a", "b"), *bank(connection, 1.02), low, *loads, kv={"c": 0.48, "d": 0.48})


CONNECTIONS = ("Yy", "Dy", "Yd", "Dd", "single")


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_every_row_holds_at_the_power_flow(connection: str) -> None:
    """Matrices made of AC voltages and currents: every equality to 1e-8, every bound and every cone."""
    point = ac_point(behind(connection))
    assert max(point.worst.values()) < 1e-8, point.worst


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_bound_behind_every_transformer(connection: str) -> None:
    c = behind(connection)
    exact = run(c, "current-voltage").objective
    sdp, cone = (run(c, f).objective for f in ("sdp", "soc3"))
    assert cone <= sdp + 2e-6 * exact
    assert sdp <= exact + 2e-6 * exact
    assert sdp >= 0.9 * exact


def test_single_phase_regulators_keep_the_angles() -> None:
    """Three branches between the same two buses have one matrix; without it the voltages of a delta would be free."""
    c = behind("single")
    r = run(c, "sdp")
    assert r.max_relaxation_gap < 1e-4
    assert r.objective == pytest.approx(run(c, "current-voltage").objective, rel=1e-3)


# -- exact where it should be ------------------------------------------------------------------------------------------


def test_exact_on_wye_loads() -> None:
    """Rank one, no losses that do not exist, and the exact optimum; the cones alone stay below."""
    exact, sdp, cone = (run(WYE, f) for f in ("current-voltage", "sdp", "soc3"))
    assert sdp.program.problem_class is ProblemClass.SDP
    assert cone.program.problem_class is ProblemClass.SOCP
    assert sdp.objective == pytest.approx(exact.objective, rel=2e-6)
    assert sdp.max_relaxation_gap < 1e-6
    assert sdp.max_rank_ratio is not None
    assert sdp.max_rank_ratio < 1e-5
    assert "relaxation" not in sdp.status_text
    assert cone.objective < sdp.objective
    assert "the relaxation is not tight" in cone.status_text
    v = np.sqrt(sdp.value("bus.vmag_sq"))
    place = [exact.elements("bus.vmag_sq").index(e) for e in sdp.elements("bus.vmag_sq")]
    np.testing.assert_allclose(v, np.sqrt(exact.value("bus.vmag_sq"))[place], atol=1e-5)
    own = [exact.elements("branch.p_from").index(e) for e in sdp.elements("branch.p_from")]
    np.testing.assert_allclose(sdp.value("branch.p_from"), exact.value("branch.p_from")[own], atol=2e-2)
    assert sdp.losses_kw == pytest.approx(exact.losses_kw, rel=1e-3)
    at = dict(zip(exact.elements("bus.vmag_sq"), exact.dual("bus.p_balance"), strict=True))
    for node, price in zip(sdp.elements("bus.vmag_sq"), sdp.dual("bus.p_balance"), strict=True):
        assert price == pytest.approx(at[node], rel=1e-3)


def test_constant_impedances_are_exact_in_delta() -> None:
    c = case(
        line("ab", "a", "b"),
        load("b", 80.0, (1, 2), "delta", model="constant_impedance"),
        load("b", 120.0, ABC, "delta", model="constant_impedance"),
        load("b", 30.0, (3, 0)),
    )
    r, exact = run(c, "sdp"), run(c, "current-voltage")
    assert r.objective == pytest.approx(exact.objective, rel=1e-5)
    assert r.max_relaxation_gap < 1e-5


@pytest.mark.parametrize("model", ["constant_current", "cvr", "zip"])
def test_powers_of_the_voltage_are_bounded_by_curve_and_chord(model: str) -> None:
    c = case(
        line("ab", "a", "b"), load("b", 200.0, (*ABC, 0), model=model, cvr_p=0.7, cvr_q=3.0, zip_p=(0.2, 0.5, 0.3))
    )
    r, exact = run(c, "sdp"), run(c, "current-voltage").objective
    assert 0.985 * exact < r.objective <= exact * (1 + 2e-6)
    assert r.max_law_gap is not None
    assert 1e-4 < r.max_law_gap < 0.02
    assert "off their law" in r.status_text


def test_three_equal_phases_are_the_balanced_relaxation() -> None:
    balanced = builtin.load("case33bw")
    balanced = balanced.with_(devices=tuple(d for d in balanced.devices if isinstance(d, Source | Load)))
    assert balanced.feeder.n_phases == 3
    one = run(balanced, "soc", "loss").objective
    # the cones do not see that equal phases stay equal where the phases are coupled
    for formulation, mutual in (("soc3", 0.0), ("sdp", 0.0), ("sdp", 0.3)):
        three = run(three_phases_of(balanced, mutual), formulation, "loss").objective
        assert three == pytest.approx(one, rel=1e-6)


def test_new_loads_build_the_bounds_anew() -> None:
    """Bounds of currents are numbers made of the loads: an update of these builds the problem again."""
    model = build(WYE, "sdp")
    before = model.solve().objective
    assert "load.p_kw" in model.program.baked
    more = {d.name: np.array([3.0 * d.p_kw]) for d in WYE.loads}
    after = model.update(loads=more).solve()
    assert after.ok
    fresh = run(after.case, "sdp").objective
    assert after.objective == pytest.approx(fresh, rel=1e-6)
    assert after.objective > 2.9 * before
    priced = model.update(prices=0.3).solve()
    assert priced.objective == pytest.approx(3.0 * after.objective, rel=1e-5)


def test_phase_limits_hold() -> None:
    """Limits between phases and of unbalance are linear in v; a battery of reactive power is what can meet them."""
    pvs = tuple(
        PV(name=f"pv{k}", bus="c", terminals=(k, 0), p_rated_kw=30.0, s_max_kva=80.0, curtailable=True) for k in ABC
    )
    c = WYE.with_(devices=(*WYE.devices, *pvs))
    free = run(c, "sdp", "loss")
    assert free.ok
    buses = tuple(dataclasses.replace(b, unbalance_max=0.004) if b.name == "c" else b for b in c.feeder.buses)
    tight = c.with_(feeder=dataclasses.replace(c.feeder, buses=buses))
    r, exact = run(tight, "sdp", "loss"), run(tight, "current-voltage", "loss")
    assert r.objective >= free.objective * (1 - 1e-6)
    assert r.objective <= exact.objective * (1 + 5e-6)


# -- recovery ----------------------------------------------------------------------------------------------------------


def reverse(price: float) -> Case:
    """33 buses at 30 % load with three PV systems of 3 MW, at most 1.05 pu."""
    c = builtin.load("case33bw")
    pvs = tuple(
        PV(name=f"pv{b}", bus=b, p_rated_kw=3000.0, s_max_kva=3300.0, curtailable=True) for b in ("18", "25", "33")
    )
    devices: list[Element] = []
    for d in c.devices:
        if isinstance(d, Source):
            devices.append(dataclasses.replace(d, price_import=price))
        elif isinstance(d, Load):
            devices.append(dataclasses.replace(d, p_kw=0.3 * d.p_kw, q_kvar=0.3 * d.q_kvar))
    buses = tuple(dataclasses.replace(b, v_min_pu=0.9, v_max_pu=1.05) for b in c.feeder.buses)
    return c.with_(devices=(*devices, *pvs), feeder=dataclasses.replace(c.feeder, buses=buses))


@pytest.mark.parametrize("formulation", ["soc", "soc3", "sdp"])
@pytest.mark.parametrize(("objective", "price"), [("curtailment", 0.1), ("cost", -0.1)])
def test_phantom_losses_are_flagged_and_recovered(formulation: str, objective: str, price: float) -> None:
    """What the relaxation gains by losses that do not exist is said; the schedule that comes back has none."""
    c = reverse(price)
    relaxed = build(c, formulation, objective).solve()
    assert relaxed.ok
    assert relaxed.max_relaxation_gap > 1e-2
    assert relaxed.relaxation_gap_share > 0.5
    assert "the relaxation is not tight" in relaxed.status_text
    r = lateral.solve(c, formulation, objective, recover=True, with_replay=False)
    assert r.ok
    assert r.formulation == "nonlinear"
    assert r.max_relaxation_gap < 1e-9
    assert r.objective >= relaxed.objective - 1e-6 * max(abs(relaxed.objective), 1.0)
    (text,) = [text for text in r.choices if f"{formulation} proves that no schedule is below" in text]
    bound = float(text.split("is below ")[1].split(" ")[0])
    said = float(text.rsplit("at most ", 1)[1].split(" ")[0])
    assert bound <= relaxed.objective + 1e-7 * abs(relaxed.objective)  # eight digits are shown
    assert said == pytest.approx((r.objective - bound) / max(abs(r.objective), r.program.objective_floor), rel=0.1)
    assert any("recovered by nonlinear" in text for text in r.choices)


def test_recovery_is_tight_where_the_relaxation_is() -> None:
    r = lateral.solve(WYE, "sdp", recover=True, with_replay=False)
    assert r.formulation == "current-voltage"
    (text,) = [text for text in r.choices if "proves that no schedule" in text]
    gap = float(text.rsplit("at most ", 1)[1].split(" ")[0])
    assert gap < 2e-6


def test_only_a_relaxation_is_recovered() -> None:
    with pytest.raises(OptionError, match="nothing to recover"):
        lateral.solve(WYE, "lindist3flow", recover=True)


def test_no_bound_of_a_problem_that_decides_more() -> None:
    """`soc` takes the piece of a volt-var curve at nominal voltage: its optimum bounds another problem."""
    c = reverse(0.1)
    devices = tuple(dataclasses.replace(d, q_control="volt_var") if isinstance(d, PV) else d for d in c.devices)
    r = lateral.solve(c.with_(devices=devices), "soc", recover=True, with_replay=False)
    assert r.ok, r.status_text
    (text,) = [text for text in r.choices if "proves no bound" in text]
    assert "the piece of its curve" in text
    assert not any("no schedule is below" in text for text in r.choices)
    assert not any(text.startswith("pv: volt_var") for text in r.choices)


def test_a_bound_that_does_not_hold_is_said() -> None:
    """Never a gap of zero in its place: here the bound is that of twice the load."""
    c = reverse(0.1).with_(devices=tuple(d for d in reverse(0.1).devices if not isinstance(d, PV)))
    half = tuple(dataclasses.replace(d, p_kw=0.5 * d.p_kw) if isinstance(d, Load) else d for d in c.devices)
    relaxed, exact = build(c, "soc").solve(), build(c.with_(devices=half), "nonlinear").solve()
    assert "this bound does not hold" in _bound(relaxed, exact, (), ())
    assert "at most" in _bound(relaxed, build(c, "nonlinear").solve(), (), ())


def test_a_bound_names_what_it_rests_on() -> None:
    assert build(WYE, "sdp").program.granted == ()
    free = tuple(dataclasses.replace(b, v_max_pu=float("inf")) for b in WYE.feeder.buses)
    narrow = tuple(dataclasses.replace(d, v_min_pu=0.999) if isinstance(d, Load) else d for d in WYE.devices)
    c = WYE.with_(feeder=dataclasses.replace(WYE.feeder, buses=free), devices=narrow)
    r = lateral.solve(c, "sdp", recover=True, with_replay=False)
    (text,) = [text for text in r.choices if "proves that no schedule" in text]
    assert "voltages without a limit are at most 20 % below and 20 % above the operating point" in text
    assert "stay on the side of their voltage band" in text
    assert "it is a bound only given that voltages without a limit" in build(c, "soc3").solve().status_text


def test_loads_beyond_their_band_are_said_where_they_cannot_be_followed() -> None:
    """`nonlinear` and `soc` take the law of a load at nominal voltage; at 0.91 pu it is another one below 0.95 pu."""
    c = lateral.read("case33bw")
    narrow = tuple(dataclasses.replace(d, v_min_pu=0.95, v_low_pu=0.5) if isinstance(d, Load) else d for d in c.devices)
    assert not build(c, "nonlinear").solve().warnings
    r = build(c.with_(devices=narrow), "nonlinear").solve()
    assert r.ok
    assert any("left the side of their band" in text and "current-voltage" in text for text in r.warnings)
    relaxed = lateral.solve(c.with_(devices=narrow), "soc", recover=True, with_replay=False)
    assert any("given that loads and inverters stay on the side" in text for text in relaxed.choices)


@pytest.mark.parametrize("model", ["constant_power", "constant_current", "constant_power_fixed_q", "zip"])
def test_loads_below_their_band_keep_their_law_there(model: str) -> None:
    """Between v_low and v_min OpenDSS's current is linear in |V|: P = c1 |V| + c2 |V|^2, c1 < 0, and no impedance.

    An inverter moves the voltage by 0.015 pu from that of the day without control, all of it below 0.95 pu.
    """
    sun = PV(name="p", bus="c", terminals=(*ABC, 0), p_rated_kw=0.0, s_max_kva=300.0)
    laws = {"model": model, "v_min_pu": 0.95, "v_low_pu": 0.5, "zip_p": (0.2, 0.5, 0.3), "zip_q": (0.2, 0.5, 0.3)}
    loads = (dataclasses.replace(d, **laws) for d in UNBALANCED)  # type: ignore[arg-type]
    c = case(line("ab", "a", "b"), line("bc", "b", "c"), *loads, sun)
    wide = tuple(dataclasses.replace(b, v_min_pu=0.8) for b in c.feeder.buses)
    low = tuple(dataclasses.replace(d, v_pu=0.9) if isinstance(d, Source) else d for d in c.devices)
    c = c.with_(feeder=dataclasses.replace(c.feeder, buses=wide), devices=low)
    exact, r = run(c, "current-voltage"), build(c, "sdp").solve()
    v = np.sqrt(exact.value("bus.vmag_sq"))
    assert v.max() < 0.95
    before = exact.baseline.vmag_pu[[exact.baseline.index.position[node] for node in exact.network.nodes]]
    assert np.max(np.abs(v - before)) > 0.015
    assert r.bound is not None
    assert r.bound <= exact.objective * (1 + 1e-6)
    assert r.bound >= 0.999 * exact.objective


def test_an_exact_form_that_declines_costs_no_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the power flow of the schedule nor the day without control converges: the relaxed schedule, and why."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise UnsupportedError([Fault("FOR-010 no-operating-point", "case.x", "none", "one", "Lower the load.")])

    model = build(WYE, "sdp")
    relaxed = model.solve()
    monkeypatch.setattr(opf, "schedule_point", fail)
    monkeypatch.setattr(opf, "operating_point", fail)
    r = made_exact(model, relaxed)
    assert r.formulation == "sdp"
    assert r.objective == relaxed.objective
    assert "no exact schedule was made of it: [FOR-010" in r.status_text


def test_what_was_asked_of_a_solver_is_asked_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ClarabelOptions().plain() is None
    asked = Options(tolerance=1e-8, time_limit_s=60.0)
    given = ClarabelOptions(tolerance=1e-8, time_limit_s=60.0)
    assert given.plain() == asked == asked.plain()
    seen = []
    plain = Model.solve

    def solve(self: Model, solver: str, options: Options | None = None, *, explain_infeasible: bool = True) -> Result:
        seen.append(options)
        return plain(self, solver, options, explain_infeasible=explain_infeasible)

    monkeypatch.setattr(Model, "solve", solve)
    r = lateral.solve(WYE, "sdp", solver="clarabel", options=given, recover=True, with_replay=False)
    assert r.ok, r.status_text
    assert seen == [given, asked]


def test_an_infeasible_relaxation_is_a_proof() -> None:
    """No schedule: nothing to recover, and the limits that stand in the way are named."""
    buses = tuple(dataclasses.replace(b, v_min_pu=0.9995) if b.name == "c" else b for b in WYE.feeder.buses)
    c = WYE.with_(feeder=dataclasses.replace(WYE.feeder, buses=buses))
    r = lateral.solve(c, "sdp", recover=True, with_replay=False)
    assert r.formulation == "sdp"
    assert not r.has_values
    assert any(conflict.block == "bus.vmag_sq" for conflict in r.conflicts)


def test_a_decided_capacitor_is_bounded_by_planes() -> None:
    """A product of a decision and the voltage: the bound is below the exact optimum, and near it."""
    bank = Capacitor(name="k", bus="c", terminals=(*ABC, 0), q_kvar=0.0, q_total_kvar=90.0, decision="step")
    c = WYE.with_(devices=(*WYE.devices, bank))
    r, exact = run(c, "sdp", "loss"), run(c, "current-voltage", "loss")
    assert 0.9 * exact.objective < r.objective <= exact.objective * (1 + 1e-5)


@pytest.mark.parametrize("formulation", ["soc3", "sdp"])
def test_a_reactor_that_is_decided_is_bounded_by_planes(formulation: str) -> None:
    """A susceptance below zero: capacitive loads ask for it, and a bound that keeps it at zero is none."""
    reactor = SVC(name="v", bus="c", terminals=(*ABC, 0), q_min_kvar=-200.0, q_max_kvar=50.0)
    loads = tuple(dataclasses.replace(d, q_kvar=-60.0) if isinstance(d, Load) else d for d in WYE.devices)
    c = WYE.with_(devices=(*loads, reactor))
    r, exact = run(c, formulation, "loss"), run(c, "current-voltage", "loss")
    assert exact.settings["svc.v"].max() < -50.0
    assert r.objective <= exact.objective * (1 + 1e-5)
    if formulation == "sdp":
        assert r.objective > 0.9 * exact.objective


def test_a_neutral_that_counts_as_grounded_makes_no_bound(tmp_path: Path) -> None:
    """The matrix family leaves neutral conductors out; behind half an ohm that moves the optimum of this feeder to the
    wrong side of the exact one, and it must not be handed out as a bound."""
    c = four_wires(tmp_path)
    exact = build(c, "current-voltage").solve()
    for formulation in ("sdp", "soc3"):
        r = lateral.solve(c, formulation, with_replay=False)
        assert r.ok, r.status_text
        assert r.cost > exact.cost + 0.1  # what would be no lower bound
        assert not r.is_bound
        assert "neutral conductors count as grounded (d.4 is at" in r.status_text
        assert "it is a bound" not in r.status_text
    recovered = lateral.solve(c, "sdp", recover=True, with_replay=False)
    assert recovered.cost == pytest.approx(exact.cost, rel=1e-6)
    assert any("sdp proves no bound, because it is not of the same problem" in text for text in recovered.choices)


@pytest.mark.parametrize("load_kw", [0.0, 0.1, 60.0])
def test_an_inverter_where_next_to_nothing_is_drawn(load_kw: float) -> None:
    """Matrices are scaled by what may flow in a branch, with what an inverter may give: by the loads alone, `sdp` found
    nothing of this one, and a gap of 1e-5."""
    loads = (Load(name="x", bus="b", terminals=(1, 0), p_kw=load_kw, q_kvar=load_kw / 3.0),) if load_kw else ()
    pv = PV(name="z", bus="b", terminals=(1, 2, 3, 0), p_rated_kw=200.0, s_max_kva=240.0, curtailable=True)
    c = case(line("ab", "a", "b"), *loads, pv)
    exact = build(c, "current-voltage").solve()
    assert exact.value("pv.p")[0, 0] == pytest.approx(200.0, rel=1e-6)
    tight, loose = build(c, "sdp").solve(), build(c, "soc3").solve()
    assert tight.ok, tight.status_text
    assert tight.cost == pytest.approx(exact.cost, rel=1e-6)
    assert loose.ok, loose.status_text
    assert loose.cost <= exact.cost + 1e-6 * abs(exact.cost)


def four_wires(folder: Path) -> Case:
    """A four-wire secondary whose neutral is grounded through half an ohm at the transformer, and a large inverter."""
    master = folder / "master.dss"
    master.write_text(
        """Clear
        New Circuit.c basekv=12.47 pu=1.02 phases=3 bus1=src MVAsc3=200 MVAsc1=150
        New Linecode.lc nphases=4 rmatrix=(0.3|0.1 0.3|0.1 0.1 0.3|0.1 0.1 0.1 0.4)
        ~ xmatrix=(0.6|0.2 0.6|0.2 0.2 0.6|0.2 0.2 0.2 0.7)
        New Transformer.t phases=3 windings=2 buses=(src b.1.2.3.4) conns=(delta wye) kvs=(12.47 0.48) kvas=(1000 1000)
        New Reactor.gnd phases=1 bus1=b.4 bus2=b.0 R=0.5 X=0
        New Line.ll bus1=b.1.2.3.4 bus2=d.1.2.3.4 linecode=lc length=0.2
        New Load.x bus1=d.1.4 phases=1 kv=0.277 kW=60 kvar=20
        set voltagebases=[12.47 0.48]
        calcv
        solve
        """
    )
    c = lateral.read(master)
    sold = (dataclasses.replace(d, price_import=0.2, price_export=0.2) for d in c.devices if isinstance(d, Source))
    pv = PV(name="z", bus="d", terminals=(1, 2, 3, 4), p_rated_kw=200.0, s_max_kva=240.0, curtailable=True)
    buses = tuple(dataclasses.replace(b, v_min_pu=0.9, v_max_pu=1.1) for b in c.feeder.buses)
    others = (d for d in c.devices if not isinstance(d, Source))
    return c.with_(devices=(*sold, *others, pv), feeder=dataclasses.replace(c.feeder, buses=buses))


def test_limits_between_phase_and_neutral(tmp_path: Path) -> None:
    """Met in the exact forms where the limit to ground is not enough; in the matrix family the neutral is ground."""
    c = four_wires(tmp_path)
    pvs = tuple(
        PV(name=f"z{k}", bus="d", terminals=(k, 4), p_rated_kw=90.0, s_max_kva=140.0, curtailable=True)
        for k in (1, 2, 3)
    )
    c = c.with_(devices=(*(d for d in c.devices if not isinstance(d, PV)), *pvs))
    limits = {"v_min_pu": 0.0, "v_max_pu": float("inf"), "vpn_min_pu": 0.9, "vpn_max_pu": 1.1}
    buses = tuple(dataclasses.replace(b, **limits) for b in c.feeder.buses)  # type: ignore[arg-type]
    limited = c.with_(feeder=dataclasses.replace(c.feeder, buses=buses))

    def to_neutral(r: Result) -> np.ndarray:
        v = np.sqrt(r.value("bus.vmag_sq")) * np.exp(1j * np.deg2rad(r.value("bus.vang")))
        at = r.network.position
        return np.array([abs(v[at["d", k], 0] - v[at["d", 4], 0]) for k in ABC])

    assert to_neutral(build(c, "current-voltage").solve()).min() < 0.8
    costs = []
    for formulation in ("current-voltage", "bus-injection"):
        r = build(limited, formulation).solve()
        assert r.ok
        u = to_neutral(r)
        assert u.min() >= 0.9 - 1e-8
        assert u.max() <= 1.1 + 1e-8
        assert min(u.min() - 0.9, 1.1 - u.max()) < 1e-6  # it binds
        costs.append(r.cost)
    assert costs[0] == pytest.approx(costs[1], rel=1e-7)
    relaxed = build(limited, "sdp").solve()
    v = np.sqrt(relaxed.value("bus.vmag_sq"))[[relaxed.network.position["d", k] for k in ABC]]
    assert v.min() >= 0.9 - 1e-6
    assert v.max() <= 1.1 + 1e-6
    with pytest.raises(UnsupportedError, match=r"FOR-021 .*limits to a neutral"):
        build(limited, "lindist3flow")
    crossed = dataclasses.replace(limited.feeder.bus["d"], vpn_min_pu=1.2)
    buses = tuple(crossed if b.name == "d" else b for b in limited.feeder.buses)
    faults = lateral.check(limited.with_(feeder=dataclasses.replace(limited.feeder, buses=buses)))
    assert [f.code[:7] for f in faults] == ["NET-013"]
    assert "vpn_min_pu = 1.2" in faults[0].found


def test_the_central_path_is_tried_where_a_tighter_tolerance_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its point has multipliers to the last digits: those of `soc3` are often off by 1e-5 where many are optimal."""
    program = build(WYE, "soc3").program
    first = solvers.get("clarabel").solve(program)
    seen: list[Status] = []

    def refuses_once(program: Program, solution: Solution) -> tuple[Status, Residuals]:
        seen.append(solution.status)
        status, residuals = judged(program, solution)
        return (Status.INACCURATE if len(seen) == 1 else status), residuals

    monkeypatch.setattr(retry, "judged", refuses_once)
    again = retry.tighter(program, first, Status.INACCURATE)
    assert len(seen) == 2
    assert again is not None
    residuals = recompute(program, again)
    assert residuals.duality_gap < 1e-7
    assert residuals.max_dual < 1e-10
    assert any("along the central path" in note for note in again.notes)


@pytest.mark.parametrize("ipopt_succeeds", [True, False])
def test_the_central_path_comes_after_ipopt(monkeypatch: pytest.MonkeyPatch, ipopt_succeeds: bool) -> None:
    """Of cones that have no point of it, going there took 13 s of the 17 of `soc3` on IEEE 123 x 4; Ipopt takes 3."""
    followed: list[str] = []

    def refuses(program: Program, solution: Solution) -> tuple[Status, Residuals]:
        status, residuals = judged(program, solution)
        refused = not followed if solution.solver == "clarabel" else not ipopt_succeeds
        return (Status.INACCURATE if refused else status), residuals

    def follows(program: Program, solution: Solution, status: Status) -> Solution | None:
        if solution.solver == "clarabel":
            followed.append(solution.solver)
        return retry_along_path(program, solution, status)

    retry_along_path = retry.along_path
    monkeypatch.setattr(retry, "judged", refuses)
    monkeypatch.setattr(model_module, "judged", refuses)
    for where in (retry, model_module):
        monkeypatch.setattr(where, "along_path", follows)
    found = build(WYE, "soc3").solve()
    assert found.ok, found.status_text
    assert followed == ([] if ipopt_succeeds else ["clarabel"])
    assert found.solution.solver == ("ipopt" if ipopt_succeeds else "clarabel")
