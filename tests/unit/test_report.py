"""The report is one file that loads nothing, escapes what it shows, and exists for every kind of result."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lateral
from lateral.cli.running import summary_rows
from lateral.io.opendss import ImportEntry, ImportReport
from lateral.io.opendss.report import ImportNote
from lateral.plots.data import View
from lateral.replay import replay
from lateral.report import write_report
from lateral.report.content import number, replay_facts, small
from lateral.report.pack import data_block, packed, quantised
from lateral.report.write import render
from lateral.results.result import NO_SCHEDULE_PU, Result
from lateral.solvers import Options, Status

EVIL = "<script>alert(1)</script>"
MARKUP_MB = 0.4  # everything but the plotting library and the data


class Page(HTMLParser):
    """Elements of the report, with the text of scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.ids: set[str] = set()
        self.words: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids.add(str(found["id"]))
        self._script = found if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.words.append(data)
        else:
            self.scripts.append((self._script, data))

    @property
    def data(self) -> dict[str, Any]:
        return json.loads("".join(text for attrs, text in self.scripts if attrs.get("id") == "data"))

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def small_case() -> Result:
    return lateral.solve(lateral.read("ads10"))


@pytest.fixture(scope="module")
def page(small_case: Result) -> Page:
    return Page(render(small_case))


def impossible() -> Result:
    case = lateral.read("ads10")
    buses = tuple(
        b if b.name == case.sources[0].bus else dataclasses.replace(b, v_min_pu=1.049, v_max_pu=1.0495)
        for b in case.feeder.buses
    )
    return lateral.solve(case.with_(feeder=dataclasses.replace(case.feeder, buses=buses)), "soc")


def import_report() -> ImportReport:
    given: dict[str, Any] = {
        "operating_point": "snapshot",
        "entries": (
            ImportEntry("line.a", "mapped", "IMP-001", became=("line.a",)),
            ImportEntry("monitor.m", "ignored", "IMP-032", "does not act", file="m.dss", line=3),
            ImportEntry(f"load.{EVIL}", "approximated", "IMP-018", EVIL),
        ),
        "notes": (ImportNote("IMP-052", "no point"),),
        "skipped": (ImportNote("skipped", "show voltages", "m.dss:9"),),
        "max_dv_pu": 1e-9,
    }
    # whatever else a report of an import holds does not matter here
    return ImportReport(**{f.name: given.get(f.name, {}) for f in dataclasses.fields(ImportReport)})


def test_one_file_and_nothing_else(small_case: Result, tmp_path: Path) -> None:
    path = write_report(small_case, tmp_path / "new" / "report.html")
    assert path == tmp_path / "new" / "report.html"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_mode & 0o044
    before = path.read_bytes()
    write_report(small_case, path)
    assert len(path.read_bytes()) == len(before)


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base"), tag
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attrs)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    own = [text for attrs, text in page.scripts if "plotly.js v" not in text[:300]]
    assert not any(re.search(r"https?://", text) for text in own)


def test_sections_and_numbers(page: Page, small_case: Result) -> None:
    assert {"summary", "voltages", "schedule", "prices", "control", "limits", "replay", "run", "step"} <= page.ids
    assert "conflicts" not in page.ids
    text = page.text
    assert number(small_case.cost, 2) in text
    assert number(small_case.baseline_cost, 2) in text
    assert small_case.case.hash in text
    assert small_case.case.horizon.zone in text
    assert set(page.data["figures"]) >= {"dispatch", "soc", "dlmp", "replay", "compare"}
    drawn = {a["data-figure"] for _, a in page.tags if "data-figure" in a}
    assert drawn == set(page.data["figures"])
    assert [a["data-chart"] for _, a in page.tags if "data-chart" in a] == ["map", "profile", "heatmap"]


def test_shared_voltages_are_the_results(page: Page, small_case: Result) -> None:
    v = page.data["voltages"]
    view = View(small_case)
    assert [s["label"] for s in v["sets"]] == ["schedule", "without control"]
    for one, volts in zip(v["sets"], (view.optimum, view.baseline), strict=True):
        levels = np.frombuffer(base64.b64decode(one["values"]), dtype="<u2").reshape(v["nodes"], v["steps"])
        assert np.abs(v["low"] + v["resolution"] * levels - volts.v_pu).max() < 2e-6
    starts = np.frombuffer(base64.b64decode(v["starts"]), dtype="<i4")
    assert starts[-1] == v["nodes"]
    assert len(v["stamps"]) == small_case.case.horizon.n_steps


