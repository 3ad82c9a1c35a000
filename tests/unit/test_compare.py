"""Formulations side by side, and sweeps."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from tests.unit.test_one_way import two_bus

import lateral
from lateral.cli import run
from lateral.cli.comparing import outcome, parse_sweep
from lateral.devices import Load
from lateral.errors import EngineError, OptionError
from lateral.replay import replay
from lateral.studies import AXES, compare, plain_rows, sweep, varied
from lateral.studies.comparison import COLUMNS, NO_CONTROL


@pytest.fixture(scope="module")
def published() -> lateral.Case:
    return lateral.read("ieee123-t5")


@pytest.fixture(scope="module")
def comparison(published: lateral.Case):
    return compare(published)


def row(table: pd.DataFrame, name: str) -> pd.Series:
    (found,) = (r for _, r in table.iterrows() if r["formulation"] == name)
    return found


def test_published_costs(comparison) -> None:
    cost = comparison.table.set_index("formulation")["cost"]
    assert cost["nonlinear"] == pytest.approx(576.312, abs=1e-3)
    assert cost["soc"] == pytest.approx(cost["nonlinear"], rel=1e-6)
    assert cost["lindistflow"] == pytest.approx(567.026, abs=1e-3)


def test_exact_models_are_replayed_as_modelled(comparison) -> None:
    for name in ("nonlinear", "soc"):
        r = row(comparison.table, name)
        assert r["max_dv_pu"] <= 1e-5
        assert r["cost_replay"] == pytest.approx(r["cost"], rel=1e-6)
        assert r["losses_replay_kwh"] == pytest.approx(r["losses_kwh"], rel=1e-6)
    linear = row(comparison.table, "lindistflow")
    assert linear["cost_replay"] > linear["cost"] + 1.0, "LinDistFlow does not pay for losses; OpenDSS does"


def test_control_is_worth_something(comparison) -> None:
    assert comparison.table.iloc[0]["formulation"] == NO_CONTROL
    assert comparison.table.iloc[0]["cost_replay"] > row(comparison.table, "nonlinear")["cost_replay"]


def test_reactive_use_is_that_of_the_set_points(comparison) -> None:
    result = comparison.results["soc"]
    hours = result.case.horizon.hours
    names = [n for n in ("pv.q_injected", "battery.q_injected") if result.has(n)]
    expected = sum(float(np.abs(result.value(n)).sum(axis=0) @ hours) for n in names)
    assert row(comparison.table, "soc")["reactive_kvarh"] == pytest.approx(expected, rel=1e-12)


def test_reactive_use_of_ports_does_not_cancel() -> None:
    """The converters of a soft open point and the phases of a statcom give and take; a reader pays for each."""
    case = varied(lateral.read("ieee13-controls"), {"steps": 1})
    found = compare(case, ["linearised"])
    result = found.results["linearised"]
    assert result.port_points["soft_open_point.tie"][1].shape == (2, 1)
    hours = result.case.horizon.hours
    expected = sum(
        float(np.sum(np.abs(result.port_points.get(label, (None, total))[1]) @ hours))
        for label, (_, total) in result.set_points.items()
    )
    assert row(found.table, "linearised")["reactive_kvarh"] == pytest.approx(expected, rel=1e-12)
    assert expected > 1.01 * sum(float(np.abs(q) @ hours) for _, q in result.set_points.values())


def test_a_formulation_that_declines_is_listed_with_its_reason() -> None:
    found = compare(lateral.read("ieee13"), ["soc", "lindist3flow", "lindist3flow:nominal"])
    r = row(found.table, "soc")
    assert r["status"] == "declined"
    assert "FOR-001" in r["reason"]
    assert math.isnan(r["cost"])
    assert set(found.results) == {"lindist3flow", "lindist3flow:nominal"}
    assert row(found.table, "lindist3flow")["max_dv_pu"] < row(found.table, "lindist3flow:nominal")["max_dv_pu"]


def test_plain_data_is_json(comparison) -> None:
    data = comparison.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert [r["formulation"] for r in data["rows"]] == list(comparison.table["formulation"])
    assert set(data["rows"][0]) == set(COLUMNS)


def test_figure(comparison) -> None:
    figure = comparison.figure()
    assert len(figure.data) == 6
    assert list(figure.data[0].x) == list(comparison.table["formulation"])


def test_a_replay_that_fails_is_said(published: lateral.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        message = "the engine is gone"
        raise EngineError(message)

    monkeypatch.setattr("lateral.studies.comparison.replayed", broken)
    r = row(compare(published, ["soc"]).table, "soc")
    assert r["status"] == "optimal"
    assert "the engine is gone" in r["reason"]
    assert math.isnan(r["cost_replay"])


@pytest.mark.parametrize("names", [[], ["lindistfow"], ["lindist3flow:nowhere"]])
def test_names_that_do_not_exist(names: list[str], published: lateral.Case) -> None:
    with pytest.raises(OptionError):
        compare(published, names)


def test_sweep_over_feeders_penetrations_and_horizons(published: lateral.Case) -> None:
    table = sweep([published, "ads10"], ["lindistflow"], over={"steps": [1, 2], "pv_share": [0.0, 0.5]})
    assert len(table) == 2 * 2 * 2 * 2
    assert list(table.columns[:3]) == ["case", "steps", "pv_share"]
    found = table[(table["formulation"] == "lindistflow") & (table["case"] == "ads10") & (table["steps"] == 2)]
    more_sun = found.set_index("pv_share")["cost_replay"]
    assert more_sun[0.5] <= more_sun[0.0]
    assert json.dumps(plain_rows(table), allow_nan=False)


@pytest.mark.parametrize(("limits", "judged"), [("all", {"v", "current"}), ("voltage", {"v"}), ("none", set())])
def test_every_row_is_held_against_the_limits_that_were_kept(limits: str, judged: set[str]) -> None:
    """A line for 15 A and a bus above 0.9975 pu at its end: 50 kW at 2.4 kV are 21 A, and leave 0.9956 pu."""
    case = two_bus(Load(name="x", bus="b", p_kw=50.0))
    (line,), (near, far) = case.feeder.lines, case.feeder.buses
    buses = (near, dataclasses.replace(far, v_min_pu=0.9975))
    feeder = dataclasses.replace(case.feeder, buses=buses, lines=(dataclasses.replace(line, i_max_a=15.0),))
    case = case.with_(feeder=feeder)
    whole = replay(case)
    assert set(whole.n_violations()) == {"v", "current"}
    found = compare(case, ["nonlinear"], limits=limits).table.set_index("formulation")["n_violations"]
    assert found[NO_CONTROL] == sum(n for quantity, n in whole.n_violations().items() if quantity in judged)
    with pytest.raises(OptionError, match="no set of limits 'volts'"):
        compare(case, ["nonlinear"], limits="volts")


def test_axes(published: lateral.Case) -> None:
    assert varied(published, {"steps": 3}).horizon.n_steps == 3
    halves = varied(published, {"resample": 10})
    assert (halves.horizon.n_steps, halves.horizon.hours.sum()) == (10, published.horizon.hours.sum())
    double = varied(published, {"load_scale": 2.0})
    assert sum(d.p_kw for d in double.loads) == pytest.approx(2 * sum(d.p_kw for d in published.loads))
    assert varied(published, {"pv_share": 0.0}).pvs == ()
    load_buses = {d.bus for d in published.loads if d.p_kw > 0}
    full = varied(published, {"pv_share": 1.0, "battery_share": 0.0})
    assert {d.bus for d in full.pvs} == load_buses
    assert full.batteries == ()
    assert varied(published, {}) is published
    for wrong in (
        *({"step": 3}, {"steps": 2.5}, {"steps": 0}, {"pv_share": 1.5}, {"steps": 99}),
        *({"steps": math.inf}, {"resample": math.nan}, {"resample": 1e9}, {"load_scale": math.nan}),
    ):
        with pytest.raises(OptionError):
            varied(published, wrong)


def test_sweep_words() -> None:
    assert parse_sweep(["pv_share=0.1, 0.2", "case=ads10,ieee13"]) == ({"pv_share": [0.1, 0.2]}, ["ads10", "ieee13"])
    again = parse_sweep(["pv_share=0.1", "pv_share=0.2", "case=ads10", "case=ieee13"])
    assert again == ({"pv_share": [0.1, 0.2]}, ["ads10", "ieee13"])
    assert set(AXES) == {"steps", "resample", "load_scale", "pv_share", "battery_share"}
    for wrong in ("pv_share", "pv_share=", "pv_share=much", "shares=1"):
        with pytest.raises(OptionError):
            parse_sweep([wrong])


def test_command(capfd: pytest.CaptureFixture[str], tmp_path) -> None:
    out = tmp_path / "out"
    code = run(["compare", "ieee123-t5", "--formulation", "soc", "--sweep", "steps=1,2", "--out", str(out), "--json"])
    assert code == 0
    data = json.loads(capfd.readouterr().out)
    assert [r["steps"] for r in data["rows"]] == [1, 1, 2, 2]
    assert {p.name for p in out.iterdir() if not p.name.startswith(".")} == {
        f"comparison.{suffix}" for suffix in ("json", "csv", "parquet", "html")
    }
    assert len(pd.read_csv(out / "comparison.csv")) == 4


def test_the_screen_shows_what_was_minimised_and_what_bounds_it(capfd: pytest.CaptureFixture[str]) -> None:
    """Not the cost, which nobody minimised; and every name of a formulation in full."""
    of_two = ["ieee13-rated", "--formulation", "sdp", "--formulation", "current-voltage"]
    assert run(["compare", *of_two, "--objective", "vdev"]) == 0
    text = capfd.readouterr().out
    assert "vdev" in text
    assert "bound" in text
    assert "cost" not in text
    assert "current-voltage" in text
    row = next(line for line in text.splitlines() if "sdp" in line)
    assert len(re.findall(r"\b0\.\d{4}\b", row)) == 2  # two digits would be the same for all of them
    assert run(["compare", "ieee123-t5", "--formulation", "nonlinear"]) == 0
    text = capfd.readouterr().out
    assert "cost $" in text
    assert "bound" not in text


def test_long_names_stand_below_the_lower_row_only(comparison) -> None:
    """Below the upper row they lay over the titles of the lower one."""
    layout = comparison.figure().layout
    assert (layout.xaxis.showticklabels, layout.xaxis2.showticklabels) == (False, False)
    assert layout.xaxis3.showticklabels is not False


def test_a_bound_says_what_it_rests_on() -> None:
    """`sdp` holds taps and shares that the exact form decides, and ends above it: no bound of what is beside it."""
    table = compare(varied(lateral.read("ieee13-controls"), {"steps": 1}), ["linearised", "sdp"]).table
    exact, relaxed = row(table, "linearised"), row(table, "sdp")
    assert relaxed["bound"] > exact["objective"]
    assert "held" in relaxed["bound_given"]
    assert exact["bound_given"] == ""


@pytest.mark.parametrize(
    ("arguments", "word", "code"),
    [
        (("case33bw", "--formulation", "soc", "--sweep", "load_scale=2"), "infeasible", 3),
        (("ieee13-rated", "--formulation", "soc"), "declined", 2),
    ],
)
def test_exit_codes_are_those_of_solve(arguments: tuple[str, ...], word: str, code: int, capfd) -> None:
    assert run(["compare", *arguments, "--json"]) == code
    assert json.loads(capfd.readouterr().out)["status"] == word


def test_options_of_a_study_that_it_has_no_use_for_are_named(capfd: pytest.CaptureFixture[str], tmp_path) -> None:
    study = tmp_path / "study.toml"
    study.write_text('case = "ads10"\n[solve]\nobjective = "loss"\nformulation = "sdp"\nrecover = true\n')
    assert run(["compare", str(study), "--formulation", "lindistflow", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["objective_name"] == "loss"
    assert "compare does not use formulation, recover of the study's [solve]" in err


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        (("infeasible", "optimal"), "ok"),
        (("infeasible", "inaccurate"), "inaccurate"),
        (("limit_reached", "declined", "locally_infeasible"), "locally_infeasible"),
        (("error", "limit_reached"), "limit_reached"),
        (("declined",), "declined"),
    ],
)
def test_a_comparison_without_an_optimum_has_the_word_of_what_was_found(statuses: tuple[str, ...], word: str) -> None:
    assert outcome(pd.DataFrame({"status": statuses})) == word
