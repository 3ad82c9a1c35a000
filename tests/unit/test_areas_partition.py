"""Partition: who gets what, what cannot be cut, and what leaves an area. Counts are made by hand from the feeders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import lateral
from lateral.areas.divide import divide
from lateral.areas.files import partition_of, read_areas, write_areas, write_cuts
from lateral.areas.partition import Partition, cut, cut_by_buses
from lateral.case import Case
from lateral.checks import check
from lateral.cli import run
from lateral.devices import PV, BorderHead, BorderTail, Load, ShuntDevice, Source
from lateral.errors import CaseError, OptionError
from lateral.io.opendss.write import render_opendss
from lateral.network.feeder import Bus, Feeder, Line, Shunt, Switch, Transformer, Winding
from lateral.network.horizon import Horizon

ABC = (1, 2, 3)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Heater(ShuntDevice):
    """A device class of a user's own."""

    kind: ClassVar[str] = "heater"
    table: ClassVar[str] = "heaters"


def line(name: str, a: str, b: str, conductors: tuple[int, ...] = ABC) -> Line:
    n = len(conductors)
    return Line(
        name=name,
        bus_from=a,
        bus_to=b,
        conductors_from=conductors,
        conductors_to=conductors,
        r_ohm=0.1 * np.eye(n),
        x_ohm=0.2 * np.eye(n),
    )


def three_phase() -> Case:
    """s - m =(three regulators)= r - e - (delta-wye) - low, e - n with a neutral, a one-phase lateral, an open tie."""
    buses = [Bus(name=b, conductors=ABC, v_base_kv=2.4, x=float(k), y=0.5) for k, b in enumerate("smre")]
    buses += [
        Bus(name="n", conductors=(1, 2, 3, 4), v_base_kv=2.4),
        Bus(name="low", conductors=ABC, v_base_kv=0.277),
        Bus(name="lat", conductors=(2,), v_base_kv=2.4),
        Bus(name="dead", conductors=ABC, v_base_kv=2.4),
    ]

    def regulator(phase: int) -> Transformer:
        side = {"v_rated_kv": 2.4, "s_rated_kva": 500.0, "terminals": (phase, 0)}
        windings = (Winding(bus="m", **side), Winding(bus="r", tap=1.0125, **side))
        return Transformer(name=f"reg{phase}", n_phases=1, windings=windings, x_percent=(1.0,))

    step_down = Transformer(
        name="down",
        windings=(
            Winding(bus="e", terminals=ABC, connection="delta", v_rated_kv=4.157, s_rated_kva=300.0, r_percent=0.5),
            Winding(bus="low", terminals=(*ABC, 0), v_rated_kv=0.48, s_rated_kva=300.0, r_percent=0.5),
        ),
        x_percent=(4.0,),
    )
    tie = Switch(
        name="tie",
        bus_from="lat",
        bus_to="dead",
        conductors_from=(2,),
        conductors_to=(2,),
        closed=False,
        r_ohm=[[0.01]],
        x_ohm=[[0.01]],
    )
    feeder = Feeder(
        buses=tuple(buses),
        lines=(
            line("sm", "s", "m"),
            line("re", "r", "e"),
            dataclasses.replace(
                line("en", "e", "n"),
                conductors_from=(1, 2, 3),
                conductors_to=(1, 2, 3),
            ),
            line("lat", "e", "lat", (2,)),
        ),
        switches=(tie,),
        transformers=(regulator(1), regulator(2), regulator(3), step_down),
        shunts=(Shunt(name="sh", bus="low", conductors=(1,), g_us=[[0.0]], b_us=[[5.0]]),),
    )
    return Case(
        name="small",
        feeder=feeder,
        devices=(
            Source(
                name="grid", bus="s", conductors=ABC, angle_deg=(0.0, -120.0, 120.0), v_pu="volts", price_import=0.2
            ),
            Load(name="a", bus="m", terminals=(*ABC, 0), p_kw=30.0, profile="day"),
            Load(name="b", bus="r", terminals=(*ABC, 0), p_kw=30.0, profile="night"),
            Load(name="c", bus="low", terminals=(*ABC, 0), p_kw=12.0, q_kvar=6.0),
            Load(name="d", bus="lat", terminals=(2, 0), p_kw=5.0, profile="night"),
            Heater(name="h", bus="low", terminals=(1, 0)),
            *(lateral.devices.Regulator(name=f"r{k}", transformer=f"reg{k}", winding=2) for k in ABC),
        ),
        horizon=Horizon.regular(2),
        profiles={
            "day": np.array([1.0, 0.5]),
            "night": np.array([0.2, 1.0]),
            "volts": np.array([1.02, 1.06]),
            "unused": np.zeros(2),
        },
        where={"load.a": "loads.csv:2", "load.c": "loads.csv:4", "line.sm": "lines.csv:2"},
    )


