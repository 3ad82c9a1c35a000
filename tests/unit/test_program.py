"""Affine arrays against dense algebra, and the builder: freeze, data, update, scales, labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from lateral.errors import OptionError
from lateral.program import Affine, ProblemClass, Program, ProgramBuilder, stack

N_X, N_THETA = 5, 4
FEW = settings(max_examples=40, deadline=None, derandomize=True)


def random_affine(rng: np.random.Generator, n: int, n_steps: int, *, pure: bool = False) -> Affine:
    """Terms of every kind: variable, parameter, both; ``pure`` leaves parameters out."""
    k = int(rng.integers(0, 4 * n * n_steps + 1))
    col = rng.integers(-1, N_X, k)
    par = np.full(k, -1) if pure else rng.integers(-1, N_THETA, k)
    keep = (col >= 0) | (par >= 0)
    const = rng.normal(size=n * n_steps) * (rng.random(n * n_steps) < 0.7)
    row = rng.integers(0, n * n_steps, k)
    return Affine(n, n_steps, row[keep], col[keep], par[keep], rng.normal(size=k)[keep], const)


def dense(a: Affine, x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Cell by cell, as the module's text says."""
    out = a.const.copy()
    for row, col, par, val in zip(a.row, a.col, a.par, a.val, strict=True):
        out[row] += val * (x[col] if col >= 0 else 1.0) * (theta[par] if par >= 0 else 1.0)
    return out.reshape(a.shape)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.random.Generator, int, int]:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.integers(1, 4)), draw(st.integers(1, 4))


def points(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=N_X), rng.normal(size=N_THETA)


@FEW
@given(pairs())
def test_value_and_linear_algebra(given_: tuple[np.random.Generator, int, int]) -> None:
    rng, n, t = given_
    a, b = random_affine(rng, n, t), random_affine(rng, n, t)
    x, theta = points(rng)
    da, db = dense(a, x, theta), dense(b, x, theta)
    cells, column, row = rng.normal(size=(n, t)), rng.normal(size=(n, 1)), rng.normal(size=t)
    for got, want in (
        (a, da),
        (a + b, da + db),
        (a - b, da - db),
        (-a, -da),
        (a * 2.5, 2.5 * da),
        (3 * a, 3 * da),
        (a / 4.0, da / 4.0),
        (a / (1.0 + column**2), da / (1.0 + column**2)),
        (a * cells, da * cells),
        (a * column, da * column),
        (a * row, da * row),
        (a + cells, da + cells),
        (a - column, da - column),
        (1.5 - a, 1.5 - da),
        (row + a, da + row),
        (cells - a, cells - da),
        (cells * a, cells * da),
        (a.sum_elements(), da.sum(axis=0, keepdims=True)),
        (a.sum_steps(), da.sum(axis=1, keepdims=True)),
        (a.sum(), da.sum(keepdims=True)),
        (stack([a, b, a]), np.vstack([da, db, da])),
    ):
        assert isinstance(got, Affine)
        assert got.shape == want.shape
        np.testing.assert_allclose(got.value(x, theta), want, atol=1e-11)


@FEW
@given(pairs())
def test_maps_of_elements_and_steps(given_: tuple[np.random.Generator, int, int]) -> None:
    rng, n, t = given_
    a = random_affine(rng, n, t)
    x, theta = points(rng)
    da = dense(a, x, theta)
    m, k = int(rng.integers(1, 5)), int(rng.integers(0, 9))
    matrix = rng.normal(size=(m, n)) * (rng.random((m, n)) < 0.6)
    np.testing.assert_allclose(a.map(sp.csr_array(matrix)).value(x, theta), matrix @ da, atol=1e-11)

    out, source = rng.integers(0, m, k), rng.integers(0, n, k)
    fixed, moving = rng.normal(size=k), rng.normal(size=(k, t))
    want_fixed, want_moving = np.zeros((m, t)), np.zeros((m, t))
    for i in range(k):
        want_fixed[out[i]] += fixed[i] * da[source[i]]
        want_moving[out[i]] += moving[i] * da[source[i]]
    np.testing.assert_allclose(a.map_terms(m, out, source, fixed).value(x, theta), want_fixed, atol=1e-11)
    np.testing.assert_allclose(a.map_terms(m, out, source, moving).value(x, theta), want_moving, atol=1e-11)

    picked = rng.integers(0, n, 6)
    np.testing.assert_allclose(a.take(picked).value(x, theta), da[picked], atol=1e-11)
    steps = rng.permutation(t)[: int(rng.integers(0, t + 1))]
    np.testing.assert_allclose(a.at_steps(steps).value(x, theta), da[:, steps], atol=1e-11)
    places = rng.permutation(t + 3)[:t]
    spread = np.zeros((n, t + 3))
    spread[:, places] = da
    np.testing.assert_allclose(a.spread_steps(t + 3, places).value(x, theta), spread, atol=1e-11)


