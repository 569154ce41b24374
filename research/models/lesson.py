"""Lesson: what one verdict or one person taught, with scope, confidence and evidence links. Failures teach too."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.experiment import Experiment
from research.models.lesson_words import matching
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.thread import Thread
from research.validation.lessons import Assumption, Measured, pool

FREE_FORM = "change-"  # what the step of a researcher's own code is called, with the idea's public id
LONGEST_ABOUT = 4_000  # characters of hypothesis and plan that are kept to search in


class LessonQuerySet(models.QuerySet["Lesson"]):
    def search(self, text: str) -> LessonQuerySet:
        """Those in which every word of `text` occurs, by the full-text index of the database in use."""
        return self.filter(matching(text)) if text.strip() else self

    def current(self) -> LessonQuerySet:
        """What counts: neither retracted nor part of a later lesson that counts."""
        pooled = Q(superseded_why=Lesson.Superseded.POOLED, superseded_by__retracted=False)
        return self.filter(retracted=False).exclude(pooled)

    def dead_ends(self) -> LessonQuerySet:
        """What a person ruled out; of imported ones only those that were taken over as such."""
        return self.filter(kind=Lesson.Kind.REJECTED, retracted=False, binding=True)

    def discards(self) -> LessonQuerySet:
        """Settled against a change, as long as what it assumes holds; see `validation.lessons.changed`."""
        held = self.filter(retracted=False, reopened=None, binding=True).exclude(assumption={})
        return held.exclude(superseded_why=Lesson.Superseded.CONTRARY, superseded_by__retracted=False)

    def labelled(self, name: str) -> LessonQuerySet:
        """Of a technique, tag or file."""
        return self.filter(labels__contains=f" {name} ")


class Lesson(models.Model):
    class Kind(models.TextChoices):
        GAIN = "gain"
        NEAR_MISS = "near_miss"
        NO_GAIN = "no_gain"
        UNSETTLED = "unsettled"  # it had gained so far, and its measuring was ended from outside
        HARM = "harm"
        FAILURE = "failure"  # the code crashed, hung, ran out of memory ...
        INVALID = "invalid"  # an integrity finding
        REJECTED = "rejected"  # a person's reason: a dead end until the lesson is retracted
        CONFLICT = "conflict"  # two changes that cannot stand together

    class Superseded(models.TextChoices):
        POOLED = "pooled"  # the same change on the same base: the later lesson holds both measurements
        STRONGER = "stronger"  # the same change on another base, with more confidence
        CONTRARY = "contrary"  # the same change on another base, with the other outcome: both are shown

    project = models.ForeignKey(Project, models.CASCADE, related_name="lessons")
    thread = models.ForeignKey(
        Thread, models.CASCADE, null=True, blank=True, related_name="lessons", help_text="none: imported"
    )
    experiment = models.OneToOneField(Experiment, models.CASCADE, null=True, blank=True, related_name="lesson")
    request = models.ForeignKey(
        "MergeRequest", models.CASCADE, null=True, blank=True, related_name="lessons",
        help_text="what a person rejected",
    )  # fmt: skip
    session = models.ForeignKey(
        "Session", models.SET_NULL, null=True, blank=True, related_name="lessons",
        help_text="the conversation that proposed the change",
    )  # fmt: skip
    kind = models.CharField(max_length=12, choices=Kind)
    title = models.CharField(max_length=160, blank=True, help_text="what was changed, in a few words")
    text = models.TextField()
    about = models.TextField(blank=True, help_text="hypothesis and plan of the change, to search in")
    techniques = models.JSONField(help_text='[{"technique", "tunables"}] that the change added')
    tags = models.JSONField(default=list, blank=True)
    files = models.JSONField(default=list, blank=True, help_text="paths that the change touches")
    labels = models.TextField(blank=True, help_text="techniques, tags and files, to search in; filled by `save`")
    lines = models.JSONField(default=list, blank=True, help_text="of a conflict: where, and what stands against what")
    benchmark = models.CharField(max_length=40, blank=True)
    preset = models.CharField(max_length=40, blank=True)
    base = models.CharField(max_length=40, help_text="the commit it was learned on")
    recipe = models.JSONField(default=list, help_text="names of the techniques the base had")
    machine_class = models.CharField(max_length=120, blank=True)
    effect = models.FloatField(null=True, blank=True, help_text="relative gain, positive is better")
    error = models.FloatField(null=True, blank=True, help_text="standard error of `effect`")
    pairs = models.PositiveIntegerField(default=0)
    confidence = models.FloatField(default=1.0, help_text="0 to 1, see docs/decisions/0013-memory.md")
    assumption = models.JSONField(default=dict, blank=True, help_text="of a discard: what it rests on")
    reopened = models.DateTimeField(null=True, blank=True, help_text="what it assumed no longer holds")
    reopened_why = models.CharField(max_length=300, blank=True)
    superseded_by = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="supersedes", help_text="a later lesson"
    )
    superseded_why = models.CharField(max_length=12, choices=Superseded, blank=True)
    imported_from = models.CharField(max_length=120, blank=True, help_text="the project, in a lab elsewhere")
    origin = models.CharField(max_length=60, blank=True, help_text="of an imported one: what it was there")
    binding = models.BooleanField(default=True, help_text="whether it may refuse a proposal")
    retracted = models.BooleanField(default=False)
    created = models.DateTimeField(default=timezone.now)

    objects = LessonQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "origin"], condition=~Q(origin=""), name="imported_once")
        ]

    def __str__(self) -> str:
        return self.text

    def save(self, *args: Any, **options: Any) -> None:
        if self._state.adding:
            self.benchmark = self.benchmark or self.project.benchmark
            self.preset = self.preset or self.project.preset
            self._describe()
            self.labels = f" {' '.join([*self.names, *self.tags, *self.files])} "
        super().save(*args, **options)

    @property
    def names(self) -> list[str]:
        """Of the techniques that the change added."""
        return [str(step["technique"]) for step in self.techniques]

    @property
    def measured(self) -> Measured:
        return Measured(self.kind, self.effect, self.error, self.pairs, self.confidence)

    @property
    def assumes(self) -> Assumption | None:
        return Assumption.from_json(self.assumption) if self.assumption else None

    @property
    def is_free_form(self) -> bool:
        """Of code in no catalogue: it is known again by what it says, not by a name."""
        return any(name.startswith(FREE_FORM) for name in self.names)

    @property
    def is_dead_end(self) -> bool:
        return self.kind == self.Kind.REJECTED and self.binding

    def supersede(self, old: Lesson, why: str) -> None:
        """Stand in front of an earlier lesson of the same change. Pooled: take its measurement in, once."""
        with transaction.atomic():
            free = Lesson.objects.filter(pk=old.pk, superseded_by=None).exclude(pk=self.pk)
            if not free.update(superseded_by=self, superseded_why=why):
                return
            if why == self.Superseded.POOLED:
                both = pool(self.measured, old.measured)
                fields = {name: value for name, value in vars(both).items() if getattr(self, name) != value}
                Lesson.objects.filter(pk=self.pk).update(**fields)
            if why == self.Superseded.CONTRARY and self.thread:
                words = f"lessons disagree: {self.title or self.text} came out otherwise on another base"
                Event.record(Event.Kind.LESSON, words[:300], thread=self.thread, experiment=self.experiment)
        self.refresh_from_db()

    def reopen(self, why: str) -> bool:
        """What it assumed no longer holds: it refuses nothing any more, and researchers see that. Once."""
        with transaction.atomic():
            held = Lesson.objects.filter(pk=self.pk, reopened=None, retracted=False)
            again = held.update(reopened=timezone.now(), reopened_why=why[:300]) == 1
            if again:
                words = f"worth another look, {why}: {self.title or self.text}"
                Event.record(
                    Event.Kind.LESSON, words[:300], thread=self.thread, experiment=self.experiment,
                    project=self.project,
                )  # fmt: skip
        self.refresh_from_db(fields=["reopened", "reopened_why"])
        return again

    def retract(self, by: User) -> None:
        """Let it count for nothing any more. A dead end is open again."""
        self._keep(by, retracted=True, act="retract a lesson")

    def restore(self, by: User) -> None:
        self._keep(by, retracted=False, act="restore a lesson")

    @property
    def keeper(self) -> Role:
        """Who may retract and restore it: a reviewer where a reviewer's word made it."""
        return Role.REVIEWER if self.kind == self.Kind.REJECTED else Role.MEMBER

    def _describe(self) -> None:
        """What the change was, from the idea behind it."""
        candidate = self.experiment.candidate if self.experiment else self.request.candidate if self.request else None
        if candidate is None:
            return
        idea = candidate.idea
        self.title = self.title or idea.name[:160]
        self.about = self.about or f"{idea.hypothesis}\n{idea.plan}".strip()[:LONGEST_ABOUT]
        self.tags = self.tags or list(idea.tags)
        self.files = self.files or list(idea.files)

    def _keep(self, by: User, retracted: bool, act: str) -> None:
        Membership.require(by, self.project, self.keeper, act)
        with transaction.atomic():
            other = Lesson.objects.filter(pk=self.pk, retracted=not retracted)
            if other.update(retracted=retracted):
                AuditEntry.record(by, act, self.project, lesson=self.pk)
                words = "a lesson was retracted" if retracted else "a lesson counts again"
                text = f"{words} by {by}: {self.text}"
                Event.record(
                    Event.Kind.LESSON, text, thread=self.thread, experiment=self.experiment, actor=by,
                    project=self.project,
                )  # fmt: skip
                if retracted and (self.is_dead_end or self.assumption):
                    for finished in self.project.threads.all():
                        finished.wake(f"a {'dead end' if self.is_dead_end else 'discard'} is open again")
        self.refresh_from_db(fields=["retracted"])
