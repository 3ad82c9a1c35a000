"""Admittances against the engine's: hand-computed matrices, generic admittances end to end, bounds."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.errors import EngineError
from lateral.io.opendss import ImportReport, engine, read
from lateral.io.opendss.crosscheck import ADMITTANCE_TOLERANCE
from lateral.io.opendss.report import CODES
from lateral.io.opendss.write import write_opendss
from lateral.io.tables import read_folder, write_folder
from lateral.network.admittance import primitives

pytest.importorskip("dss")

HEAD = """
clear
new circuit.tiny bus1=src basekv=12.47 pu=1.02 mvasc3=200 mvasc1=180
new line.main bus1=src bus2=b r1=0.3 x1=0.4 r0=0.7 x0=1.4 c1=10 c0=5 length=2
"""
TAIL = """
set voltagebases=[12.47 4.16 0.48 0.208]
calcvoltagebases
solve
"""


def imported(tmp_path: Path, body: str, *, head: str = HEAD, tail: str = TAIL) -> tuple[Case, ImportReport]:
    master = tmp_path / "master.dss"
    master.write_text(head + body + tail)
    return read(master)


def ours(case: Case, label: str) -> tuple[list[tuple[str, int]], np.ndarray]:
    (part,) = (p for p in primitives(case.feeder) if p.element.label == label)
    return list(part.nodes), part.y


def agrees(case: Case, report: ImportReport, label: str, expected: dict[tuple, complex], nodes: list) -> None:
    """Ours is the matrix computed by hand; the cross-check says that it is the engine's too."""
    found, y = ours(case, label)
    size = max(abs(v) for v in expected.values())
    for a in nodes:
        for b in nodes:
            value = expected.get((a, b), expected.get((b, a), 0.0))
            assert abs(y[found.index(a), found.index(b)] - value) < 1e-9 * size, (a, b)
    assert set(found) == set(nodes)
    assert report.admittances.worst < 1e-13
    assert report.admittances.above == ()


def summed(*matrices: dict[tuple, complex]) -> dict[tuple, complex]:
    out: dict[tuple, complex] = {}
    for m in matrices:
        for key, value in m.items():
            out[key] = out.get(key, 0.0) + value
    return out


def outer(y: complex, signed: dict[tuple, float]) -> dict[tuple, complex]:
    """``y s s'`` over named nodes."""
    return {(a, b): y * signed[a] * signed[b] for a in signed for b in signed}


# ---------------------------------------------------------------------------------------------------- by hand


def test_a_line_with_charging(tmp_path: Path) -> None:
    """Two wires of 3 km: the inverse of a 2 x 2 matrix by its cofactors, half of the charging at each end."""
    body = """
new line.x bus1=b.1.3 bus2=c.1.3 phases=2 length=3 units=km rmatrix=(0.2|0.1 0.3) xmatrix=(0.5|0.2 0.6)
~ cmatrix=(90|-20 80)
new load.l bus1=c.1 phases=1 kv=7.2 kw=100"""
    case, report = imported(tmp_path, body)
    z11, z12, z22 = (3 * z for z in (0.2 + 0.5j, 0.1 + 0.2j, 0.3 + 0.6j))
    det = z11 * z22 - z12 * z12
    y11, y12, y22 = z22 / det, -z12 / det, z11 / det
    c11, c12, c22 = (3 * 0.5e-9 * 2j * np.pi * 60 * c for c in (90.0, -20.0, 80.0))
    b1, b3, d1, d3 = ("b", 1), ("b", 3), ("c", 1), ("c", 3)
    expected = {
        (b1, b1): y11 + c11,
        (d1, d1): y11 + c11,
        (b3, b3): y22 + c22,
        (d3, d3): y22 + c22,
        (b1, b3): y12 + c12,
        (d1, d3): y12 + c12,
        (b1, d1): -y11,
        (b3, d3): -y22,
        (b1, d3): -y12,
        (b3, d1): -y12,
    }
    agrees(case, report, "line.x", expected, [b1, b3, d1, d3])


