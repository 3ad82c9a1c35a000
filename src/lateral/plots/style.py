"""One look for all figures: colours that colour-blind readers can tell apart, text that says units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lateral.network.schema import FloatArray

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK, MUTED, GRID, PAPER = "#1c2733", "#5b6875", "#e4e8ec", "#ffffff"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
#: Okabe and Ito (2008), without their yellow, which is too light on white.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BROWN = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#c8371b",
    "#aa4499",
    "#56b4e9",
    "#7a5230",
)
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, BROWN, RED, "#44546a")
#: Conductors 1, 2, 3, and others.
CONDUCTORS = {1: BLUE, 2: "#d55e00", 3: GREEN}
#: Low voltages brown, high ones blue, the middle grey that shows on white.
VOLTAGE_SCALE = [
    [0.0, "#7f2704"],
    [0.2, "#d9691c"],
    [0.4, "#e3b987"],
    [0.5, "#c4c6c2"],
    [0.6, "#9cbfd6"],
    [0.8, "#3182bd"],
    [1.0, "#08306b"],
]
PRICE_SCALE = "Viridis"
OUTSIDE = "#c40000"


def figure(title: str = "", *, height: int = 420, legend: bool = True) -> go.Figure:
    """An empty figure in the common look."""
    import plotly.graph_objects as go

    # an empty template: the default one is large, and every figure would carry it
    fig = go.Figure(layout={"template": {}})
    fig.update_layout(
        title={"text": title, "x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 16}} if title else None,
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        margin={"l": 70, "r": 24, "t": 84 if title else 52, "b": 56},
        showlegend=legend,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.01,
            "yanchor": "bottom",
            "font": {"size": 12},
            "traceorder": "normal",
        },
        hoverlabel={"font": {"family": FONT, "size": 12}, "align": "left"},
        hovermode="closest",
        modebar={"remove": ["lasso2d", "select2d", "autoScale2d"]},
    )
    fig.update_xaxes(**_AXIS)
    fig.update_yaxes(**_AXIS)
    return fig


_AXIS: dict[str, Any] = {
    "gridcolor": GRID,
    "linecolor": "#9aa5b1",
    "showline": True,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": "#9aa5b1",
    "ticklen": 4,
    "automargin": True,
    "title": {"standoff": 10, "font": {"size": 13, "color": MUTED}},
}


def style_axes(fig: go.Figure) -> None:
    """The common look for axes that were added after `figure`."""
    fig.update_xaxes(**{k: v for k, v in _AXIS.items() if k != "title"})
    fig.update_yaxes(**{k: v for k, v in _AXIS.items() if k != "title"})


def titled(text: str) -> dict[str, Any]:
    """An axis title."""
    return {"text": text, "standoff": 10, "font": {"size": 13, "color": MUTED}}


def colour_bar(text: str) -> dict[str, Any]:
    """A colour bar with its title beside it."""
    return {
        "title": {"text": text, "side": "right", "font": {"size": 13, "color": MUTED}},
        "thickness": 14,
        "outlinewidth": 0,
    }


def say_instead(fig: go.Figure, text: str) -> go.Figure:
    """A sentence in the place of a plot that has nothing to show."""
    fig.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"color": MUTED})
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False)
    return fig


def limit_lines(fig: go.Figure, low: float, high: float, *, row: int | None = None) -> None:
    """Voltage limits as dashed lines with their values."""
    where: dict[str, Any] = {} if row is None else {"row": row, "col": 1}
    for value, position in ((low, "bottom right"), (high, "top right")):
        if np.isfinite(value):
            fig.add_hline(
                y=value,
                line={"color": OUTSIDE, "width": 1.2, "dash": "dash"},
                annotation_text=f"limit {value:g} pu",
                annotation_position=position,
                annotation_font={"size": 11, "color": OUTSIDE},
                **where,
            )


def light(values: FloatArray) -> FloatArray:
    """Values as 32-bit numbers, which figures store in half the space."""
    return np.asarray(values, dtype=np.float32)


def held(values: FloatArray) -> FloatArray:
    """Values of T steps for a line of shape ``hv`` over T + 1 edges: the last one is held to the end of its step."""
    return light(np.concatenate([values, values[..., -1:]], axis=-1))
