"""The words of OpenDSS as the scan takes them: its commands, options, classes and properties, and what each may do.

The names themselves are the engine's (`lateral.io.opendss._names`); which of them are passed on, left out or refused
is said here. What is on no list is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from lateral.io.opendss import _names


def _abbreviations(names: Iterable[str]) -> dict[str, str]:
    """Every spelling that the engine takes for a name: exact first, else the first name it begins.

    ``Command.pas``, TCommandList.
    """
    listed = list(names)
    table = {name.lower(): name for name in reversed(listed)}
    for name in listed:
        low = name.lower()
        for end in range(1, len(low)):
            table.setdefault(low[:end], name)
    return table


VERBS = {short: full.lower() for short, full in _abbreviations(_names.COMMANDS).items()}
VERB_NAMES = sorted(name.lower() for name in _names.COMMANDS if name[0].isalpha() and len(name) > 2)
OPTION_ORDER = [name.lower() for name in _names.OPTIONS]
OPTIONS = {short: full.lower() for short, full in _abbreviations(_names.OPTIONS).items()}
CLASSES = {name.lower(): name for name in _names.PROPERTIES}
POSITIONS = {name.lower(): [p.lower() for p in listed] for name, listed in _names.PROPERTIES.items()}
SHORT = {
    name.lower(): {short: full.lower() for short, full in _abbreviations(listed).items()}
    for name, listed in _names.PROPERTIES.items()
}

# Classes that hold data only: there, a second `New` edits the first object.
GENERAL = frozenset(
    {
        "linecode", "loadshape", "tshape", "priceshape", "xycurve", "growthshape", "tcc_curve", "spectrum",
        "wiredata", "cndata", "tsdata", "linespacing", "linegeometry", "xfmrcode", "dynamicexp",
    }
)  # fmt: skip

FORBIDDEN_VERBS = {
    "fileedit": "starts an editor",
    "doscmd": "runs a program",
    "cd": "changes the working folder",
    "save": "writes a folder of files",
    "alignfile": "writes a file and starts an editor",
    "connect": "opens a network connection",
    "disconnect": "closes a network connection",
    "_showcontrolqueue": "writes a file and starts an editor",
    "uuids": "reads a file that is not part of the model",
    "rephase": "writes a script",
    "cvrtloadshapes": "writes files",
    "setloadandgenkv": "writes a script",
}
UNSUPPORTED_VERBS = frozenset(
    {
        "reduce", "remove", "reconductor", "distribute", "estimate", "obfuscate", "clone", "newactor",
        "wait", "solveall", "abort", "updatestorage", "finishtimestep", "_initsnap", "_solvenocontrol",
        "_samplecontrols", "_docontrolactions", "_solvedirect", "_solvepflow", "makeposseq",
    }
)  # fmt: skip
# Commands that the engine runs, with their arguments.
PLAIN_VERBS = frozenset(
    {
        "clear", "clearall", "calcvoltagebases", "setkvbase", "buildy", "init", "reset", "allocateloads",
        "makebuslist", "reprocessbuses", "setbusxy",
    }
)  # fmt: skip
OBJECT_VERBS = frozenset({"open", "close", "enable", "disable", "select"})

FORBIDDEN_PROPERTIES = frozenset(
    {"usermodel", "userdata", "shaftmodel", "shaftdata", "dynadll", "dynadata"}
)  # each names a native library that the engine loads, or what to hand to it
FILE_PROPERTIES = frozenset({"csvfile", "sngfile", "dblfile", "pqcsvfile"})
DROPPED_PROPERTIES = {
    "debugtrace": "writes a trace file",
    "memorymapping": "maps a file instead of reading it; the values are the same",
}
# Properties by which the engine allocates.
SIZES = frozenset({"phases", "nphases", "nconds", "windings", "seasons", "numsteps", "numharm", "nvariables"})
BUSES = frozenset({"bus", "bus1", "bus2", "buses", "bush", "busnh", "busx", "busnx", "monbus", "vbus"})
SHAPE_CLASSES = frozenset({"loadshape", "tshape", "priceshape"})

FORBIDDEN_OPTIONS = {
    "editor": "names a program to start",
    "datapath": "changes the folder of input and output",
    "recorder": "writes every command to a file",
    "registryupdate": "writes outside the case",
    "dssvisualizationtool": "names a program to start",
}
UNSUPPORTED_OPTIONS = frozenset({"allowduplicates", "circuit"})
# Options that say how the circuit is solved; everything else (plots, meters, reports, processors) is left out.
SOLUTION_OPTIONS = frozenset(
    {
        "type", "class", "object", "element", "hour", "sec", "year", "frequency", "stepsize", "h", "mode",
        "random", "number", "time", "tolerance", "maxiterations", "miniterations", "loadmodel", "loadmult",
        "normvminpu", "normvmaxpu", "emergvminpu", "emergvmaxpu", "%mean", "%stddev", "ldcurve", "%growth",
        "voltagebases", "algorithm", "trapezoidal", "controlmode", "genmult", "defaultdaily", "defaultyearly",
        "allocationfactors", "cktmodel", "pricesignal", "pricecurve", "terminal", "basefrequency",
        "maxcontroliter", "bus", "%normal", "cfactors", "numallociterations", "defaultbasefrequency",
        "loadshapeclass", "earthmodel", "neglectloady", "zmag", "seasonrating", "seasonsignal", "linetypes",
        "longlinecorrection", "zonelock", "keepload",
    }
)  # fmt: skip
