"""Model: a built problem that is solved, given new data, and solved again without rebuilding."""

from __future__ import annotations

import dataclasses
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from lateral import solvers
from lateral.case import Case
from lateral.devices.base import Declared
from lateral.errors import OptionError, UnsupportedError, did_you_mean
from lateral.formulations import Beside, Formulation, OperatingPoint
from lateral.jumps import SIDE_PU, Crossed, beyond_sides, crossed, second_state
from lateral.network.admittance import NodeIndex
from lateral.network.branches import RadialNetwork
from lateral.network.schema import FloatArray
from lateral.objectives import Objective
from lateral.objectives.energy_cost import EnergyCost, loss_price_of
from lateral.program import ProblemClass, Program
from lateral.program.ports import Crossing
from lateral.program.tangent import OWN_SLOTS, Tangent
from lateral.results.infeasible import EXPLAIN_S, LEAST_SUM, least_violation, without_point
from lateral.results.one_way import one_way
from lateral.results.residuals import GAP_TOLERANCE, certified_bound, earned_status, objective_size, recompute
from lateral.results.result import Result
from lateral.results.retry import RETRY_TOLERANCE, along_path, judged, nearer, tighter
from lateral.solvers import Options, Session, Solution, Status
from lateral.solvers.base import pattern_of
from lateral.solvers.elastic import LOCAL_TOLERANCE, Conflict, explain

#: Voltages that differ by no more than this are the same point, pu.
SAME_PU = 1e-9
#: A voltage further than this beyond its limit is one whose limit was left out, pu.
BEYOND_PU = 1e-6
LEFT_SIDE = "loads left the side of their band that was taken, by {:.1e} pu"
#: How often a problem is built again with what was wrongly left out; and so often where loads are across a jump of
#: their law, as a few come up at a time.
MOST_LOOKS, MOST_JUMPS = 6, 30
#: In so many of these first, loads may go down through a jump.
MOST_FALLS = 4
#: Quantities of voltage, and what follows from it.
VOLTAGES = ("v_re", "v_im", "vmag_sq", "v_power", "law")
#: Exact programs up to this many variables are solved from their convex relaxation, which also bounds the optimum.
RELAX_UP_TO = 400_000


class Rebuild(Protocol):
    """Builds the problem of a model anew."""

    def __call__(
        self, case: Case, *, at: OperatingPoint | None, screen: bool, enforce: frozenset[str], beyond: float = 0.0
    ) -> Model:
        """For a case, at another operating point when one is given, with or without leaving out branch limits, with
        the limits of the nodes and branches named, and laws of loads beyond the limits of voltages."""


