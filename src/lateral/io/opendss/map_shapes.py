"""Load shapes of an OpenDSS model on the horizon of a case, and curves at the operating point."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from lateral.errors import OptionError
from lateral.io.opendss.map_build import Build, Properties, number, numbers, text
from lateral.io.opendss.map_ratings import elements_meant
from lateral.network.horizon import Horizon
from lateral.network.schema import FloatArray

#: Which shapes of the files make the horizon: none (one step at the stated powers), or those of this study.
HorizonKind = Literal["snapshot", "daily", "yearly", "duty"]
KINDS = ("snapshot", "daily", "yearly", "duty")

# Which shape an element follows in a study: its own, else the next one, as the engine does. A generator without a
# yearly one gives all of its power over the year.
_FALL_BACK = {"daily": ("daily",), "yearly": ("yearly", "daily"), "duty": ("duty", "daily")}
_GENERATOR = _FALL_BACK | {"yearly": ("yearly",)}
_CLASSES = ("load", "pvsystem", "generator", "storage")


class Shapes:
    """Shapes in use, resampled to the horizon. Mutable while a model is read.

    Attributes:
        kind: which shapes are followed.
        horizon: the time axis.
        profiles: resampled shapes by name; a reactive shape is ``name:q``.
    """

    def __init__(
        self, build: Build, kind: HorizonKind, *, n_steps: int | None, step_h: float | None, first: int
    ) -> None:
        if kind not in KINDS:
            message = f"horizon {kind!r} does not exist; there are {', '.join(KINDS)}."
            raise OptionError(message)
        self.kind = kind
        self.build = build
        self.profiles: dict[str, FloatArray] = {}
        self.raw = {str(s["name"]).lower(): s for s in build.model.objects("loadshape")}
        self.used: set[str] = set()
        self.first = first
        self.horizon = Horizon.regular(1)
        if kind != "snapshot":
            step, count = self._grid(step_h)
            total = n_steps if n_steps is not None else count
            if total < 1 or step <= 0 or first < 0:
                message = f"n_steps {total}, step_h {step:g}, first {first}: give at least one step of positive length."
                raise OptionError(message)
            self.horizon = Horizon.regular(total, step)
        elif (n_steps, step_h, first) != (None, None, 0):
            message = "n_steps, step_h and first belong to horizon 'daily', 'yearly' or 'duty'; this one is 'snapshot'."
            raise OptionError(message)
        self._check_padding()

    def name_of(self, cls: str, properties: Properties) -> str:
        """Name of the shape that an element of a class follows in this study; empty for none."""
        if self.kind == "snapshot":
            return ""
        for key in (_GENERATOR if cls == "generator" else _FALL_BACK)[self.kind]:
            name = text(properties, key).removeprefix("loadshape.")
            if name in self.raw:
                return name
        return ""

    def _grid(self, step_h: float | None) -> tuple[float, int]:
        """Length of a step, hours, and the steps of one day (or of the whole shape when it is shorter)."""
        counted: Counter[tuple[float, float]] = Counter()
        for cls in _CLASSES:
            for properties in self.build.model.objects(cls):
                name = self.name_of(cls, properties)
                if name:
                    shape = self.raw[name]
                    interval = number(shape, "interval")
                    span = _span(interval, numbers(shape, "hour"), len(numbers(shape, "pmult")))
                    counted[round(interval or 1.0, 9), round(span, 9)] += 1
        if not counted:
            message = f"No element follows a {self.kind} shape: take the horizon snapshot."
            raise OptionError(message)
        (interval, span), _ = counted.most_common(1)[0]
        step = interval if step_h is None else step_h
        hours = min(24.0, span)
        return step, max(1, round(hours / step))

    # ------------------------------------------------------------------------------------------------- profiles

    def sample(self, name: str, key: str = "pmult") -> FloatArray:
        """A shape's mean over each step, shape (T,). Value k of the files holds for interval k; shapes repeat."""
        shape = self.raw[name]
        self.used.add(name)
        values = np.array(numbers(shape, key))
        return _resample(values, number(shape, "interval"), np.array(numbers(shape, "hour")), self.horizon, self.first)

    def profile(self, name: str, key: str = "pmult") -> str:
        """Name of the profile of a shape, made on first use."""
        label = name if key == "pmult" else f"{name}:q"
        if label not in self.profiles:
            self.profiles[label] = self.sample(name, key)
        return label

    def apply(self, cls: str, properties: Properties, *, follow: bool, factor: float) -> tuple[float, float, str, str]:
        """Power of a load or a generator, kW and kvar, and the profiles that multiply p and q.

        Args:
            cls: ``load`` or ``generator``.
            properties: of the element.
            follow: whether it follows a shape.
            factor: the multiplier of the files for its class.
        """
        kw, kvar = number(properties, "kw") * factor, number(properties, "kvar") * factor
        name = self.name_of(cls, properties) if follow else ""
        if not name:
            return kw, kvar, "", ""
        shape = self.raw[name]
        profile = self.profile(name)
        profile_q = self.profile(name, "qmult") if numbers(shape, "qmult") else ""
        if not bool(shape.get("useactual")):
            return kw, kvar, profile, profile_q
        # the shape holds kW and kvar, which the multipliers of the files leave alone; without a curve of its own the
        # engine takes no kvar, but for a load that is stated by its power factor
        if profile_q:
            return 1.0, 1.0, profile, profile_q
        by_factor = cls == "load" and str(properties["name"]).lower() in self._by_factor
        pf = number(properties, "pf", 1.0) if by_factor else 1.0
        return 1.0, float(np.tan(np.arccos(min(abs(pf), 1.0))) * np.sign(pf)), profile, ""

    @cached_property
    def _by_factor(self) -> frozenset[str]:
        """Loads whose power factor is stated, and no kvar after it."""
        out: set[str] = set()
        for statement, names in elements_meant(self.build.model.scanned.statements, ("load",)):
            found = _STATES_Q.findall(statement.text)
            if found:
                (out.update if found[-1].lower() == "pf" else out.difference_update)(names)
        return frozenset(out)

    # -------------------------------------------------------------------------------------------------- checks

    def _check_padding(self) -> None:
        """Fewer values than npts: the engine fills the rest with zeros and says nothing."""
        scanned = self.build.model.scanned
        for statement in scanned.statements:
            if statement.cls != "loadshape" or statement.verb not in ("new", "edit"):
                continue
            stated = _NPTS.search(statement.text)
            given = _given_values(statement.text, scanned.staged)
            if stated and given is not None and given < int(stated.group(1)):
                npts = int(stated.group(1))
                said = f"loadshape.{statement.name} has {given} values for npts={npts}; the engine fills up with zeros"
                self.build.note("IMP-050", said, f"{statement.file}:{statement.line}")


