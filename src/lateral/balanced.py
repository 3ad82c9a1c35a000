"""A three-phase case as its balanced (positive-sequence) equivalent, so that balanced formulations apply to it.

The wires are `lateral.network.reduce`; here the devices follow: totals of kW, kvar, kVA and kWh stay, terminals become
the one conductor to ground, rated voltages line to ground.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from lateral.case import Case
from lateral.devices import Regulator, SoftOpenPoint, Source
from lateral.devices.base import Device, ShuntDevice
from lateral.network.powerflow import NodalNetwork, PortLoads, TheveninSource, solve_power_flow
from lateral.network.reduce import Reduction, balanced_feeder
from lateral.network.schema import ComplexArray, Element


@dataclasses.dataclass(frozen=True, eq=False)
class BalancedCase:
    """A balanced case and how it came about.

    Attributes:
        case: the balanced case; its notes list what is approximated.
        reduction: what became of the wires.
        notes: what is approximated.
    """

    case: Case
    reduction: Reduction
    notes: tuple[str, ...]


def to_balanced(case: Case) -> Case:
    """The balanced equivalent of a case, one conductor per bus that stands for three.

    Exact when the phases are alike; see `lateral.network.reduce` for the equations and for what is neglected. What is
    approximated is in the notes of the case returned. A case that is balanced already is returned as it is.

    Raises:
        CaseError: the network is singular.
    """
    return reduce_case(case).case if not case.feeder.balanced else case


def reduce_case(case: Case) -> BalancedCase:
    """As `to_balanced`, with what became of each element.

    Raises:
        CaseError: the network is singular.
    """
    reduction = balanced_feeder(case.feeder, _unloaded(case))
    notes = list(reduction.notes)
    kept = {label.partition(".")[2] for label in reduction.members if label.startswith("transformer.")}
    devices: list[Element] = []
    lost: list[str] = []
    for group in _by_bus(case.sources):
        devices.append(_source(group, case, reduction, notes))
    for device in case.devices:
        if isinstance(device, Source):
            continue
        if isinstance(device, Regulator):
            if device.transformer in kept:
                devices.append(_regulator(device, reduction))
        elif isinstance(device, ShuntDevice):
            made = _shunt_device(device, case, reduction)
            if made is None:
                lost.append(device.label)
            else:
                devices.append(made)
        elif not isinstance(device, Device) or device.bus in reduction.phases:
            devices.append(device)
        else:
            lost.append(device.label)
    if lost:
        notes.append(
            f"{', '.join(lost[:3])}{f' and {len(lost) - 3} more' if len(lost) > 3 else ''}: not between phases"
        )
    said = "Positive-sequence equivalent of the three-phase case"
    text = "\n".join(
        [*([case.notes] if case.notes else []), said + (":" if notes else "."), *(f"- {n}" for n in notes)]
    )
    balanced = case.with_(
        name=f"{case.name}_balanced",
        feeder=reduction.feeder,
        devices=tuple(devices),
        areas={bus: area for bus, area in case.areas.items() if bus in reduction.phases},
        notes=text,
    )
    return BalancedCase(balanced, reduction, tuple(notes))


def _unloaded(case: Case) -> ComplexArray:
    """Voltages without any load, pu, shape (n,)."""
    network = NodalNetwork.of(case.feeder)
    sources = [
        TheveninSource(
            name=s.name,
            nodes=network.index.rows(s.bus, s.conductors),
            e_volt=(1000.0 * case.feeder.bus[s.bus].v_base_kv * np.exp(1j * np.deg2rad(s.angle_deg))[:, None]).astype(
                complex
            ),
            z_ohm=(s.r_ohm + 1j * s.x_ohm).astype(complex),
        )
        for s in case.sources
    ]
    none, nothing = np.zeros(0, dtype=np.int64), np.zeros((0, 1))
    loads = PortLoads.constant_power(none, none, nothing, nothing, np.zeros(0))
    return solve_power_flow(network, loads, sources, n_steps=1).v_pu[:, 0]


def _by_bus(sources: Sequence[Source]) -> list[list[Source]]:
    found: dict[str, list[Source]] = {}
    for s in sources:
        found.setdefault(s.bus, []).append(s)
    return list(found.values())


def _source(group: list[Source], case: Case, reduction: Reduction, notes: list[str]) -> Source:
    """Sources at one bus as one: impedances in parallel, the mean of the voltages."""
    first = group[0]
    z = []
    for s in group:
        w = np.array([reduction.phasor.get((s.bus, c), 0j) for c in s.conductors])
        n = max(int(np.count_nonzero(w)), 1)
        z.append(complex(3.0 * (np.conj(w) @ (s.r_ohm + 1j * s.x_ohm) @ w)) / n**2)
    whole = 0j if any(x == 0.0 for x in z) else 1.0 / sum(1.0 / x for x in z)
    if len(group) > 1:
        notes.append(f"{len(group)} sources at bus {first.bus} are one")
    numbers = [s.v_pu for s in group if not isinstance(s.v_pu, str)]
    return dataclasses.replace(
        first,
        conductors=(1,),
        angle_deg=tuple(first.angle_deg[:1]),
        v_pu=float(np.mean(numbers)) if len(numbers) == len(group) else first.v_pu,
        r_ohm=np.array([[whole.real]]),
        x_ohm=np.array([[whole.imag]]),
        **_limits(group),  # type: ignore[arg-type]
    )


def _limits(group: list[Source]) -> dict[str, float]:
    out: dict[str, float] = {}
    for name in ("p_import_max_kw", "p_export_max_kw") if len(group) > 1 else ():
        values = [getattr(s, name) for s in group]
        if not any(isinstance(v, str) for v in values):
            out[name] = float(sum(values))
    return out


def _regulator(device: Regulator, reduction: Reduction) -> Regulator:
    """A regulator of the first unit of a bank stands for all of them."""
    for t in reduction.feeder.transformers:
        if t.name == device.transformer:
            return dataclasses.replace(device, winding=min(device.winding, len(t.windings)))
    return device


def _shunt_device(device: ShuntDevice, case: Case, reduction: Reduction) -> ShuntDevice | None:
    """The device on the one conductor; None when it is not between phases."""
    if device.bus not in reduction.phases:
        return None
    spans = [reduction.span(device.bus, a, b) for a, b in device.ports]
    span = float(np.mean(spans)) if spans else 0.0
    if span < 0.1:
        return None
    changes: dict[str, object] = {"terminals": (1, 0), "connection": "wye"}
    if isinstance(device, SoftOpenPoint):
        if device.other_bus not in reduction.phases:
            return None
        changes["other_terminals"] = (1, 0)
    if hasattr(device, "v_rated_kv"):
        base = case.feeder.bus[device.bus].v_base_kv
        across = device.v_rated_kv or (base if device.connection == "wye" else base * math.sqrt(3.0))
        kv = across / span
        changes["v_rated_kv"] = None if abs(kv - base) <= 1e-12 * base else kv
    return dataclasses.replace(device, **changes)  # type: ignore[arg-type]


__all__ = ["BalancedCase", "reduce_case", "to_balanced"]
