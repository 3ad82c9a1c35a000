"""Buses in the middle of a line: one matrix for a line, whatever it is made of; and what a solver takes out and puts
back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

import lateral
from ac_points import ac_point
from lateral.areas.partition import cut
from lateral.case import Case
from lateral.devices import PV, Load, Source
from lateral.network.feeder import Bus, Feeder, Line, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.program import Affine, Program, ProgramBuilder
from lateral.results.residuals import recompute
from lateral.results.result import Result
from lateral.solvers.clarabel import ClarabelSolver
from lateral.solvers.substitution import Substitution

KV = 2.4
ABC = (1, 2, 3)
Z = (0.3 + 0.6j) * (np.eye(3) + 0.25 * (np.ones((3, 3)) - np.eye(3)))
#: charging, 1e-6 siemens, large enough to be seen
CHARGING = 40.0 * np.eye(3) - 6.0


def wire(a: str, b: str, share: float, *, charging: bool = False, turned: bool = False) -> Line:
    """A share of one line; turned: with its conductors named in another order."""
    order = [2, 0, 1] if turned else [0, 1, 2]
    z, own = share * Z[np.ix_(order, order)], tuple(ABC[k] for k in order)
    b_us = share * CHARGING[np.ix_(order, order)] if charging else None
    return Line(
        name=a + b, bus_from=a, bus_to=b, conductors_from=own, conductors_to=own, r_ohm=z.real, x_ohm=z.imag, b_us=b_us
    )


def regulator(a: str, b: str) -> tuple[Transformer, ...]:
    """One of each phase, of different taps."""
    side = {"v_rated_kv": KV, "s_rated_kva": 500.0, "r_percent": 0.2}
    return tuple(
        Transformer(
            name=f"r{k}",
            n_phases=1,
            windings=(
                Winding(bus=a, terminals=(k, 0), **side),  # type: ignore[arg-type]
                Winding(bus=b, terminals=(k, 0), tap=1.0 + 0.01 * k, **side),  # type: ignore[arg-type]
            ),
            x_percent=(1.0,),
        )
        for k in ABC
    )


def fed(*wires: Line | Transformer, limits: dict[str, tuple[float, float]] | None = None, pv: float = 0.0) -> Case:
    """From bus a to bus e, where loads of different size are, and PV if asked for."""
    ends = [(w.bus_from, w.bus_to) if isinstance(w, Line) else tuple(x.bus for x in w.windings) for w in wires]
    names = sorted({bus for end in ends for bus in end})
    buses = tuple(
        Bus(name=b, conductors=ABC, v_base_kv=KV, v_min_pu=low, v_max_pu=high)
        for b in names
        for low, high in [(limits or {}).get(b, (0.8, 1.2))]
    )
    grid = Source(
        name="grid",
        bus="a",
        conductors=ABC,
        angle_deg=(0.0, -120.0, 120.0),
        r_ohm=0.02 * np.eye(3),
        x_ohm=0.1 * np.eye(3),
        price_import=0.1,
    )
    devices: list[Load | PV] = [
        Load(name=f"x{k}", bus="e", p_kw=p, q_kvar=0.4 * p, terminals=(k, 0))
        for k, p in ((1, 450.0), (2, 200.0), (3, 300.0))
    ]
    if pv:
        devices.append(PV(name="sun", bus="e", terminals=(1, 2, 3, 0), p_rated_kw=pv, s_max_kva=pv, curtailable=True))
    return Case(
        name="line",
        feeder=Feeder(
            buses=buses,
            lines=tuple(w for w in wires if isinstance(w, Line)),
            transformers=tuple(w for w in wires if isinstance(w, Transformer)),
        ),
        devices=(grid, *devices),
        horizon=Horizon.regular(2),
    )


def pieces(*, charging: bool = False, turned: bool = False) -> tuple[Line, ...]:
    return (
        wire("a", "b", 0.2, charging=charging),
        wire("b", "c", 0.3, charging=charging, turned=turned),
        wire("c", "d", 0.1, charging=charging),
        wire("d", "e", 0.4, charging=charging, turned=turned),
    )


def run(case: Case, form: str) -> Result:
    r = build(case, form).solve()
    assert r.ok, r.status_text
    return r


def by_node(r: Result, values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(r.elements("bus.vmag_sq"), values, strict=True))


# -- one line ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sdp", "soc3"])
def test_a_line_is_the_same_in_one_piece_and_in_four(form: str) -> None:
    """The branch flow as published has one matrix for each piece, and its cones a bound that depends on how many."""
    one, four = run(fed(wire("a", "e", 1.0)), form), run(fed(*pieces()), form)
    assert four.objective == pytest.approx(one.objective, rel=3e-7)  # gaps of 1e-7
    matrices, cones = (
        [sum(len(b.elements) for b in getattr(r.program, blocks)) for r in (one, four)]
        for blocks in ("semidefinite_blocks", "product_blocks")
    )
    assert matrices == ([2, 2] if form == "sdp" else [0, 0])  # of the source's impedance, and of the line
    assert cones[0] == cones[1]
    assert (cones[0] > 0) == (form == "soc3")


@pytest.mark.parametrize("charging", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_every_row_holds_at_the_power_flow(charging: bool, turned: bool) -> None:
    """With the rows of chains among them: every equality to 1e-8."""
    point = ac_point(fed(*pieces(charging=charging, turned=turned)))
    assert {"chain.x_re", "chain.x_im", "chain.l_re", "chain.l_im"} <= set(point.worst)
    assert max(point.worst.values()) < 1e-8, point.worst


@pytest.mark.parametrize("charging", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_voltages_and_prices_in_the_middle_are_the_exact_ones(charging: bool, turned: bool) -> None:
    """On loads to ground `sdp` is exact, so that all is: also what a kW and a kvar cost where nothing is connected."""
    case = fed(*pieces(charging=charging, turned=turned), pv=200.0)
    sdp, exact = run(case, "sdp"), run(case, "current-voltage")
    assert sdp.objective == pytest.approx(exact.objective, rel=2e-6)
    for name in ("bus.p_balance", "bus.q_balance"):
        one, other = (by_node(r, r.dual(name)) for r in (sdp, exact))
        for node, price in one.items():
            np.testing.assert_allclose(price, other[node], atol=2e-5, err_msg=f"{name} {node}")
    one, other = (by_node(r, np.sqrt(r.value("bus.vmag_sq"))) for r in (sdp, exact))
    for node, v in one.items():
        np.testing.assert_allclose(v, other[node], atol=2e-6, err_msg=node)


def test_the_balance_alone_is_not_the_price() -> None:
    """What the other rows of a chain add is not small: a price without them would be 1 % off."""
    r = run(fed(*pieces()), "sdp")
    block = next(b for b in r.program.equalities if b.name == "bus.p_balance")
    alone = r.solution.eq_dual[block.cells].reshape(len(block.elements), -1) / block.to_unit / r.case.horizon.hours
    rows = [k for k, e in enumerate(block.elements) if e.startswith(("b.", "c.", "d."))]
    assert np.abs(alone - r.dual("bus.p_balance"))[rows].max() > 1e-3


def test_a_limit_in_the_middle_holds() -> None:
    """PV is curtailed for a bus where nothing is; without the limit there would be 1.015 pu."""
    limits = {"c": (0.8, 1.004)}
    free, held = (run(fed(*pieces(), pv=3000.0, limits=own), "current-voltage") for own in (None, limits))
    sdp = build(fed(*pieces(), pv=3000.0, limits=limits), "sdp").solve()
    assert by_node(free, np.sqrt(free.value("bus.vmag_sq")))["c.2"].max() > 1.01
    v = by_node(sdp, np.sqrt(sdp.value("bus.vmag_sq")))
    assert max(float(v[f"c.{k}"].max()) for k in ABC) < 1.004 + 1e-6
    assert sdp.residuals.duality_gap < 1e-4  # 4e-6 here, where the bound is not tight
    assert sdp.objective <= held.objective + 1e-4 * abs(held.objective)


def test_a_regulator_is_in_the_line() -> None:
    """Its turns are one number of each conductor."""
    case = fed(wire("a", "b", 0.3), *regulator("b", "c"), wire("c", "e", 0.7))
    sdp, exact = run(case, "sdp"), run(case, "current-voltage")
    assert sum(len(b.elements) for b in sdp.program.semidefinite_blocks) == 2
    assert sdp.objective == pytest.approx(exact.objective, rel=2e-6)
    one, other = (by_node(r, r.dual("bus.p_balance")) for r in (sdp, exact))
    for node, price in one.items():
        np.testing.assert_allclose(price, other[node], atol=2e-5, err_msg=node)


def test_what_is_connected_ends_a_line() -> None:
    """A load, a second branch, fewer conductors: each has a matrix behind it, and a border of areas has."""
    case = fed(*pieces())
    load = Load(name="more", bus="c", p_kw=5.0, q_kvar=1.0, terminals=(1, 0))
    stub = Line(
        name="stub", bus_from="d", bus_to="f", conductors_from=(1,), conductors_to=(1,), r_ohm=[[0.1]], x_ohm=[[0.2]]
    )
    bus = dataclasses.replace(case.feeder.buses[0], name="f", conductors=(1,))
    feeder = case.feeder
    branched = dataclasses.replace(feeder, buses=(*feeder.buses, bus), lines=(*feeder.lines, stub))

    def matrices(case: Case, **options: frozenset[str]) -> int:
        return sum(len(b.elements) for b in build(case, "sdp", **options).program.semidefinite_blocks)  # type: ignore[arg-type]

    assert matrices(case) == 2
    assert matrices(dataclasses.replace(case, devices=(*case.devices, load))) == 3
    assert matrices(dataclasses.replace(case, feeder=branched)) == 3  # the stub's is of two rows, a cone
    assert matrices(case, borders=frozenset({"b", "d"})) == 4


def test_areas_cut_in_the_middle_of_a_line_end_certified() -> None:
    case = fed(*pieces(charging=True))
    found = lateral.solve_areas(cut(case, ["line.bc"]), formulation="sdp", with_replay=False)
    assert found.status.word == "optimal", found.status_text
    assert found.result is not None
    assert found.result.objective == pytest.approx(run(case, "sdp").objective, rel=1e-6)


# -- what follows ------------------------------------------------------------------------------------------------------


def without(program: Program) -> Program:
    """The program, of which a solver takes nothing out."""
    return dataclasses.replace(program, follows=np.zeros((0, 2), dtype=np.int64))


def test_taken_out_and_put_back_is_the_same_solution() -> None:
    """Point, duals and residuals of the whole program, with the variables that follow and without."""
    program = build(fed(*pieces(charging=True), pv=60.0), "sdp").program
    assert len(program.follows) > 100
    both = [ClarabelSolver().solve(p) for p in (program, without(program))]
    for found in both:
        r = recompute(program, found)
        assert max(r.max_primal, r.max_dual) < 1e-7 and r.duality_gap < 1e-6
    one, other = both
    assert program.objective(one.x) == pytest.approx(program.objective(other.x), rel=1e-6)
    # that rows of the whole hold, and that no reduced cost is left at what follows, is so to rounding
    rows, cols = program.follows.T
    assert np.abs(program.a[rows] @ one.x - program.b[rows]).max() < 1e-12
    assert np.abs(one.reduced_cost[cols] * program.col_scale[cols]).max() < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_the_smaller_program_is_the_whole_one(seed: int) -> None:
    """At any values of what is left: the same rows, costs and sides, on random programs of several levels."""
    rng = np.random.default_rng(seed)
    builder = ProgramBuilder(2)
    free = builder.variable("a", "x", ["p", "q", "r"], unit="", lower=-1.0, upper=2.0, scale=rng.uniform(0.1, 3.0))
    levels: list[Affine] = [free]
    for k in range(4):
        own = builder.variable("b", f"y{k}", ["s", "t"], unit="", scale=rng.uniform(0.1, 3.0))
        right = sum((of(part, 2, rng) for part in levels), Affine.constant(rng.normal(size=(2, 2))))
        block = builder.equal("b", f"row{k}", ["s", "t"], own * float(rng.uniform(0.5, 2.0)) - right, scale=2.0)
        builder.follow(block, np.arange(2), own)
        levels.append(own)
    every = sum((of(part, 3, rng) for part in levels), Affine.zeros(3, 2))
    builder.equal("c", "sum", ["u", "v", "w"], every.take(np.arange(3)), 1.0)
    builder.between("c", "range", ["u", "v", "w"], -2.0, every * 0.5 + 0.1, 3.0)
    root = of(levels[3], 2, rng) + Affine.constant(np.full((2, 2), 4.0))
    builder.product("c", "cone", ["u", "v"], [of(levels[4], 2, rng)], root, Affine.constant(np.ones((2, 2))))
    builder.minimise(of(levels[2], 1, rng) + of(free, 1, rng))
    program = builder.freeze()
    whole = program.scaled()
    found = Substitution.of(program, whole)
    assert found is not None and len(found.cols) == 16
    small, x = found.smaller(whole), rng.normal(size=len(found.other_cols))
    y = found.point(x)
    assert np.abs((whole.a @ y - whole.b)[found.rows]).max() < 1e-12
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(small.a @ x - small.b, (whole.a @ y - whole.b)[found.other_rows], **close)
    np.testing.assert_allclose(small.g @ x - small.u, whole.g @ y - whole.u, **close)
    np.testing.assert_allclose(small.g @ x - small.l, whole.g @ y - whole.l, **close)
    np.testing.assert_allclose(small.products.value(x), whole.products.value(y), **close)
    np.testing.assert_allclose(small.c @ x + small.c0, whole.c @ y + whole.c0, **close)
    assert sp.issparse(small.a) and small.a.shape[1] == 6


def of(part: Affine, n: int, rng: np.random.Generator) -> Affine:
    """Random sums of the elements of an array, n of them."""
    out, source = (side.ravel() for side in np.meshgrid(np.arange(n), np.arange(part.n), indexing="ij"))
    return part.map_terms(n, out, source, rng.normal(size=len(out)))


def test_a_cost_of_squares_of_what_follows_is_refused() -> None:
    builder = ProgramBuilder(1)
    x = builder.variable("a", "x", ["p"], unit="")
    y = builder.variable("a", "y", ["p"], unit="")
    builder.follow(builder.equal("a", "row", ["p"], y - x), np.arange(1), y)
    builder.minimise_squares(y, Affine.constant(np.ones((1, 1))))
    program = builder.freeze()
    with pytest.raises(ValueError, match="quadratic"):
        Substitution.of(program, program.scaled())


def test_what_follows_from_itself_is_refused() -> None:
    builder = ProgramBuilder(1)
    x, y, z = (builder.variable("a", name, ["p"], unit="") for name in ("x", "y", "z"))
    builder.follow(builder.equal("a", "one", ["p"], y - x * 0.5, z), np.arange(1), y)
    builder.follow(builder.equal("a", "other", ["p"], x - y * 0.5, 1.0), np.arange(1), x)
    program = builder.freeze()
    with pytest.raises(ValueError, match="from itself"):
        Substitution.of(program, program.scaled())
