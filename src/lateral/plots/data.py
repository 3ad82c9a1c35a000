"""What the plots and the report read off a result, in the order in which they draw it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np
import pandas as pd

from lateral.errors import OptionError
from lateral.network.schema import FloatArray, IntArray
from lateral.network.topology import Tree
from lateral.plots.arrange import BoolArray, Places, distances, places, tree_of
from lateral.replay import Replay
from lateral.results.in_replay import VIOLATION_TOLERANCE_PU
from lateral.results.result import Result

#: Limits that are used to say which of two voltages is worse where a bus has none, pu.
NOMINAL_LIMITS_PU = (0.95, 1.05)
#: Names longer than this are cut in the middle of axis labels.
LABEL_LENGTH = 18


def shown(name: str) -> str:
    """An element name as text for plotly, which reads a little HTML in labels and hover texts."""
    return escape(name, quote=False)


def short(name: str, length: int = LABEL_LENGTH) -> str:
    """A name as an axis label: one that is longer than ``length`` loses its middle."""
    if len(name) > length:
        half = length // 2
        name = f"{name[:half]}…{name[1 - half :]}"
    return shown(name)


@dataclass(frozen=True, eq=False)
class Voltages:
    """Voltages of the energised nodes, bus by bus.

    Attributes:
        bus: position of each node's bus in the feeder, ascending, shape (n,).
        conductor: conductor number of each node, shape (n,).
        v_pu: magnitudes, shape (n, T).
        low_pu: lower limits, shape (n,); -inf for none.
        high_pu: upper limits, shape (n,); inf for none.
        controlled: False when they are those of the day without control.
    """

    bus: IntArray
    conductor: IntArray
    v_pu: FloatArray
    low_pu: FloatArray
    high_pu: FloatArray
    controlled: bool

    @cached_property
    def margin_pu(self) -> FloatArray:
        """Distance to the nearer limit, negative outside; where there is no limit, to 0.95 or 1.05 pu; (n, T)."""
        low = np.where(np.isfinite(self.low_pu), self.low_pu, NOMINAL_LIMITS_PU[0])[:, None]
        high = np.where(np.isfinite(self.high_pu), self.high_pu, NOMINAL_LIMITS_PU[1])[:, None]
        return np.minimum(self.v_pu - low, high - self.v_pu)

    @cached_property
    def outside(self) -> BoolArray:
        """Whether a voltage is outside its limits by more than the tolerance of `Result.violations`, (n, T)."""
        with np.errstate(invalid="ignore"):
            under = self.v_pu < self.low_pu[:, None] - VIOLATION_TOLERANCE_PU
            return np.asarray(under | (self.v_pu > self.high_pu[:, None] + VIOLATION_TOLERANCE_PU))

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The limits that most nodes have, pu; infinite for none."""
        return _most_common(self.low_pu, -np.inf), _most_common(self.high_pu, np.inf)

    @cached_property
    def worst(self) -> tuple[IntArray, FloatArray, IntArray]:
        """The conductor of each bus that is nearest to a limit.

        Returns:
            Positions of the buses that have a node, shape (m,); the voltage of that conductor, pu, shape (m, T); its
            node, shape (m, T).
        """
        starts = np.flatnonzero(np.r_[True, np.diff(self.bus) > 0]) if len(self.bus) else np.zeros(0, dtype=np.int64)
        node = np.zeros((len(starts), self.v_pu.shape[1]), dtype=np.int64)
        count = np.diff(np.r_[starts, len(self.bus)])
        node[:] = starts[:, None]
        for k in range(1, int(count.max(initial=0))):
            more = np.flatnonzero(count > k)
            rival = starts[more] + k
            best = node[more]
            margin = np.nan_to_num(self.margin_pu, nan=np.inf)
            worse = margin[rival] < np.take_along_axis(margin, best, axis=0)
            node[more] = np.where(worse, rival[:, None], best)
        return self.bus[starts], np.take_along_axis(self.v_pu, node, axis=0), node


def _most_common(values: FloatArray, absent: float) -> float:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return absent
    found, count = np.unique(finite, return_counts=True)
    return float(found[count.argmax()])


