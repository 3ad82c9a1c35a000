"""PV systems and storage of an OpenDSS model, as devices that can be scheduled.

What they do at the operating point is in the report (``reference.dispatch``); a PV system's profile is set so that it
offers just that power there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lateral.devices import PV, Battery, Load
from lateral.devices.load import idling_name
from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import SQRT3, Build, Properties, across_kv, number, text
from lateral.io.opendss.map_devices import (
    edge_of_a_third,
    is_a_third,
    live_ports,
    opened,
    rated_as_solved,
    terminals_of,
)
from lateral.io.opendss.map_inverters import InverterControls
from lateral.io.opendss.map_shapes import Shapes, curve_value
from lateral.network.schema import FloatArray

#: How the reactive power of PV systems is read.
InverterQ = Literal["as_filed", "free"]


def map_pv(build: Build, shapes: Shapes, inverter_q: InverterQ, controls: InverterControls) -> None:
    """PV systems: sun times curves, cut to the inverter, by the curves of their control, at the stated power factor, or
    free."""
    for name, properties, element in live_ports(build, "pvsystem"):
        source = f"pvsystem.{name}"
        pmpp, kva, band = number(properties, "pmpp"), number(properties, "kva"), _band(build, properties)
        if element.is_open:
            opened(build, source, element)
            continue
        if _user_model(build, source, properties, min(pmpp, kva)):
            continue
        shape = shapes.name_of("pvsystem", properties)
        panel, curves = _panel(build, properties, shapes.sample(shape) if shape else np.ones(shapes.horizon.n_steps))
        point = float(_panel(build, properties, np.ones(1))[0][0])  # the files' own operating point is a snapshot
        offered = np.minimum(panel, kva)
        rated = min(pmpp, kva)  # the engine's 500 kW stand for a panel that the files do not rate
        law = controls.law(name, properties, element, panel, rated) if inverter_q == "as_filed" else None
        given = build.model.pv_power.get(name)
        limited = given is not None and controls.limits_p(name)
        point = min(point, given[0]) if given is not None and limited else point
        inverter = _Inverter.of(properties, point)
        factor = filed = inverter.factor_at(point)
        (power,) = map(tuple, inverter.gives(np.array([point])).tolist())
        held = abs(filed) < 1.0 and inverter_q == "as_filed"
        if given is not None and name in controls.of:
            power = given
        if shapes.kind == "snapshot" and limited and law is None:
            offered = np.array([power[0]])
        if shapes.kind == "snapshot" and held and power[0] > 0.0 and law is None:
            # at its limit the engine may leave the power factor; here what it does at the operating point is held
            offered = np.array([power[0]])
            factor = power[0] / float(np.hypot(*power)) * (-1.0 if power[1] < 0.0 else 1.0)
        profile = ""
        if np.any(np.abs(offered - rated) > 1e-12 * max(rated, 1.0)) and rated > 0:
            profile = f"pv:{name}"
            shapes.profiles[profile] = offered / rated
        terminals, connection = terminals_of(properties, element)
        kv = across_kv(number(properties, "kv"), element.phases, delta=connection != "wye")
        band, part = _third(build, source, properties, element, band, kv)
        pv = PV(
            name=name,
            bus=element.buses[0],
            terminals=terminals,
            connection=connection,
            p_rated_kw=rated / part,
            s_max_kva=kva,
            profile=profile,
            curtailable=inverter_q == "free",
            power_factor=factor,
            **{"q_control": "free" if inverter_q == "free" else "power_factor" if held else "none", **(law or {})},
            v_rated_kv=kv,
            v_min_pu=band[0],
            v_max_pu=band[1],
        )
        build.devices.append(pv)
        build.mapped(source, pv)
        build.dispatch[pv.label] = power[0] / part, power[1] / part
        if curves:
            build.record(source, "approximated", "IMP-013", f"{curves} taken at the stated irradiance and temperature")
        _note_voltage(build, source, properties, element, pv)
        if law is not None:
            if pv.q_control != "volt_var":  # kvar by its power factor, as without a control
                _note_other_vars(build, source, pv, offered, inverter.gives(panel))
            continue
        ours = min(float(offered[0]) if shapes.kind == "snapshot" else point, kva * abs(filed))
        if abs(power[0] - ours) > 1e-9 * max(kva, 1.0) or abs(factor - filed) > 1e-9:
            said = f"at its limit the engine gives {power[0]:.5g} kW and {power[1]:.5g} kvar, not its power factor"
            build.record(source, "approximated", "IMP-058", said)
        if inverter_q == "as_filed":
            _note_other_vars(build, source, pv, offered, inverter.gives(panel))
            if inverter.first == "p" and point >= kva and shapes.kind != "snapshot":
                said = "at the solved point active power has all of its rating and leaves no room for kvar"
                build.record(source, "approximated", "IMP-069", f"{said}: if the files state some, they are not known")


def _panel(build: Build, properties: Properties, shape: FloatArray) -> tuple[FloatArray, str]:
    """AC power that the sun allows per step, kW, shape (T,), before the inverter's limit, and the curves used."""
    pmpp, kva = number(properties, "pmpp"), number(properties, "kva")
    sun = number(properties, "irradiance", 1.0) * shape
    used = []
    panel = pmpp * sun
    curve = text(properties, "p-tcurve").removeprefix("xycurve.")
    factor = curve_value(build, curve, number(properties, "temperature", 25.0)) if curve else None
    if factor is not None:
        panel = panel * factor
        used.append("temperature curve")
    panel = np.where(panel < number(properties, "%cutout") * kva / 100.0, 0.0, panel)
    curve = text(properties, "effcurve").removeprefix("xycurve.")
    if curve and kva > 0:
        efficiency = [curve_value(build, curve, float(p) / kva) for p in panel]
        if None not in efficiency:
            panel = panel * np.array(efficiency, dtype=float)
            used.append("efficiency curve")
    return np.minimum(panel, pmpp * number(properties, "%pmpp", 100.0) / 100.0), " and ".join(used)


