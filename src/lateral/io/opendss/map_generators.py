"""Generators of an OpenDSS model, as loads of negative power.

By the ``model`` of the files the engine has, with the nominal S = P + jQ of a phase and u the voltage across it, per
unit of the rated one,

    1   S;  an impedance outside of vminpu ... vmaxpu          constant power with that band
    2   S u^2                                                  constant impedance
    3   P, and the Q between minkvar and maxkvar that brings   constant power: the Q of the solved point, held
        the mean of the phase voltages to vpu
    4   P, and Q at its stated value whatever the shape        constant power, likewise
    5   P, and Q as a reactance                                likewise
    6   what a user-written library says                       nothing, as in the engine: no library is loaded
    7   S for u > vminpu, under it P - jQ times u / vminpu     the side of the solved point, phase by phase

The sign that Q changes in model 7 is the engine's. With ``balanced=yes`` it looks at the voltage of positive sequence;
then the share of each phase at the solved point is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from lateral.devices import Load
from lateral.devices.load import FIXED_Q
from lateral.io.opendss.engine import ElementData
from lateral.io.opendss.map_build import Build, Properties, number, text
from lateral.io.opendss.map_devices import edge_of_a_third, live_ports, load_power, rated_as_solved, terminals_of
from lateral.io.opendss.map_shapes import Shapes
from lateral.network.schema import FloatArray, Terminals

#: Price of the engine where the files set none.
_PRICE = 25.0
_REGULATED, _USER, _LIMITED = 3, 6, 7
_MODELS = {2: "constant_impedance", 4: "constant_power_fixed_q", 5: "constant_power_fixed_q_impedance"}
#: Band of what is constant power at any voltage that a power flow finds.
_NEVER = (0.1, 2.0)
#: Share of its power below which a generator gives nothing: far above rounding.
_NOTHING = 1e-9


def map_generators(build: Build, shapes: Shapes) -> None:
    """Generators as loads of negative power."""
    stated = build.setting("genmult")
    multiplier = 1.0 if stated is None else stated
    for name, properties, element in live_ports(build, "generator"):
        source = f"generator.{name}"
        number_of_model = int(number(properties, "model", 1))
        terminals, connection = terminals_of(properties, element)
        fixed = text(properties, "status") == "fixed"
        factor = 1.0 if fixed else multiplier
        closed = build.last_switched.get(source) == "close"
        model = _MODELS.get(number_of_model, "constant_power")
        if build.as_admittances or closed:
            model = "constant_impedance"
        kw, kvar, profile, profile_q = load_power("generator", properties, shapes, factor, model, follow=not fixed)
        mode = _dispatched(build, properties)
        # whatever the horizon: what it gives at the solved point, a snapshot
        solved = complex(number(properties, "kw"), number(properties, "kvar")) * factor
        solved *= 1.0 if mode is None else mode
        if mode is not None and shapes.kind == "snapshot":
            kw, kvar = mode * kw, mode * kvar
        band = max(number(properties, "vminpu", 0.9), 0.0), number(properties, "vmaxpu", 1.1) or 1.1
        law = "square" if model == "constant_impedance" else "limited" if number_of_model == _LIMITED else "band"
        load = Load(
            name=next(_free_names(build, f"generator_{name}")),
            bus=element.buses[0],
            terminals=terminals,
            connection=connection,
            p_kw=-kw,
            q_kvar=-kvar,
            profile=profile,
            profile_q=profile_q,
            v_rated_kv=rated_as_solved(build, source, properties, element, -solved.real, band, law),
            model=model,
            v_min_pu=band[0],
            v_max_pu=band[1],
            v_low_pu=0.0,
        )
        if number_of_model == _USER:
            why = "a user-written model (6), which is not loaded: it gives nothing, in the engine and here"
            build.record(source, "approximated", "IMP-011", f"{why}; give it another model", lost_kw=abs(kw))
        elif number_of_model == _REGULATED:
            _regulated(build, source, properties, element, load)
        elif model == "constant_impedance" or number_of_model != _LIMITED:
            edge = 0.0
            if model != "constant_impedance":
                edge = edge_of_a_third(build, source, properties, element, band, load.v_rated_kv or 1.0)
            load = _a_third_of(load, edge) if element.phases == 1 and connection != "wye" else load
            build.devices.append(load)
            build.mapped(source, load)
            build.record(source, "approximated", "IMP-010", "a load of negative power: it cannot be controlled")
        elif properties.get("balanced") and element.phases == 3:
            _balanced(build, source, element, load, -solved)
        else:
            _limited(build, source, load)
        if closed:
            said = "a Close command names it: from then on it is a constant admittance, in the engine and here"
            build.record(source, "approximated", "IMP-011", said)
        elif element.is_open:
            said = "open in the files, but the engine lets it generate all the same, and so does the case"
            build.record(source, "approximated", "IMP-014", f"{said}; disable it to switch it off")
        if mode is not None:
            how = f"dispatched by {text(properties, 'dispmode')}"
            now = "on" if mode else "off, so it gives nothing"
            said = now if shapes.kind == "snapshot" else "not followed over time"
            build.record(source, "approximated", "IMP-011", f"{how}: {said}")


def _a_third_of(load: Load, edge: float) -> Load:
    """A generator of one phase in delta: the engine divides the admittance of any delta by three.

    Args:
        load: the generator.
        edge: the edge of its band beyond which it is, pu; 0 within.
    """
    if load.model == "constant_impedance":
        return replace(load, p_kw=load.p_kw / 3.0, q_kvar=load.q_kvar / 3.0)
    fixed = load.model in FIXED_Q  # kvar of an impedance at rated voltage outside, whatever the edge
    if edge:
        p, q = load.p_kw / edge**2 / 3.0, load.q_kvar / (1.0 if fixed else edge**2) / 3.0
        return replace(load, model="constant_impedance", p_kw=p, q_kvar=q)
    if load.model == "constant_power_fixed_q_impedance":
        return replace(load, q_kvar=load.q_kvar / 3.0)
    return load


def _dispatched(build: Build, properties: Properties) -> float | None:
    """Whether a generator that is dispatched by the level of load or by the price is on (1) or off (0) at the solved
    point; None of one that always is."""
    level, mode = number(properties, "dispvalue"), text(properties, "dispmode")
    if mode not in ("loadlevel", "price") or properties.get("forceon"):
        return None
    price = build.setting("pricesignal")
    now = float(build.model.stated["load_mult"]) if mode == "loadlevel" else _PRICE if price is None else price
    return 0.0 if level > 0.0 and now < level else 1.0


def _regulated(build: Build, source: str, properties: Properties, element: ElementData, load: Load) -> None:
    """Model 3: P constant at any voltage, and the kvar of the solved point."""
    drawn = build.drawn(element, load.ports)
    kvar = load.q_kvar if drawn is None else float(drawn.sum().imag)
    model, (low, high) = "constant_power_fixed_q", _NEVER
    load = replace(load, q_kvar=kvar, model=model, profile_q="", v_min_pu=low, v_max_pu=high)
    size = float(np.mean(np.square(_across_pu(build, load))))
    if drawn is not None and build.as_admittances and size > 0.0:  # the engine has a hundredth of it in its matrix
        whole = complex(drawn.sum()) / size
        load = replace(load, p_kw=whole.real, q_kvar=whole.imag, model="constant_impedance", profile="")
    build.devices.append(load)
    build.mapped(source, load)
    least, most = number(properties, "minkvar"), number(properties, "maxkvar")
    where = "as the files state them" if drawn is None else "that it gives at the solved point"
    asked = f"{number(properties, 'vpu', 1.0):g} pu of voltage within {least:g} ... {most:g} kvar"
    said = f"model 3 regulates to {asked}: here it is held at the {-kvar:.6g} kvar {where}"
    build.record(source, "approximated", "IMP-011", said)


def _across_pu(build: Build, load: Load) -> FloatArray:
    """Voltages across the ports of a load at the solved point, pu of the rated one, shape (ports,)."""
    volts = [build.voltage(load.bus, a) - build.voltage(load.bus, b) for a, b in load.ports]
    return np.asarray(np.abs(volts) / (1e3 * float(load.v_rated_kv or 1.0)))


def _limited(build: Build, source: str, load: Load) -> None:
    """Model 7: constant power above the lower edge of its band, constant current under it, phase by phase."""
    under = _across_pu(build, load) < load.v_min_pu
    if build.model.reference is None:
        under[:] = False
    every = replace(load, v_min_pu=_NEVER[0], v_max_pu=_NEVER[1])
    current = every
    if under.any():
        p, q = load.p_kw / load.v_min_pu, -load.q_kvar / load.v_min_pu
        current = replace(every, model="constant_current", p_kw=p, q_kvar=q)
    parts = [current if low else every for low in under]
    _add(build, source, [parts[0]] if under.all() or not under.any() else _split(build, parts))
    said = "constant power" if not under.any() else "limited current" if under.all() else "either, phase by phase"
    build.record(source, "approximated", "IMP-011", f"model 7: {said}, as at the solved point, whatever the voltage")


def _balanced(build: Build, source: str, element: ElementData, load: Load, nominal: complex) -> None:
    """Model 7 with balanced currents: each phase has the share of the power that it gives at the solved point.

    Args:
        build: the model on its way.
        source: ``class.name`` of the generator.
        element: where it is connected.
        load: the generator, with what its profiles multiply.
        nominal: what it is to draw at the solved point, kW + j kvar, all phases.
    """
    drawn = build.drawn(element, load.ports)
    every = replace(load, v_min_pu=_NEVER[0], v_max_pu=_NEVER[1])
    whole = 0j if drawn is None else complex(drawn.sum())
    if drawn is None or not nominal or abs(whole) <= _NOTHING * abs(nominal):
        _add(build, source, [every])
    else:
        n = len(drawn)
        # under its band the engine's P and Q are other ones than the nominal; the profiles multiply these
        p = load.p_kw * (whole.real / nominal.real if nominal.real else 1.0)
        q = load.q_kvar * (whole.imag / nominal.imag if nominal.imag else 1.0)
        powers = n * drawn / whole * complex(p, q)
        _add(build, source, _split(build, [replace(every, p_kw=s.real, q_kvar=s.imag) for s in powers]))
    said = "model 7 with balanced currents: the share of each phase at the solved point is held, at every step"
    build.record(source, "approximated", "IMP-011", said)


def _split(build: Build, parts: Sequence[Load]) -> list[Load]:
    """One load for each port of a load: of the k-th the k-th port, with its share of the power."""
    out = []
    names = _free_names(build, parts[0].name, 1)
    for k, load in enumerate(parts):
        ends: Terminals = load.ports[k]
        n = len(load.ports)
        connection = "wye" if load.connection == "wye" else "delta"
        one = replace(load, terminals=ends, connection=connection, p_kw=load.p_kw / n, q_kvar=load.q_kvar / n)
        out.append(replace(one, name=next(names)))
    return out


def _free_names(build: Build, stem: str, first: int = 0) -> Iterator[str]:
    """Names for loads of a generator that no other load has, nor any other generator: the stem with 1, 2, ... behind,
    from ``first`` on; with 0 it is alone."""
    yield from (
        name
        for k in count(first)
        if f"load.{(name := f'{stem}_{k}' if k else stem)}" not in build.origin
        and not (k and name.removeprefix("generator_") in build.generators)
    )


def _add(build: Build, source: str, loads: Sequence[Load]) -> None:
    build.devices.extend(loads)
    build.mapped(source, *loads)


__all__ = ["map_generators"]
