"""Ratings of an OpenDSS model: what the files state is a limit, what the engine makes of its own defaults is none.

The engine rates everything. A line whose file says nothing gets 400 A; a series reactor given by R and X gets the
current of a default of 100 kvar, 4.6 A at 12.47 kV; a transformer without kVA is one of 1000 kVA. Where the files do
not state the rating, nor the power that the engine derives it from, no limit is taken, and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping

from lateral.io.opendss.map_build import Build, Properties, number
from lateral.io.opendss.scan import Statement

#: Normal and emergency rating that the engine gives to a line whose file says none, A.
DEFAULT_RATING_A = (400.0, 600.0)
#: Properties that state a rating, or the power that the engine derives one from.
_STATES: Mapping[str, tuple[str, ...]] = {
    "line": ("normamps", "emergamps"),
    "reactor": ("normamps", "kvar"),
    "capacitor": ("normamps", "kvar"),
    "transformer": ("normhkva", "kva", "kvas"),
}
_WIRE_DATA = ("wiredata", "cndata", "tsdata")
#: Classes that an element takes its ratings from, by the property that names them; `like` names one of the own class.
_MADE_OF: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "line": {"linecode": ("linecode",), "geometry": ("linegeometry",)}
    | dict.fromkeys(("wire", "wires", "cncable", "cncables", "tscable", "tscables"), _WIRE_DATA),
    "transformer": {"xfmrcode": ("xfmrcode",)},
}
_VALUE = r"""\"[^\"]*\"|'[^']*'|\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|\S+"""
_QUOTES = "\"'()[]{}"
#: Patterns of names that are matched; any other stands for the whole class (an expression of a file may take forever).
_EASY_PATTERN = re.compile(r"\^?[\w.-]*(?:\.\*)?[\w.-]*\$?")


def line_limit(build: Build, name: str, properties: Properties) -> float:
    """Ampere limit of a line, A; inf where the engine's default stands for none."""
    normal = number(properties, "normamps")
    if (normal, number(properties, "emergamps")) == DEFAULT_RATING_A:
        return limit(build, "line", name, normal)
    return normal if normal > 0 else float("inf")


def limit(build: Build, cls: str, name: str, rating: float) -> float:
    """A rating as a limit; inf where it is none (0), or the engine's and not the files', which is noted.

    Args:
        build: the model on its way.
        cls: class of the element.
        name: its name, lower case.
        rating: what the engine has, A or kVA.
    """
    if not rating > 0:
        return float("inf")
    if cls not in _STATES:
        return rating
    if cls not in build.stated:
        build.stated[cls] = stated_ratings(build.model.scanned.statements, cls)
    if name in build.stated[cls]:
        return rating
    build.unrated.setdefault(cls, []).append(name)
    return float("inf")


def note_unrated(build: Build) -> None:
    """A note for each class with elements whose rating is the engine's."""
    for cls, names in build.unrated.items():
        many = f"1 {cls} carries" if len(names) == 1 else f"{len(names)} {cls}s carry"
        what = "default rating"
        if cls == "line":
            normal, emergency = DEFAULT_RATING_A
            what = f"default ratings ({normal:g} and {emergency:g} A)"
        build.note("IMP-064", f"{many} the engine's {what}: no limit is taken")


def stated_ratings(statements: Iterable[Statement], cls: str) -> frozenset[str]:
    """Names of the elements of a class that the files rate: their own statements do, or those of what they are made of.

    Args:
        statements: every statement of the files.
        cls: a class of `_STATES`.
    """
    made_of = _MADE_OF.get(cls, {})
    classes = {cls, *(source for sources in made_of.values() for source in sources)}
    states = re.compile(rf"\s(?:{'|'.join(_STATES[cls])})=", re.IGNORECASE)
    refers = re.compile(rf"\s({'|'.join((*made_of, 'like'))})=({_VALUE})", re.IGNORECASE)
    rated: set[tuple[str, str]] = set()
    users: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for statement, meant in elements_meant(statements, classes):
        own = statement.cls
        said = states.search(statement.text) is not None
        references = refers.findall(statement.text)
        if not said and not references:
            continue
        if said:
            rated.update((own, name) for name in meant)
        for key, value in references:
            whole = value.strip(_QUOTES).lower()
            parts = {whole, *re.split(r"[\s,|]+", whole)} if key.lower().endswith("s") else {whole}
            for source in made_of.get(key.lower(), (own,)):
                for part in parts:
                    users.setdefault((source, part), []).extend((own, name) for name in meant)
    found = list(rated)
    while found:
        for user in users.get(found.pop(), ()):
            if user not in rated:
                rated.add(user)
                found.append(user)
    return frozenset(name for own, name in rated if own == cls)


def elements_meant(statements: Iterable[Statement], classes: Container[str]) -> Iterator[tuple[Statement, list[str]]]:
    """The statements on elements of some classes, in order, each with the names of those that it is on."""
    names: dict[str, list[str]] = {}
    for statement in statements:
        own = statement.cls
        if own not in classes:
            continue
        if statement.verb == "new":
            names.setdefault(own, []).append(statement.name)
        meant = [statement.name]
        if statement.verb == "batchedit":
            meant = names.get(own, [])
            if _EASY_PATTERN.fullmatch(statement.name):
                pattern = re.compile(statement.name)
                meant = [name for name in meant if pattern.search(name)]
        yield statement, meant


__all__ = ["DEFAULT_RATING_A", "elements_meant", "limit", "line_limit", "note_unrated", "stated_ratings"]
