"""ApiToken: what an agent outside shows to the HTTP API and the MCP server; Claim and Submission: what it does there.

Only a hash of the secret is stored. A token can never do more than its owner, in whose name every act is audited.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta
from typing import cast

from django.conf import settings
from django.contrib.auth.models import AbstractUser, User
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.idea import Idea
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.thread import Thread

PREFIX = "lab"
CLAIM_LIFE = timedelta(minutes=30)  # every act of the agent on its thread begins it anew
WITHDRAWN = "withdrawn by"  # how the refusal of a change begins that its agent took back
USED_EVERY = timedelta(minutes=1)  # how exactly the last use is known: not a write a request


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def usable(self) -> ApiTokenQuerySet:
        fresh = Q(expires=None) | Q(expires__gt=timezone.now())
        return self.filter(fresh, revoked=None, owner__is_active=True)


class ApiToken(models.Model):
    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    name = models.CharField(max_length=80, help_text="of the agent that uses it")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    project = models.ForeignKey(
        Project, models.CASCADE, null=True, blank=True, related_name="api_tokens",
        help_text="the one project it opens; none: all that its owner sees",
    )  # fmt: skip
    may_propose = models.BooleanField(default=False, help_text="claim threads and submit; else it only reads")
    secret_hash = models.CharField(max_length=64, editable=False)
    created = models.DateTimeField(default=timezone.now)
    expires = models.DateTimeField(null=True, blank=True)
    revoked = models.DateTimeField(null=True, blank=True)
    last_used = models.DateTimeField(null=True, blank=True)
    last_address = models.CharField(max_length=60, blank=True)

    objects = ApiTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"token {self.name} of {self.owner}"

    @classmethod
    def make(
        cls, by: AbstractUser, name: str, project: Project | None, may_propose: bool, life: timedelta | None = None
    ) -> str:
        """A new token of this person; the text that comes back is the only time that it can be read."""
        name = name.strip()[:80]
        if not name:
            raise ValueError("say which agent is to use the token")
        Membership.require(by, project, Role.MEMBER if may_propose else Role.VIEWER, "make a token for it")
        secret = secrets.token_urlsafe(32)
        with transaction.atomic():
            token = cls.objects.create(
                name=name, owner=cast(User, by), project=project, may_propose=may_propose, secret_hash=_digest(secret),
                expires=timezone.now() + life if life else None,
            )  # fmt: skip
            AuditEntry.record(by, "make a token", project, token=token.public_id, name=name, may_propose=may_propose)
            token._tell(by, f"{by} made a token for the agent {name}")
        return f"{PREFIX}_{token.public_id}_{secret}"

    @classmethod
    def of(cls, text: str, address: str = "") -> ApiToken | None:
        """The usable token that somebody shows; None where it is none, was revoked or is too old."""
        prefix, _, rest = text.strip().partition("_")
        public_id, _, secret = rest.partition("_")
        token = cls.objects.usable().filter(public_id=public_id).select_related("owner", "project").first()
        known = token.secret_hash if token else _digest("")
        if not hmac.compare_digest(known, _digest(secret)) or token is None or prefix != PREFIX:
            return None
        token._note_use(address)
        return token

    def revoke(self, by: AbstractUser) -> None:
        """Its owner may, and an admin of its project. What it has claimed is free again."""
        if by.pk != self.owner_id:
            Membership.require(by, self.project, Role.ADMIN, "revoke a token of somebody else")
        with transaction.atomic():
            if ApiToken.objects.filter(pk=self.pk, revoked=None).update(revoked=timezone.now()):
                Claim.objects.filter(token=self).delete()
                AuditEntry.record(by, "revoke a token", self.project, token=self.public_id, name=self.name)
                self._tell(by, f"the token of the agent {self.name} was revoked by {by}")
        self.refresh_from_db(fields=["revoked"])

    @property
    def is_usable(self) -> bool:
        fresh = self.expires is None or self.expires > timezone.now()
        return fresh and self.revoked is None and self.owner.is_active

    def projects(self) -> models.QuerySet[Project]:
        """What it opens: its own project, or all that its owner sees now."""
        mine = Membership.projects_of(self.owner)
        return mine.filter(pk=self.project_id) if self.project_id else mine

    def _tell(self, by: AbstractUser, words: str) -> None:
        """In the feed of its project; one that opens several is its owner's own affair."""
        if self.project is not None:
            Event.record(Event.Kind.NOTE, words, project=self.project, actor=by)

    def _note_use(self, address: str) -> None:
        now = timezone.now()
        stale = Q(last_used=None) | Q(last_used__lt=now - USED_EVERY) | ~Q(last_address=address)
        ApiToken.objects.filter(stale, pk=self.pk).update(last_used=now, last_address=address[:60])


