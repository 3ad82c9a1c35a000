"""Generic admittances: nodal admittance, branches, tables, the writer, areas, the balanced equivalent."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import lateral
from lateral.areas.partition import branches_of, cut
from lateral.baseline import power_flow
from lateral.case import Case
from lateral.devices import Load, Source
from lateral.errors import CaseError, UnsupportedError
from lateral.io import tables
from lateral.io.opendss import read
from lateral.io.opendss.write import render_opendss, write_opendss
from lateral.network.admittance import NodeIndex, nodal_matrix, primitive_of, primitives
from lateral.network.branch_form import branch_form
from lateral.network.branches import radial_network
from lateral.network.feeder import Bus, Feeder, Line, MultiTerminal, Terminal, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import ComplexArray, Element
from lateral.replay import replay

ABC = (1, 2, 3)
KV, LOW = 12.47 / np.sqrt(3.0), 4.16 / np.sqrt(3.0)
Z = np.array([[0.46, 0.16, 0.15], [0.16, 0.47, 0.16], [0.15, 0.16, 0.46]]) + 1j * np.array(
    [[1.08, 0.50, 0.38], [0.50, 1.05, 0.42], [0.38, 0.42, 1.07]]
)
B = np.array([[6.3, -2.0, -1.3], [-2.0, 6.0, -0.7], [-1.3, -0.7, 5.6]])


def wire(name: str, a: str, b: str) -> Line:
    return Line(
        name=name,
        bus_from=a,
        bus_to=b,
        conductors_from=ABC,
        conductors_to=ABC,
        r_ohm=Z.real,
        x_ohm=Z.imag,
        b_us=40.0 * B,
    )


def unit(**more: object) -> Transformer:
    """A transformer mid - low, 12.47 kV in delta to 4.16 kV in wye."""
    windings = (
        Winding(bus="mid", terminals=ABC, connection="delta", v_rated_kv=12.47, s_rated_kva=2000.0, r_percent=0.5),
        Winding(bus="low", terminals=(1, 2, 3, 0), v_rated_kv=4.16, s_rated_kva=2000.0, r_percent=0.5, tap=1.0125),
    )
    given = {"windings": windings, "x_percent": (5.5,), "no_load_loss_percent": 0.2, "magnetizing_percent": 0.6}
    return Transformer(name="t", **{**given, **more})  # type: ignore[arg-type]


def generic(element: Line | Transformer) -> MultiTerminal:
    """The same element as a generic admittance."""
    part = primitive_of(element)
    ends: dict[str, list[int]] = {}
    for bus, c in part.nodes:
        ends.setdefault(bus, []).append(c)
    y = 1e6 * part.y
    terminals = tuple(Terminal(bus=b, conductors=tuple(c)) for b, c in ends.items())
    return MultiTerminal(name=element.name, terminals=terminals, g_us=y.real, b_us=y.imag)


def typed(transformer: Transformer | None = None) -> Case:
    """sub = mid = (transformer) = low = end, all typed elements."""
    buses = (
        *(Bus(name=n, conductors=ABC, v_base_kv=KV) for n in ("sub", "mid")),
        *(Bus(name=n, conductors=ABC, v_base_kv=LOW) for n in ("low", "end")),
    )
    source = Source(
        name="grid",
        bus="sub",
        conductors=ABC,
        v_pu=1.02,
        angle_deg=(0.0, -120.0, 120.0),
        r_ohm=np.zeros((3, 3)),
        x_ohm=np.zeros((3, 3)),
        price_import=0.1,
    )
    loads = [
        Load(
            name=f"l{c}", bus="end", terminals=(c, 0), p_kw=90.0 + 60.0 * c, q_kvar=30.0 * c, v_min_pu=0.5, v_max_pu=1.5
        )
        for c in ABC
    ]
    return Case(
        name="typed",
        feeder=Feeder(
            buses=buses,
            lines=(wire("l1", "sub", "mid"), wire("l2", "low", "end")),
            transformers=(transformer or unit(),),
        ),
        devices=(source, *loads),
        horizon=Horizon.regular(1),
    )


def as_generic(case: Case, *names: str) -> Case:
    """Some of the elements of a case as generic admittances."""
    feeder = case.feeder
    chosen = [e for e in (*feeder.lines, *feeder.transformers) if e.name in names]
    return case.with_(
        feeder=dataclasses.replace(
            feeder,
            lines=tuple(e for e in feeder.lines if e not in chosen),
            transformers=tuple(e for e in feeder.transformers if e not in chosen),
            admittances=tuple(generic(e) for e in chosen),
        )
    )


# ------------------------------------------------------------------------------------------- nodal matrix, power flow


def test_the_nodal_matrix_and_the_power_flow_are_those_of_the_typed_elements() -> None:
    one = typed()
    other = as_generic(one, "l1", "t")
    assert lateral.check(other, radial=True) == ()
    y = [nodal_matrix(c.feeder, NodeIndex.of(c.feeder)).toarray() for c in (one, other)]
    np.testing.assert_allclose(y[1], y[0], rtol=1e-12, atol=1e-12 * np.abs(y[0]).max())
    assert [p.element.label for p in primitives(other.feeder)] == ["line.l2", "admittance.l1", "admittance.t"]
    flows = [power_flow(c) for c in (one, other)]
    assert flows[1].all_converged
    np.testing.assert_allclose(flows[1].v, flows[0].v, rtol=1e-10)
    assert one.hash != other.hash


def test_ground_and_a_node_named_twice_are_merged() -> None:
    y = np.array([[3.0, -1.0, -2.0], [-1.0, 1.0, 0.0], [-2.0, 0.0, 2.0]])
    ends = (Terminal(bus="a", conductors=(1, 0)), Terminal(bus="a", conductors=(1,)))
    part = primitive_of(MultiTerminal(name="x", terminals=ends, g_us=y, b_us=np.zeros((3, 3))))
    assert part.nodes == (("a", 1),)
    assert part.y[0, 0] == pytest.approx(1e-6 * (3.0 + 2.0 - 4.0))


# ----------------------------------------------------------------------------------------------------------- branches


def parts(element: Element, sending: str) -> tuple[ComplexArray, int, np.ndarray]:
    """Admittance of an element, sending nodes first, how many these are, and a base per node."""
    part = primitive_of(element)  # type: ignore[arg-type]
    order = sorted(range(len(part.nodes)), key=lambda k: (part.nodes[k][0] != sending, k))
    base = {"mid": KV, "low": LOW, "sub": KV, "lv": 0.12, "hv": 7.2}
    v = np.array([base[part.nodes[k][0]] for k in order])
    return part.y[np.ix_(order, order)], sum(n[0] == sending for n in part.nodes), v


SPLIT = Transformer(
    name="split",
    n_phases=1,
    windings=(
        Winding(bus="hv", terminals=(2, 0), v_rated_kv=7.2, s_rated_kva=50.0, r_percent=0.6),
        Winding(bus="lv", terminals=(1, 0), v_rated_kv=0.12, s_rated_kva=50.0, r_percent=1.2),
        Winding(bus="lv", terminals=(0, 2), v_rated_kv=0.12, s_rated_kva=50.0, r_percent=1.2),
    ),
    x_percent=(2.04, 2.04, 1.36),
    no_load_loss_percent=0.2,
    magnetizing_percent=0.5,
)


@pytest.mark.parametrize(
    ("element", "sending"),
    [
        (wire("l", "sub", "mid"), "sub"),
        (unit(), "mid"),
        (unit(), "low"),  # the delta side floats
        (SPLIT, "hv"),
        (SPLIT, "lv"),
    ],
    ids=["line", "delta-wye", "wye-delta", "center-tap", "center-tap-back"],
)
def test_the_branch_form_is_exact(element: Element, sending: str) -> None:
    """Ideal part, series impedance and rest give the matrix back, per unit."""
    y, p, v = parts(element, sending)
    form = branch_form(y, p, v)
    assert form is not None
    assert np.abs(form.a.imag).max() == 0.0
    assert not form.rest[:p, p:].any()
    np.testing.assert_array_equal(form.z, form.z.T)
    # per unit, where the impedances of the two sides are alike
    a, z = form.a * v[None, :p] / v[p:, None], form.z / np.outer(v[p:], v[p:])
    y_s = np.linalg.pinv(z, rcond=1e-9)
    series = np.block([[a.T @ y_s @ a, -a.T @ y_s], [-y_s @ a, y_s]])
    whole = series + form.rest * np.outer(v, v)
    size = np.abs(y * np.outer(v, v)).max()
    np.testing.assert_allclose(whole, y * np.outer(v, v), atol=1e-9 * size)
    if sending in ("sub", "mid", "hv"):  # the other way round a grounded winding is an admittance of its own
        assert np.abs(form.rest * np.outer(v, v)).max() < 1e-2 * size


def test_a_transformer_keeps_its_turns_ratio() -> None:
    y, p, v = parts(unit(), "mid")
    form = branch_form(y, p, v)
    assert form is not None
    ratio = 4.16 / 12.47 * 1.0125 / np.sqrt(3.0)
    found = np.sort(np.abs(form.a).ravel())
    np.testing.assert_allclose(found, [0.0] * 3 + [ratio] * 6, atol=1e-3 * ratio)


def test_what_is_no_branch_has_no_form() -> None:
    none = np.zeros((2, 2))
    one = np.eye(2)
    v = np.ones(4)
    turned = np.array([[1.0, 1.0j], [0.0, 1.0]])  # an ideal part that is not real
    odd = np.block([[2.0 * one, -turned.T], [-turned, one]]).astype(complex)
    assert branch_form(odd, 2, v) is None
    apart = np.block([[one, none], [none, one]]).astype(complex)  # nothing joins the two sides
    assert branch_form(apart, 2, v) is None
    assert branch_form(np.zeros((4, 4), dtype=complex), 2, v) is None
    assert branch_form(np.full((4, 4), np.nan, dtype=complex), 2, v) is None
    assert branch_form(odd, 0, v) is None
    assert branch_form(odd, 4, v) is None


def network_of(case: Case):  # type: ignore[no-untyped-def]
    roots = [(s.bus, c) for s in case.sources for c in s.conductors]
    return radial_network(case.feeder, roots, case.base)


def voltages_of_walk(case: Case) -> dict[tuple[str, int], complex]:
    """Voltages at constant currents of 1 A at the end, from legs and shunts alone."""
    net = network_of(case)
    assert net.faults == ()
    n, k = net.n_nodes, net.n_legs
    a = np.zeros((k, n), dtype=complex)
    z = np.zeros((k, k), dtype=complex)
    y = np.zeros((n, n), dtype=complex)
    a[net.a_leg, net.a_node] = net.a_val
    np.add.at(z, (net.z_row, net.z_col), net.z_val)
    np.add.at(y, (net.shunt_i, net.shunt_j), net.shunt_y)
    to = np.zeros((k, n))
    to[np.arange(k), net.to_node] = 1.0
    load = np.zeros(n, dtype=complex)
    for c in ABC:
        load[net.position["end", c]] = 0.05 * np.exp(-2j * np.pi / 3.0 * c)
    # to V = A V - Z I;  to' I = A' I + Y V + load at every node but the roots;  V fixed at the roots
    free = np.setdiff1d(np.arange(n), net.roots)
    rows = [
        np.hstack([to - a, z]),
        np.hstack([-y, (to - a).T])[free],
        np.hstack([np.eye(n)[net.roots], np.zeros((3, k))]),
    ]
    right = np.concatenate([np.zeros(k), load[free], 1.02 * np.exp(-2j * np.pi / 3.0 * np.arange(3))])
    x = np.linalg.lstsq(np.vstack(rows), right, rcond=None)[0]
    return dict(zip(net.nodes, x[:n].tolist(), strict=True))


def test_the_radial_walk_gives_the_voltages_of_the_typed_elements() -> None:
    one = voltages_of_walk(typed())
    other = voltages_of_walk(as_generic(typed(), "l1", "t"))
    assert set(one) == set(other)
    assert max(abs(one[n] - other[n]) for n in one) < 1e-9


def test_one_that_is_no_branch_is_named() -> None:
    case = typed()
    turned = 1e5 * np.array([[1.0, 1.0j, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    one = 1e5 * np.eye(3)
    y = np.block([[2.0 * one, -turned.T], [-turned, one]])
    ends = (Terminal(bus="mid", conductors=ABC), Terminal(bus="low", conductors=ABC))
    odd = MultiTerminal(name="odd", terminals=ends, g_us=y.real, b_us=y.imag)
    case = case.with_(feeder=dataclasses.replace(case.feeder, transformers=(), admittances=(odd,)))
    (fault,) = network_of(case).faults
    assert fault.code.startswith("NET-041")
    assert fault.element == "admittance.odd"
    with pytest.raises(UnsupportedError) as caught:
        lateral.solve(case, formulation="lindist3flow")
    assert caught.value.faults[0].code.startswith("NET-041")


def test_a_conductor_on_the_sending_side_that_nothing_feeds_is_named() -> None:
    case = typed()
    part = primitive_of(wire("x", "sub", "mid"))
    buses = tuple(dataclasses.replace(b, conductors=(1, 2, 3, 4)) if b.name == "sub" else b for b in case.feeder.buses)
    y = np.zeros((7, 7), dtype=complex)
    y[:6, :6] = part.y
    y[6, 6], y[0, 6], y[6, 0] = 1e-3, -1e-3, -1e-3
    ends = (*(Terminal(bus=b, conductors=ABC) for b in ("sub", "mid")), Terminal(bus="sub", conductors=(4,)))
    made = MultiTerminal(name="x", terminals=ends, g_us=1e6 * y.real, b_us=1e6 * y.imag)
    lines = tuple(e for e in case.feeder.lines if e.name != "l1")
    feeder = dataclasses.replace(case.feeder, buses=buses, lines=lines, admittances=(made,))
    faults = network_of(case.with_(feeder=feeder)).faults
    assert [f.code.split()[0] for f in faults] == ["NET-041"]


def test_on_one_bus_it_is_a_shunt() -> None:
    case = typed()
    y = 50.0 * B
    own = MultiTerminal(name="own", terminals=(Terminal(bus="end", conductors=ABC),), g_us=np.zeros((3, 3)), b_us=y)
    with_own = case.with_(feeder=dataclasses.replace(case.feeder, admittances=(own,)))
    assert lateral.check(with_own, radial=True) == ()
    net, plain = network_of(with_own), network_of(case)
    assert net.legs == plain.legs
    assert len(net.shunt_y) == len(plain.shunt_y) + 9


@pytest.mark.parametrize("formulation", ["lindist3flow", "current-voltage", "bus-injection"])
def test_a_schedule_on_it_replays(formulation: str) -> None:
    """The exact models, and the linear one made again at its own power flow, land on the engine's voltages."""
    pytest.importorskip("dss")
    rounds = {"rounds": 3} if formulation == "lindist3flow" else {}
    result = lateral.solve(as_generic(typed(), "l1", "t"), formulation=formulation, **rounds)
    assert result.replay is not None
    assert result.replay.errors.max_dv_pu < 1e-6
    same = lateral.solve(typed(), formulation=formulation, **rounds)
    assert result.cost == pytest.approx(same.cost, rel=1e-7)


