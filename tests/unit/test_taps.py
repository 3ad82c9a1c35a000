"""Taps as decisions: the split of a transformer, the optimum against fixed taps, OpenDSS, power flow, what declines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lateral
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.cli.schedules import read_schedule
from lateral.cli.writing import schedule
from lateral.devices import PV, Load, Regulator, Source
from lateral.errors import CaseError
from lateral.io import builtin
from lateral.io.dispatch import Dispatch
from lateral.io.opendss.write import render_opendss, write_opendss
from lateral.network.admittance import primitive_of
from lateral.network.feeder import Bus, Feeder, Line, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.tapped import declines, series_flow, series_power, tapped_primitive, with_taps
from lateral.opf import build, dispatch_of, replayed
from lateral.replay import replay
from lateral.results.result import Result

EXACT = ("current-voltage", "bus-injection")
KV = 2.4
ROOT3 = float(np.sqrt(3.0))


def winding(bus: str, terminals: tuple[int, ...], kv: float, connection: str = "wye", **more: Any) -> Winding:
    return Winding(
        bus=bus, terminals=terminals, connection=connection, v_rated_kv=kv, s_rated_kva=900.0, r_percent=0.6, **more
    )


def transformer(n: int, first: Winding, second: Winding, *more: Winding) -> Transformer:
    x = (4.0, 5.0, 3.0) if more else (4.0,)
    return Transformer(
        name="t",
        n_phases=n,
        windings=(first, second, *more),
        x_percent=x,
        no_load_loss_percent=0.2,
        magnetizing_percent=0.5,
    )


#: three-phase wye, delta on either side, one phase to ground and between phases, a third winding, a neutral conductor
KINDS = {
    "wye wye": transformer(3, winding("a", (1, 2, 3, 0), KV * ROOT3), winding("b", (1, 2, 3, 0), KV * ROOT3)),
    "delta wye": transformer(3, winding("a", (1, 2, 3), KV * ROOT3, "delta"), winding("b", (1, 2, 3, 0), KV * ROOT3)),
    "wye delta": transformer(3, winding("a", (1, 2, 3, 0), KV * ROOT3), winding("b", (1, 2, 3), KV * ROOT3, "delta")),
    "one phase": transformer(1, winding("a", (2, 0), KV), winding("b", (2, 0), KV)),
    "between phases": transformer(1, winding("a", (1, 2), KV * ROOT3), winding("b", (1, 2), KV * ROOT3)),
    "turned": transformer(1, winding("a", (1, 0), KV), winding("b", (0, 1), KV)),
    "three windings": transformer(
        1, winding("a", (1, 0), KV), winding("b", (1, 0), KV), winding("b", (0, 2), KV, tap=1.01)
    ),
}


@pytest.mark.parametrize("tapped", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_split_is_the_transformer(kind: str, tapped: tuple[int, ...]) -> None:
    """With E = M V / a and J = I / a eliminated, ``T' Y T`` with ``T = [1; M / a]`` is the primitive at those taps."""
    t = KINDS[kind]
    taps = {0: 0.97, 1: 1.043}
    part = tapped_primitive(t, tapped)
    n, m = len(part.nodes), len(part.windings)
    into = np.zeros((m, n))
    for k, (w, (start, end)) in enumerate(zip(part.windings, part.ends, strict=True)):
        for at, sign in ((start, 1.0), (end, -1.0)):
            if at >= 0:
                into[k, at] += sign / taps[w]
    both = np.vstack([np.eye(n), into])
    turned = with_taps(Feeder(buses=(), transformers=(t,)), {("t", k + 1): taps[k] for k in tapped}).transformers[0]
    whole = primitive_of(turned)
    assert whole.nodes == part.nodes
    np.testing.assert_allclose(both.T @ part.y @ both, whole.y, atol=1e-9 * np.abs(whole.y).max())


def test_isolated_neutrals_decline() -> None:
    t = transformer(3, winding("a", (1, 2, 3), KV * ROOT3, "delta"), winding("b", (1, 2, 3, -1), KV * ROOT3))
    assert "isolated neutral" in declines(t)
    with pytest.raises(ValueError, match="isolated neutral"):
        tapped_primitive(t, (1,))


