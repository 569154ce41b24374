"""Idea: one change worth testing, as a falsifiable sentence with an expected effect."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from research.models.ids import new_id
from research.models.project import Project, Thread


class Idea(models.Model):
    class State(models.TextChoices):
        PROPOSED = "proposed"
        IMPLEMENTED = "implemented"
        REFUSED = "refused"  # a duplicate, or a change that does not apply; `refusal` says which

    class Kind(models.TextChoices):
        TECHNIQUE = "technique"  # one technique added to the head
        RETUNE = "retune"  # other tunables of a technique that the head has
        JOINT = "joint"  # several techniques at once (near misses recombined)
        COMBINATION = "combination"  # branches of two threads, merged three ways

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    thread = models.ForeignKey(Thread, models.CASCADE, related_name="ideas")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=Kind)
    researcher = models.CharField(max_length=40)
    hypothesis = models.TextField()
    expected_effect = models.FloatField(help_text="relative gain in the metric, positive is better")
    cost_guess = models.FloatField(default=0, help_text="device-seconds until a verdict")
    steps = models.JSONField(help_text='the techniques to apply, in order: [{"technique", "tunables"}]')
    tags = models.JSONField(default=list, blank=True)
    fingerprint = models.CharField(max_length=64, db_index=True)
    state = models.CharField(max_length=12, choices=State, default=State.PROPOSED)
    refusal = models.TextField(blank=True)
    pointer = models.ForeignKey("Experiment", models.SET_NULL, null=True, blank=True, related_name="+")
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["thread", "number"], name="idea_number")]

    def __str__(self) -> str:
        return self.hypothesis

    @property
    def project(self) -> Project:
        return self.thread.project

    def refuse(self, why: str, pointer: models.Model | None = None) -> None:
        self.state, self.refusal, self.pointer = self.State.REFUSED, why, pointer  # type: ignore[assignment]
        self.save(update_fields=["state", "refusal", "pointer"])

    def implemented(self) -> None:
        Idea.objects.filter(pk=self.pk, state=self.State.PROPOSED).update(state=self.State.IMPLEMENTED)
