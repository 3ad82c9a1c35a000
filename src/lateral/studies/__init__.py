"""Studies: they use `lateral.opf` and add no equations."""

from __future__ import annotations

from lateral.studies.comparison import Comparison, compare, comparison_figure, plain_rows
from lateral.studies.sweeps import AXES, sweep, varied

__all__ = ["AXES", "Comparison", "compare", "comparison_figure", "plain_rows", "sweep", "varied"]
