"""A project with a rule of its own choice: from the idea to the verdict, and what pages say of it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from benchmarks.contract import load
from research.loop.begin import rule_for
from research.models import Experiment, Result, Thread, Trial, Verdict
from research.validation.named import RuleError
from research.validation.records import Rule
from tests.cast import World, begin, focus, go, running

pytestmark = pytest.mark.django_db


@pytest.fixture
def ten(toy: None, world: World) -> Thread:
    return begin("ten", rule="ten_seeds").threads.get()


def test_ten_seeds_confirms_on_ten_pairs_without_screening_or_a_campaign_bar(ten: Thread, world: World) -> None:
    focus(ten, "alpha")
    verdict = world.until_verdict(ten)
    experiment = verdict.experiment
    assert set(experiment.trials.values_list("stage", flat=True)) == {"confirm"}
    assert (verdict.kind, verdict.pairs, experiment.trials.count()) == ("improved", 10, 20)
    assert verdict.p_value is not None and verdict.p_value < 0.01 and "below 0.01" in verdict.reason
    assert experiment.hypothesis is None and experiment.bar is None


def test_the_page_of_a_rule_that_reads_once_shows_p_and_no_bar(
    ten: Thread, world: World, client: Client, reviewer: User
) -> None:
    client.force_login(reviewer)
    focus(ten, "alpha")
    go(ten)
    running_page = client.get(f"/e/{_last().public_id}/").content.decode()
    assert "10 pairs of fresh seeds, read once" in running_page and "improved needs p" in running_page
    world.until_verdict(ten)
    page = client.get(f"/e/{_last().public_id}/").content.decode()
    assert "one-sided, read once" in page and "e-value, bar" not in page


def test_a_speedrun_has_a_target_and_other_rules_have_none(toy: None) -> None:
    contract = load("toy")
    assert rule_for(contract, "quick", "speedrun", 0.5).target == 0.5
    with pytest.raises(RuleError, match="needs a target"):
        rule_for(contract, "quick", "speedrun")
    with pytest.raises(RuleError, match="no rule 'luck'"):
        begin("unlucky", rule="luck")


def test_a_trial_at_its_cap_is_flagged_in_the_evidence(ten: Thread, world: World) -> None:
    focus(ten, "alpha")
    go(ten)
    experiment = running(ten)
    assert experiment is not None
    world.run(1)
    late = Result.objects.get(trial__experiment=experiment, trial__arm=Trial.Arm.CANDIDATE)
    Result.objects.filter(pk=late.pk).update(metrics={"censored": 1.0})
    (pair,) = experiment.complete_pairs()
    assert pair.candidate_censored and not pair.baseline_censored
    verdict = world.until_verdict(ten)
    assert Verdict.objects.get(pk=verdict.pk).evidence["pairs"][0]["candidate_censored"] is True
    assert verdict.p_value >= 11 / 1024 and verdict.kind == "inconclusive", "nine of ten by order are not enough"


def test_the_rule_is_frozen_with_its_name(ten: Thread) -> None:
    assert Rule.from_json(ten.project.rule) == rule_for(load("toy"), "quick", "ten_seeds")


def _last() -> Experiment:
    return Experiment.objects.exclude(purpose=Experiment.Purpose.NOISE).latest("pk")
