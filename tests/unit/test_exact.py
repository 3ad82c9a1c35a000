"""The exact rectangular forms: by hand, by law, by finite differences, and against the power flow of the schedule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lateral
from lateral import successive
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Source, Statcom
from lateral.devices.load import MODELS
from lateral.errors import CaseError, UnsupportedError
from lateral.formulations import Beside
from lateral.jumps import Crossed, crossed, second_state
from lateral.model import carried, point_of
from lateral.network.admittance import NodeIndex, nodal_matrix_pu
from lateral.network.feeder import Bus, Feeder, Line, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.kron import reduce_nodal
from lateral.network.schema import Element
from lateral.operating import operating_point, schedule_flow
from lateral.opf import build, refined
from lateral.program import Banded, Bends, Curve, Power
from lateral.restoration import Restored
from lateral.results.result import Result
from lateral.solvers import Status

EXACT = ("current-voltage", "bus-injection")
KV = 2.4
ANGLE = {1: 0.0, 2: -120.0, 3: 120.0}


def bus(name: str, conductors: tuple[int, ...] = (1, 2, 3), **more: float) -> Bus:
    return Bus(name=name, conductors=conductors, v_base_kv=KV, **({"v_min_pu": 0.8, "v_max_pu": 1.2} | more))


def line(
    name: str, a: str, b: str, conductors: tuple[int, ...] = (1, 2, 3), z: complex = 0.4 + 0.9j, **more: object
) -> Line:
    n = len(conductors)
    coupling = 0.7 * np.eye(n) + 0.3 * np.ones((n, n))
    return Line(
        name=name,
        bus_from=a,
        bus_to=b,
        conductors_from=conductors,
        conductors_to=conductors,
        r_ohm=z.real * coupling,
        x_ohm=z.imag * coupling,
        **more,  # type: ignore[arg-type]
    )


def case(
    buses: tuple[Bus, ...], *elements: Element, steps: int = 1, price: object = 0.1, source: Source | None = None
) -> Case:
    conductors = buses[0].conductors
    n = len(conductors)
    grid = source or Source(
        name="grid",
        bus=buses[0].name,
        conductors=conductors,
        angle_deg=tuple(ANGLE[c] for c in conductors),
        r_ohm=np.zeros((n, n)),
        x_ohm=np.zeros((n, n)),
        price_import=price,  # type: ignore[arg-type]
    )
    return Case(
        name="case",
        feeder=Feeder(
            buses=buses,
            lines=tuple(e for e in elements if isinstance(e, Line)),
            transformers=tuple(e for e in elements if isinstance(e, Transformer)),
        ),
        devices=(grid, *(e for e in elements if not isinstance(e, Line | Transformer))),
        horizon=Horizon.regular(steps),
        profiles={"day": np.linspace(0.5, 1.0, steps), "price": np.linspace(0.4, 0.1, steps)},
    )


def uneven(at: str = "c", **more: object) -> tuple[Load, ...]:
    """One load on each phase, all different."""
    return tuple(
        Load(name=f"{at}{k}", bus=at, terminals=(k, 0), p_kw=60.0 * k, q_kvar=20.0 * k, **more)  # type: ignore[arg-type]
        for k in (1, 2, 3)
    )


CHAIN = (bus("a"), bus("b"), bus("c"))
LINES = (line("ab", "a", "b"), line("bc", "b", "c"))


def solved(c: Case, formulation: str = "current-voltage", objective: str = "cost") -> Result:
    model = build(c, formulation, objective)
    r = refined(model, model.solve(), rounds=1)
    assert r.ok, r.status_text
    return r


def v_of(r: Result) -> np.ndarray:
    return np.sqrt(r.value("bus.vmag_sq"))


def assert_power_flow(r: Result, tolerance: float = 1e-8) -> None:
    """The voltages of the model are those of the power flow of its schedule."""
    points = {}
    for kind in ("pv", "battery"):
        own = [r.set_points[d.label] for d in r.case.devices if d.kind == kind and d.label in r.set_points]
        if own:
            points[kind] = (np.array([p for p, _ in own]), np.array([q for _, q in own]))
    flow = power_flow(r.case, dispatch=points, tolerance_pu=1e-10 if tolerance < 1e-7 else 1e-8)
    assert flow.all_converged
    at = [flow.index.position[node] for node in r.network.nodes]
    np.testing.assert_allclose(v_of(r), flow.vmag_pu[at], atol=tolerance)
    np.testing.assert_allclose(r.losses_kw, flow.losses_kw, atol=1e-4)


# -- by hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formulation", EXACT)
def test_two_buses_by_hand(formulation: str) -> None:
    """v^2 + (2 (r p + x q) - 1) v + |z|^2 s^2 = 0, v the squared magnitude behind z = 0.5 + 1.0j ohm at 5.76 ohm."""
    one = (1,)
    c = case(
        (bus("a", one), bus("b", one)),
        line("ab", "a", "b", one, 0.5 + 1.0j),
        Load(name="x", bus="b", p_kw=300.0, q_kvar=150.0),
    )
    r = solved(c, formulation)
    z = (0.5 + 1.0j) / 5.76
    half = 0.5 * (1.0 - 2.0 * (z.real * 0.3 + z.imag * 0.15))
    v = half + np.sqrt(half**2 - abs(z) ** 2 * (0.3**2 + 0.15**2))
    assert r.value("bus.vmag_sq")[r.elements("bus.vmag_sq").index("b.1"), 0] == pytest.approx(v, abs=1e-10)
    lost = z.real * (0.3**2 + 0.15**2) / v * 1000.0
    assert r.losses_kw[0] == pytest.approx(lost, abs=1e-6)
    assert r.p_source_kw[0] == pytest.approx(300.0 + lost, abs=1e-6)


# -- every connection and every law ------------------------------------------------------------------------------------


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize("model", MODELS)
def test_load_models_are_exact(model: str, formulation: str) -> None:
    """Wye and delta loads of each model, within their band."""
    more = {"model": model, "zip_p": (0.4, 0.3, 0.3), "zip_q": (0.2, 0.5, 0.3), "cvr_p": 0.7, "cvr_q": 1.9}
    delta = Load(name="d", bus="b", terminals=(2, 3), connection="delta", p_kw=80.0, q_kvar=30.0, **more)  # type: ignore[arg-type]
    assert_power_flow(solved(case(CHAIN, *LINES, *uneven(**more), delta), formulation))


@pytest.mark.parametrize("model", ["constant_power", "constant_current", "cvr", "zip"])
def test_loads_outside_of_their_band_are_exact(model: str) -> None:
    """Below v_min the law of OpenDSS holds; the operating point starts on the wrong side where PV lifts the voltage."""
    more = {"model": model, "v_min_pu": 0.97, "v_low_pu": 0.5, "zip_p": (0.4, 0.3, 0.3), "zip_q": (0.4, 0.3, 0.3)}
    heavy = tuple(dataclasses.replace(d, p_kw=4.0 * d.p_kw, q_kvar=4.0 * d.q_kvar) for d in uneven(**more))
    assert_power_flow(solved(case(CHAIN, *LINES, *heavy)))  # none ends in the rounding of a corner


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize("primary", ["wye", "delta"])
@pytest.mark.parametrize("secondary", ["wye", "delta"])
def test_transformers_of_every_connection(primary: str, secondary: str, formulation: str) -> None:
    kv = (KV * np.sqrt(3.0), 0.48)
    windings = tuple(
        Winding(
            bus=at,
            terminals=(1, 2, 3, 0) if how == "wye" else (1, 2, 3),
            connection=how,
            v_rated_kv=rated,
            s_rated_kva=500.0,
            r_percent=0.5,
        )
        for at, how, rated in zip("bc", (primary, secondary), kv, strict=True)
    )
    low = dataclasses.replace(bus("c"), v_base_kv=0.48 / np.sqrt(3.0), v_min_pu=0.0, v_max_pu=np.inf)
    loads: tuple[Load, ...]
    if secondary == "wye":
        loads = uneven()
    else:  # nothing ties a delta to ground, so that its loads are delta too
        loads = tuple(
            Load(name=f"c{k}", bus="c", terminals=pair, connection="delta", p_kw=30.0 * k, q_kvar=10.0 * k)
            for k, pair in ((1, (1, 2)), (2, (2, 3)), (3, (3, 1)))
        )
    t = Transformer(name="t", windings=windings, x_percent=(4.0,))
    # the voltage to ground of the floating delta is held by antifloat shunts alone: known to 1e-7 in doubles
    assert_power_flow(solved(case((bus("a"), bus("b"), low), LINES[0], t, *loads), formulation), 1e-7)


@pytest.mark.parametrize("formulation", EXACT)
def test_meshed_feeder(formulation: str) -> None:
    """A ring, which no radial formulation takes."""
    c = case(CHAIN, *LINES, line("ca", "c", "a", z=0.2 + 0.5j), *uneven(), *uneven("b"))
    assert_power_flow(solved(c, formulation))


def test_short_line_does_not_drown_the_balance() -> None:
    """A switch of 1e-7 ohm between two loads: its current is a variable, and the balance is good to 1e-10."""
    buses = (*CHAIN, bus("d"))
    c = case(buses, *LINES, line("cd", "c", "d", z=1e-7 + 1e-7j), *uneven(), *uneven("d"))
    r = solved(c)
    assert r.has("branch.i_re")
    assert r.residuals.max_primal < 1e-10
    assert_power_flow(r, 1e-7)


# -- laws --------------------------------------------------------------------------------------------------------------


def with_ders(c: Case) -> Case:
    pv = PV(name="p", bus="c", terminals=(1, 2, 3, 0), p_rated_kw=90.0, s_max_kva=120.0, profile="day")
    battery = Battery(
        name="s", bus="b", terminals=(1, 2, 3, 0), p_charge_max_kw=50.0, p_discharge_max_kw=50.0, s_max_kva=60.0,
        energy_kwh=100.0,
    )  # fmt: skip
    return c.with_(devices=(*c.devices, pv, battery))


def day(*elements: Element, **more: object) -> Case:
    return with_ders(case(CHAIN, *LINES, *elements, steps=4, price="price", **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("formulation", EXACT)
def test_identical_phases_are_the_balanced_model(formulation: str) -> None:
    """Three equal phases: the cost of the exact balanced branch flow of the positive sequence."""
    loads = Load(name="l", bus="c", terminals=(1, 2, 3, 0), p_kw=240.0, q_kvar=90.0, profile="day")
    c = day(loads)
    three, one = solved(c, formulation), solved(c.to_balanced(), "nonlinear")
    assert three.cost == pytest.approx(one.cost, rel=1e-8)
    v3, v1 = v_of(three).reshape(-1, 3, 4), v_of(one).reshape(-1, 1, 4)
    order = [one.elements("bus.vmag_sq").index(f"{name}.1") for name in "abc"]
    np.testing.assert_allclose(v3, np.broadcast_to(v1[order], v3.shape), atol=1e-7)


def test_rotation_of_phases_changes_nothing() -> None:
    turn = {1: 2, 2: 3, 3: 1}
    loads = uneven(profile="day")
    turned = tuple(dataclasses.replace(d, terminals=(turn[d.terminals[0]], 0)) for d in loads)
    a, b = solved(day(*loads)), solved(day(*turned))
    assert a.cost == pytest.approx(b.cost, rel=1e-8)
    at = {name: k for k, name in enumerate(b.elements("bus.vmag_sq"))}
    for k, name in enumerate(a.elements("bus.vmag_sq")):
        other = f"{name[0]}.{turn[int(name[-1])]}"
        np.testing.assert_allclose(v_of(a)[k], v_of(b)[at[other]], atol=1e-7)


def test_both_forms_find_the_same_schedule() -> None:
    a, b = (solved(day(*uneven(profile="day")), f) for f in EXACT)
    assert a.cost == pytest.approx(b.cost, rel=1e-8)
    np.testing.assert_allclose(a.value("battery.energy"), b.value("battery.energy"), atol=1e-3)
    for r in (a, b):
        assert_power_flow(r)
        assert r.residuals.duality_gap < 1e-7


def test_prices_are_finite_differences() -> None:
    """The dual of the balance of each node is what a kilowatt more there costs, eliminated nodes included."""
    buses = (*CHAIN, bus("m"))
    wires = (line("ab", "a", "b"), line("bm", "b", "m"), line("mc", "m", "c"))
    base = case(buses, *wires, *uneven())
    for formulation in EXACT:
        r = solved(base, formulation)
        for what, p, q in (("bus.p_balance", 1.0, 0.0), ("bus.q_balance", 0.0, 1.0)):
            price = r.dual(what)[:, 0]
            for node in ("c.1", "c.3", "b.2", "m.2"):
                costs = []
                for sign in (1.0, -1.0):
                    more = Load(name="x", bus=node[0], terminals=(int(node[2]), 0), p_kw=sign * p, q_kvar=sign * q)
                    costs.append(solved(base.with_(devices=(*base.devices, more)), formulation).cost)
                found = price[r.elements("bus.vmag_sq").index(node)]
                assert found == pytest.approx(0.5 * (costs[0] - costs[1]), rel=1e-5, abs=1e-7), (what, node)


def _with_idle_buses(*, decides: bool) -> Case:
    """A chain a - m - c and a dead end at m, nothing at m and e; at c a statcom and PV that decide, or neither."""
    wires = (line("am", "a", "m", z=0.2 + 1.2j), line("mc", "m", "c"), line("me", "m", "e"))
    statcom = Statcom(name="q", bus="c", terminals=(1, 2, 3, 0), q_rated_kvar=150.0, phases="free")
    pv = PV(name="p", bus="c", terminals=(1, 2, 3, 0), p_rated_kw=900.0, s_max_kva=1100.0, curtailable=True)
    devices = (statcom, pv) if decides else ()
    return case((bus("a"), bus("m"), bus("c"), bus("e")), *wires, *uneven(), *devices)


@pytest.mark.parametrize(
    ("objective", "limits"),
    [
        ("loss", {}),
        ("vdev", {}),
        ("unbalance", {}),
        ("cost", {"v_max_pu": 1.003}),
        ("cost", {"vpp_max_pu": 1.003}),
        ("cost", {"unbalance_max": 3e-4}),
        ("cost", {"i_max_a": 50.0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("formulation", EXACT)
def test_prices_at_eliminated_nodes_count_what_depends_on_their_voltage(
    formulation: str, objective: str, limits: dict[str, float]
) -> None:
    """Losses, deviations and limits that depend on the voltage of an eliminated node itself are part of its price."""
    base = free = _with_idle_buses(decides=objective == "cost")  # the others would be zero
    feeder = base.feeder
    if "i_max_a" in limits:
        lines = tuple(dataclasses.replace(e, **limits) if e.name == "am" else e for e in feeder.lines)
        feeder = dataclasses.replace(feeder, lines=lines)
    else:
        buses = tuple(dataclasses.replace(b, **limits) if b.name == "m" else b for b in feeder.buses)
        feeder = dataclasses.replace(feeder, buses=buses)
    base = base.with_(feeder=feeder)
    r = solved(base, formulation, objective)
    assert not limits or r.objective > solved(free, formulation, objective).objective + 1e-3  # it binds
    p, q = r.dual("bus.p_balance")[:, 0], r.dual("bus.q_balance")[:, 0]
    size = np.abs(p).max()
    for node in ("m.2", "e.1", "c.3"):
        for price, what in ((p, {"p_kw": 0.5}), (q, {"p_kw": 0.0, "q_kvar": 0.5})):
            found = []
            for sign in (1.0, -1.0):
                one = {k: sign * x for k, x in what.items()}
                more = Load(name="x", bus=node[0], terminals=(int(node[2]), 0), **one)
                found.append(solved(base.with_(devices=(*base.devices, more)), formulation, objective).objective)
            assert price[r.elements("bus.vmag_sq").index(node)] == pytest.approx(found[0] - found[1], abs=2e-4 * size)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_limit_at_an_eliminated_node_is_enforced() -> None:
    """Nothing is connected at m; a battery at c lifts it over a limit that nothing comes near without it."""
    battery = Battery(
        name="s", bus="c", terminals=(1, 2, 3, 0), p_charge_max_kw=2500.0, p_discharge_max_kw=2500.0, s_max_kva=2500.0,
        energy_kwh=6000.0, q_control="none",
    )  # fmt: skip
    wires = (line("am", "a", "m"), line("mc", "m", "c"))
    c = case((bus("a"), bus("m"), bus("c")), *wires, *uneven(), battery, steps=2, price="price")
    free = solved(c)
    own = [k for k, name in enumerate(free.elements("bus.vmag_sq")) if name.startswith("m.")]
    limit = 0.5 * (v_of(free)[own].max() + 1.0)
    assert limit > 1.011
    tight = dataclasses.replace(c.feeder, buses=(bus("a"), bus("m", v_max_pu=limit), bus("c")))
    r = solved(c.with_(feeder=tight))
    assert any("limits that were left out are exceeded" in choice for choice in r.choices)
    assert v_of(r)[own].max() == pytest.approx(limit, abs=1e-6)
    assert r.cost > free.cost
    assert_power_flow(r)


@pytest.mark.parametrize("formulation", EXACT)
def test_branch_limits_hold(formulation: str) -> None:
    """A line whose limit the battery behind it has to keep; without the limit the schedule exceeds it."""
    c = day(*uneven(profile="day"))
    moved = tuple(dataclasses.replace(d, bus="c") if isinstance(d, Battery) else d for d in c.devices)

    def limited(amp: float) -> Result:
        lines = (LINES[0], line("bc", "b", "c", i_max_a=amp))
        return solved(c.with_(devices=moved, feeder=dataclasses.replace(c.feeder, lines=lines)), formulation)

    free = limited(1e5)
    r = limited(0.95 * float(free.loading["value"].max()))
    assert r.loading["share"].max() == pytest.approx(1.0, abs=1e-5)
    assert r.cost > free.cost
    assert_power_flow(r)


def test_transformer_rating_holds() -> None:
    low = dataclasses.replace(bus("c"), v_base_kv=0.48 / np.sqrt(3.0))
    windings = (
        Winding(bus="b", terminals=(1, 2, 3), connection="delta", v_rated_kv=KV * np.sqrt(3.0), s_rated_kva=500.0),
        Winding(bus="c", terminals=(1, 2, 3, 0), v_rated_kv=0.48, s_rated_kva=500.0, r_percent=0.5),
    )
    battery = Battery(
        name="s", bus="c", terminals=(1, 2, 3, 0), p_charge_max_kw=60.0, p_discharge_max_kw=60.0, s_max_kva=60.0,
        energy_kwh=200.0,
    )  # fmt: skip

    def rated(s_max: float) -> Result:
        t = Transformer(name="t", windings=windings, x_percent=(4.0,), s_max_kva=s_max)
        c = case((bus("a"), bus("b"), low), LINES[0], t, *uneven(profile="day"), battery, steps=4, price="price")
        return solved(c)

    free = rated(1e4)
    r = rated(0.95 * float(free.loading["value"].max()))
    assert r.loading["share"].max() == pytest.approx(1.0, abs=1e-5)
    assert r.cost > free.cost
    assert_power_flow(r)


def test_limits_between_phases_and_of_unbalance() -> None:
    """Both are met where they bind, and the branch-flow family, which has no angles, declines them by name."""
    free = solved(day(*uneven(profile="day")))
    seen = free.value("three_phase_bus.unbalance").max()
    limit = 0.9 * seen
    # a balanced inverter cannot take the negative sequence away, single-phase ones can
    pvs = tuple(
        PV(name=f"p{k}", bus="c", terminals=(k, 0), p_rated_kw=10.0, s_max_kva=80.0, profile="day") for k in (1, 2, 3)
    )
    c = day(*uneven(profile="day"), *pvs)
    tight = tuple(dataclasses.replace(b, unbalance_max=limit, vpp_min_pu=0.97) if b.name == "c" else b for b in CHAIN)
    bound = c.with_(feeder=dataclasses.replace(c.feeder, buses=tight))
    r = solved(bound)
    at_c = r.elements("three_phase_bus.unbalance").index("c")
    assert r.value("three_phase_bus.unbalance")[at_c].max() <= limit + 1e-7
    assert_power_flow(r)
    with pytest.raises(UnsupportedError, match=r"FOR-021 .*bus\.c"):
        build(bound, "lindist3flow")
    low = solved(c, objective="unbalance")
    assert low.value("three_phase_bus.unbalance").max() < 0.5 * seen
    with pytest.raises(UnsupportedError, match="FOR-020"):
        build(c, "lindist3flow", "unbalance")


def test_limits_of_the_source() -> None:
    """Reactive import and apparent power at the point of common coupling."""
    c = day(*uneven(profile="day"))
    free = solved(c)
    q = 0.5 * float(free.q_source_kvar.max())
    s_max = 0.97 * float(np.hypot(free.p_source_kw, free.q_source_kvar).max())
    for limits in ({"q_import_max_kvar": q}, {"s_max_kva": s_max}):
        grid = dataclasses.replace(c.devices[0], **limits)
        r = solved(c.with_(devices=(grid, *c.devices[1:])))
        assert r.cost > free.cost
        assert r.q_source_kvar.max() <= limits.get("q_import_max_kvar", np.inf) + 1e-3
        assert np.hypot(r.p_source_kw, r.q_source_kvar).max() <= limits.get("s_max_kva", np.inf) + 1e-3
        assert_power_flow(r)


def test_demand_lowers_the_voltage_of_loads_that_follow_it() -> None:
    """Conservation voltage reduction: impedance loads take less at a lower voltage, which an inverter can bring."""
    c = day(*uneven(profile="day", model="constant_impedance"))
    saving, plain = solved(c, objective="demand"), solved(c, objective="vdev")
    assert saving.energy_import_kwh < plain.energy_import_kwh - 1.0
    assert v_of(saving).mean() < v_of(plain).mean()


def test_infeasible_says_which_limit() -> None:
    high = tuple(dataclasses.replace(b, v_min_pu=1.01) if b.name == "c" else b for b in CHAIN)
    heavy = tuple(dataclasses.replace(d, p_kw=8.0 * d.p_kw) for d in uneven())
    r = build(case(high, *LINES, *heavy), "current-voltage").solve()
    assert r.status.word == "locally_infeasible"
    assert any("c.3" in reason for reason in r.reasons)


def test_capacitors_are_part_of_the_matrix() -> None:
    c = case(CHAIN, *LINES, *uneven(), Capacitor(name="k", bus="b", terminals=(1, 2, 3, 0), q_kvar=120.0))
    assert_power_flow(solved(c))


def test_new_loads_that_leave_their_band_are_seen() -> None:
    """Built where every voltage is well inside; with loads four times as large the law below the band holds, as in a
    fresh build, and both are the power flow."""
    light = case(CHAIN, *LINES, *(dataclasses.replace(d, v_min_pu=0.92, v_low_pu=0.5) for d in uneven()))
    heavy = {d.name: np.array([4.0 * d.p_kw]) for d in light.loads}
    for formulation in EXACT:
        model = build(light, formulation)
        assert v_of(model.solve()).min() > 0.95
        r = model.update(loads=heavy).solve()
        assert r.ok
        assert any("left the side of their band" in choice for choice in r.choices)
        assert v_of(r).min() < 0.92
        assert_power_flow(r, 2e-6)
        assert r.p_source_kw[0] == pytest.approx(build(r.case, formulation).solve().p_source_kw[0], rel=1e-7)
        again = model.solve()
        assert not any("left the side" in choice for choice in again.choices)  # nothing was built again


def _with_jump(scale: float, source_pu: float = 0.97) -> Case:
    """A feeder whose loads draw 4 % more right below 0.95 pu than right above; a PV inverter can lift the voltage."""
    loads = [
        dataclasses.replace(d, model="cvr", cvr_p=0.8, cvr_q=3.0, v_min_pu=0.95, v_low_pu=0.5, p_kw=scale * d.p_kw)
        for d in uneven()
    ]
    pv = PV(name="s", bus="c", terminals=(1, 2, 3, 0), p_rated_kw=0.0, s_max_kva=300.0, q_control="free")
    c = case(CHAIN, *LINES, *loads, pv)
    low = dataclasses.replace(c.sources[0], v_pu=source_pu)
    return c.with_(devices=tuple(low if d is c.sources[0] else d for d in c.devices))


@pytest.mark.parametrize("scale", [1.5, 2.0, 2.4])
def test_no_load_rests_in_a_jump_of_its_law(scale: float) -> None:
    """The cheapest voltage is right at the jump, where a second state is near: the load below it, drawing more. The
    schedule ends beside the jump, is the power flow, and is so when that begins 1 % lower (`lateral.jumps.APART`)."""
    c = _with_jump(scale)
    for formulation in EXACT:
        r = build(c, formulation).solve()
        assert r.status is Status.OPTIMAL
        assert any("kept above a jump" in choice for choice in r.choices)
        assert any("second state" in choice for choice in r.choices)
        assert 0.95 < v_of(r)[6, 0] < 0.955
        assert_power_flow(r)
        first = schedule_flow(c, r.program, r.solution.x)
        again = schedule_flow(c, r.program, r.solution.x, start=0.99 * first.v)
        assert again.converged.all()
        assert np.abs(again.v_pu - first.v_pu).max() < 1e-7  # to the tolerance of two power flows, 1e-8 each


@pytest.mark.parametrize("scale", [2.0, 2.4])
def test_rounds_end_beside_a_jump_as_well(scale: float) -> None:
    """First-order programs in rounds: beside the same jump, at rest, and the power flow. Both keep the load as far
    above as their own look at the second state says, which differs a little with the way there."""
    c = _with_jump(scale)
    r = lateral.solve(c, "linearised", with_replay=False)
    assert r.status is Status.OPTIMAL
    assert any("across a jump" in choice for choice in r.choices)
    assert r.cost == pytest.approx(build(c, "current-voltage").solve().cost, rel=1e-3)
    assert not second_state(c, r.program, r.solution.x, r.network, point_of(r).v_pu, Beside()).count
    flow = schedule_flow(c, r.program, r.solution.x)
    assert np.abs(np.abs(flow.v_pu) - v_of(r)).max() < 1e-6


def test_a_side_of_a_jump_that_leaves_no_schedule_is_no_infeasibility(monkeypatch: pytest.MonkeyPatch) -> None:
    """The side is taken by the rounds, and the case may have a schedule on the other: they said `locally_infeasible` of
    one that `current-voltage` solves."""

    def aside(result: Result) -> bool:
        return any("kept above a jump" in choice for choice in result.choices)

    monkeypatch.setattr(successive, "lost", aside)
    monkeypatch.setattr(successive, "restored", lambda *_args, **_options: Restored(1, (), least=True))
    r = lateral.solve(_with_jump(2.0), "linearised", with_replay=False)
    assert r.status is Status.LIMIT_REACHED
    assert successive.ASIDE in r.status_text
    assert not r.conflicts


@pytest.mark.parametrize("most", [0, 1, 2])
def test_too_few_looks_beside_a_jump_are_no_rest(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that end with a second state left are a limit, whatever the merit says."""
    monkeypatch.setattr("lateral.successive.MOST_SIDED", most)
    c = _with_jump(2.0)
    r = lateral.solve(c, "linearised", with_replay=False)
    there = second_state(c, r.program, r.solution.x, r.network, point_of(r).v_pu, Beside())
    assert r.status is Status.LIMIT_REACHED or not there.count
    assert most > 0 or there.count


