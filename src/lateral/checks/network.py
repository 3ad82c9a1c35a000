"""Rules of the wires: buses, conductors, connection, voltage levels, transformers, areas."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from lateral.checks.codes import fault
from lateral.checks.view import (
    RATED_FACTOR,
    Rule,
    View,
    is_flag,
    is_int,
    is_number,
    is_positive,
    listed,
    on_bus,
    rated_range,
    show,
)
from lateral.devices import Source
from lateral.devices.base import ShuntDevice
from lateral.errors import Fault, did_you_mean
from lateral.network import topology
from lateral.network.admittance import n_terminals
from lateral.network.feeder import Bus, Line, MultiTerminal, Shunt, Switch, Transformer, Winding

#: attributes that hold the name of a bus
_BUS_FIELDS = ("bus", "bus_from", "bus_to", "other_bus")
_BASE_TOLERANCE = 1e-3  # relative; 12.47 / sqrt(3) is often rounded to 7.2


def _no_source(view: View) -> Iterator[Fault]:
    if not view.feeder.buses:
        yield fault("NET-020", f"case.{view.case.name}", "0 buses", "one bus or more", "Add buses.")
    elif not any(isinstance(d, Source) for d in view.case.devices):
        yield fault(
            "NET-001", f"case.{view.case.name}", "0 sources", "one source or more", "Add a source at the substation."
        )


def _unknown_buses(view: View) -> Iterator[Fault]:
    known = view.bus_names
    for e in view.elements if known else ():
        if isinstance(e, Bus):
            continue
        if isinstance(e, Transformer):
            windings = e.windings if isinstance(e.windings, tuple) else ()
            ends = [(f"winding {k} bus", getattr(w, "bus", None)) for k, w in enumerate(windings, 1)]
        elif isinstance(e, MultiTerminal):
            terminals = e.terminals if isinstance(e.terminals, tuple) else ()
            ends = [(f"terminal {k} bus", getattr(t, "bus", None)) for k, t in enumerate(terminals, 1)]
        else:
            ends = [(n, b) for n in _BUS_FIELDS if isinstance(b := getattr(e, n, None), str) and b not in known]
        for field, bus in ends:
            if isinstance(bus, str) and bus not in known:
                yield view.unknown_bus(e.label, field, bus)


def _bus_conductors(view: View) -> Iterator[Fault]:
    balanced = view.feeder.balanced is True
    for bus in view.sound(Bus):
        c = bus.conductors
        if not c or min(c) < 1 or any(a >= b for a, b in pairwise(c)):
            allowed = "conductor numbers from 1 on, ascending, none twice; ground is not listed"
            yield fault("NET-007", bus.label, f"conductors = {show(c)}", allowed, "Correct the list.")
        elif balanced and len(c) != 1:
            allowed = "one conductor per bus in a balanced feeder"
            yield fault("NET-021", bus.label, f"conductors = {show(c)}", allowed, "Use (1,), or set balanced = False.")


def _branch_conductors(view: View) -> Iterator[Fault]:
    branches: tuple[Line | Switch, ...] = (*view.sound(Line), *view.sound(Switch))
    for b in branches:
        ends = (b.conductors_from, b.conductors_to)
        if len(ends[0]) != len(ends[1]) or not ends[0] or any(len(set(c)) < len(c) for c in ends):
            found = f"conductors_from = {show(ends[0])}, conductors_to = {show(ends[1])}"
            allowed = "the same number at both ends, at least one, none twice"
            yield fault("NET-007", b.label, found, allowed, "Correct the lists.")
        yield from on_bus(view, b.label, "conductors_from", b.bus_from, ends[0])
        yield from on_bus(view, b.label, "conductors_to", b.bus_to, ends[1])
        if b.bus_from == b.bus_to and not set(ends[0]).isdisjoint(ends[1]):
            found = f"bus_from = bus_to = {b.bus_from!r}"
            yield fault(
                "NET-018", b.label, found, "two different buses", "Correct one of the two, or remove the branch."
            )
    for shunt in view.sound(Shunt):
        if not shunt.conductors or len(set(shunt.conductors)) < len(shunt.conductors):
            found = f"conductors = {show(shunt.conductors)}"
            yield fault("NET-007", shunt.label, found, "at least one conductor, none twice", "Correct the list.")
        yield from on_bus(view, shunt.label, "conductors", shunt.bus, shunt.conductors)
    for wire in view.sound(MultiTerminal):
        nodes = wire.nodes
        ground = any(c < 1 for _, c in nodes)
        if not all(t.conductors for t in wire.terminals) or not nodes or ground or len(set(nodes)) < len(nodes):
            found = "terminals = " + show(tuple((t.bus, t.conductors) for t in wire.terminals))
            allowed = "a terminal or more, each of conductors from 1 on; none twice at a bus; ground is not listed"
            yield fault("NET-007", wire.label, found, allowed, "Correct the terminals.")
        for k, t in enumerate(wire.terminals, 1):
            yield from on_bus(view, wire.label, f"terminal {k}", t.bus, [c for c in t.conductors if c > 0])
        yield from _active(wire)
    for source in view.sound(Source):
        if not source.conductors or len(set(source.conductors)) < len(source.conductors):
            found = f"conductors = {show(source.conductors)}"
            yield fault("NET-007", source.label, found, "at least one conductor, none twice", "Correct the list.")
        yield from on_bus(view, source.label, "conductors", source.bus, source.conductors)


def _active(wire: MultiTerminal) -> Iterator[Fault]:
    """An asymmetric matrix is one of sequence impedances, where phases are alike, each seen by the next as it sees the
    one before: rows and columns have the same sums, and it gives no power. Any other is a mistake.
    """
    n = len(wire.nodes)
    if wire.g_us.shape != (n, n) or wire.b_us.shape != (n, n):
        return  # NET-009
    y = wire.g_us + 1j * wire.b_us
    if not np.isfinite(y).all() or wire.is_reciprocal:
        return  # NET-010
    allowed = "a symmetric matrix, or that of a passive element of sequence impedances"
    for name, part in (("g_us", wire.g_us), ("b_us", wire.b_us)):
        rounding = 1e-3 * float(np.abs(part).max())
        off = np.abs(part.sum(axis=0) - part.sum(axis=1))
        if off.max() > rounding:
            k = int(off.argmax())
            found = f"{name} asymmetric, the sums of row and column {k + 1} {off[k]:.6g} uS apart"
            yield fault("NET-011", wire.label, found, allowed, "Make mirrored values equal.")
            return
    lowest = float(np.linalg.eigvalsh(0.5 * (y + y.conj().T))[0])
    if lowest < -1e-3 * np.abs(y).max():
        found = f"an asymmetric matrix that gives power ({lowest:.6g} uS at some voltages)"
        yield fault("NET-011", wire.label, found, allowed, "Make mirrored values equal.")


def _islands(view: View) -> Iterator[Fault]:
    if not view.roots:
        return  # NET-001 or NET-002
    reached = set(view.tree.order)
    if len(reached) == len(view.bus_names):
        return
    for buses in topology.components(view.wires):
        if buses[0] in reached:
            continue
        lost = sum(view.load_kw.get(b, 0.0) for b in buses)
        inside = set(buses)
        open_ties = [
            s.label for s in view.sound(Switch) if not s.closed and (s.bus_from in inside) != (s.bus_to in inside)
        ]
        tie = f"Close {listed(open_ties)}" if open_ties else "Connect them to the feeder"
        yield fault(
            "NET-003",
            f"bus.{buses[0]}",
            f"{len(buses)} bus(es) without a path to a source: {listed(buses)}; {lost:.6g} kW of load unserved",
            "every bus connected to a source",
            f"{tie}, or remove these buses.",
        )


def _dead_conductors(view: View) -> Iterator[Fault]:
    """Phases that stop on the way. Neutrals are left out: they are fed from the load side too.

    A phase that no branch feeds may still have a voltage: backwards through a delta, over devices between phases,
    induced along a line. That is solved where no lower limit of the voltage is to be kept at the bus. One that nothing
    joins to a source has none.
    """
    if not view.roots or view.mistyped:
        return
    fed = [(s.bus, c) for s in view.sound(Source) for c in s.conductors]
    live = topology.energised(view.wires, fed)
    unfed: dict[str, list[int]] = {}
    for name in view.tree.order:
        dead = [c for c in view.conductors.get(name, ()) if 1 <= c <= 3 and (name, c) not in live]
        if dead:
            unfed[name] = dead
    if not unfed:
        return
    ports = [((bus, a), (bus, b)) for d in view.sound(ShuntDevice) for bus, (a, b) in d.places]
    joined = topology.reached(topology.joined(view.wires, ports), fed)
    joined -= topology.floating(view.wires, [*fed, *(node for port in ports for node in port)])
    lowest = {bus.name: bus.v_min_pu for bus in view.sound(Bus)}
    for name, some in unfed.items():
        dead = [c for c in some if (name, c) not in joined]
        if lowest[name] > 0.0:
            dead = some
        if dead:
            more = ", or set v_min_pu = 0 where it is to be open" if all((name, c) in joined for c in dead) else ""
            yield fault(
                "NET-006",
                f"bus.{name}",
                f"conductor {', '.join(map(str, sorted(dead)))} without a path to a source",
                "every phase of a bus fed through a branch",
                f"Add the phase to the branches that feed the bus, or take it off the bus{more}.",
            )


def _loops(view: View) -> Iterator[Fault]:
    for branches in topology.loops(view.wires, view.roots):
        switches = [b for b in branches if b.startswith("switch.")]
        way = f"Open {listed(switches)}" if switches else "Open or remove a branch of the loop"
        yield fault(
            "NET-004",
            (switches or branches)[0],
            f"a loop of {len(branches)} branches: {listed(branches)}",
            "a radial feeder",
            f"{way}, or choose a formulation that takes loops.",
        )


def _two_sources(view: View) -> Iterator[Fault]:
    at: dict[str, Source] = {s.bus: s for s in reversed(view.sound(Source))}
    if len(at) < 2:
        return
    for buses in topology.components(view.wires):
        feeding = [at[b].label for b in buses if b in at]
        if len(feeding) > 1:
            action = "Remove a source, open a switch between them, or choose a formulation that takes loops."
            yield fault(
                "NET-019", feeding[1], f"one network fed by {listed(feeding)}", "one source per network", action
            )


def _voltage_limits(view: View) -> Iterator[Fault]:
    for bus in view.sound(Bus):
        for kind, low, high in (
            ("v", bus.v_min_pu, bus.v_max_pu),
            ("vpp", bus.vpp_min_pu, bus.vpp_max_pu),
            ("vpn", bus.vpn_min_pu, bus.vpn_max_pu),
        ):
            if low >= high:
                found = f"{kind}_min_pu = {show(low)} and {kind}_max_pu = {show(high)}"
                allowed = f"{kind}_min_pu below {kind}_max_pu"
                yield fault("NET-013", bus.label, found, allowed, "Exchange or correct the two limits.")


def _voltage_bases(view: View) -> Iterator[Fault]:
    branches: tuple[Line | Switch, ...] = (*view.sound(Line), *view.sound(Switch))
    for b in branches:
        u, v = view.v_base.get(b.bus_from), view.v_base.get(b.bus_to)
        if u is not None and v is not None and abs(u - v) > _BASE_TOLERANCE * max(u, v):
            found = f"v_base_kv = {show(u)} at bus {b.bus_from!r} and {show(v)} at bus {b.bus_to!r}"
            action = "Give both buses the same base, or put a transformer between them."
            yield fault("NET-014", b.label, found, "the same base at both ends", action)


def _transformers(view: View) -> Iterator[Fault]:
    for t in view.sound(Transformer):
        n = len(t.windings)
        if n < 2:
            yield fault("NET-015", t.label, f"{n} winding(s)", "two windings or more", "Add the missing winding.")
            continue
        pairs = n * (n - 1) // 2
        if len(t.x_percent) != pairs:
            found = f"x_percent = {show(t.x_percent)}: {len(t.x_percent)} value(s) for {n} windings"
            yield fault("NET-015", t.label, found, f"{pairs} value(s), one per pair of windings", "Correct x_percent.")
        else:
            yield from _leakage(t)
        if view.feeder.balanced is True and t.n_phases != 1:
            allowed = "n_phases = 1 in a balanced feeder"
            action = "Give voltages (line to ground) and ratings of one of its phases, on terminals (1, 0)."
            yield fault("NET-015", t.label, f"n_phases = {show(t.n_phases)}", allowed, action)
            continue
        for k, w in enumerate(t.windings, 1):
            yield from _winding(view, t, k, w)


def _leakage(t: Transformer) -> Iterator[Fault]:
    order = [(i, j) for i in range(len(t.windings)) for j in range(i + 1, len(t.windings))]
    for (i, j), x in zip(order, t.x_percent, strict=True):
        r = t.windings[i].r_percent + t.windings[j].r_percent
        if x < 0.0 or (x == 0.0 and r == 0.0):
            found = f"x_percent = {show(x)} with {show(r)} % resistance between windings {i + 1} and {j + 1}"
            yield fault(
                "NET-016", t.label, found, "a positive impedance", "Give the leakage of the nameplate, or 0.01 %."
            )


def _winding(view: View, t: Transformer, k: int, w: Winding) -> Iterator[Fault]:
    label, terminals = t.label, w.terminals
    wye = w.connection == "wye"
    phases = terminals[:-1] if wye else terminals
    grounds = (0, -1)
    wanted = n_terminals(t.n_phases, w.connection) - (1 if wye else 0)
    shape = f"{wanted} phase conductor(s){' and the neutral' if wye else ''}"
    right = len(phases) == wanted
    # Ground among the phases: a one-phase winding may be written from ground, (0, 2), and a corner of an open delta
    # may be grounded. An isolated neutral, -1, is the last terminal of a wye or none.
    grounded = 0 in phases and t.n_phases != (1 if wye else 2) and t.n_phases > 1
    misplaced = grounded or -1 in phases
    if not right or len(set(terminals)) < len(terminals) or misplaced:
        found = f"winding {k} terminals = {show(terminals)}, {w.connection}, {t.n_phases} phase(s)"
        yield fault("NET-015", label, found, f"{shape}, none twice", "Correct the terminals of the winding.")
    yield from on_bus(view, label, f"winding {k}", w.bus, [c for c in terminals if c not in grounds])
    base = view.v_base.get(w.bus)
    if base is None or not 0.0 < w.v_rated_kv < math.inf:
        return
    to_ground = wye and len(phases) == 1 and not set(terminals).isdisjoint(grounds)
    low, high = rated_range(base, three_phase=t.n_phases > 1, to_ground=to_ground)
    if view.feeder.balanced is True:
        low, high = base / RATED_FACTOR, base * math.sqrt(3.0) * RATED_FACTOR
    if not low <= w.v_rated_kv <= high:
        found = f"winding {k} v_rated_kv = {show(w.v_rated_kv)} at bus {w.bus!r} of base {show(base)} kV to ground"
        action = "Correct the rating (kV, line to line for 2 and 3 phases) or the base of the bus (kV, line to ground)."
        yield fault("NET-017", label, found, f"{low:.4g} to {high:.4g} kV (within a factor of 2)", action)


def _feeder_numbers(view: View) -> Iterator[Fault]:
    label, feeder, alpha = f"case.{view.case.name}", view.feeder, view.case.alpha_usd_per_kwh
    values: tuple[tuple[str, object, bool, str], ...] = (
        ("n_phases", feeder.n_phases, is_int(feeder.n_phases) and 1 <= feeder.n_phases <= 3, "1, 2 or 3"),
        ("frequency_hz", feeder.frequency_hz, is_positive(feeder.frequency_hz), "a frequency above 0 Hz"),
        ("base.s_kva", view.case.base.s_kva, is_positive(view.case.base.s_kva), "a power base above 0 kVA"),
        ("balanced", feeder.balanced, is_flag(feeder.balanced), "True or False"),
        (
            "alpha_usd_per_kwh",
            alpha,
            is_positive(alpha) or (is_number(alpha) and alpha == 0.0),
            "a price of at least 0 $/kWh",
        ),
    )
    for field, value, right, allowed in values:
        if not right:
            yield fault("VAL-003", label, f"{field} = {show(value)}", allowed, "Correct the value.")


def _areas(view: View) -> Iterator[Fault]:
    areas, label = view.case.areas, f"case.{view.case.name}"
    if not areas:
        return
    for bus in areas:
        if bus not in view.bus_names:
            action = did_you_mean(str(bus), tuple(view.bus_names))
            yield fault("NET-022", label, f"an area for bus {bus!r}", "the name of a bus", action)
    missing = [b for b in view.bus_names if b not in areas]
    if missing:
        found = f"{len(missing)} bus(es) without an area: {listed(missing)}"
        yield fault("NET-022", label, found, "an area for every bus, or for none", "Add these buses to areas.")


RULES: tuple[Rule, ...] = (
    _feeder_numbers,
    _no_source,
    _unknown_buses,
    _bus_conductors,
    _branch_conductors,
    _islands,
    _dead_conductors,
    _voltage_limits,
    _voltage_bases,
    _transformers,
    _areas,
)
#: what a radial formulation asks for beyond the others
RADIAL: tuple[Rule, ...] = (_loops, _two_sources)
