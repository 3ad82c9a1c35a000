"""Positive-sequence equivalent of a three-phase feeder: one conductor per bus that stands for three.

Let w be the unit phasors of the conductors of a bus in the unloaded feeder: ``(1, a^2, a)`` on three phases, one phase
of it on a lateral, ``(1, -1)`` on the legs of a center-tap secondary, 0 on a neutral. The equivalent takes voltages to
be ``V w`` and the currents of an element on n conductors to be ``I w``, and keeps the total power: three conductors
carry ``S / 3`` each where n carried ``S / n``. So::

    z' = 3 (w* Z w) / n^2        series impedance       three phases, circulant Z:  z_self - z_mutual
    y' = (w* Y w) / 3            shunts, charging       one phase:                  3 z_self, y_self / 3
    i' = i_max n / 3             current limit
    S' = S / 3, v' = v_rated / |w_a - w_b|              one core of a transformer, winding or device between a and b

Losses, reactive power of charging and the drop along a lateral are then those of the total power spread evenly over
the conductors that exist. Parallel elements between the same buses are added: three single-phase units become one
three-phase unit, their taps the mean.

Exact for a feeder whose phases are alike (circulant matrices, balanced loads; wye and delta alike). Neglects: every
difference between phases, and neutral conductors, whose current is zero then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lateral.network.admittance import NodeIndex, winding_volt
from lateral.network.feeder import Feeder, Line, MultiTerminal, Shunt, Switch, Terminal, Transformer, Winding
from lateral.network.schema import ComplexArray, Element, FloatArray
from lateral.network.topology import components, groups

#: Voltage below which a conductor is a neutral (or dead) and no phase, pu.
NEUTRAL_PU = 0.1

#: Relative difference of phases above which an element is said to be unlike from phase to phase.
ALIKE = 1e-6

_A = np.exp(2j * np.pi / 3.0)


@dataclass(frozen=True, eq=False)
class Reduction:
    """A balanced feeder and how it came about.

    Attributes:
        feeder: one conductor (1) per bus, ``n_phases`` = 3.
        phasor: unit phasor of every conductor of the original; 0 for neutrals and dead conductors.
        phases: the conductors of each bus that the one conductor stands for.
        members: labels of the original elements in each branch and shunt of the balanced feeder.
        dropped: labels of the elements that have no counterpart.
        notes: what is approximated.
    """

    feeder: Feeder
    phasor: Mapping[tuple[str, int], complex]
    phases: Mapping[str, tuple[int, ...]]
    members: Mapping[str, tuple[str, ...]]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]

    def span(self, bus: str, a: int, b: int) -> float:
        """Voltage between two conductors of a bus over the voltage of one to ground: 1, sqrt(3), 2; 0 for ground."""
        return abs(self.phasor.get((bus, a), 0j) - self.phasor.get((bus, b), 0j))

    def average(self, index: NodeIndex, magnitude: FloatArray) -> dict[str, FloatArray]:
        """Mean over the phases of each bus of a quantity per node, shape (n, ...), to compare with."""
        at = index.position
        return {bus: magnitude[[at[bus, c] for c in phases]].mean(axis=0) for bus, phases in self.phases.items()}


def balanced_feeder(feeder: Feeder, v_pu: ComplexArray) -> Reduction:
    """The positive-sequence equivalent.

    Args:
        feeder: a feeder of any conductors.
        v_pu: voltages of the unloaded feeder in the order of `NodeIndex.of`, shape (n,); `lateral.to_balanced` makes
            them. They tell phases from neutrals, and give the angles.

    Returns:
        the balanced feeder, with what became of each element.
    """
    return _Reducer(feeder, _phasors(feeder, v_pu)).run()


def _phasors(feeder: Feeder, v_pu: ComplexArray) -> dict[tuple[str, int], complex]:
    """Unit phasor of every node; of three phases, that of the sequence that prevails."""
    position = NodeIndex.of(feeder).position
    out: dict[tuple[str, int], complex] = {}
    for bus in feeder.buses:
        v = {c: complex(v_pu[position[bus.name, c]]) for c in bus.conductors}
        if {1, 2, 3} <= set(v):
            abc = np.array([v.pop(c) for c in (1, 2, 3)])
            turns = [np.array([1.0, _A**-sign, _A**sign]) for sign in (1, -1)]
            sequence = [complex(np.conj(turn) @ abc) / 3.0 for turn in turns]
            k = 0 if abs(sequence[0]) >= abs(sequence[1]) else 1
            alive = abs(sequence[k]) >= NEUTRAL_PU
            for c, turn in zip((1, 2, 3), turns[k], strict=True):
                out[bus.name, c] = complex(sequence[k] / abs(sequence[k]) * turn) if alive else 0j
        for c, voltage in v.items():
            out[bus.name, c] = voltage / abs(voltage) if abs(voltage) >= NEUTRAL_PU else 0j
    return out


@dataclass
class _Reducer:
    feeder: Feeder
    phasor: dict[tuple[str, int], complex]
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)
    phases: dict[str, tuple[int, ...]] = field(default_factory=dict)
    #: lines beside a transformer, by their two buses: labels and the number of phases
    jumpers: dict[frozenset[str], tuple[list[str], int]] = field(default_factory=dict)

    #: cores of each transformer, and those with a winding between phases
    cores: dict[str, int] = field(default_factory=dict)
    in_delta: set[str] = field(default_factory=set)

    def run(self) -> Reduction:
        feeder = self.feeder
        for t in feeder.transformers:
            ends = frozenset(w.bus for w in t.windings)
            if len(ends) == 2:
                self.jumpers[ends] = ([], 0)
        buses = []
        for b in feeder.buses:
            phases = tuple(c for c in b.conductors if self.phasor[b.name, c] != 0.0)
            if phases:
                self.phases[b.name] = phases
            if b.name in self.phases:
                buses.append(dataclasses.replace(b, conductors=(1,)))
                if len(self.phases[b.name]) not in (1, 2, 3):
                    self.say("more than three phase conductors at one bus, taken as one circuit", b)
            else:
                self.dropped.append(b.label)
                self.say("without voltage, left out", b)
        lines = self.series(feeder.lines)
        switches = self.series(feeder.switches)
        made = Feeder(
            buses=tuple(buses),
            lines=tuple(e for e in lines if isinstance(e, Line)),
            switches=tuple(e for e in switches if isinstance(e, Switch)),
            transformers=self.transformers(),
            shunts=self.shunts(),
            admittances=self.admittances(),
            n_phases=3,
            balanced=True,
            frequency_hz=feeder.frequency_hz,
        )
        edges = sum(len(g.buses) - 1 for g in groups(made))
        loops = edges - len(made.buses) + len(components(made))
        notes = [f"{_listed(names)}: {text}" for text, names in self.said.items()]
        if loops:
            notes.append(f"the balanced feeder has {loops} loop(s) of buses")
        return Reduction(made, self.phasor, self.phases, self.members, tuple(self.dropped), tuple(notes))

    def say(self, text: str, element: Element) -> None:
        self.said.setdefault(text, []).append(element.label)

    # -- lines and switches

    def series(self, elements: Sequence[Line | Switch]) -> list[Line | Switch]:
        """Lines or switches, those between the same buses (and in the same state) added."""
        found: dict[tuple[frozenset[str], bool], list[tuple[Line | Switch, complex, float, float]]] = {}
        for e in elements:
            ends = frozenset((e.bus_from, e.bus_to))
            if len(ends) == 2 and ends <= self.phases.keys():
                part = self.one(e)
                if part is not None:
                    closed = e.closed if isinstance(e, Switch) else True
                    if closed and ends in self.jumpers:
                        labels, n = self.jumpers[ends]
                        self.jumpers[ends] = ([*labels, e.label], n + self.count(e))
                        self.say("beside a transformer; part of it, with ratio 1", e)
                        continue
                    found.setdefault((ends, closed), []).append((e, *part))
                    continue
            self.dropped.append(e.label)
            self.say("joins no phases of two live buses, left out", e)
        out = []
        for parts in found.values():
            first = parts[0][0]
            z = parts[0][1] if len(parts) == 1 else 1.0 / sum(1.0 / z for _, z, _, _ in parts)
            b = sum(b for _, _, b, _ in parts)
            with_b = any(e.b_us is not None for e, _, _, _ in parts)
            changes: dict[str, object] = {
                "conductors_from": (1,),
                "conductors_to": (1,),
                "r_ohm": [[z.real]],
                "x_ohm": [[z.imag]],
                "b_us": [[b]] if with_b else None,
                "i_max_a": sum(i for _, _, _, i in parts),
            }
            self.members[first.label] = tuple(e.label for e, _, _, _ in parts)
            out.append(dataclasses.replace(first, **changes))  # type: ignore[arg-type]
        return out

    def count(self, e: Line | Switch) -> int:
        """Number of phases of a line or switch."""
        return sum(self.phasor.get((e.bus_from, c), 0j) != 0.0 for c in e.conductors_from)

    def one(self, e: Line | Switch) -> tuple[complex, float, float] | None:
        """Impedance, charging and current limit of one line or switch; None when it has no phases."""
        w = np.array(
            [
                self.phasor.get((e.bus_from, a)) or self.phasor.get((e.bus_to, b)) or 0j
                for a, b in zip(e.conductors_from, e.conductors_to, strict=True)
            ]
        )
        n = int(np.count_nonzero(w))
        if n == 0:
            return None
        z = e.r_ohm + 1j * e.x_ohm
        on = np.flatnonzero(w)
        if len(on) < len(w):
            self.say("its neutral conductors are left out", e)
        cut = z[np.ix_(on, on)]
        if n == 3 and not _alike(cut):
            self.say("its phases are not alike; the mean is taken", e)
        elif n != 3:
            self.say("no three phases; carries the total on the conductors it has", e)
        b = 0.0 if e.b_us is None else float((np.conj(w) @ e.b_us @ w).real) / 3.0
        return complex(3.0 * (np.conj(w) @ z @ w) / n**2), b, e.i_max_a * n / 3.0

    # -- transformers

    def transformers(self) -> tuple[Transformer, ...]:
        found: dict[tuple[str, ...], list[Transformer]] = {}
        for t in self.feeder.transformers:
            own = self.core(t)
            if own is None:
                self.dropped.append(t.label)
                self.say("joins no two live buses, left out", t)
            else:
                found.setdefault(tuple(w.bus for w in own.windings), []).append(own)
        return tuple(self.bank(units) for units in found.values())

    def core(self, t: Transformer) -> Transformer | None:
        """One core with line-to-ground windings, one per bus."""
        if any(w.bus not in self.phases for w in t.windings):
            return None
        base = t.windings[0].s_rated_kva
        self.cores[t.name] = t.n_phases
        windings, per_end = [], []
        for k, w in enumerate(t.windings):
            span = self.winding_span(t, w)
            if span < NEUTRAL_PU:
                self.say("a winding between conductors of like voltage is taken as line to ground", t)
                span = 1.0
            if span > 1.2:
                self.in_delta.add(t.name)
            windings.append(
                dataclasses.replace(
                    w,
                    terminals=(1, 0),
                    connection="wye",
                    v_rated_kv=winding_volt(t, k) / span / 1000.0,
                    s_rated_kva=w.s_rated_kva / 3.0,
                    r_neutral_ohm=-1.0,
                    x_neutral_ohm=0.0,
                )
            )
            per_end.append(2.0 / 3.0 if w.connection == "delta" else 1.0)
        if t.n_phases != 3:
            self.say("no three phases; carries the total on the cores it has", t)
        x = tuple(t.x_percent)
        by_bus: dict[str, list[int]] = {}
        for k, w in enumerate(windings):
            by_bus.setdefault(w.bus, []).append(k)
        if len(by_bus) < 2:
            return None
        if len(by_bus) < len(windings):
            windings, x = _joined(windings, x, list(by_bus.values()))
        if windings[0].s_rated_kva != base / 3.0:
            windings[0] = dataclasses.replace(windings[0], s_rated_kva=base / 3.0)
        return dataclasses.replace(
            t,
            n_phases=1,
            windings=tuple(windings),
            x_percent=x,
            antifloat_ppm=t.antifloat_ppm * float(np.mean(per_end)),
            delta_lead=False,
            bank="",
        )

    def winding_span(self, t: Transformer, w: Winding) -> float:
        """Voltage across a winding over the line-to-ground voltage, mean over the cores."""
        ends = w.terminals
        if w.connection == "wye" or t.n_phases == 1:
            pairs = [(a, ends[-1]) for a in ends[:-1]]
        else:
            pairs = [(ends[k], ends[(k + 1) % len(ends)]) for k in range(t.n_phases)]
        at = self.phasor
        return float(np.mean([abs(at.get((w.bus, a), 0j) - at.get((w.bus, b), 0j)) for a, b in pairs]))

    def bank(self, units: list[Transformer]) -> Transformer:
        """Units side by side as one: powers and admittances add up, taps are the mean weighted by power.

        A line beside them is a phase of the bank without a unit: it counts as one of ratio 1.
        """
        first = units[0]
        labels, jumpers = self.jumpers.get(frozenset(w.bus for w in first.windings), ([], 0))
        self.members[first.label] = (*(t.label for t in units), *labels)
        if len(units) == 1 and not labels:
            return first
        if labels and any(t.name in self.in_delta for t in units):
            jumpers = 0  # two units of an open delta move all three voltages
        cores = sum(self.cores[t.name] for t in units)
        whole = (cores + jumpers) / cores
        taps = {tuple(w.tap for w in t.windings) for t in units} | (
            {(1.0,) * len(first.windings)} if jumpers else set()
        )
        if len(taps) > 1:
            self.say("taps of the units side by side become their mean", first)
        s = np.array([t.windings[0].s_rated_kva for t in units])
        share = s / s.sum()

        def mean(values: list[float]) -> float:
            return float(share @ np.array(values))

        r = np.array([[w.r_percent for w in t.windings] for t in units])
        x = np.array([t.x_percent for t in units])
        r_mean, x_mean = _parallel(r, x, share)
        windings = []
        for k, w in enumerate(first.windings):
            of = [t.windings[k] for t in units]
            windings.append(
                dataclasses.replace(
                    w,
                    s_rated_kva=whole * float(sum(o.s_rated_kva for o in of)),
                    v_rated_kv=mean([o.v_rated_kv for o in of]),
                    tap=(mean([o.tap for o in of]) * cores + jumpers) / (cores + jumpers),
                    r_percent=float(r_mean[k]),
                )
            )
        return dataclasses.replace(
            first,
            windings=tuple(windings),
            x_percent=tuple(float(v) for v in x_mean),
            no_load_loss_percent=mean([t.no_load_loss_percent for t in units]),
            magnetizing_percent=mean([t.magnetizing_percent for t in units]),
            antifloat_ppm=mean([t.antifloat_ppm for t in units]),
            s_max_kva=whole * float(sum(t.s_max_kva for t in units)),
        )

    # -- shunts

    def shunts(self) -> tuple[Shunt, ...]:
        out = []
        for s in self.feeder.shunts:
            w = np.array([self.phasor.get((s.bus, c), 0j) for c in s.conductors])
            if not np.any(w):
                self.dropped.append(s.label)
                continue
            y = complex(np.conj(w) @ (s.g_us + 1j * s.b_us) @ w) / 3.0
            self.members[s.label] = (s.label,)
            out.append(dataclasses.replace(s, conductors=(1,), g_us=np.array([[y.real]]), b_us=np.array([[y.imag]])))
        return tuple(out)

    def admittances(self) -> tuple[MultiTerminal, ...]:
        """Generic admittances over one conductor per bus: ``W^H Y W / 3``, a column of W the phasors of a bus."""
        out = []
        for e in self.feeder.admittances:
            buses = [b for b in e.buses if b in self.phases]
            if not buses:
                self.dropped.append(e.label)
                continue
            w = np.array([[self.phasor.get(n, 0j) if n[0] == b else 0j for b in buses] for n in e.nodes])
            y = np.conj(w).T @ (e.g_us + 1j * e.b_us) @ w / 3.0
            y = 0.5 * (y + y.T)
            if any(np.count_nonzero(column) != 3 for column in w.T):
                self.say("no three phases; carries the total on the conductors it has", e)
            self.members[e.label] = (e.label,)
            ends = tuple(Terminal(bus=b, conductors=(1,)) for b in buses)
            out.append(dataclasses.replace(e, terminals=ends, g_us=y.real, b_us=y.imag))
        return tuple(out)


def _alike(z: ComplexArray) -> bool:
    """Whether a 3 x 3 matrix is circulant."""
    off = z[~np.eye(len(z), dtype=bool)]
    spread = max(np.abs(np.diag(z) - np.diag(z).mean()).max(), np.abs(off - off.mean()).max())
    return bool(spread <= ALIKE * np.abs(z).max())


def _joined(
    windings: list[Winding], x_percent: tuple[float, ...], sets: Iterable[list[int]]
) -> tuple[list[Winding], tuple[float, ...]]:
    """Windings at the same bus as one: each carries its share of the power (center-tap legs: half).

    ::

        z(a, b) = -1/2 sum_ij z_ij u_i u_j,   u = shares of the windings of a, less those of b
    """
    n = len(windings)
    r = np.array([w.r_percent for w in windings])
    z = np.zeros((n, n), dtype=complex)
    pair = 0
    for i in range(n):
        for j in range(i + 1, n):
            z[i, j] = z[j, i] = r[i] + r[j] + 1j * x_percent[pair]
            pair += 1
    shares, out = [], []
    for members in sets:
        s = np.array([windings[k].s_rated_kva for k in members])
        share = np.zeros(n)
        share[members] = s / s.sum()
        shares.append(share)
        first = windings[members[0]]
        out.append(
            dataclasses.replace(
                first,
                tap=float(share @ np.array([w.tap for w in windings])),
                v_rated_kv=float(share @ np.array([w.v_rated_kv for w in windings])),
                s_rated_kva=windings[0].s_rated_kva,
            )
        )
    between = np.zeros((len(out), len(out)), dtype=complex)
    x_out = []
    for i in range(len(out)):
        for j in range(i + 1, len(out)):
            u = shares[i] - shares[j]
            between[i, j] = between[j, i] = -0.5 * (u @ z @ u)
            x_out.append(float(between[i, j].imag))
    own = r[0]
    for k, w in enumerate(out):
        if k == 0:
            out[k] = dataclasses.replace(w, r_percent=float(min(own, between[0, 1].real)))
        else:
            out[k] = dataclasses.replace(w, r_percent=float(max(between[0, k].real - out[0].r_percent, 0.0)))
    return out, tuple(x_out)


def _parallel(r: FloatArray, x: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per-cent impedances of units side by side on the sum of their ratings; exact for two windings, else the mean."""
    if np.ptp(r, axis=0).max() == 0.0 and np.ptp(x, axis=0).max() == 0.0:
        return r[0], x[0]
    if r.shape[1] != 2:
        return np.asarray(share @ r), np.asarray(share @ x)
    z = 1.0 / np.sum(share / (r.sum(axis=1) + 1j * x[:, 0]))
    first = float(min(share @ r[:, 0], z.real))
    return np.array([first, z.real - first]), np.array([z.imag])


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


__all__ = ["Reduction", "balanced_feeder"]
