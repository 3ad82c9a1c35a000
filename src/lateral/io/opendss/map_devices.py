"""Sources, loads and capacitors of an OpenDSS model, as devices at the solved point."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from lateral.devices import Capacitor, Load, Regulator, Source
from lateral.devices.load import FIXED_Q, MODELS
from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import SQRT3, Build, Properties, across_kv, number, numbers, reduce_to_nodes, text
from lateral.io.opendss.map_generic import generic
from lateral.io.opendss.map_shapes import Shapes
from lateral.io.opendss.map_wires import two_terminal
from lateral.network.schema import Terminals, ports_of

#: Share of the power that two ways to it may differ by to be one: far above where a solution ends.
_AS_SOLVED = 1e-5


def is_delta(properties: Properties) -> bool:
    """Whether an element is connected in delta (line to line)."""
    return text(properties, "conn") in ("delta", "ll", "d")


def terminals_of(properties: Properties, element: ElementData) -> tuple[Terminals, str]:
    """Conductors of a load-like element, and its connection."""
    nodes = tuple(element.nodes[0])
    if not is_delta(properties):
        return nodes, "wye"
    if element.phases == 3:
        return nodes[:3], "delta"
    return nodes[: element.phases + 1], "delta-open" if element.phases == 2 else "delta"


def live_ports(build: Build, cls: str) -> Iterator[tuple[str, Properties, ElementData]]:
    """As `Build.live`, of a class of load-like elements, without those of which a port has both of its ends on ground.

    Nothing flows there, in the engine too: where all ports are so the element does nothing, and is left out.
    """
    for name, properties, element in build.live(cls):
        ports = ports_of(*terminals_of(properties, element))
        shorted = [not any(port) for port in ports]
        if all(shorted):
            said = "both of its ends are on ground, so that it does nothing"
            build.record(f"{cls}.{name}", "ignored", "IMP-059", said)
        elif any(shorted):
            said = f"{sum(shorted)} of its {len(ports)} phases have both ends on ground; all of it is left out"
            build.record(f"{cls}.{name}", "ignored", "IMP-040", said, lost_kw=abs(number(properties, "kw")))
        else:
            yield name, properties, element


def map_sources(build: Build, base_kv: dict[str, float]) -> None:
    """Voltage sources, with the impedance matrix that the engine uses."""
    for name, properties, element in build.live("vsource"):
        n = element.phases
        source = f"vsource.{name}"
        bus = element.buses[0]
        if any(element.nodes[1]) or 0 in element.nodes[0]:
            build.record(source, "ignored", "IMP-040", "a voltage source between two buses")
            continue
        kv = number(properties, "basekv") * number(properties, "pu", 1.0)
        magnitude = kv if n == 1 else kv / (2.0 * np.sin(np.pi / n))
        turn = {"negative": 1.0, "zero": 0.0}.get(text(properties, "sequence"), -1.0)
        angles = tuple(number(properties, "angle") + turn * 360.0 / n * k for k in range(n))
        z = np.zeros((n, n), dtype=complex)
        if element.yprim is not None:
            z = np.linalg.inv(element.yprim[:n, :n])
        made = Source(
            name=name,
            bus=bus,
            conductors=element.nodes[0],
            v_pu=magnitude / base_kv[bus],
            angle_deg=angles,
            r_ohm=z.real,
            x_ohm=z.imag,
        )
        build.devices.append(made)
        build.mapped(source, made)
        lowest = float(np.linalg.eigvalsh(0.5 * (z.real + z.real.T))[0])
        if lowest < -0.01 * float(np.abs(z.real).max()) - 1e-12:
            said = f"{source}: a resistance matrix with the eigenvalue {lowest:.6g} ohm"
            build.note("IMP-073", said, build.model.where(source))
        if build.model.reference is not None and not any(build.voltage(bus, node) for node in element.nodes[0]):
            own, hz = number(properties, "frequency"), build.model.base_frequency_hz
            said = f"{source} of {own:g} Hz gives no voltage in the engine's solution at {hz:g} Hz"
            build.note("IMP-057", said, build.model.where(source))
        for key in ("yearly", "daily", "duty"):
            if text(properties, key):
                build.record(source, "approximated", "IMP-019", f"its {key} shape is not followed; pu is constant")
    for name, _, _ in build.live("isource"):
        build.record(f"isource.{name}", "ignored", "IMP-040", "current sources have no counterpart")


def map_loads(build: Build, shapes: Shapes) -> None:
    """Loads, times the load multiplier of the files."""
    multiplier = float(build.model.stated["load_mult"])
    if build.as_admittances and any(map(build.model.objects, ("load", "generator", "pvsystem", "storage"))):
        said = (
            "LoadModel=Admittance or mode Direct: every load, generator, PV system and storage is a constant impedance"
        )
        build.note("IMP-054", said)
    if (build.setting("year") or 0.0) > 0.0 and build.model.objects("load"):
        build.note("IMP-062", "the files set a year; growth of the loads until then is left out")
    for name, properties, element in live_ports(build, "load"):
        source = f"load.{name}"
        if element.is_open:
            opened(build, source, element)
            continue
        status = text(properties, "status")
        factor = 1.0 if status in ("fixed", "exempt") else multiplier
        number_of_model = int(number(properties, "model", 1))
        model = MODELS[number_of_model - 1] if 1 <= number_of_model <= len(MODELS) else MODELS[0]
        if build.as_admittances:
            model = "constant_impedance"
        terminals, connection = terminals_of(properties, element)
        kw, kvar, profile, profile_q = load_power("load", properties, shapes, factor, model, follow=status != "fixed")
        zipv = numbers(properties, "zipv")
        zip_kwargs = (0.0, 0.0, 1.0), (0.0, 0.0, 1.0), 0.0
        if model == "zip" and len(zipv) >= 6:
            z, q = tuple(zipv[:3]), tuple(zipv[3:6])
            zip_kwargs = (z[0], z[1], z[2]), (q[0], q[1], q[2]), max(zipv[6], 0.0) if len(zipv) > 6 else 0.0
        load = Load(
            name=name,
            bus=element.buses[0],
            terminals=terminals,
            connection=connection,
            p_kw=kw,
            q_kvar=kvar,
            profile=profile,
            profile_q=profile_q,
            v_rated_kv=across_kv(number(properties, "kv"), element.phases, delta=connection != "wye"),
            model=model,
            zip_p=zip_kwargs[0],
            zip_q=zip_kwargs[1],
            zip_v_cut_pu=zip_kwargs[2],
            cvr_p=number(properties, "cvrwatts", 1.0),
            cvr_q=number(properties, "cvrvars", 2.0),
            v_min_pu=max(number(properties, "vminpu", 0.95), 0.0),
            v_max_pu=number(properties, "vmaxpu", 1.05) or 1.05,
            v_low_pu=max(number(properties, "vlowpu", 0.5), 0.0),
        )
        build.devices.append(load)
        build.mapped(source, load)
        if not 1 <= number_of_model <= len(MODELS):
            build.record(source, "approximated", "IMP-018", f"model {number_of_model} taken as constant power")
        if text(properties, "cvrcurve"):
            build.record(source, "approximated", "IMP-018", "its CVR curve is not followed over time")
        if number(properties, "rneut", -1.0) >= 0.0 and connection == "wye" and terminals[-1] > 0:
            build.record(source, "approximated", "IMP-018", "its neutral impedance to ground is left out")


def opened(build: Build, source: str, element: ElementData) -> None:
    """A load, PV system or storage with open conductors: to the engine a constant admittance, whatever its model."""
    what = "open conductors, with which the engine takes it for a constant admittance, whatever its model and shape"
    if generic(build, source, source.replace(".", "_", 1), element, what) is not None:
        build.record(source, "approximated", "IMP-014")


def load_power(
    cls: str, properties: Properties, shapes: Shapes, factor: float, model: str, *, follow: bool
) -> tuple[float, float, str, str]:
    """kW and kvar of a load or generator, and the profiles that multiply them.

    A fixed kvar is neither scaled by the engine's multipliers nor by a shape, whatever the shape holds.
    """
    kw, kvar, profile, profile_q = shapes.apply(cls, properties, follow=follow, factor=factor)
    if model in FIXED_Q:
        return kw, number(properties, "kvar"), profile, ""
    return kw, kvar, profile, profile_q


def is_a_third(properties: Properties, element: ElementData) -> bool:
    """Whether a generator or inverter is of one phase in delta, where the engine takes a third of an impedance."""
    return element.phases == 1 and is_delta(properties)


def rated_as_solved(
    build: Build,
    source: str,
    properties: Properties,
    element: ElementData,
    kw: float,
    band: tuple[float, float],
    law: str,
) -> float:
    """Rated voltage across a port of a generator or storage, kV: the one that the engine's solution shows.

    Where the files state the phases after the kV the engine keeps the kV as those of the phases before, a factor of
    sqrt(3). Said in the report.

    Args:
        build: the model on its way.
        source: ``class.name`` of the element.
        properties: of it.
        element: where it is connected.
        kw: what it draws at rated voltage, all phases.
        band: edges of its band, pu.
        law: how its active power follows the voltage u: ``band``, constant within the band and an impedance outside;
            ``square``, an impedance; ``limited``, constant down to the lower edge and proportional to u under it.
    """
    terminals, connection = terminals_of(properties, element)
    stated = across_kv(number(properties, "kv"), element.phases, delta=connection != "wye")
    ports = ports_of(terminals, connection)
    drawn = build.drawn(element, ports)
    if drawn is None or not kw:
        return stated
    volts = [abs(build.voltage(element.buses[0], a) - build.voltage(element.buses[0], b)) for a, b in ports]
    part = 3.0 if is_a_third(properties, element) else 1.0
    for kv in (stated, stated * SQRT3 if element.phases > 1 else stated / SQRT3):
        u = np.array(volts) / (1e3 * kv)
        low, high = max(band[0], 1e-9), band[1]
        if law == "square":
            factor = u**2 / part
        elif law == "limited":
            factor = np.minimum(u / low, 1.0)
        else:
            edge = np.where(u <= low, low, np.where(u > high, high, np.inf))
            factor = np.where(np.isinf(edge), 1.0, (u / edge) ** 2 / part)
        if abs(kw * float(factor.mean()) - float(drawn.sum().real)) <= _AS_SOLVED * abs(kw):
            break
    else:
        return stated
    if kv != stated:
        said = (
            f"its phases stand after its kV in the files, so that the engine takes {kv:.6g} kV for rated across a port"
        )
        build.record(source, "approximated", "IMP-011", f"{said}, and so does the case; state them before")
    return kv


def edge_of_a_third(
    build: Build, source: str, properties: Properties, element: ElementData, band: tuple[float, float], kv: float
) -> float:
    """The edge of its band beyond which a generator or inverter of one phase in delta is at the solved point, pu; 0 if
    it is none or within.

    The engine makes an impedance of it there and divides it, as that of any delta, by three phases. The case has this
    impedance at any voltage; said in the report.
    """
    if build.model.reference is None or not is_a_third(properties, element):
        return 0.0
    first, second = (build.voltage(element.buses[0], node) for node in element.nodes[0][:2])
    across = abs(first - second) / (1e3 * kv)
    edge = band[0] if across <= band[0] else band[1] if across > band[1] else 0.0
    if edge:
        said = f"at {across:.3g} pu it is outside its voltage band, where the engine gives a third of it"
        build.record(source, "approximated", "IMP-011", f"{said}; so does the case, at any voltage")
    return edge


def record_unsupported(build: Build) -> None:
    """Classes that have no counterpart."""
    for cls, why in (
        ("indmach012", "induction machines"),
        ("vccs", "voltage-controlled current sources"),
        ("vsconverter", "converters"),
        ("upfc", "power-flow controllers"),
        ("gicsource", "geomagnetic sources"),
    ):
        for name, properties, _ in build.live(cls):
            kw = abs(number(properties, "kw"))
            build.record(f"{cls}.{name}", "ignored", "IMP-040", f"{why} have no counterpart", lost_kw=kw)


# ------------------------------------------------------------------------------------------- capacitors, controls


def map_capacitors(build: Build) -> None:
    """Capacitors: shunt ones are devices, series ones are lines; others restated by their admittance."""
    controls = {text(c, "capacitor"): text(c, "type") for c in build.model.objects("capcontrol") if c.get("enabled")}
    for name, properties, element in build.live("capacitor"):
        source = f"capacitor.{name}"
        steps = numbers(properties, "kvar")
        states = numbers(properties, "states") or [1.0] * len(steps)
        on = sum(q for q, s in zip(steps, states, strict=False) if s)
        ports = _capacitor_ports(properties, element)
        if ports is None or element.is_open:
            if element.yprim is None or on == 0.0:
                build.record(source, "ignored", "IMP-014", "no step of it is on")
                continue
            two_terminal(build, "capacitor", name, properties, element)
            continue
        terminals, connection = ports
        capacitor = Capacitor(
            name=name,
            bus=element.buses[0],
            terminals=terminals,
            connection=connection,
            q_kvar=max(on, 0.0),
            q_total_kvar=max(sum(steps), on, 0.0),
            v_rated_kv=across_kv(number(properties, "kv"), element.phases, delta=connection != "wye"),
            control=controls.get(name, ""),
        )
        q = _engine_kvar(capacitor, element)
        if q is None:
            two_terminal(build, "capacitor", name, properties, element)
            build.record(source, "approximated", "IMP-004", "its own R, XL or matrix: a shunt that cannot be switched")
            continue
        if abs(q - capacitor.q_kvar) > 1e-5 * max(capacitor.q_kvar, 1.0):
            said = f"the engine takes {q:.6g} kvar for the steps that are on, not the stated {capacitor.q_kvar:.6g}"
            total = max(capacitor.q_total_kvar or 0.0, q)
            capacitor = dataclasses.replace(capacitor, q_kvar=q, q_total_kvar=total)
            build.devices.append(capacitor)
            build.mapped(source, capacitor, code="IMP-061", reason=said)
            continue
        build.devices.append(capacitor)
        build.mapped(source, capacitor)


def _capacitor_ports(properties: Properties, element: ElementData) -> tuple[Terminals, str] | None:
    """Terminals of a shunt capacitor; None for one in series or between odd conductors."""
    first = element.nodes[0]
    if len(element.nodes) == 1 or is_delta(properties):
        if element.phases == 3:
            return first[:3], "delta"
        return first[: element.phases + 1], "delta-open" if element.phases == 2 else "delta"
    second = element.nodes[1]
    if any(second) and element.buses[1] != element.buses[0]:
        return None
    if len(set(second)) != 1 or 0 in first:
        return None
    return (*first, second[0]), "wye"


def _engine_kvar(capacitor: Capacitor, element: ElementData) -> float | None:
    """What the engine's admittance gives at rated voltage, kvar; None when it is not that of a plain capacitor."""
    if element.yprim is None:
        return capacitor.q_kvar
    ends, y = reduce_to_nodes(element, element.yprim)
    at = {node: k for k, (_, node) in enumerate(ends)}
    one = np.zeros(y.shape, dtype=complex)  # the admittance for 1 kvar
    for pair in capacitor.ports:
        m = np.zeros(len(ends))
        for conductor, sign in zip(pair, (1.0, -1.0), strict=True):
            if conductor > 0:
                m[at[conductor]] += sign
        one += 1e-3j / (len(capacitor.ports) * (capacitor.v_rated_kv or 1.0) ** 2) * np.outer(m, m)
    q = float(y.imag.max() / one.imag.max())
    # the engine raises the diagonal of a delta by a few parts per million
    return q if np.abs(one * q - y).max() <= 1e-5 * max(np.abs(y).max(), 1e-12) else None


