"""What the report says in words and tables, as plain data for the template."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lateral.network.schema import FloatArray
from lateral.plots.data import View, Voltages
from lateral.replay import Replay
from lateral.results.in_replay import REPLAY_QUANTITIES
from lateral.results.result import Result
from lateral.solvers.base import Status
from lateral.solvers.elastic import Conflict

if TYPE_CHECKING:
    import pandas as pd

    from lateral.io.opendss.report import ImportReport

#: Tables of violations, loadings and conflicts show at most so many rows, worst first.
TABLE_ROWS = 20
CONFLICT_ROWS = 200
_GOOD = (Status.OPTIMAL,)
_USABLE = (Status.INACCURATE, Status.LIMIT_REACHED, Status.DEGRADED)
ABSENT = "–"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table: headings, rows of text, which columns hold numbers, and a sentence about what was left out."""

    head: tuple[str, ...]
    rows: list[Row]
    numbers: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Card:
    """One key number: what, how much, compared with what; ``tone`` is good, bad or nothing."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class ImportPart:
    """The import report: counts by class, everything that is not mapped as it is, and the rest as text."""

    operating_point: str
    verified: str
    counts: Table
    deviations: Table
    mapped: str
    n_mapped: int
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated; a dash when there is none."""
    if value is None or not np.isfinite(value):
        return ABSENT
    text = f"{value:,.{digits}f}"
    return text[1:] if text.lstrip("-").strip("0.,") == "" and text.startswith("-") else text


def small(value: float | None) -> str:
    """A residual or a difference: three digits, with an exponent when it is tiny."""
    if value is None or not np.isfinite(value):
        return ABSENT
    if value == 0.0:
        return "0"
    if abs(value) >= 1e-3:
        return f"{value:.3g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits}×10{str(int(power)).translate(_RAISED)}"


def tone_of(result: Result) -> str:
    """Colour of the status: a schedule with a warning is not a good one."""
    if result.status in _GOOD:
        return "fair" if result.warnings else "good"
    return "fair" if result.status in _USABLE else "bad"


def spoken(word: str) -> str:
    """A status word as it is shown."""
    return word.replace("_", " ")


def after_word(word: str, text: str) -> str:
    """A status sentence without the word that it begins with, which is shown before it."""
    known = spoken(word)
    return text.replace(f"{known}: ", "", 1).replace(f"{known} (", "(", 1)


def standing(result: Result) -> str:
    """What the values below the status are, where they are no result; empty where they are one."""
    if result.stopped:
        return "It was stopped before a solution: the values below are where it was then, and no result."
    if result.has_schedule:
        return ""
    why = ""
    if result.has_values:
        off = max(result.residuals.max_primal, result.residuals.max_bound)
        why = f": where it ended, equations or bounds are off by {small(off)} pu"
    return f"There is no schedule{why}. Voltages below are those of the day without control."


def replay_of(result: Result) -> Replay | None:
    """The replay in OpenDSS, when there is one."""
    return result.replay if isinstance(result.replay, Replay) else None


@dataclass(frozen=True)
class Column:
    """One way to run the day, for the comparison table."""

    label: str
    cost: float
    energy_kwh: float
    losses_kwh: float
    power_kw: FloatArray
    volts: Voltages | None


def columns(view: View, baseline: Voltages | None) -> list[Column]:
    """Without control, the schedule as the model sees it, the schedule in OpenDSS: what there is of them."""
    result = view.result
    hours = result.case.horizon.hours
    out = []
    if baseline is not None:
        flow = result.baseline
        power = np.asarray(flow.source_kva.real)
        out.append(
            Column(
                "without control",
                result.baseline_cost,
                float(power @ hours),
                float(flow.losses_kw @ hours),
                power,
                baseline,
            )
        )
    which = "where it stopped" if result.stopped else "schedule"
    if result.has_schedule:
        out.append(column(f"{which}, by the model", view))
    run = replay_of(result)
    if run is not None and result.has_schedule:
        out.append(
            Column(
                f"{which}, in OpenDSS",
                run.cost_usd,
                float(run.p_source_kw @ hours),
                run.losses_kwh,
                run.p_source_kw,
                view.of_replay(run),
            )
        )
    return out


def column(label: str, view: View) -> Column:
    """A schedule as its model sees it."""
    r = view.result
    net = float(r.p_source_kw @ r.case.horizon.hours)
    return Column(label, r.cost, net, r.losses_kwh, r.p_source_kw, view.optimum)


