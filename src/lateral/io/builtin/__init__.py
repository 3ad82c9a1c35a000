"""Cases that come with lateral: published ones as tables of numbers, and synthetic feeders of any size.

``load("ieee123-t5")`` gives a `Case`; ``names()`` lists them; ``describe()`` says in a line what each one
holds. A synthetic feeder is asked for by its size, ``tree-1000x24`` (buses x steps), and is the same feeder
each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lateral.case import Case
from lateral.errors import OptionError, did_you_mean
from lateral.io.builtin import controls, published, three_phase, tree


@dataclass(frozen=True, slots=True)
class Description:
    """What a built-in case is.

    Attributes:
        name: the name to load it by.
        text: one line.
        n_buses: number of buses.
        n_steps: number of steps of the horizon.
    """

    name: str
    text: str
    n_buses: int
    n_steps: int


@dataclass(frozen=True, slots=True)
class _Entry:
    description: Description
    build: Callable[[], Case]


def _entries() -> dict[str, _Entry]:
    out: dict[str, _Entry] = {}

    def add(name: str, text: str, n_buses: int, n_steps: int, build: Callable[[], Case]) -> None:
        out[name] = _Entry(Description(name, text, n_buses, n_steps), build)

    for n_steps, hours in ((5, "10 to 14"), (10, "8 to 17"), (24, "1 to 24")):
        text = f"published IEEE 123, balanced, one phase, four areas, 17 PV, 26 batteries, hours {hours}"
        add(f"ieee123-t{n_steps}", text, 128, n_steps, partial(published.ieee123, n_steps))
    add("ads10", "small balanced feeder, one phase, 2 PV, 2 batteries, one day", 10, 24, published.ads10)
    add("case33bw", "Baran and Wu 33-bus feeder at rated load, 5 open ties", 33, 1, published.case33bw)
    text = "Baran and Wu 33-bus feeder, 7 PV of 0.3 MW, four areas in a row; minimise loss"
    add("case33bw-areas", text, 33, 1, published.case33bw_areas)
    add("ieee13", "IEEE 13, three-phase, 2 PV buses, 3 battery buses, one day by hours", 16, 24, three_phase.ieee13)
    add("ieee13-rated", "IEEE 13, three-phase, rated load, one step", 16, 1, partial(three_phase.rated, "ieee13"))
    text = "IEEE 13, three-phase, with every device that decides something, six steps of four hours"
    add("ieee13-controls", text, 16, 6, controls.ieee13)
    text = "IEEE 123, three-phase, PV on 20 % and batteries on 30 % of the load buses, one day by quarters"
    add("ieee123", text, 132, 96, three_phase.ieee123)
    add("ieee123-rated", "IEEE 123, three-phase, rated load, one step", 132, 1, partial(three_phase.rated, "ieee123"))
    for n, t in ((128, 5), (1000, 24), (10000, 96)):
        text = "synthetic balanced feeder, PV on 20 % and batteries on 30 % of the load buses"
        add(tree.name_of(n, t), text, n, t, partial(tree.build, n, t))
    return out


def describe() -> tuple[Description, ...]:
    """What is there; any other size of ``tree-NxT`` can be loaded too."""
    return tuple(entry.description for entry in _entries().values())


def names() -> tuple[str, ...]:
    """Names of the built-in cases; any other size of ``tree-NxT`` can be loaded too."""
    return tuple(_entries())


def has(name: str) -> bool:
    """Whether `load` knows the name."""
    return name in _entries() or tree.size_of(name) is not None


def load(name: str) -> Case:
    """The built-in case of that name.

    Args:
        name: one of `names`, or ``tree-NxT`` with N buses and T steps.

    Raises:
        OptionError: there is no such case; the message offers the nearest names.
    """
    entry = _entries().get(name)
    if entry is not None:
        return entry.build()
    size = tree.size_of(name)
    if size is not None:
        return tree.build(*size)
    message = f"No built-in case {name!r}. {did_you_mean(name, names())}"
    raise OptionError(message)


__all__ = ["Description", "describe", "has", "load", "names"]
