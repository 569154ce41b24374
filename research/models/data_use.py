"""DataUse: how many experiments have used each validation split of a data set, and which part confirms next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.db import models
from django.db.models import F
from django.utils import timezone

from research.models.project import Project

if TYPE_CHECKING:
    from research.models.experiment import Experiment

CONFIRM_USES = 25  # experiments that confirm on one part before the next part takes over
SCREEN, FINAL = "val_screen", "val_final"
SCREENING = ("screen", "extend", "noise", "check", "fidelity")  # stages; all others confirm


class DataUseQuerySet(models.QuerySet["DataUse"]):
    def counts(self, data_id: str) -> dict[str, int]:
        return dict(self.filter(data_id=data_id).values_list("split", "uses"))

    def take(self, experiment: Experiment, stage: str) -> str:
        """The split that scores a stage of an experiment; within its transaction. Its use is counted once.

        What confirms is not what screened; it is fixed at the first confirm look, so that parts are never mixed.
        Where inputs are drawn anew there is no split: it is empty, and nothing is counted.
        """
        if not experiment.sizes.confirm_data:
            return ""
        locked = type(experiment).objects.select_for_update().get(pk=experiment.pk)
        experiment.confirm_split = locked.confirm_split
        if stage not in SCREENING and not experiment.confirm_split:
            experiment.confirm_split = self._part_for(experiment)
            experiment.save(update_fields=["confirm_split"])
        split = SCREEN if stage in SCREENING else experiment.confirm_split
        if not experiment.trials.filter(split=split).exists():
            self._count(experiment.project, split)
        return split

    def _part_for(self, experiment: Experiment) -> str:
        if experiment.purpose == experiment.Purpose.CLOSING:
            return FINAL
        if experiment.original and experiment.original.confirm_split:  # their pairs are pooled
            return experiment.original.confirm_split
        if begun := experiment.trials.exclude(stage__in=SCREENING).first():
            return begun.split
        project = experiment.project
        return self.part_in_turn(project.data_id, project.confirm_parts)

    def part_in_turn(self, data_id: str, parts: Sequence[str]) -> str:
        """What the next experiment confirms on. A part is left after CONFIRM_USES; after the last comes the first."""
        counts = self.counts(data_id)
        return min(parts, key=lambda part: counts.get(part, 0) // CONFIRM_USES)

    def _count(self, project: Project, split: str) -> None:
        """One more experiment uses a split. All projects on the same data count together."""
        row, _ = self.get_or_create(data_id=project.data_id, split=split)
        self.filter(pk=row.pk).update(uses=F("uses") + 1, project=project, used=timezone.now())


class DataUse(models.Model):
    data_id = models.CharField(max_length=64)
    split = models.CharField(max_length=20)
    uses = models.PositiveIntegerField(default=0, help_text="experiments with trials that it scored")
    project = models.ForeignKey(Project, models.SET_NULL, null=True, related_name="+", help_text="whose was the last")
    used = models.DateTimeField(default=timezone.now)

    objects = DataUseQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["data_id", "split"], name="one_data_use_a_split")]

    def __str__(self) -> str:
        return f"{self.split} of {self.data_id[:12]}, used by {self.uses}"
