"""AuditEntry: one row for every act of a person or of a policy that stands for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.utils import timezone

if TYPE_CHECKING:
    from research.models.project import Project


class AuditEntry(models.Model):
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True)
    action = models.CharField(max_length=40)
    project = models.ForeignKey("Project", models.CASCADE, null=True, related_name="audit")
    detail = models.JSONField(default=dict)
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.actor or 'policy'}: {self.action}"

    @classmethod
    def record(cls, actor: models.Model | None, action: str, project: Project | None, **detail: object) -> AuditEntry:
        return cls.objects.create(actor=actor, action=action, project=project, detail=detail)