def comparison(found: list[Column], n_steps: int) -> Table:
    """The day without control, the schedule, and its replay, side by side."""

    def of(function: Any) -> tuple[str, ...]:
        return tuple(function(c) for c in found)

    def lowest(c: Column) -> str:
        return ABSENT if c.volts is None else number(_extreme(c.volts, np.nanmin), 4)

    def highest(c: Column) -> str:
        return ABSENT if c.volts is None else number(_extreme(c.volts, np.nanmax), 4)

    def outside(c: Column) -> str:
        return ABSENT if c.volts is None else f"{int(c.volts.outside.sum()):,}"

    rows: list[Row] = [
        ("energy cost, $", *of(lambda c: number(c.cost, 2))),
        ("net energy from the grid, kWh", *of(lambda c: number(c.energy_kwh))),
        ("losses, kWh", *of(lambda c: number(c.losses_kwh))),
        ("highest power from the grid, kW", *of(lambda c: number(float(np.max(c.power_kw))))),
        ("lowest power from the grid, kW", *of(lambda c: number(float(np.min(c.power_kw))))),
        ("lowest voltage, pu", *of(lowest)),
        ("highest voltage, pu", *of(highest)),
        (f"voltages outside limits (of nodes × {n_steps} steps)", *of(outside)),
    ]
    return Table(("", *(c.label for c in found)), rows, tuple(range(1, len(found) + 1)))


def _extreme(volts: Voltages, which: Any) -> float:
    finite = np.isfinite(volts.v_pu)
    return float(which(volts.v_pu[finite])) if finite.any() else float("nan")


def cards(result: Result, found: list[Column]) -> list[Card]:
    """The key numbers of the summary; none of a schedule that is no result."""
    by = {c.label: c for c in found}
    base, own = by.get("without control"), by.get("schedule, by the model")
    run = by.get("schedule, in OpenDSS")
    if own is None:
        return []
    out = [Card("energy cost", f"${number(own.cost, 2)}", _against(own.cost, base.cost if base else None, "$", 2))]
    out.append(
        Card(
            "net energy from the grid",
            _amount(own.energy_kwh, "kWh"),
            _against(own.energy_kwh, base.energy_kwh if base else None, "kWh"),
        )
    )
    out.append(
        Card(
            "losses", _amount(own.losses_kwh, "kWh"), _against(own.losses_kwh, base.losses_kwh if base else None, "kWh")
        )
    )
    peak, before = float(np.max(own.power_kw)), float(np.max(base.power_kw)) if base else None
    out.append(Card("highest power from the grid", _amount(peak, "kW"), _against(peak, before, "kW")))
    shown = run if run is not None and run.volts is not None else own
    if shown.volts is not None:
        n = int(shown.volts.outside.sum())
        text = "in OpenDSS" if shown is run else "by the model"
        if n:
            text += f", {small(-float(np.nanmin(shown.volts.margin_pu)))} pu at most"
        if base is not None and base.volts is not None:
            text += f"; {int(base.volts.outside.sum()):,} without control"
        out.append(Card("voltages outside limits", f"{n:,}", text, "bad" if n else "good"))
    errors = replay_of(result)
    if errors is not None and errors.errors is not None:
        out.append(
            Card(
                "model against OpenDSS",
                f"{small(errors.errors.max_dv_pu)} pu",
                f"largest voltage difference; mean {small(errors.errors.mean_dv_pu)} pu",
            )
        )
    return out


def _amount(value: float, unit: str) -> str:
    """A size with its unit; a large one without decimals."""
    return f"{number(value, 0 if abs(value) >= 1e4 else 1)} {unit}"


def _against(value: float, before: float | None, unit: str, digits: int = 1) -> str:
    if before is None or not np.isfinite(before):
        return ""
    change = value - before
    share = f" ({100 * change / abs(before):+.1f}\u00a0%)".replace("-", "\u2212") if abs(before) > 1e-9 else ""
    amount = f"${number(before, digits)}" if unit == "$" else _amount(before, unit)
    return f"{amount} without control{share}"


