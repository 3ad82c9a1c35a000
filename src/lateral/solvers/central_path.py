"""Newton's method along the central path of a conic program, to a given duality gap, from the point of another solver.

    min 1/2 x'Px + q'x,   A x + s = b,   s in K;          on the path  P x + q + A'z = 0,   s o z = mu e

with K zeros, nonnegative numbers, second-order cones and psd triangles, in this order, and o the product of each cone's
Jordan algebra. At a point of the path the duality gap is mu times the degree of K.

**Scaling.** W with ``W z = W^-T s = lambda`` (Nesterov and Todd 1997; of each cone as in Vandenberghe, *The CVXOPT
linear and quadratic cone program solvers*, 2010, section 4) turns the linearised third equation into
``W dz + W^-T ds = mu lambda^-1 - lambda``, which leaves, with A_0 the rows of zeros and B = W^-T A those of cones,

    [ P    A_0'  B' ] [ dx   ]
    [ A_0   0    0  ] [ dy   ]  =  what is wrong with the point
    [ B     0   -I  ] [ W dz ]

**Steps** are Mehrotra's (1992): one to mu = 0 says by how much mu can fall, and what the linearised equation leaves,
``(W^-T ds) o (W dz)``, is put right by a second one with the same factor. Without quadratic costs s and z, which then
have nothing to do with each other but mu, each go as far as they can. Where matrices have hardly an inside (IEEE 34
and 123 over four steps) single steps end at the edge of the cones, shorter and shorter.

**Why another one.** Where matrices are nearly of rank one a solver that factors the quasi-definite form, with W'W in
the place of I and with regularisation, stops in rounding at gaps of 1e-7 to 5e-6. In the scaled form, factored with
pivots, the same numbers allow 1e-10 (`ieee13`, `ieee123`). And a point that is centred depends smoothly on the data: so
areas that exchange what they found (`lateral.areas`) do not exchange how far their solvers happened to get.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, splu

from lateral.network.schema import FloatArray, IntArray
from lateral.program import upper_triangle

#: Objectives smaller than this count as if they were this large, as in `lateral.results.residuals`.
SMALL_OBJECTIVE = 1e-2
#: The last step is taken where ``|mu lambda^-1 - lambda|`` is this share of the root of mu, or, where rounding does not
#: let it fall any more, this one; and rows hold to this.
_CENTRED, _NEAR, _HOLDS = 1e-3, 0.5, 1e-10
#: So near to the goal, as a multiple of it, mu is no longer let fall by a share: the point is centred there.
_AT_GOAL = 1.5
#: So many steps there without a smaller gap: rounding allows no more.
_NO_BETTER = 5

#: A step that leaves the cone is shortened by the first factor until it does not, and then by the second.
_SHORTER, _INSIDE = 0.8, 0.95
#: Below this length a step is none.
_SHORTEST = 1e-4
#: So many steps in a row below this length: it is given up. From where it was reached there were at most 3 (`sdp` on
#: IEEE 13, 37 and 4 buses; on EU LV 40 of 0.07 to 0.13); from a point along the edge of its cones there are 70
#: and more, and it is not reached.
_SHORT, _STUCK = 0.05, 6
#: A gap of so many times the smallest that there was, and the one to be reached: rounding has the better of it, and
#: does not let go again (`sdp` on smartds84: from 1e-7 back to 1 in 15 steps).
_WORSE = 100.0
#: The diagonal is a pivot where it is at least this share of the largest entry of its column. With 1 the factors of
#: `sdp` on ckt7 had five times the entries and took eight times as long; what is left after refinement is the same.
_PIVOT = 0.1
#: How often what a step leaves is solved for again. Once leaves smartds84 (`sdp`) at a gap of 2e-6, this often at 7e-8.
_REFINED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Cones:
    """The cones of a program's rows.

    Attributes:
        zeros: number of rows that are equalities.
        linear: number of nonnegative rows after them.
        second_order: rows of the second-order cones of one size, shape (cones, size), for each size.
        psd: rows of the psd triangles of one dimension, shape (matrices, dim (dim + 1) / 2), by dimension.
    """

    zeros: int
    linear: int
    second_order: tuple[IntArray, ...]
    psd: tuple[tuple[int, IntArray], ...]

    @classmethod
    def of(cls, zeros: int, linear: int, second_order: Sequence[int], psd: Sequence[int]) -> Cones:
        """From the sizes of the cones and the dimensions of the matrices, in the order of their rows."""
        sizes = np.array([*second_order, *(d * (d + 1) // 2 for d in psd)], dtype=np.int64)
        first = zeros + linear + np.cumsum(sizes) - sizes
        n = len(second_order)

        def rows(kind: IntArray, start: IntArray, key: int, size: int) -> IntArray:
            return np.asarray(start[kind == key][:, None] + np.arange(size))

        balls, dims = np.array(second_order, dtype=np.int64), np.array(psd, dtype=np.int64)
        return cls(
            zeros,
            linear,
            tuple(rows(balls, first[:n], k, k) for k in np.unique(balls).tolist()),
            tuple((d, rows(dims, first[n:], d, d * (d + 1) // 2)) for d in np.unique(dims).tolist()),
        )

    @property
    def degree(self) -> int:
        """Gap at a point of the path, over mu."""
        return self.linear + sum(len(k) for k in self.second_order) + sum(d * len(k) for d, k in self.psd)

    @property
    def flat(self) -> slice:
        """The nonnegative rows."""
        return slice(self.zeros, self.zeros + self.linear)

    def inside(self, v: FloatArray) -> bool:
        """Whether a vector is in the interior of all cones; one that holds a NaN is not."""
        if not np.all(np.isfinite(v)) or np.any(v[self.flat] <= 0.0):
            return False
        for rows in self.second_order:
            if np.any(v[rows[:, 0]] <= np.linalg.norm(v[rows[:, 1:]], axis=1)):
                return False
        try:
            for dim, rows in self.psd:
                np.linalg.cholesky(_matrix(v[rows], dim))
        except np.linalg.LinAlgError:
            return False
        return True

    def product(self, v: FloatArray, w: FloatArray) -> FloatArray:
        """``v o w``; zero at equalities."""
        out = np.zeros(len(v))
        out[self.flat] = v[self.flat] * w[self.flat]
        for rows in self.second_order:
            a, b = v[rows], w[rows]
            both = a[:, :1] * b + b[:, :1] * a
            both[:, 0] = (a * b).sum(axis=1)
            out[rows] = both
        for dim, rows in self.psd:
            half = _matrix(v[rows], dim) @ _matrix(w[rows], dim)
            out[rows] = _triangle(0.5 * (half + np.swapaxes(half, 1, 2)))
        return out

    def quotient(self, value: FloatArray, w: FloatArray) -> FloatArray:
        """v of ``value o v = w``, with a value inside of the cones whose matrices are diagonal; zero at equalities.

        At the tip of a cone, where rounding may bring a value, it is not finite, and no step is made of it.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._quotient(value, w)

    def _quotient(self, value: FloatArray, w: FloatArray) -> FloatArray:
        out = np.zeros(len(w))
        out[self.flat] = w[self.flat] / value[self.flat]
        for rows in self.second_order:
            a, b = value[rows], w[rows]
            first = (a[:, 0] * b[:, 0] - (a[:, 1:] * b[:, 1:]).sum(axis=1)) / (
                a[:, 0] ** 2 - (a[:, 1:] ** 2).sum(axis=1)
            )
            rest = (b - first[:, None] * a) / a[:, :1]
            rest[:, 0] = first
            out[rows] = rest
        for dim, rows in self.psd:
            diagonal = np.diagonal(_matrix(value[rows], dim), axis1=1, axis2=2)
            out[rows] = _triangle(2.0 * _matrix(w[rows], dim) / (diagonal[:, :, None] + diagonal[:, None, :]))
        return out

    def moved_in(self, v: FloatArray) -> FloatArray:
        """The vector with as much of the cones' identity as brings it inside."""
        unit, size = np.zeros(len(v)), 1e-14
        unit[self.flat] = 1.0
        for rows in self.second_order:
            unit[rows[:, 0]] = 1.0
        for dim, rows in self.psd:
            unit[rows] = _triangle(np.eye(dim))
        out = v
        while not self.inside(out):
            out, size = v + size * unit, 10.0 * size
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Conic:
    """A conic program; see the module's text.

    Attributes:
        p: P, both triangles, shape (n, n).
        q: shape (n,).
        a: A, shape (m, n).
        b: shape (m,).
        cones: of its rows.
        constant: of the objective.
        least: objectives smaller than this count as if they were this large.
    """

    p: sp.csc_array
    q: FloatArray
    a: sp.csr_array
    b: FloatArray
    cones: Cones
    constant: float = 0.0
    least: float = SMALL_OBJECTIVE

    def same_rows(self, other: Conic) -> bool:
        """Whether the rows of another program are these, so that a point keeps the ones as well as the others."""
        return (
            np.array_equal(self.b, other.b)
            and np.array_equal(self.a.indptr, other.a.indptr)
            and np.array_equal(self.a.indices, other.a.indices)
            and np.array_equal(self.a.data, other.a.data)
        )

    def size(self, x: FloatArray) -> float:
        """What a relative gap is relative to."""
        return max(abs(float(0.5 * x @ (self.p @ x) + self.q @ x) + self.constant), self.least)

    def gap(self, at: Point) -> float:
        """How far a point is from an optimum, as a share of the objective: s'z and what rows and costs are off by."""
        off = np.abs(self.p @ at.x + self.q + self.a.T @ at.z) @ np.maximum(np.abs(at.x), 1.0)
        off += np.abs(self.a @ at.x + at.s - self.b) @ np.abs(at.z)
        return float(abs(at.s @ at.z) + off) / self.size(at.x)


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """x, and s and z of the rows."""

    x: FloatArray
    s: FloatArray
    z: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """What came of going along the path.

    Attributes:
        point: the point of the path that has the gap; where it was not reached, the one of the smallest gap.
        steps: how many it took.
        reached: whether it was reached.
    """

    point: Point
    steps: int
    reached: bool


