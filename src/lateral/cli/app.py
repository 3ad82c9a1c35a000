"""The commands. Each one imports what it needs when it runs, so that ``lateral --help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lateral.cli import areas
from lateral.cli.failures import OF_STATUS, Exit, as_data
from lateral.cli.options import (
    KEYS,
    BalancedOption,
    CaseArgument,
    FirstOption,
    FormulationOption,
    HorizonOption,
    IterationsOption,
    JsonOption,
    LimitsOption,
    LossTermOption,
    ObjectiveOption,
    OutOption,
    PointOption,
    RecoverOption,
    ReplayOption,
    RootOption,
    RoundsOption,
    SolverOption,
    StepHoursOption,
    StepsOption,
    TerminalOption,
    TimeOption,
    ToleranceOption,
    VerifyOption,
    merged,
)
from lateral.cli.powerflow import powerflow
from lateral.cli.screen import count, note, number, pairs, print_json, table, working

app = typer.Typer(
    name="lateral",
    help="Optimal operation of distribution feeders: multi-period optimal power flow, proved in OpenDSS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(areas.app, name="areas")


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"lateral {version('lateral')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Optimal operation of distribution feeders: multi-period optimal power flow, proved in OpenDSS."""


@app.command()
def solve(
    case: CaseArgument,
    formulation: FormulationOption = None,
    objective: ObjectiveOption = None,
    solver: SolverOption = None,
    terminal: TerminalOption = None,
    loss_term: LossTermOption = None,
    point: PointOption = None,
    rounds: RoundsOption = None,
    recover: RecoverOption = None,
    limits: LimitsOption = None,
    balanced: BalancedOption = False,
    verify: VerifyOption = None,
    replay: ReplayOption = None,
    tolerance: ToleranceOption = None,
    max_iterations: IterationsOption = None,
    time_limit: TimeOption = None,
    horizon: HorizonOption = None,
    steps: StepsOption = None,
    step_h: StepHoursOption = None,
    first: FirstOption = 0,
    root: RootOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> int:
    """Solve a case, replay the schedule in OpenDSS, and say what it is worth."""
    from lateral.cli.folder import check_target
    from lateral.cli.loading import load
    from lateral.cli.running import solved, summary_rows

    if out is not None:
        check_target(Path(out))  # before the work, not after it
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
        rounds=rounds,
        recover=recover,
        verify=verify,
        limits=limits,
        replay=replay,
        tolerance=tolerance,
        max_iterations=max_iterations,
        time_limit_s=time_limit,
    )
    result = solved(loaded, options)
    summary = result.summary()
    if loaded.report is not None:
        summary["import"] = loaded.report.summary
    if out is not None:
        with working(f"writing {out} ..."):
            from lateral.cli.writing import write_result

            write_result(result, Path(out), summary, report=loaded.report)
    if json:
        print_json(summary)
    else:
        pairs(summary_rows(summary), title=f"{result.case.name}")
        if out is not None:
            note(f"wrote {out}")
    return OF_STATUS[result.status.word]


app.command()(powerflow)


@app.command()
def check(
    case: CaseArgument,
    radial: Annotated[bool, typer.Option("--radial/--meshed", help="Whether loops are faults.")] = True,
    json: JsonOption = False,
) -> int:
    """List every fault of a case; nothing is solved."""
    from lateral.checks import check as check_case
    from lateral.cli.loading import load
    from lateral.errors import CaseError

    with working(f"reading {case} ..."):
        loaded = load(case)
        faults = check_case(loaded.case, radial=radial)
    try:
        merged(loaded.options)
    except CaseError as error:  # the options of a study are part of it
        faults = (*faults, *error.faults)
    if json:
        print_json(as_data(faults))
    elif faults:
        table(
            ("code", "element", "message"),
            [(f.code, f.element, f.message) for f in faults],
            title=f"{case}: {count(len(faults), 'fault')}",
        )
    else:
        note(f"{case}: no faults{', but it is not all that its files hold' if loaded.case.warnings else ''}")
    return Exit.BAD_INPUT if faults else Exit.OK


