"""The decision procedure: which branch wins, and what each stage may see."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.validation.rules import (
    Direction,
    Evidence,
    Finding,
    MorePairs,
    NoiseFloor,
    PairedScore,
    Rule,
    Severity,
    Stage,
    Verdict,
    VerdictKind,
    WaitForNoise,
    decide,
    stop,
)

RULE = Rule(direction=Direction.LOWER)
FLOOR = NoiseFloor(sigma_trial=0.7, sigma_pair=1.0, drift=0.1, trials=12)
FORGED = Finding("protected_path", Severity.STRUCTURAL, "'judge.py' is protected", ("judge.py",))
DOUBTFUL = Finding("threads", Severity.REVIEW, "model.py starts threads")


def pairs(stage, gains, direction=Direction.LOWER):
    """Paired scores of one stage with these gains, around a score of 3."""
    sign = -1 if direction is Direction.LOWER else 1
    first_seed = 1000 * list(Stage).index(stage)
    return tuple(
        PairedScore(stage, place, first_seed + place, 3.0, 3.0 + sign * gain) for place, gain in enumerate(gains)
    )


def evidence(screen=(), extend=(), confirm=(), noise=FLOOR, **rest):
    scores = pairs(Stage.SCREEN, screen) + pairs(Stage.EXTEND, extend) + pairs(Stage.CONFIRM, confirm)
    return Evidence(scores, noise, **rest)


def promising(confirm=(), **rest):
    return evidence(screen=[1.0], extend=[1.0, 1.2], confirm=confirm, **rest)


def wobble(mean, count, spread=1.0):
    """Gains of this mean and exactly this sd about it, alternating: no luck, no randomness."""
    return [mean + spread * (1 if place % 2 else -1) for place in range(count)]


# Screening and extension


def test_an_experiment_starts_with_one_screening_pair():
    assert decide(evidence(noise=None), RULE) == MorePairs(Stage.SCREEN, 1, "not screened yet")


def test_a_candidate_that_screens_worse_stops_inconclusive_and_never_worse():
    verdict = decide(evidence(screen=[-9.0], noise=None), RULE)
    assert (verdict.kind, verdict.stage, verdict.effect) == (VerdictKind.INCONCLUSIVE, Stage.SCREEN, -9.0)
    assert (verdict.e_value, verdict.e_against, verdict.pairs, verdict.low) == (1.0, 1.0, 0, None)
    assert "-9" in verdict.reason


def test_a_candidate_that_screens_no_worse_is_extended_without_a_noise_floor():
    step = decide(evidence(screen=[0.0], noise=None), RULE)
    assert (step.stage, step.pairs) == (Stage.EXTEND, 2)
    halfway = decide(evidence(screen=[0.1], extend=[-5.0], noise=None), RULE)
    assert (halfway.stage, halfway.pairs) == (Stage.EXTEND, 2)


@pytest.mark.parametrize("extend, goes_on", [([0.41, 0.41], True), ([0.38, 0.38], False), ([-0.9, 0.2], False)])
def test_extension_needs_a_mean_gain_of_four_tenths_of_a_pair_sigma(extend, goes_on):
    step = decide(evidence(screen=[0.4], extend=extend), RULE)
    if goes_on:
        assert (step.stage, step.pairs) == (Stage.CONFIRM, 4)
    else:
        assert (step.kind, step.stage) == (VerdictKind.INCONCLUSIVE, Stage.EXTEND)


def test_the_noise_floor_is_waited_for_only_where_it_is_needed():
    assert isinstance(decide(evidence(screen=[1.0], extend=[1, 1], noise=None), RULE), WaitForNoise)
    assert isinstance(decide(evidence(screen=[0.1], extend=[-1, 0.1], noise=None), RULE), Verdict)
    assert isinstance(decide(promising(wobble(9, 4), noise=None), RULE), WaitForNoise), "nothing is confirmed"
    short = replace(FLOOR, trials=8)
    assert "needs 12 A/A trials and has 8" in decide(promising(noise=short), RULE).reason


def test_a_rule_without_screening_goes_straight_to_confirm():
    rule = Rule(direction=Direction.LOWER, screen_pairs=0, extend_pairs=0)
    assert decide(evidence(), rule).stage is Stage.CONFIRM


def test_a_change_without_any_effect_does_not_reach_confirm_on_a_silent_machine():
    silent = replace(FLOOR, sigma_pair=0.0, sigma_trial=0.0)
    assert decide(evidence(screen=[0], extend=[0, 0], noise=silent), RULE).kind is VerdictKind.INCONCLUSIVE


def test_a_clear_screening_gain_goes_straight_to_confirmation_and_a_doubtful_one_is_extended() -> None:
    rule = Rule(direction=Direction.LOWER)
    noise = NoiseFloor(sigma_trial=0.01, sigma_pair=0.01, drift=0.0, trials=12)

    def after(gain: float, floor: NoiseFloor | None) -> object:
        pair = PairedScore(Stage.SCREEN, 0, 1, 1.0, 1.0 - gain)
        return decide(Evidence(pairs=(pair,), noise=floor), rule)

    clear, doubtful = after(0.031, noise), after(0.029, noise)
    assert isinstance(clear, MorePairs) and clear.stage is Stage.CONFIRM and clear.pairs == rule.looks[0]
    assert isinstance(doubtful, MorePairs) and doubtful.stage is Stage.EXTEND
    unknown = after(0.5, None)
    assert isinstance(unknown, MorePairs) and unknown.stage is Stage.EXTEND


# Confirmation


def test_a_clear_gain_is_improved_at_the_first_look():
    verdict = decide(promising(wobble(6.0, 4, 0.5)), RULE)
    assert (verdict.kind, verdict.stage, verdict.pairs) == (VerdictKind.IMPROVED, Stage.CONFIRM, 4)
    assert verdict.e_value >= 20 > verdict.e_against
    assert 0 < verdict.low < verdict.shrunk < verdict.effect == pytest.approx(6.0) and verdict.high > 6
    assert not verdict.near_miss and "bar of 20" in verdict.reason


def test_the_better_direction_comes_from_the_rule():
    scores = pairs(Stage.CONFIRM, wobble(6.0, 4, 0.5), Direction.HIGHER)
    higher = replace(RULE, direction=Direction.HIGHER)
    assert decide(Evidence(scores, FLOOR), higher).kind is VerdictKind.IMPROVED
    assert decide(Evidence(scores, FLOOR), RULE).kind is VerdictKind.WORSE


def test_a_clear_loss_is_worse_and_its_bar_is_not_the_campaigns():
    verdict = decide(promising(wobble(-4.0, 4, 0.5), bar=900.0), RULE)
    assert verdict.kind is VerdictKind.WORSE and verdict.e_against >= 20 and verdict.bar == 900


def test_screening_pairs_never_count_in_confirmation():
    confirm = wobble(0.6, 6)
    plain = decide(promising(confirm), RULE)
    lucky = decide(evidence(screen=[90.0], extend=[95.0, 99.0], confirm=confirm), RULE)
    unlucky = decide(evidence(screen=[-90.0], extend=[-95.0, -99.0], confirm=confirm), RULE)
    assert plain == lucky == unlucky


@pytest.mark.parametrize("have, look", [(1, 4), (3, 4), (5, 6), (7, 8), (23, 24), (25, 26), (29, 30)])
def test_evidence_is_read_at_complete_looks_only(have, look):
    step = decide(promising(wobble(50.0, have, 0.5)), RULE)
    assert (step.stage, step.pairs) == (Stage.CONFIRM, look)


def test_an_undecided_look_asks_for_the_next():
    step = decide(promising(wobble(0.5, 8)), RULE)
    assert isinstance(step, MorePairs) and step.pairs == 10


def test_futility_starts_at_its_look():
    gains = wobble(0.1, 8)
    assert isinstance(decide(promising(gains[:6]), RULE), MorePairs)
    verdict = decide(promising(gains), RULE)
    assert (verdict.kind, verdict.stage) == (VerdictKind.INCONCLUSIVE, Stage.CONFIRM)
    assert "stopped early" in verdict.reason
    early = replace(RULE, futility_from=4)
    assert isinstance(decide(promising(gains[:4]), early), Verdict)


def test_the_last_look_ends_it():
    low = decide(promising(wobble(0.3, 24)), RULE)
    assert low.kind is VerdictKind.INCONCLUSIVE and "last look" in low.reason
    steady = decide(promising(wobble(0.05, 24, 0.6)), RULE)
    assert steady.kind is VerdictKind.NO_DIFFERENCE
    detectable = FLOOR.minimum_detectable_effect(RULE)
    assert -detectable < steady.low < 0 < steady.high < detectable


def test_a_near_miss_is_a_gain_below_the_bar():
    verdict = decide(promising(wobble(0.55, 24)), RULE)
    assert 3 <= verdict.e_value < 20 and verdict.shrunk > 0
    assert verdict.near_miss and verdict.kind is VerdictKind.INCONCLUSIVE
    assert not decide(promising(wobble(0.1, 24)), RULE).near_miss


def test_the_campaign_bar_replaces_the_rules():
    gains = wobble(1.5, 8)
    assert decide(promising(gains), RULE).kind is VerdictKind.IMPROVED
    assert isinstance(decide(promising(gains, bar=1e5), RULE), MorePairs)


def test_a_person_may_ask_for_more_pairs_and_the_e_process_goes_on():
    weak = wobble(0.1, 8)
    assert isinstance(decide(promising(weak), RULE), Verdict)
    assert decide(promising(weak, wanted=12), RULE).pairs == 10
    long = wobble(0.59, 32)
    assert decide(promising(long[:24]), RULE).kind is VerdictKind.INCONCLUSIVE
    assert decide(promising(long[:24], wanted=32), RULE).pairs == 26
    verdict = decide(promising(long, wanted=32), RULE)
    assert verdict.kind is VerdictKind.IMPROVED and verdict.pairs == 32


def test_a_stop_reads_what_is_there_and_never_calls_it_improved():
    seen = evidence([0.1], [0.2, 0.3], wobble(0.4, 6))
    assert isinstance(decide(seen, RULE), MorePairs)
    verdict = stop(seen, RULE, "stopped, the budget is spent")
    assert (verdict.kind, verdict.stage, verdict.pairs) == (VerdictKind.INCONCLUSIVE, Stage.CONFIRM, 6)
    assert verdict.reason.endswith(": stopped, the budget is spent") and verdict.low < verdict.effect < verdict.high
    early = stop(evidence([0.1], [0.2]), RULE, "stopped")
    assert (early.kind, early.stage, early.pairs) == (VerdictKind.INCONCLUSIVE, Stage.EXTEND, 0)
    assert early.reason == "2 pairs gave a mean gain of 0.15: stopped"
    assert stop(evidence(), RULE, "stopped").reason == "stopped"
    assert stop(evidence([0.1], findings=(FORGED,)), RULE, "stopped").kind is VerdictKind.INVALID


def test_identical_gains_are_neither_improved_nor_an_error():
    verdict = decide(promising([0.5] * 24), RULE)
    assert (verdict.kind, verdict.e_value, verdict.low) == (VerdictKind.INCONCLUSIVE, 1.0, None)
    assert decide(promising([0.0] * 8), RULE).kind is VerdictKind.NO_DIFFERENCE


# Findings


@pytest.mark.parametrize("confirm", [(), wobble(6.0, 4, 0.5), wobble(6.0, 5, 0.5), wobble(-6.0, 4, 0.5)])
def test_a_structural_finding_beats_any_number(confirm):
    verdict = decide(promising(confirm, findings=(DOUBTFUL, FORGED), noise=None), RULE)
    assert verdict.kind is VerdictKind.INVALID and "judge.py" in verdict.reason
    assert decide(evidence(noise=None, findings=(FORGED,)), RULE).effect is None


def test_a_finding_for_review_changes_no_verdict():
    gains = wobble(6.0, 4, 0.5)
    assert decide(promising(gains, findings=(DOUBTFUL,)), RULE) == decide(promising(gains), RULE)


# Records


@pytest.mark.parametrize(
    "record",
    [
        replace(RULE, looks=(4, 8), bar=50.0, direction=Direction.HIGHER),
        promising(wobble(6, 4), findings=(FORGED, DOUBTFUL), bar=33.0),
        evidence(noise=None),
        decide(promising(wobble(6, 4)), RULE),
        decide(promising(), RULE),
        WaitForNoise("not yet"),
    ],
)
def test_records_survive_json(record):
    assert type(record).from_json(json.loads(json.dumps(record.to_json(), allow_nan=False))) == record


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"bars": 3}, "Rule has no bars"),
        ({"direction": "sideways"}, "must be one of lower, higher"),
        ({"direction": None}, "must be one of"),
        ({"bar": "20"}, "Rule.bar must be float"),
        ({"bar": float("nan")}, "finite"),
        ({"screen_pairs": True}, "Rule.screen_pairs must be int"),
        ({"looks": 8}, "Rule.looks must be a list"),
        ({"looks": [8, 4]}, "looks must rise"),
        ({"looks": []}, "looks must rise"),
        ({"level": 1.5}, "level"),
        ({"screen_pairs": 0}, "extend_pairs needs screen_pairs"),
    ],
)
def test_a_rule_refuses_what_it_does_not_know(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Rule.from_json({"direction": "lower"} | change)


def test_a_rule_without_a_direction_is_refused():
    with pytest.raises(ValueError, match="Rule needs direction"):
        Rule.from_json({"name": "funnel"})


def test_pairs_must_be_finite_and_independent():
    with pytest.raises(ValueError, match="not a finite number"):
        PairedScore(Stage.SCREEN, 0, 1, 3.0, float("nan"))
    score = PairedScore(Stage.SCREEN, 0, 1, 3.0, 2.0)
    with pytest.raises(ValueError, match="pair appears twice"):
        Evidence((score, replace(score, seed=2)), None)
    with pytest.raises(ValueError, match="seed appears twice"):
        Evidence((score, replace(score, stage=Stage.CONFIRM)), None)


def test_records_and_rules_load_without_numpy_or_scipy():
    code = (
        "import sys, research.validation.rules, research.validation.integrity;"
        "heavy = {'numpy', 'scipy', 'django', 'torch'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=60, deadline=None)
@given(
    gains=st.lists(st.floats(-5, 5), max_size=30),
    before=st.lists(st.floats(-5, 5), max_size=3),
    sigma=st.floats(0, 3),
    noise=st.booleans(),
    bar=st.none() | st.floats(2, 1e6),
    wanted=st.integers(0, 40),
)
def test_any_evidence_has_one_next_step(gains, before, sigma, noise, bar, wanted):
    floor = NoiseFloor(sigma, sigma, 0.0, 12) if noise else None
    step = decide(evidence(before[:1], before[1:], gains, noise=floor, bar=bar, wanted=wanted), RULE)
    stopped = stop(evidence(before[:1], before[1:], gains, noise=floor, bar=bar, wanted=wanted), RULE, "stopped")
    assert stopped.kind in (VerdictKind.INCONCLUSIVE, VerdictKind.NO_DIFFERENCE)
    if isinstance(step, MorePairs):
        assert step.pairs > len({Stage.SCREEN: before[:1], Stage.EXTEND: before[1:]}.get(step.stage, gains))
    elif isinstance(step, Verdict):
        assert json.dumps(step.to_json(), allow_nan=False)
        assert (step.kind is VerdictKind.IMPROVED) <= (step.e_value >= step.bar)
        assert step.low is None or step.low <= step.effect <= step.high
