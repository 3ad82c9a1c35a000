"""Shapes that hold kW and kvar (UseActual), and the shapes of generators, against what the engine does step by step."""

from __future__ import annotations

from pathlib import Path

import dss
import numpy as np
import pytest

from lateral.baseline import load_power
from lateral.io.opendss import read

KW = "mult=[50 40 30] useactual=yes"
BOTH = "pmult=[50 40 30] qmult=[9 8 7] useactual=yes"
SHARE = "mult=[0.5 0.4 0.3]"
# A stiff feeder: what is drawn is drawn at rated voltage, where every model draws what it is to draw.
FILES = """
clear
new circuit.c basekv=12.47 bus1=s mvasc3=1000000 mvasc1=1000000
new loadshape.a npts=3 interval=1 {shape}
new line.l bus1=s bus2=b r1=1e-5 x1=1e-5 r0=1e-5 x0=1e-5 c1=0 c0=0 length=1
new load.other bus1=b kv=12.47 kw=100 pf=0.7 yearly=a daily=a
new {what} bus1=b kv=12.47 {stated}
set voltagebases=[12.47]
calcvoltagebases
set {multiplier} controlmode=off tolerance=1e-9
solve
"""


@pytest.mark.parametrize("model", [1, 3, 8])
@pytest.mark.parametrize(
    "stated",
    [
        "kw=100 pf=0.9 daily=a",
        "daily=a kva=100 pf=-0.8",
        "kwh=1000 kwhdays=30 cfactor=4 pf=0.97 daily=a",
        "kw=100 kvar=30 daily=a",
        "kw=100 pf=0.9 kvar=30 daily=a",
        "kw=100 kvar=30 daily=a\n~ pf=0.9 daily=a",
        "kw=100 daily=a",
        "like=other",
        "like=other pf=0.6",
        "daily=a status=exempt pf=0.9",
    ],
)
@pytest.mark.parametrize("shape", [KW, BOTH, SHARE], ids=["kw", "kw and kvar", "shares"])
def test_loads(tmp_path: Path, shape: str, stated: str, model: int) -> None:
    """A power factor that is stated is kept where the shape holds kW alone, and no multiplier is on it."""
    zipv = " zipv=[0 0 1 0 0 1 0]" if model == 8 else ""
    text = FILES.format(shape=shape, what="load.x", stated=stated + f" model={model}{zipv}", multiplier="loadmult=0.8")
    agree(tmp_path, text, "load.x", "daily")


@pytest.mark.parametrize("study", ["daily", "yearly", "duty"])
@pytest.mark.parametrize("stated", ["daily=a", "yearly=a", "daily=a yearly=a", "duty=a", ""])
@pytest.mark.parametrize("shape", [KW, BOTH, SHARE], ids=["kw", "kw and kvar", "shares"])
def test_generators(tmp_path: Path, shape: str, stated: str, study: str) -> None:
    """Over a year one with a daily shape alone gives all of its power, while a load follows the daily one."""
    text = FILES.format(shape=shape, what="generator.x", stated=f"kw=100 pf=0.9 {stated}", multiplier="genmult=0.7")
    agree(tmp_path, text, "generator.x", study)


def agree(tmp_path: Path, text: str, element: str, study: str) -> None:
    """What a load or a generator draws over three steps is what it draws in the engine."""
    master = tmp_path / "master.dss"
    master.write_text(text)
    case, _ = read(master, horizon=study, n_steps=3, step_h=1.0)  # type: ignore[arg-type]
    name = element.split(".")[1] if element.startswith("load") else element.replace(".", "_")
    p, q = load_power(case, next(d for d in case.loads if d.name == name))
    engine = dss.dss.NewContext()
    engine.AllowForms = False
    for line in (*text.strip().splitlines(), f"set mode={study} number=1 stepsize=1h hour=0"):
        engine.Text.Command = line
    drawn = []
    for _ in range(3):
        engine.ActiveCircuit.Solution.Solve()
        engine.ActiveCircuit.SetActiveElement(element)
        drawn.append(np.asarray(engine.ActiveCircuit.ActiveCktElement.Powers).view(complex).sum())
    np.testing.assert_allclose(p + 1j * q, drawn, atol=1e-3 * np.abs(drawn).max())  # the feeder is not quite stiff