class Claim(models.Model):
    """An agent works on a thread and no other does, until it has been silent for a while."""

    thread = models.OneToOneField(Thread, models.CASCADE, related_name="claim")
    token = models.ForeignKey(ApiToken, models.CASCADE, related_name="claims")
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.thread} is claimed by {self.token.name}"

    @classmethod
    def take(cls, thread: Thread, token: ApiToken) -> Claim | None:
        """Take the thread, or keep it; None where another agent has it."""
        until = timezone.now() + CLAIM_LIFE
        with transaction.atomic():
            Thread.objects.select_for_update().get(pk=thread.pk)
            claim = cls.objects.filter(thread=thread).select_related("token").first()
            if claim is not None and claim.token_id != token.pk and claim.holds:
                return None
            before = claim.token_id if claim is not None and claim.holds else None
            claim, _ = cls.objects.update_or_create(thread=thread, defaults={"token": token, "until": until})
            if before != token.pk:
                AuditEntry.record(token.owner, "claim", thread.project, thread=thread.number, token=token.name)
                words = f"thread {thread.number} was claimed by the agent {token.name} of {token.owner}"
                Event.record(Event.Kind.STATE, words, thread=thread, actor=token.owner)
        return claim

    @classmethod
    def release(cls, thread: Thread, token: ApiToken) -> bool:
        with transaction.atomic():
            if not cls.objects.filter(thread=thread, token=token).delete()[0]:
                return False
            AuditEntry.record(token.owner, "release", thread.project, thread=thread.number, token=token.name)
            words = f"the agent {token.name} let go of thread {thread.number}"
            Event.record(Event.Kind.STATE, words, thread=thread, actor=token.owner)
        return True

    @property
    def holds(self) -> bool:
        return self.until > timezone.now() and self.token.is_usable


class Submission(models.Model):
    """A change that an agent handed in: a commit on the base that it had read, taken when its turn comes."""

    idea = models.OneToOneField(Idea, models.CASCADE, related_name="submission")
    token = models.ForeignKey(ApiToken, models.CASCADE, related_name="submissions")
    key = models.CharField(max_length=80, help_text="the agent's own: handing it in again changes nothing")
    base = models.CharField(max_length=40)
    commit = models.CharField(max_length=40)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["token", "key"], name="submitted_once")]

    def __str__(self) -> str:
        return f"{self.idea} by {self.token.name}"

    def withdraw(self, by: ApiToken) -> bool:
        """Take it back before its turn. False where it is no longer waiting: measured, refused or withdrawn."""
        why = f"{WITHDRAWN} the agent {by.name} of {by.owner}"
        with transaction.atomic():
            waiting = Idea.objects.filter(pk=self.idea_id, state=Idea.State.PROPOSED)
            if not waiting.update(state=Idea.State.REFUSED, refusal=why):
                return False
            thread = self.idea.thread
            AuditEntry.record(by.owner, "withdraw a change", thread.project, thread=thread.number, token=by.name,
                              commit=self.commit)  # fmt: skip
            words = f"idea {self.idea.number} was {why}: {self.idea.name}"
            Event.record(Event.Kind.REFUSED, words, thread=thread, actor=by.owner)
        self.idea.refresh_from_db(fields=["state", "refusal"])
        return True

    @property
    def is_withdrawn(self) -> bool:
        return self.idea.state == Idea.State.REFUSED and self.idea.refusal.startswith(WITHDRAWN)

    @property
    def ref(self) -> str:
        return f"refs/submissions/{self.idea.public_id}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
