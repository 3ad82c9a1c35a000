"""What the report says of a run over areas: where they are, how they came to agree, and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lateral.areas.run import AreasRun, Round
from lateral.case import Case
from lateral.network.schema import IntArray
from lateral.plots.area_map import area_colours, plot_areas
from lateral.plots.areas import (
    border_tracks,
    plot_borders,
    plot_gap,
    plot_residuals,
    plot_times,
)
from lateral.plots.arrange import tree_of
from lateral.plots.save import write_whole
from lateral.report.content import ABSENT, Card, Row, Table, number, small
from lateral.report.pack import packed

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from lateral.io.opendss import ImportReport

#: Values of borders that a report holds; with more of them it leaves out rounds, evenly.
BORDER_CELLS = 1_000_000
#: Reasons of failures and of refused messages that are listed.
REASONS = 20


@dataclass(frozen=True, eq=False)
class AreasPart:
    """The pages about areas, as plain data for the template.

    Attributes:
        run: the run.
        figures: plots by name.
        data: what the script needs to show any border at any step; None where nothing crossed one.
        cards: key numbers.
        areas: table of areas.
        borders: table of borders.
        rounds: table of rounds.
        reasons: who did not answer, and which messages were refused.
        labels: the borders to choose from.
        n_steps: steps to choose from.
        thinned: a sentence where not every round is shown.
        facts: how it was run.
    """

    run: AreasRun
    figures: Mapping[str, go.Figure]
    data: Mapping[str, Any] | None
    cards: Sequence[Card]
    areas: Table
    borders: Table
    rounds: Table
    reasons: Sequence[str] = ()
    labels: Sequence[str] = ()
    n_steps: int = 0
    thinned: str = ""
    facts: Sequence[tuple[str, str]] = ()

    @property
    def tone(self) -> str:
        """Colour of the status."""
        usable = ("inaccurate", "limit_reached", "degraded")
        return "good" if self.run.ok else "fair" if self.run.status.word in usable else "bad"


def write_areas_report(
    run: AreasRun,
    path: Path | str,
    *,
    case: Case | None = None,
    tolerance: float | None = None,
    import_report: ImportReport | None = None,
    title: str = "",
) -> Path:
    """Write a run over areas as one HTML file that needs nothing else; see `lateral.write_report`.

    Args:
        run: the run.
        path: the file; it is written whole or not at all.
        case: the whole feeder; absent: that of the joined result, where there is one.
        tolerance: residual at which the areas were to agree.
        import_report: what became of an OpenDSS model.
        title: heading; default: the name of the case.

    Returns:
        The path.
    """
    from lateral.report.write import render

    whole = run.result.case if case is None and run.result is not None else case
    part = areas_part(run, whole, tolerance)
    shown = run.result
    if shown is None and run.central is not None and not run.central.has_values:
        shown = run.central  # without a schedule of every area there is still what it says of the limits in the way
    text = render(shown, import_report=import_report, title=title or run.plan.name, areas=part, case=whole)
    return write_whole(Path(path), text.encode())


def areas_part(run: AreasRun, case: Case | None, tolerance: float | None) -> AreasPart:
    """The pages of a run."""
    colours = area_colours(run.plan.areas, {name: b.parent for name, b in run.plan.head.items()})
    figures: dict[str, go.Figure] = {}
    if case is not None:
        marks = {b.bus: b.name for b in run.plan.borders.values()}
        figures["areas_map"] = plot_areas(case, area_of_buses(run, case), marks)
    data, thinned = None, ""
    if run.rounds:
        again = [r.number for r in run.rounds if r.built_again]
        figures["areas_residuals"] = plot_residuals(
            [r.residuals for r in run.rounds], tolerance=tolerance, built_again=again
        )
        if run.gap_per_round is not None:
            figures["areas_gap"] = plot_gap(run.gap_per_round)
        times = [dict(r.seconds) for r in run.rounds]
        figures["areas_times"] = plot_times(times, [r.critical for r in run.rounds], colours=colours)
        if run.plan.borders:
            kept = _rounds_kept(run)
            if len(kept) < len(run.rounds):
                thinned = f"{len(kept)} of {len(run.rounds)} rounds are shown."
            data, figures["areas_borders"] = _border_data(run, kept, case)
    return AreasPart(
        run=run,
        figures=figures,
        data=data,
        cards=_cards(run),
        areas=_areas_table(run),
        borders=_borders_table(run),
        rounds=_rounds_table(run),
        reasons=_reasons(run),
        labels=[f"{b.name}: {b.parent} feeds {b.child}" for b in run.plan.borders.values()],
        n_steps=run.plan.n_steps,
        thinned=thinned,
        facts=_facts(run, tolerance),
    )


def area_of_buses(run: AreasRun, case: Case) -> dict[str, str]:
    """Area of each bus that the source reaches; of the two that know a border's bus, the lower one."""
    begins = {b.bus: b.child for b in run.plan.borders.values()}
    tree = tree_of(case)
    out: dict[str, str] = {}
    for bus in tree.order:
        up = tree.parent.get(bus)
        out[bus] = begins.get(bus, run.plan.areas[0] if up is None else out[up])
    return out