def test_a_delta_wye_transformer_with_a_tap(tmp_path: Path) -> None:
    """Under ANSI the delta on the high side goes from each corner to the one before."""
    body = """
new transformer.x windings=2 buses=(b c) conns=(delta wye) kvs=(12.47 0.48) kvas=(500 500) xhl=5 %rs=(0.6 0.4)
~ taps=(0.975 1.025) ppm_antifloat=0
new load.l bus1=c kv=0.48 kw=100"""
    case, report = imported(tmp_path, body)
    y = 1.0 / (0.01 + 0.05j) * 500e3 / 3.0
    n1, n2 = 1.0 / (0.975 * 12470.0), np.sqrt(3.0) / (1.025 * 480.0)
    cores = []
    for k in (1, 2, 3):
        before = 3 if k == 1 else k - 1
        cores.append(outer(y, {("b", k): n1, ("b", before): -n1, ("c", k): -n2}))
    nodes = [(bus, k) for bus in "bc" for k in (1, 2, 3)]
    agrees(case, report, "transformer.x", summed(*cores), nodes)


def test_a_center_tapped_transformer(tmp_path: Path) -> None:
    """Two halves of 120 V; the inverse of the 2 x 2 leakage matrix by its cofactors."""
    body = """
new transformer.x phases=1 windings=3 buses=(b.2 h.1.0 h.0.2) kvs=(7.2 0.12 0.12) kvas=(25 25 25) xhl=2 xht=2.2
~ xlt=1.4 %rs=(0.6 1.2 1.3) ppm_antifloat=0
new load.l bus1=h.1.2 phases=1 kv=0.24 kw=10"""
    case, report = imported(tmp_path, body)
    z11, z22, z23 = 0.018 + 0.02j, 0.019 + 0.022j, 0.025 + 0.014j
    z12 = 0.5 * (z11 + z22 - z23)
    det = z11 * z22 - z12 * z12
    y11, y12, y22 = (25e3 * v / det for v in (z22, -z12, z11))
    # windings 1, 2, 3 per unit of their currents: i_1 = -(i_2 + i_3)
    n1, n2 = 1.0 / 7200.0, 1.0 / 120.0
    p, a, c = ("b", 2), ("h", 1), ("h", 2)
    expected = {
        (p, p): n1 * n1 * (y11 + 2.0 * y12 + y22),
        (a, a): n2 * n2 * y11,
        (c, c): n2 * n2 * y22,
        (p, a): -n1 * n2 * (y11 + y12),
        (p, c): n1 * n2 * (y12 + y22),  # the second half stands the other way round
        (a, c): -n2 * n2 * y12,
    }
    agrees(case, report, "transformer.x", expected, [p, a, c])


def test_an_open_delta(tmp_path: Path) -> None:
    """Two units between phases, each by itself."""
    body = """
new transformer.u1 phases=1 windings=2 buses=(b.1.2 c.1.2) kvs=(12.47 12.47) kvas=(2000 2000) xhl=1 %rs=(0 0)
~ taps=(1 1.05) ppm_antifloat=0
new transformer.u2 phases=1 windings=2 buses=(b.3.2 c.3.2) kvs=(12.47 12.47) kvas=(2000 2000) xhl=1 %rs=(0 0)
~ taps=(1 1.03) ppm_antifloat=0
new line.jumper bus1=b.2 bus2=c.2 phases=1 r1=1e-3 x1=1e-3 c1=0 length=1
new load.l bus1=c kv=12.47 kw=300 conn=delta"""
    case, report = imported(tmp_path, body)
    for name, phase, tap in (("u1", 1, 1.05), ("u2", 3, 1.03)):
        n1, n2 = 1.0 / 12470.0, 1.0 / (12470.0 * tap)
        expected = outer(2000e3 / 0.01j, {("b", phase): n1, ("b", 2): -n1, ("c", phase): -n2, ("c", 2): n2})
        nodes = [(bus, c) for bus in "bc" for c in (phase, 2)]
        agrees(case, report, f"transformer.{name}", expected, nodes)


