"""ProgramBuilder: where devices, formulations and objectives put their variables, rows and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lateral.network.schema import FloatArray, IntArray
from lateral.program.affine import Affine, stack
from lateral.program.assemble import Assembly, Product, Quadratics, Rows, data_part
from lateral.program.curves import Curve
from lateral.program.program import (
    Assumption,
    Block,
    Derived,
    DualOf,
    Jumps,
    Opposed,
    Output,
    Program,
    Slot,
    TreeHint,
    objective_scale,
)
from lateral.program.reach import least, magnitude
from lateral.program.rows import CurveRows, SemidefiniteRows, upper_triangle
from lateral.program.tangent import Tangent

Number = float | FloatArray
_NOTHING = np.zeros(0)


def _cells(value: Number, n: int, n_steps: int) -> FloatArray:
    return np.broadcast_to(np.asarray(value, dtype=float), (n, n_steps)).reshape(-1)


class ProgramBuilder:
    """Collects labelled variables, rows and costs; `freeze` makes the `Program`.

    All methods take and return arrays of shape (n, T). Expressions are `Affine`. Per-unit inside; ``unit`` and
    ``to_unit`` say how to show a value.
    """

    def __init__(self, n_steps: int, *, screen_limits: bool = True) -> None:
        self.n_steps = n_steps
        #: whether a formulation may leave out limits that it shows cannot bind
        self.screen_limits = screen_limits
        self._variables: list[Block] = []
        self._bounds: list[tuple[Block, Affine, Affine]] = []
        self._scale: list[FloatArray] = []
        self._start: list[FloatArray] = []
        self._n = 0
        self._equal = Rows()
        self._between = Rows()
        self._products: list[Product] = []
        self._n_products = 0
        self._quadratics = Quadratics()
        self._curves: list[tuple[Block, IntArray, IntArray, Curve, FloatArray]] = []
        self._n_curves = 0
        self._matrices: list[tuple[Block, Affine, int, FloatArray]] = []
        self._n_matrices = 0
        self._derived: list[Derived] = []
        self._opposed: list[Opposed] = []
        self._assumptions: list[Assumption] = []
        self._sums: list[IntArray] = []
        self._follows: list[IntArray] = []
        self._linear: list[Affine] = []
        self._forms: list[tuple[Affine, Affine, Affine]] = []
        self._slots: dict[str, Slot] = {}
        self._theta: list[FloatArray] = []
        self._n_theta = 0
        self._outputs: list[Output] = []
        self._baked: list[IntArray] = []
        self._affine: dict[str, Affine] = {}
        self._wanted: dict[str, list[Callable[[], None]]] = {}
        self.tree: TreeHint | None = None
        #: nodes whose voltage another area counts, by name; see `lateral.devices.border`
        self.copied: set[str] = set()
        #: size of objective below which a relative gap means nothing, in the objective's unit
        self.objective_floor = 0.0
        #: nodes whose limits are to be written although they seemed far from binding, by name
        self.enforced: frozenset[str] = frozenset()
        #: how far beyond the limits of voltages laws of loads are written that hold between two voltages only, a share
        self.beyond = 0.0
        #: buses at which areas meet, by name: a formulation joins no branches there
        self.borders: frozenset[str] = frozenset()
        #: laws of devices that a formulation has to first order only, in words; a bound of it is none of the exact one
        self.first_order: set[str] = set()
        #: what devices do otherwise than their fields ask, because the formulation cannot, in words
        self.notes: list[str] = []
        #: what a bound rests on, see `NetworkModel.takes_for_granted`
        self.granted: tuple[str, ...] = ()
        #: where the feeder is not the case's, see `NetworkModel.departs`
        self.unlike: tuple[str, ...] = ()
        #: whether rows hold what is known at one schedule only, so that any new data asks for other rows
        self.at_one_schedule = False
        #: writes quadratic rows and curves to first order, where a formulation asks for it
        self.tangent: Tangent | None = None

    # -- data -----------------------------------------------------------------------------------------------------

    def data(self, name: str, elements: Sequence[str], values: FloatArray, *, unit: str) -> Affine:
        """Declare a data slot, in engineering units; the array returned may be used wherever numbers enter linearly.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._slots:
            message = f"data {name!r} is declared twice"
            raise ValueError(message)
        values = np.asarray(values, dtype=float)
        n, n_steps = values.shape
        self._slots[name] = Slot(name, tuple(elements), n_steps, self._n_theta, unit)
        out = Affine.of_parameters(self._n_theta, n, n_steps)
        self._theta.append(values.reshape(-1))
        self._n_theta += values.size
        self._remember(name, out)
        return out

    # -- variables ------------------------------------------------------------------------------------------------

    def variable(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        *,
        unit: str,
        to_unit: Number = 1.0,
        lower: Number | Affine = -np.inf,
        upper: Number | Affine = np.inf,
        scale: Number = 1.0,
        start: Number = 0.0,
        n_steps: int | None = None,
        limit: bool = True,
        at: tuple[IntArray, IntArray] | None = None,
    ) -> Affine:
        """New variables of shape (len(elements), T).

        Args:
            component: what the elements are; with ``quantity`` it names the block.
            quantity: the quantity, in the words of docs/symbols.md.
            elements: element names.
            unit: engineering unit; value there = value here times ``to_unit``.
            to_unit: factor to that unit.
            lower: lower bound: numbers, or an affine array of data only.
            upper: upper bound, likewise.
            scale: typical size, which solvers divide by.
            start: where a nonlinear solver starts.
            n_steps: number of steps, when it is not the horizon's.
            limit: whether its bounds may be named as the reason of an infeasibility.
            at: see `Block.at`.
        """
        t_count = self.n_steps if n_steps is None else n_steps
        n = len(elements)
        block = Block(component, quantity, tuple(elements), t_count, self._n, unit, _column(to_unit), limit, at)
        lower_a = lower if isinstance(lower, Affine) else Affine.constant(_cells(lower, n, t_count).reshape(n, t_count))
        upper_a = upper if isinstance(upper, Affine) else Affine.constant(_cells(upper, n, t_count).reshape(n, t_count))
        self._variables.append(block)
        self._bounds.append((block, lower_a, upper_a))
        self._scale.append(_cells(scale, n, t_count))
        self._start.append(_cells(start, n, t_count))
        out = Affine.of_variables(self._n, n, t_count)
        self._n += block.size
        self._remember(block.name, out)
        return out

    # -- rows -----------------------------------------------------------------------------------------------------

    def equal(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        left: Affine,
        right: Affine | Number = 0.0,
        *,
        unit: str = "",
        to_unit: Number = 1.0,
        scale: Number = 1.0,
        limit: bool = False,
        only_less: bool = False,
    ) -> Block:
        """Rows ``left == right``; the dual is d(minimum) / d(right). ``limit`` and ``only_less``: see `Block`."""
        expr, start = left - right, self._equal.size
        labels = component, quantity, tuple(elements), expr.n_steps, start, unit, _column(to_unit), limit
        block = Block(*labels, only_less=only_less)
        self._equal.blocks.append(block)
        self._equal.exprs.append(expr)
        self._equal.scale.append(1.0 / _cells(scale, expr.n, expr.n_steps))
        self._equal.size += block.size
        return block

    def sum_rows(self, block: Block, members: IntArray) -> None:
        """Say that the first of some rows of a block was written as the sum over all of them; see `Program.sums`."""
        self._sums.append(block.start + members.reshape(-1, 1) * block.n_steps + np.arange(block.n_steps))

    def follow(self, block: Block, rows: IntArray, variables: Affine) -> None:
        """Say that rows of a block define variables, one each; see `Program.follows`."""
        cells = block.start + rows.reshape(-1, 1) * block.n_steps + np.arange(block.n_steps)
        self._follows.append(np.stack([cells.reshape(-1), variables.col[np.argsort(variables.row)]], axis=1))

    def between(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        lower: Affine | Number,
        middle: Affine,
        upper: Affine | Number,
        *,
        unit: str = "",
        to_unit: Number = 1.0,
        scale: Number = 1.0,
        limit: bool = True,
    ) -> Block:
        """Rows ``lower <= middle <= upper``; bounds are numbers or arrays of data."""
        rows, n, t_count = self._between, middle.n, middle.n_steps
        block = Block(component, quantity, tuple(elements), t_count, rows.size, unit, _column(to_unit), limit)
        low = lower if isinstance(lower, Affine) else Affine.constant(_cells(lower, n, t_count).reshape(n, t_count))
        high = upper if isinstance(upper, Affine) else Affine.constant(_cells(upper, n, t_count).reshape(n, t_count))
        rows.blocks.append(block)
        rows.exprs.append(middle)
        rows.lower.append(low)
        rows.upper.append(high)
        rows.scale.append(1.0 / _cells(scale, n, t_count))
        rows.size += block.size
        return block

    def product(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        squares: Sequence[Affine],
        u: Affine,
        v: Affine,
        *,
        equality: bool = False,
        unit: str = "",
        to_unit: Number = 1.0,
        scale: Number = 1.0,
        limit: bool = False,
    ) -> Block:
        """Rows ``sum_k squares_k^2 <= u v`` (a cone), or ``=`` (exact). ``scale`` is the typical size of ``u``.

        ``unit`` and ``to_unit`` are those of the square root ``sqrt(u v)``, which is how a limit is shown.
        """
        if equality and self.tangent is not None:
            pairs = [*((a, a) for a in squares), (-u, v)]
            return self.quadratic(
                component, quantity, elements, pairs, None, 0.0, 0.0, unit=unit, to_unit=to_unit, scale=scale,
                limit=limit,
            )  # fmt: skip
        block = Block(component, quantity, tuple(elements), u.n_steps, self._n_products, unit, _column(to_unit), limit)
        self._products.append((block, list(squares), u, v, equality, 1.0 / _cells(scale, u.n, u.n_steps)))
        self._n_products += block.size
        return block

    def quadratic(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        pairs: Sequence[tuple[Affine, Affine]],
        linear: Affine | None,
        lower: Affine | Number,
        upper: Affine | Number,
        *,
        unit: str = "",
        to_unit: Number = 1.0,
        scale: Number = 1.0,
        limit: bool = False,
        at: tuple[IntArray, IntArray] | None = None,
    ) -> Block:
        """Rows ``lower <= sum_k f_k g_k + linear <= upper``, pairs (f, g) of numbers and variables; nothing need be
        convex. Sides are numbers or arrays of data; ``scale`` is the typical size of the middle.

        Raises:
            ValueError: a factor depends on data, so that its product is not linear in them.
        """
        if any(np.any(side.par >= 0) for pair in pairs for side in pair):
            message = "a product cannot contain data; use a variable that is held equal to the data"
            raise ValueError(message)
        if self.tangent is not None:
            return self.tangent.quadratic(
                self, component, quantity, elements, pairs, linear, lower, upper, unit=unit, to_unit=to_unit,
                scale=scale, limit=limit,
            )  # fmt: skip
        rows, (n, t_count) = self._quadratics, pairs[0][0].shape
        middle = Affine.zeros(n, t_count) if linear is None else linear
        low = lower if isinstance(lower, Affine) else Affine.constant(_cells(lower, n, t_count).reshape(n, t_count))
        high = upper if isinstance(upper, Affine) else Affine.constant(_cells(upper, n, t_count).reshape(n, t_count))
        block = Block(component, quantity, tuple(elements), t_count, rows.size, unit, _column(to_unit), limit, at)
        rows.blocks.append(block)
        rows.pairs.append(list(pairs))
        rows.linear.append(middle)
        rows.lower.append(low)
        rows.upper.append(high)
        rows.scale.append(1.0 / _cells(scale, n, t_count))
        rows.size += block.size
        return block

    def curve(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        y: Affine,
        z: Affine,
        curve: Curve,
        *,
        at: tuple[IntArray, IntArray] | None = None,
    ) -> None:
        """Rows ``y = phi(z)`` between variables.

        Raises:
            ValueError: y or z is not one plain variable in every cell.
        """
        for side in (y, z):
            plain = len(side.row) == side.n * side.n_steps and np.array_equal(side.row, np.arange(len(side.row)))
            if not plain or np.any(side.val != 1.0) or np.any(side.const) or np.any(side.par >= 0):
                message = "a curve is between variables"
                raise ValueError(message)
        if self.tangent is not None:
            self.tangent.curve(self, component, quantity, elements, y, z, curve)
            return
        block = Block(
            component, quantity, tuple(elements), y.n_steps, self._n_curves, "", np.ones(()), limit=False, at=at
        )
        self._curves.append((block, y.col, z.col, curve, np.ones(block.size)))
        self._n_curves += block.size

    def defined(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        linear: Affine,
        pairs: Sequence[tuple[Affine, Affine]] = (),
        *,
        unit: str,
        to_unit: Number = 1.0,
        scale: Number = 1.0,
    ) -> Affine:
        """New variables that are ``linear + sum_k f_k g_k``, pairs (f, g) of numbers and variables, and their rows: a
        curve or a product can be taken of them.

        What they are made of is declared before them and follows the voltages or is decided.

        Raises:
            ValueError: as of `quadratic`.
        """
        start = self.at_start(linear) + sum(self.at_start(f) * self.at_start(g) for f, g in pairs)
        y = self.variable(
            component, quantity, elements, unit=unit, to_unit=to_unit, start=start, scale=scale, limit=False
        )
        if pairs:
            self.quadratic(component, quantity, elements, pairs, linear - y, 0.0, 0.0, unit=unit, scale=scale)
        else:
            self.equal(component, quantity, elements, y, linear, unit=unit, to_unit=to_unit, scale=scale)
        if self.tangent is not None:
            self.tangent.defined(y, linear, pairs)
        return y

    def psd(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        dim: int,
        entries: Affine,
        *,
        scale: FloatArray,
    ) -> None:
        """Rows ``M psd``, one real symmetric matrix per element and step.

        Args:
            component: what the elements are.
            quantity: what the matrix is of them.
            elements: element names, n of them.
            dim: dimension of every matrix.
            entries: upper triangles column by column, element by element, shape (n dim (dim + 1) / 2, T).
            scale: typical size of the root of each diagonal entry, shape (n, dim); solvers see ``M_ij / (s_i s_j)``.

        Raises:
            ValueError: the number of entries does not fit.
        """
        per = dim * (dim + 1) // 2
        if entries.n != len(elements) * per or np.shape(scale) != (len(elements), dim):
            message = (
                f"{entries.n} entries and scales {np.shape(scale)} for {len(elements)} matrices of dimension {dim}"
            )
            raise ValueError(message)
        t_count = entries.n_steps
        block = Block(component, quantity, tuple(elements), t_count, self._n_matrices, "", np.ones(()), limit=False)
        rows, cols = upper_triangle(dim)
        factor = 1.0 / (scale[:, rows] * scale[:, cols])
        # entries of one matrix stand together: (element, step, entry)
        flat, step = np.divmod(entries.row, t_count)
        element, entry = np.divmod(flat, per)
        const = entries.const.reshape(len(elements), per, t_count).transpose(0, 2, 1).reshape(-1)
        row = (element * t_count + step) * per + entry
        moved = Affine(len(const), 1, row, entries.col, entries.par, entries.val, const)
        self._matrices.append((block, moved, dim, np.repeat(factor, t_count, axis=0).reshape(-1)))
        self._n_matrices += block.size

    # -- objective and outputs ------------------------------------------------------------------------------------

    def minimise(self, expr: Affine) -> None:
        """Add the sum of an array to the objective."""
        self._linear.append(expr.sum())

    def minimise_squares(self, expr: Affine, weight: Affine | Number) -> None:
        """Add ``sum weight * expr^2`` to the objective; weight is nonnegative numbers or data.

        Raises:
            ValueError: ``expr`` depends on data, so that its square is not linear in them.
        """
        if np.any(expr.par >= 0):
            message = "a square cannot contain data; use numbers, or a variable that is held equal to the data"
            raise ValueError(message)
        w = weight if isinstance(weight, Affine) else Affine.constant(_cells(weight, *expr.shape).reshape(expr.shape))
        self._forms.append((expr, expr, w * 2.0))
        self._linear_part(expr, expr, w)

    def minimise_products(self, f: Affine, g: Affine, weight: Affine | Number) -> None:
        """Add ``sum weight * f * g`` to the objective; the caller promises that the whole sum is convex.

        Raises:
            ValueError: ``f`` or ``g`` depends on data.
        """
        if np.any(f.par >= 0) or np.any(g.par >= 0):
            message = "a product cannot contain data; use numbers, or a variable that is held equal to the data"
            raise ValueError(message)
        w = weight if isinstance(weight, Affine) else Affine.constant(_cells(weight, *f.shape).reshape(f.shape))
        self._forms += [(f, g, w), (g, f, w)]
        self._linear_part(f, g, w)

    def _linear_part(self, f: Affine, g: Affine, weight: Affine) -> None:
        """What ``weight f g`` has beside its quadratic part: ``weight (f_0 g + g_0 f - f_0 g_0)`` with constants 0."""
        if not (np.any(f.const) or np.any(g.const)):
            return
        f0, g0 = f.const.reshape(f.shape), g.const.reshape(g.shape)
        self._linear.append((f * g0 + g * f0 - f0 * g0).times_parameter(weight).sum())

    def derive(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        of: Callable[[FloatArray, FloatArray, FloatArray], FloatArray],
        *,
        unit: str,
        to_unit: Number = 1.0,
        dual: bool = False,
        exact: Callable[[FloatArray, Program, DualOf], FloatArray] | None = None,
    ) -> None:
        """Name a quantity that follows from the solution by a function; see `Derived`."""
        block = Block(component, quantity, tuple(elements), self.n_steps, 0, unit, _column(to_unit), limit=False)
        self._derived.append(Derived(block, of, dual, exact))

    def oppose(
        self,
        device: tuple[str, str],
        ways: str,
        back: Affine,
        forward: Affine,
        most: Number,
        owner: IntArray | None = None,
    ) -> None:
        """Say that of two arrays of variables a device can have one above zero at a time; see `Opposed`.

        ``most`` is how much of both at once counts as none, per unit, a number or an array that fits (n, T); ``owner``
        the number of the device of each row, shape (n,), absent: a row is a device.
        """
        cells = [np.asarray(a.col, dtype=np.int64) for a in (back, forward)]
        size = np.broadcast_to(np.asarray(most, dtype=float), back.shape).ravel()
        n, n_steps = back.shape
        of = np.arange(n) if owner is None else np.asarray(owner, dtype=np.int64)
        cell = (of.reshape(-1, 1) * n_steps + np.arange(n_steps)).ravel()
        self._opposed.append(Opposed(device, ways, cells[0], cells[1], size, cell))

    def start(self) -> tuple[FloatArray, FloatArray]:
        """The start point and the present data."""
        x = np.concatenate(self._start) if self._start else np.zeros(0)
        return x, np.concatenate(self._theta) if self._theta else np.zeros(0)

    def bake(self, expr: Affine) -> None:
        """Say that rows were written with the present data of an array as numbers; see `Program.baked`."""
        self._baked.append(np.unique(expr.par[expr.par >= 0]))

    def assume(
        self,
        component: str,
        quantity: str,
        elements: Sequence[str],
        beyond: Callable[[FloatArray], FloatArray],
        *,
        jumps: Jumps | None = None,
    ) -> None:
        """Name something that is taken for granted; see `Assumption`."""
        block = Block(component, quantity, tuple(elements), self.n_steps, 0, "pu", np.ones(()), limit=False)
        self._assumptions.append(Assumption(block, beyond, jumps))

    def at_start(self, expr: Affine) -> FloatArray:
        """The value of an array at the start point and the present data, shape (n, T)."""
        return expr.value(*self.start())

    def output(
        self, component: str, quantity: str, elements: Sequence[str], expr: Affine, *, unit: str, to_unit: Number = 1.0
    ) -> None:
        """Name a derived quantity, for objectives and results."""
        block = Block(component, quantity, tuple(elements), expr.n_steps, 0, unit, _column(to_unit), limit=False)
        self._outputs.append(Output(block, expr))
        self._remember(block.name, expr)

    def output_squares(
        self, component: str, quantity: str, squares: Sequence[Affine], *, unit: str, to_unit: Number = 1.0
    ) -> None:
        """Name a quantity that is a sum of squares of affine arrays over elements, shape (1, T)."""
        block = Block(component, quantity, ("all",), squares[0].n_steps, 0, unit, _column(to_unit), limit=False)
        self._outputs.append(Output(block, Affine.zeros(1, squares[0].n_steps), tuple(squares)))

    def rescale(self, name: str, scale: Number) -> None:
        """Set the scale of variables declared before it was known; nothing when there are none of that name."""
        for k, block in enumerate(self._variables):
            if block.name == name:
                self._scale[k] = _cells(scale, len(block.elements), block.n_steps)

    def start_of(self, name: str) -> int | None:
        """Index of the first variable of a block, None when there is none of that name."""
        return next((b.start for b in self._variables if b.name == name), None)

    def magnitude(self, expr: Affine, *, variables: bool = True, unbounded: float = 0.0) -> FloatArray:
        """An upper bound of |expr| at the present data, shape (n, T): variables at their largest bound, or left out.

        ``unbounded`` is what a variable without a bound counts as, unless it is a voltage.
        """
        theta = np.concatenate(self._theta) if self._theta else np.zeros(0)
        return magnitude(expr, self._bounds, self._n, theta, variables=variables, unbounded=unbounded)

    def least(self, expr: Affine) -> FloatArray:
        """A lower bound of an array of numbers and variables, shape (n, T): variables at their worse bound."""
        theta = np.concatenate(self._theta) if self._theta else np.zeros(0)
        return least(expr, self._bounds, self._n, theta)

    def present(self, expr: Affine) -> FloatArray:
        """The value of an array of data only at the present data, shape (n, T)."""
        return expr.value(_NOTHING, np.concatenate(self._theta) if self._theta else np.zeros(0))

    def _remember(self, name: str, expr: Affine) -> None:
        """Keep what a name stands for; blocks of one name (one per source, for example) stand below each other."""
        before = self._affine.get(name)
        self._affine[name] = expr if before is None else stack([before, expr])

    def when_wanted(self, name: str, declare: Callable[[], None]) -> None:
        """Let something that needs variables of its own be declared when an objective asks for it first: what no
        objective prices would leave them free.

        Args:
            name: what `find` and `find_all` know it by, such as ``source.energy_cost``.
            declare: declares it, and may be one of many of that name.
        """
        self._wanted.setdefault(name, []).append(declare)

    def _declare_wanted(self, names: Sequence[str]) -> None:
        """Declare what was put off."""
        for declare in [d for name in names for d in self._wanted.pop(name, [])]:
            declare()

    def find_all(self, quantity: str) -> dict[str, Affine]:
        """Variables and outputs of one quantity, by name, e.g. every ``*.energy_cost``."""
        self._declare_wanted([name for name in self._wanted if name.rsplit(".", 1)[-1] == quantity])
        return {name: a for name, a in self._affine.items() if name.rsplit(".", 1)[-1] == quantity}

    def find(self, name: str) -> Affine | None:
        """The variables, output or data of a name such as ``battery.p_charge``; None when nobody declared it."""
        self._declare_wanted([name])
        return self._affine.get(name)

    # -- freeze ---------------------------------------------------------------------------------------------------

    def freeze(self) -> Program:
        """The program, frozen."""
        theta = np.concatenate(self._theta) if self._theta else np.zeros(0)
        assembly = Assembly(self._n, theta)
        vector, matrix = assembly.vector, assembly.matrix

        a = matrix("a", self._equal.exprs)
        b = vector("b", self._equal.exprs, -1.0)
        g = matrix("g", self._between.exprs)
        offset = [-e for e in (data_part(m) for m in self._between.exprs)]
        low = vector("l", [x + o for x, o in zip(self._between.lower, offset, strict=True)])
        high = vector("u", [x + o for x, o in zip(self._between.upper, offset, strict=True)])
        moved = vector("ineq_offset", offset, -1.0)
        lb = vector("lb", [low_ for _, low_, _ in self._bounds])
        ub = vector("ub", [high_ for _, _, high_ in self._bounds])

        products = assembly.products(self._products)
        quadratics, quadratic_scale, quadratic_offset = assembly.quadratics(self._quadratics)
        curves = CurveRows.none()
        if self._curves:
            ones = np.ones(self._n_curves)
            shapes = tuple((c, (len(b.elements), b.n_steps)) for b, _, _, c, _ in self._curves)
            y, z = (np.concatenate([part[k] for part in self._curves]) for k in (1, 2))
            curves = CurveRows(y, z, shapes, ones, ones, ones)
        matrices = SemidefiniteRows.none(self._n)
        if self._matrices:
            entries = [part[1] for part in self._matrices]
            dims = np.concatenate([np.full(b.size, dim) for b, _, dim, _ in self._matrices])
            matrices = SemidefiniteRows(matrix("sm", entries), vector("s0", entries), dims)
        c, c0, q = assembly.objective(self._linear, self._forms)
        col_scale = np.concatenate(self._scale) if self._scale else np.zeros(0)
        return Program(
            c=c,
            c0=c0,
            q=q,
            a=a,
            b=b,
            g=g,
            l=low,
            u=high,
            lb=lb,
            ub=ub,
            products=products,
            col_scale=col_scale,
            eq_scale=np.concatenate(self._equal.scale) if self._equal.scale else np.zeros(0),
            ineq_scale=np.concatenate(self._between.scale) if self._between.scale else np.zeros(0),
            product_scale=np.concatenate([p[5] for p in self._products]) if self._products else np.zeros(0),
            objective_scale=objective_scale(c, q, col_scale),
            variables=tuple(self._variables),
            equalities=tuple(self._equal.blocks),
            inequalities=tuple(self._between.blocks),
            product_blocks=tuple(p[0] for p in self._products),
            outputs=tuple(self._outputs),
            slots=dict(self._slots),
            theta=theta,
            maps=assembly.maps,
            start_point=np.concatenate(self._start) if self._start else np.zeros(0),
            quadratics=quadratics,
            curves=curves,
            quadratic_scale=quadratic_scale,
            curve_scale=np.concatenate([c[4] for c in self._curves]) if self._curves else np.zeros(0),
            semidefinite=matrices,
            semidefinite_scale=np.concatenate([p[3] for p in self._matrices]) if self._matrices else np.zeros(0),
            semidefinite_blocks=tuple(p[0] for p in self._matrices),
            quadratic_blocks=tuple(self._quadratics.blocks),
            curve_blocks=tuple(c[0] for c in self._curves),
            derived=tuple(self._derived),
            opposed=tuple(self._opposed),
            assumptions=tuple(self._assumptions),
            ineq_offset=moved,
            quadratic_offset=quadratic_offset,
            sums=tuple(self._sums),
            follows=np.concatenate([np.zeros((0, 2), dtype=np.int64), *self._follows]),
            held=(*self.notes, *sorted(self.first_order)),
            granted=self.granted,
            unlike=self.unlike,
            objective_floor=self.objective_floor,
            baked=self._baked_slots(),
            tree=self._tree(),
        )

    def _baked_slots(self) -> frozenset[str]:
        """Slots of the data that are numbers in some row; all of them of a program for one schedule."""
        if self.at_one_schedule:
            return frozenset(self._slots)
        cells = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *self._baked]))
        return frozenset(
            name
            for name, slot in self._slots.items()
            if np.any((cells >= slot.cells.start) & (cells < slot.cells.stop))
        )

    def _tree(self) -> TreeHint | None:
        """The tree with the storage chains: every block of stored energy."""
        if self.tree is None:
            return None
        return replace(self.tree, chains=tuple(b.name for b in self._variables if b.quantity == "energy"))


def _column(to_unit: Number) -> FloatArray:
    array = np.asarray(to_unit, dtype=float)
    return array.reshape(-1, 1) if array.ndim == 1 else array
