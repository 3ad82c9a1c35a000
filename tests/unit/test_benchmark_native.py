"""The comparison of the structured solver: one small measurement, the search at equal accuracy, and the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are beside the package, not in it

from benchmarks import native
from benchmarks.native_page import Page, exponents, write
from benchmarks.native_worker import PHASES
from benchmarks.svg import log_chart

Row = dict[str, Any]


@pytest.fixture(scope="module")
def measured() -> Row:
    job = {"stack": "native", "buses": 20, "steps": 4, "formulation": "nonlinear", "tolerance": 1e-8, "more": True}
    return {"what": "default", **{k: v for k, v in job.items() if k != "more"}, **native.one(job, 120.0, {})}


def test_a_measurement_has_every_part(measured: Row) -> None:
    assert "error" not in measured, measured
    assert measured["status"] == "optimal"
    assert set(measured["phases"]) == {*PHASES, "rest"}
    assert measured["absent"] == [], "the solver has changed; name the phases anew"
    assert sum(measured["phases"].values()) == pytest.approx(measured["wall"]["solve"])
    assert measured["inner"] > 0
    assert measured["peak_mb"] > 10.0
    assert measured["sweep"]["nonzeros"] > 20 * 4
    assert {"load cold", "load warm", "shift cold", "shift warm"} <= set(measured["wall"])
    for pair in measured["again"].values():
        assert pair["warm"]["objective"] == pytest.approx(pair["cold"]["objective"], rel=1e-7)


def test_what_fails_is_said() -> None:
    job = {"stack": "nobody", "buses": 20, "steps": 4, "formulation": "nonlinear"}
    assert "KeyError" in native.one(job, 60.0, {})["error"]
    assert "no result within" in native.one(job, 0.05, {})["error"]


def run_at(first: float, good: float) -> Row | None:
    """A search whose answers are good from a tolerance on."""

    def run(tolerance: float) -> Row:
        return {"tolerance": tolerance, "objective": 1.0 if tolerance <= good else 2.0, "residual": 0.0}

    return native.loosest(run, run(first), native.GRIDS["ipopt"], {"objective": 1.0})


def test_the_loosest_tolerance_that_is_accurate() -> None:
    for good in native.GRIDS["ipopt"]:
        for first in native.GRIDS["ipopt"]:
            found = run_at(first, good)
            assert found is not None
            assert found["tolerance"] == good
    assert run_at(1e-8, 1e-20) is None


def test_exponents_of_a_power() -> None:
    sizes = [(128, 5), (1000, 5), (1000, 24), (2500, 24)]
    found = exponents([(s, 3.0 * s[0] ** 1.1 * s[1] ** 0.9) for s in sizes])
    assert found is not None
    assert found[:2] == pytest.approx((1.1, 0.9))
    assert exponents([((128, 5), 1.0)]) is None


def test_the_page(tmp_path: Path, measured: Row) -> None:
    other = {**measured, "stack": "ipopt", "wall": {"solve": 10.0 * measured["wall"]["solve"]}}
    rows = [measured, {**measured, "what": "reference"}, other, {**other, "stack": "clarabel", "error": "stopped"}]
    data = {"environment": {"python": "3", "versions": {"numpy": "2"}}, "rows": json.loads(json.dumps(rows))}
    text = write(data, tmp_path).read_text()
    assert "| 20 x 4 |" in text
    assert "| 10.0 |" in text
    assert "**Preliminary**" in text
    assert "not measured" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "!"))) <= 200
    for name in Page(rows).pictures():
        assert f"images/{name}" in text
        ElementTree.fromstring((tmp_path / "images" / name).read_text())


def test_a_chart_of_nothing_is_still_a_picture() -> None:
    ElementTree.fromstring(log_chart({"none": []}, title="a < b", x_title="x", y_title="y"))