@dataclass(eq=False)
class Model:
    """A built problem: solve it, update its data, solve it again without rebuilding.

    This is the one stateful object: it keeps the solver that was built and the last solution to start from.

    Attributes:
        case: the case it was built from, with updated data.
        formulation: the formulation.
        objective: the objective.
        program: the program with its present data.
        network: the branches.
        choices: what ``auto`` picked and why.
        seconds: wall time of the phases so far.
        rebuild: builds the problem anew; see `Rebuild`.
        screened: whether branch limits that no flow could reach were left out.
        enforced: nodes and branches whose limits are written although they seemed far from binding.
        tangent: of a program to first order: moves it to another point.
        point: the operating point that it was last built at, where that is another one than it began with.
        otherwise: of what ``auto`` took, where it may not end: builds what ``auto`` goes on with, see
            `lateral.opf.worked_out`.
        crossing: what can occur at buses where other areas begin, by bus, see `NetworkModel.crossing`.
    """

    case: Case
    formulation: Formulation
    objective: Objective
    program: Program
    network: RadialNetwork
    choices: tuple[str, ...]
    seconds: dict[str, float]
    rebuild: Rebuild | None = field(default=None, repr=False)
    screened: bool = False
    enforced: frozenset[str] = frozenset()
    tangent: Tangent | None = None
    point: OperatingPoint | None = None
    otherwise: Callable[[Case], Model] | None = field(default=None, repr=False)
    crossing: Mapping[str, Crossing] = field(default_factory=dict, repr=False)
    _session: tuple[str, Options | None, str, tuple[int, ...], str, Session] | None = field(default=None, repr=False)
    _last: Solution | None = field(default=None, repr=False)
    _q_per_p: FloatArray | None = field(default=None, repr=False)

    def update(
        self,
        *,
        loads: Mapping[str, FloatArray] | FloatArray | None = None,
        loads_q: Mapping[str, FloatArray] | FloatArray | None = None,
        prices: FloatArray | float | None = None,
        initial: Mapping[str, float] | FloatArray | None = None,
        pv: Mapping[str, FloatArray] | FloatArray | None = None,
    ) -> Model:
        """New data for the next solve, in place; nothing is rebuilt, but where numbers were written into rows
        (`Program.baked`), or the two prices of a source meet at other steps than before. Returns the model.

        Args:
            loads: active power at rated voltage, kW: by load name (T,), or (n_loads, T). Reactive power follows in
                proportion unless ``loads_q`` is given, or the model of the load fixes it.
            loads_q: reactive power at rated voltage, kvar; of a load whose model fixes it, the same at every step.
            prices: import price, $/kWh, shape (T,) or one number; a single export price that follows it changes too.
            initial: stored energy at the beginning, kWh: by battery name, or (n_batteries,).
            pv: what the sun offers, kW: by PV name (T,), or (n_pv, T).

        Raises:
            OptionError: a name that does not exist, a shape that does not fit, values that are not finite, or a fixed
                reactive power that varies.
        """
        values: dict[str, FloatArray] = {}
        if loads is not None:
            values["load.p_kw"] = self._rows("load.p_kw", loads)
            if loads_q is None:
                values["load.q_kvar"] = self._in_proportion(values["load.p_kw"])
        if loads_q is not None:
            values["load.q_kvar"] = self._rows("load.q_kvar", loads_q)
        if prices is not None:
            values["source.price_import"] = self._rows("source.price_import", prices)
        if initial is not None:
            as_rows = initial if isinstance(initial, Mapping) else np.asarray(initial, dtype=float).reshape(-1, 1)
            values["battery.energy_initial_kwh"] = self._rows("battery.energy_initial_kwh", as_rows)
        if pv is not None:
            values["pv.p_available_kw"] = self._rows("pv.p_available_kw", pv)
        return self.update_data(values)

    def update_data(self, values: Mapping[str, FloatArray]) -> Model:
        """New values of data slots by their names (`Program.slots`), in place.

        Raises:
            OptionError: no such slot, or values that do not fit.
        """
        full = dict(values)
        share = sum(w for w, o in self.objective.terms if isinstance(o, EnergyCost))
        if share and "source.price_import" in full and "system.loss_price" in self.program.slots:
            old = self._slot("source.price_import")
            new = np.broadcast_to(np.asarray(full["source.price_import"], dtype=float), old.shape)
            change = share * (loss_price_of(new) - loss_price_of(old))
            full["system.loss_price"] = self._slot("system.loss_price") + change
        for cls, group in groups(self.case):
            for name, new in values.items():
                full.update(cls.derived_data(group, name, np.asarray(new, dtype=float)))
        program = self.program.update(full)
        self.case = _with_data(self.case, full)  # may refuse the values: until here nothing has changed
        self.program = program
        if self.tangent is not None:  # coefficients that follow from the data and the point, curves of data among it
            x = self.program.start_point.copy()
            self.tangent.curves(x, self.program.theta)
            self.program = self.tangent.moved(self.program, x)
        series = self.case.series
        alike = all(
            s.trades_alike(self.program, series(s.price_import), series(s.price_export))
            for s in self.case.sources
            if s.price_export is not None
        )
        if self.rebuild is not None and (self.program.baked & set(full) or not alike):
            self.point = None
            self._take_over(self.rebuild(self.case, at=None, screen=self.screened, enforce=self.enforced), None)
            self._session, self._last = None, None
        return self

    @property
    def _wants_relaxation(self) -> bool:
        """Whether an exact model is solved from its convex relaxation: where that is cheap."""
        convexifies = self.program.problem_class is ProblemClass.NLP and self.program.has_relaxation
        return convexifies and self.program.n <= RELAX_UP_TO

    def _in_proportion(self, p_kw: FloatArray) -> FloatArray:
        """Reactive power at the ratio q / p last seen while p was not zero; q stays where p never was, or is fixed."""
        old_p, old_q = self._slot("load.p_kw"), self._slot("load.q_kvar")
        known = old_p != 0.0
        before = np.full(old_p.shape, np.nan) if self._q_per_p is None else self._q_per_p
        self._q_per_p = np.divide(old_q, old_p, out=before.copy(), where=known)
        follows = {load.name: load.q_follows_profile for load in self.case.loads}
        fixed = np.array([not follows[name] for name in self.program.slots["load.q_kvar"].elements])[:, None]
        return np.where(np.isnan(self._q_per_p) | fixed, old_q, self._q_per_p * p_kw)

    def _slot(self, name: str) -> FloatArray:
        if name not in self.program.slots:
            message = f"the case has no data {name!r}. {did_you_mean(name, list(self.program.slots))}"
            raise OptionError(message)
        slot = self.program.slots[name]
        return self.program.theta[slot.cells].reshape(len(slot.elements), slot.n_steps)

    def _rows(
        self, name: str, given: Mapping[str, FloatArray] | Mapping[str, float] | FloatArray | float
    ) -> FloatArray:
        """Present values of a slot with the rows given replaced."""
        present = self._slot(name).copy()
        if not isinstance(given, Mapping):
            return _fitted(repr(name), given, present.shape)
        place = {e: k for k, e in enumerate(self.program.slots[name].elements)}
        for element, row in given.items():
            if element not in place:
                message = f"there is no {name.split('.')[0]} {element!r}. {did_you_mean(element, list(place))}"
                raise OptionError(message)
            present[place[element]] = _fitted(f"{element!r} of {name!r}", row, present.shape[1:])
        return present

    def solve(
        self,
        solver: str = "auto",
        options: Options | None = None,
        *,
        explain_infeasible: bool = True,
        sides: bool = True,
        one_way_only: bool = True,
        avoid: str = "",
    ) -> Result:
        """Solve with the present data; starts from the last solution where the solver can.

        A problem from which something was left out (limits far from binding; the side of its band that a load takes) is
        looked at after the solve. Where that was wrong it is built again with it and solved from the schedule, at most
        `MOST_LOOKS` (`MOST_JUMPS`) times; ``choices`` says so, and a result in which something is still wrong is
        ``inaccurate``.

        Args:
            solver: ``auto`` or a name.
            options: typed options of the solver.
            explain_infeasible: re-solve an infeasible problem elastically and name the limits that cause it.
            sides: whether to look at the sides of bands as well; False where what a neighbour says is not yet settled.
            one_way_only: whether devices of an exact program that go two ways at once are held to one of the
                two, see `lateral.results.one_way`; False where the program is one area's, or compared with areas.
            avoid: a solver that ``auto`` is not to take.
        """
        begin, built = time.perf_counter(), 0.0
        result = self._solve(
            solver, options, explain_infeasible=explain_infeasible, one_way_only=one_way_only, avoid=avoid
        )
        notes: list[str] = []
        jumps: list[str] = []
        limit = np.inf if options is None or options.time_limit_s is None else options.time_limit_s
        while True:
            wrong = self._left_out(result, sides=sides, fall=len(jumps) < MOST_FALLS)
            if not wrong.note:
                break
            spent = len(jumps) >= MOST_JUMPS if wrong.crossed.count else len(notes) >= MOST_LOOKS
            late = time.perf_counter() - begin > limit
            if spent or late or not self._can_write(wrong):
                if self.tangent is not None:  # written to first order already: the rounds bring it within
                    break
                caution = f"{wrong.note}, and {'time ran out' if late else 'writing it did not mend it'}"
                result = dataclasses.replace(result, status=Status.INACCURATE, cautions=(*result.cautions, caution))
                break
            start = time.perf_counter()
            state = self.program, self.network, self.choices, self.point, self.enforced, self.screened
            self._build_again(wrong, result)
            built += time.perf_counter() - start
            if wrong.crossed.count:
                jumps.append(wrong.note)
            else:
                notes.append(f"built and solved again: {wrong.note}")
            says_why = explain_infeasible and not wrong.crossed.count
            before, result = (
                result,
                self._solve(solver, options, explain_infeasible=says_why, one_way_only=one_way_only, avoid=avoid),
            )
            if not result.ok and wrong.crossed.count:
                caution = f"{wrong.note}, and keeping them away from it ended {result.status.word}"
                cautions = (*before.cautions, caution)
                result = dataclasses.replace(before, status=Status.INACCURATE, cautions=cautions)
                # a next solve is of what could be solved
                self.program, self.network, self.choices, self.point, self.enforced, self.screened = state
                self._session, self._last = None, None
                break
        if wrong.crossed.unknown and result.ok:
            caution = (
                f"whether loads near a jump of their law have a second state is not known at {wrong.crossed.unknown} "
            )
            caution += "steps, whose power flow does not converge; mind the replay"
            result = dataclasses.replace(result, cautions=(*result.cautions, caution))
        if jumps:
            seen = "; ".join((jumps[0], jumps[-1]) if len(jumps) > 1 else jumps)
            notes.append(f"built and solved again, {len(jumps)} times, for jumps in the laws of loads: {seen}")
        over = 0.0 if self.formulation.lazy or not result.ok else beyond_sides(result.program, result.solution.x)
        if over > SIDE_PU:
            law = f"{LEFT_SIDE.format(over)}: {self.formulation.name} has their law on that side only"
            caution = f"but {law}; take current-voltage, or mind the replay"
            result = dataclasses.replace(result, cautions=(*result.cautions, caution))
        seconds = {**self.seconds, "solve": time.perf_counter() - begin - built}
        seconds["build"] = seconds.get("build", 0.0) + built
        seconds["total"] = sum(v for k, v in seconds.items() if k != "total")
        return dataclasses.replace(result, seconds=seconds, choices=(*result.choices, *notes))

    def slopes(self, columns: sp.csc_array) -> tuple[FloatArray, FloatArray] | None:
        """How the last solution moves with costs, see `lateral.solvers.base.Session.slopes`; None where not known."""
        return None if self._session is None else self._session[-1].slopes(columns)

    def _solve(
        self, solver: str, options: Options | None, *, explain_infeasible: bool, one_way_only: bool, avoid: str
    ) -> Result:
        """Solve the program as it is."""
        begin, choices = time.perf_counter(), list(self.choices)
        name = solver
        if solver == "auto":
            name, why = solvers.choose(self.program, avoid=avoid)
            choices.append(f"solver {name}: {why}")
        asked = name
        pattern = pattern_of(self.program)
        key = (asked, options, avoid, pattern)
        known = self._session
        others_too = known is not None and known[:4] != key and (known[0], *known[2:4]) == (asked, avoid, pattern)
        if known is not None and others_too and known[-1].takes(options):
            known = self._session = (*key, *known[4:])
        if known is None or known[:4] != key:
            try:
                session = _session_of(name, options, self.program, avoid=avoid)
            except UnsupportedError as why:
                if solver != "auto" or name != "native" or avoid == "ipopt":
                    raise
                name = solvers.choose(self.program, avoid="native")[0]
                choices.append(f"solver {name}: native declines, {why.faults[0].found}")
                session = solvers.get(name, options).start(self.program)
            self._session = (asked, options, avoid, pattern, name, session)
            self._last = None
        assert self._session is not None
        name = self._session[4]
        bounded = solver == "auto" and self._last is None and self._wants_relaxation
        # Ipopt gains from the start; the structured solver needs none, and its multipliers often are the bound
        relaxation = _Relaxation.solve(self.program, options) if bounded and name != "native" else None
        start = self._last if relaxation is None or relaxation.solution is None else relaxation.solution
        if relaxation is not None and relaxation.infeasible:
            solution, status = relaxation.proof, Status.INFEASIBLE
            residuals = recompute(self.program, solution)
        else:
            solution = self._session[-1].solve(self.program, start)
            choices += solution.notes
            status, residuals = judged(self.program, solution)
            if solution.solver != name:
                choices.append(f"fallback to {solution.solver}: {solution.message}")
        takes = self.program.problem_class in solvers.SOLVERS["ipopt"].solver.accepts
        other = solvers.choose(self.program, avoid="native")[0] if solution.solver == "native" else "ipopt"
        asks = solver == "auto" and other not in (solution.solver, avoid) and (takes or other != "ipopt")
        first, earned = solution, status
        if options is None and (again := tighter(self.program, solution, status, path=not asks)) is not None:
            choices.append(_solved_again(again))
            solution, (status, residuals) = again, judged(self.program, again)
        unsure = status in (Status.INACCURATE, Status.ERROR)
        # cones that it goes round in until its own limit of iterations
        unsure |= status is Status.LIMIT_REACHED and options is None and solution.solver == "clarabel"
        # a ray that it takes for one in its first iterations, between two sources
        endless = status is Status.UNBOUNDED and solution.solver == "clarabel"
        if (unsure or endless) and asks:
            plain = None if options is None else options.plain()
            within = None if plain is None else plain.within(begin + (plain.time_limit_s or np.inf))
            again = solvers.get(other, within).solve(self.program, None)
            word, found = judged(self.program, again)
            # Ipopt may stop at a gap of 1e-5 at its own tolerance: `soc3` with a small objective, such as losses
            if options is None and (closer := tighter(self.program, again, word)) is not None:
                again, (word, found) = closer, judged(self.program, closer)
            if word is Status.OPTIMAL or (unsure and word is Status.INACCURATE and nearer(found, residuals)):
                choices.append(f"fallback to {other}: {solution.solver} ended {status.word}")
                solution, status, residuals = again, word, found
            if options is None and unsure and status is not Status.OPTIMAL:
                path = along_path(self.program, first, earned)
                if path is not None:
                    choices.append(_solved_again(path))
                    solution, (status, residuals) = path, judged(self.program, path)
        program, cautions = self.program, []
        turned = None
        until = begin + (np.inf if options is None or options.time_limit_s is None else options.time_limit_s)
        if one_way_only and status is Status.OPTIMAL:
            turned = one_way(program, solution, options, until=until, avoid=avoid)
        if turned is not None:
            program, solution = turned.program, turned.solution
            status, residuals = judged(program, solution)
            choices += [turned.choice] if turned.choice else []
            cautions += [turned.caution] if turned.caution else []
        if bounded and status is Status.OPTIMAL:
            choices += _bound(self.program, solution, relaxation, options)
        conflicts: tuple[Conflict, ...] = ()
        convex = self.program.problem_class is not ProblemClass.NLP
        if convex and without_point(status, residuals):
            least = least_violation(self.program, self._wider, ipopt=takes, until=until)
            if least is not None and least.proved > LEAST_SUM:
                status, conflicts = Status.INFEASIBLE, least.conflicts if explain_infeasible else ()
                choices.append(f"infeasible by proof of the least violation: {solution.solver} ended without a point")
        elif status in (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE) and explain_infeasible:
            if convex or (status is Status.INFEASIBLE and self.program.has_relaxation):
                proved, wider = (self.program, self._wider) if convex else (self.program.relaxed(), None)
                least = least_violation(proved, wider, ipopt=takes, until=until)
                conflicts = () if least is None else least.conflicts
                if least is not None and not least.proved:  # a certificate to its own tolerance, of bad scales
                    status = Status.ERROR
                    cautions.append(f"{solution.solver} says that it is infeasible, but a point keeps every limit")
            else:
                local = Options(tolerance=LOCAL_TOLERANCE, time_limit_s=EXPLAIN_S).within(until)
                conflicts = explain(self.program, solvers.get("ipopt", local))
        if status is Status.INFEASIBLE and not convex and self.program.has_relaxation:
            choices.append("infeasible by proof: the convex relaxation of the exact model is infeasible")
        if status is Status.OPTIMAL:
            self._last = solution
        return Result(
            case=self.case,
            formulation=self.formulation.name,
            objective_name=objective_name(self.objective),
            status=status,
            program=program,
            solution=solution,
            residuals=residuals,
            network=self.network,
            seconds={},
            choices=tuple(choices),
            conflicts=conflicts,
            cautions=tuple(cautions),
        )

    @property
    def _wider(self) -> Callable[[float], Program] | None:
        """Builds the program with its laws of loads for voltages beyond their limits; None where it has them anyway."""
        rebuild = self.rebuild
        if rebuild is None or not self.formulation.bounds_currents:
            return None

        def wider(beyond: float) -> Program:
            fresh = rebuild(self.case, at=self.point, screen=self.screened, enforce=self.enforced, beyond=beyond)
            return fresh.program.update(self._present(fresh.program))

        return wider

    def _present(self, program: Program) -> dict[str, FloatArray]:
        """Present data for another program of this model."""
        names = [n for n in self.program.slots if n in program.slots and not n.startswith(OWN_SLOTS)]
        return {name: self._slot(name) for name in names}

    def _left_out(self, result: Result, *, sides: bool, fall: bool = True) -> _LeftOut:
        """What the result shows to be wrong of what was left out of the problem."""
        if self.rebuild is None or not result.ok:
            return _LeftOut("")
        if not self.formulation.lazy:
            if self.screened and _overloaded(result):
                return _LeftOut("a branch limit that was left out is exceeded", screen=False)
            return _LeftOut("")
        beyond = _beyond(result)
        # a program to first order is looked at in the power flow of its schedule, see `lateral.successive`
        looks = sides and self.tangent is None
        over = beyond_sides(result.program, result.solution.x) if looks else 0.0
        said, other = [], Crossed(beside=self.beside)
        if beyond:
            some = ", ".join(sorted(beyond)[:3]) + (", ..." if len(beyond) > 3 else "")
            said.append(f"{len(beyond)} limits that were left out are exceeded ({some})")
        if over > SIDE_PU:
            said.append(LEFT_SIDE.format(over))
            other = crossed(result.program, result.solution.x, self.beside, fall=fall)
        elif looks and not beyond:
            v_pu = point_of(result).v_pu
            other = second_state(self.case, result.program, result.solution.x, self.network, v_pu, self.beside)
            if other.count:
                said.append(f"{other.count} loads and steps have a second state, across a jump of their law")
        return _LeftOut("; ".join(said), beyond=beyond, sides=over > SIDE_PU or other.count > 0, crossed=other)

    @property
    def beside(self) -> Beside:
        """Voltages that are kept because of jumps in the laws of loads."""
        return Beside() if self.point is None else self.point.beside

    def _can_write(self, wrong: _LeftOut) -> bool:
        """Whether building again would write something new."""
        if wrong.crossed.count and wrong.crossed.stuck:
            return False
        return wrong.sides or not wrong.screen or bool(wrong.beyond - self.enforced)

    def _build_again(self, wrong: _LeftOut, result: Result) -> None:
        """Build again with what was wrongly left out; the next solve starts from the schedule."""
        assert self.rebuild is not None
        self.enforced |= wrong.beyond
        self.screened = self.screened and wrong.screen
        if wrong.sides:
            self.point = point_of(result, wrong.crossed.beside)
        fresh = self.rebuild(self.case, at=self.point, screen=self.screened, enforce=self.enforced)
        self._take_over(fresh, result)
        if self.formulation.lazy and self.tangent is None:
            # at a new point the program's own voltages are those of the schedule
            self.start_from(result, voltages=not wrong.sides)
        self._session, self._last = None, None

    def shift(self, steps: int = 1) -> Model:
        """Say that the horizon moved on: the next solve's data, which `update` gives, begin ``steps`` later.

        What solves start from moves along, so that a rolling horizon is solved warm. Data stay as they are.

        Raises:
            OptionError: fewer than one step.
        """
        if steps < 1:
            message = f"a horizon moves on by 1 step or more, not by {steps}"
            raise OptionError(message)
        if self._session is not None:
            self._session[-1].shift(steps)
        if self._last is not None:
            self._last = dataclasses.replace(self._last, x=_later(self.program, self._last.x, steps))
        return self

    def make_at(self, point: OperatingPoint, result: Result) -> bool:
        """Build again at another operating point, in place: devices take their law there.

        Data, limits and what else only this model has are kept; a program to first order stays where it was in
        ``result``.

        Returns:
            whether it could be built again.
        """
        if self.rebuild is None:
            return False
        self.point = point
        fresh = self.rebuild(self.case, at=point, screen=self.screened, enforce=self.enforced)
        self._take_over(fresh, result)
        self._session, self._last = None, None
        return True

    def _take_over(self, fresh: Model, result: Result | None) -> None:
        """The program of a model that was built again, with what only the present one has: what neighbours said at a
        border, the point at which a program to first order is made."""
        self.program = fresh.program.update(self._present(fresh.program))
        self.network, self.tangent = fresh.network, fresh.tangent
        self.choices = fresh.choices
        if self.tangent is not None and result is not None:
            point = dataclasses.replace(result.solution, x=result.program.start_point)
            x = carried(self.program, dataclasses.replace(result, solution=point))
            voltages = [b.cells for b in self.program.variables if b.name in ("bus.v_re", "bus.v_im")]
            apart = max(float(np.abs(x - fresh.program.start_point)[cells].max(initial=0.0)) for cells in voltages)
            # at the same voltages the fresh point has the new variables as well
            self.program = self.tangent.moved(self.program, x if apart > SAME_PU else fresh.program.start_point)

    def start_from(self, result: Result, *, voltages: bool = True) -> None:
        """Let the next solve start at the variables of another result, by their labels; with or without voltages."""
        self.program = dataclasses.replace(
            self.program, start_point=carried(self.program, result, () if voltages else VOLTAGES)
        )


