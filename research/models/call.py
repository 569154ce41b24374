"""Call: one request to a model, and the account that calls stand on.

What a call may cost at most is reserved before it is made, and only where every cap would still hold if it did cost
that; what it did cost is settled in the transaction that stores the reply. A call whose process died, or whose line
broke, may have been charged for in full: its reserve stays on the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING

from django.db import models, transaction
from django.db.models import F, Max, Q, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from research.models.project import Project
from research.models.session import Message, Session
from research.models.thread import Thread

if TYPE_CHECKING:
    from research.researchers.llm.wire import Reply

SMALLEST = Decimal("0.00000001")


class OverCap(Exception):
    """The next call could pass a cap on committed spend: it is not made. One line that says which, and what to do."""


class HoldLost(Exception):
    """The session ended, or is somebody else's by now: nothing more is done on it here."""


@dataclass(frozen=True)
class Ceiling:
    """The most that a call can take: `money` None where the price of the model is not known."""

    prompt_tokens: int
    reply_tokens: int
    money: Decimal | None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.reply_tokens


@dataclass(frozen=True)
class Committed:
    """What calls cost, and may still cost. `unpriced`: calls of models without a price, which `money` leaves out."""

    calls: int
    money: Decimal  # settled and reserved together
    reserved: Decimal
    tokens: int
    unpriced: int
    lost: int


class CallQuerySet(models.QuerySet["Call"]):
    def under_way(self) -> CallQuerySet:
        return self.filter(state=Call.State.ASKED)

    def committed(self) -> Committed:
        zero = Decimal(0)
        found = self.order_by().aggregate(
            calls=models.Count("pk"),
            money=Sum(Coalesce(F("price"), zero, output_field=money()) + F("reserved"), output_field=money()),
            reserved=Sum("reserved"),
            tokens=Sum(F("prompt_tokens") + F("completion_tokens")),
            unpriced=models.Count("pk", filter=Q(state=Call.State.ANSWERED, price=None)),
            lost=models.Count("pk", filter=Q(state=Call.State.LOST)),
        )
        spent, reserved = (Decimal(found[name] or 0).quantize(SMALLEST) for name in ("money", "reserved"))
        return Committed(found["calls"], spent, reserved, found["tokens"] or 0, found["unpriced"], found["lost"])


def money(**options: object) -> models.DecimalField:  # type: ignore[type-arg]
    return models.DecimalField(max_digits=14, decimal_places=8, **options)  # type: ignore[arg-type]


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

    objects = CallQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["session", "number"], name="call_number")]
        ordering = ["number"]

    def __str__(self) -> str:
        return f"call {self.number} of {self.session}"

    @classmethod
    def reserve(cls, session: Session, owner: str, model: str, most: Ceiling, note: str = "") -> Call:
        """Put the most that the next call can cost on the account, before it is made.

        Raises OverCap where a cap could be passed, HoldLost where the session is not this owner's any more.
        """
        with transaction.atomic():
            project = Project.objects.select_for_update().get(pk=session.project_id)
            if not session.is_held_by(owner):
                raise HoldLost
            keep_caps(project, Thread.objects.get(pk=session.thread_id), model, most)
            last = session.calls.aggregate(last=Max("number"))["last"]
            return cls.objects.create(
                session=session, number=0 if last is None else last + 1, model=model, note=note, estimated=True,
                prompt_tokens=most.prompt_tokens, completion_tokens=most.reply_tokens,
                reserved=(most.money or Decimal(0)).quantize(SMALLEST, rounding=ROUND_UP),
            )  # fmt: skip

    def stream(self, text: str) -> None:
        """What has come so far, for whoever watches."""
        Call.objects.under_way().filter(pk=self.pk).update(partial=text)

    def settle(self, owner: str, reply: Reply, price: Decimal | None) -> bool:
        """Store the reply and what it cost, together. False where the session is not this owner's any more.

        Then its cost still counts, and its words stay in `partial`.
        """
        said, usage = reply.message, reply.usage
        cost = {
            "state": self.State.ANSWERED, "reserved": Decimal(0), "price": price, "prompt_tokens": usage.prompt,
            "cached_tokens": usage.cached, "completion_tokens": usage.completion, "estimated": usage.estimated,
            "seconds": reply.seconds, "first_seconds": reply.first_seconds,
        }  # fmt: skip
        with transaction.atomic():
            mine = Session.objects.select_for_update().open().filter(pk=self.session_id, held_by=owner).first()
            stored = None
            if mine is not None:
                calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in said.tool_calls]
                stored = mine.add(Message.Role.ASSISTANT, said.content, tool_calls=calls)
                Session.objects.filter(pk=self.session_id).update(due=None)
            unsettled = Call.objects.filter(pk=self.pk, state__in=(self.State.ASKED, self.State.LOST))
            unsettled.update(reply=stored, partial="" if stored else said.content, **cost)
        self.refresh_from_db()
        return stored is not None

    def fail(self, kind: str, note: str, charged: bool, text: str = "") -> None:
        """It brought no usable reply. `charged`: the endpoint may charge for it, so the reserve stays."""
        fields = {} if charged else {"reserved": Decimal(0), "prompt_tokens": 0, "completion_tokens": 0}
        seconds = (timezone.now() - self.created).total_seconds()
        Call.objects.under_way().filter(pk=self.pk).update(
            state=self.State.FAILED, failure=kind, note=note, partial=text, seconds=seconds, **fields
        )
        self.refresh_from_db()

    def lose(self) -> None:
        """Its process died. Whether the endpoint charges for it is not known here: the reserve stays."""
        note = "the process that asked was gone before the reply was stored; asked again"
        Call.objects.under_way().filter(pk=self.pk).update(state=self.State.LOST, failure="lost", note=note)


def keep_caps(project: Project, thread: Thread, model: str, most: Ceiling) -> None:
    """Raises OverCap where this call, at its most, could pass a cap of the project or of the thread."""
    spent = Call.objects.filter(session__project=project).committed()
    if project.max_tokens is not None and spent.tokens + most.tokens > project.max_tokens:
        raise OverCap(
            f"the next call can take {most.tokens:,} tokens, and {spent.tokens:,} of the {project.max_tokens:,} that "
            "the project may spend are committed; raise its budget of tokens to go on"
        )
    mine = Call.objects.filter(session__thread=thread)
    for cap, what, committed in (
        (project.max_money, "project", spent.money),
        (thread.max_money, "thread", mine.committed().money if thread.max_money is not None else Decimal(0)),
    ):
        if cap is None:
            continue
        if most.money is None:
            raise OverCap(
                f"the price of the model {model} is not known, so the {what}'s cap on money cannot be kept; "
                "set the model's prices, or lift the cap"
            )
        if committed + most.money > cap:
            raise OverCap(
                f"the next call can cost {most.money:.4f}, and {committed:.4f} of the {cap:.4f} that the {what} may "
                "spend on models are committed; raise its budget of money to go on"
            )
