"""Solving for the command line: one place for ``solve``, ``report`` and ``export --solved``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lateral.cli.loading import Loaded
from lateral.cli.options import SolveOptions
from lateral.cli.screen import count, note, number, working

if TYPE_CHECKING:
    from lateral.results.result import Result


def solved(loaded: Loaded, options: SolveOptions) -> Result:
    """Build, solve and replay, with the reading time in ``seconds``."""
    from lateral.opf import build, made_exact, replayed, worked_out
    from lateral.recover import require_relaxation
    from lateral.results.verification import verified
    from lateral.solvers import Options

    note_prices(loaded, options.objective)
    with working("building ..."):
        model = build(
            loaded.case,
            options.formulation,
            options.objective,
            terminal=options.terminal,
            loss_term=options.loss_term,
            point=options.point,
            limits=options.limits,
        )
    if options.recover:
        require_relaxation(model.formulation)
    given = Options(
        tolerance=options.tolerance, max_iterations=options.max_iterations, time_limit_s=options.time_limit_s
    )
    plain = None if given == Options() else given
    with working(f"solving {count(model.program.n, 'variable')} ..."):
        result = worked_out(
            model,
            rounds=options.rounds,
            solver=options.solver,
            options=plain,
            progress=lambda k: note(f"round {k}"),
        )
    if options.recover:
        with working("recovering an exact schedule ..."):
            result = made_exact(
                model,
                result,
                terminal=options.terminal,
                limits=options.limits,
                solver=options.solver,
                options=plain,
            )
    if options.verify:
        with working("solving it again with another solver ..."):
            result = verified(result)
    if options.replay and result.has_schedule:
        with working(f"replaying {count(loaded.case.horizon.n_steps, 'step')} in OpenDSS ..."):
            result = replayed(result)
    phases = {k: v for k, v in result.seconds.items() if k != "total"}
    seconds = {"read": loaded.seconds, **phases}
    return dataclasses.replace(result, seconds={**seconds, "total": sum(seconds.values())})


def note_prices(loaded: Loaded, objective: str) -> None:
    """Say when the cost is to be minimised and every price is zero. A profile that does not exist is a fault, which the
    check names."""
    import numpy as np

    case = loaded.case
    prices = [s.price_import for s in case.sources]
    if any(isinstance(price, str) and price not in case.profiles for price in prices):
        return
    if "cost" in objective and not any(np.any(case.series(price)) for price in prices):
        note(
            "every price is zero, so that any schedule costs the same; give a [tariff] in a study file, "
            "or another objective such as --objective loss"
        )


def name_unused(study: Mapping[str, Any], who: str, *keys: str) -> None:
    """Say which options of a study a command has no use for.

    Args:
        study: its ``[solve]``.
        who: the command with its verb, as in "areas do".
        *keys: the options.
    """
    found = [key for key in keys if key in study]
    if found:
        note(f"{who} not use {', '.join(found)} of the study's [solve]")


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary of a run for the screen."""
    from lateral.formulations import is_relaxation
    from lateral.results.in_replay import counted

    s, r = summary, summary["residuals"]
    rows = [
        ("status", s["status_short"]),
        *(("mind", text) for text in s["warnings"]),
        ("model", f"{s['formulation']} ({s['problem_class']}), {s['solver']}, {s['n_variables']:,} variables"),
        ("feeder", f"{s['n_buses']} buses, {count(s['n_steps'], 'step')}"),
    ]
    word = s.get("status")
    if s["cost"] is None and word in ("limit_reached", "inaccurate", "degraded"):
        off = max((x for x in (r["max_primal"], r["max_bound"]) if x is not None), default=0.0)
        rows.append(("values", f"none: where it ended, equations or bounds are off by {number(off)} pu"))
    if s["cost"] is not None:
        if word == "limit_reached":
            rows.append(
                ("mind", "it was stopped before a solution: the values below are where it was then, and no result")
            )
        rows += [
            ("cost", number(s["cost"], "$")),
            ("energy import", number(s["energy_import_kwh"], "kWh")),
            ("losses", number(s["losses_kwh"], "kWh")),
            (
                "residuals",
                f"primal {number(r['max_primal'])}, bound {number(r['max_bound'])}, gap {number(r['duality_gap'])}, "
                f"relaxation {number(r['max_relaxation_gap'])} pu, simultaneous {number(r['max_simultaneous_kw'])} kW",
            ),
        ]
    if s.get("bound") is not None and is_relaxation(s["formulation"]):
        given = s["bound_given"]
        more = f", and {len(given) - 1} more" if len(given) > 1 else ""
        rests = f", given: {given[0]}{more}" if given else ""
        rows.append(("bound", f"no schedule has an objective below {s['bound']:.8g}{rests}"))
    if s["replay"] is not None:
        p = s["replay"]
        which = counted(p["violations"])
        rows.append(
            (
                "OpenDSS replay",
                f"voltage {number(p['max_dv_pu'], digits=6)} pu at most, losses {number(p['dloss_kw'])} kW, "
                f"source {number(p['dp_source_kw'])} kW, {number(p['dq_source_kvar'])} kvar off; "
                f"{count(p['n_violations'], 'violation')}{which and f' ({which})'}; cost {number(p['cost'], '$')}",
            )
        )
        if not p["converged"]:
            rows.append(("", f"{count(p['n_not_converged'], 'step')} did not converge in OpenDSS"))
    rows += [("chosen", text) for text in s["choices"]]
    rows.append(("seconds", ", ".join(f"{k} {v:.2f}" for k, v in s["seconds"].items())))
    return rows


__all__ = ["name_unused", "note_prices", "solved", "summary_rows"]