def carried(program: Program, result: Result, without: Sequence[str] = ()) -> FloatArray:
    """A start point with the values of another result wherever block, element and step agree.

    Args:
        program: the program to start.
        result: where the values come from.
        without: quantities that keep the program's own start.
    """
    start = program.start_point.copy()
    old = {b.name: b for b in result.program.variables}
    for block in program.variables:
        before = old.get(block.name)
        if before is None or before.n_steps != block.n_steps or block.quantity in without:
            continue
        place = {e: k for k, e in enumerate(before.elements)}
        both = [(k, place[e]) for k, e in enumerate(block.elements) if e in place]
        if both:
            to, source = (np.array(side) for side in zip(*both, strict=True))
            values = result.solution.x[before.cells].reshape(-1, block.n_steps)
            start[block.cells].reshape(-1, block.n_steps)[to] = values[source]
    return start


def _later(program: Program, x: FloatArray, steps: int) -> FloatArray:
    """Variables so many steps later; the steps at the end repeat the last one."""
    out = x.copy()
    for block in program.variables:
        ahead = np.minimum(np.arange(block.n_steps) + steps, block.n_steps - 1)
        out[block.cells] = x[block.cells].reshape(-1, block.n_steps)[:, ahead].reshape(-1)
    return out


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """What was wrongly left out of a problem.

    Attributes:
        note: one sentence; empty when nothing was.
        beyond: nodes and branches beyond their limits.
        sides: whether loads left the side of their band that was taken.
        screen: False to write every branch limit.
        crossed: loads on another side of a jump of their law, and above which voltages they are kept.
    """

    note: str
    beyond: frozenset[str] = frozenset()
    sides: bool = False
    screen: bool = True
    crossed: Crossed = field(default_factory=Crossed)


