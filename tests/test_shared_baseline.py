"""While screening one after another, a baseline trial is run once a device; what confirms shares nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from research.models import Experiment, Project, Result, Series, Trial
from runners.lab import Lab, Work
from runners.points import Stretch
from tests.cast import World
from tests.test_leases import experiment_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the arms of a pair run one after another."""
    alone = property(lambda project: replace(project.contract.preset(project.preset), side_by_side=False))
    monkeypatch.setattr(Project, "sizes", alone)
    monkeypatch.setattr("runners.lab.close_old_connections", lambda: None)


@pytest.fixture
def lab(world: World) -> Lab:
    lab = Lab(world.machine.name, world.machine.machine_class, 1, {"devices": ["cpu"]})
    lab.machine.attach(3, [])
    return lab


def finish(lab: Lab, work: Work, score: float) -> None:
    steps, values = np.arange(3), np.array([3.0, 2.0, 1.0])
    lab.store([Stretch(work.trial.pk, work.lease.generation, "loss", 0, steps.tobytes(), values.tobytes())])
    work.trial.finish(
        work.lease, machine=lab.machine, score=score, isolation_level=3, machine_class="quick", device_seconds=30.0,
        seconds={"total_wall": 30.0},
    )  # fmt: skip


def claimed(lab: Lab) -> tuple[Work, Work]:
    baseline, candidate = sorted(lab.claim(), key=lambda work: work.trial.arm)
    return baseline, candidate


def test_the_baseline_of_a_second_screen_is_the_trial_of_the_first_with_its_curve(project: Project, lab: Lab) -> None:
    one, two = experiment_of(project, 1, 1), experiment_of(project, 2, 1)
    baseline, candidate = claimed(lab)
    assert not lab.share(baseline), "nothing was measured yet"
    finish(lab, baseline, 1.25)
    assert not lab.share(candidate), "a candidate is always measured"
    finish(lab, candidate, 1.0)
    baseline, candidate = claimed(lab)
    assert {baseline.trial.experiment_id, one.pk} == {one.pk, two.pk}
    assert lab.share(baseline) and not lab.share(candidate)
    shared = Result.objects.get(trial=baseline.trial)
    assert (shared.score, shared.device_seconds, shared.observations[-1]["kind"]) == (1.25, 0.0, "shared_baseline")
    ((_, points),) = Series.objects.filter(trial=baseline.trial).points()
    assert [list(part) for part in points] == [[0, 1, 2], [3.0, 2.0, 1.0]]
    finish(lab, candidate, 0.9)
    assert two.scores() == [(1.25, 0.9)]
    third = experiment_of(project, 3, 1)
    baseline, _ = claimed(lab)
    assert lab.share(baseline) and third.trials.get(arm="baseline").result.observations[-1]["message"] == (
        "measured once, as trial " + one.trials.get(arm="baseline").public_id + " of this commit, seed and preset, on "
        "this device"
    ), "a copy is not copied"


def test_it_is_shared_with_nothing_else_later_or_elsewhere(project: Project, lab: Lab) -> None:
    one, two = experiment_of(project, 1, 1), experiment_of(project, 2, 1)
    for work in claimed(lab):
        finish(lab, work, 1.0)
    baseline, candidate = claimed(lab)
    before = one.trials.get(arm="baseline")
    for change in ({"commit": "c" * 40}, {"seed": 1}, {"split": "other"}, {"stage": "extend"}):
        kept = {name: getattr(before, name) for name in change}
        Trial.objects.filter(pk=before.pk).update(**change)
        assert baseline.trial.measured_before(lab.worker, 1800) is None, change
        Trial.objects.filter(pk=before.pk).update(**kept)
    assert baseline.trial.measured_before("another-worker", 1800) is None
    Trial.objects.filter(pk=before.pk).update(ended=timezone.now() - timedelta(hours=1))
    assert baseline.trial.measured_before(lab.worker, 1800) is None
    assert baseline.trial.measured_before(lab.worker, 7200) is not None
    assert candidate.trial.measured_before(lab.worker, 7200) is None and two.trials.count() == 2


def test_what_confirms_or_runs_side_by_side_has_seeds_and_trials_of_its_own(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = experiment_of(project, 1, 1), experiment_of(project, 2, 1)
    for experiment in (one, two):
        experiment.plan("confirm", 1)
    seeds = [[set(e.trials.filter(stage=stage).values_list("seed", flat=True)) for e in (one, two)]
             for stage in ("screen", "confirm")]  # fmt: skip
    assert seeds[0][0] == seeds[0][1] and seeds[1][0].isdisjoint(seeds[1][1])
    assert one.shares_baseline("extend") and not one.shares_baseline("confirm") and not one.shares_baseline("noise")
    for purpose, stage in ((Experiment.Purpose.FIDELITY, "fidelity"), (Experiment.Purpose.RIVAL, "confirm")):
        others = [experiment_of(project, number, 1) for number in (len(purpose), 2 * len(purpose))]
        for experiment in others:  # nothing of these is ever merged
            experiment.purpose = purpose
            experiment.plan(stage, 1)
        alike = [set(e.trials.filter(stage=stage).values_list("seed", flat=True)) for e in others]
        assert alike[0] == alike[1] and alike[0].isdisjoint(set.union(*seeds[1])) and others[0].shares_baseline(stage)
    monkeypatch.undo()
    assert not experiment_of(project, 3, 1).shares_baseline("screen"), "two cores measure both arms at once"