# ------------------------------------------------------------------------------------------------ tables and OpenDSS


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_folder_reads_back_to_the_same_hash(tmp_path: Path, kind: str) -> None:
    case = as_generic(typed(), "l1", "t")
    folder = tables.write_folder(case, tmp_path / "case", tables=kind)  # type: ignore[arg-type]
    assert {p.stem for p in folder.iterdir()} >= {"admittances", "admittance_terminals"}
    back = tables.read_folder(folder)
    assert back.hash == case.hash
    assert back.feeder.admittances[1].nodes == case.feeder.admittances[1].nodes
    assert back.where["admittance.t"].startswith("admittances.")
    tables.write_folder(back, folder, overwrite=True)  # its own files are known


def test_odd_names_of_buses_survive(tmp_path: Path) -> None:
    case = as_generic(typed(), "l1")
    odd = "a; b: 1, 2 @"
    buses = tuple(dataclasses.replace(b, name=odd) if b.name == "mid" else b for b in case.feeder.buses)
    (made,) = case.feeder.admittances
    ends = tuple(dataclasses.replace(t, bus=odd) if t.bus == "mid" else t for t in made.terminals)
    feeder = dataclasses.replace(case.feeder, buses=buses, admittances=(dataclasses.replace(made, terminals=ends),))
    case = case.with_(feeder=feeder)
    assert tables.read_folder(tables.write_folder(case, tmp_path / "c")).hash == case.hash


