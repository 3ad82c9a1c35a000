"""Balanced equivalents: exact where the phases are alike, mean values where they are not."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lateral.balanced import reduce_case, to_balanced
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.devices import PV, Battery, Capacitor, Load, Regulator, Source
from lateral.network.feeder import Bus, Feeder, Line, Shunt, Switch, Transformer, Winding
from lateral.network.horizon import Horizon

ABC = (1, 2, 3)
WYE = (1, 2, 3, 0)
KV, LV = 7.2, 0.24


def circulant(own: float, mutual: float) -> np.ndarray:
    return mutual + (own - mutual) * np.eye(3)


def line(name: str, a: str, b: str, conductors: tuple[int, ...] = ABC, **more: Any) -> Line:
    n = len(conductors)
    fields: dict[str, Any] = {
        "r_ohm": circulant(0.5, 0.15)[:n, :n],
        "x_ohm": circulant(1.1, 0.45)[:n, :n],
        "b_us": circulant(12.0, -3.0)[:n, :n],
        "i_max_a": 300.0,
    }
    return Line(
        name=name, bus_from=a, bus_to=b, conductors_from=conductors, conductors_to=conductors, **(fields | more)
    )


def transformer(first: str, second: str, **more: Any) -> Transformer:
    windings = (
        Winding(
            bus="c",
            terminals=WYE if first == "wye" else ABC,
            connection=first,
            v_rated_kv=KV * math.sqrt(3.0),
            s_rated_kva=500.0,
            r_percent=0.6,
        ),
        Winding(
            bus="d",
            terminals=WYE if second == "wye" else ABC,
            connection=second,
            v_rated_kv=LV * math.sqrt(3.0),
            s_rated_kva=500.0,
            r_percent=0.7,
            tap=1.025,
        ),
    )
    fields: dict[str, Any] = {"no_load_loss_percent": 0.3, "magnetizing_percent": 0.8}
    return Transformer(name="t", windings=windings, x_percent=(5.0,), s_max_kva=600.0, **(fields | more))


def regulators(*taps: float) -> tuple[Transformer, ...]:
    return tuple(
        Transformer(
            name=f"reg{k + 1}",
            n_phases=1,
            windings=(
                Winding(bus="a", terminals=(k + 1, 0), v_rated_kv=KV, s_rated_kva=1000.0, r_percent=0.01),
                Winding(bus="b", terminals=(k + 1, 0), v_rated_kv=KV, s_rated_kva=1000.0, r_percent=0.01, tap=tap),
            ),
            x_percent=(0.2,),
            antifloat_ppm=0.01,
            bank="reg",
        )
        for k, tap in enumerate(taps)
    )


def three_phase(
    unit: Transformer, *, banks: tuple[Transformer, ...] = regulators(1.02, 1.02, 1.02), neutral: bool = False
) -> Case:
    wires = (1, 2, 3, 4) if neutral else ABC
    z4 = {"r_ohm": np.full((4, 4), 0.1), "x_ohm": np.full((4, 4), 0.3), "b_us": None} if neutral else {}
    if neutral:
        z4["r_ohm"] = np.full((4, 4), 0.1) + 0.3 * np.eye(4)
        z4["x_ohm"] = np.full((4, 4), 0.3) + 0.5 * np.eye(4)
    feeder = Feeder(
        buses=(
            *(Bus(name=n, conductors=ABC, v_base_kv=KV) for n in "ab"),
            *(Bus(name=n, conductors=wires, v_base_kv=KV) for n in ("b2", "c0")),
            Bus(name="c", conductors=ABC, v_base_kv=KV),
            *(Bus(name=n, conductors=ABC, v_base_kv=LV) for n in "de"),
            Bus(name="dark", conductors=ABC, v_base_kv=LV),
        ),
        lines=(
            line("l1", "b", "b2"),
            line("l2", "b2", "c0", wires, **z4),
            *(line(f"twin{k}", "c0", "c", (k,), r_ohm=[[0.1]], x_ohm=[[0.2]], b_us=[[5.0]]) for k in ABC),
            line("l3", "d", "e", r_ohm=circulant(0.004, 0.001), x_ohm=circulant(0.005, 0.002), b_us=None),
        ),
        switches=(
            Switch(
                name="s",
                bus_from="e",
                bus_to="dark",
                conductors_from=ABC,
                conductors_to=ABC,
                closed=False,
                r_ohm=1e-3 * np.eye(3),
                x_ohm=1e-3 * np.eye(3),
            ),
        ),
        transformers=(*banks, unit),
        shunts=(
            Shunt(name="y", bus="b2", conductors=ABC, g_us=circulant(4.0, -1.0), b_us=circulant(-20.0, 5.0)),
            *((Shunt(name="g", bus="b2", conductors=(4,), g_us=[[1e5]], b_us=[[0.0]]),) if neutral else ()),
        ),
    )
    devices = (
        Source(
            name="s",
            bus="a",
            conductors=ABC,
            angle_deg=(30.0, -90.0, 150.0),
            v_pu=1.03,
            r_ohm=circulant(0.2, 0.05),
            x_ohm=circulant(0.9, 0.2),
        ),
        Load(name="wye", bus="c", terminals=WYE, p_kw=240, q_kvar=80, profile="day"),
        Load(name="delta", bus="e", terminals=ABC, connection="delta", p_kw=150, q_kvar=70, model="constant_impedance"),
        *(
            Load(name=f"ll{k}", bus="e", terminals=(k, k % 3 + 1), p_kw=10, q_kvar=3, v_rated_kv=LV * math.sqrt(3.0))
            for k in ABC
        ),
        *(Load(name=f"i{k}", bus="b", terminals=(k, 0), p_kw=30, q_kvar=5, model="constant_current") for k in ABC),
        Capacitor(name="cd", bus="c", terminals=ABC, connection="delta", q_kvar=60),
        Capacitor(name="cy", bus="b", terminals=WYE, q_kvar=90, v_rated_kv=7.0),
        PV(name="p", bus="e", **_beside(unit), p_rated_kw=40, s_max_kva=50, profile="day", v_max_pu=0.97),
        Battery(
            name="x",
            bus="d",
            terminals=ABC,
            connection="delta",
            p_charge_max_kw=30,
            p_discharge_max_kw=30,
            s_max_kva=40,
            energy_kwh=100,
        ),
        Regulator(name="r1", transformer="reg1"),
        Regulator(name="r2", transformer="reg2"),
    )
    return Case(
        name="alike",
        feeder=feeder,
        devices=devices,
        horizon=Horizon.regular(2),
        profiles={"day": np.array([0.4, 1.0])},
    )


def _beside(unit: Transformer) -> dict[str, Any]:
    """Connection of a device at the secondary: nothing holds a wye there to ground when it is a delta."""
    if unit.windings[1].connection == "wye":
        return {"terminals": WYE}
    return {"terminals": ABC, "connection": "delta"}


BATTERY = (np.array([[-20.0, 25.0]]), np.array([[5.0, -8.0]]))


@pytest.mark.parametrize("neutral", [False, True])
@pytest.mark.parametrize("connection", ["wye wye", "delta wye", "wye delta", "delta delta"])
def test_exact_where_the_phases_are_alike(connection: str, neutral: bool) -> None:
    case = three_phase(transformer(*connection.split()), neutral=neutral)
    reduced = reduce_case(case)
    balanced = reduced.case
    full = power_flow(case, dispatch={"battery": BATTERY}, tolerance_pu=3e-9)
    one = power_flow(balanced, dispatch={"battery": BATTERY}, tolerance_pu=1e-9)
    assert full.all_converged
    assert one.all_converged
    assert len(one.index) == len(balanced.feeder.buses) == 7
    expected = reduced.reduction.average(full.index, full.vmag_pu)
    for k, bus in enumerate(balanced.feeder.buses):
        assert one.vmag_pu[k] == pytest.approx(expected[bus.name], abs=1e-8), bus.name
    assert one.source_kva == pytest.approx(full.source_kva, rel=1e-7)
    assert one.losses_kw == pytest.approx(full.losses_kw, rel=1e-6)
    assert balanced.base.multiplicity == 3
    assert [t.name for t in balanced.feeder.transformers] == ["reg1", "t"]
    assert [r.name for r in balanced.regulators] == ["r1"]
    assert reduced.reduction.members["line.twin1"] == ("line.twin1", "line.twin2", "line.twin3")
    limits = {e.name: e.i_max_a for e in balanced.feeder.lines}
    assert limits["twin1"] == pytest.approx(300.0)
    assert limits["l1"] == pytest.approx(300.0)
    assert balanced.feeder.transformers[1].s_max_kva == 600.0
    assert {f.code for f in check(balanced)} <= {f.code for f in check(case)}


def test_taps_become_their_mean_and_a_missing_unit_is_ratio_one() -> None:
    unit = transformer("wye", "wye")
    banks = regulators(1.0, 1.03, 1.06)
    reduced = reduce_case(three_phase(unit, banks=banks))
    assert reduced.case.feeder.transformers[0].windings[1].tap == pytest.approx(1.03)
    assert any("taps" in note for note in reduced.notes)
    case = three_phase(unit, banks=banks[1:])
    wires = dataclasses.replace(
        case.feeder, lines=(*case.feeder.lines, line("jumper", "a", "b", (1,), r_ohm=[[1e-4]], x_ohm=[[1e-4]]))
    )
    reduced = reduce_case(case.with_(feeder=wires))
    bank = reduced.case.feeder.transformers[0]
    assert bank.windings[1].tap == pytest.approx(1.03)
    assert bank.windings[0].s_rated_kva == pytest.approx(1000.0)
    assert "line.jumper" in reduced.reduction.members[bank.label]
    assert "jumper" not in [e.name for e in reduced.case.feeder.lines]


def test_laterals_carry_the_total_on_the_conductors_they_have() -> None:
    """Voltage drop and losses of a one-phase lateral and a center-tap service on an unloaded, stiff main."""
    z, z2 = complex(0.8, 0.9), np.array([[0.02, 0.008], [0.008, 0.02]]) * (1 + 0.5j)
    feeder = Feeder(
        buses=(
            Bus(name="a", conductors=ABC, v_base_kv=KV),
            Bus(name="b", conductors=(2,), v_base_kv=KV),
            Bus(name="s", conductors=(1, 2), v_base_kv=0.12),
            Bus(name="h", conductors=(1, 2), v_base_kv=0.12),
            Bus(name="dark", conductors=(1,), v_base_kv=0.12),
        ),
        lines=(
            line("l", "a", "b", (2,), r_ohm=[[z.real]], x_ohm=[[z.imag]], b_us=[[9.0]]),
            line("drop", "s", "h", (1, 2), r_ohm=z2.real, x_ohm=z2.imag, b_us=None, i_max_a=150.0),
        ),
        transformers=(
            Transformer(
                name="ct",
                n_phases=1,
                windings=(
                    Winding(bus="b", terminals=(2, 0), v_rated_kv=KV, s_rated_kva=25.0, r_percent=0.6),
                    Winding(bus="s", terminals=(1, 0), v_rated_kv=0.12, s_rated_kva=25.0, r_percent=1.2),
                    Winding(bus="s", terminals=(0, 2), v_rated_kv=0.12, s_rated_kva=25.0, r_percent=1.2),
                ),
                x_percent=(2.04, 2.04, 1.36),
                no_load_loss_percent=0.2,
                antifloat_ppm=0.01,
            ),
        ),
    )
    devices = (
        Source(
            name="s",
            bus="a",
            conductors=ABC,
            angle_deg=(0.0, -120.0, 120.0),
            r_ohm=np.zeros((3, 3)),
            x_ohm=np.zeros((3, 3)),
        ),
        Load(name="house", bus="h", terminals=(1, 2), p_kw=12.0, q_kvar=4.0, v_rated_kv=0.24),
        Load(name="leg1", bus="h", terminals=(1, 0), p_kw=2.0, q_kvar=1.0),
        Load(name="leg2", bus="h", terminals=(2, 0), p_kw=2.0, q_kvar=1.0),
        Load(name="stray", bus="dark", terminals=(1, 0), p_kw=1.0),
    )
    case = Case(name="lateral", feeder=feeder, devices=devices, horizon=Horizon.regular(1))
    reduced = reduce_case(case)
    full, one = power_flow(case, tolerance_pu=1e-11), power_flow(reduced.case, tolerance_pu=1e-11)
    expected = reduced.reduction.average(full.index, full.vmag_pu)
    for k, bus in enumerate(reduced.case.feeder.buses):
        assert one.vmag_pu[k] == pytest.approx(expected[bus.name], abs=1e-8), bus.name
    assert expected["h"][0] < 0.985
    assert one.source_kva == pytest.approx(full.source_kva, rel=1e-7)
    assert one.losses_kw == pytest.approx(full.losses_kw, rel=1e-5)
    assert len(reduced.case.feeder.transformers[0].windings) == 2
    assert {e.name: e.i_max_a for e in reduced.case.feeder.lines} == pytest.approx({"l": 100.0, "drop": 100.0})
    assert any("load.stray" in note for note in reduced.notes)
    assert "load.stray" in reduced.case.notes


def test_several_sources_at_a_bus_and_a_balanced_case() -> None:
    case = three_phase(transformer("wye", "wye"))
    old = case.sources[0]
    z = np.array([[0.15 + 0.7j]])
    singles = tuple(
        Source(
            name=f"s{k}",
            bus="a",
            conductors=(k,),
            angle_deg=(-120.0 * (k - 1),),
            v_pu=1.03,
            r_ohm=z.real,
            x_ohm=z.imag,
            p_import_max_kw=500.0,
        )
        for k in ABC
    )
    reduced = reduce_case(case.with_(devices=(*singles, *(d for d in case.devices if d is not old))))
    (source,) = reduced.case.sources
    assert source.r_ohm[0, 0] + 1j * source.x_ohm[0, 0] == pytest.approx(0.15 + 0.7j)
    assert source.p_import_max_kw == pytest.approx(1500.0)
    assert any("3 sources" in note for note in reduced.notes)
    assert to_balanced(reduced.case) is reduced.case


FEEDERS = Path(__file__).parents[3] / "shared" / "feeders"


@pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")
@pytest.mark.parametrize(
    ("master", "three", "every"),
    [
        ("ieee13/IEEE13Nodeckt.dss", 0.002, 0.03),
        ("ieee34/ieee34Mod2.dss", 0.001, 0.006),
        ("ieee37/ieee37.dss", 0.006, 0.006),
        ("ieee123/IEEE123Master.dss", 0.001, 0.02),
        ("smartds84/Master.dss", 0.0001, 0.0005),
        ("epri_j1/Master_noPV.dss", 0.0015, 0.036),
    ],
)
def test_mean_of_the_phases_of_the_test_feeders(master: str, three: float, every: float) -> None:
    """How far the balanced voltage is from the mean of the phases: buses of three phases, and all."""
    from lateral.io.opendss import read

    case, _ = read(FEEDERS / master)
    reduced = reduce_case(case)
    full, one = power_flow(case), power_flow(reduced.case)
    assert one.all_converged
    expected = reduced.reduction.average(full.index, full.vmag_pu)
    error = {b.name: abs(one.vmag_pu[k, 0] - expected[b.name][0]) for k, b in enumerate(reduced.case.feeder.buses)}
    assert max(error.values()) < every
    assert max(e for bus, e in error.items() if len(reduced.reduction.phases[bus]) == 3) < three
    assert one.source_kva.real == pytest.approx(full.source_kva.real, rel=0.01)
