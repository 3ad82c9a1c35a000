"""Executors: the same numbers everywhere, and what happens when a worker dies, hangs, is late or talks nonsense."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lateral
from lateral.areas.agent import Task
from lateral.areas.algorithms import EnappPriced
from lateral.areas.driver import Patience
from lateral.areas.executors import BUILT_IN, Executor, Serial, get, process
from lateral.areas.executors._shared import balanced
from lateral.areas.executors.dask_ import Dask
from lateral.areas.executors.process import Process
from lateral.areas.message import MessageError
from lateral.areas.partition import Partition, cut, cut_by_buses
from lateral.areas.protocol import AreaSpec, Failure, pack
from lateral.areas.run import AreasRun
from lateral.areas.solve import area_specs, solve_areas
from lateral.areas.worker import Frames, Host, frame, pack_spec, task_data, unpack_spec
from lateral.errors import OptionError, SolveError
from lateral.solvers import Status

CUTS = ("line.2-3", "line.5-6", "line.9-10")


def ieee123() -> Partition:
    return cut_by_buses(lateral.read("ieee123-t5"))


def two_areas() -> dict[str, AreaSpec]:
    """The 33 buses cut once; the power that the lower area draws says which voltage it was asked at."""
    task = Task(formulation="soc", objective="loss", coupling="tariff")
    return area_specs(cut(lateral.read("case33bw"), CUTS[1:2]), task)


def ask(v: float) -> dict[str, Any]:
    """A request to the area below the cut."""
    return {"borders": {"5-6": {"v": np.full((1, 1), v)}}}


def gone(pid: int) -> bool:
    """Whether a process has ended (one that nobody has waited for yet has, too)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_until(what: Any, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(what())


# --- names and groups


def test_registry() -> None:
    assert list(BUILT_IN) == ["serial", "process", "dask", "helics"]
    assert isinstance(get("serial"), Serial)
    made = get("process", n_workers=3)
    assert isinstance(made, Process) and made.n_workers == 3
    with pytest.raises(OptionError, match="Did you mean 'process'"):
        get("proces")
    with pytest.raises(OptionError, match=r"no option 'n_worker'.*Did you mean 'n_workers'"):
        get("process", n_worker=3)
    with pytest.raises(OptionError, match="n_workers is 0; at least 1"):
        get("process", n_workers=0)


def test_dask_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(OptionError, match=r"pip install 'lateral\[dask\]'"):
        get("dask")


def test_balanced() -> None:
    # the largest first, each to the lightest: 7 | 5; 4 -> 7|9; 3 -> 10|9; 1 -> 10|10
    sizes = {"a": 3, "b": 7, "c": 1, "d": 5, "e": 4}
    assert balanced(sizes, 2) == [("a", "b"), ("c", "d", "e")]
    assert balanced(sizes, None) == [("b",), ("d",), ("e",), ("a",), ("c",)]
    assert balanced({"root": 1, "left": 9, "right": 9}, 2) == [("root", "left"), ("right",)]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 15))
def test_balanced_is_a_partition(numbers: list[int], n: int) -> None:
    sizes = {str(k): v for k, v in enumerate(numbers)}
    groups = balanced(sizes, n)
    assert sorted(a for g in groups for a in g) == sorted(sizes)
    assert len(groups) == min(n, len(sizes)) and all(groups)
    # never more than the largest area above the mean: the bound of this rule
    weight = [sum(max(sizes[a], 1) for a in g) for g in groups]
    assert max(weight) <= sum(weight) / len(weight) + max(max(v, 1) for v in numbers)


# --- frames and cases


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(), max_size=3), max_size=5), st.data())
@settings(deadline=None)
def test_frames_come_in_any_pieces(said: list[dict[str, int]], data: st.DataObject) -> None:
    stream = b"".join(frame(one) for one in said)
    at = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    frames = Frames()
    out = []
    for low, high in zip([0, *at], [*at, len(stream)], strict=True):
        out += frames.feed(stream[low:high])
    assert out == said


def test_case_survives_the_way() -> None:
    for name, spec in area_specs(ieee123(), Task(formulation="nonlinear", tolerance=1e-9, share=0.3)).items():
        back = unpack_spec(pack_spec(spec))
        assert (back.name, back.task) == (name, spec.task)
        assert back.case.hash == spec.case.hash
        assert [d.label for d in back.case.devices] == [d.label for d in spec.case.devices]


