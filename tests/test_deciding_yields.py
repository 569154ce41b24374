"""The arithmetic of deciding: choices that learn, plateaus that chance rarely makes, repetition that is seen."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from research.validation.yields import (
    LONGEST,
    SHORTEST,
    Outcome,
    Pull,
    Said,
    Tried,
    choose,
    least_used,
    patience,
    repetition,
    stretch,
    yields,
)

MODES = ("ablate", "combine", "exploit", "explore", "revisit")


def campaign(rates: dict[str, float], seed: int, pulls: int = 120, costs: dict[str, float] | None = None) -> float:
    """The mean gain for the cost of `pulls` choices, where each mode brings gains at its own rate."""
    draw, done = random.Random(seed), list[Pull]()
    for number in range(pulls):
        arm = choose(list(rates), done, seed * 1_000 + number)
        gain = draw.expovariate(100) if draw.random() < rates[arm] else 0.0
        done.append(Pull(arm, gain, (costs or {}).get(arm, 1.0)))
    return sum(rates[pull.arm] for pull in done) / sum(pull.cost for pull in done)


def test_the_better_mode_is_found_and_regret_falls_below_a_uniform_choice() -> None:
    rates = dict.fromkeys(MODES, 0.05) | {"combine": 0.35}
    uniform = sum(rates.values()) / len(rates)
    found = [campaign(rates, seed) for seed in range(25)]
    regret = 1 - (sum(found) / len(found) - uniform) / (max(rates.values()) - uniform)
    print(f"regret of the chooser: {regret:.0%} of the regret of a uniform choice")
    assert regret < 0.6
    assert sum(one > uniform for one in found) >= 23


def test_a_model_that_gains_the_same_for_less_is_asked_more_often() -> None:
    rates, costs = {"dear": 0.2, "cheap": 0.2}, {"dear": 4.0, "cheap": 1.0}
    found = [campaign(rates, seed, costs=costs) for seed in range(10)]
    assert sum(found) / len(found) > 1.3 * 0.2 / 2.5  # a uniform choice pays 2.5 a pull


def test_a_choice_is_the_same_for_the_same_records_and_seed_and_no_arm_is_given_up() -> None:
    pulls = [Pull("good", 0.05, 1.0)] * 50 + [Pull("poor", 0.0, 1.0)] * 50
    assert [choose(["good", "poor"], pulls, seed) for seed in range(40)] == [
        choose(["poor", "good"], pulls, seed) for seed in range(40)
    ]
    taken = Counter(choose(["good", "poor"], pulls, seed) for seed in range(400))
    assert taken["good"] > 300 and taken["poor"] >= 8
    assert choose(["only"], [], 1) == "only"
    assert choose(["free", "other"], [Pull("free", 0.0, 0.0)], 3) in ("free", "other")
    with pytest.raises(ValueError, match="no arm"):
        choose([], pulls, 1)


def test_a_mode_whose_gains_have_run_dry_is_left_for_the_one_that_came_alive() -> None:
    draw, done, late = random.Random(5), list[Pull](), Counter[str]()
    for number in range(240):
        rates = {"exploit": 0.4, "explore": 0.02} if number < 100 else {"exploit": 0.0, "explore": 0.3}
        arm = choose(list(rates), done, number)
        done.append(Pull(arm, 0.01 if draw.random() < rates[arm] else 0.0, 1.0))
        if number >= 180:
            late[arm] += 1
    assert late["explore"] > 2 * late["exploit"]


# Plateaus


def test_patience_grows_as_gains_become_rare_and_stays_within_its_bounds() -> None:
    waits = [patience(gains, 40) for gains in (20, 10, 5, 2, 0)]
    assert waits == sorted(waits) and waits[0] == SHORTEST and waits[-1] == LONGEST
    assert patience(0, 0) == LONGEST
    assert stretch([]).plateaus == 0


@pytest.mark.parametrize(("rate", "at_most"), [(0.1, 0.10), (0.2, 0.07), (0.4, 0.06)])
def test_under_a_steady_rate_few_stretches_are_called_a_plateau(rate: float, at_most: float) -> None:
    """False alarms: the share of stretches between two gains that are ever called a plateau."""
    draw, stretches, alarms, experiments = random.Random(7), 0, 0, 0
    for _ in range(40):
        history: list[bool] = []
        for _ in range(150):
            history.append(draw.random() < rate)
            experiments += 1
            if history[-1]:
                stretches += 1
            elif (now := stretch(history)).misses == now.patience:
                alarms += 1
    print(f"rate {rate}: {alarms} of {stretches} stretches, one in {experiments / max(1, alarms):.0f} experiments")
    assert alarms / stretches <= at_most


def test_a_rate_that_falls_to_nothing_is_noticed_and_plateaus_follow_each_other() -> None:
    before = [number % 4 == 0 for number in range(40)] + [True]
    wait = stretch(before).patience
    assert wait <= 14
    assert [stretch(before + [False] * misses).plateaus for misses in (wait - 1, wait, 2 * wait, 4 * wait)] == [
        0,
        1,
        2,
        4,
    ]
    assert stretch([*before, *[False] * wait, True]).plateaus == 0


# Repetition


def test_many_refused_duplicates_are_repetition() -> None:
    assert "4 of the last 8 ideas had been tried" in repetition(
        [Said(f"idea {word}", duplicate=word > "d") for word in "abcdefgh"]
    )
    assert repetition([Said("other"), Said("words")]) == ""


def test_the_same_tags_again_and_again_are_repetition_unless_they_gain() -> None:
    same = [Said(f"{name} the learning rate", frozenset({"schedule"})) for name in ("raise", "lower", "bend")] * 3
    assert "had the same tags" in repetition(same)
    assert repetition([*same[:4], Said("a gain", frozenset({"schedule"}), gained=True), *same[:4]]) == ""


def test_the_same_sentence_with_other_numbers_is_repetition() -> None:
    said = [Said(f"setting warmup steps to {number} helps the model converge") for number in range(100, 900, 100)]
    assert "nearly the same" in repetition(said)
    different = ["rotary", "gating", "muon", "dropout", "init", "batch", "clip", "tying"]
    assert repetition([Said(f"{word} {word}ness is changed") for word in different]) == ""


def test_the_modes_used_most_are_left_out_and_one_remains() -> None:
    used = ["exploit"] * 5 + ["explore"] * 3
    assert least_used(MODES, used, 1) == ["ablate", "combine", "explore", "revisit"]
    assert least_used(["exploit"], used, 2) == ["exploit"]


# Yields


def test_yields_are_counted_by_model_with_refused_ideas_and_sessions_without_one() -> None:
    tried = [
        Tried(1, 1, "llm", "small", "explore", Outcome.CONFIRMED, 0.02, 0.01, 3, 100.0, 0.5, 1000),
        Tried(2, 1, "llm", "small", "explore", Outcome.REFUSED, 0.02, None, None, 0.0, 0.1, 200),
        Tried(0, 1, "llm", "small", "explore", Outcome.NO_IDEA, 0.0, None, None, 0.0, 0.2, 300),
        Tried(1, 2, "catalogue", "", "explore", Outcome.NO_GAIN, 0.01, 0.0, 4, 100.0),
    ]
    small, catalogue = yields(tried, 0.01)
    assert (small.who, small.ideas, small.refused, small.experiments, small.confirmed) == ("small", 2, 1, 1, 1)
    assert small.money == pytest.approx(0.8) and small.tokens == 1500 and small.cost == pytest.approx(1.8)
    assert small.cost_a_gain == pytest.approx(1.8) and small.gain == 0.01
    assert (catalogue.who, catalogue.money_a_gain, catalogue.cost) == ("catalogue", None, 1.0)
