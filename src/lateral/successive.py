"""Rounds of a first-order formulation until nothing moves: successive convex programs with a trust region.

At a schedule whose power flow is x_k, the program made there (`lateral.program.tangent`) predicts for a step to x

    m_k(x) = objective + sum_i rho_i violation_i                  linear rows, curvature of the losses included
    merit(x) = the same where the schedule's exact rows hold      no row is to first order there

(Fletcher and Sainz de la Maza 1989, "Nonlinear programming and nonsmooth optimization by successive linear
programming"; Conn, Gould and Toint 2000, section 15.3.) A step is accepted when ``merit(x_k) - merit(x)`` is at least
`ACCEPT` of ``merit(x_k) - m_k(x)``. Decisions may move by no more than a radius, as a share of their range; the radius
shrinks after a rejected or badly predicted step and grows after a good one that it held back. Rounds end when the
predicted decrease is below `REST` of the objective and, where the step is not tiny (a flat merit), its power flow is no
worse, and within `AWAY` of what the program says: else a round is made from there, close by. rho_i is twice the
largest multiplier that the row's block has had; rows of decisions alone, which every step keeps, have none.

The curvature of m_k, that of the losses at positive prices, is what is convex of the Lagrangian's. Where steps show
that it is too little (limits that bind) or too much (an objective that has no price of losses), it is scaled: along a
step that brought ``gained`` where ``promised`` was predicted, and of which the curvature had cost q,
``1 + (promised - gained) / q`` times as much would have been right.

From the second step on that brings something else than its promise (`TRUSTED`) programs have the curvature of the exact
model, in the decisions, where there are not too many of them (`lateral.second_order`); what is scaled then is nothing.

Where a program has no point, or none that a solver finds, `lateral.restoration` looks for a schedule to go on from.

The exact rows of a schedule are solved by Newton's method from its power flow (`Tangent.solved`). In a power flow the
corners of loads are sharp and inverters give what they are told; the rows have the corners rounded and inverters on
their curves. A model with these and a merit with those promises what no step brings: where the optimum lies in a
corner steps were rejected until there was no trust region left.

What is left to choose once a schedule runs (how much of what a source gives is bought, the peak) is chosen at its best
for the merit; everything else of the network comes from the power flow.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lateral.case import Case
from lateral.devices.base import Declared, ShuntDevice
from lateral.first_order import At, Weights, at_any_voltage, beyond, chosen, in_order, weighed
from lateral.jumps import Crossed, crossed, second_state
from lateral.model import MOST_FALLS, Model, point_of
from lateral.network.admittance import NodeIndex
from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.operating import point_at, schedule_flow
from lateral.program import ProblemClass, Program
from lateral.program.tangent import Tangent
from lateral.restoration import restored
from lateral.results.one_way import held_at_zero
from lateral.results.residuals import earned_status, objective_size, recompute
from lateral.results.result import Result
from lateral.second_order import Parts, with_curvature
from lateral.solvers import SOLVERS, Options, Solution, Status

#: Predicted decrease, relative to the objective, at which a schedule is at rest.
REST = 1e-7
#: Share of the predicted decrease that a step must bring.
ACCEPT = 0.1
#: A prediction this good lets the radius grow, one below the other makes it shrink.
GOOD, POOR = 0.75, 0.25
#: The curvature is left alone until a step brings less or more than these shares of its promise.
TRUSTED = (0.5, 1.25)
#: How often the curvature of the losses is scaled for that before the exact model's is taken.
MISSES = 1
#: Most by which it changes at once, and the range of its factor.
FACTOR_STEP, FACTOR_RANGE = 4.0, (1e-3, 1e4)
#: How often a trust region is done away with at what rests within it.
MOST_FREED = 3
#: How often a program is made again for loads that left their band: a few come up at a time.
MOST_MADE = 10
ACROSS = "{} loads and steps are, or can be, across a jump of their law"
ASIDE = "keeping loads away from jumps of their law"
#: How often a program is made again for that; these rounds do not count.
MOST_SIDED = 20
#: A step below this share of the ranges needs no power flow to rest.
TINY = 1e-4
#: A schedule that gained nothing is its power flow when it is no further from it than this, in solver scale; else a
#: round is made from there with a trust region of this share of the step.
AWAY, NEARER = 1e-5, 0.03
#: A trust region below this is no step.
SMALLEST = 1e-6
#: Violation, and gap, of an inaccurate answer from which on it is no step.
NO_STEP = 1e-3
UNKNOWN = "that is of the first-order model; rounds to lessen the violation came to no end (see choices)"
WORN = "predictions are not accurate enough here"
UNSOLVED = "a step is judged by its power flow, as the program's own rows are not solved there"
#: Tolerance of the power flows, pu.
FLOW_TOLERANCE_PU = 1e-8


@dataclass(eq=False)
class Rounds:
    """State of the rounds.

    Attributes:
        case: the case, its inverters as the program has them, see `at_any_voltage`.
        tangent: of the program.
        net: branches, for the order of the nodes.
        at: last accepted schedule.
        radius: trust region, share of the range of each decision; inf for none.
        held: variables that follow from the voltages and have bounds.
        weights: of the violation of rows, cones and bounds.
        decisions: variables that set-points consist of.
        notes: what went otherwise than it should, each once.
    """

    case: Case
    tangent: Tangent
    net: RadialNetwork
    at: At
    radius: float = np.inf
    held: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    weights: Weights = field(default_factory=lambda: (np.zeros(0), np.zeros(0), np.zeros(0)))
    #: which two-sided rows and cones follow from the network, 1 or 0
    follows: tuple[FloatArray, FloatArray] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))
    decisions: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    #: variables that neighbours say, of an area: kept as decisions are, and of no trust region
    told: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    notes: list[str] = field(default_factory=list)
    #: whether the program has limits that the last accepted schedule was not made with
    fresh: bool = False
    #: variables that are held at zero
    zero: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    #: of the curvature of losses: 1 until steps showed that another is right
    factor: float = 1.0
    #: whether the last step gained nothing, and was made for the sake of what the power flow says
    flat: bool = False
    #: the schedule that keeps all limits, if rounds had to look for one; see `lateral.restoration`
    kept: At | None = None
    #: the schedule from which a longer step was rejected
    short: At | None = None
    #: how often a step was other than its promise
    misses: int = 0
    #: whether the program may have the curvature of the exact one, see `lateral.second_order`
    bends: bool = True
    #: whether it has
    second: bool = False
    #: what that needs to know; None where it cannot be had, and before anybody asked
    parts: Parts | None = None
    #: multipliers of that, and where the step that they are of began
    known: tuple[Solution, FloatArray] | None = None
    #: whether `known` are multipliers of a step that was not rejected
    sure: bool = False
    _shown: tuple[At, tuple[Solution, FloatArray], Program] | None = None

    @classmethod
    def start(
        cls, case: Case, tangent: Tangent, net: RadialNetwork, program: Program, *, told: IntArray | None = None
    ) -> Rounds:
        """At the point of a program; ``told`` are variables that neighbours say."""
        case = at_any_voltage(case, program)
        own = [
            output.affine.col[output.affine.col >= 0]
            for output in program.outputs
            if output.block.quantity in ("p_injected", "q_injected")
        ]
        # a susceptance, a share: settings are decisions as well; what follows the voltage is none
        settings = {f"{d.kind}.{d.setting}" for d in case.devices if isinstance(d, Declared) and d.setting}
        own += [
            output.affine.col[output.affine.col >= 0] for output in program.outputs if output.block.name in settings
        ]
        own += [np.arange(program.n)[block.cells] for block in program.variables if block.name in settings]
        follows = np.concatenate([np.zeros(0, dtype=np.int64), *tangent.network, *tangent.followers])
        decisions = np.setdiff1d(np.concatenate([np.zeros(0, dtype=np.int64), *own]), follows)
        network = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *tangent.network]))
        held = network[np.isfinite(program.lb[network]) | np.isfinite(program.ub[network])]
        told = np.zeros(0, dtype=np.int64) if told is None else told
        out = cls(case, tangent, net, At.of(program, held), decisions=decisions, told=told, held=held)
        out.weights = np.zeros(len(program.l)), np.zeros(program.products.n_rows), np.zeros(len(held))
        seen = np.zeros(program.n)
        seen[follows] = 1.0
        cones = program.products
        parts = np.bincount(cones.a_row, weights=abs(cones.a) @ seen, minlength=cones.n_rows)
        in_cones = parts + abs(cones.u) @ seen + abs(cones.v) @ seen
        out.follows = np.sign(abs(program.g) @ seen), np.sign(in_cones)
        x, note = chosen(tangent, program, program.start_point, out.fixed)
        out.notes += [note] if note else []
        out.at = At.of(dataclasses.replace(program, start_point=x), held)
        return out

    @property
    def fixed(self) -> IntArray:
        """Variables that a schedule consists of: decisions, and what neighbours say."""
        return np.union1d(self.decisions, self.told)

    def rebuilt(self, model: Model) -> Rounds:
        """The same schedule in a program that has more rows."""
        if model.tangent is None:
            return self
        old = {(b.name, b.elements): self.at.x[b.cells] for b in self.at.program.variables}
        x = model.program.start_point.copy()
        for block in model.program.variables:
            x[block.cells] = old.get((block.name, block.elements), x[block.cells])
        if self.at.v_pu is not None and model.tangent.state is not None:
            v = in_order(model.network, NodeIndex.of(model.case.feeder).nodes, self.at.v_pu)
            x = model.tangent.state(model.program, x, v, loaded=True)
        out = Rounds.start(model.case, model.tangent, model.network, model.tangent.moved(model.program, x))
        out.at = dataclasses.replace(out.at, v_pu=self.at.v_pu)
        out.radius, out.fresh, out.factor, out.flat = self.radius, self.fresh, self.factor, self.flat
        out.bends, out.misses = self.bends, self.misses
        if self.second:
            out.bend()
        # in another program they have other numbers: whoever asked for it looks again
        out.zero = self.zero if model.program.n == self.at.program.n else out.zero
        out.notes = list(dict.fromkeys([*self.notes, *out.notes]))
        return out

    # -- steps ----------------------------------------------------------------------------------------------------

    @property
    def program(self) -> Program:
        """The program at the last accepted schedule, with the curvature that it is to have."""
        if not self.second or self.parts is None or self.known is None:
            return self.at.program
        if self._shown is None or self._shown[0] is not self.at or self._shown[1] is not self.known:
            bent = with_curvature(self.tangent, self.at.program, self.parts, *self.known)
            self._shown = self.at, self.known, self.at.program if bent is None else bent
        return self._shown[2]

    def bounded(self) -> Program:
        """The program at the last accepted schedule, with decisions in the trust region."""
        return self.within(held_at_zero(self.program, self.zero))

    def within(self, program: Program) -> Program:
        """A program with decisions in the trust region around the last accepted schedule."""
        if not np.isfinite(self.radius):
            return program
        lb, ub, d = program.lb.copy(), program.ub.copy(), self.decisions
        reach = self.radius * self._range(program)
        # a side that was infinite stays so: the pattern that a solver was built for must not change
        lb[d] = np.where(np.isfinite(lb[d]), np.clip(self.at.x[d] - reach, lb[d], ub[d]), lb[d])
        ub[d] = np.where(np.isfinite(ub[d]), np.clip(self.at.x[d] + reach, lb[d], ub[d]), ub[d])
        return dataclasses.replace(program, lb=lb, ub=ub)

    def _range(self, program: Program) -> FloatArray:
        """Range of each decision; its scale where it has none, or is held."""
        d = self.decisions
        width = program.ub[d] - program.lb[d]
        return np.where(np.isfinite(width) & (width > 0.0), width, 2.0 * program.col_scale[d])

    def length(self, x: FloatArray) -> float:
        """Largest change of a decision from the last accepted schedule, as a share of its range."""
        width = np.maximum(self._range(self.at.program), 1e-12)
        return float(np.max(np.abs(x - self.at.x)[self.decisions] / width, initial=0.0))

    def away(self, x: FloatArray) -> float:
        """Largest difference of a step's voltages and currents from those of its power flow, which is accepted; in
        solver scale."""
        network = np.concatenate([np.zeros(0, dtype=np.int64), *self.tangent.network])
        return float(np.max(np.abs(x - self.at.x)[network] / self.at.program.col_scale[network], initial=0.0))

    def weigh(self, solution: Solution) -> None:
        """Make each row's weight at least twice the largest multiplier of its block. Rows of decisions alone need none:
        every step keeps them, and where they leave a decision no room (the sun at night) they have any multiplier."""
        program, (rows, cones, bounds) = self.at.program, self.weights
        for weights, blocks, dual, follows in (
            (rows, program.inequalities, solution.ineq_dual, self.follows[0]),
            (cones, program.product_blocks, solution.product_dual, self.follows[1]),
        ):
            for block in blocks:
                size = 2.0 * float(np.max(np.abs(dual[block.cells] * follows[block.cells]), initial=0.0))
                weights[block.cells] = np.maximum(weights[block.cells], size * follows[block.cells])
        size = 2.0 * float(np.max(np.abs(solution.reduced_cost[self.held]), initial=0.0))
        np.maximum(bounds, size, out=bounds)

    def predicted(self, solution: Solution) -> float:
        """Decrease of the merit that the program at the last accepted schedule promises of a step.

        Where its rows do not hold there to the last digit (corners of loads are rounded in it, not in the power flow),
        the duals y say what that is worth: ``y' (b - A x_k)``.
        """
        program, x = self.program, solution.x
        off = float(solution.eq_dual @ (program.b - program.a @ self.at.x))
        step = program.objective(x) + weighed(self.weights, beyond(program, self.held, x))
        return self.at.merit(self.weights) + off - step

    def size(self, x: FloatArray) -> float:
        """What a decrease is relative to."""
        return objective_size(self.at.program, x)

    def judge(self, result: Result) -> Verdict:
        """Accept or reject the step that a result is, and set the trust region for the next one."""
        if not result.ok and not (result.status is Status.INACCURATE and result.has_values):
            if self.at is self.kept:  # it has a point, the schedule itself: too far away to be found
                self.radius = 0.1 * min(self.radius, 1.0)
                stuck = "the first-order model is not solved" if self.radius < SMALLEST else ""
                return Verdict(f"{result.status.word} although the schedule keeps its limits", stuck=stuck)
            # the curvature of stiff branches may be what a solver fails at
            if result.status is not Status.INFEASIBLE and not self.second and self.known is not None and self.bend():
                return Verdict(f"{result.status.word}, to be solved with the curvature of the decisions alone")
            if not np.isfinite(self.radius):
                return Verdict(result.status_text, stuck=f"the first-order model is {result.status.word}")
            self.radius = 4.0 * self.radius if self.radius < 0.25 else np.inf
            return Verdict(f"{result.status.word} within the trust region, which grows to {self.radius:.1e}")
        x = result.solution.x
        self.weigh(result.solution)
        length, size, promised = self.length(x), self.size(x), self.predicted(result.solution)
        held = length > 0.99 * self.radius
        says = f"predicted decrease {promised / size:.1e} relative"
        # the unloaded feeder, a step borrowed from another, limits that are new: nothing to compare with
        if self.at.strange or self.fresh:
            there = self.reached(result.solution)
            if there is None:
                return Verdict("rejected, its power flow does not converge", stuck="no power flow to go on from")
            # loads that left their band have another law there: the program is made again before that is known
            if there.strange and self.at.strange and self.at.v_pu is not None:
                return Verdict("no power flow of this schedule", stuck=self._differs(there))
            before = "not made with these limits" if self.fresh else "no power flow of a schedule"
            self.known = result.solution, self.at.x
            self.at, self.fresh = there, False
            return Verdict(f"accepted, the point before was {before}; step {length:.1e}", accepted=True)
        # the program is convex: a step that is held back has no more than its promise times what it was held back by
        small = REST * size * (min(self.radius, 1.0) if held and not self.flat else 1.0)
        # so much the step would promise at the curvature that the prices gave
        plain = promised
        if self.factor > 1.0 and not self.second:
            plain += (self.factor - 1.0) * self.tangent.curvature(self.at.program, x)
        rests = -REST * size <= promised and plain <= small
        # multipliers of a step that was rejected bend the rows as they are elsewhere: a promise made with these is none
        stale = self.second and self.at is self.short and not self.sure
        if rests and length <= TINY:
            if stale:
                self.known, self.sure = (result.solution, self.at.x), True
                return Verdict(f"{says}, step {length:.1e}, to be seen with the multipliers of this step")
            return Verdict(f"{says}, step {length:.1e}", rests=True)
        there = self.reached(result.solution)
        if there is None:
            self.radius = 0.25 * length
            stuck = "the trust region has become too small" if self.radius < SMALLEST else ""
            return Verdict(f"rejected, its power flow does not converge; {says}", stuck=stuck)
        gained = self.at.merit(self.weights) - there.merit(self.weights)
        says = f"{says}, true {gained / size:.1e}, step {length:.1e}"
        low, high = TRUSTED
        if not self.second and not low * promised <= gained <= high * promised:
            self.misses += 1
            if self.misses > MISSES:
                self.bend()
        self.known = result.solution, self.at.x
        if (
            rests
        ):  # a flat merit: the schedule before is as good to first order, so the new one must be as good in truth
            if gained < -REST * size:
                self.radius, self.short, self.sure = 0.25 * length, self.at, False
                return Verdict(f"rejected, {says}")
            self.at = there
            doubtful = stale or gained > max(high * promised, REST * size)
            if self.away(x) <= AWAY and not doubtful:
                return Verdict(says, rests=True)
            if doubtful:
                self.sure = stale
                return Verdict(f"accepted, {says}", accepted=True)
            # as good, but its voltages, and with them its limits, are those of the first order: once more from here
            self.radius, self.flat = NEARER * length, True
            return Verdict(f"accepted, {says}", accepted=True)
        self.flat = False
        if promised < 0.0:  # by corners that the program rounds: the power flow has the last word
            if gained <= REST * size:
                return Verdict(says, stuck=WORN)
            self.at = self._reweighed(there, result.solution) if self._learned(x, promised, gained) else there
            return Verdict(f"accepted, {says}", accepted=True)
        if self._learned(x, promised, gained):
            there = self._reweighed(there, result.solution)
        share = gained / promised
        if share < POOR:
            self.radius = 0.5 * length
        elif share > GOOD and held:
            self.radius = 2.0 * self.radius
        if share < ACCEPT:
            # the next step from here knows the corners that this one went across
            self.at = self.short = self._reweighed(self.at, result.solution)
            self.sure = False
            stuck = "the trust region has become too small" if self.radius < SMALLEST else ""
            return Verdict(f"rejected, {says}", stuck=stuck)
        self.at = there
        return Verdict(f"accepted, {says}", accepted=True)

    def bend(self) -> bool:
        """Go on with the curvature of the exact program, if it can be had."""
        if self.bends and self.parts is None:
            self.parts = Parts.of(self.tangent, self.at.program, self.decisions)
        self.second = self.bends = self.parts is not None
        return self.second

    def free(self, solution: Solution) -> None:
        """Go on without a trust region, with the curvature that the prices give."""
        self.radius, self.factor = np.inf, 1.0
        self.at = self._reweighed(self.at, solution)

    def _learned(self, x: FloatArray, promised: float, gained: float) -> bool:
        """Whether a step changed the factor of the curvature: to what would have been right along it."""
        low, high = TRUSTED
        cost = 0.0 if self.second else self.tangent.curvature(self.at.program, x)
        if cost <= 0.0 or (self.factor == 1.0 and low * promised <= gained <= high * promised):
            return False
        change = np.clip(1.0 + (promised - gained) / cost, 1.0 / FACTOR_STEP, FACTOR_STEP)
        self.factor = float(np.clip(self.factor * change, *FACTOR_RANGE))
        return True

    def _reweighed(self, at: At, solution: Solution) -> At:
        """A point in the program that knows the multipliers and the last step of a solution at the accepted one."""
        program = self.tangent.reweighed(self.at.program, solution, at.x, self.factor)
        return dataclasses.replace(at, program=self.tangent.moved(program, at.x))

    # -- power flow -----------------------------------------------------------------------------------------------

    def reached(self, solution: Solution) -> At | None:
        """The schedule of a step with its power flow, where the rows of the program hold exactly: with corners of
        loads as they are in it, and inverters on their curves; None where that does not converge."""
        return self._flown(self.tangent.reweighed(self.at.program, solution, solution.x, self.factor), solution.x)

    def flow_at(self, x: FloatArray) -> At | None:
        """As `reached`, in the program as it is: of a step that knows no prices."""
        return self._flown(self.at.program, x)

    def _flown(self, program: Program, x: FloatArray) -> At | None:
        found = self._by_power_flow(program, x)
        exact = None if found is None else self._exact(found)
        if found is not None and exact is not None and found.left:
            # what follows the voltage gave what the step said; now what it gives there
            found = self._by_power_flow(program, exact.start_point)
            exact = None if found is None else self._exact(found)
        if found is None or exact is None or found.left:  # other laws than the program's: it is to be made again
            return found
        return self._at(exact, exact.start_point, found.v_pu)

    def _exact(self, at: At) -> Program | None:
        """The program where its own rows hold; None where they are not solved: the power flow has to do."""
        exact = self.tangent.solved(at.program, at.x, self.decisions)
        if isinstance(exact, str):
            # where loads left their side of a band it has not their law, and is made again
            self.note("" if at.astray else f"{UNSOLVED}: {exact}")
            return None
        return exact

    def note(self, what: str) -> None:
        """Say something once; nothing where it is empty."""
        self.notes += [] if not what or what in self.notes else [what]

    def _by_power_flow(self, program: Program, x: FloatArray) -> At | None:
        """The set-points in x with their power flow; None where that does not converge."""
        flow = schedule_flow(self.case, program, x, tolerance_pu=FLOW_TOLERANCE_PU)
        if not np.all(flow.converged) or self.tangent.state is None:
            return None
        v = in_order(self.net, flow.index.nodes, flow.v_pu)
        return self._at(program, self.tangent.state(program, x, v, loaded=True), flow.v_pu)

    def _at(self, program: Program, x: FloatArray, v_pu: ComplexArray | None) -> At:
        """The point x, with what is left to choose there at its best."""
        x, note = chosen(self.tangent, program, x, self.decisions)
        self.note(note)
        return At.of(self.tangent.moved(program, x), self.held, v_pu)

    def _differs(self, at: At) -> str:
        """Where the power flow of a schedule and its program differ most: why no further round helps."""
        balances = [b for b in at.program.equalities if b.name in ("bus.i_re", "bus.i_im")]
        off = np.concatenate([at.violation[0][b.cells].reshape(len(b.elements), -1) for b in balances])
        row, step = np.unravel_index(int(np.argmax(off)), off.shape)
        node = [element for b in balances for element in b.elements][int(row)]
        devices = [d for d in self.case.devices if isinstance(d, ShuntDevice)]
        own = [d.label for d in devices if any(f"{bus}.{c}" == node for bus, port in d.places for c in port)]
        return (
            f"the power flow of the schedule and the program differ at {node} at step {step}, where "
            f"{', '.join(own[:3]) or 'no device'}{', ...' if len(own) > 3 else ''} "
            f"{'draws' if len(own) == 1 else 'draw'} another power in each; take current-voltage, which needs no "
            "power flow, and mind its replay"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a step.

    Attributes:
        text: one sentence.
        accepted: whether it is the new schedule.
        rests: whether nothing is left to gain.
        stuck: why no further round helps; empty when one does.
    """

    text: str
    accepted: bool = False
    rests: bool = False
    stuck: str = ""


