"""Session: one conversation of an LLM researcher, message by message. What it is for, who holds it, how it ends.

A session is worked on by whoever holds it: an expiring right, taken by a conditional update, as everywhere in the lab.
A reply is stored before anything is done because of it, so a killed process never asks for it again. What each
request to a model cost is in call.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import Max, Q
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.idea import Idea
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.thread import Thread

if TYPE_CHECKING:
    from research.models.call import Committed

CAP = "cap_reached"  # the failure of a session that a cap on spend stopped
STEERED = "steered"


class SessionQuerySet(models.QuerySet["Session"]):
    def open(self) -> SessionQuerySet:
        return self.filter(state=Session.State.OPEN)

    def askable(self, owner: str = "") -> SessionQuerySet:
        """Open, due and held by nobody else. A paused thread or project asks no model; a replay is nobody's step."""
        now = timezone.now()
        free = Q(held_until__isnull=True) | Q(held_until__lt=now) | (Q(held_by=owner) if owner else Q(pk=None))
        due = Q(due__isnull=True) | Q(due__lte=now)
        wanted = Q(thread__state=Thread.State.ACTIVE, project__state=Project.State.ACTIVE)
        return self.open().filter(free, due, wanted | Q(replay_of__isnull=False))

    def of_the_loop(self) -> SessionQuerySet:
        """Without replays: what they answer is for a person to read and never becomes an idea."""
        return self.filter(replay_of=None)

    def failures_in_a_row(self) -> int:
        """How many of the newest ended ones failed, one after another; what was stopped says nothing."""
        told = self.of_the_loop().filter(state__in=(Session.State.ENDED, Session.State.FAILED))
        count = 0
        for state in told.order_by("-pk").values_list("state", flat=True).iterator():
            if state == Session.State.ENDED:
                break
            count += 1
        return count

    def stop_proposals(self, why: str) -> int:
        """What is being thought of, or was and is no idea yet, was asked for under other steering."""
        proposing = self.of_the_loop().filter(purpose=Session.Purpose.PROPOSE, used=False)
        mine = proposing.exclude(state=Session.State.FAILED)
        return sum(session.stop(STEERED, why, also_ended=True) for session in mine)

    def go_on(self) -> int:
        """What a cap had stopped goes on where it was, since somebody raised it or said so. Nothing is asked twice."""
        stopped = self.of_the_loop().filter(state=Session.State.STOPPED, failure=CAP)
        return stopped.update(state=Session.State.OPEN, failure="", note="", ended=None, used=False)


