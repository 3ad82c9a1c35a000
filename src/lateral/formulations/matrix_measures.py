"""How good a relaxation of the matrix family is: losses that do not exist, and how far matrices are from rank one.

With e the first eigenvector of v~ and ``V~ = sqrt(lambda) e``, the current that the matrix says is ``I = X^H V/|V|^2``.
What L has beyond ``I I^H`` is no current; its losses ``diag(Z (L - I I^H))`` do not exist. They are the
``r (l - (P^2 + Q^2) / w)`` of one conductor. The rank of the matrices of buses and of ports between conductors is read
off the second largest eigenvalue, scaled, as a share of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lateral.formulations.hermitian import values
from lateral.formulations.matrix_pool import Group, Matrices
from lateral.formulations.matrix_ranges import Section
from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, FloatArray
from lateral.program import ProgramBuilder
from lateral.units import Base


def derive_measures(
    builder: ProgramBuilder, net: RadialNetwork, base: Base, sections: Sequence[Section], m: Matrices
) -> None:
    """Name the measures, and the squared currents of the legs.

    ``branch.relaxation_gap`` (pu, real part) and ``branch.relaxation_size`` (pu, size) are of the losses that do not
    exist, leg by leg; ``feed.relaxation_size`` is the drop ``diag(Z (L - I I^H) Z^H)`` behind a source's impedance that
    does not exist, pu^2; ``matrix.rank_ratio`` is of each matrix.
    """
    cells = m.pool.col.reshape(m.pool.shape)
    t = builder.n_steps
    feeds = [section for section in sections if not len(section.legs)]
    first = dict(zip((f.name for f in feeds), np.cumsum([0, *(len(f.s) for f in feeds)]).tolist(), strict=False))
    tie_legs = np.array(
        [sections[k].legs[leg] for k, leg in zip(m.tie_section, m.tie_leg, strict=True)], dtype=np.int64
    )

    def matrices(g: Group, x: FloatArray) -> ComplexArray:
        """Shape (b, T, h, h)."""
        return values(g.h, np.moveaxis(x[cells[g.places]], 1, 2))

    def excess(g: Group, x: FloatArray) -> ComplexArray:
        """``L - I I^H`` over i~, shape (b, T, k, k)."""
        h = matrices(g, x)
        size, vectors = np.linalg.eigh(h[..., : g.m, : g.m])
        v = vectors[..., -1] * np.sqrt(np.maximum(size[..., -1:], 1e-12))
        i = np.einsum("btmk,btm->btk", h[..., : g.m, g.m :].conj(), v) / np.maximum(size[..., -1:], 1e-12)
        return np.asarray(h[..., g.m :, g.m :] - i[..., :, None] * i[..., None, :].conj())

    def phantom(x: FloatArray) -> tuple[ComplexArray, FloatArray]:
        """Losses of the legs, and drops behind the sources, that do not exist."""
        lost = np.zeros((net.n_legs, t), dtype=complex)
        drop = np.zeros((sum(len(f.s) for f in feeds), t))
        for g in m.sections:
            if g.h == g.m:
                continue
            more = excess(g, x)
            zt = g.z @ g.t
            by_leg = np.einsum("bsk,btkl,bsl->bst", zt, more, g.t.conj())
            behind = np.einsum("bsk,btkl,bsl->bst", zt, more, zt.conj())
            for k, member in enumerate(g.members.tolist()):
                legs = sections[member].legs
                if len(legs):
                    lost[legs] = by_leg[k]
                else:
                    at = first[sections[member].name]
                    drop[at : at + len(behind[k])] = np.abs(behind[k])
        return lost, drop

    def currents(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
        out = np.zeros((net.n_legs, t))
        for g in m.sections:
            if g.h > g.m:
                i_sq = np.einsum("bsk,btkl,bsl->bst", g.t, matrices(g, x)[..., g.m :, g.m :], g.t.conj()).real
                for k, member in enumerate(g.members.tolist()):
                    if len(sections[member].legs):
                        out[sections[member].legs] = i_sq[k]
        s_sq = x[cells[m.tie_p]] ** 2 + x[cells[m.tie_q]] ** 2
        w = x[cells[net.to_node[tie_legs]]]
        out[tie_legs] = s_sq / np.maximum(w, 1e-9)
        return out

    # branches are measured by their losses: the rank of a matrix says nothing where next to no current flows
    groups = [g for g in (*m.deltas, *m.cores) if g.h > 1]

    def ranks(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
        parts = []
        for g in groups:
            scale = g.scale[:, None, :, None] * g.scale[:, None, None, :]
            size = np.sort(np.abs(np.linalg.eigvalsh(matrices(g, x) / scale)), axis=-1)
            parts.append(size[..., -2] / np.maximum(size[..., -1], 1e-12))
        return np.concatenate(parts) if parts else np.zeros((0, t))

    def gap(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
        return phantom(x)[0].real

    def size(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
        return np.asarray(np.abs(phantom(x)[0]))

    def behind(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
        return phantom(x)[1]

    amp = base.s_kva / net.v_base_kv[net.to_node]
    builder.derive("branch", "imag_sq", net.legs, currents, unit="A^2", to_unit=amp**2)
    builder.derive("branch", "relaxation_gap", net.legs, gap, unit="pu")
    builder.derive("branch", "relaxation_size", net.legs, size, unit="pu")
    if feeds:
        names = [f"{f.name}~{k}" for f in feeds for k in range(len(f.s))]
        builder.derive("behind", "relaxation_size", names, behind, unit="pu^2")
    if groups:
        builder.derive("matrix", "rank_ratio", [name for g in groups for name in g.names], ranks, unit="")


__all__ = ["derive_measures"]
