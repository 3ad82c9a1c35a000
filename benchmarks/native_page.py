"""The page on the structured solver, from the measurements of `benchmarks.native`: text, tables, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.native import error_of
from benchmarks.native_text import APART, HEAD, METHOD, READING
from benchmarks.svg import log_chart, share_chart

Row = dict[str, Any]
#: What must hold of the time against another solver: (what is compared, buses, steps, at least).
AGAINST_IPOPT = {(128, 24): 5.0, (1000, 24): 10.0, (2500, 24): 14.0, (10000, 24): 16.0}
AT_EQUAL_ACCURACY = {(128, 24): 5.0, (1000, 24): 20.0, (2500, 24): 25.0}
AGAINST_CLARABEL = {(1000, 24): 4.0, (2500, 24): 4.0}
MEMORY_MB = 4096.0
EXPONENT = 1.15


def write(data: dict[str, Any], docs: Path) -> Path:
    """Write ``solver_native.md`` and its pictures into a folder."""
    page = Page(data["rows"])
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name, text in page.pictures().items():
        (images / name).write_text(text, encoding="utf-8")
    target = docs / "solver_native.md"
    target.write_text(page.text(data["environment"]), encoding="utf-8")
    return target


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a sentence where there is nothing."""
    if not lines:
        return "*Not measured.*"
    out = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])


def seconds(row: Row | None, phase: str = "solve") -> str:
    """Wall seconds of a phase; what went wrong in its place; empty where it was not measured."""
    if row is None:
        return ""
    if "error" in row:
        return "no result"
    return short(row["wall"][phase])


def short(value: float) -> str:
    """Three digits."""
    return f"{value:.3f}" if value < 1.0 else f"{value:.3g}"


def wall(row: Row | None) -> float | None:
    """Seconds of the solve; None where there are none."""
    return None if row is None or "error" in row else float(row["wall"]["solve"])


def ratio(other: Row | None, own: Row | None) -> float | None:
    """How many times as long the other took."""
    a, b = wall(other), wall(own)
    return None if a is None or b is None else a / b


def times(value: float | None) -> str:
    """A ratio as text."""
    return "" if value is None else f"{value:.1f}"


