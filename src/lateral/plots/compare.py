"""Comparisons: the model with the replay, the schedule with the day without control, loadings with ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lateral.errors import OptionError
from lateral.network.schema import FloatArray, IntArray
from lateral.plots import style
from lateral.plots.data import View, short, shown
from lateral.replay import Replay
from lateral.results.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: A scatter shows at most so many points: the largest errors, and an even choice of the others.
SCATTER_POINTS = 6000


def modelled_and_replayed(result: Result) -> tuple[FloatArray, FloatArray]:
    """Voltages by the model and by OpenDSS, of the same nodes, each (n, T); NaN where the engine did not converge.

    Raises:
        OptionError: the result has no replay.
    """
    run = result.replay
    if not isinstance(run, Replay) or not result.has_values:
        message = "the result has no replay; solve with with_replay=True"
        raise OptionError(message)
    row = {node: k for k, node in enumerate(run.nodes)}
    at = np.array([row[node] for node in result.network.nodes], dtype=np.int64)
    theirs = np.where(run.converged[None, :], run.v_pu[at], np.nan)
    return np.sqrt(np.maximum(result.value("bus.vmag_sq"), 0.0)), theirs


def replay_errors(result: Result) -> go.Figure:
    """The model's voltages against those that OpenDSS finds: one against the other, the differences, and over time."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    view = View(result)
    ours, theirs = modelled_and_replayed(result)
    both = np.isfinite(theirs)
    error = np.where(both, ours - theirs, np.nan)
    titles = ("modelled against replayed", "difference of all voltages", "difference over time")
    fig = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.09, figure=style.figure(height=400))
    style.style_axes(fig)
    x, y = theirs[both], ours[both]
    at = _choice(np.abs(y - x))
    low, high = (float(min(x.min(), y.min())), float(max(x.max(), y.max()))) if len(x) else (0.95, 1.05)
    fig.add_trace(
        go.Scatter(
            x=[low, high],
            y=[low, high],
            mode="lines",
            line={"color": style.MUTED, "width": 1},
            hoverinfo="skip",
            showlegend=False,
        ),
        row=1,
        col=1,
    )
    fig.add_trace(
        go.Scatter(
            x=style.light(x[at]),
            y=style.light(y[at]),
            mode="markers",
            showlegend=False,
            marker={"size": 4, "color": style.BLUE, "opacity": 0.5},
            hovertemplate="replayed %{x:.5f} pu<br>modelled %{y:.5f} pu<extra></extra>",
        ),
        row=1,
        col=1,
    )
    counts, edges = np.histogram(error[both], bins=41)
    fig.add_trace(
        go.Bar(
            x=style.light((edges[:-1] + edges[1:]) / 2),
            y=counts.tolist(),
            width=float(edges[1] - edges[0]),
            showlegend=False,
            marker={"color": style.BLUE, "line": {"width": 0}},
            hovertemplate="%{x:.2e} pu: %{y} voltages<extra></extra>",
        ),
        row=1,
        col=2,
    )
    size = np.abs(error)
    some = both.any(axis=0)
    for name, values, colour in (
        ("largest", np.nanmax(np.where(both, size, 0.0), axis=0), style.RED),
        ("mean", np.where(some, np.nansum(size, axis=0) / np.maximum(both.sum(axis=0), 1), 0.0), style.BLUE),
    ):
        fig.add_trace(
            go.Scatter(
                x=view.edges,
                y=style.held(np.where(some, values, np.nan)),
                name=name,
                showlegend=True,
                mode="lines",
                line={"shape": "hv", "width": 2, "color": colour},
                hovertemplate=f"{name} %{{y:.2e}} pu<extra></extra>",
            ),
            row=1,
            col=3,
        )
    fig.update_layout(
        margin={"t": 60, "b": 84},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": -0.26, "yanchor": "top"},
    )
    fig.update_xaxes(title=style.titled("replayed, pu"), col=1)
    fig.update_yaxes(title=style.titled("modelled, pu"), col=1)
    fig.update_xaxes(title=style.titled("modelled less replayed, pu"), exponentformat="power", nticks=6, col=2)
    fig.update_yaxes(title=style.titled("voltages (nodes × steps)"), col=2)
    fig.update_xaxes(nticks=6, col=3)
    fig.update_yaxes(title=style.titled("difference, pu"), exponentformat="power", rangemode="tozero", col=3)
    return fig