def _rounds_kept(run: AreasRun) -> IntArray:
    """Positions of the rounds whose borders the report holds: all, or an even choice of them."""
    size = sum(np.size(a) for values in run.rounds[-1].held.values() for a in values.values())
    room = max(2, BORDER_CELLS // max(size, 1))
    n = len(run.rounds)
    return np.unique(np.linspace(0, n - 1, min(n, room)).round().astype(np.int64))


def _border_data(run: AreasRun, kept: IntArray, case: Case | None) -> tuple[dict[str, Any], go.Figure]:
    """Every border at every step for the script, and the figure that it changes."""
    borders = list(run.plan.borders.values())
    every = sorted({c for b in borders for c in b.conductors})
    rounds: list[Round] = [run.rounds[k] for k in kept]
    keys = list(dict.fromkeys(k for b in borders for k in rounds[-1].held.get(b.name, {})))
    numbers = [r.number for r in rounds]
    entries = []
    for b in borders:
        tracks = border_tracks([r.held.get(b.name, {}) for r in rounds], b.conductors, every=every, keys=keys)
        values = np.stack([t.values for t in tracks]) if tracks else np.zeros((0, len(rounds), run.plan.n_steps))
        entries.append({"conductors": list(b.conductors), "values": packed(values, "f4")})
    first = borders[0]
    power = np.abs(np.asarray(rounds[-1].held[first.name].get("p", np.zeros(run.plan.shape(first.name))), dtype=float))
    step = int(power.sum(axis=0).argmax())
    held = [r.held[first.name] for r in rounds]
    figure = plot_borders(held, first.conductors, step=step, every=every, keys=keys, numbers=numbers)
    data = {
        "borders": entries,
        "rounds": len(rounds),
        "steps": run.plan.n_steps,
        "step": step,
        "stamps": _stamps(case, run.plan.n_steps),
    }
    return data, figure


def _stamps(case: Case | None, n_steps: int) -> list[str]:
    if case is None:
        return [f"step {k + 1}" for k in range(n_steps)]
    times = case.horizon.times
    one_day = times[0].date() == times[-1].date()
    return [t.strftime("%H:%M" if one_day else "%a %d %b %H:%M") for t in times]


def _cards(run: AreasRun) -> list[Card]:
    rounds = len(run.rounds)
    out = [
        Card(
            "areas", f"{len(run.plan.areas)}", f"{len(run.plan.borders)} borders, depth {max(run.plan.depth.values())}"
        ),
        Card("rounds", f"{rounds:,}", f"{run.algorithm}, executor {run.executor}"),
        Card("residual", small(run.residual), "largest difference at a border, scaled"),
    ]
    gap = run.gap_to_central
    if gap is not None:
        share = f"{100 * gap:.3g} % of the central objective" if abs(gap) >= 1e-6 else "of the central objective"
        out.append(Card("gap to central", small(gap), share))
    out.append(Card("messages", f"{run.messages:,}", f"{_size(run.bytes)}; {len(run.rejected):,} refused"))
    central = run.seconds.get("central")
    note = f"a central solve here {number(central, 2)} s" if central is not None else "sum over the rounds"
    out.append(Card("critical path", f"{number(run.seconds_parallel, 2)} s", note))
    if run.degraded:
        out.append(Card("gone at the end", f"{len(run.degraded)}", ", ".join(run.degraded), "bad"))
    return out


def _size(n: int) -> str:
    return f"{n:,} bytes" if n < 10_000 else f"{n / 1e3:,.0f} kB" if n < 1e7 else f"{n / 1e6:,.1f} MB"


def _areas_table(run: AreasRun) -> Table:
    total = {a: sum(r.seconds.get(a, 0.0) for r in run.rounds) for a in run.plan.areas}
    rows: list[Row] = []
    for a in run.plan.areas:
        head = run.plan.head.get(a)
        below = ", ".join(b.child for b in run.plan.tails[a])
        rows.append(
            (
                a,
                ABSENT if head is None else head.parent,
                below or ABSENT,
                f"{run.plan.n_nodes.get(a, 0):,}",
                f"{number(total[a], 2)} s",
                "gone at the end" if a in run.degraded else "",
            )
        )
    return Table(("area", "fed by", "feeds", "nodes", "time of its solves", ""), rows, (3, 4))


def _borders_table(run: AreasRun) -> Table:
    last = dict(run.rounds[-1].residuals) if run.rounds else {}
    rows: list[Row] = [
        (
            b.name,
            f"{b.parent} feeds {b.child}",
            ", ".join(b.branch),
            b.bus,
            ", ".join(map(str, b.conductors)),
            small(last.get(b.name)),
        )
        for b in run.plan.borders.values()
    ]
    return Table(("border", "areas", "branch that is cut", "bus", "conductors", "last residual"), rows, (5,))


def _rounds_table(run: AreasRun) -> Table:
    gaps: Sequence[float | None] = run.gap_per_round or [None] * len(run.rounds)
    rows: list[Row] = [
        (
            str(r.number),
            small(r.residual),
            number(r.cost, 4),
            number(r.objective, 4),
            small(gap),
            f"{r.critical:.3f}",
            f"{r.messages:,}",
            f"{r.bytes:,}",
            "; ".join(r.failures.values()),
        )
        for r, gap in zip(run.rounds, gaps, strict=True)
    ]
    head = ("round", "residual", "cost, $", "objective", "gap to central", "critical path, s", "messages", "bytes", "")
    return Table(head, rows, tuple(range(8)))


def _reasons(run: AreasRun) -> list[str]:
    found = [f"round {r.number}: {reason}" for r in run.rounds for reason in r.failures.values()]
    found += [f"refused: {reason}" for reason in run.rejected]
    more = len(found) - REASONS
    return found if more <= 0 else [*found[:REASONS], f"and {more:,} more"]


def _facts(run: AreasRun, tolerance: float | None) -> list[tuple[str, str]]:
    out = [("areas", f"{run.algorithm}, executor {run.executor}, {len(run.rounds):,} rounds")]
    if tolerance is not None:
        out.append(("tolerance of the residual", f"{tolerance:g}"))
    if run.optimum is not None:
        out.append(("central objective", f"{number(run.optimum.objective, 6)}, {run.optimum.status_text}"))
    elif run.central is not None:
        out.append(("central solve", run.central.status_text))
    out.append(("wall time of the run", ", ".join(f"{k} {number(v, 2)} s" for k, v in run.seconds.items())))
    return out


__all__ = ["AreasPart", "area_of_buses", "areas_part", "write_areas_report"]