_STATES_Q = re.compile(r"\s(pf|kvar)=", re.IGNORECASE)
_NPTS = re.compile(r"\bnpts=\W*(\d+)", re.IGNORECASE)
_LIST = re.compile(r"\bp?mult=\s*[\[(\"'{]([^\])\"'}]*)", re.IGNORECASE)
_FILE = re.compile(r"\b(csvfile|file|pqcsvfile)=\W*([\w.]+)", re.IGNORECASE)


def _given_values(text: str, staged: Mapping[str, bytes]) -> int | None:
    """How many values a shape's statement gives, in place or in a text file; None when it cannot be told."""
    found = _FILE.search(text)
    if found:
        content = staged.get(found.group(2))
        return None if content is None else sum(bool(row.strip()) for row in content.splitlines())
    listed = _LIST.search(text)
    if not listed or "=" in listed.group(1):  # a binary file
        return None
    return len(re.split(r"[\s,|]+", listed.group(1).strip(" ,")))


def _resample(values: FloatArray, interval: float, hours: FloatArray, horizon: Horizon, first: int) -> FloatArray:
    edges = (first + np.concatenate([[0.0], np.cumsum(horizon.step_h / horizon.step_h[0])])) * horizon.step_h[0]
    if values.size == 0:
        return np.ones(horizon.n_steps)
    span = _span(interval, hours, values.size)
    turns = np.floor(edges / span + 1e-12)
    at = edges - turns * span
    if _at_hours(interval, hours, values.size):
        whole, inside = (_integral(x, hours, values) for x in (np.array([span]), at))
    else:
        interval = interval or 1.0
        total = np.concatenate([[0.0], np.cumsum(values) * interval])
        whole, inside = total[-1:], np.interp(at, np.arange(values.size + 1) * interval, total)
    return np.asarray(np.diff(turns * whole + inside) / np.diff(edges), dtype=float)


def _at_hours(interval: float, hours: Sequence[float] | FloatArray, points: int) -> bool:
    """Whether a shape has its points at hours of their own."""
    return interval <= 0.0 and len(hours) == points > 0 and hours[-1] > 0.0


def _span(interval: float, hours: Sequence[float] | FloatArray, points: int) -> float:
    """Hours after which a shape repeats.

    One with hours of its own does so after the last of them; one that begins at 0 and ends within a day (0, 1, ... 23)
    has another of its intervals after it, to the end of the day at most, where the engine would have no last hour of
    the day.
    """
    if not _at_hours(interval, hours, points):
        return (interval or 1.0) * points
    last = float(hours[-1])
    if points > 1 and hours[0] == 0.0 and last < 24.0:
        return min(24.0, 2.0 * last - float(hours[-2]))
    return last


def _integral(x: FloatArray, hours: FloatArray, values: FloatArray) -> FloatArray:
    """Integral from 0 of straight lines between points; before the first and beyond the last, their values."""
    ends = np.concatenate([[0.0], hours, [max(hours[-1], float(x.max()))]])
    heights = np.concatenate([values[:1], values, values[-1:]])
    total = np.concatenate([[0.0], np.cumsum(np.diff(ends) * (heights[1:] + heights[:-1]) / 2.0)])
    k = np.clip(np.searchsorted(ends, x, side="right") - 1, 0, len(hours))
    return np.asarray(total[k] + (x - ends[k]) * (heights[k] + np.interp(x, ends, heights)) / 2.0)


def curve_value(build: Build, name: str, x: float) -> float | None:
    """Value of an XYCurve at x, straight lines between its points and beyond them; None when there is none."""
    for curve in build.model.objects("xycurve"):
        if str(curve["name"]).lower() != name:
            continue
        xs, ys = np.array(numbers(curve, "xarray")), np.array(numbers(curve, "yarray"))
        if xs.size < 2 or xs.size != ys.size:
            return float(ys[0]) if ys.size else None
        k = int(np.clip(np.searchsorted(xs, x) - 1, 0, xs.size - 2))
        return float(ys[k] + (ys[k + 1] - ys[k]) * (x - xs[k]) / (xs[k + 1] - xs[k]))
    return None


__all__ = ["KINDS", "HorizonKind", "Shapes", "curve_value"]
