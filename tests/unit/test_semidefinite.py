"""Semidefinite rows of a program: entries, scaling, dual, residuals, solver, elastic twin."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

import lateral
from lateral import solvers
from lateral.errors import OptionError, UnsupportedError
from lateral.opf import build
from lateral.program import Affine, ProblemClass, Program, ProgramBuilder, SemidefiniteRows, upper_triangle
from lateral.results import retry
from lateral.results.residuals import earned_status, recompute
from lateral.solvers import Options, Status, clarabel
from lateral.solvers.central_path import Followed
from lateral.solvers.elastic import elastic


def smallest_eigenvalue(a: np.ndarray, scale: float = 1.0, *, n_steps: int = 1) -> Program:
    """``max t: A_k - t I psd`` for every step; A is data. The optimum is the sum of the smallest eigenvalues."""
    dim = len(a)
    rows, cols = upper_triangle(dim)
    builder = ProgramBuilder(n_steps)
    t = builder.variable("x", "t", ["t"], unit="", scale=scale)
    per = len(rows)
    data = builder.data("a", [f"{i}{j}" for i, j in zip(rows, cols, strict=True)], np.zeros((per, n_steps)), unit="")
    diagonal = np.flatnonzero(rows == cols)
    entries = data - t.map_terms(per, diagonal, np.zeros(dim, dtype=int), np.ones(dim))
    builder.psd("x", "matrix", ["m"], dim, entries, scale=np.full((1, dim), np.sqrt(scale)))
    builder.minimise(-t)
    values = a[rows, cols].reshape(-1, 1) * np.arange(1.0, n_steps + 1)
    return builder.freeze().update({"a": values})


A = np.array([[4.0, 1.0, -2.0], [1.0, 3.0, 0.5], [-2.0, 0.5, 5.0]])


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_smallest_eigenvalue(scale: float, n_steps: int) -> None:
    """The optimum is the smallest eigenvalue, and the dual the projector on its eigenvector."""
    program = smallest_eigenvalue(A, scale, n_steps=n_steps)
    assert program.problem_class is ProblemClass.SDP
    assert solvers.choose(program)[0] == "clarabel"
    s = solvers.get("clarabel").solve(program)
    values, vectors = np.linalg.eigh(A)
    steps = np.arange(1.0, n_steps + 1)
    np.testing.assert_allclose(s.x, values[0] * steps, rtol=1e-7)
    r = recompute(program, s)
    assert earned_status(program, s, r) is Status.OPTIMAL
    rows, cols = upper_triangle(3)
    projector = np.outer(vectors[:, 0], vectors[:, 0])[rows, cols]
    np.testing.assert_allclose(s.semidefinite_dual.reshape(n_steps, 6), np.tile(projector, (n_steps, 1)), atol=1e-5)


def test_what_is_wrong_shows() -> None:
    """A point outside shows as a violation; a dual that is not psd, or not complementary, as a gap."""
    program = smallest_eigenvalue(A)
    s = solvers.get("clarabel").solve(program)
    outside = dataclasses.replace(s, x=s.x + 0.25)
    assert recompute(program, outside).max_primal == pytest.approx(0.25, abs=1e-6)
    inside = dataclasses.replace(s, x=s.x - 0.25)
    size = abs(float(program.objective(inside.x)))
    assert recompute(program, inside).duality_gap == pytest.approx(0.25 / size, rel=1e-5)
    turned = dataclasses.replace(s, semidefinite_dual=-s.semidefinite_dual)
    assert recompute(program, turned).duality_gap > 1.0
    assert recompute(program, turned).max_dual > 0.1


def test_scaling_is_a_congruence() -> None:
    """A scaled matrix is psd where the matrix is, also for scales that differ along the diagonal."""
    rng = np.random.default_rng(1)
    rows, cols = upper_triangle(4)
    root = rng.normal(size=(4, 4))
    for shift in (1e-3, -1e-3):
        m = root @ root.T
        m += (shift - np.linalg.eigvalsh(m)[0]) * np.eye(4)
        builder = ProgramBuilder(1)
        x = builder.variable("x", "x", ["x"], unit="")
        builder.psd(
            "x", "m", ["m"], 4, Affine.constant(m[rows, cols].reshape(-1, 1)), scale=10.0 ** rng.uniform(-3, 3, (1, 4))
        )
        builder.minimise(x)
        program = builder.freeze()
        (e,) = program.semidefinite.eigenvalues(program.semidefinite.value(np.zeros(1)))
        assert e[0, 0] == pytest.approx(shift)
        s = program.scaled().semidefinite
        (e,) = s.eigenvalues(s.value(np.zeros(1)))
        assert np.sign(e[0, 0]) == np.sign(shift)


def test_gradient() -> None:
    rng = np.random.default_rng(2)
    rows, cols = upper_triangle(3)
    m = rng.normal(size=(6, 4))
    s = SemidefiniteRows(sp_csr(m), rng.normal(size=6), np.array([3]))
    z = rng.normal(size=6)
    full = np.zeros((3, 3))
    full[rows, cols] = full[cols, rows] = z
    x, d, h = rng.normal(size=4), rng.normal(size=4), 1e-6

    def inner(at: np.ndarray) -> float:
        out = np.zeros((3, 3))
        out[rows, cols] = out[cols, rows] = s.value(at)
        return float(np.sum(full * out))

    assert (inner(x + h * d) - inner(x - h * d)) / (2 * h) == pytest.approx(s.gradient_times(x, z) @ d, rel=1e-6)


def sp_csr(m: np.ndarray) -> object:
    import scipy.sparse as sp

    return sp.csr_array(m)


@pytest.mark.parametrize("name", ["highs", "ipopt", "native"])
def test_solvers_that_do_not_take_it_say_so(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"SOL-0(01|10)"):
        solvers.get(name).solve(smallest_eigenvalue(A))


def test_elastic_twin_keeps_the_rows() -> None:
    """A bound that cannot hold with the matrix gives way, by as much as it must."""
    program = smallest_eigenvalue(A)
    low = np.linalg.eigvalsh(A)[0]
    held = dataclasses.replace(program, lb=np.full(1, low + 0.5))
    s = solvers.get("clarabel").solve(held)
    assert s.status is Status.INFEASIBLE
    soft = elastic(held)
    assert soft.program.semidefinite.n_rows == 1
    (conflict,) = solvers.explain(held, solvers.get("clarabel"))
    assert conflict.amount == pytest.approx(0.5, abs=1e-5)


def test_entries_must_fit() -> None:
    builder = ProgramBuilder(1)
    x = builder.variable("x", "x", ["a", "b"], unit="")
    with pytest.raises(ValueError, match="2 entries"):
        builder.psd("x", "m", ["m"], 2, x, scale=np.ones((1, 2)))


# -- beyond where Clarabel stops --------------------------------------------------------------------------------------


def ends_with(monkeypatch: pytest.MonkeyPatch, word: str, off: float = 0.0) -> None:
    """Let Clarabel say this word, with a slack that is off by so much."""
    plain = clarabel._ClarabelSession._run

    def run(self: clarabel._ClarabelSession) -> object:
        raw = plain(self)
        said = {name: getattr(raw, name) for name in ("x", "z", "iterations")}
        return SimpleNamespace(**said, s=np.array(raw.s) + off, status=word)

    monkeypatch.setattr(clarabel._ClarabelSession, "_run", run)


def test_where_clarabel_stops_early_the_central_path_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    ends_with(monkeypatch, "AlmostSolved", 1e-3)
    program = smallest_eigenvalue(A)
    s = solvers.get("clarabel").solve(program)
    r = recompute(program, s)
    assert earned_status(program, s, r) is Status.OPTIMAL
    # at a point of the path s'z is the gap; the norm of s beside it adds up by absolute value
    assert 0.5 * clarabel.FOLLOWED_GAP < r.duality_gap < 2.0 * clarabel.FOLLOWED_GAP
    (note,) = s.notes
    assert "steps along the central path" in note


def test_a_path_that_cannot_be_followed_leaves_what_clarabel_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ends_with(monkeypatch, "AlmostSolved", 1e-3)
    monkeypatch.setattr(clarabel, "follow", lambda _program, start, *_, **_options: Followed(start, 0, reached=False))
    s = solvers.get("clarabel").solve(smallest_eigenvalue(A))
    assert s.status is Status.INACCURATE and s.notes == ()
    np.testing.assert_allclose(s.x, np.linalg.eigvalsh(A)[0], rtol=1e-6)


@pytest.mark.parametrize("word", ["Solved", "MaxIterations", "MaxTime", "PrimalInfeasible"])
def test_other_ends_are_the_answer(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_with(monkeypatch, word, 1e-9 if word == "Solved" else 1e-3)
    monkeypatch.setattr(clarabel, "follow", None)  # calling it fails
    s = solvers.get("clarabel").solve(smallest_eigenvalue(A))
    assert s.status is clarabel._STATUS[word] and s.notes == ()


def test_the_path_has_the_time_limit_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ends_with(monkeypatch, "AlmostSolved", 1e-3)
    now = iter(np.arange(0.0, 1000.0, 3.0))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    s = solvers.get("clarabel", Options(time_limit_s=2.0)).solve(smallest_eigenvalue(A))
    assert s.status is Status.INACCURATE and s.notes == ()
    assert np.isfinite(s.x).all()


def test_matrices_that_stopped_in_rounding_are_tried_from_an_earlier_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tighter tolerance stops at the same place: it is tried only where Clarabel says that it was done."""
    program = smallest_eigenvalue(A)
    done = solvers.get("clarabel").solve(program)
    stopped = dataclasses.replace(done, status=Status.INACCURATE)
    asked: list[Options] = []
    plain = solvers.get
    monkeypatch.setattr(retry.solvers, "get", lambda name, options: asked.append(options) or plain(name, options))
    monkeypatch.setattr(retry, "judged", lambda program, solution: (Status.INACCURATE, None))
    assert retry.tighter(program, stopped, Status.INACCURATE) is None
    early = clarabel.ClarabelOptions(follow_after=retry.EARLY)
    assert asked == [early]
    retry.tighter(program, done, Status.INACCURATE)
    assert asked[1:] == [Options(tolerance=retry.RETRY_TOLERANCE), early]


