"""Read an OpenDSS file tree without running it: a .dss file is untrusted input.

The engine can start an editor, load native libraries, change folders and write files on behalf of a script,
so a script never reaches it as text. This module tokenises the tree exactly as the engine does (DSS C-API
0.14.5, ``ParserDel.pas``, ``ExecCommands.pas``, ``DSSClass.pas``: quoting, abbreviations, values by position,
``~`` continuation, variables), checks every verb, class, property and path against allow-lists, and writes
each statement anew with full names and explicit quoting. The engine then only sees text written here.

What is not on a list is a coded fault with ``file:line``; all of them are collected before raising:

=========  ==================  ===============================================================
DSS-001    unknown-verb        a command that the engine does not have
DSS-002    unknown-class       an object class that the engine does not have
DSS-003    unknown-property    a property that the class does not have
DSS-004    unknown-option      an option of ``Set`` that the engine does not have
DSS-005    missing-file        a file that is named but not there
DSS-006    no-active-object    a property or ``~`` with no object before it
DSS-007    missing-name        an object without a name, or a malformed object
DSS-008    unsupported-verb    a command that changes the model in a way that is not followed
DSS-009    unknown-variable    ``@name`` that was not set
DSS-010    no-circuit          the tree defines no circuit
DSS-011    odd-value           ``=`` inside a list that is not a file reference
DSS-012    duplicate           a circuit element defined twice (the engine ignores the second)
DSS-013    unsupported-option  an option that would change how statements are understood
DSS-014    odd-name            a name that cannot be quoted
SEC-001    forbidden-verb      runs a program, changes folder, opens a connection or writes files
SEC-002    forbidden-property  loads a native library
SEC-003    forbidden-option    sets the editor, the data folder, a recorder
SEC-004    absolute-path       a path that starts at a root, a drive, a share or a home
SEC-005    outside-root        a path that leaves the case folder with ``..``
SEC-006    symlink             a path that leaves the case folder over a link
SEC-007    recursion           a file that includes itself
SEC-008    limit               too many or too large files, too deep, too many statements
SEC-009    not-text            NUL or control characters
SEC-010    not-a-file          a path that is a folder, a device or a pipe
SEC-011    forbidden-action    an object's ``action`` that writes a file
SEC-012    odd-name            a circuit name with path separators (the engine makes file names of it)
=========  ==================  ===============================================================
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lateral.errors import CaseError, Fault, HostileFileError, did_you_mean
from lateral.io.opendss._names import COMMANDS, OPTIONS, PROPERTIES

__all__ = ["Limits", "ScannedModel", "Skipped", "Statement", "scan"]


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


# --- names ----------------------------------------------------------------------------------------------


def _abbreviations(names: Iterable[str]) -> dict[str, str]:
    """Every spelling that the engine takes for a name: exact first, else the first name it begins.

    ``Command.pas``, TCommandList.
    """
    listed = list(names)
    table = {name.lower(): name for name in reversed(listed)}
    for name in listed:
        low = name.lower()
        for end in range(1, len(low)):
            table.setdefault(low[:end], name)
    return table


_VERBS = {short: full.lower() for short, full in _abbreviations(COMMANDS).items()}
_VERB_NAMES = sorted(name.lower() for name in COMMANDS if name[0].isalpha() and len(name) > 2)
_OPTION_ORDER = [name.lower() for name in OPTIONS]
_OPTIONS = {short: full.lower() for short, full in _abbreviations(OPTIONS).items()}
_CLASSES = {name.lower(): name for name in PROPERTIES}
_POSITIONS = {name.lower(): [p.lower() for p in listed] for name, listed in PROPERTIES.items()}
_SHORT = {
    name.lower(): {short: full.lower() for short, full in _abbreviations(listed).items()}
    for name, listed in PROPERTIES.items()
}

# Classes that hold data only: there, a second `New` edits the first object.
_GENERAL = frozenset(
    {
        "linecode", "loadshape", "tshape", "priceshape", "xycurve", "growthshape", "tcc_curve", "spectrum",
        "wiredata", "cndata", "tsdata", "linespacing", "linegeometry", "xfmrcode", "dynamicexp",
    }
)  # fmt: skip

_FORBIDDEN_VERBS = {
    "fileedit": "starts an editor",
    "doscmd": "runs a program",
    "cd": "changes the working folder",
    "save": "writes a folder of files",
    "alignfile": "writes a file and starts an editor",
    "connect": "opens a network connection",
    "disconnect": "closes a network connection",
    "_showcontrolqueue": "writes a file and starts an editor",
    "uuids": "reads a file that is not part of the model",
    "rephase": "writes a script",
    "cvrtloadshapes": "writes files",
    "setloadandgenkv": "writes a script",
}
_UNSUPPORTED_VERBS = frozenset(
    {
        "reduce", "remove", "reconductor", "distribute", "estimate", "obfuscate", "clone", "newactor",
        "wait", "solveall", "abort", "updatestorage", "finishtimestep", "_initsnap", "_solvenocontrol",
        "_samplecontrols", "_docontrolactions", "_solvedirect", "_solvepflow", "makeposseq",
    }
)  # fmt: skip
# Commands that the engine runs, with their arguments.
_PLAIN_VERBS = frozenset(
    {
        "clear", "clearall", "calcvoltagebases", "setkvbase", "buildy", "init", "reset", "allocateloads",
        "makebuslist", "reprocessbuses", "setbusxy",
    }
)  # fmt: skip
_OBJECT_VERBS = frozenset({"open", "close", "enable", "disable", "select"})

_FORBIDDEN_PROPERTIES = frozenset(
    {"usermodel", "userdata", "shaftmodel", "shaftdata", "dynadll", "dynadata"}
)  # each names a native library that the engine loads, or what to hand to it
_FILE_PROPERTIES = frozenset({"csvfile", "sngfile", "dblfile", "pqcsvfile"})
_DROPPED_PROPERTIES = {
    "debugtrace": "writes a trace file",
    "memorymapping": "maps a file instead of reading it; the values are the same",
}
# Properties by which the engine allocates.
_SIZES = frozenset({"phases", "nphases", "nconds", "windings", "seasons", "numsteps", "numharm", "nvariables"})
_BUSES = frozenset({"bus", "bus1", "bus2", "buses", "bush", "busnh", "busx", "busnx", "monbus", "vbus"})
_PART = re.compile(r"""[^\s.,|"'()\[\]{}]+""")
_SHAPE_CLASSES = frozenset({"loadshape", "tshape", "priceshape"})

