"""Verdict and Finding: what the rule said of the frozen evidence, and what integrity checks saw."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.experiment import Experiment
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.refusals import NotMergeable
from research.models.thread import Thread
from research.validation.records import Severity, VerdictKind


def choices(kinds: type[VerdictKind] | type[Severity]) -> list[tuple[str, str]]:
    return [(str(kind), str(kind).replace("_", " ")) for kind in kinds]


class Verdict(models.Model):
    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    experiment = models.OneToOneField(Experiment, models.CASCADE, related_name="verdict")
    kind = models.CharField(max_length=16, choices=choices(VerdictKind))
    stage = models.CharField(max_length=10)
    effect = models.FloatField(null=True, blank=True, help_text="mean gain in metric units, positive is better")
    shrunk = models.FloatField(null=True, blank=True)
    low = models.FloatField(null=True, blank=True, help_text="anytime interval of the gain")
    high = models.FloatField(null=True, blank=True)
    e_value = models.FloatField(default=1)
    e_against = models.FloatField(default=1)
    bar = models.FloatField()
    pairs = models.PositiveIntegerField(default=0, help_text="confirm pairs")
    near_miss = models.BooleanField(default=False)
    reason = models.TextField()
    relative = models.FloatField(null=True, blank=True, help_text="gain over the baseline's mean score, all stages")
    p_value = models.FloatField(null=True, blank=True, help_text="of a rule that reads once; it decides there")
    evidence = models.JSONField(help_text="frozen input of the rule")
    created = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


class FindingQuerySet(models.QuerySet["Finding"]):
    def standing(self) -> FindingQuerySet:
        """Those that forbid a merge: structural ones, and what asks for a look and was not overridden."""
        return self.filter(STANDING)


STANDING = Q(severity=str(Severity.STRUCTURAL)) | Q(severity=str(Severity.REVIEW), overridden_at=None)


class Finding(models.Model):
    """One integrity observation with kind, severity and evidence lines. Only a person overrides one, with a reason."""

    experiment = models.ForeignKey(Experiment, models.CASCADE, related_name="findings")
    trial = models.ForeignKey("Trial", models.CASCADE, null=True, blank=True, related_name="findings")
    kind = models.CharField(max_length=40)
    severity = models.CharField(max_length=12, choices=choices(Severity))
    message = models.TextField()
    evidence = models.JSONField(default=list)
    overridden_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    overridden_at = models.DateTimeField(null=True, blank=True)
    override_reason = models.TextField(blank=True)
    created = models.DateTimeField(default=timezone.now)

    objects = FindingQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "trial", "kind", "message"], name="one_finding")]

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    @property
    def project(self) -> Project:
        return self.experiment.project

    @property
    def can_be_overridden(self) -> bool:
        return self.severity == Severity.REVIEW

    def may_override(self, user: User) -> None:
        """Raises NotMergeable with the reason where this person cannot override it, or nobody can."""
        if self.severity == Severity.STRUCTURAL:
            raise NotMergeable("a structural finding makes the gain invalid; nobody can override it into a merge")
        if not self.can_be_overridden:
            raise NotMergeable("this finding only informs; there is nothing to override")
        act = "override a finding"
        Membership.require(user, self.project, Role.REVIEWER, act)
        threads = Thread.objects.filter(experiments=self.experiment)
        Membership.require_second_person(user, self.project, threads, f"{act} of it")

    def override(self, by: User, reason: str) -> None:
        """A person has looked, and says why it forbids no merge."""
        self._look(by, reason, overridden_by=by, overridden_at=timezone.now(), override_reason=reason.strip())

    def reinstate(self, by: User, reason: str) -> None:
        """Let it forbid a merge again."""
        self._look(by, reason, overridden_by=None, overridden_at=None, override_reason="")

    def _look(self, by: User, reason: str, **fields: object) -> None:
        self.may_override(by)
        if not reason.strip():
            raise NotMergeable("say why: the reason stays beside the finding")
        stands = fields["overridden_at"] is None
        act = "reinstate a finding" if stands else "override a finding"
        with transaction.atomic():
            mine = Finding.objects.filter(pk=self.pk, overridden_at__isnull=not stands)
            if not mine.update(**fields):
                raise NotMergeable("it was overridden already" if not stands else "it stands already; reload")
            AuditEntry.record(
                by, act, self.project, finding=self.pk, kind=self.kind, message=self.message,
                experiment=self.experiment.public_id, reason=reason.strip(),
            )  # fmt: skip
            what = f"finding {'stands again' if stands else 'overridden'} by {by}: {reason.strip()} ({self.message})"
            Event.record(Event.Kind.FINDING, what, experiment=self.experiment, actor=by)
        self.refresh_from_db()
