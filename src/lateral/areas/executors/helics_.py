"""HELICS: every area a federate in a process of its own; the coordinator is one more.

`Helics` starts the areas itself, on this machine; `Owners` waits for areas that others have started, anywhere
(``lateral areas serve``). What crosses is text of ours (`lateral.areas.federate`). Needs the extra ``lateral[helics]``.

A dead area ends nothing here: the broker is told not to watch areas, so that it does not end the federation 2 s after
one is lost, as it would; who is gone is found out by us (the process of an area; a question to an owner's HELICS core,
which is answered also in the middle of a solve), is said with the area's name, and may join again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, final

from lateral.areas.broker import Broker
from lateral.areas.executors._shared import named
from lateral.areas.executors.base import Executor
from lateral.areas.member import (
    Connection,
    FederationLost,
    Member,
    Query,
    Recorder,
    coordinator_name,
    load,
    read_key,
    require_encryption,
)
from lateral.areas.message import MAX_BYTES, MessageError
from lateral.areas.protocol import AreaSpec, Failure, pack, unpack
from lateral.areas.worker import MAX_FRAME, ONE_THREAD, task_data
from lateral.errors import LateralError, SolveError
from lateral.io.tables import write_folder

#: What is started for an area; its standard input says the rest.
COMMAND = (sys.executable, "-P", "-m", "lateral.areas.federate")
#: Seconds after which an owner's core that does not answer a question of HELICS's own counts as gone.
LOST_S = 3.0
_POLL_S = 0.0003
_ASK_EVERY_S = 1.0
#: Texts that are taken at most before somebody looks at the clock again.
AT_ONCE = 1000


@dataclasses.dataclass(eq=False)
class _Seat:
    """What the coordinator knows of one area.

    Attributes:
        member: name of its federate; empty while there is none.
        lost: why it is gone; empty while it is there.
        busy: number of what it was asked and has not answered, wanted or not; 0 for none.
        process: its process, where it is ours, with what it says on standard error.
        pulse: a question to its core that is not answered yet.
        alive: when its core was heard of last.
    """

    member: str = ""
    lost: str = "it has not joined"
    busy: int = 0
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None
    pulse: Query | None = None
    alive: float = 0.0


class _Coordinator(Executor):
    """What both kinds share: a federate, areas that have joined, requests and replies."""

    def __init__(self, record: Recorder | None) -> None:
        self._record = record
        self._member: Member | None = None
        self._seats: dict[str, _Seat] = {}
        self._digests: Mapping[str, str] = {}
        self._federation = ""
        self._number = 0
        self._largest = MAX_FRAME

    def map(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any] | Failure]:
        """See `Executor.map`; returns within ``timeout_s``, whoever is gone."""
        out: dict[str, dict[str, Any] | Failure] = {}
        wanted: dict[str, int] = {}
        data: dict[str, dict[str, Any]] = {}
        asked: dict[str, str] = {}
        end = time.monotonic() + timeout_s
        try:
            self._hear({}, out)
            for area, request in requests.items():
                seat = self._seats.get(area)
                if seat is None or seat.lost:
                    out[area] = self._gone(area)
                    continue
                self._number += 1
                wanted[area] = self._number
                data[area] = {"do": operation, "number": self._number, "with": request}
                seat.alive = time.monotonic()
            while wanted:
                for area in wanted:
                    seat = self._seats[area]
                    # not while it is at something older; again, where another process has taken the area over
                    if asked.get(area) != seat.member and not seat.busy and not seat.lost:
                        asked[area], seat.busy = seat.member, wanted[area]
                        self._link.send(seat.member, data[area])
                came = self._hear(wanted, out)
                for area in list(wanted):
                    self._feel(area)
                    if self._seats[area].lost:
                        out[area] = self._gone(area)
                        del wanted[area]
                if time.monotonic() >= end:
                    for area in wanted:
                        out[area] = Failure(area, f"area {area!r} did not answer within {timeout_s:g} s", gone=False)
                    break
                if not came:
                    time.sleep(_POLL_S)
        except FederationLost as error:
            for area in requests:
                if area not in out:
                    out[area] = Failure(area, f"area {area!r} cannot be reached: {error}")
        return {area: out[area] for area in requests}

    @property
    def _link(self) -> Member:
        if self._member is None:
            message = "the executor 'helics' is not started"
            raise FederationLost(message)
        return self._member

    def _hear(self, wanted: dict[str, int], out: dict[str, dict[str, Any] | Failure]) -> bool:
        """Take what has come; whether there was anything.

        Raises:
            FederationLost: the broker is gone.
        """
        self._link.check()
        any_came = False
        for _ in range(AT_ONCE):  # a flood must not hold back what has a time limit
            came = self._link.receive()
            if came is None:
                break
            any_came = True
            source, data = came
            area = next((a for a, seat in self._seats.items() if seat.member == source), None)
            try:
                said = unpack(data, limit=self._largest)
            except MessageError as error:
                if area is not None:
                    self._seats[area].busy = 0
                    if wanted.pop(area, None) is not None:
                        out[area] = {"error": f"area {area!r} sent what is no answer: {error}"}
                continue
            match said.get("do"):
                case "hello":
                    self._greet(source, said)
                case "bye" if area is not None:
                    self._seats[area].lost = "its owner has ended it"
                case "reply" if area is not None:
                    seat = self._seats[area]
                    seat.alive = time.monotonic()
                    seat.lost = ""  # on a busy machine HELICS may take longer than `LOST_S` to say that it is there
                    if said.get("number") == seat.busy:
                        seat.busy = 0
                    if said.get("number") == wanted.get(area) and isinstance(said.get("reply"), dict):
                        del wanted[area]
                        out[area] = said["reply"]
        return any_came

    def _greet(self, source: str, said: Mapping[str, Any]) -> None:
        """Somebody says which area it is."""
        area = str(said.get("area"))
        seat = self._seats.get(area)
        reason = ""
        if seat is None:
            reason = f"there is no area {area!r} in this run"
        elif self._digests and said.get("digest") != self._digests.get(area):
            reason = "its case is not the one that the federation file means"
        elif not seat.lost and seat.member != source and not self._silent(area):
            reason = "another process has that area"
        if reason:
            self._link.send(source, {"do": "refused", "reason": reason})
            return
        assert seat is not None
        if seat.member != source:
            seat.member, seat.busy, seat.pulse = source, 0, None
        seat.lost, seat.alive = "", time.monotonic()
        self._link.send(source, {"do": "welcome"})

    def _silent(self, area: str) -> bool:
        """Whether the process that has the area does not answer HELICS any more; asks, and waits a little."""
        seat = self._seats[area]
        seat.alive, end = time.monotonic(), time.monotonic() + LOST_S + _ASK_EVERY_S + 0.5
        seat.pulse = self._link.ask(f"{seat.member}.core", "federates")
        while time.monotonic() < end:
            if (answer := seat.pulse.answer()) is not None:
                seat.pulse = None
                return seat.member not in answer
            time.sleep(0.01)
        seat.pulse = None
        return True

    def _feel(self, area: str) -> None:
        """See whether an area that is waited for is still there."""
        seat = self._seats[area]
        if seat.process is not None:
            if (code := seat.process.poll()) is not None:
                seat.lost = f"its process ended {_how(code)}{_last_words(seat.log)}"
            return
        now = time.monotonic()
        if seat.pulse is not None:
            if (answer := seat.pulse.answer()) is not None:
                seat.pulse = None
                if seat.member in answer:
                    seat.alive = now
                else:
                    seat.lost = "it has left the federation"
            elif now - seat.pulse.since >= LOST_S:
                seat.pulse, seat.lost = None, f"its process has not answered HELICS for {LOST_S:g} s"
        elif now - seat.alive >= _ASK_EVERY_S:
            seat.pulse = self._link.ask(f"{seat.member}.core", "federates")

    def _gone(self, area: str) -> Failure:
        seat = self._seats.get(area)
        return Failure(area, f"area {area!r} is gone: {seat.lost}" if seat else f"area {area!r} was not started")

    def _await(self, areas: list[str], timeout_s: float) -> dict[str, str]:
        """Wait until areas have joined; what keeps those that have not.

        Raises:
            FederationLost: the broker is gone.
        """
        end = time.monotonic() + timeout_s
        while True:
            self._hear({}, {})
            missing = [a for a in areas if self._seats[a].lost]
            dead = [a for a in missing if (p := self._seats[a].process) is not None and p.poll() is not None]
            for a in dead:
                self._feel(a)
            if not missing or dead or time.monotonic() >= end:
                return {a: self._seats[a].lost for a in missing}
            time.sleep(0.01)

    def _part(self) -> None:
        """Let every area go, and leave."""
        member, self._member = self._member, None
        if member is None:
            return
        with contextlib.suppress(FederationLost):
            for seat in self._seats.values():
                if seat.member and member.connected:
                    member.send(seat.member, {"do": "end"})
        member.close()


@final
class Helics(_Coordinator):
    """Areas of our own, each in a process of this machine.

    Args:
        broker: ``host:port`` of a running broker (``helics_broker -f 1 --dynamic ...``, see `docs/areas/helics.md`).
            Absent: one is started here, on 127.0.0.1 and a free port, and ended with the run.
        key_file: a file with the key that the broker was started with (``--brokerkey``). A broker of our own has a
            random one.
        encryption_config: HELICS's JSON file of certificates, for ``--encrypted``; needs a build of HELICS with
            encryption, which the wheel is not.
        start_timeout_s: how long an area may take to join, s.
        record: called with the direction and every text that crosses between coordinator and areas.

    Raises:
        OptionError: HELICS is not installed, or an option cannot be.
    """

    name: ClassVar[str] = "helics"
    title: ClassVar[str] = "a HELICS federate and process per area"

    def __init__(
        self,
        *,
        broker: str | None = None,
        key_file: str | None = None,
        encryption_config: str | None = None,
        start_timeout_s: float = 120.0,
        record: Recorder | None = None,
    ) -> None:
        super().__init__(record)
        load()
        if encryption_config:
            require_encryption()
        self.start_timeout_s = start_timeout_s
        self._given = connection(broker, key_file, encryption_config) if broker is not None else None
        self._own = "" if broker is not None else (read_key(key_file) or secrets.token_hex(16))
        self._encryption = encryption_config or ""
        self._connection: Connection | None = None
        self._broker: Broker | None = None
        self._specs: dict[str, AreaSpec] = {}

    def start(self, areas: Mapping[str, AreaSpec]) -> None:
        """See `Executor.start`; the areas start side by side."""
        self.close()
        self._specs = dict(areas)
        self._seats = {area: _Seat() for area in areas}
        try:
            self._join()
            problems = self._launch(list(areas))
        except BaseException:
            self.close()
            raise
        if problems:
            self.close()
            message = "; ".join(f"area {area!r} does not start: {why}" for area, why in problems.items())
            raise SolveError(message)

    def restart(self, area: str) -> bool:
        """See `Executor.restart`: a new process, in the same federation, or in a new one where the broker was lost."""
        seat = self._seats.get(area)
        if seat is None:
            return False
        try:
            if self._member is None or not self._member.connected:
                self._abandon()
                self._join()
            self._end(seat, "it was ended to be started again")
            return not self._launch([area])
        except (LateralError, OSError):
            return False

    def pids(self) -> dict[str, int]:
        """Process number of each area that was started."""
        return {area: seat.process.pid for area, seat in self._seats.items() if seat.process is not None}

    def close(self) -> None:
        """See `Executor.close`."""
        self._part()
        end = time.monotonic() + 2.0
        for seat in self._seats.values():
            if seat.process is not None and not seat.lost:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    seat.process.wait(max(end - time.monotonic(), 0.0))
        self._abandon()
        self._seats = {}

    def _abandon(self) -> None:
        """End what is ours of a federation."""
        member, self._member = self._member, None
        if member is not None:
            member.close()
        for seat in self._seats.values():
            self._end(seat, "its federation has ended")
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.close()

    def _end(self, seat: _Seat, reason: str) -> None:
        process, seat.process = seat.process, None
        log, seat.log = seat.log, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        if log is not None:
            log.close()
        seat.member, seat.busy, seat.pulse, seat.lost = "", 0, None, seat.lost or reason

    def _join(self) -> None:
        """A broker, and the coordinator's federate."""
        self._federation = secrets.token_hex(6)
        if self._given is not None:
            self._connection = self._given
            self._member = Member(coordinator_name(self._federation), self._given, watched=True, record=self._record)
            return
        core = "tcpss" if self._encryption else "zmq"
        self._broker = Broker(key=self._own, core=core, encryption_config=self._encryption)
        self._connection = where = self._broker.connection
        self._member = Member(coordinator_name(self._federation), where, watched=True, record=self._record)

    def _launch(self, areas: list[str]) -> dict[str, str]:
        """Start processes side by side; what went wrong, by area."""
        with tempfile.TemporaryDirectory(prefix="lateral-areas-") as folder:
            places = {a: write_folder(self._specs[a].case, Path(folder) / str(k)) for k, a in enumerate(areas)}
            for area, place in places.items():
                self._spawn(area, place)
            return self._await(areas, self.start_timeout_s)

    def _spawn(self, area: str, place: Path) -> None:
        """Start the process of an area whose case is in a folder."""
        assert self._connection is not None
        seat = self._seats[area]
        start = {
            "connection": dataclasses.asdict(self._connection),
            "federation": self._federation,
            "area": area,
            "task": task_data(self._specs[area].task),
            "folder": str(place),
        }
        seat.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        seat.lost = "it has not joined"
        seat.process = subprocess.Popen(
            COMMAND,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=seat.log,
            start_new_session=True,  # an interrupt at the terminal is for us
        )
        with contextlib.suppress(BrokenPipeError):
            assert seat.process.stdin is not None
            seat.process.stdin.write(pack(start) + b"\n")
            seat.process.stdin.flush()