_FORBIDDEN_OPTIONS = {
    "editor": "names a program to start",
    "datapath": "changes the folder of input and output",
    "recorder": "writes every command to a file",
    "registryupdate": "writes outside the case",
    "dssvisualizationtool": "names a program to start",
}
_UNSUPPORTED_OPTIONS = frozenset({"allowduplicates", "circuit"})
# Options that say how the circuit is solved; everything else (plots, meters, reports, processors) is left out.
_SOLUTION_OPTIONS = frozenset(
    {
        "type", "class", "object", "element", "hour", "sec", "year", "frequency", "stepsize", "h", "mode",
        "random", "number", "time", "tolerance", "maxiterations", "miniterations", "loadmodel", "loadmult",
        "normvminpu", "normvmaxpu", "emergvminpu", "emergvmaxpu", "%mean", "%stddev", "ldcurve", "%growth",
        "voltagebases", "algorithm", "trapezoidal", "controlmode", "genmult", "defaultdaily", "defaultyearly",
        "allocationfactors", "cktmodel", "pricesignal", "pricecurve", "terminal", "basefrequency",
        "maxcontroliter", "bus", "%normal", "cfactors", "numallociterations", "defaultbasefrequency",
        "loadshapeclass", "earthmodel", "neglectloady", "zmag", "seasonrating", "seasonsignal", "linetypes",
        "longlinecorrection", "zonelock", "keepload",
    }
)  # fmt: skip


# --- tokens ---------------------------------------------------------------------------------------------