@FEW
@given(pairs())
def test_times_parameter(given_: tuple[np.random.Generator, int, int]) -> None:
    """Cell by cell product with c + sum w theta, also with several and with no parameters in a cell."""
    rng, n, t = given_
    a, b = random_affine(rng, n, t, pure=True), random_affine(rng, n, t)
    keep = b.col < 0
    b = Affine(n, t, b.row[keep], b.col[keep], b.par[keep], b.val[keep], b.const)
    x, theta = points(rng)
    np.testing.assert_allclose(
        a.times_parameter(b).value(x, theta), dense(a, x, theta) * dense(b, x, theta), atol=1e-11
    )


def test_what_is_not_affine_is_refused() -> None:
    theta = Affine.of_parameters(0, 2, 3)
    with pytest.raises(ValueError, match="not affine"):
        theta.times_parameter(theta)
    with pytest.raises(ValueError, match="shapes"):
        theta.times_parameter(Affine.of_parameters(0, 2, 1))
    with pytest.raises(ValueError, match="cannot be added"):
        _ = theta + Affine.zeros(1, 3)
    with pytest.raises(ValueError, match="cannot be stacked"):
        stack([theta, Affine.zeros(2, 1)])


@pytest.mark.parametrize("other", [np.ones((4, 3)), np.ones((2, 1, 3)), np.ones(2)])
def test_numbers_must_broadcast_to_the_array_not_the_array_to_them(other: np.ndarray) -> None:
    """An array of shape (1, 3) plus numbers of shape (4, 3) is not an array of one element."""
    a = Affine.of_variables(0, 1, 3)
    with pytest.raises(ValueError):
        _ = a + other
    with pytest.raises(ValueError):
        _ = a * other


def test_is_constant() -> None:
    assert Affine.of_parameters(0, 1, 2).is_constant
    assert Affine.zeros(2, 2).is_constant
    assert not Affine.of_variables(0, 1, 2).is_constant


# -- builder ------------------------------------------------------------------------------------------------------


def everything(theta_k: np.ndarray | None = None) -> Program:
    """A program in which data enters every place it can: c, c0, q, A, b, G, l, u, lb, ub and the product rows."""
    b = ProgramBuilder(2)
    k = b.data("k", ["a"], np.array([[2.0, 3.0]]) if theta_k is None else theta_k, unit="x")
    x = b.variable("part", "x", ["a"], unit="kW", to_unit=10.0, lower=-k, upper=k * 2.0, scale=4.0, start=0.5)
    y = b.variable("part", "y", ["a"], unit="kvar", scale=[[0.5]])
    b.equal("part", "tie", ["a"], x.times_parameter(k) + y * 3.0 + k * 5.0 + 1.0, k * 7.0, scale=2.0)
    b.between("part", "band", ["a"], -k, y.times_parameter(k) + x + k * 0.5, k * 9.0 + 1.0)
    one = Affine.constant(np.ones((1, 2)))
    b.product("part", "cone", ["a"], [x.times_parameter(k), y + k], one + k, (one * 4.0) + y.times_parameter(k))
    b.minimise((x + 1.0).times_parameter(k) + k * 11.0 + 2.0)
    b.minimise_squares(x - y + 3.0, k * 0.5 + 1.0)
    b.output("part", "sum", ["a"], x + y, unit="kW", to_unit=10.0)
    return b.freeze()


def by_hand(k: np.ndarray) -> dict[str, np.ndarray | float]:
    """The same program, written out; variables x0 x1 y0 y1."""
    d, i, z = np.diag(k), np.eye(2), np.zeros((2, 2))
    w = 0.5 * k + 1.0
    diff = np.hstack([i, -i])
    return {
        "a": np.hstack([d, 3 * i]),
        "b": 7 * k - 5 * k - 1.0,
        "g": np.hstack([i, d]),
        "l": -k - 0.5 * k,
        "u": 9 * k + 1.0 - 0.5 * k,
        "lb": np.r_[-k, -np.inf, -np.inf],
        "ub": np.r_[2 * k, np.inf, np.inf],
        "c": np.r_[k, 0, 0] + 6.0 * diff.T @ w,
        "c0": float(np.sum(k + 11 * k + 2.0 + 9.0 * w)),
        "q": 2.0 * diff.T @ np.diag(w) @ diff,
        "pa": np.vstack([np.hstack([d, z]), np.hstack([z, i])]),
        "a0": np.r_[0, 0, k],
        "pu": np.zeros((2, 4)),
        "u0": 1.0 + k,
        "pv": np.hstack([z, d]),
        "v0": np.full(2, 4.0),
    }


