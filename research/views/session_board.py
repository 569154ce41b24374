"""What a session's page shows: its messages with the calls that brought them, what is under way, answer and account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from django.db.models import QuerySet
from django.db.models.functions import Length, Substr
from django.utils import timezone

from research.logtext import said
from research.models import Call, Experiment, Idea, Message, Session
from research.repository import Repository
from research.views.difftext import FileDiff
from research.views.session_account import Account, account_of
from research.views.session_text import FOLD, Answer, Text, ToolUse, answer_of, argument_text, diff_of, text_of
from research.views.session_text import tool_uses as uses_of
from research.views.session_text import whole as whole_text

MOST = 500  # messages on one page
STREAM = 4_000  # characters of a reply under way: its end
CAME = 2_000  # characters of what had come of a call that failed
NAMES = {"system": "system prompt", "user": "lab", "assistant": "model", "tool": "tool"}


@dataclass(frozen=True)
class Spoken:
    """One message of the transcript. `before`: calls that brought nothing, made before this one came."""

    message: Message
    who: str
    text: Text | None
    uses: list[ToolUse] = field(default_factory=list)
    call: Call | None = None
    before: list[CallRow] = field(default_factory=list)


@dataclass(frozen=True)
class CallRow:
    """A call that brought no message: it failed, was lost, or is under way. `came`: what had come of its reply."""

    call: Call
    came: str

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return max(0.0, (timezone.now() - self.call.created).total_seconds())


class SessionBoard:
    """Everything is looked up when a template asks; `after`: only what came behind this message is new."""

    def __init__(self, session: Session, after: int = -1) -> None:
        self.session = session
        self.after = after

    @property
    def is_open(self) -> bool:
        return self.session.state == Session.State.OPEN

    @cached_property
    def account(self) -> Account:
        return account_of(self.session.calls.all())

    @cached_property
    def calls(self) -> list[Call]:
        """Without the text of those that were answered: that is their message."""
        return list(self.session.calls.defer("partial").order_by("number"))

    @cached_property
    def spoken(self) -> list[Spoken]:
        rows = self.session.messages.filter(number__gt=self.after)
        rows = rows.annotate(beginning=Substr("content", 1, FOLD + 1), size=Length("content")).defer("content")
        return list(self._entries(list(rows.order_by("number")[:MOST])))

    @property
    def newest(self) -> int:
        """The number of the last message that this answer shows."""
        return self.spoken[-1].message.number if self.spoken else self.after

    @property
    def cut(self) -> bool:
        return len(self.spoken) == MOST

    def _entries(self, messages: list[Message]) -> Iterator[Spoken]:
        brought = {call.reply_id: call for call in self.calls if call.reply_id is not None}
        others = [call for call in self.calls if call.reply_id is None and not self._is_before(call, brought)]
        texts = self._came(others)
        for message in messages:
            call = brought.get(message.pk)
            before = [other for other in others if call is not None and other.number < call.number]
            others = [other for other in others if other not in before]
            text = text_of(message.beginning, message.size) if message.size else None  # type: ignore[attr-defined]
            rows = [CallRow(other, texts.get(other.pk, "")) for other in before]
            who = said(message.name) if message.role == Message.Role.TOOL and message.name else NAMES[message.role]
            yield Spoken(message, who, text, uses_of(message.tool_calls), call, rows)

    def _is_before(self, call: Call, brought: dict[int, Call]) -> bool:
        """Whether a call without a reply stands above what is asked for."""
        return call.number < self._last_shown_call

    @cached_property
    def _last_shown_call(self) -> int:
        """The number of the newest call whose reply stands above what is asked for."""
        if self.after < 0:
            return -1
        shown = self.session.calls.filter(reply__number__lte=self.after).order_by("-number")
        return shown.values_list("number", flat=True).first() or -1

    @staticmethod
    def _came(calls: list[Call]) -> dict[int, str]:
        rows = Call.objects.filter(pk__in=[call.pk for call in calls]).exclude(partial="")
        return {pk: said(text) for pk, text in rows.annotate(came=Substr("partial", 1, CAME)).values_list("pk", "came")}

    @cached_property
    def trailing(self) -> list[CallRow]:
        """Calls after the last reply that brought nothing and are over."""
        last = max((call.number for call in self.calls if call.reply_id is not None), default=-1)
        rows = [c for c in self.calls if c.number > last and c.reply_id is None and c.state != Call.State.ASKED]
        texts = self._came(rows)
        return [CallRow(row, texts.get(row.pk, "")) for row in rows]

    @cached_property
    def asked(self) -> CallRow | None:
        return asked_of(self.session) if self.is_open else None

    @cached_property
    def doing(self) -> str:
        if not self.is_open:
            return ""
        return "the model writes" if self.asked else doing(self.session)

    @property
    def poll(self) -> int:
        """Milliseconds between two looks at an open session; 0 where it is over."""
        return poll_of(self.session, self.asked) if self.is_open else 0

    # What came of it

    @cached_property
    def answer(self) -> Answer | None:
        return answer_of(self.session.answer)

    @cached_property
    def files(self) -> list[FileDiff]:
        """The change that it answers, against the commit that it read."""
        if self.answer is None or not self.answer.files:
            return []
        before = Repository(self.session.project.repository_path).files(self.session.base)
        return [
            diff_of(path, before.get(path, b"").decode("utf-8", "replace"), text, number)
            for number, (path, text) in enumerate(sorted(self.answer.files.items()))
        ]

    @cached_property
    def idea(self) -> Idea | None:
        return self.session.idea

    @cached_property
    def experiment(self) -> Experiment | None:
        if self.idea is None:
            return None
        return Experiment.objects.filter(candidate__idea=self.idea).first()

    @cached_property
    def beside(self) -> list[SessionBoard]:
        """The other answers to the same prompt: the session that this one replays, and replays of either."""
        first = self.session.replay_of or self.session
        rows = [first, *first.replays.order_by("pk")]
        return [SessionBoard(row) for row in rows if row.pk != self.session.pk]

    @cached_property
    def others(self) -> QuerySet[Session]:
        return self.session.thread.sessions.only("public_id", "purpose")

    @cached_property
    def earlier(self) -> Session | None:
        return self.others.filter(pk__lt=self.session.pk).order_by("-pk").first()

    @cached_property
    def later(self) -> Session | None:
        return self.others.filter(pk__gt=self.session.pk).order_by("pk").first()

    def text(self, number: int, call: int | None, argument: str) -> str | None:
        """The whole of one message, or of one argument of a tool call in it."""
        message = self.session.messages.filter(number=number).first()
        if message is None:
            return None
        text = message.content if call is None else argument_text(message.tool_calls, call, argument)
        return None if text is None else whole_text(text)


def asked_of(session: Session) -> CallRow | None:
    """The call that is under way, with the end of what has come."""
    call = session.calls.filter(state=Call.State.ASKED).order_by("-number").first()
    if call is None:
        return None
    cut = "… " if len(call.partial) > STREAM else ""
    return CallRow(call, cut + said(call.partial[-STREAM:]))


def poll_of(session: Session, asked: CallRow | None) -> int:
    if asked is not None:
        return 1_000
    return 5_000 if session.due and session.due > timezone.now() else 2_000


def doing(session: Session) -> str:
    """What an open session does between two calls, in words."""
    if session.due and session.due > timezone.now():
        seconds = (session.due - timezone.now()).total_seconds()
        return f"waits {seconds:.0f} s for the endpoint" + (f": {said(session.note)}" if session.note else "")
    last = session.messages.order_by("-number").first()
    if last is None:
        return "begins"
    if last.role == Message.Role.ASSISTANT and (uses := uses_of(last.tool_calls)):
        return f"performs {uses[0].name}({uses[0].brief})"
    if last.role == Message.Role.TOOL:
        return _between(session, last)
    return "is about to ask" if last.role != Message.Role.ASSISTANT else "reads the reply"


def _between(session: Session, last: Message) -> str:
    """After the answer of a tool: the next call of the same reply, or the model again."""
    reply = session.messages.filter(role=Message.Role.ASSISTANT, number__lt=last.number).last()
    answered = set(
        session.messages.filter(role=Message.Role.TOOL, number__gt=reply.number if reply else 0).values_list(
            "tool_call_id", flat=True
        )
    )
    left = [use for use in uses_of(reply.tool_calls) if use.id not in answered] if reply else []
    return f"performs {left[0].name}({left[0].brief})" if left else "is about to ask"