def facts(result: Result) -> list[tuple[str, str]]:
    """How it was solved."""
    s = result.summary()
    r = s["residuals"]
    feeder = result.case.feeder
    horizon = result.case.horizon
    first, last = horizon.times[0], horizon.times[-1]
    span = f"{horizon.n_steps} step{'s' * (horizon.n_steps > 1)} from {first:%Y-%m-%d %H:%M}"
    span += f" to {last:%Y-%m-%d %H:%M} ({horizon.zone})"
    steps = sorted(set(np.round(60 * horizon.step_h, 6).tolist()))
    span += f", {' and '.join(f'{m:g}' for m in steps[:3])} min each"
    devices: dict[str, int] = {}
    for d in result.case.devices:
        devices[d.kind] = devices.get(d.kind, 0) + 1
    listed = ", ".join(f"{n:,} × {kind}" for kind, n in devices.items())
    out = [
        ("feeder", f"{len(feeder.buses):,} buses, {s['n_nodes']:,} nodes (bus and conductor); {listed}"),
        ("horizon", span),
        ("formulation", f"{s['formulation']}, objective {s['objective_name']}"),
        ("problem class", f"{result.program.problem_class.value} with {s['n_variables']:,} variables"),
        ("solver", f"{s['solver']}, {s['iterations']:,} iterations"),
        ("largest violation of an equation", f"{small(r['max_primal'])} pu"),
        ("largest violation of a bound", f"{small(r['max_bound'])} pu"),
        ("duality gap", f"{small(r['duality_gap'])} of the objective"),
    ]
    if result.has_schedule and result.relaxation_gap is not None:
        share = r["relaxation_gap_share"] or 0.0
        out.append(
            (
                "largest relaxation gap",
                f"{small(r['max_relaxation_gap'])} pu; losses {small(abs(100 * share))} % too "
                f"{'large' if share >= 0.0 else 'small'}",
            )
        )
    if r["max_simultaneous_kw"] is not None:
        out.append(("charge and discharge at once", f"{small(r['max_simultaneous_kw'])} kW at most"))
    if result.case.warnings:
        out.append(("not as in the OpenDSS files", "; ".join(result.case.warnings)))
    if result.choices:
        out.append(("choices", "; ".join(result.choices)))
    out.append(("wall time", ", ".join(f"{k} {number(v, 2)} s" for k, v in s["seconds"].items())))
    return out


def replay_facts(run: Replay) -> list[tuple[str, str]]:
    """What the replay says."""
    n = len(run.converged)
    out = [("engine", run.engine), ("steps that converged", f"{int(run.converged.sum())} of {n}")]
    beyond, known = run.violations(), "" if run.all_converged else " at the steps that converged"
    said = f"none{known}"
    if len(beyond):
        w = beyond.iloc[0]
        at = f"bus {w.bus}, conductor {w.conductor}, {w.time:%Y-%m-%d %H:%M}"
        said = f"{len(beyond):,}{known}, worst {w.v_pu:.5f} pu, {small(w.excess_pu)} pu beyond {w.limit_pu:g}, at {at}"
    out.append(("voltages to ground beyond their limits", said))
    other = run.other_violations()
    for quantity, (_, many) in REPLAY_QUANTITIES.items():
        own = other[other["quantity"] == quantity]
        if len(own):
            w = own.iloc[0]
            worst = f"{w.value:.6g} {w.unit}".rstrip() + f", {small(w.excess)} beyond {w.limit:g}"
            at = f"at {w.element}, {w.time:%Y-%m-%d %H:%M}"
            out.append((f"{many} beyond their limits", f"{len(own):,}{known}, worst {worst}, {at}"))
    if other.empty:
        out.append(("other limits exceeded", f"none{known}"))
    e = run.errors
    if e is not None:
        where = f" at bus {e.worst_node[0]}, conductor {e.worst_node[1]}" if e.worst_node else ""
        when = f", {e.worst_time:%Y-%m-%d %H:%M}" if e.worst_time is not None else ""
        power = f"{small(e.dp_source_kw)} kW, {small(e.dq_source_kvar)} kvar"
        out += [
            ("largest voltage difference", f"{small(e.max_dv_pu)} pu{where}{when}"),
            ("mean voltage difference", f"{small(e.mean_dv_pu)} pu over {e.n_nodes:,} nodes and {e.n_steps} steps"),
            ("largest difference of the power from the grid", power),
            ("largest difference of the losses", f"{small(e.dloss_kw)} kW"),
        ]
    out.append(("wall time", f"{number(run.seconds, 2)} s"))
    return out


