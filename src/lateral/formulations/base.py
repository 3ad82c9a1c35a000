"""What a formulation is: a name, what it declines, and the network model that it offers to devices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lateral.errors import Fault
from lateral.network.admittance import Node
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Feeder
from lateral.network.schema import ComplexArray, FloatArray
from lateral.program import ProgramBuilder
from lateral.program.ports import NetworkModel
from lateral.units import Base


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """Voltages of a solved power flow, at which a formulation may be made.

    Attributes:
        nodes: the nodes.
        v_pu: complex voltages on the buses' bases, shape (n, T) or (n, 1).
        injected_pu: complex currents that devices put into the nodes, same shape.
        loaded: False for the no-load point (nominal angles, no currents).
        above, below: voltages that schedules keep above or below a jump of a load's law: lowest or highest |V| across
            ports, pu, by port, (T,).
        reach: largest current that another area can draw at nodes beyond which it is, pu, by node, shape (T,).
        kept: nodes that another area feeds, and whose limits it keeps.
    """

    nodes: tuple[Node, ...]
    v_pu: ComplexArray
    injected_pu: ComplexArray
    loaded: bool
    above: Mapping[str, FloatArray] = field(default_factory=dict)
    below: Mapping[str, FloatArray] = field(default_factory=dict)
    reach: Mapping[Node, FloatArray] = field(default_factory=dict)
    kept: frozenset[Node] = frozenset()


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
    #: whether its rows are to first order at a point, made again in rounds
    first_order: ClassVar[bool] = False
    #: why areas cannot be told voltages in it, so that only algorithms work in which both sides of a border decide on
    #: them; empty where they can
    consensus_only: ClassVar[str] = ""
    #: penalty of `admm` that ``auto`` takes in it (measured)
    consensus_penalty: ClassVar[float] = 1.0
    #: and its ``ratio_unbalance`` (measured)
    consensus_ratio: ClassVar[float] = 1.0
    #: and its ``depth``
    consensus_depth: ClassVar[int] = 10
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