@dataclass(frozen=True, eq=False)
class _Relaxation:
    """What the convex relaxation of an exact program says.

    Attributes:
        solution: a point to start from, when it was solved.
        bound: a lower bound of the objective, when it was solved.
        infeasible: True when it is proved that no schedule exists.
        proof: the solver's answer.
    """

    solution: Solution | None
    bound: float | None
    infeasible: bool
    proof: Solution

    @classmethod
    def solve(cls, program: Program, options: Options | None) -> _Relaxation:
        """Solve the relaxation with the solver that `auto` means for it, under the same plain options."""
        cones = program.relaxed()
        plain = options if type(options) is Options else None
        found = solvers.get(solvers.choose(cones, avoid="native")[0], plain).solve(cones)
        residuals = recompute(cones, found)
        status = earned_status(cones, found, residuals)
        if status is Status.OPTIMAL:
            return cls(found, certified_bound(cones, found, residuals), infeasible=False, proof=found)
        return cls(None, None, infeasible=status is Status.INFEASIBLE, proof=found)


def _session_of(name: str, options: Options | None, program: Program, *, avoid: str) -> Session:
    """A session of a solver; of the structured one without the help of Ipopt, where that is to be avoided.

    Raises:
        UnsupportedError: the solver does not take the program.
        OptionError: the options are another solver's.
    """
    if name == "native" and avoid == "ipopt":
        own = solvers.get("native", options).options
        assert isinstance(own, solvers.NativeOptions)  # what else there is, `get` refuses
        options = dataclasses.replace(own, fallback=False)
    return solvers.get(name, options).start(program)