@dataclass(frozen=True, eq=False)
class View:
    """A result with what several plots need of it, computed on first use."""

    result: Result

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the buses, in the order of the feeder."""
        return tuple(b.name for b in self.result.case.feeder.buses)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of a bus."""
        return {name: k for k, name in enumerate(self.names)}

    @cached_property
    def tree(self) -> Tree:
        """The spanning tree from the sources."""
        return tree_of(self.result.case)

    @cached_property
    def places(self) -> Places:
        """Positions of the buses."""
        return places(self.result.case, self.tree)

    @cached_property
    def distance(self) -> tuple[FloatArray, str]:
        """Distance of every bus from its source and its unit; see `lateral.plots.arrange.distances`."""
        return distances(self.result.case, self.tree)

    @cached_property
    def optimum(self) -> Voltages:
        """Voltages of the schedule.

        Raises:
            OptionError: the result has no schedule.
        """
        if not self.result.has_values:
            message = f"the result has no schedule to plot: {self.result.status_text}"
            raise OptionError(message)
        v = np.sqrt(np.maximum(self.result.value("bus.vmag_sq"), 0.0))
        return self._voltages(self.result.network.nodes, v, controlled=True)

    @cached_property
    def baseline(self) -> Voltages:
        """Voltages of the day without control; NaN at steps whose power flow did not converge."""
        flow = self.result.baseline
        v = np.where(flow.converged[None, :], flow.vmag_pu, np.nan)
        return self._voltages(flow.index.nodes, np.where(flow.energized[:, None], v, np.nan), controlled=False)

    def of_replay(self, run: Replay) -> Voltages:
        """Voltages that OpenDSS found; NaN at steps that did not converge."""
        return self._voltages(run.nodes, np.where(run.converged[None, :], run.v_pu, np.nan), controlled=True)

    @property
    def voltages(self) -> Voltages:
        """Voltages of the schedule, or of the day without control when there is no schedule."""
        return self.optimum if self.result.has_schedule else self.baseline

    def _voltages(self, nodes: tuple[tuple[str, int], ...], v: FloatArray, *, controlled: bool) -> Voltages:
        """Voltages of the nodes that the network keeps: no neutrals, nothing that no source reaches."""
        kept = self.result.network.position or {node: k for k, node in enumerate(self.result.network.nodes)}
        grounded = set(self.result.network.grounded)
        rows = [k for k, node in enumerate(nodes) if node in kept and node not in grounded]
        rows.sort(key=lambda k: (self.index[nodes[k][0]], nodes[k][1]))
        own = [self.result.case.feeder.bus[nodes[k][0]] for k in rows]
        low = np.array([b.v_min_pu if b.v_min_pu > 0 else -np.inf for b in own], dtype=float)
        return Voltages(
            bus=np.array([self.index[nodes[k][0]] for k in rows], dtype=np.int64),
            conductor=np.array([nodes[k][1] for k in rows], dtype=np.int64),
            v_pu=v[np.array(rows, dtype=np.int64)],
            low_pu=low,
            high_pu=np.array([b.v_max_pu for b in own], dtype=float),
            controlled=controlled,
        )

    @cached_property
    def node_at(self) -> dict[tuple[int, int], int]:
        """Row of `voltages` by (bus position, conductor)."""
        v = self.voltages
        pairs = zip(v.bus.tolist(), v.conductor.tolist(), strict=True)
        return {pair: k for k, pair in enumerate(pairs)}

    @cached_property
    def upstream(self) -> IntArray:
        """The node that feeds each node (the row in `voltages`), -1 at a source, shape (n,).

        Behind a transformer whose ideal part reads several conductors: the one of the same number, else the first.
        """
        net = self.result.network
        row = {net_k: self.node_at.get((self.index[b], c), -1) for net_k, (b, c) in enumerate(net.nodes)}
        out = np.full(len(self.voltages.bus), -1, dtype=np.int64)
        for leg, node in zip(net.a_leg.tolist(), net.a_node.tolist(), strict=True):
            to = int(net.to_node[leg])
            mine = row[to]
            if mine >= 0 and (out[mine] < 0 or net.nodes[node][1] == net.nodes[to][1]):
                out[mine] = row[node]
        return out

    # -- time -----------------------------------------------------------------------------------------------------

    @cached_property
    def edges(self) -> list[str]:
        """Beginnings of the steps and the end of the last, T + 1 texts, at the UTC offset of the first step.

        plotly knows no time zones; with one fixed offset, a day on which the clock changes keeps its length.
        """
        horizon = self.result.case.horizon
        offset = horizon.times[0].utcoffset() or pd.Timedelta(0)
        begin = horizon.times.tz_convert("UTC").tz_localize(None) + offset
        end = begin[-1] + pd.Timedelta(hours=float(horizon.step_h[-1]))
        return [t.isoformat(timespec="seconds") for t in [*begin, end]]

    @cached_property
    def time_title(self) -> str:
        """Title of a time axis: the offset and the zone."""
        horizon = self.result.case.horizon
        text = horizon.times[0].strftime("%z")
        return "time, UTC" if horizon.zone == "UTC" else f"time, UTC{text[:3]}:{text[3:]} ({shown(horizon.zone)})"

    @cached_property
    def stamps(self) -> list[str]:
        """The beginning of each step in local time, for sliders and hover texts."""
        times = self.result.case.horizon.times
        one_day = times[0].date() == times[-1].date()
        return [t.strftime("%H:%M" if one_day else "%a %d %b %H:%M") for t in times]

    def step_of(self, step: int | None) -> int:
        """A step that exists; None means the step whose voltages are nearest to, or furthest beyond, a limit.

        Raises:
            OptionError: there is no such step.
        """
        n = self.result.case.horizon.n_steps
        if step is None:
            margin = np.nan_to_num(self.voltages.margin_pu, nan=np.inf)
            return int(margin.min(axis=0).argmin()) if margin.size else 0
        if not -n <= step < n:
            message = f"there is no step {step}; the horizon has {n}, counted from 0"
            raise OptionError(message)
        return step % n


__all__ = ["View", "Voltages", "short", "shown"]
