"""What runs in an area's own process: ``python -m lateral.areas.worker``, started by the executor `process`.

Standard input is a connected stream socket, and nothing else is: what a solver prints goes elsewhere. Frames go both
ways, each a length of four bytes (big endian) and JSON of that many bytes (`lateral.areas.protocol`)::

    to the worker     {"number": 7, "area": "2", "do": "solve", "with": {"borders": {...}}}
    from the worker   {"number": 7, "area": "2", "reply": {...}}

A worker has one area or several, and serves them in the order in which it is asked. ``start`` reads an area's case from
a case folder, ``renew`` lets an area begin anew; all else is `lateral.areas.protocol.handle`. It ends when the other
end of the socket is gone, also in the middle of a solve.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lateral.areas.agent import AreaAgent, Task
from lateral.areas.message import MessageError
from lateral.areas.protocol import AreaSpec, handle, pack, unpack
from lateral.case import Case
from lateral.errors import OptionError
from lateral.io.tables import read_folder, write_folder

_LENGTH = struct.Struct("!I")
#: Longest frame, bytes: what an area collects at the end is its longest.
MAX_FRAME = 2**30
#: One thread per area: areas are what runs side by side.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "RAYON_NUM_THREADS",
    ),
    "1",
)


def frame(data: Mapping[str, Any]) -> bytes:
    """Plain data as a frame."""
    payload = pack(data)
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Frames out of a stream of bytes that comes in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The frames that are complete now.

        Raises:
            MessageError: what came is no frame; the stream is of no more use.
        """
        self._bytes += data
        out = []
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > MAX_FRAME:
                message = f"a frame of {length} bytes; at most {MAX_FRAME} are read"
                raise MessageError(message)
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                break
            out.append(unpack(bytes(self._bytes[_LENGTH.size : end]), limit=MAX_FRAME))
            del self._bytes[:end]
        return out


class Host:
    """The areas of one process, whoever asks."""

    def __init__(self) -> None:
        self._cases: dict[str, tuple[Case, Task]] = {}
        self._agents: dict[str, AreaAgent] = {}

    def start(self, area: str, case: Case, task: Task) -> None:
        """Take an area in."""
        self._cases[area] = case, task
        self._agents[area] = AreaAgent(area, case, task)

    def answer(self, area: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what was asked. Whatever goes wrong is a reply ``{"error": text}`` that names the area."""
        try:
            if operation == "start":
                self.start(area, read_folder(request["folder"]), Task(**request["task"]))
                return {}
            if area not in self._agents:
                return {"error": f"area {area!r} is not here"}
            if operation == "renew":
                self.start(area, *self._cases[area])
                return {}
            return handle(self._agents[area], operation, with_arrays(request))
        except Exception as error:  # one area's bug must not take the others of this process with it
            return {"error": f"area {area!r}: {type(error).__name__}: {error}"}


def with_arrays(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request whose border values are arrays again, as they were before they were sent."""
    if "borders" not in request:
        return dict(request)
    borders = {b: {x: np.array(rows, dtype=float) for x, rows in v.items()} for b, v in request["borders"].items()}
    return {**request, "borders": borders}


def task_data(task: Task) -> dict[str, Any]:
    """A task as plain data.

    Raises:
        OptionError: it holds what cannot be sent, such as an objective that is an object and not a name.
    """
    data = asdict(task)
    for name, value in data.items():
        if not (value is None or isinstance(value, str | bool | int | float)):
            message = f"{name} is {type(value).__name__} and cannot be sent to another process; give its name"
            raise OptionError(message)
    return data


def pack_spec(spec: AreaSpec) -> bytes:
    """An area as one text: the files of its case folder, and its task; for a place that shares no disk with us."""
    with tempfile.TemporaryDirectory(prefix="lateral-area-") as folder:
        files = write_folder(spec.case, Path(folder) / "case").iterdir()
        texts = {file.name: file.read_text(encoding="utf-8") for file in sorted(files)}
    return pack({"area": spec.name, "task": task_data(spec.task), "files": texts})


def unpack_spec(data: bytes) -> AreaSpec:
    """The area of `pack_spec`; its files are gone from disk when it is read.

    Raises:
        MessageError: it is not one.
        CaseError: the case has faults.
    """
    raw = unpack(data, limit=MAX_FRAME)
    try:
        name, task, files = str(raw["area"]), Task(**raw["task"]), dict(raw["files"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"not an area: {error}"
        raise MessageError(message) from error
    with tempfile.TemporaryDirectory(prefix="lateral-area-") as folder:
        for file, text in files.items():
            if Path(file).name != file or not isinstance(text, str):
                message = f"not a file of a case folder: {file!r}"
                raise MessageError(message)
            (Path(folder) / file).write_text(text, encoding="utf-8", newline="")
        return AreaSpec(name, read_folder(folder), task)


def serve(link: socket.socket) -> None:
    """Answer every frame until the other end is gone."""
    host = Host()
    for asked in _asked(link):
        area, number = str(asked.get("area")), asked.get("number")
        reply = host.answer(area, str(asked.get("do")), asked.get("with") or {})
        try:
            data = frame({"number": number, "area": area, "reply": reply})
        except TypeError as error:
            data = frame({"number": number, "area": area, "reply": {"error": f"area {area!r}: {error}"}})
        link.sendall(data)


def _asked(link: socket.socket) -> Iterator[dict[str, Any]]:
    frames = Frames()
    while data := link.recv(2**20):
        yield from frames.feed(data)


def _end_with(link: socket.socket) -> None:
    """End this process when the other end of the link is gone."""
    watch = select.poll()
    watch.register(link.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    watch.poll()
    os._exit(0)


def main() -> int:
    """Serve on standard input."""
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        sys.stderr.write("lateral.areas.worker is started by the executor 'process', with a socket as its input\n")
        return 2
    link = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # a library that reads its input must not eat a frame
    os.close(nothing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for who started us; we end with the link
    threading.Thread(target=_end_with, args=(link,), daemon=True).start()
    try:
        serve(link)
    except (BrokenPipeError, ConnectionResetError):
        return 0
    except (MessageError, json.JSONDecodeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = [
    "MAX_FRAME",
    "ONE_THREAD",
    "Frames",
    "Host",
    "frame",
    "main",
    "pack_spec",
    "serve",
    "task_data",
    "unpack_spec",
    "with_arrays",
]
