"""Untrusted input must not become a command, leave its folder or exhaust the caller: probes are canaries only."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lateral.case import Case
from lateral.cli import run
from lateral.errors import CaseError, HostileFileError
from lateral.io import builtin
from lateral.io.opendss.scan import Limits, scan
from lateral.io.opendss.write import render_opendss, write_opendss
from lateral.io.study import confined
from lateral.io.tables import files, read_folder, write_folder
from lateral.network.horizon import Horizon
from lateral.replay import replay

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

#: Pieces of names that mean something to OpenDSS.
PIECES = (
    "\n", "\r", "\r\n", "\0", "\t", "\x0b", "\x1b", "\x85", "\u2028", "\u00a0", "\u212a", "!", "//", "/*", "*/", "~",
    '"', "'", "(", ")", "[", "]", "{", "}", "=", ",", ".", "@", "@result", "|", "%", "^", "*", "\\", "/", "..", " ",
    "usermodel=canary.so", "fileedit canary", "set editor=canary", "redirect canary.dss", "export voltages canary.csv",
    "clear", "new circuit.x", "like=a", "enabled=no", "a", "Z", "1", "-", "_", "é", "\U0001f600",
)  # fmt: skip
names = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20
)
VERBS = {"clear", "set", "new", "edit", "open", "setkvbase", "makebuslist", "buscoords"}
FORBIDDEN = re.compile(r"\s(usermodel|userdata|shaftmodel|shaftdata|dynadll|dynadata|like|csvfile|sngfile|dblfile)=")


def renamed(case: Case, new: list[str]) -> Case:
    """The case with other names: of itself, its buses, loads, lines, transformers and profiles."""
    feeder = case.feeder
    bus = {b.name: f"{new[0]}{k}" for k, b in enumerate(feeder.buses)}
    profile = {name: f"{new[1]}{k}" for k, name in enumerate(case.profiles)}
    other = {t.name: f"{new[2]}{k}" for k, t in enumerate(feeder.transformers)}

    def moved(element):  # type: ignore[no-untyped-def]
        change = {}
        for field in dataclasses.fields(element):
            value = getattr(element, field.name)
            if field.name in ("bus", "bus_from", "bus_to"):
                change[field.name] = bus[value]
            elif field.name == "windings":
                change[field.name] = tuple(moved(w) for w in value)
            elif field.name in ("profile", "profile_q", "price_import", "price_export") and value in profile:
                change[field.name] = profile[value]
            elif field.name == "transformer":
                change[field.name] = other[value]
        return dataclasses.replace(element, **change)

    def named(elements, text):  # type: ignore[no-untyped-def]
        return tuple(dataclasses.replace(moved(e), name=f"{text}{k}") for k, e in enumerate(elements))

    fresh = dataclasses.replace(
        feeder,
        buses=tuple(dataclasses.replace(b, name=bus[b.name]) for b in feeder.buses),
        lines=named(feeder.lines, new[2]),
        switches=named(feeder.switches, new[2]),
        transformers=named(feeder.transformers, new[2]),
        shunts=named(feeder.shunts, new[2]),
    )
    return case.with_(
        name=new[3],
        feeder=fresh,
        devices=named(case.devices, new[2]),
        profiles={profile[k]: v for k, v in case.profiles.items()},
        areas={},
    )


def small() -> Case:
    """A case with transformers, regulators, capacitors, loads, PV and batteries, with one profile of two steps."""
    case = builtin.load("ieee13")
    horizon = type(case.horizon).regular(2)
    series = ("profile", "profile_q", "price_import", "price_export")
    devices = tuple(
        dataclasses.replace(d, **{f: "p" for f in series if hasattr(d, f) and getattr(d, f) in case.profiles})
        for d in case.devices
    )
    return case.with_(horizon=horizon, devices=devices, profiles={"p": np.array([0.5, 1.0])})


PLAIN = small()


def skeleton(text: str) -> list[tuple[str, ...]]:
    """Verb and property names of every statement, without names and values."""
    out = []
    for line in text.split("\n"):
        if line and not line.startswith("!"):
            words = line.split(" ")
            out.append((words[0].lower(), re.split(r"[.=]", words[1])[0].lower() if len(words) > 1 else "",
                        *re.findall(r"(?<= )([^ =\[\]]+)=", line)))  # fmt: skip
    return out


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


# --- names that are commands


@SETTINGS
@given(st.lists(names, min_size=4, max_size=4))
@example(["x\nfileedit canary", 'a" usermodel=canary.so', "b\r\nset editor=canary", "c\0\n/*"])
@example(["!", "'", "(((", "\u2028redirect canary.dss"])
@example(["@result", "~", "*/", "//"])
def test_names_never_become_statements(new: list[str]) -> None:
    plain, odd = render_opendss(PLAIN), render_opendss(renamed(PLAIN, new))
    for name in plain.files:
        if name.endswith(".dss"):
            assert skeleton(odd.files[name]) == skeleton(plain.files[name])
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        master = write_opendss(renamed(PLAIN, new), at / "out")
        scanned = scan(master)
        assert tree(at) == {"out", *(f"out/{name}" for name in odd.files)}
    before = [(s.verb, s.cls) for s in _scanned(PLAIN).statements]
    assert [(s.verb, s.cls) for s in scanned.statements] == before
    assert not scanned.skipped
    assert {s.verb for s in scanned.statements} <= VERBS
    assert not any(FORBIDDEN.search(s.text) for s in scanned.statements)


def _scanned(case: Case):  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as folder:
        return scan(write_opendss(case, Path(folder) / "out"))


@settings(SETTINGS, max_examples=15)
@given(st.lists(names, min_size=4, max_size=4))
@example(["x\nfileedit canary", 'a" usermodel=canary.so', "b\r\nset editor=canary", "c\0\n/*"])
def test_replay_of_any_names_is_the_same_and_touches_no_file(new: list[str]) -> None:
    expected = replay(PLAIN).v
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            run = replay(renamed(PLAIN, new))
            assert Path.cwd() == Path(folder).resolve()
            assert tree(Path(folder)) == set()
        finally:
            os.chdir(here)
    assert run.all_converged
    np.testing.assert_allclose(np.nan_to_num(run.v), np.nan_to_num(expected), atol=1e-9)


@pytest.mark.parametrize("word", ["wye]\nset casename=canary\n! [", "wye] usermodel=canary [", "", "Wye"])
def test_a_connection_of_a_winding_is_a_known_word(word: str) -> None:
    first, *rest = PLAIN.feeder.transformers
    winding = dataclasses.replace(first.windings[0], connection=word)
    odd = dataclasses.replace(first, windings=(winding, *first.windings[1:]))
    case = PLAIN.with_(feeder=dataclasses.replace(PLAIN.feeder, transformers=(odd, *rest)))
    with pytest.raises(CaseError, match="IO-066"):
        render_opendss(case)
    with pytest.raises(CaseError, match="IO-066"):
        replay(case)


def test_too_many_conductors_never_reach_the_engine() -> None:
    first = PLAIN.loads[0]
    others = tuple(d for d in PLAIN.devices if d is not first)
    odd = dataclasses.replace(first, terminals=(1,) * 400)
    with pytest.raises(CaseError, match="room for"):
        replay(PLAIN.with_(devices=(odd, *others)))


@pytest.mark.parametrize("field", ["winding", "n_steps"])
def test_whole_numbers_are_written_as_numbers(field: str) -> None:
    first = PLAIN.regulators[0]
    others = tuple(d for d in PLAIN.devices if d is not first)
    odd = dataclasses.replace(first, **{field: "2\nset casename=canary"})
    with pytest.raises((CaseError, ValueError)):
        render_opendss(PLAIN.with_(devices=(odd, *others)))


# --- what the engine does not look at, and what the scan would pay for

HEAD = "clear\nnew circuit.c basekv=12.47 bus1=source\nnew line.l1 bus1=source bus2=b length=1 units=km\n"


def refused(folder: Path, text: str, limits: Limits | None = None) -> list[str]:
    (folder / "master.dss").write_text(HEAD + text, encoding="utf-8")
    with pytest.raises(CaseError) as caught:
        scan(folder / "master.dss", limits=limits)
    return [fault.code.split()[0] for fault in caught.value.faults]


@pytest.mark.parametrize(
    "text",
    [
        "new load.d bus1=b" + ".1" * 100 + " kv=1 kw=1",
        "new load.d b" + ".1" * 100,
        'new load.d bus1="b.1' + " 1" * 100 + '"',
        "edit line.l1 bus2=(b.1" + ",1" * 100 + ")",
        "~ bus2=b" + ".1" * 100,
        "line.l1.bus2=b" + ".1" * 100,
        "batchedit line..* bus2=b" + ".1" * 100,
        "new transformer.t buses=[b" + ".1" * 100 + " c]",
        "new transformer.t buses=['b.1" + " 1" * 100 + "' c]",
        "new regcontrol.r bus=b" + ".1" * 100,
        "setkvbase bus=b" + ".1" * 100 + " kvln=1",
        "var @b=b" + ".1" * 100 + "\nnew load.d bus1=@b",
        "new line.l2 phases=20000 bus1=b bus2=c",
        "new line.l2 phases=(100 100 *) bus1=b bus2=c",
        "new linecode.c nphases=5000",
        "new linegeometry.g nconds=100000",
        "new transformer.t windings=100000",
        "new loadshape.s npts=2000000000",
        "new loadshape.s 2e9",
    ],
)
def test_what_the_engine_has_no_room_for_is_refused(text: str, tmp_path: Path) -> None:
    assert refused(tmp_path, text + "\n") == ["SEC-008"]


def test_usual_sizes_are_kept(tmp_path: Path) -> None:
    shape = " ".join(["0.5"] * 8760)
    (tmp_path / "master.dss").write_text(
        HEAD + f"new loadshape.s npts=8760 interval=1 mult=[{shape}]\nnew linecode.c nphases=3.0\n"
        "new transformer.t phases=3 windings=3 buses=(b.1.2.3.0, 'c.1.2.3.4' \"d.1.2.3\")\n"
        "new line.l2 phases=(3) bus1=b.1.2.3 bus2=e.1.2.3\n",
        encoding="utf-8",
    )
    assert len(scan(tmp_path / "master.dss").statements) == 7


def test_variables_that_double_stop_early(tmp_path: Path) -> None:
    text = "var @v0=aaaaaaaa\n" + "".join(f'var @v{k}="@v{k - 1} @v{k - 1}"\n' for k in range(1, 60))
    assert refused(tmp_path, text) == ["SEC-008"]


def test_statements_left_out_and_variables_are_counted(tmp_path: Path) -> None:
    limits = Limits(statements=100)
    assert refused(tmp_path, "?\n" * 200, limits) == ["SEC-008"]
    assert refused(tmp_path, "set " + "casename=x " * 200, limits) == ["SEC-008"]
    assert refused(tmp_path, "".join(f"var @v{k}=1\n" for k in range(200)), limits) == ["SEC-008"]


# --- tables, studies


def folder_of(tmp_path: Path) -> Path:
    return write_folder(PLAIN, tmp_path / "case")


def test_a_pipe_or_folder_in_place_of_a_table_is_refused(tmp_path: Path) -> None:
    case = folder_of(tmp_path)
    (case / "shunts.csv").unlink(missing_ok=True)
    os.mkfifo(case / "shunts.csv")
    with pytest.raises(CaseError, match="no regular file"):
        read_folder(case)
    (case / "shunts.csv").unlink()
    pq.write_table(pa.table({"name": ["canary"]}), tmp_path / "outside.parquet")
    (case / "shunts.parquet").mkdir()
    (case / "shunts.parquet" / "a.parquet").symlink_to(tmp_path / "outside.parquet")
    with pytest.raises(CaseError, match="no regular file"):
        read_folder(case)


def test_parquet_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_TEXT", 10_000_000)
    monkeypatch.setattr(files, "MAX_CELLS", 100_000)
    case = folder_of(tmp_path)
    bombs = {
        "characters": {"name": ["x" * 100_000] * 1000},
        "cells": {"p_kw": np.zeros(200_000)},
        "lists of text": {"name": [["x" * 100_000] * 1000]},
    }
    for found, columns in bombs.items():
        pq.write_table(pa.table(columns), case / "shunts.parquet", compression="zstd")
        assert (case / "shunts.parquet").stat().st_size < 50_000
        with pytest.raises(CaseError, match=found):
            read_folder(case)


def test_parquet_folders_still_read_back(tmp_path: Path) -> None:
    assert read_folder(write_folder(PLAIN, tmp_path / "case", tables="parquet")).hash == PLAIN.hash


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "../outside", "/etc/hostname", "loop"])
def test_study_paths_stay_beside_the_study(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(HostileFileError):
        confined(tmp_path, path)


@pytest.mark.parametrize("zone", ["dateutil//tmp/canary", "dateutil/../../canary", "/etc/localtime", "../canary"])
def test_a_time_zone_is_no_path(zone: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"no IANA name|ZoneInfo"):
        _ = Horizon.regular(2, zone=zone)
    case = folder_of(tmp_path)
    text = (case / "case.toml").read_text(encoding="utf-8")
    (case / "case.toml").write_text(re.sub(r'zone = ".*"', f'zone = "{zone}"', text), encoding="utf-8")
    with pytest.raises(CaseError, match="TAB-008"):
        read_folder(case)


# --- the screen


@pytest.mark.parametrize("command", ["check", "solve"])
def test_names_do_not_command_the_terminal(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PLAIN.loads[0]
    odd = dataclasses.replace(first, name="x\x1b]0;canary\x07\x9b1m[bold]y[/bold]", bus="nowhere\x1b[2J")
    case = PLAIN.with_(devices=tuple(odd if d is first else d for d in PLAIN.devices))
    folder = write_folder(case, tmp_path / "case")
    monkeypatch.chdir(tmp_path)
    assert run([command, str(folder)]) == 2
    said = capsys.readouterr()
    assert not set("\x1b\x07\x9b") & set(said.out + said.err)
    assert "canary" in said.out + said.err
    assert "[bold]" in said.out + said.err
