"""The feeder with its areas, each in its colour, and the borders between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lateral.case import Case
from lateral.network.schema import FloatArray, IntArray
from lateral.network.topology import Tree
from lateral.plots import style
from lateral.plots.arrange import places, tree_of
from lateral.plots.data import short, shown

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: With more buses than this an area map shows branches only: a browser draws every bus as an element of its own.
BUS_MARKS = 2500


def plot_areas(case: Case, area_of: Mapping[str, str], borders: Mapping[str, str] | None = None) -> go.Figure:
    """The feeder, each area in its colour, and the borders between them.

    Args:
        case: the whole feeder.
        area_of: area of each bus; of the two that know a border's bus, the one beyond it.
        borders: name of each border by its bus; absent: the far buses of branches between areas.
    """
    import plotly.graph_objects as go

    tree = tree_of(case)
    at = places(case, tree)
    index = {b.name: k for k, b in enumerate(case.feeder.buses)}
    above = {area_of[b]: area_of[up] for b, up in tree.parent.items() if _differ(area_of, b, up)}
    names = [a for a in dict.fromkeys(area_of.get(b, "") for b in tree.order) if a]
    colour = area_colours(names, above)
    fig = style.figure(height=620)
    closed, crossing, idle = _branches(case, tree, area_of)
    buses = {a: np.array([index[b] for b, owner in area_of.items() if owner == a and b in index]) for a in names}
    for area in names:
        _lines(fig, at.x, at.y, closed[area], area=area, colour=colour[area], width=2.2)
    _lines(fig, at.x, at.y, crossing, area="", colour=style.INK, width=2.2)
    _lines(fig, at.x, at.y, idle, area="open switch", colour=style.MUTED, width=1.3)
    for area in names:
        own = buses[area]
        few = len(case.feeder.buses) <= BUS_MARKS
        label = f"area {shown(area)}"
        fig.add_trace(
            go.Scatter(
                x=style.light(at.x[own]) if few else [None],
                y=style.light(at.y[own]) if few else [None],
                mode="markers",
                name=f"{label} ({len(own):,} buses)",
                legendgroup=shown(area),
                meta="buses",
                text=[f"{label}<br>bus {shown(case.feeder.buses[k].name)}" for k in own] if few else None,
                hovertemplate="%{text}<extra></extra>" if few else None,
                marker={
                    "size": 7 if len(case.feeder.buses) < 600 else 5,
                    "color": colour[area],
                    "line": {"width": 0.5, "color": "#ffffff"},
                },
            )
        )
    ends = [b for b, up in tree.parent.items() if _differ(area_of, b, up)]
    named = dict.fromkeys(ends, "") if borders is None else dict(borders)
    marks = [b for b in named if b in index]
    fig.add_trace(
        go.Scatter(
            x=style.light(at.x[[index[b] for b in marks]]),
            y=style.light(at.y[[index[b] for b in marks]]),
            mode="markers",
            name="border",
            meta="borders",
            showlegend=bool(marks),
            text=[_about_border(named[b], b, area_of, tree) for b in marks],
            hovertemplate="%{text}<extra></extra>",
            marker={"symbol": "diamond", "size": 13, "color": "#ffffff", "line": {"width": 2.4, "color": style.INK}},
        )
    )
    sources = [index[s.bus] for s in case.sources if s.bus in index]
    fig.add_trace(
        go.Scatter(
            x=style.light(at.x[sources]),
            y=style.light(at.y[sources]),
            mode="markers",
            name="source",
            hovertemplate="source<extra></extra>",
            marker={"symbol": "star", "size": 15, "color": style.INK},
        )
    )
    for area in names:
        clear = [k for k in buses[area].tolist() if case.feeder.buses[k].name not in named]
        own = np.array(clear or buses[area], dtype=np.int64)
        x, y = float(np.mean(at.x[own])), float(np.mean(at.y[own]))
        near = own[int(np.argmin((at.x[own] - x) ** 2 + (at.y[own] - y) ** 2))]
        fig.add_annotation(
            x=float(at.x[near]),
            y=float(at.y[near]),
            text=f"<b>{short(area)}</b>",
            showarrow=False,
            yshift=14,
            bgcolor="rgba(255,255,255,0.82)",
            borderpad=2,
            font={"size": 13, "color": colour[area]},
        )
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False)
    if not at.drawn:
        fig.update_yaxes(scaleanchor="x", scaleratio=1)
    fig.update_layout(
        margin={"l": 12, "r": 12, "t": 40, "b": 76}, dragmode="pan", legend={"y": -0.02, "yanchor": "top"}
    )
    return fig


def area_colours(names: Sequence[str], above: Mapping[str, str]) -> dict[str, str]:
    """A colour for each area, not that of the area above it.

    Args:
        names: the areas, parents before children.
        above: the area above each, where there is one.
    """
    out: dict[str, str] = {}
    for k, name in enumerate(names):
        taken = out.get(above.get(name, ""), "")
        choice = style.CYCLE[k % len(style.CYCLE)]
        out[name] = choice if choice != taken else style.CYCLE[(k + 1) % len(style.CYCLE)]
    return out


def _differ(area_of: Mapping[str, str], a: str, b: str) -> bool:
    """Whether two buses belong to two areas that are both known."""
    return a in area_of and b in area_of and area_of[a] != area_of[b]


def _about_border(name: str, bus: str, area_of: Mapping[str, str], tree: Tree) -> str:
    below, above = area_of.get(bus, ""), area_of.get(tree.parent.get(bus, ""), "")
    head = f"border {shown(name)}<br>" if name else ""
    return f"{head}bus {shown(bus)}<br>{shown(above)} feeds {shown(below)}"


def _branches(case: Case, tree: Tree, area_of: Mapping[str, str]) -> tuple[dict[str, IntArray], IntArray, IntArray]:
    """Pairs of bus positions: of closed branches by area, of those that are cut, of open switches."""
    index = {b.name: k for k, b in enumerate(case.feeder.buses)}
    ends = [(s.bus_from, s.bus_to) for s in case.feeder.switches if s.closed]
    ends += [(e.bus_from, e.bus_to) for e in case.feeder.lines]
    ends += [(t.windings[0].bus, w.bus) for t in case.feeder.transformers for w in t.windings[1:]]
    ends += [(e.buses[0], bus) for e in case.feeder.admittances for bus in e.buses[1:]]
    inside: dict[str, list[tuple[int, int]]] = {a: [] for a in area_of.values()}
    crossing: list[tuple[int, int]] = []
    for a, b in dict.fromkeys((a, b) for a, b in ends if a != b):
        pair = (index[a], index[b])
        if _differ(area_of, a, b):
            crossing.append(pair)
        elif a in area_of or b in area_of:
            inside[area_of[a if a in area_of else b]].append(pair)
    idle = [(index[s.bus_from], index[s.bus_to]) for s in case.feeder.switches if not s.closed]
    return {a: _pairs(found) for a, found in inside.items()}, _pairs(crossing), _pairs(idle)


def _pairs(found: Sequence[tuple[int, int]]) -> IntArray:
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _lines(
    fig: go.Figure, x: FloatArray, y: FloatArray, pairs: IntArray, *, area: str, colour: str, width: float
) -> None:
    """Branches as one line with gaps; those of an area come and go with it in the legend."""
    import plotly.graph_objects as go

    if not len(pairs):
        return
    gap = np.full(len(pairs), np.nan)
    alone = area == "open switch"
    flat = [style.light(np.stack([v[pairs[:, 0]], v[pairs[:, 1]], gap], axis=1).reshape(-1)) for v in (x, y)]
    fig.add_trace(
        go.Scatter(
            x=flat[0],
            y=flat[1],
            mode="lines",
            line={"color": colour, "width": width, "dash": "dot" if alone else "solid"},
            name=area or "cut branch",
            legendgroup=shown(area) or "cut",
            showlegend=alone or not area,
            hoverinfo="skip",
        )
    )


__all__ = ["area_colours", "plot_areas"]
