"""Every fault of a case at once, before anything is solved.

`check` returns faults, `require` raises them. A fault has a code of the table `CODES`, the element, the value found,
what is allowed and what to do.

Rules are small functions ``view -> faults`` in two lists. The rules of ``_VALUES`` are made from the schema and
hold for every element class, a user's own devices too: type, finite, bounds, words, profiles, matrices. The rules
of ``_RULES`` know what the fields mean; they see only elements whose fields have the right types (`_View.sound`),
so none of them can trip over a string where a number belongs.
"""

from __future__ import annotations

import math
import re
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from lateral.case import Case
from lateral.devices import PV, Battery, Load, Regulator, ShuntDevice, Source
from lateral.errors import CaseError, Fault, did_you_mean
from lateral.network import topology
from lateral.network.feeder import Bus, Feeder, Line, Shunt, Switch, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import Element, FieldSpec, FloatArray, fields_of
from lateral.units import Base

E = TypeVar("E", bound=Element)

#: Every code with what it says.
CODES: Mapping[str, str] = MappingProxyType(
    {
        "VAL-001 type": "A value is not of the type that its field takes.",
        "VAL-002 not finite": "A number is NaN, or infinite where no infinity is allowed.",
        "VAL-003 out of range": "A number lies outside the bounds of its field.",
        "VAL-004 unknown word": "A word is none of those that its field takes.",
        "VAL-005 name": "A name is empty or holds characters that cannot be written to a file.",
        "VAL-006 limits crossed": "A lower limit lies above its upper limit.",
        "VAL-007 duplicate name": "Two elements of one kind have the same name.",
        "NET-001 no source": "The case has no upstream grid, so no bus can be fed.",
        "NET-002 unknown bus": "An element names a bus that does not exist.",
        "NET-003 island": "Buses have no closed path to a source.",
        "NET-004 loop": "Closed branches form a loop, and the formulation needs a radial feeder.",
        "NET-005 unknown conductor": "An element uses a conductor that its bus does not have.",
        "NET-006 dead conductor": "A bus is connected, but one of its phases has no path to a source.",
        "NET-007 conductors": "A list of conductors is empty, repeated, out of order or of the wrong length.",
        "NET-008 zero impedance": "A branch has a conductor without resistance and reactance.",
        "NET-009 matrix shape": "A matrix is not square over the conductors of its element.",
        "NET-010 matrix values": "A matrix holds NaN or infinity.",
        "NET-011 asymmetric matrix": "A matrix is not symmetric.",
        "NET-012 negative resistance": "A branch or source would produce energy: its resistance matrix is negative.",
        "NET-013 voltage limits": "The voltage limits of a bus leave no room.",
        "NET-014 voltage bases": "A line or switch joins buses of different voltage bases.",
        "NET-015 windings": "A transformer has a wrong number of windings, terminals or leakage values.",
        "NET-016 leakage": "A winding pair has no leakage impedance, or a negative one.",
        "NET-017 winding voltage": "The rated voltage of a winding does not fit the base of its bus.",
        "NET-018 self loop": "A branch joins a conductor to itself.",
        "NET-019 two sources": "Two sources feed one network, and the formulation needs one root.",
        "NET-020 no buses": "The feeder has no buses.",
        "NET-021 balanced": "A balanced feeder has more than one conductor at a bus.",
        "NET-022 areas": "The map of areas does not match the buses.",
        "DEV-001 terminals": "The terminals of a device do not fit its connection.",
        "DEV-002 box limit": "A box limit on reactive power needs s_max of at least the active power.",
        "DEV-003 state of charge": "The initial state of charge lies outside its limits.",
        "DEV-004 regulator": "A regulator names a transformer or winding that does not exist or is taken.",
        "DEV-005 tap": "The tap of a regulated winding lies outside the range of its regulator.",
        "DEV-006 source angles": "A source needs one angle per conductor.",
        "DEV-007 source voltage": "The source voltage lies outside the limits of its bus.",
        "DEV-008 power factor": "A power factor of zero fixes no reactive power.",
        "DEV-009 rated voltage": "The rated voltage of a device does not fit the base of its bus.",
        "DEV-010 colliding sources": "Two sources without impedance hold the same conductor.",
        "PRO-001 unknown profile": "An element names a profile that does not exist.",
        "PRO-002 length": "A profile does not have one value per step.",
        "PRO-003 not finite": "A profile holds NaN, or infinity where it is not a limit.",
        "PRO-004 pv profile": "A PV profile is negative or far above 1.",
        "PRO-005 values": "A profile is not a row of numbers.",
        "HOR-001 no steps": "The horizon has no steps.",
        "HOR-002 step length": "A step has no length, a negative one, or one that is not a number.",
        "HOR-003 weight": "The weights are negative, not numbers, or not one per step.",
        "HOR-004 breaks": "A break lies outside the horizon.",
        "HOR-005 time": "The start or the time zone cannot be read.",
        "UNI-001 load too large": "The loads draw a current that no feeder carries: a unit is wrong.",
        "UNI-002 load too small": "The loads draw next to nothing: a unit is wrong.",
        "UNI-003 device too large": "A rating gives a current that no feeder carries: a unit is wrong.",
        "UNI-004 voltage drop": "The voltage drop of a branch at its load exceeds 100 %: a unit is wrong.",
        "UNI-005 voltage base": "A voltage base is no voltage of a distribution feeder: a unit is wrong.",
        "UNI-006 price": "A price is beyond any tariff: a unit is wrong.",
        "UNI-007 battery hours": "Capacity over power is no battery's duration: a unit is wrong.",
        "UNI-008 step hours": "A step is longer than a day: a unit is wrong.",
        "UNI-009 angles": "The angles of a source do not spread over the phases: radians given as degrees.",
    }
)

_FULL = {code[:7]: code for code in CODES}

# Thresholds of the unit rules. They are wide on purpose: a fault stops a study, so a case that is only unusual must
# pass.
_MAX_CURRENT_A = 10_000.0  # per phase at the source or a device; feeder breakers end near 4000 A
_LARGE_CURRENT_A = 1_000.0  # with _LARGE_SHARE times the load: larger than any feeder conductor
_LARGE_SHARE = 20.0
_MIN_CURRENT_A = 0.5  # per phase, all loads together, from _MIN_LOADS loads at medium voltage on
_MIN_LOADS = 5
_MEDIUM_KV = 1.0
_MAX_BASE_KV = 500.0  # line to ground
_MIN_BASE_KV = 0.03
_MAX_PRICE = 50.0  # $/kWh; the highest market caps are near 20
_BATTERY_HOURS = (0.01, 1000.0)
_MAX_STEP_H = 24.0
_BASE_TOLERANCE = 1e-3  # relative; 12.47 / sqrt(3) is often rounded to 7.2
_RATED_FACTOR = 2.0
_PV_PROFILE_MAX = 1.5
_ZERO_OHM = 1e-9
_QUOTE = re.compile(r"[\"'`]")
_LISTED = 8  # names shown of a long list


def check(case: Case, *, radial: bool = False) -> tuple[Fault, ...]:
    """Every fault of a case; empty when it can be solved.

    Args:
        case: the case.
        radial: also ask for a feeder without loops and with one source per network.

    Returns:
        The faults: those of single values first, then network, devices, profiles, horizon, units.
    """
    broken = tuple(_containers(case))
    if broken:  # without these nothing else can be looked at
        return broken
    with np.errstate(all="ignore"):
        view = _View(case)
        found = list(view.mistyped)
        for rule in (*_VALUES, *_RULES, *(_RADIAL if radial else ())):
            found.extend(rule(view))
    where = case.where if isinstance(case.where, Mapping) else {}
    return tuple(replace(f, where=str(where[f.element])) if f.element in where else f for f in found)


def require(case: Case, *, radial: bool = False) -> None:
    """Raise `CaseError` with every fault of a case; return when there is none."""
    faults = check(case, radial=radial)
    if faults:
        raise CaseError(faults)


