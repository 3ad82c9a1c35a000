"""Two small charts as SVG text, for pages of the documentation: no browser is needed to draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from lateral.plots.style import CYCLE, GRID, INK, MUTED, PAPER

WIDTH, HEIGHT = 720, 400
#: Room for the axes and, at the right, for names beside the ends of lines.
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 40, 52
#: Least distance of two names, pixels.
APART = 15
FONT = "font-family='system-ui, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif'"


def log_chart(series: Mapping[str, Sequence[tuple[float, float]]], *, title: str, x_title: str, y_title: str) -> str:
    """Lines over two logarithmic axes; a line is named at its right end, in the order of the mapping.

    Args:
        series: points (x, y) by name, all above zero; empty ones are left out, and keep their colour.
        title: heading.
        x_title: what x is.
        y_title: what y is.
    """
    given = {name: sorted(points) for name, points in series.items() if points}
    if not given:
        return _page(title, [])
    xs, ys = zip(*(p for points in given.values() for p in points), strict=True)
    x_low, x_high = _decades(xs)
    y_low, y_high = _decades(ys)

    def at(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(x) - x_low) / (x_high - x_low)
        up = TOP + (HEIGHT - TOP - BOTTOM) * (y_high - math.log10(y)) / (y_high - y_low)
        return right, up

    parts = []
    for k in range(x_low, x_high + 1):
        x, _ = at(10.0**k, 10.0**y_low)
        parts.append(f"<line x1='{x:.1f}' y1='{TOP}' x2='{x:.1f}' y2='{HEIGHT - BOTTOM}' stroke='{GRID}'/>")
        parts.append(_text(x, HEIGHT - BOTTOM + 18, _power(k), anchor="middle"))
    for k in range(y_low, y_high + 1):
        _, y = at(10.0**x_low, 10.0**k)
        parts.append(f"<line x1='{LEFT}' y1='{y:.1f}' x2='{WIDTH - RIGHT}' y2='{y:.1f}' stroke='{GRID}'/>")
        parts.append(_text(LEFT - 8, y + 4, _power(k), anchor="end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_title, anchor="middle"))
    parts.append(_text(LEFT, TOP - 8, y_title))
    ends = {name: at(*points[-1])[1] for name, points in given.items()}
    places = _spread(ends)
    colours = {name: CYCLE[k % len(CYCLE)] for k, name in enumerate(series)}
    for name, points in given.items():
        colour, corners = colours[name], [at(*p) for p in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>" for x, y in corners]
        last = corners[-1]
        label = max(last[0] + 10, WIDTH - RIGHT + 10)
        parts.append(
            f"<line x1='{last[0] + 4:.1f}' y1='{last[1]:.1f}' x2='{label - 3:.1f}' y2='{places[name]:.1f}' "
            f"stroke='{colour}' stroke-opacity='0.4'/>"
        )
        parts.append(_text(label, places[name] + 4, name, colour=colour))
    return _page(title, parts)


def share_chart(rows: Mapping[str, Mapping[str, float]], *, title: str) -> str:
    """Stacked bars, one per row, of the shares of its parts; the parts are named below."""
    names = list(dict.fromkeys(part for row in rows.values() for part in row))
    colours = {name: (*CYCLE, "#9aa5b1", "#d4b483")[k % (len(CYCLE) + 2)] for k, name in enumerate(names)}
    width = WIDTH - 2 * LEFT - 20
    parts: list[str] = []
    for k, (label, row) in enumerate(rows.items()):
        y, x, whole = TOP + 8 + 30 * k, LEFT + 40.0, sum(row.values())
        parts.append(_text(x - 8, y + 15, label, anchor="end"))
        for name in names:
            share = max(row.get(name, 0.0), 0.0) / max(whole, 1e-12)
            parts.append(
                f"<rect x='{x:.1f}' y='{y}' width='{share * width:.1f}' height='22' fill='{colours[name]}'>"
                f"<title>{escape(name)}: {share:.0%}</title></rect>"
            )
            if share > 0.06:
                parts.append(_text(x + share * width / 2, y + 15, f"{share:.0%}", anchor="middle", colour=PAPER))
            x += share * width
    below = TOP + 8 + 30 * len(rows) + 24
    for k, name in enumerate(names):
        x, y = LEFT + 40 + 175 * (k % 3), below + 20 * (k // 3)
        parts.append(f"<rect x='{x}' y='{y - 10}' width='12' height='12' fill='{colours[name]}'/>")
        parts.append(_text(x + 18, y, name))
    return _page(title, parts, height=below + 20 * ((len(names) + 2) // 3) + 4)


def _page(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' "
        f"role='img' aria-label='{escape(title, quote=True)}'>"
    )
    back = f"<rect width='{WIDTH}' height='{height}' fill='{PAPER}'/>"
    top = f"<text x='{LEFT}' y='20' {FONT} font-size='14' font-weight='600' fill='{INK}'>{escape(title)}</text>"
    return "\n".join([head, back, top, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = MUTED) -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {place} {FONT} font-size='12' fill='{colour}'>{escape(text)}</text>"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _power(k: int) -> str:
    return f"{10**k:,}" if 0 <= k < 7 else f"{10.0**k:g}"


def _spread(ends: Mapping[str, float]) -> dict[str, float]:
    """Heights of names, top to bottom, far enough apart to be read."""
    out: dict[str, float] = {}
    last = -math.inf
    for name, y in sorted(ends.items(), key=lambda item: item[1]):
        last = max(y, last + APART)
        out[name] = last
    return out
