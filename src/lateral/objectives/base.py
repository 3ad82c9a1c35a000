"""What an objective is. Objectives add up with ``+`` and take a weight with ``*``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from lateral.devices.base import DeviceContext
from lateral.network.schema import FloatArray
from lateral.program import Affine


class Objective(ABC):
    """Base of every objective."""

    #: the name that users give
    name: ClassVar[str]
    #: one sentence for tables
    title: ClassVar[str]
    #: unit of its value
    unit: ClassVar[str]
    #: value in that unit below which a relative difference means nothing
    floor: ClassVar[float] = 0.0

    @abstractmethod
    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """Add ``weight`` times this objective to the program."""

    @property
    def contains_losses(self) -> bool:
        """True when it already prices the losses that a linear formulation neglects."""
        return False

    def loss_price(self, ctx: DeviceContext) -> FloatArray:
        """What a lost kWh is worth in this objective, shape (T,), for the loss term of linear formulations.

        The default only breaks ties: small against anything that the objective weighs.
        """
        return np.full(ctx.n_steps, 1e-4)

    @property
    def terms(self) -> tuple[tuple[float, Objective], ...]:
        """(weight, objective) pairs."""
        return ((1.0, self),)

    def __add__(self, other: Objective) -> Objective:
        return Sum((*self.terms, *other.terms))

    def __mul__(self, weight: float) -> Objective:
        return Sum(tuple((w * float(weight), o) for w, o in self.terms))

    __rmul__ = __mul__


@final
@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives."""

    parts: tuple[tuple[float, Objective], ...]
    name: ClassVar[str] = "sum"
    title: ClassVar[str] = "weighted sum"
    unit: ClassVar[str] = ""

    @property
    def terms(self) -> tuple[tuple[float, Objective], ...]:
        """(weight, objective) pairs."""
        return self.parts

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """Every part with its weight; one of no weight asks for nothing."""
        for w, part in self.parts:
            if weight * w:
                part.declare(ctx, weight * w)

    @property
    def contains_losses(self) -> bool:
        """True when a part does."""
        return any(o.contains_losses for w, o in self.parts if w)

    def loss_price(self, ctx: DeviceContext) -> FloatArray:
        """The sum of the parts'."""
        return np.asarray(sum(w * o.loss_price(ctx) for w, o in self.parts))


def per_step(ctx: DeviceContext, values: FloatArray) -> Affine:
    """Numbers per step as an array of shape (1, T)."""
    return Affine.constant(np.broadcast_to(np.asarray(values, dtype=float), (1, ctx.n_steps)))


__all__ = ["Objective", "Sum", "per_step"]
