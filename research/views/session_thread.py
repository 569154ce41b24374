"""The sessions of a thread, as its page shows them: what a model does now, what that cost, what came of the last."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from research.logtext import said
from research.models import Call, Project, Session, Thread
from research.models.prompt import ASK_MODELS
from research.views.session_account import Account, account_of, accounts_of
from research.views.session_board import CallRow, asked_of, doing, poll_of
from research.views.session_models import Configured, configured
from research.views.session_text import answer_of
from research.views.thread_board import ThreadBoard

LISTED = 6
LINES = 12  # of a reply that streams in


@dataclass(frozen=True)
class Row:
    session: Session
    account: Account
    models: str

    @property
    def outcome(self) -> str:
        """One line: the answer, or why there is none."""
        if answer := answer_of(self.session.answer):
            return answer.title
        why = said(self.session.note).strip().split("\n")[0][:200]
        kind = self.session.failure.replace("_", " ")
        return f"{kind}: {why}" if kind and why else kind or why or ("under way" if self.is_open else "no answer")

    @property
    def is_open(self) -> bool:
        return self.session.state == Session.State.OPEN


@dataclass(frozen=True)
class Cap:
    """Committed against a cap, for a bar."""

    name: str
    committed: Decimal | int
    limit: Decimal | int
    is_money: bool

    @property
    def share(self) -> float:
        return min(1.0, float(self.committed) / float(self.limit)) if self.limit else 1.0

    @property
    def tone(self) -> str:
        return "bad" if self.share >= 1 else "warn" if self.share > 0.8 else ""


class ThreadTalk:
    """`before`: the pk that the list of sessions begins below; None for the newest."""

    def __init__(self, thread: Thread, before: int | None, board: ThreadBoard) -> None:
        self.thread, self.before, self.board = thread, before, board

    @cached_property
    def shown(self) -> bool:
        """Whether this thread talks to models at all."""
        return self.thread.researcher in ASK_MODELS or self.thread.sessions.exists()

    @cached_property
    def models(self) -> Configured:
        return configured()

    @cached_property
    def current(self) -> Session | None:
        """What is under way: the session whose call runs, else the oldest open one; replays last."""
        mine = list(self.thread.sessions.open().order_by("replay_of", "pk"))
        mine.sort(key=lambda session: session.replay_of_id is not None)
        asked = Call.objects.filter(session__in=mine, state=Call.State.ASKED).values_list("session", flat=True)
        busy = set(asked)
        return next((session for session in mine if session.pk in busy), mine[0] if mine else None)

    @cached_property
    def asked(self) -> CallRow | None:
        found = asked_of(self.current) if self.current else None
        return CallRow(found.call, "\n".join(found.came.split("\n")[-LINES:])) if found else None

    @cached_property
    def doing(self) -> str:
        return doing(self.current) if self.current else ""

    @cached_property
    def turn(self) -> int:
        return self.current.calls.count() if self.current else 0

    @property
    def poll(self) -> int:
        """Milliseconds between two looks; 0 where nothing is under way."""
        return poll_of(self.current, self.asked) if self.current else 0

    @cached_property
    def _listed(self) -> list[Session]:
        rows = self.thread.sessions.select_related("idea", "replay_of").order_by("-pk")
        return list((rows.filter(pk__lt=self.before) if self.before is not None else rows)[: LISTED + 1])

    @cached_property
    def rows(self) -> list[Row]:
        listed = self._listed[:LISTED]
        accounts, models = accounts_of(listed), _models(listed)
        return [Row(row, accounts[row.pk], models.get(row.pk, "")) for row in listed]

    @property
    def older(self) -> int | None:
        return self._listed[LISTED - 1].pk if len(self._listed) > LISTED else None

    @cached_property
    def account(self) -> Account:
        return account_of(Call.objects.filter(session__thread=self.thread))

    @property
    def per_gain(self) -> Decimal | None:
        """Money a confirmed gain of this thread; None before the first, and where prices are not known."""
        gains = self.board.cost.gains
        return self.account.committed / gains if gains and self.account.is_priced else None

    @cached_property
    def caps(self) -> list[Cap]:
        """Money and tokens that are committed, against every cap that there is."""
        project: Project = self.thread.project
        found = []
        if self.thread.max_money is not None:
            found.append(Cap("money of this thread", self.account.committed, self.thread.max_money, True))
        if project.max_money is not None or project.max_tokens is not None:
            spent = account_of(Call.objects.filter(session__project=project))
            if project.max_money is not None:
                found.append(Cap("money of the project", spent.committed, project.max_money, True))
            if project.max_tokens is not None:
                found.append(Cap("tokens of the project", spent.tokens, project.max_tokens, False))
        return found


def _models(sessions: list[Session]) -> dict[int, str]:
    """Which models answered, by the session's pk; the chain where none has yet."""
    found: dict[int, list[str]] = {}
    calls = Call.objects.filter(session__in=sessions).order_by("number")
    for session, model in calls.values_list("session_id", "model"):
        if model not in found.setdefault(session, []):
            found[session].append(model)
    return {row.pk: ", ".join(found.get(row.pk) or [str(name) for name in row.chain[:1]]) for row in sessions}
