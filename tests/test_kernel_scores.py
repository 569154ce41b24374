"""The SOL score and its means, against numbers made by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.kernels import score
from benchmarks.kernels.anchors import Anchor, AnchorError, Anchors, Provenance
from tests.kernel_play import double


@pytest.mark.parametrize(
    ("bound", "baseline", "latency", "by_hand"),
    [
        (1.0, 3.0, 3.0, 0.5),  # at the baseline
        (1.0, 3.0, 1.0, 1.0),  # at the speed of light
        (1.0, 3.0, 2.0, 2 / 3),  # half the way: 1 / (1 + 1/2)
        (0.02, 0.10, 0.26, 0.25),  # three times the way: 1 / (1 + 3)
        (0.0004, 0.0024, 0.0005, 1 / 1.05),  # a twentieth
        (5.0, 5.2, 7.0, 1 / 11),  # a baseline close to its bound: ten times the way
    ],
)
def test_a_score_is_what_one_gets_by_hand(bound: float, baseline: float, latency: float, by_hand: float) -> None:
    assert score.official(latency, bound, baseline) == pytest.approx(by_hand, rel=1e-12)
    assert score.score(latency, Anchor(bound, baseline)) == pytest.approx(by_hand, rel=1e-12)


def test_a_baseline_no_slower_than_the_bound_leaves_all_or_nothing() -> None:
    assert [score.official(latency, 2.0, 2.0) for latency in (1.0, 2.0, 2.1)] == [1.0, 1.0, 0.0]
    assert score.official(2.0, 2.0, 1.5) == 1.0


def test_below_the_bound_the_official_score_exceeds_one_and_ours_does_not() -> None:
    assert score.official(1.0, 2.0, 4.0) == 2.0  # 1 / (1 - 1/2)
    assert score.official(1.0, 2.0, 3.0) == math.inf  # the pole: 1 / (1 - 1)
    assert score.official(0.5, 2.0, 3.0) == -2.0  # beyond it
    assert [score.score(latency, Anchor(2.0, 3.0)) for latency in (0.5, 1.0, 1.5, 2.0)] == [1.0] * 4


times = st.floats(1e-5, 1e3)


@given(bound=times, headroom=st.floats(1.001, 1e4), one=times, other=times)
def test_a_faster_kernel_never_scores_less(bound: float, headroom: float, one: float, other: float) -> None:
    anchor = Anchor(bound, bound * headroom)
    fast, slow = sorted((one, other))
    assert 0 <= score.score(slow, anchor) <= score.score(fast, anchor) <= 1


@given(bound=times, headroom=st.floats(1.01, 1e4), wanted=st.floats(0.01, 1.0))
def test_the_latency_for_a_score_has_that_score(bound: float, headroom: float, wanted: float) -> None:
    anchor = Anchor(bound, bound * headroom)
    assert score.score(score.latency_for(wanted, anchor), anchor) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("latency", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_time_has_no_score(latency: float) -> None:
    with pytest.raises(score.ScoreError, match="positive time"):
        score.score(latency, Anchor(1.0, 2.0))


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_time_is_no_anchor(bound: float) -> None:
    with pytest.raises(AnchorError, match="positive time"):
        Anchor(bound, 2.0)


def test_headroom_says_what_a_score_can_tell() -> None:
    found = [score.headroom(Anchor(1.0, baseline)).value for baseline in (1.04, 1.05, 100.0, 101.0)]
    assert found == ["undecidable", "usual", "usual", "vacuous"]


def anchors(provenance: Provenance = Provenance.SCALED, device: str = "H200", **figures: list[Anchor]) -> Anchors:
    by_uuid = {name: {f"w{number}": anchor for number, anchor in enumerate(each)} for name, each in figures.items()}
    return Anchors(device, provenance, by_uuid)


def test_a_board_counts_what_is_missing_as_nothing(tmp_path: Path) -> None:
    problems = [double(tmp_path / name, 2) for name in ("good", "half", "absent")]
    pair = [Anchor(1.0, 3.0), Anchor(2.0, 4.0)]
    board = score.board(
        problems,
        {"good": {"w0": 1.0, "w1": 4.0}, "half": {"w0": 3.0, "w1": None}, "not given": {"w0": 1.0}},
        anchors(good=pair, half=pair, absent=pair),
    )
    # good: (1 + 0.5) / 2; half: (0.5 + 0) / 2, one failed; absent: 0. All three count.
    assert [row.score for row in board.rows] == [0.75, 0.25, 0.0]
    assert board.headline == pytest.approx(1 / 3)
    assert board.attempted == 2
    assert list(board.collections.values()) == [pytest.approx(1 / 3)]
    good, half, absent = board.rows
    assert good.latency_ms == pytest.approx(2.0)  # sqrt(1 * 4)
    assert good.speedup == pytest.approx(math.sqrt(3))  # sqrt(3/1 * 4/4)
    assert (good.fast, good.passed, half.passed) == (1, 2, 1)
    assert (absent.latency_ms, absent.speedup) == (None, None)


def test_a_problem_without_an_anchor_is_nothing_in_the_headline_and_shown_apart(tmp_path: Path) -> None:
    problems = [double(tmp_path / name) for name in ("known", "unknown")]
    board = score.board(problems, {"known": {"w0": 3.0}, "unknown": {"w0": 3.0}}, anchors(known=[Anchor(1.0, 3.0)]))
    assert (board.headline, board.over_anchored, board.anchored) == (0.25, 0.5, 1)


def test_what_is_faster_than_light_is_named(tmp_path: Path) -> None:
    board = score.board([double(tmp_path / "p")], {"p": {"w0": 0.5}}, anchors(p=[Anchor(1.0, 3.0)]))
    assert (board.headline, board.below_bound) == (1.0, [("p", "w0")])


def test_a_board_of_nothing_is_refused() -> None:
    with pytest.raises(score.ScoreError, match="no problem"):
        score.board([], {}, anchors())


def test_scaled_and_measured_stand_beside_each_other(tmp_path: Path) -> None:
    problems = [double(tmp_path / "p")]
    scaled = anchors(p=[Anchor(1.0, 3.0)])
    measured = anchors(Provenance.MEASURED, p=[Anchor(1.0, 2.0)])
    shown = score.headline(problems, {"p": {"w0": 2.0}}, scaled, measured)
    assert (shown.scaled.headline, shown.measured.headline) == (pytest.approx(2 / 3), 0.5)
    with pytest.raises(score.ScoreError, match="scaled and measured"):
        score.headline(problems, {}, scaled, scaled)
    with pytest.raises(score.ScoreError, match="one device"):
        score.headline(problems, {}, scaled, anchors(Provenance.MEASURED, "H100", p=[Anchor(1.0, 2.0)]))
