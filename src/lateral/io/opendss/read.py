"""Read an OpenDSS model: the engine solves it, a `Case` holds its operating point, a report says what became of it.

The operating point is the engine's own solution with the controls of the files: regulators and switched capacitors
are read at the taps and steps at which they came to rest, and stay there. The power flow of the case (see
`lateral.baseline`) reproduces the engine's voltages at that point; `ImportReport.reference` holds them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lateral.baseline import Dispatch, nodal_problem, power_flow
from lateral.case import Case
from lateral.errors import CaseError, Fault
from lateral.io.opendss.collector import collector_off
from lateral.io.opendss.crosscheck import cross_check
from lateral.io.opendss.engine import EngineModel, read_engine, run_scanned
from lateral.io.opendss.map_build import Build
from lateral.io.opendss.map_der import InverterQ, map_pv, map_storage
from lateral.io.opendss.map_devices import map_capacitors, map_loads, map_regulators, map_sources, record_unsupported
from lateral.io.opendss.map_generators import map_generators
from lateral.io.opendss.map_generic import map_generic
from lateral.io.opendss.map_inverters import InverterControls
from lateral.io.opendss.map_passive import capacitor_steps, map_passive, record_the_rest
from lateral.io.opendss.map_ratings import note_unrated
from lateral.io.opendss.map_shapes import HorizonKind, Shapes
from lateral.io.opendss.map_topology import bus_bases, keep_live, make_buses
from lateral.io.opendss.map_wires import map_lines, map_series_and_shunts, map_transformers
from lateral.io.opendss.report import AdmittanceCheck, EngineReference, ImportNote, ImportReport
from lateral.io.opendss.scan import ScannedModel
from lateral.io.opendss.severity import warning_lines
from lateral.network.admittance import primitive_of
from lateral.network.feeder import Feeder, Line, Switch
from lateral.network.powerflow import PowerFlow
from lateral.network.schema import ComplexArray

#: Difference of a voltage to the engine's above which it is reported, pu.
VOLTAGE_TOLERANCE_PU = 1e-5
#: Currents that a difference of voltages makes, relative to those of its parts, up to which no wire sees it.
NOTHING_SEES = 1e-9

_SET_FREQUENCY = ("set defaultbasefreq", "set basefreq")


def read(
    master: Path | str,
    *,
    root: Path | str | None = None,
    horizon: HorizonKind = "snapshot",
    n_steps: int | None = None,
    step_h: float | None = None,
    first: int = 0,
    inverter_q: InverterQ = "as_filed",
    verify: bool = True,
    timeout_s: float = 120.0,
) -> tuple[Case, ImportReport]:
    """Read an OpenDSS master file.

    With ``horizon="snapshot"`` (the default, whatever the files' own solution mode is) the case has one step of one
    hour, which is exactly the solved operating point: loads at their stated power times the load multiplier. With
    ``"daily"``, ``"yearly"`` or ``"duty"`` the steps follow the shapes of that study: by default one day in steps of
    the interval that most elements' shapes have. Taps and capacitor steps are those of the snapshot in either case.

    Args:
        master: the .dss file to start from. It is untrusted: see `lateral.io.opendss.scan`.
        root: folder that files may come from; default: the folder of ``master``.
        horizon: ``snapshot``, or the study whose shapes make the steps.
        n_steps: number of steps; default: one day, or the length of the shape when it is shorter.
        step_h: length of a step, h; default: the interval of the shapes. Shapes are averaged over each step.
        first: index of the first step, counted in steps of ``step_h`` from the beginning of the shapes.
        inverter_q: ``as_filed`` lets PV systems do what the files say, without curtailment: the curves of their
            ``InvControl``, else their stated power factor (the operating point reproduces); ``free`` makes their
            reactive power, and curtailment, a decision.
        verify: solve the power flow of a snapshot and report its difference to the engine's voltages.
        timeout_s: wall time for the engine, seconds.

    Returns:
        The case, and the report with every object of the source model.

    Raises:
        HostileFileError: the files ask for something forbidden; nothing was run.
        CaseError: the files have errors, or the model has no operating point.
        EngineError: the engine crashed or ran out of time or memory.
        OptionError: a horizon that does not exist, or shapes that the model does not have.
    """
    model = read_engine(master, root=root, timeout_s=timeout_s)
    again = _frequency_first(model)
    moved = again is not None
    if again is not None:
        spent = model.seconds["scan"]
        model = run_scanned(again, timeout_s=timeout_s, scan_seconds=spent)
    case, report = from_engine(
        model,
        horizon=horizon,
        n_steps=n_steps,
        step_h=step_h,
        first=first,
        inverter_q=inverter_q,
        verify=verify,
    )
    if moved:
        hz = model.base_frequency_hz
        said = f"the base frequency of {hz:g} Hz is set after the circuit; read as if it were set before"
        report = dataclasses.replace(report, notes=(ImportNote("IMP-056", said), *report.notes))
    return case, report


def _frequency_first(model: EngineModel) -> ScannedModel | None:
    """The statements with ``Set DefaultBaseFrequency`` before the circuit; None where that changes nothing.

    After the circuit it leaves the sources at the old frequency: they give nothing at the new one, and the engine
    reports 0 V everywhere as converged. (In a session of OpenDSS the second run of the same files is right.)
    """
    sources = model.objects("vsource")
    if not sources or any(float(s["frequency"]) == model.base_frequency_hz for s in sources):
        return None
    scanned = model.scanned
    setting = [s for s in scanned.statements if s.verb == "set" and s.text.lower().startswith(_SET_FREQUENCY)]
    if not setting:
        return None
    others = [s for s in scanned.statements if s not in setting]
    at = next(k for k, s in enumerate(others) if s.cls == "circuit" or "circuit." in s.text.lower())
    return dataclasses.replace(scanned, statements=(*others[:at], setting[-1], *others[at:]))


@collector_off()
def from_engine(
    model: EngineModel,
    *,
    horizon: HorizonKind = "snapshot",
    n_steps: int | None = None,
    step_h: float | None = None,
    first: int = 0,
    inverter_q: InverterQ = "as_filed",
    verify: bool = True,
) -> tuple[Case, ImportReport]:
    """The case and the report of a model that the engine has read; arguments and errors as in `read`."""
    start = time.perf_counter()
    build = Build(model)
    _engine_notes(build)
    shapes = Shapes(build, horizon, n_steps=n_steps, step_h=step_h, first=first)
    map_lines(build)
    map_series_and_shunts(build)
    map_transformers(build)
    map_generic(build)
    build.ground_shunts()
    base = bus_bases(build)
    map_sources(build, base)
    map_loads(build, shapes)
    map_generators(build, shapes)
    record_unsupported(build)
    map_capacitors(build)
    note_unrated(build)
    controls = InverterControls.read(build)
    map_pv(build, shapes, inverter_q, controls)
    map_storage(build, shapes)
    map_regulators(build)
    if not any(d.kind == "source" for d in build.devices):
        raise CaseError([_no_source(model)])
    conductors = keep_live(build)
    map_passive(build, shapes, controls)
    record_the_rest(build)
    feeder = Feeder(
        buses=make_buses(build, conductors, base),
        lines=tuple(build.lines),
        switches=tuple(build.switches),
        transformers=tuple(build.transformers),
        shunts=tuple(build.shunts),
        admittances=tuple(build.admittances),
        frequency_hz=model.base_frequency_hz,
    )
    mapped = time.perf_counter()
    admittances = cross_check(build, feeder)
    case = Case(
        name=model.circuit,
        feeder=feeder,
        devices=tuple(build.devices),
        horizon=shapes.horizon,
        profiles=shapes.profiles,
        notes=f"OpenDSS circuit {model.circuit}: {model.point_text}. Taps and capacitor steps are held there.",
        where=_where(build, case_labels=[e.label for e in (*feeder.elements, *build.devices)]),
    )
    reference = _reference(build, case)
    compared = time.perf_counter()
    difference = None
    if verify and horizon == "snapshot" and reference is not None:
        difference = _voltage_difference(build, case, reference)
    seconds = {
        **model.seconds,
        "map": mapped - start,
        "compare": compared - mapped,
        "verify": time.perf_counter() - compared,
    }
    report = _report(build, case, reference, admittances, difference, seconds)
    return case.with_(warnings=warning_lines(report.entries, report.notes)), report


def _no_source(model: EngineModel) -> Fault:
    return Fault(
        "IMP-060 no-source",
        f"circuit.{model.circuit}",
        "no voltage source that can be read",
        "at least one Vsource from a bus to ground",
        "Enable a source.",
    )


def _engine_notes(build: Build) -> None:
    model = build.model
    for note in model.notes:
        build.note("IMP-051", note.message, note.where)
    if model.point is None or not model.point.converged:
        build.note("IMP-052", f"operating point: {model.point_text}")
    elif model.reference is None or not model.reference.converged:
        build.note("IMP-052", "the engine did not converge to 1e-8 with the controls held")


def _where(build: Build, case_labels: list[str]) -> Mapping[str, str]:
    out = {}
    for label in case_labels:
        source = build.origin.get(label)
        place = build.model.where(source) if source else ""
        if place:
            out[label] = place
    return out


def _voltage_difference(build: Build, case: Case, reference: EngineReference) -> float | None:
    """Largest difference of the case's power flow to the engine's voltages, pu; reported when it is large."""
    dispatch = {}
    for kind, units in (("pv", case.pvs), ("battery", case.batteries)):
        if units:
            given = np.array([reference.dispatch[u.label] for u in units])
            dispatch[kind] = (given[:, :1], given[:, 1:])
    try:
        flow = power_flow(case, dispatch=dispatch or None)
    except CaseError as error:
        build.note("IMP-063", f"the power flow of the case has no solution: {error.faults[0]}")
        return None
    size = 1e3 * flow.index.v_base_kv
    theirs = reference.at(flow.index.nodes)
    off = flow.v[:, 0] - theirs
    error_pu = np.abs(off) / size
    worst = int(np.argmax(error_pu))
    if flow.all_converged and error_pu[worst] <= VOLTAGE_TOLERANCE_PU:
        return float(error_pu[worst])
    bus, conductor = flow.index.nodes[worst]
    said = f"the case's own power flow differs by {error_pu[worst]:.2g} pu at bus {bus}, conductor {conductor}"
    if not flow.all_converged:
        said = "the power flow of the case does not converge at the operating point"
    build.note("IMP-063", said + _why(case, dispatch, flow, theirs))
    return float(error_pu[worst]) if flow.all_converged else None


def _why(case: Case, dispatch: Dispatch, flow: PowerFlow, theirs: ComplexArray) -> str:
    """Why a power flow differs from the engine's voltages, V, shape (n,), as far as it can be told; or nothing."""
    size = 1e3 * flow.index.v_base_kv
    off = flow.v[:, 0] - theirs
    if np.all(np.isfinite(off)):
        problem = nodal_problem(case, dispatch=dispatch or None)
        y, loads = problem.network.y, problem.loads
        seen, most = np.abs(y @ off), np.abs(y) @ np.abs(off)
        across = np.abs(off[loads.node_a] - np.where(loads.node_b < 0, 0.0, off[loads.node_b]))
        across = across[np.abs(loads.p_kw[:, 0]) + np.abs(loads.q_kvar[:, 0]) > 0.0]
        by_wires = float(seen.max(initial=0.0)) > NOTHING_SEES * float(most.max(initial=0.0))
        if not by_wires and float(across.max(initial=0.0)) <= VOLTAGE_TOLERANCE_PU * float(np.abs(off).max()):
            moved = [flow.index.nodes[k] for k in np.flatnonzero(np.abs(off) > VOLTAGE_TOLERANCE_PU * size)]
            which = ", ".join(f"{bus}.{c}" for bus, c in moved[:5]) + (", ..." if len(moved) > 5 else "")
            return (
                f": nothing holds the voltage to ground of {which} (an ungrounded winding without ppm_antifloat, say), "
                "so that the engine's is what rounding made of it; ground it"
            )
    again = power_flow(case, dispatch=dispatch or None, start=np.nan_to_num(theirs)[:, None])
    apart = float(np.max(np.abs(again.v[:, 0] - theirs) / size))
    if not (again.all_converged and apart <= VOLTAGE_TOLERANCE_PU):
        return ""
    return (
        f"; there are several solutions: from the engine's voltages it comes to the engine's, within {apart:.1e} pu "
        "(loads of constant power on conductors that nothing holds to ground, or beyond what the wires can carry)"
    )


def _report(
    build: Build,
    case: Case,
    reference: EngineReference | None,
    admittances: AdmittanceCheck,
    difference: float | None,
    seconds: Mapping[str, float],
) -> ImportReport:
    model = build.model
    taps = {
        f"{r.transformer}:{r.winding}": t.windings[r.winding - 1].tap
        for r in case.regulators
        for t in case.feeder.transformers
        if t.name == r.transformer
    }
    order = [f"{cls}.{str(o['name']).lower()}" for cls, objects in model.classes.items() for o in objects]
    # an element that the engine lists twice under one name is one entry
    entries = tuple(build.entries[name] for name in dict.fromkeys(order))
    skipped = tuple(ImportNote("skipped", f"{s.text}: {s.reason}", f"{s.file}:{s.line}") for s in model.scanned.skipped)
    return ImportReport(
        master=model.scanned.master.name,
        circuit=model.circuit,
        operating_point=model.point_text,
        taps=taps,
        capacitor_steps=capacitor_steps(build),
        converged=bool(model.point and model.point.converged),
        entries=entries,
        notes=tuple(build.notes),
        skipped=skipped,
        reference=reference,
        admittances=admittances,
        max_dv_pu=difference,
        engine_version=model.engine_version,
        seconds=seconds,
    )


def _reference(build: Build, case: Case) -> EngineReference | None:
    state = build.model.reference
    if state is None:
        return None
    alive = {(bus.name, c) for bus in case.feeder.buses for c in bus.conductors}
    nodes, at = [], []
    for k, name in enumerate(build.model.node_names):
        bus, _, number = name.rpartition(".")
        node = (bus, int(number))
        if node in alive:
            nodes.append(node)
            at.append(k)
    grounds = sorted(build.grounds & alive)
    volts = dict(zip(nodes, state.voltages[np.array(at, dtype=np.int64)].tolist(), strict=True))
    volts |= dict.fromkeys(grounds, 0j)
    branches: tuple[Line | Switch, ...] = (*case.feeder.lines, *case.feeder.switches)
    for branch in branches:
        ends = {(branch.bus_from, c) for c in branch.conductors_from} | {
            (branch.bus_to, c) for c in branch.conductors_to
        }
        if not build.dangling.isdisjoint(ends):  # no current flows into an open end
            own = primitive_of(branch)
            gone = [k for k, node in enumerate(own.nodes) if node in build.dangling]
            kept = [k for k in range(len(own.nodes)) if k not in gone]
            known = np.array([volts[own.nodes[k]] for k in kept])
            found = np.linalg.solve(own.y[np.ix_(gone, gone)], -own.y[np.ix_(gone, kept)] @ known)
            volts |= {own.nodes[k]: complex(v) for k, v in zip(gone, found, strict=True)}
    return EngineReference(
        nodes=tuple(volts),
        v_volt=np.array(list(volts.values()), dtype=complex),
        source_kw=state.source_kw,
        source_kvar=state.source_kvar,
        losses_kw=state.losses_kw,
        converged=state.converged,
        dispatch=dict(build.dispatch),
    )


__all__ = ["from_engine", "read"]
