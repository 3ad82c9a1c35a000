"""What a scan of an OpenDSS file tree may cost, what it gives, and the record that it keeps while it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lateral.errors import Fault, did_you_mean


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file tree may cost.

    Attributes:
        files: number of files read, each inclusion counted.
        file_bytes: size of one file, bytes.
        total_bytes: size of all files together, bytes.
        depth: levels of ``Redirect`` and ``Compile``.
        statements: number of statements kept; likewise of those left out, and of variables.
        expanded: characters that ``@variables`` put in, all together.
        size: phases, conductors, windings, ... of one object (the engine makes matrices of that order).
        points: points of one shape.
        nodes: parts of one bus name with its nodes (the engine writes past the end of its list of nodes).
        faults: number of faults after which the scan stops.
    """

    files: int = 5000
    file_bytes: int = 128 * 2**20
    total_bytes: int = 512 * 2**20
    depth: int = 30
    statements: int = 2_000_000
    expanded: int = 64 * 2**20
    size: int = 200
    points: int = 40_000_000
    nodes: int = 40
    faults: int = 500


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement that the engine may run.

    Attributes:
        text: the statement, rewritten in full.
        verb: the command, lower case (``new, edit, batchedit, set, solve, ...``).
        cls: object class, lower case, or empty.
        name: object name, lower case (a pattern for ``batchedit``), or empty.
        file: the file it came from, relative to the case folder.
        line: line number in that file, from 1.
    """

    text: str
    verb: str
    cls: str
    name: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A statement, or a part of one, that was not passed on, and why.

    Attributes:
        text: the source text (shortened).
        reason: a sentence.
        file: the file it came from, relative to the case folder.
        line: line number in that file, from 1.
    """

    text: str
    reason: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class ScannedModel:
    """A file tree, flattened and made harmless.

    Attributes:
        master: the file that was asked for.
        root: the case folder; nothing outside it was read.
        statements: what to run, in order.
        files: every file read, relative to the case folder, in order of first use.
        skipped: what was left out, with reasons.
        objects: ``class.name`` (lower case) to the ``(file, line)`` that defined it.
        staged: content of the data files, by the safe name that the statements use for them.
        staged_from: the same names to the files they came from, relative to the case folder.
    """

    master: Path
    root: Path
    statements: tuple[Statement, ...]
    files: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    objects: Mapping[str, tuple[str, int]]
    staged: Mapping[str, bytes] = field(repr=False)
    staged_from: Mapping[str, str] = field(repr=False)

    def where(self, element: str) -> str:
        """``file:line`` of an element ``class.name``, or an empty string."""
        place = self.objects.get(element.lower())
        return f"{place[0]}:{place[1]}" if place else ""


def suggest(name: str, known: Sequence[str]) -> str:
    """The known names that are like a name, in words."""
    return did_you_mean(name[:64], known[:1000])  # bounds the comparison on absurd input


def shortened(text: str) -> str:
    """A text that may be shown: at most 120 characters."""
    text = text[:1000].strip()
    return text if len(text) <= 120 else f"{text[:117]}..."


class Stop(Exception):
    """The scan cannot usefully go on (a limit was hit); the faults are collected."""


class Record:
    """What one scan collects, and where it is: every fault and note is given the present file and line."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.faults: list[Fault] = []
        self.statements: list[Statement] = []
        self.skipped: list[Skipped] = []
        self.file = ""
        self.line = 0

    def fault(self, code: str, element: str, found: str, allowed: str, action: str) -> None:
        """Note a fault; after too many the scan stops."""
        where = f"{self.file}:{self.line}" if self.file else ""
        self.faults.append(Fault(code, element, shortened(found), allowed, action, where))
        if len(self.faults) >= self.limits.faults:
            raise Stop

    def skip(self, text: str, reason: str) -> None:
        """Note what is left out."""
        self.skipped.append(Skipped(shortened(text), reason, self.file, self.line))
        self.bound(len(self.skipped), self.limits.statements, "statements that are left out")

    def emit(self, verb: str, text: str, cls: str = "", name: str = "") -> None:
        """Keep a statement that the engine may run."""
        self.statements.append(Statement(text, verb, cls, name, self.file, self.line))
        self.bound(len(self.statements), self.limits.statements, "statements")

    def bound(self, count: int, limit: int, what: str) -> None:
        """Stop when something that adds up over the tree is too much."""
        if count > limit:
            found, action = f"more than {limit} {what}", "Split the model or raise the limit."
            self.fault("SEC-008 limit", "model", found, f"{limit}", action)
            raise Stop
