"""Result: what a solve found, in engineering units, with what it is worth.

Everything is read off the labels of the Program: no code here knows a device. Residuals, bounds, relaxation gap and
simultaneous charge and discharge are recomputed from the Program, not taken from the solver's word.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.devices.base import LOST_KW
from lateral.errors import OptionError, did_you_mean
from lateral.formulations import is_relaxation
from lateral.network.branches import RadialNetwork
from lateral.network.powerflow import PowerFlow
from lateral.network.schema import FloatArray
from lateral.program import Block, Derived, ProblemClass, Program
from lateral.results.in_replay import VIOLATION_TOLERANCE_PU, ReplayLike, against_replay
from lateral.results.one_way import most_at_once_kw
from lateral.results.points import port_points, settings
from lateral.results.residuals import Residuals, certified_bound
from lateral.results.verification import Verification
from lateral.solvers.base import Solution, Status
from lateral.solvers.elastic import Conflict

#: A relaxation gap above this is said in the status sentence, pu.
GAP_WARNING_PU = 1e-5
#: Losses that do not exist, as a share of all, are said from here on.
SHARE_SAID = 5e-4
#: A second eigenvalue of a relaxed matrix, as a share of the first, above which this is said.
RANK_WARNING = 1e-3
#: Distance of a load from its law that is said, share of its power.
LAW_WARNING = 1e-4
#: Violation of an equation or a bound above which a point is no schedule, pu: its losses and costs are of nothing. The
#: largest mismatch of a run that an area left is 1.6e-3 (`docs/areas/failures.md`).
NO_SCHEDULE_PU = 1e-2
#: Parts of warnings that other lines of a summary say as well.
RECOVER, BELOW = "--recover makes an exact schedule of it", "no schedule has an objective below"


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """One solved schedule.

    Attributes:
        case: the case, with the data that was solved.
        formulation: name of the formulation.
        objective_name: name of the objective.
        status: earned status, see `lateral.results.residuals`.
        program: the program that was solved.
        solution: the solver's numbers, per unit.
        residuals: recomputed residuals.
        network: the branches of the formulation.
        seconds: wall time by phase: read, build, solve, replay, total.
        choices: what ``auto`` picked and why, and every fallback that was taken.
        conflicts: when infeasible, the limits that give way in the elastic solve, largest first.
        replay: the OpenDSS replay, when it was run.
        cautions: what the method that found it has to say against it, for the status sentence.
        verification: what a second solver said, when one was asked.
    """

    case: Case
    formulation: str
    objective_name: str
    status: Status
    program: Program
    solution: Solution
    residuals: Residuals
    network: RadialNetwork
    seconds: Mapping[str, float]
    choices: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    replay: ReplayLike | None = None
    cautions: tuple[str, ...] = ()
    verification: Verification | None = None
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    # -- values ---------------------------------------------------------------------------------------------------

    @property
    def ok(self) -> bool:
        """True when the status is optimal."""
        return self.status is Status.OPTIMAL

    @property
    def is_bound(self) -> bool:
        """True when no point of this model is better: it is convex, and was solved to the end.

        Of a relaxation this bounds every schedule that keeps to what the program holds (``program.held``), where its
        feeder is the case's (``program.unlike``).
        """
        return self.ok and self.program.problem_class is not ProblemClass.NLP and not self.program.unlike

    @property
    def relaxes(self) -> bool:
        """True when the formulation is a known relaxation, whose optimum bounds that of an exact form."""
        return is_relaxation(self.formulation)

    @cached_property
    def bound(self) -> float | None:
        """What no point of this model is below, in the unit of the objective: the objective less the duality gap.

        It holds whatever the status is, so that a relaxation that was stopped early bounds every schedule as well, only
        less closely: every one that keeps to what the program holds (``program.held``), and given what it takes for
        granted (``program.granted``). Of a linear form it bounds the linear form's own schedules alone. What is left of
        the gradient at a variable without a bound counts with the variable's typical size, and a cone that the point
        leaves with twice its violation: far from a solution both are an assumption, if one that held wherever it was
        tried.

        Returns:
            None of a program that is not convex or of another feeder than the case's (``program.unlike``), and where
            the solver left no finite point or multipliers.
        """
        if self.program.unlike or not self.has_values:
            return None
        return certified_bound(self.program, self.solution, self.residuals)

    @property
    def _proves(self) -> bool:
        """Whether there is a bound, or a relaxation has no point."""
        return self.bound is not None or (self.relaxes and self.status is Status.INFEASIBLE)

    @property
    def has_values(self) -> bool:
        """True when there is a point at all (also one that is not optimal); where none can satisfy the limits, the one
        that a solver ended with is no schedule."""
        return bool(np.all(np.isfinite(self.solution.x))) and self.status not in (
            Status.INFEASIBLE,
            Status.LOCALLY_INFEASIBLE,
            Status.UNBOUNDED,
            Status.ERROR,
        )

    @property
    def has_schedule(self) -> bool:
        """True when the values keep the equations closely enough (`NO_SCHEDULE_PU`) to be shown as a schedule.

        A solver that is stopped, or areas that did not come to agree, may leave numbers that no feeder has.
        """
        r = self.residuals
        return self.has_values and r.max_primal <= NO_SCHEDULE_PU and r.max_bound <= NO_SCHEDULE_PU

    @property
    def stopped(self) -> bool:
        """True when the schedule is where a solver or a run was stopped: near enough to be looked at, and no result."""
        return self.has_schedule and self.status is Status.LIMIT_REACHED

    @property
    def status_text(self) -> str:
        """The status as a sentence, with the limits that cause an infeasibility."""
        text = self.status.text(self.program.problem_class)
        for warning in self.warnings:
            text += f"; {warning}"
        return text + self._because()

    def _because(self) -> str:
        """The limits that cause an infeasibility, as the end of a sentence; empty for none."""
        if not self.conflicts:
            return ""
        others = len(self.reasons) - 5
        return ": " + "; ".join(self.reasons[:5]) + (f"; and {others} more" if others > 0 else "")

    @property
    def status_short(self) -> str:
        """The status in one line, without what `points` lists; with the limits that cause an infeasibility."""
        if self.ok and self._loose():
            bounds = "it bounds schedules and is none" if self.is_bound else "it is no schedule, and no bound of one"
            return f"optimal in a relaxation that is not tight: {bounds}; --recover makes an exact schedule"
        return self.status.text(self.program.problem_class) + self._because()

    @property
    def points(self) -> tuple[str, ...]:
        """`warnings` one by one, each without what the status and the bound say already."""
        bound = f"; {self._bounds()}{RECOVER}"
        out = [w.removesuffix(bound).removeprefix("but ") for w in self.warnings]
        return tuple(w for w in out if not w.startswith(BELOW))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know of a schedule that is optimal in its model and yet not to be trusted as it stands."""
        out = list(self.cautions)
        if lost := self.case.warnings:
            more = f"; and {len(lost) - 1} more, see import_warnings" if len(lost) > 1 else ""
            out.append(f"but the case is not all that its files hold: {lost[0]}{more}")
        if not self.has_values:  # what follows is about a schedule
            if self.status is Status.INFEASIBLE and self.relaxes and (self.program.held or self.program.unlike):
                rests = (*self.program.held, *self.program.unlike)
                more = f", and {len(rests) - 1} more" if len(rests) > 1 else ""
                out.append(f"but that is of this model alone, not of every schedule ({rests[0]}{more})")
            return tuple(out)
        out += [f"but {unlike}: this bounds no schedule" for unlike in self.program.unlike]
        out += self._relaxed()
        if self.max_simultaneous_kw > most_at_once_kw(self.case):
            out.append(
                f"but a battery charges and discharges {self.max_simultaneous_kw:.3g} kW at once, which none can; "
                "raise alpha_usd_per_kwh, or look for negative prices and binding voltage limits"
            )
        for block in (d.block for d in self._derived if d.block.quantity == "loss_excess"):
            excess = self.value(block.name)
            if excess.max(initial=0.0) > LOST_KW:
                worst = block.elements[int(excess.max(axis=1).argmax())]
                out.append(
                    f"but {block.component} {worst} loses {excess.max():.3g} kW more than its law says; look for "
                    "negative prices and binding voltage limits"
                )
        return (*out, *against_replay(self))

    def _relaxed(self) -> list[str]:
        """What of a relaxation no schedule has, and what it is good for."""
        out = self._loose()
        if out:
            out[-1] += f"; {self._bounds()}{RECOVER}"
        if not self.ok and self.relaxes and self.bound is not None:
            given = self._given()
            rests = f",{given}" if given else ""
            out.append(f"{BELOW} {self.bound:.8g}{rests}")
        return out

    def _loose(self) -> list[str]:
        """What of a relaxation no schedule has: nothing where it is tight."""
        out = []
        if self.max_relaxation_gap > GAP_WARNING_PU:
            gap = f"gap {self.max_relaxation_gap:.1e} pu"
            out.append(f"but the relaxation is not tight: {self._losses_beside_currents()} ({gap})")
        elif (self.max_rank_ratio or 0.0) > RANK_WARNING:
            ratio = f"a matrix has a second eigenvalue of {self.max_rank_ratio:.1e} of the first"
            out.append(f"but the relaxation is not tight: {ratio}")
        if (self.max_law_gap or 0.0) > LAW_WARNING:
            law = f"loads that follow the voltage are up to {100 * (self.max_law_gap or 0.0):.2g} % off their law"
            out.append(f"but {law}, which the relaxation allows")
        return out

    def _losses_beside_currents(self) -> str:
        """How the losses of a relaxation that is not tight compare with those of its powers and currents."""
        share, losses = self.relaxation_gap_share, self.losses_kwh
        if abs(share) < SHARE_SAID:
            return "its squares of currents and voltages do not fit together, though its losses in sum do"
        if share > 0.0 and losses > 0.0:
            return f"{100 * share:.1f} % of its losses do not exist"
        real = losses * (1.0 - share)
        return f"its losses are {losses:.4g} kWh, too little for its currents, which would lose {real:.4g} kWh"

    def _bounds(self) -> str:
        """What the objective of a relaxation bounds, as the beginning of a sentence: nothing where it is no bound."""
        if not self.is_bound:
            return ""
        given = self._given()
        return f"it is a bound only{given}, " if given else "it is a bound, "

    def _given(self) -> str:
        """What a bound rests on, as the end of a sentence: nothing where it holds for every schedule."""
        held, granted = self.program.held, self.program.granted

        def first(some: tuple[str, ...]) -> str:
            return some[0] + (f", and {len(some) - 1} more" if len(some) > 1 else "")

        parts = [f"for what it holds ({first(held)})"] if held else []
        parts += [f"given that {' and '.join(granted)}"] if granted else []
        return f" {' and '.join(parts)}" if parts else ""

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """The limits that cause an infeasibility, one sentence per element and quantity, worst first."""
        groups: dict[tuple[str, str], list[Conflict]] = {}
        for conflict in self.conflicts:
            groups.setdefault((conflict.block, conflict.element), []).append(conflict)
        out = []
        for members in groups.values():
            worst = max(members, key=lambda c: c.weight)
            time = self.time_of(worst)
            when = "at the end" if time is None else f"at {time:%H:%M}"
            text = worst.sentence.replace(f"at step {worst.step}", when)
            others = len(members) - 1
            out.append(f"{text} and at {others} other step{'' if others == 1 else 's'}" if others else text)
        return tuple(out)

    def time_of(self, conflict: Conflict) -> pd.Timestamp | None:
        """When a limit stands in the way; None for one of the horizon as a whole, such as the energy at its end."""
        return None if conflict.block in self._untimed else self.case.horizon.times[conflict.step]

    @cached_property
    def _untimed(self) -> frozenset[str]:
        """Blocks that have no time axis."""
        p = self.program
        blocks = (*p.variables, *p.equalities, *p.inequalities, *p.product_blocks, *p.quadratic_blocks)
        return frozenset(b.name for b in blocks if b.at is None and b.n_steps != self.case.horizon.n_steps)

    def value(self, name: str) -> FloatArray:
        """A variable or output by name, e.g. ``battery.p_charge``, in engineering units, shape (n, T).

        Raises:
            OptionError: no such name; the message says which there are.
        """
        parts = [self._value_of(block) for block in self.program.variables if block.name == name]
        if not parts:
            parts = [
                o.value(self.solution.x, self.program.theta) * o.block.to_unit
                for o in self.program.outputs
                if o.block.name == name
            ]
        if not parts:
            parts = [
                d.of(self.solution.x, self.solution.eq_dual, self.solution.quadratic_dual) * d.block.to_unit
                for d in self._derived
                if d.block.name == name
            ]
        if not parts:
            known = [b.name for b in self.program.variables] + [o.block.name for o in self.program.outputs]
            known += [d.block.name for d in self._derived]
            message = f"the result has no {name!r}. {did_you_mean(name, known)}"
            raise OptionError(message)
        return np.vstack(parts)

    def _value_of(self, block: Block) -> FloatArray:
        cells = self.solution.x[block.cells].reshape(len(block.elements), block.n_steps)
        return np.asarray(cells * block.to_unit)

    def has(self, name: str) -> bool:
        """Whether there is a variable or output of that name."""
        return any(b.name == name for b in self._labels)

    @property
    def _derived(self) -> list[Derived]:
        """Derived quantities that are not duals."""
        return [d for d in self.program.derived if not d.dual]

    @property
    def _labels(self) -> list[Block]:
        """Variables, outputs and derived quantities."""
        outputs = [o.block for o in self.program.outputs]
        return [*self.program.variables, *outputs, *(d.block for d in self._derived)]

    def elements(self, name: str) -> tuple[str, ...]:
        """Element names of a variable or output."""
        own = [b.elements for b in self.program.variables if b.name == name]
        own = own or [o.block.elements for o in self.program.outputs if o.block.name == name]
        own = own or [d.block.elements for d in self._derived if d.block.name == name]
        return tuple(e for part in own for e in part)

    def dual(self, name: str) -> FloatArray:
        """Dual of an equality block by name, e.g. ``bus.p_balance``: d(objective) / d(right-hand side), per unit of
        energy: for the balance $ per kWh (the locational price), shape (n, T); NaN at steps of weight 0, whose energy
        costs nothing.

        Raises:
            OptionError: no such rows.
        """
        counted = np.where(self.case.horizon.hours > 0.0, self.case.horizon.hours, np.nan)
        for derived in self.program.derived:  # a price can be of the duals of other rows as well
            if derived.dual and derived.block.name == name:
                if derived.exact is not None:
                    cells = derived.exact(self.solution.x, self.program, self._dual_of)
                else:
                    cells = derived.of(self.solution.x, self.solution.eq_dual, self.solution.quadratic_dual)
                return np.asarray(cells / derived.block.to_unit / counted)
        for block in self.program.equalities:
            if block.name == name:
                cells = self.solution.eq_dual[block.cells].reshape(len(block.elements), block.n_steps)
                hours = counted if block.unit in ("kW", "kvar") else 1.0
                return np.asarray(cells / block.to_unit / hours)
        message = f"there are no rows {name!r}. {did_you_mean(name, [b.name for b in self.program.equalities])}"
        raise OptionError(message)

    def _dual_of(self, block: Block) -> FloatArray:
        """Duals of the rows of a block of the program, per unit, shape (n, T)."""
        p, s = self.program, self.solution
        for blocks, dual in (
            (p.quadratic_blocks, s.quadratic_dual),
            (p.product_blocks, s.product_dual),
            (p.equalities, s.eq_dual),
            (p.inequalities, s.ineq_dual),
        ):
            if any(b is block for b in blocks):
                return dual[block.cells].reshape(len(block.elements), block.n_steps)
        message = f"the program has no rows {block.name!r}"
        raise ValueError(message)

    # -- totals ---------------------------------------------------------------------------------------------------

    @cached_property
    def objective(self) -> float:
        """Objective as minimised: with the alpha term, the loss term and everything else that was added."""
        return self.program.objective(self.solution.x)

    @cached_property
    def cost(self) -> float:
        """Energy cost alone, $: what is paid for import less what export earns, plus the energy costs of devices.

        With two prices that of the net power of each source and step, whether or not the objective has the cost in it.
        """
        trading = {s.name: s for s in self.case.sources if s.price_export is not None}
        total = 0.0
        for output in self.program.outputs:
            block = output.block
            if block.quantity == "energy_cost":
                own = [k for k, e in enumerate(block.elements) if block.component != "source" or e not in trading]
                total += float(np.sum(output.value(self.solution.x, self.program.theta)[own]))
        power = dict(zip(self.elements("source.p_total"), self.value("source.p_total"), strict=True)) if trading else {}
        return total + sum(self.case.exchange_cost(s, power[name]) for name, s in trading.items())

    @cached_property
    def p_source_kw(self) -> FloatArray:
        """Power that the sources give at their terminals, kW, shape (T,)."""
        return np.asarray(self.value("source.p_total").sum(axis=0))

    @cached_property
    def q_source_kvar(self) -> FloatArray:
        """Reactive power that the sources give, kvar, shape (T,)."""
        return np.asarray(self.value("source.q_total").sum(axis=0))

    @cached_property
    def losses_kw(self) -> FloatArray:
        """Losses of lines and transformers, kW, shape (T,); of a linear model an estimate from its flows."""
        return np.asarray(self.value("system.losses").sum(axis=0))

    @property
    def energy_import_kwh(self) -> float:
        """Energy taken from the sources, kWh; steps at which a source is given power count zero."""
        return float(np.sum(np.maximum(self.value("source.p_total"), 0.0) @ self.case.horizon.hours))

    @property
    def energy_export_kwh(self) -> float:
        """Energy given to the sources, kWh."""
        return float(np.sum(np.maximum(-self.value("source.p_total"), 0.0) @ self.case.horizon.hours))

    @property
    def losses_kwh(self) -> float:
        """Energy lost in the wires, kWh."""
        return float(self.losses_kw @ self.case.horizon.hours)

    @cached_property
    def set_points(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        """p in kW and q in kvar, shape (T,) each, of every device that injects by decision, by label."""
        out: dict[str, tuple[FloatArray, FloatArray]] = {}
        for output in self.program.outputs:
            block = output.block
            if block.quantity != "p_injected":
                continue
            p = output.value(self.solution.x, self.program.theta) * block.to_unit
            q_name = f"{block.component}.q_injected"
            given = dict(zip(self.elements(q_name), self.value(q_name), strict=True)) if self.has(q_name) else {}
            for k, element in enumerate(block.elements):
                out[f"{block.component}.{element}"] = (p[k], given.get(element, np.zeros_like(p[k])))
        return out

    @cached_property
    def port_points(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        """p in kW and q in kvar of every port, shape (ports, T) each, of every device that gives them port by port, by
        label; rows in the order of `ShuntDevice.places`."""
        return port_points(self.case, self.program, self.solution.x)

    @cached_property
    def settings(self) -> dict[str, FloatArray]:
        """The setting of every device that has one in the program, shape (T,), by label: taps, shares, susceptances."""
        return settings(self.case, self.program, self.solution.x)

    # -- certificates ---------------------------------------------------------------------------------------------

    @cached_property
    def max_simultaneous_kw(self) -> float:
        """Largest power that a battery charges and discharges at once, kW; 0 without batteries."""
        if not self.has("battery.p_charge"):
            return 0.0
        both = np.minimum(self.value("battery.p_charge"), self.value("battery.p_discharge"))
        return float(max(both.max(initial=0.0), 0.0))

    @cached_property
    def relaxation_gap(self) -> FloatArray | None:
        """``r (l - (P^2 + Q^2) / w)`` of every leg and step, pu, shape (K, T): losses that do not exist; None when the
        formulation has no current variable. A formulation that measures them itself names them so."""
        if self.has("branch.relaxation_gap"):
            return self.value("branch.relaxation_gap")
        rows = self._current_rows("branch.current")
        if not rows:
            return None
        r = np.zeros(self.network.n_legs)
        own = self.network.z_row == self.network.z_col
        r[self.network.z_row[own]] = self.network.z_val[own].real
        return np.asarray(r.reshape(-1, 1) * rows[0][1])

    def _current_rows(self, name: str) -> list[tuple[Block, FloatArray]]:
        """``l - (P^2 + Q^2) / w`` of the product rows of a name, pu, block by block, each of shape (n, T).

        0 of rows that are exact, where it is a violation and no relaxation.
        """
        out = []
        rows, x = self.program.products, self.solution.x
        for block in self.program.product_blocks:
            if block.name == name:
                h = np.where(rows.equality[block.cells], 0.0, rows.value(x)[block.cells])
                w = (rows.v @ x + rows.v0)[block.cells]
                out.append((block, np.asarray((-h / w).reshape(len(block.elements), block.n_steps))))
        return out

    @cached_property
    def max_relaxation_gap(self) -> float:
        """Largest ``|z| (l - (P^2 + Q^2) / w)`` over legs, pu; 0 where nothing is relaxed.

        Never less than ``r (l - ...)``: a reactance can hold losses that do not exist as well. Behind a source's
        impedance, whose losses nobody pays, what does not exist is a drop of squared voltage: ``|z|^2 (l - ...)``.
        """
        sizes = [0.0]
        for block in self._labels:
            if block.quantity == "relaxation_size":
                sizes.append(float(self.value(block.name).max(initial=0.0)))
        z = np.zeros(self.network.n_legs)
        own = self.network.z_row == self.network.z_col
        z[self.network.z_row[own]] = np.abs(self.network.z_val[own])
        for _, excess in self._current_rows("branch.current"):
            sizes.append(float(np.abs(z.reshape(-1, 1) * excess).max(initial=0.0)))
        behind = {s.name: s for s in self.case.sources}
        for block, excess in self._current_rows("feed.current"):
            source = behind[block.elements[0].rsplit(".", 1)[0]]
            z_base = self.case.base.z_ohm(self.case.feeder.bus[source.bus].v_base_kv)
            size = float(np.hypot(source.r_ohm[0, 0], source.x_ohm[0, 0])) / z_base
            sizes.append(float(np.abs(size**2 * excess).max(initial=0.0)))
        return max(sizes)

    @cached_property
    def max_rank_ratio(self) -> float | None:
        """Largest second eigenvalue of the relaxed matrices of buses and ports, as a share of the first (rank one: 0);
        None where there are none."""
        return self._largest("rank_ratio")

    @cached_property
    def max_law_gap(self) -> float | None:
        """Largest distance of what a relaxation takes for a power of a voltage from it, pu; None where none is."""
        return self._largest("law_gap")

    def _largest(self, quantity: str) -> float | None:
        """Largest value of everything of a quantity."""
        found = [float(self.value(b.name).max(initial=0.0)) for b in self._labels if b.quantity == quantity]
        return max(found) if found else None

    @property
    def relaxation_gap_share(self) -> float:
        """Losses that do not exist, as a share of all losses."""
        gap = self.relaxation_gap
        if gap is None or not self.losses_kwh:
            return 0.0
        return float((gap.sum(axis=0) @ self.case.horizon.hours) * self.case.base.total_kva / self.losses_kwh)

    # -- baseline -------------------------------------------------------------------------------------------------

    @property
    def baseline(self) -> PowerFlow:
        """The same day without any control: PV as the sun offers it, batteries idle. Solved on first use."""
        if "baseline" not in self._cache:
            self._cache["baseline"] = power_flow(self.case)
        flow: PowerFlow = self._cache["baseline"]
        return flow

    @property
    def baseline_cost(self) -> float:
        """Energy cost of the baseline, $."""
        pairs = zip(self.case.sources, self.baseline.sources_kva.real, strict=True)
        return sum(self.case.exchange_cost(source, power) for source, power in pairs)

    # -- dataset and tables ---------------------------------------------------------------------------------------

    @cached_property
    def dataset(self) -> xr.Dataset:
        """Everything as one xarray Dataset: dims are ``time`` and one per component, attributes carry units."""
        times = self.case.horizon.times
        data: dict[str, xr.DataArray] = {}

        def add(name: str, component: str, elements: tuple[str, ...], values: FloatArray, unit: str) -> None:
            dims: tuple[str, ...] = (component, "time") if values.shape[1] == len(times) else (component,)
            coords = {component: list(elements)}
            body = values if len(dims) == 2 else values[:, 0]
            array = xr.DataArray(body, dims=dims, coords=coords, attrs={"units": unit})
            data[name] = xr.concat([data[name], array], dim=component) if name in data else array

        for block in self.program.variables:
            add(block.name, block.component, block.elements, self._value_of(block), block.unit)
        for output in self.program.outputs:
            b = output.block
            add(b.name, b.component, b.elements, output.value(self.solution.x, self.program.theta) * b.to_unit, b.unit)
        for derived in self._derived:
            b = derived.block
            if b.name not in data:
                add(b.name, b.component, b.elements, self.value(b.name), b.unit)
        v = self.elements("bus.vmag_sq")
        add("bus.vmag", "bus", v, np.sqrt(np.maximum(self.value("bus.vmag_sq"), 0.0)), "pu")
        for name, label in (("bus.p_balance", "bus.p_price"), ("bus.q_balance", "bus.q_price")):
            energy = "kWh" if label.endswith("p_price") else "kvarh"
            money = "$" if self.objective_name == "cost" else "objective"
            add(label, "bus", v, self.dual(name), f"{money}/{energy}")
        if self.has("battery.energy"):
            capacity = {f"{b.name}": b.energy_kwh for b in self.case.batteries}
            names = self.elements("battery.energy")
            scale = np.array([capacity.get(n, np.nan) for n in names]).reshape(-1, 1)
            add("battery.soc", "battery", names, self.value("battery.energy") / scale, "pu")
        flow = self.baseline
        nodes = tuple(f"{bus}.{c}" for bus, c in flow.index.nodes)
        add("baseline.vmag", "bus", nodes, flow.vmag_pu, "pu")
        data["baseline.p_source"] = xr.DataArray(
            np.asarray(flow.source_kva.real), dims=("time",), attrs={"units": "kW"}
        )
        data["time_step"] = xr.DataArray(np.array(self.case.horizon.step_h), dims=("time",), attrs={"units": "h"})
        out = xr.Dataset(data, coords={"time": times.tz_convert("UTC").tz_localize(None)})
        gap = self.relaxation_gap
        if gap is not None:
            out["branch.relaxation_gap"] = xr.DataArray(
                gap, dims=("branch", "time"), coords={"branch": list(self.network.legs)}, attrs={"units": "pu"}
            )
        out["time"].attrs["time_zone"] = self.case.horizon.zone
        out.attrs = {
            "case": self.case.name,
            "case_hash": self.case.hash,
            "formulation": self.formulation,
            "objective": self.objective_name,
            "solver": self.solution.solver,
            "status": self.status.word,
            "lateral": importlib.metadata.version("lateral"),
        }
        return out

    def save(self, path: str | Path) -> Path:
        """Write it, by the suffix of the path: ``.nc`` (the dataset), ``.parquet`` or ``.csv`` (the long table).

        Raises:
            OptionError: another suffix.
        """
        from lateral.results.store import save

        return save(self, path)

    def to_pandas(self) -> pd.DataFrame:
        """Long table: component, quantity, element, time, value, unit."""
        times = self.case.horizon.times
        frames = []
        for name, array in self.dataset.data_vars.items():
            component, _, quantity = str(name).partition(".")
            dims = [d for d in array.dims if d != "time"]
            values = array.transpose(*dims, ...).values
            elements = [str(e) for e in array[dims[0]].values] if dims else [""]
            values = values.reshape(len(elements), -1)
            stamps = list(times) if "time" in array.dims else [pd.NaT]
            frames.append(
                pd.DataFrame(
                    {
                        "component": component,
                        "quantity": quantity,
                        "element": np.repeat(elements, len(stamps)),
                        "time": pd.DatetimeIndex(stamps * len(elements)),
                        "value": values.reshape(-1),
                        "unit": array.attrs.get("units", ""),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def violations(self) -> pd.DataFrame:
        """Voltages outside their limits in the baseline and in the optimum, one row each."""
        feeder, times = self.case.feeder, self.case.horizon.times
        rows = []
        flow = self.baseline
        grounded = set(self.network.grounded)
        pairs = (
            ("baseline", flow.index.nodes, flow.vmag_pu),
            ("optimum", self.network.nodes, np.sqrt(np.maximum(self.value("bus.vmag_sq"), 0.0))),
        )
        for which, nodes, v in pairs:
            keep = [k for k, node in enumerate(nodes) if node not in grounded]
            low = np.array([feeder.bus[nodes[k][0]].v_min_pu for k in keep]).reshape(-1, 1)
            high = np.array([feeder.bus[nodes[k][0]].v_max_pu for k in keep]).reshape(-1, 1)
            value = v[keep]
            under, over = value < low - VIOLATION_TOLERANCE_PU, value > high + VIOLATION_TOLERANCE_PU
            for k, t in zip(*np.nonzero(under | over), strict=True):
                bus, conductor = nodes[keep[k]]
                limit = low[k, 0] if under[k, t] else high[k, 0]
                rows.append((which, bus, conductor, times[t], value[k, t], limit, abs(value[k, t] - limit)))
        columns = ["which", "bus", "conductor", "time", "v_pu", "limit_pu", "beyond_pu"]
        return pd.DataFrame(rows, columns=columns).sort_values("beyond_pu", ascending=False, ignore_index=True)

    @cached_property
    def loading(self) -> pd.DataFrame:
        """Largest loading of every branch with a limit: element, time, value, limit, unit, share."""
        net, base, times = self.network, self.case.base, self.case.horizon.times
        kw = base.total_kva
        p, q = self.value("branch.p_from") / kw, self.value("branch.q_from") / kw
        v = self.value("bus.vmag_sq")
        w = np.ones((net.n_legs, v.shape[1]))
        single = np.bincount(net.a_leg, minlength=net.n_legs) == 1
        own = single[net.a_leg]
        w[net.a_leg[own]] = (np.abs(net.a_val[own]) ** 2).reshape(-1, 1) * v[net.a_node[own]]
        s = np.hypot(p, q)
        rows = []
        current = s / np.sqrt(np.maximum(w, 1e-9))
        for k in np.flatnonzero(np.isfinite(net.i_max_pu)):
            t = int(current[k].argmax())
            amp = base.i_a(net.v_base_kv[net.to_node[k]])
            share = current[k, t] / net.i_max_pu[k]
            rows.append((net.legs[k], times[t], current[k, t] * amp, net.i_max_pu[k] * amp, "A", share))
        branch_p = np.zeros((len(net.branch_names), s.shape[1]))
        branch_q = np.zeros_like(branch_p)
        np.add.at(branch_p, net.branch, p)
        np.add.at(branch_q, net.branch, q)
        total = np.hypot(branch_p, branch_q)
        for b in np.flatnonzero(np.isfinite(net.s_max_pu)):
            t = int(total[b].argmax())
            limit = net.s_max_pu[b] * base.s_kva
            rows.append((net.branch_names[b], times[t], total[b, t] * kw, limit, "kVA", total[b, t] * kw / limit))
        columns = ["element", "time", "value", "limit", "unit", "share"]
        return pd.DataFrame(rows, columns=columns).sort_values("share", ascending=False, ignore_index=True)

    # -- summary --------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """The numbers of a run as plain data (``lateral solve --json``); None where no schedule has them."""
        known, scheduled = self.has_values, self.has_schedule
        r = self.residuals

        def number(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return {
            "case": self.case.name,
            "status": self.status.word,
            "status_text": self.status_text,
            "status_short": self.status_short,
            "warnings": list(self.points),
            "formulation": self.formulation,
            "problem_class": self.program.problem_class.name,
            "solver": self.solution.solver,
            "objective_name": self.objective_name,
            "objective": number(self.objective) if scheduled else None,
            "bound": self.bound,
            "bound_given": [*self.program.held, *self.program.granted] if self._proves else [],
            "cost": number(self.cost) if scheduled else None,
            "energy_import_kwh": number(self.energy_import_kwh) if scheduled else None,
            "energy_export_kwh": number(self.energy_export_kwh) if scheduled else None,
            "losses_kwh": number(self.losses_kwh) if scheduled else None,
            "n_buses": len(self.case.feeder.buses),
            "n_nodes": self.network.n_nodes,
            "n_steps": self.case.horizon.n_steps,
            "n_variables": self.program.n,
            "iterations": self.solution.iterations,
            "seconds": {k: round(float(v), 6) for k, v in self.seconds.items()},
            "residuals": {
                "max_primal": number(r.max_primal),
                "max_bound": number(r.max_bound),
                "max_relaxation_gap": number(self.max_relaxation_gap) if known else None,
                "relaxation_gap_share": number(self.relaxation_gap_share) if known else None,
                "max_rank_ratio": None if not known or self.max_rank_ratio is None else number(self.max_rank_ratio),
                "max_law_gap": None if not known or self.max_law_gap is None else number(self.max_law_gap),
                "max_simultaneous_kw": number(self.max_simultaneous_kw) if known else None,
                "duality_gap": number(r.duality_gap),
            },
            "replay": self.replay.summary() if self.replay is not None else None,
            "verification": self.verification.as_dict() if self.verification is not None else None,
            "choices": list(self.choices),
            "conflicts": list(self.reasons),
            "import_warnings": list(self.case.warnings),
            "case_hash": self.case.hash,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """Versions of lateral and of what decides its numbers."""
    names = ("lateral", "numpy", "scipy", "highspy", "clarabel", "casadi", "dss-python")
    return {name: importlib.metadata.version(name) for name in names}


__all__ = ["ReplayLike", "Result", "versions"]
