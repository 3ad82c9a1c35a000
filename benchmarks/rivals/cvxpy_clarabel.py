"""The SOC problem in vectorised cvxpy, solved by Clarabel.

Matrix variables over (branch, step), one vectorised cone per kind, variables and rows scaled by branch and Clarabel's
tolerances as in lateral. The canonicalisation backend is the fastest of cvxpy's at 1000 buses: COO (CPP takes as long,
SCIPY longer).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.balanced import Balanced, at_buses
from benchmarks.registry import Rival, RivalRun

#: tolerance of lateral's Clarabel
TOLERANCE = 1e-9
BACKEND = "COO"


def run(data: Balanced, backend: str = BACKEND) -> RivalRun:
    """Build and solve."""
    import cvxpy as cp

    begin = time.perf_counter()
    k, t = data.shape
    s, b = data.scale, data.battery
    p, q, l, v = (cp.Variable((k, t)) for _ in range(4))
    pv_q = cp.Variable((len(data.pv_bus), t))
    charge, discharge, battery_q, energy = (cp.Variable((len(data.battery_bus), t)) for _ in range(4))
    rating = b["power"]

    # scaled: P = s p, l = s^2 l', battery powers by rating, energy by capacity, rows by s
    below = data.below.multiply(1.0 / s).multiply(s.T).tocsr()  # s_child / s_own
    pv_at = at_buses(data.pv_bus, k).multiply(1.0 / s).multiply(data.pv_scale.T).tocsr()
    battery_at = at_buses(data.battery_bus, k).multiply(1.0 / s).multiply(rating.T).tocsr()
    net = discharge - charge
    inner = np.flatnonzero(data.parent > 0)
    to_parent = _pick(data.parent[inner] - 1, inner, k)
    source = np.where((data.parent == 0).reshape(-1, 1), data.v_source, 0.0)
    w = to_parent @ v + source

    def cone(t_side: Any, *parts: Any) -> Any:
        return cp.SOC(cp.vec(t_side, order="C"), cp.vstack([cp.vec(x, order="C") for x in parts]), axis=0)

    step_h = data.hours.reshape(1, -1)
    first = np.zeros((1, t))
    first[0, 0] = 1.0
    before = np.eye(t, k=1)
    start = b["initial"] / b["capacity"]
    stored = cp.multiply(rating * b["eta_c"] / b["capacity"] @ step_h, charge) - cp.multiply(
        rating / b["eta_d"] / b["capacity"] @ step_h, discharge
    )
    root = np.flatnonzero(data.parent == 0)
    p_import = cp.sum(cp.multiply(np.repeat(s[root], t, axis=1), p[root]), axis=0)
    constraints = [
        p - cp.multiply(data.r * s, l) == below @ p + data.p / s - battery_at @ net,
        q - cp.multiply(data.x * s, l) == below @ q + data.q / s - battery_at @ battery_q - pv_at @ pv_q,
        v - w + cp.multiply(2.0 * data.r * s, p) + cp.multiply(2.0 * data.x * s, q)
        == cp.multiply((data.r**2 + data.x**2) * s**2, l),
        cone(w + l, 2.0 * p, 2.0 * q, w - l),
        v >= data.v_min,
        v <= data.v_max,
        pv_q >= -data.pv_q_max / data.pv_scale,
        pv_q <= data.pv_q_max / data.pv_scale,
        charge >= 0.0,
        charge <= 1.0,
        discharge >= 0.0,
        discharge <= 1.0,
        battery_q >= -b["s"] / rating,
        battery_q <= b["s"] / rating,
        cone(cp.Constant(np.repeat(b["s"] / rating, t, axis=1)), net, battery_q),
        energy == energy @ before + start @ first + stored,
        energy >= b["low"] / b["capacity"],
        energy <= b["high"] / b["capacity"],
        energy[:, t - 1 :] == start,
        p_import >= -data.p_export_max,
    ]
    lost = cp.multiply(rating * (1.0 - b["eta_c"]), charge) + cp.multiply(rating * (1.0 / b["eta_d"] - 1.0), discharge)
    cost = data.price @ p_import + cp.sum(lost @ data.alpha)
    size = 4 * k * t
    problem = cp.Problem(cp.Minimize(cost * (max(100.0, size / 100.0) / data.objective_scale)), constraints)
    built = time.perf_counter() - begin
    problem.solve(
        solver=cp.CLARABEL,
        canon_backend=backend,
        ignore_dpp=True,
        tol_feas=TOLERANCE,
        tol_gap_abs=TOLERANCE,
        tol_gap_rel=TOLERANCE,
        reduced_tol_feas=1e-6,
        reduced_tol_gap_abs=1e-6,
        reduced_tol_gap_rel=1e-6,
        max_iter=200,
    )
    stats = problem.solver_stats
    return RivalRun(
        objective=float(cost.value),
        status=str(problem.status),
        iterations=int(stats.num_iters or 0),
        parts={"expressions": built, "compilation": float(problem.compilation_time or 0.0)},
    )


def _pick(columns: np.ndarray, rows: np.ndarray, n: int) -> Any:
    import scipy.sparse as sp

    return sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))


RIVAL = Rival(name="cvxpy", formulation="soc", engine="clarabel", run=run, needs=("cvxpy",))
