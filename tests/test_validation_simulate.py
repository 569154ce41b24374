"""The simulation plays the shipped rule, and what it says of it holds; e-LOND agrees with a library."""

from __future__ import annotations

import json
import math
from io import StringIO

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from online_fdr.e_values.sequential import ELond

from research.validation import simulate, stats
from research.validation.outcomes import MorePairs, Verdict
from research.validation.records import Direction, Evidence, NoiseFloor, PairedScore, Rule, Stage
from research.validation.rules import decide

RULE = Rule(direction=Direction.HIGHER, futility_from=4)


class Gammas:
    """Our shares, as the library asks for them."""

    def calc_gamma(self, j: int, **_: object) -> float:
        return stats.gamma(j)


def test_the_bar_agrees_with_the_library() -> None:
    draws = np.random.default_rng(1)
    library, found = ELond(0.1, Gammas()), 0
    for turn in range(1, 300):
        e_value = math.exp(draws.normal(2, 4))
        ours = e_value >= stats.elond_bar(0.1, None, turn, found)
        assert library.test_one(e_value) == ours
        found += ours
    assert 5 < found < 290


def decided(early: np.ndarray, fresh: np.ndarray, sigma: float, bar: float) -> tuple[bool, int]:
    """Whether `rules.decide` calls it improved, and the trials it took; the baseline scores 0 throughout."""
    noise = NoiseFloor(sigma_trial=sigma, sigma_pair=sigma, drift=0.0, trials=12)
    pairs: list[PairedScore] = []
    while True:
        step = decide(Evidence(tuple(pairs), noise, bar=bar), RULE)
        if isinstance(step, Verdict):
            return step.kind == "improved", 2 * len(pairs)
        assert isinstance(step, MorePairs)
        source = fresh if step.stage is Stage.CONFIRM else early
        have = sum(pair.stage is step.stage for pair in pairs)
        offset = RULE.screen_pairs if step.stage is Stage.EXTEND else 0
        for place in range(have, step.pairs):
            pairs.append(PairedScore(step.stage, place, len(pairs), 0.0, float(source[offset + place])))


def test_the_simulation_does_what_the_rule_does(monkeypatch: pytest.MonkeyPatch) -> None:
    world = simulate.World(null=0.4, harm=0.2, gain_low=0.001, gain_high=0.006)
    draws = simulate.draw(world, 4, 40, seed=7)
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(draws, "pairs", lambda count: drawn.append(type(draws).pairs(draws, count)) or drawn[-1])
    state = draws.random.bit_generator.state
    bars = simulate.shipped_bars(RULE, 40)
    done = simulate.funnel(draws, RULE, bars)
    draws.random.bit_generator.state = state
    sigmas = world.sigma_pair * np.sqrt(draws.random.chisquare(simulate.FLOOR_PAIRS, 4) / simulate.FLOOR_PAIRS)
    early, fresh = drawn
    assert 5 < done.merged.sum() < 100
    for campaign in range(4):
        turn, found = 0, 0
        for at in range(40):
            bar = stats.elond_bar(RULE.alpha, None, turn + 1, found)
            improved, trials = decided(early[campaign, at], fresh[campaign, at], float(sigmas[campaign]), bar)
            assert (improved, trials) == (done.merged[campaign, at], done.trials[campaign, at]), (campaign, at)
            turn += confirmed_from(early[campaign, at], sigmas[campaign])
            found += improved


def confirmed_from(early: np.ndarray, sigma: float) -> bool:
    """Whether the pairs before confirmation let a candidate through."""
    if early[0] < 0:
        return False
    if early[0] >= RULE.clear_sigma * sigma:
        return True
    return bool(early.mean() > 0 and early.mean() >= RULE.extend_sigma * sigma)


def test_the_shipped_rule_merges_few_false_and_most_true_gains() -> None:
    shipped = simulate.compare(simulate.World(), RULE, 200, 200, seed=3)
    ours, naive = shipped[simulate.RECOMMENDED], shipped["keep_if_better"]
    assert ours.false_merges <= 0.15 and ours.true_merges >= 8.5 and ours.fdp <= 0.05
    assert naive.false_merges > 8 and naive.true_merges < ours.true_merges
    assert 0.8 <= ours.shrunk_gain / ours.real_gain <= 1.05 < ours.claimed_gain / ours.real_gain


def test_a_barren_campaign_merges_next_to_nothing_and_a_long_one_keeps_its_power() -> None:
    barren = simulate.draw(simulate.World(null=0.68, harm=0.32), 400, 200, seed=5)
    tally = simulate.tally(barren, simulate.funnel(barren, RULE, simulate.shipped_bars(RULE, 200)))
    assert tally.share_with_merge <= 0.05 and math.isnan(tally.power)
    long = simulate.draw(simulate.World(), 30, 2_000, seed=5)
    tally = simulate.tally(long, simulate.funnel(long, RULE, simulate.shipped_bars(RULE, 2_000)))
    assert tally.power_last_quarter >= 0.5 and tally.fdp <= 0.02


def test_the_command_ends_with_one_json_object() -> None:
    out = StringIO()
    call_command("simulate", "--json", campaigns=20, candidates=40, stdout=out)
    result = json.loads(out.getvalue())
    assert result["recommended"] in result["rules"]
    assert set(result["rules"]["e_20"]) >= {"false_merges", "true_merges", "trials"}
    assert 0 <= result["barren_share_with_merge"] <= 1 and 0 < result["p_e_ge_20"] <= 0.05
    assert set(result["worlds"]) == {"mixed", "barren", "drifting", "heavy_tails"}
    assert all(0 <= share <= 0.05 for share in result["p_capped_e_ge_20"].values())
    assert result["power_last_quarter"] == result["long"]["power_last_quarter"] >= 0.5
    assert "Infinity" not in out.getvalue(), "JSON as every reader takes it"
    with pytest.raises(CommandError, match="--campaigns"):
        call_command("simulate", campaigns=0, stdout=out)


@pytest.mark.slow
def test_noise_and_drift_can_be_given_by_hand() -> None:
    out = StringIO()
    call_command("simulate", "--json", campaigns=4, candidates=20, sigma=0.01, drift=1.0, stdout=out)
    worlds = {world["name"]: world for world in json.loads(out.getvalue())["settings"]["worlds"]}
    assert {world["sigma_trial"] for world in worlds.values()} == {0.01}
    assert worlds["mixed"]["drift_sd"] == pytest.approx(0.005), "half of what a floor moves from end to end"
    assert worlds["mixed"]["gain_high"] == pytest.approx(0.004 / 0.0015 * 0.01)


def test_what_makes_no_sense_is_refused() -> None:
    out = StringIO()
    with pytest.raises(CommandError, match="leave --sigma"):
        call_command("simulate", project="any", sigma=0.01, stdout=out)
    with pytest.raises(CommandError, match="above 0"):
        call_command("simulate", sigma=-1.0, stdout=out)


@pytest.mark.django_db
def test_a_project_without_a_noise_floor_cannot_be_simulated() -> None:
    with pytest.raises(CommandError, match="no project named 'nobody'"):
        call_command("simulate", project="nobody", stdout=StringIO())
