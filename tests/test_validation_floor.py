"""The noise floor: what A/A pairs say, how sure that is, and how it stays fresh."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from research.validation.floor import noise_floor, pooled_floor
from research.validation.records import Direction, NoiseFloor, Rule, Scale

SCORES = st.floats(0.5, 4.0)
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=12)


def test_the_noise_floor_recovers_both_sigmas():
    rng = np.random.default_rng(5)
    shared = rng.normal(3.0, 0.03, size=(3000, 1))
    floor = noise_floor(shared + rng.normal(0, 0.04, size=(3000, 2)))
    assert floor.sigma_trial == pytest.approx(0.05, rel=0.05)
    assert floor.sigma_pair == pytest.approx(0.04 * math.sqrt(2), rel=0.05)
    assert floor.trials == 6000


def test_an_arm_favoured_by_its_place_raises_sigma_rather_than_hiding():
    assert noise_floor([(1.0, 1.1)] * 6).sigma_pair == pytest.approx(0.1)


def test_drift_tells_a_warming_machine_from_noise():
    quiet = np.random.default_rng(8).normal(3, 0.01, size=(200, 6, 2))
    drifts = [noise_floor(pairs).drift for pairs in quiet]
    assert np.std(drifts) == pytest.approx(0.85, abs=0.12)
    assert noise_floor([(3 + 0.1 * step, 3 + 0.1 * step) for step in range(6)]).drift > 2
    assert noise_floor([(3.0, 3.0)] * 6).drift == 0


@pytest.mark.parametrize("pairs", [[], [(1.0, 1.0)], [(1.0, math.nan), (1.0, 1.0)]])
def test_a_noise_floor_needs_finite_pairs(pairs):
    with pytest.raises(ValueError, match="at least two pairs"):
        noise_floor(pairs)


@settings(max_examples=60, deadline=None)
@given(first=PAIRS, more=PAIRS, confirms=st.lists(PAIRS, max_size=4))
def test_a_pooled_floor_keeps_its_degrees_of_freedom(first, more, confirms):
    floor = noise_floor(first)
    pooled = pooled_floor(floor, more, confirms)
    assert pooled.freedom == len(first) + len(more) + sum(len(group) - 1 for group in confirms)
    assert pooled.trials == 2 * (len(first) + len(more)), "confirm pairs are no A/A trials"
    gaps = [[a - b for a, b in group] for group in confirms]
    squares = sum((a - b) ** 2 for a, b in [*first, *more]) + sum(float(np.var(gap)) * len(gap) for gap in gaps)
    assert pooled.sigma_pair == pytest.approx(math.sqrt(squares / pooled.freedom), abs=1e-9)
    assert pooled_floor(floor) == floor


def test_gains_and_levels_of_confirmed_candidates_are_no_noise():
    rng = np.random.default_rng(3)
    floor = noise_floor(rng.normal(3, 0.01, size=(6, 2)))
    groups = [rng.normal(3 - step, 0.01, size=(8, 2)) - [0, 0.5] for step in range(40)]
    pooled = pooled_floor(floor, confirms=groups)
    assert pooled.sigma_pair == pytest.approx(0.01 * math.sqrt(2), rel=0.1)
    assert pooled.sigma_trial == pytest.approx(0.01, rel=0.1)


def test_the_noise_of_times_is_a_share_of_them():
    rng = np.random.default_rng(4)
    floor = noise_floor(100 * np.exp(rng.normal(0, 0.02, size=(200, 2))))
    faster = 10 * np.exp(rng.normal(0, 0.02, size=(200, 2)))
    pooled = pooled_floor(floor, faster, scale=Scale.LOG)
    assert pooled.level == pytest.approx(10, rel=0.01)
    assert pooled.sigma_pair / pooled.level == pytest.approx(0.02 * math.sqrt(2), rel=0.1)
    rule = Rule(direction=Direction.LOWER, scale=Scale.LOG)
    assert pooled.on_scale(rule, 55.0).sigma_pair == pytest.approx(floor.on_scale(rule, 1.0).sigma_pair, rel=0.1)
    plain = NoiseFloor(1.0, 2.0, 0.0, 12)
    assert plain.on_scale(rule, 50.0).sigma_pair == pytest.approx(0.04), "a floor without a level takes the pairs'"


def test_drift_counts_at_twice_its_own_error():
    quiet = [noise_floor(pairs) for pairs in np.random.default_rng(9).normal(3, 0.01, size=(400, 6, 2))]
    assert quiet[0].drift_error == pytest.approx(0.845, abs=0.1)
    assert np.mean([floor.drifts for floor in quiet]) <= 0.08
    warming = noise_floor([(3 + 0.1 * step, 3.01 + 0.1 * step) for step in range(6)])
    assert warming.drifts and not noise_floor([(3.0, 3.0)] * 6).drifts
    assert NoiseFloor(1, 1, 1.8, 12).drifts and not NoiseFloor(1, 1, 1.6, 12).drifts


def test_the_range_of_sigma_holds_the_true_one():
    floors = [noise_floor(pairs) for pairs in np.random.default_rng(10).normal(3, 0.01, size=(600, 6, 2))]
    ranges = [floor.sigma_range for floor in floors]
    assert np.mean([low <= 0.01 * math.sqrt(2) <= high for low, high in ranges]) == pytest.approx(0.95, abs=0.025)
    low, high = floors[0].sigma_range
    expected = [floors[0].sigma_pair * math.sqrt(6 / scipy.stats.chi2.ppf(share, 6)) for share in (0.975, 0.025)]
    assert [low, high] == pytest.approx(expected)
