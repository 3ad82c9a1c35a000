"""What a formulation is: a name, what it declines, and the network model that it offers to devices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lateral.errors import Fault
from lateral.network.admittance import Node
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray
from lateral.program import ProgramBuilder
from lateral.program.ports import Crossing, NetworkModel
from lateral.units import Base


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """Voltages across ports that keep loads away from a jump of their law: |V| in pu by port, shape (T,) each.

    Attributes:
        above: the lowest; 0 for none.
        below: the highest; infinite for none.
    """

    above: Mapping[str, FloatArray] = field(default_factory=dict)
    below: Mapping[str, FloatArray] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.above or self.below)

    def within(self, other: Beside) -> Beside:
        """What keeps both."""
        above, below = dict(self.above), dict(self.below)
        for port, lowest in other.above.items():
            above[port] = np.maximum(above.get(port, 0.0), lowest)
        for port, highest in other.below.items():
            below[port] = np.minimum(below.get(port, np.inf), highest)
        return Beside(above, below)

    def same_as(self, other: Beside) -> bool:
        """Whether the same ports are kept beside the same voltages."""
        pairs = ((self.above, other.above), (self.below, other.below))
        return all(a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a) for a, b in pairs)

    def of(self, ports: Collection[str]) -> Beside:
        """Of some ports alone."""
        return Beside(*({k: v for k, v in side.items() if k in ports} for side in (self.above, self.below)))

    def data(self) -> dict[str, dict[str, list[float]]]:
        """As plain data, 0 for none on either side."""
        below = {port: np.where(np.isfinite(v), v, 0.0).tolist() for port, v in self.below.items()}
        return {"above": {port: v.tolist() for port, v in self.above.items()}, "below": below}

    @classmethod
    def of_data(cls, data: Mapping[str, Mapping[str, Sequence[float]]]) -> Beside:
        """From what `data` made."""
        above, below = (
            {port: np.asarray(v, dtype=float) for port, v in data.get(side, {}).items()} for side in ("above", "below")
        )
        return cls(above, {port: np.where(v > 0.0, v, np.inf) for port, v in below.items()})


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """Voltages of a solved power flow, at which a formulation may be made.

    Attributes:
        nodes: the nodes.
        v_pu: complex voltages on the buses' bases, shape (n, T) or (n, 1).
        injected_pu: complex currents that devices put into the nodes, same shape.
        loaded: False for the no-load point (nominal angles, no currents).
        beside: voltages that schedules keep, so that loads stay away from a jump of their law.
        reach: largest current that another area can draw at nodes beyond which it is, pu, by node, shape (T,).
        kept: nodes that another area feeds, and whose limits it keeps.
        crossing: what can occur at buses where areas meet, as other areas said it.
    """

    nodes: tuple[Node, ...]
    v_pu: ComplexArray
    injected_pu: ComplexArray
    loaded: bool
    beside: Beside = field(default_factory=Beside)
    reach: Mapping[Node, FloatArray] = field(default_factory=dict)
    kept: frozenset[Node] = frozenset()
    crossing: Mapping[str, Crossing] = field(default_factory=dict)


class Formulation(ABC):
    """Base of every formulation; a leaf is final and holds only what differs."""

    #: the name that users give
    name: ClassVar[str]
    #: one sentence for tables
    title: ClassVar[str]
    #: True when it works on one conductor per bus only (a balanced feeder)
    balanced_only: ClassVar[bool]
    #: "none", "no-load" or "loaded": the operating point that it is made at
    point: ClassVar[str]
    #: True when it is a convex relaxation, whose optimum is a lower bound of an exact form's
    relaxes: ClassVar[bool] = False
    #: True when it needs a radial feeder; it then gets the branches of `radial_network`, else those of `wire_network`
    radial_only: ClassVar[bool] = True
    #: True when limits far from binding, and laws of loads far from an edge of their band, are left out: they are
    #: looked at after the solve, and written in a further one where that was wrong (lazy constraints)
    lazy: ClassVar[bool] = False
    #: the model that devices meet, where `network` is not the formulation's own
    model: ClassVar[Callable[..., NetworkModel]]
    #: whether its programs are convex
    convex: ClassVar[bool] = True
    #: whether its rows are to first order at a point, made again in rounds
    first_order: ClassVar[bool] = False
    #: why areas cannot be told voltages in it, so that only algorithms work in which both sides of a border decide on
    #: them; empty where they can
    consensus_only: ClassVar[str] = ""
    #: penalty of `admm` that ``auto`` takes in it (measured)
    consensus_penalty: ClassVar[float] = 1.0
    #: and its ``ratio_unbalance`` (measured)
    consensus_ratio: ClassVar[float] = 1.0
    #: whether it bounds currents, so that areas must know the largest one beyond a border, see `OperatingPoint.reach`
    bounds_currents: ClassVar[bool] = False
    #: what its areas say of a voltage at a border, see `NetworkModel.voltages`
    voltages: ClassVar[tuple[str, ...]] = NetworkModel.voltages

    @abstractmethod
    def declines(self, feeder: Feeder, network: RadialNetwork) -> tuple[Fault, ...]:
        """Why this formulation cannot take the feeder; empty when it can."""

    def network(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint | None,
    ) -> NetworkModel:
        """The network model that devices meet: the class named in ``model``.

        Raises:
            ValueError: the formulation is made at an operating point, and none is given.
        """
        if point is None and self.point != "none":
            message = f"{self.name} is made at an operating point"
            raise ValueError(message)
        return type(self).model(builder, feeder, network, base, point)


__all__ = ["Formulation", "OperatingPoint"]