# One token: quoted in one of five ways (an open quote runs to the end of the line), or bare up to a
# delimiter, a blank or a comment.
_TOKEN = re.compile(
    r""" "([^"]*+)"? | '([^']*+)'? | \(([^)]*+)\)? | \[([^\]]*+)\]? | \{([^}]*+)\}? | ((?:[^ \t,=!/]|/(?!/))*+) """,
    re.VERBOSE,
)
_BARE = 6
_PARENTHESES = 3
_OPEN = ("", '"', "'", "(", "[", "{", "")
_CLOSE = ("", '"', "'", ")", "]", "}", "")
# The usual `name=value`, in one step; anything unusual after it sends the text to the slow path.
_PAIR = re.compile(
    r"""([^ \t,=!/"'(\[{]++)[ \t]*+=[ \t]*+(?:
        ([^ \t,=!/"'(\[{][^ \t,=!/]*+)[ \t]*+(?:,[ \t]*+)?+(?![=!/])
      | (?:"([^"]++)"|'([^']++)'|\(([^)]++)\)|\[([^\]]++)\]|\{([^}]++)\}),?+(?!=)[ \t]*+
    )""",
    re.VERBOSE,
)
_PAIR_QUOTE = {3: 1, 4: 2, 5: 3, 6: 4, 7: 5}
_BLANKS = re.compile(r"[ \t]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_END_NUL = re.compile(r"(?<!\x00)\x00++(?=[ \t]*+(?:[\r\n]|\Z))")
_PLAIN_WORD = re.compile(r"""[^\s,=!/@"'(\[{][^\s,=!/]*""")
_LINE_END = re.compile(r"\r\n|\n|\r")
_VARIABLE = re.compile(r"(?:(?<=[\s,|])|^)@[^\s,=|.^]+")

# (name or "", value, index of the quote kind)
_Param = tuple[str, str, int]


class _UnquotableError(Exception):
    """A text holds the end of every kind of quote."""


def _blanks(text: str, pos: int) -> int:
    found = _BLANKS.match(text, pos)
    return found.end() if found else pos


def _read_token(text: str, pos: int, delimiter: str) -> tuple[str, int, int, str]:
    """One token at ``pos``: value, quote kind, next position, what ended it (``TDSSParser.GetToken``)."""
    found = _TOKEN.match(text, pos)
    if found is None or found.lastindex is None:
        return "", _BARE, len(text), delimiter
    kind = found.lastindex
    value, pos = found[kind], found.end()
    if kind == _BARE and pos < len(text):
        delimiter = text[pos] if text[pos] in ",=" else " " if text[pos] in " \t" else "!"
        if delimiter == "!":
            return value, kind, len(text), delimiter
    if delimiter == " ":
        pos = _blanks(text, pos)
    if pos < len(text) and text[pos] in ",=":
        delimiter = text[pos]
        pos += 1
    return value, kind, _blanks(text, pos), delimiter


def tokenise(text: str, pos: int = 0) -> list[_Param]:
    """The parameters of a statement, as the engine's edit loop sees them: it stops at an empty value."""
    params: list[_Param] = []
    pos = _blanks(text, pos)
    end = len(text)
    match = _PAIR.match
    while pos < end:
        pair = match(text, pos)
        if pair is not None:
            index = pair.lastindex or 0
            params.append((pair[1], pair[index], _PAIR_QUOTE.get(index, _BARE)))
            pos = pair.end()
            continue
        value, kind, pos, delimiter = _read_token(text, pos, " ")
        name = ""
        if delimiter == "=":
            name = value
            value, kind, pos, _ = _read_token(text, pos, "=")
        if not value:
            break
        params.append((name, value, kind))
    return params


def quote(text: str) -> str:
    """``text`` as one token of a statement, whatever it contains."""
    if _PLAIN_WORD.fullmatch(text):
        return text
    for kind in (1, 2, 4, 3, 5):
        if _CLOSE[kind] not in text:
            return f"{_OPEN[kind]}{text}{_CLOSE[kind]}"
    raise _UnquotableError


def _near(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name[:64], known[:1000])  # bounds the comparison on absurd input


def _short(text: str) -> str:
    text = text[:1000].strip()
    return text if len(text) <= 120 else f"{text[:117]}..."


# --- the scan -------------------------------------------------------------------------------------------


class _Stop(Exception):
    """The scan cannot usefully go on (a limit was hit); the faults are collected."""


class _Scanner:
    """State of one scan. The engine's own state (active class and object, folder, variables) is mirrored."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self.faults: list[Fault] = []
        self.statements: list[Statement] = []
        self.skipped: list[Skipped] = []
        self.objects: dict[str, tuple[str, int]] = {}
        self.files: dict[str, None] = {}
        self.staged: dict[str, bytes] = {}
        self.staged_names: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.listings: dict[Path, dict[str, str]] = {}
        self.stack: list[Path] = []
        self.folder: tuple[str, ...] = ()  # the engine's current folder, below the root
        self.has_circuit = False
        self.cls = ""
        self.name = ""
        self.last_class = ""
        self.file = ""
        self.line = 0
        self.reads = 0
        self.bytes = 0
        self.expanded = 0

    # faults and notes

    def fault(self, code: str, element: str, found: str, allowed: str, action: str) -> None:
        where = f"{self.file}:{self.line}" if self.file else ""
        self.faults.append(Fault(code, element, _short(found), allowed, action, where))
        if len(self.faults) >= self.limits.faults:
            raise _Stop

    def skip(self, text: str, reason: str) -> None:
        self.skipped.append(Skipped(_short(text), reason, self.file, self.line))
        self.bound(len(self.skipped), self.limits.statements, "statements that are left out")

    def emit(self, verb: str, text: str, cls: str = "", name: str = "") -> None:
        self.statements.append(Statement(text, verb, cls, name, self.file, self.line))
        self.bound(len(self.statements), self.limits.statements, "statements")

    def bound(self, count: int, limit: int, what: str) -> None:
        """Stop when something that adds up over the tree is too much."""
        if count > limit:
            found, action = f"more than {limit} {what}", "Split the model or raise the limit."
            self.fault("SEC-008 limit", "model", found, f"{limit}", action)
            raise _Stop

    # paths

    def _listing(self, folder: Path) -> dict[str, str]:
        names = self.listings.get(folder)
        if names is None:
            try:
                names = {e.name.lower(): e.name for e in sorted(folder.iterdir(), reverse=True)}
            except OSError:
                names = {}
            self.listings[folder] = names
        return names

    def resolve(self, path: str, *, kind: str, try_dss: bool = False) -> tuple[Path, tuple[str, ...]] | None:
        """A path of the script as a file below the root: real path and parts, or None with a fault."""
        element = f"{kind} {_short(path)}"
        text = path.strip().replace("\\", "/")
        if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:", text):
            self.fault(
                "SEC-004 absolute-path",
                element,
                path,
                "a path below the case folder",
                "Put the file into the case folder and name it relative to the file that uses it.",
            )
            return None
        parts: list[str] = list(self.folder)
        for part in text.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                if not parts:
                    self.fault(
                        "SEC-005 outside-root",
                        element,
                        path,
                        "a path below the case folder",
                        "Move the file into the case folder, or name a larger folder as root.",
                    )
                    return None
                parts.pop()
            else:
                parts.append(part)
        for candidate in (parts, [*parts[:-1], f"{parts[-1]}.dss"]) if try_dss and parts else (parts,):
            if candidate is not parts and "." in parts[-1]:
                break
            found = self._walk(candidate, element, path)
            if found is not None:
                return found
            if self.faults and self.faults[-1].element == element and self.faults[-1].code.startswith("SEC"):
                return None
        near = self._listing(self.root.joinpath(*parts[:-1])) if parts else {}
        self.fault(
            "DSS-005 missing-file",
            element,
            path,
            "a file that exists",
            _near(parts[-1] if parts else path, sorted(near.values())),
        )
        return None

    def _walk(self, parts: Sequence[str], element: str, path: str) -> tuple[Path, tuple[str, ...]] | None:
        """Follow ``parts`` from the root, without regard to case; never leave the root over a link."""
        here = self.root
        real_parts: list[str] = []
        for part in parts:
            names = self._listing(here)
            actual = part if part in names.values() else names.get(part.lower())
            if actual is None:
                return None
            here = here / actual
            if here.is_symlink():
                target = Path(os.path.realpath(here))
                if target != self.root and self.root not in target.parents:
                    self.fault(
                        "SEC-006 symlink",
                        element,
                        path,
                        "a file below the case folder",
                        "Replace the link by a copy of the file.",
                    )
                    return None
                here = target
            real_parts.append(actual)
        return here, tuple(real_parts)

    def read(self, path: Path, element: str) -> bytes | None:
        """The content of a regular file within the limits."""
        self.reads += 1
        if self.reads > self.limits.files:
            self.fault(
                "SEC-008 limit",
                element,
                f"more than {self.limits.files} files",
                f"{self.limits.files}",
                "Merge files or raise the limit.",
            )
            raise _Stop
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.fault("SEC-010 not-a-file", element, str(error.strerror), "a readable file", "Check the file.")
            return None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                found = "a folder, device or pipe"
                self.fault("SEC-010 not-a-file", element, found, "a regular file", "Name a regular file.")
                return None
            size = status.st_size
            if size > self.limits.file_bytes or self.bytes + size > self.limits.total_bytes:
                self.fault(
                    "SEC-008 limit",
                    element,
                    f"{size} bytes after {self.bytes} bytes of other files",
                    f"{self.limits.file_bytes} per file, {self.limits.total_bytes} in all",
                    "Use smaller files or raise the limit.",
                )
                return None
            with os.fdopen(os.dup(handle), "rb") as stream:
                content = stream.read(size)
        finally:
            os.close(handle)
        self.bytes += len(content)
        return content

    def stage(self, path: str, kind: str) -> str | None:
        """Take a data file along; the safe name that stands for it in the statements."""
        found = self.resolve(path, kind=kind)
        if found is None:
            return None
        real, parts = found
        relative = "/".join(parts)
        name = self.staged_names.get(relative)
        if name is None:
            content = self.read(real, f"{kind} {relative}")
            if content is None:
                return None
            name = f"data{len(self.staged)}.txt"
            self.staged[name] = content
            self.staged_names[relative] = name
            self.files.setdefault(relative)
        return name

    # files

    def include(self, path: Path, parts: tuple[str, ...], *, compiled: bool) -> None:
        """Scan one file. ``Compile`` leaves the engine in its folder, ``Redirect`` comes back."""
        relative = "/".join(parts)
        element = f"file {relative}"
        if path in self.stack:
            self.fault(
                "SEC-007 recursion",
                element,
                " -> ".join(p.name for p in (*self.stack, path)),
                "files that do not include themselves",
                "Take the Redirect out.",
            )
            return
        if len(self.stack) >= self.limits.depth:
            self.fault(
                "SEC-008 limit",
                element,
                f"more than {self.limits.depth} levels of Redirect",
                f"{self.limits.depth}",
                "Flatten the tree or raise the limit.",
            )
            return
        content = self.read(path, element)
        if content is None:
            return
        self.files.setdefault(relative)
        text = self._decode(content, relative)
        if text is None:
            return
        saved = self.folder, self.file, self.line
        self.folder, self.file, self.line = parts[:-1], relative, 0
        self.stack.append(path)
        self._run_lines(text)
        self.stack.pop()
        _, self.file, self.line = saved
        if not compiled:
            self.folder = saved[0]

    def _decode(self, content: bytes, relative: str) -> str | None:
        if content.startswith(b"\xef\xbb\xbf"):
            content = content[3:]
        content = content.rstrip(b"\x1a")  # end-of-file mark of old editors
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        if "\0" in text:  # found at line ends of files that EPRI publishes; anywhere else it hides something
            text, count = _LINE_END_NUL.subn("", text)
            if count:
                self.skipped.append(
                    Skipped(f"{count} NUL character(s) at line ends", "not part of the text", relative, 0)
                )
        odd = _CONTROL.search(text)
        if odd is not None:
            saved = self.file, self.line
            self.file, self.line = relative, len(_LINE_END.findall(text[: odd.start()])) + 1
            self.fault(
                "SEC-009 not-text",
                f"file {relative}",
                f"control character {ord(odd[0])}",
                "text in UTF-8 or Latin-1",
                "Save the file as plain text.",
            )
            self.file, self.line = saved
            return None
        return text

    def _run_lines(self, text: str) -> None:
        in_block = False
        for number, line in enumerate(_LINE_END.split(text), start=1):
            # Block comments are whole lines: from one that starts with /* to one that contains */.
            if in_block or line.startswith("/*"):
                in_block = "*/" not in line
                continue
            start = _blanks(line, 0)
            if start == len(line) or line[start] == "!" or line.startswith("//", start):
                continue
            self.line = number
            self.statement(line)

    # statements

    def statement(self, line: str) -> None:
        """Check one line and keep what the engine may run of it."""
        try:
            self._statement(line)
        except _UnquotableError:
            self.fault(
                "DSS-014 odd-name",
                "statement",
                line,
                "names without every kind of quote in them",
                "Rename the object.",
            )

    def _statement(self, line: str) -> None:
        params = tokenise(line)
        if not params:
            return
        if "@" in line and not line.lstrip().lower().startswith("var"):
            params = self._substitute(params)
        name, value, _ = params[0]
        if name:
            self._implicit_edit(name, params, line)
            return
        verb = _VERBS.get(value.lower())
        if verb is None:
            self.fault(
                "DSS-001 unknown-verb",
                f"command {_short(value)}",
                line,
                "a command of OpenDSS",
                _near(value.lower(), _VERB_NAMES),
            )
            return
        self._run_verb(verb, params[1:], line)

    def _run_verb(self, verb: str, params: list[_Param], line: str) -> None:
        if verb in ("~", "more", "m"):
            self._continue(params, line)
        elif verb == "new":
            self._new(params, line)
        elif verb in ("edit", "batchedit"):
            self._edit(verb, params, line)
        elif verb in ("redirect", "compile"):
            if params:
                found = self.resolve(params[0][1], kind=verb, try_dss=True)
                if found is not None:
                    self.include(*found, compiled=verb == "compile")
        elif verb in ("set", "solve"):
            self._set(params, line)
            if verb == "solve":
                self.emit(verb, "solve")
        elif verb in _PLAIN_VERBS:
            text = self._arguments(params, f"command {verb}", line)
            if verb in ("clear", "clearall"):
                self._clear()
            if text is not None:
                self.emit(verb, f"{verb} {text}".rstrip())
        elif verb in ("buscoords", "latlongcoords"):
            staged = self.stage(params[0][1], verb) if params else None
            if staged is not None:
                self.emit(verb, f"{verb} {staged}")
        elif verb in _OBJECT_VERBS:
            self._object_verb(verb, params, line)
        elif verb == "var":
            self._set_variables(line)
        elif verb in _FORBIDDEN_VERBS:
            self.fault(
                "SEC-001 forbidden-verb",
                f"command {verb}",
                line,
                "statements that define or solve a circuit",
                f"It {_FORBIDDEN_VERBS[verb]}: take the statement out.",
            )
        elif verb in _UNSUPPORTED_VERBS:
            self.fault(
                "DSS-008 unsupported-verb",
                f"command {verb}",
                line,
                "statements that define or solve a circuit",
                "It changes the model in place: save the changed model in OpenDSS and read that.",
            )
        elif verb != "//":
            self.skip(line, f"'{verb}' is output or interactive")

    def _clear(self) -> None:
        self.cls = self.name = self.last_class = ""
        self.objects.clear()
        self.has_circuit = False

    def _substitute(self, params: list[_Param]) -> list[_Param]:
        """Put the values of ``@variables`` in; nothing is left for the engine to substitute.

        A bare token that changed may now hold blanks or delimiters: it is kept together by parentheses.
        """
        changed: list[_Param] = []
        for name, value, kind in params:
            text = self._expand(value)
            odd = text != value and kind == _BARE and _PLAIN_WORD.fullmatch(text) is None
            changed.append((name, text, _PARENTHESES if odd else kind))
        return changed

    def _expand(self, value: str) -> str:
        def replace(found: re.Match[str]) -> str:
            known = self.variables.get(found[0].lower())
            if known is None:
                self.fault(
                    "DSS-009 unknown-variable",
                    f"variable {found[0]}",
                    found[0],
                    "a variable set before with var",
                    _near(found[0], list(self.variables)),
                )
                return "0"
            self.expanded += len(known)
            self.bound(self.expanded, self.limits.expanded, "characters put in by variables")
            return known

        return _VARIABLE.sub(replace, value) if "@" in value else value

    def _set_variables(self, line: str) -> None:
        for name, value, _ in tokenise(line)[1:]:
            if name.startswith("@"):
                self.variables[name.lower()] = self._expand(value)
                self.bound(len(self.variables), self.limits.statements, "variables")
            else:
                self.skip(line, "'var' without a value is output")
                return

    def _object(self, params: list[_Param], line: str, *, whole_class: bool = False) -> tuple[str, str] | None:
        """The ``Class.name`` at the front of a statement, checked; lower case."""
        if not params:
            self.fault("DSS-007 missing-name", "object", line, "Class.name", "Name the object.")
            return None
        given, value, _ = params[0]
        if given and not ("object".startswith(given.lower()) or given.lower().startswith("object")):
            self.fault(
                "DSS-007 missing-name",
                "object",
                line,
                "Class.name, or object=Class.name, before the properties",
                "Name the object first.",
            )
            return None
        cls, dot, name = value.partition(".")
        if not dot:
            cls, name = self.last_class, value
        cls, name = cls.lower(), name.lower()
        if cls != "circuit" and cls not in _CLASSES:
            self.fault(
                "DSS-002 unknown-class",
                f"{cls or 'object'}.{name}",
                cls or line,
                "a class of OpenDSS",
                _near(cls, sorted(_CLASSES)),
            )
            return None
        if not name:
            self.fault("DSS-007 missing-name", cls, line, "Class.name", "Name the object.")
            return None
        return cls, name

    def _activate(self, cls: str, name: str) -> None:
        self.cls, self.name, self.last_class = cls, name, cls

    def _new(self, params: list[_Param], line: str) -> None:
        target = self._object(params, line)
        if target is None:
            self.cls = self.name = ""
            return
        cls, name = target
        key = f"{cls}.{name}"
        if cls == "circuit":
            if any(character in name for character in "/\\") or name.startswith("."):
                self.fault("SEC-012 odd-name", key, name, "a name without path separators", "Rename the circuit.")
                return
            # The engine makes `Vsource.source` of it, with bus1 already given.
            self.has_circuit = True
            self.objects.setdefault("vsource.source", (self.file, self.line))
            self._activate("vsource", "source")
            text = self._properties("vsource", params[1:], key, line, position=1)
            self.objects.setdefault(key, (self.file, self.line))
            self.emit("new", f"new {quote(key)}{text}", "circuit", name)
            return
        if key in self.objects and cls not in _GENERAL:
            first = self.objects[key]
            self.fault(
                "DSS-012 duplicate",
                key,
                f"a second New, first in {first[0]}:{first[1]}",
                "one New per element",
                "Rename it, or use Edit.",
            )
            return
        self.objects.setdefault(key, (self.file, self.line))
        self._activate(cls, name)
        text = self._properties(cls, params[1:], key, line)
        self.emit("new", f"new {quote(key)}{text}", cls, name)

    def _edit(self, verb: str, params: list[_Param], line: str) -> None:
        target = self._object(params, line)
        if target is None:
            return
        cls, name = target
        if cls == "circuit":
            self.skip(line, "the engine does nothing for an edit of the circuit")
            return
        key = f"{cls}.{name}"
        if verb == "edit":
            self._activate(cls, name)
        else:
            self.last_class = cls
        text = self._properties(cls, params[1:], key, line)
        if verb == "batchedit":  # a regular expression: its case matters
            key = f"{cls}.{params[0][1].partition('.')[2] or params[0][1]}"
        self.emit(verb, f"{verb} {quote(key)}{text}", cls, name)

    def _continue(self, params: list[_Param], line: str) -> None:
        if not self.cls:
            self.fault(
                "DSS-006 no-active-object",
                "continuation",
                line,
                "a continuation of an object",
                "Define the object before it.",
            )
            return
        cls, name = self.cls, self.name
        key = f"{cls}.{name}"
        text = self._properties(cls, params, key, line)
        if text:
            self.emit("edit", f"edit {quote(key)}{text}", cls, name)

    def _implicit_edit(self, path: str, params: list[_Param], line: str) -> None:
        """``Class.name.property=value ...``, ``name.property=value``, or a bare ``property=value``."""
        pieces = path.split(".", 2)
        if len(pieces) == 3:
            target = self._object([("", ".".join(pieces[:2]), _BARE)], line)
            if target is None:
                return
            self._activate(*target)
        elif len(pieces) == 2:
            target = self._object([("", pieces[0], _BARE)], line)
            if target is None:
                return
            self._activate(*target)
        if not self.cls:
            self.fault(
                "DSS-006 no-active-object",
                f"property {_short(path)}",
                line,
                "a command, or a property of an object",
                _near(path.lower(), _VERB_NAMES),
            )
            return
        cls, name = self.cls, self.name
        key = f"{cls}.{name}"
        first = (pieces[-1], params[0][1], params[0][2])
        text = self._properties(cls, [first, *params[1:]], key, line)
        if text:
            self.emit("edit", f"edit {quote(key)}{text}", cls, name)

    def _object_verb(self, verb: str, params: list[_Param], line: str) -> None:
        target = self._object(params, line)
        if target is None:
            return
        cls, name = target
        if cls != "circuit" and verb != "enable" and verb != "disable":
            self._activate(cls, name)
        text = self._arguments(params[1:], f"{cls}.{name}", line)
        if text is not None and cls != "circuit":
            self.emit(verb, f"{verb} {quote(f'{cls}.{name}')} {text}".rstrip(), cls, name)

    def _set(self, params: list[_Param], line: str) -> None:
        position = 0
        for given, value, kind in params:
            if given:
                option = _OPTIONS.get(given.lower())
                position = _OPTION_ORDER.index(option) + 1 if option else 0
            else:
                position += 1
                option = _OPTION_ORDER[position - 1] if position <= len(_OPTION_ORDER) else None
            element = f"option {option or given}"
            if option is None:
                self.fault(
                    "DSS-004 unknown-option",
                    element,
                    line,
                    "an option of Set",
                    _near(given.lower(), _OPTION_ORDER),
                )
            elif option in _FORBIDDEN_OPTIONS:
                self.fault(
                    "SEC-003 forbidden-option",
                    element,
                    line,
                    "options of the solution",
                    f"It {_FORBIDDEN_OPTIONS[option]}: take it out.",
                )
            elif option in _UNSUPPORTED_OPTIONS:
                self.fault(
                    "DSS-013 unsupported-option",
                    element,
                    line,
                    "one circuit, and element names that are used once",
                    "Take the option out.",
                )
            elif option not in _SOLUTION_OPTIONS:
                self.skip(f"set {option}={value}", f"option '{option}' is about reports or the program")
            elif option in ("object", "element"):
                target = self._object([("", value, kind)], line)
                if target is not None:
                    self._activate(*target)
                    self.emit("set", f"set object={quote('.'.join(target))}", *target)
            elif option in ("class", "type"):
                if value.lower() in _CLASSES:
                    self.last_class = value.lower()
                    self.emit("set", f"set class={value.lower()}")
                else:
                    self.fault(
                        "DSS-002 unknown-class",
                        element,
                        value,
                        "a class of OpenDSS",
                        _near(value.lower(), sorted(_CLASSES)),
                    )
            else:
                text = self._value(value, kind, element, line)
                if text is not None:
                    self.emit("set", f"set {option}={text}")

    def _arguments(self, params: list[_Param], element: str, line: str) -> str | None:
        texts = []
        for name, value, kind in params:
            text = self._value(value, kind, element, line) if self._fits("bus", value, element) else None
            if text is None:
                return None
            texts.append(f"{quote(name)}={text}" if name else text)
        return " ".join(texts)

    def _properties(self, cls: str, params: list[_Param], element: str, line: str, *, position: int = 0) -> str:
        """The properties of an edit with full names, each behind a blank (``TDSSClass.Edit``)."""
        names, short = _POSITIONS[cls], _SHORT[cls]
        texts = []
        for given, value, kind in params:
            if given:
                full = short.get(given.lower())
                position = names.index(full) + 1 if full else 0
            else:
                position += 1
                full = names[position - 1] if position <= len(names) else None
            if full is None:
                self.fault(
                    "DSS-003 unknown-property",
                    element,
                    f"{given}={value}" if given else f"value {value} after the last property",
                    f"a property of {_CLASSES[cls]}",
                    _near(given.lower(), names),
                )
                continue
            if full in _FORBIDDEN_PROPERTIES:
                self.fault(
                    "SEC-002 forbidden-property",
                    element,
                    f"{full}={value}",
                    "models that are built into the engine",
                    "It loads a native library: take it out.",
                )
                continue
            if full in _DROPPED_PROPERTIES:
                self.skip(f"{element} {full}={value}", f"'{full}' {_DROPPED_PROPERTIES[full]}")
                continue
            if full == "action" and not self._action(cls, value, element):
                continue
            if full in _FILE_PROPERTIES:
                staged = self.stage(value, f"{element} {full}")
                if staged is not None:
                    texts.append(f" {full}={staged}")
                continue
            if not self._fits(full, value, f"{element} {full}"):
                continue
            if full == "like":
                self._like(cls, value)
            if kind == _BARE and "@" not in value:
                texts.append(f" {full}={value}")
            else:
                text = self._value(value, kind, element, line)
                if text is not None:
                    texts.append(f" {full}={text}")
        return "".join(texts)

    def _like(self, cls: str, value: str) -> None:
        """After ``like=`` the engine's active object is the one copied from; follow it."""
        if f"{cls}.{value.lower()}" in self.objects:
            self._activate(cls, value.lower())

    def _fits(self, full: str, value: str, element: str) -> bool:
        """Whether the engine has room for what the value asks for: it allocates, or copies, without looking."""
        if full in _BUSES:
            # Inside quotes blanks part nodes just as points do; in a list of plain names each stands by itself.
            plain = full == "buses" and not any(quoted in value for quoted in _OPEN if quoted)
            count = max((len(_PART.findall(v)) for v in (re.split(r"[\s,|]+", value) if plain else [value])), default=0)
            limit, what = self.limits.nodes, "nodes of one bus"
        elif full in _SIZES or full == "npts":
            limit, what = self.limits.points if full == "npts" else self.limits.size, "a plain number"
            number = re.fullmatch(r"\s*([+-]?\d{1,12})(?:\.0*)?\s*", value)
            count = int(number[1]) if number else limit + 1
        else:
            return True
        if count <= limit:
            return True
        self.fault(
            "SEC-008 limit", element, value, f"{what}, at most {limit}", "Correct the value, or raise the limit."
        )
        return False

    def _action(self, cls: str, value: str, element: str) -> bool:
        if cls in _SHAPE_CLASSES and not value.lower().startswith("n"):
            self.fault(
                "SEC-011 forbidden-action",
                element,
                f"action={value}",
                "action=normalize",
                "It writes a file: take it out.",
            )
            return False
        if cls in ("monitor", "energymeter"):
            self.skip(f"{element} action={value}", "an action of a meter is output")
            return False
        return True

    def _value(self, value: str, kind: int, element: str, line: str) -> str | None:
        """A value, quoted as it was; file references inside are staged and rewritten."""
        if kind == _BARE:
            return quote(value)
        if "=" not in value:
            return f"{_OPEN[kind]}{value}{_CLOSE[kind]}" if _CLOSE[kind] not in value else quote(value)
        inner = tokenise(value)
        texts = []
        for index, (name, text, _) in enumerate(inner):
            low = name.lower()
            reader = "file" if low == "file" else "dblfile" if low.startswith("d") else "sngfile"
            if index == 0 and (low == "file" or _is_short(low, "dblfile") or _is_short(low, "sngfile")):
                staged = self.stage(text, element)
                if staged is None:
                    return None
                texts.append(f"{reader}={staged}")
            elif index > 0 and (_is_short(low, "column") or _is_short(low, "header")):
                texts.append(f"{'column' if low[0] == 'c' else 'header'}={quote(text)}")
            else:
                texts = []
                break
        if not texts:
            self.fault(
                "DSS-011 odd-value",
                element,
                line,
                "a list of values, or (file=...), (dblfile=...), (sngfile=...)",
                "Write the values without '='.",
            )
            return None
        return f"({', '.join(texts)})"


def _is_short(text: str, full: str) -> bool:
    """The engine's comparison over the shorter of two names (``CompareTextShortest``)."""
    return bool(text) and (full.startswith(text) or text.startswith(full))


def scan(master: Path | str, *, root: Path | str | None = None, limits: Limits | None = None) -> ScannedModel:
    """Read an OpenDSS file tree and return the statements that are safe to run.

    Nothing is executed, and nothing outside ``root`` is read.

    Args:
        master: the .dss file to start from.
        root: the case folder (default: the folder of ``master``); all files must lie below it.
        limits: what the tree may cost.

    Returns:
        The flattened model.

    Raises:
        HostileFileError: the tree asks for something forbidden (codes ``SEC-nnn``); holds all faults.
        CaseError: the tree has errors (codes ``DSS-nnn``); holds all faults.
    """
    path = Path(os.path.realpath(master))
    base = Path(os.path.realpath(root)) if root is not None else path.parent
    scanner = _Scanner(base, limits or Limits())
    if base not in path.parents:
        scanner.fault(
            "SEC-005 outside-root", f"file {path.name}", str(path), f"a file below {base}", "Name its folder."
        )
        raise HostileFileError(scanner.faults)
    if not path.is_file():
        near = sorted(entry.name for entry in path.parent.glob("*")) if path.parent.is_dir() else []
        scanner.fault(
            "DSS-005 missing-file",
            f"file {path.name}",
            str(master),
            "a file that exists",
            _near(path.name, near),
        )
        raise CaseError(scanner.faults)
    try:
        scanner.include(path, path.relative_to(base).parts, compiled=True)
        if not scanner.has_circuit and not scanner.faults:
            scanner.file = ""
            scanner.fault(
                "DSS-010 no-circuit",
                f"file {path.name}",
                "no 'New Circuit.name'",
                "one circuit",
                "Name the master file, not one of its parts.",
            )
    except _Stop:
        pass
    if scanner.faults:
        hostile = any(fault.code.startswith("SEC") for fault in scanner.faults)
        raise HostileFileError(scanner.faults) if hostile else CaseError(scanner.faults)
    return ScannedModel(
        master=path,
        root=base,
        statements=tuple(scanner.statements),
        files=tuple(scanner.files),
        skipped=tuple(scanner.skipped),
        objects=MappingProxyType(dict(scanner.objects)),
        staged=MappingProxyType(dict(scanner.staged)),
        staged_from=MappingProxyType({name: source for source, name in scanner.staged_names.items()}),
    )