@dataclass(frozen=True)
class _Inverter:
    """How the engine's inverter follows the sun: at a power factor, or with a stated kvar.

    ::

        q = p tan(acos(pf)), or as stated;  |q| <= kvarmax;  beyond the rating the p gives way, unless it has priority

    Attributes:
        kva: rating.
        q_most: what it gives at most, kvar.
        q_least: what it takes at most, kvar.
        factor: power factor, negative where it takes reactive power; None where kvar are stated.
        q_stated: kvar that are stated.
        follows: whether there are none of them in the dark.
        first: what does not give way at the rating: "q", "p", or "factor".
    """

    kva: float
    q_most: float
    q_least: float
    factor: float | None
    q_stated: float
    follows: bool
    first: Literal["q", "p", "factor"]

    @classmethod
    def of(cls, properties: Properties, p: float) -> _Inverter:
        """The inverter of a PV system to which the sun gives p kW at the solved point.

        Files may state both, and what is stated last holds; which one that is the engine does not tell, but the kvar
        that it has after a solution is what the inverter gives there.
        """
        pf, q = number(properties, "pf", 1.0), number(properties, "kvar")
        kva = number(properties, "kva")
        by_factor = cls(
            kva=kva,
            q_most=number(properties, "kvarmax", kva),
            q_least=number(properties, "kvarmaxabs", kva),
            factor=pf,
            q_stated=0.0,
            follows=bool(properties.get("varfollowinverter")),
            first="factor" if properties.get("pfpriority") else "p" if properties.get("wattpriority") else "q",
        )
        if abs(by_factor.gives(np.array([p]))[0, 1] - q) <= 1e-6 * max(kva, 1.0):
            return by_factor
        if by_factor.first == "factor" and kva**2 < p**2 + q**2 and abs(q) < kva:
            q *= p / float(np.sqrt(kva**2 - q**2))  # there they gave way with the p; as stated they are more
        return replace(by_factor, factor=None, q_stated=q)

    def factor_at(self, p: float) -> float:
        """Power factor at p kW, negative where it takes reactive power; 1 where there is none."""
        if self.factor is not None:
            return self.factor if abs(self.factor) < 1.0 else 1.0
        return p / float(np.hypot(p, self.q_stated)) * float(np.sign(self.q_stated)) if p and self.q_stated else 1.0

    def gives(self, panel: FloatArray) -> FloatArray:
        """What it gives, kW and kvar, shape (T, 2), where the sun offers these kW, shape (T,)."""
        if self.factor is not None:
            q = panel * (np.tan(np.arccos(abs(self.factor))) * np.sign(self.factor))
        else:
            q = np.where((panel == 0.0) & self.follows, 0.0, self.q_stated)
        asked, q = q, np.clip(q, -self.q_least, self.q_most)
        if self.first == "factor":  # p and q give way together, to the limit of kvar too
            most = np.where(asked > 0.0, self.q_most, self.q_least)
            share = np.minimum(1.0, most / np.maximum(np.abs(asked), 1e-12))
            share = np.minimum(share, self.kva / np.maximum(np.hypot(panel, asked), 1e-12))
            return np.column_stack([share * panel, share * asked])
        size = np.hypot(panel, q)
        if self.first == "p":
            p = np.minimum(panel, self.kva)
            room = np.sqrt(np.maximum(self.kva**2 - p**2, 0.0))
            return np.column_stack([p, np.where(size > self.kva, np.sign(q) * room, q)])
        q = np.clip(q, -self.kva, self.kva)
        return np.column_stack([np.minimum(panel, np.sqrt(self.kva**2 - q**2)), q])


