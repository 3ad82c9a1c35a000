"""Lines, switches, reactors, faults and transformers of an OpenDSS model, as wires of a feeder.

Matrices are what the engine itself solves with: the primitive admittance of each element. For a line of n conductors
with totals Z and B it is ``[[Z^-1 + jB/2, -Z^-1], [-Z^-1, Z^-1 + jB/2]]``, so ``Z`` and ``B`` come back from it
whatever they were made of (line codes, sequence values, geometry and wire data, another base frequency).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import SQRT3, Build, Properties, number, numbers, reduce_to_nodes, text
from lateral.io.opendss.map_generic import OPEN_S, generic, multi_terminal, reciprocal
from lateral.io.opendss.map_ratings import limit, line_limit
from lateral.network.admittance import primitive_of
from lateral.network.feeder import Line, MultiTerminal, Shunt, Switch, Transformer, Winding
from lateral.network.schema import ComplexArray, FloatArray
from lateral.network.topology import COUPLED

_GROUNDED = "an end on ground is a conductor of its own, grounded through 1e-6 ohm"
#: km per unit of length; ``none`` is taken as it is.
_KM = {
    "mi": 1.609344,
    "kft": 0.3048,
    "km": 1.0,
    "m": 1e-3,
    "ft": 3.048e-4,
    "in": 2.54e-5,
    "cm": 1e-5,
    "mm": 1e-6,
    "none": 0.0,
}


def map_lines(build: Build) -> None:
    """Lines and switches."""
    groups: dict[int, list[tuple[str, Properties, ElementData]]] = {}
    for name, properties, element in build.live("line"):
        groups.setdefault(element.conductors, []).append((name, properties, element))
    done, suspects = {}, set[str]()
    for members in groups.values():
        z, b = _series_and_charging(build, members)
        suspect = _may_produce(z.real)
        for k, (name, properties, element) in enumerate(members):
            done[name] = (properties, element, z[k], b[k])
            suspects |= {name} if suspect[k] else set()
    for properties in build.model.objects("line"):  # the order of the files
        name = str(properties["name"]).lower()
        if name in done:
            i_max = line_limit(build, name, properties)
            _line(build, name, *done[name], suspect=name in suspects, i_max=i_max)


def _series_and_charging(
    build: Build, members: Sequence[tuple[str, Properties, ElementData]]
) -> tuple[ComplexArray, FloatArray]:
    """Impedance (ohm) and susceptance (uS) matrices of lines of as many conductors, shape (m, n, n)."""
    n = members[0][2].conductors
    omega = 2.0 * np.pi * build.model.base_frequency_hz
    stated = [build.model.lines[name] for name, _, _ in members]
    z = np.array([s.z_ohm for s in stated], dtype=complex).reshape(-1, n, n)
    b = omega * 1e-3 * np.array([s.c_nf for s in stated], dtype=float).reshape(-1, n, n)
    whole = [k for k, (_, _, e) in enumerate(members) if e.yprim is not None and not e.is_open]
    if not whole:
        return z, b
    y = np.array([members[k][2].yprim for k in whole]).reshape(-1, 2 * n, 2 * n)
    series = -y[:, :n, n:]
    with np.errstate(all="ignore"):
        size = np.abs(series).max(axis=(1, 2))
        try:
            off = np.abs(np.linalg.inv(z[whole]) - series).max(axis=(1, 2)) / size
        except np.linalg.LinAlgError:
            off = np.full(len(whole), np.inf)
        charging = 2e6 * (y[:, :n, :n] - series).imag
        # what is left of Z^-1 after a difference is noise of this size
        floor = 1e-6 * np.abs(b[whole]).max(axis=(1, 2)) + 1e-9 * 1e6 * size + 1e-12
        off_b = np.abs(charging - b[whole]).max(axis=(1, 2)) > floor
    for at, k in enumerate(whole):
        if not off[at] < 1e-10:
            z[k] = np.linalg.inv(series[at])
            build.taken.add(f"line.{members[k][0]}")
        if off_b[at]:
            b[k] = charging[at]
            build.taken.add(f"line.{members[k][0]}")
    return z, b


def _line(
    build: Build,
    name: str,
    properties: Properties,
    element: ElementData,
    z: ComplexArray,
    b: FloatArray,
    *,
    suspect: bool,
    i_max: float,
) -> None:
    source = f"line.{name}"
    a_nodes, b_nodes = element.nodes[0], element.nodes[1]
    opened = {c - 1 for terminal in element.open_conductors for c in terminal}
    is_switch = bool(properties.get("switch"))
    keep = [k for k in range(element.conductors) if a_nodes[k] > 0 or b_nodes[k] > 0]
    if len(keep) < element.conductors:  # grounded at both ends: it carries current, so reduce, do not cut
        z = np.asarray(np.linalg.inv(np.linalg.inv(z)[np.ix_(keep, keep)]), dtype=np.complex128)
        suspect = True
        b = b[np.ix_(keep, keep)]
    far = _open_downstream(build, element) if opened and b.any() else -1
    made_up = ""
    if far >= 0:
        ends = build.open_ends(element.buses[far], element.nodes[far], opened)
        a_nodes, b_nodes = (ends, b_nodes) if far == 0 else (a_nodes, ends)
        which, into = (
            ", ".join(map(str, some)) for some in zip(*((k + 1, ends[k]) for k in sorted(opened)), strict=True)
        )
        bus = element.buses[far]
        made_up = f"open conductors {which} end at {into} of bus {bus}, made up for their open ends, within its limits"
        opened = set()
    if opened and not opened >= set(keep):  # open: no current, so cut
        at = [i for i, k in enumerate(keep) if k not in opened]
        z, b = z[np.ix_(at, at)], b[np.ix_(at, at)]
        keep = [keep[i] for i in at]
    a_nodes = tuple(a_nodes[k] for k in keep)
    b_nodes = tuple(b_nodes[k] for k in keep)
    if any(nodes.count(k) > 1 for nodes in (a_nodes, b_nodes) for k in nodes if k > 0):
        _joined(build, name, element, limited=i_max < float("inf"))
        return
    grounded = 0 in a_nodes or 0 in b_nodes
    if grounded:
        a_nodes = build.off_ground(element.buses[0], a_nodes)
        b_nodes = build.off_ground(element.buses[1], b_nodes)
    all_open = bool(opened) and opened >= set(keep)
    if suspect and not all_open and element.yprim is not None and _produces(build, source, z.real):
        made_of = generic(build, source, f"line_{name}", element, "its resistance is not positive, so it is no line")
        if made_of is not None and i_max < float("inf"):
            build.record(source, "approximated", "IMP-066", "Its ampere limit is not held.")
        return
    rest = bool(opened) and bool(b.any()) and element.yprim is not None  # what an open conductor takes is charging
    if rest and grounded:
        generic(build, source, f"line_{name}", element, "its closed conductors, one on ground")
        return
    charging = None if rest or not b.any() else b
    made: Switch | Line
    if all_open or is_switch:
        made = Switch(
            name=name,
            bus_from=element.buses[0],
            bus_to=element.buses[1],
            conductors_from=a_nodes,
            conductors_to=b_nodes,
            closed=not all_open,
            r_ohm=z.real,
            x_ohm=z.imag,
            b_us=charging,
            i_max_a=i_max,
        )
        build.switches.append(made)
        reason = "" if is_switch else "open on all conductors: an open switch"
        build.mapped(source, made, code="IMP-001" if is_switch else "IMP-004", reason=reason)
    else:
        scale = _KM.get(text(properties, "units"), 0.0)
        made = Line(
            name=name,
            bus_from=element.buses[0],
            bus_to=element.buses[1],
            conductors_from=a_nodes,
            conductors_to=b_nodes,
            r_ohm=z.real,
            x_ohm=z.imag,
            b_us=charging,
            i_max_a=i_max,
            length_km=number(properties, "length") * scale,
        )
        build.lines.append(made)
        build.mapped(source, made)
    if grounded:
        build.record(source, "mapped", "IMP-059", _GROUNDED)
    if opened and not all_open:
        which = ", ".join(str(k + 1) for k in sorted(opened))
        build.record(source, "mapped", "IMP-014", f"open conductors {which} carry no current and are left out")
    if made_up:
        build.record(source, "mapped", "IMP-014", made_up)
    if rest:
        _charging(build, source, made, element)


def _open_downstream(build: Build, element: ElementData) -> int:
    """The terminal of a line at which some of its conductors, not all, are open, if it is the further from a source.

    There it stays a line: what is open ends at a conductor that nothing else is on, so that its charging is where it is
    and radial formulations take it. -1 of all others.
    """
    far = [t for t, some in enumerate(element.open_conductors) if some]
    depth = [build.hops.get(bus, -1) for bus in element.buses]
    if len(far) != 1 or len(element.open_conductors[far[0]]) == element.conductors:
        return -1
    if any(0 in nodes for nodes in element.nodes) or min(depth) < 0 or depth[far[0]] <= depth[1 - far[0]]:
        return -1
    return far[0]


def _may_produce(r: FloatArray) -> NDArray[np.bool_]:
    """Which resistance matrices, shape (m, n, n), need a look by `_produces`: cutting conductors makes none of them."""
    finite = np.where(np.isfinite(r), r, 0.0)
    lowest = np.linalg.eigvalsh(0.5 * (finite + finite.transpose(0, 2, 1)))[:, 0]
    return np.asarray((lowest < 0.0) | ~np.isfinite(r).all(axis=(1, 2)))


def _produces(build: Build, source: str, r: FloatArray) -> bool:
    """Whether a resistance matrix would produce energy at some currents (`NET-012`); said in the report.

    The engine solves it all the same, and so do forms that take any admittance.
    """
    lowest = float(np.linalg.eigvalsh(0.5 * (r + r.T))[0])
    if np.diagonal(r).min() >= -1e-12 and lowest >= -0.01 * float(np.abs(r).max()) - 1e-12:
        return False
    build.note(
        "IMP-073", f"{source}: a resistance matrix with the eigenvalue {lowest:.6g} ohm", build.model.where(source)
    )
    return True


def _charging(build: Build, source: str, made: Switch | Line, element: ElementData) -> None:
    """What a line with open conductors has beside the series impedance of its closed ones, of the engine's matrix.

    All charging of it is there, also that of a conductor that is open at one end alone, and what this induces.
    """
    assert element.yprim is not None
    nodes, y = reduce_to_nodes(element, element.yprim)
    size = float(np.abs(y).max(initial=0.0))
    at = {node: k for k, node in enumerate(nodes)}
    if isinstance(made, Line) or made.closed:
        own = primitive_of(made)
        where = [at[node] for node in own.nodes]
        y = y.copy()
        y[np.ix_(where, where)] -= own.y
    y = 0.5 * (y + y.T)
    y[np.abs(y) <= COUPLED * size] = 0.0  # what is left of the difference
    _, part = connected_components(np.abs(y) > 0.0, directed=False)
    pieces = [np.flatnonzero((part == k) & (np.abs(y).max(axis=1) > OPEN_S)) for k in range(part.max(initial=-1) + 1)]
    pieces = [piece for piece in pieces if len(piece)]
    for count, piece in enumerate(pieces, 1):
        own_name = f"line_{made.name}" + (f"_{count}" if len(pieces) > 1 else "")
        matrix = y[np.ix_(piece, piece)]
        ends = tuple(nodes[k] for k in piece)
        what: Shunt | MultiTerminal
        if len({bus for bus, _ in ends}) == 1:
            conductors = tuple(c for _, c in ends)
            what = Shunt(
                name=own_name, bus=ends[0][0], conductors=conductors, g_us=1e6 * matrix.real, b_us=1e6 * matrix.imag
            )
            build.shunts.append(what)
        else:
            what = multi_terminal(own_name, ends, matrix)
            build.admittances.append(what)
            build.charging.add(own_name)
        build.taken.add(source)
        build.mapped(
            source, what, code="IMP-014", reason="" if count > 1 else "its charging is an admittance beside it"
        )


def _joined(build: Build, name: str, element: ElementData, *, limited: bool) -> None:
    """A line or switch of which two conductors end on one node: no pairs of conductors, so no line."""
    source = f"line.{name}"
    made = generic(build, source, f"line_{name}", element, "conductors of it end on one node")
    if made is not None and limited:
        build.record(source, "approximated", "IMP-066", "Its ampere limit is not held.")


def map_series_and_shunts(build: Build) -> None:
    """Reactors and faults: series ones are lines, those on one bus are shunts."""
    for cls in ("reactor", "fault"):
        for name, properties, element in build.live(cls):
            two_terminal(build, cls, name, properties, element)


def two_terminal(build: Build, cls: str, name: str, properties: Properties, element: ElementData) -> None:
    """Any linear element of one or two terminals, by the engine's own admittance matrix."""
    source, label = f"{cls}.{name}", f"{cls}_{name}"
    build.taken.add(source)
    if element.yprim is None:
        lost = (
            "no room was left for its admittance matrix" if element.over_bound else "the engine gives no matrix for it"
        )
        build.record(source, "ignored", "IMP-040", lost)
        return
    if element.is_open:
        generic(build, source, label, element, "its closed conductors")
        return
    if not reciprocal(element.yprim):
        generic(build, source, label, element, "its matrix is not symmetric (Z1 and Z2 differ), so it is no line")
        return
    buses = {bus for bus, nodes in zip(element.buses, element.nodes, strict=True) if any(nodes)}
    if len(buses) < 2:
        nodes, y = reduce_to_nodes(element, element.yprim)
        if not nodes:
            build.record(source, "ignored", "IMP-003", "both ends are ground")
            return
        shunt = Shunt(
            name=label,
            bus=nodes[0][0],
            conductors=tuple(node for _, node in nodes),
            g_us=1e6 * y.real,
            b_us=1e6 * y.imag,
        )
        build.shunts.append(shunt)
        build.mapped(source, shunt)
        return
    n = element.conductors
    y = element.yprim
    series = -y[:n, n:]
    grounded = any(0 in nodes for nodes in element.nodes)
    size = float(np.abs(y).max())
    rest = max(float(np.abs(y[k : k + n, k : k + n] - series).max()) for k in (0, n)) if len(y) == 2 * n else np.inf
    if rest > 1e-9 * size:
        generic(build, source, label, element, "it has an admittance to ground, or more than two terminals")
        return
    with np.errstate(all="ignore"):
        regular = np.linalg.cond(series) < 1e12
    if not regular:
        generic(build, source, label, element, "its admittance has no inverse, so it is no line")
        return
    z = np.asarray(np.linalg.inv(series), dtype=np.complex128)
    if _produces(build, source, z.real):
        generic(build, source, label, element, "its resistance is not positive, so it is no line")
        return
    line = Line(
        name=label,
        bus_from=element.buses[0],
        bus_to=element.buses[1],
        conductors_from=build.off_ground(element.buses[0], element.nodes[0]),
        conductors_to=build.off_ground(element.buses[1], element.nodes[1]),
        r_ohm=np.asarray(z.real, dtype=float),
        x_ohm=np.asarray(z.imag, dtype=float),
        i_max_a=limit(build, cls, name, number(properties, "normamps")),
    )
    build.lines.append(line)
    if grounded:
        build.record(source, "mapped", "IMP-059", _GROUNDED)
    build.mapped(source, line)