def follow(
    program: Conic, start: Point, gap: float, *, iterations: int = 80, until: float = np.inf, least: float = _SHORTEST
) -> Followed:
    """Go along the central path to the point that has a gap.

    Args:
        program: the program.
        start: where another solver ended; the closer to the path the better.
        gap: duality gap, as a share of the objective.
        iterations: steps at most.
        until: time of `time.perf_counter` at which no further step is begun.
        least: length of a step, as a share of Newton's, below which it is given up.

    It is not reached where the steps, the time or the accuracy of the numbers do not suffice.
    """
    cones, z0 = program.cones, program.cones.zeros
    if not np.all(np.isfinite(np.concatenate([start.x, start.s, start.z]))):
        return Followed(start, 0, reached=False)
    if not cones.degree:
        return _without_cones(program, start)
    x, s, z, rows = start.x, cones.moved_in(start.s), cones.moved_in(start.z), abs(program.a)
    s[:z0] = 0.0
    before, last, stuck, waited = np.inf, np.inf, 0, 0
    best, least_gap = start, program.gap(start)
    taken = 0
    for _ in range(iterations):
        if time.perf_counter() >= until:
            break
        goal = gap * program.size(x) / cones.degree
        # entries of a stiff branch may be so large that no more than this is left of a row
        size = 1.0 + rows @ np.abs(x) + np.abs(s)
        holds = float((np.abs(program.b - program.a @ x - s) / size).max()) <= _HOLDS
        try:
            dx, dz, off, mu = _step(program, _Scaling.of(cones, s, z), x, s, z, goal)
        except (np.linalg.LinAlgError, RuntimeError):  # of scipy: the factor is exactly singular
            break
        ds = program.b - program.a @ (x + dx) - s
        ds[:z0] = 0.0
        of_s, of_z = _longest(cones, s, ds, least), _longest(cones, z, dz, least)
        length = min(of_s, of_z)
        stuck = stuck + 1 if length < _SHORT else 0
        if not length >= least or stuck >= _STUCK:
            break
        if program.p.nnz:  # rows of costs and of limits are one system
            of_s = of_z = length
        of_s, of_z = (by if by == 1.0 else _INSIDE * by for by in (of_s, of_z))
        x, s, z = x + of_s * dx, s + of_s * ds, z + of_z * dz
        taken, now = taken + 1, program.gap(Point(x, s, z))
        off = off / np.sqrt(mu)
        # from a smaller gap than is asked for it is to grow
        grows = _AT_GOAL * float(s @ z) < goal * cones.degree
        waited = 0 if now < least_gap or grows or off < 0.5 * last else waited + 1
        last = off
        if now < least_gap:
            best, least_gap = Point(x, s, z), now
        elif now > _WORSE * max(least_gap, gap):
            break
        off = off if mu <= goal and holds and length == 1.0 else np.inf
        if off <= _CENTRED or (off <= _NEAR and off > 0.5 * before):
            return Followed(Point(x, s, z), taken, reached=True)
        if mu <= goal and waited >= _NO_BETTER:
            break
        before = off
    return Followed(best, taken, reached=False)


