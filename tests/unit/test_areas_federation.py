"""Federations: the file, the folders that are handed out, what owners refuse, and a run of real owners."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import lateral
from lateral.areas.algorithms import BUILT_IN, Enapp, EnappPriced
from lateral.areas.driver import Patience
from lateral.areas.executors import Serial
from lateral.areas.federation import NAME, federation_of, read_federation, solve_federation, write_federation
from lateral.areas.federation_file import order_of
from lateral.areas.partition import Partition, cut, cut_by_buses
from lateral.areas.plan import Plan
from lateral.areas.protocol import AreaSpec
from lateral.areas.run import Round
from lateral.areas.solve import area_specs, solve_areas
from lateral.case import Case
from lateral.errors import CaseError, OptionError
from lateral.io.tables import read_folder
from lateral.network.feeder import Feeder
from lateral.solvers import Status

CUTS = ("line.2-3", "line.5-6", "line.9-10")


def three() -> Partition:
    return cut(lateral.read("case33bw"), CUTS[:2])


def same(a: Plan, b: Plan) -> bool:
    """Every field the same, numbers to the last bit: TOML keeps them."""
    return all(
        np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y
        for x, y in ((getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Plan))
    )


@pytest.mark.parametrize("name", ["ieee123-t5", "case33bw"])
def test_a_written_federation_is_read_as_the_same_plan(name: str, tmp_path: Path) -> None:
    case = lateral.read(name)
    partition = cut_by_buses(case) if case.areas else three()
    folders = write_federation(
        partition, tmp_path / "f", EnappPriced(depth=2), objective="cost+0.5*loss", tolerance=1e-5
    )
    read = read_federation(tmp_path / "f")
    assert same(read.plan, Plan.of(partition, "cost+0.5*loss"))
    assert read.algorithm == EnappPriced(depth=2)
    assert read.run.tolerance == 1e-5
    assert read.run.formulation == "nonlinear"  # what "auto" means for the whole
    assert (
        read.identifier
        == federation_of(partition, EnappPriced(depth=2), objective="cost+0.5*loss", tolerance=1e-5).identifier
    )
    expected = area_specs(partition, read.task())
    for area, folder in folders.items():
        assert folder == tmp_path / "f" / area
        assert read.check_area(read_folder(folder), area) == area
        assert read.check_area(read_folder(folder)) == area
        assert read.task(area) == expected[area].task


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_every_algorithm_can_be_agreed_on(name: str, tmp_path: Path) -> None:
    form = "lindistflow" if name == "newton" else "auto"  # which wants convex areas
    write_federation(three(), tmp_path / "f", BUILT_IN[name](), formulation=form)
    assert read_federation(tmp_path / "f" / NAME).algorithm == BUILT_IN[name]()


def test_lengths_of_steps_are_part_of_the_agreement(tmp_path: Path) -> None:
    """A step of weight 0 counts for its length; a file without hours counts every step as one."""
    case = lateral.read("ieee123-t5")
    horizon = dataclasses.replace(
        case.horizon, step_h=np.array([0.25, 1.0, 2.0, 3.0, 0.5]), weight=np.array([1.0, 2.0, 0.0, 1.0, 1.0])
    )
    write_federation(cut_by_buses(case.with_(horizon=horizon)), tmp_path)
    assert list(read_federation(tmp_path).plan.counts) == [0.25, 2.0, 2.0, 3.0, 0.5]
    data = tomllib.loads((tmp_path / NAME).read_text())
    for hours, found in (([1.0, 2.0], "FED-005"), ([0.25, 1.0, 0.0, 3.0, 0.5], "FED-002")):
        (tmp_path / NAME).write_text(tomli_w.dumps({**data, "hours": hours}))
        with pytest.raises(CaseError, match=found):
            read_federation(tmp_path)
    del data["hours"]
    (tmp_path / NAME).write_text(tomli_w.dumps(data))
    assert list(read_federation(tmp_path).plan.counts) == [1.0] * 5


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    write_federation(three(), tmp_path)
    data = tomllib.loads((tmp_path / NAME).read_text())
    data["areas"] = dict(reversed(data["areas"].items()))
    data["borders"] = dict(reversed(data["borders"].items()))
    (tmp_path / NAME).write_text(tomli_w.dumps(data))
    plan = read_federation(tmp_path).plan
    assert plan.areas == ("1", "2", "3")
    assert list(plan.borders) == ["2-3", "5-6"]


# --------------------------------------------------------------------------------------------- nothing of the others


def renamed(case: Case) -> Case:
    """The case with names of buses and branches that stand out in any file: no number or word is like them."""

    def word(name: str) -> str:
        return f"zz{name.replace('-', 'x')}zz"

    feeder = case.feeder

    def branch(e: Any) -> Any:
        return dataclasses.replace(e, name=word(e.name), bus_from=word(e.bus_from), bus_to=word(e.bus_to))

    new = Feeder(
        **{f.name: getattr(feeder, f.name) for f in dataclasses.fields(feeder) if f.init}
        | {
            "buses": tuple(dataclasses.replace(b, name=word(b.name)) for b in feeder.buses),
            "lines": tuple(map(branch, feeder.lines)),
            "switches": tuple(map(branch, feeder.switches)),
        }
    )
    given: tuple[Any, ...] = case.devices
    devices = tuple(dataclasses.replace(d, name=f"yy{d.kind}yy{d.name}yy", bus=word(d.bus)) for d in given)
    return case.with_(feeder=new, devices=devices, areas={})


def test_an_areas_folder_and_the_federation_file_hold_nothing_of_the_others(tmp_path: Path) -> None:
    """Every byte of every file is read: of what others have, a folder names only the far buses of its borders."""
    case = renamed(lateral.read("case33bw"))
    partition = cut(case, [f"line.zz{c.removeprefix('line.').replace('-', 'x')}zz" for c in CUTS])
    folders = write_federation(partition, tmp_path / "f")
    pattern = re.compile(rb"zz[0-9x]+zz|yy[a-z_]+yy[^y]+yy")
    names: dict[str, set[bytes]] = {}
    for name, area in partition.areas.items():
        elements = [*area.case.feeder.buses, *area.case.feeder.lines, *area.case.feeder.switches, *area.case.devices]
        names[name] = {e.name.encode() for e in elements}
    for name, folder in folders.items():
        found: set[bytes] = set()
        for file in folder.rglob("*"):
            if file.is_file():
                found |= set(pattern.findall(file.read_bytes()))
        assert found
        assert found <= names[name]
        for other in set(names) - {name}:
            shared = names[name] & names[other]
            crossing = {
                x.encode()
                for b in partition.borders.values()
                if {b.parent, b.child} == {name, other}
                for x in (b.bus, b.name)
            }
            assert shared <= crossing
    crossing = {x.encode() for b in partition.borders.values() for x in (b.bus, b.name)}
    crossing |= {label.split(".", 1)[1].encode() for b in partition.borders.values() for label in b.branch}
    assert set(pattern.findall((tmp_path / "f" / NAME).read_bytes())) == crossing


# ------------------------------------------------------------------------------------------------------------- faults


def faults_of(tmp_path: Path, **changes: Any) -> list[str]:
    """Faults of the file of three areas with some of its keys replaced (dotted with ``__``; None removes)."""
    write_federation(three(), tmp_path, overwrite=True)
    data = tomllib.loads((tmp_path / NAME).read_text())
    for path, value in changes.items():
        *above, last = path.split("__")
        table = data
        for key in above:
            table = table[key]
        if value is None:
            del table[last]
        else:
            table[last] = value
    (tmp_path / NAME).write_text(tomli_w.dumps(data))
    with pytest.raises(CaseError) as found:
        read_federation(tmp_path)
    return [str(f) for f in found.value.faults]


def test_faults_of_the_schema_come_all_at_once(tmp_path: Path) -> None:
    found = "\n".join(
        faults_of(tmp_path, n_step=1, n_steps=0, s_kva=-1.0, v_start=[0.0], run__tolerance=0.0, areas__2__digest="xyz")
    )
    assert found.count("FED-002") == 6
    for word in ("Did you mean 'n_steps'", "s_kva", "v_start", "tolerance", "digest"):
        assert word in found


def test_faults_of_names_and_of_the_tree_come_all_at_once(tmp_path: Path) -> None:
    found = "\n".join(
        faults_of(
            tmp_path,
            price_start=[0.1, 0.2],
            run__formulation="nonlinaer",
            run__objective="losss",
            run__solver="ipoptt",
            run__options={"dept": 3, "mixing": "much"},
            borders__x={"parent": "1", "child": "22", "branch": ["line.a"], "bus": "a", "conductors": [1, 1]},
            borders__y={"parent": "1", "child": "3", "branch": ["line.a"], "bus": "a", "conductors": [1]},
        )
    )
    for word in (
        *("FED-003", "'22'", "FED-004", "'3', which lies beyond", "FED-005", "2 values", "conductors [1, 1]"),
        *("'nonlinear'", "'loss'", "'ipopt'", "Did you mean 'depth'", "'much'"),
    ):
        assert word in found


def test_two_sources_and_a_ring_are_no_tree(tmp_path: Path) -> None:
    assert "2 areas without a border above them (1, 3)" in faults_of(tmp_path, **{"borders__5-6": None})[0]
    ring = {"parent": "3", "child": "2", "branch": ["line.a"], "bus": "a", "conductors": [1]}
    found = faults_of(tmp_path, **{"borders__2-3": ring})
    assert "FED-004" in found[0]
    assert "not below the source: 2, 3" in found[0]


def test_an_unknown_algorithm_and_a_file_that_is_none(tmp_path: Path) -> None:
    assert "Did you mean 'enapp-priced'" in faults_of(tmp_path, run__algorithm="enapp-price", run__options={})[0]
    assert "FED-006" in faults_of(tmp_path, run__options={"order": 7})[0]
    (tmp_path / NAME).write_text("no toml")
    with pytest.raises(CaseError, match="FED-001"):
        read_federation(tmp_path)
    with pytest.raises(CaseError, match="FED-001"):
        read_federation(tmp_path / "none.toml")


def test_a_federation_is_not_written_over_another(tmp_path: Path) -> None:
    write_federation(three(), tmp_path)
    with pytest.raises(OptionError, match="exists"):
        write_federation(three(), tmp_path)


def test_another_case_is_refused(tmp_path: Path) -> None:
    """A load that is 1 W larger is another case."""
    partition = three()
    agreed = federation_of(partition)
    case = partition.areas["2"].case
    given: tuple[Any, ...] = case.devices
    changed = case.with_(
        devices=tuple(dataclasses.replace(d, p_kw=d.p_kw + 1e-3) if d.kind == "load" else d for d in given)
    )
    for wrong, name, code in (
        (changed, "2", "FED-007"),
        (case, "3", "FED-007"),
        (case, "4", "FED-008"),
        (changed, None, "FED-007"),
    ):
        with pytest.raises(CaseError, match=code):
            agreed.check_area(wrong, name)


def test_members_mean_the_same_only_when_everything_is_the_same() -> None:
    base = federation_of(three())
    others = [
        federation_of(three(), Enapp()),
        federation_of(three(), tolerance=1e-5),
        federation_of(three(), objective="loss"),
        federation_of(cut(lateral.read("case33bw"), CUTS)),
    ]
    assert len({base.identifier, *(o.identifier for o in others)}) == 5
    assert federation_of(three()).identifier == base.identifier


# --------------------------------------------------------------------------------------------------------------- runs


class Elsewhere:
    """An executor of owners, without a network: the areas of this process, which it says are not ours."""

    name = "elsewhere"
    owns_areas = False

    def __init__(self, specs: dict[str, AreaSpec]) -> None:
        self.specs, self.inner = specs, Serial()
        self.map, self.restart, self.close = self.inner.map, self.inner.restart, self.inner.close

    def start(self, areas: dict[str, AreaSpec]) -> None:
        assert not areas
        self.inner.start(self.specs)

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_a_coordinator_without_cases_finds_what_one_with_them_finds() -> None:
    partition = three()
    agreed = federation_of(partition, formulation="lindistflow", objective="loss")
    specs = {a: AreaSpec(a, partition.areas[a].case, agreed.task(a)) for a in partition.areas}
    run = solve_federation(agreed, Elsewhere(specs))  # type: ignore[arg-type]
    here = solve_areas(partition, formulation="lindistflow", objective="loss", central=False, with_replay=False)
    assert run.status is Status.OPTIMAL
    assert "not certified" in run.status_text
    assert run.result is None
    assert run.gap_to_central is None
    assert [r.objective for r in run.rounds] == [r.objective for r in here.rounds]


def lateral_(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    code = "from lateral.cli import main; raise SystemExit(main())"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, **options)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Address and key file of a broker, as an operator starts one."""
    pytest.importorskip("helics")
    from lateral.areas.broker import Broker

    (tmp_path / "key").write_text("sesame")
    with Broker(key="sesame") as own:
        yield own.connection.broker, str(tmp_path / "key")


