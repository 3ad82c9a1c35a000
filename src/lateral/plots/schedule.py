"""The schedule: power, stored energy and prices over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lateral.errors import OptionError
from lateral.network.schema import FloatArray
from lateral.operating import NEUTRAL_PU
from lateral.plots import style
from lateral.plots.data import View, shown
from lateral.plots.voltage import heatmap_order, name_rows
from lateral.results.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: What plots call the injections of a kind of device, and their colour.
KINDS = {"pv": ("PV", style.ORANGE), "battery": ("battery", style.GREEN)}
#: With at most so many batteries each has its own line.
SINGLE_LINES = 6
#: A price map shows at most so many buses, evenly along the distance from the source.
PRICE_ROWS = 400


def need_schedule(result: Result) -> None:
    """Refuse a result without numbers.

    Raises:
        OptionError: the result has no schedule.
    """
    if not result.has_values:
        message = f"the result has no schedule to plot: {result.status_text}"
        raise OptionError(message)


def balance(result: Result) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """What gives power and what takes it at every step, kW, (T,) each; both sides have the same sum.

    The load is what remains: with voltage-dependent loads it is the power at the voltages of the schedule.
    """
    need_schedule(result)
    grid = result.p_source_kw
    gives = {"import": np.maximum(grid, 0.0)}
    takes = {"export": np.maximum(-grid, 0.0)}
    for output in result.program.outputs:
        block = output.block
        if block.quantity != "p_injected":
            continue
        kind = block.component
        p = output.value(result.solution.x, result.program.theta) * block.to_unit
        both = kind == "battery"
        up, down = ("battery discharge", "battery charge") if both else (KINDS.get(kind, (kind, ""))[0],) * 2
        gives[up] = gives.get(up, 0.0) + np.maximum(p, 0.0).sum(axis=0)
        takes[down] = takes.get(down, 0.0) + np.maximum(-p, 0.0).sum(axis=0)
    takes["losses"] = result.losses_kw
    load = sum(gives.values()) - sum(takes.values())
    takes = {"load": np.asarray(load), **takes}
    return {k: np.asarray(v) for k, v in gives.items()}, {k: np.asarray(v) for k, v in takes.items()}


def dispatch_stack(result: Result) -> go.Figure:
    """What gives power above zero, what takes it below; the import price on a second axis."""
    import plotly.graph_objects as go

    view = View(result)
    gives, takes = balance(result)
    colours = {
        "import": style.BLUE,
        "PV": style.ORANGE,
        "battery discharge": style.GREEN,
        "load": "#8a97a5",
        "battery charge": "#66c2a5",
        "losses": style.RED,
        "export": style.SKY,
    }
    fig = style.figure(height=460)
    spare = iter(style.CYCLE[3:] * 4)
    largest = max(float(np.max(v, initial=0.0)) for v in (*gives.values(), *takes.values()))
    for group, sign in ((gives, 1.0), (takes, -1.0)):
        for name, power in group.items():
            if np.max(np.abs(power), initial=0.0) <= 1e-6 * largest and name not in ("import", "load"):
                continue
            fig.add_trace(
                go.Scatter(
                    x=view.edges,
                    y=style.held(sign * power),
                    customdata=style.held(power),
                    name=shown(name),
                    mode="lines",
                    stackgroup="gives" if sign > 0 else "takes",
                    line={"shape": "hv", "width": 0.5, "color": colours.get(name) or next(spare)},
                    hovertemplate="%{customdata:.1f} kW",
                )
            )
    prices = [result.case.series(source.price_import) for source in result.case.sources]
    for k, (source, price) in enumerate(zip(result.case.sources, prices, strict=True)):
        label = "import price" if len(result.case.sources) == 1 else f"price at {shown(source.name)}"
        fig.add_trace(
            go.Scatter(
                x=view.edges,
                y=style.held(price),
                name=label,
                yaxis="y2",
                mode="lines",
                line={"shape": "hv", "width": 2, "color": style.INK, "dash": ("dot", "dash", "dashdot")[k % 3]},
                hovertemplate="%{y:.4f} $/kWh",
            )
        )
    fig.add_hline(y=0, line={"color": style.INK, "width": 1})
    fig.update_layout(
        hovermode="x unified",
        yaxis2={
            "title": style.titled("price, $/kWh"),
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "tickmode": "auto",
            "range": _price_range(prices),
            "zeroline": False,
        },
        margin={"r": 70},
    )
    fig.update_xaxes(title=style.titled(view.time_title))
    fig.update_yaxes(title=style.titled("power, kW (above zero given, below taken)"), selector={"overlaying": None})
    return fig


def _price_range(prices: Sequence[FloatArray]) -> list[float]:
    low = min((float(p.min()) for p in prices), default=0.0)
    high = max((float(p.max()) for p in prices), default=0.0)
    return [min(1.1 * low, 0.0), 1.1 * high if high > 0.0 else 0.1]


def soc(result: Result) -> go.Figure:
    """State of charge at the ends of the steps; many batteries together, with bands of what single ones do."""
    import plotly.graph_objects as go

    view, case = View(result), result.case
    need_schedule(result)
    fig = style.figure(height=360)
    fig.update_xaxes(title=style.titled(view.time_title))
    fig.update_yaxes(title=style.titled("state of charge, %"), range=[-2, 102])
    if not result.has("battery.energy"):
        return style.say_instead(fig, "The case has no battery.")
    by_name = {b.name: b for b in case.batteries}
    names = [n for n in result.elements("battery.energy") if n in by_name]
    rows = [k for k, n in enumerate(result.elements("battery.energy")) if n in by_name]
    capacity = np.array([by_name[n].energy_kwh for n in names])
    start = np.array([by_name[n].soc_initial for n in names]) * capacity
    energy = np.concatenate([start[:, None], result.value("battery.energy")[rows]], axis=1)
    share = 100.0 * energy / capacity[:, None]
    if len(names) <= SINGLE_LINES:
        for k, name in enumerate(names):
            line = {"width": 2, "color": style.CYCLE[k % len(style.CYCLE)]}
            fig.add_trace(
                go.Scatter(
                    x=view.edges,
                    y=style.light(share[k]),
                    name=shown(name),
                    mode="lines",
                    line=line,
                    hovertemplate="%{y:.1f} %",
                )
            )
    else:
        _band(fig, view, share, energy.sum(axis=0), float(capacity.sum()))
    fig.update_layout(hovermode="x unified")
    return fig


def _band(fig: go.Figure, view: View, share: FloatArray, stored: FloatArray, capacity: float) -> None:
    import plotly.graph_objects as go

    lines = (
        (np.min(share, axis=0), None, "", "lowest"),
        (np.max(share, axis=0), "rgba(0,158,115,0.15)", "lowest to highest", "highest"),
        (np.percentile(share, 25, axis=0), None, "", "lower quartile"),
        (np.percentile(share, 75, axis=0), "rgba(0,158,115,0.3)", "middle half", "upper quartile"),
    )
    for values, fill, name, hover in lines:
        fig.add_trace(
            go.Scatter(
                x=view.edges,
                y=style.light(values),
                mode="lines",
                line={"width": 0},
                fill="tonexty" if fill else None,
                fillcolor=fill,
                name=name,
                showlegend=bool(fill),
                hovertemplate=f"%{{y:.1f}} %<extra>{hover}</extra>",
            )
        )
    fig.add_trace(
        go.Scatter(
            x=view.edges,
            y=style.light(100.0 * stored / capacity),
            customdata=style.light(stored),
            mode="lines",
            name=f"all {len(share)} batteries together ({capacity:,.0f} kWh)",
            line={"width": 2.5, "color": style.GREEN},
            hovertemplate="%{y:.1f} % (%{customdata:,.0f} kWh)<extra>together</extra>",
        )
    )


def bus_prices(view: View) -> tuple[list[str], FloatArray, str]:
    """Marginal price of active power of each bus, the mean of its phases, nearest to the source first.

    A neutral conductor is none: a kilowatt drawn at its voltage is a large current.

    Returns:
        Names, prices of shape (n, T), and the unit.
    """
    result = view.result
    need_schedule(result)
    price = result.dual("bus.p_balance")
    nodes = result.network.nodes
    phases = np.flatnonzero(result.value("bus.vmag_sq").max(axis=1) >= NEUTRAL_PU**2)
    bus = np.array([view.index[nodes[k][0]] for k in phases], dtype=np.int64)
    kept, place = np.unique(bus, return_inverse=True)
    mean = np.zeros((len(kept), price.shape[1]))
    np.add.at(mean, place, price[phases])
    mean /= np.bincount(place)[:, None]
    order = heatmap_order(view, kept)
    unit = "$/kWh" if result.objective_name == "cost" else "objective/kWh"
    return [view.names[k] for k in kept[order].tolist()], mean[order], unit


def dlmp(result: Result, *, relative: bool = False) -> go.Figure:
    """Marginal price of active power, bus by time: what one more kWh drawn there costs.

    With many buses some of them, evenly along the distance from the source; the first and the last are among them.

    Args:
        result: the result.
        relative: take off the price at the source in the same step, so that what losses and limits add is left.
    """
    import plotly.graph_objects as go

    view = View(result)
    names, price, unit = bus_prices(view)
    if relative:
        top = [k for k, name in enumerate(names) if name in {s.bus for s in result.case.sources}]
        price = price - price[top].mean(axis=0)
    if len(names) > PRICE_ROWS:
        at = np.unique(np.linspace(0, len(names) - 1, PRICE_ROWS).round().astype(int))
        names, price = [names[k] for k in at], price[at]
    fig = style.figure(height=min(620, max(320, 60 + 3 * len(names))), legend=False)
    # colours leave out the extreme percent, or one bus at its limit would make all others look alike
    known = price[np.isfinite(price)]  # a step of weight 0 has none
    low, high = np.percentile(known, [0.5, 99.5]) if known.size else (0.0, 1.0)
    fig.add_trace(
        go.Heatmap(
            x=view.edges,
            y=[shown(n) for n in names],
            z=style.light(price),
            zmin=float(low),
            zmax=float(max(high, low + 1e-9)),
            colorscale=style.PRICE_SCALE,
            hovertemplate=f"bus %{{y}}<br>%{{x}}<br><b>%{{z:.5f}} {unit}</b><extra></extra>",
            colorbar=style.colour_bar(f"above the source, {unit}" if relative else f"price, {unit}"),
        )
    )
    name_rows(fig, names)
    fig.update_xaxes(title=style.titled(view.time_title))
    fig.update_yaxes(title=style.titled("bus, nearest to the source on top"))
    return fig


def reactive(result: Result) -> go.Figure:
    """Reactive power that the sources and each kind of device give, kvar; negative: take."""
    import plotly.graph_objects as go

    view = View(result)
    need_schedule(result)
    fig = style.figure(height=360)
    lines = {"source": (result.q_source_kvar, style.BLUE)}
    spare = iter(style.CYCLE[3:] * 4)
    for output in result.program.outputs:
        block = output.block
        if block.quantity == "q_injected":
            q = (output.value(result.solution.x, result.program.theta) * block.to_unit).sum(axis=0)
            name, colour = KINDS.get(block.component) or (block.component, next(spare))
            lines[name] = (lines.get(name, (0.0, ""))[0] + q, colour)
    for name, (q, colour) in lines.items():
        fig.add_trace(
            go.Scatter(
                x=view.edges,
                y=style.held(q),
                name=shown(name),
                mode="lines",
                line={"shape": "hv", "width": 2, "color": colour},
                hovertemplate="%{y:.1f} kvar",
            )
        )
    fig.update_layout(hovermode="x unified")
    fig.update_xaxes(title=style.titled(view.time_title))
    fig.update_yaxes(title=style.titled("reactive power given, kvar"))
    return fig


__all__ = ["balance", "bus_prices", "dispatch_stack", "dlmp", "need_schedule", "reactive", "soc"]
