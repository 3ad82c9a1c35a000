"""The documentation: complete, up to date with the code, its links and examples good."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lateral import checks, devices, formulations, objectives, solvers
from lateral.cli.failures import OF_STATUS
from lateral.network.schema import fields_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "DEVELOPERS.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_up_to_date(generate: ModuleType) -> None:
    assert [p.relative_to(ROOT) for p in generate.stale()] == [], "run `make docs`"


def test_a_stale_part_is_found(generate: ModuleType) -> None:
    text = "before\n<!-- generated: schema pv -->\nold\n<!-- /generated -->\nafter\n"
    fresh = generate.render(text)
    assert "old" not in fresh
    assert fresh.startswith("before\n")
    assert fresh.endswith("after\n")
    assert generate.render(fresh) == fresh
    for field in fields_of(devices.PV):
        assert f"| `{field.name}` |" in fresh


def test_a_code_of_a_fault_means_one_thing() -> None:
    names: dict[str, set[str]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for code, name in re.findall(r'"([A-Z]{2,4}-\d{3}) ([^"]+)"', path.read_text(encoding="utf-8")):
            names.setdefault(code, set()).add(name)
    assert len(names) > 150  # the pattern still finds them
    assert {code: found for code, found in names.items() if len(found) > 1} == {}


@pytest.mark.parametrize("cls", devices.BUILT_IN, ids=lambda cls: cls.kind)
def test_every_device_has_a_page(cls: type) -> None:
    text = (DOCS / "devices" / f"{cls.kind}.md").read_text()
    assert f"generated: schema {cls.kind} " in text
    assert f"generated: equations {cls.kind} " in text
    assert "**In OpenDSS**" in text


@pytest.mark.parametrize("name", formulations.BUILT_IN)
def test_every_formulation_has_a_page(name: str) -> None:
    text = (DOCS / "formulations" / f"{name}.md").read_text()
    assert f"generated: formulation {name} " in text
    for row in ("exact when", "neglects", "refuses", "class", "default solver"):
        assert f"| {row} |" in text
    assert "**Source.**" in text


def test_the_rules_are_counted() -> None:
    n = len(checks._RULES) + len(checks.network.RADIAL)
    said = f"{n} rules in {len(checks._GROUPS)} groups, {len(checks.CODES)} codes"
    assert said in (DOCS / "design.md").read_text()


def test_every_status_and_solver_is_described() -> None:
    text = (DOCS / "solvers.md").read_text()
    for status in solvers.Status:
        code = int(OF_STATUS[status.word])
        assert re.search(rf"^\| `{status.word}` \|.*\| {code} \|$", text, flags=re.MULTILINE)
    for name in solvers.SOLVERS:
        assert f"| `{name}` |" in text


def test_every_objective_is_described(generate: ModuleType) -> None:
    text = (DOCS / "objectives.md").read_text()
    for name in objectives.BUILT_IN:
        assert f"\n## {name}\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_python_in_the_readme_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "optimal" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_commands_in_the_readme_exist() -> None:
    from lateral.cli.app import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback is not None}
    known |= {group.name for group in app.registered_groups}
    used = set(re.findall(r"^lateral (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert used
    assert used <= known
