"""Areas of the relaxations with matrices of voltages: V V^H crosses a border, and the areas end at the whole's optimum.

A run is certified: its joined schedule and the central one are each within 1e-6 of the optimum, relative, so that they
are within twice that of each other (measured: 3e-7).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import lateral
from lateral.areas.agent import AreaAgent, Task
from lateral.areas.algorithms import Admm, Algorithm, App, Auto, Enapp, EnappPriced
from lateral.areas.algorithms.consensus import COMMON
from lateral.areas.executors import Serial, get
from lateral.areas.faults import Faults
from lateral.areas.federation import federation_of
from lateral.areas.join import _plain
from lateral.areas.message import I_MAX, Bounds, Message, MessageError, decode, encode
from lateral.areas.partition import Partition, cut
from lateral.areas.plan import Plan
from lateral.areas.point import settle
from lateral.areas.protocol import AreaSpec
from lateral.areas.quantities import copies, in_components, of_conductors, said_of
from lateral.areas.run import AreasRun
from lateral.areas.solve import solve_areas
from lateral.areas.transport import Direct
from lateral.case import Case
from lateral.devices import PV, Load, Source
from lateral.errors import UnsupportedError
from lateral.formulations import get as formulation_named
from lateral.io.opendss import read
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.program import Program
from lateral.results.residuals import Residuals
from lateral.results.retry import judged
from lateral.solvers import Solution, Status

FEEDERS = Path(__file__).parents[3] / "shared" / "feeders"
FORMS = ("soc3", "sdp")
#: Two certificates of 1e-6.
RELATIVE = 2e-6
#: Of sdp at a residual of 1e-4: three times what is measured.
SDP_RELATIVE, SDP_GAP = 3e-4, 1e-3


def steps_of(name: str, n: int, first: int = 11) -> Case:
    """Some steps of a built-in case around noon, with batteries and PV."""
    case = lateral.read(name)
    h, own = case.horizon, slice(first, first + n)
    horizon = Horizon(start=h.start, step_h=h.step_h[own], weight=h.weight[own], zone=h.zone)
    return case.with_(horizon=horizon, profiles={k: v[own] for k, v in case.profiles.items()})


def priced(path: str) -> Case:
    """A published feeder at one price, which its file does not have."""
    case, _ = read(FEEDERS / path)
    devices = (dataclasses.replace(d, price_import=1.0) if isinstance(d, Source) else d for d in case.devices)
    return case.with_(devices=tuple(devices))


def ieee34() -> Case:
    """IEEE 34."""
    return priced("ieee34/ieee34Mod1.dss")


def ieee37() -> Case:
    """IEEE 37, whose loads are all in delta behind an ungrounded winding."""
    return priced("ieee37/ieee37.dss")


def certified(run: AreasRun) -> None:
    assert run.status is Status.OPTIMAL, run.status_text
    assert run.result is not None and run.result.ok
    assert run.central is not None and run.central.ok
    assert abs(run.result.objective - run.central.objective) <= RELATIVE * abs(run.central.objective)


def agents(partition: Partition, form: str) -> tuple[Plan, dict[str, AreaAgent]]:
    """Areas at their operating point, and the plan that begins there."""
    executor = Serial()
    task = Task(formulation=form, coupling="consensus")
    executor.start({name: AreaSpec(name, area.case, task) for name, area in partition.areas.items()})
    plan = Plan.of(partition, "cost", formulation_named(form).voltages)
    return settle(plan, executor, Direct(plan, run="r")).begun(plan), executor._agents


@pytest.mark.parametrize(("name", "steps", "n_areas"), [("ieee13", 4, 2), ("ieee13", 4, 3), ("ieee123", 2, 2)])
def test_soc3_ends_at_the_optimum_of_the_whole(name: str, steps: int, n_areas: int) -> None:
    run = solve_areas(lateral.cut(steps_of(name, steps), n_areas), formulation="soc3", with_replay=False)
    certified(run)
    assert run.algorithm == "newton"
    assert any("auto took newton: soc3 has matrices" in choice for choice in run.choices)
    assert run.result is not None
    summary = run.summary()  # a short status and what to mind in lines of their own, as of one solve
    assert summary["status_short"] == run.result.status_short
    assert summary["warnings"] == list(run.result.points)
    assert summary["warnings"][0].startswith("the relaxation is not tight: ")
    assert "the relaxation is not tight" in run.status_text


@pytest.mark.parametrize("label", ["line.671684", "line.684611"])
def test_sdp_ends_at_the_optimum_of_the_whole(label: str) -> None:
    """Two conductors cross, or one: 33 and 37 rounds."""
    run = solve_areas(cut(steps_of("ieee13", 1), [label]), formulation="sdp", with_replay=False, max_rounds=50)
    certified(run)
    assert any("auto took newton: sdp has matrices" in choice for choice in run.choices)


@pytest.mark.parametrize("n_areas", [2, 3])
def test_sdp_with_borders_of_three_conductors(n_areas: int) -> None:
    certified(solve_areas(lateral.cut(steps_of("ieee13", 1), n_areas), formulation="sdp", with_replay=False))


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
@pytest.mark.parametrize("label", ["line.l27", "transformer.reg1a"])
def test_a_long_feeder_cut_at_and_before_regulators(label: str) -> None:
    """38 and 50 rounds; the bus of the cut has charging of a line on one side and magnetising currents on the other."""
    run = solve_areas(cut(ieee34(), [label]), formulation="soc3", limits="none", with_replay=False)
    certified(run)


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
def test_sdp_on_a_long_feeder() -> None:
    """117 rounds: pieces of lines are one matrix on both sides of the border."""
    run = solve_areas(cut(ieee34(), ["line.l27"]), formulation="sdp", limits="none", with_replay=False, central=False)
    assert run.status is Status.OPTIMAL, run.status_text


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
def test_soc3_cut_inside_an_ungrounded_part() -> None:
    """67 rounds, though its voltage to ground is loose there."""
    run = solve_areas(cut(ieee37(), ["line.l4"]), formulation="soc3", limits="none", with_replay=False, max_rounds=80)
    certified(run)


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
def test_the_common_mode_is_light_where_nothing_returns_by_ground() -> None:
    delta, _ = agents(cut(ieee37(), ["line.l4"]), "soc3")
    grounded, _ = agents(cut(steps_of("ieee13", 1), ["line.632670"]), "soc3")
    assert (delta.without_return, grounded.without_return) == (frozenset(delta.borders), frozenset())
    admm = Admm()
    for plan, share in ((delta, COMMON), (grounded, 1.0)):
        state, (name,) = admm.init(plan), plan.borders
        whole, beside = (admm.penalty_of(plan, state, name, x).ravel() for x in ("v", "vv_re"))
        assert (whole / whole[0]).tolist() == [1.0, 1.0, share]
        assert (beside / beside[0]).tolist() == [1.0, share, share]
        assert len(set(admm.penalty_of(plan, state, name, "p").ravel())) == 1


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
@pytest.mark.parametrize("label", ["line.l27", "transformer.reg1a"])
def test_bounds_of_currents_do_not_know_where_a_feeder_is_cut(label: str) -> None:
    partition = cut(ieee34(), [label])
    whole = bounds_of(build(partition.case, "soc3").program)
    _, found = agents(partition, "soc3")
    parts = {k: v for agent in found.values() for k, v in bounds_of(agent.model.program).items()}
    assert set(parts) == set(whole)
    for name, limit in whole.items():
        assert np.allclose(parts[name], limit, rtol=1e-7)


def test_areas_go_on_from_where_they_were() -> None:
    """A little other prices: a few steps along the central path from the last point, and not Clarabel's noise anew."""
    plan, found = agents(cut(steps_of("ieee13", 1), ["line.632670"]), "sdp")
    (border,) = plan.borders
    admm = Admm(penalty=0.3, ratio_unbalance=10.0)
    state, rng = admm.init(plan), np.random.default_rng(1)
    for name, agent in found.items():
        told = admm.inputs(plan, state, name)[border]
        near = {x: v * (1.0 + 1e-9 * rng.normal(size=v.shape)) if "lin" in x else v for x, v in told.items()}
        one, two = (agent.solve({border: values}) for values in (told, near))
        assert one.iterations > 10 and two.iterations <= 4
        for x in plan.voltages:
            assert np.abs(two.borders[border][x] - one.borders[border][x]).max() < 1e-7


