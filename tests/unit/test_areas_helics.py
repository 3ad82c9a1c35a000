"""HELICS: the same numbers; what happens when an area or the broker dies; what crosses where owners are separate."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lateral
from lateral.areas.agent import AreaAgent, Task
from lateral.areas.algorithms import EnappPriced
from lateral.areas.broker import BLOCK, LAST_PORT, Broker
from lateral.areas.driver import Patience
from lateral.areas.executors import get
from lateral.areas.executors.helics_ import COMMAND, Helics, Owners, connection
from lateral.areas.federate import Service, checked, serve
from lateral.areas.federation import Federation, federation_of, solve_federation
from lateral.areas.member import Connection, FederationLost, Member, area_name, read_key, require_encryption
from lateral.areas.message import MessageError
from lateral.areas.partition import Partition, cut, cut_by_buses
from lateral.areas.protocol import AreaSpec, Failure
from lateral.areas.run import Round
from lateral.areas.solve import area_specs, solve_areas
from lateral.errors import OptionError, SolveError
from lateral.solvers import Status

pytest.importorskip("helics")


def ieee123() -> Partition:
    return cut_by_buses(lateral.read("ieee123-t5"))


def two_areas() -> Partition:
    """The 33 buses cut once; linear, so that a solve takes milliseconds."""
    return cut(lateral.read("case33bw"), ("line.5-6",))


def specs() -> dict[str, AreaSpec]:
    return area_specs(two_areas(), Task(formulation="lindistflow", coupling="tariff"))


def ask(v: float) -> dict[str, Any]:
    """A request to the area below the cut."""
    return {"borders": {"5-6": {"v": np.full((1, 1), v)}}}


@pytest.fixture
def helics() -> Iterator[Helics]:
    with Helics() as executor:
        executor.start(specs())
        yield executor


def test_the_same_numbers_as_in_this_process() -> None:
    """JSON keeps every bit, and a solver is deterministic: every round is the same."""
    options: dict[str, Any] = {"formulation": "nonlinear", "central": False, "with_replay": False}
    here = solve_areas(ieee123(), EnappPriced(), **options)
    there = solve_areas(ieee123(), EnappPriced(), executor=get("helics"), **options)
    assert there.status is Status.OPTIMAL
    assert there.executor == "helics"
    assert [r.objective for r in there.rounds] == pytest.approx([r.objective for r in here.rounds], rel=1e-9)
    assert here.result is not None
    assert there.result is not None
    assert there.result.objective == pytest.approx(here.result.objective, rel=1e-9)


def test_a_killed_area_is_gone_at_once_and_comes_back(helics: Helics) -> None:
    """It is the process that tells, not a time-out: the answer is there long before ``timeout_s``."""
    before = helics.map("solve", {"2": ask(1.0)}, timeout_s=60.0)["2"]
    os.kill(helics.pids()["2"], signal.SIGKILL)
    begin = time.monotonic()
    out = helics.map("solve", {"1": {"borders": {}}, "2": ask(1.0)}, timeout_s=60.0)
    assert time.monotonic() - begin < 50.0
    gone = out["2"]
    assert isinstance(gone, Failure)
    assert gone.gone
    assert gone.reason == "area '2' is gone: its process ended by SIGKILL"
    living = out["1"]
    assert isinstance(living, dict)
    assert living["status"] == "optimal"
    assert helics.restart("2")
    after = helics.map("solve", {"2": ask(1.0)}, timeout_s=60.0)["2"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert after["borders"] == before["borders"]
    assert not helics.restart("9")


def test_a_late_area_is_not_gone_and_its_late_answer_is_not_taken_for_another(helics: Helics) -> None:
    pid = helics.pids()["2"]
    os.kill(pid, signal.SIGSTOP)
    try:
        late = helics.map("solve", {"2": ask(0.9)}, timeout_s=0.5)["2"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert late == Failure("2", "area '2' did not answer within 0.5 s", gone=False)
    now = helics.map("solve", {"2": ask(1.0)}, timeout_s=60.0)["2"]
    again = helics.map("solve", {"2": ask(1.0)}, timeout_s=60.0)["2"]
    assert isinstance(now, dict)
    assert isinstance(again, dict)
    assert now["borders"] == again["borders"]


def test_a_lost_broker_ends_nothing_that_a_restart_does_not_bring_back(helics: Helics) -> None:
    assert helics._broker is not None
    os.kill(helics._broker.pid, signal.SIGKILL)
    out = helics.map("solve", {"1": {}, "2": ask(1.0)}, timeout_s=20.0)
    for area, reply in out.items():
        assert isinstance(reply, Failure)
        assert repr(area) in reply.reason
    deadline = time.monotonic() + 20.0  # HELICS takes about 2 s to see it
    while helics._member is not None and helics._member.connected and time.monotonic() < deadline:
        time.sleep(0.05)
    # on a busy machine a member may not be in the new federation yet; whoever runs areas asks again too
    assert any(helics.restart("1") for _ in range(5))
    assert any(helics.restart("2") for _ in range(5))
    assert all(isinstance(r, dict) for r in helics.map("solve", {"1": {}, "2": ask(1.0)}, timeout_s=60.0).values())


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_in_which_an_area_is_killed(restart: bool) -> None:
    """Without a restart the run ends, is degraded and names it; with one it ends as if nothing had been."""
    executor = Helics()

    def kill(done: Round) -> None:
        if done.number == 1:
            os.kill(executor.pids()["3"], signal.SIGKILL)

    run = solve_areas(
        cut(lateral.read("case33bw"), ("line.2-3", "line.5-6")),
        EnappPriced(),
        formulation="lindistflow",
        objective="loss",
        executor=executor,
        progress=kill,
        patience=Patience(dead_s=0.2, restart=restart),
        central=False,
        with_replay=False,
    )
    if restart:
        assert run.status is Status.OPTIMAL
        assert run.degraded == ()
    else:
        assert run.status is Status.DEGRADED
        assert run.degraded == ("3",)
        assert "area '3'" in run.status_text
        assert "SIGKILL" in run.status_text


def test_an_area_that_does_not_start_is_named() -> None:
    bad = {name: dataclasses.replace(s, task=Task(formulation="lindistflow")) for name, s in specs().items()}
    bad["2"] = dataclasses.replace(bad["2"], task=Task(formulation="nonsense"))
    with Helics(start_timeout_s=60.0) as executor:
        executor.start(bad)  # a model is built on its first solve
        reply = executor.map("solve", {"2": {}}, timeout_s=60.0)["2"]
    assert isinstance(reply, dict)
    assert "'2'" in reply["error"]
    assert "nonsense" in reply["error"]


def test_without_a_start_every_area_is_gone() -> None:
    assert isinstance(Helics().map("solve", {"1": {}}, timeout_s=1.0)["1"], Failure)


# ------------------------------------------------------------------------------------------------ what users can say


def test_connections_that_cannot_be_are_refused_with_all_that_is_wrong() -> None:
    with pytest.raises(OptionError) as found:
        Connection(broker="nowhere", core="udp", key="two words", encryption_config="a b.json")
    for word in ("host:port", "zmq, tcpss", "a space", "can be encrypted", "path"):
        assert word in str(found.value)
    with pytest.raises(OptionError):
        Connection(broker="127.0.0.1:70000")
    assert "secret" not in repr(Connection(broker="h:1", key="secret"))


def test_keys_come_from_files(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("abc123\n")
    assert read_key(file) == "abc123"
    assert connection("127.0.0.1:23404", str(file), None).key == "abc123"
    file.write_text("two words")
    for path in (file, tmp_path / "none"):
        with pytest.raises(OptionError, match="key file"):
            read_key(path)


def test_what_cannot_be_encrypted_is_not_sent_in_the_clear() -> None:
    """HELICS without encryption would join all the same; the wheel of PyPI is such a build."""
    try:
        require_encryption()
    except OptionError:
        for make in (
            lambda: Helics(encryption_config="config.json"),
            lambda: Owners("127.0.0.1:9", federation="f", digests={}, encryption_config="config.json"),
            lambda: Member("m", Connection(broker="127.0.0.1:9", core="tcpss", encryption_config="config.json")),
        ):
            with pytest.raises(OptionError, match="no encryption"):
                make()
    else:
        assert Helics(encryption_config="config.json")._encryption == "config.json"


@pytest.fixture(scope="module")
def broker() -> Iterator[Connection]:
    """A broker with a key, as an operator starts one."""
    with Broker(key="sesame") as own:
        holder = Member("holder", own.connection)  # so that the broker stays when others leave
        yield own.connection
        holder.close()


def test_a_wrong_key_is_declined() -> None:
    """The broker of HELICS 3.6 then ends, so that it is not the one of the other tests. One with the right key joins
    first: there is a broker, and the key is what it minds."""
    with Broker(key="sesame") as own:
        where = own.connection
        holder = Member("holder", where)
        try:
            assert holder.connected
            with pytest.raises(SolveError, match=f"broker at {where.broker}") as found:
                Member("stranger", dataclasses.replace(where, key="wrong"))
            if "cannot be reached" in str(found.value):
                pytest.skip("the broker ended before it had said why it declines, as it may on a busy machine")
            assert "declines: the key is not the broker's" in str(found.value)
        finally:
            holder.close()


# ------------------------------------------------------------------------------------------- ports, joining, leaving


def test_ports_of_brokers_are_their_own() -> None:
    """A broker has a block of ports to itself, and none that an outgoing connection may have."""
    with Broker() as one, Broker() as two:
        ports = [one.connection.port, two.connection.port]
        assert abs(ports[0] - ports[1]) >= BLOCK
        assert max(ports) + BLOCK <= LAST_PORT < 32768  # where Linux begins with outgoing connections


def test_a_member_whose_port_is_taken_joins_at_another(broker: Connection) -> None:
    """The broker says which port is a member's and does not look whether it is free. HELICS tries it for 2 s."""
    with socket.socket() as taken:
        for port in range(broker.port + 5, broker.port + BLOCK - 1):  # up to the next one that a member would have
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                break
        member = Member("late", broker)
        assert member.name == "late.1"
        assert member.connected
        member.close()


