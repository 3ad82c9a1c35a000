"""Consensus: what `admm` and `app` share. Both sides of a border have copies of its v, P and Q, and are made to agree.

v is the squared magnitude; where the formulation says voltages as complex numbers, both of its parts, each as v here;
where it has matrices of voltages, the products of two conductors' besides.

**Matrices** are said as they are, and priced in symmetrical components (`lateral.network.sequence`), in which entries
have penalties of their own. Where V V^H is of rank one at the optimum (`sdp`), its first entry and those beside it are
free to first order, and answer to prices as powers do; of all others, which are as large as the square of the
unbalance, neither area can move any by itself. They are held there by prices as large as any other, which at one
penalty for all grow by 1e-3 a round, and the residual falls like one over the number of rounds. Measured on `ieee13` in
3 areas, with the areas' answers differentiated near the optimum: the slowest modes of the map are those multipliers and
nothing else, and a heavier penalty of entries beside the first makes others slow. Where the rank is not one (`soc3`)
nothing is held so.

Multipliers and penalties are in the units of prices: objective per kWh (kvarh, pu^2), and that per kW (kvar, pu^2).
A penalty of 1 changes the price of P and Q by a tenth of what a kWh costs when the copies are apart by the power base;
of v by that price times the power base when they are apart by 1 pu^2 (`UNIT`).

**Hours.** What an area pays at a border for P and Q counts for the hours of a step (times its weight), what it pays for
voltages does not. All else that it pays in a step counts for these hours too, so that the penalties of voltages are
multiplied by them: a step of six hours then is solved as one of an hour is. The norm in which the method contracts has
the penalties as they stand in the areas' objectives (`Consensus.counts`). Measured with Newton's method, `ieee13`,
`linearised`, 4 steps weighted by 5, 30, 200 and 120 (typical days), 2 areas: at penalties without hours nothing agreed
after 300 rounds.

Where nothing that crosses returns by ground (`Plan.without_return`: inside an ungrounded part), next to nothing decides
the voltage to ground. The components with the common mode then drift at the same pace every round, which is what a
penalty allows; theirs are `COMMON` of the others. Measured on IEEE 37 (`soc3`, `line.l4`): at 1 not settled after 200
rounds, at 0.03, 0.01, 0.005, 0.003, 0.001 certified after 96, 73, 82, 62, 121; where currents do return by ground, that
much lighter ones do not settle (`ieee13`). Where no line has charging (`Plan.without_charging`) currents decide the
voltage to ground, lightly: `DECIDED`.

A border where one of the two messages of a round is missing waits: neither side moves its multiplier, so that the two
stay opposite, and a fixed point stays the optimum.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from lateral.areas.algorithms.base import Algorithm, Borders, State, scale_of
from lateral.areas.message import Values
from lateral.areas.plan import Plan, Wave
from lateral.areas.quantities import POWERS, copies, in_components
from lateral.errors import OptionError
from lateral.network.schema import FloatArray

#: Penalty 1, as a share of the price scale over the power base (of voltages: times it).
UNIT = {"v": 1.0, "v_re": 1.0, "v_im": 1.0, "vv_re": 1.0, "vv_im": 1.0, "p": 0.1, "q": 0.1}

#: The penalty of a component with the common mode of three conductors, as a share of that of others, where no current
#: returns by ground.
COMMON = 0.004
#: And where no current can, so that the voltage to ground follows from currents. Measured without charging, `soc3`:
#: IEEE 37 in 3 areas certified after 98, 77, 115, 131 rounds at 0.004, 0.02, 0.1, 0.4, and not after 300 at 1; a small
#: feeder with uneven lines, 2 areas, after 208, 116, 82, 65 at 0.004, 0.05, 0.3, 1.
DECIDED = 0.1


class Consensus(Algorithm):
    """Base of the algorithms in which both sides of a border decide on v, P and Q.

    Residuals are how far the copies are apart, and how far the penalty times their mean has moved, in prices.
    In the state, ``x.up`` is what the child said of x and ``x.down`` what the parent said, ``x`` their mean;
    ``local["child/border/x"]`` the multiplier of the child's copy, that of the parent's is the opposite, of matrices of
    voltages in symmetrical components; ``numbers["border/x"]`` the penalty, of matrices that of their first entry.
    """

    coupling: ClassVar[str] = "consensus"

    #: penalty, dimensionless, see `UNIT`; a field of every leaf
    penalty: float
    #: the penalty of v, as a share of the others; a field of every leaf
    ratio_v: float
    #: of a matrix of voltages in symmetrical components the penalty of the entries beside the first one is the square
    #: root of this times that of the first, of all others the square of this; a field of every leaf
    ratio_unbalance: float

    def __post_init__(self) -> None:
        positive(self.name, penalty=self.penalty, ratio_v=self.ratio_v, ratio_unbalance=self.ratio_unbalance)

    def terms(
        self, own: FloatArray, other: FloatArray, mean: FloatArray, y: FloatArray, penalty: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """``lin`` and ``w`` of the next solve from both copies, what stands for their mean, and the own multiplier:
        ``y - rho z`` and ``rho``, unless an algorithm says otherwise."""
        return y - penalty * mean, penalty

    def moved(self, own: FloatArray, other: FloatArray, y: FloatArray, penalty: FloatArray) -> FloatArray:
        """The multiplier of the next round, ``y + rho (x - z)``, unless an algorithm says otherwise."""
        return y + penalty * 0.5 * (own - other)

    def waves(self, plan: Plan) -> tuple[Wave, ...]:
        """All at once."""
        return plan.all_at_once()

    def first(self, plan: Plan) -> Borders:
        """S = 0 and the voltage of the source, on both sides."""
        out: dict[str, Values] = {}
        for name in plan.borders:
            out[name] = {key: value for x, value in plan.first(name).items() for key in (x, f"{x}.up", f"{x}.down")}
        return out

    def init(self, plan: Plan) -> State:
        """Both sides at the start, multipliers at the price of the source."""
        state = super().init(plan)
        size = price_size(plan)
        local, numbers = {}, {}
        for name, border in plan.borders.items():
            for x in copies(plan.voltages):
                one = plan.ones(name)
                local[f"{border.child}/{name}/{x}"] = one * plan.price_start if x == "p" else 0.0 * one
                unit = scale_of(plan, f"price_{x}", size) / scale_of(plan, x, size)
                numbers[f"{name}/{x}"] = self.penalty * UNIT[x] * unit * (1.0 if x in POWERS else self.ratio_v)
        return dataclasses.replace(state, local=local, numbers=numbers, price_scale=size)

    def inputs(self, plan: Plan, state: State, area: str) -> dict[str, Values]:
        """``lin_x`` and ``w_x`` of every border of an area."""
        out: dict[str, Values] = {}
        for name, border in plan.borders.items():
            if area not in (border.child, border.parent):
                continue
            below = area == border.child
            own, other, sign = ("up", "down", 1.0) if below else ("down", "up", -1.0)
            said, values = self.copy_of(plan, name, state.said[name], f".{own}"), {}
            heard, mean = (self.copy_of(plan, name, state.held[name], way) for way in (f".{other}", ""))
            for x in copies(plan.voltages):
                y = sign * state.local[f"{border.child}/{name}/{x}"]
                lin, w = self.terms(said[x], heard[x], mean[x], y, self.penalty_of(plan, state, name, x))
                values[f"lin_{x}"], values[f"w_{x}"] = lin, np.array(np.broadcast_to(w, lin.shape))
            out[name] = values
        return out

    def labelled(self, plan: Plan, border: str, sender: str, values: Values) -> Values:
        """``x.up`` of a child, ``x.down`` of a parent."""
        way = "up" if plan.borders[border].child == sender else "down"
        return {f"{x}.{way}": value for x, value in values.items()}

    def measured(self, plan: Plan, state: State) -> State:
        """Nothing yet: residuals need the new means, see `close`."""
        return state

    def close(self, plan: Plan, state: State) -> State:
        """Means and multipliers of the borders where both sides heard each other, and the residuals."""
        held = {name: dict(values) for name, values in state.held.items()}
        local, residuals = dict(state.local), dict(state.residuals)
        numbers = dict(state.numbers)
        for name, border in plan.borders.items():
            heard = [state.heard.get(f"{area}/{name}", 0) for area in (border.parent, border.child)]
            if heard != [state.round + 1] * 2:
                residuals.setdefault(name, float("inf"))
                continue
            said, apart, drift, sizes = state.said[name], {}, {}, {}
            ups, downs, olds = (
                self.copy_of(plan, name, values, way)
                for values, way in ((said, ".up"), (said, ".down"), (held[name], ""))
            )
            for x in copies(plan.voltages):
                key = f"{border.child}/{name}/{x}"
                up, down = said[f"{x}.up"], said[f"{x}.down"]
                unit, price_unit = (scale_of(plan, what, state.price_scale) for what in (x, f"price_{x}"))
                hours = 1.0 if x in POWERS else plan.counts
                mean = 0.5 * (up + down)
                penalty = self.penalty_of(plan, state, name, x)
                local[key] = self.moved(ups[x], downs[x], state.local[key], penalty)
                apart[x] = float(np.abs(up - down).max()) / unit
                drift[x] = float(np.abs(penalty * (0.5 * (ups[x] + downs[x]) - olds[x]) / hours).max()) / price_unit
                sizes[x] = (float(np.abs(mean).max()) / unit, float(np.abs(local[key] / hours).max()) / price_unit)
                held[name][x] = mean
            residuals[name] = max(*apart.values(), *drift.values())
            for x in POWERS if plan.voltages == ("v",) else ():
                (power, price), at = sizes[x], f"{name}/{x}"
                numbers[at] *= self.balance_of(state, apart[x] / max(power, 1e-9), drift[x] / max(price, 1e-9))
        residual = max(residuals.values(), default=0.0)
        return dataclasses.replace(
            state, held=held, local=local, residuals=residuals, residual=residual, numbers=numbers
        )

    def copy_of(self, plan: Plan, border: str, values: Values, way: str) -> dict[str, FloatArray]:
        """One side's copy of what crosses (``.up``, ``.down``) or their mean (nothing), matrices in components."""
        return in_components({x: values[f"{x}{way}"] for x in copies(plan.voltages)}, plan.borders[border].conductors)

    def penalty_of(self, plan: Plan, state: State, border: str, x: str) -> FloatArray:
        """The penalties of a quantity at a border, by conductor or component, and by step where it is
        of voltages, shape (n, 1 or T)."""
        share = np.ones((plan.shape(border)[0], 1))
        if "vv_re" in plan.voltages and len(share) > 1:
            if x == "v":
                share[1:] = self.ratio_unbalance**2
            elif x not in POWERS:  # the entry after the last one is that of the last and the first
                share[1:-1] = self.ratio_unbalance**2
                share[[0, -1]] = np.sqrt(self.ratio_unbalance)
            if x not in POWERS and border in plan.without_return:
                share[2 if x == "v" else slice(1, 3)] *= DECIDED if border in plan.without_charging else COMMON
        return state.numbers[f"{border}/{x}"] * share * (1.0 if x in POWERS else plan.counts)

    def counts(self, plan: Plan, x: str) -> FloatArray:
        """What an area's terms for a quantity are multiplied by in its objective, over the mean hours of a step, shape
        (T,)."""
        own: FloatArray = (plan.counts if x in POWERS else np.ones(plan.n_steps)) / plan.counts.mean()
        return own

    def balance_of(self, state: State, primal: float, dual: float) -> float:
        """What the penalty of P or Q at a border is multiplied by after a round: 1, unless an algorithm says otherwise.

        Args:
            state: the state at the end of the round, which is not yet counted.
            primal: how far the copies are apart, as a share of the power.
            dual: how far the penalty times the mean has moved, as a share of the multiplier.
        """
        return 1.0


def positive(algorithm: str, **options: float) -> None:
    """Check that options are finite and greater than zero.

    Raises:
        OptionError: all that are not.
    """
    wrong = [f"{name} = {value!r}" for name, value in options.items() if not (np.isfinite(value) and value > 0.0)]
    if wrong:
        message = f"{algorithm}: {', '.join(wrong)} must be finite and greater than zero"
        raise OptionError(message)


def price_size(plan: Plan) -> float:
    """What counts as 1 among prices, objective per kWh: the mean of the source's, where it has one, or what the plan
    says without any."""
    paid = np.abs(plan.price_start)[plan.price_start != 0.0]
    return float(paid.mean()) if len(paid) else plan.price_size


__all__ = ["UNIT", "Consensus", "positive", "price_size"]
