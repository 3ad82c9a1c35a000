"""Options of the structured solver."""

from __future__ import annotations

from dataclasses import dataclass

from lateral.errors import OptionError
from lateral.solvers.base import Options

#: Complementarity relative to the objective at which a point is a solution.
DEFAULT_TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True)
class NativeOptions(Options):
    """Options of the structured solver.

    Attributes:
        tolerance: complementarity, relative to the objective.
        max_iterations: Newton steps, of all attempts together; None: 100 of each.
        warm: start from an earlier solve of the same session.
        threads: how many at most (small programs have one); they share steps and rows, and the numbers do not depend
            on it.
        fallback: hand what it cannot solve over to Clarabel or Ipopt; the answer names who gave it.

    Raises:
        OptionError: a number that is not finite and above zero; threads that are no whole number.
    """

    tolerance: float | None = DEFAULT_TOLERANCE
    max_iterations: int | None = None
    warm: bool = True
    threads: int = 1
    fallback: bool = True

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # `super()` is another class where a dataclass has slots
        if not (isinstance(self.threads, int) and self.threads >= 1):
            message = f"the solver's threads must be a whole number of at least 1, not {self.threads!r}"
            raise OptionError(message)


__all__ = ["DEFAULT_TOLERANCE", "NativeOptions"]
