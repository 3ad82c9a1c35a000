"""``lateral areas``: a feeder cut into areas that agree at their borders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lateral.cli.failures import OF_STATUS, Exit
from lateral.cli.options import (
    BalancedOption,
    CaseArgument,
    FirstOption,
    FormulationOption,
    HorizonOption,
    JsonOption,
    LimitsOption,
    LossTermOption,
    ObjectiveOption,
    OutOption,
    ReplayOption,
    RootOption,
    SolverOption,
    StepHoursOption,
    StepsOption,
    TerminalOption,
    merged,
)
from lateral.cli.screen import note, pairs, print_json, table, working

app = typer.Typer(
    help="A feeder cut into areas, each with a solver of its own, that exchange border values only.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AreasOption = Annotated[
    str | None,
    typer.Option(
        "--areas", metavar="FILE|N", help="areas.toml, or a number of areas; absent: the areas that the case names."
    ),
]
AlgorithmOption = Annotated[
    str, typer.Option("--algorithm", metavar="NAME", help="enapp-priced (default), enapp, admm or app.")
]
ExecutorOption = Annotated[
    str, typer.Option("--executor", metavar="NAME", help="serial (default), process, dask or helics.")
]
TolOption = Annotated[float, typer.Option("--tol", metavar="X", help="Residual at which the areas agree.")]
MaxRoundsOption = Annotated[int, typer.Option("--max-rounds", metavar="N", min=1, help="Rounds at most.")]
OrderOption = Annotated[
    str | None, typer.Option("--order", metavar="jacobi|sweep", help="All areas at once, or up to the root and down.")
]
RelaxOption = Annotated[
    str | None, typer.Option("--relax", metavar="published|none", help="Of enapp: mix the last rounds as published.")
]
MixingOption = Annotated[
    float | None, typer.Option("--mixing", metavar="X", help="Of enapp-priced: share of the new value in the next.")
]
DepthOption = Annotated[
    int | None, typer.Option("--depth", metavar="N", min=0, help="Of enapp-priced: rounds that acceleration looks at.")
]
PenaltyOption = Annotated[
    float | None, typer.Option("--penalty", metavar="X", help="Of admm and app: penalty of being apart.")
]
MoreOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Any other option of the algorithm; may be given often."),
]
CentralOption = Annotated[
    bool, typer.Option("--central/--no-central", help="Solve the whole too, and say how far the areas are from it.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Of process and dask: how many; absent: one per area.")
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Of dask: tcp://host:port or tls://host:port.")
]
CertificatesOption = Annotated[
    str | None,
    typer.Option("--tls", metavar="DIR", help="Of dask: folder with ca.pem, cert.pem and key.pem; all is encrypted."),
]
BrokerOption = Annotated[
    str | None, typer.Option("--broker", metavar="ADDRESS", help="Of helics: a broker that runs already.")
]
DeadOption = Annotated[
    float | None,
    typer.Option("--dead-after", metavar="S", min=0.0, help="Seconds after which a silent area is declared dead."),
]
SolveLimitOption = Annotated[
    float | None, typer.Option("--solve-limit", metavar="S", min=0.0, help="Seconds that an area has for one solve.")
]
LossOption = Annotated[
    float, typer.Option("--loss", metavar="P", help="Rehearse: lose messages with this probability.")
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="K", min=0, help="Of --loss: which messages.")]


@app.command()
def run(
    case: CaseArgument,
    algorithm: AlgorithmOption = "enapp-priced",
    areas: AreasOption = None,
    executor: ExecutorOption = "serial",
    tol: TolOption = 1e-6,
    max_rounds: MaxRoundsOption = 100,
    order: OrderOption = None,
    relax: RelaxOption = None,
    mixing: MixingOption = None,
    depth: DepthOption = None,
    penalty: PenaltyOption = None,
    option: MoreOption = None,
    formulation: FormulationOption = None,
    objective: ObjectiveOption = None,
    solver: SolverOption = None,
    terminal: TerminalOption = None,
    loss_term: LossTermOption = None,
    limits: LimitsOption = None,
    balanced: BalancedOption = False,
    central: CentralOption = True,
    replay: ReplayOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    tls: CertificatesOption = None,
    broker: BrokerOption = None,
    dead_after: DeadOption = None,
    solve_limit: SolveLimitOption = None,
    loss: LossOption = 0.0,
    seed: SeedOption = 0,
    horizon: HorizonOption = None,
    steps: StepsOption = None,
    step_h: StepHoursOption = None,
    first: FirstOption = 0,
    root: RootOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> int:
    """Cut a case into areas, solve them until they agree, and say how far that is from the optimum of the whole."""
    from lateral.areas.algorithms import BUILT_IN
    from lateral.areas.driver import Patience
    from lateral.cli import agreeing
    from lateral.cli.folder import check_target
    from lateral.cli.loading import load

    if out is not None:
        check_target(Path(out))  # before the work, not after it
    method = agreeing.algorithm(
        BUILT_IN, algorithm, option or [], order=order, relax=relax, mixing=mixing, depth=depth, penalty=penalty
    )
    where = agreeing.executor(executor, workers=workers, scheduler=scheduler, tls=tls, broker=broker)
    asked = agreeing.Asked(
        algorithm=method,
        executor=where,
        areas=areas,
        tolerance=agreeing.positive("--tol", tol),
        max_rounds=max_rounds,
        central=central,
        loss=loss,
        seed=seed,
        patience=Patience(
            dead_s=Patience.dead_s if dead_after is None else dead_after,
            solve_s=Patience.solve_s if solve_limit is None else agreeing.positive("--solve-limit", solve_limit),
        ),
    )
    with working(f"reading {case} ..."):
        loaded = load(case, horizon=horizon, steps=steps, step_h=step_h, first=first, root=root)
        loaded = loaded.to_balanced() if balanced else loaded
    options = merged(
        loaded.options,
        formulation=formulation,
        objective=objective,
        solver=solver,
        terminal=terminal,
        loss_term=loss_term,
        limits=limits,
        replay=replay,
    )
    agreeing.say_unused(loaded.options)
    found = agreeing.agreed(loaded, options, asked)
    summary = agreeing.summary_of(found, loaded)
    if out is not None:
        with working(f"writing {out} ..."):
            agreeing.write_run(found, loaded, asked, Path(out), summary)
    if json:
        print_json(summary)
    else:
        table(*agreeing.rounds_table(found), title="")
        pairs(agreeing.screen_rows(summary), title=f"{loaded.case.name} in {len(found.plan.areas)} areas")
        if out is not None:
            note(f"wrote {out}")
    return OF_STATUS[found.status.word]


@app.command()
def cut(
    case: CaseArgument,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for a case folder per area.")],
    areas: AreasOption = None,
    balanced: BalancedOption = False,
    horizon: HorizonOption = None,
    steps: StepsOption = None,
    step_h: StepHoursOption = None,
    first: FirstOption = 0,
    root: RootOption = None,
    json: JsonOption = False,
) -> int:
    """Cut a case into areas and write each as a case folder that can be handed to its owner."""
    from lateral.areas.files import partition_of, write_areas
    from lateral.cli import agreeing
    from lateral.cli.folder import check_target, fresh_folder
    from lateral.cli.loading import load

    check_target(Path(out))
    with working(f"reading {case} ..."):
        loaded = load(case, horizon=horizon, steps=steps, step_h=step_h, first=first, root=root)
        loaded = loaded.to_balanced() if balanced else loaded
    with working("cutting ..."):
        partition = partition_of(loaded.case, areas)
    with working(f"writing {out} ..."), fresh_folder(Path(out)) as folder:
        write_areas(partition, folder)
    if json:
        print_json(agreeing.cut_data(partition, out))
    else:
        table(*agreeing.cut_table(partition), title=f"{loaded.case.name} in {len(partition.areas)} areas")
        note(f"wrote {out}")
    return Exit.OK


__all__ = ["app"]
