"""Session: one conversation of an LLM researcher, message by message, call by call. The record is its transcript.

A reply is stored before anything is done because of it, so a killed process never asks for it again. A call that was
under way when its process died is `lost`: what it could have cost at most stays on the account.
"""

from __future__ import annotations

from decimal import Decimal

from django.contrib.auth.models import User
from django.db import models, transaction
from django.utils import timezone

from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.idea import Idea
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.models.project import Project
from research.models.thread import Thread


def money(**options: object) -> models.DecimalField:  # type: ignore[type-arg]
    return models.DecimalField(max_digits=14, decimal_places=8, **options)  # type: ignore[arg-type]


class SessionQuerySet(models.QuerySet["Session"]):
    def open(self) -> SessionQuerySet:
        return self.filter(state=Session.State.OPEN)


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
            again = Session.objects.create(
                key=f"replay-{new_id()}", project=self.project, thread=self.thread, idea=self.idea,
                purpose=self.purpose, mode=self.mode, base=self.base, prompt=self.prompt,
                chain=[model] if model else self.chain, replay_of=self,
            )  # fmt: skip
            for message in self.opening():
                message.pk, message.session, message.left_out = None, again, False
                message.save(force_insert=True)
            AuditEntry.record(
                by, "replay", self.project, thread=self.thread.number, session=self.public_id, model=model
            )
            words = f"{self.purpose} session {self.public_id} replayed by {by}" + (f" with {model}" if model else "")
            Event.record(Event.Kind.SESSION, words, thread=self.thread, actor=by)
        return again

    def opening(self) -> list[Message]:
        """What it began with, before the first reply."""
        first = self.messages.filter(role=Message.Role.ASSISTANT).first()
        return list(self.messages.filter(number__lt=first.number) if first else self.messages.all())


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


class Call(models.Model):
    """One request to a model: what it may cost at most is reserved before, what it did cost is settled after."""

    class State(models.TextChoices):
        ASKED = "asked"
        ANSWERED = "answered"
        FAILED = "failed"
        LOST = "lost"  # its process died; the reserve stays on the account

    session = models.ForeignKey(Session, models.CASCADE, related_name="calls")
    number = models.PositiveIntegerField()
    model = models.CharField(max_length=80, help_text="the lab's name of the model")
    state = models.CharField(max_length=12, choices=State, default=State.ASKED)
    first_message = models.PositiveIntegerField(default=0, help_text="sent: all from here that are not left out")
    reply = models.OneToOneField(Message, models.SET_NULL, null=True, blank=True, related_name="call")
    partial = models.TextField(blank=True, help_text="what has come so far; of a failed call, what had come")
    prompt_tokens = models.PositiveIntegerField(default=0)
    cached_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    estimated = models.BooleanField(default=False, help_text="the endpoint did not count the tokens")
    reserved = money(default=Decimal(0), help_text="the most that it can cost; 0 once it is settled")
    price = money(null=True, blank=True, help_text="None: the price of this model is not known")
    seconds = models.FloatField(null=True, blank=True)
    first_seconds = models.FloatField(null=True, blank=True, help_text="until the first token")
    failure = models.CharField(max_length=20, blank=True)
    note = models.TextField(blank=True)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["session", "number"], name="call_number")]
        ordering = ["number"]

    def __str__(self) -> str:
        return f"call {self.number} of {self.session}"
