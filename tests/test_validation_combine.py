"""Interactions, ablations and promises: the arithmetic of measurements beside each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.validation.combine import AblationRow, Calibration, Interaction, Measured, interaction, lost, measured
from research.validation.records import Direction, PairedScore, Rule, Scale, Stage

RULE = Rule(direction=Direction.LOWER)
gain = st.floats(-1, 1).map(lambda value: round(value, 6))
gains = st.lists(gain, min_size=4, max_size=12)


def paired(gains: list[float]) -> list[PairedScore]:
    """Pairs with these gains, a lower score being better."""
    return [PairedScore(Stage.CONFIRM, number, number, 0.0, -gain) for number, gain in enumerate(gains)]


def both(first: list[float], second: list[float], together: list[float]) -> Interaction:
    found = interaction([("a", paired(first)), ("b", paired(second))], ("a and b", paired(together)), RULE)
    assert found is not None
    return found


@given(gains, gains, gains)
def test_a_surplus_is_what_together_is_more_than_the_sum(a: list[float], b: list[float], ab: list[float]) -> None:
    found = both(a, b, ab)
    count = min(len(a), len(b), len(ab))
    assert {part.pairs for part in (*found.parts, found.together)} == {count}
    assert math.isclose(found.expected, sum(a[:count]) / count + sum(b[:count]) / count, abs_tol=1e-12)
    assert math.isclose(found.surplus, sum(ab[:count]) / count - found.expected, abs_tol=1e-12)
    if found.low is not None and found.high is not None:
        assert found.low - 1e-9 <= found.surplus <= found.high + 1e-9
        assert found.sign == (found.low > 0) - (found.high < 0)


@given(gains, gains, gains)
def test_neither_the_order_of_the_parts_nor_later_pairs_of_one_arm_matter(
    a: list[float], b: list[float], ab: list[float]
) -> None:
    arms = [("a", paired(a)), ("b", paired(b))]
    there, back = (interaction(parts, ("x", paired(ab)), RULE) for parts in (arms, arms[::-1]))
    assert there and back and math.isclose(there.surplus, back.surplus, abs_tol=1e-12)
    count = min(len(a), len(b), len(ab))
    assert both(a[:count], b, [*ab, 0.9]) == both(a[:count], b[:count], ab[:count])


@given(gains, gains, gains, st.floats(0.01, 100))
def test_the_unit_of_the_metric_does_not_matter(a: list[float], b: list[float], ab: list[float], unit: float) -> None:
    found, scaled = both(a, b, ab), both(*([unit * value for value in arm] for arm in (a, b, ab)))
    assert math.isclose(scaled.surplus, unit * found.surplus, rel_tol=1e-9, abs_tol=1e-9 * unit)
    if found.low is not None and scaled.low is not None:
        assert math.isclose(scaled.low, unit * found.low, rel_tol=1e-6, abs_tol=1e-6 * unit)


@pytest.mark.parametrize("pairs", [4, 6])
def test_the_interval_of_a_surplus_holds_as_often_as_it_says(pairs: int) -> None:
    """Each end is wrong with at most 5 %: with arms of different noise, over 1,000 experiments of a true surplus."""
    draw, truth, wrong = np.random.default_rng(20261126), 0.7, [0, 0]
    for _ in range(1000):
        arms = [draw.normal(mean, sd, pairs).tolist() for mean, sd in ((1, 1), (2, 0.5), (3 + truth, 1.5))]
        found = both(*arms)
        assert found.low is not None and found.high is not None
        wrong[0] += found.low > truth
        wrong[1] += found.high < truth
    assert max(wrong) <= 1000 * (RULE.level + 3 * math.sqrt(RULE.level * (1 - RULE.level) / 1000))


def test_a_clear_interaction_is_shown_and_a_clear_sum_is_not_called_one() -> None:
    noise = [0.01, -0.02, 0.015, -0.005]
    one, two = [1 + x for x in noise], [2 - x for x in noise]
    assert both(one, two, [5 + x for x in noise]).sign == 1
    assert both(one, two, [2 + x for x in noise]).sign == -1
    assert both(one, two, [3 + 3 * x for x in noise]).sign == 0


def test_an_arm_without_a_pair_says_nothing() -> None:
    assert interaction([("a", paired([1.0])), ("b", [])], ("x", paired([1.0])), RULE) is None
    assert measured("a", [], RULE) == Measured("a", None, None, None, 0)
    alone = both([1.0], [1.0], [3.0])
    assert (alone.surplus, alone.low, alone.sign) == (1.0, None, 0), "one pair bounds nothing"


def test_a_loss_is_a_gain_turned_round() -> None:
    pairs = paired([-0.5, -0.7, -0.6, -0.55])
    gain, loss = measured("x", pairs, RULE), lost("x", pairs, RULE)
    assert gain.effect and gain.low and gain.high
    assert (loss.effect, loss.low, loss.high) == (-gain.effect, -gain.high, -gain.low)
    assert lost("x", [], RULE) == Measured("x", None, None, None, 0)


def test_times_multiply_where_scores_add() -> None:
    """Two changes that each halve the time make it a quarter: nothing is left over on the log scale."""
    rule = Rule(direction=Direction.LOWER, scale=Scale.LOG)
    noise = [1.0, 1.01, 0.99, 1.005]
    arm = {
        factor: [PairedScore(Stage.CONFIRM, i, i, 8.0, 8 * factor * x) for i, x in enumerate(noise)]
        for factor in (0.5, 0.25)
    }
    found = interaction([("a", arm[0.5]), ("b", arm[0.5])], ("both", arm[0.25]), rule)
    assert found and found.low is not None and found.high is not None
    assert abs(found.surplus) < 0.05 and found.low < 0 < found.high and found.sign == 0
    assert math.isclose(found.expected, 6.0, rel_tol=0.01) and math.isclose(
        found.together.effect or 0, 6.0, rel_tol=0.01
    )


def test_runs_at_the_cap_bound_no_surplus() -> None:
    rule = Rule(direction=Direction.LOWER, scale=Scale.LOG)
    usual = [PairedScore(Stage.CONFIRM, i, i, 8.0, 4.0 + i / 100) for i in range(4)]
    capped = [*usual[:3], PairedScore(Stage.CONFIRM, 3, 3, 10.0, 4.0, baseline_censored=True)]
    found = interaction([("a", usual), ("b", capped)], ("both", usual), rule)
    assert found and (found.low, found.high, found.sign) == (None, None, 0)


def test_a_promise_is_broken_where_it_lies_outside_the_interval() -> None:
    kept = Measured("champion", 0.9, 0.8, 1.0, 6)
    assert [Calibration(10, promise, kept).sign for promise in (0.7, 0.8, 0.95, 1.1)] == [1, 0, 0, -1]
    assert AblationRow("alpha", kept).sign == 1
    assert AblationRow("beta", Measured("beta", None, None, None, 0), "conflict in train.py").sign == 0


@pytest.mark.parametrize("record", [
    Calibration(3, 0.1, Measured("champion", 0.1, None, None, 1)),
    AblationRow("alpha", Measured("alpha", 0.1, -0.1, 0.3, 6)),
    both([1.0, 1.1], [2.0, 2.1], [3.0, 3.3]),
])  # fmt: skip
def test_records_travel_as_json(record: Calibration | AblationRow | Interaction) -> None:
    assert type(record).from_json(record.to_json()) == record
