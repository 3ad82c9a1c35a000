"""Complex arrays of the rectangular family: affine voltages and currents, ports as matrices, flows of legs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, IntArray
from lateral.program import Affine
from lateral.program.ports import Ports


@dataclass(frozen=True, slots=True, eq=False)
class Complex:
    """A complex affine array: real and imaginary part, each of shape (n, T)."""

    re: Affine
    im: Affine

    def map(self, m: int, out: IntArray, source: IntArray, weight: ComplexArray) -> Complex:
        """Element ``out_k`` gets ``weight_k`` (complex, or (K, T)) times element ``source_k``."""
        if np.isrealobj(weight) or not np.any(weight.imag):
            real = np.asarray(weight.real)
            return Complex(self.re.map_terms(m, out, source, real), self.im.map_terms(m, out, source, real))
        g, b = np.asarray(weight.real), np.asarray(weight.imag)
        has = np.flatnonzero(g) if g.ndim == 1 else np.arange(len(g))
        re = self.re.map_terms(m, out[has], source[has], g[has]) + self.im.map_terms(m, out, source, -b)
        im = self.im.map_terms(m, out[has], source[has], g[has]) + self.re.map_terms(m, out, source, b)
        return Complex(re, im)

    def take(self, elements: IntArray) -> Complex:
        """The elements named."""
        return Complex(self.re.take(elements), self.im.take(elements))

    def __add__(self, other: Complex) -> Complex:
        return Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Complex) -> Complex:
        return Complex(self.re - other.re, self.im - other.im)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Voltages of the kept nodes of a network, and ports between them.

    Attributes:
        v: the voltages.
        kept: which nodes these are, ascending.
        n: number of all nodes.
    """

    v: Complex
    kept: IntArray
    n: int

    @property
    def place(self) -> IntArray:
        """Position of each node among the kept ones, -1 for none, shape (n,)."""
        out = np.full(self.n, -1)
        out[self.kept] = np.arange(len(self.kept))
        return out

    def across(self, ports: Ports) -> Complex:
        """U = M V across ports."""
        place = self.place
        k = np.arange(len(ports))
        two = ports.b >= 0
        out = np.concatenate([k, k[two]])
        source = np.concatenate([place[ports.a], place[ports.b[two]]])
        sign = np.concatenate([np.ones(len(k)), -np.ones(int(two.sum()))])
        return self.v.map(len(ports), out, source, sign)

    def to_nodes(self, ports: Ports, current: Complex) -> Complex:
        """M' I at the nodes."""
        place = self.place
        k = np.arange(len(ports))
        two = ports.b >= 0
        out = np.concatenate([place[ports.a], place[ports.b[two]]])
        source = np.concatenate([k, k[two]])
        sign = np.concatenate([np.ones(len(k)), -np.ones(int(two.sum()))])
        return current.map(len(self.kept), out, source, sign)


@dataclass(frozen=True, slots=True, eq=False)
class LegFlows:
    """Power into the series impedance of every leg from node voltages: ``S = W conj(I)``, ``I = Z^+ (W - V_s)``."""

    ideal: sparse.csr_matrix
    pick: IntArray
    admittance: sparse.csr_matrix

    @classmethod
    def of(cls, net: RadialNetwork) -> LegFlows:
        """The flows of a network's legs."""
        k, n = net.n_legs, net.n_nodes
        ideal = sparse.csr_matrix((net.a_val, (net.a_leg, net.a_node)), shape=(k, n))
        rows, cols, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=complex)]
        order = np.argsort(net.branch[net.z_row], kind="stable")
        of_entry = net.branch[net.z_row][order]
        count = np.bincount(net.branch, minlength=len(net.branch_names))
        first = np.searchsorted(net.branch, np.arange(len(net.branch_names)))
        for size in np.unique(count[count > 0]):
            own = np.flatnonzero(count == size)
            place = np.full(len(count), -1)
            place[own] = np.arange(len(own))
            e = order[place[of_entry] >= 0]
            b = place[net.branch[net.z_row[e]]]
            z = np.zeros((len(own), size, size), dtype=complex)
            z[b, net.z_row[e] - first[own][b], net.z_col[e] - first[own][b]] = net.z_val[e]
            y = np.linalg.pinv(z, rcond=1e-12)
            i, j = np.divmod(np.arange(size * size), size)
            rows.append((first[own][:, None] + i).ravel())
            cols.append((first[own][:, None] + j).ravel())
            values.append(y.reshape(len(own), -1).ravel())
        admittance = sparse.csr_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))), shape=(k, k)
        )
        return cls(ideal, net.to_node, admittance)

    def power(self, v: ComplexArray) -> ComplexArray:
        """S of every leg, shape (K, T)."""
        w = self.ideal @ v
        power: ComplexArray = w * np.conj(self.admittance @ (w - v[self.pick]))
        return power


@dataclass(frozen=True, slots=True, eq=False)
class Through:
    """Power through branches, ``S = sum W conj(I)`` over the rows of a branch, as `Result.loading` has it.

    Attributes:
        branch: branch of each row, shape (m,).
        w: voltage behind the ideal part, over the nodes, shape (m, n).
        i: current into the series impedance, likewise.
    """

    branch: IntArray
    w: sparse.csr_matrix
    i: sparse.csr_matrix

    @classmethod
    def of(cls, net: RadialNetwork, legs: LegFlows) -> Through:
        """Of every leg of a network."""
        k = np.arange(len(legs.pick))
        ends = sparse.csr_matrix((np.ones(len(k)), (k, legs.pick)), shape=legs.ideal.shape)
        return cls(net.branch, legs.ideal, (legs.admittance @ (legs.ideal - ends)).tocsr())

    def with_other(self, other: Through) -> Through:
        """The rows of ``other`` in place of those of its branches, over its nodes, of which it has more at the end."""
        keep = np.flatnonzero(~np.isin(self.branch, other.branch))
        shape = (len(keep), other.w.shape[1])
        own = [sparse.csr_matrix((m.data, m.indices, m.indptr), shape=shape) for m in (self.w[keep], self.i[keep])]
        w, i = (sparse.vstack([a, b], format="csr") for a, b in zip(own, (other.w, other.i), strict=True))
        return Through(np.concatenate([self.branch[keep], other.branch]), w, i)

    def at(self, v: ComplexArray, n_branches: int) -> ComplexArray:
        """S of every branch at voltages of the nodes, shape (branches, T)."""
        out = np.zeros((n_branches, v.shape[1]), dtype=complex)
        np.add.at(out, self.branch, (self.w @ v) * np.conj(self.i @ v))
        return out


def entries(matrix: sparse.spmatrix) -> tuple[IntArray, IntArray, ComplexArray]:
    """(row, column, value) of a sparse matrix."""
    coo = matrix.tocoo()
    return coo.row.astype(np.int64), coo.col.astype(np.int64), coo.data


def incidence(ports: Ports, n: int) -> sparse.csr_matrix:
    """M with U = M V, shape (ports, n)."""
    k = np.arange(len(ports))
    two = ports.b >= 0
    signs = np.concatenate([np.ones(len(k)), -np.ones(int(two.sum()))])
    return sparse.csr_matrix(
        (signs, (np.concatenate([k, k[two]]), np.concatenate([ports.a, ports.b[two]]))), shape=(len(k), n)
    )


__all__ = ["Complex", "Kept", "LegFlows", "Through", "entries", "incidence"]
