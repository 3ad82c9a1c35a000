"""Built-in cases against numbers that can be checked by hand, and against the published tables where they are."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.devices import PV, Battery
from lateral.errors import CaseError, OptionError
from lateral.io import builtin, read
from lateral.io.builtin import published, tree

SHARED = Path(os.environ.get("LATERAL_SHARED", Path(__file__).parents[2].parent / "shared"))
BALANCED = SHARED / "data" / "ieee123_balanced"
REFERENCE = SHARED / "feeders" / "reference"


def sweep(case: Case) -> tuple[float, float]:
    """Loss in kW and lowest voltage in pu of a balanced tree at rated load, by a plain backward/forward sweep."""
    feeder = case.feeder
    n_phases, source = feeder.n_phases, case.sources[0]
    above = {b.bus_to: b for b in feeder.lines}
    order = [b.name for b in feeder.buses if b.name in above]
    position = {b.name: k for k, b in enumerate(feeder.buses)}
    assert all(position[above[b].bus_from] < position[b] for b in order), "parents come first"
    base = {b.name: 1000.0 * b.v_base_kv for b in feeder.buses}
    draw = {b.name: 0j for b in feeder.buses}
    for load in case.loads:
        draw[load.bus] += 1000.0 * complex(load.p_kw, load.q_kvar) / n_phases
    v = dict.fromkeys(draw, complex(float(source.v_pu) * base[source.bus]))
    current: dict[str, complex] = {}
    for _ in range(60):
        current = {b: (draw[b] / v[b]).conjugate() for b in draw}
        for b in reversed(order):
            current[above[b].bus_from] += current[b]
        for b in order:
            line = above[b]
            v[b] = v[line.bus_from] - complex(line.r_ohm[0, 0], line.x_ohm[0, 0]) * current[b]
    loss = sum(above[b].r_ohm[0, 0] * abs(current[b]) ** 2 for b in order) * n_phases / 1000.0
    return loss, min(abs(v[b]) / base[b] for b in v)


@pytest.mark.parametrize("name", builtin.names())
def test_every_builtin_is_as_described_and_sound(name: str) -> None:
    case = builtin.load(name)
    described = {d.name: d for d in builtin.describe()}[name]
    assert (len(case.feeder.buses), case.horizon.n_steps) == (described.n_buses, described.n_steps)
    assert case.name == name
    assert case.hash == builtin.load(name).hash
    assert check(case) == ()
    assert case.notes
    assert all(len(values) == described.n_steps for values in case.profiles.values())


@pytest.mark.parametrize("n_steps", [5, 10, 24])
def test_published_totals(n_steps: int) -> None:
    case = builtin.load(f"ieee123-t{n_steps}")
    assert sum(d.p_kw for d in case.loads) == pytest.approx(1163.197)
    assert sum(d.q_kvar for d in case.loads) == pytest.approx(640.012)
    assert len(case.loads) == 85
    assert (len(case.pvs), round(sum(d.p_rated_kw for d in case.pvs), 3)) == (17, 76.990)
    assert (len(case.batteries), round(sum(d.p_charge_max_kw for d in case.batteries), 3)) == (26, 131.818)
    assert sum(d.energy_kwh for d in case.batteries) == pytest.approx(527.27, abs=0.005)
    q_box = sum((d.s_max_kva**2 - d.p_charge_max_kw**2) ** 0.5 for d in case.batteries)
    assert q_box == pytest.approx(87.44, abs=0.005)
    assert sum(d.q_kvar for d in case.capacitors) == (0 if n_steps == 24 else 350)
    assert {d.model for d in case.capacitors} <= {"constant_power"}
    assert {d.limit for d in (*case.pvs, *case.batteries)} == {"disc" if n_steps == 24 else "box"}
    assert not any(d.curtailable for d in case.pvs)
    assert case.sources[0].p_export_max_kw == 0.0
    assert case.sources[0].v_pu == 1.03
    assert case.base.z_ohm(case.feeder.buses[0].v_base_kv) == pytest.approx(5.7685, abs=5e-5)
    assert case.alpha_usd_per_kwh == 1e-6


def test_published_areas_are_joined_at_three_ties() -> None:
    case = builtin.load("ieee123-t5")
    sizes = {a: list(case.areas.values()).count(a) for a in "1234"}
    assert sizes == {"1": 39, "2": 17, "3": 19, "4": 53}
    ties = [(b.bus_from, b.bus_to) for b in case.feeder.lines if case.areas[b.bus_from] != case.areas[b.bus_to]]
    assert ties == [("20", "118"), ("15", "117"), ("62", "125")] or set(ties) == {
        ("15", "117"),
        ("20", "118"),
        ("62", "125"),
    }


def test_published_hours() -> None:
    case = builtin.load("ieee123-t5")
    assert case.profiles["load"].tolist() == [0.75, 0.777, 0.787, 0.796, 0.782]
    assert case.profiles["pv"].tolist() == [0.5, 0.8, 0.9, 1.0, 1.0]
    low, high = published.PRICE_LOW, published.PRICE_HIGH
    assert case.profiles["price"].tolist() == [low, low, high, high, low]
    assert case.horizon.times[0].isoformat() == "2024-07-01T09:00:00-04:00"  # hour 10 ends at 10:00
    ten = builtin.load("ieee123-t10").profiles["price"]
    assert ten.tolist() == [low, low, low, low, high, high, low, low, high, high]
    day = builtin.load("ieee123-t24").profiles["price"]
    assert np.flatnonzero(day == high).tolist() == list(range(15, 22))
    # 4527.16 kWh + 2490.93 kvarh of load and 323.36 kWh of sun over the five hours.
    assert 1163.197 * case.profiles["load"].sum() == pytest.approx(4527.16, abs=0.01)
    assert 76.990 * case.profiles["pv"].sum() == pytest.approx(323.36, abs=0.01)


@pytest.mark.skipif(not BALANCED.is_dir(), reason="published tables not at hand")
def test_published_tables_number_by_number() -> None:
    def table(name: str) -> list[dict[str, str]]:
        with (BALANCED / name).open() as stream:
            return list(csv.DictReader(stream))

    case = builtin.load("ieee123-t5")
    lines = {(b.bus_from, b.bus_to): (b.r_ohm[0, 0], b.x_ohm[0, 0]) for b in case.feeder.lines}
    assert lines == {(r["from"], r["to"]): (float(r["r_ohm"]), float(r["x_ohm"])) for r in table("branches.csv")}
    loads = {d.bus: (d.p_kw, d.q_kvar) for d in case.loads}
    rows = table("buses.csv")
    wanted = {r["bus"]: (float(r["p_load_kW"]), float(r["q_load_kvar"])) for r in rows if float(r["p_load_kW"])}
    assert loads == wanted
    assert dict(case.areas) == {r["bus"]: r["area"] for r in rows}
    assert {d.bus: (d.p_rated_kw, d.s_max_kva) for d in case.pvs} == {
        r["bus"]: (float(r["p_rated_kW"]), float(r["s_rated_kVA"])) for r in table("pv_20pct.csv")
    }
    assert {d.bus: (d.p_charge_max_kw, d.s_max_kva, d.energy_kwh) for d in case.batteries} == {
        r["bus"]: (float(r["p_rated_kW"]), float(r["s_rated_kVA"]), float(r["e_rated_kWh"]))
        for r in table("bess_30pct.csv")
    }
    for n_steps in (5, 10):
        rows = table(f"profiles_T{n_steps}.csv")
        got = builtin.load(f"ieee123-t{n_steps}").profiles
        for column, name in (("load_factor", "load"), ("pv_factor", "pv"), ("cost_usd_per_kWh", "price")):
            assert got[name].tolist() == [float(r[column]) for r in rows]
    day = [float(r["tou_usd_per_kWh_secondpaper"]) for r in table("profiles_24h.csv")]
    assert builtin.load("ieee123-t24").profiles["price"].tolist() == day


def test_ads10() -> None:
    case = builtin.load("ads10")
    assert sum(d.p_kw for d in case.loads) == pytest.approx(86.651)
    assert [d.bus for d in case.pvs] == ["6", "10"]
    assert [(d.bus, d.p_charge_max_kw, d.energy_kwh) for d in case.batteries] == [
        ("5", 4.6655, 18.662),
        ("6", 2.33345, 9.3338),
    ]
    assert not case.capacitors
    assert {d.limit for d in (*case.pvs, *case.batteries)} == {"disc"}


def test_case33bw_has_its_known_loss() -> None:
    case = builtin.load("case33bw")
    assert sum(d.p_kw for d in case.loads) == 3715.0
    assert sum(d.q_kvar for d in case.loads) == 2300.0
    loss, lowest = sweep(case)
    assert loss == pytest.approx(202.677, abs=5e-4)
    assert lowest == pytest.approx(0.91309, abs=5e-6)
    assert [s.name for s in case.feeder.switches] == ["8-21", "9-15", "12-22", "18-33", "25-29"]
    assert not any(s.closed for s in case.feeder.switches)


@pytest.mark.parametrize(("n_buses", "depth"), [(128, 25), (1000, 134), (10000, 532)])
def test_tree_depth_and_lowest_voltage(n_buses: int, depth: int) -> None:
    case = builtin.load(f"tree-{n_buses}x24")
    level = {case.feeder.buses[0].name: 0}
    for line in case.feeder.lines:
        level[line.bus_to] = level[line.bus_from] + 1
    assert len(level) == n_buses
    assert max(level.values()) == depth
    assert sum(d.p_kw for d in case.loads) == pytest.approx(tree.TOTAL_KW)
    assert case.profiles["load"].max() == 1.0
    assert len(case.pvs) == int(0.2 * len(case.loads) + 0.5)
    assert len(case.batteries) == int(0.3 * len(case.loads) + 0.5)
    if n_buses <= 1000:
        assert sweep(case)[1] == pytest.approx(0.953, abs=1e-6)


def test_tree_of_any_size() -> None:
    for name in ("tree-2x1", "tree-3x2", "tree-40x30", "tree-500x288"):
        case = builtin.load(name)
        assert check(case) == ()
        assert (len(case.feeder.buses), case.horizon.n_steps) == tree.size_of(name)
    one, other = builtin.load("tree-40x1"), builtin.load("tree-40x96")
    assert [b.r_ohm[0, 0] for b in one.feeder.lines] == [b.r_ohm[0, 0] for b in other.feeder.lines]


def test_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'ieee123-t5'"):
        builtin.load("ieee123-t55")
    for bad in ("tree-0x1", "tree-1x1", "tree-10x0", "tree-10", "tree-9999999x1"):
        assert not builtin.has(bad)
    with pytest.raises(CaseError, match="Did you mean 'case33bw'"):
        read("case33")


def test_three_phase_totals_and_shapes() -> None:
    case = builtin.load("ieee123-rated")
    assert sum(d.p_kw for d in case.loads) == 3490.0
    assert sum(d.q_kvar for d in case.loads) == 1920.0
    assert sum(len(b.conductors) for b in case.feeder.buses) == 278
    assert (len(case.feeder.lines), len(case.feeder.switches), len(case.feeder.transformers)) == (118, 8, 8)
    assert {d.connection for d in case.loads} == {"wye", "delta"}
    assert {d.model for d in case.loads} == {"constant_power", "constant_impedance", "constant_current"}
    thirteen = builtin.load("ieee13-rated")
    assert sum(d.p_kw for d in thirteen.loads) == 3466.0
    line = next(b for b in thirteen.feeder.lines if b.name == "650632")
    # Configuration 601: 0.3465 + j1.0179 ohm per mile, mutual to phase 2 0.1560 + j0.5017; 2000 feet.
    assert line.r_ohm[0, 0] * 5280 / 2000 == pytest.approx(0.3465)
    assert line.x_ohm[1, 0] * 5280 / 2000 == pytest.approx(0.5017)
    assert line.x_ohm[0, 1] == line.x_ohm[1, 0]


def test_ieee123_day() -> None:
    case = builtin.load("ieee123")
    assert case.horizon.step_h.tolist() == [0.25] * 96
    assert case.profiles["load"].max() == 1.0
    buses = list(dict.fromkeys(d.bus for d in case.loads))
    assert len({d.bus for d in case.pvs}) == 17
    assert len({d.bus for d in case.batteries}) == round(0.3 * len(buses) + 1e-9)
    loads = {d.name: d for d in case.loads}
    for d in (*case.pvs, *case.batteries):
        assert isinstance(d, (PV, Battery))
        at = loads[d.name]
        assert (d.bus, d.terminals, d.connection) == (at.bus, at.terminals, at.connection)
    for d in case.batteries:
        assert d.p_charge_max_kw == pytest.approx(0.33 * loads[d.name].p_kw)
        assert d.energy_kwh == pytest.approx(4 * d.p_charge_max_kw)


@pytest.mark.parametrize("name", ["ieee13", "ieee123"])
@pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference solutions not at hand")
def test_rated_feeder_has_the_reference_voltages(name: str) -> None:
    case = builtin.load(f"{name}-rated")
    flow = power_flow(case)
    assert flow.all_converged
    with (REFERENCE / f"opendss_{name}.csv").open() as stream:
        wanted = {r["node"].lower(): float(r["vmag_pu"]) for r in csv.DictReader(stream)}
    got = {f"{bus}.{c}": v for (bus, c), v in zip(flow.index.nodes, flow.vmag_pu[:, 0], strict=True)}
    assert got.keys() == wanted.keys()
    assert max(abs(got[node] - wanted[node]) for node in wanted) < 2e-6


@pytest.mark.parametrize("name", ["ieee13", "ieee123", "tree-1000x24", "ieee123-t24"])
def test_day_without_control_is_inside_the_limits_or_nearly(name: str) -> None:
    case = builtin.load(name)
    flow = power_flow(case)
    assert flow.all_converged
    low = min(b.v_min_pu for b in case.feeder.buses)
    high = max(b.v_max_pu for b in case.feeder.buses)
    assert flow.vmag_pu.min() > low
    assert flow.vmag_pu.max() < high + 1e-3
