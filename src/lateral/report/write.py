"""Put the report together and write it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateral.areas.run import AreasRun
from lateral.errors import LateralError
from lateral.plots.compare import baseline_vs_optimum, loading, replay_errors, why_no_loading
from lateral.plots.data import View, Voltages
from lateral.plots.save import write_whole
from lateral.plots.schedule import dispatch_stack, dlmp, reactive, soc
from lateral.report import content
from lateral.report.pack import data_block, voltage_data, voltage_sets
from lateral.results.result import Result, versions

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from lateral.case import Case
    from lateral.io.opendss.report import ImportReport
    from lateral.report.areas import AreasPart


#: Parts of the script, in the order in which they need each other.
SCRIPTS = ("chart.js", "voltages.js", "borders.js", "report.js")


def write_report(
    result: Result | AreasRun, path: Path | str, *, import_report: ImportReport | None = None, title: str = ""
) -> Path:
    """Write a result as one HTML file that needs nothing else: no server, no network, no token.

    It holds the plotting library (4.8 MB), so that it opens anywhere. A result without a schedule has a report too: it
    says why, and shows the day without control.

    Args:
        result: what was solved, in any status; of a run over areas the report has pages about the areas too.
        path: the file to write; it is written whole or not at all.
        import_report: what became of an OpenDSS model, from `lateral.io.opendss.read`.
        title: heading; default: the name of the case.

    Returns:
        The path.
    """
    if isinstance(result, AreasRun):
        from lateral.report.areas import write_areas_report  # it needs what stands below

        return write_areas_report(result, path, import_report=import_report, title=title)
    return write_whole(Path(path), render(result, import_report=import_report, title=title).encode())


def render(
    result: Result | None,
    *,
    import_report: ImportReport | None = None,
    title: str = "",
    areas: AreasPart | None = None,
    case: Case | None = None,
) -> str:
    """The report as HTML text; see `write_report`.

    Args:
        result: what was solved; None only with areas, where nothing is known of the whole.
        import_report: what became of an OpenDSS model.
        title: heading; default: the name of the case.
        areas: pages about the areas of a run.
        case: the case, where there is no result.
    """
    import jinja2
    import plotly.offline

    known = case if result is None else result.case
    figures: dict[str, go.Figure] = {} if areas is None else dict(areas.figures)
    parts: dict[str, Any] = {**_NOTHING} if result is None else _of_result(result, figures, areas)
    voltages = parts.pop("voltages")
    status = text = tone = ""
    if result is not None:
        status, text, tone = result.status.word, result.status_text, content.tone_of(result)
    if areas is not None:
        status, text, tone = areas.run.status.word, areas.run.status_text, areas.tone
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_asset),
    )
    return environment.get_template("template.html").render(
        parts,
        title=title or (known.name if known is not None else "areas"),
        case=known,
        areas=areas,
        status=content.spoken(status),
        status_text=content.after_word(status, text),
        tone=tone,
        figures={name: int(fig.layout.height) for name, fig in figures.items()},
        imported=content.import_part(import_report) if import_report is not None else None,
        versions=versions(),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=_asset("report.css"),
        script="\n".join(map(_asset, SCRIPTS)),
        plotly=plotly.offline.get_plotlyjs(),
        data=data_block(figures, voltages, None if areas is None else areas.data),
    )


#: What the template shows of a result, where there is none.
_NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("voltages", "comparison", "conflicts", "before", "after", "loadings", "replay")),
    **dict.fromkeys(("cards", "sets", "facts"), ()),
    **dict.fromkeys(("trouble", "map_note", "no_loading", "standing"), ""),
    **dict.fromkeys(("heat_height", "n_steps", "step"), 0),
    "has_schedule": False,
}


def _of_result(result: Result, figures: dict[str, go.Figure], areas: AreasPart | None) -> dict[str, Any]:
    """What the template shows of a result; its figures are added to the others."""
    view = View(result)
    baseline, trouble = _baseline(view)
    sets = voltage_sets(view, baseline)
    voltages = None
    step = 0
    if sets:
        step = view.step_of(None)
        voltages = voltage_data(view, sets, step)
    if baseline is not None:
        figures["compare"] = baseline_vs_optimum(result)
    run = content.replay_of(result)
    if result.has_schedule:
        figures["dispatch"] = dispatch_stack(result)
        figures["reactive"] = reactive(result)
        figures["dlmp"] = dlmp(result)
        figures["dlmp_relative"] = dlmp(result, relative=True)
        if result.has("battery.energy"):
            figures["soc"] = soc(result)
        if len(result.loading):
            figures["loading"] = loading(result)
        if run is not None:
            figures["replay"] = replay_errors(result)
    found = content.columns(view, baseline)
    cards = content.cards(result, found)
    if areas is not None and areas.run.optimum is not None:
        found.append(content.column("one central solve", View(areas.run.optimum)))
    limits = result.has_schedule and not trouble
    return {
        "voltages": voltages,
        "has_schedule": result.has_schedule,
        "standing": content.standing(result),
        "cards": cards,
        "comparison": content.comparison(found, result.case.horizon.n_steps) if found else None,
        "facts": content.facts(result),
        "trouble": trouble,
        "conflicts": content.conflicts(result) if result.conflicts else None,
        "sets": [label for label, _ in sets],
        "heat_height": min(760, max(320, 60 + 3 * len(sets[0][1].worst[0]))) if sets else 0,
        "map_note": _map_note(view),
        "n_steps": result.case.horizon.n_steps,
        "step": step,
        "before": content.violations(result.violations, "baseline") if limits else None,
        "after": content.violations(result.violations, "optimum") if limits else None,
        "loadings": content.loading_table(result.loading) if "loading" in figures else None,
        "no_loading": why_no_loading(result),
        "replay": content.replay_facts(run) if run is not None and result.has_schedule else None,
    }


def _baseline(view: View) -> tuple[Voltages | None, str]:
    """Voltages of the day without control, or none and a sentence why; a report does not fail over it."""
    try:
        volts = view.baseline
        converged = view.result.baseline.converged
    except LateralError as error:
        return None, f"The day without control could not be computed: {error}"
    if converged.all():
        return volts, ""
    if not converged.any():
        return None, "The power flow of the day without control does not converge at any step."
    n = int((~converged).sum())
    return volts, f"The power flow of the day without control does not converge at {n} of {len(converged)} steps."


def _map_note(view: View) -> str:
    at = view.places
    if at.drawn:
        return "The case has no coordinates: buses are drawn as a tree, the source on the left."
    if at.n_filled:
        return f"{at.n_filled:,} buses without coordinates are drawn at their neighbour."
    return ""


def _asset(name: str) -> str:
    return resources.files("lateral.report").joinpath(name).read_text(encoding="utf-8")


__all__ = ["render", "write_report"]
