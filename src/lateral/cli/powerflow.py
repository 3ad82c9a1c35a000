"""``lateral powerflow``: every step of a case without control, and the same in OpenDSS."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lateral.cli.failures import Exit
from lateral.cli.options import (
    BalancedOption,
    CaseArgument,
    FirstOption,
    HorizonOption,
    JsonOption,
    OutOption,
    ReplayOption,
    RootOption,
    StepHoursOption,
    StepsOption,
    merged,
)
from lateral.cli.screen import count, note, number, pairs, print_json, to_json, working
from lateral.cli.supply import left_out, supply_range

if TYPE_CHECKING:
    from lateral.case import Case
    from lateral.cli.loading import Loaded
    from lateral.errors import Fault
    from lateral.network.powerflow import PowerFlow
    from lateral.replay.replay import Replay

MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        help="auto (default: the fixed point, Newton where it does not settle), fixed-point, newton or sweep.",
    ),
]


def powerflow(
    case: CaseArgument,
    method: MethodOption = "auto",
    balanced: BalancedOption = False,
    replay: ReplayOption = None,
    horizon: HorizonOption = None,
    steps: StepsOption = None,
    step_h: StepHoursOption = None,
    first: FirstOption = 0,
    root: RootOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> int:
    """Solve the AC power flow of a case without control, every step, and compare it with OpenDSS."""
    from lateral.baseline import power_flow
    from lateral.cli.folder import check_target
    from lateral.cli.loading import faults_of, load
    from lateral.errors import OptionError, did_you_mean
    from lateral.network.powerflow import CHOICES

    if method not in CHOICES:  # before the reading
        message = f"there is no power flow method {method!r}. {did_you_mean(method, CHOICES)}"
        raise OptionError(message)
    if out is not None:
        check_target(Path(out))
    with working(f"reading {case} ..."):
        loaded = load(case, horizon=horizon, steps=steps, step_h=step_h, first=first, root=root, balanced=balanced)
        options = merged(loaded.options, replay=replay)
        begin = time.perf_counter()
        faults = faults_of(loaded)
    seconds = {"read": loaded.seconds, "check": time.perf_counter() - begin}
    n_steps = loaded.case.horizon.n_steps
    with working(f"solving {count(n_steps, 'step')} ..."):
        begin = time.perf_counter()
        flow = power_flow(loaded.case, method=method)
        seconds["solve"] = time.perf_counter() - begin
    run = None
    if options.replay:
        with working(f"replaying {count(n_steps, 'step')} in OpenDSS ..."):
            begin = time.perf_counter()
            run = _replayed(loaded.case, flow)
            seconds["replay"] = time.perf_counter() - begin
    seconds["total"] = sum(seconds.values())
    summary = flow_summary(loaded, flow, method, run, seconds, faults)
    if out is not None:
        with working(f"writing {out} ..."):
            _write(loaded, flow, Path(out), summary)
    if json:
        print_json(summary)
    else:
        pairs(_rows(summary), title=loaded.case.name)
        for fault in faults:
            note(str(fault))
        if out is not None:
            note(f"wrote {out}")
    return Exit.OK if flow.all_converged else Exit.LIMIT


def _replayed(case: Case, flow: PowerFlow) -> Replay:
    """The same steps in OpenDSS at the same taps; steps that did not converge here are not compared."""
    import numpy as np

    from lateral.replay import replay as run_replay
    from lateral.replay.replay import Prediction

    ok = flow.converged
    predicted = Prediction(
        nodes=flow.index.nodes,
        v_pu=np.where(ok, flow.vmag_pu, np.nan),
        p_source_kw=np.where(ok, flow.source_kva.real, np.nan),
        q_source_kvar=np.where(ok, flow.source_kva.imag, np.nan),
        losses_kw=np.where(ok, flow.losses_kw, np.nan),
    )
    return run_replay(case, predicted=predicted)


def flow_summary(
    loaded: Loaded,
    flow: PowerFlow,
    method: str,
    run: Replay | None,
    seconds: dict[str, float],
    faults: tuple[Fault, ...] = (),
) -> dict[str, Any]:
    """The numbers of a power flow as plain data; totals are null where a step did not converge."""
    import numpy as np

    from lateral.results.result import versions

    case = loaded.case
    hours = case.horizon.hours
    ok = flow.all_converged
    failed = np.flatnonzero(~flow.converged)
    supply = supply_range(flow.index.nodes, flow.vmag_pu, flow.converged, flow.energized)
    p, q = flow.source_kva.real, flow.source_kva.imag
    words = "every step converged" if ok else f"{failed.size} of {flow.converged.size} steps did not converge"
    summary: dict[str, Any] = {
        "case": case.name,
        "status": "converged" if ok else "not_converged",
        "status_text": words,
        "converged": ok,
        "not_converged": failed.tolist(),
        "method": method,
        "methods": dict(Counter(flow.methods)),
        "n_buses": len(case.feeder.buses),
        "n_nodes": len(flow.index),
        **{k: supply[k] for k in ("n_dead_nodes", "dead_nodes", "n_low_nodes", "low_nodes")},
        "n_steps": case.horizon.n_steps,
        "iterations": int(flow.iterations.max(initial=0)),
        "residual": {
            "change_pu": float(flow.change_pu.max(initial=0.0)),
            "mismatch_kva": float(flow.mismatch_kva.max(initial=0.0)),
        },
        "losses_kwh": float(flow.losses_kw @ hours) if ok else None,
        "energy_import_kwh": float(np.maximum(p, 0.0) @ hours) if ok else None,
        "energy_export_kwh": float(np.maximum(-p, 0.0) @ hours) if ok else None,
        "source": {
            "p_max_kw": float(p.max()) if ok else None,
            "p_min_kw": float(p.min()) if ok else None,
            "q_max_kvar": float(q.max()) if ok else None,
            "q_min_kvar": float(q.min()) if ok else None,
        },
        "v_min_pu": supply["v_min_pu"],
        "v_max_pu": supply["v_max_pu"],
        "seconds": {k: round(v, 6) for k, v in seconds.items()},
        "replay": None if run is None else run.summary(),
        "faults": [f.as_dict() for f in faults],
        "import_warnings": list(case.warnings),
        "case_hash": case.hash,
        "versions": versions(),
    }
    if loaded.report is not None:
        summary["import"] = loaded.report.summary
    return summary


def _write(loaded: Loaded, flow: PowerFlow, target: Path, summary: dict[str, Any]) -> None:
    """summary.json and tables/: voltages of every node, and totals of every step; whole or not at all."""
    import numpy as np
    import pandas as pd

    from lateral.cli.folder import fresh_folder
    from lateral.cli.writing import write_frames

    times = [t.isoformat() for t in loaded.case.horizon.times]
    names = [f"{bus}.{conductor}" for bus, conductor in flow.index.nodes]
    tables = {
        "totals": pd.DataFrame(
            {
                "time": times,
                "step_h": loaded.case.horizon.step_h,
                "converged": flow.converged,
                "method": flow.methods,
                "iterations": flow.iterations,
                "change_pu": flow.change_pu,
                "mismatch_kva": flow.mismatch_kva,
                "p_source_kw": np.where(flow.converged, flow.source_kva.real, np.nan),
                "q_source_kvar": np.where(flow.converged, flow.source_kva.imag, np.nan),
                "losses_kw": np.where(flow.converged, flow.losses_kw, np.nan),
            }
        )
    }
    for name, values in (("bus.vmag", flow.vmag_pu), ("bus.vang_deg", np.angle(flow.v_pu, deg=True))):
        frame = pd.DataFrame(np.where(flow.converged, values, np.nan).T, columns=names)
        frame.insert(0, "time", times, allow_duplicates=True)
        tables[name] = frame
    with fresh_folder(target) as folder:
        (folder / "summary.json").write_text(to_json(summary) + "\n", encoding="utf-8")
        if loaded.report is not None:
            (folder / "import_report.json").write_text(loaded.report.to_json(), encoding="utf-8")
        (folder / "tables").mkdir()
        write_frames(tables, folder / "tables")


def _rows(s: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary for the screen."""
    from lateral.results.in_replay import counted

    source, residual = s["source"], s["residual"]
    methods = ", ".join(f"{name} {n:,}" for name, n in s["methods"].items())
    rows = [
        ("status", s["status_text"]),
        ("feeder", f"{s['n_buses']:,} buses, {s['n_nodes']:,} nodes, {count(s['n_steps'], 'step')}"),
        ("method", f"{s['method']}; steps by {methods}; {s['iterations']} iterations at most"),
        ("residual", f"voltage {number(residual['change_pu'])} pu, power {number(residual['mismatch_kva'])} kVA"),
        ("voltage", f"{number(s['v_min_pu'], digits=4)} to {number(s['v_max_pu'], digits=4)} pu"),
        *(("", text) for text in left_out(s)),
        (
            "source",
            f"{number(source['p_min_kw'])} to {number(source['p_max_kw'])} kW, "
            f"{number(source['q_min_kvar'])} to {number(source['q_max_kvar'])} kvar",
        ),
        ("losses", number(s["losses_kwh"], "kWh")),
    ]
    if s["replay"] is not None:
        p = s["replay"]
        rows.append(
            (
                "OpenDSS",
                f"voltage {number(p['max_dv_pu'], digits=6)} pu at most, losses {number(p['dloss_kw'])} kW, "
                f"source {number(p['dp_source_kw'])} kW, {number(p['dq_source_kvar'])} kvar off",
            )
        )
        if p["n_violations"]:
            rows.append(("", f"{count(p['n_violations'], 'violation')} of limits there: {counted(p['violations'])}"))
        if not p["converged"]:
            rows.append(("", f"{count(p['n_not_converged'], 'step')} did not converge in OpenDSS"))
    rows.append(("seconds", ", ".join(f"{k} {v:.2f}" for k, v in s["seconds"].items())))
    return rows


__all__ = ["flow_summary", "powerflow"]
