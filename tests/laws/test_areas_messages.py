"""Laws of messages between areas: what arrives is what was said, or is refused; the order does not matter."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from areas_toy import FIXED_POINT, Clock, Toy, plan
from lateral.areas.algorithms import EnappPriced
from lateral.areas.driver import iterate
from lateral.areas.faults import Faults
from lateral.areas.message import Bounds, Message, MessageError, decode, encode, seal
from lateral.areas.protocol import answer_of, unpack
from lateral.areas.transport import LONGEST, Transport

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


class Given(Transport):
    given: list[bytes] = []

    def carry(self, sent: Any) -> list[bytes]:
        return self.given


def message(p: float = 12.5, q: float = -1.0, round_: int = 1) -> Message:
    values = {"p": np.array([[p, q]]), "q": np.array([[q, p]]), "price_v": np.zeros((1, 2))}
    return Message("run", "3", "2", "b3", round_, 0, values)


def through(data: bytes) -> tuple[list[Message], list[str]]:
    transport = Given(plan(), run="run")
    transport.given = [data]
    return transport.deliver([message()]), transport.rejected


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    got, reasons = through(data)
    assert got == [] and len(reasons) == 1 and len(reasons[0]) <= LONGEST


@given(st.binary(max_size=300))
def test_random_bytes_with_a_checksum_are_refused(data: bytes) -> None:
    got, reasons = through(seal(data))
    assert got == [] and len(reasons) == 1


@given(st.data())
def test_mutated_messages_are_refused_or_the_same(data: st.DataObject) -> None:
    """Bytes cut out, put in and replaced."""
    good = encode(message())
    at = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 20))
    bad = good[:at] + data.draw(st.binary(max_size=20)) + good[at + cut :]
    got, reasons = through(bad)
    if bad == good:
        assert len(got) == 1
    else:
        assert got == [] and len(reasons) == 1


@given(
    key=st.sampled_from(["format", "run", "from", "to", "border", "round", "wave", "values", "p", "q", "price_v"]),
    value=json_values,
)
def test_whatever_stands_in_a_field_it_is_refused_or_sane(key: str, value: Any) -> None:
    """Also with a sound checksum: what gets through has the shape, the quantities and the bounds that it must have."""
    raw = json.loads(encode(message()))
    del raw["crc"]
    (raw["values"] if key in raw["values"] else raw)[key] = value
    got, reasons = through(seal(json.dumps(raw).encode()))
    assert len(got) + len(reasons) == 1
    for m in got:
        assert (m.run, m.sender, m.receiver, m.border) == ("run", "3", "2", "b3")
        assert m.round <= 1
        for x, v in m.values.items():
            low, high = Bounds().range_of(x)
            assert v.shape == (1, 2) and np.all((low <= v) & (v <= high))


@given(st.lists(st.lists(finite, min_size=2, max_size=2), min_size=1, max_size=3))
def test_numbers_keep_every_bit(rows: list[list[float]]) -> None:
    values = {"p": np.array(rows)}
    back = decode(encode(Message("r", "a", "b", "c", 1, 0, values)))
    assert back.values["p"].tobytes() == values["p"].tobytes()


@given(json_values)
def test_replies_that_are_no_answers_are_refused(value: Any) -> None:
    reply = {"area": "1", "status": "optimal", "text": "", "borders": {}, "objective": 1, "cost": 1, "seconds": 1}
    for key in (*reply, "iterations"):
        try:
            answer_of({**reply, "iterations": 1, key: value})
        except MessageError:
            continue


@given(st.binary(max_size=200))
def test_random_bytes_of_a_worker_are_refused(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        assert isinstance(unpack(data), dict)


@given(rounds=st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_held_is_the_newest_in_any_order(rounds: list[int]) -> None:
    chain, algorithm = plan(), EnappPriced()
    state = algorithm.init(chain)
    wave = algorithm.waves(chain)[0]
    for k in range(0, len(rounds), 3):
        delivered = [message(float(r), round_=r) for r in rounds[k : k + 3]]
        state = algorithm.step(chain, state, wave, {}, delivered)
        state = type(state)(**{**vars(state), "wave": 0})
        assert state.held["b3"]["p"][0, 0] == max(rounds[: k + 3])
        assert state.heard["2/b3"] == max(rounds[: k + 3])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    loss=st.floats(0.0, 0.4),
    delay=st.floats(0.0, 0.5),
    duplication=st.floats(0.0, 1.0),
    reordering=st.floats(0.0, 1.0),
    corruption=st.floats(0.0, 0.3),
    depth=st.sampled_from([0, 3]),
)
def test_whatever_happens_agreement_is_the_fixed_point(seed: int, depth: int, **chances: float) -> None:
    """The chain of `areas_toy` is a contraction, so within the tolerance of agreement lies only its fixed point."""
    toy, clock = Toy(), Clock()
    algorithm = EnappPriced(depth=depth, mixing=0.5)
    transport = Faults(**chances, seed=seed)(toy.plan, "r")
    for k, done in enumerate(
        iterate(toy.plan, algorithm, toy, transport, tolerance=1e-7, clock=clock, pause=clock.pause), 1
    ):
        if done.finished:
            break
        assert k < 2000
    for border, p in FIXED_POINT.items():
        assert float(done.state.held[border]["p"][0, 0]) == pytest.approx(p, abs=2e-3)  # 1e-7 of 1000 kVA, times 20
