"""Formulations, objectives and devices of other installed packages, found by entry points."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from lateral import formulations, objectives, plugins
from lateral.errors import OptionError

PACKAGE = """
from typing import ClassVar, final

from lateral.formulations import LinDistFlow
from lateral.objectives import Objective

RENAMED = type("Renamed", (LinDistFlow,), {"name": "renamed"})


@final
class Nothing(Objective):
    name: ClassVar[str] = "nothing"
    title: ClassVar[str] = "no cost at all"
    unit: ClassVar[str] = ""

    def declare(self, ctx, weight):
        pass
"""

ENTRIES = """
[lateral.formulations]
renamed = their_package:RENAMED

[lateral.objectives]
nothing = their_package:Nothing
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path with entry points, as pip would install it."""
    (tmp_path / "their_package.py").write_text(textwrap.dedent(PACKAGE))
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_found_by_name() -> None:
    assert formulations.get("renamed").name == "renamed"
    assert objectives.get("cost+2*nothing").terms[1][1].name == "nothing"
    assert plugins.names("lateral.objectives") == ("nothing",)
    with pytest.raises(OptionError, match="Did you mean 'renamed'"):
        formulations.get("renamd")


def test_nothing_installed() -> None:
    assert plugins.names("lateral.formulations") == ()
    assert plugins.find("lateral.formulations", "renamed") is None
    with pytest.raises(OptionError, match="there is no objective 'nothing'"):
        objectives.get("nothing")
