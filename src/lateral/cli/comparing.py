"""``lateral compare``: the table on the screen, as JSON, and as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lateral.cli.failures import OF_STATUS, Exit
from lateral.cli.folder import fresh_folder
from lateral.cli.screen import number, table, to_json
from lateral.errors import OptionError, did_you_mean
from lateral.plots.save import save
from lateral.studies.comparison import COLUMNS, comparison_figure
from lateral.studies.sweeps import AXES

#: Options of the solve that every formulation of a comparison gets.
PASSED = ("objective", "terminal", "solver", "loss_term", "limits")
#: Statuses of a comparison in which nothing ended optimal, in the order in which they count: schedules that were found
#: before reasons why there is none, and these before limits and failures.
WORDS = ("degraded", "inaccurate", "infeasible", "locally_infeasible", "unbounded", "limit_reached", "error")
#: Columns of the screen's table: name, heading, digits. Where something else than the cost was minimised that stands in
#: the place of the cost, and what relaxations prove of it, where there are any, in that of the number of variables.
_SHOWN = (
    ("cost", "cost $", 2),
    ("cost_replay", "in OpenDSS $", 2),
    ("losses_kwh", "losses kWh", 1),
    ("losses_replay_kwh", "in OpenDSS kWh", 1),
    ("max_dv_pu", "max dV pu", 6),
    ("n_violations", "violations", 0),
    ("reactive_kvarh", "kvarh", 0),
    ("n_variables", "variables", 0),
    ("solve_s", "solve s", 2),
)


def parse_sweep(given: Sequence[str]) -> tuple[dict[str, list[float]], list[str]]:
    """Axes and further cases out of ``PARAM=V1,V2`` words.

    Raises:
        OptionError: a word of another form, an axis that does not exist, or a value that is no number.
    """
    axes: dict[str, list[float]] = {}
    cases: list[str] = []
    for word in given:
        name, equals, text = word.partition("=")
        values = [v.strip() for v in text.split(",") if v.strip()]
        if not equals or not values:
            message = f"--sweep takes PARAM=V1,V2,..., not {word!r}"
            raise OptionError(message)
        if name == "case":
            cases += values
            continue
        if name not in AXES:
            message = f"there is no sweep over {name!r}. {did_you_mean(name, ['case', *AXES])}"
            raise OptionError(message)
        try:
            axes.setdefault(name, []).extend(float(v) for v in values)
        except ValueError:
            message = f"--sweep {name} takes numbers, not {text!r}"
            raise OptionError(message) from None
    return axes, cases


def outcome(frame: pd.DataFrame) -> str:
    """One word for a comparison: ok where some formulation ended optimal; else the first of `WORDS` that one of them
    ended with; declined where none was solved."""
    found = set(frame["status"])
    if "optimal" in found:
        return "ok"
    return next((word for word in WORDS if word in found), "declined")


def exit_code(word: str) -> Exit:
    """Exit code of an `outcome`; where every formulation declined that of bad input, as in ``lateral solve``."""
    return Exit.OK if word == "ok" else OF_STATUS.get(word, Exit.BAD_INPUT)


def show(frame: pd.DataFrame, title: str, objective: str) -> None:
    """The comparison on the screen; formulations that decline are listed below with their reason."""
    keys = [c for c in frame.columns if c not in COLUMNS]
    columns = list(_SHOWN)
    digits = 2 if objective == "cost" else 4  # a voltage deviation is a few hundredths
    if objective != "cost":
        columns[:2] = [("objective", objective, digits)]
    if bool(frame["bound"].notna().any()):
        columns = [("bound", "bound", digits), *(c for c in columns if c[0] != "n_variables")]
    rows = []
    for row in frame.to_dict("records"):
        if row["status"] == "declined":
            continue
        lead = [f"{row[k]:g}" if isinstance(row[k], float) else str(row[k]) for k in keys]
        numbers = [number(row[c], digits=d) for c, _, d in columns]
        rows.append([*lead, str(row["formulation"]), str(row["status"]), *numbers])
    table([*keys, "formulation", "status", *(heading for _, heading, _ in columns)], rows, title=title)


def write(frame: pd.DataFrame, data: dict[str, Any], title: str, target: Path) -> None:
    """comparison.json, .csv, .parquet and .html; the folder appears whole or not at all."""
    with fresh_folder(target) as folder:
        (folder / "comparison.json").write_text(to_json(data) + "\n", encoding="utf-8")
        frame.to_csv(folder / "comparison.csv", index=False)
        frame.to_parquet(folder / "comparison.parquet", index=False)
        shown = frame.copy()
        keys = [c for c in frame.columns if c not in COLUMNS]
        if keys:  # one label per bar
            label = frame[[*keys, "formulation"]].astype(str).agg(" ".join, axis=1)
            shown["formulation"] = label
        save(comparison_figure(shown, title), folder / "comparison.html")


__all__ = ["PASSED", "exit_code", "outcome", "parse_sweep", "show", "write"]
