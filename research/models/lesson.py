"""Lesson: what one verdict taught, with scope and evidence links. Failures teach too."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import models, transaction
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.experiment import Experiment
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.thread import Thread


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
    request = models.ForeignKey(
        "MergeRequest", models.CASCADE, null=True, blank=True, related_name="lessons",
        help_text="what a person rejected",
    )  # fmt: skip
    kind = models.CharField(max_length=12, choices=Kind)
    text = models.TextField()
    techniques = models.JSONField(help_text='[{"technique", "tunables"}] that the change added')
    lines = models.JSONField(default=list, blank=True, help_text="of a conflict: where, and what stands against what")
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

    def retract(self, by: User) -> None:
        """Let it count for nothing any more. A dead end is open again."""
        self._keep(by, retracted=True, act="retract a lesson")

    def restore(self, by: User) -> None:
        self._keep(by, retracted=False, act="restore a lesson")

    @property
    def keeper(self) -> Role:
        """Who may retract and restore it: a reviewer where a reviewer's word made it."""
        return Role.REVIEWER if self.kind == self.Kind.REJECTED else Role.MEMBER

    def _keep(self, by: User, retracted: bool, act: str) -> None:
        Membership.require(by, self.project, self.keeper, act)
        with transaction.atomic():
            other = Lesson.objects.filter(pk=self.pk, retracted=not retracted)
            if other.update(retracted=retracted):
                AuditEntry.record(by, act, self.project, lesson=self.pk)
                words = "a lesson was retracted" if retracted else "a lesson counts again"
                thread, experiment = self.thread, self.experiment
                text = f"{words} by {by}: {self.text}"
                Event.record(Event.Kind.LESSON, text, thread=thread, experiment=experiment, actor=by)
                if retracted and self.kind == self.Kind.REJECTED:
                    for finished in self.project.threads.all():
                        finished.wake("a dead end is open again")
        self.refresh_from_db(fields=["retracted"])
