"""Every solver on small problems of every class it accepts, judged by recomputed optimality conditions."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

import lateral
from lateral.errors import OptionError, UnsupportedError
from lateral.program import Affine, ProblemClass, Program, ProgramBuilder
from lateral.results.residuals import earned_status, recompute
from lateral.solvers import (
    SOLVERS,
    ClarabelOptions,
    HighsOptions,
    IpoptOptions,
    Options,
    Solution,
    Status,
    choose,
    explain,
    get,
    register_solver,
)
from lateral.solvers import ipopt as ipopt_module
from lateral.solvers.base import interrupts

#: semidefinite programs have tests of their own (test_semidefinite.py)
CLASSES = tuple(kind for kind in ProblemClass if kind is not ProblemClass.SDP)
#: solvers of any program; the structured one wants a tree, and has tests of its own (test_native.py)
GENERAL = {name: entry for name, entry in SOLVERS.items() if name != "native"}
PAIRS = [(name, kind) for name, entry in GENERAL.items() for kind in CLASSES if kind in entry.solver.accepts]
IDS = [f"{name}-{kind.name}" for name, kind in PAIRS]


def feeder(kind: ProblemClass, seed: int, *, n: int = 4, steps: int = 3) -> Program:
    """A chain of branches with a flexible source, a limited generator at the end and a daily energy budget."""
    rng = np.random.default_rng(seed)
    b = ProgramBuilder(steps)
    names = [f"n{i}" for i in range(n)]
    load = b.data("load.p", names, rng.uniform(0.05, 0.3, (n, steps)) * 4 / n, unit="kW")
    price = b.data("price", ["grid"], rng.uniform(0.5, 2.0, (1, steps)), unit="$/kWh")
    cap = b.data("gen.cap", ["g"], rng.uniform(0.1, 0.3, (1, steps)), unit="kW")
    scale = rng.uniform(0.5, 2.0, (n, 1))
    p = b.variable("branch", "p_from", names, unit="kW", scale=scale, start=0.1)
    gen = b.variable("gen", "p", ["g"], unit="kW", lower=0.0, upper=cap, scale=0.3)
    v = b.variable("bus", "vmag_sq", names, unit="pu^2", lower=0.85, upper=1.1, start=1.0)
    r = rng.uniform(0.01, 0.04, n) * 4 / n
    down = np.arange(1, n)
    ell = None
    if kind in (ProblemClass.SOCP, ProblemClass.NLP):
        ell = b.variable("branch", "imag_sq", names, unit="A^2", scale=scale**2, start=0.01)
    into = p - (ell * r[:, None] if ell is not None else Affine.zeros(n, steps))
    out = p.take(down).map_terms(n, down - 1, np.arange(n - 1), np.ones(n - 1))
    own = gen.map_terms(n, np.array([n - 1]), np.array([0]), np.ones(1))
    b.equal("bus", "balance_p", names, into - out + own, load, scale=scale)
    upstream = v.take(down - 1).map_terms(n, down, np.arange(n - 1), np.ones(n - 1))
    root = np.zeros((n, steps))
    root[0] = 1.0
    drop = p * (2.0 * r[:, None]) - (ell * (r**2)[:, None] if ell is not None else Affine.zeros(n, steps))
    b.equal("branch", "voltage", names, v + drop - upstream, root)
    b.between("gen", "energy", ["g"], -np.inf, gen.sum_steps(), 0.45, scale=0.5)
    b.between("gen", "ramp", ["g"], -0.05, gen.at_steps(np.array([1])) - gen.at_steps(np.array([0])), 0.02, scale=0.1)
    b.minimise(p.take(np.array([0])).times_parameter(price))
    b.minimise(gen * 0.7)
    if kind is ProblemClass.QP:
        b.minimise_squares(v - 1.0, 3.0)
        b.minimise_squares(gen, price)
    if ell is not None:
        send = b.variable("branch", "q_from", names, unit="kvar", lower=0.02, upper=1.0, scale=scale, start=0.05)
        squares = [p, send * 0.5 + 0.01]
        vv = v.take(down - 1).map_terms(n, down, np.arange(n - 1), np.ones(n - 1)) + root
        b.product("branch", "current", names, squares, ell, vv, equality=kind is ProblemClass.NLP, scale=scale**2)
        one = Affine.constant(np.full((1, steps), 0.28))
        if kind is ProblemClass.SOCP:
            b.product("gen", "rating", ["g"], [gen, send.take(np.array([0]))], one, one, limit=True)
    return b.freeze()


def dense(n: int = 60, m: int = 40) -> Program:
    """A linear program that presolve cannot solve by itself."""
    rng = np.random.default_rng(7)
    b = ProgramBuilder(1)
    side = b.data("side", [f"r{i}" for i in range(m)], rng.uniform(1.0, 2.0, (m, 1)), unit="kW")
    x = b.variable("a", "x", [f"x{i}" for i in range(n)], unit="kW", lower=0.0, upper=1.0)
    b.between("a", "row", [f"r{i}" for i in range(m)], -np.inf, x.map(rng.uniform(0.0, 1.0, (m, n))), side)
    b.minimise(-x * rng.uniform(0.5, 1.0, (n, 1)))
    return b.freeze()


@cache
def solved(name: str, kind: ProblemClass, seed: int) -> tuple[Program, Solution]:
    program = feeder(kind, seed)
    return program, get(name).solve(program)


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=IDS)
@pytest.mark.parametrize("seed", range(4))
def test_optimality_conditions(name: str, kind: ProblemClass, seed: int) -> None:
    program, solution = solved(name, kind, seed)
    assert program.problem_class is kind
    residuals = recompute(program, solution)
    assert earned_status(program, solution, residuals) is Status.OPTIMAL, (solution.message, residuals)
    assert residuals.max_primal < 1e-7
    assert residuals.max_bound < 1e-7
    assert residuals.max_dual < 1e-6
    z, tiny = solution.reduced_cost, 1e-5
    free_up = solution.x < program.ub - 1e-4
    free_down = solution.x > program.lb + 1e-4
    assert np.all(z[free_up] > -tiny)
    assert np.all(z[free_down] < tiny)
    middle = program.g @ solution.x
    assert np.all(solution.ineq_dual[middle > program.l + 1e-4] < tiny)
    assert np.all(solution.ineq_dual[middle < program.u - 1e-4] > -tiny)
    assert np.all(solution.product_dual[~program.products.equality] < tiny)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda k: k.name)
@pytest.mark.parametrize("seed", range(4))
def test_every_solver_finds_the_same_optimum(kind: ProblemClass, seed: int) -> None:
    values = [program.objective(s.x) for program, s in (solved(n, k, seed) for n, k in PAIRS if k is kind)]
    assert np.ptp(values) < 1e-7 * max(1.0, abs(values[0]))


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=IDS)
def test_duals_are_derivatives_of_the_minimum(name: str, kind: ProblemClass) -> None:
    program, solution = solved(name, kind, 1)
    session = get(name).start(program)
    step = 1e-4

    def slope(changed: list[Program]) -> float:
        down, up = (p.objective(session.solve(p).x) for p in changed)
        return (up - down) / (2.0 * step)

    def shifted(field: str, index: int) -> list[Program]:
        out = []
        for sign in (-1.0, 1.0):
            vector = getattr(program, field).copy()
            vector[index] += sign * step
            out.append(dataclasses.replace(program, **{field: vector}))
        return out

    for index in range(0, len(program.b), 3):
        assert slope(shifted("b", index)) == pytest.approx(solution.eq_dual[index], abs=2e-4)
    for index, dual in enumerate(solution.ineq_dual):
        assert slope(shifted("l" if dual > 0 else "u", index)) == pytest.approx(dual, abs=2e-4)
    for index in np.flatnonzero(np.abs(solution.reduced_cost) > 1e-3):
        dual = solution.reduced_cost[index]
        assert slope(shifted("lb" if dual > 0 else "ub", int(index))) == pytest.approx(dual, abs=2e-4)
    # a product row's right-hand side goes into u0 of an equivalent row: sum a^2 - rhs <= u v, as u0 += rhs / v
    p = program.products
    for row in range(0, p.n_rows, 4):
        v = (p.v @ solution.x + p.v0)[row]
        changed = []
        for sign in (-1.0, 1.0):
            u0 = p.u0.copy()
            u0[row] += sign * step / v
            changed.append(dataclasses.replace(program, products=dataclasses.replace(p, u0=u0)))
        assert slope(changed) == pytest.approx(solution.product_dual[row], abs=2e-3)


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=IDS)
def test_update_and_warm_start_equal_a_cold_solve(name: str, kind: ProblemClass) -> None:
    program = feeder(kind, 2)
    session = get(name).start(program)
    first = session.solve(program)
    changed = program.update({"load.p": program.theta[program.slots["load.p"].cells].reshape(4, 3) * 1.02})
    warm = session.solve(changed, warm=first)
    cold = get(name).solve(changed)
    assert warm.status is Status.OPTIMAL
    assert changed.objective(warm.x) == pytest.approx(changed.objective(cold.x), rel=1e-7)
    assert changed.objective(warm.x) > program.objective(first.x)
    # data that enters a coefficient, and a bound that becomes fixed
    again = changed.update({"price": np.array([2.0, 0.3, 1.0]), "gen.cap": np.array([[0.2, 0.0, 0.25]])})
    again = again.update({"gen.cap": np.array([[0.2, 0.2, 0.25]])}) if kind is not ProblemClass.LP else again
    third, alone = session.solve(again, warm=warm), get(name).solve(again)
    assert third.status is alone.status
    if alone.status is Status.OPTIMAL:
        assert again.objective(third.x) == pytest.approx(again.objective(alone.x), rel=1e-7)


def test_hot_start_needs_hardly_any_iterations() -> None:
    program = dense()
    session = get("highs").start(program)
    first = session.solve(program)
    second = session.solve(program.update({"side": program.theta.reshape(-1, 1) * 1.001}))
    assert first.iterations > 10
    assert second.iterations <= 2
    assert second.status is Status.OPTIMAL


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=IDS)
def test_infeasible(name: str, kind: ProblemClass) -> None:
    program = feeder(kind, 0).update({"load.p": np.full((4, 3), 2.0)})
    solution = get(name).solve(program)
    expected = Status.LOCALLY_INFEASIBLE if name == "ipopt" else Status.INFEASIBLE
    assert solution.status is expected
    residuals = recompute(program, solution)
    assert earned_status(program, solution, residuals) is expected


@pytest.mark.parametrize("name", [n for n, k in PAIRS if k is ProblemClass.LP])
def test_unbounded(name: str) -> None:
    b = ProgramBuilder(1)
    x = b.variable("a", "x", ["1", "2"], unit="kW", lower=0.0)
    b.between("a", "row", ["r"], 0.0, x.map(np.array([[1.0, -1.0]])), 1.0)
    b.minimise(-x)
    assert get(name).solve(b.freeze()).status is Status.UNBOUNDED


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=IDS)
def test_a_limit_is_not_a_solution(name: str, kind: ProblemClass) -> None:
    program = dense() if kind is ProblemClass.LP else feeder(kind, 1, n=20, steps=12)
    solution = get(name, Options(max_iterations=2)).solve(program)
    assert solution.status is Status.LIMIT_REACHED
    assert earned_status(program, solution, recompute(program, solution)) is Status.LIMIT_REACHED


def test_a_claim_of_optimal_is_not_enough() -> None:
    program, solution = solved("clarabel", ProblemClass.SOCP, 0)
    for field, delta in (("x", 1e-4), ("eq_dual", 1e-3), ("product_dual", 1e-2)):
        wrong = dataclasses.replace(solution, **{field: getattr(solution, field) + delta})
        mine = dataclasses.replace(
            wrong,
            reduced_cost=program.c
            + program.q @ wrong.x
            - program.a.T @ wrong.eq_dual
            - program.g.T @ wrong.ineq_dual
            - program.products.gradient_times(wrong.x, wrong.product_dual),
        )
        assert earned_status(program, mine, recompute(program, mine)) is Status.INACCURATE, field
    humble = dataclasses.replace(solution, status=Status.INACCURATE)
    assert earned_status(program, humble, recompute(program, humble)) is Status.OPTIMAL
    empty = dataclasses.replace(solution, x=np.full_like(solution.x, np.nan))
    assert earned_status(program, empty, recompute(program, empty)) is Status.ERROR


@pytest.mark.parametrize("kind", [ProblemClass.LP, ProblemClass.QP, ProblemClass.SOCP], ids=lambda k: k.name)
def test_the_gap_bounds_the_distance_to_the_optimum(kind: ProblemClass) -> None:
    """A solve stopped early by loose tolerances: the recomputed gap is never below the true one."""
    program, best = solved("clarabel", kind, 3)
    optimum = program.objective(best.x)
    for tolerance in (1e-2, 1e-3, 1e-4):
        loose = get("clarabel", ClarabelOptions(tolerance=tolerance)).solve(program)
        residuals = recompute(program, loose)
        true = (program.objective(loose.x) - optimum) / abs(optimum)
        assert residuals.duality_gap >= 0.99 * true - 1e-8


def test_the_elastic_program_names_the_limit() -> None:
    for kind, name in ((ProblemClass.LP, "highs"), (ProblemClass.SOCP, "clarabel"), (ProblemClass.NLP, "ipopt")):
        program = feeder(kind, 0).update({"load.p": np.array([[0.1, 0.1, 0.1]] * 3 + [[0.1, 2.2, 0.1]])})
        assert get(name).solve(program).status in (Status.INFEASIBLE, Status.LOCALLY_INFEASIBLE)
        conflicts = explain(program, get(name))
        assert conflicts
        assert 1 in {c.step for c in conflicts} <= {0, 1}
        low = [c for c in conflicts if c.block == "bus.vmag_sq"]
        assert low
        assert low[0].element == "n3"
        assert low[0].unit == "pu"
        assert low[0].limit == pytest.approx(np.sqrt(0.85))
        assert low[0].value < low[0].limit
        assert "bus n3 vmag" in low[0].sentence
        assert "< 0.922 pu at step 1" in low[0].sentence
        fewer = explain(program, get(name), reduce=True)
        assert 0 < len({(c.block, c.element) for c in fewer}) <= len({(c.block, c.element) for c in conflicts})


def test_the_elastic_program_of_a_feasible_one_names_nothing() -> None:
    assert explain(feeder(ProblemClass.LP, 0), get("highs")) == ()


def test_refusals() -> None:
    with pytest.raises(UnsupportedError, match="SOL-001 problem-class"):
        get("highs").start(feeder(ProblemClass.SOCP, 0))
    with pytest.raises(UnsupportedError, match="SOL-001 problem-class"):
        get("clarabel").start(feeder(ProblemClass.NLP, 0))
    with pytest.raises(OptionError, match="Did you mean 'clarabel'"):
        get("clarabell")
    with pytest.raises(OptionError, match="takes HighsOptions"):
        get("highs", IpoptOptions())
    with pytest.raises(OptionError, match="registered already"):
        register_solver(SOLVERS["highs"].solver, HighsOptions)
    with pytest.raises(ValueError, match="this session solves programs of pattern"):
        get("highs").start(feeder(ProblemClass.LP, 0)).solve(feeder(ProblemClass.LP, 0, n=5))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_options_are_finite_and_positive(value: float) -> None:
    for name in ("tolerance", "time_limit_s"):
        with pytest.raises(OptionError, match=f"{name} must be a finite number above 0"):
            IpoptOptions(**{name: value})  # type: ignore[arg-type]


def test_auto() -> None:
    chosen = {kind: choose(feeder(kind, 0))[0] for kind in CLASSES}
    assert chosen == {
        ProblemClass.LP: "highs",
        ProblemClass.QP: "clarabel",
        ProblemClass.SOCP: "clarabel",
        ProblemClass.NLP: "native",
    }
    daily = lateral.build(lateral.read("ads10"), "nonlinear", "peak").program  # the peak is one variable of all steps
    assert choose(daily)[0] == "ipopt"


def test_a_local_optimum_says_so() -> None:
    assert "local optimum" in Status.OPTIMAL.text(ProblemClass.NLP)
    assert "local" not in Status.OPTIMAL.text(ProblemClass.SOCP)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
def test_ctrl_c_is_noted_inside_a_library_and_raised_after_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    inside = False
    with pytest.raises(KeyboardInterrupt), interrupts() as note:
        signal.raise_signal(signal.SIGINT)
        inside = note.pressed
    assert inside
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_give_the_same_numbers() -> None:
    """One process, several areas at once."""
    program, alone = solved("ipopt", ProblemClass.NLP, 2)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: get("ipopt").solve(program), range(8)))
    for solution in together:
        np.testing.assert_array_equal(solution.x, alone.x)


def test_a_cone_solution_starts_the_exact_model() -> None:
    relaxed, exact = feeder(ProblemClass.SOCP, 1, n=20, steps=12), feeder(ProblemClass.NLP, 1, n=20, steps=12)
    cone = get("clarabel").solve(relaxed)
    keep = len(exact.product_scale)
    cone = dataclasses.replace(cone, product_dual=cone.product_dual[:keep])
    warm, cold = get("ipopt").solve(exact, warm=cone), get("ipopt").solve(exact)
    assert exact.objective(warm.x) == pytest.approx(exact.objective(cold.x), rel=1e-7)


@pytest.mark.parametrize("verbose", [False, True])
def test_highs_prints_nothing_unless_asked(verbose: bool) -> None:
    """In a process of its own: HiGHS prints its name once in each."""
    code = (
        "from lateral.program import ProgramBuilder\n"
        "from lateral.solvers import Options, get\n"
        "b = ProgramBuilder(1)\n"
        "b.minimise(b.variable('x', 'p', ['a'], unit='kW', lower=1.0, upper=2.0))\n"
        f"assert get('highs', Options(verbose={verbose})).solve(b.freeze()).x[0] == 1.0\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert ("HiGHS" in run.stdout) is verbose
    assert verbose or run.stdout == ""


@pytest.mark.parametrize("always", [False, True])
def test_a_point_that_violates_nothing_is_not_locally_infeasible(always: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ipopt calls it so where its restoration phase ends at a feasible point: it starts again from there, and where it
    says so again, the point is inaccurate; no word about limits."""
    program = feeder(ProblemClass.NLP, 1)
    real, words = ipopt_module._library(), []
    names = ("CreateIpoptProblem", "FreeIpoptProblem", "SetIntermediateCallback")
    names += tuple(f"AddIpopt{kind}Option" for kind in ("Str", "Num", "Int"))

    def solve(*arguments: object) -> int:
        words.append(real.IpoptSolve(*arguments))
        return 2 if always or len(words) == 1 else int(words[-1])

    library = types.SimpleNamespace(IpoptSolve=solve, **{name: getattr(real, name) for name in names})
    monkeypatch.setattr(ipopt_module, "_library", lambda: library)
    found = get("ipopt").solve(program)
    assert words == [0, 0]
    assert found.status is (Status.INACCURATE if always else Status.OPTIMAL)
    monkeypatch.undo()
    assert program.objective(found.x) == pytest.approx(program.objective(get("ipopt").solve(program).x), rel=1e-8)


