"""The current-voltage form to first order at a solved point: any element, any connection, radial or meshed.

    Y V = M' I + I_source                                                 linear already
    U0_r I_r + U0_i I_i + I0_r U_r + I0_i U_i - Re(U0 conj(I0)) = p       power at a port, and likewise q
    |V|^2      ->  2 Re(conj(V0) V) - |V0|^2                              limits, sources, reads
    y = phi(w) ->  phi(w0) + phi'(w0) (w - w0)                            laws of loads
    sum over branches dI^H (lambda_p Re(Z) + lambda_q Im(Z)) dI           in the objective, dI = I(V) - I(V0)

(Bolognani and Dorfler 2015, "Fast power system analysis via implicit linearization of the power flow manifold"; O'Neill
et al. 2012 for the rows.) Discs of inverters and limits of currents stay cones. The last line is what a linear model
misses of its losses: the Hessian ``sum_i Re(lambda_i dU_i conj(dI_i))`` of the Lagrangian of the exact form, with one
price per branch (the price of a lost kWh at first, then the prices of its ends in the round before, where they are
positive), so that it is convex. From the second round on, squares and laws of loads have theirs, where it is convex.

Exact at the point, to first order around it. The rounds of `lateral.successive` make it again at the power flow of its
own schedule, with a trust region, until nothing moves: then it is a local optimum of the exact form. Coefficients are
data slots, so that a round rebuilds nothing.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, final

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from lateral.formulations.base import OperatingPoint
from lateral.formulations.phasors import Complex, entries
from lateral.formulations.rectangular import RectangularFormulation, RectangularModel
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.program import Affine, Program, ProgramBuilder
from lateral.program.ports import Ports
from lateral.program.tangent import Solution, Tangent
from lateral.units import Base

#: A branch's price of losses is at least this share of the step's: the objective stays convex.
LEAST_SHARE = 1e-2


@final
class _Model(RectangularModel):
    """The family's rows through a builder that writes them to first order."""

    neglects_curvature = True

    def __init__(
        self, builder: ProgramBuilder, feeder: Feeder, network: RadialNetwork, base: Base, point: OperatingPoint
    ) -> None:
        super().__init__(builder, feeder, network, base, point)
        self._tangent = builder.tangent = Tangent(state=self._state)
        self._curvature: list[Affine] = []

    def _own_currents(self, ports: Ports) -> IntArray:
        return np.arange(len(ports))

    def add_loss_curvature(self, weight: Affine) -> None:
        """See `NetworkModel.add_loss_curvature`."""
        self._curvature.append(weight)

    def _losses(self) -> None:
        super()._losses()
        for weight in self._curvature:
            self._branch_curvature(weight)

    def _branch_curvature(self, weight: Affine) -> None:
        """``sum over branches dI^H (price_p Re(Z) + price_q Im(Z)) dI`` with ``dI = Z^+ (A dV_p - dV_s)``.

        Branches in a row between kept buses see the same of these; they are one group with one pair of prices.
        """
        net, tangent, builder = self.net, self._tangent, self.builder
        legs = self._limits.legs
        receiving = sparse.csr_matrix((np.ones(net.n_legs), (np.arange(net.n_legs), net.to_node)), legs.ideal.shape)
        current = (legs.admittance @ (legs.ideal - receiving) @ self._reduced.t[: self._n_true]).tocoo()
        long = ~np.isin(current.row, np.concatenate([self._short, self._tapped_legs()]))
        row, col, value = current.row[long], current.col[long], current.data[long]
        if not len(row):  # an area of one bus
            return
        group = self._groups(row, col)
        pairs, place = np.unique(group[row] * len(self._reduced.kept) + col, return_inverse=True)
        of_pair, node = np.divmod(pairs, len(self._reduced.kept))
        seen = sparse.csr_matrix((value, (row, place)), shape=(net.n_legs, len(pairs)))
        z = sparse.csr_matrix((net.z_val, (net.z_row, net.z_col)), shape=(net.n_legs, net.n_legs))
        number = int(group.max(initial=-1)) + 1
        first = np.full(number, -1)
        first[group[row][::-1]] = row[::-1]
        names = [net.legs[k] for k in first]
        labels = [self._names[k] for k in self._reduced.kept[node]]
        for quantity, start, part in (("p", 1.0, z.real), ("q", 0.0, z.imag)):
            price = tangent.weights(builder, f"branch.price_{quantity}", names, start, weight)
            own, other, form = entries(sparse.csr_matrix((seen.conj().T @ part @ seen).real))
            for v in (self._v.re.take(node), self._v.im.take(node)):
                lost = v.map_terms(len(pairs), own, other, form.real)
                tangent.distance(builder, v, lost, price.take(of_pair), labels, shared=True)
        true = np.concatenate([np.arange(self._n_true), self._ratios.ports.a])[self._reduced.kept[node]]
        mean = sparse.csr_matrix((np.ones(len(pairs)), (of_pair, true)), (number, self._n_true))
        mean = sparse.diags(1.0 / np.bincount(of_pair, minlength=number)) @ mean
        tangent.weights_of = partial(self._branch_prices, weight, sparse.csr_matrix(mean))

    def _tapped_legs(self) -> IntArray:
        """Legs of transformers with a decided tap: what their current is does not follow from the voltages alone."""
        labels = self._ratios.labels
        tapped = np.array([name in labels for name in self.net.branch_names], dtype=bool)
        return np.flatnonzero(tapped[self.net.branch])

    def _groups(self, row: IntArray, col: IntArray) -> IntArray:
        """Group of each leg by the kept buses that its branch's current follows, -1 for none, shape (legs,)."""
        net, bus_of = self.net, dict[str, int]()
        nodes = (*net.nodes, *self._ratios.nodes)
        bus = np.array([bus_of.setdefault(nodes[k][0], len(bus_of)) for k in self._reduced.kept], dtype=np.int64)
        ends: dict[int, set[int]] = {}
        for branch, at in zip(net.branch[row].tolist(), bus[col].tolist(), strict=True):
            ends.setdefault(branch, set()).add(at)
        number: dict[frozenset[int], int] = {}
        of_branch = {branch: number.setdefault(frozenset(own), len(number)) for branch, own in ends.items()}
        return np.array([of_branch.get(b, -1) for b in net.branch.tolist()], dtype=np.int64)

    def _branch_prices(
        self, weight: Affine, mean: sparse.csr_matrix, program: Program, solution: Solution
    ) -> dict[str, FloatArray]:
        """Prices of groups of branches, the mean of their ends, as shares of the price of losses."""
        of = weight.value(solution.x, program.theta)
        out = {}
        for derived in program.derived:
            if derived.dual:
                price = mean @ derived.of(solution.x, solution.eq_dual, solution.quadratic_dual)
                least = LEAST_SHARE if derived.block.quantity == "p_balance" else 0.0
                share = np.divide(price, of, out=np.zeros_like(price), where=of > 0.0)
                out[f"branch.price_{derived.block.quantity[0]}"] = np.maximum(share, least)
        return out

    def _derive(self) -> None:
        super()._derive()
        if self._curvature:
            self._tangent.bend(self.builder)
        currents = [] if self._port_rows is None else [self._port_rows[3]]
        currents += self._ratio_rows
        parts = [self._v, *currents, *self._common, *([] if self._short_current is None else [self._short_current])]
        alone = [w for _, _, _, w, _ in self._squares] + ([] if self._all_squares is None else [self._all_squares])
        alone += [q for q, *_ in self._susceptances]
        alone += [a for a in map(self.builder.find, ("branch.p_through", "branch.q_through")) if a is not None]
        for feed, current, e, square in self._feed_rows:
            parts += [current, *([] if e is None else [e])]
            alone += [*([] if square is None else [square]), feed.p, feed.q]
        self._tangent.network += [a.col for pair in parts for a in (pair.re, pair.im)] + [
            a.col for a in alone if a is not None
        ]

    # -- the point ------------------------------------------------------------------------------------------------

    def _state(self, program: Program, x: FloatArray, v_pu: ComplexArray, *, loaded: bool) -> FloatArray:
        """See `lateral.program.tangent.State`."""
        x, theta = x.copy(), program.theta
        v = self._ratios.widened_voltages(np.broadcast_to(v_pu, (self._n_true, self.n_steps)), x, theta)
        kept = self._reduced.kept
        _set(x, self._v, v[kept])
        padded = np.vstack([v, np.zeros((1, self.n_steps))])
        for _, _, ports, w, cells in self._squares:
            square = np.abs(padded[ports.a] - padded[ports.b]) ** 2
            x[w.col] = (square if cells is None else square[cells]).reshape(-1)
        if self._all_squares is not None:
            x[self._all_squares.col] = (np.abs(v[self._live]) ** 2).reshape(-1)
        for q, b, w in self._susceptances:
            x[q.col] = (b.value(x, theta) * w.value(x, theta)).reshape(-1)
        for nodes, own in self._asked:
            _set(x, own, v[nodes])
        self._tangent.curves(x, theta)
        for common in self._common:
            _set(x, common, np.zeros((1, self.n_steps), dtype=complex))
        left = np.asarray(self._reduced.s @ v[kept])
        place = np.full(len(self._names) + 1, -1)
        place[kept] = np.arange(len(kept))
        for ports, p, q in self._linear:
            u = padded[ports.a] - padded[ports.b]
            _add(left, place, ports, -(p.value(x, theta) - 1j * q.value(x, theta)) * u)
        self._ratio_state(x, theta, left, place, loaded=loaded)
        if self._port_rows is not None:
            ports, p, q, current = self._port_rows
            u = padded[ports.a] - padded[ports.b]
            i = np.conj((p.value(x, theta) + 1j * q.value(x, theta)) / u) * float(loaded)
            _set(x, current, i)
            _add(left, place, ports, -i)
        self._sources(x, theta, v, left if loaded else np.zeros_like(left), place)
        self._powers_through(program, x, v)
        return x

    def _ratio_state(
        self, x: FloatArray, theta: FloatArray, left: ComplexArray, place: IntArray, *, loaded: bool
    ) -> None:
        """Currents of ideal ratios, and the balance with them, in place: what enters an internal node is what its wires
        take from there."""
        if not self._ratio_rows:
            return
        ratios, (j, i) = self._ratios, self._ratio_rows
        inner = place[self._n_true + np.arange(len(ratios))]
        into = left[inner] * float(loaded)
        out = into * ratios.sign.reshape(-1, 1) / ratios.tap_values(x, theta)
        _set(x, i, into)
        _set(x, j, out)
        left[inner] -= into
        _add(left, place, ratios.ports, out)

    def _powers_through(self, program: Program, x: FloatArray, v: ComplexArray) -> None:
        """Powers of branches with a limit, in place."""
        blocks = [b for b in program.variables if b.name in ("branch.p_through", "branch.q_through")]
        if not blocks:
            return
        total = self._limits.through.at(v, len(self.net.branch_names))
        place = {name: k for k, name in enumerate(self.net.branch_names)}
        for block in blocks:
            power = total[[place[name] for name in block.elements]]
            x[block.cells] = (power.real if block.quantity == "p_through" else power.imag).reshape(-1)

    def _sources(self, x: FloatArray, theta: FloatArray, v: ComplexArray, left: ComplexArray, place: IntArray) -> None:
        """Currents of sources and short branches: what the balance of the nodes leaves for them, by least squares.

        What is then still left at node i, by the rounding of stiff branches, is a power ``V_i conj(r_i)``; it is shared
        out over the sources, because the sum of all powers is insensitive to the error of a voltage.
        """
        tail = np.full(self.net.n_legs, -1)
        tail[self.net.a_leg] = self.net.a_node
        fed = np.concatenate([feed.nodes for feed, *_ in self._feed_rows])
        leaves = np.concatenate([np.full(len(fed), -1), tail[self._short]])
        enters = np.concatenate([fed, self.net.to_node[self._short]])
        k = np.arange(len(enters))
        gone = leaves >= 0
        incidence = sparse.csc_matrix(
            (
                np.concatenate([np.ones(len(k)), -np.ones(int(gone.sum()))]),
                (np.concatenate([place[enters], place[leaves[gone]]]), np.concatenate([k, k[gone]])),
            ),
            shape=(len(left), len(k)),
        )
        i = splu((incidence.T @ incidence).tocsc().astype(complex)).solve(np.asarray(incidence.T @ left))
        missing = (v[self._reduced.kept] * np.conj(left - incidence @ i)).sum(axis=0) / len(fed)
        if self._short_current is not None:
            _set(x, self._short_current, i[len(fed) :])
        first = 0
        for feed, current, e, square in self._feed_rows:
            own = i[first : first + len(feed.nodes)]
            first += len(feed.nodes)
            _set(x, current, own)
            size = np.sqrt(feed.e_sq.value(x, theta))
            if e is not None:
                _set(x, e, size * np.exp(1j * feed.angle.reshape(-1, 1)))
            if square is not None:
                x[square.col] = (size**2).reshape(-1)
            power = v[feed.nodes] * np.conj(own) + missing
            x[feed.p.col], x[feed.q.col] = power.real.reshape(-1), power.imag.reshape(-1)


def _set(x: FloatArray, variables: Complex, values: ComplexArray) -> None:
    """Set complex variables, in place."""
    x[variables.re.col], x[variables.im.col] = values.real.reshape(-1), values.imag.reshape(-1)


def _add(left: ComplexArray, place: IntArray, ports: Ports, current: ComplexArray) -> None:
    """Add currents of ports to the kept nodes, in place."""
    np.add.at(left, place[ports.a], current)
    two = ports.b >= 0
    np.subtract.at(left, place[ports.b[two]], current[two])


@final
class Linearised(RectangularFormulation):
    """Current-voltage form to first order at a solved point (any phases, radial or meshed)."""

    name: ClassVar[str] = "linearised"
    title: ClassVar[str] = "first order at a solved point, rounds to the exact optimum (any phases, radial or meshed)"
    first_order: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    voltages: ClassVar[tuple[str, ...]] = _Model.voltages
    model: ClassVar[type[RectangularModel]] = _Model


__all__ = ["Linearised"]
