"""Folders with one mistake each: a coded fault names the element, nothing else happens.

``expect.toml`` of a folder says what is wrong with it: the code (or its beginning), the element (empty when the file
is too broken to have one), a text that the message holds, and whether a radial feeder is asked for.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lateral.checks import check, require
from lateral.errors import CaseError
from lateral.io.tables import read_folder

HERE = Path(__file__).parent
BAD = sorted(folder for folder in (HERE / "bad").iterdir() if (folder / "expect.toml").is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_there_are_many() -> None:
    assert len(BAD) >= 40


def test_the_case_that_they_are_made_from_is_good() -> None:
    assert check(read_folder(HERE / "bad" / "_good"), radial=True) == ()


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_bad_folder(folder: Path) -> None:
    expect = tomllib.loads((folder / "expect.toml").read_text(encoding="utf-8"))
    before = contents(folder)
    with pytest.raises(CaseError) as caught:
        require(read_folder(folder), radial=expect.get("radial", False))
    hits = [
        fault
        for fault in caught.value.faults
        if fault.code.startswith(expect["code"]) and expect["element"] in ("", fault.element)
    ]
    assert hits, str(caught.value)
    assert any(expect["text"] in str(fault) for fault in hits), str(caught.value)
    assert all(fault.found and fault.allowed and fault.action for fault in caught.value.faults)
    assert contents(folder) == before


def test_faults_carry_file_and_line() -> None:
    with pytest.raises(CaseError) as caught:
        require(read_folder(HERE / "bad" / "negative_resistance"))
    assert [fault.where for fault in caught.value.faults] == ["lines.csv:3"]