@pytest.mark.parametrize(
    ("solver", "formulation"),
    [
        ("native", "nonlinear"),
        ("ipopt", "nonlinear"),
        ("clarabel", "soc"),
        ("highs", "lindistflow"),
    ],
)
@pytest.mark.parametrize("where", ["c", "b", "u", "ub", "start_point"])
def test_numbers_that_are_none_are_refused(solver: str, formulation: str, where: str) -> None:
    # a NaN limit was none to native, which was optimal without it, and took the process down in Ipopt
    program = lateral.build(lateral.read("ieee123-t5"), formulation, loss_term=False).program
    session = get(solver).start(program)
    values = getattr(program, where).copy()
    if not len(values):
        pytest.skip("there are none")
    values[len(values) // 2] = np.nan
    with pytest.raises(OptionError, match="no numbers"):
        session.solve(dataclasses.replace(program, **{where: values}))
    if where in ("c", "b", "start_point"):
        values[len(values) // 2] = np.inf
        with pytest.raises(OptionError, match="no numbers"):
            session.solve(dataclasses.replace(program, **{where: values}))


@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize("lost", [True, False])
def test_clarabel_goes_without_its_scaling_only_where_that_helps(
    helps: bool, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops in rounding with its own scaling: with no point at all, or one at some distance from the optimum."""
    program = lateral.build(lateral.read("ads10"), "soc").program
    session = get("clarabel").start(program)
    run, calls = session._run, []  # type: ignore[attr-defined]

    def stopped() -> types.SimpleNamespace:
        raw = run()
        calls.append(session._settings.equilibrate_enable)  # type: ignore[attr-defined]
        # the first and the second; where it helps the second is nearer, else it is no point
        factor = (np.nan if lost else 1.1) if len(calls) == 1 else (1.0 if helps else np.nan)
        x, s, z = (factor * np.array(values) for values in (raw.x, raw.s, raw.z))
        return types.SimpleNamespace(x=x, s=s, z=z, status="InsufficientProgress", iterations=len(calls))

    monkeypatch.setattr(session, "_run", stopped)
    found = session.solve(program)
    assert calls == [True, False]
    assert found.iterations == (2 if helps else 1)
    assert session._settings.equilibrate_enable is not helps  # type: ignore[attr-defined]
    monkeypatch.setattr(session, "_run", run)
    assert session.solve(program).status is Status.OPTIMAL


def test_clarabel_without_its_scaling_has_what_is_left_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    program = lateral.build(lateral.read("ads10"), "soc").program
    session = get("clarabel", Options(time_limit_s=5.0)).start(program)
    run, limits = session._run, []  # type: ignore[attr-defined]

    def stopped() -> types.SimpleNamespace:
        raw = run()
        limits.append(session._settings.time_limit)  # type: ignore[attr-defined]
        return types.SimpleNamespace(x=raw.x, s=raw.s, z=raw.z, status="NumericalError", iterations=raw.iterations)

    monkeypatch.setattr(session, "_run", stopped)
    session.solve(program)
    assert limits[0] == 5.0
    assert 0.0 < limits[1] < 5.0
    session.solve(program)
    assert limits[2] == 5.0
