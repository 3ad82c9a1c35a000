"""The published numbers, as bars.

Where a bar is not from print, the comment beside it says how the number was obtained. Stored vectors and feeders are
read from a folder beside the repository; what needs them is skipped when they are absent.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.devices import Capacitor, Load
from lateral.io import read
from lateral.opf import linear_power_flow, replayed, solve
from lateral.results.result import Result

SHARED = Path(os.environ.get("LATERAL_SHARED", Path(__file__).parents[2].parent / "shared"))
REFERENCE = SHARED / "data" / "ieee123_balanced" / "reference"
FEEDERS = SHARED / "feeders"

stored = pytest.mark.skipif(not REFERENCE.is_dir(), reason="stored optimal vectors are not at hand")


@cache
def solved(name: str, formulation: str, terminal: str = "equal") -> Result:
    result = solve(read(name), formulation, terminal=terminal, with_replay=False)
    assert result.ok, result.status_text
    return result


# -- IEEE 123, five steps -----------------------------------------------------------------------------------------


def test_t5_nonlinear() -> None:
    """Paper: 576.31 $, 4308.28 kWh, 75.99 kWh; an independent Ipopt solution gives 576.3118, 4308.276, 75.991."""
    r = solved("ieee123-t5", "nonlinear")
    assert r.cost == pytest.approx(576.312, abs=0.001)
    assert r.energy_import_kwh == pytest.approx(4308.28, abs=0.01)
    assert r.losses_kwh == pytest.approx(75.99, abs=0.005)
    assert r.max_simultaneous_kw < 1e-3
    # inverters, kvarh: paper 116.92 and 202.73 at fmincon's tolerance, Ipopt 116.927 and 202.755
    assert r.value("pv.q_injected").sum() == pytest.approx(116.927, abs=0.02)
    assert r.value("battery.q_injected").sum() == pytest.approx(202.755, abs=0.02)
    assert np.sqrt(r.value("bus.vmag_sq").min()) == pytest.approx(1.00673, abs=1e-5)


def test_t5_soc_is_tight_and_the_same() -> None:
    r, exact = solved("ieee123-t5", "soc"), solved("ieee123-t5", "nonlinear")
    assert r.cost == pytest.approx(exact.cost, rel=1e-6)
    assert r.energy_import_kwh == pytest.approx(exact.energy_import_kwh, rel=1e-6)
    assert r.losses_kwh == pytest.approx(exact.losses_kwh, rel=1e-5)
    assert r.max_relaxation_gap <= 1e-6


def test_t5_lindistflow() -> None:
    """Independent Ipopt solution: 567.0256 $, 4232.285 kWh, lowest voltage 1.00432 at its (free) reactive vertex."""
    r = solved("ieee123-t5", "lindistflow")
    assert r.cost == pytest.approx(567.026, abs=0.001)
    assert r.energy_import_kwh == pytest.approx(4232.285, abs=0.005)


def test_t5_with_capacitors_as_impedances() -> None:
    """The published cases hold capacitors at constant q; as V^2 shunts the optimum moves to 576.395 $."""
    case = read("ieee123-t5")
    assert {c.model for c in case.capacitors} == {"constant_power"}
    physical = case.with_(
        devices=tuple(
            dataclasses.replace(d, model="constant_impedance") if isinstance(d, Capacitor) else d for d in case.devices
        )
    )
    r = solve(physical, "nonlinear", with_replay=False)
    assert r.ok
    assert r.cost == pytest.approx(576.395, abs=0.001)


def test_t5_replay() -> None:
    """The paper reached 1.26e-4 pu and 0.037 kW; with a stiff source and constant-q capacitors 2e-9 pu is reached."""
    summary = replayed(solved("ieee123-t5", "nonlinear")).summary()["replay"]
    assert summary["converged"]
    assert summary["max_dv_pu"] <= 1e-5
    assert summary["dp_source_kw"] <= 0.01
    assert summary["cost"] == pytest.approx(576.312, abs=0.001)


def _rows(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open() as f:
        return list(csv.DictReader(f))


@stored
def test_t5_stored_hourly_totals() -> None:
    """Stored by the authors to two decimals, from an SQP run with its default tolerance of 1e-6 pu.

    In steps 3 to 5 the batteries are at their limits or tied by the terminal rule: 0.01 (rounding). Steps 1 and 2 have
    the same price, so that only 0.01 kW of losses decide how much is charged in which: there the SQP run stopped
    0.66 kW early, and only the sum of the two is compared, with 0.03 for rounding and the stop.
    """
    r = solved("ieee123-t5", "nonlinear")
    rows = [row for row in _rows("results_hourly.csv") if row["T"] == "5" and row["method"] == "MPCOPF"]
    hours = {row["hour"]: row for row in rows}
    ours = {
        "line_loss_kW": r.losses_kw,
        "P_subs_kW": r.p_source_kw,
        "P_batt_kW": r.value("battery.p_injected").sum(axis=0),
    }
    for column, values in ours.items():
        for t in (2, 3, 4):
            assert values[t] == pytest.approx(float(hours[str(t + 1)][column]), abs=0.011), (column, t)
        both = float(hours["1"][column]) + float(hours["2"][column])
        assert values[:2].sum() == pytest.approx(both, abs=0.03), column
    assert r.cost == pytest.approx(float(hours["all"]["cost_usd"]), abs=0.006)
    assert r.energy_import_kwh == pytest.approx(float(hours["all"]["P_subs_kW"]), abs=0.006)
    assert r.losses_kwh == pytest.approx(float(hours["all"]["line_loss_kW"]), abs=0.006)


@stored
def test_t5_stored_vectors() -> None:
    """Voltage, flow and reactive power of every element and step against the stored optimum.

    Tolerances: voltage 1e-5 pu; reactive power 0.05 kvar (the optimum is flat in q: fmincon stops at 1e-6 pu of the
    gradient); flows 7e-4 pu, which is the 0.66 kW that the stored run charges in step 2 instead of 1 (see above), and
    5e-5 pu in the steps where that does not matter.
    """
    r = solved("ieee123-t5", "nonlinear")
    v = dict(zip((e.split(".")[0] for e in r.elements("bus.vmag_sq")), np.sqrt(r.value("bus.vmag_sq")), strict=True))
    bus = _rows("mpcopf_T5_bus.csv")
    assert len(bus) == 128 * 5
    assert max(abs(v[x["bus"]][int(x["t"]) - 1] - float(x["v_pu"])) for x in bus) < 1e-5

    leg = {r.network.nodes[j][0]: k for k, j in enumerate(r.network.to_node)}
    branch = _rows("mpcopf_T5_branch.csv")
    assert len(branch) == 127 * 5
    for column, name in (("P_pu", "branch.p_from"), ("Q_pu", "branch.q_from")):
        flow = r.value(name) / 1000.0
        for x in branch:
            t = int(x["t"]) - 1
            assert flow[leg[x["to"]], t] == pytest.approx(float(x[column]), abs=7e-4 if t < 2 else 5e-5)

    for file, devices, component in (
        ("mpcopf_T5_pv.csv", r.case.pvs, "pv"),
        ("mpcopf_T5_bess.csv", r.case.batteries, "battery"),
    ):
        q = dict(zip(r.elements(f"{component}.q"), r.value(f"{component}.q"), strict=True))
        named = {d.bus: d.name for d in devices}
        assert max(abs(q[named[x["bus"]]][int(x["t"]) - 1] - float(x["q_kvar"])) for x in _rows(file)) < 0.05

    energy = r.value("battery.energy").sum(axis=0)
    for t in (1, 2, 3, 4):  # step 1 differs by the 0.66 kW
        total = sum(float(x["B_kWh"]) for x in _rows("mpcopf_T5_bess.csv") if int(x["t"]) == t + 1)
        assert energy[t] == pytest.approx(total, abs=0.01)


# -- IEEE 123, other horizons; ads10; 33 buses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formulation", "terminal", "cost"),
    [
        ("nonlinear", "equal", 2796.518),
        ("nonlinear", "free", 2787.467),
        ("lindistflow", "equal", 2740.037),
        ("lindistflow", "free", 2731.342),
    ],
)
def test_t24(formulation: str, terminal: str, cost: float) -> None:
    """Independent Ipopt solutions of the 24-hour case: no capacitors, battery disc, PV limit that follows p(t)."""
    assert solved("ieee123-t24", formulation, terminal).cost == pytest.approx(cost, abs=0.005)


def test_t24_soc_is_the_same() -> None:
    assert solved("ieee123-t24", "soc").cost == pytest.approx(solved("ieee123-t24", "nonlinear").cost, rel=1e-6)


#: Pinned; found with two models and three solvers of this package (nonlinear with Ipopt, soc with Clarabel, which also
#: proves the optimum from below), and replayed in OpenDSS within 1e-8 pu. There is no printed number for these two.
PINNED = {
    "ieee123-t10": (1197.9003, 8544.275, 148.663, 1178.1170),
    "ads10": (204.73426, 1537.929, 0.28417, 204.69286),
}


@pytest.mark.parametrize("name", PINNED)
def test_pinned_and_cross_checked(name: str) -> None:
    cost, energy, losses, linear = PINNED[name]
    exact, cone = solved(name, "nonlinear"), solved(name, "soc")
    assert cone.cost == pytest.approx(exact.cost, rel=1e-6)
    assert cone.max_relaxation_gap <= 1e-6
    assert exact.cost == pytest.approx(cost, rel=1e-6)
    assert exact.energy_import_kwh == pytest.approx(energy, rel=1e-6)
    assert exact.losses_kwh == pytest.approx(losses, rel=1e-4)
    assert solved(name, "lindistflow").cost == pytest.approx(linear, rel=1e-6)
    assert replayed(exact).summary()["replay"]["max_dv_pu"] <= 1e-7


@pytest.mark.parametrize("formulation", ["soc", "nonlinear"])
def test_case33bw_loss(formulation: str) -> None:
    """202.677 kW and 0.91309 pu at bus 18 (Baran and Wu 1989, ties open); there is nothing to decide."""
    case = read("case33bw")
    r = solve(case, formulation, "loss", with_replay=False, limits="none")
    assert r.ok
    assert r.losses_kwh == pytest.approx(202.677, abs=0.001)
    v = np.sqrt(r.value("bus.vmag_sq"))[:, 0]
    assert v.min() == pytest.approx(0.91309, abs=1e-5)
    assert r.elements("bus.vmag_sq")[int(v.argmin())].split(".")[0] == "18"


# -- LinDist3Flow as a power flow -------------------------------------------------------------------------------------

#: file, published error of the pure model (nominal angles, no losses), reported errors at 0.7 and 1.2 times the load
ACCURACY = {
    "ieee13": ("ieee13/IEEE13Nodeckt.dss", 0.0077, 0.0038, 0.0045),
    "ieee34": ("ieee34/ieee34Mod2.dss", 0.0263, 0.0109, 0.0105),
    "ieee123": ("ieee123/IEEE123Master.dss", 0.0073, 0.0022, 0.0021),
    # 0.01385 where loads below 0.95 pu were impedances; with OpenDSS's law 0.01391, and as good at the point
    "ieee37": ("ieee37/ieee37.dss", None, 0.01392, 0.0089),
}


@cache
def feeder(name: str) -> Case:
    path = FEEDERS / ACCURACY[name][0]
    if not path.is_file():
        pytest.skip(f"{name} is not at hand")
    from lateral.io import opendss

    return opendss.read(path)[0]


def scaled(case: Case, factor: float) -> Case:
    return case.with_(
        devices=tuple(
            dataclasses.replace(d, p_kw=d.p_kw * factor, q_kvar=d.q_kvar * factor) if isinstance(d, Load) else d
            for d in case.devices
        )
    )


def worst(linear: Result, case: Case) -> float:
    """Largest voltage difference from the AC power flow of a case, pu."""
    flow = power_flow(case)
    assert flow.converged.all()
    place = {node: k for k, node in enumerate(flow.index.nodes)}
    v = flow.vmag_pu[[place[node] for node in linear.network.nodes]]
    return float(np.abs(np.sqrt(linear.value("bus.vmag_sq")) - v).max())


@pytest.mark.parametrize("name", ACCURACY)
def test_linear_power_flow_at_its_own_point(name: str) -> None:
    """The bar is 0.0015; the model is exact at its point but for neutrals taken as grounded (none here)."""
    case = feeder(name)
    assert worst(linear_power_flow(case), case) <= 1e-7


@pytest.mark.parametrize("name", [n for n, row in ACCURACY.items() if row[1]])
def test_pure_linear_power_flow_reproduces_the_study(name: str) -> None:
    """Nominal angles, no losses, capacitors at rated reactive power (the convention of the study): within 10 %."""
    case = feeder(name)
    rated = case.with_(
        devices=tuple(
            dataclasses.replace(d, model="constant_power") if isinstance(d, Capacitor) else d for d in case.devices
        )
    )
    assert worst(linear_power_flow(rated, point="nominal"), case) == pytest.approx(ACCURACY[name][1], rel=0.10)


@pytest.mark.parametrize("name", ACCURACY)
def test_linear_power_flow_away_from_its_point(name: str) -> None:
    """The operating point stays at rated load while the load is 0.7 and 1.2 times it; measured, pinned as bounds."""
    case = feeder(name)
    for factor, bound in zip((0.7, 1.2), ACCURACY[name][2:], strict=True):
        other = scaled(case, factor)
        away = worst(linear_power_flow(other, at=case), other)
        assert away <= bound
        # the point of the case itself is always the better one
        assert worst(linear_power_flow(other), other) < 0.3 * away
