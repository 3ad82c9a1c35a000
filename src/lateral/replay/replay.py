"""Run a dispatch in OpenDSS, step by step, with controls off and taps fixed.

The circuit is the text of `lateral.io.opendss.write.render_opendss`, given to an engine of its own (never the global
circuit of the process) as commands; no file is read or written. Loads and set-points are load shapes, so that the
engine itself moves from step to step.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lateral.baseline import load_power
from lateral.case import Case
from lateral.devices import PV, Battery, Load
from lateral.devices.base import ShuntDevice
from lateral.errors import EngineError, OptionError
from lateral.io.dispatch import Dispatch
from lateral.io.opendss.write import Rendered, render_opendss
from lateral.network.schema import ComplexArray, FloatArray
from lateral.replay.limits import beyond_limits

#: A conductor of a bus.
Node = tuple[str, int]

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

#: An inverter that gives or takes no more than this share of its rating is idle.
IDLE_SHARE = 1e-6
#: A current or a power counts as beyond its limit from this share of the limit on.
TOLERANCE_SHARE = 1e-5
#: Under this voltage a node counts as not energised, pu.
DEAD_PU = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a model says of the same dispatch, to be compared with the replay.

    Attributes:
        nodes: (bus, conductor) of each row of ``v_pu``; any subset of the case's nodes, in any order.
        v_pu: voltage magnitudes on the bus bases, shape (len(nodes), T).
        p_source_kw: active power taken from all sources, kW, shape (T,); absent: not compared.
        q_source_kvar: reactive power taken from all sources, kvar, shape (T,); absent: not compared.
        losses_kw: losses of lines, switches and transformers, kW, shape (T,); absent: not compared.
    """

    nodes: tuple[Node, ...]
    v_pu: FloatArray
    p_source_kw: FloatArray | None = None
    q_source_kvar: FloatArray | None = None
    losses_kw: FloatArray | None = None


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Prediction against replay, over the steps that converged; largest absolute differences.

    Attributes:
        max_dv_pu: largest voltage difference, pu.
        mean_dv_pu: mean voltage difference, pu.
        worst_node: (bus, conductor) of the largest difference.
        worst_step: its step; -1 when nothing was compared.
        worst_time: the beginning of that step.
        dloss_kw: losses, largest over the steps, kW; NaN when not predicted.
        dp_source_kw: active power of the sources, likewise, kW.
        dq_source_kvar: reactive power of the sources, likewise, kvar.
        n_nodes: number of nodes compared.
        n_steps: number of steps compared.
    """

    max_dv_pu: float
    mean_dv_pu: float
    worst_node: Node | None
    worst_step: int
    worst_time: pd.Timestamp | None
    dloss_kw: float
    dp_source_kw: float
    dq_source_kvar: float
    n_nodes: int
    n_steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """What OpenDSS says of a dispatch.

    Totals (kW, kvar) of a balanced feeder are over all the conductors that it stands for.

    Attributes:
        case: the case replayed.
        dispatch: the set-points replayed.
        nodes: (bus, conductor) of each row of ``v``, bus by bus, length n.
        v: complex voltages on the bus bases, pu, shape (n, T); NaN where the engine has no such node.
        p_source_kw: active power taken from all sources where they meet their bus, kW, shape (T,).
        q_source_kvar: reactive power, likewise, kvar, shape (T,).
        p_by_source_kw: active power by source label, kW, each of shape (T,).
        q_by_source_kvar: reactive power by source label, kvar, each of shape (T,).
        losses_kw: losses of lines, switches, transformers (OpenDSS's circuit losses), kW, shape (T,). A source's own
            impedance is not among them.
        converged: whether the engine converged at each step, with finite voltages wherever something is connected,
            shape (T,).
        iterations: iterations of each step, shape (T,).
        taps: tap of each winding at the end, as the engine has it, pu, by transformer name.
        engine: version of the engine.
        seconds: seconds taken, compilation included.
        errors: comparison with the prediction; None without one.
    """

    case: Case
    dispatch: Dispatch
    nodes: tuple[Node, ...]
    v: ComplexArray
    p_source_kw: FloatArray
    q_source_kvar: FloatArray
    p_by_source_kw: dict[str, FloatArray]
    q_by_source_kvar: dict[str, FloatArray]
    losses_kw: FloatArray
    converged: BoolArray
    iterations: FloatArray
    taps: dict[str, tuple[float, ...]]
    engine: str
    seconds: float
    errors: Errors | None = None

    @cached_property
    def v_pu(self) -> FloatArray:
        """Voltage magnitudes on the bus bases, pu, shape (n, T)."""
        return np.abs(self.v)

    @property
    def all_converged(self) -> bool:
        """Whether every step converged."""
        return bool(self.converged.all())

    @cached_property
    def dead(self) -> tuple[Node, ...]:
        """Nodes that are not energised at any step."""
        with np.errstate(invalid="ignore"):
            live = np.any(self.v_pu > DEAD_PU, axis=1)
        return tuple(n for k, n in enumerate(self.nodes) if not live[k])

    def violations(self, tolerance_pu: float = 1e-6) -> pd.DataFrame:
        """Voltages to ground outside the case's bus limits by more than a tolerance, worst first.

        Limits hold for conductors 1 to 3; neutrals (4 and up), nodes that are not energised and steps that did not
        converge are left out.

        Returns:
            One row per node and step: bus, conductor, step, time, v_pu, limit_pu, excess_pu.
        """
        buses = self.case.feeder.bus
        low = np.array([buses[b].v_min_pu for b, _ in self.nodes])[:, None]
        high = np.array([buses[b].v_max_pu for b, _ in self.nodes])[:, None]
        live = np.nan_to_num(self.v_pu) > DEAD_PU
        judged = live & np.array([c <= 3 for _, c in self.nodes])[:, None] & self.converged
        v = np.where(judged, self.v_pu, np.nan)
        with np.errstate(invalid="ignore"):
            excess = np.fmax(low - v, v - high)
            at, step = np.nonzero(excess > tolerance_pu)
        below = v[at, step] < low[at, 0]
        frame = pd.DataFrame(
            {
                "bus": [self.nodes[k][0] for k in at],
                "conductor": [self.nodes[k][1] for k in at],
                "step": step,
                "time": self.case.horizon.times[step],
                "v_pu": v[at, step],
                "limit_pu": np.where(below, low[at, 0], high[at, 0]),
                "excess_pu": excess[at, step],
            }
        )
        return frame.sort_values("excess_pu", ascending=False, kind="stable", ignore_index=True)

    def other_violations(self, tolerance_pu: float = 1e-6, tolerance_share: float = TOLERANCE_SHARE) -> pd.DataFrame:
        """Limits that are exceeded beside those of the voltage to ground, as far as the case has them: voltages between
        phases and to a neutral, voltage unbalance, currents of lines and switches, power of transformers, and active,
        reactive and apparent power of sources.

        Steps that did not converge are left out.

        Args:
            tolerance_pu: of voltages and their unbalance.
            tolerance_share: of currents and powers, as a share of the limit (where a source's limit is zero, of the
                largest apparent power of the source).

        Returns:
            One row per limit and step, by quantity, worst first: quantity (a key of
            `lateral.results.in_replay.REPLAY_QUANTITIES`), element, step, time, value, limit, unit, excess, share.
        """
        frame = self._other_violations
        by = np.where(frame["unit"].isin(("pu", "")), tolerance_pu, tolerance_share)
        return frame[frame["share"].to_numpy(dtype=float) > by].reset_index(drop=True)

    @cached_property
    def _other_violations(self) -> pd.DataFrame:
        """Whatever is beyond a limit at all."""
        labels = [s.label for s in self.case.sources]
        power = np.array([self.p_by_source_kw[k] + 1j * self.q_by_source_kvar[k] for k in labels])
        v, power = (np.where(self.converged, x, np.nan) for x in (self.v, power.reshape(-1, self.v.shape[1])))
        settings = self.dispatch.settings
        return beyond_limits(self.case, self.nodes, v, power, settings=settings, tolerance_pu=0.0, tolerance_share=0.0)

    def n_violations(self) -> dict[str, int]:
        """How many limits are exceeded, by quantity, each at each step by itself: ``v`` to ground, and those of
        `other_violations`; only what there is."""
        counts = {"v": len(self.violations()), **self.other_violations()["quantity"].value_counts(sort=False)}
        return {name: int(n) for name, n in counts.items() if n}

    def loads_outside_window(self) -> pd.DataFrame:
        """Loads that OpenDSS turned into impedances, because a voltage left ``v_min_pu ... v_max_pu`` of the load.

        There the replay differs from any model that keeps the load's law at every voltage. Steps at which a load draws
        nothing are left out.

        Returns:
            One row per load and step, worst port first: load, step, time, v_pu (of the load's rated voltage), limit_pu.
        """

        def drawn(load: Load) -> FloatArray:
            return np.asarray(np.hypot(*load_power(self.case, load)))

        frame = self._outside_window([(d, drawn(d) > 0.0) for d in self.case.loads])
        frame["device"] = [label.removeprefix("load.") for label in frame["device"]]
        return frame.rename(columns={"device": "load"})

    def inverters_outside_window(self) -> pd.DataFrame:
        """PV systems and batteries that OpenDSS turned into impedances, because a voltage left their
        ``v_min_pu ... v_max_pu``. Programs have those of which anything is decided at any voltage. Steps at which one
        gives and takes nothing are left out: there it makes no difference.

        Returns:
            One row per device and step, worst port first: device (its label), step, time, v_pu (of its rated voltage),
            limit_pu.
        """

        def given(inverter: PV | Battery) -> FloatArray:
            label = inverter.label
            if label in self.dispatch.ports:
                p, q = self.dispatch.ports[label]
                return np.asarray(np.hypot(p, q).max(axis=0))
            return np.asarray(np.hypot(self.dispatch.p(label), self.dispatch.q(label)))

        inverters: list[PV | Battery] = [*self.case.pvs, *self.case.batteries]
        return self._outside_window([(d, given(d) > IDLE_SHARE * d.s_max_kva) for d in inverters])

    def _outside_window(self, devices: Sequence[tuple[Load | PV | Battery, BoolArray]]) -> pd.DataFrame:
        """Devices out of their window, each at the steps, shape (T,), at which it is at work."""
        at = {n: k for k, n in enumerate(self.nodes)}
        ground = np.zeros(self.v.shape[1], dtype=complex)
        rows: list[tuple[str, int, float, float]] = []
        for d, works in devices:
            base = self.case.feeder.bus[d.bus].v_base_kv
            rated = d.v_rated_kv or base * (1.0 if d.connection == "wye" else np.sqrt(3.0))
            for a, b in d.ports:
                u = (self.v[at[d.bus, a]] if a else ground) - (self.v[at[d.bus, b]] if b else ground)
                volts = np.abs(u) * base / rated
                with np.errstate(invalid="ignore"):
                    out = works & self.converged & (volts > DEAD_PU) & ((volts < d.v_min_pu) | (volts > d.v_max_pu))
                for k in np.flatnonzero(out):
                    limit = d.v_min_pu if volts[k] < d.v_min_pu else d.v_max_pu
                    rows.append((d.label, int(k), float(volts[k]), limit))
        rows.sort(key=lambda r: -abs(r[2] - r[3]))
        frame = pd.DataFrame(rows, columns=["device", "step", "v_pu", "limit_pu"]).drop_duplicates(["device", "step"])
        frame.insert(2, "time", self.case.horizon.times[frame["step"].to_numpy(dtype=int)])
        return frame.reset_index(drop=True)

    @cached_property
    def cost_usd(self) -> float:
        """Import at the import price less export at the export price, over the horizon, $, each source by itself."""
        return sum(self.case.exchange_cost(s, self.p_by_source_kw[s.label]) for s in self.case.sources)

    @cached_property
    def energy_import_kwh(self) -> float:
        """Energy taken from the sources over the horizon, kWh; steps of export count zero."""
        hours = self.case.horizon.hours
        return float(sum(np.sum(np.maximum(p, 0.0) * hours) for p in self.p_by_source_kw.values()))

    @cached_property
    def energy_export_kwh(self) -> float:
        """Energy given to the sources over the horizon, kWh."""
        hours = self.case.horizon.hours
        return float(sum(np.sum(np.maximum(-p, 0.0) * hours) for p in self.p_by_source_kw.values()))

    @cached_property
    def losses_kwh(self) -> float:
        """Losses over the horizon, kWh."""
        return float(np.sum(self.losses_kw * self.case.horizon.hours))

    def summary(self) -> dict[str, Any]:
        """Plain numbers for reports and JSON; a number that does not exist is None."""
        e = self.errors
        beyond = self.n_violations()
        out: dict[str, Any] = {
            "engine": self.engine,
            "converged": self.all_converged,
            "n_not_converged": int((~self.converged).sum()),
            "n_violations": sum(beyond.values()),
            "violations": beyond,
            "cost": self.cost_usd,
            "energy_import_kwh": self.energy_import_kwh,
            "energy_export_kwh": self.energy_export_kwh,
            "losses_kwh": self.losses_kwh,
            "seconds": self.seconds,
        }
        for name in ("max_dv_pu", "mean_dv_pu", "dloss_kw", "dp_source_kw", "dq_source_kvar"):
            out[name] = None if e is None else getattr(e, name)
        worst = None if e is None else e.worst_node
        out["worst_node"] = None if worst is None else f"{worst[0]}.{worst[1]}"
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in out.items()}


def replay(case: Case, dispatch: Dispatch | None = None, *, predicted: Prediction | None = None) -> Replay:
    """Run every step of a dispatch in OpenDSS.

    Tolerance 1e-8 pu, at most 200 iterations a step; a step that does not converge is reported in ``converged`` and
    left out of the comparison.

    Args:
        case: the case.
        dispatch: set-points of PV, batteries and devices of the user's own; absent: `Dispatch.baseline`.
        predicted: what a model says, to be compared.

    Raises:
        CaseError: the dispatch does not fit the case, or the case cannot be written.
        UnsupportedError: a device has no counterpart in OpenDSS.
        OptionError: the prediction names a node that the case does not have, or has the wrong shape.
        EngineError: the engine refused the circuit.
    """
    began = time.perf_counter()
    if dispatch is None:
        dispatch = Dispatch.baseline(case)
    nodes = tuple((b.name, c) for b in case.feeder.buses for c in b.conductors)
    rows = _rows_of(predicted, nodes, case.horizon.n_steps)
    rendered = render_opendss(case, dispatch=dispatch, stamp=False)
    run = _run(case, rendered, nodes)
    errors = None
    if predicted is not None:
        errors = _compare(predicted, rows, run, nodes, case.horizon.times)
    return Replay(
        case=case,
        dispatch=dispatch,
        nodes=nodes,
        v=_frozen(run.v),
        p_source_kw=_frozen(run.p.sum(axis=0)),
        q_source_kvar=_frozen(run.q.sum(axis=0)),
        p_by_source_kw={s.label: _frozen(run.p[k]) for k, s in enumerate(case.sources)},
        q_by_source_kvar={s.label: _frozen(run.q[k]) for k, s in enumerate(case.sources)},
        losses_kw=_frozen(run.losses),
        converged=_frozen(run.converged),
        iterations=_frozen(run.iterations),
        taps=run.taps,
        engine=run.engine,
        seconds=time.perf_counter() - began,
        errors=errors,
    )


@dataclass(frozen=True)
class _Run:
    v: ComplexArray
    p: FloatArray
    q: FloatArray
    losses: FloatArray
    converged: BoolArray
    iterations: FloatArray
    taps: dict[str, tuple[float, ...]]
    engine: str


def _run(case: Case, rendered: Rendered, nodes: Sequence[Node]) -> _Run:
    import dss

    n_steps = case.horizon.n_steps
    engine = _take()
    try:
        engine.Text.Commands(rendered.commands)
        circuit = engine.ActiveCircuit
        solution = circuit.Solution
        order, base = _node_order(case, rendered, nodes, _y_nodes(circuit))
        has = order >= 0
        used = _connected(case, nodes)
        factor = float(case.feeder.n_phases) if case.feeder.balanced else 1.0

        v = np.full((len(nodes), n_steps), np.nan + 0j)
        p = np.zeros((len(case.sources), n_steps))
        q = np.zeros((len(case.sources), n_steps))
        losses = np.zeros(n_steps)
        converged = np.zeros(n_steps, dtype=bool)
        iterations = np.zeros(n_steps)
        for k in range(n_steps):
            for command in rendered.before.get(k, ()):
                engine.Text.Command = command
            done = _solve(engine)
            if not done:  # once more from the no-load voltages: the last step may be a bad start
                _unload(engine)
                solution.dblHour = k * rendered.step_h
                done = _solve(engine)
            volts = np.asarray(circuit.YNodeVarray).view(complex)
            v[has, k] = volts[order[has]] / base[has]
            converged[k] = done and bool(np.isfinite(v[used, k]).all())
            iterations[k] = solution.Iterations
            losses[k] = circuit.Losses[0] * 1e-3
            for names, sign in ((rendered.names.source_lines, -1.0), (rendered.names.shunt_parts, 1.0)):
                for name in names:
                    circuit.SetActiveElement(name)
                    losses[k] += sign * circuit.ActiveCktElement.Losses[0] * 1e-3
            for i, s in enumerate(case.sources):
                for name, terminal in rendered.names.source_objects[s.label]:
                    circuit.SetActiveElement(name)
                    element = circuit.ActiveCktElement
                    power = np.asarray(element.Powers).reshape(element.NumTerminals, -1, 2)[terminal - 1]
                    p[i, k] -= power[:, 0].sum()
                    q[i, k] -= power[:, 1].sum()
            if not converged[k]:
                _unload(engine)
        taps = _taps(case, rendered, circuit.Transformers)
        version = str(engine.Version).split("\n")[0].split(" revision")[0]
    except dss.DSSException as error:
        message = f"OpenDSS refused the circuit: {error}"
        raise EngineError(message) from error
    finally:
        _give_back(engine)
    return _Run(v, p * factor, q * factor, losses * factor, converged, iterations, taps, version)


def _taps(case: Case, rendered: Rendered, transformers: Any) -> dict[str, tuple[float, ...]]:
    out = {}
    for t in case.feeder.transformers:
        transformers.Name = rendered.names.element[t.label].partition(".")[2]
        taps = []
        for k in range(len(t.windings)):
            transformers.Wdg = k + 1
            taps.append(float(transformers.Tap))
        out[t.name] = tuple(taps)
    return out


def _solve(engine: Any) -> bool:
    """The next step; whether it converged to finite voltages at all."""
    import dss

    solution = engine.ActiveCircuit.Solution
    try:
        solution.Solve()
    except dss.DSSException:
        return False
    return bool(solution.Converged) and bool(np.isfinite(engine.ActiveCircuit.YNodeVarray).any())


def _unload(engine: Any) -> None:
    """Go to the voltages without loads, from which the next step starts."""
    import dss

    with contextlib.suppress(dss.DSSException):
        engine.Text.Command = "_SolveDirect"


def _y_nodes(circuit: Any) -> list[str]:
    """Build the system matrix; its nodes in order."""
    circuit.Solution.BuildYMatrix(1, 1)
    return list(circuit.YNodeOrder)


#: Engines at rest. An engine that is dropped does not return its memory, so they are used again.
_REST: list[Any] = []
_REST_LOCK = threading.Lock()


def _take() -> Any:
    """An engine that nobody else uses; not the global one of the process."""
    with _REST_LOCK:
        if _REST:
            return _REST.pop()
    import dss

    engine = dss.DSS.NewContext()
    engine.AllowForms = False
    engine.AllowEditor = False
    engine.AllowChangeDir = False
    engine.AllowDOScmd = False
    return engine


def _give_back(engine: Any) -> None:
    """Drop the circuit, put the engine to rest."""
    import dss

    try:
        engine.Text.Command = "ClearAll"
    except dss.DSSException:  # an engine in an odd state is not used again
        return
    with _REST_LOCK:
        _REST.append(engine)


def _node_order(
    case: Case, rendered: Rendered, nodes: Sequence[Node], names: Sequence[str]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], FloatArray]:
    """Row of the engine's voltage vector of each node (-1: none), and the base in V."""
    at = {name.lower(): k for k, name in enumerate(names)}
    bus = rendered.names.bus
    order = np.array([at.get(f"{bus[b]}.{c}", -1) for b, c in nodes], dtype=np.int64)
    base = np.array([1000.0 * case.feeder.bus[b].v_base_kv for b, _ in nodes])
    return order, base


def _connected(case: Case, nodes: Sequence[Node]) -> BoolArray:
    """Nodes where a source or a device is connected, shape (n,)."""
    wanted: set[Node] = set()
    for d in case.devices:
        if isinstance(d, ShuntDevice):
            wanted.update((bus, c) for bus, port in d.places for c in port if 0 < c <= 3)
    for s in case.sources:
        wanted.update((s.bus, c) for c in s.conductors)
    return np.array([n in wanted for n in nodes], dtype=bool)


def _rows_of(predicted: Prediction | None, nodes: Sequence[Node], n_steps: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    if predicted is None:
        return np.zeros(0, dtype=np.int64)
    at = {n: k for k, n in enumerate(nodes)}
    unknown = [n for n in predicted.nodes if n not in at]
    if unknown:
        message = f"the prediction names nodes that the case does not have: {unknown[:5]}"
        raise OptionError(message)
    if np.shape(predicted.v_pu) != (len(predicted.nodes), n_steps):
        message = f"v_pu has shape {np.shape(predicted.v_pu)}, not {(len(predicted.nodes), n_steps)}"
        raise OptionError(message)
    for name in ("p_source_kw", "q_source_kvar", "losses_kw"):
        value = getattr(predicted, name)
        if value is not None and np.shape(value) != (n_steps,):
            message = f"{name} has shape {np.shape(value)}, not {(n_steps,)}"
            raise OptionError(message)
    return np.array([at[n] for n in predicted.nodes], dtype=np.int64)


def _compare(
    predicted: Prediction,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    run: _Run,
    nodes: Sequence[Node],
    times: pd.DatetimeIndex,
) -> Errors:
    ok = run.converged

    def largest(value: FloatArray | None, other: FloatArray) -> float:
        if value is None or not ok.any():
            return float("nan")
        return float(np.abs(np.asarray(value)[ok] - other[ok]).max())

    dv = np.abs(np.asarray(predicted.v_pu, dtype=float) - np.abs(run.v[rows]))
    dv[:, ~ok] = np.nan
    judged = np.isfinite(dv)
    worst_node, worst_step, max_dv, mean_dv = None, -1, float("nan"), float("nan")
    if judged.any():
        at, worst_step = (int(i) for i in np.unravel_index(int(np.nanargmax(dv)), dv.shape))
        worst_node = nodes[int(rows[at])]
        max_dv, mean_dv = float(dv[at, worst_step]), float(dv[judged].mean())
    return Errors(
        max_dv_pu=max_dv,
        mean_dv_pu=mean_dv,
        worst_node=worst_node,
        worst_step=worst_step,
        worst_time=times[worst_step] if worst_step >= 0 else None,
        dloss_kw=largest(predicted.losses_kw, run.losses),
        dp_source_kw=largest(predicted.p_source_kw, run.p.sum(axis=0)),
        dq_source_kvar=largest(predicted.q_source_kvar, run.q.sum(axis=0)),
        n_nodes=int(judged.any(axis=1).sum()),
        n_steps=int(ok.sum()),
    )


def _frozen(array: Any) -> Any:
    array.setflags(write=False)
    return array


__all__ = ["Errors", "Prediction", "Replay", "replay"]
