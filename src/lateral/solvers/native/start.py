"""Where the method begins: at the power flow of the network, or from an earlier iterate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.native import kernels
from lateral.solvers.native.assembly import Point
from lateral.solvers.native.iterate import Iterate
from lateral.solvers.native.order import Order
from lateral.solvers.native.pairing import curve_slopes
from lateral.solvers.native.rows import Rows, Values
from lateral.solvers.native.steps import StepProgram
from lateral.solvers.native.threads import Share

#: Distance from bounds at the start, of max(1, |bound|) and of the range: of what the power flow gives, and of devices,
#: which start further inside, so that the first steps are long (a third less iterations than with the same for both).
PUSH, PUSH_DEVICES = 0.05, 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Bounds of variables and of slacks, infinite where there is none, shape (elements, T); which of them are fixed, by
    element and step."""

    low: FloatArray
    high: FloatArray
    s_low: FloatArray
    s_high: FloatArray
    fixed: tuple[IntArray, ...]
    s_fixed: tuple[IntArray, ...]

    @classmethod
    def of(cls, s: StepProgram) -> Self:
        """The bounds of a program with the numbers that it has."""
        d, t, n = s.data, s.n_steps, s.products.n
        fixed = d["fixed"] > 0.0
        level, free = s.level.reshape(-1, 1), np.full((s.curves.n, t), np.inf)
        cones = np.where(s.exact.reshape(-1, 1), -np.inf, 0.0) * np.ones((n, t))
        exact = s.level_ranges
        return cls(
            low=np.where(fixed, -np.inf, d["low"]),
            high=np.where(fixed, np.inf, d["high"]),
            s_low=np.vstack([np.where(exact, -np.inf, d["g_low"]), cones, np.where(level, -np.inf, d["q_low"]), -free]),
            s_high=np.vstack(
                [
                    np.where(exact, np.inf, d["g_high"]),
                    np.full((n, t), np.inf),
                    np.where(level, np.inf, d["q_high"]),
                    free,
                ]
            ),
            fixed=np.nonzero(fixed),
            s_fixed=np.nonzero(exact),  # ranges come first
        )

    def hold(self, steps: StepProgram, x: FloatArray, s: FloatArray | None = None) -> None:
        """Put what is fixed where it belongs, in place: variables, and slacks where they are given."""
        x[self.fixed] = steps.data["value"][self.fixed]
        if s is not None:
            s[self.s_fixed] = steps.data["g_low"][self.s_fixed]


def newton_point(rows: Rows, x: FloatArray, v: Values, y: FloatArray, diagonal: FloatArray, slack: FloatArray) -> Point:
    """What the matrix depends on at x with the multipliers y of the rows."""
    _, y_p, y_q, y_c = rows.by_kind(y[rows.kkt.n_rows :])
    y_slope, z_slope, bend = curve_slopes(rows.steps, x)
    return Point(v.a, v.u, v.v, y_p, diagonal, slack, v.f, v.g, y_q, y_slope, z_slope, y_c * bend)


def cold(rows: Rows, order: Order, bounds: Bounds, n_bounds: int) -> Iterate:
    """Devices inside of their bounds, the network at its power flow, multipliers of one complementarity."""
    p, t = rows.steps, rows.steps.n_steps
    x = p.data["start"].copy()
    bounds.hold(p, x)
    threads = rows.kkt.threads

    def push(share: float) -> None:
        def own(mine: Share) -> None:
            kernels.inside(x, bounds.low, bounds.high, share, *mine.of(len(x)))

        threads.shares(own)

    push(PUSH_DEVICES)
    _power_flow(rows, order, x)
    bounds.hold(p, x)  # of the network as well
    push(PUSH)
    now = rows.at(x)
    s = np.zeros(now.rows.shape)
    (ranges, products, quadratic, _), (g, h, f, _) = rows.by_kind(s), rows.by_kind(now.rows)

    def slacks(mine: Share) -> None:
        for of, given, low, high in (
            (ranges, g, p.data["g_low"], p.data["g_high"]),
            (quadratic, f, p.data["q_low"], p.data["q_high"]),
        ):
            first, last = mine.of(len(of))
            of[first:last] = given[first:last]
            kernels.inside(of, low, high, PUSH, first, last)

    threads.shares(slacks)
    quadratic[p.level] = 0.0
    cones = np.flatnonzero(~p.exact)
    if len(cones):
        size = np.maximum(np.abs(now.values.u[cones] * now.values.v[cones]), 1e-3)
        products[cones] = np.maximum(-h[cones], 0.1 * size)
    mu = max(max(abs(now.objective), p.floor) / max(n_bounds, 1), 1e-6)
    it = Iterate(
        x, s, np.zeros((rows.kkt.n_rows + len(s), t)), np.zeros((rows.kkt.n_links, t)),
        *(np.empty_like(of) for of in (x, x, s, s)),
    )  # fmt: skip

    def multipliers(mine: Share) -> None:
        for of, low, high, z_low, z_high in (
            (x, bounds.low, bounds.high, it.z_low, it.z_high),
            (s, bounds.s_low, bounds.s_high, it.w_low, it.w_high),
        ):
            kernels.multipliers(z_low, z_high, of, low, high, mu, *mine.of(len(of)))

    threads.shares(multipliers)
    return it


