"""Case folders: exact round trips, strict reading with every fault at once, no way out of the folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Regulator, ShuntDevice, Source
from lateral.errors import CaseError, HostileFileError, OptionError
from lateral.io import builtin, read, tables
from lateral.io.schema_json import case_schema
from lateral.network.feeder import Bus, Feeder, Line, Shunt, Switch, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import spec


def codes(error: CaseError) -> list[str]:
    return [fault.code.split()[0] for fault in error.faults]


def faults_of(folder: Path, **options: Any) -> CaseError:
    with pytest.raises(CaseError) as caught:
        tables.read_folder(folder, **options)
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tables.write_folder(builtin.load("ieee123-t5"), tmp_path / "case")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("name", [n for n in builtin.names() if "10000" not in n])
def test_every_builtin_round_trips(tmp_path: Path, name: str, form: Literal["csv", "parquet"]) -> None:
    case = builtin.load(name)
    again = tables.read_folder(tables.write_folder(case, tmp_path / "x", tables=form))
    assert again.hash == case.hash
    assert (again.name, again.notes, dict(again.areas)) == (case.name, case.notes, dict(case.areas))
    assert again.base == case.base
    assert list(again.profiles) == list(case.profiles)
    assert again.horizon.times.equals(case.horizon.times)


def test_reading_remembers_file_and_line(folder: Path) -> None:
    case = read(folder)
    assert case.where["bus.1"] == "buses.csv:2"
    assert case.where["load.3"] == "loads.csv:2"
    assert read(folder / "case.toml").hash == case.hash


names = st.text(st.sampled_from("abcxyz019_-. ,;\"'é"), min_size=1, max_size=6).map(str.strip).filter(bool)
numbers = st.floats(-1e9, 1e9, allow_nan=False) | st.sampled_from([0.0, -0.0, 1e-300, 0.1 + 0.2, 1e16, math.pi])
positive = st.floats(1e-9, 1e9)
square = st.integers(1, 3).flatmap(
    lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=n, max_size=n)
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    ids = draw(st.lists(names.filter(lambda n: n != "none"), min_size=2, max_size=4, unique=True))
    steps = draw(st.integers(1, 4))
    series = st.lists(st.floats(allow_nan=False) | st.just(math.nan), min_size=steps, max_size=steps)
    words = st.text("abcdefg", min_size=1, max_size=4)
    profiles = {n: np.array(draw(series)) for n in draw(st.lists(words, max_size=3, unique=True))}
    some_profile = st.sampled_from(["", *profiles])
    some_series = st.sampled_from([0.5, math.inf, *profiles])
    terminals = st.sampled_from([(1, 0), (1, 2, 3, 0), (2, 3), (1, 2, 3)])
    buses = tuple(
        Bus(
            name=n,
            conductors=draw(st.sampled_from([(1,), (1, 2, 3), (2, 4)])),
            v_base_kv=draw(positive),
            v_max_pu=draw(st.sampled_from([1.05, math.inf])),
            x=draw(st.sampled_from([math.nan, 0.25, -3.0])),
        )
        for n in ids
    )
    ends = {"bus_from": ids[0], "bus_to": ids[1], "conductors_from": (1,), "conductors_to": (1,)}
    b_us = draw(st.none() | square)
    lines = tuple(
        Line(name=n, **ends, r_ohm=draw(square), x_ohm=draw(square), b_us=b_us)  # type: ignore[arg-type]
        for n in draw(st.lists(names, max_size=2, unique=True))
    )
    switch = Switch(name="s", **ends, r_ohm=draw(square), x_ohm=[[0.0]], closed=draw(st.booleans()))  # type: ignore[arg-type]
    winding = Winding(
        bus=ids[0], terminals=(1, 2, 3, 0), v_rated_kv=draw(positive), s_rated_kva=5.0, tap=draw(positive)
    )
    transformer = Transformer(
        name="t", windings=(winding, replace(winding, bus=ids[1], connection="delta")), x_percent=(draw(numbers),)
    )
    shunt = Shunt(name="g", bus=ids[0], conductors=(1,), g_us=draw(square), b_us=draw(square))  # type: ignore[arg-type]
    pool: list[Any] = [
        Source(
            name="grid",
            bus=ids[0],
            v_pu=draw(some_series),
            price_export=draw(st.none() | some_series),
            r_ohm=draw(square),  # type: ignore[arg-type]
            angle_deg=(0.0, -120.0),
        ),
        Load(
            name=draw(names),
            bus=ids[1],
            terminals=draw(terminals),
            p_kw=draw(numbers),
            profile=draw(some_profile),
            v_rated_kv=draw(st.none() | positive),
            zip_p=(0.1, 0.2, 0.7),
        ),
        Load(name="other", bus=ids[1], p_kw=draw(numbers)),
        Capacitor(name="c", bus=ids[1], q_kvar=draw(positive), control='kvar, "on" 5'),
        PV(name="p", bus=ids[1], p_rated_kw=1, s_max_kva=np.float64(1.5), curtailable=draw(st.booleans())),
        Battery(
            name="b", bus=ids[1], p_charge_max_kw=1.0, p_discharge_max_kw=2.0, s_max_kva=3.0, energy_kwh=draw(positive)
        ),
        Regulator(name="r", transformer="t", winding=draw(st.integers(1, 2))),
    ]
    devices = draw(st.permutations(pool))
    return Case(
        name=draw(names),
        feeder=Feeder(
            buses=buses,
            lines=lines,
            switches=(switch,),
            transformers=(transformer,),
            shunts=(shunt,),
            n_phases=draw(st.sampled_from([1, 3])),
            balanced=draw(st.booleans()),
        ),
        devices=tuple(devices[: draw(st.integers(0, len(devices)))]),
        horizon=Horizon(
            start=Horizon.regular(1, start="2024-03-10T01:00", zone="America/New_York").start,
            step_h=np.array(draw(st.lists(st.sampled_from([0.25, 1.0, 1 / 3]), min_size=steps, max_size=steps))),
            weight=np.array(draw(st.lists(st.sampled_from([1.0, 7.0]), min_size=steps, max_size=steps))),
            breaks=draw(st.sampled_from([(), (steps - 1,)])),
            zone="America/New_York",
        ),
        profiles=profiles,
        areas=draw(st.sampled_from([{}, {ids[0]: "a 1"}])),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=cases(), form=st.sampled_from(["csv", "parquet"]))
def test_any_case_round_trips(tmp_path_factory: pytest.TempPathFactory, case: Case, form: Any) -> None:
    path = tmp_path_factory.mktemp("round") / "x"
    again = tables.read_folder(tables.write_folder(case, path, tables=form))
    assert again.hash == case.hash
    assert [d.label for d in again.devices] == [d.label for d in case.devices]
    assert dict(again.areas) == dict(case.areas)


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("quotes", range(1, 7))
def test_names_of_quotes_only_round_trip(tmp_path: Path, quotes: int, form: Literal["csv", "parquet"]) -> None:
    name = '"' * quotes
    winding = Winding(bus=name, terminals=(1, 0), v_rated_kv=1.0, s_rated_kva=5.0)
    transformer = Transformer(name=name, windings=(winding, winding), x_percent=(1.0,), n_phases=1)
    load = Load(name=name, bus=name, p_kw=1.0, profile=name)
    case = Case(
        name="quotes",
        feeder=Feeder(buses=(Bus(name=name, conductors=(1,), v_base_kv=1.0),), transformers=(transformer,)),
        devices=(load, replace(load, name="b", profile="")),
        horizon=Horizon.regular(1),
        profiles={name: np.array([1.0])},
        areas={name: name},
    )
    again = tables.read_folder(tables.write_folder(case, tmp_path / "x", tables=form))
    assert again.hash == case.hash
    assert [d.profile for d in again.loads] == [name, ""]
    assert dict(again.areas) == dict(case.areas)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatPump(ShuntDevice):
    """A user's own device."""

    kind: ClassVar[str] = "heatpump"
    table: ClassVar[str] = "heatpumps"

    p_max_kw: float = spec("Most power.", unit="kW", minimum=0.0)
    rooms: tuple[str, ...] = spec("Rooms it heats.", default=())


