"""The walk over a feeder: the way taken for plain trees gives what the general one gives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lateral
from lateral.network import branches
from lateral.network.branches import RadialNetwork, radial_network


def both(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[RadialNetwork, RadialNetwork]:
    case = lateral.read(name)
    lines = tuple(dataclasses.replace(line, i_max_a=100.0 + k) for k, line in enumerate(case.feeder.lines))
    # turned round, so that the direction of a line does not matter
    turned = dataclasses.replace(lines[3], bus_from=lines[3].bus_to, bus_to=lines[3].bus_from)
    feeder = dataclasses.replace(case.feeder, lines=(*lines[:3], turned, *lines[4:]))
    roots = [(s.bus, c) for s in case.sources for c in s.conductors]
    fast = radial_network(feeder, roots, case.base)
    monkeypatch.setattr(branches, "_plain_tree", lambda *_: None)
    return fast, radial_network(feeder, roots, case.base)


@pytest.mark.parametrize("name", ["ieee123-t5", "ads10", "case33bw", "tree-300x1"])
def test_plain_tree_is_the_general_walk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tree, leg by leg; siblings may come in another order."""
    fast, slow = both(name, monkeypatch)
    assert set(fast.nodes) == set(slow.nodes)
    assert fast.position == {node: k for k, node in enumerate(fast.nodes)}
    of = {leg: k for k, leg in enumerate(fast.legs)}
    own = [of[leg] for leg in slow.legs]
    assert [fast.branch_names[k] for k in own] == list(slow.branch_names)
    assert [fast.nodes[k] for k in fast.to_node[own]] == [slow.nodes[k] for k in slow.to_node]
    assert [fast.nodes[k] for k in fast.a_node[own]] == [slow.nodes[k] for k in slow.a_node]
    assert np.all(fast.a_node < fast.to_node)  # parents come first
    for attribute in ("z_val", "a_val", "i_max_pu", "s_max_pu"):
        np.testing.assert_allclose(getattr(fast, attribute)[own], getattr(slow, attribute), rtol=1e-13)
    for attribute in ("branch", "a_leg", "z_row", "z_col"):
        np.testing.assert_array_equal(getattr(fast, attribute), np.arange(fast.n_legs))
    np.testing.assert_array_equal(fast.roots, slow.roots)
    at = [fast.position[node] for node in slow.nodes]
    np.testing.assert_array_equal(fast.v_base_kv[at], slow.v_base_kv)


def test_a_loop_and_a_dead_piece_take_the_general_walk() -> None:
    """case33bw with a tie closed has a loop; with a branch missing, a dead piece."""
    case = lateral.read("case33bw")
    roots = [(s.bus, c) for s in case.sources for c in s.conductors]
    closed = (dataclasses.replace(case.feeder.switches[0], closed=True), *case.feeder.switches[1:])
    assert radial_network(dataclasses.replace(case.feeder, switches=closed), roots, case.base).faults
    cut = dataclasses.replace(case.feeder, lines=case.feeder.lines[:-1])
    assert len(radial_network(cut, roots, case.base).nodes) == 32
