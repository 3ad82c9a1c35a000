"""The set of feeders cut into areas, and its smallest rows; what is measured is not gated."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are beside the package, not in it

from benchmarks import areas
from benchmarks.area_cuts import METHODS, MODELS
from benchmarks.area_table import markdown

from lateral.areas.algorithms import BUILT_IN

SMALLEST = MODELS["case33bw-areas/nonlinear"]


def test_names_algorithms_and_sizes() -> None:
    assert all(name == model.name for name, model in MODELS.items())
    assert {m.algorithm.name for m in METHODS.values()} == set(BUILT_IN)
    counts = [len(areas.chosen("", size)) for size in ("small", "medium", "large")]
    assert 0 < counts[0] < counts[1] < counts[2] == len(MODELS)
    assert [m.name for m in areas.chosen("33bw", "large")] == [SMALLEST.name]


@pytest.mark.parametrize("change", [{"size": "huge"}, {"methods": ("simplex",)}])
def test_a_wrong_model_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"there (is|are) no"):
        dataclasses.replace(SMALLEST, **change)


def test_the_published_areas_are_cut_where_they_say() -> None:
    cut = SMALLEST.cut()
    assert len(cut.areas) == 4
    assert len(cut.borders) == 3


def test_rows_run_in_processes_of_their_own() -> None:
    rows = []
    for name in ("enapp-priced", "central", "largest-area"):
        row = areas.measure(SMALLEST, name)
        assert "error" not in row, row
        assert row["status"] == "optimal"
        rows.append({"model": SMALLEST.name, "algorithm": name, **row})
    run, whole, part = rows
    # the bar of the issue is 1e-5; a gap below zero can be no larger than what the borders leave open
    assert abs(run["gap"]) <= 1e-6
    assert abs(run["replayed"] / run["central_replayed"] - 1.0) <= 1e-5
    assert run["residual"] <= 1e-6
    # three borders; up and down a message each, every round
    assert run["messages"] == 6 * run["rounds"]
    assert len(run["iterations_per_round"]) == len(run["parallel_cpu_per_round"]) == run["rounds"]
    assert run["parallel_cpu"] <= run["areas_cpu"] + 1e-9
    assert part["variables"] < whole["variables"]
    text = markdown(rows)
    assert text.count(SMALLEST.name) == 2
    json.dumps(rows)


def test_what_fails_is_said() -> None:
    absent = dataclasses.replace(SMALLEST, name="nowhere")
    row = areas.measure(absent, "enapp-priced")
    assert "nowhere" in row["error"]
    assert "nowhere" in markdown([{"model": "nowhere", "algorithm": "enapp-priced", **row}])


def test_a_feeder_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    absent = dataclasses.replace(SMALLEST, available=partial(bool, 0))
    monkeypatch.setattr(areas, "MODELS", {absent.name: absent})
    areas.main(["--size", "large", "--algorithm", "enapp"])
    assert "the feeder is not here" in capsys.readouterr().out
