"""How well `lindist3flow` predicts voltages, as a Markdown table.

Largest and mean difference of node voltages from the AC power flow at the same taps: at the operating point, at 0.7 and
1.2 times the load with the operating point kept at rated load, and of the pure model (nominal angles, no losses).

    python benchmarks/linear_accuracy.py FEEDERS_FOLDER
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.devices import Capacitor, Load
from lateral.io import opendss
from lateral.opf import linear_power_flow
from lateral.results.result import Result

FEEDERS = {
    "IEEE 13": "ieee13/IEEE13Nodeckt.dss",
    "IEEE 34 Mod2": "ieee34/ieee34Mod2.dss",
    "IEEE 37": "ieee37/ieee37.dss",
    "IEEE 123": "ieee123/IEEE123Master.dss",
    "IEEE 8500, balanced loads": "ieee8500/Master.dss",
    "IEEE 8500, unbalanced loads": "ieee8500/Master-unbal.dss",
}
#: nodes with a base under this (kV, line to ground) are secondaries
SECONDARY_KV = 0.3


def scaled(case: Case, factor: float) -> Case:
    """The case with every load multiplied."""
    return case.with_(
        devices=tuple(
            dataclasses.replace(d, p_kw=d.p_kw * factor, q_kvar=d.q_kvar * factor) if isinstance(d, Load) else d
            for d in case.devices
        )
    )


def capacitors_at_rated(case: Case) -> Case:
    """The case with capacitors at their rated reactive power (the convention of the study of the pure model)."""
    return case.with_(
        devices=tuple(
            dataclasses.replace(d, model="constant_power") if isinstance(d, Capacitor) else d for d in case.devices
        )
    )


def differences(linear: Result, case: Case) -> np.ndarray:
    """|V| of the linear model less that of the AC power flow, pu, shape (nodes,)."""
    flow = power_flow(case)
    if not flow.converged.all():
        return np.full(linear.network.n_nodes, np.nan)
    place = {node: k for k, node in enumerate(flow.index.nodes)}
    v = flow.vmag_pu[[place[node] for node in linear.network.nodes]]
    return np.abs(np.sqrt(np.maximum(linear.value("bus.vmag_sq"), 0.0)) - v)[:, 0]


def rows(name: str, path: Path) -> list[str]:
    """Table rows of one feeder: all nodes, or primaries and secondaries apart."""
    case = opendss.read(path)[0]
    begin = time.perf_counter()
    own = linear_power_flow(case)
    seconds = time.perf_counter() - begin
    runs = [differences(own, case)]
    for factor in (0.7, 1.2):
        other = scaled(case, factor)
        runs.append(differences(linear_power_flow(other, at=case), other))
    pure = linear_power_flow(capacitors_at_rated(case), point="nominal")
    runs.append(differences(pure, case))
    low = own.network.v_base_kv < SECONDARY_KV
    parts = [(f"{name}", np.ones_like(low))]
    if low.any() and len(low) > 1000:
        parts = [(f"{name}, primaries", ~low), (f"{name}, secondaries", low)]
    out = []
    for label, keep in parts:
        cells = " | ".join(f"{d[keep].max():.1e} / {d[keep].mean():.1e}" for d in runs)
        out.append(f"| {label} | {int(keep.sum())} | {cells} | {seconds:.2f} |")
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("feeders", type=Path, help="folder with the feeders, one folder each")
    folder = parser.parse_args().feeders
    print("Voltage error against the AC power flow at the same taps, max / mean, pu\n")
    print("| feeder | nodes | at its point | 0.7 x load | 1.2 x load | pure | build and solve, s |")
    print("|---|---|---|---|---|---|---|")
    for name, file in FEEDERS.items():
        if (folder / file).is_file():
            print("\n".join(rows(name, folder / file)), flush=True)


if __name__ == "__main__":
    main()