@app.command("import")
def import_(
    master: Annotated[str, typer.Argument(metavar="MASTER.dss", help="OpenDSS master file; it is not trusted.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Case folder to write.")],
    horizon: HorizonOption = None,
    steps: StepsOption = None,
    step_h: StepHoursOption = None,
    first: FirstOption = 0,
    root: RootOption = None,
    json: JsonOption = False,
) -> int:
    """Read an OpenDSS master into a case folder, and report what became of every object."""
    from lateral.checks import check as check_case
    from lateral.cli.folder import check_target, fresh_folder
    from lateral.cli.loading import load
    from lateral.cli.screen import console
    from lateral.errors import CaseError, Fault
    from lateral.io.opendss.severity import NOTES as WARNED

    check_target(Path(out))
    if Path(master).suffix.lower() != ".dss" or not Path(master).is_file():
        found = "a file of another kind" if Path(master).exists() else "no such file"
        raise CaseError([Fault("TAB-001 no case", master, found, "an OpenDSS master (.dss)", "Check the path.")])
    with working(f"reading {master} ..."):
        loaded = load(master, horizon=horizon, steps=steps, step_h=step_h, first=first, root=root)
    report = loaded.report
    if report is None:  # a master always has one
        message = "the reader gave no import report"
        raise RuntimeError(message)
    with working(f"writing {out} ..."), fresh_folder(Path(out)) as folder:
        from lateral.io import write_folder

        write_folder(loaded.case, folder)
        (folder / "import_report.json").write_text(report.to_json(), encoding="utf-8")
        faults = check_case(loaded.case)
    if json:
        print_json(
            {
                "status": "ok",
                "out": out,
                "seconds": {"read": loaded.seconds},
                "import": report.as_dict(),
                "import_warnings": list(loaded.case.warnings),
                "faults": as_data(faults),
            }
        )
    else:
        console().print(report.table())
        for entry in (n for n in report.notes if n.code not in WARNED):
            note(f"[{entry.code}] {entry.text}{f' ({entry.where})' if entry.where else ''}")
        note(f"wrote {out}; import_report.json lists every object")
        if faults:
            codes = ", ".join(dict.fromkeys(f.code.split()[0] for f in faults))
            note(f"{count(len(faults), 'fault')} ({codes}) for which it is not solved: lateral check {out}")
    return Exit.OK


@app.command()
def export(
    case: CaseArgument,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for master.dss and its parts.")],
    solved: Annotated[bool, typer.Option("--solved", help="Solve first; set-points become load shapes.")] = False,
    der: Annotated[
        str, typer.Option("--der", metavar="load|native", help="PV, batteries as loads (exact) or PVSystem, Storage.")
    ] = "load",
    formulation: FormulationOption = None,
    objective: ObjectiveOption = None,
    solver: SolverOption = None,
    terminal: TerminalOption = None,
    json: JsonOption = False,
) -> int:
    """Write a case, or its solved schedule, as OpenDSS files."""
    from lateral.cli.loading import faults_of, load
    from lateral.cli.running import solved as solve_loaded
    from lateral.errors import OptionError
    from lateral.io.opendss.write import write_opendss
    from lateral.opf import dispatch_of

    if der not in ("load", "native"):
        message = f"--der is load or native, not {der!r}"
        raise OptionError(message)
    with working(f"reading {case} ..."):
        loaded = load(case)
        faults_of(loaded)
    dispatch, code, status = None, Exit.OK, "ok"
    if solved:
        options = merged(
            loaded.options,
            formulation=formulation,
            objective=objective,
            solver=solver,
            terminal=terminal,
            replay=False,
        )
        result = solve_loaded(loaded, options)
        code, status = OF_STATUS[result.status.word], result.status.word
        if not result.ok:
            if json:
                print_json(
                    {
                        "status": status,
                        "status_text": result.status_text,
                        "faults": [],
                        "import_warnings": list(loaded.case.warnings),
                    }
                )
            else:
                note(f"{result.status_text}. Nothing was written")
            return code
        dispatch = dispatch_of(result)
    with working(f"writing {out} ..."):
        master = write_opendss(loaded.case, Path(out), dispatch=dispatch, der="native" if der == "native" else "load")
    if json:
        print_json(
            {
                "status": status,
                "master": str(master),
                "case_hash": loaded.case.hash,
                "import_warnings": list(loaded.case.warnings),
            }
        )
    else:
        note(f"wrote {master}")
    return code


