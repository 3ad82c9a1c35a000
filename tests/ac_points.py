"""A solved power flow as a point of the matrix family's program: what every linear row must hold at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.formulations.base import OperatingPoint
from lateral.formulations.matrix_flow import MatrixFlowModel
from lateral.formulations.matrix_pool import Group
from lateral.formulations.sdp import SDP
from lateral.model import Model
from lateral.network.admittance import NodeIndex
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.opf import build
from lateral.program import Affine, ProgramBuilder
from lateral.units import Base


class Seen(SDP):
    """The formulation, with its model kept for a test to look at."""

    def network(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint | None,
    ) -> MatrixFlowModel:
        self.seen = super().network(builder, feeder, network, base, point)
        assert isinstance(self.seen, MatrixFlowModel)
        return self.seen


@dataclass(frozen=True)
class ACPoint:
    """The program, a point of it, and what the power flow found."""

    model: Model
    x: np.ndarray
    worst: dict[str, float]


def ac_point(case: Case, **options: object) -> ACPoint:
    """The program of a case without decisions, at its AC power flow; every equality row evaluated there."""
    formulation = Seen()
    model = build(case, formulation, **options)  # type: ignore[arg-type]
    net, seen, program = model.network, formulation.seen, model.program
    flow = power_flow(case, tolerance_pu=1e-9)
    assert flow.converged.all()
    index = NodeIndex.of(case.feeder)
    at = np.array([index.position[node] for node in net.nodes])
    v = flow.v_pu[at]
    x = np.full(program.n, np.nan)

    def put(name: str, elements: tuple[str, ...], values: np.ndarray) -> None:
        """Give the one variable of a name and of these elements its values, shape (elements, T)."""
        (block,) = (b for b in program.variables if b.name == name and b.elements == elements)
        assert values.shape == (len(elements), block.n_steps)
        x[block.cells] = values.reshape(-1)

    # what ports inject, at the voltages of the power flow
    cells = seen.m.pool.col.reshape(seen.m.pool.shape)
    x[cells[: len(v)]] = np.abs(v) ** 2
    for component, names, ports, _ in seen._squares:
        put(f"{component}.vmag_sq", tuple(names), np.abs(v[ports.a] - v[ports.b]) ** 2)
    if any(block.quantity == "v_power" for block in program.variables):
        raise AssertionError("a load between two curves has no one point; use exponents 0 and 2")

    def value(a: Affine) -> np.ndarray:
        out = a.value(x, program.theta)
        assert np.all(np.isfinite(out)), "of a variable that has no value yet"
        return out

    drawn = np.zeros_like(v)
    for what in seen._nodal:
        nodes = np.maximum(what.ports.a, what.ports.b)
        i = np.conj((value(what.p) + 1j * value(what.q)) / v[nodes])
        assert np.all(np.abs(i) <= what.i_max + 1e-9)
        np.add.at(drawn, nodes, -i)
    for what in seen._impedances:
        ports = what.ports
        i = np.conj(value(what.p) + 1j * value(what.q)) * (v[ports.a] - v[ports.b])
        assert np.all(np.abs(i) <= what.i_max + 1e-9)
        np.add.at(drawn, ports.a, -i)
        np.add.at(drawn, ports.b, i)
    delta_ports, delta_p, delta_q = seen.between.ports, seen.between.p, seen.between.q
    u = v[delta_ports.a] - v[delta_ports.b]
    delta_i = np.conj((value(delta_p) + 1j * value(delta_q)) / u) if len(delta_ports) else np.zeros((0, v.shape[1]))
    np.add.at(drawn, delta_ports.a, -delta_i)
    np.add.at(drawn, delta_ports.b, delta_i)
    drawn += seen._y @ v

    # from the leaves to the sources
    sections = seen.sections
    currents: list[np.ndarray] = [np.zeros((0, 0))] * len(sections)
    v_all = np.vstack([v, np.zeros((sum(len(f.nodes) for f in seen._feeds if not f.stiff), v.shape[1]))])
    need = np.vstack([drawn, np.zeros((len(v_all) - len(v), v.shape[1]))])
    for k in range(len(sections) - 1, -1, -1):
        currents[k] = need[sections[k].s]
        need[sections[k].p] += sections[k].a.T @ currents[k]
    for f in seen._feeds:
        given = currents[[s.name for s in sections].index(f.name)] if not f.stiff else need[f.nodes]
        if not f.stiff:
            v_all[f.at] = v[f.nodes] + f.z @ given
        s = v[f.nodes] * np.conj(given)
        put("feed.p", f.elements, s.real)
        put("feed.q", f.elements, s.imag)
    x[cells[: len(v_all)]] = np.abs(v_all) ** 2

    core: dict[int, np.ndarray] = {}
    for b, nodes in enumerate(seen.ranges.members):
        c, basis = int(seen.ranges.core[b]), seen.ranges.u[b]
        coordinates = np.linalg.lstsq(basis, v_all[nodes], rcond=None)[0]
        np.testing.assert_allclose(basis @ coordinates, v_all[nodes], atol=2e-7)
        filled = np.abs(basis).max(axis=0) > 0
        whole = core.setdefault(c, np.zeros((len(seen.ranges.cores[c].nodes), v.shape[1]), dtype=complex))
        free = filled & (np.abs(whole).max(axis=1) == 0.0)
        whole[free] = coordinates[free]

    def fill(g: Group, k: int, whole: np.ndarray) -> None:
        h = np.einsum("at,bt->abt", whole, whole.conj())
        i, j = np.triu_indices(g.h, 1)
        elements = np.concatenate([h[np.arange(g.h), np.arange(g.h)].real, h[i, j].real, h[i, j].imag])
        x[cells[g.places[k]]] = elements

    for g in seen.m.cores:
        for k, c in enumerate(g.members.tolist()):
            fill(g, k, core[c])
    for g in seen.m.sections:
        for k, number in enumerate(g.members.tolist()):
            c, cols, _ = seen.ranges.voltage(g.nodes[k])
            tilde = np.linalg.lstsq(g.t[k], currents[number], rcond=None)[0] if g.h > g.m else np.zeros((0, v.shape[1]))
            if g.h > g.m:
                np.testing.assert_allclose(g.t[k] @ tilde, currents[number], atol=1e-9)
            common = seen.ranges.common[number]
            extra = common.conj().T @ v_all[sections[number].s]
            fill(g, k, np.vstack([core[c][cols], extra, tilde]))
    for g in seen.m.deltas:
        for k in range(len(g.members)):
            c, cols, _ = seen.ranges.voltage(g.nodes[k])
            fill(g, k, np.vstack([core[c][cols], delta_i[g.to[k]]]))
    for n, (number, leg) in enumerate(zip(seen.m.tie_section.tolist(), seen.m.tie_leg.tolist(), strict=True)):
        s = v_all[sections[number].s[leg]] * np.conj(currents[number][leg])
        x[cells[seen.m.tie_p[n]]], x[cells[seen.m.tie_q[n]]] = s.real, s.imag
    # what nobody decided: an unset variable is a mistake
    assert np.all(np.isfinite(x)), [b.name for b in program.variables if not np.all(np.isfinite(x[b.cells]))]
    worst = {}
    residual = np.abs(program.a @ x - program.b)
    for block in program.equalities:
        worst[block.name] = max(worst.get(block.name, 0.0), float(residual[block.cells].max(initial=0.0)))
    middle = program.g @ x
    for block in program.inequalities:
        out = np.maximum(program.l - middle, middle - program.u)[block.cells]
        worst[block.name] = max(worst.get(block.name, 0.0), float(out.max(initial=0.0)))
    for (dim, _), e in zip(
        program.semidefinite.by_dim(), program.semidefinite.eigenvalues(program.semidefinite.value(x)), strict=True
    ):
        worst[f"psd {dim}"] = float(np.maximum(-e, 0.0).max(initial=0.0))
    worst["products"] = float(program.products.value(x).max(initial=0.0)) if program.products.n_rows else 0.0
    return ACPoint(model, x, worst)


__all__ = ["ACPoint", "ac_point"]
