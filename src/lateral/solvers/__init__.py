"""Solver adapters: each one small file; `choose` names the default for a class of problem."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lateral.errors import OptionError, did_you_mean
from lateral.program import ProblemClass, Program
from lateral.solvers.base import Options, Session, Solution, Solver, Status
from lateral.solvers.clarabel import ClarabelOptions, ClarabelSolver
from lateral.solvers.elastic import Conflict, ElasticProgram, elastic, explain
from lateral.solvers.highs import HighsOptions, HighsSolver
from lateral.solvers.ipopt import IpoptOptions, IpoptSolver
from lateral.solvers.native import NativeOptions, NativeSolver

__all__ = [
    "ClarabelOptions",
    "ClarabelSolver",
    "Conflict",
    "ElasticProgram",
    "HighsOptions",
    "HighsSolver",
    "IpoptOptions",
    "IpoptSolver",
    "NativeOptions",
    "NativeSolver",
    "Options",
    "SOLVERS",
    "Session",
    "Solution",
    "Solver",
    "SolverEntry",
    "Status",
    "choose",
    "elastic",
    "explain",
    "get",
    "register_solver",
]


@dataclass(frozen=True, slots=True)
class SolverEntry:
    """A registered solver: its class and the class of its options."""

    solver: type[Solver]
    options: type[Options]


#: Variables from which the structured solver takes convex programs on a tree: in a third of Clarabel's time there, an
#: eighth at 100,000; below, there is nothing between them, and Clarabel compiles nothing at its first call.
LARGE = 10_000
#: Solvers by name. `register_solver` adds to it.
SOLVERS: dict[str, SolverEntry] = {}


def register_solver(solver: type[Solver], options: type[Options]) -> None:
    """Make a solver known by its name.

    Raises:
        OptionError: the name is taken.
    """
    if solver.name in SOLVERS:
        message = f"a solver named {solver.name!r} is registered already"
        raise OptionError(message)
    SOLVERS[solver.name] = SolverEntry(solver, options)


def get(name: str, options: Options | None = None) -> Solver:
    """The solver of a name.

    Args:
        name: a name in `SOLVERS`.
        options: the solver's own options, or plain `Options`, of which what is not None replaces its defaults.

    Raises:
        OptionError: no such solver, or the options of another one.
    """
    if name not in SOLVERS:
        message = f"there is no solver {name!r}. {did_you_mean(name, list(SOLVERS))}"
        raise OptionError(message)
    entry = SOLVERS[name]
    if options is None:
        return entry.solver()
    if type(options) is Options:
        given = {f.name: getattr(options, f.name) for f in dataclasses.fields(Options)}
        options = dataclasses.replace(entry.options(), **{k: v for k, v in given.items() if v is not None})
    if not isinstance(options, entry.options):
        message = f"solver {name!r} takes {entry.options.__name__}, not {type(options).__name__}"
        raise OptionError(message)
    return entry.solver(options)


def choose(program: Program, *, avoid: str = "") -> tuple[str, str]:
    """The solver that ``auto`` means for a program, and why; ``avoid``: not this one, where another takes its class."""
    large = avoid != "native" and program.tree is not None and program.n >= LARGE and repeats(program)
    match program.problem_class:
        case ProblemClass.LP:
            return "highs", "a linear program: HiGHS, which restarts from its basis when data changes"
        case ProblemClass.QP | ProblemClass.SOCP if large:
            return "native", "a large convex program on a tree that repeats step by step: the structured solver"
        case ProblemClass.QP:
            return "clarabel", "a convex quadratic program: Clarabel"
        case ProblemClass.SOCP:
            return "clarabel", "a second-order cone program: Clarabel, which takes cones as they are"
        case ProblemClass.SDP:
            return "clarabel", "a semidefinite program: Clarabel, which takes matrices as they are"
        case ProblemClass.NLP if avoid == "ipopt" or (avoid != "native" and repeats(program)):
            return (
                "native",
                "a non-convex program that repeats step by step: the structured solver, for a local optimum",
            )
        case ProblemClass.NLP:
            return "ipopt", "a non-convex program: Ipopt, for a local optimum"


def repeats(program: Program) -> bool:
    """Whether every variable has a step, so that the structured solver may take the program."""
    n_steps = max((b.n_steps for b in program.variables), default=1)
    return all(b.n_steps == n_steps or b.at is not None for b in program.variables)


register_solver(HighsSolver, HighsOptions)
register_solver(ClarabelSolver, ClarabelOptions)
register_solver(IpoptSolver, IpoptOptions)
register_solver(NativeSolver, NativeOptions)
