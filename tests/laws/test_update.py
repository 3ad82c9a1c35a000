"""New data in a built problem is the problem that the changed case would have been built as."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from lateral.case import Case
from lateral.opf import build
from lateral.program import Program
from strategies import balanced_cases, three_phase_cases

FEW = settings(max_examples=25, deadline=None, derandomize=True)
OBJECTIVES = st.sampled_from(["cost", "loss", "2*cost+0.5*peak", "vdev", "curtailment+0.1*cost", "peak"])


def dense(values: object) -> np.ndarray:
    return values.toarray() if sp.issparse(values) else np.asarray(values)  # type: ignore[attr-defined]


def assert_same_program(a: Program, b: Program) -> None:
    """Every number; scales aside, which are a choice."""
    for name in ("c", "c0", "q", "a", "b", "g", "l", "u", "lb", "ub"):
        np.testing.assert_allclose(
            dense(getattr(a, name)), dense(getattr(b, name)), rtol=1e-9, atol=1e-12, err_msg=name
        )
    for name in ("a", "a0", "u", "u0", "v", "v0", "equality"):
        x, y = dense(getattr(a.products, name)), dense(getattr(b.products, name))
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12, err_msg=f"products.{name}")


def new_data(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Other loads, prices, initial energies and sun; sometimes loads or sun of zero, or sun above the inverter."""
    rng = np.random.default_rng(seed)
    t = case.horizon.n_steps
    out: dict[str, np.ndarray] = {}
    if rng.random() < 0.8:
        out["loads"] = rng.uniform(0, 50, (len(case.loads), t)) * (rng.random((len(case.loads), t)) < 0.8)
    if rng.random() < 0.3:
        out["loads_q"] = rng.uniform(0, 20, (len(case.loads), t))
    if rng.random() < 0.8:
        out["prices"] = rng.uniform(-0.1, 0.4, t)
    if case.batteries and rng.random() < 0.8:
        out["initial"] = np.array([b.energy_kwh * rng.uniform(0.2, 0.8) for b in case.batteries])
    if case.pvs and rng.random() < 0.8:
        out["pv"] = rng.uniform(0, 60, (len(case.pvs), t)) * (rng.random((len(case.pvs), t)) < 0.8)
    return out


@FEW
@given(
    balanced_cases(weights=True, breaks=True),
    st.sampled_from(["lindistflow", "soc", "nonlinear"]),
    OBJECTIVES,
    st.integers(0, 2**16),
)
def test_update_is_a_rebuild_balanced(case: Case, formulation: str, objective: str, seed: int) -> None:
    """Twice, so that what the first update did cannot be in the way of the second."""
    model = build(case, formulation, objective)
    for k in (0, 1):
        model.update(**new_data(case, seed + k))  # type: ignore[arg-type]
        assert_same_program(model.program, build(model.case, formulation, objective, check=False).program)


@FEW
@given(three_phase_cases(), OBJECTIVES, st.integers(0, 2**16))
def test_update_is_a_rebuild_three_phase(case: Case, objective: str, seed: int) -> None:
    """At the unloaded point, which does not follow the data."""
    model = build(case, "lindist3flow", objective, point="nominal")
    model.update(**new_data(case, seed))  # type: ignore[arg-type]
    other = build(model.case, "lindist3flow", objective, point="nominal", check=False)
    assert_same_program(model.program, other.program)


@FEW
@given(balanced_cases(), st.sampled_from(["lindistflow", "soc", "nonlinear"]), st.integers(0, 2**16))
def test_updates_leave_no_trace(case: Case, formulation: str, seed: int) -> None:
    """Back to the first data (all of it, loads through zero): the first program."""
    model = build(case, formulation)
    first = model.program
    back = {name: first.theta[slot.cells].reshape(-1, slot.n_steps) for name, slot in first.slots.items()}
    model.update(**new_data(case, seed))  # type: ignore[arg-type]
    model.update_data({k: v for k, v in back.items() if k not in ("system.loss_price", "pv.q_max_kvar")})
    assert_same_program(model.program, first)
    assert_same_program(build(model.case, formulation, check=False).program, first)