def _choice(error: FloatArray) -> IntArray:
    if len(error) <= SCATTER_POINTS:
        return np.arange(len(error))
    largest = np.argpartition(error, -SCATTER_POINTS // 4)[-SCATTER_POINTS // 4 :]
    even = np.linspace(0, len(error) - 1, SCATTER_POINTS - len(largest)).astype(int)
    return np.asarray(np.unique(np.concatenate([largest, even])))


def why_no_loading(result: Result) -> str:
    """Why there is no loading to show: no ratings, or a problem that left them out."""
    feeder = result.case.feeder
    limits = [line.i_max_a for line in feeder.lines] + [switch.i_max_a for switch in feeder.switches]
    limits += [transformer.s_max_kva for transformer in feeder.transformers]
    if np.isfinite(limits).any():
        return "The ratings of this case were not part of the problem."
    return "No line, switch or transformer of this case has a rating."


def loading(result: Result, *, top: int = 20) -> go.Figure:
    """The branches that come nearest to their rating, each at its worst step, in percent of the rating."""
    import plotly.graph_objects as go

    need = result.loading.head(top)
    fig = style.figure(height=max(240, 90 + 22 * len(need)), legend=False)
    if not len(need):
        return style.say_instead(fig, why_no_loading(result))
    share = 100.0 * need["share"].to_numpy(dtype=float)
    times = [f"{t:%d %b %H:%M}" for t in need["time"]]
    text = [
        f"{shown(e)}<br>{v:,.1f} of {limit:,.1f} {unit} at {t}"
        for e, v, limit, unit, t in zip(need["element"], need["value"], need["limit"], need["unit"], times, strict=True)
    ]
    fig.add_trace(
        go.Bar(
            x=style.light(share),
            y=list(range(len(need))),
            orientation="h",
            text=text,
            textposition="none",
            hovertemplate="%{text}<br><b>%{x:.1f} %</b><extra></extra>",
            marker={"color": [style.OUTSIDE if s > 100.001 else style.BLUE for s in share]},
        )
    )
    fig.add_vline(x=100, line={"color": style.OUTSIDE, "dash": "dash", "width": 1.2})
    fig.update_xaxes(title=style.titled("largest loading, % of the rating"), rangemode="tozero")
    fig.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(need))),
        ticktext=[short(str(e), 34) for e in need["element"]],
        autorange="reversed",
        showgrid=False,
    )
    return fig


def baseline_vs_optimum(result: Result) -> go.Figure:
    """The schedule against the day without control: lowest and highest voltage, and the power from the grid."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    view = View(result)
    titles = ("lowest and highest voltage", "power from the grid")
    fig = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.1,
        subplot_titles=titles,
        figure=style.figure(height=560),
    )
    style.style_axes(fig)
    cases = [("without control", view.baseline, np.asarray(result.baseline.source_kva.real), style.ORANGE, "dash")]
    if result.has_schedule:
        cases.append(("schedule", view.optimum, result.p_source_kw, style.BLUE, "solid"))
    for name, volts, power, colour, dash in cases:
        line = {"shape": "hv", "width": 2, "color": colour, "dash": dash}
        for which, values in (("lowest", np.nanmin(volts.v_pu, axis=0)), ("highest", np.nanmax(volts.v_pu, axis=0))):
            fig.add_trace(
                go.Scatter(
                    x=view.edges,
                    y=style.held(values),
                    mode="lines",
                    line=line,
                    name=name,
                    legendgroup=name,
                    showlegend=which == "highest",
                    hovertemplate=f"{name}, {which}: %{{y:.4f}} pu<extra></extra>",
                ),
                row=1,
                col=1,
            )
        fig.add_trace(
            go.Scatter(
                x=view.edges,
                y=style.held(power),
                mode="lines",
                line=line,
                name=name,
                legendgroup=name,
                showlegend=False,
                hovertemplate=f"{name}: %{{y:,.1f}} kW<extra></extra>",
            ),
            row=2,
            col=1,
        )
    style.limit_lines(fig, *view.baseline.limits, row=1)
    fig.update_layout(margin={"t": 80}, legend={"y": 1.05, "x": 1, "xanchor": "right"})
    for annotation in fig.layout.annotations[:2]:
        annotation.update(x=0, xanchor="left", font={"size": 14})
    fig.update_yaxes(title=style.titled("voltage, pu"), tickformat=".3f", row=1)
    fig.update_yaxes(title=style.titled("power, kW"), row=2)
    fig.update_xaxes(title=style.titled(view.time_title), row=2)
    return fig


__all__ = ["baseline_vs_optimum", "loading", "modelled_and_replayed", "replay_errors"]
