"""A HELICS broker of our own, as a process of this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from lateral.areas.member import TIMEOUTS, Connection, load
from lateral.errors import SolveError

#: Where brokers of ours have their ports: a block each, of which the broker takes two, and gives members the ones from
#: its fifth on. Below what systems take for outgoing connections (Linux: from 32768 on; others: from 49152 on): one of
#: those, even closed, keeps a port for a minute, and HELICS does not look whether a port that it gives is free.
FIRST_PORT, LAST_PORT, BLOCK = 20_000, 32_000, 100


class Broker:
    """HELICS's own broker on 127.0.0.1, at ports that nothing else has; it ends when the coordinator is gone.

    Args:
        key: key that members must have; empty for none.
        core: ``zmq`` or ``tcpss``.
        encryption_config: see `Connection`.

    Attributes:
        connection: how members reach it.

    Raises:
        SolveError: the wheel's program is not where it should be, or no port is free.
    """

    def __init__(self, *, key: str = "", core: str = "zmq", encryption_config: str = "") -> None:
        program = _program()
        port, self._claim = _ports()
        try:
            self.connection = where = Connection(
                broker=f"127.0.0.1:{port}", core=core, key=key, encryption_config=encryption_config
            )
            options = ["--federates=1", "--dynamic", f"--coretype={core}", f"--port={port}", "--local"]
            self._process = subprocess.Popen(
                [program, *options, *TIMEOUTS.split(), "--loglevel=no_print", *where.security.split()],
                env={**os.environ, **({"HELICS_BROKER_KEY": key} if key else {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._claim.close()
            raise

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def close(self) -> None:
        """End it; safe to call twice."""
        self._process.kill()
        self._process.wait()
        self._claim.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _program() -> str:
    inside = Path(str(load().__file__)).parent / "install" / "bin" / "helics_broker"
    program = str(inside) if inside.is_file() else shutil.which("helics_broker")
    if program is None:
        message = "HELICS has no program helics_broker here; install the wheel of PyPI, or start a broker yourself"
        raise SolveError(message)
    return program


def _ports() -> tuple[int, socket.socket]:
    """The first port of a free block, and what keeps others from it: the block's last port, as long as it is bound.

    Whoever else looks for a block binds that port first, so that of two who look at once one goes on to another block.
    """
    blocks = list(range(FIRST_PORT, LAST_PORT, BLOCK))
    secrets.SystemRandom().shuffle(blocks)
    for port in blocks:
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", port + BLOCK - 1))
            with contextlib.ExitStack() as looks:
                for other in range(port, port + BLOCK - 1):
                    looks.enter_context(socket.socket()).bind(("127.0.0.1", other))
        except OSError:
            claim.close()
            continue
        return port, claim
    message = f"no {BLOCK} ports in a row are free on 127.0.0.1 between {FIRST_PORT} and {LAST_PORT}"
    raise SolveError(message)


__all__ = ["Broker"]
