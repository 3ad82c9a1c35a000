"""A case with a fault is bad input to every command, and never a bug: each looks for faults before it uses the case."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import lateral
from lateral.cli import run
from lateral.io import write_folder

Rows = list[list[str]]


def without(column: str) -> Callable[[Rows], Rows]:
    return lambda rows: [[v for k, v in enumerate(row) if rows[0][k] != column] for row in rows]


def cell(column: str, value: str) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        k = rows[0].index(column)
        return [rows[0], [value if j == k else v for j, v in enumerate(rows[1])], *rows[2:]]

    return change


#: file, what is done to it, code of the fault
FAULTS = {
    "no price": ("profiles.csv", without("price"), "PRO-001"),
    "no sun": ("profiles.csv", without("pv"), "PRO-001"),
    "no load": ("profiles.csv", without("load"), "PRO-001"),
    "no such bus": ("lines.csv", cell("bus_to", "nowhere"), "NET-002"),
}
COMMANDS = {
    "solve": ("solve", "CASE"),
    "solve --balanced": ("solve", "CASE", "--balanced"),
    "powerflow": ("powerflow", "CASE"),
    "powerflow --balanced": ("powerflow", "CASE", "--balanced"),
    "replay": ("replay", "CASE"),
    "compare": ("compare", "CASE", "--formulation", "lindist3flow"),
    "sweep": ("compare", "CASE", "--formulation", "lindist3flow", "--sweep", "load_scale=0.5", "--sweep", "steps=2"),
    "report": ("report", "CASE", "--out", "OUT.html"),
    "export": ("export", "CASE", "--out", "OUT"),
    "export --solved": ("export", "CASE", "--solved", "--out", "OUT"),
    "areas run": ("areas", "run", "CASE", "--areas", "2"),
    "areas cut": ("areas", "cut", "CASE", "--areas", "2", "--out", "OUT"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "case"
    write_folder(lateral.read("ieee13"), folder)
    return folder


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_fault_is_bad_input(
    command: str, fault: str, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, change, code = FAULTS[fault]
    case = tmp_path / "case"
    case.mkdir()
    for file in good.iterdir():
        (case / file.name).write_bytes(file.read_bytes())
    with (case / name).open(newline="") as file:
        rows = list(csv.reader(file))
    changed = change(rows)
    assert changed != rows
    with (case / name).open("w", newline="") as file:
        csv.writer(file).writerows(changed)
    before = {p.name: p.read_bytes() for p in case.iterdir()}
    words = [w.replace("CASE", str(case)).replace("OUT", str(tmp_path / "out")) for w in COMMANDS[command]]
    assert run([*words, "--json"]) == 2
    data = json.loads(capfd.readouterr().out)
    assert data["status"] == "bad_input"
    assert any(f["code"].startswith(code) for f in data["faults"]), data["faults"]
    assert {p.name: p.read_bytes() for p in case.iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"case"}


MASTER = """
new circuit.c basekv=12.47 phases=3 bus1=a
new line.l bus1=a bus2=b r1=0.1 x1=0.2 length=1
new load.x bus1=b kv=12.47 kw=100
set voltagebases=[12.47]
calcvoltagebases
solve
"""
PV_THERE = 'case = "m.dss"\n[[pv]]\nname = "new"\nbus = "b"\np_rated_kw = 50\ns_max_kva = 50\n'


@pytest.mark.parametrize("command", ["powerflow", "powerflow --balanced", "replay", "export", "compare"])
@pytest.mark.parametrize(
    ("line", "code"),
    [('profile = "nowhere"', "PRO-001"), ("terminals = [1, 5]", "NET-005"), ("terminals = [1, 1]", "DEV-001")],
)
def test_what_a_study_adds_to_a_master_has_been_solved_by_no_engine(
    command: str, line: str, code: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.dss").write_text(MASTER)
    (tmp_path / "s.toml").write_text(PV_THERE + line + "\n")
    words = [
        w.replace("CASE", str(tmp_path / "s.toml")).replace("OUT", str(tmp_path / "out")) for w in COMMANDS[command]
    ]
    assert run([*words, "--json"]) == 2
    data = json.loads(capfd.readouterr().out)
    assert any(f["code"].startswith(code) and f["element"] == "pv.new" for f in data["faults"]), data["faults"]


def test_what_is_odd_in_a_master_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is solved as the engine has solved it, whatever a study adds."""
    (tmp_path / "m.dss").write_text(MASTER.replace("kv=12.47 kw", "kv=34.5 kw"))
    (tmp_path / "s.toml").write_text(PV_THERE)
    for case in ("m.dss", "s.toml"):
        assert run(["powerflow", str(tmp_path / case), "--no-replay"]) == 0
        assert "DEV-009" in capfd.readouterr().err