def test_users_own_device(tmp_path: Path) -> None:
    case = builtin.load("ads10")
    pump = HeatPump(name="h", bus="5", p_max_kw=3.0, rooms=("hall", "bed room"))
    case = case.with_(devices=(pump, *case.devices))
    path = tables.write_folder(case, tmp_path / "x")
    again = tables.read_folder(path, device_types=(HeatPump,))
    assert again.hash == case.hash
    assert again.of(HeatPump)[0].rooms == ("hall", "bed room")
    error = faults_of(path)
    assert codes(error) == ["TAB-004"]
    assert tables.write_folder(case, path, overwrite=True) == path

    class Clash(HeatPump):
        table = "loads"

    with pytest.raises(OptionError, match="taken"):
        tables.read_folder(path, device_types=(Clash,))


def test_every_fault_at_once_with_file_and_line(folder: Path) -> None:
    edit(folder / "loads.csv", "name,bus,p_kw", "name,bus,p_kW")
    edit(folder / "pvs.csv", "9,9,", "9,9,a lot ")
    edit(folder / "lines.csv", "0.0232", "0.0232; 1 2 3")
    (folder / "batery.csv").write_text("name\n")
    edit(folder / "profiles.csv", "0.777", "0,777")
    edit(folder / "buses.csv", "\n1,", "\n,")
    error = faults_of(folder)
    by_code = {}
    for fault in error.faults:
        by_code.setdefault(fault.code.split()[0], fault)
    assert set(by_code) == {"TAB-004", "TAB-011", "TAB-012", "TAB-013", "TAB-014", "TAB-015"}
    assert "Did you mean 'p_kw'" in by_code["TAB-011"].action
    assert by_code["TAB-011"].where == "loads.csv:1"
    assert by_code["TAB-013"].where == "buses.csv:2"
    assert by_code["TAB-015"].where == "profiles.csv:3"
    assert "Did you mean 'batteries'" in by_code["TAB-004"].action
    values = {f.element: f for f in error.faults if f.code.startswith("TAB-014")}
    assert "'a lot 2.33345' in column 'p_rated_kw'" in values["pv.9"].found
    assert values["pv.9"].where == "pvs.csv:3"
    assert "lower triangle" in values["line.2-3"].allowed
    assert str(folder) not in str(error)


