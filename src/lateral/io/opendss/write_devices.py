"""Devices in OpenDSS: loads, capacitors, SVCs, PV systems, batteries, whatever has set-points, regulator controls."""

from __future__ import annotations

import math

import numpy as np

from lateral.devices import PV, SVC, Battery, Capacitor, Load, Regulator
from lateral.devices.base import ShuntDevice
from lateral.devices.load import MODELS
from lateral.io.opendss.write_draft import Draft, array, num
from lateral.network.schema import FloatArray


def _port_kv(draft: Draft, d: ShuntDevice, bus: str = "") -> float:
    """Rated voltage across one port, kV."""
    own: float | None = getattr(d, "v_rated_kv", None)
    if own is not None:
        return own
    delta = d.connection != "wye"
    return draft.case.feeder.bus[bus or d.bus].v_base_kv * (math.sqrt(3.0) if delta else 1.0)


def _connected(draft: Draft, d: ShuntDevice) -> str:
    """``phases= bus1= conn= kv=`` of a load-like object."""
    ports = d.ports
    n = len(ports)
    wye = d.connection == "wye"
    kv = _port_kv(draft, d) * (math.sqrt(3.0) if wye and n in (2, 3) else 1.0)
    conn = "wye" if wye else "delta"
    return f"phases={n} bus1={draft.nodes(d.bus, d.terminals)} conn={conn} kv={num(kv)}"


def load(draft: Draft, d: Load) -> None:
    """A Load with its profiles."""
    name = draft.name(d.label, "Load", d.name)
    text = (
        f"New Load.{name} {_connected(draft, d)} kw={num(d.p_kw * draft.share)} kvar={num(d.q_kvar * draft.share)} "
        f"model={MODELS.index(d.model) + 1} vminpu={num(d.v_min_pu)} vmaxpu={num(d.v_max_pu)} "
        f"vlowpu={num(d.v_low_pu)}"
    )
    if d.model == "zip":
        text += f" zipv={array((*d.zip_p, *d.zip_q, d.zip_v_cut_pu))}"
    if d.model == "cvr":
        text += f" cvrwatts={num(d.cvr_p)} cvrvars={num(d.cvr_q)}"
    if d.profile or d.profile_q:
        p = draft.case.multiplier(d.profile)
        if d.profile_q and d.profile_q != d.profile:
            q = draft.case.multiplier(d.profile_q)
            key = ("profile", d.profile, d.profile_q)
            shape = draft.shape(key, f"{d.profile or 'one'}__{d.profile_q}", p, q, actual=False)
        else:
            shape = draft.shape(("profile", d.profile), d.profile, p, None, actual=False)
        text += f" daily={shape}"
    draft.out["loads.dss"].append(text)


def capacitor(draft: Draft, d: Capacitor) -> None:
    """A Capacitor, one per port, or a Load: by its law, and by whether its share is decided."""
    setting = draft.dispatch.settings.get(d.label)
    if setting is not None:
        draft.out["shunts.dss"].append(
            _follows(draft, d, f"cap_{d.name}", d.q_full_kvar * setting, impedance=d.model == "constant_impedance")
        )
        return
    q = d.q_kvar * draft.share
    if d.model == "constant_power":
        name = draft.name(d.label, "Load", f"cap_{d.name}")
        draft.out["shunts.dss"].append(
            f"New Load.{name} {_connected(draft, d)} kw=0 kvar={num(-q)} model=1 vminpu=0.1 vmaxpu=2 vlowpu=0"
        )
        return
    n, wye, common = len(d.ports), d.connection == "wye", d.terminals[-1]
    kv = _port_kv(draft, d)
    if (wye or n == 3) and q > 0.0:
        name = draft.name(d.label, "Capacitor", d.name)
        where = f"bus1={draft.nodes(d.bus, d.terminals[:-1] if wye else d.terminals)}"
        if wye:
            where += f" bus2={draft.nodes(d.bus, (common,) * n)} conn=wye"
            kv *= math.sqrt(3.0) if n in (2, 3) else 1.0
        else:
            where += " conn=delta"
        draft.out["shunts.dss"].append(f"New Capacitor.{name} phases={n} {where} kvar={num(q)} kv={num(kv)}")
        return
    for a, b in d.ports:
        name = draft.name(d.label, "Capacitor", f"{d.name}_{a}_{b}")
        if q > 0.0:
            draft.out["shunts.dss"].append(
                f"New Capacitor.{name} phases=1 bus1={draft.nodes(d.bus, (a,))} bus2={draft.nodes(d.bus, (b,))} "
                f"kvar={num(q / n)} kv={num(kv)}"
            )


def svc(draft: Draft, d: SVC) -> None:
    """A Load that follows the schedule; nothing without one."""
    setting = draft.dispatch.settings.get(d.label)
    if setting is not None:
        draft.out["devices.dss"].append(_follows(draft, d, f"svc_{d.name}", setting, impedance=True))


def _follows(draft: Draft, d: ShuntDevice, wanted: str, q_kvar: FloatArray, *, impedance: bool) -> str:
    """A load that gives reactive power by a shape, at rated voltage where it is an impedance."""
    name = draft.name(d.label, "Load", wanted)
    q = 0.0 - q_kvar * draft.share
    shape = draft.shape(("dispatch", d.label), name, np.zeros_like(q), q, actual=True)
    return (
        f"New Load.{name} {_connected(draft, d)} kw=0 kvar={num(q[0])} model={2 if impedance else 1} "
        f"vminpu=0.1 vmaxpu=2 vlowpu=0 daily={shape}"
    )


def other(draft: Draft, d: ShuntDevice) -> None:
    """Any other device with set-points: a load of negative power that follows them."""
    draft.out["devices.dss"].append(_set_points(draft, d, d.kind))


