"""Folders that appear whole or not at all, and never in the place of something that we did not write."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lateral.errors import OptionError

#: File that says which entries of a folder are ours.
MARK = ".lateral"


def check_target(target: Path) -> None:
    """Refuse a target that holds anything that we did not write.

    Raises:
        OptionError: a file is in the way, or a folder that holds what is not ours.
    """
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        message = f"{target} is a file, not a folder; nothing was written"
        raise OptionError(message)
    there = {entry.name for entry in target.iterdir()}
    foreign = sorted(there - _ours(target) - {MARK})
    if foreign:
        what = ", ".join(foreign[:4]) + (", ..." if len(foreign) > 4 else "")
        message = f"{target} holds what lateral did not write ({what}); give another folder. Nothing was written"
        raise OptionError(message)


def _ours(target: Path) -> set[str]:
    try:
        names = json.loads((target / MARK).read_text(encoding="utf-8"))["wrote"]
        return {str(name) for name in names}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A new folder beside the target, which takes its place when the block ends well and disappears when it does not.

    Raises:
        OptionError: see `check_target`; or no folder can be made there.
    """
    check_target(target)
    token = secrets.token_hex(4)
    fresh = target.parent / f".{target.name}.{token}.new"
    old = target.parent / f".{target.name}.{token}.old"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
    except OSError as error:
        message = f"{target} cannot be made ({error.strerror}); give another folder. Nothing was written"
        raise OptionError(message) from error
    try:
        yield fresh
        wrote = sorted(entry.name for entry in fresh.iterdir())
        (fresh / MARK).write_text(json.dumps({"wrote": wrote}), encoding="utf-8")
        check_target(target)  # again: the work took a while
        if target.is_dir():
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


__all__ = ["MARK", "check_target", "fresh_folder"]
