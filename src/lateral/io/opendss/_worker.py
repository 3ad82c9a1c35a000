"""Runs sanitised statements in the OpenDSS engine; a script, started by `engine.py` in a process of its own.

It reads ``job.json`` in the current folder, a fresh temporary one, and leaves there ``result.json``,
``classes.json`` and ``arrays.npz``. It imports nothing of the package, so that it starts fast.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

SNAPSHOT = 0
_STEADY_MODES = (0, 7)  # snapshot and direct: the others step through time or draw samples
_MAX_FAULTS = 100
# What makes the engine compute: with an object that it refused it may crash there, and nobody would hear of the fault.
_COMPUTING = ("solve", "calcvoltagebases", "allocateloads", "buildy", "init", "makebuslist", "reprocessbuses")
# Full property set, lower-case keys, references with their class.
_JSON_FLAGS = 1 | 128


def limit_resources(limits: dict[str, int]) -> None:
    """Bounds on what this process may use, before anything of the user's is looked at."""
    for name, value in (
        ("RLIMIT_CPU", limits["cpu_s"]),
        ("RLIMIT_AS", limits["memory_bytes"]),
        ("RLIMIT_FSIZE", limits["file_bytes"]),
        ("RLIMIT_NOFILE", limits["open_files"]),
        ("RLIMIT_CORE", 0),
    ):
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (soft, soft))


def main() -> None:
    """Run the job of the current folder."""
    job = json.loads(Path("job.json").read_text(encoding="utf-8"))
    limit_resources(job["limits"])
    import numpy  # noqa: F401  (threads of libraries start here, before none may)
    from dss import dss

    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # no further process or thread, unless root
    dss.AllowForms = False
    dss.AllowEditor = False
    dss.AllowChangeDir = False
    dss.AllowDOScmd = False
    result = Run(dss, job).run()
    Path("result.json").write_text(json.dumps(result), encoding="utf-8")


