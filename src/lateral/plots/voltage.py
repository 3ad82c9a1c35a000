"""Voltages: over the map, along the feeder, over the day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.plots import style
from lateral.plots.data import View, Voltages, short, shown
from lateral.results.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: With more points than this a figure is drawn by the graphics card, with fewer as vector graphics.
VECTOR_POINTS = 2500
#: A map with a slider holds at most so many voltages; with more buses it offers fewer steps.
SLIDER_CELLS = 1_200_000
#: Kind of device -> symbol on the map and its colour; others are hexagons. Open symbols leave the voltage visible.
SYMBOLS = {
    "source": ("star", style.INK, 15, "source"),
    "pv": ("triangle-up-open", "#a07000", 12, "PV"),
    "battery": ("square-open", style.GREEN, 13, "battery"),
    "capacitor": ("diamond-open", style.PURPLE, 14, "capacitor"),
    "regulator": ("circle-open", style.INK, 16, "regulator"),
}


def feeder_map(result: Result, *, step: int | None = None, slider: bool = True) -> go.Figure:
    """Every bus where it is, coloured by the voltage of its conductor nearest to a limit.

    Buses without coordinates are drawn at their neighbour; a case without coordinates as a tree. Buses outside their
    limits have a red ring. Without a schedule (an infeasible problem) the voltages are those without control.

    Args:
        result: the result.
        step: the step to show first; None: the one with the voltage nearest to, or furthest beyond, a limit.
        slider: a slider over the steps.
    """
    import plotly.graph_objects as go

    view = View(result)
    volts, at = view.voltages, view.places
    bus, v, _ = volts.worst
    chosen = view.step_of(step)
    draw = go.Scattergl if len(view.names) > VECTOR_POINTS else go.Scatter
    fig = style.figure(height=620)
    for state, dash in (("closed", "solid"), ("open", "dot")):
        pairs = branch_pairs(view, closed=state == "closed")
        if len(pairs):
            x, y = segments(at.x, pairs), segments(at.y, pairs)
            line = {"color": "#aab4bf" if state == "closed" else style.MUTED, "width": 1.3, "dash": dash}
            label = "branch" if state == "closed" else "open switch"
            fig.add_trace(
                draw(x=x, y=y, mode="lines", line=line, name=label, hoverinfo="skip", showlegend=state == "open")
            )
    low, high = colour_range(volts)
    about = [
        "<br>".join(map(shown, (f"bus {name}", *lines)))
        for name, lines in zip(view.names, about_buses(view), strict=True)
    ]
    fig.add_trace(
        draw(
            x=style.light(at.x[bus]),
            y=style.light(at.y[bus]),
            mode="markers",
            name="bus",
            showlegend=False,
            meta="buses",
            text=[about[k] for k in bus.tolist()],
            hovertemplate="%{text}<br><b>%{marker.color:.4f} pu</b><extra></extra>",
            marker={
                "size": marker_size(len(bus)),
                "color": v[:, chosen].round(5).tolist(),
                "colorscale": style.VOLTAGE_SCALE,
                "cmin": low,
                "cmax": high,
                "colorbar": style.colour_bar("voltage, pu")
                | {"len": 0.8, "tickformat": ".3f" if high - low < 0.08 else ".2f"},
                "line": {"width": 0.6 if len(bus) < 1000 else 0, "color": "#ffffff"},
            },
        )
    )
    outside = _outside_by_bus(volts, bus)
    ever = np.flatnonzero(outside.any(axis=1))
    ring = marker_size(len(bus)) + 6.0
    fig.add_trace(
        draw(
            x=at.x[bus[ever]].tolist() or [None],
            y=at.y[bus[ever]].tolist() or [None],
            mode="markers",
            name="outside limits",
            showlegend=len(ever) > 0,
            meta="outside",
            hoverinfo="skip",
            marker={
                "symbol": "circle-open",
                "size": np.where(outside[ever, chosen], ring, 0.0).tolist() or [ring],
                "color": style.OUTSIDE,
                "line": {"width": 2},
            },
        )
    )
    _add_devices(fig, view, draw)
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False)
    if not at.drawn:
        fig.update_yaxes(scaleanchor="x", scaleratio=1)
    fig.update_layout(margin={"l": 12, "r": 12, "t": 52, "b": 12}, dragmode="pan")
    if slider and v.shape[1] > 1:
        _add_slider(fig, view, v, np.where(outside[ever], ring, 0.0), chosen)
    return fig


def branch_pairs(view: View, *, closed: bool) -> IntArray:
    """Positions of the two buses of every line, switch, transformer and admittance, (n, 2), each pair once."""
    feeder, index = view.result.case.feeder, view.index
    ends: list[tuple[str, str]] = [(s.bus_from, s.bus_to) for s in feeder.switches if s.closed == closed]
    if closed:
        ends += [(e.bus_from, e.bus_to) for e in feeder.lines]
        ends += [(t.windings[0].bus, w.bus) for t in feeder.transformers for w in t.windings[1:]]
        ends += [(e.buses[0], bus) for e in feeder.admittances for bus in e.buses[1:]]
    pairs = dict.fromkeys((index[a], index[b]) for a, b in ends if a != b)
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2)


def segments(values: FloatArray, pairs: IntArray) -> FloatArray:
    """The values at both ends of each pair, then NaN, flat: a line with gaps."""
    gap = np.full(len(pairs), np.nan)
    return style.light(np.stack([values[pairs[:, 0]], values[pairs[:, 1]], gap], axis=1).reshape(-1))


def marker_size(n: int) -> float:
    return 9.0 if n < 300 else 7.0 if n < 1500 else 4.5


def colour_range(volts: Voltages) -> tuple[float, float]:
    """Voltages at the ends of the colour scale, pu, around 1: the limits, or where there are none what there is."""
    low, high = volts.limits
    v = volts.v_pu[np.isfinite(volts.v_pu) & (volts.v_pu > 0.3)]
    least, most = (float(v.min()), float(v.max())) if len(v) else (0.95, 1.05)
    low = low if np.isfinite(low) else min(least, 0.95)
    high = high if np.isfinite(high) else max(most, 1.05)
    # grey is 1 pu
    reach = max(1.0 - low, high - 1.0)
    return 1.0 - reach, 1.0 + reach


def _outside_by_bus(volts: Voltages, bus: IntArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    out = np.zeros((int(bus.max(initial=-1)) + 1, volts.v_pu.shape[1]), dtype=bool)
    at, step = np.nonzero(volts.outside)
    out[volts.bus[at], step] = True
    return out[bus]


def about_buses(view: View) -> list[list[str]]:
    """For every bus a few lines of text about what is connected there; names are as they are, not escaped."""
    case = view.result.case
    load: dict[str, float] = {}
    other: dict[str, list[str]] = {}
    for device in case.devices:
        place = getattr(device, "bus", None)
        if place is None:
            continue
        if device.kind == "load":
            load[place] = load.get(place, 0.0) + getattr(device, "p_kw", 0.0)
        else:
            other.setdefault(place, []).append(f"{device.kind} {device.name}")
    out = []
    for bus in case.feeder.buses:
        lines = [f"load {load[bus.name]:.4g} kW rated"] if bus.name in load else []
        found = other.get(bus.name, [])
        lines += found[:6]
        if len(found) > 6:
            lines.append(f"and {len(found) - 6} more")
        out.append(lines)
    return out


@dataclass(frozen=True)
class Mark:
    """Where the devices of a kind are, and how they are drawn; ``symbol`` is a name that plotly knows."""

    label: str
    symbol: str
    colour: str
    size: float
    buses: IntArray


def device_marks(view: View) -> list[Mark]:
    """The kinds of devices on the map, without loads; labels are as they are, not escaped."""
    case = view.result.case
    winding = {t.name: t.windings[-1].bus for t in case.feeder.transformers}
    found: dict[str, dict[int, None]] = {}
    for device in case.devices:
        bus = getattr(device, "bus", None) or winding.get(getattr(device, "transformer", ""))
        if device.kind != "load" and bus in view.index:
            found.setdefault(device.kind, {})[view.index[bus]] = None
    shrink = 1.0 if len(view.names) < 1500 else 0.6
    out = []
    for kind in [*(kind for kind in SYMBOLS if kind in found), *sorted(found.keys() - SYMBOLS.keys())]:
        symbol, colour, size, label = SYMBOLS.get(kind, ("hexagon-open", style.BROWN, 13, kind))
        out.append(Mark(label, symbol, colour, size * shrink, np.array(list(found[kind]), dtype=np.int64)))
    return out


def _add_devices(fig: go.Figure, view: View, draw: Any) -> None:
    at = view.places
    for mark in device_marks(view):
        fig.add_trace(
            draw(
                x=style.light(at.x[mark.buses]),
                y=style.light(at.y[mark.buses]),
                mode="markers",
                name=shown(mark.label),
                hoverinfo="skip",
                marker={
                    "symbol": mark.symbol,
                    "size": mark.size,
                    "color": mark.colour,
                    "line": {"width": 1.6, "color": mark.colour},
                },
            )
        )


def _add_slider(fig: go.Figure, view: View, v: FloatArray, rings: FloatArray, chosen: int) -> None:
    """A slider that recolours the buses; with very many buses it offers every second, third, ... step."""
    n = v.shape[1]
    every = max(1, int(np.ceil(v.size / SLIDER_CELLS)))
    steps = sorted({*range(0, n, every), chosen})
    roles = [trace.meta for trace in fig.data]
    traces = [roles.index("buses"), roles.index("outside")]
    entries = []
    for k in steps:
        change: dict[str, Any] = {"marker.color": [v[:, k].round(4).tolist(), style.OUTSIDE]}
        if len(rings):
            change["marker.size"] = [marker_size(len(v)), rings[:, k].tolist()]
        entries.append({"label": view.stamps[k], "method": "restyle", "args": [change, traces]})
    fig.update_layout(
        sliders=[
            {
                "active": steps.index(chosen),
                "currentvalue": {"prefix": "", "font": {"size": 14}},
                "pad": {"t": 10, "l": 10, "r": 10},
                "steps": entries,
            }
        ],
        margin={"l": 12, "r": 12, "t": 52, "b": 70},
    )


def voltage_distance(result: Result, *, step: int | None = None, band: bool = True) -> go.Figure:
    """Voltage of every conductor against the distance from the source, along the tree.

    Args:
        result: the result.
        step: the step; None: the one with the voltage nearest to, or furthest beyond, a limit.
        band: grey bars from the lowest to the highest voltage of each node over the horizon.
    """
    import plotly.graph_objects as go

    view = View(result)
    volts, chosen = view.voltages, view.step_of(step)
    far, unit = view.distance
    # lines without marks are one path of vector graphics, which redraws faster than lines on the graphics card
    mode = "lines+markers" if len(volts.bus) <= VECTOR_POINTS else "lines"
    fig = style.figure(height=460)
    x_node = far[volts.bus]
    if band and volts.v_pu.shape[1] > 1:
        low, high = _extremes(volts.v_pu)
        pairs = np.arange(len(volts.bus)).repeat(2).reshape(-1, 2)
        ends = np.stack([low, high, np.full(len(low), np.nan)], axis=1).reshape(-1)
        line = {"color": "#cfd6dd", "width": 3 if len(low) < 1000 else 1.5, "simplify": False}
        fig.add_trace(
            go.Scatter(
                x=segments(x_node, pairs),
                y=style.light(ends),
                mode="lines",
                line=line,
                name="range over the horizon",
                hoverinfo="skip",
            )
        )
    several = len(set(volts.conductor.tolist())) > 1
    for conductor in sorted(set(volts.conductor.tolist())):
        own = np.flatnonzero(volts.conductor == conductor)
        pairs = distance_pairs(view, own)
        label = f"conductor {conductor}" if several else "voltage"
        colour = style.CONDUCTORS.get(conductor, style.MUTED) if several else style.BLUE
        names = [f"{shown(view.names[b])}" + (f".{conductor}" if several else "") for b in volts.bus[own].tolist()]
        texts = np.array(names, dtype=object)
        place = {int(k): i for i, k in enumerate(own)}
        hover = [texts[place[int(b)]] for b in pairs[:, 1]]
        fig.add_trace(
            go.Scatter(
                x=segments(x_node, pairs),
                y=segments(volts.v_pu[:, chosen], pairs),
                mode=mode,
                line={"color": colour, "width": 1.4, "simplify": False},
                marker={"size": 4 if len(own) < 1000 else 2.5, "color": colour},
                name=label,
                text=np.repeat(np.array(hover, dtype=object), 3).tolist(),
                hovertemplate=f"bus %{{text}}<br>%{{x:.3~f}} {unit}<br><b>%{{y:.4f}} pu</b><extra></extra>",
            )
        )
    style.limit_lines(fig, *volts.limits)
    fig.update_xaxes(title=style.titled(distance_title(unit)), rangemode="tozero")
    fig.update_yaxes(title=style.titled("voltage, pu"), tickformat=".3f")
    return fig


def distance_title(unit: str) -> str:
    """Title of an axis of distances."""
    return "distance from the source, km" if unit == "km" else "distance from the source, number of branches"


def distance_pairs(view: View, own: IntArray) -> IntArray:
    """For some nodes the pair (node upstream, node); a source is joined to itself."""
    up = view.upstream[own]
    return np.stack([np.where(up < 0, own, up), own], axis=1)


def _extremes(v: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.nanmin(np.nan_to_num(v, nan=np.inf), axis=1), np.nanmax(np.nan_to_num(v, nan=-np.inf), axis=1)


def voltage_heatmap(result: Result) -> go.Figure:
    """Bus by time: the voltage of each bus's conductor nearest to a limit; buses in order of distance."""
    import plotly.graph_objects as go

    view = View(result)
    volts = view.voltages
    bus, v, _ = volts.worst
    order = heatmap_order(view, bus)
    low, high = colour_range(volts)
    fig = style.figure(height=min(760, max(320, 60 + 3 * len(bus))), legend=False)
    names = [shown(view.names[k]) for k in bus[order].tolist()]
    fig.add_trace(
        go.Heatmap(
            x=view.edges,
            y=names,
            z=style.light(v[order]),
            zmin=low,
            zmax=high,
            colorscale=style.VOLTAGE_SCALE,
            hovertemplate="bus %{y}<br>%{x}<br><b>%{z:.4f} pu</b><extra></extra>",
            colorbar=style.colour_bar("voltage, pu"),
        )
    )
    name_rows(fig, [view.names[k] for k in bus[order].tolist()])
    fig.update_xaxes(title=style.titled(view.time_title))
    fig.update_yaxes(title=style.titled("bus, nearest to the source on top"))
    return fig


def heatmap_order(view: View, bus: IntArray) -> IntArray:
    """The order of rows, nearest to the source first."""
    return np.asarray(np.argsort(np.nan_to_num(view.distance[0][bus], nan=np.inf), kind="stable"))


def name_rows(fig: go.Figure, names: list[str]) -> None:
    """Names of some rows of a heat map as ticks: as many as can be read."""
    room = max(4, int((fig.layout.height - 110) / 17))
    at = np.unique(np.linspace(0, len(names) - 1, min(len(names), room, 24)).round().astype(int)).tolist()
    ticks = [short(names[k]) for k in at]
    # by name: a number would be taken for the category of that name
    values = [shown(names[k]) for k in at]
    fig.update_yaxes(
        type="category", autorange="reversed", tickmode="array", tickvals=values, ticktext=ticks, showgrid=False
    )


__all__ = ["feeder_map", "voltage_distance", "voltage_heatmap"]
