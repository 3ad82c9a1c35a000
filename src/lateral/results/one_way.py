"""Devices that go two ways at once in an exact model: solved again, each held to one of the two.

A battery has no binary for its direction, nor has the converter of a statcom or a soft open point. Where energy is
worth less than nothing (a negative price, a voltage at its upper limit) or nothing at all (an objective without
losses) some can be burnt in the losses of both ways at once, which no device can. An exact model must not end there:
the steps at which it does are held to the side of their net power, the other side's bound is zero, and the program is
solved again, as often as other steps begin to do the same. What is found is a local optimum for these sides. Which
variables are two ways of one device, the program says (`Opposed`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lateral import solvers
from lateral.case import Case
from lateral.devices.base import AT_ONCE_KW, AT_ONCE_SHARE
from lateral.errors import UnsupportedError
from lateral.network.schema import FloatArray, IntArray
from lateral.program import Opposed, ProblemClass, Program
from lateral.results.retry import judged, tighter
from lateral.solvers import Options, Solution, Status

#: How often it is solved again; the last time with every step of every device held.
MOST_TURNS = 4
#: Share of the objective from which both ways at once count as having paid.
PAYS = 1e-7


@dataclass(frozen=True, slots=True)
class OneWay:
    """What came of it.

    Attributes:
        program: with the bounds that hold the devices; as it was where that could not be solved.
        solution: its solution, likewise.
        choice: what was done; empty where it could not be.
        caution: what there is to say against the result.
    """

    program: Program
    solution: Solution
    choice: str
    caution: str


def most_at_once_kw(case: Case) -> float:
    """Power charged and discharged at once that counts as none, kW."""
    return max(AT_ONCE_SHARE * max((b.p_discharge_max_kw for b in case.batteries), default=0.0), AT_ONCE_KW)


def one_way(
    program: Program,
    solution: Solution,
    options: Options | None,
    *,
    until: float = np.inf,
    avoid: str = "",
) -> OneWay | None:
    """The optimum of an exact program in which no device goes both of its ways at once.

    Args:
        program: the program.
        solution: its optimum.
        options: options of a solver, or plain ones.
        until: time of `time.perf_counter` at which a solve is to end.
        avoid: a solver that is not to be asked.

    Returns:
        None where none does, or the program is convex.
    """
    if program.problem_class is not ProblemClass.NLP:
        return None
    sides = Sides()
    held, best, last = program, solution, Status.OPTIMAL
    while last is Status.OPTIMAL and (zero := sides.zero(held, best.x)) is not None:
        held = held_at_zero(program, zero)
        answer, last = _solved(held, best, options, until, avoid)
        best = answer if last is Status.OPTIMAL else best
    if held is program:
        return None
    if last is Status.OPTIMAL and np.any(_at_once(held, best.x).both):
        last = Status.INACCURATE
    if last is not Status.OPTIMAL:
        return OneWay(program, solution, "", sides.in_vain(last))
    values = program.objective(best.x), program.objective(solution.x)
    choice, caution = told(sides.text, *values, program.objective_floor)
    return OneWay(held, best, choice, caution)


def told(held: str, objective: float, before: float, floor: float) -> tuple[str, str]:
    """What was done, and what there is to say against it: nothing where both at once paid nothing.

    ``floor`` is the size of objective below which a relative difference means nothing, `Program.objective_floor`.
    """
    if objective - before <= PAYS * max(abs(before), floor, 1e-9):
        return f"solved again with {held}, by net power: both at once paid nothing", ""
    paid = f"objective {objective:.8g}, {before:.8g} with both at once"
    return (
        f"solved again with {held}, by net power, because both at once paid: {paid}",
        f"{held} alone; other sides may be better",
    )


@dataclass(eq=False)
class Sides:
    """Steps of devices held to one way, for `one_way` and the rounds of `lateral.successive`.

    Attributes:
        side: 1 where a device is held to the forward way, -1 to the way back, 0 where it is not held.
        turns: how often some were held.
    """

    side: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, dtype=np.int8))
    turns: int = 0
    _kinds: tuple[Opposed, ...] = ()

    def zero(self, program: Program, x: FloatArray) -> IntArray | None:
        """The variables that are to be zero: of what does both at a point, and of what was held before, the side that
        is not that of the net power. None where nothing does, or that was asked `MOST_TURNS` times."""
        cells = _at_once(program, x)
        if not np.any(cells.both) or self.turns >= MOST_TURNS:
            return None
        self.turns += 1
        self._kinds = program.opposed
        self.side = _turned(self.side, cells, everything=self.turns == MOST_TURNS)
        return np.concatenate([cells.back[self.side > 0], cells.forward[self.side < 0]])

    @property
    def text(self) -> str:
        """What was held to what, as the beginning of a sentence."""
        parts = []
        for (one, many), ways, count in self._held():
            steps = f"1 step of a {one}" if count == 1 else f"{count} steps of {many}"
            parts.append(f"{steps} held {ways}")
        return " and ".join(parts)

    def in_vain(self, status: Status) -> str:
        """What there is to say where holding them came to no optimum."""
        each = " and ".join(f"each {one} {ways}" for (one, _), ways, _ in self._held())
        return f"and holding {each}, by net power, ended {status.word}"

    def _held(self) -> list[tuple[tuple[str, str], str, int]]:
        """The kinds of devices of which some step is held: their words, and how many, whatever their ports."""
        counts: dict[tuple[tuple[str, str], str], int] = {}
        ends = np.cumsum([0, *(len(o.back) for o in self._kinds)])
        for kind, first, last in zip(self._kinds, ends[:-1], ends[1:], strict=True):
            words = kind.device, kind.ways
            counts[words] = counts.get(words, 0) + len(np.unique(kind.cell[self.side[first:last] != 0]))
        return [(device, ways, count) for (device, ways), count in counts.items() if count]


def _turned(side: NDArray[np.int8], cells: _Cells, *, everything: bool) -> NDArray[np.int8]:
    """The sides with those of what does both at once; or of every step that has none yet."""
    side = side.copy() if side.size else np.zeros(cells.both.shape, dtype=np.int8)
    new = (side == 0) & (cells.both | everything)
    side[new] = np.where(cells.net[new] >= 0.0, 1, -1)
    return side


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Both ways of what has two: their variables, the forward less the other, and where both are at once."""

    back: NDArray[np.int64]
    forward: NDArray[np.int64]
    net: FloatArray
    both: NDArray[np.bool_]