def names(elements: tuple) -> set[str]:
    return {e.name for e in elements}


# -- who gets what ---------------------------------------------------------------------------------------------------


def test_33_bus_areas_are_those_of_the_issue() -> None:
    """The branches 2-3, 5-6, 9-10 are the parent's, the loads at 3, 6, 10 the child's."""
    p = cut_by_buses(lateral.read("case33bw-areas"))
    assert list(p.areas) == ["1", "2", "3", "4"]
    assert [(b.parent, b.child, b.branch, b.bus) for b in p.borders.values()] == [
        ("1", "2", ("line.2-3",), "3"),
        ("2", "3", ("line.5-6",), "6"),
        ("3", "4", ("line.9-10",), "10"),
    ]
    assert [a.n_nodes for a in p.areas.values()] == [6, 6, 12, 9]
    assert dict(p.depth) == {"1": 0, "2": 1, "3": 2, "4": 3}
    for b in p.borders.values():
        parent, child = p.areas[b.parent].case, p.areas[b.child].case
        assert b.branch[0] in {e.label for e in parent.feeder.elements}
        assert b.branch[0] not in {e.label for e in child.feeder.elements}
        assert b.bus in {d.bus for d in child.of(Load)}
        assert b.bus not in {d.bus for d in parent.of(Load)}
    # 3 715 kW in all; beyond 9-10 stand 60 + 45 + 60 + 60 + 120 + 60 + 60 + 60 + 90 = 615 kW
    tails = {d.name: d.p_kw for a in p.areas.values() for d in a.case.of(BorderTail)}
    assert tails["9-10"] == pytest.approx(615.0)
    assert sum(d.p_kw for a in p.areas.values() for d in a.case.of(Load)) == pytest.approx(3715.0)


def test_published_areas_of_ieee123() -> None:
    p = cut_by_buses(lateral.read("ieee123-t5"))
    assert {a.name: a.n_nodes for a in p.areas.values()} == {"1": 39, "2": 17, "3": 19, "4": 53}
    assert {(b.parent, b.child) for b in p.borders.values()} == {("1", "2"), ("1", "3"), ("2", "4")}
    assert all(not a.case.areas for a in p.areas.values())


