"""TOML files against a pydantic model: every fault at once, with file, line and the nearest known key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from lateral.errors import CaseError, Fault, did_you_mean

#: a hand-written TOML file is small; more than this is not one
MAX_BYTES = 16_000_000


class Strict(BaseModel):
    """Base of the models: unknown keys are faults, and a model is frozen once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)


M = TypeVar("M", bound=BaseModel)


def read_toml(path: Path, code: str) -> tuple[dict[str, Any], str]:
    """A TOML file as plain data, with its text.

    Raises:
        CaseError: the file is missing, too large, not UTF-8 or not TOML; the fault has the given code.
    """

    def refuse(found: str, action: str, where: str = "") -> CaseError:
        fault = Fault(code, f"file.{path.name}", found, "a TOML file in UTF-8", action, where or path.name)
        return CaseError([fault])

    try:
        if path.stat().st_size > MAX_BYTES:
            found = "a file of more than 16 MB"
            raise refuse(found, "Keep data in tables, not in the TOML file.")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        found = "bytes that are not UTF-8"
        raise refuse(found, "Save the file as UTF-8.") from None
    except OSError as error:
        raise refuse(error.strerror or "a file that cannot be read", "Check the path.") from None
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = f"{path.name}:{line[1]}" if line else path.name
        raise refuse(str(error), "Correct the syntax.", where) from None
    except RecursionError:
        found = "values nested without end"
        raise refuse(found, "Correct the syntax.") from None


def validate(model: type[M], data: dict[str, Any], text: str, file: str, code: str) -> M:
    """The data as a model.

    Raises:
        CaseError: with one fault per key that is unknown, missing or of the wrong kind.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = [(_path(data, e), e) for e in error.errors(include_url=False)]
    # A union complains once per branch: what lies deeper tells more, and branches at one key are one fault.
    merged: dict[tuple[Any, ...], Fault] = {}
    for path, e in found:
        if any(len(other) > len(path) and other[: len(path)] == path for other, _ in found):
            continue
        fault = _fault(model, path, e, text, file, code)
        before = merged.get(path)
        if before is not None and fault.allowed not in before.allowed.split(" or "):
            fault = replace(before, allowed=f"{before.allowed} or {fault.allowed}")
        merged[path] = fault
    raise CaseError(merged.values())


def _path(data: Any, error: Any) -> tuple[str | int, ...]:
    """Keys and indices that lead to the fault in the file, without the names of union branches between them."""
    node, out = data, []
    for k, part in enumerate(error["loc"]):
        last = k == len(error["loc"]) - 1
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        ):
            node = node[part]
        elif not (last and error["type"] == "missing"):
            continue
        out.append(part)
    return tuple(out)


def _fault(model: type[BaseModel], path: tuple[str | int, ...], error: Any, text: str, file: str, code: str) -> Fault:
    keys = [p for p in path if isinstance(p, str)]
    element = f"{file}.{'.'.join(map(str, path))}" if path else file
    where = _where(text, file, keys)
    if error["type"] == "extra_forbidden":
        known = sorted(_keys(model, keys[:-1]))
        return Fault(
            code, element, f"the unknown key {keys[-1]!r}", "a known key", did_you_mean(keys[-1], known), where
        )
    if error["type"] == "missing":
        return Fault(code, element, "no such key", "a value", f"Add {keys[-1]!r}.", where)
    found = repr(error.get("input"))
    found = found if len(found) <= 80 else found[:77] + "..."
    return Fault(code, element, found, error["msg"], "Correct the value.", where)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that an annotation mentions: itself, the parts of a union, the values of a list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, tuple, list, dict) or get_origin(annotation) is not None:
        for part in get_args(annotation):
            yield from _models(part)


def _keys(model: type[BaseModel], path: list[str]) -> set[str]:
    at: list[type[BaseModel]] = [model]
    for key in path:
        inner = [m for a in at if key in a.model_fields for m in _models(a.model_fields[key].annotation)]
        at = inner or at
    return {key for m in at for key in m.model_fields}


def _where(text: str, file: str, keys: list[str]) -> str:
    """The line of the key, as far as a search can tell (the TOML reader of Python keeps no positions)."""
    if not keys:
        return file
    pattern = re.compile(rf"^\s*(\[+[^\]]*\b)?{re.escape(keys[-1])}\b\s*[=\].]")
    section = re.compile(rf"^\s*\[+\s*{re.escape('.'.join(keys[:-1]))}\s*\]") if len(keys) > 1 else None
    inside = section is None
    first = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if section is not None and line.lstrip().startswith("["):
            inside = section.match(line) is not None
        if pattern.match(line):
            if inside:
                return f"{file}:{number}"
            first = first or f"{file}:{number}"
    return first or file
