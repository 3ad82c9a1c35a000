"""The forward-backward sweep over the branches of a radial feeder, all steps at once.

With the branches of `lateral.network.branches` (A the ideal part, Z the series impedance; per unit) and J(V) what
shunts and devices draw at the nodes, one iteration is (Shirmohammadi, Hong, Semlyen and Luo 1988; in three phases
Cheng and Shirmohammadi 1995)::

    backward   I   = J_s + sum over branches that leave s of (A' I)          from the leaves to the source
    root       V_p = E - Z_source (J_p + sum of A' I)
    forward    V_s = A V_p - Z I                                             from the source to the leaves

Both passes are triangular solves with one matrix: with the legs numbered from the source outwards and ``N[k, l]`` the
part of leg k's ideal voltage that comes from the node of leg l, forward is ``(1 - N) V = A_root V_root - Z I``,
backward ``(1 - N)' I = J``. Nothing is factored, nothing fills in.

It converges when the feeder is weakly loaded (the loads' admittance small against 1/Z), and takes the common mode of an
ungrounded side as zero (it is held by antifloat shunts alone), so that its result is checked on the whole network like
any other (`lateral.network.nodal.Equations.result`) and is not converged where that is not so.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from lateral.errors import Fault, UnsupportedError
from lateral.network.branches import RadialNetwork
from lateral.network.nodal import Equations
from lateral.network.schema import ComplexArray, IntArray
from lateral.units import Base


def sweep_faults(equations: Equations, radial: RadialNetwork) -> tuple[Fault, ...]:
    """Why a network cannot be swept: loops, conductors that no branch feeds, two sources at one conductor."""
    out = [
        Fault(
            "PF-003 not radial",
            fault.element,
            fault.found,
            "a radial feeder: one way from the source to every conductor",
            "Take the fixed point or Newton's method, or open a switch in the loop.",
        )
        for fault in radial.faults
    ]
    if out:
        return tuple(out)
    index = equations.network.index
    unfed = [n for k, n in enumerate(index.nodes) if equations.energized[k] and n not in radial.position]
    held = np.concatenate([s.nodes for s in equations.sources])
    twice = [index.nodes[k] for k in np.unique(held) if np.sum(held == k) > 1]
    for nodes, found in ((unfed, "conductors that no branch feeds"), (twice, "conductors with two sources")):
        if nodes:
            bus, conductor = nodes[0]
            more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
            out.append(
                Fault(
                    "PF-003 not radial",
                    f"bus.{bus}",
                    f"{found}: {conductor}{more}",
                    "one way from the source to every conductor",
                    "Take the fixed point or Newton's method.",
                )
            )
    return tuple(out)


def sweep(
    equations: Equations,
    radial: RadialNetwork,
    base: Base,
    *,
    v: ComplexArray,
    tolerance_pu: float,
    max_iterations: int,
    iterations: IntArray,
) -> IntArray:
    """Sweep from ``v`` and write there where it ends; returns the steps that did not settle.

    Args:
        equations: the network.
        radial: its branches, without neutrals taken as grounded.
        base: what the branches are per unit of.
        v: voltages, V, shape (n, T); changed in place.
        tolerance_pu: largest change of a node voltage at which a step is left, pu.
        max_iterations: at most so many.
        iterations: counted up in place, shape (T,).

    Raises:
        UnsupportedError: the feeder is not radial.
    """
    faults = sweep_faults(equations, radial)
    if faults:
        raise UnsupportedError(faults)
    tree = _Tree(equations, radial, base)
    active = np.arange(equations.n_steps)
    best = np.full(len(active), np.inf)
    given_up = []
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(max_iterations):
            at = v[:, active]
            new = tree.swept(at, active)
            size = equations.sizes(new - at)
            iterations[active] += 1
            done = size <= tolerance_pu
            lost = ~np.isfinite(size)
            if k % 40 == 0:
                lost |= (size > 0.1 * best) & ~done
                best = size.copy()
            v[:, active[~lost]] = new[:, ~lost]
            given_up.append(active[lost])
            active, best = active[~(lost | done)], best[~(lost | done)]
            if not active.size:
                break
    return np.unique(np.concatenate([*given_up, active]))


class _Tree:
    """The matrices of a sweep."""

    def __init__(self, equations: Equations, radial: RadialNetwork, base: Base) -> None:
        self.equations = equations
        position = equations.network.index.position
        self.place = np.array([position[n] for n in radial.nodes], dtype=np.int64)
        n, k = radial.n_nodes, radial.n_legs
        self.to_node = radial.to_node
        self.volt = 1000.0 * radial.v_base_kv[:, None]
        self.ampere = np.array([base.i_a(kv) for kv in radial.v_base_kv]).reshape(-1, 1)
        self.ideal = sparse.csr_matrix((radial.a_val, (radial.a_leg, radial.a_node)), shape=(k, n))
        self.ideal_t = self.ideal.T.tocsr()
        self.series = sparse.csr_matrix((radial.z_val, (radial.z_row, radial.z_col)), shape=(k, k))
        self.shunts = sparse.csr_matrix((radial.shunt_y, (radial.shunt_i, radial.shunt_j)), shape=(n, n))
        self.lu = None
        if k:
            chain = sparse.identity(k, dtype=complex, format="csc") - self.ideal[:, self.to_node].tocsc()
            # triangular with a unit diagonal already: in its own order there is nothing to eliminate
            self.lu = splu(chain.tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"Equil": False})
        at = {node: j for j, node in enumerate(self.place.tolist())}
        self.roots = [np.array([at[int(x)] for x in s.nodes]) for s in equations.sources]

    def swept(self, v: ComplexArray, steps: IntArray) -> ComplexArray:
        """One backward and one forward pass from voltages v, V, shape (n, len(steps))."""
        eq = self.equations
        drawn = eq.load_currents(v, steps)
        if eq.network.y_shunt is not None:
            drawn += eq.network.y_shunt @ v
        if eq.injected is not None:
            drawn -= eq.injected[:, steps]
        taken = drawn[self.place] / self.ampere + self.shunts @ (v[self.place] / self.volt)
        legs = np.zeros((len(self.to_node), v.shape[1]), dtype=complex)
        if self.lu is not None:
            legs = self.lu.solve(taken[self.to_node], trans="T")
        taken += self.ideal_t @ legs
        new = np.zeros_like(taken)
        for source, rows in zip(eq.sources, self.roots, strict=True):
            e = source.e_volt[:, steps] - source.z_ohm @ (taken[rows] * self.ampere[rows])
            new[rows] = e / self.volt[rows]
        if self.lu is not None:
            new[self.to_node] = self.lu.solve(self.ideal @ new - self.series @ legs)
        out = np.zeros_like(v)
        out[self.place] = new * self.volt
        return out


__all__ = ["sweep", "sweep_faults"]
