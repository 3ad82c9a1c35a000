"""Transformers with a tap that is no number: the tapped winding as an ideal ratio at an internal node per core.

Turns enter the primitive of a transformer only where a winding meets its terminals (see `lateral.network.admittance`).
So a winding with the tap a is the same winding at rated turns, across internal nodes at E, behind an ideal ratio::

    U = a E,      I = a J        U, J: voltage across the winding, and current into it, at its terminals
                                 E, I: the same of the winding at rated turns; no power is lost, U conj(J) = E conj(I)

What is left is a constant matrix over the terminals of the other windings and the internal nodes. Antifloat shunts and
the impedance of a neutral stay at the terminals. Exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lateral.network.admittance import Node, primitive_of, shape_of, transformer_stack
from lateral.network.feeder import Feeder, Transformer
from lateral.network.schema import ComplexArray, FloatArray


@dataclass(frozen=True, eq=False)
class TappedPrimitive:
    """The constant part of a transformer with decided taps.

    Attributes:
        nodes: its true nodes, in matrix order.
        windings: the tapped winding (from 0) of each internal node, shape (m,).
        ends: the two ends of the winding at each internal node, as positions in ``nodes``; -1 for ground.
        y: admittance over the true nodes, then the internal ones, siemens, shape (n + m, n + m).
    """

    nodes: tuple[Node, ...]
    windings: tuple[int, ...]
    ends: tuple[tuple[int, int], ...]
    y: ComplexArray


def declines(transformer: Transformer) -> str:
    """Why a transformer's tap can be no decision; empty when it can."""
    isolated = any(w.connection == "wye" and w.terminals[-1] < 0 for w in transformer.windings)
    return "a winding has an isolated neutral" if isolated else ""


def tapped_primitive(transformer: Transformer, windings: Sequence[int]) -> TappedPrimitive:
    """The constant part of a transformer whose windings ``windings`` (from 0) have decided taps.

    Raises:
        ValueError: a winding has an isolated neutral, see `declines`.
    """
    if declines(transformer):
        message = declines(transformer)
        raise ValueError(message)
    out = _split(transformer, windings, no_load=True)
    n = len(out.nodes)
    out.y[:n, :n] += primitive_of(transformer).y - primitive_of(transformer, antifloat=False).y
    return out


def _split(transformer: Transformer, windings: Sequence[int], *, no_load: bool) -> TappedPrimitive:
    """The constant part without antifloat shunts, with or without what flows at no load."""
    shape, nodes = shape_of(transformer)
    per_core = 2 * shape.n_windings
    ends = list(shape.ends)
    of: list[int] = []
    pairs: list[tuple[int, int]] = []
    for core in range(shape.n_phases):
        for k in windings:
            at = core * per_core + 2 * k
            pairs.append((ends[at], ends[at + 1]))
            ends[at], ends[at + 1] = len(nodes) + len(of), -1
            of.append(k)
    rated = replace(
        transformer,
        windings=tuple(replace(w, tap=1.0) if k in windings else w for k, w in enumerate(transformer.windings)),
    )
    wider = replace(shape, ends=tuple(ends), n_local=len(nodes) + len(of))
    y = transformer_stack(wider, [rated], antifloat=False, no_load=no_load)[0]
    return TappedPrimitive(nodes, tuple(of), tuple(pairs), y)


def series_flow(transformer: Transformer, windings: Sequence[int]) -> tuple[ComplexArray, ComplexArray]:
    """Voltage behind the ideal part and current into the series impedance, over true and internal nodes.

    ::

        S = sum W conj(I),    I = -(Y_rp V_p + Y_rr V_r),    W = -T pinv(T' Y_rr T) T' Y_rp V_p

    r are the receiving sides (internal nodes of tapped windings but the first, true nodes of the others), p the sending
    one, Y the series part at rated turns, and T how windings are connected, without what a delta cannot have.
    A tap multiplies a voltage and divides a current, so that none is left in S: it is `series_power`, with constant
    matrices. A tapped winding that meets the first one at a node (an autotransformer) is the exception: there S is that
    at rated turns.

    Args:
        transformer: the transformer.
        windings: windings with decided taps (from 0).

    Returns:
        W without unit and I in siemens, each of shape (receiving, n + m).
    """
    part = _split(transformer, windings, no_load=False)
    y, n, m = part.y, len(part.nodes), len(part.windings)
    first = {(transformer.windings[0].bus, t) for t in transformer.windings[0].terminals if t > 0}
    sends = np.array([*(node in first for node in part.nodes), *(k == 0 for k in part.windings)], dtype=bool)
    p, r = np.flatnonzero(sends), np.flatnonzero(~sends)
    turn = np.vstack([np.eye(n), np.zeros((m, n))])
    for k, (start, end) in enumerate(part.ends):
        for at, sign in ((start, 1.0), (end, -1.0)):
            if at >= 0:
                turn[n + k, at] += sign
    t = turn[np.ix_(r, r[r < n])]
    y_rp, y_rr = y[np.ix_(r, p)], y[np.ix_(r, r)]
    w, i = np.zeros((len(r), n + m), dtype=complex), np.zeros((len(r), n + m), dtype=complex)
    w[:, p] = -t @ np.linalg.pinv(t.T @ y_rr @ t, rcond=1e-12) @ t.T @ y_rp
    i[:, p], i[:, r] = -y_rp, -y_rr
    return w, i


def with_taps(feeder: Feeder, taps: Mapping[tuple[str, int], float]) -> Feeder:
    """The feeder with other taps, by (transformer, winding from 1)."""
    if not taps:
        return feeder
    changed = {name for name, _ in taps}
    transformers = tuple(
        t
        if t.name not in changed
        else replace(
            t, windings=tuple(replace(w, tap=taps.get((t.name, k), w.tap)) for k, w in enumerate(t.windings, start=1))
        )
        for t in feeder.transformers
    )
    return replace(feeder, transformers=transformers)


def series_power(transformer: Transformer, taps: FloatArray, windings: Sequence[int], v: ComplexArray) -> ComplexArray:
    """Power into the series impedance of a transformer, behind its ideal part, step by step.

    ::

        I_s = -(Y_sp V_p + Y_ss V_s),    W = -Y_ss^+ Y_sp V_p,    S = W conj(I_s)          at the taps of the step

    Args:
        transformer: the transformer.
        taps: taps of the windings ``windings`` (from 0), shape (windings, T).
        windings: the tapped windings.
        v: voltages of its nodes in the order of its primitive, V, shape (n, T).

    Returns:
        VA at every receiving node (those that are not of winding 1), in that order, shape (receiving, T).
    """
    first = {(transformer.windings[0].bus, t) for t in transformer.windings[0].terminals if t > 0}
    out = []
    for step in range(v.shape[1]):
        now = {k: float(a) for k, a in zip(windings, taps[:, step], strict=True)}
        turned = replace(
            transformer,
            windings=tuple(replace(w, tap=now.get(k, w.tap)) for k, w in enumerate(transformer.windings)),
        )
        part = primitive_of(turned, antifloat=False, no_load=False)
        s = [k for k, node in enumerate(part.nodes) if node not in first]
        p = [k for k in range(len(part.nodes)) if k not in s]
        current = -(part.y[s] @ v[:, step])
        behind = -np.linalg.pinv(part.y[np.ix_(s, s)], rcond=1e-12) @ part.y[np.ix_(s, p)] @ v[p, step]
        out.append(behind * np.conj(current))
    return np.array(out).T


__all__ = ["TappedPrimitive", "declines", "series_flow", "series_power", "tapped_primitive", "with_taps"]
