"""The same case through several formulations, each schedule replayed in OpenDSS.

A formulation is worth what its schedule does in an AC power flow, not what it says of itself. So every row of the table
has the cost and the losses twice, as modelled and as replayed, with the voltage error and the violations of all limits
between them (``worst_violation_pu`` is of the voltages to ground).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lateral import formulations as registry
from lateral.case import Case
from lateral.checks import require
from lateral.devices import PV, Battery
from lateral.errors import EngineError, OptionError, UnsupportedError
from lateral.formulations import Formulation
from lateral.io.dispatch import Dispatch
from lateral.objectives import Objective
from lateral.opf import build, limited, replayed, worked_out
from lateral.plots import style
from lateral.replay import Replay, replay
from lateral.results.result import Result
from lateral.solvers import Options

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Columns of the table of a comparison, with the unit of each ("" where there is none).
COLUMNS: Mapping[str, str] = {
    "formulation": "",
    "status": "",
    "problem_class": "",
    "solver": "",
    "objective": "",
    "bound": "",
    "bound_given": "",
    "cost": "$",
    "cost_replay": "$",
    "losses_kwh": "kWh",
    "losses_replay_kwh": "kWh",
    "max_dv_pu": "pu",
    "mean_dv_pu": "pu",
    "n_violations": "",
    "worst_violation_pu": "pu",
    "reactive_kvarh": "kvarh",
    "relaxation_gap_pu": "pu",
    "n_variables": "",
    "n_constraints": "",
    "iterations": "",
    "build_s": "s",
    "solve_s": "s",
    "replay_s": "s",
    "reason": "",
}

#: Columns of text, and of whole numbers.
_TEXTS = ("formulation", "status", "problem_class", "solver", "bound_given", "reason")
_WHOLE = ("n_violations", "n_variables", "n_constraints", "iterations")

#: Row of the day without any control, for reference.
NO_CONTROL = "(no control)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A case through several formulations.

    Attributes:
        case: the case.
        objective: name of the objective.
        table: one row per formulation, and a first one for the day without control; columns are `COLUMNS`. A
            formulation that declines has the status ``declined`` and a ``reason``; numbers that do not exist are NaN.
            ``bound`` is that of a relaxation, of every schedule that keeps to what ``bound_given`` says.
        results: the results by name of the formulation, of those that have one.
    """

    case: Case
    objective: str
    table: pd.DataFrame
    results: Mapping[str, Result] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a number that does not exist is None."""
        return {
            "case": self.case.name,
            "case_hash": self.case.hash,
            "n_buses": len(self.case.feeder.buses),
            "n_steps": self.case.horizon.n_steps,
            "objective_name": self.objective,
            "units": {k: u for k, u in COLUMNS.items() if u},
            "rows": plain_rows(self.table),
        }

    def figure(self) -> go.Figure:
        """Cost and losses as modelled and as replayed, voltage error and violations, one bar per formulation."""
        return comparison_figure(self.table, self.case.name)


def compare(
    case: Case,
    formulations: Sequence[str | Formulation] | None = None,
    *,
    objective: str | Objective = "cost",
    terminal: str = "equal",
    solver: str = "auto",
    options: Options | None = None,
    loss_term: bool = True,
    limits: str = "all",
) -> Comparison:
    """Solve a case with several formulations and replay every schedule in OpenDSS.

    Args:
        case: the case.
        formulations: names or objects; absent: all that are registered. A name may carry an operating point,
            ``lindist3flow:nominal``.
        objective: see `lateral.build`.
        terminal: see `lateral.build`.
        solver: ``auto`` or a name; the same for all.
        options: options of the solver.
        loss_term: see `lateral.build`.
        limits: see `lateral.build`; every row, the one without control too, is held against those that are kept.

    Raises:
        CaseError: the case has faults.
        OptionError: a name that does not exist.
    """
    names = list(registry.BUILT_IN) if formulations is None else list(formulations)
    if not names:
        message = "nothing to compare: name at least one formulation"
        raise OptionError(message)
    require(case)
    rows = [_no_control(limited(case, limits))]
    results: dict[str, Result] = {}
    goal = str(objective) if isinstance(objective, str) else objective.name
    for given in names:
        formulation, point, label = _parse(given)
        try:
            model = build(
                case, formulation, objective, terminal=terminal, loss_term=loss_term, limits=limits, point=point
            )
            result = worked_out(model, solver=solver, options=options, explain_infeasible=False)
        except UnsupportedError as error:
            rows.append({"formulation": label, "status": "declined", "reason": _reasons(error)})
            continue
        reason = "" if result.ok else result.status_text
        if result.has_schedule:
            try:
                result = replayed(result)
            except EngineError as error:
                reason = f"not replayed: {error}"
        results[label] = result
        rows.append(_row(label, result, reason))
    table = pd.DataFrame([{c: row.get(c, _missing(c)) for c in COLUMNS} for row in rows])
    table = table.astype(dict.fromkeys(_WHOLE, "Int64"))
    return Comparison(case=case, objective=goal, table=table, results=results)


def _missing(column: str) -> float | str:
    return "" if column in _TEXTS else np.nan


def _reasons(error: UnsupportedError) -> str:
    """Why a formulation declines, in a cell of a table."""
    first = "; ".join(str(f) for f in error.faults[:2])
    more = len(error.faults) - 2
    return f"{first}; and {more} more" if more > 0 else first


def _parse(given: str | Formulation) -> tuple[str | Formulation, str, str]:
    if isinstance(given, Formulation):
        return given, "baseline", given.name
    name, _, point = given.partition(":")
    if name != "auto":
        registry.get(name)  # a name that does not exist is the caller's mistake, not a formulation that declines
    return name, point or "baseline", given


def _row(label: str, result: Result, reason: str) -> dict[str, Any]:
    program = result.program
    row: dict[str, Any] = {
        "formulation": label,
        "status": result.status.word,
        "problem_class": program.problem_class.name,
        "solver": result.solution.solver,
        "n_variables": program.n,
        "n_constraints": sum(
            b.size
            for blocks in (
                program.equalities,
                program.inequalities,
                program.product_blocks,
                program.quadratic_blocks,
                program.curve_blocks,
            )
            for b in blocks
        ),
        "iterations": result.solution.iterations,
        "build_s": result.seconds["build"],
        "solve_s": result.seconds["solve"],
        "reason": reason,
    }
    if not result.has_schedule:
        return row
    # port by port where they differ: what one end or phase gives and another takes does not cancel
    points = {**result.set_points, **result.port_points}
    reactive = sum(float(np.sum(np.abs(q) @ result.case.horizon.hours)) for _, q in points.values())
    bounds = result.relaxes and result.bound is not None
    row |= {
        "objective": result.objective,
        "bound": result.bound if bounds else np.nan,
        "bound_given": "; ".join([*program.held, *program.granted]) if bounds else "",
        "cost": result.cost,
        "losses_kwh": result.losses_kwh,
        "reactive_kvarh": reactive,
        "relaxation_gap_pu": result.max_relaxation_gap,
    }
    if isinstance(result.replay, Replay):
        row |= _replay_numbers(result.replay)
        row["replay_s"] = result.seconds["replay"]
        if not result.replay.all_converged:
            row["reason"] = f"{reason} {int((~result.replay.converged).sum())} steps do not converge in OpenDSS".strip()
    return row


def _replay_numbers(run: Replay) -> dict[str, Any]:
    violations = run.violations()
    out: dict[str, Any] = {
        "cost_replay": run.cost_usd,
        "losses_replay_kwh": run.losses_kwh,
        "n_violations": sum(run.n_violations().values()),
        "worst_violation_pu": float(violations["excess_pu"].max()) if len(violations) else 0.0,
    }
    if run.errors is not None:
        out |= {"max_dv_pu": run.errors.max_dv_pu, "mean_dv_pu": run.errors.mean_dv_pu}
    return out


def _no_control(case: Case) -> dict[str, Any]:
    hours = case.horizon.hours
    row: dict[str, Any] = {"formulation": NO_CONTROL, "status": "replayed"}
    try:
        dispatch = Dispatch.baseline(case)
        run = replay(case, dispatch)
    except (EngineError, UnsupportedError) as error:
        return row | {"status": "error", "reason": str(error)}
    ours = [d.label for d in case.devices if isinstance(d, PV | Battery)]
    reactive = sum(float(np.abs(dispatch.q(label)) @ hours) for label in ours)
    return row | _replay_numbers(run) | {"reactive_kvarh": reactive, "replay_s": run.seconds}


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table of comparisons as plain data; a number that does not exist is None."""

    def plain(value: Any) -> Any:
        if value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
            return None
        return value

    return [{str(k): plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def comparison_figure(table: pd.DataFrame, title: str) -> go.Figure:
    """The figure of a comparison, from its table."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    shown = table[table["status"] != "declined"]
    x = list(shown["formulation"])
    panels = ("cost, $", "losses, kWh", "largest voltage error, pu", "violations in OpenDSS")
    # one axis of names for both rows: below the upper one long names lie over the titles of the lower one
    grid = make_subplots(
        rows=2, cols=2, shared_xaxes=True, subplot_titles=panels, vertical_spacing=0.14, horizontal_spacing=0.1
    )
    fig = style.figure(f"{title}: formulations compared", height=680)
    fig = go.Figure(grid).update_layout(fig.layout.to_plotly_json() | {"annotations": grid.layout.annotations})
    fig.update_layout({k: v for k, v in grid.layout.to_plotly_json().items() if k.startswith(("xaxis", "yaxis"))})
    style.style_axes(fig)
    # points, not bars, where the axis does not begin at zero
    points = (
        ("cost", "as modelled", style.BLUE, "circle", 1),
        ("cost_replay", "in OpenDSS", style.ORANGE, "diamond-open", 1),
        ("losses_kwh", "as modelled", style.BLUE, "circle", 2),
        ("losses_replay_kwh", "in OpenDSS", style.ORANGE, "diamond-open", 2),
    )
    for column, name, colour, symbol, col in points:
        replayed_values = column.endswith(("_replay", "_replay_kwh"))
        fig.add_trace(
            go.Scatter(
                x=x,
                y=shown[column],
                name=name,
                mode="markers+text" if replayed_values else "markers",
                marker={"color": colour, "symbol": symbol, "size": 13, "line": {"width": 2.5, "color": colour}},
                text=[f"{v:,.1f}" for v in shown[column].fillna(0.0)],
                textposition="bottom center",
                showlegend=col == 1,
                cliponaxis=False,
                hovertemplate=f"%{{x}}, {name}: %{{y:,.6g}}<extra></extra>",
            ),
            row=1,
            col=col,
        )
    for column, colour, col in (("max_dv_pu", style.GREEN, 1), ("n_violations", style.RED, 2)):
        values = shown[column].astype(float)
        fig.add_trace(
            go.Bar(
                x=x,
                y=values,
                marker={"color": colour, "line": {"width": 0}},
                showlegend=False,
                text=["" if not np.isfinite(v) else f"{v:.3g}" for v in values],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="%{x}: %{y:,.6g}<extra></extra>",
            ),
            row=2,
            col=col,
        )
    fig.update_yaxes(rangemode="tozero", row=2, col=2)
    if not (shown["n_violations"] > 0).any():
        fig.update_yaxes(range=[0, 1], row=2, col=2)
    if (shown["max_dv_pu"] > 0).any():  # from 1e-9 of an exact model to 1e-2 of a linear one
        fig.update_yaxes(type="log", exponentformat="power", row=2, col=1)
    fig.update_layout(legend={"x": 1, "xanchor": "right", "y": 1.06}, margin={"t": 96})
    return fig


__all__ = ["COLUMNS", "NO_CONTROL", "Comparison", "compare", "comparison_figure", "plain_rows"]
