"""A small mapping from the running OpenDSS engine to a Case, for tests of the network layer alone.

It asks the engine for each element's properties (not for its matrices), so that the matrices can be compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lateral.case import Case
from lateral.devices import Capacitor, Load, Source
from lateral.devices.load import MODELS
from lateral.network.feeder import Bus, Feeder, Line, Transformer, Winding
from lateral.network.horizon import Horizon

_HERE = Path(__file__).resolve()
FEEDERS = next((p / "shared" / "feeders" for p in _HERE.parents if (p / "shared" / "feeders").is_dir()), Path("absent"))


def compile_feeder(path, commands=(), solve=True):
    """The engine with a feeder compiled and solved with controls as they are; the test is skipped if it is absent."""
    dss_module = pytest.importorskip("dss")
    master = FEEDERS / path
    if not master.exists():
        pytest.skip(f"{path} is not here")
    engine = dss_module.DSS
    engine.AllowForms = False
    engine.AllowChangeDir = False
    engine.ClearAll()
    # these set the default after their first elements, which then stay at the default of the last circuit
    engine.Text.Command = f"set defaultbasefrequency={50 if 'case3_' in str(path) else 60}"
    engine.Text.Command = f'compile "{master}"'
    engine.Text.Command = "set mode=snapshot number=1 tolerance=1e-10 maxiterations=1000"
    for command in commands:
        engine.Text.Command = command
    if solve:
        engine.ActiveCircuit.Solution.Solve()
        # once more at the taps that were found
        engine.Text.Command = "set controlmode=off"
        for _ in range(3):
            engine.ActiveCircuit.Solution.SolveNoControl()
        assert engine.ActiveCircuit.Solution.Converged
    return engine


def terminals(element):
    """Bus name and node numbers of each terminal."""
    order = list(element.NodeOrder)
    k = element.NumConductors
    buses = [b.split(".")[0].lower() for b in element.BusNames]
    return [(bus, tuple(int(n) for n in order[j * k : (j + 1) * k])) for j, bus in enumerate(buses)]


def prop(element, name):
    """A property of an element as text."""
    return element.Properties(name).Val


def numbers(text):
    """The numbers in a property's text."""
    for sign in "[](),|":
        text = text.replace(sign, " ")
    return [float(x) for x in text.split()]


def engine_y(element):
    """The primitive matrix of the active element over its nodes, ground left out, and these nodes."""
    slots = [(bus, n) for bus, nodes in terminals(element) for n in nodes]
    raw = np.asarray(element.Yprim, dtype=float)
    full = (raw[0::2] + 1j * raw[1::2]).reshape(len(slots), len(slots)).T
    nodes = list(dict.fromkeys(s for s in slots if s[1] > 0))
    place = np.zeros((len(slots), len(nodes)))
    for k, slot in enumerate(slots):
        if slot[1] > 0:
            place[k, nodes.index(slot)] = 1.0
    return nodes, place.T @ full @ place


def buses(circuit):
    """Every bus."""
    out = []
    for name in circuit.AllBusNames:
        circuit.SetActiveBus(name)
        bus = circuit.ActiveBus
        out.append(
            Bus(
                name=name.lower(),
                conductors=tuple(sorted(int(n) for n in bus.Nodes)),
                v_base_kv=bus.kVBase or 1.0,
            )
        )
    return tuple(out)


def lines(circuit):
    """Every enabled line."""
    out = []
    omega = 2.0 * np.pi * circuit.Solution.Frequency
    for line in circuit.Lines:
        element = circuit.ActiveCktElement
        if not element.Enabled or element.IsOpen(1, 0) or element.IsOpen(2, 0):
            continue
        n = element.NumConductors
        (a, ca), (b, cb) = terminals(element)
        r, x, c = (np.asarray(m, dtype=float).reshape(n, n) for m in (line.Rmatrix, line.Xmatrix, line.Cmatrix))
        length = line.Length
        out.append(
            Line(
                name=line.Name,
                bus_from=a,
                bus_to=b,
                conductors_from=ca,
                conductors_to=cb,
                r_ohm=r * length,
                x_ohm=x * length,
                b_us=c * length * omega * 1e-3,
            )
        )
    return tuple(out)


