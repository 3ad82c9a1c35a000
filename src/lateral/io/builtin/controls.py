"""The IEEE 13-bus feeder with every kind of device that decides something: small, for trying and for tests."""

from __future__ import annotations

import dataclasses

from lateral.case import Case
from lateral.devices import PV, SVC, Battery, Capacitor, Regulator, SoftOpenPoint, Statcom
from lateral.io.builtin import three_phase
from lateral.network.schema import Element


def ieee13() -> Case:
    """The day case of the 13-bus feeder in six steps of four hours, with further devices that decide."""
    case = three_phase.ieee13(n_steps=6)
    taps = {"reg1": "step", "reg2": "step", "reg3": "day"}
    banks = {"cap1": "step", "cap2": "day"}
    devices = tuple(
        dataclasses.replace(d, decision=(taps | banks)[d.name]) if isinstance(d, Regulator | Capacitor) else d
        for d in case.devices
    )
    more: tuple[Element, ...] = (
        PV(
            name="field",
            bus="680",
            terminals=(1, 2, 3, 0),
            p_rated_kw=450.0,
            s_max_kva=500.0,
            profile="pv",
            curtailable=True,
            phases="free",
        ),
        PV(
            name="roofs",
            bus="675",
            terminals=(1, 2, 3, 0),
            p_rated_kw=250.0,
            s_max_kva=280.0,
            profile="pv",
            q_control="volt_var",
        ),
        Battery(
            name="yard",
            bus="692",
            terminals=(1, 2, 3, 0),
            p_charge_max_kw=150.0,
            p_discharge_max_kw=150.0,
            s_max_kva=180.0,
            energy_kwh=600.0,
            soc_min=0.1,
            phases="free",
        ),
        Statcom(name="s671", bus="671", terminals=(1, 2, 3, 0), q_rated_kvar=300.0, loss_share=0.005, phases="free"),
        SoftOpenPoint(
            name="tie",
            bus="646",
            terminals=(2, 0),
            other_bus="675",
            other_terminals=(2, 0),
            s_max_kva=100.0,
            loss_share=0.02,
        ),
        SVC(name="v634", bus="634", terminals=(1, 2, 3, 0), q_min_kvar=-50.0, q_max_kvar=150.0),
    )
    notes = (
        "IEEE 13-bus feeder, three-phase, one day in six steps of four hours, with a device of every kind that decides "
        "something. Ratings, profiles and tariff are ours."
    )
    return case.with_(name="ieee13-controls", notes=notes, devices=(*devices, *more))


__all__ = ["ieee13"]
