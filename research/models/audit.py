"""AuditEntry: one row for every act of a person, of a policy that stands for one, or of the console. Only appended.

Each row's hash covers the row and the hash before it, so what is changed or taken out later shows (`manage.py audit`).
What an act was about stands in `detail` under thread, experiment (numbers), request (public id), lesson (pk), machine
or user (names); pages make links of these and words of the rest.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models, transaction
from django.utils import timezone

from research.models.event import Feed

if TYPE_CHECKING:
    from research.models.project import Project

POLICY, CONSOLE, NOBODY = "policy", "console", "nobody"  # who acted where no person did
FAILED = "failed sign-in"


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    def newest_hash(self) -> str:
        return self.order_by("-pk").values_list("hash", flat=True).first() or ""

    def failures(self, since: datetime) -> AuditEntryQuerySet:
        """Sign-ins that failed; their `detail` holds the `user` and the `address`."""
        return self.filter(action=FAILED, at__gt=since)

    def first_broken(self) -> AuditEntry | None:
        """The first row that is not as it was written, or whose neighbour before it is gone; None: all fit."""
        before = ""
        for entry in self.order_by("pk").iterator(chunk_size=1_000):
            if not entry.hash and not before:
                continue  # written before there were hashes
            if entry.hash != entry.digest(before):
                return entry
            before = entry.hash
        return None


class AuditEntry(models.Model):
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True)
    who = models.CharField(max_length=150, blank=True, help_text="the actor's name then; policy, console or nobody")
    action = models.CharField(max_length=40)
    project = models.ForeignKey("Project", models.SET_NULL, null=True, related_name="audit")
    place = models.CharField(max_length=80, blank=True, help_text="the project's name; empty for the lab itself")
    detail = models.JSONField(default=dict)
    at = models.DateTimeField(default=timezone.now)
    hash = models.CharField(max_length=64, blank=True)

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.who}: {self.action}"

    @classmethod
    def record(cls, actor: models.Model | None, action: str, project: Project | None, **detail: object) -> AuditEntry:
        """Append one entry, in the transaction of the act. `actor=None` is the project's policy."""
        return cls._append(actor, str(actor or POLICY), action, project, detail)

    @classmethod
    def of_nobody(cls, who: str, action: str, project: Project | None, **detail: object) -> AuditEntry:
        """Append an entry of what no person did who is known: `who` is CONSOLE or NOBODY."""
        return cls._append(None, who, action, project, detail)

    @classmethod
    def _append(
        cls, actor: models.Model | None, who: str, action: str, project: Project | None, detail: dict[str, object]
    ) -> AuditEntry:
        plain = json.loads(json.dumps(detail))  # as it will be read back
        entry = cls(who=who, action=action, project=project, place=str(project or ""), detail=plain)
        entry.actor_id = actor.pk if actor else None
        with transaction.atomic(savepoint=False):
            Feed.objects.get_or_create(pk=1)
            Feed.objects.select_for_update().get(pk=1)  # one appends at a time
            entry.hash = entry.digest(cls.objects.newest_hash())
            entry.save(force_insert=True)
        return entry

    def digest(self, before: str) -> str:
        said = [before, self.at.isoformat(), self.who, self.action, self.place, self.detail]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
