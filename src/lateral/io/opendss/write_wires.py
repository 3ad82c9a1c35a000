"""The upstream grid and the wires in OpenDSS: sources, lines, switches, transformers, shunts, admittances."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from lateral.devices import Source
from lateral.errors import Fault, UnsupportedError
from lateral.io.opendss.write_draft import Draft, array, matrix_of, num
from lateral.network.feeder import Line, MultiTerminal, Shunt, Switch, Transformer, Winding
from lateral.network.schema import ComplexArray, Element, FloatArray

#: Reactance that stands for none, ohm; smaller source impedances are raised to it.
TINY_OHM = 1e-7


def source(draft: Draft, s: Source) -> None:
    """One Vsource, or one per conductor, and a line with the impedance where they cannot hold it."""
    base = draft.case.feeder.bus[s.bus].v_base_kv
    z = s.r_ohm + 1j * s.x_ohm
    n = len(s.conductors)
    pu = draft.case.series(s.v_pu)
    varies = bool(np.any(pu != pu[0]))
    first = not draft.source_objects
    name = "source" if first else draft.namer.take("vsource", f"source_{s.name}")
    if first:
        draft.namer.take("vsource", "source")
    draft.element[s.label] = f"Vsource.{name}"
    lines = draft.out["sources.dss"]

    def vsource(name: str, bus: str, phases: int, kv: float, angle: float, z: Sequence[complex]) -> None:
        # a smaller one would drown the power of the source in rounding
        z0, z1, z2 = (x if abs(x) >= TINY_OHM else 1j * TINY_OHM for x in z)
        nonlocal first
        head = f"New Circuit.{draft.circuit}" if first else f"New Vsource.{name}"
        first = False
        lines.append(
            f"{head} phases={phases} bus1={bus} basekv={num(kv)} pu={num(pu[0])} angle={num(angle)} "
            f"Z1=[{num(z1.real)} {num(z1.imag)}] Z0=[{num(z0.real)} {num(z0.imag)}]"
            + (f" Z2=[{num(z2.real)} {num(z2.imag)}]" if abs(z2 - z1) > 1e-9 * abs(z1) else "")
        )

    diagonal = not np.any(z - np.diag(np.diag(z)))
    if n == 3 and _circulant(z) and _balanced(s.angle_deg):
        of_sequence = _sequences(z)
        vsource(name, draft.nodes(s.bus, s.conductors), 3, base * math.sqrt(3.0), s.angle_deg[0], of_sequence)
        draft.vsources[s.label] = (f"Vsource.{name}",)
        draft.source_objects[s.label] = ((f"Vsource.{name}", 1),)
    else:
        if np.abs(z - z.T).max() > 1e-9 * np.abs(z).max():
            raise UnsupportedError([_one_way(s)])
        if diagonal:
            bus = draft.bus[s.bus]
        else:
            bus = draft.namer.take("bus", f"{s.bus}_behind_{s.name}")
            draft.extra_buses.append((bus, base))
        objects = []
        for k, c in enumerate(s.conductors):
            part = name if k == 0 else draft.namer.take("vsource", f"{name}_{c}")
            zk = complex(z[k, k]) if diagonal else 0j
            vsource(part, f"{bus}.{c}", 1, base, s.angle_deg[k], (zk, zk, zk))
            objects.append((f"Vsource.{part}", 1))
        draft.vsources[s.label] = tuple(o for o, _ in objects)
        if not diagonal:
            line = draft.namer.take("line", f"source_{s.name}")
            nodes = "".join(f".{c}" for c in s.conductors)
            lines.append(
                f"New Line.{line} phases={n} bus1={bus}{nodes} bus2={draft.bus[s.bus]}{nodes} "
                f"rmatrix={matrix_of(s.r_ohm)} xmatrix={matrix_of(s.x_ohm)} cmatrix={matrix_of(np.zeros((n, n)))} "
                "length=1 units=none normamps=0 emergamps=0"
            )
            draft.source_lines.append(f"Line.{line}")
            objects = [(f"Line.{line}", 2)]
        draft.source_objects[s.label] = tuple(objects)
    if varies:
        draft.shape(("v", s.label), f"v_{s.name}", pu, None, actual=False)


def _series(draft: Draft, e: Line | Switch, head: str) -> str:
    n = len(e.conductors_from)
    b = np.zeros((n, n)) if e.b_us is None else e.b_us
    c_nf = b * 1e3 / (2.0 * math.pi * draft.case.feeder.frequency_hz)
    amps = num(e.i_max_a) if math.isfinite(e.i_max_a) else "0"
    r, x = e.r_ohm, e.x_ohm
    if isinstance(e, Switch) and not (np.any(r) or np.any(x)):
        x = np.eye(n) * TINY_OHM
    return (
        f"{head} phases={n} bus1={draft.nodes(e.bus_from, e.conductors_from)} "
        f"bus2={draft.nodes(e.bus_to, e.conductors_to)} rmatrix={matrix_of(r)} xmatrix={matrix_of(x)} "
        f"cmatrix={matrix_of(c_nf)} length=1 units=none normamps={amps} emergamps={amps}"
    )


def line(draft: Draft, e: Line) -> None:
    """A Line."""
    draft.out["lines.dss"].append(_series(draft, e, f"New Line.{draft.name(e.label, 'Line', e.name)}"))


def switch(draft: Draft, e: Switch) -> None:
    """A Line that is a switch, opened where it is open."""
    # "switch=yes" sets an impedance of its own; only a change of phases after it lets a matrix through
    name = draft.name(e.label, "Line", e.name)
    draft.out["lines.dss"].append(_series(draft, e, f"New Line.{name} switch=yes phases=9"))
    if not e.closed:
        draft.out["lines.dss"].append(f"Open Line.{name} 1")


def transformer(draft: Draft, t: Transformer) -> None:
    """A Transformer at its taps."""
    name = draft.name(t.label, "Transformer", t.name)
    w = t.windings
    for winding in w:  # the one word of a case that is written as it is
        if winding.connection not in ("wye", "delta"):
            message = f"the connection {winding.connection!r} of a winding"
            raise ValueError(message)
    nodes = []
    extra = []
    for k, winding in enumerate(w):
        terminals = _terminals(draft, winding)
        nodes.append(draft.nodes(winding.bus, terminals))
        wdg = ""
        if winding.connection == "wye" and winding.terminals[-1] != 0 and winding.r_neutral_ohm >= 0.0:
            wdg += f" rneut={num(winding.r_neutral_ohm)} xneut={num(winding.x_neutral_ohm)}"
        if (t.name, k + 1) in draft.limits:
            low, high, steps = draft.limits[t.name, k + 1]
            wdg += f" mintap={num(low)} maxtap={num(high)} numtaps={int(steps)}"
        else:
            wdg += f" mintap={num(min(0.9, winding.tap))} maxtap={num(max(1.1, winding.tap))}"
        extra.append(f"~ wdg={k + 1}{wdg} tap={num(winding.tap)}")
    text = (
        f"New Transformer.{name} phases={int(t.n_phases)} windings={len(w)} buses=[{' '.join(nodes)}] "
        f"conns=[{' '.join(x.connection for x in w)}] kVs={array(x.v_rated_kv for x in w)} "
        f"kVAs={array(x.s_rated_kva for x in w)} %Rs={array(x.r_percent for x in w)} "
    )
    if len(w) == 2:
        text += f"XHL={num(t.x_percent[0])}"
    elif len(w) == 3:
        text += f"XHL={num(t.x_percent[0])} XHT={num(t.x_percent[1])} XLT={num(t.x_percent[2])}"
    else:
        text += f"XSCArray={array(t.x_percent)}"
    text += (
        f" %noloadloss={num(t.no_load_loss_percent)} %imag={num(t.magnetizing_percent)} "
        f"ppm_antifloat={num(t.antifloat_ppm)} leadlag={'lead' if t.delta_lead else 'lag'}"
    )
    if math.isfinite(t.s_max_kva):
        text += f" normhkva={num(t.s_max_kva)}"
    if t.bank:
        text += f" bank={_bank(t.bank)}"
    draft.out["transformers.dss"] += [text, *extra]


def _terminals(draft: Draft, winding: Winding) -> tuple[int, ...]:
    if winding.connection != "wye" or winding.terminals[-1] >= 0:
        return winding.terminals
    conductor = draft.next_conductor[winding.bus]
    draft.next_conductor[winding.bus] += 1
    return (*winding.terminals[:-1], conductor)


def _bank(name: str) -> str:
    return re.sub(r"[^a-z0-9_\-]", "_", name.lower())


def shunt(draft: Draft, s: Shunt) -> None:
    """A Reactor per pair of conductors."""
    n = len(s.conductors)
    ends = (*s.conductors, 0)
    y: ComplexArray = ((s.g_us + 1j * s.b_us) * 1e-6).astype(complex)
    for i, j, z in _pairs(y, np.full(y.shape, float(np.abs(y).max()))):
        name = draft.name(s.label, "Reactor", s.name if n == 1 else f"{s.name}_{ends[i]}_{ends[j]}")
        _reactor(draft, name, (s.bus, ends[i]), (s.bus, ends[j]), z)


def admittance(draft: Draft, e: MultiTerminal) -> None:
    """A Reactor per pair of conductors, or one with sequence impedances."""
    nodes = e.nodes
    if not (np.isfinite(e.g_us).all() and np.isfinite(e.b_us).all()):
        message = "an admittance matrix that is not finite"
        raise ValueError(message)
    if not e.is_reciprocal:
        _sequence_reactor(draft, e)
        return
    volt = np.array([draft.case.feeder.bus[bus].v_base_kv for bus, _ in nodes])
    y: ComplexArray = ((e.g_us + 1j * e.b_us) * 1e-6).astype(complex)
    # what is next to nothing is next to nothing per unit: buses may be of very different voltages
    scale = float(np.abs(y * np.outer(volt, volt)).max()) / np.outer(volt, volt)
    for i, j, z in _pairs(y, scale):
        far = nodes[j] if j < len(nodes) else (nodes[i][0], 0)
        name = draft.name(e.label, "Reactor", f"{e.name}_{i + 1}_{j + 1 if j < len(nodes) else 0}")
        _reactor(draft, name, nodes[i], far, z)
        if far[0] == nodes[i][0]:
            draft.shunt_parts.append(f"Reactor.{name}")


def _sequence_reactor(draft: Draft, e: MultiTerminal) -> None:
    """Three conductors to three others, or to ground, by sequence impedances: the engine's one word for this.

    Raises:
        UnsupportedError: it is something else that is not reciprocal.
    """
    y: ComplexArray = ((e.g_us + 1j * e.b_us) * 1e-6).astype(complex)
    near = y[:3, :3]
    parts = [e.nodes[k : k + 3] for k in range(0, len(e.nodes), 3)]
    whole = {3: near, 6: np.block([[near, -near], [-near, near]])}.get(len(y))
    fits = whole is not None and np.abs(y - whole).max() <= 1e-9 * np.abs(y).max() and _circulant(near)
    if not fits or any(len({bus for bus, _ in part}) > 1 for part in parts):
        raise UnsupportedError([_one_way(e)])
    z = _sequences(np.asarray(np.linalg.inv(near), dtype=complex))
    ends = " ".join(f"bus{k}={draft.nodes(part[0][0], [c for _, c in part])}" for k, part in enumerate(parts, start=1))
    text = " ".join(f"Z{k}=[{num(value.real)} {num(value.imag)}]" for k, value in enumerate(z))
    name = draft.name(e.label, "Reactor", e.name)
    draft.out["shunts.dss"].append(f"New Reactor.{name} phases=3 {ends} {text}")
    if len(parts) == 1:
        draft.shunt_parts.append(f"Reactor.{name}")


def _reactor(draft: Draft, name: str, end: tuple[str, int], far: tuple[str, int], z: complex) -> None:
    """An impedance between two conductors, or to ground."""
    draft.out["shunts.dss"].append(
        f"New Reactor.{name} phases=1 bus1={draft.nodes(end[0], (end[1],))} "
        f"bus2={draft.nodes(far[0], (far[1],))} Z=[{num(z.real)} {num(z.imag)}]"
    )


def _pairs(y: ComplexArray, scale: FloatArray) -> Iterator[tuple[int, int, complex]]:
    """A symmetric admittance matrix as impedances between pairs: ``(i, j, z)``, j = n for ground.

    Args:
        y: siemens, shape (n, n).
        scale: an admittance at each place of which 1e-15 is nothing, siemens, shape (n, n).

    Raises:
        ValueError: it is not symmetric: the engine has no element for that.
    """
    n = len(y)
    if not np.all(np.abs(y - y.T) <= 1e-9 * np.maximum(np.abs(y), 1e-6 * scale)):
        message = "an admittance matrix that is not symmetric"
        raise ValueError(message)
    for i in range(n):
        for j in range(i + 1, n + 1):
            y_ij = complex(y[i].sum()) if j == n else -complex(y[i, j])
            if abs(y_ij) > 1e-15 * scale[i, j if j < n else i]:
                yield i, j, 1.0 / y_ij


def _circulant(z: ComplexArray) -> bool:
    """Whether every phase of three is as the next: the matrix is one of sequence impedances."""
    return bool(np.abs(np.roll(z, (1, 1), axis=(0, 1)) - z).max() <= 1e-9 * np.abs(z).max())


def _sequences(z: ComplexArray) -> tuple[complex, complex, complex]:
    """Zero, positive and negative sequence of a circulant matrix."""
    a = np.exp(2j * np.pi / 3.0)
    row = np.mean([np.roll(z[k], -k) for k in range(3)], axis=0)
    return complex(row.sum()), complex(row @ [1.0, a**-1, a]), complex(row @ [1.0, a, a**-1])


def _one_way(element: Element) -> Fault:
    found = "a matrix that is not symmetric"
    allowed = "a symmetric matrix, or three balanced phases with impedances of sequences"
    return Fault("IO-066 cannot be written", element.label, found, allowed, "Solve it without the replay in OpenDSS.")


def _balanced(angles: tuple[float, ...]) -> bool:
    return all(abs((angles[0] - 120.0 * k - a + 180.0) % 360.0 - 180.0) < 1e-9 for k, a in enumerate(angles))