def compare(p: Program, want: dict[str, np.ndarray | float]) -> None:
    r = p.products
    got = {
        **{n: getattr(p, n) for n in ("b", "l", "u", "lb", "ub", "c", "c0")},
        **{n: getattr(p, n).toarray() for n in ("a", "g", "q")},
        "pa": r.a.toarray(),
        "a0": r.a0,
        "pu": r.u.toarray(),
        "u0": r.u0,
        "pv": r.v.toarray(),
        "v0": r.v0,
    }
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=1e-13, err_msg=name)


def test_freeze_writes_what_was_declared() -> None:
    compare(everything(), by_hand(np.array([2.0, 3.0])))


@pytest.mark.parametrize("k", [np.array([2.0, 3.0]), np.array([-1.0, 0.25]), np.array([7.0, 7.0])])
def test_update_is_the_program_that_new_data_would_have_made(k: np.ndarray) -> None:
    old = everything()
    new = old.update({"k": k.reshape(1, 2)})
    compare(new, by_hand(k))
    compare(old, by_hand(np.array([2.0, 3.0])))  # and the old one is as it was
    compare(everything(k.reshape(1, 2)), by_hand(k))


def test_update_through_zero_and_back() -> None:
    """A coefficient that is zero for a while stays in the pattern."""
    p = everything().update({"k": np.zeros((1, 2))})
    compare(p, by_hand(np.zeros(2)))
    assert p.a.nnz == everything().a.nnz
    compare(p.update({"k": np.array([[2.0, 3.0]])}), by_hand(np.array([2.0, 3.0])))
    compare(everything(np.zeros((1, 2))).update({"k": np.array([[2.0, 3.0]])}), by_hand(np.array([2.0, 3.0])))


def test_update_refuses_what_does_not_fit() -> None:
    p = everything()
    with pytest.raises(OptionError, match=r"there is no data slot 'kk'.*'k'"):
        p.update({"kk": np.zeros((1, 2))})
    with pytest.raises(OptionError, match=r"\(3,\).*\(1, 2\)"):
        p.update({"k": np.zeros(3)})
    with pytest.raises(OptionError, match="not finite"):
        p.update({"k": np.array([[1.0, np.nan]])})


def test_squares_of_data_are_refused_not_dropped() -> None:
    """(x - theta)^2 is not linear in theta; silently minimising x^2 instead would be wrong."""
    b = ProgramBuilder(2)
    target = b.data("target", ["a"], np.ones((1, 2)), unit="kW")
    x = b.variable("part", "x", ["a"], unit="kW")
    with pytest.raises(ValueError, match="data"):
        b.minimise_squares(x - target, 1.0)
    with pytest.raises(ValueError, match="data"):
        b.minimise_squares(x.times_parameter(target), 1.0)


def test_two_blocks_of_one_name_are_both_found() -> None:
    """A device class that declares element by element (a source does) must be seen whole by objectives."""
    b = ProgramBuilder(2)
    for k, name in enumerate(("a", "b")):
        b.output("part", "energy_cost", [name], Affine.constant(np.full((1, 2), k + 1.0)), unit="$")
    found = b.find("part.energy_cost")
    assert found is not None
    np.testing.assert_allclose(found.value(np.zeros(0), np.zeros(0)), [[1, 1], [2, 2]])
    assert b.find_all("energy_cost").keys() == {"part.energy_cost"}


def test_objective_value_is_the_sum_of_its_parts() -> None:
    p = everything()
    x, k = np.array([1.0, -2.0, 0.5, 3.0]), np.array([2.0, 3.0])
    want = np.sum((x[:2] + 1) * k + 11 * k + 2 + (0.5 * k + 1) * (x[:2] - x[2:] + 3) ** 2)
    assert p.objective(x) == pytest.approx(want, rel=1e-14)


