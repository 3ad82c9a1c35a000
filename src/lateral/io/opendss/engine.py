"""Run a scanned OpenDSS model in the engine, in a process of its own, and return what it made of it.

The engine (DSS-Extensions, dss-python) parses and solves; nothing of it runs in the caller's process. The
worker gets the statements that `scan` wrote anew, works in a fresh temporary folder with bounds on time,
memory, file size and open files, an empty environment, no shell, and the engine's editor, forms, folder and
program commands off. Data comes back as JSON and npz (never pickle).

The operating point is the snapshot that the files state: loads at their nominal values times ``loadmult``,
controls as filed (taps and capacitors move until they rest). A time-series solve in the files is left out
and reported. A second solve with the controls held and the tolerance at 1e-8 gives reference voltages.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from lateral.errors import CaseError, EngineError, Fault
from lateral.io.opendss.collector import collector_off
from lateral.io.opendss.scan import Limits, ScannedModel, scan

__all__ = [
    "BusData",
    "ElementData",
    "EngineModel",
    "EngineNote",
    "LineMatrices",
    "SolvedState",
    "read_engine",
    "run_scanned",
]

ComplexArray = npt.NDArray[np.complex128]
FloatArray = npt.NDArray[np.float64]

_WORKER = Path(__file__).with_name("_worker.py")
_MEMORY_BYTES = 8 * 2**30
_FILE_BYTES = 1 * 2**30
_OPEN_FILES = 64
#: Complex numbers of all primitive admittance matrices together, 256 MiB; elements beyond are left without one.
YPRIM_ENTRIES = 2**24
#: Classes whose primitive admittance matrix is fetched: the linear ones. All of it comes as one array of a npz file.
YPRIM_CLASSES = (
    "line",
    "transformer",
    "autotrans",
    "reactor",
    "capacitor",
    "vsource",
    "fault",
    "gictransformer",
    "gicline",
)
#: Classes that the engine takes for a constant admittance where a conductor of them is open.
YPRIM_IF_OPEN = ("load", "pvsystem", "storage")
#: Classes whose currents at the solved point are fetched: how they follow the voltage is not always in a case.
CURRENT_CLASSES = ("generator", "pvsystem", "storage")


@dataclass(frozen=True, slots=True)
class BusData:
    """A bus as the engine knows it.

    Attributes:
        name: bus name, lower case.
        nodes: node numbers in use (1, 2, 3 are usually phases; others neutrals or legs); 0 is ground.
        kv_base: voltage base, line to neutral, kV; 0 where none was set.
        x: coordinate in the units of the file.
        y: coordinate in the units of the file.
        has_xy: whether the files give coordinates.
    """

    name: str
    nodes: tuple[int, ...]
    kv_base: float
    x: float
    y: float
    has_xy: bool


@dataclass(frozen=True, slots=True)
class ElementData:
    """A circuit element and where it is connected.

    Attributes:
        name: ``class.name``, lower case.
        enabled: whether it takes part.
        phases: number of phases.
        conductors: conductors per terminal.
        buses: bus name per terminal, lower case, without node numbers.
        nodes: node number of every conductor, per terminal; empty for a disabled element and for controls.
        open_conductors: conductors (from 1) that are open, per terminal.
        yprim: primitive admittance matrix, siemens, order terminal by terminal, conductor by conductor; None
            where it was not asked for. Only of the classes `YPRIM_CLASSES`.
        own_ends: (bus, node) of every conductor of an autotransformer, whose series winding ends at another bus than
            the one it names; ground is node 0. Empty for all others.
        over_bound: whether there was no room for its matrix (`YPRIM_ENTRIES`).
    """

    name: str
    enabled: bool
    phases: int
    conductors: int
    buses: tuple[str, ...]
    nodes: tuple[tuple[int, ...], ...]
    open_conductors: tuple[tuple[int, ...], ...]
    yprim: ComplexArray | None = field(default=None, repr=False)
    own_ends: tuple[tuple[str, int], ...] = ()
    over_bound: bool = False

    @property
    def ends(self) -> tuple[tuple[str, int], ...]:
        """Where each conductor ends, terminal by terminal."""
        if self.own_ends:
            return self.own_ends
        return tuple((bus, node) for bus, nodes in zip(self.buses, self.nodes, strict=True) for node in nodes)

    @property
    def cls(self) -> str:
        """Object class, lower case."""
        return self.name.partition(".")[0]

    @property
    def is_open(self) -> bool:
        """Whether any conductor is open."""
        return any(self.open_conductors)


@dataclass(frozen=True, slots=True)
class LineMatrices:
    """A line at its full length, as the engine uses it at the base frequency of the circuit.

    Attributes:
        z_ohm: series impedance, ohm, shape (conductor, conductor).
        c_nf: shunt capacitance of the whole line, nF, shape (conductor, conductor); half at each end.
    """

    z_ohm: ComplexArray
    c_nf: FloatArray


@dataclass(frozen=True, slots=True)
class SolvedState:
    """One solution of the engine.

    Attributes:
        converged: whether the power flow converged.
        control_done: whether the controls came to rest.
        iterations: power-flow iterations, all control steps together.
        control_iterations: control steps.
        source_kw: power from the source(s) into the circuit, kW.
        source_kvar: the same, kvar.
        losses_kw: all losses, kW.
        losses_kvar: the same, kvar.
        voltages: complex voltage per node, volt, in the order of ``EngineModel.node_names``.
    """

    converged: bool
    control_done: bool
    iterations: int
    control_iterations: int
    source_kw: float
    source_kvar: float
    losses_kw: float
    losses_kvar: float
    voltages: ComplexArray = field(repr=False)


@dataclass(frozen=True, slots=True)
class EngineNote:
    """Something the engine said, or that was left out while running it.

    Attributes:
        message: what.
        where: ``file:line`` or empty.
    """

    message: str
    where: str


@dataclass(frozen=True, slots=True)
class EngineModel:
    """Everything the engine knows about a model, as plain data.

    Attributes:
        scanned: the file tree it came from (files, objects with file and line, what was left out).
        circuit: name of the circuit, lower case.
        base_frequency_hz: frequency of the solution, Hz.
        classes: objects per class (``line``, ``load``, ``regcontrol``, ``loadshape``, ...), in the order of
            definition. An object is a mapping of *all* its properties, lower-case names with ``%`` written
            ``pct``, plus ``name``; numbers, lists, matrices (list of rows), strings, or None. Values are those
            after the engine's own parsing (kW of a load after its allocation factor, tap at the solved point).
            Line, linecode matrices are per unit length in ``units``. Fixed arrays of a shape are complete
            (``pmult``, ``qmult``, ``hour``, ``xarray``, ...).
        elements: circuit elements by ``class.name``, in the order of definition.
        buses: buses by name.
        node_names: ``bus.node`` in the order of all voltage arrays, lower case.
        lines: total matrices by line name (without ``line.``), for enabled lines; open ends do not matter.
        stated: the solution options as filed (mode, control_mode, tolerance, load_mult, load_model, ...) and
            ``solved_by_file``: whether the files themselves ended with a solve.
        point: the operating point with the file's controls and tolerance; None if not solved.
        reference: the same taps and states, controls held, tolerance 1e-8; None if not solved.
        pv_power: kW and kvar of the PV systems there, inside their band of voltage, by name.
        currents: A into the conductors of elements of `CURRENT_CLASSES` there, by ``class.name``.
        iterations_raised: whether the file's iteration limits were too low and were raised.
        notes: warnings of the engine, and time-series solves that were left out.
        engine_version: version text of the engine.
        seconds: time spent in ``scan, start, statements, solve, extract, load``.
    """

    scanned: ScannedModel = field(repr=False)
    circuit: str
    base_frequency_hz: float
    classes: Mapping[str, tuple[Mapping[str, Any], ...]] = field(repr=False)
    elements: Mapping[str, ElementData] = field(repr=False)
    buses: Mapping[str, BusData] = field(repr=False)
    node_names: tuple[str, ...] = field(repr=False)
    lines: Mapping[str, LineMatrices] = field(repr=False)
    stated: Mapping[str, Any]
    point: SolvedState | None
    reference: SolvedState | None
    pv_power: Mapping[str, tuple[float, float]]
    currents: Mapping[str, ComplexArray] = field(repr=False)
    iterations_raised: bool
    notes: tuple[EngineNote, ...]
    engine_version: str
    seconds: Mapping[str, float]

    def objects(self, cls: str) -> tuple[Mapping[str, Any], ...]:
        """Objects of a class, empty if there are none."""
        return self.classes.get(cls.lower(), ())

    def where(self, element: str) -> str:
        """``file:line`` that defined ``class.name``, or an empty string."""
        return self.scanned.where(element)

    @property
    def point_text(self) -> str:
        """One sentence: which operating point this is."""
        if self.point is None:
            return "not solved"
        how = "as the files solve it" if self.stated["solved_by_file"] else "solved on reading (no Solve in file)"
        rest = "converged" if self.point.converged else "NOT converged"
        raised = ", iteration limits raised" if self.iterations_raised else ""
        return f"snapshot at load multiplier {self.stated['load_mult']:g}, {how}, {rest}{raised}"


def read_engine(
    master: Path | str,
    *,
    root: Path | str | None = None,
    solve: bool = True,
    yprim: bool = True,
    timeout_s: float = 120.0,
    limits: Limits | None = None,
) -> EngineModel:
    """Scan an OpenDSS file tree, run it in the engine and return the raw data.

    Args:
        master: the .dss file to start from.
        root: the case folder (default: the folder of ``master``); nothing outside it is read.
        solve: solve the snapshot and the reference point.
        yprim: keep the primitive admittance matrices (for cross-checks).
        timeout_s: wall time and processor time for the engine, seconds.
        limits: bounds of the scan.

    Returns:
        The raw data.

    Raises:
        HostileFileError: the files ask for something forbidden; the engine was not started.
        CaseError: the files have errors, found by the scan or by the engine, with ``file:line``.
        EngineError: the engine crashed or ran out of time or memory.
    """
    start = time.perf_counter()
    scanned = scan(master, root=root, limits=limits)
    spent = time.perf_counter() - start
    return run_scanned(scanned, solve=solve, yprim=yprim, timeout_s=timeout_s, scan_seconds=spent)


def run_scanned(
    scanned: ScannedModel,
    *,
    solve: bool = True,
    yprim: bool = True,
    timeout_s: float = 120.0,
    scan_seconds: float = 0.0,
) -> EngineModel:
    """Run a scanned model in the engine; arguments, return value and errors as in `read_engine`."""
    with tempfile.TemporaryDirectory(prefix="lateral-dss-") as name:
        folder = Path(name)
        for staged, content in scanned.staged.items():
            (folder / staged).write_bytes(content)
        job = {
            "statements": [(s.verb, s.text) for s in scanned.statements],
            "solve": solve,
            "yprim_classes": YPRIM_CLASSES if yprim else (),
            "yprim_if_open": YPRIM_IF_OPEN if yprim else (),
            "yprim_entries": YPRIM_ENTRIES,
            "current_classes": CURRENT_CLASSES,
            "reference_tolerance": 1e-8,
            "limits": {
                "cpu_s": int(timeout_s) + 1,
                "memory_bytes": _MEMORY_BYTES,
                "file_bytes": _FILE_BYTES,
                "open_files": _OPEN_FILES,
            },
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        start = time.perf_counter()
        # of open loads the engine takes the currents from memory that it never set
        _run_worker(folder, timeout_s, zeroed=any(s.verb == "open" for s in scanned.statements))
        spent = time.perf_counter() - start
        result = _load_json(folder / "result.json")
        if result["faults"]:
            raise CaseError(_engine_fault(scanned, fault) for fault in result["faults"])
        start = time.perf_counter()
        model_seconds = {"scan": scan_seconds, **result["seconds"]}
        model_seconds["start"] = spent - sum(result["seconds"].values())
        with collector_off():
            classes = _load_json(folder / "classes.json")
            arrays = _load_arrays(folder / "arrays.npz")
            return _assemble(scanned, result, classes, arrays, model_seconds, start)


def _run_worker(folder: Path, timeout_s: float, *, zeroed: bool) -> None:
    """Start the worker in ``folder`` and wait for it; on time-out end it with all it may have started."""
    command = [sys.executable, "-I", str(_WORKER)]
    environment = {
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    if zeroed:  # glibc hands out zeros, not what was there before
        environment["MALLOC_PERTURB_"] = "255"
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            close_fds=True,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            message = f"the OpenDSS engine did not finish within {timeout_s:g} s; raise timeout_s"
            raise EngineError(message) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code != 0 or not (folder / "result.json").is_file():
        text = (folder / "worker.log").read_text(encoding="utf-8", errors="replace").strip()
        last = text.splitlines()[-1] if text else "no message"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        message = f"the OpenDSS engine stopped with {how}: {last}"
        raise EngineError(message)


# Not-a-number and infinity as the engine writes them, outside of strings.
_ODD_NUMBER = re.compile(r"(?<=[\[:, ])([+-]?)(nan|inf)(?=[,\]} ])", re.IGNORECASE)


def _load_json(path: Path) -> Any:
    """JSON of the worker; the engine spells not-a-number and infinity in ways that JSON does not know."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    text = _ODD_NUMBER.sub(lambda m: "NaN" if m[2].lower() == "nan" else f"{m[1]}Infinity", text)
    text = text.replace("+Infinity", "Infinity")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = f"the OpenDSS engine returned data that cannot be read: {error}"
        raise EngineError(message) from error


