"""Areas of the relaxations cut where not every voltage or current can occur, and what they say of it.

Behind a delta winding without charging the currents that cross add up to nothing, and the voltages right at the winding
too; beyond a load between two conductors one current is the opposite of the other.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_areas_matrix import FORMS, agents, certified, rows_of, steps_of
from test_areas_ungrounded import ABC, delta

from lateral.areas.faults import Faults
from lateral.areas.federate import Service
from lateral.areas.join import SHARED
from lateral.areas.message import MessageError
from lateral.areas.occurring import crossings, heard, names_of, nothing_drawn, said
from lateral.areas.partition import cut
from lateral.areas.solve import solve_areas
from lateral.case import Case
from lateral.devices import BorderHead
from lateral.formulations.matrix_ranges import canonical, projector, spanned
from lateral.opf import build
from lateral.program.ports import Crossing


def even() -> Case:
    """`delta` with lines of three equal conductors: voltages add up to nothing everywhere."""
    case = delta()
    z = 0.05 + 0.1 * np.eye(3)
    lines = tuple(dataclasses.replace(x, r_ohm=z, x_ohm=2.0 * z) for x in case.feeder.lines)
    return case.with_(feeder=dataclasses.replace(case.feeder, lines=lines))


# -- what is said -----------------------------------------------------------------------------------------------------


def test_a_basis_depends_on_its_span_alone() -> None:
    rng = np.random.default_rng(1)
    for n, k in ((3, 2), (3, 1), (2, 1), (4, 3)):
        u, _ = np.linalg.qr(rng.normal(size=(n, k)) + 1j * rng.normal(size=(n, k)))
        turn, _ = np.linalg.qr(rng.normal(size=(k, k)) + 1j * rng.normal(size=(k, k)))
        basis = canonical(u)
        assert np.allclose(basis.conj().T @ basis, np.eye(k), atol=1e-14)
        assert np.allclose(basis @ basis.conj().T, u @ u.conj().T, atol=1e-14)
        for same in (canonical(u @ turn), spanned(projector(u @ turn * 5.0))):
            assert np.allclose(same, basis, atol=1e-12)
    units = np.eye(3, dtype=complex)[:, [2, 0]]
    assert np.array_equal(canonical(units), np.eye(3)[:, [0, 2]])


def test_spans_cross_as_messages() -> None:
    to_nothing = np.eye(3) - 1.0 / 3.0 + 0j
    at = Crossing(ABC, v=np.eye(3) + 0j, v_could=to_nothing)
    values = said(at, 2)
    assert set(values) == set(names_of(["span_v", "span_could"], 3)) and values["span_v_re_1"].shape == (3, 2)
    back = heard(values, ABC)
    assert back is not None and back.i is None
    assert np.array_equal(back.v, at.v) and np.array_equal(back.v_could, to_nothing)  # type: ignore[arg-type]
    assert heard({"p": np.ones((3, 2))}, ABC) is None
    nothing = heard(nothing_drawn(3, 2), ABC)
    assert nothing is not None and not np.any(nothing.i)  # type: ignore[arg-type]
    assert Crossing(ABC, v=np.eye(3) + 0j).free and not at.free and not Crossing(ABC, behind=True).free
    # a conductor that feeds nothing is no direction that is missing; two whose currents are opposite are
    assert Crossing(ABC, i=np.diag([1.0, 1.0, 0.0]) + 0j).free
    assert not Crossing((1, 2), i=np.array([[0.5, -0.5], [-0.5, 0.5]]) + 0j).free


def test_what_is_no_projector_is_refused() -> None:
    values = said(Crossing(ABC, v=np.eye(3) + 0j), 1)
    for name, wrong in (("span_v_re_1", 0.5), ("span_v_im_2", 1.0)):
        with pytest.raises(MessageError, match="span_v is no projector"):
            heard({**values, name: np.full((3, 1), wrong)}, ABC)
    with pytest.raises(MessageError, match="trace of 0"):  # some voltage there is
        heard({name: np.zeros((3, 1)) for name in values}, ABC)


# -- areas have the rows of the whole ---------------------------------------------------------------------------------

CUTS = [
    (delta, ["line.bc"]),
    (delta, ["line.bc", "line.cd"]),
    (delta, ["line.ab", "line.cd", "line.be"]),
    (even, ["line.ab", "line.cd", "line.be"]),
    (even, ["line.bc", "line.cd"]),
    (lambda: steps_of("ieee13", 1), ["line.645646"]),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("case", "labels"), CUTS)
def test_every_row_of_the_whole_is_in_an_area(case, labels: list[str], form: str) -> None:  # type: ignore[no-untyped-def]
    """And the numbers in it: a matrix over another basis would have the same name. Cones and matrices are in one."""
    partition = cut(case(), labels)
    borders = frozenset(border.bus for border in partition.borders.values())
    whole = rows_of(build(partition.case, form, borders=borders).program)
    _, found = agents(partition, form)
    parts = [rows_of(agent.model.program) for agent in found.values()]
    for kind, rows in whole.items():
        assert rows <= set().union(*(part[kind] for part in parts)), kind
    for kind in ("products", "semidefinite"):
        every = [row for part in parts for row in part[kind]]
        assert len(every) == len(set(every))
        assert set(every) == whole[kind]


def test_both_sides_of_a_border_have_one_basis() -> None:
    """Two directions of the voltages, where lines are even, and two of the currents."""
    _, found = agents(cut(even(), ["line.ab"]), "soc3")
    upper, lower = (agent.model.program for agent in found.values())
    for program in (upper, lower):
        basis = {e for block in program.variables if block.name == "basis.v_sq" for e in block.elements}
        assert {"b.1~0", "b.1~1"} <= basis and "b.1~2" not in basis
    point = [agent.point for agent in found.values()]
    assert point[0] is not None and point[1] is not None
    above, below = point[0].crossing["b"], point[1].crossing["b"]
    for span in (above.i, below.v):
        assert span is not None and np.allclose(span, np.eye(3) - 1.0 / 3.0, atol=1e-9)
    assert below.v_could is not None and np.allclose(below.v_could, np.eye(3), atol=1e-9)  # with some current by ground


def test_nothing_more_is_said_where_everything_can_occur() -> None:
    _, found = agents(cut(steps_of("ieee13", 1), ["line.632670"]), "soc3")
    assert not any(agent.point.crossing for agent in found.values() if agent.point is not None)


def test_an_area_hears_only_of_its_own_borders() -> None:
    head = next(iter(cut(delta(), ["line.bc"]).areas["2"].case.of(BorderHead)))
    values = said(Crossing(ABC, v=np.eye(3) + 0j), 2)
    assert set(crossings({"bc": values, "other": values}, [head])) == {"c"}


# -- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", ["line.645646", "line.632645"])
def test_beyond_loads_between_conductors(label: str, form: str) -> None:
    """Up to 44 rounds. Beyond line.645646 there is one load, between two
    conductors. Both were declined."""
    run = solve_areas(cut(steps_of("ieee13", 1), [label]), formulation=form, with_replay=False, max_rounds=60)
    certified(run)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("labels", [["line.bc"], ["line.ab", "line.cd"]])
def test_voltages_that_add_up_to_nothing(labels: list[str], form: str) -> None:
    """Lines are even, so that voltages do on both sides: 38 and 66 rounds of `soc3`, 55 and some 110 of `sdp`."""
    run = solve_areas(cut(even(), labels), formulation=form, limits="none", with_replay=False)
    certified(run)


@pytest.mark.parametrize(("form", "labels"), [("soc3", ["line.bc"]), ("soc3", ["line.ab"]), ("sdp", ["line.ab"])])
def test_behind_a_delta_winding_without_charging(labels: list[str], form: str) -> None:
    """90, 109 and 134 rounds: two steps and PV; lines are uneven, so that currents decide the voltages to ground."""
    run = solve_areas(cut(delta(), labels), formulation=form, limits="none", with_replay=False, max_rounds=220)
    certified(run)


def test_lost_messages_are_said_again() -> None:
    run = solve_areas(
        cut(steps_of("ieee13", 1), ["line.645646"]),
        formulation="soc3",
        with_replay=False,
        transport=Faults(loss=0.3, delay=0.1, seed=1),
    )
    certified(run)


@pytest.mark.parametrize("form", FORMS)
def test_shared_rows_have_the_sum_of_both_duals(form: str) -> None:
    """The square of a voltage over a basis is written in both areas of a border; each has its part of the price."""
    partition = cut(even(), ["line.ab"])
    _, found = agents(partition, form)
    names = [{(b.name, e) for b in agent.model.program.equalities for e in b.elements} for agent in found.values()]
    both = {(name, e) for name, e in names[0] & names[1] if name in SHARED}
    assert both == {("bus.square", f"b.{c}") for c in ABC}


def test_an_owner_says_whether_everything_can_occur() -> None:
    """Or the coordinator of a federation would not ask what can."""
    partition = cut(steps_of("ieee13", 1), ["line.645646"])
    _, found = agents(partition, "soc3")
    reply = Service(agent=found["2"], owned=True).answer("power_flow", {"borders": {}, "steps": [0]})
    assert reply["free"] is False  # its currents are opposite