def moved(rows: Rows, order: Order, bounds: Bounds, it: Iterate, *, flow: bool) -> Iterate:
    """An earlier iterate for the present numbers: what is fixed is fixed at its new value, what a new bound leaves
    outside is just inside, and a bound that is new has a multiplier like the others'.

    Args:
        flow: whether the network is brought to its power flow first. Ports of a step that took the numbers of another
            one are far from it (46 Newton steps instead of 11 on IEEE 13, 49 instead of 7 on 123); branch flows are
            not (10 instead of 8), and after a change of loads the voltages of the power flow may be beyond limits.
    """
    bounds.hold(rows.steps, it.x)
    if flow:
        _power_flow(rows, order, it.x)
    it.x = _within(it.x, bounds.low, bounds.high)
    it.s = np.where(rows.sign != 0.0, _within(it.s, bounds.s_low, bounds.s_high), it.s)
    bounds.hold(rows.steps, it.x, it.s)
    sides = (
        (it.z_low, it.x - bounds.low),
        (it.z_high, bounds.high - it.x),
        (it.w_low, it.s - bounds.s_low),
        (it.w_high, bounds.s_high - it.s),
    )
    held = [np.isfinite(room) & (z > 0.0) for z, room in sides]
    known = [z[k] * room[k] for (z, room), k in zip(sides, held, strict=True)]
    mu = float(np.concatenate(known).mean()) if any(len(k) for k in known) else 1e-6
    for z, room in sides:
        finite = np.isfinite(room)
        new = finite & ~(z > 0.0)
        z[new] = mu / room[new]
        z[~finite] = 0.0
    return it


def _power_flow(rows: Rows, order: Order, x: FloatArray, *, limit: int = 8) -> None:
    """Newton on the network's own rows with every device where it is, in place; gives up in silence."""
    k, t = rows.kkt, rows.steps.n_steps
    own, network = order.network[: k.nv], order.network[k.nv :]
    diagonal = np.repeat(np.where(own, 0.0, 1e10).reshape(-1, 1), t, axis=1)
    slack = np.repeat(np.where(network[k.n_rows :], 0.0, 1e10).reshape(-1, 1), t, axis=1)
    before, none, full = x.copy(), np.zeros((k.n - k.nv, t)), np.empty((k.n, t))
    of_equal, of_rows = np.split(network, [k.n_rows])
    for _ in range(limit):
        now = rows.at(x)
        full[: k.nv] = 0.0
        np.multiply(now.equal, np.where(of_equal, -1.0, 0.0).reshape(-1, 1), out=full[k.nv : k.g_first])
        np.multiply(now.rows, np.where(of_rows, -1.0, 0.0).reshape(-1, 1), out=full[k.g_first :])
        if rows.largest(full) < 1e-8:
            return
        k.factor(newton_point(rows, x, now.values, none, diagonal, slack))
        step = k.within(full)[: k.nv]
        step[~own] = 0.0
        if not rows.are_numbers(step):
            x[:] = before
            return
        x += step


def _within(x: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Values that are at or beyond a bound, a little inside of it; others as they are."""
    with np.errstate(invalid="ignore"):
        room = np.where(np.isfinite(low) & np.isfinite(high), PUSH * (high - low), 1e-4)
        room = np.minimum(room, 1e-4)
        x = np.where(np.isfinite(low) & (x <= low), low + room, x)
        return np.where(np.isfinite(high) & (x >= high), high - room, x)


__all__ = ["Bounds", "cold", "moved", "newton_point"]
