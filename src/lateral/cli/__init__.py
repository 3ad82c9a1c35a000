"""The command line: ``lateral solve CASE``, and everything around it.

Exit codes: 0 optimal, 2 bad input, 3 infeasible, 4 limit reached or inaccurate, 5 solver or engine error, 6 degraded,
1 a bug of ours, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

#: What the shell calls a process that Ctrl-C ended.
INTERRUPTED = 130


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; never raises."""
    from lateral.cli.failures import failed  # everything heavy waits until a command runs

    try:
        from lateral.cli.app import app

        code = app(args=list(arguments), prog_name="lateral", standalone_mode=False)
        if code == INTERRUPTED:  # typer swallows the exception and says nothing
            return failed(KeyboardInterrupt(), arguments)
    except BaseException as error:  # every way a command can end has its exit code
        return failed(error, arguments)
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """Entry point of the ``lateral`` command."""
    sys.exit(run(sys.argv[1:]))


__all__ = ["main", "run"]