def violations(frame: pd.DataFrame, which: str) -> Table:
    """The worst voltage violations of the baseline or the optimum."""
    own = frame[frame["which"] == which]
    rows: list[Row] = []
    for r in _records(own):
        volts = (f"{r['v_pu']:.5f}", f"{r['limit_pu']:g}", f"{r['beyond_pu']:.5f}")
        rows.append((str(r["bus"]), str(r["conductor"]), f"{r['time']:%Y-%m-%d %H:%M}", *volts))
    note = f"The worst {TABLE_ROWS} of {len(own):,}." if len(own) > TABLE_ROWS else ""
    head = ("bus", "conductor", "time", "voltage, pu", "limit, pu", "beyond, pu")
    return Table(head, rows, (1, 3, 4, 5), note)


def loading_table(frame: pd.DataFrame) -> Table:
    """The largest loadings."""
    rows: list[Row] = []
    for r in _records(frame):
        sizes = (f"{r['value']:,.1f} {r['unit']}", f"{r['limit']:,.1f} {r['unit']}", f"{100 * r['share']:.1f} %")
        rows.append((str(r["element"]), f"{r['time']:%Y-%m-%d %H:%M}", *sizes))
    note = f"The largest {TABLE_ROWS} of {len(frame):,} with a rating." if len(frame) > TABLE_ROWS else ""
    return Table(("element and conductor", "time", "largest", "rating", "share"), rows, (2, 3, 4), note)


def _records(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return frame.head(TABLE_ROWS).to_dict("records")


def conflicts(result: Result) -> Table:
    """The limits that stand in the way of a feasible schedule: one row per element and quantity, worst first."""
    groups: dict[tuple[str, str], list[Conflict]] = {}
    for c in result.conflicts:
        groups.setdefault((c.block, c.element), []).append(c)
    rows: list[Row] = []
    for members in list(groups.values())[:CONFLICT_ROWS]:
        c = max(members, key=lambda one: one.weight)
        time = result.time_of(c)
        when = "at the end" if time is None else f"{time:%Y-%m-%d %H:%M}"
        component, _, quantity = c.block.partition(".")
        quantity = quantity.removesuffix("_sq")
        sizes = (f"{c.value:.5g} {c.unit}", f"{c.limit:.5g} {c.unit}", f"{c.amount:.3g} {c.unit}")
        name = {"vmag": "voltage"}.get(quantity, quantity.replace("_", " "))
        rows.append((f"{component} {c.element}", name, when, *sizes, f"{len(members):,}"))
    note = f"The first {CONFLICT_ROWS} of {len(groups):,}." if len(groups) > CONFLICT_ROWS else ""
    head = ("element", "quantity", "worst step", "would have to be", "limit", "beyond", "steps")
    return Table(head, rows, (3, 4, 5, 6), note)


def import_part(report: ImportReport) -> ImportPart:
    """The import report as tables."""
    from lateral.io.opendss.report import OUTCOMES

    counts: list[Row] = [
        (cls, *(f"{row[o]:,}" if row[o] else "" for o in OUTCOMES)) for cls, row in report.counts.items()
    ]
    counts.append(("all", *(f"{report.summary[o]:,}" for o in OUTCOMES)))
    other = [e for e in report.entries if e.outcome != "mapped"]
    other.sort(key=lambda e: (OUTCOMES.index(e.outcome), e.code))
    deviations: list[Row] = [
        (e.element, e.outcome, e.code, e.reason, f"{e.file}:{e.line}" if e.file else "") for e in other
    ]
    mapped = [e for e in report.entries if e.outcome == "mapped"]
    lines = []
    for e in mapped:
        became = ", ".join(e.became)
        lines.append(f"{e.element}" + (f"  →  {became}" if became else "") + (f"   {e.reason}" if e.reason else ""))
    return ImportPart(
        operating_point=report.operating_point,
        verified=f"{small(report.max_dv_pu)} pu" if report.max_dv_pu is not None else "",
        counts=Table(("class", *OUTCOMES), counts, (1, 2, 3)),
        deviations=Table(("object", "outcome", "code", "reason", "where"), deviations),
        mapped="\n".join(lines),
        n_mapped=len(mapped),
        notes=[f"[{n.code}] {n.text}" + (f" ({n.where})" if n.where else "") for n in report.notes],
        skipped=[f"{n.text}" + (f" ({n.where})" if n.where else "") for n in report.skipped],
    )


__all__ = [
    "Card",
    "Column",
    "ImportPart",
    "Table",
    "after_word",
    "cards",
    "column",
    "columns",
    "comparison",
    "conflicts",
    "facts",
    "import_part",
    "loading_table",
    "number",
    "replay_facts",
    "replay_of",
    "small",
    "spoken",
    "standing",
    "tone_of",
    "violations",
]
