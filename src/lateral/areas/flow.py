"""AreaFlow: the power flow of one area between given borders, for formulations that are made at a solved power flow.

The head is a stiff complex voltage for each conductor, the tail a current for each conductor: the power that the area
below draws, over the voltage at which it drew it::

    I = conj(S / V_drawn) + y 11' (V - V_drawn) / n^2

with y what the wires below take to ground, all n conductors as one. A current does not depend on the voltage to ground;
a power would. The second term is zero where areas agree. It matters in an ungrounded feeder, whose voltage to ground
only such small admittances decide, most of them perhaps below: without it the two sides of the border would push it to
and fro.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from lateral.areas.message import MessageError, Values
from lateral.baseline import NodalProblem, nodal_problem
from lateral.case import Case
from lateral.devices import BorderHead, BorderTail
from lateral.following import follow
from lateral.formulations import OperatingPoint
from lateral.network.admittance import Triplets
from lateral.network.powerflow import NodalNetwork, PortLoads, PowerFlow, TheveninSource, solve_power_flow
from lateral.network.schema import ComplexArray, FloatArray
from lateral.operating import point_at, unloaded

#: What a head is told and a tail says, and the other way round.
FLOW_DOWN, FLOW_UP = ("v_re", "v_im"), ("p", "q", "v_re", "v_im", "y_re", "y_im")
#: What a head says beside, once, where the formulation bounds currents: the largest current that is drawn behind it, A.
REACH = "i_max"
#: Currents add up to nothing below this share of the largest one: they do in an ungrounded part, to 1e-8.
RETURNS = 1e-5
#: Tolerance of an area's own power flow, pu. Asked anything new it goes on from where it is, so that sweeps refine it;
#: the voltage to ground behind a delta winding is not known to much more.
TOLERANCE_PU = 1e-8


class AreaFlow:
    """The power flow of an area: without any control, or unloaded. It keeps its last voltages to start from.

    Args:
        case: the area's case.
        loaded: False for the wires alone.
    """

    def __init__(self, case: Case, *, loaded: bool) -> None:
        self.case, self.loaded = case, loaded
        self._volt: ComplexArray | None = None
        self._flow: PowerFlow | None = None
        #: what was asked last, and the answer
        self._asked: dict[tuple[str, str], FloatArray] = {}
        self._answer: tuple[dict[str, Values], list[bool]] | None = None

    @cached_property
    def _problem(self) -> NodalProblem:
        case = self.case.with_(devices=tuple(d for d in self.case.devices if not isinstance(d, BorderTail)))
        return nodal_problem(case if self.loaded else unloaded(case))

    def solve(self, borders: Mapping[str, Values]) -> tuple[dict[str, Values], list[bool]]:
        """Solve every step; asked the same again it answers the same.

        To solve again would move what the equations leave open, the voltage to ground of an ungrounded part, by 1e-8:
        prices of some hundred by two more digits than a certificate bears, where the two sides of a border are not at
        one point to the last digit.

        Args:
            borders: by border, of the head ``v_re`` and ``v_im`` (pu); of tails ``p`` and ``q`` (kW, kvar) drawn at the
                voltage ``v_re`` and ``v_im``, and ``y_re`` and ``y_im`` (S, all conductors as one). A border that is
                not there is at its start.

        Returns:
            the same of the other side (a head's power, with the voltage it was told; a tail's voltage), and which steps
            converge.

        Raises:
            CaseError: the area's network is singular.
        """
        asked = {
            (name, x): np.array(values[x], dtype=float)
            for name, values in borders.items()
            for x in dict.fromkeys((*FLOW_DOWN, *FLOW_UP))
            if x in values
        }
        if self._answer is None or not _same(self._asked, asked):
            self._asked, self._answer = asked, self._solved(borders)
        said, settled = self._answer
        # whoever changes what it was told changes its own
        return {name: {x: v.copy() for x, v in values.items()} for name, values in said.items()}, list(settled)

    def _solved(self, borders: Mapping[str, Values]) -> tuple[dict[str, Values], list[bool]]:
        """See `solve`."""
        problem, case = self._problem, self.case
        index, n_steps = problem.network.index, case.horizon.n_steps
        heads = {d.name for d in case.of(BorderHead)}
        sources = [s for s in problem.sources if s.name not in heads]
        told: dict[str, ComplexArray] = {}
        for head in case.of(BorderHead):
            told[head.name] = self._told(head, borders.get(head.name, {}))
            e = told[head.name] * (1000.0 * case.feeder.bus[head.bus].v_base_kv)
            rows = index.rows(head.bus, head.crossing)
            # a source for each conductor, so that the power of each is known
            sources += [
                TheveninSource(name=f"{head.name}.{c}", nodes=rows[[k]], e_volt=e[[k]], z_ohm=np.zeros((1, 1), complex))
                for k, c in enumerate(head.crossing)
            ]
        drawn = np.zeros((len(index), n_steps), dtype=complex)
        blocks: list[Triplets] = []
        for tail in case.of(BorderTail):
            values = borders.get(tail.name, {})
            if set(values) >= set(FLOW_UP):
                given = {x: np.asarray(v) for x, v in values.items()}
                kva = (given["p"] + 1j * given["q"]) / problem.network.multiplicity
                kv = (given["v_re"] + 1j * given["v_im"]) * case.feeder.bus[tail.bus].v_base_kv
                live = np.abs(kv) > 0.0
                rows = index.rows(tail.bus, tail.crossing)
                n = len(rows)
                y = complex((given["y_re"] + 1j * given["y_im"]).mean()) / n**2
                drawn[rows] += np.where(live, np.conj(kva / np.where(live, kv, 1.0)), 0.0)
                drawn[rows] -= y * 1000.0 * kv.sum(axis=0)
                blocks.append(Triplets.of_blocks(rows[None], np.full((1, n, n), y)))
        network = _with(problem.network, blocks)

        def solved(loads: PortLoads, start: ComplexArray | None) -> PowerFlow:
            return solve_power_flow(
                network, loads, sources, n_steps=n_steps, tolerance_pu=TOLERANCE_PU, start=start, injected=-drawn
            )

        if problem.followers is None:
            flow = solved(problem.loads, self._volt)
        else:
            flow, _ = follow(problem.followers, problem.loads, solved, self._volt)
        self._flow = flow
        finite = np.all(np.isfinite(flow.v), axis=0)
        if np.all(finite & flow.converged):
            self._volt = flow.v
        said: dict[str, Values] = {}
        at = len(sources) - sum(len(h.crossing) for h in case.of(BorderHead))
        for head in case.of(BorderHead):
            n = len(head.crossing)
            kva = np.where(finite, flow.sources_kva[at : at + n], 0.0)
            at += n
            v = told[head.name]
            ground: ComplexArray = np.full(v.shape, self._to_ground(network, head))
            said[head.name] = {
                "p": kva.real,
                "q": kva.imag,
                "v_re": v.real,
                "v_im": v.imag,
                "y_re": ground.real,
                "y_im": ground.imag,
            }
        for tail in case.of(BorderTail):
            v = np.where(finite, flow.v_pu[index.rows(tail.bus, tail.crossing)], 1.0)
            said[tail.name] = {"v_re": v.real, "v_im": v.imag}
        return said, [bool(x) for x in flow.converged & finite]

    def point(self, steps: Sequence[int]) -> OperatingPoint:
        """The operating point of the last solve.

        Args:
            steps: for each step the one whose voltages it takes: its own, or where that does not converge the nearest.

        Raises:
            MessageError: there is no such step, or nothing was solved yet.
        """
        n_steps = self.case.horizon.n_steps
        places = [int(k) for k in steps]
        if self._flow is None or len(places) != n_steps or not all(0 <= k < n_steps for k in places):
            message = f"an operating point of {len(places)} steps, not {n_steps} solved ones"
            raise MessageError(message)
        return point_at(self.case, self._flow.v_pu[:, places], loaded=self.loaded)

    def _to_ground(self, network: NodalNetwork, head: BorderHead) -> complex:
        """What the wires take to ground when all conductors of the head are at one voltage, S."""
        kv = self.case.feeder.bus[head.bus].v_base_kv
        rows = network.index.rows(head.bus, head.crossing)
        n = len(rows)
        e = np.full((n, 1), 1000.0 * kv, dtype=complex)
        none = np.zeros(0)
        at = none.astype(np.int64)
        ports = PortLoads.constant_power(at, at, none.reshape(0, 1), none.reshape(0, 1), none)
        source = TheveninSource(name=head.name, nodes=rows, e_volt=e, z_ohm=np.zeros((n, n), complex))
        flow = solve_power_flow(network, ports, [source], n_steps=1)
        kva = complex(flow.source_kva[0]) / network.multiplicity
        return kva.conjugate() / (1000.0 * kv**2) if np.isfinite(kva) else 0.0

    def _told(self, head: BorderHead, values: Values) -> ComplexArray:
        """Complex voltage of a head, pu, shape (conductors, T); until a neighbour speaks the unloaded one."""
        if set(values) >= set(FLOW_DOWN):
            return np.asarray(np.asarray(values["v_re"]) + 1j * np.asarray(values["v_im"]))
        phasor = np.exp(1j * np.deg2rad(np.resize(head.angle_deg, len(head.crossing))))
        return np.asarray(phasor[:, None] * self.case.series(head.v_pu)[None, :])


def _same(one: Mapping[tuple[str, str], FloatArray], other: Mapping[tuple[str, str], FloatArray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(values, other[key]) for key, values in one.items())


def without_return(said: Values, steps: Sequence[int] | slice = slice(None)) -> bool:
    """Whether the currents of a border's conductors, of which there are two or more, add up to nothing.

    Args:
        said: the power ``p`` and ``q`` of each conductor, at the voltages ``v_re`` and ``v_im``.
        steps: that count.
    """
    p, q, v_re, v_im = (np.asarray(said[x])[:, steps] for x in ("p", "q", "v_re", "v_im"))
    live = (v_re != 0.0) | (v_im != 0.0)
    current = np.where(live, p - 1j * q, 0.0) / np.where(live, v_re - 1j * v_im, 1.0)
    most = float(np.abs(current).max())
    return len(current) > 1 and float(np.abs(current.sum(axis=0)).max()) < RETURNS * most


def _with(network: NodalNetwork, blocks: Sequence[Triplets]) -> NodalNetwork:
    """A network with further shunts."""
    if not blocks:
        return network
    extra = Triplets.join(list(blocks)).matrix(len(network.index))
    own = network.y_shunt
    return dataclasses.replace(network, y_shunt=extra if own is None else (own + extra).tocsc())


__all__ = ["FLOW_DOWN", "FLOW_UP", "REACH", "AreaFlow", "without_return"]
