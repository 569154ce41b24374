"""Comment: what a person says of a request, a file or a line of it; and Viewed: the files that a person has read.

A comment is bound to the patch set it was made on. Where its line is in a later one is for the page to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models, transaction
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.refusals import NotMergeable

if TYPE_CHECKING:
    from research.models.merge_request import MergeRequest

LONGEST = 4_000  # characters of one comment


class CommentQuerySet(models.QuerySet["Comment"]):
    def threads(self) -> CommentQuerySet:
        """What begins a conversation; the rest are replies."""
        return self.filter(parent=None)

    def unresolved(self) -> CommentQuerySet:
        return self.threads().filter(resolved_at=None)

    def quoted(self) -> str:
        """What is unresolved, each with its place, one paragraph each."""
        rows = self.unresolved().select_related("author").order_by("pk")
        return "\n\n".join(f"{row.author or 'somebody'} on {row.place}: {row.text}" for row in rows)


class Comment(models.Model):
    """Plain text. The first of a thread has a place and can be resolved; replies have neither."""

    class Side(models.TextChoices):
        OLD = "old"  # a line that the change removes
        NEW = "new"

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    request = models.ForeignKey("MergeRequest", models.CASCADE, related_name="comments", help_text="the patch set")
    parent = models.ForeignKey("self", models.CASCADE, null=True, blank=True, related_name="replies")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    text = models.TextField()
    path = models.TextField(blank=True, help_text="empty: of the whole request")
    side = models.CharField(max_length=3, choices=Side, blank=True)
    line = models.PositiveIntegerField(null=True, blank=True, help_text="empty: of the whole file")
    quote = models.TextField(blank=True, help_text="the line as it was")
    resolved_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    resolved_at = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField(default=timezone.now)

    objects = CommentQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.author or 'somebody'} on {self.place}: {self.text}"

    @property
    def project(self) -> Project:
        return self.request.project

    @property
    def place(self) -> str:
        """`optim.py:31`, `optim.py:31 (removed)`, `optim.py`, `the whole change`."""
        if self.line is None:
            return self.path or "the whole change"
        return f"{self.path}:{self.line}" + (" (removed)" if self.side == self.Side.OLD else "")

    @classmethod
    def make(
        cls, request: MergeRequest, by: User, text: str, path: str = "", side: str = "", line: int | None = None,
        quote: str = "",
    ) -> Comment:  # fmt: skip
        """Begin a thread on a line, on a file, or on the whole change."""
        return cls._say(by, request, text, "comment", path=path, side=side, line=line, quote=quote)

    def reply(self, by: User, text: str) -> Comment:
        """A reply says nothing of whether the thread is resolved."""
        return self._say(by, self.request, text, "reply", parent=self.parent or self)

    def resolve(self, by: User) -> None:
        self._settle(by, "resolve a comment", resolved_by=by, resolved_at=timezone.now())

    def reopen(self, by: User) -> None:
        self._settle(by, "reopen a comment", resolved_by=None, resolved_at=None)

    @classmethod
    def _say(cls, by: User, request: MergeRequest, text: str, act: str, **place: object) -> Comment:
        Membership.require(by, request.project, Role.MEMBER, act)
        text = text.replace("\x00", "").strip()
        if not text:
            raise NotMergeable("an empty comment says nothing: write a word or two")
        if len(text) > LONGEST:
            raise NotMergeable(f"the comment has {len(text)} characters; at most {LONGEST} are kept")
        with transaction.atomic():
            made = cls.objects.create(request=request, author=by, text=text, **place)
            made._tell(by, act, f"{made.thread.place}: {text}")
        return made

    def _settle(self, by: User, act: str, **fields: object) -> None:
        if self.parent is not None:
            raise NotMergeable("a reply is settled with the comment that it answers")
        Membership.require(by, self.project, Role.MEMBER, act)
        open_now = fields["resolved_at"] is None
        with transaction.atomic():
            if Comment.objects.filter(pk=self.pk, resolved_at__isnull=not open_now).update(**fields):
                self._tell(by, act, f"{self.place}: {self.text}")
        self.refresh_from_db()

    @property
    def thread(self) -> Comment:
        return self.parent or self

    def _tell(self, by: User, act: str, what: str) -> None:
        AuditEntry.record(
            by, act, self.project, request=self.request.public_id, comment=self.public_id, place=self.thread.place,
            text=self.text,
        )  # fmt: skip
        experiment = self.request.verdict.experiment
        text = f"{by}: {act} on {what}"
        Event.record(Event.Kind.COMMENT, text[:300], thread=self.request.thread, experiment=experiment, actor=by)


class Viewed(models.Model):
    """One person has read the change of one file, known by its content: a file that changed is unread again."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="viewed")
    project = models.ForeignKey(Project, models.CASCADE, related_name="viewed")
    path = models.TextField()
    content = models.CharField(max_length=90, help_text="git's hashes of the file before and after")
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "project", "path", "content"], name="viewed_once")]
        verbose_name_plural = "viewed"

    def __str__(self) -> str:
        return f"{self.user} viewed {self.path}"

    @classmethod
    def mark(cls, user: User, project: Project, path: str, content: str, viewed: bool) -> None:
        """No act on the lab: it is between a person and their screen, so it is not audited."""
        if viewed:
            cls.objects.get_or_create(user=user, project=project, path=path, content=content)
        else:
            cls.objects.filter(user=user, project=project, path=path, content=content).delete()