@app.command()
def replay(
    case: CaseArgument,
    schedule: Annotated[
        str | None, typer.Option("--schedule", metavar="FILE", help="schedule.csv of a solve; absent: no control.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Run a schedule, or the day without any control, step by step in OpenDSS."""
    import numpy as np

    from lateral.cli.loading import faults_of, load
    from lateral.cli.schedules import read_schedule
    from lateral.cli.supply import left_out, supply_range
    from lateral.replay import replay as run_replay
    from lateral.results.in_replay import counted

    with working(f"reading {case} ..."):
        loaded = load(case)
        faults_of(loaded)
        dispatch = None if schedule is None else read_schedule(Path(schedule), loaded.case)
    with working(f"replaying {loaded.case.horizon.n_steps} steps in OpenDSS ..."):
        run = run_replay(loaded.case, dispatch)
    found = run.summary()
    status = "ok" if run.all_converged else "error"
    dead = set(run.dead)
    fed = np.array([node not in dead for node in run.nodes])
    summary: dict[str, Any] = {
        "case": loaded.case.name,
        "case_hash": loaded.case.hash,
        "status": status,
        "status_text": "every step converged"
        if run.all_converged
        else f"{found['n_not_converged']} steps did not converge",
        "schedule": schedule,
        "n_steps": loaded.case.horizon.n_steps,
        **found,
        **supply_range(run.nodes, run.v_pu, run.converged, fed),
    }
    if json:
        print_json({**summary, "import_warnings": list(loaded.case.warnings)})
    else:
        units = {"cost": "$", "seconds": "s"}
        plain = {k: x for k, x in summary.items() if x is not None and not k.endswith("_nodes") and k != "violations"}
        shown = [(k, number(x, units.get(k, ""), 4) if isinstance(x, float) else str(x)) for k, x in plain.items()]
        if found["violations"]:
            shown.append(("violations", counted(found["violations"])))
        pairs([*shown, *(("", text) for text in left_out(summary))], title=f"{loaded.case.name} in OpenDSS")
    return Exit.OK if run.all_converged else Exit.ERROR


@app.command()
def compare(
    case: CaseArgument,
    formulation: Annotated[
        list[str] | None,
        typer.Option("--formulation", metavar="NAME", help="May be given several times; absent: all there are."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="PARAM=V1,V2",
            help="case, steps, resample, load_scale, pv_share or battery_share; may be given several times.",
        ),
    ] = None,
    objective: ObjectiveOption = None,
    terminal: TerminalOption = None,
    solver: SolverOption = None,
    loss_term: LossTermOption = None,
    limits: LimitsOption = None,
    balanced: BalancedOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> int:
    """Solve a case with several formulations and replay every schedule in OpenDSS."""
    from lateral import studies
    from lateral.cli import comparing
    from lateral.cli.folder import check_target
    from lateral.cli.loading import load
    from lateral.cli.running import name_unused

    if out is not None:
        check_target(Path(out))
    axes, more = comparing.parse_sweep(sweep or [])
    with working(f"reading {case} ..."):
        names = (case, *(name for name in more if name != case))
        loaded, *others = [load(name, balanced=balanced) for name in names]
    options = merged(
        loaded.options, objective=objective, terminal=terminal, solver=solver, loss_term=loss_term, limits=limits
    )
    passed = {name: getattr(options, name) for name in comparing.PASSED}
    name_unused(loaded.options, "compare does", *(key for key in KEYS if key not in comparing.PASSED))
    title = loaded.case.name
    if axes or others:
        with working("comparing ..."):
            frame = studies.sweep(
                [one.case for one in (loaded, *others)], formulation, over=axes, progress=note, **passed
            )
        data = {"case": title, "objective_name": options.objective, "rows": studies.plain_rows(frame)}
    else:
        with working(f"comparing formulations on {title} ..."):
            found = studies.compare(loaded.case, formulation, **passed)
        frame, data = found.table, found.to_dict()
    status = comparing.outcome(frame)
    left_out = [line for one in (loaded, *others) for line in one.case.warnings]
    data = {"status": status, **data, "import_warnings": left_out}
    if out is not None:
        comparing.write(frame, data, title, Path(out))
    if json:
        print_json(data)
    else:
        comparing.show(frame, title, options.objective)
        for row in frame[frame["reason"] != ""].to_dict("records"):
            note(f"{row['formulation']}: {row['status']}: {row['reason']}")
        if out is not None:
            note(f"wrote {out}")
    return comparing.exit_code(status)


@app.command()
def report(
    case: CaseArgument,
    out: Annotated[str, typer.Option("--out", metavar="FILE.html", help="Page to write.")],
    formulation: FormulationOption = None,
    objective: ObjectiveOption = None,
    solver: SolverOption = None,
    terminal: TerminalOption = None,
    replay: ReplayOption = None,
    json: JsonOption = False,
) -> int:
    """Solve a case and write its report, one offline page."""
    from lateral.cli.loading import load
    from lateral.cli.running import solved
    from lateral.errors import OptionError
    from lateral.report import write_report

    if Path(out).is_dir():
        message = f"{out} is a folder, not a file; nothing was written"
        raise OptionError(message)
    with working(f"reading {case} ..."):
        loaded = load(case)
    options = merged(
        loaded.options,
        formulation=formulation,
        objective=objective,
        solver=solver,
        terminal=terminal,
        replay=replay,
    )
    result = solved(loaded, options)
    with working(f"writing {out} ..."):
        write_report(result, Path(out), import_report=loaded.report)
    if json:
        print_json(
            {
                "status": result.status.word,
                "status_text": result.status_text,
                "out": out,
                "import_warnings": list(loaded.case.warnings),
            }
        )
    else:
        note(f"{result.status_text}. Wrote {out}")
    return OF_STATUS[result.status.word]


@app.command()
def cases(json: JsonOption = False) -> int:
    """List the built-in cases."""
    from lateral.io import builtin

    found = builtin.describe()
    if json:
        print_json([{"name": d.name, "text": d.text, "n_buses": d.n_buses, "n_steps": d.n_steps} for d in found])
    else:
        rows = [(d.name, str(d.n_buses), str(d.n_steps), d.text) for d in found]
        table(("case", "buses", "steps", "what it is"), rows)
        note("tree-NxT has any number N of buses and T of steps")
    return Exit.OK


@app.command()
def schema(what: Annotated[str, typer.Argument(metavar="case|study", help="Which file.")]) -> int:
    """Print the JSON Schema of case.toml or of a study file."""
    from lateral.errors import OptionError, did_you_mean
    from lateral.io.schema_json import case_schema, study_schema

    known = {"case": case_schema, "study": study_schema}
    if what not in known:
        message = f"there is no schema {what!r}. {did_you_mean(what, list(known))}"
        raise OptionError(message)
    print_json(known[what]())
    return Exit.OK


__all__ = ["app"]
