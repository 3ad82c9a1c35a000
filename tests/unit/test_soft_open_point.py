"""Soft open points: by hand between two laterals, exact in OpenDSS, phases, losses, what declines."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lateral.areas.partition import cut_by_buses
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.cli.schedules import read_schedule
from lateral.cli.writing import schedule
from lateral.devices import Load, SoftOpenPoint, Source
from lateral.errors import CaseError
from lateral.io.dispatch import Dispatch
from lateral.io.opendss.write import render_opendss
from lateral.io.tables import read_folder, write_folder
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.opf import build, dispatch_of, replayed
from lateral.results.result import Result

KV = 2.4
EXACT = ("current-voltage", "bus-injection")


def forked(*loads: Load, conductors: tuple[int, ...] = (1,), tie: dict[str, Any] | None = None, **source: Any) -> Case:
    """Two equal laterals a-b and a-c, with a soft open point between b and c unless ``tie`` is empty."""
    n = len(conductors)
    angles = {1: 0.0, 2: -120.0, 3: 120.0}

    def line(b: str) -> Line:
        r, x = 0.5 * np.eye(n) + 0.1 * (n > 1), 0.5 * np.eye(n) + 0.2 * (n > 1)
        return Line(
            name=b, bus_from="a", bus_to=b, conductors_from=conductors, conductors_to=conductors, r_ohm=r, x_ohm=x
        )

    grid = Source(
        name="grid",
        bus="a",
        conductors=conductors,
        angle_deg=tuple(angles[c] for c in conductors),
        **{"price_import": 0.1, "r_ohm": np.zeros((n, n)), "x_ohm": np.zeros((n, n))} | source,
    )
    terminals = (*conductors, 0)
    given = {"name": "s", "bus": "b", "terminals": terminals, "other_bus": "c", "other_terminals": terminals}
    ties = () if tie == {} else (SoftOpenPoint(**({"s_max_kva": 300.0} | given | (tie or {}))),)  # type: ignore[arg-type]
    buses = tuple(Bus(name=b, conductors=conductors, v_base_kv=KV, v_min_pu=0.8, v_max_pu=1.2) for b in "abc")
    return Case(
        name="forked",
        feeder=Feeder(buses=buses, lines=(line("b"), line("c"))),
        devices=(grid, *loads, *ties),
        horizon=Horizon.regular(2),
        profiles={"day": np.array([1.0, 0.5])},
    )


def at(bus: str, p_kw: float, **more: Any) -> Load:
    return Load(**({"name": f"x{bus}", "bus": bus, "p_kw": p_kw, "profile": "day"} | more))  # type: ignore[arg-type]


def uneven() -> tuple[Load, ...]:
    return (
        at("b", 240.0, q_kvar=90.0, terminals=(1, 2, 3, 0)),
        at("c", 60.0, q_kvar=30.0, terminals=(1, 0)),
        at("c", 30.0, name="more", terminals=(2, 3), connection="delta"),
    )


def solved(case: Case, formulation: str, objective: str = "loss", **options: Any) -> Result:
    r = build(case, formulation, objective, **options).solve()
    assert r.ok, r.status_text
    return r


def ends(r: Result) -> tuple[np.ndarray, np.ndarray]:
    p, _ = r.port_points["soft_open_point.s"]
    half = len(p) // 2
    return p[:half].sum(axis=0), p[half:].sum(axis=0)


@pytest.mark.parametrize("formulation", [*EXACT, "nonlinear", "soc", "lindist3flow"])
def test_equal_laterals_share_the_load(formulation: str) -> None:
    """200 kW at b, none at c: least losses with 100 kW in each, whatever the step (half of it at half the load)."""
    r = solved(forked(at("b", 200.0), tie={"q_control": "none"}), formulation)
    p_1, p_2 = ends(r)
    np.testing.assert_allclose(p_1, [100.0, 50.0], atol=2.5)
    np.testing.assert_allclose(p_1 + p_2, 0.0, atol=1e-5)
    assert r.set_points["soft_open_point.s"][0] == pytest.approx(np.zeros(2), abs=1e-5)


@pytest.mark.parametrize("formulation", EXACT)
def test_losses_of_what_is_passed_on(formulation: str) -> None:
    """1 % of f: p_1 = 0.99 f. What the next kW costs less in the one lateral than in the other pays for it.

    Marginal losses of a lateral at P (pu, z = 0.0868): 2 r P / v. With r = 0.0868: 2 r (0.2 - f) - 2 r f = 0.01
    without voltages, so f = 0.1 - 0.01 / (4 r) = 71 kW; voltages of 0.98 move it by a few kW.
    """
    r = solved(forked(at("b", 200.0), tie={"q_control": "none", "loss_share": 0.01}), formulation)
    p_1, p_2 = ends(r)
    # the objective here counts losses in the wires; what the point itself loses counts when energy has a price
    assert p_1 == pytest.approx(-0.99 * p_2, abs=1e-3)
    r = solved(forked(at("b", 200.0), tie={"q_control": "none", "loss_share": 0.01}), formulation, "cost")
    p_1, p_2 = ends(r)
    assert p_1[0] == pytest.approx(71.0, abs=4.0)
    assert p_1 == pytest.approx(-0.99 * p_2, abs=1e-3)
    assert r.warnings == ()
    dear = solved(forked(at("b", 200.0), tie={"q_control": "none", "loss_share": 0.1}), formulation, "cost")
    np.testing.assert_allclose(ends(dear)[0], 0.0, atol=0.05)


def test_energy_that_is_burnt_is_said() -> None:
    """Paid for drawing, it passes power both ways: the result says how much that is."""
    case = forked(at("b", 50.0), tie={"q_control": "none", "loss_share": 0.1}, price_import=-0.1)
    r = build(case, "lindistflow", loss_term=False).solve()
    assert "soft_open_point s loses" in r.status_text


@pytest.mark.parametrize("formulation", EXACT)
def test_both_converters_keep_their_rating(formulation: str) -> None:
    """50 kVA: |s_1|, |s_2| <= 50, and q goes where it is wanted."""
    case = forked(at("b", 200.0, q_kvar=200.0), at("c", 10.0, q_kvar=100.0), tie={"s_max_kva": 50.0})
    r = solved(case, formulation)
    p, q = r.port_points["soft_open_point.s"]
    assert np.hypot(p, q).max() <= 50.0 + 1e-4
    assert np.hypot(p, q)[0, 0] == pytest.approx(50.0, abs=1e-3)
    assert q[0, 0] > 20.0
    assert q[1, 0] > 20.0


@pytest.mark.parametrize("formulation", EXACT)
@pytest.mark.parametrize(
    "place",
    [
        {"terminals": (1, 2, 3, 0), "other_terminals": (1, 2, 3, 0)},
        {"terminals": (1, 2, 3), "other_terminals": (1, 2, 3), "connection": "delta"},
        {"terminals": (1, 0), "other_terminals": (2, 0)},
        {"terminals": (2, 3), "other_terminals": (3, 1), "connection": "delta"},
    ],
    ids=str,
)
def test_exact_in_opendss_and_free_at_least_as_good(place: dict[str, Any], formulation: str) -> None:
    none = solved(forked(*uneven(), conductors=(1, 2, 3), tie={}), formulation)
    values = [none.objective]
    for phases in ("balanced", "free"):
        tie = {"loss_share": 0.005, "phases": phases, **place}
        r = replayed(solved(forked(*uneven(), conductors=(1, 2, 3), tie=tie), formulation))
        values.append(r.objective)
        assert r.replay.errors.max_dv_pu <= 1e-7  # type: ignore[union-attr]
        assert r.replay.errors.dp_source_kw <= 1e-3  # type: ignore[union-attr]
        p, q = r.port_points["soft_open_point.s"]
        assert len(p) == 2 * len(r.case.devices[-1].ports)  # type: ignore[attr-defined]
        flow = power_flow(r.case, ports=r.port_points, tolerance_pu=1e-10)
        rows = [flow.index.nodes.index(node) for node in r.network.nodes]
        np.testing.assert_allclose(flow.vmag_pu[rows], np.sqrt(r.value("bus.vmag_sq")), atol=1e-7)
        if phases == "balanced":
            half = len(p) // 2
            np.testing.assert_allclose(p[:half], np.broadcast_to(p[0], (half, 2)), atol=1e-9)
            np.testing.assert_allclose(q[half:], np.broadcast_to(q[half], (half, 2)), atol=1e-9)
    assert values[1] < values[0]
    assert values[2] <= values[1] * (1 + 1e-7)


def test_two_points_of_different_kind_in_one_case() -> None:
    """With and without losses, balanced and free, with and without q: each as it would be by itself."""
    kinds = ({"loss_share": 0.01}, {"phases": "free"}, {"q_control": "none"}, {"phases": "free", "loss_share": 0.02})
    case = forked(*uneven(), conductors=(1, 2, 3), tie={})
    place = {"terminals": (1, 2, 3, 0), "other_bus": "c", "other_terminals": (1, 2, 3, 0), "s_max_kva": 40.0}
    ties = tuple(SoftOpenPoint(name=f"s{k}", bus="b", **(place | kind)) for k, kind in enumerate(kinds))  # type: ignore[arg-type]
    r = replayed(solved(case.with_(devices=(*case.devices, *ties)), "current-voltage", "cost"))
    assert r.replay.errors.max_dv_pu <= 1e-7  # type: ignore[union-attr]
    for k, kind in enumerate(kinds):
        p, q = r.port_points[f"soft_open_point.s{k}"]
        lost = -p.sum(axis=0)
        sent = np.maximum(-p[:3].sum(axis=0), -p[3:].sum(axis=0))
        np.testing.assert_allclose(lost, kind.get("loss_share", 0.0) * sent, atol=2e-3)
        assert np.any(q) == (kind.get("q_control") != "none")


def test_schedule_files_and_tables(tmp_path: Any) -> None:
    case = forked(*uneven(), conductors=(1, 2, 3))
    r = solved(case, "current-voltage")
    table = schedule(r)
    table.to_csv(tmp_path / "schedule.csv", index=False)
    own = table[(table["element"] == "soft_open_point.s") & table["port"].notna()]
    assert list(own.groupby("port")["bus"].first()) == ["b", "b", "b", "c", "c", "c"]
    again = read_schedule(tmp_path / "schedule.csv", case)
    np.testing.assert_allclose(again.ports["soft_open_point.s"], r.port_points["soft_open_point.s"], atol=1e-9)
    text = render_opendss(case, dispatch=dispatch_of(r)).files["devices.dss"]
    assert "New Load.soft_open_point_s_1 phases=1 bus1=b.1.0" in text
    assert "New Load.soft_open_point_s_6 phases=1 bus1=c.3.0" in text
    assert read_folder(write_folder(case, tmp_path / "case")).hash == case.hash
    with pytest.raises(CaseError, match="at two buses"):
        Dispatch(p_kw={"soft_open_point.s": np.ones(2)}, q_kvar={}).check(case)


def test_ports_of_a_schedule_go_by_their_numbers(tmp_path: Path) -> None:
    """Whatever the order of the rows; a number that is missing or none is a fault of its element."""
    case = forked(*uneven(), conductors=(1, 2, 3))
    r = solved(case, "current-voltage")
    table, file = schedule(r), tmp_path / "schedule.csv"
    table.iloc[::-1].to_csv(file, index=False)
    again = read_schedule(file, case)
    np.testing.assert_allclose(again.ports["soft_open_point.s"], r.port_points["soft_open_point.s"], atol=1e-9)
    for port, found in ((7.0, "1, 3, 4, 5, 6, 7"), (2.5, "1, 2.5, 3, 4, 5, 6"), ("x", "no number")):
        wrong = table.astype({"port": object})
        wrong.loc[table["port"] == 2.0, "port"] = port
        wrong.to_csv(file, index=False)
        with pytest.raises(CaseError, match=rf"IO-064 schedule\] soft_open_point\.s: .*{re.escape(found)}"):
            read_schedule(file, case)


def test_what_does_not_fit() -> None:
    case = forked(at("b", 100.0))
    for change, code in (
        ({"other_bus": "z"}, "NET-002"),
        ({"other_terminals": (2, 0)}, "NET-005"),
        ({"other_terminals": (1, 2, 0)}, "DEV-015"),
        ({"other_bus": "b"}, "DEV-015"),
        ({"s_max_kva": 0.0}, "VAL-003"),
    ):
        tie = dataclasses.replace(case.devices[-1], **change)  # type: ignore[type-var]
        assert code in [f.code[:7] for f in check(case.with_(devices=(*case.devices[:-1], tie)))], change
    areas = case.with_(areas={"a": "one", "b": "one", "c": "two"})
    with pytest.raises(CaseError, match="ARE-009"):
        cut_by_buses(areas)
    assert case.to_balanced().of(SoftOpenPoint)[0].other_terminals == (1, 0)