def test_what_is_no_area() -> None:
    spec = two_areas()["2"]
    raw = json.loads(pack_spec(spec))
    for bad in ({**raw, "files": {"../case.toml": "x"}}, {**raw, "task": {"no_such": 1}}, {"area": "2"}):
        with pytest.raises(MessageError):
            unpack_spec(pack(bad))
    with pytest.raises(OptionError, match="objective is EnergyCost and cannot be sent"):
        task_data(Task(objective=lateral.objectives.EnergyCost()))  # type: ignore[arg-type]


def test_an_error_names_its_area() -> None:
    host = Host()
    assert host.answer("2", "solve", {}) == {"error": "area '2' is not here"}
    assert "area '2'" in host.answer("2", "start", {"folder": "/nowhere", "task": {}})["error"]
    spec = two_areas()["2"]
    host.start("2", spec.case, spec.task)
    assert "does not know the operation 'dance'" in host.answer("2", "dance", {})["error"]
    assert "area '2'" in host.answer("2", "solve", {"borders": {"5-6": {"nonsense": [[1.0]]}}})["error"]


# --- the same numbers


def reference(partition: Partition, **options: Any) -> AreasRun:
    return solve_areas(partition, EnappPriced(), tolerance=1e-7, central=False, with_replay=False, **options)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ieee123-t5": (ieee123, {"formulation": "nonlinear"}),
    "case33bw-areas": (
        lambda: cut(lateral.read("case33bw-areas"), CUTS),
        {"formulation": "nonlinear", "objective": "loss"},
    ),
}


@pytest.fixture(scope="module")
def serial_runs() -> dict[str, AreasRun]:
    return {name: reference(make(), **options) for name, (make, options) in CASES.items()}


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A Dask cluster as somebody else's: its address."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=60, memory_limit=0
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["process", "dask"])
def test_same_numbers(name: str, kind: str, serial_runs: dict[str, AreasRun], request: pytest.FixtureRequest) -> None:
    options = {"n_workers": 2} if kind == "process" else {"address": request.getfixturevalue("scheduler")}
    make, how = CASES[name]
    run, same = reference(make(), executor=get(kind, **options), **how), serial_runs[name]
    assert run.executor == kind and run.status is same.status is Status.OPTIMAL
    assert run.result is not None and same.result is not None
    assert run.result.objective == pytest.approx(same.result.objective, rel=1e-9)
    assert len(run.rounds) == len(same.rounds)
    for ours, theirs in zip(run.rounds, same.rounds, strict=True):
        assert ours.objective == pytest.approx(theirs.objective, rel=1e-9)
        assert ours.cost == pytest.approx(theirs.cost, rel=1e-9, nan_ok=True)
        # a residual is a difference of numbers of size 1: it has the rounding of those, not of itself
        assert ours.residual == pytest.approx(theirs.residual, rel=1e-9, abs=1e-12)


# --- process: what can go wrong


def drawn(reply: Mapping[str, Any] | Failure) -> float:
    assert not isinstance(reply, Failure), reply
    return float(np.asarray(reply["borders"]["5-6"]["p"])[0, 0])


@pytest.fixture(scope="module")
def at_voltage() -> dict[float, float]:
    """Power that the lower area draws at a squared voltage, from this process."""
    executor = Serial()
    executor.start(two_areas())
    out = {v: drawn(executor.map("solve", {"2": ask(v)}, timeout_s=60.0)["2"]) for v in (0.9, 1.0, 1.05)}
    assert len({round(p, 2) for p in out.values()}) == 3
    return out


@pytest.fixture(scope="module")
def pair() -> Iterator[Process]:
    """Two areas in two processes."""
    with Process() as executor:
        executor.start(two_areas())
        yield executor


def check_alive(executor: Executor, at_voltage: Mapping[float, float]) -> None:
    # each solve starts from the last one: the solver's tolerance of 1e-8 is in the numbers
    for v, p in at_voltage.items():
        assert drawn(executor.map("solve", {"2": ask(v)}, timeout_s=60.0)["2"]) == pytest.approx(p, rel=1e-6)


def failure(reply: object) -> Failure:
    assert isinstance(reply, Failure), reply
    return reply


def test_late_answer_is_not_the_next_one(pair: Process, at_voltage: dict[float, float]) -> None:
    pid = pair.pids()["2"]
    os.kill(pid, signal.SIGSTOP)
    for v in (0.9, 1.0):  # the second is never sent: the first is still unanswered
        begin = time.monotonic()
        late = failure(pair.map("solve", {"2": ask(v)}, timeout_s=0.2)["2"])
        assert time.monotonic() - begin < 10.0
        assert (late.area, late.gone) == ("2", False) and "area '2' did not answer within 0.2 s" in late.reason
    os.kill(pid, signal.SIGCONT)
    assert drawn(pair.map("solve", {"2": ask(1.05)}, timeout_s=60.0)["2"]) == pytest.approx(at_voltage[1.05], rel=1e-6)
    assert pair.pids()["2"] == pid
    check_alive(pair, at_voltage)


