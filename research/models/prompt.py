"""ProjectPrompt: a project's own text of one of the shipped prompts. A new row a change; the newest wins.

What a text must hold (its placeholders) is known to whoever fills it, so the caller checks that before.
"""

from __future__ import annotations

import hashlib

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import Max
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.thread import Thread

LONGEST = 60_000  # characters; a prompt stands before everything else in a model's context
ASK_MODELS = ("llm", "mixed")  # researchers whose threads read prompts


class ProjectPrompt(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="prompts")
    name = models.CharField(max_length=40, help_text="of the shipped prompt that it stands for")
    version = models.PositiveIntegerField()
    text = models.TextField(blank=True, help_text="empty: back to the shipped one")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name", "version"], name="prompt_version")]

    def __str__(self) -> str:
        return f"{self.name} {self.version} of {self.project}"

    @property
    def is_shipped(self) -> bool:
        """It takes the project back to the text that ships with the lab."""
        return not self.text

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def of(cls, project: Project, name: str) -> ProjectPrompt | None:
        """The project's own text; None where the shipped one holds."""
        newest = cls.objects.filter(project=project, name=name).order_by("-version").first()
        return None if newest is None or newest.is_shipped else newest

    @classmethod
    def change(cls, by: User, project: Project, name: str, text: str, base: int) -> ProjectPrompt:
        """Give the project its own text, or with an empty one the shipped text back. `base`: the version it changes.

        Prompts steer every thread that asks a model: whoever writes one is who steered them last. Raises ValueError
        with one line where somebody else was faster, or where nothing would change.
        """
        Membership.require(by, project, Role.MEMBER, "change its prompts")
        text = text.replace("\r\n", "\n").strip()
        if len(text) > LONGEST:
            raise ValueError(f"a prompt may have {LONGEST:,} characters; this one has {len(text):,}")
        with transaction.atomic():
            Project.objects.select_for_update().get(pk=project.pk)
            newest = cls.objects.filter(project=project, name=name).aggregate(newest=Max("version"))["newest"] or 0
            if newest != base:
                raise ValueError("somebody has changed this prompt meanwhile; look at theirs, then save yours again")
            now = cls.of(project, name)
            if text == (now.text if now else ""):
                raise ValueError("nothing would change")
            row = cls.objects.create(project=project, name=name, version=newest + 1, text=text, by=by)
            Thread.objects.filter(project=project, researcher__in=ASK_MODELS).update(steered_by=by)
            AuditEntry.record(by, "prompt", project, prompt=name, version=row.version, shipped=row.is_shipped)
            words = "back to the shipped text" if row.is_shipped else f"own text, version {row.version}"
            Event.record(Event.Kind.STEERED, f"prompt {name} changed by {by}: {words}", project=project, actor=by)
        return row
