"""Dispatch: what every PV system, battery and device of the user's own is told to give, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lateral.baseline import following_ports, pv_baseline
from lateral.case import Case
from lateral.devices import PV
from lateral.devices.base import Declared, ShuntDevice
from lateral.errors import CaseError, Fault, did_you_mean
from lateral.network.schema import FloatArray


def is_dispatched(device: object) -> bool:
    """Whether a device takes set-points: everything between the conductors of a bus but what follows the voltage."""
    return isinstance(device, ShuntDevice) and device.dispatched


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispatch:
    """Set-points of the PV systems, batteries and devices of the user's own of a case.

    Attributes:
        p_kw: active power given to the network per element label (``pv.pv1``, ``battery.b3``), total over its phases,
            kW, shape (T,). A battery gives its net power: discharge is positive, charge negative.
        q_kvar: reactive power given to the network, likewise, kvar, shape (T,).
        ports: (p, q) port by port, kW and kvar, each of shape (ports, T), in the order of `ShuntDevice.places`; a
            device that is not here gives its totals in equal parts.
        settings: the setting of a device step by step, by label, shape (T,): the tap of a regulator, the share of a
            capacitor that is on, what an SVC would give at rated voltage; a device that is not here stays as it is.
    """

    p_kw: Mapping[str, FloatArray]
    q_kvar: Mapping[str, FloatArray]
    ports: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    settings: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("p_kw", "q_kvar", "settings"):
            series = {label: _frozen(value, 1) for label, value in getattr(self, name).items()}
            object.__setattr__(self, name, series)
        ports = {label: (_frozen(p, 2), _frozen(q, 2)) for label, (p, q) in self.ports.items()}
        object.__setattr__(self, "ports", ports)

    @classmethod
    def baseline(cls, case: Case) -> Dispatch:
        """What happens without any decision.

        PV gives all that the sun offers (up to its inverter's rating), with q = 0 or at its power factor; batteries
        and devices of the user's own are idle. What follows the voltage gives what it gives in the power flow.
        """
        ports = following_ports(case)
        p: dict[str, FloatArray] = {}
        q: dict[str, FloatArray] = {}
        for device in case.devices:
            if isinstance(device, PV):
                p[device.label], q[device.label] = pv_baseline(case, device)
            elif is_dispatched(device):
                p[device.label] = np.zeros(case.horizon.n_steps)
                q[device.label] = np.zeros(case.horizon.n_steps)
            if device.label in ports:
                p[device.label], q[device.label] = (rows.sum(axis=0) for rows in ports[device.label])
        return cls(p_kw=p, q_kvar=q, ports=ports)

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
        faults += [*self._port_faults(case), *self._setting_faults(case)]
        if faults:
            raise CaseError(faults)

    def _port_faults(self, case: Case) -> list[Fault]:
        """Rows of the wrong shape, or rows that do not add up to the totals."""
        at = {d.label: d for d in case.devices if isinstance(d, ShuntDevice) and is_dispatched(d)}
        faults = []
        for label, rows in self.ports.items():
            if label not in at:
                action = did_you_mean(label, list(at))
                faults.append(
                    Fault("IO-061 unknown device", label, "ports", "a device of the case that takes set-points", action)
                )
                continue
            shape = (len(at[label].places), case.horizon.n_steps)
            if any(row.shape != shape or not np.isfinite(row).all() for row in rows):
                found = f"rows of shape {rows[0].shape} and {rows[1].shape}"
                allowed = f"{shape[0]} ports of {shape[1]} finite numbers"
                faults.append(Fault("IO-062 bad series", label, found, allowed, "Give one number per port and step."))
            elif label in self.p_kw and self.p_kw[label].shape == shape[1:]:
                gap = max(
                    float(np.abs(row.sum(axis=0) - total).max(initial=0.0))
                    for row, total in zip(rows, (self.p(label), self.q(label)), strict=True)
                )
                if gap > 1e-6 * max(1.0, float(np.abs(rows[0]).max(initial=0.0))):
                    found = f"ports that add up to {gap:.3g} more or less than the total"
                    faults.append(Fault("IO-062 bad series", label, found, "the same total", "Correct one of the two."))
        for label in (d.label for d in at.values() if d.needs_ports and d.label in self.p_kw):
            total = max(np.abs(self.p_kw[label]).max(initial=0.0), np.abs(self.q(label)).max(initial=0.0))
            if label not in self.ports and total > 0.0:
                found, allowed = "a total for a device at two buses", "its power port by port (ports)"
                faults.append(Fault("IO-062 bad series", label, found, allowed, "Give what it does at each end."))
        return faults

    def _setting_faults(self, case: Case) -> list[Fault]:
        """Settings of what has none, or of the wrong shape."""
        known = [d.label for d in case.devices if isinstance(d, Declared) and d.setting]
        faults = []
        for label, value in self.settings.items():
            if label not in known:
                action = did_you_mean(label, known)
                faults.append(Fault("IO-061 unknown device", label, "settings", "a device with a setting", action))
            elif value.shape != (case.horizon.n_steps,) or not np.isfinite(value).all():
                found, allowed = f"settings of shape {value.shape}", f"{case.horizon.n_steps} finite numbers"
                faults.append(Fault("IO-062 bad series", label, found, allowed, "Give one number per step."))
        return faults

    def p(self, label: str) -> FloatArray:
        """Active power of one element, kW, shape (T,)."""
        return self.p_kw[label]

    def q(self, label: str) -> FloatArray:
        """Reactive power of one element, kvar, shape (T,); zero when the dispatch has none."""
        return self.q_kvar[label] if label in self.q_kvar else np.zeros_like(self.p_kw[label])


def _frozen(value: FloatArray, ndim: int) -> FloatArray:
    array = np.array(value, dtype=float, ndmin=ndim)
    array.setflags(write=False)
    return array


__all__ = ["Dispatch", "is_dispatched"]
