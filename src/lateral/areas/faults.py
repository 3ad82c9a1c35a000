"""Faults: a transport that loses, delays, repeats, reorders and corrupts messages, to rehearse what a run then does.

::

    solve_areas(partition, transport=Faults(loss=0.3, delay=0.1, corruption=0.05, seed=1))

Whatever happens is drawn from one seeded generator, so that a run can be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from lateral.areas.message import Bounds, seal, unseal
from lateral.areas.plan import Plan
from lateral.areas.transport import Transport
from lateral.errors import OptionError


@final
@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong, and how often; makes the transport (``solve_areas(transport=Faults(...))``).

    Attributes:
        loss: probability that a message is lost; or that at each border, by its name.
        delay: probability that a message arrives late.
        longest_delay: latest arrival, in waves; lateness is uniform from 1 to this.
        duplication: probability that a message arrives twice, the second time up to ``longest_delay`` waves later.
        reordering: probability that what arrives in one wave is shuffled.
        corruption: probability that a message is spoilt, see `SPOILERS`.
        seed: of the generator.

    Raises:
        OptionError: something that is no probability, or a delay below 1.
    """

    loss: float | Mapping[str, float] = 0.0
    delay: float = 0.0
    longest_delay: int = 4
    duplication: float = 0.0
    reordering: float = 0.0
    corruption: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        by_border = dict(self.loss) if isinstance(self.loss, Mapping) else {"": self.loss}
        given = {f"loss {name}".strip(): value for name, value in by_border.items()}
        given |= {x: getattr(self, x) for x in ("delay", "duplication", "reordering", "corruption")}
        wrong = [f"{name} {value!r}" for name, value in given.items() if not 0.0 <= value <= 1.0]
        if wrong:
            message = f"{', '.join(wrong)}: a probability lies between 0 and 1"
            raise OptionError(message)
        if self.longest_delay < 1:
            message = f"longest_delay {self.longest_delay!r}: a late message is at least one wave late"
            raise OptionError(message)

    def __call__(self, plan: Plan, run: str) -> Faulty:
        """The transport of a run.

        Raises:
            OptionError: a loss at a border that does not exist.
        """
        return Faulty(plan, run=run, faults=self)


@final
class Faulty(Transport):
    """A transport in which `Faults` happen.

    Attributes:
        faults: what, and how often.
        counts: how often it happened: lost, delayed, repeated, shuffled, spoilt.
    """

    def __init__(self, plan: Plan, *, run: str, bounds: Bounds | None = None, faults: Faults | None = None) -> None:
        super().__init__(plan, run=run, bounds=bounds)
        self.faults = faults or Faults()
        if isinstance(self.faults.loss, Mapping):
            unknown = [name for name in self.faults.loss if name not in plan.borders]
            if unknown:
                message = f"there is no border {unknown[0]!r}; there are {', '.join(plan.borders)}"
                raise OptionError(message)
        self.counts = dict.fromkeys(("lost", "delayed", "repeated", "shuffled", "spoilt"), 0)
        self._rng = np.random.default_rng(self.faults.seed)
        self._wave = 0
        self._under_way: list[tuple[int, bytes]] = []

    def carry(self, sent: Sequence[bytes]) -> Sequence[bytes]:
        """What arrives now: of what was sent now, and of what is late."""
        f = self.faults
        self._wave += 1
        for data in sent:
            if self._happens(self._loss_of(data), "lost"):
                continue
            text = spoilt(data, self._rng) if self._happens(f.corruption, "spoilt") else data
            due = self._wave + (self._some_waves(1) if self._happens(f.delay, "delayed") else 0)
            self._under_way.append((due, text))
            if self._happens(f.duplication, "repeated"):
                self._under_way.append((due + self._some_waves(0), text))
        arrived = [data for due, data in self._under_way if due <= self._wave]
        self._under_way = [(due, data) for due, data in self._under_way if due > self._wave]
        if len(arrived) > 1 and self._happens(f.reordering, "shuffled"):
            arrived = [arrived[k] for k in self._rng.permutation(len(arrived))]
        return arrived

    def _happens(self, probability: float, what: str) -> bool:
        hit = bool(self._rng.random() < probability)
        self.counts[what] += hit
        return hit

    def _some_waves(self, least: int) -> int:
        return int(self._rng.integers(least, self.faults.longest_delay + 1))

    def _loss_of(self, data: bytes) -> float:
        loss = self.faults.loss
        if isinstance(loss, Mapping):
            return loss.get(json.loads(data)["border"], 0.0)
        return loss


def spoilt(data: bytes, rng: np.random.Generator) -> bytes:
    """A message that something happened to, drawn from `SPOILERS`. None of them may be taken for a message."""
    how = SPOILERS[list(SPOILERS)[int(rng.integers(len(SPOILERS)))]]
    return how(data, rng)


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four bits are not what they were."""
    out = bytearray(data)
    for at in rng.choice(8 * len(data), size=int(rng.integers(1, 5)), replace=False):
        out[at // 8] ^= 1 << (at % 8)
    return bytes(out)


def _truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _garbage(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(1, len(data) + 1)))


def _resealed(change: Callable[[dict[str, Any], np.random.Generator], None]) -> Callable[..., bytes]:
    """Something wrong with a sound checksum: an error of who sent it, or intent."""

    def spoil(data: bytes, rng: np.random.Generator) -> bytes:
        raw = json.loads(unseal(data))
        change(raw, rng)
        return seal(json.dumps(raw).encode())

    return spoil


def _one_value(new: float) -> Callable[[dict[str, Any], np.random.Generator], None]:
    def change(raw: dict[str, Any], rng: np.random.Generator) -> None:
        rows = raw["values"][list(raw["values"])[int(rng.integers(len(raw["values"])))]]
        row = rows[int(rng.integers(len(rows)))]
        row[int(rng.integers(len(row)))] = new

    return change


def _header(key: str, new: Any) -> Callable[[dict[str, Any], np.random.Generator], None]:
    def change(raw: dict[str, Any], _: np.random.Generator) -> None:
        raw[key] = new

    return change


def _shortened(raw: dict[str, Any], _: np.random.Generator) -> None:
    raw["values"] = {x: [row[:-1] for row in rows] for x, rows in raw["values"].items()}


def _incomplete(raw: dict[str, Any], rng: np.random.Generator) -> None:
    del raw["values"][list(raw["values"])[int(rng.integers(len(raw["values"])))]]


def _others_say(raw: dict[str, Any], _: np.random.Generator) -> None:
    raw["from"], raw["to"] = raw["to"], raw["to"]


#: What can happen to a message. From "nan" on the checksum is sound, and only the meaning is wrong.
SPOILERS: Mapping[str, Callable[..., bytes]] = {
    "flipped bits": _flipped,
    "truncated": _truncated,
    "garbage": _garbage,
    "nan": _resealed(_one_value(float("nan"))),
    "infinite": _resealed(_one_value(float("inf"))),
    "absurd": _resealed(_one_value(1e300)),
    "shape": _resealed(_shortened),
    "incomplete": _resealed(_incomplete),
    "run": _resealed(_header("run", "another run")),
    "border": _resealed(_header("border", "another border")),
    "sender": _resealed(_others_say),
    "version": _resealed(_header("format", 0)),
    "round": _resealed(_header("round", 10**9)),
}


__all__ = ["SPOILERS", "Faults", "Faulty", "spoilt"]