def transformers(circuit):
    """Every enabled transformer."""
    out = []
    t = circuit.Transformers
    for _ in t:
        element = circuit.ActiveCktElement
        if not element.Enabled:
            continue
        n = element.NumPhases
        windings = []
        kvas = numbers(prop(element, "kVAs"))
        rs = numbers(prop(element, "%Rs"))
        for k, (bus, nodes) in enumerate(terminals(element)):
            t.Wdg = k + 1
            delta = bool(t.IsDelta)
            windings.append(
                Winding(
                    bus=bus,
                    terminals=nodes[:3] if delta and n == 3 else nodes,
                    connection="delta" if delta else "wye",
                    v_rated_kv=t.kV,
                    s_rated_kva=kvas[k],
                    r_percent=rs[k],
                    tap=t.Tap,
                    r_neutral_ohm=t.Rneut,
                    x_neutral_ohm=t.Xneut,
                )
            )
        # not Xhl, Xht, Xlt: those say 7, 35, 30 even where the engine works with its other default, 30
        pairs = len(windings) * (len(windings) - 1) // 2
        x = tuple(numbers(prop(element, "Xscarray"))[:pairs])
        out.append(
            Transformer(
                name=t.Name,
                n_phases=n,
                windings=tuple(windings),
                x_percent=x,
                no_load_loss_percent=float(prop(element, "%noloadloss")),
                magnetizing_percent=float(prop(element, "%imag")),
                antifloat_ppm=float(prop(element, "ppm_antifloat")),
                delta_lead=prop(element, "LeadLag").lower() in ("lead", "euro"),
            )
        )
    return tuple(out)


def connection(element, delta):
    """Terminals and connection of a load or capacitor."""
    (_, nodes), *_ = terminals(element)
    n = element.NumPhases
    if not delta:
        return nodes, "wye"
    if n == 1:
        return nodes[:2], "delta"
    return nodes, "delta-open" if n == 2 else "delta"


def port_kv(element, kv, delta):
    """Rated voltage across a port."""
    return kv if delta or element.NumPhases == 1 else kv / np.sqrt(3.0)


def loads(circuit):
    """Every enabled load at its snapshot power."""
    out = []
    for load in circuit.Loads:
        element = circuit.ActiveCktElement
        if not element.Enabled:
            continue
        where, conn = connection(element, load.IsDelta)
        zipv = list(load.ZIPV) if load.Model == 8 else [0, 0, 1, 0, 0, 1, 0]
        factor = 1.0 if prop(element, "status").lower().startswith(("f", "e")) else circuit.Solution.LoadMult
        out.append(
            Load(
                name=load.Name,
                bus=element.BusNames[0].split(".")[0].lower(),
                terminals=where,
                connection=conn,
                p_kw=load.kW * factor,
                q_kvar=load.kvar * factor,
                v_rated_kv=port_kv(element, load.kV, load.IsDelta),
                model=MODELS[load.Model - 1],
                zip_p=tuple(zipv[:3]),
                zip_q=tuple(zipv[3:6]),
                zip_v_cut_pu=zipv[6],
                cvr_p=load.CVRwatts,
                cvr_q=load.CVRvars,
                v_min_pu=load.Vminpu,
                v_max_pu=load.Vmaxpu,
                v_low_pu=float(prop(element, "Vlowpu")),
            )
        )
    return tuple(out)


def capacitors(circuit):
    """Every enabled shunt capacitor."""
    out = []
    for cap in circuit.Capacitors:
        element = circuit.ActiveCktElement
        if not element.Enabled:
            continue
        steps = numbers(prop(element, "kvar"))
        states = list(cap.States)
        where, conn = connection(element, cap.IsDelta)
        if conn == "wye" and element.NumTerminals > 1:
            where = (*where, terminals(element)[1][1][0])
        out.append(
            Capacitor(
                name=cap.Name,
                bus=element.BusNames[0].split(".")[0].lower(),
                terminals=where,
                connection=conn,
                q_kvar=sum(q * s for q, s in zip(steps, states, strict=True)),
                v_rated_kv=port_kv(element, cap.kV, cap.IsDelta),
            )
        )
    return tuple(out)