def case_of(kind: str, decision: str = "step", side: int = 2, **regulator: Any) -> Case:
    """Source, line, transformer, line, load; two steps; the conductors that the transformer has."""
    t = KINDS[kind]
    used = sorted({c for w in t.windings for c in w.terminals if c > 0})
    angles = {1: 0.0, 2: -120.0, 3: 120.0}
    n = len(used)

    def line(name: str, a: str, b: str) -> Line:
        one = tuple(used)
        r, x = 0.06 * np.eye(n) + 0.02, 0.12 * np.eye(n) + 0.05
        return Line(name=name, bus_from=a, bus_to=b, conductors_from=one, conductors_to=one, r_ohm=r, x_ohm=x)

    limits = {"v_min_pu": 0.9, "v_max_pu": 1.06, "v_base_kv": KV, "conductors": tuple(used)}
    if kind == "between phases":  # nothing ties its second side to ground: no limit of a voltage to ground
        limits |= {"v_min_pu": 0.0, "v_max_pu": float("inf")}
        loads = (Load(name="x", bus="d", terminals=(1, 2), connection="delta", p_kw=200.0, q_kvar=90.0, profile="day"),)
    else:
        loads = tuple(
            Load(name=f"x{c}", bus="d", terminals=(c, 0), p_kw=70.0 + 20 * c, q_kvar=40.0, profile="day") for c in used
        )
    if kind == "wye delta":
        loads = tuple(
            Load(name=f"x{k}", bus="d", terminals=pair, connection="delta", p_kw=90.0, q_kvar=40.0, profile="day")
            for k, pair in enumerate(((1, 2), (2, 3)))
        )
    grid = Source(
        name="grid",
        bus="s",
        conductors=tuple(used),
        angle_deg=tuple(angles[c] for c in used),
        v_pu=1.0,
        price_import=0.1,
        r_ohm=np.zeros((n, n)),
        x_ohm=np.zeros((n, n)),
    )
    return Case(
        name="taps",
        feeder=Feeder(
            buses=tuple(Bus(name=b, **limits) for b in "sabd"),  # type: ignore[arg-type]
            lines=(line("sa", "s", "a"), line("bd", "b", "d")),
            transformers=(t,),
        ),
        devices=(
            grid,
            *loads,
            Regulator(name="r", transformer="t", winding=side, decision=decision, **regulator),
        ),
        horizon=Horizon.regular(2),
        profiles={"day": np.array([1.0, 0.4])},
    )


def solved(case: Case, formulation: str = "current-voltage", objective: str = "loss", **more: Any) -> Result:
    r = build(case, formulation, objective, **more).solve()
    assert r.ok, r.status_text
    return r


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_in_opendss_and_better_than_a_fixed_tap(kind: str, side: int, formulation: str) -> None:
    case = case_of(kind, side=side)
    r = replayed(solved(case, formulation))
    assert r.replay.errors.max_dv_pu <= 1e-6  # type: ignore[union-attr]
    assert r.replay.errors.dloss_kw <= 1e-3  # type: ignore[union-attr]
    day, fixed = (solved(case_of(kind, d, side), formulation) for d in ("day", "fixed"))
    assert r.objective <= day.objective * (1 + 1e-7)
    assert day.objective < fixed.objective * 0.999
    taps = day.settings["regulator.r"]
    assert taps[0] == taps[1] != 1.0
    # what was decided, as fixed taps, is the same schedule: step by step
    for step in range(2):
        held = case.with_(feeder=with_taps(case.feeder, {("t", side): float(r.settings["regulator.r"][step])}))
        flow = power_flow(held, tolerance_pu=1e-10)
        rows = [flow.index.nodes.index(node) for node in r.network.nodes]
        v = np.sqrt(r.value("bus.vmag_sq"))
        np.testing.assert_allclose(flow.vmag_pu[rows, step], v[:, step], atol=1e-6)
        assert flow.losses_kw[step] == pytest.approx(r.losses_kw[step], abs=1e-3)
    # flows into the series impedance are those of the model that holds these taps; without limits, because the tap may
    # rest on one, and then nothing is left to decide by which it could be kept to the last digit
    same = dataclasses.replace(case, feeder=with_taps(case.feeder, {("t", side): float(taps[0])}))
    again = solved(same.with_(devices=case_of(kind, "fixed", side).devices), formulation, limits="none")
    np.testing.assert_allclose(again.value("branch.p_from"), day.value("branch.p_from"), atol=2e-2)