def test_what_is_small_has_the_heavier_penalty() -> None:
    """Of V V^H in components: 1 of the positive sequence, 3 of what is beside it, 81 of all others; of powers one."""
    plan, _ = agents(cut(steps_of("ieee13", 1), ["line.632670"]), "sdp")
    (border,) = plan.borders
    admm = Admm(ratio_unbalance=9.0)
    state = admm.init(plan)
    for x, shares in (("v", (1, 81, 81)), ("vv_re", (3, 81, 3)), ("vv_im", (3, 81, 3)), ("q", (1, 1, 1))):
        penalty = admm.penalty_of(plan, state, border, x)[:, 0]
        assert penalty.tolist() == [state.numbers[f"{border}/{x}"] * share for share in shares]


def test_sdp_comes_near_and_says_how_near() -> None:
    partition = lateral.cut(steps_of("ieee13", 1), 2)
    run = solve_areas(partition, Admm(), formulation="sdp", tolerance=1e-4, central=False, with_replay=False)
    whole = build(partition.case, "sdp").solve()
    assert run.status is Status.INACCURATE and "agree within" in run.status_text
    assert run.residual <= 1e-4 and run.result is not None
    assert run.result.residuals.max_primal <= 1e-4
    assert run.result.residuals.duality_gap <= SDP_GAP
    assert abs(run.result.objective / whole.objective - 1.0) <= SDP_RELATIVE
    # what crosses is what the whole has there: the diagonal and the products of conductors
    for block in ("bus.vmag_sq", "pair.v_re", "pair.v_im"):
        assert np.abs(run.result.value(block) - whole.value(block)).max() <= 1e-3


