"""What of an import report every user is to see, whichever command read the files.

Said is whatever makes the case another network than the files': objects with power or an admittance that were left out,
in whole or in part, or replaced by something that is not the same; a power flow that differs from the engine's. Not
said, because the results do not change by it: exact restatements, controls held at the solved point, objects that the
files disable, defaults that were not taken for limits, measurement and other studies. `lateral import` lists those.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from lateral.io.opendss.report import CODES, ImportEntry, ImportNote

#: Codes of objects that are left out although they matter; whatever is approximated matters too.
LEFT_OUT = frozenset({"IMP-021", "IMP-040"})
#: Codes of notes about the model as a whole that matter.
NOTES = frozenset({"IMP-052", "IMP-055", "IMP-057", "IMP-062", "IMP-063", "IMP-071", "IMP-072", "IMP-073"})
#: Objects that are named in one line.
NAMED = 5


def matters(entry: ImportEntry) -> bool:
    """Whether results differ from the files' because of what became of an object."""
    return entry.outcome == "approximated" or (entry.outcome == "ignored" and entry.code in LEFT_OUT)


def warning_lines(entries: Iterable[ImportEntry], notes: Iterable[ImportNote]) -> tuple[str, ...]:
    """One line for each code, those with the most power first: what, how many, how much power, and the first names.

    Args:
        entries: the objects of an import report.
        notes: its notes.
    """
    groups: dict[tuple[str, str], list[ImportEntry]] = {}
    for entry in entries:
        if matters(entry):
            groups.setdefault((entry.outcome, entry.code), []).append(entry)
    order = sorted(groups, key=lambda key: (-sum(e.lost_kw for e in groups[key]), key[1]))
    return (*(_objects(*key, groups[key]) for key in order), *_notes(notes))


def _objects(outcome: str, code: str, found: list[ImportEntry]) -> str:
    kw: defaultdict[str, float] = defaultdict(float)
    for entry in found:
        kw[entry.cls] += entry.lost_kw
    lost = "" if outcome == "ignored" else " left out"
    counts = ", ".join(
        f"{n} {cls}{'' if n == 1 else 's'}" + (f" ({kw[cls]:g} kW{lost})" if kw[cls] else "")
        for cls, n in sorted(Counter(e.cls for e in found).items(), key=lambda item: -kw[item[0]])
    )
    said = "left out" if outcome == "ignored" else "approximated"
    names = [e.element for e in sorted(found, key=lambda e: -e.lost_kw)]
    return f"[{code}] {said}, {CODES[code]}: {counts}: {_few(names)}"


def _notes(notes: Iterable[ImportNote]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for note in notes:
        if note.code in NOTES:
            groups.setdefault(note.code, []).append(note.text)
    return [
        f"[{code}] {texts[0]}" + (f"; and {len(texts) - 1} more of its kind" if len(texts) > 1 else "")
        for code, texts in groups.items()
    ]


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


__all__ = ["LEFT_OUT", "NOTES", "matters", "warning_lines"]
