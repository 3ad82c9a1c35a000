"""Studies: they use `lateral.opf` and add no equations."""

from __future__ import annotations

from lateral.studies.compare import Comparison, compare, comparison_figure, plain_rows
from lateral.studies.sweep import AXES, sweep, varied

__all__ = ["AXES", "Comparison", "compare", "comparison_figure", "plain_rows", "sweep", "varied"]