class Run:
    """One job: statements, solve, extraction."""

    def __init__(self, dss: Any, job: dict[str, Any]) -> None:
        self.dss = dss
        self.job = job
        self.faults: list[dict[str, Any]] = []
        self.warnings: list[dict[str, Any]] = []
        self.solved = False
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Statements, operating point, data."""
        start = time.perf_counter()
        self.statements()
        self.seconds["statements"] = time.perf_counter() - start
        result: dict[str, Any] = {"faults": self.faults, "warnings": self.warnings, "seconds": self.seconds}
        if self.faults:
            return result
        circuit = self.dss.ActiveCircuit
        solution = circuit.Solution
        result["engine"] = {"version": self.dss.Version, "python": sys.version.split()[0]}
        result["circuit"] = circuit.Name
        result["stated"] = {
            "mode": solution.ModeID,
            "number": solution.Number,
            "step_s": solution.StepSize,
            "hour": solution.Hour,
            "control_mode": int(solution.ControlMode),
            "load_model": int(solution.LoadModel),
            "load_mult": solution.LoadMult,
            "tolerance": solution.Tolerance,
            "max_iterations": solution.MaxIterations,
            "max_control_iterations": solution.MaxControlIterations,
            "frequency_hz": solution.Frequency,
            "solved_by_file": self.solved,
        }
        start = time.perf_counter()
        if self.job["solve"]:
            try:
                result["point"] = self.operating_point()
            except Exception as error:  # no voltages: the circuit could not even be put together
                said = [w["message"] for w in self.warnings if w["statement"] < 0]
                self.faults.append({"statement": -1, "message": said[0] if said else str(error)})
                return result
        self.seconds["solve"] = time.perf_counter() - start
        start = time.perf_counter()
        self.extract(result)
        self.seconds["extract"] = time.perf_counter() - start
        return result

    def statements(self) -> None:
        """Run them one by one, so that an error has its statement."""
        text = self.dss.Text
        for index, (verb, statement) in enumerate(self.job["statements"]):
            if self.faults and verb in _COMPUTING:
                continue
            if verb == "solve":
                self.solve_statement(index)
                continue
            try:
                text.Command = statement
            except Exception as error:
                self.faults.append({"statement": index, "message": str(error)})
                if len(self.faults) >= _MAX_FAULTS:
                    return
                continue
            if verb != "buscoords" and verb != "latlongcoords" and verb != "setbusxy":
                self.solved = False

    def solve_statement(self, index: int) -> None:
        """A `Solve` of the file: done when it is one operating point, noted when it is a time series."""
        solution = self.dss.ActiveCircuit.Solution if self.dss.NumCircuits else None
        if solution is None:
            self.faults.append({"statement": index, "message": "Solve before there is a circuit"})
            return
        if int(solution.Mode) not in _STEADY_MODES:
            self.warnings.append(
                {"statement": index, "message": f"time-series solve left out (mode {solution.ModeID})"}
            )
            return
        self.solve(index)
        self.solved = True

    def solve(self, index: int) -> None:
        """Solve; what the engine complains about is a warning."""
        try:
            self.dss.ActiveCircuit.Solution.Solve()
        except Exception as error:
            self.warnings.append({"statement": index, "message": str(error)})

    def operating_point(self) -> dict[str, Any]:
        """The snapshot with the file's controls; then, for comparison, the same taps to 1e-8."""
        circuit = self.dss.ActiveCircuit
        solution = circuit.Solution
        raised = False
        if int(solution.Mode) not in _STEADY_MODES:
            solution.Mode = SNAPSHOT
            self.solved = False
        if not self.solved:
            self.solve(-1)
        if not solution.Converged or not solution.ControlActionsDone:
            # Large feeders need more than the default 15 + 10 iterations from a flat start.
            raised = True
            solution.MaxIterations = max(200, solution.MaxIterations)
            solution.MaxControlIterations = max(200, solution.MaxControlIterations)
            self.solve(-1)
        point: dict[str, Any] = {"as_filed": self.state(), "iterations_raised": raised}
        self.keep_voltages("voltage")
        solution.ControlMode = -1
        solution.Tolerance = self.job["reference_tolerance"]
        solution.MaxIterations = max(1000, solution.MaxIterations)
        self.solve(-1)
        point["reference"] = self.state()
        self.keep_voltages("reference_voltage")
        point["pv_power"] = {pv.Name.lower(): [float(pv.kW), float(pv.kvar)] for pv in circuit.PVSystems}
        point["currents"] = self.currents()
        return point

    def currents(self) -> dict[str, list[float]]:
        """Currents into the terminals of the classes that were asked for, A: real and imaginary part by turns."""
        circuit, out = self.dss.ActiveCircuit, {}
        for name in self.job["current_classes"]:
            self.dss.SetActiveClass(name)
            if not circuit.ActiveClass.Count:
                continue
            for of in circuit.ActiveClass.AllNames:
                element = circuit.CktElements(f"{name}.{of}")
                if not element.Enabled:
                    continue
                try:
                    out[f"{name}.{of}".lower()] = [float(x) for x in element.Currents]
                except Exception:  # a user-written model that is not there
                    continue
        return out

    def state(self) -> dict[str, Any]:
        """What the solved point is."""
        circuit = self.dss.ActiveCircuit
        solution = circuit.Solution
        total = [float(v) for v in circuit.TotalPower]
        losses = [float(v) for v in circuit.Losses]
        return {
            "converged": bool(solution.Converged),
            "control_done": bool(solution.ControlActionsDone),
            "iterations": int(solution.Iterations),
            "control_iterations": int(solution.ControlIterations),
            "source_kw": -total[0],
            "source_kvar": -total[1],
            "losses_kw": losses[0] / 1e3,
            "losses_kvar": losses[1] / 1e3,
        }

    def keep_voltages(self, name: str) -> None:
        """Complex node voltages, volt, in the order of the node names."""
        import numpy as np

        self.arrays = getattr(self, "arrays", {})
        volts = np.asarray(self.dss.ActiveCircuit.AllBusVolts, dtype=float)
        self.arrays[name] = volts.view(complex) if volts.size else np.zeros(0, complex)

    def extract(self, result: dict[str, Any]) -> None:
        """Everything about the circuit that a reader could want."""
        import numpy as np

        dss, circuit = self.dss, self.dss.ActiveCircuit
        arrays: dict[str, Any] = getattr(self, "arrays", {})
        result["node_names"] = list(circuit.AllNodeNames)
        result["buses"] = self.buses()
        with Path("classes.json").open("w", encoding="utf-8") as stream:
            stream.write("{")
            first = True
            for name in dss.Classes:
                dss.SetActiveClass(name)
                if not circuit.ActiveClass.Count:
                    continue
                stream.write(("" if first else ",") + json.dumps(name.lower()) + ":")
                stream.write(circuit.ActiveClass.ToJSON(_JSON_FLAGS))
                first = False
            stream.write("}")
        result["elements"] = self.elements(arrays)
        np.savez("arrays.npz", **arrays)

    def buses(self) -> list[list[Any]]:
        """Name, nodes, kV base (line to neutral), x, y, coordinates defined."""
        return [
            [b.Name, [int(n) for n in b.Nodes], float(b.kVBase), float(b.x), float(b.y), bool(b.Coorddefined)]
            for b in self.dss.ActiveCircuit.ActiveBus
        ]

    def elements(self, arrays: dict[str, Any]) -> list[list[Any]]:
        """Terminals of each element that carries power, with the size of its admittance matrix (-1: no room left)."""
        import numpy as np

        circuit = self.dss.ActiveCircuit
        kept: list[list[Any]] = []
        blocks: list[Any] = []
        names = list(circuit.YNodeOrder) if "autotrans" in self.job["yprim_classes"] and self.job["solve"] else []
        yprim_classes = frozenset(self.job["yprim_classes"])
        room = self.job["yprim_entries"]  # looked at before a matrix is fetched, not after
        for element in circuit.CktElements:
            full = element.Name
            cls = full.partition(".")[0].lower()
            buses = list(element.BusNames)
            terminals, conductors = int(element.NumTerminals), int(element.NumConductors)
            enabled = bool(element.Enabled)
            try:
                nodes = [int(n) for n in element.NodeOrder] if enabled else []
            except Exception:  # controls and meters have no nodes of their own
                nodes = []
            opened = [
                [c for c in range(1, conductors + 1) if element.IsOpen(t, c)] if nodes and element.IsOpen(t, 0) else []
                for t in range(1, terminals + 1)
            ]
            size = 0
            if nodes and (cls in yprim_classes or (any(opened) and cls in self.job["yprim_if_open"])):
                expected = (terminals * conductors) ** 2
                if expected > room:
                    size = -1
                else:
                    block = np.asarray(element.Yprim, dtype=float)
                    if block.size == 2 * expected:
                        blocks.append(block)
                        size = expected
                        room -= expected
            # the second half of a series winding stands at the bus of winding 2, which its own bus name does not say
            refs = [names[r - 1] if r > 0 else "" for r in element.NodeRef] if size > 0 and cls == "autotrans" else []
            kept.append(
                [full, enabled, int(element.NumPhases), terminals, conductors, buses, nodes, opened, size, refs]
            )
        arrays["yprim"] = np.concatenate(blocks).view(complex) if blocks else np.zeros(0, complex)
        return kept


if __name__ == "__main__":
    main()
