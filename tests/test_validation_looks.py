"""The looks of an experiment, recomputed: they tell the story that the rule told when it read the same pairs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from research.validation import stats
from research.validation.looks import confirmed_before, looks
from research.validation.rules import MorePairs, VerdictKind, decide, settle
from tests.test_validation_rules import FLOOR, FORGED, RULE, evidence, promising, wobble

HARD = 200.0


def test_every_look_is_what_the_rule_saw_then() -> None:
    gains = wobble(0.9, 24)
    told = looks(promising(gains, bar=HARD), RULE, ended=False)
    assert [look.pairs for look in told] == list(RULE.looks)
    for look in told:
        then = promising(gains[: look.pairs], bar=HARD)
        decision = decide(then, RULE)
        assert look.reason == decision.reason
        assert look.e_value == pytest.approx(stats.e_value(gains[: look.pairs], RULE.effects))
        assert (look.kind is None) == isinstance(decision, MorePairs)
        if not isinstance(decision, MorePairs):
            assert (look.mean, look.shrunk, look.low, look.high) == (
                decision.effect, decision.shrunk, decision.low, decision.high
            )  # fmt: skip
            assert (look.kind, look.e_against) == (decision.kind, decision.e_against)


def test_the_last_look_is_the_verdict() -> None:
    gains = [2.0, 2.2, 1.8, 2.1]
    settled = decide(promising(gains), RULE)
    (look,) = looks(promising(gains), RULE)
    assert look.kind is VerdictKind.IMPROVED and look.reason == settled.reason and not look.is_futile


def test_a_stop_for_futility_is_told_with_its_reason() -> None:
    told = looks(promising(wobble(0.05, 8)), RULE)
    assert [look.kind is None for look in told] == [True, True, False]
    assert told[-1].is_futile and "stopped early" in told[-1].reason


def test_pairs_between_two_looks_are_not_read_while_it_runs() -> None:
    five = promising(wobble(0.9, 5), bar=HARD)
    assert [look.pairs for look in looks(five, RULE, ended=False)] == [4]
    assert [look.pairs for look in looks(five, RULE)] == [4, 5], "it has ended: all pairs count"
    assert looks(promising(wobble(0.9, 3)), RULE, ended=False) == ()


def test_a_replicate_is_read_once_at_the_pairs_it_was_asked_for() -> None:
    three = evidence(confirm=[1.0, 1.4, 0.9])
    (look,) = looks(three, RULE)
    assert look.pairs == 3 and look.reason == settle(three, RULE).reason


def test_screening_alone_and_a_lab_without_a_floor_have_no_look() -> None:
    assert looks(evidence(screen=[1.0], extend=[1.0, 1.2]), RULE) == ()
    assert looks(promising([2.0] * 4, noise=None), RULE) == ()


def test_findings_change_the_verdict_and_not_what_the_numbers_were() -> None:
    clean, forged = promising([2.0, 2.2, 1.8, 2.1]), promising([2.0, 2.2, 1.8, 2.1], findings=(FORGED,))
    assert decide(forged, RULE).kind is VerdictKind.INVALID  # type: ignore[union-attr]
    assert looks(forged, RULE) == looks(clean, RULE)


def test_pairs_count_in_their_order_whatever_order_they_came_in() -> None:
    straight = promising(wobble(0.9, 6), bar=HARD)
    shuffled = replace(straight, pairs=tuple(reversed(straight.pairs)))
    assert looks(shuffled, RULE) == looks(straight, RULE)


@pytest.mark.parametrize("turn,confirmed", [(1, 0), (2, 1), (7, 0), (40, 3), (400, 21)])
def test_the_number_confirmed_before_is_read_back_from_the_bar(turn: int, confirmed: int) -> None:
    assert confirmed_before(RULE, turn, RULE.campaign_bar(turn, confirmed)) == confirmed


def test_looking_up_the_records_costs_no_numpy() -> None:
    code = "import sys, research.validation.looks, research.validation.split; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_floor_of_the_evidence_shrinks_what_a_look_expects() -> None:
    loud = looks(promising([1.0, 1.2, 0.8, 1.1], noise=replace(FLOOR, sigma_pair=1.0)), RULE)[0]
    quiet = looks(promising([1.0, 1.2, 0.8, 1.1], noise=replace(FLOOR, sigma_pair=0.1)), RULE)[0]
    assert 0 < loud.shrunk < quiet.shrunk < quiet.mean