def lost(result: Result) -> bool:
    """Whether a program has no point, or none that its solver came near to."""
    if result.status is not Status.INACCURATE:
        return result.status in (Status.INFEASIBLE, Status.ERROR)
    off = result.residuals
    return not max(off.max_primal, off.max_bound, off.duality_gap) <= NO_STEP


def settle(
    model: Model,
    result: Result,
    *,
    rounds: int,
    solver: str = "auto",
    options: Options | None = None,
    progress: Callable[[int], None] | None = None,
    zero: IntArray | None = None,
) -> Result:
    """Rounds until the schedule rests; the model is left at the last schedule that was accepted.

    Args:
        model: a model whose program is to first order.
        result: its solution, the first round.
        rounds: at most so many, the first one included; those after which loads change sides of a jump do not count.
        solver: see `Model.solve`.
        options: see `Model.solve`.
        progress: called with the number of each further round.
        zero: variables to be held at zero, which they were not at the program's point.

    Returns:
        the last round where it came to rest; else the last one that was accepted, with status ``limit_reached``; where
        no schedule nearby keeps the limits, ``locally_infeasible``, with those that give way.
    """
    goes_on = (
        result.ok or result.status is Status.INACCURATE or lost(result)
    )  # one that is not quite solved makes a step
    if model.tangent is None or not goes_on or rounds < 2:
        return result
    begin, spent = time.perf_counter(), result.seconds["solve"]
    state = Rounds.start(model.case, model.tangent, model.network, model.program)
    if zero is not None:
        state.zero, state.fresh = zero, True
    state.bends = solver == "auto" or ProblemClass.QP in SOLVERS[solver].solver.accepts
    told: list[str] = []
    best, accepted, k, made, sided, freed = result, False, 1, 0, 0, 0
    choices = list(result.choices)

    def across(of: Result, program: Program) -> Crossed:
        """Loads that are across a jump in the laws of a program, or can be in another power flow of the schedule."""
        x, beside = of.solution.x, model.beside
        found = crossed(of.program, x, beside, fall=sided < MOST_FALLS)
        return found if found.count else second_state(model.case, program, x, model.network, point_of(of).v_pu, beside)

    def solved(at: Rounds) -> tuple[Rounds, Result]:
        """The next round; where a limit had been left out, in the program that has it."""
        model.program = at.bounded()
        found = model.solve(solver, options, explain_infeasible=False)
        if model.tangent is not at.tangent:
            choices.extend(c for c in found.choices if c not in choices)
            at = at.rebuilt(model)
            model.program = at.bounded()
            found = model.solve(solver, options, explain_infeasible=False)
        choices.extend(c for c in found.choices if c not in choices)
        return at, found

    def counted() -> None:
        nonlocal k
        k += 1
        if progress is not None:
            progress(k)

    def made_again(of: Result) -> bool:
        """The program where loads that left their band have their law; False where it cannot be built again."""
        nonlocal made, state
        assert state.at.v_pu is not None
        made += 1
        model.program = state.at.program
        point = dataclasses.replace(point_at(model.case, state.at.v_pu, loaded=True), beside=model.beside)
        if not model.make_at(point, of):
            return False
        state = state.rebuilt(model)
        told.append("made again at the power flow of the schedule: loads left their band")
        return True

    found = None
    while True:
        # a trust region that grows again would lead to the step that was rejected
        far = not np.isfinite(state.radius) or state.at is state.short
        if lost(result) and far and state.at is not state.kept:
            while True:
                found = restored(state, rounds - (k - sided), counted, leave=made < MOST_MADE)
                told.extend(found.told)
                if not found.left or not made_again(result):
                    break
            if not found.within:
                why = f"the first-order model is {result.status.word}"
                if found.least and sided:  # the side that was taken of a jump may be what is in the way
                    why = f"{ASIDE} left no schedule nearby that keeps the limits"
                    found = dataclasses.replace(found, least=False)
                verdict = Verdict(result.status_text, stuck=why)
                break
            state.kept, state.fresh, found = state.at, False, None
            if k - sided < rounds:
                counted()
                state, result = solved(state)
        # the bounds of the trust region are no limits of the schedule
        whole, other = held_at_zero(state.program, state.zero), Crossed()
        if sided < MOST_SIDED and result.ok:
            other = crossed(result.program, result.solution.x, model.beside, fall=sided < MOST_FALLS)
        if other.count:
            verdict = Verdict(ACROSS.format(other.count))
        else:
            verdict = state.judge(result)
            told.append(f"round {k}: {verdict.text}")
            if verdict.accepted or verdict.rests:
                best, accepted = dataclasses.replace(result, program=whole), True
            settled = verdict.rests or (verdict.accepted and state.at.left)
            if settled and sided < MOST_SIDED:
                other = across(result, whole)
        if other.count:
            sided, model.program = sided + 1, whole
            if not other.stuck and model.make_at(point_of(result, other.beside), result):
                k += 1
                if progress is not None:
                    progress(k)
                state = state.rebuilt(model)
                state.fresh, state.radius = True, np.inf
                told.append(f"made again: {ACROSS.format(other.count)}")
                state, result = solved(state)
                continue
            verdict = Verdict(verdict.text, stuck=ACROSS.format(other.count))
        within = verdict.rests and np.isfinite(state.radius) and freed < MOST_FREED and k - sided < rounds
        # what is next to nothing within a trust region may be too much for the certificate without it
        if within and earned_status(whole, best.solution, recompute(whole, best.solution)) is not Status.OPTIMAL:
            freed += 1
            state.radius, verdict = np.inf, Verdict(verdict.text)
        if verdict.stuck == WORN and freed < MOST_FREED and k - sided < rounds:
            # a curvature that many short steps made large promises nothing: whether there is something, that of the
            # prices says, without a trust region
            freed, verdict = freed + 1, Verdict(verdict.text)
            state.free(result.solution)
        if verdict.rests or verdict.stuck or k - sided >= rounds:
            break
        k += 1
        if progress is not None:
            progress(k)
        if verdict.accepted and made < MOST_MADE and state.at.left and state.at.v_pu is not None:
            made_again(result)
        state, result = solved(state)
    if verdict.rests and sided >= MOST_SIDED and (other := across(best, best.program)).count:
        verdict = Verdict(verdict.text, stuck=ACROSS.format(other.count))
    model.program = state.at.program
    seconds = {**best.seconds, "solve": spent + time.perf_counter() - begin}
    seconds["total"] = sum(value for name, value in seconds.items() if name != "total")
    if found is not None and (found.least or not accepted):
        # the optimum of a program that its own power flow rejected is none
        status = Status.LOCALLY_INFEASIBLE if found.least else Status.LIMIT_REACHED if best.ok else best.status
        unknown = () if found.least or found.impossible else (UNKNOWN,)
        return dataclasses.replace(
            best,
            status=status,
            conflicts=found.conflicts if found.least else best.conflicts,
            cautions=(*best.cautions, *unknown),
            seconds=seconds,
            choices=(*choices, *told, *state.notes),
        )
    if not accepted and lost(best):  # a schedule that keeps the limits is there, but none that a program chose
        nowhere = dataclasses.replace(best.solution, x=np.full_like(best.solution.x, np.nan))
        best = dataclasses.replace(best, solution=nowhere, conflicts=())
    residuals = recompute(best.program, best.solution)
    status = earned_status(best.program, best.solution, residuals)
    cautions: tuple[str, ...] = ()
    if verdict.rests and status is Status.OPTIMAL:
        told.append(f"at rest after {k} rounds: a local optimum of the exact model")
    elif verdict.rests:
        told.append(f"at rest after {k} rounds, but without its trust region the last solve is {status.word}")
    else:
        status = Status.LIMIT_REACHED
        which = "the last one whose power flow was better" if accepted else "the first one, for want of a better"
        reason = verdict.stuck or f"{rounds} rounds were not enough"
        cautions = (f"the schedule is {which}; the rounds did not come to rest: {reason} (round {k}: {verdict.text})",)
    return dataclasses.replace(
        best,
        residuals=residuals,
        status=status,
        cautions=(*best.cautions, *cautions),
        seconds=seconds,
        choices=(*choices, *told, *state.notes),
    )


__all__ = ["ACCEPT", "REST", "Rounds", "Verdict", "settle"]
