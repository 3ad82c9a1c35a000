"""The set: feeders that are cut into areas, and the algorithms that they are solved with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import lateral
from benchmarks.models.ieee8500 import MASTER, with_ders
from benchmarks.models.three_phase import day
from benchmarks.registry import SIZES
from lateral.areas.algorithms import Admm, Algorithm, App, Auto, Enapp, EnappPriced, Newton
from lateral.areas.divide import divide
from lateral.areas.partition import Partition, cut_by_buses
from lateral.case import Case


@dataclass(frozen=True, kw_only=True)
class Method:
    """An algorithm with its options, and how long it may take.

    Attributes:
        algorithm: the algorithm.
        tolerance: residual at which the areas agree.
        max_rounds: rounds after which a row ends as a limit.
    """

    algorithm: Algorithm
    tolerance: float = 1e-6
    max_rounds: int = 60


#: The penalties that `admm` and `app` are tried with.
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
#: Every algorithm with the options that it has by itself, and under other penalties.
METHODS: Mapping[str, Method] = {
    "auto": Method(algorithm=Auto(), max_rounds=200),
    "enapp-priced": Method(algorithm=EnappPriced()),
    "enapp": Method(algorithm=Enapp()),
    "enapp-sweep": Method(algorithm=Enapp(order="sweep")),
    "enapp-priced-jacobi": Method(algorithm=EnappPriced(order="jacobi")),
    "admm": Method(algorithm=Admm(), max_rounds=300),
    "newton": Method(algorithm=Newton(), max_rounds=100),
    "app": Method(algorithm=App(), max_rounds=300),
    **{f"admm-{p:g}": Method(algorithm=Admm(penalty=p), max_rounds=300) for p in PENALTIES},
    **{f"app-{p:g}": Method(algorithm=App(penalty=p), max_rounds=300) for p in PENALTIES},
}
#: Those that are run where a feeder does not say otherwise.
USUAL = ("enapp-priced", "enapp", "enapp-sweep", "enapp-priced-jacobi", "admm", "app")
#: Not algorithms: the whole feeder, and its largest area solved once, each alone in a process (time and memory).
ALONE = ("central", "largest-area")
FIRST = ("enapp-priced", "enapp", "enapp-sweep")


@dataclass(frozen=True, kw_only=True)
class CutModel:
    """One feeder, cut.

    Attributes:
        name: name in tables and on the command line.
        size: ``small`` (seconds), ``medium`` or ``large`` (minutes).
        case: makes the case.
        areas: number of areas for `divide`; 0 for the areas that the case names.
        formulation: name of the formulation.
        objective: name of the objective.
        methods: names of `METHODS` to run.
        limits: see `lateral.build`.
        replay: run the schedules in OpenDSS.
        cpu_s: CPU time limit of one row.
        available: whether it can run here (a feeder that is not part of the package may be missing).
    """

    name: str
    size: str
    case: Callable[[], Case]
    areas: int
    formulation: str
    objective: str = "cost"
    methods: tuple[str, ...] = USUAL
    limits: str = "all"
    replay: bool = True
    cpu_s: int = 300
    available: Callable[[], bool] = lambda: True

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            message = f"{self.name!r}: there is no size {self.size!r}; sizes are {SIZES}"
            raise ValueError(message)
        unknown = set(self.methods) - set(METHODS)
        if unknown:
            message = f"{self.name!r}: there are no algorithms {sorted(unknown)}; there are {', '.join(METHODS)}"
            raise ValueError(message)

    @property
    def alone(self) -> tuple[str, ...]:
        """What is run beside the algorithms; an area of `lindist3flow` has no model before the areas found a point."""
        return ALONE if self.formulation != "lindist3flow" else ("central",)

    def cut(self) -> Partition:
        """The areas."""
        case = self.case()
        return divide(case, self.areas) if self.areas else cut_by_buses(case)


def _read(name: str) -> Callable[[], Case]:
    return partial(lateral.read, name)


def _divided(name: str, formulation: str, size: str, numbers: tuple[int, ...]) -> list[CutModel]:
    return [
        CutModel(
            name=f"{name}/{formulation}/{n}",
            size=size,
            case=_read(name),
            areas=n,
            formulation=formulation,
            methods=FIRST if n == 4 else ("enapp-priced",),
        )
        for n in numbers
    ]


def _three_phase(n_steps: int, n: int, size: str) -> CutModel:
    return CutModel(
        name=f"ieee123-{n_steps}/lindist3flow/{n}",
        size=size,
        case=partial(day, "ieee123", n_steps),
        areas=n,
        formulation="lindist3flow",
        methods=FIRST,
    )


def _ieee8500(n: int) -> CutModel:
    return CutModel(
        name=f"ieee8500-24/lindist3flow/{n}",
        size="large",
        case=partial(with_ders, 24),
        areas=n,
        formulation="lindist3flow",
        methods=("enapp-priced",),
        limits="voltage",
        replay=False,
        available=MASTER.is_file,
    )


def _exact(n_buses: int, n: int) -> CutModel:
    """The exact model at sizes where one interior-point solve of the whole is slow."""
    return CutModel(
        name=f"tree-{n_buses}x24/nonlinear/{n}",
        size="large",
        case=_read(f"tree-{n_buses}x24"),
        areas=n,
        formulation="nonlinear",
        methods=("enapp-priced",),
        replay=False,
    )


def _large(n: int) -> CutModel:
    return CutModel(
        name=f"tree-10000x24/lindistflow/{n}",
        size="large",
        case=_read("tree-10000x24"),
        areas=n,
        formulation="lindistflow",
        methods=("enapp-priced", "enapp") if n == 4 else ("enapp-priced",),
        replay=False,
    )


_MODELS = [
    CutModel(
        name="case33bw-areas/nonlinear",
        size="small",
        case=_read("case33bw-areas"),
        areas=0,
        formulation="nonlinear",
        objective="loss",
    ),
    CutModel(name="ieee123-t5/nonlinear", size="small", case=_read("ieee123-t5"), areas=0, formulation="nonlinear"),
    CutModel(
        name="ieee123-t24/nonlinear",
        size="medium",
        case=_read("ieee123-t24"),
        areas=0,
        formulation="nonlinear",
        methods=FIRST,
    ),
    CutModel(
        name="ieee123-t24/lindistflow",
        size="small",
        case=_read("ieee123-t24"),
        areas=0,
        formulation="lindistflow",
        methods=FIRST,
    ),
    *_divided("ieee123-t24", "lindistflow", "small", (2, 8)),
    _three_phase(24, 4, "medium"),
    *_divided("tree-1000x24", "lindistflow", "medium", (2, 4, 8)),
    _exact(1000, 4),
    _exact(2500, 8),
    *(_large(n) for n in (2, 4, 8)),
    _ieee8500(4),
]
#: Every feeder, by name, small ones first.
MODELS: Mapping[str, CutModel] = {m.name: m for m in sorted(_MODELS, key=lambda m: SIZES.index(m.size))}

__all__ = ["ALONE", "FIRST", "METHODS", "MODELS", "CutModel", "Method"]
