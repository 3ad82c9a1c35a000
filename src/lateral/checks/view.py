"""What the rules look at: a case made safe against nonsense in its fields, and its objects column by column."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import chain
from numbers import Integral, Real
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from lateral.case import Case
from lateral.checks.codes import fault
from lateral.devices import Load, Source
from lateral.errors import Fault, did_you_mean
from lateral.network import topology
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Switch, Terminal, Transformer, Winding
from lateral.network.schema import Element, FieldSpec, FloatArray, fields_of

E = TypeVar("E", bound=Element)
_LISTED = 8  # names shown of a long list
RATED_FACTOR = 2.0  # how far a rated voltage may be from the base of its bus


class View:
    """A case with what several rules need, looked up once and safe against nonsense in its fields."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.feeder = case.feeder
        self.elements: tuple[Element, ...] = (*case.feeder.elements, *case.devices)
        self.parts = tuple(parts_of(self.elements))
        self.mistyped = [found for part in self.parts for found in part.type_faults()]
        bad = self._mistyped_labels = frozenset(found.element for found in self.mistyped)
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
        """The names of the buses, in order."""
        return {b.name: None for b in self.feeder.buses if isinstance(b.name, str)}

    @cached_property
    def conductors(self) -> dict[str, frozenset[int]]:
        """The conductors of each bus."""
        return {b.name: frozenset(b.conductors) for b in self.sound(Bus)}

    @cached_property
    def v_base(self) -> dict[str, float]:
        """The voltage base of each bus that has a usable one, kV line to ground."""
        return {b.name: float(b.v_base_kv) for b in self.sound(Bus) if 0.0 < b.v_base_kv < math.inf}

    @cached_property
    def n_steps(self) -> int:
        """The number of steps; 0 when the horizon does not say."""
        step_h = self.case.horizon.step_h
        return len(step_h) if isinstance(step_h, np.ndarray) and step_h.ndim == 1 else 0

    @cached_property
    def profiles(self) -> dict[str, FloatArray]:
        """The profiles that are rows of numbers."""
        read = {k: as_array(v) for k, v in self.case.profiles.items() if isinstance(k, str)}
        return {k: v for k, v in read.items() if v is not None and v.ndim == 1 and v.size}

    @cached_property
    def peak(self) -> dict[str, float]:
        """The largest magnitude of each profile."""
        return {k: float(np.abs(v).max()) for k, v in self.profiles.items() if np.isfinite(v).all()}

    @cached_property
    def wires(self) -> Feeder:
        """The feeder less what cannot be followed: nonsense for windings, terminals or the state of a switch."""
        if not self.mistyped:
            return self.feeder
        windings = TYPES["tuple[Winding, ...]"][0]
        return replace(
            self.feeder,
            switches=tuple(s for s in self.feeder.switches if is_flag(s.closed)),
            transformers=tuple(t for t in self.feeder.transformers if windings(t.windings)),
            admittances=tuple(e for e in self.feeder.admittances if e.label not in self._mistyped_labels),
        )

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The buses of the sources."""
        return tuple(dict.fromkeys(s.bus for s in self.sound(Source) if s.bus in self.bus_names))

    @cached_property
    def tree(self) -> topology.Tree:
        """The spanning tree from the sources."""
        return topology.spanning_tree(self.wires, self.roots)

    @cached_property
    def impedances(self) -> tuple[tuple[list[Line | Switch], FloatArray, FloatArray], ...]:
        """The closed lines and switches by size, with their r and x stacked: (branch, conductor, conductor)."""
        sizes: dict[int, list[Line | Switch]] = {}
        closed: tuple[Line | Switch, ...] = (*self.sound(Line), *(s for s in self.sound(Switch) if s.closed))
        for branch in closed:
            n = len(branch.r_ohm) if branch.r_ohm.ndim else 0
            if n and branch.r_ohm.shape == branch.x_ohm.shape == (n, n):  # any other is NET-009
                sizes.setdefault(n, []).append(branch)
        return tuple((b, np.array([x.r_ohm for x in b]), np.array([x.x_ohm for x in b])) for b in sizes.values())

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
        """The fault of a bus that does not exist."""
        return fault(
            "NET-002", label, f"{field} = {bus!r}", "the name of a bus", did_you_mean(bus, tuple(self.bus_names))
        )


def on_bus(view: View, label: str, field: str, bus: str, used: Iterable[int]) -> Iterator[Fault]:
    """A fault when an element uses conductors that its bus does not have."""
    has = view.conductors.get(bus)
    if has is None or has.issuperset(used):  # an unknown bus is NET-002
        return
    missing = ", ".join(str(c) for c in dict.fromkeys(used) if c not in has)
    present = ", ".join(map(str, sorted(has))) or "none"
    action = "Correct the conductors of the element, or add them to the bus and the branch that feeds it."
    yield fault(
        "NET-005",
        label,
        f"{field}: conductor {missing} at bus {bus!r}",
        f"the conductors of that bus: {present}",
        action,
    )


def rated_range(base: float, *, three_phase: bool, to_ground: bool) -> tuple[float, float]:
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
    return seen[0] / RATED_FACTOR, seen[1] * RATED_FACTOR


def show(value: object) -> str:
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


def listed(names: Iterable[str]) -> str:
    """A list of names, cut when it is long."""
    every = list(names)
    more = f", ... ({len(every)} in all)" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more


def as_array(value: object) -> FloatArray | None:
    """A value as an array of numbers; None when it is not one."""
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return value
    try:
        array = np.asarray(value)
        return array.astype(float) if array.dtype.kind in "fiu" else None
    except (TypeError, ValueError, OverflowError):
        return None


# Types: what a field takes, read off its annotation


def is_number(value: object) -> bool:
    """Whether a value is a real number that fits a float; NaN and infinity do."""
    if type(value) is float:
        return True
    if type(value) is bool or not isinstance(value, Real):
        return False
    try:
        float(value)
    except (OverflowError, ValueError, TypeError):
        return False
    return True


def is_positive(value: object) -> bool:
    """Whether a value is a finite number above zero."""
    return is_number(value) and 0.0 < float(value) < math.inf  # type: ignore[arg-type]


def is_int(value: object) -> bool:
    """Whether a value is a whole number of usual size."""
    if type(value) is not int and (type(value) is bool or not isinstance(value, Integral)):
        return False
    return abs(int(value)) < 2**62


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def is_flag(value: object) -> bool:
    """Whether a value is True or False."""
    return isinstance(value, bool | np.bool_)


def _is_series(value: object) -> bool:
    return isinstance(value, str) or is_number(value)


def is_matrix(value: object) -> bool:
    """Whether a value is an array of floats, as elements make of their matrices."""
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def _is_winding(value: object) -> bool:
    return isinstance(value, Winding)


def _is_terminal(value: object) -> bool:
    return isinstance(value, Terminal)


def _tuple_of(one: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, tuple) and all(one(v) for v in value)


TYPES: dict[str, tuple[Callable[[object], bool], str]] = {
    "str": (_is_text, "text"),
    "bool": (is_flag, "True or False"),
    "int": (is_int, "a whole number"),
    "float": (is_number, "a number"),
    "Series": (_is_series, "a number, or the name of a profile"),
    "float | str": (_is_series, "a number, or the name of a profile"),
    "FloatArray": (is_matrix, "a matrix of numbers"),
    "Terminals": (_tuple_of(is_int), "a tuple of conductor numbers"),
    "tuple[int, ...]": (_tuple_of(is_int), "a tuple of whole numbers"),
    "tuple[float, ...]": (_tuple_of(is_number), "a tuple of numbers"),
    "tuple[float, float, float]": (lambda v: _tuple_of(is_number)(v) and len(v) == 3, "three numbers"),  # type: ignore[arg-type]
    "tuple[Winding, ...]": (_tuple_of(_is_winding), "a tuple of windings"),
    "tuple[Terminal, ...]": (_tuple_of(_is_terminal), "a tuple of terminals"),
}
#: types that are right without a look at the value, for speed
_PLAIN: dict[str, set[type]] = {"str": {str}, "bool": {bool}, "float": {float}, "Series": {float, str}}
_PLAIN_ITEMS: dict[str, set[type]] = {
    "Terminals": {int},
    "tuple[int, ...]": {int},
    "tuple[float, ...]": {float},
    "tuple[Winding, ...]": {Winding},
    "tuple[Terminal, ...]": {Terminal},
}
_NUMERIC = ("int", "float", "Series", "float | str", "tuple[float, ...]", "tuple[float, float, float]")


class Field:
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
        self.right, self.allowed = TYPES.get(text, (lambda _: True, "anything"))
        self.plain, self.plain_items = _PLAIN.get(text, set()), _PLAIN_ITEMS.get(text, set())
        self.numeric = text in _NUMERIC
        # the sentence of a field says where infinity stands for "no limit"
        default = spec.default
        is_float = isinstance(default, float)
        self.infinite = (is_float and math.isinf(default)) or re.search(r"\binf\b", spec.doc) is not None
        self.nan = is_float and math.isnan(default)

    def bounds(self) -> str:
        """The bounds as text."""
        s, unit = self.spec, f" {self.spec.unit}" if self.spec.unit else ""
        low = f"above {s.above:g}" if s.above is not None else ""
        low = f"at least {s.minimum:g}" if s.minimum is not None else low
        high = f"at most {s.maximum:g}" if s.maximum is not None else ""
        return f"{self.name} {' and '.join(t for t in (low, high) if t)}{unit}"


@lru_cache(maxsize=256)
def fields(cls: type) -> tuple[Field, ...]:
    """The fields of a class."""
    return tuple(Field(spec) for spec in fields_of(cls))


class Part:
    """Objects of one class, column by column: the elements of a class, all windings, or all terminals."""

    def __init__(
        self, cls: type, owners: Sequence[Element], prefixes: Sequence[str], objects: Sequence[object]
    ) -> None:
        self.fields = fields(cls)
        self.owners, self.prefixes, self.objects = owners, prefixes, objects
        self._columns: dict[str, Sequence[Any]] = {}
        self._numbers: dict[str, tuple[Sequence[int], FloatArray]] = {}

    def type_faults(self) -> Iterator[Fault]:
        """A fault for each value of a wrong type."""
        for f in self.fields:
            column = self.column(f.name)
            types = set(map(type, column))
            if types <= f.plain:
                continue
            if f.plain_items and types == {tuple} and set(map(type, chain.from_iterable(column))) <= f.plain_items:
                continue
            for k, value in enumerate(column):
                if not (f.right(value) or (value is None and f.optional)):
                    yield self.fault("VAL-001", k, f, show(value), f.allowed, "Write the value in that form.")

    def column(self, name: str) -> Sequence[Any]:
        """The values of one field, one per object."""
        if name not in self._columns:
            self._columns[name] = tuple(map(attrgetter(name), self.objects))
        return self._columns[name]

    def fault(self, code: str, k: int, f: Field, found: str, allowed: str, action: str) -> Fault:
        """The fault of one value of object ``k``, the value as text."""
        return fault(code, self.owners[k].label, f"{self.prefixes[k]}{f.name} = {found}", allowed, action)

    def numbers(self, f: Field) -> tuple[Sequence[int], FloatArray]:
        """The numbers of a field, one by one, and the object that each belongs to."""
        if f.name not in self._numbers:
            self._numbers[f.name] = _numbers(self.column(f.name))
        return self._numbers[f.name]


def _numbers(column: Sequence[object]) -> tuple[Sequence[int], FloatArray]:
    types = set(map(type, column))
    if types <= {float}:
        return range(len(column)), np.array(column, dtype=float)
    rows = [value for value in column if isinstance(value, tuple)]
    if types == {tuple} and set(map(type, chain.from_iterable(rows))) <= {float}:
        owner: list[int] = np.repeat(np.arange(len(rows)), [len(row) for row in rows]).tolist()
        return owner, np.array(list(chain.from_iterable(rows)), dtype=float)
    pairs = [
        (k, float(v))
        for k, value in enumerate(column)
        for v in (value if isinstance(value, tuple) else (value,))
        if is_number(v)
    ]
    return [k for k, _ in pairs], np.array([v for _, v in pairs])


def parts_of(elements: Iterable[Element]) -> Iterator[Part]:
    """The elements by class, then all windings, then all terminals of generic admittances."""
    by_class: dict[type, list[Element]] = {}
    for e in elements:
        by_class.setdefault(type(e), []).append(e)
    for cls, members in by_class.items():
        yield Part(cls, members, [""] * len(members), members)
    for owner, field, cls in ((Transformer, "windings", Winding), (MultiTerminal, "terminals", Terminal)):
        inner = [
            (e, f"{field[:-1]} {k} ", part)
            for e in elements
            if isinstance(e, owner) and isinstance(getattr(e, field), tuple)
            for k, part in enumerate(getattr(e, field), 1)
            if isinstance(part, cls)
        ]
        if inner:
            owners, prefixes, objects = zip(*inner, strict=True)
            yield Part(cls, owners, prefixes, objects)


def outside(s: FieldSpec, values: FloatArray) -> Any:
    """Which of the values lie outside the bounds of a field."""
    bad = np.zeros(values.shape, dtype=bool)
    if s.minimum is not None:
        bad |= values < s.minimum
    if s.maximum is not None:
        bad |= values > s.maximum
    if s.above is not None:
        bad |= values <= s.above
    return bad


#: Looks at one matter and gives its faults; never raises, whatever stands in the fields.
Rule = Callable[[View], Iterable[Fault]]
