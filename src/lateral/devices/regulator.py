"""Voltage regulators: the control of a transformer winding's tap, held at the tap it is at, or decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lateral.devices.base import Declared, DeviceContext, column
from lateral.network.schema import spec
from lateral.program import Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class Regulator(Declared):
    """A tap controller on a transformer winding. The tap itself is the winding's."""

    kind: ClassVar[str] = "regulator"
    table: ClassVar[str] = "regulators"
    setting: ClassVar[str] = "tap"

    transformer: str = spec("Name of the transformer whose tap it moves.")
    winding: int = spec("Number of the winding that carries the taps (1 = first).", default=2, minimum=1)
    decision: str = spec(
        "fixed: the tap stays where it is; step: it is decided at every step; day: once for the whole horizon.",
        default="fixed",
        choices=("fixed", "step", "day"),
    )
    gang: str = spec(
        "Name shared by regulators that move together: where their taps are decided, they have one.", default=""
    )
    v_set: float = spec("Set point, on the secondary of the voltage transformer.", unit="V", default=120.0, above=0.0)
    band: float = spec("Width of the dead band.", unit="V", default=2.0, above=0.0)
    pt_ratio: float = spec("Ratio of the voltage transformer.", default=60.0, above=0.0)
    ct_primary_a: float = spec("Primary rating of the current transformer.", unit="A", default=300.0, above=0.0)
    ldc_r: float = spec("Line-drop compensation, resistance.", unit="V", default=0.0)
    ldc_x: float = spec("Line-drop compensation, reactance.", unit="V", default=0.0)
    tap_min: float = spec("Lowest tap.", unit="pu", default=0.9, above=0.0)
    tap_max: float = spec("Highest tap.", unit="pu", default=1.1, above=0.0)
    n_steps: int = spec("Number of tap steps between lowest and highest.", default=32, minimum=1)

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """Decide the tap a of a winding, without steps, the same for all of its phases.

        ::

            U = a E,   I = a J,      tap_min <= a <= tap_max          at every step, or one a for the whole horizon

        Regulators of one gang have one a. E and I are voltage and current of the winding at rated turns, U and J those
        at its terminals; the rest of the transformer is as it is (`lateral.network.tapped`). Exact but for the steps of
        a real tap changer. A formulation that cannot write this holds the tap, and the result says so.
        """
        own = {t.name: t for t in ctx.feeder.transformers}
        present = {d.name: own[d.transformer].windings[d.winding - 1].tap for d in group}
        asked = [d for d in group if d.decision != "fixed"]
        gangs: dict[str, list[tuple[str, Affine]]] = {}
        for decision in ("step", "day"):
            taken: list[Self] = []
            for d in (d for d in asked if d.decision == decision):
                reason = ctx.net.declines_ratio(d.transformer, d.winding)
                if reason:
                    ctx.notes.append(f"{d.label}: tap held at {present[d.name]:.6g}, because {reason}")
                    _name([d.name], Affine.constant(np.full((1, ctx.n_steps), present[d.name])), ctx)
                else:
                    taken.append(d)
            if not taken:
                continue
            low, high = column(taken, "tap_min"), column(taken, "tap_max")
            tap = ctx.builder.variable(
                "regulator",
                f"tap_{decision}",
                [d.name for d in taken],
                unit="pu",
                lower=low,
                upper=high,
                start=np.clip(np.array([[present[d.name]] for d in taken]), low, high),
                n_steps=ctx.n_steps if decision == "step" else 1,
            )
            if decision == "day":
                tap = tap.repeat_steps(ctx.n_steps)
            for k, d in enumerate(taken):
                one = tap.take(np.array([k]))
                ctx.net.ratio(d.transformer, d.winding, one)
                if d.gang:
                    gangs.setdefault(d.gang, []).append((d.name, one))
            _name([d.name for d in taken], tap, ctx)
        for (_, first), *others in gangs.values():
            for name, other in others:
                ctx.builder.equal("regulator", "gang", [name], other - first, unit="pu")


def _name(names: Sequence[str], tap: Affine, ctx: DeviceContext) -> None:
    ctx.builder.output("regulator", "tap", names, tap, unit="pu")
