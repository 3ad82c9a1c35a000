"""Relaxations of feeders with conductors that feed nothing: phases of a line without a load behind, open laterals."""

from __future__ import annotations

import numpy as np
import pytest

from lateral.case import Case
from lateral.devices import PV, Load, Source
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.opf import build
from lateral.results.residuals import Residuals
from lateral.results.retry import nearer

ABC = (1, 2, 3)
Z = np.array([[0.25, 0.075, 0.075], [0.075, 0.25, 0.075], [0.075, 0.075, 0.25]]) * (1.0 + 2.0j)


def sparse(seed: int) -> Case:
    """A tree of 5 to 9 buses of one to three phases, half of them without a load, the others with some on some phases;
    PV at a few, charging on a few lines."""
    g = np.random.default_rng(seed)
    names = [f"n{k}" for k in range(int(g.integers(5, 10)))]
    at, lines = {0: ABC}, []
    for k in range(1, len(names)):
        p = int(g.integers(0, k))
        above = at[p]
        whole = g.random() < 0.7 or len(above) == 1
        at[k] = above if whole else above[: int(g.integers(1, len(above) + 1))]
        i = [c - 1 for c in at[k]]
        z = Z[np.ix_(i, i)] * g.uniform(0.2, 1.5)
        charging = np.diag([30.0] * len(i)) if g.random() < 0.2 else None
        ends = {"bus_from": names[p], "bus_to": names[k], "conductors_from": at[k], "conductors_to": at[k]}
        lines.append(Line(name=f"l{k}", **ends, r_ohm=z.real, x_ohm=z.imag, b_us=charging))
    devices: list[Source | Load | PV] = [
        Source(name="s", bus="n0", conductors=ABC, angle_deg=(0.0, -120.0, 120.0), v_pu=1.03, price_import=1.0)
    ]
    for k in range(1, len(names)):
        if g.random() < 0.5:
            continue
        for c in at[k]:
            if g.random() < 0.4:
                p_kw, q_kvar = g.uniform(10.0, 120.0), g.uniform(-10.0, 40.0)
                devices.append(Load(name=f"d{k}_{c}", bus=names[k], terminals=(c, 0), p_kw=p_kw, q_kvar=q_kvar))
        if g.random() < 0.3:
            c, s = int(g.choice(at[k])), g.uniform(20.0, 200.0)
            devices.append(PV(name=f"p{k}", bus=names[k], terminals=(c, 0), p_rated_kw=s, s_max_kva=1.1 * s))
    buses = tuple(
        Bus(name=n, conductors=at[k], v_base_kv=2.4, v_min_pu=0.85, v_max_pu=1.06) for k, n in enumerate(names)
    )
    return Case(
        name=f"sparse{seed}",
        feeder=Feeder(buses=buses, lines=tuple(lines)),
        devices=tuple(devices),
        horizon=Horizon.regular(1),
    )


#: of these every solver but Ipopt at its tightest stopped at gaps of 1e-5 to 1e-1
@pytest.mark.parametrize(
    ("objective", "seed"), [*(("loss", k) for k in (0, 3, 6, 11, 16, 27, 43)), *(("cost", k) for k in (32, 54, 55))]
)
def test_both_relaxations_are_solved_and_bound_the_exact_optimum(objective: str, seed: int) -> None:
    case = sparse(seed)
    exact = build(case, "current-voltage", objective).solve()
    assert exact.ok
    size = max(abs(exact.objective), 0.05)
    below = exact.objective
    for form in ("sdp", "soc3"):
        r = build(case, form, objective).solve()
        assert r.ok, f"{form}: {r.status_text}"
        assert r.bound is not None
        assert r.bound <= below + 1e-6 * size
        below = r.objective


def test_which_of_two_answers_is_nearer_to_the_optimum() -> None:
    def residuals(primal: float, gap: float) -> Residuals:
        return Residuals(max_primal=primal, max_bound=0.0, duality_gap=gap, max_dual=0.0, complementarity=0.0)

    assert nearer(residuals(1e-7, 1e-5), residuals(1e-8, 1e-3))  # both within tolerance: the gap counts
    assert nearer(residuals(1e-5, 1e-5), residuals(2e-5, 1e-3))
    assert not nearer(residuals(1e-5, 1e-5), residuals(1e-8, 1e-3))
    assert not nearer(residuals(1e-8, 1e-3), residuals(1e-8, 1e-5))
    assert nearer(residuals(1e-8, 1e-3), residuals(float("nan"), float("nan")))