def test_scaled_is_the_same_problem() -> None:
    """x = col_scale x_s: same objective (times its scale), rows times their scales, product rows too."""
    p = everything()
    s = p.scaled()
    rng = np.random.default_rng(0)
    x = rng.normal(size=4)
    xs = x / p.col_scale
    np.testing.assert_allclose(p.col_scale, [4, 4, 0.5, 0.5])
    np.testing.assert_allclose(s.c @ xs + 0.5 * xs @ (s.q @ xs) + s.c0, p.objective(x) * p.objective_scale)
    np.testing.assert_allclose(s.a @ xs - s.b, (p.a @ x - p.b) / 2.0)
    np.testing.assert_allclose(s.g @ xs, p.g @ x)
    np.testing.assert_allclose(s.l, p.l)
    np.testing.assert_allclose(s.lb * p.col_scale, p.lb)
    np.testing.assert_allclose(s.ub * p.col_scale, p.ub)
    np.testing.assert_allclose(s.x0 * p.col_scale, p.start_point)
    np.testing.assert_allclose(s.products.value(xs), p.products.value(x) * p.product_scale)
    assert max(np.abs(s.c).max(), np.abs(s.q.diagonal()).max()) == pytest.approx(1.0)


def test_product_gradient_is_the_finite_difference() -> None:
    p = everything().products
    rng = np.random.default_rng(1)
    x, mu, h = rng.normal(size=4), rng.normal(size=2), 1e-6
    step = [(p.value(x + h * e) - p.value(x - h * e)) @ mu / (2 * h) for e in np.eye(4)]
    np.testing.assert_allclose(p.gradient_times(x, mu), step, atol=1e-8)


def test_labels_name_every_cell() -> None:
    p = everything()
    x, y = p.variables
    assert (x.name, x.unit, x.size, x.cells) == ("part.x", "kW", 2, slice(0, 2))
    assert y.place(3) == ("a", 1)
    assert p.block("part.y") is y
    with pytest.raises(OptionError, match=r"part\.x"):
        p.block("part.z")
    assert [b.name for b in (*p.equalities, *p.inequalities, *p.product_blocks)] == [
        "part.tie",
        "part.band",
        "part.cone",
    ]
    assert p.outputs[0].value(np.array([1.0, 2, 3, 4]), p.theta).tolist() == [[4.0, 6.0]]
    covered = sorted(i for b in p.variables for i in range(b.cells.start, b.cells.stop))
    assert covered == list(range(p.n))


@pytest.mark.parametrize(
    ("quadratic", "product", "want"),
    [
        (False, None, ProblemClass.LP),
        (True, None, ProblemClass.QP),
        (True, False, ProblemClass.SOCP),
        (False, True, ProblemClass.NLP),
    ],
)
def test_class_is_read_off_the_rows(quadratic: bool, product: bool | None, want: ProblemClass) -> None:
    b = ProgramBuilder(1)
    x = b.variable("part", "x", ["a"], unit="kW", lower=0.0)
    b.minimise(x)
    if quadratic:
        b.minimise_squares(x, 1.0)
    if product is not None:
        one = Affine.constant(np.ones((1, 1)))
        b.product("part", "row", ["a"], [x], one, one, equality=product)
    assert b.freeze().problem_class is want


def test_program_and_blocks_are_frozen() -> None:
    p = everything()
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.c0 = 1.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.variables[0].start = 1  # type: ignore[misc]


def test_rescale_and_magnitude() -> None:
    b = ProgramBuilder(2)
    k = b.data("k", ["a"], np.array([[2.0, -3.0]]), unit="kW")
    x = b.variable("part", "x", ["a"], unit="kW", lower=-4.0, upper=1.0)
    v = b.variable("bus", "vmag_sq", ["n"], unit="pu^2")
    b.rescale("part.x", 7.0)
    b.rescale("nobody.x", 9.0)
    # |2 x| <= 8; an unbounded squared voltage counts as 1.2, or as 1 at nominal; data at its present value
    np.testing.assert_allclose(b.magnitude(x * 2.0 + k + v), [[8 + 2 + 1.2, 8 + 3 + 1.2]])
    np.testing.assert_allclose(b.magnitude(x * 2.0 + k + v, variables=False), [[3.0, 4.0]])
    np.testing.assert_allclose(b.present(k * 2.0 + 1.0), [[5.0, -5.0]])
    np.testing.assert_allclose(b.freeze().col_scale, [7, 7, 1, 1])
    assert b.start_of("bus.vmag_sq") == 2
    assert b.start_of("bus.q") is None
