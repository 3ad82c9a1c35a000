"""Rules of the devices: terminals, limits, states, set points, ratings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from lateral.checks.codes import fault
from lateral.checks.view import (
    Rule,
    View,
    is_positive,
    on_bus,
    rated_range,
    show,
)
from lateral.devices import (
    PV,
    Battery,
    BorderHead,
    BorderTail,
    Capacitor,
    Regulator,
    ShuntDevice,
    SoftOpenPoint,
    Source,
)
from lateral.errors import Fault, did_you_mean
from lateral.network.feeder import Bus, Transformer


def _terminals(view: View) -> Iterator[Fault]:
    for d in view.sound(ShuntDevice):
        t = d.terminals
        problem = ""
        if d.connection == "wye" and len(t) < 2:
            problem = "two terminals or more in wye: the conductors, then the common point (0 = ground)"
        elif d.connection in ("delta", "delta-open") and 0 in t and len(t) > 2:
            # one port to ground is plain, whatever it is called; published OpenDSS models (IEEE 34) hold such loads
            problem = "no ground (0) in delta; a device to ground is a wye"
        elif d.connection == "delta" and len(t) not in (2, 3):
            problem = "two or three conductors in delta"
        elif d.connection == "delta-open" and len(t) != 3:
            problem = "three conductors in open delta"
        elif len(set(t)) < len(t):
            problem = "every terminal once"
        if problem:
            found = f"terminals = {show(t)}, {d.connection}"
            yield fault("DEV-001", d.label, found, problem, "Correct terminals or connection.")
        yield from on_bus(view, d.label, "terminals", d.bus, [c for c in t if c != 0])


def _box_limits(view: View) -> Iterator[Fault]:
    inverters: tuple[PV | Battery, ...] = (*view.sound(PV), *view.sound(Battery))
    for d in inverters:
        if d.limit != "box":
            continue
        p = float(d.p_rated_kw if isinstance(d, PV) else max(d.p_charge_max_kw, d.p_discharge_max_kw))
        if d.s_max_kva < p:
            field = "p_rated_kw" if isinstance(d, PV) else "power"
            found = f"s_max_kva = {show(d.s_max_kva)} below its {field} of {show(p)} kW"
            action = "Raise s_max_kva, lower the power, or use limit = 'disc'."
            yield fault("DEV-002", d.label, found, "s_max_kva of at least the power", action)


def _state_of_charge(view: View) -> Iterator[Fault]:
    for b in view.sound(Battery):
        if b.soc_min <= b.soc_max and not b.soc_min <= b.soc_initial <= b.soc_max:
            found = f"soc_initial = {show(b.soc_initial)}"
            allowed = f"soc_min = {show(b.soc_min)} to soc_max = {show(b.soc_max)}"
            yield fault("DEV-003", b.label, found, allowed, "Move the start inside the limits, or widen them.")


def _regulators(view: View) -> Iterator[Fault]:
    names = [t.name for t in view.feeder.transformers if isinstance(t.name, str)]
    sound = {t.name: t for t in view.sound(Transformer)}
    taken: dict[tuple[str, int], str] = {}
    for r in view.sound(Regulator):
        found = f"winding {r.winding} of transformer {r.transformer!r}"
        if r.transformer not in names:
            action = did_you_mean(r.transformer, names)
            yield fault("DEV-004", r.label, f"transformer = {r.transformer!r}", "the name of a transformer", action)
            continue
        other = taken.setdefault((r.transformer, r.winding), r.label)
        if other != r.label:
            yield fault(
                "DEV-004", r.label, f"{found}, taken by {other}", "one regulator per winding", "Remove one of them."
            )
        t = sound.get(r.transformer)
        if t is None:
            continue
        if not 1 <= r.winding <= len(t.windings):
            yield fault("DEV-004", r.label, found, f"winding 1 to {len(t.windings)}", "Correct the winding.")
        elif not r.tap_min - 1e-6 <= t.windings[r.winding - 1].tap <= r.tap_max + 1e-6:
            found = f"tap = {show(t.windings[r.winding - 1].tap)} at {found}"
            allowed = f"{show(r.tap_min)} to {show(r.tap_max)}"
            yield fault(
                "DEV-005", r.label, found, allowed, "Correct the tap (a ratio near 1, not a step number) or the range."
            )


def _sources(view: View) -> Iterator[Fault]:
    buses = {b.name: b for b in view.sound(Bus)}
    stiff: dict[tuple[str, int], str] = {}
    for s in view.sound(Source):
        if len(s.angle_deg) != len(s.conductors):
            found = f"{len(s.angle_deg)} angle(s) for {len(s.conductors)} conductor(s)"
            yield fault("DEV-006", s.label, found, "one angle per conductor", "Give e.g. angle_deg = (0, -120, 120).")
        elif len(s.angle_deg) > 1 and set(s.conductors) <= {1, 2, 3} and max(s.angle_deg) - min(s.angle_deg) < 10.0:
            found = f"angle_deg = {show(s.angle_deg)}"
            yield fault("UNI-009", s.label, found, "angles apart by 90 degrees and more", "Radians given as degrees?")
        has_z = bool(np.any(s.r_ohm) or np.any(s.x_ohm))
        if not has_z:
            for c in s.conductors:
                other = stiff.setdefault((s.bus, c), s.label)
                if other != s.label:
                    found = f"conductor {c} of bus {s.bus!r}, held by {other} too"
                    yield fault(
                        "DEV-010", s.label, found, "one source without impedance per conductor", "Remove one of them."
                    )
                    break
        bus = buses.get(s.bus)
        values = view.profiles.get(s.v_pu) if isinstance(s.v_pu, str) else np.array([float(s.v_pu)])
        if bus is None or values is None:
            continue
        # behind an impedance the bus sees less than the source gives
        slack = 0.05 if has_z else 1e-9
        out = (values < bus.v_min_pu - slack) | (values > bus.v_max_pu + slack)
        for t in np.flatnonzero(out)[:1]:
            found = f"v_pu = {show(values[t])}" + (
                f" in step {t} of profile {s.v_pu}" if isinstance(s.v_pu, str) else ""
            )
            allowed = f"the limits of bus {s.bus!r}: {show(bus.v_min_pu)} to {show(bus.v_max_pu)}"
            yield fault("DEV-007", s.label, found, allowed, "Change the set point, or widen the limits of that bus.")


def _grid_limits(view: View) -> Iterator[Fault]:
    """A limit on import or export below zero asks for the opposite; say it with the other limit."""
    for s in view.sound(Source):
        for field in ("p_import_max_kw", "p_export_max_kw"):
            value = getattr(s, field)
            series = view.profiles.get(value) if isinstance(value, str) else np.array([float(value)])
            if series is not None and (series < 0.0).any():
                found = f"{field} = {show(float(np.nanmin(series)))}"
                yield fault(
                    "VAL-003", s.label, found, f"{field} at least 0 kW", "Give the size of the limit, without a sign."
                )


def _arbitrage(view: View) -> Iterator[Fault]:
    """An export price above the import price pays for buying and selling at once: there is no best schedule."""
    for s in view.sound(Source):
        if s.price_export is None:
            continue
        prices = [
            view.profiles.get(value) if isinstance(value, str) else np.array([float(value)])
            for value in (s.price_import, s.price_export)
        ]
        buy, sell = prices
        if buy is None or sell is None or (buy.size != sell.size and 1 not in (buy.size, sell.size)):
            continue
        over = np.flatnonzero(sell > buy + 1e-12)
        if over.size:
            k = int(over[0])
            value = float(sell[k if sell.size > 1 else 0])
            steps = f"{over.size} step(s), the first is step {k}"
            found = f"price_export = {value:.6g} above price_import in {steps}"
            yield fault(
                "DEV-011",
                s.label,
                found,
                "an export price of at most the import price",
                "Exchange the prices, or leave price_export out to pay both ways alike.",
            )


def _power_factor(view: View) -> Iterator[Fault]:
    for pv in view.sound(PV):
        if pv.q_control == "power_factor" and abs(pv.power_factor) < 1e-3:
            found = f"power_factor = {show(pv.power_factor)}"
            yield fault("DEV-008", pv.label, found, "-1 to 1, not 0", "Give e.g. 0.95, or use q_control = 'free'.")


def _inverter_curves(view: View) -> Iterator[Fault]:
    """Curves of the voltage: as many values as points, the points ascending, the values not rising."""
    inverters: tuple[PV | Battery, ...] = (*view.sound(PV), *view.sound(Battery))
    for d in inverters:
        curves = [("volt_var_v_pu", d.volt_var_v_pu, "volt_var_q_pu", d.volt_var_q_pu)] * (d.q_control == "volt_var")
        if isinstance(d, PV) and d.volt_watt:
            curves.append(("volt_watt_v_pu", d.volt_watt_v_pu, "volt_watt_p_pu", d.volt_watt_p_pu))
            if not d.curtailable and d.phases == "free":
                action = "Set curtailable = true, or phases = balanced."
                found = "volt_watt on a PV system that is fixed, its phases free"
                yield fault("DEV-013", d.label, found, "curtailable, or phases balanced", action)
        for name, points, other, values in curves:
            problem, action = "", "Correct the points."
            if len(points) < 2 or len(points) != len(values):
                problem = f"{len(points)} points and {len(values)} values"
                allowed = "two points or more, a value for each"
            elif any(b - a < 1e-3 * (1.0 - 1e-9) for a, b in itertools.pairwise(points)):
                problem, allowed = f"{name} = {show(points)}", "ascending, 0.001 pu apart or more"
            elif any(b > a for a, b in itertools.pairwise(values)):
                problem, allowed = f"{other} = {show(values)}", "values that do not rise with the voltage"
                action = "Exchange the values; a rising curve drives the voltage away."
            if problem:
                yield fault("DEV-013", d.label, problem, allowed, action)


def _soft_open_points(view: View) -> Iterator[Fault]:
    """The second end is connected as the first one, at another place."""
    for d in view.sound(SoftOpenPoint):
        yield from on_bus(view, d.label, "other_terminals", d.other_bus, [c for c in d.other_terminals if c != 0])
        found = f"other_terminals = {show(d.other_terminals)}, {d.connection}"
        if len(d.other_terminals) != len(d.terminals) or len(set(d.other_terminals)) < len(d.other_terminals):
            allowed = "as many terminals as at the first end, every one once"
            yield fault("DEV-015", d.label, found, allowed, "Correct terminals or other_terminals.")
        elif d.connection != "wye" and 0 in d.other_terminals and len(d.other_terminals) > 2:
            yield fault("DEV-015", d.label, found, "no ground (0) in delta", "Correct other_terminals or connection.")
        elif d.other_bus == d.bus and set(d.other_terminals) & set(d.terminals) - {0}:
            action = "Correct one of the two buses."
            yield fault("DEV-015", d.label, f"both ends at bus {d.bus!r}", "two different places", action)


def _banks(view: View) -> Iterator[Fault]:
    """What is on of a capacitor cannot be more than all of it."""
    for d in view.sound(Capacitor):
        if d.q_total_kvar is not None and d.q_kvar > d.q_total_kvar * (1.0 + 1e-9):
            found = f"q_kvar = {show(d.q_kvar)} of q_total_kvar = {show(d.q_total_kvar)}"
            action = "Raise q_total_kvar, or lower q_kvar."
            yield fault("DEV-014", d.label, found, "q_kvar of at most q_total_kvar", action)


def _rated_voltages(view: View) -> Iterator[Fault]:
    for d in view.sound(ShuntDevice):
        rated, base = getattr(d, "v_rated_kv", None), view.v_base.get(d.bus)
        if base is None or not is_positive(rated):
            continue
        low, high = rated_range(base, three_phase=False, to_ground=d.connection == "wye" and 0 in d.terminals)
        if not low <= float(rated) <= high:  # type: ignore[arg-type]
            found = f"v_rated_kv = {show(rated)} at bus {d.bus!r} of base {show(base)} kV to ground"
            action = (
                "Correct the rating: the voltage across one port, in kV (line to ground in wye, line to line in delta)."
            )
            yield fault("DEV-009", d.label, found, f"{low:.4g} to {high:.4g} kV (within a factor of 2)", action)


def _borders(view: View) -> Iterator[Fault]:
    """A border is a voltage, or a constant power from each conductor to ground; the rest of its class means nothing."""
    for h in view.sound(BorderHead):
        idle = [
            name
            for name, given in (
                ("r_ohm", np.any(h.r_ohm)),
                ("x_ohm", np.any(h.x_ohm)),
                ("price_export", h.price_export is not None),
                ("p_import_max_kw", h.p_import_max_kw != np.inf),
                ("p_export_max_kw", h.p_export_max_kw != np.inf),
            )
            if given
        ]
        for name in idle:
            found = f"{name} = {show(getattr(h, name))}"
            yield fault("DEV-012", h.label, found, "none: a border is a voltage without impedance", "Leave it out.")
    for t in view.sound(BorderTail):
        if t.connection != "wye" or t.terminals[-1:] != (0,):
            found = f"terminals = {show(t.terminals)}, {t.connection}"
            yield fault("DEV-012", t.label, found, "conductors, then 0, in wye", "List what crosses, then ground.")
        if t.model != "constant_power":
            found = f"model = {t.model!r}"
            yield fault("DEV-012", t.label, found, "'constant_power': what the lower area asks for", "Leave it out.")


RULES: tuple[Rule, ...] = (
    _terminals,
    _box_limits,
    _state_of_charge,
    _regulators,
    _sources,
    _grid_limits,
    _arbitrage,
    _borders,
    _power_factor,
    _inverter_curves,
    _banks,
    _soft_open_points,
    _rated_voltages,
)