def test_a_neutral_conductor_grounded_at_one_end(tmp_path: Path) -> None:
    """A phase and a neutral; the neutral ends on ground at b, so that its row is not there."""
    body = """
new line.x bus1=b.1.0 bus2=c.1.4 phases=2 length=1 rmatrix=(0.4|0.1 0.6) xmatrix=(0.9|0.4 1.1) cmatrix=(0|0 0)
new reactor.g bus1=c.4 phases=1 r=5 x=0
new load.l bus1=c.1.4 phases=1 kv=7.2 kw=100"""
    case, report = imported(tmp_path, body)
    z11, z12, z22 = 0.4 + 0.9j, 0.1 + 0.4j, 0.6 + 1.1j
    det = z11 * z22 - z12 * z12
    y11, y12, y22 = z22 / det, -z12 / det, z11 / det
    b1, c1, c4 = ("b", 1), ("c", 1), ("c", 4)
    expected = {(b1, b1): y11, (c1, c1): y11, (c4, c4): y22, (b1, c1): -y11, (b1, c4): -y12, (c1, c4): y12}
    found, y = ours(case, "line.x")
    # ours has a conductor of its own for the grounded end
    made = [node for node in found if node not in (b1, c1, c4)]
    assert made == [("b", 4)]
    for (p, q), value in expected.items():
        assert y[found.index(p), found.index(q)] == pytest.approx(value, rel=1e-9)
    assert report.admittances.worst < 1e-13
    assert report.admittances.unchecked == {"a ground made up for an end that the files put on ground": 1}
    (shunt,) = (s for s in case.feeder.shunts if s.name == "reactor_g")
    assert shunt.g_us[0, 0] == pytest.approx(2e5)


def test_a_capacitor_in_delta(tmp_path: Path) -> None:
    case, report = imported(tmp_path, "new capacitor.x bus1=b conn=delta kvar=300 kv=12.47")
    assert report.admittances.checked == 2
    assert report.admittances.worst < 1e-13
    assert case.capacitors[0].connection == "delta"


# ------------------------------------------------------------------------- what differs, and what is not compared


def test_a_wrong_mapping_is_found_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer of another leakage: an IMP-016 with its name, not a number in silence."""
    from lateral.io.opendss import map_wires

    right = map_wires._transformer

    def wrong(*given):  # type: ignore[no-untyped-def]
        import dataclasses

        made = right(*given)
        return dataclasses.replace(made, x_percent=(made.x_percent[0] * 1.01,))

    monkeypatch.setattr(map_wires, "_transformer", wrong)
    body = """
new transformer.x windings=2 buses=(b c) kvs=(12.47 0.48) kvas=(500 500) xhl=5 %rs=(0 0)
new load.l bus1=c kv=0.48 kw=100"""
    _, report = imported(tmp_path, body)
    (found,) = report.admittances.above
    assert (found.element, found.code) == ("transformer.x", "IMP-016")
    assert found.error == pytest.approx(1.0 - 1.0 / 1.01, rel=1e-3)
    assert report.admittances.worst_element == "transformer.x"
    assert report.max_primitive_error == report.admittances.worst
    assert report.entry["transformer.x"].outcome == "approximated"
    assert report.entry["transformer.x"].code == "IMP-016"


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_is_no_agreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: float
) -> None:
    from lateral.io.opendss import crosscheck

    right = crosscheck.reduce_to_nodes

    def wrong(data, yprim):  # type: ignore[no-untyped-def]
        nodes, y = right(data, yprim)
        y = y.copy()
        if data.name == "line.x":
            y[0, 1] = odd
        return nodes, y

    monkeypatch.setattr(crosscheck, "reduce_to_nodes", wrong)
    _, report = imported(tmp_path, "\nnew line.x bus1=b bus2=c length=1\nnew load.l bus1=c kv=12.47 kw=100")
    (found,) = report.admittances.above
    assert (found.element, found.code, found.error) == ("line.x", "IMP-016", float("inf"))
    assert report.entry["line.x"].outcome == "approximated"


def test_an_open_switch_keeps_its_charging(tmp_path: Path) -> None:
    """Open at one end, it is charged from the other: a shunt there, beside the switch."""
    body = """
