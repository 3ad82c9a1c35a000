"""Reading a schedule that ``lateral solve --out`` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lateral.case import Case
from lateral.errors import CaseError, Fault
from lateral.io.dispatch import Dispatch

_COLUMNS = ("time", "element", "p_kw", "q_kvar")


def read_schedule(path: Path, case: Case) -> Dispatch:
    """The set-points in a ``schedule.csv``.

    Raises:
        CaseError: the file cannot be read, lacks a column, holds what is no number, or does not fit the case.
    """
    try:
        frame = pd.read_csv(path, dtype={"element": str})
    except (OSError, ValueError) as error:
        found = str(error).splitlines()[0]
        fault = Fault("IO-064 schedule", f"file.{path.name}", found, "a schedule.csv", "Check the path.")
        raise CaseError([fault]) from None
    missing = [c for c in _COLUMNS if c not in frame.columns]
    if missing:
        found, allowed = f"no column {', '.join(missing)}", ", ".join(_COLUMNS)
        fault = Fault("IO-064 schedule", f"file.{path.name}", found, allowed, "Use schedule.csv of a solve.")
        raise CaseError([fault])
    p: dict[str, np.ndarray] = {}
    q: dict[str, np.ndarray] = {}
    for label, rows in frame.groupby("element", sort=False):
        ordered = rows.iloc[np.argsort(pd.to_datetime(rows["time"], utc=True, errors="coerce").to_numpy())]
        p[str(label)] = pd.to_numeric(ordered["p_kw"], errors="coerce").to_numpy(dtype=float)
        q[str(label)] = pd.to_numeric(ordered["q_kvar"], errors="coerce").to_numpy(dtype=float)
    dispatch = Dispatch(p_kw=p, q_kvar=q)
    dispatch.check(case)
    return dispatch


__all__ = ["read_schedule"]
