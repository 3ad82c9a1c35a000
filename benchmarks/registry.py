"""What is measured: models and rivals, found in their folders."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

from benchmarks import models, rivals
from lateral.case import Case

#: Sizes, each with the smaller ones.
SIZES = ("small", "medium", "large")
#: The phases of lateral, in order.
PHASES = ("read", "build", "solve", "result", "resolve", "replay")


@dataclass(frozen=True, kw_only=True)
class BenchModel:
    """One problem that is measured.

    Attributes:
        name: name in tables and on the command line.
        size: ``small``, ``medium`` or ``large``.
        case: makes the case; its time is the phase ``read``.
        warm_up: a tiny case of the same kind, run before the clock starts, so that imports are not measured.
        formulation: name of the formulation.
        solver: ``auto`` or the name of the solver.
        limits: see `lateral.build`.
        phases: the phases to run, of `PHASES`.
        rivals: names of the rivals that solve the same problem.
        repeats: runs, each in a process of its own; the median is shown.
        timeout_s: wall time limit of one run.
        available: whether it can run here (a feeder that is not part of the package may be missing).
    """

    name: str
    size: str
    case: Callable[[], Case]
    warm_up: Callable[[], Case]
    formulation: str
    solver: str = "auto"
    limits: str = "all"
    phases: tuple[str, ...] = PHASES
    rivals: tuple[str, ...] = ()
    repeats: int = 3
    timeout_s: float = 300.0
    available: Callable[[], bool] = lambda: True

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            message = f"model {self.name!r}: there is no size {self.size!r}; sizes are {SIZES}"
            raise ValueError(message)
        unknown = set(self.phases) - set(PHASES)
        if unknown:
            message = f"model {self.name!r}: there are no phases {sorted(unknown)}; phases are {PHASES}"
            raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class RivalRun:
    """What one rival did, without its times.

    Attributes:
        objective: in $, as lateral's ``result.objective``.
        status: the rival's word.
        iterations: of its solver.
        parts: wall seconds that the stack itself reports (compilation, for example).
    """

    objective: float
    status: str
    iterations: int
    parts: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another stack on the same problem.

    Attributes:
        name: name in tables.
        formulation: the formulation of lateral that it repeats.
        engine: ``clarabel`` or ``ipopt``: the solver whose own time is taken off.
        run: takes the numbers of the problem (`benchmarks.balanced.Balanced`), builds and solves.
        needs: packages that must be installed.
    """

    name: str
    formulation: str
    engine: str
    run: Callable[..., RivalRun]
    needs: tuple[str, ...]


def all_models() -> dict[str, BenchModel]:
    """Every model, by name, small ones first."""
    found = {m.name: m for module in _modules(models) for m in module.MODELS}
    return dict(sorted(found.items(), key=lambda item: SIZES.index(item[1].size)))


def all_rivals() -> dict[str, Rival]:
    """Every rival, by name."""
    return {module.RIVAL.name: module.RIVAL for module in _modules(rivals)}


def up_to(size: str) -> list[BenchModel]:
    """The models of a size and of the smaller ones."""
    return [m for m in all_models().values() if SIZES.index(m.size) <= SIZES.index(size)]


def _modules(package: ModuleType) -> list[ModuleType]:
    return [
        importlib.import_module(f"{package.__name__}.{info.name}") for info in pkgutil.iter_modules(package.__path__)
    ]