def test_owners_and_a_coordinator_as_commands(tmp_path: Path, broker: tuple[str, str]) -> None:
    """As `docs/areas/owners.md` has it."""
    address, key = broker
    write_federation(three(), tmp_path / "f", formulation="lindistflow", objective="loss")
    file = str(tmp_path / "f" / NAME)
    meet = ("--broker", address, "--key-file", key)
    owners = {
        a: lateral_("areas", "serve", str(tmp_path / "f" / a), "--federation", file, *meet, stderr=subprocess.PIPE)
        for a in "123"
    }
    boss = lateral_("areas", "run", file, *meet, "--executor", "helics", "--json", stdout=subprocess.PIPE)
    try:
        out, _ = boss.communicate(timeout=120)
        summary = json.loads(out)
        assert boss.returncode == 0, summary
        assert summary["status"] == "optimal"
        assert summary["executor"] == "helics"
        assert set(summary["areas"]) == {"1", "2", "3"}
        for a, owner in owners.items():
            _, said = owner.communicate(timeout=30)
            assert owner.returncode == 0
            assert f"area '{a}': joined" in said
            assert f"area '{a}': the run has ended" in said
    finally:
        for process in (boss, *owners.values()):
            process.kill()
            process.wait()


@pytest.mark.parametrize("back", [False, True])
def test_an_owner_that_is_killed(back: bool, tmp_path: Path, broker: tuple[str, str]) -> None:
    """Nobody brings it back: the run is degraded and names it. Its owner starts it again: the run ends optimal."""
    from lateral.areas.executors.helics_ import Owners

    address, key = broker
    partition = cut(lateral.read("case33bw"), CUTS[:1])
    write_federation(partition, tmp_path / "f", formulation="lindistflow", objective="loss")
    agreed = read_federation(tmp_path / "f")
    meet = ("--federation", str(tmp_path / "f"), "--broker", address, "--key-file", key)
    owners = [lateral_("areas", "serve", str(tmp_path / "f" / a), *meet) for a in "12"]

    def kill(done: Round) -> None:
        if done.number == 1:
            owners[1].kill()
            if back:
                owners.append(lateral_("areas", "serve", str(tmp_path / "f" / "2"), *meet))

    where = Owners(address, federation=agreed.identifier, digests=agreed.digests, key_file=key, start_timeout_s=60.0)
    try:
        run = solve_federation(agreed, where, progress=kill, patience=Patience(dead_s=60.0 if back else 0.2))
        if back:
            assert run.status is Status.OPTIMAL
            assert run.degraded == ()
        else:
            assert run.status is Status.DEGRADED
            assert run.degraded == ("2",)
            assert "area '2'" in run.status_text
        assert owners[0].wait(30) == 0  # it was told that the run has ended
    finally:
        for process in owners:
            process.kill()
            process.wait()


