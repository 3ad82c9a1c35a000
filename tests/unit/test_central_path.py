"""The central path: a program with every cone, followed from a rough point to where its gap is what was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import clarabel
import numpy as np
import pytest
import scipy.sparse as sp

from lateral.solvers import central_path
from lateral.solvers.central_path import Conic, Point, follow
from lateral.solvers.cones import Cones, Scaling

ZEROS, LINEAR, SECOND_ORDER, PSD = 3, 4, (3, 5, 3), (3, 2, 3)
N = 12


@pytest.fixture(scope="module")
def program() -> Conic:
    """Random rows, with a point inside of all cones, and costs for which there is one inside of the dual ones."""
    rng = np.random.default_rng(5)
    cones = Cones.of(ZEROS, LINEAR, SECOND_ORDER, PSD)
    m = ZEROS + LINEAR + sum(SECOND_ORDER) + sum(d * (d + 1) // 2 for d in PSD)
    a = sp.csr_array(rng.normal(size=(m, N)))
    inside = cones.moved_in(np.zeros(m)) + cones.moved_in(rng.normal(size=m))
    inside[:ZEROS] = 0.0
    dual = cones.moved_in(rng.normal(size=m))
    half = rng.normal(size=(N, 4))
    p = sp.csc_array(half @ half.T)
    return Conic(p, -(a.T @ dual), a, inside + a @ rng.normal(size=N), cones)


def rough(program: Conic, tolerance: float) -> Point:
    """What Clarabel has at a tolerance."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = tolerance
    cones = [clarabel.ZeroConeT(ZEROS), clarabel.NonnegativeConeT(LINEAR)]
    cones += [clarabel.SecondOrderConeT(size) for size in SECOND_ORDER]
    cones += [clarabel.PSDTriangleConeT(dim) for dim in PSD]
    upper, a = sp.csc_matrix(sp.triu(program.p)), sp.csc_matrix(program.a)
    raw = clarabel.DefaultSolver(upper, program.q, a, program.b, cones, settings).solve()
    return Point(np.array(raw.x), np.array(raw.s), np.array(raw.z))


def test_rows_by_cone() -> None:
    cones = Cones.of(ZEROS, LINEAR, SECOND_ORDER, PSD)
    assert cones.degree == LINEAR + len(SECOND_ORDER) + sum(PSD)
    assert [rows.tolist() for rows in cones.second_order] == [[[7, 8, 9], [15, 16, 17]], [[10, 11, 12, 13, 14]]]
    assert [(dim, rows[:, 0].tolist()) for dim, rows in cones.psd] == [(2, [24]), (3, [18, 27])]


@pytest.mark.parametrize("gap", [1e-6, 1e-9])
def test_the_gap_is_what_was_asked_for(program: Conic, gap: float) -> None:
    found = follow(program, rough(program, 1e-2), gap)
    assert found.reached
    at = found.point
    # inside on both sides: the costs of the two differ by s'z, and the optimum lies between them
    assert np.abs(program.a @ at.x + at.s - program.b).max() < 1e-12
    assert np.abs(program.p @ at.x + program.q + program.a.T @ at.z).max() < 1e-11
    assert np.all(at.s[:ZEROS] == 0.0) and program.cones.inside(at.s) and program.cones.inside(at.z)
    # the last step is taken where the point is centred to 1e-3, or to half where rounding allows no more
    assert at.s @ at.z == pytest.approx(gap * program.size(at.x), rel=1e-3)


def test_where_one_begins_does_not_matter(program: Conic) -> None:
    """Two points of Clarabel, 1e-3 apart, lead to one: what areas say must not hang on how far a solver got."""
    starts = [rough(program, tolerance) for tolerance in (1e-2, 1e-4)]
    ends = [follow(program, start, 1e-6) for start in starts]
    assert ends[0].reached and ends[1].reached
    apart = np.abs(starts[0].x - starts[1].x).max()
    assert np.abs(ends[0].point.x - ends[1].point.x).max() < 1e-3 * apart


def test_short_steps_are_given_up_where_asked(program: Conic) -> None:
    """From a rough point the first step is 0.7 to 0.9 of Newton's."""
    start = rough(program, 1e-2)
    assert follow(program, start, 1e-6, least=0.7).reached
    found = follow(program, start, 1e-6, least=0.9)
    assert (found.reached, found.steps) == (False, 0)


