"""More pairs after a verdict: what they say alone, and with the pairs that were there."""

from __future__ import annotations

import numpy as np
import pytest

from research.validation import rules, stats
from research.validation.rules import Direction, Evidence, Finding, NoiseFloor, PairedScore, Rule, Severity, Stage

RULE = Rule(direction=Direction.LOWER)
FLOOR = NoiseFloor(sigma_trial=0.01, sigma_pair=0.01, drift=0.0, trials=12)


def evidence(*gains: float, stage: Stage = Stage.CONFIRM, noise: NoiseFloor | None = FLOOR, seed: int = 0) -> Evidence:
    pairs = [PairedScore(stage, at, seed + at, 2.0, 2.0 - gain) for at, gain in enumerate(gains)]
    return Evidence(tuple(pairs), noise)


@pytest.mark.parametrize(
    ("gains", "kind"),
    [
        ((0.03, 0.035, 0.032, 0.028, 0.031), "improved"),
        ((-0.03, -0.035, -0.032, -0.028, -0.031), "worse"),
        ((0.01, -0.01, 0.002), "inconclusive"),
        ((0.01,), "inconclusive"),
        ((0.0001, -0.0001) * 10, "no_difference"),
    ],
)
def test_a_replicate_ends_at_any_number_of_pairs(gains: tuple[float, ...], kind: str) -> None:
    verdict = rules.settle(evidence(*gains), RULE)
    assert isinstance(verdict, rules.Verdict)
    assert (verdict.kind, verdict.pairs, verdict.stage) == (kind, len(gains), Stage.CONFIRM)


def test_a_replicate_says_what_the_rule_says_at_a_look() -> None:
    found = evidence(0.03, 0.035, 0.032, 0.028)
    assert rules.settle(found, RULE) == rules.decide(found, RULE)


def test_a_replicate_waits_for_the_noise_floor_and_is_invalid_with_a_leak() -> None:
    assert isinstance(rules.settle(evidence(0.03, 0.03, noise=None), RULE), rules.WaitForNoise)
    leak = Finding("future_leak", Severity.STRUCTURAL, "it reads ahead")
    bad = Evidence(evidence(0.03, 0.04).pairs, FLOOR, (leak,))
    verdict = rules.settle(bad, RULE)
    assert isinstance(verdict, rules.Verdict) and verdict.kind == "invalid"
    assert rules.pool([evidence(0.03, 0.04, seed=9), bad], RULE) is None


def test_all_pairs_are_pooled_in_order_and_screening_is_not_among_them() -> None:
    first, second = (0.01, 0.02, 0.015, 0.02), (0.012, 0.018)
    screened = evidence(0.9, stage=Stage.SCREEN, seed=50)
    original = Evidence((*screened.pairs, *evidence(*first).pairs), FLOOR, bar=33.0)
    pooled = rules.pool([original, evidence(*second, seed=9)], RULE)
    assert pooled is not None and pooled.pairs == 6 and pooled.bar == 33.0
    gains = [pytest.approx(gain) for gain in (*first, *second)]
    assert list(original.gains(RULE, Stage.CONFIRM)) == gains[:4]
    assert pooled.effect == pytest.approx(np.mean([*first, *second]))
    assert pooled.relative == pytest.approx(pooled.effect / 2)
    assert pooled.e_value == pytest.approx(stats.e_value([*first, *second], RULE.effects))
    assert rules.pool([screened], RULE) is None and rules.pool([], RULE) is None


def test_asking_for_more_pairs_where_it_nearly_sufficed_confirms_no_more_chance() -> None:
    """Without effect: 24 pairs, then 8 more for a whole day wherever it looks promising. Held by Ville's inequality."""
    streams = np.random.default_rng(5).standard_normal((4000, 24 + 5 * 8))
    ever = np.zeros(len(streams), dtype=bool)
    asked = np.ones(len(streams), dtype=bool)
    for count in range(24, streams.shape[1] + 1, 8):
        reached = stats.e_values(streams[:, :count], RULE.effects)
        ever |= asked & (reached >= RULE.bar)
        asked &= reached >= 0.5
    assert ever.mean() <= 1 / RULE.bar


def test_it_is_said_how_many_more_pairs_would_decide() -> None:
    near = evidence(0.01, 0.02, 0.004, 0.016)
    more = rules.pairs_to_decide([near], RULE)
    assert more is not None and 1 <= more <= 12
    gains = [0.01, 0.02, 0.004, 0.016]
    mean, sd = float(np.mean(gains)), 0.01
    enough = [mean + sd * sign for sign in (1, -1)] * ((4 + more + 1) // 2)
    assert stats.e_value(enough[: 4 + more], RULE.effects) > RULE.bar / 3
    against = rules.pairs_to_decide([evidence(-0.01, -0.02, -0.004, -0.016)], RULE)
    assert against == more, "one way or the other"
    assert rules.pairs_to_decide([evidence(0.03, 0.035, 0.032, 0.028, 0.031)], RULE) == 0
    assert rules.pairs_to_decide([evidence(0.0002, -0.0001, 0.0003)], RULE) is None
    assert rules.pairs_to_decide([], RULE) is None
