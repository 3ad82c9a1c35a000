"""The exact problem in vectorised CasADi (MX), solved by Ipopt through ``nlpsol``.

One symbolic matrix per quantity over (branch, step), sparse constant matrices for the network; the same scaling,
options, tolerances and start as lateral's.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.balanced import Balanced, at_buses
from benchmarks.registry import Rival, RivalRun

#: tolerance of lateral's Ipopt
TOLERANCE = 1e-9


def run(data: Balanced) -> RivalRun:
    """Build and solve."""
    import casadi as ca

    begin = time.perf_counter()
    k, t = data.shape
    s, b = data.scale, data.battery
    n_pv, n_b = len(data.pv_bus), len(data.battery_bus)
    rating = b["power"]
    shapes = {"p": k, "q": k, "l": k, "v": k, "pv_q": n_pv, "c": n_b, "d": n_b, "bq": n_b, "e": n_b}
    z = {name: ca.MX.sym(name, n, t) for name, n in shapes.items()}
    p, q, l, v, pv_q, c, d, bq, e = z.values()

    def wide(column: np.ndarray) -> Any:
        """A column of constants over all steps."""
        return ca.DM(np.broadcast_to(column, (len(column), t)))

    def matrix(sparse: Any) -> Any:
        return ca.DM(sparse.tocsc())

    below = matrix(data.below.multiply(1.0 / s).multiply(s.T))
    pv_at = matrix(at_buses(data.pv_bus, k).multiply(1.0 / s).multiply(data.pv_scale.T))
    battery_at = matrix(at_buses(data.battery_bus, k).multiply(1.0 / s).multiply(rating.T))
    # bus 0 is the source: a row of constants above v
    w = ca.vertcat(ca.DM(data.v_source.reshape(1, -1)), v)[data.parent.tolist(), :]
    net = d - c
    start = b["initial"] / b["capacity"]
    before = ca.horzcat(ca.DM(start), e[:, : t - 1])
    stored = (
        wide(rating * b["eta_c"] / b["capacity"] * data.hours) * c
        - wide(rating / b["eta_d"] / b["capacity"] * data.hours) * d
    )
    root = np.flatnonzero(data.parent == 0)
    p_import = ca.sum1(wide(s[root]) * p[root.tolist(), :])
    rows = [
        (p - wide(data.r * s) * l - below @ p + battery_at @ net, data.p / s, data.p / s),
        (q - wide(data.x * s) * l - below @ q + battery_at @ bq + pv_at @ pv_q, data.q / s, data.q / s),
        (v - w + wide(2 * data.r * s) * p + wide(2 * data.x * s) * q - wide((data.r**2 + data.x**2) * s**2) * l, 0, 0),
        (p**2 + q**2 - w * l, 0, 0),
        (net**2 + bq**2 - wide((b["s"] / rating) ** 2), -np.inf, 0),
        (e - before - stored, 0, 0),
        (p_import, -data.p_export_max, np.inf),
    ]
    f = ca.mtimes(p_import, ca.DM(data.price)) + ca.sum1(
        ca.mtimes(wide(rating * (1 - b["eta_c"])) * c + wide(rating * (1 / b["eta_d"] - 1)) * d, ca.DM(data.alpha))
    )
    inf = np.inf
    q_max = data.pv_q_max / data.pv_scale
    fixed_end = np.zeros((1, t), dtype=bool)
    fixed_end[0, -1] = True
    low_e, high_e = b["low"] / b["capacity"], b["high"] / b["capacity"]
    bounds = {
        "p": (-inf, inf),
        "q": (-inf, inf),
        "l": (-inf, inf),
        "v": (data.v_min, data.v_max),
        "pv_q": (-q_max, q_max),
        "c": (0.0, 1.0),
        "d": (0.0, 1.0),
        "bq": (-b["s"] / rating, b["s"] / rating),
        "e": (np.where(fixed_end, start, low_e), np.where(fixed_end, start, high_e)),
    }
    first = {"v": 1.0, "e": start}

    def flat(value: Any, n: int) -> np.ndarray:
        return np.broadcast_to(value, (n, t)).reshape(-1, order="F")

    problem = {
        "x": ca.veccat(*z.values()),
        "f": f / data.objective_scale,
        "g": ca.veccat(*(g for g, _, _ in rows)),
    }
    options = {
        "print_time": False,
        "ipopt": {
            "print_level": 0,
            "sb": "yes",
            "tol": TOLERANCE,
            "constr_viol_tol": TOLERANCE,
            "compl_inf_tol": TOLERANCE,
            "dual_inf_tol": 1e-6,
            "acceptable_tol": 1e-7,
            "bound_relax_factor": 1e-9,
            "nlp_scaling_method": "none",
            "mu_strategy": "adaptive",
            "max_iter": 500,
        },
    }
    solver = ca.nlpsol("solver", "ipopt", problem, options)
    built = time.perf_counter() - begin
    begin = time.perf_counter()
    found = solver(
        x0=np.concatenate([flat(first.get(name, 0.0), n) for name, n in shapes.items()]),
        lbx=np.concatenate([flat(bounds[name][0], n) for name, n in shapes.items()]),
        ubx=np.concatenate([flat(bounds[name][1], n) for name, n in shapes.items()]),
        lbg=np.concatenate([flat(low, g.shape[0]) for g, low, _ in rows]),
        ubg=np.concatenate([flat(high, g.shape[0]) for g, _, high in rows]),
    )
    stats = solver.stats()
    callbacks = sum(v for name, v in stats.items() if name.startswith("t_wall_nlp_") and np.isfinite(v))
    return RivalRun(
        objective=float(found["f"]) * data.objective_scale,
        status=str(stats["return_status"]),
        iterations=int(stats["iter_count"]),
        parts={"construction": built, "callbacks": float(callbacks), "solve": time.perf_counter() - begin},
    )


RIVAL = Rival(name="casadi", formulation="nonlinear", engine="ipopt", run=run, needs=("casadi",))
