"""The public names, and that ``import lateral`` stays light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import lateral

#: Changing this list changes the interface: say so in the changelog.
PUBLIC = (
    *("AreasRun", "cut", "solve_areas"),
    *("PV", "Battery", "Bus", "Capacitor", "Case", "CaseError", "Device", "DeviceContext", "Dispatch", "Fault"),
    *("Feeder", "Formulation", "Horizon", "LateralError", "Line", "Load", "Model", "MultiTerminal"),
    *("Objective", "Regulator"),
    *("SVC", "SoftOpenPoint", "Statcom"),
    *("Result", "Shunt", "ShuntDevice", "Source", "Status", "Switch", "Terminal", "Transformer", "Winding"),
    *("build", "check", "compare", "power_flow", "read", "solve", "write_folder", "write_opendss", "write_report"),
)

#: What must wait until it is used.
HEAVY = {
    *("numpy", "scipy", "pandas", "xarray", "plotly", "casadi", "clarabel", "highspy", "dss", "networkx"),
    *("pydantic", "pyarrow", "rich", "typer"),
}


def test_public_names_are_pinned() -> None:
    assert sorted(lateral.__all__) == sorted(PUBLIC)
    assert sorted(dir(lateral)) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(lateral, name)
    assert callable(found)
    assert (found.__doc__ or "").strip()


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="sovle"):
        _ = lateral.sovle


@pytest.mark.parametrize("statement", ["import lateral", "import lateral.cli"])
def test_import_is_light(statement: str) -> None:
    # which modules are loaded says it without a clock: all of them together take under a tenth of a second
    script = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & HEAVY


def test_help_loads_no_solver() -> None:
    script = (
        "import sys, json, lateral.cli; lateral.cli.run(['--help']); "
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}
    assert not loaded & (HEAVY - {"typer", "rich"})
    assert "solve" in done.stdout


def test_functions_are_not_shadowed_by_modules_of_the_same_name() -> None:
    script = (
        "import lateral.opf, lateral.replay, lateral.studies.comparison, lateral.io, lateral.checks, lateral.model; "
        "import lateral; wrong = [n for n in lateral.__all__ if not callable(getattr(lateral, n))]; "
        "assert not wrong, wrong"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