def _load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of the worker. What a header claims is looked at before it is given memory."""
    out: dict[str, npt.NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
                shape, _, kind = read(stream) if read is not None else ((-1,), False, np.dtype(object))
                header = stream.tell()
            whole = member.compress_type == zipfile.ZIP_STORED and member.file_size <= _FILE_BYTES
            size = math.prod(shape) * kind.itemsize
            if kind != np.complex128 or not whole or len(shape) != 1 or size != member.file_size - header:
                message = f"the OpenDSS engine returned an array that cannot be read: {member.filename[:40]!r}"
                raise EngineError(message)
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            out[key] = stored[key]
    return out


def _where(scanned: ScannedModel, statement: int) -> str:
    if 0 <= statement < len(scanned.statements):
        found = scanned.statements[statement]
        return f"{found.file}:{found.line}"
    return ""


_BLAMED = re.compile(r"Error for (\w+) \"([^\"]+)\"")


def _engine_fault(scanned: ScannedModel, fault: Mapping[str, Any]) -> Fault:
    """An engine message at the element it names, else at the statement that brought it up."""
    text = " ".join(str(fault["message"]).split())
    where = _where(scanned, fault["statement"])
    element = "circuit"
    if where:
        statement = scanned.statements[fault["statement"]]
        element = f"{statement.cls}.{statement.name}" if statement.cls else f"command {statement.verb}"
    blamed = _BLAMED.search(text)
    if blamed is not None and scanned.where(f"{blamed[1]}.{blamed[2]}"):
        element = f"{blamed[1]}.{blamed[2]}".lower()
        where = scanned.where(element)
    return Fault(
        "DSS-050 engine-error",
        element,
        f"engine message: {text}",
        "a statement that the engine accepts",
        "Correct the statement.",
        where,
    )


def _assemble(
    scanned: ScannedModel,
    result: Mapping[str, Any],
    classes: Mapping[str, Sequence[Mapping[str, Any]]],
    arrays: Mapping[str, npt.NDArray[Any]],
    seconds: dict[str, float],
    start: float,
) -> EngineModel:
    objects = {
        cls: tuple(_object(o, unset) for o in listed)
        for cls, listed in classes.items()
        for unset in [_unset(scanned, cls)]
    }
    elements = dict(_elements(result["elements"], arrays["yprim"]))
    buses = {
        row[0].lower(): BusData(row[0].lower(), tuple(row[1]), row[2], row[3], row[4], row[5])
        for row in result["buses"]
    }
    stated = result["stated"]
    frequency = float(stated["frequency_hz"])
    lines = dict(_line_matrices(objects.get("line", ()), elements, frequency))
    point, reference = result.get("point"), None
    as_filed = None
    if point is not None:
        as_filed = SolvedState(**point["as_filed"], voltages=arrays["voltage"])
        reference = SolvedState(**point["reference"], voltages=arrays["reference_voltage"])
    seconds["load"] = time.perf_counter() - start
    return EngineModel(
        scanned=scanned,
        circuit=result["circuit"].lower(),
        base_frequency_hz=frequency,
        classes=MappingProxyType(objects),
        elements=MappingProxyType(elements),
        buses=MappingProxyType(buses),
        node_names=tuple(name.lower() for name in result["node_names"]),
        lines=MappingProxyType(lines),
        stated=MappingProxyType(dict(stated)),
        point=as_filed,
        reference=reference,
        pv_power=MappingProxyType({n: (p, q) for n, (p, q) in point["pv_power"].items()} if point else {}),
        currents=MappingProxyType(
            {n: np.array(i, dtype=float).view(complex) for n, i in point["currents"].items()} if point else {}
        ),
        iterations_raised=bool(point and point["iterations_raised"]),
        notes=tuple(EngineNote(w["message"], _where(scanned, w["statement"])) for w in result["warnings"]),
        engine_version=result["engine"]["version"],
        seconds=MappingProxyType(seconds),
    )


# Matrices that the engine leaves uninitialised unless a statement sets them.
_UNINITIALISED = {"capacitor": ("cmatrix",), "reactor": ("rmatrix", "xmatrix")}


def _unset(scanned: ScannedModel, cls: str) -> tuple[str, ...]:
    """Properties of a class whose value would be whatever was in memory."""
    return tuple(
        name
        for name in _UNINITIALISED.get(cls, ())
        if not any(f" {name}=" in s.text for s in scanned.statements if s.cls == cls)
    )


def _object(properties: Mapping[str, Any], unset: Sequence[str]) -> Mapping[str, Any]:
    """The properties with their name in lower case as the other keys are."""
    rest = {key: value for key, value in properties.items() if key != "Name"}
    rest.update(dict.fromkeys(unset))
    return MappingProxyType({"name": str(properties.get("Name", "")).lower(), **rest})


def _elements(rows: Sequence[Sequence[Any]], yprim: npt.NDArray[Any]) -> Iterator[tuple[str, ElementData]]:
    at = 0
    for full, enabled, phases, terminals, conductors, buses, nodes, opened, size, refs in rows:
        matrix: ComplexArray | None = None
        if size > 0:
            order = terminals * conductors
            if size != order**2 or at + size > len(yprim):
                message = "the OpenDSS engine returned matrices of another size than its elements have"
                raise EngineError(message)
            # The engine stores columns one after the other.
            matrix = np.asarray(yprim[at : at + size], dtype=np.complex128).reshape(order, order, order="F")
            at += size
        name = full.lower()
        per_terminal = tuple(
            tuple(nodes[t * conductors : (t + 1) * conductors]) for t in range(terminals if nodes else 0)
        )
        yield (
            name,
            ElementData(
                name=name,
                enabled=enabled,
                phases=phases,
                conductors=conductors,
                buses=tuple(bus.partition(".")[0].lower() for bus in buses),
                nodes=per_terminal,
                open_conductors=tuple(tuple(c) for c in opened),
                yprim=matrix,
                own_ends=tuple(_node(ref) for ref in refs) if len(refs) == terminals * conductors else (),
                over_bound=size < 0,
            ),
        )


def _node(name: str) -> tuple[str, int]:
    """(bus, node) of a node name of the engine; the empty name is ground."""
    bus, _, number = name.rpartition(".")
    return (bus.lower(), int(number)) if bus else ("", 0)


def _line_matrices(
    listed: Sequence[Mapping[str, Any]], elements: Mapping[str, ElementData], frequency_hz: float
) -> Iterator[tuple[str, LineMatrices]]:
    """Total matrices of each line: property matrices times length.

    Where the line's base frequency is not that of the circuit, the engine scales the reactance and corrects
    the earth return (``Line.pas``, CalcYPrim); lines with a geometry are computed at the frequency itself.
    """
    for line in listed:
        name = str(line["name"])
        element = elements.get(f"line.{name}")
        if element is None or not element.enabled:
            continue
        r, x, c = (np.asarray(line[key], dtype=np.float64) for key in ("rmatrix", "xmatrix", "cmatrix"))
        ratio = frequency_hz / float(line["basefreq"])
        length = float(line["length"])
        scaled = abs(ratio - 1.0) > 1e-9 and not line["geometry"] and not line["spacing"]
        if scaled and element.yprim is not None and not element.is_open:
            # The earth term depends on the order of the properties: take what the engine uses.
            n = element.conductors
            z = np.asarray(np.linalg.inv(-element.yprim[:n, n:]), dtype=np.complex128)
            yield name, LineMatrices(z_ohm=z, c_nf=c * length)
            continue
        if scaled:
            earth = float(line["xg"]) / math.log(658.5 * math.sqrt(float(line["rho"]) / line["basefreq"]))
            x = (x - 0.5 * earth * math.log(ratio)) * ratio
            r = r + float(line["rg"]) * (ratio - 1.0)
        z = np.asarray(r + 1j * x, dtype=np.complex128)
        yield name, LineMatrices(z_ohm=z * length, c_nf=c * length)
