"""Affine arrays: vectorised linear expressions over the variables and parameters of a program.

An `Affine` has a shape (n, T): elements by steps, step contiguous. Cell (i, t) is

    const[i, t] + sum_k val_k * x[col_k]             variable terms
                + sum_k val_k * theta[par_k]         parameter terms
                + sum_k val_k * x[col_k] theta[par_k]   both, where a coefficient follows the data

It is stored as flat coordinate arrays; no per-scalar object exists. Parameters (theta) are the data slots of a
`Program`: loads, prices, bounds, initial state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from lateral.network.schema import FloatArray, IntArray

_NO_INT = np.zeros(0, dtype=np.int64)
_NO_FLOAT = np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A linear expression of shape (n, T); see the module's text.

    Attributes:
        n: number of elements.
        n_steps: number of steps T.
        row: flat cell index ``i T + t`` of each term.
        col: variable of each term, -1 for none.
        par: parameter of each term, -1 for none.
        val: coefficient of each term.
        const: constant part, flat, shape (n T,).
    """

    n: int
    n_steps: int
    row: IntArray
    col: IntArray
    par: IntArray
    val: FloatArray
    const: FloatArray

    #: numpy leaves ``array + affine`` and ``array * affine`` to this class
    __array_ufunc__: ClassVar[None] = None

    # -- makers ---------------------------------------------------------------------------------------------------

    @classmethod
    def constant(cls, values: FloatArray) -> Affine:
        """A constant of shape (n, T)."""
        values = np.asarray(values, dtype=float)
        n, n_steps = values.shape
        return cls(n, n_steps, _NO_INT, _NO_INT, _NO_INT, _NO_FLOAT, values.reshape(-1).copy())

    @classmethod
    def zeros(cls, n: int, n_steps: int) -> Affine:
        """Zero of shape (n, T)."""
        return cls.constant(np.zeros((n, n_steps)))

    @classmethod
    def of_variables(cls, start: int, n: int, n_steps: int) -> Affine:
        """The variables ``start ... start + n T - 1`` as an array."""
        size = n * n_steps
        cells = np.arange(size)
        return cls(n, n_steps, cells, cells + start, np.full(size, -1), np.ones(size), np.zeros(size))

    @classmethod
    def of_parameters(cls, start: int, n: int, n_steps: int) -> Affine:
        """The parameters ``start ... start + n T - 1`` as an array."""
        size = n * n_steps
        cells = np.arange(size)
        return cls(n, n_steps, cells, np.full(size, -1), cells + start, np.ones(size), np.zeros(size))

    # -- shape ----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(n, T)."""
        return self.n, self.n_steps

    @property
    def is_constant(self) -> bool:
        """True when no variable enters (parameters may)."""
        return bool(np.all(self.col < 0))

    # -- algebra --------------------------------------------------------------------------------------------------

    def __add__(self, other: Affine | FloatArray | float) -> Affine:
        if not isinstance(other, Affine):
            const = self.const + np.broadcast_to(np.asarray(other, dtype=float), self.shape).reshape(-1)
            return Affine(self.n, self.n_steps, self.row, self.col, self.par, self.val, const)
        if other.shape != self.shape:
            message = f"affine arrays of shapes {self.shape} and {other.shape} cannot be added"
            raise ValueError(message)
        return Affine(
            self.n,
            self.n_steps,
            np.concatenate([self.row, other.row]),
            np.concatenate([self.col, other.col]),
            np.concatenate([self.par, other.par]),
            np.concatenate([self.val, other.val]),
            self.const + other.const,
        )

    __radd__ = __add__

    def __neg__(self) -> Affine:
        return Affine(self.n, self.n_steps, self.row, self.col, self.par, -self.val, -self.const)

    def __sub__(self, other: Affine | FloatArray | float) -> Affine:
        return self + (-other)

    def __rsub__(self, other: FloatArray | float) -> Affine:
        return (-self) + other

    def __mul__(self, factor: FloatArray | float) -> Affine:
        """Multiply by numbers that broadcast to (n, T)."""
        if np.ndim(factor) == 0:
            number = float(factor)
            return Affine(self.n, self.n_steps, self.row, self.col, self.par, self.val * number, self.const * number)
        cells = np.broadcast_to(np.asarray(factor, dtype=float), self.shape).reshape(-1)
        return Affine(
            self.n, self.n_steps, self.row, self.col, self.par, self.val * cells[self.row], self.const * cells
        )

    __rmul__ = __mul__

    def __truediv__(self, factor: FloatArray | float) -> Affine:
        return self * (1.0 / np.asarray(factor, dtype=float) if np.ndim(factor) else 1.0 / float(factor))

    def times_parameter(self, parameter: Affine) -> Affine:
        """Cell by cell product with an array of parameters (each cell of it one parameter times a number, or a number).

        Raises:
            ValueError: when this array already depends on parameters where ``parameter`` does, or shapes differ.
        """
        if parameter.shape != self.shape:
            message = f"affine arrays of shapes {self.shape} and {parameter.shape} cannot be multiplied"
            raise ValueError(message)
        parts = [self * parameter.const.reshape(self.shape)]
        if len(parameter.row):
            if np.any(self.par >= 0):
                message = "a product of two parameters is not affine in the data"
                raise ValueError(message)
            order = np.argsort(parameter.row, kind="stable")
            prow, ppar, pval = parameter.row[order], parameter.par[order], parameter.val[order]
            first = np.searchsorted(prow, np.arange(self.n * self.n_steps + 1))
            count = np.diff(first)
            # every own term meets every parameter term of its cell
            reps = count[self.row]
            take = _ranges(first[self.row], reps)
            own = np.repeat(np.arange(len(self.row)), reps)
            cell = np.repeat(np.arange(self.n * self.n_steps), count)
            nonzero = self.const[cell] != 0.0
            parts.append(
                Affine(
                    self.n,
                    self.n_steps,
                    np.concatenate([self.row[own], cell[nonzero]]),
                    np.concatenate([self.col[own], np.full(int(nonzero.sum()), -1)]),
                    np.concatenate([ppar[take], ppar[nonzero]]),
                    np.concatenate([self.val[own] * pval[take], self.const[cell[nonzero]] * pval[nonzero]]),
                    np.zeros(self.n * self.n_steps),
                )
            )
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def map(self, matrix: sp.sparray | sp.spmatrix) -> Affine:
        """Apply a matrix (m, n) to the element axis, the same at every step: shape (m, T)."""
        coo = sp.coo_array(matrix)
        rows, cols = coo.coords
        return self.map_terms(coo.shape[0], rows.astype(np.int64), cols.astype(np.int64), coo.data)

    def map_terms(self, m: int, out: IntArray, source: IntArray, weight: FloatArray) -> Affine:
        """New element ``out_k`` gets ``weight_k`` times element ``source_k``; shape (m, T).

        Args:
            m: number of elements of the result.
            out: element of the result, shape (K,).
            source: element of this array, shape (K,).
            weight: shape (K,), or (K, T) when it changes over time.
        """
        t_count = self.n_steps
        weight = np.asarray(weight, dtype=float)
        over_time = weight.ndim == 2
        source = np.asarray(source)
        if len(source) == self.n and not over_time and np.array_equal(source, np.arange(self.n)):
            return self._moved(m, np.asarray(out), weight)
        order = np.argsort(source, kind="stable")
        out_s, weight_s = np.asarray(out)[order], weight[order]
        first = np.searchsorted(source[order], np.arange(self.n + 1))
        count = np.diff(first)

        def spread(cells: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
            element, step = cells // t_count, cells % t_count
            reps = count[element]
            take = _ranges(first[element], reps)
            own = np.repeat(np.arange(len(cells)), reps)
            factor = weight_s[take, step[own]] if over_time else weight_s[take]
            return own, out_s[take] * t_count + step[own], factor

        own, row, factor = spread(self.row)
        const = np.zeros(m * t_count)
        nonzero = np.flatnonzero(self.const)
        if len(nonzero):
            k, cell, f = spread(nonzero)
            np.add.at(const, cell, self.const[nonzero[k]] * f)
        return Affine(m, t_count, row, self.col[own], self.par[own], self.val[own] * factor, const)

    def _moved(self, m: int, out: IntArray, weight: FloatArray) -> Affine:
        """`map_terms` where every element has one place to go: no term is copied or looked up."""
        element, step = np.divmod(self.row, self.n_steps)
        const = np.zeros((m, self.n_steps))
        if np.any(self.const):
            np.add.at(const, out, self.const.reshape(self.shape) * weight.reshape(-1, 1))
        row = out[element] * self.n_steps + step
        return Affine(m, self.n_steps, row, self.col, self.par, self.val * weight[element], const.reshape(-1))

    def take(self, elements: IntArray) -> Affine:
        """The elements named, in that order (may repeat): shape (len(elements), T)."""
        elements = np.asarray(elements, dtype=np.int64)
        return self.map_terms(len(elements), np.arange(len(elements)), elements, np.ones(len(elements)))

    def sum_elements(self) -> Affine:
        """Sum over elements: shape (1, T)."""
        return Affine(
            1,
            self.n_steps,
            self.row % self.n_steps,
            self.col,
            self.par,
            self.val,
            self.const.reshape(self.shape).sum(axis=0),
        )

    def sum_steps(self) -> Affine:
        """Sum over steps: shape (n, 1)."""
        return Affine(
            self.n,
            1,
            self.row // self.n_steps,
            self.col,
            self.par,
            self.val,
            self.const.reshape(self.shape).sum(axis=1),
        )

    def sum(self) -> Affine:
        """Sum over everything: shape (1, 1)."""
        return Affine(1, 1, np.zeros_like(self.row), self.col, self.par, self.val, np.array([self.const.sum()]))

    def at_steps(self, steps: IntArray) -> Affine:
        """The steps named, in that order: shape (n, len(steps)); each step at most once."""
        steps = np.asarray(steps, dtype=np.int64)
        place = np.full(self.n_steps, -1)
        place[steps] = np.arange(len(steps))
        new = place[self.row % self.n_steps]
        keep = new >= 0
        return Affine(
            self.n,
            len(steps),
            (self.row // self.n_steps * len(steps) + new)[keep],
            self.col[keep],
            self.par[keep],
            self.val[keep],
            self.const.reshape(self.shape)[:, steps].reshape(-1),
        )

    def spread_steps(self, n_steps: int, steps: IntArray) -> Affine:
        """Place this array's steps at the steps named of a longer axis, zero elsewhere: shape (n, n_steps)."""
        steps = np.asarray(steps, dtype=np.int64)
        const = np.zeros((self.n, n_steps))
        const[:, steps] = self.const.reshape(self.shape)
        row = self.row // self.n_steps * n_steps + steps[self.row % self.n_steps]
        return Affine(self.n, n_steps, row, self.col, self.par, self.val, const.reshape(-1))

    def pick(self, elements: IntArray, steps: IntArray) -> Affine:
        """Single cells (element, step), each at most once: shape (len(elements), 1)."""
        place = np.full(self.n * self.n_steps, -1)
        cells = np.asarray(elements, dtype=np.int64) * self.n_steps + np.asarray(steps, dtype=np.int64)
        place[cells] = np.arange(len(cells))
        new = place[self.row]
        keep = new >= 0
        return Affine(len(cells), 1, new[keep], self.col[keep], self.par[keep], self.val[keep], self.const[cells])

    def put(self, n: int, n_steps: int, elements: IntArray, steps: IntArray) -> Affine:
        """This array of shape (k, 1) as cells of one of shape (n, n_steps), zero elsewhere; the inverse of `pick`."""
        cells = np.asarray(elements, dtype=np.int64) * n_steps + np.asarray(steps, dtype=np.int64)
        const = np.zeros(n * n_steps)
        const[cells] = self.const
        return Affine(n, n_steps, cells[self.row], self.col, self.par, self.val, const)

    def repeat_steps(self, n_steps: int) -> Affine:
        """The one step of an array of shape (n, 1) at every step of a longer axis: shape (n, n_steps)."""
        every = np.arange(n_steps)
        row = (self.row[:, None] * n_steps + every).reshape(-1)
        col, par = np.repeat(self.col, n_steps), np.repeat(self.par, n_steps)
        return Affine(self.n, n_steps, row, col, par, np.repeat(self.val, n_steps), np.repeat(self.const, n_steps))

    def value(self, x: FloatArray, theta: FloatArray) -> FloatArray:
        """The numbers at a point, shape (n, T)."""
        term = self.val.copy()
        with_x, with_p = self.col >= 0, self.par >= 0
        term[with_x] *= x[self.col[with_x]]
        term[with_p] *= theta[self.par[with_p]]
        total = self.const + np.bincount(self.row, weights=term, minlength=len(self.const))
        return total.reshape(self.shape)


def stack(parts: list[Affine]) -> Affine:
    """Affine arrays below each other: shape (sum n, T).

    Raises:
        ValueError: the arrays differ in their number of steps.
    """
    n_steps = parts[0].n_steps
    if any(p.n_steps != n_steps for p in parts):
        message = f"affine arrays of {sorted({p.n_steps for p in parts})} steps cannot be stacked"
        raise ValueError(message)
    offsets = np.cumsum([0] + [p.n * n_steps for p in parts])
    return Affine(
        sum(p.n for p in parts),
        n_steps,
        np.concatenate([p.row + o for p, o in zip(parts, offsets[:-1], strict=True)]),
        np.concatenate([p.col for p in parts]),
        np.concatenate([p.par for p in parts]),
        np.concatenate([p.val for p in parts]),
        np.concatenate([p.const for p in parts]),
    )


def _ranges(start: IntArray, count: IntArray) -> IntArray:
    """``concatenate([arange(s, s + c) for s, c in zip(start, count)])`` without a loop."""
    total = int(count.sum())
    if total == 0:
        return _NO_INT
    ends = np.cumsum(count)
    return np.arange(total) - np.repeat(ends - count, count) + np.repeat(start, count)