def test_headers(folder: Path) -> None:
    edit(folder / "loads.csv", "name,bus", "name,name")
    assert codes(faults_of(folder)) == ["TAB-010"]


def test_case_toml_faults(folder: Path) -> None:
    edit(folder / "case.toml", "base_kva = 1000.0", "base_kwa = 1000.0\nn_phases = 0")
    edit(folder / "case.toml", "n_phases = 1\n", "")
    error = faults_of(folder)
    assert codes(error) == ["TAB-003", "TAB-003"]
    assert any("Did you mean 'base_kva'" in f.action and f.where == "case.toml:4" for f in error.faults)
    (folder / "case.toml").write_text("name = [")
    assert codes(faults_of(folder)) == ["TAB-002"]
    (folder / "case.toml").unlink()
    assert codes(faults_of(folder)) == ["TAB-001"]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("zone = ", "zone = 'Europe/Atlantis' # ", "TAB-008"),
        ("step_h = 1.0", "step_h = [1.0, 1.0]", "TAB-008"),
        ("n_steps = 5", "n_steps = 6", "TAB-031"),
        ("step_h = 1.0", "step_h = 0.5", "TAB-033"),
    ],
)
def test_horizon_and_profiles_agree(folder: Path, old: str, new: str, code: str) -> None:
    edit(folder / "case.toml", old, new)
    assert codes(faults_of(folder)) == [code]


def test_time_column(folder: Path) -> None:
    edit(folder / "profiles.csv", "2024-07-01T10:00:00-04:00", "2024-07-01T10:00:00")
    assert codes(faults_of(folder)) == ["TAB-032"]
    edit(folder / "profiles.csv", "2024-07-01T10:00:00", "2024-07-01T14:00:00Z")
    assert read(folder).hash == builtin.load("ieee123-t5").hash
    edit(folder / "profiles.csv", "2024-07-01T14:00:00Z", "noon")
    assert codes(faults_of(folder)) == ["TAB-030"]
    edit(folder / "profiles.csv", "time,", "when,")
    assert codes(faults_of(folder)) == ["TAB-030"]