def _fitted(what: str, given: FloatArray | float, shape: tuple[int, ...]) -> FloatArray:
    """Numbers that were handed in, broadcast to a shape."""
    try:
        numbers = np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        message = f"data for {what} must be numbers, not {reprlib.repr(given)}"
        raise OptionError(message) from error
    try:
        return np.broadcast_to(numbers, shape)
    except ValueError as error:
        message = f"data for {what} has shape {numbers.shape}; it must broadcast to {shape}"
        raise OptionError(message) from error


def _bound(
    program: Program, solution: Solution, relaxation: _Relaxation | None, options: Options | None
) -> tuple[str, ...]:
    """By how much another schedule could be better, by the convex relaxation, in words.

    A local optimum whose multipliers all have the signs that cones ask for satisfies the optimality conditions of the
    relaxation, and the gap between it and its dual bounds every schedule. Otherwise the relaxation is solved.
    """
    cones = program.relaxed()
    if relaxation is None:
        status, residuals = judged(cones, solution)
        relaxation = None if status is Status.OPTIMAL else _Relaxation.solve(program, options)
        gap = residuals.duality_gap
    if relaxation is not None:
        if relaxation.bound is None:
            return ()
        gap = (program.objective(solution.x) - relaxation.bound) / objective_size(program, solution.x)
    if gap < -GAP_TOLERANCE:
        return (f"the bound of the convex relaxation does not hold: {-gap:.1e} relative above the schedule",)
    least = gap if gap >= 0.0 else GAP_TOLERANCE  # below the bound by rounding
    # loads that left the side of their band that program and relaxation have them on may draw less there
    given = "" if beyond_sides(program, solution.x) <= SIDE_PU else " while loads have the law that was taken"
    return (f"the convex relaxation proves that no schedule is better by more than {least:.1e} relative{given}",)


