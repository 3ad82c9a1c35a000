"""Loads: power that depends on the voltage across the port."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lateral.devices.base import DeviceContext, ShuntDevice, column
from lateral.errors import OptionError
from lateral.network.schema import FloatArray, IntArray, spec
from lateral.program import Affine, Banded
from lateral.program.ports import Ports

BoolArray = NDArray[np.bool_]

#: A load this near to an edge of its band gets the whole law where a formulation can write it, pu.
NEAR_EDGE_PU = 0.03
#: So far beside a jump of its law a load is kept, pu: on which side of it the simulator sees it is then no rounding.
BESIDE_PU = 1e-5
#: Over this share of its power the corners of a load's law are rounded.
ROUNDING = 1e-3
#: A difference between two sides of a law at their edge that is no jump, as a share of the power.
NO_JUMP = 1e-9
#: A power that no load has, as a multiple of its rated one: the side of a law that is never met.
NEVER = 1e3
#: At so many voltages it is looked where a law draws less than above a jump.
LOOKS = 1001

#: OpenDSS load model number -> the word used here.
MODELS = (
    "constant_power",  # 1
    "constant_impedance",  # 2
    "constant_power_quadratic_q",  # 3: constant P, Q as an impedance (motor)
    "cvr",  # 4: P ~ V^cvr_p, Q ~ V^cvr_q
    "constant_current",  # 5
    "constant_power_fixed_q",  # 6: P follows the profile, Q fixed at rated
    "constant_power_fixed_q_impedance",  # 7: P follows the profile, Q a fixed impedance
    "zip",  # 8
)

#: Models whose reactive power stays at its rated value, whatever the profile.
FIXED_Q = ("constant_power_fixed_q", "constant_power_fixed_q_impedance")

#: What the name of a load of idling losses begins and ends with.
_IDLING = ("storage_", "_idling")


def idling_name(storage: str) -> str:
    """Name of the load that stands for the idling losses of a storage."""
    return f"{_IDLING[0]}{storage}{_IDLING[1]}"


def is_idling(load: Load) -> bool:
    """Whether a load is the idling losses of a storage: always on, and no customer's."""
    return load.name.startswith(_IDLING[0]) and load.name.endswith(_IDLING[1])


