"""Every fault code with its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lateral.errors import Fault

#: Every code with what it says.
CODES: Mapping[str, str] = MappingProxyType(
    {
        "VAL-001 type": "A value is not of the type that its field takes.",
        "VAL-002 not finite": "A number is NaN, or infinite where no infinity is allowed.",
        "VAL-003 out of range": "A number lies outside the bounds of its field.",
        "VAL-004 unknown word": "A word is none of those that its field takes.",
        "VAL-005 name": "A name is empty or holds characters that cannot be written to a file.",
        "VAL-006 limits crossed": "A lower limit lies above its upper limit.",
        "VAL-007 duplicate name": "Two elements of one kind have the same name.",
        "NET-001 no source": "The case has no upstream grid, so no bus can be fed.",
        "NET-002 unknown bus": "An element names a bus that does not exist.",
        "NET-003 island": "Buses have no closed path to a source.",
        "NET-004 loop": "Closed branches form a loop, and the formulation needs a radial feeder.",
        "NET-005 unknown conductor": "An element uses a conductor that its bus does not have.",
        "NET-006 dead conductor": "No branch feeds a phase, whose voltage has a lower limit or follows from nothing.",
        "NET-007 conductors": "A list of conductors is empty, repeated, out of order or of the wrong length.",
        "NET-008 zero impedance": "A branch has a conductor without resistance and reactance.",
        "NET-009 matrix shape": "A matrix is not square over the conductors of its element.",
        "NET-010 matrix values": "A matrix holds NaN or infinity.",
        "NET-011 asymmetric matrix": "A matrix is not symmetric.",
        "NET-012 negative resistance": "A branch or source would produce energy: its resistance matrix is negative.",
        "NET-013 voltage limits": "The voltage limits of a bus leave no room.",
        "NET-014 voltage bases": "A line or switch joins buses of different voltage bases.",
        "NET-015 windings": "A transformer has a wrong number of windings, terminals or leakage values.",
        "NET-016 leakage": "A winding pair has no leakage impedance, or a negative one.",
        "NET-017 winding voltage": "The rated voltage of a winding does not fit the base of its bus.",
        "NET-018 self loop": "A branch joins a conductor to itself.",
        "NET-019 two sources": "Two sources feed one network, and the formulation needs one root.",
        "NET-020 no buses": "The feeder has no buses.",
        "NET-021 balanced": "A balanced feeder has more than one conductor at a bus.",
        "NET-022 areas": "The map of areas does not match the buses.",
        "NET-023 no ground": "Nothing ties the voltage of some buses to ground.",
        "DEV-001 terminals": "The terminals of a device do not fit its connection.",
        "DEV-002 box limit": "A box limit on reactive power needs s_max of at least the active power.",
        "DEV-003 state of charge": "The initial state of charge lies outside its limits.",
        "DEV-004 regulator": "A regulator names a transformer or winding that does not exist or is taken.",
        "DEV-005 tap": "The tap of a regulated winding lies outside the range of its regulator.",
        "DEV-006 source angles": "A source needs one angle per conductor.",
        "DEV-007 source voltage": "The source voltage lies outside the limits of its bus.",
        "DEV-008 power factor": "A power factor of zero fixes no reactive power.",
        "DEV-009 rated voltage": "The rated voltage of a device does not fit the base of its bus.",
        "DEV-010 colliding sources": "Two sources without impedance hold the same conductor.",
        "DEV-011 arbitrage": "Energy sells for more than it costs, so that buying and selling at once has no limit.",
        "DEV-012 border": "A border of an area holds a value that it has no use for, or that cannot be one.",
        "DEV-013 inverter curve": "The curve of an inverter is no falling curve of the voltage, or has no use.",
        "DEV-014 capacitor bank": "More of a capacitor bank is on than there is.",
        "DEV-015 soft open point": "The second end of a soft open point does not fit the first one.",
        "PRO-001 unknown profile": "An element names a profile that does not exist.",
        "PRO-002 length": "A profile does not have one value per step.",
        "PRO-003 not finite": "A profile holds NaN, or infinity where it is not a limit.",
        "PRO-004 pv profile": "A PV profile is negative or far above 1.",
        "PRO-005 values": "A profile is not a row of numbers.",
        "HOR-001 no steps": "The horizon has no steps.",
        "HOR-002 step length": "A step has no length, a negative one, or one that is not a number.",
        "HOR-003 weight": "The weights are negative, not numbers, or not one per step.",
        "HOR-004 breaks": "A break lies outside the horizon.",
        "HOR-005 time": "The start or the time zone cannot be read.",
        "UNI-001 load too large": "The loads draw a current that no feeder carries: a unit is wrong.",
        "UNI-002 load too small": "The loads draw next to nothing: a unit is wrong.",
        "UNI-003 device too large": "A rating gives a current that no feeder carries: a unit is wrong.",
        "UNI-004 voltage drop": "The voltage drop of a branch at its load exceeds 100 %: a unit is wrong.",
        "UNI-005 voltage base": "A voltage base is no voltage of a distribution feeder: a unit is wrong.",
        "UNI-006 price": "A price is beyond any tariff: a unit is wrong.",
        "UNI-007 battery hours": "Capacity over power is no battery's duration: a unit is wrong.",
        "UNI-008 step hours": "A step is longer than a day: a unit is wrong.",
        "UNI-009 angles": "The angles of a source do not spread over the phases: radians given as degrees.",
    }
)

#: Codes that no rule of `lateral.check` finds, because only building a network or a formulation shows them.
BUILD_CODES: Mapping[str, str] = MappingProxyType(
    {
        "NET-040 singular impedance": "The impedance matrix of an element has no inverse.",
        "NET-041 no branch": "A generic admittance is no branch, and the formulation needs a radial feeder.",
        "FOR-001 not-balanced": "A bus has more than one conductor, and the formulation is balanced.",
        "FOR-010 no-operating-point": "The power flow at which a linear model is made converges at no step.",
        "FOR-011 no-settled-curve": "The power flow does not settle with inverters on their curves of the voltage.",
        "FOR-020 no-angles": "The objective is unbalance, and the formulation knows no voltage angles.",
        "FOR-021 limit-needs-angles": "A limit is between phases or of unbalance, and the formulation has no angles.",
    }
)

_FULL = {code[:7]: code for code in CODES}


def fault(code: str, element: str, found: str, allowed: str, action: str) -> Fault:
    """A fault by the short form of its code, ``NET-003``."""
    return Fault(_FULL[code], element, found, allowed, action)
