"""Verdict and Finding: what the rule said of the frozen evidence, and what integrity checks saw."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from research.models.experiment import Experiment
from research.models.ids import new_id
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


class Finding(models.Model):
    """One integrity observation with kind, severity and evidence lines."""

    experiment = models.ForeignKey(Experiment, models.CASCADE, related_name="findings")
    trial = models.ForeignKey("Trial", models.CASCADE, null=True, blank=True, related_name="findings")
    kind = models.CharField(max_length=40)
    severity = models.CharField(max_length=12, choices=choices(Severity))
    message = models.TextField()
    evidence = models.JSONField(default=list)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "trial", "kind", "message"], name="one_finding")]

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