def test_an_empty_profile_cell_is_not_a_number_and_left_to_the_check(folder: Path) -> None:
    edit(folder / "profiles.csv", "0.777", "")
    assert np.isnan(read(folder).profiles["load"][1])


def test_windings_belong_to_a_transformer(tmp_path: Path) -> None:
    path = tables.write_folder(builtin.load("ieee13-rated"), tmp_path / "x")
    text = (path / "windings.csv").read_text().replace("\nxfm1,", "\nxmf1,")
    (path / "windings.csv").write_text(text)
    error = faults_of(path)
    assert codes(error) == ["TAB-017", "TAB-017"]
    assert "Did you mean 'xfm1'" in error.faults[1].action
    (path / "windings.csv").unlink()
    assert codes(faults_of(path)) == ["TAB-006"]


@pytest.mark.parametrize("way", ["../outside.csv", "/etc/passwd", "sub/../../outside.csv"])
def test_no_table_outside_the_folder(folder: Path, way: str) -> None:
    (folder.parent / "outside.csv").write_text("name,bus,p_kw\n")
    edit(folder / "case.toml", "[horizon]", f'[tables]\nloads = "{way}"\n\n[horizon]')
    with pytest.raises(HostileFileError):
        tables.read_folder(folder)


def test_no_link_outside_the_folder(folder: Path) -> None:
    outside = folder.parent / "outside.csv"
    outside.write_text("name,bus,p_kw\n")
    (folder / "loads.csv").unlink()
    (folder / "loads.csv").symlink_to(outside)
    with pytest.raises(HostileFileError):
        tables.read_folder(folder)


def test_named_table_in_a_subfolder(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "loads.csv").rename(folder / "sub" / "demand.csv")
    edit(folder / "case.toml", "[horizon]", '[tables]\nloads = "sub/demand.csv"\n\n[horizon]')
    assert read(folder).hash == builtin.load("ieee123-t5").hash


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = builtin.load("ads10")
    target = tables.write_folder(case, tmp_path / "x")
    before = sorted((p.name, p.read_bytes()) for p in target.iterdir())

    def broken(path: Path, header: Any, rows: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables.write, "write_csv", broken)
    with pytest.raises(OSError, match="No space"):
        tables.write_folder(builtin.load("case33bw"), target, overwrite=True)
    assert sorted((p.name, p.read_bytes()) for p in target.iterdir()) == before
    with pytest.raises(OSError, match="No space"):
        tables.write_folder(case, tmp_path / "y")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_writing_does_not_replace_what_is_not_its_own(tmp_path: Path) -> None:
    case = builtin.load("ads10")
    target = tables.write_folder(case, tmp_path / "x")
    with pytest.raises(OptionError, match="overwrite"):
        tables.write_folder(case, target)
    tables.write_folder(case, target, overwrite=True, tables="parquet")
    assert not list(target.glob("*.csv"))
    (target / "thesis.docx").write_text("years of work")
    with pytest.raises(OptionError, match=r"thesis\.docx"):
        tables.write_folder(case, target, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="is a file"):
        tables.write_folder(case, tmp_path / "file")


def test_what_a_table_cannot_hold_is_said(tmp_path: Path) -> None:
    case = builtin.load("ads10")
    bad = case.with_(profiles={**case.profiles, "12": np.zeros(24)}, areas={"nowhere": "1"})
    with pytest.raises(CaseError) as caught:
        tables.write_folder(bad, tmp_path / "x")
    assert codes(caught.value) == ["TAB-041", "TAB-042"]
    with pytest.raises(CaseError) as caught:
        tables.write_folder(case.with_(profiles={"load": np.zeros(3)}), tmp_path / "x")
    assert codes(caught.value) == ["TAB-043"]
    assert not list(tmp_path.iterdir())


def test_schema_is_published() -> None:
    schema = case_schema()
    assert schema["additionalProperties"] is False
    assert {"name", "horizon"} <= set(schema["required"])
    assert all("description" in p or "$ref" in p for p in schema["properties"].values())


def test_read_says_what_it_takes(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for source in (tmp_path, tmp_path / "notes.txt", "iee13"):
        with pytest.raises(CaseError, match="allowed: a built-in case, a case folder, a study"):
            read(source)