@final
class Owners(_Coordinator):
    """Areas that others own: this process has none of their cases, and cannot start them.

    Args:
        broker: ``host:port`` of a running broker.
        federation: identifier that every member makes of the federation file.
        digests: digest of each area's case; an area with another one is refused.
        key_file: a file with the key that the broker was started with.
        encryption_config: see `Helics`.
        start_timeout_s: how long to wait until every area has joined, s.
        record: see `Helics`.

    Raises:
        OptionError: HELICS is not installed, or an option cannot be.
    """

    name: ClassVar[str] = "helics"
    title: ClassVar[str] = "HELICS federates of separate owners"

    def __init__(
        self,
        broker: str,
        *,
        federation: str,
        digests: Mapping[str, str],
        key_file: str | None = None,
        encryption_config: str | None = None,
        start_timeout_s: float = 600.0,
        record: Recorder | None = None,
    ) -> None:
        super().__init__(record)
        load()
        if encryption_config:
            require_encryption()
        self.start_timeout_s = start_timeout_s
        self._connection = connection(broker, key_file, encryption_config)
        self._federation = federation
        self._digests = dict(digests)
        self._largest = MAX_BYTES

    @property
    def owns_areas(self) -> bool:
        """They are not ours."""
        return False

    def start(self, areas: Mapping[str, AreaSpec]) -> None:
        """Wait until every owner has joined.

        Args:
            areas: not looked at: the areas are those of the digests.

        Raises:
            SolveError: the broker is not there, or an area did not join in time.
        """
        self.close()
        self._seats = {area: _Seat() for area in self._digests}
        self._member = Member(coordinator_name(self._federation), self._connection, watched=True, record=self._record)
        missing = self._await(list(self._seats), self.start_timeout_s)
        if missing:
            self.close()
            message = (
                f"{named(list(missing))} did not join within {self.start_timeout_s:g} s; start 'lateral areas serve' "
                f"for each, with the same broker and the same federation file"
            )
            raise SolveError(message)

    def restart(self, area: str) -> bool:
        """Whether the area's owner has brought it back; does not wait."""
        try:
            self._hear({}, {})
        except FederationLost:
            return False
        seat = self._seats.get(area)
        return seat is not None and not seat.lost and not seat.busy

    def close(self) -> None:
        """Tell every area that the run is over, and leave."""
        member = self._member
        if member is not None and any(seat.member and seat.lost for seat in self._seats.values()):
            with contextlib.suppress(FederationLost):  # else the broker would wait for who will never leave
                self._dismiss(member)
        self._part()
        self._seats = {}

    def _dismiss(self, member: Member) -> None:
        for seat in self._seats.values():
            if seat.member and not seat.lost:
                member.send(seat.member, {"do": "end"})
        time.sleep(0.5)
        member.end_federation()


def connection(broker: str, key_file: str | None, encryption_config: str | None) -> Connection:
    """A connection from what users say.

    Raises:
        OptionError: an address, a key file or an encryption file that cannot be.
    """
    return Connection(
        broker=broker,
        core="tcpss" if encryption_config else "zmq",
        key=read_key(key_file),
        encryption_config=encryption_config or "",
    )


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def _last_words(log: IO[bytes] | None) -> str:
    if log is None:
        return ""
    log.seek(0, 2)
    log.seek(max(0, log.tell() - 2000))
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""


__all__ = ["LOST_S", "Helics", "Owners", "connection"]