new line.x bus1=b bus2=c r1=0.1 x1=0.2 c1=3 length=1
new line.s bus1=b bus2=c switch=y c1=30 c0=10
open line.s 1
new load.l bus1=c kv=12.47 kw=100"""
    case, report = imported(tmp_path, body)
    assert report.admittances.above == ()
    assert report.max_primitive_error < 1e-13
    assert report.entry["line.s"].outcome == "mapped"
    assert report.entry["line.s"].became == ("switch.s", "shunt.line_s")
    (shunt,) = case.feeder.shunts
    assert shunt.bus == "c"
    farad = 1e-9 * 1e-3 * np.array([[70, -20, -20], [-20, 70, -20], [-20, -20, 70]]) / 3.0  # c1 30, c0 10 nF, 0.001
    # the engine eliminates the open end, of 1e3 S: rounding of 1e-13 S
    assert shunt.b_us == pytest.approx(1e6 * 2 * np.pi * 60 * farad, abs=1e-7)


@pytest.mark.parametrize(("terminal", "became"), [(1, ("line.x", "admittance.line_x")), (2, ("line.x",))])
def test_a_partly_open_line_keeps_its_charging(tmp_path: Path, terminal: int, became: tuple[str, ...]) -> None:
    """Beside it where it is open towards the source, else in the line, which ends at a conductor made up for it."""
    body = f"""
new line.x bus1=b bus2=c r1=0.1 x1=0.2 c1=30000 c0=10000 length=1
open line.x {terminal} 2
new load.l bus1=c.1.3 phases=1 kv=12.47 kw=100"""
    _, report = imported(tmp_path, body)
    assert report.admittances.above == ()
    assert report.max_primitive_error < 1e-13
    assert report.entry["line.x"].became == became


def test_the_report_has_it_in_json_table_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lateral.io.opendss import crosscheck

    right = crosscheck.reduce_to_nodes

    def wrong(data, yprim):  # type: ignore[no-untyped-def]
        nodes, y = right(data, yprim)
        return nodes, y * (1.01 if data.name == "line.s" else 1.0)

    monkeypatch.setattr(crosscheck, "reduce_to_nodes", wrong)
    body = "\nnew line.s bus1=b bus2=c switch=y\nnew line.x bus1=b bus2=c length=1\n"
    body += "new reactor.r bus1=b phases=3 kvar=100 kv=12.47\nnew load.l bus1=c kv=12.47 kw=100"
    _, report = imported(tmp_path, body)
    data = json.loads(report.to_json())["admittances"]
    assert data["checked"] == 4
    assert data["taken_from_engine"] == 1  # the reactor
    assert data["tolerance"] == ADMITTANCE_TOLERANCE
    assert data["worst_element"] == "line.s"
    assert data["above"][0]["code"] in CODES
    compared = {"line.main", "line.s", "line.x", "reactor.r"}  # the figure of every element, not of the worst alone
    assert set(data["errors"]) == compared
    assert data["errors"] == dict(report.admittances.errors)
    assert data["errors"]["line.s"] == data["worst"]
    assert all(data["errors"][name] < 1e-13 for name in compared - {"line.s"})
    console = Console(width=200, record=True, file=(tmp_path / "null").open("w"))
    console.print(report.table())
    assert "compared with the engine's" in console.export_text()
    assert "[IMP-016] line.s" in report.to_text()


def test_matrices_beyond_the_bound_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not fetched, not compared, said so; lines and transformers come from their properties all the same."""
    body = """
new line.x bus1=b bus2=c r1=0.1 x1=0.2 c1=3 length=1
new reactor.r bus1=b phases=3 kvar=100 kv=12.47
new load.l bus1=c kv=12.47 kw=100"""
    whole, _ = imported(tmp_path, body)
    monkeypatch.setattr(engine, "YPRIM_ENTRIES", 36 + 36)  # the source and the first line
    case, report = imported(tmp_path, body)
    assert report.admittances.checked == 1
    assert report.admittances.unchecked == {"no room was left for its matrix": 1}
    assert [n.code for n in report.notes if n.code == "IMP-067"] == ["IMP-067"]
    assert report.entry["reactor.r"].code == "IMP-040"
    assert "no room" in report.entry["reactor.r"].reason
    for a, b in zip(case.feeder.lines, whole.feeder.lines, strict=True):
        np.testing.assert_allclose(a.x_ohm, b.x_ohm, rtol=1e-12)


