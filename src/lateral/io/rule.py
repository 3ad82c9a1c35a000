"""Where PV and batteries go when a study says only how much: a rule, evenly spaced over the load buses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from lateral.case import Case
from lateral.devices import PV, Battery, Load
from lateral.devices.load import is_idling
from lateral.errors import CaseError, Fault, did_you_mean
from lateral.io._toml import Strict
from lateral.network.schema import Element

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class DerRule(Strict):
    """PV and batteries on a share of the load buses, each sized on the load it sits at."""

    pv_share: Share = Field(default=0.20, description="Share of the load buses with PV.")
    battery_share: Share = Field(default=0.30, description="Share of the load buses with a battery.")
    pv_size: Annotated[float, Field(ge=0)] = Field(default=0.33, description="PV rating over rated load.")
    battery_size: Annotated[float, Field(ge=0)] = Field(default=0.33, description="Battery power over rated load.")
    hours: Annotated[float, Field(gt=0)] = Field(default=4.0, description="Battery capacity over power, h.")
    inverter_size: Annotated[float, Field(ge=1)] = Field(default=1.2, description="Inverter kVA over rated kW.")
    soc_min: Share = Field(default=0.30, description="Lowest state of charge.")
    soc_max: Share = Field(default=0.95, description="Highest state of charge.")
    soc_initial: Share = Field(default=0.625, description="State of charge at the beginning.")
    eta_charge: Annotated[float, Field(gt=0, le=1)] = Field(default=0.95, description="Efficiency of charging.")
    eta_discharge: Annotated[float, Field(gt=0, le=1)] = Field(default=0.95, description="Efficiency of discharging.")
    pv_profile: str = Field(default="pv", description="Profile of the sun; empty: constant.")
    curtailable: bool = Field(default=False, description="Whether PV may be cut.")
    q_control: Literal["free", "none"] = Field(default="free", description="Whether inverters decide on q.")
    phases: Literal["balanced", "free"] = Field(
        default="balanced", description="Whether power divides equally over the phases or is decided at each."
    )
    limit: Literal["disc", "box"] = Field(default="disc", description="Shape of the inverter's limit.")


def evenly_spaced(n: int, share: float) -> tuple[int, ...]:
    """Indices of a share of n entries, first and last included.

    Floor of equal distances (the published placement).
    """
    count = min(n, int(share * n + 0.5))
    if count <= 1:
        return (0,) if count else ()
    return tuple(k * (n - 1) // (count - 1) for k in range(count))


def add_ders(case: Case, rule: DerRule | None = None) -> Case:
    """The case with PV and batteries added by a rule.

    The load buses are those with a load of positive power, in the order of the loads; idling losses of a storage are
    no load here. At a chosen bus every load gets a DER of its own on the same terminals and connection, named after it.

    Args:
        case: the case.
        rule: the rule; absent: PV on 20 %, batteries on 30 %, 0.33 of the load, 4 h.

    Raises:
        CaseError: the case has no profile of the name that the rule gives to the sun.
    """
    rule = rule or DerRule()
    at: dict[str, list[Load]] = {}
    for load in case.loads:
        if load.p_kw > 0 and not is_idling(load):
            at.setdefault(load.bus, []).append(load)
    groups = list(at.values())
    pv_loads = [load for k in evenly_spaced(len(groups), rule.pv_share) for load in groups[k]]
    battery_loads = [load for k in evenly_spaced(len(groups), rule.battery_share) for load in groups[k]]
    if pv_loads and rule.pv_profile and rule.pv_profile not in case.profiles:
        hint = did_you_mean(rule.pv_profile, sorted(case.profiles))
        found = f"the profile {rule.pv_profile!r}"
        raise CaseError([Fault("STU-011 profile", "rule.pv_profile", found, "a profile of the case", hint)])
    pv_names = _names(pv_loads, (d.name for d in case.pvs))
    battery_names = _names(battery_loads, (d.name for d in case.batteries))
    new: list[Element] = []
    for name, load in zip(pv_names, pv_loads, strict=True):
        p = rule.pv_size * load.p_kw
        new.append(
            PV(
                name=name,
                bus=load.bus,
                terminals=load.terminals,
                connection=load.connection,
                p_rated_kw=p,
                s_max_kva=rule.inverter_size * p,
                profile=rule.pv_profile,
                curtailable=rule.curtailable,
                q_control=rule.q_control,
                limit=rule.limit,
                phases=rule.phases,
            )
        )
    for name, load in zip(battery_names, battery_loads, strict=True):
        p = rule.battery_size * load.p_kw
        if p <= 0:
            continue
        new.append(
            Battery(
                name=name,
                bus=load.bus,
                terminals=load.terminals,
                connection=load.connection,
                p_charge_max_kw=p,
                p_discharge_max_kw=p,
                s_max_kva=rule.inverter_size * p,
                energy_kwh=rule.hours * p,
                soc_min=rule.soc_min,
                soc_max=rule.soc_max,
                soc_initial=rule.soc_initial,
                eta_charge=rule.eta_charge,
                eta_discharge=rule.eta_discharge,
                q_control=rule.q_control,
                limit=rule.limit,
                phases=rule.phases,
            )
        )
    return case.with_(devices=(*case.devices, *new))


def _names(loads: list[Load], taken: Iterable[str]) -> list[str]:
    used = set(taken)
    out = []
    for load in loads:
        name, k = load.name, 2
        while name in used:
            name, k = f"{load.name}_{k}", k + 1
        used.add(name)
        out.append(name)
    return out


__all__ = ["DerRule", "add_ders", "evenly_spaced"]
