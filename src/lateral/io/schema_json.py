"""JSON Schema of the two TOML files, for editors and for other programs."""

from __future__ import annotations

from typing import Any

from lateral.io.study import StudyFile
from lateral.io.tables import CaseFile


def case_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of ``case.toml``."""
    return _schema(CaseFile, "case.toml of a lateral case folder")


def study_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a study file."""
    return _schema(StudyFile, "study file of lateral")


def _schema(model: type[CaseFile] | type[StudyFile], title: str) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(), "title": title}


__all__ = ["case_schema", "study_schema"]
