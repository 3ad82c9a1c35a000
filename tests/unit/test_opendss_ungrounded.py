"""Loads on conductors whose voltage to ground or to a neutral the wires do not hold: the solution is the engine's.

Wye loads of constant power behind a delta have several solutions. The power flow ended in another one than the engine.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from lateral.baseline import Dispatch, power_flow
from lateral.case import Case
from lateral.io.opendss import read
from lateral.network.powerflow import PowerFlow
from lateral.network.schema import ComplexArray

FILES = """
clear
new circuit.c bus1=src basekv=12.47 pu=1.02 angle=10 mvasc3=200 mvasc1=180
new linecode.lc nphases=3 units=km r1=0.3 x1=0.4 r0=0.7 x0=1.4 c1=10 c0=5
new line.main bus1=src bus2=b linecode=lc length=2 units=km
new transformer.t windings=2 {bank} kvs=(12.47 0.48) kvas=(500 500) xhl=4 %r=1
{body}
set voltagebases=[12.47 0.48]
calcvoltagebases
solve
"""
WYE_DELTA = "buses=(b x) conns=(wye delta)"
LINE = "new line.l2 bus1=x bus2=y length=0.05 units=km linecode=lc"

#: Bank and loads, and how far the power flow was from the engine, pu.
UNHELD = {
    "wye behind a delta": (  # 0.088
        WYE_DELTA,
        """new load.a bus1=x kv=0.48 kw=60 kvar=30 vminpu=0.8
new load.b bus1=x.1.2 phases=1 kv=0.48 conn=delta kw=5 kvar=1 model=2 vminpu=0.8""",
    ),
    "its band is narrow": (  # 0.094
        "buses=(b x) conns=(delta delta)",
        """new load.a bus1=x kv=0.48 kw=20 kvar=4
new load.b bus1=x.1.2 phases=1 kv=0.48 conn=delta kw=5 kvar=2.5 model=5 vminpu=0.8
new load.c bus1=x.1.2 phases=1 kv=0.48 conn=delta kw=20 kvar=4 model=2""",
    ),
    "a neutral of its own": (  # 0.065
        WYE_DELTA,
        """new load.a bus1=x kv=0.48 kw=5 kvar=2.5 model=2 vminpu=0.5 vmaxpu=1.5
new load.b bus1=x.3 phases=1 kv=0.277 kw=5 kvar=2.5 model=8 zipv=(0.3 0.3 0.4 0.3 0.3 0.4 0.5) vminpu=0.8
new load.c bus1=x.1.2.3.4 kv=0.48 kw=20 kvar=4 vlowpu=0""",
    ),
    "a neutral of its own behind a line": (  # 0.24
        "buses=(b x.1.2.3.4) conns=(delta wye)",
        f"""{LINE}
new load.a bus1=y kv=0.48 conn=delta kw=60 kvar=12
new load.b bus1=y.1.2.3.4 kv=0.48 kw=20 kvar=10 vminpu=0.8
new load.c bus1=y.1.2 phases=1 kv=0.48 conn=delta kw=60 kvar=30 vminpu=0.8""",
    ),
    "an isolated neutral of the bank": (  # did not converge
        "buses=(b x.1.2.3.4) conns=(wye wye)",
        f"""{LINE}
new load.a bus1=y kv=0.48 kw=20 kvar=10 vminpu=0.8
new load.b bus1=y.1 phases=1 kv=0.277 kw=5 kvar=1 vminpu=0.8""",
    ),
    "loads to ground and to a neutral": (  # 0.086
        "buses=(b x.1.2.3.4) conns=(wye wye)",
        f"""{LINE}
new load.a bus1=y.1.4 phases=1 kv=0.277 kw=5 kvar=1 model=2
new load.b bus1=y.3.4 phases=1 kv=0.277 kw=60 kvar=12 model=8 zipv=(0.3 0.3 0.4 0.3 0.3 0.4 0.5) vminpu=0.8
new load.c bus1=y kv=0.48 kw=60 kvar=12""",
    ),
}


def write(tmp_path: Path, bank: str, body: str) -> Path:
    master = tmp_path / "master.dss"
    master.write_text(FILES.format(bank=bank, body=body))
    return master


@pytest.mark.parametrize("which", UNHELD)
def test_the_solution_is_the_engines(tmp_path: Path, which: str) -> None:
    """1e-6 pu: the voltage to ground is held by 1 ppm of a rating, and known to so much less."""
    case, report = read(write(tmp_path, *UNHELD[which]))
    assert report.reference is not None
    assert report.reference.converged
    assert report.max_dv_pu is not None
    assert report.max_dv_pu < 1e-6
    assert power_flow(case).methods == ("compensation",)


def test_grounded_loads_are_solved_as_ever(tmp_path: Path) -> None:
    body = "new load.a bus1=x kv=0.48 kw=200 kvar=60\nnew load.b bus1=x.2 phases=1 kv=0.277 kw=60"
    case, report = read(write(tmp_path, "buses=(b x) conns=(delta wye)", body))
    assert report.max_dv_pu is not None
    assert report.max_dv_pu < 1e-7
    assert power_flow(case).methods == ("fixed-point",)


def test_delta_loads_behind_a_delta_are_solved_as_ever(tmp_path: Path) -> None:
    case, report = read(write(tmp_path, WYE_DELTA, "new load.a bus1=x kv=0.48 kw=200 kvar=60 conn=delta"))
    assert report.max_dv_pu is not None
    assert report.max_dv_pu < 1e-6
    assert power_flow(case).methods == ("fixed-point",)


def test_a_voltage_that_nothing_holds_is_said(tmp_path: Path) -> None:
    body = "new load.a bus1=x.1.2 phases=1 kv=0.48 conn=delta kw=60 kvar=30"
    _, report = read(write(tmp_path, f"{WYE_DELTA} ppm_antifloat=0", body))
    (said,) = [n.text for n in report.notes if n.code == "IMP-063"]
    assert "nothing holds the voltage to ground of x.1, x.2, x.3" in said


def test_several_solutions_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's method alone comes to another one than the engine."""

    def another(case: Case, *, dispatch: Dispatch | None = None, start: ComplexArray | None = None) -> PowerFlow:
        method = "newton" if start is None else "auto"
        return power_flow(case, dispatch=dispatch, start=start, method=method)

    monkeypatch.setattr(importlib.import_module("lateral.io.opendss.read"), "power_flow", another)
    _, report = read(write(tmp_path, *UNHELD["wye behind a delta"]))
    (said,) = [n.text for n in report.notes if n.code == "IMP-063"]
    assert "there are several solutions: from the engine's voltages it comes to the engine's" in said
