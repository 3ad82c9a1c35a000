"""Static compensators behind a converter (D-STATCOM): reactive power at any voltage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import (
    LOST_KW,
    PHASES,
    BoolArray,
    DeviceContext,
    DevicePorts,
    ShuntDevice,
    column,
    port_outputs,
)
from lateral.network.schema import FloatArray, IntArray, spec
from lateral.program import Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class Statcom(ShuntDevice):
    """A converter that gives or takes kvar, the same capability at any voltage."""

    kind: ClassVar[str] = "statcom"
    table: ClassVar[str] = "statcoms"

    q_rated_kvar: float = spec("Most reactive power it gives or takes, all phases.", unit="kvar", above=0.0)
    loss_share: float = spec("Active power that it draws, as a share of |q|.", default=0.0, minimum=0.0, maximum=0.5)
    phases: str = spec(
        "balanced: q divides equally over its ports; free: q is decided at each, within its share of the rating.",
        default="balanced",
        choices=PHASES,
    )

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Give or take reactive power.

        ::

            -q_rated <= q <= q_rated       free: at every port |q_k| <= q_rated / ports,  q = sum of q_k
            p = -loss_share |q|            drawn;  free: -loss_share sum of |q_k|

        |q| is written as ``q_up + q_down`` with ``q = q_up - q_down``, both >= 0 (linear). This is exact as long as a
        kWh drawn costs something. Where it does not, an exact form is solved again with each such step held to give or
        to take (`lateral.results.one_way`); any other result in which a statcom burns energy says so.
        """
        where = ctx.ports(group)
        free = np.array([d.phases == "free" for d in group], dtype=bool) & (
            np.bincount(where.owner, minlength=len(group)) > 1
        )
        held = np.flatnonzero(~free)
        p, q = Affine.zeros(len(where.owner), ctx.n_steps), Affine.zeros(len(where.owner), ctx.n_steps)
        if len(held):
            p, q = (
                where.spread(a)
                for a in _decided(group, held, np.ones(len(held)), [group[k].name for k in held.tolist()], ctx)
            )
        own = np.flatnonzero(free[where.owner])
        if len(own):
            names = where.names(group)
            of = where.owner[own]
            more = _decided(group, of, where.share[own], [names[k] for k in own.tolist()], ctx)
            place = (len(where.owner), own, np.arange(len(own)), np.ones(len(own)))
            p, q = (a + by_port.map_terms(*place) for a, by_port in zip((p, q), more, strict=True))
        _name(group, where, p, q, free, ctx)
        ctx.net.inject(where.ports, p, q)


def _decided(
    group: Sequence[Statcom], of: IntArray, share: FloatArray, names: Sequence[str], ctx: DeviceContext
) -> tuple[Affine, Affine]:
    """p and q, decided by device (``share`` 1: a row per device of the group) or by port (a row per name)."""
    builder, kva = ctx.builder, ctx.base.total_kva
    rating = column(group, "q_rated_kvar")[of] / kva * share.reshape(-1, 1)
    loss = column(group, "loss_share")[of]
    by_port = bool(np.any(share != 1.0))
    quantity = "q_at_port" if by_port else "q"
    rows = np.arange(len(of)) if by_port else of
    n = len(of) if by_port else len(group)
    p, q = Affine.zeros(n, ctx.n_steps), Affine.zeros(n, ctx.n_steps)
    for lossy in (False, True):
        own = np.flatnonzero((loss[:, 0] > 0.0) == lossy)
        if not len(own):
            continue
        named, size = [names[k] for k in own.tolist()], rating[own]
        place = (n, rows[own], np.arange(len(own)), np.ones(len(own)))

        def variable(suffix: str, low: FloatArray, named: list[str] = named, size: FloatArray = size) -> Affine:
            return builder.variable(
                "statcom" if not by_port else "statcom_port",
                quantity + suffix,
                named,
                unit="kvar",
                to_unit=kva,
                lower=low,
                upper=size,
                scale=size,
                limit=False,
            )

        if not lossy:
            q = q + variable("", -size).map_terms(*place)
            continue
        up, down = variable("_up", np.zeros_like(size)), variable("_down", np.zeros_like(size))
        q = q + (up - down).map_terms(*place)
        p = p - ((up + down) * loss[own]).map_terms(*place)
        _certify(quantity, named, of[own], up, down, loss[own], ctx)
    return p, q


def _certify(
    quantity: str, names: Sequence[str], of: IntArray, up: Affine, down: Affine, loss: FloatArray, ctx: DeviceContext
) -> None:
    """Name the losses that exist in the model alone: giving and taking at once. ``of`` is the device of each row."""
    kva = ctx.base.total_kva
    cells = [a.col.reshape(a.shape) for a in (up, down)]

    def excess(x: FloatArray, _y: FloatArray, _nu: FloatArray) -> FloatArray:
        return np.asarray(2.0 * loss * np.minimum(x[cells[0]], x[cells[1]]))

    most = LOST_KW / (2.0 * loss * kva)
    ctx.builder.oppose(("statcom", "statcoms"), "to give or to take kvar", down, up, most, owner=of)
    component = "statcom" if quantity == "q" else "statcom_port"
    ctx.builder.derive(component, "loss_excess", names, excess, unit="kW", to_unit=kva)


def _name(
    group: Sequence[Statcom], where: DevicePorts, p: Affine, q: Affine, free: BoolArray, ctx: DeviceContext
) -> None:
    """Outputs: totals of every device, and ports of those whose ports differ."""
    names, kva = [d.name for d in group], ctx.base.total_kva
    ctx.builder.output("statcom", "p_injected", names, where.total(p), unit="kW", to_unit=kva)
    ctx.builder.output("statcom", "q_injected", names, where.total(q), unit="kvar", to_unit=kva)
    port_outputs(ctx, group, where, free, p, q)
