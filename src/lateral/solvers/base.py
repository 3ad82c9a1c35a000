"""What every solver adapter shares: the status words, the solution, the options and the two abstract classes.

One dual sign holds: the dual of a row is d(minimum) / d(right-hand side), unscaled. So at a solution

    grad f = A'y + G'w + sum_i mu_i grad h_i + sum_i nu_i grad q_i + sum_i kappa_i grad (y_i - phi_i(z_i))
             + sum_k grad <Z_k, M_k> + z
    h_i = sum_k a_k^2 - u v,        q_i = sum_k f_k g_k + w

with y and kappa free, w >= 0 where the lower side holds and <= 0 where the upper side does, nu likewise, mu <= 0 for a
cone row (free for an exact one), Z_k psd, z >= 0 at a lower bound and <= 0 at an upper bound. A solver hands back all
but z; z is what is left of the gradient, so the equation holds exactly and all dual error shows up in the sign of z.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp

from lateral.errors import Fault, OptionError, UnsupportedError
from lateral.network.schema import FloatArray
from lateral.program import ProblemClass, Program

#: Least time that a solver is given, s: none takes a limit of zero.
_LEAST_S = 0.05


class Status(Enum):
    """How a solve ended; the value is the sentence to show."""

    OPTIMAL = "optimal: violations and duality gap, recomputed, are within tolerance"
    INACCURATE = "inaccurate: a point was found, but its recomputed violation or duality gap is too large"
    INFEASIBLE = "infeasible: no point satisfies all limits of this model"
    LOCALLY_INFEASIBLE = "locally infeasible: no feasible point near the start; a relaxation can prove that none exists"
    UNBOUNDED = "unbounded: the objective falls without limit; a limit or a price is missing"
    LIMIT_REACHED = "limit reached: iterations or time ran out before a solution; the values are not a solution"
    DEGRADED = "degraded: one or more areas did not take part; the result names them"
    ERROR = "error: the solver failed"

    @property
    def word(self) -> str:
        """The status as one word, e.g. ``limit_reached``."""
        return self.name.lower()

    def text(self, problem_class: ProblemClass) -> str:
        """The sentence to show; a non-convex model is never more than locally optimal, and it says so."""
        if self is Status.OPTIMAL and problem_class is ProblemClass.NLP:
            return (
                "optimal (a local optimum, the model is non-convex): violations and optimality error are in tolerance"
            )
        return self.value


def _none() -> FloatArray:
    return np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The numbers a solver handed back, unscaled, in Program order.

    Attributes:
        x: variables, shape (n,); NaN when the solver has no point.
        eq_dual: duals y of ``A x = b``.
        ineq_dual: duals w of ``l <= G x <= u``: positive where the lower side holds, negative where the upper does.
        product_dual: duals mu of ``sum a^2 - u v <= rhs``, at most zero for a cone row.
        reduced_cost: d(minimum) / d(the bound that holds the variable), shape (n,).
        quadratic_dual: duals nu of the quadratic rows, signed as ``ineq_dual``.
        curve_dual: duals kappa of the curves.
        semidefinite_dual: duals Z of the semidefinite rows, entries as in `SemidefiniteRows`.
        status: what the solver claims; `lateral.results.residuals.earned_status` says what it is worth.
        solver: name of the solver.
        iterations: iterations used.
        seconds: wall time inside the solver and its callbacks.
        message: the solver's own words.
        notes: what was done otherwise than at first, to be told with the result.
    """

    x: FloatArray
    eq_dual: FloatArray
    ineq_dual: FloatArray
    product_dual: FloatArray
    reduced_cost: FloatArray
    status: Status
    solver: str
    iterations: int
    seconds: float
    message: str
    quadratic_dual: FloatArray = field(default_factory=_none)
    curve_dual: FloatArray = field(default_factory=_none)
    semidefinite_dual: FloatArray = field(default_factory=_none)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """Options that every solver has; None leaves the solver's own default.

    Attributes:
        tolerance: feasibility and optimality tolerance, in solver scale.
        max_iterations: iteration limit.
        time_limit_s: wall time limit, s.
        verbose: let the solver print its log.

    Raises:
        OptionError: a number that is not finite and above zero.
    """

    tolerance: float | None = None
    max_iterations: int | None = None
    time_limit_s: float | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        for name in ("tolerance", "max_iterations", "time_limit_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                message = f"the solver's {name} must be a finite number above 0, not {value!r}"
                raise OptionError(message)

    def within(self, until: float) -> Self:
        """The same options, with no more time than there is until a time of `time.perf_counter`."""
        if not math.isfinite(until):
            return self
        left = max(until - time.perf_counter(), _LEAST_S)
        return replace(self, time_limit_s=left if self.time_limit_s is None else min(self.time_limit_s, left))

    def plain(self) -> Options | None:
        """What was asked for other than the defaults, as options that every solver takes; None for nothing."""
        own = {f.name: (getattr(self, f.name), f.default) for f in fields(type(self))}
        asked = {f.name: own[f.name][0] for f in fields(Options) if own[f.name][0] != own[f.name][1]}
        return Options(**asked) if asked else None


class Session(ABC):
    """A solver that was built for one pattern of program."""

    @abstractmethod
    def solve(self, program: Program, warm: Solution | None = None) -> Solution:
        """Solve a program of this session's pattern; nothing is rebuilt that the new data does not touch.

        Args:
            program: the program the session was started with, or an `update` of it.
            warm: a solution to start from, where the solver can use one.
        """

    def shift(self, steps: int) -> None:  # noqa: B027
        """Say that the data of the next solve is that of the last one, so many steps later: what the session keeps to
        start from moves along. Nothing to do where it keeps nothing."""

    def takes(self, options: Options | None) -> bool:
        """Whether the session goes on with other options than it was started with; it has them then."""
        return False

    def slopes(self, columns: sp.csc_array) -> tuple[FloatArray, FloatArray] | None:
        """How the last solution moves with costs, where the solver knows it of this one.

        Args:
            columns: changes C of the program's costs c, shape (n, k).

        Returns:
            ``C' dx/dc C``, shape (k, k), and ``C' dx/d(log gap)``, shape (k,), of the duality gap that the solution
            was let have; None where it is not known.
        """
        return None


class Solver(ABC):
    """One solver. Leaves are final; they declare what they accept and start sessions."""

    name: ClassVar[str]
    accepts: ClassVar[frozenset[ProblemClass]]

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    @abstractmethod
    def _start(self, program: Program) -> Session:
        """The session; the class of the program was checked."""

    def start(self, program: Program) -> Session:
        """A session for programs of this one's pattern.

        Raises:
            UnsupportedError: the solver does not accept the program's class.
        """
        if program.problem_class not in self.accepts:
            raise UnsupportedError([_wrong_class(self, program.problem_class)])
        return self._start(program)

    def solve(self, program: Program, warm: Solution | None = None) -> Solution:
        """Start a session and solve once."""
        return self.start(program).solve(program, warm)


def _wrong_class(solver: Solver, problem_class: ProblemClass) -> Fault:
    accepted = ", ".join(sorted(c.value for c in solver.accepts))
    return Fault(
        code="SOL-001 problem-class",
        element=f"solver.{solver.name}",
        found=f"a {problem_class.value}",
        allowed=accepted,
        action="Choose solver 'auto', or a formulation of a class that this solver accepts.",
    )


@dataclass(slots=True)
class Interrupt:
    """Whether Ctrl-C was pressed; see `interrupts`."""

    pressed: bool = False


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Note Ctrl-C instead of raising it, for as long as a compiled library runs; then raise it.

    An exception cannot cross a library, so the adapter reads the note in a callback and asks the library to stop. Off
    the main thread, where Python takes no signals, nothing is changed.
    """
    note = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield note
        return

    def press(_number: int, _frame: object) -> None:
        note.pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield note
    finally:
        # None: the handler was not set from Python and cannot be put back
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if note.pressed:
        raise KeyboardInterrupt


def check_pattern(program: Program, shape: tuple[int, ...]) -> None:
    """Refuse a program of another pattern than the session's, and one of numbers that are none.

    Raises:
        ValueError: when sizes differ.
        OptionError: see `check_numbers`.
    """
    if pattern_of(program) != shape:
        message = f"this session solves programs of pattern {shape}, not {pattern_of(program)}; start a new one"
        raise ValueError(message)
    check_numbers(program)


def check_numbers(program: Program) -> None:
    """Refuse what no solver can be handed: a side or bound that is NaN is none to some, and takes others down.

    Raises:
        OptionError: a NaN; or an infinite number that is no side and no bound.
    """
    p, q, s = program.products, program.quadratics, program.semidefinite
    numbers: dict[str, tuple[FloatArray, ...]] = {
        "objective": (program.c, program.q.data, np.array([program.c0])),
        "rows": (program.a.data, program.b, program.g.data),
        "product rows": (p.a.data, p.a0, p.u.data, p.u0, p.v.data, p.v0),
        "quadratic rows": (q.f.data, q.f0, q.g.data, q.g0, q.w.data),
        "semidefinite rows": (s.m.data, s.m0),
        "start point": (program.start_point,),
    }
    sides = {"rows": (program.l, program.u), "bounds": (program.lb, program.ub), "quadratic rows": (q.l, q.u)}
    wrong = [what for what, arrays in numbers.items() if not all(np.isfinite(a).all() for a in arrays)]
    wrong += [
        what if what == "bounds" else f"sides of {what}"
        for what, arrays in sides.items()
        if any(np.isnan(a).any() for a in arrays)
    ]
    if wrong:
        message = f"the program holds values that are no numbers, in: {', '.join(wrong)}"
        raise OptionError(message)


def pattern_of(program: Program) -> tuple[int, ...]:
    """Sizes that an `update` never changes: variables, rows and nonzeros."""
    p, q = program.products, program.quadratics
    s = program.semidefinite
    rows = (len(program.b), len(program.l), p.n_rows, q.n_rows, program.curves.n_rows, s.n_rows)
    factors = (p.a.nnz, q.f.nnz, q.g.nnz, q.w.nnz, s.m.nnz)
    return (program.n, *rows, program.a.nnz, program.g.nnz, program.q.nnz, *factors)


def reduced_cost(
    program: Program,
    x: FloatArray,
    y: FloatArray,
    w: FloatArray,
    mu: FloatArray,
    nu: FloatArray | None = None,
    kappa: FloatArray | None = None,
    zeta: FloatArray | None = None,
) -> FloatArray:
    """The gradient of f less that of every row times its dual (see the module's text), shape (n,), unscaled."""
    z = program.c.copy()
    if program.q.nnz:
        z += program.q @ x
    z -= program.a.T @ y
    z -= program.g.T @ w
    if program.products.n_rows:
        z -= program.products.gradient_times(x, mu)
    if nu is not None and program.quadratics.n_rows:
        z -= program.quadratics.gradient_times(x, nu)
    if kappa is not None and program.curves.n_rows:
        z -= program.curves.gradient_times(x, kappa)
    if zeta is not None and program.semidefinite.n_rows:
        z -= program.semidefinite.gradient_times(x, zeta)
    return np.asarray(z)


def unscaled_solution(
    program: Program,
    *,
    x: FloatArray,
    y: FloatArray,
    w: FloatArray,
    mu: FloatArray,
    status: Status,
    solver: str,
    iterations: int,
    seconds: float,
    message: str,
    nu: FloatArray | None = None,
    kappa: FloatArray | None = None,
    zeta: FloatArray | None = None,
) -> Solution:
    """The Solution of numbers in solver scale, in this module's dual sign."""
    f = program.objective_scale
    x = x * program.col_scale
    y, w, mu = y * program.eq_scale, w * program.ineq_scale, mu * program.product_scale
    for dual in (y, w, mu):
        dual /= f
    nu = np.zeros(program.quadratics.n_rows) if nu is None else nu * program.quadratic_scale / f
    kappa = np.zeros(program.curves.n_rows) if kappa is None else kappa * program.curve_scale / f
    entries = program.semidefinite_scale
    zeta = np.zeros(len(entries)) if zeta is None else zeta * entries / f
    z = reduced_cost(program, x, y, w, mu, nu, kappa, zeta)
    return Solution(x, y, w, mu, z, status, solver, iterations, seconds, message, nu, kappa, zeta)


def no_point(
    program: Program, *, status: Status, solver: str, iterations: int, seconds: float, message: str
) -> Solution:
    """A Solution without numbers (all NaN): the solver proved or met something else than a point."""

    def nan(size: int) -> FloatArray:
        return np.full(size, np.nan)

    sizes = (program.n, len(program.b), len(program.l), program.products.n_rows, program.n)
    x, y, w, mu, z = (nan(size) for size in sizes)
    nu, kappa = nan(program.quadratics.n_rows), nan(program.curves.n_rows)
    zeta = nan(len(program.semidefinite_scale))
    return Solution(x, y, w, mu, z, status, solver, iterations, seconds, message, nu, kappa, zeta)