def _at_once(program: Program, x: FloatArray) -> _Cells:
    """Devices that go both ways at once at a point; arrays over all of their steps, kind by kind."""
    none = np.zeros(0, dtype=np.int64)
    back = np.concatenate([none, *(o.back for o in program.opposed)])
    forward = np.concatenate([none, *(o.forward for o in program.opposed)])
    most = np.concatenate([np.zeros(0), *(o.most for o in program.opposed)])
    both = np.minimum(x[back], x[forward]) > most
    return _Cells(back, forward, x[forward] - x[back], np.asarray(both))


def held_at_zero(program: Program, zero: IntArray) -> Program:
    """The program with variables that are not below zero held at it."""
    upper = program.ub.copy()
    upper[zero] = 0.0
    return dataclasses.replace(program, ub=upper)


def _solved(
    program: Program, start: Solution, options: Options | None, until: float, avoid: str
) -> tuple[Solution, Status]:
    """The optimum from a point: by the solver that found it, else by Ipopt."""
    found = start
    status = Status.ERROR
    for name in dict.fromkeys((start.solver, "ipopt")):
        if name == avoid:
            continue
        # who answered need not be whose options these are
        own = options
        if options is not None and not isinstance(options, solvers.SOLVERS[name].options):
            own = options.plain()
        if name == "native" and avoid:
            given = solvers.get(name, own).options
            assert isinstance(given, solvers.NativeOptions)  # what else there is, `get` refuses
            own = dataclasses.replace(given, fallback=False)
        if np.isfinite(until):
            own = (own or Options()).within(until)
        try:
            found = solvers.get(name, own).solve(program, start)
        except UnsupportedError:
            continue
        status = judged(program, found)[0]
        if options is None and (again := tighter(program, found, status)) is not None:
            found, status = again, Status.OPTIMAL
        if status is Status.OPTIMAL:
            break
    return found, status


__all__ = ["MOST_TURNS", "OneWay", "Sides", "held_at_zero", "most_at_once_kw", "one_way", "told"]
