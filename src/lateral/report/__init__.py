"""The report: one HTML file of a result, for people, that works without a network connection."""

from __future__ import annotations

from lateral.report.write import write_report

__all__ = ["write_report"]