def test_faults_of_its_tables(tmp_path: Path) -> None:
    folder = tables.write_folder(as_generic(typed(), "l1"), tmp_path / "case")
    terminals = folder / "admittance_terminals.csv"
    text = terminals.read_text()
    terminals.write_text(text.replace("l1,", "no,"))
    with pytest.raises(CaseError) as caught:
        tables.read_folder(folder)
    assert [f.code for f in caught.value.faults] == ["TAB-017 terminals"] * 2
    terminals.unlink()
    with pytest.raises(CaseError) as caught:
        tables.read_folder(folder)
    assert caught.value.faults[0].element == "table.admittance_terminals"


def test_the_writer_gives_the_engine_the_same_network(tmp_path: Path) -> None:
    pytest.importorskip("dss")
    one = typed()
    found = []
    for case in (one, as_generic(one, "l1", "t")):
        _, report = read(write_opendss(case, tmp_path / case.hash))
        assert report.reference is not None
        found.append(report.reference)
    assert set(found[0].nodes) == set(found[1].nodes)
    base = {b.name: 1e3 * b.v_base_kv for b in one.feeder.buses}
    for node in found[0].nodes:
        assert abs(found[0].voltage[node] - found[1].voltage[node]) < 1e-8 * base[node[0]]


def test_losses_of_the_replay_are_those_of_the_typed_elements() -> None:
    """The engine leaves reactors between conductors of one bus out of its losses; the replay puts them back."""
    pytest.importorskip("dss")
    one, other = replay(typed()), replay(as_generic(typed(), "l1", "t"))
    assert other.losses_kw[0] == pytest.approx(one.losses_kw[0], rel=1e-6)
    assert other.p_source_kw[0] == pytest.approx(one.p_source_kw[0], rel=1e-6)


