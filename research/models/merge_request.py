"""MergeRequest: the request that an improved candidate become the champion. What a person can make of it."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import Max, Q
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.candidate import Candidate
from research.models.comment import Comment, CommentQuerySet
from research.models.event import Event
from research.models.experiment import Experiment
from research.models.idea import Idea
from research.models.ids import new_id
from research.models.lesson import Lesson
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.refusals import NotMergeable
from research.models.thread import Thread
from research.models.verdict import Verdict

MAIN_MOVED = "main has moved since this was measured; it will be measured again on main"


def left_behind(project: Project) -> str:
    """What becomes of a gain that `main` moved away from."""
    again = (
        "is brought onto it, and measured again where it has to be" if project.problems else "is measured again on it"
    )
    return f"main moved; the gain {again}"


class MergeRequestQuerySet(models.QuerySet["MergeRequest"]):
    def open(self) -> MergeRequestQuerySet:
        return self.filter(state=MergeRequest.State.OPEN)

    def turned_down(self) -> MergeRequestQuerySet:
        """By a person: the thread stands on them no longer."""
        return self.filter(state__in=(MergeRequest.State.REJECTED, MergeRequest.State.RETURNED))

    def rolled_back(self) -> MergeRequestQuerySet:
        return self.filter(state=MergeRequest.State.ROLLED_BACK)

    def line(self, project: Project, commit: str = "") -> list[MergeRequest]:
        """The merges that led from the start to a commit of `main` (now, where none is named), oldest first."""
        merged = {request.commit: request for request in self.filter(project=project).select_related("verdict")}
        found, at = [], commit or project.champion
        while at in merged:
            found.append(merged[at])
            at = merged[at].base
        return found[::-1]


class MergeRequest(models.Model):
    """Requests of one thread stack: approving one approves its ancestors, rejecting one makes its descendants stale."""

    class State(models.TextChoices):
        OPEN = "open"
        MERGED = "merged"
        REJECTED = "rejected"
        RETURNED = "returned"  # a reviewer asked for changes
        STALE = "stale"  # `main` moved elsewhere: the gain is measured again on it
        ROLLED_BACK = "rolled_back"  # merged, and taken back by a person

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="merge_requests")
    thread = models.ForeignKey(Thread, models.CASCADE, related_name="merge_requests")
    candidate = models.OneToOneField(Candidate, models.CASCADE, related_name="merge_request")
    verdict = models.OneToOneField(Verdict, models.CASCADE, related_name="merge_request")
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="children")
    combines = models.ManyToManyField(
        "self", symmetrical=False, blank=True, related_name="combined_in",
        help_text="open requests of different threads that this one merges",
    )  # fmt: skip
    supersedes = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="successors",
        help_text="the earlier patch set: left behind by main or returned, and tried again",
    )  # fmt: skip
    base = models.CharField(max_length=40, help_text="the commit it was measured against")
    commit = models.CharField(max_length=40)
    state = models.CharField(max_length=12, choices=State, default=State.OPEN)
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
        """An integrity finding forbids a merge: it asks for a person, and nobody has overridden it."""
        return self.verdict.experiment.findings.standing().exists()

    @property
    def waits_for_a_person(self) -> bool:
        """Of an open one: no policy approves it."""
        return not self.project.auto_approve or self.needs_a_look

    def patch_sets(self) -> list[MergeRequest]:
        """All requests of its line, oldest first: each superseded the one before it."""
        first = self
        while first.supersedes is not None:
            first = first.supersedes
        line = [first]
        while after := line[-1].successors.order_by("-pk").first():
            line.append(after)
        return line

    @property
    def talk(self) -> CommentQuerySet:
        """What people said of it, of what it superseded, and of what superseded it."""
        return Comment.objects.filter(request__in=self.patch_sets())

    @classmethod
    def open_for(cls, verdict: Verdict, thread: Thread) -> MergeRequest:
        """Open the request of a confirmed gain, on top of the one it stacks on."""
        experiment = verdict.experiment
        assert experiment.candidate is not None
        below = cls.objects.filter(project=thread.project, commit=experiment.baseline_commit).first()
        with transaction.atomic():
            request = cls.objects.create(
                project=thread.project, thread=thread, candidate=experiment.candidate, verdict=verdict, parent=below,
                base=experiment.baseline_commit, commit=experiment.candidate.commit,
                supersedes=cls._earlier(experiment.candidate),
            )  # fmt: skip
            request._tell_of(Event.Kind.REQUEST, "waits for a review")
        return request

    @classmethod
    def _earlier(cls, candidate: Candidate) -> MergeRequest | None:
        """The request that this candidate tries again: combined with a moved main, or with the same techniques."""
        idea, own = candidate.idea, candidate.thread.merge_requests
        followed = own.filter(successors__isnull=False).aggregate(newest=Max("pk"))["newest"] or 0
        left = own.filter(successors=None).select_related("candidate__idea").order_by("-pk")
        for row in left.filter(Q(state=cls.State.RETURNED) | Q(state=cls.State.STALE, pk__gt=followed)):
            theirs = row.candidate.idea.techniques
            combined = idea.kind == Idea.Kind.COMBINATION and row.state == cls.State.STALE and not theirs
            if combined or set(idea.techniques) & set(theirs):
                return row
        return None

    def may_approve(self, user: User) -> None:
        """Raises NotMergeable with the reason where this person cannot approve it now, with all it stacks on."""
        chain = self._undecided("approved")
        if chain[0].base != self.project.champion:
            raise NotMergeable(MAIN_MOVED)
        self._is_no_judge_in_own_cause(user, chain)
        self._was_looked_at(chain)

    def approve(self, commit: str, by: User | None = None) -> list[MergeRequest]:
        """Merge this request and its open ancestors: `main` moves to its commit. `by=None` is the project's policy.

        Raises NotMergeable where the approval names another commit, `main` has moved since the measurement, or the
        person may not. Open requests that do not stand on the new `main` become stale.
        """
        if commit != self.commit:
            raise NotMergeable(f"the approval names {commit[:10]}, the request is {self.commit[:10]}; look again")
        chain = self._undecided("approved")
        if by is not None:
            self._is_no_judge_in_own_cause(by, chain)
        self._was_looked_at(chain)
        with transaction.atomic():
            if not self.project.move_champion(old=chain[0].base, new=self.commit):
                raise NotMergeable(MAIN_MOVED)
            for request in chain:
                if not request._decide(self.State.MERGED, by, ""):
                    raise NotMergeable("somebody decided this request a moment ago; reload")
                AuditEntry.record(by, "merge", request.project, commit=request.commit, request=request.public_id)
                request._tell_of(Event.Kind.MERGED, f"merged by {by or 'policy'}", by)
            self._leave_the_others_behind(self.commit, left_behind(self.project))
        self.refresh_from_db()
        return chain

    def reject(self, by: User | None, reason: str) -> None:
        """Reject, with a reason that becomes a dead end: its techniques are not proposed again in this project.

        Requests stacked on it lose their base: they are measured again on `main`.
        """
        who, words = by or "policy", reason.strip() or "no reason given"
        idea = self.candidate.idea
        with transaction.atomic():
            self._turn_down(self.State.REJECTED, by, reason, "reject it")
            AuditEntry.record(by, "reject", self.project, commit=self.commit, reason=reason)
            self._tell_of(Event.Kind.REJECTED, f"rejected by {who}: {words}", by)
            Lesson.objects.create(
                project=self.project, thread=self.thread, request=self, kind=Lesson.Kind.REJECTED,
                text=f"Rejected by {who}: {words} ({idea.name})", techniques=self._own_steps, base=self.base,
            )  # fmt: skip
            for thread in self.project.threads.all():
                thread.drop_ahead(f"rejected by {who}: {words}", {str(step["technique"]) for step in self._own_steps})
        self.refresh_from_db()

    def request_changes(self, by: User | None, note: str) -> None:
        """Send it back: no dead end, but the thread tries one of its techniques again, once, with other settings.

        What is unresolved among its comments is quoted below the note.
        """
        said = self.talk.quoted()
        who, words = by or "policy", note.strip() or ("see the comments" if said else "no note")
        whole = f"{note.strip()}\n\n{said}".strip() if said else note
        with transaction.atomic():
            self._turn_down(self.State.RETURNED, by, whole, "request changes")
            AuditEntry.record(by, "request changes", self.project, commit=self.commit, note=whole)
            self._tell_of(Event.Kind.RETURNED, f"changes requested by {who}: {words}", by)
            self.thread.try_again(self.candidate.idea.techniques, f"changes were requested: {words}")
        self.refresh_from_db()

    def may_roll_back(self, user: User) -> None:
        """Raises NotMergeable with the reason where this person cannot take this merge back, or nobody can."""
        Membership.require(user, self.project, Role.REVIEWER, "roll back a merge")
        self._merged_since()

    def roll_back(self, by: User | None, reason: str) -> list[MergeRequest]:
        """Take `main` back to the commit before this merge. Returns the merges undone, newest first.

        The reason becomes a dead end, as at a rejection. Merges that came after it, and open requests that stand on
        what is gone, become stale: their gains are measured again without it. Turns and confirmations of the campaign
        stay counted, and git keeps the commits.
        """
        Membership.require(by, self.project, Role.REVIEWER, "roll back a merge")
        who, words = by or "policy", reason.strip() or "no reason given"
        undone = self._merged_since()
        with transaction.atomic():
            if not self.project.move_champion(old=undone[0].commit, new=self.base):
                raise NotMergeable("main has moved a moment ago; reload")
            for request in undone:
                request._leave_main(self, by, words)
            Lesson.objects.create(
                project=self.project, thread=self.thread, request=self, kind=Lesson.Kind.REJECTED,
                text=f"Rolled back by {who}: {words} ({self.candidate.idea.name})", techniques=self._own_steps,
                base=self.base,
            )  # fmt: skip
            self._leave_the_others_behind(self.base, "main was rolled back; the gain is measured again on it")
            for thread in self.project.threads.all():
                gone = {str(step["technique"]) for step in self._own_steps}
                thread.drop_ahead(f"rolled back by {who}: {words}", gone)
        self.refresh_from_db()
        return undone

    def reopen(self) -> bool:
        """`main` stands again where this was measured: the same two trees, so its evidence and its turn still hold."""
        with transaction.atomic():
            stale = MergeRequest.objects.filter(pk=self.pk, state=self.State.STALE)
            if not stale.update(state=self.State.OPEN, reason=""):
                return False
            self._tell_of(Event.Kind.REQUEST, "is open again: main stands where it was measured")
            for child in self.children.filter(state=self.State.STALE):
                child.reopen()
        self.refresh_from_db()
        return True

    def carry(self, candidate: Candidate) -> bool:
        """Open again with the same change on a moved `main`, which still says what was measured of its problems."""
        problems = ", ".join(self.verdict.experiment.problems)
        with transaction.atomic():
            stale = MergeRequest.objects.filter(pk=self.pk, state=self.State.STALE)
            moved = {"candidate": candidate, "base": candidate.parent, "commit": candidate.commit}
            if not stale.update(state=self.State.OPEN, reason="", **moved):
                return False
            self.refresh_from_db()
            self._tell_of(Event.Kind.REQUEST, f"is open again: nothing of {problems} changed on main")
        return True

    def more_seeds(self, by: User, pairs: int = 4) -> Experiment:
        """More pairs before anybody decides. The request stays as it is."""
        self._undecided("measured further")
        return self.verdict.experiment.more_seeds(by, pairs)

    def make_stale(self, reason: str) -> None:
        with transaction.atomic():
            mine = MergeRequest.objects.open().filter(pk=self.pk)
            if mine.update(state=self.State.STALE, reason=reason):
                self._tell_of(Event.Kind.STALE, f"stale: {reason}")
            for child in self.children.filter(state=self.State.OPEN):
                child.make_stale(reason)

    def _undecided(self, act: str) -> list[MergeRequest]:
        chain = self.stack()
        if not chain:
            raise NotMergeable(f"the request is {self.state}; only an open one can be {act}")
        return chain

    def _is_no_judge_in_own_cause(self, user: User, chain: Sequence[MergeRequest]) -> None:
        Membership.require(user, self.project, Role.REVIEWER, "approve")
        threads = Thread.objects.filter(pk__in=_threads_of(chain))
        Membership.require_second_person(user, self.project, threads, "approve its gains")

    def _was_looked_at(self, chain: Sequence[MergeRequest]) -> None:
        for request in chain:
            if request.needs_a_look:
                where = "" if request == self else f" of {request.commit[:7]} below it"
                raise NotMergeable(f"a finding{where} asks for a look: override it with a reason, or reject this")

    def _turn_down(self, state: State, by: User | None, reason: str, act: str) -> None:
        Membership.require(by, self.project, Role.REVIEWER, act)
        if not self._decide(state, by, reason):
            self.refresh_from_db(fields=["state"])
            raise NotMergeable(f"the request is {self.state}; only an open one can be {state.value}")
        for child in self.children.filter(state=self.State.OPEN):
            child.make_stale(f"the request below it was {state.value}")
        self.thread.wake(f"a request of it was {state.value}")

    def _leave_the_others_behind(self, main: str, why: str) -> None:
        """Whatever does not stand on the new `main`, of resting threads too. Finished ones may have ideas on it."""
        combined = MergeRequest.objects.open().filter(project=self.project, combined_in__state=self.State.MERGED)
        contained = {part.pk for request in combined for part in request.stack()}
        for other in MergeRequest.objects.open().filter(project=self.project).order_by("-pk"):  # the uppermost first
            other.refresh_from_db()
            chain = other.stack()
            if chain and chain[0].base != main:
                other.make_stale("its gain came to main in a combination" if other.pk in contained else why)
        for thread in self.project.threads.all():
            thread.wake("main moved")

    def _merged_since(self) -> list[MergeRequest]:
        """This merge and those that `main` took after it, newest first."""
        self.project.refresh_from_db(fields=["champion"])
        line = MergeRequest.objects.line(self.project)
        if self.state != self.State.MERGED or self not in line:
            raise NotMergeable(f"the request is {self.get_state_display().lower()}; only a merge that main stands on "
                               "can be rolled back")  # fmt: skip
        return line[line.index(self) :][::-1]

    def _leave_main(self, cause: MergeRequest, by: User | None, words: str) -> None:
        """Of a rollback: the merge that was meant is over, one above it has lost its base and is measured again."""
        state, kind, why = self.State.STALE, Event.Kind.STALE, "stale: a merge below it was rolled back"
        if self.pk == cause.pk:
            state, kind = self.State.ROLLED_BACK, Event.Kind.ROLLED_BACK
            why = f"rolled back by {by or 'policy'}: {words}"
        if not MergeRequest.objects.filter(pk=self.pk, state=self.State.MERGED).update(state=state, reason=why):
            raise NotMergeable("somebody rolled main back a moment ago; reload")
        AuditEntry.record(by, "roll back", self.project, commit=self.commit, request=self.public_id, reason=why)
        self._tell_of(kind, why, by)

    @property
    def _own_steps(self) -> list[dict[str, object]]:
        """What a person turns down with it: of a combination of open requests nothing but that they stand together."""
        return [] if self.combines.exists() else self.candidate.idea.steps

    def _decide(self, state: State, by: User | None, reason: str) -> bool:
        undecided = MergeRequest.objects.open().filter(pk=self.pk)
        return undecided.update(
            state=state, decided_by=by, decided_by_policy=by is None, decided=timezone.now(), reason=reason
        ) == 1  # fmt: skip

    def _tell_of(self, kind: str, what: str, by: User | None = None) -> None:
        """One line of the feed: what happened, and to which change."""
        text = f"{self.commit[:7]} {what}: {self.candidate.idea.name}"
        Event.record(kind, text, thread=self.thread, experiment=self.verdict.experiment, actor=by)


def _threads_of(chain: Sequence[MergeRequest]) -> set[int]:
    """The threads whose gains an approval merges, those of combined requests too."""
    combined = {part.thread_id for request in chain for part in request.combines.all()}
    return combined | {request.thread_id for request in chain}
