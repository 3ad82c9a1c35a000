"""Plots of a result, one function each, as plotly figures; `save` writes one to a file.

Every function takes a `lateral.Result` and returns a `plotly.graph_objects.Figure`; those called ``plot_..`` take plain
numbers of a run over areas, see `lateral.plots.areas`. plotly is imported when the first
figure is made. Names of elements are untrusted text: they are escaped, since plotly reads a little HTML in its labels.
"""

from __future__ import annotations

from lateral.plots.area_map import plot_areas
from lateral.plots.areas import plot_borders, plot_gap, plot_residuals, plot_times
from lateral.plots.compare import baseline_vs_optimum, loading, replay_errors
from lateral.plots.save import save
from lateral.plots.schedule import dispatch_stack, dlmp, reactive, soc
from lateral.plots.voltage import feeder_map, voltage_distance, voltage_heatmap

__all__ = [
    "baseline_vs_optimum",
    "dispatch_stack",
    "dlmp",
    "feeder_map",
    "loading",
    "plot_areas",
    "plot_borders",
    "plot_gap",
    "plot_residuals",
    "plot_times",
    "reactive",
    "replay_errors",
    "save",
    "soc",
    "voltage_distance",
    "voltage_heatmap",
]
