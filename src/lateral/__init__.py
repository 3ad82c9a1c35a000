"""lateral: optimal operation of active distribution feeders.

    import lateral

    case = lateral.read("ieee123-t24")
    result = lateral.solve(case)
    print(result.status_text, result.cost)

Names are loaded on first use, so that ``import lateral`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lateral.areas.cutting import cut
    from lateral.areas.run import AreasRun
    from lateral.areas.solve import solve_areas
    from lateral.baseline import power_flow
    from lateral.case import Case
    from lateral.checks import check
    from lateral.devices import (
        PV,
        SVC,
        Battery,
        Capacitor,
        Device,
        DeviceContext,
        Load,
        Regulator,
        ShuntDevice,
        SoftOpenPoint,
        Source,
        Statcom,
    )
    from lateral.errors import CaseError, Fault, LateralError
    from lateral.formulations import Formulation
    from lateral.io import read
    from lateral.io.dispatch import Dispatch
    from lateral.io.opendss import write_opendss
    from lateral.io.tables import write_folder
    from lateral.network.feeder import (
        Bus,
        Feeder,
        Line,
        MultiTerminal,
        Shunt,
        Switch,
        Terminal,
        Transformer,
        Winding,
    )
    from lateral.network.horizon import Horizon
    from lateral.objectives import Objective
    from lateral.opf import Model, build, solve
    from lateral.report import write_report
    from lateral.results.result import Result
    from lateral.solvers import Status
    from lateral.studies import compare

_WHERE = {
    "cut": "lateral.areas.cutting",
    "AreasRun": "lateral.areas.run",
    "solve_areas": "lateral.areas.solve",
    "power_flow": "lateral.baseline",
    "Case": "lateral.case",
    "check": "lateral.checks",
    **dict.fromkeys(
        (
            *("PV", "SVC", "Battery", "Capacitor", "Device", "DeviceContext", "Load", "Regulator", "ShuntDevice"),
            *("SoftOpenPoint", "Source", "Statcom"),
        ),
        "lateral.devices",
    ),
    **dict.fromkeys(("CaseError", "Fault", "LateralError"), "lateral.errors"),
    "Formulation": "lateral.formulations",
    "read": "lateral.io",
    "Dispatch": "lateral.io.dispatch",
    "write_opendss": "lateral.io.opendss",
    "write_folder": "lateral.io.tables",
    **dict.fromkeys(
        ("Bus", "Feeder", "Line", "MultiTerminal", "Shunt", "Switch", "Terminal", "Transformer", "Winding"),
        "lateral.network.feeder",
    ),
    "Horizon": "lateral.network.horizon",
    "Objective": "lateral.objectives",
    **dict.fromkeys(("Model", "build", "solve"), "lateral.opf"),
    "write_report": "lateral.report",
    "Result": "lateral.results.result",
    "Status": "lateral.solvers",
    "compare": "lateral.studies",
}

__all__ = [
    "PV",
    "SVC",
    "AreasRun",
    "Battery",
    "Bus",
    "Capacitor",
    "Case",
    "CaseError",
    "Device",
    "DeviceContext",
    "Dispatch",
    "Fault",
    "Feeder",
    "Formulation",
    "Horizon",
    "LateralError",
    "Line",
    "Load",
    "Model",
    "MultiTerminal",
    "Objective",
    "Regulator",
    "Result",
    "Shunt",
    "ShuntDevice",
    "SoftOpenPoint",
    "Source",
    "Statcom",
    "Status",
    "Switch",
    "Terminal",
    "Transformer",
    "Winding",
    "build",
    "check",
    "compare",
    "cut",
    "power_flow",
    "read",
    "solve",
    "solve_areas",
    "write_folder",
    "write_opendss",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _WHERE:
        message = f"module 'lateral' has no attribute {name!r}"
        raise AttributeError(message)
    module = importlib.import_module(_WHERE[name])
    found = getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
