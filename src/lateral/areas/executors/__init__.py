"""Executors: where areas are solved. One file each; what they need beyond lateral is imported on use."""

from __future__ import annotations

from lateral.areas.executors.base import Executor
from lateral.areas.executors.serial import Serial

__all__ = ["Executor", "Serial"]