def test_the_writer_refuses_what_the_engine_has_no_element_for(tmp_path: Path) -> None:
    case = as_generic(typed(), "l1")
    (made,) = case.feeder.admittances
    g = np.array(made.g_us)
    g[0, 1] += 1.0
    for bad, kind in ((g, UnsupportedError), (np.full_like(g, np.inf), CaseError)):
        feeder = dataclasses.replace(case.feeder, admittances=(dataclasses.replace(made, g_us=bad),))
        with pytest.raises(kind) as caught:
            write_opendss(case.with_(feeder=feeder), tmp_path / "x")
        assert caught.value.faults[0].element == "admittance.l1"


def test_text_of_the_writer_holds_no_name_as_it_is() -> None:
    case = as_generic(typed(), "l1")
    (made,) = case.feeder.admittances
    nasty = dataclasses.replace(made, name="x] y=1 // ! \n clear")
    case = case.with_(feeder=dataclasses.replace(case.feeder, admittances=(nasty,)))
    text = render_opendss(case).files["shunts.dss"]
    assert "clear\n" not in text
    assert all(line.startswith(("!", "New Reactor.")) for line in text.splitlines() if line)


# ------------------------------------------------------------------------------------------- areas, balanced, plots


def test_a_border_never_crosses_it_and_an_area_keeps_it() -> None:
    case = as_generic(typed(), "t")
    assert "admittance.t" in branches_of(case.feeder)
    with pytest.raises(CaseError) as caught:
        cut(case, ["admittance.t"])
    assert "generic admittance" in str(caught.value)
    made = cut(case, ["line.l2"])
    kept = [a.case.feeder.admittances for a in made.areas.values()]
    assert sorted(map(len, kept)) == [0, 1]


