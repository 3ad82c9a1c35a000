"""Laws of cutting: whatever is cut, every element is somewhere once, sums stay, and each area is a sound case."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lateral.areas.divide import divide
from lateral.areas.partition import Partition, branches_of, cut, cut_by_buses
from lateral.baseline import load_power
from lateral.case import Case
from lateral.checks import check
from lateral.devices import BorderHead, BorderTail, Load
from lateral.errors import CaseError, OptionError
from lateral.network.schema import FloatArray
from strategies import balanced_cases, three_phase_cases

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def total_load(case: Case) -> FloatArray:
    """Active and reactive power of the loads, kW and kvar, shape (2, T); borders are no loads."""
    zero = np.zeros((2, case.horizon.n_steps))
    return sum((np.array(load_power(case, d)) for d in case.of(Load)), zero)


def hold(p: Partition) -> None:
    """What holds of every partition."""
    case, areas = p.case, [a.case for a in p.areas.values()]
    # every branch, shunt and device once
    for kind in ("lines", "switches", "transformers", "shunts"):
        every = Counter(e.label for a in areas for e in getattr(a.feeder, kind))
        assert every == Counter(e.label for e in getattr(case.feeder, kind))
    own = Counter(d.label for a in areas for d in a.devices if not isinstance(d, BorderHead | BorderTail))
    assert own == Counter(d.label for d in case.devices)
    # buses: all of them, twice where a border is
    seen = Counter(b.name for a in areas for b in a.feeder.buses)
    twice = Counter(b.bus for b in p.borders.values())
    assert seen == Counter(b.name for b in case.feeder.buses) + twice
    assert sum(a.n_nodes for a in p.areas.values()) == sum(len(b.conductors) for b in case.feeder.buses)
    np.testing.assert_allclose(sum(total_load(a) for a in areas), total_load(case), rtol=1e-12, atol=1e-9)
    # borders: each one head, one tail, in a tree whose parents come first
    heads = Counter(d.name for a in areas for d in a.of(BorderHead))
    tails = Counter(d.name for a in areas for d in a.of(BorderTail))
    assert heads == tails == Counter(p.borders.keys())
    order = list(p.areas)
    assert all(order.index(b.parent) < order.index(b.child) for b in p.borders.values())
    assert len(p.borders) == len(p.areas) - 1
    # each a sound case, fed from one place
    for a in areas:
        assert check(a, radial=True) == ()
        assert len(a.sources) == 1
        assert set(a.profiles) <= set(case.profiles) | {f"v_pu of {n}" for n in p.borders}


@given(st.one_of(balanced_cases(), three_phase_cases()), st.data())
@few
def test_any_cuts_of_any_tree(case: Case, data: st.DataObject) -> None:
    assert check(case, radial=True) == ()
    labels = list(branches_of(case.feeder))
    chosen = data.draw(st.lists(st.sampled_from(labels), unique=True))
    p = cut(case, chosen)
    assert len(p.areas) == len(chosen) + 1
    hold(p)
    # the map of buses says the same as the cuts
    again = cut_by_buses(case, p.bus_area)
    assert {n: a.case.hash for n, a in again.areas.items()} == {n: a.case.hash for n, a in p.areas.items()}


@given(st.one_of(balanced_cases(max_buses=20), three_phase_cases(max_buses=12)), st.integers(1, 8))
@few
def test_any_number_of_areas(case: Case, n: int) -> None:
    most = len(branches_of(case.feeder)) + 1
    if n > most:
        with pytest.raises(OptionError, match=f"so {most} areas at most"):
            divide(case, n)
        return
    p = divide(case, n)
    assert len(p.areas) == n
    hold(p)


@given(balanced_cases(), st.data())
@few
def test_any_map_of_buses_is_cut_or_refused_with_codes(case: Case, data: st.DataObject) -> None:
    names = [b.name for b in case.feeder.buses]
    areas = data.draw(st.fixed_dictionaries({b: st.sampled_from(["a", "b", "c"]) for b in names}))
    try:
        p = cut_by_buses(case, areas)
    except CaseError as error:
        assert {f.code for f in error.faults} == {"ARE-008 pieces"}
        return
    hold(p)
    assert p.bus_area == areas
