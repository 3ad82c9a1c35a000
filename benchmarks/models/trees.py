"""Generated balanced feeders, 128 to 10,000 buses by 5 to 96 steps."""

from __future__ import annotations

from functools import partial

import lateral
from benchmarks.registry import BenchModel

_WITHOUT_REPLAY = ("read", "build", "solve", "result", "resolve")


def _tree(n_buses: int, n_steps: int, size: str, formulation: str, **more: object) -> BenchModel:
    name = f"tree-{n_buses}x{n_steps}"
    return BenchModel(
        name=f"{name}/{formulation}",
        size=size,
        case=partial(lateral.read, name),
        warm_up=partial(lateral.read, "tree-8x2"),
        formulation=formulation,
        **more,  # type: ignore[arg-type]
    )


MODELS = (
    _tree(128, 5, "small", "lindistflow"),
    _tree(128, 5, "small", "nonlinear"),
    _tree(128, 24, "small", "lindistflow"),
    _tree(128, 24, "small", "soc", solver="clarabel", rivals=("cvxpy",), repeats=5),
    _tree(128, 24, "small", "nonlinear", solver="ipopt", rivals=("casadi",), repeats=5),
    _tree(128, 96, "medium", "soc", solver="clarabel"),
    _tree(1000, 5, "medium", "soc", solver="clarabel"),
    _tree(1000, 24, "medium", "lindistflow"),
    _tree(1000, 24, "medium", "soc", solver="clarabel", rivals=("cvxpy",), timeout_s=600.0),
    _tree(1000, 24, "large", "nonlinear", solver="ipopt", rivals=("casadi",), repeats=1, timeout_s=900.0),
    _tree(1000, 96, "large", "soc", solver="clarabel", phases=_WITHOUT_REPLAY, repeats=1, timeout_s=900.0),
    _tree(2500, 24, "large", "soc", solver="clarabel", phases=_WITHOUT_REPLAY, repeats=1, timeout_s=900.0),
    _tree(2500, 24, "large", "nonlinear", solver="ipopt", phases=_WITHOUT_REPLAY, repeats=1, timeout_s=1800.0),
    _tree(10000, 5, "large", "soc", solver="clarabel", phases=_WITHOUT_REPLAY, repeats=1, timeout_s=900.0),
)
