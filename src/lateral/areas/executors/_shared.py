"""What executors with workers share: who goes where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lateral.areas.protocol import AreaSpec
from lateral.errors import OptionError


def sizes(areas: Mapping[str, AreaSpec]) -> dict[str, int]:
    """Nodes of each area: what the time of its solve goes with."""
    return {name: sum(len(b.conductors) for b in spec.case.feeder.buses) for name, spec in areas.items()}


def balanced(sizes: Mapping[str, int], n_groups: int | None) -> list[tuple[str, ...]]:
    """Areas in groups of about equal size: the largest first, each to the group that is lightest so far.

    Args:
        sizes: size of each area.
        n_groups: how many groups; absent: one per area. Never more than there are areas.

    Raises:
        OptionError: fewer than one group.
    """
    if n_groups is not None and n_groups < 1:
        message = f"n_workers is {n_groups}; at least 1"
        raise OptionError(message)
    groups: list[list[str]] = [[] for _ in range(min(len(sizes), n_groups or len(sizes)))]
    weight = [0] * len(groups)
    for name in sorted(sizes, key=lambda a: -sizes[a]):
        k = weight.index(min(weight))
        groups[k].append(name)
        weight[k] += max(sizes[name], 1)
    return [tuple(sorted(group, key=list(sizes).index)) for group in groups]


def named(areas: Sequence[str]) -> str:
    """Areas in a sentence: ``area '2'``, ``areas '2', '3'``."""
    return f"area{'s' if len(areas) > 1 else ''} {', '.join(repr(a) for a in areas)}"


__all__ = ["balanced", "named", "sizes"]
