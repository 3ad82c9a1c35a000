"""The driver on areas of arithmetic: agreement, silence, death, rejoining, failing areas, answers that are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from areas_toy import FIXED_POINT, Clock, Toy, plan
from lateral.areas.algorithms import Algorithm, Enapp, EnappPriced
from lateral.areas.driver import Patience, Progress, iterate
from lateral.areas.faults import Faults
from lateral.areas.message import Message
from lateral.areas.transport import Direct, Transport
from lateral.errors import OptionError

DAMPED = EnappPriced(depth=0, mixing=0.5)


def run(
    toy: Toy,
    *,
    algorithm: Algorithm | None = None,
    transport: Callable[..., Transport] | None = None,
    patience: Patience | None = None,
    clock: Clock | None = None,
    before: Callable[[int], None] | None = None,
    tolerance: float = 1e-9,
    max_rounds: int = 300,
    state: Any = None,
) -> list[Progress]:
    """All rounds of a run; ``before(k)`` is called before round k."""
    time = clock or Clock()
    carrier = Direct(toy.plan, run="r") if transport is None else transport(toy.plan, "r")
    out: list[Progress] = []
    if before is not None:
        before(1)
    for progress in iterate(
        toy.plan,
        algorithm or EnappPriced(),
        toy,
        carrier,
        tolerance=tolerance,
        patience=patience,
        clock=time,
        pause=time.pause,
        state=state,
    ):
        out.append(progress)
        if progress.finished or len(out) >= max_rounds:
            break
        if before is not None:
            before(len(out) + 1)
    return out


def p_of(progress: Progress, border: str) -> float:
    return float(progress.state.held[border]["p"][0, 0])


def test_agreement_is_the_fixed_point_by_hand() -> None:
    last = run(Toy())[-1]
    assert last.finished and last.dead == () and last.round.failures == {}
    for border, p in FIXED_POINT.items():
        assert p_of(last, border) == pytest.approx(p, abs=1e-5)  # tolerance 1e-9 on 1000 kVA, few units of it


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("algorithm", [EnappPriced(), DAMPED, Enapp(order="sweep")], ids=str)
def test_loss_changes_the_way_and_not_the_end(algorithm: Algorithm, loss: float) -> None:
    whole = run(Toy(), algorithm=algorithm)[-1]
    for seed in range(3):
        faults = Faults(loss=loss, seed=seed)
        last = run(Toy(), algorithm=algorithm, transport=faults)[-1]
        assert last.finished
        for border in FIXED_POINT:
            assert p_of(last, border) == pytest.approx(p_of(whole, border), abs=1e-4)


def test_everything_at_once_still_ends_right() -> None:
    for seed in range(5):
        faults = Faults(loss=0.2, delay=0.3, duplication=0.3, reordering=0.5, corruption=0.2, seed=seed)
        last = run(Toy(), transport=faults)[-1]
        assert last.finished
        for border, p in FIXED_POINT.items():
            assert p_of(last, border) == pytest.approx(p, abs=1e-4)


class Scripted(Transport):
    """Loses what a rule says."""

    def __init__(self, chain: Any, run: str, rule: Callable[[Message], bool]) -> None:
        super().__init__(chain, run=run)
        self.rule = rule
        self.arrives: list[bool] = []

    def deliver(self, messages: Any) -> list[Message]:
        self.arrives = [self.rule(m) for m in messages]
        return super().deliver(messages)

    def carry(self, sent: Any) -> list[bytes]:
        return [data for data, arrives in zip(sent, self.arrives, strict=True) if arrives]


def test_no_agreement_on_stale_data() -> None:
    """ENApp ends where what is said stands still; it must not where it stands still because nobody heard."""
    deaf = run(
        Toy(),
        algorithm=Enapp(order="sweep"),
        transport=lambda chain, name: Scripted(chain, name, lambda m: m.receiver != "1"),
        max_rounds=30,
    )
    assert not deaf[-1].finished
    changes = [
        np.abs(a.state.said["b2"]["p"] - b.state.said["b2"]["p"]).max() for a, b in itertools.pairwise(deaf[-3:])
    ]
    assert max(changes) == 0.0  # nothing moves
    assert deaf[-1].round.residual > 0.1  # "1" holds 0 kW, and "2" draws more than 100


def test_an_older_message_never_replaces_a_newer_one() -> None:
    chain = plan()
    algorithm = DAMPED
    toy = Toy(chain)
    state = algorithm.init(chain)
    up = algorithm.waves(chain)[0]

    def message(round_: int, p: float) -> Message:
        value = np.full((1, 2), p)
        return Message("r", "3", "2", "b3", round_, 0, {"p": value, "q": value, "price_v": value})

    for delivered, wanted in (
        ([message(2, 20.0)], 20.0),
        ([message(1, 10.0)], 20.0),  # older
        ([message(2, 99.0)], 20.0),  # again
        ([message(4, 40.0), message(3, 30.0)], 40.0),  # the wrong way round
    ):
        state = algorithm.step(chain, state, up, {}, delivered)
        state = state.__class__(**{**vars(state), "wave": 0})
        assert state.held["b3"]["p"][0, 0] == wanted
    assert toy.asked == {}


def test_rounds_that_missed_a_message_are_no_samples() -> None:
    lost = {3, 5}
    rounds = run(
        Toy(), transport=lambda chain, name: Scripted(chain, name, lambda m: m.round not in lost or m.sender != "3")
    )
    sizes = [len(r.state.points) for r in rounds[:6]]
    assert sizes == [1, 2, 2, 3, 3, 4]
    assert [r.state.missed_before for r in rounds[:6]] == [0, 0, 1, 0, 1, 0]


# --- silence and death


def test_a_dead_area_is_named_and_the_others_finish() -> None:
    toy, clock = Toy(restartable=False), Clock()

    def before(k: int) -> None:
        if k == 4:
            toy.gone.add("3")

    rounds = run(toy, before=before, clock=clock, patience=Patience(dead_s=5.0))
    last = rounds[-1]
    assert last.finished and last.dead == ("3",)
    assert last.round.frozen == ("b3",) and "silent" in last.round.failures["3"]
    assert set(last.round.statuses) == {"1", "2"}
    # the living agree, with what "3" said last: 1.2 p_2 = 80 + p_3
    assert p_of(last, "b2") == pytest.approx((80.0 + p_of(rounds[2], "b3")) / 1.2, abs=1e-5)
    assert p_of(last, "b3") == p_of(rounds[2], "b3")
    assert 5.0 <= clock.now <= 5.1


def test_attempts_are_made_after_growing_pauses() -> None:
    toy, clock = Toy(restartable=False), Clock()
    toy.gone.add("3")
    run(toy, clock=clock, patience=Patience(dead_s=10.0))
    assert clock.now == pytest.approx(10.0, abs=0.01)
    assert 5 <= toy.restarts["3"] <= 12  # 0, 0.05, 0.1, ... 2 s apart
    without = Toy(restartable=True)
    without.gone.add("3")
    run(without, patience=Patience(dead_s=10.0, restart=False))
    assert without.restarts == {}
    assert 5 <= without.asked["3"] <= 12


def test_no_rounds_are_spent_on_waiting() -> None:
    toy, clock = Toy(restartable=False), Clock()
    toy.gone.add("3")
    few = run(toy, clock=clock, patience=Patience(dead_s=5.0))
    other = Toy(restartable=False)
    other.gone.add("3")
    many = run(other, clock=Clock(), patience=Patience(dead_s=500.0))
    assert len(few) == len(many)


@pytest.mark.parametrize("victim", ["1", "2", "3"])
def test_an_area_that_comes_back_leaves_no_trace(victim: str) -> None:
    toy = Toy()

    def before(k: int) -> None:
        if k == 3:
            toy.gone.add(victim)

    last = run(toy, before=before)[-1]
    assert last.finished and last.dead == () and toy.restarts == {victim: 1}
    for border, p in FIXED_POINT.items():
        assert p_of(last, border) == pytest.approx(p, abs=1e-5)


def test_rejoining_after_death_from_the_state_that_is_held() -> None:
    toy, clock = Toy(restartable=False), Clock()
    toy.on_map = lambda: clock.pause(0.5)  # every wave takes half a second
    held: list[Progress] = []

    def before(k: int) -> None:
        if k == 3:
            toy.gone.add("3")
        if k == 6:
            toy.restartable = True

    faults = Faults(loss=0.5, seed=3)  # so that the others are not done before
    held = run(toy, before=before, clock=clock, patience=Patience(dead_s=1.0), transport=faults)
    assert any(r.dead == ("3",) for r in held[2:6])
    assert held[-1].dead == () and held[-1].finished
    back = next(k for k, r in enumerate(held) if k > 4 and r.dead == ())
    assert toy.asked["3"] >= 3 and "3" in held[back].round.seconds
    for border, p in FIXED_POINT.items():
        assert p_of(held[-1], border) == pytest.approx(p, abs=1e-4)


def test_a_late_area_is_waited_for_and_asked_again() -> None:
    toy, clock = Toy(restartable=False), Clock()

    def before(k: int) -> None:
        if k == 3:
            toy.late.add("3")

    toy.on_map = lambda: toy.late.clear() if clock.now > 2.0 else None
    rounds = run(toy, before=before, clock=clock, patience=Patience(dead_s=60.0))
    assert rounds[-1].finished and rounds[-1].dead == () and toy.restarts == {}
    assert any(r.round.failures for r in rounds[2:])
    for border, p in FIXED_POINT.items():
        assert p_of(rounds[-1], border) == pytest.approx(p, abs=1e-5)


def test_when_the_root_dies_the_rest_agrees() -> None:
    toy = Toy(restartable=False)

    def before(k: int) -> None:
        if k == 4:
            toy.gone.add("1")

    rounds = run(toy, before=before)
    last = rounds[-1]
    assert last.finished and last.dead == ("1",) and last.round.frozen == ("b2",)
    price = float(last.state.held["b2"]["price_p"][0, 0])
    assert price == float(rounds[2].state.held["b2"]["price_p"][0, 0])  # frozen
    # p_3 = 80 - 100 (price + 1e-3 p_3)
    assert p_of(last, "b3") == pytest.approx((80.0 - 100.0 * price) / 1.1, abs=1e-5)


def test_all_dead_ends_too() -> None:
    toy = Toy(restartable=False)
    toy.gone |= {"1", "2", "3"}
    last = run(toy)[-1]
    assert last.finished and last.dead == ("1", "2", "3")
    assert np.isnan(last.round.objective)


# --- areas that answer, but not with a solution


def test_an_infeasible_area_is_not_dead_and_may_find_a_way() -> None:
    toy = Toy()

    def before(k: int) -> None:
        toy.infeasible = {"3"} if 3 <= k <= 6 else set()

    rounds = run(toy, before=before, patience=Patience(dead_s=0.0))
    assert all(r.dead == () for r in rounds) and toy.restarts == {}
    assert "v_max at bus 7" in rounds[3].round.failures["3"]
    assert rounds[3].round.statuses["3"] == "infeasible"
    assert rounds[-1].finished and rounds[-1].round.failures == {}
    assert p_of(rounds[-1], "b3") == pytest.approx(FIXED_POINT["b3"], abs=1e-5)


def test_an_area_that_stays_infeasible_ends_the_run_when_nothing_moves() -> None:
    toy = Toy()
    toy.infeasible = {"3"}
    rounds = run(toy)
    assert rounds[-1].finished and rounds[-1].dead == ()
    assert "area '3'" in rounds[-1].round.failures["3"]
    assert len(rounds) < 100


def test_an_area_on_its_way_is_waited_for() -> None:
    """Where nothing moves but an area says ``limit_reached``, it goes on: it may be looking for a way (elastic)."""
    toy = Toy()

    def alter(reply: dict[str, Any]) -> dict[str, Any]:
        return {**reply, "status": "limit_reached", "text": "limit reached: not yet"}

    toy.altered["3"] = alter
    rounds = run(toy, max_rounds=60)
    assert not rounds[-1].finished and rounds[-1].round.residual <= 1e-9
    toy.altered.clear()
    assert run(toy, state=rounds[-1].state)[-1].finished


def _elsewhere(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "borders": {"b2": reply["borders"]["b3"]}}


def _shape(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "borders": {"b3": {x: v[:, :1] for x, v in reply["borders"]["b3"].items()}}}


def _more(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "borders": {"b3": {**reply["borders"]["b3"], "v": np.ones((1, 2))}}}


def _less(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "borders": {"b3": {"p": reply["borders"]["b3"]["p"]}}}


def _nan(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "borders": {"b3": {**reply["borders"]["b3"], "p": np.full((1, 2), np.nan)}}}


@pytest.mark.parametrize(
    "alter",
    [
        _elsewhere,
        _shape,
        _more,
        _less,
        _nan,
        lambda r: {**r, "area": "2"},
        lambda r: {**r, "iterations": float("inf")},
        lambda r: {**r, "objective": 10**400},
        lambda r: {**r, "borders": None},
        lambda r: {},
        lambda r: {"error": "area '3': the solver broke"},
    ],
)
def test_answers_that_are_none_are_refused_and_held_values_used(alter: Callable[[dict[str, Any]], Any]) -> None:
    toy = Toy()
    toy.altered["3"] = alter
    rounds = run(toy)
    last = rounds[-1]
    assert "area '3'" in last.round.failures["3"] and last.dead == ()
    assert last.round.statuses["3"] == "error"
    assert p_of(last, "b3") == 0.0  # the start: nothing that "3" said was used
    toy.altered.clear()
    healed = run(toy, state=last.state)[-1]
    assert p_of(healed, "b3") == pytest.approx(FIXED_POINT["b3"], abs=1e-5)


# --- age


def test_a_run_does_not_end_on_what_is_too_old() -> None:
    """At the fixed point, with a border that went quiet: the values fit, but nobody knows whether they still do."""
    state = run(Toy())[-1].state
    quiet = run(Toy(), state=state, transport=Faults(loss={"b3": 1.0}), patience=Patience(age_rounds=3), max_rounds=10)
    assert [r.finished for r in quiet] == [True]  # what was heard last is 1 round old, and fits
    older = state.__class__(**{**vars(state), "round": state.round + 3})
    rounds = run(Toy(), state=older, transport=Faults(loss={"b3": 1.0}), patience=Patience(age_rounds=3), max_rounds=10)
    assert not any(r.finished for r in rounds)
    assert rounds[0].round.residual < 1e-9 and rounds[0].round.stale == ("b3",)
    heard = run(Toy(), state=rounds[-1].state, patience=Patience(age_rounds=3))
    assert heard[-1].finished and len(heard) == 1


@pytest.mark.parametrize("wrong", [{"dead_s": -1.0}, {"solve_s": float("nan")}, {"age_rounds": -1}])
def test_patience_below_zero_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Patience(**wrong)
