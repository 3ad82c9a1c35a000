"""Every fault of a case at once, before anything is solved.

`check` returns faults, `require` raises them. A fault has a code of the table `CODES`, the element, the value found,
what is allowed and what to do.

Rules are small functions ``view -> faults``, listed at the end of each module. Those of `values` are made from the
schema and hold for every element class, a user's own devices too. The others know what the fields mean; they see
only elements whose fields have the right types (`View.sound`), so none of them can trip over a string where a number
belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lateral.case import Case
from lateral.checks import devices, grounding, network, series, units, values
from lateral.checks.codes import BUILD_CODES, CODES
from lateral.checks.view import View
from lateral.errors import CaseError, Fault

_GROUPS = (values, network, grounding, devices, series, units)
_RULES = tuple(rule for group in _GROUPS for rule in group.RULES)


def check(case: Case, *, radial: bool = False) -> tuple[Fault, ...]:
    """Every fault of a case; empty when it can be solved.

    Args:
        case: the case.
        radial: also ask for a feeder without loops and with one source per network.

    Returns:
        The faults: those of single values first, then network, devices, profiles, horizon, units.
    """
    broken = tuple(values.containers(case))
    if broken:  # without these nothing else can be looked at
        return broken
    with np.errstate(all="ignore"):
        view = View(case)
        found = list(view.mistyped)
        for rule in (*_RULES, *(network.RADIAL if radial else ())):
            found.extend(rule(view))
    where = case.where if isinstance(case.where, Mapping) else {}
    return tuple(replace(f, where=str(where[f.element])) if f.element in where else f for f in found)


def require(case: Case, *, radial: bool = False) -> None:
    """Raise `CaseError` with every fault of a case; return when there is none."""
    faults = check(case, radial=radial)
    if faults:
        raise CaseError(faults)


__all__ = ["BUILD_CODES", "CODES", "check", "require"]
