"""Sources, loads, generators and capacitors of an OpenDSS model, as devices at the solved point."""

from __future__ import annotations

import dataclasses

import numpy as np

from lateral.devices import Capacitor, Load, Regulator, Source
from lateral.devices.load import FIXED_Q, MODELS
from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import Build, Properties, across_kv, number, numbers, reduce_to_nodes, text
from lateral.io.opendss.map_generic import generic
from lateral.io.opendss.map_shapes import Shapes
from lateral.io.opendss.map_wires import two_terminal
from lateral.network.schema import Terminals

#: Price of the engine where the files set none.
_PRICE = 25.0
_ADMITTANCE_MODEL = 2  # LoadModel=Admittance


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
    as_admittance = int(build.model.stated["load_model"]) == _ADMITTANCE_MODEL
    if as_admittance and build.model.objects("load"):
        build.note("IMP-054", "LoadModel=Admittance: every load is a constant impedance")
    if (build.setting("year") or 0.0) > 0.0 and build.model.objects("load"):
        build.note("IMP-062", "the files set a year; growth of the loads until then is left out")
    for name, properties, element in build.live("load"):
        source = f"load.{name}"
        if element.is_open:
            _opened(build, source, name, element)
            continue
        status = text(properties, "status")
        factor = 1.0 if status in ("fixed", "exempt") else multiplier
        number_of_model = int(number(properties, "model", 1))
        model = MODELS[number_of_model - 1] if 1 <= number_of_model <= len(MODELS) else MODELS[0]
        if as_admittance:
            model = "constant_impedance"
        terminals, connection = terminals_of(properties, element)
        kw, kvar, profile, profile_q = _power("load", properties, shapes, factor, model, follow=status != "fixed")
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


def _opened(build: Build, source: str, name: str, element: ElementData) -> None:
    """A load with open conductors: in the engine a constant admittance, whatever its model says."""
    what = "open conductors, with which the engine takes it for a constant admittance, whatever its model and shape"
    if generic(build, source, f"load_{name}", element, what) is not None:
        build.record(source, "approximated", "IMP-014")


def _power(
    cls: str, properties: Properties, shapes: Shapes, factor: float, model: str, *, follow: bool
) -> tuple[float, float, str, str]:
    """kW and kvar of a load or generator, and the profiles that multiply them.

    A fixed kvar is neither scaled by the engine's multipliers nor by a shape, whatever the shape holds.
    """
    kw, kvar, profile, profile_q = shapes.apply(cls, properties, follow=follow, factor=factor)
    if model in FIXED_Q:
        return kw, number(properties, "kvar"), profile, ""
    return kw, kvar, profile, profile_q


def _dispatched(build: Build, properties: Properties) -> float | None:
    """Whether a generator that is dispatched by the level of load or by the price is on (1) or off (0) at the solved
    point; None of one that always is."""
    level, mode = number(properties, "dispvalue"), text(properties, "dispmode")
    if mode not in ("loadlevel", "price") or properties.get("forceon"):
        return None
    price = build.setting("pricesignal")
    now = float(build.model.stated["load_mult"]) if mode == "loadlevel" else _PRICE if price is None else price
    return 0.0 if level > 0.0 and now < level else 1.0


def say_a_third(
    build: Build, source: str, properties: Properties, element: ElementData, band: tuple[float, float]
) -> None:
    """Record that a generator or inverter of one phase in delta is outside its voltage band at the solved point.

    The engine makes an impedance of it there and divides it, as that of any delta, by three phases; the case does not.
    """
    if build.model.reference is None or element.phases != 1 or not is_delta(properties):
        return
    first, second = (build.voltage(element.buses[0], node) for node in element.nodes[0][:2])
    across = abs(first - second) / (1e3 * number(properties, "kv"))
    if not band[0] <= across <= band[1]:
        said = f"at {across:.3g} pu it is outside its voltage band, where the engine gives a third of it"
        build.record(source, "approximated", "IMP-011", said)


def map_generators(build: Build, shapes: Shapes) -> None:
    """Generators as loads of negative power: exact for model 1."""
    stated = build.setting("genmult")
    multiplier = 1.0 if stated is None else stated
    for name, properties, element in build.live("generator"):
        number_of_model = int(number(properties, "model", 1))
        terminals, connection = terminals_of(properties, element)
        fixed = text(properties, "status") == "fixed"
        factor = 1.0 if fixed else multiplier
        models = {2: "constant_impedance", 4: "constant_power_fixed_q", 5: "constant_power_fixed_q_impedance"}
        model = models.get(number_of_model, "constant_power")
        kw, kvar, profile, profile_q = _power("generator", properties, shapes, factor, model, follow=not fixed)
        if element.phases == 1 and connection != "wye":  # the engine divides the admittance of any delta by three
            if model == "constant_impedance":
                kw, kvar = kw / 3.0, kvar / 3.0
            elif model == "constant_power_fixed_q_impedance":
                kvar /= 3.0
        mode = _dispatched(build, properties)
        if mode is not None and shapes.kind == "snapshot":
            kw, kvar = mode * kw, mode * kvar
        load = Load(
            name=f"generator_{name}",
            bus=element.buses[0],
            terminals=terminals,
            connection=connection,
            p_kw=-kw,
            q_kvar=-kvar,
            profile=profile,
            profile_q=profile_q,
            v_rated_kv=across_kv(number(properties, "kv"), element.phases, delta=connection != "wye"),
            model=model,
            v_min_pu=max(number(properties, "vminpu", 0.9), 0.0),
            v_max_pu=number(properties, "vmaxpu", 1.1) or 1.1,
            v_low_pu=0.0,
        )
        build.devices.append(load)
        build.mapped(f"generator.{name}", load)
        if model != "constant_impedance":
            say_a_third(build, f"generator.{name}", properties, element, (load.v_min_pu, load.v_max_pu))
        if number_of_model in (1, 2, 4, 5):
            reason = "a load of negative power: it cannot be controlled"
            build.record(f"generator.{name}", "approximated", "IMP-010", reason)
        else:
            reason = f"generator model {number_of_model} taken as {load.model} at its stated kW and kvar"
            build.record(f"generator.{name}", "approximated", "IMP-011", reason)
        if mode is not None:
            how = f"dispatched by {text(properties, 'dispmode')}"
            now = "on" if mode else "off, so it gives nothing"
            said = now if shapes.kind == "snapshot" else "not followed over time"
            build.record(f"generator.{name}", "approximated", "IMP-011", f"{how}: {said}")
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
    "is_delta",
    "map_capacitors",
    "map_generators",
    "map_loads",
    "map_regulators",
    "map_sources",
    "say_a_third",
    "terminals_of",
]
