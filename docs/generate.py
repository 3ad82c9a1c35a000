"""Write the generated parts of the documentation: between ``<!-- generated: KEY -->`` and ``<!-- /generated -->``.

Usage: ``python docs/generate.py`` rewrites the pages, ``python docs/generate.py --check`` says which are out of date.
Schema tables come from the dataclasses, equations from the docstrings that stand beside the code, command-line tables
from the commands themselves, so none of them can say something else than the code.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lateral import checks, devices, formulations, objectives, solvers
from lateral.io import builtin
from lateral.network import feeder
from lateral.network.schema import FieldSpec, fields_of

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- generated: (?P<key>[^\n]+?) -->\n).*?(<!-- /generated -->)", re.DOTALL)

ELEMENTS: dict[str, type] = {
    **{cls.kind: cls for cls in devices.BUILT_IN},
    **{
        cls.__name__.lower(): cls
        for cls in (feeder.Bus, feeder.Line, feeder.Switch, feeder.Shunt, feeder.Transformer, feeder.Winding)
    },
    "admittance": feeder.MultiTerminal,
    "terminal": feeder.Terminal,
}

WORDS = {
    "str": "text",
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "Series": "number or profile",
    "Terminals": "conductors",
    "FloatArray": "matrix",
    "tuple[float, ...]": "numbers",
    "tuple[float, float, float]": "three numbers",
}


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def prose(doc: str | None) -> str:
    """A docstring as Markdown: literal blocks are indented already, names are in single backticks."""
    text = inspect.cleandoc(doc or "")
    text = re.split(r"\n(?:Args|Attributes|Returns|Raises):\n", text)[0]
    text = re.sub(r"^::\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return text.replace("``", "`").strip()


def _type(field: FieldSpec) -> str:
    if field.profile:
        return "profile"
    base = field.type.replace(" | None", "").strip()
    word = WORDS.get(base, base)
    return word if not field.choices else " or ".join(f"`{c}`" for c in field.choices)


def _default(field: FieldSpec) -> str:
    if field.required:
        return "required"
    value = field.default
    if value is None or value == "":
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{value}`" if not field.matrix else "zero"


def _allowed(field: FieldSpec) -> str:
    parts = []
    if field.above is not None:
        parts.append(f"> {field.above:g}")
    if field.minimum is not None:
        parts.append(f">= {field.minimum:g}")
    if field.maximum is not None:
        parts.append(f"<= {field.maximum:g}")
    return ", ".join(parts)


def schema(kind: str) -> str:
    """The schema of an element as a table."""
    rows = [(f"`{f.name}`", _type(f), f.unit, _default(f), _allowed(f), f.doc) for f in fields_of(ELEMENTS[kind])]
    return table(("field", "takes", "unit", "default", "allowed", "what it is"), rows)


def equations(kind: str) -> str:
    """What a device declares, from the docstring of its equations."""
    cls = ELEMENTS[kind]
    declare = cls.__dict__.get("declare")
    return prose(declare.__func__.__doc__) if declare is not None else "It adds no equations of its own."


def formulation(name: str) -> str:
    """What the module of a formulation says."""
    found = formulations.get(name)
    return prose(sys.modules[type(found).__module__].__doc__)


def formulation_table(_: str) -> str:
    """All formulations, for the README."""
    rows = [
        (f"[`{f.name}`](docs/formulations/{f.name}.md)", f.title, "one conductor per bus" if f.balanced_only else "any")
        for f in formulations.BUILT_IN.values()
    ]
    return table(("name", "what it is", "conductors"), rows)


def objective_sections(_: str) -> str:
    """All objectives with their equations."""
    parts = [table(("name", "what it is", "unit"), [(f"`{o.name}`", o.title, o.unit) for o in _objectives()])]
    for o in _objectives():
        parts.append(f"## {o.name}\n\n{prose(type(o).__doc__)}\n\n{prose(type(o).declare.__doc__)}")
    return "\n\n".join(parts)


def _objectives() -> list[objectives.Objective]:
    return list(objectives.BUILT_IN.values())


def cli(_: str) -> str:
    """Every command with its arguments and options."""
    import typer.main

    from lateral.cli.app import app

    return "\n\n".join(_commands("lateral", typer.main.get_command(app)))


def _commands(path: str, group: Any) -> Iterator[str]:
    """Every command of a group, and of the groups in it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{path} {name}", command)
            continue
        rows = [_parameter(p) for p in command.params if p.name != "help"]
        yield f"### {path} {name}\n\n{inspect.cleandoc(command.help or '')}\n\n" + table(("", "what"), rows)


def _parameter(p: Any) -> tuple[str, str]:
    names = " / ".join([*p.opts, *p.secondary_opts])
    if p.param_type_name == "argument":
        return f"`{p.metavar or p.name.upper()}`", p.help or ""
    value = "" if getattr(p, "is_flag", False) else f" {p.metavar or 'VALUE'}"
    return f"`{names}{value}`", p.help or ""


def faults(_: str) -> str:
    """Codes of `lateral.check`."""
    rows = [(f"`{code}`", sentence) for code, sentence in checks.CODES.items()]
    return table(("code", "what is wrong"), rows)


def build_faults(_: str) -> str:
    """Codes of building a network or a formulation."""
    rows = [(f"`{code}`", sentence) for code, sentence in checks.BUILD_CODES.items()]
    return table(("code", "what is wrong"), rows)


def import_codes(_: str) -> str:
    """Codes of the import report."""
    from lateral.io.opendss.report import CODES

    return table(("code", "what became of it"), [(f"`{code}`", text) for code, text in CODES.items()])


def cases(_: str) -> str:
    """Built-in cases."""
    rows = [(f"`{d.name}`", f"{d.n_buses:,}", str(d.n_steps), d.text) for d in builtin.describe()]
    return table(("case", "buses", "steps", "what it is"), rows)


def solver_table(_: str) -> str:
    """Solvers and the classes of problem that they take."""
    rows = []
    for name, entry in solvers.SOLVERS.items():
        accepts = ", ".join(sorted(c.name for c in entry.solver.accepts))
        rows.append((f"`{name}`", accepts, prose(entry.solver.__doc__).splitlines()[0]))
    return table(("name", "takes", "what it is"), rows)


def layers(_: str) -> str:
    """The layers of the import contract, top to bottom."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    return "```\n" + "\n".join(contract["layers"]) + "\n```"


GENERATORS: dict[str, Callable[[str], str]] = {
    "schema": schema,
    "equations": equations,
    "formulation": formulation,
    "formulations": formulation_table,
    "objectives": objective_sections,
    "cli": cli,
    "faults": faults,
    "build-faults": build_faults,
    "import-codes": import_codes,
    "cases": cases,
    "layers": layers,
    "solvers": solver_table,
}


def render(text: str) -> str:
    """A page with its generated parts made anew."""

    def fresh(match: re.Match[str]) -> str:
        name, _, argument = match["key"].partition(" ")
        return f"{match[1]}\n{GENERATORS[name](argument)}\n\n{match[3]}"

    return BLOCK.sub(fresh, text)


def pages() -> Iterator[Path]:
    """Every page that may hold generated parts."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def stale() -> list[Path]:
    """Pages whose generated parts are out of date."""
    return [p for p in pages() if render(p.read_text(encoding="utf-8")) != p.read_text(encoding="utf-8")]


def main(arguments: list[str]) -> int:
    """Rewrite the pages, or say which are out of date."""
    old = stale()
    for page in old:
        sys.stdout.write(f"{page.relative_to(ROOT)}\n")
        if "--check" not in arguments:
            page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if old and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