def test_the_tap_of_least_losses_by_search() -> None:
    """One phase: no tap of a fine grid is better, and the best of the grid is next to what was found."""
    r = solved(case_of("one phase", "day", tap_min=0.95, tap_max=1.04))
    best = r.settings["regulator.r"][0]
    loss = {}
    for tap in np.linspace(0.95, 1.04, 19):
        case = case_of("one phase", "fixed")
        loss[tap] = power_flow(case.with_(feeder=with_taps(case.feeder, {("t", 2): float(tap)}))).losses_kw.sum()
    assert min(loss, key=loss.__getitem__) == pytest.approx(best, abs=0.0051)
    assert r.objective <= min(loss.values()) + 1e-4


@pytest.mark.parametrize("side", [1, 2])
def test_a_voltage_limit_decides_the_tap(side: int) -> None:
    """Constant power loses least at the highest voltage: 1.06 at the bus behind the transformer, at every step."""
    case = case_of("wye wye", side=side, tap_min=0.8, tap_max=1.2)
    bare = dataclasses.replace(case.feeder.transformers[0], no_load_loss_percent=0.0, magnetizing_percent=0.0)
    r = solved(case.with_(feeder=dataclasses.replace(case.feeder, transformers=(bare,))))
    v = np.sqrt(r.value("bus.vmag_sq"))
    at_b = [k for k, (bus, _) in enumerate(r.network.nodes) if bus == "b"]
    np.testing.assert_allclose(v[at_b].max(axis=0), 1.06, atol=5e-5)
    higher = r.settings["regulator.r"] > 1.0
    assert np.all(higher if side == 2 else ~higher)


def test_the_loading_limit_of_a_transformer_with_a_decided_tap() -> None:
    """290 kW behind it: a limit of 200 kVA cannot be met; one above the load binds nothing."""
    case = case_of("wye wye")
    t = case.feeder.transformers[0]
    for limit, ok in ((200.0, False), (450.0, True)):
        feeder = dataclasses.replace(case.feeder, transformers=(dataclasses.replace(t, s_max_kva=limit),))
        r = build(case.with_(feeder=feeder), "current-voltage", "loss").solve(explain_infeasible=False)
        assert r.ok == ok
    assert r.objective == pytest.approx(solved(case).objective, rel=1e-6)


@pytest.mark.parametrize("tapped", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_power_through_knows_no_tap(kind: str, tapped: tuple[int, ...]) -> None:
    """``sum W conj(I)`` over constant matrices is the power into the series impedance at any taps."""
    t, taps, rng = KINDS[kind], {0: 0.93, 1: 1.08}, np.random.default_rng(3)
    part = tapped_primitive(t, tapped)
    v = 2400.0 * (rng.normal(size=(len(part.nodes), 1)) + 1j * rng.normal(size=(len(part.nodes), 1)))
    true = series_power(t, np.array([[taps[k]] for k in tapped]), tapped, v).sum()
    ground = np.vstack([v, np.zeros((1, 1))])
    inner = [(ground[a] - ground[b]) / taps[k] for (a, b), k in zip(part.ends, part.windings, strict=True)]
    whole = np.vstack([v, inner])
    w, i = series_flow(t, tapped)
    assert np.sum((w @ whole) * np.conj(i @ whole)) == pytest.approx(true, rel=1e-10)


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize(
    ("kind", "side"), [("wye wye", 1), ("wye wye", 2), ("delta wye", 2), ("wye delta", 2), ("three windings", 3)]
)
def test_a_loading_limit_that_binds_is_a_loading_of_one(kind: str, side: int, formulation: str) -> None:
    """A PV system that sells through the transformer: what the limit keeps is what `Result.loading` says."""
    case = case_of(kind, side=side)
    t = dataclasses.replace(case.feeder.transformers[0], s_max_kva=60.0)
    used = case.feeder.buses[0].conductors
    terminals, connection = ((1, 2, 3), "delta") if kind == "wye delta" else ((*used, 0), "wye")
    sun = PV(
        name="sun",
        bus="d",
        terminals=terminals,
        connection=connection,
        p_rated_kw=900.0,
        s_max_kva=900.0,
        curtailable=True,
        q_control="free",
    )
    devices = tuple(d for d in case.devices if not isinstance(d, Load))
    r = solved(
        case.with_(feeder=dataclasses.replace(case.feeder, transformers=(t,)), devices=(*devices, sun)),
        formulation,
        "cost",
    )
    row = r.loading.set_index("element").loc["transformer.t"]
    assert row["share"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "side"), [("wye wye", 1), ("wye wye", 2), ("delta wye", 2), ("wye delta", 2), ("three windings", 3)]
)
def test_the_replay_judges_the_loading_at_the_taps_of_the_schedule(kind: str, side: int) -> None:
    """At the tap of the case a few per cent of turns across a small impedance look like many times its power."""
    case = case_of(kind, side=side)
    r = solved(case)
    assert np.abs(r.settings["regulator.r"] - 1.0).min() > 1e-3
    t = dataclasses.replace(case.feeder.transformers[0], s_max_kva=1.0)
    rated = case.with_(feeder=dataclasses.replace(case.feeder, transformers=(t,)))
    found = replay(rated, dispatch_of(r)).other_violations().sort_values("step")
    own = [k for k, leg in enumerate(r.elements("branch.p_from")) if leg.startswith("transformer.t")]
    through = np.hypot(*(r.value(f"branch.{side}_from")[own].sum(axis=0) for side in "pq"))
    assert found["element"].tolist() == ["transformer.t"] * 2
    np.testing.assert_allclose(found["value"], through, rtol=1e-5)


