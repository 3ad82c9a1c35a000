"""Power flow: hand calculations, laws, and the engine's voltages at the same taps."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import engine_mapping as engine_side

from lateral.baseline import nodal_problem, power_flow
from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Source
from lateral.devices.load import MODELS
from lateral.errors import OptionError
from lateral.network.feeder import Bus, Feeder, Line, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.units import Base

#: feeder: largest difference of a node voltage, pu of the bus base, that is allowed
ENGINE_FEEDERS = {
    "ieee13/IEEE13Nodeckt.dss": 1e-7,
    "ieee34/ieee34Mod1.dss": 1e-7,
    "ieee34/ieee34Mod2.dss": 1e-7,
    "ieee37/ieee37.dss": 1e-6,
    "ieee123/IEEE123Master.dss": 1e-7,
    "ieee4bus/4Bus-DY-Bal.DSS": 1e-7,
    "ieee4bus/4Bus-GrdYD-Bal.DSS": 1e-7,
    "ieee4bus/4Bus-OYOD-Bal.DSS": 1e-7,
    "ieee4bus/4Bus-YD-Bal.DSS": 1e-7,
    "ieee4bus/4Bus-YY-Bal.DSS": 1e-7,
    "ieee4bus/4bus-OYOD-UnBal.dss": 1e-7,
    "eulv906/Master.dss": 1e-7,
    "epri_ckt5/Master_ckt5.dss": 1e-6,
    "epri_ckt7/Master_ckt7.dss": 1e-6,
    "epri_j1/Master_noPV.dss": 1e-7,
    "smartds84/Master.dss": 1e-7,
    "ieee8500/Master.dss": 1e-7,
    "ieee8500/Master-unbal.dss": 1e-7,
    "pmd_cases/opendss/case3_lm_models.dss": 1e-7,
    "pmd_cases/opendss/case3_lm_models_2.dss": 1e-7,
    "pmd_cases/opendss/case3_unbalanced_ZIPloads.dss": 1e-7,
    "pmd_cases/opendss/case3_delta_gens.dss": 1e-7,
    "pmd_cases/opendss/trans_3w_center_tap.dss": 1e-7,
    "pmd_cases/en_validation_case_data/test_line_6w.dss": 1e-7,
    "pmd_cases/en_validation_case_data/test_load_3ph_delta_exp.dss": 1e-7,
    "pmd_cases/en_validation_case_data/test_load_1ph_wye_cp.dss": 1e-7,
    "pmd_cases/en_validation_case_data/test_trans_dy_3w.dss": 1e-7,
}


@pytest.mark.parametrize("path", ENGINE_FEEDERS)
def test_voltages_equal_the_engines(path):
    engine = engine_side.compile_feeder(path)
    case = engine_side.case_of(engine)
    result = power_flow(case)
    assert result.all_converged
    reference = engine_side.engine_voltages(engine, result.index)
    dv = np.abs(result.v[:, 0] - reference) / (1000 * result.index.v_base_kv)
    assert dv.max() < ENGINE_FEEDERS[path]
    assert result.losses_kw[0] == pytest.approx(engine.ActiveCircuit.Losses[0] / 1000, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("model", range(1, 9))
@pytest.mark.parametrize("v_pu", [0.3, 0.6, 0.88, 0.97, 1.02, 1.2])
def test_load_models_equal_the_engines_in_and_out_of_their_band(model, v_pu):
    dss = pytest.importorskip("dss").DSS
    dss.ClearAll()
    zipv = "zipv=[0.2 0.3 0.5 0.4 0.1 0.5 0.55]" if model == 8 else ""
    for command in (
        f"new circuit.c basekv=4.16 pu={v_pu} phases=3 bus1=s r1=0.05 x1=0.1 r0=0.1 x0=0.2",
        "new line.l bus1=s bus2=b phases=3 r1=0.1 x1=0.2 r0=0.3 x0=0.5 c1=0 c0=0 length=1",
        f"new load.w bus1=b.1.2.3 phases=3 conn=wye kv=4.16 kw=90 kvar=40 model={model} {zipv} vminpu=0.9 vmaxpu=1.1",
        f"new load.d bus1=b.1.2 phases=1 conn=delta kv=4.16 kw=30 kvar=9 model={model} {zipv} vminpu=0.9 vlowpu=0.5",
        f"new load.v bus1=b.2 phases=1 kv=2.4 kw=30 kvar=9 model={model} {zipv} cvrwatts=0.8 cvrvars=2.5",
        "set voltagebases=[4.16]",
        "calcvoltagebases",
        "set tolerance=1e-11 maxiterations=1000",
        "solve",
    ):
        dss.Text.Command = command
    result = power_flow(engine_side.case_of(dss))
    assert result.all_converged
    reference = engine_side.engine_voltages(dss, result.index)
    assert np.abs(result.v[:, 0] - reference).max() / 2402 < 1e-7


def two_bus(p=300.0, q=100.0, z=0.5 + 1.0j, kv=2.4, source_z=0j, steps=1, n_phases=1, **load):
    feeder = Feeder(
        buses=(Bus(name="s", conductors=(1,), v_base_kv=kv), Bus(name="b", conductors=(1,), v_base_kv=kv)),
        lines=(
            Line(
                name="l",
                bus_from="s",
                bus_to="b",
                conductors_from=(1,),
                conductors_to=(1,),
                r_ohm=[[z.real]],
                x_ohm=[[z.imag]],
            ),
        ),
        n_phases=n_phases,
        balanced=n_phases > 1,
    )
    devices = (
        Source(name="g", bus="s", r_ohm=[[source_z.real]], x_ohm=[[source_z.imag]]),
        Load(name="d", bus="b", p_kw=p, q_kvar=q, **load),
    )
    return Case(name="two", feeder=feeder, devices=devices, horizon=Horizon.regular(steps))


def by_hand(p, q, z, e):
    """Voltage magnitude behind z that serves p + jq, the upper root of the quadratic in V^2 (W, V, ohm)."""
    r, x = z.real, z.imag
    b = 2 * (p * r + q * x) - e**2
    return np.sqrt((-b + np.sqrt(b**2 - 4 * (r**2 + x**2) * (p**2 + q**2))) / 2)


def test_two_buses_by_hand():
    result = power_flow(two_bus())
    v = by_hand(300e3, 100e3, 0.5 + 1.0j, 2400.0)
    assert result.vmag_pu[1, 0] * 2400 == pytest.approx(v, rel=1e-9)
    assert result.v[0, 0] == 2400.0  # held exactly
    loss = (300e3**2 + 100e3**2) / v**2 * (0.5 + 1.0j) / 1000
    assert result.losses_kw[0] == pytest.approx(loss.real, rel=1e-8)
    assert result.source_kva[0] == pytest.approx(300 + 100j + loss, rel=1e-8)


def test_source_impedance_adds_to_the_line():
    stiff = power_flow(two_bus(z=0.6 + 1.3j))
    soft = power_flow(two_bus(source_z=0.1 + 0.3j))
    assert soft.vmag_pu[1, 0] == pytest.approx(stiff.vmag_pu[1, 0], rel=1e-9)


def test_constant_impedance_by_hand():
    z = 0.5 + 1.0j
    result = power_flow(two_bus(model="constant_impedance"))
    y = (300e3 - 100e3j) / 2400**2
    assert result.v[1, 0] == pytest.approx(2400 / (1 + z * y), rel=1e-9)


def test_no_answer_is_made_up_beyond_the_nose():
    result = power_flow(two_bus(p=3000.0, v_min_pu=0.0))
    assert not result.converged[0]
    assert not result.all_converged


def test_one_bad_step_leaves_the_others():
    case = two_bus(steps=3, profile="x", v_min_pu=0.0)
    case = case.with_(profiles={"x": np.array([1.0, 12.0, 0.5])})
    result = power_flow(case)
    assert result.converged.tolist() == [True, False, True]
    assert result.vmag_pu[1, 2] * 2400 == pytest.approx(by_hand(150e3, 50e3, 0.5 + 1.0j, 2400.0), rel=1e-8)


def test_steps_do_not_see_each_other():
    shape = np.linspace(0.2, 1.5, 7)
    many = power_flow(two_bus(steps=7, profile="x").with_(profiles={"x": shape}))
    for k, m in enumerate(shape):
        assert many.vmag_pu[1, k] == pytest.approx(power_flow(two_bus(p=300 * m, q=100 * m)).vmag_pu[1, 0], rel=1e-8)


def test_a_balanced_feeder_is_three_of_one():
    one = power_flow(two_bus())
    three = power_flow(two_bus(p=900.0, q=300.0, n_phases=3))
    assert np.allclose(one.v, three.v, rtol=1e-10)
    assert np.allclose(3 * one.source_kva, three.source_kva)
    assert np.allclose(3 * one.losses_kw, three.losses_kw)


def test_results_do_not_depend_on_the_base():
    a = power_flow(two_bus())
    b = power_flow(two_bus().with_(base=Base(37.0)))
    assert np.array_equal(a.v, b.v)


def test_scaling_all_impedances_and_powers_keeps_voltages():
    a = power_flow(two_bus(p=300.0, q=100.0, z=0.5 + 1.0j))
    b = power_flow(two_bus(p=30.0, q=10.0, z=5.0 + 10.0j))
    assert np.allclose(a.v, b.v, rtol=1e-9)


def three_phase(rotate=0, connection="wye"):
    order = tuple((k + rotate) % 3 + 1 for k in range(3))  # the conductor that carries the source's k-th phasor
    z = np.full((3, 3), 0.1 + 0.3j) + np.diag([0.2 + 0.5j] * 3)
    bus = [Bus(name=n, conductors=(1, 2, 3), v_base_kv=2.4) for n in "sbt"]
    lines = [
        Line(name=a + b, bus_from=a, bus_to=b, conductors_from=order, conductors_to=order, r_ohm=z.real, x_ohm=z.imag)
        for a, b in ("sb",)
    ]
    t = Transformer(
        name="t",
        windings=(
            Winding(bus="b", terminals=order, connection="delta", v_rated_kv=4.16, s_rated_kva=500.0, r_percent=0.5),
            Winding(bus="t", terminals=(*order, 0), v_rated_kv=4.16, s_rated_kva=500.0, r_percent=0.5),
        ),
        x_percent=(4.0,),
    )
    a, b, c = order
    devices = (
        Source(
            name="g",
            bus="s",
            conductors=order,
            angle_deg=(0.0, -120.0, 120.0),
            r_ohm=0.05 * np.eye(3),
            x_ohm=0.1 * np.eye(3),
        ),
        Load(name="x", bus="t", terminals=(a, 0), p_kw=80.0, q_kvar=20.0),
        Load(name="y", bus="t", terminals=(b, c), connection="delta", p_kw=60.0, q_kvar=30.0, model="constant_current"),
        Load(
            name="z", bus="b", terminals=order, connection="delta", p_kw=90.0, q_kvar=10.0, model="constant_impedance"
        ),
        Capacitor(name="c", bus="t", terminals=(*order, 0), q_kvar=60.0),
    )
    feeder = Feeder(buses=tuple(bus), lines=tuple(lines), transformers=(t,))
    return Case(name="three", feeder=feeder, devices=devices, horizon=Horizon.regular(1))


@pytest.mark.parametrize("rotate", [1, 2])
def test_renaming_phases_renames_voltages(rotate):
    plain, turned = power_flow(three_phase()), power_flow(three_phase(rotate))
    assert plain.all_converged and turned.all_converged
    for (bus, c), v in zip(plain.index.nodes, plain.v[:, 0], strict=True):
        at = turned.index.position[bus, (c - 1 + rotate) % 3 + 1]
        assert turned.v[at, 0] == pytest.approx(v, rel=1e-8)


def test_power_balances():
    case = three_phase()
    r = power_flow(case)
    problem = nodal_problem(case)
    across = r.v[problem.loads.node_a, 0] - np.where(problem.loads.node_b < 0, 0, r.v[problem.loads.node_b, 0])
    u = np.abs(across)[:, None] / (1000 * problem.loads.v_rated_kv[:, None])
    drawn = np.sum(np.abs(across) ** 2 * problem.loads.factors(u)[:, 0].conj()) / 1000
    assert r.source_kva[0].real == pytest.approx(drawn.real + r.losses_kw[0], rel=1e-8)


def test_default_day_has_pv_as_offered_and_idle_batteries():
    case = two_bus(steps=2)
    pv = PV(name="p", bus="b", p_rated_kw=100.0, s_max_kva=90.0, profile="sun")
    battery = Battery(
        name="b", bus="b", p_charge_max_kw=50.0, p_discharge_max_kw=50.0, s_max_kva=60.0, energy_kwh=100.0
    )
    case = case.with_(devices=(*case.devices, pv, battery), profiles={"sun": np.array([0.5, 1.0])})
    default = power_flow(case)
    same = power_flow(
        case,
        dispatch={"pv": (np.array([[50.0, 90.0]]), np.zeros((1, 2))), "battery": (np.zeros((1, 2)),) * 2},
    )
    assert np.allclose(default.v, same.v)
    net = power_flow(two_bus(p=250.0))
    assert default.vmag_pu[1, 0] == pytest.approx(net.vmag_pu[1, 0], rel=1e-9)
    given = power_flow(case, pv_q=np.full((1, 2), 40.0))
    assert given.vmag_pu[1, 0] == pytest.approx(power_flow(two_bus(p=250.0, q=60.0)).vmag_pu[1, 0], rel=1e-9)
    held = case.with_(devices=(*case.devices[:2], replace(pv, q_control="power_factor", power_factor=0.8)))
    p_held = power_flow(held)
    assert p_held.vmag_pu[1, 0] == pytest.approx(power_flow(two_bus(p=250.0, q=62.5)).vmag_pu[1, 0], rel=1e-9)


def test_a_dispatch_that_does_not_fit_is_refused():
    case = two_bus()
    with pytest.raises(OptionError, match="batery"):
        power_flow(case, dispatch={"batery": (np.zeros((1, 1)), np.zeros((1, 1)))})
    with pytest.raises(OptionError, match="shape"):
        power_flow(case, pv_q=np.zeros((2, 1)))


def test_nodes_without_a_source_are_dead_and_said_to_be():
    case = two_bus()
    far = tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4) for n in ("far", "away", "alone"))
    more = replace(case.feeder.lines[0], name="m", bus_from="far", bus_to="away")
    feeder = replace(case.feeder, buses=(*case.feeder.buses, *far), lines=(*case.feeder.lines, more))
    load = Load(name="lost", bus="away", p_kw=50.0)
    result = power_flow(case.with_(feeder=feeder, devices=(*case.devices, load)))
    assert result.all_converged
    assert result.energized.tolist() == [True, True, False, False, False]
    assert np.array_equal(result.v[2:], np.zeros((3, 1)))
    assert np.allclose(result.v[:2], power_flow(case).v, rtol=1e-9)


def test_a_floating_neutral_of_loads_alone():
    feeder = Feeder(
        buses=(Bus(name="s", conductors=(1, 2, 3, 4), v_base_kv=2.4),),
    )
    source = Source(
        name="g", bus="s", conductors=(1, 2, 3), angle_deg=(0.0, -120.0, 120.0), r_ohm=np.eye(3), x_ohm=np.eye(3)
    )
    loads = tuple(
        Load(name=f"l{k}", bus="s", terminals=(k, 4), p_kw=p, v_min_pu=0.5, model="constant_impedance")
        for k, p in ((1, 30.0), (2, 20.0), (3, 10.0))
    )
    result = power_flow(Case(name="n", feeder=feeder, devices=(source, *loads), horizon=Horizon.regular(1)))
    assert result.all_converged
    drawn = sum((result.v[k, 0] - result.v[3, 0]) * 1e3 * (30.0, 20.0, 10.0)[k] / 2400**2 for k in range(3))
    assert abs(drawn) < 1e-9


def test_no_devices_but_a_source():
    case = two_bus()
    result = power_flow(case.with_(devices=case.devices[:1]))
    assert result.all_converged
    assert np.allclose(result.v, 2400.0)


def test_every_load_model_is_known():
    from lateral.network.powerflow import PORT_MODELS

    assert PORT_MODELS == MODELS