def test_an_owner_refuses_a_case_that_is_not_meant_and_leaves_on_ctrl_c(
    tmp_path: Path, broker: tuple[str, str]
) -> None:
    address, key = broker
    write_federation(three(), tmp_path / "f", formulation="lindistflow")
    write_federation(three(), tmp_path / "g", formulation="lindistflow", tolerance=1e-3)
    file = str(tmp_path / "f" / NAME)
    meet = ("--federation", file, "--broker", address, "--key-file", key)
    wrong = lateral_("areas", "serve", str(tmp_path / "f" / "2"), *meet, "--area", "3", stderr=subprocess.PIPE)
    waits = lateral_("areas", "serve", str(tmp_path / "f" / "2"), *meet, stderr=subprocess.PIPE)
    try:
        _, said = wrong.communicate(timeout=60)
        assert wrong.returncode == 2
        assert "FED-007" in said
        assert waits.stderr is not None
        for line in waits.stderr:
            if "waiting for the coordinator" in line:
                break
        waits.send_signal(signal.SIGINT)
        _, said = waits.communicate(timeout=30)
        assert waits.returncode == 130
        assert "area '2' has left" in said
    finally:
        for process in (wrong, waits):
            process.kill()
            process.wait()


def test_long_chains_of_areas_are_read_at_once() -> None:
    """Parents first, in linear time: 20,000 areas in a row took hours with a search per area."""
    from types import SimpleNamespace

    names = [f"a{k}" for k in range(20_000)]
    borders = {f"b{k}": SimpleNamespace(child=names[k], parent=names[k - 1]) for k in range(1, len(names))}
    raw = SimpleNamespace(areas=dict.fromkeys(reversed(names)), borders=borders)
    assert order_of(raw) == tuple(names)  # type: ignore[arg-type]
