"""Formulations by hand: closed forms of two buses, and what the branches of a feeder are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import lateral
from lateral import formulations
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.devices import Load, Source
from lateral.errors import LateralError, UnsupportedError
from lateral.io import read
from lateral.network.branches import radial_network
from lateral.network.feeder import Bus, Feeder, Line, Switch, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import Element
from lateral.opf import build, linear_power_flow
from lateral.results.result import Result
from lateral.units import Base
from strategies import balanced_cases

FEEDERS = Path(__file__).parents[3] / "shared" / "feeders"
KV = 2.4
R, X = 0.5 / 5.76, 1.0 / 5.76
ANGLE = {1: 0.0, 2: -120.0, 3: 120.0}


def bus(name: str, conductors: tuple[int, ...] = (1,), kv: float = KV) -> Bus:
    return Bus(name=name, conductors=conductors, v_base_kv=kv, v_min_pu=0.5, v_max_pu=1.5)


def line(
    name: str, a: str, b: str, z: complex = 0.5 + 1.0j, conductors: tuple[int, ...] = (1,), **more: object
) -> Line:
    eye = np.eye(len(conductors))
    return Line(
        name=name,
        bus_from=a,
        bus_to=b,
        conductors_from=conductors,
        conductors_to=conductors,
        r_ohm=z.real * eye,
        x_ohm=z.imag * eye,
        **more,  # type: ignore[arg-type]
    )


def case(buses: tuple[Bus, ...], *elements: Element, **source: object) -> Case:
    """The grid at the first bus."""
    conductors = buses[0].conductors
    n = len(conductors)
    given_ = {"r_ohm": np.zeros((n, n)), "x_ohm": np.zeros((n, n)), "price_import": 0.1} | source
    grid = Source(
        name="grid",
        bus=buses[0].name,
        conductors=conductors,
        angle_deg=tuple(ANGLE[c] for c in conductors),
        **given_,  # type: ignore[arg-type]
    )
    return Case(
        name="case",
        feeder=Feeder(
            buses=buses,
            lines=tuple(e for e in elements if isinstance(e, Line)),
            switches=tuple(e for e in elements if isinstance(e, Switch)),
            transformers=tuple(e for e in elements if isinstance(e, Transformer)),
        ),
        devices=(grid, *(e for e in elements if isinstance(e, Load))),
        horizon=Horizon.regular(1),
    )


def load(at: str = "b", p_kw: float = 300.0, q_kvar: float = 150.0, **more: object) -> Load:
    return Load(name=f"x{at}", bus=at, p_kw=p_kw, q_kvar=q_kvar, **more)  # type: ignore[arg-type]


def run(c: Case, formulation: str) -> Result:
    r = build(c, formulation).solve()
    assert r.ok, r.status_text
    return r


def v_of(r: Result, node: str = "b.1") -> float:
    """|V|^2 of a node."""
    return float(r.value("bus.vmag_sq")[r.elements("bus.vmag_sq").index(node), 0])


def exact(w: float, z: complex, p: float = 0.3, q: float = 0.15) -> float:
    """v behind z from w: v^2 + (2 (r p + x q) - w) v + |z|^2 (p^2 + q^2) = 0, the larger root."""
    b = 2 * (z.real * p + z.imag * q) - w
    return float((-b + np.sqrt(b**2 - 4 * abs(z) ** 2 * (p**2 + q**2))) / 2)


def assert_ac(c: Case, tolerance: float = 1e-7) -> Result:
    """lindist3flow at its own point is the AC power flow there; neutrals that it takes as grounded aside."""
    r = linear_power_flow(c)
    flow = power_flow(c)
    assert flow.converged.all()
    v = flow.vmag_pu[[flow.index.position[n] for n in r.network.nodes]]
    np.testing.assert_allclose(np.sqrt(r.value("bus.vmag_sq")), v, atol=tolerance)
    return r


# -- two buses --------------------------------------------------------------------------------------------------------

TWO = (bus("a"), bus("b"))


@pytest.mark.parametrize("formulation", ["nonlinear", "soc", "lindist3flow"])
def test_exact_branch_flow(formulation: str) -> None:
    """v_a = 1: the quadratic formula; losses r l with l = |S|^2 / v."""
    r = run(case(TWO, line("l", "a", "b"), load()), formulation)
    v = exact(1.0, R + 1j * X)
    assert v_of(r) == pytest.approx(v, abs=2e-7)
    l = (0.3**2 + 0.15**2) / v
    assert r.p_source_kw[0] == pytest.approx(300 + 1000 * R * l, abs=1e-3)
    assert r.q_source_kvar[0] == pytest.approx(150 + 1000 * X * l, abs=1e-3)


def test_lindistflow() -> None:
    """v = 1 - 2 (r 0.3 + x 0.15), no losses."""
    r = run(case(TWO, line("l", "a", "b"), load()), "lindistflow")
    assert v_of(r) == pytest.approx(1 - 2 * (R * 0.3 + X * 0.15), abs=1e-9)
    assert r.p_source_kw[0] == pytest.approx(300.0, abs=1e-6)


@pytest.mark.parametrize("formulation", ["nonlinear", "soc", "lindistflow", "lindist3flow"])
def test_source_impedance(formulation: str) -> None:
    """0.2 + j0.4 ohm behind the source and 0.3 + j0.6 in the line are 0.5 + j1 in all, from 1.03 pu."""
    c = case(TWO, line("l", "a", "b", 0.3 + 0.6j), load(), r_ohm=[[0.2]], x_ohm=[[0.4]], v_pu=1.03)
    z = R + 1j * X
    v = 1.03**2 - 2 * (R * 0.3 + X * 0.15) if formulation == "lindistflow" else exact(1.03**2, z)
    assert v_of(run(c, formulation)) == pytest.approx(v, abs=3e-7)


@pytest.mark.parametrize("formulation", ["nonlinear", "soc", "lindist3flow"])
def test_line_charging(formulation: str) -> None:
    """20 000 uS, half at each end, nothing else: |V| = 1 / |1 + z j0.01 S|, in ohm."""
    c = case(TWO, line("l", "a", "b", b_us=[[20000.0]]), load(p_kw=0.0, q_kvar=0.0))
    v = 1 / abs(1 + (0.5 + 1j) * 0.01j) ** 2
    assert v_of(build(c, formulation, "loss").solve()) == pytest.approx(v, abs=1e-6)


def test_reversed_line_and_switch() -> None:
    """The order of the ends of a line does not matter, and a closed switch is a line."""
    there = run(case(TWO, line("l", "a", "b"), load()), "nonlinear")
    back = run(case(TWO, line("l", "b", "a"), load()), "nonlinear")
    own = line("l", "a", "b")
    switch = Switch(
        name="l", bus_from="b", bus_to="a", conductors_from=(1,), conductors_to=(1,), r_ohm=own.r_ohm, x_ohm=own.x_ohm
    )
    assert v_of(back) == pytest.approx(v_of(there), abs=1e-9)
    assert v_of(run(case(TWO, switch, load()), "nonlinear")) == pytest.approx(v_of(there), abs=1e-9)


def test_parallel_lines_become_one_branch() -> None:
    """z1 z2 / (z1 + z2)."""
    z1, z2 = 0.5 + 1j, 1.0 + 0.7j
    c = case(TWO, line("l", "a", "b", z1), line("m", "b", "a", z2), load())
    r = run(c, "nonlinear")
    assert r.network.branch_names == ("line.l+line.m",)
    assert r.network.legs == ("line.l+line.m.1",)
    assert v_of(r) == pytest.approx(exact(1.0, z1 * z2 / (z1 + z2) / 5.76), abs=2e-7)


# -- transformers -----------------------------------------------------------------------------------------------------


def one_core(tap: float = 1.0, **more: object) -> Transformer:
    """2.4 / 0.48 kV, 500 kVA, 1 % + j4 %, the tap on the low side."""
    given_ = {"terminals": (1, 0), "s_rated_kva": 500.0, "r_percent": 0.5}
    return Transformer(
        name="t",
        n_phases=1,
        windings=(
            Winding(bus="a", v_rated_kv=KV, **given_),  # type: ignore[arg-type]
            Winding(bus="b", v_rated_kv=0.48, tap=tap, **given_),  # type: ignore[arg-type]
        ),
        x_percent=(4.0,),
        **{"antifloat_ppm": 0.0} | more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("formulation", ["nonlinear", "soc", "lindist3flow"])
@pytest.mark.parametrize("tap", [0.95, 1.0, 1.05])
def test_transformer_with_a_tap(tap: float, formulation: str) -> None:
    """w = tap^2 v_a; z = (1 % + j4 %) 1000 / 500 tap^2, on the side of the tap."""
    r = run(case((bus("a"), bus("b", kv=0.48)), one_core(tap), load()), formulation)
    assert v_of(r) == pytest.approx(exact(tap**2, (0.02 + 0.08j) * tap**2), abs=3e-7)


def test_no_load_losses() -> None:
    """0.5 % of 500 kVA and 1 % of magnetising current, on the second winding: y = (0.005 - j0.01) 0.5 pu of 1000 kVA.

    S = conj(1 / (z + 1 / y)), with z = 0.02 + j0.08.
    """
    t = one_core(no_load_loss_percent=0.5, magnetizing_percent=1.0)
    c = case((bus("a"), bus("b", kv=0.48)), t, load(p_kw=0.0, q_kvar=0.0))
    s = np.conj(1 / (0.02 + 0.08j + 1 / (0.0025 - 0.005j)))
    for formulation in ("nonlinear", "lindist3flow"):
        r = build(c, formulation, "loss").solve()
        assert r.p_source_kw[0] == pytest.approx(1000 * s.real, abs=1e-3)
        assert r.q_source_kvar[0] == pytest.approx(1000 * s.imag, abs=2e-3)
    assert 2.4 < 1000 * s.real < 2.5  # close to 0.5 % of 500 kVA


THREE = (1, 2, 3)


def three_phase(first: str, second: str, tap: float = 1.0) -> Transformer:
    """The core above, three times."""

    def winding(at: str, connection: str, kv: float, tap: float) -> Winding:
        return Winding(
            bus=at,
            terminals=THREE if connection == "delta" else (*THREE, 0),
            connection=connection,
            v_rated_kv=kv * 3**0.5,
            s_rated_kva=1500.0,
            r_percent=0.5,
            tap=tap,
        )

    return Transformer(
        name="t", windings=(winding("a", first, KV, 1.0), winding("b", second, 0.48, tap)), x_percent=(4.0,)
    )


@pytest.mark.parametrize(("first", "second"), [("wye", "wye"), ("delta", "wye"), ("wye", "delta"), ("delta", "delta")])
def test_connections_of_three_phases(first: str, second: str) -> None:
    """Symmetric: every connection is the single core on each phase, tap included; a shift turns angles only."""
    tap = 1.04
    c = case(
        (bus("a", THREE), bus("b", THREE, 0.48)),
        three_phase(first, second, tap),
        load(p_kw=900.0, q_kvar=450.0, terminals=THREE, connection="delta"),
    )
    r = assert_ac(c, 1e-6)
    v = exact(tap**2, (0.02 + 0.08j) * tap**2)
    for k in THREE:
        assert v_of(r, f"b.{k}") == pytest.approx(v, abs=1e-5)  # the antifloat shunts are 1e-6
    flow = power_flow(c)
    turned = np.angle(flow.v[flow.index.position["b", 1], 0], deg=True)
    plain = np.angle(np.sqrt(v) + (0.02 + 0.08j) * tap**2 * (0.3 - 0.15j) / np.sqrt(v), deg=True)
    shift = {("delta", "wye"): -30.0, ("wye", "delta"): -30.0}.get((first, second), 0.0)
    assert turned == pytest.approx(shift - plain, abs=0.01)


def test_taps_of_single_phase_regulators() -> None:
    """Three units with taps of their own and next to no impedance: |V| is the tap of each phase."""
    taps = {1: 1.05, 2: 0.975, 3: 1.0}
    units = tuple(
        Transformer(
            name=f"reg{k}",
            n_phases=1,
            windings=tuple(
                Winding(bus=at, terminals=(k, 0), v_rated_kv=KV, s_rated_kva=1666.0, tap=tap)
                for at, tap in (("a", 1.0), ("b", taps[k]))
            ),
            x_percent=(0.01,),
            bank="reg",
        )
        for k in THREE
    )
    r = assert_ac(case((bus("a", THREE), bus("b", THREE)), *units, load(p_kw=1.0, q_kvar=0.0, terminals=(*THREE, 0))))
    for k in THREE:
        assert np.sqrt(v_of(r, f"b.{k}")) == pytest.approx(taps[k], abs=1e-6)


def test_open_delta_regulators() -> None:
    """Two units between conductors 1-2 and 3-2 and a jumper on 2: line-to-line voltages follow the taps.

    |V_1 - V_2| = 1.05 sqrt(3), |V_3 - V_2| = 1.02 sqrt(3) at no load; one branch with three legs.
    """

    def unit(name: str, k: int, tap: float) -> Transformer:
        return Transformer(
            name=name,
            n_phases=1,
            windings=tuple(
                Winding(bus=at, terminals=(k, 2), connection="delta", v_rated_kv=KV * 3**0.5, s_rated_kva=2000.0, tap=t)
                for at, t in (("a", 1.0), ("b", tap))
            ),
            x_percent=(0.01,),
        )

    jumper = line("jumper", "a", "b", 1e-4 + 1e-4j, (2,))
    c = case(
        (bus("a", THREE), bus("b", THREE)),
        unit("reg1", 1, 1.05),
        unit("reg3", 3, 1.02),
        jumper,
        load(p_kw=1.0, q_kvar=0.0, terminals=THREE, connection="delta"),
    )
    r = assert_ac(c, 1e-6)
    assert len(r.network.branch_names) == 1
    assert r.network.n_legs == 3
    flow = power_flow(c)
    v = {k: flow.v[flow.index.position["b", k], 0] / 2400 for k in THREE}
    assert abs(v[1] - v[2]) == pytest.approx(1.05 * 3**0.5, abs=1e-5)
    assert abs(v[3] - v[2]) == pytest.approx(1.02 * 3**0.5, abs=1e-5)


def test_center_tap() -> None:
    """2400 / 120 / 120 V: both legs at 1 pu and opposite; 240 V loads draw from both, an uneven one tilts them."""
    t = Transformer(
        name="t",
        n_phases=1,
        windings=(
            Winding(bus="a", terminals=(1, 0), v_rated_kv=KV, s_rated_kva=25.0, r_percent=0.6),
            Winding(bus="b", terminals=(1, 0), v_rated_kv=0.12, s_rated_kva=25.0, r_percent=1.2),
            Winding(bus="b", terminals=(0, 2), v_rated_kv=0.12, s_rated_kva=25.0, r_percent=1.2),
        ),
        x_percent=(2.04, 2.04, 1.36),
    )
    buses = (bus("a"), bus("b", (1, 2), 0.12))
    idle = assert_ac(case(buses, t, load(p_kw=1e-3, q_kvar=0.0, terminals=(1, 2))))
    for k in (1, 2):
        assert v_of(idle, f"b.{k}") == pytest.approx(1.0, abs=1e-5)
    even = assert_ac(case(buses, t, load(p_kw=10.0, q_kvar=3.0, terminals=(1, 2), v_rated_kv=0.24)))
    assert v_of(even, "b.1") == pytest.approx(v_of(even, "b.2"), abs=1e-6)
    assert v_of(even, "b.1") < 0.99
    uneven = assert_ac(case(buses, t, load(p_kw=10.0, q_kvar=3.0, terminals=(1, 0))))
    assert v_of(uneven, "b.1") < v_of(uneven, "b.2") - 0.01


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formulation", sorted(n for n, f in formulations.BUILT_IN.items() if f.radial_only))
def test_loops_are_refused(formulation: str) -> None:
    """Three lines in a ring: a coded fault that names one of them, not a wrong answer."""
    ring = (line("ab", "a", "b"), line("bc", "b", "c"), line("ca", "c", "a"))
    c = case((*TWO, bus("c")), *ring, load())
    with pytest.raises(LateralError, match=r"NET-\d+ .*line\.(ab|bc|ca)"):
        build(c, formulation)
    with pytest.raises(UnsupportedError, match=r"NET-004 loop\] line\.(ab|bc|ca)"):
        build(c, formulation, check=False)
    opened = dataclasses.replace(c.feeder, lines=ring[:2])
    assert run(c.with_(feeder=opened), formulation).ok


@pytest.mark.parametrize("formulation", ["lindistflow", "soc", "nonlinear"])
def test_several_conductors_are_refused(formulation: str) -> None:
    c = case((bus("a", THREE), bus("b", THREE)), line("l", "a", "b", conductors=THREE), load(terminals=(*THREE, 0)))
    with pytest.raises(UnsupportedError, match=r"FOR-001 not-balanced\] bus\.a: found 2 buses.*lindist3flow"):
        build(c, formulation)


def test_dead_branches_are_left_out() -> None:
    """What no source reaches is named and not part of the problem."""
    net = radial_network(
        Feeder(buses=(*TWO, bus("c"), bus("d")), lines=(line("l", "a", "b"), line("m", "c", "d"))), [("a", 1)], Base()
    )
    assert net.dead == ("line.m",)
    assert net.nodes == (("a", 1), ("b", 1))


# -- the tree hint ----------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, derandomize=True)
@given(balanced_cases(max_steps=3))
def test_tree_hint(c: Case) -> None:
    """Parents are the branches that feed the sending nodes; the variables are those of the labels."""
    model = build(c, "nonlinear")
    net, program = model.network, model.program
    hint = program.tree
    assert hint is not None
    feeds = {int(node): k for k, node in enumerate(net.to_node)}
    for leg, node in zip(net.a_leg, net.a_node, strict=True):
        assert hint.parent[leg] == feeds.get(int(node), -1)
        assert hint.parent[leg] < leg  # outwards
    assert (hint.parent == -1).sum() >= 1
    for column, name in enumerate(("branch.p_from", "branch.q_from", "branch.imag_sq")):
        block = program.block(name)
        for k, start in enumerate(hint.branch_vars[:, column]):
            assert block.place(int(start)) == (net.legs[k], 0)
    voltages = program.block("bus.vmag_sq")
    for k, start in enumerate(hint.branch_vars[:, 3]):
        label, conductor = net.nodes[net.to_node[k]]
        assert voltages.place(int(start)) == (f"{label}.{conductor}", 0)


def test_tree_hint_of_a_linear_model_has_no_current() -> None:
    hint = build(case(TWO, line("l", "a", "b"), load()), "lindistflow").program.tree
    assert hint is not None
    assert hint.branch_vars[0, 2] == -1


# -- neutrals ---------------------------------------------------------------------------------------------------------


def test_floating_neutral_of_a_winding() -> None:
    """A wye with an explicit neutral (4) that nothing else touches carries no current: eliminated, which is exact."""
    t = three_phase("delta", "wye")
    low = dataclasses.replace(t.windings[1], terminals=(1, 2, 3, 4))
    t = dataclasses.replace(t, windings=(t.windings[0], low))
    c = case(
        (bus("a", THREE), bus("b", (1, 2, 3, 4), 0.48)),
        t,
        load(p_kw=300.0, terminals=THREE, connection="delta"),
        dataclasses.replace(load(p_kw=100.0, terminals=(1, 2), connection="delta"), name="uneven"),
    )
    r = assert_ac(c, 1e-6)
    assert r.network.grounded == (("b", 4),)


def test_grounded_neutral_of_a_line_is_left_out() -> None:
    """A fourth wire at nearly zero volts is taken as grounded: its node is no part of the model and is named."""
    buses = (bus("a", (1, 2, 3)), bus("b", (1, 2, 3, 4)))
    wire = line("l", "a", "b", 0.05 + 0.1j, THREE)
    c = case(buses, wire, load(terminals=(*THREE, 0)))
    net = radial_network(c.feeder, [("a", k) for k in THREE], c.base, neutrals=[("b", 4)])
    assert net.grounded == (("b", 4),)
    assert ("b", 4) not in net.nodes


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
@pytest.mark.parametrize(
    "name",
    [
        "ieee37/ieee37.dss",
        "ieee4bus/4Bus-DY-Bal.DSS",
        "ieee4bus/4Bus-GrdYD-Bal.DSS",
        "ieee4bus/4Bus-YD-Bal.DSS",
        "ieee4bus/4Bus-YY-Bal.DSS",
        "ieee4bus/4bus-OYOD-UnBal.dss",
    ],
)
def test_shared_feeders_at_their_own_point(name: str) -> None:
    """Loads out of their bands, open deltas with jumpers, floating neutrals: the AC power flow to 1e-6 pu."""
    path = FEEDERS / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    assert_ac(read(path), 1e-6)


def test_tree_hint_names_the_storage_chains() -> None:
    """Every block of stored energy is a chain in time, by its name."""
    tree = lateral.build(lateral.read("ieee123-t5"), "soc").program.tree
    assert tree is not None
    assert tree.chains == ("battery.energy",)
    bare = lateral.build(lateral.read("case33bw"), "soc").program.tree
    assert bare is not None
    assert bare.chains == ()


@pytest.mark.parametrize(("cvr_p", "cvr_q"), [(0.6, 4.0), (3.0, -2.0)])
def test_loads_of_any_exponent_are_exact_in_the_exact_branch_flow(cvr_p: float, cvr_q: float) -> None:
    """They were linear about 1 pu: 1e-3 of the objective off, and called proved by a relaxation of the same error."""
    case = lateral.read("ads10")
    devices = tuple(
        dataclasses.replace(d, model="cvr", cvr_p=cvr_p, cvr_q=cvr_q) if isinstance(d, Load) else d
        for d in case.devices
    )
    case = case.with_(devices=devices)
    r = lateral.solve(case)
    assert r.formulation == "nonlinear"
    other = lateral.solve(case, "current-voltage", with_replay=False)
    assert r.ok
    assert r.objective == pytest.approx(other.objective, rel=1e-7)
    assert r.replay is not None
    assert r.replay.summary()["dp_source_kw"] < 1e-3
    assert r.program.held == ()


@pytest.mark.parametrize(("v_min_pu", "said"), [(0.1, False), (0.95, True)])
def test_a_proof_by_relaxation_says_where_loads_have_left_the_law_that_was_taken(v_min_pu: float, said: bool) -> None:
    """Below its band a load draws less: the exact form of that finds 2.5 % less than what nothing was to be below."""
    case = lateral.read("case33bw")
    buses = tuple(dataclasses.replace(b, v_min_pu=0.8) for b in case.feeder.buses)
    devices = tuple(dataclasses.replace(d, v_min_pu=v_min_pu) if isinstance(d, Load) else d for d in case.devices)
    case = case.with_(feeder=dataclasses.replace(case.feeder, buses=buses), devices=devices)
    r = lateral.solve(case, "nonlinear", "demand", with_replay=False)
    exact = lateral.solve(case, "current-voltage", "demand", with_replay=False)
    proof = next(c for c in r.choices if "the convex relaxation proves" in c)
    assert (exact.objective < 0.98 * r.objective) == said
    assert ("while loads have the law that was taken" in proof) == said
