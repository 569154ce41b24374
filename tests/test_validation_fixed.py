"""The rules that read once, and the table of rules by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from research.validation import rules, stats, tails
from research.validation.fixed import mean_above_zero
from research.validation.named import RULES, RuleError, Setting, named_rule
from research.validation.outcomes import MorePairs, Verdict, WaitForNoise
from research.validation.records import (
    Direction,
    Evidence,
    Finding,
    NoiseFloor,
    PairedScore,
    Procedure,
    Rule,
    Scale,
    Severity,
    Stage,
    VerdictKind,
)

SETTING = Setting(Direction.LOWER)
TEN = named_rule("ten_seeds", SETTING)
SPEEDRUN = named_rule("speedrun", replace(SETTING, target=3.28))
FLOOR = NoiseFloor(0.7, 1.0, 0.1, 12)


def evidence(gains, baseline=3.0, noise=FLOOR, **rest):
    scores = [PairedScore(Stage.CONFIRM, at, at, baseline, baseline - gain) for at, gain in enumerate(gains)]
    return Evidence(tuple(scores), noise, **rest)


def wobble(mean, count=10, spread=1.0):
    return [mean + spread * (1 if at % 2 else -1) for at in range(count)]


@pytest.mark.parametrize("freedom", [1, 2, 3, 6, 9, 18, 47])
@pytest.mark.parametrize("t", [-4.0, -0.3, 0.0, 0.7, 2.821, 9.0])
def test_tails_agree_with_scipy(freedom, t):
    assert tails.student_tail(t, freedom) == pytest.approx(scipy.stats.t.sf(t, freedom), abs=1e-12, rel=1e-6)
    share = 0.01 + abs(t) / 10
    assert tails.chi_square_quantile(share, freedom) == pytest.approx(scipy.stats.chi2.ppf(share, freedom), rel=1e-8)
    assert tails.student_quantile(0.01, freedom) == pytest.approx(scipy.stats.t.isf(0.01, freedom), rel=1e-8)
    assert tails.sign_tail(freedom, 3) == pytest.approx(scipy.stats.binom.sf(freedom - 1, freedom + 3, 0.5))


def test_the_p_value_is_that_of_the_paired_t_test():
    gains = np.random.default_rng(1).normal(0.4, 1, 10)
    assert mean_above_zero(gains) == pytest.approx(scipy.stats.ttest_1samp(gains, 0, alternative="greater").pvalue)
    assert mean_above_zero([0.3] * 10) == mean_above_zero([0.3]) == 1.0


def test_ten_seeds_reads_nothing_before_ten_pairs_and_adds_none():
    assert rules.decide(evidence([]), TEN) == MorePairs(Stage.CONFIRM, 10, "10 pairs are read at once, none before")
    assert isinstance(rules.decide(evidence(wobble(9, 8)), TEN), MorePairs)
    doubtful = rules.decide(evidence(wobble(0.5), wanted=20), TEN)
    assert isinstance(doubtful, Verdict) and doubtful.kind is VerdictKind.INCONCLUSIVE
    assert isinstance(rules.decide(evidence([], noise=None), TEN), WaitForNoise)


@pytest.mark.parametrize(
    ("mean", "kind"), [(1.2, "improved"), (-1.2, "worse"), (0.5, "inconclusive"), (-0.5, "inconclusive")]
)
def test_ten_seeds_decides_by_p_below_one_percent(mean, kind):
    verdict = rules.decide(evidence(wobble(mean)), TEN)
    assert isinstance(verdict, Verdict)
    assert (verdict.kind, verdict.pairs) == (kind, 10)
    assert verdict.p_value == pytest.approx(
        scipy.stats.ttest_1samp(wobble(mean), 0, alternative="greater").pvalue, rel=1e-6
    )
    assert (verdict.low > 0) == (kind == "improved") and (verdict.high < 0) == (kind == "worse")
    assert rules.settle(evidence(wobble(mean)), TEN) == verdict


def test_ten_steady_pairs_without_a_gain_are_no_difference():
    verdict = rules.decide(evidence(wobble(0.0, spread=0.2)), TEN)
    assert isinstance(verdict, Verdict) and verdict.kind is VerdictKind.NO_DIFFERENCE


def test_a_structural_finding_beats_any_p():
    forged = Finding("protected_path", Severity.STRUCTURAL, "'judge.py' is protected")
    verdict = rules.decide(evidence(wobble(9), findings=(forged,)), TEN)
    assert isinstance(verdict, Verdict) and verdict.kind is VerdictKind.INVALID


def test_a_rule_that_reads_once_is_wrong_as_often_as_it_says():
    gains = np.random.default_rng(6).standard_normal((4000, 10))
    wrong = np.mean([mean_above_zero(stream) < TEN.p_bar for stream in gains])
    assert 0.005 <= wrong <= 0.015


def test_what_ten_seeds_can_detect_is_known():
    effect = stats.minimum_detectable_effect(TEN)
    gains = np.random.default_rng(7).normal(effect, 1, (2000, 10))
    assert np.mean([mean_above_zero(stream) < 0.01 for stream in gains]) == pytest.approx(0.8, abs=0.03)
    assert effect == pytest.approx(1.185, abs=0.02), "by the noncentral t distribution"


def test_a_speedrun_beats_its_target_over_the_candidates_runs_alone():
    runs = [3.27, 3.271, 3.269, 3.272, 3.268] * 2
    scores = tuple(PairedScore(Stage.CONFIRM, at, at, 3.3 + 0.3 * at, run) for at, run in enumerate(runs))
    verdict = rules.decide(Evidence(scores, FLOOR), SPEEDRUN)
    assert isinstance(verdict, Verdict) and verdict.kind is VerdictKind.IMPROVED
    expected = scipy.stats.ttest_1samp(runs, 3.28, alternative="less").pvalue
    assert verdict.p_value == pytest.approx(expected, rel=1e-6) and "target 3.28" in verdict.reason


def test_a_speedrun_that_misses_its_target_or_beats_no_baseline_is_no_gain():
    missed = rules.decide(evidence([0.01, 0.012] * 5, baseline=3.3), SPEEDRUN)
    assert isinstance(missed, Verdict) and missed.kind is VerdictKind.INCONCLUSIVE and missed.p_value > 0.5
    slower = rules.decide(evidence([-0.01, -0.012] * 5, baseline=3.2), SPEEDRUN)
    assert isinstance(slower, Verdict) and slower.kind is VerdictKind.INCONCLUSIVE and slower.p_value < 0.01
    assert "no better than its baseline" in slower.reason


def test_runs_at_the_cap_count_against_a_speedrun():
    rule = named_rule("speedrun", replace(SETTING, scale=Scale.LOG, target=30.0))
    runs = [20.0, 21.0, 20.5, 19.8, 20.1, 20.2, 20.3, 20.4, 20.6, 20.7]
    scores = [PairedScore(Stage.CONFIRM, at, at, 31.0, run) for at, run in enumerate(runs)]
    clean = rules.decide(Evidence(tuple(scores), FLOOR), rule)
    scores[3] = replace(scores[3], candidate_censored=True)
    capped = rules.decide(Evidence(tuple(scores), FLOOR), rule)
    assert isinstance(clean, Verdict) and isinstance(capped, Verdict)
    assert clean.kind is VerdictKind.IMPROVED and capped.p_value == pytest.approx(11 / 1024)
    assert capped.kind is VerdictKind.INCONCLUSIVE


@pytest.mark.parametrize("name", RULES)
def test_every_named_rule_survives_json_and_keeps_its_name(name):
    target = 3.28 if RULES[name].needs_target else None
    rule = named_rule(name, replace(SETTING, target=target))
    assert Rule.from_json(rule.to_json()) == rule and rule.name == name
    assert rule.is_sequential == (rule.procedure is Procedure.FUNNEL)


def test_times_stake_a_share_on_signs_before_any_run_is_capped():
    assert named_rule("funnel", replace(SETTING, scale=Scale.LOG)).censored_share == 0.25
    assert named_rule("funnel", SETTING) == Rule(direction=Direction.LOWER)


@pytest.mark.parametrize(
    ("name", "target", "complaint"),
    [
        ("fast", None, "choose one of funnel, ten_seeds, speedrun"),
        ("speedrun", None, "needs a target"),
        ("funnel", 3.0, "has no target; only speedrun has"),
    ],
)
def test_a_rule_that_cannot_be_made_says_why(name, target, complaint):
    with pytest.raises(RuleError, match=complaint):
        named_rule(name, replace(SETTING, target=target))


def test_the_table_of_rules_and_the_tails_load_without_numpy_or_scipy():
    code = (
        "import sys, research.validation.named, research.validation.fixed as fixed;"
        "fixed.mean_above_zero([1.0, 2.0, 0.5]);"
        "from research.validation.records import NoiseFloor; NoiseFloor(1.0, 1.0, 0.0, 12).sigma_range;"
        "heavy = {'numpy', 'scipy', 'django', 'torch'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