def test_hanging_area_is_replaced(pair: Process, at_voltage: dict[float, float]) -> None:
    pids = pair.pids()
    os.kill(pids["2"], signal.SIGSTOP)
    assert not failure(pair.map("solve", {"2": ask(0.9)}, timeout_s=0.2)["2"]).gone
    assert pair.restart("2")
    assert gone(pids["2"]) and pair.pids()["1"] == pids["1"]
    check_alive(pair, at_voltage)


def test_dead_area(pair: Process, at_voltage: dict[float, float]) -> None:
    pid = pair.pids()["2"]
    os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    replies = pair.map("solve", {"1": {}, "2": ask(0.9)}, timeout_s=600.0)
    assert time.monotonic() - begin < 60.0  # and not 600: a death is seen, not waited for
    dead = failure(replies["2"])
    assert dead.gone and dead.reason == "area '2' is gone: its process ended by SIGKILL"
    assert not isinstance(replies["1"], Failure)
    assert failure(pair.map("solve", {"2": ask(0.9)}, timeout_s=600.0)["2"]) == dead
    assert pair.restart("2") and pair.pids()["2"] != pid
    check_alive(pair, at_voltage)


def test_dead_area_with_others_in_its_worker(at_voltage: dict[float, float]) -> None:
    with Process(n_workers=1) as executor:
        executor.start(two_areas())
        pids = executor.pids()
        assert pids["1"] == pids["2"]
        assert executor.restart("2") and executor.pids() == pids  # nothing is wrong with the worker: it is kept
        os.kill(pids["1"], signal.SIGKILL)
        replies = executor.map("solve", {"1": {}, "2": ask(0.9)}, timeout_s=600.0)
        assert failure(replies["1"]).gone and failure(replies["2"]).gone
        assert executor.restart("2") and executor.restart("1")
        assert len(set(executor.pids().values())) == 1
        check_alive(executor, at_voltage)


def test_unknown_area_and_closed_executor(pair: Process) -> None:
    assert "area '7' was not started" in failure(pair.map("solve", {"7": {}}, timeout_s=1.0)["7"]).reason
    assert not pair.restart("7")
    closed = Process()
    closed.close()
    assert failure(closed.map("solve", {"1": {}}, timeout_s=1.0)["1"]).gone


def test_area_that_does_not_start() -> None:
    with Process(start_timeout_s=0.0) as executor, pytest.raises(SolveError, match="area '1' does not start"):
        executor.start(two_areas())
    assert executor.pids() == {}


