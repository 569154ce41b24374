"""The drawings: numbers in, well-formed SVG out, with nothing of what a candidate wrote left as markup."""

from __future__ import annotations

import re
import time
from xml.etree import ElementTree

import pytest

from research.drawing.scale import Scale, elapsed, percent_labels, ticks, time_ticks, whole_ticks
from research.drawing.sparkline import sparkline
from research.drawing.staircase import DEEPEST, Axis, Dot, Step, bounds, staircase

AXIS = Axis(0, 10, [(0, "0"), (5, "5"), (10, "10")])
STEPS = [Step(2, 0.1, 0.05, 0.15, "first", "/e/a/"), Step(6, 0.2, 0.12, 0.28, "second", "/e/b/")]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize("low,high", [(0, 1), (-0.037, 0.362), (0, 36), (1e-9, 2e-9), (-5, -4), (0, 1e7)])
def test_ticks_are_round_rising_and_inside(low: float, high: float) -> None:
    marks = ticks(low, high, 5)
    assert 2 <= len(marks) <= 6
    assert marks == sorted(set(marks)) and low - 1e-12 <= marks[0] and marks[-1] <= high + 1e-12 * abs(high)
    assert len(set(percent_labels(marks))) == len(marks), "two marks never read the same"


def test_an_empty_range_has_one_tick_and_nothing_is_divided_by_zero() -> None:
    assert ticks(3, 3) == [3] and ticks(float("nan"), 1) == []
    assert Scale(1, 1, 0, 100)(1) == 50
    assert time_ticks(0) == [(0.0, "0")]


def test_time_is_marked_in_steps_that_people_use() -> None:
    assert [label for _, label in time_ticks(1450)] == ["0", "5 min", "10 min", "15 min", "20 min"]
    assert [label for _, label in time_ticks(3 * 86_400, 4)] == ["0", "1 d", "2 d", "3 d"]
    assert [elapsed(seconds) for seconds in (60, 5400, 7200, 198_500)] == ["1 min", "1 h 30", "2 h", "2 d 7 h"]
    assert whole_ticks(0, 3, 8) == [0, 1, 2, 3]


def test_every_step_is_a_link_with_its_story_and_failures_stand_above() -> None:
    dots = [Dot(1, None, "invalid"), Dot(2, 0.1, "improved"), Dot(3, 0.05, "inconclusive"), Dot(4, 0.02, "worse")]
    root = parsed(staircase(STEPS, dots, AXIS, summary="two merged"))
    links = root.findall(".//a")
    assert [link.get("href") for link in links] == ["/e/a/", "/e/b/"]
    assert [link.get("aria-label") for link in links] == ["first", "second"]
    assert root.get("role") == "group" and root.get("aria-label") == "two merged"
    crosses = [text for text in root.findall("text") if text.get("class") == "failed"]
    assert [text.text for text in crosses] == ["×"]
    assert {path.get("class") for path in root.iter("path")} >= {"dot improved", "dot worse", "interval"}


def test_a_drawing_without_links_is_an_image() -> None:
    root = parsed(staircase([], [Dot(1, -0.1, "worse")], AXIS, summary="one attempt"))
    assert root.get("role") == "img"


def test_hostile_text_is_text() -> None:
    step = Step(2, 0.1, 0.05, 0.15, '"><script>alert(1)</script>', 'javascript:"x')
    svg = staircase([step], [], Axis(0, 4, [(1, "<b>")]), summary='"<img>')
    parsed(svg)
    assert "<script" not in svg and "<b>" not in svg and "<img" not in svg
    assert "<script" not in sparkline([0, 0.1], ["improved"], "<script>")


def test_far_worse_attempts_do_not_crush_the_rest_and_are_counted() -> None:
    dots = [Dot(1, -9.0, "worse"), Dot(2, 0.1, "improved"), Dot(3, 0.05, "inconclusive")]
    low, high = bounds(STEPS, dots, [], None)
    assert low >= -DEEPEST * 1.1 * high and high < 0.4
    svg = staircase(STEPS, dots, AXIS)
    assert "1 below this range" in svg and 'class="dot clipped"' in svg


def test_what_waits_for_a_person_is_drawn_apart_and_the_closing_measurement_too() -> None:
    waiting = [Step(8, 0.3, 0.2, 0.4, "third", "/e/c/")]
    total = Step(10, 0.19, 0.15, 0.23, "measured")
    svg = staircase(STEPS, [], AXIS, waiting=waiting, total=total)
    assert 'class="line waiting"' in svg and 'class="whisker"' in svg and "+30.0 %" in svg


def test_ten_thousand_attempts_are_a_few_paths_drawn_fast() -> None:
    kinds = ("improved", "worse", "inconclusive", "no_difference")
    dots = [Dot(n, (n * 7919 % 1000) / 5000, kinds[n % 4]) for n in range(10_000)]
    begun = time.process_time()
    svg = staircase(STEPS, dots, Axis(0, 10_000, []))
    assert time.process_time() - begun < 0.4
    assert len(re.findall('class="dot', svg)) == 4 and len(svg) < 198_500


def test_a_sparkline_shows_where_the_head_rose() -> None:
    root = parsed(sparkline([0, 0.1, 0.1, 0.3], ["improved", "invalid", "improved"], "three verdicts"))
    gain = next(path for path in root.iter("path") if path.get("class") == "gain")
    assert gain.get("d", "").count("M") == 2 and root.get("aria-label") == "three verdicts"
    assert parsed(sparkline([], [], "no verdict yet")).find("path") is not None
    assert parsed(sparkline([0.2, 0.2], ["inconclusive"], "flat")) is not None
