"""Rules made from the schema, for every element class: types, numbers, words, names, profiles, matrices."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from lateral.case import Case
from lateral.checks.codes import fault
from lateral.checks.view import (
    Field,
    Part,
    Rule,
    View,
    is_matrix,
    is_number,
    outside,
    show,
)
from lateral.devices import Source
from lateral.errors import Fault, did_you_mean
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Shunt, Switch, Transformer
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FloatArray
from lateral.units import Base

_QUOTE = re.compile(r"[\"'`]")
_ZERO_OHM = 1e-12


def containers(case: Case) -> Iterator[Fault]:
    """What the case itself is made of."""
    label = f"case.{case.name}"

    def wrong(field: str, value: object, allowed: str) -> Fault:
        return fault("VAL-001", label, f"{field} = {show(value)}", allowed, "Build the case from these.")

    wanted: tuple[tuple[str, type, str], ...] = (
        ("feeder", Feeder, "a Feeder"),
        ("horizon", Horizon, "a Horizon"),
        ("profiles", Mapping, "a mapping from name to series"),
        ("areas", Mapping, "a mapping from bus to area"),
        ("base", Base, "a Base"),
    )
    for field, cls, allowed in wanted:
        if not isinstance(getattr(case, field), cls):
            yield wrong(field, getattr(case, field), allowed)
    members: list[tuple[str, object, type]] = [("devices", case.devices, Element)]
    if isinstance(case.feeder, Feeder):
        classes = (Bus, Line, Switch, Transformer, Shunt, MultiTerminal)
        members += [(cls.table, getattr(case.feeder, cls.table), cls) for cls in classes]
    for field, held, cls in members:
        if not isinstance(held, tuple | list):
            yield wrong(field, held, f"a tuple of {cls.__name__}")
            continue
        for member in held:
            if not isinstance(member, cls):
                yield wrong(field, member, f"objects of class {cls.__name__}")


def _finite(view: View) -> Iterator[Fault]:
    for part in view.parts:
        for f in part.fields:
            if not f.numeric:
                continue
            owner, values = part.numbers(f)
            bad = np.isinf(values) if f.nan else ~np.isfinite(values)
            if f.infinite:
                bad &= values != math.inf
            for k in np.flatnonzero(bad).tolist():
                allowed = "a finite number, or inf for none" if f.infinite else "a finite number"
                yield part.fault("VAL-002", owner[k], f, show(values[k]), allowed, "Give the value.")


def _bounds(view: View) -> Iterator[Fault]:
    for part in view.parts:
        for f in part.fields:
            s = f.spec
            if not f.numeric or (s.minimum is None and s.maximum is None and s.above is None):
                continue
            owner, values = part.numbers(f)
            for k in np.flatnonzero(outside(s, values)).tolist():
                percent = s.maximum == 1.0 and 1.0 < values[k] <= 100.0
                hint = "Percent given as a share? Divide by 100." if percent else "Correct the value."
                yield part.fault("VAL-003", owner[k], f, show(values[k]), f.bounds(), hint)


def _words(view: View) -> Iterator[Fault]:
    for part in view.parts:
        for f in part.fields:
            choices = f.spec.choices
            if not choices:
                continue
            for k, value in enumerate(part.column(f.name)):
                if isinstance(value, str) and value not in choices:
                    allowed = "one of " + ", ".join(choices)
                    yield part.fault("VAL-004", k, f, show(value), allowed, did_you_mean(value, choices))


def _profile_names(view: View) -> Iterator[Fault]:
    """Fields that name a profile: it exists, and as a series it keeps the bounds of the field."""
    known = [k for k in view.case.profiles if isinstance(k, str)]
    for part in view.parts:
        for f in part.fields:
            if not (f.spec.profile or f.type in ("Series", "float | str")):
                continue
            for k, value in enumerate(part.column(f.name)):
                if not isinstance(value, str) or (f.spec.profile and not value):
                    continue
                if value not in view.case.profiles:
                    yield part.fault("PRO-001", k, f, show(value), "the name of a profile", did_you_mean(value, known))
                elif not f.spec.profile and value in view.profiles:
                    series = view.profiles[value]
                    for t in np.flatnonzero(outside(f.spec, series))[:1]:
                        found = f"{series[t]:.6g} in step {t} of profile {value}"
                        yield part.fault("VAL-003", k, f, found, f.bounds(), "Correct the profile.")


def _limits_crossed(view: View) -> Iterator[Fault]:
    """Every pair of fields ``x_min.., x_max..`` of a class, whatever its name."""
    for part in view.parts:
        names = {f.name: f for f in part.fields if f.type in ("float", "int")}
        for low, f in names.items():
            high = low.replace("_min", "_max")
            if high == low or high not in names:
                continue
            for k, (a, b) in enumerate(zip(part.column(low), part.column(high), strict=True)):
                if isinstance(part.objects[k], Bus):
                    continue  # NET-013
                if is_number(a) and is_number(b) and a > b:
                    allowed = f"{low} at most {high} = {show(b)}"
                    yield part.fault("VAL-006", k, f, show(a), allowed, "Exchange or correct the two limits.")


def _element_names(view: View) -> Iterator[Fault]:
    named = [e for e in view.elements if isinstance(e.name, str)]  # else VAL-001
    for e in named:
        name = e.name
        if not name or name != name.strip() or not name.isprintable() or _QUOTE.search(name):
            allowed = "a name without quotes, control characters and blanks at its ends"
            yield fault("VAL-005", e.label, f"name = {show(name)}", allowed, "Rename the element.")
    classes: set[type[Element]] = {type(e) for e in named}
    kinds = {cls: str(cls.kind) or cls.__name__ for cls in classes}
    keys = [(kinds[type(e)], e.name.casefold()) for e in named]
    for key, n in Counter(keys).items():
        if n > 1:
            first = named[keys.index(key)]
            allowed = f"one {key[0]} of that name (upper and lower case are the same)"
            yield fault(
                "VAL-007", first.label, f"name {key[1]!r} used {n} times", allowed, "Rename or remove the others."
            )


# Matrices


def _matrices(view: View) -> Iterator[Fault]:
    for part in view.parts:
        matrices = [f for f in part.fields if f.type == "FloatArray"]
        wanted = [_size_wanted(element) for element in part.objects] if matrices else []
        for f in matrices:
            stacks: dict[int, list[tuple[int, FloatArray]]] = {}
            for k, value in enumerate(part.column(f.name)):
                if not is_matrix(value):
                    continue  # absent, or VAL-001
                n = wanted[k] if wanted[k] is not None else _rows_of(value)
                if value.shape != (n, n):
                    shape = " x ".join(map(str, value.shape)) or "a number"
                    allowed = f"{n} x {n}, one row and column per conductor"
                    action = "Cut or extend the matrix to the conductors of the element."
                    yield part.fault("NET-009", k, f, shape, allowed, action)
                elif n:
                    stacks.setdefault(n, []).append((k, value))
            for rows in stacks.values():
                yield from _matrix_values(part, f, rows)


def _size_wanted(element: object) -> int | None:
    """How many conductors an element has; None for one that does not say."""
    for name in ("conductors", "conductors_from"):
        conductors = getattr(element, name, None)
        if isinstance(conductors, tuple):
            return len(conductors)
    if isinstance(element, MultiTerminal):
        ends = element.terminals if isinstance(element.terminals, tuple) else ()
        rows = [c for t in ends if isinstance(c := getattr(t, "conductors", None), tuple)]
        return sum(map(len, rows)) if rows else None
    return None


def _rows_of(matrix: FloatArray) -> int:
    return matrix.shape[0] if matrix.ndim else 0


def _matrix_values(part: Part, f: Field, rows: list[tuple[int, FloatArray]]) -> Iterator[Fault]:
    """NaN, asymmetry, negative resistance, for all matrices of one size at once."""
    owner = [k for k, _ in rows]
    stack = np.stack([m for _, m in rows])
    finite = np.isfinite(stack).all(axis=(1, 2))
    for i in np.flatnonzero(~finite).tolist():
        row, column = np.argwhere(~np.isfinite(stack[i]))[0]
        found = f"{stack[i, row, column]} in row {row + 1}, column {column + 1}"
        yield part.fault("NET-010", owner[i], f, found, "finite numbers", "Give the value.")
    stack[~finite] = 0.0
    largest = np.abs(stack).max(axis=(1, 2))
    gap = np.abs(stack - stack.transpose(0, 2, 1))
    lopsided = gap.max(axis=(1, 2)) > 1e-3 * largest
    for i in np.flatnonzero(lopsided).tolist():
        element = part.objects[owner[i]]
        if isinstance(element, MultiTerminal):
            continue  # need not be reciprocal; see `checks.network`
        if isinstance(element, Source) and _of_sequences(stack[i]):
            continue
        row, column = np.unravel_index(gap[i].argmax(), gap[i].shape)
        found = f"{stack[i, row, column]:.6g} at ({row + 1}, {column + 1}) but {stack[i, column, row]:.6g} mirrored"
        yield part.fault("NET-011", owner[i], f, found, "a symmetric matrix", "Make the two values equal.")
    if f.name != "r_ohm":
        return
    diagonal = np.diagonal(stack, axis1=1, axis2=2)
    negative = diagonal.min(axis=1) < -1e-12  # what is left of a sum that cancels is no negative resistance
    for i in np.flatnonzero(negative).tolist():
        found = f"{diagonal[i].min():.6g} on the diagonal"
        yield part.fault("NET-012", owner[i], f, found, "at least 0 ohm", "Correct the sign.")
    lowest = np.linalg.eigvalsh((stack + stack.transpose(0, 2, 1)) / 2)[:, 0]
    for i in np.flatnonzero(~negative & ~lopsided & (lowest < -0.01 * largest - 1e-12)).tolist():
        if isinstance(part.objects[owner[i]], Source) and _of_sequences(stack[i]):
            continue  # zero-sequence impedances are differences of fault levels, and may come out negative
        found = f"a matrix with the eigenvalue {lowest[i]:.6g}"
        allowed = "a positive semidefinite matrix"
        action = "Off-diagonal values must not outweigh the diagonal; check their order and sign."
        yield part.fault("NET-012", owner[i], f, found, allowed, action)


def _of_sequences(matrix: FloatArray) -> bool:
    """Whether every phase of three is as the next: impedances of positive and negative sequence may differ then."""
    turned = np.roll(matrix, (1, 1), axis=(0, 1)) - matrix
    return matrix.shape == (3, 3) and bool(np.abs(turned).max() <= 1e-3 * np.abs(matrix).max())


def _zero_impedance(view: View) -> Iterator[Fault]:
    for branches, r, x in view.impedances:
        size = np.abs(np.diagonal(r, axis1=1, axis2=2)) + np.abs(np.diagonal(x, axis1=1, axis2=2))
        for i in np.flatnonzero((size < _ZERO_OHM).any(axis=1)).tolist():
            k = int(size[i].argmin())
            yield fault(
                "NET-008",
                branches[i].label,
                f"r = {show(r[i, k, k])} and x = {show(x[i, k, k])} ohm in row {k + 1}",
                "a resistance or a reactance on every conductor",
                "Merge the two buses, or give a small impedance such as 0.001 ohm.",
            )


RULES: tuple[Rule, ...] = (
    _finite,
    _bounds,
    _words,
    _profile_names,
    _limits_crossed,
    _element_names,
    _matrices,
    _zero_impedance,
)
