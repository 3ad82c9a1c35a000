"""The linear system of a Newton step: assembled, factored from the leaves to the root, storage by conjugate gradients.

::

    [ H + D    J'    C' ] [dx]         J: rows within a step     C: storage rows, which link steps
    [ J      -D_s^-1    ] [dy]         D: barrier of bounds      D_s: barrier of slacks (0 for equalities)
    [ C                 ] [eta]

Without C it falls apart into one tree per step: K. What is left on the storage rows, ``S = C K^-1 C'``, is applied
without being formed: from storage up to the root and back with small maps per node (`elimination.condense`,
`elimination.through`). It is preconditioned by its part within each storage, a tridiagonal matrix over time whose
entries come from the blocks of K^-1 at the storage's own node (`elimination.inverse_blocks`): the coupling in time is
exact, that between storages through the network is left to the iterations.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.native import elimination, kernels
from lateral.solvers.native.assembly import Assembly, Point
from lateral.solvers.native.lanes import WIDTH
from lateral.solvers.native.order import Order
from lateral.solvers.native.steps import Entries, StepProgram, same_row, step_pattern
from lateral.solvers.native.symbolic import Groups, analyse, blocks, group
from lateral.solvers.native.threads import Share, Threads

#: Most iterations of the conjugate gradients.
CG_LIMIT = 400
#: Numbers of storage rows that one thread takes at once.
SHARE = 100_000
#: Bytes of factors in double precision above which they are kept in single precision: they come from memory then, not
#: from the cache, and half as many bytes take half as long. They are made in double precision, so that what is lost is
#: a rounding of 6e-8 of every entry, less than what the conjugate gradients leave (`Kkt.widen`).
WIDE = 2**24
#: Entries of a block of the factor, which is assembled, eliminated, condensed and put away while it is in the cache:
#: 0.3 MB.
BLOCK = 5_000


class Kkt:
    """The matrix of one program, factored again and again."""

    def __init__(self, steps: StepProgram, order: Order, *, threads: int = 1) -> None:
        self.steps, self.n_steps = steps, steps.n_steps
        s, nv = steps, steps.variables.n
        self.nv = nv
        self.n_rows = int((s.row_of >= 0).sum())
        self.g_first = nv + self.n_rows
        self.p_first = self.g_first + s.ranges.n
        self.q_first = self.p_first + s.products.n
        self.c_first = self.q_first + s.quadratics.n
        self.n = self.c_first + s.curves.n
        self.n_links = int((s.link_of >= 0).sum())
        rows, cols = step_pattern(s)
        self.symbolic = sy = analyse(self.n, order.unknown, order.size, rows, cols)
        parts = blocks(sy, order.group, BLOCK)
        self._at_blocks = parts.pivot
        self._blocks = (*(_short(a) for a in (parts.pivot, parts.entry, parts.carried, parts.cptr)), parts.at_carried)
        firsts = (self.g_first, self.p_first, self.q_first, self.c_first)
        self.threads = Threads(threads, self.n_steps, self.n)
        self.assembly = Assembly(steps, sy, firsts, parts, threads=len(self.threads))
        self.n_chunks = self.threads.n_chunks
        #: whether factors are kept in single precision; not where the preconditioner is found by going through them
        #: again (`elimination.selected_inverse`), which takes all digits
        self.single = order.group is not None and self.n_chunks * sy.n_entries * WIDTH * 8 > WIDE
        self.factors = np.zeros((self.n_chunks * sy.n_entries, WIDTH), dtype=np.float32 if self.single else np.float64)
        self._room = self._lanes(parts.size)
        self._negative = np.zeros((self.n_chunks, WIDTH))
        self._place = _short(sy.position)
        first = sy.position[sy.unknown[:, 0]]
        self._pivots = tuple(_short(a) for a in (sy.size, first, sy.dpos, sy.lptr, sy.m, sy.sptr, sy.position[sy.srow]))
        self._updates = _short(sy.uptr), _short(sy.utgt)
        self._in_blocks = _short(sy.uptr), _short(parts.utgt)
        self._all = _short(np.arange(len(sy.size)))
        self._x = self._lanes(self.n)
        self._work = self._lanes(2 * sy.widest + 2)
        # where there are no groups there are no maps
        none = _short(np.zeros(0, dtype=np.int64))
        self._groups_at = np.zeros_like(parts.pivot)
        self._condensing: tuple[IntArray, ...] = (none, none.reshape(0, 2), *(none,) * 9)
        self.maps, self._n_maps, self._map_work = np.zeros((0, WIDTH)), 0, self._lanes(0)
        if self.n_links:
            self._chain(order)
        self.iterations = 0

    def _lanes(self, n: int) -> list[FloatArray]:
        """Room for n lanes for every thread."""
        return [np.zeros((n, WIDTH)) for _ in range(len(self.threads))]

    def _chain(self, order: Order) -> None:
        """What the storage rows need: which variables they touch, and how to get from those to those."""
        s, sy = self.steps, self.symbolic
        linked = np.unique(np.concatenate([s.now.col, s.before.col]))
        loose = np.intersect1d(linked, order.loose)
        touched = np.setdiff1d(linked, loose)
        #: variables of the storage rows: those that the network reaches, then those that only storage rows touch
        self._linked = np.concatenate([touched, loose])
        self._n_touched = len(touched)
        place = np.full(self.nv, -1)
        place[self._linked] = np.arange(len(self._linked))
        edges = np.linspace(0, self.n_links, 2 + self.n_links * self.n_steps // SHARE).astype(np.int64)
        self._link_shares = list(itertools.pairwise(edges.tolist()))
        self._of_linked = np.zeros((len(self._linked), self.n_steps))
        self._product, self._along, self._turned, self._diagonal, self._beside = (
            np.zeros((self.n_links, self.n_steps)) for _ in range(5)
        )
        self._now, self._before = place[s.now.col], place[s.before.col]
        self._loose = loose
        self._at_loose = _short(sy.entry(loose, loose))
        self._places = _short(sy.position[touched])
        self._between = _short(sy.above(touched))
        if order.group is None:
            self.groups: Groups | None = None
            self._touched = self._places
            flat = sy.unknown[self._between].reshape(-1)
            self._reached = _short(sy.position[flat[flat >= 0]])
            self._inverse = self._lanes(sy.n_entries)
        else:
            self.groups = gr = group(sy, order.group, touched)
            self._groups_at = np.searchsorted(gr.first, self._at_blocks)
            self._n_maps = int(gr.mptr[-1])
            self.maps = np.zeros((self.n_chunks * self._n_maps, WIDTH))
            entry_of = np.full(self.n, -1)
            entry_of[gr.entry] = np.arange(len(gr.entry))
            self._touched = _short(entry_of[touched])
            exits = gr.eptr[np.repeat(gr.parent, gr.n_out)] + gr.xentry
            self._paths = tuple(_short(a) for a in (gr.n_in, gr.n_out, gr.eptr, gr.mptr, exits, gr.xptr))
            self._condensing = tuple(
                _short(a)
                for a in (
                    gr.local,
                    gr.plocal,
                    gr.first,
                    gr.last,
                    gr.n_in,
                    gr.n_out,
                    gr.n_own,
                    gr.eptr,
                    gr.elocal,
                    gr.epivot,
                    gr.mptr,
                )
            )
            self._blocks_of = tuple(
                _short(a) for a in (gr.n_in, gr.n_out, gr.eptr, gr.mptr, gr.zptr, gr.xptr, gr.xentry, gr.parent)
            )
            self._map_work = self._lanes(gr.widest + 1)
            self._up, self._down = self._lanes(len(gr.entry)), self._lanes(len(gr.entry))
            self._inverse = self._lanes(int(gr.zptr[-1]))
        find = self._entry_terms if self.groups is None else self._block_terms
        pairs = [find(x, y, loose) for x, y in ((s.now, s.now), (s.before, s.before), (s.before, s.now))]
        wanted = np.unique(np.concatenate([block[block >= 0] for *_, block in pairs]))
        self._wanted = _short(wanted)
        self._inverse_entries = np.zeros((len(wanted) + len(loose), self.n_steps))
        self._wanted_inverse, self._loose_inverse = np.split(self._inverse_entries, [len(wanted)])
        # of each pair of coefficients: which of the rows of (wanted inverse, inverse of loose ones)
        self._within = []
        for a, b, row, at, block in pairs:
            by_row = np.argsort(row, kind="stable")  # threads share them by rows
            of = np.where(at >= 0, len(wanted) + at, np.searchsorted(wanted, block))
            self._within.append((a[by_row], b[by_row], row[by_row], of[by_row]))

    def load(self) -> None:
        """New numbers of the steps."""
        self.assembly.load()

    def widen(self) -> None:
        """Keep factors in double precision from now on."""
        self.single, self.factors = False, np.zeros(self.factors.shape)

    # -- the part within steps ----------------------------------------------------------------------------------------

    def factor(self, point: Point, *, extra: float = 0.0, links: bool = False, right: FloatArray | None = None) -> bool:
        """Assemble and eliminate; True when every step has as many negative eigenvalues as rows.

        All of it chunk by chunk and block by block, as a block is still in the cache when it is gone through again.

        Args:
            point: where.
            extra: added to the diagonal of the variables, against negative curvature.
            links: whether storage rows are to be solved for, so that their maps and entries of the inverse are wanted.
            right: with ``links``, the right-hand side that `solve` is given first, for the same reason.
        """
        sy, assembly = self.symbolic, self.assembly.take(point, extra)
        self._negative[:] = 0.0
        links = links and self.n_links > 0
        groups_at = self._groups_at if links else np.zeros_like(self._groups_at)

        def one(k: int, c: int) -> None:
            elimination.make(
                self.factors, self._room[k], self.maps, self._n_maps, self._blocks, self._pivots, self._in_blocks,
                self._negative, self._work[k], groups_at, self._condensing, self._map_work[k], assembly,
                self.assembly.values[k], c,
            )  # fmt: skip
            if links:
                self._select(k, c)
            if links and right is not None:
                elimination.reach(*self._reaching(right), self._x[k], c, c + 1)

        self.threads.each(one)
        negative = self._negative.reshape(-1)[: self.n_steps]
        last = self.entries(sy.dpos[-1:])
        return bool(np.all(negative == self.n - self.nv)) and bool(np.isfinite(last).all())

    def _select(self, k: int, c: int) -> None:
        """Of chunk c, by thread k: the entries of the inverse that `prepare_links` wants."""
        sy, gr = self.symbolic, self.groups
        elimination.extract(self.factors, sy.n_entries, self._at_loose, self._loose_inverse, c, c + 1)
        if gr is None:
            size, _, dpos, lptr, m, *_ = self._pivots
            elimination.selected_inverse(
                self.factors, sy.n_entries, self._wanted_inverse, self._wanted, self._between, size, dpos, lptr,
                m, *self._updates, self._inverse[k], self._work[k], c, c + 1,
            )  # fmt: skip
            return
        elimination.inverse_blocks(
            self.maps, self._n_maps, self._wanted_inverse, self._wanted, *self._blocks_of, self._inverse[k],
            self._map_work[k], c, c + 1,
        )  # fmt: skip

    def entries(self, at: IntArray) -> FloatArray:
        """Some entries of what is factored, shape (entries, T)."""
        out = np.empty((len(at), self.n_steps))
        elimination.extract(self.factors, self.symbolic.n_entries, _short(at), out, 0, self.n_chunks)
        return out

    def within(self, r: FloatArray) -> FloatArray:
        """``K^-1 r`` in place, r of shape (unknowns, T)."""
        self.threads.chunks(
            elimination.reach, self.factors, self.symbolic.n_entries, r, self._place, self._place, r, self._all,
            self._all, *self._pivots, self._x,
        )  # fmt: skip
        return r

    # -- storage ------------------------------------------------------------------------------------------------------

    def links(self, x: FloatArray) -> FloatArray:
        """``C x``, shape (links, T)."""
        return self._links(x[self._linked])

    def _links(self, x: FloatArray) -> FloatArray:
        """``C x`` of the linked variables alone."""
        s = self.steps
        out = np.zeros((self.n_links, self.n_steps))
        n = len(self._now)
        kernels.add_product(out, s.now.by_row, s.now.row, self._now, s.now.val, x, 0, n)
        kernels.add_earlier(out, s.before.row, self._before, s.before.val, x)
        return out

    def links_transposed(self, y: FloatArray, out: FloatArray) -> FloatArray:
        """``C' y`` added to ``out``, whose first rows are the variables."""
        out[self._linked] += self._links_transposed(y)
        return out

    def _links_transposed(self, y: FloatArray) -> FloatArray:
        s = self.steps
        out = np.zeros((len(self._linked), self.n_steps))
        n = len(self._now)
        kernels.add_product(out, s.now.by_row, self._now, s.now.row, s.now.val, y, 0, n)
        kernels.add_later(out, self._before, s.before.row, s.before.val, y)
        return out

    def prepare_links(self) -> bool:
        """The preconditioner of the storage rows, from entries of K^-1 that `factor` found; False when it is not
        positive."""
        s, diagonal, beside = self.steps, self._diagonal, self._beside
        # coefficients of a row at its own step, those of the step before, and both: what they add to, and how far back
        # the entry of the inverse is, and the row
        kinds = ((s.now, s.now, diagonal, 0, 0), (s.before, s.before, diagonal, 1, 0), (s.before, s.now, beside, 1, 1))

        def own(mine: Share) -> int:
            first, last = mine.of(self.n_links)
            diagonal[first:last] = beside[first:last] = 0.0
            for (a, b, row, at), (x, y, out, back, before) in zip(self._within, kinds, strict=True):
                k = slice(int(np.searchsorted(row, first)), int(np.searchsorted(row, last)))
                kernels.add_terms(out, row[k], x.val, a[k], y.val, b[k], self._inverse_entries, at[k], back, before)
            return int(kernels.tridiagonal_factor(diagonal, beside, first, last))

        return not any(self.threads.shares(own))

    def _block_terms(self, x: Entries, y: Entries, loose: IntArray) -> tuple[IntArray, ...]:
        """Pairs of coefficients of one storage row whose variables share an entry of K^-1 that is at hand: which two,
        the row, the number of the loose variable or -1, the entry in the groups' blocks or -1."""
        a, b = same_row(x.row, y.row)
        number = np.full(self.nv, -1)
        number[loose] = np.arange(len(loose))
        gr = self.groups
        assert gr is not None
        of, nth = np.full(self.n, -1), np.zeros(self.n, dtype=np.int64)
        of[gr.entry] = np.repeat(np.arange(len(gr.n_in)), gr.n_in)
        nth[gr.entry] = np.arange(len(gr.entry)) - np.repeat(gr.eptr[:-1], gr.n_in)
        i, j = x.col[a], y.col[b]
        alone = (i == j) & (number[i] >= 0)
        together = (of[i] == of[j]) & (of[i] >= 0)
        kept = alone | together
        a, b, i, j, alone = a[kept], b[kept], i[kept], j[kept], alone[kept]
        high, low = np.maximum(nth[i], nth[j]), np.minimum(nth[i], nth[j])
        block = np.where(alone, -1, gr.zptr[of[i]] + high * (high + 1) // 2 + low)
        return a, b, x.row[a], np.where(alone, number[i], -1), block

    def _entry_terms(self, x: Entries, y: Entries, loose: IntArray) -> tuple[IntArray, ...]:
        """The same where K^-1 is known by entries of the factor's pattern, which has all of these pairs."""
        a, b = same_row(x.row, y.row)
        number = np.full(self.nv, -1)
        number[loose] = np.arange(len(loose))
        alone = (x.col[a] == y.col[b]) & (number[x.col[a]] >= 0)
        block = np.where(alone, -1, self.symbolic.entry(x.col[a], y.col[b]))
        return a, b, x.row[a], np.where(alone, number[x.col[a]], -1), block

    def _apply(self, p: FloatArray, z: FloatArray, factor: float) -> tuple[FloatArray, float]:
        """The next direction ``p = z + factor p``, in place; ``S p``, and ``p S p``."""
        s, sy, gr, w, q = self.steps, self.symbolic, self.groups, self._of_linked, self._product
        rows = (s.now.by_row, s.now.row, self._now, s.now.val, s.before.row, self._before, s.before.val)
        kernels.to_linked(w, p, z, factor, *rows, self._loose_inverse)
        reached = w[: self._n_touched]
        if gr is None:
            self.threads.chunks(
                elimination.between, self.factors, sy.n_entries, reached, self._touched, self._reached, self._between,
                *self._pivots, self._x,
            )  # fmt: skip
        else:
            self.threads.chunks(
                elimination.through, self.maps, self._n_maps, reached, self._touched, *self._paths, self._up,
                self._down,
            )  # fmt: skip
        return q, float(kernels.from_linked(q, w, p, *rows))

    def _reaching(self, r: FloatArray) -> tuple[Any, ...]:
        """For `elimination.reach`: of ``K^-1 r``, what storage rows touch."""
        return (
            self.factors, self.symbolic.n_entries, r, self._place, self._places, self._of_linked[: self._n_touched],
            self._all, self._between, *self._pivots,
        )  # fmt: skip

    def solve(
        self, r: FloatArray, links: FloatArray, *, tolerance: float = 1e-8, first: bool = False
    ) -> tuple[FloatArray, FloatArray, bool]:
        """The whole system; ``prepare_links`` came first, and r is overwritten.

        Args:
            r: right-hand side of variables and rows, shape (unknowns, T).
            links: right-hand side of the storage rows.
            tolerance: of the conjugate gradients, relative, in the preconditioned norm. What they leave is left of the
                storage rows alone.
            first: whether `factor` was given this r.

        Returns:
            unknowns, multipliers of the storage rows, and False when S was found not positive.
        """
        if not self.n_links:
            return self.within(r), np.zeros((0, self.n_steps)), True
        x = self._of_linked
        if not first:
            self.threads.chunks(elimination.reach, *self._reaching(r), self._x)
        np.multiply(r[self._loose], self._loose_inverse, out=x[self._n_touched :])
        residual = self._links(x)
        residual -= links
        eta, p, z = np.zeros_like(residual), self._along, self._turned
        p.fill(0.0)
        step = beside = 0.0

        def descend(along: FloatArray, step: float) -> float:
            chain = self._diagonal, self._beside
            jobs = [(*rows, eta, residual, p, along, step, *chain, z) for rows in self._link_shares]
            return float(sum(self.threads.some(kernels.descend, jobs)))

        rz = descend(p, step)
        at_first, positive = abs(rz), True
        for _ in range(CG_LIMIT):
            if not abs(rz) > tolerance**2 * at_first:
                break
            q, curvature = self._apply(p, z, beside)
            if not curvature > 0.0:
                positive = False
                break
            self.iterations += 1
            step = rz / curvature
            new = descend(q, step)
            rz, beside = new, new / rz
        r[self._linked] -= self._links_transposed(eta)
        return self.within(r), eta, positive


def _short(indices: IntArray) -> IntArray:
    """Indices as the kernels read them, half as wide."""
    return np.ascontiguousarray(indices, dtype=np.int32)


__all__ = ["Kkt"]
