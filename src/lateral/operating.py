"""Operating points: the solved power flow at which a linear three-phase model is made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lateral.baseline import Dispatch as DispatchByKind
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.errors import Fault, OptionError, UnsupportedError
from lateral.formulations import OperatingPoint
from lateral.network.admittance import NodeIndex, nodal_matrix
from lateral.network.powerflow import PowerFlow
from lateral.network.schema import ComplexArray, FloatArray
from lateral.program import Program
from lateral.results.points import port_points
from lateral.results.points import settings as settings_of

#: A conductor whose voltage at the operating point is below this is a neutral, pu.
NEUTRAL_PU = 0.3


def operating_point(
    case: Case,
    *,
    loaded: bool,
    dispatch: DispatchByKind | None = None,
    ports: Mapping[str, tuple[FloatArray, FloatArray]] | None = None,
    settings: Mapping[str, FloatArray] | None = None,
) -> tuple[OperatingPoint, list[str]]:
    """The power flow at which a linear three-phase model is made, and notes on it.

    Args:
        case: the case.
        loaded: False for the nominal point of the unloaded feeder.
        dispatch: p and q of devices by kind; absent: the day without control.
        ports: p and q port by port, by label; see `lateral.baseline.power_flow`.
        settings: taps and the like, by label; likewise.

    Returns:
        the point, and notes on steps that do not converge.

    Raises:
        UnsupportedError: the power flow does not converge at any step.
    """
    bare = case if loaded else unloaded(case)
    flow = power_flow(bare, dispatch=dispatch, ports=ports, settings=settings) if loaded else power_flow(bare)
    return _settled(case, flow, "without control" if dispatch is None else "of the schedule", loaded=loaded)


def schedule_flow(
    case: Case, program: Program, x: FloatArray, *, tolerance_pu: float = 1e-8, start: ComplexArray | None = None
) -> PowerFlow:
    """The power flow of the schedule at a point of a program: set-points, port by port where they differ, settings;
    begun at the voltages given (V, in the order of `NodeIndex`)."""
    return power_flow(
        case,
        dispatch=dispatch_at(case, program, x),
        ports=port_points(case, program, x),
        settings=settings_of(case, program, x),
        tolerance_pu=tolerance_pu,
        start=start,
    )


def schedule_point(case: Case, program: Program, x: FloatArray) -> tuple[OperatingPoint, list[str]]:
    """The operating point of the schedule at a point of a program, and notes, as of `operating_point`.

    Raises:
        UnsupportedError: its power flow does not converge at any step.
    """
    return _settled(case, schedule_flow(case, program, x), "of the schedule", loaded=True)


def dispatch_at(case: Case, program: Program, x: FloatArray) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Set-points in x by kind of device, kW and kvar, in the order of the case."""
    rows: dict[str, dict[str, FloatArray]] = {"p_injected": {}, "q_injected": {}}
    for output in program.outputs:
        block = output.block
        if block.quantity in rows:
            values = output.value(x, program.theta) * block.to_unit
            rows[block.quantity] |= {f"{block.component}.{e}": v for e, v in zip(block.elements, values, strict=True)}
    p, q = rows["p_injected"], rows["q_injected"]
    kinds: dict[str, list[str]] = {}
    for device in case.devices:
        if device.label in p:
            kinds.setdefault(device.kind, []).append(device.label)
    return {
        kind: (np.array([p[k] for k in own]), np.array([q.get(k, np.zeros_like(p[k])) for k in own]))
        for kind, own in kinds.items()
    }


def _settled(case: Case, flow: PowerFlow, of: str, *, loaded: bool) -> tuple[OperatingPoint, list[str]]:
    """The operating point of a power flow, with steps that do not converge as the nearest one that does."""
    notes: list[str] = []
    ok = np.flatnonzero(flow.converged)
    if not len(ok):
        fault = Fault(
            "FOR-010 no-operating-point",
            f"case.{case.name}",
            f"a power flow {of} that does not converge at any step",
            "a power flow that converges",
            "Lower the load, check impedances and taps, or take point='nominal'.",
        )
        raise UnsupportedError([fault])
    v = flow.v_pu
    if len(ok) < len(flow.converged):
        nearest = ok[np.abs(np.arange(len(flow.converged))[:, None] - ok[None]).argmin(axis=1)]
        v = v[:, nearest]
        notes.append(
            f"operating point {of}: {len(flow.converged) - len(ok)} steps do not converge; the nearest step is used"
        )
    return point_at(case, v, loaded=loaded), notes


def point_at(case: Case, v_pu: ComplexArray, *, loaded: bool) -> OperatingPoint:
    """The operating point of voltages of a solved power flow.

    Args:
        case: the case.
        v_pu: voltage of every node in the order of `NodeIndex`, pu, shape (n, T).
        loaded: False for the nominal point: the angles of the first step, magnitudes of one, no currents.
    """
    index = NodeIndex.of(case.feeder)
    if not loaded:  # taps are in the ideal parts
        size = np.abs(v_pu[:, :1])
        v = np.where(size > NEUTRAL_PU, v_pu[:, :1] / np.maximum(size, 1e-9), v_pu[:, :1])
        return OperatingPoint(index.nodes, v, np.zeros_like(v), loaded=False)
    volt = v_pu * (1000.0 * index.v_base_kv[:, None])
    amp = case.base.i_a(index.v_base_kv).reshape(-1, 1)
    current: ComplexArray = nodal_matrix(case.feeder, index) @ volt / amp
    return OperatingPoint(index.nodes, v_pu, current, loaded=True)


def fits(point: OperatingPoint, case: Case) -> OperatingPoint:
    """The point, when it has every node of the case, and one step or the case's."""
    missing = set(NodeIndex.of(case.feeder).nodes) - set(point.nodes)
    steps = point.v_pu.shape[1]
    if missing or steps not in (1, case.horizon.n_steps):
        message = (
            f"the operating point has {steps} steps and lacks {len(missing)} nodes of the case; it must have every "
            f"node, and 1 or {case.horizon.n_steps} steps"
        )
        raise OptionError(message)
    return point


def unloaded(case: Case) -> Case:
    """The case with its sources alone."""
    return case.with_(devices=tuple(case.sources))


__all__ = [
    "NEUTRAL_PU",
    "dispatch_at",
    "fits",
    "operating_point",
    "point_at",
    "schedule_flow",
    "schedule_point",
    "unloaded",
]
