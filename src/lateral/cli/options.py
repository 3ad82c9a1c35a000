"""Options of a solve: flags over the study file's table ``[solve]`` over the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from lateral.errors import CaseError, Fault, OptionError, did_you_mean

CaseArgument = Annotated[
    str, typer.Argument(metavar="CASE", help="Built-in case, case folder, study file (.toml) or OpenDSS master (.dss).")
]
OutOption = Annotated[str | None, typer.Option("--out", metavar="DIR", help="Folder to write to.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output, nothing else.")]
FormulationOption = Annotated[
    str | None,
    typer.Option(
        "--formulation", metavar="NAME", help="auto (an exact form, the default), lindistflow, soc, nonlinear, ..."
    ),
]
ObjectiveOption = Annotated[
    str | None, typer.Option("--objective", metavar="NAME", help="cost, loss, ..., or a sum such as cost+0.1*peak.")
]
SolverOption = Annotated[str | None, typer.Option("--solver", metavar="NAME", help="auto, highs, clarabel, ipopt, ...")]
TerminalOption = Annotated[
    str | None,
    typer.Option("--terminal", metavar="RULE", help="Stored energy at the end: equal, at-least, free or priced."),
]
LossTermOption = Annotated[
    str | None,
    typer.Option("--loss-term", metavar="on|off", help="Quadratic losses in the objective of linear formulations."),
]
PointOption = Annotated[
    str | None,
    typer.Option("--point", metavar="baseline|nominal", help="Operating point of lindist3flow and linearised."),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        "--rounds",
        metavar="N",
        min=1,
        help="Rounds of lindist3flow, each made at the power flow of the one before; of linearised at most so many.",
    ),
]
RecoverOption = Annotated[
    bool | None,
    typer.Option("--recover/--no-recover", help="Make an exact schedule of a relaxed one (soc, soc3, sdp)."),
]
VerifyOption = Annotated[
    bool | None, typer.Option("--verify/--no-verify", help="Solve it a second time with another solver, and compare.")
]
LimitsOption = Annotated[
    str | None, typer.Option("--limits", metavar="all|voltage|none", help="Which limits of the feeder hold.")
]
BalancedOption = Annotated[
    bool, typer.Option("--balanced", help="Take the balanced (positive-sequence) equivalent of a three-phase feeder.")
]
ReplayOption = Annotated[bool | None, typer.Option("--replay/--no-replay", help="Replay every step in OpenDSS.")]
ToleranceOption = Annotated[float | None, typer.Option("--tolerance", metavar="X", help="Tolerance of the solver.")]
IterationsOption = Annotated[int | None, typer.Option("--max-iterations", metavar="N", min=1, help="Iteration limit.")]
TimeOption = Annotated[
    float | None, typer.Option("--time-limit", metavar="S", min=0.0, help="Time limit of the solver, s.")
]
HorizonOption = Annotated[
    str | None,
    typer.Option("--horizon", metavar="KIND", help="Of a .dss master: snapshot (default), daily, yearly or duty."),
]
StepsOption = Annotated[
    int | None, typer.Option("--steps", metavar="N", min=1, help="Of a .dss master: number of steps.")
]
StepHoursOption = Annotated[
    float | None, typer.Option("--step-h", metavar="H", help="Of a .dss master: length of a step, h.")
]
FirstOption = Annotated[
    int, typer.Option("--first", metavar="K", min=0, help="Of a .dss master: first step of the shapes.")
]
RootOption = Annotated[
    str | None, typer.Option("--root", metavar="DIR", help="Of a .dss master: folder that its files may come from.")
]

#: Keys of ``[solve]`` in a study file, as flags are called, and the type of each.
KEYS: Mapping[str, type | tuple[type, ...]] = {
    "formulation": str,
    "objective": str,
    "solver": str,
    "terminal": str,
    "loss_term": (bool, str),
    "point": str,
    "limits": str,
    "rounds": int,
    "recover": bool,
    "verify": bool,
    "replay": bool,
    "tolerance": (float, int),
    "max_iterations": int,
    "time_limit_s": (float, int),
}


@dataclass(frozen=True, kw_only=True)
class SolveOptions:
    """What `lateral.solve` is asked for; see there."""

    formulation: str = "auto"
    objective: str = "cost"
    solver: str = "auto"
    terminal: str = "equal"
    loss_term: bool = True
    point: str = "baseline"
    limits: str = "all"
    rounds: int | None = None
    recover: bool = False
    verify: bool = False
    replay: bool = True
    tolerance: float | None = None
    max_iterations: int | None = None
    time_limit_s: float | None = None


def merged(study: Mapping[str, Any], **flags: Any) -> SolveOptions:
    """The options of a study with the flags that were given over them.

    Raises:
        CaseError: the study's table has a key that does not exist, or a value of the wrong type.
        OptionError: a flag's value does not exist.
    """
    faults = []
    for key, value in study.items():
        if key not in KEYS:
            found = f"the unknown key {key!r}"
            faults.append(
                Fault("STU-016 solve", f"solve.{key}", found, "an option of the solve", did_you_mean(key, list(KEYS)))
            )
        elif not isinstance(value, KEYS[key]) or (isinstance(value, bool) and bool not in _types(KEYS[key])):
            allowed = " or ".join(t.__name__ for t in _types(KEYS[key]))
            faults.append(Fault("STU-016 solve", f"solve.{key}", repr(value), allowed, "Correct the value."))
    if faults:
        raise CaseError(faults)
    values = {**study, **{k: v for k, v in flags.items() if v is not None}}
    if isinstance(values.get("loss_term"), str):
        values["loss_term"] = _on_off(values["loss_term"])
    return dataclasses.replace(SolveOptions(), **values)


def _types(kind: type | tuple[type, ...]) -> tuple[type, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def _on_off(text: str) -> bool:
    if text not in ("on", "off"):
        message = f"the loss term is on or off, not {text!r}"
        raise OptionError(message)
    return text == "on"


__all__ = ["KEYS", "SolveOptions", "merged"]
