"""Exceptions and coded faults.

::

    LateralError                    base of everything raised on purpose
    +- CaseError                    bad input: carries every fault found, not the first one
    |  +- HostileFileError          a file asks for something outside its case folder, or to run code
    +- OptionError                  an option, a name or a combination that does not exist; says what does
    +- UnsupportedError             a formulation, device or solver declines the case before the solve
    +- SolveError                   the solve ended without a usable solution (Result.status says how)
    +- EngineError                  the OpenDSS engine failed, timed out or did not converge

A `Fault` is data: a code, the element, the value found, what is allowed, what to do. It prints itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass


class LateralError(Exception):
    """Base of everything that lateral raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a case.

    Attributes:
        code: stable identifier, ``AREA-nnn`` with a short word, e.g. ``NET-003 island``.
        element: ``kind.name`` of the element at fault, e.g. ``line.l115``.
        found: the value found, as text.
        allowed: what would have been accepted.
        action: what the user can do about it.
        where: ``file:line`` when the element came from a file, else empty.
    """

    code: str
    element: str
    found: str
    allowed: str
    action: str
    where: str = ""

    @property
    def message(self) -> str:
        """The fault as one sentence, without code and element."""
        text = f"found {self.found}; allowed: {self.allowed}. {self.action}"
        return f"{text} ({self.where})" if self.where else text

    def __str__(self) -> str:
        return f"[{self.code}] {self.element}: {self.message}"

    def as_dict(self) -> dict[str, str]:
        """The fault as plain data, with its message (for JSON)."""
        return {**asdict(self), "message": self.message}


class CaseError(LateralError):
    """A case has faults; all of them are in ``faults``."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults[:50])
        more = f"\n  ... and {len(self.faults) - 50} more" if len(self.faults) > 50 else ""
        super().__init__(f"{len(self.faults)} fault(s) in the case:\n{lines}{more}")


class HostileFileError(CaseError):
    """A file asks for something outside its case folder, or to run code. Nothing was executed."""


class OptionError(LateralError):
    """An option, name or combination that does not exist; the message says what does."""


class UnsupportedError(LateralError):
    """A formulation, device or solver declines the case, before the solve; ``faults`` says why."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class SolveError(LateralError):
    """The solve ended without a usable solution."""


class EngineError(LateralError):
    """The OpenDSS engine failed, timed out or did not converge."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A sentence that offers the nearest known names, or lists a few of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(repr(n) for n in near)}?"
    listed = ", ".join(sorted(known)[:12])
    return f"Known names: {listed}{', ...' if len(known) > 12 else ''}." if known else "There are none."
