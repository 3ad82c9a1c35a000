"""Process: every area in a process of its own on this machine, started once and kept.

A worker is ``python -m lateral.areas.worker`` on one end of a socket pair: no port is opened, nothing is pickled. Its
case reaches it as a case folder in a private temporary directory that is gone again before `start` returns. A worker
ends with us, whatever ends us.
"""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from os import environ
from pathlib import Path
from typing import IO, Any, ClassVar, final

from lateral.areas.executors._shared import balanced, sizes
from lateral.areas.executors.base import Executor
from lateral.areas.message import MessageError
from lateral.areas.protocol import AreaSpec, Failure
from lateral.areas.worker import ONE_THREAD, Frames, frame, task_data
from lateral.errors import SolveError
from lateral.io.tables import write_folder

#: What is started; the socket is its standard input.
COMMAND = (sys.executable, "-P", "-m", "lateral.areas.worker")
_PIECE = 2**20
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class _Worker:
    """One process and our end of its link. Never blocks.

    Attributes:
        areas: the areas it has.
        ended: why it is of no more use; empty while it is.
        busy: area by number of what it was asked and has not answered, wanted or not.
        wanted: number by area of what is waited for now.
        since: when it was asked, or answered last.
    """

    def __init__(self, areas: tuple[str, ...]) -> None:
        self.areas = areas
        self.ended = ""
        self.busy: dict[int, str] = {}
        self.wanted: dict[str, int] = {}
        self.since = 0.0
        self._next: dict[str, bytes] = {}  # what an area is asked when it is done with an earlier, late answer
        self._out = bytearray()
        self._frames = Frames()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self.link, theirs = socket.socketpair()
        with theirs:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                COMMAND,
                env={**environ, **ONE_THREAD},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                start_new_session=True,  # an interrupt at the terminal is for us
            )
        self.link.settimeout(0.0)

    def ask(self, number: int, area: str, operation: str, request: Mapping[str, Any]) -> None:
        """Ask an area; when it is still at something older, that comes first."""
        data = frame({"number": number, "area": area, "do": operation, "with": request})
        if not self.wanted:
            self.since = time.monotonic()
        self.wanted[area] = number
        if area in self.busy.values():
            self._next[area] = data
        else:
            self._send(number, area, data)

    def _send(self, number: int, area: str, data: bytes) -> None:
        self.busy[number] = area
        self._out += data

    def forget(self) -> list[str]:
        """Wait for nothing any more; the areas that were waited for. What they still answer is dropped."""
        late = list(self.wanted)
        self.wanted.clear()
        self._next.clear()
        return late

    @property
    def events(self) -> int:
        """What a selector is to watch for."""
        return _READ | _WRITE if self._out else _READ

    def write(self) -> None:
        """Send what the link takes."""
        try:
            while self._out:
                sent = self.link.send(memoryview(self._out)[:_PIECE])
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.end()

    def read(self) -> dict[str, Any]:
        """The replies that are wanted, by area, of what has come."""
        out: dict[str, Any] = {}
        try:
            while not self.ended:
                data = self.link.recv(_PIECE)
                if not data:
                    self.end()
                    break
                for came in self._frames.feed(data):
                    self._take(came, out)
        except BlockingIOError:
            pass
        except OSError:
            self.end()
        except MessageError as error:
            self.end(f"sent what is no answer ({error})")
        return out

    def _take(self, came: Mapping[str, Any], out: dict[str, Any]) -> None:
        number, area, reply = came.get("number"), came.get("area"), came.get("reply")
        if (
            not (isinstance(number, int) and isinstance(area, str) and isinstance(reply, dict))
            or self.busy.get(number) != area
        ):
            message = "not an answer to what was asked"
            raise MessageError(message)
        del self.busy[number]
        self.since = time.monotonic()
        if self.wanted.get(area) == number:
            del self.wanted[area]
            out[area] = reply
        elif area in self._next:
            self._send(self.wanted[area], area, self._next.pop(area))

    def end(self, reason: str = "") -> None:
        """End the process, if it has not ended; safe to call twice.

        Args:
            reason: why, where it is not its own doing.
        """
        if self.ended:
            return
        self.link.close()
        if reason:
            self.process.kill()
        try:
            code = self.process.wait(timeout=1.0)  # it closed its end, so that it is about to be gone
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.ended = reason or f"its process ended {_how(code)}{self._last_words()}"
        self._log.close()
        self.busy.clear()

    def _last_words(self) -> str:
        self._log.seek(0, 2)
        self._log.seek(max(0, self._log.tell() - 2000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""


@final
class Process(Executor):
    """Areas in processes of this machine.

    Args:
        n_workers: number of processes; areas share them in groups of about equal size. Absent: one per area.
        start_timeout_s: how long a worker may take to be there, s.

    Raises:
        OptionError: fewer than one worker.
    """

    name: ClassVar[str] = "process"
    title: ClassVar[str] = "a process per area on this machine"

    def __init__(self, *, n_workers: int | None = None, start_timeout_s: float = 120.0) -> None:
        balanced({}, n_workers)  # says what is wrong with the number before anything is started
        self.n_workers, self.start_timeout_s = n_workers, start_timeout_s
        self._specs: dict[str, AreaSpec] = {}
        self._workers: list[_Worker] = []
        self._of: dict[str, _Worker] = {}
        self._number = 0
        self._finalizer = weakref.finalize(self, _end_all, self._workers)

    def start(self, areas: Mapping[str, AreaSpec]) -> None:
        """See `Executor.start`; the workers start side by side."""
        self.close()
        self._specs = dict(areas)
        try:
            problems = self._launch(balanced(sizes(areas), self.n_workers))
        except BaseException:
            self.close()
            raise
        if problems:
            self.close()
            message = "; ".join(problems.values())
            raise SolveError(message)

    def map(
        self, operation: str, requests: Mapping[str, Mapping[str, Any]], *, timeout_s: float
    ) -> dict[str, dict[str, Any] | Failure]:
        """See `Executor.map`. Areas that share a worker are solved one after the other, each with ``timeout_s``."""
        out: dict[str, dict[str, Any] | Failure] = {}
        asked: list[_Worker] = []
        for area, request in requests.items():
            worker = self._of.get(area)
            if worker is None:
                out[area] = Failure(area, f"area {area!r} was not started")
            elif worker.ended:
                out[area] = _gone(area, worker)
            else:
                self._number += 1
                worker.ask(self._number, area, operation, request)
                if worker not in asked:
                    asked.append(worker)
        self._gather(asked, out, timeout_s)
        return {area: out[area] for area in requests}

    def restart(self, area: str) -> bool:
        """See `Executor.restart`.

        A worker that is gone, or does not answer, is replaced, and all of its areas begin anew; one that answers is
        kept, and the area begins anew in it.
        """
        worker = self._of.get(area)
        if worker is None:
            return False
        if not worker.ended:
            worker.read()  # a late answer may have come by now
        if not worker.ended and not worker.busy:
            reply = self.map("renew", {area: {}}, timeout_s=self.start_timeout_s)[area]
            return not isinstance(reply, Failure) and "error" not in reply
        worker.end("it did not answer, and was ended")
        self._workers.remove(worker)
        return not self._launch([worker.areas])

    def pids(self) -> dict[str, int]:
        """Process number of each area's worker."""
        return {area: worker.process.pid for area, worker in self._of.items()}

    def close(self) -> None:
        """See `Executor.close`."""
        _end_all(self._workers)
        self._of.clear()

    def _launch(self, groups: Sequence[tuple[str, ...]]) -> dict[str, str]:
        """Start a worker for each group, side by side; what went wrong, by area."""
        fresh: list[_Worker] = []
        requests = {}
        with tempfile.TemporaryDirectory(prefix="lateral-areas-") as folder:
            for k, area in enumerate(a for group in groups for a in group):
                spec = self._specs[area]
                place = write_folder(spec.case, Path(folder) / str(k))
                requests[area] = {"folder": str(place), "task": task_data(spec.task)}
            for group in groups:
                try:
                    worker = _Worker(group)
                except OSError as error:
                    return {area: f"area {area!r} does not start: {error}" for area in group}
                fresh.append(worker)
                self._workers.append(worker)
                self._of.update(dict.fromkeys(group, worker))
            replies = self.map("start", requests, timeout_s=self.start_timeout_s)
        problems = {}
        for area, reply in replies.items():
            if isinstance(reply, Failure):
                problems[area] = f"area {area!r} does not start: {reply.reason}"
            elif "error" in reply:
                problems[area] = f"area {area!r} does not start: {reply['error']}"
        for worker in fresh:
            if any(area in problems for area in worker.areas):
                worker.end("it did not start")
        return problems

    def _gather(self, workers: Sequence[_Worker], out: dict[str, dict[str, Any] | Failure], timeout_s: float) -> None:
        """Wait until every wanted reply has come, its worker is gone, or it is late."""
        with selectors.DefaultSelector() as selector:
            watched = {selector.register(w.link, w.events, w).fd: w for w in workers}
            while watched:
                left = min(w.since for w in watched.values()) + timeout_s - time.monotonic()
                for key, mask in selector.select(max(left, 0.0)):
                    worker = watched[key.fd]
                    if mask & _WRITE:
                        worker.write()
                    if mask & _READ and not worker.ended:
                        out.update(worker.read())
                now = time.monotonic()
                for fd, worker in list(watched.items()):
                    if worker.ended:
                        out.update({area: _gone(area, worker) for area in worker.forget()})
                    elif now - worker.since >= timeout_s:
                        reason = f"did not answer within {timeout_s:g} s"
                        late = {a: Failure(a, f"area {a!r} {reason}", gone=False) for a in worker.forget()}
                        out.update(late)
                    if not worker.wanted:
                        selector.unregister(fd)
                        del watched[fd]
                    else:
                        selector.modify(fd, worker.events, worker)


def _gone(area: str, worker: _Worker) -> Failure:
    return Failure(area, f"area {area!r} is gone: {worker.ended}")


def _end_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end("it was ended")


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


__all__ = ["Process"]
