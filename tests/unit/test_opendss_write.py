"""The OpenDSS writer, against the nodal matrix of the case solved here by fixed-point iteration."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Regulator, Source
from lateral.devices.base import ShuntDevice
from lateral.errors import CaseError, UnsupportedError
from lateral.io.dispatch import Dispatch
from lateral.io.opendss.write import render_opendss, write_opendss
from lateral.network.admittance import NodeIndex, capacitor_admittance, nodal_matrix
from lateral.network.feeder import Bus, Feeder, Line, Shunt, Switch, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import ComplexArray
from lateral.replay import replay

KV = 12.47 / math.sqrt(3.0)
Z3 = np.array([[0.4576, 0.1560, 0.1535], [0.1560, 0.4666, 0.1580], [0.1535, 0.1580, 0.4615]])
X3 = np.array([[1.0780, 0.5017, 0.3849], [0.5017, 1.0482, 0.4236], [0.3849, 0.4236, 1.0651]])
B3 = np.array([[6.298, -1.996, -1.259], [-1.996, 5.960, -0.742], [-1.259, -0.742, 5.639]])
ABC = (1, 2, 3)


def three_phase_source(**changes: object) -> Source:
    given = {
        "name": "grid",
        "bus": "sub",
        "conductors": ABC,
        "v_pu": 1.02,
        "angle_deg": (0.0, -120.0, 120.0),
        "r_ohm": np.zeros((3, 3)),
        "x_ohm": np.zeros((3, 3)),
    }
    return Source(**{**given, **changes})  # type: ignore[arg-type]


def line(name: str, a: str, b: str, conductors: tuple[int, ...] = ABC) -> Line:
    k = np.array([c - 1 for c in conductors])
    at = np.ix_(k, k)
    return Line(
        name=name,
        bus_from=a,
        bus_to=b,
        conductors_from=conductors,
        conductors_to=conductors,
        r_ohm=Z3[at],
        x_ohm=X3[at],
        b_us=B3[at],
    )


def case_of(feeder: Feeder, *devices: object, n_steps: int = 1, **more: object) -> Case:
    return Case(
        name="test case",
        feeder=feeder,
        devices=devices,  # type: ignore[arg-type]
        horizon=Horizon.regular(n_steps),
        **more,  # type: ignore[arg-type]
    )


def buses(*names: str, kv: float = KV, conductors: tuple[int, ...] = ABC) -> list[Bus]:
    return [Bus(name=n, conductors=conductors, v_base_kv=kv) for n in names]


def solve_nodal(case: Case, *, zeroed: bool = True) -> tuple[NodeIndex, ComplexArray]:
    """Voltages, pu, of a one-step case of constant-power loads: V = Y^-1 (source + I(V)), iterated."""
    index = NodeIndex.of(case.feeder)
    y = nodal_matrix(case.feeder, index).toarray()
    for c in case.capacitors:
        conductors, yc = capacitor_admittance(c, case.feeder.bus[c.bus].v_base_kv)
        at = index.rows(c.bus, conductors)
        y[np.ix_(at, at)] += yc
    injected = np.zeros(len(index), dtype=complex)
    for s in case.sources:
        z = s.r_ohm + 1j * s.x_ohm
        ys = np.linalg.inv(z if np.any(z) else 1e-7j * np.eye(len(z)))
        at = index.rows(s.bus, s.conductors)
        e = 1e3 * case.feeder.bus[s.bus].v_base_kv * float(s.v_pu) * np.exp(1j * np.radians(s.angle_deg))
        y[np.ix_(at, at)] += ys
        injected[at] += ys @ e
    dispatch = Dispatch.baseline(case)
    v = np.linalg.solve(y, injected)
    for _ in range(200):
        i = injected.copy()
        for d in case.devices:
            if not isinstance(d, ShuntDevice) or isinstance(d, Capacitor):
                continue
            if isinstance(d, Load):
                s_va = -1e3 * complex(d.p_kw, d.q_kvar)
            else:
                s_va = 1e3 * complex(dispatch.p(d.label)[0], dispatch.q(d.label)[0])
            for a, b in d.ports:
                ka, kb = index.rows(d.bus, (a, b))
                u = (v[ka] if ka >= 0 else 0.0) - (v[kb] if kb >= 0 else 0.0)
                current = np.conj(s_va / len(d.ports) / u)
                if ka >= 0:
                    i[ka] += current
                if kb >= 0:
                    i[kb] -= current
        v = np.linalg.solve(y, i)
    return index, v / (1e3 * index.v_base_kv)


def assert_replays(case: Case, tolerance: float = 1e-7) -> None:
    index, v = solve_nodal(case)
    r = replay(case)
    assert r.all_converged
    assert r.nodes == index.nodes
    assert np.abs(r.v[:, 0] - v).max() < tolerance


def test_line_with_charging_unbalanced_wye_and_delta_loads() -> None:
    feeder = Feeder(
        buses=(*buses("sub", "a"), *buses("b", conductors=(1, 3))),
        lines=(line("l1", "sub", "a"), line("l2", "a", "b", (1, 3))),
    )
    assert_replays(
        case_of(
            feeder,
            three_phase_source(),
            Load(name="wye", bus="a", p_kw=900, q_kvar=300, terminals=(1, 2, 3, 0)),
            Load(name="one", bus="a", p_kw=200, q_kvar=80, terminals=(2, 0)),
            Load(name="delta", bus="a", p_kw=400, q_kvar=100, terminals=ABC, connection="delta"),
            Load(name="leg", bus="a", p_kw=150, q_kvar=-40, terminals=(2, 3), connection="delta"),
            Load(name="open", bus="a", p_kw=100, q_kvar=20, terminals=ABC, connection="delta-open"),
            Load(name="pair", bus="b", p_kw=100, q_kvar=20, terminals=(1, 3), connection="wye"),
            Load(name="two", bus="b", p_kw=100, q_kvar=20, terminals=(1, 3, 0), connection="wye"),
            PV(name="pv", bus="b", p_rated_kw=50, s_max_kva=60, terminals=(3, 0)),
            Battery(
                name="b", bus="a", p_charge_max_kw=5, p_discharge_max_kw=5, s_max_kva=6, energy_kwh=10, terminals=(1, 0)
            ),
        )
    )


@pytest.mark.parametrize("kind", ["zero", "circulant", "diagonal", "general"])
def test_source_impedance(kind: str) -> None:
    r, x = {
        "zero": (np.zeros((3, 3)), np.zeros((3, 3))),
        "circulant": (0.1 + 0.2 * np.eye(3), 0.3 + 0.9 * np.eye(3)),
        "diagonal": (np.diag([0.1, 0.2, 0.3]), np.diag([1.0, 1.1, 1.2])),
        "general": (Z3, X3),
    }[kind]
    case = case_of(
        Feeder(buses=tuple(buses("sub", "a")), lines=(line("l1", "sub", "a"),)),
        three_phase_source(r_ohm=r, x_ohm=x, angle_deg=(5.0, -115.0, 125.0)),
        Load(name="one", bus="a", p_kw=1200, q_kvar=480, terminals=(2, 0)),
    )
    assert_replays(case)
    # the source's impedance belongs to the source, whichever way it is written
    rep = replay(case)
    assert rep.p_source_kw[0] == pytest.approx(1200 + rep.losses_kw[0], abs=1e-2)


def test_source_with_odd_angles_and_two_conductors() -> None:
    case = case_of(
        Feeder(buses=tuple(buses("sub", "a", conductors=(1, 2))), lines=(line("l1", "sub", "a", (1, 2)),)),
        Source(
            name="grid",
            bus="sub",
            conductors=(1, 2),
            angle_deg=(0.0, 180.0),
            r_ohm=np.zeros((2, 2)),
            x_ohm=np.zeros((2, 2)),
        ),
        Load(name="one", bus="a", p_kw=300, q_kvar=80, terminals=(1, 2), v_rated_kv=2 * KV),
    )
    assert_replays(case)


def _transformer(*windings: Winding, n_phases: int = 3, x: tuple[float, ...] = (6.0,), **more: object) -> Transformer:
    return Transformer(name="t", n_phases=n_phases, windings=windings, x_percent=x, **more)  # type: ignore[arg-type]


def _w(bus: str, terminals: tuple[int, ...], kv: float, conn: str = "wye", **more: float) -> Winding:
    return Winding(
        bus=bus, terminals=terminals, connection=conn, v_rated_kv=kv, **{"s_rated_kva": 2500, "r_percent": 0.6} | more
    )


TRANSFORMERS = {
    "Dy": (_w("a", ABC, 12.47, "delta"), _w("lv", (1, 2, 3, 0), 4.16)),
    "Yd": (_w("a", (1, 2, 3, 0), 12.47), _w("lv", ABC, 4.16, "delta")),
    "Dd": (_w("a", ABC, 12.47, "delta"), _w("lv", ABC, 4.16, "delta")),
    "Yy tap": (_w("a", (1, 2, 3, 0), 12.47), _w("lv", (1, 2, 3, 0), 4.16, tap=1.05)),
    "Yy far tap": (_w("a", (1, 2, 3, 0), 12.47), _w("lv", (1, 2, 3, 0), 4.16, tap=1.23456789012345)),
    "isolated": (_w("a", (1, 2, 3, -1), 12.47), _w("lv", ABC, 4.16, "delta")),
}


@pytest.mark.parametrize("lead", [False, True])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers(kind: str, lead: bool) -> None:
    t = _transformer(
        *TRANSFORMERS[kind], delta_lead=lead, no_load_loss_percent=0.3, magnetizing_percent=0.7, bank="unit 1"
    )
    feeder = Feeder(
        buses=(*buses("sub", "a"), *buses("lv", kv=4.16 / math.sqrt(3))),
        lines=(line("l1", "sub", "a"),),
        transformers=(t,),
    )
    case = case_of(
        feeder,
        three_phase_source(),
        Load(name="d", bus="lv", p_kw=600, q_kvar=200, terminals=ABC, connection="delta"),
        Load(name="p", bus="lv", p_kw=150, q_kvar=50, terminals=(1, 2), connection="delta"),
        Regulator(name="r", transformer="t", tap_min=0.8, tap_max=1.3),
    )
    assert_replays(case, 1e-6)
    assert replay(case).taps == {"t": tuple(w.tap for w in t.windings)}


def test_two_isolated_neutrals_at_one_bus_and_fifty_hertz() -> None:
    t1 = _transformer(_w("a", (1, 2, 3, -1), 12.47), _w("lv", ABC, 4.16, "delta"))
    t2 = dataclasses.replace(t1, name="t2", x_percent=(4.0,))
    feeder = Feeder(
        buses=(*buses("sub", "a"), *buses("lv", kv=4.16 / math.sqrt(3))),
        lines=(line("l1", "sub", "a"),),
        transformers=(t1, t2),
        frequency_hz=50.0,
    )
    load = Load(name="d", bus="lv", p_kw=600, q_kvar=200, terminals=(1, 2), connection="delta")
    assert_replays(case_of(feeder, three_phase_source(), load), 1e-6)


@pytest.mark.parametrize("n", [3, 4])
def test_three_and_four_windings(n: int) -> None:
    windings = [
        _w("a", ABC, 12.47, "delta"),
        _w("b", (1, 2, 3, 0), 4.16),
        _w("c", (1, 2, 3, 0), 0.48, r_percent=0.9),
        _w("d", ABC, 0.6, "delta"),
    ][:n]
    x = (6.0, 7.0, 3.5) if n == 3 else (6.0, 7.0, 8.0, 3.5, 4.0, 4.5)
    volts = [("b", 4.16), ("c", 0.48), ("d", 0.6)][: n - 1]
    feeder = Feeder(
        buses=(*buses("sub", "a"), *(buses(name, kv=kv / math.sqrt(3))[0] for name, kv in volts)),
        lines=(line("l1", "sub", "a"),),
        transformers=(_transformer(*windings, x=x),),
    )
    loads = [Load(name=name, bus=name, p_kw=300, q_kvar=100, terminals=(1, 2), connection="delta") for name, _ in volts]
    assert_replays(case_of(feeder, three_phase_source(), *loads), 1e-6)


def test_two_phases_open_wye_open_delta() -> None:
    t = _transformer(_w("a", (1, 2, 0), 12.47, tap=1.0125), _w("lv", (1, 2, 3), 4.16, "delta"), n_phases=2)
    y = _transformer(_w("a", (2, 3, 0), 12.47), _w("lw", (2, 3, 0), 4.16), n_phases=2)
    feeder = Feeder(
        buses=(
            *buses("sub", "a"),
            *buses("lv", kv=4.16 / math.sqrt(3)),
            *buses("lw", kv=4.16 / math.sqrt(3), conductors=(2, 3)),
        ),
        lines=(line("l1", "sub", "a"),),
        transformers=(t, dataclasses.replace(y, name="u")),
    )
    case = case_of(
        feeder,
        three_phase_source(),
        Load(name="d", bus="lv", p_kw=300, q_kvar=100, terminals=(1, 2), connection="delta"),
        Load(name="e", bus="lv", p_kw=100, q_kvar=30, terminals=ABC, connection="delta"),
        Load(name="w", bus="lw", p_kw=200, q_kvar=30, terminals=(2, 3, 0)),
    )
    assert_replays(case, 1e-6)


def test_four_wires_and_a_grounding_shunt() -> None:
    four = (1, 2, 3, 4)
    z = np.pad(Z3, (0, 1), constant_values=0.15) + np.diag([0, 0, 0, 0.5])
    x = np.pad(X3, (0, 1), constant_values=0.4) + np.diag([0, 0, 0, 0.9])
    wire = Line(
        name="l", bus_from="sub", bus_to="a", conductors_from=four, conductors_to=four, r_ohm=z, x_ohm=x, i_max_a=300
    )
    ground = {"g_us": [[2e5]], "b_us": [[-1e4]], "conductors": (4,)}
    feeder = Feeder(
        buses=tuple(buses("sub", "a", conductors=four)),
        lines=(wire,),
        shunts=(Shunt(name="g1", bus="sub", **ground), Shunt(name="g2", bus="a", **ground)),
    )
    case = case_of(
        feeder,
        three_phase_source(),
        Load(name="y", bus="a", p_kw=900, q_kvar=300, terminals=(1, 2, 3, 4)),
        Load(name="n", bus="a", p_kw=200, q_kvar=50, terminals=(2, 4)),
        Capacitor(name="c", bus="a", q_kvar=300, terminals=(1, 2, 3, 4)),
    )
    assert_replays(case)


def test_neutral_conductor_with_impedance() -> None:
    t = _transformer(_w("a", ABC, 12.47, "delta"), _w("lv", (1, 2, 3, 4), 4.16, r_neutral_ohm=2.0, x_neutral_ohm=0.5))
    feeder = Feeder(
        buses=(*buses("sub", "a"), Bus(name="lv", conductors=(1, 2, 3, 4), v_base_kv=4.16 / math.sqrt(3))),
        lines=(line("l1", "sub", "a"),),
        transformers=(t,),
    )
    case = case_of(feeder, three_phase_source(), Load(name="n", bus="lv", p_kw=200, q_kvar=50, terminals=(2, 4)))
    assert_replays(case, 1e-6)


def test_center_tap() -> None:
    t = Transformer(
        name="t",
        n_phases=1,
        windings=(
            _w("a", (2, 0), KV, s_rated_kva=50),
            _w("lv", (1, 0), 0.12, s_rated_kva=50, r_percent=1.2),
            _w("lv", (0, 2), 0.12, s_rated_kva=50, r_percent=1.2),
        ),
        x_percent=(2.04, 2.04, 1.36),
    )
    feeder = Feeder(
        buses=(*buses("sub", "a"), *buses("lv", kv=0.12, conductors=(1, 2))),
        lines=(line("l1", "sub", "a"),),
        transformers=(t,),
    )
    case = case_of(
        feeder,
        three_phase_source(),
        Load(name="x", bus="lv", p_kw=11, q_kvar=3, terminals=(1, 0)),
        Load(name="y", bus="lv", p_kw=6, q_kvar=2, terminals=(2, 0)),
        Load(name="z", bus="lv", p_kw=9, q_kvar=2, terminals=(1, 2), v_rated_kv=0.24),
    )
    assert_replays(case, 1e-6)


def test_switches_shunts_and_capacitors() -> None:
    short = {"r_ohm": 1e-3 * np.eye(3), "x_ohm": 2e-3 * np.eye(3)}
    ends = {"conductors_from": ABC, "conductors_to": ABC}
    g = np.diag([4.0, 3.0, 2.0]) - 0.5
    b = np.array([[30.0, -10.0, -20.0], [-10.0, 10.0, 0.0], [-20.0, 0.0, 20.0]])  # singular: a delta
    feeder = Feeder(
        buses=tuple(buses("sub", "a", "b")),
        lines=(line("l1", "sub", "a"),),
        switches=(
            Switch(name="s1", bus_from="a", bus_to="b", closed=True, **short, **ends),
            Switch(name="s2", bus_from="sub", bus_to="b", closed=False, **short, **ends),
        ),
        shunts=(
            Shunt(name="y1", bus="b", conductors=ABC, g_us=g, b_us=b),
            Shunt(name="y2", bus="b", conductors=(2,), g_us=np.zeros((1, 1)), b_us=np.array([[-50.0]])),
        ),
    )
    case = case_of(
        feeder,
        three_phase_source(),
        Capacitor(name="y", bus="b", q_kvar=600, terminals=(1, 2, 3, 0)),
        Capacitor(name="d", bus="b", q_kvar=300, terminals=ABC, connection="delta"),
        Capacitor(name="l", bus="b", q_kvar=100, terminals=(2, 3), connection="delta"),
        Capacitor(name="o", bus="b", q_kvar=100, terminals=ABC, connection="delta-open"),
        Capacitor(name="p", bus="b", q_kvar=50, terminals=(3, 0)),
        Capacitor(name="r", bus="b", q_kvar=50, terminals=(1, 0), v_rated_kv=7.6),
        Load(name="one", bus="b", p_kw=700, q_kvar=480, terminals=(2, 0)),
    )
    assert_replays(case)


@pytest.mark.parametrize(
    ("changes", "p_expected", "q_expected"),
    [
        ({"model": "constant_power"}, 1.0, 1.0),
        ({"model": "constant_impedance"}, 0.81, 0.81),
        ({"model": "constant_power_quadratic_q"}, 1.0, 0.81),
        ({"model": "cvr", "cvr_p": 0.8, "cvr_q": 3.0}, 0.9**0.8, 0.9**3),
        ({"model": "constant_current"}, 0.9, 0.9),
        ({"model": "zip", "zip_p": (0.5, 0.3, 0.2), "zip_q": (0.1, 0.2, 0.7)}, 0.875, 0.961),
        ({"model": "constant_power", "v_min_pu": 0.95}, (0.9 / 0.95) ** 2, (0.9 / 0.95) ** 2),
    ],
)
def test_load_models(changes: dict[str, object], p_expected: float, q_expected: float) -> None:
    feeder = Feeder(buses=(Bus(name="sub", conductors=(1,), v_base_kv=2.4),))
    given = {"v_low_pu": 0.9} if "v_min_pu" in changes else {}
    load = Load(name="x", bus="sub", p_kw=100, q_kvar=40, v_rated_kv=2.4, **given, **changes)  # type: ignore[arg-type]
    r = replay(case_of(feeder, Source(name="s", bus="sub", v_pu=0.9), load))
    if "v_min_pu" not in changes:
        assert r.p_source_kw[0] == pytest.approx(100 * p_expected, rel=1e-6)
        assert r.q_source_kvar[0] == pytest.approx(40 * q_expected, rel=1e-5)
    else:
        assert r.p_source_kw[0] < 100 - 1


def test_profiles_models_6_and_7() -> None:
    feeder = Feeder(buses=(Bus(name="sub", conductors=(1,), v_base_kv=2.4),))
    case = case_of(
        feeder,
        Source(name="s", bus="sub", v_pu="volt"),
        Load(name="a", bus="sub", p_kw=100, q_kvar=40, profile="p", profile_q="q"),
        Load(name="b", bus="sub", p_kw=10, q_kvar=4, profile="p"),
        Load(name="c", bus="sub", p_kw=1, q_kvar=0.5, profile="p", model="constant_power_fixed_q"),
        Load(name="d", bus="sub", p_kw=2, q_kvar=0.5, profile="p", model="constant_power_fixed_q_impedance"),
        Load(name="e", bus="sub", p_kw=5, q_kvar=3),
        Load(name="f", bus="sub", p_kw=7, q_kvar=2, profile_q="q"),
        n_steps=3,
        profiles={"p": np.array([0.5, 1.0, 1.5]), "q": np.array([1.0, 0.1, -0.2]), "volt": np.array([1, 1.02, 0.98])},
    )
    p, q, v = (case.profiles[n] for n in ("p", "q", "volt"))
    r = replay(case)
    assert r.v_pu[0] == pytest.approx(v, abs=1e-8)
    assert r.p_source_kw == pytest.approx(113 * p + 5 + 7, rel=1e-7)
    assert r.q_source_kvar == pytest.approx(40 * q + 4 * p + 0.5 + 0.5 * v**2 + 3 + 2 * q, rel=1e-5)


def small() -> Case:
    bus = Bus(name="Bus 1.a=é", conductors=(1,), v_base_kv=2.4, x=1.5, y=-2.25)
    other = Bus(name="bus_1_a__", conductors=(1,), v_base_kv=2.4)
    wire = Line(
        name="l 1",
        bus_from=bus.name,
        bus_to=other.name,
        conductors_from=(1,),
        conductors_to=(1,),
        r_ohm=[[0.1]],
        x_ohm=[[0.2]],
    )
    return case_of(
        Feeder(buses=(bus, other), lines=(wire,)),
        Source(name="s", bus=bus.name),
        Load(name="x !// y", bus=other.name, p_kw=10, profile="day shape"),
        PV(name="x", bus=other.name, p_rated_kw=5, s_max_kva=6, profile="day shape"),
        Battery(
            name="x",
            bus=other.name,
            p_charge_max_kw=5,
            p_discharge_max_kw=5,
            s_max_kva=6,
            energy_kwh=10,
            q_control="none",
        ),
        n_steps=2,
        profiles={"day shape": np.array([0.5, 1.0])},
    )


def solve_files(master: Path, steps: int) -> list[dict[str, complex]]:
    import dss

    engine = dss.DSS.NewContext()
    engine.AllowChangeDir = False
    engine.Text.Command = f'Compile "{master}"'
    out = []
    for _ in range(steps):
        engine.ActiveCircuit.Solution.Solve()
        assert engine.ActiveCircuit.Solution.Converged
        names = [n.lower() for n in engine.ActiveCircuit.YNodeOrder]
        out.append(dict(zip(names, np.asarray(engine.ActiveCircuit.YNodeVarray).view(complex), strict=True)))
    return out


def test_folder_compiles_with_odd_names_and_equals_the_replay(tmp_path: Path) -> None:
    case = small()
    master = write_opendss(case, tmp_path / "out dir" / "case")
    steps = solve_files(master, 2)
    r = replay(case)
    names = render_opendss(case).names.bus
    assert len(set(names.values())) == 2
    for k, node in enumerate(r.nodes):
        for t in range(2):
            assert steps[t][f"{names[node[0]]}.{node[1]}"] / 2400 == pytest.approx(r.v[k, t], abs=1e-9)
    assert "1.5, -2.25" in (master.parent / "buscoords.csv").read_text()
    assert "pv.x,Load.pv_x" in (master.parent / "names.csv").read_text()


def test_native_flavour_solves_to_the_same(tmp_path: Path) -> None:
    case = small()
    d = Dispatch(
        p_kw={"pv.x": np.array([2.0, 4.0]), "battery.x": np.array([-3.0, 4.0])},
        q_kvar={"pv.x": np.array([1.0, 1.0])},
    )
    exact = solve_files(write_opendss(case, tmp_path / "a", dispatch=d), 2)
    native = solve_files(write_opendss(case, tmp_path / "b", dispatch=d, der="native"), 2)
    for a, b in zip(exact, native, strict=True):
        for name in a:
            assert abs(a[name] - b[name]) / 2400 < 1e-6, name


def test_reactive_power_of_the_native_flavour_follows_the_schedule(tmp_path: Path) -> None:
    """No shape of a PVSystem or a Storage has kvar: steps.dss sets them; the master has those of the first step."""
    import dss

    case = small()
    d = Dispatch(
        p_kw={"pv.x": np.array([2.0, 3.0]), "battery.x": np.array([-3.0, 3.0])},
        q_kvar={"pv.x": np.array([1.0, -3.0]), "battery.x": np.array([2.0, -2.0])},
    )
    folder = tmp_path / "native"
    master = write_opendss(case, folder, dispatch=d, der="native")
    exact = solve_files(write_opendss(case, tmp_path / "load", dispatch=d), 2)
    assert not (tmp_path / "load" / "steps.dss").exists()
    assert "! No shape has kvar of PVSystem and Storage objects" in master.read_text()
    first = solve_files(master, 1)[0]
    assert all(abs(exact[0][name] - v) / 2400 < 1e-6 for name, v in first.items())
    engine = dss.DSS.NewContext()
    engine.AllowForms = False
    engine.Text.Command = f'Redirect "{master}"'
    engine.Text.Command = f'Redirect "{folder / "steps.dss"}"'
    circuit = engine.ActiveCircuit
    last = dict(zip(map(str.lower, circuit.YNodeOrder), np.asarray(circuit.YNodeVarray).view(complex), strict=True))
    for name, v in exact[1].items():
        assert abs(v - last[name]) / 2400 < 1e-6, name
    engine.Text.Command = "ClearAll"


def test_overwrites_only_what_is_ours(tmp_path: Path) -> None:
    case = small()
    folder = tmp_path / "case"
    write_opendss(case, folder)
    (folder / "notes.txt").write_text("keep me")
    write_opendss(dataclasses.replace(case, name="other"), folder)
    assert "case other" in (folder / "master.dss").read_text()
    assert (folder / "notes.txt").read_text() == "keep me"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case"]
    alien = tmp_path / "alien"
    alien.mkdir()
    (alien / "thesis.tex").write_text("x")
    with pytest.raises(CaseError, match="IO-063"):
        write_opendss(case, alien)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CaseError, match="IO-063"):
        write_opendss(case, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert write_opendss(case, tmp_path / "empty").is_file()


def test_every_fault_at_once() -> None:
    case = small()
    bad = case.with_(
        devices=(
            *case.devices,
            Load(name="nan", bus="bus_1_a__", p_kw=float("nan")),
            Load(name="lost", bus="nowhere", p_kw=1.0),
        )
    )
    with pytest.raises(CaseError) as caught:
        render_opendss(bad)
    assert [f.element for f in caught.value.faults] == ["load.nan", "load.lost"]
    d = Dispatch(p_kw={"pv.x": np.ones(3), "pv.y": np.ones(2)}, q_kvar={})
    with pytest.raises(CaseError) as caught:
        render_opendss(case, dispatch=d)
    assert sorted(f.code.split()[0] for f in caught.value.faults) == ["IO-060", "IO-061", "IO-062"]


def test_a_foreign_device_is_declined() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Heater(Load):
        pass

    case = small()
    with pytest.raises(UnsupportedError, match="Heater"):
        render_opendss(case.with_(devices=(*case.devices, Heater(name="h", bus="bus_1_a__", p_kw=1.0))))


def test_own_files_read_back(tmp_path: Path) -> None:
    """Case -> files -> case: the same voltages, PV and batteries included when written as such."""
    from lateral.io.opendss.read import read

    feeder = Feeder(
        buses=(*buses("sub", "a"), *buses("lv", kv=4.16 / math.sqrt(3)), *buses("b")),
        lines=(line("l1", "sub", "a"),),
        switches=(
            Switch(
                name="s1",
                bus_from="a",
                bus_to="b",
                conductors_from=ABC,
                conductors_to=ABC,
                r_ohm=1e-3 * np.eye(3),
                x_ohm=2e-3 * np.eye(3),
                i_max_a=200.0,
            ),
        ),
        transformers=(_transformer(*TRANSFORMERS["Yy tap"]),),
        shunts=(Shunt(name="y", bus="b", conductors=(2,), g_us=[[1.0]], b_us=[[-50.0]]),),
    )
    case = case_of(
        feeder,
        three_phase_source(r_ohm=0.1 + 0.2 * np.eye(3), x_ohm=0.3 + 0.9 * np.eye(3)),
        Load(name="d", bus="lv", p_kw=600, q_kvar=200, terminals=ABC, connection="delta"),
        Capacitor(name="y", bus="b", q_kvar=300, terminals=(1, 2, 3, 0)),
        Regulator(name="r", transformer="t", ldc_r=3.0),
        PV(name="p", bus="lv", p_rated_kw=90, s_max_kva=100, terminals=(1, 2, 3, 0)),
        Battery(
            name="b",
            bus="lv",
            p_charge_max_kw=50,
            p_discharge_max_kw=50,
            s_max_kva=60,
            energy_kwh=200,
            soc_min=0.2,
            eta_charge=0.9,
            terminals=(1, 2, 3, 0),
        ),
    )
    for flavour in ("load", "native"):
        back, _ = read(write_opendss(case, tmp_path / flavour, der=flavour))  # type: ignore[arg-type]
        assert len(back.feeder.switches) == 1
        assert back.feeder.switches[0].i_max_a == 200.0
        assert back.feeder.lines[0].i_max_a == math.inf
        assert back.feeder.transformers[0].windings[1].tap == 1.05
        assert back.regulators[0].ldc_r == 3.0
        assert len(back.pvs) == len(back.batteries) == (1 if flavour == "native" else 0)
        if flavour == "native":
            assert back.pvs[0].p_rated_kw == pytest.approx(90)
            assert back.batteries[0].energy_kwh == 200
            assert back.batteries[0].eta_charge == pytest.approx(0.9)
            assert back.batteries[0].soc_min == pytest.approx(0.2)
        a, b = replay(case), replay(back)
        at = [b.nodes.index(n) for n in a.nodes]
        assert np.abs(a.v[:, 0] - b.v[at, 0]).max() < 1e-7, flavour
