"""Three-phase feeders that are built in."""

from __future__ import annotations

from functools import partial

import lateral
from benchmarks.registry import BenchModel
from lateral.case import Case
from lateral.io.overlay import resample


def day(name: str, n_steps: int) -> Case:
    """A built-in case with its day in so many steps."""
    return resample(lateral.read(name), n_steps)


def _three_phase(n_steps: int, size: str) -> BenchModel:
    return BenchModel(
        name=f"ieee123-{n_steps}/lindist3flow",
        size=size,
        case=partial(day, "ieee123", n_steps),
        warm_up=partial(day, "ieee13", 2),
        formulation="lindist3flow",
        repeats=5,
    )


MODELS = (_three_phase(24, "small"), _three_phase(96, "medium"))