def ints(text: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(text), dtype="<i4")


def test_what_the_charts_are_drawn_from(page: Page, small_case: Result) -> None:
    v, case, view = page.data["voltages"], small_case.case, View(small_case)
    bus = ints(v["bus"])
    assert [view.names[k] for k in bus] == v["names"]
    ends = {frozenset((view.names[a], view.names[b])) for a, b in ints(v["closed"]).reshape(-1, 2)}
    assert ends >= {frozenset((e.bus_from, e.bus_to)) for e in case.feeder.lines}
    marks = {d["label"]: [view.names[k] for k in ints(d["at"])] for d in v["devices"]}
    assert marks["battery"] == list(dict.fromkeys(b.bus for b in case.batteries))
    assert marks["source"] == [case.sources[0].bus]
    low, high = v["range"]
    assert low + high == pytest.approx(2.0)  # the middle of the colours is 1 pu
    assert v["limits"] == list(view.voltages.limits)
    upstream, distance = ints(v["upstream"]), np.frombuffer(base64.b64decode(v["distance"]), dtype="<f4")
    inner = np.flatnonzero(upstream >= 0)
    assert len(inner) == len(upstream) - 1
    assert (distance[inner] >= distance[upstream[inner]]).all()
    assert v["hours"][-1] == pytest.approx(case.horizon.hours.sum())
    load = next(d for d in case.devices if d.kind == "load")
    assert any(line.startswith("load") for line in v["about"][str(v["names"].index(load.bus))])


def test_unknown_voltages_stay_unknown() -> None:
    levels = quantised(np.array([[0.9, np.nan, 1.1]]), 0.9, 0.2 / 65534)
    assert levels.tolist() == [[0, 65535, 65534]]
    assert np.frombuffer(base64.b64decode(packed(levels, "u2")), dtype="<u2").tolist() == [0, 65535, 65534]


def test_names_are_escaped_everywhere(small_case: Result) -> None:
    case = small_case.case
    old = case.feeder.buses[-1].name

    def renamed(element: Any) -> Any:
        changes = {
            f.name: EVIL
            for f in dataclasses.fields(element)
            if f.name in ("name", "bus", "bus_from", "bus_to") and getattr(element, f.name) == old
        }
        return dataclasses.replace(element, **changes) if changes else element

    feeder = dataclasses.replace(
        case.feeder,
        buses=tuple(renamed(b) for b in case.feeder.buses),
        lines=tuple(renamed(e) for e in case.feeder.lines),
    )
    battery = dataclasses.replace(case.batteries[0], name="<img src=x onerror=alert(2)>")
    devices = tuple(battery if d is case.batteries[0] else renamed(d) for d in case.devices)
    evil = case.with_(feeder=feeder, devices=devices, name=EVIL, notes="</style>" + EVIL)
    text = render(lateral.solve(evil, check=False, with_replay=False), import_report=import_report(), title=EVIL)
    assert EVIL not in text
    assert "onerror=alert(2)>" not in text
    page = Page(text)
    assert len(page.scripts) == 3 or {a.get("type") for a, _ in page.scripts} <= {None, "application/json"}
    assert not any(t == "img" for t, _ in page.tags)
    assert EVIL in page.text  # as words
    # in plotly's labels, which know a little HTML, the name is escaped once more
    heat = page.data["figures"]["dlmp"]["data"][0]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in heat["y"]
    for figure in page.data["figures"].values():
        assert EVIL not in json.dumps(figure)
        assert "<img" not in json.dumps(figure)


def test_data_cannot_end_its_element() -> None:
    block = data_block({}, {"name": "</script><!-- & \u2028"})
    assert "<" not in block
    assert "\u2028" not in block
    assert json.loads(block)["voltages"]["name"] == "</script><!-- & \u2028"


def test_infeasible_says_why_and_shows_the_day_without_control() -> None:
    result = impossible()
    assert result.status is Status.INFEASIBLE
    page = Page(render(result))
    assert "conflicts" in page.ids
    assert "infeasible" in page.text
    for conflict in result.conflicts[:3]:
        assert f"{conflict.value:.5g}" in page.text
    assert set(page.data["figures"]) == {"compare"}
    assert any(a.get("data-chart") == "map" for _, a in page.tags)
    assert [s["label"] for s in page.data["voltages"]["sets"]] == ["without control"]
    assert "schedule" not in page.ids


