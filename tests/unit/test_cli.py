"""The command line: exit codes, pure JSON, nothing written in error or when interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lateral
from lateral.cli import failures, folder, run
from lateral.cli.options import KEYS, merged
from lateral.cli.running import summary_rows
from lateral.cli.screen import plain, to_json
from lateral.errors import CaseError, EngineError, OptionError
from lateral.solvers import Status

ROOT = Path(__file__).parents[1]
BAD = ROOT / "cases" / "bad"
HOSTILE = ROOT / "cases" / "hostile"

SUMMARY_KEYS = (
    *("status", "status_text", "formulation", "problem_class", "solver", "objective", "cost", "energy_import_kwh"),
    *("losses_kwh", "n_buses", "n_steps", "seconds", "residuals", "replay", "case_hash", "versions"),
)

INFEASIBLE = 'case = "ads10"\n[limits]\np_import_max_kw = 1.0\n'


def call(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(a) for a in arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def as_json(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, object]]:
    code, out, _ = call(capfd, *arguments, "--json")
    data = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    return code, data


def shell(*arguments: str, script: str = "import lateral.cli; lateral.cli.main()") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)


def test_two_loads_that_follow_the_voltage_at_one_node(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Their voltages are columns of one table."""
    case = lateral.read("ieee13-rated")
    load = next(d for d in case.loads if d.model == "constant_power")
    follows = [replace(load, name=f"twin{k}", model="constant_current", p_kw=5.0 * k) for k in (1, 2)]
    lateral.write_folder(case.with_(devices=(*case.devices, *follows)), tmp_path / "case")
    code, _ = as_json(capfd, "solve", tmp_path / "case", "--limits", "none", "--no-replay", "--out", tmp_path / "out")
    assert code == 0
    for path in (tmp_path / "out" / "tables").glob("*.parquet"):
        assert pd.read_parquet(path).columns.is_unique


@pytest.mark.parametrize(("n", "text"), [(0, "0 violations;"), (1, "1 violation (1 current);")])
def test_one_violation_is_no_plural(n: int, text: str) -> None:
    replay = dict.fromkeys(("max_dv_pu", "dloss_kw", "dp_source_kw", "dq_source_kvar", "cost"), 0.0)
    words: dict[str, object] = dict.fromkeys(("status_short", "formulation", "problem_class", "solver"), "x")
    numbers: dict[str, object] = {
        "n_variables": 1,
        "n_buses": 2,
        "n_steps": 1,
        "cost": None,
        "residuals": {},
        "warnings": (),
        "choices": (),
        "seconds": {},
    }
    rows = summary_rows(
        {**words, **numbers, "replay": {**replay, "n_violations": n, "violations": {"current": n}, "converged": True}}
    )
    assert any(text in value for _, value in rows)


def test_python_m_lateral_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "lateral", "cases", "--json"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert any(case["name"] == "ads10" for case in json.loads(done.stdout))