def map_regulators(build: Build) -> None:
    """Regulator controls: data of the control; the tap is that of the solved point."""
    by_name = {t.name: t for t in build.transformers}
    for properties in build.model.objects("regcontrol"):
        name = str(properties["name"]).lower()
        source = f"regcontrol.{name}"
        transformer = by_name.get(text(properties, "transformer"))
        if not properties.get("enabled", True):
            build.record(source, "ignored", "IMP-020", "disabled in the files")
            continue
        if transformer is None:
            what = text(properties, "transformer").rpartition(".")[2]
            held = [e for e in build.admittances if e.name == f"transformer_{what}"]
            if held:
                said = f"the tap is inside {held[0].label} as at the solved point, held; no regulator of the case"
                build.record(source, "mapped", "IMP-002", said, (held[0].label,))
            else:
                build.record(source, "ignored", "IMP-030", "its transformer is not in the case")
            continue
        k = int(number(properties, "tapwinding", 2)) or int(number(properties, "winding", 2))
        data = next(t for t in build.model.objects("transformer") if str(t["name"]).lower() == transformer.name)
        low, high, count = numbers(data, "mintap"), numbers(data, "maxtap"), numbers(data, "numtaps")
        regulator = Regulator(
            name=name,
            transformer=transformer.name,
            winding=k,
            v_set=number(properties, "vreg", 120.0),
            band=number(properties, "band", 2.0),
            pt_ratio=number(properties, "ptratio", 60.0),
            ct_primary_a=number(properties, "ctprim", 300.0),
            ldc_r=number(properties, "r"),
            ldc_x=number(properties, "x"),
            tap_min=low[k - 1] if k <= len(low) else 0.9,
            tap_max=high[k - 1] if k <= len(high) else 1.1,
            n_steps=int(count[k - 1]) if k <= len(count) else 32,
        )
        build.devices.append(regulator)
        tap = transformer.windings[k - 1].tap
        reason = f"tap {tap:.6g} of winding {k} as at the solved point, held"
        build.mapped(source, regulator, code="IMP-002", reason=reason)


__all__ = [
    "edge_of_a_third",
    "is_a_third",
    "is_delta",
    "live_ports",
    "map_capacitors",
    "load_power",
    "map_loads",
    "map_regulators",
    "map_sources",
    "opened",
    "rated_as_solved",
    "record_unsupported",
    "terminals_of",
]
