"""Cuts inside ungrounded parts: what areas cannot settle there, said before the first round.

Behind a delta winding no power depends on the voltage to ground, and areas settle without it (see
``docs/areas/algorithms.md``, "Ungrounded parts"). What does depend on it is not settled in the forms in which it is
held: voltage deviation, which is refused, and limits to ground that bind, which is said.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from lateral.areas.partition import Partition
from lateral.case import Case
from lateral.devices.base import ShuntDevice
from lateral.errors import Fault, UnsupportedError
from lateral.formulations import Formulation
from lateral.network.feeder import Line, Switch
from lateral.objectives import Objective, VoltageDeviation


def ungrounded_parts(case: Case) -> dict[str, str]:
    """The transformer that feeds it of every bus in a part that no winding, shunt, source or device ties to ground.

    Charging of lines and antifloat shunts tie it too lightly to count; what a generic admittance does is not looked at,
    and counts as a tie.
    """
    feeder = case.feeder
    part = {bus.name: bus.name for bus in feeder.buses}

    def root(bus: str) -> str:
        while part[bus] != bus:
            part[bus] = part[part[bus]]
            bus = part[bus]
        return bus

    wires: tuple[Line | Switch, ...] = (*feeder.lines, *(s for s in feeder.switches if s.closed))
    for wire in wires:
        part[root(wire.bus_from)] = root(wire.bus_to)
    windings = [(t, w) for t in feeder.transformers for w in t.windings]
    tied = {root(source.bus) for source in case.sources}
    tied |= {root(bus) for element in feeder.admittances for bus in element.buses}
    tied |= {root(w.bus) for _, w in windings if w.grounded}
    tied |= {root(shunt.bus) for shunt in feeder.shunts if _to_ground(shunt.g_us + 1j * shunt.b_us)}
    tied |= {root(d.bus) for d in case.devices if isinstance(d, ShuntDevice) and 0 in d.terminals}
    # from the sources on, whichever way windings are listed
    across = [(t.label, {root(w.bus) for w in t.windings}) for t in feeder.transformers]
    across += [(element.label, {root(bus) for bus in element.buses}) for element in feeder.admittances]
    reached, feeds, before = {root(source.bus) for source in case.sources}, dict[str, str](), -1
    while len(reached) > before:
        before = len(reached)
        for label, ends in across:
            if ends & reached:
                feeds |= dict.fromkeys(ends - reached, label)
                reached |= ends
    return {bus: feeds[root(bus)] for bus in part if root(bus) not in tied and root(bus) in feeds}


def look_at_ungrounded(
    partition: Partition,
    closed: Collection[str],
    formulation: Formulation,
    objective: Objective,
    limits: str,
) -> tuple[str, ...]:
    """Refuse an objective that areas do not settle in an ungrounded part that is cut; say what they may not settle.

    Args:
        partition: the areas.
        closed: the borders whose currents add up to nothing in the day without control.
        formulation: of every area.
        objective: of the whole.
        limits: see `lateral.build`.

    Returns:
        what a reader must know before the first round, and where the areas do not end certified.

    Raises:
        UnsupportedError: every border at which the objective is declined (``ARE-034``).
    """
    if not closed:
        return ()
    fed_by = ungrounded_parts(partition.case)
    inside = {b.name: fed_by[b.bus] for b in partition.borders.values() if b.name in closed and b.bus in fed_by}
    held = "v_re" in formulation.voltages
    faults = []
    if held and any(w and isinstance(part, VoltageDeviation) for w, part in objective.terms):
        for name, transformer in inside.items():
            found = (
                f"a cut inside the ungrounded part behind {transformer}, and vdev, which counts voltages to ground: "
                "there they are held, and have no price"
            )
            action = f"Cut before {transformer}, or so that all behind it is in one area; or take another objective."
            faults.append(Fault("ARE-034 ungrounded", f"border.{name}", found, "an objective of powers", action))
    if faults:
        raise UnsupportedError(faults)
    return tuple(_limits_to_ground(partition.case, fed_by, inside)) if held and limits != "none" else ()


def _limits_to_ground(case: Case, fed_by: Mapping[str, str], inside: Mapping[str, str]) -> list[str]:
    """What is said of limits to ground in parts that are cut."""
    out = []
    for transformer in dict.fromkeys(inside.values()):
        some = [
            b.name
            for b in case.feeder.buses
            if fed_by.get(b.name) == transformer and (b.v_min_pu > 0.0 or np.isfinite(b.v_max_pu))
        ]
        borders = ", ".join(repr(name) for name, t in inside.items() if t == transformer)
        if some:
            out.append(
                f"voltages to ground behind {transformer}, an ungrounded part that is cut at {borders}, are held at "
                f"those of the day without control: limits of them that bind ({len(some)} buses have some) are not "
                "settled by areas; limits between conductors (vpp_min_pu, vpp_max_pu) are"
            )
    return out


def _to_ground(y: np.ndarray) -> bool:
    """Whether a matrix of admittances at a bus has any to ground."""
    return bool((np.abs(y.sum(axis=1)) > 1e-12 * np.abs(y).max(initial=0.0)).any())


__all__ = ["look_at_ungrounded", "ungrounded_parts"]