# ---------------------------------------------------------------------------------------------------- transformers


def map_transformers(build: Build) -> None:
    """Transformers, with the taps of the solved point."""
    for name, properties, element in build.live("transformer"):
        source = f"transformer.{name}"
        if element.phases > 3 or element.is_open:
            what = f"{element.phases} phases" if element.phases > 3 else "its closed conductors"
            generic(build, source, f"transformer_{name}", element, f"{what}; tap as at the solved point, no limit")
            if element.phases <= 3:
                _suggest_bases(build, _transformer(build, name, properties, element))
            continue
        transformer = _transformer(build, name, properties, element)
        if any(_is_odd(transformer.n_phases, w) for w in transformer.windings):
            what = "a winding of it is grounded at a phase, or has two ends on one node; tap as at the solved point"
            made = generic(build, source, f"transformer_{name}", element, what)
            _suggest_bases(build, transformer)
            if made is not None and transformer.s_max_kva < float("inf"):
                build.record(source, "approximated", "IMP-066", "Its kVA limit is not held.")
            continue
        build.transformers.append(transformer)
        build.mapped(source, transformer)


def _transformer(build: Build, name: str, properties: Properties, element: ElementData) -> Transformer:
    kvs, kvas, taps = numbers(properties, "kvs"), numbers(properties, "kvas"), numbers(properties, "taps")
    rs, r_n, x_n = numbers(properties, "%rs"), numbers(properties, "rneut"), numbers(properties, "xneut")
    conns = [str(c).lower() for c in properties["conns"]]
    # reactances are stated at a frequency of its own
    ratio = build.model.base_frequency_hz / number(properties, "basefreq", build.model.base_frequency_hz)
    n = element.phases
    windings = []
    for k, nodes in enumerate(element.nodes):
        delta = conns[k] not in ("wye", "y", "ln")
        # The engine gives a three-phase delta one conductor more than it has corners.
        width = (n if n == 3 else n + 1) if delta else n + 1
        windings.append(
            Winding(
                bus=element.buses[k],
                terminals=tuple(nodes[:width]),
                connection="delta" if delta else "wye",
                v_rated_kv=kvs[k],
                s_rated_kva=kvas[k],
                r_percent=rs[k],
                tap=taps[k],
                r_neutral_ohm=r_n[k] if k < len(r_n) else -1.0,
                x_neutral_ohm=ratio * x_n[k] if k < len(x_n) else 0.0,
            )
        )
    normal = number(properties, "normhkva")
    pairs = len(windings) * (len(windings) - 1) // 2
    return Transformer(
        name=name,
        n_phases=n,
        windings=tuple(windings),
        x_percent=tuple(ratio * x for x in numbers(properties, "xscarray")[:pairs]),
        no_load_loss_percent=number(properties, "%noloadloss"),
        magnetizing_percent=number(properties, "%imag") / ratio,
        antifloat_ppm=number(properties, "ppm_antifloat", 1.0),
        delta_lead=text(properties, "leadlag") in ("lead", "euro"),
        s_max_kva=limit(build, "transformer", name, normal if normal > 0 else kvas[0]),
        bank=text(properties, "bank"),
    )


def _suggest_bases(build: Build, transformer: Transformer) -> None:
    """The bases of the buses of a transformer that is read as a matrix."""
    build.rated.append({w.bus: winding_base_kv(transformer, k) for k, w in enumerate(transformer.windings)})


def _is_odd(n_phases: int, winding: Winding) -> bool:
    """Whether a winding has two ends on one node or a phase on ground, other than one core or an open delta has."""
    ends = winding.terminals
    phases = ends[:-1] if winding.connection == "wye" else ends
    free = n_phases == (1 if winding.connection == "wye" else 2) or n_phases == 1
    return len(set(ends)) < len(ends) or (0 in phases and not free)


def winding_base_kv(transformer: Transformer, k: int) -> float:
    """Line-to-ground base that a winding suggests for its bus, kV."""
    winding = transformer.windings[k]
    grounded = 0 in winding.terminals
    if transformer.n_phases > 1 or not grounded:
        return winding.v_rated_kv / SQRT3
    return winding.v_rated_kv


__all__ = ["map_lines", "map_series_and_shunts", "map_transformers", "two_terminal", "winding_base_kv"]