def test_rounds_beside_a_jump_do_not_count() -> None:
    """Those after which a load changes sides: of four rounds one is such, and the schedule comes to rest after five."""
    r = lateral.solve(_with_jump(2.0), "linearised", rounds=4, with_replay=False)
    assert sum(choice.startswith("made again") for choice in r.choices) == 1
    assert any("at rest after 5 rounds" in choice for choice in r.choices)
    assert r.status is Status.OPTIMAL


def test_a_second_state_that_nobody_could_look_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power flows that do not converge say nothing of it."""
    monkeypatch.setattr("lateral.model.second_state", lambda *_: Crossed(unknown=1))
    r = build(_with_jump(2.0), "current-voltage").solve()
    assert r.ok
    assert "not known at 1 steps" in r.status_text


def test_a_load_that_draws_nothing_has_no_jump() -> None:
    """Placeholders of no power do not keep the voltage above 0.93 pu; with power, by an update, they may."""
    rest = [dataclasses.replace(d, model="constant_impedance") for d in uneven()]
    idle = [
        dataclasses.replace(
            d, name=f"{d.name}_idle", model="cvr", cvr_p=0.8, cvr_q=3.0, v_min_pu=0.93, p_kw=0.0, q_kvar=0.0
        )
        for d in uneven()
    ]
    pv = PV(name="s", bus="c", terminals=(1, 2, 3, 0), p_rated_kw=0.0, s_max_kva=300.0, q_control="free")
    with_idle, without = case(CHAIN, *LINES, *rest, *idle, pv), case(CHAIN, *LINES, *rest, pv)
    for formulation in EXACT:
        model = build(with_idle, formulation)
        r, bare = model.solve(), build(without, formulation).solve()
        assert r.status is Status.OPTIMAL
        assert r.cost == pytest.approx(bare.cost, rel=1e-8)
        power = {d.name: np.array([2.0 * d.p_kw]) for d in rest} | {d.name: np.array([10.0]) for d in idle}
        again = model.update(loads=power).solve()
        fresh = build(again.case, formulation).solve()
        assert again.cost == pytest.approx(fresh.cost, rel=1e-8)


def _limit_at_the_edge(source_pu: float, sign: float) -> Case:
    """Bus limits right at the upper edge of the band of loads that draw (or give) 4 % less right above it; PV and a
    high source lift the voltage to there."""
    loads = [
        dataclasses.replace(d, model="cvr", cvr_p=0.8, cvr_q=3.0, v_min_pu=0.5, v_max_pu=1.05, p_kw=sign * d.p_kw)
        for d in uneven()
    ]
    buses = tuple(dataclasses.replace(b, v_max_pu=1.05) for b in CHAIN)
    pv = PV(name="s", bus="c", terminals=(1, 2, 3, 0), p_rated_kw=600.0, s_max_kva=700.0, q_control="free")
    c = case(buses, *LINES, *loads, pv)
    high = dataclasses.replace(c.sources[0], v_pu=source_pu)
    return c.with_(devices=tuple(high if d is c.sources[0] else d for d in c.devices))


@pytest.mark.parametrize(("source_pu", "sign"), [(1.045, 1.0), (1.03, -1.0), (1.04, -1.0)])
def test_where_limits_leave_no_room_above_a_jump_loads_stay_below(source_pu: float, sign: float) -> None:
    """The simulator may find a load above the edge, where the bus must not be: it is kept so far below that power flows
    from no load and from 1 % higher end where the schedule is."""
    c = _limit_at_the_edge(source_pu, sign)
    for formulation in EXACT:
        model = build(c, formulation)
        r = model.solve()
        assert r.status is Status.OPTIMAL
        assert any("kept below a jump" in choice for choice in r.choices)
        assert 1.045 < v_of(r).max() < 1.05
        assert_power_flow(r)
        first = schedule_flow(c, r.program, r.solution.x)
        again = schedule_flow(c, r.program, r.solution.x, start=1.01 * first.v)
        assert again.converged.all()
        assert np.abs(again.v_pu - first.v_pu).max() < 1e-7  # to the tolerance of two power flows, 1e-8 each


@pytest.mark.parametrize(
    ("connection", "limits", "most"),
    [
        ("wye", {"v_max_pu": 1.05}, 1.05),
        ("wye", {"v_max_pu": 1.1, "vpn_max_pu": 1.05}, 1.05),  # no neutral conductor: one more limit to ground
        ("wye", {"v_max_pu": 1.05, "vpn_max_pu": 1.5}, 1.05),
        ("delta", {"v_max_pu": np.inf, "vpp_max_pu": 1.04}, 1.04 * np.sqrt(3.0)),
        ("delta", {"v_max_pu": 1.05}, 1.05 * np.sqrt(3.0)),
        ("delta", {"v_max_pu": np.inf}, np.inf),
    ],
)
def test_how_much_room_limits_leave_above_a_jump(connection: str, limits: dict[str, float], most: float) -> None:
    """By hand: that of the conductor to ground; between phases their own, or two to ground at 120 degrees."""
    terminals = (1, 2, 3, 0) if connection == "wye" else (1, 2, 3)
    law = {"model": "cvr", "cvr_p": 0.8, "cvr_q": 3.0, "v_min_pu": 0.5, "v_max_pu": 1.05}
    d = Load(name="d", bus="c", connection=connection, terminals=terminals, p_kw=1.0, **law)  # type: ignore[arg-type]
    c = case(tuple(dataclasses.replace(b, **limits) for b in CHAIN), *LINES, d)
    jumps = [a.jumps for a in build(c, "current-voltage").program.assumptions if a.jumps is not None]
    assert len(jumps) == 1
    assert jumps[0].most == pytest.approx(np.full((3, 1), most), rel=1e-12)


def test_a_limit_that_no_jump_leaves_room_for_is_said_and_the_model_stays_good() -> None:
    """The load may be found above the edge, and the inverter cannot pull the voltage as far below as that takes. The
    schedule is handed out as what it is, and a next solve ends the same way."""
    model = build(_limit_at_the_edge(1.045, -1.0), "current-voltage")
    first, again = model.solve(), model.solve()
    assert first.status is again.status is Status.INACCURATE
    assert "keeping them away from it ended" in first.status_text
    assert again.cost == pytest.approx(first.cost, rel=1e-6)


@pytest.mark.parametrize(("sign", "kept"), [(1.0, True), (-1.0, False)])
def test_the_better_side_of_a_jump_is_more_for_a_load_that_gives(sign: float, kept: bool) -> None:
    """Right below 0.95 pu the law is 4 % more than right above: at 0.945 pu a load that draws is kept above, one that
    gives goes there. Tiny loads, so that voltages are the source's: those of one at 0.945 pu in the problem of another
    at 1 pu, which has the law above."""
    loads = [
        dataclasses.replace(
            d, model="cvr", cvr_p=0.8, cvr_q=3.0, v_min_pu=0.95, v_low_pu=0.5, p_kw=1e-3 * sign, q_kvar=0.0
        )
        for d in uneven()
    ]
    c = case(CHAIN, *LINES, *loads)
    lower = dataclasses.replace(c.sources[0], v_pu=0.945)
    program = build(c, "current-voltage").program
    there = build(c.with_(devices=(lower, *loads)), "current-voltage").solve(sides=False)
    found = crossed(program, carried(program, there), Beside())
    assert found.count == len(loads)
    assert len(found.beside.above) == (len(loads) if kept else 0)


def test_beside_a_jump_there_can_be_two_states() -> None:
    """Held by no more than the jump itself, a schedule has two power flows, one below the jump: what `second_state`
    is for. By hand: the one below is found when the power flow begins there."""
    c = _with_jump(2.0)
    model = build(c, "current-voltage")
    r = model.solve(sides=False)
    for _ in range(3):  # to the point where only the second state is left to find
        found = crossed(r.program, r.solution.x, model.beside)
        if not found.count:
            break
        model.point = dataclasses.replace(model.point or operating_point(c, loaded=True)[0], beside=found.beside)
        model.make_at(model.point, r)
        r = model.solve(sides=False)
    assert not crossed(r.program, r.solution.x, model.beside).count
    other = second_state(c, r.program, r.solution.x, r.network, point_of(r).v_pu, model.beside)
    assert other.count == 1
    first = schedule_flow(c, r.program, r.solution.x)
    lower = schedule_flow(c, r.program, r.solution.x, start=0.99 * first.v)
    assert first.converged.all()
    assert lower.converged.all()
    assert np.abs(first.v_pu - lower.v_pu).max() > 1e-3


def test_a_load_above_its_band_comes_down_into_it() -> None:
    """Right above 1.05 pu a load draws 9 % less than right below; far below it less again. The cheapest schedule is far
    down, whichever side the day without control is on."""
    loads = [dataclasses.replace(d, model="cvr", cvr_p=2.0, cvr_q=2.0, v_min_pu=0.8, v_max_pu=1.05) for d in uneven()]
    pv = PV(name="s", bus="c", terminals=(1, 2, 3, 0), p_rated_kw=0.0, s_max_kva=900.0, q_control="free")
    c = case(CHAIN, *LINES, *loads, pv)
    high = dataclasses.replace(c.sources[0], v_pu=1.09)
    c = c.with_(devices=tuple(high if d is c.sources[0] else d for d in c.devices))
    free = [dataclasses.replace(d, v_max_pu=2.0) if isinstance(d, Load) else d for d in c.devices]
    for formulation in EXACT:
        r, unbound = build(c, formulation).solve(), build(c.with_(devices=tuple(free)), formulation).solve()
        assert r.status is Status.OPTIMAL
        assert_power_flow(r)
        assert v_of(unbound)[6:9].max() < 1.05  # so that both have the same law there
        assert r.cost == pytest.approx(unbound.cost, rel=1e-7)


def test_what_held_a_load_beside_a_jump_is_gone_with_new_data() -> None:
    """After an update the voltage is as free as in a fresh build."""
    c = _with_jump(2.0)
    for formulation in EXACT:
        model = build(c, formulation)
        model.solve()
        heavy = {d.name: np.array([1.2 * d.p_kw]) for d in c.devices if isinstance(d, Load)}
        r = model.update(loads=heavy).solve()
        fresh = build(r.case, formulation).solve()
        assert r.ok
        assert r.cost == pytest.approx(fresh.cost, rel=1e-8)
        assert v_of(r) == pytest.approx(v_of(fresh), abs=1e-6)


# -- elimination -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(0, 4), st.integers(0, 2**31))
def test_elimination_is_exact(n: int, extra: int, seed: int) -> None:
    """Random trees with loops: the voltages of all nodes, solved whole and by way of the kept ones."""
    rng = np.random.default_rng(seed)
    names = [f"n{k}" for k in range(n)]
    ends = [(int(rng.integers(k)), k) for k in range(1, n)]
    ends += [tuple(sorted(rng.choice(n, 2, replace=False).tolist())) for _ in range(extra)] if n > 2 else []
    lines = tuple(
        line(f"l{k}", names[a], names[b], z=complex(*rng.uniform(0.1, 1.0, 2))) for k, (a, b) in enumerate(ends)
    )
    c = case(tuple(bus(name) for name in names), *lines)
    index = NodeIndex.of(c.feeder)
    y = nodal_matrix_pu(c.feeder, index, c.base)
    y[0, 0] += 1.0
    y[1, 1] += 1.0
    y[2, 2] += 1.0
    used = {0, 1, 2} | set(rng.choice(3 * n, rng.integers(0, n), replace=False).tolist())
    reduced = reduce_nodal(y.tocsc(), index.nodes, used)
    current = np.zeros((3 * n, 1), dtype=complex)
    current[list(used)] = rng.normal(size=(len(used), 1)) + 1j * rng.normal(size=(len(used), 1))
    whole = np.linalg.solve(y.toarray(), current)
    kept = np.linalg.solve(reduced.s.toarray(), current[reduced.kept])
    np.testing.assert_allclose(reduced.voltages(kept), whole, atol=1e-9 * np.abs(whole).max())


# -- curves ------------------------------------------------------------------------------------------------------------


def curves() -> st.SearchStrategy[Curve]:
    def column(*values: float) -> np.ndarray:
        return np.array([values])

    power = st.floats(-1.0, 3.0).map(lambda e: Power(column(e)))
    bends = st.floats(1e-3, 1e-2).map(
        lambda w: Bends(column(0.92, 0.98, 1.02, 1.08), column(0.44, 0.0, 0.0, -0.44), column(w))
    )
    banded = st.tuples(st.floats(1e-3, 1e-2), st.floats(0.0, 1.0), st.floats(0.4, 2.0)).map(
        lambda t: Banded(
            column(1.0 - t[1], 0.0, 0.0),
            column(0.0, 0.0, (1.0 - t[1]) / 0.95**2 + t[1]),
            column(0.0, 0.0, 1.0 / 1.05**2),
            column(t[1]),
            column(t[2]),
            column(t[0]),
        )
    )
    return st.one_of(power, bends, banded)


@settings(max_examples=60, deadline=None)
@given(curves(), st.floats(0.7, 1.3))
def test_derivatives_of_curves(curve: Curve, z: float) -> None:
    """Central differences, relative to the size of the second derivative there."""
    at, h = np.array([[z]]), 1e-6
    if isinstance(curve, Banded):  # a switch is a tenth of the width
        h = 1e-7
    up, down = curve.value(at + h), curve.value(at - h)
    size = 1.0 + np.abs(curve.bend(at)).max()
    np.testing.assert_allclose(curve.slope(at), (up - down) / (2 * h), atol=1e-5 * size)
    up, down = curve.slope(at + h), curve.slope(at - h)
    np.testing.assert_allclose(curve.bend(at), (up - down) / (2 * h), atol=2e-3 * size)


def test_exact_forms_are_in_the_public_choice() -> None:
    assert {*EXACT} <= set(lateral.formulations.BUILT_IN)


def test_a_floating_delta_without_a_tie_to_ground_is_named() -> None:
    """No antifloat shunt, no grounded winding, delta loads only: a coded fault names the transformer and its buses."""
    windings = (
        Winding(bus="b", terminals=(1, 2, 3, 0), v_rated_kv=KV * np.sqrt(3.0), s_rated_kva=500.0, r_percent=0.5),
        Winding(bus="c", terminals=(1, 2, 3), connection="delta", v_rated_kv=0.48, s_rated_kva=500.0),
    )
    low = dataclasses.replace(bus("c"), v_base_kv=0.48 / np.sqrt(3.0))
    t = Transformer(name="t", windings=windings, x_percent=(4.0,), antifloat_ppm=0.0)
    delta = Load(name="d", bus="c", terminals=(1, 2), connection="delta", p_kw=30.0)
    c = case((bus("a"), bus("b"), low), LINES[0], t, delta)
    for formulation in (*EXACT, "lindist3flow"):
        with pytest.raises(CaseError, match=r"NET-023 no ground\] transformer\.t: .*'c'"):
            build(c, formulation)
    tied = dataclasses.replace(t, antifloat_ppm=1.0)
    assert solved(c.with_(feeder=dataclasses.replace(c.feeder, transformers=(tied,)))).ok


@pytest.mark.parametrize("formulation", EXACT)
def test_a_missing_phase_is_named(formulation: str) -> None:
    c = case((bus("a"), bus("b"), bus("c", (1, 2))), LINES[0], line("bc", "b", "c", (1, 2)), *uneven())
    with pytest.raises(CaseError, match=r"load\.c3"):
        build(c, formulation)


def test_auto_takes_a_meshed_feeder() -> None:
    c = case(CHAIN, *LINES, line("ca", "c", "a", z=0.2 + 0.5j), *uneven())
    r = lateral.solve(c)
    assert r.ok
    assert r.formulation == "current-voltage"
    assert r.replay is not None
    assert r.replay.summary()["max_dv_pu"] < 1e-6
    assert r.choices[0] == "formulation current-voltage: exact for any feeder, here with loops or several sources"


@pytest.mark.parametrize("formulation", EXACT)
def test_a_neutral_that_nothing_but_a_load_holds(formulation: str) -> None:
    """An isolated neutral of an uneven wye of impedances, by hand: V_n = sum y_k V_k / sum y_k of its three phases."""
    buses = (bus("a"), bus("b"), bus("c", (1, 2, 3, 4)))
    size = {1: 30.0, 2: 10.0, 3: 20.0}
    law = {"model": "constant_impedance", "v_min_pu": 0.0, "v_max_pu": 2.0}
    loads = tuple(
        Load(name=f"z{k}", bus="c", terminals=(k, 4), p_kw=kw, q_kvar=0.0, **law)  # type: ignore[arg-type]
        for k, kw in size.items()
    )
    r = solved(case(buses, *LINES, *loads), formulation)
    v = v_of(r)[:, 0] * np.exp(1j * np.deg2rad(r.value("bus.vang")[:, 0]))
    at = r.network.position
    by_hand = sum(kw * v[at["c", k]] for k, kw in size.items()) / sum(size.values())
    assert abs(by_hand) > 0.2
    assert v[at["c", 4]] == pytest.approx(by_hand, abs=1e-8)
    assert_power_flow(r)
