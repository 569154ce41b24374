"""Whole campaigns of made-up candidates whose gain is known: what the rule confirms, and what is true of it."""

from dataclasses import dataclass

import numpy as np
import pytest

from research.validation import stats
from research.validation.rules import Direction, Evidence, NoiseFloor, PairedScore, Rule, Verdict, VerdictKind, decide

RULE = Rule(direction=Direction.LOWER)
SIGMA_TRIAL = 0.0015
SIGMA_PAIR = SIGMA_TRIAL * 2**0.5


@dataclass
class Outcome:
    improved_true: int = 0
    improved_false: int = 0
    kept_by_one_seed_false: int = 0
    real: int = 0
    trials: int = 0
    claimed: float = 0.0
    realised: float = 0.0


def true_gain(rng):
    """63 % of candidates do nothing, 30 % harm, 7 % help by 0.7 to 2.7 sigma of a trial."""
    kind = rng.random()
    if kind < 0.63:
        return 0.0
    return -abs(rng.normal(0, 0.004)) if kind < 0.93 else rng.uniform(0.001, 0.004)


def play(gain, rng, rule, bar):
    """Measure whatever the rule asks for until it gives a verdict."""
    floor = NoiseFloor(SIGMA_TRIAL, SIGMA_PAIR, 0.0, 12)
    scores: list[PairedScore] = []
    while True:
        step = decide(Evidence(tuple(scores), floor, bar=bar), rule)
        if isinstance(step, Verdict):
            return step, scores
        have = sum(score.stage is step.stage for score in scores)
        for place in range(have, step.pairs):
            noisy = 3.0 - gain + rng.normal(0, SIGMA_PAIR)
            scores.append(PairedScore(step.stage, place, len(scores), 3.0, noisy))


def campaign(candidates, seed, alpha=None):
    rng = np.random.default_rng(seed)
    outcome = Outcome()
    brought, confirmed = 0, 0
    for _ in range(candidates):
        gain = true_gain(rng)
        bar = stats.elond_bar(alpha, None, brought + 1, confirmed) if alpha else None
        verdict, scores = play(gain, rng, RULE, bar)
        brought += verdict.pairs > 0
        outcome.trials += 2 * len(scores)
        outcome.real += gain > 0
        outcome.kept_by_one_seed_false += gain <= 0 and scores[0].candidate < scores[0].baseline
        if verdict.kind is VerdictKind.IMPROVED:
            confirmed += 1
            outcome.improved_true += gain > 0
            outcome.improved_false += gain <= 0
            outcome.claimed += verdict.shrunk
            outcome.realised += gain
    return outcome


def test_a_campaign_of_200_candidates_makes_few_false_improvements():
    outcomes = [campaign(200, seed) for seed in range(6)]
    false = sum(outcome.improved_false for outcome in outcomes)
    true = sum(outcome.improved_true for outcome in outcomes)
    real = sum(outcome.real for outcome in outcomes)
    assert false / len(outcomes) <= 1.5, "0.6 measured over 100 campaigns"
    assert true / real >= 0.6, "0.72 measured"
    assert sum(outcome.kept_by_one_seed_false for outcome in outcomes) > 50 * max(false, 1)
    claimed, realised = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("claimed", "realised"))
    assert claimed / realised == pytest.approx(1.0, abs=0.12), "shrunk gains promise what was gained"
    assert np.mean([outcome.trials for outcome in outcomes]) < 1_700


def test_the_campaign_bar_leaves_hardly_any_false_improvement():
    outcomes = [campaign(200, seed, alpha=0.10) for seed in range(6)]
    assert sum(outcome.improved_false for outcome in outcomes) <= 2
    assert sum(o.improved_true for o in outcomes) / sum(o.real for o in outcomes) >= 0.5
