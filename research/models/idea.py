"""Idea: one change worth testing, as a falsifiable sentence with an expected effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models, transaction
from django.db.models import Max
from django.utils import timezone

from benchmarks.catalogue import is_change
from research.models.event import Event
from research.models.ids import new_id
from research.models.project import Project
from research.models.thread import Thread
from research.validation.criteria import Criteria


class IdeaQuerySet(models.QuerySet["Idea"]):
    def ahead(self) -> IdeaQuerySet:
        """Made by a researcher and not implemented yet; combinations are made by merging."""
        return self.filter(state=Idea.State.PROPOSED).exclude(kind=Idea.Kind.COMBINATION)


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
        CHANGE = "change"  # code of a researcher's own, in no catalogue

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    thread = models.ForeignKey(Thread, models.CASCADE, related_name="ideas")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=Kind)
    researcher = models.CharField(max_length=40)
    title = models.CharField(max_length=160, blank=True, help_text="what is changed, in a few words")
    hypothesis = models.TextField()
    expected_effect = models.FloatField(help_text="relative gain in the metric, positive is better")
    cost_guess = models.FloatField(default=0, help_text="device-seconds until a verdict")
    steps = models.JSONField(help_text='the techniques to apply, in order: [{"technique", "tunables"}]')
    files = models.JSONField(default=list, blank=True, help_text="paths that it changes")
    tags = models.JSONField(default=list, blank=True)
    mode = models.CharField(max_length=12, blank=True, help_text="exploit, explore, combine, ablate or revisit")
    plan = models.TextField(blank=True, help_text="how it is to be done, for whoever implements it")
    model = models.CharField(max_length=80, blank=True, help_text="the model or agent that proposed it")
    criteria = models.JSONField(default=dict, blank=True, help_text="when it is given up")
    fingerprint = models.CharField(max_length=64, db_index=True)
    trusted = models.BooleanField(default=False, help_text="what it adds is code that ships with the lab")
    state = models.CharField(max_length=12, choices=State, default=State.PROPOSED)
    refusal = models.TextField(blank=True)
    pointer = models.ForeignKey("Experiment", models.SET_NULL, null=True, blank=True, related_name="+")
    created = models.DateTimeField(default=timezone.now)

    objects = IdeaQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["thread", "number"], name="idea_number")]
        indexes = [models.Index(fields=["thread"], condition=models.Q(state="proposed"), name="proposed_idea")]

    def __str__(self) -> str:
        return self.hypothesis

    @property
    def project(self) -> Project:
        return self.thread.project

    @property
    def techniques(self) -> list[str]:
        return [str(step["technique"]) for step in self.steps]

    def labels(self) -> list[frozenset[str]]:
        """What steering may call each part: of a technique its name, family and files, of own code files and tags.

        And of many problems those that it touches.
        """
        known, own = self.project.labels, frozenset({*self.files, *self.project.touched(self.files), *self.tags})
        return [known.get(name, frozenset({name}) | (own if is_change(name) else set())) for name in self.techniques]

    @classmethod
    def next_number(cls, thread: Thread) -> int:
        return (thread.ideas.aggregate(last=Max("number"))["last"] or 0) + 1

    @classmethod
    def add(cls, thread: Thread, number: int, **fields: Any) -> Idea:
        """Save a new idea of a thread. A combination adds no code of its own: what goes into it decides."""
        fields.setdefault("trusted", fields["kind"] == cls.Kind.COMBINATION)
        fields.setdefault("researcher", thread.researcher)
        fields["criteria"] = Criteria.from_json(fields.get("criteria", {})).to_json()
        with transaction.atomic():
            idea = cls.objects.create(thread=thread, number=number, **fields)
            Event.record(Event.Kind.IDEA, f"idea {number}: {idea.name}", thread=thread)
        return idea

    @property
    def name(self) -> str:
        """A few words for lists; old ideas have only their sentence."""
        return self.title or self.hypothesis

    def refuse(self, why: str, pointer: models.Model | None = None) -> bool:
        """Once, and only before it is implemented."""
        with transaction.atomic():
            mine = Idea.objects.filter(pk=self.pk, state=self.State.PROPOSED)
            refused = mine.update(state=self.State.REFUSED, refusal=why, pointer=pointer) == 1
            if refused:
                for session in self.sessions.open():
                    session.stop("refused", f"the idea was refused: {why}")
                Event.record(Event.Kind.REFUSED, f"idea {self.number} refused: {why}", thread=self.thread)
        self.refresh_from_db(fields=["state", "refusal", "pointer"])
        return refused

    def implemented(self, files: Sequence[str]) -> bool:
        """`files`: what its commit changes; a catalogue knew that before, a model does not.

        False where it was refused in the meantime: an agent may take back what it has handed in.
        """
        fields = {} if self.files else {"files": list(files)}
        mine = Idea.objects.filter(pk=self.pk, state=self.State.PROPOSED)
        mine.update(state=self.State.IMPLEMENTED, **fields)
        return not Idea.objects.filter(pk=self.pk, state=self.State.REFUSED).exists()
