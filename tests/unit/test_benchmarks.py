"""The benchmark registry and its smallest entry; what is measured is not gated."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import pytest

import lateral

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are beside the package, not in it

from benchmarks import measure, registry, table
from benchmarks.balanced import Balanced
from benchmarks.cli import environment

SMALLEST = "tree-128x5/lindistflow"


def test_models_have_what_they_name() -> None:
    models, rivals = registry.all_models(), registry.all_rivals()
    assert SMALLEST in models
    for name, model in models.items():
        assert name == model.name
        assert set(model.rivals) <= set(rivals), name
        assert all(rivals[r].formulation == model.formulation for r in model.rivals), name


def test_sizes_hold_the_smaller_ones() -> None:
    counts = [len(registry.up_to(size)) for size in registry.SIZES]
    assert 0 < counts[0] < counts[1] < counts[2] == len(registry.all_models())


@pytest.mark.parametrize("change", [{"size": "huge"}, {"phases": ("read", "fly")}])
def test_a_wrong_model_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"there (is|are) no"):
        dataclasses.replace(registry.all_models()[SMALLEST], **change)


def test_the_smallest_runs_in_its_own_process() -> None:
    model = dataclasses.replace(registry.all_models()[SMALLEST], repeats=1)
    lines: list[str] = []
    (row,) = measure.run([model], lines.append)
    assert "error" not in row, row
    assert set(row["wall"]) == set(row["cpu"]) == set(registry.PHASES)
    assert row["status"] == row["resolve_status"] == "optimal"
    assert row["replay"]["converged"]
    assert row["peak_mb"] > 10.0
    assert row["variables"] > 128 * 5
    assert row["engine"]["wall"] <= row["wall"]["solve"]
    assert len(lines) == 1
    assert SMALLEST in table.markdown([row])
    json.dumps(row)


def test_what_fails_or_takes_too_long_is_said() -> None:
    model = dataclasses.replace(registry.all_models()[SMALLEST], timeout_s=0.05)
    assert "no result within" in measure.measure(model, "lateral")["error"]
    assert "KeyError" in measure.measure(registry.all_models()[SMALLEST], "nobody")["error"]
    assert "error" in measure.median([{"error": "stopped"}])


def test_medians() -> None:
    found = measure.median([{"status": "optimal", "wall": {"read": x}} for x in (3.0, 1.0, 2.0)])
    assert found == {"status": "optimal", "wall": {"read": 2.0}, "runs": 3}


@pytest.mark.parametrize(("rival", "package"), [("cvxpy", "cvxpy"), ("casadi", "casadi")])
def test_rivals_solve_the_same_problem(rival: str, package: str) -> None:
    pytest.importorskip(package)
    own = registry.all_rivals()[rival]
    case = lateral.read("tree-20x4")
    ours = lateral.build(case, own.formulation).solve(own.engine)
    theirs = own.run(Balanced.of(case))
    assert theirs.objective == pytest.approx(ours.objective, rel=2e-7)
    assert theirs.iterations > 0


def test_a_feeder_that_is_not_here_is_not_run() -> None:
    absent = dataclasses.replace(registry.all_models()[SMALLEST], available=partial(bool, 0))
    assert not absent.available()


def test_the_environment_names_versions_only() -> None:
    found = environment()
    assert set(found) == {"python", "system", "threads", "versions"}
    assert "numpy" in found["versions"]
