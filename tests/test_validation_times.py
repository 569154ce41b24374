"""Times: compared by ratio, told in seconds; runs that hit their cap never help the candidate."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from research.validation import simulate, stats
from research.validation.effects import relative_gain
from research.validation.outcomes import MorePairs, Verdict
from research.validation.reading import weigh
from research.validation.records import Direction, Evidence, NoiseFloor, PairedScore, Rule, Scale, Stage, VerdictKind
from research.validation.rules import decide, pool

LINEAR = Rule(direction=Direction.LOWER, censored_share=0.25)
TIMES = replace(LINEAR, scale=Scale.LOG)
FLOOR = NoiseFloor(0.01, 0.01, 0.0, 12, level=1.0, freedom=6)
LOGS = st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=2, max_size=14)
CAP = 60.0


def pairs(times, capped=(), stage=Stage.CONFIRM):
    """Paired times; `capped` names arms at the cap by (place, arm)."""
    return tuple(
        PairedScore(stage, at, at, float(b), float(c), (at, "b") in capped, (at, "c") in capped)
        for at, (b, c) in enumerate(times)
    )


def test_a_unit_of_time_is_compared_by_ratio():
    assert {Scale.of_unit(unit) for unit in ("s", "ms", "µs")} == {Scale.LOG}
    assert {Scale.of_unit(unit) for unit in ("bits/byte", "tokens/s", "", "loss")} == {Scale.LINEAR}


@settings(max_examples=60, deadline=None)
@given(logs=LOGS, unit=st.floats(1e-3, 1e3))
def test_ratios_say_what_differences_of_logs_say_in_any_unit_of_time(logs, unit):
    timed = weigh(pairs([(unit * math.exp(b), unit * math.exp(c)) for b, c in logs]), TIMES)
    plain = weigh(pairs(logs), LINEAR)
    assume(np.ptp(plain.gains) > 1e-3)
    assert timed.gains == pytest.approx(plain.gains, abs=1e-9)
    assert timed.e_value == pytest.approx(plain.e_value, rel=1e-5)
    assert (timed.interval is None) == (plain.interval is None)


def test_the_verdict_on_times_is_told_in_seconds():
    fast = [(100.0 + wobble, 90.0 + wobble) for wobble in (0.0, 0.4, -0.3, 0.2, 0.1, -0.2)]
    verdict = decide(Evidence(pairs(fast), replace(FLOOR, level=100.0, sigma_pair=0.5, sigma_trial=0.4)), TIMES)
    assert isinstance(verdict, Verdict) and verdict.kind is VerdictKind.IMPROVED
    assert verdict.effect == pytest.approx(10.0, abs=0.02)
    assert verdict.low < 10 < verdict.high and 0 < verdict.shrunk < verdict.effect
    assert "10 %" in verdict.reason
    gain = relative_gain(Evidence(pairs(fast), None), TIMES)
    assert gain.mean == pytest.approx(0.1, abs=1e-3)
    pooled = pool([Evidence(pairs(fast), FLOOR)], TIMES)
    assert pooled is not None and pooled.relative == pytest.approx(0.1, abs=1e-3)


def test_a_rule_of_rates_gains_where_the_rate_rises():
    rule = replace(TIMES, direction=Direction.HIGHER)
    weight = weigh(pairs([(100.0, 110.0)] * 3), rule)
    assert rule.in_units(weight.gain, 100.0) == pytest.approx(10.0)


def test_a_time_of_zero_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        weigh(pairs([(0.0, 1.0)]), TIMES)


def test_two_runs_at_the_cap_tie_and_one_alone_loses():
    tie, lost, won = pairs([(CAP, CAP), (50.0, CAP), (CAP, 50.0)], {(0, "b"), (0, "c"), (1, "c"), (2, "b")})
    assert [TIMES.gain(pair) for pair in (tie, lost, won)] == pytest.approx([0, math.log(5 / 6), math.log(6 / 5)])
    assert [TIMES.sign(pair) for pair in (tie, lost, won)] == [0, -1, 1]
    late = PairedScore(Stage.CONFIRM, 0, 0, CAP, CAP, candidate_censored=True)
    assert TIMES.gain(late) == 0 and TIMES.sign(late) == -1, "the baseline came in at the last moment"


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(st.tuples(st.floats(1, CAP), st.floats(1, CAP)), min_size=2, max_size=14),
    capped=st.sets(st.tuples(st.integers(0, 13), st.sampled_from("bc")), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_hitting_the_cap_never_helps_the_candidate_and_the_order_of_pairs_never_counts(times, capped, order):
    """Against arms that came in at the very moment of the cap."""
    at_cap = [(CAP if (at, "b") in capped else b, CAP if (at, "c") in capped else c) for at, (b, c) in enumerate(times)]
    seen, flagged = weigh(pairs(at_cap), TIMES), weigh(pairs(at_cap, capped), TIMES)
    assert flagged.e_value <= seen.e_value * (1 + 1e-9)
    if flagged.signs is not None:
        assert flagged.gain <= float(np.median(seen.gains)) + 1e-12
    shuffled = list(pairs(at_cap, capped))
    order.shuffle(shuffled)
    again = weigh(shuffled, TIMES)
    assert (again.e_value, again.gain) == pytest.approx((flagged.e_value, flagged.gain), rel=1e-9)


def test_capped_pairs_confirm_by_their_order_and_say_so():
    won = [(CAP, 20.0 + at) for at in range(14)]
    capped = {(at, "b") for at in range(14)}
    verdict = decide(Evidence(pairs(won, capped), FLOOR), TIMES)
    assert isinstance(verdict, Verdict) and verdict.kind is VerdictKind.IMPROVED
    assert "median gain" in verdict.reason and verdict.low is None, "nobody knows how much"
    assert json.loads(json.dumps(verdict.to_json()))
    lost = decide(Evidence(pairs([(c, b) for b, c in won], {(at, "c") for at in range(14)}), FLOOR), TIMES)
    assert isinstance(lost, Verdict) and lost.kind is VerdictKind.WORSE and lost.effect < 0
    four = decide(Evidence(pairs(won[:4], capped), FLOOR), TIMES)
    assert isinstance(four, MorePairs), "four of four is no proof by order alone"
    nothing_staked = replace(TIMES, censored_share=0.0)
    assert weigh(pairs(won, capped), nothing_staked).e_value == 0


def test_the_sign_e_value_is_a_fair_bet_and_reaches_the_bar_in_few_wins():
    for wins, losses in [(0, 0), (3, 1), (5, 5)]:
        fair = (stats.sign_e_value(wins + 1, losses) + stats.sign_e_value(wins, losses + 1)) / 2
        assert fair == pytest.approx(stats.sign_e_value(wins, losses))
    assert stats.sign_e_value(5, 0) < 20 < stats.sign_e_value(6, 0)
    assert math.isfinite(stats.sign_e_value(5000, 0)) and math.isfinite(stats.sign_e_value(5000, 5000))


@pytest.mark.parametrize("cap", [0.5, *(pytest.param(cap, marks=pytest.mark.slow) for cap in (1.5, 0.0, -0.5, -1.0))])
def test_without_an_effect_capped_streams_rarely_reach_the_bar(cap):
    assert simulate.capped_crossings(TIMES, 20.0, 4000, range(4, 41, 2), cap, seed=13) <= 0.05


def test_the_simulation_reads_capped_streams_as_the_rule_does():
    logs = np.minimum(np.random.default_rng(2).standard_normal((40, 8, 2)) + [0.8, 0.0], 0.9)
    ours = simulate.capped_e_values(logs, 0.9, TIMES)
    for stream, e_value in zip(logs, ours, strict=True):
        late = {(int(at), "bc"[arm]) for at, arm in np.argwhere(stream >= 0.9)}
        assert weigh(pairs(np.exp(stream), late), TIMES).e_value == pytest.approx(e_value, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(gains=st.lists(st.floats(-3, 3), min_size=4, max_size=24))
def test_the_interval_of_staked_evidence_agrees_with_the_verdict(gains):
    weight = weigh(pairs([(3.0 + gain, 3.0) for gain in gains]), LINEAR)
    if weight.interval is None or np.ptp(gains) < 1e-6 or abs(weight.e_value * LINEAR.level - 1) < 1e-6:
        return
    assert (weight.interval[0] > 0) == (weight.e_value > 1 / LINEAR.level)


def test_the_sign_interval_holds_the_median_and_knows_what_it_does_not_know():
    known = [(float(at), float(at)) for at in range(1, 21)]
    low, high = stats.sign_interval(known, 20)
    assert 1 < low < 10.5 < high < 20
    assert stats.sign_interval([(0.0, math.inf)] * 20, 20) is None
    assert stats.sign_interval(known[:3], 20) is None
