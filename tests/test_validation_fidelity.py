"""Two fidelities: rank correlation and line with intervals, and what they change in the decision procedure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from research.validation import simulate, simulate_screens
from research.validation.effects import relative_gain
from research.validation.fidelity import Point, relate, spearman
from research.validation.records import Direction, Evidence, NoiseFloor, PairedScore, Relation, Rule, Screening, Stage
from research.validation.rules import MorePairs, Verdict, WaitForNoise, decide

RULE = Rule(direction=Direction.LOWER)
OWN = NoiseFloor(sigma_trial=0.7, sigma_pair=1.0, drift=0.0, trials=12)
SHORT = NoiseFloor(sigma_trial=1.4, sigma_pair=2.0, drift=0.0, trials=12)
LINE = Relation(12, 0.8, 0.4, 0.95, 0.5, 0.2, 0.8, 0.0, least=0.2)


def points(screened: list[float], confirmed: list[float]) -> list[Point]:
    rows = enumerate(zip(screened, confirmed, strict=True))
    return [Point(str(at), x, y, 3, 4, True) for at, (x, y) in rows]


def evidence(gains: list[float], screening: Screening | None, noise: NoiseFloor | None = OWN) -> Evidence:
    stages = [Stage.SCREEN, *[Stage.EXTEND] * (len(gains) - 1)]
    pairs = [
        PairedScore(stage, at if stage is Stage.SCREEN else at - 1, at, 100.0, 100.0 - gain)
        for at, (stage, gain) in enumerate(zip(stages, gains, strict=True))
    ]
    return Evidence(tuple(pairs), noise, screening=screening)


def test_spearman_is_that_of_ranks_with_ties_at_their_mean() -> None:
    one, other = np.array([1.0, 2, 2, 4, 9]), np.array([10.0, 30, 20, 40, 1000])
    assert spearman(one, other) == pytest.approx(9.5 / np.sqrt(9.5 * 10))
    assert spearman(one, -(other**3)) == pytest.approx(-9.5 / np.sqrt(9.5 * 10))
    assert spearman(one, np.ones(5)) == 0


def test_nine_techniques_tell_nothing_and_ten_do() -> None:
    gains = [float(at) for at in range(10)]
    assert relate(points(gains[:9], gains[:9])) is None
    relation = relate(points(gains, [2 * gain + 1 for gain in gains]), target=4.0)
    assert relation and relation.techniques == 10 and relation.is_shown
    assert (relation.rank, relation.slope, relation.intercept) == pytest.approx((1, 2, 1))
    assert relation.least == pytest.approx(1.5)


def test_the_interval_of_the_rank_correlation_holds_its_truth_most_of_the_time() -> None:
    random = np.random.default_rng(5)
    held = 0
    for _ in range(40):
        x = random.normal(size=25)
        y = 0.6 * x + 0.8 * random.normal(size=25)
        relation = relate(points(list(x), list(y)), draws=100)
        assert relation
        held += relation.rank_low <= 6 / np.pi * np.arcsin(0.3) <= relation.rank_high
    assert held >= 33


def test_one_large_gain_does_not_set_the_line_for_all_others() -> None:
    x = [float(at) for at in range(12)]
    relation = relate(points([*x, 12.0], [*x, 500.0]))
    assert relation and relation.slope == pytest.approx(1, abs=0.2)


def test_screening_noise_sets_the_hurdle_of_screening_pairs() -> None:
    gains = [0.6, 0.6, 0.6]  # above 0.4 of the project's sigma, below 0.4 of the sigma they were measured in
    assert isinstance(decide(evidence(gains, None), RULE), MorePairs)
    stopped = decide(evidence(gains, Screening("short", SHORT)), RULE)
    assert isinstance(stopped, Verdict) and "0.4 sigma" in stopped.reason


@pytest.mark.parametrize(
    ("relation", "gain", "goes_on"),
    [
        (LINE, 0.6, True),  # it foretells something worth confirming from 0.2 on
        (LINE, 0.1, False),
        (replace(LINE, least=1.9), 1.0, False),
        (replace(LINE, least=50.0), 2.5, True),  # never more than one sigma
        (replace(LINE, least=-3.0), 0.01, True),
        (replace(LINE, rank_low=-0.1), 0.6, False),  # not shown to foretell anything: 0.4 sigma
        (replace(LINE, least=None), 0.9, True),
    ],
)
def test_a_measured_relation_moves_the_hurdle_within_bounds(relation: Relation, gain: float, goes_on: bool) -> None:
    decision = decide(evidence([gain] * 3, Screening("short", SHORT, relation)), RULE)
    assert isinstance(decision, MorePairs) == goes_on, decision


def test_a_loss_stops_whatever_the_relation_foretells() -> None:
    stopped = decide(evidence([-0.1], Screening("short", SHORT, replace(LINE, least=-9.0))), RULE)
    assert isinstance(stopped, Verdict) and stopped.stage is Stage.SCREEN


def test_extension_waits_for_the_floor_of_the_preset_that_screens() -> None:
    waits = decide(evidence([0.5] * 3, Screening("short", None)), RULE)
    assert isinstance(waits, WaitForNoise) and "short" in waits.reason


def test_evidence_of_two_presets_travels_and_old_evidence_is_read() -> None:
    both = evidence([0.5], Screening("short", SHORT, LINE))
    assert Evidence.from_json(both.to_json()) == both
    old = evidence([0.5], None).to_json()
    del old["screening"]
    assert Evidence.from_json(old).screening is None


def test_gains_of_two_presets_are_never_averaged() -> None:
    confirm = PairedScore(Stage.CONFIRM, 0, 99, 10.0, 9.0)
    screens = evidence([50.0], Screening("short", SHORT))
    assert relative_gain(screens, RULE) == pytest.approx((0.5, 0.02, 1))
    assert relative_gain(replace(screens, pairs=(*screens.pairs, confirm)), RULE) == pytest.approx((0.1, 0.1, 1))


def test_screening_elsewhere_costs_less_and_merges_nothing_false() -> None:
    world = simulate_screens.WORLDS[0]
    found = simulate_screens.compare(simulate.World(), world, RULE, campaigns=6, candidates=100, seed=3)
    own, apart, learned = found.values()
    assert apart.device < 0.8 * own.device and learned.device < 0.95 * own.device
    assert max(each.false_merges for each in found.values()) <= 0.5
    assert apart.true_merges >= 0.5 * own.true_merges
    assert simulate_screens.agreement(simulate.World(), world, seed=1) > 0.9
    assert abs(simulate_screens.agreement(simulate.World(), simulate_screens.WORLDS[3], seed=1)) < 0.1


def test_a_preset_that_foretells_nothing_does_not_go_on_screening() -> None:
    world = simulate_screens.WORLDS[3]
    found = simulate_screens.compare(simulate.World(), world, RULE, campaigns=6, candidates=100, seed=3)
    own, apart, learned = found.values()
    assert learned.true_merges > 1.5 * apart.true_merges and learned.device < own.device


def test_the_error_of_a_gain_is_no_less_than_its_pairs_differ() -> None:
    """A floor is of pairs of the same code; here it is ten times smaller than what these pairs differ by."""
    floor = NoiseFloor(sigma_trial=0.01, sigma_pair=0.001, drift=0, trials=12, level=1.0)
    pairs = tuple(
        PairedScore(Stage.CONFIRM, number, number, 1.0, score, False, False)
        for number, score in enumerate((0.9, 0.88, 0.92, 0.9))
    )
    gain = relative_gain(Evidence(pairs, floor), RULE)
    assert gain.mean == pytest.approx(0.1) and gain.error == pytest.approx(0.01633 / 2, rel=1e-3)
    one = relative_gain(Evidence(pairs[:1], floor), RULE)
    assert one.error == pytest.approx(0.001), "a single pair tells no spread"
