"""What crosses a border, by name: voltages as the formulation says them, P, Q, and their prices.

The voltages are ``("v",)``, the squared magnitude, or ``("v_re", "v_im")``, or ``("v", "vv_re", "vv_im")``, the squared
magnitude and the product with the next conductor's; see `NetworkModel.voltages`. A price of x
is ``price_x``; in consensus an area is told ``lin_x`` and ``w_x``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lateral.network.schema import ComplexArray, FloatArray
from lateral.network.sequence import from_components, to_components

#: Powers, in the order in which they are kept.
POWERS = ("p", "q")


def head_in(coupling: str, voltages: Sequence[str]) -> tuple[str, ...]:
    """What a head is told; nothing in consensus, where both sides have copies."""
    match coupling:
        case "tariff":
            return tuple(voltages)
        case "prices":
            return (*voltages, "price_p", "price_q")
    return ()


def tail_in(coupling: str, voltages: Sequence[str]) -> tuple[str, ...]:
    """What a tail is told; nothing in consensus."""
    match coupling:
        case "tariff":
            return POWERS
        case "prices":
            return (*POWERS, *(f"price_{x}" for x in voltages))
    return ()


def head_may(coupling: str) -> tuple[str, ...]:
    """What a head may be told beside: the weights of a proximal term, see `lateral.areas.algorithms.enapp_priced`."""
    return ("w_p", "w_q") if coupling == "prices" else ()


def copies(voltages: Sequence[str]) -> tuple[str, ...]:
    """What both sides of a border have copies of in consensus."""
    return (*voltages, *POWERS)


def terms(voltages: Sequence[str]) -> tuple[str, ...]:
    """What an area is told in consensus: linear and quadratic terms, of matrices in symmetrical components."""
    return tuple(f"{kind}_{x}" for kind in ("lin", "w") for x in copies(voltages))


#: What is said of a matrix of voltages, in the order of `lateral.network.sequence`.
MATRIX = ("v", "vv_re", "vv_im")


def in_components(values: Mapping[str, FloatArray], conductors: tuple[int, ...]) -> dict[str, FloatArray]:
    """Values at a border with its matrix of voltages in symmetrical components; without a matrix as they are."""
    return _turned(values, to_components(conductors)) if "vv_re" in values else dict(values)


def of_conductors(values: Mapping[str, FloatArray], conductors: tuple[int, ...]) -> dict[str, FloatArray]:
    """The inverse of `in_components`."""
    return _turned(values, from_components(conductors)) if "vv_re" in values else dict(values)


def _turned(values: Mapping[str, FloatArray], by: FloatArray) -> dict[str, FloatArray]:
    parts = np.split(by @ np.concatenate([values[x] for x in MATRIX]), len(MATRIX))
    return {**values, **dict(zip(MATRIX, parts, strict=True))}


def said_of(voltages: Sequence[str], v: ComplexArray) -> dict[str, FloatArray]:
    """What is said of the complex voltages of one border's conductors, pu, shape (conductors, T)."""
    beside = v * np.roll(v, -1, axis=0).conj()
    every = {"v": np.abs(v) ** 2, "v_re": v.real, "v_im": v.imag, "vv_re": beside.real, "vv_im": beside.imag}
    return {x: np.asarray(every[x]) for x in voltages}


def magnitude_sq(values: Sequence[FloatArray]) -> FloatArray:
    """Squared magnitude of a voltage, pu^2, from what is said of it."""
    if len(values) == 1:
        return np.asarray(values[0])
    return np.asarray(sum(part**2 for part in values))


__all__ = [
    "POWERS",
    "copies",
    "head_in",
    "head_may",
    "in_components",
    "magnitude_sq",
    "of_conductors",
    "said_of",
    "tail_in",
    "terms",
]
