"""The range of the voltages of a run, and which conductors it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lateral.cli.screen import count

if TYPE_CHECKING:
    import numpy as np

    from lateral.network.schema import FloatArray

#: Voltages below this say nothing of the supply: neutrals, and nodes without a source, pu.
LIVE_PU = 0.3
#: Names of nodes that are left out of the voltage range, at most.
NAMED = 8


def supply_range(
    nodes: Sequence[tuple[str, int]], v_pu: FloatArray, converged: np.ndarray[Any, Any], fed: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """``v_min_pu, v_max_pu`` above `LIVE_PU`, and the nodes that this leaves out: dead ones and low ones.

    Args:
        nodes: (bus, conductor) of each row of ``v_pu``.
        v_pu: voltage magnitudes, pu, shape (n, T).
        converged: which steps count, shape (T,).
        fed: which nodes a source reaches, shape (n,).
    """
    import numpy as np

    live = np.where(v_pu > LIVE_PU, v_pu, np.nan)[:, converged]
    some = bool(np.isfinite(live).any())
    dead = [f"{bus}.{c}" for (bus, c), yes in zip(nodes, fed.tolist(), strict=True) if not yes]
    hidden = fed & np.any((v_pu <= LIVE_PU) & converged, axis=1)
    # neutrals as a rule, so phases first
    low = sorted((nodes[k] for k in np.flatnonzero(hidden).tolist()), key=lambda node: node[1] > 3)
    return {
        "v_min_pu": float(np.nanmin(live)) if some else None,
        "v_max_pu": float(np.nanmax(live)) if some else None,
        "n_dead_nodes": len(dead),
        "dead_nodes": dead[:NAMED],
        "n_low_nodes": len(low),
        "low_nodes": [f"{bus}.{c}" for bus, c in low[:NAMED]],
    }


def left_out(s: dict[str, Any]) -> Iterator[str]:
    """What the voltage range leaves out, for the screen."""
    for n, names, why in (
        (s["n_dead_nodes"], s["dead_nodes"], "that no source reaches"),
        (s["n_low_nodes"], s["low_nodes"], f"at {LIVE_PU:g} pu or less"),
    ):
        if n:
            yield f"without {count(n, 'node')} {why}: {', '.join(names)}{', ...' if n > len(names) else ''}"


__all__ = ["left_out", "supply_range"]
