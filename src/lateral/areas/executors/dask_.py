"""Dask: areas on the workers of a Dask cluster: one that is started here, or a scheduler's that runs on many machines.

Every area is an actor, pinned to one worker. What goes to it and comes back are bytes of ours; the class and the calls
themselves are pickled by Dask, and a scheduler runs what it is sent: let only those reach it who may (`docs/areas/
executors.md`). Needs the extra ``lateral[dask]``; workers of a given scheduler need lateral too.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from lateral.areas.executors._shared import balanced, sizes
from lateral.areas.executors.base import Executor
from lateral.areas.message import MessageError
from lateral.areas.protocol import AreaSpec, Failure, pack, unpack
from lateral.areas.worker import MAX_FRAME, ONE_THREAD, Host, pack_spec, unpack_spec
from lateral.errors import OptionError, SolveError

#: How long a scheduler may take to see that a worker is lost, s.
_NOTICED_S = 5.0


class DaskArea:
    """An area on a Dask worker; bytes in, bytes out."""

    def __init__(self) -> None:
        self._host = Host()
        self._name = ""

    def start(self, data: bytes) -> bytes:
        """Take the area in (`lateral.areas.worker.pack_spec`)."""
        try:
            spec = unpack_spec(data)
            self._name = spec.name
            self._host.start(spec.name, spec.case, spec.task)
        except Exception as error:  # what went wrong is for who asked, in words and not as a pickled exception
            return pack({"error": f"{type(error).__name__}: {error}"})
        return pack({})

    def ask(self, data: bytes) -> bytes:
        """Serve one request."""
        asked = unpack(data, limit=MAX_FRAME)
        return pack(self._host.answer(self._name, str(asked["do"]), asked["with"]))


class _Seat:
    """Where an area is.

    Attributes:
        worker: address of its Dask worker.
        future: keeps the actor there.
        actor: the actor; None when there is none.
        late: an answer that was not waited for any longer.
        lost: why it is gone; empty while it is there.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.future: Any = None
        self.actor: Any = None
        self.late: Any = None
        self.lost = ""


