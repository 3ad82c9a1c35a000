"""``lateral powerflow``: one JSON value, exit codes, tables, and nothing written in error."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_powerflow import two_bus

import lateral
from lateral.cli import folder, run
from lateral.cli.loading import Loaded
from lateral.cli.powerflow import _rows, flow_summary
from lateral.network.feeder import Shunt

BAD = Path(__file__).parents[1] / "cases" / "bad"

KEYS = {
    *("case", "status", "status_text", "converged", "not_converged", "method", "methods", "n_buses", "n_nodes"),
    *(
        "n_dead_nodes",
        "dead_nodes",
        "n_low_nodes",
        "low_nodes",
        "n_steps",
        "iterations",
        "residual",
        "losses_kwh",
        "energy_import_kwh",
        "energy_export_kwh",
    ),
    *("source", "v_min_pu", "v_max_pu", "seconds", "replay", "faults", "import_warnings", "case_hash", "versions"),
}

MASTER = """
clear
new circuit.c basekv=4.16 pu=1.02 phases=3 bus1=s r1=0.05 x1=0.1 r0=0.1 x0=0.2
new loadshape.day npts=4 interval=6 mult=(0.5 0.8 1.0 0.6)
new line.l bus1=s bus2=b phases=3 r1=0.1 x1=0.2 r0=0.3 x0=0.5 c1=0 c0=0 length=1
new load.w bus1=b.1 phases=1 kv=2.4 kw=90 kvar=40 daily=day
new load.d bus1=b.2.3 phases=1 conn=delta kv=4.16 kw=60 kvar=20 model=5 daily=day
set voltagebases=[4.16]
calcvoltagebases
solve
"""


def as_json(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, object]]:
    code = run([str(a) for a in (*arguments, "--json")])
    return code, json.loads(capfd.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))


@pytest.mark.parametrize("method", ["auto", "fixed-point", "newton", "sweep"])
def test_one_json_object_with_the_replay(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, data = as_json(capfd, "powerflow", "ieee13", "--method", method)
    assert code == 0
    assert set(data) == KEYS
    assert data["converged"] is True
    assert data["not_converged"] == []
    assert (data["n_nodes"], data["n_steps"]) == (41, 24)
    assert data["methods"] == {"fixed-point" if method == "auto" else method: 24}
    assert data["residual"]["change_pu"] < 1e-7
    assert data["replay"]["converged"] is True
    assert data["replay"]["max_dv_pu"] < 1e-6
    assert data["losses_kwh"] == pytest.approx(data["replay"]["losses_kwh"], rel=1e-5)
    assert set(data["seconds"]) == {"read", "check", "solve", "replay", "total"}
    case = lateral.read("ieee13")
    flow = lateral.power_flow(case)
    assert data["losses_kwh"] == pytest.approx(float(flow.losses_kw @ case.horizon.hours), rel=1e-6)
    assert data["source"]["p_max_kw"] == pytest.approx(flow.source_kva.real.max(), rel=1e-6)
    assert data["case_hash"] == case.hash


def test_without_the_replay(capfd: pytest.CaptureFixture[str]) -> None:
    code, data = as_json(capfd, "powerflow", "ads10", "--no-replay")
    assert code == 0
    assert data["replay"] is None
    assert "replay" not in data["seconds"]


def test_a_study_may_say_no_replay(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text('case = "ads10"\n[solve]\nreplay = false\n')
    assert as_json(capfd, "powerflow", study)[1]["replay"] is None
    assert as_json(capfd, "powerflow", study, "--replay")[1]["replay"] is not None


def test_a_balanced_equivalent(capfd: pytest.CaptureFixture[str]) -> None:
    code, data = as_json(capfd, "powerflow", "ieee13", "--balanced", "--no-replay")
    assert (code, data["n_nodes"]) == (0, data["n_buses"])


def test_the_steps_of_a_master(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    master = tmp_path / "m.dss"
    master.write_text(MASTER)
    code, data = as_json(capfd, "powerflow", master, "--horizon", "daily", "--steps", 3)
    assert code == 0
    assert data["n_steps"] == 3
    assert data["replay"]["max_dv_pu"] < 1e-6
    assert data["import"]["unsupported"] == 0
    assert set(data) == {*KEYS, "import"}
    one = as_json(capfd, "powerflow", master)[1]
    assert one["n_steps"] == 1


def test_tables_of_every_node(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # a folder of ours is replaced
        code, data = as_json(capfd, "powerflow", "ieee13", "--no-replay", "--out", out)
        assert code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert {p.name for p in out.iterdir()} == {"summary.json", "tables", folder.MARK}
    written = json.loads((out / "summary.json").read_text())
    assert written["losses_kwh"] == data["losses_kwh"]
    flow = lateral.power_flow(lateral.read("ieee13"))
    names = [f"{bus}.{c}" for bus, c in flow.index.nodes]
    magnitude = pd.read_parquet(out / "tables" / "bus.vmag.parquet")
    angle = pd.read_csv(out / "tables" / "bus.vang_deg.csv")
    assert list(magnitude.columns) == ["time", *names]
    v = magnitude[names].to_numpy() * np.exp(1j * np.deg2rad(angle[names].to_numpy()))
    assert np.abs(v.T - flow.v_pu).max() < 1e-9
    totals = pd.read_csv(out / "tables" / "totals.csv")
    assert totals.converged.all()
    assert set(totals.method) == {"fixed-point"}
    assert totals.losses_kw.to_numpy() == pytest.approx(flow.losses_kw)


def test_a_step_that_does_not_converge_is_4_and_nothing_is_made_up(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # twice what the line can carry in the second step
    case = two_bus(steps=2, profile="x", v_min_pu=0.0).with_(profiles={"x": np.array([1.0, 9.0])})
    lateral.write_folder(case, tmp_path / "heavy")
    code, data = as_json(capfd, "powerflow", tmp_path / "heavy", "--no-replay", "--out", tmp_path / "out")
    assert code == 4
    assert data["converged"] is False
    assert data["not_converged"] == [1]
    assert data["losses_kwh"] is None
    assert data["source"]["p_max_kw"] is None
    assert 0.9 < data["v_min_pu"] <= 1.0
    totals = pd.read_csv(tmp_path / "out" / "tables" / "totals.csv")
    assert totals.losses_kw.isna().tolist() == [False, True]
    voltage = pd.read_csv(tmp_path / "out" / "tables" / "bus.vmag.csv")
    assert voltage["b.1"].isna().tolist() == [False, True]
    assert run(["powerflow", str(tmp_path / "heavy"), "--no-replay"]) == 4
    assert "1 of 2 steps did not converge" in capfd.readouterr().out


def test_nodes_that_the_voltage_range_leaves_out_are_counted_and_named() -> None:
    """Ten that no source reaches, a phase that has collapsed, and a neutral: none is hidden."""
    case = two_bus(p=1.0, q=0.0)
    dark = [replace(case.feeder.buses[1], name=f"far{k}") for k in range(10)]
    weak = replace(case.feeder.buses[1], name="weak", conductors=(1, 4))
    wire = replace(case.feeder.lines[0], name="w", bus_to="weak", r_ohm=[[40.0]], x_ohm=[[40.0]])
    earth = Shunt(name="e", bus="weak", conductors=(1, 4), g_us=np.diag([1e5, 1e5]), b_us=np.zeros((2, 2)))
    joined = Shunt(name="j", bus="weak", conductors=(1, 4), g_us=[[1.0, -1.0], [-1.0, 1.0]], b_us=np.zeros((2, 2)))
    buses = (*case.feeder.buses, *dark, weak)
    lines = (*case.feeder.lines, wire)
    odd = case.with_(feeder=replace(case.feeder, buses=buses, lines=lines, shunts=(earth, joined)))
    flow = lateral.power_flow(odd)
    assert flow.all_converged
    summary = flow_summary(Loaded(case=odd), flow, "auto", None, {})
    assert summary["n_dead_nodes"] == 10
    assert summary["dead_nodes"] == [f"far{k}.1" for k in range(8)]
    assert (summary["n_low_nodes"], summary["low_nodes"]) == (2, ["weak.1", "weak.4"])
    assert summary["v_min_pu"] > 0.99
    shown = "\n".join(text for _, text in _rows(summary))
    assert "without 10 nodes that no source reaches: far0.1, " in shown
    assert "far7.1, ..." in shown
    assert "without 2 nodes at 0.3 pu or less: weak.1, weak.4\n" in shown


def test_loops_are_no_fault_here_but_are_not_swept(capfd: pytest.CaptureFixture[str]) -> None:
    code, data = as_json(capfd, "powerflow", BAD / "loop")
    assert (code, data["converged"]) == (0, True)
    assert data["replay"]["max_dv_pu"] < 1e-6
    code, data = as_json(capfd, "powerflow", BAD / "loop", "--method", "sweep")
    assert code == 2
    assert data["faults"][0]["code"] == "PF-003 not radial"


@pytest.mark.parametrize(
    "arguments",
    [
        ("iee13",),
        ("ieee13", "--method", "newtn"),
        ("ieee13", "--horizon", "daily"),
        ("ieee13", "--steps", "0"),
        ("nothing.dss",),
        ("ieee13", "--no-such-flag"),
        (),
    ],
    ids=" ".join,
)
def test_bad_input_is_2_and_writes_nothing(
    arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["powerflow", *arguments, "--out", "out"]) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith("lateral: ")
    assert "Traceback" not in captured.out + captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["island_open_switch", "broken_toml", "load_in_watts", "no_source", "nan_load"])
def test_faults_are_named(name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, data = as_json(capfd, "powerflow", BAD / name, "--out", tmp_path / "out")
    assert code == 2
    assert data["status"] == "bad_input"
    assert data["faults"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_we_did_not_write_is_left_alone(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    code, data = as_json(capfd, "powerflow", "ieee13", "--out", tmp_path)
    assert code == 2
    assert "thesis.tex" in str(data["status_text"])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["powerflow", "ieee13"]) == 0
    shown = capfd.readouterr().out
    assert "every step converged" in shown
    assert "OpenDSS" in shown
