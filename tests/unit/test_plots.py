"""Figures hold the numbers of the result, in the right units and places."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

import lateral
from lateral import plots
from lateral.errors import OptionError
from lateral.network.topology import Tree
from lateral.plots.arrange import tidy_tree
from lateral.plots.data import View, short, shown
from lateral.plots.save import save
from lateral.results.result import Result


@pytest.fixture(scope="module")
def result() -> Result:
    return lateral.solve(lateral.read("ieee13"))


@pytest.fixture(scope="module")
def small() -> Result:
    return lateral.solve(lateral.read("ads10"))


@pytest.fixture(scope="module")
def bare() -> Result:
    """One step, no PV, no battery."""
    return lateral.solve(lateral.read("case33bw"))


def trace(figure: Any, name: str) -> dict[str, Any]:
    return next(t for t in figure.to_plotly_json()["data"] if name in (t.get("name"), t.get("meta")))


def numbers(value: Any) -> np.ndarray:
    """Values of a figure, which may be packed."""
    if isinstance(value, dict):
        out = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
        return out.reshape([int(n) for n in value["shape"].split(",")]) if "shape" in value else out
    return np.array(value, dtype=float)


def test_every_plot_of_every_kind_of_case(result: Result, small: Result, bare: Result) -> None:
    for one in (result, small, bare):
        for name in plots.__all__:
            if name != "save" and not name.startswith("plot_"):
                assert getattr(plots, name)(one).to_json(), name


def test_map_colours_are_the_worst_conductors_voltages(result: Result) -> None:
    step = 18
    figure = plots.feeder_map(result, step=step)
    buses = trace(figure, "buses")
    v = result.dataset["bus.vmag"].isel(time=step)
    names = [t.split("<br>")[0].removeprefix("bus ") for t in buses["text"]]
    for name, colour in zip(names, buses["marker"]["color"], strict=True):
        own = [float(x) for k, x in zip(v["bus"].values, v.values, strict=True) if str(k).rpartition(".")[0] == name]
        bus = result.case.feeder.bus[name]
        worst = min(own, key=lambda x: min(x - bus.v_min_pu, bus.v_max_pu - x))
        assert colour == pytest.approx(worst, abs=1e-5)
    at = names.index("671")
    assert numbers(buses["x"])[at] == result.case.feeder.bus["671"].x or result.case.feeder.bus["671"].x != 0


def test_map_slider_has_every_step_and_its_colours(result: Result) -> None:
    figure = plots.feeder_map(result, step=0).to_plotly_json()
    slider = figure["layout"]["sliders"][0]
    assert len(slider["steps"]) == result.case.horizon.n_steps
    assert slider["active"] == 0
    change, traces = slider["steps"][7]["args"]
    assert figure["data"][traces[0]]["meta"] == "buses"
    other = trace(plots.feeder_map(result, step=7), "buses")["marker"]["color"]
    assert change["marker.color"][0] == pytest.approx(other, abs=1e-4)


def test_map_without_coordinates_is_a_tree(bare: Result) -> None:
    view = View(bare)
    assert view.places.drawn
    assert len(set(zip(view.places.x.tolist(), view.places.y.tolist(), strict=True))) == len(view.names)
    assert "open switch" in [t.name for t in plots.feeder_map(bare).data] or not any(
        not s.closed for s in bare.case.feeder.switches
    )


def test_tidy_tree_by_hand() -> None:
    names = ["s", "a", "b", "c", "far"]
    tree = Tree(order=("s", "a", "b", "c"), parent={"a": "s", "b": "a", "c": "s"}, via={})
    x, y = tidy_tree(names, tree)
    assert x.tolist() == [0.0, 1.0, 2.0, 1.0, 0.0]
    assert y[0] == y[1] == y[2]  # the longest path is straight
    assert abs(y[3] - y[0]) == 1.0
    assert y[4] < min(y[:4])  # what nothing reaches is apart


def test_tidy_tree_never_puts_two_buses_on_one_place() -> None:
    rng = np.random.default_rng(3)
    n = 2000
    names = [f"b{k}" for k in range(n)]
    parents = {f"b{k}": f"b{rng.integers(max(0, k - 40), k)}" for k in range(1, n)}
    x, y = tidy_tree(names, Tree(order=tuple(names), parent=parents, via={}))
    for depth in np.unique(x):
        rows = np.sort(y[x == depth])
        assert np.all(np.diff(rows) >= 1.0 - 1e-9)


def test_voltage_against_distance(result: Result) -> None:
    step = 12
    figure = plots.voltage_distance(result, step=step)
    line = trace(figure, "conductor 2")
    x, y = numbers(line["x"]), numbers(line["y"])
    v = result.dataset["bus.vmag"].isel(time=step)
    for k, text in enumerate(line["text"]):
        if k % 3 == 1:
            assert y[k] == pytest.approx(float(v.sel(bus=text)), abs=1e-6)
    length = {e.label: e.length_km for e in result.case.feeder.lines}
    at = next(k for k, text in enumerate(line["text"]) if text == "671.2" and k % 3 == 1)
    path, bus = 0.0, "671"
    tree = View(result).tree
    while bus in tree.parent:
        path += max((length.get(b, 0.0) for b in tree.via[bus].branches), default=0.0)
        bus = tree.parent[bus]
    assert x[at] == pytest.approx(path, rel=1e-6)
    limits = [s.y0 for s in figure.layout.shapes]
    assert limits == [result.case.feeder.bus["671"].v_min_pu, result.case.feeder.bus["671"].v_max_pu]


def test_heatmap_has_a_row_for_every_bus(result: Result) -> None:
    heat = plots.voltage_heatmap(result).to_plotly_json()["data"][0]
    z = numbers(heat["z"])
    assert z.shape == (len(result.case.feeder.buses), result.case.horizon.n_steps)
    assert len(heat["x"]) == result.case.horizon.n_steps + 1
    view = View(result)
    far = [view.distance[0][view.index[name]] for name in heat["y"]]
    assert far == sorted(far)


def test_dispatch_is_balanced_and_says_the_import(result: Result) -> None:
    figure = plots.dispatch_stack(result)
    up = sum(numbers(t["y"]) for t in figure.to_plotly_json()["data"] if t.get("stackgroup") == "gives")
    down = sum(numbers(t["y"]) for t in figure.to_plotly_json()["data"] if t.get("stackgroup") == "takes")
    assert np.allclose(up, -down, rtol=1e-5, atol=1e-2)
    assert np.allclose(numbers(trace(figure, "import")["y"])[:-1], result.p_source_kw, rtol=1e-6)
    pv = sum(p for label, (p, _) in result.set_points.items() if label.startswith("pv."))
    assert np.allclose(numbers(trace(figure, "PV")["y"])[:-1], pv, atol=1e-3)
    price = result.case.series(result.case.sources[0].price_import)
    assert np.allclose(numbers(trace(figure, "import price")["y"])[:-1], price)


def test_state_of_charge_begins_before_the_first_step(small: Result) -> None:
    battery = small.case.batteries[0]
    line = numbers(trace(plots.soc(small), battery.name)["y"])
    assert len(line) == small.case.horizon.n_steps + 1
    assert line[0] == pytest.approx(100 * battery.soc_initial, rel=1e-6)
    row = small.elements("battery.energy").index(battery.name)
    assert np.allclose(line[1:], 100 * small.value("battery.energy")[row] / battery.energy_kwh, rtol=1e-5)


def test_prices_are_the_duals(small: Result) -> None:
    heat = plots.dlmp(small).to_plotly_json()["data"][0]
    bus = small.case.feeder.buses[3].name
    row = list(heat["y"]).index(bus)
    own = [k for k, node in enumerate(small.network.nodes) if node[0] == bus]
    assert np.allclose(numbers(heat["z"])[row], small.dual("bus.p_balance")[own].mean(axis=0), rtol=1e-5)
    rest = numbers(plots.dlmp(small, relative=True).to_plotly_json()["data"][0]["z"])
    assert np.allclose(rest[0], 0.0, atol=1e-7)


def test_steps_without_a_price_leave_the_colours_of_the_others(small: Result) -> None:
    """A step of weight 0 has no price; the range of colours was not a number then."""
    weight = np.ones(small.case.horizon.n_steps)
    weight[:2] = 0.0
    case = small.case.with_(horizon=dataclasses.replace(small.case.horizon, weight=weight))
    heat = plots.dlmp(dataclasses.replace(small, case=case)).to_plotly_json()["data"][0]
    prices = small.dual("bus.p_balance")[:, 2:]
    assert prices.min() - 1e-9 <= heat["zmin"] < heat["zmax"] <= prices.max() + 1e-9


def test_replay_errors_are_the_replays(result: Result) -> None:
    figure = plots.replay_errors(result)
    assert numbers(trace(figure, "largest")["y"]).max() == pytest.approx(result.replay.errors.max_dv_pu, rel=1e-4)
    bars = next(t for t in figure.to_plotly_json()["data"] if t["type"] == "bar")
    assert sum(bars["y"]) == len(result.network.nodes) * result.case.horizon.n_steps
    with pytest.raises(OptionError, match="no replay"):
        plots.replay_errors(dataclasses.replace(result, replay=None))


def test_loading_is_shown_in_percent(small: Result) -> None:
    line = small.case.feeder.lines[0]
    lines = (dataclasses.replace(line, i_max_a=500.0), *small.case.feeder.lines[1:])
    limits = np.where(np.arange(small.network.n_legs) == 0, 0.5, np.inf)
    rated = dataclasses.replace(
        small,
        case=small.case.with_(feeder=dataclasses.replace(small.case.feeder, lines=lines)),
        network=dataclasses.replace(small.network, i_max_pu=limits),
    )
    bars = plots.loading(rated).to_plotly_json()["data"][0]
    assert numbers(bars["x"]) == pytest.approx(100 * rated.loading["share"].to_numpy(), rel=1e-5)
    unlimited = np.full(small.network.n_legs, np.inf)
    bare = dataclasses.replace(
        small.network, i_max_pu=unlimited, s_max_pu=np.full(len(small.network.branch_names), np.inf)
    )
    left_out = plots.loading(dataclasses.replace(rated, network=bare)).layout.annotations[0].text
    assert left_out == "The ratings of this case were not part of the problem."
    assert "has a rating" in plots.loading(dataclasses.replace(small, network=bare)).layout.annotations[0].text


def test_before_and_after(result: Result) -> None:
    figure = plots.baseline_vs_optimum(result).to_plotly_json()
    grid = [t for t in figure["data"] if t["yaxis"] == "y2"]
    assert np.allclose(numbers(grid[0]["y"])[:-1], result.baseline.source_kva.real, rtol=1e-5)
    assert np.allclose(numbers(grid[1]["y"])[:-1], result.p_source_kw, rtol=1e-5)


def test_wrong_steps_are_refused(result: Result) -> None:
    with pytest.raises(OptionError, match="no step 99"):
        plots.voltage_distance(result, step=99)
    assert View(result).step_of(-1) == result.case.horizon.n_steps - 1


def test_names_cannot_become_markup() -> None:
    assert shown("<b>x</b>") == "&lt;b&gt;x&lt;/b&gt;"
    assert "…" in short("a" * 60)
    assert len(short("a" * 60)) < 25


def test_time_axis_keeps_its_length_when_the_clock_changes(small: Result) -> None:
    horizon = lateral.Horizon.regular(24, start="2024-11-03T00:00", zone="America/New_York")
    view = View(dataclasses.replace(small, case=small.case.with_(horizon=horizon)))
    assert view.edges[0] == "2024-11-03T00:00:00"
    assert view.edges[-1] == "2024-11-04T00:00:00"
    assert "UTC-04:00" in view.time_title
    assert view.stamps[1] == "01:00"
    assert view.stamps[2] == "01:00"  # local time, on the slider, says the hour twice


def test_save(small: Result, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = plots.soc(small)
    path = save(figure, tmp_path / "deep" / "soc.html")
    text = path.read_text()
    assert "plotly.js v" in text
    assert "cdn.plot" not in text.split("plotly.js v")[0]
    assert [p.name for p in path.parent.iterdir()] == ["soc.html"]
    with pytest.raises(OptionError, match=r"\.html, \.png, \.svg"):
        save(figure, tmp_path / "soc.jpeg")

    def fail(*_: Any, **__: Any) -> bytes:
        raise RuntimeError(("no browser", "at all"))

    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: object())
    monkeypatch.setattr(type(figure), "to_image", fail)
    with pytest.raises(OptionError, match=r"BROWSER_PATH.*no browser at all"):
        save(figure, tmp_path / "soc.png")
    monkeypatch.undo()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "kaleido" else find(n, *a))
    with pytest.raises(OptionError, match=r"lateral\[png\]"):
        save(figure, tmp_path / "soc.png")
    assert not (tmp_path / "soc.png").exists()


def test_plotly_is_not_imported_with_the_package() -> None:
    import subprocess

    code = "import lateral.plots, lateral.report, sys; sys.exit('plotly.graph_objects' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