def test_everything_of_a_three_phase_feeder() -> None:
    case = three_phase()
    p = cut(case, ["transformer.reg2", "transformer.down"], names={"transformer.reg2": "mid"}, root="top")
    top, mid, low = (p.areas[n].case for n in ("top", "mid", "3"))
    assert list(p.areas) == ["top", "mid", "3"]
    # three units side by side are one border; the regulators go with their transformers, the dead part to the root
    assert p.borders["reg1"].branch == tuple(f"transformer.reg{k}" for k in ABC)
    assert names(top.feeder.buses) == {"s", "m", "r", "dead"}
    assert names(top.feeder.transformers) == {"reg1", "reg2", "reg3"}
    assert names(top.regulators) == {"r1", "r2", "r3"}
    assert names(mid.feeder.lines) == {"re", "en", "lat"}
    assert names(low.feeder.shunts) == {"sh"}
    assert names(low.of(Heater)) == {"h"}
    # an open switch from one area to another is nobody's
    assert not any(a.case.feeder.switches for a in p.areas.values())
    # profiles go where they are used; the source's 1.02 and 1.06 pu are cut to the 1.05 that the head's bus allows
    assert set(top.profiles) == {"day", "volts"}
    assert set(mid.profiles) == {"night", "v_pu of reg1"}
    assert mid.profiles["v_pu of reg1"].tolist() == [1.02, 1.05]
    assert set(low.profiles) == {"v_pu of down"}
    assert dict(top.where) == {"load.a": "loads.csv:2", "line.sm": "lines.csv:2"}
    assert dict(low.where) == {"load.c": "loads.csv:4"}
    assert [(b.x, b.y) for b in mid.feeder.buses if b.name == "e"] == [(3.0, 0.5)]
    # behind delta-wye the unloaded angles turn by 30 degrees (the low side lags)
    (head,) = low.of(BorderHead)
    assert head.conductors == ABC
    np.testing.assert_allclose(head.angle_deg, (-30.0, -150.0, 90.0), atol=0.05)
    (tail,) = mid.of(BorderTail)
    assert (tail.terminals, tail.p_kw, tail.q_kvar) == ((1, 2, 3, 0), 12.0, 6.0)
    # of the far bus the parent knows what crosses
    one_phase = cut(case, ["line.lat"])
    assert one_phase.areas["2"].case.of(BorderHead)[0].conductors == (2,)


def test_far_bus_has_only_the_conductors_that_cross() -> None:
    p = cut(three_phase(), ["line.en"])
    assert p.areas["1"].case.feeder.bus["n"].conductors == ABC
    assert p.areas["2"].case.feeder.bus["n"].conductors == (1, 2, 3, 4)


def test_an_area_can_be_cut_again() -> None:
    whole = cut(lateral.read("case33bw-areas"), ["line.5-6"]).areas["2"]
    again = cut(whole.case, ["line.9-10"])
    assert [type(d) for d in again.areas["1"].case.devices if d.name in ("5-6", "9-10")] == [BorderHead, BorderTail]
    assert check(again.areas["1"].case) == ()
    assert check(again.areas["2"].case) == ()


# -- what cannot be cut ----------------------------------------------------------------------------------------------


def test_every_fault_of_the_cuts_at_once() -> None:
    case = three_phase()
    wide = dataclasses.replace(
        case.feeder,
        lines=(*case.feeder.lines[:2], line("en", "e", "n", (1, 2, 3, 4)), case.feeder.lines[3]),
        buses=tuple(
            dataclasses.replace(b, conductors=(1, 2, 3, 4)) if b.name in "smre" else b for b in case.feeder.buses
        ),
    )
    case = case.with_(feeder=wide)
    branches = ["line.ree", "switch.tie", "line.en", "transformer.reg1", "transformer.reg3", "line.lat", "line.re"]
    with pytest.raises(CaseError) as caught:
        cut(case, branches, names={"line.lat": "x", "line.re": "x"}, root="a/b")
    found = [(f.code[:7], f.element) for f in caught.value.faults]
    assert found == [
        ("ARE-005", "area.a/b"),
        ("ARE-003", "line.ree"),
        ("ARE-003", "switch.tie"),
        ("ARE-006", "line.en"),
        ("ARE-004", "transformer.reg3"),
        ("ARE-005", "line.re"),
    ]
    text = str(caught.value)
    assert "Did you mean 'line.re'" in text
    assert "open switch" in text
    assert "conductor 4 crosses, a neutral or an open end" in text
    assert "'x', which is that of line.lat too" in text


def test_no_cut_behind_a_delta_or_at_three_buses() -> None:
    case = three_phase()
    down = case.feeder.transformers[3]
    delta = dataclasses.replace(down.windings[1], connection="delta", terminals=ABC)
    floating = dataclasses.replace(down.windings[1], terminals=(*ABC, -1))
    third = dataclasses.replace(down.windings[1], bus="lat", terminals=(2, 0))
    for winding, word in ((delta, "delta"), (floating, "grounded")):
        t = dataclasses.replace(down, windings=(down.windings[0], winding))
        bad = case.with_(feeder=dataclasses.replace(case.feeder, transformers=(*case.feeder.transformers[:3], t)))
        with pytest.raises(CaseError, match=word):
            cut(bad, ["transformer.down"])
    t = dataclasses.replace(down, windings=(*down.windings, third), x_percent=(4.0, 4.0, 4.0))
    feeder = dataclasses.replace(
        case.feeder, transformers=(*case.feeder.transformers[:3], t), lines=case.feeder.lines[:3]
    )
    with pytest.raises(CaseError, match="between 3 buses"):
        cut(case.with_(feeder=feeder), ["transformer.down"])