@final
class Dask(Executor):
    """Areas on Dask workers.

    Args:
        address: of a scheduler, ``tcp://host:port`` or ``tls://host:port``. Absent: a cluster of processes is started
            on this machine, reachable on 127.0.0.1 only, without a dashboard. Dask starts them in such a way that a
            script must do its work under ``if __name__ == "__main__":``.
        n_workers: number of workers; areas share them in groups of about equal size. Absent: one per area, or as many
            as the scheduler has.
        ca_file: certificate authority, PEM; with it, and the next two, everything is encrypted and both ends show who
            they are.
        cert_file: our certificate, PEM.
        key_file: its key, PEM.
        start_timeout_s: how long workers and areas may take to be there, s.

    Raises:
        OptionError: Dask is not installed, no such file, or options that do not go together.
    """

    name: ClassVar[str] = "dask"
    title: ClassVar[str] = "Dask workers, on this machine or on many"

    def __init__(
        self,
        *,
        address: str | None = None,
        n_workers: int | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        start_timeout_s: float = 120.0,
    ) -> None:
        _distributed()
        balanced({}, n_workers)  # says what is wrong with the number before anything is started
        self.address, self.n_workers, self.start_timeout_s = address, n_workers, start_timeout_s
        self._files = _tls_files(address, {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file})
        self._specs: dict[str, AreaSpec] = {}
        self._seats: dict[str, _Seat] = {}
        self._cluster: Any = None
        self._client: Any = None
        self._stack = contextlib.ExitStack()
        self._finalizer = weakref.finalize(self, self._stack.close)

    def start(self, areas: Mapping[str, AreaSpec]) -> None:
        """See `Executor.start`."""
        self.close()
        self._specs = dict(areas)
        packed = {name: pack_spec(spec) for name, spec in areas.items()}
        try:
            workers = self._connect(self.n_workers or len(areas))
            for worker, group in zip(workers, balanced(sizes(areas), len(workers)), strict=False):
                self._seats.update({area: _Seat(worker) for area in group})
            problems = self._seat_all(packed)
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
        data = {area: pack({"do": operation, "with": request}) for area, request in requests.items()}
        return self._call("ask", data, timeout_s)

    def restart(self, area: str) -> bool:
        """See `Executor.restart`.

        An area whose worker answers begins anew there. Of a cluster that was started here, a worker that does not
        answer is replaced; of a given scheduler, the area moves to another worker.
        """
        seat = self._seats.get(area)
        if seat is None or self._client is None:
            return False
        if not seat.lost and seat.late is None:
            reply = self.map("renew", {area: {}}, timeout_s=self.start_timeout_s)[area]
            if not isinstance(reply, Failure):
                return "error" not in reply
        try:
            worker = self._another(seat)
        except Exception:  # Dask raises many kinds when its scheduler is gone; there is no worker then
            worker = None
        if worker is None:
            return False
        self._seats[area] = _Seat(worker)
        return not self._seat_all({area: pack_spec(self._specs[area])})

    def close(self) -> None:
        """See `Executor.close`."""
        self._seats.clear()
        self._stack.close()
        self._client = self._cluster = None

    def _connect(self, n_workers: int) -> list[str]:
        """Addresses of the workers, at most ``n_workers``."""
        d = _distributed()
        self._stack.enter_context(_quiet())
        security = self._security()
        try:
            if self.address is None:
                self._cluster = self._local(n_workers, security)
            where = self.address if self._cluster is None else self._cluster
            self._client = d.Client(
                where,
                security=security,
                timeout=self.start_timeout_s,
                direct_to_workers=self._cluster is not None,
                set_as_default=True,  # an actor finds its client as the default one
            )
            self._stack.callback(_shut, self._client)
            self._client.wait_for_workers(n_workers if self._cluster is not None else 1, timeout=self.start_timeout_s)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            message = f"the Dask scheduler at {self.address} cannot be used: {error}"
            if self.address is None:
                message = (
                    f"Dask's workers do not start: {str(error).rstrip('.')}. "
                    "A script that starts them must do its work under `if __name__ == '__main__':`."
                )
            raise SolveError(message) from error
        return self._alive()[:n_workers]

    def _local(self, n_workers: int, security: Any) -> Any:
        """A cluster of processes on this machine."""
        d = _distributed()
        import dask

        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="lateral-dask-", ignore_cleanup_errors=True)
        )
        # no pages about the cluster, and ports that nobody else has
        pages: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
        with dask.config.set(pages):
            cluster = d.LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tls://" if self._files else "tcp://",
                scheduler_port=0,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                security=security,
                silence_logs=logging.CRITICAL,
                memory_limit=0,
                local_directory=folder,
                env=dict(ONE_THREAD),
            )
        self._stack.callback(_shut, cluster)
        return cluster

    def _security(self) -> Any:
        if not self._files:
            return None
        ca, cert, key = (str(self._files[name]) for name in ("ca_file", "cert_file", "key_file"))
        ours = {f"tls_{role}_{what}": f for role in ("client", "scheduler", "worker") for what, f in _pair(cert, key)}
        return _distributed().Security(require_encryption=True, tls_ca_file=ca, **ours)

    def _alive(self) -> list[str]:
        """Addresses of the workers that the scheduler has."""
        return sorted(self._client.scheduler_info()["workers"])

    def _another(self, seat: _Seat) -> str | None:
        """A worker for an area that lost its own; None when there is none in time."""
        deadline = time.monotonic() + self.start_timeout_s
        # a scheduler may take a moment to see that a worker is lost; later one at that address is another one
        avoid_until = time.monotonic() + _NOTICED_S if seat.lost else math.inf
        wanted = 1
        if self._cluster is not None:
            wanted = len(self._cluster.worker_spec)
            if seat.worker in self._alive() and not seat.lost:
                with contextlib.suppress(Exception):  # it may hang for good; the nanny ends it all the same
                    self._client.restart_workers([seat.worker], timeout=self.start_timeout_s, raise_for_error=False)
        while True:
            now = time.monotonic()
            alive = [w for w in self._alive() if w != seat.worker or now >= avoid_until]
            late = now >= deadline
            if alive and (late or len(alive) >= wanted):
                load = dict.fromkeys(alive, 0)
                for other, its in self._seats.items():
                    if its.worker in load and its is not seat:
                        load[its.worker] += sizes({other: self._specs[other]})[other]
                return min(load, key=lambda w: load[w])
            if late:
                return None
            time.sleep(0.05)

    def _seat_all(self, packed: Mapping[str, bytes]) -> dict[str, str]:
        """Make actors, and give each its area; what went wrong, by area."""
        problems: dict[str, str] = {}
        for area in packed:
            seat = self._seats[area]
            key = f"lateral-area-{secrets.token_hex(8)}"
            seat.future = self._client.submit(
                DaskArea, actor=True, workers=[seat.worker], allow_other_workers=False, pure=False, key=key
            )
        for area in packed:
            seat = self._seats[area]
            try:
                seat.actor = seat.future.result(timeout=self.start_timeout_s)
            except Exception as error:  # whatever a worker raises, lateral missing there for one, comes out here
                seat.lost = f"{type(error).__name__}: {error}"
                problems[area] = f"area {area!r} does not start on {seat.worker}: {seat.lost}"
        there = {area: data for area, data in packed.items() if area not in problems}
        for area, reply in self._call("start", there, self.start_timeout_s).items():
            if isinstance(reply, Failure):
                problems[area] = f"area {area!r} does not start: {reply.reason}"
            elif "error" in reply:
                problems[area] = f"area {area!r} does not start: {reply['error']}"
                self._seats[area].lost = str(reply["error"])
        return problems

    def _call(self, method: str, data: Mapping[str, bytes], timeout_s: float) -> dict[str, dict[str, Any] | Failure]:
        """One method of some areas, side by side; an area that is still at something older comes last."""
        begin = time.monotonic()
        out: dict[str, dict[str, Any] | Failure] = {}
        going: dict[str, Any] = {}
        turn: dict[str, int] = {}
        busy: list[str] = []
        for area in data:
            seat = self._seats.get(area)
            if seat is None:
                out[area] = Failure(area, f"area {area!r} was not started")
            elif seat.lost:
                out[area] = Failure(area, f"area {area!r} is gone: {seat.lost}")
            elif seat.late is not None and not seat.late.done():
                busy.append(area)
            else:
                seat.late = None
                self._send(area, method, data[area], going, out)
            if seat is not None:
                turn[seat.worker] = turn.get(seat.worker, 0) + 1
        for area in [*going, *busy]:
            seat = self._seats[area]
            deadline = begin + timeout_s * turn[seat.worker]
            if area in busy:
                try:
                    seat.late.result(timeout=max(deadline - time.monotonic(), 1e-3))
                except TimeoutError:
                    out[area] = _late(area, timeout_s)
                    continue
                except Exception as error:
                    self._lose(area, error, out)
                    continue
                seat.late = None
                if not self._send(area, method, data[area], going, out):
                    continue
            try:
                reply = going[area].result(timeout=max(deadline - time.monotonic(), 1e-3))
                out[area] = unpack(reply, limit=MAX_FRAME)
            except TimeoutError:
                seat.late = going[area]
                out[area] = _late(area, timeout_s)
            except Exception as error:
                self._lose(area, error, out)
        return {area: out[area] for area in data}

    def _send(
        self, area: str, method: str, data: bytes, going: dict[str, Any], out: dict[str, dict[str, Any] | Failure]
    ) -> bool:
        try:
            going[area] = getattr(self._seats[area].actor, method)(data)
        except Exception as error:  # Dask says in many ways that a worker is lost
            self._lose(area, error, out)
            return False
        return True

    def _lose(self, area: str, error: Exception, out: dict[str, dict[str, Any] | Failure]) -> None:
        """An area that is of no more use."""
        seat = self._seats[area]
        if isinstance(error, MessageError):
            seat.lost = f"it sent what is no answer ({error})"
        else:
            seat.lost = f"its worker {seat.worker} is lost ({error})"
        out[area] = Failure(area, f"area {area!r} is gone: {seat.lost}")


