"""What can occur at a border, as areas say it: spans of voltages and currents, each as the projector onto it.

A relaxation is written over the voltages and currents that can occur (`lateral.formulations.matrix_ranges`). At a
border the upper area knows the voltages (behind a delta winding they may add up to nothing), the lower one the currents
(of loads between conductors they do). A projector of n conductors crosses as its columns, the same at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from lateral.areas.message import MessageError, Values
from lateral.devices import BorderHead, BorderTail
from lateral.network.schema import ComplexArray, FloatArray
from lateral.program.ports import Crossing

#: What an upper area says of voltages, and a lower one of currents, by the field of `Crossing`.
SPANS_DOWN, SPANS_UP = {"v": "span_v", "v_could": "span_could"}, {"i": "span_i"}
#: What a projector may be off by, and what is another one.
EXACT, OTHER = 1e-6, 1e-6


def names_of(spans: Iterable[str], n: int) -> tuple[str, ...]:
    """The quantities that say spans of n conductors."""
    return tuple(f"{span}_{part}_{k}" for span in spans for k in range(1, n + 1) for part in ("re", "im"))


def is_span(quantity: str) -> bool:
    """Whether a quantity is a part of a span."""
    return quantity.startswith("span_")


def said(at: Crossing, n_steps: int) -> dict[str, FloatArray]:
    """What an area says of what can occur at a border."""
    out: dict[str, FloatArray] = {}
    for field, span in {**SPANS_DOWN, **SPANS_UP}.items():
        projector = getattr(at, field)
        if projector is not None:
            for k, column in enumerate(projector.T, 1):
                for part, values in (("re", column.real), ("im", column.imag)):
                    out[f"{span}_{part}_{k}"] = np.repeat(values[:, None], n_steps, axis=1)
    return out


def nothing_drawn(n: int, n_steps: int) -> dict[str, FloatArray]:
    """What a lower area says that draws nothing."""
    return said(Crossing(tuple(range(n)), i=np.zeros((n, n), dtype=complex)), n_steps)


def heard(values: Values, conductors: tuple[int, ...]) -> Crossing | None:
    """What can occur at a border as a neighbour said it; None where it said nothing of it.

    Raises:
        MessageError: it said something else than projectors.
    """
    found: dict[str, ComplexArray] = {}
    for field, span in {**SPANS_DOWN, **SPANS_UP}.items():
        names = names_of([span], len(conductors))
        if set(names) <= set(values):
            re, im = (np.array([np.asarray(values[x])[:, 0] for x in names[k::2]]).T for k in (0, 1))
            found[field] = p = np.asarray(re + 1j * im)
            off = max(float(np.abs(p - p.conj().T).max()), float(np.abs(p @ p - p).max()))
            if off > EXACT or (field != "i" and np.trace(p).real < 0.5):
                message = f"{span} is no projector: it is off by {off:.1e}, with a trace of {np.trace(p).real:.3g}"
                raise MessageError(message)
    return Crossing(conductors, v=found.get("v"), v_could=found.get("v_could"), i=found.get("i")) if found else None


def crossings(borders: Mapping[str, Values], devices: Iterable[BorderHead | BorderTail]) -> dict[str, Crossing]:
    """What can occur at an area's borders, by bus, where it was said.

    Args:
        borders: what neighbours said, by border.
        devices: the borders.

    Raises:
        MessageError: see `heard`.
    """
    known = {d.bus: heard(borders.get(d.name, {}), d.crossing) for d in devices}
    return {bus: occurs for bus, occurs in known.items() if occurs is not None}


def same_spans(one: Values, other: Values) -> bool:
    """Whether values say the same spans."""
    first, second = ({x: v for x, v in values.items() if is_span(x)} for values in (one, other))
    return first.keys() == second.keys() and all(np.abs(first[x] - second[x]).max() <= OTHER for x in first)


__all__ = [
    "OTHER",
    "SPANS_DOWN",
    "SPANS_UP",
    "crossings",
    "heard",
    "is_span",
    "names_of",
    "nothing_drawn",
    "said",
    "same_spans",
]
