"""Areas: how areas came to agree. Plain data in: nothing here knows how a run over areas is made.

``run`` being what `lateral.solve_areas` gives::

    plot_residuals([r.residuals for r in run.rounds], tolerance=1e-6)
    plot_gap(run.gap_per_round)
    plot_borders([r.held["15-117"] for r in run.rounds], (1,), step=3)
    plot_areas(run.result.case, partition.bus_area)
    plot_times([r.seconds for r in run.rounds], [r.critical for r in run.rounds])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lateral.errors import OptionError
from lateral.network.schema import FloatArray
from lateral.plots import style
from lateral.plots.area_map import area_colours
from lateral.plots.data import shown

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: What crosses a border: quantity -> title of its panel. Squared voltages are shown as magnitudes.
PANELS = {
    "v": "voltage, pu",
    "v_re": "voltage, real part, pu",
    "v_im": "voltage, imaginary part, pu",
    "vv_re": "product with the next conductor, real part, pu²",
    "vv_im": "product with the next conductor, imag. part, pu²",
    "p": "P, kW",
    "q": "Q, kvar",
    "price_p": "price of P, per kWh",
    "price_q": "price of Q, per kvarh",
    "price_v": "price of voltage, per pu²",
    "price_v_re": "price of voltage, real part, per pu",
    "price_v_im": "price of voltage, imaginary part, per pu",
}
#: Sides of a border where both say the same quantity: suffix -> (words, dash).
SIDES = {"": ("", "solid"), "up": ("said below", "solid"), "down": ("said above", "dot")}


def plot_residuals(
    residuals: Sequence[Mapping[str, float]], *, tolerance: float | None = None, built_again: Sequence[int] = ()
) -> go.Figure:
    """How far areas are from agreeing at each border, round by round, on a logarithmic axis.

    Args:
        residuals: of each round, by border; as the algorithm scales them.
        tolerance: where the areas agree, drawn as a line.
        built_again: rounds after which areas were built again, or went on from another point: dotted lines.
    """
    import plotly.graph_objects as go

    fig = style.figure(height=400)
    names = list(dict.fromkeys(name for one in residuals for name in one))
    if not names:
        return style.say_instead(fig, "One area has no borders.")
    worst = sorted(names, key=lambda name: -_finite(residuals[-1].get(name, np.nan)))
    coloured = dict(zip(worst, style.CYCLE, strict=False))
    rounds = list(range(1, len(residuals) + 1))
    for name in (*worst[len(style.CYCLE) :], *(n for n in names if n in coloured)):
        fig.add_trace(
            go.Scatter(
                x=rounds,
                y=_positive([one.get(name, np.nan) for one in residuals]),
                mode="lines+markers" if name in coloured else "lines",
                name=shown(name) if name in coloured else "other borders",
                showlegend=name in coloured or name == worst[-1],
                legendgroup=None if name in coloured else "other",
                line={"color": coloured.get(name, "#c3cad1"), "width": 2 if name in coloured else 1},
                marker={"size": 5},
                hovertemplate=f"border {shown(name)}, round %{{x}}<br><b>%{{y:.2e}}</b><extra></extra>",
            )
        )
    if tolerance is not None:
        _level(fig, tolerance, f"tolerance {tolerance:g}")
    for number in built_again:
        fig.add_vline(x=number + 0.5, line={"color": "#8a949e", "width": 1, "dash": "dot"})
    _log_axes(fig, "residual", len(residuals))
    return fig


def plot_gap(gap: Sequence[float], *, bar: float | None = None) -> go.Figure:
    """The gap of each round to the central optimum, its size on a logarithmic axis.

    A value below the optimum (an open mark) is not a better schedule: areas that do not agree yet leave out what
    agreeing will cost.

    Args:
        gap: (sum of the areas' objectives - central) / central, after each round.
        bar: a gap to compare with, drawn as a line.
    """
    import plotly.graph_objects as go

    fig = style.figure(height=400)
    values = np.asarray(gap, dtype=float)
    if not np.isfinite(values).any():
        return style.say_instead(fig, "There is no central solve to compare with.")
    rounds = list(range(1, len(values) + 1))
    fig.add_trace(
        go.Scatter(
            x=rounds,
            y=_positive(np.abs(values)),
            mode="lines",
            line={"color": style.BLUE, "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for label, symbol, mine in (
        ("above the central optimum", "circle", values >= 0),
        ("below: areas do not agree yet, or within the solvers' accuracy", "circle-open", values < 0),
    ):
        if mine.any():
            at = np.flatnonzero(mine)
            fig.add_trace(
                go.Scatter(
                    x=[rounds[k] for k in at],
                    y=_positive(np.abs(values[at])),
                    mode="markers",
                    name=label,
                    customdata=values[at].tolist(),
                    marker={
                        "symbol": symbol,
                        "size": 8,
                        "color": style.BLUE,
                        "line": {"width": 1.8, "color": style.BLUE},
                    },
                    hovertemplate="round %{x}<br><b>%{customdata:.2e}</b><extra></extra>",
                )
            )
    if bar is not None:
        _level(fig, bar, f"{bar:g}")
    _log_axes(fig, "gap to central, relative", len(gap))
    return fig


@dataclass(frozen=True, eq=False)
class Track:
    """One line of `plot_borders`: a quantity of one conductor, as one side said it.

    Attributes:
        quantity: key of `PANELS`.
        side: key of `SIDES`.
        conductor: number.
        values: as drawn, shape (rounds, T); NaN where the border does not have it.
    """

    quantity: str
    side: str
    conductor: int
    values: FloatArray


def border_tracks(
    rounds: Sequence[Mapping[str, FloatArray]],
    conductors: Sequence[int],
    *,
    every: Sequence[int] | None = None,
    keys: Sequence[str] | None = None,
) -> list[Track]:
    """The lines of `plot_borders`, of all steps.

    Args:
        rounds: values of one border after each round, by quantity, each of shape (conductors, T). Where both sides say
            a quantity x, also ``x.up`` and ``x.down``; these are then shown, and their mean is not.
        conductors: that cross.
        every: conductors to give lines for; absent: those that cross.
        keys: quantities to give lines for; absent: those of the last round.
    """
    wanted = list(rounds[-1] if keys is None and rounds else keys or ())
    sided = {key.split(".")[0] for key in wanted if "." in key}
    n_steps = max((np.shape(a)[-1] for one in rounds for a in one.values()), default=0)
    out = []
    for quantity in PANELS:
        for key in wanted:
            base, _, side = key.partition(".")
            if base != quantity or (not side and base in sided) or side not in SIDES:
                continue
            for c in conductors if every is None else every:
                values = np.full((len(rounds), n_steps), np.nan)
                for r, one in enumerate(rounds):
                    if key in one and c in conductors:
                        values[r] = np.asarray(one[key], dtype=float)[list(conductors).index(c)]
                if base == "v":
                    values = np.sqrt(np.maximum(values, 0.0))
                out.append(Track(quantity, side, c, values))
    return out


def plot_borders(
    rounds: Sequence[Mapping[str, FloatArray]],
    conductors: Sequence[int],
    *,
    step: int = 0,
    every: Sequence[int] | None = None,
    keys: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
) -> go.Figure:
    """What crosses a border at one step, round by round: voltage, power, and prices where there are any.

    Args:
        rounds: see `border_tracks`.
        conductors: that cross.
        step: the step.
        every: see `border_tracks`.
        keys: see `border_tracks`.
        numbers: of the rounds; absent: from 1 on.

    Raises:
        OptionError: there is no such step.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    tracks = border_tracks(rounds, conductors, every=every, keys=keys)
    found = [q for q in PANELS if any(t.quantity == q for t in tracks)]
    if not found:
        return style.say_instead(style.figure(height=280), "Nothing crossed a border.")
    n_steps = tracks[0].values.shape[1]
    if not -n_steps <= step < n_steps:
        message = f"there is no step {step}; the horizon has {n_steps}, counted from 0"
        raise OptionError(message)
    n_rows = (len(found) + 2) // 3
    fig = make_subplots(
        rows=n_rows,
        cols=3,
        subplot_titles=[PANELS[q] for q in found],
        horizontal_spacing=0.09,
        vertical_spacing=0.2 if n_rows > 1 else None,
        figure=style.figure(height=120 + 230 * n_rows),
    )
    style.style_axes(fig)
    several = len({t.conductor for t in tracks}) > 1
    named: set[str] = set()
    for t in tracks:
        place = found.index(t.quantity)
        words = [f"conductor {t.conductor}" if several else "", SIDES[t.side][0]]
        name = ", ".join(w for w in words if w)
        fig.add_trace(
            go.Scatter(
                x=list(numbers or range(1, len(rounds) + 1)),
                y=style.light(t.values[:, step]),
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=bool(name) and name not in named,
                line={
                    "color": style.CONDUCTORS.get(t.conductor, style.MUTED) if several else style.BLUE,
                    "width": 1.8,
                    "dash": SIDES[t.side][1],
                },
                marker={"size": 4},
                hovertemplate=f"{name + ', ' if name else ''}round %{{x}}<br><b>%{{y:.6~g}}</b><extra></extra>",
            ),
            row=place // 3 + 1,
            col=place % 3 + 1,
        )
        named.add(name)
    fig.update_layout(
        margin={"t": 64, "b": 92 if len(named) > 1 else 56},
        legend={"y": -0.16 if n_rows > 1 else -0.3, "yanchor": "top"},
    )
    for annotation in fig.layout.annotations:
        annotation.update(font={"size": 13, "color": style.MUTED})
    fig.update_yaxes(exponentformat="power", nticks=6)
    last = numbers[-1] if numbers else len(rounds)
    for place in range(len(found)):
        _round_axis(fig, last, most=8, row=place // 3 + 1, col=place % 3 + 1)
        if place + 3 < len(found):
            fig.update_xaxes(title=None, row=place // 3 + 1, col=place % 3 + 1)
    for place in range(len(found), 3 * n_rows):
        fig.update_xaxes(visible=False, row=place // 3 + 1, col=place % 3 + 1)
        fig.update_yaxes(visible=False, row=place // 3 + 1, col=place % 3 + 1)
    return fig


def plot_times(
    seconds: Sequence[Mapping[str, float]], critical: Sequence[float], *, colours: Mapping[str, str] | None = None
) -> go.Figure:
    """Time of each area in each round, stacked, and the critical path: what a round takes with a machine per area.

    Args:
        seconds: of each round, time of the solves by area, s.
        critical: of each round, s.
        colours: of the areas, as `area_colours` gives them; absent: in the order in which they are found.
    """
    import plotly.graph_objects as go

    fig = style.figure(height=400)
    names = list(dict.fromkeys(name for one in seconds for name in one))
    total = {name: sum(one.get(name, 0.0) for one in seconds) for name in names}
    slowest = sorted(names, key=lambda name: -total[name])[: len(style.CYCLE)]
    if colours is None:
        colours = area_colours(names, {})
    else:
        names = [name for name in colours if name in total]
    rounds = list(range(1, len(seconds) + 1))
    groups = {name: [name] for name in names if name in slowest}
    if len(names) > len(groups):
        groups["other areas"] = [name for name in names if name not in slowest]
    for label, members in groups.items():
        known = label in total
        title = f"area {shown(label)}" if known else label
        fig.add_trace(
            go.Bar(
                x=rounds,
                y=style.light(np.array([sum(one.get(n, 0.0) for n in members) for one in seconds])),
                name=title,
                marker={"color": colours[label] if known else "#c3cad1", "line": {"width": 0}},
                hovertemplate=f"{title}, round %{{x}}<br><b>%{{y:.3f}} s</b><extra></extra>",
            )
        )
    fig.add_trace(
        go.Scatter(
            x=rounds,
            y=style.light(np.asarray(critical, dtype=float)),
            mode="lines+markers",
            name="critical path",
            line={"color": style.INK, "width": 2},
            marker={"size": 6},
            hovertemplate="critical path, round %{x}<br><b>%{y:.3f} s</b><extra></extra>",
        )
    )
    fig.update_layout(barmode="stack", bargap=0.25)
    _round_axis(fig, len(seconds), most=24)
    fig.update_yaxes(title=style.titled("time of the solves, s"), rangemode="tozero")
    _legend_below(fig)
    return fig


def _finite(value: float) -> float:
    return value if np.isfinite(value) else np.inf


def _positive(values: Sequence[float] | FloatArray) -> list[float | None]:
    """Values for a logarithmic axis: what has no logarithm is a gap."""
    return [float(v) if np.isfinite(v) and v > 0 else None for v in values]


def _level(fig: go.Figure, value: float, text: str) -> None:
    """A level on a logarithmic axis, with its value."""
    fig.add_hline(y=value, line={"color": style.MUTED, "width": 1.2, "dash": "dash"})
    fig.add_annotation(
        text=text,
        x=0.01,
        xref="x domain",
        xanchor="left",  # lines begin high above it
        y=float(np.log10(value)),  # plotly places annotations by the exponent, and shapes by the value
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": style.MUTED},
    )


def _log_axes(fig: go.Figure, title: str, n_rounds: int) -> None:
    _round_axis(fig, n_rounds)
    found = np.array([y for t in fig.data for y in t.y if y is not None], dtype=float)
    wide = found.size > 0 and found.max() > 100.0 * found.min()
    fig.update_yaxes(title=style.titled(title), type="log", exponentformat="power", dtick=1 if wide else None)
    _legend_below(fig)


def _round_axis(fig: go.Figure, n_rounds: int, *, most: int = 12, **where: int) -> None:
    """Ticks at whole rounds, ``most`` of them at most."""
    size = next(s for k in range(9) for s in (10**k, 2 * 10**k, 5 * 10**k) if n_rounds <= most * s)
    fig.update_xaxes(
        title=style.titled("round"), tick0=1 if size == 1 else 0, dtick=size, range=[0.5, n_rounds + 0.5], **where
    )


def _legend_below(fig: go.Figure) -> None:
    """The legend under the plot, where it may have several rows."""
    area = fig.layout.height - 150
    fig.update_layout(margin={"t": 40, "b": 110}, legend={"y": -62 / area, "yanchor": "top"})


__all__ = [
    "PANELS",
    "SIDES",
    "Track",
    "border_tracks",
    "plot_borders",
    "plot_gap",
    "plot_residuals",
    "plot_times",
]