@pytest.mark.parametrize(
    ("labels", "conductors"),
    [
        (["transformer.xfm1"], [3]),
        (["switch.671692"], [3]),
        (["line.671684"], [2]),
        (["line.684611"], [1]),
        (["line.632645", "line.684611", "line.692675"], [2, 3, 1]),
    ],
)
def test_borders_at_any_branch_and_of_any_width(labels: list[str], conductors: list[int]) -> None:
    partition = cut(steps_of("ieee13", 1), labels)
    assert [len(b.conductors) for b in partition.borders.values()] == conductors
    certified(solve_areas(partition, formulation="soc3", with_replay=False))


def test_app_agrees() -> None:
    partition = cut(steps_of("ieee13", 1), ["line.671684"])
    certified(solve_areas(partition, App(penalty=0.3), formulation="soc3", with_replay=False))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("algorithm", [Enapp(), EnappPriced()])
def test_algorithms_that_give_voltages_are_declined(form: str, algorithm: Algorithm) -> None:
    with pytest.raises(UnsupportedError, match=r"ARE-032.*Take auto, newton, admm or app"):
        solve_areas(cut(steps_of("ieee13", 1), ["line.632670"]), algorithm, formulation=form)


def test_a_federation_takes_what_works() -> None:
    partition = cut(steps_of("ieee13", 1), ["line.632670"])
    made = federation_of(partition, formulation="soc3")
    assert made.run.algorithm == "admm" and made.run.options["penalty"] == 0.3
    assert federation_of(partition, Auto(), formulation="soc3").run == made.run
    with pytest.raises(UnsupportedError, match="ARE-032"):
        federation_of(partition, EnappPriced(), formulation="soc3")


