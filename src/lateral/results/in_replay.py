"""What the replay in OpenDSS says against a schedule, as sentences for its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from lateral.program import ProblemClass
from lateral.results.points import decided

if TYPE_CHECKING:
    from lateral.results.result import Result

#: A voltage of an exact model further than this from its replay is said, and one of the replay beyond its limit, pu.
REPLAY_WARNING_PU = 1e-4
#: The same distance of any other model, pu: linear ones are usually within it, and relaxations that are tight.
USUAL_ERROR_PU = 1e-2
#: A current or a power of the replay further than this beyond its limit is said, share of the limit.
REPLAY_WARNING_SHARE = 1e-3
#: A voltage counts as violated when it is further than this outside its limit, pu.
VIOLATION_TOLERANCE_PU = 1e-5
#: What a replay can violate, as words, one and many, in the order of telling.
REPLAY_QUANTITIES: Mapping[str, tuple[str, str]] = {
    "v": ("voltage to ground", "voltages to ground"),
    "vpp": ("voltage between phases", "voltages between phases"),
    "vpn": ("voltage to a neutral", "voltages to a neutral"),
    "unbalance": ("voltage unbalance", "voltage unbalances"),
    "current": ("current", "currents"),
    "power": ("transformer power", "transformer powers"),
    "p_source": ("active power of a source", "active powers of sources"),
    "q_source": ("reactive power of a source", "reactive powers of sources"),
    "s_source": ("apparent power of a source", "apparent powers of sources"),
}


class ReplayLike(Protocol):
    """What a result needs to know of its replay; see `lateral.replay.Replay`."""

    @property
    def seconds(self) -> float:
        """Wall time."""

    def summary(self) -> dict[str, Any]:
        """Plain data."""

    def violations(self, tolerance_pu: float) -> pd.DataFrame:
        """Voltages to ground outside their limits by more than a tolerance: bus, conductor, step, time, v_pu, limit_pu,
        worst first."""

    def other_violations(self, tolerance_pu: float, tolerance_share: float) -> pd.DataFrame:
        """Other limits that are exceeded by more than a tolerance: quantity, element, step, time, value, limit, unit,
        worst first in each quantity."""

    def inverters_outside_window(self) -> pd.DataFrame:
        """Inverters that OpenDSS turned into impedances: device (its label), step, time, v_pu, limit_pu, worst
        first."""


def counted(counts: Mapping[str, int]) -> str:
    """Violations by quantity as words: ``3 voltages to ground, 1 current``; empty for none."""
    words = [(counts[name], *pair) for name, pair in REPLAY_QUANTITIES.items() if counts.get(name)]
    return ", ".join(f"{n:,} {one if n == 1 else many}" for n, one, many in words)


def against_replay(result: Result) -> list[str]:
    """What the replay says against the model: its voltages should be those of OpenDSS, but for what it neglects or
    relaxes, and what it keeps within limits should be within them there."""
    if result.replay is None:
        return []
    found, out = result.replay.summary(), []
    exact = result.program.problem_class is ProblemClass.NLP
    usual = REPLAY_WARNING_PU if exact else USUAL_ERROR_PU
    away = found.get("max_dv_pu")
    if away is not None and away > usual:
        if exact:
            more = f", where an exact model should be within {usual:.0e}"
            more += ": there the schedule is not what the model says"
        elif result.relaxes:
            more = ": those of the relaxation are no schedule's"
        else:
            more = f", more than the {usual:g} pu usual of a model that is not exact: an exact form says what is there"
        said = f"but OpenDSS has other voltages, by up to {away:.2g} pu at {found.get('worst_node')}{more}"
        out.append(said + _outside_window(result, result.replay))
    beyond, at_sources = _beyond_in_replay(result, result.replay)
    if len(at_sources):
        w = at_sources.iloc[0]
        out.append(
            f"but the voltage at the bus of a source is given, whatever its limits: worst {w.v_pu:.5g} pu at "
            f"{w.bus}.{w.conductor} at {w.time:%H:%M}, limit {w.limit_pu:g}"
        )
    if len(beyond):
        w = beyond.iloc[0]
        some = f"{len(beyond)} voltages are" if len(beyond) > 1 else "1 voltage is"
        out.append(
            f"but in OpenDSS {some} beyond limits that the model keeps, worst {w.v_pu:.5g} pu at "
            f"{w.bus}.{w.conductor} at {w.time:%H:%M}, limit {w.limit_pu:g}"
        )
    out += _others_in_replay(result, result.replay)
    if lost := found.get("n_not_converged"):
        out.append(f"but OpenDSS does not converge at {lost} step{'' if lost == 1 else 's'}")
    return out


def _outside_window(result: Result, run: ReplayLike) -> str:
    """Inverters of the program that are impedances in the replay, as the end of a sentence: empty for none."""
    found = run.inverters_outside_window()
    found = found[found["device"].isin(decided(result.program))]
    if found.empty:
        return ""
    w, others = found.iloc[0], found["device"].nunique() - 1
    more = f" and {others} more" if others else ""
    edge = "v_max_pu" if w.v_pu > w.limit_pu else "v_min_pu"
    return (
        f"; OpenDSS makes an impedance of {w.device}{more}, which at {w.v_pu:.4g} pu is beyond its {edge} of "
        f"{w.limit_pu:g}, where the model keeps its power"
    )


def _beyond_in_replay(result: Result, run: ReplayLike) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Voltages of the replay, by node and step, beyond limits that the model's are within; and those at the buses of
    sources, which no model holds to their limits."""
    beyond = run.violations(REPLAY_WARNING_PU)
    at = [result.network.position.get(node, -1) for node in zip(beyond["bus"], beyond["conductor"], strict=True)]
    row, step = np.array(at, dtype=np.int64), beyond["step"].to_numpy(dtype=np.int64)
    v = np.sqrt(np.maximum(result.value("bus.vmag_sq"), 0.0))[row, step]
    limit = beyond["limit_pu"].to_numpy(dtype=float)
    low = beyond["v_pu"].to_numpy(dtype=float) < limit
    # a model that leaves a node out, such as a neutral, says nothing of it
    within = (row >= 0) & (np.where(low, limit - v, v - limit) <= VIOLATION_TOLERANCE_PU)
    sources = {s.bus for s in result.case.sources}
    given = ~within & beyond["bus"].isin(sources).to_numpy(dtype=bool)
    return beyond[within].reset_index(drop=True), beyond[given].reset_index(drop=True)


def _others_in_replay(result: Result, run: ReplayLike) -> list[str]:
    """Limits that the replay violates beside those of the voltage to ground, a sentence for each quantity; a model
    that is solved keeps all that it takes."""
    found = run.other_violations(REPLAY_WARNING_PU, REPLAY_WARNING_SHARE)
    which = "limits that the model keeps" if result.ok else "their limits"
    out = []
    for quantity, (one, many) in REPLAY_QUANTITIES.items():
        own = found[found["quantity"] == quantity]
        if len(own):
            w = own.iloc[0]
            some = f"{len(own)} {many} are" if len(own) > 1 else f"1 {one} is"
            unit = f" {w.unit}" if w.unit else ""
            out.append(
                f"but in OpenDSS {some} beyond {which}, worst {w.value:.5g}{unit} at {w.element} at {w.time:%H:%M}, "
                f"limit {w.limit:g}"
            )
    return out


__all__ = ["REPLAY_QUANTITIES", "VIOLATION_TOLERANCE_PU", "ReplayLike", "against_replay", "counted"]
