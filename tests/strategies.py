"""Random small cases for the laws: balanced trees and unbalanced three-phase ones.

Hypothesis draws the structure (sizes, which devices) and a seed; the numbers come from the seed, in ranges where every
case has a solution: drops stay under 8 %, limits are 0.85 and 1.15 pu.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from hypothesis import strategies as st

from lateral.case import Case
from lateral.devices import PV, Battery, Capacitor, Load, Source
from lateral.network.feeder import Bus, Feeder, Line, Switch, Transformer, Winding
from lateral.network.horizon import Horizon
from lateral.network.schema import Element
from lateral.units import Base

KV = 2.4
MODELS = ("constant_power", "constant_impedance", "constant_current", "zip", "cvr", "constant_power_quadratic_q")
#: those that the relaxation keeps exact: P and Q affine in |V|^2
AFFINE_MODELS = ("constant_power", "constant_impedance", "constant_power_quadratic_q")


def horizon(rng: np.random.Generator, n_steps: int, *, breaks: bool = False, weights: bool = False) -> Horizon:
    """Steps of a quarter to two hours."""
    return Horizon(
        start=datetime(2024, 7, 1, tzinfo=UTC),
        step_h=rng.choice([0.25, 0.5, 1.0, 2.0], n_steps),
        weight=rng.choice([1.0, 2.0, 5.0], n_steps) if weights else np.ones(n_steps),
        breaks=tuple(int(k) for k in range(1, n_steps) if rng.random() < 0.4) if breaks else (),
    )


def battery(rng: np.random.Generator, name: str, bus: str, **more: object) -> Battery:
    """A battery whose terminal rules can be met."""
    power = float(rng.uniform(5, 25))
    return Battery(
        name=name,
        bus=bus,
        p_charge_max_kw=power,
        p_discharge_max_kw=power * float(rng.uniform(0.7, 1.0)),
        s_max_kva=power * float(rng.uniform(1.05, 1.3)),
        energy_kwh=power * float(rng.uniform(1.0, 4.0)),
        soc_min=0.1,
        soc_max=0.9,
        soc_initial=float(rng.uniform(0.3, 0.7)),
        eta_charge=float(rng.uniform(0.85, 0.98)),
        eta_discharge=float(rng.uniform(0.85, 0.98)),
        limit=str(rng.choice(["disc", "box"])),
        q_control=str(rng.choice(["free", "none"])),
        **more,  # type: ignore[arg-type]
    )


def pv(rng: np.random.Generator, name: str, bus: str, **more: object) -> PV:
    """A PV system of any control."""
    power = float(rng.uniform(5, 30))
    return PV(
        name=name,
        bus=bus,
        p_rated_kw=power,
        s_max_kva=power * float(rng.uniform(1.02, 1.3)),
        profile="sun",
        curtailable=bool(rng.random() < 0.5),
        q_control=str(rng.choice(["free", "power_factor", "none"])),
        power_factor=float(rng.choice([-0.97, 0.98])),
        limit=str(rng.choice(["disc", "box"])),
        **more,  # type: ignore[arg-type]
    )


def load(rng: np.random.Generator, name: str, bus: str, models: Sequence[str] = MODELS, **more: object) -> Load:
    """A load of any model."""
    return Load(
        name=name,
        bus=bus,
        p_kw=float(rng.uniform(5, 40)),
        q_kvar=float(rng.uniform(0, 15)),
        profile=str(rng.choice(["day", ""])),
        model=str(rng.choice(list(models))),
        zip_p=(0.3, 0.3, 0.4),
        zip_q=(0.5, 0.2, 0.3),
        cvr_p=0.8,
        cvr_q=1.7,
        **more,  # type: ignore[arg-type]
    )


def profiles(rng: np.random.Generator, n_steps: int) -> dict[str, np.ndarray]:
    """Load, sun and price; prices differ between steps, so that schedules are unique."""
    return {
        "day": rng.uniform(0.5, 1.0, n_steps),
        "sun": rng.uniform(0.0, 1.0, n_steps),
        "price": rng.uniform(0.05, 0.4, n_steps),
    }


@st.composite
def balanced_cases(
    draw: st.DrawFn,
    *,
    max_buses: int = 8,
    max_steps: int = 6,
    batteries: bool = True,
    pvs: bool = True,
    models: Sequence[str] = MODELS,
    breaks: bool = False,
    weights: bool = False,
) -> Case:
    """A radial tree with one conductor per bus that stands for one or three."""
    n = draw(st.integers(2, max_buses))
    n_steps = draw(st.integers(1, max_steps))
    n_phases = draw(st.sampled_from([1, 3]))
    with_cap = draw(st.booleans())
    n_batteries = draw(st.integers(0, 2)) if batteries else 0
    n_pvs = draw(st.integers(0, 2)) if pvs else 0
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    names = [f"b{k}" for k in range(n)]
    buses = [Bus(name=b, conductors=(1,), v_base_kv=KV, v_min_pu=0.85, v_max_pu=1.15) for b in names]
    lines: list[Line] = []
    switches: list[Switch] = []
    for k in range(1, n):
        parent = names[int(rng.integers(0, k))]
        ends = (parent, names[k]) if rng.random() < 0.7 else (names[k], parent)
        r, x = rng.uniform(0.05, 0.3) * n_phases, rng.uniform(0.05, 0.4) * n_phases
        common = {
            "name": f"e{k}",
            "bus_from": ends[0],
            "bus_to": ends[1],
            "conductors_from": (1,),
            "conductors_to": (1,),
            "r_ohm": [[r]],
            "x_ohm": [[x]],
        }
        if rng.random() < 0.15:
            switches.append(Switch(**common))
        else:
            lines.append(Line(**common, b_us=[[rng.uniform(0, 200)]] if rng.random() < 0.5 else None))
    somewhere = lambda: names[int(rng.integers(1, n))]  # noqa: E731
    devices: list[Element] = [
        Source(
            name="grid",
            bus="b0",
            v_pu=float(rng.uniform(0.98, 1.05)),
            price_import="price",
            r_ohm=[[0.01 * n_phases]] if rng.random() < 0.5 else [[0.0]],
            x_ohm=[[0.03 * n_phases]] if rng.random() < 0.5 else [[0.0]],
        )
    ]
    devices += [load(rng, f"l{k}", names[k], models) for k in range(1, n)]
    if with_cap:
        model = str(rng.choice(["constant_power", "constant_impedance"]))
        devices.append(Capacitor(name="c1", bus=somewhere(), q_kvar=float(rng.uniform(5, 30)), model=model))
    devices += [pv(rng, f"pv{k}", somewhere()) for k in range(n_pvs)]
    devices += [battery(rng, f"bat{k}", somewhere()) for k in range(n_batteries)]
    return Case(
        name="random",
        feeder=Feeder(
            buses=tuple(buses), lines=tuple(lines), switches=tuple(switches), n_phases=n_phases, balanced=n_phases > 1
        ),
        devices=tuple(devices),
        horizon=horizon(rng, n_steps, breaks=breaks, weights=weights),
        profiles=profiles(rng, n_steps),
    )


@st.composite
def three_phase_cases(
    draw: st.DrawFn, *, max_buses: int = 6, max_steps: int = 4, models: Sequence[str] = MODELS
) -> Case:
    """A radial tree with missing phases, wye and delta devices, and sometimes a delta-wye transformer at its head."""
    n = draw(st.integers(2, max_buses))
    n_steps = draw(st.integers(1, max_steps))
    transformer = draw(st.booleans())
    n_batteries, n_pvs = draw(st.integers(0, 1)), draw(st.integers(0, 2))
    with_cap = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    names = [f"b{k}" for k in range(n)]
    on: dict[str, tuple[int, ...]] = {"b0": (1, 2, 3)}
    lines: list[Line] = []
    transformers: list[Transformer] = []
    kv = {"b0": KV}
    for k in range(1, n):
        if k == 1 and transformer:
            on["b1"], kv["b1"] = (1, 2, 3), 0.48
            transformers.append(
                Transformer(
                    name="t1",
                    windings=(
                        Winding(
                            bus="b0",
                            terminals=(1, 2, 3),
                            connection="delta",
                            v_rated_kv=KV * 3**0.5,
                            s_rated_kva=500.0,
                            r_percent=0.5,
                        ),
                        Winding(
                            bus="b1",
                            terminals=(1, 2, 3, 0),
                            connection="wye",
                            v_rated_kv=0.48 * 3**0.5,
                            s_rated_kva=500.0,
                            r_percent=0.5,
                            tap=float(rng.uniform(0.98, 1.05)),
                        ),
                    ),
                    x_percent=(4.0,),
                )
            )
            continue
        parent = names[int(rng.integers(1 if transformer else 0, k))]
        keep = rng.random(3) < 0.75
        conductors = tuple(c for c in on[parent] if keep[c - 1]) or on[parent][:1]
        m = len(conductors)
        size = (kv[parent] / KV) ** 2
        mutual = np.full((m, m), 1.0) - np.eye(m)
        lines.append(
            Line(
                name=f"e{k}",
                bus_from=parent,
                bus_to=names[k],
                conductors_from=conductors,
                conductors_to=conductors,
                r_ohm=size * (np.diag(rng.uniform(0.1, 0.4, m)) + 0.05 * mutual),
                x_ohm=size * (np.diag(rng.uniform(0.2, 0.6, m)) + 0.12 * mutual),
                b_us=np.diag(rng.uniform(5, 20, m)) - 2.0 * mutual if rng.random() < 0.5 else None,
            )
        )
        on[names[k]], kv[names[k]] = conductors, kv[parent]
    buses = tuple(Bus(name=b, conductors=on[b], v_base_kv=kv[b], v_min_pu=0.85, v_max_pu=1.15) for b in names)

    def place(bus: str) -> dict[str, object]:
        conductors = on[bus]
        if len(conductors) == 3 and rng.random() < 0.4:
            return {"terminals": conductors, "connection": "delta"}
        if len(conductors) == 2 and rng.random() < 0.4:
            return {"terminals": conductors, "connection": "delta"}
        if rng.random() < 0.5:
            return {"terminals": (int(rng.choice(conductors)), 0), "connection": "wye"}
        return {"terminals": (*conductors, 0), "connection": "wye"}

    somewhere = lambda: names[int(rng.integers(1, n))]  # noqa: E731
    devices: list[Element] = [
        Source(
            name="grid",
            bus="b0",
            conductors=(1, 2, 3),
            angle_deg=(0.0, -120.0, 120.0),
            v_pu=float(rng.uniform(0.99, 1.05)),
            price_import="price",
            r_ohm=0.01 * np.eye(3) + 0.002,
            x_ohm=0.04 * np.eye(3) + 0.008,
        )
    ]
    for k in range(1, n):
        devices.append(load(rng, f"l{k}", names[k], models, **place(names[k])))
    if with_cap:
        bus = somewhere()
        devices.append(Capacitor(name="c1", bus=bus, q_kvar=float(rng.uniform(5, 30)), **place(bus)))  # type: ignore[arg-type]
    for k in range(n_pvs):
        bus = somewhere()
        devices.append(pv(rng, f"pv{k}", bus, **place(bus)))
    for k in range(n_batteries):
        bus = somewhere()
        devices.append(battery(rng, f"bat{k}", bus, **place(bus)))
    return Case(
        name="random3",
        feeder=Feeder(buses=buses, lines=tuple(lines), transformers=tuple(transformers)),
        devices=tuple(devices),
        horizon=horizon(rng, n_steps),
        profiles=profiles(rng, n_steps),
    )


# -- changes of a case that leave its meaning alone ----------------------------------------------------------------


def shuffled(case: Case, seed: int, *, rename: bool = True) -> tuple[Case, dict[str, str]]:
    """Buses, branches and devices in another order, buses under other names; and the new name of each bus."""
    rng = np.random.default_rng(seed)
    feeder = case.feeder
    fresh = [f"z{k}" for k in rng.permutation(len(feeder.buses))]
    new = {b.name: (f if rename else b.name) for b, f in zip(feeder.buses, fresh, strict=True)}

    def order(items: tuple) -> tuple:
        return tuple(items[k] for k in rng.permutation(len(items)))

    def ends(e: Line | Switch) -> Line | Switch:
        return dataclasses.replace(e, bus_from=new[e.bus_from], bus_to=new[e.bus_to])

    changed = dataclasses.replace(
        feeder,
        buses=order(tuple(dataclasses.replace(b, name=new[b.name]) for b in feeder.buses)),
        lines=order(tuple(ends(e) for e in feeder.lines)),
        switches=order(tuple(ends(e) for e in feeder.switches)),
        transformers=order(
            tuple(
                dataclasses.replace(t, windings=tuple(dataclasses.replace(w, bus=new[w.bus]) for w in t.windings))
                for t in feeder.transformers
            )
        ),
    )
    devices = order(tuple(dataclasses.replace(d, bus=new[d.bus]) for d in case.devices))
    return case.with_(feeder=changed, devices=devices), new


def rotated(case: Case) -> Case:
    """Conductors relabelled 1 -> 2 -> 3 -> 1, matrices reordered to ascending conductors, source angles with them."""

    def turn(c: int) -> int:
        return c % 3 + 1 if c in (1, 2, 3) else c

    def matrix(values: np.ndarray | None, order: list[int]) -> np.ndarray | None:
        return None if values is None else values[np.ix_(order, order)]

    def line(e: Line) -> Line:
        at = [turn(c) for c in e.conductors_from]
        order = list(np.argsort(at))
        conductors = tuple(sorted(at))
        return dataclasses.replace(
            e,
            conductors_from=conductors,
            conductors_to=conductors,
            r_ohm=matrix(e.r_ohm, order),
            x_ohm=matrix(e.x_ohm, order),
            b_us=matrix(e.b_us, order),
        )

    feeder = dataclasses.replace(
        case.feeder,
        buses=tuple(
            dataclasses.replace(b, conductors=tuple(sorted(turn(c) for c in b.conductors))) for b in case.feeder.buses
        ),
        lines=tuple(line(e) for e in case.feeder.lines),
        transformers=tuple(
            dataclasses.replace(
                t,
                windings=tuple(
                    dataclasses.replace(w, terminals=tuple(turn(c) for c in w.terminals)) for w in t.windings
                ),
            )
            for t in case.feeder.transformers
        ),
    )
    devices: list[Element] = []
    for d in case.devices:
        if isinstance(d, Source):
            at = [turn(c) for c in d.conductors]
            order = list(np.argsort(at))
            devices.append(
                dataclasses.replace(
                    d,
                    conductors=tuple(sorted(at)),
                    angle_deg=tuple(d.angle_deg[k] for k in order),
                    r_ohm=matrix(d.r_ohm, order),
                    x_ohm=matrix(d.x_ohm, order),
                )
            )
        else:
            devices.append(dataclasses.replace(d, terminals=tuple(turn(c) for c in d.terminals)))
    return case.with_(feeder=feeder, devices=tuple(devices))


def on_base(case: Case, s_kva: float) -> Case:
    """The case on another power base."""
    return case.with_(base=Base(s_kva))


def one_step(case: Case, t: int) -> Case:
    """Step t of a case as a case of its own."""
    h = case.horizon
    alone = Horizon(start=h.times[t].to_pydatetime(), step_h=h.step_h[[t]], weight=h.weight[[t]], zone=h.zone)
    return case.with_(horizon=alone, profiles={k: v[[t]] for k, v in case.profiles.items()})


def three_phases_of(case: Case, mutual: float = 0.3) -> Case:
    """A balanced case (of three) written out conductor by conductor, with coupling: z1 = z_self - z_mutual."""
    spread = np.eye(3) + mutual * np.ones((3, 3))  # self (1 + m) z, mutual m z

    def wide(m: np.ndarray | None) -> np.ndarray | None:
        return None if m is None else m[0, 0] * spread

    def branch(e: Line | Switch) -> Line | Switch:
        return dataclasses.replace(
            e,
            conductors_from=(1, 2, 3),
            conductors_to=(1, 2, 3),
            r_ohm=wide(e.r_ohm),
            x_ohm=wide(e.x_ohm),
            b_us=None if e.b_us is None else e.b_us[0, 0] * (np.eye(3) * 0.7 - 0.3 * (np.ones((3, 3)) - np.eye(3))),
        )

    feeder = dataclasses.replace(
        case.feeder,
        buses=tuple(dataclasses.replace(b, conductors=(1, 2, 3)) for b in case.feeder.buses),
        lines=tuple(branch(e) for e in case.feeder.lines),
        switches=tuple(branch(e) for e in case.feeder.switches),
        n_phases=1,
        balanced=False,
    )
    devices: list[Element] = []
    for d in case.devices:
        if isinstance(d, Source):
            devices.append(
                dataclasses.replace(
                    d,
                    conductors=(1, 2, 3),
                    angle_deg=(0.0, -120.0, 120.0),
                    r_ohm=wide(d.r_ohm),
                    x_ohm=wide(d.x_ohm),
                )
            )
        else:
            devices.append(dataclasses.replace(d, terminals=(1, 2, 3, 0)))
    return case.with_(feeder=feeder, devices=tuple(devices), base=Base(case.base.s_kva))
