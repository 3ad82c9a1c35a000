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
    PointOption,
    ReplayOption,
    RootOption,
    SolverOption,
    StepHoursOption,
    StepsOption,
    TerminalOption,
    merged,
)
from lateral.cli.screen import note, pairs, print_json, table, working
from lateral.cli.serving import serve

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
    str | None,
    typer.Option("--algorithm", metavar="NAME", help="auto (default), enapp-priced, enapp, newton, admm or app."),
]
ExecutorOption = Annotated[
    str | None, typer.Option("--executor", metavar="NAME", help="serial (default), process, dask or helics.")
]
TolOption = Annotated[
    float | None, typer.Option("--tol", metavar="X", help="Residual at which the areas agree; absent: 1e-6.")
]
MaxRoundsOption = Annotated[
    int | None, typer.Option("--max-rounds", metavar="N", min=1, help="Rounds at most; absent: 300.")
]
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
    float | None, typer.Option("--penalty", metavar="X", help="Of newton, admm and app: penalty of being apart.")
]
MoreOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Any other option of the algorithm; may be given often."),
]
CentralOption = Annotated[
    bool | None,
    typer.Option("--central/--no-central", help="Solve the whole too, and say how far the areas are from it."),
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
KeyOption = Annotated[
    str | None, typer.Option("--key-file", metavar="FILE", help="Of helics: file with the key of the broker.")
]
EncryptionOption = Annotated[
    str | None, typer.Option("--encryption", metavar="FILE", help="Of helics: its encryption configuration.")
]
CheckpointOption = Annotated[
    str | None, typer.Option("--checkpoint", metavar="DIR", help="Folder that the run is kept in after each round.")
]
ResumeOption = Annotated[
    str | None, typer.Option("--resume", metavar="DIR", help="Go on with the run that is kept in a folder.")
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
    ctx: typer.Context,
    case: Annotated[
        str,
        typer.Argument(
            metavar="CASE",
            help="As for solve; or federation.toml, to coordinate areas that their owners serve.",
        ),
    ],
    algorithm: AlgorithmOption = None,
    areas: AreasOption = None,
    executor: ExecutorOption = None,
    tol: TolOption = None,
    max_rounds: MaxRoundsOption = None,
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
    point: PointOption = None,
    limits: LimitsOption = None,
    balanced: BalancedOption = False,
    central: CentralOption = None,
    replay: ReplayOption = None,
    checkpoint: CheckpointOption = None,
    resume: ResumeOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    tls: CertificatesOption = None,
    broker: BrokerOption = None,
    key_file: KeyOption = None,
    encryption: EncryptionOption = None,
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
    from lateral.cli import agreeing, areas_output
    from lateral.cli.folder import check_target
    from lateral.cli.loading import load

    if out is not None:
        check_target(Path(out))  # before the work, not after it
    patience = agreeing.patience(dead_s=dead_after, solve_s=solve_limit)
    book, going_on = agreeing.checkpoint(checkpoint, resume)
    federation = agreeing.federation_file(case)
    if federation is not None:
        agreeing.refuse_fixed(ctx)
        loaded = None
        found, tolerance = agreeing.coordinated(
            federation,
            broker=broker,
            key_file=key_file,
            encryption=encryption,
            patience=patience,
            checkpoint=book,
            resume=going_on,
        )
    else:
        method = agreeing.algorithm(
            algorithm, option, order=order, relax=relax, mixing=mixing, depth=depth, penalty=penalty
        )
        where = agreeing.executor(
            executor or "serial",
            workers=workers,
            scheduler=scheduler,
            tls=tls,
            broker=broker,
            key_file=key_file,
            encryption=encryption,
        )
        tolerance = agreeing.tolerance(tol)
        asked = agreeing.Asked(
            algorithm=method,
            executor=where,
            areas=areas,
            tolerance=tolerance,
            max_rounds=max_rounds or agreeing.MAX_ROUNDS,
            central=central is not False,
            faults=agreeing.faults(loss, seed),
            patience=patience,
            checkpoint=book,
            resume=going_on,
        )
        with working(f"reading {case} ..."):
            loaded = load(case, horizon=horizon, steps=steps, step_h=step_h, first=first, root=root, balanced=balanced)
        options = merged(
            loaded.options,
            formulation=formulation,
            objective=objective,
            solver=solver,
            terminal=terminal,
            loss_term=loss_term,
            point=point,
            limits=limits,
            replay=replay,
        )
        agreeing.say_unused(loaded.options)
        found = agreeing.agreed(loaded, options, asked)
    summary = areas_output.summary_of(found, loaded)
    if out is not None:
        with working(f"writing {out} ..."):
            areas_output.write_run(found, loaded, tolerance, Path(out), summary)
    if json:
        print_json(summary)
    else:
        table(*areas_output.rounds_table(found))
        pairs(areas_output.screen_rows(summary), title=f"{found.plan.name} in {len(found.plan.areas)} areas")
        if out is not None:
            note(f"wrote {out}")
    return OF_STATUS[found.status.word]


@app.command()
def cut(
    case: CaseArgument,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for a case folder per area.")],
    areas: AreasOption = None,
    algorithm: AlgorithmOption = None,
    tol: TolOption = None,
    max_rounds: MaxRoundsOption = None,
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
    horizon: HorizonOption = None,
    steps: StepsOption = None,
    step_h: StepHoursOption = None,
    first: FirstOption = 0,
    root: RootOption = None,
    json: JsonOption = False,
) -> int:
    """Cut a case into areas: a case folder for each owner, and federation.toml, which says how they are run."""
    from lateral.areas.federation import write_federation
    from lateral.areas.files import NAME, partition_of, write_cuts
    from lateral.checks import require
    from lateral.cli import agreeing, areas_output
    from lateral.cli.folder import check_target, fresh_folder
    from lateral.cli.loading import load

    check_target(Path(out))
    method = agreeing.algorithm(
        algorithm, option, order=order, relax=relax, mixing=mixing, depth=depth, penalty=penalty
    )
    with working(f"reading {case} ..."):
        loaded = load(case, horizon=horizon, steps=steps, step_h=step_h, first=first, root=root, balanced=balanced)
    options = merged(
        loaded.options,
        formulation=formulation,
        objective=objective,
        solver=solver,
        terminal=terminal,
        loss_term=loss_term,
        limits=limits,
    )
    agreeing.say_unused(loaded.options, "point", "replay")
    with working("cutting ..."):
        require(loaded.case, radial=True)
        partition = partition_of(loaded.case, areas)
    with working(f"writing {out} ..."), fresh_folder(Path(out)) as folder:
        write_federation(
            partition,
            folder,
            method,
            tolerance=agreeing.tolerance(tol),
            max_rounds=max_rounds or agreeing.MAX_ROUNDS,
            **{
                k: getattr(options, k)
                for k in ("formulation", "objective", "solver", "terminal", "loss_term", "limits")
            },
        )
        write_cuts(partition, folder / NAME)
    if json:
        print_json(areas_output.cut_data(partition, out))
    else:
        table(*areas_output.cut_table(partition), title=f"{loaded.case.name} in {len(partition.areas)} areas")
        note(f"wrote {out}: a folder for each owner, federation.toml for all of them")
    return Exit.OK


app.command()(serve)

__all__ = ["app"]