class Page:
    """The rows, and what is read off them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.sizes = sorted({(r["buses"], r["steps"]) for r in rows if "buses" in r})

    def get(
        self, size: tuple[int, int], stack: str, formulation: str, what: str = "default", **more: Any
    ) -> Row | None:
        """One measurement of a size."""
        more = {"threads": None, **more}
        key = {"buses": size[0], "steps": size[1], "stack": stack, "formulation": formulation, "what": what, **more}
        return next((r for r in self.rows if all(r.get(k) == v for k, v in key.items())), None)

    def once(self, stack: str, what: str) -> Row | None:
        """One measurement without a size."""
        return next((r for r in self.rows if (r["stack"], r["what"]) == (stack, what)), None)

    def native(self, size: tuple[int, int], formulation: str = "nonlinear") -> Row | None:
        """The structured solver at its default."""
        return self.get(size, "native", formulation)

    def good(self) -> list[tuple[tuple[int, int], Row]]:
        """Sizes at which the structured solver was measured."""
        found = [(size, self.native(size)) for size in self.sizes]
        return [(size, row) for size, row in found if row is not None and "error" not in row]

    # -- text ---------------------------------------------------------------------------------------------------------

    def text(self, environment: dict[str, Any]) -> str:
        """The whole page."""
        versions = ", ".join(f"{k} {v}" for k, v in environment["versions"].items() if k != "lateral")
        parts = [
            HEAD,
            METHOD,
            f"## Measurements\n\nPython {environment['python']}, {versions}; one thread per process. Wall seconds.",
            READING,
            *self.preliminary(),
            "### What must hold\n\n" + self.bars(),
            APART,
            "### Time\n\n![Time of a cold solve](images/native-time.svg)\n\n" + self.exact(),
            "Convex forms of the same feeders: the cone relaxation, and the linear one (inverters with a box for a "
            "limit, no loss term).\n\n" + self.convex(),
            "### At equal accuracy\n\nEach at the loosest tolerance that keeps the objective within 1e-7 of the "
            "reference.\n\n" + self.equal(),
            "### Where the time goes\n\n![Shares of the phases](images/native-phases.svg)\n\n" + self.phases(),
            "One iteration (two linear solves with one factorisation, and everything else) against one product with "
            "the scaled Jacobian and one with its transpose.\n\n" + self.sweeps(),
            "### Growth\n\n" + self.growth(),
            "![Peak memory](images/native-memory.svg)\n\n" + self.memory(),
            "### Again, with other data\n\n" + self.warm(),
            "### Threads\n\n" + self.threads(),
            "### First call and a whole solve\n\n" + self.first(),
        ]
        return "\n\n".join(parts) + "\n"

    def preliminary(self) -> list[str]:
        """A warning where the sizes that the bars are about were not all measured."""
        wanted = {*AGAINST_IPOPT, *AT_EQUAL_ACCURACY, (10000, 96), (2500, 96)}
        missing = sorted(wanted - {size for size, _ in self.good()})
        if not missing:
            return []
        return [f"**Preliminary**, on a busy machine: not yet measured are {', '.join(map(_size, missing))}."]

    def exact(self) -> str:
        """The exact model by everybody, at defaults."""
        head = (
            "buses x steps",
            "variables",
            "native",
            "iterations (CG)",
            "error",
            "Ipopt",
            "iterations",
            "error",
            "ratio",
        )
        head = (*head, "CasADi + Ipopt", "iterations")
        lines = []
        for size, own in self.good():
            reference = self.get(size, "native", "nonlinear", "reference")
            ipopt, casadi = self.get(size, "ipopt", "nonlinear"), self.get(size, "casadi", "nonlinear")
            lines.append(
                [
                    _size(size),
                    f"{own['variables']:,}",
                    seconds(own),
                    f"{own['iterations']} ({own['inner']:,})",
                    _error(own, reference),
                    seconds(ipopt),
                    _iterations(ipopt),
                    _error(ipopt, reference),
                    times(ratio(ipopt, own)),
                    seconds(casadi),
                    _iterations(casadi),
                ]
            )
        return table(head, lines)

    def convex(self) -> str:
        """Cones and linear programs, at defaults."""
        head = ("buses x steps", "soc: native", "Clarabel", "ratio", "error", "cvxpy + Clarabel")
        head = (*head, "linear: native", "HiGHS", "ratio", "error")
        lines = []
        for size in self.sizes:
            soc, lp = self.native(size, "soc"), self.native(size, "lindistflow")
            clarabel, cvxpy = self.get(size, "clarabel", "soc"), self.get(size, "cvxpy", "soc")
            highs = self.get(size, "highs", "lindistflow")
            lines.append(
                [
                    _size(size),
                    seconds(soc),
                    seconds(clarabel),
                    times(ratio(clarabel, soc)),
                    _error(clarabel, self.get(size, "native", "soc", "reference")),
                    seconds(cvxpy),
                    seconds(lp),
                    seconds(highs),
                    times(ratio(highs, lp)),
                    _error(highs, self.get(size, "native", "lindistflow", "reference")),
                ]
            )
        return table(head, lines)

    def equal(self) -> str:
        """Both at the loosest tolerance that is accurate."""
        head = ("buses x steps", "native", "tolerance", "error", "Ipopt", "tolerance", "error", "ratio")
        lines = []
        for size in self.sizes:
            reference = self.get(size, "native", "nonlinear", "reference")
            own, other = (self.get(size, stack, "nonlinear", "accurate") for stack in ("native", "ipopt"))
            if own is not None or other is not None:
                cells = [[seconds(r), _tolerance(r), _error(r, reference)] for r in (own, other)]
                lines.append([_size(size), *cells[0], *cells[1], times(ratio(other, own))])
        return table(head, lines)

    def phases(self) -> str:
        """Own time of the phases."""
        good = self.good()
        names = list(good[0][1]["phases"]) if good else []
        lines = [[_size(size), *(short(row["phases"][n]) for n in names), seconds(row)] for size, row in good]
        return table(("buses x steps", *names, "all"), lines)

    def sweeps(self) -> str:
        """Cost of an iteration in sweeps with the Jacobian."""
        head = ("buses x steps", "nonzeros", "sweep, ms", "iteration, ms", "sweeps per iteration")
        lines = []
        for size, row in self.good():
            if "sweep" in row:
                sweep, each = row["sweep"]["seconds"], per_iteration(row)
                lines.append(
                    [
                        _size(size),
                        f"{row['sweep']['nonzeros']:,}",
                        f"{1e3 * sweep:.3g}",
                        f"{1e3 * each:.3g}",
                        f"{each / sweep:.0f}",
                    ]
                )
        return table(head, lines)

    def growth(self) -> str:
        """Exponents of N and T by least squares."""
        good = self.good()
        head = ("what", "in N", "in T", "in N T", "sizes")
        lines = []
        for name, value in (("cold solve", wall), ("one iteration", per_iteration), ("memory it takes", _grown)):
            points = [(size, value(row)) for size, row in good]
            found = exponents([(size, float(v)) for size, v in points if v])
            if found is not None:
                lines.append([name, *("" if np.isnan(p) else f"{p:.2f}" for p in found), str(len(points))])
        if not lines:
            return "*Too few sizes for an exponent.*"
        return "Exponents p of time ~ N^p, T^p and (N T)^p, by least squares over the sizes measured.\n\n" + table(
            head, lines
        )

    def memory(self) -> str:
        """Peak memory of the processes."""
        head = (
            "buses x steps",
            "native, MB",
            "of which for the solve",
            "Ipopt",
            "Clarabel",
            "HiGHS",
            "cvxpy",
            "CasADi",
        )
        lines = []
        for size, row in self.good():
            others = (
                self.get(size, "ipopt", "nonlinear"),
                self.get(size, "clarabel", "soc"),
                self.get(size, "highs", "lindistflow"),
                self.get(size, "cvxpy", "soc"),
                self.get(size, "casadi", "nonlinear"),
            )
            cells = ["" if r is None or "error" in r else f"{r['peak_mb']:.0f}" for r in others]
            lines.append([_size(size), f"{row['peak_mb']:.0f}", f"{row['grown_mb']:.0f}", *cells])
        return table(head, lines)

    def warm(self) -> str:
        """Re-solves."""
        head = ("buses x steps", "what changes", "cold", "iterations", "warm", "iterations", "share", "apart")
        lines = []
        for size, row in self.good():
            for name, what in (("load", "all loads, 2 %"), ("shift", "the horizon, one step")):
                if name in row.get("again", {}):
                    pair = row["again"][name]
                    a, b = (row["wall"][f"{name} {k}"] for k in ("cold", "warm"))
                    off = error_of(pair["warm"], pair["cold"]) or 0.0
                    lines.append(
                        [
                            _size(size),
                            what,
                            short(a),
                            str(pair["cold"]["iterations"]),
                            short(b),
                            f"{pair['warm']['iterations']}{_ended(pair['warm'])}",
                            f"{b / a:.2f}",
                            f"{off:+.0e}",
                        ]
                    )
        return table(head, lines)

    def threads(self) -> str:
        """One against two threads."""
        head = ("buses x steps", "one thread", "two threads", "ratio")
        lines = []
        for size, row in self.good():
            two = self.get(size, "native", "nonlinear", threads=2)
            if two is not None:
                lines.append([_size(size), seconds(row), seconds(two), times(ratio(row, two))])
        return table(head, lines)

    def first(self) -> str:
        """The first call, and `ieee123-t24` from reading to summary."""
        rows = (
            ("first solve of an installation, compiling", self.once("first call", "empty cache")),
            ("first solve of a process, compiled before", self.once("first call", "cached")),
            ("`ieee123-t24` read, built, solved, summed up, in a warm process", self.once("end to end", "whole")),
        )
        return table(("what", "seconds"), [[what, seconds(row)] for what, row in rows if row is not None])

    # -- bars ---------------------------------------------------------------------------------------------------------

    def bars(self) -> str:
        """What is asked for, and what was measured."""
        lines: list[list[str]] = []

        def add(
            what: str, bar: str, value: float | None, *, least: float | None = None, most: float | None = None
        ) -> None:
            if value is None:
                lines.append([what, bar, "not measured", ""])
                return
            met = (least is None or value >= least) and (most is None or value <= most)
            lines.append([what, bar, f"{value:.3g}", "met" if met else "**not met**"])

        for what, bars, pair in (
            ("Ipopt at its default / native", AGAINST_IPOPT, ("default", "ipopt", "nonlinear")),
            ("Ipopt / native at equal accuracy", AT_EQUAL_ACCURACY, ("accurate", "ipopt", "nonlinear")),
            ("Clarabel / native, soc", AGAINST_CLARABEL, ("default", "clarabel", "soc")),
        ):
            kind, stack, formulation = pair
            for size, bar in bars.items():
                value = ratio(self.get(size, stack, formulation, kind), self.get(size, "native", formulation, kind))
                add(f"{what}, {_size(size)}", f">= {bar:g}", value, least=bar)
        growth = [(s, r) for s, r in self.good() if s[0] >= 1000 and s[1] >= 24]
        found = exponents([(s, float(r["wall"]["solve"])) for s, r in growth])
        add("growth of time in N T, from 1,000 x 24", f"<= {EXPONENT}", found and found[2], most=EXPONENT)
        largest = self.native((10000, 96))
        memory = None if largest is None or "error" in largest else largest["peak_mb"]
        add("memory at 10,000 x 96, MB", f"<= {MEMORY_MB:.0f}", memory, most=MEMORY_MB)
        add("two threads, 2,500 x 96", ">= 1.5", self._two((2500, 96)), least=1.5)
        for name, bar in (("load", 0.4), ("shift", 0.5)):
            what = {"load": "warm / cold after 2 % of load, 1,000 x 24", "shift": "the same, horizon shifted"}[name]
            add(what, f"<= {bar}", self._warm((1000, 24), name), most=bar)
        add("`ieee123-t24` end to end, s", "<= 0.3", wall(self.once("end to end", "whole")), most=0.3)
        add("first call with an empty cache, s", "<= 15", wall(self.once("first call", "empty cache")), most=15.0)
        return table(("what", "bar", "measured", ""), lines)

    def _two(self, size: tuple[int, int]) -> float | None:
        return ratio(self.native(size), self.get(size, "native", "nonlinear", threads=2))

    def _warm(self, size: tuple[int, int], name: str) -> float | None:
        row = self.native(size)
        if row is None or name not in row.get("again", {}):
            return None
        return float(row["wall"][f"{name} warm"] / row["wall"][f"{name} cold"])

    # -- pictures -----------------------------------------------------------------------------------------------------

    def pictures(self) -> dict[str, str]:
        """SVG by file name."""
        runs = (
            ("native", "native", "nonlinear", "default"),
            ("Ipopt, default", "ipopt", "nonlinear", "default"),
            ("Ipopt, equal accuracy", "ipopt", "nonlinear", "accurate"),
            ("Clarabel (soc)", "clarabel", "soc", "default"),
            ("HiGHS (linear)", "highs", "lindistflow", "default"),
            ("cvxpy (soc)", "cvxpy", "soc", "default"),
        )

        def line(stack: str, formulation: str, what: str, field: str) -> list[tuple[float, float]]:
            out = []
            for size in self.sizes:
                row = self.get(size, stack, formulation, what)
                if row is not None and "error" not in row:
                    out.append(
                        (float(size[0] * size[1]), row["peak_mb"] if field == "peak_mb" else row["wall"]["solve"])
                    )
            return out

        clock = {name: line(*run, "wall") for name, *run in runs}
        # the same lines in the same colours
        memory = {name: line(*run, "peak_mb") if run[2] == "default" else [] for name, *run in runs}
        shares = {_size(size): row["phases"] for size, row in self.good()}
        over = "buses times steps"
        return {
            "native-time.svg": log_chart(clock, title="Time of a cold solve", x_title=over, y_title="seconds"),
            "native-memory.svg": log_chart(memory, title="Peak memory of the process", x_title=over, y_title="MB"),
            "native-phases.svg": share_chart(shares, title="Shares of the phases of a cold solve, exact model"),
        }


def per_iteration(row: Row) -> float:
    """Seconds of one iteration: without order, symbolic part and start."""
    once = sum(row["phases"][name] for name in ("order, symbolic", "data", "start"))
    return float((row["wall"]["solve"] - once) / max(row["iterations"], 1))


def exponents(points: Sequence[tuple[tuple[int, int], float]]) -> tuple[float, float, float] | None:
    """Exponents in N, in T and in N T of values over sizes; None where they cannot be told."""
    sizes = np.log(np.array([size for size, _ in points], dtype=float).reshape(-1, 2))
    value = np.log(np.array([v for _, v in points]))
    if len(np.unique(sizes.sum(axis=1))) < 2:
        return None
    both = float(np.polyfit(sizes.sum(axis=1), value, 1)[0])
    matrix = np.column_stack([sizes, np.ones(len(points))])
    if np.linalg.matrix_rank(matrix) < 3:
        return (float("nan"), float("nan"), both)
    p_n, p_t, _ = np.linalg.lstsq(matrix, value, rcond=None)[0]
    return float(p_n), float(p_t), both


def _grown(row: Row) -> float:
    return float(row["grown_mb"])


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]:,} x {size[1]}"


def _iterations(row: Row | None) -> str:
    return "" if row is None or "error" in row else f"{row['iterations']}{_ended(row)}"


def _ended(row: Row) -> str:
    """How a run ended, where it is not as it should."""
    return "" if row["status"] in ("optimal", "Solve_Succeeded") else f" ({row['status'].replace('_', ' ')})"


def _error(row: Row | None, reference: Row | None) -> str:
    off = None if row is None else error_of(row, reference)
    return "" if off is None else f"{off:+.0e}"


def _tolerance(row: Row | None) -> str:
    return "" if row is None or "error" in row else f"{row['tolerance']:.0e}"
