"""The linear system of a step along the central path against the dense one, as it is written."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.cones import Cones, Scaling, matrices_of, triangles_of
from lateral.solvers.scaled_system import System

#: Matrices of 4 x 4 with 10 rows over 5 columns, as complex ones have, and of 2 x 2 with 3 rows over 5.
CONES = Cones.of(2, 12, [3, 3, 4], [4, 2, 4])
N = 12


def _program() -> tuple[sp.csc_array, sp.csr_array]:
    rng = np.random.default_rng(7)
    a = np.zeros((2 + 12 + 10 + 23, N))
    a[:2] = rng.normal(size=(2, N))
    a[2:14] = np.diag(rng.normal(size=N))
    for rows in (*CONES.second_order, *(rows for _, rows in CONES.psd)):
        for k, own in enumerate(rows):
            cols = rng.choice(N, size=5 if k == 0 else 3, replace=False)
            a[np.ix_(own, cols)] = rng.normal(size=(len(own), len(cols)))
    p = rng.normal(size=(N, N))
    return sp.csc_array(p @ p.T), sp.csr_array(a)


def _inside(rng: np.random.Generator, far: float) -> FloatArray:
    v = CONES.moved_in(np.zeros(47))
    v[CONES.flat] = 10.0 ** rng.uniform(-far, far, size=12)
    for rows in CONES.second_order:
        v[rows[:, 1:]] = rng.normal(size=rows[:, 1:].shape)
        v[rows[:, 0]] = np.linalg.norm(v[rows[:, 1:]], axis=1) * (1.0 + 10.0**-far)
    for dim, rows in CONES.psd:
        root = rng.normal(size=(len(rows), dim, dim)) * 10.0 ** -np.linspace(0.0, far, dim)
        v[rows] = triangles_of(root @ np.swapaxes(root, 1, 2))
    return v


def test_the_scaling_takes_both_points_to_one() -> None:
    rng = np.random.default_rng(3)
    s, z = _inside(rng, 1.0), _inside(rng, 1.0)
    scaling = Scaling.of(CONES, s, z)
    np.testing.assert_allclose(scaling.inward(s), scaling.value, rtol=0, atol=1e-12)
    v, w = rng.normal(size=47), rng.normal(size=47)
    assert scaling.inward(v) @ w == pytest.approx(v @ scaling.back(w), rel=1e-12)
    there = CONES.product(scaling.value, scaling.inverse)
    assert there[CONES.flat] == pytest.approx(1.0)
    for dim, rows in CONES.psd:
        np.testing.assert_allclose(matrices_of(there[rows], dim), np.eye(dim) * np.ones((len(rows), 1, 1)), atol=1e-12)


@pytest.mark.parametrize("steps", [None, np.arange(N) % 3, np.where(np.arange(N) < 3, -1, np.arange(N) % 2)])
def test_the_answer_is_that_of_the_dense_system(steps: IntArray | None) -> None:
    """Whatever the order of elimination; at points whose scalings differ by 1e6 in one matrix."""
    p, a = _program()
    rng = np.random.default_rng(5)
    scaling = Scaling.of(CONES, _inside(rng, 3.0), _inside(rng, 3.0))
    inward = np.column_stack([scaling.inward(unit) for unit in np.eye(47)])
    b = (inward @ a.toarray())[2:]
    equal = a.toarray()[:2]
    dense = np.block(
        [
            [p.toarray(), equal.T, b.T],
            [equal, np.zeros((2, 47))],
            [b, np.zeros((45, 2)), -np.eye(45)],
        ]
    )
    costs, sides, rows = rng.normal(size=N), rng.normal(size=2), rng.normal(size=47)
    rows[:2] = 0.0
    expected = np.linalg.solve(dense, np.concatenate([costs, sides, rows[2:]]))
    dx, dy, scaled = System.of(p, a, CONES, steps).factored(scaling).solve(costs, sides, rows)
    found = np.concatenate([dx, dy, scaled[2:]])
    assert not np.any(scaled[:2])
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


def test_rows_of_matrices_are_as_many_as_their_columns() -> None:
    """Matrices of 10 rows over 5 and 3 columns take 5 and 3; where columns are as many, all rows are taken."""
    p, a = _program()
    size = System.of(p, a, CONES, None).size
    assert size == N + 2 + 12 + (5 + 3) + 3 + 4 + (3 + 3)


def test_what_steps_share_comes_last() -> None:
    """A storage's energies but the last, then a sum over four steps, then a peak of all; by the step."""
    # variables: energy and power of four steps, peak
    steps = np.array([0, 1, 2, 3, 0, 1, 2, 3, -1])
    a = np.zeros((9, 9))
    for t in range(4):
        a[t, [t, 4 + t]] = 1.0, -1.0
        a[t, t - 1] = -1.0 if t else 0.0
        a[5 + t, [4 + t, 8]] = 1.0, -1.0
    a[4, 4:8] = 1.0
    system = System.of(sp.csc_array((9, 9)), sp.csr_array(a), Cones.of(5, 4, (), ()), steps)
    assert system.last.tolist() == [0, 1, 2, 9 + 4, 8]


def test_what_is_condensed_may_be_singular() -> None:
    """Twice the same column, and entries that a corner of 1e-14 is lost in: elimination leaves a column of zeros."""
    cones = Cones.of(1, 2, (), ())
    system = System.of(
        sp.csc_array(1e-4 * np.eye(2)), sp.csr_array(np.array([[0.0, 1.0], [1e-9, 0.0], [0.0, 1.0]])), cones, None
    )
    factor = system.factored(Scaling.of(cones, np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0])))
    columns = sp.csc_array(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    # x_0 answers with -1 / p, x_1 is held
    expected = np.zeros((3, 3))
    expected[:2, :2] = 1e4
    np.testing.assert_allclose(factor.condensed(columns), expected, rtol=1e-9, atol=1e-9)
