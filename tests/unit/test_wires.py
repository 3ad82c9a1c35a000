"""The branches of a feeder, radial or meshed: each gives the currents of its primitive, in the order of the feeder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import lateral
from lateral.formulations.phasors import LegFlows
from lateral.network.admittance import NodeIndex, nodal_matrix, primitives
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Shunt
from lateral.network.wires import wire_network
from lateral.units import Base

FEEDERS = Path(__file__).parents[3] / "shared" / "feeders"


def received(net: RadialNetwork, v_pu: np.ndarray) -> np.ndarray:
    """Current out of every leg into its receiving node, A, by the branches."""
    legs = LegFlows.of(net)
    i_pu = legs.admittance @ (legs.ideal @ v_pu - v_pu[legs.pick])
    return i_pu * (1000.0 / net.v_base_kv[legs.pick])


def expected(feeder: Feeder, net: RadialNetwork, v_pu: np.ndarray) -> dict[str, complex]:
    """The same by the series part of every primitive, leg by leg, by name."""
    bare = [dataclasses.replace(e, b_us=None) for e in (*feeder.lines, *feeder.switches)]
    lines = tuple(e for e in bare if isinstance(e, Line))
    switches = tuple(e for e in bare if not isinstance(e, Line))
    out = {}
    for part in primitives(dataclasses.replace(feeder, lines=lines, switches=switches), antifloat=False, no_load=False):
        e = part.element
        if isinstance(e, Shunt | MultiTerminal) or any(node not in net.position for node in part.nodes):
            continue
        at = [net.position[node] for node in part.nodes]
        current = -part.y @ (1000.0 * net.v_base_kv[at] * v_pu[at])
        if hasattr(e, "windings"):
            first = {(e.windings[0].bus, t) for t in e.windings[0].terminals}
        else:
            first = {(e.bus_from, c) for c in e.conductors_from}
        ends = [k for k, node in enumerate(part.nodes) if node not in first]
        one_bus = len({part.nodes[k][0] for k in ends}) == 1
        for k in ends:
            bus, c = part.nodes[k]
            out[f"{e.label}.{c}" if one_bus else f"{e.label}.{bus}.{c}"] = current[k]
    return out


@pytest.mark.parametrize(
    "name", ["ieee13", "ieee123", "case33bw", FEEDERS / "ieee37/ieee37.dss", FEEDERS / "ieee8500/Master-unbal.dss"]
)
def test_legs_carry_the_currents_of_the_primitives(name: str | Path) -> None:
    """At voltages whose series currents are of the size of the primitives' own terms, so that nothing cancels."""
    if isinstance(name, Path) and not name.is_file():
        pytest.skip("feeder files are elsewhere")
    case = lateral.read(name)
    net = wire_network(case.feeder, [(s.bus, c) for s in case.sources for c in s.conductors], case.base)
    rng = np.random.default_rng(1)
    v_pu = np.exp(2j * np.pi * rng.random(net.n_nodes))
    found, right = received(net, v_pu), expected(case.feeder, net, v_pu)
    assert list(net.legs) == list(right)
    wanted = np.array(list(right.values()))
    # a delta or an isolated side carries no common mode, which the ideal part leaves out by its pseudo-inverse
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
    names = [e.label for e in (*case.feeder.lines, *case.feeder.switches, *case.feeder.transformers)]
    assert list(net.branch_names) == [n for n in names if n in set(net.branch_names)]
    np.testing.assert_array_equal(net.branch, np.sort(net.branch))


def wire(a: str, b: str, ends_a: tuple[int, ...], ends_b: tuple[int, ...]) -> Line:
    r = np.diag(0.1 + 0.1 * np.arange(len(ends_a)))
    return Line(
        name=a + b, bus_from=a, bus_to=b, conductors_from=ends_a, conductors_to=ends_b, r_ohm=r, x_ohm=2.0 * r,
        i_max_a=100.0,
    )  # fmt: skip


def test_a_line_with_an_end_on_ground_has_the_legs_that_are_left() -> None:
    buses = tuple(Bus(name=n, conductors=(1, 4), v_base_kv=0.24) for n in "abcd")
    lines = (wire("a", "b", (1, 4), (1, 0)), wire("a", "c", (1, 4), (1, 1)), wire("a", "d", (1, 4), (1, 4)))
    feeder = Feeder(buses=buses, lines=(*lines, wire("d", "b", (1,), (4,))))
    net = wire_network(feeder, [("a", 1), ("a", 4)], Base())
    v_pu = np.exp(1j * np.arange(net.n_nodes))
    right = expected(feeder, net, v_pu)
    assert list(net.legs) == list(right) == ["line.ab.1", "line.ac.1", "line.ad.1", "line.ad.4", "line.db.4"]
    np.testing.assert_allclose(received(net, v_pu), list(right.values()), rtol=1e-12)


def test_what_no_source_reaches_is_dead_and_open_switches_are_nothing() -> None:
    buses = tuple(Bus(name=n, conductors=(1,), v_base_kv=0.24) for n in "abcd")
    feeder = Feeder(buses=buses, lines=(wire("c", "d", (1,), (1,)), wire("a", "b", (1,), (1,))))
    net = wire_network(feeder, [("a", 1)], Base())
    assert (net.branch_names, net.dead, net.nodes) == (("line.ab",), ("line.cd",), (("a", 1), ("b", 1)))


def test_no_branch_at_all() -> None:
    net = wire_network(Feeder(buses=(Bus(name="a", conductors=(1,), v_base_kv=0.24),)), [("a", 1)], Base())
    assert (net.n_nodes, net.n_legs, net.branch_names) == (1, 0, ())
    assert net.a_val.dtype == complex


def test_the_nodal_matrix_of_a_feeder_is_made_once_and_of_another_anew() -> None:
    case = lateral.read("case33bw")
    index = NodeIndex.of(case.feeder)
    y = nodal_matrix(case.feeder, index)
    assert NodeIndex.of(case.feeder) is index
    assert nodal_matrix(case.feeder, index) is y
    with pytest.raises(ValueError, match="read-only"):
        y.data[0] = 1.0
    longer = tuple(dataclasses.replace(line, r_ohm=2.0 * line.r_ohm) for line in case.feeder.lines)
    other = dataclasses.replace(case.feeder, lines=longer)
    assert abs(nodal_matrix(other, NodeIndex.of(other)) - y).max() > 0.0
    bare = nodal_matrix(case.feeder, index, no_load=False)
    assert bare is not y


def test_lists_of_a_feeder_are_frozen() -> None:
    """What is made of a feeder once would else be stale after an `append`."""
    buses = [Bus(name=n, conductors=(1,), v_base_kv=0.24) for n in "ab"]
    feeder = Feeder(buses=buses, lines=[wire("a", "b", (1,), (1,))])  # type: ignore[arg-type]
    assert isinstance(feeder.buses, tuple)
    assert isinstance(feeder.lines, tuple)