def test_solve_prints_one_json_object_and_nothing_else() -> None:
    done = shell("solve", "ieee123-t5", "--formulation", "nonlinear", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert set(SUMMARY_KEYS) <= set(summary)
    assert summary["status"] == "optimal"
    assert summary["cost"] == pytest.approx(576.312, abs=1e-3)
    assert set(summary["seconds"]) == {"read", "build", "solve", "replay", "total"}
    parts = [v for k, v in summary["seconds"].items() if k != "total"]
    assert summary["seconds"]["total"] == pytest.approx(sum(parts), abs=1e-5)
    assert summary["replay"]["max_dv_pu"] <= 1e-5


LOSING = """
clear
new circuit.c basekv=12.47 bus1=src
new line.l1 bus1=src bus2=a r1=0.3 x1=0.5 r0=0.6 x0=1.2 length=1 normamps=300
new line.l2 bus1=a.1.2 bus2=b.1.2 phases=2 r1=0.3 x1=0.5 r0=0.6 x0=1.2 length=1 normamps=300
new load.dead bus1=b.3 phases=1 kv=7.2 kw=100 kvar=30
new load.alive bus1=b.1 phases=1 kv=7.2 kw=100 kvar=30
set voltagebases=[12.47]
calcvoltagebases
solve
"""


def test_every_command_says_what_the_import_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    master = tmp_path / "losing.dss"
    master.write_text(LOSING)
    said = "1 load (100 kW): load.dead"
    commands: dict[str, tuple[object, ...]] = {
        "solve": ("--no-replay", "--objective", "loss"),
        "powerflow": ("--no-replay",),
        "check": (),
        "import": ("--out", tmp_path / "folder"),
        "export": ("--out", tmp_path / "exported"),
        "replay": (),
        "compare": ("--formulation", "current-voltage"),
        "report": ("--out", tmp_path / "page.html", "--no-replay"),
    }
    for command, more in commands.items():
        code, out, err = call(capfd, command, master, *more, "--json")
        assert code == 0, (command, err)
        assert said in err, command
        data = json.loads(out)
        if command == "check":  # a list of faults, and this is none
            assert data == []
        else:
            assert any(said in line for line in data["import_warnings"]), command
    assert said in (tmp_path / "page.html").read_text()
    code, _, err = call(capfd, "check", tmp_path / "folder")  # the folder that `import` wrote keeps it
    assert code == 0
    assert said in err
    case = lateral.read(master)
    assert any(said in line for line in case.warnings)
    result = lateral.solve(case, objective="loss", with_replay=False)
    assert result.ok
    assert said in result.status_text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("solve", "iee13"), 2),
        (("solve", "ads10", "--formulation", "lindistfow"), 2),
        (("solve", "ads10", "--objective", "costs"), 2),
        (("solve", "ads10", "--solver", "gurobi"), 2),
        (("solve", "ads10", "--terminal", "same"), 2),
        (("solve", "ads10", "--loss-term", "maybe"), 2),
        (("solve", "ads10", "--point", "nowhere"), 2),
        (("solve", "ads10", "--horizon", "daily"), 2),
        (("solve", "ads10", "--no-such-flag"), 2),
        (("solve",), 2),
        (("solve", "ieee13", "--formulation", "soc"), 2),
        (("schema", "cases"), 2),
        (("export", "ads10", "--out", "x", "--der", "both"), 2),
        (("import", "nothing.dss", "--out", "x"), 2),
        (("compare", "ads10", "--sweep", "stepz=1,2"), 2),
        (("compare", "ads10", "--formulation", "lindistfow"), 2),
        (("replay", "ads10", "--schedule", "nothing.csv"), 2),
        (("solve", "ads10", "--no-replay", "--max-iterations", "1"), 4),
        (("solve", "ads10", "--no-replay"), 0),
        (("check", "ads10"), 0),
        (("--version",), 0),
        (("--help",), 0),
        ((), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_exit_codes(
    arguments: tuple[str, ...], code: int, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = call(capfd, *arguments)
    assert found == code, out + err
    assert "Traceback" not in out + err
    if code == 2:
        assert err.startswith("lateral: ")
    assert list(tmp_path.iterdir()) == []


def test_infeasible_is_3_and_says_why(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    study = tmp_path / "tight.toml"
    study.write_text(INFEASIBLE)
    code, summary = as_json(capfd, "solve", study, "--formulation", "lindistflow", "--out", tmp_path / "out")
    assert code == 3
    assert summary["status"] == "infeasible"
    assert summary["cost"] is None
    assert "source" in str(summary["status_text"])
    wrote = {p.name for p in (tmp_path / "out").iterdir()}
    assert wrote == {"summary.json", "report.html", folder.MARK}


def test_every_status_has_an_exit_code() -> None:
    assert set(failures.OF_STATUS) == {status.word for status in Status}
    assert failures.OF_STATUS["optimal"] == 0
    assert failures.OF_STATUS["degraded"] == 6
    assert {failures.OF_STATUS[w] for w in ("infeasible", "locally_infeasible")} == {3}
    assert {failures.OF_STATUS[w] for w in ("limit_reached", "inaccurate")} == {4}
    assert failures.OF_STATUS["error"] == 5


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (EngineError("the engine is gone"), 5, "error"),
        (ZeroDivisionError("oh"), 1, "bug"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, status: str, capfd: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("lateral.cli.loading.load", broken)
    found, data = as_json(capfd, "solve", "ads10")
    assert (found, data["status"]) == (code, status)
    assert set(data) == {"status", "status_text", "faults"}
    found, out, err = call(capfd, "solve", "ads10")
    assert found == code
    assert out == ""
    assert "Traceback" not in err
    assert ("report it" in err) == (code == 1)


def test_debug_shows_the_traceback(capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        message = "oh"
        raise ZeroDivisionError(message)

    monkeypatch.setattr("lateral.cli.loading.load", broken)
    code, _, err = call(capfd, "--debug", "solve", "ads10")
    assert code == 1
    assert "Traceback" in err


def test_unknown_case_offers_the_nearest(capfd: pytest.CaptureFixture[str]) -> None:
    _, data = as_json(capfd, "solve", "iee123-t5")
    (fault,) = data["faults"]
    assert "'ieee123-t5'" in fault["action"]


@pytest.mark.parametrize("name", ["box_too_small", "island_open_switch", "broken_toml", "load_in_watts"])
def test_bad_input_names_its_faults_and_writes_nothing(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, data = as_json(capfd, "solve", BAD / name, "--out", tmp_path / "out")
    assert code == 2
    assert data["status"] == "bad_input"
    assert data["faults"]
    for fault in data["faults"]:
        assert {"code", "element", "message", "found", "allowed", "action", "where"} <= set(fault)
    assert list(tmp_path.iterdir()) == []
    code, listed = as_json(capfd, "check", BAD / name)
    assert code == 2
    assert [f["code"] for f in listed] == [f["code"] for f in data["faults"]]


def test_check_of_a_good_case_is_an_empty_list(capfd: pytest.CaptureFixture[str]) -> None:
    code, listed = as_json(capfd, "check", "ieee13")
    assert (code, listed) == (0, [])


def test_hostile_master_is_refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, data = as_json(capfd, "import", HOSTILE / "doscmd.dss", "--out", tmp_path / "out")
    assert code == 2
    assert "refused" in str(data["status_text"])
    assert list(tmp_path.iterdir()) == []


def test_out_holds_everything_and_can_be_replaced(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        code, summary = as_json(capfd, "solve", "ads10", "--out", out)
        assert code == 0
    assert json.loads((out / "summary.json").read_text())["cost"] == summary["cost"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    case = lateral.read("ads10")
    schedule = pd.read_csv(out / "schedule.csv")
    assert len(schedule) == (len(case.pvs) + len(case.batteries)) * case.horizon.n_steps
    assert schedule.loc[schedule.element.str.startswith("battery."), "energy_kwh"].notna().all()
    totals = pd.read_parquet(out / "tables" / "totals.parquet")
    energy = float(totals.p_source_kw @ case.horizon.hours)
    assert energy == pytest.approx(summary["energy_import_kwh"], rel=1e-9)
    voltage = pd.read_csv(out / "tables" / "bus.vmag.csv")
    assert voltage.shape == (24, 11)
    assert (out / "result.nc").stat().st_size > 0
    assert (out / "solved" / "master.dss").is_file()
    # the schedule can be replayed from its file, with the numbers of the first replay
    code, replayed = as_json(capfd, "replay", "ads10", "--schedule", out / "schedule.csv")
    assert code == 0
    assert replayed["cost"] == pytest.approx(summary["replay"]["cost"], rel=1e-9)


def test_a_folder_that_we_did_not_write_is_left_alone(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("all of it")
    code, data = as_json(capfd, "solve", "ads10", "--out", out)
    assert code == 2
    assert "chapter1.tex" in str(data["status_text"])
    assert [p.name for p in out.iterdir()] == ["chapter1.tex"]
    (tmp_path / "file").write_text("x")
    code, _ = as_json(capfd, "solve", "ads10", "--out", tmp_path / "file")
    assert code == 2
    assert (tmp_path / "file").read_text() == "x"
    code, data = as_json(capfd, "solve", "ads10", "--out", tmp_path / "file" / "below")
    assert code == 2
    assert "cannot be made" in str(data["status_text"])


def test_interrupt_while_writing_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = """
import os, signal, sys
import lateral.cli, lateral.cli.writing as writing
whole = writing.schedule
def cut(result):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(result)
writing.schedule = cut
lateral.cli.main()
"""
    done = shell("solve", "ads10", "--no-replay", "--out", str(tmp_path / "out"), script=script)
    assert done.returncode == 130, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in done.stderr


def test_interrupt_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with folder.fresh_folder(target) as fresh:
        (fresh / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), folder.fresh_folder(target) as fresh:
        (fresh / "a").write_text("new")
        raise KeyboardInterrupt
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (target / "mine.txt").write_text("notes")
    with pytest.raises(OptionError, match=r"mine\.txt"), folder.fresh_folder(target):
        pytest.fail("the block must not run")
    assert (target / "a").read_text() == "old"


def test_import_and_export_round_trip(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, data = as_json(capfd, "export", "ieee13-rated", "--out", tmp_path / "dss")
    assert code == 0
    code, data = as_json(capfd, "import", tmp_path / "dss" / "master.dss", "--out", tmp_path / "case")
    assert code == 0
    assert data["import"]["entries"] or data["import"]["counts"]
    assert (tmp_path / "case" / "import_report.json").is_file()
    assert len(lateral.read(tmp_path / "case").loads) == len(lateral.read("ieee13-rated").loads)
    code, _ = as_json(capfd, "import", tmp_path / "dss" / "master.dss", "--out", tmp_path / "case")
    assert code == 0, "an import can be repeated"


def test_an_import_says_the_faults_for_which_it_is_not_solved(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    master = tmp_path / "master.dss"
    load = "new load.x phases=1 bus1=sourcebus.1 kv={} kw=1"
    text = "clear\nnew circuit.c basekv=12.47\n" + load + "\nset voltagebases=[12.47]\ncalcvoltagebases\nsolve\n"
    master.write_text(text.format(0.24))
    code, data = as_json(capfd, "import", master, "--out", tmp_path / "case")
    assert code == 0
    assert [f["code"].split()[0] for f in data["faults"]] == ["DEV-009"]
    code, _, err = call(capfd, "import", master, "--out", tmp_path / "case")
    assert code == 0
    assert "1 fault (DEV-009) for which it is not solved" in err
    master.write_text(text.format(7.2))
    code, data = as_json(capfd, "import", master, "--out", tmp_path / "case")
    assert data["faults"] == []
    code, _, err = call(capfd, "import", master, "--out", tmp_path / "case")
    assert "not solved" not in err


def test_study_options_are_defaults_that_flags_override(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.toml"
    study.write_text('case = "ads10"\n[solve]\nformulation = "soc"\nreplay = false\nloss_term = false\n')
    code, summary = as_json(capfd, "solve", study)
    assert (code, summary["formulation"], summary["replay"]) == (0, "soc", None)
    code, summary = as_json(capfd, "solve", study, "--formulation", "lindistflow")
    assert (code, summary["formulation"]) == (0, "lindistflow")
    study.write_text('case = "ads10"\n[solve]\nformulaton = "soc"\n')
    code, data = as_json(capfd, "solve", study)
    assert code == 2
    assert "'formulation'" in data["faults"][0]["action"]
    code, listed = as_json(capfd, "check", study)
    assert (code, listed) == (2, data["faults"])


def test_options_of_a_study() -> None:
    assert merged({}).loss_term is True
    assert merged({"loss_term": "off"}).loss_term is False
    assert merged({"terminal": "free"}, terminal=None).terminal == "free"
    for key in KEYS:
        with pytest.raises(CaseError, match=key):
            merged({key: [1]})
    with pytest.raises(CaseError):
        merged({"max_iterations": True})


def test_nan_is_null() -> None:
    assert to_json({"a": float("nan"), "b": [np.float64("inf"), np.int64(3)], "c": (True, None)}) == to_json(
        {"a": None, "b": [None, 3], "c": [True, None]}
    )
    assert plain(Path("x")) == "x"


def test_broken_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", "import lateral.cli; lateral.cli.main()", "schema", "case"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN),
    )
    os.close(writer)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("what", ["case", "study"])
def test_schema(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capfd, "schema", what)
    assert code == 0
    assert json.loads(out)["$schema"].startswith("https://json-schema.org/")


def test_cases_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    code, listed = as_json(capfd, "cases")
    assert code == 0
    assert {"ieee13", "ieee123", "ieee123-t5", "case33bw"} <= {c["name"] for c in listed}
