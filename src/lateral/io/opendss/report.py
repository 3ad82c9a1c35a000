"""The import report: what became of every object of an OpenDSS model, and which operating point was read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table

from lateral.network.schema import ComplexArray

#: What became of an object.
OUTCOMES = ("mapped", "approximated", "ignored")

#: Code of an entry or a warning -> short word and sentence.
CODES: Mapping[str, str] = MappingProxyType(
    {
        "IMP-001": "mapped",
        "IMP-002": "control-held: the tap or the steps are those of the solved point; the control itself is off",
        "IMP-003": "folded: its values are inside the elements that refer to it",
        "IMP-004": "restated: another element type with the same admittance",
        "IMP-010": "generator: a load of negative power",
        "IMP-011": "generator-model: that of a generator or inverter has no counterpart, or one at the solved point",
        "IMP-012": "idling: the losses of an idle battery are a constant load",
        "IMP-013": "inverter-curve: efficiency or temperature curve taken at the operating point",
        "IMP-014": "partly-open: some conductors are open; they are left out",
        "IMP-015": "partly-dead: some conductors have no path to a source; their share is left out",
        "IMP-016": "primitive-mismatch: the admittance differs from the engine's",
        "IMP-018": "load-detail: a detail of the load has no counterpart",
        "IMP-019": "v-source: a detail of the source has no counterpart",
        "IMP-020": "disabled in the files",
        "IMP-021": "isolated: no path to a source",
        "IMP-030": "control-off: controls do not act in lateral",
        "IMP-031": "protection does not act in a schedule",
        "IMP-032": "measurement: does not change the solution",
        "IMP-033": "other-study: harmonics, dynamics or reliability data",
        "IMP-034": "unused: no element refers to it",
        "IMP-035": "engine-default: defined by the engine, not by the files",
        "IMP-036": "not-followed: the horizon that was read does not use it",
        "IMP-040": "unsupported: has no counterpart, so results deviate",
        "IMP-050": "zero-padded: fewer values than npts; the engine fills up with zeros",
        "IMP-051": "engine-note: said by the engine",
        "IMP-052": "not-converged: the engine found no operating point",
        "IMP-053": "voltage-base: not given in the files, inferred",
        "IMP-054": "load-model: the files ask for all loads and generation as admittances",
        "IMP-055": "dead-conductor: has no path to a source and is left out of its bus",
        "IMP-056": "base-frequency: set after the circuit in the files",
        "IMP-057": "dead-source: the engine's sources give no voltage",
        "IMP-058": "inverter-limit: at its rating the engine lets active power give way, not the power factor",
        "IMP-059": "grounded-end: ends on ground",
        "IMP-061": "step-size: the engine's steps are not the stated ones",
        "IMP-062": "growth: load growth over the years is not followed",
        "IMP-064": "default-rating: no rating in the files; the engine's default is not taken for a limit",
        "IMP-066": "generic: a generic admittance from the engine",
        "IMP-067": "not-compared: the admittance matrices exceed what is fetched from the engine",
        "IMP-068": "battery-idle: not dispatched as in the files; it is scheduled, or idle in the power flow",
        "IMP-069": "inverter-vars: over the steps of the horizon its power is not at the one power factor that is held",
        "IMP-070": "control-law: the law of the inverters that it controls; tolerances of the control are left out",
        "IMP-071": "unfed: no branch feeds a conductor, so that its bus has no lower limit of the voltage",
        "IMP-072": "source-limits: a source beyond the usual limits of voltage; those of its bus hold it",
        "IMP-073": "negative-resistance: an element that would produce energy at some currents, taken as it is",
        "IMP-063": "voltage-difference: the case's power flow differs from the engine's solution",
    }
)


@dataclass(frozen=True, slots=True)
class ImportEntry:
    """One object of the source model.

    Attributes:
        element: ``class.name``, lower case.
        outcome: one of `OUTCOMES`.
        code: key of `CODES`.
        reason: a sentence; never empty unless mapped as it is.
        became: labels of the elements it became, e.g. ``line.l115``.
        file: the file that defines it, relative to the case folder; empty for engine defaults.
        line: line number in that file; 0 when unknown.
        lost_kw: active power that the files give it and the case does not have, kW, without sign.
    """

    element: str
    outcome: str
    code: str
    reason: str = ""
    became: tuple[str, ...] = ()
    file: str = ""
    line: int = 0
    lost_kw: float = 0.0

    @property
    def cls(self) -> str:
        """Class of the object, lower case."""
        return self.element.partition(".")[0]


@dataclass(frozen=True, slots=True)
class ImportNote:
    """A warning about the model as a whole, or a statement that was left out.

    Attributes:
        code: key of `CODES`, or ``skipped`` for a statement.
        text: what.
        where: ``file:line`` or empty.
    """

    code: str
    text: str
    where: str = ""


@dataclass(frozen=True, eq=False)
class EngineReference:
    """The engine's own solution of the operating point that was read: controls held, tolerance 1e-8.

    Attributes:
        nodes: ``(bus, conductor)`` of every live node.
        v_volt: complex voltage of each node, V, shape (n,).
        source_kw: power from the sources, kW.
        source_kvar: the same, kvar.
        losses_kw: all losses as the engine counts them, kW.
        converged: whether the engine converged.
        dispatch: ``(kW, kvar)`` given by each PV system and battery at the operating point, by label.
    """

    nodes: tuple[tuple[str, int], ...]
    v_volt: ComplexArray = field(repr=False)
    source_kw: float
    source_kvar: float
    losses_kw: float
    converged: bool
    dispatch: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def voltage(self) -> Mapping[tuple[str, int], complex]:
        """Voltage of each node, V."""
        return dict(zip(self.nodes, (complex(v) for v in self.v_volt), strict=True))

    def at(self, nodes: tuple[tuple[str, int], ...]) -> ComplexArray:
        """Voltages in the order of some nodes, V; NaN for a node that the engine does not have."""
        get = self.voltage.get
        return np.array([get(node, complex("nan")) for node in nodes], dtype=complex)


@dataclass(frozen=True, slots=True)
class AdmittanceDifference:
    """An element whose admittance differs from the engine's by more than the tolerance.

    Attributes:
        element: ``class.name`` in the files, lower case.
        error: largest difference of an entry relative to the largest entry of the engine's matrix; inf when the element
            does not touch the engine's conductors.
        code: ``IMP-016``.
        reason: a sentence.
    """

    element: str
    error: float
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class AdmittanceCheck:
    """Admittances of the case against the engine's primitive matrices; see `lateral.io.opendss.crosscheck`.

    Attributes:
        checked: how many elements were compared.
        taken: how many of them were made of the engine's matrix, so that the comparison only says that it arrived.
        worst: the largest error.
        worst_element: ``class.name`` of that element; empty when none was compared.
        tolerance: the error above which an element is listed.
        above: those elements, each with a code.
        unchecked: number of elements that were not compared, by reason.
        errors: the error of every element that was compared, by ``class.name``, in the order of the case; inf where the
            element does not touch the engine's conductors.
    """

    checked: int
    taken: int
    worst: float
    worst_element: str
    tolerance: float
    above: tuple[AdmittanceDifference, ...]
    unchecked: Mapping[str, int]
    errors: Mapping[str, float] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "meaning": "error = largest |dY| of an element relative to the largest |Y| of the engine's matrix of it",
            "checked": self.checked,
            "taken_from_engine": self.taken,
            "worst": _plain(self.worst),
            "worst_element": self.worst_element,
            "tolerance": self.tolerance,
            "above": [{**asdict(d), "error": _plain(d.error)} for d in self.above],
            "unchecked": dict(self.unchecked),
            "errors": {element: _plain(error) for element, error in self.errors.items()},
        }

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        if not self.checked:
            return "admittances: none compared with the engine's"
        more = f"; {len(self.above)} above {self.tolerance:g}, each with its reason below" if self.above else ""
        return (
            f"admittances: {self.checked} compared with the engine's, within {self.worst:.1e} of the largest entry "
            f"({self.worst_element}){more}"
        )


def _plain(value: float) -> float | None:
    """A number that JSON knows."""
    return value if np.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class ImportReport:
    """What became of a model.

    Attributes:
        master: name of the master file.
        circuit: name of the circuit.
        operating_point: one sentence on the point that was read.
        taps: tap of every winding that a regulator moves, pu, by ``transformer.name:winding``.
        capacitor_steps: steps on (1) and off (0) of every capacitor under control.
        converged: whether the engine found the point.
        entries: every object of the source model, in the engine's order.
        notes: warnings about the model as a whole.
        skipped: statements that were not run.
        reference: the engine's solution, None when it was not solved.
        admittances: the admittance of every wire and capacitor against the engine's.
        max_dv_pu: largest difference of the case's own power flow to the engine's voltages at the operating point, pu
            of the bus base; None when it was not computed (another horizon than the snapshot, no engine solution).
        engine_version: version text of the engine.
        seconds: time spent, by part.
    """

    master: str
    circuit: str
    operating_point: str
    taps: Mapping[str, float]
    capacitor_steps: Mapping[str, tuple[int, ...]]
    converged: bool
    entries: tuple[ImportEntry, ...] = field(repr=False)
    notes: tuple[ImportNote, ...]
    skipped: tuple[ImportNote, ...]
    reference: EngineReference | None = field(repr=False)
    admittances: AdmittanceCheck
    max_dv_pu: float | None
    engine_version: str
    seconds: Mapping[str, float]

    @cached_property
    def entry(self) -> Mapping[str, ImportEntry]:
        """Entries by ``class.name``."""
        return {e.element: e for e in self.entries}

    @property
    def max_primitive_error(self) -> float:
        """Largest relative difference of an element's admittance to the engine's."""
        return self.admittances.worst

    @cached_property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Number of objects per class and outcome."""
        counted = Counter((e.cls, e.outcome) for e in self.entries)
        out: dict[str, dict[str, int]] = {}
        for (cls, outcome), n in counted.items():
            out.setdefault(cls, dict.fromkeys(OUTCOMES, 0))[outcome] = n
        return out

    @property
    def summary(self) -> Mapping[str, int]:
        """Number of objects per outcome, and of isolated and unsupported ones."""
        totals = Counter(e.outcome for e in self.entries)
        out = {outcome: totals.get(outcome, 0) for outcome in OUTCOMES}
        out["isolated"] = sum(e.code == "IMP-021" for e in self.entries)
        out["unsupported"] = sum(e.code == "IMP-040" for e in self.entries)
        return out

    @property
    def isolated(self) -> tuple[ImportEntry, ...]:
        """Objects without a path to a source."""
        return tuple(e for e in self.entries if e.code == "IMP-021")

    @property
    def deviations(self) -> tuple[ImportEntry, ...]:
        """Objects that make results differ from the engine's: approximated or without counterpart."""
        return tuple(e for e in self.entries if e.outcome == "approximated" or e.code == "IMP-040")

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; voltages are left out."""
        reference = None
        if self.reference is not None:
            r = self.reference
            reference = {
                "nodes": len(r.nodes),
                "source_kw": r.source_kw,
                "source_kvar": r.source_kvar,
                "losses_kw": r.losses_kw,
                "converged": r.converged,
                "dispatch": {k: list(v) for k, v in r.dispatch.items()},
            }
        return {
            "master": self.master,
            "circuit": self.circuit,
            "operating_point": self.operating_point,
            "converged": self.converged,
            "taps": dict(self.taps),
            "capacitor_steps": {k: list(v) for k, v in self.capacitor_steps.items()},
            "summary": dict(self.summary),
            "counts": {k: dict(v) for k, v in self.counts.items()},
            "entries": [{**asdict(e), "became": list(e.became)} for e in self.entries],
            "notes": [asdict(n) for n in self.notes],
            "skipped": [asdict(n) for n in self.skipped],
            "reference": reference,
            "max_primitive_error": _plain(self.max_primitive_error),
            "admittances": self.admittances.as_dict(),
            "max_dv_pu": self.max_dv_pu,
            "engine_version": self.engine_version,
            "seconds": {k: float(v) for k, v in self.seconds.items()},
        }

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.as_dict(), indent=1)

    def table(self) -> Table:
        """Counts per class as a table for the terminal."""
        table = Table(title=f"Import of {self.master}", caption=f"{self.operating_point}\n{self.admittances.sentence}")
        table.add_column("class")
        for outcome in OUTCOMES:
            table.add_column(outcome, justify="right")
        for cls, row in self.counts.items():
            table.add_row(cls, *(str(row[o] or "") for o in OUTCOMES))
        summary = self.summary
        table.add_row("all", *(str(summary[o]) for o in OUTCOMES), style="bold", end_section=True)
        return table

    def to_text(self, *, limit: int = 20) -> str:
        """The report as plain text: point, counts, warnings, and the first objects that were not mapped as they are.

        Args:
            limit: how many objects to list per code.
        """
        s = self.summary
        lines = [
            f"{self.master}: circuit {self.circuit}",
            f"operating point: {self.operating_point}",
            f"objects: {s['mapped']} mapped, {s['approximated']} approximated, {s['ignored']} ignored "
            f"({s['isolated']} isolated, {s['unsupported']} unsupported)",
        ]
        for cls, row in self.counts.items():
            parts = ", ".join(f"{n} {o}" for o, n in row.items() if n)
            lines.append(f"  {cls:18} {parts}")
        if self.max_dv_pu is not None:
            lines.append(f"voltages: within {self.max_dv_pu:.1e} pu of the engine's solution")
        lines.append(self.admittances.sentence)
        for d in self.admittances.above[:limit]:
            lines.append(f"  [{d.code}] {d.element}: {d.error:.2g}. {d.reason}")
        if len(self.admittances.above) > limit:
            lines.append(f"  ... and {len(self.admittances.above) - limit} more")
        lines += [f"[{n.code}] {n.text}{f' ({n.where})' if n.where else ''}" for n in self.notes]
        by_code: dict[str, list[ImportEntry]] = {}
        for e in self.entries:
            if e.code not in ("IMP-001", "IMP-035"):
                by_code.setdefault(e.code, []).append(e)
        for code in sorted(by_code):
            found = by_code[code]
            lines.append(f"[{code}] {CODES[code]}: {len(found)}")
            for e in found[:limit]:
                place = f" ({e.file}:{e.line})" if e.file else ""
                lines.append(f"  {e.element}: {e.outcome}. {e.reason}{place}")
            if len(found) > limit:
                lines.append(f"  ... and {len(found) - limit} more")
        for n in self.skipped[:limit]:
            lines.append(f"[skipped] {n.text} ({n.where})")
        if len(self.skipped) > limit:
            lines.append(f"  ... and {len(self.skipped) - limit} more statements skipped")
        return "\n".join(lines)


__all__ = [
    "CODES",
    "OUTCOMES",
    "AdmittanceCheck",
    "AdmittanceDifference",
    "EngineReference",
    "ImportEntry",
    "ImportNote",
    "ImportReport",
]