class Session(models.Model):
    class Purpose(models.TextChoices):
        PROPOSE = "propose"
        IMPLEMENT = "implement"
        REVIEW = "review"

    class State(models.TextChoices):
        OPEN = "open"
        ENDED = "ended"  # `answer` holds what was asked for
        FAILED = "failed"  # `failure` and `note` say why
        STOPPED = "stopped"  # by a cap, by steering, by a person

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    key = models.CharField(max_length=80, unique=True, help_text="one a purpose: a step that runs again finds it")
    project = models.ForeignKey(Project, models.CASCADE, related_name="sessions")
    thread = models.ForeignKey(Thread, models.CASCADE, related_name="sessions")
    idea = models.ForeignKey(Idea, models.CASCADE, null=True, blank=True, related_name="sessions")
    purpose = models.CharField(max_length=12, choices=Purpose)
    mode = models.CharField(max_length=12, blank=True, help_text="exploit, explore, combine, ablate or revisit")
    base = models.CharField(max_length=40, help_text="the commit whose files it reads and edits")
    prompt = models.CharField(max_length=80, help_text="name, version and short hash of the prompt file")
    chain = models.JSONField(default=list, help_text="names of the models, in the order in which they are asked")
    state = models.CharField(max_length=12, choices=State, default=State.OPEN)
    answer = models.JSONField(null=True, blank=True)
    used = models.BooleanField(default=False, help_text="the loop has taken its answer, or has dealt with its end")
    failure = models.CharField(max_length=20, blank=True, help_text="the kind of error that ended it")
    note = models.TextField(blank=True)
    replay_of = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="replays")
    held_by = models.CharField(max_length=40, blank=True)
    held_until = models.DateTimeField(null=True, blank=True)
    due = models.DateTimeField(null=True, blank=True, help_text="not before: it waits for an endpoint")
    created = models.DateTimeField(default=timezone.now)
    ended = models.DateTimeField(null=True, blank=True)

    objects = SessionQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["thread"], condition=models.Q(state="open"), name="open_session")]

    def __str__(self) -> str:
        return f"session {self.public_id} ({self.purpose}) of {self.thread}"

    @classmethod
    def begin(
        cls, key: str, thread: Thread, purpose: str, opening: Iterable[tuple[str, str]], **fields: Any
    ) -> Session:
        """Open the conversation with its first messages, (role, content) each; the one that is there under this key.

        `fields`: base, prompt, chain; idea, mode, replay_of where there are any.
        """
        with transaction.atomic():
            session, new = cls.objects.get_or_create(
                key=key, defaults={"project": thread.project, "thread": thread, "purpose": purpose, **fields}
            )
            if new:
                Message.objects.bulk_create(
                    Message(session=session, number=number, role=role, content=content)
                    for number, (role, content) in enumerate(opening)
                )
                session._tell("began")
        return session

    def hold(self, owner: str, seconds: float) -> bool:
        """Take, or keep, the exclusive, expiring right to work on this session.

        Only one works on it, so a call that is still under way when another takes it lost its process: what it could
        have cost at most stays on the account.
        """
        now = timezone.now()
        free = Q(held_until__isnull=True) | Q(held_until__lt=now) | Q(held_by=owner)
        until = now + timedelta(seconds=seconds)
        with transaction.atomic():
            mine = Session.objects.open().filter(free, pk=self.pk).update(held_by=owner, held_until=until) == 1
            if mine and self.held_by != owner:
                for call in self.calls.under_way():
                    call.lose()
        if mine:
            self.held_by, self.held_until = owner, until
        return mine

    def is_held_by(self, owner: str) -> bool:
        """Still open, and still this one's to work on."""
        return Session.objects.open().filter(pk=self.pk, held_by=owner).exists()

    def let_go(self, owner: str) -> None:
        Session.objects.filter(pk=self.pk, held_by=owner).update(held_by="", held_until=None)

    def wait(self, until: datetime) -> None:
        """Not before then: an endpoint asked for time, or a check is running."""
        Session.objects.open().filter(pk=self.pk).update(due=until)
        self.due = until

    def end(self, answer: dict[str, Any]) -> bool:
        """What was asked for has come."""
        return self._close(self.State.ENDED, {self.State.OPEN}, answer=answer)

    def fail(self, kind: str, note: str) -> bool:
        return self._close(self.State.FAILED, {self.State.OPEN}, failure=kind, note=note)

    def stop(self, kind: str, note: str, also_ended: bool = False) -> bool:
        """Whatever it would answer, or (`also_ended`) has answered, is not wanted, or cannot be paid for."""
        before = {self.State.OPEN} | ({self.State.ENDED, self.State.STOPPED} if also_ended else set())
        return self._close(self.State.STOPPED, before, failure=kind, note=note)

    def take(self, idea: Idea | None = None) -> bool:
        """The loop has acted on how it ended. True once."""
        fields = {"idea": idea} if idea else {}
        taken = Session.objects.filter(pk=self.pk, used=False).update(used=True, **fields) == 1
        self.refresh_from_db(fields=["used", "idea"])
        return taken

    def add(self, role: str, content: str, **fields: Any) -> Message:
        """The next message of the transcript."""
        last = self.messages.aggregate(last=Max("number"))["last"]
        return Message.objects.create(
            session=self, number=0 if last is None else last + 1, role=role, content=content, **fields
        )

    def leave_out(self, numbers: Iterable[int]) -> None:
        """Compacted: these are no longer sent; they stay readable in the transcript."""
        self.messages.filter(number__in=list(numbers)).update(left_out=True)

    def spent(self) -> Committed:
        """What its calls cost, and what those under way or lost may cost at most."""
        return self.calls.committed()

    def _close(self, state: State, before: set[State], **fields: Any) -> bool:
        with transaction.atomic():
            mine = Session.objects.filter(pk=self.pk, state__in=before)
            closed = mine.update(state=state, ended=timezone.now(), due=None, **fields) == 1
            if closed:
                words = str(state) + (f" ({fields['failure']})" if fields.get("failure") else "")
                self._tell(words + (f": {fields['note']}" if fields.get("note") else ""))
        self.refresh_from_db()
        return closed

    def _tell(self, words: str) -> None:
        what = "replay" if self.replay_of_id else "session"
        Event.record(Event.Kind.SESSION, f"{what} to {self.purpose} {words}"[:300], thread=self.thread)

    def replay(self, by: User, model: str = "") -> Session:
        """Ask the same prompt again, of the same models or of another. What comes is looked at, never acted on.

        Raises ValueError with one line where this one is still open, or is being replayed already.
        """
        Membership.require(by, self.project, Role.MEMBER, "replay a session")
        if self.state == self.State.OPEN:
            raise ValueError("this session is still open; replay it when it has ended")
        with transaction.atomic():
            Session.objects.select_for_update().get(pk=self.pk)
            if self.replays.open().exists():
                raise ValueError("this session is being replayed already; wait for that answer")
            again = Session.begin(
                f"replay-{new_id()}", self.thread, self.purpose, self.opening(), idea=self.idea, mode=self.mode,
                base=self.base, prompt=self.prompt, chain=[model] if model else self.chain, replay_of=self,
            )  # fmt: skip
            about = {"thread": self.thread.number, "session": self.public_id, "model": model}
            AuditEntry.record(by, "replay", self.project, **about)
            words = f"{self.purpose} session {self.public_id} replayed by {by}" + (f" with {model}" if model else "")
            Event.record(Event.Kind.SESSION, words, thread=self.thread, actor=by)
        return again

    def opening(self) -> list[tuple[str, str]]:
        """What it began with, before the first reply: (role, content)."""
        first = self.messages.filter(role=Message.Role.ASSISTANT).first()
        rows = self.messages.filter(number__lt=first.number) if first else self.messages.all()
        return list(rows.values_list("role", "content"))


class Message(models.Model):
    """One message, as it is sent to a model."""

    class Role(models.TextChoices):
        SYSTEM = "system"
        USER = "user"
        ASSISTANT = "assistant"
        TOOL = "tool"

    session = models.ForeignKey(Session, models.CASCADE, related_name="messages")
    number = models.PositiveIntegerField()
    role = models.CharField(max_length=12, choices=Role)
    content = models.TextField(blank=True)
    tool_calls = models.JSONField(default=list, blank=True, help_text='[{"id", "name", "arguments"}]')
    tool_call_id = models.CharField(max_length=120, blank=True)
    name = models.CharField(max_length=80, blank=True, help_text="of the tool that answers")
    refused = models.BooleanField(default=False, help_text="a tool call outside what is allowed")
    left_out = models.BooleanField(default=False, help_text="compacted: no longer sent")
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["session", "number"], name="message_number")]
        ordering = ["number"]

    def __str__(self) -> str:
        return f"{self.role} {self.number}"
