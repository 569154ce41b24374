"""Every way in which a model can fail ends in its designed state; caps stop before they are passed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from research.loop import converse
from research.loop.advance import advance_until_idle
from research.models import Call, Message, Project, Session, Thread
from research.researchers.llm.conversation import FORMAT_TRIES
from tests.cast import go, step
from tests.llm_play import EDIT, IDEA, KEY, asked, begin_llm, calls, script, spec_of, talk
from tests.model_play import Answer, ScriptedModel, say

pytestmark = pytest.mark.django_db
DONE = calls(finish_idea=IDEA)


@pytest.fixture
def project(db: None, toy: None) -> Project:
    return begin_llm()


def ask(thread: Thread, monkeypatch: pytest.MonkeyPatch, *answers: Answer, again: int = 6, **spec: Any) -> Session:
    """Open the first session of a thread and carry it on; waits are over at once."""
    with ScriptedModel(*answers) as model, asked(monkeypatch, it := spec_of(model, **spec)):
        step(thread)
        for _ in range(again):
            talk(it)
            Session.objects.filter(due__isnull=False).update(due=timezone.now())
    return Session.objects.order_by("pk").first()  # type: ignore[return-value]


def failures(session: Session) -> list[str]:
    return list(session.calls.filter(state=Call.State.FAILED).values_list("failure", flat=True))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(status=429, headers={"Retry-After": "7"}), "rate_limited"),
        (Answer(status=503), "unavailable"),
        (say("I think that", cut=4), "cut_off"),
        (Answer(status=400, error="too long", code="context_length_exceeded"), "context_full"),
    ],
)  # fmt: skip
def test_what_passes_is_asked_again(thread: Thread, monkeypatch: pytest.MonkeyPatch, answer: Answer, kind: str) -> None:
    session = ask(thread, monkeypatch, answer, DONE)
    assert session.state == Session.State.ENDED and failures(session) == [kind]
    assert session.messages.filter(role="assistant").count() == 1  # what came of the first is no message
    failed = session.calls.get(state=Call.State.FAILED)
    assert (failed.reserved > 0) == (kind == "cut_off")  # only what may be charged for stays on the account


def test_an_endpoint_that_asks_for_time_gets_it(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ask(thread, monkeypatch, Answer(status=429, headers={"Retry-After": "700"}), again=1)
    assert session.state == Session.State.OPEN and session.calls.count() == 1
    assert not Session.objects.askable().exists() or session.due is not None


@pytest.mark.parametrize(
    ("answer", "kind", "halts"),
    [
        (Answer(status=401, error=f"bad key {KEY}"), "unauthorized", True),
        (Answer(status=429, error="no money left", code="insufficient_quota"), "unauthorized", True),
        (Answer(status=400, error="unknown field"), "bad_request", True),
        (Answer(status=503), "unavailable", False),
        (Answer(refusal="I cannot help with that"), "refused", False),
        (say("I would rather talk."), "format", False),
        (calls(finish_idea="{not json"), "format", False),
        (calls(finish_idea={"title": "no more"}), "format", False),
        (calls(list_files={}), "repeats", False),
    ],
)
def test_what_does_not_pass_fails_the_session_with_its_kind(
    thread: Thread, monkeypatch: pytest.MonkeyPatch, answer: Answer, kind: str, halts: bool
) -> None:
    with ScriptedModel(answer) as model, asked(monkeypatch, spec := spec_of(model)):
        step(thread)
        for _ in range(8):
            talk(spec)
            Session.objects.filter(due__isnull=False).update(due=timezone.now())
        session = Session.objects.get()
        assert (session.state, session.failure) == (Session.State.FAILED, kind), session.note
        step(thread)
    thread.refresh_from_db()
    assert (thread.state == Thread.State.HALTED) == halts and session.note.rstrip(".") in thread.note
    assert KEY not in thread.note + session.note + "".join(session.calls.values_list("note", flat=True))
    assert session.calls.count() <= 2 + FORMAT_TRIES


def test_three_failed_sessions_in_a_row_halt_the_thread_and_resuming_goes_on(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedModel(say("no tools, only words")) as model, asked(monkeypatch, spec := spec_of(model)):
        for _ in range(5):
            go_or_halt(thread), talk(spec)
    assert Session.objects.count() == 3
    assert thread.state == Thread.State.HALTED and "3 sessions to propose failed in a row" in thread.note
    thread.resume()
    with ScriptedModel(DONE) as model, asked(monkeypatch, spec := spec_of(model)):
        go(thread), talk(spec), go(thread)
    assert thread.ideas.count() == 1


def go_or_halt(thread: Thread) -> None:
    advance_until_idle(thread.pk)
    thread.refresh_from_db()


def test_a_model_that_is_away_hands_over_to_the_next_of_the_chain(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedModel(Answer(status=503)) as away, ScriptedModel(DONE) as there:
        first, second = spec_of(away, "first"), spec_of(there, "second")
        with asked(monkeypatch, first, second):
            step(thread)
            Session.objects.update(chain=["first", "second"])  # who is asked first is chosen by yield
            for _ in range(6):
                talk(first, second)
                Session.objects.filter(due__isnull=False).update(due=timezone.now())
            step(thread)
    assert len(away.requests) == converse.TRIES["unavailable"] and len(there.requests) == 1
    assert thread.ideas.get().model == "second"


def test_a_cap_stops_before_it_is_passed_and_raising_it_goes_on_where_it_was(
    thread: Thread, project: Project, reviewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    Project.objects.update(max_money=Decimal("0.025"))
    answers = [replace(calls(read_file={"path": "train.py"}), usage=(1_000, 0, 5_000)), DONE]
    with ScriptedModel(*answers) as model, asked(monkeypatch, spec := spec_of(model, reply_tokens=9_000)):
        step(thread), talk(spec)
        session = Session.objects.get()
        assert (session.state, session.failure) == (Session.State.STOPPED, "cap_reached"), session.note
        assert len(model.requests) == 1 and session.spent().money <= Decimal("0.025")
        assert step(thread) is None
        thread.refresh_from_db()
        assert thread.state == Thread.State.FINISHED and "raise its budget of money" in thread.note
        Project.objects.get().set_budget(reviewer, max_money=1)
        talk(spec), go(thread)
        assert len(model.requests) == 2  # the first reply was not asked for again
    assert thread.ideas.count() == 1 and Session.objects.filter(purpose="propose").count() == 1


@pytest.mark.parametrize(("cap", "words"), [({"max_tokens": 500}, "tokens"), ({"max_money": 5}, "price of the model")])
def test_what_cannot_be_kept_is_never_asked(
    thread: Thread, monkeypatch: pytest.MonkeyPatch, cap: dict[str, int], words: str
) -> None:
    Project.objects.update(**cap)
    with ScriptedModel(DONE) as model, asked(monkeypatch, spec := spec_of(model, price_in=None)):
        step(thread), talk(spec), step(thread)
    thread.refresh_from_db()
    assert model.requests == [] and words in thread.note and not Call.objects.exists()


def test_the_cap_of_a_thread_counts_its_own_calls(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    Thread.objects.update(max_money=Decimal("0.0001"))
    with ScriptedModel(DONE) as model, asked(monkeypatch, spec := spec_of(model)):
        step(thread), talk(spec), step(thread)
    assert model.requests == [] and "the thread may spend" in Thread.objects.get().note


def test_steering_stops_what_is_being_thought_of(thread: Thread, member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedModel(calls(list_files={}), DONE) as model, asked(monkeypatch, spec := spec_of(model)):
        step(thread), talk(spec, limit=1)
        thread.steer(member, [], ["DELTA".lower()], "leave it")
        session = Session.objects.get()
        assert (session.state, session.failure) == (Session.State.STOPPED, "steered")
        thread.refresh_from_db()
        go(thread), talk(spec), go(thread)
    assert Session.objects.filter(purpose="propose").count() == 2
    assert "leave alone: delta" in Session.objects.filter(purpose="propose").latest("pk").messages.get(number=1).content
    assert thread.ideas.count() == 1


def test_a_paused_thread_asks_nothing_and_a_resumed_one_goes_on(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedModel(DONE) as model, asked(monkeypatch, spec := spec_of(model)):
        step(thread)
        thread.pause()
        assert talk(spec) == 0 and model.requests == []
        thread.resume()
        assert talk(spec) > 0
    assert Session.objects.get().state == Session.State.ENDED


def test_calls_outside_the_workspace_are_refused_and_recorded(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = [
        calls(write_file={"path": "../evil.py", "text": "x = 1"}),
        calls(write_file={"path": "benchmark.toml", "text": "mine"}),
        calls(read_file={"path": "/etc/passwd"}),
        calls(shell={"command": "id"}),
        calls(replace=EDIT),
        calls(finish_change={"summary": "done"}),
    ]
    with ScriptedModel(DONE, *outside) as model, asked(monkeypatch, spec := spec_of(model)):
        go(thread), talk(spec), go(thread), talk(spec), go(thread)
    assert Message.objects.filter(refused=True).count() == 4
    assert thread.candidates.get().diff.files == [{"path": "train.py", "added": 1, "removed": 1}]


def test_a_review_that_asks_for_a_revision_is_heard_once(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(body: dict[str, Any]) -> Answer:
        if any(tool["function"]["name"] == "finish_review" for tool in body["tools"]):
            finding = {"severity": "blocker", "text": "ALPHA must not be 3", "path": "train.py", "line": 3}
            return calls(finish_review={"advice": "revise", "findings": [finding]})
        return script(body)

    roles = ("propose", "implement", "review")
    with ScriptedModel(script=picky) as model, asked(monkeypatch, spec := spec_of(model, roles=roles)):
        for _ in range(6):
            go(thread), talk(spec)
    implement = Session.objects.filter(purpose="implement", idea=thread.ideas.order_by("pk").first())
    assert implement.count() == 2 and "ALPHA must not be 3" in implement.latest("pk").messages.get(number=1).content
    assert Session.objects.filter(purpose="review").count() == 1
    assert thread.candidates.count() == 1
