"""The IEEE 8500-node feeder with unbalanced loads, read from OpenDSS files that are not part of the package."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from benchmarks.models.three_phase import day
from benchmarks.models.three_phase import with_ders as master_with_ders
from benchmarks.registry import BenchModel
from lateral.case import Case

#: Where the feeders lie: beside the repository, or where the variable says.
FEEDERS = Path(os.environ.get("LATERAL_FEEDERS", Path(__file__).parents[3] / "shared" / "feeders"))
MASTER = FEEDERS / "ieee8500" / "Master-unbal.dss"
#: Limits that the feeder can keep; without control it reaches down to about 0.87 pu at full load.
V_MIN_PU, V_MAX_PU = 0.85, 1.15


def with_ders(n_steps: int) -> Case:
    """The feeder with a day of load, sun and price, PV at 20 % and batteries at 10 % of its load buses."""
    return master_with_ders(MASTER, (V_MIN_PU, V_MAX_PU), n_steps)


def _feeder(n_steps: int) -> BenchModel:
    return BenchModel(
        name=f"ieee8500-{n_steps}/lindist3flow",
        size="large",
        case=partial(with_ders, n_steps),
        warm_up=partial(day, "ieee13", 2),
        formulation="lindist3flow",
        limits="voltage",
        repeats=1,
        timeout_s=600.0,
        available=MASTER.is_file,
    )


MODELS = (_feeder(24),)
