"""Plots and report pages of a run over areas hold its numbers, at the right places, and load nothing."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import lateral
from lateral import plots
from lateral.areas.algorithms import Admm
from lateral.areas.files import partition_of
from lateral.areas.partition import Partition, cut
from lateral.areas.run import AreasRun, Round
from lateral.areas.solve import solve_areas
from lateral.errors import OptionError
from lateral.network.feeder import Bus, Feeder, Line
from lateral.plots import style
from lateral.plots.area_map import area_colours
from lateral.plots.areas import PANELS, border_tracks
from lateral.report import areas as report_areas
from lateral.report.areas import area_of_buses, areas_part, write_areas_report
from lateral.report.write import render
from lateral.solvers import Status

#: What crosses where voltages are said as squared magnitudes.
SHOWN = [x for x in PANELS if not x.endswith(("_re", "_im"))]
#: What crosses where they are complex: both parts of a voltage and of its price.
COMPLEX = ["v_re", "v_im", "p", "q", "price_p", "price_q", "price_v_re", "price_v_im"]
EVIL = "<img src=x onerror=alert(1)>"


def numbers(value: Any) -> np.ndarray:
    """Values of a figure, which may be packed; None is NaN."""
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
    return np.array([np.nan if v is None else v for v in value], dtype=float)


def traces(figure: Any) -> dict[str, Any]:
    return {t.get("name", ""): t for t in figure.to_plotly_json()["data"]}


@pytest.fixture(scope="module")
def partition() -> Partition:
    return partition_of(lateral.read("ieee123-t5"))


@pytest.fixture(scope="module")
def run(partition: Partition) -> AreasRun:
    return solve_areas(partition, formulation="nonlinear", max_rounds=6, tolerance=1e-3)


@pytest.fixture(scope="module")
def page(run: AreasRun) -> str:
    return render(run.result, title=run.plan.name, areas=areas_part(run, run.result.case, 1e-3))


# -- figures ------------------------------------------------------------------------------------------------------


def test_rounds_after_which_areas_go_on_from_another_point_are_marked() -> None:
    figure = plots.plot_residuals([{"a": 1.0}] * 4, built_again=[2])
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1) == (2.5, 2.5)


def test_residuals_by_hand() -> None:
    figure = plots.plot_residuals([{"a": 1.0, "b": 0.1}, {"a": 1e-3, "b": 0.0}], tolerance=1e-2)
    found = traces(figure)
    assert numbers(found["a"]["y"]).tolist() == [1.0, 1e-3]
    assert np.isnan(numbers(found["b"]["y"])[1])  # zero has no logarithm
    layout = figure.to_plotly_json()["layout"]
    assert layout["yaxis"]["type"] == "log"
    assert [s["y0"] for s in layout["shapes"]] == [1e-2]
    assert [a["y"] for a in layout["annotations"]] == [-2.0]
    assert "no borders" in plots.plot_residuals([{}]).layout.annotations[0].text


def test_many_borders_share_one_legend_entry() -> None:
    many = {f"b{k}": 10.0**-k for k in range(12)}
    data = plots.plot_residuals([many, many]).to_plotly_json()["data"]
    assert len(data) == 12
    shown = [t["name"] for t in data if t.get("showlegend")]
    assert sorted(shown) == sorted([*(f"b{k}" for k in range(len(style.CYCLE))), "other borders"])


def test_gap_is_its_size_and_marks_say_the_sign() -> None:
    data = plots.plot_gap([-1e-2, 1e-4, float("nan"), 0.0], bar=1e-6).to_plotly_json()["data"]
    line, above, below = data
    assert numbers(line["y"])[:2].tolist() == [1e-2, 1e-4]
    assert (above["x"], above["customdata"]) == ([2, 4], [1e-4, 0.0])
    assert (below["x"], below["customdata"]) == ([1], [-1e-2])
    assert below["marker"]["symbol"] == "circle-open"
    assert "no central" in plots.plot_gap([float("nan")]).layout.annotations[0].text


def test_border_tracks_by_hand() -> None:
    rounds = [{"v": np.array([[1.0, 1.21], [4.0, 0.0]]), "p": np.array([[5.0, 6.0], [7.0, 8.0]])}] * 3
    tracks = border_tracks(rounds, (1, 3), every=(1, 2, 3))
    assert [(t.quantity, t.conductor) for t in tracks] == [(q, c) for q in ("v", "p") for c in (1, 2, 3)]
    assert tracks[0].values[2].tolist() == pytest.approx([1.0, 1.1])  # magnitudes
    assert np.isnan(tracks[1].values).all()
    assert tracks[5].values[0].tolist() == [7.0, 8.0]
    figure = plots.plot_borders(rounds, (1, 3), step=1)
    drawn = np.array([numbers(t.y) for t in figure.data])
    assert drawn == pytest.approx(np.outer([1.1, 0.0, 6.0, 8.0], np.ones(3)), rel=1e-6)
    with pytest.raises(OptionError, match="no step 2"):
        plots.plot_borders(rounds, (1, 3), step=2)


def test_where_both_sides_speak_both_are_shown() -> None:
    found = solve_areas(
        partition_of(lateral.read("case33bw-areas")),
        Admm(),
        objective="loss",
        max_rounds=2,
        central=False,
        with_replay=False,
    )
    tracks = border_tracks([r.held["5-6"] for r in found.rounds], (1,))
    assert [(t.quantity, t.side) for t in tracks] == [(q, s) for q in ("v", "p", "q") for s in ("up", "down")]
    held = found.rounds[1].held["5-6"]
    assert tracks[2].values[1].tolist() == pytest.approx(held["p.up"][0].tolist())
    assert {t.line.dash for t in plots.plot_borders([r.held["5-6"] for r in found.rounds], (1,)).data} == {
        *("solid", "dot")
    }
    assert "Areas" in render(found.result, areas=areas_part(found, found.result.case, 1e-6))


def test_borders_of_a_run(run: AreasRun) -> None:
    values = [r.held["15-117"] for r in run.rounds]
    figure = plots.plot_borders(values, (1,), step=3)
    assert len(figure.data) == len(SHOWN)
    assert numbers(figure.data[1].y).tolist() == pytest.approx([v["p"][0, 3] for v in values], rel=1e-6)
    assert numbers(figure.data[0].y).tolist() == pytest.approx([v["v"][0, 3] ** 0.5 for v in values], rel=1e-6)


def test_complex_voltages_have_panels_of_their_own() -> None:
    held = {x: np.full((2, 1), -0.5) for x in ("v_re", "v_im", "p", "q", "price_v_re", "price_v_im", "price_p")}
    tracks = border_tracks([held], (1, 3))
    assert [t.quantity for t in tracks[::2]] == [x for x in PANELS if x in held]
    assert all(t.values[0, 0] == -0.5 for t in tracks)


def test_map_has_every_bus_in_its_area_and_every_border(partition: Partition) -> None:
    case = partition.case
    figure = plots.plot_areas(case, partition.bus_area, {b.bus: b.name for b in partition.borders.values()})
    data = figure.to_plotly_json()["data"]
    buses = [t for t in data if t.get("meta") == "buses"]
    where = {text.split("bus ")[1]: t["legendgroup"] for t in buses for text in t["text"]}
    assert where == dict(partition.bus_area)
    (borders,) = [t for t in data if t.get("meta") == "borders"]
    assert sorted(t.split("<br>")[0] for t in borders["text"]) == [f"border {n}" for n in sorted(partition.borders)]
    at = {b.name: k for k, b in enumerate(case.feeder.buses)}
    xy = {}
    for t in buses:
        for text, x, y in zip(t["text"], numbers(t["x"]), numbers(t["y"]), strict=True):
            xy[text.split("bus ")[1]] = (x, y)
    for text, x, y in zip(borders["text"], numbers(borders["x"]), numbers(borders["y"]), strict=True):
        assert xy[re.search(r"bus (\S+?)<br>", text)[1]] == (x, y)
    assert len(xy) == len(at)
    # each area has one colour, the cut branches one of their own
    colours = {t["legendgroup"]: t["marker"]["color"] for t in buses}
    lines = {t["legendgroup"]: t["line"]["color"] for t in data if t["mode"] == "lines"}
    assert {a: c for a, c in lines.items() if a != "cut"} == colours
    assert len({*colours.values(), lines["cut"]}) == 5


def test_neighbours_never_share_a_colour() -> None:
    names = [str(k) for k in range(60)]
    rng = np.random.default_rng(2)
    above = {str(k): str(rng.integers(0, k)) for k in range(1, 60)}
    colours = area_colours(names, above)
    assert all(colours[a] != colours[b] for a, b in above.items())


def test_times_add_up(run: AreasRun) -> None:
    figure = plots.plot_times([r.seconds for r in run.rounds], [r.critical for r in run.rounds])
    found = traces(figure)
    bars = [numbers(t["y"]) for name, t in found.items() if name.startswith("area")]
    assert np.sum(bars, axis=0) == pytest.approx([sum(r.seconds.values()) for r in run.rounds], rel=1e-5)
    assert numbers(found["critical path"]["y"]) == pytest.approx([r.critical for r in run.rounds], rel=1e-5)
    many = plots.plot_times([{str(k): 1.0 for k in range(20)}], [1.0])
    assert sum(float(numbers(t.y)[0]) for t in many.data if t.type == "bar") == pytest.approx(20.0)
    assert len(many.data) == len(style.CYCLE) + 2


# -- the page -----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, text by section, the data of the figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: set[str] = set()
        self.words: list[str] = []
        self.data: dict[str, Any] = {}
        self._script: dict[str, str | None] | None = None
        self._parts: list[str] = []
        self.feed(text)
        self.data = json.loads("".join(self._parts))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.ids |= {str(found["id"])} if found.get("id") else set()
        self._script = found if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.words.append(data)
        elif self._script.get("id") == "data":
            self._parts.append(data)


def test_page_has_every_part_and_loads_nothing(page: str, run: AreasRun) -> None:
    found = Page(page)
    assert {"summary", "areas", "agreement", "borders", "voltages", "schedule", "run"} <= found.ids
    shown = {a["data-figure"] for tag, a in found.tags if a.get("data-figure")}
    assert {"areas_map", "areas_residuals", "areas_gap", "areas_times", "areas_borders"} <= shown
    assert shown == set(found.data["figures"])
    assert not [a for _, a in found.tags if a.get("src") or a.get("href", "#")[0] != "#"]
    words = " ".join(found.words)
    for text in ("one central solve", "auto, executor serial", "line.15-117", "1 feeds 2", f"{run.messages}"):
        assert text in words


def test_the_script_has_every_border_at_every_step(page: str, run: AreasRun) -> None:
    data = Page(page).data
    areas, lines = data["areas"], data["figures"]["areas_borders"]["data"]
    assert (areas["rounds"], areas["steps"]) == (len(run.rounds), 5)
    assert len(areas["stamps"]) == 5
    for entry, name in zip(areas["borders"], run.plan.borders, strict=True):
        values = np.frombuffer(base64.b64decode(entry["values"]), dtype="<f4").reshape(len(lines), len(run.rounds), 5)
        for k, quantity in enumerate(SHOWN):
            held = np.array([r.held[name][quantity][0] for r in run.rounds])
            assert values[k] == pytest.approx(np.sqrt(held) if quantity == "v" else held, rel=1e-6)
    # what is drawn first is the first border at the step where most power crosses
    first = next(iter(run.plan.borders))
    power = np.abs(run.rounds[-1].held[first]["p"][0])
    assert areas["step"] == int(power.argmax())
    assert numbers(lines[1]["y"])[-1] == pytest.approx(run.rounds[-1].held[first]["p"][0, areas["step"]], rel=1e-6)


@pytest.mark.parametrize(("formulation", "quantities"), [("lindist3flow", SHOWN), ("auto", COMPLEX)])
def test_three_phase_borders_share_one_figure(formulation: str, quantities: list[str]) -> None:
    case = lateral.read("ieee13")
    part = cut(case, ["line.632670", "line.632645"])
    found = solve_areas(part, formulation=formulation, max_rounds=1, central=False, with_replay=False)
    data = Page(render(found.result, areas=areas_part(found, case, None))).data
    counts = {b.name: len(b.conductors) for b in part.borders.values()}
    assert sorted(counts.values()) == [2, 3]
    lines = data["figures"]["areas_borders"]["data"]
    assert len(lines) == 3 * len(quantities)
    for entry, count in zip(data["areas"]["borders"], counts.values(), strict=True):
        values = np.frombuffer(base64.b64decode(entry["values"]), dtype="<f4").reshape(len(lines), -1)
        assert int(np.isfinite(values).all(axis=1).sum()) == count * len(quantities)


def test_areas_of_the_buses_are_those_of_the_partition(run: AreasRun, partition: Partition) -> None:
    assert area_of_buses(run, partition.case) == partition.bus_area


def test_a_long_run_is_thinned(run: AreasRun, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 3 * 6 * 5
    monkeypatch.setattr(report_areas, "BORDER_CELLS", 4 * size)
    part = areas_part(run, run.result.case, None)
    assert part.data is not None
    assert part.data["rounds"] == 4
    assert list(part.figures["areas_borders"].data[0].x) == [1, 3, 4, 6]
    assert part.thinned == "4 of 6 rounds are shown."


def test_a_run_that_saw_no_whole_has_a_page(run: AreasRun, tmp_path: Any) -> None:
    gone = dataclasses.replace(
        run,
        result=None,
        central=None,
        status=Status.DEGRADED,
        status_text=f"degraded: area {EVIL} did not take part",
        degraded=("3",),
        rejected=("a message of another run",),
    )
    path = write_areas_report(gone, tmp_path / "page.html", case=run.result.case, tolerance=1e-6)
    found = Page(path.read_text())
    words = " ".join(found.words)
    for text in ("gone at the end", "refused: a message of another run", "Nothing is known of the whole", "degraded"):
        assert text in words
    assert {"areas", "agreement", "borders"} <= found.ids
    assert "voltages" not in found.ids
    assert not [tag for tag, _ in found.tags if tag == "img"]
    # separate owners: not even the case is known
    bare = Page(lateral.write_report(gone, tmp_path / "bare.html").read_text())
    assert "areas_map" not in bare.data["figures"]
    assert bare.data["areas"]["stamps"][0] == "step 1"


def test_one_area_has_a_page_without_borders() -> None:
    found = solve_areas(partition_of(lateral.read("ads10"), 1), with_replay=False)
    data = Page(render(found.result, areas=areas_part(found, found.result.case, 1e-6))).data
    assert data["areas"] is None
    assert "areas_borders" not in data["figures"]
    assert found.gap_to_central == pytest.approx(0.0, abs=1e-9)


def test_names_are_text_and_never_markup(run: AreasRun) -> None:
    whole, far = lateral.read("case33bw"), f"b{EVIL}"
    buses = tuple(Bus(name=name, conductors=(1,), v_base_kv=7.3) for name in ("s", far))
    ohms = {"r_ohm": np.eye(1), "x_ohm": np.eye(1)}
    line = Line(name=EVIL, bus_from="s", bus_to=far, conductors_from=(1,), conductors_to=(1,), **ohms)
    source = dataclasses.replace(whole.sources[0], bus="s")
    case = dataclasses.replace(whole, feeder=Feeder(buses=buses, lines=(line,)), devices=(source,))
    figures = (
        plots.plot_areas(case, {"s": "1", far: EVIL}, {far: EVIL}),
        plots.plot_residuals([{EVIL: 1.0}]),
        plots.plot_times([{EVIL: 1.0}], [1.0]),
    )
    for figure in figures:
        assert EVIL not in figure.to_json().encode().decode("unicode_escape")
    border = next(iter(run.plan.borders))
    renamed = {EVIL if b == border else b: dataclasses.replace(v, name=EVIL) for b, v in run.plan.borders.items()}
    rounds: list[Round] = [
        dataclasses.replace(
            r,
            held={EVIL if b == border else b: v for b, v in r.held.items()},
            residuals={EVIL if b == border else b: v for b, v in r.residuals.items()},
            failures={"3": f"area '3': {EVIL}"},
        )
        for r in run.rounds
    ]
    evil = dataclasses.replace(run, plan=dataclasses.replace(run.plan, borders=renamed), rounds=tuple(rounds))
    found = Page(render(run.result, title=EVIL, areas=areas_part(evil, run.result.case, None)))
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert any(EVIL in word for word in found.words)


def test_cut_takes_a_number_a_file_branches_or_what_the_case_names(tmp_path: Any) -> None:
    case = lateral.read("case33bw-areas")
    file = tmp_path / "areas.toml"
    file.write_text('[cuts]\nfar = "line.5-6"\n')
    assert list(lateral.cut(case).areas) == ["1", "2", "3", "4"]
    assert len(lateral.cut(case, 2).areas) == 2
    assert list(lateral.cut(case, file).areas) == ["1", "far"]
    assert [b.branch for b in lateral.cut(case, ["line.5-6", "line.2-3"]).borders.values()] == [
        *(("line.2-3",), ("line.5-6",))
    ]
