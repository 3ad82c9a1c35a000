"""Elastic twin of an area: what it solves while its neighbours ask for the impossible.

In the middle of a run a head's voltage, or what a tail has to give, can leave an area without any feasible schedule:
the start is a guess, and neighbours do not know each other's limits. From then on the area solves a twin that may leave
what it is given, at a price that starts at zero and grows with what is left (method of multipliers; Hestenes 1969,
Powell 1969). With x the voltage of a head, or the power of a tail, and x0 what the neighbour says::

    minimise  own objective + y (x - x0) + rho/2 (x - x0)^2,          afterwards  y <- y + rho (x - x0)

What it says of the border is the derivative of its own cost, -y after the update: so it moves smoothly where the area
itself would go from feasible to infeasible at once, and it says which way the neighbour should move, and how much it
matters. Where nothing moves any more, x = x0 and y is the area's own multiplier: the same fixed points.

The price is bounded (`LIMIT`): what does not come to agree at that price is infeasible, and the limits in the way are
named. An area that uses slack says that it is infeasible, and a run does not end as optimal while one does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lateral.areas.message import Values
from lateral.areas.quantities import POWERS, copies
from lateral.case import Case
from lateral.devices import BorderHead, BorderTail
from lateral.devices.border import VARIABLES
from lateral.model import Model
from lateral.network.schema import FloatArray
from lateral.objectives import EnergyCost, Objective
from lateral.results.result import Result

#: Slack up to this is none: pu^2 of voltage, or power on the power base.
NOISE = 3e-7
#: Slack that moves a price by the largest price of energy seen: pu^2 of voltage, or share of the power base.
SOFT_V, SOFT_P = 0.06, 0.3
#: Largest price of slack over the largest price of energy seen (of 1 pu^2: times the power base).
LIMIT = 1e3
#: What an area says that has no feasible schedule whatever its neighbours say, by proof.
NOWHERE = "nor at anything else, by proof"
#: After so many solves with slack the limits in the way are looked for; after twice as many slack that has not fallen
#: to `FALL` of what it was is there to stay.
PATIENCE, FALL = 12, 0.8


class ElasticTwin:
    """The twin of one area."""

    def __init__(self, case: Case, objective: Objective, voltages: Sequence[str] = ("v",)) -> None:
        self._copies = copies(voltages)
        #: what is left at a border, by kind of border
        self._left = {"border_head": tuple(voltages), "border_tail": POWERS}
        self.case = case.with_(
            devices=tuple(
                dataclasses.replace(d, coupling="consensus") if isinstance(d, BorderHead | BorderTail) else d
                for d in case.devices
            )
        )
        self._tariff = {d.name: case.series(d.price_import) for d in case.of(BorderHead) if d.coupling == "tariff"}
        self._weight = sum(w for w, part in objective.terms if isinstance(part, EnergyCost))
        self._other = sum(abs(w) for w, part in objective.terms if not isinstance(part, EnergyCost))
        self._model: Model | None = None
        self._made_at: object = None
        self._y: dict[tuple[str, str], FloatArray] = {}
        self._slacks: list[float] = []
        self._reasons: tuple[str, ...] = ()
        self._base = 0.0
        #: whether the area solves its twin
        self.in_use = False
        #: largest slack of the last solve, pu^2 or on the power base
        self.slack = 0.0

    @property
    def short(self) -> bool:
        """Whether the last solve left what it was given."""
        return self.in_use and self.slack > NOISE

    @property
    def stuck(self) -> bool:
        """Whether the slack is there to stay: no schedule agrees with the neighbours."""
        now, before = self._slacks[-PATIENCE:], self._slacks[-2 * PATIENCE : -PATIENCE]
        return self.short and (
            not np.isfinite(self.slack) or (len(before) == PATIENCE and min(now) > FALL * min(before))
        )

    def model(self, build: Callable[[Case], Model], point: object) -> Model:
        """The twin's problem; built on first use, and at another operating point."""
        if self._model is None or self._made_at is not point:
            self._model, self._made_at = build(self.case), point
        self.in_use = True
        return self._model

    @property
    def _borders(self) -> tuple[BorderHead | BorderTail, ...]:
        return (*self.case.of(BorderHead), *self.case.of(BorderTail))

    def inputs(self, said: Mapping[str, Values]) -> dict[str, dict[str, FloatArray]]:
        """What neighbours say as linear and quadratic terms."""
        self._base = max(self._base, self._largest_price(said))
        out: dict[str, dict[str, FloatArray]] = {}
        for device in self._borders:
            values = said.get(device.name, {})
            left = self._left[device.kind]
            shape = (len(device.crossing), self.case.horizon.n_steps)
            terms: dict[str, FloatArray] = {}
            for x in self._copies:
                if x in left:
                    rho = self._rho(x)
                    y = self._y.get((device.name, x), np.zeros(shape))
                    terms[f"lin_{x}"], terms[f"w_{x}"] = y - rho * values[x], np.full(shape, rho)
                else:
                    price = values.get(f"price_{x}", np.zeros(shape))
                    if x == "p" and device.name in self._tariff:
                        price = np.broadcast_to(self._weight * self._tariff[device.name], shape)
                    terms[f"lin_{x}"], terms[f"w_{x}"] = price, values.get(f"w_{x}", np.zeros(shape))
            out[device.name] = terms
        return out

    def judge(self, result: Result, said: Mapping[str, Values]) -> None:
        """After a solve: how much was left, and the new prices of it."""
        if not result.has_values:
            self.slack = np.inf
            self._slacks.append(self.slack)
            return
        self.slack = 0.0
        kva = self.case.base.total_kva
        for device in self._borders:
            for x in self._left[device.kind]:
                now = _rows(result, device, x) - said[device.name][x]
                size = kva if x in POWERS else 1.0
                self.slack = max(self.slack, float(np.abs(now).max()) / size)
                most = LIMIT * self._base * (1.0 if x in POWERS else kva)
                y = self._y.get((device.name, x), 0.0) + self._rho(x) * now
                self._y[device.name, x] = np.clip(y, -most, most)
        self._slacks = [*self._slacks, self.slack] if self.slack > NOISE else []

    def price(self, border: str, quantity: str) -> FloatArray:
        """What the area says a quantity that it was given costs it: minus the price of the slack."""
        return -self._y[border, quantity]

    def reasons(self, explain: Callable[[], Result]) -> tuple[str, ...]:
        """The limits in the way: looked for once slack is there to stay, or at once where no slack helps."""
        if not self.short:
            self._reasons = ()
        elif len(self._slacks) % PATIENCE == 0 or (not np.isfinite(self.slack) and not self._reasons):
            self._reasons = explain().reasons
        return self._reasons

    def _rho(self, x: str) -> float:
        kva = self.case.base.total_kva
        return self._base / (SOFT_P * kva) if x in POWERS else self._base * kva / SOFT_V

    def _largest_price(self, said: Mapping[str, Values]) -> float:
        """The largest price of a kWh or kvarh that the area has seen, in the objective's unit.

        A neighbour may itself be paying for slack: its price counts up to ten times the area's own.
        """
        seen = [
            float(np.abs(v).max(initial=0.0))
            for values in said.values()
            for x, v in values.items()
            if x in ("price_p", "price_q")
        ]
        tariff = max((float(np.abs(self.case.series(s.price_import)).max()) for s in self.case.sources), default=0.0)
        own = max(abs(self._weight) * tariff, self._other, 1e-3)
        return min(max([*seen, own]), 10.0 * own)


def _rows(result: Result, device: BorderHead | BorderTail, x: str) -> FloatArray:
    """A quantity at a border of the twin, shape (conductors, T)."""
    name = f"{device.kind}.{VARIABLES.get(x, x)}"
    place = {e: k for k, e in enumerate(result.elements(name))}
    return result.value(name)[[place[f"{device.name}.{c}"] for c in device.crossing]]


__all__ = ["LIMIT", "NOISE", "NOWHERE", "PATIENCE", "ElasticTwin"]
