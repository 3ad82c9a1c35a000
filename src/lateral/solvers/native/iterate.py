"""Where the method is: primal and dual numbers, and how a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lateral.network.schema import FloatArray
from lateral.solvers.native.barrier import Kinds, Multipliers
from lateral.solvers.native.threads import Share


@dataclass(slots=True, eq=False)
class Iterate:
    """Primal and dual numbers, all (elements, T).

    Attributes:
        x: variables.
        s: slacks of ranges (the value of the row) and of products (0 for exact ones).
        y: multipliers of equalities, ranges and products, in the order of the rows.
        eta: multipliers of the storage rows.
        z_low, z_high: multipliers of the bounds of x.
        w_low, w_high: multipliers of the bounds of s.
    """

    x: FloatArray
    s: FloatArray
    y: FloatArray
    eta: FloatArray
    z_low: FloatArray
    z_high: FloatArray
    w_low: FloatArray
    w_high: FloatArray

    @property
    def primal(self) -> Kinds:
        """Variables and slacks."""
        return self.x, self.s

    @property
    def dual(self) -> Multipliers:
        """Multipliers of their bounds."""
        return (self.z_low, self.z_high), (self.w_low, self.w_high)

    def shifted(self, steps: int) -> Iterate:
        """The same so many steps later: each step takes the numbers of the one that far ahead, or of the last."""
        t = self.x.shape[1]
        ahead = np.minimum(np.arange(t) + steps, t - 1)
        return Iterate(*(getattr(self, name)[:, ahead] for name in self.__slots__))

    def take(self, other: Iterate, mine: Share) -> None:
        """A thread's share of the numbers of another one, into its own arrays."""
        for name in self.__slots__:
            to, of = getattr(self, name), getattr(other, name)
            at = slice(*mine.of(len(of)))
            to[at] = of[at]

    def empty(self) -> Iterate:
        """One of the same shape, for others' numbers."""
        return Iterate(*(np.empty_like(getattr(self, name)) for name in self.__slots__))

    def copy(self) -> Iterate:
        """A copy of every array."""
        return Iterate(*(getattr(self, name).copy() for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        word: solved, stalled (no step makes progress), limit (iterations or time), broken (a number that is none).
        iterations: Newton steps.
        inner: iterations of the conjugate gradients.
        reduced_cost: gradient less what rows make of it at the last iterate, which bounds take, shape (variables, T);
            good until the next run.
        log: one line per iteration.
    """

    word: str
    iterations: int
    inner: int
    reduced_cost: FloatArray
    log: tuple[str, ...] = field(default=())


__all__ = ["Iterate", "Outcome"]