def test_a_formulation_without_ratios_holds_the_tap_and_says_so() -> None:
    case = case_of("wye wye")
    r = replayed(solved(case, "lindist3flow"))
    assert "regulator.r: tap held at 1, because the formulation holds taps" in r.choices
    np.testing.assert_array_equal(r.settings["regulator.r"], [1.0, 1.0])
    isolated = transformer(3, winding("a", (1, 2, 3), KV * ROOT3, "delta"), winding("b", (1, 2, 3, -1), KV * ROOT3))
    loads = [Load(name="x", bus="d", terminals=(1, 2, 3), connection="delta", p_kw=90.0)]
    devices = (*(d for d in case.devices if not isinstance(d, Load)), *loads)
    other = case.with_(feeder=dataclasses.replace(case.feeder, transformers=(isolated,)), devices=devices)
    assert any("isolated neutral" in c for c in solved(other, "current-voltage").choices)


def test_a_gang_has_one_tap() -> None:
    """Three single-phase regulators of IEEE 13: apart they differ, in a gang they do not, which is no better."""
    case = builtin.load("ieee13-rated")

    def decided(gang: str, decision: str) -> Result:
        change = {"decision": decision, "gang": gang}
        devices = tuple(dataclasses.replace(d, **change) if isinstance(d, Regulator) else d for d in case.devices)
        return solved(case.with_(devices=devices))

    apart, gang, once = decided("", "step"), decided("g", "step"), decided("g", "day")
    assert np.ptp([v[0] for v in apart.settings.values()]) > 1e-3
    for r in (gang, once):
        assert np.ptp([v[0] for v in r.settings.values()]) < 1e-8
        assert r.objective >= apart.objective * (1 - 1e-7)
    assert gang.objective == pytest.approx(once.objective, rel=1e-6)


def test_power_flow_with_taps_step_by_step() -> None:
    """Each step as its own power flow with that tap."""
    case = case_of("delta wye")
    taps = np.array([1.02, 0.99])
    flow = power_flow(case, settings={"regulator.r": taps})
    assert flow.all_converged
    assert len(flow.methods) == 2
    for k, tap in enumerate(taps):
        one = power_flow(case.with_(feeder=with_taps(case.feeder, {("t", 2): float(tap)})))
        np.testing.assert_allclose(flow.v[:, k], one.v[:, k], atol=1e-6)
        assert flow.losses_kw[k] == pytest.approx(one.losses_kw[k], abs=1e-6)
    sweep = power_flow(case, settings={"regulator.r": taps}, method="sweep")
    np.testing.assert_allclose(sweep.vmag_pu, flow.vmag_pu, atol=1e-7)