def test_executors_give_the_same_numbers() -> None:
    partition = cut(steps_of("ieee13", 1), ["line.671684"])
    runs = [
        solve_areas(partition, formulation="soc3", executor=executor, central=False, with_replay=False, max_rounds=5)
        for executor in (Serial(), get("process"))
    ]
    assert [r.residual for r in runs[0].rounds] == [r.residual for r in runs[1].rounds]
    one, two = (r.result for r in runs)
    assert one is not None and two is not None
    assert np.array_equal(one.solution.x, two.solution.x)
    assert np.array_equal(one.solution.product_dual, two.solution.product_dual)
    assert runs[0].bytes == runs[1].bytes


def test_lost_messages_are_said_again() -> None:
    """With every third message lost the largest currents arrive all the same, and the run ends at the optimum."""
    partition = cut(steps_of("ieee13", 1), ["line.684611"])
    run = solve_areas(
        partition,
        formulation="soc3",
        with_replay=False,
        transport=Faults(loss=0.3, delay=0.1, seed=1),
    )
    certified(run)


def test_a_report_shows_what_crosses(tmp_path: Path) -> None:
    partition = cut(steps_of("ieee13", 1), ["line.671684"])
    run = solve_areas(partition, formulation="soc3", with_replay=False, max_rounds=3)
    assert set(run.rounds[-1].held["671684"]) >= {"v", "vv_re", "vv_im", "p", "q"}
    lateral.write_report(run, tmp_path / "areas.html")
    assert "product with the next conductor" in (tmp_path / "areas.html").read_text()


# -- the rows of the areas are those of the whole ---------------------------------------------------------------------


def bounds_of(program: Program) -> dict[str, np.ndarray]:
    """The bounds of the currents of branches and sources."""
    out = {}
    for block in program.inequalities:
        if block.quantity == "i_bound" and block.component in ("branch", "feed"):
            values = program.u[block.cells].reshape(len(block.elements), -1)
            out |= {f"{block.component}.{e}": row for e, row in zip(block.elements, values, strict=True)}
    return out


def rows_of(program: Program) -> dict[str, set[tuple[str, str]]]:
    """Every variable and row by kind, as block and element."""
    kinds = {
        "variables": program.variables,
        "equalities": program.equalities,
        "inequalities": program.inequalities,
        "products": program.product_blocks,
        "semidefinite": program.semidefinite_blocks,
    }
    return {kind: {(_plain(b.name), e) for b in blocks for e in b.elements} for kind, blocks in kinds.items()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "n_areas"), [("ieee13", 2), ("ieee13", 3), ("ieee123", 3)])
def test_every_row_of_the_whole_is_in_an_area(name: str, n_areas: int, form: str) -> None:
    """Or its dual would be missing from the certificate; cones and matrices of a border's bus are in one area only."""
    partition = lateral.cut(steps_of(name, 1), n_areas)
    borders = frozenset(border.bus for border in partition.borders.values())
    whole = rows_of(build(partition.case, form, borders=borders).program)
    _, found = agents(partition, form)
    parts = [rows_of(agent.model.program) for agent in found.values()]
    for kind, rows in whole.items():
        assert rows <= set().union(*(part[kind] for part in parts))
    for kind in ("products", "semidefinite"):
        every = [row for part in parts for row in part[kind]]
        assert len(every) == len(set(every))
        assert set(every) == whole[kind]


@pytest.mark.parametrize("form", FORMS)
def test_bounds_of_currents_are_those_of_the_whole(form: str) -> None:
    """Which they are only where each area knows what is drawn beyond its borders."""
    partition = lateral.cut(steps_of("ieee13", 2), 3)

    whole = bounds_of(build(partition.case, form).program)
    _, found = agents(partition, form)
    parts = {k: v for agent in found.values() for k, v in bounds_of(agent.model.program).items()}
    assert set(parts) == set(whole)
    for name, limit in whole.items():
        assert np.allclose(parts[name], limit, rtol=1e-7)  # the point of each area is to 1e-10 that of the whole