#: A worker that starts like one and then says something else.
LIAR = """
import json, socket, struct, sys
link = socket.socket(fileno=0)
def hear():
    n = struct.unpack("!I", link.recv(4, socket.MSG_WAITALL))[0]
    return json.loads(link.recv(n, socket.MSG_WAITALL))
def say(data):
    link.sendall(struct.pack("!I", len(data)) + data)
a = hear()
say(json.dumps({"number": a["number"], "area": a["area"], "reply": {}}).encode())
a = hear()
n, x = a["number"], a["area"]
exec(sys.argv[1])
hear()
"""
NONSENSE = {
    "no frame": "link.sendall(b'lp0 on fire ' * 100)",
    "no json": "say(b'{')",
    "no object": "say(b'[1]')",
    "no number": "say(json.dumps({'area': x, 'reply': {}}).encode())",
    "other number": "say(json.dumps({'number': n + 1, 'area': x, 'reply': {}}).encode())",
    "other area": "say(json.dumps({'number': n, 'area': x + 'x', 'reply': {}}).encode())",
    "no reply": "say(json.dumps({'number': n, 'area': x, 'reply': 7}).encode())",
    "number is a list": "say(json.dumps({'number': [n], 'area': [x], 'reply': {}}).encode())",
    "deep": "say(b'[' * 100000)",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_a_failure(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-I", "-S", "-c", LIAR, NONSENSE[what]))
    with Process() as executor:
        executor.start({"2": two_areas()["2"]})
        pid = executor.pids()["2"]
        found = failure(executor.map("solve", {"2": ask(0.9)}, timeout_s=60.0)["2"])
        assert found.gone and found.reason.startswith("area '2' is gone: sent what is no answer")
        assert gone(pid)  # what cannot be understood is not left running


def test_worker_that_ends_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    end = "sys.stderr.write('out of paper\\n'); sys.exit(3)"
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-I", "-S", "-c", LIAR, end))
    with Process() as executor:
        executor.start({"2": two_areas()["2"]})
        found = failure(executor.map("solve", {"2": ask(0.9)}, timeout_s=60.0)["2"])
        assert found.reason == "area '2' is gone: its process ended with exit code 3: out of paper"


# --- process: nothing is left behind

SCRIPT = """
import os, signal, sys, threading
import lateral
from lateral.areas.agent import Task
from lateral.areas.executors.process import Process
from lateral.areas.partition import cut
from lateral.areas.solve import area_specs
if __name__ == "__main__":
    with Process(n_workers=1) as executor:
        executor.start(area_specs(cut(lateral.read("case33bw"), ["line.5-6"]), Task(formulation="soc")))
        print(executor.pids()["2"], flush=True)
        if sys.argv[1] == "interrupt":
            os.kill(executor.pids()["2"], signal.SIGSTOP)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            executor.map("solve", {"2": {}}, timeout_s=60.0)
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "no close":
            sys.modules["kept"] = executor
            Process.__exit__ = lambda *_: None
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no close", "interrupt", "kill"])
def test_nothing_is_left_behind(how: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), how],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 1, done.stderr
    assert (
        done.returncode == {"interrupt": 1, "kill": -signal.SIGKILL}.get(how, 0) or "KeyboardInterrupt" in done.stderr
    )
    assert wait_until(lambda: all(gone(pid) for pid in pids))
    assert list(temporary.iterdir()) == []


# --- a run in which an area dies


class Killer:
    """Kills the worker of an area after a round."""

    def __init__(self, executor: Process | Dask, area: str, after: int) -> None:
        self.executor, self.area, self.after = executor, area, after
        self.pids: dict[str, int] = {}

    def __call__(self, done: Any) -> None:
        if done.number == self.after:
            self.pids = self.executor.pids() if isinstance(self.executor, Process) else dask_pids(self.executor)
            os.kill(self.pids[self.area], signal.SIGKILL)


@pytest.mark.parametrize("restart", [True, False])
def test_area_killed_in_mid_run(restart: bool, serial_runs: dict[str, AreasRun]) -> None:
    make, how = CASES["case33bw-areas"]
    executor = Process(n_workers=2)
    killer = Killer(executor, "3", 2)
    run = reference(make(), executor=executor, patience=Patience(dead_s=0.0, restart=restart), progress=killer, **how)
    died = tuple(a for a in killer.pids if killer.pids[a] == killer.pids["3"])
    check_killed(run, died, "its process ended by SIGKILL", serial_runs["case33bw-areas"], restart=restart)
    assert len(set(killer.pids.values())) == 2 and all(gone(pid) for pid in killer.pids.values())
    assert executor.pids() == {}


def check_killed(run: AreasRun, died: tuple[str, ...], why: str, same: AreasRun, *, restart: bool) -> None:
    if restart:
        assert run.status is Status.OPTIMAL and run.degraded == ()
        # where a run arrives after a detour is within its tolerance, not at the last digit
        assert run.result is not None and same.result is not None
        assert run.result.objective == pytest.approx(same.result.objective, rel=1e-5)
    else:
        assert run.status is Status.DEGRADED and run.degraded and set(run.degraded) <= set(died)
        assert all(repr(a) in run.status_text for a in run.degraded)
        failed = [dict(r.failures) for r in run.rounds if r.failures]
        assert failed and all(text.startswith(f"area {a!r} is gone: {why}") for a, text in failed[0].items())


# --- dask


class Late:
    """What Dask gives for a call; answers when it is let."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.ready = answer, True

    def done(self) -> bool:
        return self.ready

    def result(self, timeout: float) -> bytes:
        if not self.ready:
            raise TimeoutError
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Actor:
    """An actor whose answers are given."""

    def __init__(self, *answers: Late) -> None:
        self.answers, self.asked = list(answers), 0

    def ask(self, _: bytes) -> Late:
        self.asked += 1
        return self.answers.pop(0)


def seated(actor: Actor) -> Dask:
    from lateral.areas.executors.dask_ import _Seat

    executor = Dask()
    executor._seats["2"] = _Seat("tcp://127.0.0.1:1")
    executor._seats["2"].actor = actor
    return executor


def test_dask_late_answer_is_dropped() -> None:
    pytest.importorskip("distributed")
    first, second = Late(pack({"n": 1})), Late(pack({"n": 2}))
    first.ready = False
    actor = Actor(first, second)
    executor = seated(actor)
    for _ in range(2):
        late = failure(executor.map("solve", {"2": {}}, timeout_s=0.01)["2"])
        assert not late.gone and "area '2' did not answer within 0.01 s" in late.reason
    assert actor.asked == 1  # asked nothing new while it is at something older
    first.ready = True
    assert executor.map("solve", {"2": {}}, timeout_s=0.01)["2"] == {"n": 2}


@pytest.mark.parametrize("answer", [b"{", b"[1]", OSError("Unable to contact Actor's worker"), ValueError("x")])
def test_dask_nonsense_is_a_failure(answer: bytes | Exception) -> None:
    pytest.importorskip("distributed")
    executor = seated(Actor(Late(answer)))
    found = failure(executor.map("solve", {"2": {}}, timeout_s=1.0)["2"])
    assert found.gone and found.reason.startswith("area '2' is gone: it")
    assert failure(executor.map("solve", {"2": {}}, timeout_s=1.0)["2"]) == found


def test_dask_options(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    pem = tmp_path / "a.pem"
    pem.write_text("")
    with pytest.raises(OptionError, match="it is tcp://host:port or tls://host:port"):
        Dask(address="localhost:8786")
    with pytest.raises(OptionError, match="tls://h:1 needs ca_file, cert_file, key_file"):
        Dask(address="tls://h:1")
    with pytest.raises(OptionError, match="TLS needs ca_file, cert_file, key_file; given: ca_file"):
        Dask(ca_file=pem)
    with pytest.raises(OptionError, match="is not encrypted, but"):
        Dask(address="tcp://h:1", ca_file=pem, cert_file=pem, key_file=pem)
    with pytest.raises(OptionError, match="key_file: there is no file"):
        Dask(ca_file=pem, cert_file=pem, key_file=tmp_path / "b.pem")
    with pytest.raises(SolveError, match=r"the Dask scheduler at tcp://127\.0\.0\.1:9 cannot be used"):
        Dask(address="tcp://127.0.0.1:9", start_timeout_s=0.3).start(two_areas())


def dask_pids(executor: Dask) -> dict[str, int]:
    """Process number of each area's Dask worker."""
    found = executor._client.run(os.getpid)
    return {area: found[seat.worker] for area, seat in executor._seats.items()}


@pytest.mark.slow
def test_dask_area_killed_in_mid_run(scheduler: str, serial_runs: dict[str, AreasRun]) -> None:
    """On somebody's cluster: the areas of the worker that died move to the other one."""
    make, how = CASES["case33bw-areas"]
    executor = Dask(address=scheduler)
    killer = Killer(executor, "3", 2)
    run = reference(make(), executor=executor, patience=Patience(dead_s=0.0), progress=killer, **how)
    died = tuple(a for a in killer.pids if killer.pids[a] == killer.pids["3"])
    check_killed(run, died, "its worker tcp://127.0.0.1:", serial_runs["case33bw-areas"], restart=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate that vouches for itself, for 127.0.0.1, made for this test."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=127.0.0.1"]
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return {"ca_file": cert, "cert_file": cert, "key_file": key}


@pytest.mark.slow
def test_dask_here_with_tls(
    certificate: dict[str, Path], at_voltage: dict[float, float], capfd: pytest.CaptureFixture[str]
) -> None:
    """A cluster of our own, encrypted: a second client needs the files; a hanging and a dead worker are replaced."""
    with Dask(n_workers=1, **certificate) as executor:
        executor.start({"2": two_areas()["2"]})
        address = executor._client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        with Dask(address=address, **certificate) as other:
            other.start({"2": two_areas()["2"]})
            check_alive(other, at_voltage)
        with pytest.raises(SolveError, match="cannot be used"):
            Dask(address=address.replace("tls", "tcp"), start_timeout_s=1.0).start(two_areas())
        check_alive(executor, at_voltage)
        first = dask_pids(executor)["2"]
        os.kill(first, signal.SIGSTOP)
        assert not failure(executor.map("solve", {"2": ask(0.9)}, timeout_s=0.3)["2"]).gone
        assert executor.restart("2") and gone(first)
        check_alive(executor, at_voltage)
        second = dask_pids(executor)["2"]
        os.kill(second, signal.SIGKILL)
        assert failure(executor.map("solve", {"2": ask(0.9)}, timeout_s=600.0)["2"]).gone
        assert executor.restart("2")
        last = dask_pids(executor)["2"]
        assert len({first, second, last}) == 3
        check_alive(executor, at_voltage)
        folder = Path(executor._cluster.worker_spec[0]["options"]["local_directory"])
        assert folder.is_dir()
    assert wait_until(lambda: gone(last))
    assert not folder.exists()
    said = capfd.readouterr()
    assert "Traceback" not in said.err and "distributed" not in said.err
