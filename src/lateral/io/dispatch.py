"""Dispatch: what every PV system, battery and device of the user's own is told to give, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lateral.baseline import pv_baseline
from lateral.case import Case
from lateral.devices import PV, Capacitor, Load
from lateral.devices.base import ShuntDevice
from lateral.errors import CaseError, Fault, did_you_mean
from lateral.network.schema import FloatArray


def is_dispatched(device: object) -> bool:
    """Whether a device takes set-points: everything between the conductors of a bus but loads and capacitors."""
    return isinstance(device, ShuntDevice) and not isinstance(device, Load | Capacitor)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispatch:
    """Set-points of the PV systems, batteries and devices of the user's own of a case.

    Attributes:
        p_kw: active power given to the network per element label (``pv.pv1``, ``battery.b3``), total over its phases,
            kW, shape (T,). A battery gives its net power: discharge is positive, charge negative.
        q_kvar: reactive power given to the network, likewise, kvar, shape (T,).
    """

    p_kw: Mapping[str, FloatArray]
    q_kvar: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        for name in ("p_kw", "q_kvar"):
            frozen: dict[str, FloatArray] = {}
            for label, value in getattr(self, name).items():
                array = np.array(value, dtype=float, ndmin=1)
                array.setflags(write=False)
                frozen[label] = array
            object.__setattr__(self, name, frozen)

    @classmethod
    def baseline(cls, case: Case) -> Dispatch:
        """What happens without any decision.

        PV gives all that the sun offers (up to its inverter's rating), with q = 0 or at its power factor; batteries
        and devices of the user's own are idle.
        """
        p: dict[str, FloatArray] = {}
        q: dict[str, FloatArray] = {}
        for device in case.devices:
            if isinstance(device, PV):
                p[device.label], q[device.label] = pv_baseline(case, device)
            elif is_dispatched(device):
                p[device.label] = np.zeros(case.horizon.n_steps)
                q[device.label] = np.zeros(case.horizon.n_steps)
        return cls(p_kw=p, q_kvar=q)

    def check(self, case: Case) -> None:
        """Raise unless there is one finite series of length T for every device of ``case`` that takes set-points.

        A missing reactive series stands for zero.

        Raises:
            CaseError: with every fault found.
        """
        known = [d.label for d in case.devices if is_dispatched(d)]
        faults = []
        for label in known:
            if label not in self.p_kw:
                action = "Add it to the dispatch; a device of your own names its power by the output 'p_injected'."
                faults.append(Fault("IO-060 no set-point", label, "no p_kw", "a series of length T", action))
        for what, table in (("p_kw", self.p_kw), ("q_kvar", self.q_kvar)):
            for label, value in table.items():
                if label not in known:
                    action = did_you_mean(label, known)
                    faults.append(
                        Fault(
                            "IO-061 unknown device", label, what, "a device of the case that takes set-points", action
                        )
                    )
                elif value.shape != (case.horizon.n_steps,) or not np.isfinite(value).all():
                    faults.append(
                        Fault(
                            "IO-062 bad series",
                            label,
                            f"{what} of shape {value.shape}, {int((~np.isfinite(value)).sum())} not finite",
                            f"{case.horizon.n_steps} finite numbers",
                            "Give one number per step.",
                        )
                    )
        if faults:
            raise CaseError(faults)

    def p(self, label: str) -> FloatArray:
        """Active power of one element, kW, shape (T,)."""
        return self.p_kw[label]

    def q(self, label: str) -> FloatArray:
        """Reactive power of one element, kvar, shape (T,); zero when the dispatch has none."""
        return self.q_kvar[label] if label in self.q_kvar else np.zeros_like(self.p_kw[label])


__all__ = ["Dispatch", "is_dispatched"]