def _note_other_vars(build: Build, source: str, pv: PV, offered: FloatArray, given: FloatArray) -> None:
    """Say where the engine gives another power than the device, which knows one power factor.

    Args:
        build: what is read so far.
        source: name of the PV system in the files.
        pv: the device.
        offered: what the sun offers it, kW, shape (T,).
        given: what the engine's inverter gives, kW and kvar, shape (T, 2).
    """
    held = pv.power_factor if pv.q_control == "power_factor" else 1.0
    p = np.minimum(offered, pv.s_max_kva * abs(held))
    q = p * np.tan(np.arccos(abs(held))) * np.sign(held) + 0.0  # none is 0, not -0
    off = np.abs(given - np.column_stack([p, q])).max(axis=1)
    k = int(np.argmax(off))
    if off[k] > 1e-6 * max(pv.s_max_kva, 1.0):
        said = f"at step {k} the engine gives {given[k, 0]:.5g} kW and {given[k, 1]:.5g} kvar"
        build.record(source, "approximated", "IMP-069", f"{said}, the case {p[k]:.5g} kW and {q[k]:.5g} kvar")


def map_storage(build: Build, shapes: Shapes) -> None:
    """Storage as batteries; what it does at the operating point is in the report's dispatch."""
    for name, properties, element in live_ports(build, "storage"):
        source = f"storage.{name}"
        rated, kwh = number(properties, "kwrated"), number(properties, "kwhrated")
        state, band = text(properties, "state"), _band(build, properties)
        if element.is_open:
            opened(build, source, element)
            continue
        if _user_model(build, source, properties, rated):
            continue
        terminals, connection = terminals_of(properties, element)
        gives = number(properties, "kw")  # at the solved point; an idle one draws its losses
        draws = rated * number(properties, "%idlingkw") / 100.0 if state.startswith("idl") else -gives
        law = "square" if band == _ALWAYS else "band"
        v_rated = rated_as_solved(build, source, properties, element, draws, band, law)
        band, part = _third(build, source, properties, element, band, v_rated)
        soc = number(properties, "%stored", 100.0) / 100.0
        reserve = number(properties, "%reserve") / 100.0
        most = rated * number(properties, "%kwrated", 100.0) / 100.0
        kva = number(properties, "kva") or rated
        battery = Battery(
            name=name,
            bus=element.buses[0],
            terminals=terminals,
            connection=connection,
            p_charge_max_kw=most,
            p_discharge_max_kw=most,
            s_max_kva=kva,
            energy_kwh=kwh,
            soc_min=min(reserve, soc),
            soc_max=1.0,
            soc_initial=soc,
            eta_charge=min(max(number(properties, "%effcharge", 90.0) / 100.0, 1e-3), 1.0),
            eta_discharge=min(max(number(properties, "%effdischarge", 90.0) / 100.0, 1e-3), 1.0),
            v_rated_kv=v_rated,
            v_min_pu=band[0],
            v_max_pu=band[1],
        )
        build.devices.append(battery)
        build.mapped(source, battery)
        _note_voltage(build, source, properties, element, battery)
        p, q = number(properties, "kw"), number(properties, "kvar")  # those of the solved point
        if state.startswith("idl") and build.as_admittances:
            p = q = 0.0  # the engine has no admittance of an idle one
        elif state.startswith("idl"):
            if draws:
                _idling(build, source, battery, draws / part)
            p = 0.0  # not its kvar: an idle inverter gives those that are stated, or that go with its losses
        if abs(p) > 1e-9 * max(rated, 1.0) or abs(q) > 1e-9 * max(rated, 1.0):
            does = f"{'discharges' if p >= 0.0 else 'charges'} {abs(p):g} kW" if p else f"gives {q:g} kvar while idle"
            said = f"{does} at the engine's solution; its schedule is a decision here, and in the power flow it is idle"
            build.record(source, "approximated", "IMP-068", said)
        if text(properties, "effcurve"):
            said = "its inverter's efficiency curve is left out of the energy balance"
            build.record(source, "approximated", "IMP-013", said)
        gives, takes = number(properties, "kvarmax", kva), number(properties, "kvarmaxabs", kva)
        if min(gives, takes) < kva:
            said = f"its limits of {gives:g} and {takes:g} kvar are left out: its kvar are within its kVA alone"
            build.record(source, "approximated", "IMP-018", said)
        if soc < reserve:
            build.record(source, "approximated", "IMP-018", "it holds less than its reserve; the reserve is lowered")
        build.dispatch[battery.label] = p / part, q / part


