"""How much of a machine's unbroken work was budgeted training."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from research.management.stretches import stretches
from research.models import Experiment, Lease, Machine, Project, Result, Trial

pytestmark = pytest.mark.django_db


def test_a_trial_costs_what_passed_since_the_one_before(project: Project, quick: Machine) -> None:
    alone = Machine.objects.create(name="alone", machine_class="one slot", slots=1)
    experiment = Experiment.objects.create(
        key="stretch", project=project, number=99, baseline_commit="0" * 40, candidate_commit="1" * 40, rule={}
    )
    experiment.plan("screen", 3)
    began = timezone.now()
    # Begun, ended: nothing before it; overlapped; after one second; after a break of half a minute; overlapped, too.
    spans = [(0, 80), (70, 150), (151, 230), (260, 340), (330, 410)]
    for trial, (start, end) in zip(experiment.trials.order_by("pk"), spans, strict=False):
        ran(trial, alone, began + timedelta(seconds=start), began + timedelta(seconds=end))
    ran(experiment.trials.order_by("pk")[5], quick, began, began + timedelta(seconds=80))  # it has two slots
    assert stretches(project) == {
        project.preset: {
            "trials": 3,
            "seconds_median": 70.0,
            "budgeted_share": round(180 / 220, 4),
            "budgeted_share_median": round(60 / 70, 4),
        }
    }


def ran(trial: Trial, machine: Machine, granted: datetime, released: datetime) -> None:
    Lease.objects.create(
        trial=trial, machine=machine, worker="w", generation=1, expires=timezone.now(), granted=granted,
        released=released,
    )  # fmt: skip
    Result.objects.create(
        trial=trial, generation=1, machine=machine, score=1.0, isolation_level=3, machine_class="cpu",
        seconds={"train_wall": 60.0, "total_wall": 80.0},
    )  # fmt: skip


def test_what_never_ran_without_a_break_has_no_share(project: Project) -> None:
    assert stretches(project) == {}
