"""The matrix of a Newton step, entry by entry: which coefficient times which value of the present point.

Every entry is a sum of terms, coefficient times value. Values are rows of one array: ones, the diagonal, and the
`Point`. Terms are sorted by entry once, so that the matrix is written in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.native import elimination
from lateral.solvers.native.lanes import WIDTH
from lateral.solvers.native.steps import StepProgram, same_row
from lateral.solvers.native.symbolic import Blocks, Symbolic

#: Added to primal and taken from dual diagonals.
REGULARISATION = 1e-11


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """What the matrix depends on.

    Attributes:
        squares, u, v: values of the affine parts of the products.
        mu: multipliers of the products.
        diagonal: barrier of the variables, shape (nv, T).
        slack: ``1 / D_s`` of the rows after the equalities; 0 for exact ones, shape (rows, T).
        f, g: values of the two factors of every pair of the quadratic rows.
        nu: multipliers of the quadratic rows.
        y_slope, z_slope, bend: derivatives of the curves; the last times its multiplier.
    """

    squares: FloatArray
    u: FloatArray
    v: FloatArray
    mu: FloatArray
    diagonal: FloatArray
    slack: FloatArray
    f: FloatArray
    g: FloatArray
    nu: FloatArray
    y_slope: FloatArray
    z_slope: FloatArray
    bend: FloatArray


#: Values of a point that terms multiply.
FACTORS = ("squares", "u", "v", "mu", "f", "g", "nu", "y_slope", "z_slope", "bend")


class Assembly:
    """The terms of every entry.

    Args:
        steps: the program.
        symbolic: its elimination.
        first: numbers of the first range, product, quadratic row and curve among the unknowns.
        blocks: what is written one by one. What a block's elimination adds to of later ones is written before all of
            them.
        threads: how many write at a time.
    """

    def __init__(
        self,
        steps: StepProgram,
        symbolic: Symbolic,
        first: tuple[int, int, int, int],
        blocks: Blocks,
        *,
        threads: int = 1,
    ) -> None:
        s, entry = steps, symbolic.entry
        self.steps, self.n_entries = steps, symbolic.n_entries
        self.nv, self.n = s.variables.n, len(symbolic.position)
        self.g_first, p_first, q_first, c_first = first
        one, two = same_row(s.squares.row, s.squares.row)
        lower = s.squares.col[one] >= s.squares.col[two]
        self._squares = one, two = one[lower], two[lower]
        self._uv = u, v = same_row(s.u.row, s.v.row)
        self._fg = f, g = same_row(s.pair_f.row, s.pair_g.row)
        self._lower_q = low_q = np.flatnonzero(s.q.row >= s.q.col)
        product = s.squares.row // s.width
        of_f, of_g = s.pair_f.row // s.pairs, s.pair_g.row // s.pairs
        curve = np.arange(s.curves.n)
        everything = np.arange(self.n)
        #: entry, the values that its coefficient multiplies, and which of them
        self.terms: list[tuple[IntArray, str, IntArray]] = [
            (entry(s.a.row + self.nv, s.a.col), "one", 0 * s.a.row),
            (entry(s.g.row + self.g_first, s.g.col), "one", 0 * s.g.row),
            (entry(s.q.row[low_q], s.q.col[low_q]), "one", 0 * low_q),
            (entry(s.pair_w.row + q_first, s.pair_w.col), "one", 0 * s.pair_w.row),
            (entry(product + p_first, s.squares.col), "squares", s.squares.row),
            (entry(s.u.row + p_first, s.u.col), "v", s.u.row),
            (entry(s.v.row + p_first, s.v.col), "u", s.v.row),
            (entry(s.squares.col[one], s.squares.col[two]), "mu", product[one]),
            (entry(s.u.col[u], s.v.col[v]), "mu", s.u.row[u]),
            (entry(of_f + q_first, s.pair_f.col), "g", s.pair_f.row),
            (entry(of_g + q_first, s.pair_g.col), "f", s.pair_g.row),
            (entry(s.pair_f.col[f], s.pair_g.col[g]), "nu", of_f[f]),
            (entry(curve + c_first, s.curve_y), "y_slope", curve),
            (entry(curve + c_first, s.curve_z), "z_slope", curve),
            (entry(s.curve_z, s.curve_z), "bend", curve),
            (entry(everything, everything), "diagonal", everything),
        ]
        targets = np.concatenate([t for t, _, _ in self.terms])
        # 1 and following: the block that an entry is in; 0: an earlier block adds to it, so there before all
        part = np.repeat(np.arange(1, len(blocks.entry)), np.diff(blocks.entry))
        part[blocks.carried] = 0
        entries = np.argsort(part, kind="stable")
        rank = np.empty_like(entries)
        rank[entries] = np.arange(self.n_entries)
        place = blocks.place.copy()
        place[blocks.carried] = blocks.at_carried + np.arange(len(blocks.carried))
        self._target = place[entries].astype(np.int32)
        #: where each part begins in ``_target``
        self._parts = np.searchsorted(part[entries], np.arange(len(blocks.entry) + 1))
        self._order = np.argsort(rank[targets], kind="stable")
        counts = np.bincount(targets, minlength=self.n_entries)[entries]
        self._ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.values: list[FloatArray] = [np.zeros((0, WIDTH))] * threads
        self.load()

    def load(self) -> None:
        """New numbers of the steps."""
        s, t = self.steps, self.steps.n_steps
        coefficients = self._coefficients()
        counts = {
            "one": 1,
            "diagonal": self.n,
            "squares": s.products.n * s.width,
            "u": s.products.n,
            "v": s.products.n,
            "mu": s.products.n,
            "f": s.quadratics.n * s.pairs,
            "g": s.quadratics.n * s.pairs,
            "nu": s.quadratics.n,
            "y_slope": s.curves.n,
            "z_slope": s.curves.n,
            "bend": s.curves.n,
        }
        edges = np.concatenate([[0], np.cumsum(list(counts.values()))])
        self._at = {name: slice(a, b) for name, a, b in zip(counts, edges[:-1], edges[1:], strict=True)}
        # coefficients that change from step to step are rows of their own, together with what they multiply
        at = int(edges[-1])
        self._varying: list[tuple[str, IntArray, FloatArray]] = []
        rows, numbers = [], []
        for (_, name, which), value in zip(self.terms, coefficients, strict=True):
            source = which + self._at[name].start
            if value.shape[1] == 1:
                rows.append(source)
                numbers.append(np.broadcast_to(value[:, 0], len(source)))
            else:
                own = np.arange(at, at + len(source))
                at += len(source)
                self._varying.append((name, which, value))
                rows.append(own)
                numbers.append(np.ones(len(source)))
        self._row = np.pad(np.concatenate(rows)[self._order], (0, elimination.AHEAD)).astype(np.int32)
        self._coefficient = np.concatenate(numbers)[self._order]
        #: where each of what is staged begins: the values of a point, one, the rows that vary
        self._first = np.array([*(self._at[name].start for name in FACTORS), self._at["one"].start, edges[-1]])
        #: values of one chunk of steps, of each thread
        self.values = [np.zeros((at, WIDTH)) for _ in self.values]
        self._one = np.ones((1, t))
        self._absent = 1.0 - s.data["present"]

    def _coefficients(self) -> list[FloatArray]:
        """Of every group of terms in their order, shape (terms, T) or (terms, 1)."""
        s = self.steps
        one, two = self._squares
        u, v = self._uv
        f, g = self._fg
        same_uv = (s.u.col[u] == s.v.col[v]).astype(float).reshape(-1, 1)
        same_fg = (s.pair_f.col[f] == s.pair_g.col[g]).astype(float).reshape(-1, 1)
        single = np.ones((1, 1))
        return [
            s.a.val,
            s.g.val,
            s.q.val[self._lower_q],
            s.pair_w.val,
            2.0 * s.squares.val,
            -s.u.val,
            -s.v.val,
            2.0 * s.squares.val[one] * s.squares.val[two],
            -s.u.val[u] * s.v.val[v] * (1.0 + same_uv),
            s.pair_f.val,
            s.pair_g.val,
            s.pair_f.val[f] * s.pair_g.val[g] * (1.0 + same_fg),
            single,
            single,
            single,
            single,
        ]

    def take(self, point: Point, extra: float) -> tuple[Any, ...]:
        """What `elimination.make` is to be given for the matrix at a point, with ``extra`` on the diagonal of the
        variables, and ``values`` of its thread."""
        varying = [v if name == "one" else v * getattr(point, name)[which] for name, which, v in self._varying]
        given = [*(getattr(point, name) for name in FACTORS), self._one, np.vstack([self._one[:0], *varying])]
        # of one type all of them, as the kernel is compiled for it
        rows = tuple(np.require(array, requirements=["C", "W"]) for array in given)
        on_diagonal = (point.diagonal, REGULARISATION + extra, self._absent, point.slack, REGULARISATION)
        terms = self._target, self._ptr, self._row, self._coefficient
        return (rows, self._first, on_diagonal, self._at["diagonal"].start, *terms, self._parts)


__all__ = ["REGULARISATION", "Assembly", "Point"]
