"""The order of trials on one device: nothing beside a clock, judging beside the next warm-up, lone trials alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from runners.conveyor import Conveyor, Turn

Span = tuple[str, int, float, float]  # what, of which trial, from, to
SHORT = 0.05


def trial(turn: Turn, number: int, spans: list[Span], fails: str = "", seconds: float = SHORT) -> None:
    """A trial that does nothing but take its time."""
    try:
        turn.begin()
        for what in ("warm", "timed", "judged"):
            if what != "warm":
                (turn.start_clock if what == "timed" else turn.trained)()
            began = time.monotonic()
            time.sleep(seconds)
            spans.append((what, number, began, time.monotonic()))
            if fails == what:
                return
    finally:
        turn.over()


def overlap(one: Span, other: Span) -> bool:
    return one[2] < other[3] and other[2] < one[3]


def beside_a_clock(spans: list[Span]) -> list[tuple[Span, Span]]:
    timed = [span for span in spans if span[0] == "timed"]
    return [(one, other) for one in timed for other in spans if other is not one and overlap(one, other)]


def play(trials: int, how: Callable[[int], dict[str, bool]], fails: Callable[[int], str] = lambda _: "") -> list[Span]:
    conveyor = Conveyor()
    spans: list[Span] = []
    with ThreadPoolExecutor(2) as pool:
        under_way: list[Future[None]] = []
        for number in range(trials):
            turn = conveyor.enter(**how(number))
            under_way.append(pool.submit(trial, turn, number, spans, fails(number)))
        for one in under_way:
            one.result()
    conveyor.await_empty()
    assert conveyor.await_place() == 0
    return spans


def test_a_trial_warms_up_while_the_one_before_is_judged_and_no_clock_has_company() -> None:
    spans = play(6, lambda _: {"beside": True})
    assert len(spans) == 18 and beside_a_clock(spans) == []
    at = {span[:2]: span for span in spans}
    assert all(overlap(at["judged", number], at["warm", number + 1]) for number in range(5))


def test_a_trial_without_room_waits_and_a_lone_one_has_no_company_after_it_either() -> None:
    spans = play(4, lambda number: {"beside": number != 1, "alone": number == 2})
    at = {span[:2]: span for span in spans}
    together = [number for number in range(3) if overlap(at["judged", number], at["warm", number + 1])]
    assert beside_a_clock(spans) == [] and together == []


@pytest.mark.parametrize("seed", range(5))
def test_whatever_fails_the_order_holds_and_everybody_gets_his_turn(seed: int) -> None:
    draw = random.Random(seed)
    how = [{"beside": draw.random() < 0.8, "alone": draw.random() < 0.2} for _ in range(12)]
    fails = [draw.choice(("", "", "warm", "timed")) for _ in range(12)]
    spans = play(12, lambda number: how[number], lambda number: fails[number])
    assert {span[1] for span in spans} == set(range(12)) and beside_a_clock(spans) == []


def test_shared_seconds_are_told_by_the_earlier_trial() -> None:
    conveyor = Conveyor()
    first = conveyor.enter()
    assert not first.begin()
    first.start_clock()
    first.trained()
    second = conveyor.enter(beside=True)
    assert second.slot != first.slot and second.begin()
    time.sleep(SHORT)
    first.over()
    time.sleep(SHORT)
    second.start_clock()
    second.trained()
    third = conveyor.enter(beside=True)
    third.begin()
    time.sleep(SHORT)
    third.over()  # it fails while the second one is still judged
    second.over()
    second.over()
    assert first.overlapped == 0 and SHORT <= second.overlapped < 2 * SHORT <= third.overlapped + SHORT
    assert first.company and second.company and third.company
    assert not conveyor.enter(beside=True).company


def test_a_place_is_free_when_nobody_warms_up_or_trains() -> None:
    conveyor = Conveyor()
    turn = conveyor.enter()
    places: list[int] = []
    waiter = threading.Thread(target=lambda: places.append(conveyor.await_place()))
    waiter.start()
    turn.begin()
    turn.start_clock()
    waiter.join(SHORT)
    assert waiter.is_alive() and places == []
    turn.trained()
    waiter.join(5)
    assert places == [1]
    turn.over()
    assert conveyor.await_place() == 0
