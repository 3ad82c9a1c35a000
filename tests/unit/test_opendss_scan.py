"""The safe front half of OpenDSS reading: scan, then the engine in a process of its own."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lateral.errors import CaseError, EngineError, HostileFileError
from lateral.io.opendss import engine
from lateral.io.opendss.engine import read_engine
from lateral.io.opendss.scan import Limits, Statement, scan
from lateral.io.opendss.scan_tokens import tokenise

HERE = Path(__file__).resolve()
HOSTILE = HERE.parents[1] / "cases" / "hostile"
SHARED = Path(os.environ.get("LATERAL_SHARED", HERE.parents[2].parent / "shared")) / "feeders"
needs_feeders = pytest.mark.skipif(not SHARED.is_dir(), reason="feeder collection is not there")

HEAD = """clear
new circuit.c basekv=12.47 bus1=source
new line.l1 bus1=source bus2=b length=1 units=km
new load.d1 bus1=b kv=12.47 kw=10 kvar=1
"""

MASTERS = {
    "ieee13": "ieee13/IEEE13Nodeckt.dss",
    "ieee34mod1": "ieee34/ieee34Mod1.dss",
    "ieee34mod2": "ieee34/ieee34Mod2.dss",
    "ieee37": "ieee37/ieee37.dss",
    "ieee123": "ieee123/IEEE123Master.dss",
    "ieee8500bal": "ieee8500/Master.dss",
    "ieee8500unbal": "ieee8500/Master-unbal.dss",
    "epri_ckt5": "epri_ckt5/Master_ckt5.dss",
    "epri_ckt7": "epri_ckt7/Master_ckt7.dss",
    "epri_j1_pv": "epri_j1/Master_withPV.dss",
    "smartds84": "smartds84/Master.dss",
    "eulv906_kw1": "eulv906/Master.dss",
    "4bus_DY": "ieee4bus/4Bus-DY-Bal.DSS",
    "4bus_YY": "ieee4bus/4Bus-YY-Bal.DSS",
    "4bus_GrdYD": "ieee4bus/4Bus-GrdYD-Bal.DSS",
    "4bus_OYOD": "ieee4bus/4Bus-OYOD-Bal.DSS",
    "4bus_OYODunbal": "ieee4bus/4bus-OYOD-UnBal.dss",
}

# Fixtures that are deliberately wrong, or parts of a model: code of the first fault, and its line.
REFUSED = {
    "opendss/loadparser_error.dss": ("DSS-012", 23),
    "opendss/line_series.dss": ("DSS-050", 32),
    "opendss/ieee13_feeder.dss": ("DSS-050", 158),
    "opendss/test2_master.dss": ("DSS-012", 28),
    "opendss/test2_Buscoords.dss": ("DSS-001", 4),
    "opendss/test2_Linecodes.dss": ("DSS-010", 0),
    "opendss/test2_Loadshape.dss": ("DSS-010", 0),
    "opendss/test2_edit.dss": ("DSS-010", 0),
    "opendss/test_simple2.dss": ("DSS-010", 0),
}


def write(folder: Path, text: str, name: str = "master.dss") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def codes(error: CaseError) -> list[str]:
    return [fault.code.split()[0] for fault in error.faults]


def refusal(path: Path, **options: object) -> CaseError:
    with pytest.raises(CaseError) as caught:
        scan(path, **options)  # type: ignore[arg-type]
    return caught.value


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the engine was started")

    monkeypatch.setattr(engine, "_run_worker", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


# --- hostile files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(p.name for p in HOSTILE.glob("*.dss")))
def test_hostile_file_is_refused_and_nothing_happens(
    name: str, tmp_path: Path, no_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tmp_path / "case"
    shutil.copytree(HOSTILE, case)
    (case / "sub").mkdir()
    write(tmp_path / "outside", "new load.stolen bus1=b kv=12.47 kw=1", "secret.dss")
    write(tmp_path, "canary", "canary.txt")
    write(case, "canary", "canary.txt")
    monkeypatch.chdir(case)
    opened: list[str] = []
    real_open = os.open

    def watch(path: str | Path, *rest: int, **more: int) -> int:
        opened.append(os.path.realpath(path))
        return real_open(path, *rest, **more)

    monkeypatch.setattr(os, "open", watch)
    before = snapshot(tmp_path)
    with pytest.raises(CaseError) as caught:
        read_engine(case / name)
    assert snapshot(tmp_path) == before
    assert Path.cwd() == case
    assert all(Path(p).is_relative_to(case) for p in opened)
    wanted = (HOSTILE / name).read_text(encoding="utf-8").splitlines()[0]
    if wanted.startswith("! "):
        assert codes(caught.value)[0] == wanted[2:9]
    assert isinstance(caught.value, HostileFileError) == any(c.startswith("SEC") for c in codes(caught.value))
    fault = caught.value.faults[0]
    assert fault.where.split(":")[0].endswith(".dss")
    assert fault.action


def test_there_are_enough_hostile_files() -> None:
    assert len(list(HOSTILE.glob("*.dss"))) >= 40


def test_all_faults_are_reported_at_once() -> None:
    assert codes(refusal(HOSTILE / "several.dss")) == ["SEC-001", "SEC-003", "SEC-002", "DSS-002"]


def test_symlinks_that_leave_the_root_are_refused(tmp_path: Path, no_engine: None) -> None:
    write(tmp_path / "outside", "new load.stolen bus1=b kv=1 kw=1", "secret.dss")
    case = tmp_path / "case"
    write(case, HEAD + "redirect link.dss\nredirect folder/secret.dss\nnew loadshape.s csvfile=link.dss\n")
    (case / "link.dss").symlink_to("../outside/secret.dss")
    (case / "folder").symlink_to("../outside")
    assert codes(refusal(case / "master.dss")) == ["SEC-006"] * 3


def test_symlink_inside_the_root_is_followed(tmp_path: Path) -> None:
    write(tmp_path, HEAD + "redirect link.dss\n")
    write(tmp_path, "new load.d2 bus1=b kv=12.47 kw=1\n", "real/loads.dss")
    (tmp_path / "link.dss").symlink_to("real/loads.dss")
    assert "load.d2" in scan(tmp_path / "master.dss").objects


def test_special_files_are_not_opened_for_long(tmp_path: Path) -> None:
    write(tmp_path, HEAD + "redirect pipe.dss\nredirect folder.dss\n")
    os.mkfifo(tmp_path / "pipe.dss")
    (tmp_path / "folder.dss").mkdir()
    assert codes(refusal(tmp_path / "master.dss")) == ["SEC-010", "SEC-010"]


def test_limits(tmp_path: Path) -> None:
    huge = write(tmp_path, HEAD + "! x\n" * 50_000)
    assert codes(refusal(huge, limits=Limits(file_bytes=10_000))) == ["SEC-008"]
    many = write(tmp_path, HEAD + "new load.x bus1=b\n" * 20, "many.dss")
    assert "SEC-008" in codes(refusal(many, limits=Limits(statements=3)))
    assert len(refusal(many, limits=Limits(faults=5)).faults) == 5
    for level in range(40):
        write(tmp_path, f"redirect level{level + 1}.dss\n", f"level{level}.dss")
    write(tmp_path, HEAD, "level40.dss")
    assert codes(refusal(tmp_path / "level0.dss")) == ["SEC-008"]
    bomb = "redirect b{0}.dss\nredirect b{0}.dss\n"
    for level in range(25):
        write(tmp_path, bomb.format(level + 1), f"b{level}.dss")
    write(tmp_path, "! end\n", "b25.dss")
    assert "SEC-008" in codes(refusal(tmp_path / "b0.dss"))  # 2^25 redirects would not end


def test_absurd_input_is_refused(tmp_path: Path) -> None:
    for text in (
        "a" * 2_000_000,
        "new " + "line.x" * 300_000,
        "(" * 1_000_000,
        "= , " * 500_000,
        "\0" * 1_000_000 + "x",
        "new line.a\"'])}b bus1=x",
        "~ a=1",
        "=",
        '"',
    ):
        assert refusal(write(tmp_path, text)).faults


def test_master_outside_the_root_is_refused(tmp_path: Path) -> None:
    master = write(tmp_path / "case", HEAD)
    (tmp_path / "other").mkdir()
    assert codes(refusal(master, root=tmp_path / "other")) == ["SEC-005"]


def test_root_may_be_larger_than_the_folder(tmp_path: Path) -> None:
    master = write(tmp_path / "case", HEAD + "redirect ../Common\\Loads.DSS\n")
    write(tmp_path / "common", "new load.d2 bus1=b kv=12.47 kw=1\n", "loads.dss")
    assert codes(refusal(master)) == ["SEC-005"]
    scanned = scan(master, root=tmp_path)
    assert scanned.objects["load.d2"] == ("common/loads.dss", 1)


def test_output_commands_are_left_out_and_reported(tmp_path: Path) -> None:
    target = tmp_path / "out" / "voltages.csv"
    master = write(
        tmp_path / "case",
        HEAD + f"solve\nExport voltages {target}\nShow taps\nplot circuit\nexpo ../x.csv\n? load.d1.kw\n",
    )
    model = read_engine(master)
    assert [s.line for s in model.scanned.skipped] == [6, 7, 8, 9, 10]
    assert not target.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case"]


def test_values_cannot_smuggle_statements(tmp_path: Path) -> None:
    master = write(
        tmp_path,
        HEAD + "var @x=(3 4 +) @b=b.1\n"
        "new \"load.d 2 kw=9\" bus1=@b phases=1 kv=7.2 kw=@x kvar='1'\n"
        "edit load.d1 kw=(2 3 *)\n",
    )
    model = read_engine(master)
    kw = {load["name"]: load["kw"] for load in model.objects("load")}
    assert kw == {"d1": 6.0, "d 2 kw=9": 7.0}


def test_engine_is_stopped_when_it_takes_too_long(tmp_path: Path) -> None:
    master = write(tmp_path, HEAD)
    with pytest.raises(EngineError, match="did not finish"):
        read_engine(master, timeout_s=0.01)


def test_engine_crash_is_an_error_not_a_crash(tmp_path: Path) -> None:
    master = write(tmp_path, HEAD + "new loadshape.s npts=2000000000 mult=[1 2 3]\n")
    with pytest.raises((EngineError, CaseError)):
        read_engine(master)


def test_engine_refuses_programs_even_when_the_scan_is_bypassed(tmp_path: Path) -> None:
    scanned = scan(write(tmp_path, HEAD))
    canary = tmp_path / "pwned"
    for text in (f"doscmd touch {canary}", f'set editor="touch {canary}"', "fileedit job.json", "show voltages"):
        hostile = Statement(text, "trap", "", "", "master.dss", 99)
        bypassed = dataclasses.replace(scanned, statements=(*scanned.statements, hostile))
        with contextlib.suppress(CaseError):
            engine.run_scanned(bypassed)
    assert not canary.exists()


@pytest.mark.parametrize(
    "body", ["new line.z bus1=b bus2=c r1=0 x1=0 r0=0 x0=0 c1=0 c0=0\n", "new load.e bus1=nowhere\n"]
)
def test_degenerate_networks_do_not_end_in_a_traceback(body: str, tmp_path: Path) -> None:
    try:
        model = read_engine(write(tmp_path, HEAD + body))
    except CaseError as error:
        assert error.faults[0].where
    else:
        assert model.point is not None
        assert model.point.converged or model.notes


# --- the language ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("a b=1, c = (2 3) d", [("", "a"), ("b", "1"), ("c", "2 3"), ("", "d")]),
        ("x=\"a b\" y='c' z={d} w=[e | f]", [("x", "a b"), ("y", "c"), ("z", "d"), ("w", "e | f")]),
        ("a=1 ! b=2", [("a", "1")]),
        ("a=1// b=2", [("a", "1")]),
        ("a=b/c", [("a", "b/c")]),
        ("a=[1 2 3", [("a", "1 2 3")]),
        ('"a b" = 3', [("a b", "3")]),
        ("a=1,b=2", [("a", "1"), ("b", "2")]),
        ("a= b= c=1", [("a", "b"), ("c", "1")]),
        ("a=(1) , b=2", [("a", "1")]),  # the engine stops at the empty value
        ("kv=! none", []),
    ],
)
def test_tokens_are_those_of_the_engine(text: str, params: list[tuple[str, str]]) -> None:
    assert [(name, value) for name, value, _ in tokenise(text)] == params


def test_abbreviations_positions_and_continuations(tmp_path: Path) -> None:
    write(tmp_path / "Sub Folder", "New load.d3 1 b.2 7.2 5\n", "More Loads.DSS")
    master = write(
        tmp_path,
        "/* a block\nnew linne.x\n*/\n"
        "clea\nNEW Object=Circuit.Test basekv=12.47\n~ pu=1.01\n"
        'n "Line.L 1" sourcebus b "" \n'
        "mor le=2 un=km\n"
        "new load.d1 bus1=b kv=12.47 kw=10\nload.d1.kva=20\nkvar=(5 2 /)\n"
        'redi "sub folder\\more loads"\n'
        "batche load..* vminpu=0.8\n"
        "sol mode=snap\n"
        "ope line.L_none 1\n",
    )
    with pytest.raises(CaseError) as caught:
        read_engine(master)
    assert caught.value.faults[0].where == "master.dss:15"
    text = master.read_text(encoding="utf-8").replace("ope line.L_none 1\n", "")
    model = read_engine(write(tmp_path, text))
    assert model.circuit == "test"
    line = model.objects("line")[0]
    assert (line["name"], line["length"], line["units"]) == ("l 1", 2.0, "km")
    loads = {load["name"]: load for load in model.objects("load")}
    assert loads["d1"]["kvar"] == pytest.approx(2.5)
    assert loads["d3"]["bus1"] == "b.2"
    assert {load["vminpu"] for load in loads.values()} == {0.8}
    assert model.where("load.d3") == "Sub Folder/More Loads.DSS:1"


@pytest.mark.parametrize(
    ("line", "code", "hint"),
    [
        ("new linne.l2 bus1=b", "DSS-002", "line"),
        ("new line.l2 bus1=b lenght=2", "DSS-003", "length"),
        ("nwe line.l2", "DSS-001", "new"),
        ("set controlmod=off toleranze=1", "DSS-004", "tolerance"),
        ("redirect lods.dss", "DSS-005", "loads.dss"),
        ("new line.l1 bus1=b", "DSS-012", "Rename"),
        ("reduce", "DSS-008", "save"),
        ("new load.d9 kw=@x", "DSS-009", "none"),
        ("set allowduplicates=yes", "DSS-013", "out"),
    ],
)
def test_errors_have_a_code_a_place_and_a_hint(line: str, code: str, hint: str, tmp_path: Path) -> None:
    write(tmp_path, "! nothing", "loads.dss")
    error = refusal(write(tmp_path, HEAD + line + "\n"))
    assert not isinstance(error, HostileFileError)
    assert codes(error) == [code]
    assert error.faults[0].where == "master.dss:5"
    assert hint in error.faults[0].action


def test_missing_master_offers_neighbours(tmp_path: Path) -> None:
    write(tmp_path, HEAD, "Master.dss")
    error = refusal(tmp_path / "Mastr.dss")
    assert codes(error) == ["DSS-005"]
    assert "Master.dss" in error.faults[0].action


def test_data_files_are_taken_along(tmp_path: Path) -> None:
    write(tmp_path, "0.1, 5\n0.2, 6\n0.3, 7\n", "Profiles/P 1.CSV")
    write(tmp_path, "B, 3, 4\n", "xy.csv")
    master = write(
        tmp_path,
        HEAD + 'new loadshape.a npts=3 interval=1 mult=(file="profiles\\p 1.csv", col=2)\n'
        'new loadshape.b npts=3 interval=1 csvfile="profiles/p 1.csv"\n'
        "calcv\nbuscoords XY.csv\n",
    )
    model = read_engine(master)
    shapes = {shape["name"]: shape for shape in model.objects("loadshape")}
    assert shapes["a"]["pmult"] == [5.0, 6.0, 7.0]
    assert shapes["b"]["pmult"] == [0.1, 0.2, 0.3]
    assert (model.buses["b"].x, model.buses["b"].y, model.buses["b"].has_xy) == (3.0, 4.0, True)
    assert model.scanned.files == ("master.dss", "Profiles/P 1.CSV", "xy.csv")


DIRECT = """
import sys
from dss import dss
dss.AllowEditor = dss.AllowForms = False
dss.Text.Command = f'compile "{sys.argv[1]}"'
dss.ActiveCircuit.Solution.Solve()
for name in dss.Classes:
    dss.SetActiveClass(name)
    if dss.ActiveCircuit.ActiveClass.Count:
        print(name.lower(), dss.ActiveCircuit.ActiveClass.ToJSON(1 | 128), sep="\\t")