def test_short_steps_in_a_row_are_given_up(program: Conic, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same beginning: as many short steps as it takes are taken, and one is too many where none is allowed."""
    start = rough(program, 1e-2)
    monkeypatch.setattr(central_path, "_SHORT", 0.9)
    assert follow(program, start, 1e-6).reached
    monkeypatch.setattr(central_path, "_STUCK", 1)
    assert not follow(program, start, 1e-6).reached


def test_product_and_quotient_are_those_of_the_cones() -> None:
    """``v o w`` by hand for a number, a cone and a matrix, and back."""
    cones = Cones.of(1, 1, (3,), (2,))
    root = np.sqrt(2.0)
    v = np.array([0.0, 2.0, 3.0, 1.0, 0.5, 2.0, 0.0, 5.0])  # the matrix is diag(2, 5)
    w = np.array([0.0, 7.0, 1.0, 2.0, 4.0, 1.0, 3.0 * root, -2.0])  # [[1, 3], [3, -2]]
    by_hand = [0.0, 14.0, 3.0 + 2.0 + 2.0, 3.0 * 2.0 + 1.0, 3.0 * 4.0 + 0.5, 2.0, 10.5 * root, -10.0]
    np.testing.assert_allclose(cones.product(v, w), by_hand, rtol=1e-15)
    np.testing.assert_allclose(cones.quotient(v, cones.product(v, w)), w, rtol=1e-14)


@pytest.mark.filterwarnings("error")
def test_at_the_tip_of_a_cone_there_is_no_quotient_and_no_warning() -> None:
    """Rounding may bring a point there: a division by zero was written to the screen in the middle of a solve."""
    cones = Cones.of(0, 0, (3,), ())
    tip, there = np.zeros(3), np.array([1.0, 0.5, 0.0])
    assert not np.any(np.isfinite(cones.quotient(tip, there)))
    assert not cones.inside(cones.quotient(tip, there))


def test_steps_are_corrected(program: Conic, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the linearised equation leaves is put right: 9 steps are taken then, 14 without that."""
    start = rough(program, 1e-2)
    found = follow(program, start, 1e-9)
    monkeypatch.setattr(Cones, "quotient", lambda self, value, w: np.zeros(len(w)))
    plain = follow(program, start, 1e-9)
    assert found.reached and plain.reached
    assert found.steps < 0.8 * plain.steps
    assert np.abs(found.point.x - plain.point.x).max() < 1e-6


def test_where_rounding_wins_the_best_on_the_way_is_kept(program: Conic, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the fourth step on the dual goes astray, ten times as far each step."""
    plain, gaps = central_path._step, []

    def astray(*given: Any) -> Any:
        dx, dz, *rest = plain(*given)
        gaps.append(program.gap(Point(given[3], given[4], given[5])))
        if len(gaps) > 3:
            dz[0] += 1e-3 * 10.0 ** len(gaps)
        return dx, dz, *rest

    monkeypatch.setattr(central_path, "_step", astray)
    found = follow(program, rough(program, 1e-2), 1e-9)
    assert not found.reached and 4 <= found.steps < 10
    assert program.gap(found.point) == pytest.approx(min(gaps), rel=1e-12)


def test_on_the_edge_of_a_cone_there_is_no_path() -> None:
    """(1, 1, 0) is on the edge of its cone: no scaling there, and no warning of a division by nothing."""
    cones = Cones.of(0, 0, (3,), ())
    edge, inside = np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])
    for s, z in ((edge, inside), (inside, edge)):
        with pytest.raises(np.linalg.LinAlgError, match="edge"):
            Scaling.of(cones, s, z)


@pytest.mark.parametrize("far", [1.0, 1e3, 1e9])
def test_the_gap_is_that_of_the_end(far: float) -> None:
    """min x1 + x2 + x3, x >= (1, 2, 3), from where the objective is far from 6: a share of it there is no gap."""
    cones = Cones.of(0, 3, (), ())
    three = Conic(sp.csc_array((3, 3)), np.ones(3), sp.csr_array(-np.eye(3)), -np.array([1.0, 2.0, 3.0]), cones)
    x = far * np.array([2.0, 3.0, 4.0])
    found = follow(three, Point(x, x - np.array([1.0, 2.0, 3.0]), np.ones(3)), 1e-8)
    assert found.reached
    assert three.gap(found.point) == pytest.approx(1e-8, rel=1e-3)
    assert found.point.x.sum() == pytest.approx(6.0, abs=1e-7)


def test_the_constant_of_the_objective_counts() -> None:
    """min x1 + x2 + x3 - 6 + 1e-3, x >= (1, 2, 3): the gap is a share of 1e-3, or of the least that counts."""
    cones, sides = Cones.of(0, 3, (), ()), np.array([1.0, 2.0, 3.0])
    rows = sp.csr_array(-np.eye(3))
    for least, size in ((1e-4, 1e-3), (1e-2, 1e-2)):
        three = Conic(sp.csc_array((3, 3)), np.ones(3), rows, -sides, cones, 1e-3 - 6.0, least)
        found = follow(three, Point(2.0 * sides, sides, np.ones(3)), 1e-6)
        assert found.reached
        assert found.point.s @ found.point.z == pytest.approx(1e-6 * size, rel=1e-3)


def test_what_is_no_number_is_not_inside(program: Conic) -> None:
    inside = program.cones.moved_in(np.zeros(len(program.b)))
    assert program.cones.inside(inside)
    for k in (ZEROS, ZEROS + LINEAR, len(inside) - 1):
        broken = inside.copy()
        broken[k] = np.nan
        assert not program.cones.inside(broken)
        assert not follow(program, Point(np.zeros(N), broken, inside), 1e-6).reached


def test_no_steps_and_no_time(program: Conic) -> None:
    start = rough(program, 1e-2)
    few, none = follow(program, start, 1e-9, iterations=2), follow(program, start, 1e-9, until=0.0)
    assert (few.reached, few.steps) == (False, 2)
    assert (none.reached, none.steps, none.point) == (False, 0, start)


def test_a_row_that_cannot_hold_is_no_end(program: Conic) -> None:
    """Twice the same row with another side: the factor is singular, or the rows never hold."""
    a, b = program.a.toarray(), program.b.copy()
    a[1], b[1] = a[0], b[0] + 1.0
    broken = Conic(program.p, program.q, sp.csr_array(a), b, program.cones)
    assert not follow(broken, rough(program, 1e-2), 1e-6).reached


def test_a_point_on_the_boundary_is_moved_in() -> None:
    cones = Cones.of(0, 1, (3,), (2,))
    v = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    assert not cones.inside(v)
    moved = cones.moved_in(v)
    assert cones.inside(moved) and np.abs(moved - v).max() <= 1e-12


def test_slopes_are_what_differences_say(program: Conic) -> None:
    """With a constant that dwarfs the rest of the objective mu is the same at every point."""
    program = replace(program, constant=1e6)
    gap, h = 1e-9, 1e-5
    columns = np.random.default_rng(8).normal(size=(N, 3))

    def at(dq: np.ndarray, gap: float) -> Point:
        found = follow(replace(program, q=program.q + dq), rough(program, 1e-2), gap)
        assert found.reached
        return found.point

    by_costs, by_gap = central_path.slopes(program, at(np.zeros(N), gap), sp.csc_array(columns))
    for k in range(3):
        difference = columns.T @ (at(h * columns[:, k], gap).x - at(-h * columns[:, k], gap).x) / (2.0 * h)
        assert np.abs(by_costs[:, k] - difference).max() <= 1e-5 * np.abs(difference).max()
    up, down = (at(np.zeros(N), gap * np.exp(by)).x for by in (1e-3, -1e-3))
    difference = columns.T @ (up - down) / 2e-3
    # the path is left where it is centred to a thousandth
    assert np.abs(by_gap - difference).max() <= 2e-3 * np.abs(difference).max()


def test_a_program_without_cones_is_solved_at_once() -> None:
    """Equalities alone: the point and its slopes are those of the linear equations."""
    rng = np.random.default_rng(3)
    a, b, q = rng.normal(size=(2, 5)), rng.normal(size=2), rng.normal(size=5)
    program = Conic(sp.csc_array(np.eye(5)), q, sp.csr_array(a), b, Cones.of(2, 0, (), ()))
    found = follow(program, Point(np.zeros(5), np.zeros(2), np.zeros(2)), 1e-3)
    inverse = np.linalg.inv(np.block([[np.eye(5), a.T], [a, np.zeros((2, 2))]]))
    assert found.reached
    assert found.point.x == pytest.approx((inverse @ np.concatenate([-q, b]))[:5], abs=1e-12)
    by_costs, by_gap = central_path.slopes(program, found.point, sp.csc_array(np.eye(5)))
    # what rows of nothing but zeros get so that they can be factored is 1e-14
    assert by_costs == pytest.approx(-inverse[:5, :5], abs=1e-12)
    assert not np.any(by_gap)


def test_a_gap_may_be_larger_than_that_of_the_start(program: Conic) -> None:
    """Clarabel goes far beyond what it is asked for; the path is followed back."""
    start = rough(program, 1e-3)
    assert program.gap(start) < 1e-3
    found = follow(program, start, 1e-2)
    at = found.point
    assert found.reached
    assert at.s @ at.z == pytest.approx(1e-2 * program.size(at.x), rel=1e-2)


@pytest.mark.parametrize("price", [1e-3, 1.0])
def test_from_the_edge_the_path_is_followed_back_where_the_gap_is_worth_more_than_what_is_decided(price: float) -> None:
    """Four numbers between 0 and 1, and a constant that dwarfs their costs. Their bounds are left by next to nothing,
    the point of a gap of 1e-2 is in the middle: from there ``q + x - mu / x + mu / (1 - x) = 0`` of each alone."""
    q, n = price * np.array([1.0, 2.0, -1.0, 0.5]), 4
    rows, sides = sp.csr_array(np.vstack([-np.eye(n), np.eye(n)])), np.repeat([0.0, 1.0], n)
    program = Conic(sp.csc_array(np.eye(n)), q, rows, sides, Cones.of(0, 2 * n, (), ()), constant=10.0)
    x = np.where(q > 0.0, 1e-10, 1.0 - 1e-10)
    g = x + q
    edge = Point(x, sides - rows @ x, np.concatenate([np.maximum(g, 1e-10), np.maximum(-g, 1e-10)]))
    assert not follow(program, edge, 1e-2).reached
    found = follow(program, central_path.inside(program, edge, 1e-2), 1e-2)
    assert found.reached
    x, mu = found.point.x, 1e-2 * program.size(found.point.x) / (2 * n)
    assert q + x - mu / x + mu / (1.0 - x) == pytest.approx(0.0, abs=1e-4)