def is_generation(load: Load) -> bool:
    """Whether a load is one of negative active power: generation that cannot be controlled, such as an OpenDSS
    generator. What changes the size or the profile of loads leaves it as it is."""
    return load.p_kw < 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Load(ShuntDevice):
    """A load. Power is the total over its phases; negative power is generation that cannot be controlled."""

    kind: ClassVar[str] = "load"
    table: ClassVar[str] = "loads"
    dispatched: ClassVar[bool] = False

    p_kw: float = spec("Rated active power, multiplied by the profile.", unit="kW")
    q_kvar: float = spec("Rated reactive power, multiplied by the profile.", unit="kvar", default=0.0)
    profile: str = spec(
        "Profile that multiplies p (and q unless profile_q is given); empty: constant.", default="", profile=True
    )
    profile_q: str = spec("Profile that multiplies q; empty: the same as p.", default="", profile=True)
    v_rated_kv: float | None = spec(
        "Voltage across one port at which the power is the rated one; absent: the bus base (times sqrt(3) in delta).",
        unit="kV",
        default=None,
        above=0.0,
    )
    model: str = spec("How the power depends on the voltage.", default="constant_power", choices=MODELS)
    zip_p: tuple[float, float, float] = spec(
        "Shares of constant impedance, current, power in P (model zip).", default=(0.0, 0.0, 1.0)
    )
    zip_q: tuple[float, float, float] = spec(
        "Shares of constant impedance, current, power in Q (model zip).", default=(0.0, 0.0, 1.0)
    )
    zip_v_cut_pu: float = spec(
        "Voltage under which a zip load draws nothing (OpenDSS's seventh number).", unit="pu", default=0.0
    )
    cvr_p: float = spec("Exponent of V in P (model cvr).", default=1.0)
    cvr_q: float = spec("Exponent of V in Q (model cvr).", default=2.0)
    v_min_pu: float = spec(
        "Below this voltage (on v_rated_kv) the load is an impedance, in power flow.",
        unit="pu",
        default=0.1,
        minimum=0.0,
    )
    v_max_pu: float = spec(
        "Above this voltage the load is an impedance, in power flow.", unit="pu", default=2.0, above=0.0
    )
    v_low_pu: float = spec(
        "OpenDSS's vlowpu: below it the current falls to zero linearly.", unit="pu", default=0.0, minimum=0.0
    )

    @property
    def terms(self) -> tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]:
        """P and Q as sums of ``coefficient * (|V| / V_rated)^exponent``: two tuples of (coefficient, exponent)."""
        match self.model:
            case "constant_impedance":
                return ((1.0, 2.0),), ((1.0, 2.0),)
            case "constant_power_quadratic_q" | "constant_power_fixed_q_impedance":
                return ((1.0, 0.0),), ((1.0, 2.0),)
            case "cvr":
                return ((1.0, self.cvr_p),), ((1.0, self.cvr_q),)
            case "constant_current":
                return ((1.0, 1.0),), ((1.0, 1.0),)
            case "zip":
                exponents = (2.0, 1.0, 0.0)
                return tuple(zip(self.zip_p, exponents, strict=True)), tuple(zip(self.zip_q, exponents, strict=True))
        return ((1.0, 0.0),), ((1.0, 0.0),)

    @property
    def shares_outside(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Shares of constant impedance, current, power in P and Q outside of the band, as OpenDSS has them."""
        z, i, p = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
        match self.model:
            case "constant_impedance":
                return z, z
            case "constant_current":
                return i, i
            case "constant_power_fixed_q" | "constant_power_fixed_q_impedance":
                return p, z
            case "zip":
                return self.zip_p, self.zip_q
        return p, p

    @property
    def q_follows_profile(self) -> bool:
        """False for the models whose reactive power stays at its rated value."""
        return self.model not in FIXED_Q

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Draw power at every port.

        ::

            p = p_kw(t) sum_k a_k (|V| / V_rated)^e_k,    q likewise

        Outside of ``v_min_pu ... v_max_pu`` a load is what OpenDSS makes of it there. A formulation that writes curves
        has this law as it is (its corners rounded over `ROUNDING`) at every step at which a load is within
        `NEAR_EDGE_PU` of an edge; else it takes the side on which its operating point lies. At an edge where the law
        jumps it always does: no load can be within the jump; likewise at ``v_low_pu``, under which it is its nominal
        impedance. The cut-off of a zip load is taken at the operating point.
        """
        builder, names = ctx.builder, [d.name for d in group]
        of_q = [(d.profile_q or d.profile) if d.q_follows_profile else "" for d in group]
        p_kw = column(group, "p_kw") * ctx.multipliers([d.profile for d in group])
        q_kvar = column(group, "q_kvar") * ctx.multipliers(of_q)
        p = builder.data("load.p_kw", names, p_kw, unit="kW") / ctx.base.total_kva
        q = builder.data("load.q_kvar", names, q_kvar, unit="kvar") / ctx.base.total_kva
        where = ctx.ports(group)
        ports, owner = where.ports, where.owner
        p_port, q_port = where.spread(p), where.spread(q)
        base = ctx.net.base_kv(ports.a)
        rated = np.array([d.v_rated_kv or np.nan for d in group])[owner]
        across = np.array([1.0 if d.connection == "wye" else np.sqrt(3.0) for d in group])[owner]
        rated = np.where(np.isnan(rated), base * across, rated)
        ratio = (base / rated).reshape(-1, 1)

        laws, law = _laws(group)
        law = law[owner]
        jumps, (lowest, highest) = _Jumps.of(laws, law), ctx.net.beside_jumps(ports)
        # what is kept beside a jump has the law of that side, wherever the operating point is
        u = np.minimum(np.maximum(ctx.net.reference_v(ports), lowest), highest) * ratio
        v_min, v_max, v_low = (column(group, name)[owner] for name in ("v_min_pu", "v_max_pu", "v_low_pu"))
        near, kept = np.zeros(u.shape, dtype=bool), (lowest > 0.0) | (highest < np.inf)
        if ctx.net.writes_curves:
            near = (_near_edge(laws, law, u, jumps) & (u > v_low)) | kept
        if near.any():
            at, step = np.nonzero(near)
            p_near, q_near = p_port.pick(at, step), q_port.pick(at, step)
            cells = _Cells(ports, law, ratio, at, step, u[at, step], jumps, lowest, highest)
            _inject_banded(laws, ctx, cells, p_near, q_near)
            away = (~near).astype(float)
            p_port, q_port = p_port * away, q_port * away
        inside = ((u > v_min) & (u <= v_max) & (u > v_low)).astype(float)
        # a constant impedance is the same on both sides; where the whole law is written, there are none
        free = near | np.array([d.model == "constant_impedance" for d in group], dtype=bool)[owner].reshape(-1, 1)
        above, below = u > v_max, (u <= v_min) | (u <= v_low)
        low = np.where(free | below, 0.0, np.where(above, v_max, np.maximum(v_min, v_low)))
        high = np.where(free | above, np.inf, np.where(below, np.maximum(v_min, v_low), v_max))
        if ctx.net.writes_curves:  # the curve goes down to v_low, and under it a load is its nominal impedance
            low = np.where(near & ~kept, v_low, low)
            high = np.where(~free & (u <= v_low), v_low, high)
        ctx.net.assume_v(ports, low / ratio, high / ratio)
        if ctx.net.writes_curves:
            draws = np.sign(np.where(p_kw != 0.0, p_kw, q_kvar))[owner]
            _assume_no_jump(ports, ratio, u, jumps, draws, (v_min, v_max), ctx)
            if not np.all((draws != 0.0) | ~(jumps.low | jumps.high)):  # other data may draw there
                builder.bake(p)
                builder.bake(q)
        cut = np.array([d.zip_v_cut_pu if d.model == "zip" else 0.0 for d in group])[owner].reshape(-1, 1)
        alive = np.where((cut > 0.0) & (u > v_low), 0.5 * (1.0 + np.tanh(500.0 * (u - cut))), 1.0)

        # (law, exponent) -> coefficient, for P and for Q
        weights: dict[float, tuple[FloatArray, FloatArray]] = {}
        for k, load in enumerate(laws):
            for side in (0, 1):
                for share, e in load.terms[side]:
                    if share:
                        weights.setdefault(e, (np.zeros(len(laws)), np.zeros(len(laws))))[side][k] += share
        drawing = inside * alive
        over_time: dict[float, tuple[FloatArray, FloatArray]] = {
            e: (a[law].reshape(-1, 1) * drawing, b[law].reshape(-1, 1) * drawing) for e, (a, b) in weights.items()
        }
        if not np.all(inside):
            outside = [_outside(laws, law, side, u, (v_low, v_min)) for side in (0, 1)]
            drawn = (1.0 - inside) * alive
            for k, e in enumerate((1.0, 2.0)):
                a, b = over_time.get(e, (np.zeros_like(inside), np.zeros_like(inside)))
                over_time[e] = (a + outside[0][k] * drawn, b + outside[1][k] * drawn)
        for e, (a, b) in sorted(over_time.items()):
            used = np.flatnonzero(np.any(a != 0, axis=1) | np.any(b != 0, axis=1))
            if not len(used):
                continue
            sub = Ports(ports.a[used], ports.b[used])
            size = ratio[used] ** e
            p_u, q_u = p_port.take(used) * (a[used] * size), q_port.take(used) * (b[used] * size)
            if e == 0.0:
                ctx.net.inject(sub, -p_u, -q_u)
            else:
                ctx.net.inject_at(sub, e, -p_u, -q_u)

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """Loads whose rated power is 1 and whose profiles are the new power."""
        if "load.p_kw" not in values and "load.q_kvar" not in values:
            return group
        out = []
        for k, load in enumerate(group):
            changes: dict[str, str | float] = {}
            for slot, field, profile, old in (
                ("load.p_kw", "p_kw", "profile", load.profile),
                ("load.q_kvar", "q_kvar", "profile_q", load.profile_q or load.profile),
            ):
                if slot in values:
                    row = np.broadcast_to(values[slot], (len(group), n_steps))[k]
                    if field == "q_kvar" and not load.q_follows_profile:
                        changes |= {field: load._same_at_every_step(row), profile: old}
                        continue
                    name = f"{slot}:{load.name}"
                    profiles[name] = row.copy()
                    changes |= {field: 1.0, profile: name}
                elif profile == "profile_q":
                    changes[profile] = old
            out.append(dataclasses.replace(load, **changes))  # type: ignore[arg-type]
        return out

    def _same_at_every_step(self, q_kvar: FloatArray) -> float:
        """The one reactive power of all steps; OptionError where they differ."""
        if np.ptp(q_kvar):
            message = (
                f"{self.label} is {self.model}: its reactive power is the same at every step, "
                f"found {np.min(q_kvar):g} to {np.max(q_kvar):g} kvar. Give one value, or change its model."
            )
            raise OptionError(message)
        return float(q_kvar[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Jumps:
    """Jumps in the laws of ports, each of shape (ports, 1).

    Attributes:
        low, high: whether the law jumps at the lower and at the upper edge of its band.
        less, more: below which voltage the law under the band draws less, and more, than right above the lower edge.
    """

    low: BoolArray
    high: BoolArray
    less: FloatArray
    more: FloatArray

    @classmethod
    def of(cls, laws: Sequence[Load], law: IntArray) -> _Jumps:
        """Of ports, by a load of each law and the law of each port."""
        found = np.array([_jumps_of(load) for load in laws], dtype=float)
        low, high, less, more = np.split(found.reshape(-1, 4)[law], 4, axis=1)
        return cls(low > 0.0, high > 0.0, less, more)


def _laws(group: Sequence[Load]) -> tuple[list[Load], IntArray]:
    """A load of each law that some loads have, and which of them is that of each load: laws are few."""
    known: dict[tuple[object, ...], int] = {}
    laws: list[Load] = []
    of = []
    for load in group:
        shares = load.zip_p, load.zip_q, load.cvr_p, load.cvr_q
        key = (load.model, *shares, load.v_min_pu, load.v_max_pu, load.v_low_pu)
        of.append(known.setdefault(key, len(laws)))
        if of[-1] == len(laws):
            laws.append(load)
    return laws, np.array(of, dtype=np.int64)


def _jumps_of(load: Load) -> tuple[bool, bool, float, float]:
    """Whether the law of a load jumps at the lower and at the upper edge of its band, and below which voltage it draws
    less, and more, than right above the lower one: active power, or reactive power where that alone jumps there."""
    low = high = False
    less = more = 0.0
    for side in (0, 1):
        inside, below, above, extra, exponent = _law(load, side)
        if not low and load.v_min_pu > 0.0:
            at_low = _power(inside, load.v_min_pu) + extra * load.v_min_pu**exponent
            u = np.linspace(0.0, load.v_min_pu, LOOKS)
            low = bool(abs(_power(below, load.v_min_pu) - at_low) > NO_JUMP)
            less, more = (float(np.max(u[s * _power(below, u) < s * at_low], initial=0.0)) for s in (1.0, -1.0))
        if np.isfinite(load.v_max_pu):
            at_high = _power(inside, load.v_max_pu) + extra * load.v_max_pu**exponent
            high |= bool(abs(_power(above, load.v_max_pu) - at_high) > NO_JUMP)
    return low, high, less, more


def _power(coefficients: tuple[float, ...], u: Any) -> Any:
    """Coefficients of 1, u, u^2 at a voltage, or at many."""
    return coefficients[0] + (coefficients[1] + coefficients[2] * u) * u


def _near_edge(laws: Sequence[Load], law: IntArray, u: FloatArray, jumps: _Jumps) -> BoolArray:
    """Where the voltage at the operating point is near an edge of the load's band or below the band, (ports, T).

    Above the band a load is an impedance, which needs no curve; nor does the inside of an edge where the law jumps.
    """
    v_min, v_max = (column(laws, name)[law] for name in ("v_min_pu", "v_max_pu"))
    # an impedance inside and outside has no edge
    plain = np.array([d.model == "constant_impedance" for d in laws], dtype=bool)[law]
    near_low = u < v_min + np.where(jumps.low, 0.0, NEAR_EDGE_PU)
    near_high = (np.abs(u - v_max) < NEAR_EDGE_PU) & ~jumps.high
    return np.asarray((near_low | near_high) & ~plain[:, None])


def _assume_no_jump(
    ports: Ports,
    ratio: FloatArray,
    u: FloatArray,
    jumps: _Jumps,
    draws: FloatArray,
    band: tuple[FloatArray, FloatArray],
    ctx: DeviceContext,
) -> None:
    """Say between which jumps of its law each load was taken to be. Where it draws nothing (``draws`` is the sign of
    its power, shape (ports, T)), none matters; where it gives, more is the better side."""
    v_min, v_max = band
    some = np.flatnonzero((jumps.low | jumps.high).any(axis=1))
    if not len(some):
        return
    over_low, over_high = jumps.low & (u > v_min), jumps.high & (u > v_max)
    low = np.where(over_high, v_max, np.where(over_low, v_min, -np.inf))
    high = np.where(jumps.low & ~over_low, v_min, np.where(jumps.high & ~over_high, v_max, np.inf))
    low, high = np.where(draws != 0.0, low, -np.inf)[some], np.where(draws != 0.0, high, np.inf)[some]
    # from above its band a load comes down into it
    better = np.where(draws < 0.0, jumps.more, jumps.less)
    less = np.where(over_high, v_max, np.where(over_low, better, 0.0))[some]
    own, per = Ports(ports.a[some], ports.b[some]), ratio[some]
    ctx.net.assume_v(own, low / per, high / per, beside=(BESIDE_PU / per, less / per))


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Ports and steps at which the whole law of a load is written.

    Attributes:
        ports: all ports of the loads.
        law: law of the load of each port.
        ratio: base of the port over rated voltage, shape (ports, 1).
        at, step: port and step of each cell.
        u: voltage at the operating point in rated voltages, shape (cells,).
        jumps: of the ports.
        lowest, highest: voltages above and below which ports are kept, shape (ports, 1 or T), in bases of the ports; 0
            and infinite for none.
    """

    ports: Ports
    law: IntArray
    ratio: FloatArray
    at: IntArray
    step: IntArray
    u: FloatArray
    jumps: _Jumps
    lowest: FloatArray
    highest: FloatArray


def _inject_banded(laws: Sequence[Load], ctx: DeviceContext, cells: _Cells, p: Affine, q: Affine) -> None:
    """Draw p and q, of shape (cells, 1), by the whole law of a load, in and outside of its band; at an edge where the
    law jumps by that of the side on which the operating point is."""
    at, step = cells.at, cells.step
    used, port = np.unique(at, return_inverse=True)
    sub = Ports(cells.ports.a[used], cells.ports.b[used])
    jump_low, jump_high = cells.jumps.low[at], cells.jumps.high[at]
    lowest, highest = (
        np.broadcast_to(v, (len(cells.law), ctx.n_steps))[at, step] for v in (cells.lowest, cells.highest)
    )
    law, ratio, u = cells.law[at], cells.ratio[at], cells.u[:, None]
    sides = [[_law(d, side) for d in laws] for side in (0, 1)]
    least, most = (column(laws, name)[law] for name in ("v_min_pu", "v_max_pu"))
    is_below, is_above = jump_low & (u <= least), jump_high & (u > most)
    power = np.hstack([np.ones_like(ratio), ratio, ratio**2])
    table = [[np.array([one[k] for one in side]) for k in range(5)] for side in sides]
    never = np.array([NEVER, 0.0, 0.0])

    def curve(side: int, own: IntArray) -> Banded:
        inside, below, above = (table[side][k][law[own]] * power[own] for k in range(3))
        extra, exponent = (table[side][k][law[own]].reshape(-1, 1) for k in (3, 4))
        down, up = is_below[own], is_above[own]
        inside, extra = np.where(down, below, np.where(up, above, inside)), np.where(down | up, 0.0, extra)
        below = np.where(jump_low[own] | up, never, below)
        above = np.where(jump_high[own] | down, -never, above)
        width = np.full((len(own), 1), ROUNDING)
        return Banded(inside, below, above, extra * ratio[own] ** exponent, exponent, width)

    same = np.array([a == b for a, b in zip(*sides, strict=True)], dtype=bool)[law]
    both, split = np.flatnonzero(same), np.flatnonzero(~same)
    for kept, where in ((lowest > 0.0, "above"), (highest < np.inf, "below")):
        if np.any(kept):
            # a limit for this schedule alone: with new data the loads may be on the other side
            ctx.builder.at_one_schedule = True
            n = int(np.sum(kept & (jump_low | jump_high)[:, 0]))
            ctx.notes.append(f"load: the voltage of {n} loads and steps is kept {where} a jump of their law")
    zero = Affine.zeros(len(split), 1)
    for own, side, p_own, q_own in (
        (both, 0, p.take(both), q.take(both)),
        (split, 0, p.take(split), zero),
        (split, 1, zero, q.take(split)),
    ):
        if len(own):
            limited = np.any(lowest[own] > 0.0) or np.any(highest[own] < np.inf)
            within = (lowest[own], highest[own]) if limited else None
            ctx.net.inject_curve(sub, port[own], step[own], curve(side, own), -p_own, -q_own, within=within)


_Law = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float, float]


def _law(load: Load, side: int) -> _Law:
    """Coefficients of 1, u, u^2 inside, below and above the band; coefficient and exponent of one more power inside."""
    inside = [0.0, 0.0, 0.0]
    extra, exponent = 0.0, 1.0
    for a, e in load.terms[side]:
        if e in (0.0, 1.0, 2.0):
            inside[int(e)] += a
        else:
            extra, exponent = a, e
    z, i, p = load.shares_outside[side]
    low, least, most = load.v_low_pu, load.v_min_pu, load.v_max_pu
    width = max(least - low, 1e-9)
    s_p, s_i = (1.0 / max(least, 1e-9) - low) / width, (1.0 - low) / width
    below = [0.0, (i * (1.0 - s_i) + p * (1.0 - s_p)) * low, z + i * s_i + p * s_p]
    if not load.q_follows_profile:
        below = [0.0, i * (1.0 - s_i) * low, z + i * s_i + p / max(least, 1e-9) ** 2]
    above = [0.0, 0.0, z + i / most + p / most**2]
    return tuple(inside), tuple(below), tuple(above), extra, exponent


def _outside(
    laws: Sequence[Load], law: IntArray, side: int, u: FloatArray, edges: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Coefficients of u and u^2 of P (``side`` 0) or Q (1) outside of the band, at the side on which port voltages u
    are, shape (ports, T) each; ``edges`` are ``v_low_pu`` and ``v_min_pu``, under the first of which a load is its
    nominal impedance."""
    v_low, v_min = edges
    found = np.array([(*_law(d, side)[1][1:], _law(d, side)[2][2]) for d in laws])[law]
    linear, square, above = (found[:, k].reshape(-1, 1) for k in range(3))
    between = (u > v_low) & (u <= v_min)
    return np.where(between, linear, 0.0), np.where(between, square, np.where(u <= v_low, 1.0, above))


__all__ = ["MODELS", "Load", "idling_name", "is_generation", "is_idling"]
