"""Limits of a case other than those of the voltage to ground, at voltages and source powers that are given.

A limit is judged by what the formulations limit: the current of a line is that of its series impedance, without its
charging; the power of a transformer is ``sum W conj(I)`` behind its ideal part, without its no-load terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lateral.baseline import given_taps
from lateral.case import Case
from lateral.formulations.phasors import LegFlows, Through
from lateral.formulations.point_model import BETWEEN_SQ, limits_between, phase_nodes, three_phase_buses
from lateral.network.admittance import Node, primitive_of
from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, FloatArray
from lateral.network.tapped import series_power

#: Columns of a table of violations.
COLUMNS = ("quantity", "element", "step", "time", "value", "limit", "unit", "excess", "share")
#: Taps by transformer and winding (from 1), shape (T,) each.
Taps = Mapping[tuple[str, int], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """One quantity of some elements, with limits.

    Attributes:
        quantity: a key of `lateral.results.in_replay.REPLAY_QUANTITIES`.
        unit: of the values; empty for a share.
        elements: their names, length n.
        value: shape (n, T); NaN where it is not known.
        low, high: limits, shape (n, 1 or T).
        most: what a violation of a limit of zero is measured with, shape (n, 1).
    """

    quantity: str
    unit: str
    elements: Sequence[str]
    value: FloatArray
    low: FloatArray
    high: FloatArray
    most: FloatArray | float = 1.0

    @property
    def per_unit(self) -> bool:
        """Whether it is in pu already."""
        return self.unit in ("pu", "")

    def beyond(self, tolerance: float) -> dict[str, Any]:
        """Columns of the table: where a limit is exceeded by more than a tolerance."""
        with np.errstate(invalid="ignore"):
            excess = np.fmax(self.low - self.value, self.value - self.high)
            limit = np.where(self.value < self.low, self.low, self.high)
            size = 1.0 if self.per_unit else np.where(limit != 0.0, np.abs(limit), self.most)
            share = np.where(np.isfinite(limit), excess / size, -np.inf)
            at, step = np.nonzero(share > tolerance)
        return {
            "quantity": self.quantity,
            "element": [self.elements[k] for k in at.tolist()],
            "step": step,
            "value": self.value[at, step],
            "limit": limit[at, step],
            "unit": self.unit,
            "excess": excess[at, step],
            "share": share[at, step],
        }


def beyond_limits(
    case: Case,
    nodes: Sequence[Node],
    v: ComplexArray,
    sources_kva: ComplexArray,
    *,
    settings: Mapping[str, FloatArray],
    tolerance_pu: float,
    tolerance_share: float,
) -> pd.DataFrame:
    """Every limit that is exceeded, but for those of the voltage to ground.

    Args:
        case: the case, with its limits.
        nodes: (bus, conductor) of each row of ``v``.
        v: complex voltages on the bus bases, pu, shape (n, T); what follows from a NaN is not judged.
        sources_kva: power taken from each source, kW + j kvar, shape (sources, T); likewise.
        settings: settings of devices step by step, by label, shape (T,) each: the taps at which the voltages are.
        tolerance_pu: of voltages and their unbalance.
        tolerance_share: of currents and powers, as a share of the limit; where a source's limit is zero, of the largest
            apparent power that it gives or takes, or of the rated power of all loads (the base where there are none) if
            that is more.

    Returns:
        One row per limit and step, by quantity, worst first: quantity (a key of `REPLAY_QUANTITIES`), element, step,
        time, value, limit, unit (empty for the unbalance, a share), excess (in that unit), share (of what the tolerance
        is of; of voltages the excess itself).
    """
    taps = given_taps(case, settings)
    found = [
        judged.beyond(tolerance_pu if judged.per_unit else tolerance_share)
        for judged in (*_of_wires(case, nodes, v, taps), *_of_sources(case, sources_kva))
    ]
    frames = [pd.DataFrame(columns).sort_values("share", ascending=False, kind="stable") for columns in found]
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=list(COLUMNS))
    out = pd.concat(frames, ignore_index=True)
    out["time"] = case.horizon.times[out["step"].to_numpy(dtype=np.int64)]
    return out[list(COLUMNS)]


def _of_wires(case: Case, nodes: Sequence[Node], v: ComplexArray, taps: Taps) -> Iterator[_Judged]:
    """Voltages between conductors, unbalance, currents of lines and switches, powers of transformers."""
    feeder = case.feeder
    between = any(
        b.vpp_min_pu > 0.0 or b.vpp_max_pu < np.inf or b.vpn_min_pu > 0.0 or b.vpn_max_pu < np.inf for b in feeder.buses
    )
    unbalanced = any(b.unbalance_max < np.inf for b in feeder.buses)
    ratings = [*(e.i_max_a for e in feeder.lines), *(e.i_max_a for e in feeder.switches)]
    loaded = min([*ratings, *(e.s_max_kva for e in feeder.transformers)], default=np.inf) < np.inf
    if not (between or unbalanced or loaded):
        return
    net = case.wires()
    row = {node: k for k, node in enumerate(nodes)}
    v = v[[row[node] for node in net.nodes]]
    grounded = np.vstack([v, np.zeros((1, v.shape[1]))])  # the last row is ground, -1
    for square, ports, low, high, names in limits_between(feeder, net):
        unit = np.sqrt(BETWEEN_SQ[square])
        value = np.abs(grounded[ports.a] - grounded[ports.b]) * unit
        sides = (np.round(side.reshape(-1, 1) * unit, 12) for side in (low, high))  # as they were stated
        yield _Judged(square.removesuffix("_sq"), "pu", names, value, *sides)
    if unbalanced:
        yield _unbalance(case, net, v)
    if loaded:
        yield from _loadings(case, net, v, taps)


def _unbalance(case: Case, net: RadialNetwork, v: ComplexArray) -> _Judged:
    """``|V_2| / |V_1|`` of the buses with phases 1, 2 and 3 and a limit (Fortescue 1918)."""
    buses = [b for b in three_phase_buses(case.feeder, net) if b.unbalance_max < np.inf]
    phases = v[phase_nodes(buses, net)]
    turn = np.exp(2j * np.pi / 3.0) ** np.array([0, 1, 2])
    plus, minus = (np.abs(np.einsum("bct,c->bt", phases, a)) for a in (turn, turn.conj()))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = minus / plus
    high = np.array([b.unbalance_max for b in buses]).reshape(-1, 1)
    names = [b.name for b in buses]
    return _Judged("unbalance", "", names, value, np.zeros_like(high), high)


def _loadings(case: Case, net: RadialNetwork, v: ComplexArray, taps: Taps) -> Iterator[_Judged]:
    """Currents of legs and powers of branches, those with a limit.

    The network has the taps of the case; a transformer that has others step by step is looked at by itself.
    """
    base = case.base
    legs = LegFlows.of(net)
    through = Through.of(net, legs)
    own = np.flatnonzero(np.isfinite(net.i_max_pu))
    if len(own):
        amp = base.i_a(net.v_base_kv[net.to_node[own]]).reshape(-1, 1)
        limit = net.i_max_pu[own].reshape(-1, 1) * amp
        value = np.abs(through.i[own] @ v) * amp
        yield _Judged("current", "A", [net.legs[k] for k in own], value, np.zeros_like(limit), limit)
    own = np.flatnonzero(np.isfinite(net.s_max_pu))
    if len(own):
        limit = net.s_max_pu[own].reshape(-1, 1) * base.s_kva
        power = through.at(v, len(net.branch_names))
        for transformer in case.feeder.transformers:
            moved = [winding for name, winding in taps if name == transformer.name]
            if moved and transformer.label in net.branch_names:
                at = [net.position[node] for node in primitive_of(transformer).nodes]
                volt = v[at] * (1000.0 * net.v_base_kv[at]).reshape(-1, 1)
                values = np.array([taps[transformer.name, winding] for winding in moved])
                s = series_power(transformer, values, [winding - 1 for winding in moved], volt)
                power[net.branch_names.index(transformer.label)] = s.sum(axis=0) / (1000.0 * base.s_kva)
        value = np.abs(power[own]) * base.total_kva
        yield _Judged("power", "kVA", [net.branch_names[k] for k in own], value, np.zeros_like(limit), limit)


def _of_sources(case: Case, sources_kva: ComplexArray) -> Iterator[_Judged]:
    """Active, reactive and apparent power of sources."""
    sources = case.sources
    if not sources:
        return
    names = [s.label for s in sources]

    def series(field: str) -> FloatArray:
        return np.array([case.series(getattr(s, field)) for s in sources])

    apparent = np.abs(sources_kva)
    # where all that a source exchanges is held to zero, its own power is rounding
    rated = sum(float(np.hypot(d.p_kw, d.q_kvar)) for d in case.loads) or case.base.total_kva
    most = np.where(np.isfinite(apparent), apparent, 0.0).max(axis=1, keepdims=True, initial=rated)
    for quantity, unit, value, low, high in (
        ("p_source", "kW", sources_kva.real, 0.0 - series("p_export_max_kw"), series("p_import_max_kw")),
        ("q_source", "kvar", sources_kva.imag, 0.0 - series("q_export_max_kvar"), series("q_import_max_kvar")),
        ("s_source", "kVA", apparent, np.zeros_like(apparent), series("s_max_kva")),
    ):
        yield _Judged(quantity, unit, names, value, low, high, most)


__all__ = ["COLUMNS", "beyond_limits"]