def _late(area: str, timeout_s: float) -> Failure:
    return Failure(area, f"area {area!r} did not answer within {timeout_s:g} s", gone=False)


def _pair(cert: str, key: str) -> tuple[tuple[str, str], ...]:
    return ("cert", cert), ("key", key)


def _tls_files(address: str | None, files: Mapping[str, str | Path | None]) -> dict[str, Path]:
    """The three files of TLS, or none.

    Raises:
        OptionError: only some of them, one that does not exist, or an address that does not go with them.
    """
    given = {name: Path(path) for name, path in files.items() if path is not None}
    scheme = "" if address is None else address.partition("://")[0]
    message = ""
    if address is not None and scheme not in ("tcp", "tls"):
        message = f"the scheduler's address is {address!r}; it is tcp://host:port or tls://host:port"
    elif given and len(given) < len(files):
        message = f"TLS needs {', '.join(files)}; given: {', '.join(given)}"
    elif scheme == "tls" and not given:
        message = f"{address} needs {', '.join(files)}"
    elif scheme == "tcp" and given:
        message = f"{address} is not encrypted, but {', '.join(given)} are given; use tls://"
    else:
        for name, path in given.items():
            if not path.is_file():
                message = f"{name}: there is no file {path}"
    if message:
        raise OptionError(message)
    return given


def _distributed() -> Any:
    """The package, imported on use.

    Raises:
        OptionError: it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        message = "the executor 'dask' needs Dask: pip install 'lateral[dask]'"
        raise OptionError(message) from error
    return distributed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask's logs stay silent: what matters of them comes back as a `Failure`."""
    logger = logging.getLogger("distributed")
    before = logger.level
    children = {
        n: lg.level
        for n in logging.root.manager.loggerDict
        if isinstance(lg := logging.getLogger(n), logging.Logger) and n.startswith("distributed.")
    }
    logger.setLevel(logging.CRITICAL + 1)
    for name in children:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
        for name, level in children.items():
            logging.getLogger(name).setLevel(level)


def _shut(what: Any) -> None:
    """Close a client or a cluster; one whose other end is gone must not keep the rest from being closed."""
    with contextlib.suppress(Exception):
        what.close(timeout=10)


__all__ = ["Dask", "DaskArea"]
