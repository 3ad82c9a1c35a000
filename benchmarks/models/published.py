"""Published balanced feeders."""

from __future__ import annotations

from functools import partial

import lateral
from benchmarks.registry import BenchModel


def _named(name: str, formulation: str) -> BenchModel:
    return BenchModel(
        name=f"{name}/{formulation}",
        size="small",
        case=partial(lateral.read, name),
        warm_up=partial(lateral.read, "tree-8x2"),
        formulation=formulation,
    )


MODELS = (
    _named("case33bw", "nonlinear"),
    _named("ieee123-t24", "lindistflow"),
    _named("ieee123-t24", "soc"),
    _named("ieee123-t24", "nonlinear"),
)