def sources(circuit):
    """Every voltage source, with the impedance that its matrix has."""
    out = []
    for source in circuit.Vsources:
        element = circuit.ActiveCktElement
        (bus, nodes), *_ = terminals(element)
        n = len(nodes)
        raw = np.asarray(element.Yprim, dtype=float)
        y = (raw[0::2] + 1j * raw[1::2]).reshape(2 * n, 2 * n)[:n, :n]
        z = np.linalg.inv(y)
        circuit.SetActiveBus(bus)
        base = circuit.ActiveBus.kVBase or 1.0
        kv = source.BasekV / (np.sqrt(3.0) if n == 3 else 1.0)
        out.append(
            Source(
                name=source.Name,
                bus=bus,
                conductors=nodes,
                v_pu=source.pu * kv / base,
                angle_deg=tuple(source.AngleDeg - 120.0 * k for k in range(n)),
                r_ohm=z.real,
                x_ohm=z.imag,
            )
        )
    return tuple(out)


def reactors(circuit):
    """Every enabled reactor, as a line (to ground where its second terminal is there)."""
    out = []
    for name in circuit.AllElementNames:
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        if not name.lower().startswith("reactor.") or not element.Enabled:
            continue
        n = element.NumPhases
        (a, ca), (b, cb) = terminals(element)
        raw = np.asarray(element.Yprim, dtype=float)
        z = np.linalg.inv((raw[0::2] + 1j * raw[1::2]).reshape(2 * n, 2 * n)[:n, :n])
        out.append(
            Line(
                name="reactor_" + name.split(".", 1)[1],
                bus_from=a,
                bus_to=b,
                conductors_from=ca,
                conductors_to=cb,
                r_ohm=z.real,
                x_ohm=z.imag,
            )
        )
    return tuple(out)


def generation(circuit):
    """PV systems, generators and storage at the power that the engine solved, as negative constant-power loads."""
    out = []
    for name in circuit.AllElementNames:
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        kind = name.split(".")[0].lower()
        if kind not in ("pvsystem", "generator", "storage") or not element.Enabled:
            continue
        delta = prop(element, "conn").lower().startswith(("d", "l"))
        where, conn = connection(element, delta)
        powers = np.asarray(element.Powers, dtype=float)
        out.append(
            Load(
                name=name.replace(".", "_"),
                bus=element.BusNames[0].split(".")[0].lower(),
                terminals=where,
                connection=conn,
                p_kw=powers[0::2].sum(),
                q_kvar=powers[1::2].sum(),
                v_min_pu=0.0,
                v_max_pu=np.inf,
            )
        )
    return tuple(out)


def case_of(engine):
    """The compiled circuit as a case of one step."""
    circuit = engine.ActiveCircuit
    feeder = Feeder(
        buses=buses(circuit),
        lines=(*lines(circuit), *reactors(circuit)),
        transformers=transformers(circuit),
        frequency_hz=circuit.Solution.Frequency,
    )
    devices = (*sources(circuit), *loads(circuit), *capacitors(circuit), *generation(circuit))
    return Case(name=circuit.Name, feeder=feeder, devices=devices, horizon=Horizon.regular(1))


def engine_voltages(engine, index):
    """The engine's node voltages, V, in the order of an index."""
    circuit = engine.ActiveCircuit
    raw = np.asarray(circuit.YNodeVarray, dtype=float)
    names = [n.lower() for n in circuit.YNodeOrder]
    by_node = dict(zip(names, raw[0::2] + 1j * raw[1::2], strict=True))
    return np.array([by_node[f"{bus}.{c}"] for bus, c in index.nodes])


def foreign(engine):
    """Classes of enabled elements that the mapping leaves out."""
    circuit = engine.ActiveCircuit
    known = ("vsource", "line", "transformer", "load", "capacitor", "reactor", "pvsystem", "generator", "storage")
    known += ("energymeter", "monitor", "regcontrol", "capcontrol", "fuse", "swtcontrol")
    out = set()
    for name in circuit.AllElementNames:
        kind = name.split(".")[0].lower()
        circuit.SetActiveElement(name)
        if kind not in known and circuit.ActiveCktElement.Enabled:
            out.add(kind)
    return out