def _beyond(result: Result) -> frozenset[str]:
    """Nodes and branches beyond a limit that was left out of the problem."""
    net, feeder = result.network, result.case.feeder
    low = np.array([feeder.bus[bus].v_min_pu for bus, _ in net.nodes]).reshape(-1, 1)
    high = np.array([feeder.bus[bus].v_max_pu for bus, _ in net.nodes]).reshape(-1, 1)
    v = np.sqrt(np.maximum(result.value("bus.vmag_sq"), 0.0))
    out = np.asarray(((v < low - BEYOND_PU) | (v > high + BEYOND_PU)).any(axis=1))
    out[net.roots] = False
    grounded = set(net.grounded)
    names = {f"{bus}.{c}" for k, (bus, c) in enumerate(net.nodes) if out[k] and (bus, c) not in grounded}
    if np.isfinite(net.i_max_pu).any() or np.isfinite(net.s_max_pu).any():
        loading = result.loading
        names |= set(loading.loc[loading["share"] > 1.0 + 1e-6, "element"])
    return frozenset(names)


def point_of(result: Result, beside: Beside | None = None) -> OperatingPoint:
    """The voltages of a result as an operating point, and which are kept because of jumps; nodes that no source reaches
    are at zero volts."""
    nodes = NodeIndex.of(result.case.feeder).nodes
    v = np.sqrt(np.maximum(result.value("bus.vmag_sq"), 0.0)) * np.exp(1j * np.deg2rad(result.value("bus.vang")))
    whole = np.zeros((len(nodes), v.shape[1]), dtype=complex)
    place = {node: k for k, node in enumerate(nodes)}
    whole[[place[node] for node in result.network.nodes]] = v
    return OperatingPoint(nodes, whole, np.zeros_like(whole), loaded=True, beside=beside or Beside())


