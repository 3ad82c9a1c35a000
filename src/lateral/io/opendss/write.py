"""A case as OpenDSS files, with or without its set-points.

The files solve in OpenDSS to the case's own voltages: impedances are totals (``length=1 units=none``), numbers carry
every digit, taps are fixed (``controlmode=off``; regulators are written so that other tools see them), and the base
of every bus is set explicitly.

What goes where:

* A source whose impedance matrix is circulant (three conductors, balanced angles) is one three-phase Vsource. With a
  diagonal matrix it is one single-phase Vsource per conductor. Any other symmetric matrix: ideal Vsources at an extra
  bus, then a line with that matrix. A source impedance below 1e-7 ohm is written as a reactance of 1e-7 ohm.
* A shunt is one Reactor per pair of conductors with an admittance (``y_ij = -Y_ij``, to ground the row sum). So is a
  generic admittance, between the conductors of its buses: there is no class that takes a matrix over several buses. One
  that is not symmetric is a three-phase Reactor with sequence impedances, if it has such. The engine leaves those
  between conductors of one bus out of its losses (`Names.shunt_parts`).
* A neutral that is isolated gets a conductor number of its own (10 and up).
* PV systems and batteries are loads of constant negative power whose load shapes are the set-points (the exact
  flavour, ``der="load"``), or PVSystem and Storage objects that follow shapes (``der="native"``, for people and for
  reading back; an inverter there has limits of its own). A device whose ports have powers of their own is a load of one
  phase per port in either.
* An SVC, and a capacitor with a decided share, is a load of constant impedance whose kvar follow the schedule.
* A capacitor of constant reactive power is a load.
* Taps that are decided are in ``steps.dss``, a command per change and a ``Solve`` per step; likewise the kvar of
  PVSystem and Storage objects, for which the engine has no shape.
* A balanced feeder is written as the one-phase equivalent: line-to-ground kV, and kW, kvar divided by ``n_phases``.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from lateral.case import Case
from lateral.devices import PV, SVC, Battery, BorderHead, BorderTail, Capacitor, Load, Regulator, Source
from lateral.devices.base import ShuntDevice
from lateral.devices.load import MODELS
from lateral.errors import CaseError, Fault, UnsupportedError
from lateral.io.dispatch import Dispatch, is_dispatched
from lateral.network.feeder import Line, MultiTerminal, Shunt, Switch, Transformer, Winding
from lateral.network.schema import ComplexArray, Element, FloatArray

#: The first line of a master file of ours; a folder without it is never overwritten.
MARK = "! OpenDSS files written by lateral"

#: Reactance that stands for none, ohm; smaller source impedances are raised to it.
TINY_OHM = 1e-7

#: Conductors of one terminal; the engine writes past the end of its list of nodes when there are too many.
MAX_NODES = 40

#: Files that a folder of ours holds, in the order in which the master file reads them.
PARTS = (
    "loadshapes.dss",
    "sources.dss",
    "lines.dss",
    "transformers.dss",
    "shunts.dss",
    "loads.dss",
    "devices.dss",
    "bases.dss",
)
OTHER_FILES = ("master.dss", "steps.dss", "buscoords.csv", "names.csv")

Der = Literal["load", "native"]


@dataclass(frozen=True)
class Names:
    """How the elements of a case are called in OpenDSS.

    Attributes:
        bus: OpenDSS name of each bus.
        element: OpenDSS ``class.name`` of each element, by label; a source of several objects is its first.
        source_objects: of each source, by label, the objects whose power is its power, as (``class.name``, terminal):
            the power that flows *into* that terminal from the bus.
        source_lines: lines that only stand for the impedance of a source; their losses are the source's.
        shunt_parts: reactors that are part of a generic admittance and that the engine, taking them for shunts, leaves
            out of the losses of the circuit.
    """

    bus: Mapping[str, str]
    element: Mapping[str, str]
    source_objects: Mapping[str, tuple[tuple[str, int], ...]]
    source_lines: tuple[str, ...]
    shunt_parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rendered:
    """The text of the files, by name, the names used in them, and the hours that a step takes in the load shapes.

    ``before`` has the commands that change taps, and kvar that no shape can say, by step; the engine is given them
    before it solves the step.
    """

    files: Mapping[str, str]
    names: Names
    step_h: float
    before: Mapping[int, tuple[str, ...]]

    @property
    def commands(self) -> str:
        """All of it as one list of commands, which touches no file."""
        out = []
        for line in self.files["master.dss"].splitlines():
            word, _, rest = line.partition(" ")
            if word == "Redirect":
                out.append(self.files[rest.strip()])
            elif word != "Buscoords":
                out.append(line)
        return "\n".join(out)


def write_opendss(case: Case, folder: Path, *, dispatch: Dispatch | None = None, der: Der = "load") -> Path:
    """Write a case as a folder of OpenDSS files.

    The folder appears complete or not at all. A folder written before is replaced (files in it that are not ours
    stay); any other folder that is not empty is refused.

    Args:
        case: the case.
        folder: where to; made when absent.
        dispatch: set-points of PV, batteries and devices of the user's own, written as load shapes; absent:
            `Dispatch.baseline`.
        der: "load": PV and batteries as constant-power loads of negative power, which replays exactly; "native": as
            PVSystem and Storage objects.

    Returns:
        The path of ``master.dss``.

    Raises:
        CaseError: the folder is in the way, the dispatch does not fit, or a number is not finite.
        UnsupportedError: a device has no counterpart in OpenDSS.
    """
    folder = Path(folder)
    rendered = render_opendss(case, dispatch=dispatch, der=der)
    _may_replace(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh.chmod(0o755)
    try:
        for name, text in rendered.files.items():
            (fresh / name).write_text(text, encoding="utf-8")
        if folder.is_dir():
            ours = {*PARTS, *OTHER_FILES}
            for other in folder.iterdir():
                if other.name not in ours:
                    if other.is_dir() and not other.is_symlink():
                        shutil.copytree(other, fresh / other.name, symlinks=True)
                    else:
                        shutil.copy2(other, fresh / other.name, follow_symlinks=False)
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.rename(old / "was")
            try:
                fresh.rename(folder)
            except OSError:
                (old / "was").rename(folder)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return folder / "master.dss"


def render_opendss(case: Case, *, dispatch: Dispatch | None = None, der: Der = "load", stamp: bool = True) -> Rendered:
    """The text of the files of `write_opendss`, and the names used; nothing is written.

    Args:
        case: the case.
        dispatch: set-points of PV, batteries and devices of the user's own; absent: `Dispatch.baseline`.
        der: see `write_opendss`.
        stamp: put the hash of the case into the header.

    Raises:
        CaseError: the dispatch does not fit, or a number is not finite.
        UnsupportedError: a device has no counterpart in OpenDSS.
    """
    if dispatch is None:
        dispatch = Dispatch.baseline(case)
    dispatch.check(case)
    return _Writer(case, dispatch, der, stamp).render()


def _may_replace(folder: Path) -> None:
    if not folder.exists():
        return
    found = ""
    if not folder.is_dir():
        found = "a file of that name"
    elif any(folder.iterdir()):
        master = folder / "master.dss"
        first = ""
        if master.is_file():
            with master.open(encoding="utf-8", errors="replace") as handle:
                first = handle.readline()
        if not first.startswith(MARK):
            found = "a folder that is not empty and was not written by lateral"
    if found:
        raise CaseError(
            [
                Fault(
                    "IO-063 folder in the way",
                    f"folder.{folder.name}",
                    found,
                    "a new or empty folder, or one written before",
                    "Choose another folder, or empty this one.",
                )
            ]
        )


# ------------------------------------------------------------------------------------------------- numbers and names


def num(value: float) -> str:
    """A number with every digit that it has.

    Raises:
        ValueError: it is not finite.
    """
    value = float(value)
    if not math.isfinite(value):
        message = f"{value} cannot be written"
        raise ValueError(message)
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _array(values: Iterable[float]) -> str:
    return "[" + " ".join(num(v) for v in values) + "]"


def _matrix(matrix: FloatArray) -> str:
    return "[" + " | ".join(" ".join(num(v) for v in row) for row in matrix) + "]"


class _Names:
    """Hands out names that OpenDSS takes, each once per class."""

    def __init__(self) -> None:
        self.used: dict[str, set[str]] = {}

    def take(self, group: str, wanted: str) -> str:
        used = self.used.setdefault(group, set())
        base = re.sub(r"[^a-z0-9_\-]", "_", wanted.lower()) or "_"
        if base[0] == "-":
            base = "_" + base
        name, k = base, 2
        while name in used:
            name, k = f"{base}_{k}", k + 1
        used.add(name)
        return name


# ----------------------------------------------------------------------------------------------------------- writer


@dataclass
class _Writer:
    case: Case
    dispatch: Dispatch
    der: Der
    stamp: bool
    out: dict[str, list[str]] = field(default_factory=lambda: {part: [] for part in PARTS})
    namer: _Names = field(default_factory=_Names)
    bus: dict[str, str] = field(default_factory=dict)
    element: dict[str, str] = field(default_factory=dict)
    source_objects: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    source_lines: list[str] = field(default_factory=list)
    shunt_parts: list[str] = field(default_factory=list)
    vsources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shapes: dict[tuple[str, ...], str] = field(default_factory=dict)
    extra_buses: list[tuple[str, float]] = field(default_factory=list)
    next_conductor: dict[str, int] = field(default_factory=dict)
    limits: dict[tuple[str, int], tuple[float, float, int]] = field(default_factory=dict)
    #: kvar of objects that follow the schedule without a shape, by ``class.name``
    kvar: dict[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.share = 1.0 / self.case.feeder.n_phases if self.case.feeder.balanced else 1.0
        self.circuit = self.namer.take("circuit", self.case.name or "case")

    # -- the whole

    def render(self) -> Rendered:
        case, feeder = self.case, self.case.feeder
        known = (Source, Load, Capacitor, PV, Battery, SVC, Regulator, BorderHead, BorderTail)
        others = [d for d in case.devices if type(d) not in known]
        own = [d for d in others if isinstance(d, ShuntDevice) and is_dispatched(d)]
        strangers = [d for d in others if d not in own]
        if strangers:
            raise UnsupportedError(
                Fault(
                    "IO-067 not in OpenDSS",
                    d.label,
                    f"a device of class {type(d).__name__}",
                    ", ".join(k.__name__ for k in known),
                    "Leave it out of the case before writing.",
                )
                for d in strangers
            )
        if not case.sources:
            raise CaseError(
                [Fault("IO-065 no source", "case." + case.name, "no source", "one or more", "Add a source.")]
            )
        for b in feeder.buses:
            self.bus[b.name] = self.namer.take("bus", b.name)
            self.next_conductor[b.name] = max(9, *b.conductors, 0) + 1
        for r in case.regulators:
            self.limits[r.transformer, r.winding] = (r.tap_min, r.tap_max, r.n_steps)

        faults: list[Fault] = []
        jobs: list[tuple[Element, Callable[[], None]]] = [
            *((e, partial(self.source, e)) for e in case.sources),
            *((e, partial(self.line, e)) for e in feeder.lines),
            *((e, partial(self.switch, e)) for e in feeder.switches),
            *((e, partial(self.transformer, e)) for e in feeder.transformers),
            *((e, partial(self.shunt, e)) for e in feeder.shunts),
            *((e, partial(self.admittance, e)) for e in feeder.admittances),
            *((e, partial(self.load, e)) for e in case.loads),
            *((e, partial(self.capacitor, e)) for e in case.capacitors),
            *((e, partial(self.pv, e)) for e in case.pvs),
            *((e, partial(self.battery, e)) for e in case.batteries),
            *((e, partial(self.svc, e)) for e in case.of(SVC)),
            *((e, partial(self.other, e)) for e in own),
            *((e, partial(self.regulator, e)) for e in case.regulators),
        ]
        for element, write in jobs:
            try:
                write()
            except KeyError as error:
                faults.append(_bad(element, f"the unknown name {error}"))
            except ValueError as error:
                faults.append(_bad(element, str(error)))
        if faults:
            raise CaseError(faults)
        self.bases()
        files = {"master.dss": self.master()}
        for part, lines in self.out.items():
            files[part] = "\n".join([f"! {part}: {_WHAT[part]}", *lines, ""])
        files["buscoords.csv"] = "".join(
            f"{self.bus[b.name]}, {num(b.x)}, {num(b.y)}\n"
            for b in feeder.buses
            if math.isfinite(b.x) and math.isfinite(b.y)
        )
        files["names.csv"] = self.name_table()
        names = Names(self.bus, self.element, self.source_objects, tuple(self.source_lines), tuple(self.shunt_parts))
        before = self.changes()
        if before:
            files["steps.dss"] = self.steps(before)
        return Rendered(files, names, self.step_s / 3600.0, before)

    def changes(self) -> dict[int, tuple[str, ...]]:
        """Commands before a step, where taps or kvar without a shape follow the schedule; the first has them all."""
        out: dict[int, list[str]] = {}
        for r in self.case.regulators:
            taps = self.dispatch.settings.get(r.label)
            if taps is None:
                continue
            name = self.element[f"transformer.{r.transformer}"]
            for k, tap in enumerate(taps):
                if k == 0 or tap != taps[k - 1]:
                    out.setdefault(k, []).append(f"Edit {name} wdg={int(r.winding)} tap={num(tap)}")
        for name, kvar in self.kvar.items():
            for k, q in enumerate(kvar):
                if k == 0 or q != kvar[k - 1]:
                    out.setdefault(k, []).append(f"Edit {name} kvar={num(q)}")
        return {k: tuple(commands) for k, commands in out.items()}

    def steps(self, before: Mapping[int, tuple[str, ...]]) -> str:
        """Every step with its taps and kvar, to be redirected to after the master."""
        lines = [
            "! steps.dss: every step of the schedule with what no load shape says; redirect to it after master.dss"
        ]
        for k in range(self.case.horizon.n_steps):
            lines += [f"! step {k}", *before.get(k, ()), "Solve"]
        return "\n".join([*lines, ""])

    def master(self) -> str:
        case, feeder = self.case, self.case.feeder
        h = case.horizon
        stamp = f", hash {case.hash}" if self.stamp else ""
        start = h.times[0].isoformat() if h.n_steps else "-"
        head = [
            MARK,
            f"! case {_plain(case.name)}{stamp}, {len(feeder.buses)} buses, {h.n_steps} steps from {start}",
            "! Impedances are totals (length=1, units=none). Taps are fixed: controlmode=off; RegControl objects are",
            "! here so that other tools see them. names.csv tells which element of the case is which object.",
        ]
        if feeder.balanced:
            head.append(
                f"! A balanced feeder as its one-phase equivalent: kV is line to ground, and kW and kvar are totals "
                f"divided by {feeder.n_phases}."
            )
        if case.pvs or case.batteries:
            head.append(
                "! PV systems and batteries are loads of negative power; their load shapes are the set-points."
                if self.der == "load"
                else "! PV systems and batteries are PVSystem and Storage objects that follow load shapes."
            )
        if self.dispatch.ports and self.der == "native":
            head.append("! Devices whose phases differ are loads of negative power, one of one phase for each port.")
        if len(set(h.step_h.tolist())) > 1:
            head.append("! Steps differ in length; in the load shapes each takes one hour.")
        if any(r.label in self.dispatch.settings for r in case.regulators):
            head.append("! Taps follow the schedule: after this file, steps.dss sets them step by step and solves.")
        if self.kvar:
            head.append(
                "! No shape has kvar of PVSystem and Storage objects: here those of the first step, in steps.dss all."
            )
        if self.shapes:
            head.append(f"! Each Solve takes the next of {h.n_steps} steps (mode=daily number=1).")
        voltages = sorted({round(b.v_base_kv * math.sqrt(3.0), 9) for b in feeder.buses}, reverse=True)
        body = [
            "Clear",
            f"Set DefaultBaseFrequency={num(feeder.frequency_hz)}",
            *(f"Redirect {p}" for p in ("sources.dss", "loadshapes.dss")),
            *(f"Edit {name} daily={shape}" for name, shape in self.source_shapes),
            *(f"Redirect {p}" for p in PARTS if p not in ("sources.dss", "loadshapes.dss", "bases.dss")),
            f"Set VoltageBases={_array(voltages)}",
            "MakeBusList",
            "Redirect bases.dss",
        ]
        if any(math.isfinite(b.x) and math.isfinite(b.y) for b in feeder.buses):
            body.append("Buscoords buscoords.csv")
        body.append("Set ControlMode=off Tolerance=1e-8 MaxIterations=200")
        if self.shapes:
            body.append(f"Set Mode=daily StepSize={num(round(self.step_s, 9))}s Number=1")
        else:
            body.append("Set Mode=snapshot")
        return "\n".join([*head, "", *body, ""])

    @property
    def step_s(self) -> float:
        steps = self.case.horizon.step_h
        return float(steps[0]) * 3600.0 if len(set(steps.tolist())) == 1 else 3600.0

    @property
    def source_shapes(self) -> list[tuple[str, str]]:
        return [
            (name, self.shapes["v", s.label])
            for s in self.case.sources
            if ("v", s.label) in self.shapes
            for name in self.vsources[s.label]
        ]

    def name_table(self) -> str:
        rows = ["element,opendss"]
        rows += [f"{_csv('bus.' + n)},{d}" for n, d in self.bus.items()]
        rows += [f"{_csv(n)},{d}" for n, d in self.element.items()]
        return "\n".join(rows) + "\n"

    def bases(self) -> None:
        lines = self.out["bases.dss"]
        for b in self.case.feeder.buses:
            lines.append(f"SetkVBase Bus={self.bus[b.name]} kVLN={num(b.v_base_kv)}")
        for name, kv in self.extra_buses:
            lines.append(f"SetkVBase Bus={name} kVLN={num(kv)}")

    # -- pieces

    def nodes(self, bus: str, conductors: Sequence[int]) -> str:
        if len(conductors) > MAX_NODES:
            message = f"{len(conductors)} conductors at bus {bus!r}; the engine has room for {MAX_NODES}"
            raise ValueError(message)
        return ".".join([self.bus[bus], *(str(int(c)) for c in conductors)])

    def name(self, label: str, cls: str, wanted: str) -> str:
        name = self.namer.take(cls.lower(), wanted)
        self.element.setdefault(label, f"{cls}.{name}")
        return name

    def shape(self, key: tuple[str, ...], wanted: str, p: FloatArray, q: FloatArray | None, *, actual: bool) -> str:
        """A load shape, made once per key; its name."""
        if key not in self.shapes:
            name = self.namer.take("loadshape", wanted)
            text = f"New LoadShape.{name} npts={len(p)} sinterval={num(round(self.step_s, 9))}"
            if actual:
                text += " useactual=yes"
            text += f" pmult={_array(p)}"
            if q is not None:
                text += f" qmult={_array(q)}"
            self.out["loadshapes.dss"].append(text)
            self.shapes[key] = name
        return self.shapes[key]

    # -- sources

    def source(self, s: Source) -> None:
        base = self.case.feeder.bus[s.bus].v_base_kv
        z = s.r_ohm + 1j * s.x_ohm
        n = len(s.conductors)
        pu = self.case.series(s.v_pu)
        varies = bool(np.any(pu != pu[0]))
        first = not self.source_objects
        name = "source" if first else self.namer.take("vsource", f"source_{s.name}")
        if first:
            self.namer.take("vsource", "source")
        self.element[s.label] = f"Vsource.{name}"
        lines = self.out["sources.dss"]

        def vsource(name: str, bus: str, phases: int, kv: float, angle: float, z: Sequence[complex]) -> None:
            # a smaller one would drown the power of the source in rounding
            z0, z1, z2 = (x if abs(x) >= TINY_OHM else 1j * TINY_OHM for x in z)
            nonlocal first
            head = f"New Circuit.{self.circuit}" if first else f"New Vsource.{name}"
            first = False
            lines.append(
                f"{head} phases={phases} bus1={bus} basekv={num(kv)} pu={num(pu[0])} angle={num(angle)} "
                f"Z1=[{num(z1.real)} {num(z1.imag)}] Z0=[{num(z0.real)} {num(z0.imag)}]"
                + (f" Z2=[{num(z2.real)} {num(z2.imag)}]" if abs(z2 - z1) > 1e-9 * abs(z1) else "")
            )

        diagonal = not np.any(z - np.diag(np.diag(z)))
        if n == 3 and _circulant(z) and _balanced(s.angle_deg):
            of_sequence = _sequences(z)
            vsource(name, self.nodes(s.bus, s.conductors), 3, base * math.sqrt(3.0), s.angle_deg[0], of_sequence)
            self.vsources[s.label] = (f"Vsource.{name}",)
            self.source_objects[s.label] = ((f"Vsource.{name}", 1),)
        else:
            if np.abs(z - z.T).max() > 1e-9 * np.abs(z).max():
                raise UnsupportedError([_one_way(s)])
            if diagonal:
                bus = self.bus[s.bus]
            else:
                bus = self.namer.take("bus", f"{s.bus}_behind_{s.name}")
                self.extra_buses.append((bus, base))
            objects = []
            for k, c in enumerate(s.conductors):
                part = name if k == 0 else self.namer.take("vsource", f"{name}_{c}")
                zk = complex(z[k, k]) if diagonal else 0j
                vsource(part, f"{bus}.{c}", 1, base, s.angle_deg[k], (zk, zk, zk))
                objects.append((f"Vsource.{part}", 1))
            self.vsources[s.label] = tuple(o for o, _ in objects)
            if not diagonal:
                line = self.namer.take("line", f"source_{s.name}")
                nodes = "".join(f".{c}" for c in s.conductors)
                lines.append(
                    f"New Line.{line} phases={n} bus1={bus}{nodes} bus2={self.bus[s.bus]}{nodes} "
                    f"rmatrix={_matrix(s.r_ohm)} xmatrix={_matrix(s.x_ohm)} cmatrix={_matrix(np.zeros((n, n)))} "
                    "length=1 units=none normamps=0 emergamps=0"
                )
                self.source_lines.append(f"Line.{line}")
                objects = [(f"Line.{line}", 2)]
            self.source_objects[s.label] = tuple(objects)
        if varies:
            self.shape(("v", s.label), f"v_{s.name}", pu, None, actual=False)

    # -- wires

    def series(self, e: Line | Switch, head: str) -> str:
        n = len(e.conductors_from)
        b = np.zeros((n, n)) if e.b_us is None else e.b_us
        c_nf = b * 1e3 / (2.0 * math.pi * self.case.feeder.frequency_hz)
        amps = num(e.i_max_a) if math.isfinite(e.i_max_a) else "0"
        r, x = e.r_ohm, e.x_ohm
        if isinstance(e, Switch) and not (np.any(r) or np.any(x)):
            x = np.eye(n) * TINY_OHM
        return (
            f"{head} phases={n} bus1={self.nodes(e.bus_from, e.conductors_from)} "
            f"bus2={self.nodes(e.bus_to, e.conductors_to)} rmatrix={_matrix(r)} xmatrix={_matrix(x)} "
            f"cmatrix={_matrix(c_nf)} length=1 units=none normamps={amps} emergamps={amps}"
        )

    def line(self, e: Line) -> None:
        self.out["lines.dss"].append(self.series(e, f"New Line.{self.name(e.label, 'Line', e.name)}"))

    def switch(self, e: Switch) -> None:
        # "switch=yes" sets an impedance of its own; only a change of phases after it lets a matrix through
        name = self.name(e.label, "Line", e.name)
        self.out["lines.dss"].append(self.series(e, f"New Line.{name} switch=yes phases=9"))
        if not e.closed:
            self.out["lines.dss"].append(f"Open Line.{name} 1")

    def transformer(self, t: Transformer) -> None:
        name = self.name(t.label, "Transformer", t.name)
        w = t.windings
        for winding in w:  # the one word of a case that is written as it is
            if winding.connection not in ("wye", "delta"):
                message = f"the connection {winding.connection!r} of a winding"
                raise ValueError(message)
        nodes = []
        extra = []
        for k, winding in enumerate(w):
            terminals = self.terminals(winding)
            nodes.append(self.nodes(winding.bus, terminals))
            wdg = ""
            if winding.connection == "wye" and winding.terminals[-1] != 0 and winding.r_neutral_ohm >= 0.0:
                wdg += f" rneut={num(winding.r_neutral_ohm)} xneut={num(winding.x_neutral_ohm)}"
            if (t.name, k + 1) in self.limits:
                low, high, steps = self.limits[t.name, k + 1]
                wdg += f" mintap={num(low)} maxtap={num(high)} numtaps={int(steps)}"
            else:
                wdg += f" mintap={num(min(0.9, winding.tap))} maxtap={num(max(1.1, winding.tap))}"
            extra.append(f"~ wdg={k + 1}{wdg} tap={num(winding.tap)}")
        text = (
            f"New Transformer.{name} phases={int(t.n_phases)} windings={len(w)} buses=[{' '.join(nodes)}] "
            f"conns=[{' '.join(x.connection for x in w)}] kVs={_array(x.v_rated_kv for x in w)} "
            f"kVAs={_array(x.s_rated_kva for x in w)} %Rs={_array(x.r_percent for x in w)} "
        )
        if len(w) == 2:
            text += f"XHL={num(t.x_percent[0])}"
        elif len(w) == 3:
            text += f"XHL={num(t.x_percent[0])} XHT={num(t.x_percent[1])} XLT={num(t.x_percent[2])}"
        else:
            text += f"XSCArray={_array(t.x_percent)}"
        text += (
            f" %noloadloss={num(t.no_load_loss_percent)} %imag={num(t.magnetizing_percent)} "
            f"ppm_antifloat={num(t.antifloat_ppm)} leadlag={'lead' if t.delta_lead else 'lag'}"
        )
        if math.isfinite(t.s_max_kva):
            text += f" normhkva={num(t.s_max_kva)}"
        if t.bank:
            text += f" bank={self.bank(t.bank)}"
        self.out["transformers.dss"] += [text, *extra]

    def terminals(self, winding: Winding) -> tuple[int, ...]:
        if winding.connection != "wye" or winding.terminals[-1] >= 0:
            return winding.terminals
        conductor = self.next_conductor[winding.bus]
        self.next_conductor[winding.bus] += 1
        return (*winding.terminals[:-1], conductor)

    def bank(self, name: str) -> str:
        return re.sub(r"[^a-z0-9_\-]", "_", name.lower())

    def shunt(self, s: Shunt) -> None:
        n = len(s.conductors)
        ends = (*s.conductors, 0)
        y: ComplexArray = ((s.g_us + 1j * s.b_us) * 1e-6).astype(complex)
        for i, j, z in _pairs(y, np.full(y.shape, float(np.abs(y).max()))):
            name = self.name(s.label, "Reactor", s.name if n == 1 else f"{s.name}_{ends[i]}_{ends[j]}")
            self.reactor(name, (s.bus, ends[i]), (s.bus, ends[j]), z)

    def admittance(self, e: MultiTerminal) -> None:
        nodes = e.nodes
        if not (np.isfinite(e.g_us).all() and np.isfinite(e.b_us).all()):
            message = "an admittance matrix that is not finite"
            raise ValueError(message)
        if not e.is_reciprocal:
            self.sequence_reactor(e)
            return
        volt = np.array([self.case.feeder.bus[bus].v_base_kv for bus, _ in nodes])
        y: ComplexArray = ((e.g_us + 1j * e.b_us) * 1e-6).astype(complex)
        # what is next to nothing is next to nothing per unit: buses may be of very different voltages
        scale = float(np.abs(y * np.outer(volt, volt)).max()) / np.outer(volt, volt)
        for i, j, z in _pairs(y, scale):
            far = nodes[j] if j < len(nodes) else (nodes[i][0], 0)
            name = self.name(e.label, "Reactor", f"{e.name}_{i + 1}_{j + 1 if j < len(nodes) else 0}")
            self.reactor(name, nodes[i], far, z)
            if far[0] == nodes[i][0]:
                self.shunt_parts.append(f"Reactor.{name}")

    def sequence_reactor(self, e: MultiTerminal) -> None:
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
        ends = " ".join(
            f"bus{k}={self.nodes(part[0][0], [c for _, c in part])}" for k, part in enumerate(parts, start=1)
        )
        text = " ".join(f"Z{k}=[{num(value.real)} {num(value.imag)}]" for k, value in enumerate(z))
        name = self.name(e.label, "Reactor", e.name)
        self.out["shunts.dss"].append(f"New Reactor.{name} phases=3 {ends} {text}")
        if len(parts) == 1:
            self.shunt_parts.append(f"Reactor.{name}")

    def reactor(self, name: str, end: tuple[str, int], far: tuple[str, int], z: complex) -> None:
        """An impedance between two conductors, or to ground."""
        self.out["shunts.dss"].append(
            f"New Reactor.{name} phases=1 bus1={self.nodes(end[0], (end[1],))} "
            f"bus2={self.nodes(far[0], (far[1],))} Z=[{num(z.real)} {num(z.imag)}]"
        )

    # -- devices between conductors of one bus

    def port_kv(self, d: ShuntDevice, bus: str = "") -> float:
        """Rated voltage across one port, kV."""
        own: float | None = getattr(d, "v_rated_kv", None)
        if own is not None:
            return own
        delta = d.connection != "wye"
        return self.case.feeder.bus[bus or d.bus].v_base_kv * (math.sqrt(3.0) if delta else 1.0)

    def connected(self, d: ShuntDevice) -> str:
        """``phases= bus1= conn= kv=`` of a load-like object."""
        ports = d.ports
        n = len(ports)
        wye = d.connection == "wye"
        kv = self.port_kv(d) * (math.sqrt(3.0) if wye and n in (2, 3) else 1.0)
        conn = "wye" if wye else "delta"
        return f"phases={n} bus1={self.nodes(d.bus, d.terminals)} conn={conn} kv={num(kv)}"

    def load(self, d: Load) -> None:
        name = self.name(d.label, "Load", d.name)
        text = (
            f"New Load.{name} {self.connected(d)} kw={num(d.p_kw * self.share)} kvar={num(d.q_kvar * self.share)} "
            f"model={MODELS.index(d.model) + 1} vminpu={num(d.v_min_pu)} vmaxpu={num(d.v_max_pu)} "
            f"vlowpu={num(d.v_low_pu)}"
        )
        if d.model == "zip":
            text += f" zipv={_array((*d.zip_p, *d.zip_q, d.zip_v_cut_pu))}"
        if d.model == "cvr":
            text += f" cvrwatts={num(d.cvr_p)} cvrvars={num(d.cvr_q)}"
        if d.profile or d.profile_q:
            p = self.case.multiplier(d.profile)
            if d.profile_q and d.profile_q != d.profile:
                q = self.case.multiplier(d.profile_q)
                key = ("profile", d.profile, d.profile_q)
                shape = self.shape(key, f"{d.profile or 'one'}__{d.profile_q}", p, q, actual=False)
            else:
                shape = self.shape(("profile", d.profile), d.profile, p, None, actual=False)
            text += f" daily={shape}"
        self.out["loads.dss"].append(text)

    def capacitor(self, d: Capacitor) -> None:
        setting = self.dispatch.settings.get(d.label)
        if setting is not None:
            self.out["shunts.dss"].append(
                self.follows(d, f"cap_{d.name}", d.q_full_kvar * setting, impedance=d.model == "constant_impedance")
            )
            return
        q = d.q_kvar * self.share
        if d.model == "constant_power":
            name = self.name(d.label, "Load", f"cap_{d.name}")
            self.out["shunts.dss"].append(
                f"New Load.{name} {self.connected(d)} kw=0 kvar={num(-q)} model=1 vminpu=0.1 vmaxpu=2 vlowpu=0"
            )
            return
        n, wye, common = len(d.ports), d.connection == "wye", d.terminals[-1]
        kv = self.port_kv(d)
        if (wye or n == 3) and q > 0.0:
            name = self.name(d.label, "Capacitor", d.name)
            where = f"bus1={self.nodes(d.bus, d.terminals[:-1] if wye else d.terminals)}"
            if wye:
                where += f" bus2={self.nodes(d.bus, (common,) * n)} conn=wye"
                kv *= math.sqrt(3.0) if n in (2, 3) else 1.0
            else:
                where += " conn=delta"
            self.out["shunts.dss"].append(f"New Capacitor.{name} phases={n} {where} kvar={num(q)} kv={num(kv)}")
            return
        for a, b in d.ports:
            name = self.name(d.label, "Capacitor", f"{d.name}_{a}_{b}")
            if q > 0.0:
                self.out["shunts.dss"].append(
                    f"New Capacitor.{name} phases=1 bus1={self.nodes(d.bus, (a,))} bus2={self.nodes(d.bus, (b,))} "
                    f"kvar={num(q / n)} kv={num(kv)}"
                )

    def svc(self, d: SVC) -> None:
        setting = self.dispatch.settings.get(d.label)
        if setting is not None:
            self.out["devices.dss"].append(self.follows(d, f"svc_{d.name}", setting, impedance=True))

    def follows(self, d: ShuntDevice, wanted: str, q_kvar: FloatArray, *, impedance: bool) -> str:
        """A load that gives reactive power by a shape, at rated voltage where it is an impedance."""
        name = self.name(d.label, "Load", wanted)
        q = 0.0 - q_kvar * self.share
        shape = self.shape(("dispatch", d.label), name, np.zeros_like(q), q, actual=True)
        return (
            f"New Load.{name} {self.connected(d)} kw=0 kvar={num(q[0])} model={2 if impedance else 1} "
            f"vminpu=0.1 vmaxpu=2 vlowpu=0 daily={shape}"
        )

    def other(self, d: ShuntDevice) -> None:
        """Any other device with set-points: a load of negative power that follows them."""
        self.out["devices.dss"].append(self.set_points(d, d.kind))

    def by_port(self, d: ShuntDevice, kind: str) -> str:
        """One load of one phase per port."""
        lines = []
        rows = zip(d.places, *self.dispatch.ports[d.label], strict=True)
        for k, ((bus, (a, b)), p, q) in enumerate(rows, start=1):
            a, b = (a, b) if a else (b, a)
            name = self.name(d.label, "Load", f"{kind}_{d.name}_{k}")
            p, q = 0.0 - p * self.share, 0.0 - q * self.share
            shape = self.shape(("dispatch", d.label, str(k)), name, p, q, actual=True)
            lines.append(
                f"New Load.{name} phases=1 bus1={self.nodes(bus, (a, b))} conn=wye kv={num(self.port_kv(d, bus))} "
                f"kw={num(p[0])} kvar={num(q[0])} model=1 {_window(d)} vlowpu=0 daily={shape}"
            )
        return "\n".join(lines)

    def set_points(self, d: ShuntDevice, kind: str) -> str:
        if d.label in self.dispatch.ports:
            return self.by_port(d, kind)
        p = self.dispatch.p(d.label) * self.share
        q = self.dispatch.q(d.label) * self.share
        name = self.name(d.label, "Load", f"{kind}_{d.name}")
        shape = self.shape(("dispatch", d.label), name, 0.0 - p, 0.0 - q, actual=True)
        return (
            f"New Load.{name} {self.connected(d)} kw={num(0.0 - p[0])} kvar={num(0.0 - q[0])} model=1 "
            f"{_window(d)} vlowpu=0 daily={shape}"
        )

    def pv(self, d: PV) -> None:
        self.out["devices.dss"].append(self.set_points(d, "pv") if self.as_load(d) else self.native_pv(d))

    def battery(self, d: Battery) -> None:
        self.out["devices.dss"].append(self.set_points(d, "battery") if self.as_load(d) else self.native_battery(d))

    def as_load(self, d: ShuntDevice) -> bool:
        """One object of the engine has one power for all of its phases: where ports differ there is no native one."""
        return self.der == "load" or d.label in self.dispatch.ports

    def native_pv(self, d: PV) -> str:
        """Power follows a shape of irradiance, kvar the steps (a PVSystem takes no shape of it)."""
        p, q = self.dispatch.p(d.label), self.dispatch.q(d.label)
        name = self.name(d.label, "PVSystem", d.name)
        text = (
            f"New PVSystem.{name} {self.connected(d)} kva={num(d.s_max_kva * self.share)} "
            f"pmpp={num(d.p_rated_kw * self.share)} irradiance=1 %cutin=0 %cutout=0 {_window(d)} "
        )
        if d.q_control == "power_factor":
            text += f"pf={num(d.power_factor)}"
        else:
            text += f"kvar={self.first_kvar(d.label, q)}"
        if d.p_rated_kw > 0.0:
            shape = self.shape(("dispatch", d.label), f"pv_{d.name}", p / d.p_rated_kw, None, actual=False)
            text += f" daily={shape}"
        return text

    def first_kvar(self, label: str, q: FloatArray) -> str:
        """The kvar that an object begins with; what comes after is kept for ``steps.dss``."""
        if np.any(q != q[0]):
            self.kvar[self.element[label]] = q * self.share
        return num(q[0] * self.share)

    def native_battery(self, d: Battery) -> str:
        """Power follows a shape (``dispmode=follow``), per unit of the rating, kvar the steps."""
        p, q = self.dispatch.p(d.label), self.dispatch.q(d.label)
        name = self.name(d.label, "Storage", d.name)
        rated = max(d.p_charge_max_kw, d.p_discharge_max_kw)
        text = (
            f"New Storage.{name} {self.connected(d)} kwrated={num(rated * self.share)} "
            f"kva={num(d.s_max_kva * self.share)} kwhrated={num(d.energy_kwh * self.share)} "
            f"%stored={num(100.0 * d.soc_initial)} %reserve={num(100.0 * d.soc_min)} "
            f"%effcharge={num(100.0 * d.eta_charge)} %effdischarge={num(100.0 * d.eta_discharge)} "
            f"%charge={num(100.0 * d.p_charge_max_kw / rated if rated else 100.0)} "
            f"%discharge={num(100.0 * d.p_discharge_max_kw / rated if rated else 100.0)} "
            f"%idlingkw=0 %cutin=0 %cutout=0 {_window(d)} kvar={self.first_kvar(d.label, q)} dispmode=follow"
        )
        if rated > 0.0:
            shape = self.shape(("dispatch", d.label), f"battery_{d.name}", p / rated, None, actual=False)
            text += f" daily={shape}"
        return text

    def regulator(self, r: Regulator) -> None:
        transformer = self.element[f"transformer.{r.transformer}"].partition(".")[2]
        name = self.name(r.label, "RegControl", r.name)
        self.out["devices.dss"].append(
            f"New RegControl.{name} transformer={transformer} winding={int(r.winding)} vreg={num(r.v_set)} "
            f"band={num(r.band)} ptratio={num(r.pt_ratio)} ctprim={num(r.ct_primary_a)} R={num(r.ldc_r)} "
            f"X={num(r.ldc_x)}"
        )


_WHAT = {
    "loadshapes.dss": "profiles, and set-points as kW and kvar",
    "sources.dss": "the upstream grid",
    "lines.dss": "lines and switches",
    "transformers.dss": "transformers, at fixed taps",
    "shunts.dss": "capacitors, other shunts and generic admittances",
    "loads.dss": "loads",
    "devices.dss": "PV systems, batteries, regulator controls",
    "bases.dss": "voltage base of every bus",
}


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


def _window(d: ShuntDevice) -> str:
    low, high = getattr(d, "v_min_pu", 0.1), getattr(d, "v_max_pu", 2.0)
    return f"vminpu={num(low)} vmaxpu={num(high)}"


def _bad(element: Element, found: str) -> Fault:
    return Fault("IO-066 cannot be written", element.label, found, "finite numbers and known names", "Correct it.")


def _plain(text: str) -> str:
    """The text on one line, for a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


__all__ = ["Names", "Rendered", "render_opendss", "write_opendss"]
