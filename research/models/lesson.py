"""Lesson: what one verdict taught, with scope and evidence links. Failures teach too."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from research.models.experiment import Experiment
from research.models.project import Project, Thread


class Lesson(models.Model):
    class Kind(models.TextChoices):
        GAIN = "gain"
        NEAR_MISS = "near_miss"
        NO_GAIN = "no_gain"
        HARM = "harm"
        FAILURE = "failure"  # the code crashed, hung, ran out of memory ...
        INVALID = "invalid"  # an integrity finding
        REJECTED = "rejected"  # a person's reason: a dead end until the lesson is retracted
        CONFLICT = "conflict"  # two changes that cannot stand together

    project = models.ForeignKey(Project, models.CASCADE, related_name="lessons")
    thread = models.ForeignKey(Thread, models.CASCADE, related_name="lessons")
    experiment = models.OneToOneField(Experiment, models.CASCADE, null=True, blank=True, related_name="lesson")
    kind = models.CharField(max_length=12, choices=Kind)
    text = models.TextField()
    techniques = models.JSONField(help_text='[{"technique", "tunables"}] that the change added')
    base = models.CharField(max_length=40, help_text="the commit it was learned on")
    recipe = models.JSONField(default=list, help_text="names of the techniques the base had")
    effect = models.FloatField(null=True, blank=True, help_text="relative gain, positive is better")
    error = models.FloatField(null=True, blank=True, help_text="standard error of `effect`")
    pairs = models.PositiveIntegerField(default=0)
    machine_class = models.CharField(max_length=120, blank=True)
    retracted = models.BooleanField(default=False)
    created = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.text
