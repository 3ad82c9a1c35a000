"""Every shared feeder: the admittance of every wire and capacitor against the engine's own primitive matrix.

The error of an element is the largest difference of an entry relative to the largest entry of the engine's matrix.
Rounding alone is left, 1.2e-15 at most, so that the bound is 1e-14; it holds for every element of every feeder, without
exception.

Run as a program it prints the table of ``docs/feeders.md``::

    python tests/cases/test_feeders_admittance.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_feeders import FEEDERS, MASTERS, REFUSED, UNSUPPORTED, small

from lateral.io.opendss import ImportReport, read

pytestmark = pytest.mark.skipif(not FEEDERS.is_dir(), reason="the shared feeders are not here")

#: Largest error of any element.
TOLERANCE = 1e-14

#: Master file -> elements that differ by more, each with the reason; `AdmittanceCheck.above` names them too.
EXCEPTIONS: dict[str, dict[str, str]] = {}

#: Elements whose numbers are the engine's matrix itself, so that the comparison only says that they arrived.
TAKEN = {
    "ieee8500/Master.dss": 1,  # reactor.hvmv_sub_hsb
    "ieee8500/Master-unbal.dss": 1,
    "epri_ckt5/Master_ckt5.dss": 1,
    "pmd_cases/opendss/case_mxshunt.dss": 1,  # resistance that is not positive
    "pmd_cases/opendss/case_mxshunt_2.dss": 1,
    "pmd_cases/opendss/virtual_sourcebus.dss": 1,
    "pmd_cases/en_validation_case_data/test_grounding.dss": 1,
    "pmd_cases/en_validation_case_data/test_line_6w.dss": 3,
    "pmd_cases/en_validation_case_data/test_switch_1w.dss": 1,
    "pmd_cases/en_validation_case_data/test_trans_dy.dss": 1,
    "pmd_cases/en_validation_case_data/test_trans_yy.dss": 1,
}


def holds(path: Path) -> ImportReport:
    case, report = read(path, verify=False)
    name = path.relative_to(FEEDERS).as_posix()
    found = report.admittances
    wires = len(case.feeder.elements) - len(case.feeder.buses) + len(case.capacitors)
    assert found.checked + sum(found.unchecked.values()) == wires
    assert set(found.unchecked) <= {"a ground made up for an end that the files put on ground"}
    assert found.taken == TAKEN.get(name, 0)
    assert {d.element for d in found.above} == set(EXCEPTIONS.get(name, {}))
    if name not in EXCEPTIONS:
        assert found.worst <= TOLERANCE, f"{found.worst:.2g} at {found.worst_element}"
    return report


@pytest.mark.slow
@pytest.mark.parametrize("master", MASTERS)
def test_feeder(master: str) -> None:
    assert holds(FEEDERS / master).admittances.checked > 0


@pytest.mark.parametrize("path", [p for p in small() if p.name not in REFUSED], ids=lambda p: p.name)
def test_small_case(path: Path) -> None:
    holds(path)


def table() -> str:
    """The table of ``docs/feeders.md``."""
    lines = ["| feeder | compared | of the engine's matrix | largest error | at |", "|---|--:|--:|--:|---|"]
    for path in [*(FEEDERS / m for m in MASTERS), *(p for p in small() if p.name not in REFUSED | UNSUPPORTED)]:
        found = read(path, verify=False)[1].admittances
        name = f"`{path.relative_to(FEEDERS).as_posix()}`"
        at = f"`{found.worst_element}`" if found.worst_element else "-"
        lines.append(f"| {name} | {found.checked} | {found.taken} | {found.worst:.1e} | {at} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
