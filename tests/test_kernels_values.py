"""The arithmetic of the kernel board: scores with the anchors of their launch, what stands in, means, words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.kernels.cells import CellTimes
from benchmarks.kernels.score import official
from research.views.kernels_values import (
    Headline,
    Place,
    Show,
    Standing,
    cell_text,
    gain,
    gain_text,
    latency_text,
    mark,
    score_text,
    speedup_text,
    standing,
    told,
)

TIMES = st.floats(1e-4, 1e4)


def place(latency: float, reference: float = 1.0, bound: float | None = 0.1) -> Place:
    return Place("a", CellTimes(latency, reference, bound))


def test_a_cell_is_scored_between_its_own_reference_and_its_own_bound() -> None:
    assert place(1.0).score == pytest.approx(0.5)
    assert place(0.55).score == pytest.approx(official(0.55, 0.1, 1.0)) == pytest.approx(1 / 1.5)
    assert place(0.1).score == place(0.05).score == 1.0
    assert place(0.55).speedup == pytest.approx(1 / 0.55)


@pytest.mark.parametrize("bound", [None, 1.0, 2.0])
def test_without_a_bound_that_the_reference_keeps_there_is_a_speed_up_and_no_score(bound: float | None) -> None:
    cell = place(0.5, bound=bound)
    assert cell.score is None and cell.anchor is None
    assert cell_text(cell, Show.SCORE) == "2.00×"
    row = Standing((cell,))
    assert row.score is None and row.shown(Show.SCORE) == "2.00×"


def test_what_was_not_measured_is_its_reference() -> None:
    cell = Place("a", None, CellTimes(0.25, 0.25))
    assert (cell.score, cell.speedup, cell.latency_ms) == (0.5, 1.0, 0.25)
    assert mark(cell)[0] == "○" and "not measured" in told(cell, "rows 8")
    assert Standing(()).score == 0.5 and Standing(()).speedup == 1.0 and Standing(()).latency_ms is None


def test_a_problem_is_the_mean_of_its_workloads_and_those_of_the_data_come_first() -> None:
    cells = {"z": CellTimes(0.1, 1.0, 0.1), "b": CellTimes(1.0, 1.0, 0.1), "new": CellTimes(1.0, 1.0, 0.1)}
    row = standing(("b", "a", "z"), cells, {"a": CellTimes(4.0, 3.0)})
    assert [each.uuid for each in row.places] == ["b", "a", "z", "new"]
    assert row.score == pytest.approx((0.5 + 0.5 + 1.0 + 0.5) / 4)
    assert row.places[1].latency_ms == 3.0 and row.is_measured
    assert row.speedup == pytest.approx(10**0.25)


def test_the_headline_counts_the_missing_and_the_unbounded_as_their_reference() -> None:
    fast, missing, unbounded = Standing((place(0.1),)), Standing(()), Standing((place(0.5, bound=None),))
    head = Headline([fast, missing, unbounded])
    assert head.score == pytest.approx((1.0 + 0.5 + 0.5) / 3)
    assert (head.measured, head.unbounded, head.faster, head.is_scored) == (2, 1, 2, True)
    assert not Headline([unbounded, missing]).is_scored


def test_scaled_anchors_make_a_score_of_their_own_in_which_the_missing_count_0() -> None:
    row = CellTimes(0.2, 0.4, 0.1, 0.1, 0.3)
    cell, stood_in = Place("a", row), Place("b", None, row)
    assert cell.scaled == pytest.approx(official(0.2, 0.1, 0.3)) and cell.score == pytest.approx(
        official(0.2, 0.1, 0.4)
    )
    assert stood_in.scaled == pytest.approx(official(0.4, 0.1, 0.3)) and stood_in.score == 0.5
    assert cell_text(cell, Show.SCALED) == ".67" and "by scaled anchors .67" in told(cell, "rows 8")
    whole = Standing((cell, stood_in, Place("c")))
    assert whole.scaled == pytest.approx(((cell.scaled or 0) + (stood_in.scaled or 0)) / 3)
    head = Headline([whole, Standing((place(0.5),))])
    assert head.is_scaled and head.scaled == pytest.approx((whole.scaled or 0) / 2)
    assert not Headline([Standing((place(0.5),))]).is_scaled
    assert gain_text(Standing((cell,)), Standing((stood_in,)), Show.SCALED) == "+.27"


def test_a_gain_is_a_difference_of_scores_or_a_share_of_speed_or_time() -> None:
    then, now = Standing((place(1.0),)), Standing((place(0.55),))
    assert gain(now, then, Show.SCORE) == pytest.approx(1 / 1.5 - 0.5)
    assert gain_text(now, then, Show.SCORE) == "+.17"
    assert gain_text(then, now, Show.SCORE) == "−.17"
    assert gain_text(now, then, Show.SPEEDUP) == "+82 %"
    assert gain_text(now, then, Show.LATENCY) == "−45 %"
    assert gain_text(then, then, Show.SCORE) == "–"
    unbounded = Standing((place(0.5, bound=None),))
    assert gain_text(unbounded, then, Show.SCORE) == "+100 %"


def test_glyphs_say_what_colours_say() -> None:
    assert mark(place(1.2))[0] == "▼" and mark(place(0.05))[0] == "▲"
    assert mark(place(0.5, bound=None))[0] == "∅" and mark(place(0.5)) == ("", "")


@given(TIMES, TIMES, st.none() | TIMES)
def test_any_times_have_a_level_and_words(latency: float, reference: float, bound: float | None) -> None:
    cell = place(latency, reference, bound)
    assert -3 <= cell.level <= 5 and (cell.score is None or 0 <= cell.score <= 1)
    assert (cell.level < 0) == (mark(cell)[0] == "▼") or cell.below_bound
    for show in Show:
        assert 1 <= len(cell_text(cell, show)) <= 12 and "nan" not in told(cell, "x")


def test_numbers_stay_short() -> None:
    assert [score_text(value) for value in (0.0, 0.714, 0.994, 0.996, 1.0)] == [".00", ".71", ".99", "1.0", "1.0"]
    assert [speedup_text(value) for value in (0.5, 9.99, 10.0, 141.2)] == ["0.50×", "9.99×", "10.0×", "141×"]
    assert [latency_text(value) for value in (0.0004, 0.0541, 0.541, 5.41, 12.3, 250.0)] == [
        "0.400", "54.1", "541", "5410", "12.3 ms", "250 ms",
    ]  # fmt: skip