def test_the_path_is_followed_from_an_early_point() -> None:
    program = smallest_eigenvalue(A)
    s = solvers.get("clarabel", clarabel.ClarabelOptions(follow_after=3)).solve(program)
    assert s.iterations == 3
    assert "steps along the central path" in s.notes[0]
    assert earned_status(program, s, recompute(program, s)) is Status.OPTIMAL


def test_an_early_point_is_within_the_limit_of_iterations() -> None:
    program = smallest_eigenvalue(A)
    options = clarabel.ClarabelOptions(max_iterations=2, follow_after=3, time_limit_s=60.0)
    assert solvers.get("clarabel", options).solve(program).iterations == 2
    with pytest.raises(OptionError, match="follow_after is -1"):
        clarabel.ClarabelOptions(follow_after=-1)


@pytest.mark.parametrize("name", ["ieee13", "ieee13-rated"])
def test_the_gap_is_relative_to_an_objective_with_its_constant(name: str) -> None:
    """Squares of deviations from one: without the constant the objective is thousands of times as large, and Clarabel
    is content with a gap of 3e-5."""
    r = build(lateral.read(name), "sdp", "vdev").solve()
    assert r.status is Status.OPTIMAL
    # the certificate adds up by absolute value what the path knows to FOLLOWED_GAP
    assert r.residuals.duality_gap < 2.0 * clarabel.FOLLOWED_GAP