"""


@pytest.mark.parametrize("path", ["dialect", "ieee13", "ieee37", "ieee123", "epri_j1_pv", "smartds84"])
def test_rewritten_statements_mean_what_the_file_means(path: str, tmp_path: Path) -> None:
    """The engine on the original files, without the scan, ends with the same properties everywhere."""
    master = HOSTILE.parent / "dialect" / "dialect.dss" if path == "dialect" else SHARED / MASTERS[path]
    if not master.is_file():
        pytest.skip("feeder collection is not there")
    done = subprocess.run(
        [sys.executable, "-c", DIRECT, str(master)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (tmp_path / "classes.json").write_text(
        "{" + ",".join(f'"{n}":{t}' for n, t in (row.split("\t") for row in done.stdout.splitlines())) + "}",
        encoding="utf-8",
    )
    wanted = engine._load_json(tmp_path / "classes.json")
    found = read_engine(master).classes
    assert set(found) == set(wanted)
    # Set by the engine from uninitialised memory, by the solution itself, or file names that were replaced.
    aside = {"cmatrix", "rmatrix", "xmatrix", "faultrate", "pctperm", "wdgcurrents", "csvfile"}
    for cls, objects in wanted.items():
        skipped = aside if cls in ("capacitor", "reactor", "transformer", "loadshape") else {"csvfile"}
        for theirs, ours in zip(objects, found[cls], strict=True):
            name = theirs.pop("Name")
            assert ours["name"] == name.lower()
            for key, value in theirs.items():
                assert key in skipped or ours[key] == value, (cls, name, key)


# --- the engine's data ----------------------------------------------------------------------------------


def test_raw_data(tmp_path: Path) -> None:
    master = write(
        tmp_path,
        HEAD.replace("units=km", "units=km r1=0.1 x1=0.4 r0=0.3 x0=1.2 c1=10 c0=5")
        + "new line.sw bus1=b bus2=c switch=y\nopen line.sw 2\nset mode=daily number=24\nsolve\n",
    )
    model = read_engine(master)
    assert model.stated["mode"] == "Daily"
    assert model.stated["solved_by_file"] is False
    assert [note.where for note in model.notes] == ["master.dss:8"]
    assert model.point is not None and model.point.converged
    assert model.reference is not None and model.reference.voltages.shape == (len(model.node_names),)
    assert model.point.source_kw == pytest.approx(10.0, rel=1e-3)
    assert model.elements["line.sw"].open_conductors == ((), (1, 2, 3))
    line, element = model.lines["l1"], model.elements["line.l1"]
    assert element.buses == ("source", "b") and element.nodes == ((1, 2, 3), (1, 2, 3))
    assert element.yprim is not None
    np.testing.assert_allclose(np.linalg.inv(-element.yprim[:3, 3:]), line.z_ohm, rtol=1e-12)
    assert np.trace(line.c_nf) == pytest.approx(25.0)
    assert "snapshot" in model.point_text
    unsolved = read_engine(master, solve=False, yprim=False)
    assert unsolved.point is None and unsolved.objects("load")[0]["kw"] == 10.0


def test_line_matrices_at_another_base_frequency(tmp_path: Path) -> None:
    master = write(
        tmp_path,
        "set defaultbasefrequency=50\nnew circuit.c basekv=0.4\n"
        "new line.l1 bus1=sourcebus bus2=b length=0.3 r1=0.1 x1=0.4 basefreq=60\n",
    )
    model = read_engine(master)
    yprim = model.elements["line.l1"].yprim
    assert yprim is not None and model.base_frequency_hz == 50.0
    np.testing.assert_allclose(np.linalg.inv(-yprim[:3, 3:]), model.lines["l1"].z_ohm, rtol=1e-10)


# --- feeders --------------------------------------------------------------------------------------------


@needs_feeders
@pytest.mark.parametrize("name", sorted(MASTERS))
def test_feeder_matches_its_reference_solution(name: str) -> None:
    model = read_engine(SHARED / MASTERS[name])
    assert model.point is not None and model.point.converged
    assert model.reference is not None and model.reference.converged
    with (SHARED / "reference" / f"opendss_{name}.csv").open(encoding="utf-8") as stream:
        wanted = {row["node"].lower(): float(row["vmag_volt"]) for row in csv.DictReader(stream)}
    found = dict(zip(model.node_names, np.abs(model.reference.voltages), strict=True))
    assert set(found) == set(wanted)
    worst = max(abs(found[n] - v) / v for n, v in wanted.items() if v > 1.0)
    assert worst < 1e-6
    for line, matrices in model.lines.items():
        element = model.elements[f"line.{line}"]
        if element.yprim is not None and not element.is_open:
            n = element.conductors
            z = np.linalg.inv(-element.yprim[:n, n:])
            np.testing.assert_allclose(z, matrices.z_ohm, rtol=1e-9, atol=1e-12 * np.abs(z).max())


@needs_feeders
def test_large_feeder_is_read_whole() -> None:
    model = read_engine(SHARED / MASTERS["ieee8500unbal"])
    assert len(model.node_names) == 8531
    assert {"scan", "start", "solve", "extract"} <= set(model.seconds)


@needs_feeders
@pytest.mark.parametrize(
    "path",
    sorted(
        str(p.relative_to(SHARED / "pmd_cases"))
        for p in (SHARED / "pmd_cases").glob("*/*.dss")
        if str(p.relative_to(SHARED / "pmd_cases")) not in REFUSED
    ),
)
def test_small_case_is_read(path: str) -> None:
    model = read_engine(SHARED / "pmd_cases" / path)
    assert model.point is not None
    assert model.point.converged or path == "opendss/IEEE13_CapControl.dss"  # its control hunts for ever


@needs_feeders
@pytest.mark.parametrize("path", sorted(REFUSED))
def test_wrong_case_is_refused_with_its_place(path: str) -> None:
    with pytest.raises(CaseError) as caught:
        read_engine(SHARED / "pmd_cases" / path)
    code, line = REFUSED[path]
    fault = caught.value.faults[0]
    assert fault.code.startswith(code)
    if line:
        assert fault.where == f"{Path(path).name}:{line}"
