"""Inverter controls of an OpenDSS model (``InvControl``): volt-var and volt-watt as laws of PV systems.

The engine's control goes to a point at which, with u the mean of the phase voltages to ground per unit of the rated
one,

    Q = f(u) sqrt(kVA^2 - P^2)         RefReactivePower=VARAVAL; no more than kvarMax, kvarMaxAbs
    Q = f(u) kvarMax                   VARMAX; P gives way to it beyond kVA, or it to P with WattPriority
    P = min(sun, g(u) P_base)          P_base by VoltwattYAxis

with straight lines between the points of the curves and beyond them, f within -1 ... 1 and g within 0 ... 1. What has
no counterpart in `lateral.devices.PV` is held where the solved point has it, and the report says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import Build, Properties, number, numbers, text
from lateral.network.schema import FloatArray

#: How far a curve is followed beyond its points, pu of voltage.
LOWEST_PU, HIGHEST_PU = 0.1, 3.0
#: Least distance of two points of a curve of a PV system, pu.
APART_PU = 1e-3
#: Modes that have a counterpart: whether reactive, whether active power follows.
_MODES = {"voltvar": (True, False), "voltwatt": (False, True), "vv_vw": (True, True)}

Fields = Mapping[str, Any]


class _HeldError(Exception):
    """A control that has no counterpart; its text says why."""


def _hold(why: str) -> NoReturn:
    """Say that a control has no counterpart."""
    raise _HeldError(why)


@dataclass(eq=False)
class InverterControls:
    """Which control each PV system has, and what became of it.

    Attributes:
        build: what is read so far.
        of: the controls of each PV system, by name; a control that is off is none.
        laws: PV systems whose law is in the case, by name of the control.
        held: PV systems that are held, and why, by name of the control.
        restless: PV systems for which the engine's control has no point to come to rest at, by name of the control.
    """

    build: Build
    of: dict[str, list[Properties]] = field(default_factory=dict)
    laws: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)
    restless: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, build: Build) -> InverterControls:
        """The controls of a model; none where the files switch all controls off."""
        out = cls(build)
        if int(build.model.stated.get("control_mode", 0)) == -1:
            return out
        every = [name for name, _, _ in build.live("pvsystem")]
        for control in build.model.objects("invcontrol"):
            if not control.get("enabled", True):
                continue
            listed = [str(d).lower() for d in control.get("derlist") or ()]
            names = [d.removeprefix("pvsystem.") for d in listed if d.startswith("pvsystem.")]
            for name in names if listed else every:
                out.of.setdefault(name, []).append(control)
        return out

    def limits_p(self, name: str) -> bool:
        """Whether a control may limit the active power of a PV system at the solved point."""
        return any(_MODES.get(_mode(c), (False, False))[1] for c in self.of.get(name, ()))

    def law(
        self, name: str, properties: Properties, element: ElementData, panel: FloatArray, rated_kw: float
    ) -> Fields | None:
        """Fields of the PV system that follows its control; None where it has none, or one that is held.

        Args:
            name: name of the PV system.
            properties: of it.
            element: where it is connected.
            panel: AC power that the sun allows per step, kW, shape (T,).
            rated_kw: what volt_watt of the device is per unit of, kW.
        """
        controls = self.of.get(name, [])
        if not controls:
            return None
        names = [str(c["name"]).lower() for c in controls]
        try:
            if len(controls) > 1:
                _hold("it has more than one control")
            out = _fields(self.build, controls[0], properties, element, rated_kw)
        except _HeldError as error:
            for control in names:
                self.held.setdefault(control, []).append(f"pvsystem.{name} is held: {error}")
            return None
        self.laws.setdefault(names[0], []).append(f"pv.{name}")
        if out.get("volt_var_reference") == "available" and np.any(panel >= number(properties, "kva")):
            self.restless.setdefault(names[0], []).append(f"pv.{name}")
        return out

    def record(self, name: str, otherwise: str, code: str, outcome: str) -> None:
        """Say what became of a control.

        Args:
            name: name of the control.
            otherwise: what is said where nothing of it is in the case.
            code, outcome: code and outcome of that.
        """
        source, laws, held = f"invcontrol.{name}", self.laws.get(name, []), self.held.get(name, [])
        if not laws:
            self.build.record(source, outcome, code, "; ".join([otherwise, *held]))
            return
        if held:
            self.build.record(source, "approximated", "IMP-069", "; ".join(held), tuple(laws))
        self.build.record(source, "mapped", "IMP-070", f"the law of {', '.join(laws)}", tuple(laws))
        if self.restless.get(name):
            some = ", ".join(self.restless[name])
            why = f"where the sun offers {some} all of the rating the engine's control has no rest; no kvar there"
            self.build.record(source, "approximated", "IMP-070", why)


def _mode(control: Properties) -> str:
    """The mode of a control, lower case; empty where the engine does not act by it."""
    mode, combined = text(control, "mode"), text(control, "combimode")
    if combined and mode:
        return ""
    return combined or mode


def _fields(build: Build, control: Properties, pv: Properties, element: ElementData, rated_kw: float) -> Fields:
    """The law of one PV system as its fields."""
    mode = _mode(control)
    if mode not in _MODES:
        _hold(f"mode {text(control, 'combimode') or text(control, 'mode') or 'none'} has no counterpart")
    reactive, active = _MODES[mode]
    kva = number(pv, "kva")
    if kva <= 0.0:
        _hold("it has no rating")
    out = _voltage(control, pv, element)
    if reactive:
        out |= _volt_var(build, control, pv)
    if active:
        out |= _volt_watt(build, control, pv, rated_kw)
        if not reactive and _states_kvar(pv):
            _hold("it gives kvar that the files state, whatever its active power is")
    return out


def _voltage(control: Properties, pv: Properties, element: ElementData) -> dict[str, Any]:
    """The voltage that curves are read at: the mean of the phases to ground, per unit of the rated one."""
    if text(control, "voltage_curvex_ref") not in ("", "rated"):
        _hold("its curve is of a voltage relative to the one before")
    if control.get("monbus"):
        _hold("it looks at the voltage of other buses")
    if text(control, "rateofchangemode") not in ("", "inactive"):
        _hold("it follows its curve with a delay")
    if text(pv, "controlmode") not in ("", "gfl"):
        _hold("it forms the grid")
    which = text(control, "monvoltagecalc")
    if which not in ("", "avg") and not (element.phases == 1 and which in ("max", "min", "1")):
        _hold(f"it looks at the {which} of its phases")
    delta = text(pv, "conn").startswith(("d", "ll"))
    if delta and element.phases != 3:
        _hold("it is between two phases and looks at the voltage of one")
    own = element.phases == 1 and not delta and element.nodes[0][-1] == 0
    return {"curve_voltage": "port" if own else "mean"}


def _volt_var(build: Build, control: Properties, pv: Properties) -> dict[str, Any]:
    """Fields of volt-var."""
    if number(control, "hysteresis_offset") != 0.0:
        _hold("its curve has a hysteresis")
    if number(pv, "%pminnovars") > 0.0 or number(pv, "%pminkvarmax") > 0.0:
        _hold("its kvar depend on a least active power")
    if pv.get("pfpriority"):
        _hold("it keeps a power factor at its rating")
    kva = number(pv, "kva")
    up, down = (min(number(pv, key, kva) / kva, 1.0) for key in ("kvarmax", "kvarmaxabs"))
    v, q = _curve(build, text(control, "vvc_curve1"), -1.0, 1.0)
    # no power is not less than none: without a cut-out the inverter stays on in the dark
    off = bool(pv.get("varfollowinverter")) and number(pv, "%cutout", 20.0) > 0.0
    out: dict[str, Any] = {"q_control": "volt_var", "volt_var_at_night": not off}
    if text(control, "refreactivepower") == "varmax":
        if np.any(q > 0.0) and np.any(q < 0.0) and up != down:
            v, q = _with_zero(v, q)
        q = np.where(q > 0.0, q * up, q * down)
        out |= {"volt_var_reference": "rating", "volt_var_priority": "p" if pv.get("wattpriority") else "q"}
    else:
        out["volt_var_reference"] = "available"
        sides = ((up, float(q.max())), (down, float(-q.min())))
        most = min((limit for limit, side in sides if side > limit), default=1.0)
        if any(limit != most and side > most for limit, side in sides):
            _hold("its limits of kvar differ")
        out["volt_var_q_max_pu"] = most
    return out | {"volt_var_v_pu": _numbers(v), "volt_var_q_pu": _numbers(q)}


def _volt_watt(build: Build, control: Properties, pv: Properties, rated_kw: float) -> dict[str, Any]:
    """Fields of volt-watt."""
    if rated_kw <= 0.0:
        _hold("it has no active power")
    v, p = _curve(build, text(control, "voltwatt_curve"), 0.0, 1.0)
    pmpp = number(pv, "pmpp")
    bases = {
        "pmpppu": pmpp,
        "pctpmpppu": pmpp * number(pv, "%pmpp", 100.0) / 100.0,
        "kvaratingpu": number(pv, "kva"),
    }
    axis = text(control, "voltwattyaxis")
    if axis not in bases:
        _hold("its limit is per unit of what the sun offers")
    return {"volt_watt": True, "volt_watt_v_pu": _numbers(v), "volt_watt_p_pu": _numbers(p * bases[axis] / rated_kw)}


def _states_kvar(pv: Properties) -> bool:
    """Whether a PV system has kvar that no power factor explains."""
    factor, q = number(pv, "pf", 1.0), number(pv, "kvar")
    return q != 0.0 and (abs(factor) >= 1.0 or np.sign(q) != np.sign(factor))


def _curve(build: Build, name: str, least: float, most: float) -> tuple[FloatArray, FloatArray]:
    """Points of an XYCurve, held within two values: with the straight lines that go on beyond its ends."""
    name = name.removeprefix("xycurve.")
    found = [c for c in build.model.objects("xycurve") if str(c["name"]).lower() == name]
    if not found:
        _hold("it has no curve")
    v, y = (np.array(numbers(found[0], key)) for key in ("xarray", "yarray"))
    if len(v) < 2 or len(v) != len(y):
        _hold("its curve has less than two points")
    if np.any(np.diff(v) < APART_PU) or v[0] <= LOWEST_PU or v[-1] >= HIGHEST_PU:
        _hold(f"points of its curve are not {APART_PU:g} pu apart, ascending")
    ends = []
    for a, b, far in ((0, 1, LOWEST_PU), (-1, -2, HIGHEST_PU)):
        ends.append((far, y[a] + (far - v[a]) * (y[b] - y[a]) / (v[b] - v[a])))
    v = np.concatenate([[ends[0][0]], v, [ends[1][0]]])
    y = np.concatenate([[ends[0][1]], y, [ends[1][1]]])
    if np.any(np.diff(y) > 1e-12):
        _hold("its curve rises with the voltage")
    return _within(v, y, least, most)


def _within(v: FloatArray, y: FloatArray, least: float, most: float) -> tuple[FloatArray, FloatArray]:
    """A falling piecewise linear curve held within two values, without points that say nothing."""
    at = set(v.tolist())
    for side in (least, most):
        for k in np.flatnonzero((y[:-1] > side) & (y[1:] < side)):
            at.add(float(v[k] + (side - y[k]) / (y[k + 1] - y[k]) * (v[k + 1] - v[k])))
    points = np.array(sorted(at))
    values = np.clip(np.interp(points, v, y), least, most)
    slope = np.diff(values) / np.diff(points)
    flat = 1e-9  # what rounding makes of a slope of none
    bent = np.concatenate([[abs(slope[0]) > flat], np.abs(np.diff(slope)) > flat, [abs(slope[-1]) > flat]])
    if bent.sum() < 2:
        bent[[0, -1]] = True
    points, values = points[bent], values[bent]
    if np.any(np.diff(points) < APART_PU):
        _hold(f"its curve bends and meets its limit within {APART_PU:g} pu")
    return points, values


def _with_zero(v: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A falling curve with a point where it crosses zero."""
    k = int(np.flatnonzero(q > 0.0)[-1])
    if q[k + 1] == 0.0:
        return v, q
    at = v[k] + q[k] / (q[k] - q[k + 1]) * (v[k + 1] - v[k])
    return np.insert(v, k + 1, at), np.insert(q, k + 1, 0.0)


def _numbers(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(x) + 0.0 for x in values)


__all__ = ["InverterControls"]
