"""MergeRequest: the request that an improved candidate become the champion."""

from __future__ import annotations

from django.conf import settings
from django.db import models, transaction
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.candidate import Candidate
from research.models.ids import new_id
from research.models.project import Project, Thread
from research.models.verdict import Verdict
from research.validation.records import Severity


class NotMergeable(Exception):
    """An approval that cannot be: stale, decided already, bound to another commit. The text says what to do."""


class MergeRequestQuerySet(models.QuerySet["MergeRequest"]):
    def open(self) -> MergeRequestQuerySet:
        return self.filter(state=MergeRequest.State.OPEN)


class MergeRequest(models.Model):
    """Requests of one thread stack: approving one approves its ancestors, rejecting one makes its descendants stale."""

    class State(models.TextChoices):
        OPEN = "open"
        MERGED = "merged"
        REJECTED = "rejected"
        RETURNED = "returned"  # a reviewer asked for changes
        STALE = "stale"  # `main` moved elsewhere: the gain is measured again on it

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="merge_requests")
    thread = models.ForeignKey(Thread, models.CASCADE, related_name="merge_requests")
    candidate = models.OneToOneField(Candidate, models.CASCADE, related_name="merge_request")
    verdict = models.OneToOneField(Verdict, models.CASCADE, related_name="merge_request")
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="children")
    base = models.CharField(max_length=40, help_text="the commit it was measured against")
    commit = models.CharField(max_length=40)
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True)
    decided_by_policy = models.BooleanField(default=False)
    decided = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(blank=True)
    created = models.DateTimeField(default=timezone.now)

    objects = MergeRequestQuerySet.as_manager()

    def __str__(self) -> str:
        return f"merge request of {self.commit[:10]}: {self.state}"

    def stack(self) -> list[MergeRequest]:
        """This request and its undecided ancestors, oldest first."""
        chain, at = [], self
        while at is not None and at.state == self.State.OPEN:
            chain.append(at)
            at = at.parent  # type: ignore[assignment]
        return chain[::-1]

    @property
    def needs_a_look(self) -> bool:
        """An integrity finding asks for a person."""
        return self.verdict.experiment.findings.filter(severity=str(Severity.REVIEW)).exists()

    def approve(self, commit: str, by: models.Model | None = None) -> list[MergeRequest]:
        """Merge this request and its open ancestors: `main` moves to its commit. `by=None` is the project's policy.

        Raises NotMergeable where the approval names another commit or `main` has moved since the measurement.
        """
        if commit != self.commit:
            raise NotMergeable(f"the approval names {commit[:10]}, the request is {self.commit[:10]}; look again")
        chain = self.stack()
        if not chain:
            raise NotMergeable(f"the request is {self.state}; only an open one can be approved")
        with transaction.atomic():
            if not self.project.move_champion(old=chain[0].base, new=self.commit):
                raise NotMergeable("main has moved since this was measured; it will be measured again on main")
            for request in chain:
                if not request._decide(self.State.MERGED, by, ""):
                    raise NotMergeable("somebody decided this request a moment ago; reload")
                AuditEntry.record(by, "merge", request.project, commit=request.commit, request=request.public_id)
        self.refresh_from_db()
        return chain

    def reject(self, by: models.Model | None, reason: str) -> None:
        """Reject, with a reason. Requests stacked on it lose their base: they are measured again on `main`."""
        with transaction.atomic():
            if not self._decide(self.State.REJECTED, by, reason):
                raise NotMergeable(f"the request is {self.state}; only an open one can be rejected")
            AuditEntry.record(by, "reject", self.project, commit=self.commit, reason=reason)
            for child in self.children.filter(state=self.State.OPEN):
                child.make_stale("the request below it was rejected")
        self.refresh_from_db()

    def make_stale(self, reason: str) -> None:
        MergeRequest.objects.open().filter(pk=self.pk).update(state=self.State.STALE, reason=reason)
        for child in self.children.filter(state=self.State.OPEN):
            child.make_stale(reason)

    def _decide(self, state: State, by: models.Model | None, reason: str) -> bool:
        undecided = MergeRequest.objects.open().filter(pk=self.pk)
        return undecided.update(
            state=state, decided_by=by, decided_by_policy=by is None, decided=timezone.now(), reason=reason
        ) == 1  # fmt: skip