def test_loops_and_sources() -> None:
    case = three_phase()
    looped = dataclasses.replace(case.feeder, lines=(*case.feeder.lines, line("mr", "s", "e")))
    twice = (*case.devices, Source(name="other", bus="e", conductors=ABC, angle_deg=(0.0, -120.0, 120.0)))
    for make in (lambda c: cut(c, []), lambda c: divide(c, 2), lambda c: cut_by_buses(c, {"s": "1"})):
        with pytest.raises(CaseError) as caught:
            make(case.with_(feeder=looped, devices=twice))
        assert {f.code[:7] for f in caught.value.faults} == {"ARE-001", "ARE-002"}
        with pytest.raises(CaseError, match="no source"):
            make(case.with_(devices=case.devices[1:]))


def test_every_fault_of_a_map_of_buses_at_once() -> None:
    case = lateral.read("case33bw-areas")
    areas = {**case.areas, "7": "1", "77": "1"}
    with pytest.raises(CaseError) as caught:
        cut_by_buses(case, areas)
    found = {(f.code[:7], f.element) for f in caught.value.faults}
    assert found == {("ARE-007", "bus.77"), ("ARE-008", "area.1"), ("ARE-008", "area.3")}
    with pytest.raises(CaseError, match=r"bus\.2: found no area, as 31 others"):
        cut_by_buses(case, {"1": "a"})
    with pytest.raises(OptionError, match="names no areas"):
        cut_by_buses(lateral.read("case33bw"))


# -- into N areas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ieee123-t24", "ieee123-rated", "ieee13-rated", "case33bw-areas", "tree-300x1"])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_divide(name: str, n: int) -> None:
    case = lateral.read(name)
    p = divide(case, n)
    assert list(p.areas) == [str(k + 1) for k in range(n)]
    assert len(p.borders) == n - 1
    sizes = [a.n_nodes for a in p.areas.values()]
    assert sum(sizes) == sum(len(b.conductors) for b in case.feeder.buses)
    assert min(sizes) > 0
    if name != "ieee13-rated":  # 41 nodes, most of them three by three, are no fine grain
        assert max(sizes) <= 1.7 * sum(sizes) / n
    assert all(check(a.case) == () for a in p.areas.values())
    assert dict(divide(case, n).borders) == dict(p.borders)


def test_divide_shares_batteries_and_prefers_switches() -> None:
    p = divide(lateral.read("ieee123-t24"), 2)
    assert sorted(len(a.case.batteries) for a in p.areas.values()) == [13, 13]
    borders = divide(lateral.read("ieee123-rated"), 2).borders.values()
    assert [b.branch[0].split(".")[0] for b in borders] == ["switch"]


def test_divide_says_how_many_there_can_be() -> None:
    case = lateral.read("ads10")
    assert len(divide(case, 1).areas) == 1
    assert len(divide(case, 10).areas) == 10
    with pytest.raises(OptionError, match="so 10 areas at most"):
        divide(case, 11)
    for bad in (0, -1, 2.0, True):
        with pytest.raises(OptionError, match="whole number"):
            divide(case, bad)  # type: ignore[arg-type]