@pytest.fixture(scope="module")
def case33bw() -> lateral.Case:
    return lateral.read("case33bw-areas")


@pytest.mark.parametrize(("iterations", "far"), [(2, True), (6, False)])
def test_where_a_solver_stopped_is_no_result(iterations: int, far: bool, case33bw: lateral.Case) -> None:
    """After 2 iterations Ipopt breaks an equation by 0.014 pu, after 6 by 6e-5: losses are of nothing, or no result."""
    options = Options(max_iterations=iterations)
    result = lateral.solve(case33bw, "nonlinear", "loss", solver="ipopt", options=options)
    assert result.status is Status.LIMIT_REACHED and result.has_values
    off = max(result.residuals.max_primal, result.residuals.max_bound)
    assert (off > NO_SCHEDULE_PU) is far
    assert (result.has_schedule, result.stopped) == (not far, not far)
    summary = result.summary()
    assert all((summary[k] is None) is far for k in ("objective", "cost", "losses_kwh", "energy_import_kwh"))
    assert (result.replay is None) is far
    screen = dict(summary_rows(summary))
    assert ("losses" in screen) is not far
    assert ("no result" in screen.get("mind", "")) is not far
    assert ("equations or bounds are off by" in screen.get("values", "")) is far
    found = Page(render(result))
    assert "card" not in {str(attrs.get("class")).split()[0] for _, attrs in found.tags}
    assert "schedule, by the model" not in found.text
    assert ("where it stopped, by the model" in found.text) is not far
    assert ("no result" in found.text) is not far
    assert ("There is no schedule: where it ended, equations or bounds are off by" in found.text) is far
    assert ("dispatch" in found.data["figures"]) is not far
    shown = found.data["voltages"]["sets"][0]["label"]
    assert shown == ("without control" if far else "where it stopped")


def test_a_result_is_shown_as_ever(small_case: Result, page: Page) -> None:
    assert small_case.has_schedule and not small_case.stopped
    assert "schedule, by the model" in page.text
    # broken by more, also where it is not called a limit
    residuals = dataclasses.replace(small_case.residuals, max_primal=1.01 * NO_SCHEDULE_PU)
    for status in (Status.INACCURATE, Status.DEGRADED):
        broken = dataclasses.replace(small_case, status=status, residuals=residuals)
        assert not broken.has_schedule and broken.summary()["losses_kwh"] is None
        assert dataclasses.replace(small_case, status=status).summary()["losses_kwh"] is not None
    residuals = dataclasses.replace(small_case.residuals, max_bound=float("nan"))
    assert not dataclasses.replace(small_case, residuals=residuals).has_schedule


def test_one_step_and_no_devices() -> None:
    result = lateral.solve(lateral.read("case33bw"))
    page = Page(render(result))
    assert "step" not in page.ids  # nothing to slide
    assert "stamp" in page.ids
    assert "soc" not in page.data["figures"]
    assert page.data["voltages"]["steps"] == 1


def test_without_replay_and_with_a_day_that_does_not_converge(small_case: Result) -> None:
    page = Page(render(dataclasses.replace(small_case, replay=None)))
    assert "replay" not in page.ids
    heavy = tuple(dataclasses.replace(d, p_kw=1e6) if d.kind == "load" else d for d in small_case.case.devices)
    lost = dataclasses.replace(small_case, case=small_case.case.with_(devices=heavy), replay=None, _cache={})
    assert not lost.baseline.all_converged
    page = Page(render(lost))
    assert "does not converge" in page.text
    assert page.data["voltages"]["sets"][0]["label"] == "schedule"


def test_import_report_lists_what_deviates(small_case: Result) -> None:
    page = Page(render(small_case, import_report=import_report()))
    assert "import" in page.ids
    for words in ("monitor.m", "m.dss:3", "IMP-032", "line.a", "show voltages", "no point"):
        assert words in page.text


