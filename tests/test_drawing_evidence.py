"""The drawings of evidence: looks against the bar, means with intervals, promises against what came."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from research.drawing.calibration import Promise, calibration
from research.drawing.forest import Bar, forest
from research.drawing.looks import Reading, path
from research.drawing.quality import At, Leap, Quality, quality
from research.drawing.strip import Pair, strip

READINGS = [Reading(4, 3.0, 0.4), Reading(6, 30.0, 0.1), Reading(8, 400.0, 0.02, "improved")]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def heights(root: ElementTree.Element, kind: str) -> list[float]:
    return [float(dot.get("cy", "")) for dot in root.iter("circle") if (dot.get("class") or "").split()[0] == kind]


def test_the_e_value_climbs_on_a_log_axis_past_its_bar() -> None:
    root = parsed(path(READINGS, [], 138.0, 20.0, 0.1, 8))
    climb, against = heights(root, "for"), heights(root, "against")
    assert climb == sorted(climb, reverse=True) and against == sorted(against)
    bar = next(float(line.get("y1", "")) for line in root.iter("line") if line.get("class") == "bar")
    assert climb[2] < bar < climb[1], "only the last look is above the bar"
    per_decade = climb[0] - climb[1]
    assert per_decade == pytest.approx(bar_gap(root), rel=0.02), "ten times is the same distance everywhere"
    assert "8 pairs: 400" in root.get("aria-label", "") and "reaches its bar" in root.get("aria-label", "")


def bar_gap(root: ElementTree.Element) -> float:
    marks = {text.text: float(text.get("y", "")) for text in root.iter("text") if text.get("class") == "tick"}
    return marks["1"] - marks["10"]


def test_before_the_first_look_the_chart_says_so_and_shows_the_looks_ahead() -> None:
    root = parsed(path([], [4, 6, 8], None, 20.0, 0.1, 8))
    assert "none yet" in root.get("aria-label", "")
    assert sum(line.get("class") == "look" for line in root.iter("line")) == 3
    assert not list(root.iter("circle"))


def test_extreme_e_values_stay_inside_the_drawing() -> None:
    root = parsed(path([Reading(4, 1e300, 0.0), Reading(6, 1e-300, 1e300, "worse")], [], 20.0, 20.0, 0.1, 8))
    for dot in root.iter("circle"):
        assert 0 <= float(dot.get("cy", "")) <= 240


def test_one_bar_for_both_sides_is_drawn_once() -> None:
    svg = path(READINGS, [], 20.0, 20.0, 0.1, 8)
    assert "worse-bar" not in svg and "the same against it" in svg


def test_a_forest_puts_words_numbers_and_intervals_in_a_row_each() -> None:
    bars = [
        Bar("A", 0.05, 0.03, 0.07), Bar("B", -0.02, -0.05, 0.01, "part"), Bar("A + B", 0.04, 0.01, 0.08, "sum"),
        Bar("C", None, note="being measured"),
    ]  # fmt: skip
    root = parsed(forest(bars, "bits/byte", "interaction"))
    said = root.get("aria-label", "")
    assert "A +0.0500 ± 0.0200" in said and "A + B +0.0400 [+0.0100, +0.0800]" in said and "C being measured" in said
    assert len([line for line in root.iter("line") if "interval" in (line.get("class") or "")]) == 3
    assert forest([], "", "nothing") == ""


def test_shares_are_written_as_percentages() -> None:
    assert "+5.00 % ± 1.00 %" in forest([Bar("A", 0.05, 0.04, 0.06)], "", "gain", percent=True)


def test_a_kept_promise_lies_on_the_diagonal_and_a_broken_one_below_it() -> None:
    promises = [
        Promise(10, 0.10, 0.10, 0.08, 0.12), Promise(20, 0.20, 0.12, 0.10, 0.14, -1), Promise(30, 0.25, None),
    ]  # fmt: skip
    root = parsed(calibration(promises, "bits/byte"))
    kept, broken = (group.find("circle") for group in root.iter("g"))
    assert kept is not None and broken is not None
    width, height = 100.0, 260 - 34 - 14
    for dot, on_it in ((kept, True), (broken, False)):
        across = float(dot.get("cx", "").rstrip("%")) / width
        up = (260 - 34 - float(dot.get("cy", ""))) / height
        assert (abs(across - up) < 0.01) == on_it and up <= across + 0.01
    said = root.get("aria-label", "")
    assert "after 20 merges +0.200 promised, +0.120 came [+0.100, +0.140] bits/byte, less than promised" in said
    assert "after 30" not in said
    assert calibration(promises[2:], "bits/byte") == ""


def test_pairs_that_chose_the_candidate_are_marked_in_words_and_numbers() -> None:
    pairs = [Pair("screen", 1, 1.0, 0.9, 0.1), Pair("confirm", 2, 1.0, 0.92, 0.08)]
    root = parsed(strip(pairs, None, 0.01, "loss", True))
    numbers = [text.text for text in root.iter("text") if text.get("class") == "number"]
    assert numbers == ["(+0.1000)", "+0.0800"]
    assert "screen: better in 1 of 1 pairs, not counted" in root.get("aria-label", "")


def test_hostile_words_are_text() -> None:
    hostile = '"><script>alert(1)</script>'
    for svg in (forest([Bar(hostile, 1.0, note=hostile, href=hostile)], hostile, hostile),
                path([Reading(4, 1.0, 1.0, hostile)], [], 20.0, 20.0, 0.1, 8)):  # fmt: skip
        parsed(svg)
        assert "<script" not in svg


def test_every_mean_has_its_interval_and_a_leap_leads_to_the_shorter_budget() -> None:
    lines = [
        Quality("start", (At(20, 1.5, 4, 0.02), At(60, 1.3, 4, 0.01))),
        Quality("<b>", (At(20, 1.4, 4), At(60, 1.2, 4, 0.01))),
    ]
    root = parsed(quality(lines, "bits/byte", [Leap(1.3, 60, 34.64, "1.73 × sooner")]))
    assert len([line for line in root.iter("line") if line.get("class") == "interval"]) == 3, "one mean has none"
    leap = next(group for group in root.iter("g") if group.get("class") == "leap")
    line, middle = next(leap.iter("line")), 100 * (0.08 + 0.5) / 1.28
    assert float(line.get("x1", "")[:-1]) == pytest.approx(100 * 1.08 / 1.28, abs=0.01)
    assert float(line.get("x2", "")[:-1]) == pytest.approx(middle, abs=0.01), "half way in the log of time"
    assert "1.73 × sooner" in "".join(leap.itertext()) and "<b>: 1.4 after 20 s" in (root.get("aria-label") or "")
    close = parsed(quality([Quality(name, (At(20, 1.5, 4), At(60, 1.3, 4))) for name in "abc"], "bits/byte"))
    names = [float(text.get("y", "")) for text in close.findall("text") if text.get("class") == "name"]
    assert names[1] - names[0] == names[2] - names[1] == 14, "names never lie on each other"
    assert quality([], "bits/byte") == ""