def test_divide_avoids_what_cannot_be_a_border() -> None:
    """Of the small feeder's branches only the delta-wye's primary side, ... all can be cut but the neutral's."""
    case = three_phase()
    buses = tuple(dataclasses.replace(b, conductors=(1, 2, 3, 4)) if b.name in "smre" else b for b in case.feeder.buses)
    lines = tuple(
        line(e.name, e.bus_from, e.bus_to, (1, 2, 3, 4)) if len(e.conductors_from) == 3 else e
        for e in case.feeder.lines
    )
    wide = case.with_(feeder=dataclasses.replace(case.feeder, buses=buses, lines=lines))
    p = divide(wide, 4)
    assert {b.branch[0] for b in p.borders.values()} == {"transformer.reg1", "transformer.down", "line.lat"}
    with pytest.raises(OptionError, match="3 branches that can be borders"):
        divide(wide, 5)


# -- files -----------------------------------------------------------------------------------------------------------


def same(a: Partition, b: Partition) -> bool:
    return {n: x.case.hash for n, x in a.areas.items()} == {n: x.case.hash for n, x in b.areas.items()}


def test_areas_toml(tmp_path: Path) -> None:
    case = lateral.read("case33bw-areas")
    p = cut_by_buses(case)
    file = write_cuts(p, tmp_path / "areas.toml")
    assert same(partition_of(case, file), p)
    assert same(partition_of(case, str(tmp_path)), p)
    assert same(partition_of(case), p)
    assert same(partition_of(case, "4"), divide(case, 4))
    with pytest.raises(OptionError, match="exists"):
        write_cuts(p, file)
    file.write_text("n = 4\n")
    assert same(read_areas(case, file), divide(case, 4))
    file.write_text("[buses]\n" + "".join(f'"{b}" = "{a}"\n' for b, a in case.areas.items()))
    assert same(read_areas(case, file), p)


@pytest.mark.parametrize(
    ("text", "code", "where", "words"),
    [
        ("n = 0", "ARE-011", ":1", "greater than or equal to 1"),
        ("n = 2\ncut = 3", "ARE-011", ":2", "Did you mean 'cuts'"),
        ("n = 2\n[cuts]\na = 'line.2-3'", "ARE-011", "", "not both n and cuts"),
        ("root = 'x'\nn = 2", "ARE-011", "", "root only beside cuts"),
        ("", "ARE-011", "", "none of n, cuts and buses"),
        ("n = 2\ncuts = =", "ARE-010", ":2", "Invalid value"),
        ("[cuts]\na = 'line.2-3'\nb = 'line.2-33'", "ARE-003", ":3", "Did you mean"),
        ("[cuts]\na = 'line.2-3'\nb = 'switch.8-21'", "ARE-003", ":3", "open switch"),
        ("[cuts]\na = 'line.2-3'\nb = 'line.2-3'", "ARE-004", ":3", "as area 'a' is"),
        ("root = 'a'\n[cuts]\na = 'line.2-3'", "ARE-005", ":3", "that of the source too"),
        ("[cuts]\n'../a' = 'line.2-3'", "ARE-005", ":2", "names a folder"),
        ("[buses]\n1 = 'a'\n99 = 'b'", "ARE-007", ":3", "does not exist"),
    ],
)
def test_faults_of_areas_toml(tmp_path: Path, text: str, code: str, where: str, words: str) -> None:
    file = tmp_path / "areas.toml"
    file.write_text(text)
    with pytest.raises(CaseError) as caught:
        read_areas(lateral.read("case33bw-areas"), file)
    fault = next(f for f in caught.value.faults if f.code.startswith(code))
    assert fault.where.startswith("areas.toml" + where)
    assert words in str(fault)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"ARE-010 file.*nowhere\.toml"):
        partition_of(lateral.read("case33bw-areas"), tmp_path / "nowhere.toml")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_areas_as_folders(tmp_path: Path, kind: str) -> None:
    for name in ("case33bw-areas", "ieee13"):
        p = divide(lateral.read(name), 3)
        folders = write_areas(p, tmp_path / name, kind=kind)  # type: ignore[arg-type]
        assert set(folders) == set(p.areas)
        for area, folder in folders.items():
            again = lateral.read(str(folder))
            assert again.hash == p.areas[area].case.hash
            assert check(again) == ()
    with pytest.raises(OptionError, match="exists"):
        write_areas(p, tmp_path / "ieee13")
    write_areas(p, tmp_path / "ieee13", overwrite=True)


