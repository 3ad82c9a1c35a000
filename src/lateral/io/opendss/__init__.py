"""OpenDSS in and out: `read` a model safely, with a report of what became of it; `write_opendss` writes a case."""

from __future__ import annotations

from lateral.io.opendss.read import from_engine, read
from lateral.io.opendss.report import EngineReference, ImportEntry, ImportReport
from lateral.io.opendss.write import write_opendss

__all__ = ["EngineReference", "ImportEntry", "ImportReport", "from_engine", "read", "write_opendss"]
