"""The methods of the power flow: derivatives, Newton's method, the sweep, and which of them solved what."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from test_powerflow import by_hand, three_phase, two_bus

import lateral
import strategies
from lateral.baseline import nodal_problem, power_flow
from lateral.case import Case
from lateral.devices import Load, Source
from lateral.devices.load import MODELS
from lateral.errors import OptionError, UnsupportedError
from lateral.network.branches import radial_network
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.newton import Newton
from lateral.network.nodal import Equations
from lateral.network.port_loads import PORT_MODELS, PortLoads
from lateral.network.powerflow import CHOICES, METHODS, PowerFlow, solve_power_flow

RELAXED = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
#: Corrections are below 1e-11 pu, so that two methods are this close (a wye secondary holds every node here).
SAME_PU = 1e-9
TIGHT = 1e-11


def port(model: str, **more: float) -> PortLoads:
    """One port from node 0 to ground."""
    edges = {"v_min_pu": 0.9, "v_max_pu": 1.1, "v_low_pu": 0.5, "v_cut_pu": 0.55 if model == "zip" else 0.0, **more}
    return PortLoads(
        node_a=np.array([0]),
        node_b=np.array([-1]),
        p_kw=np.array([[90.0]]),
        q_kvar=np.array([[40.0]]),
        v_rated_kv=np.array([2.4]),
        model=np.array([PORT_MODELS.index(model)]),
        zip_p=np.array([[0.2, 0.3, 0.5]]),
        zip_q=np.array([[0.4, 0.1, 0.5]]),
        exponent=np.array([[0.8, 2.5]]),
        **{k: np.array([v]) for k, v in edges.items()},
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("u", [0.3, 0.549, 0.556, 0.7, 0.89, 0.97, 1.05, 1.2])
def test_slopes_are_the_derivatives_of_the_laws(model: str, u: float) -> None:
    loads, h = port(model), 1e-6
    at = lambda x: loads.factors(np.array([[x]]))[0, 0]  # noqa: E731
    numeric = u * (at(u + h) - at(u - h)) / (2 * h)
    assert loads.slopes(np.array([[u]]))[0, 0] == pytest.approx(numeric, rel=1e-5, abs=1e-5 * abs(at(1.0)))


@pytest.mark.parametrize("model", MODELS)
def test_laws_by_hand(model: str) -> None:
    u = 1.03
    z, i, p = 1.0, 1 / u, 1 / u**2
    expected = {
        "constant_power": (p, p),
        "constant_impedance": (z, z),
        "constant_power_quadratic_q": (p, z),
        "cvr": (u ** (0.8 - 2), u ** (2.5 - 2)),
        "constant_current": (i, i),
        "constant_power_fixed_q": (p, p),
        "constant_power_fixed_q_impedance": (p, z),
        "zip": (0.2 * z + 0.3 * i + 0.5 * p, 0.4 * z + 0.1 * i + 0.5 * p),
    }[model]
    y = port(model).factors(np.array([[u]]))[0, 0] * 2400.0**2 / 1000.0
    assert y == pytest.approx(90.0 * expected[0] - 40.0j * expected[1], rel=1e-12)


def equations_of(case: Case) -> Equations:
    problem = nodal_problem(case)
    return Equations(problem.network, problem.loads, problem.sources, case.horizon.n_steps)


def test_matrix_of_newton_is_the_derivative_of_the_residual() -> None:
    equations = equations_of(three_phase())
    method = Newton(equations, 1e-8)
    rng = np.random.default_rng(3)
    v = equations.unloaded(equations.factor(np.array([0]), whole=True), np.array([0]))[:, 0]
    v += 0.02 * equations.volt[:, 0] * (rng.normal(size=len(v)) + 1j * rng.normal(size=len(v)))
    matrix = method.matrix(v, 0).toarray()
    scale = np.abs(matrix).max()
    for column in range(method.size):
        step = np.zeros(method.size)
        step[column] = 1e-5
        up, down = (method._residual(method._moved(v, s * step), np.array([0])) for s in (1.0, -1.0))
        assert np.abs(-(up - down) / 2e-5 - matrix[:, column]).max() < 1e-7 * scale


# -- by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CHOICES)
def test_two_buses_by_hand(method: str) -> None:
    result = power_flow(two_bus(), method=method)
    assert result.all_converged
    v = by_hand(300e3, 100e3, 0.5 + 1.0j, 2400.0)
    assert result.vmag_pu[1, 0] * 2400 == pytest.approx(v, rel=1e-8)
    loss = (300e3**2 + 100e3**2) / v**2 * (0.5 + 1.0j) / 1000
    assert result.losses_kw[0] == pytest.approx(loss.real, rel=1e-7)
    assert result.source_kva[0] == pytest.approx(300 + 100j + loss, rel=1e-7)
    assert result.methods == ("fixed-point" if method == "auto" else method,)


@pytest.mark.parametrize("method", CHOICES)
def test_the_impedance_of_a_source_is_in_series(method: str) -> None:
    result = power_flow(two_bus(source_z=0.1 + 0.3j, z=0.4 + 0.7j), method=method)
    assert result.vmag_pu[1, 0] * 2400 == pytest.approx(by_hand(300e3, 100e3, 0.5 + 1.0j, 2400.0), rel=1e-8)


@pytest.mark.parametrize("method", CHOICES)
@pytest.mark.parametrize("model", MODELS)
def test_a_load_draws_what_its_law_says(method: str, model: str) -> None:
    case = two_bus(model=model, zip_p=(0.2, 0.3, 0.5), zip_q=(0.5, 0.3, 0.2), cvr_p=0.8, cvr_q=2.5)
    result = power_flow(case, method=method, tolerance_pu=1e-10)
    loads = nodal_problem(case).loads
    v = result.v[1, 0]
    drawn = abs(v) ** 2 * loads.factors(np.array([[abs(v) / 2400.0]]))[0, 0].conjugate() / 1000
    lost = abs(result.v[0, 0] - v) ** 2 / abs(0.5 + 1.0j) ** 2 * (0.5 + 1.0j) / 1000
    assert result.source_kva[0] == pytest.approx(drawn + lost, rel=1e-8)


#: The largest load of constant power that the line of `two_bus` can carry, in units of 300 kW + 100 kvar:
#: the root of ``(2 s (p r + q x) - e^2)^2 = 4 |z|^2 s^2 |S|^2``.
NOSE = 2400.0**2 / (2 * (300e3 * 0.5 + 100e3 * 1.0) + 2 * abs(0.5 + 1.0j) * np.hypot(300e3, 100e3))


@pytest.mark.parametrize("method", ["auto", "fixed-point", "newton"])
@pytest.mark.parametrize("share", [0.9, 0.999, 0.99999])
def test_up_to_the_nose(method: str, share: float) -> None:
    p, q = 300.0 * share * NOSE, 100.0 * share * NOSE
    result = power_flow(two_bus(p=p, q=q, v_min_pu=0.0), method=method)
    assert result.all_converged
    # the voltage is the square root of the distance there, so that 1e-8 of correction is 1e-6 of voltage
    assert result.vmag_pu[1, 0] * 2400 == pytest.approx(by_hand(1e3 * p, 1e3 * q, 0.5 + 1.0j, 2400.0), rel=1e-5)


@pytest.mark.parametrize("method", CHOICES)
def test_beyond_the_nose_there_is_no_answer(method: str) -> None:
    result = power_flow(two_bus(p=301.0 * NOSE, q=100.0 * NOSE, v_min_pu=0.0), method=method)
    assert not result.converged[0]
    assert result.methods[0] in METHODS


# -- where the fixed point fails -------------------------------------------------------------------------------------

#: 24 times the load of the line, which has sagged onto the slope between impedance and constant power.
SAGGED = {"p": 7200.0, "q": -7200.0, "v_min_pu": 0.7, "v_low_pu": 0.5}
#: There the fixed point wanders, and whether it ends by chance (after 30 iterations, or 80, or not) is rounding's: it
#: differs from machine to machine. Within so many it never does; light steps and Newton's method need fewer.
FEW = 15


def within_few(case: Case, method: str = "auto") -> PowerFlow:
    """The power flow with so many iterations of a method."""
    p = nodal_problem(case)
    steps = case.horizon.n_steps
    return solve_power_flow(p.network, p.loads, p.sources, n_steps=steps, method=method, max_iterations=FEW)


def test_newton_takes_over_where_the_fixed_point_does_not_settle() -> None:
    case = two_bus(**SAGGED)
    result = within_few(case)
    assert result.all_converged
    assert result.methods == ("newton",)
    alone = power_flow(case, method="newton")
    assert alone.all_converged
    assert np.abs(alone.v - result.v).max() / 2400 < SAME_PU
    # the fixed point itself needs the whole admittance in its matrix, and says so
    assert within_few(case, "fixed-point").methods == ("compensation",)


def test_each_step_says_what_solved_it() -> None:
    case = two_bus(steps=3, profile="x", **SAGGED).with_(profiles={"x": np.array([0.01, 1.0, 0.02])})
    result = within_few(case)
    assert result.all_converged
    assert result.methods == ("fixed-point", "newton", "fixed-point")
    assert result.change_pu.max() < 1e-7
    for k, m in enumerate([0.01, 1.0, 0.02]):
        alone = power_flow(two_bus(**{**SAGGED, "p": 7200.0 * m, "q": -7200.0 * m}))
        assert alone.v[1, 0] == pytest.approx(result.v[1, k], rel=1e-7)


# -- laws on random networks -----------------------------------------------------------------------------------------


def with_loop(case: Case) -> Case:
    """One more line between the first and the last bus, on the conductors that both have."""
    first = next(b for b in case.feeder.buses if b.v_base_kv == case.feeder.buses[-1].v_base_kv)
    last = case.feeder.buses[-1]
    both = tuple(c for c in first.conductors if c in last.conductors)
    size = (last.v_base_kv / strategies.KV) ** 2
    r, x = 0.3 * size * np.eye(len(both)), 0.5 * size * np.eye(len(both))
    tie = Line(
        name="tie",
        bus_from=first.name,
        bus_to=last.name,
        conductors_from=both,
        conductors_to=both,
        r_ohm=r,
        x_ohm=x,
    )
    return case.with_(feeder=replace(case.feeder, lines=(*case.feeder.lines, tie)))


def apart(a: Case, b: Case, one: str, other: str) -> float:
    """Largest difference of the voltages that two methods find, pu."""
    x, y = (power_flow(c, method=m, tolerance_pu=TIGHT) for c, m in ((a, one), (b, other)))
    # a correction of 1e-11 pu is at the edge of doubles; ten times that is enough here
    assert x.change_pu.max() < 1e-9
    assert y.change_pu.max() < 1e-9
    return float(np.abs(x.v_pu - y.v_pu).max())


@RELAXED
@given(case=strategies.three_phase_cases(models=MODELS))
def test_newton_equals_the_fixed_point_on_radial_feeders(case: Case) -> None:
    assert apart(case, case, "newton", "fixed-point") < SAME_PU


@RELAXED
@given(case=strategies.three_phase_cases(models=MODELS).filter(lambda c: len(c.feeder.buses) > 2))
def test_newton_equals_the_fixed_point_on_meshed_feeders(case: Case) -> None:
    meshed = with_loop(case)
    assert apart(meshed, meshed, "newton", "fixed-point") < SAME_PU


@RELAXED
@given(case=strategies.three_phase_cases(models=MODELS))
def test_the_sweep_equals_the_fixed_point(case: Case) -> None:
    assert apart(case, case, "sweep", "fixed-point") < SAME_PU


@RELAXED
@given(case=strategies.balanced_cases(models=MODELS))
def test_balanced_feeders_by_every_method(case: Case) -> None:
    for method in ("newton", "sweep"):
        assert apart(case, case, method, "fixed-point") < SAME_PU


@RELAXED
@given(case=strategies.balanced_cases(models=MODELS, pvs=False, batteries=False).filter(lambda c: c.feeder.balanced))
def test_three_identical_phases_are_the_balanced_feeder(case: Case) -> None:
    wide = strategies.three_phases_of(case)
    for method in ("auto", "newton", "sweep"):
        one, three = power_flow(case, method=method), power_flow(wide, method=method)
        assert one.all_converged
        assert three.all_converged
        assert np.allclose(one.source_kva, three.source_kva, rtol=1e-6, atol=1e-5)
        place = three.index.position
        for k, (bus, _) in enumerate(one.index.nodes):
            for c in (1, 2, 3):
                assert np.allclose(three.vmag_pu[place[bus, c]], one.vmag_pu[k], atol=1e-7)


@RELAXED
@given(case=strategies.three_phase_cases(models=MODELS))
@pytest.mark.parametrize("method", ["auto", "newton", "sweep"])
def test_turning_the_phases_turns_the_voltages(method: str, case: Case) -> None:
    plain, turned = power_flow(case, method=method), power_flow(strategies.rotated(case), method=method)
    assert plain.all_converged
    assert turned.all_converged
    at = [turned.index.position[bus, c % 3 + 1] for bus, c in plain.index.nodes]
    assert np.abs(turned.v_pu[at] - plain.v_pu).max() < 1e-6


@RELAXED
@given(case=strategies.three_phase_cases(models=MODELS))
@pytest.mark.parametrize("method", ["auto", "newton", "sweep"])
def test_energy_closes(method: str, case: Case) -> None:
    result = power_flow(case, method=method)
    problem = nodal_problem(case)
    equations = equations_of(case)
    across = equations.ports @ result.v
    u = np.abs(across) / (1000.0 * problem.loads.v_rated_kv[:, None])
    drawn = np.sum(np.abs(across) ** 2 * problem.loads.factors(u).conj(), axis=0) / 1000
    assert result.source_kva.real == pytest.approx(drawn.real + result.losses_kw, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("method", ["auto", "newton", "sweep"])
def test_scaling_impedances_and_powers_keeps_voltages(method: str) -> None:
    a = power_flow(two_bus(p=300.0, q=100.0, z=0.5 + 1.0j), method=method)
    b = power_flow(two_bus(p=30.0, q=10.0, z=5.0 + 10.0j), method=method)
    assert np.allclose(a.v, b.v, rtol=1e-7)


# -- the sweep ---------------------------------------------------------------------------------------------------------


def test_a_sweep_is_a_start() -> None:
    case = lateral.read("ieee123")
    swept = power_flow(case, method="sweep")
    assert swept.all_converged
    assert set(swept.methods) == {"sweep"}
    result = power_flow(case, start=swept.v)
    assert result.all_converged
    assert result.iterations.max() <= 3 < power_flow(case).iterations.max()


def test_a_sweep_declines_what_is_not_radial() -> None:
    case = two_bus()
    line = case.feeder.lines[0]
    loop = case.with_(
        feeder=replace(
            case.feeder,
            buses=(*case.feeder.buses, Bus(name="c", conductors=(1,), v_base_kv=2.4)),
            lines=(line, replace(line, name="m", bus_from="b", bus_to="c"), replace(line, name="n", bus_to="c")),
        )
    )
    assert power_flow(loop).all_converged
    assert power_flow(loop, method="newton").all_converged
    with pytest.raises(UnsupportedError, match="PF-003 not radial"):
        power_flow(loop, method="sweep")
    ring = case.with_(devices=(*case.devices, replace(case.devices[0], name="h", bus="b")))
    with pytest.raises(UnsupportedError, match="PF-003"):
        power_flow(ring, method="sweep")
    soft = replace(case.devices[0], r_ohm=[[1.0]])
    twice = case.with_(devices=(soft, replace(soft, name="h"), case.devices[1]))
    assert power_flow(twice).all_converged
    with pytest.raises(UnsupportedError, match="two sources"):
        power_flow(twice, method="sweep")


def test_a_sweep_declines_a_neutral_that_hangs_on_ground_alone() -> None:
    buses = tuple(Bus(name=n, conductors=(1, 4), v_base_kv=2.4) for n in "sb")
    line = Line(
        name="l",
        bus_from="s",
        bus_to="b",
        conductors_from=(1, 4),
        conductors_to=(1, 4),
        r_ohm=np.diag([0.5, 0.5]),
        x_ohm=np.diag([1.0, 1.0]),
    )
    source = Source(name="g", bus="s", conductors=(1,), angle_deg=(0.0,))
    load = Load(name="d", bus="b", terminals=(1, 4), p_kw=30.0, model="constant_impedance")
    ground = Load(name="e", bus="s", terminals=(4, 0), p_kw=1e3, model="constant_impedance")
    case = Case(
        name="n",
        feeder=Feeder(buses=buses, lines=(line,)),
        devices=(source, load, ground),
        horizon=two_bus().horizon,
    )
    assert power_flow(case).all_converged
    with pytest.raises(UnsupportedError, match="PF-003"):
        power_flow(case, method="sweep")


def test_dead_nodes_stay_dead_in_every_method() -> None:
    case = two_bus()
    far = tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4) for n in ("far", "away"))
    more = replace(case.feeder.lines[0], name="m", bus_from="far", bus_to="away")
    feeder = replace(case.feeder, buses=(*case.feeder.buses, *far), lines=(*case.feeder.lines, more))
    dark = case.with_(feeder=feeder, devices=(*case.devices, Load(name="lost", bus="away", p_kw=50.0)))
    for method in CHOICES:
        result = power_flow(dark, method=method)
        assert result.all_converged
        assert np.array_equal(result.v[2:], np.zeros((2, 1)))
        assert result.energized.tolist() == [True, True, False, False]


# -- options -----------------------------------------------------------------------------------------------------------


def test_a_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(OptionError, match="newton"):
        power_flow(two_bus(), method="newtn")
    problem = nodal_problem(two_bus())
    with pytest.raises(OptionError, match="branches"):
        solve_power_flow(problem.network, problem.loads, problem.sources, n_steps=1, method="sweep")


def test_currents_put_into_nodes_count_in_every_method() -> None:
    case = two_bus()
    problem = nodal_problem(case.with_(devices=case.devices[:1]))
    injected = np.zeros((2, 1), dtype=complex)
    injected[1] = -50.0 + 20.0j
    branches = radial_network(case.feeder, [("s", 1)], case.base)
    for method in CHOICES:
        result = solve_power_flow(
            problem.network,
            problem.loads,
            problem.sources,
            n_steps=1,
            method=method,
            injected=injected,
            radial=(branches, case.base),
        )
        assert result.all_converged
        assert result.v[1, 0] == pytest.approx(2400.0 + (0.5 + 1.0j) * injected[1, 0], rel=1e-9)