def _solved_again(again: Solution) -> str:
    """What a second answer of the same solver is, see `lateral.results.retry`."""
    how = "along the central path" if again.notes else f"at tolerance {RETRY_TOLERANCE:g}"
    return f"solved again {how}: the first answer was not accurate enough"


def _overloaded(result: Result) -> bool:
    """Whether a branch is loaded beyond its limit, which can only be one whose limit was left out of the problem."""
    net = result.network
    if not (np.isfinite(net.i_max_pu).any() or np.isfinite(net.s_max_pu).any()):
        return False
    return bool((result.loading["share"] > 1.0 + 1e-4).any())


def objective_name(objective: Objective) -> str:
    """Name of an objective, or of its weighted parts."""
    terms = objective.terms
    if len(terms) == 1 and terms[0][0] == 1.0:
        return terms[0][1].name
    return "+".join(f"{w:g}*{o.name}" for w, o in terms)


def groups(case: Case) -> list[tuple[type[Declared], Sequence[Any]]]:
    """Devices by class, in order of first appearance."""
    groups: dict[type[Declared], list[Any]] = {}
    for device in case.devices:
        if isinstance(device, Declared):
            groups.setdefault(type(device), []).append(device)
    return list(groups.items())


def _with_data(case: Case, values: Mapping[str, FloatArray]) -> Case:
    """The case with new data, each class taking what it knows."""
    profiles = dict(case.profiles)
    replaced: dict[int, Any] = {}
    for cls, group in groups(case):
        for old, new in zip(group, cls.with_data(group, values, profiles, case.horizon.n_steps), strict=True):
            replaced[id(old)] = new
    return case.with_(devices=tuple(replaced.get(id(d), d) for d in case.devices), profiles=profiles)


__all__ = ["RELAX_UP_TO", "Model", "groups", "objective_name", "point_of"]
