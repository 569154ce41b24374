"""Confidence, pooling, superseding, and what makes a discard worth another look: plain arithmetic and words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from research.validation.lessons import MOST, Assumption, Measured, Standing, changed, confidence, pool, supersedes

TAGS = {"muon": frozenset({"optimizer"}), "warmup": frozenset({"schedule"}), "lion": frozenset({"optimizer"})}
ASSUMED = Assumption("cpu", ("warmup", "tied"), ("nesterov",), ("optimizer",), sigma=0.008)
NOW = Standing("cpu", ("warmup", "tied"), 0.008, "quick")


@pytest.mark.parametrize(
    ("kind", "numbers", "expected"),
    [
        ("gain", {"e_for": 20.0}, 20 / 21),
        ("near_miss", {"e_for": 3.0}, 0.75),
        ("gain", {"e_for": float("inf")}, MOST),
        ("harm", {"e_against": 20.0}, 20 / 21),
        ("no_gain", {"pairs": 1}, 1 / 9),
        ("no_gain", {"pairs": 8}, 0.5),
        ("no_gain", {"pairs": 8, "level": 0.05}, 0.95),
        ("rejected", {}, 1.0),
        ("failure", {}, 0.9),
    ],
)
def test_confidence_is_the_e_value_as_odds_or_grows_with_pairs(
    kind: str, numbers: dict[str, float], expected: float
) -> None:
    assert confidence(kind, **numbers) == pytest.approx(expected)  # type: ignore[arg-type]


def measured(kind: str, effect: float | None, error: float | None, pairs: int, believed: float) -> Measured:
    return Measured(kind, effect, error, pairs, believed)


def test_two_measurements_pool_by_inverse_variance_and_pairs_add() -> None:
    one, other = measured("no_gain", 0.01, 0.01, 1, 0.1), measured("no_gain", 0.0, 0.005, 4, 0.3)
    both = pool(one, other)
    assert both.effect == pytest.approx(0.002) and both.error == pytest.approx(0.01 / 5**0.5) and both.pairs == 5
    assert both.confidence == pytest.approx(1 - 0.9 * 0.7) and both == pool(other, one)


def test_contrary_measurements_leave_the_difference_of_their_confidence() -> None:
    both = pool(measured("gain", 0.03, 0.003, 8, 0.95), measured("no_gain", None, None, 0, 0.2))
    assert (both.kind, both.effect, both.pairs) == ("gain", 0.03, 8) and both.confidence == pytest.approx(0.75)


def test_a_later_lesson_supersedes_with_more_confidence_or_contradicts() -> None:
    old = measured("no_gain", 0.0, 0.01, 3, 0.3)
    assert supersedes(measured("no_gain", 0.0, 0.005, 8, 0.5), old) == "stronger"
    assert supersedes(measured("no_gain", 0.0, 0.01, 1, 0.1), old) == ""
    assert supersedes(measured("gain", 0.02, 0.002, 8, 0.95), old) == "contrary"
    assert supersedes(measured("no_gain", 0.0, 0.01, 1, 0.1), measured("gain", 0.02, 0.002, 8, 0.95)) == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"recipe": ("warmup", "tied", "other")}, ""),  # in another place, and not far
        ({"recipe": ("warmup",)}, ""),
        ({"preset": "official"}, "preset cpu"),
        ({"recipe": ("warmup", "tied", "muon")}, "muon is in the code now"),
        ({"recipe": ("warmup", "tied", "a", "b", "c")}, "moved by 3 techniques"),
        ({"recipe": ("warmup", "tied", "nesterov")}, ""),  # the change itself says nothing
        ({"sigma": 0.004}, "the noise of a pair fell"),
        ({"machine_class": "another"}, ""),  # it was no failure of a machine
    ],
)
def test_a_discard_holds_until_what_it_assumed_changes(change: dict[str, object], why: str) -> None:
    found = changed(ASSUMED, replace(NOW, **change), TAGS)  # type: ignore[arg-type]
    assert why in found and bool(why) == bool(found)


def test_a_technique_beside_which_it_was_measured_may_go() -> None:
    with_muon = replace(ASSUMED, recipe=("warmup", "tied", "muon"))
    assert changed(with_muon, NOW, TAGS) == "muon, beside which it was measured, is gone"


def test_what_failed_for_want_of_memory_may_be_tried_on_another_machine() -> None:
    failed = replace(ASSUMED, sigma=None, machine_class="small")
    assert changed(failed, NOW, TAGS) == "it failed on small, and this is quick"
    assert changed(failed, replace(NOW, machine_class="small"), TAGS) == ""


def test_what_it_assumes_is_said_in_words_and_travels_as_json() -> None:
    assert "optimizer comes or goes" in ASSUMED.words() and "0.40%" in ASSUMED.words()
    assert Assumption.from_json(ASSUMED.to_json()) == ASSUMED
