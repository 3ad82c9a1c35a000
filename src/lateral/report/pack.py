"""The numbers of the report's figures, packed: every voltage is stored once, in 16 bits, for three figures."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import unescape
from typing import TYPE_CHECKING, Any

import numpy as np

from lateral.network.schema import FloatArray
from lateral.plots import style
from lateral.plots.data import View, Voltages
from lateral.plots.voltage import (
    about_buses,
    branch_pairs,
    colour_range,
    device_marks,
    distance_title,
    heatmap_order,
    marker_size,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: The day without control is left out of the map when there are more voltages than this.
BASELINE_CELLS = 1_000_000
#: Stands for a voltage that is not known.
ABSENT = 65535


def packed(array: np.ndarray[Any, Any], kind: str) -> str:
    """An array as base64 of its bytes, little-endian."""
    return base64.b64encode(np.ascontiguousarray(array).astype(f"<{kind}").tobytes()).decode("ascii")


def quantised(v: FloatArray, low: float, step: float) -> FloatArray:
    """Voltages as integers ``(v - low) / step``; `ABSENT` where a voltage is not finite."""
    with np.errstate(invalid="ignore"):
        level = np.clip(np.rint((v - low) / step), 0, ABSENT - 1)
    return np.where(np.isfinite(v), level, ABSENT)


def voltage_sets(view: View, baseline: Voltages | None) -> list[tuple[str, Voltages]]:
    """What the map can show: the schedule first, then the day without control."""
    which = "where it stopped" if view.result.stopped else "schedule"
    sets = [(which, view.optimum)] if view.result.has_schedule else []
    if baseline is not None and np.isfinite(baseline.v_pu).any():
        fits = not sets or (
            np.array_equal(baseline.bus, sets[0][1].bus) and np.array_equal(baseline.conductor, sets[0][1].conductor)
        )
        if fits and (not sets or baseline.v_pu.size <= BASELINE_CELLS):
            sets.append(("without control", baseline))
    return sets


def voltage_data(view: View, sets: list[tuple[str, Voltages]], step: int) -> dict[str, Any]:
    """What the script needs to draw the map, the profile and the heat map at any step.

    Names and other texts are as they are: the script draws them as text, never as markup.
    """
    first = sets[0][1]
    values = np.concatenate([v.v_pu[np.isfinite(v.v_pu)] for _, v in sets])
    low, high = float(values.min()), float(values.max())
    resolution = max((high - low) / (ABSENT - 1), 1e-7)
    bus, _, _ = first.worst
    starts = np.searchsorted(first.bus, bus)
    hours = np.concatenate([[0.0], np.cumsum(view.result.case.horizon.step_h)])
    far, unit = view.distance
    about = about_buses(view)
    # the limits of JSON: infinity is not a number there
    return {
        "nodes": len(first.bus),
        "steps": first.v_pu.shape[1],
        "low": low,
        "resolution": resolution,
        "sets": [{"label": label, "values": packed(quantised(v.v_pu, low, resolution), "u2")} for label, v in sets],
        "starts": packed(np.r_[starts, len(first.bus)], "i4"),
        "conductor": packed(first.conductor, "i4"),
        "upstream": packed(view.upstream, "i4"),
        "lowest": packed(np.where(np.isfinite(first.low_pu), first.low_pu, -1.0), "f4"),
        "highest": packed(np.where(np.isfinite(first.high_pu), first.high_pu, 99.0), "f4"),
        "distance": packed(far[first.bus], "f4"),
        "unit": unit,
        "distanceTitle": distance_title(unit),
        "conductors": _conductors(first),
        "limits": [v if np.isfinite(v) else None for v in first.limits],
        # buses that have a node, and the rows of the heat map by their number among them
        "bus": packed(bus, "i4"),
        "order": packed(heatmap_order(view, bus), "i4"),
        "names": [view.names[k] for k in bus.tolist()],
        "about": {str(b): about[k] for b, k in enumerate(bus.tolist()) if about[k]},
        # all buses, also those without a voltage
        "x": packed(_centred(view.places.x), "f4"),
        "y": packed(_centred(view.places.y), "f4"),
        "drawn": view.places.drawn,
        "closed": packed(branch_pairs(view, closed=True), "i4"),
        "open": packed(branch_pairs(view, closed=False), "i4"),
        "devices": [
            {"label": m.label, "symbol": m.symbol, "colour": m.colour, "size": m.size, "at": packed(m.buses, "i4")}
            for m in device_marks(view)
        ],
        "size": marker_size(len(bus)),
        "range": list(colour_range(first)),
        "scale": style.VOLTAGE_SCALE,
        "hours": hours.tolist(),
        "begin": view.edges[0],
        # a title of plotly, which is escaped; the script draws text
        "timeTitle": unescape(view.time_title),
        "stamps": view.stamps,
        "step": step,
    }


def _centred(values: FloatArray) -> FloatArray:
    """Coordinates around zero: as 32-bit numbers, large ones would lose their metres."""
    return values - (float(np.nanmin(values)) + float(np.nanmax(values))) / 2.0 if len(values) else values


def _conductors(volts: Voltages) -> list[dict[str, Any]]:
    """Conductors with their names and colours."""
    found = sorted(set(volts.conductor.tolist()))
    if len(found) == 1:
        return [{"number": found[0], "label": "voltage", "colour": style.BLUE}]
    return [{"number": c, "label": f"conductor {c}", "colour": style.CONDUCTORS.get(c, style.MUTED)} for c in found]


def data_block(
    figures: Mapping[str, go.Figure], voltages: Mapping[str, Any] | None, areas: Mapping[str, Any] | None = None
) -> str:
    """All figures and numbers as JSON that is safe inside an HTML script element."""
    parts = ",".join(f"{json.dumps(name)}:{fig.to_json(remove_uids=True)}" for name, fig in figures.items())
    text = f'{{"figures":{{{parts}}},"voltages":{json.dumps(voltages)},"areas":{json.dumps(areas)}}}'
    # "</script>" and "<!--" in a name would end the element; as escapes they are the same JSON
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


__all__ = ["data_block", "packed", "quantised", "voltage_data", "voltage_sets"]