def _without_cones(program: Conic, start: Point) -> Followed:
    """The optimum of a program whose rows are equalities: its conditions are linear."""
    try:
        system = _System.of(program, _Scaling.of(program.cones, start.s, start.z))
    except RuntimeError:  # of scipy: the factor is exactly singular
        return Followed(start, 0, reached=False)
    x, z = start.x, start.z
    step = system.solve(np.concatenate([-(program.p @ x + program.q + program.a.T @ z), program.b - program.a @ x]))
    if not np.all(np.isfinite(step)):
        return Followed(start, 0, reached=False)
    return Followed(Point(x + step[: len(x)], np.zeros(len(z)), z + step[len(x) :]), 1, reached=True)


def _longest(cones: Cones, v: FloatArray, step: FloatArray, least: float) -> float:
    """Length of a step that stays inside of the cones, 1 at most; below ``least`` where none is longer."""
    length = 1.0
    while length >= least and not cones.inside(v + length * step):
        length *= _SHORTER
    return length


def _step(
    program: Conic, scaling: _Scaling, x: FloatArray, s: FloatArray, z: FloatArray, goal: float
) -> tuple[FloatArray, FloatArray, float, float]:
    """dx and dz of a step, how far from the path the point is in the scaled space, and the mu that it goes to."""
    cones, z0, n = program.cones, program.cones.zeros, len(x)
    wrong = program.b - program.a @ x - s
    system = _System.of(program, scaling)
    costs, rows = -(program.p @ x + program.q + program.a.T @ z), (scaling.inward @ wrong)[z0:]

    def solved(off: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """dx, dz and W dz where the last equation asks for W dz + W^-T ds = off."""
        step = system.solve(np.concatenate([costs, wrong[:z0], rows - off[z0:]]))
        scaled = np.zeros(len(z))
        scaled[z0:] = step[n + z0 :]
        dz = scaling.inward.T @ scaled
        dz[:z0] = step[n : n + z0]
        return step[:n], dz, scaled

    def length(dx: FloatArray, dz: FloatArray) -> float:
        ds = program.b - program.a @ (x + dx) - s
        ds[:z0] = 0.0
        return min(_longest(cones, s, ds, _SHORTEST), _longest(cones, z, dz, _SHORTEST))

    now = float(s @ z) / cones.degree
    there = now <= _AT_GOAL * goal
    mu = goal
    aim = mu * scaling.inverse - scaling.value
    dx, dz, scaled = solved(aim if there else -scaling.value)
    far = length(dx, dz)
    if not there:
        mu = max(goal, (1.0 - far) ** 3 * now)
        aim = mu * scaling.inverse - scaling.value
        left = cones.product(-scaling.value - scaled, scaled)
    else:
        left = cones.product(aim - scaled, scaled)
    second = solved(aim - cones.quotient(scaling.value, left))
    # near the path what is put right may be rounding
    if not there or length(*second[:2]) >= far:
        dx, dz, _ = second
    return dx, dz, float(np.abs(aim).max()), mu


def slopes(program: Conic, at: Point, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How the point of the path moves with costs, and with the logarithm of mu.

    The equations of the path, differentiated: the step above with nothing wrong at the point but ``dq`` of the costs,
    or ``mu lambda^-1`` in the last equation.

    Args:
        program: the program.
        at: a point of its path.
        columns: changes of q, shape (n, k).

    Returns:
        dx/dq times the columns, shape (n, k); and dx/d(log mu), shape (n,).

    Raises:
        RuntimeError: the equations are singular.
    """
    cones, z0, n = program.cones, program.cones.zeros, len(at.x)
    scaling = _Scaling.of(cones, at.s, at.z)
    rhs = np.zeros((n + len(at.z), columns.shape[1] + 1))
    rhs[:n, :-1] = -columns
    if cones.degree:
        rhs[n + z0 :, -1] = -(float(at.s @ at.z) / cones.degree * scaling.inverse)[z0:]
    moved = _System.of(program, scaling).solve(rhs, refined=1)[:n]
    return moved[:, :-1], moved[:, -1]


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """The equations of a step, see the module's text, factored.

    Attributes:
        kkt: the matrix.
        even: what rows and columns are multiplied by so that they are of about the same size, and pivots are chosen
            among comparable numbers.
        factor: of the matrix so multiplied.
    """

    kkt: sp.csc_array
    even: FloatArray
    factor: SuperLU

    @classmethod
    def of(cls, program: Conic, scaling: _Scaling) -> _System:
        """At a scaled point."""
        z0 = program.cones.zeros
        equal, below = program.a[:z0], (scaling.inward @ program.a)[z0:]
        blocks = [[program.p, equal.T, below.T], [equal, None, None], [below, None, -sp.eye_array(below.shape[0])]]
        kkt = sp.csc_array(sp.block_array(blocks))
        even = 1.0 / np.sqrt(np.maximum(abs(kkt).max(axis=1).toarray().reshape(-1), 1e-300))
        return cls(kkt, even, splu(sp.csc_matrix(kkt * even[:, None] * even), diag_pivot_thresh=_PIVOT))

    def solve(self, rhs: FloatArray, *, refined: int = _REFINED) -> FloatArray:
        """The solution of one or several right-hand sides, refined so many times."""
        even = self.even if rhs.ndim == 1 else self.even[:, None]
        step = even * self.factor.solve(even * rhs)
        for _ in range(refined):  # what was left of it
            step += even * self.factor.solve(even * (rhs - self.kkt @ step))
        return np.asarray(step)


@dataclass(frozen=True, slots=True, eq=False)
class _Scaling:
    """Nesterov and Todd's scaling of a point.

    Attributes:
        inward: W^-T, zero at equalities, shape (m, m).
        value: lambda.
        inverse: lambda^-1 in the algebra of each cone.
    """

    inward: sp.csr_array
    value: FloatArray
    inverse: FloatArray

    @classmethod
    def of(cls, cones: Cones, s: FloatArray, z: FloatArray) -> _Scaling:
        """At s and z inside the cones."""
        value, inverse = np.zeros(len(s)), np.zeros(len(s))
        flat = cones.flat
        value[flat] = np.sqrt(s[flat] * z[flat])
        inverse[flat] = 1.0 / value[flat]
        at = np.arange(flat.start, flat.stop)
        blocks = [(at, at, np.sqrt(z[flat] / s[flat]))]
        for rows in cones.second_order:
            value[rows], inverse[rows], inward = _ball(s[rows], z[rows])
            blocks.append(_placed(rows, inward))
        for dim, rows in cones.psd:
            value[rows], inverse[rows], inward = _matrices(_matrix(s[rows], dim), _matrix(z[rows], dim))
            blocks.append(_placed(rows, inward))
        row, col, entries = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return cls(sp.csr_array((entries, (row, col)), shape=(len(s), len(s))), value, inverse)


def _placed(rows: IntArray, blocks: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Rows, columns and entries of square blocks on the diagonal, shape (blocks, k, k)."""
    row, col = np.broadcast_arrays(rows[:, :, None], rows[:, None, :])
    return row.reshape(-1), col.reshape(-1), blocks.reshape(-1)


def _ball(s: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """lambda, its inverse and W^-T of second-order cones, shape (cones, size) and (cones, size, size)."""
    j = np.ones(s.shape[1])
    j[1:] = -1.0

    def root(v: FloatArray) -> FloatArray:
        size = np.linalg.norm(v[:, 1:], axis=1)
        inside = (v[:, 0] - size) * (v[:, 0] + size)
        if not np.all(inside > 0.0):
            message = "a point on the edge of its cone"
            raise np.linalg.LinAlgError(message)
        return np.asarray(np.sqrt(inside))[:, None]

    root_s, root_z = root(s), root(z)
    s, z = s / root_s, z / root_z
    middle = (s + j * z) / np.sqrt(2.0 + 2.0 * (s * z).sum(axis=1, keepdims=True))
    v = middle.copy()
    v[:, 0] += 1.0
    v /= np.sqrt(2.0 * (middle[:, :1] + 1.0))
    by = np.sqrt(root_s / root_z)[:, :, None]
    outward = by * (2.0 * v[:, :, None] * v[:, None, :] - np.diag(j))
    inward = (2.0 * (j * v)[:, :, None] * (j * v)[:, None, :] - np.diag(j)) / by
    value = np.einsum("kij,kj->ki", outward, z * root_z)
    return value, j * value / (root_s * root_z), inward


def _matrices(s: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """lambda, its inverse and W^-T of matrices, as triangles: shape (b, k) and (b, k, k)."""
    low = np.linalg.cholesky(s)
    _, value, v_t = np.linalg.svd(np.swapaxes(np.linalg.cholesky(z), 1, 2) @ low)
    turn = np.sqrt(value)[:, :, None] * (v_t @ np.linalg.inv(low))
    rows, cols, size = _places(s.shape[-1])
    one, other = (
        turn[:, rows][:, :, rows] * turn[:, cols][:, :, cols],
        turn[:, rows][:, :, cols] * turn[:, cols][:, :, rows],
    )
    inward = size[:, None] * np.where(rows == cols, one, (one + other) * np.sqrt(0.5))
    eye = np.eye(s.shape[-1])
    return _triangle(value[:, :, None] * eye), _triangle(eye / value[:, :, None]), inward


@cache
def _places(dim: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Row and column of each entry of a triangle, and what it is multiplied by there."""
    rows, cols = upper_triangle(dim)
    return rows, cols, np.where(rows == cols, 1.0, np.sqrt(2.0))


def _matrix(triangle: FloatArray, dim: int) -> FloatArray:
    """Symmetric matrices of their triangles, shape (..., dim, dim)."""
    rows, cols, size = _places(dim)
    out = np.zeros((*triangle.shape[:-1], dim, dim))
    out[..., rows, cols] = out[..., cols, rows] = triangle / size
    return out


def _triangle(matrix: FloatArray) -> FloatArray:
    """Triangles of symmetric matrices, shape (..., dim (dim + 1) / 2)."""
    rows, cols, size = _places(matrix.shape[-1])
    return np.asarray(matrix[..., rows, cols] * size)


__all__ = ["SMALL_OBJECTIVE", "Cones", "Conic", "Point", "follow", "slopes"]
