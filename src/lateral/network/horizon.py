"""The time axis: steps with lengths and weights, with a time zone, and profiles on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import pandas as pd

from lateral.network.schema import FloatArray


def _check_zone(zone: str) -> None:
    """Refuse what pandas does not look up but opens as a file: a case folder names the zone."""
    if zone.lower().startswith("dateutil/"):
        message = f"the zone {zone!r} is no IANA name"
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True, eq=False)
class Horizon:
    """The steps of a schedule.

    Power is the mean over a step, energy is at its end. One period is a horizon of one step.

    Attributes:
        start: beginning of the first step, with a time zone.
        step_h: length of each step, h, shape (T,).
        weight: how often each step counts in the objective (for typical days), shape (T,).
        breaks: indices of steps before which stored energy does not carry over (a new period starts there).
        zone: IANA name of the time zone, e.g. "America/Chicago"; times are shown in it.
    """

    start: datetime
    step_h: FloatArray
    weight: FloatArray
    breaks: tuple[int, ...] = ()
    zone: str = "UTC"

    def __post_init__(self) -> None:
        for name in ("step_h", "weight"):
            array = np.array(getattr(self, name), dtype=float, ndmin=1)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        _check_zone(self.zone)

    @classmethod
    def regular(
        cls, n_steps: int, step_h: float = 1.0, *, start: str | datetime = "2024-07-01T00:00", zone: str = "UTC"
    ) -> Horizon:
        """Equal steps of ``step_h`` hours from ``start`` (local time of ``zone`` when it carries no offset)."""
        stamp = pd.Timestamp(start)
        _check_zone(zone)
        stamp = stamp.tz_localize(zone) if stamp.tzinfo is None else stamp.tz_convert(zone)
        return cls(start=stamp.to_pydatetime(), step_h=np.full(n_steps, step_h), weight=np.ones(n_steps), zone=zone)

    @property
    def n_steps(self) -> int:
        """Number of steps T."""
        return len(self.step_h)

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """Beginning of each step, with time zone, length T."""
        stamp = pd.Timestamp(self.start)
        if stamp.tzinfo is None:
            stamp = stamp.tz_localize(self.zone)
        offsets = np.concatenate([[0.0], np.cumsum(self.step_h)[:-1]]) if self.n_steps else np.zeros(0)
        base = stamp.tz_convert("UTC")
        index = pd.DatetimeIndex([base + timedelta(hours=float(h)) for h in offsets], tz="UTC")
        return index.tz_convert(self.zone)

    @property
    def hours(self) -> FloatArray:
        """Weighted length of each step, h, shape (T,): what a mean power is multiplied by to give energy."""
        return self.step_h * self.weight

    @property
    def agreed_hours(self) -> FloatArray:
        """Hours that areas multiply their terms for powers at borders by, h, shape (T,): `hours`, and of a step of no
        weight its length: its powers cost nothing, but both sides have to agree, and storages give them a price."""
        return self.step_h * np.where(self.weight > 0.0, self.weight, 1.0)
