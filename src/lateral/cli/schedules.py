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
    blank = frame["port"].isna()
    frame["port"] = pd.to_numeric(frame["port"], errors="coerce").mask(blank, 0.0)
    _check_ports(frame[~blank], path)
    frame = frame.sort_values("port", kind="stable")  # rows of the dispatch are in the order of the ports
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


def _check_ports(rows: pd.DataFrame, path: Path) -> None:
    """Raise unless the ports of every element are numbered 1, 2, ... without a gap.

    Raises:
        CaseError: with every element whose ports are not.
    """
    faults = []
    for label, own in rows.groupby("element", sort=False)["port"]:
        numbers = sorted(own.unique().tolist())
        if numbers != list(range(1, len(numbers) + 1)):
            found = f"ports {', '.join('no number' if n != n else f'{n:g}' for n in numbers)} in {path.name}"
            allowed = "ports 1, 2, ... without a gap"
            faults.append(Fault("IO-064 schedule", str(label), found, allowed, "Use schedule.csv of a solve."))
    if faults:
        raise CaseError(faults)


__all__ = ["read_schedule"]
