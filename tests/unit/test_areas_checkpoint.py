"""Checkpoints: what is written, going on from it, what is refused; runs that are killed; what a run says of itself."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lateral
from areas_toy import Clock, Toy, plan
from lateral.areas import checkpoint as files
from lateral.areas.agent import Task
from lateral.areas.algorithms import Enapp, EnappPriced
from lateral.areas.checkpoint import Checkpoint, CheckpointError, about
from lateral.areas.driver import Patience, Progress, iterate
from lateral.areas.executors import Serial
from lateral.areas.message import seal, unseal
from lateral.areas.partition import Partition, cut
from lateral.areas.run import OF_SOLVE, AreasRun, Round
from lateral.areas.solve import solve_areas
from lateral.areas.transport import Direct
from lateral.areas.verdict import verdict
from lateral.errors import OptionError
from lateral.solvers import Status

CUTS = ("line.2-3", "line.5-6", "line.9-10")
HOW: dict[str, Any] = {"formulation": "nonlinear", "objective": "loss", "with_replay": False, "central": False}
#: agreement so close that the objective has nine digits: it is flat at the optimum
CLOSE: dict[str, Any] = {**HOW, "tolerance": 1e-8}
ABOUT = about(plan(), "hash", EnappPriced(), Task())


def toy_rounds(state: Any = None, n: int = 6) -> list[Progress]:
    toy, clock = Toy(), Clock()
    loop = iterate(
        toy.plan, EnappPriced(), toy, Direct(toy.plan, run="r"), tolerance=0.0, state=state, pause=clock.pause
    )
    return [next(loop) for _ in range(n)]


def written(folder: Path, n: int = 3) -> list[Progress]:
    """A checkpoint of a toy run that stopped after n rounds."""
    rounds = toy_rounds(n=n)
    book = Checkpoint.begin(folder, ABOUT, "r")
    for done in rounds:
        book.save(done.state, done.round, finished=False)
    return rounds


def same(a: Any, b: Any) -> bool:
    """Equal all through, arrays bit for bit and of one shape."""
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and np.isnan(a):
        return isinstance(b, float) and np.isnan(b)
    return bool(a == b)


def test_state_and_rounds_come_back_bit_for_bit(tmp_path: Path) -> None:
    rounds = written(tmp_path / "c", 5)
    book, state, log = Checkpoint.resume(tmp_path / "c", ABOUT, plan())
    assert same(state, rounds[-1].state) and len(state.points) == 4
    assert len(log) == 5 and all(same(a, b.round) for a, b in zip(log, rounds, strict=True))
    assert book.run == "r"


def test_odd_numbers_come_back_too(tmp_path: Path) -> None:
    first = toy_rounds(n=1)[0]
    odd = {"b2": {"p": np.array([[-0.0, 5e-324]])}, "b3": {"p": np.array([[0.1 + 0.2, 1e308]])}}
    state = dataclasses.replace(
        first.state, residual=float("inf"), points=((np.zeros(0), np.zeros((3, 0))),), history=(odd, odd), held=odd
    )
    book = Checkpoint.begin(tmp_path / "c", ABOUT, "r")
    book.save(state, dataclasses.replace(first.round, objective=float("nan")), finished=False)
    _, back, log = Checkpoint.resume(tmp_path / "c", ABOUT, plan())
    assert same(back, state)
    assert np.isnan(log[0].objective)


def test_going_on_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = toy_rounds(n=9)
    written(tmp_path / "c", 4)
    _, state, _ = Checkpoint.resume(tmp_path / "c", ABOUT, plan())
    rest = toy_rounds(state, n=5)
    assert same(rest[-1].state, whole[-1].state)


def test_a_kill_between_the_two_files_loses_one_round(tmp_path: Path) -> None:
    rounds = written(tmp_path / "c", 3)
    log = tmp_path / "c" / files.ROUNDS
    for extra in (b'{"number":4', log.read_bytes().splitlines()[1] + b"\n"):
        before = log.read_bytes()
        log.write_bytes(before + extra)
        _, state, known = Checkpoint.resume(tmp_path / "c", ABOUT, plan())
        assert len(known) == 3 and same(state, rounds[-1].state)
        assert log.read_bytes() == before  # so that the next round is line 4
    log.write_bytes(log.read_bytes() + b'{"numb')
    book, _, _ = Checkpoint.resume(tmp_path / "c", ABOUT, plan())
    fourth = toy_rounds(n=4)[3]
    book.save(fourth.state, fourth.round, finished=True)
    assert len(Checkpoint.resume(tmp_path / "c", ABOUT, plan())[2]) == 4


def test_no_drafts_are_left(tmp_path: Path) -> None:
    written(tmp_path / "c")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == sorted([files.RUN, files.ROUNDS, files.STATE])


def codes(error: pytest.ExceptionInfo[CheckpointError]) -> set[str]:
    return {fault.code for fault in error.value.faults}


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        Checkpoint.resume(tmp_path / "none", ABOUT, plan())
    assert codes(error) == {files.ABSENT}


def test_another_run_is_refused_with_every_difference(tmp_path: Path) -> None:
    written(tmp_path / "c")
    others = {
        "case_hash": about(plan(), "other", EnappPriced(), Task()),
        "algorithm": about(plan(), "hash", EnappPriced(depth=0), Task()),
        "plan_hash": about(plan(3), "hash", EnappPriced(), Task()),
        "task": about(plan(), "hash", EnappPriced(), Task(objective="loss")),
    }
    for key, other in others.items():
        with pytest.raises(CheckpointError, match=key) as error:
            Checkpoint.resume(tmp_path / "c", other, plan())
        assert codes(error) == {files.ANOTHER} and len(error.value.faults) == 1
    with pytest.raises(CheckpointError) as error:
        Checkpoint.resume(tmp_path / "c", about(plan(3), "other", Enapp(), Task(objective="loss")), plan())
    assert len(error.value.faults) == 4


def test_an_unfinished_run_is_not_replaced(tmp_path: Path) -> None:
    rounds = written(tmp_path / "c")
    with pytest.raises(CheckpointError, match="after round 3") as error:
        Checkpoint.begin(tmp_path / "c", ABOUT, "new")
    assert codes(error) == {files.UNFINISHED}
    book, _, _ = Checkpoint.resume(tmp_path / "c", ABOUT, plan())
    book.save(rounds[-1].state, rounds[-1].round, finished=True)
    Checkpoint.begin(tmp_path / "c", ABOUT, "new")
    with pytest.raises(CheckpointError) as error:
        Checkpoint.resume(tmp_path / "c", ABOUT, plan())
    assert codes(error) == {files.ABSENT}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from([files.RUN, files.ROUNDS, files.STATE]))
def test_damaged_files_are_refused_never_a_traceback(tmp_path: Path, data: st.DataObject, name: str) -> None:
    """Truncated, overwritten, filled with anything: a coded fault. Nothing else comes out of it."""
    folder = tmp_path / "c"
    if not folder.exists():
        written(folder)
    file = folder / name
    good = file.read_bytes()
    at = data.draw(st.integers(0, len(good) - 2))
    kind = data.draw(st.sampled_from(["truncated", "replaced", "anything"]))
    bad = good[:at]
    if kind == "replaced":
        bad = good[:at] + data.draw(st.binary(min_size=1, max_size=8)) + good[at + 1 :]
    if kind == "anything":
        bad = data.draw(st.binary(max_size=50))
    file.write_bytes(bad)
    try:
        if bad != good:
            with pytest.raises(CheckpointError) as error:
                Checkpoint.resume(folder, ABOUT, plan())
            assert codes(error) <= {files.DAMAGED, files.ANOTHER}
    finally:
        file.write_bytes(good)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("state"),
        lambda raw: raw.update(state=[1, 2]),
        lambda raw: raw.update(format=2),
        lambda raw: raw.update(run="another"),
        lambda raw: raw["state"].pop("held"),
        lambda raw: raw["state"].update(surprise=1),
        lambda raw: raw["state"].update(round=7),
        lambda raw: raw["state"].update(round="x"),
        lambda raw: raw["state"].update(round=-1),
        lambda raw: raw["state"].update(held={"b2": raw["state"]["held"]["b2"]}),
        lambda raw: raw["state"].update(held=5),
        lambda raw: raw["state"]["held"]["b2"]["p"].update(shape=[9, 9]),
        lambda raw: raw["state"]["held"]["b2"].update(p={"shape": [1, 1], "values": [1.0]}),
        lambda raw: raw["state"]["held"]["b2"]["p"].update(values=[10**400, 1]),
    ],
)
def test_a_sound_checksum_does_not_help_what_cannot_be(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    written(tmp_path / "c")
    file = tmp_path / "c" / files.STATE
    raw = json.loads(unseal(file.read_bytes().strip()))
    change(raw)
    file.write_bytes(seal(json.dumps(raw).encode()))
    with pytest.raises(CheckpointError) as error:
        Checkpoint.resume(tmp_path / "c", ABOUT, plan())
    assert codes(error) == {files.DAMAGED}


def test_missing_files_are_damage(tmp_path: Path) -> None:
    for name in (files.RUN, files.ROUNDS):
        written(tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(CheckpointError) as error:
            Checkpoint.resume(tmp_path / name, ABOUT, plan())
        assert codes(error) == {files.DAMAGED}


# --- whole runs


@pytest.fixture(scope="module")
def partition() -> Partition:
    return cut(lateral.read("case33bw-areas"), CUTS)


@pytest.fixture(scope="module")
def whole(partition: Partition) -> AreasRun:
    return solve_areas(partition, **{**CLOSE, "central": True})


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def stop_after(n: int, kind: type[BaseException]) -> Callable[[Round], None]:
    def progress(done: Round) -> None:
        if done.number == n:
            raise kind

    return progress


def test_ctrl_c_and_resume(partition: Partition, whole: AreasRun, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        solve_areas(partition, checkpoint=folder, progress=stop_after(3, KeyboardInterrupt), **CLOSE)
    seen: list[int] = []
    run = solve_areas(partition, checkpoint=folder, resume=True, progress=lambda r: seen.append(r.number), **CLOSE)
    assert seen[0] == 4 and abs(len(run.rounds) - len(whole.rounds)) <= 2  # near 1e-8 solvers decide
    assert run.status is Status.OPTIMAL
    assert run.result is not None and whole.result is not None
    assert run.result.objective == pytest.approx(whole.result.objective, rel=1e-9)
    for a, b in zip(run.rounds, whole.rounds, strict=False):
        assert a.objective == pytest.approx(b.objective, rel=1e-6)  # solvers begin anew, within their tolerance
        assert a.messages == b.messages
    # a finished one: one more round, so that the areas have something to hand over
    again = solve_areas(partition, checkpoint=folder, resume=True, **HOW)
    assert again.status is Status.OPTIMAL and len(again.rounds) == len(run.rounds) + 1


def test_resume_without_a_folder_is_refused(partition: Partition) -> None:
    with pytest.raises(OptionError, match="checkpoint"):
        solve_areas(partition, resume=True, **HOW)


SCRIPT = """
import sys, time
import lateral
from lateral.areas.partition import cut
from lateral.areas.solve import solve_areas