@pytest.mark.parametrize("odd", ["pickled", "claims", "packed", "text", "short"])
def test_arrays_that_are_not_what_they_claim_are_refused(tmp_path: Path, odd: str) -> None:
    """A header that asks for 16 TiB, an array of objects, a packed one: refused before memory is given."""
    path = tmp_path / "arrays.npz"
    if odd == "packed":
        np.savez_compressed(path, yprim=np.zeros(10, dtype=complex))
    elif odd == "pickled":
        np.savez(path, yprim=np.array([{}], dtype=object))
    elif odd == "text":
        np.savez(path, yprim=np.array(["a"]))
    else:
        shape = b"(1099511627776,)" if odd == "claims" else b"(11,)"
        text = b"{'descr': '<c16', 'fortran_order': False, 'shape': " + shape + b", }"
        text += b" " * (118 - len(text) - 1) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("yprim.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(160))
    with pytest.raises(EngineError, match="cannot be read"):
        engine._load_arrays(path)


# --------------------------------------------------------------------------------------------- generic admittances

AUTO = """
clear
new circuit.t basekv=138 pu=1.02 bus1=hv mvasc3=2000 mvasc1=1800
new line.l0 bus1=hv bus2=h r1=0.5 x1=3 r0=1 x0=9 c1=10 c0=5 length=1
new autotrans.a phases=3 windings=3 buses=[h x t] conns=[series wye delta] kvs=[138 69 13.8] kvas=[30000 30000 10000]
~ xhx=8 xht=20 xxt=15 %rs=[.2 .2 .3] taps=[1 1.02 1] %imag=.5 %noloadloss=.1
new line.l1 bus1=x bus2=y r1=0.5 x1=1 r0=1 x0=3 c1=10 c0=5 length=1
new load.l bus1=y kv=69 kw=9000 kvar=3000
new load.l1 bus1=y.1 phases=1 kv=39.84 kw=3000 kvar=1000
new load.m bus1=t kv=13.8 kw=900 kvar=300 conn=delta
"""
AUTO_TAIL = "set voltagebases=[138 69 13.8]\ncalcvoltagebases\nset tolerance=1e-9\nsolve\n"


def difference(one: ImportReport, other: ImportReport, case: Case) -> float:
    """Largest difference of two solutions of the engine, pu."""
    a, b = one.reference, other.reference
    assert a is not None
    assert b is not None
    base = {bus.name: 1e3 * bus.v_base_kv for bus in case.feeder.buses}
    return max(abs(a.voltage[n] - b.voltage[n]) / base[n[0]] for n in a.nodes)


def test_an_autotransformer_end_to_end(tmp_path: Path) -> None:
    """Import, power flow, table folder, export and the engine again; a radial schedule that replays."""
    import lateral

    case, report = imported(tmp_path, "", head=AUTO, tail=AUTO_TAIL)
    entry = report.entry["autotrans.a"]
    assert (entry.outcome, entry.code, entry.became) == ("mapped", "IMP-066", ("admittance.autotrans_a",))
    assert "generic admittance from the engine" in entry.reason
    assert report.summary["unsupported"] == 0
    (wire,) = case.feeder.admittances
    # the series winding ends at the bus of the second winding, not at its own
    assert [(t.bus, t.conductors) for t in wire.terminals] == [(b, (1, 2, 3)) for b in "hxt"]
    assert check(case, radial=True) == ()
    assert report.max_dv_pu is not None
    assert report.max_dv_pu < 1e-8
    flow = power_flow(case)
    assert report.reference is not None
    error = np.abs(flow.v[:, 0] - report.reference.at(flow.index.nodes)) / (1e3 * flow.index.v_base_kv)
    assert error.max() < 1e-8
    assert read_folder(write_folder(case, tmp_path / "folder")).hash == case.hash
    _, back = read(write_opendss(case, tmp_path / "out"))
    assert difference(report, back, case) < 1e-8
    result = lateral.solve(case, formulation="lindist3flow", rounds=3)
    assert result.replay is not None
    assert result.replay.errors.max_dv_pu < 1e-6
    assert result.replay.losses_kw[0] == pytest.approx(report.reference.losses_kw, rel=1e-6)


def test_an_autotransformer_gives_its_buses_their_bases(tmp_path: Path) -> None:
    """Files without voltage bases: its rated voltages are the bases beyond it."""
    case, report = imported(tmp_path, "", head=AUTO, tail="solve\n")
    assert "IMP-053" in {n.code for n in report.notes}
    assert case.feeder.bus["x"].v_base_kv == pytest.approx(69.0 / np.sqrt(3.0))
    assert case.feeder.bus["y"].v_base_kv == pytest.approx(69.0 / np.sqrt(3.0))
    assert case.feeder.bus["t"].v_base_kv == pytest.approx(13.8 / np.sqrt(3.0))


LOAD = "\nnew load.l bus1=c kv=12.47 kw=300 kvar=100 vminpu=0.1"


@pytest.mark.parametrize(
    ("element", "body", "terminals"),
    [
        ("gicline.g", "new gicline.g bus1=b bus2=c r=1 x=2" + LOAD, {"b": (1, 2, 3), "c": (1, 2, 3)}),
        (
            "gictransformer.g",
            "new gictransformer.g bush=b busx=c busnx=c.0.0.0 type=auto r1=.2 r2=30000" + LOAD,
            {"b": (1, 2, 3), "c": (1, 2, 3)},
        ),
        (
            "transformer.six",
            "new transformer.six phases=6 windings=2 buses=(b.1.2.3.1.2.3 c.1.2.3.1.2.3) kvs=(7.2 7.2) kvas=(500 500)"
            " xhl=5" + LOAD,
            {"b": (1, 2, 3), "c": (1, 2, 3)},
        ),
        (
            "transformer.open",
            "new transformer.open windings=2 buses=(b c) conns=(delta wye) kvs=(12.47 .48) kvas=(500 500) xhl=5\n"
            "new load.l bus1=c kv=.48 kw=100 model=2\nopen transformer.open 1 2",
            {"b": (1, 3), "c": (1, 2, 3)},
        ),
        (
            "reactor.x",
            "new reactor.x bus1=b bus2=c phases=3 r=.5 x=1\nopen reactor.x 1 2\n"
            "new load.l bus1=c.1.3 phases=1 kv=12.47 kw=100",
            {"b": (1, 3), "c": (1, 3)},
        ),
    ],
)
def test_what_has_no_class_of_its_own(
    tmp_path: Path, element: str, body: str, terminals: dict[str, tuple[int, ...]]
) -> None:
    case, report = imported(tmp_path, body)
    assert report.entry[element].code == "IMP-066"
    (wire,) = case.feeder.admittances
    assert {t.bus: t.conductors for t in wire.terminals} == terminals
    assert report.max_dv_pu is not None
    assert report.max_dv_pu < 1e-8
    _, back = read(write_opendss(case, tmp_path / "out"))
    assert difference(report, back, case) < 1e-8


def test_open_on_all_conductors_it_is_nothing(tmp_path: Path) -> None:
    body = """
new reactor.x bus1=b bus2=c phases=3 r=.5 x=1
open reactor.x 1
new line.z bus1=b bus2=c r1=.1 x1=.1 length=1
new load.l bus1=c kv=12.47 kw=100"""
    case, report = imported(tmp_path, body)
    assert case.feeder.admittances == ()
    assert report.entry["reactor.x"].code == "IMP-014"
    assert check(case, radial=True) == ()


@pytest.mark.parametrize(
    ("cls", "body"),
    [
        ("vccs", "new vccs.g bus1=b phases=3"),
        ("upfc", "new upfc.g bus1=b.1 bus2=c.1 refkv=7.2 phases=1 xs=.3\nnew load.l phases=1 bus1=c.1 kv=7.2 kw=10"),
        ("indmach012", "new indmach012.g bus1=b kv=12.47 kw=100"),
        ("isource", "new isource.g bus1=b amps=1"),
        ("gicline", "new gicline.g bus1=b bus2=c r=1 x=2 frequency=60 volts=100"),
    ],
)
def test_what_is_controlled_or_a_source_is_not_read(tmp_path: Path, cls: str, body: str) -> None:
    _, report = imported(tmp_path, body)
    assert report.entry[f"{cls}.g"].code == "IMP-040"
    assert report.summary["unsupported"] == 1
