"""A gain taken apart: what is planted in the curves as speed or as a better model comes out as that."""

from __future__ import annotations

import numpy as np
import pytest

from research.validation.records import Direction
from research.validation.split import Curve, CurvePair, split_gain

NOISE = 0.1


def curve(end: int, better: float = 0.0, seed: int = 0, every: int = 5) -> Curve:
    """A loss that falls with the logarithm of the step; the batches, and so the noise, are the seed's."""
    steps = np.arange(0, end + 1, every, dtype=np.int64)
    noise = np.random.default_rng(seed).normal(0, NOISE, 100_000)[steps]
    return Curve(steps, 3.0 - 0.3 * np.log1p(steps) - better + noise)


def pairs(base: int, cand: int, better: float = 0.0, count: int = 6) -> list[CurvePair]:
    return [CurvePair(curve(base, 0.0, seed), curve(cand, better, seed)) for seed in range(count)]


def test_a_better_model_at_the_same_speed_is_all_modelling() -> None:
    split = split_gain(pairs(1000, 1000, 0.05), Direction.LOWER)
    assert split is not None and split.pairs == 6
    assert split.modelling.mean == pytest.approx(0.05, abs=1e-9), "the same batches: their noise cancels"
    assert split.throughput.mean == 0.0 and split.total == split.modelling


def test_the_same_model_at_twice_the_speed_is_all_throughput() -> None:
    split = split_gain(pairs(1000, 2000), Direction.LOWER)
    assert split is not None and split.throughput.error is not None
    assert split.modelling.mean == pytest.approx(0.0, abs=1e-9)
    assert abs(split.throughput.mean - 0.3 * np.log(2)) < 3 * split.throughput.error + 0.005
    assert (split.baseline_steps, split.candidate_steps) == (1000, 2000)


def test_a_slower_and_better_model_has_both_signs() -> None:
    split = split_gain(pairs(2000, 1000, 0.3), Direction.LOWER)
    assert split is not None
    assert split.modelling.mean == pytest.approx(0.3, abs=1e-9)
    assert split.throughput.mean < -0.15
    assert split.total.mean == pytest.approx(split.modelling.mean + split.throughput.mean)


def test_higher_may_be_better() -> None:
    split = split_gain(pairs(1000, 1000, 0.05), Direction.HIGHER)
    assert split is not None and split.modelling.mean == pytest.approx(-0.05, abs=1e-9)


def test_arms_that_log_at_different_steps_are_compared_by_their_means() -> None:
    read = [CurvePair(curve(1000, 0, seed, every=10), curve(1003, 0.05, seed, every=17)) for seed in range(8)]
    split = split_gain(read, Direction.LOWER)
    assert split is not None and split.modelling.error is not None
    assert abs(split.modelling.mean - 0.05) < 4 * split.modelling.error


def test_the_error_is_that_of_the_mean_over_pairs() -> None:
    split = split_gain(pairs(1000, 2000, count=12), Direction.LOWER)
    one = split_gain(pairs(1000, 2000, count=1), Direction.LOWER)
    assert split is not None and one is not None and split.throughput.error is not None
    assert one.throughput.error is None
    # a fifth of 1,000 or 2,000 steps, every fifth one logged: two means of 40 or fewer points each
    assert 0.2 < split.throughput.error / (NOISE * np.sqrt(2 / 40 / 12)) < 2.5


def test_what_is_not_finite_or_not_there_is_left_out() -> None:
    broken = curve(1000)
    broken.values[-3:] = np.nan
    empty = Curve(np.array([], dtype=np.int64), np.array([]))
    assert split_gain([CurvePair(curve(1000), empty)], Direction.LOWER) is None
    assert split_gain([], Direction.LOWER) is None
    mended = split_gain([CurvePair(broken, curve(1000, 0.05)), CurvePair(empty, empty)], Direction.LOWER)
    assert mended is not None and mended.pairs == 1 and mended.baseline_steps == 985
    assert mended.modelling.mean == pytest.approx(0.05, abs=1e-9)


def test_points_may_come_in_any_order() -> None:
    straight = curve(1000, 0.05)
    mixed = Curve(straight.steps[::-1].copy(), straight.values[::-1].copy())
    one, two = (split_gain([CurvePair(curve(1000), arm)], Direction.LOWER) for arm in (straight, mixed))
    assert one == two
