"""Ablation: what each change of a champion is worth, measured by leaving it out, one at a time."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models, transaction
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.experiment import MOST_SEEDS, Experiment
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.refusals import NotMergeable
from research.validation.combine import AblationRow, lost
from research.validation.records import Rule


class Ablation(models.Model):
    """One champion, asked for by a person or before a release. Its parts are built and measured by the loop."""

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="ablations")
    champion = models.CharField(max_length=40)
    pairs = models.PositiveIntegerField(help_text="of the champion with and without each change")
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    created = models.DateTimeField(default=timezone.now)
    ended = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "champion", "pairs"], name="one_ablation")]

    def __str__(self) -> str:
        return f"ablation of {self.champion[:10]}, {self.pairs} pairs"

    @classmethod
    def ask(cls, project: Project, by: User | None = None, pairs: int = 6) -> Ablation:
        """Measure the project's champion without each of its changes; `by=None` is the lab itself.

        Asking again gives the same one. Raises NotMergeable where there is nothing to leave out.
        """
        Membership.require(by, project, Role.MEMBER, "ask for an ablation")
        project.refresh_from_db(fields=["champion", "state"])
        if not 2 <= pairs <= MOST_SEEDS:
            raise NotMergeable(f"ask for 2 to {MOST_SEEDS} pairs a change")
        if project.champion == project.start_commit:
            raise NotMergeable("main still stands on the start: there is no change to leave out")
        known = cls.objects.filter(project=project, champion=project.champion, pairs=pairs).first()
        if known is None and project.state == Project.State.FINISHED:
            raise NotMergeable("the project is finished; resume it first")
        with transaction.atomic():
            found, new = cls.objects.get_or_create(
                project=project, champion=project.champion, pairs=pairs, defaults={"asked_by": by}
            )
            if new:
                AuditEntry.record(by, "ablate", project, commit=project.champion, pairs=pairs)
                words = (
                    f"{by or 'the lab'} asked what each change of {project.champion[:7]} is worth: {pairs} pairs each"
                )
                Event.record(Event.Kind.ABLATION, words, project=project, actor=by)
        return found

    def end(self, words: str) -> bool:
        """Once, when every part has its pairs or could not be built."""
        with transaction.atomic():
            mine = Ablation.objects.filter(pk=self.pk, ended=None)
            if not mine.update(ended=timezone.now()):
                return False
            Event.record(Event.Kind.ABLATION, words, project=self.project)
        return True

    def rows(self) -> list[AblationRow]:
        """What the champion loses without each change, the most valuable first; not measured yet comes last."""
        rule = Rule.from_json(self.project.rule)
        rows = [part.row(rule) for part in self.parts.select_related("experiment").order_by("number")]
        return sorted(rows, key=lambda row: (row.loss.effect is None, -(row.loss.effect or 0.0)))


class AblationPart(models.Model):
    """The champion without one change: built, then measured against the champion."""

    ablation = models.ForeignKey(Ablation, models.CASCADE, related_name="parts")
    number = models.PositiveIntegerField()
    label = models.CharField(max_length=160)
    technique = models.CharField(max_length=80, blank=True, help_text="what is left out of the recipe")
    request = models.ForeignKey(
        "MergeRequest", models.SET_NULL, null=True, blank=True, related_name="+",
        help_text="the merge that brought it: undone by git where a recipe cannot leave it out",
    )  # fmt: skip
    commit = models.CharField(max_length=40, blank=True)
    refusal = models.TextField(blank=True, help_text="why it could not be built")
    experiment = models.OneToOneField(Experiment, models.SET_NULL, null=True, blank=True, related_name="ablation_part")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["ablation", "number"], name="one_part")]

    def __str__(self) -> str:
        return f"{self.ablation}: without {self.label}"

    @property
    def key(self) -> str:
        return f"ablation-{self.ablation.public_id}-{self.number}"

    @property
    def ref(self) -> str:
        return f"refs/ablations/{self.ablation.public_id}/{self.number}"

    def built(self, commit: str) -> None:
        AblationPart.objects.filter(pk=self.pk, commit="").update(commit=commit)
        self.refresh_from_db(fields=["commit"])

    def refuse(self, why: str) -> None:
        AblationPart.objects.filter(pk=self.pk, commit="").update(refusal=why)
        self.refresh_from_db(fields=["refusal"])

    def measured_by(self, experiment: Experiment) -> None:
        AblationPart.objects.filter(pk=self.pk, experiment=None).update(experiment=experiment)
        self.refresh_from_db(fields=["experiment"])

    def row(self, rule: Rule) -> AblationRow:
        pairs = self.experiment.complete_pairs() if self.experiment else ()
        return AblationRow(self.label, lost(self.label, pairs, rule), self.refusal)
