"""Slopes: how what an area says at its borders moves with what it is told there.

In consensus an area solves ``min f(x) + sum_b (lin_b x_b + 1/2 w_b x_b^2)``, x_b what crosses its borders. At the
optimum x_b is the derivative of the minimum by lin_b, and the second derivative ``J = d x_b / d lin_b`` is symmetric,
and negative semidefinite where the area is convex; ``J w`` has its eigenvalues between -1, where f does not mind, and
0, where f holds x. Where f has corners (limits) J jumps; the point of the central path at a duality gap has a smooth
one, and the derivative by the gap says where x goes as it falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lateral.areas.quantities import copies
from lateral.devices import BorderHead, BorderTail
from lateral.devices.border import border_rows
from lateral.model import Model
from lateral.network.schema import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """What an area says of its borders together, k numbers: border by border; at each by quantity, in the order of
    `lateral.areas.quantities.copies` (matrices of voltages in symmetrical components); by conductor; by step.

    Attributes:
        borders: names, in order.
        lin: d x / d lin, in the unit of x over that of lin, shape (k, k).
        gap: d x / d log(gap), of the duality gap that the area's solve was let have, shape (k, 1).
    """

    borders: tuple[str, ...]
    lin: FloatArray
    gap: FloatArray


def slopes_of(
    model: Model, heads: Sequence[BorderHead], tails: Sequence[BorderTail], voltages: Sequence[str]
) -> Slopes | None:
    """The slopes of an area's last solve; None where its solver does not know them."""
    program, hours = model.program, model.case.horizon.agreed_hours
    costs = program.maps["c"].matrix.tocsc()
    cells, weights, names = [], [], []
    for kind, group in (("border_head", heads), ("border_tail", tails)):
        place = {row: k for k, row in enumerate(border_rows(group))}
        for device in group:
            names.append(device.name)
            rows = [place[f"{device.name}.{c}"] for c in device.crossing]
            for x in copies(voltages):
                slot = program.slots[f"{kind}.lin_{x}"]
                cells.append(
                    (slot.start + np.array(rows)[:, None] * slot.n_steps + np.arange(slot.n_steps)).reshape(-1)
                )
                weights.append(np.tile(hours if x in ("p", "q") else np.ones_like(hours), len(rows)))
    if not cells:
        return None
    columns = sp.csc_array(costs[:, np.concatenate(cells)])
    weight = np.concatenate(weights)  # of the objective: lin x counts for the hours of a step
    found = model.slopes(columns)
    if found is None:
        return None
    return Slopes(tuple(names), found[0] / weight[:, None], found[1][:, None] / weight[:, None])


__all__ = ["Slopes", "slopes_of"]