def test_size_grows_with_the_voltages_only(small_case: Result) -> None:
    import plotly.offline

    library = len(plotly.offline.get_plotlyjs().encode())
    assert len(render(small_case).encode()) - library < MARKUP_MB * 1e6
    big = lateral.solve(lateral.read("tree-1000x24"), "lindistflow", with_replay=False)
    size = len(render(big).encode()) - library
    cells = big.network.n_nodes * big.case.horizon.n_steps
    assert size < MARKUP_MB * 1e6 + 2 * 8 / 3 * cells + 400 * 24 * 4 * 8 / 3 + 400 * len(big.case.feeder.buses)


def test_numbers() -> None:
    assert number(1234567.891, 2) == "1,234,567.89"
    assert number(-0.0001) == "0.0"
    assert number(float("nan")) == "–"
    assert number(None) == "–"
    assert small(0.0) == "0"
    assert small(1.68e-4) == "1.68×10⁻⁴"
    assert small(0.00196) == "0.00196"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_draws_it_and_the_slider_moves_it(small_case: Result, tmp_path: Path) -> None:
    path = write_report(small_case, tmp_path / "r.html")
    probe = """<script>
    const problems = [];
    window.addEventListener("error", (e) => problems.push(e.message));
    document.addEventListener("securitypolicyviolation", (e) => problems.push(e.violatedDirective));
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    const chart = (name) => document.querySelector(`[data-chart=${name}]`);
    const canvasOf = (name) => chart(name).querySelector(".frame canvas");
    const picture = () => ["map", "profile", "heatmap"].map((name) => canvasOf(name).toDataURL());
    // a browser without a screen hardly ever draws a frame
    window.requestAnimationFrame = (act) => setTimeout(act, 16);
    window.cancelAnimationFrame = clearTimeout;
    setTimeout(async () => {
      window.dispatchEvent(new Event("beforeprint"));
      await wait(3000);
      const before = picture(), slider = document.getElementById("step");
      slider.value = slider.value === "3" ? "20" : "3";
      slider.dispatchEvent(new Event("input"));
      await wait(1000);
      const after = picture(), canvas = canvasOf("map"), box = canvas.getBoundingClientRect();
      for (let x = 0; x < box.width && !chart("map").querySelector(".tip b"); x += 8) {
        for (let y = 0; y < box.height; y += 8) {
          canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + x, clientY: box.top + y }));
        }
      }
      chart("map").querySelector(".zoom button").click();
      await wait(500);
      const out = document.createElement("pre"), empty = [...document.querySelectorAll(".plot:not(:has(.main-svg))")];
      out.id = "outcome";
      out.textContent = JSON.stringify({ problems, moved: before.map((v, k) => v !== after[k]),
        tip: chart("map").querySelector(".tip").textContent.startsWith("bus "), zoomed: picture()[0] !== after[0],
        empty: empty.map((e) => e.dataset.figure) });
      document.body.appendChild(out);
    }, 1000);
    </script>"""
    path.write_text(path.read_text().replace("<body>", "<body>" + probe))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += (
        f" --disable-component-update --disable-sync --user-data-dir={tmp_path / 'user'} --virtual-time-budget=40000"
    )
    command = [str(CHROMIUM), *flags.split(), "--window-size=1300,9000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    found = re.search(r'<pre id="outcome">(.*?)</pre>', done.stdout)
    if not done.stdout.strip():
        pytest.skip("the browser does not run here")
    assert found is not None
    outcome = json.loads(found.group(1))
    assert outcome == {"problems": [], "moved": [True, True, True], "tip": True, "zoomed": True, "empty": []}


def test_what_the_replay_has_beyond_limits_is_told_from_rounding() -> None:
    """A limit that is met to the digits shown; and steps without a power flow, of which nothing is known."""
    run = replay(lateral.read("ads10"))
    high = run.case.feeder.buses[-1].v_max_pu
    volts, converged = run.v.copy(), run.converged.copy()
    volts[-1, 3] = high + 2e-6
    converged[5] = False

    def said(**changes: Any) -> str:
        return dict(replay_facts(dataclasses.replace(run, **changes)))["voltages to ground beyond their limits"]

    at = f"at bus {run.nodes[-1][0]}, conductor 1, {run.case.horizon.times[3]:%Y-%m-%d %H:%M}"
    assert said() == "none"
    assert said(v=volts) == f"1, worst {high:.5f} pu, 2.00×10⁻⁶ pu beyond {high:g}, {at}"
    assert said(converged=converged) == "none at the steps that converged"
    assert said(v=volts, converged=converged).startswith("1 at the steps that converged, worst")
