"""Read an OpenDSS file tree without running it: a .dss file is untrusted input.

The engine can start an editor, load native libraries, change folders and write files on behalf of a script,
so a script never reaches it as text. This module tokenises the tree exactly as the engine does (DSS C-API
0.14.5, ``ParserDel.pas``, ``ExecCommands.pas``, ``DSSClass.pas``: quoting, abbreviations, values by position,
``~`` continuation, variables), checks every verb, class, property and path against allow-lists, and writes
each statement anew with full names and explicit quoting. The engine then only sees text written here.

Tokens are cut in ``scan_tokens``, the allow-lists are in ``scan_words``, files are found and read in ``scan_files``,
values and variables are written out in ``scan_values``, and ``scan_record`` keeps what was found. Here is what each
statement means to the engine.

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
from pathlib import Path
from types import MappingProxyType

from lateral.errors import CaseError, HostileFileError
from lateral.io.opendss.scan_files import LINE_END, CaseFiles
from lateral.io.opendss.scan_record import Limits, Record, ScannedModel, Skipped, Statement, Stop, shortened, suggest
from lateral.io.opendss.scan_tokens import BARE, Param, UnquotableError, blanks, quote, tokenise
from lateral.io.opendss.scan_values import Values, Variables
from lateral.io.opendss.scan_words import (
    CLASSES,
    DROPPED_PROPERTIES,
    FILE_PROPERTIES,
    FORBIDDEN_OPTIONS,
    FORBIDDEN_PROPERTIES,
    FORBIDDEN_VERBS,
    GENERAL,
    OBJECT_VERBS,
    OPTION_ORDER,
    OPTIONS,
    PLAIN_VERBS,
    POSITIONS,
    SHORT,
    SOLUTION_OPTIONS,
    UNSUPPORTED_OPTIONS,
    UNSUPPORTED_VERBS,
    VERB_NAMES,
    VERBS,
)

__all__ = ["Limits", "ScannedModel", "Skipped", "Statement", "scan"]


class _Scanner:
    """State of one scan. The engine's own state (active class and object, folder, variables) is mirrored."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.limits = limits
        self.record = Record(limits)
        self.files = CaseFiles(root, limits, self.record)
        self.values = Values(limits, self.record, self.files)
        self.objects: dict[str, tuple[str, int]] = {}
        self.variables = Variables(limits, self.record)
        self.stack: list[Path] = []
        self.has_circuit = False
        self.cls = ""
        self.name = ""
        self.last_class = ""

    # files

    def include(self, path: Path, parts: tuple[str, ...], *, compiled: bool) -> None:
        """Scan one file. ``Compile`` leaves the engine in its folder, ``Redirect`` comes back."""
        relative = "/".join(parts)
        element = f"file {relative}"
        if path in self.stack:
            self.record.fault(
                "SEC-007 recursion",
                element,
                " -> ".join(p.name for p in (*self.stack, path)),
                "files that do not include themselves",
                "Take the Redirect out.",
            )
            return
        if len(self.stack) >= self.limits.depth:
            self.record.fault(
                "SEC-008 limit",
                element,
                f"more than {self.limits.depth} levels of Redirect",
                f"{self.limits.depth}",
                "Flatten the tree or raise the limit.",
            )
            return
        content = self.files.read(path, element)
        if content is None:
            return
        self.files.used.setdefault(relative)
        text = self.files.decode(content, relative)
        if text is None:
            return
        saved = self.files.folder, self.record.file, self.record.line
        self.files.folder, self.record.file, self.record.line = parts[:-1], relative, 0
        self.stack.append(path)
        self._run_lines(text)
        self.stack.pop()
        _, self.record.file, self.record.line = saved
        if not compiled:
            self.files.folder = saved[0]

    def _run_lines(self, text: str) -> None:
        in_block = False
        for number, line in enumerate(LINE_END.split(text), start=1):
            # Block comments are whole lines: from one that starts with /* to one that contains */.
            if in_block or line.startswith("/*"):
                in_block = "*/" not in line
                continue
            start = blanks(line, 0)
            if start == len(line) or line[start] == "!" or line.startswith("//", start):
                continue
            self.record.line = number
            self.statement(line)

    # statements

    def statement(self, line: str) -> None:
        """Check one line and keep what the engine may run of it."""
        try:
            self._statement(line)
        except UnquotableError:
            self.record.fault(
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
            params = self.variables.substitute(params)
        name, value, _ = params[0]
        if name:
            self._implicit_edit(name, params, line)
            return
        verb = VERBS.get(value.lower())
        if verb is None:
            self.record.fault(
                "DSS-001 unknown-verb",
                f"command {shortened(value)}",
                line,
                "a command of OpenDSS",
                suggest(value.lower(), VERB_NAMES),
            )
            return
        self._run_verb(verb, params[1:], line)

    def _run_verb(self, verb: str, params: list[Param], line: str) -> None:
        if verb in ("~", "more", "m"):
            self._continue(params, line)
        elif verb == "new":
            self._new(params, line)
        elif verb in ("edit", "batchedit"):
            self._edit(verb, params, line)
        elif verb in ("redirect", "compile"):
            if params:
                found = self.files.resolve(params[0][1], kind=verb, try_dss=True)
                if found is not None:
                    self.include(*found, compiled=verb == "compile")
        elif verb in ("set", "solve"):
            self._set(params, line)
            if verb == "solve":
                self.record.emit(verb, "solve")
        elif verb in PLAIN_VERBS:
            text = self.values.arguments(params, f"command {verb}", line)
            if verb in ("clear", "clearall"):
                self._clear()
            if text is not None:
                self.record.emit(verb, f"{verb} {text}".rstrip())
        elif verb in ("buscoords", "latlongcoords"):
            staged = self.files.stage(params[0][1], verb) if params else None
            if staged is not None:
                self.record.emit(verb, f"{verb} {staged}")
        elif verb in OBJECT_VERBS:
            self._object_verb(verb, params, line)
        elif verb == "var":
            self.variables.assign(line)
        elif verb in FORBIDDEN_VERBS:
            self.record.fault(
                "SEC-001 forbidden-verb",
                f"command {verb}",
                line,
                "statements that define or solve a circuit",
                f"It {FORBIDDEN_VERBS[verb]}: take the statement out.",
            )
        elif verb in UNSUPPORTED_VERBS:
            self.record.fault(
                "DSS-008 unsupported-verb",
                f"command {verb}",
                line,
                "statements that define or solve a circuit",
                "It changes the model in place: save the changed model in OpenDSS and read that.",
            )
        elif verb != "//":
            self.record.skip(line, f"'{verb}' is output or interactive")

    def _clear(self) -> None:
        self.cls = self.name = self.last_class = ""
        self.objects.clear()
        self.has_circuit = False

    def _object(self, params: list[Param], line: str, *, whole_class: bool = False) -> tuple[str, str] | None:
        """The ``Class.name`` at the front of a statement, checked; lower case."""
        if not params:
            self.record.fault("DSS-007 missing-name", "object", line, "Class.name", "Name the object.")
            return None
        given, value, _ = params[0]
        if given and not ("object".startswith(given.lower()) or given.lower().startswith("object")):
            self.record.fault(
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
        if cls != "circuit" and cls not in CLASSES:
            self.record.fault(
                "DSS-002 unknown-class",
                f"{cls or 'object'}.{name}",
                cls or line,
                "a class of OpenDSS",
                suggest(cls, sorted(CLASSES)),
            )
            return None
        if not name:
            self.record.fault("DSS-007 missing-name", cls, line, "Class.name", "Name the object.")
            return None
        return cls, name

    def _activate(self, cls: str, name: str) -> None:
        self.cls, self.name, self.last_class = cls, name, cls

    def _new(self, params: list[Param], line: str) -> None:
        target = self._object(params, line)
        if target is None:
            self.cls = self.name = ""
            return
        cls, name = target
        key = f"{cls}.{name}"
        if cls == "circuit":
            if any(character in name for character in "/\\") or name.startswith("."):
                allowed = "a name without path separators"
                self.record.fault("SEC-012 odd-name", key, name, allowed, "Rename the circuit.")
                return
            # The engine makes `Vsource.source` of it, with bus1 already given.
            self.has_circuit = True
            self.objects.setdefault("vsource.source", (self.record.file, self.record.line))
            self._activate("vsource", "source")
            text = self._properties("vsource", params[1:], key, line, position=1)
            self.objects.setdefault(key, (self.record.file, self.record.line))
            self.record.emit("new", f"new {quote(key)}{text}", "circuit", name)
            return
        if key in self.objects and cls not in GENERAL:
            first = self.objects[key]
            self.record.fault(
                "DSS-012 duplicate",
                key,
                f"a second New, first in {first[0]}:{first[1]}",
                "one New per element",
                "Rename it, or use Edit.",
            )
            return
        self.objects.setdefault(key, (self.record.file, self.record.line))
        self._activate(cls, name)
        text = self._properties(cls, params[1:], key, line)
        self.record.emit("new", f"new {quote(key)}{text}", cls, name)

    def _edit(self, verb: str, params: list[Param], line: str) -> None:
        target = self._object(params, line)
        if target is None:
            return
        cls, name = target
        if cls == "circuit":
            self.record.skip(line, "the engine does nothing for an edit of the circuit")
            return
        key = f"{cls}.{name}"
        if verb == "edit":
            self._activate(cls, name)
        else:
            self.last_class = cls
        text = self._properties(cls, params[1:], key, line)
        if verb == "batchedit":  # a regular expression: its case matters
            key = f"{cls}.{params[0][1].partition('.')[2] or params[0][1]}"
        self.record.emit(verb, f"{verb} {quote(key)}{text}", cls, name)

    def _continue(self, params: list[Param], line: str) -> None:
        if not self.cls:
            self.record.fault(
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
            self.record.emit("edit", f"edit {quote(key)}{text}", cls, name)

    def _implicit_edit(self, path: str, params: list[Param], line: str) -> None:
        """``Class.name.property=value ...``, ``name.property=value``, or a bare ``property=value``."""
        pieces = path.split(".", 2)
        if len(pieces) == 3:
            target = self._object([("", ".".join(pieces[:2]), BARE)], line)
            if target is None:
                return
            self._activate(*target)
        elif len(pieces) == 2:
            target = self._object([("", pieces[0], BARE)], line)
            if target is None:
                return
            self._activate(*target)
        if not self.cls:
            self.record.fault(
                "DSS-006 no-active-object",
                f"property {shortened(path)}",
                line,
                "a command, or a property of an object",
                suggest(path.lower(), VERB_NAMES),
            )
            return
        cls, name = self.cls, self.name
        key = f"{cls}.{name}"
        first = (pieces[-1], params[0][1], params[0][2])
        text = self._properties(cls, [first, *params[1:]], key, line)
        if text:
            self.record.emit("edit", f"edit {quote(key)}{text}", cls, name)

    def _object_verb(self, verb: str, params: list[Param], line: str) -> None:
        target = self._object(params, line)
        if target is None:
            return
        cls, name = target
        if cls != "circuit" and verb != "enable" and verb != "disable":
            self._activate(cls, name)
        text = self.values.arguments(params[1:], f"{cls}.{name}", line)
        if text is not None and cls != "circuit":
            self.record.emit(verb, f"{verb} {quote(f'{cls}.{name}')} {text}".rstrip(), cls, name)

    def _set(self, params: list[Param], line: str) -> None:
        position = 0
        for given, value, kind in params:
            if given:
                option = OPTIONS.get(given.lower())
                position = OPTION_ORDER.index(option) + 1 if option else 0
            else:
                position += 1
                option = OPTION_ORDER[position - 1] if position <= len(OPTION_ORDER) else None
            element = f"option {option or given}"
            if option is None:
                self.record.fault(
                    "DSS-004 unknown-option",
                    element,
                    line,
                    "an option of Set",
                    suggest(given.lower(), OPTION_ORDER),
                )
            elif option in FORBIDDEN_OPTIONS:
                self.record.fault(
                    "SEC-003 forbidden-option",
                    element,
                    line,
                    "options of the solution",
                    f"It {FORBIDDEN_OPTIONS[option]}: take it out.",
                )
            elif option in UNSUPPORTED_OPTIONS:
                self.record.fault(
                    "DSS-013 unsupported-option",
                    element,
                    line,
                    "one circuit, and element names that are used once",
                    "Take the option out.",
                )
            elif option not in SOLUTION_OPTIONS:
                self.record.skip(f"set {option}={value}", f"option '{option}' is about reports or the program")
            elif option in ("object", "element"):
                target = self._object([("", value, kind)], line)
                if target is not None:
                    self._activate(*target)
                    self.record.emit("set", f"set object={quote('.'.join(target))}", *target)
            elif option in ("class", "type"):
                if value.lower() in CLASSES:
                    self.last_class = value.lower()
                    self.record.emit("set", f"set class={value.lower()}")
                else:
                    self.record.fault(
                        "DSS-002 unknown-class",
                        element,
                        value,
                        "a class of OpenDSS",
                        suggest(value.lower(), sorted(CLASSES)),
                    )
            else:
                text = self.values.value(value, kind, element, line)
                if text is not None:
                    self.record.emit("set", f"set {option}={text}")

    def _properties(self, cls: str, params: list[Param], element: str, line: str, *, position: int = 0) -> str:
        """The properties of an edit with full names, each behind a blank (``TDSSClass.Edit``)."""
        names, short = POSITIONS[cls], SHORT[cls]
        texts = []
        for given, value, kind in params:
            if given:
                full = short.get(given.lower())
                position = names.index(full) + 1 if full else 0
            else:
                position += 1
                full = names[position - 1] if position <= len(names) else None
            if full is None:
                self.record.fault(
                    "DSS-003 unknown-property",
                    element,
                    f"{given}={value}" if given else f"value {value} after the last property",
                    f"a property of {CLASSES[cls]}",
                    suggest(given.lower(), names),
                )
                continue
            if full in FORBIDDEN_PROPERTIES:
                self.record.fault(
                    "SEC-002 forbidden-property",
                    element,
                    f"{full}={value}",
                    "models that are built into the engine",
                    "It loads a native library: take it out.",
                )
                continue
            if full in DROPPED_PROPERTIES:
                self.record.skip(f"{element} {full}={value}", f"'{full}' {DROPPED_PROPERTIES[full]}")
                continue
            if full == "action" and not self.values.action(cls, value, element):
                continue
            if full in FILE_PROPERTIES:
                staged = self.files.stage(value, f"{element} {full}")
                if staged is not None:
                    texts.append(f" {full}={staged}")
                continue
            if not self.values.fits(full, value, f"{element} {full}"):
                continue
            if full == "like":
                self._like(cls, value)
            if kind == BARE and "@" not in value:
                texts.append(f" {full}={value}")
            else:
                text = self.values.value(value, kind, element, line)
                if text is not None:
                    texts.append(f" {full}={text}")
        return "".join(texts)

    def _like(self, cls: str, value: str) -> None:
        """After ``like=`` the engine's active object is the one copied from; follow it."""
        if f"{cls}.{value.lower()}" in self.objects:
            self._activate(cls, value.lower())


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
        scanner.record.fault(
            "SEC-005 outside-root", f"file {path.name}", str(path), f"a file below {base}", "Name its folder."
        )
        raise HostileFileError(scanner.record.faults)
    if not path.is_file():
        near = sorted(entry.name for entry in path.parent.glob("*")) if path.parent.is_dir() else []
        scanner.record.fault(
            "DSS-005 missing-file",
            f"file {path.name}",
            str(master),
            "a file that exists",
            suggest(path.name, near),
        )
        raise CaseError(scanner.record.faults)
    try:
        scanner.include(path, path.relative_to(base).parts, compiled=True)
        if not scanner.has_circuit and not scanner.record.faults:
            scanner.record.file = ""
            scanner.record.fault(
                "DSS-010 no-circuit",
                f"file {path.name}",
                "no 'New Circuit.name'",
                "one circuit",
                "Name the master file, not one of its parts.",
            )
    except Stop:
        pass
    if scanner.record.faults:
        hostile = any(fault.code.startswith("SEC") for fault in scanner.record.faults)
        raise HostileFileError(scanner.record.faults) if hostile else CaseError(scanner.record.faults)
    return ScannedModel(
        master=path,
        root=base,
        statements=tuple(scanner.record.statements),
        files=tuple(scanner.files.used),
        skipped=tuple(scanner.record.skipped),
        objects=MappingProxyType(dict(scanner.objects)),
        staged=MappingProxyType(dict(scanner.files.staged)),
        staged_from=MappingProxyType({name: source for source, name in scanner.files.staged_names.items()}),
    )
