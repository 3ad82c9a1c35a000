"""The power flow of a case: the same day without any control, or with a given dispatch.

This is where devices meet the nodal power flow of `lateral.network.powerflow`: each becomes a Thevenin source, a
constant admittance or a power drawn at ports. Power of a device is its total, so that one port of one modelled
conductor draws ``p / (ports * n_phases)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lateral.case import Case
from lateral.devices import PV, SVC, Battery, Capacitor, Load
from lateral.devices.base import ShuntDevice
from lateral.devices.inverter import Inverter
from lateral.errors import Fault, OptionError, UnsupportedError, did_you_mean
from lateral.following import Followers, follow, follows
from lateral.network.admittance import NodeIndex, Triplets, capacitor_admittance
from lateral.network.branches import radial_network
from lateral.network.feeder import Feeder
from lateral.network.powerflow import (
    PORT_MODELS,
    NodalNetwork,
    PortLoads,
    PowerFlow,
    TheveninSource,
    solve_power_flow,
)
from lateral.network.schema import ComplexArray, FloatArray, IntArray
from lateral.network.tapped import with_taps

#: p in kW and q in kvar of the devices of one kind, each (n devices, T); injection into the network is positive.
Dispatch = Mapping[str, tuple[FloatArray, FloatArray]]
#: p in kW and q in kvar of the ports of single devices, by label, each (ports, T); rows as in `ShuntDevice.places`.
PortDispatch = Mapping[str, tuple[FloatArray, FloatArray]]
#: The setting of single devices step by step, by label, (T,).
Settings = Mapping[str, FloatArray]


@dataclass(frozen=True, eq=False)
class NodalProblem:
    """A case as the inputs of `solve_power_flow`.

    Attributes:
        network: wires and capacitors.
        loads: what is drawn at ports.
        sources: the upstream grids.
        owner: for each port, the label of its device.
        followers: the ports whose power follows the voltage; None without any. In ``loads`` they stand at nominal
            voltage.
    """

    network: NodalNetwork
    loads: PortLoads
    sources: tuple[TheveninSource, ...]
    owner: tuple[str, ...]
    followers: Followers | None = None


def pv_available(case: Case, pv: PV) -> FloatArray:
    """What the sun offers behind the inverter, ``min(p_rated * profile, s_max)``, kW, shape (T,)."""
    return np.minimum(pv.p_rated_kw * case.multiplier(pv.profile), pv.s_max_kva)


def pv_baseline(case: Case, pv: PV) -> tuple[FloatArray, FloatArray]:
    """A PV system without control: p as offered; q = p tan(acos(pf)) when it holds a power factor, else 0.

    Where q follows the voltage, p leaves room for the largest q of its curve, unless one gives way to the other; what
    follows is then not known here, see `following_ports`.

    Returns:
        p in kW and q in kvar, each of shape (T,).
    """
    p = np.minimum(pv_available(case, pv), pv.s_max_kva * pv.p_share)
    if pv.follows_p:
        p = np.minimum(p, pv.p_rated_kw * max(pv.volt_watt_p_pu))
    return p, p * pv.q_over_p


def load_power(case: Case, load: Load) -> tuple[FloatArray, FloatArray]:
    """Power of a load at rated voltage, total, kW and kvar, each of shape (T,)."""
    m = case.multiplier(load.profile)
    if not load.q_follows_profile:
        mq = np.ones_like(m)
    else:
        mq = case.multiplier(load.profile_q) if load.profile_q else m
    return load.p_kw * m, load.q_kvar * mq


def rated_kv(device: ShuntDevice, v_base_kv: float) -> float:
    """Rated voltage across one port, kV: its own, or the bus base (times sqrt(3) in delta)."""
    own: float | None = getattr(device, "v_rated_kv", None)
    if own:
        return own
    return v_base_kv if device.connection == "wye" else v_base_kv * float(np.sqrt(3.0))


def nodal_problem(
    case: Case,
    *,
    pv_q: FloatArray | None = None,
    dispatch: Dispatch | None = None,
    ports: PortDispatch | None = None,
    settings: Settings | None = None,
) -> NodalProblem:
    """A case as a network, port loads and sources.

    Args:
        case: the case.
        pv_q: reactive power of the PV systems, kvar, shape (n_pv, T); used where ``dispatch`` has no "pv".
        dispatch: power of devices by kind ("pv", "battery", ...); a kind that is not in it does what it does without
            control: PV as the sun offers it, everything else but loads and capacitors nothing.
        ports: power of devices port by port, by label; goes before ``dispatch``.
        settings: settings of devices, by label: shares of capacitors, what an SVC gives at rated voltage. Taps are none
            of this: they are wires, see `power_flow`.

    Raises:
        OptionError: ``dispatch`` names a kind that the case does not have, or an array has the wrong shape.
    """
    by_port, given_settings = ports or {}, settings or {}
    feeder, n_steps = case.feeder, case.horizon.n_steps
    index = NodeIndex.of(feeder)
    given = _checked(case, dispatch or {}, n_steps)
    if pv_q is not None and np.shape(pv_q) != (len(case.pvs), n_steps):
        message = f"pv_q has shape {np.shape(pv_q)}, not ({len(case.pvs)}, {n_steps})."
        raise OptionError(message)
    collected = _Ports(case, index)
    shunts: list[Triplets] = []
    following: list[tuple[Inverter, IntArray]] = []
    sun: list[FloatArray] = []
    count: dict[str, int] = {}
    for device in case.devices:
        if not isinstance(device, ShuntDevice):
            continue
        setting = given_settings.get(device.label)
        k = count.get(device.kind, 0)
        count[device.kind] = k + 1
        if isinstance(device, Load):
            collected.add(device, *load_power(case, device))
        elif isinstance(device, Capacitor):
            if device.model == "constant_power":
                q = np.full(n_steps, device.q_kvar) if setting is None else device.q_full_kvar * setting
                collected.add(device, np.zeros(n_steps), -q)
            elif setting is not None:
                collected.add(device, np.zeros(n_steps), -device.q_full_kvar * setting, impedance=True)
            else:
                base = feeder.bus[device.bus].v_base_kv
                conductors, y = capacitor_admittance(device, base, feeder.n_phases)
                shunts.append(Triplets.of_blocks(index.rows(device.bus, conductors)[None], y[None]))
        elif isinstance(device, SVC):
            if setting is not None:
                collected.add(device, np.zeros(n_steps), -setting, impedance=True)
        elif device.label in by_port:
            p, q = by_port[device.label]
            collected.add(device, -p, -q)
        elif device.kind in given:
            p, q = given[device.kind]
            collected.add(device, -p[k], -q[k])
        elif isinstance(device, PV):
            p, q = pv_baseline(case, device)
            if pv_q is not None:
                q = np.asarray(pv_q[k], dtype=float)
            rows = collected.add(device, -p, -q)
            if pv_q is None and follows(device):
                following.append((device, rows))
                sun.append(device.p_rated_kw * case.multiplier(device.profile))
        elif isinstance(device, Inverter) and follows(device):
            following.append((device, collected.add(device, np.zeros(n_steps), np.zeros(n_steps))))
            sun.append(np.zeros(n_steps))
    extra = Triplets.join(shunts)
    loads, followers = collected.loads(), None
    if following:
        devices, places = [d for d, _ in following], [rows for _, rows in following]
        followers = Followers.of(devices, places, loads, sun, feeder.n_phases, index)
        nominal = np.ones((len(followers.rows), n_steps))
        loads = followers.into(loads, followers.given(nominal))
    network = NodalNetwork.of(feeder, extra)
    return NodalProblem(network, loads, _sources(case, index), tuple(collected.owner), followers)


def power_flow(
    case: Case,
    *,
    pv_q: FloatArray | None = None,
    dispatch: Dispatch | None = None,
    ports: PortDispatch | None = None,
    settings: Settings | None = None,
    tolerance_pu: float = 1e-8,
    start: ComplexArray | None = None,
    method: str = "auto",
) -> PowerFlow:
    """Solve the power flow of a case, every step; by default the same day without any control.

    Any number of phases, wires and sources, radial or meshed. ``auto`` is the fixed point, then Newton's method for
    the steps that do not settle; `lateral.network.powerflow` has the equations.

    Args:
        case: the case.
        pv_q: reactive power of the PV systems, kvar, shape (n_pv, T).
        dispatch: p and q of devices by kind, injection positive; see `nodal_problem`.
        ports: p and q port by port, by label; see `nodal_problem`.
        settings: settings of devices step by step, by label; see `nodal_problem`. Here taps of regulators too.
        tolerance_pu: voltage tolerance, see `solve_power_flow`.
        start: voltages to start from, V, shape (n, T); those of another method, for example.
        method: ``auto``, ``fixed-point``, ``newton`` or ``sweep`` (radial feeders).

    Returns:
        voltages (``v``, V; ``vmag_pu``; shape (n nodes, T)), source power (kVA) and losses (kW); look at ``converged``
        and ``methods``.

    Raises:
        CaseError: the network is singular.
        OptionError: a dispatch that does not fit the case, or a method that does not exist.
        UnsupportedError: a sweep over a feeder that is not radial.
    """
    problem = nodal_problem(case, pv_q=pv_q, dispatch=dispatch, ports=ports, settings=settings)
    return _followed(case, problem, given_taps(case, settings or {}), method, tolerance_pu, start)[0]


def _followed(
    case: Case,
    problem: NodalProblem,
    taps: Mapping[tuple[str, int], FloatArray],
    method: str = "auto",
    tolerance_pu: float = 1e-8,
    start: ComplexArray | None = None,
) -> tuple[PowerFlow, PortLoads]:
    """The power flow of a problem, and its ports with what those that follow the voltage draw there."""

    def solve(loads: PortLoads, begin: ComplexArray | None) -> PowerFlow:
        given = replace(problem, loads=loads)
        if taps:
            return _with_taps(case, taps, given, method=method, tolerance_pu=tolerance_pu, start=begin)
        return _solved(case, case.feeder, given, method=method, tolerance_pu=tolerance_pu, start=begin)

    if problem.followers is None:
        return solve(problem.loads, start), problem.loads
    return follow(problem.followers, problem.loads, solve, start)


def following_ports(case: Case) -> dict[str, tuple[FloatArray, FloatArray]]:
    """p and q of the ports of the inverters that follow the voltage, in the day without any control, by label.

    Args:
        case: the case.

    Returns:
        kW and kvar given, each of shape (ports, T); empty without such inverters.

    Raises:
        UnsupportedError: the power flow or what follows it does not settle at some step, so that nobody knows.
    """
    if not any(follows(d) for d in case.devices):
        return {}
    problem = nodal_problem(case)
    assert problem.followers is not None
    flow, loads = _followed(case, problem, {})
    open_steps = np.flatnonzero(~flow.converged)
    if len(open_steps):
        owners = dict.fromkeys(problem.owner[k] for k in problem.followers.rows.tolist())
        fault = Fault(
            "FOR-011 no-settled-curve",
            next(iter(owners)),
            f"a day without control that does not settle at {len(open_steps)} steps, first at step {open_steps[0]}",
            "a power flow that converges at every step with inverters on their curves",
            "Lower the load, make curves of the voltage less steep, or give the set-points.",
        )
        raise UnsupportedError([fault])
    times = float(case.feeder.n_phases)
    out = {}
    for label in dict.fromkeys(problem.owner[k] for k in problem.followers.rows.tolist()):
        rows = [k for k, owner in enumerate(problem.owner) if owner == label]
        out[label] = (-loads.p_kw[rows] * times, -loads.q_kvar[rows] * times)
    return out


def _with_taps(
    case: Case,
    taps: Mapping[tuple[str, int], FloatArray],
    problem: NodalProblem,
    *,
    method: str,
    tolerance_pu: float,
    start: ComplexArray | None,
) -> PowerFlow:
    """Every step at its taps: wires change with them, so that the steps of each set of taps are solved together."""
    kinds, of = np.unique(np.array(list(taps.values())), axis=1, return_inverse=True)
    flows = []
    order = [np.flatnonzero(of.reshape(-1) == k) for k in range(kinds.shape[1])]
    for k, steps in enumerate(order):
        feeder = with_taps(case.feeder, dict(zip(taps, kinds[:, k].tolist(), strict=True)))
        part = replace(
            problem,
            network=replace(NodalNetwork.of(feeder), y_shunt=problem.network.y_shunt),
            loads=replace(problem.loads, p_kw=problem.loads.p_kw[:, steps], q_kvar=problem.loads.q_kvar[:, steps]),
            sources=tuple(replace(s, e_volt=s.e_volt[:, steps]) for s in problem.sources),
        )
        begin = None if start is None else start[:, steps]
        flows.append(_solved(case, feeder, part, method=method, tolerance_pu=tolerance_pu, start=begin))
    return _joined(flows, order)


def _solved(
    case: Case,
    feeder: Feeder,
    problem: NodalProblem,
    *,
    method: str,
    tolerance_pu: float,
    start: ComplexArray | None,
) -> PowerFlow:
    """The steps of a problem that have one set of wires."""
    radial = None
    if method == "sweep":  # neutrals are conductors like any other
        roots = [(s.bus, c) for s in case.sources for c in s.conductors]
        radial = radial_network(feeder, roots, case.base, index=problem.network.index), case.base
    return solve_power_flow(
        problem.network,
        problem.loads,
        problem.sources,
        n_steps=problem.loads.p_kw.shape[1],
        method=method,
        tolerance_pu=tolerance_pu,
        start=start,
        radial=radial,
    )


def given_taps(case: Case, settings: Settings) -> dict[tuple[str, int], FloatArray]:
    """Taps among some settings, shape (T,), by transformer and winding."""
    return {
        (r.transformer, r.winding): np.asarray(settings[r.label], dtype=float)
        for r in case.regulators
        if r.label in settings
    }


def _joined(flows: Sequence[PowerFlow], steps: Sequence[IntArray]) -> PowerFlow:
    """Power flows of some steps each, as one of all."""
    back = np.argsort(np.concatenate(steps), kind="stable")

    def all_of(name: str) -> Any:
        return np.concatenate([getattr(flow, name) for flow in flows], axis=-1)[..., back]

    names = ("v", "iterations", "converged", "change_pu", "mismatch_kva", "sources_kva", "losses_kw")
    methods = [m for flow in flows for m in flow.methods]
    return replace(flows[0], **{name: all_of(name) for name in names}, methods=tuple(methods[k] for k in back.tolist()))


def _checked(case: Case, dispatch: Dispatch, n_steps: int) -> dict[str, tuple[FloatArray, FloatArray]]:
    kinds: dict[str, int] = {}
    for d in case.devices:
        if isinstance(d, ShuntDevice) and d.dispatched:
            kinds[d.kind] = kinds.get(d.kind, 0) + 1
    out = {}
    for kind, (p, q) in dispatch.items():
        if kind not in kinds:
            message = f"Nothing of kind {kind!r} can be dispatched in this case. {did_you_mean(kind, list(kinds))}"
            raise OptionError(message)
        arrays = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
        for a in arrays:
            if a.shape != (kinds[kind], n_steps):
                message = f"The dispatch of {kind!r} has shape {a.shape}, not ({kinds[kind]}, {n_steps})."
                raise OptionError(message)
        out[kind] = arrays
    return out


def _sources(case: Case, index: NodeIndex) -> tuple[TheveninSource, ...]:
    out = []
    for s in case.sources:
        volt = 1000.0 * case.feeder.bus[s.bus].v_base_kv
        phasor = np.exp(1j * np.deg2rad(np.asarray(s.angle_deg, dtype=float)))
        e = volt * phasor[:, None] * case.series(s.v_pu)[None, :]
        z = (s.r_ohm + 1j * s.x_ohm).astype(complex)
        out.append(TheveninSource(name=s.name, nodes=index.rows(s.bus, s.conductors), e_volt=e, z_ohm=z))
    return tuple(out)


class _Ports:
    """Collects ports row by row."""

    def __init__(self, case: Case, index: NodeIndex) -> None:
        self.buses, self.index = case.feeder.bus, index
        self.n_steps, self.n_phases = case.horizon.n_steps, case.feeder.n_phases
        self.owner: list[str] = []
        self.nodes: list[tuple[int, int]] = []
        self.p: list[FloatArray] = []
        self.q: list[FloatArray] = []
        self.share: list[float] = []
        self.rated: list[float] = []
        self.model: list[int] = []
        self.shares: list[tuple[float, ...]] = []
        self.edges: list[tuple[float, float, float, float]] = []

    def add(self, device: ShuntDevice, p_kw: FloatArray, q_kvar: FloatArray, *, impedance: bool = False) -> IntArray:
        """Every port of a device that draws p and q: in total, shape (T,), or port by port, shape (ports, T).

        Returns:
            the rows of its ports.
        """
        first = len(self.nodes)
        places = device.places
        total = p_kw.ndim == 1
        share = 1.0 / len(places) if total else 1.0
        model, shares, edges = 0, (0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0), (0.0, np.inf, 0.0, 0.0)
        if isinstance(device, Load):
            model = PORT_MODELS.index(device.model)
            shares = (*device.zip_p, *device.zip_q, device.cvr_p, device.cvr_q)
            edges = (device.v_min_pu, device.v_max_pu, device.v_low_pu, device.zip_v_cut_pu)
        elif impedance:
            model = PORT_MODELS.index("constant_impedance")
        elif isinstance(device, PV | Battery):
            edges = (device.v_min_pu, device.v_max_pu, 0.0, 0.0)
        at, label = self.index.position, device.label
        for k, (bus, (a, b)) in enumerate(places):
            if a == 0:
                a, b = b, a
            self.owner.append(label)
            self.nodes.append((at[bus, a], at[bus, b] if b > 0 else -1))
            self.p.append(p_kw if total else p_kw[k])
            self.q.append(q_kvar if total else q_kvar[k])
            self.share.append(share)
            self.rated.append(rated_kv(device, self.buses[bus].v_base_kv))
            self.model.append(model)
            self.shares.append(shares)
            self.edges.append(edges)
        return np.arange(first, len(self.nodes))

    def loads(self) -> PortLoads:
        """The ports as arrays."""
        n = len(self.nodes)
        share, one = np.array(self.share, dtype=float).reshape(n, 1), 1.0 / self.n_phases
        nodes = np.array(self.nodes, dtype=np.int64).reshape(n, 2)
        shares = np.array(self.shares, dtype=float).reshape(n, 8)
        edges = np.array(self.edges, dtype=float).reshape(n, 4)
        return PortLoads(
            node_a=nodes[:, 0],
            node_b=nodes[:, 1],
            p_kw=np.array(self.p, dtype=float).reshape(n, self.n_steps) * share * one,
            q_kvar=np.array(self.q, dtype=float).reshape(n, self.n_steps) * share * one,
            v_rated_kv=np.array(self.rated, dtype=float),
            model=np.array(self.model, dtype=np.int64),
            zip_p=shares[:, :3],
            zip_q=shares[:, 3:6],
            exponent=shares[:, 6:],
            v_min_pu=edges[:, 0],
            v_max_pu=edges[:, 1],
            v_low_pu=edges[:, 2],
            v_cut_pu=edges[:, 3],
        )


__all__ = [
    "Dispatch",
    "NodalProblem",
    "PortDispatch",
    "Settings",
    "following_ports",
    "given_taps",
    "load_power",
    "nodal_problem",
    "power_flow",
    "pv_available",
    "pv_baseline",
]