print("ready", flush=True)
partition = cut(lateral.read("case33bw-areas"), {cuts!r})
solve_areas(partition, checkpoint=sys.argv[1], resume=sys.argv[2] == "resume", formulation="nonlinear",
            objective="loss", with_replay=False, central=False, tolerance=0.0, max_rounds=10**6,
            progress=lambda done: time.sleep(0.03))
"""


def test_killed_at_random_moments(partition: Partition, whole: AreasRun, tmp_path: Path) -> None:
    """SIGKILL, three times in a run that would never end; what follows goes on where the last one was."""
    folder, rng = tmp_path / "c", np.random.default_rng(os.getpid())

    def known() -> int:
        """Rounds that are safe."""
        state = folder / files.STATE
        return int(json.loads(state.read_bytes())["round"]) if state.exists() else 0

    for _ in range(3):
        before = known()
        how = "resume" if before else "begin"
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(cuts=CUTS), str(folder), how], stdout=subprocess.DEVNULL
        )
        while known() <= before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0.0, 0.05)))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
        safe = known()
        _, state, rounds = Checkpoint.resume(
            folder, json.loads(unseal((folder / files.RUN).read_bytes().strip()))["about"], lateral_plan(partition)
        )
        assert state.round == len(rounds) == safe > before  # nothing is lost but the round
    run = solve_areas(partition, checkpoint=folder, resume=True, **CLOSE)
    assert run.status is Status.OPTIMAL
    assert run.result is not None and whole.result is not None
    assert run.result.objective == pytest.approx(whole.result.objective, rel=1e-9)
    assert [r.number for r in run.rounds] == list(range(1, len(run.rounds) + 1))


def lateral_plan(partition: Partition) -> Any:
    from lateral.areas.plan import Plan

    return Plan.of(partition, "loss")


# --- what a run says of itself


def test_an_area_that_dies(partition: Partition, whole: AreasRun) -> None:
    executor = Serial()

    def progress(done: Round) -> None:
        if done.number == 4:
            executor.stop("3")

    run = solve_areas(
        partition,
        executor=executor,
        progress=progress,
        patience=Patience(dead_s=0.05, restart=False),
        **{**HOW, "central": True},
    )
    assert run.status is Status.DEGRADED and run.degraded == ("3",)
    assert "area '3'" in run.status_text and run.residual <= 1e-6
    # its last answer was repeated: the joined schedule is near the optimum, with what is between them at the border
    assert run.result is not None and run.result.status is Status.DEGRADED
    assert any("'3'" in choice for choice in run.choices)
    assert whole.result is not None
    assert run.result.objective == pytest.approx(whole.result.objective, rel=0.05)
    summary = run.summary()
    assert summary["degraded"] == ["3"] and summary["status"] == "degraded"
    assert summary["areas"]["3"]["problem"] == "area '3' is gone"


def test_the_root_dies_before_it_ever_answered(partition: Partition) -> None:
    class Rootless(Serial):
        def start(self, areas: Any) -> None:
            super().start(areas)
            self.stop("1")

    patience = Patience(dead_s=0.05, restart=False)
    run = solve_areas(partition, executor=Rootless(), patience=patience, **{**HOW, "central": True})
    assert run.status is Status.DEGRADED and run.degraded == ("1",) and run.result is None
    summary = run.summary()
    assert set(OF_SOLVE) <= set(summary) and summary["objective"] is None and summary["replay"] is None
    assert summary["gap_to_central"] is None and summary["case"] == partition.case.name
    json.dumps(summary, allow_nan=False)


def test_a_restart_in_time_ends_optimal(partition: Partition, whole: AreasRun) -> None:
    executor = Serial()

    def progress(done: Round) -> None:
        if done.number in (2, 5):
            executor.stop("1" if done.number == 2 else "3")

    run = solve_areas(partition, executor=executor, progress=progress, **HOW)
    assert run.status is Status.OPTIMAL and run.degraded == ()
    assert run.result is not None and whole.result is not None
    assert run.result.objective == pytest.approx(whole.result.objective, rel=1e-6)


def test_summary_has_the_keys_of_solve_and_its_own(whole: AreasRun) -> None:
    assert whole.result is not None
    assert set(OF_SOLVE) == set(whole.result.summary())
    own = {"rounds", "residual", "cost_per_round", "gap_to_central", "gap_per_round", "areas", "messages", "bytes"}
    summary = whole.summary()
    assert own | {"seconds_parallel", "degraded"} | set(OF_SOLVE) <= set(summary)
    assert summary["rounds"] == len(summary["gap_per_round"]) == len(summary["cost_per_round"])
    assert abs(summary["gap_to_central"]) <= 1e-6
    json.dumps(summary, allow_nan=False)


def test_plain_enapp_says_what_it_is(partition: Partition) -> None:
    run = solve_areas(partition, Enapp(), tolerance=1e-5, **{**HOW, "central": True})
    assert run.status is Status.INACCURATE
    assert "10.3 % above the central optimum" in run.status_text and "use auto or enapp-priced" in run.status_text
    assert run.gap_to_central == pytest.approx(0.103, abs=0.001)
    alone = solve_areas(partition, Enapp(), tolerance=1e-5, **HOW)
    assert alone.status is Status.INACCURATE and "use auto or enapp-priced" in alone.status_text


def test_a_limit_is_no_solution(partition: Partition) -> None:
    run = solve_areas(partition, max_rounds=2, **HOW)
    assert run.status is Status.LIMIT_REACHED and "after 2 rounds" in run.status_text
    assert run.result is not None and run.result.status is Status.LIMIT_REACHED


def rounds_of(**last: Any) -> list[Round]:
    base = toy_rounds(n=2)
    return [base[0].round, dataclasses.replace(base[1].round, **last)]


@pytest.mark.parametrize(
    ("last", "finished", "status", "text"),
    [
        (
            {"failures": {"3": "area '3': infeasible: v_max at bus 7"}, "statuses": {"3": "infeasible"}},
            True,
            Status.INFEASIBLE,
            "infeasible: area '3': v_max at bus 7",
        ),
        (
            {"failures": {"3": "area '3': the solver broke"}, "statuses": {"3": "error"}},
            True,
            Status.ERROR,
            "error: area '3': the solver broke",
        ),
        (
            {"failures": {"3": "area '3': limit reached: 1e-3 away"}, "statuses": {"3": "limit_reached"}},
            False,
            Status.LIMIT_REACHED,
            "limit reached: area '3': 1e-3 away",
        ),
        (
            {"stale": ("b3",), "residual": 0.0},
            False,
            Status.LIMIT_REACHED,
            "limit reached: after 2 rounds the areas differ by 0.0e+00 (tolerance 1e-06); "
            "nothing newer than the limit of age is known across border 'b3'",
        ),
        (
            {"failures": {"3": "area '3' is late"}, "statuses": {"1": "optimal"}, "residual": 0.0},
            False,
            Status.LIMIT_REACHED,
            "limit reached: after 2 rounds the areas differ by 0.0e+00 (tolerance 1e-06); area '3' is late",
        ),
    ],
)
def test_the_sentence_names_the_reason(last: dict[str, Any], finished: bool, status: Status, text: str) -> None:
    found = verdict(EnappPriced(), rounds_of(**last), None, None, finished=finished, dead=(), tolerance=1e-6)
    assert found == (status, text)
