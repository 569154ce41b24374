"""What was tried in a project, what it cost and what it brought: one record an idea, oldest first.

The sums of a finished experiment never change, so the account is kept until something ends, is proposed or is paid for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from django.db.models import Count, DecimalField, F, Min, Sum
from django.db.models.functions import Coalesce

from research.models import Call, Event, Experiment, Idea, Project, Result, Session, Thread
from research.validation.predictions import shrunk
from research.validation.records import Rule, VerdictKind
from research.validation.yields import KIND_MODES, Outcome, Tried

COMBINATION = "combination"  # who: the lab itself, by git
Paid = tuple[float, int]  # money and tokens
FIELDS = (
    "pk", "number", "thread__number", "researcher", "model", "mode", "kind", "state", "expected_effect",
    "candidate__experiment__number", "candidate__experiment__state", "candidate__experiment__verdict__kind",
    "candidate__experiment__verdict__near_miss", "candidate__experiment__lesson__effect",
    "candidate__experiment__lesson__pairs",
)  # fmt: skip


def tried(project: Project) -> tuple[Tried, ...]:
    """Every idea of the project, and every session that was paid for and brought none."""
    tau = Rule.from_json(project.rule).shrink_tau
    return _tried(project.pk, project.public_id, tau, _key(project))


def of_thread(thread: Thread) -> list[Tried]:
    return [one for one in tried(thread.project) if one.thread == thread.number]


def paid(calls: Any) -> Paid:
    """Money and tokens of calls: the price where it is known, what was reserved for those under way or lost."""
    sums = calls.aggregate(money=_MONEY, tokens=_TOKENS)
    return float(sums["money"] or 0), sums["tokens"] or 0


_MONEY = Sum(Coalesce(F("price"), Decimal(0), output_field=DecimalField()) + F("reserved"))
_TOKENS = Sum(F("prompt_tokens") + F("completion_tokens"))


def _key(project: Project) -> tuple[object, ...]:
    """Changes with the account: what is proposed, ends or is learned is told by an event, what is paid by its call."""
    told = Event.objects.filter(project=project).notable().order_by("-seq").values_list("seq", flat=True).first()
    calls = Call.objects.filter(session__project=project).aggregate(n=Count("pk"), money=_MONEY, tokens=_TOKENS)
    return told, *calls.values()


@lru_cache(maxsize=16)
def _tried(pk: int, public_id: str, tau: float, key: tuple[object, ...]) -> tuple[Tried, ...]:
    results = Result.objects.filter(trial__project=pk, trial__experiment__candidate__isnull=False)
    by_idea = results.order_by().values_list("trial__experiment__candidate__idea")
    seconds = dict(by_idea.annotate(total=Sum("device_seconds")))
    calls = Call.objects.filter(session__project=pk, session__idea__isnull=False).order_by()
    spent = {
        idea: (float(money or 0), tokens or 0)
        for idea, money, tokens in calls.values_list("session__idea").annotate(money=_MONEY, tokens=_TOKENS)
    }
    ideas = Idea.objects.filter(thread__project=pk, candidate__carried_from=None).order_by("pk").values_list(*FIELDS)
    found = [_one(row, seconds.get(row[0], 0.0), spent.get(row[0], (0.0, 0)), tau) for row in ideas]
    return (*_fruitless(pk), *found)


def _one(row: Sequence[Any], seconds: float, spent: Paid, tau: float) -> Tried:
    _, number, thread, researcher, model, mode, kind, state, expected, *measured = row
    experiment, running, verdict, near, effect, pairs = measured
    outcome = _outcome(state, running, verdict, near)
    return Tried(
        idea=number,
        thread=thread,
        researcher=COMBINATION if kind == Idea.Kind.COMBINATION else researcher,
        model=model,
        mode=mode or str(KIND_MODES.get(kind, "")),
        outcome=outcome,
        predicted=expected,
        measured=None if effect is None or verdict is None else shrunk(effect, pairs or 0, tau),
        experiment=experiment,
        device_seconds=seconds,
        money=spent[0],
        tokens=spent[1],
    )


def _outcome(state: str, running: str | None, verdict: str | None, near: bool | None) -> Outcome:
    if state == Idea.State.REFUSED:
        return Outcome.REFUSED
    if running == Experiment.State.CANCELLED:
        return Outcome.CANCELLED
    if verdict is None:
        return Outcome.WAITING
    if verdict == str(VerdictKind.IMPROVED):
        return Outcome.CONFIRMED
    if verdict == str(VerdictKind.INVALID):
        return Outcome.FAILED
    return Outcome.NEAR_MISS if near else Outcome.NO_GAIN


def _fruitless(pk: int) -> Iterator[Tried]:
    """Sessions without an idea: what was paid for them counts against whoever was asked."""
    calls = Call.objects.filter(session__project=pk, session__idea=None).order_by()
    grouped = calls.values_list("session", "session__thread__number", "session__mode", "session__state").annotate(
        money=_MONEY, tokens=_TOKENS, model=Min("model")
    )
    for _, thread, mode, state, money, tokens, model in grouped:
        outcome = Outcome.WAITING if state == Session.State.OPEN else Outcome.NO_IDEA
        yield Tried(0, thread, "llm", model, mode, outcome, 0.0, None, None, 0.0, float(money or 0), tokens or 0)
