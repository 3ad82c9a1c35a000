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
    ports: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    settings: dict[str, np.ndarray] = {}
    for column in ("port", "setting"):
        if column not in frame.columns:
            frame[column] = np.nan
    frame["port"] = pd.to_numeric(frame["port"], errors="coerce").fillna(0.0)
    for (label, port), rows in frame.groupby(["element", "port"], sort=False):
        ordered = rows.iloc[np.argsort(pd.to_datetime(rows["time"], utc=True, errors="coerce").to_numpy())]
        p_k, q_k, setting = (
            pd.to_numeric(ordered[column], errors="coerce").to_numpy(dtype=float)
            for column in ("p_kw", "q_kvar", "setting")
        )
        if port:
            own = ports.setdefault(str(label), ([], []))
            own[0].append(p_k)
            own[1].append(q_k)
        elif ordered["setting"].notna().any():
            settings[str(label)] = setting
        else:
            p[str(label)], q[str(label)] = p_k, q_k
    uneven = [label for label, own in ports.items() if len({row.shape for row in own[0]}) > 1]
    if uneven:
        found, allowed = f"ports of {uneven[0]} with different numbers of steps", "as many rows for each"
        fault = Fault("IO-064 schedule", f"file.{path.name}", found, allowed, "Use schedule.csv of a solve.")
        raise CaseError([fault])
    by_port = {label: (np.array(p_k), np.array(q_k)) for label, (p_k, q_k) in ports.items()}
    dispatch = Dispatch(p_kw=p, q_kvar=q, ports=by_port, settings=settings)
    dispatch.check(case)
    return dispatch


__all__ = ["read_schedule"]