def test_the_balanced_equivalent_of_alike_phases_is_exact() -> None:
    """A balanced load behind a line and a delta-wye transformer, generic: the mean of the phases."""
    case = typed()
    z = Z.mean() * np.ones((3, 3)) + (np.trace(Z) / 3.0 - Z.mean()) * np.eye(3)
    lines = tuple(dataclasses.replace(e, r_ohm=z.real, x_ohm=z.imag, b_us=None) for e in case.feeder.lines)
    loads = tuple(dataclasses.replace(d, p_kw=150.0, q_kvar=50.0) for d in case.loads)
    case = case.with_(feeder=dataclasses.replace(case.feeder, lines=lines), devices=(*case.sources, *loads))
    case = as_generic(case, "l1", "t")
    balanced = case.to_balanced()
    balanced = getattr(balanced, "case", balanced)
    assert {e.label for e in balanced.feeder.admittances} == {"admittance.l1", "admittance.t"}
    full, one = power_flow(case), power_flow(balanced)
    at = {node: k for k, node in enumerate(full.index.nodes)}
    base = {b.name: 1e3 * b.v_base_kv for b in case.feeder.buses}
    for k, (bus, _) in enumerate(one.index.nodes):
        assert abs(one.v[k, 0]) == pytest.approx(abs(full.v[at[bus, 1], 0]), abs=1e-6 * base[bus])
    result = lateral.solve(balanced, formulation="soc", with_replay=False)
    assert result.status.name == "OPTIMAL"


def test_it_is_drawn() -> None:
    pytest.importorskip("plotly")
    from lateral.plots.data import View
    from lateral.plots.voltage import branch_pairs

    case = as_generic(typed(), "t")
    result = lateral.solve(case, formulation="lindist3flow", with_replay=False)
    view = View.of(result) if hasattr(View, "of") else View(result)
    pairs = {frozenset(p) for p in branch_pairs(view, closed=True).tolist()}
    assert frozenset((view.index["mid"], view.index["low"])) in pairs
