"""How a command ends when it does not end well: an exit code, and one message without a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import typer

from lateral.cli.screen import print_json, printable
from lateral.errors import CaseError, Fault, HostileFileError, LateralError, OptionError, UnsupportedError

#: How many faults are listed on a screen; ``--json`` lists all.
FAULTS_SHOWN = 40


class Exit(IntEnum):
    """Exit codes of the command line; scripts rely on them."""

    OK = 0
    BUG = 1
    BAD_INPUT = 2
    INFEASIBLE = 3
    LIMIT = 4
    ERROR = 5
    DEGRADED = 6
    INTERRUPTED = 130


#: Exit code of each status word of a result.
OF_STATUS = {
    "optimal": Exit.OK,
    "inaccurate": Exit.LIMIT,
    "infeasible": Exit.INFEASIBLE,
    "locally_infeasible": Exit.INFEASIBLE,
    "unbounded": Exit.INFEASIBLE,
    "limit_reached": Exit.LIMIT,
    "degraded": Exit.DEGRADED,
    "error": Exit.ERROR,
}

_WORDS = {
    Exit.BAD_INPUT: "bad_input",
    Exit.ERROR: "error",
    Exit.BUG: "bug",
    Exit.INTERRUPTED: "interrupted",
}


def failed(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what went wrong, on the screen or as JSON, and return the exit code."""
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else Exit.BUG
    if isinstance(error, BrokenPipeError):  # the reader of a pipe has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.BUG
    code, text, faults = _judge(error)
    if _debug(arguments):
        traceback.print_exception(error)
    if "--json" in arguments:
        listed = [f.as_dict() for f in faults]
        # `check` speaks in lists of faults, every other command in objects
        is_list = next((a for a in arguments if not a.startswith("-")), "") == "check" and faults
        if faults:
            text = f"{text}: {faults[0]}"
        print_json(listed if is_list else {"status": _WORDS[code], "status_text": text, "faults": listed})
    else:
        _show(text, faults)
    return code


def _judge(error: BaseException) -> tuple[Exit, str, tuple[Fault, ...]]:
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Exit.INTERRUPTED, "interrupted; nothing was written", ()
    usage = getattr(error, "format_message", None)  # some versions of typer bring their own click
    if usage is not None:
        return Exit.BAD_INPUT, _usage(error, usage()), ()
    if isinstance(error, (CaseError, UnsupportedError)):
        faults = error.faults
        many = "fault" if len(faults) == 1 else "faults"
        kind = "declined" if isinstance(error, UnsupportedError) else f"{len(faults)} {many}"
        if isinstance(error, HostileFileError):
            kind = f"refused, nothing was run: {kind}"
        return Exit.BAD_INPUT, kind, faults
    if isinstance(error, OptionError):
        return Exit.BAD_INPUT, str(error), ()
    if isinstance(error, LateralError):
        return Exit.ERROR, str(error), ()
    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, FileNotFoundError):
        # no permission, no space, ...; a user's file that is not there was a fault before this
        return Exit.BAD_INPUT, f"{error.filename}: {error.strerror}", ()
    text = (
        f"a bug of lateral: {type(error).__name__}: {error}. Please report it, with the output of the same command "
        "after `lateral --debug`"
    )
    return Exit.BUG, text, ()


def _usage(error: BaseException, text: str) -> str:
    context = getattr(error, "ctx", None)
    if text.startswith("Usage:"):  # a command without arguments: its help is the message
        return f"a command is missing\n{text}"
    hint = f" Try `{context.command_path} --help`." if context is not None else ""
    return f"{text}{hint}"


def _debug(arguments: Sequence[str]) -> bool:
    return "--debug" in arguments or bool(os.environ.get("LATERAL_DEBUG"))


def _show(text: str, faults: Sequence[Fault]) -> None:
    lines = [f"lateral: {text}"]
    lines += [f"  {fault}" for fault in faults[:FAULTS_SHOWN]]
    if len(faults) > FAULTS_SHOWN:
        lines.append(f"  ... and {len(faults) - FAULTS_SHOWN} more; --json lists all")
    sys.stderr.write(printable("\n".join(lines)) + "\n")


def as_data(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """Faults as plain data."""
    return [fault.as_dict() for fault in faults]


__all__ = ["OF_STATUS", "Exit", "as_data", "failed"]
