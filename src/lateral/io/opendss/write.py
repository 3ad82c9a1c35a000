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
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lateral.case import Case
from lateral.devices import PV, SVC, Battery, BorderHead, BorderTail, Capacitor, Load, Regulator, Source
from lateral.devices.base import ShuntDevice
from lateral.errors import CaseError, Fault, UnsupportedError
from lateral.io.dispatch import Dispatch, is_dispatched
from lateral.io.opendss import write_devices, write_wires
from lateral.io.opendss.write_draft import PARTS, Der, Draft, array, num
from lateral.network.schema import Element

#: The first line of a master file of ours; a folder without it is never overwritten.
MARK = "! OpenDSS files written by lateral"

#: The other files of such a folder.
OTHER_FILES = ("master.dss", "steps.dss", "buscoords.csv", "names.csv")


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
    return _render(Draft(case, dispatch, der), stamp=stamp)


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


def _render(draft: Draft, *, stamp: bool) -> Rendered:
    case, feeder = draft.case, draft.case.feeder
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
        raise CaseError([Fault("IO-065 no source", "case." + case.name, "no source", "one or more", "Add a source.")])
    for b in feeder.buses:
        draft.bus[b.name] = draft.namer.take("bus", b.name)
        draft.next_conductor[b.name] = max(9, *b.conductors, 0) + 1
    for r in case.regulators:
        draft.limits[r.transformer, r.winding] = (r.tap_min, r.tap_max, r.n_steps)

    faults: list[Fault] = []
    jobs: list[tuple[Element, Callable[[], None]]] = [
        *((e, partial(write_wires.source, draft, e)) for e in case.sources),
        *((e, partial(write_wires.line, draft, e)) for e in feeder.lines),
        *((e, partial(write_wires.switch, draft, e)) for e in feeder.switches),
        *((e, partial(write_wires.transformer, draft, e)) for e in feeder.transformers),
        *((e, partial(write_wires.shunt, draft, e)) for e in feeder.shunts),
        *((e, partial(write_wires.admittance, draft, e)) for e in feeder.admittances),
        *((e, partial(write_devices.load, draft, e)) for e in case.loads),
        *((e, partial(write_devices.capacitor, draft, e)) for e in case.capacitors),
        *((e, partial(write_devices.pv, draft, e)) for e in case.pvs),
        *((e, partial(write_devices.battery, draft, e)) for e in case.batteries),
        *((e, partial(write_devices.svc, draft, e)) for e in case.of(SVC)),
        *((e, partial(write_devices.other, draft, e)) for e in own),
        *((e, partial(write_devices.regulator, draft, e)) for e in case.regulators),
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
    _bases(draft)
    files = {"master.dss": _master(draft, stamp=stamp)}
    for part, lines in draft.out.items():
        files[part] = "\n".join([f"! {part}: {_WHAT[part]}", *lines, ""])
    files["buscoords.csv"] = "".join(
        f"{draft.bus[b.name]}, {num(b.x)}, {num(b.y)}\n"
        for b in feeder.buses
        if math.isfinite(b.x) and math.isfinite(b.y)
    )
    files["names.csv"] = _name_table(draft)
    names = Names(draft.bus, draft.element, draft.source_objects, tuple(draft.source_lines), tuple(draft.shunt_parts))
    before = _changes(draft)
    if before:
        files["steps.dss"] = _steps(draft, before)
    return Rendered(files, names, draft.step_s / 3600.0, before)


def _changes(draft: Draft) -> dict[int, tuple[str, ...]]:
    """Commands before a step, where taps or kvar without a shape follow the schedule; the first has them all."""
    out: dict[int, list[str]] = {}
    for r in draft.case.regulators:
        taps = draft.dispatch.settings.get(r.label)
        if taps is None:
            continue
        name = draft.element[f"transformer.{r.transformer}"]
        for k, tap in enumerate(taps):
            if k == 0 or tap != taps[k - 1]:
                out.setdefault(k, []).append(f"Edit {name} wdg={int(r.winding)} tap={num(tap)}")
    for name, kvar in draft.kvar.items():
        for k, q in enumerate(kvar):
            if k == 0 or q != kvar[k - 1]:
                out.setdefault(k, []).append(f"Edit {name} kvar={num(q)}")
    return {k: tuple(commands) for k, commands in out.items()}


def _steps(draft: Draft, before: Mapping[int, tuple[str, ...]]) -> str:
    """Every step with its taps and kvar, to be redirected to after the master."""
    lines = ["! steps.dss: every step of the schedule with what no load shape says; redirect to it after master.dss"]
    for k in range(draft.case.horizon.n_steps):
        lines += [f"! step {k}", *before.get(k, ()), "Solve"]
    return "\n".join([*lines, ""])


def _master(draft: Draft, *, stamp: bool) -> str:
    case, feeder = draft.case, draft.case.feeder
    h = case.horizon
    mark = f", hash {case.hash}" if stamp else ""
    start = h.times[0].isoformat() if h.n_steps else "-"
    head = [
        MARK,
        f"! case {_plain(case.name)}{mark}, {len(feeder.buses)} buses, {h.n_steps} steps from {start}",
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
            if draft.der == "load"
            else "! PV systems and batteries are PVSystem and Storage objects that follow load shapes."
        )
    if draft.dispatch.ports and draft.der == "native":
        head.append("! Devices whose phases differ are loads of negative power, one of one phase for each port.")
    if len(set(h.step_h.tolist())) > 1:
        head.append("! Steps differ in length; in the load shapes each takes one hour.")
    if any(r.label in draft.dispatch.settings for r in case.regulators):
        head.append("! Taps follow the schedule: after this file, steps.dss sets them step by step and solves.")
    if draft.kvar:
        head.append(
            "! No shape has kvar of PVSystem and Storage objects: here those of the first step, in steps.dss all."
        )
    if draft.shapes:
        head.append(f"! Each Solve takes the next of {h.n_steps} steps (mode=daily number=1).")
    voltages = sorted({round(b.v_base_kv * math.sqrt(3.0), 9) for b in feeder.buses}, reverse=True)
    body = [
        "Clear",
        f"Set DefaultBaseFrequency={num(feeder.frequency_hz)}",
        *(f"Redirect {p}" for p in ("sources.dss", "loadshapes.dss")),
        *(f"Edit {name} daily={shape}" for name, shape in _source_shapes(draft)),
        *(f"Redirect {p}" for p in PARTS if p not in ("sources.dss", "loadshapes.dss", "bases.dss")),
        f"Set VoltageBases={array(voltages)}",
        "MakeBusList",
        "Redirect bases.dss",
    ]
    if any(math.isfinite(b.x) and math.isfinite(b.y) for b in feeder.buses):
        body.append("Buscoords buscoords.csv")
    body.append("Set ControlMode=off Tolerance=1e-8 MaxIterations=200")
    if draft.shapes:
        body.append(f"Set Mode=daily StepSize={num(round(draft.step_s, 9))}s Number=1")
    else:
        body.append("Set Mode=snapshot")
    return "\n".join([*head, "", *body, ""])


def _source_shapes(draft: Draft) -> list[tuple[str, str]]:
    return [
        (name, draft.shapes["v", s.label])
        for s in draft.case.sources
        if ("v", s.label) in draft.shapes
        for name in draft.vsources[s.label]
    ]


def _name_table(draft: Draft) -> str:
    rows = ["element,opendss"]
    rows += [f"{_csv('bus.' + n)},{d}" for n, d in draft.bus.items()]
    rows += [f"{_csv(n)},{d}" for n, d in draft.element.items()]
    return "\n".join(rows) + "\n"


def _bases(draft: Draft) -> None:
    lines = draft.out["bases.dss"]
    for b in draft.case.feeder.buses:
        lines.append(f"SetkVBase Bus={draft.bus[b.name]} kVLN={num(b.v_base_kv)}")
    for name, kv in draft.extra_buses:
        lines.append(f"SetkVBase Bus={name} kVLN={num(kv)}")


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


def _bad(element: Element, found: str) -> Fault:
    return Fault("IO-066 cannot be written", element.label, found, "finite numbers and known names", "Correct it.")


def _plain(text: str) -> str:
    """The text on one line, for a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


__all__ = ["Names", "Rendered", "render_opendss", "write_opendss"]
