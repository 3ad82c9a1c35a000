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

which `lateral.solvers.scaled_system` solves.

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
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lateral.network.schema import FloatArray, IntArray
from lateral.solvers.cones import Cones, Scaling
from lateral.solvers.scaled_system import System

#: Objectives smaller than this count as if they were this large, as in `lateral.results.residuals`.
SMALL_OBJECTIVE = 1e-2
#: The last step is taken where ``|mu lambda^-1 - lambda|`` is this share of the root of mu, or, where rounding does not
#: let it fall any more, this one; and rows hold to this.
_CENTRED, _NEAR, _HOLDS = 1e-3, 0.5, 1e-10
#: Or to this share of the sum of its terms' sizes, which is rounding.
_ROUNDING = 1e-15
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
        steps: step of each variable, negative where it has none, shape (n,); None where all are of one. Rows of one
            step alone are factored without those of others.
    """

    p: sp.csc_array
    q: FloatArray
    a: sp.csr_array
    b: FloatArray
    cones: Cones
    constant: float = 0.0
    least: float = SMALL_OBJECTIVE
    steps: IntArray | None = None

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
    system = System.of(program.p, program.a, program.cones, program.steps)
    before, last, stuck, waited = np.inf, np.inf, 0, 0
    best, least_gap = start, program.gap(start)
    taken = 0
    for _ in range(iterations):
        if time.perf_counter() >= until:
            break
        goal = gap * program.size(x) / cones.degree
        # entries of a stiff branch may be so large that rounding leaves more of a row
        rounding = _ROUNDING * (rows @ np.abs(x))
        holds = bool(np.all(np.abs(program.b - program.a @ x - s) <= np.maximum(_HOLDS, rounding)))
        try:
            dx, dz, off, mu = _step(program, system, Scaling.of(cones, s, z), x, s, z, goal)
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


def inside(program: Conic, start: Point, gap: float) -> Point:
    """A point moved so far into the cones that the path can be followed back from it to a gap larger than its own.

    Where that gap is worth more than what is decided on (an area most of whose costs are those of its loads), the
    limits that bind at the optimum hardly do at the point of the path, and from the edge of the cones single steps lead
    nowhere. By the root of mu, both s and z are in the middle again.
    """
    size = float(np.sqrt(gap * program.size(start.x) / max(program.cones.degree, 1)))
    return Point(start.x, program.cones.moved_in(start.s, size), program.cones.moved_in(start.z, size))


def _without_cones(program: Conic, start: Point) -> Followed:
    """The optimum of a program whose rows are equalities: its conditions are linear."""
    x, z, cones = start.x, start.z, program.cones
    costs, wrong = -(program.p @ x + program.q + program.a.T @ z), program.b - program.a @ x
    try:
        factor = System.of(program.p, program.a, cones, program.steps).factored(Scaling.of(cones, start.s, z))
    except RuntimeError:  # of scipy: the factor is exactly singular
        return Followed(start, 0, reached=False)
    dx, dz, _ = factor.solve(costs, wrong, np.zeros(len(z)))
    if not np.all(np.isfinite(np.concatenate([dx, dz]))):
        return Followed(start, 0, reached=False)
    return Followed(Point(x + dx, np.zeros(len(z)), z + dz), 1, reached=True)


def _longest(cones: Cones, v: FloatArray, step: FloatArray, least: float) -> float:
    """Length of a step that stays inside of the cones, 1 at most; below ``least`` where none is longer."""
    length = 1.0
    while length >= least and not cones.inside(v + length * step):
        length *= _SHORTER
    return length


def _step(
    program: Conic, system: System, scaling: Scaling, x: FloatArray, s: FloatArray, z: FloatArray, goal: float
) -> tuple[FloatArray, FloatArray, float, float]:
    """dx and dz of a step, how far from the path the point is in the scaled space, and the mu that it goes to."""
    cones, z0 = program.cones, program.cones.zeros
    wrong = program.b - program.a @ x - s
    factor = system.factored(scaling)
    costs, rows = -(program.p @ x + program.q + program.a.T @ z), scaling.inward(wrong)

    def solved(off: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """dx, dz and W dz where the last equation asks for W dz + W^-T ds = off."""
        dx, dy, scaled = factor.solve(costs, wrong[:z0], rows - off)
        dz = scaling.back(scaled)
        dz[:z0] = dy
        return dx, dz, scaled

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


def slopes(program: Conic, at: Point, columns: sp.csc_array) -> tuple[FloatArray, FloatArray]:
    """How the point of the path moves with costs, and with the logarithm of mu.

    The equations of the path, differentiated: the step above with nothing wrong at the point but ``dq`` of the costs,
    or ``mu lambda^-1`` in the last equation.

    Args:
        program: the program.
        at: a point of its path.
        columns: changes C of q, shape (n, k).

    Returns:
        ``C' dx/dq C``, shape (k, k); and ``C' dx/d(log mu)``, shape (k,).

    Raises:
        RuntimeError: the equations are singular.
    """
    cones, z0, n = program.cones, program.cones.zeros, len(at.x)
    scaling = Scaling.of(cones, at.s, at.z)
    factor = System.of(program.p, program.a, cones, program.steps).factored(scaling)
    by_gap = np.zeros(n)
    if cones.degree:
        aim = float(at.s @ at.z) / cones.degree * scaling.inverse
        by_gap = factor.solve(np.zeros(n), np.zeros(z0), -aim)[0]
    return -factor.condensed(columns), columns.T @ by_gap


__all__ = ["SMALL_OBJECTIVE", "Conic", "Point", "follow", "inside", "slopes"]
