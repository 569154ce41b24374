"""The two drawings of the kernel board, and the ticks of their logarithmic axes."""

from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from research.drawing.latencies import Line, latencies
from research.drawing.roofline import Spot, roofline
from research.drawing.scale import log_ticks, short_time

TIMES = st.floats(1e-5, 1e5)


@given(TIMES, st.floats(1.0, 1e6), st.integers(3, 8))
def test_ticks_of_a_logarithmic_axis_lie_inside_and_are_few(low: float, times: float, about: int) -> None:
    marks = log_ticks(low, low * times, about)
    assert all(low * (1 - 1e-9) <= mark <= low * times * (1 + 1e-9) for mark in marks)
    assert len(marks) <= about + 3 and marks == sorted(set(marks))


def test_ticks_are_round() -> None:
    assert log_ticks(0.9, 110, 8) == [1, 2, 5, 10, 20, 50, 100]
    assert log_ticks(0.95, 5.5) == [1, 2, 3, 4, 5]
    assert log_ticks(20.5, 24.5) == [21, 22, 23, 24]
    assert log_ticks(0, 4) == [] and log_ticks(5, 4) == []


def test_times_are_written_with_three_digits() -> None:
    written = [short_time(value) for value in (0.0004, 0.05412, 0.9996, 5.41, 1234.0)]
    assert written == ["400 ns", "54.1 µs", "1 ms", "5.41 ms", "1.23 s"]


@given(st.lists(st.tuples(TIMES, TIMES, TIMES), max_size=12))
def test_every_problem_has_a_mark_joined_to_its_reference(times: list[tuple[float, float, float]]) -> None:
    svg = roofline([Spot(f"<p{at}>", *row, "/p/", at == 1) for at, row in enumerate(times)])
    assert svg.count('class="main"') == svg.count('class="reference"') == len(times)
    assert "<p0" not in svg and "nan" not in svg and (svg == "") == (not times)
    heights = [float(y) for y in re.findall(r'cy="([-\d.]+)"', svg)]
    assert all(15.9 <= y <= 210.1 for y in heights)


def test_the_roofline_says_who_is_nearest_and_furthest() -> None:
    svg = roofline([Spot("near", 1.0, 1.1, 8.0), Spot("far", 0.01, 1.0, 1.0)])
    assert "most near with 91%, least far with 1%" in svg and "far: 1% of its bound of 10 µs, reference 1%" in svg
    assert 'class="roof"' in svg and "href" not in svg


@given(st.lists(st.lists(TIMES, min_size=1, max_size=9), min_size=1, max_size=6), st.none() | TIMES)
def test_every_trial_is_a_dot_and_every_line_has_its_median(times: list[list[float]], bound: float | None) -> None:
    svg = latencies([Line(f"t-{at}", "thread", tuple(row)) for at, row in enumerate(times)], bound)
    assert svg.count("<circle") == sum(map(len, times)) and svg.count('class="median"') == len(times)
    assert ('class="bound"' in svg) == (bound is not None)
    places = [float(x) for x in re.findall(r'cx="([-\d.]+)%"', svg)]
    assert all(math.isfinite(x) and 22.9 <= x <= 80.1 for x in places)


def test_times_side_by_side_in_words() -> None:
    svg = latencies([Line("reference", "reference", (0.8, 0.9)), Line("main", "main", (0.2,))], 0.1)
    assert "reference: median 850 µs of 2 trials, 800 µs to 900 µs; main: median 200 µs of 1 trial; bound 100 µs" in svg
    assert latencies([], 0.1) == ""
