"""Jumps in the laws of loads: on which side a schedule keeps its loads, and whether that is the only state there is.

Some load models of OpenDSS draw more power just below an edge of their band than just above it (a CVR load at 0.95 of
its power within, all of it outside). No load can be in between, and near the edge there can be two states: the load
above, or the load below with the voltage that its larger power leaves. A problem is written for one side of every jump.
After its solve

* a load that went up through a jump has the law above it from then on; where limits of the bus leave no room there, it
  is kept below;
* one that came down into its band has the law there, and one that went so far below its band that it draws less than
  right above the jump has the law below; one that went less far is kept above by a limit;
* power flows of the schedule are begun without load, and at its voltages 1 % lower and higher. Where one ends with a
  load on the other side of a jump, the simulator may find that state too: a load that fell is kept so far above that it
  would come back, one that rose is kept there, or as far below where it must not be there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lateral.case import Case
from lateral.formulations import Beside
from lateral.network.admittance import NodeIndex
from lateral.network.branches import RadialNetwork
from lateral.network.schema import ComplexArray, FloatArray
from lateral.operating import schedule_flow
from lateral.program import Program

#: A voltage further than this beyond a side is beyond it, pu.
SIDE_PU = 1e-6
#: What goes up through a jump by less than this is kept there, pu.
ABOVE_PU = 1e-4
#: So far is the start of the power flow that looks for a second state, as a share of the voltage.
APART = 0.01
#: By how many times the least change a second state is done away with: right at it a power flow may still find it.
SURE = 1.5


def beyond_sides(program: Program, x: FloatArray) -> float:
    """How far voltages are beyond what devices took for granted, pu; 0 for not at all."""
    return max((float(a.beyond(x).max(initial=0.0)) for a in program.assumptions), default=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Crossed:
    """Loads that are on another side of a jump than was taken.

    Attributes:
        count: loads and steps.
        beside: voltages that keep loads away from jumps, those of before included.
        stuck: whether nothing that is known here would change that.
        unknown: steps at which a power flow did not converge, so that nothing is known.
    """

    count: int = 0
    beside: Beside = field(default_factory=Beside)
    stuck: bool = False
    unknown: int = 0


def crossed(program: Program, x: FloatArray, beside: Beside, *, fall: bool = True) -> Crossed:
    """Loads beyond the side of a jump that was taken when a program was built.

    Args:
        program: the program.
        x: its variables.
        beside: voltages that are kept already.
        fall: whether loads may go down through a jump.
    """
    count, lowest, highest = 0, dict(beside.above), dict(beside.below)
    for assumption in program.assumptions:
        if (jumps := assumption.jumps) is None:
            continue
        u = jumps.across(x)
        low, high = jumps.low + jumps.beside, jumps.high + jumps.beside
        down, up = u < low - SIDE_PU, u > jumps.high - jumps.beside + SIDE_PU
        count += int(np.sum(down | up))
        names, room = assumption.block.elements, high < jumps.most
        # further up the schedule's own voltage says on which side it is
        held, risen = down & ((u >= jumps.less) | (not fall)), up & room & (u < high + ABOVE_PU)
        _raise(lowest, names, np.where(held, low, np.where(risen, high, 0.0)))
        _lower(highest, names, np.where(up & ~room, jumps.high - jumps.beside, np.inf))
    return Crossed(count, Beside(lowest, highest))


def second_state(
    case: Case,
    program: Program,
    x: FloatArray,
    network: RadialNetwork,
    v_pu: ComplexArray,
    beside: Beside,
) -> Crossed:
    """Loads that another power flow of the same schedule has on another side of a jump.

    Args:
        case: the case.
        program: its program.
        x: its variables.
        network: the branches, for the order of nodes.
        v_pu: the schedule's voltages in the order of `NodeIndex`, shape (n, T).
        beside: voltages that are kept already.
    """
    sides = [(a.block.elements, a.jumps, a.jumps.across(x)) for a in program.assumptions if a.jumps is not None]
    count, lowest, highest = 0, dict(beside.above), dict(beside.below)
    index = NodeIndex.of(case.feeder)
    place = [index.position[node] for node in network.nodes]
    lower, higher = 1.0 - APART, 1.0 + APART
    near_low = any(np.any(lower * u < jumps.low) for _, jumps, u in sides)
    near_high = any(np.any(higher * u > jumps.high) for _, jumps, u in sides)
    if not near_low and not near_high:
        return Crossed(0, beside)
    flows = [schedule_flow(case, program, x)]
    starts = ([lower] if near_low else []) + ([higher] if near_high else [])
    volt = v_pu * (1000.0 * index.v_base_kv[:, None])
    flows += [schedule_flow(case, program, x, start=share * volt) for share in starts]
    unknown = int(np.sum(~np.all([flow.converged for flow in flows], axis=0)))
    for names, jumps, u in sides:
        fell, rose = np.zeros(u.shape, dtype=bool), np.zeros(u.shape, dtype=bool)
        lowest_there, highest_there = u.copy(), u.copy()
        for flow in flows:
            v: ComplexArray = np.vstack([flow.v_pu[place], np.zeros((1, flow.v_pu.shape[1]))])
            there = np.where(flow.converged, np.abs(v[jumps.a] - v[jumps.b]), u)
            fell |= (there < jumps.low) & (u >= jumps.low)
            rose |= (there > jumps.high) & (u <= jumps.high)
            lowest_there, highest_there = np.minimum(lowest_there, there), np.maximum(highest_there, there)
        count += int(np.sum(fell | rose))
        # voltages move together: raised by what it is below the jump there, a load comes back from there
        raised = np.minimum(u + SURE * (jumps.low - lowest_there), jumps.low / lower)
        lowered = np.maximum(u - SURE * (highest_there - jumps.high), jumps.high / higher)
        high = jumps.high + jumps.beside
        _raise(lowest, names, np.where(fell, raised + jumps.beside, np.where(rose & (high < jumps.most), high, 0.0)))
        _lower(highest, names, np.where(rose & (high >= jumps.most), lowered - jumps.beside, np.inf))
    found = Beside(lowest, highest)
    return Crossed(count, found, stuck=found.same_as(beside), unknown=unknown)


def _raise(lowest: dict[str, FloatArray], names: tuple[str, ...], to: FloatArray) -> None:
    """Keep ports above at least these voltages, shape (n, T)."""
    for k in np.flatnonzero((to > 0.0).any(axis=1)).tolist():
        lowest[names[k]] = np.maximum(lowest.get(names[k], 0.0), to[k])


def _lower(highest: dict[str, FloatArray], names: tuple[str, ...], to: FloatArray) -> None:
    """Keep ports below at most these voltages, shape (n, T)."""
    for k in np.flatnonzero((to < np.inf).any(axis=1)).tolist():
        highest[names[k]] = np.minimum(highest.get(names[k], np.inf), to[k])


__all__ = ["Crossed", "crossed", "second_state"]