def test_a_member_that_is_closed_is_used_by_nobody_and_freed_once(
    broker: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HELICS's handles are addresses: one that is used after it was freed, or freed twice, is another's by then."""
    capi = importlib.import_module("helics.capi")
    load, called = capi.loadSym, list[str]()

    def spied(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            called.append(name)
            return load(name)(*arguments)

        return call

    monkeypatch.setattr(capi, "loadSym", spied)
    member = Member("shared", broker)
    told = []

    def use() -> None:
        try:
            while True:
                member.check()
                member.receive()
        except FederationLost:
            told.append(True)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    member.close()
    member.close()
    for thread in threads:
        thread.join(10.0)
    assert told == [True] * 3
    for late in (lambda: member.ask("holder.core", "federates"), member.receive, member.end_federation):
        with pytest.raises(FederationLost):
            late()
    assert not member.connected
    freeing = [k for k, name in enumerate(called) if name in ("helicsFederateFree", "helicsFederateDestroy")]
    assert len(freeing) == 1
    assert not [name for name in called[freeing[0] :] if name.startswith("helicsFederateGet")]


def test_a_question_is_kept_until_its_answer_has_come(broker: Connection) -> None:
    """A thread of HELICS reads its words, perhaps only after who asked has given up."""
    member = Member("asker", broker)
    gone = weakref.ref(member.ask("holder.core", "federates"))
    assert gone() is not None
    member.close()
    assert gone() is None


def exit_of(body: str, where: Connection) -> list[str]:
    """What an interpreter says when a member leaves and when it ends: a member ``one`` was made and ``body`` ran."""
    code = f"""
import atexit, time, helics
from lateral.areas import member
atexit.unregister(helics.helicsCloseLibrary)
helics.helicsCloseLibrary = lambda: print("library closed", flush=True)
atexit.register(helics.helicsCloseLibrary)
leave = helics.helicsFederateDisconnect
helics.helicsFederateDisconnect = lambda federate: (leave(federate), print("left", flush=True))
one = member.Member(member.area_name("one"), member.Connection(broker={where.broker!r}, key={where.key!r}))
{body}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_member_leaves_before_helics_closes_its_library(broker: Connection) -> None:
    """Once, whether it was closed or not: the library frees what is left, and would leave with it a second time."""
    assert exit_of("", broker) == ["left", "library closed"]
    assert exit_of("one.close()", broker) == ["left", "library closed"]


def test_the_library_is_not_closed_under_a_member_that_cannot_leave(broker: Connection) -> None:
    stuck = "member.LEAVE_S = 0.1; helics.helicsFederateDisconnect = lambda federate: time.sleep(60.0); one.close()"
    assert exit_of(stuck, broker) == []


def test_an_area_that_was_taken_for_lost_is_there_once_it_replies(broker: Connection, tmp_path: Path) -> None:
    """On a busy machine HELICS may take longer to say that an area is there than we wait; its owner says no second
    hello, so that it would be lost for the rest of the run."""
    key = tmp_path / "key"
    key.write_text(broker.key)
    partition = two_areas()
    agreed = federation_of(partition, formulation="lindistflow")
    owners = [Owner(broker, agreed, partition, a) for a in ("1", "2")]
    with Owners(
        broker.broker, federation=agreed.identifier, digests=agreed.digests, key_file=str(key), start_timeout_s=60.0
    ) as where:
        where.start({})
        assert isinstance(where.map("collect", {"2": {}}, timeout_s=0.0)["2"], Failure)  # asked, and not waited for
        where._seats["2"].lost = "its process has not answered HELICS for 3 s"
        deadline = time.monotonic() + 30.0
        while not where.restart("2") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert isinstance(where.map("collect", {"2": {}}, timeout_s=30.0)["2"], dict)
    for owner in owners:
        owner.join(10.0)


def test_the_key_is_not_on_the_command_line_of_anything() -> None:
    with Helics() as executor:
        executor.start(specs())
        assert executor._connection is not None
        key = executor._connection.key
        assert len(key) == 32
        assert executor._broker is not None
        for pid in (*executor.pids().values(), executor._broker.pid):
            assert key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


# ------------------------------------------------------------------------------- what an area takes from the other side


def agent(coupling: str = "prices") -> AreaAgent:
    spec = area_specs(two_areas(), Task(formulation="lindistflow", coupling=coupling))["2"]
    return AreaAgent(spec.name, spec.case, spec.task)


@pytest.mark.parametrize(
    ("borders", "what"),
    [
        ({"9-10": {"v": [[1.0]]}}, "none of area '2'"),
        ({"5-6": {"p": [[1.0]]}}, "allowed: v, price_p, price_q"),
        ({"5-6": {"v": [[1.0, 1.0]]}}, "shape"),
        ({"5-6": {"v": [[float("nan")]]}}, "not finite"),
        ({"5-6": {"v": [[99.0]]}}, "outside of"),
        ({"5-6": {"v": [["one"]]}}, "no number"),
        ({"5-6": [1.0]}, "is told"),
        ([1.0], "no table"),
    ],
)
def test_an_area_refuses_values_that_cannot_be(borders: Any, what: str) -> None:
    with pytest.raises(MessageError, match=what):
        checked(agent(), "solve", {"borders": borders})
    reply = Service(agent=agent()).answer("solve", {"borders": borders})
    assert "area '2' refuses" in reply["error"]


@pytest.mark.parametrize("steps", [[1], [0, 0], "0", [True], [-1], [0.0]])
def test_an_area_refuses_steps_that_it_does_not_have(steps: Any) -> None:
    with pytest.raises(MessageError, match="whole numbers below 1"):
        checked(agent(), "power_flow", {"borders": {}, "steps": steps})


def test_in_consensus_terms_are_taken_and_weights_are_not_negative() -> None:
    fine = {"lin_p": [[-1.0]], "w_p": [[0.5]]}
    assert checked(agent("consensus"), "solve", {"borders": {"5-6": fine}})["borders"]["5-6"]["lin_p"] == [[-1.0]]
    for bad in ({"w_p": [[-0.5]]}, {"lin_v": [[float("inf")]]}, {"lin_q": [[1.0, 2.0]]}, {"v": [[1.0]]}):
        with pytest.raises(MessageError):
            checked(agent("consensus"), "solve", {"borders": {"5-6": bad}})


def test_an_owned_area_gives_no_schedule_and_no_words_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    owned = Service(agent=agent(), owned=True)
    assert "keeps its schedule" in owned.answer("collect", {})["error"]
    told = {"5-6": {"v": [[1.0]], "price_p": [[0.1]], "price_q": [[0.0]]}}
    reply = owned.answer("solve", {"borders": told})
    assert set(reply) == {"area", "status", "text", "borders", "seconds", "iterations", "objective", "cost", "slack"}
    assert set(reply["borders"]["5-6"]) == {"p", "q", "price_v"}
    quiet = Service(agent=agent(), owned=True, say_objective=False).answer("solve", {"borders": told})
    assert np.isnan(quiet["objective"])
    assert np.isnan(quiet["cost"])
    broken = Service(agent=AreaAgent("2", agent().case, Task(formulation="nonsense")), owned=True)
    assert "nonsense" not in broken.answer("solve", {"borders": told})["error"]
    assert "nonsense" in capsys.readouterr().err  # its owner is told


# ---------------------------------------------------------------------------------------------------- separate owners


class Owner(threading.Thread):
    """An owner's ``lateral areas serve``, as far as the coordinator can tell."""

    def __init__(
        self, where: Connection, federation: Federation, partition: Partition, area: str, **other: str
    ) -> None:
        super().__init__(daemon=True)
        self.ended = ""
        case = partition.areas[area].case
        federation.check_area(case, area)
        self.member = Member(area_name(federation.identifier), where)
        self.federation = federation.identifier
        agent = AreaAgent(other.get("name", area), case, federation.task(area))
        self.service = Service(agent=agent, digest=other.get("digest", case.hash), owned=True)
        self.start()

    def run(self) -> None:
        try:
            serve(self.member, self.service, self.federation)
            self.ended = "the run has ended"
        except SolveError as error:
            self.ended = str(error)
        finally:
            self.member.close()


def test_of_separate_owners_only_border_values_cross(broker: Connection, tmp_path: Path) -> None:
    """Every byte between coordinator and areas is read: words are of a closed list, and all numbers that are not a
    status, a count, seconds or the area's objective stand in arrays of the shape of a border."""
    partition = ieee123()
    agreed = federation_of(partition, formulation="nonlinear")
    key = tmp_path / "key"
    key.write_text(broker.key)
    crossed: list[tuple[str, bytes]] = []
    owners = [Owner(broker, agreed, partition, a) for a in partition.areas]
    run = solve_federation(
        agreed,
        Owners(
            broker.broker,
            federation=agreed.identifier,
            digests=agreed.digests,
            key_file=str(key),
            start_timeout_s=60.0,
            record=lambda way, data: crossed.append((way, data)),
        ),
    )
    here = solve_areas(partition, EnappPriced(), formulation="nonlinear", central=False, with_replay=False)
    assert run.status is Status.OPTIMAL
    assert run.result is None
    assert [r.objective for r in run.rounds] == pytest.approx([r.objective for r in here.rounds], rel=1e-9)
    for owner in owners:
        owner.join(10.0)
        assert owner.ended == "the run has ended"

    shapes = {name: agreed.plan.shape(name) for name in agreed.plan.borders}
    words = {"hello", "welcome", "reply", "solve", "end", *partition.areas, *agreed.digests.values()}
    words |= {w for s in Status for w in (s.word, s.value)}
    quantities = {"v", "p", "q", "price_v", "price_p", "price_q"}
    headers = {"do", "area", "digest", "number", "with", "reply", "status", "text", "seconds", "iterations", "slack"}

    def look(value: Any, *, inside: str) -> None:
        if isinstance(value, dict):
            for name, below in value.items():
                if name == "borders":
                    assert set(below) <= set(shapes)
                    for border, values in below.items():
                        assert set(values) <= quantities
                        assert all(np.array(v, dtype=float).shape == shapes[border] for v in values.values())
                else:
                    assert name in headers | {"objective", "cost"}
                    look(below, inside=name)
        elif isinstance(value, str):
            assert value in words
        else:
            assert inside in {"number", "seconds", "iterations", "objective", "cost", "slack"}
            assert isinstance(value, int | float)

    assert {way for way, _ in crossed} == {"sent", "received"}
    for _, data in crossed:
        look(json.loads(data), inside="")


def test_owners_with_another_case_or_name_are_refused_and_the_coordinator_says_who_is_missing(
    broker: Connection, tmp_path: Path
) -> None:
    partition = two_areas()
    agreed = federation_of(partition, formulation="lindistflow")
    key = tmp_path / "key"
    key.write_text(broker.key)
    first = Owner(broker, agreed, partition, "1")
    other = Owner(broker, agreed, partition, "2", digest="0" * 16)
    stray = Owner(broker, agreed, partition, "2", name="7")
    where = Owners(
        broker.broker, federation=agreed.identifier, digests=agreed.digests, key_file=str(key), start_timeout_s=8.0
    )
    with pytest.raises(SolveError, match=r"area '2' did not join within 8 s; start 'lateral areas serve'"):
        solve_federation(agreed, where)
    for owner, words in ((other, "case is not the one"), (stray, "no area '7'"), (first, "the run has ended")):
        owner.join(10.0)
        assert words in owner.ended


def test_a_lost_owner_is_named_and_may_come_back(broker: Connection, tmp_path: Path) -> None:
    """It leaves without a word; HELICS is asked, and knows nothing of it any more."""
    partition = two_areas()
    agreed = federation_of(partition, formulation="lindistflow")
    key = tmp_path / "key"
    key.write_text(broker.key)
    owners = [Owner(broker, agreed, partition, a) for a in ("1", "2")]
    with Owners(
        broker.broker, federation=agreed.identifier, digests=agreed.digests, key_file=str(key), start_timeout_s=60.0
    ) as where:
        assert not where.owns_areas
        where.start({})
        reply = where.map("collect", {"1": {}}, timeout_s=30.0)["1"]
        assert isinstance(reply, dict)
        assert "keeps its schedule" in reply["error"]
        owners[1].member.close()
        lost = where.map("solve", {"2": {}}, timeout_s=60.0)["2"]
        assert isinstance(lost, Failure)
        assert lost.gone
        assert "area '2'" in lost.reason
        assert not where.restart("2")
        Owner(broker, agreed, partition, "2")
        deadline = time.monotonic() + 30.0
        while not where.restart("2") and time.monotonic() < deadline:
            time.sleep(0.1)
        back = where.map("collect", {"2": {}}, timeout_s=30.0)["2"]
        assert isinstance(back, dict)


def test_a_broker_that_is_not_there_is_named() -> None:
    with pytest.raises(SolveError, match=r"broker at 127.0.0.1:9 cannot be reached"):
        Member("alone", Connection(broker="127.0.0.1:9"))


def test_started_by_hand_an_area_process_says_who_starts_it() -> None:
    done = subprocess.run(COMMAND, input=b"hello\n", capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
    assert b"lateral areas serve" in done.stderr