def test_areas_whose_folders_would_be_one(tmp_path: Path) -> None:
    p = cut(lateral.read("case33bw-areas"), ["line.2-3", "line.5-6"], names={"line.2-3": "a", "line.5-6": "A"})
    with pytest.raises(OptionError, match="share its folder"):
        write_areas(p, tmp_path / "x")


def secret(case: Case) -> Case:
    """The case with names that cannot be there by chance."""

    def new(name: str) -> str:
        return f"secret{name}x"

    feeder = case.feeder
    return case.with_(
        name="plain",
        feeder=dataclasses.replace(
            feeder,
            buses=tuple(dataclasses.replace(b, name=new(b.name)) for b in feeder.buses),
            lines=tuple(
                dataclasses.replace(e, name=new(e.name), bus_from=new(e.bus_from), bus_to=new(e.bus_to))
                for e in feeder.lines
            ),
            switches=tuple(
                dataclasses.replace(e, name=new(e.name), bus_from=new(e.bus_from), bus_to=new(e.bus_to))
                for e in feeder.switches
            ),
        ),
        devices=tuple(dataclasses.replace(d, name=new(f"{d.kind}{d.name}"), bus=new(d.bus)) for d in case.devices),
        areas={new(b): f"secretarea{a}x" for b, a in case.areas.items()},
        notes="secretnotesx",
    )


def test_a_folder_holds_nothing_of_the_others(tmp_path: Path) -> None:
    """Every byte of an area's folder: of the names of the whole only its own, and those of its borders."""
    case = secret(lateral.read("case33bw-areas"))
    everything = {e.name for e in (*case.feeder.elements, *case.devices)} | set(case.areas.values()) | {case.notes}
    p = cut_by_buses(case)
    for name, folder in write_areas(p, tmp_path / "out").items():
        area = p.areas[name].case
        own = {e.name for e in (*area.feeder.elements, *area.devices)} | {name}
        data = b"".join(f.read_bytes() for f in sorted(folder.iterdir()))
        assert all(n.encode() in data for n in own - {name})
        leaked = {n for n in everything - own if n.encode() in data}
        borders = {b.name for b in p.borders.values() if name in (b.parent, b.child)}
        assert leaked - borders == set()
        # of the neighbours' buses and devices: only the bus of each border below
        mine = {b for b, a in case.areas.items() if a == name}
        assert {b.name for b in area.feeder.buses} - mine == {b.bus for b in p.areas[name].tails}


# -- alone -----------------------------------------------------------------------------------------------------------


def test_an_area_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The middle area of three, with a head and a tail: check, solve with replay, report, OpenDSS."""
    p = divide(lateral.read("ieee13-rated"), 3)
    name = next(n for n, a in p.areas.items() if a.head is not None and a.tails)
    folder = str(write_areas(p, tmp_path / "areas")[name])
    assert run(["check", folder]) == 0
    assert run(["solve", folder, "--out", str(tmp_path / "out")]) == 0
    assert run(["report", folder, "--out", str(tmp_path / "r.html")]) == 0
    capfd.readouterr()
    result = lateral.solve(lateral.read(folder))
    assert result.ok
    assert result.replay is not None
    # made at its own power flow, the model is exact there: what is left is the engine's tolerance of 1e-8
    assert result.replay.summary()["max_dv_pu"] < 1e-5
    text = "".join(render_opendss(p.areas[name].case).files.values())
    assert "New Circuit." in text


def test_a_border_in_opendss_is_a_source_and_a_load() -> None:
    p = cut_by_buses(lateral.read("ieee123-t5"))
    result = lateral.solve(p.areas["2"].case, "nonlinear")
    assert result.ok
    assert result.replay is not None
    assert result.replay.summary()["max_dv_pu"] < 1e-6
    assert set(result.replay.p_by_source_kw) == {"border_head.15-117"}
    assert isinstance(p.areas["2"].case.devices[0], BorderHead)
    assert PV in {type(d) for d in p.areas["4"].case.devices}
