"""The files of a case, read safely: nothing outside its folder, no device or pipe, no more than the limits.

A path of the script is followed from the case folder without regard to case, as on the system that it was written on;
absolute paths, ``..`` beyond the folder and links out of it are faults. A data file is taken along under a safe name.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from lateral.io.opendss.scan_record import Limits, Record, Skipped, Stop, shortened, suggest

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_END_NUL = re.compile(r"(?<!\x00)\x00++(?=[ \t]*+(?:[\r\n]|\Z))")
LINE_END = re.compile(r"\r\n|\n|\r")


class CaseFiles:
    """The files below one root, with what was read of them so far."""

    def __init__(self, root: Path, limits: Limits, record: Record) -> None:
        self.root = root
        self.limits = limits
        self.record = record
        self.used: dict[str, None] = {}
        self.staged: dict[str, bytes] = {}
        self.staged_names: dict[str, str] = {}
        self.listings: dict[Path, dict[str, str]] = {}
        self.folder: tuple[str, ...] = ()  # the engine's current folder, below the root
        self.reads = 0
        self.bytes = 0

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
        element = f"{kind} {shortened(path)}"
        text = path.strip().replace("\\", "/")
        if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:", text):
            self.record.fault(
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
                    self.record.fault(
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
            faults = self.record.faults
            if faults and faults[-1].element == element and faults[-1].code.startswith("SEC"):
                return None
        near = self._listing(self.root.joinpath(*parts[:-1])) if parts else {}
        self.record.fault(
            "DSS-005 missing-file",
            element,
            path,
            "a file that exists",
            suggest(parts[-1] if parts else path, sorted(near.values())),
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
                    self.record.fault(
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
            self.record.fault(
                "SEC-008 limit",
                element,
                f"more than {self.limits.files} files",
                f"{self.limits.files}",
                "Merge files or raise the limit.",
            )
            raise Stop
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.record.fault("SEC-010 not-a-file", element, str(error.strerror), "a readable file", "Check the file.")
            return None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                found = "a folder, device or pipe"
                self.record.fault("SEC-010 not-a-file", element, found, "a regular file", "Name a regular file.")
                return None
            size = status.st_size
            if size > self.limits.file_bytes or self.bytes + size > self.limits.total_bytes:
                self.record.fault(
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
            self.used.setdefault(relative)
        return name

    def decode(self, content: bytes, relative: str) -> str | None:
        """The text of a file; None, with a fault, when it has control characters."""
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
                self.record.skipped.append(
                    Skipped(f"{count} NUL character(s) at line ends", "not part of the text", relative, 0)
                )
        odd = _CONTROL.search(text)
        if odd is not None:
            saved = self.record.file, self.record.line
            self.record.file, self.record.line = relative, len(LINE_END.findall(text[: odd.start()])) + 1
            self.record.fault(
                "SEC-009 not-text",
                f"file {relative}",
                f"control character {ord(odd[0])}",
                "text in UTF-8 or Latin-1",
                "Save the file as plain text.",
            )
            self.record.file, self.record.line = saved
            return None
        return text