def test_taps_reach_the_files(tmp_path: Path) -> None:
    """steps.dss edits the tap where it changes and solves each step; a schedule brings them back."""
    case = case_of("wye wye")
    d = dispatch_of(solved(case))
    master = write_opendss(case, tmp_path / "out", dispatch=d)
    text = (tmp_path / "out" / "steps.dss").read_text()
    assert text.count("\nSolve\n") == 2
    assert text.count("Edit Transformer.t wdg=2 tap=") == 2
    assert "steps.dss" in master.read_text()
    assert "steps.dss" not in render_opendss(case).files
    schedule(solved(case)).to_csv(tmp_path / "schedule.csv", index=False)
    again = read_schedule(tmp_path / "schedule.csv", case)
    np.testing.assert_allclose(again.settings["regulator.r"], d.settings["regulator.r"], atol=1e-9)
    write_opendss(case, tmp_path / "out")  # ours, so that it may be replaced
    assert not (tmp_path / "out" / "steps.dss").exists()
    with pytest.raises(CaseError, match="IO-062"):
        Dispatch(p_kw={}, q_kvar={}, settings={"regulator.r": np.array([np.nan, 1.0])}).check(case)


@pytest.mark.parametrize(
    ("change", "code"),
    [({"decision": "hour"}, "VAL-004"), ({"tap_min": 1.05}, "DEV-005"), ({"tap_min": 1.2}, "VAL-006")],
)
def test_faults(change: dict[str, Any], code: str) -> None:
    case = case_of("wye wye")
    devices = tuple(dataclasses.replace(d, **change) if isinstance(d, Regulator) else d for d in case.devices)
    assert code in [f.code[:7] for f in check(case.with_(devices=devices))]


def test_the_built_in_case_with_every_decision() -> None:
    r = replayed(solved(builtin.load("ieee13-controls"), "current-voltage", "cost"))
    taps = {k: v for k, v in r.settings.items() if k.startswith("regulator")}
    assert np.ptp(taps["regulator.reg3"]) == 0.0
    assert r.replay.errors.max_dv_pu <= 2e-6  # type: ignore[union-attr]


def test_the_files_alone_give_the_schedule(tmp_path: Path) -> None:
    """master.dss, then steps.dss, in an engine of its own: the last step has the voltages of the schedule."""
    import dss

    r = solved(builtin.load("ieee13-controls"), "current-voltage", "cost")
    master = write_opendss(r.case, tmp_path / "out", dispatch=dispatch_of(r))
    engine = dss.DSS.NewContext()
    engine.AllowForms = False
    engine.Text.Command = f'Redirect "{master}"'
    engine.Text.Command = f'Redirect "{tmp_path / "out" / "steps.dss"}"'
    circuit = engine.ActiveCircuit
    assert circuit.Solution.Converged
    v = np.abs(np.asarray(circuit.YNodeVarray).view(complex))
    at = {name.lower(): k for k, name in enumerate(circuit.YNodeOrder)}
    model = np.sqrt(r.value("bus.vmag_sq"))[:, -1]
    for k, (bus, c) in enumerate(r.network.nodes):
        base = 1000.0 * r.case.feeder.bus[bus].v_base_kv
        assert v[at[f"{bus}.{c}"]] / base == pytest.approx(model[k], abs=2e-6)
    engine.Text.Command = "ClearAll"


def test_a_relaxation_that_holds_a_tap_says_what_it_bounds() -> None:
    model = build(case_of("wye wye"), "soc3")
    r = model.solve()
    assert r.is_bound
    (text,) = r.warnings
    assert "it is a bound only for what it holds (regulator.r: tap held at 1, because the formulation holds" in text


def test_a_held_tap_gives_no_bound_of_a_decided_one() -> None:
    """The relaxation holds the tap, the recovered schedule decides it: neither a bound nor a note that it is held."""
    r = lateral.solve(case_of("wye wye"), "sdp", recover=True, with_replay=False)
    assert r.ok, r.status_text
    assert np.abs(r.settings["regulator.r"] - 1.0).max() > 1e-3
    (text,) = [text for text in r.choices if "proves no bound" in text]
    assert "tap held" in text
    assert not any(text.startswith("regulator.") or "no schedule is below" in text for text in r.choices)
