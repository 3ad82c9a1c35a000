"""Primitives and the nodal matrix: hand calculations, laws, and the engine's own primitive matrices."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import engine_mapping as engine_side

from lateral.devices import Capacitor
from lateral.errors import CaseError
from lateral.network.admittance import (
    NodeIndex,
    capacitor_admittance,
    nodal_matrix,
    nodal_matrix_pu,
    primitive_of,
    primitives,
)
from lateral.network.feeder import Bus, Feeder, Line, Shunt, Switch, Transformer, Winding
from lateral.units import Base

ENGINE_FEEDERS = (
    "ieee13/IEEE13Nodeckt.dss",
    "ieee34/ieee34Mod1.dss",
    "ieee34/ieee34Mod2.dss",
    "ieee37/ieee37.dss",
    "ieee123/IEEE123Master.dss",
    "ieee4bus/4Bus-DY-Bal.DSS",
    "ieee4bus/4Bus-GrdYD-Bal.DSS",
    "ieee4bus/4Bus-OYOD-Bal.DSS",
    "ieee4bus/4Bus-YD-Bal.DSS",
    "ieee4bus/4Bus-YY-Bal.DSS",
    "ieee4bus/4bus-OYOD-UnBal.dss",
    "pmd_cases/opendss/ut_trans_2w_dy_lag.dss",
    "pmd_cases/opendss/ut_trans_2w_dy_lead.dss",
    "pmd_cases/opendss/ut_trans_2w_yy.dss",
    "pmd_cases/opendss/ut_trans_2w_yy_bank.dss",
    "pmd_cases/opendss/ut_trans_2w_yy_oltc.dss",
    "pmd_cases/opendss/ut_trans_3w_dyy_1.dss",
    "pmd_cases/opendss/ut_trans_3w_dyy_2.dss",
    "pmd_cases/opendss/ut_trans_3w_dyy_3.dss",
    "pmd_cases/opendss/ut_trans_3w_dyy_3_loadloss.dss",
    "pmd_cases/opendss/trans_3w_center_tap.dss",
    "pmd_cases/opendss/dist_transformer.dss",
    "pmd_cases/opendss/test_simple4.dss",
    "pmd_cases/en_validation_case_data/test_trans_dy.dss",
    "pmd_cases/en_validation_case_data/test_trans_dy_3w.dss",
    "pmd_cases/en_validation_case_data/test_trans_yy_3w.dss",
    "pmd_cases/en_validation_case_data/ut_trans_3w_yyy_1.dss",
    "pmd_cases/en_validation_case_data/test_line_6w.dss",
    "smartds84/Master.dss",
    "epri_ckt7/Master_ckt7.dss",
    "ieee8500/Master.dss",
)


@pytest.mark.parametrize("path", ENGINE_FEEDERS)
def test_primitives_equal_the_engines(path):
    engine = engine_side.compile_feeder(path)
    circuit = engine.ActiveCircuit
    feeder = engine_side.case_of(engine).feeder
    worst = 0.0
    for p in primitives(feeder):
        if p.element.name.startswith("reactor_"):
            continue
        circuit.SetActiveElement(p.element.label)
        nodes, y = engine_side.engine_y(circuit.ActiveCktElement)
        assert set(nodes) == set(p.nodes), p.element.label
        order = [p.nodes.index(n) for n in nodes]
        worst = max(worst, np.abs(p.y[np.ix_(order, order)] - y).max() / np.abs(y).max())
    assert worst < 1e-9


def bus(name, *conductors, kv=2.4):
    return Bus(name=name, conductors=conductors or (1,), v_base_kv=kv)


def line(name, a, b, z=0.1 + 0.2j, **more):
    z = np.atleast_2d(z)
    c = tuple(range(1, len(z) + 1))
    return Line(name=name, bus_from=a, bus_to=b, conductors_from=c, conductors_to=c, r_ohm=z.real, x_ohm=z.imag, **more)


def two_winding(conn, volts, terminals, n_phases=3, **more):
    windings = tuple(
        Winding(bus=b, terminals=t, connection=c, v_rated_kv=v, s_rated_kva=500.0, r_percent=0.5)
        for b, t, c, v in zip("ab", terminals, conn, volts, strict=True)
    )
    return Transformer(name="t", n_phases=n_phases, windings=windings, x_percent=(4.0,), **more)


def test_line_by_hand():
    p = primitive_of(line("l", "a", "b", 3 + 4j, b_us=[[2.0]]))
    assert p.nodes == (("a", 1), ("b", 1))
    y = 1 / (3 + 4j)
    assert np.allclose(p.y, [[y + 1e-6j, -y], [-y, y + 1e-6j]], rtol=1e-14)


def test_one_phase_transformer_by_hand():
    t = two_winding(("wye", "wye"), (7.2, 0.24), ((2, 0), (1, 0)), n_phases=1)
    p = primitive_of(t, antifloat=False)
    assert p.nodes == (("a", 2), ("b", 1))
    y = 1 / (0.01 + 0.04j) * 500e3
    a, b = 7200.0, 240.0
    assert np.allclose(p.y, [[y / a**2, -y / (a * b)], [-y / (a * b), y / b**2]], rtol=1e-12)


def test_taps_scale_turns():
    t = two_winding(("wye", "wye"), (4.16, 4.16), ((1, 2, 3, 0), (1, 2, 3, 0)))
    w = t.windings
    tapped = replace(t, windings=(w[0], replace(w[1], tap=1.05)))
    y, yt = primitive_of(t, antifloat=False).y, primitive_of(tapped, antifloat=False).y
    assert np.allclose(yt[3:, 3:] * 1.05**2, y[3:, 3:])
    assert np.allclose(yt[:3, 3:] * 1.05, y[:3, 3:])
    assert np.allclose(yt[:3, :3], y[:3, :3])


@pytest.mark.parametrize(("lead", "degrees"), [(False, -30.0), (True, 30.0)])
def test_delta_wye_shifts_by_30_degrees(lead, degrees):
    t = two_winding(("delta", "wye"), (12.47, 0.48), ((1, 2, 3), (1, 2, 3, 0)), delta_lead=lead)
    y = primitive_of(t).y
    a = np.exp(-2j * np.pi / 3 * np.arange(3)) * 12470 / np.sqrt(3)
    v = np.linalg.solve(y[3:, 3:], -y[3:, :3] @ a)
    assert np.allclose(np.abs(v), 480 / np.sqrt(3), rtol=1e-5)
    assert np.degrees(np.angle(v[0])) == pytest.approx(degrees, abs=1e-3)


def test_isolated_neutral_carries_no_current():
    t = two_winding(("wye", "wye"), (4.16, 0.48), ((1, 2, 3, -1), (1, 2, 3, 0)))
    y = primitive_of(t, antifloat=False).y
    assert np.abs(y[:3].sum(axis=0)).max() < 1e-12 * np.abs(y).max()
    both = two_winding(("wye", "wye"), (4.16, 0.48), ((1, 2, 3, -1), (1, 2, 3, -1)))
    y = primitive_of(both, antifloat=False).y
    assert np.all(np.isfinite(y))
    assert np.abs(y.sum(axis=0)).max() < 1e-9 * np.abs(y).max()


def test_isolated_neutral_is_an_explicit_one_eliminated():
    explicit = two_winding(("wye", "wye"), (4.16, 0.48), ((1, 2, 3, 4), (1, 2, 3, 0)))
    inner = two_winding(("wye", "wye"), (4.16, 0.48), ((1, 2, 3, -1), (1, 2, 3, 0)))
    p = primitive_of(explicit)
    k = p.nodes.index(("a", 4))
    rest = [j for j in range(len(p.nodes)) if j != k]
    kron = p.y[np.ix_(rest, rest)] - np.outer(p.y[rest, k], p.y[k, rest]) / p.y[k, k]
    assert np.allclose(primitive_of(inner).y, kron, rtol=1e-10, atol=1e-12)


def test_neutral_grounding_impedance_adds_to_the_neutral():
    t = two_winding(("wye", "wye"), (4.16, 0.48), ((1, 2, 3, 4), (1, 2, 3, 0)))
    w = t.windings
    grounded = replace(t, windings=(replace(w[0], r_neutral_ohm=2.0, x_neutral_ohm=1.0), w[1]))
    y, yg = primitive_of(t, antifloat=False), primitive_of(grounded, antifloat=False)
    k = y.nodes.index(("a", 4))
    d = yg.y - y.y
    assert d[k, k] == pytest.approx(1 / (2 + 1j))
    d[k, k] = 0
    assert not d.any()


def test_center_tap_gives_120_and_240():
    half = {"connection": "wye", "v_rated_kv": 0.12, "s_rated_kva": 25.0, "r_percent": 1.2}
    t = Transformer(
        name="ct",
        n_phases=1,
        windings=(
            Winding(bus="a", terminals=(1, 0), v_rated_kv=7.2, s_rated_kva=25.0, r_percent=0.6),
            Winding(bus="b", terminals=(1, 0), **half),
            Winding(bus="b", terminals=(0, 2), **half),
        ),
        x_percent=(2.04, 2.04, 1.36),
    )
    p = primitive_of(t)
    assert p.nodes == (("a", 1), ("b", 1), ("b", 2))
    v = np.linalg.solve(p.y[1:, 1:], -p.y[1:, 0] * 7200.0)
    assert v[0] == pytest.approx(120.0, rel=1e-5)
    assert v[1] == pytest.approx(-120.0, rel=1e-5)


def test_no_load_loss_is_drawn_at_rated_voltage():
    t = two_winding(
        ("wye", "wye"),
        (4.16, 0.48),
        ((1, 2, 3, 0), (1, 2, 3, 0)),
        no_load_loss_percent=0.4,
        magnetizing_percent=1.0,
    )
    extra = primitive_of(t).y - primitive_of(t, no_load=False).y
    v = 480 / np.sqrt(3)
    assert 3 * v**2 * extra[3, 3].conj() == pytest.approx(500e3 * (0.004 + 0.01j))


def small_feeder():
    z = np.array([[0.3 + 0.7j, 0.1 + 0.3j], [0.1 + 0.3j, 0.3 + 0.6j]])
    return Feeder(
        buses=(bus("a", 1, 2), bus("b", 1, 2), bus("c", 1), bus("d", 1)),
        lines=(line("ab", "a", "b", z, b_us=[[3.0, -1.0], [-1.0, 3.0]]), line("bc", "b", "c")),
        switches=(
            Switch(name="s", bus_from="c", bus_to="d", conductors_from=(1,), conductors_to=(1,), r_ohm=1e-3, x_ohm=0),
            Switch(
                name="o",
                bus_from="a",
                bus_to="d",
                conductors_from=(1,),
                conductors_to=(1,),
                closed=False,
                r_ohm=1e-3,
                x_ohm=0,
            ),
        ),
        shunts=(Shunt(name="r", bus="d", conductors=(1,), g_us=[[5.0]], b_us=[[-7.0]]),),
    )


def test_nodal_matrix_is_the_sum_of_primitives_and_symmetric():
    feeder = small_feeder()
    index = NodeIndex.of(feeder)
    dense = np.zeros((len(index), len(index)), dtype=complex)
    found = primitives(feeder)
    assert [p.element.name for p in found] == ["ab", "bc", "s", "r"]
    for p in found:
        at = [index.position[n] for n in p.nodes]
        dense[np.ix_(at, at)] += p.y
    y = nodal_matrix(feeder, index)
    assert y.format == "csc"
    assert np.allclose(y.toarray(), dense, rtol=1e-14)
    assert np.allclose(dense, dense.T)


def test_per_unit_matrix_gives_the_same_power():
    feeder = small_feeder()
    index = NodeIndex.of(feeder)
    y, y_pu = nodal_matrix(feeder, index), nodal_matrix_pu(feeder, index, Base(250.0))
    v_pu = np.exp(1j * np.arange(len(index)))
    v = 1000 * index.v_base_kv * v_pu
    assert np.allclose(v * (y @ v).conj() / 1000, 250.0 * v_pu * (y_pu @ v_pu).conj())


def test_ground_and_repeated_terminals_are_merged():
    looped = Line(
        name="l",
        bus_from="a",
        bus_to="b",
        conductors_from=(1, 4),
        conductors_to=(1, 0),
        r_ohm=np.diag([1.0, 2.0]),
        x_ohm=np.zeros((2, 2)),
    )
    p = primitive_of(looped)
    assert p.nodes == (("a", 1), ("a", 4), ("b", 1))
    assert p.y[1, 1] == pytest.approx(0.5)
    assert p.y[1, 0] == p.y[1, 2] == 0


def test_every_line_without_impedance_is_named():
    feeder = Feeder(buses=(bus("a"), bus("b"), bus("c")), lines=(line("x", "a", "b", 0j), line("y", "b", "c", 0j)))
    with pytest.raises(CaseError) as error:
        primitives(feeder)
    assert [f.element for f in error.value.faults] == ["line.x", "line.y"]


@pytest.mark.parametrize(
    ("connection", "terminals", "ports"), [("wye", (1, 2, 3, 0), 3), ("delta", (1, 2, 3), 3), ("delta", (1, 2), 1)]
)
def test_capacitor_gives_its_rating_at_rated_voltage(connection, terminals, ports):
    cap = Capacitor(name="c", bus="b", terminals=terminals, connection=connection, q_kvar=300.0)
    conductors, y = capacitor_admittance(cap, 2.4)
    v = 2400 * np.exp(-2j * np.pi / 3 * (np.array(conductors) - 1))
    assert len(cap.ports) == ports
    assert -np.sum(v * (y @ v).conj()).imag == pytest.approx(300e3)


def test_ten_thousand_lines_in_order():
    n = 10_000
    feeder = Feeder(
        buses=tuple(bus(str(k)) for k in range(n + 1)),
        lines=tuple(line(str(k), str(k), str(k + 1)) for k in range(n)),
    )
    made = primitives(feeder)
    assert [p.element.name for p in made] == [line.name for line in feeder.lines]