def _by_port(draft: Draft, d: ShuntDevice, kind: str) -> str:
    """One load of one phase per port."""
    lines = []
    rows = zip(d.places, *draft.dispatch.ports[d.label], strict=True)
    for k, ((bus, (a, b)), p, q) in enumerate(rows, start=1):
        a, b = (a, b) if a else (b, a)
        name = draft.name(d.label, "Load", f"{kind}_{d.name}_{k}")
        p, q = 0.0 - p * draft.share, 0.0 - q * draft.share
        shape = draft.shape(("dispatch", d.label, str(k)), name, p, q, actual=True)
        lines.append(
            f"New Load.{name} phases=1 bus1={draft.nodes(bus, (a, b))} conn=wye kv={num(_port_kv(draft, d, bus))} "
            f"kw={num(p[0])} kvar={num(q[0])} model=1 {_window(d)} vlowpu=0 daily={shape}"
        )
    return "\n".join(lines)


def _set_points(draft: Draft, d: ShuntDevice, kind: str) -> str:
    if d.label in draft.dispatch.ports:
        return _by_port(draft, d, kind)
    p = draft.dispatch.p(d.label) * draft.share
    q = draft.dispatch.q(d.label) * draft.share
    name = draft.name(d.label, "Load", f"{kind}_{d.name}")
    shape = draft.shape(("dispatch", d.label), name, 0.0 - p, 0.0 - q, actual=True)
    return (
        f"New Load.{name} {_connected(draft, d)} kw={num(0.0 - p[0])} kvar={num(0.0 - q[0])} model=1 "
        f"{_window(d)} vlowpu=0 daily={shape}"
    )


def pv(draft: Draft, d: PV) -> None:
    """A PV system with its set-points."""
    draft.out["devices.dss"].append(_set_points(draft, d, "pv") if _as_load(draft, d) else _native_pv(draft, d))


def battery(draft: Draft, d: Battery) -> None:
    """A battery with its set-points."""
    text = _set_points(draft, d, "battery") if _as_load(draft, d) else _native_battery(draft, d)
    draft.out["devices.dss"].append(text)


def _as_load(draft: Draft, d: ShuntDevice) -> bool:
    """One object of the engine has one power for all of its phases: where ports differ there is no native one."""
    return draft.der == "load" or d.label in draft.dispatch.ports


def _native_pv(draft: Draft, d: PV) -> str:
    """Power follows a shape of irradiance, kvar the steps (a PVSystem takes no shape of it)."""
    p, q = draft.dispatch.p(d.label), draft.dispatch.q(d.label)
    name = draft.name(d.label, "PVSystem", d.name)
    text = (
        f"New PVSystem.{name} {_connected(draft, d)} kva={num(d.s_max_kva * draft.share)} "
        f"pmpp={num(d.p_rated_kw * draft.share)} irradiance=1 %cutin=0 %cutout=0 {_window(d)} "
    )
    if d.q_control == "power_factor":
        text += f"pf={num(d.power_factor)}"
    else:
        text += f"kvar={_first_kvar(draft, d.label, q)}"
    if d.p_rated_kw > 0.0:
        shape = draft.shape(("dispatch", d.label), f"pv_{d.name}", p / d.p_rated_kw, None, actual=False)
        text += f" daily={shape}"
    return text


def _first_kvar(draft: Draft, label: str, q: FloatArray) -> str:
    """The kvar that an object begins with; what comes after is kept for ``steps.dss``."""
    if np.any(q != q[0]):
        draft.kvar[draft.element[label]] = q * draft.share
    return num(q[0] * draft.share)


def _native_battery(draft: Draft, d: Battery) -> str:
    """Power follows a shape (``dispmode=follow``), per unit of the rating, kvar the steps."""
    p, q = draft.dispatch.p(d.label), draft.dispatch.q(d.label)
    name = draft.name(d.label, "Storage", d.name)
    rated = max(d.p_charge_max_kw, d.p_discharge_max_kw)
    text = (
        f"New Storage.{name} {_connected(draft, d)} kwrated={num(rated * draft.share)} "
        f"kva={num(d.s_max_kva * draft.share)} kwhrated={num(d.energy_kwh * draft.share)} "
        f"%stored={num(100.0 * d.soc_initial)} %reserve={num(100.0 * d.soc_min)} "
        f"%effcharge={num(100.0 * d.eta_charge)} %effdischarge={num(100.0 * d.eta_discharge)} "
        f"%charge={num(100.0 * d.p_charge_max_kw / rated if rated else 100.0)} "
        f"%discharge={num(100.0 * d.p_discharge_max_kw / rated if rated else 100.0)} "
        f"%idlingkw=0 %cutin=0 %cutout=0 {_window(d)} kvar={_first_kvar(draft, d.label, q)} dispmode=follow"
    )
    if rated > 0.0:
        shape = draft.shape(("dispatch", d.label), f"battery_{d.name}", p / rated, None, actual=False)
        text += f" daily={shape}"
    return text


def regulator(draft: Draft, r: Regulator) -> None:
    """A RegControl."""
    transformer = draft.element[f"transformer.{r.transformer}"].partition(".")[2]
    name = draft.name(r.label, "RegControl", r.name)
    draft.out["devices.dss"].append(
        f"New RegControl.{name} transformer={transformer} winding={int(r.winding)} vreg={num(r.v_set)} "
        f"band={num(r.band)} ptratio={num(r.pt_ratio)} ctprim={num(r.ct_primary_a)} R={num(r.ldc_r)} "
        f"X={num(r.ldc_x)}"
    )


def _window(d: ShuntDevice) -> str:
    low, high = getattr(d, "v_min_pu", 0.1), getattr(d, "v_max_pu", 2.0)
    return f"vminpu={num(low)} vmaxpu={num(high)}"