def test_duals_do_not_depend_on_how_large_rows_are_written() -> None:
    program = build(steps_of("ieee13", 1), "sdp").program
    cones, matrices = program.products, program.semidefinite
    rng = np.random.default_rng(3)
    by = rng.uniform(0.5, 2.0, cones.n_rows)
    ones = np.ones(program.n)
    assert np.allclose(cones.scaled(by, ones).size, cones.size * by, rtol=1e-12)
    factors = rng.uniform(0.5, 2.0, len(matrices.dims))
    d = np.repeat(factors, matrices.dims * (matrices.dims + 1) // 2)
    assert np.allclose(matrices.scaled(d, ones).size, matrices.size * d, rtol=1e-12)


# -- what crosses -----------------------------------------------------------------------------------------------------


def test_a_run_begins_at_the_matrix_of_the_power_flow() -> None:
    plan, _ = agents(cut(steps_of("ieee13", 1), ["line.632670"]), "soc3")
    (border,) = plan.borders.values()
    first = Admm().first(plan)[border.name]
    w = np.diag(first["v"][:, 0]).astype(complex)
    for k in range(3):
        w[k, (k + 1) % 3] = first["vv_re"][k, 0] + 1j * first["vv_im"][k, 0]
        w[(k + 1) % 3, k] = np.conj(w[k, (k + 1) % 3])
    size = np.linalg.eigvalsh(w)
    assert np.abs(size[:2]).max() <= 1e-12 and size[2] == pytest.approx(np.trace(w).real)


@pytest.mark.parametrize("conductors", [(2,), (1, 2), (1, 3), (1, 2, 3)])
def test_matrices_turn_into_symmetrical_components(conductors: tuple[int, ...]) -> None:
    """Of balanced voltages one entry is left, of any the products of their components; and back again."""
    n, own = len(conductors), ("v", "vv_re", "vv_im")
    phasor = np.exp(-2j * np.pi / 3.0 * (np.array(conductors) - 1.0))[:, None]
    balanced = in_components(said_of(own, 1.05 * phasor), conductors)
    expected = np.zeros((n, 1))
    expected[0] = 1.05**2 * n
    assert np.allclose(balanced["v"], expected, atol=1e-12)
    if n > 1:
        assert max(np.abs(balanced[x]).max() for x in ("vv_re", "vv_im")) <= 1e-12
    rng = np.random.default_rng(1)
    v = phasor * (1.0 + 0.03 * (rng.normal(size=(n, 2)) + 1j * rng.normal(size=(n, 2))))
    each = np.arange(n)
    components = (phasor * np.exp(-2j * np.pi / n * np.outer(each, each)) / np.sqrt(n)).conj().T @ v
    said = {**said_of(own, v), "p": np.ones((n, 2))}
    turned = in_components(said, conductors)
    if n > 1:
        for x, values in said_of(own, components).items():
            assert np.allclose(turned[x], values, atol=1e-12)
    back = of_conductors(turned, conductors)
    assert all(np.allclose(back[x], said[x], atol=1e-12) for x in said)


@pytest.mark.parametrize("labels", [["line.632670"], ["line.671684"], ["line.684611"]])
def test_terms_of_areas_are_those_of_the_algorithm(labels: list[str]) -> None:
    """What an area minimises at its borders is lin x + w/2 x^2 of the components that the algorithm prices."""
    partition = cut(steps_of("ieee13", 1), labels)
    plan, found = agents(partition, "sdp")
    (border,) = plan.borders.values()
    rng = np.random.default_rng(2)
    quantities = copies(plan.voltages)
    told = {f"{kind}_{x}": rng.uniform(0.5, 2.0, plan.shape(border.name)) for kind in ("lin", "w") for x in quantities}
    for name in (border.parent, border.child):
        agent = found[name]
        with_terms, without = (
            agent.model.program.update(agent._data(agent.model.program, {border.name: values}))
            for values in (told, {x: 0.0 * value for x, value in told.items()})
        )
        agent.solve({border.name: told})
        assert agent.result is not None
        x = agent.result.solution.x
        device = agent.heads[0] if name == border.child else agent.tails[0]
        said = in_components(agent._said(device, agent.result), border.conductors)
        paid = sum(float((told[f"lin_{q}"] * said[q] + 0.5 * told[f"w_{q}"] * said[q] ** 2).sum()) for q in quantities)
        assert with_terms.objective(x) - without.objective(x) == pytest.approx(paid, rel=1e-9)


def test_products_are_with_the_next_conductor() -> None:
    v = np.array([[1.0], [1j], [-2.0]])
    said = said_of(("v", "vv_re", "vv_im"), v)
    assert np.allclose(said["v"][:, 0], [1.0, 1.0, 4.0])
    assert np.allclose(said["vv_re"][:, 0] + 1j * said["vv_im"][:, 0], [-1j, -2j, -2.0])


@pytest.mark.parametrize(
    ("quantity", "value", "fits"),
    [("vv_re", -1.0, True), ("vv_im", 9.5, False), ("i_max", I_MAX, True), ("i_max", -1.0, False)],
)
def test_values_are_checked_as_they_arrive(quantity: str, value: float, fits: bool) -> None:
    data = encode(Message("r", "1", "2", "b", 1, 0, {quantity: np.full((3, 1), value)}))
    if fits:
        assert decode(data, shape=(3, 1), bounds=Bounds()).values[quantity][0, 0] == value
    else:
        with pytest.raises(MessageError, match=quantity):
            decode(data, shape=(3, 1), bounds=Bounds())


def answers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Solver and status of every answer from now on."""
    seen: list[tuple[str, str]] = []

    def watched(program: Program, solution: Solution) -> tuple[Status, Residuals]:
        status, residuals = judged(program, solution)
        seen.append((solution.solver, status.word))
        return status, residuals

    monkeypatch.setattr("lateral.model.judged", watched)
    return seen


def test_clarabel_solves_areas_under_a_limit_of_unbalance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cones beside the penalties of a border: no answer is only almost solved, and none has to come from Ipopt."""
    case = lateral.read("ieee13-rated")
    limits = {"v_min_pu": 0.9, "v_max_pu": 1.1, "unbalance_max": 0.006}
    buses = tuple(dataclasses.replace(b, **limits) for b in case.feeder.buses)  # type: ignore[arg-type]
    sun = PV(name="sun", bus="675", terminals=(1, 2, 3, 0), p_rated_kw=600.0, s_max_kva=800.0, phases="free")
    devices = tuple(
        dataclasses.replace(d, price_import=0.2, price_export=0.1) if isinstance(d, Source) else d for d in case.devices
    )
    case = case.with_(feeder=dataclasses.replace(case.feeder, buses=buses), devices=(*devices, sun))
    seen = answers(monkeypatch)
    part = lateral.cut(case, 2)
    lateral.solve_areas(part, Admm(), formulation="soc3", max_rounds=4, central=False, with_replay=False)
    assert set(seen) == {("clarabel", "optimal")}
    assert len(seen) >= 8


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
def test_unsure_answers_of_areas_are_not_tried_again_with_ipopt(monkeypatch: pytest.MonkeyPatch) -> None:
    """IEEE 37 over two loads in 3 areas: an unsure answer is among the first, and is taken
    as it is: with PV and batteries Ipopt took 31 s over one."""
    case = ieee37()
    h = case.horizon
    two = Horizon(start=h.start, step_h=np.ones(2), weight=np.ones(2), zone=h.zone)
    devices = (dataclasses.replace(d, profile="two") if type(d) is Load else d for d in case.devices)
    case = case.with_(horizon=two, profiles={"two": np.array([0.6, 1.0])}, devices=tuple(devices))
    seen = answers(monkeypatch)
    run = lateral.solve_areas(
        lateral.cut(case, 3), formulation="soc3", limits="none", max_rounds=4, central=False, with_replay=False
    )
    assert len(run.rounds) == 4
    assert {solver for solver, _ in seen} == {"clarabel"}
    assert any(status == "inaccurate" for _, status in seen)