# ---------------------------------------------------------------------------------------------------------------------
# What the rules look at


class _View:
    """A case with what several rules need, looked up once and safe against nonsense in its fields."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.feeder = case.feeder
        self.elements: tuple[Element, ...] = (*case.feeder.elements, *case.devices)
        self.parts = tuple(_parts(self.elements))
        self.mistyped = [fault for part in self.parts for fault in part.type_faults()]
        bad = {fault.element for fault in self.mistyped}
        self._sound: dict[type, list[Element]] = {}
        for e in self.elements:
            if not bad or e.label not in bad:
                self._sound.setdefault(type(e), []).append(e)

    def sound(self, cls: type[E]) -> tuple[E, ...]:
        """The elements of a class (or derived from it) whose fields all have the right type."""
        found: list[E] = []
        for own, members in self._sound.items():
            if issubclass(own, cls):
                found.extend(members)  # type: ignore[arg-type]
        return tuple(found)

    @cached_property
    def bus_names(self) -> dict[str, None]:
        return {b.name: None for b in self.feeder.buses if isinstance(b.name, str)}

    @cached_property
    def conductors(self) -> dict[str, frozenset[int]]:
        return {b.name: frozenset(b.conductors) for b in self.sound(Bus)}

    @cached_property
    def v_base(self) -> dict[str, float]:
        return {b.name: float(b.v_base_kv) for b in self.sound(Bus) if 0.0 < b.v_base_kv < math.inf}

    @cached_property
    def n_steps(self) -> int:
        step_h = self.case.horizon.step_h
        return len(step_h) if isinstance(step_h, np.ndarray) and step_h.ndim == 1 else 0

    @cached_property
    def profiles(self) -> dict[str, FloatArray]:
        """The profiles that are rows of numbers."""
        read = {k: _array(v) for k, v in self.case.profiles.items() if isinstance(k, str)}
        return {k: v for k, v in read.items() if v is not None and v.ndim == 1 and v.size}

    @cached_property
    def peak(self) -> dict[str, float]:
        """The largest magnitude of each profile."""
        return {k: float(np.abs(v).max()) for k, v in self.profiles.items() if np.isfinite(v).all()}

    @cached_property
    def wires(self) -> Feeder:
        """The feeder less what cannot be followed: transformers without windings, switches neither open nor closed."""
        windings = _TYPES["tuple[Winding, ...]"][0]
        return replace(
            self.feeder,
            switches=tuple(s for s in self.feeder.switches if _is_flag(s.closed)),
            transformers=tuple(t for t in self.feeder.transformers if windings(t.windings)),
        )

    @cached_property
    def roots(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.bus for s in self.sound(Source) if s.bus in self.bus_names))

    @cached_property
    def tree(self) -> topology.Tree:
        return topology.spanning_tree(self.wires, self.roots)

    @cached_property
    def load_kw(self) -> dict[str, float]:
        """The largest |P| of the loads at each bus."""
        return self._load(0)

    @cached_property
    def load_kvar(self) -> dict[str, float]:
        """The largest |Q| of the loads at each bus."""
        return self._load(1)

    def peak_load(self, load: Load) -> tuple[float, float]:
        """The largest |P| and |Q| of a load, kW and kvar; zero where they are no numbers."""
        times_p = self.peak.get(load.profile, 1.0)
        times_q = self.peak.get(load.profile_q or load.profile, 1.0)
        p, q = abs(float(load.p_kw)) * times_p, abs(float(load.q_kvar)) * times_q
        return (p if math.isfinite(p) else 0.0, q if math.isfinite(q) else 0.0)

    def _load(self, which: int) -> dict[str, float]:
        total: dict[str, float] = {}
        for load in self.sound(Load):
            total[load.bus] = total.get(load.bus, 0.0) + self.peak_load(load)[which]
        return total

    def unknown_bus(self, label: str, field: str, bus: str) -> Fault:
        return _fault(
            "NET-002", label, f"{field} = {bus!r}", "the name of a bus", did_you_mean(bus, tuple(self.bus_names))
        )


def _fault(code: str, element: str, found: str, allowed: str, action: str) -> Fault:
    return Fault(_FULL[code], element, found, allowed, action)


def _show(value: object) -> str:
    """A value as short text."""
    if isinstance(value, bool | str):
        text = repr(value)
    elif isinstance(value, float | np.floating):
        text = f"{float(value):.6g}"
    else:
        try:
            text = repr(value)
        except Exception:  # any object may stand in a field, and Python refuses to write out very long integers
            text = f"a value of type {type(value).__name__}"
    text = text.replace("\n", " ")
    return text if len(text) <= 80 else text[:77] + "..."


def _names(names: Iterable[str]) -> str:
    """A list of names, cut when it is long."""
    listed = list(names)
    more = f", ... ({len(listed)} in all)" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more


def _array(value: object) -> FloatArray | None:
    """A value as an array of numbers; None when it is not one."""
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return value
    try:
        array = np.asarray(value)
        return array.astype(float) if array.dtype.kind in "fiu" else None
    except (TypeError, ValueError, OverflowError):
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Types: what a field takes, read off its annotation


def _is_number(value: object) -> bool:
    if type(value) is float:
        return True
    if type(value) is bool or not isinstance(value, Real):
        return False
    try:
        float(value)
    except (OverflowError, ValueError, TypeError):
        return False
    return True


def _is_int(value: object) -> bool:
    if type(value) is not int and (type(value) is bool or not isinstance(value, Integral)):
        return False
    return abs(int(value)) < 2**62


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_series(value: object) -> bool:
    return isinstance(value, str) or _is_number(value)


def _is_matrix(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def _is_winding(value: object) -> bool:
    return isinstance(value, Winding)


def _tuple_of(one: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, tuple) and all(one(v) for v in value)


_TYPES: dict[str, tuple[Callable[[object], bool], str]] = {
    "str": (_is_text, "text"),
    "bool": (_is_flag, "True or False"),
    "int": (_is_int, "a whole number"),
    "float": (_is_number, "a number"),
    "Series": (_is_series, "a number, or the name of a profile"),
    "float | str": (_is_series, "a number, or the name of a profile"),
    "FloatArray": (_is_matrix, "a matrix of numbers"),
    "Terminals": (_tuple_of(_is_int), "a tuple of conductor numbers"),
    "tuple[int, ...]": (_tuple_of(_is_int), "a tuple of whole numbers"),
    "tuple[float, ...]": (_tuple_of(_is_number), "a tuple of numbers"),
    "tuple[float, float, float]": (lambda v: _tuple_of(_is_number)(v) and len(v) == 3, "three numbers"),  # type: ignore[arg-type]
    "tuple[Winding, ...]": (_tuple_of(_is_winding), "a tuple of windings"),
}
#: types that are right without a look at the value, for speed
_PLAIN: dict[str, set[type]] = {"str": {str}, "bool": {bool}, "float": {float}, "Series": {float, str}}
_PLAIN_ITEMS: dict[str, set[type]] = {
    "Terminals": {int},
    "tuple[int, ...]": {int},
    "tuple[float, ...]": {float},
    "tuple[Winding, ...]": {Winding},
}
_NUMERIC = ("int", "float", "Series", "float | str", "tuple[float, ...]", "tuple[float, float, float]")


class _Field:
    """One field of a class, with its type in a plain form."""

    def __init__(self, spec: FieldSpec) -> None:
        self.spec = spec
        self.name = spec.name
        # an annotation is its source text, or "<class 'float'>" where a user's module does not postpone them
        text = re.sub(r"<class '([\w.]+)'>", r"\1", spec.type).replace("typing.", "")
        text = re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)
        self.optional = text.endswith(" | None")
        text = text.removesuffix(" | None")
        if spec.matrix or "ndarray" in text:
            text = "FloatArray"
        elif spec.series:
            text = "Series"
        self.type = text
        self.right, self.allowed = _TYPES.get(text, (lambda _: True, "anything"))
        self.plain, self.plain_items = _PLAIN.get(text, set()), _PLAIN_ITEMS.get(text, set())
        self.numeric = text in _NUMERIC
        # the sentence of a field says where infinity stands for "no limit"
        default = spec.default
        is_float = isinstance(default, float)
        self.infinite = (is_float and math.isinf(default)) or re.search(r"\binf\b", spec.doc) is not None
        self.nan = is_float and math.isnan(default)

    def bounds(self) -> str:
        s, unit = self.spec, f" {self.spec.unit}" if self.spec.unit else ""
        low = f"above {s.above:g}" if s.above is not None else ""
        low = f"at least {s.minimum:g}" if s.minimum is not None else low
        high = f"at most {s.maximum:g}" if s.maximum is not None else ""
        return f"{self.name} {' and '.join(t for t in (low, high) if t)}{unit}"


@lru_cache(maxsize=256)
def _fields(cls: type) -> tuple[_Field, ...]:
    return tuple(_Field(spec) for spec in fields_of(cls))


class _Part:
    """Objects of one class, column by column: the elements of a class, or all windings."""

    def __init__(self, cls: type, labels: Sequence[str], prefixes: Sequence[str], objects: Sequence[object]) -> None:
        self.fields = _fields(cls)
        self.labels, self.prefixes, self.objects = labels, prefixes, objects
        self._columns: dict[str, list[Any]] = {}

    def type_faults(self) -> Iterator[Fault]:
        for f in self.fields:
            column = self.column(f.name)
            types = set(map(type, column))
            if types <= f.plain or (types == {tuple} and set(map(type, chain.from_iterable(column))) <= f.plain_items):
                continue
            for k, value in enumerate(column):
                if not (f.right(value) or (value is None and f.optional)):
                    yield self.fault("VAL-001", k, f, value, f.allowed, "Write the value in that form.")

    def column(self, name: str) -> list[Any]:
        if name not in self._columns:
            self._columns[name] = [getattr(o, name) for o in self.objects]
        return self._columns[name]

    def fault(self, code: str, k: int, f: _Field, value: object, allowed: str, action: str) -> Fault:
        return _fault(code, self.labels[k], f"{self.prefixes[k]}{f.name} = {_show(value)}", allowed, action)

    def numbers(self, f: _Field) -> tuple[Sequence[int], FloatArray]:
        """The numbers of a field, one by one, and the object that each belongs to."""
        column = self.column(f.name)
        if set(map(type, column)) <= {float}:
            return range(len(column)), np.array(column)
        pairs = [
            (k, float(v))
            for k, value in enumerate(column)
            for v in (value if isinstance(value, tuple) else (value,))
            if _is_number(v)
        ]
        return [k for k, _ in pairs], np.array([v for _, v in pairs])


def _parts(elements: Iterable[Element]) -> Iterator[_Part]:
    by_class: dict[type, list[Element]] = {}
    for e in elements:
        by_class.setdefault(type(e), []).append(e)
    for cls, members in by_class.items():
        yield _Part(cls, [e.label for e in members], [""] * len(members), members)
    windings = [
        (e.label, f"winding {k} ", w)
        for e in elements
        if isinstance(e, Transformer) and isinstance(e.windings, tuple)
        for k, w in enumerate(e.windings, 1)
        if isinstance(w, Winding)
    ]
    if windings:
        labels, prefixes, objects = zip(*windings, strict=True)
        yield _Part(Winding, labels, prefixes, objects)


def _containers(case: Case) -> Iterator[Fault]:
    """What the case itself is made of."""
    label = f"case.{case.name}"

    def wrong(field: str, value: object, allowed: str) -> Fault:
        return _fault("VAL-001", label, f"{field} = {_show(value)}", allowed, "Build the case from these.")

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
        classes = (Bus, Line, Switch, Transformer, Shunt)
        members += [(cls.table, getattr(case.feeder, cls.table), cls) for cls in classes]
    for field, held, cls in members:
        if not isinstance(held, tuple | list):
            yield wrong(field, held, f"a tuple of {cls.__name__}")
            continue
        for member in held:
            if not isinstance(member, cls):
                yield wrong(field, member, f"objects of class {cls.__name__}")


# ---------------------------------------------------------------------------------------------------------------------
# Rules made from the schema


def _finite(view: _View) -> Iterator[Fault]:
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
                yield part.fault("VAL-002", owner[k], f, values[k], allowed, "Give the value, or leave the field out.")


def _bounds(view: _View) -> Iterator[Fault]:
    for part in view.parts:
        for f in part.fields:
            s = f.spec
            if not f.numeric or (s.minimum is None and s.maximum is None and s.above is None):
                continue
            owner, values = part.numbers(f)
            for k in np.flatnonzero(_outside(s, values)).tolist():
                percent = s.maximum == 1.0 and 1.0 < values[k] <= 100.0
                hint = "Percent given as a share? Divide by 100." if percent else "Correct the value."
                yield part.fault("VAL-003", owner[k], f, values[k], f.bounds(), hint)


def _outside(s: FieldSpec, values: FloatArray) -> Any:
    bad = np.zeros(values.shape, dtype=bool)
    if s.minimum is not None:
        bad |= values < s.minimum
    if s.maximum is not None:
        bad |= values > s.maximum
    if s.above is not None:
        bad |= values <= s.above
    return bad


def _words(view: _View) -> Iterator[Fault]:
    for part in view.parts:
        for f in part.fields:
            choices = f.spec.choices
            if not choices:
                continue
            for k, value in enumerate(part.column(f.name)):
                if isinstance(value, str) and value not in choices:
                    allowed = "one of " + ", ".join(choices)
                    yield part.fault("VAL-004", k, f, value, allowed, did_you_mean(value, choices))


def _profile_names(view: _View) -> Iterator[Fault]:
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
                    yield part.fault("PRO-001", k, f, value, "the name of a profile", did_you_mean(value, known))
                elif not f.spec.profile and value in view.profiles:
                    series = view.profiles[value]
                    for t in np.flatnonzero(_outside(f.spec, series))[:1]:
                        found = f"{series[t]:.6g} in step {t} of profile {value}"
                        yield part.fault("VAL-003", k, f, found, f.bounds(), "Correct the profile.")


def _limits_crossed(view: _View) -> Iterator[Fault]:
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
                if _is_number(a) and _is_number(b) and a > b:
                    allowed = f"{low} at most {high} = {_show(b)}"
                    yield part.fault("VAL-006", k, f, a, allowed, "Exchange or correct the two limits.")


def _element_names(view: _View) -> Iterator[Fault]:
    seen: dict[tuple[str, str], str] = {}
    times: Counter[tuple[str, str]] = Counter()
    for e in view.elements:
        name: object = e.name
        if not isinstance(name, str):
            continue  # VAL-001
        if not name or name != name.strip() or not name.isprintable() or _QUOTE.search(name):
            allowed = "a name without quotes, control characters and blanks at its ends"
            yield _fault("VAL-005", e.label, f"name = {_show(name)}", allowed, "Rename the element.")
        key = (str(e.kind) or type(e).__name__, name.casefold())
        times[key] += 1
        seen.setdefault(key, e.label)
    for key, n in times.items():
        if n > 1:
            allowed = f"one {key[0]} of that name (upper and lower case are the same)"
            yield _fault(
                "VAL-007", seen[key], f"name {key[1]!r} used {n} times", allowed, "Rename or remove the others."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Matrices


def _matrices(view: _View) -> Iterator[Fault]:
    for part in view.parts:
        for f in part.fields:
            if f.type != "FloatArray":
                continue
            stacks: dict[int, list[tuple[int, FloatArray]]] = {}
            for k, value in enumerate(part.column(f.name)):
                if not _is_matrix(value):
                    continue  # absent, or VAL-001
                n = _size_wanted(part.objects[k], value)
                if value.shape != (n, n):
                    shape = " x ".join(map(str, value.shape)) or "a number"
                    allowed = f"{n} x {n}, one row and column per conductor"
                    action = "Cut or extend the matrix to the conductors of the element."
                    yield part.fault("NET-009", k, f, shape, allowed, action)
                elif n:
                    stacks.setdefault(n, []).append((k, value))
            for rows in stacks.values():
                yield from _matrix_values(part, f, rows)


def _size_wanted(element: object, matrix: FloatArray) -> int:
    """How many conductors an element has; for one that does not say, the rows of its matrix."""
    for name in ("conductors", "conductors_from"):
        conductors = getattr(element, name, None)
        if isinstance(conductors, tuple):
            return len(conductors)
    return matrix.shape[0] if matrix.ndim else 0


def _matrix_values(part: _Part, f: _Field, rows: list[tuple[int, FloatArray]]) -> Iterator[Fault]:
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
        row, column = np.unravel_index(gap[i].argmax(), gap[i].shape)
        found = f"{stack[i, row, column]:.6g} at ({row + 1}, {column + 1}) but {stack[i, column, row]:.6g} mirrored"
        yield part.fault("NET-011", owner[i], f, found, "a symmetric matrix", "Make the two values equal.")
    if f.name != "r_ohm":
        return
    diagonal = np.diagonal(stack, axis1=1, axis2=2)
    negative = diagonal.min(axis=1) < 0.0
    for i in np.flatnonzero(negative).tolist():
        found = f"{diagonal[i].min():.6g} on the diagonal"
        yield part.fault("NET-012", owner[i], f, found, "at least 0 ohm", "Correct the sign.")
    lowest = np.linalg.eigvalsh((stack + stack.transpose(0, 2, 1)) / 2)[:, 0]
    for i in np.flatnonzero(~negative & ~lopsided & (lowest < -0.01 * largest)).tolist():
        found = f"a matrix with the eigenvalue {lowest[i]:.6g}"
        allowed = "a positive semidefinite matrix"
        action = "Off-diagonal values must not outweigh the diagonal; check their order and sign."
        yield part.fault("NET-012", owner[i], f, found, allowed, action)


def _zero_impedance(view: _View) -> Iterator[Fault]:
    closed: tuple[Line | Switch, ...] = (*view.sound(Line), *(s for s in view.sound(Switch) if s.closed))
    for branch in closed:
        r, x = branch.r_ohm, branch.x_ohm
        if r.ndim != 2 or r.shape != x.shape or r.shape[0] != r.shape[1]:
            continue  # NET-009
        size = np.abs(r.diagonal()) + np.abs(x.diagonal())
        for k in np.flatnonzero(size < _ZERO_OHM)[:1]:
            yield _fault(
                "NET-008",
                branch.label,
                f"r = {_show(r[k, k])} and x = {_show(x[k, k])} ohm in row {k + 1}",
                "a resistance or a reactance on every conductor",
                "Merge the two buses, or give a small impedance such as 0.001 ohm.",
            )


# ---------------------------------------------------------------------------------------------------------------------
# Network


def _no_source(view: _View) -> Iterator[Fault]:
    if not view.feeder.buses:
        yield _fault("NET-020", f"case.{view.case.name}", "0 buses", "one bus or more", "Add buses.")
    elif not any(isinstance(d, Source) for d in view.case.devices):
        yield _fault(
            "NET-001", f"case.{view.case.name}", "0 sources", "one source or more", "Add a source at the substation."
        )


def _unknown_buses(view: _View) -> Iterator[Fault]:
    known = view.bus_names
    for e in view.elements if known else ():
        if isinstance(e, Bus):
            continue
        if isinstance(e, Transformer):
            windings = e.windings if isinstance(e.windings, tuple) else ()
            ends = [(f"winding {k} bus", getattr(w, "bus", None)) for k, w in enumerate(windings, 1)]
        else:
            ends = [(n, getattr(e, n, None)) for n in ("bus", "bus_from", "bus_to")]
        for field, bus in ends:
            if isinstance(bus, str) and bus not in known:
                yield view.unknown_bus(e.label, field, bus)


def _bus_conductors(view: _View) -> Iterator[Fault]:
    balanced = view.feeder.balanced is True
    for bus in view.sound(Bus):
        c = bus.conductors
        if not c or min(c) < 1 or any(a >= b for a, b in pairwise(c)):
            allowed = "conductor numbers from 1 on, ascending, none twice; ground is not listed"
            yield _fault("NET-007", bus.label, f"conductors = {_show(c)}", allowed, "Correct the list.")
        elif balanced and len(c) != 1:
            allowed = "one conductor per bus in a balanced feeder"
            yield _fault(
                "NET-021", bus.label, f"conductors = {_show(c)}", allowed, "Use (1,), or set balanced = False."
            )


def _branch_conductors(view: _View) -> Iterator[Fault]:
    branches: tuple[Line | Switch, ...] = (*view.sound(Line), *view.sound(Switch))
    for b in branches:
        ends = (b.conductors_from, b.conductors_to)
        if len(ends[0]) != len(ends[1]) or not ends[0] or any(len(set(c)) < len(c) for c in ends):
            found = f"conductors_from = {_show(ends[0])}, conductors_to = {_show(ends[1])}"
            allowed = "the same number at both ends, at least one, none twice"
            yield _fault("NET-007", b.label, found, allowed, "Correct the lists.")
        yield from _on_bus(view, b.label, "conductors_from", b.bus_from, ends[0])
        yield from _on_bus(view, b.label, "conductors_to", b.bus_to, ends[1])
        if b.bus_from == b.bus_to and not set(ends[0]).isdisjoint(ends[1]):
            found = f"bus_from = bus_to = {b.bus_from!r}"
            yield _fault(
                "NET-018", b.label, found, "two different buses", "Correct one of the two, or remove the branch."
            )
    for shunt in view.sound(Shunt):
        if not shunt.conductors or len(set(shunt.conductors)) < len(shunt.conductors):
            found = f"conductors = {_show(shunt.conductors)}"
            yield _fault("NET-007", shunt.label, found, "at least one conductor, none twice", "Correct the list.")
        yield from _on_bus(view, shunt.label, "conductors", shunt.bus, shunt.conductors)
    for source in view.sound(Source):
        if not source.conductors or len(set(source.conductors)) < len(source.conductors):
            found = f"conductors = {_show(source.conductors)}"
            yield _fault("NET-007", source.label, found, "at least one conductor, none twice", "Correct the list.")
        yield from _on_bus(view, source.label, "conductors", source.bus, source.conductors)


def _on_bus(view: _View, label: str, field: str, bus: str, used: Iterable[int]) -> Iterator[Fault]:
    has = view.conductors.get(bus)
    if has is None or has.issuperset(used):  # an unknown bus is NET-002
        return
    missing = ", ".join(str(c) for c in dict.fromkeys(used) if c not in has)
    listed = ", ".join(map(str, sorted(has))) or "none"
    action = "Correct the conductors of the element, or add them to the bus and the branch that feeds it."
    yield _fault(
        "NET-005",
        label,
        f"{field}: conductor {missing} at bus {bus!r}",
        f"the conductors of that bus: {listed}",
        action,
    )


def _islands(view: _View) -> Iterator[Fault]:
    if not view.roots:
        return  # NET-001 or NET-002
    reached = set(view.tree.order)
    if len(reached) == len(view.bus_names):
        return
    for buses in topology.components(view.wires):
        if buses[0] in reached:
            continue
        lost = sum(view.load_kw.get(b, 0.0) for b in buses)
        open_ties = [
            s.label for s in view.sound(Switch) if not s.closed and (s.bus_from in buses) != (s.bus_to in buses)
        ]
        tie = f"Close {_names(open_ties)}" if open_ties else "Connect them to the feeder"
        yield _fault(
            "NET-003",
            f"bus.{buses[0]}",
            f"{len(buses)} bus(es) without a path to a source: {_names(buses)}; {lost:.6g} kW of load unserved",
            "every bus connected to a source",
            f"{tie}, or remove these buses.",
        )


def _dead_conductors(view: _View) -> Iterator[Fault]:
    """Phases that stop on the way. Neutrals are left out: they are fed from the load side too."""
    if not view.roots or view.mistyped:
        return
    fed = [(s.bus, c) for s in view.sound(Source) for c in s.conductors]
    live = topology.energised(view.wires, fed)
    for name in view.tree.order:
        dead = sorted(c for c in view.conductors.get(name, ()) if c in (1, 2, 3) and (name, c) not in live)
        if dead:
            yield _fault(
                "NET-006",
                f"bus.{name}",
                f"conductor {', '.join(map(str, dead))} without a path to a source",
                "every phase of a bus fed through a branch",
                "Add the phase to the branches that feed the bus, or take it off the bus.",
            )


def _loops(view: _View) -> Iterator[Fault]:
    for branches in topology.loops(view.wires, view.roots):
        switches = [b for b in branches if b.startswith("switch.")]
        way = f"Open {_names(switches)}" if switches else "Open or remove a branch of the loop"
        yield _fault(
            "NET-004",
            (switches or branches)[0],
            f"a loop of {len(branches)} branches: {_names(branches)}",
            "a radial feeder",
            f"{way}, or choose a formulation that takes loops.",
        )


def _two_sources(view: _View) -> Iterator[Fault]:
    at: dict[str, Source] = {s.bus: s for s in reversed(view.sound(Source))}
    if len(at) < 2:
        return
    for buses in topology.components(view.wires):
        feeding = [at[b].label for b in buses if b in at]
        if len(feeding) > 1:
            action = "Remove a source, open a switch between them, or choose a formulation that takes loops."
            yield _fault(
                "NET-019", feeding[1], f"one network fed by {_names(feeding)}", "one source per network", action
            )


def _voltage_limits(view: _View) -> Iterator[Fault]:
    for bus in view.sound(Bus):
        if bus.v_min_pu >= bus.v_max_pu:
            found = f"v_min_pu = {_show(bus.v_min_pu)} and v_max_pu = {_show(bus.v_max_pu)}"
            yield _fault("NET-013", bus.label, found, "v_min_pu below v_max_pu", "Exchange or correct the two limits.")


def _voltage_bases(view: _View) -> Iterator[Fault]:
    branches: tuple[Line | Switch, ...] = (*view.sound(Line), *view.sound(Switch))
    for b in branches:
        u, v = view.v_base.get(b.bus_from), view.v_base.get(b.bus_to)
        if u is not None and v is not None and abs(u - v) > _BASE_TOLERANCE * max(u, v):
            found = f"v_base_kv = {_show(u)} at bus {b.bus_from!r} and {_show(v)} at bus {b.bus_to!r}"
            action = "Give both buses the same base, or put a transformer between them."
            yield _fault("NET-014", b.label, found, "the same base at both ends", action)


def _transformers(view: _View) -> Iterator[Fault]:
    for t in view.sound(Transformer):
        n = len(t.windings)
        if n < 2:
            yield _fault("NET-015", t.label, f"{n} winding(s)", "two windings or more", "Add the missing winding.")
            continue
        pairs = n * (n - 1) // 2
        if len(t.x_percent) != pairs:
            found = f"x_percent = {_show(t.x_percent)}: {len(t.x_percent)} value(s) for {n} windings"
            yield _fault("NET-015", t.label, found, f"{pairs} value(s), one per pair of windings", "Correct x_percent.")
        else:
            yield from _leakage(t)
        for k, w in enumerate(t.windings, 1):
            yield from _winding(view, t, k, w)


def _leakage(t: Transformer) -> Iterator[Fault]:
    order = [(i, j) for i in range(len(t.windings)) for j in range(i + 1, len(t.windings))]
    for (i, j), x in zip(order, t.x_percent, strict=True):
        r = t.windings[i].r_percent + t.windings[j].r_percent
        if x < 0.0 or (x == 0.0 and r == 0.0):
            found = f"x_percent = {_show(x)} with {_show(r)} % resistance between windings {i + 1} and {j + 1}"
            yield _fault(
                "NET-016", t.label, found, "a positive impedance", "Give the leakage of the nameplate, or 0.01 %."
            )


def _winding(view: _View, t: Transformer, k: int, w: Winding) -> Iterator[Fault]:
    label, terminals = t.label, w.terminals
    wye = w.connection == "wye"
    phases = terminals[:-1] if wye else terminals
    grounds = (0, -1)
    wanted = {t.n_phases} if wye else {1: {2}, 2: {2, 3}, 3: {3}}.get(int(t.n_phases), {3})
    shape = f"{'/'.join(map(str, sorted(wanted)))} phase conductor(s){' and the neutral' if wye else ''}"
    right = len(phases) in wanted or view.feeder.balanced is True
    # a one-phase winding may be written from ground, (0, 2); an isolated neutral is -1 in the last place only
    misplaced = (
        -1 in terminals[:-1] or (0 in phases and not (wye and len(phases) == 1)) or (not wye and -1 in terminals)
    )
    if not right or len(set(terminals)) < len(terminals) or misplaced:
        found = f"winding {k} terminals = {_show(terminals)}, {w.connection}, {t.n_phases} phase(s)"
        yield _fault("NET-015", label, found, f"{shape}, none twice", "Correct the terminals of the winding.")
    yield from _on_bus(view, label, f"winding {k}", w.bus, [c for c in terminals if c not in grounds])
    base = view.v_base.get(w.bus)
    if base is None or not 0.0 < w.v_rated_kv < math.inf:
        return
    to_ground = wye and len(phases) == 1 and not set(terminals).isdisjoint(grounds)
    low, high = _rated_range(base, three_phase=t.n_phases > 1, to_ground=to_ground)
    if view.feeder.balanced is True:
        low, high = base / _RATED_FACTOR, base * math.sqrt(3.0) * _RATED_FACTOR
    if not low <= w.v_rated_kv <= high:
        found = f"winding {k} v_rated_kv = {_show(w.v_rated_kv)} at bus {w.bus!r} of base {_show(base)} kV to ground"
        action = "Correct the rating (kV, line to line for 2 and 3 phases) or the base of the bus (kV, line to ground)."
        yield _fault("NET-017", label, found, f"{low:.4g} to {high:.4g} kV (within a factor of 2)", action)


def _rated_range(base: float, *, three_phase: bool, to_ground: bool) -> tuple[float, float]:
    """Rated voltages that fit a base: within a factor of two of what the terminals see.

    Across two conductors that is sqrt(3) times the base between phases, twice the base between split-phase legs, and
    once the base against a neutral.
    """
    if three_phase:
        seen = (math.sqrt(3.0) * base,) * 2
    elif to_ground:
        seen = (base, base)
    else:
        seen = (base, 2.0 * base)
    return seen[0] / _RATED_FACTOR, seen[1] * _RATED_FACTOR


def _feeder_numbers(view: _View) -> Iterator[Fault]:
    label, feeder, alpha = f"case.{view.case.name}", view.feeder, view.case.alpha_usd_per_kwh
    values: tuple[tuple[str, object, bool, str], ...] = (
        ("n_phases", feeder.n_phases, _is_int(feeder.n_phases) and 1 <= feeder.n_phases <= 3, "1, 2 or 3"),
        ("frequency_hz", feeder.frequency_hz, _positive(feeder.frequency_hz), "a frequency above 0 Hz"),
        ("base.s_kva", view.case.base.s_kva, _positive(view.case.base.s_kva), "a power base above 0 kVA"),
        ("balanced", feeder.balanced, _is_flag(feeder.balanced), "True or False"),
        (
            "alpha_usd_per_kwh",
            alpha,
            _positive(alpha) or (_is_number(alpha) and alpha == 0.0),
            "a price of at least 0 $/kWh",
        ),
    )
    for field, value, right, allowed in values:
        if not right:
            yield _fault("VAL-003", label, f"{field} = {_show(value)}", allowed, "Correct the value.")


def _positive(value: object) -> bool:
    return _is_number(value) and 0.0 < float(value) < math.inf  # type: ignore[arg-type]


def _areas(view: _View) -> Iterator[Fault]:
    areas, label = view.case.areas, f"case.{view.case.name}"
    if not areas:
        return
    for bus in areas:
        if bus not in view.bus_names:
            action = did_you_mean(str(bus), tuple(view.bus_names))
            yield _fault("NET-022", label, f"an area for bus {bus!r}", "the name of a bus", action)
    missing = [b for b in view.bus_names if b not in areas]
    if missing:
        found = f"{len(missing)} bus(es) without an area: {_names(missing)}"
        yield _fault("NET-022", label, found, "an area for every bus, or for none", "Add these buses to areas.")


# ---------------------------------------------------------------------------------------------------------------------
# Devices


def _terminals(view: _View) -> Iterator[Fault]:
    for d in view.sound(ShuntDevice):
        t = d.terminals
        problem = ""
        if d.connection == "wye" and len(t) < 2:
            problem = "two terminals or more in wye: the conductors, then the common point (0 = ground)"
        elif d.connection in ("delta", "delta-open") and 0 in t and len(t) > 2:
            # one port to ground is plain, whatever it is called; published OpenDSS models (IEEE 34) hold such loads
            problem = "no ground (0) in delta; a device to ground is a wye"
        elif d.connection == "delta" and len(t) not in (2, 3):
            problem = "two or three conductors in delta"
        elif d.connection == "delta-open" and len(t) != 3:
            problem = "three conductors in open delta"
        elif len(set(t)) < len(t):
            problem = "every terminal once"
        if problem:
            found = f"terminals = {_show(t)}, {d.connection}"
            yield _fault("DEV-001", d.label, found, problem, "Correct terminals or connection.")
        yield from _on_bus(view, d.label, "terminals", d.bus, [c for c in t if c != 0])


def _box_limits(view: _View) -> Iterator[Fault]:
    inverters: tuple[PV | Battery, ...] = (*view.sound(PV), *view.sound(Battery))
    for d in inverters:
        if d.limit != "box":
            continue
        p = float(d.p_rated_kw if isinstance(d, PV) else max(d.p_charge_max_kw, d.p_discharge_max_kw))
        if d.s_max_kva < p:
            field = "p_rated_kw" if isinstance(d, PV) else "power"
            found = f"s_max_kva = {_show(d.s_max_kva)} below its {field} of {_show(p)} kW"
            action = "Raise s_max_kva, lower the power, or use limit = 'disc'."
            yield _fault("DEV-002", d.label, found, "s_max_kva of at least the power", action)


def _state_of_charge(view: _View) -> Iterator[Fault]:
    for b in view.sound(Battery):
        if b.soc_min <= b.soc_max and not b.soc_min <= b.soc_initial <= b.soc_max:
            found = f"soc_initial = {_show(b.soc_initial)}"
            allowed = f"soc_min = {_show(b.soc_min)} to soc_max = {_show(b.soc_max)}"
            yield _fault("DEV-003", b.label, found, allowed, "Move the start inside the limits, or widen them.")


def _regulators(view: _View) -> Iterator[Fault]:
    names = [t.name for t in view.feeder.transformers if isinstance(t.name, str)]
    sound = {t.name: t for t in view.sound(Transformer)}
    taken: dict[tuple[str, int], str] = {}
    for r in view.sound(Regulator):
        found = f"winding {r.winding} of transformer {r.transformer!r}"
        if r.transformer not in names:
            action = did_you_mean(r.transformer, names)
            yield _fault("DEV-004", r.label, f"transformer = {r.transformer!r}", "the name of a transformer", action)
            continue
        other = taken.setdefault((r.transformer, r.winding), r.label)
        if other != r.label:
            yield _fault(
                "DEV-004", r.label, f"{found}, taken by {other}", "one regulator per winding", "Remove one of them."
            )
        t = sound.get(r.transformer)
        if t is None:
            continue
        if not 1 <= r.winding <= len(t.windings):
            yield _fault("DEV-004", r.label, found, f"winding 1 to {len(t.windings)}", "Correct the winding.")
        elif not r.tap_min - 1e-6 <= t.windings[r.winding - 1].tap <= r.tap_max + 1e-6:
            found = f"tap = {_show(t.windings[r.winding - 1].tap)} at {found}"
            allowed = f"{_show(r.tap_min)} to {_show(r.tap_max)}"
            yield _fault(
                "DEV-005", r.label, found, allowed, "Correct the tap (a ratio near 1, not a step number) or the range."
            )


def _sources(view: _View) -> Iterator[Fault]:
    buses = {b.name: b for b in view.sound(Bus)}
    stiff: dict[tuple[str, int], str] = {}
    for s in view.sound(Source):
        if len(s.angle_deg) != len(s.conductors):
            found = f"{len(s.angle_deg)} angle(s) for {len(s.conductors)} conductor(s)"
            yield _fault("DEV-006", s.label, found, "one angle per conductor", "Give e.g. angle_deg = (0, -120, 120).")
        elif len(s.angle_deg) > 1 and set(s.conductors) <= {1, 2, 3} and max(s.angle_deg) - min(s.angle_deg) < 10.0:
            found = f"angle_deg = {_show(s.angle_deg)}"
            yield _fault("UNI-009", s.label, found, "angles apart by 90 degrees and more", "Radians given as degrees?")
        has_z = bool(np.any(s.r_ohm) or np.any(s.x_ohm))
        if not has_z:
            for c in s.conductors:
                other = stiff.setdefault((s.bus, c), s.label)
                if other != s.label:
                    found = f"conductor {c} of bus {s.bus!r}, held by {other} too"
                    yield _fault(
                        "DEV-010", s.label, found, "one source without impedance per conductor", "Remove one of them."
                    )
                    break
        bus = buses.get(s.bus)
        values = view.profiles.get(s.v_pu) if isinstance(s.v_pu, str) else np.array([float(s.v_pu)])
        if bus is None or values is None:
            continue
        # behind an impedance the bus sees less than the source gives
        slack = 0.05 if has_z else 1e-9
        out = (values < bus.v_min_pu - slack) | (values > bus.v_max_pu + slack)
        for t in np.flatnonzero(out)[:1]:
            found = f"v_pu = {_show(values[t])}" + (
                f" in step {t} of profile {s.v_pu}" if isinstance(s.v_pu, str) else ""
            )
            allowed = f"the limits of bus {s.bus!r}: {_show(bus.v_min_pu)} to {_show(bus.v_max_pu)}"
            yield _fault("DEV-007", s.label, found, allowed, "Change the set point, or widen the limits of that bus.")


def _grid_limits(view: _View) -> Iterator[Fault]:
    """A limit on import or export below zero asks for the opposite; say it with the other limit."""
    for s in view.sound(Source):
        for field in ("p_import_max_kw", "p_export_max_kw"):
            value = getattr(s, field)
            series = view.profiles.get(value) if isinstance(value, str) else np.array([float(value)])
            if series is not None and (series < 0.0).any():
                found = f"{field} = {_show(float(np.nanmin(series)))}"
                yield _fault(
                    "VAL-003", s.label, found, f"{field} at least 0 kW", "Give the size of the limit, without a sign."
                )


def _power_factor(view: _View) -> Iterator[Fault]:
    for pv in view.sound(PV):
        if pv.q_control == "power_factor" and abs(pv.power_factor) < 1e-3:
            found = f"power_factor = {_show(pv.power_factor)}"
            yield _fault("DEV-008", pv.label, found, "-1 to 1, not 0", "Give e.g. 0.95, or use q_control = 'free'.")


def _rated_voltages(view: _View) -> Iterator[Fault]:
    for d in view.sound(ShuntDevice):
        rated, base = getattr(d, "v_rated_kv", None), view.v_base.get(d.bus)
        if base is None or not _positive(rated):
            continue
        low, high = _rated_range(base, three_phase=False, to_ground=d.connection == "wye" and 0 in d.terminals)
        if not low <= float(rated) <= high:  # type: ignore[arg-type]
            found = f"v_rated_kv = {_show(rated)} at bus {d.bus!r} of base {_show(base)} kV to ground"
            action = (
                "Correct the rating: the voltage across one port, in kV (line to ground in wye, line to line in delta)."
            )
            yield _fault("DEV-009", d.label, found, f"{low:.4g} to {high:.4g} kV (within a factor of 2)", action)


# ---------------------------------------------------------------------------------------------------------------------
# Profiles and horizon


def _profiles(view: _View) -> Iterator[Fault]:
    limits = _profiles_of_limits(view)
    n = view.n_steps
    for name, value in view.case.profiles.items():
        label = f"profile.{name}"
        array = _array(value)
        if array is None or array.ndim != 1:
            found = _show(value) if array is None else f"an array of shape {array.shape}"
            yield _fault("PRO-005", label, found, "a row of numbers, one per step", "Correct the profile.")
            continue
        if n and len(array) != n:
            word = "short" if len(array) < n else "long"
            found = f"{len(array)} value(s), too {word} for {n} step(s)"
            yield _fault(
                "PRO-002", label, found, f"{n} value(s), one per step", "Cut or extend the profile, or the horizon."
            )
        bad = ~np.isfinite(array)
        if name in limits:
            bad &= array != math.inf
        if bad.any():
            t = int(np.flatnonzero(bad)[0])
            found = f"{array[t]} in step {t}" + (f" and {int(bad.sum()) - 1} more" if bad.sum() > 1 else "")
            yield _fault("PRO-003", label, found, "finite numbers", "Fill the gap in the data.")


def _profiles_of_limits(view: _View) -> set[object]:
    """Profiles used only where infinity means no limit."""
    may: set[object] = set()
    must_not: set[object] = set()
    for part in view.parts:
        for f in part.fields:
            if f.spec.profile or f.type in ("Series", "float | str"):
                (may if f.infinite else must_not).update(v for v in part.column(f.name) if isinstance(v, str))
    return may - must_not


def _pv_profiles(view: _View) -> Iterator[Fault]:
    for pv in view.sound(PV):
        series = view.profiles.get(pv.profile)
        if series is None:
            continue
        for t in np.flatnonzero((series < 0.0) | (series > _PV_PROFILE_MAX))[:1]:
            found = f"{series[t]:.6g} in step {t} of profile {pv.profile}"
            action = (
                "Night is 0: cut meter offsets off."
                if series[t] < 0.0
                else "kW given as a share? Divide by p_rated_kw."
            )
            yield _fault("PRO-004", pv.label, found, f"0 to {_PV_PROFILE_MAX} of p_rated_kw", action)


def _horizon(view: _View) -> Iterator[Fault]:
    h, label = view.case.horizon, "horizon"
    step_h, weight = _array(h.step_h), _array(h.weight)
    if step_h is None or step_h.ndim != 1:
        yield _fault("HOR-002", label, f"step_h = {_show(h.step_h)}", "a row of lengths in hours", "Correct the steps.")
        return
    n = len(step_h)
    if not n:
        yield _fault("HOR-001", label, "0 steps", "one step or more", "One period is a horizon of one step.")
        return
    for t in np.flatnonzero(~(np.isfinite(step_h) & (step_h > 0.0)))[:1]:
        yield _fault(
            "HOR-002", label, f"step_h = {_show(step_h[t])} in step {t}", "above 0 h", "Correct the step length."
        )
    for t in np.flatnonzero(np.isfinite(step_h) & (step_h > _MAX_STEP_H))[:1]:
        found = f"step_h = {_show(step_h[t])} in step {t}"
        yield _fault("UNI-008", label, found, f"at most {_MAX_STEP_H:g} h", "Seconds or minutes given as hours?")
    if weight is None or weight.shape != (n,):
        found = f"weight = {_show(h.weight)}"
        yield _fault("HOR-003", label, found, f"{n} weight(s), one per step", "Give one weight per step, 1 for all.")
    else:
        for t in np.flatnonzero(~(np.isfinite(weight) & (weight >= 0.0)))[:1]:
            yield _fault(
                "HOR-003", label, f"weight = {_show(weight[t])} in step {t}", "at least 0", "Correct the weight."
            )
    breaks = h.breaks if isinstance(h.breaks, tuple | list) else (h.breaks,)
    for b in breaks:
        if not _is_int(b) or not 0 <= b < n or breaks.count(b) > 1:
            yield _fault("HOR-004", label, f"break {_show(b)}", f"steps 0 to {n - 1}, none twice", "Correct breaks.")
            break
    if not isinstance(h.start, datetime) or h.start != h.start:  # pandas' NaT is a datetime unequal to itself
        yield _fault("HOR-005", label, f"start = {_show(h.start)}", "a date and time", "Give e.g. 2024-07-01T00:00.")
    if not _zone_exists(h.zone):
        known = sorted(zoneinfo.available_timezones()) if isinstance(h.zone, str) else []
        action = did_you_mean(h.zone, known) if known else "Give e.g. America/Chicago."
        yield _fault("HOR-005", label, f"zone = {_show(h.zone)}", "an IANA time zone", action)


def _zone_exists(zone: object) -> bool:
    if not isinstance(zone, str) or not zone:
        return False
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Units


def _load_size(view: _View) -> Iterator[Fault]:
    """All loads together, as a current at the source (too large) and at their own buses (too small)."""
    loads = view.sound(Load)
    p, q = sum(view.load_kw.values()), sum(view.load_kvar.values())
    s = math.hypot(p, q)
    n_phases = _multiplicity(view)
    sources = [
        (len(x.conductors) * n_phases * view.v_base[x.bus], x) for x in view.sound(Source) if x.bus in view.v_base
    ]
    amps_per_kva = sum(kv for kv, _ in sources)
    if loads and amps_per_kva > 0.0 and s / amps_per_kva > _MAX_CURRENT_A:
        _, source = max(sources, key=lambda pair: pair[0])
        largest = max(loads, key=lambda x: view.peak_load(x)[0])
        line_to_line = view.v_base[source.bus] * math.sqrt(3.0)
        times = view.peak.get(largest.profile, 1.0)
        by = f", {_show(largest.p_kw)} kW times {_show(times)} of profile {largest.profile}" if times > 10.0 else ""
        yield _fault(
            "UNI-001",
            source.label,
            f"loads sum to {_power(s)} on a {line_to_line:.4g} kV feeder ({s / amps_per_kva:.4g} A per phase); "
            f"the largest is {largest.label} with {_power(view.peak_load(largest)[0])}{by}",
            f"at most {_MAX_CURRENT_A:g} A per phase",
            "W given as kW, or a profile in kW that multiplies kW? Correct the loads (or the voltage base).",
        )
    medium = [x for x in loads if view.v_base.get(x.bus, 0.0) > _MEDIUM_KV]
    if len(medium) < max(_MIN_LOADS, len(loads)):
        return
    amps = sum(
        math.hypot(float(x.p_kw), float(x.q_kvar)) * max(1.0, view.peak.get(x.profile, 1.0)) / view.v_base[x.bus]
        for x in medium
    )
    if 0.0 < amps / 3.0 < _MIN_CURRENT_A:
        yield _fault(
            "UNI-002",
            medium[0].label,
            f"{len(medium)} loads sum to {_power(s)} ({amps / 3.0:.3g} A per phase) at medium voltage",
            f"{_MIN_CURRENT_A:g} A per phase or more",
            "MW, or per unit, given as kW? Correct the loads (or the voltage bases).",
        )


def _multiplicity(view: _View) -> int:
    n = view.feeder.n_phases
    return int(n) if _is_int(n) and 1 <= n <= 3 else 1


def _power(kw: float) -> str:
    for size, unit in ((1e9, "TW"), (1e6, "GW"), (1e3, "MW"), (1.0, "kW")):
        if kw >= size:
            return f"{kw / size:.4g} {unit}"
    return f"{kw:.4g} kW"


def _device_size(view: _View) -> Iterator[Fault]:
    """Every rating of a device in kW, kvar or kVA as a current through one of its ports."""
    total = sum(view.load_kw.values())
    n_phases = _multiplicity(view)
    for d in view.sound(ShuntDevice):
        base = view.v_base.get(d.bus)
        if base is None:
            continue
        ports = max(1, len(d.terminals) - (1 if d.connection == "wye" else 0)) * n_phases
        own: type = type(d)
        for f in _fields(own):
            if f.type != "float" or f.spec.unit not in ("kW", "kvar", "kVA"):
                continue
            value = getattr(d, f.name)
            size = abs(float(value)) if value is not None else 0.0
            amps = size / (ports * base)
            share = not isinstance(d, Load) and 0.0 < total * _LARGE_SHARE < size and amps > _LARGE_CURRENT_A
            if math.isfinite(amps) and (amps > _MAX_CURRENT_A or share):
                versus = f", {size / total:.3g} times all loads" if share else ""
                found = f"{f.name} = {_show(value)}: {amps:.4g} A at {base:.4g} kV to ground{versus}"
                allowed = f"at most {_LARGE_CURRENT_A if share else _MAX_CURRENT_A:g} A per port"
                unit = f.spec.unit
                action = f"{unit.removeprefix('k')} given as {unit}? Correct the rating or the voltage base."
                yield _fault("UNI-003", d.label, found, allowed, action)
                break


def _voltage_drop(view: _View) -> Iterator[Fault]:
    """The drop of each branch at all the load behind it, on the spanning tree, by |r P + x Q| / V^2."""
    below_p, below_q = dict(view.load_kw), dict(view.load_kvar)
    tree, n_phases = view.tree, _multiplicity(view)
    branches: tuple[Line | Switch | Transformer, ...] = (
        *view.sound(Line),
        *view.sound(Switch),
        *view.sound(Transformer),
    )
    sound = {e.label: e for e in branches}
    for bus in reversed(tree.order):
        parent = tree.parent.get(bus)
        if parent is None:
            continue
        p, q = below_p.get(bus, 0.0), below_q.get(bus, 0.0)
        below_p[parent] = below_p.get(parent, 0.0) + p
        below_q[parent] = below_q.get(parent, 0.0) + q
        base, group = view.v_base.get(bus), tree.via[bus]
        if p + q == 0.0 or base is None:
            continue
        members = [sound[label] for label in group.branches if label in sound]
        wires = sum(len(m.conductors_from) for m in members if isinstance(m, Line | Switch))
        rating = sum(float(m.windings[0].s_rated_kva) for m in members if isinstance(m, Transformer) and m.windings)
        for m in members:
            if isinstance(m, Transformer):
                if len(m.windings) != 2 or len(m.x_percent) != 1 or not 0.0 < rating < math.inf:
                    continue
                drop = math.hypot(p, q) / rating * m.x_percent[0] / 100.0
                text = f"x_percent = {_show(m.x_percent[0])} on {_show(rating)} kVA"
            else:
                r, x = _positive_sequence(m.r_ohm), _positive_sequence(m.x_ohm)
                drop = (abs(r) * p + abs(x) * q) / (1000.0 * base**2 * max(wires, 1) * n_phases)
                text = f"{r:.4g} + j{x:.4g} ohm at {base:.4g} kV to ground"
            if math.isfinite(drop) and drop > 1.0:
                found = f"{text} with {_power(p)} behind it: a voltage drop of {100.0 * drop:.4g} %"
                action = "Is the impedance per length, not a total? Is the load or the voltage base in a wrong unit?"
                yield _fault("UNI-004", m.label, found, "less than 100 %", action)


def _positive_sequence(matrix: FloatArray) -> float:
    """Mean of the diagonal less mean of the rest: what a balanced current sees."""
    if matrix.ndim != 2 or not matrix.size or matrix.shape[0] != matrix.shape[1]:
        return 0.0
    n, trace = len(matrix), float(np.trace(matrix))
    return trace / n if n == 1 else trace / n - (float(matrix.sum()) - trace) / (n * (n - 1))


def _base_size(view: _View) -> Iterator[Fault]:
    for bus, base in view.v_base.items():
        if not _MIN_BASE_KV <= base <= _MAX_BASE_KV:
            word = "V given as kV?" if base > 1.0 else "MV given as kV?"
            allowed = f"{_MIN_BASE_KV:g} to {_MAX_BASE_KV:g} kV, line to ground"
            yield _fault("UNI-005", f"bus.{bus}", f"v_base_kv = {_show(base)}", allowed, f"{word} Correct the base.")


def _prices(view: _View) -> Iterator[Fault]:
    for part in view.parts:
        for f in part.fields:
            if f.spec.unit != "$/kWh":
                continue
            for k, value in enumerate(part.column(f.name)):
                series = view.profiles.get(value) if isinstance(value, str) else None
                if series is None:
                    series = np.array([float(value)]) if _is_number(value) else np.zeros(0)
                for t in np.flatnonzero(np.isfinite(series) & (np.abs(series) > _MAX_PRICE))[:1]:
                    of = f"{series[t]:.6g}" + (f" in step {t} of profile {value}" if isinstance(value, str) else "")
                    action = "$/MWh or cents given as $/kWh? Divide by 1000 or 100."
                    found = f"{part.prefixes[k]}{f.name} = {of} $/kWh"
                    yield _fault("UNI-006", part.labels[k], found, f"at most {_MAX_PRICE:g} $/kWh", action)


def _battery_hours(view: _View) -> Iterator[Fault]:
    for b in view.sound(Battery):
        power = float(max(b.p_charge_max_kw, b.p_discharge_max_kw))
        if not (power > 0.0 and b.energy_kwh > 0.0):
            continue
        hours = float(b.energy_kwh) / power
        if not _BATTERY_HOURS[0] <= hours <= _BATTERY_HOURS[1]:
            word = "MWh given as kWh?" if hours < 1.0 else "Wh given as kWh?"
            found = f"energy_kwh = {_show(b.energy_kwh)} at {_show(power)} kW: {hours:.4g} h"
            allowed = f"{_BATTERY_HOURS[0]:g} to {_BATTERY_HOURS[1]:g} h"
            yield _fault("UNI-007", b.label, found, allowed, f"{word} Correct capacity or power.")


_Rule = Callable[[_View], Iterable[Fault]]
_VALUES: tuple[_Rule, ...] = (_finite, _bounds, _words, _profile_names, _limits_crossed, _element_names, _matrices)
_RULES: tuple[_Rule, ...] = (
    _feeder_numbers,
    _no_source,
    _unknown_buses,
    _bus_conductors,
    _branch_conductors,
    _zero_impedance,
    _islands,
    _dead_conductors,
    _voltage_limits,
    _voltage_bases,
    _transformers,
    _areas,
    _terminals,
    _box_limits,
    _state_of_charge,
    _regulators,
    _sources,
    _grid_limits,
    _power_factor,
    _rated_voltages,
    _profiles,
    _pv_profiles,
    _horizon,
    _load_size,
    _device_size,
    _voltage_drop,
    _base_size,
    _prices,
    _battery_hours,
)
_RADIAL: tuple[_Rule, ...] = (_loops, _two_sources)

__all__ = ["CODES", "check", "require"]
