"""Rules that find a wrong unit: numbers that no distribution feeder has.

The thresholds are wide on purpose: a fault stops a study, so a case that is only unusual must pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lateral.checks.codes import fault
from lateral.checks.view import (
    Rule,
    View,
    fields,
    is_int,
    is_number,
    show,
)
from lateral.devices import Battery, Load, ShuntDevice, Source
from lateral.errors import Fault
from lateral.network.feeder import Transformer
from lateral.network.schema import FloatArray

_MAX_CURRENT_A = 10_000.0  # per phase at the source or a device; feeder breakers end near 4000 A
_LARGE_CURRENT_A = 1_000.0  # with _LARGE_SHARE times the load: larger than any feeder conductor
_LARGE_SHARE = 20.0
_MIN_CURRENT_A = 0.5  # per phase, all loads together, from _MIN_LOADS loads at medium voltage on
_MIN_LOADS = 5
_MEDIUM_KV = 1.0
_MAX_BASE_KV = 300.0  # line to ground; 500 kV line to line is 289
_MIN_BASE_KV = 0.03
_MAX_PRICE = 50.0  # $/kWh; the highest market caps are near 20
_BATTERY_HOURS = (0.01, 1000.0)


def _load_size(view: View) -> Iterator[Fault]:
    """All loads together, as a current at the source (too large) and at their own buses (too small)."""
    loads = view.sound(Load)
    p, q = sum(view.load_kw.values()), sum(view.load_kvar.values())
    s = math.hypot(p, q)
    n_phases = _multiplicity(view)
    sources = [
        (len(x.conductors) * n_phases * view.v_base[x.bus], x) for x in view.sound(Source) if x.bus in view.v_base
    ]
    amps_per_kva = sum(kv for kv, _ in sources)
    if loads and amps_per_kva > 0.0 and s / amps_per_kva > _MAX_CURRENT_A:
        _, source = max(sources, key=lambda pair: pair[0])
        largest = max(loads, key=lambda x: view.peak_load(x)[0])
        line_to_line = view.v_base[source.bus] * math.sqrt(3.0)
        times = view.peak.get(largest.profile, 1.0)
        by = f", {show(largest.p_kw)} kW times {show(times)} of profile {largest.profile}" if times > 10.0 else ""
        yield fault(
            "UNI-001",
            source.label,
            f"loads sum to {_power(s)} on a {line_to_line:.4g} kV feeder ({s / amps_per_kva:.4g} A per phase); "
            f"the largest is {largest.label} with {_power(view.peak_load(largest)[0])}{by}",
            f"at most {_MAX_CURRENT_A:g} A per phase",
            "W given as kW, or a profile in kW that multiplies kW? Correct the loads (or the voltage base).",
        )
    medium = [x for x in loads if view.v_base.get(x.bus, 0.0) > _MEDIUM_KV]
    if len(medium) < max(_MIN_LOADS, len(loads)):
        return
    amps = sum(
        math.hypot(float(x.p_kw), float(x.q_kvar)) * max(1.0, view.peak.get(x.profile, 1.0)) / view.v_base[x.bus]
        for x in medium
    )
    if 0.0 < amps / 3.0 < _MIN_CURRENT_A:
        yield fault(
            "UNI-002",
            medium[0].label,
            f"{len(medium)} loads sum to {_power(s)} ({amps / 3.0:.3g} A per phase) at medium voltage",
            f"{_MIN_CURRENT_A:g} A per phase or more",
            "MW, or per unit, given as kW? Correct the loads (or the voltage bases).",
        )


def _multiplicity(view: View) -> int:
    n = view.feeder.n_phases
    return int(n) if is_int(n) and 1 <= n <= 3 else 1


def _power(kw: float) -> str:
    for size, unit in ((1e9, "TW"), (1e6, "GW"), (1e3, "MW"), (1.0, "kW")):
        if kw >= size:
            return f"{kw / size:.4g} {unit}"
    return f"{kw:.4g} kW"


def _device_size(view: View) -> Iterator[Fault]:
    """Every rating of a device in kW, kvar or kVA as a current through one of its ports."""
    total = sum(view.load_kw.values())
    n_phases = _multiplicity(view)
    for d in view.sound(ShuntDevice):
        base = view.v_base.get(d.bus)
        if base is None:
            continue
        ports = max(1, len(d.terminals) - (1 if d.connection == "wye" else 0)) * n_phases
        own: type = type(d)
        for f in fields(own):
            if f.type != "float" or f.spec.unit not in ("kW", "kvar", "kVA"):
                continue
            value = getattr(d, f.name)
            size = abs(float(value)) if value is not None else 0.0
            amps = size / (ports * base)
            share = not isinstance(d, Load) and 0.0 < total * _LARGE_SHARE < size and amps > _LARGE_CURRENT_A
            if math.isfinite(amps) and (amps > _MAX_CURRENT_A or share):
                versus = f", {size / total:.3g} times all loads" if share else ""
                found = f"{f.name} = {show(value)}: {amps:.4g} A at {base:.4g} kV to ground{versus}"
                allowed = f"at most {_LARGE_CURRENT_A if share else _MAX_CURRENT_A:g} A per port"
                unit = f.spec.unit
                action = f"{unit.removeprefix('k')} given as {unit}? Correct the rating or the voltage base."
                yield fault("UNI-003", d.label, found, allowed, action)
                break


def _voltage_drop(view: View) -> Iterator[Fault]:
    """The drop of each branch at all the load behind it, on the spanning tree, by |r P + x Q| / V^2."""
    below_p, below_q = dict(view.load_kw), dict(view.load_kvar)
    tree, n_phases = view.tree, _multiplicity(view)
    lines: dict[str, tuple[float, float, int]] = {}  # r, x, number of conductors
    for branches, r, x in view.impedances:
        for branch, r1, x1 in zip(branches, _positive_sequence(r), _positive_sequence(x), strict=True):
            lines[branch.label] = (r1, x1, r.shape[1])
    transformers = {
        t.label: (float(t.windings[0].s_rated_kva), t.x_percent[0])
        for t in view.sound(Transformer)
        if len(t.windings) == 2 and len(t.x_percent) == 1
    }
    for bus in reversed(tree.order):
        parent = tree.parent.get(bus)
        if parent is None:
            continue
        p, q = below_p.get(bus, 0.0), below_q.get(bus, 0.0)
        below_p[parent] = below_p.get(parent, 0.0) + p
        below_q[parent] = below_q.get(parent, 0.0) + q
        base, labels = view.v_base.get(bus), tree.via[bus].branches
        if p + q == 0.0 or base is None or not 1e-100 < base < 1e100:  # its square must be a number, too
            continue
        # branches side by side share the load
        wires = sum(lines[b][2] for b in labels if b in lines)
        rating = sum(transformers[b][0] for b in labels if b in transformers)
        for label in labels:
            if label in lines:
                r1, x1, _ = lines[label]
                drop = (abs(r1) * p + abs(x1) * q) / (1000.0 * base**2 * wires * n_phases)
            elif label in transformers and 0.0 < rating < math.inf:
                drop = math.hypot(p, q) / rating * transformers[label][1] / 100.0
            else:
                continue
            if 1.0 < drop < math.inf:
                if label in lines:
                    text = f"{r1:.4g} + j{x1:.4g} ohm at {base:.4g} kV to ground"
                else:
                    text = f"x_percent = {show(transformers[label][1])} on {show(rating)} kVA"
                found = f"{text} with {_power(p)} behind it: a voltage drop of {100.0 * drop:.4g} %"
                action = "Is the impedance per length, not a total? Is the load or the voltage base in a wrong unit?"
                yield fault("UNI-004", label, found, "less than 100 %", action)


def _positive_sequence(stack: FloatArray) -> list[float]:
    """Mean of the diagonal less mean of the rest, of each matrix: what a balanced current sees."""
    n = stack.shape[1]
    trace = np.trace(stack, axis1=1, axis2=2)
    rest = (stack.sum(axis=(1, 2)) - trace) / max(n * (n - 1), 1)
    means: list[float] = (trace / n - rest if n > 1 else trace).tolist()
    return means


def _base_size(view: View) -> Iterator[Fault]:
    for bus, base in view.v_base.items():
        if not _MIN_BASE_KV <= base <= _MAX_BASE_KV:
            word = "V given as kV?" if base > 1.0 else "MV given as kV?"
            allowed = f"{_MIN_BASE_KV:g} to {_MAX_BASE_KV:g} kV, line to ground"
            yield fault("UNI-005", f"bus.{bus}", f"v_base_kv = {show(base)}", allowed, f"{word} Correct the base.")


def _prices(view: View) -> Iterator[Fault]:
    for part in view.parts:
        for f in part.fields:
            if f.spec.unit != "$/kWh":
                continue
            for k, value in enumerate(part.column(f.name)):
                series = view.profiles.get(value) if isinstance(value, str) else None
                if series is None:
                    series = np.array([float(value)]) if is_number(value) else np.zeros(0)
                for t in np.flatnonzero(np.isfinite(series) & (np.abs(series) > _MAX_PRICE))[:1]:
                    of = f"{series[t]:.6g}" + (f" in step {t} of profile {value}" if isinstance(value, str) else "")
                    action = "$/MWh or cents given as $/kWh? Divide by 1000 or 100."
                    found = f"{part.prefixes[k]}{f.name} = {of} $/kWh"
                    yield fault("UNI-006", part.owners[k].label, found, f"at most {_MAX_PRICE:g} $/kWh", action)


def _battery_hours(view: View) -> Iterator[Fault]:
    for b in view.sound(Battery):
        power = float(max(b.p_charge_max_kw, b.p_discharge_max_kw))
        if not (power > 0.0 and b.energy_kwh > 0.0):
            continue
        hours = float(b.energy_kwh) / power
        if not _BATTERY_HOURS[0] <= hours <= _BATTERY_HOURS[1]:
            word = "MWh given as kWh?" if hours < 1.0 else "Wh given as kWh?"
            found = f"energy_kwh = {show(b.energy_kwh)} at {show(power)} kW: {hours:.4g} h"
            allowed = f"{_BATTERY_HOURS[0]:g} to {_BATTERY_HOURS[1]:g} h"
            yield fault("UNI-007", b.label, found, allowed, f"{word} Correct capacity or power.")


RULES: tuple[Rule, ...] = (
    _load_size,
    _device_size,
    _voltage_drop,
    _base_size,
    _prices,
    _battery_hours,
)
