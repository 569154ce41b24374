"""The arithmetic of evidence, against scipy, against its promises, and by simulation with fixed seeds."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from research.validation import stats
from research.validation.rules import Direction, Rule

RULE = Rule(direction=Direction.LOWER)
GAINS = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=2, max_size=30)


def null_streams(streams=2000, pairs=24, seed=11):
    return np.random.default_rng(seed).standard_normal((streams, pairs))


def highest_e(streams, looks=RULE.looks):
    return np.max([stats.e_values(streams[:, :look], RULE.effects) for look in looks], axis=0)


@pytest.mark.parametrize("pairs", [2, 3, 4, 8, 24, 40])
@pytest.mark.parametrize("t", [-3.0, -0.5, 0.0, 1.0, 2.5, 6.0, 12.0])
def test_the_e_value_is_the_mean_density_ratio_of_the_t_statistic(pairs, t):
    gains = np.random.default_rng(pairs).standard_normal(pairs)
    gains = (gains - gains.mean()) / gains.std(ddof=1) + t / math.sqrt(pairs)
    shifts = np.array(RULE.effects) * math.sqrt(pairs)
    expected = np.mean(
        scipy.stats.nct.pdf(t, pairs - 1, shifts) / scipy.stats.t.pdf(t, pairs - 1),
    )
    assert stats.e_value(gains, RULE.effects) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(gains=GAINS, unit=st.floats(1e-6, 1e6))
def test_the_e_value_does_not_depend_on_the_unit_of_the_metric(gains, unit):
    scaled = [gain * unit for gain in gains]
    assert stats.e_value(scaled, RULE.effects) == pytest.approx(stats.e_value(gains, RULE.effects), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(gains=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=30))
def test_the_e_value_is_finite_and_not_negative_for_any_gains(gains):
    value = stats.e_value(gains, RULE.effects)
    assert math.isfinite(value) and value >= 0


@pytest.mark.parametrize("gains", [[], [0.3], [0.0] * 6, [0.25] * 8, [0.1 + 0.2, 0.3, 0.3, 0.3]])
def test_gains_that_never_vary_are_no_evidence(gains):
    assert stats.e_value(gains, RULE.effects) == 1.0


def test_a_huge_t_statistic_is_strong_evidence_and_not_an_overflow():
    gains = 1.0 + 1e-6 * null_streams(1, 2000)[0]
    assert stats.e_value(gains, RULE.effects) > 1e200
    assert stats.e_value(-gains, RULE.effects) == pytest.approx(0, abs=1e-200)


@settings(max_examples=30, deadline=None)
@given(gains=st.lists(st.floats(-10, 10), min_size=4, max_size=12), shift=st.floats(0.01, 5))
def test_better_gains_never_lower_the_e_value(gains, shift):
    if np.ptp(gains) < 1e-3:
        return
    better = [gain + shift for gain in gains]
    assert stats.e_value(better, RULE.effects) >= stats.e_value(gains, RULE.effects) * (1 - 1e-9)


def test_streams_are_weighed_together_as_they_are_alone():
    streams = null_streams(5, 8)
    alone = [stats.e_value(stream, RULE.effects) for stream in streams]
    assert stats.e_values(streams, RULE.effects) == pytest.approx(alone)


def test_without_an_effect_the_bar_is_rarely_reached_and_a_peeking_t_test_often():
    streams = null_streams()
    peeking = np.min(
        [scipy.stats.ttest_1samp(streams[:, :n], 0, axis=1, alternative="greater").pvalue for n in RULE.looks],
        axis=0,
    )
    crossed = np.mean(highest_e(streams) >= RULE.bar)
    assert crossed <= 0.05
    assert np.mean(highest_e(streams, range(2, 25)) >= RULE.bar) <= 0.05, "looks at every pair are paid for too"
    assert np.mean(peeking < 0.05) > 3 * crossed and np.mean(peeking < 0.05) > 0.12


def test_a_candidate_that_is_truly_worse_crosses_the_bar_even_less():
    streams = null_streams()
    assert np.all(highest_e(streams - 0.3) <= highest_e(streams))


def test_a_gain_of_two_sigma_is_confirmed_almost_always():
    assert np.mean(highest_e(null_streams(500) + 2.0) >= RULE.bar) > 0.99


def test_the_interval_covers_the_true_gain_at_every_look():
    streams = null_streams(600) + 0.4
    covered = np.ones(len(streams), dtype=bool)
    for look in RULE.looks:
        bounds = [stats.anytime_interval(stream, RULE.level, RULE.effects) for stream in streams[:, :look]]
        covered &= [low <= 0.4 <= high for low, high in bounds]
    assert covered.mean() >= 0.93, "0.90 is promised, 0.95 measured"


@settings(max_examples=60, deadline=None)
@given(gains=st.lists(st.floats(-3, 3), min_size=4, max_size=24))
def test_the_interval_excludes_zero_exactly_when_the_e_value_reaches_the_bar(gains):
    interval = stats.anytime_interval(gains, 1 / RULE.bar, RULE.effects)
    if interval is None or np.ptp(gains) < 1e-6:
        return
    e_value = stats.e_value(gains, RULE.effects)
    if abs(e_value / RULE.bar - 1) > 1e-6:
        assert (interval[0] > 0) == (e_value > RULE.bar)


@pytest.mark.parametrize("gains, interval", [([], None), ([1.0], None), ([0.0] * 8, (0.0, 0.0)), ([0.5] * 8, None)])
def test_pairs_that_bound_nothing_have_no_interval(gains, interval):
    assert stats.anytime_interval(gains, RULE.level, RULE.effects) == interval


def test_shrinkage_pulls_toward_zero_and_less_with_more_pairs():
    few, many = [0.5, 1.5, 0.5, 1.5], [0.5, 1.5] * 20
    assert 0 < stats.shrink(few, 1.0, RULE) < stats.shrink(many, 1.0, RULE) < 1
    assert stats.shrink(few, 1.0, RULE) == pytest.approx(1 / (1 + 1 / 4), rel=0.05), "mostly the narrow normal"
    assert stats.shrink([0.0, 2.0, -4.0, 6.0], 0.1, RULE) < 0.05, "an unsteady candidate does not hide"
    assert stats.shrink(few, 0.0, RULE) > 0, "a floor of zero falls back on the pairs' own sd"
    assert stats.shrink([0.0, 0.0], 0.0, RULE) == 0


def test_a_gain_far_beyond_the_noise_is_kept():
    """Of an unsteady gain of many sigma, one normal alone would keep a tenth."""
    gains = np.array([35.0, 49.0, 38.0, 46.0])
    narrow = 1 / (1 + gains.var(ddof=1) / len(gains))
    assert narrow < 0.12 and stats.shrinkage(gains, 1.0, RULE) > 0.7


@given(GAINS, st.floats(0, 1e3))
@example([1.0, 1.0], 2.2250738585e-313)
def test_shrinkage_keeps_a_share_whatever_the_sign(gains, sigma):
    kept = stats.shrinkage(gains, sigma, RULE)
    assert 0 <= kept <= 1
    assert kept == pytest.approx(stats.shrinkage([-gain for gain in gains], sigma, RULE))


def test_the_detectable_effect_is_confirmed_with_its_power():
    effect = stats.minimum_detectable_effect(RULE)
    assert effect == pytest.approx(0.79, abs=0.03)
    without_futility = np.mean(highest_e(null_streams() + effect) >= RULE.bar)
    assert 0.78 <= without_futility <= 0.86
    out_of_reach = Rule(direction=Direction.LOWER, looks=(4,), bar=1e9)
    assert stats.minimum_detectable_effect(out_of_reach) == math.inf


def test_the_campaign_bar_follows_e_lond():
    assert stats.elond_bar(0.1, [0.5, 0.25, 0.25], t=2, discoveries=0) == pytest.approx(40)
    assert stats.elond_bar(0.1, [0.5, 0.25, 0.25], t=2, discoveries=3) == pytest.approx(10)
    assert stats.elond_bar(0.1, [0.5, 0.5], t=3, discoveries=3) == math.inf
    assert stats.elond_bar(0.1, None, t=1, discoveries=0) == pytest.approx(80.4, abs=0.1)
    with pytest.raises(ValueError, match="gammas"):
        stats.elond_bar(0.1, [0.9, 0.2], t=1, discoveries=0)
    with pytest.raises(ValueError, match="alpha"):
        stats.elond_bar(0.1, None, t=0, discoveries=0)


def test_the_default_gammas_never_spend_more_than_alpha():
    spent = math.fsum(stats.gamma(t) for t in range(1, 100_001))
    rest = 100_002.5**-0.4 / (0.4 * stats.GAMMA_TOTAL)  # the integral over the remaining terms
    assert 0.9999 < spent + rest <= 1.0