def _idling(build: Build, source: str, battery: Battery, p: float) -> None:
    """The losses of an idle battery, kW, as a load; its kvar are the inverter's."""
    load = Load(
        name=idling_name(battery.name),
        bus=battery.bus,
        terminals=battery.terminals,
        connection=battery.connection,
        p_kw=p,
        v_rated_kv=battery.v_rated_kv,
        v_min_pu=battery.v_min_pu,
        v_max_pu=battery.v_max_pu,
    )
    build.devices.append(load)
    build.mapped(source, load)
    build.record(source, "approximated", "IMP-012", f"idling losses of {p:g} kW are a load of their own, always on")


#: Band within which an inverter is never an impedance, and one in which it always is that of its rated voltage.
_NEVER, _ALWAYS = (0.1, 2.0), (1.0, 1.0)
_IMPEDANCE, _USER = 2, 3  # models


def _band(build: Build, properties: Properties) -> tuple[float, float]:
    """Voltages outside of which the engine takes the inverter as an impedance."""
    if build.as_admittances or int(number(properties, "model", 1)) == _IMPEDANCE:
        return _ALWAYS
    low, high = max(number(properties, "vminpu", 0.9), 0.0), number(properties, "vmaxpu", 1.1) or 1.1
    return low, _NEVER[1] if properties.get("limitcurrent") else high


def _third(
    build: Build, source: str, properties: Properties, element: ElementData, band: tuple[float, float], kv: float
) -> tuple[tuple[float, float], float]:
    """Band of an inverter, and by what its power is divided: of one phase in delta the engine takes a third of an
    impedance, as of one of three phases."""
    if band != _ALWAYS and properties.get("limitcurrent"):  # no impedance at any voltage
        return band, 1.0
    if band != _ALWAYS:
        edge = edge_of_a_third(build, source, properties, element, band, kv)
        return (_ALWAYS, 3.0 * edge**2) if edge else (band, 1.0)
    if not is_a_third(properties, element):
        return band, 1.0
    said = "as an impedance of one phase in delta the engine takes a third of it, and so does the case"
    build.record(source, "approximated", "IMP-011", said)
    return band, 3.0


def _user_model(build: Build, source: str, properties: Properties, kw: float) -> bool:
    """Whether an inverter has a user-written model, so that it gives nothing; said in the report."""
    if int(number(properties, "model", 1)) != _USER:
        return False
    why = "a user-written model (3), which is not loaded: it gives nothing, in the engine and here"
    build.record(source, "approximated", "IMP-011", f"{why}; give it another model", lost_kw=kw)
    return True


def _decides(pv: PV) -> bool:
    """Whether anything of a PV system is decided or follows the voltage, so that programs have no impedance of it."""
    return pv.curtailable or pv.follows_p or pv.q_control not in ("none", "power_factor")


def _note_voltage(
    build: Build, source: str, properties: Properties, element: ElementData, device: PV | Battery
) -> None:
    """Say where the power of an inverter does not follow the voltage here as it does in the engine."""
    band = device.v_min_pu, device.v_max_pu
    if properties.get("limitcurrent") and band != _ALWAYS and build.model.reference is not None:
        bus, kv = element.buses[0], 1e3 * float(device.v_rated_kv or 1.0)
        u = min(abs(build.voltage(bus, a) - build.voltage(bus, b)) / kv for a, b in device.ports)
        u /= SQRT3 if is_a_third(properties, element) else 1.0  # the engine takes any delta for three phases here
        if u < band[0]:
            said = (
                f"at {u:.3g} pu, below its {band[0]:g} pu, the engine limits its current; here it is an impedance there"
            )
            build.record(source, "approximated", "IMP-011", said)
    decides = isinstance(device, Battery) or _decides(device)
    if decides and band == _ALWAYS and not build.as_admittances:
        said = "an impedance in the power flow, as in the engine; where it is scheduled it is constant power"
        build.record(source, "approximated", "IMP-011", said)
    if properties.get("balanced") and element.phases == 3:
        drawn = build.drawn(element, device.ports)
        apart = 0.0 if drawn is None else float(np.abs(drawn - drawn.mean()).max())
        if apart > 1e-6 * max(device.s_max_kva or 0.0, 1.0):
            said = f"the engine balances its currents (Balanced=yes), the case its powers: {apart:.4g} kVA apart"
            build.record(source, "approximated", "IMP-011", f"{said} in a phase at the solved point")


__all__ = ["InverterQ", "map_pv", "map_storage"]
